"""Images in, the user's answer out: from `trtcompress build` to a real tritonserver with its ensemble."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tritonclient.grpc.model_config_pb2 import DataType

from command_line import Ran, done, trtcompress
from served_images import PREPROCESS, encoded, project, server_with_numpy_1
from triton_models import CPU, RTX, engine_of, save
from tritonserver import tritonserver
from trtcompress.config import PreprocessSettings, TritonSettings
from trtcompress.packaging import Around, pack
from trtcompress.stage import DataRef, FunctionRef
from trtcompress_calibration.data import Preprocess, open_dataset
from trtcompress_engines.targets import resolve_target
from trtcompress_engines.triton import check_repository, installed, parse_config
from trtcompress_engines.triton.client import Client, Refusal
from trtcompress_engines.triton.formats import RTX_VERSION
from trtcompress_engines.triton.reference import has_reference
from trtcompress_engines.triton.served_model import read_served
from trtcompress_engines.triton.server import Server, running
from trtcompress_engines.triton.switching import add_versions, roll_back
from trtcompress_engines.triton.versions import served_version, versions
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import CompileError, RepositoryError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model

BOTH = "{preprocess: true, postprocess: 'post:answer', sources: [labels.txt]}"
NUMBERS = "{postprocess: 'post:numbers', sources: [labels.txt]}"


def build(config: Path, *more: object) -> Ran:
    return trtcompress("build", config, "--out", config.parent / "out", "--store", config.parent / "store", *more)


@dataclass(frozen=True)
class Served:
    """A build, its repository, and a server on it."""

    folder: Path
    repository: Path
    server: Server

    def asked(self, *images: bytes) -> dict[str, np.ndarray]:
        with Client(self.server.grpc) as client:
            return client.infer("net", {"image": np.array([[one] for one in images], dtype=object)})


@pytest.fixture(scope="module")
def numpy_1(tmp_path_factory) -> installed.Installed:
    return server_with_numpy_1(tmp_path_factory.mktemp("numpy1"))


@pytest.fixture(scope="module")
def served(tmp_path_factory, numpy_1) -> Iterator[Served]:
    config = project(tmp_path_factory.mktemp("served"), BOTH)
    ran = build(config)
    assert ran.code == 0, ran.err
    repository = config.parent / "out/net/triton-python/cpu"
    with running(repository, numpy_1) as server:
        assert all(server.model_ready(name) for name in ("net", "net_preprocess", "net_model", "net_postprocess")), (
            server.log_text()
        )
        yield Served(config.parent, repository, server)


def expected(folder: Path, *images: bytes) -> dict[str, np.ndarray]:
    """The calibration's own reader, the model, and the user's function, in this process."""
    graph = read_model(folder / "m.onnx")
    place = folder / "asked"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for index, image in enumerate(images):
        (place / f"{index}.png").write_bytes(image)
    section = Preprocess(**PreprocessSettings.model_validate(_section()).model_dump())
    samples = [s.inputs["x"] for s in open_dataset(place, graph.inputs, preprocess=section, base=folder)]
    (logits,) = ort.InferenceSession(str(graph.path)).run(None, {"x": np.concatenate(samples)})
    e = np.exp(logits - logits.max(1, keepdims=True))
    scores = e / e.sum(1, keepdims=True)
    order = np.argsort(-scores, 1)[:, :2]
    names = np.array((folder / "labels.txt").read_text(encoding="utf-8").split())
    return {"labels": names[order], "scores": np.take_along_axis(scores, order, 1), "best": order[:, :1]}


def _section() -> dict:
    import yaml

    return yaml.safe_load(PREPROCESS)


def test_images_are_answered_as_by_calibration_engine_and_function(served: Served):
    rng = np.random.default_rng(5)
    for count in (1, 3, 8):
        edges = rng.integers(8, 200, (count, 2))
        images = [encoded(rng, h, w, "jpg" if i % 2 else "png") for i, (h, w) in enumerate(edges)]
        got, wanted = served.asked(*images), expected(served.folder, *images)
        assert got["scores"].dtype == np.float16
        np.testing.assert_allclose(got["scores"], wanted["scores"], rtol=2e-3)
        assert np.array_equal(got["best"], wanted["best"])
        assert [[one.decode() for one in row] for row in got["labels"]] == wanted["labels"].tolist()


def test_the_engine_joins_requests_and_the_steps_do_not(served: Served):
    configs = {path.parent.name: parse_config(path) for path in served.repository.glob("*/config.pbtxt")}
    assert {name for name, config in configs.items() if config.HasField("dynamic_batching")} == {"net_model"}
    assert {config.max_batch_size for config in configs.values()} == {8}
    rng = np.random.default_rng(8)
    images = [encoded(rng, 60 + i, 40, "jpg") for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        found = np.concatenate(list(pool.map(lambda one: served.asked(one)["scores"], images)))
    wanted = np.concatenate([expected(served.folder, *images[i : i + 8])["scores"] for i in (0, 8, 16)])
    np.testing.assert_allclose(found, wanted, rtol=2e-3)


def test_what_the_engine_gets_is_equal_to_the_last_bit(served: Served):
    rng = np.random.default_rng(6)
    images = [encoded(rng, 90, 70, "jpg"), encoded(rng, 33, 400, "png")]
    place = served.folder / "bits"
    place.mkdir()
    for index, image in enumerate(images):
        (place / f"{index}.jpg").write_bytes(image)
    section = Preprocess(**PreprocessSettings.model_validate(_section()).model_dump())
    graph = read_model(served.folder / "m.onnx")
    samples = [s.inputs["x"] for s in open_dataset(place, graph.inputs, preprocess=section, base=served.folder)]
    with Client(served.server.grpc) as client:
        got = client.infer("net_preprocess", {"image": np.array([[one] for one in images], dtype=object)})
    assert got["x"].dtype == np.float32
    assert np.array_equal(got["x"], np.concatenate(samples))


def test_an_image_that_cannot_be_decoded_is_refused_alone(served: Served):
    rng = np.random.default_rng(7)
    good = encoded(rng, 50, 50, "jpg")
    broken = {b"text": "it is none of JPEG, PNG, BMP, WEBP", good[: len(good) // 2]: "truncated", b"": "it is none of"}

    def ask(image: bytes) -> str:
        try:
            return str(served.asked(good, image)["best"].shape)
        except Refusal as refusal:
            return str(refusal)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, [good, *broken, good, *broken, good]))
    assert answers[0] == answers[4] == answers[8] == "(2, 1)"
    for answer, told in zip(answers[1:4], broken.values(), strict=True):
        assert answer.startswith("INVALID_ARGUMENT: ")
        assert "input 'image', image 1: the image cannot be read: " in answer
        assert told.lower() in answer.lower()
    assert served.server.live()


def test_serve_check_sends_images_and_compares(served: Served):
    told = done("serve-check", served.repository, "--address", served.server.grpc, "--strict", "--json").json
    assert told["verdict"] == "pass"
    checks = {(c["model"], c["check"]): c["detail"] for c in told["checks"]}
    for model in ("net", "net_preprocess", "net_model", "net_postprocess"):
        assert checks[model, "answers"].startswith("200 requests, farthest")
        assert ((model, "no image") in checks) == (model in ("net", "net_preprocess"))
    assert "the image cannot be read" in checks["net", "no image"]


def test_serve_check_sees_another_preprocessing(served: Served, tmp_path: Path):
    """The server has what was packaged; then the numbers in the repository change."""
    repository = Path(shutil.copytree(served.repository, tmp_path / "r"))
    path = repository / "net_preprocess/1/preprocess.json"
    step = json.loads(path.read_text())
    step["settings"]["color"] = "RGB"
    path.write_text(json.dumps(step))
    ran = trtcompress("serve-check", repository, "--address", served.server.grpc, "--requests", 20, "--json")
    failed = {(c["model"], c["check"]) for c in ran.json["checks"] if c["verdict"] == "fail"}
    assert ran.code == 5
    assert {("net", "answers"), ("net_preprocess", "answers")} <= failed
    assert not any(model in ("net_model", "net_postprocess") for model, _ in failed)


def test_a_repository_that_was_changed_is_found(served: Served, tmp_path: Path):
    check_repository(served.repository)
    for place, told in (
        ("net_preprocess/1/preprocessing.py", "SHA-256"),
        ("net_postprocess/1/code/helpers/soft.py", "SHA-256"),
        ("net_postprocess/1/postprocess.json", "SHA-256"),
        ("net/config.pbtxt", "tensors between models"),
    ):
        repository = Path(shutil.copytree(served.repository, tmp_path / place.replace("/", "_")))
        text = (repository / place).read_text()
        text = text.replace('value: "net_model:logits"', 'value: "logit"', 1) if place.endswith("pbtxt") else text + " "
        (repository / place).write_text(text)
        with pytest.raises(RepositoryError, match=told if told == "SHA-256" else "inputs is|outputs is"):
            check_repository(repository)


def test_a_step_is_tuned_and_the_ensemble_names_its_models(served: Served, numpy_1, tmp_path: Path):
    repository = Path(shutil.copytree(served.repository, tmp_path / "r"))
    quick = ("--seconds", 0.05, "--minutes", 0.01, "--clients", 2, "--server-packages", numpy_1.packages, "--json")
    (tuned,) = done("tune", repository, "--model", "net_preprocess", *quick).json["models"]
    assert tuned["tried"][0]["points"][0]["throughput"] > 0
    check_repository(repository)
    ran = trtcompress("tune", repository, "--model", "net", *quick)
    assert ran.code == 2
    assert "'net' is an ensemble" in ran.err
    assert "net_preprocess, net_model, net_postprocess" in ran.err


def test_numpy_2_with_an_old_triton_is_told_when_the_model_loads(served: Served):
    """The wheel's Triton is 24.10, and numpy 2 is installed here."""
    with tritonserver(served.repository) as server, Client(server.grpc) as client:
        reasons = client.reasons()
        told = trtcompress("serve-check", served.repository, "--address", server.grpc, "--requests", 1, "--json")
    assert reasons["net_model"] == ""
    assert "take Triton 24.11 or newer, or install numpy below 2" in reasons["net_preprocess"]
    assert told.code == 5
    (detail,) = [c["detail"] for c in told.json["checks"] if (c["model"], c["check"]) == ("net_preprocess", "loads")]
    assert "install numpy below 2" in detail
    assert "pip install --target server-packages 'numpy<2' pillow, then --server-packages server-packages" in detail
    ran = trtcompress("tune", served.repository, "--model", "net_preprocess", "--seconds", 0.05, "--minutes", 0.01)
    assert ran.code == 5
    assert "then --server-packages server-packages" in ran.err


