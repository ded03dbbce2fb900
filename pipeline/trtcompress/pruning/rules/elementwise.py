"""Operators that work element by element, with broadcasting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..coupler import Coupler, Term
from .registry import rule

if TYPE_CHECKING:
    import onnx_ir as ir


def letters_from_right(coupler: Coupler, value: ir.Value | None, rank: int) -> tuple[str | None, ...]:
    """Letters of a tensor that is broadcast to `rank` axes; an axis of length 1 has none."""
    shape = coupler.shape(value)
    return tuple(str(rank - len(shape) + axis) if length > 1 else None for axis, length in enumerate(shape))


@rule(
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp Floor "
    "Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink "
    "Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
)
def unary(coupler: Coupler, node: ir.Node) -> None:
    """The first input alone decides; the others are bounds and ratios."""
    coupler.settle(node.inputs[0])
    for output in node.outputs:
        coupler.give(output, coupler.of(node.inputs[0]))


@rule(
    "Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or "
    "Pow PRelu Sub Sum Where Xor"
)
def broadcast(coupler: Coupler, node: ir.Node) -> None:
    """Axes are aligned from the right."""
    output = node.outputs[0]
    rank = len(coupler.shape(output))
    terms = [Term(value, letters_from_right(coupler, value, rank)) for value in node.inputs]
    coupler.couple(node, terms, [Term(output, letters_from_right(coupler, output, rank))])
