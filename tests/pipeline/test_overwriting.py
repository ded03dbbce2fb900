"""No command writes onto what it reads: it is refused before any work, and the files stay as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from command_line import done, trtcompress
from float_graphs import residual_net

COMMANDS = {
    "simplify": ("m.onnx", "-o", "m.onnx"),
    "simplify by another path": ("m.onnx", "-o", "./../here/m.onnx"),
    "equalize": ("m.onnx", "--data", "d.npz", "-o", "d.npz"),
    "sparsify": ("m.onnx", "-o", "m.onnx"),
    "calibrate": ("m.onnx", "--data", "d.npz", "-o", "m.onnx"),
    "calibrate data": ("m.onnx", "--data", "d.npz", "-o", "d.npz"),
    "recover": ("m.onnx", "--teacher", "t.onnx", "--data", "d.npz", "-o", "t.onnx"),
    "quantize": ("m.onnx", "--ranges", "r.json", "-o", "m.onnx"),
    "quantize ranges": ("m.onnx", "--ranges", "r.json", "--target", "rtx-4090", "--cache", "r.json", "-o", "q.onnx"),
    "quantize both": ("m.onnx", "--ranges", "r.json", "--target", "rtx-4090", "--cache", "q.onnx", "-o", "q.onnx"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overwriting") / "here"
    folder.mkdir()
    for name in ("m", "t"):
        residual_net(folder / f"{name}.onnx")
    samples = np.random.default_rng(0).standard_normal((16, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "d.npz", x=samples)
    done("calibrate", "m.onnx", "--data", "d.npz", "-o", "r.json", cwd=folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("named", COMMANDS)
def test_inputs_are_not_overwritten(folder: Path, named: str) -> None:
    before = contents(folder)
    ran = trtcompress(named.split()[0], *COMMANDS[named], cwd=folder)
    assert (ran.code, contents(folder) == before) == (2, True), ran.err
    assert "would overwrite" in ran.err
    assert "hint: give another path: -" in ran.err


def test_an_onnx_file_is_not_called_json(folder: Path) -> None:
    before = contents(folder)
    ran = trtcompress("quantize", "m.onnx", "--ranges", "r.json", "-o", "q.json", cwd=folder)
    assert (ran.code, contents(folder) == before) == (2, True), ran.err
    assert "hint: -o q.onnx" in ran.err


def test_a_file_of_an_earlier_run_may_be_written_anew(folder: Path) -> None:
    done("simplify", "m.onnx", "-o", "s.onnx", cwd=folder)
    done("simplify", "m.onnx", "-o", "s.onnx", cwd=folder)
    (folder / "s.onnx").unlink()
