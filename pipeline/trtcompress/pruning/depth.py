"""Depth: residual blocks that are taken out whole.

A block is what lies between a tensor and an Add that gives it back with something added, in the same shape. Without
the block the tensor goes on as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from trtcompress_graph.errors import PruneError

from .factors import Shape

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Block:
    """A residual block.

    Attributes:
        name: the node of the Add that ends it.
        skip: tensor that goes around it.
        nodes: names of what lies inside, in the order of the graph.
        weights: stored tensors that only the block reads.
    """

    name: str
    skip: str
    nodes: tuple[str, ...]
    weights: tuple[str, ...]


def residual_blocks(graph: ir.Graph, shapes: Mapping[str, Shape]) -> tuple[Block, ...]:
    """Blocks whose removal keeps every shape, in the order of the graph.

    Nothing inside a block is read from outside of it, so it can go without a trace. A block inside another one (the
    attention and the feed-forward part of a layer are one behind the other, not inside) counts too.
    """
    order = {node: place for place, node in enumerate(graph)}
    blocks = []
    for node in graph:
        if node.op_type != "Add" or node.outputs[0].is_graph_output():
            continue
        one, two = node.inputs
        for skip, other in ((one, two), (two, one)):
            block = _block(node, skip, other, order, shapes)
            if block is not None:
                blocks.append(block)
                break
    return tuple(blocks)


def _block(
    end: ir.Node,
    skip: ir.Value | None,
    other: ir.Value | None,
    order: Mapping[ir.Node, int],
    shapes: Mapping[str, Shape],
) -> Block | None:
    if skip is None or other is None or other.producer() is None or skip.const_value is not None:
        return None
    same = {shapes.get(str(value.name)) for value in (skip, other, end.outputs[0])}
    if len(same) > 1 or None in same:
        return None
    inside = _between(skip, other)
    if not inside or end in inside:
        return None
    if any(use.node not in inside and use.node is not end for node in inside for v in node.outputs for use in v.uses()):
        return None
    if any(value.is_graph_output() for node in inside for value in node.outputs):
        return None
    inputs = {value for node in inside for value in node.inputs if value is not None and value.const_value is not None}
    own = [v for v in inputs if all(use.node in inside for use in v.uses())]
    weights = sorted(str(v.name) for v in own if v.dtype is not None and v.dtype.is_floating_point())
    if not weights:
        return None
    nodes = sorted(inside, key=order.__getitem__)
    return Block(str(end.name), str(skip.name), tuple(str(node.name) for node in nodes), tuple(weights))


def _between(skip: ir.Value, other: ir.Value) -> set[ir.Node]:
    """Nodes on the way from one tensor to another."""
    before: set[ir.Node] = set()
    stack = [other]
    while stack:
        value = stack.pop()
        node = value.producer()
        if value is skip or node is None or node in before:
            continue
        before.add(node)
        stack.extend(v for v in node.inputs if v is not None)
    behind: set[ir.Node] = set()
    ahead = [use.node for use in skip.uses()]
    while ahead:
        node = ahead.pop()
        if node in before and node not in behind:
            behind.add(node)
            ahead.extend(use.node for value in node.outputs for use in value.uses())
    return behind


def remove_blocks(graph: ir.Model, names: Iterable[str], shapes: Mapping[str, Shape]) -> None:
    """Take blocks out, in place.

    Raises:
        PruneError: there is no such block.
    """
    import onnx_ir.passes.common as common

    from trtcompress_graph.shapes import infer

    blocks = {block.name: block for block in residual_blocks(graph.graph, shapes)}
    ends = []
    for name in names:
        if name not in blocks:
            raise PruneError(f"there is no residual block '{name}'", where="prune", hint="make a new plan")
        end = next(node for node in graph.graph if node.name == name)
        ends.append((end, [str(value.name) for value in end.inputs if value is not None].index(blocks[name].skip)))
    # Places, not tensors: the block before may go too, and what it gave is then another tensor.
    for end, place in ends:
        skip = end.inputs[place]
        assert skip is not None
        end.outputs[0].replace_all_uses_with(skip)
    common.RemoveUnusedNodesPass()(graph)
    for key, value in list(graph.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            graph.graph.initializers.pop(key)
    infer(graph)


def without_kept_blocks(blocks: Iterable[Block], patterns: Iterable[str]) -> tuple[Block, ...]:
    """The blocks that no pattern names, by their own name, a node or a weight inside."""
    patterns = tuple(patterns)
    return tuple(
        block
        for block in blocks
        if not any(fnmatchcase(n, p) for n in (block.name, *block.nodes, *block.weights) for p in patterns)
    )
