"""What a digest sees: the function's module and what it imports of the project, files and folders by content."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_models import save, small
from trtcompress import digests
from trtcompress.digests import (
    FileDigests,
    data_digest,
    digest_of,
    file_digest,
    model_file_digest,
    onnx_digest,
    source_digest,
)
from trtcompress_graph.errors import ConfigError, MissingPathError

PROJECT = {
    "models/__init__.py": "from . import registry\n",
    "models/registry.py": "NAMES = {}\n",
    "models/net.py": "import json\nfrom .parts.blocks import Block\nfrom ..helpers import scale\n",
    "models/parts/__init__.py": "",
    "models/parts/blocks.py": "import numpy\nfrom models.parts import common as c\n",
    "models/parts/common.py": "def lazily():\n    import late\n",
    "models/unrelated.py": "X = 1\n",
    "late.py": "Y = 2\n",
    "entry.py": "import models.net as net\ndef make(): ...\n",
    "weights/a.bin": "aaa",
    "weights/b.bin": "bbb",
}
USED = ("entry.py", "models/__init__.py", "models/registry.py", "models/net.py", "models/parts/__init__.py")
USED += ("models/parts/blocks.py", "models/parts/common.py", "late.py")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    for name, text in PROJECT.items():
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "project"


@pytest.fixture
def files(tmp_path: Path) -> FileDigests:
    return FileDigests(tmp_path / "memory")


def digest(base: Path, files: FileDigests, *sources: str) -> str:
    return source_digest("entry:make", base, sources, files)


@pytest.mark.parametrize("name", USED)
def test_a_module_that_is_used_counts(base: Path, files: FileDigests, name: str):
    before = digest(base, files)
    assert digest(base, files) == before
    (base / name).write_text((base / name).read_text() + "# changed\n")
    assert digest(base, files) != before


@pytest.mark.parametrize("name", ["models/unrelated.py", "weights/a.bin", "new.py"])
def test_what_is_not_used_does_not_count(base: Path, files: FileDigests, name: str):
    before = digest(base, files)
    (base / name).write_text("changed")
    assert digest(base, files) == before


def test_a_module_that_appears_counts(base: Path, files: FileDigests):
    (base / "entry.py").write_text("try:\n    import extra\nexcept ImportError:\n    extra = None\n")
    before = digest(base, files)
    (base / "extra.py").write_text("")
    assert digest(base, files) != before


def test_two_functions_of_a_module_differ(base: Path, files: FileDigests):
    assert source_digest("entry:make", base, (), files) != source_digest("entry:other", base, (), files)


def test_sources_count_by_name_and_content(base: Path, files: FileDigests):
    before = digest(base, files, "weights/*.bin")
    assert digest(base, files) != before
    (base / "weights/b.bin").write_text("BBB")
    changed = digest(base, files, "weights/*.bin")
    assert changed != before
    (base / "weights/b.bin").rename(base / "weights/c.bin")
    assert digest(base, files, "weights/*.bin") not in (before, changed)
    with pytest.raises(ConfigError, match=r"'weights/\*\.npz' matches no file"):
        digest(base, files, "weights/*.bin", "weights/*.npz")
    with pytest.raises(ConfigError, match="sources"):
        digest(base, files, str(base / "weights/*.bin"))


def test_the_place_of_the_project_does_not_count(base: Path, files: FileDigests):
    before = digest(base, files, "weights/*")
    moved = base.rename(base.with_name("moved"))
    assert digest(moved, files, "weights/*") == before


def test_modules_beside_the_config_folder_count(base: Path, files: FileDigests, monkeypatch: pytest.MonkeyPatch):
    """The config may lie in a folder of its own, with the code on the Python path."""
    monkeypatch.syspath_prepend(str(base))
    elsewhere = base.parent / "deploy"
    elsewhere.mkdir()
    before = digest(elsewhere, files)
    (base / "models/parts/blocks.py").write_text("# changed\n")
    assert digest(elsewhere, files) != before


@pytest.fixture
def installed(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Installs a version of the distribution `thing`, whose module is `installed`."""
    site = base / ".venv/lib/site-packages"
    monkeypatch.syspath_prepend(str(site))

    def install(version: str) -> None:
        shutil.rmtree(site, ignore_errors=True)
        facts = site / f"thing-{version}.dist-info"
        facts.mkdir(parents=True)
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: thing\nVersion: {version}\n")
        (facts / "top_level.txt").write_text("installed\n")
        (site / "installed.py").write_text(f"VERSION = '{version}'\n")
        forget()

    def forget() -> None:  # what is installed does not change while a build runs
        importlib.invalidate_caches()
        digests._distributions.cache_clear()
        digests.library_version.cache_clear()

    yield install
    monkeypatch.undo()
    forget()


