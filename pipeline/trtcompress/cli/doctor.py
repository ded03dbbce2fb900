"""`trtcompress doctor`."""

from __future__ import annotations

import click

from . import options


@click.command(name="doctor")
@options.as_json
def command(as_json: bool) -> None:
    """Say what can be built here, what is missing, and what to type."""
    from trtcompress_engines.doctor import diagnose

    from ..outputs import Diagnosis, FindingInfo
    from .output import print_json, print_table

    findings = diagnose()
    if as_json:
        infos = (FindingInfo(what=f.what, ok=f.ok, detail=f.detail, todo=f.todo) for f in findings)
        print_json(Diagnosis(findings=tuple(infos)))
        return
    print_table(("", "what", "found", "to do"), [("ok" if f.ok else "-", f.what, f.detail, f.todo) for f in findings])
