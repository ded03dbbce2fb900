import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from tritonclient.grpc.model_config_pb2 import DataType, ModelInstanceGroup

from triton_models import BATCH_8, CPU, RTX, cnn, encoder, engine_of
from trtcompress_engines.triton import TritonOptions, aside, check_repository, parse_config, write_repository
from trtcompress_engines.triton.formats import LAYOUTS
from trtcompress_engines.triton.served_model import read_served
from trtcompress_engines.triton.setting import setting_of, with_setting
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import CompileError, MissingPathError, RepositoryError, StoreError, UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.target import Engine, Target

AXES = {"image": {"batch": BATCH_8}}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return engine_of(cnn(tmp_path / "cnn.onnx"))


@pytest.fixture
def plan(tmp_path: Path, engine: Engine) -> Engine:
    path = tmp_path / "model.plan"
    path.write_bytes(b"a plan")
    return replace(engine, path=path, target="rtx-4090", backend="tensorrt_rtx", details={"tensorrt_rtx": "1.7.1.116"})


def write(engine: Engine, repository: Path, form: str = "triton", name: str = "m", target: Target = CPU) -> Path:
    return write_repository(engine, target, repository, name=name, format=form, axes=AXES, options=TritonOptions())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_formats():
    assert sorted(LAYOUTS) == [
        ("triton", "onnxruntime"),
        ("triton", "tensorrt"),
        ("triton", "tensorrt_rtx"),
        ("triton-python", "onnxruntime"),
        ("triton-python", "tensorrt_rtx"),
    ]


def test_onnxruntime_backend(engine: Engine, tmp_path: Path):
    folder = write(engine, tmp_path / "repository")
    assert list(files(folder)) == ["1/model.onnx", "1/model.onnx.sha256", "config.pbtxt"]
    assert (folder / "1/model.onnx").read_bytes() == engine.graph.path.read_bytes()
    parameters = parse_config(folder / "config.pbtxt").parameters
    assert parameters["graph_sha256"].string_value == engine.graph.digest
    assert parameters["target"].string_value == "cpu"
    check_repository(tmp_path / "repository")


def test_onnxruntime_in_python(engine: Engine, tmp_path: Path):
    folder = write(engine, tmp_path / "repository", "triton-python")
    config = parse_config(folder / "config.pbtxt")
    assert (config.backend, config.default_model_filename) == ("python", "model.py")
    assert config.parameters["runner"].string_value == "onnxruntime"
    assert {"1/model.onnx", "1/model.py", "1/onnxruntime_runner.py"} <= files(folder).keys()
    assert "1/tensorrt_rtx_runner.py" not in files(folder)
    check_repository(tmp_path / "repository")


def test_plan_of_classic_tensorrt(plan: Engine, tmp_path: Path):
    folder = write(replace(plan, backend="tensorrt", details={}), tmp_path / "repository", target=RTX)
    config = parse_config(folder / "config.pbtxt")
    assert files(folder)["1/model.plan"] == b"a plan"
    assert (config.platform, config.default_model_filename) == ("tensorrt_plan", "model.plan")
    assert config.instance_group[0].kind == ModelInstanceGroup.KIND_GPU
    assert not config.instance_group[0].profile
    check_repository(tmp_path / "repository")


def test_every_instance_has_all_profiles_of_a_plan(plan: Engine, tmp_path: Path):
    several = replace(plan, backend="tensorrt", details={"profiles": "3"})
    folder = write(several, tmp_path / "repository", target=RTX)
    path = folder / "config.pbtxt"
    config = parse_config(path)
    assert [list(group.profile) for group in config.instance_group] == [["0", "1", "2"]]
    check_repository(tmp_path / "repository")
    tuned = with_setting(config, replace(setting_of(config), instances=4))
    assert (tuned.instance_group[0].count, list(tuned.instance_group[0].profile)) == (4, ["0", "1", "2"])
    text = path.read_text()
    for wrong in ('["0", "1"]', '["0", "1", "2", "3"]', '["0", "2", "1"]', "[]"):
        path.write_text(text.replace('["0", "1", "2"]', wrong))
        with pytest.raises(RepositoryError, match="profiles of an instance group"):
            check_repository(tmp_path / "repository")


