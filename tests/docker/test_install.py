"""The install steps of the build-host image, in a fresh virtual environment."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from small_cnn import write_cnn

ROOT = Path(__file__).parents[2]


def test_a_fresh_environment_builds_for_cpu_and_rtx(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    install = ["sh", "docker/install.sh", sys.executable, str(venv), "rtx"]
    subprocess.run(install, cwd=ROOT, check=True, env={**os.environ, "PIP_COMPILE": "0"})  # half the time
    write_cnn(tmp_path / "net.onnx")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).random((8, 3, 16, 16), np.float32))
    command = [str(venv / "bin/trtcompress"), "build", "net.onnx", "--data", "data.npz", "--json", "--store", "store"]
    options = [
        "--target=cpu",
        "--target=rtx-4090",
        "--set=measure.seconds=0.05",
        "--set=model.inputs.x.batch=[1, 2, 4]",
    ]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [target["target"] for target in json.loads(done.stdout)["targets"]] == ["cpu", "rtx-4090"]


def test_an_old_python_is_refused_in_words(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text('#!/bin/sh\ncase "$*" in --version) echo Python 3.8.18;; *) exit 1;; esac\n', encoding="utf-8")
    old.chmod(0o755)
    done = subprocess.run(
        ["sh", "docker/install.sh", str(old), str(tmp_path / "venv"), ""], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "3.11" in done.stderr
    assert "3.8.18" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_the_image_is_pinned_to_the_patch_and_runs_as_no_root() -> None:
    """What it runs is the script of the other tests, and the command is there for its health check."""
    text = (ROOT / "docker" / "Dockerfile.build-host").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert re.search(r"^FROM python:3\.\d+\.\d+-slim-\w+$", text, re.M)
    assert lines.index("USER builder") < next(i for i, line in enumerate(lines) if "docker/install.sh" in line)
    assert "HEALTHCHECK CMD trtcompress --version" in lines
    assert "ENV PATH=/home/builder/venv/bin:$PATH" in lines
    assert re.search(r"^RUN .*install -d .*-m 1777 /work$", text, re.M), "any --user may write there"
    assert text.index("-m 1777 /work") < text.index("USER builder"), "only root makes it"
