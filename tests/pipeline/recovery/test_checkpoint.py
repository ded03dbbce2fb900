"""What a killed training left is gone on with, refused, or told as damaged; never removed in silence."""

from __future__ import annotations

import errno
import logging
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from command_line import trtcompress
from digit_nets import write_cut, write_images, write_teacher
from trtcompress.recovery import checkpoint, job
from trtcompress.recovery.checkpoint import (
    Unsaved,
    alone_in,
    empty,
    holds_training,
    load,
    open_folder,
    save,
    save_in_first,
)
from trtcompress.recovery.judge import Judge
from trtcompress.recovery.settings import Training
from trtcompress_graph.errors import UsageError

FACTS = {"version": 1, "student": "ab", "settings": {"lr": 0.1, "epochs": 3.0, "loss": ["logits"]}}


def test_another_training_is_refused_with_what_differs(tmp_path):
    folder = tmp_path / "training"
    assert not open_folder(folder, FACTS)
    assert not open_folder(folder, {**FACTS, "student": "cd"}), "nothing was trained yet"
    open_folder(folder, FACTS)
    save({"step": 3}, folder / "state.pt")
    assert open_folder(folder, FACTS)
    with pytest.raises(
        UsageError, match=r"lr was 0\.1 and is not given; loss was \['logits'\] and is \['labels'\]"
    ) as raised:
        open_folder(folder, {**FACTS, "settings": {"lr": None, "epochs": 3.0, "loss": ["labels"]}})
    assert "--restart" in raised.value.hint
    with pytest.raises(UsageError, match="other version and student"):
        open_folder(folder, {**FACTS, "version": 2, "student": "cd"})
    assert load(folder / "state.pt") == {"step": 3}
    assert not open_folder(folder, {**FACTS, "version": 2}, replaces=True)
    assert not holds_training(folder)


def test_a_damaged_checkpoint_is_told(tmp_path, caplog):
    (tmp_path / "state.pt").write_bytes(b"PK damaged")
    with caplog.at_level(logging.WARNING, "trtcompress"):
        assert load(tmp_path / "state.pt") is None
    (told,) = caplog.messages
    assert "state.pt is damaged" in told
    assert "starts anew" in told
    caplog.clear()
    assert load(tmp_path / "none.pt") is None
    assert caplog.messages == []


