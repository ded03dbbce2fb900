"""Kits for a Jetson, and running their scripts with stand-ins for what JetPack has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STAND_INS = Path(__file__).parent / "device_stand_ins"
SECONDS = ("--seconds", "0.2")


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def run(kit: Path, script: str, *arguments: object, python: Path | str = sys.executable, **more: str) -> Done:
    """Run `./build` or `./validate`; `more` are environment variables."""
    environment = {**os.environ, "PYTHON": str(python), **more}
    command = [str(kit / script), *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=840)
    return Done(ran.returncode, ran.stdout, ran.stderr)


def on_jetpack(kit: Path, script: str, *arguments: object, tensorrt: str = "8.5.2", **more: str) -> Done:
    """The same where Python has TensorRT and pycuda, which stand-ins are for."""
    python = kit.parent / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{STAND_INS}" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return run(kit, script, *arguments, python=python, STAND_IN_TENSORRT=tensorrt, **more)


def on_jetpack_4(kit: Path, script: str, *arguments: object, **more: str) -> Done:
    """The same where there is no Python that is new enough, but trtexec."""
    programs = kit.parent / "bin"
    programs.mkdir(exist_ok=True)
    trtexec = programs / "trtexec"
    trtexec.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_INS / "trtexec"} "$@"\n')
    trtexec.chmod(0o755)
    return run(kit, script, *arguments, python="/no/python", PATH=f"{programs}:{os.environ['PATH']}", **more)


def with_tegrastats(folder: Path, line: str) -> str:
    """PATH with a tegrastats that tells that line; in the file that STAND_IN_LOG names it tells when it runs."""
    program = folder / "tegrastats"
    program.parent.mkdir(exist_ok=True)
    log = "${STAND_IN_LOG:-/dev/null}"
    program.write_text(
        f'#!/bin/sh\ntrap \'echo off >>"{log}"; exit\' TERM\necho on >>"{log}"\n'
        f"while :; do echo '{line}'; sleep 0.05; done\n"
    )
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def with_busy_tegrastats(folder: Path) -> dict[str, str]:
    """Environment of a tegrastats that tells watts: as many as trtexec's batch, and 90 while that only starts."""
    program = folder / "tegrastats"
    program.parent.mkdir(exist_ok=True)
    state = folder / "state"
    (folder / "state.told").touch()
    program.write_text(
        f"#!/bin/sh\necho $$ >'{folder}/tegrastats.pid'\nwhile :; do\n"
        f"echo \"RAM 7/99MB VDD_IN $(cat '{state}' 2>/dev/null || echo 90)000mW/1mW\"\n"
        f"printf . >>'{state}.told'\nsleep 0.02\ndone\n"
    )
    program.chmod(0o755)
    return {"STAND_IN_STATE": str(state)}


def results(kit: Path, folder: str = "results") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((kit / folder / "results.json").read_text(encoding="utf-8"))
    return found


def engine(told: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in told["engines"] if one["encoding"] == name)
    return found


def note(kit: Path, name: str) -> dict[str, Any]:
    """How the stand-in for TensorRT was told to build an engine."""
    found: dict[str, Any] = json.loads((kit / "engines" / f"{name}.plan").read_bytes()[4:].partition(b"\n")[0])
    return found


NO_3_8 = "there is no Python 3.8 with numpy and onnxruntime: docker/install-tests.sh makes one where it can"


def python_3_8() -> str | None:
    """Python 3.8 with numpy and ONNX Runtime: $PYTHON38, what docker/install-tests.sh made, or that on the path."""
    code = "import sys, numpy, onnxruntime; sys.exit(sys.version_info[:2] != (3, 8))"
    made = Path(__file__).parents[1] / ".venv38/bin/python"
    for found in (os.environ.get("PYTHON38"), str(made) if made.exists() else None, shutil.which("python3.8")):
        if found and subprocess.run([found, "-c", code], capture_output=True, check=False).returncode == 0:
            return found
    return None
