from __future__ import annotations

from dataclasses import replace

import pytest

from trtcompress_engines.gates import GateLimits, explain, judge, verdict
from trtcompress_graph.measured import Gate, Latency, MetricResult, OutputParity, Speed

PARITY = (OutputParity("logits", 0.1, 0.2, 0.995, 30.0), OutputParity("boxes", 0.1, 0.2, 0.98, 20.0))
METRICS = (MetricResult("top1", 0.90, 0.88, (0.85, 0.91), 0.02, (0.01, 0.03), 1000),)


def speeds(p50: float, speedup: float) -> tuple[Speed, ...]:
    def of(batch: int, ms: float) -> Speed:
        return Speed(Latency(batch, ms, ms, ms, 1.0), Latency(batch, ms * speedup, ms, ms, 1.0), speedup)

    return (of(1, p50), of(8, 8 * p50))


def gates(limits: GateLimits, *, emulated: bool = False, measured: bool = True, **given: object) -> dict[str, Gate]:
    found = judge(
        limits,
        parity=given.get("parity", PARITY),
        metrics=given.get("metrics", METRICS),
        speeds=given.get("speeds", speeds(5.0, 3.0)),
        size_bytes=given.get("size_bytes", 30_000_000),
        emulated=emulated,
        measured=measured,
        to_pruned=given.get("to_pruned"),
    )
    assert len({gate.gate for gate in found}) == len(found)
    return {gate.gate: gate for gate in found}


@pytest.mark.parametrize("limits", [GateLimits(), GateLimits(max_size_mb=50)])
def test_without_limits_on_accuracy_there_are_default_ones(limits: GateLimits):
    found = gates(limits)
    assert found["min_cosine:logits"] == Gate("min_cosine:logits", 0.99, 0.995, "pass")
    assert found["min_cosine:boxes"].verdict == "fail"
    assert found["min_snr_db:logits"] == Gate("min_snr_db:logits", 10.0, 30.0, "pass")
    assert found["max_metric_drop:top1"] == Gate("max_metric_drop:top1", 0.01, 0.02, "fail")


def test_without_labels_the_default_drop_is_left_out_but_an_asked_one_is_not_measured():
    assert "max_metric_drop" not in gates(GateLimits(), metrics=())
    assert gates(GateLimits(max_metric_drop=0.01), metrics=())["max_metric_drop"].verdict == "not_measured"


def test_what_was_pruned_is_held_to_the_metric_and_its_engine_to_the_pruned_model():
    close = (OutputParity("logits", 0.01, 0.01, 0.999, 40.0),)
    found = gates(GateLimits(), to_pruned=close)
    assert set(found) == {"max_metric_drop:top1", "min_cosine:logits[to pruned]", "min_snr_db:logits[to pruned]"}
    assert found["max_metric_drop:top1"].verdict == "fail"
    assert found["min_cosine:logits[to pruned]"] == Gate("min_cosine:logits[to pruned]", 0.99, 0.999, "pass")
    far = gates(GateLimits(), to_pruned=PARITY, emulated=True)
    assert far["min_cosine:boxes[to pruned][emulated]"].verdict == "fail"
    assert far["min_cosine:boxes[to pruned]"].verdict == "not_measured"


def test_what_a_cut_costs_is_not_measured_without_a_metric():
    found = gates(GateLimits(), metrics=(), to_pruned=PARITY[:1])
    assert {name: gate.verdict for name, gate in found.items()} == {
        "max_metric_drop": "not_measured",
        "min_cosine:logits[to pruned]": "pass",
        "min_snr_db:logits[to pruned]": "pass",
    }
    assert verdict(found.values()) == "not_measured"


@pytest.mark.parametrize(
    "limits", [GateLimits(min_cosine=0.9), GateLimits(max_metric_drop=0.05), GateLimits(min_snr_db=25)]
)
def test_limits_that_are_given_stay_those_to_the_model_as_it_came(limits: GateLimits):
    assert gates(limits, to_pruned=PARITY) == gates(limits)


def test_a_limit_on_one_kind_of_accuracy_replaces_the_defaults():
    assert set(gates(GateLimits(max_metric_drop=0.05))) == {"max_metric_drop:top1"}
    assert set(gates(GateLimits(min_cosine=0.9))) == {"min_cosine:logits", "min_cosine:boxes"}
    assert set(gates(GateLimits(min_snr_db=20))) == {"min_snr_db:logits", "min_snr_db:boxes"}


@pytest.mark.parametrize(
    ("limits", "gate", "verdict_"),
    [
        (GateLimits(min_speedup=3.0), "min_speedup:batch8", "pass"),
        (GateLimits(min_speedup=3.1), "min_speedup:batch1", "fail"),
        (GateLimits(max_latency_ms=5.0), "max_latency_ms:batch1", "pass"),
        (GateLimits(max_latency_ms=4.9), "max_latency_ms:batch1", "fail"),
        (GateLimits(max_size_mb=30.0), "max_size_mb", "pass"),
        (GateLimits(max_size_mb=29.9), "max_size_mb", "fail"),
        (GateLimits(max_metric_drop=0.02), "max_metric_drop:top1", "pass"),
        (GateLimits(max_metric_drop=0.019), "max_metric_drop:top1", "fail"),
        (GateLimits(min_cosine=0.98), "min_cosine:boxes", "pass"),
        (GateLimits(min_cosine=0.981), "min_cosine:boxes", "fail"),
        (GateLimits(min_snr_db=20.0), "min_snr_db:boxes", "pass"),
        (GateLimits(min_snr_db=20.1), "min_snr_db:boxes", "fail"),
    ],
)
def test_a_limit_itself_passes_and_what_lies_beyond_fails(limits: GateLimits, gate: str, verdict_: str):
    assert gates(limits)[gate].verdict == verdict_


