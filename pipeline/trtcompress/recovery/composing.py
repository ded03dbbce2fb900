"""Two prune plans, one after the other, as one."""

from __future__ import annotations

from trtcompress_graph.errors import PruneError

from ..pruning.cut import Alive, Cut, box
from ..pruning.execution import group_cuts
from ..pruning.groups import Group
from ..pruning.plan import GroupCut, PrunePlan
from ..pruning.subject import Subject


def composed(first: PrunePlan, second: PrunePlan, whole: Subject, between: Subject) -> PrunePlan:
    """One plan that cuts at once what two plans cut one after the other.

    The units of both are put together, and what stays of each tensor follows from all of them: a tensor may be cut by
    several groups, of which a plan names only those that it cuts.

    Args:
        first: of the whole model.
        second: of what the first left.
        whole: what the first one cuts, without the residual blocks that it takes out.
        between: what it left, which the second one cuts.

    Raises:
        PruneError: a unit of the second plan is none of the whole model, or all units of a group go.
    """
    units = [unit for held in first.groups for unit in _gone(held, whole)]
    again = _left_by(first, whole, between)
    group_of = {unit: group.name for group in whole.coupling.groups for unit in group.units}
    scores: dict[int, float] = {}
    damages = {held.group: held.damage for held in first.groups if held.damage is not None}
    for held in second.groups:
        gone = _gone(held, between)
        if not again.keys() >= set(gone):
            raise PruneError(
                f"the group '{held.group}' of a later cut is none of the model that the cuts began with",
                where="prune: steps",
                hint=f"leave it whole (keep: '{held.group.partition(':')[0].partition('#')[0]}'), or cut in one step",
            )
        units += [again[unit] for unit in gone]
        found = zip(between.coupling.group(held.group).units, held.scores, strict=bool(held.scores))
        scores |= {again[unit]: score for unit, score in found if unit in again}
        if held.damage is not None:
            damages[group_of[again[gone[0]]]] = held.damage
    together = set(units)
    for group in whole.coupling.groups:
        if together >= set(group.units):
            raise PruneError(
                f"several cuts together would leave nothing of the group '{group.name}'",
                where="prune: steps",
                hint=f"leave it whole (keep: '{group.name}'), or cut in one step",
            )
    for held in first.groups:
        scores |= zip(whole.coupling.group(held.group).units, held.scores, strict=bool(held.scores))
    scored = {
        group.name: {unit: scores[unit] for unit in group.units}
        for group in whole.coupling.groups
        if scores.keys() >= set(group.units)
    }
    return second.model_copy(
        update={
            "model_sha256": first.model_sha256,
            "before": first.before,
            "groups": group_cuts(whole, units, scored, damages),
            "blocks": first.blocks,
        }
    )


def strangers(first: PrunePlan, whole: Subject, between: Subject) -> tuple[Group, ...]:
    """Groups of what a plan left that no plan of the whole model could cut: they lie in none of its groups.

    What the whole model holds fast may come free in a cut graph, where shapes stand that the file did not give. Where
    each group that is cut lies in one of the whole model, something is left of all of these.
    """
    again = _left_by(first, whole, between)
    group_of = {unit: group.name for group in whole.coupling.groups for unit in group.units}
    return tuple(
        group
        for group in between.coupling.groups
        if not again.keys() >= set(group.units) or len({group_of[again[unit]] for unit in group.units}) > 1
    )


def _left_by(first: PrunePlan, whole: Subject, between: Subject) -> dict[int, int]:
    """By each unit of what a plan left, the same one in the whole model."""
    units = [unit for held in first.groups for unit in _gone(held, whole)]
    return _found_again(whole, Cut.of(whole.coupling.relations, units), between)


def _gone(held: GroupCut, subject: Subject) -> list[int]:
    """The units that a plan takes from a group of its model."""
    units = subject.coupling.group(held.group).units
    return [units[place] for place in held.gone]


def _found_again(whole: Subject, cut: Cut, between: Subject) -> dict[int, int]:
    """By each unit of what a cut left, the same one in the whole model: the one with which the same weights fall.

    Names and places of groups tell less: a group that cannot be cut any further leaves its name to another one, and
    with a head the channels inside it are gone from a group of theirs.
    """
    origins = _origins(whole, cut, between)
    known = set(origins.values())
    units = {
        whole.coupling.relations.closure([unit]) & known: unit
        for group in whole.coupling.groups
        for unit in group.units
        if unit not in cut.dead
    }
    found: dict[int, int] = {}
    for group in between.coupling.groups:
        for unit in group.units:
            falls = frozenset(
                origins[label] for label in between.coupling.relations.closure([unit]) if label in origins
            )
            if falls and falls in units:
                found[unit] = units[falls]
    return found


def _origins(whole: Subject, cut: Cut, between: Subject) -> dict[int, int]:
    """By each label on the weights of what a cut left, the label of the whole model at the same place."""
    alive = Alive(whole.coupling.factors, cut)
    found: dict[int, int] = {}
    for name in whole.weights.keys() & between.weights.keys():
        left = {factor.axes: factor.labels for factor in between.coupling.factors.get(name, ())}
        for factor in whole.coupling.factors.get(name, ()):
            living = alive.kept(factor.labels)
            lengths = box(living, name)
            labels = left.get(tuple(axis for axis, length in zip(factor.axes, lengths, strict=True) if length > 1))
            if labels is not None and labels.size == living.sum():
                found |= zip(labels.reshape(-1).tolist(), factor.labels[living].tolist(), strict=True)
    return found
