"""Groups of the graphs of the zoo: cut, run, and compared with the full graph in which the same is zero.

A usual run tries all graphs that are written by hand and a few others, with some groups of each, as
`TRTCOMPRESS_ZOO_SEED` draws them; `TRTCOMPRESS_ZOO=all` tries every group of every graph.
"""

from __future__ import annotations

import os
import zlib

import numpy as np
import pytest

import zoo
from zoo.proof import prove, subject

ALL = os.environ.get("TRTCOMPRESS_ZOO") == "all"
SEED = int(os.environ.get("TRTCOMPRESS_ZOO_SEED", "0"))

GRAPHS = {"exported": 8, "shipped": 2}
"""How many of those that take seconds to make are drawn for a usual run."""

GROUPS = {"written": 8, "exported": 6, "shipped": 2}
"""So many groups of a graph are drawn for a usual run."""


def drawn(names: tuple[str, ...]) -> list[str]:
    """All that are written, and a few of the others."""
    rng = np.random.default_rng(SEED)
    few = [
        name for kind in GRAPHS for name in rng.permutation([n for n in names if zoo.kind(n) == kind])[: GRAPHS[kind]]
    ]
    return [name for name in names if zoo.kind(name) == "written" or name in few]


NAMES = list(zoo.NAMES) if ALL else drawn(zoo.NAMES)


def test_the_zoo_is_large(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(zoo.NAMES) >= 80
    with capsys.disabled():
        print(f"\nof {len(zoo.NAMES)} graphs {len(NAMES)}, seed {SEED}: {', '.join(NAMES)}")


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_of_each_group_answers_like_the_masked_graph(name: str) -> None:
    given = subject(name, zoo.model(name))
    groups = given.coupling.groups
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    few = groups if ALL else [groups[i] for i in sorted(rng.permutation(len(groups))[: GROUPS[zoo.kind(name)]])]
    wrong = {group.name: problem for group in few if (problem := prove(given, group, SEED))}
    assert not wrong
    assert few or given.coupling.left
    assert all(left.why for left in given.coupling.left)
