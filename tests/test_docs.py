"""The pages in docs: every command and every lesson that they name is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lessonkit.cli import build_parser, commands_of
from lessonkit.testing import commands as testing

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
COMMANDS = commands_of(build_parser())
# Named already; their lessons are being written. One that exists must leave this list.
COMING = {"awq", "divergence", "gptq", "kl-base"}


def test_what_is_coming_is_not_there_yet() -> None:
    assert not COMING & set(COMMANDS), "take it out of COMING"


def typed(page: str) -> list[str]:
    """The commands of ours in a page's code spans."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"`(lessonkit [^`]+)`", text)


@pytest.mark.parametrize("command", typed("old-commands.md"))
def test_every_command_that_replaces_an_old_one_can_be_typed(command: str) -> None:
    words = shlex.split(command)[1:]
    if words[0] not in COMING:
        assert callable(build_parser().parse_args(words).run)


@pytest.mark.parametrize("command", typed("journey.md"))
def test_every_command_of_the_journey_exists(command: str) -> None:
    assert command.split()[1] in {*COMMANDS, *COMING}


def test_the_journey_leads_past_every_lesson_and_every_link_leads_somewhere() -> None:
    text = (DOCS / "journey.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| [A-Z]", line)]
    assert len(rows) == 16  # the steps of the tutorials
    for link in re.findall(r"\]\((.+?)\)", text):
        assert (DOCS / link).is_file(), link
    linked = set(re.findall(r"\[(\d\d)\]", text))
    plain = set(re.findall(r"(?<![\[\d])(\d\d)(?![\]\d_])", "".join(r.split("|")[3] for r in rows)))
    there = {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
    assert linked == there, "a lesson that exists is linked, another is only named"
    assert linked | plain == {f"{n:02}" for n in range(10)}


def test_the_page_for_other_notebooks_names_what_exists() -> None:
    text = (DOCS / "testing-notebooks.md").read_text(encoding="utf-8")
    for command in re.findall(r"`?python -m lessonkit\.testing ([^`\n]+)", text):
        testing._parser().parse_args(shlex.split(command))


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (DOCS / link).exists(), f"{page.name}: {link}"
