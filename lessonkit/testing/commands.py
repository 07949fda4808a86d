"""The commands for notebooks, the course's own or another folder's.

    python -m lessonkit.testing lint FOLDER          report what is wrong
    python -m lessonkit.testing lint --fix FOLDER    mend what can be mended, report the rest
    python -m lessonkit.testing refresh FOLDER       run them and keep their new outputs
    python -m lessonkit.testing run FOLDER           run them; fail where an output differs
    python -m lessonkit.testing portable FOLDER      the same, as other machines would
    python -m lessonkit.testing slowest FOLDER       run them and list the slowest cells
    python -m lessonkit.testing measure FOLDER       run them; minutes and memory

Exit status: 0 all is well; 1 there are findings, an output differs, or a cell raised; 2 wrong
arguments.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from lessonkit.testing.measure import measure_all
from lessonkit.testing.notebooks import (
    Finding,
    lint,
    list_slowest,
    refresh,
    use_reproducible_environment,
)
from lessonkit.testing.portable import SETTINGS, run


def notebooks_in(paths: Sequence[Path]) -> list[Path]:
    """The notebooks named, and those inside the folders named, without Jupyter's checkpoints."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
        found += [p for p in inside if ".ipynb_checkpoints" not in p.parts]
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when all is well."""
    parser = _parser()
    options = parser.parse_args(arguments)
    missing = [path for path in options.paths if not path.exists()]
    if missing:
        parser.error(f"no such file or folder: {', '.join(map(str, missing))}")
    if options.command == "run":
        return 0 if run(options.paths, workers=options.workers) else 1
    if options.command == "portable":
        return _portable(options)
    found: list[Finding] = []
    paths = notebooks_in(options.paths)
    if options.command == "measure":
        return 0 if measure_all(paths, options.least) else 1
    if options.command in ("refresh", "slowest"):
        use_reproducible_environment()
    if options.command == "slowest":
        list_slowest(paths, options.count)
        return 0
    for path in paths:
        if options.command == "lint":
            found += lint(path, fix=options.fix)
        else:
            print(f"running {path}", flush=True)
            found += refresh(path)
    for finding in found:
        print(finding)
    print(f"{len(paths)} notebooks, {len(found)} findings")
    return 1 if found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lessonkit.testing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    linting = commands.add_parser("lint", help="report what is wrong")
    linting.add_argument("--fix", action="store_true", help="mend what can be mended")
    refreshing = commands.add_parser("refresh", help="run, and keep the new outputs")
    running = commands.add_parser("run", help="run; fail where an output differs")
    elsewhere = commands.add_parser("portable", help="run as other machines would")
    timing = commands.add_parser("slowest", help="run, and list the slowest cells")
    costing = commands.add_parser("measure", help="run on any model; print minutes and memory")
    timing.add_argument("--count", type=int, default=20, metavar="N")
    costing.add_argument(
        "--least", type=float, default=10, metavar="SECONDS", help="which cells to print; 10"
    )
    elsewhere.add_argument(
        "--setting",
        action="append",
        choices=SETTINGS,
        help="a machine to stand in for; may be repeated; all unless given",
    )
    for command in (running, elsewhere):
        command.add_argument("--workers", type=int, default=1, metavar="N", help="at once")
    for command in (linting, refreshing, running, elsewhere, timing, costing):
        command.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    return parser


def _portable(options: argparse.Namespace) -> int:
    names = options.setting or list(SETTINGS)
    failed = [name for name in names if not run(options.paths, name, workers=options.workers)]
    print(f"failed: {', '.join(failed)}" if failed else "every setting passes")
    return 1 if failed else 0
