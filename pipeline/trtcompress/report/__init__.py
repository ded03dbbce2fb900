"""Files that tell people and machines what a build came to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..assemble import MANIFEST, Placed
from ..config import Loaded
from ..files import write_text
from ..store import store_errors
from .junit import junit_xml
from .manifest import manifest
from .markdown import markdown
from .record import record

if TYPE_CHECKING:
    from ..api import Built


def write_reports(built: Built, loaded: Loaded, placed: Placed) -> None:
    """Write report.json, report.md, junit.xml and, last, manifest.json.

    Raises:
        StoreError: the build folder cannot be written.
    """
    folder = placed.build_dir
    with store_errors(folder):
        facts = record(built, placed)
        write_text(folder / "report.json", json.dumps(facts, indent=1) + "\n")
        write_text(folder / "report.md", markdown(facts))
        write_text(folder / "junit.xml", junit_xml(facts))
        write_text(folder / MANIFEST, json.dumps(manifest(built, loaded, placed), indent=1) + "\n")
