"""What an export tells on stderr: alone, and as a stage of a build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from command_line import trtcompress

NETWORK = """
import torch
from torch import nn
class Words(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(50, 8), nn.Linear(8, 4)
    def forward(self, ids):
        return self.head(self.table(ids)).mean(1)
def make():
    return Words(), torch.randint(0, 50, (2, 16))
"""
CONFIG = """
name: words
model:
  source: told_axes_net:make
  inputs:
    ids: {seq: [4, 8, 16], batch: [1, 2, 4]}
data: {calibration: d.npz}
"""
AXES = "ids: axis 0 = batch, axis 1 = seq"
GREATEST = "greatest difference from PyTorch: "


def test_alone_and_in_a_build(tmp_path: Path) -> None:
    (tmp_path / "told_axes_net.py").write_text(NETWORK)
    (tmp_path / "b.yaml").write_text(CONFIG)
    np.savez(tmp_path / "d.npz", ids=np.arange(32).reshape(4, 8))
    axes = ("--axis", "ids.seq=4,8,16", "--axis", "ids.batch=1,2,4")
    alone = trtcompress("export", "told_axes_net:make", "-o", "m.onnx", *axes, cwd=tmp_path)
    assert alone.code == 0, alone.err
    assert alone.err.index(AXES) < alone.err.index(GREATEST)
    assert not alone.out
    build = ("build", "b.yaml", "--store", "store", "--until", "export", "--out", "out")
    shown = trtcompress(*build, cwd=tmp_path)
    assert shown.code == 0, shown.err
    assert shown.err.index(AXES) < shown.err.index(GREATEST)
    assert AXES not in trtcompress(*build, "--no-cache", "--quiet", cwd=tmp_path).err


PAIR = """
import torch
class Pair(torch.nn.Module):
    def forward(self, x, mask, table, scale):
        return (x * mask) @ table * scale
def make():
    return Pair(), (torch.rand(2, 6), torch.ones(2, 6), torch.rand(6, 3), torch.rand(1))
def declared():
    return (*make(), {"x": {0: "batch"}, "mask": {0: "batch"}})
"""


def test_where_every_axis_is_fixed_the_options_for_a_batch_are_told_and_work(tmp_path: Path) -> None:
    (tmp_path / "told_fixed_net.py").write_text(PAIR)
    fixed = trtcompress("export", "told_fixed_net:make", "-o", "m.onnx", cwd=tmp_path)
    assert fixed.code == 0, fixed.err
    *_, sizes, told = fixed.err.splitlines()
    assert sizes == "every axis is fixed: it takes x 2 x 6; mask 2 x 6; table 6 x 3; scale 1 and nothing else"
    words, option, rest = told.partition(" --axis ")
    assert words == "for batches of 1 to 16, export it again with"
    assert rest == "x.batch=1,8,16 --axis mask.batch=1,8,16", "what else has another first length"
    again = trtcompress("export", "told_fixed_net:make", "-o", "m.onnx", *f"{option}{rest}".split(), cwd=tmp_path)
    assert again.code == 0, again.err
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    for given in (("told_fixed_net:declared",), ("told_fixed_net:make", "--axis", "x.batch=2"), ("m.onnx",)):
        ran = trtcompress("export", *given, "-o", "other.onnx", cwd=tmp_path)
        assert (ran.code, "every axis is fixed" in ran.err) == (0, False), ran.err
