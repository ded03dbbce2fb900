"""One engine to one served model, for the package stage and for `trtcompress package`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtcompress_graph.axes import Axes
from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import ModelError
from trtcompress_graph.target import Engine, Target

from .builder import DEFAULT, BuilderRef
from .config import PackageFormat, TritonSettings
from .profiles import named_axes
from .stage import DataRef, FunctionRef

if TYPE_CHECKING:
    from trtcompress_engines.triton.options import TritonOptions

BUILD_DIR = "BUILD_DIR"
"""Stands for the build folder in what a stage says: a stage does not know where its results will lie."""

BROUGHT = "model.plan"
"""Name of a plan that was built elsewhere; the word how to build it (`how_to_build`) writes it so."""

_MAGIC = b"ftrt"
"""What a plan begins with, of TensorRT 8 to 11."""

TOWERS_ELSEWHERE = (
    "triton.towers needs an engine of each tower, and this target's engine of the whole is built elsewhere; "
    "to serve the whole engine, leave triton.towers out and build again"
)
"""Why towers are not served of an engine that cannot be built here, whatever is brought."""


@dataclass(frozen=True, slots=True)
class Around:
    """What is served before and behind an engine.

    Attributes:
        preprocess: how images become its input, as in the config; None: it takes arrays.
        postprocess: the user's function that makes the answer of its outputs.
        sources: globs of further files that the function reads.
        samples: on which the function is tried.
    """

    preprocess: Mapping[str, Any] | None = None
    postprocess: FunctionRef | None = None
    sources: tuple[str, ...] = ()
    samples: DataRef | None = None


NOTHING = Around()


def pack(
    engine: Engine,
    target: Target,
    repository: Path,
    *,
    name: str,
    form: PackageFormat,
    axes: Axes,
    triton: TritonSettings,
    builder: BuilderRef = DEFAULT,
    around: Around = NOTHING,
    build_dir: str = BUILD_DIR,
    with_kit: bool = False,
) -> str:
    """Write the model into a Triton repository.

    Args:
        engine: what to serve.
        target: what it was built for.
        repository: folder of models; made if it is missing.
        name: under which clients ask for the model.
        form: kind of repository.
        axes: ranges of the dynamic axes, as in the config.
        triton: settings of the config.
        builder: what is asked of TensorRT's builder, for the engines of towers.
        around: what is served before and behind the engine.
        build_dir: where the engine's folder lies, for the word how to go on.
        with_kit: a kit is made beside it, and need not be told of.

    Returns:
        Empty, or why there is nothing to pack: the engine is not built yet.
    """
    if not engine.built and triton.towers:
        return f"{form}: not packed; {TOWERS_ELSEWHERE}"
    if engine.backend == "tensorrt" and form != "triton":
        return f"{form}: not packed; plans of TensorRT are served by Triton's own backend: package: [triton]"
    if not engine.built:
        step = how_to_go_on(engine, build_dir, target=None if with_kit else target)
        return f"{form}: not packed, the engine is not built yet; {step}"
    from trtcompress_engines.triton.repository import write_repository

    options = triton_options(triton)
    repository.mkdir(parents=True, exist_ok=True)
    if triton.towers:
        from .towers import pack_towers

        served = (engine, target, repository)
        return pack_towers(
            *served, name=name, form=form, axes=axes, towers=triton.towers, options=options, builder=builder
        )
    if around != NOTHING:
        from .served_steps import pack_steps

        pack_steps(engine, target, repository, name=name, form=form, axes=axes, around=around, options=options)
        return ""
    write_repository(
        engine, target, repository, name=name, format=form, axes=named_axes(engine.graph, axes), options=options
    )
    return ""


def triton_options(triton: TritonSettings) -> TritonOptions:
    """What the config says of a served model."""
    from trtcompress_engines.triton.options import TritonOptions

    return TritonOptions(
        max_queue_delay_us=triton.max_queue_delay_us,
        instances=triton.instances,
        warmup="zero" if triton.warmup else "off",
    )


def how_to_go_on(engine: Engine, build_dir: str, repository: str = "repository", target: Target | None = None) -> str:
    """From an engine that can only be built on another machine to a served model, step by step.

    Such an engine is TensorRT's, which is served in the format `triton` alone. A device that takes a kit gets that word
    first: it builds and measures all engines there.
    """
    if target is not None and target.how == "kit":
        kit = f"trtcompress package {build_dir} --target {engine.target} --format jetson -o kit"
        by_hand = how_to_go_on(engine, build_dir, repository)
        return (
            f"{kit} (in the folder of the config) makes a kit that builds and measures all engines on the device; by "
            f"hand instead: {by_hand}"
        )
    folder = f"{build_dir}/engines/{engine.target}/{engine.encoding}"
    return (
        f"1. copy {folder}/{engine.graph.path.name} and what lies beside it to the machine with the card; "
        f"2. {engine.details.get('how_to_build', 'build it there')}; 3. copy {BROUGHT} back to {folder}/; "
        f"4. trtcompress package {build_dir} --target {engine.target} -o {repository}"
    )


def with_brought_plan(engine: Engine) -> Engine:
    """The engine itself, or the plan of it that was built on the card's machine and copied back beside its graph.

    Nothing here can read such a plan. What `--remote` brought says of which files it was built; of any other that is
    taken on trust, but what begins as no plan does is none, and one that is older than the graph beside it was built of
    another.

    Raises:
        ModelError: this is no plan, or it is empty, of another graph, older than the graph or a link.
    """
    plan = engine.graph.path.with_name(BROUGHT)
    if engine.built or engine.backend != "tensorrt" or not os.path.lexists(plan):
        return engine
    again = engine.details.get("how_to_build", "build it on the machine with the card")
    if plan.is_symlink() or not plan.is_file() or not plan.stat().st_size:
        raise ModelError("this is no plan: a link, a folder, or an empty file", where=str(plan), hint=again)
    from .remote_record import built_by, built_of_others

    by = built_by(plan.parent)
    with plan.open("rb") as stream:
        if not by and stream.read(len(_MAGIC)) != _MAGIC:
            what = "this is no plan of TensorRT, which would begin with the bytes `ftrt`"
            raise ModelError(what, where=str(plan), hint=f"copy it again, or {again}")
    if built_of_others(plan.parent):
        what = "this plan was built of another graph than the one that lies beside it now"
        raise ModelError(what, where=str(plan), hint=f"build with --remote again, or {again}")
    if plan.stat().st_mtime < engine.graph.path.stat().st_mtime:
        raise ModelError(
            "this plan is older than the graph beside it", where=str(plan), hint=f"build it of this graph: {again}"
        )
    details = {**engine.details, **by}
    return replace(engine, path=plan, digest=files_digest([plan]), built=True, reproducible=False, details=details)
