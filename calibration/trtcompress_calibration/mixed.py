"""Mixed precision: the fewest nodes kept in float that make an INT8 graph accurate enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from trtcompress_graph.encoding import PrecisionPlan

from .walk import Damage

Replan = Callable[[Mapping[str, str]], PrecisionPlan]
"""The plan when these nodes stay in float, each for the reason that is given."""

Meets = Callable[[PrecisionPlan], bool]
"""Whether a graph of this plan is accurate enough: measured, so each call costs a pass over the evaluation data."""

_GIVING_BACK = 16
"""Measurements that are spent on giving nodes back to INT8."""


_NAMED = 3
"""Nodes that the note names; the reasons in the plan tell them all."""


@dataclass(frozen=True, slots=True)
class Mixed:
    """A plan that is accurate enough.

    Attributes:
        kept: nodes in float, the most damaging first.
        measured: how many plans were measured.
    """

    plan: PrecisionPlan
    kept: tuple[Damage, ...]
    measured: int


def mixed_precision(replan: Replan, ranked: Sequence[Damage], meets: Meets) -> Mixed | None:
    """Keep in float as few nodes as possible; None where not even the float graph is accurate enough.

    Bisects for the shortest start of the ranking that is enough, which takes damages for additive; then tries to
    give back halves, quarters, ... single nodes of it, the least damaging first, which does not.

    Args:
        replan: makes a plan.
        ranked: damages of the nodes in INT8, the greatest first.
        meets: measures a plan; not called for the one that keeps nothing, which is known to fail.
    """
    total, measured = len(ranked), 0

    def enough(kept: Sequence[Damage]) -> bool:
        nonlocal measured
        measured += 1
        return meets(replan(_reasons(kept, total)))

    if not total or not enough(ranked):
        return None
    fails, high = 0, total
    while high - fails > 1:
        middle = (fails + high) // 2
        if enough(ranked[:middle]):
            high = middle
        else:
            fails = middle
    kept = list(ranked[:high])
    limit, size = measured + _GIVING_BACK, len(kept) // 2
    while size:
        end = len(kept)
        while end and measured < limit:
            start = max(0, end - size)
            fewer = kept[:start] + kept[end:]
            if fewer and enough(fewer):
                kept = fewer
            end = start
        size //= 2
    return Mixed(_noted(replan(_reasons(kept, total)), kept, total), tuple(kept), measured)


def _reasons(kept: Sequence[Damage], total: int) -> dict[str, str]:
    told = f"kept in float, one of {len(kept)} of {total} nodes"
    return {each.name: f"{told}: INT8 here costs {each.damage:.2g} of the output's variance" for each in kept}


def _noted(plan: PrecisionPlan, kept: Sequence[Damage], total: int) -> PrecisionPlan:
    if not plan.quantized:
        note = "INT8 is not worth it here: nothing could stay in INT8 within the limit of accuracy"
    else:
        first = ", ".join(f"'{each.name}'" for each in kept[:_NAMED])
        more = f" and {len(kept) - _NAMED} more" if len(kept) > _NAMED else ""
        note = f"keeps {len(kept)} of {total} INT8 nodes in float, where INT8 costs most: {first}{more}"
    return replace(plan, note=f"{plan.encoding}: {note}")
