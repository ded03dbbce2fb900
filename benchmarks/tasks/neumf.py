"""NeuMF (arXiv 1708.05031) on MovieLens 100k as RecBole ships it: trained here on all but each user's last film.

HR@10: how often a user's last film is among the ten best of it and 99 films that the user never saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Arrays, Floats, Run, Task, asset, share
from .trained import minimize, steps, with_weights

FACTORS, WIDTHS = 16, (64, 32, 16)
EPOCHS, BATCH, NEGATIVES, SEED = 12, 2048, 4, 0
OTHERS, BEST, CALIBRATION = 99, 10, 4096

Ids = NDArray[np.int64]


def model() -> tuple[Any, dict[str, Any]]:
    import torch

    ids = torch.zeros(2, dtype=torch.int64)
    return with_weights(network(), __file__, train), {"user": ids, "item": ids + 1}


def network() -> Any:
    """User and item, [N] each -> logits [N]."""
    import torch
    from torch import Tensor, nn

    class NeuMF(nn.Module):
        def __init__(self, users: int, items: int) -> None:
            super().__init__()
            half = WIDTHS[0] // 2
            self.user_factors, self.item_factors = nn.Embedding(users, FACTORS), nn.Embedding(items, FACTORS)
            self.user_states, self.item_states = nn.Embedding(users, half), nn.Embedding(items, half)
            pairs = pairwise(WIDTHS)
            self.mlp = nn.Sequential(*(part for a, b in pairs for part in (nn.Linear(a, b), nn.ReLU())))
            self.score = nn.Linear(FACTORS + WIDTHS[-1], 1)
            for table in (self.user_factors, self.item_factors, self.user_states, self.item_states):
                nn.init.normal_(table.weight, std=0.05)

        def forward(self, user: Tensor, item: Tensor) -> Tensor:
            product = self.user_factors(user) * self.item_factors(item)
            states = self.mlp(torch.cat([self.user_states(user), self.item_states(item)], -1))
            return self.score(torch.cat([product, states], -1)).squeeze(-1)

    users, items, _ = rated()
    torch.manual_seed(SEED)
    return NeuMF(int(users.max()) + 1, int(items.max()) + 1)


def train(module: Any) -> None:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

    users, items = (torch.from_numpy(ids) for ids in trained_on())
    highest = int(rated()[1].max())
    generator = torch.Generator().manual_seed(SEED)

    def loss(some: Any) -> Any:
        drawn = torch.randint(1, highest + 1, (len(some) * NEGATIVES,), generator=generator)
        logits = module(users[some].repeat(1 + NEGATIVES), torch.cat([items[some], drawn]))
        wanted = torch.zeros(len(logits))
        wanted[: len(some)] = 1
        return cross_entropy(logits, wanted)

    minimize(module, loss, steps(len(users), BATCH, EPOCHS), 1e-2)


def calibration(fold: int) -> Iterator[Arrays]:
    """Users with films that they saw, and with some that were drawn: as it is asked when it serves."""
    users, items = trained_on()
    rng = np.random.default_rng(1)
    places = rng.permutation(len(users))[:CALIBRATION]
    seen = items[places]
    drawn = rng.integers(1, int(rated()[1].max()) + 1, CALIBRATION)
    item = np.where(np.arange(CALIBRATION) % 2 == 0, seen, drawn)
    for start in range(0, CALIBRATION, 128):
        yield {"user": users[places][start : start + 128], "item": item[start : start + 128]}


def test(fold: int, run: Run) -> tuple[Floats, Floats]:
    """1 for each user whose last film is among the best; the film comes first, so that it loses where scores tie."""
    hits = []
    for user, films in candidates():
        scores = run({"user": np.full(len(films), user), "item": films})
        hits.append(float((scores[1:] >= scores[0]).sum() < BEST))
    return np.array(hits), np.ones(len(hits))


@cache
def candidates() -> tuple[tuple[int, Ids], ...]:
    """For each user the last film, and others that the user never saw."""
    users, items, _ = rated()
    rng, found = np.random.default_rng(2), []
    last = last_places()
    for place in last:
        unseen = np.setdiff1d(np.arange(1, items.max() + 1), items[users == users[place]])
        found.append((int(users[place]), np.concatenate([items[place : place + 1], rng.permutation(unseen)[:OTHERS]])))
    return tuple(found)


def trained_on() -> tuple[Ids, Ids]:
    users, items, _ = rated()
    rest = np.setdiff1d(np.arange(len(users)), last_places())
    return users[rest], items[rest]


@cache
def last_places() -> Ids:
    """Place of each user's last rating."""
    users, items, times = rated()
    order = np.lexsort((items, times, users))
    return order[np.flatnonzero(np.diff(users[order], append=-1))]


@cache
def rated() -> tuple[Ids, Ids, Ids]:
    """Users, items and times of the ratings."""
    path = asset("recbole", "ml-100k/ml-100k.inter")
    table = np.loadtxt(path, skiprows=1, usecols=(0, 1, 3)).astype(np.int64)
    return table[:, 0], table[:, 1], table[:, 2]


TASK = Task(
    source="tasks.neumf:model",
    axes=("user.batch=1,100,128", "item.batch=1,100,128"),
    kept=(0.7,),
    folds=1,
    metric="HR@10",
    statistic=share,
    full=(0.56, 0.7),
    calibration=calibration,
    test=test,
    module=lambda: model()[0],
    batch_norm=False,
    data=f"MovieLens 100k: {CALIBRATION} pairs of users and films calibrate, the last films of 943 users test",
)
