"""Spoken digits (Free Spoken Digit Dataset, five speakers, 8 kHz): recordings, and which of them test."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from .trained import data_file

RECORDINGS = "fsdd-5-speakers.npz"
TESTED = 5
"""Recordings with a lower index test: the usual split."""


@cache
def recordings(tested: bool) -> tuple[tuple[int, NDArray[np.float32]], ...]:
    """Digit and samples, -1 to 1, of each recording."""
    what = "the Free Spoken Digit Dataset as arrays of int16 called `digit_speaker_index`"
    found = []
    with np.load(data_file(RECORDINGS, what)) as file:
        for name in sorted(file.files):
            digit, _, index = name.split("_")
            if (int(index) < TESTED) == tested:
                found.append((int(digit), file[name].astype(np.float32) / 32768))
    return tuple(found)
