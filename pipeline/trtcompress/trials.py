"""Ways that were tried, what each gave, and which one was taken."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges

TRIALS = "trials.json"
"""File in which they lie beside what was made."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One way and what it gave.

    Attributes:
        what: in words.
        error: squared error of the outputs over their variance, of the INT8 graph as it is written, to the float
            model; the greatest of all outputs. Infinite where an output is not finite, or of another shape.
    """

    what: str
    error: float


@dataclass(frozen=True, slots=True)
class TriedModel(Model):
    """A model that was equalized or rounded.

    Attributes:
        chosen: what was turned on, in words.
        trials: what was measured; empty where the config decided.
    """

    FINGERPRINT: ClassVar = ("digest", "inputs", "outputs")
    chosen: str
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True)
class TriedRanges(Ranges):
    """Ranges by a method that was chosen.

    Attributes:
        trials: what each method gave; empty where the config decided.
    """

    FINGERPRINT: ClassVar = ("version", "model_sha256", "method", "samples", "tensors")
    trials: tuple[Trial, ...] = ()

    @property
    def chosen(self) -> str:
        """The method."""
        return self.method


def told(tried: TriedModel | TriedRanges) -> dict[str, Any]:
    """What was chosen and what was tried, as JSON; an error that is not finite is null."""
    trials = [asdict(t) | {"error": t.error if math.isfinite(t.error) else None} for t in tried.trials]
    return {"chosen": tried.chosen, "trials": trials}


def write_trials(tried: TriedModel | TriedRanges, path: Path) -> None:
    """Write what was tried and what was chosen."""
    path.write_text(json.dumps(told(tried), indent=1) + "\n", encoding="utf-8")
