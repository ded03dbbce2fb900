"""Runs builds over the double of a release, in a process of its own: `python trt_on_double.py RELEASE CASES`.

CASES is a JSON file: a list of {onnx, folder, recipe, batches, answers}, of {script, arguments}, or of {kit}, the task
of a kit's builder, whose caches are texts. With `ignores_caches` TensorRT takes no cache of scales. What was called is
printed as JSON, a list a case.
"""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from trt_double import ANSWERS, double, read


def main(release: str, cases: str) -> None:
    trt: Any = double(read(release))
    trt.__spec__ = ModuleSpec("tensorrt", None)
    sys.modules["tensorrt"] = trt
    stand_in_for_pycuda()
    build = trt.Builder.build_serialized_network
    from trtcompress_engines.backends import trt_worker

    told = []
    for case in json.loads(Path(cases).read_text()):
        trt.calls.clear()
        trt.answers.update({**ANSWERS, **case.get("answers", {})})
        trt.Builder.build_serialized_network = calibrating(build) if case.get("ignores_caches") else build
        if "script" in case:
            told.append(run_script(trt, case))
            continue
        if "kit" in case:
            told.append(run_kit(trt, case["kit"]))
            continue
        recipe = case["recipe"]
        request = trt_worker.Request("classic", case["onnx"], case["folder"], recipe, case.get("batches", ""))
        result = trt_worker.build(request)
        told.append({"error": result.error, "calls": shown(trt.calls), "calibrated": calibrate(trt.calls)})
    print(json.dumps(told))


def calibrate(calls: list[tuple[str, str, tuple[Any, ...]]]) -> dict[str, Any] | None:
    """Ask a calibrator as TensorRT does: for the cache, and where there is none for batches until there are no more."""
    given = [values[0] for owner, name, values in calls if (owner, name) == ("IBuilderConfig", "int8_calibrator")]
    if not given:
        return None
    cache, batches = given[-1].read_calibration_cache(), []
    while cache is None and (pointers := given[-1].get_batch(["x"])) is not None:
        batches.append(pointers)
    if cache is None:
        given[-1].write_calibration_cache(memoryview(b"TRT-8601-EntropyCalibration2\nx: 3c010a14\n"))
    return {"cache": None if cache is None else bytes(cache).decode(), "batches": batches, "copied": COPIED}


def calibrating(build: Any) -> Any:
    """A build that asks the calibrator for batches, as TensorRT does where a cache is not of its release."""

    def instead(builder: Any, network: Any, config: Any) -> Any:
        config.int8_calibrator.get_batch(["x"])
        return build(builder, network, config)

    return instead


COPIED: list[list[Any]] = []


def stand_in_for_pycuda() -> None:
    """Device memory that starts at address 1000, and what was copied to where."""
    package, driver, context = (ModuleType(f"pycuda{name}") for name in ("", ".driver", ".autoprimaryctx"))
    package.__spec__ = ModuleSpec("pycuda", None)
    addresses = iter(range(1000, 100_000, 1000))
    driver.mem_alloc = lambda size: next(addresses)  # type: ignore[attr-defined]
    driver.memcpy_htod = lambda place, array: COPIED.append([place, list(array.shape), str(array.dtype)])  # type: ignore[attr-defined]
    package.driver, package.autoprimaryctx = driver, context  # type: ignore[attr-defined]
    sys.modules |= {"pycuda": package, "pycuda.driver": driver, "pycuda.autoprimaryctx": context}


def run_script(trt: Any, case: dict[str, Any]) -> dict[str, Any]:
    """One of the scripts beside an engine."""
    sys.argv = [case["script"], *case.get("arguments", [])]
    error = ""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_path(case["script"], run_name="__main__")
        except SystemExit as stop:
            error = str(stop.code or "")
    return {"error": error, "calls": shown(trt.calls), "calibrated": calibrate(trt.calls)}


def run_kit(trt: Any, task: dict[str, Any]) -> dict[str, Any]:
    """What a kit does on its device."""
    from trtcompress_engines.kit.device import builder, kit

    caches = {key: task[key].encode() for key in ("timing", "cache") if key in task}
    try:
        plan, left_out = builder.build_plan(trt, builder.Task(**{**task, "model": Path(task["model"]), **caches}))
    except kit.KitError as error:
        return {"error": str(error), "calls": shown(trt.calls)}
    return {
        "error": "",
        "calls": shown(trt.calls),
        "calibrated": calibrate(trt.calls),
        "plan": plan.decode(),
        "left_out": left_out,
    }


def shown(calls: list[tuple[str, str, tuple[Any, ...]]]) -> list[list[Any]]:
    """Calls as JSON: members of enumerations by name, objects by class, bytes by length."""
    return [[owner, name, *map(_shown, values)] for owner, name, values in calls]


def _shown(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(value)} bytes"
    if isinstance(value, (int, float, str, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [_shown(each) for each in value]
    return getattr(value, "name", None) or type(value).__name__


if __name__ == "__main__":
    main(*sys.argv[1:])
