"""`./validate`: each engine against the golden outputs, timed against the reference, judged by the gates."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import compare, outputs, results
from .build import built
from .kit import IMPLICIT, OTHER_ENGINE, REFERENCE, Golden, Kit, KitError, digest
from .measure import run_alone, time_pair
from .tegrastats import Sampler

if TYPE_CHECKING:
    Open = Callable[[str], tuple[Any, dict[str, Any]]]
    """From the name of an engine to the engine and what is known of its file."""

ALONE_S = 2.0
"""How long an engine runs alone, for its memory and power."""


def validate(kit: Kit, backend: str, seconds: float, output: Path) -> int:
    """Check and measure, and write results.json and junit.xml. Returns 1 where a gate fails.

    Raises:
        KitError: nothing is built, or an engine cannot run.
    """
    opened, device = _tensorrt(kit) if backend == "tensorrt" else _onnxruntime(kit)
    golden = kit.golden()
    reference, about = opened(REFERENCE)
    plain: dict[str, Any] = {
        "speeds": [],
        "activation_bytes": None,
        "streamed_budget": None,
        "outputs": [],
        "gates": [],
    }
    found = [dict(about, **_accuracy(kit, reference, golden)[0], **plain, **_NOTHING)]
    for name in _to_check(kit, backend, device["tensorrt"]):
        found.append(_checked(kit, opened, name, reference, golden, seconds, output))
    del reference  # each engine runs alone now: else the memory and power of both would be told as its own
    for facts in found:
        facts.update(_alone(kit, opened, facts, golden[0]))
    about_kit = {"name": kit.facts["name"], "target": kit.facts["target"], "digest": kit.digest}
    whole = {"version": 1, "kit": about_kit, "backend": backend, "device": device, "engines": found}
    counted = {"golden": sum(one.count for one in golden), "usual_batch": kit.facts["usual_batch"]}
    results.write(output, dict(whole, **counted))
    print(f"wrote {output / results.RESULTS} and {output / results.JUNIT}")
    judged = [gate for engine in found if engine["encoding"] != IMPLICIT for gate in engine["gates"]]
    return int(any(gate["verdict"] == "fail" for gate in judged))


def _to_check(kit: Kit, backend: str, version: str) -> list[str]:
    """Engines beside the reference; one that is not there is passed over, since the others may be.

    Raises:
        KitError: there is none.
    """
    names = [name for name in kit.facts["models"] if name != REFERENCE]
    if backend != "tensorrt":
        return [name for name in names if not kit.facts["models"][name]["cache"]]
    there = [name for name in names if built(kit, name, version) is not None]
    for name in names:
        if name not in there and (name != IMPLICIT or kit.plan(name).is_file()):
            again = "./build --implicit, or --dla CORE" if name == IMPLICIT else "./build"
            print(f"{name}: passed over, it is not built, or by another TensorRT: {again}")
    if not there:
        raise KitError("no engine is built: run ./build first", code=2)
    return there


def _checked(
    kit: Kit,
    opened: Open,
    name: str,
    reference: Any,
    golden: list[Golden],
    seconds: float,
    folder: Path,
) -> dict[str, Any]:
    """Accuracy, times and gates of one engine, which is freed with that."""
    engine, about = opened(name)
    print(f"{name}: checking {len(golden)} golden samples ...", flush=True)
    fixed = about.get("dla") is not None
    compared = _like_the_first(golden) if fixed else golden
    accuracy, answers = _accuracy(kit, engine, compared)
    facts = dict(about, **accuracy, **_NOTHING)
    facts["outputs"] = _kept(kit, folder, name, compared, answers)
    facts["activation_bytes"] = engine.activation_bytes
    facts["streamed_budget"] = engine.streamed_budget
    facts["speeds"] = _speeds(kit, engine, reference, golden[0], seconds, fixed)
    facts["gates"] = results.judge(kit.facts["gates"], facts)
    for gate in facts["gates"]:
        print("  {}: {}".format(gate["verdict"].replace("_", " "), results.told(gate)), flush=True)
    return facts


_NOTHING: dict[str, Any] = {"ram_mb": None, "power_w": None, "peak_power_w": None}


def _alone(kit: Kit, opened: Open, facts: dict[str, Any], first: Golden) -> dict[str, float | None]:
    """Memory and power of an engine at its usual batch size, with no other one on the device."""
    sampler = Sampler()
    if not sampler.there:
        return _NOTHING
    name = facts["encoding"]
    print(f"{name}: running alone, for its memory and power ...", flush=True)
    engine, _ = opened(name)
    feed = _feed(first, None if facts.get("dla") is not None or not kit.facts["batches"] else kit.facts["usual_batch"])
    call = engine.bind(feed)
    call()  # what is loaded with the first run is no part of it
    with sampler:
        run_alone(call, ALONE_S)
    return sampler.result()


def _tensorrt(kit: Kit) -> tuple[Open, dict[str, str]]:
    from . import trt as api
    from .buffers import open_device

    trt = api.load(kit.releases, kit.asked)
    device = open_device()

    def opened(name: str) -> tuple[Any, dict[str, Any]]:
        note = built(kit, name, trt.__version__)
        if note is None and kit.plan(name).is_file():
            what = f"{name} was not built by TensorRT {trt.__version__}, which is here, or not to its end: run ./build"
            raise KitError(what, code=OTHER_ENGINE)
        if note is None:
            raise KitError(f"{name} is not built: run ./build first", code=2)
        plan = kit.plan(name).read_bytes()
        return api.TensorRTEngine(trt, plan, device, kit.budget, note.get("dla")), dict(note, encoding=name)

    return opened, dict(_machine(), tensorrt=trt.__version__, cuda=device.name)


def _onnxruntime(kit: Kit) -> tuple[Open, dict[str, str]]:
    from .ort import OnnxRuntimeEngine

    def opened(name: str) -> tuple[Any, dict[str, Any]]:
        path = kit.model(name)
        size = sum(file.stat().st_size for file in path.parent.iterdir())
        facts = {"encoding": name, "graph_sha256": kit.facts["models"][name]["sha256"], "sha256": digest(path)}
        return OnnxRuntimeEngine(path), dict(facts, size_bytes=size)

    return opened, dict(_machine(), tensorrt="", cuda="")


def _machine() -> dict[str, str]:
    """The board by its own name, its release of Jetson Linux, and Python."""
    release = _line("/etc/nv_tegra_release")
    model = _line("/proc/device-tree/model") or platform.machine()
    return {"model": model, "release": release, "python": platform.python_version(), "numpy": np.__version__}


def _line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[0].strip("\0 \n")
    except (OSError, IndexError):
        return ""


def _accuracy(kit: Kit, engine: Any, golden: list[Golden]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the golden samples say of an engine, and its answers to each batch of them."""
    parity, to_pruned = compare.ParityMeter(), compare.ParityMeter()
    answers = []
    for one in golden:
        answer = one.real(engine.infer(one.inputs))
        parity.add(one.outputs, answer)
        to_pruned.add(one.pruned, answer)
        answers.append({name: answer[name] for name in one.outputs if name in answer})
    expected, labels = [one.outputs for one in golden], [one.labels for one in golden]
    metrics = [
        {
            "name": name,
            "reference_hits": compare.hits(name, expected, labels),
            "hits": compare.hits(name, answers, labels),
        }
        for name in kit.facts["metrics"]
    ]
    return {"parity": parity.result(), "to_pruned": to_pruned.result() or None, "metrics": metrics}, answers


