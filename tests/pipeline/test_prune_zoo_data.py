"""Graphs of the zoo pruned with samples, by the defaults: scored, measured, cut, solved, checked.

A usual run draws some, as `TRTCOMPRESS_ZOO_SEED` says; `TRTCOMPRESS_ZOO=all` takes all that take seconds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import zoo
from trtcompress.pruning.prune import PruneOptions, prune
from trtcompress_calibration.samples import Sample
from trtcompress_graph.errors import PruneError
from trtcompress_graph.load import load_ir
from trtcompress_graph.model import Model
from zoo.entries import REGISTRY, Entry

ALL = os.environ.get("TRTCOMPRESS_ZOO") == "all"
SEED = int(os.environ.get("TRTCOMPRESS_ZOO_SEED", "0"))
ALWAYS = ("encoder_with_positions", "detector", "length_of_both")
NAMES = [name for name in zoo.NAMES if zoo.kind(name) != "shipped"]
DRAWN = NAMES if ALL else sorted({*ALWAYS, *np.random.default_rng(SEED).permutation(NAMES)[:10].tolist()})


class Drawn:
    """Seeded samples, each one another."""

    source = "seeded samples"
    notes = ()

    def __init__(self, entry: Entry, model: Model, count: int = 16) -> None:
        self.total: int | None = count
        self._samples = [Sample(dict(entry.feeds(model, entry.shapes(model)[0], seed))) for seed in range(count)]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)


@pytest.mark.parametrize("name", DRAWN)
def test_a_cut_with_samples_holds_together(name: str, tmp_path: Path) -> None:
    entry, model = REGISTRY[name], zoo.model(name)
    shapes = entry.shapes(model)[0]
    refused = ""
    for share in (0.6, 0.8, 0.9):
        try:
            options = PruneOptions("macs", share, multiple=1)
            made = prune(model, tmp_path / "out.onnx", options, shapes=shapes, data=Drawn(entry, model))  # type: ignore[arg-type]
        except PruneError as error:
            refused = str(error)
            continue
        assert share - 0.02 <= made.plan.after.macs / made.plan.before.macs <= share
        for tensor in load_ir(made.model).graph.initializers.values():
            values = tensor.const_value.numpy() if tensor.const_value is not None else np.zeros(0)
            assert values.dtype.kind not in "f" or np.isfinite(values).all() or "mask" in str(tensor.name)
        return
    assert "not within" in refused or "can be cut" in refused  # too coarse for any of these budgets
