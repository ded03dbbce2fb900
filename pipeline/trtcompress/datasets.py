"""Samples of a build, opened for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trtcompress_graph.model import Model

from .stage import DataRef

if TYPE_CHECKING:
    from trtcompress_calibration.data import Dataset


def open_data(data: DataRef, model: Model, samples: int | None = None) -> Dataset:
    """Open what the config names.

    Args:
        data: where the samples come from.
        model: what they are for.
        samples: how many at the most, instead of what the config says.

    Raises:
        DataError: the samples do not fit the model, or there are none.
    """
    from trtcompress_calibration.data import Preprocess, open_dataset

    return open_dataset(
        data.source,
        model.inputs,
        samples=samples or data.samples,
        preprocess=Preprocess(**data.preprocess) if data.preprocess else None,
        base=data.base,
    )
