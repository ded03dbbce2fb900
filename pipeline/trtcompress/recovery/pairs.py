"""Student and teacher side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from trtcompress_graph.errors import ModelError
from trtcompress_graph.load import load_ir
from trtcompress_graph.model import Model, TensorSpec

from .losses.registry import Seen
from .taps import MAKER, answered, learned_nodes, named_nodes

if TYPE_CHECKING:
    import onnx_ir as ir

_ACTIVATIONS = ("Clip", "Elu", "Gelu", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Tanh")
_MAKES = frozenset(["Add", "Conv", "ConvTranspose", "Gemm", "LayerNormalization", "MatMul", *_ACTIVATIONS])
"""Operators whose results are worth comparing; the others move data, or lie between these."""

_CLAMPS = frozenset(["Clip", "Relu"])
"""What a range that is quantized to does by itself: ONNX Runtime's quantizer leaves them out, and gives their names to
what they read."""


_Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shared:
    """An inner tensor that both models have, by its name and by what it stands for.

    Attributes:
        op: the operator that makes it in the student.
        residual: it is the sum of two computed tensors.
        student, teacher: its shape, in the first run.
    """

    name: str
    op: str
    residual: bool
    student: _Shape
    teacher: _Shape

    @property
    def axis(self) -> int | None:
        """The one axis of which the widths differ; None where the shapes are equal."""
        return next((i for i, (a, b) in enumerate(zip(self.student, self.teacher, strict=True)) if a != b), None)


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two torch views that were checked against each other.

    Attributes:
        outputs: names of the outputs, in order.
        answers: those that hold floats.
        shared: inner float tensors of both, in the order of the student.
        first: what both made of the first batch (inner tensors are not kept).
    """

    student: fx.GraphModule
    teacher: fx.GraphModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    answers: tuple[str, ...]
    shared: tuple[Shared, ...]
    first: Seen

    def milestones(self, most: int) -> tuple[Shared, ...]:
        """The shared tensors that tell most, spread over the depth: sums of residual blocks where there are some."""
        sums = [shared for shared in self.shared if shared.residual]
        useful = sums if len(sums) > 1 else [shared for shared in self.shared if shared.op in _MAKES]
        if len(useful) <= most:
            return tuple(useful)
        places = torch.linspace(0, len(useful) - 1, most).round().long().tolist()
        return tuple(useful[place] for place in dict.fromkeys(places))


def check_alike(student: Model, teacher: Model) -> None:
    """Refuse models that cannot be taught one from the other.

    Raises:
        ModelError: their inputs or outputs differ; the first that does is named.
    """
    for kind, ours, theirs in (
        ("input", student.inputs, teacher.inputs),
        ("output", student.outputs, teacher.outputs),
    ):
        for one, other in _differing(ours, theirs):
            raise ModelError(
                f"student and teacher differ in their {kind}s: {_told(one)} and {_told(other)}",
                where=f"{student.path} and {teacher.path}",
                hint="the teacher is the model that the student was made of; see `trtcompress inspect` of both",
            )
    for one, other in zip(student.inputs, teacher.inputs, strict=True):
        if one.shape and isinstance(one.shape[0], str) and isinstance(other.shape[0], int):
            raise ModelError(
                f"the teacher takes '{other.name}' in batches of {other.shape[0]} alone, the student in any",
                where=f"{student.path} and {teacher.path}",
                hint="export the teacher again with a dynamic batch, as the student has it: trtcompress export --axis",
            )


def _differing(
    ours: Sequence[TensorSpec], theirs: Sequence[TensorSpec]
) -> Iterator[tuple[TensorSpec | None, TensorSpec | None]]:
    for place in range(max(len(ours), len(theirs))):
        one = ours[place] if place < len(ours) else None
        other = theirs[place] if place < len(theirs) else None
        if one is None or other is None or not _fit(one, other):
            yield one, other


def _fit(one: TensorSpec, other: TensorSpec) -> bool:
    dims = list(zip(one.shape, other.shape, strict=False))
    known = all(a == b for a, b in dims if isinstance(a, int) and isinstance(b, int))
    return (one.name, one.dtype, len(one.shape)) == (other.name, other.dtype, len(other.shape)) and known


