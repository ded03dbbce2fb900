"""Versions of a served model: beside each other on disk, one of them served, switched while a server looks on."""

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http
from onnx import TensorProto, helper

from triton_models import CPU, engine_of, save
from tritonserver import Server, tritonserver
from trtcompress_engines.triton import TritonOptions, check_repository, parse_config, switching, write_repository
from trtcompress_engines.triton.batching import Batching
from trtcompress_engines.triton.ensemble import Tower, write_ensemble
from trtcompress_engines.triton.modelconfig import to_text
from trtcompress_engines.triton.served_model import read_served
from trtcompress_engines.triton.switching import Switched, add_versions, roll_back
from trtcompress_engines.triton.version_folders import BEFORE, TUNING
from trtcompress_engines.triton.versions import served_version, versions
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import StoreError, UsageError
from trtcompress_graph.model import Model


def constant(path: Path, value: float, makes: str = "y") -> Model:
    """`x [batch, 1] -> y [batch, 1]`, y = x + value; `makes`: what y is called."""
    nodes = [helper.make_node("Add", ["x", "value"], [makes])]
    shape = ["batch", 1]
    weights = {"value": np.float32([value])}
    return save(path, nodes, [("x", TensorProto.FLOAT, shape)], [(makes, TensorProto.FLOAT, shape)], weights)


def made(folder: Path, value: float, name: str = "m", delay: int = 500, makes: str = "y") -> Path:
    """A repository of one model."""
    engine = engine_of(constant(folder / f"{name}{value}.onnx", value, makes))
    repository = folder / f"made{name}{value}{delay}"
    options = TritonOptions(max_queue_delay_us=delay)
    axes = {"x": {"batch": AxisRange(1, 2, 4)}}
    write_repository(engine, CPU, repository, name=name, format="triton-python", axes=axes, options=options)
    return repository


def state(folder: Path) -> tuple[int, tuple[int, ...]]:
    return served_version(folder, parse_config(folder / "config.pbtxt")), versions(folder)


def delay(folder: Path) -> int:
    return parse_config(folder / "config.pbtxt").dynamic_batching.max_queue_delay_microseconds


def test_new_versions_stand_beside_the_old(tmp_path: Path):
    repository = tmp_path / "served"
    assert add_versions(made(tmp_path, 1), repository) == [Switched("m", 1, 0, (1,))]
    assert add_versions(made(tmp_path, 2), repository) == [Switched("m", 2, 1, (1, 2))]
    assert add_versions(made(tmp_path, 3), repository) == [Switched("m", 3, 2, (2, 3))]
    assert state(repository / "m") == (3, (2, 3))
    check_repository(repository)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    for number in (2, 3):
        fresh = tmp_path / f"madem{number}500/m/1"
        kept = repository / "m" / str(number)
        assert all((kept / path.name).read_bytes() == path.read_bytes() for path in fresh.iterdir())


def test_the_first_package_may_be_a_plain_one(tmp_path: Path):
    repository = made(tmp_path, 1)
    assert add_versions(made(tmp_path, 2), repository) == [Switched("m", 2, 1, (1, 2))]
    check_repository(repository)
    assert roll_back(repository, "m") == [Switched("m", 1, 2, (1, 2))]
    check_repository(repository)
    assert read_served(repository, "m", {}).graph.path.parent.name == "1", "what serve-check and tune look at"


def test_a_number_that_begins_with_a_zero_is_no_version(tmp_path: Path):
    repository = made(tmp_path, 1)
    shutil.copytree(repository / "m/1", repository / "m/007")
    assert state(repository / "m") == (1, (1,))
    with tritonserver(repository) as server:
        index = tritonclient.http.InferenceServerClient(server.http).get_model_repository_index()
    assert [(model["name"], model["version"]) for model in index] == [("m", "1")]
    assert add_versions(made(tmp_path, 2), repository) == [Switched("m", 2, 1, (1, 2))]


def test_equal_packages_are_one_version(tmp_path: Path):
    repository = tmp_path / "served"
    add_versions(made(tmp_path, 1), repository)
    before = (repository / "m/config.pbtxt").stat()
    assert add_versions(made(tmp_path, 1), repository) == [Switched("m", 1, 1, (1,))]
    assert (repository / "m/config.pbtxt").stat().st_ino == before.st_ino, "nothing was touched"
    assert add_versions(made(tmp_path, 1, delay=900), repository) == [Switched("m", 2, 1, (1, 2))]


