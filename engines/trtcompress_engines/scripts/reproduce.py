#!/usr/bin/env python3
"""Build this engine again, with the TensorRT of this machine and nothing else: python3 reproduce.py [--force].

The files that it names lie beside it. --force also builds with files that have changed, and with another major release
of TensorRT than the engine was laid out for.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RECIPE: dict[str, Any] = {}
DIGESTS: dict[str, str] = {}

HERE = Path(__file__).resolve().parent
RTX_PLUGIN = "onnxruntime_ep_nv_tensorrt_rtx"
RTX_LIBRARIES = ("libcudart.so*", "libtensorrt_rtx.so*", "libtensorrt_onnxparser_rtx.so*")


def main() -> None:
    """Build, and write the plan."""
    force = "--force" in sys.argv[1:]
    check_files(force)
    trt = load()
    check_release(trt, force)
    plan = build(trt)
    partial = HERE / f"{RECIPE['plan']}.partial"
    partial.write_bytes(plan)
    partial.replace(HERE / RECIPE["plan"])
    print("wrote", HERE / RECIPE["plan"])


def check_files(force: bool) -> None:
    """Refuse files that are not those which the engine was made of."""
    for name, digest in DIGESTS.items():
        path = HERE / name
        if not path.is_file():
            if name == RECIPE["timing_cache"]:
                print(f"warning: {name} is not here: tactics are measured anew, and may be others")
                continue
            sys.exit(f"error: {path} is not here; copy the whole folder of the engine")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest and not force:
            sys.exit(f"error: {path} is not the file that the engine was made of (--force takes it)")


def load() -> Any:
    """Import TensorRT."""
    if RECIPE["flavour"] == "classic":
        return import_module("tensorrt")
    plugin = find_spec(RTX_PLUGIN)
    if not find_spec("tensorrt_rtx_libs") and plugin and plugin.origin:
        for pattern in RTX_LIBRARIES:
            for library in sorted(Path(plugin.origin).parent.glob(pattern))[:1]:
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return import_module("tensorrt_rtx" if find_spec("tensorrt_rtx") else "tensorrt_rtx_bindings")


def check_release(trt: Any, force: bool) -> None:
    """Refuse another major release, whose types are chosen in another way; tell of another minor one."""
    wanted, found = numbers(RECIPE["version"]), numbers(trt.__version__)
    if wanted[0] != found[0] and not force:
        sys.exit(
            f"error: this engine was laid out for TensorRT {RECIPE['version']}, and {trt.__version__} is installed "
            "(--force builds with it)"
        )
    if wanted[:2] != found[:2]:
        print(f"warning: laid out for TensorRT {RECIPE['version']}, built with {trt.__version__}: loads there alone")


def numbers(version: str) -> list[int]:
    """Major, minor and patch."""
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def build(trt: Any) -> bytes:
    """Parse and build."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        if RECIPE[name.lower()]:
            flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if RECIPE["native_instance_norm"]:
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    if not parser.parse_from_file(str(HERE / RECIPE["onnx"])):
        sys.exit("error: " + "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)))
    config = configure(trt, builder)
    calibrator = scales(trt) if RECIPE["calibration_cache"] else None  # TensorRT does not keep it alive
    if calibrator is not None:
        config.int8_calibrator = calibrator
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        sys.exit("error: TensorRT could not build the engine; it has said why")
    if calibrator is not None and calibrator.asked:
        sys.exit(
            f"error: TensorRT did not take the scales of {RECIPE['calibration_cache']}: it went to calibrate by itself"
        )
    keep_timing(config)
    return bytes(plan)


def configure(trt: Any, builder: Any) -> Any:
    """The configuration of the builder."""
    config = builder.create_builder_config()
    for flag in RECIPE["flags"]:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if RECIPE["tf32"] is False:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if RECIPE["workspace_mb"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, RECIPE["workspace_mb"] << 20)
    if RECIPE["optimization_level"] is not None:
        config.builder_optimization_level = RECIPE["optimization_level"]
    if RECIPE["hardware"]:
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, RECIPE["hardware"])
    if RECIPE["capabilities"]:
        config.num_compute_capabilities = len(RECIPE["capabilities"])
        for index, name in enumerate(RECIPE["capabilities"]):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    if RECIPE["dla"] is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = RECIPE["dla"]
    for shapes in RECIPE["profiles"]:
        profile = builder.create_optimization_profile()
        for name, (least, usual, greatest) in shapes.items():
            profile.set_shape(name, tuple(least), tuple(usual), tuple(greatest))
        config.add_optimization_profile(profile)
    if RECIPE["calibration_cache"] and RECIPE["profiles"]:
        config.set_calibration_profile(profile)
    if RECIPE["timing_cache"]:
        path = HERE / RECIPE["timing_cache"]
        held = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        if not config.set_timing_cache(held, False):
            sys.exit(f"error: {path} is of another release of TensorRT or another GPU")
    return config


def keep_timing(config: Any) -> None:
    """Leave the tactics that were measured, where none were given."""
    path = HERE / RECIPE["timing_cache"]
    if RECIPE["timing_cache"] and not path.exists():
        path.write_bytes(bytes(config.get_timing_cache().serialize()))


def under_own_header(cache: bytes, version: str) -> bytes:
    """The cache under the header of this very release: TensorRT ignores one of another patch."""
    _, _, rest = cache.partition(b"\n")
    major, minor, patch = [*numbers(version), 0, 0][:3]
    number = major * (10000 if major >= 10 else 1000) + minor * 100 + patch
    return b"TRT-%d-EntropyCalibration2\n" % number + rest


def scales(trt: Any) -> Any:
    """A calibrator that measures nothing: it hands out the scales of the cache under the name of this release."""

    class Scales(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        asked = False

        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            self.asked = True

        def read_calibration_cache(self) -> bytes:
            return under_own_header(Path(HERE, RECIPE["calibration_cache"]).read_bytes(), trt.__version__)

        def write_calibration_cache(self, cache: Any) -> None:
            pass

    return Scales()


if __name__ == "__main__":
    main()
