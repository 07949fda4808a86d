"""Is a model whole and unaltered? Everything that lies beside it and can tell is asked.

That is: lists of checksums (Meta's checklist.chk, SHA256SUMS, what `fetch` wrote), the digests
that huggingface_hub noted when it downloaded the files, and the certificate of a conversion.
Where there is nothing of the kind, PyTorch's files still carry a CRC-32 of every part, and the
structure of any file says whether it is whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lessonkit.convert.open import OpenModel, open_model
from lessonkit.errors import LessonkitError
from lessonkit.files.certificate import (
    CERTIFICATE_NAME,
    certificate_beside,
    certificate_of,
    verify_tensors,
)
from lessonkit.files.integrity import (
    Finding,
    Report,
    find_checklists,
    lists_in,
    read_checklist,
    verify,
)
from lessonkit.hub.digests import hub_digests
from lessonkit.progress import byte_bar

CHECKSUMS = "checksums inside the files"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")
_WEIGHT_FILES = (".safetensors", ".bin", ".pth", ".gguf")


@dataclass(frozen=True)
class Verification:
    """`findings` on files and tensors by what was asked about them; `unchecked` are the weight
    files that nothing here speaks of; `part` says of what the file is only a part, if it is."""

    findings: dict[str, tuple[Finding, ...]]
    unchecked: tuple[str, ...] = ()
    tensors: int = 0
    part: str = ""

    @property
    def ok(self) -> bool:
        """True where nothing is missing or altered, as far as can be told."""
        return all(f.verdict == "ok" for found in self.findings.values() for f in found)

    def __str__(self) -> str:
        lines: list[str] = []
        for source, findings in self.findings.items():
            wrong = [finding for finding in findings if finding.verdict != "ok"]
            of_files = not source.endswith((CERTIFICATE_NAME, ".certificate.json", CHECKSUMS))
            kind = "files" if of_files else "tensors"
            lines.append(f"{source}: {len(findings) - len(wrong)} of {len(findings)} {kind} ok")
            lines += [f"  {finding}" for finding in wrong]
        if not self.findings:
            lines.append(f"no checklist here; the {self.tensors} tensors are complete")
        elif self.unchecked:
            lines.append(f"no list here speaks of {', '.join(self.unchecked)}")
        if self.part:
            lines.append(self.part)
        return "\n".join([*lines, self._conclusion()])

    def _conclusion(self) -> str:
        if not self.ok:
            return "NOT what it should be"
        whole = "complete as far as this file goes" if self.part else "whole"
        if self.unchecked and CHECKSUMS in self.findings:
            return f"{whole}, and as it was written; nothing here tells by whom"
        if self.unchecked:
            return f"{whole}; nothing here tells whether it is unaltered"
        return f"{whole} and unaltered"


def verify_model(
    path: str | os.PathLike[str], checklist: str | os.PathLike[str] | None = None
) -> Verification:
    """Check a folder, or one weight file in it, against all that can tell, or one `checklist`.

    What cannot be opened as a model, because files are cut off or do not fit together, is a
    finding too. Raises `LessonkitError` where there is no model at all.
    """
    path = Path(path)
    if not path.exists():
        raise LessonkitError(
            "There is no such file or folder.", where=path, remedy="Check the spelling of the path."
        )
    folder, only = (path, None) if path.is_dir() else (path.parent, path)
    reports = dict(_reports(folder, checklist, only))
    findings = {source: report.findings for source, report in reports.items()}
    if not all(report.ok for report in reports.values()):
        return Verification(findings)
    try:
        model = open_model(path)
    except LessonkitError as error:
        if not _has_weights(path):
            raise
        damaged = Finding(Path(error.where or path).name, "damaged", error.what)
        return Verification({**findings, "its own structure": (damaged,)})
    certificate = None if checklist else _certificate(model, only)
    if certificate is not None:
        verdicts = verify_tensors(model, certificate)
        findings[str(certificate)] = tuple(Finding(n, verdict) for n, verdict in verdicts.items())
        return Verification(findings, (), len(model.names()))
    checked = {
        (report.folder / finding.name).absolute()
        for report in reports.values()
        for finding in report.findings
    }
    unchecked = [file for file in model.weight_files if file.absolute() not in checked]
    if unchecked and (found := _by_own_checksums(model)):
        findings[CHECKSUMS] = found
    names = tuple(file.name for file in unchecked)
    return Verification(findings, names, len(model.names()), _part(only))


def _certificate(model: OpenModel, only: Path | None) -> Path | None:
    """The folder's certificate, or that beside the model's file (of several, the first)."""
    beside = certificate_beside(model.weight_files[0])
    if beside.is_file():
        return beside
    return None if only else certificate_of(model.weight_files[0].parent)


def _by_own_checksums(model: OpenModel) -> tuple[Finding, ...]:
    """What the files' own checksums say of each tensor; empty where they are right but not all
    tensors have one."""
    found: list[Finding] = []
    with byte_bar(sum(model.info(name).nbytes for name in model.names()), "verify") as bar:
        for name in model.names():
            try:
                if model.check(name):
                    found.append(Finding(name, "ok"))
            except LessonkitError as error:
                found.append(Finding(name, "altered", error.what))
            model.release(name)
            bar.update(model.info(name).nbytes)
    all_checked = len(found) == len(model.names())
    return tuple(found) if all_checked or any(f.verdict != "ok" for f in found) else ()


def _part(file: Path | None) -> str:
    """Is a single weight file one of several?"""
    number = _SHARD.search(file.name) if file else None
    if number is None:
        return ""
    return f"this is shard {int(number[1])} of {int(number[2])}; the others were not looked at"


def _has_weights(path: Path) -> bool:
    """Is there something that should be a model, whole or not?"""
    if path.is_file():
        return path.suffix in _WEIGHT_FILES
    return any(file.suffix in _WEIGHT_FILES for file in path.rglob("*"))


def _reports(
    folder: Path, checklist: str | os.PathLike[str] | None, only: Path | None
) -> Iterator[tuple[str, Report]]:
    """What each list says, under the list's name; `only` restricts them to one file."""
    for name, place, digests in _lists(folder, checklist):
        wanted = {n: d for n, d in digests.items() if only is None or place / n == only}
        if wanted:
            yield name, verify(place, wanted)


def _lists(
    folder: Path, checklist: str | os.PathLike[str] | None
) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """The name of a list, the folder that it speaks of, and its entries."""
    if checklist is not None:
        yield str(checklist), folder, read_checklist(checklist)
        return
    for path in find_checklists(folder):
        yield str(path), path.parent, read_checklist(path)
    here = folder.absolute()
    for path in lists_in(here.parent):  # such as data/SHA256SUMS for data/mini
        inside = f"{here.name}/"
        entries = read_checklist(path)
        yield str(path), path.parent, {n: d for n, d in entries.items() if n.startswith(inside)}
    yield "as the Hub noted", folder, hub_digests(folder)
