"""Every call of TensorRT's Python API that builds an engine, for 8.4 to 11.

From 10 on a graph is strongly typed, and 11 takes no other; 8 takes the types of the graph only where flags allow them.
What a release does not have of what is asked is left out and told, but for a DLA and a calibration cache: without them
there is no such engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .kit import KitError
from .trt import version_of

FLAGS = {"version_compatible": "VERSION_COMPATIBLE", "refit": "REFIT", "weight_streaming": "WEIGHT_STREAMING"}
"""Flag of the builder by what is asked."""


@dataclass(frozen=True)
class Task:
    """An engine to build.

    Attributes:
        model: the ONNX file.
        name: of the engine.
        profiles: for each profile least, usual and greatest shape of each dynamic input.
        flags: names of BuilderFlag; those of types are for graphs that are not strongly typed.
        asked: what the config asks of the builder.
        timing: the timing cache to start from, or None.
        cache: calibration.cache, for the implicit path.
        dla: core of the DLA; what it cannot run goes to the GPU.
    """

    model: Path
    name: str
    profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]] = ()
    flags: Sequence[str] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    timing: bytes | None = None
    cache: bytes | None = None
    dla: int | None = None


def build_plan(trt: Any, task: Task) -> tuple[bytes, list[str]]:
    """Build an engine; what this release lacks of what is asked comes back beside it, in words.

    Raises:
        KitError: TensorRT refuses the graph, or has no DLA or no implicit INT8, which are asked.
    """
    version = version_of(trt)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    _refuse(trt, builder, task)
    typed = version[0] >= 10 and task.cache is None and task.dla is None
    creation = trt.NetworkDefinitionCreationFlag
    wanted = [creation.STRONGLY_TYPED] if typed else [creation.EXPLICIT_BATCH] if version[0] < 10 else []
    network = builder.create_network(sum(1 << int(flag) for flag in wanted))
    parser = trt.OnnxParser(network, logger)
    compatible = task.asked.get("version_compatible") or task.asked.get("hardware_compatible")
    if compatible and (8, 6) <= version[:2] < (10, 0):
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)  # what such an engine is built with, on by itself later
    if not parser.parse_from_file(str(task.model)):
        words = "; ".join(_told(parser.get_error(i)) for i in range(parser.num_errors))
        raise KitError(f"TensorRT cannot read {task.name}: {words}", code=4)
    if told := [one.name for one in map(network.get_input, range(network.num_inputs)) if one.is_shape_tensor]:
        what = "{} takes shapes as values ({}), for which a kit has no ranges: give them as constants of the graph"
        raise KitError(what.format(task.name, ", ".join(told)), code=4)
    config = builder.create_builder_config()
    _set_flags(trt, config, task, typed)
    left_out = _set_options(trt, config, task, typed)
    profile = None
    for shapes in task.profiles:
        profile = builder.create_optimization_profile()
        for name, (least, usual, greatest) in shapes.items():
            profile.set_shape(name, tuple(least), tuple(usual), tuple(greatest))
        config.add_optimization_profile(profile)
    if task.cache is not None:
        calibrator = _calibrator(trt, with_own_header(task.cache, version))  # TensorRT does not keep it alive
        config.int8_calibrator = calibrator
        if profile is not None:
            config.set_calibration_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise KitError(f"TensorRT could not build {task.name}; its messages above say why", code=4)
    return bytes(plan), left_out


def _refuse(trt: Any, builder: Any, task: Task) -> None:
    """What no engine can be built without.

    Raises:
        KitError: it is not here.
    """
    # 11 has a DLA again on some devices, in strongly typed graphs alone, which this one would not be
    if task.dla is not None and (version_of(trt)[0] >= 11 or builder.num_DLA_cores <= task.dla):
        what = "TensorRT {} builds {} for no DLA here: JetPack 6 does, or build it without one"
        raise KitError(what.format(trt.__version__, task.name), code=4)
    if task.cache is not None and not hasattr(trt, "IInt8EntropyCalibrator2"):
        what = "TensorRT {} has no calibration caches, by which {} is INT8: build its Q/DQ engines, or use TensorRT 10"
        raise KitError(what.format(trt.__version__, task.name), code=4)


def _set_flags(trt: Any, config: Any, task: Task, typed: bool) -> None:
    """Types, sparse weights, and what a DLA needs."""
    for flag in task.flags:
        if typed and flag in ("FP16", "INT8", "BF16"):
            continue
        if not hasattr(trt.BuilderFlag, flag):
            raise KitError(f"TensorRT {trt.__version__} has no {flag}: build for another precision")
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if task.dla is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = task.dla
        for flag in ("GPU_FALLBACK", "PREFER_PRECISION_CONSTRAINTS"):
            config.set_flag(getattr(trt.BuilderFlag, flag))


def _set_options(trt: Any, config: Any, task: Task, typed: bool) -> list[str]:
    """Set what the config asks; returns what cannot be had here."""
    asked, left_out = task.asked, []
    lacks = f"TensorRT {trt.__version__} has no {{}}"
    if asked.get("tf32") is False:
        config.clear_flag(trt.BuilderFlag.TF32)
    if "workspace_mb" in asked:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, asked["workspace_mb"] << 20)
    if "optimization_level" in asked:
        if hasattr(config, "builder_optimization_level"):
            config.builder_optimization_level = asked["optimization_level"]
        else:
            left_out.append(lacks.format("optimization_level"))
    if asked.get("hardware_compatible"):
        if hasattr(trt, "HardwareCompatibilityLevel"):
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        else:
            left_out.append(lacks.format("hardware_compatible"))
    for name, flag in FLAGS.items():
        if not asked.get(name):
            continue
        if not hasattr(trt.BuilderFlag, flag):
            left_out.append(lacks.format(name))
        elif name == "weight_streaming" and not typed:
            left_out.append("weight_streaming needs a strongly typed graph, which the scales of a cache have not")
        else:
            config.set_flag(getattr(trt.BuilderFlag, flag))
    if task.timing is not None:
        held = config.create_timing_cache(task.timing)
        if not config.set_timing_cache(held, False):
            left_out.append("timing_cache is of another release of TensorRT or another device: tactics are measured")
    return left_out


def with_own_header(cache: bytes, version: tuple[int, int, int]) -> bytes:
    """The cache under the header of this very release: TensorRT ignores one of another patch release."""
    major, minor, patch = version
    number = major * (10000 if major >= 10 else 1000) + minor * 100 + patch
    _, _, lines = cache.partition(b"\n")
    return f"TRT-{number}-EntropyCalibration2\n".encode() + lines


def _told(error: Any) -> str:
    """What the parser says, with the node by its name where that is told (from 10 on)."""
    if not hasattr(error, "node_name"):
        return f"{error.desc()} (node {error.node()})"
    return f"{error.desc()} (node {error.node_name()}, {error.node_operator()})"


def _calibrator(trt: Any, cache: bytes) -> Any:
    """A calibrator that has the scales already and no samples."""

    class FromCache(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, cache: bytes) -> None:
            pass

    return FromCache()
