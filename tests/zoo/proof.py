"""The proof of a cut: the pruned graph answers like the full graph in which what was cut is zero."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from trtcompress.pruning.coupling import Coupling, analyse
from trtcompress.pruning.cut import Alive, Cut
from trtcompress.pruning.groups import Group
from trtcompress.pruning.surgery import apply_cut
from trtcompress_graph.load import load_ir
from trtcompress_graph.model import Model
from trtcompress_graph.shapes import graph_shapes

from .entries import REGISTRY, Entry, Feeds
from .masked import masked

TOLERANCE = 1e-4
"""Greatest difference of the pruned graph from the masked one, relative to the output's greatest value."""

NOISE = 2.4e-7
"""Two steps of a float at 1: ONNX Runtime's sigmoid is no more exact than that where it is almost zero."""

INFLUENCE = 100 * TOLERANCE
"""What the cut must at least change in some output: else a wrong cut would not show."""

UNSEEN = "the cut changes no output by more than"
"""So begins the answer where a cut may be right, and nothing shows it."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A graph with what is needed to cut it again and again.

    Attributes:
        shapes: of every tensor, for each binding of the dynamic axes.
        couplings: found at each binding; it is the same but for axes that hold a dynamic one too.
        feeds: one set of inputs for each binding.
        answers: of the full graph, for each binding.
    """

    name: str
    model: Model
    proto: onnx.ModelProto
    shapes: tuple[Mapping[str, tuple[int, ...]], ...]
    couplings: tuple[Coupling, ...]
    feeds: tuple[Feeds, ...]
    answers: tuple[list[Array], ...]

    @property
    def coupling(self) -> Coupling:
        """At the usual binding."""
        return self.couplings[0]

    def cut(self, units: tuple[int, ...], at: int) -> Cut:
        """The cut of units of the usual coupling, in the coupling of another binding.

        Raises:
            KeyError: there a group is missing.
        """
        other = self.couplings[at]
        there = {
            one: two for g in self.coupling.groups for one, two in zip(g.units, other.group(g.name).units, strict=True)
        }
        return Cut.of(other.relations, [there[unit] for unit in units])


def subject(name: str, model: Model) -> Subject:
    """Analyse a graph of the zoo at its usual shapes."""
    return subject_of(REGISTRY[name], model)


def subject_of(entry: Entry, model: Model) -> Subject:
    """The same of any graph; the entry tells shapes and inputs."""
    bindings = entry.shapes(model)
    graph = load_ir(model)
    shapes = tuple(graph_shapes(graph, model, binding) for binding in bindings)
    feeds = tuple(entry.feeds(model, binding) for binding in bindings)
    proto = onnx.load(model.path)
    answers = tuple(_run(proto, feed) for feed in feeds)
    couplings = tuple(analyse(graph.graph, at) for at in shapes)
    return Subject(entry.name, model, proto, shapes, couplings, feeds, answers)


def seeded_part(group: Group, seed: int, most: bool = False) -> tuple[int, ...]:
    """Some units of each cell, the same share of all: a quarter to a half, at least one part; or all but one."""
    rng = np.random.default_rng([seed, zlib.crc32(group.name.encode())])
    parts = int(rng.integers(max(1, group.step // 4), max(1, group.step // 2) + 1))
    share = group.step - 1 if most else parts
    return tuple(
        int(unit) for cell in group.cells for unit in rng.choice(cell, len(cell) * share // group.step, replace=False)
    )


def prove(given: Subject, group: Group, seed: int = 0) -> str:
    """Cut a part of a group and compare; what is wrong, in words, or nothing.

    Where that changes too little to be seen, as much as possible is cut.
    """
    problem = prove_cut(given, seeded_part(group, seed))
    return prove_cut(given, seeded_part(group, seed, most=True)) if problem.startswith(UNSEEN) else problem


def prove_cut(given: Subject, units: tuple[int, ...]) -> str:
    """The same of these units."""
    cut = Cut.of(given.coupling.relations, units)
    graph = load_ir(given.model)
    apply_cut(graph, given.coupling, cut, given.shapes[0])
    pruned = ir.serde.serialize_model(graph)
    return _unsound(given.proto, pruned) or _differs(given, pruned, units)


def _differs(given: Subject, pruned: onnx.ModelProto, units: tuple[int, ...]) -> str:
    changed = 0.0
    for at, (shapes, feeds, full) in enumerate(zip(given.shapes, given.feeds, given.answers, strict=True)):
        alive = Alive(given.couplings[at].factors, given.cut(units, at))
        expected = _run(masked(given.proto, shapes, alive.mask), feeds)
        for output, a, b, whole in zip(given.proto.graph.output, _run(pruned, feeds), expected, full, strict=True):
            if a.shape != b.shape:
                return f"output '{output.name}' has the shape {a.shape} instead of {b.shape}"
            error, scale = _apart(a, b), float(np.abs(b).max())
            if not error <= TOLERANCE * scale + NOISE:
                return f"output '{output.name}' is off by {error:.3g} where the greatest value is {scale:.3g}"
            changed = max(changed, _apart(b, whole) / scale if scale else 0.0)
    return "" if changed > INFLUENCE else f"{UNSEEN} {changed:.3g} of its greatest value"


def _apart(a: Array, b: Array) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


def _unsound(full: onnx.ModelProto, pruned: onnx.ModelProto) -> str:
    """What is wrong with the file: the checker, shapes, names, inputs and outputs, or nothing got smaller."""
    try:
        onnx.checker.check_model(pruned, full_check=True)
        onnx.shape_inference.infer_shapes(pruned, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return f"the checker says: {error}"
    operators = {node.name: node.op_type for node in pruned.graph.node}
    if lost := [node.name for node in full.graph.node if operators.get(node.name) != node.op_type]:
        return f"nodes are lost or are others: {lost[:4]}"
    before, after = _weights(full), _weights(pruned)
    if set(before) != set(after):
        return f"weights have other names: {sorted(set(before) ^ set(after))[:4]}"
    if sum(map(np.prod, after.values())) >= sum(map(np.prod, before.values())):
        return "no weight is smaller"
    if list(full.graph.input) != list(pruned.graph.input):
        return "the inputs are declared otherwise"
    if [value.name for value in full.graph.output] != [value.name for value in pruned.graph.output]:
        return "the outputs have other names"
    return ""


def _weights(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    return {t.name: tuple(t.dims) for t in proto.graph.initializer if t.data_type in floats}


def _run(proto: onnx.ModelProto, feeds: Feeds) -> list[Array]:
    session = ort.InferenceSession(proto.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    answers: list[Array] = session.run(None, feeds)
    return answers


@functools.cache
def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    return options
