"""The registry of rules: one entry an operator that computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..coupler import Coupler

if TYPE_CHECKING:
    import onnx_ir as ir

Rule = Callable[[Coupler, "ir.Node"], None]
"""Relates the labels of a node's inputs and gives its outputs theirs."""

RULES: dict[str, Rule] = {}


def rule(ops: str) -> Callable[[Rule], Rule]:
    """Register the rule of operators (of the ONNX domain), named with spaces between.

    Raises:
        ValueError: an operator has a rule already.
    """

    def keep(function: Rule) -> Rule:
        for op in ops.split():
            if op in RULES:
                raise ValueError(f"{op} has a rule already")
            RULES[op] = function
        return function

    return keep
