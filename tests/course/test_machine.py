"""The report on the machine: it names what is missing, and only that."""

from __future__ import annotations

from dataclasses import replace

from lessonkit.course import machine


def test_this_machine_is_ready() -> None:
    found = machine.look()
    assert found.ready, found.problems
    assert found.versions["torch"]
    assert "This machine is ready." in str(found)


def test_each_problem_is_named_with_its_remedy() -> None:
    good = machine.look()
    bad = replace(
        good,
        python=(3, 9, 1),
        memory_gb=0.5,
        disk_gb=0.2,
        versions={**good.versions, "sentencepiece": None},
    )
    text = str(bad)
    assert not bad.ready
    assert len(bad.problems) == 4
    for part in ("Python 3.9 is too old", "pip install sentencepiece", "memory", "disk"):
        assert part in text
    assert "ready" not in text


def test_an_optional_library_is_a_note_and_not_a_problem() -> None:
    good = machine.look()
    without = replace(good, versions={**good.versions, "bitsandbytes": None})
    assert without.ready
    assert any("bitsandbytes" in note for note in without.notes)
