"""Classic TensorRT: built where the card is; elsewhere the graph is checked and the word given how to build it."""

from __future__ import annotations

import shutil
from pathlib import Path

from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import CompileError, UsageError
from trtcompress_graph.load import copy_model
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from ..backend import CompileOptions, Runner, Shape, not_here
from ..files import staged
from ..parsed_graphs import OLDER, parsed_by
from ..tensorrt_options import BUILT_BY, BUILT_ON, LAID_OUT_FOR, TensorRTOptions, pinned, refuse
from ..tensorrt_release import Feature, Release, release_of
from .trt_calibrator import check_batches
from .trt_load import gpu_count, missing_classic, missing_rtx, stand_in, unfit_card
from .trt_open import open_plan
from .trt_process import build_plan, release_here
from .trt_profiles import checked_profiles
from .trt_recipe import CALIBRATION_CACHE, FLOAT, TIMING_CACHE, Recipe, make_recipe
from .trt_reproduce import write_reproduce
from .trt_trtexec import as_line, trtexec

_TOLD = ("int8_nodes", "fp8_nodes")

PROFILES = "profiles"
"""Key of `Engine.details`: how many optimization profiles there are, where there are several."""

CHECKED = ((8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities of TensorRT for RTX that take every type a graph for classic TensorRT may hold.

SM75 is not among them: TensorRT for RTX refuses FP32 products there, which classic TensorRT builds.
"""


class TensorRTBackend:
    """Engines for data-centre cards and Jetson devices."""

    name = "tensorrt"

    def missing(self) -> str:
        """Empty where TensorRT is installed and a GPU is present."""
        return missing_classic() or ("" if gpu_count() else "there is no NVIDIA GPU: build on a machine that has it")

    def compile(self, graph: Model, target: Target, encoding_name: str, options: CompileOptions, out: Path) -> Engine:
        """Build where the card is here, else check the graph; the engine then is the graph, not built."""
        if not_here(target):
            return self._check(graph, target, encoding_name, options, out)
        release, file = release_here("classic"), f"model.{encoding_name}.plan"
        _check_version(options.tensorrt.version, release)
        refuse(options.tensorrt, target, release, gpu=True)
        with staged(out) as folder:
            source, told = _source(graph, target, options, release, folder)
            recipe = lay_out(source, release, file, options, graph)
            result = build_plan(source, recipe, folder, options.implicit.batches if options.implicit else None)
            digest = files_digest([folder / file])
            caches = {
                name.replace(".", "_"): files_digest([folder / name])
                for name in (TIMING_CACHE, CALIBRATION_CACHE)
                if (folder / name).is_file()
            }
            write_reproduce(recipe, source, folder)
        return Engine(
            path=out / file,
            digest=digest,
            target=target.name,
            backend=self.name,
            encoding=encoding_name,
            graph=graph,
            built=True,
            reproducible=False,
            details={
                BUILT_BY: result.version,
                **({BUILT_ON: card} if (card := stand_in(target)) else {}),
                **told,
                **result.details,
                **_several(recipe),
                **caches,
                **options.tensorrt.told,
            },
        )

    def open(self, engine: Engine, threads: int = 0) -> Runner:
        """A runner for the plan, where the GPU that it was built for is the first of this machine."""
        return open_plan(engine, "classic")

    def _check(self, graph: Model, target: Target, encoding_name: str, options: CompileOptions, out: Path) -> Engine:
        release = release_of(target, options.tensorrt.version, needed(options))
        refuse(options.tensorrt, target, release, gpu=True)
        checked = check_graph(graph, target, options, out)
        with staged(out) as folder:
            source, told = _source(graph, target, options, release, folder)
            recipe = lay_out(source, release, graph.path.with_suffix(".plan").name, options, graph)
            write_reproduce(recipe, source, folder)
        return Engine(
            path=graph.path,
            digest=graph.digest,
            target=target.name,
            backend=self.name,
            encoding=encoding_name,
            graph=graph,
            built=False,
            reproducible=True,
            details={
                "checked": checked,
                LAID_OUT_FOR: release.version,
                **({"not_built": card} if (card := unfit_card(target)) and target.how == "local" else {}),
                **told,
                **_several(recipe),
                **options.tensorrt.told,
                "how_to_build": how_to_build(recipe, target),
            },
        )


def _check_version(asked: str, release: Release) -> None:
    """Refuse another TensorRT than the one that is asked for.

    Raises:
        UsageError: this machine has another one.
    """
    if asked and Release(release.flavour, asked).number != release.number:
        raise UsageError(
            f"{release.title} is installed here, and {asked} was asked for",
            where="tensorrt.version",
            hint="leave it out, or build on a machine that has that release",
        )


def _source(
    graph: Model, target: Target, options: CompileOptions, release: Release, folder: Path
) -> tuple[Model, dict[str, str]]:
    """What TensorRT is given, with the caches beside it, and what was done to it.

    It is the graph, or the float model where the scales stand in a cache; in an older opset where the parser takes no
    newer one.
    """
    if options.tensorrt.timing_cache is not None:
        pinned(options.tensorrt)
        shutil.copyfile(options.tensorrt.timing_cache, folder / TIMING_CACHE)
    source = graph
    if options.implicit is not None:
        source = copy_model(options.implicit.graph, folder / FLOAT)
        if options.implicit.batches:
            check_batches(options.implicit.batches, _usual(options.implicit.graph, options), release)
        else:
            (folder / CALIBRATION_CACHE).write_text(options.implicit.cache, encoding="utf-8")
    try:
        source, told = parsed_by(release, source, folder / OLDER)
    except CompileError:
        if target.how != "kit":  # a kit tells which of its engines a release goes without
            raise
        return source, {}
    return source, {"built_of": told} if told else {}


def _several(recipe: Recipe) -> dict[str, str]:
    return {PROFILES: str(len(recipe.profiles))} if len(recipe.profiles) > 1 else {}


def _usual(graph: Model, options: CompileOptions) -> dict[str, Shape]:
    """Shapes that TensorRT calibrates on: the usual ones of the last profile."""
    profiles = checked_profiles(graph, options)
    fixed = {spec.name: tuple(dim for dim in spec.shape if isinstance(dim, int)) for spec in graph.inputs}
    return fixed | {name: shapes[1] for name, shapes in profiles[-1].items()} if profiles else fixed


def needed(options: CompileOptions) -> tuple[Feature, ...]:
    """What a release has to have for an engine."""
    return (*options.tensorrt.asked, *(("implicit",) if options.implicit is not None else ()))


def lay_out(source: Model, release: Release, plan: str, options: CompileOptions, graph: Model) -> Recipe:
    """The recipe of an engine, built of `source`, in the types of `graph`.

    Raises:
        CompileError: a profile does not fit the graph.
    """
    profiles = checked_profiles(source, options)
    implicit = options.implicit is not None
    return make_recipe(
        release, source, plan, options.tensorrt, profiles, implicit=implicit, typed=graph, tf32=options.tf32
    )


def check_graph(graph: Model, target: Target, options: CompileOptions, scratch: Path) -> str:
    """Send the graph through parser and builder of TensorRT for RTX. Returns what was checked, in words.

    The plan is built in the folder `scratch` and thrown away.

    Raises:
        CompileError: they refuse it.
    """
    if lacking := missing_rtx():
        return f"no: {lacking}"
    capability = nearest(target.compute_capabilities[0])
    profiles = checked_profiles(graph, options)
    recipe = make_recipe(
        release_here("rtx"), graph, "check.plan", TensorRTOptions(), profiles, capabilities=(capability,)
    )
    with staged(scratch) as folder:
        result = build_plan(graph, recipe, folder)
        (folder / recipe.plan).unlink()
    major, minor = capability
    told = ", ".join(f"in {key[:-6].upper()}: {told}" for key, told in result.details.items() if key in _TOLD)
    return f"parsed and built by TensorRT for RTX {result.version} for SM{major}{minor}" + (f"; {told}" if told else "")


def nearest(capability: tuple[int, int]) -> tuple[int, int]:
    """The greatest checked compute capability up to this one, or the least."""
    return max((known for known in CHECKED if known <= capability), default=CHECKED[0])


def how_to_build(recipe: Recipe, target: Target) -> str:
    """The command that builds the engine on the machine or device that has the card."""
    place = (
        f"on {target.title} with {recipe.release.title}"
        if target.how == "local"
        else f"on the device ({target.title}, {_release(recipe, target)})"
    )
    return f"{place}: {as_line(trtexec(recipe))}"


def _release(recipe: Recipe, target: Target) -> str:
    """The platform releases that have the TensorRT of the recipe."""
    offered = (*target.tensorrt, *target.installable)
    return ", ".join(f"{name} with TensorRT {version}" for name, version in offered if recipe.release.same_as(version))
