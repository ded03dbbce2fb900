"""A training loop of the user's own: a function that gets the student as a module and gives it back."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from trtcompress_graph.callables import load_callable
from trtcompress_graph.errors import RecoverError

from ..stage import FunctionRef
from .augment import Changes
from .batches import Share
from .feed import Example, Feed
from .job import Job, open_subjects
from .taps import tapped

_HINT = (
    "it is called as function(module, teacher=module, batches=iterable) with those of the names that it takes; what "
    "batches gives has inputs (a tuple), answers (by name), labels and count"
)


@dataclass(frozen=True, slots=True, eq=False)
class Epochs:
    """The samples of a training: each `iter()` is one more pass over them, shuffled anew.

    An example has `inputs`, the teacher's `answers` by the name of the output, `labels` (or None) and `count`.
    """

    feed: Feed
    _passed: list[int]

    def __iter__(self) -> Iterator[Example]:
        start = self._passed[0]
        self._passed[0] += self.feed.batches.per_epoch
        for step in range(start, self._passed[0]):
            yield from self.feed.training(step, Share())

    def __len__(self) -> int:
        return self.feed.batches.per_epoch


def run_own_loop(function: FunctionRef, job: Job) -> fx.GraphModule:
    """Call the user's function; the module that it gives back.

    Raises:
        RecoverError: it fails, gives back something else, or weights that are not finite.
        UsageError: it cannot be imported.
    """
    call = load_callable(function.source, function.base)
    subjects = open_subjects(job)
    pair = subjects.pair
    teacher = tapped(pair.teacher, pair.outputs, pair.outputs).eval()
    feed = Feed(job.batches, teacher, torch.device("cpu"), Changes(), {}, nullcontext, whole=True)
    offered = {"teacher": pair.teacher, "batches": Epochs(feed, [0])}
    taken = inspect.signature(call).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    where = f"recover: function '{function.source}'"
    wanted = {name: torch.empty_like(value, device="meta") for name, value in pair.student.state_dict().items()}
    try:
        made = call(pair.student, **{name: value for name, value in offered.items() if anything or name in taken})
    except (Exception, SystemExit) as error:  # the user's own code can raise anything
        inside = traceback.extract_tb(error.__traceback__)[1:2]  # its own frame, behind this one
        at = "".join(f" ({frame.filename}, line {frame.lineno})" for frame in inside)
        raise RecoverError(f"it failed: {type(error).__name__}: {error}{at}", where=where, hint=_HINT) from error
    return _checked(made, pair.student, wanted, where)


def _checked(made: Any, given: fx.GraphModule, wanted: Mapping[str, Tensor], where: str) -> fx.GraphModule:
    """The module with the weights of the one that came back.

    Args:
        made: that came back.
        given: that was handed out.
        wanted: tensors of its shapes and types, by name, from before.
        where: the function.
    """
    made = getattr(made, "_orig_mod", made)  # what `torch.compile` was given
    if not isinstance(made, nn.Module):
        raise RecoverError(f"it gave back {type(made).__name__}, not the module", where=where, hint=_HINT)
    got = made.state_dict()
    strange = sorted(wanted.keys() ^ got.keys())
    strange = strange or [n for n in wanted if (wanted[n].shape, wanted[n].dtype) != (got[n].shape, got[n].dtype)]
    if strange:
        hint = "give back the module that it got, with its weights changed alone (of an AveragedModel its `.module`)"
        told = [
            f"{list(held[strange[0]].shape)} {held[strange[0]].dtype}" for held in (wanted, got) if strange[0] in held
        ]
        how = " became ".join(told) if len(told) > 1 else "one of both does not have it"
        raise RecoverError(f"the module that it gave back differs in '{strange[0]}': {how}", where=where, hint=hint)
    broken = next((n for n, v in got.items() if v.is_floating_point() and not torch.isfinite(v).all()), None)
    if broken is not None:
        raise RecoverError(f"'{broken}' is not finite", where=where, hint="lower the learning rate")
    given.load_state_dict(got)
    return given
