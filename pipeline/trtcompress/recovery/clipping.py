"""Where activations are clipped, before any weight moves: each range as the outputs like it.

A range that holds every outlier has steps too coarse for all other values; one that was calibrated on too little cuts
off what matters. Which is better shows at the outputs. By Taylor's first term the error of one quantizer moves an
output y by J e, where e is what rounding and clipping do to its tensor. For random v the mean of (v J e)^2 is the
square of that, and v J is what one backward pass gives for all quantizers at once (Hutchinson's estimate; curvature as
the measure of what rounding costs: arXiv 2102.05426). What is clipped leans one way, so that its errors add up within a
sample; for that they are summed before they are squared.

No range shrinks so far that a bias, which counts in its steps, leaves int32 no room for the sum that it joins.

A pass costs about five of the training's, for 256 samples at the most; of minutes they take a tenth at the most, and
where it would take longer to see what came of it nothing is fitted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from trtcompress_graph.torch_view import activation_quantizers, least_ratios
from trtcompress_graph.torch_view.quantized import fake_quantize

from .checkpoint import cloned, load, save
from .devices import first_device, given_back, repeatable
from .job import CLIPPED, Job, Subjects, open_subjects, placed, weights_of
from .loop import Told
from .losses.answers import spread
from .pairs import Pair
from .settings import planned_steps
from .standing import Examiner, Fitted

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
    if not (job.training.learn_scales and activation_quantizers(job.view())):
        return Fitted(0.0, None)
    found = load(job.folder / CLIPPED)
    if found is not None:
        return Fitted.of(found)
    for behind in job.folder.glob("*.pt"):  # what was trained behind a fit that can no longer be read
        behind.unlink()
    with given_back(), repeatable(job.training.seed):
        started = time.monotonic()
        subjects = open_subjects(job)
        view = placed(subjects.pair, first_device()).student
        told("fitting the ranges of activations", 0, None)
        examined = Examiner(job, subjects, first_device(), autocast)
        looked = time.monotonic()
        came, weights = examined(), cloned(weights_of(view))
        looked = time.monotonic() - looked
        if looked > _limit(job):
            told("no time to fit ranges: they stay as they were calibrated", 0, None)
        elif _too_wide(job):
            told("ranges stay as they were calibrated: fitting them keeps all activations of a batch", 0, None)
        else:
            ratios = _ratios(view, costs_of(job, subjects))
            with torch.no_grad():
                for name, ratio in ratios.items():
                    view.get_parameter(name).mul_(ratio)
            loss = examined.loss() if ratios else math.inf
            if loss < came.loss:
                weights = weights_of(view)
                told(f"ranges of {len(ratios)} activations fitted: held out {came.loss:.4g} to {loss:.4g}", 0, None)
            else:
                told("ranges stay as they were calibrated: others bring the outputs no nearer", 0, None)
        made = {"weights": weights, "came": asdict(came), "seconds": time.monotonic() - started}
        save(made, job.folder / CLIPPED)
    return Fitted.of(made)


def _limit(job: Job) -> float:
    """Seconds that passes may take."""
    return math.inf if job.training.minutes is None else 60 * SHARE * job.training.minutes


def _too_wide(job: Job) -> bool:
    """Whether a pass would need the memory that a training was told to save: of a fixed batch it cannot take fewer."""
    return job.training.checkpoint_activations and (job.pool.fixed or 0) > PASS


def _ratios(view: fx.GraphModule, costs: Costs) -> dict[str, float]:
    """The ratio for each range that is to change."""
    least = least_ratios(view)
    found = {name: chosen(cost, least.get(name, 0.0)) for name, cost in costs.items()}
    return {name: ratio for name, ratio in found.items() if ratio != 1}


def chosen(costs: NDArray[np.float64], least: float = 0.0) -> float:
    """The ratio for a range by the cost of each; 1 where they tell nothing.

    Args:
        costs: of each of `RATIOS`.
        least: no range becomes smaller than this; one that is smaller already stays.
    """
    allowed = [ratio >= min(least, 1.0) for ratio in RATIOS]
    if not np.isfinite(costs).all() or not costs.any():
        return 1.0
    costs = np.where(allowed, costs, np.inf)
    widest = int(np.flatnonzero(costs <= LEVEL * costs.min())[0])
    return RATIOS[widest]


def costs_of(job: Job, subjects: Subjects) -> Costs:
    """What each ratio of each range costs at the outputs, up to a factor.

    Args:
        job: the training.
        subjects: student and teacher, on the device.
    """
    view, device, started = subjects.pair.student, first_device(), time.monotonic()
    listener, chance = Listener(view), torch.Generator(device).manual_seed(job.training.seed)
    with activations_alone(view):
        for place, (inputs, count) in enumerate(_runs(job)):
            if place and time.monotonic() - started > _limit(job):
                break
            listener.count = count
            answers = _answers(subjects.pair, listener.run(*(value.to(device) for value in inputs)))
            pulls = [torch.randn(a.shape, generator=chance, device=device, dtype=a.dtype) for a, _ in answers]
            held = [pull / scale for (_, scale), pull in zip(answers, pulls, strict=True)]
            torch.autograd.backward([answer for answer, _ in answers], held)
    return listener.costs


def _runs(job: Job) -> Iterator[tuple[tuple[Tensor, ...], int]]:
    """Inputs of some passes of samples that the training learns from, with how many share each pass.

    Few for a training that was to be short.
    """
    batches = replace(job.batches, size=min(PASS, job.batches.size))
    steps = planned_steps(job.training, job.batches.per_epoch)
    left = SAMPLES if steps is None else min(SAMPLES, max(PASS, round(SHARE * steps * job.training.batch)))
    for step in range(batches.per_epoch):
        for group, rows in batches.at(step):
            if left <= 0:
                return
            arrays = job.pool.read(group, rows)
            inputs = tuple(torch.from_numpy(arrays[spec.name]) for spec in job.pool.inputs)
            yield inputs, len(inputs[0]) if job.pool.groups[group].stacks else 1
            left -= len(rows)


def _answers(pair: Pair, made: Any) -> list[tuple[Tensor, Tensor]]:
    """The outputs that a gradient reaches, each with how widely the teacher's lies."""
    outputs = made if isinstance(made, (tuple, list)) else (made,)
    named = dict(zip(pair.outputs, outputs, strict=True))
    answers = [(named[name], spread(pair.first.teacher[name]).sqrt().to(named[name])) for name in pair.answers]
    return [(answer, scale) for answer, scale in answers if answer.requires_grad]


