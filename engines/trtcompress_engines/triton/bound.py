"""The tensors of an engine as its plan has them: TensorRT before 10 has no INT64, and has INT32 in its place.

The header of a plan is read as trtexec reads it (`--getPlanVersionOnly`); older plans do not have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from trtcompress_graph.model import Model, TensorSpec
from trtcompress_graph.target import Engine

from ..tensorrt_options import BUILT_BY, LAID_OUT_FOR
from ..tensorrt_release import Number, Release

_INT64 = (10, 0)
_HEADER, _TAG, _VERSION = 28, b"ftrt\0\0\0\0", 24
"""Bytes; tag and form of the header; where the version begins."""


def as_bound(engine: Engine) -> Model:
    """The engine's graph with the types of inputs and outputs that whoever runs the engine has to do with."""
    if engine.backend != "tensorrt":
        return engine.graph
    number = _plan_version(engine.path) or _told(engine)
    if number is None or number >= _INT64:
        return engine.graph
    return replace(engine.graph, inputs=_narrow(engine.graph.inputs), outputs=_narrow(engine.graph.outputs))


def _plan_version(plan: Path) -> Number | None:
    """TensorRT's major and minor that a plan tells; None where it does not."""
    if not plan.is_file():
        return None
    with plan.open("rb") as stream:
        header = stream.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(_TAG):
        return None
    return header[_VERSION], header[_VERSION + 1]


def _told(engine: Engine) -> Number | None:
    """The release that built it, or that it was laid out for."""
    version = engine.details.get(BUILT_BY) or engine.details.get(LAID_OUT_FOR)
    return Release("classic", version).number if version else None


def _narrow(tensors: Iterable[TensorSpec]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, dtype="int32") if spec.dtype == "int64" else spec for spec in tensors)
