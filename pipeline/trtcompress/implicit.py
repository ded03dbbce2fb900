"""INT8 that does not stand in the graph: the float model with `calibration.cache`, for a DLA and TensorRT 8 to 10."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from trtcompress_graph.axes import Axes
from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import Ranges
from trtcompress_graph.target import Target

from .builder import BuilderRef
from .stage import DataRef

if TYPE_CHECKING:
    from trtcompress_engines.backend import ImplicitScales

SAMPLES = 500
"""Samples that TensorRT calibrates on where the config does not say; what NVIDIA's guide takes for ImageNet."""


@contextmanager
def implicit_scales(
    builder: BuilderRef,
    target: Target,
    encoding: Encoding,
    axes: Axes,
    model: Model | None,
    ranges: Ranges | None,
    plan: PrecisionPlan | None,
    calibration: DataRef | None,
) -> Iterator[ImplicitScales | None]:
    """Float model and scales of an INT8 engine whose scales stand in a cache; None for any other.

    Samples for TensorRT's own calibration lie in a folder that is gone after the block.

    Args:
        builder: what is asked for the target.
        target: the device.
        encoding: of the engine.
        axes: ranges of the dynamic axes.
        model: the float model that was measured.
        ranges: of its tensors.
        plan: precision of its nodes.
        calibration: samples.

    Raises:
        DataError: no sample has the usual lengths, where TensorRT calibrates.
    """
    from trtcompress_engines.backend import ImplicitScales

    if not builder.implicit or encoding.activation != "s8" or model is None:
        yield None
    elif builder.implicit == "ranges":
        from trtcompress_calibration.trt_cache import cache_text
        from trtcompress_engines.tensorrt_release import release_of

        assert ranges is not None
        assert plan is not None
        version = release_of(target, builder.options.version, builder.features).version
        yield ImplicitScales(model, cache_text(model, ranges, plan, encoding, version))
    else:
        assert calibration is not None
        with TemporaryDirectory(prefix="trtcompress-") as folder:
            write_batches(model, calibration, builder.parts(axes)[-1], Path(folder))
            yield ImplicitScales(model, batches=Path(folder))


def write_batches(model: Model, calibration: DataRef, axes: Axes, folder: Path) -> None:
    """Whole batches of the usual shapes, an `.npz` each: TensorRT calibrates on the usual shapes of the last profile.

    Raises:
        DataError: no sample has them.
    """
    import numpy as np

    from trtcompress_calibration.data import batches

    from .datasets import open_data
    from .profiles import batch_range, named_axes, profiles

    usual = {name: shapes[1] for name, shapes in profiles(model, axes).items()}
    rng = batch_range(model.inputs, named_axes(model, axes))
    data = open_data(calibration, model, samples=calibration.samples or SAMPLES)
    written = 0
    for batch in batches(data, model.inputs, rng.opt if rng else 1):
        if batch.repeated or any(batch.inputs[name].shape != shape for name, shape in usual.items()):
            continue
        np.savez(folder / f"{written:06}.npz", allow_pickle=False, **batch.inputs)
        written += 1
    if not written:
        raise DataError(
            f"no samples make a whole batch of the usual shapes {usual}",
            where=calibration.source,
            hint="give more samples, or model.inputs usual lengths that the samples have",
        )
