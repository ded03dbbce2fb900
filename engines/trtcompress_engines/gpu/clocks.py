"""Clocks of a GPU, as nvidia-smi tells them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from trtcompress_graph.measured import GpuClocks

_CLOCKS = ("clocks.sm", "clocks.mem")
_HELD = "applications_clocks_setting"
_REASONS = ("clocks_event_reasons", "clocks_throttle_reasons")
"""What drivers from 535 on call it, and what older ones do."""

_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Reading:
    """Clocks at one moment in MHz; None where nvidia-smi does not tell.

    Attributes:
        held: whether a setting limits the clocks. nvidia-smi has no field that tells of `--lock-gpu-clocks` itself.
    """

    sm: int | None = None
    memory: int | None = None
    held: bool | None = None


def read_clocks(gpu: str) -> Reading:
    """Clocks of the GPU now.

    Args:
        gpu: its PCI bus id, or what else `nvidia-smi --id` takes.
    """
    sm, memory = _query(gpu, _CLOCKS) or ("", "")
    for reasons in _REASONS:
        if answer := _query(gpu, (f"{reasons}.{_HELD}",)):
            held = {"Active": True, "Not Active": False}.get(answer[0])
            return Reading(_number(sm), _number(memory), held)
    return Reading(_number(sm), _number(memory))


def between(before: Reading, after: Reading) -> GpuClocks:
    """Both as one value; they count as locked only where they were so all the time."""
    known = before.held is not None and after.held is not None
    return GpuClocks(
        sm=_pair(before.sm, after.sm),
        memory=_pair(before.memory, after.memory),
        locked=bool(before.held and after.held) if known else None,
    )


def _query(gpu: str, fields: tuple[str, ...]) -> tuple[str, ...]:
    """Values of the fields; nothing where nvidia-smi is missing or does not know one of them."""
    command = ["nvidia-smi", f"--id={gpu}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    values = tuple(value.strip() for value in done.stdout.split(","))
    return values if done.returncode == 0 and len(values) == len(fields) else ()


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _pair(before: int | None, after: int | None) -> tuple[int, int] | None:
    return None if before is None or after is None else (before, after)
