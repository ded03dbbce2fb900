"""The install steps of the Triton image: a fresh Python serves a packaged model as the engine answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from packaging.requirements import Requirement

from s3_server import free_port
from triton_models import BATCH_8, CPU, cnn, engine_of
from trtcompress_engines.triton import TritonOptions, write_repository

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
SCRIPT = ROOT / "docker" / "install-serving.sh"
RUN = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
from onnxruntime_runner import Runner
parameters = {"intra_op_thread_count": "1", "inter_op_thread_count": "1"}
runner = Runner(sys.argv[1] + "/model.onnx", parameters, {})
np.save(sys.argv[3], runner.run({"image": np.load(sys.argv[2])})["logits"])
"""


def installed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_a_fresh_python_runs_a_packaged_model(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    done = installed(python)
    assert done.returncode == 0, done.stderr
    pins = dict(re.findall(r"^(onnxruntime|numpy)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    assert done.stdout.split() == ["onnxruntime", pins["onnxruntime"], "numpy", pins["numpy"]]
    graph = cnn(tmp_path / "cnn.onnx")
    axes, options = {"image": {"batch": BATCH_8}}, TritonOptions()
    folder = write_repository(
        engine_of(graph), CPU, tmp_path / "repository", name="cnn", format="triton-python", axes=axes, options=options
    )
    image = np.random.default_rng(0).random((3, 1, 28, 28), np.float32)
    np.save(tmp_path / "image.npy", image)
    version = next(path.parent for path in folder.rglob("model.onnx"))
    subprocess.run(
        [python, "-c", RUN, str(version), str(tmp_path / "image.npy"), str(tmp_path / "logits.npy")], check=True
    )
    expected = ort.InferenceSession(str(graph.path)).run(["logits"], {"image": image})[0]
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-5, atol=1e-6)


def test_for_plans_of_tensorrt_for_rtx_bindings_find_their_libraries(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv/bin/python")
    done = installed(python, "rtx")
    assert done.returncode == 0, done.stderr
    runners = ROOT / "engines" / "trtcompress_engines" / "triton"
    code = f"import sys; sys.path.insert(0, {str(runners)!r}); from served.tensorrt_rtx_runner import load_bindings; "
    ran = subprocess.run(
        [python, "-c", code + "print(load_bindings().__version__)"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(rf"^tensorrt_rtx_cu13_bindings=={re.escape(ran.stdout.strip())}$", CONSTRAINTS.read_text(), re.M)


@pytest.mark.parametrize(("minor", "file"), [(8, "docker/constraints-serving.txt"), (11, "constraints.txt")])
@pytest.mark.parametrize("kind", ["cpu", "rtx"])
def test_pins_are_those_of_the_server_s_python(tmp_path: Path, minor: int, file: str, kind: str) -> None:
    """A stand-in for the server's Python says what it is, and keeps what pip is asked for."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f"""#!/bin/sh
case $* in
*"-m pip"*) echo "$@" >{tmp_path}/asked ;;
*"(3, 8)"*) exit 0 ;;
*"(3, 11)"*) exit {int(minor < 11)} ;;
esac
""")
    stand_in.chmod(0o755)
    done = installed(str(stand_in), kind)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text()
    assert f"--constraint {ROOT}/{file} numpy onnxruntime pillow" in asked
    pinned = re.findall(r"(\S*rtx\S*)==\S+", asked)
    assert pinned == (["onnxruntime-ep-nv-tensorrt-rtx-cu13", "tensorrt_rtx_cu13_bindings"] if kind == "rtx" else [])


@pytest.mark.parametrize("version", ["3.8", "3.9", "3.10"])
def test_an_older_python_has_one_pin_of_each(version: str) -> None:
    """The script reads them there; numpy is below 2, as servers ask that have such a Python."""
    lines = (ROOT / "docker" / "constraints-serving.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    held = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": version})]
    assert sorted(pin.name for pin in held) == ["numpy", "onnxruntime", "pillow"]
    assert all(str(pin.specifier).startswith("==") for pin in held)
    numpy = next(pin for pin in held if pin.name == "numpy")
    assert all(spec.version.startswith("1.") for spec in numpy.specifier)


def test_another_kind_is_refused_in_words(tmp_path: Path) -> None:
    done = installed(sys.executable, "tpu")
    assert (done.returncode, "'tpu'" in done.stderr) == (2, True)


def test_the_image_copies_what_is_there() -> None:
    """Every file that the Dockerfile copies from the checkout exists, and its user is not root."""
    text = (ROOT / "docker" / "Dockerfile.triton").read_text(encoding="utf-8")
    copied = [word for line in re.findall(r"^COPY (.*)$", text, re.M) for word in line.split()[:-1]]
    sources = [word for word in copied if not word.startswith(("--", "${"))]
    assert sources == ["docker/install-serving.sh", "docker/constraints-serving.txt", "constraints.txt"]
    assert all((ROOT / source).is_file() for source in sources)
    assert re.search(r"^USER serving$", text, re.M)
    (check,) = re.findall(r"^HEALTHCHECK .* CMD +(.*)$", re.sub(r"\\\n", "", text), re.M)
    program = check.replace("8000", str(free_port()))
    proxied = {"PATH": os.environ["PATH"], "http_proxy": "http://nowhere.invalid:1"}
    asked = subprocess.run(["sh", "-c", program], env=proxied, capture_output=True, text=True, check=False)
    assert asked.returncode == 1
    assert "Connection refused" in asked.stderr, "it asks this machine, and no proxy"
