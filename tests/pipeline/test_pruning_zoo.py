"""Every group of every graph of the zoo: cut, run, and compared with the full graph in which the same is zero.

Some graphs and some groups of each are tried in a usual run, chosen by `TRTCOMPRESS_ZOO_SEED`; all of them with
`TRTCOMPRESS_ZOO=all`.
"""

from __future__ import annotations

import functools
import os
import zlib

import numpy as np
import pytest

import zoo
from zoo.proof import Subject, prove, subject

ALL = os.environ.get("TRTCOMPRESS_ZOO") == "all"
SEED = int(os.environ.get("TRTCOMPRESS_ZOO_SEED", "0"))
GROUPS = 6
"""So many groups of a graph are tried in a usual run."""

SHARE = 3
"""Of the graphs that PyTorch has to export, one in so many is tried in a usual run."""


def chosen(name: str) -> bool:
    return ALL or not zoo.exported(name) or (zlib.crc32(name.encode()) + SEED) % SHARE == 0


NAMES = [name for name in zoo.NAMES if chosen(name)]


@functools.lru_cache(maxsize=1)
def analysed(name: str) -> Subject:
    return subject(name, zoo.model(name))


def test_the_zoo_is_large() -> None:
    assert len(zoo.NAMES) >= 45


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_of_each_group_answers_like_the_masked_graph(name: str) -> None:
    given = analysed(name)
    groups = given.coupling.groups
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    tried = groups if ALL or len(groups) <= GROUPS else [groups[i] for i in rng.permutation(len(groups))[:GROUPS]]
    wrong = {group.name: problem for group in tried if (problem := prove(given, group, SEED))}
    assert not wrong


@pytest.mark.parametrize("name", NAMES)
def test_something_can_be_cut_and_what_cannot_is_told(name: str) -> None:
    coupling = analysed(name).coupling
    assert coupling.groups or coupling.left
    assert all(left.why for left in coupling.left)
