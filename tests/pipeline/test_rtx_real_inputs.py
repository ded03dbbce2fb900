"""INT8 and FP16 graphs of real models: TensorRT for RTX takes each of them, and they compute what the model does.

A sample of the job: `benchmarks/campaign.py` does it for every model, `benchmarks/fleet.py` with trained weights and
real data for all cards.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from real_inputs import REAL
from rtx_builds import rtx_faults

SAMPLE = sorted(random.Random(1).sample(sorted(REAL), 2))


@pytest.mark.parametrize("name", SAMPLE)
def test_a_real_model_is_built_for_rtx_cards(name: str, tmp_path: Path) -> None:
    assert rtx_faults(name, tmp_path) == []
