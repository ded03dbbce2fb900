"""Tensors that are read in blocks of channels hold the same values as in their plain layout, and nothing else."""

import platform
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnx_models import light, model, save, value
from trtcompress_calibration.blocked import has_blocks
from trtcompress_calibration.tapped_session import TappedSession
from trtcompress_calibration.taps import read_skeleton, tapped_tensors
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.simplify import simplify

RNG = np.random.default_rng(0)


def widths(path: Path, *channels: int) -> Model:
    """Convolutions of these widths, one behind the other, with ReLU, max-pooling and a sum of two of them."""
    nodes, weights, before = [], {}, 3
    last = "x"
    for i, width in enumerate(channels):
        weights[f"w{i}"] = RNG.standard_normal((width, before, 3, 3)).astype(np.float32) * 0.2
        nodes += [
            helper.make_node("Conv", [last, f"w{i}"], [f"c{i}"], f"conv{i}", pads=[1] * 4),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"], f"relu{i}"),
        ]
        last, before = f"r{i}", width
    nodes += [
        helper.make_node("Add", [last, f"c{len(channels) - 1}"], ["sum"], "add"),
        helper.make_node("MaxPool", ["sum"], ["y"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    inputs, outputs = [value("x", ["batch", 3, 12, 12])], [value("y", ["batch", channels[-1], 6, 6])]
    return read_model(save(model(nodes, inputs, outputs, weights), path))


def assert_same_values(read: Model, shape: tuple[int, ...]) -> None:
    """Every tensor that calibration reads holds the values of the plain layout, each as often."""
    taps = tapped_tensors(read)
    wanted = (*taps.histogram, *taps.extremes)
    plain = TappedSession(read, wanted, 1, reuse=True)
    any_order = TappedSession(read, wanted, 1, reuse=True, any_order=True)
    assert any_order.tapped == plain.tapped
    for _ in range(2):  # into fresh memory, and into the same again
        feeds = {read.inputs[0].name: RNG.standard_normal(shape).astype(np.float32)}
        given, expected = any_order.run(feeds), plain.run(feeds)
        for name, array in expected.items():
            np.testing.assert_array_equal(np.sort(given[name].ravel()), np.sort(array.ravel()), err_msg=name)


@pytest.mark.parametrize("channels", [(16, 32, 16), (24, 8, 40), (16, 24, 32, 4), (48, 48)])
def test_padding_of_blocks_is_never_counted(tmp_path: Path, channels: tuple[int, ...]) -> None:
    assert_same_values(widths(tmp_path / "m.onnx", *channels), (3, 3, 12, 12))


@pytest.mark.parametrize("name", ["squeezenet", "densenet121", "resnet50"])
def test_networks(tmp_path: Path, name: str) -> None:
    """Whole networks, at the size that they have."""
    proto = light(name)
    onnx.save(proto, tmp_path / "written.onnx")
    read = simplify(read_model(tmp_path / "written.onnx"), tmp_path / "m.onnx")
    assert_same_values(read, tuple(read.inputs[0].shape))  # type: ignore[arg-type]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="ONNX Runtime blocks channels on x86 only")
def test_plain_layout_is_not_restored_for_reading(tmp_path: Path) -> None:
    """Else this costs a network of convolutions a third of its time."""
    read = widths(tmp_path / "m.onnx", 16, 32, 16)
    taps = tapped_tensors(read)
    session = TappedSession(read, taps.histogram, 1, reuse=True, any_order=True)
    given = [output.name for output in session._session.get_outputs()]
    assert len(set(taps.histogram) - {"x"} - set(given)) >= 3


def test_graphs_without_wide_convolutions_are_left_alone(tmp_path: Path) -> None:
    assert has_blocks(read_skeleton(widths(tmp_path / "wide.onnx", 16, 4)))
    assert not has_blocks(read_skeleton(widths(tmp_path / "narrow.onnx", 8, 4)))
