"""What runs on the device: written for Python 3.8, and with the numbers of the build's own report."""

from __future__ import annotations

import ast
import ctypes
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kits import STAND_INS, run
from trtcompress_engines.gates import GateLimits, judge
from trtcompress_engines.kit.device import buffers, builder, compare, kit, results, tegrastats
from trtcompress_engines.kit.device.kit import KitError
from trtcompress_engines.kit.device.measure import LEAST_PAIRS, MIN_PAIRS, WARMUP, run_alone, time_pair
from trtcompress_engines.metrics import evaluate
from trtcompress_engines.parity import ParityMeter
from trtcompress_graph.measured import MetricResult, OutputParity, Speed

DEVICE = Path(compare.__file__).parent
REPORT = DEVICE.parent / "shell/report.awk"
AWKS = [
    [found, *more]
    for name, *more in (("mawk",), ("gawk", "--posix"), ("original-awk",), ("busybox", "awk"), ("awk",))
    if (found := shutil.which(name))
]
"""Those of Ubuntu, Alpine and BSD, as far as they are here."""
JETPACK = {"tensorrt", "pycuda", "numpy"}
ELSEWHERE = {"onnxruntime"}


@pytest.mark.parametrize("path", sorted(DEVICE.glob("*.py")), ids=lambda path: path.name)
def test_the_code_is_that_of_python_3_8_and_imports_only_what_jetpack_has(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).partition(".")[0])
    assert names <= sys.stdlib_module_names | JETPACK | ELSEWHERE
    assert "annotations" in path.read_text(encoding="utf-8") or path.name == "__init__.py"


@pytest.mark.parametrize("script", ["build", "validate"])
def test_a_python_without_numpy_is_told_what_to_install(tmp_path: Path, script: str):
    shutil.copytree(DEVICE, tmp_path / "kit/device")
    (tmp_path / "kit" / script).write_bytes((DEVICE.parent / "scripts" / script).read_bytes())
    (tmp_path / "kit" / script).chmod(0o755)
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    ran = run(tmp_path / "kit", script, python=bare)
    assert ran.code == 3
    assert "numpy cannot be imported" in ran.err
    assert "sudo apt install python3-numpy" in ran.err
    assert "Traceback" not in ran.err


def batches(seed: int) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(3):
        reference = {
            "scores": rng.normal(size=(4, 10)).astype(np.float32),
            "one": rng.normal(size=(4, 1)).astype(np.float32),
            "equal": rng.integers(0, 9, (4, 3)),
            "all": np.float32(rng.normal()),
            "masked": np.where(rng.random((4, 6)) < 0.3, -np.inf, 1.0).astype(np.float32),
            "zero": np.zeros((4, 2), np.float32),
        }
        engine = {name: value.copy() for name, value in reference.items()}
        for name in ("scores", "one", "all"):
            engine[name] = np.float32(1.05) * engine[name] + np.float32(rng.normal(scale=1e-2))
        found.append((reference, engine))
    return found


@pytest.mark.parametrize("fault", ["none", "nan", "shape"])
def test_differences_are_those_of_the_build(fault: str):
    mine, theirs = compare.ParityMeter(), ParityMeter()
    for reference, engine in batches(0):
        if fault == "nan":
            engine["scores"][1, 2] = np.nan
        if fault == "shape":
            engine["one"] = engine["one"][:2]
        mine.add(reference, engine)
        theirs.add(reference, engine)
    for told, expected in zip(mine.result(), theirs.result(), strict=True):
        for name in ("output", "max_abs", "max_rel", "cosine", "snr_db", "scale"):
            assert told[name] == getattr(expected, name), (told["output"], name)
        assert bool(told["note"]) == bool(expected.note)


@pytest.mark.parametrize("metric", ["top1", "top5", "top1:other"])
def test_accuracy_is_that_of_the_build(metric: str):
    rng = np.random.default_rng(1)
    # few distinct scores, so that there are ties
    outputs = [{"logits": rng.integers(0, 20, (4, 10)) / 2, "other": rng.normal(size=(4, 10))} for _ in range(8)]
    outputs[0]["logits"][0] = np.nan
    labels = [rng.integers(0, 10, 4) for _ in outputs]
    for one, truth in zip(outputs, labels, strict=True):
        for scores in one.values():
            scores[np.arange(4), truth] += 1.5
    whole = {name: np.concatenate([one[name] for one in outputs]) for name in outputs[0]}
    found = compare.hits(metric, outputs, labels)
    assert np.mean(found) == evaluate(metric, whole, whole, np.concatenate(labels)).value
    assert 0 < np.mean(found) < 1


