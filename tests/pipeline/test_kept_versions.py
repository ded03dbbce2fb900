"""Repositories that hold more than was packed, and those that only seem to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from triton_models import APART, CPU, towers
from trtcompress.compiling import compile_model
from trtcompress.config import TritonSettings
from trtcompress.kept_versions import has_versions, left_by_rollback
from trtcompress.packaging import pack
from trtcompress_engines.triton import switching
from trtcompress_engines.triton.switching import add_versions, roll_back

TOWERS = {"image_v2": ("image_vectors",), "text": ("text_vectors", "lengths")}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same towers twice, with other settings; one is called like a version."""
    folder = tmp_path_factory.mktemp("towers")
    engine = compile_model(towers(folder / "towers.onnx", APART), CPU, "float", APART, folder / "engine", threads=1)
    made = folder / "one", folder / "two"
    for delay, repository in enumerate(made, 100):
        settings = TritonSettings(towers=TOWERS, max_queue_delay_us=delay)
        named = {"name": "clip", "form": "triton-python", "axes": APART, "triton": settings}
        assert pack(engine, CPU, repository, **named) == ""
    return made


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switching, "SETTLE_SECONDS", 0)


def test_a_tower_called_like_a_version_is_none(packed: tuple[Path, Path], tmp_path: Path) -> None:
    repository = Path(shutil.copytree(packed[0], tmp_path / "r"))
    assert (repository / "clip_image_v2").is_dir()
    assert not has_versions(repository)


def test_models_that_a_version_asks_are_versions(packed: tuple[Path, Path], tmp_path: Path) -> None:
    """The first package with --new-version: all are version 1, under names that a plain package does not write."""
    add_versions(packed[0], tmp_path)
    assert has_versions(tmp_path)


def test_towers_that_a_rollback_left_are_found(packed: tuple[Path, Path], tmp_path: Path) -> None:
    for made in packed:
        add_versions(made, tmp_path)
        assert left_by_rollback(made, tmp_path) == ""
    assert left_by_rollback(packed[0], tmp_path) == ""  # an older version
    latest = max(one.version for one in roll_back(tmp_path, "clip"))
    assert left_by_rollback(packed[0], tmp_path) == ""
    told = left_by_rollback(packed[1], tmp_path)
    assert told.startswith(f"version {latest + 1} of clip in {tmp_path} has this build and is not served")
    roll_back(tmp_path, "clip", latest + 1)
    assert left_by_rollback(packed[1], tmp_path) == ""
