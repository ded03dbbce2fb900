"""What is asked of TensorRT's builder: refused before any work, or seen in what TensorRT for RTX builds."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from small_cnn import write_cnn
from trtcompress_engines.backend import CompileOptions, Profile, backend_for
from trtcompress_engines.backends.trt_load import gpu_count
from trtcompress_engines.targets import resolve_target
from trtcompress_engines.tensorrt_options import TensorRTOptions, pinned, refuse
from trtcompress_engines.tensorrt_release import Release
from trtcompress_graph.errors import CompileError, MissingPathError, UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.target import Engine


def shapes(least: int, usual: int, greatest: int) -> dict[str, Profile]:
    return {"x": ((least, 3, 16, 16), (usual, 3, 16, 16), (greatest, 3, 16, 16))}


WIDE = shapes(1, 4, 8)


def build(folder: Path, options: CompileOptions, name: str = "rtx-4090") -> Engine:
    folder.mkdir(exist_ok=True)
    target = resolve_target(name)
    path = write_cnn(folder / "model.onnx", fp16=True)
    return backend_for(target).compile(read_model(path), target, "trt", options, folder)


def size(engine: Engine) -> int:
    return engine.path.stat().st_size


@pytest.mark.parametrize(
    ("name", "version", "asked", "words"),
    [
        ("rtx-4090", "1.7", {"hardware_compatible": True}, "a target such as rtx-3090\\+rtx-4090"),
        ("rtx-4090", "1.7", {"version_compatible": True}, "in the release that made them alone"),
        ("rtx-4090", "1.7", {"dla": 0}, "it has no DLA"),
        ("rtx-4090", "1.7", {"strip": True}, "needs an NVIDIA driver"),
        ("jetson-xavier-nx", "8.5.2", {"optimization_level": 5}, "it came with TensorRT 8.6"),
        ("jetson-xavier-nx", "8.5.2", {"weight_streaming": True}, "it came with TensorRT 10.0"),
        ("jetson-orin-nx", "10.3.0", {"hardware_compatible": True}, "JetPack does not support it"),
        ("jetson-orin-nx", "10.3.0", {"dla": 2}, "it has 2 DLA cores, 0 to 1"),
        ("jetson-orin-nano", "10.3.0", {"dla": 0}, "it has no DLA"),
        ("jetson-orin-nx", "11.4", {"dla": 0}, "TensorRT 10.8 has it no more"),
        ("t4", "10.13", {"hardware_compatible": True}, "begins with Ampere"),
        ("t4", "10.13", {"sparse": True}, "begin with Ampere"),
        ("a100", "10.13", {"version_compatible": True, "refit": True}, "cannot be refitted"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_key_and_a_way_out(name: str, version: str, asked: dict, words: str):
    release = Release("rtx" if name.startswith("rtx") else "classic", version)
    with pytest.raises(UsageError, match=words) as caught:
        refuse(TensorRTOptions(**asked), resolve_target(name), release, gpu=False)
    assert caught.value.where == f"tensorrt.{next(iter(asked))}"
    assert f"name: {name}, tensorrt:" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "version", "asked"),
    [
        ("a100", "8.6.1", {"hardware_compatible": True, "version_compatible": True, "sparse": True}),
        ("jetson-orin-nx", "10.3.0", {"weight_streaming": True, "weight_streaming_budget": "0"}),
        ("h100", "11.4", {"strip": True, "weight_streaming": True, "optimization_level": 0, "workspace_mb": 64}),
        ("jetson-orin-nx", "8.6.2", {"dla": 1, "workspace_mb": 512}),
        ("t4", "10.13", {"sparse": False, "refit": True}),
    ],
)
def test_what_can_be_had_is_not_refused(name: str, version: str, asked: dict):
    refuse(TensorRTOptions(**asked), resolve_target(name), Release("classic", version), gpu=True)


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("a100", {"weight_streaming_budget": "30%"}, "no weights are streamed"),
        ("a100", {"weight_streaming": True, "weight_streaming_budget": "101%"}, "'101%' is no budget"),
        ("a100", {"weight_streaming": True, "weight_streaming_budget": "-1"}, "'-1' is no budget"),
        ("a100", {"weight_streaming": True, "weight_streaming_budget": "1.5"}, "'1.5' is no budget"),
    ],
)
def test_a_budget_that_nothing_would_set_is_refused(name: str, asked: dict, words: str):
    with pytest.raises(UsageError, match=words) as caught:
        refuse(TensorRTOptions(**asked), resolve_target(name), Release("classic", "10.3.0"), gpu=True)
    assert caught.value.where == "tensorrt.weight_streaming_budget"


def test_a_budget_is_told_to_whoever_runs_the_engine(tmp_path: Path):
    streamed = TensorRTOptions(weight_streaming=True)
    shared = replace(streamed, weight_streaming_budget="30%")
    for name, folder in (("rtx-4090", "rtx"), ("a100", "a100")):
        told = [
            build(tmp_path / f"{folder}{i}", CompileOptions(WIDE, tensorrt=asked), name).details
            for i, asked in enumerate((TensorRTOptions(), streamed, shared))
        ]
        assert [each.get("weight_streaming_budget") for each in told] == [None, "automatic", "30%"]


def test_defaults_ask_for_nothing():
    assert TensorRTOptions().asked == ()
    assert TensorRTOptions(sparse=False, dla=0).asked == ("dla",)


def test_a_timing_cache_is_pinned_by_its_digest(tmp_path: Path):
    file = tmp_path / "timing.cache"
    file.write_bytes(b"tactics")
    digest = sha256(b"tactics").hexdigest()
    assert pinned(TensorRTOptions()) == ""
    assert pinned(TensorRTOptions(timing_cache=file)) == digest
    assert pinned(TensorRTOptions(timing_cache=file, timing_cache_sha256=digest)) == digest
    with pytest.raises(UsageError, match="the timing cache is another one") as caught:
        pinned(TensorRTOptions(timing_cache=file, timing_cache_sha256="0" * 64))
    assert str(file) in caught.value.where
    with pytest.raises(MissingPathError):
        pinned(TensorRTOptions(timing_cache=tmp_path / "none"))


def test_a_device_gets_the_pinned_cache_beside_its_graph(tmp_path: Path):
    cache = tmp_path / "given"
    cache.write_bytes(b"tactics")
    options = CompileOptions(WIDE, tensorrt=TensorRTOptions(timing_cache=cache, version="8.6"))
    engine = build(tmp_path / "out", options, "jetson-orin-nx")
    assert (tmp_path / "out" / "timing.cache").read_bytes() == b"tactics"
    assert sha256(b"tactics").hexdigest() in (tmp_path / "out" / "reproduce.py").read_text()
    assert "--timingCacheFile=own.timing.cache" in (tmp_path / "out" / "reproduce.sh").read_text()
    assert "--fp16" in engine.details["how_to_build"]  # 8.6 takes types from flags


def test_several_profiles_get_kernels_of_their_own(tmp_path: Path):
    one = build(tmp_path / "one", CompileOptions(WIDE))
    two = build(tmp_path / "two", CompileOptions(shapes(1, 1, 1), more_profiles=(shapes(2, 8, 8),)))
    assert size(two) > 1.3 * size(one)
    text = (tmp_path / "two" / "reproduce.sh").read_text()
    assert "--profile=0 --minShapes=x:1x3x16x16" in text
    assert "--profile=1 --minShapes=x:2x3x16x16" in text
    with pytest.raises(CompileError, match="does not fit"):
        build(tmp_path / "bad", CompileOptions(WIDE, more_profiles=({"x": ((1, 3), (1, 3), (1, 3))},)))


def test_the_workspace_is_limited(tmp_path: Path):
    assert build(tmp_path / "64", CompileOptions(WIDE, tensorrt=TensorRTOptions(workspace_mb=64))).built
    with pytest.raises(CompileError, match="workspace limit") as caught:
        build(tmp_path / "1", CompileOptions(WIDE, tensorrt=TensorRTOptions(workspace_mb=1)))
    assert "tensorrt.workspace_mb" in caught.value.hint


@pytest.mark.parametrize("asked", [{"optimization_level": 0}, {"optimization_level": 5}, {"weight_streaming": True}])
def test_rtx_takes_the_option(tmp_path: Path, asked: dict):
    assert build(tmp_path, CompileOptions(WIDE, tensorrt=TensorRTOptions(**asked))).built


@pytest.mark.skipif(gpu_count() > 0, reason="with a driver it can be had")
def test_a_refused_option_leaves_nothing(tmp_path: Path):
    with pytest.raises(UsageError, match="strip cannot be had for 'rtx-4090'"):
        build(tmp_path, CompileOptions(WIDE, tensorrt=TensorRTOptions(strip=True)))
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_device_of_several_releases_is_built_for_the_one_that_is_named(tmp_path: Path):
    for version, flags in (("8.5", "--fp16 --noTF32"), ("10.3", "--stronglyTyped --noTF32")):
        options = CompileOptions(WIDE, tensorrt=TensorRTOptions(version=version))
        assert flags in build(tmp_path, options, "jetson-orin-nx").details["how_to_build"]
