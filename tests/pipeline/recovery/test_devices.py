"""Where the parts of a training lie, on a device that every machine has: PyTorch's `meta`."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch

from small_cnn import write_cnn
from trtcompress.recovery.devices import UNEVEN, first_device, given_back, repeatable
from trtcompress.recovery.job import placed
from trtcompress.recovery.pairs import Pair, make_pair
from trtcompress.recovery.taps import tapped
from trtcompress_graph.load import read_model
from trtcompress_graph.torch_view import to_torch

META = torch.device("meta")


def pair_of(folder: Path) -> Pair:
    """A quantized student, whose scales are buffers, and its teacher."""
    student = read_model(write_cnn(folder / "int8.onnx", int8=True))
    teacher = read_model(write_cnn(folder / "float.onnx"))
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return make_pair(to_torch(student), to_torch(teacher), student, ((x,),))


def devices(module: torch.nn.Module) -> set[str]:
    return {held.device.type for held in (*module.parameters(), *module.buffers())}


def test_parts_that_are_made_behind_it_lie_where_the_views_do(tmp_path: Path):
    pair = pair_of(tmp_path)
    assert list(pair.student.buffers()), "the network has none that could stay behind"
    placed(pair, META)
    for view in (pair.student, pair.teacher):
        part = tapped(view, pair.outputs, (*pair.outputs, "conv0.relu"))
        assert devices(view) == devices(part) == {"meta"}
        assert part(torch.empty(2, 3, 16, 16, device=META))["logits"].device == META


def test_a_part_that_was_made_before_leaves_buffers_behind(tmp_path: Path):
    """Why the order counts."""
    pair = pair_of(tmp_path)
    part = tapped(pair.student, pair.outputs, pair.outputs)
    part.to(META)
    assert "cpu" in devices(pair.student)


def test_what_both_share_is_held_once_on_the_device_too(tmp_path: Path):
    path = write_cnn(tmp_path / "int8.onnx", int8=True)
    other = onnx.load(path)
    weight = next(w for w in other.graph.initializer if w.name == "fc.weight")
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 1.5, weight.name))
    onnx.save(other, tmp_path / "other.onnx")
    one, two = read_model(path), read_model(tmp_path / "other.onnx")
    pair = make_pair(to_torch(one), to_torch(two), one, ((torch.randn(4, 3, 16, 16),),))
    placed(pair, torch.device("cpu"))
    mine, theirs = dict(pair.student.named_buffers()), dict(pair.teacher.named_buffers())
    assert mine
    assert all(theirs[name] is mine[name] for name in mine if torch.equal(mine[name], theirs[name]))


def test_without_a_gpu_everything_is_on_the_cpu():
    assert first_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    with given_back():
        held = torch.zeros(3)
    assert held.tolist() == [0, 0, 0]


def test_operators_that_give_other_bits_each_time_are_told(caplog):
    with caplog.at_level("WARNING", "trtcompress.stages.recover"), repeatable(0):
        for _ in range(3):
            warnings.warn(f"scatter_add_cuda_kernel {UNEVEN}, but you set a flag", UserWarning, stacklevel=1)
            warnings.warn("Fabric would rather have more workers", UserWarning, stacklevel=1)
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ["scatter_add_cuda_kernel"]
