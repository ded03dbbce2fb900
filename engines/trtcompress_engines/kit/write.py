"""A kit as a folder: models, golden samples, what runs on the device, and the digest of every file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.digest import files_digest
from trtcompress_graph.load import copy_model
from trtcompress_graph.model import Model
from trtcompress_graph.target import Target

from .device.kit import CACHE, SUMS
from .flags import builder_flags
from .jetpack4 import needs_shell, write_shell

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]

_HERE = Path(__file__).parent
_SCRIPTS = ("build", "validate")


@dataclass(frozen=True, slots=True, eq=False)
class GoldenBatch:
    """One batch of real samples and what the reference gives for it.

    Attributes:
        inputs: as the model takes them.
        outputs: of the reference, for the real samples.
        pruned: the same of the pruned float model; empty where nothing was pruned.
        labels: one a real sample, or None.
        count: how many samples are real.
        filled: how many the batch holds; a model of fixed batch size is filled up.
    """

    inputs: Arrays
    outputs: Arrays
    pruned: Arrays
    labels: Array | None
    count: int
    filled: int


@dataclass(frozen=True, slots=True)
class KitContents:
    """What goes into a kit.

    Attributes:
        name: of the build.
        models: graphs by the names of the engines; `reference` is the model as it came.
        cache: text of calibration.cache, empty where there is none; it goes with the model `implicit-int8`.
        profiles: least, usual and greatest shape of each dynamic input.
        batches: sizes that are timed; empty where the batch is fixed.
        usual_batch: the one that a report names first.
        metrics: names of the top-k metrics that are computed on the device.
        gates: names and limits.
    """

    name: str
    models: Mapping[str, Model]
    cache: str
    profiles: Mapping[str, Sequence[Sequence[int]]]
    batches: tuple[int, ...]
    usual_batch: int
    metrics: tuple[str, ...]
    gates: tuple[tuple[str, float], ...]


def write_kit(contents: KitContents, target: Target, golden: Sequence[GoldenBatch], folder: Path) -> None:
    """Fill an empty folder.

    Raises:
        OSError: it cannot be written.
    """
    models = {name: _write_model(model, name, folder) for name, model in contents.models.items()}
    if contents.cache:
        (folder / CACHE).write_text(contents.cache, encoding="utf-8")
    for index, batch in enumerate(golden):
        _write_golden(batch, folder / "golden" / f"{index:04}.npz")
    for source in sorted((_HERE / "device").glob("*.py")):
        _copy(source, folder / "device" / source.name)
    for name in _SCRIPTS:
        _copy(_HERE / "scripts" / name, folder / name, mode=0o755)
    if needs_shell(target):
        write_shell(contents, target, models, golden, folder)
    facts = {
        "version": 1,
        "name": contents.name,
        "target": target.name,
        "title": target.title,
        "tensorrt": target.tensorrt,
        "dla": target.dla,
        "models": models,
        "profiles": contents.profiles,
        "batches": contents.batches,
        "usual_batch": contents.usual_batch,
        "metrics": contents.metrics,
        "gates": [{"gate": gate, "limit": limit} for gate, limit in contents.gates],
    }
    (folder / "kit.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(contents, target), encoding="utf-8")
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{files_digest([folder / path])}  {path}\n" for path in paths)
    (folder / SUMS).write_text(sums, encoding="utf-8")


def _write_model(model: Model, name: str, folder: Path) -> dict[str, Any]:
    copied = copy_model(model, folder / "models" / name / "model.onnx")
    flags = ["FP16", "INT8"] if name == "implicit-int8" else list(builder_flags(copied))
    return {"path": copied.path.relative_to(folder).as_posix(), "sha256": model.digest, "flags": flags}


def _write_golden(batch: GoldenBatch, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts: Iterable[tuple[str, Arrays]] = (
        ("input", batch.inputs),
        ("output", batch.outputs),
        ("pruned", batch.pruned),
    )
    arrays = {f"{part}/{name}": value for part, values in parts for name, value in values.items()}
    if batch.labels is not None:
        arrays["labels"] = batch.labels
    arrays["count"] = np.array([batch.count, batch.filled])
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _copy(source: Path, path: Path, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    path.chmod(mode)


def _readme(contents: KitContents, target: Target) -> str:
    releases = ", ".join(f"{release} (TensorRT {version})" for release, version in target.tensorrt)
    implicit = (
        "\n    ./build --dla 0        # also an INT8 engine of the float model and calibration.cache, on DLA core 0"
        if contents.cache and target.dla
        else ""
    )
    return f"""# {contents.name} for {target.title}

For {releases}. Copy this folder to the device, and there:

    ./build                # builds the engines into engines/{implicit}
    ./validate             # compares them with the golden outputs, measures, writes results/

Then bring results/results.json back:

    trtcompress import-results BUILD_DIR results.json

It needs nothing but JetPack. `./validate --backend onnxruntime` tries it on any machine with ONNX Runtime.
"""