@pytest.mark.parametrize("text", ["import installed, json\n", "def make():\n    from installed.inner import A\n"])
def test_installed_packages_count_by_their_version(
    base: Path, files: FileDigests, installed: Callable[[str], None], text: str
):
    installed("1.0")
    (base / "entry.py").write_text(text)
    before = digest(base, files)
    (base / ".venv/lib/site-packages/installed.py").write_text("# not looked at\n")
    assert digest(base, files) == before
    installed("1.1")
    assert digest(base, files) != before
    installed("1.0")
    assert digest(base, files) == before


def test_an_installed_function_counts_by_its_version_too(
    base: Path, files: FileDigests, installed: Callable[[str], None]
):
    found = []
    for version in ("1.0", "1.1"):
        installed(version)
        (base / ".venv/lib/site-packages/installed.py").write_text("# the same in both\n")
        found.append(source_digest("installed:make", base, (), files))
    assert found[0] != found[1]


def test_packages_that_are_not_imported_do_not_count(base: Path, files: FileDigests, installed: Callable[[str], None]):
    installed("1.0")
    before = digest(base, files)
    installed("1.1")
    assert digest(base, files) == before


def test_nothing_is_imported(base: Path, files: FileDigests):
    raising = "raise SystemExit('imported')\n"
    for name in ("entry.py", "models/__init__.py"):
        (base / name).write_text((base / name).read_text() + raising)
    before = set(sys.modules)
    digest(base, files)
    assert not {"entry", "models", "late"} & (set(sys.modules) - before)


@pytest.mark.parametrize(
    ("text", "words"), [(b"def make(:\n", r"entry\.py:1: this is not Python"), (b"a\0b", "this is not Python")]
)
def test_a_module_that_is_not_python(base: Path, files: FileDigests, text: bytes, words: str):
    (base / "entry.py").write_bytes(text)
    with pytest.raises(ConfigError, match=words):
        digest(base, files)


def test_sources_count_for_a_model_file_too(base: Path, files: FileDigests):
    """A pickled module runs the code of its class, which is not in the file."""
    pickled = base / "net.pt"
    pickled.write_bytes(b"\x80\x04.")
    plain = model_file_digest(pickled, base, (), files)
    assert plain == onnx_digest(pickled, files)
    before = model_file_digest(pickled, base, ("models/**/*.py",), files)
    (base / "models/net.py").write_text("# changed\n")
    after = model_file_digest(pickled, base, ("models/**/*.py",), files)
    assert len({plain, before, after}) == 3
    with pytest.raises(ConfigError, match="matches no file"):
        model_file_digest(pickled, base, ("absent/*.py",), files)


def test_a_module_that_is_not_there(base: Path, files: FileDigests):
    for name in ("absent:make", "models.absent:make", "entry.inner:make"):
        with pytest.raises(ConfigError, match="there is no module"):
            source_digest(name, base, (), files)


def test_an_import_that_is_not_there_is_left_to_the_run(base: Path, files: FileDigests):
    (base / "entry.py").write_text("from .... import far\nimport absent.inner\nfrom absent import *\n")
    assert digest(base, files)


def replace_bytes(path: Path) -> None:
    path.write_bytes(b"bbb")


