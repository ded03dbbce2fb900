"""What names a width in a graph beside its weights: targets of Reshape, bounds of Slice, sizes of Split, groups.

One registry, one entry an operator. An entry tells the parameters that a node needs after the cut; `surgery` writes
them, and `consistency` replays data movement with them before anything is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcompress_graph.errors import PruneError

from .cut import Alive
from .factors import Bools, Ints, Shape
from .replay import pad_amounts, slice_parameters

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a node gets.

    Attributes:
        inputs: new values of stored inputs, by their place.
        shapes: inputs that are shapes, by their place: of which axis of the output each element is the length.
        attributes: new values; None removes one.
    """

    inputs: Mapping[int, Ints] = field(default_factory=dict)
    shapes: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    attributes: Mapping[str, int | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class CutGraph:
    """A graph's shapes before a cut, and what lives after it."""

    shapes: Mapping[str, Shape]
    constants: Mapping[str, ir.TensorProtocol]
    alive: Alive

    def before(self, value: ir.Value | None) -> Shape:
        """Shape before the cut."""
        return self.shapes.get(str(value.name), ()) if value is not None else ()

    def after(self, value: ir.Value | None) -> Shape:
        """Shape after the cut."""
        return self.alive.shape(str(value.name), self.before(value)) if value is not None else ()

    def changed(self, value: ir.Value | None) -> dict[int, int]:
        """The axes that get shorter, with their new lengths."""
        pairs = zip(self.before(value), self.after(value), strict=True)
        return {axis: after for axis, (before, after) in enumerate(pairs) if before != after}

    def stored(self, value: ir.Value | None) -> Any:
        """The elements of a stored tensor; None for one that is computed or absent."""
        tensor = self.constants.get(str(value.name)) if value is not None else None
        return None if tensor is None else tensor.numpy()

    def living(self, value: ir.Value | None, axis: int) -> Bools | None:
        """Which places along an axis live (in a living row, where rows differ); None where all do."""
        if value is None:
            return None
        living: Bools | None = None
        for factor in self.alive.touched(str(value.name)):
            if axis in factor.axes:
                rows = np.moveaxis(self.alive.kept(factor.labels), factor.axes.index(axis), -1)
                rows = rows.reshape(-1, rows.shape[-1])
                own = rows[rows.any(axis=1)][0]
                living = own if living is None else living & own
        return living


Rule = Callable[[CutGraph, "ir.Node"], Parameters]
PARAMETERS: dict[str, Rule] = {}


def parameters(ops: str) -> Callable[[Rule], Rule]:
    """Register what operators (named with spaces between) need after a cut."""

    def keep(function: Rule) -> Rule:
        for op in ops.split():
            if op in PARAMETERS:
                raise ValueError(f"{op} is there already")
            PARAMETERS[op] = function
        return function

    return keep


SHAPE_PLACES: Mapping[str, int] = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Resize": 3}
"""The input that is a shape, which follows a cut; every other input that is computed keeps its value."""


@parameters("ConstantOfShape Expand Reshape")
def _target(cut: CutGraph, node: ir.Node) -> Parameters:
    """A target of Expand may have fewer axes than the output."""
    place = SHAPE_PLACES[node.op_type]
    rank, given = len(cut.before(node.outputs[0])), cut.before(node.inputs[place])
    return Parameters(shapes={place: tuple(range(rank - given[0], rank))}) if given else Parameters()


@parameters("Resize")
def _sizes(cut: CutGraph, node: ir.Node) -> Parameters:
    """Only where sizes are given; scales of 1 stay right."""
    place = SHAPE_PLACES["Resize"]
    if len(node.inputs) <= place or node.inputs[place] is None:
        return Parameters()
    rank = len(cut.before(node.outputs[0]))
    named = node.attributes.get_ints("axes", None)
    return Parameters(shapes={place: tuple(range(rank) if named is None else (axis % rank for axis in named))})


@parameters("Split")
def _parts(cut: CutGraph, node: ir.Node) -> Parameters:
    axis = node.attributes.get_int("axis", 0)
    if all(axis % max(1, len(cut.before(y))) not in cut.changed(y) for y in node.outputs):
        return Parameters()
    sizes = np.array([cut.after(y)[axis] for y in node.outputs], np.int64)
    return Parameters(inputs={1: sizes}, attributes={"num_outputs": None})


@parameters("Slice")
def _bounds(cut: CutGraph, node: ir.Node) -> Parameters:
    """Bounds are counted in what lives."""
    given = [cut.stored(value) for value in node.inputs[1:]]
    x = node.inputs[0]
    rank = len(cut.before(x))
    changed = cut.changed(x)
    if not changed:
        return Parameters()
    if given[0] is None or given[1] is None:
        return Parameters()
    starts, ends, axes, steps = slice_parameters([None, *given], rank)
    for place, axis in enumerate(axes):
        living = cut.living(x, axis)
        if living is None:
            continue
        first, last, step = slice(starts[place], ends[place], steps[place]).indices(living.size)
        if step < 0:
            continue  # only the reversal of a whole axis can hold, whose bounds stay
        # With a step, blocks of so many live and die together, counted from the start of the axis.
        offset = first % step
        starts[place] = int(living[: first - offset].sum()) + offset
        if last < living.size:
            ends[place] = starts[place] + (int(living[first:last:step].sum()) - 1) * step + 1
    if (starts, ends) == slice_parameters([None, *given], rank)[:2]:
        return Parameters()
    return Parameters(inputs={1: np.array(starts, np.int64), 2: np.array(ends, np.int64)})


@parameters("Gather")
def _indices(cut: CutGraph, node: ir.Node) -> Parameters:
    """Stored indices are counted in what lives; those of what goes are dropped."""
    x, indices = node.inputs[0], cut.stored(node.inputs[1])
    axis = node.attributes.get_int("axis", 0) % max(1, len(cut.before(x)))
    living = cut.living(x, axis)
    if living is None or indices is None:
        return Parameters()
    places = np.where(indices < 0, indices + living.size, indices)
    renamed = np.cumsum(living) - 1
    if places.ndim == 1:
        return Parameters(inputs={1: renamed[places[living[places]]].astype(np.int64)})
    return Parameters(inputs={1: renamed[places].astype(np.int64)})


@parameters("Pad")
def _pads(cut: CutGraph, node: ir.Node) -> Parameters:
    """Of the places that are padded along an axis, those that live."""
    x, y = node.inputs[0], node.outputs[0]
    given = [None, *(cut.stored(value) for value in node.inputs[1:])]
    if given[1] is None or not cut.changed(y):
        return Parameters()
    rank = len(cut.before(x))
    amounts = pad_amounts(given, rank)
    for axis in cut.changed(y):
        living = cut.living(y, axis)
        left, right = amounts[axis]
        if living is not None and (left > 0 or right > 0):
            amounts[axis] = (
                int(living[: max(0, left)].sum()),
                int(living[living.size - max(0, right) :].sum()) if right > 0 else 0,
            )
    if amounts == pad_amounts(given, rank):
        return Parameters()
    pads = np.array([a for a, _ in amounts] + [b for _, b in amounts], np.int64)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        return Parameters(inputs={1: pads, 3: np.arange(rank, dtype=np.int64)})
    return Parameters(inputs={1: pads})


@parameters("Conv ConvTranspose")
def _groups(cut: CutGraph, node: ir.Node) -> Parameters:
    groups = node.attributes.get_int("group", 1)
    if groups == 1:
        return Parameters()
    sides = [cut.living(value, 1) for value in (node.inputs[0], node.outputs[0])]
    counts = [np.ones(groups, int) if living is None else living.reshape(groups, -1).sum(axis=1) for living in sides]
    left = int((counts[0] > 0).sum())
    even = all(len(set(side[side > 0].tolist())) == 1 for side in counts) and ((counts[0] > 0) == (counts[1] > 0)).all()
    channels, outputs = cut.after(node.inputs[0])[1], cut.after(node.outputs[0])[1]
    rows, each = cut.after(node.inputs[1])[:2]
    sizes = (outputs, channels) if node.op_type == "Conv" else (channels, outputs)
    if not even or (rows, each * left) != sizes:
        raise PruneError(
            "the groups of the convolution would not keep equally many channels",
            where=f"{node.op_type} '{node.name}'",
            hint="keep it with --keep",
        )
    return Parameters(attributes={"group": left} if left != groups else {})


@parameters("LSTM GRU RNN")
def _hidden(cut: CutGraph, node: ir.Node) -> Parameters:
    changed = cut.changed(node.inputs[2])
    return Parameters(attributes={"hidden_size": changed[2]} if 2 in changed else {})


@parameters("Tile")
def _repeats(cut: CutGraph, node: ir.Node) -> Parameters:
    """Repeats of an axis stay right where its input is cut alike; `consistency` sees where they do not."""
    return Parameters()


def of_node(cut: CutGraph, node: ir.Node) -> Parameters:
    """The parameters of a node after the cut.

    Raises:
        PruneError: what lives is not a box.
    """
    found = PARAMETERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if found is None:
        return Parameters()
    try:
        return found(cut, node)
    except IndexError as error:
        raise PruneError(
            "the cut does not fit this node", where=f"{node.op_type} '{node.name}'", hint="keep it with --keep"
        ) from error
