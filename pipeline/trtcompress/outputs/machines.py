"""What `targets` and `doctor` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..config import Settings

if TYPE_CHECKING:
    pass


class TargetInfo(Settings):
    """A device."""

    name: str
    title: str
    how: Literal["cpu", "aot", "local", "kit"]
    aliases: tuple[str, ...]
    compute_capabilities: tuple[str, ...]
    memory_gb: float | None
    dla: int
    int8: bool
    precisions: tuple[str, ...] = Field(description="what may stand behind the colon of a target")
    tensorrt: dict[str, str] = Field(description="version by platform release that carries it")
    installable: dict[str, str] = Field(description="version that can be installed there in its place")


class TargetList(Settings):
    """All devices."""

    targets: tuple[TargetInfo, ...]


class FindingInfo(Settings):
    """One thing that doctor looked at."""

    what: str
    ok: bool
    detail: str
    todo: str


class Diagnosis(Settings):
    """What doctor found."""

    findings: tuple[FindingInfo, ...]
