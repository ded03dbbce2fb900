"""The whole fleet in one job, of a small network: every plan that benchmarks/fleet.py builds of the real ones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

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


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.25), (0.25, 0.5), (0.5, 0.5), (0.25, 0.25)])
def test_every_scale_of_a_tensor_is_compared(tmp_path: Path, first: float, second: float) -> None:
    nodes = [helper.make_node("QuantizeLinear", ["x", f"scale_{i}", "zero"], [f"q_{i}"]) for i in (1, 2)]
    held = [numpy_helper.from_array(np.float32(scale), f"scale_{i}") for i, scale in enumerate((first, second), 1)]
    held.append(numpy_helper.from_array(np.int8(0), "zero"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    made = [helper.make_tensor_value_info(f"q_{i}", TensorProto.INT8, [4]) for i in (1, 2)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [x], made, held)), tmp_path / "m.onnx")
    (tmp_path / "cache").write_text("TRT-100300-EntropyCalibration2\nx: 3e800000\n")  # 0.25
    told = fleet.compared_scales(tmp_path / "m.onnx", tmp_path / "cache")
    assert (told["in_graph"], told["in_cache"]) == (1, 1)
    assert told["differ"] == ({} if first == second == 0.25 else {"x": "3f000000 in the graph, 3e800000 in the cache"})
