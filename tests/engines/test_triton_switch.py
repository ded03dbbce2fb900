"""Ensembles that switch: each answer is wholly of one version, on a real tritonserver that polls or is told to load."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.http
from onnx import TensorProto, helper

from triton_models import CPU, engine_of, save
from tritonserver import Server, tritonserver
from trtcompress_engines.triton import (
    TritonOptions,
    asked_models,
    check_repository,
    parse_config,
    switching,
    write_repository,
)
from trtcompress_engines.triton.asked_models import asked_in
from trtcompress_engines.triton.batching import Batching
from trtcompress_engines.triton.chain import write_chain
from trtcompress_engines.triton.repository import checksum
from trtcompress_engines.triton.served_model import model_names
from trtcompress_engines.triton.steps import Link
from trtcompress_engines.triton.switching import Switched, add_versions, roll_back
from trtcompress_engines.triton.versions import served_version
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import StoreError, TrtCompressError, UsageError
from trtcompress_graph.model import Model

FUTURE = "from __future__ import annotations\n"
LATE = f"{FUTURE}import time\n\ntime.sleep(2)\n"
"""At the head of a model's program: it is loaded so much later than the others."""


def plus(path: Path, value: float, read: str, made: str) -> Model:
    """`read [batch, 1] -> made [batch, 1]`, made = read + value."""
    shape = ["batch", 1]
    nodes = [helper.make_node("Add", [read, "value"], [made])]
    weights = {"value": np.float32([value])}
    return save(path, nodes, [(read, TensorProto.FLOAT, shape)], [(made, TensorProto.FLOAT, shape)], weights)


def chain(folder: Path, value: float, *, late: str = "", most: int = 4) -> Path:
    """A repository of `net`: `net_a` adds `value`, `net_b` a hundred times that; the one called `late` loads slowly."""
    folder.mkdir(parents=True)
    repository, links = folder / "r", []
    for name, much, read, made in (("net_a", value, "x", "y"), ("net_b", 100 * value, "y", "z")):
        graph = plus(folder / f"{name}.onnx", much, read, made)
        axes = {read: {"batch": AxisRange(1, 2, most)}}
        where = {"name": name, "format": "triton-python", "axes": axes, "options": TritonOptions()}
        write_repository(engine_of(graph), CPU, repository, **where)
        program = repository / name / "1/model.py"
        if name == late:
            program.write_text(program.read_text().replace(FUTURE, LATE, 1))
        links.append(Link(name, graph.inputs, graph.outputs))
    write_chain(repository, "net", links, Batching(most))
    return repository


class Asker:
    """Asks `net` all the time and keeps what it answered, and each failure."""

    def __init__(self, server: Server) -> None:
        self.server, self.answers, self.failed = server, [], []
        self._done = threading.Event()

    def __call__(self) -> None:
        with tritonclient.http.InferenceServerClient(self.server.http) as client:
            value = tritonclient.http.InferInput("x", [1, 1], "FP32")
            value.set_data_from_numpy(np.zeros((1, 1), np.float32))
            while not self._done.is_set():
                try:
                    self.answers.append(float(client.infer("net", [value]).as_numpy("z")[0, 0]))
                except Exception as error:
                    self.failed.append(error)
                time.sleep(0.002)

    def until(self, value: float) -> None:
        end = time.monotonic() + 60
        while (not self.answers or self.answers[-1] != value) and not self.failed and time.monotonic() < end:
            time.sleep(0.05)
        assert self.answers[-1:] == [value], (self.answers[-3:], self.failed[:2], self.server.log_text()[-3000:])

    @property
    def sequence(self) -> list[float]:
        """Its answers, those that follow an equal one left out."""
        return [now for before, now in zip([None, *self.answers], self.answers, strict=False) if before != now]

    def end(self) -> None:
        self._done.set()


@contextmanager
def asked(server: Server, count: int = 4) -> Iterator[list[Asker]]:
    """Several askers at once."""
    askers = [Asker(server) for _ in range(count)]
    threads = [threading.Thread(target=one) for one in askers]
    for thread in threads:
        thread.start()
    try:
        yield askers
    finally:
        for one in askers:
            one.end()
        for thread in threads:
            thread.join()


def until(askers: Sequence[Asker], value: float) -> None:
    for one in askers:
        one.until(value)


POLL = ("--model-control-mode", "poll", "--repository-poll-secs", "1")
EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "net")


