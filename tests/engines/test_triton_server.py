"""Packaged models on a real Triton Inference Server, asked over HTTP and gRPC."""

import os
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from triton_models import (
    BATCH_8,
    CPU,
    READER_AXES,
    RTX,
    TYPES,
    VOCABULARY,
    cnn,
    encoder,
    engine_of,
    reader,
    scaled,
    scorer,
    typed,
)
from tritonserver import Server, tritonserver
from trtcompress_engines.triton import TritonOptions, write_repository
from trtcompress_engines.triton import server as server_module
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import ServingError
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

Feed = dict[str, np.ndarray]

MODELS: dict[str, tuple[Callable[[Path], Model], dict]] = {
    "cnn": (cnn, {"image": {"batch": BATCH_8}}),
    "encoder": (encoder, {"ids": {"batch": BATCH_8, "sequence": AxisRange(1, 12, 40)}}),
    "reader": (reader, READER_AXES),
    "scorer": (scorer, {"user": {"batch": AxisRange(1, 16, 64)}}),
    "scaled": (scaled, {}),
    "typed": (typed, {"in_bool": {"batch": BATCH_8, "n": AxisRange(0, 2, 9)}}),
}
REQUESTS = 200


def feed_of(name: str, rng: np.random.Generator) -> Feed:
    """A request of a random batch size and, where they are dynamic, random lengths."""
    batch = int(rng.integers(1, 9))
    if name == "cnn":
        return {"image": rng.random((batch, 1, 28, 28), "f4")}
    if name == "encoder":
        shape = (batch, int(rng.integers(1, 5)) * 10)
        return {"ids": rng.integers(0, VOCABULARY, shape), "mask": (rng.random(shape) < 0.8).astype("f4")}
    if name == "reader":
        return {"x": rng.random((int(rng.integers(1, 5)), 3, 48, 32), "f4")}
    if name == "scorer":
        return {"user": rng.integers(0, 20, (batch, 1)), "item": rng.integers(0, 30, (batch, 1))}
    if name == "typed":
        values = rng.integers(0, 100, (batch, int(rng.integers(0, 3))))
        return {f"in_{dtype}": values.astype(dtype) for dtype in TYPES}
    return {"x": rng.random(3, "f4"), "factor": rng.random(1, "f4")}


def travels_as(name: str, values: np.ndarray) -> tuple[int, ...]:
    """Tensors that are nothing but their batch, and scalars, travel with an axis of length 1 more."""
    return (*values.shape, 1) if name == "scorer" or values.ndim == 0 else values.shape


class Reference:
    """The engine itself: ONNX Runtime on the same graph, with one thread as the served model."""

    def __init__(self, graph: Model):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(str(graph.path), options)
        self.rank = {node.name: len(node.shape) for node in self.session.get_inputs()}

    def __call__(self, feed: Feed) -> Feed:
        arrays = {k: v.reshape(v.shape[: self.rank[k]]) for k, v in feed.items()}
        names = [node.name for node in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, arrays), strict=True))


class Client:
    """One protocol; a connection for each thread that asks."""

    def __init__(self, module: ModuleType, address: str):
        self.module, self.address, self.local = module, address, threading.local()

    def ask(self, model: str, feed: Feed, outputs: list[str] | None = None) -> Feed:
        if not hasattr(self.local, "client"):
            self.local.client = self.module.InferenceServerClient(self.address)
        inputs = []
        for name, array in feed.items():
            inputs.append(self.module.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
            inputs[-1].set_data_from_numpy(array)
        wanted = [self.module.InferRequestedOutput(name) for name in outputs] if outputs else None
        result = self.local.client.infer(model, inputs, outputs=wanted)
        over_grpc = self.module is tritonclient.grpc
        response = result.get_response(as_json=True) if over_grpc else result.get_response()
        return {entry["name"]: result.as_numpy(entry["name"]) for entry in response["outputs"]}


def client(server: Server, protocol: str) -> Client:
    if protocol == "grpc":
        return Client(tritonclient.grpc, server.grpc)
    return Client(tritonclient.http, server.http)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> dict[str, Model]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make(folder / f"{name}.onnx") for name, (make, _) in MODELS.items()}


