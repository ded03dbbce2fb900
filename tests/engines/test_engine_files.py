from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from trtcompress_engines.files import digest_files, staged
from trtcompress_graph.errors import StoreError


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"1" * 3_000_000)
    (tmp_path / "b").write_bytes(b"2")
    assert digest_files(tmp_path / "a", tmp_path / "b") == hashlib.sha256(b"1" * 3_000_000 + b"2").hexdigest()


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