def load(server: Server) -> None:
    with tritonclient.http.InferenceServerClient(server.http) as client:
        client.load_model("net")


@pytest.mark.parametrize(
    ("mode", "tell", "first"),
    [(POLL, lambda server: None, "plain"), (EXPLICIT, load, "with versions")],
    ids=["poll", "explicit"],
)
def test_every_answer_is_wholly_of_one_version(mode, tell: Callable[[Server], None], first: str, tmp_path: Path):
    """Through switches and ways back, with models that load at different speeds and other batches."""
    repository = tmp_path / "served"
    made = {
        1: chain(tmp_path / "1", 1),
        2: chain(tmp_path / "2", 2, late="net_b"),
        3: chain(tmp_path / "3", 3, late="net_a", most=8),
    }
    if first == "plain":
        made[1].rename(repository)
    else:
        add_versions(made[1], repository)
    with tritonserver(repository, *mode) as server, asked(server) as askers:
        until(askers, 101)
        for change, value in (
            (lambda: add_versions(made[2], repository), 202),
            (lambda: roll_back(repository, "net"), 101),
            (lambda: add_versions(made[3], repository), 303),
            (lambda: roll_back(repository, "net"), 101),
        ):
            change()
            check_repository(repository)
            tell(server)
            until(askers, value)
    for one in askers:
        assert one.failed == []
        assert one.sequence == [101, 202, 101, 303, 101]


