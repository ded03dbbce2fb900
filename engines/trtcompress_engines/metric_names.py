"""Names of the built-in metrics, apart from what computes them: a rebuild that only looks one up loads no numpy."""

from __future__ import annotations

BUILT_IN_NAMES = ("top1", "top5", "f1", "spearman")


def is_built_in(name: str) -> bool:
    """True for a metric that is not the user's own function; `top1:logits` names an output as well."""
    return name.partition(":")[0] in BUILT_IN_NAMES
