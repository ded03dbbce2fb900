"""Pruning a model: analyse, score, spread the budget, cut, solve anew."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_graph.cores import one_blas_thread
from trtcompress_graph.errors import DataError, PruneError
from trtcompress_graph.load import load_ir
from trtcompress_graph.model import Model

from .allocation.task import Parts
from .choice import Choice, answers_of, choose
from .execution import carry_out, check_plan, cost_of, group_cuts
from .options import WINDOW, Kind, PruneOptions
from .plan import BlockCut, PrunePlan, check_cost, check_shapes, contradiction
from .samples import ENOUGH, Samples
from .shallower import choose_blocks, take_out, without_planned
from .speedup import parts_for_speedup
from .subject import Subject, study

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset

__all__ = ["Kind", "PruneOptions", "Pruned", "apply_plan", "prune"]

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What came out.

    Attributes:
        notes: in plain words, what was left whole and why, and what else a user should know.
    """

    model: Model
    plan: PrunePlan
    notes: tuple[str, ...]


def _silent(what: str, done: int, total: int | None) -> None:
    """No progress."""


def prune(
    model: Model,
    out: Path,
    options: PruneOptions,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    data: Dataset | None = None,
    progress: Progress = _silent,
) -> Pruned:
    """Cut a simplified model and write it to `out`.

    Nothing stands under that name before the cut graph was checked and has run.

    Args:
        model: simplified (`trtcompress_graph.simplify`); float.
        out: the ONNX file to write.
        options: how far and how.
        shapes: concrete shape of each input, at which costs are counted.
        data: samples, without labels; read several times.
        progress: told what is being done and how far it is.

    Raises:
        PruneError: the budget cannot be met; says how far it gets and what holds it.
        UsageError: a `keep` that matches nothing, an unknown importance or allocation, or one that needs data.
        ModelError: the model is quantized.
        DataError: samples that do not fit the model.
    """
    options = options.resolved(data is not None)
    whole = study(model, shapes)
    samples = Samples.of(data) if data is not None else None
    with one_blas_thread(), tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        subject, blocks = _shallower(whole, options, samples, Path(folder), progress)
        choice = choose(subject, options, samples, progress)
        parts, speedup = _parts(whole, subject, choice, out.parent, progress)
        units = choice.task.gone(parts)
        solve, grams = bool(options.reconstruct), choice.evidence.grams
        written = carry_out(
            subject,
            units,
            out,
            solve=solve,
            data=samples,
            progress=progress,
            grams=grams,
            reference=whole,
            accept=partial(_within, whole, options),
        )
        plan = _plan(whole, subject, choice, units, parts, written, samples, speedup, blocks)
        told = tuple(_error(whole, written, samples)) if samples is not None else ()
    return Pruned(written, plan, (*told, *_notes(subject, choice)))


def _within(whole: Subject, options: PruneOptions, written: Model) -> None:
    """Refuse a cut that missed its budget."""
    if options.budget == "speedup":
        return
    price = "macs" if options.budget == "macs" else "parameters"
    share = getattr(cost_of(written, whole), price) / getattr(cost_of(whole.model, whole), price)
    if not options.value - WINDOW <= share <= options.value:
        raise PruneError(
            f"the cut came to {share:.4f} of the {price}, not within {WINDOW} below {options.value:.4g}",
            where="prune",
            hint=f"ask for {share:.3f}, or give a smaller --multiple",
        )


def _shallower(
    whole: Subject, options: PruneOptions, data: Samples | None, folder: Path, progress: Progress
) -> tuple[Subject, tuple[BlockCut, ...]]:
    """The model without the residual blocks that go."""
    if options.depth == 1:
        return whole, ()
    blocks = choose_blocks(whole, options.depth, options.keep, data, progress)
    return study(take_out(whole.model, blocks, whole, folder), whole.inputs), blocks


def _parts(
    whole: Subject, subject: Subject, choice: Choice, folder: Path, progress: Progress
) -> tuple[Parts, float | None]:
    """How much of each group stays, for the budget of the whole model; and the speedup, where that is the budget."""
    options = choice.options
    if options.budget == "speedup":
        return parts_for_speedup(whole, subject, choice, folder, progress)
    price = "macs" if options.budget == "macs" else "parameters"
    if subject is whole:
        return choice.parts(price, options.value), None
    before, now = getattr(cost_of(whole.model, whole), price), getattr(choice.task.costs.full, price)
    if options.value - WINDOW <= now / before <= options.value:
        return {group.name: group.step for group in choice.task.groups}, None
    if now / before < options.value:
        raise PruneError(
            f"without the residual blocks {now / before:.3f} of the {price} is left, less than {options.value}",
            where="prune: depth",
            hint=f"ask for {now / before:.3f}, or give a larger --depth",
        )
    return choice.parts(price, options.value, of=before / now), None


