"""What is copied beside a served model, run here with stand-ins for Triton, CUDA and TensorRT for RTX."""

import ast
import ctypes
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from python_backend import ModelError, TritonError, loader, request
from triton_models import RTX, cnn, encoder, engine_of
from trtcompress_engines.kit.device import streaming
from trtcompress_engines.triton import TritonOptions, write_repository
from trtcompress_engines.triton.served import batching, cudart, tensorrt_rtx_runner
from trtcompress_engines.triton.served.onnxruntime_runner import check_axes
from trtcompress_graph import preprocessing

SERVED = Path(batching.__file__).parent


@pytest.mark.parametrize(
    "path", [*sorted(SERVED.glob("*.py")), Path(preprocessing.__file__)], ids=lambda path: path.name
)
def test_runs_on_python_3_8_without_trtcompress(path: Path):
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    keywords = {word.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords}
    assert "strict" not in keywords, "zip takes it from 3.10 on"
    allowed = {"PIL", "numpy", "onnxruntime", "triton_python_backend_utils"}
    assert {module.partition(".")[0] for module in modules} <= allowed | set(sys.stdlib_module_names)


# --- batching


def double(feed):
    return {"y": feed["x"] * 2, "rows": np.arange(len(feed["x"]))}


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([(3,), (4,), (3, 2)])), max_size=12), st.integers(5, 12))
def test_every_request_gets_its_own_answer(shapes, max_batch):
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.random((size, *shape))} for size, shape in shapes]
    ran = []

    def model(feed):
        ran.append(feed["x"].shape)
        return double(feed)

    answers = batching.run(model, feeds, max_batch)
    assert all(np.array_equal(answer["y"], feed["x"] * 2) for answer, feed in zip(answers, feeds, strict=True))
    assert all(shape[0] <= max_batch for shape in ran)
    assert sum(shape[0] for shape in ran) == sum(size for size, _ in shapes)


def test_equal_shapes_share_one_run():
    feeds = [{"x": np.full((size, 3), size)} for size in (1, 2, 4)]
    ran = []
    batching.run(lambda feed: ran.append(feed["x"].shape) or double(feed), feeds, 8)
    assert ran == [(7, 3)]


@pytest.mark.parametrize(
    "other", [{"x": np.zeros((1, 4))}, {"x": np.zeros((1, 3), "f4")}, {"x": np.zeros((1, 3)), "z": np.zeros((1, 1))}]
)
def test_what_differs_runs_apart(other):
    assert batching.groups([{"x": np.zeros((1, 3))}, other, {"x": np.zeros((2, 3))}], 8) == [[0, 2], [1]]


def test_no_batch_axis_no_sharing():
    feeds = [{"x": np.zeros(3)}, {"x": np.zeros(3)}]
    assert batching.groups(feeds, 0) == [[0], [1]]


def test_only_the_culprit_gets_the_error():
    def model(feed):
        if (feed["x"] < 0).any():
            raise ValueError("negative")
        return double(feed)

    feeds = [{"x": np.ones((1, 2))}, {"x": -np.ones((1, 2))}, ValueError("unreadable"), {"x": np.ones((2, 2))}]
    first, second, third, fourth = batching.run(model, feeds, 8)
    assert (str(second), str(third)) == ("negative", "unreadable")
    assert np.array_equal(first["y"], [[2, 2]])
    assert fourth["y"].shape == (2, 2)


def test_an_answer_without_a_batch_is_not_cut():
    answers = batching.run(lambda feed: {"y": feed["x"].sum(0)}, [{"x": np.ones((1, 2))}, {"x": np.ones((3, 2))}], 8)
    assert [answer["y"].tolist() for answer in answers] == [[1, 1], [3, 3]], "each ran alone instead"


# --- the entry point, under a stand-in for triton_python_backend_utils


@pytest.fixture
def served(monkeypatch):
    return loader(monkeypatch)


def write(engine, tmp_path: Path) -> Path:
    options = TritonOptions(warmup="off")
    return write_repository(engine, RTX, tmp_path / "r", name="m", format="triton-python", axes={}, options=options)


def test_onnxruntime_answers(served, tmp_path: Path):
    model = served(write(engine_of(encoder(tmp_path / "encoder.onnx")), tmp_path))
    ids, mask = np.array([[1, 2, 3]]), np.ones((1, 3), "f4")
    good, missing, wrong = model.execute(
        [request(ids=ids, mask=mask), request(ids=ids), request(ids=ids + 100, mask=mask)]
    )
    assert good.error is None
    assert {name: array.shape for name, array in good.tensors.items()} == {"tokens": (1, 3, 8), "pooled": (1, 8)}
    assert missing.error.message == "input 'mask' is missing; the model takes: ids, mask"
    assert "indices element out of data bounds" in wrong.error.message
    assert wrong.error.code == missing.error.code == TritonError.INVALID_ARG
    model.finalize()


