"""One engine to one served model, for the package stage and for `trtcompress package`."""

from __future__ import annotations

from pathlib import Path

from trtcompress_graph.axes import Axes
from trtcompress_graph.target import Engine, Target

from .config import PackageFormat, TritonSettings
from .profiles import named_axes


def pack(
    engine: Engine,
    target: Target,
    repository: Path,
    *,
    name: str,
    form: PackageFormat,
    axes: Axes,
    triton: TritonSettings,
) -> str:
    """Write the model into a Triton repository.

    Returns:
        Empty, or why there is nothing to pack: the engine is not built yet.
    """
    if not engine.built:
        return f"{form}: not packed, the engine is not built yet; {engine.details.get('how_to_build', '')}".rstrip("; ")
    from trtcompress_engines.triton.options import TritonOptions
    from trtcompress_engines.triton.repository import write_repository

    options = TritonOptions(
        max_queue_delay_us=triton.max_queue_delay_us,
        instances=triton.instances,
        warmup="zero" if triton.warmup else "off",
    )
    repository.mkdir(parents=True, exist_ok=True)
    write_repository(
        engine, target, repository, name=name, format=form, axes=named_axes(engine.graph, axes), options=options
    )
    return ""
