"""Metrics that a device could not compute: of the outputs that it kept, on the golden samples of the build."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from trtcompress_engines.kit.device.outputs import PREFIX
from trtcompress_engines.metrics import evaluate
from trtcompress_graph.errors import DataError, MissingPathError
from trtcompress_graph.measured import MetricResult
from trtcompress_graph.target import Target

from .assemble import MANIFEST
from .config import BuildConfig
from .digests import FileDigests, file_digest, source_digest
from .kit_build import sources_of
from .kit_golden import golden_batches
from .kit_results import MOST_BYTES, KitEngine, KitOutputs
from .profiles import named_axes

if TYPE_CHECKING:
    from trtcompress_engines.kit.contents import GoldenBatch
    from trtcompress_engines.scores import Values

FEW = 32
"""Samples under which a metric of the device is told to say little."""

_AGAIN = "copy the whole folder results from the device, or run ./validate there again"


@dataclass(frozen=True)
class KeptOutputs:
    """Scores engines by what the device kept of their outputs.

    The reference answers the golden samples once more, here.

    Attributes:
        build_dir: that the kit was made of.
        config: of the build.
        target: of the kit.
        folder: of results.json, beside which the outputs lie.
        base: folder that relative paths of the config start from; the current one where None.
        notes: why a metric could not be computed.
    """

    build_dir: Path
    config: BuildConfig
    target: Target
    folder: Path
    base: Path | None = None
    notes: list[str] = field(default_factory=list)

    def score(self, engine: KitEngine, names: Sequence[str]) -> tuple[MetricResult, ...]:
        """The metrics of these names; none where nothing was kept or the evaluation data is not here.

        Raises:
            DataError: outputs are damaged, missing or of other samples, or a metric is no longer that of the build.
            UsageError: the user's own metric cannot be imported, or fails.
        """
        if not names or not engine.outputs or self._golden is None:
            return ()
        self._same_metrics(names)
        reference: dict[str, list[Any]] = {}
        found: dict[str, list[Any]] = {}
        labels: list[Any] = []
        for kept in engine.outputs:
            batch = self._golden.get(kept.golden)
            if batch is None:
                raise DataError(
                    "these outputs are of other samples than those of the build",
                    where=str(self.folder / kept.path),
                    hint="make the kit of this build: trtcompress package --format jetson",
                )
            outputs = _read(self.folder, kept, batch)
            for name, expected in batch.outputs.items():
                reference.setdefault(name, []).extend(_rows(expected, batch.count))
                found.setdefault(name, []).extend(_rows(outputs[name], batch.count))
            labels.extend(() if batch.labels is None else batch.labels)
        before, after = ({n: _together(rows) for n, rows in some.items()} for some in (reference, found))
        truths = _together(labels) if labels else None
        if len({kept.golden for kept in engine.outputs}) < len(engine.outputs):
            raise DataError("outputs of one batch are there twice", where=str(self.folder), hint=_AGAIN)
        counted = sum(self._golden[kept.golden].count for kept in engine.outputs)
        if counted < FEW:
            self.notes.append(f"{engine.encoding}: {', '.join(names)} of {counted} samples: a gate on it says little")
        return tuple(evaluate(name, before, after, truths, base=self.base or Path.cwd()) for name in names)

    def _same_metrics(self, names: Sequence[str]) -> None:
        """Functions of the user's own have to be those that scored the build; what it did not note is not compared."""
        noted = json.loads((self.build_dir / MANIFEST).read_text(encoding="utf-8")).get("metrics", {})
        sources = (self.config.data.evaluation or self.config.data.calibration).sources
        with TemporaryDirectory() as notes:
            for name in names:
                found = (name, self.base or Path.cwd(), sources, FileDigests(Path(notes)))
                if noted.get(name) and source_digest(*found) != noted[name]:
                    raise DataError(
                        "this metric is no longer that of the build: its numbers would not be comparable",
                        where=name,
                        hint="build again: trtcompress build CONFIG.yaml",
                    )

    @cached_property
    def _golden(self) -> dict[str, GoldenBatch] | None:
        """Golden batches by their digests."""
        try:
            sources = sources_of(self.build_dir, self.config, self.target, self.base)
        except MissingPathError as error:
            self.notes.append(
                f"no metric is computed of the outputs of the device: {error.what} ({error.where}); {error.hint}"
            )
            return None
        if sources.data.state:
            self.notes.append("no metric is computed of the outputs: those of a model that remembers are single steps")
            return None
        axes = named_axes(sources.reference, sources.axes)
        return {batch.digest: batch for batch in golden_batches(sources.data, sources.reference, None, axes)}


def _read(folder: Path, kept: KitOutputs, batch: GoldenBatch) -> dict[str, Any]:
    """Outputs of the real samples, by name.

    Raises:
        DataError: the file is not the one that was written, or holds something else.
    """
    path = folder / kept.path
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DataError("this path leads out of the folder", where=kept.path, hint=_AGAIN)
    try:
        if path.stat().st_size > MOST_BYTES * 4 or file_digest(path) != kept.sha256:
            raise DataError("this is not the file that the device wrote", where=str(path), hint=_AGAIN)
        held = _exported(path) if path.suffix == ".json" else _arrays(path)
    except (FileNotFoundError, IsADirectoryError):
        raise DataError("outputs of an engine are missing", where=str(path), hint=_AGAIN) from None
    found = {}
    for name, expected in batch.outputs.items():
        value = held.get(name)
        if value is not None and value.ndim == expected.ndim and value.shape[:1] == (batch.filled,):
            value = value[: batch.count]
        if value is None or value.shape != expected.shape:
            what = "is not there" if value is None else f"has shape {list(value.shape)} and not {list(expected.shape)}"
            raise DataError(f"the output '{name}' {what}", where=str(path), hint=_AGAIN)
        if value.dtype.kind not in "biuf":
            raise DataError(f"the output '{name}' holds no numbers", where=str(path), hint=_AGAIN)
        found[name] = value.astype(expected.dtype)
    return found


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name.removeprefix(PREFIX): arrays[name] for name in arrays.files}
    except (ValueError, TypeError, OSError, EOFError, BadZipFile) as error:  # TypeError: one array, and no file of many
        raise DataError(f"these are no arrays: {error}", where=str(path), hint=_AGAIN) from error


def _exported(path: Path) -> dict[str, Any]:
    """What `trtexec --exportOutput` writes, which has `nan` and `inf` as C prints them."""
    try:
        text = re.sub(r"(?<=[\s,\[])(-?)(nan|inf)(?=[\s,\]])", _number, path.read_text(encoding="utf-8"))
        return {
            str(one["name"]): np.asarray(one["values"], np.float64).reshape(
                [int(size) for size in str(one["dimensions"]).split("x") if size]
            )
            for one in json.loads(text)
        }
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"this is not what trtexec writes: {error}", where=str(path), hint=_AGAIN) from error


def _number(match: re.Match[str]) -> str:
    return "NaN" if match[2] == "nan" else f"{match[1]}Infinity"


def _rows(value: Any, count: int) -> Iterable[Any]:
    """One a sample; what has no axis of samples belongs to each."""
    return value if np.ndim(value) and len(value) == count else [value] * count


def _together(rows: Sequence[Any]) -> Values:
    """Samples in order, as one array where their shapes are equal."""
    arrays = [np.asarray(row) for row in rows]
    return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays


def missing(engine: KitEngine, asked: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the metrics of the build that the device has not computed itself."""
    there = {metric.name for metric in engine.metrics}
    return [str(metric["name"]) for metric in asked if metric["name"] not in there]
