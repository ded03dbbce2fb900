"""A command that works through samples says how far it is: on a terminal at once, in CI now and then."""

from __future__ import annotations

import io
import sys

import numpy as np

from command_line import trtcompress
from digit_nets import write_cut, write_images, write_teacher
from trtcompress.cli import counting as module
from trtcompress.cli import main
from trtcompress.cli.counting import SECONDS_EVERY, counting


def test_in_ci_a_line_comes_after_some_time_and_none_at_the_end(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(main, "_stderr", None)  # which a command before may have left
    with counting("samples") as told:
        for done in range(1, 101):
            now[0] += SECONDS_EVERY / 10
            told(done, 100)
        now[0] += 1000
        told(100, 100)
        told(7)
    said = capsys.readouterr().err.splitlines()
    assert said == [*(f"{done} of 100 samples" for done in range(10, 100, 10)), "7 samples"]


def test_a_terminal_shows_a_bar_and_is_left_as_it_was(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with counting("samples") as told:
        told(3, 12)
    shown = terminal.getvalue()
    assert "3/12" in shown
    assert shown.rstrip().endswith("\x1b[2K"), "the bar's line is cleared"
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor is back"


def test_commands_tell_of_the_samples_that_they_read(tmp_path, monkeypatch):
    """At a pace of no seconds each batch is worth a line."""
    monkeypatch.setattr(module, "SECONDS_EVERY", 0.0)
    model = write_teacher(tmp_path / "m.onnx")
    cut = write_cut(model, tmp_path / "cut.onnx")
    write_images(tmp_path / "images.npz", 24)
    with np.load(tmp_path / "images.npz") as held:
        total = len(held["x"])
    data = ("--data", tmp_path / "images.npz")
    ran = trtcompress("calibrate", model, *data, "-o", tmp_path / "ranges.json")
    assert (ran.code, f"8 of {total} samples" in ran.err) == (0, True), ran.err
    ran = trtcompress("validate", cut, "--reference", model, *data, "--seconds", "0.01", "--min-cosine", "-1")
    assert f" of {total} samples" in ran.err, ran.err
    ranges = ("--ranges", tmp_path / "ranges.json", "--target", "cpu", "-o", tmp_path / "int8.onnx")
    write_images(tmp_path / "labelled.npz", 24, labels=True)
    limit = ("--max-drop", "0.5", "--data", tmp_path / "labelled.npz", "--metric", "top1")
    ran = trtcompress("quantize", model, *ranges, *limit)
    assert (ran.code, f" of {total} samples" in ran.err) == (0, True), ran.err
