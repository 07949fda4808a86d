"""Is a model whole and unaltered? Everything that lies beside it and can tell is asked.

That is: lists of checksums (Meta's checklist.chk, SHA256SUMS, what `fetch` wrote), the digests
that huggingface_hub noted when it downloaded the files, and the certificate of a conversion.
Where there is nothing of the kind, the files' own structure still says whether they are whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lessonkit.convert.meta import open_canonical
from lessonkit.convert.meta_checkpoint import MetaCheckpoint
from lessonkit.files.certificate import CERTIFICATE_NAME, certificate_of, verify_tensors
from lessonkit.files.hub_digests import hub_digests
from lessonkit.files.integrity import (
    Finding,
    Report,
    find_checklists,
    lists_in,
    read_checklist,
    verify,
)


@dataclass(frozen=True)
class Verification:
    """`findings` on files and tensors by what was asked about them; `unchecked` are the weight
    files that nothing here speaks of."""

    findings: dict[str, tuple[Finding, ...]]
    unchecked: tuple[str, ...]
    tensors: int

    @property
    def ok(self) -> bool:
        """True where nothing is missing or altered, as far as can be told."""
        return all(f.verdict == "ok" for found in self.findings.values() for f in found)

    def __str__(self) -> str:
        lines: list[str] = []
        for source, findings in self.findings.items():
            wrong = [finding for finding in findings if finding.verdict != "ok"]
            kind = "tensors" if source.endswith(CERTIFICATE_NAME) else "files"
            lines.append(f"{source}: {len(findings) - len(wrong)} of {len(findings)} {kind} ok")
            lines += [f"  {finding}" for finding in wrong]
        if not self.findings:
            lines.append(f"no checklist here; the {self.tensors} tensors are complete")
        elif self.unchecked:
            lines.append(f"no checksum here for {', '.join(self.unchecked)}")
        return "\n".join([*lines, self._conclusion()])

    def _conclusion(self) -> str:
        if not self.ok:
            return "NOT what it should be"
        if self.unchecked:
            return "whole; nothing here tells whether it is unaltered"
        return "whole and unaltered"


def verify_model(
    path: str | os.PathLike[str], checklist: str | os.PathLike[str] | None = None
) -> Verification:
    """Check a folder, or one weight file in it, against all that can tell, or one `checklist`.

    Raises `LessonkitError` for what cannot be opened as a model, unless a list already says
    that files of it are missing or altered.
    """
    path = Path(path)
    folder, only = (path, None) if path.is_dir() else (path.parent, path)
    reports = dict(_reports(folder, checklist, only))
    findings = {source: report.findings for source, report in reports.items()}
    if not all(report.ok for report in reports.values()):
        return Verification(findings, (), 0)
    source = open_canonical(path)  # raises for files that are damaged or do not fit together
    weights = source.files.shards if isinstance(source, MetaCheckpoint) else source.files
    certificate = None if checklist or only else certificate_of(weights[0].parent)
    if certificate is not None:
        verdicts = verify_tensors(source, certificate)
        findings[str(certificate)] = tuple(Finding(n, verdict) for n, verdict in verdicts.items())
        return Verification(findings, (), len(source.names()))
    checked = {
        (report.folder / finding.name).absolute()
        for report in reports.values()
        for finding in report.findings
    }
    unchecked = tuple(file.name for file in weights if file.absolute() not in checked)
    return Verification(findings, unchecked, len(source.names()))


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
