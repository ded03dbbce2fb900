"""A model cut to a budget or by a plan, for the prune stage and for `trtcompress prune`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import ValidationError

from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import DataError, MissingPathError
from trtcompress_graph.model import Model

from .config import PruneSettings
from .files import write_text
from .profiles import usual_shapes
from .pruning.plan import VERSION, PrunePlan

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset

    from .pruning.prune import PruneOptions

PLAN = "plan.json"
_MAKE_ONE = "make it with: trtcompress prune M.onnx --macs 0.7 --plan plan.json -o OUT.onnx"
_NUMBERS = re.compile(r"\[\s+(-?\d[-+\d.eE,\s]*?)\s+\]")

Told = Callable[[str, int, int | None], None]
"""Told what is being done, and how far it is."""


@dataclass(frozen=True, slots=True)
class PrunedModel(Model):
    """A model that was cut.

    Attributes:
        plan: what was cut.
        notes: what a user should know of it.
    """

    FINGERPRINT: ClassVar = ("digest", "inputs", "outputs")
    plan: PrunePlan
    notes: tuple[str, ...]


def cut_model(
    model: Model,
    out: Path,
    settings: PruneSettings,
    plan: PrunePlan | None,
    *,
    axes: Axes,
    data: Dataset | None,
    told: Told,
) -> PrunedModel:
    """Cut a simplified model to the budget of the settings, or as a plan says.

    Costs are counted at the usual lengths of the axes, at those of the first sample where none is given.

    Raises:
        PruneError: the budget cannot be met.
        UsageError: a `keep` that matches nothing, or a way of scoring that needs data where there is none.
        ModelError: the model is quantized.
        DataError: samples that do not fit the model, or a plan of another one.
    """
    from .pruning.prune import apply_plan, prune

    if plan is not None:
        done = apply_plan(model, out, plan, data=data, progress=told)
    else:
        first = next(iter(data)).inputs if data is not None else {}
        shapes = usual_shapes(model, axes, {name: array.shape for name, array in first.items()})
        done = prune(model, out, prune_options(settings), shapes=shapes, data=data, progress=told)
    notes = (*done.notes, *(data.notes if data is not None else ()))
    made = done.model
    return PrunedModel(made.path, made.digest, made.inputs, made.outputs, done.plan, notes)


def prune_options(settings: PruneSettings) -> PruneOptions:
    """The settings as the cut takes them; they must hold a budget."""
    from .pruning.prune import Kind, PruneOptions

    budgets: dict[Kind, float | None] = {
        "macs": settings.macs,
        "params": settings.params,
        "speedup": settings.speedup,
    }
    ((budget, value),) = ((kind, value) for kind, value in budgets.items() if value is not None)
    return PruneOptions(
        budget=budget,
        value=value,
        importance=settings.importance,
        allocation=settings.allocation,
        reconstruct=settings.reconstruct,
        multiple=settings.multiple,
        keep=settings.keep,
        depth=settings.depth,
        seed=settings.seed,
    )


def write_plan(plan: PrunePlan, path: Path) -> None:
    """Write a plan; lists of numbers stand on one line each."""
    text = json.dumps(plan.model_dump(mode="json"), indent=1, allow_nan=False)
    write_text(path, _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")


def read_plan(path: Path) -> PrunePlan:
    """Read a plan.

    Raises:
        MissingPathError: no such file.
        DataError: it is not a plan, or one of another release.
    """

    def refused(why: object) -> DataError:
        return DataError(f"this is not a prune plan: {why}", where=str(path), hint=_MAKE_ONE)

    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise MissingPathError("no such plan", where=str(path), hint=_MAKE_ONE) from None
    except (OSError, ValueError) as error:
        raise refused(error) from None
    except RecursionError:
        raise refused("it is nested too deep") from None
    if isinstance(raw, dict) and raw.get("version") != VERSION:
        if type(raw.get("version")) is not int:  # a bool is an int too
            raise refused(f"version: it has to be {VERSION}")
        what = f"a plan of version {raw['version']}; this release reads version {VERSION}"
        raise DataError(what, where=str(path), hint=_MAKE_ONE)
    try:
        return PrunePlan.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise refused(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
