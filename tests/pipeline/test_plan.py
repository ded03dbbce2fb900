"""The steps of a build: scopes, inputs by name, and what is refused before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import pytest

from toy_stages import NoSettings, Text, plan, scopes
from trtcompress.asked import encoding_of
from trtcompress.config import BuildConfig, Loaded
from trtcompress.config_file import load_config
from trtcompress.digests import FileDigests
from trtcompress.plan import Plan, make_plan
from trtcompress.stage import stage
from trtcompress.stages import STAGES
from trtcompress_engines.cpu import cpu_features
from trtcompress_graph.errors import TrtCompressError, UsageError

CPU = cpu_features()
INT8 = "cpu-int8-amx" if CPU.amx else "cpu-int8" if CPU.vnni else "cpu-int8-r7"


def labels(made: Plan) -> list[str]:
    return [step.label for step in made.steps]


def needs(made: Plan, label: str) -> dict[str, tuple[tuple[str, str], ...]]:
    return dict(next(step for step in made.steps if step.label == label).needs)


def test_each_stage_runs_as_often_as_its_scope_says(tmp_path: Path):
    made = plan(tmp_path / "p", scopes(), targets=["rtx-4090", "rtx-3090:int8", "t4:float"])
    assert labels(made) == [
        "ground",
        "code trt-int8",
        "code trt-fp16",
        "assemble rtx-4090/trt-int8",
        "assemble rtx-4090/trt-fp16",
        "assemble rtx-3090/trt-int8",
        "assemble t4/trt-fp16",
        "weigh rtx-4090",
        "weigh rtx-3090",
        "weigh t4",
    ]


def test_the_nearest_value_is_taken(tmp_path: Path):
    made = plan(tmp_path / "p", scopes(), targets=["cpu", "rtx-4090"])
    assert needs(made, "assemble rtx-4090/trt-fp16") == {
        "coded": (("coded", "trt-fp16"),),
        "target": (("target", "rtx-4090"),),
        "encoding": (("encoding", "trt-fp16"),),
    }
    assert needs(made, "weigh cpu")["engines"] == (("engine", f"cpu/{INT8}"), ("engine", "cpu/cpu-fp32"))


def test_reserved_stages_pass_on_what_they_take(tmp_path: Path):
    assert needs(plan(tmp_path / "p", scopes()), f"code {INT8}")["polished"] == (("ground", ""),)


class Asked(NoSettings):
    @classmethod
    def of(cls, config: BuildConfig) -> Self | None:
        return cls() if config.prune is not None else None


def test_a_stage_that_is_not_asked_for_passes_on_what_it_takes(tmp_path: Path):
    ground, *_, code, assemble, _ = scopes()

    @stage(output="polished", takes="ground", version=1, leaves=".")
    def polish(ground: Text, settings: Asked) -> Text:
        return ground

    @stage(output="weighed", version=1, leaves=".")
    def weigh(polished: Text, settings: Asked) -> Text:
        return polished

    stages = (ground, polish, weigh, code, assemble)
    plain = plan(tmp_path / "p", stages)
    assert not {"polish", "weigh"} & set(labels(plain))
    assert needs(plain, f"code {INT8}")["polished"] == (("ground", ""),)
    asked = plan(tmp_path / "p", stages, prune={"macs": 0.5})
    assert labels(asked)[:3] == ["ground", "polish", "weigh"]
    assert needs(asked, f"code {INT8}")["polished"] == (("polished", ""),)


def test_the_real_stages(tmp_path: Path):
    made = plan(tmp_path / "p", STAGES, targets=["cpu:int8", "rtx-4090:int8"])
    assert [label for label in labels(made) if label.startswith(("quantize", "compile", "package"))] == [
        f"quantize {INT8}",
        "quantize trt-int8",
        f"compile cpu/{INT8}",
        "compile rtx-4090/trt-int8",
        "package cpu",
        "package rtx-4090",
    ]
    assert needs(made, "calibrate")["equalized"] == (("simplified", ""),)
    order = labels(made)
    outputs = {step.output: order.index(step.label) for step in made.steps}
    for step in made.steps:
        for ref in (ref for refs in step.needs.values() for ref in refs):
            assert ref in made.given or outputs[ref] < order.index(step.label)


def test_an_input_that_nothing_makes_is_a_fault_of_the_stages(tmp_path: Path):
    @stage(output="x", version=1, leaves=".")
    def lost(nowhere: Text, settings: NoSettings) -> Text:
        return nowhere

    with pytest.raises(LookupError, match="nowhere"):
        plan(tmp_path / "p", [lost])


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["cpu", "rtx-409"], "rtx-4090"),
        (["rtx-4090", "4090:float"], "one target"),
        (["rtx-2080:int8"], "INT8 engines are not built for 'rtx-2080'"),
        (["gtx-1080"], "gtx-1080"),
    ],
)
def test_targets_that_are_refused(tmp_path: Path, targets: list[str], words: str):
    with pytest.raises(UsageError, match=words):
        plan(tmp_path / "p", scopes(), targets=targets)


def loaded(folder: Path, *overrides: str) -> Loaded:
    (folder / "m.onnx").write_bytes(b"m")
    (folder / "d.npz").write_bytes(b"d")
    (folder / "code.py").write_text("raise SystemExit('imported')\n")
    (folder / "build.yaml").write_text("name: n\nmodel: m.onnx\ndata: {calibration: d.npz}\n")
    return load_config(folder / "build.yaml", overrides)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model=gone.onnx", "no such model file"),
        ("model.source=gone:make", "there is no module 'gone'"),
        ("data.calibration.source=gone.npz", "no such file or folder"),
        ("data.evaluation=gone:samples", "there is no module 'gone'"),
        ("metric=[top2]", "top2"),
        ("prune.plan=gone.json", "no such plan"),
        ("metric=['gone:score']", "there is no module 'gone'"),
        ("model={source: 'code:make', sources: ['*.bin']}", "matches no file"),
    ],
)
def test_what_is_missing_is_found_before_any_work(tmp_path: Path, override: str, words: str):
    with pytest.raises(TrtCompressError, match=words) as caught:
        make_plan(loaded(tmp_path, override), STAGES, FileDigests(tmp_path / "memory"))
    assert caught.value.exit_code == 2


def test_until_ends_the_plan(tmp_path: Path):
    config, files = loaded(tmp_path), FileDigests(tmp_path / "memory")
    assert labels(make_plan(config, STAGES, files, "simplify")) == ["export", "simplify"]
    assert labels(make_plan(config, STAGES, files, "prune")) == ["export", "simplify"]
    pruned = loaded(tmp_path, "prune.macs=0.5")
    assert labels(make_plan(pruned, STAGES, files, "prune")) == ["export", "samples", "simplify", "prune"]
    with pytest.raises(UsageError, match="the stages are: export, postprocess, samples, simplify, prune") as caught:
        make_plan(config, STAGES, files, "quantise")
    assert caught.value.where == "--until"


def test_functions_are_not_imported_for_the_plan(tmp_path: Path):
    config = loaded(tmp_path, "model=code:make", "data.calibration=code:samples", "metric=['code:score']")
    made = make_plan(config, STAGES, FileDigests(tmp_path / "memory"))
    assert len(made.given["model", ""].digest) == 64
    assert made.given["metrics", ""][0].digest


def test_a_file_named_like_a_function_is_a_file(tmp_path: Path):
    config = loaded(tmp_path, "model='code:make'")
    (tmp_path / "code:make").write_bytes(b"an ONNX file of that name")
    as_file = make_plan(config, STAGES, FileDigests(tmp_path / "memory")).given["model", ""].digest
    (tmp_path / "code:make").unlink()
    assert make_plan(config, STAGES, FileDigests(tmp_path / "memory")).given["model", ""].digest != as_file


def test_encodings_of_a_target():
    assert encoding_of("cpu", "int8").name == INT8
    assert encoding_of("rtx-4090", "float").name == "trt-fp16"
    with pytest.raises(UsageError, match="rtx-4090"):
        encoding_of("rtx-409", "int8")


def test_without_evaluation_data_the_calibration_data_serves(tmp_path: Path):
    made = make_plan(loaded(tmp_path), STAGES, FileDigests(tmp_path / "memory"))
    assert made.given["evaluation", ""] == made.given["calibration", ""]
    (tmp_path / "e.npz").write_bytes(b"e")
    made = make_plan(load_config(tmp_path / "build.yaml", ["data.evaluation=e.npz"]), STAGES, FileDigests(tmp_path))
    assert made.given["evaluation", ""] != made.given["calibration", ""]


@pytest.mark.parametrize(
    ("quantize", "targets"),
    [
        ({"max_drop": 0.01}, ["cpu:w4"]),
        ({"rounding": "second-order"}, ["rtx-4090:fp8"]),
        ({"equalize": "auto", "correct_bias": True}, ["cpu:float", "rtx-4090:bf16"]),
        ({"weights": "mse"}, ["rtx-2080"]),
    ],
)
def test_keys_for_int8_need_a_target_in_int8(tmp_path: Path, quantize: dict[str, object], targets: list[str]):
    with pytest.raises(UsageError, match="no target has INT8 activations") as refused:
        plan(tmp_path / "p", scopes(), quantize=quantize, targets=targets)
    assert refused.value.where == ", ".join(f"quantize.{key}" for key in quantize)
    assert plan(tmp_path / "q", scopes(), quantize=quantize, targets=[*targets, "rtx-3090:int8"]).targets


def test_one_device_twice_is_a_build_of_its_own(tmp_path: Path):
    with pytest.raises(UsageError, match="one target") as refused:
        plan(tmp_path / "p", scopes(), targets=["rtx-4090", "RTX 4090:w4"])
    assert "filed by device" in refused.value.hint


@pytest.mark.parametrize(("weights", "read"), [("minmax", False), ("mse", False), ("auto", True)])
def test_samples_are_an_input_only_where_they_are_read(tmp_path: Path, weights: str, read: bool):
    config, files = loaded(tmp_path, f"quantize.weights={weights}"), FileDigests(tmp_path / "memory")
    steps = [step for step in make_plan(config, STAGES, files).steps if step.stage.name == "quantize"]
    assert steps
    assert all(("calibration" in step.needs) is read for step in steps)


def test_a_device_of_ones_own_is_built_for(tmp_path: Path):
    devices = {"bench-card": {"like": "rtx-4090"}, "old-card": {"like": "rtx-2080"}}
    made = plan(tmp_path / "p", scopes(), targets=["bench-card", "old-card"], devices=devices)
    assert [(target.name, target.compute_capabilities) for target in made.targets] == [
        ("bench-card", ((8, 9),)),
        ("old-card", ((7, 5),)),
    ]
    assert "assemble bench-card/trt-int8" in labels(made)
    assert "assemble old-card/trt-int8" not in labels(made)