def test_gates_are_judged_as_the_build_judges_them():
    parity = OutputParity("a:b", 0.1, 0.2, cosine=0.98, snr_db=12.0, scale=1.0)
    fast, slow = ({"batch": 2, "p50": p50, "p90": p50, "p99": p50, "throughput": 1.0} for p50 in (2.0, 3.0))
    engine = {
        "parity": [vars_of(parity)],
        "to_pruned": [vars_of(parity)],
        "metrics": [{"name": "top1", "reference_hits": [1, 1, 1, 0], "hits": [1, 1, 0, 0]}],
        "speeds": [{"engine": fast, "reference": slow, "speedup": 1.5}],
        "size_bytes": 3_000_000,
    }
    limits = GateLimits(0.3, 0.99, 10.0, min_speedup=1.6, max_latency_ms=2.0, max_size_mb=2.9)
    metric = MetricResult("top1", 0.75, 0.5, (0, 1), 0.25, (0, 1), 4)
    expected = judge(
        limits,
        parity=(parity,),
        metrics=(metric,),
        speeds=(Speed(latency(fast), latency(slow), 1.5),),
        size_bytes=3_000_000,
        emulated=False,
        measured=True,
    )
    asked = ["max_metric_drop:top1", "min_cosine:a:b", "min_snr_db:a:b", "min_speedup", "max_latency_ms", "max_size_mb"]
    by_name = [0.3, 0.99, 10.0, 1.6, 2.0, 2.9]
    told = results.judge([{"gate": g, "limit": x} for g, x in zip(asked, by_name, strict=True)], engine)
    assert told == [{"gate": g.gate, "limit": g.limit, "value": g.value, "verdict": g.verdict} for g in expected]
    assert {gate["verdict"] for gate in told} == {"pass", "fail"}
    others = ["min_cosine:a:b[to pruned]", "max_metric_drop:my.metric:f", "min_cosine:gone"]
    told = results.judge([{"gate": name, "limit": 0.9} for name in others], engine)
    assert [gate["verdict"] for gate in told] == ["pass", "not_measured", "not_measured"]
    nan = {**engine, "parity": [{**vars_of(parity), "cosine": math.nan}]}
    assert results.judge([{"gate": "min_cosine:a:b", "limit": 0.9}], nan)[0]["verdict"] == "fail"


def vars_of(parity: OutputParity) -> dict[str, object]:
    return {name: getattr(parity, name) for name in parity.__slots__}


def latency(told: dict[str, float]):
    from trtcompress_graph.measured import Latency

    return Latency(int(told["batch"]), told["p50"], told["p90"], told["p99"], told["throughput"])


