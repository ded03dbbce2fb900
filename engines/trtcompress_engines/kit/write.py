"""A kit as a folder: models, golden samples, what runs on the device, and the digest of every file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trtcompress_graph.digest import files_digest
from trtcompress_graph.load import copy_model
from trtcompress_graph.model import Model
from trtcompress_graph.target import Target

from ..builder_flags import builder_flags
from .contents import Array, Arrays, GoldenBatch, KitContents, KitModel, Older
from .device.kit import CACHE, IMPLICIT, SUMS, TIMING
from .jetpack4 import needs_shell, write_shell
from .readme import readme

__all__ = ["Array", "Arrays", "GoldenBatch", "KitContents", "KitModel", "Older", "write_kit"]

_HERE = Path(__file__).parent
_SCRIPTS = ("build", "validate")


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
        "asked": contents.asked,
        "dla": target.dla,
        "models": models,
        "profiles": contents.profiles,
        "batches": contents.batches,
        "usual_batch": contents.usual_batch,
        "golden": [batch.digest for batch in golden],
        "metrics": contents.metrics,
        "scored_later": contents.scored_later,
        "gates": [{"gate": gate, "limit": limit} for gate, limit in contents.gates],
        "notes": contents.notes,
        "weight_streaming_budget": contents.budget,
    }
    (folder / "kit.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(readme(contents, target), encoding="utf-8")
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
    if batch.labels is not None and batch.has_numbers:
        arrays["labels"] = batch.labels
    arrays["count"] = np.array([batch.count, batch.filled])
    np.savez(path, **arrays)  # type: ignore[arg-type]


def _copy(source: Path, path: Path, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    path.chmod(mode)
