"""A build on a machine with the GPU: its engines run and are timed there, and the report says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from builds import build, project
from gpu_double import Gpu, plan_of
from trtcompress import fingerprint
from trtcompress.cli.validate import command as validate
from trtcompress.report import gpu as gpu_table
from trtcompress_engines.backend import CompileOptions
from trtcompress_engines.backends import trt_open
from trtcompress_engines.backends.tensorrt import TensorRTBackend
from trtcompress_engines.gpu import present, times
from trtcompress_engines.gpu.clocks import Reading
from trtcompress_engines.gpu.cuda_graph import Driver
from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import CompileError, EngineLoadError, EngineShapeError
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

SCHEMA = Path(__file__).parent / "schemas" / "validate.json"


class Builder:
    """In place of TensorRT's: a plan is the graph."""

    def __init__(self) -> None:
        self.refused = ""
        self.card = "L4"
        self.made: list[str] = []
        self.tf32: list[str] = []

    def compile(
        self, backend: TensorRTBackend, graph: Model, target: Target, encoding: str, options: CompileOptions, out: Path
    ) -> Engine:
        if encoding == self.refused:
            raise CompileError("TensorRT refuses the graph: no", where=str(graph.path))
        self.made.append(encoding)
        self.tf32 += [encoding] if options.tf32 else []
        profiles = {name: [list(shape) for shape in shapes] for name, shapes in options.profiles.items()}
        path = plan_of(graph.path, out / f"model.{encoding}.plan", profiles, gpu=self.card)
        return Engine(
            path=path,
            digest=files_digest([path]),
            target=target.name,
            backend="tensorrt",
            encoding=encoding,
            graph=graph,
            built=True,
            reproducible=False,
        )


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Builder]:
    gpu, made = Gpu(), Builder()
    for name, module in gpu.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(trt_open, "gpu_count", lambda: 1)
    monkeypatch.setattr(times, "open_driver", lambda: Driver(gpu.libcuda))
    monkeypatch.setattr(times, "read_clocks", lambda bus: Reading(2040, 6251, held=False))
    monkeypatch.setattr(TensorRTBackend, "compile", lambda backend, *arguments: made.compile(backend, *arguments))
    yield made
    assert set(gpu.contexts.values()) <= {0}


