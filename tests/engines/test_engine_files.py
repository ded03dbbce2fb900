from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from assets import asset
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.files import staged
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import StoreError
from trtcompress_graph.load import read_model


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"1" * 3_000_000)
    (tmp_path / "b").write_bytes(b"2")
    assert files_digest([tmp_path / "a", tmp_path / "b"]) == hashlib.sha256(b"1" * 3_000_000 + b"2").hexdigest()


def test_files_appear_at_the_end(tmp_path: Path):
    with staged(tmp_path / "out") as folder:
        (folder / "m.onnx").write_text("graph")
        (folder / "m.onnx.data").write_text("weights")
        assert not (tmp_path / "out" / "m.onnx").exists()
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["m.onnx", "m.onnx.data"]


def test_nothing_appears_when_the_block_fails(tmp_path: Path):
    def half_way() -> None:
        with staged(tmp_path / "out") as folder:
            (folder / "m.plan").write_text("half")
            raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        half_way()
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write the engine") as caught, staged(tmp_path / "file"):
        pass
    assert caught.value.where == str(tmp_path / "file")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB: tests run as root, whom no mode bits stop."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["cpu", "rtx-4090"])
def test_a_full_disk_is_said_and_leaves_nothing(tiny_disk: Path, name: str):
    model, target = read_model(asset("rapidocr-onnxruntime", "det_infer.onnx")), resolve_target(name)
    profiles = {"x": ((1, 3, 64, 64), (1, 3, 320, 320), (1, 3, 640, 640))}
    with pytest.raises(StoreError, match="the disk is full"):
        backend_for(target).compile(model, target, "float32", CompileOptions(profiles), tiny_disk / "out")
    assert list((tiny_disk / "out").iterdir()) == []


def test_a_disk_that_is_read_only(tiny_disk: Path):
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    with pytest.raises(StoreError, match="Read-only file system"), staged(tiny_disk / "out"):
        pass
