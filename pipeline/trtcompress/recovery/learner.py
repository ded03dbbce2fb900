"""Student and losses as one module, so that devices, precision and processes are matters of how it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from trtcompress_graph.torch_view import learned_scales

from .loss_names import LABELS
from .losses import LossOptions, find_loss
from .losses.registry import Seen, Term
from .pairs import Pair
from .taps import answered, tapped

FEATURES = 0.5
"""Weight of inner tensors beside the outputs, where the user gives none."""


class Learner(nn.Module):
    """The student as it is trained.

    Args:
        pair: student and teacher.
        terms: what it is trained to, with weights.
        student: gives the tensors that the terms read, as a dict; parameters are those of the pair's student.

    Attributes:
        scales: of the quantization, where they are trained too.
        graduates: labels count to the end and all else leads up to there, see `leading.py`.
    """

    def __init__(
        self, pair: Pair, terms: Mapping[str, tuple[float, Term]], student: nn.Module, *, graduates: bool = False
    ) -> None:
        super().__init__()
        self.student = student
        self.terms = nn.ModuleDict({name: term for name, (_, term) in terms.items()})
        self._weights = {name: weight for name, (weight, _) in terms.items()}
        self._judges = judging(terms, graduates=graduates).keys()
        self.graduates = graduates
        self.scales = learned_scales(pair.student)

    def forward(
        self,
        inputs: Sequence[Tensor],
        teacher: Mapping[str, Tensor],
        labels: Tensor | None,
        led: float = 1.0,
        labelled: float = 1.0,
        *,
        judged: bool = False,
    ) -> Tensor:
        """The loss of a batch: of all terms, or (`judged`) of those that say how good a student is.

        Args:
            inputs: in the order of the model.
            teacher: its answers; none are needed where it does not lead.
            labels: of the samples.
            led: weight of what the teacher says, where a student graduates.
            labelled: weight of what the labels of this pass say, beside that of its samples.
            judged: of unchanged samples that it is judged on.
        """
        answers = self.student(*inputs)
        # Of a batch that was filled up with copies the teacher's answers are those of the samples
        answers = {name: _first(a, teacher.get(name)) for name, a in answers.items()}
        with torch.autocast(inputs[0].device.type, enabled=False):
            seen = Seen(_wide(answers), _wide(teacher), labels)
            weights = self._weights if judged else self._led(led)
            taken = self._judges if judged else [name for name, weight in weights.items() if weight]
            weights = {name: labelled * weight if name == LABELS else weight for name, weight in weights.items()}
            return torch.stack([weights[name] * self.terms[name](seen) for name in taken]).sum()

    def _led(self, led: float) -> dict[str, float]:
        return {
            name: weight if name == LABELS or not self.graduates else led * weight
            for name, weight in self._weights.items()
        }


def _first(answer: Tensor, wanted: Tensor | None) -> Tensor:
    return answer[: len(wanted)] if wanted is not None and wanted.dim() else answer


def _wide(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in values.items()}


def make_terms(pair: Pair, losses: Sequence[tuple[str, float]], options: LossOptions) -> dict[str, tuple[float, Term]]:
    """The losses for a pair, each fitted to the first batch.

    Args:
        pair: student and teacher.
        losses: names and weights; empty: the outputs, and inner tensors where they share some of equal width.
        options: how they are made.
    """
    if not losses:  # projections would learn along with the student, and disturb it at first
        alike = replace(pair, shared=tuple(shared for shared in pair.shared if shared.axis is None))
        extra = {"features": (FEATURES, find_loss("features").make(alike, options))} if alike.milestones(1) else {}
        return {"logits": (1.0, find_loss("logits").make(pair, options)), **extra}
    return {name: (weight, find_loss(name).make(pair, options)) for name, weight in losses}


def judging(terms: Mapping[str, tuple[float, Term]], *, graduates: bool = False) -> dict[str, tuple[float, Term]]:
    """Those that a student is judged by: what looks at the outputs, or all where none does; labels if it graduates."""
    if graduates:
        return {LABELS: terms[LABELS]}
    final = {name: (weight, term) for name, (weight, term) in terms.items() if term.final}
    return final or dict(terms)


def tensors_of(terms: Mapping[str, tuple[float, Term]]) -> tuple[str, ...]:
    """Names of all tensors that they read."""
    return tuple(dict.fromkeys(name for _, term in terms.values() for name in term.tensors))


def teacher_view(pair: Pair, terms: Mapping[str, tuple[float, Term]]) -> fx.GraphModule:
    """The teacher, answering with what the terms read; nothing of it is trained."""
    return tapped(pair.teacher, pair.outputs, tensors_of(terms)).eval().requires_grad_(False)


def start_terms(
    pair: Pair, terms: Mapping[str, tuple[float, Term]], runs: Sequence[Sequence[Tensor]], labels: Tensor | None
) -> None:
    """Fit the terms to the first samples.

    Args:
        pair: student and teacher.
        terms: that are fitted.
        runs: inputs of each pass.
        labels: of all samples of these.
    """
    names = tensors_of(terms)
    ours, theirs = (answered(view, pair.outputs, names, runs) for view in (pair.student, pair.teacher))
    seen = Seen(_wide(ours), _wide(theirs), labels)
    for _, term in terms.values():
        term.start(seen)
