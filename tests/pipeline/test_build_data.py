"""Each kind of data through a whole build: .npz, folders of .npz and of images, functions; sequences of any length."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import trtcompress
from small_builds import Small, answers, small_classifier
from triton_models import VOCABULARY, encoder

LOOSE = ("--set", "gates={max_metric_drop: 1, min_cosine: 0.9}", "--set", "measure.seconds=0.01")


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    return small_classifier(tmp_path_factory.mktemp("small"))


def ranges_of(small: Small, folder: Path, data: object, *more: object) -> dict:
    """The ranges that a build with this data measured; the build goes to its end."""
    ran = trtcompress(
        *("build", small.model, "--data", data, "--out", folder / "out", "--store", folder / "store", "--json"),
        *(*LOOSE, "--set", "targets=cpu:int8", *more),
        cwd=folder,
    )
    assert ran.code == 0, ran.err
    assert ran.json["verdict"] == "pass"
    ranges: dict = json.loads((folder / "out" / "small" / "ranges.json").read_text())
    return ranges


@pytest.fixture(scope="module")
def expected(small, tmp_path_factory) -> dict:
    return ranges_of(small, tmp_path_factory.mktemp("expected"), small.data)


def test_a_compressed_npz(small, tmp_path, expected):
    np.savez_compressed(tmp_path / "packed.npz", **small.samples)
    assert ranges_of(small, tmp_path, "packed.npz") == expected


def test_a_folder_of_batches(small, tmp_path, expected):
    folder = tmp_path / "batches"
    folder.mkdir()
    for index, (start, end) in enumerate([(0, 5), (5, 6), (6, 24)]):
        part = {name: array[start:end] for name, array in small.samples.items()}
        (np.savez if index else np.savez_compressed)(folder / f"batch{index}.npz", **part)
    assert ranges_of(small, tmp_path, "batches") == expected


def test_a_function(small, tmp_path, expected):
    (tmp_path / "yields_samples.py").write_text(
        "import numpy as np\n\n"
        "def some():\n"
        f"    with np.load({str(small.data)!r}) as arrays:\n"
        "        arrays = dict(arrays)\n"
        "    for start in range(0, 24, 7):\n"
        "        yield {name: array[start : start + 7] for name, array in arrays.items()}\n"
    )
    assert ranges_of(small, tmp_path, "yields_samples:some") == expected


def test_the_order_and_the_batch_do_not_matter(small, tmp_path, expected):
    order = np.random.default_rng(5).permutation(24)
    np.savez(tmp_path / "shuffled.npz", **{name: array[order] for name, array in small.samples.items()})
    ranges = ranges_of(small, tmp_path, "shuffled.npz", "--set", "quantize.batch=5")
    assert ranges["tensors"] == expected["tensors"]


def test_samples_limits_what_is_read(small, tmp_path):
    ranges = ranges_of(small, tmp_path, small.data, "--set", "data.calibration.samples=6")
    assert ranges["samples"] == 6
    assert ranges["tensors"]["x"]["max"] == pytest.approx(small.samples["x"][:6].max())


@pytest.mark.parametrize(("color", "greatest"), [("RGB", 1.0), ("BGR", 0.5)])
def test_a_folder_of_images(small, tmp_path, color, greatest):
    """Red images of other sizes and kinds, resized, cropped and normalised channel by channel as the config says.

    Red is 1 in its own channel and 0 in the others: (1 - 0.5) / 0.5 where it is the first, 1 / 2 where it is the last.
    """
    images = tmp_path / "images"
    images.mkdir()
    for name, size in (("a.png", (60, 40)), ("b.jpg", (30, 31)), ("c.png", (16, 16))):
        Image.new("RGB", size, (255, 0, 0)).save(images / name)
    (tmp_path / "build.yaml").write_text(
        f"name: small\nmodel: {small.model}\ntargets: ['cpu:int8']\n"
        "data:\n  calibration:\n    source: images\n"
        "    preprocess: {size: [20, 24], crop: [16, 16], mean: [0.5, 0.25, 0], std: [0.5, 0.25, 2], "
        f"color: {color}}}\n"
    )
    ran = trtcompress("build", "build.yaml", "--out", "out", "--store", "store", "--json", *LOOSE, cwd=tmp_path)
    assert ran.code == 0, ran.err
    ranges = json.loads((tmp_path / "out/small/ranges.json").read_text())
    assert ranges["samples"] == 3
    seen = ranges["tensors"]["x"]
    assert (seen["min"], seen["max"]) == pytest.approx((-1, greatest), abs=0.02)


def test_sequences_of_different_lengths(tmp_path):
    """A model with two dynamic axes and two inputs; nothing is padded, and the GPU plan gets its profile."""
    encoder(tmp_path / "encoder.onnx")
    folder = tmp_path / "texts"
    folder.mkdir()
    rng = np.random.default_rng(4)
    for length in (3, 7, 12):
        ids = rng.integers(0, VOCABULARY, (4, length))
        np.savez(folder / f"{length}.npz", ids=ids, mask=np.ones((4, length), np.float32))
    (tmp_path / "build.yaml").write_text(
        "name: texts\n"
        "model:\n  source: encoder.onnx\n  inputs:\n"
        "    ids: {batch: [1, 2, 4], sequence: [1, 8, 16]}\n    mask: {batch: [1, 2, 4], sequence: [1, 8, 16]}\n"
        "data: {calibration: texts}\n"
        "targets: [cpu, rtx-4090]\n"
    )
    ran = trtcompress("build", "build.yaml", "--out", "out", "--store", "store", "--json", *LOOSE, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "out/texts/ranges.json").read_text())["samples"] == 12
    report = json.loads((tmp_path / "out/texts/report.json").read_text())
    assert [v["target"] for v in report["validations"]] == ["cpu", "rtx-4090"]
    assert all(c["engine"]["built"] for v in report["validations"] for c in v["candidates"])


def test_evaluation_data_of_its_own(small, tmp_path):
    """Labels that are wrong on purpose: the metric is of the evaluation data, and the reference is just as wrong."""
    samples = small.samples
    np.savez(tmp_path / "test.npz", x=samples["x"][:10], labels=(samples["labels"][:10] + 1) % 10)
    (tmp_path / "build.yaml").write_text(
        f"name: small\nmodel: {small.model}\nmetric: top1\ntargets: ['cpu:float']\n"
        f"data: {{calibration: {small.data}, evaluation: test.npz}}\n"
    )
    ran = trtcompress("build", "build.yaml", "--out", "out", "--store", "store", "--json", *LOOSE, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.json["targets"][0]["metrics"]["top1"]["reference"] == 0
    assert np.array_equal(answers(small.model, x=samples["x"]).argmax(1), samples["labels"])
