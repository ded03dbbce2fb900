"""Inner tensors of a torch view by their ONNX names, and parts of a view between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

ONNX, MAKER = "onnx", "maker"
"""Where a node of a view keeps the name of its tensor, and the operator that computes it."""


def named_nodes(view: fx.GraphModule) -> dict[str, fx.Node]:
    """Nodes by the name of the ONNX tensor that they make, in the order of the graph."""
    found: dict[str, fx.Node] = {}
    for node in view.graph.nodes:
        if isinstance(node.meta.get(ONNX), str):
            found.setdefault(node.meta[ONNX], node)
    return found


def output_nodes(view: fx.GraphModule) -> tuple[Any, ...]:
    """What a view returns, in order."""
    (output,) = (node for node in view.graph.nodes if node.op == "output")
    held = output.args[0]
    return tuple(held) if isinstance(held, (tuple, list)) else (held,)


def tapped(view: fx.GraphModule, outputs: Sequence[str], tensors: Collection[str]) -> fx.GraphModule:
    """The view with its outputs and these inner tensors as a dict by name; parameters are the view's own.

    Args:
        view: the torch view of a model.
        outputs: names of its outputs, in order.
        tensors: names of what is read beside them, or among them; what is not read is not computed.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(view.graph, copies)
    named = named_nodes(view)
    made = dict(zip(outputs, output_nodes(view), strict=True))
    wanted = {name: made[name] if name in made else named[name] for name in tensors}
    graph.output({name: copies[held] if isinstance(held, fx.Node) else held for name, held in wanted.items()})
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)
    return fx.GraphModule(view, graph, class_name="Tapped")


@torch.no_grad()
def answered(
    view: fx.GraphModule, outputs: Sequence[str], tensors: Collection[str], runs: Sequence[Sequence[Tensor]]
) -> dict[str, Any]:
    """Outputs and inner tensors by name, of several passes one behind the other along the first axis.

    What has no place for each sample of a pass is that of the first one.

    Args:
        view: the torch view of a model.
        outputs: names of its outputs, in order.
        tensors: names of what is read.
        runs: inputs of each pass.
    """
    read = tapped(view, outputs, tensors)
    found: list[dict[str, Any]] = [read(*inputs) for inputs in runs]
    counts = [next((value.shape[:1] for value in inputs if value.dim()), ()) for inputs in runs]
    return {name: _joined([made[name] for made in found], counts) for name in found[0]}


def _joined(parts: Sequence[Any], counts: Sequence[Sequence[int]]) -> Any:
    each = zip(parts, counts, strict=True)
    stacks = len(parts) > 1 and all(isinstance(p, Tensor) and p.dim() and p.shape[:1] == count for p, count in each)
    return torch.cat(list(parts)) if stacks else parts[0]


def learned_nodes(view: fx.GraphModule) -> set[fx.Node]:
    """Nodes whose values depend on a parameter that is trained; masks and positions, say, do not."""
    found: set[fx.Node] = set()
    trained = {name for name, parameter in view.named_parameters() if parameter.requires_grad}
    holders = {name.rpartition(".")[0] for name in trained}
    for node in view.graph.nodes:
        own = node.op == "get_attr" and node.target in trained
        own = own or (node.op == "call_module" and node.target in holders)
        if own or any(given in found for given in node.all_input_nodes):
            found.add(node)
    return found


class Block(nn.Module):
    """A part of a view.

    Attributes:
        reads: names of the tensors that it takes, in order.
        part: computes; its parameters are the view's own.
    """

    def __init__(self, reads: tuple[str, ...], part: fx.GraphModule) -> None:
        super().__init__()
        self.reads = reads
        self.part = part

    def forward(self, values: Mapping[str, object]) -> object:
        """The tensor at its end, from the tensors that it reads by name."""
        return self.part(*(values[name] for name in self.reads))


def block(view: fx.GraphModule, starts: Collection[str], end: fx.Node) -> Block:
    """The part of a view that makes `end` from the tensors `starts` and, where it reads them, the inputs.

    Args:
        view: the torch view of a model.
        starts: names of tensors before it; those that it does not need are left out.
        end: the node that it ends with.
    """
    stops = {node: name for name, node in named_nodes(view).items() if name in starts and node is not end}
    needed = _needed(end, stops)
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    reads = [node for node in view.graph.nodes if node in needed and (node in stops or node.op == "placeholder")]
    for place, node in enumerate(reads):
        copies[node] = graph.placeholder(f"given_{place}")
    for node in view.graph.nodes:
        if node in needed and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[end])
    names = tuple(stops.get(node) or str(node.meta.get(ONNX, node.target)) for node in reads)
    return Block(names, fx.GraphModule(view, graph, class_name="Block"))


def _needed(end: fx.Node, stops: Collection[fx.Node]) -> set[fx.Node]:
    needed, open_ = set[fx.Node](), [end]
    while open_:
        node = open_.pop()
        if node not in needed:
            needed.add(node)
            open_ += () if node in stops else node.all_input_nodes
    return needed
