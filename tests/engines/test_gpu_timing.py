"""Engines on a GPU: answers, times of the whole and of its parts, CUDA graphs and clocks, over a stand-in for it."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import gpu_double
import trt_double
from gpu_double import Gpu, plan_of
from small_cnn import write_cnn
from trtcompress_engines.backend import BoundRunner, backend_for
from trtcompress_engines.backends import trt_load, trt_open
from trtcompress_engines.gpu import cuda_graph, present, times
from trtcompress_engines.gpu.clocks import Reading, between, read_clocks
from trtcompress_engines.gpu.cuda_graph import INSTANTIATE, NEEDED, Driver, NotCapturedError, capture
from trtcompress_engines.gpu.runner import GpuRunner
from trtcompress_engines.gpu.times import TimedOnGpu, with_gpu_times
from trtcompress_engines.measure import time_pair
from trtcompress_engines.targets import resolve_target
from trtcompress_engines.tensorrt_options import STRIPPED, WHOLE, TensorRTOptions
from trtcompress_graph.errors import CompileError, EngineLoadError, EngineShapeError
from trtcompress_graph.load import read_model
from trtcompress_graph.measured import GpuClocks, GpuTimes
from trtcompress_graph.target import Engine

PROFILE = {"x": [[1, 3, 16, 16], [4, 3, 16, 16], [8, 3, 16, 16]]}
IMAGE_BYTES, LOGIT_BYTES = 3 * 16 * 16 * 4, 10 * 4
NOT_KNOWN = Reading()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return installed(Gpu(), monkeypatch)


def installed(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    for name, module in gpu.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(times, "open_driver", lambda: Driver(gpu.libcuda))
    monkeypatch.setattr(times, "read_clocks", lambda gpu: NOT_KNOWN)
    return gpu


@pytest.fixture
def onnx(tmp_path: Path) -> Path:
    return write_cnn(tmp_path / "net.onnx")


@pytest.fixture
def plan(onnx: Path, tmp_path: Path) -> Path:
    return plan_of(onnx, tmp_path / "net.plan", PROFILE)


def images(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(count, 3, 16, 16)).astype(np.float32)}


def right(onnx: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    found: np.ndarray = ort.InferenceSession(str(onnx)).run(None, feed)[0]
    return found


@pytest.mark.parametrize("release", trt_double.releases())
def test_the_engine_answers_under_every_release(release: str, onnx: Path, plan: Path, monkeypatch: pytest.MonkeyPatch):
    gpu = installed(Gpu(release), monkeypatch)
    with GpuRunner(plan, "classic") as runner:
        for count in (4, 1, 8, 4):
            feed = images(count, seed=count)
            np.testing.assert_allclose(runner.infer(feed)["logits"], right(onnx, feed), rtol=1e-4, atol=1e-5)
        assert runner.gpu_times(images(2), 2, 0.0).cuda_graph
        feeds = {count: images(count) for count in (1, 8)}  # two batches are bound at once
        (alone, full) = time_pair(runner, runner, feeds, seconds=0.0, min_pairs=3)
        assert (alone.engine.batch, full.engine.batch) == (1, 8)
        np.testing.assert_allclose(runner.infer(feeds[8])["logits"], right(onnx, feeds[8]), rtol=1e-4, atol=1e-5)
        small, large = (runner._placed(feed) for feed in feeds.values())
        for placed, feed in ((large, feeds[8]), (small, feeds[1]), (large, feeds[8])):
            placed.run()
            np.testing.assert_allclose(placed.outputs()["logits"], right(onnx, feed), rtol=1e-4, atol=1e-5)
    assert set(gpu.contexts.values()) == {0}


def test_outputs_stay_when_the_next_batch_runs(plan: Path, gpu: Gpu):
    with GpuRunner(plan, "classic") as runner:
        first = runner.infer(images(4, 1))["logits"]
        kept = first.copy()
        runner.infer(images(4, 2))
    np.testing.assert_array_equal(first, kept)


def test_the_device_alone_and_the_copies_are_told_apart(plan: Path, gpu: Gpu):
    with GpuRunner(plan, "classic") as runner:
        found = runner.gpu_times(images(4), 4, 0.01)
    assert found.cuda_graph
    assert found.note == ""
    assert (found.compute.p50, found.compute.p99) == pytest.approx((8.0, 8.0))  # 4 samples, 2 ms each
    assert found.to_device.p50 == pytest.approx(4 * IMAGE_BYTES / 1000)
    assert found.to_host.p50 == pytest.approx(4 * LOGIT_BYTES / 1000)
    assert found.throughput == pytest.approx(500)
    assert found.clocks == GpuClocks()


def test_median_and_99th_percentile_are_of_single_launches(plan: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch):
    with GpuRunner(plan, "classic") as runner:
        launched: list[int] = []
        plain = gpu._cuGraphLaunch

        def slower_now_and_then(executable: int, stream: int) -> int:
            launched.append(1)
            gpu.streams[stream].now += 30.0 if len(launched) % 12 == 0 else 0.0
            return plain(executable, stream)

        monkeypatch.setattr(
            gpu.libcuda,
            "cuGraphLaunch",
            ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(slower_now_and_then),
        )
        found = runner.gpu_times(images(1), 1, 0.0)
    assert len(launched) == 48
    assert found.compute.p50 == pytest.approx(2.0)
    assert found.compute.p99 == pytest.approx(32.0)
    assert found.throughput == pytest.approx(48 / (48 * 2.0 + 4 * 30.0) * 1e3)


def test_graphs_are_freed(plan: Path, gpu: Gpu):
    with GpuRunner(plan, "classic") as runner:
        runner.gpu_times(images(1), 1, 0.0)
        assert gpu.graphs == {}


def test_a_driver_before_11_4_instantiates_in_the_older_way(plan: Path, gpu: Gpu):
    del gpu.libcuda.cuGraphInstantiateWithFlags
    with GpuRunner(plan, "classic") as runner:
        assert runner.gpu_times(images(1), 1, 0.0).compute.p50 == pytest.approx(2.0)


def refuse_capture(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.refuses_capture = True


def no_library(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(name)

    monkeypatch.setattr(times, "open_driver", cuda_graph.open_driver)
    monkeypatch.setattr(cuda_graph.ctypes, "CDLL", missing)


def old_driver(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    del gpu.libcuda.cuStreamBeginCapture_v2


def oldest_driver(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    del gpu.libcuda.cuGraphInstantiateWithFlags, gpu.libcuda.cuGraphInstantiate_v2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (refuse_capture, "cuStreamEndCapture failed: operation failed due to a previous error during capture"),
        (no_library, "libcuda was not found"),
        (old_driver, "the driver has no cuStreamBeginCapture_v2"),
        (oldest_driver, "the driver has no cuGraphInstantiateWithFlags and no cuGraphInstantiate_v2"),
    ],
)
def test_without_a_graph_kernels_are_launched_one_by_one(
    spoil: Callable[[Gpu, pytest.MonkeyPatch], None],
    words: str,
    plan: Path,
    gpu: Gpu,
    monkeypatch: pytest.MonkeyPatch,
):
    spoil(gpu, monkeypatch)
    with GpuRunner(plan, "classic") as runner:
        found = runner.gpu_times(images(1), 1, 0.0)
    assert not found.cuda_graph
    assert words in found.note
    assert found.compute.p50 == pytest.approx(2.5)
    assert all(stream.recorded is None for stream in gpu.streams.values())


def test_what_fails_while_it_is_captured_ends_the_capture(plan: Path, gpu: Gpu):
    def fail() -> None:
        raise CompileError("no")

    with GpuRunner(plan, "classic") as runner:
        runner.infer(images(1))
        stream = next(iter(gpu.streams.values()))
        with pytest.raises(NotCapturedError, match="cannot be captured: no"):
            capture(Driver(gpu.libcuda), stream.handle, fail)
    assert stream.recorded is None
    assert gpu.graphs == {}


def test_libcuda_is_called_as_its_header_says():
    assert gpu_double.prototypes() == {**NEEDED, **INSTANTIATE}


def test_the_whole_is_timed_beside_the_reference_with_its_copies(plan: Path, gpu: Gpu):
    feeds = {4: images(4), 1: images(1)}
    with GpuRunner(plan, "classic") as engine, GpuRunner(plan, "classic") as reference:
        assert isinstance(engine, BoundRunner)
        assert isinstance(engine, TimedOnGpu)
        streams = set(gpu.streams)
        speeds = time_pair(engine, reference, feeds, seconds=0.02)
        bound = [stream for handle, stream in gpu.streams.items() if handle not in streams]
        assert len(bound) == 4  # a stream each, two sizes of two engines
        # A run copies both ways: the time of a stream is a whole number of them
        one = {size: size * (2.0 + (IMAGE_BYTES + LOGIT_BYTES) / 1000) + 0.5 for size in feeds}
        runs = [stream.now / one[size] for stream, size in zip(bound, (4, 4, 1, 1), strict=True)]
        assert all(count >= 12 for count in runs)
        assert runs == pytest.approx([round(count) for count in runs])
        told = with_gpu_times(speeds, engine, reference, feeds, 0.0)
    assert [speed.engine.batch for speed in told] == [1, 4]
    for before, after in zip(speeds, told, strict=True):
        assert before.engine.gpu is None
        assert (after.engine.p50, after.speedup) == (before.engine.p50, before.speedup)
        for side in (after.engine, after.reference):
            assert isinstance(side.gpu, GpuTimes)
            assert side.gpu.compute.p50 == pytest.approx(2.0 * side.batch)


def test_runners_of_a_cpu_tell_nothing_of_a_gpu():
    from trtcompress_engines.backends.null import NullRunner

    feeds = {1: images(1)}
    speeds = time_pair(NullRunner(), NullRunner(), feeds, seconds=0.0)
    assert with_gpu_times(speeds, NullRunner(), NullRunner(), feeds, 0.0) == speeds


def test_the_nearest_profile_that_holds_the_shape_runs_it(onnx: Path, tmp_path: Path, gpu: Gpu):
    large = {"x": [[1, 3, 16, 16], [32, 3, 16, 16], [64, 3, 16, 16]]}
    plan = plan_of(onnx, tmp_path / "two.plan", PROFILE, large)
    with GpuRunner(plan, "classic") as runner:
        for count, profile in ((4, 0), (8, 0), (9, 1), (2, 0), (64, 1)):
            feed = images(count)
            np.testing.assert_allclose(runner.infer(feed)["logits"], right(onnx, feed), rtol=1e-4, atol=1e-5)
            assert runner._usual.held.profile == profile  # type: ignore[union-attr]
        told = r"was not built for 'x' \[65, 3, 16, 16\]: it takes .* or 'x' \[1, 3, 16, 16\] to \[64, 3, 16, 16\]"
        with pytest.raises(EngineShapeError, match=told) as caught:
            runner.infer(images(65))
    assert (caught.value.where, caught.value.exit_code) == (str(plan), 7)


def test_what_the_engine_reads_on_the_host_is_not_copied(onnx: Path, tmp_path: Path, gpu: Gpu):
    plan = plan_of(onnx, tmp_path / "host.plan", PROFILE, host=["x"])
    with GpuRunner(plan, "classic") as runner:
        for seed in (1, 2):
            feed = images(4, seed)
            np.testing.assert_allclose(runner.infer(feed)["logits"], right(onnx, feed), rtol=1e-4, atol=1e-5)
        found = runner.gpu_times(images(4), 4, 0.0)
    assert found.to_device.p50 == 0
    assert found.to_host.p50 == pytest.approx(4 * LOGIT_BYTES / 1000)


def budgets(gpu: Gpu) -> list[tuple[str, Any]]:
    """What was set before there was a context."""
    names = [name for _, name, _ in gpu.trt.calls]
    before = gpu.trt.calls[: names.index("create_execution_context")]
    after = gpu.trt.calls[len(before) :]
    assert not [name for _, name, _ in after if name.startswith("weight_streaming")]
    return [(name, values[0]) for _, name, values in before if name.startswith("weight_streaming")]


AUTOMATIC = {"8.6.1": [], "10.0.1": [("weight_streaming_budget", -1)]}


@pytest.mark.parametrize("release", trt_double.releases())
def test_weights_that_can_be_streamed_get_a_budget(
    release: str, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    old = release in AUTOMATIC
    key = "weight_streaming_budget" if old else "weight_streaming_budget_v2"
    wanted = {"automatic": AUTOMATIC.get(release, [(key, 250)]), "30%": [(key, 300)], "2%": [(key, 100 if old else 20)]}
    wanted |= {"70": [(key, 100 if old else 70)], "5000": [(key, 0 if old else 1000)]}
    plan = plan_of(onnx, tmp_path / "streamed.plan", PROFILE, streamable=1000)
    for text, expected in wanted.items():
        gpu = installed(Gpu(release), monkeypatch)
        with GpuRunner(plan, "classic", text) as runner:
            assert budgets(gpu) == ([] if release == "8.6.1" else expected), text
            feed = images(2)
            np.testing.assert_allclose(runner.infer(feed)["logits"], right(onnx, feed), rtol=1e-4, atol=1e-5)


def test_an_engine_that_streams_nothing_gets_no_budget(plan: Path, gpu: Gpu):
    with GpuRunner(plan, "classic", "30%"):
        assert budgets(gpu) == []


def test_a_budget_that_is_none_or_is_not_taken_is_told(onnx: Path, tmp_path: Path, gpu: Gpu):
    plan = plan_of(onnx, tmp_path / "streamed.plan", PROFILE, streamable=1000)
    with pytest.raises(CompileError, match="'much' is no budget of streamed weights: give bytes") as caught:
        GpuRunner(plan, "classic", "much").__enter__()
    assert "tensorrt.weight_streaming_budget" in caught.value.hint
    gpu.trt.ICudaEngine.weight_streaming_budget_v2 = property(lambda own: 1000, lambda own, value: None)
    with pytest.raises(CompileError, match="TensorRT takes no budget of 300 bytes for 1000 bytes"):
        GpuRunner(plan, "classic", "30%").__enter__()
    assert set(gpu.contexts.values()) == {0}


def test_the_context_is_current_in_the_thread_that_runs(plan: Path, gpu: Gpu):
    found: list[Any] = []

    def work() -> None:
        with GpuRunner(plan, "classic") as outer, GpuRunner(plan, "classic") as inner:
            found.append((outer.infer(images(1)), inner.infer(images(1))))

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert len(found) == 2
    assert set(gpu.contexts.values()) == {0}


def test_an_engine_of_another_gpu_is_refused_in_the_words_of_tensorrt(onnx: Path, tmp_path: Path, gpu: Gpu):
    plan = plan_of(onnx, tmp_path / "a100.plan", PROFILE, gpu="A100")
    wanted = "cannot load the engine here: The engine plan file is generated on"
    with pytest.raises(EngineLoadError, match=wanted) as told:
        GpuRunner(plan, "classic").__enter__()
    assert told.value.where == str(plan)
    assert set(gpu.contexts.values()) == {0}


def test_a_type_that_numpy_lacks_is_refused(onnx: Path, tmp_path: Path, gpu: Gpu):
    plan = plan_of(onnx, tmp_path / "bf16.plan", PROFILE, types={"logits": "BF16"})
    with pytest.raises(CompileError, match="tensor 'logits' is of type BF16"):
        GpuRunner(plan, "classic").__enter__()


def test_a_length_that_depends_on_the_data_is_refused(tmp_path: Path, gpu: Gpu):
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [2, "found"])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "m.onnx")
    plan = plan_of(tmp_path / "m.onnx", tmp_path / "m.plan", {"x": [[1, 4], [2, 4], [4, 4]]})
    with pytest.raises(CompileError, match="length of its output 'y' depends on the data"):
        GpuRunner(plan, "classic").__enter__()
    assert set(gpu.contexts.values()) == {0}


def test_too_little_memory_is_told(plan: Path, gpu: Gpu):
    gpu.largest = 5 * IMAGE_BYTES
    with GpuRunner(plan, "classic") as runner:
        runner.infer(images(4))
        with pytest.raises(CompileError, match="out of memory"):
            runner.bind(images(8))


def test_a_process_holds_one_flavour(plan: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(CompileError, match="has loaded TensorRT and cannot load TensorRT for RTX too"):
        GpuRunner(plan, "rtx").__enter__()
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", ModuleType("tensorrt_rtx"))
    with pytest.raises(CompileError, match="has loaded TensorRT for RTX and cannot load TensorRT too"):
        GpuRunner(plan, "classic").__enter__()


def test_pycuda_that_does_not_load_is_told(plan: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    monkeypatch.delattr(sys.modules["pycuda"], "driver")
    with pytest.raises(CompileError, match="pycuda does not load"):
        GpuRunner(plan, "classic").__enter__()


def engine_for(plan: Path, onnx: Path, target: str = "l4", built: bool = True) -> Engine:
    return Engine(plan, "0" * 64, target, "tensorrt", "trt-int8", read_model(onnx), built, reproducible=False)


@pytest.mark.parametrize(("target", "flavour"), [("l4", "classic"), ("rtx-4090", "rtx")])
def test_a_backend_opens_its_plan_where_all_is_there(
    target: str, flavour: str, plan: Path, onnx: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trt_open, "gpu_count", lambda: 1)
    monkeypatch.setattr(trt_open, "missing_rtx", lambda: "")
    engine = engine_for(plan, onnx, target)
    runner = backend_for(resolve_target(target)).open(engine)
    assert isinstance(runner, GpuRunner)
    assert (runner._plan, runner._flavour, runner._budget) == (plan, flavour, "automatic")
    asked = replace(engine, details={"weight_streaming_budget": "30%"})
    runner = backend_for(resolve_target(target)).open(asked)
    assert isinstance(runner, GpuRunner)
    assert runner._budget == "30%"


@pytest.mark.parametrize("told", [WHOLE, STRIPPED])
def test_plans_with_and_without_weights_are_told_apart(
    told: str, plan: Path, onnx: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trt_open, "gpu_count", lambda: 1)
    (plan.parent / "refit.py").touch()
    engine = replace(engine_for(plan, onnx), details={"weights": told})
    if told == WHOLE:
        with backend_for(resolve_target("l4")).open(engine) as runner:
            assert set(runner.infer(images(2))) == {"logits"}
    else:
        with pytest.raises(CompileError, match="its plan holds no weights"):
            backend_for(resolve_target("l4")).open(engine)


def test_an_engine_of_another_card_is_refused_before_tensorrt_is_asked(
    plan: Path, onnx: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trt_open, "gpu_count", lambda: 1)
    monkeypatch.setattr(trt_load, "gpu_names", lambda: ["NVIDIA L4"])
    monkeypatch.setattr(trt_load, "gpu_capabilities", lambda: [(8, 9)])
    backend = backend_for(resolve_target("h100"))
    with pytest.raises(EngineLoadError, match=r"the GPU here is NVIDIA L4 \(SM89\), and 'h100' is SM90") as caught:
        backend.open(engine_for(plan, onnx, "h100"))
    assert (caught.value.where, caught.value.exit_code) == (str(plan), 6)
    for engine in (
        engine_for(plan, onnx, "l40s"),
        engine_for(plan, onnx, "a-device-of-a-config"),
        replace(engine_for(plan, onnx, "a100"), details=TensorRTOptions(hardware_compatible=True).told),
    ):
        assert isinstance(backend.open(engine), GpuRunner)


@pytest.mark.parametrize("lacks", ["gpu", "tensorrt", "pycuda", "weights", "build"])
def test_what_is_missing_is_told(lacks: str, plan: Path, onnx: Path, gpu: Gpu, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trt_open, "gpu_count", lambda: 0 if lacks == "gpu" else 1)
    if lacks in ("tensorrt", "pycuda"):
        monkeypatch.delitem(sys.modules, lacks)
    if lacks == "weights":
        (plan.parent / "refit.py").touch()
    words = {
        "gpu": "there is no NVIDIA GPU",
        "tensorrt": "TensorRT is not installed",
        "pycuda": "pycuda is not installed",
        "weights": "its plan holds no weights",
        "build": "it was not built",
    }
    with pytest.raises(CompileError, match=f"an engine for l4 cannot run here: {words[lacks]}") as caught:
        backend_for(resolve_target("l4")).open(engine_for(plan, onnx, built=lacks != "build"))
    assert "trtcompress validate" in caught.value.hint


NVIDIA_SMI = """#!/bin/sh
echo "$@" >>"$0.asked"
case $* in
*clocks.sm*) echo "{clocks}" ;;
*clocks_event_reasons*) {modern} ;;
*clocks_throttle_reasons*) echo "{held}" ;;
esac
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def written(clocks: str = "1980, 2619", held: str = "Active", modern: bool = True) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "nvidia-smi"
        answer = f'echo "{held}"' if modern else "echo 'Field is not a valid field to query.'; exit 2"
        program.write_text(NVIDIA_SMI.format(clocks=clocks, held=held, modern=answer))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return program

    return written


