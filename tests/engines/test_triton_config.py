from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup

from triton_models import BATCH_8, CPU, cnn, encoder, engine_of, reader, scaled, scorer
from trtcompress_engines.triton import TritonOptions, parse_config, write_repository
from trtcompress_engines.triton.batch_axis import batch_axis
from trtcompress_engines.triton.batching import Batching, batching
from trtcompress_engines.triton.config import Serving, config_text
from trtcompress_engines.triton.datatypes import (
    ONNXRUNTIME_TYPES,
    PYTHON_TYPES,
    TENSORRT_TYPES,
    TRITON_TYPES,
    Backend,
    check_types,
)
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import CompileError, UsageError
from trtcompress_graph.model import Model, TensorSpec

SERVING = Serving(Backend("backend", "onnxruntime", ONNXRUNTIME_TYPES), "model.onnx", "model.onnx", "KIND_CPU", {})
AXES = {"x": {axis: AxisRange(1, 3, 6) for axis in ("batch", "height", "width")}}

dims = st.one_of(st.integers(0, 2**31), st.sampled_from(["height", "width"]))
names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@st.composite
def specs(draw, batched: bool):
    head = ("batch",) if batched else ()
    found = draw(st.lists(names, min_size=2, max_size=5, unique=True))
    return [
        TensorSpec(name, draw(st.sampled_from(sorted(TRITON_TYPES))), (*head, *draw(st.lists(dims, max_size=4))))
        for name in found
    ]


def model(inputs: list[TensorSpec], outputs: list[TensorSpec]) -> Model:
    return Model(Path("m.onnx"), "0" * 64, tuple(inputs), tuple(outputs))


@given(st.data(), st.booleans())
def test_config_agrees_with_the_tensors(data, batched: bool):
    tensors = data.draw(specs(batched))
    graph = model(tensors[:1], tensors[1:])
    batch = batching(graph, AXES, TritonOptions()) if batched else Batching(0)
    text = config_text("m", graph, SERVING, batch, AXES, TritonOptions())
    config = text_format.Parse(text, ModelConfig())
    assert config.max_batch_size == (6 if batched else 0)
    assert config.HasField("dynamic_batching") == batched
    for entry, spec in zip([*config.input, *config.output], tensors, strict=True):
        assert entry.name == spec.name
        assert DataType.Name(entry.data_type) == TRITON_TYPES[spec.dtype]
        shape = list(entry.reshape.shape) if entry.HasField("reshape") else list(entry.dims)
        full = [-1, *shape] if batched else shape
        assert full == [-1 if isinstance(dim, str) else dim for dim in spec.shape] or (full == [1] and not spec.shape)
        assert list(entry.dims), "Triton refuses empty dims"
    for warmup in config.model_warmup:
        given = warmup.inputs[tensors[0].name]
        assert len(given.dims) == len(config.input[0].dims)
        assert all(length in (wanted, 3) for length, wanted in zip(given.dims, config.input[0].dims, strict=True))
        assert given.data_type == config.input[0].data_type
    assert text == config_text("m", graph, SERVING, batch, AXES, TritonOptions())


@pytest.mark.parametrize("backend", [ONNXRUNTIME_TYPES, PYTHON_TYPES, TENSORRT_TYPES])
def test_types_that_a_backend_does_not_carry_are_refused_by_name(backend: frozenset[str]):
    for dtype in ["float8_e4m3fn", "int4", "complex64", *(TRITON_TYPES.keys() - backend)]:
        with pytest.raises(CompileError, match=rf"tensor 'odd'.*{dtype}"):
            check_types([TensorSpec("odd", dtype, (1,))], Backend("backend", "some", backend))
    check_types([TensorSpec(dtype, dtype, (1,)) for dtype in backend], Backend("backend", "some", backend))


