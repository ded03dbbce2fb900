"""Which engine is shipped."""

from pathlib import Path

import pytest

from trtcompress.checking import choose
from trtcompress.validation import Candidate
from trtcompress_graph.measured import Latency, Speed
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine


def candidate(encoding: str, speedup: float | None) -> Candidate:
    model = Model(Path("m.onnx"), "0" * 64, (), ())
    engine = Engine(model.path, model.digest, "cpu", "onnxruntime", encoding, model, built=True, reproducible=True)
    times = Latency(1, 1.0, 1.0, 1.0, 1000.0)
    speeds = () if speedup is None else (Speed(times, times, speedup),)
    return Candidate(engine, 1, speedup is None, (), (), speeds, 0, (), "pass")


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


def test_a_sole_engine_is_shipped_whatever_its_speed() -> None:
    assert choose([candidate("cpu-int8", 0.5)], None) == (0, ())
