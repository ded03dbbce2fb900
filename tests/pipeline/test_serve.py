"""From `trtcompress build` over `trtcompress package` to a real tritonserver: its answers are the engine's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc.model_config_pb2 import DataType
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from command_line import done
from mnist_build import mnist_build
from tritonserver import Server, tritonserver
from trtcompress.compiling import read_engine
from trtcompress_engines.backend import backend_for
from trtcompress_engines.targets import resolve_target
from trtcompress_engines.triton import parse_config

REQUESTS = 200


@dataclass(frozen=True)
class Built:
    """The MNIST example, built and packed; `engine` is the folder of the one that ships."""

    folder: Path
    engine: Path
    repository: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    result = mnist_build()
    folder, repository = Path(result["build_dir"]), tmp_path_factory.mktemp("served") / "repository"
    packed = done("package", folder, "--format", "triton-python", "--target", "cpu", "-o", repository, "--json").json[
        "packages"
    ]
    assert packed == [
        {
            "target": "cpu",
            "format": "triton-python",
            "repository": str(repository),
            "model": str(repository / "mnist"),
        }
    ]
    return Built(folder, Path(result["targets"][0]["engine"]).parent, repository)


def gates(result: dict[str, Any]) -> dict[str, set[str]]:
    return {target["target"]: {gate["verdict"] for gate in target["gates"]} for target in result["targets"]}


def test_mnist_from_pytorch():
    result = mnist_build()
    assert (result["verdict"], gates(result)["cpu"]) == ("not_measured", {"pass"})
    assert gates(result)["rtx-4090"] == {"pass", "not_measured"}
    for target in result["targets"]:
        assert target["metrics"]["top1"]["reference"] > 0.98
        assert target["metrics"]["top1"]["value"] > 0.98
    folder = Path(result["build_dir"])
    ranges = json.loads((folder / "ranges.json").read_text())
    assert (ranges["method"], ranges["samples"]) == ("entropy", 256)
    report = (folder / "report.md").read_text()
    assert "top1" in report
    assert "rtx-4090" in report
    for form in ("triton", "triton-python"):
        assert sorted(path.name for path in (folder / form).iterdir()) == ["cpu", "rtx-4090"]


@pytest.fixture(scope="module")
def server(built) -> Iterator[Server]:
    with tritonserver(built.repository) as started:
        assert started.model_ready("mnist"), started.log_text()
        yield started


@pytest.fixture(scope="module")
def requests() -> list[np.ndarray]:
    """Of 1 to 16 images each, the range of the example's config."""
    rng = np.random.default_rng(0)
    sizes = [1, 16, *rng.integers(1, 17, REQUESTS - 2)]
    return [rng.normal(size=(size, 1, 28, 28)).astype(np.float32) for size in sizes]


@pytest.fixture(scope="module")
def expected(built, requests) -> list[np.ndarray]:
    """The engine's answers, in this process; one thread, as it is served."""
    engine = read_engine(built.engine, built.folder)
    with backend_for(resolve_target("cpu")).open(engine, 1) as runner:
        return [next(iter(runner.infer({"x": request}).values())) for request in requests]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_answers_are_the_engine_s(server, requests, expected, protocol, built):
    module = tritonclient.http if protocol == "http" else tritonclient.grpc
    address = server.http if protocol == "http" else server.grpc
    config = parse_config(built.repository / "mnist" / "config.pbtxt")
    name = config.output[0].name
    local = threading.local()

    def ask(request: np.ndarray) -> np.ndarray:
        if not hasattr(local, "client"):
            local.client = module.InferenceServerClient(address)
        given = module.InferInput("x", list(request.shape), "FP32")
        given.set_data_from_numpy(request)
        return local.client.infer("mnist", [given]).as_numpy(name)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, requests))
    assert {len(request) for request in requests} >= set(range(1, 17))
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer.shape == wanted.shape
        assert answer.dtype == wanted.dtype
        # the server may join requests: sums of another batch size round in another order
        np.testing.assert_allclose(answer, wanted, rtol=1e-4, atol=1e-4)
        assert np.array_equal(answer.argmax(1), wanted.argmax(1))


def test_more_than_the_greatest_batch_is_refused(server):
    client = tritonclient.http.InferenceServerClient(server.http)
    given = tritonclient.http.InferInput("x", [17, 1, 28, 28], "FP32")
    given.set_data_from_numpy(np.zeros((17, 1, 28, 28), np.float32))
    with pytest.raises(InferenceServerException, match="16"):
        client.infer("mnist", [given])


@pytest.mark.parametrize("form", ["triton", "triton-python"])
def test_the_config_agrees_with_the_engine(built, form):
    folder = built.folder / form / "cpu" / "mnist"
    config = parse_config(folder / "config.pbtxt")
    engine = read_engine(built.engine, built.folder)
    assert (config.name, config.max_batch_size) == ("mnist", 16)
    for entries, specs in ((config.input, engine.graph.inputs), (config.output, engine.graph.outputs)):
        assert [entry.name for entry in entries] == [spec.name for spec in specs]
        assert [list(entry.dims) for entry in entries] == [list(spec.shape[1:]) for spec in specs]
        types = [DataType.Name(entry.data_type) for entry in entries]
        assert types == [f"TYPE_{np_to_triton_dtype(np.dtype(spec.dtype))}" for spec in specs]
    assert config.backend == {"triton": "onnxruntime", "triton-python": "python"}[form]
    assert config.parameters["graph_sha256"].string_value == engine.graph.digest
    assert (folder / "1" / "model.onnx").read_bytes() == engine.graph.path.read_bytes(), "the portable graph"
    assert config.model_warmup
    assert config.HasField("dynamic_batching")


def test_the_command_packs_what_the_build_packed(built, tmp_path):
    done("package", built.folder, "--format", "triton", "--target", "cpu", "-o", tmp_path)
    for path in (built.folder / "triton" / "cpu").rglob("*.*"):
        again = tmp_path / path.relative_to(built.folder / "triton" / "cpu")
        assert path.is_dir() or again.read_bytes() == path.read_bytes()


def test_the_engine_that_is_served_is_the_one_in_the_report(built):
    report = json.loads((built.folder / "report.json").read_text())
    shipped = report["validations"][0]["shipped"]
    assert built.engine.name == shipped