def test_clocks_are_read(nvidia_smi: Callable[..., Path]):
    program = nvidia_smi()
    assert read_clocks("0000:01:00.0") == Reading(1980, 2619, held=True)
    asked = program.with_name("nvidia-smi.asked").read_text().splitlines()
    assert asked[0] == "--id=0000:01:00.0 --query-gpu=clocks.sm,clocks.mem --format=csv,noheader,nounits"


def test_an_older_driver_is_asked_in_its_own_words(nvidia_smi: Callable[..., Path]):
    nvidia_smi(held="Not Active", modern=False)
    assert read_clocks("0") == Reading(1980, 2619, held=False)


def test_what_the_driver_does_not_tell_is_not_known(nvidia_smi: Callable[..., Path], monkeypatch: pytest.MonkeyPatch):
    nvidia_smi(clocks="[N/A], 2619", held="[N/A]")
    assert read_clocks("0") == Reading(None, 2619, None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert read_clocks("0") == Reading()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (Reading(1980, 2619, True), Reading(1965, 2619, True), GpuClocks((1980, 1965), (2619, 2619), True)),
        (Reading(1980, 2619, True), Reading(1965, 2619, False), GpuClocks((1980, 1965), (2619, 2619), False)),
        (Reading(None, 2619, None), Reading(1965, 2619, True), GpuClocks(None, (2619, 2619), None)),
    ],
)
def test_clocks_before_and_after(before: Reading, after: Reading, told: GpuClocks):
    assert between(before, after) == told


