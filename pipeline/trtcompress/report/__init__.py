"""Files that tell people and machines what a build came to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..assemble import MANIFEST, Placed
from ..config import Loaded
from ..files import write_text
from ..store import store_errors
from .junit import junit_xml
from .manifest import manifest
from .record import record

if TYPE_CHECKING:
    from ..api import Built

REPORT = "report.json"


def write_reports(built: Built, loaded: Loaded, placed: Placed) -> None:
    """Write report.json, report.md, junit.xml and manifest.json; then kits.json, where there are kits.

    A build that found all its work done, and the reports with it, leaves them: they tell of the build that worked.

    Raises:
        StoreError: the build folder cannot be written.
    """
    from ..kit_digests import note_kits
    from ..kit_packing import FORMAT

    folder = placed.build_dir
    with store_errors(folder):
        facts = record(built, placed)
        if not all(ran.reused for ran in built.run.steps) or not _there(folder, facts):
            from .markdown import markdown

            write_text(folder / "report.md", markdown(facts))
            write_text(folder / "junit.xml", junit_xml(facts))
            write_text(folder / REPORT, json.dumps(facts, indent=1) + "\n")
        write_text(folder / MANIFEST, json.dumps(manifest(built, loaded, placed), indent=1) + "\n")
    note_kits(folder, FORMAT)


def _there(folder: Path, facts: dict[str, Any]) -> bool:
    """Whether the reports say these facts already, the times of the stages aside."""
    try:
        kept = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    same: bool = {**kept, "stages": None} == json.loads(json.dumps({**facts, "stages": None}))
    return same and all((folder / name).is_file() for name in ("report.md", "junit.xml"))
