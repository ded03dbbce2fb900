"""Through a graph from its inputs to its outputs, quantizing one thing at a time on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.errors import DataError

from .layout import Pair
from .parts import Feed, Part, PartedGraph
from .samples import Array
from .spots import NodeSpot, restored

BROKEN = 1e9
"""Damage of an output that is no longer finite."""


@dataclass(frozen=True, slots=True)
class Damage:
    """What one node or tensor costs.

    Attributes:
        kind: a node with all that it reads and writes as INT8; an activation for all that read it so; or a weight,
            with the bias beside it where the encoding quantizes that.
        name: of the node or tensor.
        nodes: the node, or those that read the tensor quantized.
        op: kind of operator of the first of them.
        damage: squared error of the outputs over their variance, the mean of all outputs.
    """

    kind: Literal["node", "activation", "weight"]
    name: str
    nodes: tuple[str, ...]
    op: str
    damage: float


class Answers:
    """Outputs of the float graph, and how far others are from them."""

    def __init__(self, full: Sequence[Feed], names: Sequence[str]) -> None:
        self._full = full
        self._names = names
        for name in names:
            if not all(np.isfinite(answer[name]).all() for answer in full):
                raise DataError(
                    f"the float model gives NaN or infinity in '{name}'",
                    where="samples",
                    hint="look at the samples' values and their preprocessing; a float16 model may overflow",
                )
        self._powers = np.array([_power([np.asarray(answer[name]) for answer in full]) for name in names])

    def damage(self, others: Iterable[Feed]) -> float:
        """Squared error over the variance, the mean of all outputs."""
        errors = np.zeros(len(self._names))
        for full, other in zip(self._full, others, strict=True):
            for place, name in enumerate(self._names):
                difference = np.asarray(full[name], np.float64) - np.asarray(other[name], np.float64)
                errors[place] += float(np.square(difference).sum())
        damage = float(np.mean(errors / self._powers))
        return damage if np.isfinite(damage) else BROKEN


def _power(batches: Sequence[Array]) -> float:
    """Summed squares of an output around its mean."""
    count = sum(batch.size for batch in batches)
    mean = sum(float(batch.sum(dtype=np.float64)) for batch in batches) / max(count, 1)
    return max(sum(float(np.square(batch.astype(np.float64) - mean).sum()) for batch in batches), 1e-30)


@dataclass(slots=True)
class Walk:
    """From the inputs to the outputs: at each place the tensors that are still read are known, of each batch."""

    graph: PartedGraph
    feeds: list[dict[str, Array]]
    outputs: tuple[str, ...]
    encoding: Encoding
    spots: tuple[NodeSpot, ...]
    pairs: tuple[Pair, ...]

    def damages(self, *, weights: bool, progress: Callable[[int, int], None]) -> Iterator[Damage]:
        """Measure at each place where a node ends or a quantized tensor is made."""
        ending: dict[int, list[NodeSpot]] = defaultdict(list)
        for spot in self.spots:
            ending[self._place(spot.writes[0])].append(spot)
        made: dict[int, list[Pair]] = defaultdict(list)
        for pair in self.pairs:
            made[self._place(str(pair.value.name))].append(pair)
        whole = self.graph.part(self.feeds[0], self.outputs)
        answers = Answers([whole(feed) for feed in self.feeds], self.outputs)
        ends = self._ends()
        front: list[dict[str, Array]] = self.feeds
        places = sorted(ending.keys() | made.keys())
        for done, place in enumerate(places, 1):
            here = [name for name, end in ends.items() if self._place(name) <= place < end]
            local = [name for spot in ending[place] for name in (*spot.reads, *spot.writes)]
            local += [str(pair.value.name) for pair in made[place]]
            step = self.graph.part(front[0], [*here, *local])
            front = [step(feed) for feed in front]
            behind = _Behind(self, front, here, answers)
            for spot in ending[place]:
                yield from self._of_node(spot, behind, weights)
            for pair in made[place]:
                yield self._of_tensor(pair, behind)
            front = [{name: feed[name] for name in here} for feed in front]
            progress(done, len(places))

    def _of_node(self, spot: NodeSpot, behind: _Behind, weights: bool) -> Iterator[Damage]:
        name, op = str(spot.node.name), spot.node.op_type
        head = spot.head(self.graph, behind.front[0], self.encoding)
        yield Damage("node", name, (name,), op, behind.damage(head))
        if weights and spot.weight is not None:
            head = spot.head(self.graph, behind.front[0], self.encoding, weights_only=True)
            yield Damage("weight", spot.weight, (name,), op, behind.damage(head))

    def _of_tensor(self, pair: Pair, behind: _Behind) -> Damage:
        name = str(pair.value.name)
        readers = tuple(dict.fromkeys(str(node.name) for node, _ in pair.readers))
        op = pair.readers[0][0].op_type if pair.readers else ""
        if pair.whole:
            damage = behind.damage(lambda feed: {name: restored(feed[name], pair.scale)})
        else:
            other = f"{name}/int8"
            uses = {(self._place(str(node.outputs[0].name)), index): other for node, index in pair.readers}
            damage = behind.damage(lambda feed: {other: restored(feed[name], pair.scale)}, uses)
        return Damage("activation", name, readers, op, damage)

    def _place(self, name: str) -> int:
        """Of the node that makes a tensor; -1 for an input of the graph."""
        return self.graph.place.get(name, -1)

    def _ends(self) -> dict[str, int]:
        """Until where each tensor is read; a node reads its inputs until the rectifier that it absorbs."""
        ends: dict[str, int] = {}
        for place, names in enumerate(self.graph.reads):
            ends |= {name: place for name in names if name in self.graph.place or name in self.feeds[0]}
        for spot in self.spots:
            ends |= {name: max(ends[name], self._place(spot.writes[0])) for name in spot.reads}
        return ends | {name: len(self.graph.nodes) for name in self.outputs}


class _Behind:
    """What lies behind a place, run with other values for some of the tensors there."""

    def __init__(self, walk: Walk, front: list[dict[str, Array]], live: Sequence[str], answers: Answers) -> None:
        self.front = front
        self._walk = walk
        self._live = live
        self._answers = answers
        self._rest: Part | None = None

    def damage(self, change: Callable[[Feed], Feed], uses: Mapping[tuple[int, int], str] | None = None) -> float:
        """Damage when `change` gives other values; `uses` are the inputs that read them, all where it is None."""
        feeds = [{name: feed[name] for name in self._live} | dict(change(feed)) for feed in self.front]
        if uses is not None:
            rest = self._walk.graph.part(feeds[0], self._walk.outputs, uses)
        else:
            rest = self._rest = self._rest or self._walk.graph.part(feeds[0], self._walk.outputs)
        return self._answers.damage(rest(feed) for feed in feeds)
