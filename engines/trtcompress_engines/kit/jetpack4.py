"""What a kit needs for JetPack 4, whose Python is too old: the golden samples as trtexec and awk read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from trtcompress_graph.target import Target

from ..backends.trt_recipe import Recipe
from ..backends.trt_trtexec import trtexec
from ..tensorrt_release import Feature, Release
from .device.builder import FLAGS
from .device.kit import CACHE, IMPLICIT, REFERENCE, TIMING

if TYPE_CHECKING:
    from .contents import GoldenBatch, KitContents

GOLDEN, SCORED = 4, 8
"""Batches that are compared, without a metric and with one: trtexec loads the engine anew for each."""

_PYTHON = (8, 4)
"""TensorRT of JetPack 5, the first with Python 3.8."""

_HERE = Path(__file__).parent / "shell"
_GIVEN = ("--onnx=", "--saveEngine=", "--buildOnly")
"""What build.sh gives by itself."""
_NARROW = {"int64": "int32", "float64": "float32", "bool": "bool"}
"""TensorRT 8 has no 64-bit types: it reads such inputs as these."""


def needs_shell(target: Target) -> bool:
    """Whether a release of the target's platform has too old a Python."""
    return bool(_old(target))


def _for_older(facts: Mapping[str, Any]) -> dict[str, Any]:
    """An engine as these releases build it: their parsers may take another graph."""
    return {**facts, **(facts["older"] or {})}


def _refused(facts: Mapping[str, Any], target: Target) -> bool:
    """Whether there is no graph for the newest of these releases, and so for none."""
    return "refused" in facts and list(_old(target)[-1].number) < list(facts.get("since", [99]))


def _old(target: Target) -> list[Release]:
    """Releases with too old a Python, the oldest first."""
    releases = [Release("classic", version) for _, version in target.tensorrt]
    return [release for release in releases if release.number < _PYTHON]


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
    explicit = {name: _for_older(facts) for name, facts in models.items() if name != IMPLICIT}
    explicit = {name: facts for name, facts in explicit.items() if not _refused(facts, target)}
    release, first = _old(target)[0], golden[0]
    fixed = any(facts["dla"] is not None for facts in explicit.values())
    options = {name: _options(contents, facts, release, name, first) for name, facts in explicit.items()}
    _lines(out / "models", [(n, m["path"], " ".join(options[n])) for n, m in explicit.items()])
    _lines(out / "graphs", [(name, facts["sha256"]) for name, facts in models.items()])
    implicit = {IMPLICIT: _for_older(models[IMPLICIT])} if IMPLICIT in models else {}
    left_out = {name: _left_out(contents, facts, release, name) for name, facts in (explicit | implicit).items()}
    _lines(out / "left-out", [(name, json.dumps(words)) for name, words in left_out.items()])
    _lines(out / "gates", [(gate, repr(limit)) for gate, limit in contents.gates])
    sizes = (contents.batches if not fixed else ()) or (first.filled,)
    dynamic = bool(contents.batches) and not fixed
    _lines(out / "timing", [(str(size), _shapes(contents, first, size if dynamic else None)) for size in sizes])
    _lines(out / "fixed-timing", [(str(first.filled), _shapes(contents, first))])
    _lines(
        out / "implicit",
        [
            (facts["path"], " ".join(_options(contents, facts, release, name, first)))
            for name, facts in implicit.items()
        ],
    )
    _lines(out / "scored-later", [(", ".join((*contents.metrics, *contents.scored_later)),)])
    # how the number of TensorRT begins that trtexec writes, 8201 for 8.2.1, and what is told of it
    asked = Release("classic", contents.asked).number if contents.asked else (8,)
    _lines(out / "number", [("".join(str(part) for part in asked),)])
    _lines(out / "release", [(f"{contents.asked} (tensorrt.version of its config)" if contents.asked else "8",)])
    _lines(out / "dla", [(str(target.dla),)])
    like = [batch for batch in golden if not fixed or _times_of(batch) == _times_of(first)]
    chosen = like[: SCORED if contents.metrics or contents.scored_later else GOLDEN]
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
    _lines(folder / "digest", [(batch.digest,)])


