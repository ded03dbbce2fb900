"""Image folders: what a pixel becomes, the order of classes, and files that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trtcompress_calibration.data import Preprocess, open_dataset
from trtcompress_graph.errors import DataError
from trtcompress_graph.model import TensorSpec

COLOR = TensorSpec("x", "float32", ("n", 3, 8, 10))


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def solid(*color: int, size: tuple[int, int] = (8, 10)) -> np.ndarray:
    return np.broadcast_to(np.array(color), (*size, len(color)))


def only(folder: Path, spec: TensorSpec, preprocess: Preprocess | None = None) -> np.ndarray:
    (sample,) = open_dataset(folder, [spec], preprocess=preprocess, base=Path())
    return sample.inputs["x"]


def test_without_a_section_the_shape_of_the_input_decides(tmp_path: Path) -> None:
    write(tmp_path / "a.png", solid(255, 0, 51, size=(20, 30)))
    first = only(tmp_path, COLOR)
    assert first.shape == (1, 3, 8, 10)
    np.testing.assert_allclose(first[0, :, 0, 0], [1, 0, 0.2], rtol=1e-6)
    last = only(tmp_path, TensorSpec("x", "float32", (1, 8, 10, 3)))
    np.testing.assert_array_equal(last, first.transpose(0, 2, 3, 1))
    grey = only(tmp_path, TensorSpec("x", "float32", (1, 1, 8, 10)))
    assert grey.shape == (1, 1, 8, 10)
    raw = only(tmp_path, TensorSpec("x", "uint8", (1, "h", "w", 3)))
    assert (raw.dtype, raw.shape, raw[0, 0, 0].tolist()) == (np.uint8, (1, 20, 30, 3), [255, 0, 51])


def test_the_whole_section(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 20, 3)).astype(np.uint8)
    write(tmp_path / "a.bmp", pixels)
    section = Preprocess((16, 20), (8, 10), (0.4, 0.5, 0.6), (0.1, 0.2, 0.3), "NCHW", "BGR")
    got = only(tmp_path, COLOR, section)
    middle = pixels[4:12, 5:15, ::-1].astype(np.float64) / 255
    np.testing.assert_allclose(got[0], ((middle - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.3]).transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "PNG", "bmp", "webp"])
def test_endings(ending: str, tmp_path: Path) -> None:
    write(tmp_path / f"a.{ending}", solid(100, 100, 100))
    assert only(tmp_path, COLOR).mean() == pytest.approx(100 / 255, abs=0.02)


def test_palettes_alpha_and_grey_become_colour(tmp_path: Path) -> None:
    Image.new("P", (10, 8)).save(tmp_path / "p.png")
    Image.new("LA", (10, 8), (100, 50)).save(tmp_path / "la.png")
    Image.new("1", (10, 8), 1).save(tmp_path / "one.png")
    assert len(list(open_dataset(tmp_path, [COLOR], base=Path()))) == 3


def test_flat_folders_are_sorted_and_without_labels(tmp_path: Path) -> None:
    for name, value in (("b", 20), ("a", 10), ("c", 30)):
        write(tmp_path / f"{name}.png", solid(value, value, value))
    (tmp_path / "readme.txt").write_text("not an image")
    dataset = open_dataset(tmp_path, [COLOR], base=Path())
    assert not dataset.labelled
    assert [round(float(sample.inputs["x"].max()) * 255) for sample in dataset] == [10, 20, 30]


def test_subfolders_are_classes_taken_in_turn(tmp_path: Path) -> None:
    for place, (name, count) in enumerate({"cat": 3, "dog": 1, "emu": 0, "fox": 2}.items()):
        (tmp_path / name).mkdir()
        for i in range(count):
            write(tmp_path / name / f"{i}.png", solid(place, i, 0))
    dataset = open_dataset(tmp_path, [COLOR], base=Path())
    assert dataset.labelled
    assert [int(sample.label) for sample in dataset] == [0, 1, 3, 0, 3, 0]
    for sample in dataset:
        assert round(float(sample.inputs["x"][0, 0, 0, 0]) * 255) == int(sample.label)


def refused(match: str, folder: Path, specs: list[TensorSpec], preprocess: Preprocess | None = None) -> DataError:
    with pytest.raises(DataError, match=match) as caught:
        list(open_dataset(folder, specs, preprocess=preprocess, base=Path()))
    assert caught.value.where
    assert caught.value.hint
    return caught.value


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (8, 10, 3)))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:150])
    assert "b.png" in refused("the image cannot be read", tmp_path, [COLOR]).where
    (tmp_path / "b.png").write_text("text")
    assert "b.png" in refused("the image cannot be read", tmp_path, [COLOR]).where


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.png", solid(1, 2, 3, size=(40, 40)))
    for limit in (1000, 100):  # Pillow warns above the limit and refuses above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        refused("the image cannot be read", tmp_path, [COLOR])


def test_sections_and_models_that_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path / "a.png", solid(1, 2, 3))
    refused("smaller than the crop of 9 x 9", tmp_path, [COLOR], Preprocess(crop=(9, 9)))
    refused("GRAY in NCHW has 1 channels, the input has 3", tmp_path, [COLOR], Preprocess(color="GRAY"))
    refused(r"mean is \[0.5, 0.5\], which does not fit 3", tmp_path, [COLOR], Preprocess(mean=(0.5, 0.5)))
    refused(r"std is \[0.0\]", tmp_path, [COLOR], Preprocess(std=(0.0,)))
    refused("axis 2 is 4 long", tmp_path, [COLOR], Preprocess(size=(4, 10)))
    refused(
        "feeds one input of rank 4; the model has 'x' of rank 4, 'y' of rank 2",
        tmp_path,
        [COLOR, TensorSpec("y", "float32", ("n", 2))],
    )
    refused("holds the channels cannot be told", tmp_path, [TensorSpec("x", "float32", (1, 7, 8, 9))])
    write(tmp_path / "sub" / "b.png", solid(1, 2, 3))
    refused("both in the folder and in its subfolders", tmp_path, [COLOR])
