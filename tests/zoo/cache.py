"""Graphs that were made before: exporting is slow, and the same sources give the same bytes."""

from __future__ import annotations

import functools
import hashlib
import sys
from importlib.metadata import version
from pathlib import Path

import trtcompress.exporting
from trtcompress_graph import branches, convolutions, fixing, naming, opset, recurrent, rewrites, shapes, simplify
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model

from .entries import REGISTRY, Entry

_FOLDER = Path(__file__).parents[2] / "build" / "zoo"
_LIBRARIES = ("onnx", "onnx-ir", "onnxscript", "torch", "transformers")


def made(entry: Entry) -> Model:
    """The graph of an entry, made anew only if something that it is made of has changed."""
    path = _FOLDER / f"{entry.name}-{_key(entry.home)}.onnx"
    if path.exists():
        return read_model(path)
    for old in _FOLDER.glob(f"{entry.name}-{'?' * 16}.onnx"):
        old.unlink(missing_ok=True)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    return entry.write(path)


@functools.cache
def _key(home: str) -> str:
    return hashlib.sha256(_COMMON + _HOMES[home]).hexdigest()[:16]


def _common() -> bytes:
    """What shapes every graph: the export, the simplification, how weights are drawn, the libraries."""
    files = sorted(Path(str(trtcompress.exporting.__file__)).parent.glob("*.py"))
    files += [
        Path(module.__file__)
        for module in (branches, convolutions, fixing, naming, opset, recurrent, rewrites, shapes, simplify)
    ]
    files += [Path(__file__).with_name(name) for name in ("making.py", "weights.py")]
    digest = hashlib.sha256(" ".join(version(name) for name in _LIBRARIES).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.digest()


_COMMON = _common()
_HOMES = {entry.home: Path(str(sys.modules[entry.home].__file__)).read_bytes() for entry in REGISTRY.values()}
"""Read when the code is loaded, so that a change on disk meanwhile does not name what the old code makes."""
