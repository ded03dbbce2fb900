"""A build that is killed again and again: it has to end as if nobody had touched it.

`kill_campaign` is what the tests call with a few moments and a campaign with hundreds. It runs in a process of its
own, which imports everything once and forks a build whenever one is to be killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from builds import build, project, promised
from trtcompress.assemble import PLACING
from trtcompress.digests import file_digest
from trtcompress.store import ENTRY, Store, is_whole

TARGETS = ("cpu:int8", "rtx-4090:int8")
GIVE_UP = 300.0
"""Seconds after which a build that does not end is one that never will."""


def kill_campaign(moments: int, seed: int, folder: Path) -> dict[str, Any]:
    """Kill builds of a small model with SIGKILL at `moments` random moments and start them again until they are done.

    Returns:
        `half_written`: files that stood under a final name without being whole, after any kill.
        `made_again`: finished entries of the store that a later start did not take as they were.
        `different`: files that are not those of a build that was left in peace.
        `left_behind`: what is there after the build and belongs to nobody.
        `failed`: starts that ended with an error.
        `entries_at_kill`: for each kill how many stages had finished.
        `while_placing`: kills while the build folder was being written.
        `builds`, `starts`, `seconds`: how much was done.
    """
    command = [sys.executable, str(Path(__file__).resolve()), str(moments), str(seed), str(folder)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@dataclass
class Campaign:
    """What was seen so far."""

    moments: int
    chance: random.Random
    folder: Path
    config: Path
    expected: Mapping[str, str] = field(default_factory=dict)
    length: float = 0.0
    stages: int = 0
    seen: dict[str, list[str]] = field(
        default_factory=lambda: {n: [] for n in ("half_written", "made_again", "different", "left_behind", "failed")}
    )
    entries_at_kill: list[int] = field(default_factory=list)
    while_placing: int = 0
    builds: int = 0
    starts: int = 0

    def run(self) -> None:
        """The build that is left in peace, then builds until there were enough kills."""
        started = time.perf_counter()
        self._wait(self._start(self.folder / "peace"), GIVE_UP)
        self.length = time.perf_counter() - started
        self.expected = promised(self.folder / "peace/out/small")
        self.stages = _finished(self.folder / "peace")
        while len(self.entries_at_kill) < self.moments:
            self._one_build(self.folder / str(self.builds))
            self.builds += 1

    def _one_build(self, folder: Path) -> None:
        finished: dict[str, str] = {}
        share = 1.0
        while self._killed(self._start(folder), folder, share):
            share = 0.4  # a build that goes on is shorter
            self._inspect(folder, finished)
        self._inspect(folder, finished)
        got = promised(folder / "out/small")
        names = sorted(name for name in got.keys() | self.expected.keys() if got.get(name) != self.expected.get(name))
        self.seen["different"] += [f"{folder.name}: {name}" for name in names]
        Store(folder / "store")  # sweeps
        left = [*folder.glob("store/tmp/*"), *(p for p in (folder / "out").rglob(".*") if p.is_file())]
        self.seen["left_behind"] += [str(path.relative_to(self.folder)) for path in left]

    def _start(self, folder: Path) -> int:
        """Fork a build; nothing in this process runs threads."""
        self.starts += 1
        child = os.fork()
        if child:
            return child
        try:
            os.setsid()
            build(self.config, folder)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)

    def _killed(self, child: int, folder: Path, share: float) -> bool:
        """Kill the build at a random moment; False where it was done before, or is to be left in peace by now."""
        if len(self.entries_at_kill) >= self.moments:
            return self._wait(child, GIVE_UP)
        if self.chance.random() < 0.5:  # most stages are short: hit them on purpose
            self._wait_for(child, folder, self.chance.randint(_finished(folder), self.stages))
            moment = self.chance.uniform(0, 0.05)
        else:
            moment = self.chance.uniform(0, share * self.length)
        if not self._wait(child, moment):
            return False
        placing = (folder / "out/small" / PLACING).exists()
        # The whole group, as a terminal or a container goes; or the one process, as the kernel takes it for its memory
        (os.killpg if self.chance.random() < 0.5 else os.kill)(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.entries_at_kill.append(_finished(folder))
        self.while_placing += placing
        return True

    def _wait(self, child: int, seconds: float) -> bool:
        """Whether the build is still running after that time."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            if self._ended(child):
                return False
            time.sleep(0.001)
        return True

    def _wait_for(self, child: int, folder: Path, stages: int) -> None:
        """Wait until so many stages have finished; with all of them, until the build folder is being written."""
        note = folder / "out/small" / PLACING
        end = time.perf_counter() + GIVE_UP
        while time.perf_counter() < end:
            if note.exists() if stages == self.stages else _finished(folder) >= stages:
                return
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            time.sleep(0.002)

    def _ended(self, child: int) -> bool:
        done, status = os.waitpid(child, os.WNOHANG)
        if done and status:
            self.seen["failed"].append(f"status {status}")
        return done != 0

    def _inspect(self, folder: Path, finished: dict[str, str]) -> None:
        """Look at everything that stands under a final name."""
        known = set()
        for entry in folder.glob("store/objects/*/*"):
            if not is_whole(entry, trust_times=False):
                self._report("half_written", entry)
                continue
            note = (entry / ENTRY).read_text(encoding="utf-8")
            known |= {state["sha256"] for state in json.loads(note)["files"].values()}
            if finished.setdefault(entry.name, note) != note:
                self._report("made_again", entry)
        for path in (folder / "out").rglob("*"):
            if path.is_file() and not path.name.startswith(".") and not _whole(path, known):
                self._report("half_written", path)

    def _report(self, what: str, path: Path) -> None:
        self.seen[what].append(str(path.relative_to(self.folder)))


def _finished(folder: Path) -> int:
    return len(list(folder.glob(f"store/objects/*/*/{ENTRY}")))


def _whole(path: Path, known: set[str]) -> bool:
    """A file of a build is one of the store's; reports are read."""
    if file_digest(path) in known:
        return True
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        if path.suffix == ".json":
            json.loads(text)
        elif path.suffix == ".xml":
            ElementTree.fromstring(text)
        else:
            return path.suffix == ".md" and text.endswith("\n")
    except (ValueError, ElementTree.ParseError):
        return False
    return True


def _import_all() -> None:
    """So that a fork does not spend its life on imports, where there is nothing to lose."""
    import numba
    import onnx_ir
    import onnxruntime
    import onnxscript
    import polygraphy

    import trtcompress.stages

    assert all((numba, onnx_ir, onnxruntime, onnxscript, polygraphy, trtcompress.stages))


def main(moments: int, seed: int, folder: Path) -> None:
    """Run a campaign and print what was seen as JSON."""
    started = time.perf_counter()
    _import_all()
    campaign = Campaign(moments, random.Random(seed), folder, project(folder / "project", TARGETS))
    campaign.run()
    found = {
        "moments": len(campaign.entries_at_kill),
        "seed": seed,
        **campaign.seen,
        "entries_at_kill": campaign.entries_at_kill,
        "while_placing": campaign.while_placing,
        "builds": campaign.builds,
        "starts": campaign.starts,
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
