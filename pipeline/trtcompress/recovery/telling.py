"""What the stages and the command share: where a training keeps its state, and how it tells of itself."""

from __future__ import annotations

import json
import logging
import shutil
import time
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtcompress_graph.model import Model

from ..codec import identity
from ..digests import digest_of, library_version
from ..files import write_text
from ..stage import Progress
from .progress import line_of

if TYPE_CHECKING:
    from .loop import Told
    from .recover import Recovered

_log = logging.getLogger("trtcompress.stages.recover")

RECORD = "training.json"

LIBS = ("trtcompress", "torch", "lightning-fabric", "onnx-ir")
"""Whose version shapes a training."""

FORGOTTEN = 14 * 86400
"""Seconds after which nobody will go on with a training that was killed."""


def by_lines(name: str, progress: Progress) -> Told:
    """Progress of a stage: a line for each judgement, and the steps."""
    counting = ""

    def told(what: str, done: int, total: int | None) -> None:
        nonlocal counting
        if what != counting:
            _log.info("%s: %s", name, line_of(what, done, total))
        counting = what
        progress(done, total)

    return told


def work_folder(out: Path, *depends: Any) -> Path:
    """Where a stage that is killed finds its work again: beside the store's own folders, by what it depends on.

    Args:
        out: folder that the stage writes to, `STORE/tmp/RANDOM`.
        depends: settings and inputs, which count by their contents.
    """
    versions = {name: library_version(name) for name in LIBS}
    key = digest_of([[identity(value) for value in depends], versions])
    place = out.parent.parent / "training"
    for old in place.glob("*"):
        if time.time() - _touched(old) > FORGOTTEN:
            shutil.rmtree(old, ignore_errors=True)
    return place / key


def _touched(folder: Path) -> float:
    """When anything in a folder was written last; another build may remove it meanwhile."""
    times = [time.time()]
    with suppress(OSError):
        times = [path.stat().st_mtime for path in (folder, *folder.rglob("*"))]
    return max(times)


def write_record(made: Recovered, folder: Path) -> None:
    """What came of a training, as JSON beside the graph; what a user should know is told at once."""
    for note in made.notes:
        _log.info(note)
    own = [field.name for field in fields(made) if field.name not in {held.name for held in fields(Model)}]
    write_text(folder / RECORD, json.dumps({name: getattr(made, name) for name in own}, indent=1) + "\n")
