"""What a device measured, joined into the report of the build: gates are applied, and an engine is chosen by it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trtcompress_engines.gates import EMULATED, GateLimits, explain, judge, verdict
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.errors import DataError, MissingPathError, UsageError
from trtcompress_graph.measured import Gate, MetricResult
from trtcompress_graph.target import Target

from .as_built import EMULATION, candidate_as_built, graph_of
from .asked import known_targets
from .assemble import MANIFEST, only_writer
from .codec import encode
from .config import BuildConfig
from .kit_build import asked_release
from .kit_choice import choose_measured, gate_of
from .kit_digests import KITS, check_kit, is_noted
from .kit_record import retarget, with_plans
from .kit_report import write_again
from .kit_results import KitEngine, KitResults, metric_result, read_results
from .kit_scores import KeptOutputs, missing
from .outcome import BuildResult
from .packed_again import pack_stale, tell_stale
from .remote_record import is_asked
from .report import REPORT

_NO_JETSON = ("x86_64", "i686", "AMD64")
"""Processors, as Python names them."""


def import_results(
    build_dir: Path, path: Path, base: Path | None = None, gpu: str = ""
) -> tuple[BuildResult, tuple[str, ...]]:
    """Join results.json into the reports of a build, and ship the engine that is best by them.

    report.json, report.md and junit.xml are written anew. Model repositories of the target in the build folder follow
    where the plan of that engine is here; else a note says what to type.

    Args:
        build_dir: that the kit was made of.
        path: of results.json; outputs that the device kept lie beside it.
        base: folder that relative paths of the config start from; the current one where None.
        gpu: card that the engines ran on, if that is known; a server's own name is that of its processor.

    Returns:
        The result of the build as it stands then, and what is to be known of what the device measured.

    Raises:
        MissingPathError: there is no such file, or this is no build folder.
        UsageError: the build has no such target.
        DataError: the results are damaged, of another build or a kit of another, or not measured on the device.
        StoreError: the build folder cannot be written.
    """
    _build(build_dir)  # before a lock is taken on what is none
    results = read_results(path)
    if gpu:
        results = results.model_copy(update={"device": results.device.model_copy(update={"model": gpu})})
    target = results.kit.target
    with only_writer(build_dir):
        facts, config = _build(build_dir)
        check_kit(build_dir, target, results.kit.digest, str(path))
        device = resolve_target(target, known_targets(config))
        scores = KeptOutputs(build_dir, config, device, path.parent, base)
        before = next((one["shipped"] for one in facts["validations"] if one["target"] == target), "")
        validation = join(facts, results, GateLimits(**config.gates.model_dump()), str(path), scores)
        facts["devices"][target]["notes"] += _doubts(results, device, asked_release(config, device))
        if not is_noted(build_dir, results.kit.digest):
            told = (
                f"the kit of these results is none that this build folder has noted ({KITS}): its graphs are the same"
            )
            facts["devices"][target]["notes"].append(told)
        with_plans(build_dir, validation, results)
        retarget(facts, validation)
        stale = tell_stale(build_dir, facts, target, config)
        write_again(build_dir, facts)
        if stale:
            pack_stale(build_dir, facts, target, stale, config.name, base)
            write_again(build_dir, facts)
    notes = [validation["choice"]["told"], *facts["devices"][target]["notes"], *_of_packages(facts, target)]
    if before != validation["shipped"]:
        again = f"trtcompress package {build_dir} --target {target} -o REPOSITORY"
        notes.append(
            f"{validation['shipped']} is shipped in place of {before}; pack again what was packed elsewhere: {again}"
        )
    return BuildResult.model_validate({name: facts[name] for name in BuildResult.model_fields}), tuple(notes)


def _of_packages(facts: Mapping[str, Any], target: str) -> list[str]:
    return [note for package in facts["packages"] if package["target"] == target for note in package["notes"]]


def join(
    facts: dict[str, Any], results: KitResults, limits: GateLimits, where: str, scores: KeptOutputs | None = None
) -> dict[str, Any]:
    """Put results into the record of a build, and choose the engine that is shipped.

    Args:
        facts: the record.
        results: of the device.
        limits: of the gates.
        where: the results were read.
        scores: computes the metrics that the device did not, of the outputs that it kept.

    Returns:
        The validation of the target in the record.

    Raises:
        UsageError: the build has no such target.
        DataError: an engine was built of another graph, or has other outputs.
    """
    target = results.kit.target
    validation: dict[str, Any] | None = next((v for v in facts["validations"] if v["target"] == target), None)
    if validation is None:
        there = ", ".join(v["target"] for v in facts["validations"])
        raise UsageError(f"the build has no target '{target}'", where=where, hint=f"it has: {there}")
    measured = {engine.encoding: engine for engine in results.engines}
    validation["candidates"] = [candidate_as_built(candidate) for candidate in validation["candidates"]]
    candidates = [c for c in validation["candidates"] if c["engine"]["encoding"] in measured]
    for candidate in candidates:
        if measured[candidate["engine"]["encoding"]].graph_sha256 != graph_of(candidate):
            what = f"these results are of another build: its graph '{candidate['engine']['encoding']}' differs"
            raise DataError(what, where=where, hint="make the kit of this build: trtcompress package --format jetson")
    if not candidates:
        raise DataError("none of the engines of the build was measured", where=where, hint="./build on the device")
    for candidate in candidates:
        _check_outputs(candidate, measured[candidate["engine"]["encoding"]], where)
    for candidate in candidates:
        engine = measured[candidate["engine"]["encoding"]]
        later = scores.score(engine, missing(engine, candidate["metrics"])) if scores else ()
        _measure(candidate, engine, results, limits, later)
    facts.setdefault("devices", {})[target] = {
        **results.model_dump(mode="json", exclude={"engines"}),
        "engines": [encode(engine, Path("/")) for engine in results.engines],
        "notes": [*_notes(validation, measured), *(scores.notes if scores else ())],
    }
    choose_measured(facts, validation, results)
    return validation


def _check_outputs(candidate: Mapping[str, Any], engine: KitEngine, where: str) -> None:
    """What was compared on the device are the outputs that were compared here, where any were."""
    here, there = ({parity["output"] for parity in candidate["parity"]}, {parity.output for parity in engine.parity})
    if here and here != there:
        what = f"{engine.encoding}: these results are of the outputs {', '.join(sorted(there)) or 'none'}"
        hint = f"the build has {', '.join(sorted(here))}: import what ./validate of its kit wrote"
        raise DataError(what, where=where, hint=hint)


def _measure(
    candidate: dict[str, Any],
    engine: KitEngine,
    results: KitResults,
    limits: GateLimits,
    later: tuple[MetricResult, ...],
) -> None:
    """Replace what was emulated of an engine by what was measured; the gates on the emulation stay."""
    kept = dict(candidate)
    doubts = {metric["name"]: metric["doubt"] for metric in kept["metrics"]}
    metrics = (*(metric_result(metric, doubts.get(metric.name, "")) for metric in engine.metrics), *later)
    asked: tuple[Gate, ...] = tuple(gate_of(gate) for gate in kept["gates"])
    to_pruned = None if kept["to_pruned"] is None else engine.to_pruned or ()
    found = judge(
        limits,
        parity=engine.parity,
        metrics=metrics,
        speeds=engine.speeds,
        size_bytes=engine.size_bytes,
        emulated=False,
        measured=True,
        to_pruned=to_pruned,
    )
    gates = (*_all_asked(asked, found), *(gate for gate in asked if gate.gate.endswith(EMULATED)))
    batches = [speed.engine.batch for speed in engine.speeds]
    where = f"{results.device.model}, TensorRT {results.device.tensorrt}; plan of SHA-256 {engine.sha256}"
    details = {key: value for key, value in kept["engine"]["details"].items() if key != "not_measured"}
    built = {"built": True, "details": {**details, "built_on": where}}
    candidate |= {
        EMULATION: kept,
        "engine": {**kept["engine"], **built},
        "emulated": False,
        "size_bytes": engine.size_bytes,
        "parity": encode(engine.parity, Path("/")),
        "metrics": encode(metrics, Path("/")),
        "to_pruned": encode(to_pruned, Path("/")),
        "speeds": encode(engine.speeds, Path("/")),
        "headline": batches.index(results.usual_batch) if results.usual_batch in batches else 0,
        "gates": [{**encode(gate, Path("/")), "explained": explain(gate)} for gate in gates],
        "verdict": verdict(gates),
    }


def _all_asked(asked: tuple[Gate, ...], found: tuple[Gate, ...]) -> tuple[Gate, ...]:
    """What was judged, and each gate of the build that the device could not judge, not measured.

    A metric of the user's own is such a one: without it there would be no gate on it at all.
    """
    names = [gate.gate for gate in found]
    missing = [
        replace(gate, value=None, verdict="not_measured", note="")
        for gate in asked
        if not gate.gate.endswith(EMULATED) and not _among(gate.gate, names)
    ]
    names += [gate.gate for gate in missing]
    return tuple(g for g in (*found, *missing) if g.value is not None or not _has_own(g.gate, names))


def _among(name: str, names: Sequence[str]) -> bool:
    return name in names or _has_own(name, names)


def _has_own(name: str, names: Sequence[str]) -> bool:
    """Whether a gate has become one for each batch size, or one for each metric."""
    return any(other.startswith(f"{name}:") for other in names)


def _notes(validation: Mapping[str, Any], measured: Mapping[str, KitEngine]) -> list[str]:
    """Engines of the build that the device did not measure."""
    names = [candidate["engine"]["encoding"] for candidate in validation["candidates"]]
    return [f"{name} was not measured: it was not built there" for name in names if name not in measured]


def _doubts(results: KitResults, device: Target, asked: str) -> list[str]:
    """Whether they are of another device or release than the build is for.

    A Jetson tells its board or, where that cannot be seen, an ARM processor; what was tried elsewhere does not.
    """
    model, version, found = results.device.model, results.device.tensorrt, []
    if device.how == "kit" and model in _NO_JETSON:
        found.append(f"these results name {model}, which is no {device.name}: were they measured on the device?")
    if not is_asked(asked, version):
        found.append(f"these results are of TensorRT {version or 'of no known version'}, and {asked} was asked for")
    return found


def _build(build_dir: Path) -> tuple[dict[str, Any], BuildConfig]:
    try:
        facts: dict[str, Any] = json.loads((build_dir / REPORT).read_text(encoding="utf-8"))
        manifest = json.loads((build_dir / MANIFEST).read_text(encoding="utf-8"))
        return facts, BuildConfig.model_validate(manifest["config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingPathError(
            "this is not a whole build folder: report.json or manifest.json is missing or damaged",
            where=str(build_dir),
            hint="build it again: trtcompress build CONFIG.yaml",
        ) from error