def test_a_changed_model_does_not_load(served, tmp_path: Path):
    folder = write(engine_of(encoder(tmp_path / "encoder.onnx")), tmp_path)
    cnn(folder / "1/model.onnx")
    with pytest.raises(ModelError, match=r"m: model\.onnx is not the file that was packaged"):
        served(folder)


def test_a_configuration_of_other_tensors_does_not_load(served, tmp_path: Path):
    folder = write(engine_of(encoder(tmp_path / "encoder.onnx")), tmp_path)
    config = folder / "config.pbtxt"
    config.write_text(config.read_text().replace('"pooled"', '"pool"'))
    with pytest.raises(ModelError, match=r"config\.pbtxt names the outputs \['pool', 'tokens'\], the model has"):
        served(folder)


def test_a_configuration_of_batches_that_no_profile_holds_does_not_load(served, tmp_path: Path, monkeypatch):
    folder = write(engine_of(encoder(tmp_path / "encoder.onnx")), tmp_path)
    assert served(folder).max_batch == 8
    # the module as it was loaded from the folder: there `greatest_batch` is that of a plan
    runner = (folder / "1/onnxruntime_runner.py").read_text()
    (folder / "1/onnxruntime_runner.py").write_text(runner.replace("return None", "return 4"))
    with pytest.raises(ModelError, match=r"m: config\.pbtxt has batches of up to 8, the model takes at most 4"):
        served(folder)


# --- TensorRT for RTX, under stand-ins for its bindings and for libcudart


class Cudart:
    """Device memory is host memory; every call is written down."""

    def __init__(self):
        self.held: dict[int, ctypes.Array] = {}
        self.calls: list[str] = []
        self.cudaGetErrorString = lambda status: b"out of memory"
        self.fail = ""

    def __getattr__(self, name):
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments):
            self.calls.append(name)
            return 2 if name == self.fail else getattr(self, f"_{name}", lambda *_: 0)(*arguments)

        return call

    def _cudaStreamCreate(self, stream):
        stream._obj.value = 7
        return 0

    def _cudaMalloc(self, pointer, size):
        memory = ctypes.create_string_buffer(size.value)
        pointer._obj.value = ctypes.addressof(memory)
        self.held[pointer._obj.value] = memory
        return 0

    def _cudaFree(self, pointer):
        del self.held[pointer.value]
        return 0

    def _cudaMemcpyAsync(self, to, source, size, kind, stream):
        assert stream.value == 7
        device = to if kind.value == 1 else source
        assert device.value in self.held
        assert size.value <= len(self.held[device.value])
        ctypes.memmove(to.value, source.value, size.value)
        return 0


class Context:
    """`y = 2 x` for `x [batch, 3]` of up to 4 samples, and `n`, the batch, which lies on the CPU."""

    def __init__(self, profiles=1):
        self.shape, self.address, self.profile, self.profiles = None, {}, 0, profiles

    def set_optimization_profile_async(self, profile_index, stream_handle):
        assert stream_handle == 7
        self.profile = profile_index
        return profile_index < self.profiles

    def set_input_shape(self, name, shape):
        assert name == "x"
        self.shape = shape
        (least, _), _, (greatest, _) = profile_shapes(self.profiles)[self.profile]
        return len(shape) == 2 and least <= shape[0] <= greatest and shape[1] == 3

    def set_tensor_address(self, name, address):
        self.address[name] = address
        return True

    def infer_shapes(self):
        return []

    def get_tensor_shape(self, name):
        return self.shape if name == "y" else (1,)

    def execute_async_v3(self, stream):
        assert stream == 7
        size = self.shape[0] * self.shape[1]
        at = {name: ctypes.cast(address, ctypes.POINTER(ctypes.c_float)) for name, address in self.address.items()}
        for i in range(size):
            at["y"][i] = at["x"][i] * 2
        ctypes.cast(self.address["n"], ctypes.POINTER(ctypes.c_int64))[0] = self.shape[0]
        return True


def profile_shapes(count: int):
    """Of `x`: batches of 1 to 4 in one profile, or 1 apart from the others."""
    return [[(1, 3), (2, 3), (4, 3)]] if count == 1 else [[(1, 3), (1, 3), (1, 3)], [(1, 3), (3, 3), (4, 3)]]