def test_a_plan_that_cannot_run_here_is_not_measured_and_its_graph_is_gated_as_emulated():
    limits = GateLimits(min_cosine=0.99, max_metric_drop=0.05, min_speedup=2, max_latency_ms=9, max_size_mb=40)
    found = gates(limits, emulated=True, measured=False)
    for name in ("min_cosine:logits", "max_metric_drop:top1", "min_speedup", "max_latency_ms"):
        assert found[name].value is None
        assert found[name].verdict == "not_measured"
    assert found["min_cosine:logits[emulated]"].verdict == "pass"
    assert found["min_cosine:boxes[emulated]"].verdict == "fail"
    assert found["max_metric_drop:top1[emulated]"].value == 0.02
    assert found["max_size_mb"].verdict == "pass"
    assert verdict(found.values()) == "fail"


def test_what_was_not_compared_is_not_measured():
    found = gates(GateLimits(), parity=(), metrics=(), speeds=(), size_bytes=None)
    assert set(found) == {"min_cosine", "min_snr_db"}
    assert verdict(found.values()) == "not_measured"


def test_verdict_takes_the_worst():
    passed, failed, unknown = (Gate("g", 1, 1, v) for v in ("pass", "fail", "not_measured"))
    assert verdict([passed]) == "pass"
    assert verdict([passed, unknown]) == "not_measured"
    assert verdict([passed, unknown, failed]) == "fail"
    assert verdict([]) == "not_measured"


def test_an_explanation_says_by_how_much():
    found = gates(GateLimits(max_metric_drop=0.015, min_cosine=0.99))
    assert explain(found["max_metric_drop:top1"]) == "max_metric_drop:top1: 0.02 is 0.005 above the limit of 0.015"
    assert explain(found["min_cosine:boxes"]) == "min_cosine:boxes: 0.98 is 0.01 below the limit of 0.99"
    assert explain(found["min_cosine:logits"]) == "min_cosine:logits: 0.995, at least 0.99 is asked"
    near = Gate("min_cosine:boxes", 1.0, 0.99999, "fail")
    assert explain(near) == "min_cosine:boxes: 0.99999 is 1e-05 below the limit of 1"
    far = Gate("max_metric_drop:top1", 0.001, 2.8628834, "fail")
    assert explain(far) == "max_metric_drop:top1: 2.863 is 2.862 above the limit of 0.001"
    assert "not measured" in explain(Gate("min_speedup", 2.0, None, "not_measured"))


def test_a_number_that_is_not_finite_never_passes():
    parity = (OutputParity("o", float("nan"), 0.0, float("nan"), 0.0),)
    assert gates(GateLimits(min_cosine=-1.0), parity=parity)["min_cosine:o"].verdict == "fail"


def test_rounding_of_a_difference_does_not_fail_a_gate() -> None:
    metric = MetricResult("top1", 0.99, 0.98, (0.9, 1.0), 0.99 - 0.98, (0.0, 0.02), 200)
    assert metric.drop > 0.01  # 0.99 - 0.98 is a little more in binary
    gates = judge(
        GateLimits(max_metric_drop=0.01), parity=(), metrics=(metric,), speeds=(), size_bytes=1, emulated=False,
        measured=True,
    )  # fmt: skip
    assert [gate.verdict for gate in gates] == ["pass"]


@pytest.mark.parametrize(
    ("scale", "snr_db", "told"),
    [
        (2.0, 0.0, "the outputs are about 2.00 times as large as the reference's"),
        (0.5, 6.02, "the outputs are about 0.50 times as large as the reference's"),
        (-1.0, -6.02, "the outputs are about -1.00 times as large as the reference's"),
        (1.0, 5.0, ""),
        (1.2, 5.0, ""),
        (None, -999.0, ""),
    ],
)
def test_a_wrong_size_is_told_where_it_explains_the_error(scale: float | None, snr_db: float, told: str):
    found = gates(GateLimits(), parity=(OutputParity("o", 1.0, 1.0, 1.0, snr_db, scale),))
    assert found["min_snr_db:o"].note == told
    assert explain(found["min_snr_db:o"]).endswith(told or "below the limit of 10")


def test_what_is_plainly_wrong_is_told_by_both_gates_on_the_outputs():
    found = gates(GateLimits(), parity=(OutputParity("o", 1e308, 1e308, -1.0, -999.0, None, "it holds NaN"),))
    assert explain(found["min_cosine:o"]).endswith("below the limit of 0.99: it holds NaN")
    assert explain(found["min_snr_db:o"]).endswith("below the limit of 10: it holds NaN")


def test_a_drop_from_a_doubtful_reference_keeps_no_limit():
    doubtful = MetricResult("top1", 0.1, 0.1, (0, 0.2), 0.0, (0, 0), 100, "top1 of the reference itself is 0.1")
    gate = gates(GateLimits(max_metric_drop=0.5), metrics=(doubtful,))["max_metric_drop:top1"]
    assert gate.verdict == "fail"
    assert explain(gate) == "max_metric_drop:top1: top1 of the reference itself is 0.1"
    worse = replace(doubtful, drop=0.6)
    gate = gates(GateLimits(max_metric_drop=0.5), metrics=(worse,))["max_metric_drop:top1"]
    assert "0.6 is 0.1 above the limit of 0.5: top1 of the reference" in explain(gate)
    assert gates(GateLimits(min_cosine=0.5), metrics=(doubtful,))["min_cosine:logits"].verdict == "pass"
