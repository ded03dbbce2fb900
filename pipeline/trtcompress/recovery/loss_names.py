"""Names of the losses, apart from what computes them: a config is checked without PyTorch."""

from __future__ import annotations

from trtcompress_graph.errors import UsageError

NAMES = ("logits", "labels", "features", "attention", "relations", "affinity")

LOGITS = "logits"

LABELS = "labels"

LABELLED = frozenset([LABELS])
"""Losses that need labels."""

COMPARING = frozenset(["relations", "affinity"])
"""Losses that compare the samples of a batch."""


def weighted(texts: tuple[str, ...]) -> dict[str, float]:
    """Losses with their weights, of `NAME` or `NAME=WEIGHT`.

    Raises:
        UsageError: no such loss, no such weight, or one is named twice.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, given, weight = text.partition("=")
        if name not in NAMES:
            raise UsageError(f"there is no loss '{name}'", where="loss", hint=f"there are {', '.join(NAMES)}")
        if name in found:
            raise UsageError(f"'{name}' is there twice", where="loss", hint=f"one weight for each, such as {name}=0.5")
        found[name] = _weight(text, weight) if given else 1.0
    return found


def _weight(text: str, weight: str) -> float:
    try:
        value = float(weight)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(
            f"'{text}': the weight has to be a number above 0", where="loss", hint="such as --loss features=0.5"
        )
    return value
