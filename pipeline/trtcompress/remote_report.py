"""The reports of a build whose plans were built on another machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .as_built import graph_of
from .digests import file_digest
from .kit_report import write_again
from .outcome import BuildResult
from .packed_again import Folders, pack_shipped
from .remote_build import Brought
from .report import REPORT


def tell_in_report(build_dir: Path, target: str, plans: Mapping[str, Brought]) -> None:
    """Say in the reports where the engines of a target were built, with what, and whether they were measured there.

    Args:
        build_dir: of a finished build, with what was measured in its reports already.
        target: whose engines they are.
        plans: by the names of the encodings.

    Raises:
        StoreError: the build folder cannot be written.
    """
    facts = json.loads((build_dir / REPORT).read_text(encoding="utf-8"))
    validation = next(one for one in facts["validations"] if one["target"] == target)
    for candidate in validation["candidates"]:
        if (plan := plans.get(candidate["engine"]["encoding"])) is not None:
            _tell_of_plan(candidate, plan, build_dir)
    if (shipped := plans.get(validation["shipped"])) is not None:
        result = next(one for one in facts["targets"] if one["target"] == target)
        size, digest = shipped.plan.stat().st_size, file_digest(shipped.plan)
        result |= {"engine": str(shipped.plan), "sha256": digest, "size_bytes": size}
    write_again(build_dir, facts)


def pack_and_tell(
    build_dir: Path, target: str, folders: Folders, plan: Path, name: str, base: Path | None
) -> list[str]:
    """Let repositories serve the shipped engine of a target, and say in the reports where it is packed.

    Args:
        build_dir: of a finished build.
        target: whose engine it is.
        folders: the repositories.
        plan: of the engine.
        name: under which clients ask for the model.
        base: folder that relative paths of the config start from.

    Returns:
        What is to be known of how it was put there.

    Raises:
        TrtCompressError: it cannot be packed, or the build folder cannot be written.
    """
    facts = json.loads((build_dir / REPORT).read_text(encoding="utf-8"))
    entry = next((package for package in facts["packages"] if package["target"] == target), None)
    if entry is None or not folders:
        return []
    said = pack_shipped(build_dir, entry, folders, plan, name, base)
    write_again(build_dir, facts)
    return said


def result_of(build_dir: Path) -> BuildResult:
    """What the build came to, as its report tells it now."""
    facts = json.loads((build_dir / REPORT).read_text(encoding="utf-8"))
    return BuildResult.model_validate({name: facts[name] for name in BuildResult.model_fields})


def _tell_of_plan(candidate: dict[str, Any], brought: Brought, build_dir: Path) -> None:
    kept = {key: value for key, value in candidate["engine"]["details"].items() if key != "how_to_build"}
    told = {"built_on": f"{brought.where}; it was {'not run here' if brought.unmeasured else 'measured there'}"}
    if brought.unmeasured:
        told["not_measured"] = brought.unmeasured
    path, digest = brought.plan.relative_to(build_dir).as_posix(), file_digest(brought.plan)
    graph = {"graph_sha256": graph_of(candidate)}
    engine = {**candidate["engine"], **graph, "path": path, "sha256": digest, "built": True, "reproducible": False}
    candidate |= {"engine": {**engine, "details": {**kept, **told}}, "size_bytes": brought.plan.stat().st_size}