@pytest.mark.parametrize("form", ["triton", "triton-python"])
def test_plan_of_tensorrt_for_rtx_is_served_by_python_with_its_version(plan: Engine, tmp_path: Path, form: str):
    folder = write(plan, tmp_path / "repository", form, target=RTX)
    config = parse_config(folder / "config.pbtxt")
    assert (config.backend, config.platform) == ("python", "")
    assert config.parameters["tensorrt_rtx_version"].string_value == "1.7.1.116"
    assert config.instance_group[0].kind == ModelInstanceGroup.KIND_GPU
    assert {"1/model.plan", "1/tensorrt_rtx_runner.py", "1/cudart.py"} <= files(folder).keys()
    assert "1/streaming.py" not in files(folder)
    streams = replace(plan, details={**plan.details, "weight_streaming_budget": "30%"})
    folder = write(streams, tmp_path / "streams", form, target=RTX)
    assert parse_config(folder / "config.pbtxt").parameters["weight_streaming_budget"].string_value == "30%"
    assert "def set_budget" in (folder / "1/streaming.py").read_text()
    with pytest.raises(CompileError, match="which release"):
        write(replace(plan, details={}), tmp_path / "repository", form, target=RTX)


def test_external_data_comes_along(engine: Engine, tmp_path: Path):
    source = tmp_path / "big" / "model.onnx"
    source.parent.mkdir()
    onnx.save(
        onnx.load(engine.graph.path),
        source,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    folder = write(engine_of(read_model(source)), tmp_path / "repository", "triton-python")
    shutil.rmtree(source.parent)
    import onnxruntime as ort

    image = np.random.default_rng(0).random((2, 1, 28, 28), "f4")
    answers = [
        ort.InferenceSession(str(path)).run(None, {"image": image})[0]
        for path in (engine.graph.path, folder / "1/model.onnx")
    ]
    assert np.array_equal(*answers)


def test_same_engine_same_bytes(engine: Engine, tmp_path: Path):
    for form in ("triton", "triton-python"):
        first = files(write(engine, tmp_path / "one", form))
        assert first == files(write(engine, tmp_path / "two", form))


def test_a_model_is_replaced_and_others_are_left_alone(engine: Engine, tmp_path: Path):
    repository = tmp_path / "repository"
    other = files(write(engine, repository, name="other"))
    write(engine, repository, "triton-python")
    (repository / "m" / "1" / "stray").write_text("of an older build")
    write(engine, repository)
    assert list(files(repository / "m")) == ["1/model.onnx", "1/model.onnx.sha256", "config.pbtxt"]
    assert files(repository / "other") == other
    assert sorted(path.name for path in repository.iterdir()) == ["m", "other"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_failed_write_leaves_what_was_there(engine: Engine, plan: Engine, tmp_path: Path):
    repository = tmp_path / "repository"
    before = files(write(engine, repository))
    plan.path.unlink()
    with pytest.raises(MissingPathError, match=r"model\.plan: the engine is gone"):
        write(plan, repository, target=RTX)
    assert files(repository / "m") == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_nothing_is_seen_before_it_is_whole(tmp_path: Path):
    place = tmp_path / "repository" / "m"
    with aside.put_folder(place) as folder:
        (folder / "first").write_text("1")
        assert list(place.parent.iterdir()) == []
    assert files(place) == {"first": b"1"}
    with pytest.raises(FileNotFoundError), aside.put_folder(place) as folder:
        shutil.copy(tmp_path / "nothing", folder)
    assert files(place) == {"first": b"1"}
    with aside.put_folder(place) as folder:
        (folder / "third").write_text("3")
    assert files(place) == {"third": b"3"}


def test_systems_that_cannot_swap_two_folders(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(aside.ctypes, "CDLL", lambda *_, **__: object())
    for text in ("1", "2"):
        with aside.put_folder(tmp_path / "repository" / "m") as folder:
            (folder / text).write_text(text)
    assert files(tmp_path / "repository") == {"m/2": b"2"}
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_two_writers_at_once_leave_one_whole_model(engine: Engine, tmp_path: Path):
    repository = tmp_path / "repository"
    whole = [files(write(engine, tmp_path / form, form)) for form in ("triton", "triton-python")]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: write(engine, repository, ("triton", "triton-python")[i % 2]), range(16)))
    assert files(repository / "m") in whole
    assert [path.name for path in repository.iterdir()] == ["m"]


def test_a_repository_that_cannot_be_written(engine: Engine, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write(engine, tmp_path / "file" / "repository")


def test_an_engine_that_is_not_built_says_how(engine: Engine, tmp_path: Path):
    waiting = replace(engine, built=False, target="a100", backend="tensorrt", details={"how_to_build": "run trtexec"})
    with pytest.raises(CompileError, match="a100") as caught:
        write(waiting, tmp_path / "repository")
    assert caught.value.hint == "run trtexec"
    assert not (tmp_path / "repository").exists()


def test_formats_that_do_not_fit(engine: Engine, plan: Engine, tmp_path: Path):
    with pytest.raises(UsageError, match="unknown format 'tritn'") as caught:
        write(engine, tmp_path, "tritn")
    assert "triton, triton-python" in caught.value.hint
    with pytest.raises(CompileError, match="'triton-python' cannot serve") as refused:
        write(replace(plan, backend="tensorrt"), tmp_path, "triton-python")
    assert "triton" in refused.value.hint
    with pytest.raises(CompileError, match="'null'"):
        write(replace(engine, backend="null"), tmp_path)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "-x", "a b", "é"])
