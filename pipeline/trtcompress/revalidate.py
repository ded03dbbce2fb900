"""`trtcompress validate`: an engine folder, a build folder or an ONNX file against a reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from trtcompress_engines.emulation import quantizes_for_a_gpu
from trtcompress_engines.gates import explain
from trtcompress_engines.metrics import find_metric
from trtcompress_engines.targets import resolve_target, with_devices
from trtcompress_graph.axes import Axes
from trtcompress_graph.errors import MissingPathError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from .assemble import MANIFEST
from .checking import CheckOptions, check_engines
from .compiling import ENGINE, read_engine
from .config import GateSettings, MeasureSettings
from .datasets import open_evaluation
from .outcome import MetricValue, gate_result
from .outputs import BatchSpeed, OutputDifference, ValidationResult
from .packaging import with_brought_plan
from .profiles import named_axes
from .stage import DataRef, MetricRef, Progress
from .validation import Candidate, Validation

REPORT = "report.json"


def revalidate(
    subject: Path,
    reference: Path,
    data: DataRef,
    metrics: tuple[str, ...],
    gates: GateSettings,
    measure: MeasureSettings,
    axes: Axes,
    progress: Progress,
) -> ValidationResult:
    """Check what lies under `subject`. Of a build folder every shipped engine is checked; the worst verdict counts.

    `progress` is told after each batch of each engine.

    Raises:
        MissingPathError: there is no model or engine.
        UsageError: there is no such metric.
        DataError: samples that do not fit the model.
        EngineLoadError: the engine that was named is of another TensorRT or GPU than those of this machine.
    """
    model = read_model(reference)
    for name in metrics:
        find_metric(name, data.base)  # an unknown one is refused before any work
    refs = tuple(MetricRef(name, data.base, "") for name in metrics)
    options = CheckOptions(refs, gates, measure, named_axes(model, axes), must_load=(subject / ENGINE).is_file())
    found = [
        check_engines(model, (engine,), target, open_evaluation(data, model), options, progress)
        for engine, target in _engines(subject)
    ]
    return _result(found, _for_a_gpu(subject))


def _for_a_gpu(subject: Path) -> tuple[str, ...]:
    """That an ONNX file was written for another device, and what is known of it here."""
    if not subject.is_file() or not quantizes_for_a_gpu(read_model(subject)):
        return ()
    return (f"{subject.name} is quantized for a GPU: ONNX Runtime stands in for its engine, whose speed is not known",)


def _engines(subject: Path) -> Iterator[tuple[Engine, Target]]:
    if subject.is_file():
        yield _as_engine(read_model(subject)), resolve_target("cpu")
    elif (subject / ENGINE).is_file():
        engine = with_brought_plan(read_engine(subject, subject))
        yield engine, resolve_target(engine.target, _known(subject.parent.parent.parent))
    elif (subject / MANIFEST).is_file():
        yield from ((with_brought_plan(engine), target) for engine, target in shipped_engines(subject))
    else:
        raise MissingPathError(
            "neither an ONNX file, nor a folder with an engine or a build",
            where=str(subject),
            hint="make one with: trtcompress compile, or trtcompress build",
        )


def shipped_engines(build_dir: Path) -> list[tuple[Engine, Target]]:
    """The engine of each target that a build ships.

    Raises:
        MissingPathError: this is no build folder, or one without engines.
    """
    try:
        report = json.loads((build_dir / REPORT).read_text(encoding="utf-8"))
        names = [(str(v["target"]), str(v["shipped"])) for v in report["validations"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise _no_build(build_dir) from None
    if not names:
        raise MissingPathError(
            "this build has no engine that could be shipped: it was stopped before it was validated",
            where=str(build_dir),
            hint="build it again without --until: trtcompress build CONFIG.yaml",
        )
    known = _known(build_dir)
    return [
        (read_engine(build_dir / "engines" / target / encoding, build_dir), resolve_target(target, known))
        for target, encoding in names
    ]


def _known(build_dir: Path) -> Mapping[str, Target]:
    """The targets of a build, devices of its config too; those of every build where there is no manifest."""
    try:
        devices = json.loads((build_dir / MANIFEST).read_text(encoding="utf-8"))["config"]["devices"]
    except (OSError, ValueError, KeyError, TypeError):
        devices = {}
    return with_devices(devices)


def failed_gates(build_dir: Path) -> dict[str, list[str]]:
    """For each target of a build the gates that its shipped engine fails, in words.

    Raises:
        MissingPathError: this is no build folder.
    """
    try:
        report = json.loads((build_dir / REPORT).read_text(encoding="utf-8"))
        return {
            str(validation["target"]): [
                str(gate["explained"])
                for candidate in validation["candidates"]
                if candidate["engine"]["encoding"] == validation["shipped"]
                for gate in candidate["gates"]
                if gate["verdict"] == "fail"
            ]
            for validation in report["validations"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        raise _no_build(build_dir) from None


def _no_build(build_dir: Path) -> MissingPathError:
    return MissingPathError(
        "this is not a build folder: it has no report.json",
        where=str(build_dir),
        hint="trtcompress build CONFIG.yaml",
    )


def _as_engine(model: Model) -> Engine:
    return Engine(
        path=model.path,
        digest=model.digest,
        target="cpu",
        backend="onnxruntime",
        encoding="as-given",
        graph=model,
        built=not quantizes_for_a_gpu(model),
        reproducible=True,
    )


def _result(found: list[Validation], said: tuple[str, ...]) -> ValidationResult:
    shipped = [validation.shipped for validation in found]
    several = len(shipped) > 1

    def named(candidate: Candidate, name: str) -> str:
        return f"{candidate.engine.target}:{name}" if several else name

    verdicts = {candidate.verdict for candidate in shipped}
    return ValidationResult(
        verdict="fail" if "fail" in verdicts else "pass" if verdicts == {"pass"} else "not_measured",
        emulated=any(candidate.emulated for candidate in shipped),
        outputs=tuple(
            OutputDifference(
                output=named(c, p.output),
                max_abs=p.max_abs,
                max_rel=p.max_rel,
                cosine=p.cosine,
                snr_db=p.snr_db,
                scale=p.scale,
            )
            for c in shipped
            for p in c.parity
        ),
        metrics={
            named(c, m.name): MetricValue(reference=m.reference, value=m.value, ci=m.ci)
            for c in shipped
            for m in c.metrics
        },
        speeds=tuple(
            BatchSpeed(
                batch=s.engine.batch,
                p50=s.engine.p50,
                p90=s.engine.p90,
                p99=s.engine.p99,
                throughput=s.engine.throughput,
                reference_p50=s.reference.p50,
                speedup=s.speedup,
                gpu=s.engine.gpu,
            )
            for c in shipped
            for s in c.speeds
        ),
        gates=tuple(gate_result(g, named(c, g.gate)) for c in shipped for g in c.gates),
        notes=(
            *(f"FAILED {named(c, explain(g))}" for c in shipped for g in c.gates if g.verdict == "fail"),
            *said,
            *(note for validation in found for note in validation.notes),
        ),
    )