@pytest.mark.parametrize(
    ("line", "ram", "power"),
    [
        (  # AGX Orin: no rail feeds the whole module
            "RAM 2448/62840MB (lfb 2x4MB) SWAP 0/31420MB (cached 0MB) CPU [0%@2201,off] EMC_FREQ 0%@3199 GR3D_FREQ 0%"
            " tj@53.062C VDD_GPU_SOC 3205mW/3205mW VDD_CPU_CV 4405mW/4405mW VIN_SYS_5V0 4767mW/4767mW",
            2448,
            3205 + 4405 + 4767,
        ),
        (  # the same under JetPack 5, which tells of the memory, too: VIN_SYS_5V0 feeds it
            "11-21-2025 08:49:48 RAM 13983/62780MB (lfb 424x4MB) SWAP 126/31390MB (cached 0MB) CPU [90%@2201] EMC_FREQ "
            "1%@2133 NVDLA0_FREQ @1600 APE 174 tj@77.281C VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW "
            "VIN_SYS_5V0 4968mW/5048mW NC 0mW/0mW VDDQ_VDD2_1V8AO 1091mW/1091mW",
            13983,
            3150 + 14312 + 4968,
        ),
        (  # the same under JetPack 7.2: now, average and greatest
            "07-17-2026 15:15:24 RAM 8182/62817MB (lfb 6x4MB) CPU [18%@729] GR3D_FREQ 5% tj@51.343C/51.343C "
            "VDD_GPU_SOC 3588mW/3588mW/3588mW VDD_CPU_CV 797mW/797mW/797mW VIN_SYS_5V0 5148mW/5148mW/5148mW",
            8182,
            3588 + 797 + 5148,
        ),
        (  # Thor: VIN is the whole
            "07-31-2026 14:45:55 RAM 86905/125772MB (lfb 368x4MB) CPU [12%@972,off] soc345@38.625C VDD_GPU "
            "3561mW/3561mW VDD_CPU_SOC_MSS 7910mW/7910mW VIN_SYS_5V0 7620mW/7620mW VIN 26686mW/26686mW",
            86905,
            26686,
        ),
        (  # Thor, JetPack 7.2
            "08-08-2026 21:00:39 RAM 8353/125749MB (lfb 31x4MB) GR3D_FREQ 87%@[1574,1574,1574] NVENC0_FREQ @1691 VIC "
            "off VDD_GPU 37939mW/8660mW/37939mW VDD_CPU_SOC_MSS 30059mW/12281mW/30059mW VIN_SYS_5V0 "
            "15486mW/7424mW/15486mW VIN 124486mW/36487mW/124486mW",
            8353,
            124486,
        ),
        (  # AGX Xavier, JetPack 4
            "RAM 7000/31918MB (lfb 1x4MB) SWAP 0/15959MB (cached 0MB) CPU [2%@1190] EMC_FREQ 0% GR3D_FREQ 0% GPU 0/0 "
            "CPU 311/311 SOC 933/933 CV 0/0 VDDRQ 155/155 SYS5V 1474/1474",
            7000,
            311 + 933 + 155 + 1474,
        ),
        (  # a GPU that is switched off
            "RAM 1/8MB (lfb 1x1MB) VDD_GPU -392mW/-392mW VDD_CPU_SOC_MSS 3924mW/3835mW VIN_SYS_5V0 5064mW/5055mW",
            1,
            3924 + 5064 - 392,
        ),
        (  # Orin Nano
            "11-26-2026 10:00:00 RAM 1500/7620MB (lfb 1x1MB) CPU [1%@729] VDD_IN 3325mW/3300mW VDD_CPU_GPU_CV "
            "560mW/560mW VDD_SOC 1080mW/1080mW",
            1500,
            3325,
        ),
        (  # Nano, JetPack 4
            "RAM 2594/3956MB (lfb 12x4MB) SWAP 0/1978MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [12%@1479] EMC_FREQ "
            "8% thermal@40.25C POM_5V_IN 2532/2698 POM_5V_GPU 0/123 POM_5V_CPU 401/452",
            2594,
            2532,
        ),
        ("RAM 7/8MB (lfb 1x1MB)", 7, None),
        ("nothing of it", None, None),
    ],
)
def test_tegrastats_of_each_board(line: str, ram: int | None, power: int | None, tmp_path: Path):
    told = tegrastats.parse(line)
    assert told["ram_mb"] == ram
    assert tegrastats.module_mw(told["rails_mw"]) == power
    (tmp_path / "tegrastats").write_text(f"{line}\nnothing of it\n")
    for awk in AWKS:
        command = [*awk, "-v", "name=reference", "-v", "left=[]", "-f", str(REPORT), str(tmp_path / "tegrastats")]
        found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        assert found["ram_mb"] == ram, awk
        assert found["power_w"] == (None if power is None else pytest.approx(power / 1e3)), awk


