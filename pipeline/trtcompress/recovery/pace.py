"""How steps and time belong together: what fits into minutes, how often it is judged, and how long steps will take."""

from __future__ import annotations

JUDGEMENTS = 40
"""How often a long training is judged on what is held out."""

JUDGING = 0.2
"""Share of the minutes of a training that judgements may take."""

FEW = 120
"""Steps under which the batch is rather halved."""

SCANT = 20
"""Steps under which a training hardly was one."""


def fitting(budget: float, step: float, judging: float) -> tuple[int, int]:
    """Steps and judgements that fit into a time.

    Args:
        budget: seconds that there are.
        step: seconds that one takes.
        judging: seconds of a judgement.
    """
    judgements = max(4, min(JUDGEMENTS, int(JUDGING * budget / judging)))
    return max(1, int((budget - judgements * judging) / step)), judgements


def interval(steps: int, judgements: int) -> int:
    """Steps from one judgement to the next."""
    return max(1, steps // (judgements if steps >= 10 * judgements else min(10, judgements)))


def laid_out_again(steps: int, every: int, judgements: int) -> int:
    """Steps from one judgement to the next where the steps turn out to be more or fewer than was thought.

    A machine that is slower is so in judgements too: as many steps lie between them as before, so that judging keeps
    its share of the time; but it is judged four times.

    Args:
        steps: in all, as it looks now.
        every: steps between judgements so far.
        judgements: as many as were laid out.
    """
    return max(interval(steps, judgements), min(every, max(1, steps // 4)))


def still_fitting(done: int, spent: float, limit: float) -> int:
    """Steps in all, if those that are left run as fast as those that are done.

    Args:
        done: steps so far.
        spent: seconds that they took, judgements included.
        limit: seconds for all.
    """
    return done + max(0, int((limit - spent) * done / spent))


def about(seconds: float) -> str:
    """A time in words, no more exact than what is foretold: `40 s`, `4 min`, `1.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{round(minutes)} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def steps_in_words(count: int) -> str:
    """A number of steps: `1 step`, `1,568 steps`."""
    return "1 step" if count == 1 else f"{count:,} steps"
