"""A kit as a folder: models, golden samples, what runs on the device, and the digest of every file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.digest import files_digest
from trtcompress_graph.load import copy_model
from trtcompress_graph.model import Model
from trtcompress_graph.target import Target

from .device.kit import CACHE, IMPLICIT, SUMS, TIMING
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
class Older:
    """What older releases of TensorRT build in a model's place, whose parsers do not take it.

    Attributes:
        before: the first release that takes the model itself; None where none is known.
        graph: what is built; None where there is nothing for them.
        cache: whether INT8 is implicit.
        since: the first release that takes `graph`; None where all do.
        refused: why there is nothing, or nothing before `since`.
    """

    before: tuple[int, int] | None
    graph: Model | None = None
    cache: bool = False
    since: tuple[int, int] | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class KitModel:
    """An engine that the device builds.

    Attributes:
        graph: the ONNX file that it is built of.
        digest: of the graph of the build whose engine this is; results are joined by it.
        cache: whether INT8 is implicit, by calibration.cache.
        flags: names of BuilderFlag; None: those of the types in the graph.
        builder: what else is asked of TensorRT's builder, by the keys of the config; `tf32` beside them.
        dla: core.
        older: for releases that do not parse the graph.
    """

    graph: Model
    digest: str
    cache: bool = False
    flags: tuple[str, ...] | None = None
    builder: Mapping[str, Any] = field(default_factory=dict)
    dla: int | None = None
    older: Older | None = None


@dataclass(frozen=True, slots=True)
class KitContents:
    """What goes into a kit.

    Attributes:
        name: of the build.
        models: by the names of the engines; `reference` is the model as it came.
        cache: text of calibration.cache, empty where there is none.
        timing: bytes of a timing cache to start from, empty where there is none.
        profiles: least, usual and greatest shape of each dynamic input, of the whole, then of each part that is to get
            kernels of its own; empty where no axis is dynamic.
        batches: sizes that are timed; empty where the batch is fixed.
        usual_batch: the one that a report names first.
        metrics: names of the top-k metrics that are computed on the device.
        gates: names and limits.
        notes: what is to be known of the kit.
    """

    name: str
    models: Mapping[str, KitModel]
    cache: str
    timing: bytes
    profiles: Sequence[Mapping[str, Sequence[Sequence[int]]]]
    batches: tuple[int, ...]
    usual_batch: int
    metrics: tuple[str, ...]
    gates: tuple[tuple[str, float], ...]
    notes: tuple[str, ...] = ()


def write_kit(contents: KitContents, target: Target, golden: Sequence[GoldenBatch], folder: Path) -> None:
    """Fill an empty folder.

    Raises:
        OSError: it cannot be written.
    """
    models = _write_models(contents.models, folder)
    if contents.cache:
        (folder / CACHE).write_text(contents.cache, encoding="utf-8")
    if contents.timing:
        (folder / TIMING).write_bytes(contents.timing)
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
        "notes": contents.notes,
    }
    (folder / "kit.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(contents, target), encoding="utf-8")
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sums = "".join(f"{files_digest([folder / path])}  {path}\n" for path in paths)
    (folder / SUMS).write_text(sums, encoding="utf-8")


def _write_models(models: Mapping[str, KitModel], folder: Path) -> dict[str, dict[str, Any]]:
    """Copy each graph once, and say how its engines are built."""
    placed: dict[str, Model] = {}

    def path(graph: Model, name: str) -> str:
        if graph.digest not in placed:
            placed[graph.digest] = copy_model(graph, folder / "models" / name / "model.onnx")
        return placed[graph.digest].path.relative_to(folder).as_posix()

    return {
        name: {
            "path": path(model.graph, IMPLICIT if model.cache else name),
            "sha256": model.digest,
            "flags": list(builder_flags(model.graph) if model.flags is None else model.flags),
            "cache": model.cache,
            "builder": dict(model.builder),
            "dla": model.dla,
            "older": _older(model.older, name, path) if model.older else None,
        }
        for name, model in models.items()
    }


def _older(older: Older, name: str, path: Callable[[Model, str], str]) -> dict[str, Any]:
    """What stands in a model's place for older releases."""
    if older.graph is None:
        return {"before": older.before, "refused": older.refused}
    placed = path(older.graph, f"{IMPLICIT if older.cache else name}-older")
    by_cache = {"cache": True, "flags": ["FP16", "INT8"]} if older.cache else {}
    since = {"since": older.since, "refused": older.refused} if older.since else {}
    return {"before": older.before, "path": placed, **by_cache, **since}


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
    notes = "\n".join(["", *(f"- {note}" for note in contents.notes), ""]) if contents.notes else ""
    return f"""# {contents.name} for {target.title}

For {releases}. Copy this folder to the device, and there:

    ./build                # builds the engines into engines/{implicit}
    ./validate             # compares them with the golden outputs, measures, writes results/

Then bring results/results.json back:

    trtcompress import-results BUILD_DIR results.json

It needs nothing but JetPack. `./validate --backend onnxruntime` tries it on any machine with ONNX Runtime.
{notes}"""
