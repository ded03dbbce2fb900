"""What an export tells on stderr: alone, and as a stage of a build."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
