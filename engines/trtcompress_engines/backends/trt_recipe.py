"""All decisions of one build, made: what the worker does through Polygraphy, and what `reproduce` does without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trtcompress_graph.model import Model

from ..backend import Profile
from ..builder_flags import type_flags
from ..sparsity import sparse_weights
from ..tensorrt_options import TensorRTOptions
from ..tensorrt_release import Flavour, Release

TIMING_CACHE = "timing.cache"
CALIBRATION_CACHE = "calibration.cache"
FLOAT = "float.onnx"
"""The float model beside the graph, where the scales stand in a cache."""

_HAS_BF16 = (9, 0)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make a plan of an ONNX file. Files are named without a folder: they lie beside each other.

    Attributes:
        flavour: `rtx` or `classic`.
        version: of TensorRT.
        onnx: the graph.
        plan: the engine.
        profiles: least, usual and greatest shape by input; several where the builder is to optimize for several.
        explicit_batch: set that flag of the network.
        strongly_typed: set that flag of the network.
        native_instance_norm: set that flag of the parser.
        flags: of the builder, by their names.
        tf32: whether float32 may be multiplied as TF32; None leaves it to TensorRT.
        workspace_mb: MiB; None is all (in trtexec before 8.4: see there).
        optimization_level: None is TensorRT's own.
        hardware: name of the compatibility level, or empty.
        capabilities: what TensorRT for RTX builds for, as `SM86`.
        timing_cache: measured tactics, read where it is there, and left; or empty.
        calibration_cache: scales of the implicit path, or empty.
        dla: core, or None.
    """

    flavour: Flavour
    version: str
    onnx: str
    plan: str
    profiles: tuple[Mapping[str, Profile], ...] = ()
    explicit_batch: bool = False
    strongly_typed: bool = False
    native_instance_norm: bool = False
    flags: tuple[str, ...] = ()
    tf32: bool | None = None
    workspace_mb: int | None = None
    optimization_level: int | None = None
    hardware: str = ""
    capabilities: tuple[str, ...] = ()
    timing_cache: str = ""
    calibration_cache: str = ""
    dla: int | None = None

    @property
    def release(self) -> Release:
        """That builds."""
        return Release(self.flavour, self.version)


def sm(capability: tuple[int, int]) -> str:
    """A compute capability as TensorRT for RTX calls it: `SM86`."""
    major, minor = capability
    return f"SM{major}{minor}"


def make_recipe(
    release: Release,
    graph: Model,
    plan: str,
    options: TensorRTOptions,
    profiles: Sequence[Mapping[str, Profile]],
    *,
    capabilities: Sequence[tuple[int, int]] = (),
    implicit: bool = False,
    typed: Model | None = None,
    tf32: bool = False,
) -> Recipe:
    """Decide.

    Args:
        release: that builds.
        graph: the ONNX file that is built.
        plan: name of the engine file.
        options: what the user asks, and has been granted.
        profiles: least, usual and greatest shapes; empty where no axis is dynamic.
        capabilities: compute capabilities for TensorRT for RTX.
        implicit: the graph is a float one and its scales stand in `calibration.cache`.
        typed: the graph in whose types it may compute, where float16 was widened for the parser.
        tf32: let classic TensorRT multiply float32 as TF32.
    """
    classic = release.flavour == "classic"
    # A DLA takes its types from flags in the releases that have one
    flagged = implicit or options.dla is not None or release.typing == "flags"
    return Recipe(
        flavour=release.flavour,
        version=release.version,
        onnx=graph.path.name,
        plan=plan,
        profiles=tuple(profiles) if options.dla is None else _fixed(profiles),
        explicit_batch=release.explicit_batch,
        strongly_typed=classic and not flagged,
        native_instance_norm=release.native_instance_norm
        and (options.hardware_compatible or options.version_compatible),
        flags=(
            *(_precision(release, typed or graph, options, implicit) if flagged else ()),
            *_flags(release, graph, options),
        ),
        tf32=tf32 if classic else None,
        workspace_mb=options.workspace_mb,
        optimization_level=options.optimization_level,
        hardware="AMPERE_PLUS" if options.hardware_compatible else "",
        capabilities=tuple(map(sm, capabilities)),
        timing_cache=TIMING_CACHE if classic else "",
        calibration_cache=CALIBRATION_CACHE if implicit else "",
        dla=options.dla,
    )


def _fixed(profiles: Sequence[Mapping[str, Profile]]) -> tuple[Mapping[str, Profile], ...]:
    """The usual shapes of the first profile alone: a DLA takes no others."""
    return tuple({name: (usual, usual, usual) for name, (_, usual, _) in held.items()} for held in profiles[:1])


def _precision(release: Release, graph: Model, options: TensorRTOptions, implicit: bool) -> tuple[str, ...]:
    """Before version 10 flags allow the types that stand in the graph; on the implicit path those of its engine."""
    if implicit:
        return ("FP16", "INT8")
    on_dla = {"FP16"} if options.dla is not None else set()  # which computes nothing in float32
    lacking = {"BF16"} if release.number < _HAS_BF16 else set()  # whose parser refuses the graph in words
    return tuple(sorted({*type_flags(graph), *on_dla} - lacking))


def _flags(release: Release, graph: Model, options: TensorRTOptions) -> tuple[str, ...]:
    sparse = bool(sparse_weights(graph.path)) if options.sparse is None else options.sparse
    wanted = {
        "SPARSE_WEIGHTS": sparse,
        "REFIT": options.refit,
        "STRIP_PLAN": options.strip,
        # Weights that come back are those of the same file, so that constants may still be folded around them
        "REFIT_IDENTICAL": options.strip and not options.refit,
        "WEIGHT_STREAMING": options.weight_streaming,
        "VERSION_COMPATIBLE": options.version_compatible,
        "GPU_FALLBACK": options.dla is not None,
        release.keeps_types: options.dla is not None,
    }
    return tuple(name for name, asked in wanted.items() if asked)