def bindings(version: str = "1.7.1.116", loads: bool = True, profiles: int = 1, made: list | None = None):
    names = ["x", "y", "n"]

    def context():
        (made if made is not None else []).append(Context(profiles))
        return made[-1] if made else Context(profiles)

    engine = SimpleNamespace(
        num_io_tensors=3,
        get_tensor_name=names.__getitem__,
        get_tensor_mode=lambda name: "in" if name == "x" else "out",
        get_tensor_dtype=lambda name: "int64" if name == "n" else "float32",
        get_tensor_location=lambda name: "host" if name == "n" else "device",
        get_tensor_shape=lambda name: (-1, 3),
        create_execution_context=context,
        num_optimization_profiles=profiles,
        get_tensor_profile_shape=lambda name, index: profile_shapes(profiles)[index],
    )
    return SimpleNamespace(
        __version__=version,
        Logger=type("Logger", (), {"WARNING": 2, "__init__": lambda self, level: None}),
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda data: engine if loads else None),
        TensorIOMode=SimpleNamespace(INPUT="in"),
        TensorLocation=SimpleNamespace(HOST="host"),
        nptype=lambda dtype: dtype,
    )


@pytest.fixture
def rtx(tmp_path: Path, monkeypatch):
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"a plan")
    library = Cudart()
    monkeypatch.setattr(tensorrt_rtx_runner, "load_cudart", lambda: library)

    def make(**options):
        monkeypatch.setattr(tensorrt_rtx_runner, "load_bindings", lambda: bindings(**options))
        parameters = {"tensorrt_rtx_version": "1.7.1.116"}
        return tensorrt_rtx_runner.Runner(plan, parameters, {"model_instance_device_id": "0"})

    make.library = library
    return make


def test_a_plan_of_several_profiles_runs_each_shape_with_the_nearest(rtx):
    contexts: list[Context] = []
    runner = rtx(profiles=2, made=contexts)
    for size, profile in ((1, 0), (4, 1), (2, 1), (1, 0), (3, 1)):
        x = np.random.default_rng(size).random((size, 3), "f4")
        assert np.array_equal(runner.run({"x": x})["y"], x * 2)
        assert contexts[0].profile == profile
    with pytest.raises(ValueError, match="outside the shapes"):
        runner.run({"x": np.zeros((5, 3), "f4")})
    assert runner.run({"x": np.zeros((2, 3), "f4")})["n"].tolist() == [2]


def test_streamed_weights_get_their_budget_before_a_context(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, f"{tensorrt_rtx_runner.__package__}.streaming", streaming)
    monkeypatch.setattr(tensorrt_rtx_runner, "load_cudart", Cudart)
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"a plan")
    contexts: list[Context] = []
    trt = bindings(made=contexts)
    engine = trt.Runtime(None).deserialize_cuda_engine(b"")
    budgets = [1000]  # all of them stay on the GPU

    class Streams(SimpleNamespace):
        streamable_weights_size = 1000

        @property
        def weight_streaming_budget_v2(self):
            return budgets[-1]

        @weight_streaming_budget_v2.setter
        def weight_streaming_budget_v2(self, value):
            assert not contexts, "it is too late then"
            budgets.append(value)

    trt.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda data: Streams(**vars(engine)))
    monkeypatch.setattr(tensorrt_rtx_runner, "load_bindings", lambda: trt)
    parameters = {"tensorrt_rtx_version": "1.7.1.116", "weight_streaming_budget": "30%"}
    tensorrt_rtx_runner.Runner(plan, parameters, {"model_instance_device_id": "0"})
    assert (budgets, len(contexts)) == ([1000, 300], 1)


def test_plan_runs_and_its_buffers_grow_and_go(rtx):
    runner = rtx()
    assert (runner.inputs, runner.outputs) == (["x"], ["y", "n"])
    for size in (1, 4, 2):
        x = np.random.default_rng(size).random((size, 3), "f4")
        answer = runner.run({"x": x})
        assert np.array_equal(answer["y"], x * 2)
        assert answer["n"].tolist() == [size]
        assert len(rtx.library.held) == 2, "one buffer a tensor on the device, the old one given back"
    runner.close()
    assert rtx.library.held == {}
    assert rtx.library.calls[-1] == "cudaStreamDestroy"


def test_plan_refuses_shapes_outside_its_profile(rtx):
    with pytest.raises(ValueError, match=r"input 'x' of shape \(5, 3\) is outside"):
        rtx().run({"x": np.zeros((5, 3), "f4")})


def test_the_greatest_batch_is_that_of_the_widest_profile(rtx):
    assert [rtx(profiles=count).greatest_batch() for count in (1, 2)] == [4, 4]


def test_plan_of_another_release(rtx):
    with pytest.raises(RuntimeError, match=r"built by TensorRT for RTX 1\.7\.1\.116, the server has 1\.8\.0\.1"):
        rtx(version="1.8.0.1")
    assert rtx.library.calls == [], "nothing of the GPU is touched before"