@pytest.fixture(scope="module")
def references(graphs) -> dict[str, Reference]:
    return {name: Reference(graph) for name, graph in graphs.items()}


@pytest.fixture(scope="module")
def server(graphs, tmp_path_factory) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("served") / "repository"
    for name, graph in graphs.items():
        write_repository(
            engine_of(graph),
            CPU,
            repository,
            name=name,
            format="triton-python",
            axes=MODELS[name][1],
            options=TritonOptions(),
        )
    with tritonserver(repository, "--log-verbose", "1") as running:
        yield running


def test_every_model_loads(server: Server):
    assert {name: server.model_ready(name) for name in MODELS} == dict.fromkeys(MODELS, True)


WARM = [("cnn", (1, 4)), ("encoder", (1, 4)), ("reader", (1, 2)), ("scorer", (1, 16)), ("scaled", (1,))]


@pytest.mark.parametrize(("name", "sizes"), WARM)
def test_warm_up_ran_while_loading(server: Server, name: str, sizes: tuple[int, ...]):
    loaded = server.log_text().partition("Started HTTPService")[0]
    for size in sizes:
        assert f"model '{name}' instance {name}_0_0 is running warmup sample 'batch_{size}'" in loaded


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("name", MODELS)
def test_one_request_at_a_time_is_answered_to_the_bit(server: Server, references, protocol: str, name: str):
    """A batch holds one request, so the engine runs on the very same arrays: the answers are the same bits."""
    ask, rng = client(server, protocol).ask, np.random.default_rng(3)
    for _ in range(10):
        feed = feed_of(name, rng)
        expected = references[name](feed)
        answer = ask(name, feed)
        assert answer.keys() == expected.keys()
        for output, values in expected.items():
            assert answer[output].dtype == values.dtype
            assert np.array_equal(answer[output], values.reshape(travels_as(name, values)))


def test_answers_leave_no_error_in_the_log(server: Server):
    ask, rng, before = client(server, "grpc").ask, np.random.default_rng(5), len(server.log_text())
    for name in MODELS:
        for _ in range(5):
            ask(name, feed_of(name, rng))
    written = server.log_text()[before:]
    assert written.count("request id") >= 5 * len(MODELS), "what the log tells of each request"
    assert "Error" not in written
    assert "Traceback" not in written


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("name", ["cnn", "encoder", "scorer", "reader"])
def test_200_requests_at_once(server: Server, references, protocol: str, name: str):
    """Requests share batches, so a matrix product may take another kernel and round its last bits differently."""
    asked, rng = client(server, protocol), np.random.default_rng(4)
    feeds = [feed_of(name, rng) for _ in range(REQUESTS if name != "reader" else 30)]
    before = _counts(server, name)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda feed: asked.ask(name, feed), feeds))
    for feed, answer in zip(feeds, answers, strict=True):
        for output, values in references[name](feed).items():
            np.testing.assert_allclose(answer[output], values.reshape(travels_as(name, values)), rtol=1e-5, atol=1e-6)
    samples = sum(len(next(iter(feed.values()))) for feed in feeds)
    samples_run, runs = _counts(server, name, before[0] + samples)
    assert samples_run - before[0] == samples
    assert runs - before[1] < len(feeds), "the dynamic batcher put no two requests together"


def _counts(server: Server, name: str, expected: int = 0) -> tuple[int, int]:
    """Samples that were answered, and runs that it took, once both stand still: Triton counts after it answers."""
    end = time.monotonic() + 10
    last = (-1, -1)
    with tritonclient.http.InferenceServerClient(server.http) as http:
        while time.monotonic() < end:
            stats = http.get_inference_statistics(name)["model_stats"][0]
            counts = (stats["inference_count"], stats["execution_count"])
            if counts == last and counts[0] >= expected:
                break
            last = counts
            time.sleep(0.2)
    return last