def tuned(folder: Path, delay_us: int) -> None:
    """As `tune` leaves a model: what was packaged is kept, however often it is tuned."""
    config, before = folder / "config.pbtxt", folder / BEFORE
    if not before.exists():
        before.write_text(config.read_text())
    served = parse_config(config)
    served.dynamic_batching.max_queue_delay_microseconds = delay_us
    config.unlink()
    config.write_text(to_text(served))
    (folder / TUNING).write_text("{}")


def test_what_was_tuned_twice_is_what_was_packaged(tmp_path: Path):
    folder = tmp_path / "served/m"
    add_versions(made(tmp_path, 1), folder.parent)
    for tries in (77, 78):
        tuned(folder, tries)
        assert add_versions(made(tmp_path, 1), folder.parent) == [Switched("m", 1, 1, (1,))]
        assert delay(folder) == tries
    add_versions(made(tmp_path, 2), folder.parent)
    assert not (folder / BEFORE).exists(), "the new version was never tuned"
    tuned(folder, 79)
    assert add_versions(made(tmp_path, 2), folder.parent) == [Switched("m", 2, 2, (1, 2))]
    for version, tries in ((1, 78), (2, 79)):
        roll_back(folder.parent, "m", version)
        assert delay(folder) == tries
        assert parse_config(folder / BEFORE).dynamic_batching.max_queue_delay_microseconds == 500
        assert add_versions(made(tmp_path, version), folder.parent) == [Switched("m", version, version, (1, 2))]
    assert add_versions(made(tmp_path, 2, delay=900), folder.parent) == [Switched("m", 3, 2, (2, 3))]
    assert not (folder / BEFORE).exists()


def test_going_back_brings_the_settings_of_that_version(tmp_path: Path):
    folder = tmp_path / "served/m"
    add_versions(made(tmp_path, 1), folder.parent)
    (folder / "config.pbtxt").write_text((folder / "config.pbtxt").read_text().replace("seconds: 500", "seconds: 77"))
    (folder / "tuning.json").write_text("{}")
    add_versions(made(tmp_path, 2), folder.parent)
    assert (delay(folder), (folder / "tuning.json").exists()) == (500, False)
    roll_back(folder.parent, "m")
    assert state(folder) == (1, (1, 2))
    assert (delay(folder), (folder / "tuning.json").read_text()) == (77, "{}")
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "config.pbtxt", "tuning.json"]
    roll_back(folder.parent, "m", 2)
    assert (state(folder), delay(folder), (folder / "tuning.json").exists()) == ((2, (1, 2)), 500, False)


def test_what_lies_beside_the_versions_stays(tmp_path: Path):
    """Labels, data of a warm-up and what else a user put there, through versions and back."""
    folder, outside = tmp_path / "served/m", tmp_path / "outside"
    add_versions(made(tmp_path, 1), folder.parent)
    (folder / "labels.txt").write_text("a")
    (folder / "warmup/more").mkdir(parents=True)
    (folder / "warmup/more/x").write_bytes(b"1")
    (folder / "linked").symlink_to("1/model.onnx")
    (folder / "gone").symlink_to(outside)
    for step in (
        lambda: add_versions(made(tmp_path, 2), folder.parent),
        lambda: roll_back(folder.parent, "m"),
        lambda: add_versions(made(tmp_path, 3), folder.parent),
    ):
        step()
        assert (folder / "labels.txt").read_text() == "a"
        assert (folder / "warmup/more/x").read_bytes() == b"1"
        assert [(folder / name).readlink() for name in ("linked", "gone")] == [Path("1/model.onnx"), outside]
    (folder / "labels.txt").unlink()
    roll_back(folder.parent, "m")
    assert not (folder / "labels.txt").exists(), "what is removed does not come back"


def test_after_going_back_the_version_that_was_served_is_the_one_before(tmp_path: Path):
    folder = tmp_path / "served/m"
    for value in (1, 2):
        add_versions(made(tmp_path, value), folder.parent)
    roll_back(folder.parent, "m")
    add_versions(made(tmp_path, 3), folder.parent)
    assert state(folder) == (3, (1, 3)), "2 was never good; 1 was served"
    roll_back(folder.parent, "m")
    assert state(folder) == (1, (1, 3))


@pytest.mark.parametrize(("keep", "left"), [(1, (4,)), (3, (2, 3, 4)), (9, (1, 2, 3, 4))])
def test_how_many_are_kept(tmp_path: Path, keep: int, left: tuple[int, ...]):
    repository = tmp_path / "served"
    for value in (1, 2, 3, 4):
        add_versions(made(tmp_path, value), repository, keep)
    assert versions(repository / "m") == left


