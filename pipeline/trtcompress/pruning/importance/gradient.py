"""Importance by gradients: what the loss says of a unit when its weights go to zero."""

from __future__ import annotations

import numpy as np

from ..groups import Group
from .evidence import Evidence
from .magnitude import l2
from .registry import Scores, importance
from .slopes import Target


@importance("taylor", needs_data=True)
def taylor(evidence: Evidence, group: Group) -> Scores:
    """First-order change of the loss, squared (arXiv 1906.10771), with the model's own answers for labels."""
    return _squared(evidence, group, "answer")


@importance("fisher", needs_data=True)
def fisher(evidence: Evidence, group: Group) -> Scores:
    """Fisher information (arXiv 1801.05787), with labels drawn from what the model answers."""
    return _squared(evidence, group, "drawn")


def _squared(evidence: Evidence, group: Group, target: Target) -> Scores:
    """Mean over batches of the squared sum over all that falls with a unit; by `l2` where no gradient arrives."""
    if evidence.slopes is None:
        return l2(evidence, group)
    slopes = evidence.slopes.by_label(target)
    closure = evidence.coupling.relations.closure
    scores = {unit: float(np.square(slopes[:, list(closure([unit]))].sum(axis=1)).mean()) for unit in group.units}
    return scores if any(scores.values()) else l2(evidence, group)
