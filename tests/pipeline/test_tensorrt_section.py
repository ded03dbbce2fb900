"""The section `tensorrt` of a config: refused before any work, or seen in the engines."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from builds import build, project
from command_line import trtcompress
from trtcompress.asked import known_targets
from trtcompress.builder import builder_of
from trtcompress.config_file import load_config
from trtcompress.implicit import write_batches
from trtcompress.kit_packing import for_builder
from trtcompress.profile_parts import joined
from trtcompress.stage import DataRef
from trtcompress_engines.backends import tensorrt as classic_backend
from trtcompress_engines.backends import tensorrt_rtx
from trtcompress_engines.parsed_graphs import OLDER
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import ConfigError, DataError, MissingPathError, TrtCompressError, UsageError
from trtcompress_graph.load import read_model

CACHE = "calibration.cache"
DLA_FLAGS = ("FP16", "INT8", "GPU_FALLBACK", "PREFER_PRECISION_CONSTRAINTS")


def asked(folder: Path, target: str, *overrides: str) -> Any:
    loaded = load_config(project(folder, [target]), overrides)
    return builder_of(resolve_target(target.partition(":")[0]), loaded.config.targets[0], loaded)


def recipe_in(folder: Path) -> dict[str, Any]:
    """The recipe in a script."""
    found = re.search(r"^RECIPE.*? = (\{.*?\})$", (folder / "reproduce.py").read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    recipe: dict[str, Any] = ast.literal_eval(found[1])
    return recipe


@pytest.mark.parametrize(
    ("target", "overrides", "where", "words"),
    [
        ("rtx-4090", ["tensorrt.dla=0"], "tensorrt.dla", "no DLA"),
        ("jetson-xavier-nx", ["tensorrt.weight_streaming=true"], "weight_streaming", "came with TensorRT 10.0"),
        ("jetson-orin-nx", ["tensorrt={version: '9.1'}"], "tensorrt.version", "no platform of"),
        ("b200", ["tensorrt={version: '8.6'}"], "tensorrt.version", "came with TensorRT 10.8"),
        ("a100", ["tensorrt={version: '12.0'}"], "tensorrt.version", "there is no such release"),
        ("rtx-4090", ["tensorrt={version: '10.3'}"], "tensorrt.version", "is built by TensorRT for RTX"),
        ("a100", ["tensorrt.strip=true"], "tensorrt.strip", "cannot be served by Triton"),
        ("jetson-orin-nx", ["tensorrt.dla=0", "qat=true"], "qat", "stands in Q/DQ pairs"),
        ("jetson-orin-nx", ["tensorrt.implicit=samples"], "tensorrt.implicit", "the device itself builds it"),
        ("a100", ["tensorrt={implicit: ranges, version: '11.4'}"], "tensorrt.implicit", "has it no more"),
        ("jetson-orin-nx:float", ["tensorrt.implicit=ranges"], "tensorrt.implicit", "has no scales of INT8"),
        ("a100:bf16", ["tensorrt.version='8.6'"], "a100:bf16", "TensorRT 8.6.* does not take the types"),
        ("l4:fp8", ["tensorrt.version='8.6'"], "l4:fp8", "does not take the types of such a graph"),
        ("jetson-agx-orin:w4", ["tensorrt.version='8.6'"], "agx-orin:weight-int4", "does not take the types"),
        ("jetson-agx-orin:bf16", ["tensorrt.dla=0"], "agx-orin:bf16", "an engine for a DLA does not take the types"),
        ("a100", ["tensorrt={implicit: ranges, weight_streaming: true, version: '10.3'}"], "tensorrt.weight_streaming",
         "it needs a graph with types"),
        ("cpu", ["targets=[{name: cpu, tensorrt: {sparse: true}}]"], "targets: cpu: tensorrt", "a CPU has no TensorRT"),
        ("a100", ["tensorrt.timing_cache=none.cache"], "tensorrt.timing_cache", "no such timing cache"),
        ("rtx-4090", ["tensorrt.profiles=[{x: {batch: 1}}]"], "tensorrt.profiles", "no profile holds the length 2"),
        ("rtx-4090", ["tensorrt.profiles=[{x: {batch: [1, 2, 9]}}]"], "profiles.0.x.batch", "beyond 1 to 4"),
        ("rtx-4090", ["tensorrt.profiles=[{y: {batch: 1}}]"], "profiles.0.y", "has no 'y' with a range; it has x"),
        ("rtx-4090", ["tensorrt.profiles=[{x: {length: 1}}]"], "profiles.0.x.length", "is not given"),
        ("a100", ["tensorrt.version='ten'"], "tensorrt.version", "'ten' is no version of TensorRT"),
        ("a100", ["model.inputs.x.batch=[1, 2]"], "model.inputs.x.batch", "holds too few values"),
        ("a100", ["tensorrt.dla=0"], "tensorrt.dla", "it has no DLA"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_any_work(
    tmp_path: Path, target: str, overrides: list[str], where: str, words: str
):
    with pytest.raises((UsageError, ConfigError, MissingPathError), match=words) as caught:
        build(project(tmp_path, [target]), tmp_path, *overrides)
    assert where in caught.value.where
    assert caught.value.hint
    assert not list((tmp_path / "store").glob("objects/*"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "where", "quoted"),
    [
        ("tensorrt.version=8.6", "--set tensorrt.version", '"8.6"'),
        ("tensorrt={version: 10.10}", "--set tensorrt.version", '"10.1"'),
        ("tensorrt.version=11", "--set tensorrt.version", '"11"'),
        ("targets=[{name: a100, tensorrt: {version: 8.6}}]", "--set targets.0.tensorrt.version", '"8.6"'),
        ("devices.mine={like: orin-nx, tensorrt: {JetPack: 10.3}}", "--set devices.mine.tensorrt.JetPack", '"10.3"'),
        ("devices.mine={how: local, compute_capability: 8.9}", "--set devices.mine.compute_capability", '"8.9"'),
    ],
)
def test_a_version_without_quotes_is_told_to_have_them(tmp_path: Path, override: str, where: str, quoted: str):
    with pytest.raises(ConfigError, match=f"is a number here, .* put quotes around it: {quoted}") as caught:
        load_config(project(tmp_path), [override])
    assert caught.value.where == where


@pytest.mark.parametrize("missing", [False, True])
def test_a_card_that_tensorrt_for_rtx_does_not_build_for_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
):
    told = SimpleNamespace(version="1.7.1", compute_capabilities=["SM120", "SM86", "SM89"])
    monkeypatch.setattr(tensorrt_rtx, "probe", lambda flavour: told)
    monkeypatch.setattr(tensorrt_rtx, "missing_rtx", lambda: "pip install it" if missing else "")
    loaded = load_config(project(tmp_path, ["mine"]), ["devices.mine={how: aot, compute_capability: '9.0'}"])
    target = known_targets(loaded.config)["mine"]
    if missing:  # which is told where the engine cannot be built
        builder_of(target, loaded.config.targets[0], loaded)
        return
    with pytest.raises(UsageError, match="does not build for SM90, but for SM120, SM86, SM89") as caught:
        builder_of(target, loaded.config.targets[0], loaded)
    assert caught.value.where == "target 'mine'"
    told.compute_capabilities.append("SM90")
    builder_of(target, loaded.config.targets[0], loaded)


@pytest.mark.parametrize("value", ["optimization_level: 6", "workspace_mb: 0", "unknown: 1", "dla: -1"])
def test_values_are_checked_by_the_schema(tmp_path: Path, value: str):
    with pytest.raises(ConfigError, match=r".") as caught:
        load_config(project(tmp_path), [f"tensorrt={{{value}}}"])
    assert value.partition(":")[0] in str(caught.value)


def test_a_dla_and_a_cache_are_had_of_the_newest_release_that_has_them(tmp_path: Path):
    target = resolve_target("jetson-agx-orin")

    def platforms(*overrides: str) -> list[str]:
        return [name for name, _ in for_builder(target, asked(tmp_path, "jetson-agx-orin", *overrides)).tensorrt]

    assert platforms()[-3:] == ["JetPack 6.1", "JetPack 7.2", "JetPack 7.2.2"]
    assert platforms("tensorrt.dla=0")[-1] == "JetPack 6.1"
    assert platforms("tensorrt.implicit=ranges")[-1] == "JetPack 7.2"
    assert platforms("tensorrt.version='11.4'") == ["JetPack 7.2.2"]
    with pytest.raises(UsageError, match=r"10\.8 has it no more, and this is 10\.16"):
        asked(tmp_path, "jetson-agx-orin", "tensorrt={dla: 0, version: '10.16'}")


def test_a_target_has_a_section_of_its_own(tmp_path: Path):
    text = "targets=[{name: jetson-orin-nx, tensorrt: {dla: 1, version: '8.5'}}]"
    own = asked(tmp_path, "jetson-orin-nx", text, "tensorrt.workspace_mb=64")
    assert (own.options.dla, own.options.version, own.options.workspace_mb, own.implicit) == (1, "8.5", None, "ranges")
    shared = asked(tmp_path, "jetson-orin-nx", "tensorrt.workspace_mb=64")
    assert (shared.options.workspace_mb, shared.implicit) == (64, "")
    assert asked(tmp_path, "cpu", "tensorrt.workspace_mb=64").options.workspace_mb is None


def test_options_reach_the_engine_and_only_its_own(tmp_path: Path):
    config = project(tmp_path, ["rtx-3090:int8", "rtx-4090:int8"])
    parts = "tensorrt.profiles=[{x: {batch: 1}}, {x: {batch: [2, 4, 4]}}]"
    _, first = build(config, tmp_path, parts)
    assert {"compile rtx-3090/trt-int8", "compile rtx-4090/trt-int8"} <= set(first.worked)
    made = recipe_in(tmp_path / "out" / "small" / "engines" / "rtx-4090" / "trt-int8")
    assert [profile["x"] for profile in made["profiles"]] == [
        ((1, 3, 8, 8),) * 3,
        ((2, 3, 8, 8), (4, 3, 8, 8), (4, 3, 8, 8)),
    ]
    own = "targets=[{name: rtx-3090, precision: int8}, {name: rtx-4090, precision: int8, tensorrt: {workspace_mb: 99}}]"
    _, second = build(config, tmp_path, parts, own)
    assert [step for step in second.worked if step.startswith("compile")] == ["compile rtx-4090/trt-int8"]
    assert recipe_in(tmp_path / "out" / "small" / "engines" / "rtx-4090" / "trt-int8")["workspace_mb"] == 99


def test_a_budget_of_streamed_weights_is_bytes_or_a_share(tmp_path: Path):
    for value, read in (("1048576", "1048576"), ("30%", "30%")):
        own = asked(tmp_path, "a100", f"tensorrt={{weight_streaming: true, weight_streaming_budget: {value}}}")
        assert own.options.weight_streaming_budget == read
    assert asked(tmp_path, "a100", "tensorrt.weight_streaming=true").options.weight_streaming_budget == ""


def test_a_pinned_timing_cache_counts_by_its_content(tmp_path: Path):
    config = project(tmp_path, ["a100:int8"])
    (tmp_path / "one.cache").write_bytes(b"one")
    pin = "tensorrt.timing_cache=one.cache"
    build(config, tmp_path, pin)
    _, again = build(config, tmp_path, pin)
    assert not [step for step in again.worked if step.startswith("compile")]
    (tmp_path / "one.cache").write_bytes(b"two")
    _, changed = build(config, tmp_path, pin)
    assert [step for step in changed.worked if step.startswith("compile")] == ["compile a100/trt-int8"]
    engine = tmp_path / "out" / "small" / "engines" / "a100" / "trt-int8"
    assert (engine / "timing.cache").read_bytes() == b"two"


def tensors_of(path: Path) -> set[str]:
    graph = onnx.load(path).graph
    return {value.name for value in graph.input} | {name for node in graph.node for name in node.output}


@pytest.mark.parametrize(("version", "header"), [("8.5", "TRT-8502"), ("8.6", "TRT-8602"), ("10.3", "TRT-100300")])
def test_a_dla_gets_the_float_model_and_the_scales_of_the_quantized_one(tmp_path: Path, version: str, header: str):
    config = project(tmp_path, ["jetson-orin-nx:int8"])
    build(config, tmp_path, f"tensorrt={{dla: 1, version: '{version}'}}")
    folder = tmp_path / "out" / "small" / "engines" / "jetson-orin-nx" / "trt-int8"
    first, *lines = (folder / CACHE).read_text().splitlines()
    assert first == f"{header}-EntropyCalibration2"
    held = {name: bytes.fromhex(bits) for name, bits in (line.rsplit(": ", 1) for line in lines)}
    graph = onnx.load(folder / "model.onnx").graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    pairs = {
        n.input[0]: constants[n.input[1]] for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] in held
    }
    assert pairs
    for name, scale in pairs.items():
        assert np.float32(scale) == np.frombuffer(held[name], ">f4")[0]
    assert not any(node.op_type == "QuantizeLinear" for node in onnx.load(folder / "float.onnx").graph.node)
    made = recipe_in(folder)
    built_of = "float.onnx" if version == "10.3" else OLDER  # the parser of 8 takes no such opset
    assert (made["onnx"], made["plan"], made["dla"]) == (built_of, "model.plan", 1)
    assert held.keys() <= tensors_of(folder / built_of), "the scales are of tensors that are there"
    assert (made["flags"], made["strongly_typed"]) == (DLA_FLAGS, False)
    shell = (folder / "reproduce.sh").read_text()
    assert "--useDLACore=1" in shell
    assert f"--calib=own.{CACHE}" in shell
    (shapes,) = {tuple(map(tuple, held["x"])) for held in made["profiles"]}
    assert len(set(shapes)) == 1, "a DLA takes fixed shapes alone"


def test_without_the_section_nothing_more_is_read(tmp_path: Path):
    build(project(tmp_path, ["jetson-orin-nx:int8"]), tmp_path)
    folder = tmp_path / "out" / "small" / "engines" / "jetson-orin-nx" / "trt-int8"
    assert not (folder / CACHE).exists()
    assert recipe_in(folder)["strongly_typed"]


def test_tensorrt_calibrates_on_whole_batches_of_the_usual_shapes(tmp_path: Path):
    project(tmp_path)
    model = read_model(tmp_path / "model.onnx")
    data = DataRef("samples.npz", tmp_path, "", None, None)
    axes = joined({"x": {"batch": AxisRange(1, 2, 8)}}, {"x": {"batch": AxisRange(3, 5, 8)}})
    (tmp_path / "batches").mkdir()
    write_batches(model, data, axes, tmp_path / "batches")
    files = sorted((tmp_path / "batches").iterdir())
    shapes = [np.load(file)["x"].shape for file in files]
    assert shapes == [(5, 3, 8, 8)] * 2  # of 12 samples
    with np.load(tmp_path / "samples.npz") as given:
        assert np.array_equal(np.load(files[1])["x"], given["x"][5:10])
    with pytest.raises(DataError, match="no samples make a whole batch"):
        write_batches(model, data, {"x": {"batch": AxisRange(1, 64, 64)}}, tmp_path / "batches")


def test_an_engine_that_is_not_built_here_is_not_calibrated_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match="TensorRT calibrates 'a100' on the machine that builds its engine"):
        asked(tmp_path, "a100", "tensorrt.implicit=samples")
    monkeypatch.setattr(classic_backend, "missing_classic", lambda: "")
    monkeypatch.setattr(classic_backend, "gpu_count", lambda: 1)
    assert asked(tmp_path, "a100", "tensorrt.implicit=samples").implicit == "samples"


def test_errors_are_for_the_user(tmp_path: Path):
    with pytest.raises(TrtCompressError) as caught:
        asked(tmp_path, "jetson-orin-nano", "tensorrt.dla=0")
    assert str(caught.value).splitlines() == [
        "tensorrt.dla: dla cannot be had for 'jetson-orin-nano': it has no DLA",
        "hint: leave it out, or set it for other targets alone: targets: [{name: jetson-orin-nano, tensorrt: {}}]",
    ]


def test_one_engine_is_asked_on_the_command_line(tmp_path: Path):
    project(tmp_path)
    command = ("compile", tmp_path / "model.onnx", "--axis", "x.batch=1,2,4", "-o", tmp_path / "engine", "--target")
    made = trtcompress(*command, "rtx-4090", "--set", "tensorrt.workspace_mb=128", "--json", cwd=tmp_path)
    assert made.code == 0, made.err
    assert recipe_in(tmp_path / "engine")["workspace_mb"] == 128
    for target, override, words in (
        ("rtx-4090", "tensorrt.dla=0", "a graph alone has no ranges"),
        ("rtx-4090", "tensorrt.version_compatible=true", "in the release that made them alone"),
        ("rtx-4090", "tensorrt.workspace=1", "did you mean 'workspace_mb'?"),
        ("rtx-4090", "quantize.method=mse", "is nothing that one engine is built by"),
        ("cpu", "tensorrt.sparse=true", "a CPU has no TensorRT"),
    ):
        refused = trtcompress(*command, target, "--set", override, cwd=tmp_path)
        assert refused.code == 2
        assert words in refused.err
