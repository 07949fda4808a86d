"""The rules of a clean notebook: properties that hold for any text. (Each rule: test_notebooks.)"""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lessonkit.testing.rules import is_readable, tidy


@given(st.text(alphabet="ab \n\t"), st.sampled_from(["code", "markdown"]))
def test_tidying_twice_changes_nothing_more_and_no_visible_letter(source: str, kind: str) -> None:
    once = tidy(source, kind)
    assert tidy(once, kind) == once
    assert "".join(once.split()) == "".join(source.split())


@given(st.uuids())
def test_ids_drawn_at_random_are_never_readable(uuid: Any) -> None:
    assert not is_readable(str(uuid))
    if re.search("[0-9]", str(uuid)[:8]):
        assert not is_readable(str(uuid)[:8])
