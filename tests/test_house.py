"""The house rules that no other tool checks: what may import what, and what must agree."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from lessonkit.testing.notebooks import parse
from lessonkit.testing.rules import MACHINE_PATH

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lessonkit"
MODULES = sorted(PACKAGE.rglob("*.py"))
EVERYWHERE = ("errors", "progress")
# Each room, and what it may import besides itself and these two.
MAY_IMPORT = {
    "formats": (),
    "files": ("formats",),
    "hub": ("files",),
    "llama": ("files", "formats"),
    "quantize": ("formats",),
    "models": ("hub", "llama", "files"),
    "convert": ("files", "formats", "llama", "quantize", "models", "hub"),
    "evaluate": ("models", "llama", "files", "formats"),
    "run": ("models", "llama", "files", "convert"),
    "course": (
        "formats", "files", "hub", "llama", "quantize", "models", "convert", "evaluate", "run",
    ),
    "testing": (),
    "cli": (
        "formats", "files", "hub", "llama", "quantize", "models", "convert", "evaluate", "run",
    ),
}  # fmt: skip


def dotted(path: Path) -> str:
    """The module's name: lessonkit/files/checkpoint.py -> lessonkit.files.checkpoint."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def own_files(*endings: str) -> list[Path]:
    """The repository's files with these endings: tracked, or new and not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    paths = {ROOT / name for name in listed if name.endswith(endings)}
    return sorted(path for path in paths if path.is_file())


# --- imports ----------------------------------------------------------------------------------


def imported(path: Path) -> Iterator[str]:
    """Every name of this package that a module imports anywhere, in full."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("lessonkit"))
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            if base.split(".")[0] == "lessonkit":
                yield from (f"{base}.{alias.name}" for alias in node.names)


def room(name: str) -> str | None:
    """The room that a name of this package lives in; None for the package itself."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in (*MAY_IMPORT, *EVERYWHERE) else None


def test_every_module_stands_in_a_room() -> None:
    strays = [p for p in MODULES if p != PACKAGE / "__init__.py" and room(dotted(p)) is None]
    assert not strays


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    here = room(dotted(path))
    allowed = {here, *EVERYWHERE, *MAY_IMPORT.get(here or "", ())}
    if here in EVERYWHERE:
        allowed = {*EVERYWHERE}
    wrong = [
        name for name in imported(path) if room(name) is not None and room(name) not in allowed
    ]
    assert not wrong, f"{dotted(path)} may import from {sorted(filter(None, allowed))}"


@pytest.mark.parametrize("name", MAY_IMPORT)
def test_a_room_says_what_is_public(name: str) -> None:
    if name != "cli":
        module = importlib.import_module(f"lessonkit.{name}")
        assert all(hasattr(module, public) for public in module.__all__)


def notebook_imports() -> Iterator[tuple[str, str]]:
    """Every module of this package that a notebook imports from, and where."""
    for path in own_files(".ipynb"):
        for cell in parse(path.read_text(encoding="utf-8")).cells:
            if cell.cell_type == "code":
                for module in re.findall(
                    r"^\s*(?:from|import) (lessonkit[\w.]*)", cell.source, re.M
                ):
                    yield f"{path.name}: {cell.id}", module


def test_lessons_import_from_rooms() -> None:
    rooms = {f"lessonkit.{name}" for name in (*MAY_IMPORT, *EVERYWHERE)} | {"lessonkit"}
    assert not [(where, name) for where, name in notebook_imports() if name not in rooms]


def test_the_package_and_its_formats_load_neither_torch_nor_transformers() -> None:
    light = ["lessonkit", "lessonkit.cli", "lessonkit.errors"]
    light += [f"lessonkit.{name}" for name in MAY_IMPORT]
    code = (
        f"import sys, {', '.join(light)}\n"
        "print([m for m in ('torch', 'transformers', 'matplotlib', 'datasets', 'pandas')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# --- tests mirror the package -----------------------------------------------------------------


def has_code(path: Path) -> bool:
    """Whether a module holds anything beside its docstring, imports and constants."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(isinstance(n, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) for n in body)


def test_every_module_with_code_has_its_test_file() -> None:
    missing = []
    for path in MODULES:
        inside = path.relative_to(PACKAGE)
        test = ROOT / "tests" / inside.with_name(f"test_{inside.name}")
        if inside.parts[0] == "cli":  # its handlers are tested as the commands that they are
            continue
        if path.name != "__init__.py" and has_code(path) and not test.is_file():
            missing.append(str(test.relative_to(ROOT)))
    assert not missing


def test_every_test_file_of_a_room_is_named_after_a_module() -> None:
    """test_meta.py tests meta.py; so may test_meta_killed.py, where one file would be too long."""
    stray = []
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        folder = PACKAGE / test.parent.relative_to(ROOT / "tests")
        modules = tuple(path.stem for path in folder.glob("*.py"))
        in_a_room = folder not in (PACKAGE, PACKAGE / "cli") and folder.is_dir()
        if in_a_room and not test.stem.removeprefix("test_").startswith(modules):
            stray.append(str(test.relative_to(ROOT)))
    assert not stray