def test_tegrastats_is_read_while_the_engine_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "tegrastats"
    program.write_text(
        '#!/bin/sh\nfor ram in 10 30 20; do echo "RAM $ram/99MB VDD_IN ${ram}00mW/1mW"; done\nexec sleep 60\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(tegrastats, "PROGRAMS", (str(program),))
    with tegrastats.Sampler() as sampler:
        while len(sampler._lines) < 3:
            time.sleep(0.01)
    assert sampler.result() == {"ram_mb": 30.0, "power_w": 2.0, "peak_power_w": 3.0}
    monkeypatch.setattr(tegrastats, "PROGRAMS", ("no-such-program",))
    with tegrastats.Sampler() as sampler:
        pass
    assert set(sampler.result().values()) == {None}


class Library:
    """libcudart with the memory of the host."""

    def __init__(self) -> None:
        self.status = 0
        self.held: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.cudaGetErrorString = _Words()

    def cudaStreamCreate(self, stream):
        stream._obj.value = 7
        return self.status

    def cudaStreamSynchronize(self, stream):
        assert stream.value == 7
        return self.status

    def cudaMalloc(self, pointer, size):
        memory = ctypes.create_string_buffer(size.value)
        self.held[ctypes.addressof(memory)] = memory
        pointer._obj.value = ctypes.addressof(memory)
        return self.status

    def cudaFree(self, pointer):
        del self.held[pointer.value]
        return 0

    def cudaMemcpy(self, to, source, size, kind):
        assert (to.value in self.held) == (kind.value == 1)
        assert (source.value in self.held) == (kind.value == 2)
        ctypes.memmove(to.value, source.value, size.value)
        return self.status


class _Words:
    restype = None

    def __call__(self, status):
        return b"out of memory"


def test_buffers_over_the_cuda_runtime():
    library = Library()
    device = buffers.CudaRuntime(library)
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffer, back = device.allocate(value.nbytes), np.empty_like(value)
    device.upload(buffer, value)
    device.synchronize()
    device.download(back, buffer)
    np.testing.assert_array_equal(back, value)
    assert device.stream == 7
    assert len(library.held) == 1
    del buffer
    assert not library.held
    library.status = 2
    with pytest.raises(KitError, match=r"cudaMalloc failed: out of memory \(error 2\)"):
        device.allocate(8)


def test_what_pycuda_refuses_is_said_in_its_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(STAND_INS))
    monkeypatch.setenv("STAND_IN_NO_GPU", "1")
    for name in ("pycuda", "pycuda.driver", "pycuda.autoprimaryctx"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(KitError, match="CUDA failed: cuInit failed: no CUDA-capable device is detected") as told:
        buffers.open_device()
    assert told.value.code == 4
    monkeypatch.delenv("STAND_IN_NO_GPU")
    device = buffers.open_device()
    monkeypatch.setenv("STAND_IN_FULL", "1")
    with pytest.raises(KitError, match="CUDA failed: cuMemAlloc failed: out of memory"):
        device.allocate(8)


def test_no_cuda_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(buffers, "LIBRARIES", ("libno-such.so",))
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(KitError, match="LD_LIBRARY_PATH"):
        buffers.open_device()


@pytest.mark.parametrize(("version", "number"), [((8, 5, 2), 8502), ((10, 3, 0), 100300), ((8, 6, 11), 8611)])
def test_the_cache_gets_the_header_of_the_release_on_the_device(version: tuple[int, int, int], number: int):
    from trtcompress_calibration.trt_cache import version_number

    cache = builder.with_own_header(b"TRT-100300-EntropyCalibration2\nx: 3c010a14\n", version)
    assert cache == f"TRT-{number}-EntropyCalibration2\nx: 3c010a14\n".encode()
    assert number == version_number(".".join(map(str, version)))


class Clock:
    """Goes on by what an engine and a reference take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.now, self.seconds = 0.0, seconds
        self.calls: list[str] = []
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def __getattr__(self, name: str):
        def call() -> None:
            self.now += self.seconds[name]
            self.calls.append(name[0])

        return call


def test_a_slow_reference_ends_the_timing_and_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    clock = Clock(monkeypatch, engine=1.0, reference=9.0)
    told = time_pair(clock.engine, clock.reference, batch=1, seconds=4)  # it may take 32 s
    assert clock.calls.count("r") == 4 + 4
    assert told["speedup"] == 9
    assert capsys.readouterr().out == "  batch 1: 10.0 s a run of both, about 84 s in all ...\n"
    clock.calls.clear()
    time_pair(clock.engine, clock.reference, batch=1, seconds=0.01)
    assert clock.calls.count("r") == 1 + LEAST_PAIRS
    capsys.readouterr()
    clock.seconds = {"engine": 0.01, "reference": 0.09}
    clock.calls.clear()
    time_pair(clock.engine, clock.reference, batch=1, seconds=0.5)
    assert clock.calls.count("r") == 5 + MIN_PAIRS
    assert capsys.readouterr().out == ""


def test_an_engine_runs_alone_for_so_long_and_once_at_the_least(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch, engine=0.3)
    run_alone(clock.engine, 2.0)
    assert len(clock.calls) == 7
    clock.seconds["engine"] = 60.0
    run_alone(clock.engine, 2.0)
    assert len(clock.calls) == 8


def test_times_come_in_pairs():
    calls: list[str] = []
    told = time_pair(lambda: calls.append("e"), lambda: calls.append("r"), batch=4, seconds=0.001)
    timed = calls[2 * WARMUP :]
    assert timed[:4] == ["e", "r", "r", "e"]
    assert timed.count("e") == timed.count("r") >= MIN_PAIRS
    assert told["engine"]["batch"] == 4
    assert told["engine"]["throughput"] == pytest.approx(4e3 / told["engine"]["p50"])
    assert 0 < told["engine"]["p50"] <= told["engine"]["p90"] <= told["engine"]["p99"]


@pytest.mark.parametrize(
    ("version", "path"), [("8.4.1", None), ("8.5.2", "older"), ("8.6.2", "older"), ("10.0.0", "new"), ("", "new")]
)
def test_each_release_takes_the_graph_that_its_parser_reads(version: str, path: str | None):
    held = kit.Kit.__new__(kit.Kit)
    older = {"before": [10, 0], "path": "older", "since": [8, 5], "refused": "Trilu"}
    held.facts = {"models": {"m": {"path": "new", "older": older}, "n": {"path": "new", "older": None}}}
    assert held.engine("n", version)["path"] == "new"
    if path is None:
        with pytest.raises(KitError, match=r"m: not for TensorRT 8\.4\.1: Trilu"):
            held.engine("m", version)
    else:
        assert held.engine("m", version)["path"] == path
