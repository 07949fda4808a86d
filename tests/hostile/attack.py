"""Give one reader damaged files, in a process that is watched.

    python -m tests.hostile.attack FOLDER

makes the samples below FOLDER; then each line on stdin, {"reader", "count", "seed"}, is answered by
a line: {"tried", "accepted", "failures"}. The watched process may use only so much memory and time,
write below its output folder only, and start, connect to, and unpickle nothing.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from random import Random
from typing import Any, NoReturn

from lessonkit.errors import LessonkitError
from lessonkit.files import atomic
from tests.hostile.readers import READERS, Reader, make_samples

MORE_MEMORY = 1 << 30  # bytes beyond what the imports take
MOST_SECONDS = 20  # of the processor's time: a busy machine is no fault of a reader's
MOST_FAILURES = 5
FORBIDDEN = {
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.fork", "os.forkpty",
    "subprocess.Popen", "pickle.find_class", "socket.connect", "socket.bind", "code.__new__",
    "pty.spawn", "webbrowser.open", "ftplib.connect", "urllib.Request",
}  # fmt: skip
CHANGES = {
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.utime", "os.mkfifo", "os.mknod",
}  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """What Python does, by its audit events: the first thing that no reader should do is kept."""

    def __init__(self, allowed: Path) -> None:
        self.allowed = str(allowed)
        self.on = False
        self.seen = ""

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN:
            self.refuse(f"{event}{arguments!r}"[:500])
        if event in CHANGES or (event == "open" and self.writes(arguments)):
            place = self.place(event, arguments)
            if not place.startswith(self.allowed) and place != os.devnull:
                self.refuse(f"{event}: {place}")

    @staticmethod
    def place(event: str, arguments: tuple[Any, ...]) -> str:
        """The path that is changed; `os.remove` and its like may be told a folder's descriptor."""
        path, folder = arguments[0], "." if event == "open" else arguments[-1]
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        if type(folder) is int and folder >= 0:
            folder = os.readlink(f"/proc/self/fd/{folder}")
        return os.path.abspath(
            os.path.join(folder if isinstance(folder, str) else ".", os.fsdecode(path))
        )

    @staticmethod
    def writes(arguments: tuple[Any, ...]) -> bool:
        _, mode, flags = arguments
        return bool(flags & WRITES) or (isinstance(mode, str) and bool(set(mode) & set("wax+")))

    def refuse(self, what: str) -> NoReturn:
        self.seen = self.seen or what
        raise PermissionError(what)


def too_long(*_: object) -> NoReturn:
    raise TimeoutError(f"longer than {MOST_SECONDS} seconds")


def attack(reader: Reader, folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Read `count` damaged files; each is refused, or read without harm."""
    sample, out = folder / reader.sample, folder / "out"
    victim = sample / reader.file
    whole = victim.read_bytes()
    reader.read(sample, out)  # the sound sample is read; and everything is imported
    shutil.rmtree(out, ignore_errors=True)
    temporary = folder / "out.temporary"  # what a reader may write for itself, and must remove
    temporary.mkdir(exist_ok=True)
    tempfile.tempdir = str(temporary)
    limit_memory()
    signal.signal(signal.SIGPROF, too_long)
    watch = Watch(out)
    sys.addaudithook(watch)
    accepted, failures = 0, []
    for number in range(count):
        victim.write_bytes(reader.mutation(whole, Random(f"{seed} {number}")))
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        watch.on = True
        try:
            reader.read(sample, out)
            accepted += 1
        except LessonkitError as error:
            str(error)
        except BaseException:
            failures.append(f"seed {seed}, number {number}: " + traceback.format_exc()[-3000:])
        finally:
            watch.on = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        if watch.seen:
            failures.append(f"seed {seed}, number {number}: {watch.seen}")
            watch.seen = ""
        if any(temporary.iterdir()):
            failures.append(f"seed {seed}, number {number}: left behind {os.listdir(temporary)}")
            shutil.rmtree(temporary)
            temporary.mkdir()
        if out.exists():
            shutil.rmtree(out)
        if len(failures) >= MOST_FAILURES:
            break
    return {"tried": number + 1, "accepted": accepted, "failures": failures}


def limit_memory() -> None:
    """Let this process have MORE_MEMORY beyond what it has, where the system tells what that is."""
    try:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_MEMORY,) * 2)


def in_child(reader: Reader, folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Attack in a child, which may crash: then its last input is what did it."""
    victim = folder / reader.sample / reader.file
    whole = victim.read_bytes()
    result, told = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(result)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            found = attack(reader, folder, count, seed)
        except BaseException:
            found = {"tried": 0, "accepted": 0, "failures": [traceback.format_exc()]}
        os.write(told, json.dumps(found).encode()[:60_000])
        os._exit(0)
    os.close(told)
    with os.fdopen(result) as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        last = victim.read_bytes()
        answer = json.dumps({"tried": 0, "accepted": 0, "failures": [
            f"ended with {status} on {last[:2000]!r} ({len(last)} bytes)"]})  # fmt: skip
    victim.write_bytes(whole)
    shutil.rmtree(folder / "out", ignore_errors=True)
    found: dict[str, Any] = json.loads(answer)
    return found


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    said, sys.stdout = sys.stdout, sys.stderr
    make_samples(place)
    atomic.sync = lambda path: None  # a wait for the disk, ten thousand times
    sys.dont_write_bytecode = True
    print("ready", file=said, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        reader = READERS[asked["reader"]]
        print(
            json.dumps(in_child(reader, place, asked["count"], asked["seed"])),
            file=said,
            flush=True,
        )
