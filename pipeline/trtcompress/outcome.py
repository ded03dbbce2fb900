"""The result of a build, as `build --json` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from trtcompress_graph.measured import Gate, Verdict

from .config import Settings
from .validation import Validation


class LatencyMs(Settings):
    """Times of one batch in milliseconds."""

    p50: float
    p90: float
    p99: float


class MetricValue(Settings):
    """A metric of the model that the build started from, and of the engine."""

    reference: float
    value: float
    ci: tuple[float, float] = Field(description="95 % confidence interval of `value`")


class GateResult(Settings):
    """A limit and what was measured. `[emulated]` in the name: measured on the engine's graph, not on the device."""

    gate: str
    limit: float
    value: float | None
    verdict: Literal["pass", "fail", "not_measured"]


class TargetResult(Settings):
    """The engine that is shipped for a target."""

    target: str
    engine: str = Field(description="path of the engine file")
    sha256: str
    size_bytes: int
    latency_ms: LatencyMs | None = Field(description="at the usual batch size; null where the engine cannot run here")
    speedup: float | None = Field(description="over the model that the build started from, timed in the same run")
    metrics: dict[str, MetricValue]
    gates: tuple[GateResult, ...]


class BuildResult(Settings):
    """What a build came to."""

    name: str
    verdict: Literal["pass", "fail", "not_measured"]
    build_dir: str
    targets: tuple[TargetResult, ...]


@dataclass(frozen=True, slots=True)
class Deployed:
    """Where the engine of a target ended up in the build folder."""

    path: Path
    digest: str


def build_result(
    name: str, build_dir: Path, validations: Mapping[str, Validation], deployed: Mapping[str, Deployed]
) -> BuildResult:
    """Put the result together from what validate found and where the engines lie."""
    targets = tuple(_target_result(validation, deployed[target]) for target, validation in validations.items())
    return BuildResult(name=name, verdict=verdict_of(validations), build_dir=str(build_dir), targets=targets)


def gate_result(gate: Gate, name: str = "") -> GateResult:
    """A gate as it is printed, under its own name or another."""
    return GateResult(gate=name or gate.gate, limit=gate.limit, value=gate.value, verdict=gate.verdict)


def verdict_of(validations: Mapping[str, Validation]) -> Verdict:
    """`fail` if any target fails, else `not_measured` if any was not measured, else `pass`."""
    verdicts = {validation.shipped.verdict for validation in validations.values()}
    if "fail" in verdicts:
        return "fail"
    return "pass" if verdicts == {"pass"} else "not_measured"


def _target_result(validation: Validation, deployed: Deployed) -> TargetResult:
    shipped = validation.shipped
    speed = shipped.speed
    return TargetResult(
        target=validation.target,
        engine=str(deployed.path),
        sha256=deployed.digest,
        size_bytes=shipped.size_bytes,
        latency_ms=LatencyMs(p50=speed.engine.p50, p90=speed.engine.p90, p99=speed.engine.p99) if speed else None,
        speedup=speed.speedup if speed else None,
        metrics={m.name: MetricValue(reference=m.reference, value=m.value, ci=m.ci) for m in shipped.metrics},
        gates=tuple(gate_result(gate) for gate in shipped.gates),
    )
