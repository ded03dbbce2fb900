"""What a build itself found, under what devices measured: each import starts from there, whatever came before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

EMULATION = "emulation"
"""Key of a candidate in report.json that keeps it as the build left it."""

AS_BUILT = "as_built"
"""Key of a validation in report.json with what the build shipped, and its notes."""


def candidate_as_built(candidate: dict[str, Any]) -> dict[str, Any]:
    """A candidate without what a device measured."""
    kept: dict[str, Any] = candidate.get(EMULATION, candidate)
    return kept


def shipped_as_built(validation: Mapping[str, Any]) -> str:
    """The encoding that the build shipped for a target."""
    return str(validation.get(AS_BUILT, validation)["shipped"])


def graph_of(candidate: Mapping[str, Any]) -> str:
    """Digest of the graph of an engine of TensorRT; its own is that of the graph until a plan of it is brought."""
    engine = candidate["engine"]
    return str(engine.get("graph_sha256", engine["sha256"]))
