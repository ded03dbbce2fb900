"""Matrix products and Einsum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..coupler import Coupler, Term
from .elementwise import letters_from_right
from .registry import rule

if TYPE_CHECKING:
    import onnx_ir as ir


@rule("MatMul")
def matmul(coupler: Coupler, node: ir.Node) -> None:
    """[..., m, k] with [..., k, n]; weights on either side, or two activations with batch axes."""
    a, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
    rank = max(len(coupler.shape(a)), len(coupler.shape(b)))
    left = (*letters_from_right(coupler, a, rank)[:-2], *("m", "k")[-len(coupler.shape(a)) :])
    right = (*letters_from_right(coupler, b, rank)[:-2], *(("k", "n") if len(coupler.shape(b)) > 1 else ("k",)))
    ends = ([] if len(coupler.shape(a)) == 1 else ["m"]) + ([] if len(coupler.shape(b)) == 1 else ["n"])
    batch = [str(axis) for axis in range(rank - 2)]
    coupler.couple(node, [Term(a, left), Term(b, right)], [Term(y, (*batch, *ends))])


@rule("Gemm")
def gemm(coupler: Coupler, node: ir.Node) -> None:
    """A [m, k] with B [k, n] and a bias that is broadcast to [m, n]."""
    a, b, y = node.inputs[0], node.inputs[1], node.outputs[0]
    left = ("k", "m") if node.attributes.get_int("transA", 0) else ("m", "k")
    right = ("n", "k") if node.attributes.get_int("transB", 0) else ("k", "n")
    terms = [Term(a, left), Term(b, right)]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        shape = coupler.shape(node.inputs[2])
        names = ("m", "n")[2 - len(shape) :]
        terms.append(
            Term(node.inputs[2], tuple(n if length > 1 else None for n, length in zip(names, shape, strict=True)))
        )
    coupler.couple(node, terms, [Term(y, ("m", "n"))])


@rule("Einsum")
def einsum(coupler: Coupler, node: ir.Node) -> None:
    """The letters are the equation's; those of `...` are counted from the right."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    left, arrow, right = equation.partition("->")
    parts = left.split(",")
    if not arrow:
        letters = sorted({c for c in left if c.isalpha() and left.count(c) == 1})
        right = ("..." if "..." in left else "") + "".join(letters)
    terms = [Term(v, _letters(coupler, v, part)) for v, part in zip(node.inputs, parts, strict=True)]
    for term, part in zip(terms, parts, strict=True):
        if len(set(part.replace(".", ""))) < len(part.replace(".", "")):
            coupler.seal(term.value, f"Einsum '{node.name}' takes a diagonal")
    coupler.couple(node, terms, [Term(node.outputs[0], _letters(coupler, node.outputs[0], right))])


def _letters(coupler: Coupler, value: ir.Value | None, part: str) -> tuple[str | None, ...]:
    shape = coupler.shape(value)
    head, dots, tail = part.partition("...")
    middle = len(shape) - len(head) - len(tail) if dots else 0
    names = [*head, *(f"...{middle - i}" for i in range(middle)), *tail]
    return tuple(name if length > 1 else None for name, length in zip(names, shape, strict=True))
