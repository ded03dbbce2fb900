"""`trtcompress serve-check` with a real tritonserver: sound repositories pass, wrong answers and servers are found."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from command_line import done, trtcompress
from triton_models import BATCH_8, CPU, cnn, encoder, engine_of, save, scaled, scorer
from tritonserver import Server, tritonserver
from trtcompress_engines.triton import TritonOptions, write_repository
from trtcompress_engines.triton.batching import Batching
from trtcompress_engines.triton.ensemble import Tower, write_ensemble
from trtcompress_graph.axes import AxisRange

SEQUENCE = {"batch": BATCH_8, "sequence": AxisRange(1, 12, 40)}
MODELS = {
    "cnn": (cnn, {"image": {"batch": BATCH_8}}),
    "encoder": (encoder, {"ids": SEQUENCE}),
    "scorer": (scorer, {"user": {"batch": AxisRange(1, 16, 64)}}),
    "scaled": (scaled, {}),
}
WRONG = ["wrong type", "wrong rank", "missing input", "unknown input", "unknown output"]
SCHEMA = json.loads((Path(__file__).parent / "schemas/serve-check.json").read_text())


def write(folder: Path, *names: str) -> Path:
    repository = folder / "repository"
    for name in names:
        make, axes = MODELS[name]
        engine = engine_of(make(folder / f"{name}.onnx"))
        write_repository(engine, CPU, repository, name=name, format="triton-python", axes=axes, options=TritonOptions())
    return repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """Four models, and an ensemble of two of them that batches for neither."""
    folder = tmp_path_factory.mktemp("models")
    made = write(folder, *MODELS)
    graphs = {name: engine_of(MODELS[name][0](folder / f"{name}.onnx")).graph for name in ("cnn", "encoder")}
    write_ensemble(
        made,
        "both",
        {
            "cnn": Tower(graphs["cnn"], Batching(8, 4), "images"),
            "encoder": Tower(graphs["encoder"], Batching(8, 4), "texts"),
        },
    )
    return made


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with tritonserver(repository) as running:
        yield running


def test_a_sound_repository_passes(repository: Path, tmp_path: Path):
    told = done("serve-check", repository, "--junit", tmp_path / "junit.xml", "--strict", "--json").json
    jsonschema.Draft202012Validator(SCHEMA).validate(told)
    assert (told["verdict"], told["requests"], told["seed"]) == ("pass", 200, 0)
    assert told["server"]
    of = {name: [c["check"] for c in told["checks"] if c["model"] == name] for name in ("both", *MODELS)}
    for name, checks in of.items():
        assert checks[:2] == ["loads", "answers"]
        assert checks[-1] == "stays up"
        assert set(WRONG) < set(checks)
        assert ("too large a batch" in checks) == (name not in ("scaled", "both"))
        assert ("wrong shape" in checks) == (name != "encoder")
    assert {c["check"] for c in told["checks"] if c["model"] not in of} == {"unknown model"}
    assert all(c["detail"].startswith("200 requests, farthest") for c in told["checks"] if c["check"] == "answers")
    suites = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert len(list(suites.iter("testcase"))) == len(told["checks"])
    assert not list(suites.iter("failure"))


def test_a_server_that_runs_is_asked_with_any_seed(server: Server, repository: Path):
    ask = ("serve-check", repository, "--address", server.grpc, "--model", "encoder", "--requests", 20, "--json")
    for seed in (1, 2):
        told = done(*ask, "--seed", seed).json
        assert (told["verdict"], told["seed"]) == ("pass", seed)
        assert {c["model"] for c in told["checks"]} == {"encoder", "no_such_model"}
    assert server.live(), "it is not ours to end"


def test_a_table_for_people(server: Server, repository: Path):
    ran = done("serve-check", repository, "--address", server.grpc, "--model", "cnn", "--requests", 5)
    assert "too large a batch" in ran.out
    assert "inference request batch-size must be <= 8" in ran.out


def test_wrong_answers_are_exit_5(tmp_path: Path):
    """The server serves what was there when it loaded; then the engine in the repository gets other weights."""
    repository = write(tmp_path, "cnn", "scaled")
    with tritonserver(repository) as running:
        path = repository / "cnn/1/model.onnx"
        model = onnx.load(path)
        bias = next(weight for weight in model.graph.initializer if weight.name == "bias")
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), "bias"))
        onnx.save(model, path)
        junit = tmp_path / "junit.xml"
        ran = trtcompress(
            "serve-check", repository, "--address", running.grpc, "--requests", 20, "--junit", junit, "--json"
        )
    assert ran.code == 5
    failed = [(c["model"], c["check"]) for c in ran.json["checks"] if c["verdict"] == "fail"]
    assert failed == [("cnn", "answers"), ("cnn", "stays up")]
    (failure, _) = ElementTree.parse(junit).getroot().iter("failure")
    assert "20 of 20 are wrong, the first: request 0 (image [1, 1, 28, 28]): 'logits' is off by" in failure.get(
        "message"
    )


def test_a_model_that_does_not_load_is_exit_5(tmp_path: Path):
    repository = write(tmp_path, "cnn", "scaled")
    (repository / "cnn/1/model.onnx.sha256").write_text("00  model.onnx\n")
    ran = trtcompress("serve-check", repository, "--requests", 5, "--json")
    assert ran.code == 5
    failed = {c["check"]: c["detail"] for c in ran.json["checks"] if c["verdict"] == "fail"}
    assert list(failed) == ["loads"]
    assert "model.onnx is not the file that was packaged" in failed["loads"]


@pytest.mark.parametrize("command", ["serve-check", "tune"])
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("max_batch_size: 8", "max_batch_size: 0", "dims"),
        ('name: "logits"', 'name: "logit"', "outputs is ['logit'] here and ['logits'] in the model"),
        ("TYPE_FP32", "TYPE_FP16", "data_type is TYPE_FP16 here and TYPE_FP32 in the model"),
        ("max_batch_size", "max_batch_sizes", "this is not a model configuration"),
    ],
)
def test_a_configuration_that_was_edited_is_exit_8(tmp_path: Path, command: str, old: str, new: str, told: str):
    """Before a server is started."""
    repository = write(tmp_path, "cnn")
    config = repository / "cnn/config.pbtxt"
    config.write_text(config.read_text().replace(old, new, 1))
    ran = trtcompress(command, repository, "--server", "/bin/false")
    assert (ran.code, ran.out) == (8, "")
    assert told in ran.err
    assert f"{config}: " in ran.err
    assert "hint: package the model again" in ran.err


CHAIN = """
name: "chain" platform: "ensemble" max_batch_size: 8
input [{ name: "pixels" data_type: TYPE_FP32 dims: [1, 28, 28] }]
output [{ name: "answer" data_type: TYPE_FP32 dims: [10] }]
ensemble_scheduling { step [
  { model_name: "second" model_version: -1
    input_map { key: "x" value: "between" } output_map { key: "y" value: "answer" } },
  { model_name: "cnn" model_version: -1
    input_map { key: "image" value: "pixels" } output_map { key: "logits" value: "between" } }
] }
"""


def test_an_ensemble_of_steps_that_read_each_other(tmp_path: Path):
    repository = write(tmp_path, "cnn")
    nodes = [helper.make_node("Softmax", ["x"], ["y"])]
    tensors = [(name, TensorProto.FLOAT, ["batch", 10]) for name in ("x", "y")]
    engine = engine_of(save(tmp_path / "second.onnx", nodes, tensors[:1], tensors[1:], {}))
    axes = {"x": {"batch": BATCH_8}}
    write_repository(engine, CPU, repository, name="second", format="triton-python", axes=axes, options=TritonOptions())
    (repository / "chain/1").mkdir(parents=True)
    (repository / "chain/config.pbtxt").write_text(CHAIN)
    told = done("serve-check", repository, "--model", "chain", "--requests", 30, "--strict", "--json").json
    assert {c["check"]: c["detail"] for c in told["checks"]}["answers"].startswith("30 requests, farthest")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("nowhere",), 2, "no such model repository"),
        (("{repository}", "--model", "cn"), 2, "the repository has no model 'cn'"),
        (("{repository}", "--server", "nowhere"), 2, "no such file"),
        (("{repository}", "--server", "{repository}"), 2, "this is not a program"),
        (("{repository}", "--server", "x", "--address", "localhost:1"), 2, "one server or the other"),
        (("{repository}", "--address", "localhost"), 2, "'localhost' is not HOST:PORT"),
        (("{repository}", "--address", "127.0.0.1:1"), 5, "the server does not answer"),
        (("{repository}", "--junit", "nowhere/junit.xml"), 2, "no such folder to write into"),
        (("{repository}", "--server", "/bin/false"), 5, "tritonserver ended with 1"),
    ],
)
def test_what_is_wrong_is_said(repository: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str):
    ran = trtcompress("serve-check", *(one.format(repository=repository) for one in arguments), cwd=tmp_path)
    assert (ran.code, ran.out) == (code, "")
    assert told in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [("serve-check",), ("tune",), ("rollback", "--model", "cnn")])
def test_without_tritonclient_the_way_out_is_told(repository: Path, monkeypatch, command: tuple[str, ...]):
    monkeypatch.setitem(sys.modules, "tritonclient.grpc.model_config_pb2", None)
    ran = trtcompress(*command, repository)
    assert ran.code == 2
    assert "needs tritonclient\nhint: pip install 'tritonclient[grpc]'" in ran.err


def test_an_older_package_is_asked_at_the_lengths_of_its_warm_up(tmp_path: Path):
    """It says no ranges; --axis gives them, by name or by index."""
    config = write(tmp_path, "encoder") / "encoder/config.pbtxt"
    lines = config.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if 'key: "axes"' in line)
    config.write_text("\n".join([*lines[: at - 1], *lines[at + 5 :]]))
    assert '"axes"' not in config.read_text()
    from trtcompress_engines.triton.served_model import read_served

    repository = config.parents[1]
    old = read_served(repository, "encoder", {})
    assert set(old.axes.values()) == {AxisRange(12, 12, 12)}
    for axis in ("sequence", "1"):
        given = read_served(repository, "encoder", {"ids": {axis: AxisRange(1, 2, 3)}})
        assert given.axes[("ids", 1), ("mask", 1)] == AxisRange(1, 2, 3)
