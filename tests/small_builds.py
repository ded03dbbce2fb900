"""Small models with data that the command line can build in a second or two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from small_cnn import write_cnn

QUICK = ("--set", "measure.seconds=0.01", "--set", "package=[triton]")


@dataclass(frozen=True)
class Small:
    """A classifier: `x` (batch, 3, 16, 16) to `logits` (batch, 10), with 24 samples and labels that it gets right."""

    folder: Path
    model: Path
    data: Path

    @property
    def samples(self) -> dict[str, np.ndarray]:
        with np.load(self.data) as arrays:
            return dict(arrays)


def small_classifier(folder: Path, samples: int = 24, width: int = 16) -> Small:
    model = write_cnn(folder / "small.onnx", width=width)
    x = np.random.default_rng(1).normal(size=(samples, 3, 16, 16)).astype(np.float32)
    data = folder / "samples.npz"
    np.savez(data, x=x, labels=answers(model, x=x).argmax(1))
    return Small(folder, model, data)


def answers(model: Path, **feed: np.ndarray) -> np.ndarray:
    """First output of the model."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    first: np.ndarray = ort.InferenceSession(str(model), options).run(None, feed)[0]
    return first


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder with its bytes."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
