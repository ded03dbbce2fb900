"""Two prune plans, one after the other, as one."""

from __future__ import annotations

from ..pruning.plan import GroupCut, PrunePlan, TensorCut


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
