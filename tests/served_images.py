"""A small network for images with a function behind it, built and packed; and a server whose numpy can carry bytes."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from PIL import Image

from triton_models import save
from trtcompress_engines.triton.installed import Installed, find_server

PREPROCESS = "{size: [36, 40], crop: [32, 32], mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3], color: BGR}"

CONFIG = """
name: net
model: {{source: m.onnx, inputs: {{x: {{batch: [1, 4, 8]}}}}}}
data: {{calibration: {{source: images, preprocess: {preprocess}}}}}
gates: {{min_cosine: 0.9}}
measure: {{seconds: 0.01}}
targets: ["cpu:float"]
package: [triton-python]
triton: {triton}
"""

ANSWER = '''
"""Names and scores of the best two classes."""
from pathlib import Path

import numpy as np

from helpers.soft import softmax

NAMES = np.array(Path(__file__).with_name("labels.txt").read_text(encoding="utf-8").split())


def answer(outputs):
    scores = softmax(outputs["logits"])
    order = np.argsort(-scores, 1)[:, :2]
    best = np.take_along_axis(scores, order, 1)
    return {"labels": NAMES[order], "scores": best.astype(np.float16), "best": order[:, 0]}


def numbers(outputs):
    outputs["logits"] *= 2  # it may write into what it gets
    return {"logits": outputs["logits"], "sure": outputs["logits"].max(1) > 0}
'''

SOFT = """
import numpy as np


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
"""


def project(folder: Path, triton: str, preprocess: str = PREPROCESS) -> Path:
    """A folder with a model, images, a function behind it and a config, which is returned.

    `x [batch, 3, 32, 32] -> logits [batch, 5]`; 12 images of different sizes, JPEG and PNG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 0.3, (8, 3, 3, 3)).astype("f4"),
        "fc": rng.normal(0, 0.5, (8, 5)).astype("f4"),
        "b": rng.normal(0, 0.1, 5).astype("f4"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "fc", "b"], ["logits"]),
    ]
    inputs = [("x", TensorProto.FLOAT, ["batch", 3, 32, 32])]
    save(folder / "m.onnx", nodes, inputs, [("logits", TensorProto.FLOAT, ["batch", 5])], weights)
    (folder / "images").mkdir(exist_ok=True)
    for index in range(12):
        ending = "jpg" if index % 2 else "png"
        (folder / "images" / f"{index:02}.{ending}").write_bytes(encoded(rng, 40 + index, 50 + index, ending))
    (folder / "post.py").write_text(ANSWER)
    (folder / "helpers").mkdir(exist_ok=True)
    (folder / "helpers/soft.py").write_text(SOFT)
    (folder / "labels.txt").write_text("cat dog emu fox café", encoding="utf-8")
    config = folder / "build.yaml"
    config.write_text(CONFIG.format(triton=triton, preprocess=preprocess))
    return config


def encoded(rng: np.random.Generator, height: int, width: int, ending: str) -> bytes:
    """An image of coarse noise."""
    pixels = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(file, "JPEG" if ending == "jpg" else "PNG")
    return file.getvalue()


def numpy_1(folder: Path) -> Path:
    """The folder, where a numpy before 2 is installed.

    The wheel of the server holds Triton 24.10, which cannot read bytes with numpy 2 (see `served/tensors.py`).
    """
    command = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:")
    subprocess.run([*command, "--target", str(folder), "numpy==1.26.4"], check=True, capture_output=True)
    return folder


def server_with_numpy_1(folder: Path) -> Installed:
    """The wheel's server with that numpy."""
    return find_server(packages=numpy_1(folder))