def test_serve_check_starts_a_server_with_these_packages(served: Served, numpy_1):
    """The very words of the message, but for the folder."""
    ask = ("serve-check", served.repository, "--server-packages", numpy_1.packages, "--requests", 10, "--strict")
    assert done(*ask, "--json").json["verdict"] == "pass"


@pytest.mark.parametrize("command", ["serve-check", "tune"])
def test_packages_that_are_none(served: Served, tmp_path: Path, command: str):
    for folder, told in ((tmp_path / "none", "no such folder"), (tmp_path, "nothing is installed in this folder")):
        ran = trtcompress(command, served.repository, "--server-packages", folder)
        assert (ran.code, ran.out) == (2, "")
        assert f"--server-packages {folder}: {told}" in ran.err
        assert "pip install --target server-packages 'numpy<2' pillow" in ran.err
    if command == "serve-check":
        ran = trtcompress(command, served.repository, "--server-packages", tmp_path, "--address", "localhost:1")
        assert (ran.code, "a server that runs already has its packages" in ran.err) == (2, True)


def test_package_does_it_again_in_the_folder_of_the_config(served: Served, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(served.folder)
    done("package", "out/net", "--format", "triton-python", "-o", tmp_path / "r")
    for path in served.repository.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (tmp_path / "r" / path.relative_to(served.repository)).read_bytes() == path.read_bytes(), path
    monkeypatch.chdir(tmp_path)
    ran = trtcompress("package", served.folder / "out/net", "--format", "triton-python", "-o", tmp_path / "other")
    assert ran.code == 2
    assert "'post:answer', which the build had for its postprocess, is not there" in ran.err
    assert "run this in the folder of the config" in ran.err


SHAPES = {
    "alone": ("float32", [3, 20, 24], Preprocess(size=(20, 24))),
    "fixed": ("float32", [2, 3, 20, 24], Preprocess(size=(20, 24))),
    "half": ("float16", ["batch", 3, 20, 24], Preprocess(size=(24, 26), crop=(20, 24), mean=(0.5,), std=(0.25,))),
    "last": ("float32", ["batch", 20, 24, 1], Preprocess(size=(20, 24), layout="NHWC", color="GRAY")),
    "sizes": ("float32", ["batch", 3, "h", "w"], Preprocess(std=(0.2, 0.3, 0.4))),
    "bytes": ("uint8", ["batch", 3, 20, 24], Preprocess(size=(20, 24), scale=1.0)),
    "total": ("float32", ["batch", 3, 20, 24], Preprocess(size=(20, 24))),
}
"""Type and shape of the input, and how images become it."""


def doubled(path: Path, dtype: str, shape: list[int | str], kind: str) -> Model:
    """`image -> y`, twice as much in float32; `total`: one number for all images, so that Triton cannot batch."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "wide"], ["sum" if kind == "total" else "y"]),
    ]
    made = shape
    if kind == "total":
        nodes.append(helper.make_node("ReduceSum", ["sum"], ["y"], keepdims=0))
        made = []
    return save(path, nodes, [("image", element, shape)], [("y", TensorProto.FLOAT, made)], {})


def test_any_input_that_images_become(tmp_path: Path, numpy_1):
    for kind, (dtype, shape, section) in SHAPES.items():
        graph = doubled(tmp_path / f"{kind}.onnx", dtype, shape, kind)
        ranges = {"batch": AxisRange(1, 2, 4), "h": AxisRange(9, 20, 40), "w": AxisRange(9, 24, 40)}
        axes = {"image": {name: rng for name, rng in ranges.items() if name in shape}}
        around = Around(PreprocessSettings(**asdict(section)).model_dump(mode="json"))
        where = {"name": kind, "form": "triton-python", "axes": axes, "triton": TritonSettings()}
        assert pack(engine_of(graph), CPU, tmp_path / "r", **where, around=around) == ""
    check_repository(tmp_path / "r")
    inputs = {kind: parse_config(tmp_path / "r" / kind / "config.pbtxt") for kind in SHAPES}
    assert {kind: (config.max_batch_size, list(config.input[0].dims)) for kind, config in inputs.items()} == {
        **dict.fromkeys(("half", "last", "sizes", "bytes"), (4, [1])),
        **{"alone": (0, [1]), "fixed": (0, [2]), "total": (0, [-1])},
    }
    with running(tmp_path / "r", numpy_1) as server:
        ran = trtcompress("serve-check", tmp_path / "r", "--address", server.grpc, "--requests", 12, "--json")
    assert [c for c in ran.json["checks"] if c["verdict"] != "pass"] == []
    assert {c["model"] for c in ran.json["checks"] if c["check"] == "no image"} >= set(SHAPES)


def test_around_a_plan_that_cannot_run_here(tmp_path: Path):
    """The function is tried on what ONNX Runtime makes of the plan's graph."""
    config = project(tmp_path / "p", BOTH)
    graph = read_model(config.parent / "m.onnx")
    engine = engine_of(graph, "tensorrt_rtx", {RTX_VERSION: "1.7.1.116"})
    section = PreprocessSettings.model_validate(_section()).model_dump(mode="json")
    samples = DataRef("images", config.parent, "", None, section)
    around = Around(section, FunctionRef("post:answer", config.parent, ""), ("labels.txt",), samples)
    axes = {"x": {"batch": AxisRange(1, 4, 8)}}
    pack(engine, RTX, tmp_path / "r", name="net", form="triton", axes=axes, triton=TritonSettings(), around=around)
    check_repository(tmp_path / "r")
    config = parse_config(tmp_path / "r/net/config.pbtxt")
    assert [step.model_name for step in config.ensemble_scheduling.step] == [
        "net_preprocess",
        "net_model",
        "net_postprocess",
    ]
    assert [entry.name for entry in config.output] == ["labels", "scores", "best"]
    served = read_served(tmp_path / "r", "net", {})
    assert not has_reference(served)
    assert served.images.keys() == {"image"}


@pytest.mark.parametrize(("release", "kind"), [("8.5.2", "int32"), ("10.3.0", "int64")])
def test_around_a_plan_of_tensorrt_before_10_integers_are_of_32_bits(tmp_path: Path, release: str, kind: str):
    """The function gets what the plan gives, and images become what it takes."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["f"], ["flat"]),
        helper.make_node("ArgMax", ["flat"], ["best"], axis=1),
    ]
    inputs = [("x", TensorProto.INT64, ["batch", 3, 4, 4])]
    graph = save(tmp_path / "m.onnx", nodes, inputs, [("best", TensorProto.INT64, ["batch", 1])], {})
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).integers(0, 9, (20, 3, 4, 4)))
    (tmp_path / "post.py").write_text(
        f"def f(outputs):\n    assert outputs['best'].dtype == '{kind}'\n    return {{'twice': outputs['best'] * 2}}\n"
    )
    around = Around(None, FunctionRef("post:f", tmp_path, ""), (), DataRef("s.npz", tmp_path, "", None, None))
    axes = {"x": {"batch": AxisRange(1, 4, 8)}}
    engine, target = engine_of(graph, "tensorrt", {"tensorrt": release}), resolve_target("a10")
    pack(engine, target, tmp_path / "r", name="net", form="triton", axes=axes, triton=TritonSettings(), around=around)
    check_repository(tmp_path / "r")
    configs = [parse_config(tmp_path / "r" / name / "config.pbtxt") for name in ("net", "net_model", "net_postprocess")]
    told = {DataType.Name(one.data_type) for config in configs for one in (*config.input, *config.output)}
    assert told == {f"TYPE_{kind.upper()}"}


def test_a_function_alone_on_a_server_with_numpy_2(tmp_path: Path):
    config = project(tmp_path / "p", NUMBERS)
    assert build(config).code == 0
    repository = tmp_path / "p/out/net/triton-python/cpu"
    assert sorted(path.name for path in repository.iterdir()) == ["net", "net_model", "net_postprocess"]
    told = done("serve-check", repository, "--requests", 40, "--strict", "--json").json
    assert told["verdict"] == "pass"
    assert {(e.name, tuple(e.dims)) for e in parse_config(repository / "net/config.pbtxt").output} == {
        ("logits", (5,)),
        ("sure", (1,)),
    }


def test_versions_go_between_a_plain_model_and_an_ensemble(tmp_path: Path):
    repository, made = tmp_path / "served", {}
    for kind, triton in (("plain", "{}"), ("images", "{preprocess: true}"), ("both", BOTH)):
        config = project(tmp_path / kind, triton)
        assert build(config).code == 0
        made[kind] = config.parent / "out/net/triton-python/cpu"
        add_versions(made[kind], repository, keep=3)

    def state() -> dict[str, int]:
        check_repository(repository)
        return {p.name: served_version(p, parse_config(p / "config.pbtxt")) for p in sorted(repository.iterdir())}

    second, third = ("net_preprocess_v2", "net_model_v2"), ("net_preprocess_v3", "net_model_v3", "net_postprocess_v3")
    beside = dict.fromkeys((*second, *third), 1)
    assert state() == {"net": 3, **beside}
    roll_back(repository, "net")
    assert state() == {"net": 2, **beside}
    roll_back(repository, "net")
    assert state()["net"] == 1
    assert parse_config(repository / "net/config.pbtxt").platform != "ensemble"
    roll_back(repository, "net", 3)
    assert state() == {"net": 3, **beside}
    config = parse_config(repository / "net/config.pbtxt")
    assert {step.model_name for step in config.ensemble_scheduling.step} == set(third)


def test_an_ensemble_keeps_two_versions_and_says_so(tmp_path: Path):
    repository, notes = tmp_path / "served", []
    for kind, triton in (("plain", "{}"), ("other", "{max_queue_delay_us: 900}"), ("images", "{preprocess: true}")):
        config = project(tmp_path / kind, triton)
        assert build(config).code == 0
        told = done(
            *("package", config.parent / "out/net", "--target", "cpu", "-o", repository, "--json"),
            *("--new-version", "--keep", 1),
            cwd=config.parent,
        )
        notes.append([note for note in told.json["notes"] if "keeps" in note])
    told = "cpu: net keeps 2 versions, not 1: it is or was an ensemble, and a server may still ask the models of the"
    assert notes == [[], [], [f"{told} version before"]]
    assert versions(repository / "net") == (2, 3)


# --- what is wrong


FUNCTIONS = {
    "missing": ("", "'bad' has no function 'f'", 2),
    "not Python": ("def f(:", "this is not Python", 2),
    "ours": (
        "import trtcompress\n\n\ndef f(o): return o",
        "'bad' imports trtcompress, which a server does not have",
        2,
    ),
    "import": ("import no_such_package\n\n\ndef f(o): return o", "'bad:f' cannot be imported: ModuleNotFoundError", 4),
    "file": ("L = open('labels.txt').read()\ndef f(o): return o", "a file goes along by `triton: {sources: [", 4),
    "raises": ("def f(o): return o['logit']", "bad:f failed: KeyError: 'logit'", 4),
    "list": ("def f(o): return [o['logits']]", "bad:f returned list, not a dict of arrays", 4),
    "empty": ("def f(o): return {}", "bad:f returned nothing, not a dict of arrays", 4),
    "no array": ("def f(o): return {'a': 3.0}", "bad:f returned 'a' as float, not as an array", 4),
    "complex": ("def f(o): return {'a': o['logits'] + 1j}", "bad:f returned 'a' of type complex64", 4),
    "objects": ("import numpy as np\ndef f(o): return {'a': np.array([None])}", "objects that are no texts", 4),
    "no batch": ("def f(o): return {'a': o['logits'].sum(0)}", "bad:f returned 'a' of shape [5] for 1 samples", 4),
    "names": (
        "def f(o): return {f'n{len(o[\"logits\"])}': o['logits']}",
        "bad:f returned ['n1'] for one sample and",
        4,
    ),
    "types": (
        "def f(o): return {'a': o['logits'].astype('f4' if len(o['logits']) == 1 else 'f8')}",
        "bad:f returned 'a' as float32 of rank 2 and as float64 of rank 2",
        4,
    ),
    "ascii": (
        "from pathlib import Path\nL = Path(__file__).with_name('labels.txt').read_text()\ndef f(o): return o",
        "a server reads files as ASCII where no encoding is given",
        4,
    ),
    "input": ("def f(o): return {'x': o['logits']}", "'x' would be both an input and an output", 4),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_a_function_that_does_not_do(kind: str, tmp_path: Path):
    source, told, code = FUNCTIONS[kind]
    config = project(tmp_path / "p", "{postprocess: 'bad:f', sources: [labels.txt]}")
    (config.parent / "bad.py").write_text(source, encoding="utf-8")
    ran = build(config)
    assert (ran.code, ran.out) == (code, "")
    assert told in ran.err
    assert "export: started" not in ran.err, "the outputs of an ONNX file are known before any work"
    assert not (config.parent / "out/net/triton-python").exists()
    dry = build(config, "--dry-run")
    assert (dry.code, dry.out) == (code, "")
    assert told in dry.err


def test_a_function_that_does_is_tried_once_before_builds(tmp_path: Path):
    """It leaves a mark in each process: before the build, and when it is packed."""
    config, marks = project(tmp_path / "p", "{postprocess: 'good:f', sources: [labels.txt]}"), tmp_path / "marks"
    (config.parent / "good.py").write_text(f"open({str(marks)!r}, 'a').write('x')\ndef f(o): return o\n")
    for arguments, processes in ((("--dry-run",), 1), ((), 2), ((), 2), (("--dry-run",), 2)):
        assert build(config, *arguments).code == 0
        assert marks.read_text() == "x" * processes
    (config.parent / "good.py").write_text("def f(o): return 3\n")
    assert build(config, "--until", "validate").code == 0, "it is not asked for"
    for more in ((), ("--dry-run",)):
        ran = build(config, "--until", "postprocess", *more)
        assert (ran.code, ran.out) == (4, ""), "by that name it is"
        assert "good:f returned int" in ran.err
    assert build(config).code == 4


def test_the_package_stage_looks_for_itself(tmp_path: Path):
    """What an engine gives may differ from what its model gave."""
    config = project(tmp_path / "p", "{}")
    (config.parent / "bad.py").write_text(FUNCTIONS["list"][0])
    samples = DataRef("images", config.parent, "", None, PreprocessSettings.model_validate(_section()).model_dump())
    around = Around(None, FunctionRef("bad:f", config.parent, ""), (), samples)
    where = {"name": "net", "form": "triton", "axes": {"x": {"batch": AxisRange(1, 4, 8)}}, "triton": TritonSettings()}
    with pytest.raises(CompileError, match="bad:f returned list, not a dict of arrays"):
        pack(engine_of(read_model(config.parent / "m.onnx")), CPU, tmp_path / "r", **where, around=around)
    assert list((tmp_path / "r").iterdir()) == []


NETWORK = """
import torch


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5)), torch.zeros(2, 3, 4, 4)


