"""Pruning in steps: cut a little, recover, cut on, so that each choice is made on a model that works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import PruneError, RecoverError, TrtCompressError
from trtcompress_graph.load import copy_model, read_model
from trtcompress_graph.model import Model

from ..config import PruneSettings, RecoverSettings
from ..cutting import PLAN, PrunedModel, Told, cut_model, read_plan, write_plan
from ..files import write_text
from ..pruning.plan import PrunePlan
from ..stage import FunctionRef, MetricRef
from .recover import Request, recover

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset

DONE = "done.json"
"""In the folder of a cut: what it came to, written when its graph and its plan stand."""

TRAINED = "trained.onnx"
"""Beside it: the cut after its training."""

LEARNED = "trained.json"
"""What a user should know of that training."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """What is cut, how far and how.

    Attributes:
        model: simplified.
        work: folder for the steps on the way; those that lie there are taken again. Removed at the end, and where an
            error would come again.
        prune: holds a budget of MACs or parameters, and in how many steps it is reached.
        recover: of the training between two cuts; a length of its own is shared out among them.
        metrics: of the user's; labels are of the output that they read.
    """

    model: Model
    out: Path
    work: Path
    prune: PruneSettings
    recover: RecoverSettings
    axes: Axes
    metrics: tuple[MetricRef, ...] = ()


def cut_gradually(
    cuts: Cuts, data: Dataset, training: Dataset, function: FunctionRef | None, told: Told
) -> PrunedModel:
    """Cut to the budget in steps of one ratio each; the last cut is not trained, since `recover` follows.

    A step is left out where the cut before it met its budget already, and one on the way where there is no width of
    the wanted multiple. What a killed run had finished is taken again, and what one that lost a process or had no
    space left on its disk.

    Args:
        cuts: what and how far.
        data: samples to score and solve with.
        training: samples to train with between cuts.
        function: the user's own training loop.
        told: of the progress.

    Returns:
        The model, with one plan for all cuts together, and the notes of all cuts and trainings.

    Raises:
        TrtCompressError: see `cut_model` and `recover`.
    """
    try:
        made = _cut_gradually(cuts, data, training, function, told)
    except TrtCompressError as error:  # a divergence or a cut that cannot be made would come again
        if isinstance(error, (PruneError, RecoverError)) or not any(cuts.work.glob(f"*/{DONE}")):
            shutil.rmtree(cuts.work, ignore_errors=True)
        raise
    shutil.rmtree(cuts.work, ignore_errors=True)
    return made


def _cut_gradually(
    cuts: Cuts, data: Dataset, training: Dataset, function: FunctionRef | None, told: Told
) -> PrunedModel:
    steps = cuts.prune.steps
    current: Model = cuts.model
    last: PrunedModel | None = None
    skipped: list[str] = []
    learned: dict[int, tuple[str, ...]] = {}
    for number in range(1, steps + 1):
        place = cuts.work / str(number)
        section = _section(cuts.prune, number, last.plan if last is not None else None)
        if last is not None and section is None:
            skipped.append(f"cut {number} of {steps} is left out: the one before it met its budget already")
            told(skipped[-1], number, steps)
            continue
        assert section is not None
        try:
            if last is None:
                last = done = _step(cuts, current, section, place, data, told)
            else:
                last, done = _later(cuts, last, current, section, place, data, told)
        except PruneError as error:
            if number == steps:
                raise
            skipped.append(f"cut {number} of {steps} is left out: {error.what}")
            told(skipped[-1], number, steps)
            continue
        current = done
        if number < steps:
            current, learned[number] = _trained(cuts, done, place, training, function, told)
    assert last is not None
    made = copy_model(current, cuts.out)
    notes = (*last.notes, *skipped, *_of_trainings(learned, steps))
    return PrunedModel(made.path, made.digest, made.inputs, made.outputs, last.plan, notes)


def _later(
    cuts: Cuts, first: PrunedModel, between: Model, section: PruneSettings, place: Path, data: Dataset, told: Told
) -> tuple[PrunedModel, PrunedModel]:
    """A cut of what is left of the first one after its training: both as one, and this one alone.

    What one plan of both could not say stays whole, so that no cut and no training is in vain.
    """
    from ..pruning.keeping import pattern_of
    from ..pruning.shallower import without_planned
    from ..pruning.subject import study
    from .composing import composed, strangers

    shapes = first.plan.shapes
    with TemporaryDirectory(prefix="whole.", dir=cuts.work) as folder:
        whole = without_planned(study(cuts.model, shapes), first.plan.blocks, Path(folder))
        left = study(between, shapes)
        fixed = strangers(first.plan, whole, left)
        keep = (*section.keep, *map(pattern_of, fixed))
        then = _step(cuts, between, section.model_copy(update={"keep": keep}), place, data, told)
        plan = composed(first.plan, then.plan, whole, left)
    whys = (f"left whole: the group '{group.name}': the model before all cuts has no such group" for group in fixed)
    notes = tuple(dict.fromkeys((*first.notes, *whys, *then.notes)))
    return replace(then, plan=plan, notes=notes), then


def _step(cuts: Cuts, model: Model, section: PruneSettings, place: Path, data: Dataset, told: Told) -> PrunedModel:
    """The cut of one step; the one that stands there already, where a killed run had come so far."""
    try:
        record = json.loads((place / DONE).read_text(encoding="utf-8"))
        there, plan = read_model(place / "model.onnx"), read_plan(place / PLAN)
        if there.digest == record["digest"] and plan.model_sha256 == model.digest:
            return PrunedModel(there.path, there.digest, there.inputs, there.outputs, plan, tuple(record["notes"]))
    except (OSError, ValueError, KeyError, TypeError, TrtCompressError):
        pass  # not there, or damaged
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    done = cut_model(model, place / "model.onnx", section, None, axes=cuts.axes, data=data, told=told)
    write_plan(done.plan, place / PLAN)
    write_text(place / DONE, json.dumps({"digest": done.digest, "notes": done.notes}))
    return done


def _trained(
    cuts: Cuts, cut: PrunedModel, place: Path, training: Dataset, function: FunctionRef | None, told: Told
) -> tuple[Model, tuple[str, ...]]:
    """A cut after its training, and the notes of that; the graph stands under its name only when it was done."""
    if (place / TRAINED).is_file():
        return read_model(place / TRAINED), _notes_in(place / LEARNED)
    settings = shared_out(cuts.recover, cuts.prune.steps)
    work = place / "work"
    request = Request(cut, cuts.model, settings, place / TRAINED, work, cuts.metrics, function, replaces=True)
    made = recover(request, training, told)
    write_text(place / LEARNED, json.dumps(made.notes))
    return made, made.notes


def _notes_in(path: Path) -> tuple[str, ...]:
    """The notes of a training; none where a kill came before they were written."""
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ()


def _of_trainings(learned: Mapping[int, tuple[str, ...]], steps: int) -> Iterator[str]:
    """What a user should know of the trainings, by the number of the cut before; what several say is told once."""
    after: dict[str, list[str]] = {}
    for number, notes in learned.items():
        for words in notes:
            after.setdefault(words, []).append(str(number))
    for words, numbers in after.items():
        yield f"training after cut {', '.join(numbers)} of {steps}: {words}"


def _section(prune: PruneSettings, number: int, before: PrunePlan | None) -> PruneSettings | None:
    """The settings of one cut: its budget is a share of the model as the cut before left it; None where that is met."""
    budget = "macs" if prune.macs is not None else "params"
    price = "macs" if budget == "macs" else "parameters"
    share = 1.0 if before is None else getattr(before.after, price) / getattr(before.before, price)
    wanted = float(getattr(prune, budget)) ** (number / prune.steps)
    if share <= wanted:
        return None
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