def test_plan_of_another_card(rtx):
    with pytest.raises(RuntimeError, match=r"refuses model\.plan"):
        rtx(loads=False)


def test_words_of_cuda(rtx):
    runner = rtx()
    rtx.library.fail = "cudaMalloc"
    with pytest.raises(RuntimeError, match=r"cudaMalloc failed: out of memory \(error 2\)"):
        runner.run({"x": np.zeros((1, 3), "f4")})


def test_cudart_is_missing(monkeypatch):
    monkeypatch.setattr(cudart, "LIBRARIES", ("libnowhere.so.1",))
    with pytest.raises(RuntimeError, match=r"libnowhere\.so\.1"):
        cudart.load_cudart()


def test_bindings_are_missing(monkeypatch):
    monkeypatch.setattr(tensorrt_rtx_runner, "BINDINGS", ("no_such_module",))
    with pytest.raises(RuntimeError, match="pip install"):
        tensorrt_rtx_runner.load_bindings()


CALLS = """
import sys
sys.path.insert(0, sys.argv[1])
from trtcompress_engines.triton.served.tensorrt_rtx_runner import load_bindings
trt = load_bindings()
wanted = {
    "Runtime.deserialize_cuda_engine": "serialized_engine: typing_extensions.Buffer",
    "ICudaEngine.create_execution_context": "-> tensorrt_rtx_bindings.tensorrt_rtx.IExecutionContext",
    "ICudaEngine.get_tensor_name": "index: typing.SupportsInt) -> str",
    "ICudaEngine.get_tensor_mode": "name: str) -> tensorrt_rtx_bindings.tensorrt_rtx.TensorIOMode",
    "ICudaEngine.get_tensor_dtype": "name: str) -> tensorrt_rtx_bindings.tensorrt_rtx.DataType",
    "ICudaEngine.get_tensor_shape": "name: str) -> tensorrt_rtx_bindings.tensorrt_rtx.Dims",
    "ICudaEngine.get_tensor_location": "name: str) -> tensorrt_rtx_bindings.tensorrt_rtx.TensorLocation",
    "IExecutionContext.set_input_shape": "name: str, shape: tuple) -> bool",
    "IExecutionContext.set_tensor_address": "name: str, memory: typing.SupportsInt) -> bool",
    "IExecutionContext.infer_shapes": "-> list[str]",
    "IExecutionContext.get_tensor_shape": "name: str) -> tensorrt_rtx_bindings.tensorrt_rtx.Dims",
    "IExecutionContext.execute_async_v3": "stream_handle: typing.SupportsInt) -> bool",
}
for path, signature in wanted.items():
    owner, name = path.split(".")
    assert signature in getattr(getattr(trt, owner), name).__doc__, path
assert isinstance(trt.ICudaEngine.num_io_tensors, property)
assert trt.TensorIOMode.INPUT != trt.TensorIOMode.OUTPUT and trt.TensorLocation.HOST != trt.TensorLocation.DEVICE
assert trt.nptype(trt.DataType.HALF).__name__ == "float16"
trt.Logger(trt.Logger.WARNING)
assert len(trt.Dims((2, 3))) == 2 and tuple(trt.Dims((2, 3))) == (2, 3)
print(trt.__version__)
"""


def test_every_call_exists_in_the_real_bindings():
    import subprocess

    source = str(SERVED.parents[2])
    done = subprocess.run([sys.executable, "-c", CALLS, source], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1.")


def test_every_call_exists_in_the_real_cudart():
    from assets import asset

    library = ctypes.CDLL(
        str(next(asset("onnxruntime-ep-nv-tensorrt-rtx-cu13", "__init__.py").parent.glob("libcudart*")))
    )
    used = {
        node.value for node in ast.walk(ast.parse((SERVED / "cudart.py").read_text())) if isinstance(node, ast.Constant)
    }
    names = {name for name in used if isinstance(name, str) and name.startswith("cuda") and name.isalnum()}
    assert {"cudaMalloc", "cudaMemcpyAsync", "cudaStreamSynchronize"} <= names
    assert all(hasattr(library, name) for name in [*names, "cudaGetErrorString"])


def test_a_shared_axis_has_one_length():
    declared = {"ids": ["batch", "sequence"], "mask": ["batch", "sequence"], "x": [None, 3, "?", "?"]}
    check_axes(declared, {"ids": (2, 5), "mask": (2, 5), "x": (7, 3, 48, 192)})
    with pytest.raises(ValueError, match="axis 'sequence' is 5 long in input 'ids' and 1 in input 'mask'"):
        check_axes(declared, {"ids": (2, 5), "mask": (2, 1)})