def test_what_cannot_be_gone_back_to(tmp_path: Path):
    repository = tmp_path / "served"
    add_versions(made(tmp_path, 1), repository)
    with pytest.raises(UsageError, match="no version before 1; there are: 1; served: 1"):
        roll_back(repository, "m")
    add_versions(made(tmp_path, 2), repository)
    with pytest.raises(UsageError, match="no version 7; there are: 1, 2; served: 2"):
        roll_back(repository, "m", 7)
    (repository / "m/1/config.pbtxt").unlink()
    with pytest.raises(UsageError, match=r"version 1 has no config\.pbtxt"):
        roll_back(repository, "m")
    assert state(repository / "m") == (2, (1, 2))
    with pytest.raises(UsageError, match="0 versions cannot be kept"):
        add_versions(made(tmp_path, 2), repository, 0)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        add_versions(made(tmp_path, 2), tmp_path / "file")


def test_an_ensemble_and_its_towers_go_together(tmp_path: Path, monkeypatch):
    def pair(value: float) -> Path:
        repository = made(tmp_path, value, "pair_a")
        made(tmp_path, 1, "pair_b", makes="z").joinpath("pair_b").rename(repository / "pair_b")
        a, b = (Tower(constant(tmp_path / "tower.onnx", value, y), Batching(4, 2), "batch") for y in "yz")
        write_ensemble(repository, "pair", {"pair_a": a, "pair_b": b})
        write_ensemble(repository, "pair_one", {"pair_a": a})
        return repository

    monkeypatch.setattr(switching, "SETTLE_SECONDS", 0)
    repository = tmp_path / "served"
    assert [s.name for s in add_versions(pair(1), repository)] == ["pair", "pair_one"]
    assert {s.version for s in add_versions(pair(2), repository)} == {2}
    assert {path.name for path in repository.iterdir()} == {
        *("pair", "pair_one", "pair_a_v1", "pair_b_v1", "pair_a_v2", "pair_b_v2")
    }
    went = roll_back(repository, "pair")
    assert {s.name: (s.former, s.version) for s in went} == dict.fromkeys(("pair", "pair_one"), (2, 1))
    assert [s.name for s in roll_back(repository, "pair_one", 2)] == ["pair_one"], "alone, as it was asked"


def test_writers_at_once_lose_nothing(tmp_path: Path):
    repository = tmp_path / "served"
    packages = [made(tmp_path, value) for value in range(6)]
    with ThreadPoolExecutor(6) as pool:
        switched = list(pool.map(lambda one: add_versions(one, repository, 10), packages))
    assert sorted(one.version for (one,) in switched) == [1, 2, 3, 4, 5, 6]
    assert versions(repository / "m") == (1, 2, 3, 4, 5, 6)


@pytest.fixture
def polling(tmp_path: Path) -> Iterator[tuple[Path, Server]]:
    repository = tmp_path / "served"
    add_versions(made(tmp_path, 1), repository)
    with tritonserver(repository, "--model-control-mode", "poll", "--repository-poll-secs", "1") as running:
        yield repository, running


def test_a_server_that_polls_follows_and_always_answers(polling, tmp_path: Path):
    """Asked all the time through a switch and back: every answer is that of one version, and none is missing."""
    repository, server = polling
    answers: list[float] = []
    failed: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        with tritonclient.http.InferenceServerClient(server.http) as client:
            value = tritonclient.http.InferInput("x", [1, 1], "FP32")
            value.set_data_from_numpy(np.zeros((1, 1), np.float32))
            while not done.is_set():
                try:
                    answers.append(float(client.infer("m", [value]).as_numpy("y")[0, 0]))
                except Exception as error:
                    failed.append(error)
                time.sleep(0.005)

    def until(value: float) -> None:
        end = time.monotonic() + 60
        while (not answers or answers[-1] != value) and time.monotonic() < end:
            time.sleep(0.05)
        assert answers[-1] == value, server.log_text()[-2000:]

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        until(1)
        add_versions(made(tmp_path, 2), repository)
        until(2)
        roll_back(repository, "m")
        until(1)
    finally:
        done.set()
        asker.join()
    assert failed == []
    switches = [now for before, now in zip([0.0, *answers], answers, strict=False) if before != now]
    assert switches == [1, 2, 1]
