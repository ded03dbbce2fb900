"""What the record of a build says of its trainings."""

from __future__ import annotations

from typing import Any

from ..recovery.recover import Recovered
from ..runner import Run


def trainings(run: Run) -> list[dict[str, Any]]:
    """One entry for each model that was trained: what it lost before and after, on samples that were held out."""
    return [
        {
            "stage": ran.step.stage.name,
            "encoding": ran.step.subject,
            "samples": made.samples,
            "steps": made.steps,
            "best_step": made.best_step,
            "rate": made.rate,
            "loss": {"before": made.before, "after": made.after},
            "metric": {"before": made.metric_before, "after": made.metric},
            "notes": list(made.notes),
        }
        for ran in run.steps
        if isinstance(made := run.values[ran.step.output], Recovered)
    ]


def change(told: dict[str, float | None]) -> str:
    """From what to what; nothing where it was not measured."""
    before, after = told["before"], told["after"]
    return "-" if before is None or after is None else f"{before:.4g} → {after:.4g}"