def replace_and_set_times_back(path: Path) -> None:
    """As `cp -p` and `rsync -t` do."""
    stat = path.stat()
    path.write_bytes(b"bbb")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace_file(path: Path) -> None:
    path.with_name("other").write_bytes(b"bbb")
    path.with_name("other").replace(path)


@pytest.mark.parametrize("change", [replace_bytes, replace_and_set_times_back, replace_file])
def test_memory_notices_a_change_of_the_same_size(tmp_path: Path, files: FileDigests, change: Callable[[Path], None]):
    path = tmp_path / "data/f.bin"
    path.parent.mkdir()
    path.write_bytes(b"aaa")
    of_file, of_folder = files.of(path), files.of(path.parent)
    change(path)
    assert files.of(path) == FileDigests(tmp_path / "fresh").of(path) != of_file
    assert files.of(path.parent) != of_folder


def test_memory_spares_reading(tmp_path: Path, files: FileDigests, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "f.bin").write_bytes(name.encode())
    read: list[Path] = []
    monkeypatch.setattr(digests, "file_digest", lambda path: read.append(path) or file_digest(path))
    first = files.of(tmp_path / "data")
    assert len(read) == 2
    assert files.of(tmp_path / "data") == first
    assert len(read) == 2
    (tmp_path / "data/a/f.bin").write_bytes(b"other")
    assert files.of(tmp_path / "data") != first
    assert [path.parent.name for path in read[2:]] == ["a"]


def test_damaged_memory_is_forgotten(tmp_path: Path, files: FileDigests):
    path = tmp_path / "f.bin"
    path.write_bytes(b"abc")
    expected = files.of(path)
    for note in files.memory.iterdir():
        for text in ("", "[]", '{".": 3}', '{".": []}', '{".": ["x"]}', "\x00"):
            note.write_text(text)
            assert files.of(path) == expected


def test_a_folder_counts_by_names_and_contents(tmp_path: Path, files: FileDigests):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, names in ((one, "ab"), (two, "ac")):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("same")
    assert files.of(one) != files.of(two)
    (two / "c").rename(two / "b")
    assert files.of(one) == files.of(two)
    (two / "b").rename(two / "d")
    assert files.of(one) != files.of(two)


def test_data_by_kind(base: Path, files: FileDigests):
    assert data_digest("entry:make", base, (), files) == digest(base, files)
    assert data_digest("weights", base, (), files) == files.of(base / "weights")
    with pytest.raises(MissingPathError, match="no such file"):
        data_digest("absent.npz", base, (), files)


def external_model(folder: Path) -> Path:
    folder.mkdir()
    onnx.save(
        small(),
        folder / "m.onnx",
        save_as_external_data=True,
        location="m.bin",
        size_threshold=0,
        convert_attribute=False,
    )
    return folder / "m.onnx"


def test_external_data_counts(tmp_path: Path, files: FileDigests):
    path = external_model(tmp_path / "m")
    before = onnx_digest(path, files)
    assert onnx_digest(path, files) == before
    data = bytearray((tmp_path / "m/m.bin").read_bytes())
    data[-1] ^= 1
    (tmp_path / "m/m.bin").write_bytes(data)
    assert onnx_digest(path, files) != before


def test_external_data_outside_the_folder_is_not_read(tmp_path: Path, files: FileDigests):
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    proto = onnx.load(external_model(tmp_path / "m"), load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret.bin"
    path = save(proto, tmp_path / "m/evil.onnx")
    before = onnx_digest(path, files)
    (tmp_path / "secret.bin").write_bytes(np.ones(4096, np.uint8).tobytes())
    assert onnx_digest(path, files) == before


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=64))
def test_what_is_no_onnx_has_a_digest_too(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    folder = tmp_path_factory.mktemp("random")
    (folder / "m.onnx").write_bytes(data)
    assert len(onnx_digest(folder / "m.onnx", FileDigests(folder / "memory"))) == 64


@given(st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=4))
def test_the_order_of_keys_does_not_count(value: dict[str, int | str]):
    assert digest_of(value) == digest_of(dict(reversed(value.items())))


def test_numbers_without_a_json_form_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        digest_of({"x": float("nan")})
