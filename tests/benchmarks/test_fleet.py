"""The whole fleet in one job, of a small network: every plan that benchmarks/fleet.py builds of the real ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import fleet  # noqa: E402
from fleet_models import FleetModel  # noqa: E402
from small_cnn import write_cnn  # noqa: E402
from trtcompress_engines.backends.trt_load import missing_rtx  # noqa: E402


@pytest.mark.skipif(bool(missing_rtx()), reason="TensorRT for RTX is not installed")
def test_plans_for_every_card_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "WORK", tmp_path)
    images = np.random.default_rng(0).normal(size=(16, 3, 16, 16)).astype(np.float32)
    model = FleetModel(
        "a small CNN",
        lambda: write_cnn(tmp_path / "m.onnx"),
        {"x": {"batch": [1, 2, 4]}},
        lambda: iter([{"x": images}]),
    )
    row = fleet.measured("small", model, anew=True)
    assert row["faults"] == []
    plans = [engine for encodings in row["targets"].values() for engine in encodings.values()]
    assert len(plans) == 1 + 2 * len(fleet.CARDS) + 2
    assert all(engine["built"] and engine["bytes"] > 0 for engine in plans)
    assert all(row["targets"][card][fleet.INT8]["int8"] > 0 for card in (*fleet.CARDS, fleet.SHARED))
    assert row["scales"]["in_cache"] >= row["scales"]["in_graph"] > 0
