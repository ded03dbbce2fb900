"""What a user may ask of TensorRT's builder, and what a device or a release refuses of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import MissingPathError, UsageError
from trtcompress_graph.target import Target

from .kit.device.streaming import AUTOMATIC, BudgetError, parse_budget
from .tensorrt_release import Feature, Release

AMPERE = (8, 0)
SECTION = "tensorrt"

BUDGET = "weight_streaming_budget"
"""Key of `Engine.details`: the budget that whoever runs the engine here sets."""

BUILT_BY, LAID_OUT_FOR = "tensorrt", "laid_out_for"
"""Keys of `Engine.details`: the release of classic TensorRT that built a plan, and that one has to be built by."""

BUILT_ON = "built_on"
"""Key of `Engine.details`: the card that built a plan, where it is of another model than the target's."""

WEIGHTS = "weights"
"""Key of `Engine.details`, of plans that can be refitted: whether they hold weights (WHOLE) or none (STRIPPED)."""
WHOLE = "in the plan; they can be exchanged"
STRIPPED = "not in the plan; refit.py beside it puts them in"

OTHER_CARDS = "hardware_compatible"
"""Key of `Engine.details`, of plans that run on other cards than their target's too."""


@dataclass(frozen=True, slots=True)
class TensorRTOptions:
    """Options of the builder; the defaults are TensorRT's own.

    Attributes:
        workspace_mb: MiB of device memory that a layer may use while it is chosen and run.
        optimization_level: 0 to 5: how long the builder searches.
        timing_cache: a file of measured tactics to start from.
        timing_cache_sha256: what that file must be.
        hardware_compatible: one engine for every card from Ampere on.
        version_compatible: an engine that later releases of the same major version load.
        refit: weights can be exchanged later.
        strip: the plan holds no weights; they come from the ONNX file where it is loaded.
        weight_streaming: weights may stay in host memory.
        weight_streaming_budget: of GPU memory for them where this machine or a kit runs the engine: bytes, a share of
            them (`30%`), or empty for TensorRT's own choice.
        sparse: try sparse kernels; None: where weights are 2:4 sparse.
        dla: core of the deep learning accelerator; what it does not take runs on the GPU.
        version: of TensorRT on the machine that builds; empty: what is installed, or the newest of the device that has
            what is asked.
    """

    workspace_mb: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    timing_cache_sha256: str = ""
    hardware_compatible: bool = False
    version_compatible: bool = False
    refit: bool = False
    strip: bool = False
    weight_streaming: bool = False
    weight_streaming_budget: str = ""
    sparse: bool | None = None
    dla: int | None = None
    version: str = ""

    @property
    def asked(self) -> tuple[Feature, ...]:
        """The features that these options ask for."""
        given = {name: getattr(self, name, None) for name in get_args(Feature)}
        return tuple(name for name, value in given.items() if value is not None and value is not False)

    @property
    def told(self) -> dict[str, str]:
        """What an engine's details tell to whoever runs it."""
        told = {}
        if self.weight_streaming:
            told[BUDGET] = self.weight_streaming_budget or AUTOMATIC
        if self.refit or self.strip:
            told[WEIGHTS] = STRIPPED if self.strip else WHOLE
        if self.hardware_compatible:
            told[OTHER_CARDS] = "on every card from Ampere on"
        return told


def refuse(options: TensorRTOptions, target: Target, release: Release, *, gpu: bool) -> None:
    """Say what cannot be had, before any work.

    Args:
        options: what is asked.
        target: the device.
        release: that builds for it.
        gpu: whether the machine that builds has an NVIDIA driver.

    Raises:
        UsageError: options that exclude each other, or that the device or the release does not have.
        MissingPathError: there is no such timing cache.
    """
    for feature, reason in _device(options, target, gpu, release).items():
        if feature in options.asked and reason:
            raise _refusal(feature, target, reason)
    for feature in options.asked:
        if lacking := release.lacks(feature):
            raise _refusal(feature, target, lacking)
    if options.version_compatible and (options.refit or options.strip):
        raise _refusal("version_compatible", target, "a version-compatible engine cannot be refitted")
    if options.weight_streaming_budget:
        _check_budget(options)
    pinned(options)


def pinned(options: TensorRTOptions) -> str:
    """SHA-256 (hex) of the timing cache; empty where none is given.

    Raises:
        MissingPathError: there is no such file.
        UsageError: it is not the one that was meant.
    """
    path = options.timing_cache
    if path is None:
        return ""
    where = f"{SECTION}.timing_cache: {path}"
    if not path.is_file():
        hint = "every engine that classic TensorRT builds leaves one beside it: timing.cache"
        raise MissingPathError("there is no such timing cache", where=where, hint=hint)
    found = files_digest([path])
    if options.timing_cache_sha256 not in ("", found):
        what = f"the timing cache is another one: its SHA-256 is {found}, and {options.timing_cache_sha256} was asked"
        raise UsageError(what, where=where, hint="give the file that was meant, or its digest")
    return found


def _check_budget(options: TensorRTOptions) -> None:
    """Refuse a budget that is none, or where nothing is streamed."""
    where = f"{SECTION}.{BUDGET}"
    if not options.weight_streaming:
        raise UsageError("there is a budget, and no weights are streamed", where=where, hint="weight_streaming: true")
    try:
        parse_budget(options.weight_streaming_budget, 0)
    except BudgetError as error:
        raise UsageError(str(error), where=where, hint='weight_streaming_budget: "30%"') from error


def _device(options: TensorRTOptions, target: Target, gpu: bool, release: Release) -> Mapping[Feature, str]:
    """Why the device does not have a feature; empty where it does."""
    oldest = min(target.compute_capabilities, default=AMPERE)
    jetson = target.how == "kit"
    refit = "TensorRT for RTX needs an NVIDIA driver to build it, and there is none here"
    cores = f"it has {target.dla} DLA cores, 0 to {target.dla - 1}" if target.dla else "it has no DLA"
    return {
        "hardware_compatible": "JetPack does not support it"
        if jetson
        else "it begins with Ampere (SM80)"
        if oldest < AMPERE
        else "",
        "sparse": "sparse kernels begin with Ampere (SM80)" if oldest < AMPERE else "",
        "dla": "" if options.dla is None or 0 <= options.dla < target.dla else cores,
        "refit": "" if release.flavour == "classic" or gpu else refit,
        "strip": "" if release.flavour == "classic" or gpu else refit,
    }


def _refusal(feature: Feature, target: Target, reason: str) -> UsageError:
    return UsageError(
        f"{feature} cannot be had for '{target.name}': {reason}",
        where=f"{SECTION}.{feature}",
        hint=f"leave it out, or set it for other targets alone: targets: [{{name: {target.name}, tensorrt: {{}}}}]",
    )
