"""`package.module:function`: found in the folder of the config, whatever was loaded before."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trtcompress_graph.callables import is_callable_name, load_callable
from trtcompress_graph.errors import UsageError


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    path, loaded = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - loaded:
        del sys.modules[name]


def project(folder: Path, word: str) -> Path:
    """A module, the module that it imports, a package and a package without `__init__.py`."""
    for name in ("boxed", "bare"):
        (folder / name).mkdir(parents=True)
    (folder / "boxed" / "__init__.py").touch()
    for place in ("helping.py", "boxed/inner.py", "bare/inner.py"):
        (folder / place).write_text(f"WORD = {word!r}\n")
    (folder / "entering.py").write_text(
        "import helping, boxed.inner, bare.inner\n"
        "def words():\n    return helping.WORD + boxed.inner.WORD + bare.inner.WORD\n"
    )
    return folder


def test_each_folder_gets_its_own_modules_in_one_process(tmp_path: Path):
    first, second = project(tmp_path / "first", "a"), project(tmp_path / "second", "b")
    found = [load_callable("entering:words", folder)() for folder in (first, second, first, first, second)]
    assert found == ["aaa", "bbb", "aaa", "aaa", "bbb"]


def test_the_folder_that_one_is_in_has_its_own_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = project(tmp_path / "first", "a"), project(tmp_path / "second", "b")
    found = []
    for folder in (first, second, first):
        monkeypatch.chdir(folder)
        found.append(load_callable("entering:words", Path())())
    assert found == ["aaa", "bbb", "aaa"]


def test_a_module_that_came_since_goes_before_one_of_another_folder(tmp_path: Path):
    first, second = project(tmp_path / "first", "a"), tmp_path / "second"
    second.mkdir()
    (second / "other.py").write_text("def f(): ...\n")
    assert load_callable("entering:words", first)() == "aaa"
    load_callable("other:f", second)
    assert load_callable("entering:words", project(second, "b"))() == "bbb"


def test_a_module_is_loaded_once_and_others_stay_loaded(tmp_path: Path):
    first, second = project(tmp_path / "first", "a"), tmp_path / "second"
    second.mkdir()
    (second / "other.py").write_text("def f(): ...\n")
    words = load_callable("entering:words", first)
    assert load_callable("other:f", second)() is None
    assert load_callable("entering:words", first) is words
    assert load_callable("json:dumps", first) is sys.modules["json"].dumps


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent:f", "cannot import 'absent': ModuleNotFoundError"),
        ("broken:f", "cannot import 'broken': ZeroDivisionError"),
        ("entering:absent", "has no function 'absent'"),
        ("helping:WORD", "has no function 'WORD'"),
    ],
)
def test_what_is_not_there(tmp_path: Path, name: str, message: str):
    folder = project(tmp_path / "project", "a")
    (folder / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=message):
        load_callable(name, folder)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("a:b", True),
        ("a.b_1:c", True),
        ("a", False),
        ("a.onnx", False),
        ("a:b:c", False),
        ("a/b:c", False),
        ("a:1", False),
    ],
)
def test_the_form_of_a_name(text: str, is_one: bool):
    assert is_callable_name(text) is is_one
