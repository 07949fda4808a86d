"""A process that has imported everything, runs commands in children of its own, and harms them.

    python -m tests.faults.server

One request a line on stdin, one answer a line on stdout, both JSON. See `answer`.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lessonkit.cli import main

# The calls by which a command reaches the disk: the moments between them make the difference.
CALLS = {"open", "write", "mkdir", "rename", "fsync", "flock", "rmdir", "unlink", "close"}
CRASHED = 70
Request = dict[str, Any]


def answer(request: Request) -> Any:
    """Do what one request asks for.

    {"warm": [arguments]}                 run in this process, so that all is imported: status
    {"run": [[arguments], ...], "harm"}   run side by side, in a child each; "harm" is for each
    {"look": folder}                      every file below it, by its SHA-256
    {"disk": folder, "bytes", "mode"}     put an empty disk of so many bytes there; ro or rw
    """
    if "warm" in request:
        return silenced(request["warm"])
    if "look" in request:
        return look(Path(request["look"]))
    if "disk" in request:
        return small_disk(request["disk"], request["bytes"], request["mode"])
    return together(request["run"], request.get("harm", {}))


def look(folder: Path) -> dict[str, str]:
    """The content of every file below a folder, and of links what they lead to; "" for folders."""
    return {
        str(path.relative_to(folder)): ""
        if path.is_dir()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
    }


def small_disk(folder: str, size: int, mode: str) -> str:
    """Mount an empty disk, in memory, in place of the one before; "" or what was wrong."""
    subprocess.run(["umount", folder], capture_output=True, check=False)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},{mode}", "tmpfs", folder]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def together(commands: list[list[str]], harm: Request) -> list[dict[str, Any]]:
    """Run commands in children at the same time; what became of each."""
    children = []
    for number, arguments in enumerate(commands):
        if number:
            time.sleep(harm.get("second_after", 0))
        counter, (said, error) = mmap.mmap(-1, 8), os.pipe()
        pid = os.fork()
        if not pid:
            in_child(arguments, harm, counter, error)
        os.close(error)
        children.append((pid, counter, said))
    if "kill_after" in harm:
        time.sleep(harm["kill_after"])
        os.kill(children[0][0], signal.SIGKILL)
    return [finished(*child) for child in children]


def finished(pid: int, counter: mmap.mmap, said: int) -> dict[str, Any]:
    """Wait for a child: its status (below 0: the signal), its calls, what it said on stderr."""
    with os.fdopen(said, errors="replace") as pipe:
        error = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return {"status": status, "calls": int.from_bytes(counter[:], "little"), "error": error}


def in_child(arguments: list[str], harm: Request, counter: mmap.mmap, error: int) -> None:
    """Run a command and end the process; `harm` says what happens to it meanwhile."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(error, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    if "file_bytes" in harm:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (harm["file_bytes"], harm["file_bytes"]))
    sys.setprofile(watch(harm, counter))
    status = CRASHED
    try:
        status = main(arguments)
    except SystemExit as exit_:  # argparse
        status = exit_.code if isinstance(exit_.code, int) else CRASHED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.setprofile(None)
        os._exit(status)


def watch(harm: Request, counter: mmap.mmap) -> Callable[..., None]:
    """A profiler that counts the calls, and strikes before the one that it was told."""
    seen, strike = 0, harm.get("at", -1)

    def profile(_frame: Any, event: str, call: Any) -> None:
        nonlocal seen
        if event != "c_call" or call.__name__ not in CALLS:
            return
        if seen == strike:
            if "file" in harm:
                seen += 1  # the copy makes calls of its own
                sys.setprofile(None)
                shutil.copyfile(harm["becomes"], harm["file"])
                sys.setprofile(profile)
                return
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1
        counter[:] = seen.to_bytes(8, "little")

    return profile


def silenced(arguments: list[str]) -> int:
    """Run a command here, without its output."""
    kept, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
    try:
        return main(arguments)
    finally:
        sys.stdout = kept


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