def test_what_fails_midway_leaves_the_old_version_whole(tmp_path: Path, monkeypatch):
    """First a model that it asks cannot be put, then the ensemble itself cannot be; the server polls all the while."""
    repository = tmp_path / "served"
    add_versions(chain(tmp_path / "1", 1), repository)
    new = chain(tmp_path / "2", 2)

    def refuse(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with tritonserver(repository, *POLL) as server, asked(server) as askers:
        until(askers, 101)
        for broken in ("shutil.copytree", "trtcompress_engines.triton.switching.write_config"):
            with monkeypatch.context() as patch:
                patch.setattr(broken, refuse)
                with pytest.raises(StoreError, match="No space left on device"):
                    add_versions(new, repository)
            check_repository(repository)
            assert asked_in(repository, served=True) == {"net_a_v1", "net_b_v1"}
            assert parse_config(repository / "net/config.pbtxt").version_policy.specific.versions == [1]
            time.sleep(3)
        assert (repository / asked_models.LEFT).read_text() == "net_a_v2\nnet_b_v2\n", "put, and may be loading"
        add_versions(new, repository)
        until(askers, 202)
    for one in askers:
        assert one.failed == []
        assert one.sequence == [101, 202]


def names(repository: Path) -> set[str]:
    return {path.name for path in repository.iterdir() if path.is_dir()}


def test_models_of_a_version_go_with_it(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(switching, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(asked_models, "LOADED_SECONDS", -1)
    repository = chain(tmp_path / "1", 1)
    for value in (2, 3):
        made = chain(tmp_path / str(value), value)
        assert add_versions(made, repository, 1) == [Switched("net", value, value - 1, (value - 1, value))]
        assert [s.former for s in add_versions(made, repository)] == [value], "the same again is what is served"
    assert names(repository) == {"net", "net_a_v2", "net_b_v2", "net_a_v3", "net_b_v3"}
    assert model_names(repository) == ["net", "net_a_v3", "net_b_v3"], "what serve-check and tune take"
    roll_back(repository, "net")
    assert model_names(repository) == ["net", "net_a_v2", "net_b_v2"]
    killed = chain(tmp_path / "killed", 9)
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            add_versions(killed, repository)
    monkeypatch.setattr(asked_models, "LOADED_SECONDS", 60)
    add_versions(chain(tmp_path / "4", 4), repository)
    young = {"net_a_v3", "net_b_v3", "net_a_v4", "net_b_v4"}
    assert names(repository) == {"net", "net_a_v2", "net_b_v2", "net_a_v5", "net_b_v5", *young}, "may be loading"
    monkeypatch.setattr(asked_models, "LOADED_SECONDS", -1)
    add_versions(chain(tmp_path / "5", 5), repository)
    assert names(repository) == {"net", "net_a_v5", "net_b_v5", "net_a_v6", "net_b_v6"}
    check_repository(repository)


def interrupt(*given: object) -> None:
    raise KeyboardInterrupt


def test_models_of_others_stay_whatever_they_are_called(tmp_path: Path, monkeypatch):
    """One named like a model of a version, and one that Triton completes, which has no configuration."""
    monkeypatch.setattr(switching, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(asked_models, "LOADED_SECONDS", -1)
    repository = chain(tmp_path / "1", 1)
    shutil.copytree(repository / "net_a", repository / "net_a_v7")
    config = repository / "net_a_v7/config.pbtxt"
    config.write_text(config.read_text().replace('"net_a"', '"net_a_v7"', 1))
    (repository / "net_b_v8/1").mkdir(parents=True)
    (repository / "net_b_v8/1/model.onnx").write_text("somebody else's")
    for value in (2, 3, 4):
        assert [s.version for s in add_versions(chain(tmp_path / str(value), value), repository)] == [7 + value]
    own = {"net", "net_a_v10", "net_b_v10", "net_a_v11", "net_b_v11"}
    assert names(repository) == {*own, "net_a_v7", "net_b_v8"}
    assert (repository / "net_b_v8/1/model.onnx").read_text() == "somebody else's"


def test_without_room_for_the_note_nothing_is_put(tmp_path: Path, monkeypatch):
    repository, made = chain(tmp_path / "1", 1), chain(tmp_path / "2", 2)

    def refuse(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreError, match="No space left on device"):
        add_versions(made, repository)
    assert names(repository) == {"net", "net_a", "net_b"}


@pytest.mark.parametrize("last", ["ensemble", "plain"])
def test_steps_of_the_first_package_go_once_they_are_old_enough(last: str, tmp_path: Path, monkeypatch):
    """They have no version in their names; nor has a plain model steps by whose names they could be found."""
    monkeypatch.setattr(switching, "SETTLE_SECONDS", 0)
    repository = chain(tmp_path / "1", 1)
    shutil.copytree(repository / "net_a", repository / "net_c")  # somebody else's
    for value in (2, 3):
        add_versions(chain(tmp_path / str(value), value), repository)
    assert {"net_a", "net_b"} < names(repository), "may be loading"
    if last == "plain":
        add_versions(plain(tmp_path / "4", 4), repository)
        assert {"net_a", "net_b", "net_a_v2", "net_a_v3"} < names(repository)
        monkeypatch.setattr(asked_models, "LOADED_SECONDS", -1)
        add_versions(plain(tmp_path / "5", 5), repository)
        add_versions(plain(tmp_path / "6", 6), repository)
        assert names(repository) == {"net", "net_c"}
    else:
        monkeypatch.setattr(asked_models, "LOADED_SECONDS", -1)
        add_versions(chain(tmp_path / "4", 4), repository)
        assert names(repository) == {"net", "net_a_v3", "net_b_v3", "net_a_v4", "net_b_v4", "net_c"}
    assert not (repository / asked_models.LEFT).exists()


def test_what_was_put_for_a_switch_that_failed_goes_later(tmp_path: Path, monkeypatch):
    """Also where no ensemble of that name follows."""
    monkeypatch.setattr(switching, "SETTLE_SECONDS", 0)
    repository = tmp_path / "served"
    add_versions(plain(tmp_path / "1", 1), repository)
    made = chain(tmp_path / "2", 2)
    with monkeypatch.context() as patch:
        patch.setattr(switching, "write_config", interrupt)
        with pytest.raises(KeyboardInterrupt):
            add_versions(made, repository)
    assert names(repository) == {"net", "net_a_v2", "net_b_v2"}
    monkeypatch.setattr(asked_models, "LOADED_SECONDS", -1)
    add_versions(plain(tmp_path / "3", 3), repository)
    assert names(repository) == {"net"}


def plain(folder: Path, value: float) -> Path:
    """A repository of `net` alone, no ensemble."""
    folder.mkdir(parents=True)
    where = {"name": "net", "format": "triton-python", "options": TritonOptions()}
    engine = engine_of(plus(folder / "net.onnx", value, "x", "z"))
    write_repository(engine, CPU, folder / "r", axes={"x": {"batch": AxisRange(1, 2, 4)}}, **where)
    return folder / "r"


def test_a_model_of_a_dropped_version_that_is_gone_already(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(switching, "SETTLE_SECONDS", 0)
    repository = tmp_path / "served"
    for value in (1, 2):
        add_versions(chain(tmp_path / str(value), value), repository)
    shutil.rmtree(repository / "net_b_v1")
    assert [s.version for s in add_versions(chain(tmp_path / "3", 3), repository)] == [3]
    check_repository(repository)


def test_an_engine_that_became_an_ensemble_is_not_asked_by_the_old_version(tmp_path: Path, monkeypatch):
    """Before, towers were engines of the name that is their ensemble's now."""
    monkeypatch.setattr(switching, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(asked_models, "LOADED_SECONDS", -1)
    repository, new = chain(tmp_path / "1", 1), chain(tmp_path / "2", 2)
    (new / "net_a").rename(new / "net_a_model")
    config = new / "net_a_model/config.pbtxt"
    config.write_text(config.read_text().replace('"net_a"', '"net_a_model"', 1))
    graph = plus(tmp_path / "a.onnx", 2, "x", "y")
    write_chain(new, "net_a", [Link("net_a_model", graph.inputs, graph.outputs)], Batching(4))
    text = (new / "net/config.pbtxt").read_text()
    (new / "net/config.pbtxt").write_text(text.replace('"net_a"', '"net_a_model"'))
    assert [s.name for s in add_versions(new, repository)] == ["net", "net_a"]
    with pytest.raises(UsageError, match="version 1 asks 'net_a', which was an engine then and is an ensemble") as told:
        roll_back(repository, "net")
    assert told.value.hint.startswith(f"trtcompress rollback {repository} --model net_a,")
    assert served_version(repository / "net", parse_config(repository / "net/config.pbtxt")) == 2
    roll_back(repository, "net_a")
    roll_back(repository, "net")
    check_repository(repository)
    assert asked_in(repository, served=True) == {"net_a", "net_b"}


def test_settings_of_a_model_that_is_asked_stay_its_own(tmp_path: Path, monkeypatch):
    """What `tune` wrote for the version before is served again after going back."""
    monkeypatch.setattr(switching, "SETTLE_SECONDS", 0)
    repository = tmp_path / "served"
    add_versions(chain(tmp_path / "1", 1), repository)
    config = repository / "net_a_v1/config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 2"))
    assert "count: 2" in config.read_text()
    add_versions(chain(tmp_path / "2", 2), repository)
    roll_back(repository, "net")
    (asked_first, _) = parse_config(repository / "net/config.pbtxt").ensemble_scheduling.step
    assert asked_first.model_name == "net_a_v1"
    assert "count: 2" in config.read_text()


def test_a_version_whose_models_are_gone_is_not_gone_back_to(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(switching, "SETTLE_SECONDS", 0)
    repository = tmp_path / "served"
    for value in (1, 2):
        add_versions(chain(tmp_path / str(value), value), repository)
    (repository / "net_b_v1").rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="version 1 asks the model 'net_b_v1', which is not there any more"):
        roll_back(repository, "net")
    assert served_version(repository / "net", parse_config(repository / "net/config.pbtxt")) == 2


@pytest.mark.parametrize("fault", ["model", "tensor", "file"])
def test_a_version_whose_models_do_not_load_is_not_switched_to(fault: str, tmp_path: Path):
    """Triton would end the ensemble, and with it the answers of the version before."""
    repository, new = tmp_path / "served", chain(tmp_path / "2", 2)
    add_versions(chain(tmp_path / "1", 1), repository)
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    model, config = new / "net_b/1/model.onnx", new / "net_b/config.pbtxt"
    if fault == "model":  # ONNX has a Max of int16, ONNX Runtime has not
        graph = onnx.load(model)
        whole = [helper.make_node("Cast", [name], [f"{name}16"], to=TensorProto.INT16) for name in ("y", "value")]
        del graph.graph.node[:]
        graph.graph.node.extend([*whole, helper.make_node("Max", ["y16", "value16"], ["z16"])])
        graph.graph.node.append(helper.make_node("Cast", ["z16"], ["z"], to=TensorProto.FLOAT))
        onnx.save(graph, model)
        checksum(model).write_text(f"{files_digest([model])}  {model.name}\n")
        told = "net_b/1/model.onnx: ONNX Runtime refuses the model"
    elif fault == "tensor":
        config.write_text(config.read_text().replace('"y"', '"why"'))
        told = r"inputs of 'net_b' is \['y'\] here and \['why'\] in the model"
    else:
        model.unlink()
        told = "the model is missing"
    with pytest.raises(TrtCompressError, match=told):
        add_versions(new, repository)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