def test_a_disk_that_is_full_is_told_as_one_and_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    """torch closes its archive behind a write that failed, and that is what it raises."""
    save({"step": 3}, tmp_path / "state.pt")

    def write(state: object, stream: object) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", write)
        with pytest.raises(OSError, match="No space left") as raised:
            save({"step": 4}, tmp_path / "state.pt")
    assert raised.value.errno == errno.ENOSPC
    assert load(tmp_path / "state.pt") == {"step": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


@pytest.fixture
def killed(tmp_path, monkeypatch) -> list[object]:
    """A command of which the training was killed behind its first checkpoint."""
    write_cut(write_teacher(tmp_path / "teacher.onnx"), tmp_path / "student.onnx")
    write_images(tmp_path / "images.npz", 64)
    command: list[object] = [
        *("recover", tmp_path / "student.onnx", "--teacher", tmp_path / "teacher.onnx", "-o", tmp_path / "out.onnx"),
        *("--data", tmp_path / "images.npz", "--no-blockwise", "--lr", "1e-2"),
    ]

    def die(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Judge, "judge", die)  # behind the checkpoint of the start
        assert trtcompress(*command, "--epochs", "4").code == 130
    assert state(tmp_path).is_file()
    return command


def test_a_kill_before_any_checkpoint_is_told(killed, tmp_path):
    state(tmp_path).unlink()
    ran = trtcompress(*killed, "--epochs", "4")
    assert (ran.code, "had not come to a checkpoint: it begins anew" in ran.err) == (0, True), ran.err


def state(folder: Path) -> Path:
    return folder / "out.onnx.recovery" / "training" / "state.pt"


def test_a_second_call_with_other_options_leaves_the_checkpoint(killed, tmp_path):
    held = state(tmp_path).read_bytes()
    for options, code, why in (
        (("--epochs", "5"), 2, "epochs was 4.0 and is 5.0"),
        (("--epochs", "4", "--labels"), 3, "needs labels"),
        (("--epochs", "4", "--loss", "affinity"), 2, "two outputs"),
    ):
        ran = trtcompress(*killed, *options)
        assert (ran.code, why in ran.err) == (code, True), ran.err
        assert state(tmp_path).read_bytes() == held
    ran = trtcompress(*killed, "--epochs", "4")
    assert (ran.code, "go on with the training that was there" in ran.err) == (0, True)
    assert not (tmp_path / "out.onnx.recovery").exists()


def test_restart_throws_it_away(killed, tmp_path):
    ran = trtcompress(*killed, "--epochs", "5", "--restart")
    assert (ran.code, "go on with" in ran.err) == (0, False), ran.err
    assert (tmp_path / "out.onnx").is_file()


def test_restart_throws_nothing_away_that_another_command_trains_on(killed, tmp_path):
    held = state(tmp_path).read_bytes()
    with alone_in(tmp_path / "out.onnx.recovery"):
        ran = trtcompress(*killed, "--epochs", "5", "--restart")
        assert (ran.code, "another training runs here" in ran.err) == (2, True), ran.err
        assert state(tmp_path).read_bytes() == held


def test_an_empty_folder_stays_the_one_that_is_held(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "state.pt").write_bytes(b"x")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "training")
    with alone_in(tmp_path):
        empty(tmp_path)
        with pytest.raises(UsageError, match="another training runs here"), alone_in(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_removed_before_it_is_opened_is_not_trained_in(tmp_path, monkeypatch):
    def gone(path: Path, flags: int) -> int:
        raise FileNotFoundError

    monkeypatch.setattr(checkpoint.os, "open", gone)
    with pytest.raises(UsageError, match="another training runs here"), alone_in(tmp_path / "work"):
        pass


@pytest.mark.parametrize("made_anew", [False, True])
def test_a_folder_that_is_removed_before_it_is_held_is_not_trained_in(tmp_path, monkeypatch, made_anew):
    """The training that ended there removes it, and a third one may make it again."""
    folder, aside = tmp_path / "work", tmp_path / "aside"

    def hold(handle: int, how: int) -> None:
        folder.rename(aside)
        if made_anew:
            folder.mkdir()

    monkeypatch.setattr(checkpoint.fcntl, "flock", hold)
    with pytest.raises(UsageError, match="another training runs here"), alone_in(folder):
        pass


def lone_failure(monkeypatch, error: OSError, processes: int):
    """What `train` gives in a process where the training raises that."""

    def fail(*given: object) -> None:
        raise error

    monkeypatch.setattr(job, "_train", fail)
    told = SimpleNamespace(training=Training(devices=processes))
    return job.train(SimpleNamespace(world_size=processes), told, lambda what, done, total: None)


def test_an_error_of_one_process_alone_is_not_lost(monkeypatch):
    """It has to end that process: a value that it gives is that of the first one alone."""
    unread = OSError(errno.EIO, "Input/output error", "samples/x.npy")
    assert lone_failure(monkeypatch, unread, 1) is unread
    with pytest.raises(OSError, match=r"samples/x\.npy"):
        lone_failure(monkeypatch, unread, 2)
    unsaved = Unsaved(errno.ENOSPC, "No space left on device", "state.pt")
    assert lone_failure(monkeypatch, unsaved, 2) is unsaved


def test_what_could_not_be_saved_is_told_alike_in_every_process(tmp_path):
    """As it goes through `pickle`, from the first process to the others."""
    sent: list[bytes] = []
    first = SimpleNamespace(global_rank=0, broadcast=lambda value: sent.append(pickle.dumps(value)) or value)
    other = SimpleNamespace(global_rank=1, broadcast=lambda value: pickle.loads(sent[0]))
    for fabric in (first, other):
        with pytest.raises(Unsaved) as caught:
            save_in_first(fabric, {}, tmp_path / "none" / "state.pt")
        assert caught.value.errno == errno.ENOENT
        assert caught.value.strerror == "No such file or directory"
        assert caught.value.filename == str(tmp_path / "none" / ".state.pt.partial")
