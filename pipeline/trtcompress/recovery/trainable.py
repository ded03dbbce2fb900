"""What of a student a training can move, and what it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import load_ir

if TYPE_CHECKING:
    from torch import nn

    from trtcompress_graph.model import Model

_WEIGHTS = {"ConvInteger": (1,), "MatMulInteger": (0, 1), "QLinearConv": (3,), "QLinearMatMul": (0, 3)}
"""Operators on integers, with the places where weights may stand: no float lies behind these that could move."""

_INSTEAD = "the float model that it was made of, or with --qat a Q/DQ graph of that (trtcompress quantize)"


def check_trainable(view: nn.Module, model: Model) -> None:
    """Refuse a student in which nothing can be trained.

    Args:
        view: of the student, as it would be trained.
        model: the student.

    Raises:
        ModelError: it has no parameter.
    """
    if any(parameter.requires_grad for parameter in view.parameters()):
        return
    held = fixed_weights(model)
    why = f": those of {held} are integers, which stay as they are" if held else ""
    hint = f"train {_INSTEAD}" if held else "give a student that stores its weights, each under a name of its own"
    raise ModelError(f"it has no weight that can be trained{why}", where=str(model.path), hint=hint)


def untrained(model: Model) -> tuple[str, ...]:
    """A note on weights that stay as they are beside what is trained."""
    held = fixed_weights(model)
    return (f"the weights of {held} are integers and stay as they are: to train them take {_INSTEAD}",) if held else ()


def fixed_weights(model: Model) -> str:
    """The nodes whose weights are integers with no float behind them, in words; "" where there are none."""
    nodes = [
        node.op_type
        for node in load_ir(model).graph.all_nodes()
        if any(
            place < len(node.inputs) and (held := node.inputs[place]) is not None and held.const_value is not None
            for place in _WEIGHTS.get(node.op_type, ())
        )
    ]
    count = f"{len(nodes)} nodes" if len(nodes) > 1 else "1 node"
    return f"{count} ({', '.join(sorted(set(nodes)))})" if nodes else ""