def _told(spec: TensorSpec | None) -> str:
    return "none" if spec is None else f"'{spec.name}' ({spec.dtype} {list(spec.shape)})"


def make_pair(
    student: fx.GraphModule,
    teacher: fx.GraphModule,
    model: Model,
    runs: Sequence[Sequence[Tensor]],
    labels: Tensor | None = None,
) -> Pair:
    """Run the first samples through both, and see what they share.

    Args:
        student: torch view of `model`.
        teacher: torch view of its teacher.
        model: the student.
        runs: inputs of each pass, in the order of the model; several where the batch is fixed.
        labels: of all of them.

    Raises:
        ModelError: no output holds floats.
    """
    outputs = tuple(spec.name for spec in model.outputs)
    taught = named_nodes(teacher)
    learned = learned_nodes(student)  # what is not, such as a mask, is as it is in both, and of any size
    inner = [
        name
        for name, node in named_nodes(student).items()
        if name not in outputs and node in learned and name in taught and _same_meaning(node, taught[name])
    ]
    ours, theirs = (_run(view, outputs, runs) for view in (student, teacher))
    answers = tuple(name for name in outputs if ours[name].is_floating_point())
    if not answers:
        raise ModelError("no output holds floats, so that there is nothing to learn from", where=str(model.path))
    first = Seen({n: ours[n] for n in answers}, {n: theirs[n] for n in answers}, labels)
    shared = tuple(_shared(model, inner, _shapes(student, inner, runs[0]), _shapes(teacher, inner, runs[0])))
    return Pair(student, teacher, model.inputs, outputs, answers, shared, first)


def _run(view: fx.GraphModule, outputs: Sequence[str], runs: Sequence[Sequence[Tensor]]) -> dict[str, Tensor]:
    found = answered(view, outputs, outputs, runs)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


@torch.no_grad()
def _shapes(view: fx.GraphModule, names: Sequence[str], inputs: Sequence[Tensor]) -> dict[str, _Shape]:
    """The shapes of inner tensors that can be compared, by name."""
    looked = _Looked(view, names)
    looked.run(*inputs)
    return looked.shapes


class _Looked(fx.Interpreter):
    """Runs a view and looks at inner tensors one by one: each is given back behind its last reader."""

    def __init__(self, view: fx.GraphModule, names: Sequence[str]) -> None:
        super().__init__(view)
        self.shapes: dict[str, _Shape] = {}
        named = named_nodes(view)
        self._names = {named[name]: name for name in names}

    def run_node(self, n: fx.Node) -> Any:
        """What a node makes."""
        made = super().run_node(n)
        if n in self._names and isinstance(made, Tensor) and made.is_floating_point() and _moderate(made):
            self.shapes[self._names[n]] = tuple(made.shape)
        return made


def _same_meaning(one: fx.Node, other: fx.Node) -> bool:
    """Whether tensors of one name stand for the same: fusions keep it so, and clamps that were left out do not."""
    return (one.meta.get(MAKER) in _CLAMPS) == (other.meta.get(MAKER) in _CLAMPS)


def _alike(one: _Shape, other: _Shape) -> bool:
    """Whether they are of one rank, and differ in one axis behind the first at the most."""
    if len(one) != len(other) or len(one) < 2:
        return False
    differ = [axis for axis in range(len(one)) if one[axis] != other[axis]]
    return not differ or (len(differ) == 1 and differ[0] > 0)


def _moderate(value: Tensor) -> bool:
    """Whether it has a variance: scores that were masked out by the lowest float have none."""
    return bool(torch.isfinite(value.float().square().sum()))


def _shared(
    model: Model, names: Sequence[str], ours: Mapping[str, _Shape], theirs: Mapping[str, _Shape]
) -> Iterator[Shared]:
    graph = load_ir(model)
    producers = {str(value.name): node for node in graph.graph for value in node.outputs}
    for name in names:
        node = producers.get(name)
        if node is not None and name in ours and name in theirs and _alike(ours[name], theirs[name]):
            yield Shared(name, node.op_type, _is_sum(node), ours[name], theirs[name])


def _is_sum(node: ir.Node) -> bool:
    computed = [value for value in node.inputs if value is not None and not value.is_initializer()]
    return node.op_type == "Add" and len(computed) == 2
