"""Where activations are clipped, before any weight moves: each range as the outputs like it.

A range that holds every outlier has steps too coarse for all other values; one that was calibrated on too little cuts
off what matters. Which is better shows at the outputs. By Taylor's first term the error of one quantizer moves an
output y by J e, where e is what rounding and clipping do to its tensor. For random v the mean of (v J e)^2 is the
square of that, and v J is what one backward pass gives for all quantizers at once (Hutchinson's estimate; curvature as
the measure of what rounding costs: arXiv 2102.05426). What is clipped leans one way, so that its errors add up within a
sample; for that they are summed before they are squared.

A pass costs about five of the training's, 256 samples at the most; of minutes it takes a tenth at the most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from trtcompress_graph.torch_view import activation_quantizers, learned_scales

from .checkpoint import cloned, load, save
from .devices import first_device, given_back, repeatable
from .job import CLIPPED, Job, Subjects, open_subjects, placed, weights_of
from .loop import Told
from .losses.answers import spread
from .pairs import Pair
from .settings import planned_steps
from .standing import Examiner, Fitted
from .taps import output_nodes

RATIOS: tuple[float, ...] = tuple(2.0 ** (-step / 3) for step in range(-3, 7))
"""Of the range as it was calibrated: from twice as wide to a fourth, from wide to narrow."""

LEVEL = 1.1
"""The widest range is taken whose cost is up to so many times the least: an estimate tells no more."""

SAMPLES, PASS = 256, 16
"""Samples that it is told by at the most, and in one pass."""

SHARE = 0.1
"""Of the minutes, or of the steps, of a training."""

Costs = dict[str, NDArray[np.float64]]
"""Of each ratio, by the name of the scale."""


def fit_clipping(job: Job, told: Told, autocast: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Fitted:
    """Fit the ranges of all activations whose scales are learned, and leave the weights in `CLIPPED`.

    They stay as they came where that does not bring the outputs nearer to the teacher's on what is held out.

    Args:
        job: the training.
        told: of the progress.
        autocast: the context in which a student is judged.

    Raises:
        ModelError, OperatorError: see `open_subjects`.
    """
    found = load(job.folder / CLIPPED)
    if found is not None:
        return Fitted.of(found)
    if not (job.training.learn_scales and learned_scales(job.view())):
        return Fitted(0.0, None)
    with given_back(), repeatable(job.training.seed):
        started = time.monotonic()
        subjects = open_subjects(job)
        view = placed(subjects.pair, first_device()).student
        if not activation_quantizers(view):
            return Fitted(0.0, None)
        told("fitting the ranges of activations", 0, None)
        examined = Examiner(job, subjects, first_device(), autocast)
        came, weights = examined(), cloned(weights_of(view))
        ratios = {name: chosen(costs) for name, costs in costs_of(job, subjects, started).items()}
        with torch.no_grad():
            for name, ratio in ratios.items():
                view.get_parameter(name).mul_(ratio)
        fitted = examined()
        if fitted.loss < came.loss:
            weights, moved = weights_of(view), sum(ratio != 1 for ratio in ratios.values())
            told(
                f"ranges of {moved} of {len(ratios)} activations fitted: held out {came.loss:.4g} to {fitted.loss:.4g}",
                0,
                None,
            )
        else:
            told("ranges stay as they were calibrated: others bring the outputs no nearer", 0, None)
        made = {"weights": weights, "came": asdict(came), "seconds": time.monotonic() - started}
        save(made, job.folder / CLIPPED)
    return Fitted.of(made)


def chosen(costs: NDArray[np.float64]) -> float:
    """The ratio for a range by the cost of each; 1 where they are not finite."""
    if not np.isfinite(costs).all():
        return 1.0
    widest = int(np.flatnonzero(costs <= LEVEL * costs.min())[0])
    return RATIOS[widest]


def costs_of(job: Job, subjects: Subjects, started: float) -> Costs:
    """What each ratio of each range costs at the outputs, up to a factor.

    Args:
        job: the training.
        subjects: student and teacher, on the device.
        started: when the seconds began that count against the minutes.
    """
    minutes = job.training.minutes
    limit = math.inf if minutes is None else 60 * SHARE * minutes
    view, device = subjects.pair.student, first_device()
    listener, chance = Listener(view), torch.Generator(device).manual_seed(job.training.seed)
    with scales_alone(view):
        for place, inputs in enumerate(_runs(job)):
            if place and time.monotonic() - started > limit:
                break
            listener.count = len(inputs[0]) if inputs[0].dim() else 1
            answers = _answers(subjects.pair, listener.run(*(value.to(device) for value in inputs)))
            pulls = [torch.randn(a.shape, generator=chance, device=device, dtype=a.dtype) for a, _ in answers]
            held = [(answer, pull / scale) for (answer, scale), pull in zip(answers, pulls, strict=True)]
            torch.autograd.backward([answer for answer, _ in held], [pull for _, pull in held])
    return listener.costs


def _runs(job: Job) -> Iterator[tuple[Tensor, ...]]:
    """Inputs of some passes of samples that the training learns from; few for a training that was to be short."""
    steps = planned_steps(job.training, job.batches.per_epoch)
    most = SAMPLES if steps is None else min(SAMPLES, max(PASS, round(SHARE * steps * job.training.batch)))
    for group, rows in replace(job.batches, size=min(PASS, job.batches.size)).first(most):
        arrays = job.pool.read(group, rows)
        yield tuple(torch.from_numpy(arrays[spec.name]) for spec in job.pool.inputs)


def _answers(pair: Pair, made: Any) -> list[tuple[Tensor, Tensor]]:
    """The outputs that a gradient reaches, each with how widely the teacher's lies."""
    outputs = made if isinstance(made, (tuple, list)) else (made,)
    assert len(outputs) == len(output_nodes(pair.student))
    named = dict(zip(pair.outputs, outputs, strict=True))
    answers = [(named[name], spread(pair.first.teacher[name]).sqrt().to(named[name])) for name in pair.answers]
    return [(answer, scale) for answer, scale in answers if answer.requires_grad]


