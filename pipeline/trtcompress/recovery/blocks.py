"""The blocks of a student, each between tensors that it shares with its teacher."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from trtcompress_graph.torch_view import learned_scales

from .losses.features import Bridge
from .pairs import Pair, Shared
from .taps import Block, block, named_nodes, output_nodes

MOST = 16
"""Blocks, at the most."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A block to fit.

    Attributes:
        name: of the tensor at its end.
        part: computes it.
        bridge: brings it to the teacher's width.
        weights: that are fitted; those of blocks before are left alone.
        scales: of the quantization that are fitted, where they are learned.
    """

    name: str
    part: Block
    bridge: Bridge
    weights: tuple[nn.Parameter, ...]
    scales: tuple[nn.Parameter, ...] = ()

    @property
    def fitted(self) -> tuple[nn.Parameter, ...]:
        """All that changes."""
        return (*self.weights, *self.scales, *self.bridge.parameters())


def tasks_of(pair: Pair) -> list[Task]:
    """The blocks between the tensors that both share, and the one up to the first output; none where it is alone."""
    nodes, outputs = named_nodes(pair.student), output_nodes(pair.student)
    ends: list[tuple[str, fx.Node, Shared]] = [(s.name, nodes[s.name], s) for s in pair.milestones(MOST - 1)]
    if not ends:
        return []
    first = pair.answers[0]
    shape = tuple(pair.first.student[first].shape)
    held = outputs[pair.outputs.index(first)]
    ends.append((first, held, Shared(first, "", False, shape, shape)))
    tasks: list[Task] = []
    starts: list[str] = []
    apart = {id(scale) for scale in learned_scales(pair.student)}
    taken: set[int] = set()
    for name, node, shared in ends:
        part = block(pair.student, starts, node)
        own = [p for p in part.parameters() if p.requires_grad and id(p) not in taken]
        weights = tuple(p for p in own if id(p) not in apart)
        if weights:
            scales = tuple(p for p in own if id(p) in apart)
            tasks.append(Task(name, part, Bridge(shared).to(weights[0].device), weights, scales))
            taken.update(map(id, own))
        starts.append(name)
    return tasks
