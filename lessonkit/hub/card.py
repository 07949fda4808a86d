"""A model card from what is known: certificate, files with their hashes, measurements.

The head (YAML) is what the Hub reads. `base_model_relation` takes four words; for a model in
another form "quantized" is the nearest, also where nothing was rounded: the Hub lists there every
copy of the same weights. Sources: the Hub's documentation, "Model cards"; hub-docs, PR 1254.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RELATIONS = ("adapter", "finetune", "merge", "quantized")
"""What the Hub calls the ways from a base model to another."""


@dataclass(frozen=True)
class Facts:
    """What only its maker knows: the base's id, the licence, measurements as they were printed."""

    base: str | None = None
    relation: str | None = None
    licence: str | None = None
    measured: Sequence[str] = ()


def relation_of(certificate: Mapping[str, Any], *, is_adapter: bool = False) -> str | None:
    """What the Hub calls this model's relation to its base; None where no certificate tells."""
    if is_adapter:
        return "adapter"
    if not certificate:
        return None
    counts = _counts(certificate)
    return "finetune" if "merged" in counts and "quantised" not in counts else "quantized"


def model_card(
    repository: str,
    library: str,
    certificate: Mapping[str, Any],
    files: Sequence[tuple[str, int, str]],
    facts: Facts,
) -> str:
    """The card's text. `files` are (name, bytes, SHA-256); `certificate` may be empty."""
    relation = facts.relation or relation_of(certificate, is_adapter=library == "peft")
    return "\n".join(
        [
            *_head(library, relation, facts),
            f"# {repository.split('/')[-1]}",
            "",
            *_origin(certificate, relation, facts),
            *_tensors(certificate),
            *_measured(facts.measured),
            *_files(files),
            *_how_to_check(repository, [name for name, _, _ in files], facts.base),
        ]
    )


def _head(library: str, relation: str | None, facts: Facts) -> list[str]:
    entries = {
        "library_name": library,
        "pipeline_tag": "text-generation",
        "license": facts.licence,
        "base_model": facts.base,
        "base_model_relation": relation if facts.base else None,
    }
    return ["---", *(f"{key}: {value}" for key, value in entries.items() if value), "---", ""]


def _origin(certificate: Mapping[str, Any], relation: str | None, facts: Facts) -> list[str]:
    rows = {"made from": f"[{facts.base}](https://huggingface.co/{facts.base})"
            if facts.base else "not stated",
            "relation": relation or "not stated"}  # fmt: skip
    if certificate:
        rows["conversion"] = str(certificate.get("conversion"))
        rows["with"] = f"lessonkit {certificate.get('lessonkit')}"
        for key, value in _flat(certificate.get("options", {})):
            rows[key] = value
    lines = ["## How it was made", "", "| | |", "|---|---|"]
    lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items()]
    notes = certificate.get("notes", [])
    return [*lines, "", *(f"- {note}" for note in notes), *([""] if notes else [])]


def _tensors(certificate: Mapping[str, Any]) -> list[str]:
    counts = _counts(certificate)
    if not counts:
        return []
    lines = [f"| {_cell(kind)} | {count} |" for kind, count in counts.items()]
    return ["## What happened to its tensors", "", "| | tensors |", "|---|---:|", *lines, ""]


def _measured(measured: Sequence[str]) -> list[str]:
    if not measured:
        return []
    return [
        "## Measured", "",
        "Two perplexities compare only where text and protocol are the same.", "",
        "```", *(each.strip() for each in measured), "```", "",
    ]  # fmt: skip


def _files(files: Iterable[tuple[str, int, str]]) -> list[str]:
    lines = [f"| {_cell(name)} | {size:,} | `{digest}` |" for name, size, digest in files]
    return ["## Files", "", "| file | bytes | SHA-256 |", "|---|---:|---|", *lines, ""]


def _how_to_check(repository: str, files: Sequence[str], base: str | None) -> list[str]:
    name = repository.split("/")[-1]
    certified = any(file.endswith("certificate.json") for file in files)
    lines = [f"lessonkit fetch {repository} {name}", f"lessonkit verify {name}"]
    if certified and base:
        ggufs = [file for file in files if file.endswith(".gguf")]
        lines += [f"lessonkit explain {name}/{file} --source {base}" for file in ggufs[:1]]
    says = "`verify` hashes every file again" + (
        ", and every tensor against the certificate." if certified else "."
    )
    return ["## How to check it", "", "```", *lines, "```", "", says, ""]


def _counts(certificate: Mapping[str, Any]) -> dict[str, int]:
    """How many tensors got which kind of verdict (the part before the colon)."""
    counts: dict[str, int] = {}
    for record in certificate.get("tensors", {}).values():
        kind = str(record.get("verdict")).split(":")[0]
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _flat(options: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Nested settings as rows: every value under the names that lead to it."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield from _flat(value, f"{name} {key}".strip())
    elif isinstance(options, list) and any(isinstance(each, Mapping) for each in options):
        for number, each in enumerate(options, start=1):
            yield from _flat(each, f"{name} {number}")
    else:
        yield name, ", ".join(map(str, options)) if isinstance(options, list) else str(options)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
