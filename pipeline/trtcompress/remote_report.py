"""report.json and report.md of a build whose plans were built on another machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .config import PackageFormat
from .digests import file_digest
from .files import write_text
from .kit_report import with_devices
from .remote_build import Brought
from .report import REPORT
from .store import store_errors


def tell_in_report(build_dir: Path, target: str, brought: Brought, folders: Mapping[PackageFormat, Path]) -> None:
    """Say in the reports where the shipped engine of a target was built, with what, and where it is packed.

    What was measured of its graph stays: the plan did not run here.

    Args:
        build_dir: of a finished build.
        target: whose engine it is.
        brought: the plan.
        folders: repositories that serve it.

    Raises:
        StoreError: the build folder cannot be written.
    """
    facts = json.loads((build_dir / REPORT).read_text(encoding="utf-8"))
    size, digest = brought.plan.stat().st_size, file_digest(brought.plan)
    path = brought.plan.relative_to(build_dir).as_posix()
    candidate = _shipped(facts, target)
    kept = {key: value for key, value in candidate["engine"]["details"].items() if key != "how_to_build"}
    details = {**kept, "built_on": f"{brought.where}; it was not run here"}
    engine = {**candidate["engine"], "path": path, "sha256": digest, "built": True, "reproducible": False}
    candidate |= {"engine": {**engine, "details": details}, "size_bytes": size}
    result = next(one for one in facts["targets"] if one["target"] == target)
    result |= {"engine": str(brought.plan), "sha256": digest, "size_bytes": size}
    for package in facts["packages"]:
        if package["target"] == target:
            package["folders"] |= {form: folder.relative_to(build_dir).as_posix() for form, folder in folders.items()}
            package["notes"] = [note for note in package["notes"] if note.partition(":")[0] not in folders]
    with store_errors(build_dir):
        write_text(build_dir / "report.md", with_devices(facts))
        write_text(build_dir / REPORT, json.dumps(facts, indent=1) + "\n")


def _shipped(facts: Mapping[str, Any], target: str) -> dict[str, Any]:
    validation = next(one for one in facts["validations"] if one["target"] == target)
    found: dict[str, Any] = next(
        one for one in validation["candidates"] if one["engine"]["encoding"] == validation["shipped"]
    )
    return found
