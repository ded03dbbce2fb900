"""SIGTERM and SIGHUP end the program as Ctrl-C does, and a server that it started ends with it, even of a SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from command_line import start
from triton_models import CPU, cnn, engine_of
from trtcompress.cli.ending import signals_as_interrupts
from trtcompress_engines.triton import TritonOptions, write_repository

SERVER = """#!/bin/sh
echo $$ > "{folder}/told"
mv "{folder}/told" "{folder}/pid"
exec sleep 300
"""
"""A server that never gets ready."""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """A `serve-check`, and the server that it waits for."""
    engine = engine_of(cnn(tmp_path / "cnn.onnx"))
    options = {"name": "cnn", "format": "triton-python", "axes": {}, "options": TritonOptions()}
    write_repository(engine, CPU, tmp_path / "repository", **options)
    server = tmp_path / "server"
    server.write_text(SERVER.format(folder=tmp_path))
    server.chmod(0o755)
    process = start("serve-check", tmp_path / "repository", "--server", server)
    while not (tmp_path / "pid").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    serving = psutil.Process(int((tmp_path / "pid").read_text()))
    yield process, serving
    process.kill()
    if serving.is_running():
        serving.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_the_server_ends_with_the_program(
    started: tuple[subprocess.Popen[str], psutil.Process], number: signal.Signals, code: int
):
    process, serving = started
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, ""), err
    assert "nothing half-written is left" in err
    assert (f"interrupted by {number.name}" in err) is (number != signal.SIGINT)
    assert "Traceback" not in err
    assert psutil.wait_procs([serving], timeout=10)[1] == []


def test_the_server_ends_with_a_program_that_is_killed(started: tuple[subprocess.Popen[str], psutil.Process]):
    process, serving = started
    process.kill()
    assert psutil.wait_procs([serving], timeout=10)[1] == []


def test_signals_are_heeded_for_the_block_alone():
    before = signal.getsignal(signal.SIGTERM)
    with signals_as_interrupts() as came:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGHUP)  # it is ending already
    assert came == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_as_interrupts() as came:
            os.kill(os.getpid(), signal.SIGHUP)
        assert came == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_fork_ends_at_once():
    with signals_as_interrupts():
        child = os.fork()
        if not child:
            try:
                signal.pause()
            finally:
                os._exit(1)
        time.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
