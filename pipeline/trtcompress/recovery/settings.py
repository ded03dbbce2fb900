"""How a student is trained: plain values, which go to other processes as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..config import RecoverSettings

USUAL_BATCH = 64

Precision = Literal["32", "bf16-mixed", "16-mixed"]
Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True, slots=True)
class Training:
    """How long and how.

    Attributes:
        losses: weight of each loss by name; empty: the outputs, and inner tensors where there are some in common.
        epochs, steps, minutes: how long, one of them at the most; none: about `USUAL_STEPS`.
        rate: learning rate; None: a probe picks it.
        batch: samples a step.
        shrinks: a step may take fewer where the minutes are short.
        blockwise: block by block first; None: see `fits_blocks`.
        decay: of the weights, of what is a matrix or more.
        clip: greatest norm of the gradient.
        average: the student that counts is a moving average of its weights (EMA) with up to this decay; 0: none.
        patience: judgements without a gain in the second half, in which rates fall, after which the training ends.
        augment: samples are changed at random where that fits their kind; None: from `LONG` epochs on.
        checkpoint_activations: less memory for more time: inner tensors are computed again on the way back.
        norms: BatchNorm is put back where batches are wide enough, and trained with; None: see `norms.takes_norms`.
        learn_scales: under quantization, scales are trained too.
        graduates: the teacher leads only at first, where labels can stand alone; see `leading.py`.
        devices: processes, one a device; 0: all devices of an accelerator, one CPU process.
    """

    losses: tuple[tuple[str, float], ...] = ()
    temperature: float | None = None
    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    optimizer: Optimizer = "adamw"
    rate: float | None = None
    batch: int = USUAL_BATCH
    shrinks: bool = False
    blockwise: bool | None = None
    decay: float = 1e-4
    clip: float = 1.0
    average: float = 0.999
    patience: int = 10
    augment: bool | None = None
    precision: Precision = "32"
    devices: int = 1
    checkpoint_activations: bool = False
    norms: bool | None = None
    learn_scales: bool = True
    graduates: bool = False
    seed: int = 0


def training_of(settings: RecoverSettings) -> Training:
    """The section of a config, or the options of the command, as a training takes them."""
    from .loss_names import LABELS, weighted

    losses = tuple(weighted(settings.loss).items())
    graduates = settings.labels and LABELS not in dict(losses)  # who names them among the losses has weighed them
    if graduates:
        losses = (*(losses or (("logits", 1.0),)), (LABELS, 1.0))
    return Training(
        losses=losses,
        temperature=settings.temperature,
        epochs=settings.epochs,
        steps=settings.steps,
        minutes=settings.minutes,
        optimizer=settings.optimizer,
        rate=settings.lr,
        batch=settings.batch or USUAL_BATCH,
        shrinks=settings.batch is None,
        blockwise=settings.blockwise,
        decay=settings.weight_decay,
        clip=settings.clip,
        average=settings.ema,
        patience=settings.patience,
        augment=settings.augment,
        precision=settings.precision,
        devices=settings.devices,
        checkpoint_activations=settings.checkpoint_activations,
        norms=settings.batchnorm,
        learn_scales=settings.learn_scales and settings.function is None,
        graduates=graduates,
        seed=settings.seed,
    )


LONG = 10
"""Epochs from which samples are changed at random."""

PLENTY = 4096
"""Samples from which minutes bring more to the whole student than to its blocks, which are fitted to few of them."""


def fits_blocks(training: Training, samples: int) -> bool:
    """Whether blocks are fitted before the whole student is trained on so many samples."""
    if training.blockwise is not None:
        return training.blockwise
    return training.minutes is None or samples < PLENTY


USUAL_EPOCHS = 20
USUAL_STEPS = (200, 3000)
"""Without a length: so many epochs, but no fewer and no more steps than these."""


def planned_steps(training: Training, per_epoch: int) -> int | None:
    """Steps in all; None where minutes say how long.

    Args:
        training: how long.
        per_epoch: steps of an epoch.
    """
    if training.steps is not None:
        return training.steps
    if training.epochs is not None:
        return max(1, round(training.epochs * per_epoch))
    if training.minutes is not None:
        return None
    return max(USUAL_STEPS[0], min(USUAL_STEPS[1], USUAL_EPOCHS * per_epoch))
