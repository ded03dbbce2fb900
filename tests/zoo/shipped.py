"""Real graphs from packages: trained ones as they are, and the structure of large ones with seeded weights."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

import networks
from assets import asset
from onnx_models import LIGHT
from trtcompress_graph.axes import Axes, AxisRange
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.simplify import simplify

from .entries import BATCH, Entry, add, torch_graph
from .language import MASKED
from .making import write_simplified

_WIDE, _NARROWED = 4096, 192
"""The fully connected layers of three graphs are made narrow: their hundreds of megabytes would show no more."""


def light(name: str) -> onnx.ModelProto:
    """A graph that the onnx package ships without weights, every weight drawn; scores before a softmax of order 1."""
    proto = onnx.load(asset("onnx", f"light/light_{name}.onnx"))
    proto.ir_version = 8  # so that initializers need not be inputs
    rng = np.random.default_rng(1)
    roles = _roles(proto)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(_drawn(tensor.name, tuple(tensor.dims), roles.get(tensor.name), rng))
    for node in list(proto.graph.node):
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            shape = tuple(_NARROWED if n == _WIDE else int(n) for n in shapes[node.input[0]])
            proto.graph.initializer.append(_drawn(node.output[0], shape, roles.get(node.output[0]), rng))
            proto.graph.node.remove(node)
    _scale_scores(proto)
    return proto


def _roles(proto: onnx.ModelProto) -> dict[str, tuple[str, int]]:
    """The operator that reads each tensor, and where; of what is reshaped only the one that reads that."""
    roles = {n: (node.op_type, i) for node in proto.graph.node for i, n in enumerate(node.input)}
    moved = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type in ("Reshape", "Unsqueeze")}
    return roles | {name: roles[out] for name, out in moved.items() if out in roles}


def _drawn(
    name: str, shape: tuple[int, ...], role: tuple[str, int] | None, rng: np.random.Generator
) -> onnx.TensorProto:
    if len(shape) > 1:
        array = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif role in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 0), ("Mul", 1)):
        array = rng.uniform(0.5, 1.5, shape)
    else:
        array = rng.standard_normal(shape) * 0.3
    return numpy_helper.from_array(array.astype(np.float32), name)


def _scale_scores(proto: onnx.ModelProto) -> None:
    """Divide the last layer's weight by the spread of the scores, so that a softmax is not at its end."""
    last = next(node for node in reversed(proto.graph.node) if node.op_type in ("Gemm", "Conv"))
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    probe.graph.output.append(helper.make_tensor_value_info(last.output[0], TensorProto.FLOAT, None))
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(probe.SerializeToString(), options)
    given = session.get_inputs()[0]
    image = np.random.default_rng(0).standard_normal(given.shape).astype(np.float32)
    spread = session.run([last.output[0]], {given.name: image})[0].std()
    for tensor in proto.graph.initializer:
        if tensor.name in last.input[1:]:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(array / spread if array.ndim > 1 else array, tensor.name))


def _write_light(name: str, path: Path) -> Model:
    return write_simplified(light(name), path)


for _name in LIGHT:
    add(Entry(f"light_{_name}", functools.partial(_write_light, _name), __name__))


def _shipped(name: str, dist: str, tail: str, axes: Axes, **more: Any) -> None:
    def write(path: Path) -> Model:
        return simplify(read_model(asset(dist, tail)), path)

    add(Entry(name, write, __name__, axes, **more))


def _only(length: int) -> AxisRange:
    return AxisRange(length, length, length)


def _page(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[Any]:
    """Dark words on light paper, from -1 to 1."""
    pages = []
    for _ in range(shape[0]):
        page = Image.new("L", (shape[3], shape[2]), int(rng.integers(200, 255)))
        draw = ImageDraw.Draw(page)
        for top in range(4, shape[2] - 20, 40):
            word = "".join(rng.choice(list("abcdefghkmnorstuxyz0123456789"), 8))
            draw.text((4, top), word, int(rng.integers(0, 80)), ImageFont.load_default(min(28, shape[2] - 20)))
        pages.append(np.asarray(page, np.float32) / 127.5 - 1)
    return np.stack(pages)[:, None] + rng.standard_normal(shape) * 0.05


_DIM = "p2o.DynamicDimension"
_shipped(
    "ocr_detector",
    "rapidocr-onnxruntime",
    "ch_PP-OCRv4_det_infer.onnx",
    {"x": {f"{_DIM}.0": _only(1), f"{_DIM}.1": AxisRange(64, 64, 96), f"{_DIM}.2": AxisRange(64, 96, 128)}},
    drawn=_page,
)
_shipped(
    "ocr_reader",
    "rapidocr-onnxruntime",
    "ch_PP-OCRv4_rec_infer.onnx",
    {"x": {f"{_DIM}.0": AxisRange(1, 1, 2), "2": _only(48), f"{_DIM}.1": AxisRange(64, 64, 96)}},
    drawn=_page,
)
_shipped(
    "ocr_turner",
    "rapidocr-onnxruntime",
    "ch_ppocr_mobile_v2.0_cls_infer.onnx",
    {"x": {"0": AxisRange(1, 1, 2), "2": _only(48), "3": _only(96)}},
    drawn=_page,
)
_SPEECH = {"input": {"batch": AxisRange(1, 1, 2), "sequence": _only(576)}}
_shipped("voice_detector", "silero-vad", "silero_vad_op18_ifless.onnx", _SPEECH, fixed={"sr": 16000})
_shipped("voice_detector_if", "silero-vad", "silero_vad_16k_op15.onnx", _SPEECH, fixed={"sr": 16000})


@torch_graph(axes={"x": {"batch": BATCH}}, trained=True)
def digits() -> tuple[nn.Module, Tensor]:
    """The trained digit classifier."""
    return networks.mnist()


@torch_graph(axes={"x": {"batch": AxisRange(1, 1, 2)}}, trained=True)
def mobilenet_v2_trained() -> tuple[nn.Module, Tensor]:
    """With its ImageNet weights, on smaller images."""
    network, image = networks.mobilenet()
    return network, image[..., :96, :96]


@torch_graph(axes=MASKED, below={"input_ids": 30000}, trained=True)
def minilm() -> tuple[nn.Module, Any]:
    """A trained sentence encoder."""
    return networks.minilm()
