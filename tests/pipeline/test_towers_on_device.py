"""A model of two towers whose engine a device builds: what is measured is joined, and no tower is promised."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from command_line import done, trtcompress
from kits import SECONDS, on_jetpack
from small_builds import tree
from triton_models import towers
from trtcompress_engines.triton import check_repository

CONFIG = """\
name: pair
model: {source: pair.onnx, inputs: {image: {images: [1, 4, 8]}, words: {texts: [1, 10, 16]}}}
data: {calibration: {source: samples.npz}}
gates: {min_cosine: 0.5, max_latency_ms: 1000}
targets: ["cpu:float", jetson-agx-orin]
measure: {seconds: 0.01}
package: [triton, jetson]
triton: {towers: {image: [image_vectors], text: [text_vectors, lengths]}}
"""
WHY = "triton: not packed; triton.towers needs an engine of each tower"
DEVICE = "jetson-agx-orin"


def test_results_of_two_towers_are_joined_and_what_is_served_here_stays(tmp_path: Path):
    towers(tmp_path / "pair.onnx")
    rng = np.random.default_rng(0)
    image, words = rng.normal(size=(24, 8)).astype("f4"), rng.integers(0, 20, (24, 3))
    np.savez(tmp_path / "samples.npz", image=image, words=words)
    (tmp_path / "pair.yaml").write_text(CONFIG)
    ran = done("build", "pair.yaml", "--out", "out", "--store", "store", cwd=tmp_path)
    build = tmp_path / "out/pair"
    assert f"{DEVICE}: {WHY}" in ran.err
    assert "trtcompress package" not in ran.err, "it could not pack them either"
    assert json.loads((build / "report.json").read_text())["packages"][0]["notes"] == []
    kit = Path(shutil.copytree(build / "jetson" / DEVICE, tmp_path / "kit"))
    assert on_jetpack(kit, "build", tensorrt="10.3.0").code == 0
    measured = on_jetpack(kit, "validate", *SECONDS, tensorrt="10.3.0")
    assert measured.code == 0, measured.err
    served = tree(build / "triton/cpu")
    ran = done("import-results", build, kit / "results/results.json", cwd=tmp_path)
    assert f"note: {WHY}" in ran.err
    validation = json.loads((build / "report.json").read_text())["validations"][1]
    assert validation["choice"]["where"].endswith("TensorRT 10.3.0")
    shipped = validation["shipped"]
    plan = build / "engines" / DEVICE / shipped / "model.plan"
    shutil.copyfile(kit / "engines" / f"{shipped}.plan", plan)  # of the whole: it makes no tower
    assert f"note: {WHY}" in done("import-results", build, kit / "results/results.json", cwd=tmp_path).err
    assert not (build / "triton" / DEVICE).exists()
    assert tree(build / "triton/cpu") == served
    assert {"pair", "pair_image", "pair_text"} < {path.name for path in (build / "triton/cpu").iterdir()}
    check_repository(build / "triton/cpu")
    for more in ((), ("--new-version",)):
        ran = trtcompress("package", build, "--target", DEVICE, *more, "-o", tmp_path / "repository")
        assert (ran.code, WHY in ran.err) == (4, True), ran.err
        assert not any((tmp_path / "repository").glob("*"))
