"""What the validate stage found for a target: every engine that could be shipped, and the one that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from trtcompress_graph.measured import Gate, MetricResult, OutputParity, Speed, Verdict
from trtcompress_graph.target import Engine


@dataclass(frozen=True, slots=True)
class Emulation:
    """Accuracy of a graph as it is written, computed by ONNX Runtime without any kernel of its target.

    Attributes:
        to_pruned: parity with the pruned float model that the graph was made of; None where nothing was pruned.
    """

    encoding: str
    parity: tuple[OutputParity, ...]
    metrics: tuple[MetricResult, ...]
    notes: tuple[str, ...]
    to_pruned: tuple[OutputParity, ...] | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """One engine and what was measured of it.

    Attributes:
        size_bytes: of what is deployed, external data included.
        emulated: the numbers are of the engine's very ONNX graph under ONNX Runtime, since the engine itself
            cannot run here.
        speeds: one a batch size; empty where the engine cannot run here.
        headline: index into `speeds` of the batch size that the config calls usual.
        to_pruned: parity with the pruned float model; None where nothing was pruned.
    """

    engine: Engine
    size_bytes: int
    emulated: bool
    parity: tuple[OutputParity, ...]
    metrics: tuple[MetricResult, ...]
    speeds: tuple[Speed, ...]
    headline: int
    gates: tuple[Gate, ...]
    verdict: Verdict
    to_pruned: tuple[OutputParity, ...] | None = None

    @property
    def speed(self) -> Speed | None:
        """Speed at the usual batch size, or None where nothing was timed."""
        return self.speeds[self.headline] if self.speeds else None


@dataclass(frozen=True, slots=True)
class Validation:
    """Candidates of a target in the order of preference, and the index of the one that is shipped.

    Only the shipped engine matters to what comes after; timings, which differ from run to run, do not.

    Attributes:
        gain: times that the preferred engine is as fast as the float engine, timed against each other.
    """

    FINGERPRINT: ClassVar = ("engine",)
    target: str
    candidates: tuple[Candidate, ...]
    chosen: int
    gain: float | None
    notes: tuple[str, ...]

    @property
    def shipped(self) -> Candidate:
        """What goes into the package."""
        return self.candidates[self.chosen]

    @property
    def engine(self) -> Engine:
        """The engine that is shipped."""
        return self.shipped.engine


@dataclass(frozen=True, slots=True)
class Packages:
    """Folders made for a target, by format, and what was left out and why."""

    target: str
    folders: Mapping[str, Path]
    notes: tuple[str, ...]


def deployed_file(engine: Engine) -> tuple[Path, str]:
    """File that a user deploys, and its digest.

    For the CPU that is the portable graph: what ONNX Runtime optimized is good for this machine only.
    """
    if engine.backend == "onnxruntime":
        return engine.graph.path, engine.graph.digest
    return engine.path, engine.digest


def deployed_size(engine: Engine) -> int:
    """Bytes that a user deploys, external data included."""
    from .outputs import model_size

    path, _ = deployed_file(engine)
    return model_size(engine.graph) if path == engine.graph.path else path.stat().st_size