def tensor(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


@pytest.mark.parametrize(
    ("inputs", "outputs", "axis"),
    [
        ([tensor("x", "b", 3)], [tensor("y", "b")], "b"),
        ([tensor("x", 1, 3)], [tensor("y", 1)], None),
        ([tensor("x", "b", 3)], [tensor("y", 3)], None),
        ([tensor("x", "b", 3)], [tensor("y")], None),
        ([tensor("x", "b", 3), tensor("z", "c", 3)], [tensor("y", "b")], None),
        ([tensor("x", "b", 3), tensor("z", 3)], [tensor("y", "b")], None),
        ([tensor("x", "b", 3)], [tensor("similarity", "b", "b")], None),
        ([tensor("x", "b", "b")], [tensor("y", "b")], None),
        ([], [tensor("y", "b")], None),
    ],
)
def test_batch_axis_by_name(inputs, outputs, axis):
    assert batch_axis(model(inputs, outputs), {}) == axis


def test_batch_axis_whose_name_the_exporter_lost_is_measured(tmp_path: Path):
    graph = reader(tmp_path / "reader.onnx")
    assert graph.inputs[0].shape[0] != graph.outputs[0].shape[0]
    axes = {"x": {"x_2": AxisRange(48, 48, 48), "p2o.DynamicDimension.1": AxisRange(32, 96, 320)}}
    assert batch_axis(graph, axes) == graph.inputs[0].shape[0]


def test_an_axis_that_does_not_follow_the_batch_is_found(tmp_path: Path):
    from onnx import TensorProto, helper

    from triton_models import save

    nodes = [helper.make_node("NonZero", ["x"], ["at"]), helper.make_node("Transpose", ["at"], ["y"])]
    graph = save(tmp_path / "m.onnx", nodes, [("x", TensorProto.FLOAT, ["b", 3])], [("y", 7, ["found", 2])], {})
    assert batch_axis(graph, {}) is None


@pytest.mark.parametrize(
    ("span", "options", "expected"),
    [
        (AxisRange(1, 4, 16), TritonOptions(), Batching(16, 4, (4, 16))),
        (AxisRange(1, 1, 1), TritonOptions(), Batching(1, 1, ())),
        (AxisRange(2, 4, 16), TritonOptions(), Batching(0)),
        (AxisRange(1, 4, 16), TritonOptions(max_batch_size=0), Batching(0)),
        (AxisRange(1, 4, 16), TritonOptions(max_batch_size=2), Batching(2, 2, (2,))),
        (AxisRange(1, 4, 16), TritonOptions(preferred_batch_sizes=(8, 1)), Batching(16, 4, (8,))),
        (AxisRange(1, 4, 16), TritonOptions(preferred_batch_sizes=()), Batching(16, 4, ())),
        (None, TritonOptions(), Batching(8, 1, (8,))),
        (None, TritonOptions(max_batch_size=64), Batching(64, 1, (64,))),
    ],
)
def test_batch_sizes(span, options, expected):
    axes = {} if span is None else {"x": {"b": span}}
    assert batching(model([tensor("x", "b", 3)], [tensor("y", "b")]), axes, options) == expected


def test_batch_sizes_that_cannot_be():
    graph = model([tensor("x", "b", 3)], [tensor("y", "b")])
    with pytest.raises(CompileError, match="at most 4"):
        batching(graph, {"x": {"b": AxisRange(1, 2, 4)}}, TritonOptions(max_batch_size=8))
    with pytest.raises(CompileError, match="no batch axis"):
        batching(model([tensor("x", 1, 3)], [tensor("y", 1)]), {}, TritonOptions(max_batch_size=8))
    with pytest.raises(CompileError, match="preferred"):
        batching(graph, {}, TritonOptions(max_batch_size=4, preferred_batch_sizes=(8,)))


@pytest.mark.parametrize(
    "wrong",
    [{"instances": 0}, {"max_batch_size": -1}, {"threads": -1}, {"preferred_batch_sizes": (0,)}, {"warmup": "hot"}],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TritonOptions(**wrong)


def test_an_axis_without_a_range_has_no_warm_up():
    graph = model([tensor("x", "batch", "length")], [tensor("y", "batch")])
    with pytest.raises(UsageError, match="length"):
        config_text("m", graph, SERVING, Batching(8), {}, TritonOptions())
    config_text("m", graph, SERVING, Batching(8), {}, TritonOptions(warmup="off"))


def write(graph: Model, folder: Path, axes=None, options: TritonOptions | None = None) -> ModelConfig:
    path = write_repository(
        engine_of(graph), CPU, folder, name="m", format="triton", axes=axes or {}, options=options or TritonOptions()
    )
    return parse_config(path / "config.pbtxt")


def test_config_of_a_cnn(tmp_path: Path):
    options = TritonOptions(instances=2, threads=3, max_queue_delay_us=250, warmup="random")
    config = write(cnn(tmp_path / "cnn.onnx"), tmp_path / "repository", {"image": {"batch": BATCH_8}}, options)
    assert (config.name, config.backend, config.max_batch_size) == ("m", "onnxruntime", 8)
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.dynamic_batching.max_queue_delay_microseconds == 250
    assert [(group.count, group.kind) for group in config.instance_group] == [(2, ModelInstanceGroup.KIND_CPU)]
    assert config.parameters["intra_op_thread_count"].string_value == "3"
    assert [
        (w.batch_size, list(w.inputs["image"].dims), w.inputs["image"].random_data) for w in config.model_warmup
    ] == [
        (1, [1, 28, 28], True),
        (4, [1, 28, 28], True),
    ]


def test_config_of_several_inputs_with_a_sequence(tmp_path: Path):
    axes = {"ids": {"batch": AxisRange(1, 1, 4), "sequence": AxisRange(1, 16, 64)}}
    config = write(encoder(tmp_path / "encoder.onnx"), tmp_path / "repository", axes)
    assert [(entry.name, list(entry.dims)) for entry in config.input] == [("ids", [-1]), ("mask", [-1])]
    assert [(entry.name, list(entry.dims)) for entry in config.output] == [("tokens", [-1, 8]), ("pooled", [8])]
    assert [list(w.inputs["mask"].dims) for w in config.model_warmup] == [[16]]


def test_config_of_tensors_without_dims(tmp_path: Path):
    batched = write(scorer(tmp_path / "scorer.onnx"), tmp_path / "repository", {"user": {"batch": BATCH_8}})
    for entry in (*batched.input, *batched.output):
        assert list(entry.dims) == [1]
        assert entry.HasField("reshape")
        assert list(entry.reshape.shape) == []
    scalars = write(scaled(tmp_path / "scaled.onnx"), tmp_path / "other")
    assert scalars.max_batch_size == 0
    assert [list(entry.dims) for entry in (*scalars.input, *scalars.output)] == [[3], [1], [3], [1]]
    assert not any(entry.HasField("reshape") for entry in (*scalars.input, *scalars.output))
