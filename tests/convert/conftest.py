"""A toy model that several test files share."""

from __future__ import annotations

import pytest

from tests.convert.toy import Toy


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()
