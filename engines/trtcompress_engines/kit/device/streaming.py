"""How much of the weights of an engine that streams them stays in GPU memory: TensorRT 10 and later, and that for RTX.

An engine that is built with WEIGHT_STREAMING streams nothing until whoever loads it sets a budget, which has to be done
before a context is made.
"""

from __future__ import annotations

import re
from typing import Any

AUTOMATIC = "automatic"
"""TensorRT's own choice by the memory that is free."""

_AUTOMATIC_10_0, _NONE_STREAMED_10_0 = -1, 0
"""What 10.0 takes as a budget beside bytes; its successor, `weight_streaming_budget_v2`, came with 10.1."""


class BudgetError(ValueError):
    """A budget that is none, or that TensorRT does not take; the message says which."""


def parse_budget(text: str, streamable: int) -> int | None:
    """Bytes of weights that stay in GPU memory; None where TensorRT chooses.

    Args:
        text: `automatic`, bytes (`1048576`), or a share of what can be streamed (`30%`).
        streamable: bytes of weights that can be streamed.

    Raises:
        BudgetError: it is none of these.
    """
    if text == AUTOMATIC:
        return None
    found = re.match(r"(\d+(?:\.\d+)?)(%?)$", text)
    if not found or (found[2] and float(found[1]) > 100) or (not found[2] and "." in found[1]):
        raise BudgetError(f"'{text}' is no budget of streamed weights: give bytes, a share such as 30%, or {AUTOMATIC}")
    wanted = int(streamable * float(found[1]) / 100) if found[2] else int(found[1])
    return min(wanted, streamable)


def set_budget(engine: Any, text: str = AUTOMATIC) -> int | None:
    """Set the budget of an ICudaEngine of which there is no context yet, and return it in bytes.

    None where the engine streams nothing, or where TensorRT 10.0 chooses and does not tell.

    Raises:
        BudgetError: it is no budget, or TensorRT does not take it.
    """
    streamable = int(getattr(engine, "streamable_weights_size", 0))  # 0 where the engine streams nothing
    if streamable <= 0:
        return None
    wanted = parse_budget(text, streamable)
    if not hasattr(engine, "weight_streaming_budget_v2"):
        return _set_in_10_0(engine, wanted, streamable)
    budget = int(engine.get_weight_streaming_automatic_budget()) if wanted is None else wanted
    engine.weight_streaming_budget_v2 = budget
    taken = int(engine.weight_streaming_budget_v2)  # the setter is silent where it fails
    if wanted is not None and taken != wanted:
        raise BudgetError(f"TensorRT takes no budget of {wanted} bytes for {streamable} bytes of streamed weights")
    return taken


def _set_in_10_0(engine: Any, wanted: int | None, streamable: int) -> int | None:
    if wanted is None:
        engine.weight_streaming_budget = _AUTOMATIC_10_0
    elif wanted >= streamable:
        engine.weight_streaming_budget = _NONE_STREAMED_10_0
    else:
        wanted = max(wanted, int(engine.minimum_weight_streaming_budget))
        engine.weight_streaming_budget = wanted
    return wanted