def test_names_that_cannot_be_served(engine: Engine, tmp_path: Path, name: str):
    with pytest.raises(UsageError, match="name"):
        write(engine, tmp_path / "repository", name=name)
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max_batch_size: 8", "max_batch_size: 0", "dims"),
        ("TYPE_FP32", "TYPE_FP16", "data_type"),
        ('name: "logits"', 'name: "logit"', "outputs"),
        ("dims: [10]", "dims: [11]", "dims"),
        ('name: "m"', 'name: "n"', "name"),
        ("max_batch_size", "max_batch_sizes", "not a model configuration"),
        ("preferred_batch_size: [4, 8]", "preferred_batch_size: [4, 16]", "16 is beyond max_batch_size 8"),
    ],
)
def test_a_configuration_edited_into_disagreement(engine: Engine, tmp_path: Path, old: str, new: str, words: str):
    config = write(engine, tmp_path / "repository") / "config.pbtxt"
    assert old in config.read_text()
    config.write_text(config.read_text().replace(old, new, 1))
    with pytest.raises(RepositoryError, match=words) as caught:
        check_repository(tmp_path / "repository")
    assert str(config) in str(caught.value)


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("max_batch_size: 8", "max_batch_size: 64", "max_batch_size is 64 here, and the plan was packed for at most 8"),
        ("max_batch_size: 8", "max_batch_size: 0", "dims"),
        ("TYPE_FP32", "TYPE_FP16", "data_type"),
        ('name: "logits"', 'name: "logit"', "outputs"),
        ("dims: [1, 28, 28]", "dims: [1, 32, 32]", "dims"),
    ],
)
def test_a_configuration_of_a_plan_edited_into_disagreement(
    plan: Engine, tmp_path: Path, backend: str, old: str, new: str, words: str
):
    repository = tmp_path / "repository"
    folder = write(replace(plan, backend=backend), repository, target=RTX)
    check_repository(repository)
    read_served(repository, "m", {})
    config = folder / "config.pbtxt"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new, 1))
    for check in (lambda: check_repository(repository), lambda: read_served(repository, "m", {})):
        with pytest.raises(RepositoryError, match=words) as caught:
            check()
        assert str(config) in str(caught.value)
    config.write_text(text.replace("max_batch_size: 8", "max_batch_size: 4").replace("[4, 8]", "[4]"))
    check_repository(repository)


