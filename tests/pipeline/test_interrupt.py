"""Ctrl-C: exit 130, words, nothing left half-done, and the same command goes on from there."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest

from command_line import Ran, program, start
from small_builds import QUICK, Small, small_classifier, tree

INTERRUPTED = 130
WAIT = 120

SLOW_DATA = """
import os, time
import numpy as np

def some():
    rng = np.random.default_rng(0)
    for index in range(12):
        yield {"x": rng.normal(size=(2, 3, 16, 16)).astype(np.float32)}
        if os.environ.get("SLOW"):
            open(os.environ["SLOW"], "w").close()
            time.sleep(1)
"""

SLOW_NETWORK = """
import os, time
import torch


class Net(torch.nn.Module):
    def forward(self, x):
        if torch.compiler.is_exporting():
            open(os.environ["SLOW"], "w").close()
            time.sleep(60)
        return x + 1


def model():
    return Net().eval(), {"x": torch.zeros(2, 3)}
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    made = small_classifier(tmp_path_factory.mktemp("small"))
    (made.folder / "slow_samples.py").write_text(SLOW_DATA)
    return made


def interrupted(
    reached: Callable[[psutil.Process], bool],
    *args: object,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    group: bool = False,
) -> Ran:
    """Start a command, send it SIGINT once it is so far, and wait for its end; processes that it started end too.

    A terminal sends the signal to the whole group; `kill -INT` and a CI runner to the program alone.
    """
    process = start(*args, cwd=cwd, env=env)
    told = psutil.Process(process.pid)
    end = time.monotonic() + WAIT
    while not reached(told):
        assert process.poll() is None, f"it ended before: {process.communicate()}"
        assert time.monotonic() < end, "it did not come so far"
        time.sleep(0.005)
    workers = told.children(recursive=True)
    if group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    out, err = process.communicate(timeout=WAIT)
    assert time.monotonic() - sent < 15, "it ends soon"
    assert not psutil.wait_procs(workers, timeout=10)[1], "nothing goes on in the background"
    ran = Ran(process.returncode, out, err)
    assert ran.code == INTERRUPTED, ran.err
    assert "interrupted: nothing half-written is left" in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
    return ran


def compiling(process: psutil.Process) -> bool:
    """TensorRT for RTX works, in a process of its own."""
    try:
        return any("trt_worker" in " ".join(child.cmdline()) for child in process.children(recursive=True))
    except psutil.NoSuchProcess:
        return False


def temporary() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("trtcompress-*"))


def build(small: Small, folder: Path, *more: object) -> list[object]:
    gates = ("--set", "gates={max_metric_drop: 1, min_cosine: 0.9}")
    return ["build", small.model, "--out", folder / "out", "--store", folder / "store", *QUICK, *gates, *more]


def finished(err: str) -> dict[str, str]:
    """What the program says of each step: how long it took, or that it was reused."""
    return {m[1].strip(): m[2] for m in re.finditer(r"^\[ *\d+/\d+\] (.{34}) (.+)$", err, re.M)}


def nothing_half_done(folder: Path) -> None:
    assert not any((folder / "store").glob("tmp/*"))
    assert tree(folder / "out") == {}
    assert program("cache", "verify", "--store", folder / "store").code == 0


@pytest.mark.parametrize("store", [(), ("--no-cache",)], ids=["store", "no cache"])
def test_a_build_in_the_middle_of_export(tmp_path, store):
    """Torch's own messages are silenced then, and this program's must not be."""
    (tmp_path / "slow_network.py").write_text(SLOW_NETWORK)
    np.savez(tmp_path / "samples.npz", x=np.ones((2, 3), np.float32))
    config, marker = tmp_path / "build.yaml", tmp_path / "exporting"
    config.write_text(
        "{name: net, model: 'slow_network:model', data: {calibration: {source: samples.npz}}, targets: [cpu]}"
    )
    command = ["build", config, "--out", tmp_path / "out", "--store", tmp_path / "store", *store]
    ran = interrupted(lambda _: marker.exists(), *command, cwd=tmp_path, env={"SLOW": str(marker)})
    assert finished(ran.err) == {}
    nothing_half_done(tmp_path)


def test_a_build_in_the_middle_of_calibrate(small, tmp_path):
    marker = tmp_path / "reading"
    command = build(small, tmp_path, "--data", "slow_samples:some")
    ran = interrupted(lambda _: marker.exists(), *command, cwd=small.folder, env={"SLOW": str(marker)})
    assert finished(ran.err).keys() == {"export", "simplify"}
    nothing_half_done(tmp_path)
    again = program(*command, cwd=small.folder)
    assert again.code == 0, again.err
    steps = finished(again.err)
    assert (steps["export"], steps["simplify"], "reused" in steps["calibrate"]) == ("reused", "reused", False)


@pytest.mark.parametrize("group", [False, True], ids=["alone", "group"])
def test_a_build_in_the_middle_of_compile(small, tmp_path, group):
    axes = ("--set", "model.inputs={x: {batch: [1, 2, 4]}}")
    command = build(small, tmp_path, "--data", small.data, "--target", "rtx-4090", *axes)
    before = temporary()
    ran = interrupted(compiling, *command, cwd=tmp_path, group=group)
    assert "calibrate" in finished(ran.err)
    nothing_half_done(tmp_path)
    assert temporary() <= before
    if not group:
        again = program(*command)
        assert again.code == 0, again.err
        assert finished(again.err)["calibrate"] == "reused"


def test_a_build_with_a_store_of_its_own(small, tmp_path):
    marker = tmp_path / "reading"
    command = build(small, tmp_path, "--data", "slow_samples:some", "--no-cache")
    interrupted(lambda _: marker.exists(), *command, cwd=small.folder, env={"SLOW": str(marker)})
    assert tree(tmp_path).keys() <= {"reading"}
    assert not list((tmp_path / "store").glob("no-cache.*"))


def test_calibrate_alone(small, tmp_path):
    marker, ranges = tmp_path / "reading", tmp_path / "ranges.json"
    command = ["calibrate", small.model, "--data", "slow_samples:some", "-o", ranges]
    interrupted(lambda _: marker.exists(), *command, cwd=small.folder, env={"SLOW": str(marker)})
    assert tree(tmp_path).keys() == {"reading"}
    assert program(*command, cwd=small.folder).code == 0
    assert ranges.is_file()


@pytest.mark.parametrize("group", [False, True], ids=["alone", "group"])
def test_compile_alone(small, tmp_path, group):
    command = ["compile", small.model, "--target", "rtx-4090", "--axis", "x.batch=1,2,4", "-o", tmp_path / "engine"]
    before = temporary()
    interrupted(compiling, *command, cwd=tmp_path, group=group)
    assert list(tmp_path.iterdir()) == []
    assert temporary() <= before
