"""Which files of a user's function go along with a served model, and what is seen by reading them."""

from pathlib import Path

import pytest

from trtcompress.user_code import check_defined, code_of
from trtcompress_graph.errors import ConfigError


@pytest.fixture
def base(tmp_path: Path) -> Path:
    files = {
        "post/__init__.py": "",
        "post/answer.py": "import json, numpy\nfrom . import names\nfrom lone import helper\ndef f(o): pass\n",
        "post/names.py": "NAMES = 1\n",
        "post/labels.txt": "a b",
        "post/unused.py": "",
        "lone.py": "def helper(): pass\n",
        "other/space.py": "from post.answer import *\n",
        "kinds.py": (
            "import os.path as way\nfrom json import dumps as write, loads\nclass Call: pass\nasync def late(o): pass\n"
            "if True:\n    g = lambda o: o\ntry:\n    import numpy\nexcept ImportError:\n    numpy = None\n"
            "(a, b), *c = (1, 2), 3\ndef f(inner):\n    hidden = 1\n    return hidden\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_modules_of_the_project_go_along_with_their_packages(base: Path):
    code = code_of("post.answer:f", base, ("post/*.txt",), "k")
    assert {place: path.relative_to(base).as_posix() for place, path in code.items()} == {
        name: name for name in ("post/__init__.py", "post/answer.py", "post/names.py", "post/labels.txt", "lone.py")
    }
    assert sorted(code_of("other.space:f", base, (), "k")) == [
        "lone.py",
        "other/space.py",
        "post/__init__.py",
        "post/answer.py",
        "post/names.py",
    ]


def test_what_is_installed_does_not_go_along(base: Path):
    assert code_of("scipy.special:softmax", base, (), "k") == {}
    assert code_of("json:dumps", base, (), "k") == {}


@pytest.mark.parametrize("name", ["way", "write", "loads", "Call", "late", "g", "numpy", "a", "b", "c", "f"])
def test_what_a_module_defines_is_seen(base: Path, name: str):
    check_defined(f"kinds:{name}", base, "k")


@pytest.mark.parametrize("name", ["os", "dumps", "hidden", "inner", "json"])
def test_what_it_does_not_define_is_refused(base: Path, name: str):
    with pytest.raises(ConfigError, match=f"'kinds' has no function '{name}'") as caught:
        check_defined(f"kinds:{name}", base, "triton.postprocess")
    assert caught.value.where == f"triton.postprocess: kinds:{name}"
    assert "late" in caught.value.hint


def test_a_star_may_define_anything(base: Path):
    check_defined("other.space:whatever", base, "k")


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        (("*.csv",), r"'\*\.csv' matches no file"),
        (("../*/lone.py",), "lies outside of the folder"),
        (("/etc/host*",), "'/etc/host.*': .*relative"),
        (("",), "'': "),
    ],
)
def test_sources_that_do_not_do(base: Path, sources: tuple[str, ...], told: str):
    with pytest.raises(ConfigError, match=told):
        code_of("post.answer:f", base, sources, "k")


def test_a_module_that_is_not_there(base: Path):
    with pytest.raises(ConfigError, match="there is no module 'nowhere'"):
        check_defined("nowhere:f", base, "k")
