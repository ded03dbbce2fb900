"""Generated examples are the same in each run; with pytest-xdist each process has cores and a folder of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("seeded", derandomize=True)
settings.register_profile("random")
settings.load_profile("seeded")  # `benchmarks/campaign.py` asks for others

FOLDER = pytest.StashKey[str]()
LONGEST = (
    "ray_build",
    "examples",
    "recover",
    "determinism",
    "processes",
    "triton_tune",
    "triton_switch",
    "serve",
    "resume",
)
"""Files whose few tests take minutes: they begin first, so that no process waits for the last of them."""


def pytest_configure(config: Any) -> None:
    worker = getattr(config, "workerinput", None)
    if worker is None:
        return
    os.environ["TMPDIR"] = tempfile.tempdir = config.stash[FOLDER] = tempfile.mkdtemp(prefix="tests-")
    if hasattr(os, "sched_setaffinity"):  # what is timed has a core to itself, and no thread waits for another
        cores, place, count = sorted(os.sched_getaffinity(0)), int(worker["workerid"][2:]), worker["workercount"]
        os.sched_setaffinity(0, cores[place::count] or cores)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_unconfigure(config: Any) -> None:
    if FOLDER in config.stash:
        shutil.rmtree(config.stash[FOLDER], ignore_errors=True)