def _kept(
    kit: Kit, folder: Path, name: str, golden: list[Golden], answers: list[dict[str, Any]]
) -> list[dict[str, str]]:
    """Keep the answers where a metric is computed of them later, and say so."""
    if not kit.facts["scored_later"]:
        return []
    asked = ", ".join(kit.facts["scored_later"])
    print(f"  outputs kept: trtcompress import-results computes {asked} of them; copy {folder} as a whole", flush=True)
    return [
        outputs.keep(folder, name, one.index, one.digest, answer)
        for one, answer in zip(golden, answers)  # noqa: B905 - Python 3.8
    ]


def _like_the_first(golden: list[Golden]) -> list[Golden]:
    """Those that an engine of fixed shapes takes."""
    shapes = {name: value.shape for name, value in golden[0].inputs.items()}
    return [one for one in golden if {name: value.shape for name, value in one.inputs.items()} == shapes]


def _speeds(kit: Kit, engine: Any, reference: Any, first: Golden, seconds: float, fixed: bool) -> list[dict[str, Any]]:
    """Times at each batch size of the build, on the first golden sample."""
    sizes: list[int | None] = list(kit.facts["batches"])
    speeds = []
    for size in [None] if fixed or not sizes else sizes:
        feed = _feed(first, size)
        mine, other = engine.bind(feed), reference.bind(feed)
        speed = time_pair(mine, other, first.filled if size is None else size, seconds)
        print("  batch {batch}: p50 {p50:.3g} ms, p99 {p99:.3g} ms".format(**speed["engine"]), flush=True)
        speeds.append(speed)
    return speeds


def _feed(first: Golden, size: int | None) -> dict[str, Any]:
    """The first golden sample, repeated to a batch size."""
    return dict(first.inputs) if size is None else {name: _tiled(value, size) for name, value in first.inputs.items()}


def _tiled(value: Any, size: int) -> Any:
    return np.ascontiguousarray(np.resize(value, (size, *value.shape[1:])))
