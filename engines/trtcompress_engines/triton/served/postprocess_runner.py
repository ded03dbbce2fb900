"""The engine's outputs to the answer, by the user's function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .step_files import Step
from .user_function import call_function, load_function


class Runner(Step):
    """Calls the function that lies in `code`, and holds it to what it gave when it was packaged.

    Raises:
        ValueError: the function cannot be imported, or a file is not the one that was packaged.
    """

    def __init__(self, path: Path, parameters: dict[str, str], args: dict[str, str]) -> None:
        super().__init__(path, parameters, args)
        step = self.step
        self._name = step["function"]
        self._function = load_function(path.with_name("code"), self._name)
        self._read = {entry["name"]: entry for entry in step["inputs"]}
        self._made = {entry["name"]: entry for entry in step["outputs"]}
        self.inputs, self.outputs = list(self._read), list(self._made)

    def run(self, feed: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name; Triton has no scalars, so they come and go as arrays of shape `[1]`.

        Raises:
            ValueError: the function refuses the request.
            RuntimeError: it fails, or gives other outputs, types or shapes than when it was packaged.
        """
        arrays = {name: value.reshape(value.shape[: self._read[name]["rank"]]) for name, value in feed.items()}
        made = call_function(self._function, self._name, arrays)
        if made.keys() != self._made.keys():
            raise RuntimeError(f"{self._name} returned {sorted(made)}, and {sorted(self._made)} when it was packaged")
        for name, value in made.items():
            _check(value, self._made[name], self._name)
        return {name: np.atleast_1d(value) for name, value in made.items()}


def _check(value: Any, made: dict[str, Any], function: str) -> None:
    """`made["shape"]` has -1 where the length varied, the first axis of samples included."""
    fits = len(made["shape"]) == value.ndim and all(
        dim in (-1, length)
        for dim, length in zip(made["shape"], value.shape)  # noqa: B905  (Python 3.8)
    )
    if value.dtype.name != made["dtype"] or not fits:
        raise RuntimeError(
            f"{function} returned '{made['name']}' as {value.dtype.name}{list(value.shape)}, and as "
            f"{made['dtype']}{made['shape']} when it was packaged (-1: any length)"
        )