@contextmanager
def activations_alone(view: fx.GraphModule) -> Iterator[None]:
    """Gradients reach activations and their scales, and nothing else; none are left behind."""
    scales = {id(view.get_parameter(name)) for name in activation_quantizers(view).values()}
    others = [p for p in view.parameters() if p.requires_grad and id(p) not in scales]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)
        view.zero_grad(set_to_none=True)


class Listener(fx.Interpreter):
    """Runs a view; on the way back each quantizer tells what other ranges would have cost.

    Attributes:
        count: samples that share the pass.
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
            x, *grid = [arg.detach() if isinstance(arg, Tensor) else arg for arg in args]
            if not torch.equal(made, x):  # what lies on the grid already was rounded by one before, which tells
                self._listen(made, n, x, *grid)
        return made

    def _listen(self, made: Tensor, node: fx.Node, x: Tensor, scale: Tensor, *grid: Any) -> None:
        name, count = self._quantizers[node], self.count

        @torch.no_grad()
        def heard(pull: Tensor) -> None:
            found = [self._cost((fake_quantize(x, scale * ratio, *grid) - x) * pull, count) for ratio in RATIOS]
            self.costs[name] = self.costs.get(name, np.zeros(len(RATIOS))) + torch.stack(found).double().cpu().numpy()

        made.register_hook(heard)  # type: ignore[no-untyped-call]

    @staticmethod
    def _cost(errors: Tensor, count: int) -> Tensor:
        """The squares of what the samples of a pass come to; where they are not told apart, that of all of them."""
        apart = errors.dim() and errors.shape[0] % count == 0
        return errors.reshape(count if apart else 1, -1).sum(1).square().sum()
