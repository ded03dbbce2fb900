"""The user's function behind the engine: how it is loaded and called, in the server and when it is tried before.

As a program: `user_function.py CODE FUNCTION FOLDER` calls it on what `tried.json` of the folder lists, arrays by name
as the files that hold them, and writes types and shapes of what it made to `made.json`, what is wrong to `error.txt`.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
FLOATS = ("float16", "float32", "float64")


def load_function(code: Path, name: str) -> Any:
    """The function `package.module:function` whose modules lie in the folder `code`.

    Raises:
        ValueError: it cannot be imported, or is not there.
    """
    module, _, attribute = name.partition(":")
    sys.path.insert(0, str(code))
    try:
        function = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # the user's own module can raise anything
        raise ValueError(f"'{name}' cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ValueError(f"'{module}' has no function '{attribute}'")
    return function


def call_function(function: Any, name: str, outputs: dict[str, Any]) -> dict[str, Any]:
    """What it makes of the engine's outputs, as arrays that Triton carries; it may write into what it gets.

    Raises:
        RuntimeError: it failed, or its result is not a dict of arrays.
        ValueError: it raised one itself: the request is at fault.
    """
    try:
        made = function({key: np.array(value) for key, value in outputs.items()})
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except Exception as error:  # the user's own code can raise anything
        there = ", ".join(outputs)
        raise RuntimeError(f"{name} failed: {type(error).__name__}: {error} (the outputs are: {there})") from error
    if not isinstance(made, dict) or not made:
        raise RuntimeError(f"{name} returned {type(made).__name__ if made != {} else 'nothing'}, not a dict of arrays")
    return {key: _array(value, key, name) for key, value in made.items()}


def _array(value: Any, key: Any, name: str) -> Any:
    if not isinstance(key, str) or not key:
        raise RuntimeError(f"{name} returned a dict with the key {key!r}: outputs are named by texts")
    if not isinstance(value, (np.ndarray, np.generic)):
        raise RuntimeError(f"{name} returned '{key}' as {type(value).__name__}, not as an array")
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        if not all(isinstance(item, (str, bytes)) for item in array.ravel().tolist()):
            raise RuntimeError(f"{name} returned '{key}' as an array of objects that are no texts")
        return array.astype(object)
    if array.dtype.name not in NUMBERS + FLOATS:
        raise RuntimeError(f"{name} returned '{key}' of type {array.dtype.name}, which Triton does not carry")
    return array


def _try(code: Path, name: str, folder: Path) -> None:
    function, found = load_function(code, name), []
    for arrays in json.loads((folder / "tried.json").read_text(encoding="utf-8")):
        made = call_function(function, name, {key: np.load(folder / file) for key, file in arrays.items()})
        found.append({key: {"dtype": value.dtype.name, "shape": list(value.shape)} for key, value in made.items()})
    (folder / "made.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    place = Path(sys.argv[3])
    try:
        _try(Path(sys.argv[1]), sys.argv[2], place)
    except (RuntimeError, ValueError) as problem:
        (place / "error.txt").write_text(str(problem), encoding="utf-8")
        sys.exit(1)