def test_what_lies_beside_a_plan_is_what_was_packed(plan: Engine, tmp_path: Path):
    repository = tmp_path / "repository"
    folder = write(plan, repository, target=RTX)
    tensors, digests = folder / "1/model.plan.json", folder / "1/model.plan.sha256"
    subprocess.run(["sha256sum", "-c", digests.name], cwd=digests.parent, check=True)
    tensors.write_text(tensors.read_text().replace('"greatest_batch": 8', '"greatest_batch": 64'))
    with pytest.raises(RepositoryError, match=r"model\.plan\.json: this is not what was packed"):
        check_repository(repository)
    tensors.unlink()
    with pytest.raises(MissingPathError, match=r"model\.plan\.json: the tensors of the plan are missing"):
        check_repository(repository)
    digests.write_text(digests.read_text().splitlines(keepends=True)[0])  # as it was packed before there were any
    check_repository(repository)
    assert read_served(repository, "m", {}).max_batch == 8


def test_a_changed_model_is_found(tmp_path: Path, engine: Engine):
    folder = write(engine, tmp_path / "repository")
    encoder(folder / "1/model.onnx")
    with pytest.raises(RepositoryError, match="SHA-256"):
        check_repository(tmp_path / "repository")
    (folder / "1/model.onnx.sha256").unlink()
    with pytest.raises(MissingPathError, match=r"model\.onnx\.sha256"):
        check_repository(tmp_path / "repository")
    (folder / "1/model.onnx").unlink()
    with pytest.raises(MissingPathError, match=r"model\.onnx"):
        check_repository(tmp_path / "repository")
    with pytest.raises(MissingPathError, match="nowhere"):
        check_repository(tmp_path / "nowhere")


def test_axes_may_be_written_with_their_place(engine: Engine, tmp_path: Path):
    axes = {"image": {"batch@0": AxisRange(1, 2, 5)}}
    folder = write_repository(
        engine, CPU, tmp_path / "r", name="m", format="triton", axes=axes, options=TritonOptions()
    )
    assert parse_config(folder / "config.pbtxt").max_batch_size == 5


def plan_header(*version: int) -> bytes:
    """What a plan begins with: trtexec reads its version so."""
    return b"ftrt" + bytes(20) + bytes(version) + bytes(4) + b"engine"


@pytest.mark.parametrize(
    ("plan", "details", "kind"),
    [
        (plan_header(8, 6, 2), {"tensorrt": "10.3.0"}, "TYPE_INT32"),
        (plan_header(10, 3, 0), {"laid_out_for": "8.5.2"}, "TYPE_INT64"),
        (b"a plan without a version", {"tensorrt": "8.5.2"}, "TYPE_INT32"),
        (b"a plan without a version", {"tensorrt": "8.5.2", "laid_out_for": "10.13"}, "TYPE_INT32"),
        (b"a plan without a version", {"laid_out_for": "8.4.1"}, "TYPE_INT32"),
        (b"a plan without a version", {"laid_out_for": "10.3.0"}, "TYPE_INT64"),
        (b"a plan without a version", {}, "TYPE_INT64"),
    ],
)
def test_tensorrt_before_10_has_int32_in_place_of_int64(tmp_path: Path, plan: bytes, details, kind: str):
    graph = encoder(tmp_path / "model.onnx")
    path = tmp_path / "model.plan"
    path.write_bytes(plan)
    engine = replace(engine_of(graph, "tensorrt", details), path=path)
    axes = {"ids": {"batch": BATCH_8, "sequence": AxisRange(4, 8, 16)}}
    target = Target("orin", "Orin", "kit")
    write_repository(engine, target, tmp_path / "r", name="m", format="triton", axes=axes, options=TritonOptions())
    config = parse_config(tmp_path / "r/m/config.pbtxt")
    assert [DataType.Name(one.data_type) for one in config.input] == [kind, "TYPE_FP32"]
    warmed = {DataType.Name(one.inputs["ids"].data_type) for one in config.model_warmup}
    assert warmed == {kind}
    held = json.loads((tmp_path / "r/m/1/model.plan.json").read_text())
    assert held["inputs"][0]["dtype"] == kind.removeprefix("TYPE_").lower()
    check_repository(tmp_path / "r")
    assert read_served(tmp_path / "r", "m", {}).inputs[0].dtype == kind.removeprefix("TYPE_").lower()
