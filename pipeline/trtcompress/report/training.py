"""What the record of a build says of its trainings."""

from __future__ import annotations

from typing import Any

from ..recovery.pace import steps_in_words
from ..recovery.recover import Recovered
from ..runner import Run


def trainings(run: Run) -> list[dict[str, Any]]:
    """One entry for each model that was trained: what it lost before and after, on samples that were held out.

    What a loop of the user's own did is not known: `own_loop` is true then, and steps and losses are None.
    """
    return [
        {
            "stage": ran.step.stage.name,
            "encoding": ran.step.subject,
            "samples": made.samples,
            "own_loop": own,
            "steps": None if own else made.steps,
            "best_step": None if own else made.best_step,
            "rate": None if own else made.rate,
            "loss": {"before": made.before, "after": made.after},
            "metric": {"before": made.metric_before, "after": made.metric},
            "notes": list(made.notes),
        }
        for ran in run.steps
        if isinstance(made := run.values[ran.step.output], Recovered)
        for own in (made.samples > 0 and made.before is None,)
    ]


def in_words(told: dict[str, Any]) -> str | None:
    """An entry of `trainings` as a sentence; None where nothing was to be trained."""
    if told["own_loop"]:
        return "trained by your own loop, which was not judged"
    if not told["samples"]:
        return None
    found = f"{steps_in_words(told['steps'])} of training; on samples held out: loss {change(told['loss'])}"
    return found if told["metric"]["after"] is None else f"{found}, metric {change(told['metric'])}"


def change(told: dict[str, float | None]) -> str:
    """From what to what; nothing where it was not measured."""
    before, after = told["before"], told["after"]
    return "-" if before is None or after is None else f"{before:.4g} → {after:.4g}"
