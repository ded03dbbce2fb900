"""Pruning in steps: cut a little, recover, cut on, so that each choice is made on a model that works."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import PruneError
from trtcompress_graph.model import Model

from ..config import PruneSettings, RecoverSettings
from ..cutting import PrunedModel, Told, cut_model
from ..pruning.plan import GroupCut, PrunePlan, TensorCut
from ..stage import FunctionRef
from .recover import Request, recover

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset


@dataclass(frozen=True, slots=True)
class Cuts:
    """What is cut, how far and how.

    Attributes:
        model: simplified.
        prune: holds a budget of MACs or parameters, and in how many steps it is reached.
        recover: of the training between two cuts; a length of its own is shared out among them.
    """

    model: Model
    out: Path
    prune: PruneSettings
    recover: RecoverSettings
    axes: Axes


def cut_gradually(
    cuts: Cuts, data: Dataset, training: Dataset, function: FunctionRef | None, told: Told
) -> PrunedModel:
    """Cut to the budget in steps of one ratio each; the last cut is not trained, since `recover` follows.

    A step on the way for which there is no width of the wanted multiple is left out.

    Args:
        cuts: what and how far.
        data: samples to score and solve with.
        training: samples to train with between cuts.
        function: the user's own training loop.
        told: of the progress.

    Returns:
        The model, with one plan for all cuts together.

    Raises:
        TrtCompressError: see `cut_model` and `recover`.
    """
    steps = cuts.prune.steps
    current: Model = cuts.model
    plan: PrunePlan | None = None
    with TemporaryDirectory(prefix=".cuts.", dir=cuts.out.parent) as folder:
        for number in range(1, steps + 1):
            place = Path(folder) / str(number)
            place.mkdir()
            out = cuts.out if number == steps else place / "model.onnx"
            section = _section(cuts.prune, number, plan)
            try:
                done = cut_model(current, out, section, None, axes=cuts.axes, data=data, told=told)
            except PruneError as error:
                if number == steps:
                    raise
                told(f"cut {number} of {steps} is left out: {error.what}", number, steps)
                continue
            plan = done.plan if plan is None else composed(plan, done.plan)
            if number == steps:
                return replace(done, plan=plan)
            request = Request(
                *(done, cuts.model, shared_out(cuts.recover, steps), place / "trained.onnx", place / "work"),
                function=function,
            )
            current = recover(request, training, told)
    raise AssertionError("the last step returns")


def _section(prune: PruneSettings, number: int, before: PrunePlan | None) -> PruneSettings:
    """The settings of one cut: its budget is a share of the model as the cut before left it."""
    budget = "macs" if prune.macs is not None else "params"
    price = "macs" if budget == "macs" else "parameters"
    share = 1.0 if before is None else getattr(before.after, price) / getattr(before.before, price)
    wanted = float(getattr(prune, budget)) ** (number / prune.steps)
    depth = prune.depth if before is None else 1.0
    return prune.model_copy(update={budget: wanted / share, "steps": 1, "depth": depth})


def shared_out(settings: RecoverSettings, steps: int) -> RecoverSettings:
    """A training that takes its share of what is given for all together."""
    lengths = {
        "epochs": settings.epochs and settings.epochs / steps,
        "minutes": settings.minutes and settings.minutes / steps,
        "steps": settings.steps and max(1, settings.steps // steps),
    }
    return settings.model_copy(update=lengths)


def composed(first: PrunePlan, second: PrunePlan) -> PrunePlan:
    """One plan that cuts at once what two plans cut one after the other.

    Args:
        first: of the whole model.
        second: of what the first left.
    """
    groups = {group.group: group for group in first.groups}
    for group in second.groups:
        groups[group.group] = _both(groups[group.group], group) if group.group in groups else group
    return second.model_copy(
        update={
            "model_sha256": first.model_sha256,
            "before": first.before,
            "groups": tuple(groups.values()),
            "blocks": first.blocks,
        }
    )


def _both(first: GroupCut, second: GroupCut) -> GroupCut:
    left = sorted(set(range(first.units)) - set(first.gone))
    gone = sorted({*first.gone, *(left[place] for place in second.gone)})
    known = {(cut.tensor, cut.axis): cut for cut in first.tensors}
    tensors = tuple(_cut(known.get((cut.tensor, cut.axis)), cut) for cut in second.tensors)
    return second.model_copy(
        update={
            "units": first.units,
            "kept": first.units - len(gone),
            "gone": tuple(gone),
            "scores": first.scores,
            "tensors": tensors,
        }
    )


def _cut(first: TensorCut | None, second: TensorCut) -> TensorCut:
    """Both cuts of one axis."""
    if first is None:
        return second
    return TensorCut(
        tensor=first.tensor,
        axis=first.axis,
        length=first.length,
        kept=tuple(first.kept[place] for place in second.kept),
    )