def test_every_module_says_what_it_is() -> None:
    silent = [
        path
        for path in own_files(".py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not silent


# --- versions ---------------------------------------------------------------------------------


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pins(name: str) -> list[Requirement]:
    """The requirements in a lock file."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, with these extras."""
    optional = project()["optional-dependencies"]
    texts = project()["dependencies"] + [text for extra in extras for text in optional[extra]]
    return [Requirement(text) for text in texts]


PYTHONS = ("3.11.4", "3.11.9", "3.12.1", "3.13.0")


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-gptq.lock"])
def test_a_lock_pins_each_package_once_for_each_python(name: str) -> None:
    for python in PYTHONS:
        environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
        seen = [
            canonicalize_name(pin.name)
            for pin in pins(name)
            if (pin.marker or Marker("python_version > '3'")).evaluate(environment)
        ]
        assert sorted(set(seen)) == sorted(seen)
    assert all(re.fullmatch(r"==[^*]+", str(pin.specifier)) for pin in pins(name))


def test_the_lock_has_a_fitting_version_of_all_that_the_project_asks_for() -> None:
    locked = {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins("requirements.lock") + pins("requirements-gptq.lock")
    }
    assert set(project()["optional-dependencies"]) == {"lab", "engines", "gptq", "test"}
    for requirement in wanted("lab", "engines", "gptq", "test"):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in a lock"
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"
    assert locked["torch"] == "2.13.0"


def test_no_range_of_torch_is_open_below() -> None:
    assert all(str(requirement.specifier) for requirement in wanted("lab", "engines", "test"))


def test_conda_installs_the_lock_itself_on_a_python_that_fits() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python = next(d for d in conda["dependencies"] if str(d).startswith("python="))
    fits = SpecifierSet(project()["requires-python"])
    assert fits.contains(python.removeprefix("python="))
    (by_pip,) = [d["pip"] for d in conda["dependencies"] if isinstance(d, dict)]
    assert by_pip == ["-r requirements.lock", "-e .[lab,engines,test]"]


def test_the_installed_versions_are_those_of_the_lock() -> None:
    from importlib.metadata import PackageNotFoundError, version

    wrong = []
    for pin in pins("requirements.lock"):
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            found = version(pin.name).split("+")[0]  # a build's label, such as +cpu, is free
        except PackageNotFoundError:
            found = "nothing"
        if not pin.specifier.contains(found):
            wrong.append(f"{pin} (found {found})")
    assert not wrong, "the environment differs from requirements.lock: run `make set-up`"


# --- what no file may hold --------------------------------------------------------------------


def python_sources() -> Iterator[tuple[str, str]]:
    """All Python of the repository, that of the notebooks included: where, and the code."""
    from IPython.core.inputtransformer2 import TransformerManager

    for path in own_files(".py"):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    for path in own_files(".ipynb"):
        for cell in parse(path.read_text(encoding="utf-8")).cells:
            if cell.cell_type == "code":
                place = f"{path.relative_to(ROOT)}: cell {cell.get('id')}"
                yield place, TransformerManager().transform_cell(cell.source)


def unsafe_loads(source: str) -> list[int]:
    """The lines that unpickle what a file says: torch.load unless it is told weights_only=True."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        flags = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        unpickles = name in ("pickle.load", "pickle.loads", "joblib.load", "dill.load")
        if (
            unpickles
            or (name == "torch.load" and flags.get("weights_only") is not True)
            or flags.get("allow_pickle") is True
        ):
            lines.append(node.lineno)
    return lines


def test_unsafe_loads_are_seen() -> None:
    assert unsafe_loads("torch.load(p)") == [1]
    assert unsafe_loads("torch.load(p, weights_only=False)") == [1]
    assert unsafe_loads("\npickle.loads(b)") == [2]
    assert unsafe_loads("np.load(p, allow_pickle=True)") == [1]
    assert unsafe_loads("torch.load(p, map_location='cpu', weights_only=True)") == []


def test_no_file_is_unpickled_unless_its_weights_only() -> None:
    found = {place: lines for place, source in python_sources() if (lines := unsafe_loads(source))}
    assert not found


TEXTS = (
    ".model",
    ".py",
    ".md",
    ".toml",
    ".yml",
    ".lock",
    ".json",
    ".ipynb",
    "Makefile",
    ".txt",
    "run",
)
HOME = re.compile(r"(?<![\w.])/(?:home|Users)/(?!you\b)\w+|(?<![\w.])/root/\w")


def test_no_file_names_a_folder_of_one_machine() -> None:
    own = [str(folder) for folder in (ROOT, Path.home()) if len(folder.parts) > 2]
    found = []
    for path in own_files(*TEXTS):
        text = path.read_text(encoding="utf-8", errors="replace")
        hits = [m.group() for m in HOME.finditer(text)] + [o for o in own if o in text]
        if hits:
            found.append(f"{path.relative_to(ROOT)}: {hits[0]}")
    assert not found


def test_folders_of_one_machine_are_seen() -> None:
    for parts in (("", "home", "ada"), ("", "Users", "ada"), ("", "root", "model")):
        assert HOME.search(f"at {'/'.join(parts)}") and MACHINE_PATH.search("/".join([*parts, "x"]))
    assert not HOME.search("/".join(["", "home", "you", "model"]))
