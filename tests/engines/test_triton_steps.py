"""Steps around an engine, as they are written and as they run in Triton's python backend, with stand-ins for it."""

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from python_backend import ModelError, Tensor, TritonError, loader, request
from trtcompress_calibration.data import Preprocess, open_dataset
from trtcompress_engines.triton import TritonOptions, check_repository
from trtcompress_engines.triton.batching import Batching
from trtcompress_engines.triton.images import Images, images_of, make_images
from trtcompress_engines.triton.reference import Reference, has_reference
from trtcompress_engines.triton.served_model import read_served
from trtcompress_engines.triton.steps import write_postprocess, write_preprocess
from trtcompress_engines.triton.trial import described, try_function
from trtcompress_graph.axes import AxisRange
from trtcompress_graph.errors import CompileError, RepositoryError
from trtcompress_graph.model import TensorSpec

SECTION = Preprocess(size=(20, 24), crop=(16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
COLOR = TensorSpec("x", "float32", ("batch", 3, 16, 16))


@pytest.fixture
def served(monkeypatch):
    return loader(monkeypatch)


def preprocessing(folder: Path, made: TensorSpec, section: Preprocess, batches: int = 8) -> Path:
    dynamic = isinstance(made.shape[0], str) and len(made.shape) == 4
    batch = Batching(batches if dynamic else 0, 2)
    axes = {made.name: {str(made.shape[0]): AxisRange(1, 2, 8)}} if dynamic else {}
    write_preprocess(folder / "r", "m", made, asdict(section), batch, axes, TritonOptions())
    return folder / "r/m"


def encoded(height: int, width: int, kind: str = "PNG", seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def asked(model, *images: bytes):
    (answer,) = model.execute([request(image=np.array(images, dtype=object))])
    return answer


def calibrated(folder: Path, made: TensorSpec, section: Preprocess, *images: bytes) -> list[np.ndarray]:
    """What the calibration would give the model."""
    folder.mkdir()
    for index, image in enumerate(images):
        (folder / f"{index}.png").write_bytes(image)
    return [s.inputs["x"] for s in open_dataset(folder, [made], preprocess=section, base=folder)]


@pytest.mark.parametrize(
    ("made", "section"),
    [
        (COLOR, SECTION),
        (TensorSpec("x", "float16", ("batch", 3, 16, 16)), SECTION),
        (TensorSpec("x", "float64", ("batch", 16, 16, 3)), Preprocess(size=(16, 16), layout="NHWC", color="BGR")),
        (TensorSpec("x", "float32", ("batch", 1, 16, 16)), Preprocess(size=(16, 16), color="GRAY", mean=(0.1,))),
        (TensorSpec("x", "uint8", ("batch", 16, 16, 3)), Preprocess(size=(16, 16), layout="NHWC", scale=1.0)),
        (TensorSpec("x", "float32", ("batch", 3, 16, 16)), Preprocess(size=(16, 16), scale=1.0)),
        (TensorSpec("x", "float32", (2, 3, 16, 16)), SECTION),
    ],
    ids=["float32", "float16", "float64 NHWC BGR", "grey", "uint8", "bytes as float32", "batches of two alone"],
)
def test_a_served_input_is_that_of_the_calibration(served, tmp_path: Path, made: TensorSpec, section: Preprocess):
    images = [encoded(30, 40, "JPEG", 1), encoded(55, 21, "PNG", 2)]
    model = served(preprocessing(tmp_path, made, section))
    answer = asked(model, *images)
    assert answer.error is None
    wanted = np.concatenate(calibrated(tmp_path / "images", made, section, *images))
    assert answer.tensors["x"].dtype == wanted.dtype == made.dtype
    assert np.array_equal(answer.tensors["x"], wanted)


def test_a_model_without_a_batch_takes_one_image(served, tmp_path: Path):
    made = TensorSpec("x", "float32", (3, 16, 16))
    folder = preprocessing(tmp_path, made, SECTION)
    image = encoded(30, 40)
    answer = asked(served(folder), image)
    assert np.array_equal(answer.tensors["x"], calibrated(tmp_path / "images", made, SECTION, image)[0])
    assert [tuple(t.dims) for t in read_served(tmp_path / "r", "m", {}).inputs] == [(1,)]


def test_what_is_wrong_with_images_is_told(served, tmp_path: Path):
    model = served(preprocessing(tmp_path, COLOR, SECTION))
    answers = model.execute(
        [request(image=np.array(images, dtype=object)) for images in ([encoded(9, 9)], [b"no"], [encoded(9, 9), b""])]
    )
    assert answers[0].error is None
    assert answers[1].error.message == (
        "input 'image', image 0: the image cannot be read: it is none of JPEG, PNG, BMP, WEBP"
    )
    assert "image 1: " in answers[2].error.message
    assert answers[1].error.code == answers[2].error.code == TritonError.INVALID_ARG


def test_without_a_size_images_keep_theirs(served, tmp_path: Path):
    made = TensorSpec("x", "float32", ("batch", 3, "h", "w"))
    model = served(preprocessing(tmp_path, made, Preprocess()))
    assert asked(model, encoded(9, 8), encoded(9, 8)).tensors["x"].shape == (2, 3, 9, 8)
    error = asked(model, encoded(9, 8), encoded(8, 9)).error
    assert "of different shapes, [3, 9, 8] and [3, 8, 9]: send images of one size together" in error.message
    two = model.execute([request(image=np.array([encoded(*edges)], object)) for edges in ((9, 8), (8, 9))])
    assert [answer.tensors["x"].shape for answer in two] == [(1, 3, 9, 8), (1, 3, 8, 9)], "requests apart may differ"
    (tmp_path / "fixed").mkdir()
    fixed = served(preprocessing(tmp_path / "fixed", COLOR, Preprocess()))
    told = asked(fixed, encoded(9, 8)).error.message
    assert "it becomes an array of shape [3, 9, 8], the model takes [3, 16, 16]" in told
    crop = served(preprocessing(tmp_path / "crop", COLOR, Preprocess(crop=(16, 16))))
    assert "the image is 9 x 8, smaller than the crop of 16 x 16" in asked(crop, encoded(9, 8)).error.message


def test_another_program_does_not_load(served, tmp_path: Path):
    folder = preprocessing(tmp_path, COLOR, SECTION)
    program = folder / "1/preprocessing.py"
    program.write_text(program.read_text().replace("BILINEAR", "NEAREST"))
    with pytest.raises(ModelError, match=r"m: preprocessing\.py is not the file that was packaged"):
        served(folder)
    with pytest.raises(RepositoryError, match="SHA-256"):
        check_repository(folder.parent)


def test_another_pillow_that_resizes_otherwise_does_not_load(served, tmp_path: Path, monkeypatch):
    folder = preprocessing(tmp_path, COLOR, SECTION)
    served(folder)
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, how: resize(self, size, Image.Resampling.BICUBIC))
    with pytest.raises(ModelError, match=r"makes other values of an image here than Pillow \S+ did where the model"):
        served(folder)


def test_bytes_that_would_come_damaged_are_found_when_the_model_loads(served, tmp_path: Path, monkeypatch):
    """As Triton before 24.11 reads arrays of numpy 2: the first element, again and again."""
    folder = preprocessing(tmp_path, COLOR, SECTION)
    monkeypatch.setattr(Tensor, "as_numpy", lambda self: np.full_like(self.array, self.array.flat[0]))
    with pytest.raises(ModelError, match=r"take Triton 24\.11 or newer, or install numpy below 2"):
        served(folder)


FUNCTION = """
import numpy as np

def f(outputs):
    if (outputs["score"] < 0).any():
        raise ValueError("a score is negative")
    if (outputs["score"] > 100).any():
        raise KeyError("lost")
    if (outputs["score"] == 50).any():
        return {"text": np.array(["a"]), "half": outputs["score"].astype("f2")}
    outputs["boxes"] *= 2
    return {"text": np.array([f"{s:.1f} \u20ac" for s in outputs["score"]]), "half": outputs["boxes"].astype("f2")}
"""
READ = (TensorSpec("score", "float32", ("batch",)), TensorSpec("boxes", "float32", ("batch", "boxes", 4)))


def postprocessing(folder: Path) -> Path:
    module = folder / "fn.py"
    module.write_text(FUNCTION, encoding="utf-8")
    fed = [
        {"score": np.ones(n, np.float32), "boxes": np.zeros((n, boxes, 4), np.float32)}
        for n, boxes in ((1, 2), (1, 3), (3, 2))
    ]
    made = described("fn:f", try_function("fn:f", {"fn.py": module}, fed), [1, 1, 3])
    assert made == (
        TensorSpec("text", "object", ("batch",)),
        TensorSpec("half", "float16", ("batch", "half_1", 4)),
    )
    axes = {"boxes": {"boxes": AxisRange(1, 2, 5)}}
    write_postprocess(
        folder / "r", "m", READ, made, "fn:f", {"fn.py": module}, Batching(8, 2), axes, TritonOptions(instances=2)
    )
    return folder / "r/m"


def test_a_function_is_served_as_it_was_tried(served, tmp_path: Path):
    model = served(postprocessing(tmp_path))
    score, boxes = np.float32([1, 2]), np.ones((2, 3, 4), np.float32)
    boxes.setflags(write=False)
    good, negative, lost, other = model.execute(
        [
            request(score=score, boxes=boxes),
            request(score=-score, boxes=boxes),
            request(score=score + 100, boxes=boxes),
            request(score=np.float32([50, 1]), boxes=boxes[:, :1]),
        ]
    )
    assert [one.decode() for one in good.tensors["text"]] == ["1.0 \u20ac", "2.0 \u20ac"]
    assert good.tensors["half"].dtype == np.float16
    assert np.array_equal(good.tensors["half"], np.full((2, 3, 4), 2))
    assert (negative.error.message, negative.error.code) == ("fn:f: a score is negative", TritonError.INVALID_ARG)
    assert (lost.error.message, lost.error.code) == ("fn:f failed: KeyError: 'lost' (the outputs are: score, boxes)", 1)
    assert "fn:f returned 'half' as float16[2], and as float16[-1, -1, 4] when it was packaged" in other.error.message


def test_the_reference_of_a_step_is_what_a_server_answers(tmp_path: Path):
    postprocessing(tmp_path)
    model = read_served(tmp_path / "r", "m", {})
    assert has_reference(model)
    assert set(model.axes.values()) == {AxisRange(1, 2, 5)}
    with Reference(model) as step:
        made = step({"score": np.float32([[1], [2]]), "boxes": np.ones((2, 3, 4), np.float32)})
    assert made["text"].tolist() == [["1.0 \u20ac".encode()], ["2.0 \u20ac".encode()]], "as it travels"
    assert made["half"].shape == (2, 3, 4)
    check_repository(tmp_path / "r")


def test_a_function_sees_nothing_but_what_goes_along(tmp_path: Path, monkeypatch):
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "fn.py").write_text("import beside\ndef f(o): return o")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    fed = [{"y": np.zeros((1, 2), np.float32)}]
    with pytest.raises(CompileError, match="No module named 'beside'"):
        try_function("fn:f", {"fn.py": tmp_path / "fn.py"}, fed)
    code = {name: tmp_path / name for name in ("fn.py", "beside.py")}
    assert try_function("fn:f", code, fed) == [{"y": ("float32", (1, 2))}]
    (tmp_path / "fn.py").write_text("import os\nos._exit(3)")
    with pytest.raises(CompileError, match="it ended the process with 3"):
        try_function("fn:f", code, fed)


def test_made_up_images_are_what_the_preprocessing_takes():
    rng = np.random.default_rng(0)

    def of(section: Preprocess, shape: list[int], ranges=None) -> Images:
        step = {"settings": asdict(section), "output": {"name": "x", "dtype": "float32", "shape": shape}}
        return images_of(step, ranges or {})

    assert of(Preprocess(), [-1, 3, 20, 24]) == Images((20, 20), (24, 24), alike=True)
    assert of(Preprocess(layout="NHWC"), [-1, -1, 24, 3], {1: (4, 9)}) == Images((4, 9), (24, 24), alike=True)
    assert of(Preprocess(), [3, 20, 24]) == Images((20, 20), (24, 24), alike=True)
    assert of(SECTION, [-1, 3, 16, 16]).alike is False
    cropped = of(Preprocess(crop=(40, 50)), [-1, 3, 40, 50])
    opened = [Image.open(io.BytesIO(one)) for one in make_images(cropped, (60, 1), rng).ravel()]
    assert all(image.height >= 40 and image.width >= 50 for image in opened)
    assert {image.format for image in opened} == {"JPEG", "PNG"}
    assert {image.mode for image in opened} == {"RGB", "RGBA", "L", "P"}
    alike = make_images(of(Preprocess(), [-1, 3, -1, -1], {2: (5, 99), 3: (5, 99)}), (4, 1), rng)
    assert len({Image.open(io.BytesIO(one)).size for one in alike.ravel()}) == 1


def test_equal_steps_are_equal_bytes(tmp_path: Path):
    trees = []
    for name in ("one", "two"):
        folder = preprocessing(tmp_path / name, COLOR, SECTION)
        trees.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert trees[0] == trees[1]
    assert json.loads(trees[0][Path("1/preprocess.json")])["settings"]["crop"] == [16, 16]
