"""What else would make a model smaller in which an encoding quantizes nothing."""

from __future__ import annotations

from trtcompress_graph.encoding import Encoding
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import VERSION, Ranges

_FORMATS = {"weight-int8": "w8", "tables": "tables"}
"""Precisions that need no calibration and quantize weights, or tables alone, by their short names."""


def smaller_formats(model: Model, target_name: str, encoding: Encoding) -> str:
    """Formats of the target that would quantize nodes of the model, to be typed; empty where none would.

    Args:
        model: a float model.
        target_name: a target, perhaps with a precision.
        encoding: in which nothing could be quantized.
    """
    from trtcompress_calibration.precision import plan_precision
    from trtcompress_engines.encodings import precisions_of
    from trtcompress_engines.targets import resolve_target

    from .asked import encoding_of

    target = resolve_target(target_name.partition(":")[0])
    nothing = Ranges(VERSION, model.digest, "none", 0, {})
    counts: dict[str, int] = {}
    for precision, short in _FORMATS.items():
        if precision not in precisions_of(target):
            continue
        other = encoding_of(target.name, precision)
        quantized = plan_precision(model, nothing, other).quantized if other.name != encoding.name else 0
        if quantized and quantized not in counts.values():
            counts[f"--target {target.name}:{short}"] = quantized
    told = ", ".join(f"{typed} ({count} {'node' if count == 1 else 'nodes'})" for typed, count in counts.items())
    return f"integer weights alone would make it smaller: {told}" if told else ""