def apply_plan(
    model: Model, out: Path, plan: PrunePlan, *, data: Dataset | None = None, progress: Progress = _silent
) -> Pruned:
    """Cut a model as a plan says; the same bytes as when the plan was made.

    Raises:
        DataError: the plan was made for another model, or with other samples, or needs samples; or it says of the
            model or the cut what does not hold.
    """
    check_plan(plan, model)
    check_shapes(plan, model.inputs)
    samples = Samples.of(data) if data is not None and plan.data is not None else None
    if plan.data is not None:
        if data is None or samples is None:
            raise DataError("the plan solved weights from samples", where="plan", hint="give the same --data again")
        if samples.digest != plan.data:
            raise DataError(
                "the plan was made with other samples",
                where=data.source,
                hint="give the same --data and --samples, or make a new plan with a budget",
            )
        if samples.total != plan.samples:
            raise contradiction(f"the plan says {plan.samples} samples, and there are {samples.total}", "samples")
    whole = study(model, plan.shapes)
    check_cost("before", plan.before, cost_of(model, whole))
    with one_blas_thread(), tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        subject = without_planned(whole, plan.blocks, Path(folder))
        units = _units(subject, plan)
        written = carry_out(
            subject,
            units,
            out,
            solve=plan.reconstruct,
            data=samples,
            progress=progress,
            reference=whole,
            accept=lambda cut: check_cost("after", plan.after, cost_of(cut, subject)),
        )
    return Pruned(written, plan, ())


def _units(subject: Subject, plan: PrunePlan) -> list[int]:
    """What a plan cuts, in the labels of the model; all that the plan says of it has to hold."""
    units = []
    for held in plan.groups:
        group = next((group for group in subject.coupling.groups if group.name == held.group), None)
        if group is None or len(group.units) != held.units:
            raise DataError(
                f"the plan names a group '{held.group}' of {held.units} units, which the model does not have",
                where="plan",
                hint="make a new plan with a budget",
            )
        units += [group.units[place] for place in held.gone]
    found = {group.group: group for group in group_cuts(subject, units, {}, {})}
    for held in plan.groups:
        cut = found.pop(held.group)
        if (held.kind, held.gone) != (cut.kind, cut.gone):
            raise contradiction("what goes of the group is not what the cut takes", f"group '{held.group}'")
        for one, other in zip_longest(held.tensors, cut.tensors):
            if one != other:
                name = (one or other).tensor
                raise contradiction(f"what is kept of '{name}' is not what the cut leaves", f"group '{held.group}'")
    if found:
        raise contradiction("the cut takes from the group, which the plan does not name", f"group '{min(found)}'")
    return units


def _plan(
    whole: Subject,
    subject: Subject,
    choice: Choice,
    units: list[int],
    parts: Mapping[str, int],
    written: Model,
    data: Samples | None,
    speedup: float | None,
    blocks: tuple[BlockCut, ...],
) -> PrunePlan:
    """All that was decided."""
    from .allocation.damage import curve

    options = choice.options
    solved = data if options.reconstruct else None
    damages = {
        group.name: float(f"{curve(choice.curves[group.name], (parts[group.name],), group)[parts[group.name]]:.6g}")
        for group in choice.task.groups
        if group.name in choice.curves
    }
    return PrunePlan(
        model_sha256=whole.model.digest,
        shapes={name: tuple(shape) for name, shape in subject.inputs.items()},
        importance=str(options.importance),
        allocation=str(options.allocation),
        multiple=options.multiple,
        reconstruct=bool(options.reconstruct),
        samples=solved.total if solved else 0,
        data=solved.digest if solved else None,
        speedup=speedup,
        before=cost_of(whole.model, whole),
        after=cost_of(written, subject),
        blocks=blocks,
        groups=group_cuts(subject, units, {n: dict(s) for n, s in choice.task.scores.items()}, damages),
    )


def _error(whole: Subject, written: Model, samples: Samples) -> Iterable[str]:
    """How far the outputs are from the full model's, and whether the samples were many enough to say so."""
    error = answers_of(whole, samples).damage_of(load_ir(written))
    kind = "that were held back" if samples.enough else "that the weights were solved from, so on others it is greater"
    yield (
        f"the outputs differ from the full model's by {error:.2g} (squared, over their variance: 0 is equal, 1 as far "
        f"off as their mean) on {samples.measured} samples {kind}"
    )
    if not samples.enough:
        yield f"only {samples.total} samples were given: {ENOUGH} and more make a better cut, a few hundred are enough"


def _notes(subject: Subject, choice: Choice) -> Iterable[str]:
    """What a user should know."""
    reasons: dict[str, list[str]] = {}
    for left in subject.coupling.left:
        reasons.setdefault(left.why, []).append(f"{left.weight}[{left.axis}]")
    for why, weights in reasons.items():
        names = list(dict.fromkeys(weights))
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"left whole: {names[0]}{more}: {why}"
    nodes = [node for node, labels in subject.coupling.normalized.items() if labels.size]
    cut = {label for group in choice.task.groups for label in group.units}
    touched = [node for node in nodes if cut.intersection(subject.coupling.normalized[node].tolist())]
    if touched:
        yield (
            f"{len(touched)} nodes, '{touched[0]}' first, normalize or reduce over an axis that can be cut: their "
            "statistics are of what is kept"
        )