@contextmanager
def scales_alone(view: fx.GraphModule) -> Iterator[None]:
    """Gradients of the weights are not computed; none are left behind."""
    scales = {id(scale) for scale in learned_scales(view)}
    weights = [p for p in view.parameters() if p.requires_grad and id(p) not in scales]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
        view.zero_grad(set_to_none=True)


class Listener(fx.Interpreter):
    """Runs a view; on the way back each quantizer tells what other ranges would have cost.

    Attributes:
        count: samples of the pass.
        costs: summed over all passes.
    """

    def __init__(self, view: fx.GraphModule) -> None:
        super().__init__(view)
        self.count = 1
        self.costs: Costs = {}
        self._quantizers: Mapping[fx.Node, str] = activation_quantizers(view)

    def run_node(self, n: fx.Node) -> Any:
        """What a node makes."""
        made = super().run_node(n)
        if n in self._quantizers and made.requires_grad:
            args, _ = self.fetch_args_kwargs_from_env(n)
            self._listen(made, n, [arg.detach() if isinstance(arg, Tensor) else arg for arg in args])
        return made

    def _listen(self, made: Tensor, node: fx.Node, args: Sequence[Any]) -> None:
        x, scale, *grid = args
        name, count = self._quantizers[node], self.count
        quantize: Callable[..., Tensor] = node.target  # type: ignore[assignment]

        @torch.no_grad()
        def heard(pull: Tensor) -> None:
            found = [self._cost((quantize(x, scale * ratio, *grid) - x) * pull, count) for ratio in RATIOS]
            self.costs[name] = self.costs.get(name, np.zeros(len(RATIOS))) + torch.stack(found).double().cpu().numpy()

        made.register_hook(heard)  # type: ignore[no-untyped-call]

    @staticmethod
    def _cost(errors: Tensor, count: int) -> Tensor:
        """The squares of what the samples of a pass come to; where they are not told apart, that of all of them."""
        apart = errors.dim() and errors.shape[0] % count == 0
        return errors.reshape(count if apart else 1, -1).sum(1).square().sum()
