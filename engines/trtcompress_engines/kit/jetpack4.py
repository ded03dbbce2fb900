"""What a kit needs for JetPack 4, whose Python is too old: the golden samples as trtexec and awk read them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcompress_graph.target import Target

if TYPE_CHECKING:
    from .write import GoldenBatch, KitContents

GOLDEN = 4
"""Batches that are compared: trtexec loads the engine anew for each."""

_PYTHON = (8, 4)
"""TensorRT of JetPack 5, the first with Python 3.8."""

_HERE = Path(__file__).parent / "shell"
_OPTIONS = {"FP16": "--fp16", "INT8": "--int8", "BF16": "--bf16", "SPARSE_WEIGHTS": "--sparsity=enable"}
_NARROW = {"int64": "int32", "float64": "float32", "bool": "bool"}
"""TensorRT 8 has no 64-bit types: it reads such inputs as these."""


def needs_shell(target: Target) -> bool:
    """Whether a release of the target's platform has too old a Python."""
    return any(tuple(map(int, version.split(".")[:2])) < _PYTHON for _, version in target.tensorrt)


def write_shell(
    contents: KitContents,
    target: Target,
    models: Mapping[str, Mapping[str, Any]],
    golden: Sequence[GoldenBatch],
    folder: Path,
) -> None:
    """Write the folder `jetpack4` of a kit."""
    out = folder / "jetpack4"
    out.mkdir()
    for source in sorted(_HERE.iterdir()):
        shutil.copyfile(source, out / source.name)
    explicit = {name: facts for name, facts in models.items() if name != "implicit-int8"}
    shapes = _profile(contents)
    _lines(out / "models", [(n, m["path"], " ".join([*_options(m["flags"]), *shapes])) for n, m in explicit.items()])
    _lines(out / "graphs", [(name, facts["sha256"]) for name, facts in explicit.items()])
    _lines(out / "gates", [(gate, repr(limit)) for gate, limit in contents.gates])
    first = golden[0]
    _lines(out / "fixed-shapes", [(" ".join(_fixed(contents, first)),)])
    sizes = contents.batches or (first.filled,)
    _lines(
        out / "timing", [(str(size), _shapes(contents, first, size if contents.batches else None)) for size in sizes]
    )
    _lines(out / "majors", [("8",)])
    _lines(out / "dla", [(str(target.dla),)])
    chosen = golden[:GOLDEN]
    _lines(out / "count", [(str(sum(batch.count for batch in chosen)),)])
    _lines(out / "usual", [(str(contents.usual_batch),)])
    _lines(out / "kit", [(f'"name": "{contents.name}", "target": "{target.name}"',)])
    for index, batch in enumerate(chosen):
        _write_golden(contents, batch, out / "golden" / f"{index:04}")


def _write_golden(contents: KitContents, batch: GoldenBatch, folder: Path) -> None:
    folder.mkdir(parents=True)
    loads = []
    for index, (name, value) in enumerate(batch.inputs.items()):
        narrow = np.asarray(value).astype(_NARROW.get(str(value.dtype), value.dtype))
        narrow.tofile(folder / f"input{index}.bin")
        loads.append(f"{name}:input{index}.bin")
    _lines(
        folder / "arguments", [(" ".join(filter(None, [f"--loadInputs={','.join(loads)}", _shapes(contents, batch)])),)]
    )
    rows = []
    for index, (name, value) in enumerate(batch.outputs.items()):
        flat = np.asarray(value, dtype=np.float64).ravel()
        (folder / f"output{index}").write_text("".join(f"{number!r}\n" for number in flat.tolist()), encoding="ascii")
        samples = value.shape[0] if value.ndim else 1
        rows.append((f"output{index}", str(flat.size // max(samples, 1)), name))
    _lines(folder / "outputs", rows)


def _options(flags: Iterable[str]) -> list[str]:
    return [_OPTIONS[flag] for flag in flags]


def _profile(contents: KitContents) -> list[str]:
    return [
        f"--{flag}Shapes=" + ",".join(f"{name}:{_times(shapes[at])}" for name, shapes in contents.profiles.items())
        for flag, at in (("min", 0), ("opt", 1), ("max", 2))
        if contents.profiles
    ]


def _fixed(contents: KitContents, batch: GoldenBatch) -> list[str]:
    told = ",".join(f"{name}:{_times(batch.inputs[name].shape)}" for name in contents.profiles)
    return [f"--{flag}Shapes={told}" for flag in ("min", "opt", "max") if told]


def _shapes(contents: KitContents, batch: GoldenBatch, size: int | None = None) -> str:
    """`--shapes` of a batch, or of one of another size; empty where all shapes are fixed."""
    shapes = {name: batch.inputs[name].shape for name in contents.profiles}
    if size is not None:
        shapes = {name: (size, *shape[1:]) for name, shape in shapes.items()}
    told = ",".join(f"{name}:{_times(shape)}" for name, shape in shapes.items())
    return f"--shapes={told}" if told else ""


def _times(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _lines(path: Path, rows: Iterable[Sequence[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