def candidates(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    facts = json.loads((folder / "out" / "small" / "report.json").read_text())
    (validation,) = facts["validations"]
    return facts, validation["candidates"]


def test_engines_are_measured_and_not_emulated(tmp_path: Path, builder: Builder):
    build(project(tmp_path, ["l4"]), tmp_path)
    facts, found = candidates(tmp_path)
    assert [candidate["engine"]["encoding"] for candidate in found] == ["trt-int8", "trt-fp16"]
    assert sorted(builder.made[:-1]) == ["trt-fp16", "trt-int8"]
    assert builder.made[-1] == "reference"
    assert builder.tf32 == ["reference"], "as TensorRT makes the model by itself, and as a kit does"
    for candidate in found:
        assert not candidate["emulated"]
        assert not any("[emulated]" in gate["gate"] for gate in candidate["gates"])
        assert {gate["verdict"] for gate in candidate["gates"]} == {"pass"}
        (speed,) = candidate["speeds"]
        for side in ("engine", "reference"):
            told = speed[side]["gpu"]
            assert told["compute"] == pytest.approx({"p50": 4.0, "p99": 4.0})  # 2 samples
            assert told["throughput"] == pytest.approx(500)
            assert told["clocks"] == {"sm": [2040, 2040], "memory": [6251, 6251], "locked": False}
            assert told["cuda_graph"]
    (target,) = facts["targets"]
    assert target["latency_ms"]["p50"] > 0
    page = (tmp_path / "out" / "small" / "report.md").read_text()
    assert page.count("The model as it came ran in FP32 (TF32 where the card has it).") == len(found)
    rows = [line for line in page.splitlines() if "as a CUDA graph" in line]
    assert rows == [
        "| 2 | 4 | 4 | 500 | 1.536 | 1.536 | 0.04 | 0.04 | as a CUDA graph | SM 2040, memory 6251, not locked |"
    ] * len(found)
    head = page.splitlines()[page.splitlines().index(rows[0]) - 2]
    assert head.strip("| ").split(" | ") == list(gpu_table.COLUMNS)


def test_validate_prints_the_same(tmp_path: Path, builder: Builder):
    build(project(tmp_path, ["l4:int8"]), tmp_path)
    arguments = [str(tmp_path / "out" / "small"), "--reference", str(tmp_path / "model.onnx")]
    arguments += ["--data", str(tmp_path / "samples.npz"), "--seconds", "0.01", "--axis", "x.batch=1,2,4"]
    told = CliRunner().invoke(validate, [*arguments, "--json"], catch_exceptions=False)
    found = json.loads(told.stdout)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(found)
    assert not found["emulated"]
    assert [speed["batch"] for speed in found["speeds"]] == [1, 2, 4]
    assert [speed["gpu"]["compute"]["p50"] for speed in found["speeds"]] == pytest.approx([2.0, 4.0, 8.0])
    shown = CliRunner().invoke(validate, arguments, catch_exceptions=False).stdout
    assert shown.count("as a CUDA graph") == 3


def test_where_the_reference_cannot_be_built_speed_is_not_measured(tmp_path: Path, builder: Builder):
    builder.refused = "reference"
    build(project(tmp_path, ["l4:int8"]), tmp_path)
    facts, (candidate,) = candidates(tmp_path)
    assert not candidate["emulated"]
    assert candidate["speeds"] == []
    (validation,) = facts["validations"]
    assert "speed was not measured: TensorRT refuses the graph: no" in validation["notes"]


def test_an_engine_of_another_card_is_emulated(tmp_path: Path, builder: Builder):
    builder.card = "A100"
    build(project(tmp_path, ["l4:int8"]), tmp_path)
    _, (candidate,) = candidates(tmp_path)
    assert candidate["emulated"]
    assert candidate["speeds"] == []
    told = [
        line for line in (tmp_path / "out/small/report.md").read_text().splitlines() if "was not run on the GPU" in line
    ]
    assert "generated on an incompatible device" in told[0]
    assert any(gate["gate"].endswith("[emulated]") for gate in candidate["gates"])


def test_an_engine_of_another_card_that_is_named_is_exit_6(tmp_path: Path, builder: Builder):
    """A build is for a fleet; who names one engine wants it to run."""
    builder.card = "A100"
    build(project(tmp_path, ["l4:int8"]), tmp_path)
    data = ["--reference", str(tmp_path / "model.onnx"), "--data", str(tmp_path / "samples.npz")]
    engine = tmp_path / "out/small/engines/l4/trt-int8"
    with pytest.raises(EngineLoadError, match="cannot load the engine here") as caught:
        CliRunner().invoke(validate, [str(engine), *data, "--axis", "x.batch=1,2,4"], catch_exceptions=False)
    assert caught.value.exit_code == 6
    assert str(engine) in caught.value.where


def test_a_batch_that_no_profile_holds_is_exit_7(tmp_path: Path, builder: Builder):
    build(project(tmp_path, ["l4:int8"]), tmp_path)
    data = ["--reference", str(tmp_path / "model.onnx"), "--data", str(tmp_path / "samples.npz")]
    engine = tmp_path / "out/small/engines/l4/trt-int8"
    with pytest.raises(EngineShapeError, match="the engine was not built for 'x'") as caught:
        CliRunner().invoke(validate, [str(engine), *data, "--axis", "x.batch=1,2,16"], catch_exceptions=False)
    assert caught.value.exit_code == 7


def test_the_card_is_part_of_the_machine(monkeypatch: pytest.MonkeyPatch):
    without = fingerprint.device()
    monkeypatch.setattr(present, "gpu_names", lambda: ["NVIDIA L4"])
    assert fingerprint.device() == {**without, "gpus": ["NVIDIA L4"]}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"sm": None, "memory": None, "locked": None}, "not known"),
        ({"sm": [1980, 1965], "memory": [2619, 2619], "locked": True}, "SM 1980 → 1965, memory 2619, locked"),
        ({"sm": [1980, 1980], "memory": None, "locked": None}, "SM 1980, not known whether locked"),
    ],
)
def test_clocks_in_words(told: dict[str, Any], words: str):
    assert gpu_table.clocks(told) == words


def test_why_there_is_no_graph_is_told():
    spread = {"p50": 1.0, "p99": 2.0}
    told = {"compute": spread, "to_device": spread, "to_host": spread, "throughput": 9.0, "cuda_graph": False}
    told |= {"note": "libcuda was not found", "clocks": {"sm": None, "memory": None, "locked": None}}
    assert gpu_table.rows([(1, None), (4, told)]) == [
        ("4", "1", "2", "9", "1", "2", "1", "2", "kernel by kernel (libcuda was not found)", "not known")
    ]
