"""Full and read-only disks, mounted for the test: for the store, for the build, and for what single commands write."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from command_line import Ran, done, trtcompress
from small_builds import QUICK, Small, small_classifier, tree

FAILED = 4


def mount(*args: str) -> None:
    ran = subprocess.run(["mount", *args], capture_output=True, text=True)
    assert ran.returncode == 0, f"this test has to mount, so it needs root (CAP_SYS_ADMIN): {ran.stderr}"


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of this size in memory."""
    folder.mkdir()
    mount("-t", "tmpfs", "-o", f"size={size}", "trtcompress-test", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def lock(folder: Path) -> None:
    mount("-o", "remount,ro", str(folder))


def unlock(folder: Path) -> None:
    mount("-o", "remount,rw", str(folder))


def fill(folder: Path, leave: int) -> Path:
    """Take all the space but so many bytes."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as stream, suppress(OSError):
        while stream.write(bytes(4096)):
            pass
    with ballast.open("rb+") as stream:
        stream.truncate(max(0, ballast.stat().st_size - leave))
    return ballast


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    made = small_classifier(tmp_path_factory.mktemp("small"))
    done("calibrate", made.model, "--data", made.data, "-o", made.folder / "ranges.json")
    return made


def build(small: Small, out: Path, store: Path, *more: object) -> Ran:
    gates = ("--set", "gates={max_metric_drop: 1, min_cosine: 0.9}")
    return trtcompress(
        "build", small.model, "--data", small.data, "--out", out, "--store", store, *QUICK, *gates, *more
    )


def told(ran: Ran, *words: str) -> None:
    assert ran.code == FAILED, ran.err
    assert all(word in ran.err for word in words), ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_a_read_only_store(small, tmp_path):
    with disk(tmp_path / "disk", "20m") as store:
        lock(store)
        told(build(small, tmp_path / "out", store), "cannot write here: Read-only file system", str(store), "--store")
        told(build(small, tmp_path / "out", store, "--no-cache"), "cannot write here", str(store), "--store")
    assert tree(tmp_path) == {}


def test_a_read_only_store_that_has_everything_still_serves(small, tmp_path):
    with disk(tmp_path / "disk", "20m") as store:
        first = build(small, tmp_path / "a", store, "--json")
        assert first.code == 0, first.err
        lock(store)
        again = build(small, tmp_path / "b", store, "--json")
        assert again.code == 0, again.err
        assert [t["sha256"] for t in again.json["targets"]] == [t["sha256"] for t in first.json["targets"]]


def test_a_read_only_build_folder_is_refused_before_any_work(small, tmp_path):
    with disk(tmp_path / "disk", "20m") as out:
        lock(out)
        ran = build(small, out, tmp_path / "store")
        told(ran, "cannot write here: Read-only file system", str(out), "--out")
        assert "export" not in ran.err, "no stage ran"
        assert not list((tmp_path / "store" / "objects").glob("*/*"))


def test_a_read_only_build_folder_with_an_old_build(small, tmp_path):
    with disk(tmp_path / "disk", "20m") as out:
        assert build(small, out, tmp_path / "store").code == 0
        before = tree(out)
        lock(out)
        told(build(small, out, tmp_path / "store"), "cannot write here", str(out))
        assert tree(out) == before


@pytest.mark.parametrize("room", [0, 8_000, 30_000, 60_000])
def test_a_full_store(small, tmp_path, room):
    with disk(tmp_path / "disk", "2m") as place:
        store = place / "store"
        for name in ("objects", "tmp", "locks"):
            (store / name).mkdir(parents=True)
        ballast = fill(place, room)
        ran = build(small, tmp_path / "out", store)
        told(ran, "disk", "trtcompress cache gc")
        assert any(word in ran.err for word in ("no space left", "full"))
        assert not any(store.glob("tmp/*"))
        assert tree(tmp_path / "out") == {}
        assert done("cache", "verify", "--store", store, "--json").json["entries"] == [], "what is there is whole"
        ballast.unlink()
        assert build(small, tmp_path / "out", store).code == 0, "with space, the same command goes on"


@pytest.mark.parametrize("room", [0, 20_000, 80_000])
def test_a_full_build_folder(small, tmp_path, room):
    with disk(tmp_path / "disk", "2m") as out:
        ballast = fill(out, room)
        told(build(small, out, tmp_path / "store"), "no space left on the disk", "--out")
        written = tree(out / "small")
        assert not [name for name in written if name.endswith(".partial")], "no half file"
        assert "manifest.json" not in written, "it is written last, so this is no build"
        ballast.unlink()
        again = build(small, out, tmp_path / "store")
        assert again.code == 0, again.err
        assert (out / "small" / "manifest.json").is_file()


COMMANDS = {
    "simplify": ("simplify", "{model}", "-o", "{disk}/o.onnx"),
    "calibrate": ("calibrate", "{model}", "--data", "{data}", "-o", "{disk}/r.json"),
    "quantize": ("quantize", "{model}", "--ranges", "{ranges}", "-o", "{disk}/q.onnx"),
    "compile": ("compile", "{model}", "-o", "{disk}/engine"),
    "compile gpu": ("compile", "{model}", "--target", "rtx-4090", "--axis", "x.batch=1,2,4", "-o", "{disk}/engine"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("state", ["full", "read-only"])
def test_single_commands(small, tmp_path, command, state):
    with disk(tmp_path / "disk", "1m") as place:
        if state == "full":
            fill(place, 0)
        else:
            lock(place)
        before = tree(place).keys()
        places = {"model": small.model, "data": small.data, "ranges": small.folder / "ranges.json", "disk": place}
        ran = trtcompress(*(arg.format(**places) for arg in COMMANDS[command]))
        told(ran, "hint: ")
        assert any(word in ran.err for word in ("no space left", "disk is full", "cannot write here")), ran.err
        assert tree(place).keys() == before


@pytest.mark.parametrize(("room", "devices"), [(0, 1), (40_000, 1), (100_000, 1), (100_000, 2)])
def test_recover(small, tmp_path, room, devices):
    """No space for anything, for the samples (74 kB), for a checkpoint behind them: that of several processes too."""
    changed = onnx.load(small.model)
    for held in changed.graph.initializer:
        held.CopyFrom(numpy_helper.from_array(0.9 * numpy_helper.to_array(held), held.name))
    onnx.save(changed, tmp_path / "student.onnx")
    with disk(tmp_path / "disk", "2m") as place:
        ballast = fill(place, room)
        command = (
            *("recover", tmp_path / "student.onnx", "--teacher", small.model, "--data", small.data, "--epochs", 1),
            *("-o", place / "out.onnx", "--no-blockwise", "--lr", "1e-3", "--devices", devices),
        )
        ran = trtcompress(*command)
        told(ran, "no space left on the disk", f"error: {place}", "another folder with -o")
        assert "--store" not in ran.err, "which it does not have"
        assert tree(place).keys() == {"ballast"}
        ballast.unlink()
        assert devices > 1 or trtcompress(*command).code == 0


def test_a_package_on_a_full_disk(small, tmp_path):
    built = tmp_path / "built"
    assert build(small, built, tmp_path / "store").code == 0
    with disk(tmp_path / "disk", "1m") as place:
        (place / "repository").mkdir()
        fill(place, 4096)
        told(trtcompress("package", built / "small", "-o", place / "repository"), "cannot be written", "hint: ")
        assert not any((place / "repository").iterdir()), "no half model that a server would load"


def test_the_disk_fills_while_data_is_read(small, tmp_path):
    """Space that runs out in the middle: calibration over many samples, with a neighbour that takes the rest."""
    np.savez(tmp_path / "many.npz", x=np.zeros((200, 3, 16, 16), np.float32))
    with disk(tmp_path / "disk", "1m") as store:
        ballast = fill(store, 40_000)
        ran = trtcompress("build", small.model, "--data", tmp_path / "many.npz", "--store", store, "--out", tmp_path)
        told(ran, "disk")
        ballast.unlink()
        assert done("cache", "verify", "--store", store).code == 0
