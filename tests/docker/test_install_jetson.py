"""The install steps of the Jetson image, over stand-ins for its package manager, and what its container runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from command_line import done
from kits import STAND_INS
from small_builds import QUICK, small_classifier

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docker" / "install-jetson.sh"
IMAGE = (ROOT / "docker" / "Dockerfile.jetson").read_text(encoding="utf-8")

APT_GET = """#!/bin/sh
echo "$@" >>"$IMAGE_FOLDER/asked"
case $* in
*python3-libnvinfer=*) [ "$NO_MODULE" ] || mkdir -p "$IMAGE_FOLDER/packages/tensorrt" ;;
esac
"""
DPKG_QUERY = """#!/bin/sh
[ "$LIBRARY" ] || exit 1
printf 'un  \\nii  %s\\n' "$LIBRARY"
"""
PYTHON = """#!/bin/sh
case $* in
--version) echo "Python ${OLD:-3}"; exit ;;
*version_info*) [ -z "$OLD" ]; exit ;;
esac
PYTHONPATH="$IMAGE_FOLDER/packages" exec {python} "$@"
"""


@dataclass
class Image:
    """A folder in place of an image."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def install(self, release: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment, **more}
        return subprocess.run(["sh", str(SCRIPT), release], capture_output=True, text=True, env=environment)

    @property
    def asked(self) -> list[str]:
        log = self.folder / "asked"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def image(tmp_path: Path) -> Image:
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {"apt-get": APT_GET, "dpkg-query": DPKG_QUERY, "python3": PYTHON.replace("{python}", sys.executable)}
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "key.asc").write_text("a public key\n")
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "IMAGE_FOLDER": str(tmp_path),
        "APT_FOLDER": str(tmp_path / "apt"),
        "JETSON_KEY": (tmp_path / "key.asc").as_uri(),
        "LIBRARY": "10.3.0.30-1+cuda12.5",
        **dict.fromkeys(("OLD", "NO_MODULE"), ""),
    }
    return Image(tmp_path, environment)


def test_the_module_of_the_very_library_is_installed_from_the_release(image: Image):
    ran = image.install("r36.4")
    assert ran.returncode == 0, ran.stderr
    assert image.asked == [
        "update -qq",
        "install -y -qq --no-install-recommends ca-certificates python3 python3-numpy",
        "update -qq",
        "install -y -qq --no-install-recommends python3-libnvinfer=10.3.0.30-1+cuda12.5",
    ]
    apt = image.folder / "apt"
    assert (apt / "keyrings/nvidia-jetson.asc").read_text() == "a public key\n"
    (line,) = (apt / "sources.list.d/nvidia-jetson.list").read_text().splitlines()
    assert line == (
        f"deb [signed-by={apt}/keyrings/nvidia-jetson.asc] https://repo.download.nvidia.com/jetson/common r36.4 main"
    )
    assert ran.stdout.split() == ["python", sys.version.split()[0], "numpy", np.__version__]


def test_where_the_image_has_the_module_nothing_more_is_asked(image: Image):
    (image.folder / "packages" / "tensorrt").mkdir(parents=True)
    assert image.install("r35.4").returncode == 0
    assert len(image.asked) == 2
    assert not (image.folder / "apt").exists()


def test_no_pip():
    assert "pip" not in SCRIPT.read_text(encoding="utf-8").replace("no pip", "")
    assert "pip" not in IMAGE


@pytest.mark.parametrize(
    ("release", "more", "code", "words"),
    [
        ("r32.7", {}, 2, "no kit runs in Python on Jetson Linux 'r32.7'"),
        ("36.4", {}, 2, "'36.4': give r35.2"),
        ("r36.4", {"OLD": "3.6.9"}, 1, "the image's Python is Python 3.6.9: a kit needs 3.8"),
        ("r36.4", {"LIBRARY": ""}, 1, "there is no TensorRT in this image"),
        ("r36.4", {"NO_MODULE": "1"}, 1, "TensorRT's Python module is not there"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(image: Image, release: str, more: dict[str, str], code: int, words: str):
    ran = image.install(release, **more)
    assert ran.returncode == code
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    if code == 2:
        assert image.asked == []


def test_the_image_copies_what_is_there():
    """The script that the Dockerfile copies exists, its user is not root, and there is a health check."""
    copied = [word for line in re.findall(r"^COPY (.*)$", IMAGE, re.M) for word in line.split()[:-1]]
    sources = [word for word in copied if not word.startswith(("--", "${"))]
    assert sources == ["docker/install-jetson.sh"]
    assert all((ROOT / source).is_file() for source in sources)
    assert re.search(r"^USER kit$", IMAGE, re.M)
    assert "HEALTHCHECK" in IMAGE


def test_every_base_is_pinned_and_of_a_release_that_kits_are_for():
    """Stages are named by the releases of Jetson Linux; the script takes each of them."""
    bases = dict(_bases())
    pinned = {tag for tag in bases.values() if tag.startswith("nvcr.io/")}
    of_jetson = {f"nvcr.io/nvidia/l4t-tensorrt:r{v}-runtime" for v in ("8.5.2", "8.6.2", "10.3.0")}
    assert pinned == {*of_jetson, "nvcr.io/nvidia/tensorrt:25.08-py3"}, "the last one holds TensorRT 10.13"
    assert all(base in bases for base in set(bases.values()) - pinned)
    default = re.search(r"^ARG L4T=(\S+)$", IMAGE, re.M)
    assert default
    assert default[1] in bases
    from trtcompress_engines.targets import targets

    carried = {version for target in targets().values() if target.how == "kit" for _, version in target.tensorrt}
    assert {"8.5", "8.6", "10.3", "10.13"} <= carried


def _bases() -> list[tuple[str, str]]:
    return [(stage, base) for base, stage in re.findall(r"^FROM (\S+) AS (\S+)$", IMAGE, re.M)]


def test_every_release_of_the_image_is_one_that_the_script_takes(image: Image):
    (image.folder / "packages" / "tensorrt").mkdir(parents=True)
    for release, _ in _bases():
        assert image.install(release).returncode == 0


def test_the_container_builds_and_validates_the_kit(tmp_path: Path):
    small = small_classifier(tmp_path)
    made = ("--target", "jetson-agx-orin", "--out", tmp_path / "out", "--store", tmp_path / "store")
    axes = ("--set", "model.inputs={x: {batch: [1, 2, 4]}}", "--set", "gates={min_cosine: 0.9}")
    done("build", small.model, "--data", small.data, *made, *axes, *QUICK, "--set", "package=[jetson]")
    kit = tmp_path / "out/small/jetson/jetson-agx-orin"
    command = json.loads(re.findall(r"^CMD (\[.*\])$", IMAGE, re.M)[-1])
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{STAND_INS}" exec {sys.executable} "$@"\n')
    (programs / "python3").chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "STAND_IN_TENSORRT": "10.3.0", "HOME": str(tmp_path)}
    ran = subprocess.run(command, cwd=kit, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    told = json.loads((kit / "results" / "results.json").read_text())
    assert told["device"]["tensorrt"] == "10.3.0"
    assert {engine["encoding"] for engine in told["engines"]} >= {"trt-int8", "trt-fp16"}
