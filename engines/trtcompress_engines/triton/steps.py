"""Steps before and after an engine, each a model of Triton's python backend: encoded images in, a user's answer out."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import trtcompress_graph.preprocessing
from trtcompress_graph.axes import Axes
from trtcompress_graph.digest import files_digest
from trtcompress_graph.model import Model, TensorSpec

from .aside import put_folder, repository_errors
from .batching import Batching
from .config import Serving, config_text
from .datatypes import STEP_TYPES, Backend, check_types
from .options import TritonOptions
from .ranged import parameters
from .repository import SERVED, VERSION, checksum

IMAGE = "image"
"""What the input of a served preprocessing is called."""

PREPROCESS, POSTPROCESS = "preprocess", "postprocess"
"""Parameter `runner` of such a step."""

CODE = "code"
"""Folder with the user's modules, in the version of a step."""

_ENTRY = ("__init__.py", "model.py", "batching.py", "tensors.py", "step_files.py")
_PYTHON = Backend("backend", "python", STEP_TYPES)
_PROBE_EDGE = 67


@dataclass(frozen=True, slots=True)
class Link:
    """A served model of a chain, and what it reads and makes."""

    served: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def image_spec(made: TensorSpec) -> TensorSpec:
    """What clients send where images become that input."""
    return TensorSpec(IMAGE, "object", made.shape[:1] if len(made.shape) == 4 else (1,))


def check_travels(specs: Sequence[TensorSpec]) -> None:
    """Can a step read and make these?

    Raises:
        CompileError: one has a type that does not travel so.
    """
    check_types(specs, _PYTHON)


def write_preprocess(
    repository: Path, name: str, made: TensorSpec, settings: Mapping[str, Any], batch: Batching, axes: Axes,
    options: TritonOptions,
) -> Link:  # fmt: skip
    """Write the model that makes the engine's input of encoded images.

    The program that does it is a copy of the one that calibration and evaluation use. It is tried on an image, and a
    server whose Pillow makes other values of it does not load the model.

    Args:
        repository: folder of models.
        name: of the model.
        made: the engine's input.
        settings: the keyword arguments of `trtcompress_graph.preprocessing.to_input`.
        batch: of the engine.
        axes: ranges of the engine's axes.
        options: the user's choices.

    Raises:
        CompileError: the input has a type that does not travel so.
        StoreError: the folder cannot be written.
    """
    images = image_spec(made)
    program = Path(trtcompress_graph.preprocessing.__file__)
    step = {
        "input": IMAGE,
        "output": {"name": made.name, "dtype": made.dtype, "shape": _lengths(made)},
        "settings": dict(settings),
        "probe": _probe(settings),
    }
    link = Link(name, (images,), (made,))
    files = {program.name: program, "preprocess_runner.py": SERVED / "preprocess_runner.py"}
    _write(repository, link, PREPROCESS, step, files, batch, axes, options)
    return link


def write_postprocess(
    repository: Path, name: str, read: Sequence[TensorSpec], made: Sequence[TensorSpec], function: str,
    code: Mapping[str, Path], batch: Batching, axes: Axes, options: TritonOptions,
) -> Link:  # fmt: skip
    """Write the model that calls a user's function on the engine's outputs.

    Args:
        repository: folder of models.
        name: of the model.
        read: the engine's outputs.
        made: what the function returns, as it was tried.
        function: `package.module:function`.
        code: the modules and files that go along, by their place below `code/`.
        batch: of the engine.
        axes: ranges of the dynamic axes of `read`.
        options: the user's choices.

    Raises:
        CompileError: an output has a type that does not travel so.
        StoreError: the folder cannot be written.
    """
    step = {
        "function": function,
        "inputs": [{"name": spec.name, "rank": len(spec.shape)} for spec in read],
        "outputs": [{"name": spec.name, "dtype": spec.dtype, "shape": _lengths(spec)} for spec in made],
    }
    link = Link(name, tuple(read), tuple(made))
    programs = ("postprocess_runner.py", "user_function.py")
    files = {file: SERVED / file for file in programs} | {f"{CODE}/{place}": file for place, file in code.items()}
    _write(repository, link, POSTPROCESS, step, files, batch, axes, options)
    return link


def _write(
    repository: Path, link: Link, runner: str, step: Mapping[str, Any], files: Mapping[str, Path], batch: Batching,
    axes: Axes, options: TritonOptions,
) -> None:  # fmt: skip
    check_travels((*link.inputs, *link.outputs))
    told = Model(Path(), "", link.inputs, link.outputs)
    alone = replace(batch, dynamic=False, preferred=())  # one request has all its images at once; the engine joins them
    described = f"{runner}.json"
    held = {"model_file": described, "runner": runner, **parameters(told, axes, batch.max_size > 0)}
    serving = Serving(_PYTHON, "model.py", described, "KIND_CPU", held)
    hint = "free some space, or choose another folder with --out"
    with repository_errors(repository / link.served, hint), put_folder(repository / link.served) as folder:
        version = folder / VERSION
        for place, source in {**{file: SERVED / file for file in _ENTRY}, **files}.items():
            (version / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, version / place)
        digests = {place: files_digest([version / place]) for place in sorted(files)}
        path = version / described
        path.write_text(json.dumps({**step, "files": digests}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        checksum(path).write_text(f"{files_digest([path])}  {path.name}\n", encoding="utf-8")
        text = config_text(link.served, told, serving, alone, axes, replace(options, warmup="off"))
        (folder / "config.pbtxt").write_text(text, encoding="ascii")


def _lengths(spec: TensorSpec) -> list[int]:
    return [-1 if isinstance(dim, str) else dim for dim in spec.shape]


def _probe(settings: Mapping[str, Any]) -> dict[str, str]:
    """An image, and the digest of what becomes of it here."""
    import PIL
    from PIL import Image

    height, width = (max(edge + 7, _PROBE_EDGE) for edge in settings["crop"] or (0, 0))
    rows, columns = np.mgrid[0:height, 0 : width + 12]
    waves = [128 + 120 * np.sin(rows / (3 + k) + columns * math.pi / (11 - 2 * k)) for k in range(3)]
    encoded = io.BytesIO()
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(encoded, "JPEG", quality=85)
    values = trtcompress_graph.preprocessing.to_input(io.BytesIO(encoded.getvalue()), **settings)
    return {
        "image": base64.b64encode(encoded.getvalue()).decode("ascii"),
        "pillow": PIL.__version__,
        "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
    }
