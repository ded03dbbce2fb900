"""Folders that take their places in one step, and what comes after that step."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trtcompress_engines.triton.aside import put_folder, put_folders, take_away


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


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that exchanges no two folders in one step, as over a network."""

    class Refusing:
        def renameat2(self, *given: object) -> int:
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *given, **more: Refusing())


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Path, Path], BaseException | None], after: bool) -> None:
    """Let moves fail of which `fails` says so; `after`: they are done all the same."""
    rename = Path.rename

    def move(path: Path, to: Path) -> Path:
        error = fails(path, to)
        if error is None or after:
            rename(path, to)
        if error is not None:
            raise error
        return to

    monkeypatch.setattr(Path, "rename", move)


@pytest.mark.usefixtures("one_by_one")
def test_folders_that_cannot_be_exchanged_are_moved_one_by_one(place: Path):
    with put_folder(place) as folder:
        (folder / "new").touch()
    assert [path.name for path in place.iterdir()] == ["new"]
    assert list(place.parents[1].glob(".m.*")) == []


@pytest.mark.usefixtures("one_by_one")
@pytest.mark.parametrize(("step", "after"), [(1, False), (1, True), (2, False), (2, True), (3, False)])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(5, "Input/output error")], ids=["interrupt", "error"])
def test_what_fails_between_the_moves_leaves_the_old_one(
    place: Path, error: BaseException, step: int, after: bool, monkeypatch: pytest.MonkeyPatch
):
    """In each of the three moves, `after`: when it is done; before them one finds that there is something already."""
    left = iter([None] * step + [error])
    failing(monkeypatch, lambda path, to: next(left, None), after)
    with pytest.raises(type(error)), put_folder(place) as folder:
        (folder / "new").touch()
    assert [path.name for path in place.iterdir()] == ["old"]
    assert list(place.parents[1].glob(".m.*")) == []


@pytest.mark.usefixtures("one_by_one")
def test_those_before_one_that_fails_go_back(place: Path, monkeypatch: pytest.MonkeyPatch):
    other = place.with_name("n")
    other.mkdir()
    (other / "old").touch()
    failing(monkeypatch, lambda path, to: OSError(13, "Permission denied") if path == other else None, after=False)
    with pytest.raises(PermissionError), put_folders([place, other]) as folders:
        (folders[0] / "new").touch()
    assert [path.name for path in (*place.iterdir(), *other.iterdir())] == ["old", "old"]


@pytest.mark.usefixtures("one_by_one")
def test_an_old_one_that_cannot_go_back_is_not_removed(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    lost = OSError(5, "Input/output error")
    failing(monkeypatch, lambda path, to: lost if to == place and not place.exists() else None, after=False)
    with pytest.raises(OSError, match="Input/output"), put_folder(place):
        pass
    (left,) = place.parents[1].glob(".m.*")
    assert [path.name for path in left.glob(".m.old/*")] == ["old"]
    assert f"{left / '.m.old'} is what was in {place}: move it back" in caplog.text
