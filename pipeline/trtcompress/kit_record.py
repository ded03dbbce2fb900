"""What the record of a build says of the engine that is shipped, after a device measured it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .as_built import graph_of
from .digests import file_digest
from .kit_results import KitResults
from .packaging import BROUGHT


def with_plans(build_dir: Path, validation: Mapping[str, Any], results: KitResults) -> None:
    """Name the plans that were measured, where they lie beside their graphs.

    Args:
        build_dir: of the build.
        validation: of the target in the record, which is changed.
        results: of the device.
    """
    measured = {engine.encoding: engine.sha256 for engine in results.engines}
    for candidate in validation["candidates"]:
        engine = candidate["engine"]
        plan = build_dir / "engines" / validation["target"] / engine["encoding"] / BROUGHT
        if engine["encoding"] in measured and plan.is_file() and file_digest(plan) == measured[engine["encoding"]]:
            own = {"path": plan.relative_to(build_dir).as_posix(), "sha256": measured[engine["encoding"]]}
            candidate["engine"] = {**engine, "graph_sha256": graph_of(candidate), **own}


def retarget(facts: dict[str, Any], validation: Mapping[str, Any]) -> None:
    """Bring what `build --json` prints of the target, and the verdict, up to date.

    Args:
        facts: the record of the build, which is changed.
        validation: of the target in it.
    """
    shipped = next(c for c in validation["candidates"] if c["engine"]["encoding"] == validation["shipped"])
    speed = shipped["speeds"][shipped["headline"]] if shipped["speeds"] else None
    target = next(t for t in facts["targets"] if t["target"] == validation["target"])
    target |= {
        "engine": str(Path(facts["build_dir"], shipped["engine"]["path"])),
        "sha256": shipped["engine"]["sha256"],
        "size_bytes": shipped["size_bytes"],
        "latency_ms": {name: speed["engine"][name] for name in ("p50", "p90", "p99")} if speed else None,
        "speedup": speed["speedup"] if speed else None,
        "metrics": {m["name"]: {key: m[key] for key in ("reference", "value", "ci")} for m in shipped["metrics"]},
        "gates": [{key: gate[key] for key in ("gate", "limit", "value", "verdict")} for gate in shipped["gates"]],
    }
    chosen = [
        candidate["verdict"]
        for one in facts["validations"]
        for candidate in one["candidates"]
        if candidate["engine"]["encoding"] == one["shipped"]
    ]
    facts["verdict"] = "fail" if "fail" in chosen else "pass" if set(chosen) == {"pass"} else "not_measured"