SEQUENCES = "axis 'sequence' is 4 long in input 'ids' and 5 in input 'mask'"
IMAGE = np.zeros((1, 1, 28, 28), "f4")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    ("name", "feed", "words"),
    [
        ("cnn", {"image": np.zeros((1, 1, 27, 28), "f4")}, "unexpected shape for input 'image'"),
        ("cnn", {"image": np.zeros((9, 1, 28, 28), "f4")}, "batch-size must be <= 8"),
        ("cnn", {"image": IMAGE.astype("f8")}, "'image' data-type is 'FP64', but model 'cnn' expects 'FP32'"),
        ("cnn", {"picture": IMAGE}, "unexpected inference input 'picture'"),
        ("cnn", {"image": IMAGE, "other": IMAGE}, "expected 1 inputs but got 2"),
        ("encoder", {"ids": np.zeros((1, 4), "i8")}, "expected 2 inputs but got 1"),
        ("encoder", {"ids": np.full((1, 4), 999), "mask": np.ones((1, 4), "f4")}, "indices element out of data bounds"),
        ("encoder", {"ids": np.zeros((1, 4), "i8"), "mask": np.ones((1, 5), "f4")}, SEQUENCES),
        ("cnn", {"image": np.zeros((0, 1, 28, 28), "f4")}, "input byte size mismatch for input 'image'"),
        ("nowhere", {"x": IMAGE}, "unknown model"),
    ],
)
def test_wrong_requests_get_clear_errors(server: Server, protocol: str, name: str, feed: Feed, words: str):
    ask = client(server, protocol).ask
    with pytest.raises(InferenceServerException, match=words) as caught:
        ask(name, feed)
    assert caught.value.status() in ("400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")
    assert server.live()
    assert server.model_ready("cnn")
    assert ask("cnn", {"image": IMAGE})["logits"].shape == (1, 10)


def test_an_output_that_is_not_there(server: Server):
    with pytest.raises(InferenceServerException, match="unexpected inference output 'logit'"):
        client(server, "grpc").ask("cnn", {"image": IMAGE}, ["logit"])


def test_one_output_of_several(server: Server):
    feed = feed_of("encoder", np.random.default_rng(5))
    assert list(client(server, "http").ask("encoder", feed, ["pooled"])) == ["pooled"]


def test_a_bad_request_does_not_spoil_its_batch(server: Server, references):
    good = {"ids": np.full((1, 6), 7), "mask": np.ones((1, 6), "f4")}
    bad = good | {"ids": np.full((1, 6), 999)}
    ask = client(server, "grpc").ask

    def attempt(feed: Feed) -> Feed | str:
        try:
            return ask("encoder", feed)
        except InferenceServerException as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(attempt, [bad if i % 4 == 0 else good for i in range(40)]))
    expected = references["encoder"](good)["pooled"]
    for i, answer in enumerate(answers):
        if i % 4 == 0:
            assert "out of data bounds" in answer
        else:
            np.testing.assert_allclose(answer["pooled"], expected, rtol=1e-5, atol=1e-6)


@pytest.fixture
def given_ports(monkeypatch) -> Callable[..., list[list[int]]]:
    """Let servers get these pairs of ports (HTTP, gRPC) first; returns those that they did not get yet."""
    free = server_module._free_ports

    def give(*pairs: list[int]) -> list[list[int]]:
        left = list(pairs)
        monkeypatch.setattr(server_module, "_free_ports", lambda count: left.pop(0) if left else free(count))
        return left

    return give


