"""Tuning: the search on made-up servers whose best setting is known, the verdict, and a real server."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.http import InferenceServerClient

from triton_models import CPU, cnn, encoder, engine_of
from trtcompress_engines.triton import TritonOptions, parse_config, write_repository
from trtcompress_engines.triton.bench import bench_for
from trtcompress_engines.triton.client import Client
from trtcompress_engines.triton.installed import find_server
from trtcompress_engines.triton.load import Point, Window, measure, one_window, pooled, request_bytes
from trtcompress_engines.triton.modelconfig import to_text
from trtcompress_engines.triton.search import MOST_CLIENTS, Tried, curve, search
from trtcompress_engines.triton.served_model import read_served
from trtcompress_engines.triton.server import running
from trtcompress_engines.triton.setting import Setting, Space, setting_of, with_setting
from trtcompress_engines.triton.tune import Compared, _challenger, fewer_clients, tune, verdict
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import ServingError

FORMER = Setting(1, 1, (4, 8), 500)


def point(clients: int, throughput: float, p99: float) -> Point:
    return Point(clients, throughput, p99 / 2, p99 * 0.9, p99, 1000, True)


def served_by(setting: Setting):
    """A server whose throughput follows from the setting: best is 2 instances of 2 threads, batches of 4, 100 us."""
    copies = {(2, 2): 3.0, (4, 1): 2.5, (1, 4): 1.5}.get((setting.instances, setting.threads), 1.0)
    batches = {(4,): 4.0, (): 3.0, (4, 8): 2.0, None: 1.0}.get(setting.batches, 1.5)
    delay = {100: 1.2, 0: 1.1}.get(setting.delay_us, 1.0)
    most = 100 * copies * batches * delay

    def at(clients: int) -> Point:
        throughput = min(clients * 100.0, most)
        return point(clients, throughput, clients / throughput * 1e3)

    return at


def found(limit_ms: float, in_time=lambda: True, space: Space | None = None) -> list[Tried]:
    def attempt(setting: Setting) -> Tried:
        return Tried(setting, curve(served_by(setting), limit_ms, lambda: True))

    space = space or Space(8, 4, limit_ms * 1e3)
    return list(search(attempt(FORMER), space, limit_ms, attempt, in_time))


def test_the_search_finds_what_is_best():
    tried = found(20.0)
    assert tried[0].setting == FORMER
    best = max(tried, key=lambda one: one.score(20.0))
    assert best.setting == Setting(2, 2, (4,), 100)
    assert len({one.setting for one in tried}) == len(tried), "nothing twice"
    assert all(one.setting.instances * one.setting.threads <= 4 for one in tried)


def test_no_delay_reaches_the_limit():
    assert [one.delay_us for one in Space(8, 4, 450.0).delays(FORMER)] == [0, 100]


def test_time_ends_the_search():
    left = iter([True, True, False])
    assert len(found(20.0, lambda: next(left))) == 3


def test_a_model_without_batches_or_threads():
    alone = Setting(1, None, None, 0)
    assert Space(0, 4, 1e6).batches(alone) == Space(1, 4, 1e6).batches(alone) == []
    assert Space(0, 4, 1e6).delays(alone) == []
    assert [one.instances for one in Space(0, 96, 1e6).copies(alone)] == [1, 2, 4, 8]
    six = Space(0, 6, 1e6).copies(Setting(1, 1, None, 0))
    assert {(one.instances, one.threads) for one in six} >= {(1, 6), (6, 1), (2, 2), (4, 1)}
    assert [one.batches for one in Space(6, 1, 1e6).batches(alone)] == [None, (), (2,), (4,), (6,)]


def test_a_curve_ends_where_more_clients_bring_nothing():
    assert [p.concurrency for p in curve(lambda n: point(n, min(n, 4) * 100, 1), 5, lambda: True)] == [1, 2, 4, 8, 16]
    assert [p.concurrency for p in curve(lambda n: point(n, n * 100, n), 5, lambda: True)] == [1, 2, 4, 8, 16]
    assert [p.concurrency for p in curve(lambda n: point(n, n * 100, 1), 5, lambda: True)][-1] == MOST_CLIENTS
    slow_alone = curve(lambda n: point(n, n * 100, 9 if n == 1 else 3), 5, lambda: True)
    assert len(slow_alone) == 7, "a batch waits longest where few ask"
    assert len(curve(lambda n: point(n, n * 100, 1), 5, lambda: False)) == 1


def test_within_the_limit_comes_before_fast():
    fast = Tried(FORMER, (point(1, 10, 30), point(8, 900, 40)))
    near, kept, none = (
        Tried(FORMER, (point(1, 5, 22),)),
        Tried(FORMER, (point(1, 5, 19), point(2, 8, 21))),
        Tried(FORMER, (), "no memory"),
    )
    order = sorted((fast, near, kept, none), key=lambda one: one.score(20))
    assert order == [none, fast, near, kept]
    assert kept.best(20) == point(1, 5, 19)
    assert fast.best(20) is None


@pytest.mark.parametrize(
    ("ratios", "winner_p99", "missed", "good", "told"),
    [
        ([1.5] * 8, 9, False, True, "1.5 times the throughput"),
        ([1.5] * 7 + [0.9], 9, False, True, "faster in 7 of 8 turns"),
        ([1.5] * 6 + [0.9, 0.8], 9, False, False, "that may be noise"),
        ([1.01] * 8, 9, False, False, "that may be noise"),
        ([0.5] * 8, 9, False, False, "what was there stays"),
        ([1.5] * 8, 11, False, False, "beyond the limit"),
        ([1.01] * 8, 9, True, True, "which what was there never kept"),
        ([0.9] * 8, 9, True, False, "what was there stays"),
    ],
)
def test_nothing_slower_is_ever_shipped(ratios, winner_p99, missed, good, told):
    compared = Compared(point(4, 100, 8), point(4, 150, winner_p99), tuple(ratios))
    why, replaced = verdict(compared, 10, missed)
    assert replaced is good
    assert told in why


@pytest.mark.parametrize(
    ("former_p99", "winner_p99", "missed", "good"),
    [(14, 12, False, True), (14, 15, False, False), (14, 12, True, False), (8, 12, False, False)],
)
def test_a_machine_that_has_less_to_give_in_turns_is_not_held_against_the_winner(
    former_p99: float, winner_p99: float, missed: bool, good: bool
):
    """The limit is 10 ms; what was there kept it before, but for where it `missed` it."""
    compared = Compared(point(4, 100, former_p99), point(4, 150, winner_p99), (1.5,) * 8)
    why, replaced = verdict(compared, 10, missed)
    assert replaced is good
    assert ("both beyond the limit" in why) is good, "what is written so says it"


def test_what_a_winner_costs_where_few_ask_is_told():
    start = Tried(FORMER, (point(1, 100, 9), point(2, 110, 18), point(4, 120, 30)))
    best = Tried(replace(FORMER, instances=2), (point(1, 60, 16), point(2, 109, 18), point(4, 150, 28)))
    assert fewer_clients(start, best) == "; slower than what was there for so few clients: 0.6 times with 1"
    assert fewer_clients(start, start) == ""


def test_windows_as_one_have_the_percentiles_of_all_requests():
    """Half of the windows break a limit of 30 ms, so does their p99; a single long request of a hundred does not."""
    fast, slow = (Window(4, 2.0, np.full(100, latency, np.float32)) for latency in (0.01, 0.04))
    found = pooled([fast, slow] * 4)
    assert (found.concurrency, found.requests, found.throughput) == (4, 800, 50)
    assert found.p99 == pytest.approx(40)
    assert pooled([fast] * 7 + [slow]).p50 == pytest.approx(10)
    outlier = np.where(np.arange(1000) == 7, 9, 0.01).astype(np.float32)
    assert pooled([Window(4, 1.0, outlier), Window(4, 3.0, outlier[10:])]).p99 == pytest.approx(10)


def test_nothing_better():
    assert verdict(None, 10, False) == ("nothing that was tried comes near to what was there", False)
    assert verdict(None, 10, True) == ("nothing that was tried keeps the limit", False)


def test_who_is_compared_with_what_was_there():
    former, near, far, slow = (
        Tried(FORMER, (point(4, 100, 9),)),
        Tried(replace(FORMER, delay_us=0), (point(4, 90, 9), point(8, 200, 30))),
        Tried(replace(FORMER, delay_us=100), (point(4, 80, 9),)),
        Tried(replace(FORMER, delay_us=2000), (point(4, 500, 11),)),
    )
    assert _challenger([former, far, near, slow], 10) is near, "the machine may have been busier"
    assert _challenger([former, far, slow], 10) is former
    assert _challenger([former], 10) is former
    assert _challenger([slow, far], 10) is far, "what keeps the limit, where what was there does not"
    assert _challenger([slow, replace(slow, setting=FORMER)], 10) is slow


# --- config.pbtxt


def write(folder: Path, make, axes, **options) -> Path:
    engine = engine_of(make(folder / "model.onnx"))
    write_repository(
        engine, CPU, folder / "r", name="m", format="triton-python", axes=axes, options=TritonOptions(**options)
    )
    return folder / "r"


IMAGES = {"image": {"batch": AxisRange(1, 4, 8)}}


def test_a_setting_is_written_and_all_else_stays(tmp_path: Path):
    config = parse_config(write(tmp_path, cnn, IMAGES) / "m/config.pbtxt")
    assert setting_of(config) == FORMER
    for setting in (Setting(2, 4, (2,), 0), Setting(1, 1, (), 100), Setting(3, 2, None, 0)):
        made = with_setting(config, setting)
        assert setting_of(made) == setting
        assert with_setting(made, FORMER) == config
    assert made.max_batch_size == 8, "clients count on it"
    assert str(setting) == "3 instances, 2 threads, no dynamic batching"


@pytest.mark.parametrize(
    ("named", "batches"),
    [({"platform": "tensorrt_plan"}, ()), ({"backend": "onnxruntime"}, ()), ({}, ()), ({"backend": "python"}, None)],
)
def test_off_is_written_where_triton_would_turn_it_on(named: dict[str, str], batches: tuple[int, ...] | None):
    config = ModelConfig(max_batch_size=8, **named)
    assert setting_of(config).batches == batches, "what Triton makes of it"
    off = with_setting(config, Setting(1, None, None, 0))
    assert (off.HasField("dynamic_batching"), setting_of(off).batches) == (batches is not None, None)
    alone = ModelConfig(max_batch_size=1, **named)
    assert with_setting(alone, setting_of(alone)).HasField("dynamic_batching") is False


# --- a real server


@pytest.mark.parametrize(("setting", "joined"), [(Setting(1, 1, (8,), 100_000), True), (Setting(1, 1, None, 0), False)])
def test_where_it_is_off_no_requests_are_joined(tmp_path: Path, setting: Setting, joined: bool):
    repository = write(tmp_path, cnn, IMAGES, warmup="off")
    path = repository / "m/config.pbtxt"
    config = with_setting(parse_config(path), setting)
    if not joined:  # as it is written for backends that Triton completes
        config.dynamic_batching.preferred_batch_size[:] = [1]
    path.write_text(to_text(config))
    feeds = [{"image": np.zeros((size, 1, 28, 28), np.float32)} for size in (1, 1, 3, 1) * 16]
    with running(repository, find_server()) as server, Client(server.grpc) as client:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda feed: client.infer("m", feed), feeds))
        assert [len(answer["logits"]) for answer in answers] == [len(feed["image"]) for feed in feeds]
        with InferenceServerClient(server.http) as asked:
            told = asked.get_inference_statistics("m")["model_stats"][0]
    assert told["inference_count"] == sum(len(feed["image"]) for feed in feeds)
    assert (told["execution_count"] < len(feeds)) == joined


def test_labels_and_data_of_a_warm_up_are_there_on_trial(tmp_path: Path):
    repository = write(tmp_path, cnn, IMAGES, warmup="off")
    folder = repository / "m"
    (folder / "names.txt").write_text("\n".join("abcdefghij"))
    (folder / "labels.txt").symlink_to("names.txt")
    (folder / "warmup").mkdir()
    (folder / "warmup/image.raw").write_bytes(np.zeros((1, 1, 28, 28), np.float32).tobytes())
    config = parse_config(folder / "config.pbtxt")
    config.output[0].label_filename = "labels.txt"
    sample = config.model_warmup.add(name="one", batch_size=1).inputs["image"]
    sample.data_type = config.input[0].data_type
    sample.dims[:] = config.input[0].dims
    sample.input_data_file = "image.raw"
    (folder / "config.pbtxt").write_text(to_text(config))
    served = read_served(repository, "m", {})
    with bench_for(served, find_server(), 1, 0.05) as bench, bench.loaded("tried", setting_of(config)) as why:
        assert why == ""
    assert (folder / "warmup/image.raw").is_file(), "the trial ends without it"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    sequence = {"ids": {"batch": AxisRange(1, 4, 8), "sequence": AxisRange(1, 12, 40)}}
    with running(write(tmp_path_factory.mktemp("load"), encoder, sequence), find_server()) as server:
        yield server.grpc


def encoded(first: int) -> bytes:
    return request_bytes("m", {"ids": np.full((1, 12), first, np.int64), "mask": np.ones((1, 12), np.float32)})


def test_load_is_measured(address):
    alone, together = (measure(address, [encoded(1), encoded(2)], clients, 0.1) for clients in (1, 4))
    assert (alone.concurrency, together.concurrency) == (1, 4)
    for got in (alone, together):
        assert got.requests >= 100
        assert 0 < got.p50 <= got.p90 <= got.p99
        # As many clients as there are wait all the time (Little's law), and a mean is at least half of the median
        assert 0.4 * got.p50 < got.concurrency / got.throughput * 1e3 < 3 * got.p99
    assert len(one_window(address, [encoded(1)], 2, 0.05).latencies) >= 34


def test_a_request_that_fails_under_load_is_told(address):
    start = time.monotonic()
    with pytest.raises(ServingError, match=r"a request failed under load: .*out of data bounds"):
        measure(address, [encoded(1), encoded(999)], 4, 60)
    assert time.monotonic() - start < 20


@pytest.fixture(scope="module")
def waiting(tmp_path_factory) -> Path:
    """A model whose requests wait 100 ms for a batch that never gets full."""
    axes = {"image": {"batch": AxisRange(1, 4, 128)}}
    options = {"preferred_batch_sizes": (128,), "max_queue_delay_us": 100_000}
    return write(tmp_path_factory.mktemp("waiting"), cnn, axes, **options)


def test_a_bad_setting_is_replaced(waiting: Path):
    before = (waiting / "m/config.pbtxt").read_bytes()
    lines: list[str] = []
    tuned = tune(
        read_served(waiting, "m", {}),
        find_server(),
        **{"latency_ms": 80.0, "seconds": 0.1, "minutes": 0.1, "cores": 1},
        tell=lines.append,
    )
    assert tuned.tried[0].best(80.0) is None
    assert tuned.tried[0].setting == Setting(1, 1, (128,), 100_000)
    assert tuned.config, tuned.why
    assert tuned.compared.winner.p99 <= 80.0 < tuned.compared.former.p99
    config = parse_config(waiting / "m/config.pbtxt")
    assert tuned.winner != setting_of(config)
    assert tuned.winner.batches != (128,) or tuned.winner.delay_us < 80_000
    assert (waiting / "m/config.pbtxt").read_bytes() == before, "the caller writes it"
    assert [path.name for path in waiting.iterdir()] == ["m"]
    assert lines[0] == "limit of p99: 80 ms (asked for)"
    assert len(lines) >= len(tuned.tried) + 2


def test_a_model_that_cannot_load_is_told(waiting: Path):
    served = read_served(waiting, "m", {})
    broken = replace(served, config=with_setting(served.config, Setting(1, 1, None, 0)))
    broken.config.parameters["runner"].string_value = "nothing"
    with pytest.raises(ServingError, match=r"the server cannot load the model: .*nothing"):
        tune(broken, find_server(), seconds=0.05, minutes=0.01)
