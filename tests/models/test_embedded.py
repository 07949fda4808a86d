"""The embedded data is found, and every file is checked before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from lessonkit.errors import LessonkitError
from lessonkit.models import embedded
from tests.tiny import write_checklist


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pretended repository with two small files in `data/`."""
    for name, content in {"texts/en/test.txt": "island", "mini/config.json": "{}"}.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
    write_checklist(tmp_path / "data")
    monkeypatch.setattr(embedded, "_PACKAGE", tmp_path / "lessonkit")
    return tmp_path


def test_the_repositorys_folder_is_found(root):
    assert embedded.data_dir() == root / "data"
    assert embedded.verified("texts/en/test.txt").read_text() == "island"
    assert embedded.verified_folder("mini") == root / "data" / "mini"


def test_an_installed_package_uses_its_own_copy(root):
    own = root / "lessonkit" / "_data"
    own.parent.mkdir()
    (root / "data").rename(own)
    assert embedded.data_dir() == own
    assert embedded.verified("texts/en/test.txt") == own / "texts/en/test.txt"


def test_no_data_at_all_is_an_error(root):
    (root / "data" / "SHA256SUMS").unlink()
    with pytest.raises(LessonkitError, match="not found") as caught:
        embedded.data_dir()
    assert "wheel" in str(caught.value)


def test_an_altered_file_is_named_with_what_to_do(root):
    path = root / "data" / "texts/en/test.txt"
    path.write_text("Island")
    with pytest.raises(LessonkitError, match="SHA-256") as caught:
        embedded.verified("texts/en/test.txt")
    assert caught.value.where == str(path)
    assert "git checkout" in str(caught.value) and "reinstall" in str(caught.value)
    path.write_text("island")  # mended: the error is not remembered
    assert embedded.verified("texts/en/test.txt") == path


def test_a_missing_file_is_named_with_what_to_do(root):
    path = root / "data" / "mini/config.json"
    path.unlink()
    for check in (
        lambda: embedded.verified("mini/config.json"),
        lambda: embedded.verified_folder("mini"),
    ):
        with pytest.raises(LessonkitError, match="missing") as caught:
            check()
        assert caught.value.where == str(path)
        assert "git checkout" in str(caught.value)


def test_a_file_that_is_not_listed_is_refused_even_if_it_lies_there(root):
    (root / "data" / "texts/en/other.txt").write_text("x")
    with pytest.raises(LessonkitError, match="no file"):
        embedded.verified("texts/en/other.txt")
    with pytest.raises(LessonkitError, match="no folder"):
        embedded.verified_folder("min")


def test_each_file_is_hashed_once(root, monkeypatch):
    calls = []
    real = embedded.file_digest
    monkeypatch.setattr(embedded, "file_digest", lambda path: calls.append(path) or real(path))
    for _ in range(3):
        embedded.verified("texts/en/test.txt")
        embedded.verified_folder("mini")
    assert len(calls) == 2


def test_the_real_data_is_whole():
    try:
        folder = embedded.data_dir()
    except LessonkitError:
        pytest.skip("the embedded data has not been built in this checkout")
    for name in embedded.read_checklist(folder / "SHA256SUMS"):
        assert embedded.verified(name).is_file()
