"""Folders that take their places in one step, and what comes after that step."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from trtcompress_engines.triton.aside import put_folder, take_away


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "m"
    folder.mkdir(parents=True)
    (folder / "old").touch()
    return folder


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that hold files of another user."""

    def refuse(path: Path, ignore_errors: bool = False, **_: Any) -> None:
        if not ignore_errors:
            raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)


@pytest.mark.usefixtures("kept")
def test_a_switch_counts_where_what_was_there_cannot_be_removed(place: Path, caplog: pytest.LogCaptureFixture):
    with put_folder(place) as folder:
        (folder / "new").touch()
    assert [path.name for path in place.iterdir()] == ["new"]
    (left,) = place.parents[1].glob(".m.*")
    assert f"{left} holds what was there before" in caplog.text
    assert [path.name for path in (left / "m").iterdir()] == ["old"]
    take_away(place)
    assert not place.exists()


@pytest.mark.usefixtures("kept")
def test_what_fails_before_the_switch_is_what_is_told(place: Path):
    with pytest.raises(ValueError, match="no such model"), put_folder(place):
        raise ValueError("no such model")
    assert [path.name for path in place.iterdir()] == ["old"]


def test_nothing_is_left_behind(place: Path):
    with pytest.raises(ValueError, match="no such model"), put_folder(place):
        raise ValueError("no such model")
    with put_folder(place):
        pass
    with pytest.raises(FileNotFoundError):
        take_away(place / "nothing")
    take_away(place)
    assert [path.name for path in place.parents[1].iterdir()] == ["repository"]
    assert list(place.parent.iterdir()) == []
