"""Which engine is shipped."""

from pathlib import Path

import pytest

from trtcompress.checking import choose
from trtcompress.validation import Candidate
from trtcompress_graph.measured import Gate, Latency, Speed, Verdict
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine


def candidate(encoding: str, speedup: float | None, verdict: Verdict = "pass") -> Candidate:
    model = Model(Path("m.onnx"), "0" * 64, (), ())
    engine = Engine(model.path, model.digest, "cpu", "onnxruntime", encoding, model, built=True, reproducible=True)
    times = Latency(1, 1.0, 1.0, 1.0, 1000.0)
    speeds = () if speedup is None else (Speed(times, times, speedup),)
    gates = (Gate("max_metric_drop:top1", 0.01, 0.02, "fail"),) if verdict == "fail" else ()
    return Candidate(engine, 1, speedup is None, (), (), speeds, 0, gates, verdict)


@pytest.mark.parametrize(
    ("gain", "speedup", "chosen"),
    [(1.3, 1.2, 0), (0.9, 1.2, 1), (1.1, 0.95, 1), (1.0, 1.0, 0), (None, None, 0)],
)
def test_int8_is_shipped_only_where_no_timing_says_that_it_is_slower(
    gain: float | None, speedup: float | None, chosen: int
) -> None:
    index, why = choose([candidate("cpu-int8", speedup), candidate("cpu-fp32", speedup and 1.0)], gain)
    assert index == chosen
    assert ("does not pay" in " ".join(why)) == (chosen == 1)


def test_a_float_engine_that_is_slower_still_is_not_shipped() -> None:
    engines = [candidate("trt-int8", 0.9), candidate("trt-fp16", 0.5)]
    assert choose(engines, 1.8) == (0, ())


@pytest.mark.parametrize(
    ("int8", "exact", "chosen"),
    [("pass", "fail", 0), ("not_measured", "fail", 0), ("pass", "not_measured", 0), ("fail", "fail", 1)],
)
def test_a_faster_float_engine_is_shipped_only_where_it_keeps_its_gates_as_well(
    int8: Verdict, exact: Verdict, chosen: int
) -> None:
    index, (why,) = choose([candidate("cpu-int8", 0.8, int8), candidate("cpu-fp32", 1.0, exact)], 0.8)
    assert index == chosen
    assert why.endswith("the float engine is shipped" if chosen else "cpu-int8 is shipped all the same")


def test_a_sole_engine_is_shipped_whatever_its_speed() -> None:
    assert choose([candidate("cpu-int8", 0.5)], None) == (0, ())


@pytest.mark.parametrize(
    ("int8", "exact", "chosen"),
    [("fail", "pass", 1), ("fail", "not_measured", 1), ("fail", "fail", 0), ("not_measured", "pass", 0)],
)
def test_int8_that_fails_gives_way_to_a_float_engine_that_does_not(int8: Verdict, exact: Verdict, chosen: int) -> None:
    index, why = choose([candidate("cpu-int8", 2.0, int8), candidate("cpu-fp32", 1.0, exact)], 2.0)
    assert index == chosen
    assert ("fails (max_metric_drop:top1: 0.02 is 0.01 above" in " ".join(why)) == (chosen == 1)


def test_a_sole_engine_that_fails_is_told_as_failed() -> None:
    assert choose([candidate("cpu-int8", 2.0, "fail")], None) == (0, ())


def test_an_engine_with_nothing_in_int8_is_not_shipped_as_int8() -> None:
    engines = [candidate("cpu-int8", 1.1), candidate("cpu-fp32", 1.0)]
    index, (why,) = choose(engines, 1.1, {"cpu-int8"})
    assert index == 1
    assert "nothing in INT8" in why
    assert choose(engines[:1], None, {"cpu-int8"}) == (0, ())
