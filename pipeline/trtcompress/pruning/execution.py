"""Carrying a cut out: into the graph, through the reconstruction, onto the disk, and into the plan."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trtcompress_graph.load import copy_model, load_ir, save_ir
from trtcompress_graph.model import Model

from .cut import Alive, Cut
from .plan import Cost, GroupCut, PrunePlan, TensorCut
from .samples import Samples
from .soundness import check_runs_like
from .subject import Subject
from .surgery import apply_cut

if TYPE_CHECKING:
    from trtcompress_calibration.gram import Gram

Progress = Callable[[str, int, int | None], None]


def carry_out(
    subject: Subject,
    units: Collection[int],
    out: Path,
    *,
    solve: bool,
    data: Samples | None,
    progress: Progress,
    grams: Mapping[str, Gram] | None = None,
    reference: Subject | None = None,
    accept: Callable[[Model], None] | None = None,
) -> Model:
    """Cut units out of a model, mend what is left, check it, and write it.

    Args:
        subject: the model.
        units: what goes.
        out: the file to write.
        solve: mend: with data solve the consumers' weights anew, without merge what goes into what is alike.
        data: samples.
        progress: told how far it is.
        grams: statistics of layers' inputs, where they are known; else they are measured.
        accept: looks at the model before it gets its name, and raises where it is not what was asked for.
        reference: the model from before residual blocks were taken out; None: the same.

    Raises:
        PruneError: the cut does not hold together.
        DataError: samples that do not fit.
    """
    cut = Cut.of(subject.coupling.relations, units)
    graph = load_ir(subject.model)
    if solve and data is None:
        from .merging import merge

        merge(graph, subject, cut)
    apply_cut(graph, subject.coupling, cut, subject.shapes)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        model = save_ir(graph, Path(folder) / "cut.onnx")
        shallower = reference is not None and reference is not subject
        if solve and data is not None and (cut.dead or shallower):
            from trtcompress_calibration.layers import linear_layers

            from .choice import moments
            from .reconstruction import reconstruct

            if grams is None:
                grams = moments(subject, linear_layers(subject.graph.graph, subject.shapes), data, progress)
            model = reconstruct(
                subject.model,
                model,
                Path(folder) / "solved.onnx",
                subject.coupling,
                cut,
                data,
                shapes=subject.shapes,
                grams=grams,
                reference=reference.model if reference is not None and shallower else None,
                progress=progress,
            )
        if accept is not None:
            accept(model)
        first = (sample.inputs for sample in islice(data or (), 1))
        check_runs_like(subject.model, model, subject.inputs, first)
        return copy_model(model, out)


def group_cuts(
    subject: Subject, units: Collection[int], scores: dict[str, dict[int, float]], damages: dict[str, float]
) -> tuple[GroupCut, ...]:
    """For the plan: what goes of each group that is cut."""
    gone = set(units)
    alive = Alive(subject.coupling.factors, Cut.of(subject.coupling.relations, gone))
    found = []
    for group in subject.coupling.groups:
        places = tuple(place for place, unit in enumerate(group.units) if unit in gone)
        if not places:
            continue
        held = scores.get(group.name, {})
        found.append(
            GroupCut(
                group=group.name,
                kind=group.kind,
                units=len(group.units),
                kept=len(group.units) - len(places),
                gone=places,
                scores=tuple(float(f"{held[unit]:.6g}") for unit in group.units) if held else (),
                damage=damages.get(group.name),
                tensors=tuple(_tensor_cuts(subject, alive, group.weights)),
            )
        )
    return tuple(found)


def _tensor_cuts(subject: Subject, alive: Alive, weights: Iterable[tuple[str, int]]) -> Iterable[TensorCut]:
    for name, axis in weights:
        for factor in subject.coupling.factors[name]:
            if factor.axes[-1] == axis:
                kept = np.flatnonzero(alive.kept(factor.labels).reshape(-1)) % factor.labels.shape[-1]
                yield TensorCut(tensor=name, axis=axis, length=subject.shapes[name][axis], kept=tuple(kept.tolist()))


def cost_of(model: Model, subject: Subject) -> Cost:
    """What a written model costs at the shapes of the subject."""
    from trtcompress_graph.cost import model_cost

    cost = model_cost(model, subject.inputs)
    return Cost(macs=cost.macs, parameters=cost.parameters)


def check_plan(plan: PrunePlan, model: Model) -> None:
    """Refuse a plan of another model.

    Raises:
        DataError: it is.
    """
    from trtcompress_graph.errors import DataError

    if plan.model_sha256 != model.digest:
        raise DataError(
            f"the plan was made for another model: SHA-256 {plan.model_sha256[:12]}, and this is {model.digest[:12]}",
            where=str(model.path),
            hint="give the model that the plan was made for, or make a new plan with a budget",
        )
