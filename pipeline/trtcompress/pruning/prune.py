"""Pruning a model: analyse, score, allocate, cut, solve anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from trtcompress_graph.model import Model

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset

    from .plan import PrunePlan

Kind = Literal["macs", "params", "speedup"]


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How far and how to cut.

    Attributes:
        budget: what `value` counts: the share of MACs or parameters that is kept, or how many times faster.
        importance: a name of `importance.IMPORTANCES`; None: `obs` with data, `l2` without.
        allocation: a name of `allocation.ALLOCATIONS`; None: `damage` with data, `uniform` without.
        reconstruct: solve the consumers' weights anew; None: with data.
        multiple: widths fall on multiples of it.
        keep: globs of weights, tensors, nodes or groups that stay whole.
        depth: share of the residual blocks that is kept; 1 keeps all.
        seed: of what is random.
    """

    budget: Kind
    value: float
    importance: str | None = None
    allocation: str | None = None
    reconstruct: bool | None = None
    multiple: int = 8
    keep: tuple[str, ...] = ()
    depth: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pruned:
    """What came out.

    Attributes:
        notes: in plain words, what was left whole and why, and what else a user should know.
    """

    model: Model
    plan: PrunePlan
    notes: tuple[str, ...]


def prune(
    model: Model,
    out: Path,
    options: PruneOptions,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    data: Dataset | None = None,
    progress: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> Pruned:
    """Cut a simplified model and write it to `out`.

    Args:
        model: simplified (`trtcompress_graph.simplify`); float.
        out: the ONNX file to write.
        options: how far and how.
        shapes: concrete shape of each input, at which costs are counted.
        data: samples, without labels; read several times.
        progress: told what is being done and how far it is.

    Raises:
        PruneError: the budget cannot be met; says how far it gets and what holds it.
        UsageError: a `keep` that matches nothing, an unknown importance or allocation, or one that needs data.
        ModelError: the model is quantized.
        DataError: samples that do not fit the model.
    """
    raise RuntimeError("not yet")


def apply_plan(
    model: Model,
    out: Path,
    plan: PrunePlan,
    *,
    data: Dataset | None = None,
    progress: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> Pruned:
    """Cut a model as a plan says; the same bytes as when the plan was made.

    Raises:
        DataError: the plan was made for another model, or with other samples, or needs samples.
    """
    raise RuntimeError("not yet")
