"""What `build --dry-run` and `cache` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..config import Settings

if TYPE_CHECKING:
    pass


StepState = Literal["reuse", "run", "unknown"]
"""Unknown: what comes before it has to run; where that turns out as it was, the step is reused."""


class DryStep(Settings):
    """One step of a build."""

    step: str
    state: StepState


class DryRun(Settings):
    """What `build --dry-run` would do."""

    name: str
    steps: tuple[DryStep, ...]


class CacheEntry(Settings):
    """One artifact."""

    key: str
    stage: str
    size_bytes: int
    used: float = Field(description="seconds since 1970")


class CacheEntries(Settings):
    """Entries listed, removed or damaged."""

    store: str
    entries: tuple[CacheEntry, ...]
