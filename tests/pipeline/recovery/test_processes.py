"""A training in two processes of which the system kills one: the same command goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch.multiprocessing.spawn import ProcessExitedException

from command_line import done, start, trtcompress
from digit_nets import write_cut, write_images, write_teacher
from trtcompress.recovery.processes import _lost


@pytest.fixture
def command(tmp_path: Path) -> list[object]:
    write_cut(write_teacher(tmp_path / "teacher.onnx"), tmp_path / "student.onnx")
    write_images(tmp_path / "images.npz", 64)
    return [
        *("recover", tmp_path / "student.onnx", "--teacher", tmp_path / "teacher.onnx", "-o", tmp_path / "out.onnx"),
        *("--data", tmp_path / "images.npz", "--devices", 2, "--no-blockwise", "--no-augment", "--lr", "1e-2"),
        *("--batch", 16, "--epochs", 40),
    ]


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes of a training, by the command line that `multiprocessing` gives them."""
    lists = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(pid) for held in lists for pid in held.read_text().split()]
    return sorted(pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_a_killed_process_leaves_its_checkpoint_and_the_same_command_goes_on(command, tmp_path, capfd):
    command[command.index("--epochs") + 1] = 80  # so that the kill comes long before the end
    process = start(*command)
    assert process.stderr is not None
    heard = []
    for line in process.stderr:
        heard.append(line)
        if re.match(r"step [1-9]\d*/240: loss .*held out", line):
            break
    running = workers(process)
    if len(running) != 2:
        process.kill()
        pytest.fail(f"no two processes to kill one of:\n{''.join(heard)}{process.communicate()[1]}")
    os.kill(running[1], signal.SIGKILL)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 4, said
    assert "a process of the training failed" in said
    assert "hint: the same command goes on at its last checkpoint" in said
    assert "Traceback" not in said
    assert (tmp_path / "out.onnx.recovery" / "training" / "state.pt").is_file()
    assert not (tmp_path / "out.onnx").exists()
    ran = trtcompress(*command)
    assert (ran.code, "go on with the training that was there" in ran.err) == (0, True), ran.err
    assert " of 240 steps were made" in capfd.readouterr().err, "and not from the start; its processes say so"
    assert (tmp_path / "out.onnx").is_file()
    assert not (tmp_path / "out.onnx.recovery").exists()


NOTES_WHAT_LIVES = """
import gc, pathlib
import torch.distributed as distributed
from torch.nn.parallel import DistributedDataParallel
end = distributed.destroy_process_group
def noted(*group):
    living = sum(isinstance(thing, DistributedDataParallel) for thing in gc.get_objects())
    place = pathlib.Path(__file__).parent / f"rank{distributed.get_rank()}"
    end(*group)
    place.write_text(f"{living} alive, and it ended")
distributed.destroy_process_group = noted
"""


def test_all_devices_may_be_one(command, tmp_path):
    command[command.index("--epochs") + 1] = 2
    made = []
    for devices in (0, 1):
        command[command.index("--devices") + 1] = devices
        done(*command, "--restart")
        made.append((tmp_path / "out.onnx").read_bytes())
    assert made[0] == made[1]


def test_nothing_of_a_training_lives_when_its_connection_ends(command, tmp_path, monkeypatch):
    """Two of a hundred trainings hung there: gradients' own hold on the connection is let go under Python's lock."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(NOTES_WHAT_LIVES)
    monkeypatch.setenv("PYTHONPATH", str(hooks), prepend=os.pathsep)
    command[command.index("--epochs") + 1] = 1
    ran = trtcompress(*command)
    assert ran.code == 0, ran.err
    assert [(hooks / f"rank{rank}").read_text() for rank in (0, 1)] == ["0 alive, and it ended"] * 2


def test_what_is_refused_behind_a_checkpoint_of_a_first_run_leaves_it(command, tmp_path, monkeypatch):
    """Whether one is there counts when the error comes, not when the command began."""
    from trtcompress.recovery import recover
    from trtcompress_graph.errors import UsageError

    def refuse(*given: object) -> None:
        raise UsageError("no more")

    command[command.index("--devices") + 1] = 1
    with monkeypatch.context() as patch:
        patch.setattr(recover, "_write", refuse)
        assert trtcompress(*command, "--patience", 1).code == 2
    ran = trtcompress(*command, "--patience", 1)
    assert (ran.code, "go on with the training that was there" in ran.err) == (0, True), ran.err


def test_of_a_training_without_a_checkpoint_nothing_is_left(command, tmp_path):
    np.savez(tmp_path / "images.npz", x=np.full((8, 1, 28, 28), np.nan, np.float32))
    assert trtcompress(*command).code == 3
    assert not (tmp_path / "out.onnx.recovery").exists()


def test_what_the_same_command_does_behind_a_lost_process_is_told(tmp_path):
    killed = ProcessExitedException("process 1 terminated with signal SIGKILL", 1, 21, -9, "SIGKILL")
    job = SimpleNamespace(folder=tmp_path)
    told = _lost(killed, job)
    assert "terminated with signal SIGKILL" in told.what
    assert told.hint.startswith("the same command begins anew: there is no checkpoint yet; the system kills where")
    (tmp_path / "state.pt").touch()
    assert _lost(killed, job).hint.startswith("the same command goes on at its last checkpoint; the system kills where")
