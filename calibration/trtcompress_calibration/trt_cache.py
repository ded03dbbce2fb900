"""TensorRT's `calibration.cache`: the scale of each tensor, which TensorRT 8.x to 10.x reads instead of calibrating.

A text file. Its first line names the version of TensorRT and the kind of calibrator, `TRT-8601-EntropyCalibration2`;
each further one is `NAME: BITS`, the float32 scale (amax / 127) as eight hexadecimal digits. TensorRT ignores a cache
whose version is not its own and calibrates anew, so the version is that of the machine that builds.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np

from trtcompress_graph.encoding import Encoding, PrecisionPlan
from trtcompress_graph.errors import DataError, MissingPathError, UsageError
from trtcompress_graph.model import Model
from trtcompress_graph.ranges import VERSION, Ranges, TensorRange

METHOD = "calibration.cache"
"""`Ranges.method` of ranges that were read from a cache."""

_HEADER = re.compile(r"TRT-\w+-(Entropy|MinMax|Legacy)Calibration2?")
_LINE = re.compile(r"(?P<name>.+): (?P<bits>[0-9a-fA-F]{1,8})")
_MOST = 64 << 20
"""Bytes that a cache may have."""


def version_number(version: str) -> int:
    """The number that a release writes into its caches: 8.6.1 is 8601, 10.3.0 is 100300.

    Raises:
        UsageError: not a release whose calibrators read a cache.
    """
    parts = re.fullmatch(r"(8|9|10)\.(\d{1,2})(?:\.(\d{1,2}))?(?:\.\d+)?", version)
    if parts is None:
        raise UsageError(
            f"'{version}' is no version of TensorRT that reads a calibration cache",
            where="TensorRT version",
            hint="give one from 8.0 to 10.x, such as 8.6.1; later ones read Q/DQ graphs alone",
        )
    major, minor, patch = int(parts[1]), int(parts[2]), int(parts[3] or 0)
    return major * (10_000 if major >= 10 else 1000) + minor * 100 + patch


def cache_text(model: Model, ranges: Ranges, plan: PrecisionPlan, encoding: Encoding, version: str) -> str:
    """The cache of a model. Tensors with a Q/DQ pair get the scale of that pair to the last bit.

    Args:
        model: the float model, which is what TensorRT is given together with the cache.
        ranges: of its tensors.
        plan: precision of its nodes under the encoding.
        encoding: a symmetric one.
        version: of TensorRT, such as `8.6.1`.

    Raises:
        UsageError: the version reads no cache, or the encoding is not symmetric.
        DataError: a name that the format cannot hold.
        DataError: a tensor to quantize has no range.
    """
    from .layout import lay_out
    from .opening import open_graph
    from .placement import int8_nodes
    from .precision import needed_opset
    from .scales import activation_scale

    check_cache(ranges, encoding, version)
    graph = open_graph(model, needed_opset(encoding)).graph
    pairs = lay_out(graph, int8_nodes(graph, plan, encoding), encoding, ranges.tensors)
    scales = {
        name: activation_scale(measured, encoding).scale
        for name, measured in ranges.tensors.items()
        if measured.threshold is not None
    }
    scales |= {str(pair.value.name): pair.scale.scale for pair in pairs}
    lines = (f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items())
    return "\n".join([f"TRT-{version_number(version)}-EntropyCalibration2", *lines]) + "\n"


def check_cache(ranges: Ranges, encoding: Encoding, version: str) -> None:
    """Whether a cache can be written; costs nothing.

    Raises:
        UsageError: the version reads no cache, or the encoding is not symmetric.
        DataError: a name that the format cannot hold.
    """
    version_number(version)
    if not encoding.int8 or not encoding.symmetric:
        raise UsageError(
            f"the encoding '{encoding.name}' is not symmetric INT8",
            where="calibration cache",
            hint="give a target in INT8 other than a CPU, such as --target t4:int8",
        )
    for name in ranges.tensors:
        if not name or "\n" in name or "\r" in name:
            raise DataError("a name with a line break has no place in a cache", where=f"tensor {name!r}")


def is_cache(path: Path) -> bool:
    """Whether a file begins as a cache does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"TRT-"


def read_cache(path: Path, model: Model) -> Ranges:
    """Ranges from a cache: ±127 scales, since a cache does not say what was seen beyond.

    Args:
        path: the file; of any release and any kind of calibrator.
        model: whose tensors it names.

    Raises:
        MissingPathError: no such file.
        DataError: not such a file, a scale that is not positive and finite, or none of its tensors is in the model.
    """
    hint = "it is what TensorRT's calibrators write; for ranges of our own: trtcompress calibrate"
    if not path.is_file():
        raise MissingPathError("no such file", where=str(path), hint=hint)
    if path.stat().st_size > _MOST:
        raise DataError("too large for a calibration cache", where=str(path), hint=hint)
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    if not _HEADER.fullmatch(lines[0].strip()):
        raise DataError("this is not a calibration cache of TensorRT", where=str(path), hint=hint)
    tensors = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        found = _LINE.fullmatch(line.rstrip(" \t\r"))
        if found is None:
            raise DataError("not of the form `NAME: BITS`", where=f"{path}: line {number}", hint=hint)
        scale = struct.unpack(">f", bytes.fromhex(found["bits"].zfill(8)))[0]
        if not np.isfinite(scale) or scale <= 0:
            raise DataError(
                f"a scale of {scale}", where=f"{path}: line {number}, tensor '{found['name']}'", hint="calibrate anew"
            )
        amax = float(scale) * 127  # exact in float64, so the scale comes back to the last bit
        tensors[found["name"]] = TensorRange(-amax, amax, amax, 0.0, METHOD)
    known = tensor_names(model)
    if known.isdisjoint(tensors):
        raise DataError(
            f"none of its {len(tensors)} tensors is in the model",
            where=str(path),
            hint=f"give the cache of {model.path.name}; names must be those of its ONNX tensors",
        )
    return Ranges(VERSION, model.digest, METHOD, 0, {name: held for name, held in tensors.items() if name in known})


def tensor_names(model: Model) -> set[str]:
    """Names of the inputs of a model and of what its nodes make."""
    from .taps import read_skeleton

    graph = read_skeleton(model).graph
    return {spec.name for spec in model.inputs} | {name for node in graph.node for name in node.output}
