"""A model of several towers served tower by tower, and as one: an engine for each, and their ensemble."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from trtcompress_engines.backends.trt_recipe import CALIBRATION_CACHE, FLOAT, TIMING_CACHE
from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import CompileError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.part import check_towers, write_part
from trtcompress_graph.target import Engine, Target

from .builder import DEFAULT, BuilderRef
from .compiling import compile_model
from .packaging import TOWERS_ELSEWHERE
from .profiles import named_axes, usual_shapes

if TYPE_CHECKING:
    from trtcompress_engines.backend import ImplicitScales
    from trtcompress_engines.triton.options import TritonOptions

NEAR = 1e-3
"""How far a tower may be from the whole engine, by its greatest value: kernels may be fused otherwise."""


def pack_towers(
    engine: Engine,
    target: Target,
    repository: Path,
    *,
    name: str,
    form: str,
    axes: Axes,
    towers: Mapping[str, Sequence[str]],
    options: TritonOptions,
    builder: BuilderRef = DEFAULT,
) -> str:
    """Write `NAME_TOWER_model`, the engine of each tower; `NAME_TOWER`, which asks it; and `NAME`, which asks all.

    Clients ask what is an ensemble, so that a new version of all can be put beside the old one (see `asked_models`).

    Costs an engine a tower: each is compiled of its part of the graph of the engine that was checked, and where it
    can run here it is run beside it.

    Args:
        engine: of the whole model.
        target: what it was built for.
        repository: folder of models.
        name: of the ensemble.
        form: kind of repository.
        axes: ranges of the dynamic axes, as in the config.
        towers: outputs of each.
        options: for each tower.
        builder: what was asked of TensorRT's builder for the engine; each tower is built alike.

    Returns:
        Empty, or why there is nothing to pack.

    Raises:
        UsageError: an output belongs to no tower or to two, or there is none of that name.
        CompileError: a tower is not what it is in the whole engine, or the backend refuses it.
    """
    from trtcompress_engines.triton.batch_axis import batch_axis
    from trtcompress_engines.triton.batching import batching
    from trtcompress_engines.triton.bound import as_bound
    from trtcompress_engines.triton.ensemble import Tower, write_ensemble
    from trtcompress_engines.triton.repository import write_repository

    check_towers(engine.graph, towers, "triton.towers")
    served: dict[str, Tower] = {}
    with TemporaryDirectory(prefix="trtcompress-") as folder:
        for tower, outputs in towers.items():
            aside = Path(folder) / tower
            part = write_part(engine.graph, outputs, Path(folder) / f"{tower}.onnx")
            ranges = {spec.name: axes[spec.name] for spec in part.inputs if spec.name in axes}
            threads = engine.details.get("threads", "")
            made = compile_model(
                part,
                target,
                engine.encoding,
                ranges,
                aside,
                threads=int(threads) if threads.isdecimal() else 0,
                builder=_of_part(builder, part, engine),
                implicit=_implicit(engine, outputs, Path(folder) / f"{tower}.float.onnx"),
            )
            if not made.built:
                return f"{form}: not packed; {TOWERS_ELSEWHERE}"
            _compare(engine, made, target, axes, tower)
            own = named_axes(part, ranges)
            called = f"{name}_{tower}_model"
            write_repository(made, target, repository, name=called, format=form, axes=own, options=options)
            batch = batching(part, own, options)
            served[called] = Tower(as_bound(made), batch, (batch_axis(part, own) or "") if batch.max_size else "")
    for tower, (called, one) in zip(towers, served.items(), strict=True):
        write_ensemble(repository, f"{name}_{tower}", {called: one})
    write_ensemble(repository, name, served)
    return ""


def _of_part(builder: BuilderRef, part: Model, engine: Engine) -> BuilderRef:
    """What is asked, for a part of the model: profiles of its own inputs, and the timing cache beside the engine."""
    read = {spec.name for spec in part.inputs}
    profiles = [{name: axes for name, axes in one.items() if name in read} for one in builder.profiles]
    distinct = [one for place, one in enumerate(profiles) if one not in profiles[:place]]
    options = builder.options
    if options.timing_cache is not None:
        options = replace(options, timing_cache=engine.graph.path.with_name(TIMING_CACHE), timing_cache_sha256="")
    return replace(builder, options=options, profiles=tuple(distinct) if any(distinct) else ())


def _implicit(engine: Engine, outputs: Sequence[str], path: Path) -> ImplicitScales | None:
    """The part of the float model whose scales stand in a cache; None where they stand in the graph.

    Both lie beside the engine. The scales of tensors that the part lacks are not read.
    """
    from trtcompress_engines.backend import ImplicitScales

    model, cache = (engine.graph.path.with_name(name) for name in (FLOAT, CALIBRATION_CACHE))
    if not (model.is_file() and cache.is_file()):
        return None
    return ImplicitScales(write_part(read_model(model), outputs, path), cache.read_text(encoding="utf-8"))


def _compare(whole: Engine, part: Engine, target: Target, axes: Axes, tower: str) -> None:
    """Run both on one made-up sample; nothing where they cannot run here."""
    import numpy as np

    from trtcompress_engines.backend import backend_for

    if target.how != "cpu":
        return
    backend = backend_for(target)
    rng = np.random.default_rng(0)
    shapes = usual_shapes(whole.graph, axes)
    feed = {
        spec.name: (
            rng.standard_normal(shapes[spec.name]) if spec.dtype.startswith("float") else np.ones(shapes[spec.name])
        ).astype(spec.dtype)
        for spec in whole.graph.inputs
    }
    read = {spec.name for spec in part.graph.inputs}
    with backend.open(whole) as one, backend.open(part) as other:
        wanted, found = one.infer(feed), other.infer({name: array for name, array in feed.items() if name in read})
    for name, array in found.items():
        most = float(np.abs(wanted[name].astype(np.float64)).max(initial=0.0))
        apart = float(np.abs(array.astype(np.float64) - wanted[name].astype(np.float64)).max(initial=0.0))
        if not apart <= NEAR * max(most, 1e-6):
            raise CompileError(
                f"'{name}' is {apart:.3g} apart from that of the whole engine, of up to {most:.3g}",
                where=f"tower '{tower}'",
                hint="serve the whole model: leave triton.towers out",
            )
