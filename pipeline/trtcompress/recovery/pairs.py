"""Student and teacher side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True)
class Shared:
    """An inner tensor that both models have, by its name and by what it stands for.

    Attributes:
        op: the operator that makes it in the student.
        residual: it is the sum of two computed tensors.
        student, teacher: its shape, in the first batch.
    """

    name: str
    op: str
    residual: bool
    student: tuple[int, ...]
    teacher: tuple[int, ...]

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
    names = tuple(dict.fromkeys((*outputs, *inner)))
    ours, theirs = (_run(view, outputs, names, runs[:1]) for view in (student, teacher))
    answers = tuple(name for name in outputs if ours[name].is_floating_point())
    if not answers:
        raise ModelError("no output holds floats, so that there is nothing to learn from", where=str(model.path))
    if len(runs) > 1:
        first = Seen(_run(student, outputs, answers, runs), _run(teacher, outputs, answers, runs), labels)
    else:
        first = Seen({n: ours[n] for n in answers}, {n: theirs[n] for n in answers}, labels)
    shared = tuple(_shared(model, [name for name in inner if _alike(ours[name], theirs[name])], ours, theirs))
    return Pair(student, teacher, model.inputs, outputs, answers, shared, first)


def _run(
    view: fx.GraphModule, outputs: Sequence[str], names: Sequence[str], runs: Sequence[Sequence[Tensor]]
) -> dict[str, Tensor]:
    found = answered(view, outputs, names, runs)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _same_meaning(one: fx.Node, other: fx.Node) -> bool:
    """Whether tensors of one name stand for the same: fusions keep it so, and clamps that were left out do not."""
    return (one.meta.get(MAKER) in _CLAMPS) == (other.meta.get(MAKER) in _CLAMPS)


def _alike(one: Tensor, other: Tensor) -> bool:
    """Floats of one rank whose shapes differ in one axis behind the first at the most."""
    if not (one.is_floating_point() and other.is_floating_point()) or one.dim() != other.dim() or one.dim() < 2:
        return False
    if not (_moderate(one) and _moderate(other)):
        return False
    differ = [axis for axis in range(one.dim()) if one.shape[axis] != other.shape[axis]]
    return not differ or (len(differ) == 1 and differ[0] > 0)


def _moderate(value: Tensor) -> bool:
    """Whether it has a variance: scores that were masked out by the lowest float have none."""
    return bool(torch.isfinite(value.float().square().sum()))


def _shared(
    model: Model, names: Sequence[str], ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
) -> Iterator[Shared]:
    graph = load_ir(model)
    producers = {str(value.name): node for node in graph.graph for value in node.outputs}
    for name in names:
        node = producers.get(name)
        if node is not None and name in ours and name in theirs:
            yield Shared(name, node.op_type, _is_sum(node), tuple(ours[name].shape), tuple(theirs[name].shape))


def _is_sum(node: ir.Node) -> bool:
    computed = [value for value in node.inputs if value is not None and not value.is_initializer()]
    return node.op_type == "Add" and len(computed) == 2
