"""What settings of a training mean, in the words of both the config's schema and `recover --help`."""

from __future__ import annotations

STEPS = "steps of the optimizer"
WEIGHT_DECAY = "decay of the weights in each step, of what is a matrix or more; 0: none"
CLIP = "greatest norm of the gradient"
EMA = "decay of the moving average of the weights; 0: none"


def sentence(words: str, usual: float | None = None) -> str:
    """The words for a help text, with what holds where the option is not given."""
    told = "" if usual is None else f"  [default: {usual:g}]"
    return f"{words[0].upper()}{words[1:]}.{told}"
