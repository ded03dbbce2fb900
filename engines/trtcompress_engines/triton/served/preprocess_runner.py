"""Encoded images to the input of the model, by the code and the numbers of the calibration."""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np

from .step_files import Step


class Runner(Step):
    """Decodes and preprocesses with `preprocessing.py`, which lies beside this file.

    Raises:
        RuntimeError: Pillow is not installed for the server's Python, or gives other values than at the packaging.
        ValueError: a file is not the one that was packaged.
    """

    def __init__(self, path: Path, parameters: dict[str, str], args: dict[str, str]) -> None:
        super().__init__(path, parameters, args)
        step = self.step
        try:
            import PIL
        except ImportError as error:
            raise RuntimeError(
                f"Pillow does not import in the server's Python ({error}): pip install pillow"
            ) from error
        self._code = importlib.import_module(".preprocessing", __package__)
        self._settings = step["settings"]
        self._made = step["output"]
        self.inputs = [step["input"]]
        self.outputs = [self._made["name"]]
        _compare(self._code, step, PIL.__version__)

    def run(self, feed: dict[str, Any]) -> dict[str, Any]:
        """One array of all images.

        Raises:
            ValueError: an image cannot be decoded, or does not become what the model takes.
        """
        name = self.inputs[0]
        images = [self._input(encoded, index) for index, encoded in enumerate(feed[name].ravel().tolist())]
        shapes = [image.shape for image in images]
        if len(set(shapes)) > 1:
            other = next(shape for shape in shapes if shape != shapes[0])
            raise ValueError(
                f"input '{name}': the images of one request become arrays of different shapes, {list(shapes[0])} and "
                f"{list(other)}: send images of one size together"
            )
        alone = len(self._made["shape"]) == len(shapes[0])
        return {self.outputs[0]: images[0] if alone else np.stack(images)}

    def _input(self, encoded: Any, index: int) -> Any:
        try:
            values = self._code.to_input(io.BytesIO(encoded), **self._settings)
        except self._code.ImageError as error:
            raise ValueError(f"input '{self.inputs[0]}', image {index}: {error}") from error
        wanted = self._made["shape"][-values.ndim :]
        if any(dim not in (-1, length) for dim, length in zip(wanted, values.shape)):  # noqa: B905  (Python 3.8)
            raise ValueError(
                f"input '{self.inputs[0]}', image {index}: it becomes an array of shape {list(values.shape)}, the "
                f"model takes {wanted}"
            )
        return values.astype(self._made["dtype"], copy=False)


def _compare(code: Any, step: Any, pillow: str) -> None:
    """Another release of Pillow may decode or resize otherwise: then the model would see what it was not made for."""
    probe = step["probe"]
    values = code.to_input(io.BytesIO(base64.b64decode(probe["image"])), **step["settings"])
    if hashlib.sha256(values.tobytes()).hexdigest() != probe["sha256"]:
        raise RuntimeError(
            f"Pillow {pillow} makes other values of an image here than Pillow {probe['pillow']} did where the model "
            f"was packaged: pip install pillow=={probe['pillow']}"
        )
