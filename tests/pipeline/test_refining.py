"""A build whose INT8 graph would miss its gate: nodes stay in float, or the float engine is shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builds import build
from command_line import trtcompress
from float_graphs import IMAGE, Net
from trtcompress.asked import encoding_of
from trtcompress.refining import Limits
from trtcompress.validation import Emulation
from trtcompress_graph.measured import MetricResult, OutputParity

INT8 = encoding_of("cpu", "int8").name

CONFIG = """\
name: uneven
model: {source: model.onnx, inputs: {x: {batch: [1, 2, 4]}}}
data: {calibration: samples.npz}
quantize: {method: minmax}
targets: [TARGET]
measure: {seconds: 0.01, batches: [2], threads: 1}
package: []
"""


def uneven(folder: Path, target: str) -> Path:
    """A network with a tensor that INT8 cannot hold: nine channels are a thousand times as wide as the other seven.

    These become zero, but they are not as many of its values as would keep it in float by itself.
    """
    net = Net()
    x = net.node("Relu", [net.conv("x", "stem", 3, 16)], "stem_relu")
    x = net.node("Relu", [net.conv(x, "wide", 16, 16)], "wide_relu")
    x = net.node("Relu", [net.conv(x, "read", 16, 16)], "read_relu")
    x = net.node("Relu", [net.conv(x, "last", 16, 16)], "last_relu")
    x = net.node("Flatten", [net.node("GlobalAveragePool", [x], "mean")], "flat")
    net.product("Gemm", x, "logits", 16, 10)
    net.constants["wide.weight"][:9] *= 1000
    net.constants["wide.bias"][:9] *= 1000
    net.constants["read.weight"][:, :9] /= 100_000
    net.constants["read.weight"][:, 9:] *= 5
    net.save(folder / "model.onnx", IMAGE, {"logits": ("batch", 10)})
    samples = np.random.default_rng(1).normal(size=(24, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "samples.npz", x=samples)
    (folder / "build.yaml").write_text(CONFIG.replace("TARGET", target), encoding="utf-8")
    return folder / "build.yaml"


def precision(build_dir: str, encoding: str = INT8) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(build_dir) / "plans" / encoding / "precision.json").read_text())
    return found


def test_the_nodes_around_a_tensor_that_int8_cannot_hold_stay_in_float(tmp_path: Path) -> None:
    config = uneven(tmp_path, "cpu:int8")
    built, _ = build(config, tmp_path)
    assert built.result.verdict == "pass"
    plan = precision(built.result.build_dir)
    kept = {node["node"]: node["reason"] for node in plan["nodes"] if node["reason"].startswith("kept in float")}
    assert 0 < len(kept) <= 2
    assert kept.keys() <= {"Conv:wide", "Conv:read"}
    assert all("INT8 here costs" in reason for reason in kept.values())
    assert {n["node"] for n in plan["nodes"] if n["precision"] == "int8"} >= {"Conv:stem", "Conv:last", "Gemm:logits"}
    (validation,) = built.validations.values()
    assert any(f"keeps {len(kept)} of" in note for note in validation.notes)
    again, heard = build(config, tmp_path)
    assert heard.worked == []
    assert again.result == built.result


def test_a_limit_of_its_own_and_the_gates_stand_side_by_side(tmp_path: Path) -> None:
    config = uneven(tmp_path, "rtx-4090:int8")
    built, _ = build(config, tmp_path, "quantize.max_drop=10", until="precision")
    assert not [n for n in precision(built.result.build_dir, "trt-int8")["nodes"] if "kept" in n["reason"]]
    built, _ = build(config, tmp_path, "quantize.max_drop=0.001", until="precision")
    assert [n for n in precision(built.result.build_dir, "trt-int8")["nodes"] if "kept in float" in n["reason"]]


def test_where_nothing_can_stay_in_int8_the_float_engine_is_shipped(tmp_path: Path) -> None:
    config = uneven(tmp_path, "cpu")
    ran = trtcompress(
        *("build", config, "--out", tmp_path / "out", "--store", tmp_path / "store"),
        *("--set", "quantize.max_drop=0", "--set", "gates={min_cosine: 0.99}"),
    )
    assert ran.code == 0, ran.err
    assert f"{INT8}: INT8 is not worth it here" in ran.err
    assert f"{INT8} has nothing in INT8" in ran.err
    report = json.loads((tmp_path / "out" / "uneven" / "report.json").read_text())
    assert report["validations"][0]["shipped"] == "cpu-fp32"


def test_an_int8_engine_that_fails_gives_way_to_its_float_sibling(tmp_path: Path) -> None:
    """A limit that lets a broken graph pass, and a gate that does not."""
    config = uneven(tmp_path, "cpu")
    ran = trtcompress(
        *("build", config, "--out", tmp_path / "out", "--store", tmp_path / "store"),
        *("--set", "quantize.max_drop=10", "--set", "gates={min_cosine: 0.9999}"),
    )
    assert ran.code == 0, ran.err
    assert f"{INT8} fails (min_cosine:logits" in ran.err
    report = json.loads((tmp_path / "out" / "uneven" / "report.json").read_text())
    assert report["validations"][0]["shipped"] == "cpu-fp32"


def test_what_fails_in_float_too_is_not_blamed_on_int8(tmp_path: Path) -> None:
    """A drop of less than nothing is asked for, which no graph can give."""
    config = uneven(tmp_path, "cpu:int8")
    with np.load(tmp_path / "samples.npz") as arrays:
        np.savez(tmp_path / "samples.npz", x=arrays["x"], labels=np.arange(24) % 10)
    built, _ = build(config, tmp_path, "metric=top1", "gates={max_metric_drop: -1}", until="precision")
    plan = precision(built.result.build_dir)
    assert "not accurate enough with every node in float either" in plan["note"]
    assert not [node for node in plan["nodes"] if "kept" in node["reason"]]


def found(drop: float | None, snr_db: float, cosine: float = 1.0) -> Emulation:
    metrics = () if drop is None else (MetricResult("top1", 0.9, 0.9 - drop, (0.8, 1.0), drop, (0.0, 0.1), 100),)
    return Emulation("e", (OutputParity("y", 0.1, 0.1, cosine, snr_db),), metrics, ())


@pytest.mark.parametrize(
    ("limits", "measured", "kept"),
    [
        (Limits(max_drop=0.01), found(0.01, 0), True),
        (Limits(max_drop=0.01), found(0.02, 99), False),
        (Limits(max_drop=0.01), found(None, 20), True),
        (Limits(max_drop=0.01), found(None, 19), False),
        (Limits(), found(None, 10, 0.995), True),
        (Limits(), found(None, 9.9, 0.995), False),
        (Limits(), found(None, 20, 0.98), False),
        (Limits(), found(0.02, 20), False),
        (Limits(min_snr_db=15), found(0.5, 15, 0.1), True),
        (Limits(min_snr_db=15), found(0.5, 14.9), False),
        (Limits(min_cosine=0.999), found(0.5, 0, 0.9995), True),
        (Limits(max_metric_drop=0.05), found(0.04, 0, 0.1), True),
    ],
)
def test_what_is_accurate_enough(limits: Limits, measured: Emulation, kept: bool) -> None:
    assert limits.kept(measured) == kept
