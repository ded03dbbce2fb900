"""How the loss of a model changes with each of its weights, label-free, from the torch view."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.model import Model

from ..coupling import Coupling

if TYPE_CHECKING:
    from torch import Generator, Tensor, fx

    from trtcompress_calibration.samples import Sample

Target = Literal["answer", "drawn"]
"""What stands in for labels: the model's own answer, or one that is drawn from its distribution."""

SAMPLES = 128
"""That gradients are taken on, at the most."""

BATCH = 8


@dataclass(slots=True, eq=False)
class Slopes:
    """Gradient times weight, summed over what each label stands for; computed when it is first asked for.

    Attributes:
        samples: of the model, read anew for each kind of target.
        seed: of what is drawn.
    """

    model: Model
    coupling: Coupling
    samples: Iterable[Sample]
    seed: int = 0
    _found: dict[Target, NDArray[np.float64]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def by_label(self, target: Target) -> NDArray[np.float64]:
        """(batches, labels)."""
        with self._lock:
            if target not in self._found:
                self._found[target] = np.stack(list(self._batches(target)))
            return self._found[target]

    def _batches(self, target: Target) -> Iterator[NDArray[np.float64]]:
        from itertools import islice

        import torch

        from trtcompress_calibration.batching import batches
        from trtcompress_graph.torch_view import to_torch
        from trtcompress_graph.torch_view.names import initializer_name

        view = to_torch(self.model)
        weights = {initializer_name(name): parameter for name, parameter in view.named_parameters()}
        chance = torch.Generator().manual_seed(self.seed)
        for batch in batches(islice(self.samples, SAMPLES), self.model.inputs, BATCH):
            view.zero_grad()
            inputs = [torch.from_numpy(np.ascontiguousarray(batch.inputs[spec.name])) for spec in self.model.inputs]
            _loss(view, inputs, target, chance).backward()  # type: ignore[no-untyped-call]
            yield self._summed(weights)

    def _summed(self, weights: Mapping[str, Tensor]) -> NDArray[np.float64]:
        found = np.zeros(self.coupling.relations.count)
        for name, weight in weights.items():
            factors = self.coupling.factors.get(name, ())
            if weight.grad is None or not factors:
                continue
            array = (weight.grad * weight).detach().double().numpy()
            for factor in factors:
                others = tuple(axis for axis in range(array.ndim) if axis not in factor.axes)
                np.add.at(found, factor.labels, array.sum(axis=others).reshape(factor.labels.shape))
        return found


def _loss(view: fx.GraphModule, inputs: list[Tensor], target: Target, chance: Generator) -> Tensor:
    """The loss of all outputs that hold floats."""
    import torch

    answers = view(*inputs)
    held = answers if isinstance(answers, tuple) else (answers,)
    parts = [_part(answer, target, chance) for answer in held if answer.is_floating_point() and answer.requires_grad]
    return torch.stack(parts).sum()


def _part(answer: Tensor, target: Target, chance: Generator) -> Tensor:
    """Cross-entropy against a class, or what a change of plain numbers costs."""
    import torch
    from torch.nn import functional

    from ...recovery.losses.answers import Kind, kind_of, spread

    kind = kind_of("", answer, (), True)
    if kind is Kind.NUMBERS:
        aim = answer.detach()
        if target == "drawn":
            aim = torch.randn(answer.shape, generator=chance, dtype=answer.dtype) * spread(answer).sqrt()
        return (aim * answer).sum() / spread(answer) / answer[0].numel()
    scores = (answer if kind is Kind.SCORES else answer.clamp_min(1e-8).log()).flatten(0, -2)
    if target == "drawn":
        chances = torch.softmax(scores.detach(), -1)
        classes = torch.multinomial(chances, 1, generator=chance)[:, 0]
    else:
        classes = scores.detach().argmax(-1)
    return functional.cross_entropy(scores, classes, reduction="sum") * len(answer) / len(scores)