def test_clocks_are_noted_with_the_times(
    plan: Path, gpu: Gpu, nvidia_smi: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    nvidia_smi()
    monkeypatch.setattr(times, "read_clocks", read_clocks)
    with GpuRunner(plan, "classic") as runner:
        assert runner.gpu_times(images(1), 1, 0.0).clocks == GpuClocks((1980, 1980), (2619, 2619), True)


def test_nothing_of_a_gpu_is_loaded_before_one_is_used():
    import subprocess

    code = (
        "import sys, trtcompress_engines.backends, trtcompress_engines.gpu.times; "
        "print([name for name in sys.modules if name.startswith(('pycuda', 'tensorrt'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_names_of_gpus(monkeypatch: pytest.MonkeyPatch):
    def put_count(place: Any) -> int:
        place._obj.value = 2
        return 0

    def put_device(place: Any, index: int) -> int:
        place._obj.value = index + 10
        return 0

    def put_name(place: Any, size: int, device: Any) -> int:
        assert size == 256
        place.value = f"NVIDIA L{device.value}".encode()
        return 0

    def put_attribute(place: Any, attribute: int, device: Any) -> int:
        place._obj.value = {75: 8, 76: device.value - 4}[attribute]
        return 0

    driver = SimpleNamespace(
        cuInit=lambda flags: 0,
        cuDeviceGetCount=put_count,
        cuDeviceGet=put_device,
        cuDeviceGetName=put_name,
        cuDeviceGetAttribute=put_attribute,
    )
    monkeypatch.setattr(present.ctypes, "CDLL", lambda name: driver)
    assert present.gpu_names() == ["NVIDIA L10", "NVIDIA L11"]
    assert present.gpu_capabilities() == [(8, 6), (8, 7)]
    assert trt_load.gpu_count() == 2
    assert trt_load.other_card(resolve_target("a10")) == ""
    told = "the GPU here is NVIDIA L10 (SM86), and 'h100' is SM90: build on a machine that has it"
    assert trt_load.other_card(resolve_target("h100")) == told


def test_a_card_of_another_model_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trt_load, "gpu_capabilities", lambda: [(8, 9)])
    monkeypatch.setattr(trt_load, "gpu_names", lambda: ["NVIDIA L4"])
    assert trt_load.unfit_card(resolve_target("l40s")) == ""
    assert trt_load.stand_in(resolve_target("l40s")).startswith("NVIDIA L4, not NVIDIA L40S: ")
    assert trt_load.stand_in(resolve_target("l4")) == ""
    monkeypatch.setattr(trt_load, "gpu_names", lambda: [])
    assert trt_load.stand_in(resolve_target("l4")) == ""


def test_a_card_of_less_memory_builds_nothing_for_one_of_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trt_load, "gpu_capabilities", lambda: [(8, 0)])
    monkeypatch.setattr(trt_load, "gpu_names", lambda: ["NVIDIA A100-SXM4-40GB"])
    told = "the GPU here is NVIDIA A100-SXM4-40GB, and 'a100-80gb' has 80 GB: build on a machine that has it"
    assert trt_load.unfit_card(resolve_target("a100-80gb")) == told
    assert trt_load.other_card(resolve_target("a100-80gb")) == "", "it runs there what was built for the other one"
    assert trt_load.unfit_card(resolve_target("a100")) == ""
    assert trt_load.unfit_card(replace(resolve_target("a100"), memory_gb=None)) == "", "a device of one's own"
    monkeypatch.setattr(trt_load, "gpu_names", lambda: ["NVIDIA A100 80GB PCIe"])
    assert trt_load.unfit_card(resolve_target("a100-80gb")) == trt_load.unfit_card(resolve_target("a100")) == ""
