"""A command as a process of its own: how long it takes and how much memory it holds at most."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

TICK = 0.05


@dataclass(frozen=True)
class Ended:
    """A process that came to its end: exit code, wall seconds, peak of resident memory, what it printed."""

    code: int
    seconds: float
    peak_gib: float
    out: str
    err: str

    @property
    def last_words(self) -> str:
        """The last line on stderr that is no hint: there errors say what is wrong."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip() and not line.startswith("hint:")]
        return lines[-1] if lines else f"exit {self.code}"


def run_measured(command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end.

    The peak is the kernel's high-water mark (VmHWM) of each process, summed over the process and its children. It is
    read again and again because `ru_maxrss` of a child also holds what its parent had when it forked.
    """
    peaks: dict[int, int] = {}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        with subprocess.Popen(command, cwd=cwd, env=env, stdout=out, stderr=err, text=True) as process:
            while process.poll() is None:
                _read_peaks(process.pid, peaks)
                time.sleep(TICK)
        seconds = time.perf_counter() - started
        out.seek(0)
        err.seek(0)
        return Ended(process.returncode, seconds, sum(peaks.values()) / 2**20, out.read(), err.read())


def _read_peaks(pid: int, peaks: dict[int, int]) -> None:
    """Kibibytes by process id; a process may end at any moment."""
    with suppress(psutil.NoSuchProcess, OSError):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peaks[process.pid] = max(peaks.get(process.pid, 0), int(line.split()[1]))
