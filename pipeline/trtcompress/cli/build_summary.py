"""What `trtcompress build` prints at its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..report.table import COLUMNS, rows
from ..report.training import in_words
from .main import say
from .output import print_table

if TYPE_CHECKING:
    from ..api import Built
    from ..remote_join import Joined


def print_summary(built: Built, joined: Joined | None = None) -> None:
    """A table of the engines, what to know of them, and where the build is."""
    facts = json.loads((Path(built.result.build_dir) / "report.json").read_text(encoding="utf-8"))
    if facts["validations"] or facts["pruning"]:
        print_table(COLUMNS, rows(facts), title=f"{facts['name']}: {facts['verdict'].replace('_', ' ')}")
    if facts["pruning"]:
        for note in facts["pruning"]["notes"]:
            say(f"pruned: {note}")
    for training in facts["trainings"]:
        name = " ".join(filter(None, (training["stage"], training["encoding"])))
        for told in filter(None, (in_words(training), *training["notes"])):
            say(f"{name}: {told}")
    for validation in facts["validations"]:
        for note in validation["notes"]:
            say(f"{validation['target']}: {note}")
    brought = joined.brought if joined else {}
    for package in facts["packages"]:
        for note in package["notes"] if package["target"] not in brought else ():
            say(f"{package['target']}: {note}")
    for target, there in brought.items():
        took = "was built before" if there.seconds is None else f"built in {there.seconds:.1f} s"
        say(f"{target}: {took} on {there.host}: {there.plan}")
        if there.unmeasured:
            say(f"{target}: nothing was measured there: {there.unmeasured}")
        run = "run there" if joined and target in joined.measured else "not run here"
        for repository in joined.repositories[target] if joined else ():
            say(f"{target}: packed, {'and ' if run == 'run there' else 'but '}{run}: {repository}")
    for target in sorted(joined.measured if joined else ()):
        for note in facts["devices"][target]["notes"]:
            say(f"{target}: {note}")
    say(f"build: {built.result.build_dir} (report.md tells more)")
