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


def typed(page: str) -> list[str]:
    """The commands of ours in a page's code spans."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(r"`(lessonkit [^`]+)`", text)


@pytest.mark.parametrize("command", typed("old-commands.md"))
def test_every_command_that_replaces_an_old_one_can_be_typed(command: str) -> None:
    assert callable(build_parser().parse_args(shlex.split(command)[1:]).run)


@pytest.mark.parametrize("command", typed("journey.md"))
def test_every_command_of_the_journey_exists(command: str) -> None:
    assert command.split()[1] in COMMANDS


def test_the_journey_leads_past_every_lesson_and_every_link_leads_somewhere() -> None:
    text = (DOCS / "journey.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| [A-Z]", line)]
    assert len(rows) == 16  # the steps of the tutorials
    for link in re.findall(r"\]\((.+?)\)", text):
        assert (DOCS / link).is_file(), link
    linked = set(re.findall(r"\[(\d\d)\]", text))
    assert linked == {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}


def test_the_page_for_other_notebooks_names_what_exists() -> None:
    text = (DOCS / "testing-notebooks.md").read_text(encoding="utf-8")
    for command in re.findall(r"`?python -m lessonkit\.testing ([^`\n]+)", text):
        testing._parser().parse_args(shlex.split(command))


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_readme_shows_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"^lessonkit ([a-z0-9-]+) ", text, flags=re.MULTILINE)
    assert sorted({*shown, "completion"} - {"--help"}) == sorted(COMMANDS)
