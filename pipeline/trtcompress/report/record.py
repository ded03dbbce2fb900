"""The record of a build: report.json, from which the other reports are drawn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtcompress_engines.gates import explain
from trtcompress_graph.encoding import PrecisionPlan

from ..assemble import Placed
from ..codec import encode
from ..packaging import BUILD_DIR
from ..trials import TriedModel, TriedRanges, told
from ..validation import Candidate, Packages, Validation, deployed_file
from .pruning import pruning
from .training import trainings

if TYPE_CHECKING:
    from ..api import Built


def record(built: Built, placed: Placed) -> dict[str, Any]:
    """Everything that was found, as JSON; paths are relative to the build folder."""
    return {
        **built.result.model_dump(mode="json"),
        "validations": [_validation(v, placed) for v in built.validations.values()],
        "pruning": pruning(built.run, placed),
        "trainings": trainings(built.run),
        "tried": [
            {"what": output, "encoding": subject, **told(value)}
            for (output, subject), value in built.run.values.items()
            if isinstance(value, TriedModel) or (isinstance(value, TriedRanges) and value.trials)
        ],
        "precision": [_precision(value) for value in built.run.values.values() if isinstance(value, PrecisionPlan)],
        "packages": [_packages(p, placed) for p in built.packages.values()],
        "stages": [
            {
                "stage": ran.step.stage.name,
                "subject": ran.step.subject,
                "seconds": round(ran.seconds, 4),
                "reused": ran.reused,
            }
            for ran in built.run.steps
        ],
    }


def _validation(validation: Validation, placed: Placed) -> dict[str, Any]:
    return {
        "target": validation.target,
        "shipped": validation.shipped.engine.encoding,
        "gain": validation.gain,
        "notes": list(validation.notes),
        "candidates": [_candidate(candidate, placed) for candidate in validation.candidates],
    }


def _candidate(candidate: Candidate, placed: Placed) -> dict[str, Any]:
    engine = candidate.engine
    facts: dict[str, Any] = encode(candidate, Path("/"))
    path, digest = deployed_file(engine)
    facts["engine"] = {
        "path": relative(placed.find(path), placed),
        "sha256": digest,
        "backend": engine.backend,
        "encoding": engine.encoding,
        "built": engine.built,
        "reproducible": engine.reproducible,
        "details": dict(engine.details),
    }
    for gate, encoded in zip(candidate.gates, facts["gates"], strict=True):
        encoded["explained"] = explain(gate)
    return facts


def _precision(plan: PrecisionPlan) -> dict[str, Any]:
    return {
        "encoding": plan.encoding,
        "nodes": dict(Counter(node.precision for node in plan.nodes)),
        "not_preferred": [
            {"node": n.node, "op": n.op, "precision": n.precision, "reason": n.reason} for n in plan.nodes if n.reason
        ],
    }


def _packages(packages: Packages, placed: Placed) -> dict[str, Any]:
    folders = {form: relative(placed.find(path), placed) for form, path in packages.folders.items()}
    notes = [note.replace(BUILD_DIR, str(placed.build_dir)) for note in packages.notes]
    notes += [f"{form}: {told}" for form, folder in folders.items() if (told := placed.told.get(folder))]
    return {"target": packages.target, "folders": folders, "notes": notes}


def relative(path: Path, placed: Placed) -> str:
    """Path relative to the build folder, where it lies in it."""
    return path.relative_to(placed.build_dir).as_posix() if path.is_relative_to(placed.build_dir) else str(path)