def samples():
    import numpy as np

    yield {"input": np.random.default_rng(0).normal(size=(12, 3, 4, 4)).astype("f4")}
"""


def test_behind_a_network_of_pytorch_it_is_tried_right_after_the_export(tmp_path: Path):
    config = tmp_path / "build.yaml"
    (tmp_path / "torch_net.py").write_text(NETWORK)
    (tmp_path / "bad.py").write_text("def f(o): return {'a': o['logits']}\n")
    config.write_text(
        "name: net\nmodel: {source: 'torch_net:net', inputs: {input: {batch: [1, 2, 4]}}}\n"
        "data: {calibration: {source: 'torch_net:samples'}}\nmeasure: {seconds: 0.01}\ntargets: ['cpu:float']\n"
        "package: [triton-python]\ntriton: {postprocess: 'bad:f'}\n"
    )
    dry = build(config, "--dry-run")
    assert dry.code == 0
    assert "triton.postprocess was not tried: the outputs of this model are known once it is exported" in dry.err
    assert [line.split()[0] for line in dry.out.splitlines()[:3]] == ["export", "postprocess", "simplify"]
    ran = build(config, "--jobs", 4)
    assert (ran.code, ran.out) == (4, "")
    assert "bad:f failed: KeyError: 'logits' (the outputs are:" in ran.err
    assert "export: done" in ran.err or "export:" in ran.err
    assert "simplify: started" not in ran.err
    assert build(config, "--until", "simplify").code == 0, "it is not asked for"
    assert build(config, "--until", "postprocess").code == 4
    (tmp_path / "bad.py").write_text("def f(o): return {'a': next(iter(o.values()))}\n")
    ran = build(config)
    assert ran.code == 0, ran.err
    assert (tmp_path / "out/net/triton-python/cpu/net_postprocess").is_dir()


CONFIGS = {
    "no section": ("{source: a.npz}", "", "data.calibration has no preprocess section"),
    "arrays": ("{source: a.npz, preprocess: {size: [32, 32]}}", "", "a.npz gives arrays, not images"),
    "function": ("{source: 'post:answer', preprocess: {size: [32, 32]}}", "", "post:answer gives arrays, not images"),
    "folder of arrays": ("{source: helpers, preprocess: {size: [32, 32]}}", "", "helpers is no folder of images"),
    "other evaluation": (
        "{source: images, preprocess: {size: [36, 40]}}",
        ", evaluation: {source: images, preprocess: {size: [32, 32]}}",
        "preprocessed in another way than the calibration",
    ),
    "evaluation without": (
        "{source: images, preprocess: {size: [32, 32]}}",
        ", evaluation: {source: images}",
        "the evaluation's images have no preprocess section",
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_preprocessing_that_no_sample_went_through(kind: str, tmp_path: Path):
    calibration, more, told = CONFIGS[kind]
    config = project(tmp_path / "p", "{preprocess: true}")
    np.savez(config.parent / "a.npz", x=np.zeros((4, 3, 32, 32), np.float32))
    lines = config.read_text().splitlines()
    lines[3] = f"data: {{calibration: {calibration}{more}}}"
    config.write_text("\n".join(lines))
    ran = build(config)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "export: started" not in ran.err
