"""Choosing what goes: score, rank, spread the budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from trtcompress_graph.cores import usable_cores
from trtcompress_graph.errors import PruneError

from .allocation import Task, find_allocation
from .allocation.task import Curve, Parts
from .budget import Costs
from .cut import Cut
from .groups import Group
from .importance import Evidence, find_importance
from .importance.slopes import Slopes
from .keeping import without_kept
from .meter import FRACTIONS, Answers, Meter
from .options import WINDOW, PruneOptions
from .samples import Samples
from .subject import Subject
from .widths import primary, widths

if TYPE_CHECKING:
    from trtcompress_calibration.gram import Gram
    from trtcompress_calibration.layers import Layer

_BATCH = 8
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What can go, ranked.

    Attributes:
        curves: measured damage by group, as far as it was measured.
        allowed: groups that may be cut, as far as the user said, of whatever width.
    """

    task: Task
    options: PruneOptions
    evidence: Evidence
    curves: dict[str, Curve]
    allowed: tuple[Group, ...]

    def nearest(self, price: str, limit: float) -> Parts:
        """The widest cut within a budget, however far below it the multiples make it."""
        return find_allocation(str(self.options.allocation)).allocate(self.task.within(price, limit))

    def parts(self, price: str, wanted: float, *, of: float = 1.0) -> Parts:
        """How much of each group stays.

        Args:
            price: `macs` or `parameters`.
            wanted: share of it that may stay.
            of: cost of the whole model over that of this one, where blocks were taken out of it.

        Raises:
            PruneError: the budget cannot be met; says how far it gets and what holds it.
        """
        limit = wanted * of
        task = self.task.within(price, limit)
        word = "MACs" if price == "macs" else "parameters"
        if not task.groups:
            raise PruneError(
                f"nothing can be cut; what holds it: {_holds(self)}",
                where="prune",
                hint="`trtcompress inspect M.onnx --groups` tells more",
            )
        least = task.share(task.least())
        if least > limit:
            raise PruneError(
                f"at most {1 - least / of:.1%} of the {word} can be cut: {least / of:.3f} is left, not {wanted:.4g}; "
                f"what stays whole holds it: {_holds(self)}",
                where="prune",
                hint=f"ask for {least / of + 0.01:.2f} or more, a smaller --multiple, or drop a --keep",
            )
        parts = task.nudged(self.nearest(price, limit), WINDOW * of)
        share = task.share(parts)
        if not wanted - WINDOW <= share / of <= wanted:
            raise PruneError(
                f"widths on multiples of {self.options.multiple} come to {share / of:.3f} of the {word}, not within "
                f"{WINDOW} below {wanted:.4g}",
                where="prune",
                hint=f"{'give a smaller --multiple, or ' if self.options.multiple > 1 else ''}ask for {share / of:.3f}",
            )
        return parts


def choose(subject: Subject, options: PruneOptions, data: Samples | None, progress: Progress) -> Choice:
    """Score and rank everything that may go; with data, from one pass of the samples.

    Raises:
        UsageError: a pattern that matches nothing.
        DataError: samples that do not fit.
    """
    from trtcompress_calibration.layers import linear_layers

    coupling = subject.coupling
    every = primary(coupling, without_kept(subject.graph.graph, coupling, options.keep))
    allowed = {group.name: widths(coupling, group, subject.shapes, options.multiple) for group in every}
    groups = tuple(group for group in every if len(allowed[group.name]) > 1)
    importance = find_importance(str(options.importance))
    layers = linear_layers(subject.graph.graph, subject.shapes)
    grams = moments(subject, layers, data, progress) if data is not None else {}
    slopes = Slopes(subject.model, coupling, data.rest, options.seed) if data is not None else None
    evidence = Evidence(coupling, subject.shapes, subject.weights, layers, grams, options.seed, slopes)
    scores: dict[str, Mapping[int, float]] = {}
    with ThreadPoolExecutor(usable_cores()) as pool:
        for found in pool.map(partial(importance.score, evidence), groups):
            scores[groups[len(scores)].name] = dict(found)
            progress("score groups", len(scores), len(groups))
    ranked = {
        group.name: tuple(tuple(sorted(cell, key=scores[group.name].__getitem__)) for cell in group.cells)
        for group in groups
    }
    curves: dict[str, Curve] = {}
    task = Task(
        coupling, groups, allowed, ranked, scores, Costs(subject.graph.graph, coupling, subject.shapes), "macs", 1.0
    )
    if options.reconstruct and data is not None:
        task = replace(task, costs=task.costs.with_biases(_biases(subject, task)))
    if data is not None and find_allocation(str(options.allocation)).needs_data:
        task = task.measured(_measure(subject, evidence, data, task, curves, progress))
    return Choice(task, options, evidence, curves, every)


def _biases(subject: Subject, task: Task) -> list[str]:
    """Outputs of layers that get a bias when they are solved, at the furthest cut."""
    from .solvable import tasks_of

    graph, cut = subject.graph.graph, Cut.of(subject.coupling.relations, task.gone(task.least()))
    solved = tasks_of(graph, subject.shapes, subject.coupling, cut, graph)
    return [held.layer.y for held in solved if held.layer.may_get_bias]


def moments(subject: Subject, layers: Sequence[Layer], data: Samples, progress: Progress) -> Mapping[str, Gram]:
    """Statistics of what dense layers read, from the samples that are not held back."""
    from trtcompress_calibration.gram import collect_grams

    dense = [layer for layer in layers if layer.kind != "depthwise"]
    return collect_grams(subject.model, dense, data.rest, shapes=subject.shapes, progress=progress)


def _measure(
    subject: Subject, evidence: Evidence, data: Samples, task: Task, curves: dict[str, Curve], progress: Progress
) -> Callable[[Group], Curve]:
    """Measures a group when it is asked for, once."""
    done = 0
    total = len(task.groups) * len(FRACTIONS)

    def told() -> None:
        nonlocal done
        done += 1
        progress("measure damage", done, total)

    meter = Meter(answers_of(subject, data), evidence, told)

    def measure(group: Group) -> Curve:
        if group.name not in curves:
            curves[group.name] = meter.curve(group, task.ranked[group.name], task.widths[group.name])
        return curves[group.name]

    return measure


def answers_of(subject: Subject, data: Samples) -> Answers:
    """What the model answers to the samples that are held back."""
    from trtcompress_calibration.batching import batches

    feeds = [batch.inputs for batch in batches(data.held_back, subject.model.inputs, _BATCH)]
    return Answers(subject.graph, feeds, usable_cores())


def _holds(choice: Choice) -> str:
    """What is left whole: what the user kept, what is too narrow, then the most frequent reasons."""
    cut = {group.name for group in choice.task.groups}
    found = [f"--keep ({', '.join(choice.options.keep)})"] if choice.options.keep else []
    narrow = sum(group.name not in cut for group in choice.allowed)
    if narrow:
        found.append(f"{narrow} groups have no narrower width that is a multiple of {choice.options.multiple}")
    reasons = Counter(left.why for left in choice.task.coupling.left)
    found += [why for why, _ in reasons.most_common(3)]
    return "; ".join(found) if found else f"widths on multiples of {choice.options.multiple}"