def _options(
    contents: KitContents, facts: Mapping[str, Any], release: Release, name: str, first: GoldenBatch
) -> list[str]:
    """For trtexec, which takes one profile: that of the whole, or the first golden sample's shapes for a DLA."""
    asked, for_dla = facts["builder"], _for_dla(facts, name)
    flags = [FLAGS[key] for key in FLAGS if asked.get(key) and not release.lacks(_feature(key))]
    recipe = Recipe(
        flavour="classic",
        version=release.version,
        onnx="",
        plan="",
        flags=(*facts["flags"], *flags, *(("GPU_FALLBACK",) if for_dla else ())),
        tf32=asked.get("tf32"),
        workspace_mb=asked.get("workspace_mb"),
        optimization_level=None if release.lacks("optimization_level") else asked.get("optimization_level"),
        timing_cache=f"engines/{TIMING}" if contents.timing and name != REFERENCE else "",
        calibration_cache=f"engines/{CACHE}" if facts["cache"] else "",
        dla=facts["dla"],
    )
    found = [argument for argument in trtexec(recipe)[1:] if not argument.startswith(_GIVEN)]
    return [*found, *(_fixed(contents, first) if for_dla else _profile(contents))]


def _for_dla(facts: Mapping[str, Any], name: str) -> bool:
    """Whether an engine is for a DLA: that by the cache is built where `--dla` names a core, and no other way."""
    return facts["dla"] is not None or name == IMPLICIT


def _left_out(contents: KitContents, facts: Mapping[str, Any], release: Release, name: str) -> list[str]:
    """What is asked and cannot be had there."""
    given = {key: facts["builder"].get(key) for key in ("optimization_level", *FLAGS)}
    asked = [key for key, value in given.items() if value is not None and value is not False]  # 0 is a level
    found = [f"{key}: {why}" for key in asked if (why := release.lacks(_feature(key)))]
    if len(contents.profiles) > 1 and not _for_dla(facts, name):
        found.append("profiles: trtexec builds one, which holds all shapes")
    return found


def _feature(key: str) -> Feature:
    return next(feature for feature in get_args(Feature) if feature == key)


def _profile(contents: KitContents) -> list[str]:
    whole = contents.profiles[0] if contents.profiles else {}
    return [
        f"--{flag}Shapes=" + ",".join(f"{name}:{_times(shapes[at])}" for name, shapes in whole.items())
        for flag, at in (("min", 0), ("opt", 1), ("max", 2))
        if whole
    ]


def _dynamic(contents: KitContents) -> list[str]:
    """Names of the inputs that have a dynamic axis."""
    return list(contents.profiles[0]) if contents.profiles else []


def _times_of(batch: GoldenBatch) -> dict[str, str]:
    return {name: _times(value.shape) for name, value in batch.inputs.items()}


def _fixed(contents: KitContents, batch: GoldenBatch) -> list[str]:
    told = ",".join(f"{name}:{_times(batch.inputs[name].shape)}" for name in _dynamic(contents))
    return [f"--{flag}Shapes={told}" for flag in ("min", "opt", "max") if told]


def _shapes(contents: KitContents, batch: GoldenBatch, size: int | None = None) -> str:
    """`--shapes` of a batch, or of one of another size; empty where all shapes are fixed."""
    shapes = {name: batch.inputs[name].shape for name in _dynamic(contents)}
    if size is not None:
        shapes = {name: (size, *shape[1:]) for name, shape in shapes.items()}
    told = ",".join(f"{name}:{_times(shape)}" for name, shape in shapes.items())
    return f"--shapes={told}" if told else ""


def _times(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))


def _lines(path: Path, rows: Iterable[Sequence[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
