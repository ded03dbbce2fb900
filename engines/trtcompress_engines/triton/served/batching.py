"""Several requests through one run of the model, and the answers back to whom they belong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # Python 3.8 cannot evaluate these
    from collections.abc import Callable

    Feed = dict[str, Any]
    Answer = dict[str, Any] | Exception
    Run = Callable[[Feed], Feed]


def run(model: Run, feeds: list[Feed | Exception], max_batch: int) -> list[Answer]:
    """Answer each feed, in order. A feed that is an error, or whose run fails, is answered by that error.

    Args:
        model: arrays by input name -> arrays by output name.
        feeds: arrays of shape `[batch, ...]` where `max_batch` is not 0.
        max_batch: samples that one run may take; 0: the model has no batch axis, every feed runs alone.
    """
    answers: list[Answer] = [feed if isinstance(feed, Exception) else {} for feed in feeds]
    for group in groups(feeds, max_batch):
        for index, answer in zip(group, _answer(model, [feeds[i] for i in group])):  # noqa: B905  (Python 3.8)
            answers[index] = answer
    return answers


def groups(feeds: list[Feed | Exception], max_batch: int) -> list[list[int]]:
    """Indices of the feeds that can share a run: same types, same shapes but for the batch, and room for all."""
    found: list[list[int]] = []
    open_group: dict[tuple[Any, ...], tuple[list[int], int]] = {}
    for index, feed in enumerate(feeds):
        if isinstance(feed, Exception):
            continue
        if max_batch == 0:
            found.append([index])
            continue
        key = tuple((name, str(value.dtype), value.shape[1:]) for name, value in sorted(feed.items()))
        size = _samples(feed)
        members, filled = open_group.get(key, ([], max_batch))
        if filled + size > max_batch:
            members, filled = [], 0
            found.append(members)
        members.append(index)
        open_group[key] = (members, filled + size)
    return found


def _answer(model: Run, feeds: list[Any]) -> list[Answer]:
    """Run the feeds together; where that fails, each alone, so that only the culprit gets the error."""
    try:
        return _together(model, feeds) if len(feeds) > 1 else [model(feeds[0])]
    except Exception as error:  # the answer to the request: the server must stay up whatever a runner raises
        if len(feeds) == 1:
            return [error]
        return [answer for feed in feeds for answer in _answer(model, [feed])]


def _together(model: Run, feeds: list[Feed]) -> list[Answer]:
    sizes = [_samples(feed) for feed in feeds]
    outputs = model({name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})
    for name, value in outputs.items():
        if value.shape[:1] != (sum(sizes),):
            raise ValueError(f"output '{name}' has shape {value.shape}: it cannot be split into {sizes} samples")
    cuts = np.cumsum(sizes)[:-1]
    pieces = {name: np.split(value, cuts) for name, value in outputs.items()}
    return [{name: pieces[name][i] for name in outputs} for i in range(len(feeds))]


def _samples(feed: Feed) -> int:
    return max(int(value.shape[0]) for value in feed.values())
