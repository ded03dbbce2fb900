"""What `make test` installs for some tests: said by name where it cannot, with the tests that are then skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kits import NO_3_8, python_3_8

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docker/install-tests.sh"


def run(folder: Path, *, path: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "HOME": str(folder), **more}
    command = [str(shutil.which("sh")), str(SCRIPT), str(folder / "old")]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)


def bare(folder: Path, **programs: str) -> str:
    """A PATH of what a machine has that has neither sshd nor an old Python, and of scripts."""
    (folder / "bin").mkdir()
    for name in ("sh", "dirname", "id", "cat", "mkdir"):
        (folder / "bin" / name).symlink_to(str(shutil.which(name)))
    for name, text in programs.items():
        (folder / "bin" / name).write_text(f"#!{shutil.which('sh')}\n{text}\n")
        (folder / "bin" / name).chmod(0o755)
    return str(folder / "bin")


@pytest.fixture
def no_sshd() -> None:
    if shutil.which("sshd", path="/usr/sbin:/sbin") and shutil.which("ssh", path="/usr/sbin:/sbin"):
        pytest.skip("the script looks for programs in /usr/sbin and /sbin, and there is one")


def test_what_is_missing_is_named_with_the_tests_that_are_skipped(tmp_path: Path, no_sshd: None):
    done = run(tmp_path, path=bare(tmp_path, uv="echo no network >&2; exit 2"))
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "not installed: sshd (there is no apt-get: install OpenSSH's server and client by hand)",
        "  skipped: the tests of --remote over SSH, tests/pipeline/test_remote_*.py",
        "no network",
        "not installed: Python 3.8 (there is none here, and uv could not bring one: name one with PYTHON38)",
        "  skipped: test_a_kit_runs_under_python_3_8 in tests/pipeline/test_kit.py",
    ]
    for line in done.stderr.splitlines():
        if line.startswith("  skipped"):
            assert list(ROOT.glob(line.split()[-1]))


def test_a_package_that_cannot_be_had_is_told(tmp_path: Path, no_sshd: None):
    if os.getuid():
        pytest.skip("apt-get is asked by root alone")
    done = run(tmp_path, path=bare(tmp_path, uv="exit 2", **{"apt-get": "echo 'E: no such package' >&2; exit 100"}))
    assert "not installed: sshd (apt-get could not install openssh-server; it has said why)" in done.stderr


@pytest.mark.parametrize("brought_by", ["name", "uv"])
def test_a_python_3_8_becomes_an_environment_that_runs_kits(tmp_path: Path, brought_by: str):
    ready = python_3_8()
    if ready is None:
        pytest.skip(NO_3_8)
    found = subprocess.run([ready, "-c", "import sys; print(sys._base_executable)"], capture_output=True, text=True)
    old = found.stdout.strip()
    place = "$6/3.8/bin"
    asked = "python install --quiet --no-bin --install-dir $6 3.8"
    put = f'[ "$*" = "{asked}" ] && mkdir -p "{place}" && {shutil.which("ln")} -s {old} "{place}/python3.8"'
    path = bare(tmp_path, uv="exit 2" if brought_by == "name" else put)
    done = run(tmp_path, path=path, **({"PYTHON38": old} if brought_by == "name" else {}))
    assert done.returncode == 0
    assert "Python 3.8" not in done.stderr
    code = "import sys, numpy, onnxruntime as ort; print(sys.version_info[:2], numpy.__version__, ort.__version__)"
    told = subprocess.run([str(tmp_path / "old/bin/python"), "-c", code], capture_output=True, text=True, check=False)
    assert told.stdout.strip() == "(3, 8) 1.24.4 1.19.2"