@pytest.mark.parametrize("taken", ["http", "grpc"])
def test_a_port_that_another_server_got_is_left_to_it(server: Server, given_ports, taken: str, tmp_path: Path):
    """It is ready and answers on that port, before the new one binds it, and would be taken for the new one."""
    others = [int(address.rpartition(":")[2]) for address in (server.http, server.grpc)]
    own = server_module._free_ports(2)
    left = given_ports([others[0], own[1]] if taken == "http" else [own[0], others[1]])
    with tritonserver(tmp_path) as mine:
        assert left == [], "the port was tried"
        assert not mine.model_ready("cnn")
        assert mine.live()
        assert {mine.http, mine.grpc}.isdisjoint({server.http, server.grpc})
        assert "already in use" not in mine.log_text(), "the log is that of the server that runs"
    assert server.model_ready("cnn")


def test_ports_that_are_taken_again_and_again_are_told(server: Server, given_ports, tmp_path: Path):
    others = [int(address.rpartition(":")[2]) for address in (server.http, server.grpc)]
    left = given_ports(*[others] * server_module.TRIES)
    with pytest.raises(ServingError, match=r"(?s)tritonserver ended with 1.*already in use"), tritonserver(tmp_path):
        pass
    assert left == []


def test_another_python_that_comes_first_on_PATH_is_not_taken(graphs, tmp_path: Path, monkeypatch):
    """The embedded Python looks for its library beside `python3`; this one's is empty."""
    other, version = tmp_path / "other", sysconfig.get_python_version()
    for path in (other / "bin/python3", other / f"lib/python{version}/os.py", other / f"lib/python{version}/struct.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)
    options = {"format": "triton-python", "axes": MODELS["cnn"][1], "options": TritonOptions()}
    write_repository(engine_of(graphs["cnn"]), CPU, tmp_path / "served", name="cnn", **options)
    monkeypatch.setenv("PATH", f"{other / 'bin'}:{os.environ['PATH']}")
    with tritonserver(tmp_path / "served") as running:
        assert running.model_ready("cnn"), running.log_text()


@pytest.fixture(scope="module")
def faulty(graphs, tmp_path_factory) -> Iterator[Server]:
    """A server whose models cannot load, each for a reason of its own, beside one that can."""
    repository = tmp_path_factory.mktemp("faulty") / "repository"
    cpu = engine_of(graphs["cnn"])

    def write(name: str, form: str, engine: Engine = cpu, target: Target = CPU) -> Path:
        axes, options = MODELS["cnn"][1], TritonOptions()
        return write_repository(engine, target, repository, name=name, format=form, axes=axes, options=options)

    write("sound", "triton-python")
    write("native", "triton")
    write("changed", "triton-python").joinpath("1/model.onnx").write_bytes(graphs["encoder"].path.read_bytes())
    _edit(write("misnamed", "triton-python"), '"logits"', '"logit"')
    _edit(write("cold", "triton-python"), "dims: [1, 28, 28]\n      zero_data", "dims: [1, 27, 28]\n      zero_data")
    plan = engine_of(graphs["cnn"], "tensorrt_rtx", {"tensorrt_rtx": "1.7.1.116"})
    write("plan", "triton", plan, RTX)
    with tritonserver(repository) as running:
        yield running


def _edit(folder: Path, old: str, new: str) -> None:
    config = folder / "config.pbtxt"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("native", "unable to find backend library for backend 'onnxruntime'"),
        ("changed", "changed: model.onnx is not the file that was packaged"),
        ("misnamed", "config.pbtxt names the outputs ['logit'], the model has ['logits']"),
        ("cold", "unexpected shape for input 'image' for model 'cold'"),
        ("plan", "has kind KIND_GPU but no GPUs are available"),
    ],
)
def test_what_cannot_load_says_why(faulty: Server, name: str, words: str):
    with tritonclient.http.InferenceServerClient(faulty.http) as http:
        states = {entry["name"]: entry for entry in http.get_model_repository_index()}
    assert states["sound"]["state"] == "READY"
    assert states[name]["state"] == "UNAVAILABLE"
    assert words in states[name]["reason"]
