"""`trtcompress tune` on small models and a real server: what it writes, what it leaves, what it says."""

import json
import signal
from pathlib import Path

import jsonschema
import numpy as np
import psutil
import pytest
import tritonclient.grpc

from command_line import done, start, trtcompress
from triton_models import BATCH_8, CPU, cnn, engine_of, scaled
from tritonserver import tritonserver
from trtcompress import tuning
from trtcompress_engines.triton import TritonOptions, check_repository, parse_config, write_repository
from trtcompress_engines.triton import tune as engine_tune
from trtcompress_engines.triton.batching import Batching
from trtcompress_engines.triton.ensemble import Tower, write_ensemble
from trtcompress_engines.triton.load import Point
from trtcompress_engines.triton.modelconfig import to_text
from trtcompress_engines.triton.search import Tried
from trtcompress_engines.triton.setting import Setting, setting_of, with_setting
from trtcompress_engines.triton.tune import Compared, Tuned
from trtcompress_graph.errors import UsageError

SCHEMA = json.loads((Path(__file__).parent / "schemas/tune.json").read_text())
IMAGES = {"image": {"batch": BATCH_8}}
FORMER, WINNER = Setting(1, 1, (4, 8), 500), Setting(2, 1, None, 0)
QUICK = ("--seconds", 0.05, "--minutes", 0.01)


def write(folder: Path) -> Path:
    repository = folder / "repository"
    for name, make, axes in (("cnn", cnn, IMAGES), ("scaled", scaled, {})):
        engine = engine_of(make(folder / f"{name}.onnx"))
        write_repository(engine, CPU, repository, name=name, format="triton-python", axes=axes, options=TritonOptions())
    write_ensemble(repository, "all", {"cnn": Tower(engine_of(cnn(folder / "c.onnx")).graph, Batching(8, 4), "batch")})
    return repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return write(tmp_path)


def faked(config, replaced: bool) -> Tuned:
    """What a search may come to, without one."""
    points = tuple(Point(n, 100.0 * n, 1.0, 2.0, 3.0, 50, True) for n in (1, 2))
    written = to_text(with_setting(config, WINNER)) if replaced else ""
    return Tuned(
        model="cnn",
        version="2.51.0",
        limit_ms=6.0,
        limit_why="asked for",
        clients=None,
        tried=(Tried(FORMER, points), Tried(WINNER, points), Tried(WINNER, (), "no")),
        winner=WINNER,
        compared=Compared(points[0], points[1], (1.9, 2.1)),
        config=written,
        why="2 times the throughput of what was there",
        complete=False,
    )


def test_a_search_for_so_many_clients_measures_no_others(repository: Path):
    (model,) = done("tune", repository, "--model", "scaled", *QUICK, "--clients", 3, "--json").json["models"]
    assert model["clients"] == 3
    assert model["limit_why"].startswith("twice the p99 of 3 clients as it was served, ")
    assert {point["clients"] for tried in model["tried"] for point in tried["points"]} == {3}
    assert model["in_turns"] is None or model["in_turns"]["winner"]["clients"] == 3


def test_a_real_search_leaves_a_curve_and_a_repository_that_serves(repository: Path):
    config = repository / "scaled/config.pbtxt"
    before = config.read_text()
    told = done("tune", repository, "--model", "scaled", *QUICK, "--json").json
    jsonschema.Draft202012Validator(SCHEMA).validate(told)
    (model,) = told["models"]
    assert json.loads((repository / "scaled/tuning.json").read_text()) == model
    assert model["limit_why"].startswith("twice the p99 of one request alone, ")
    assert model["former"] == {"instances": 1, "threads": 1, "batches": None, "delay_us": 0}
    assert [p["clients"] for p in model["tried"][0]["points"]][:2] == [1, 2]
    assert all(p["requests"] >= 100 and p["throughput"] > 0 for p in model["tried"][0]["points"])
    kept = repository / "scaled/config.pbtxt.before"
    if model["replaced"]:
        assert kept.read_text() == before
    else:
        assert config.read_text() == before
        assert not kept.exists()
    check_repository(repository)
    with tritonserver(repository) as server:
        assert server.model_ready("scaled"), server.log_text()


