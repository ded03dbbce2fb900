"""Ctrl-C while the program's modules are still loaded: exit 130, words and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import start

INTERRUPTING = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""
"""Python imports sitecustomize before the program; this one sends the signal where a module is looked for."""


@pytest.mark.parametrize(
    "module", ["trtcompress.cli.main", "click", "trtcompress_graph.errors", "trtcompress.cli.cache"]
)
def test_while_it_is_loaded(tmp_path: Path, module: str):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    process = start("cache", "ls", "--store", tmp_path, env={"PYTHONPATH": str(tmp_path), "INTERRUPT_AT": module})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "interrupted: nothing half-written is left"
