"""What a student is trained to: a registry, one entry a loss. Importing it imports PyTorch."""

from __future__ import annotations

from . import affinity, attention, features, labels, logits, relations
from .registry import LOSSES, Loss, LossOptions, Seen, Term, find_loss, loss

__all__ = [
    "LOSSES",
    "Loss",
    "LossOptions",
    "Seen",
    "Term",
    "affinity",
    "attention",
    "features",
    "find_loss",
    "labels",
    "logits",
    "loss",
    "relations",
]