def test_the_winner_is_written_and_served(repository: Path, monkeypatch):
    folder = repository / "cnn"
    before = (folder / "config.pbtxt").read_text()
    monkeypatch.setattr(engine_tune, "tune", lambda served, *_, **__: faked(served.config, True))
    ran = done("tune", repository, "--model", "cnn", "--latency-ms", 6, *QUICK)
    assert (folder / "config.pbtxt.before").read_text() == before
    assert setting_of(parse_config(folder / "config.pbtxt")) == WINNER
    assert [word in ran.out for word in ("before", "after", "off", "4/8")] == [True] * 4
    assert "cnn: replaced: 2 times the throughput" in ran.err
    monkeypatch.setattr(engine_tune, "tune", lambda served, *_, **__: faked(served.config, True))
    done("tune", repository, "--model", "cnn", "--latency-ms", 6, *QUICK)
    assert (folder / "config.pbtxt.before").read_text() == before, "as it was packaged"
    assert "time was up after 3 settings" in ran.err
    check_repository(repository)
    with tritonserver(repository) as server, tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        config = client.get_model_config("cnn").config
        assert (config.instance_group[0].count, setting_of(config).batches) == (2, None)
        image = tritonclient.grpc.InferInput("image", [8, 1, 28, 28], "FP32")
        image.set_data_from_numpy(np.zeros((8, 1, 28, 28), np.float32))
        assert client.infer("cnn", [image]).as_numpy("logits").shape == (8, 10), "the greatest batch is as before"


def test_what_stays_is_not_touched(repository: Path, monkeypatch):
    folder = repository / "cnn"
    before = (folder / "config.pbtxt").read_bytes()
    monkeypatch.setattr(engine_tune, "tune", lambda served, *_, **__: faked(served.config, False))
    done("tune", repository, "--model", "cnn", *QUICK)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "config.pbtxt", "tuning.json"]
    assert (folder / "config.pbtxt").read_bytes() == before


def test_a_config_that_changed_meanwhile_is_not_overwritten(repository: Path, monkeypatch):
    path = repository / "cnn/config.pbtxt"

    def meanwhile(served, *_, **__):
        path.write_text(path.read_text() + "# edited\n")
        return faked(served.config, True)

    monkeypatch.setattr(engine_tune, "tune", meanwhile)
    ran = trtcompress("tune", repository, "--model", "cnn", *QUICK)
    assert ran.code == 5
    assert "this was changed while it was tuned" in ran.err
    assert path.read_text().endswith("# edited\n")
    assert not path.with_name("tuning.json").exists()


def test_without_names_all_but_ensembles_are_tuned(repository: Path, monkeypatch):
    monkeypatch.setattr(engine_tune, "tune", lambda served, *_, **__: faked(served.config, False))
    found = tuning.tune(repository, seconds=1, minutes=1)
    assert len(found.models) == 2
    assert found.notes == ("'all' is an ensemble: its models are tuned (cnn)",)


def test_a_model_that_is_asked_in_sequences_stays_as_it_is(repository: Path, monkeypatch):
    path = repository / "cnn/config.pbtxt"
    config = parse_config(path)
    config.sequence_batching.SetInParent()
    path.write_text(to_text(config))
    monkeypatch.setattr(engine_tune, "tune", lambda served, *_, **__: faked(served.config, False))
    found = tuning.tune(repository, seconds=1, minutes=1)
    assert len(found.models) == 1
    told = "'cnn' is asked in sequences (sequence_batching), which are not tuned"
    assert told in found.notes
    with pytest.raises(UsageError, match="is asked in sequences"):
        tuning.tune(repository, models=["cnn"], seconds=1, minutes=1)
    assert parse_config(path) == config


def test_an_interrupt_ends_the_server_and_leaves_the_repository(repository: Path):
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    process = start("tune", repository, "--model", "cnn", "--seconds", 0.2)
    try:
        while "limit of p99" not in (line := process.stderr.readline()):
            assert line, "it ended by itself"
        servers = psutil.Process(process.pid).children(recursive=True)
        assert "tritonserver" in {server.name() for server in servers}
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted: nothing half-written is left" in err
    assert psutil.wait_procs(servers, timeout=10)[1] == []
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("nowhere",), 2, "no such model repository"),
        (("{repository}", "--model", "cn"), 2, "the repository has no model 'cn'"),
        (("{repository}", "--model", "all"), 2, "'all' is an ensemble: its models are tuned (cnn)\nhint: --model cnn"),
        (("{repository}", "--server", "nowhere"), 2, "no such file"),
        (("{repository}", "--server", "/bin/false"), 5, "tritonserver ended with 1"),
        (("{repository}", "--model", "cnn", "--samples", "9"), 2, "'cnn' takes batches of at most 8"),
        (("{repository}", "--latency-ms", "0"), 2, "--latency-ms"),
    ],
)
def test_what_is_wrong_is_said(repository: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, told: str):
    before = sorted(path for path in tmp_path.rglob("*"))
    ran = trtcompress("tune", *(one.format(repository=repository) for one in arguments), cwd=tmp_path)
    assert (ran.code, ran.out) == (code, "")
    assert told in ran.err
    assert sorted(path for path in tmp_path.rglob("*")) == before
