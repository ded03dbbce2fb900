"""Small float ONNX graphs to quantize, and what is asked of a quantized one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageFont

from trtcompress_calibration.collect import calibrate
from trtcompress_calibration.samples import Sample
from trtcompress_engines.emulation import rounding_float16
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

Shapes = dict[str, Sequence[int | str]]


class Net:
    """A graph that grows node by node; each call returns the name of the tensor that it adds."""

    def __init__(self, opset: int = 20) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(0)

    def constant(self, name: str, values: object, dtype: type = np.float32) -> str:
        self.constants[name] = np.asarray(values, dtype)
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=f"{op}:{output}", **attributes))
        return output

    def conv(self, x: str, name: str, cin: int, cout: int, kernel: int = 3, **attributes: object) -> str:
        group = int(attributes.get("group", 1))  # type: ignore[call-overload]
        shape = (cout, cin // group, kernel, kernel)
        weight = self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        inputs = [x, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", self.rng.normal(size=cout))]
        return self.node("Conv", inputs, name, pads=[kernel // 2] * 4, **attributes)

    def product(self, op: str, x: str, name: str, cin: int, cout: int) -> str:
        weight = self.constant(f"{name}.weight", self.rng.normal(size=(cin, cout)) / np.sqrt(cin))
        bias = [self.constant(f"{name}.bias", self.rng.normal(size=cout))] if op == "Gemm" else []
        return self.node(op, [x, weight, *bias], name)

    def save(
        self, path: Path, inputs: dict[str, Sequence[int | str]], outputs: dict[str, Sequence[int | str]]
    ) -> Model:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
            [numpy_helper.from_array(values, name) for name, values in self.constants.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=9)
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, path)
        return read_model(path)


IMAGE = {"x": ("batch", 3, 16, 16)}


def residual_net(path: Path) -> Model:
    """Stem, pooling, two residual blocks (one with a convolution on its shortcut), mean and Gemm."""
    net = Net()
    x = net.node("Relu", [net.conv("x", "stem", 3, 16)], "stem_relu")
    x = net.node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    for block, stride in (("a", 1), ("b", 2)):
        inner = net.node("Relu", [net.conv(x, f"{block}1", 16, 16, strides=[stride, stride])], f"{block}1_relu")
        inner = net.conv(inner, f"{block}2", 16, 16)
        shortcut = net.conv(x, f"{block}0", 16, 16, 1, strides=[stride, stride]) if stride > 1 else x
        x = net.node("Relu", [net.node("Add", [inner, shortcut], f"{block}_add")], f"{block}_relu")
    x = net.node("GlobalAveragePool", [x], "mean")
    x = net.node("Flatten", [x], "flat")
    net.product("Gemm", x, "logits", 16, 10)
    return net.save(path, IMAGE, {"logits": ("batch", 10)})


def with_fixed_batch(model: Model, batch: int) -> Model:
    """The same file, with the first axis of its inputs and outputs fixed."""
    proto = onnx.load(model.path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(proto, model.path)
    return read_model(model.path)


def images(count: int, shape: Sequence[int] = (3, 16, 16), seed: int = 1) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [Sample({"x": rng.normal(size=(1, *shape)).astype(np.float32)}) for _ in range(count)]


def lines(count: int, shape: Sequence[int], seed: int = 0) -> list[Sample]:
    """Printed text on light paper, as the text models want it: -1 to 1, 32 pixels a line."""
    rng, font = np.random.default_rng(seed), ImageFont.load_default(28)
    samples = []
    for _ in range(count):
        page = Image.new("RGB", (shape[2], shape[1]), tuple(int(v) for v in rng.integers(210, 256, 3)))
        for top in range(shape[1] % 32 // 2, shape[1] - 31, 32):
            text = "".join(rng.choice(list("ABCDEFGHKLMNRSTabdeghknorstu0123456789 "), shape[2] // 16))
            ImageDraw.Draw(page).text((3, top - 2), text, fill=tuple(int(v) for v in rng.integers(0, 80, 3)), font=font)
        pixels = np.asarray(page, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        samples.append(Sample({"x": pixels}))
    return samples


def measured(model: Model, samples: Sequence[Sample], method: str = "minmax") -> Ranges:
    return calibrate(model, samples, method=method, threads=1)


def run(path: Path, samples: Sequence[Sample], *, kernels: bool = True) -> np.ndarray:
    """First output, stacked; float16 is rounded, and without INT8 `kernels` every Q and DQ computed."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    if not kernels:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(rounding_float16(path) or path, options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, dict(sample.inputs))[0] for sample in samples])


def optimized(path: Path) -> Counter[str]:
    """Operator kinds of the graph that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path.with_suffix(".optimized")).graph.node)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def kinds(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)
