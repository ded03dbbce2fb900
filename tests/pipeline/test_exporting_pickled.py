from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trtcompress.exporting import export_model, load_state_dict
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import MissingPathError, ModelError, UsageError

AXES = {"input": {"batch": AxisRange(1, 2, 4)}}
SAMPLE = {"input": np.ones((1, 4), np.float32)}


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_state_dict_is_read(tmp_path: Path) -> None:
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "w.pth")
    assert set(load_state_dict(tmp_path / "w.pth")) == {"weight", "bias"}
    with pytest.raises(MissingPathError):
        load_state_dict(tmp_path / "none.pth")


@pytest.mark.parametrize("kind", ["torch", "plain", "random", "number"])
def test_other_files_are_no_state_dicts_and_nothing_in_them_runs(kind: str, tmp_path: Path) -> None:
    path, folder = tmp_path / "w.pth", tmp_path / "made"
    if kind == "torch":
        torch.save({"a": Bomb(folder)}, path)
    elif kind == "number":
        torch.save({"a": 1}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Bomb(folder)}) if kind == "plain" else b"\x00\x01random" * 9)
    with pytest.raises(ModelError) as caught:
        load_state_dict(path)
    assert caught.value.exit_code == 3
    assert caught.value.hint
    assert not folder.exists()


def test_a_pickled_module_runs_nothing_unless_trusted(tmp_path: Path) -> None:
    folder, out = tmp_path / "made", tmp_path / "m.onnx"
    torch.save(Bomb(folder), tmp_path / "m.pt")
    with pytest.raises(ModelError, match="would run code") as caught:
        export_model("m.pt", base=tmp_path, axes={}, out=out)
    assert caught.value.exit_code == 3
    assert "--trust-pickle" in caught.value.hint
    assert not folder.exists()
    torch.save(nn.Linear(4, 2), tmp_path / "n.pt")
    with pytest.raises(UsageError, match="needs a sample"):
        export_model("n.pt", base=tmp_path, axes=AXES, trust_pickle=True, out=out)
    model = export_model("n.pt", base=tmp_path, axes=AXES, samples=iter([SAMPLE]), trust_pickle=True, out=out)
    assert [spec.shape for spec in model.inputs] == [("batch", 4)]


def test_state_dicts_and_torchscript_say_too_little(tmp_path: Path) -> None:
    torch.save(nn.Linear(4, 2).state_dict(), tmp_path / "w.pth")
    torch.jit.save(torch.jit.script(nn.Linear(4, 2)), tmp_path / "s.pt")
    for name, told in (("w.pth", "this is a state dict"), ("s.pt", "this is TorchScript")):
        with pytest.raises(ModelError, match=told) as caught:
            export_model(name, base=tmp_path, axes=AXES, samples=[SAMPLE], trust_pickle=True, out=tmp_path / "m.onnx")
        assert "package.module:function" in caught.value.hint
    with pytest.raises(MissingPathError):
        export_model("none.pt", base=tmp_path, axes={}, out=tmp_path / "m.onnx")
