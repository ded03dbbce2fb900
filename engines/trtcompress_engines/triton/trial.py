"""A user's function tried before it is served: alone in a process, with nothing beside it but what goes along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcompress_graph.errors import CompileError
from trtcompress_graph.model import Dim, TensorSpec

from .repository import SERVED

if TYPE_CHECKING:
    from ..backend import Array

SECONDS = 300
"""How long it may take for all that it is tried on."""

_WHERE = "triton.postprocess"
_HINT = "it gets a dict of arrays by the names of the engine's outputs, and returns a dict of arrays"
_HINTS = {
    "UnicodeDecodeError": "a server reads files as ASCII where no encoding is given: open(..., encoding='utf-8')",
    "FileNotFoundError": "a file goes along by `triton: {sources: [labels.txt]}` and lies beside the module then: "
    "open(Path(__file__).with_name('labels.txt'))",
    "ModuleNotFoundError": "modules of the project go along; what else it imports has to be installed, here and there",
}
"""What to do about some errors."""

Made = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type and shape by name."""


def try_function(function: str, code: Mapping[str, Path], fed: Sequence[Mapping[str, Array]]) -> list[Made]:
    """What the function makes of each of these outputs of the engine.

    Args:
        function: `package.module:function`.
        code: its modules and files, by the place that they will have.
        fed: arrays by name.

    Raises:
        CompileError: it cannot be imported, fails, or does not return a dict of arrays.
    """
    with TemporaryDirectory(prefix="trtcompress-") as temporary:
        folder = Path(temporary)
        for place, source in code.items():
            (folder / "code" / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / "code" / place)
        _write(fed, folder)
        # As in a server: neither this folder nor PYTHONPATH counts, and texts are ASCII where nothing is said
        program = [str(SERVED / "user_function.py"), str(folder / "code"), function, temporary]
        command = [sys.executable, "-I", "-X", "utf8=0", *program]
        alone = {**os.environ, "LC_ALL": "C"}
        try:
            ran = subprocess.run(
                command, cwd=folder, env=alone, capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CompileError(f"{function} took more than {SECONDS} s", where=_WHERE, hint=_HINT) from error
        if not (folder / "made.json").is_file():
            told = folder / "error.txt"
            last = ran.stderr.strip().splitlines()[-1:] or [f"it ended the process with {ran.returncode}"]
            what = told.read_text(encoding="utf-8") if told.is_file() else f"{function} failed: {last[0]}"
            hint = next((hint for error, hint in _HINTS.items() if error in what), _HINT)
            raise CompileError(what, where=_WHERE, hint=hint)
        found = json.loads((folder / "made.json").read_text(encoding="utf-8"))
    return [{name: (one["dtype"], tuple(one["shape"])) for name, one in made.items()} for made in found]


def _write(fed: Sequence[Mapping[str, Array]], folder: Path) -> None:
    listed: list[dict[str, str]] = []
    for index, arrays in enumerate(fed):
        listed.append({name: f"{index}.{place}.npy" for place, name in enumerate(arrays)})
        for name, array in arrays.items():
            np.save(folder / listed[-1][name], array, allow_pickle=False)
    (folder / "tried.json").write_text(json.dumps(listed), encoding="utf-8")


def described(function: str, made: Sequence[Made], batches: Sequence[int] | None) -> tuple[TensorSpec, ...]:
    """Name, type and shape of what the function returns; an axis whose length varied is dynamic.

    Args:
        function: for messages.
        made: of each trial.
        batches: samples of each trial, where Triton batches: then every output has one row a sample.

    Raises:
        CompileError: names, types or ranks differ from trial to trial, or an output has no axis of samples.
    """
    return tuple(_described(function, name, made, batches) for name in _names(function, made))


def _names(function: str, made: Sequence[Made]) -> list[str]:
    names = list(made[0])
    for other in made[1:]:
        if sorted(other) != sorted(names):
            what = f"{function} returned {sorted(names)} for one sample and {sorted(other)} for another"
            raise CompileError(what, where=_WHERE, hint="return the same outputs for every request")
    return names


def _described(function: str, name: str, made: Sequence[Made], batches: Sequence[int] | None) -> TensorSpec:
    kinds: list[Any] = sorted({(one[name][0], len(one[name][1])) for one in made})
    if len(kinds) > 1:
        told = " and as ".join(f"{dtype} of rank {rank}" for dtype, rank in kinds)
        what = f"{function} returned '{name}' as {told}"
        raise CompileError(what, where=_WHERE, hint="return the same type and rank for every request")
    shapes = [one[name][1] for one in made]
    if batches is not None and (bad := [(n, s) for n, s in zip(batches, shapes, strict=True) if s[:1] != (n,)]):
        raise CompileError(
            f"{function} returned '{name}' of shape {list(bad[0][1])} for {bad[0][0]} samples: the engine is served in "
            "batches, and such an output cannot be cut into them",
            where=_WHERE,
            hint="return every output with a first axis of samples, filled up to one length where samples have more "
            "and fewer results",
        )
    lengths: list[Dim] = [
        dims[0] if len(set(dims)) == 1 else f"{name}_{i}" for i, dims in enumerate(zip(*shapes, strict=True))
    ]
    if batches is not None:
        lengths[0] = "batch"
    return TensorSpec(name, kinds[0][0], tuple(lengths))
