"""The steps before and after an engine, done here without a server: what a served one has to answer."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trtcompress_graph.callables import load_callable
from trtcompress_graph.errors import DataError, ServingError
from trtcompress_graph.preprocessing import ImageError, to_input

from .modelconfig import parameter
from .served.user_function import call_function
from .steps import CODE, POSTPROCESS, PREPROCESS
from .versions import served_version

if TYPE_CHECKING:
    from ..backend import Array

StepCall = Callable[[Mapping[str, "Array"]], dict[str, "Array"]]


def is_step(config: Any) -> bool:
    """Whether a served model is such a step."""
    return parameter(config, "runner") in (PREPROCESS, POSTPROCESS)


def step_path(folder: Path, config: Any) -> Path:
    """Its description, in the version that is served."""
    return folder / str(served_version(folder, config)) / parameter(config, "model_file")


def open_step(folder: Path, config: Any) -> StepCall:
    """A call that does what the step has to do: the preprocessing of this release, the function in the repository.

    Raises:
        UsageError: the user's function cannot be imported.
    """
    path = step_path(folder, config)
    step = json.loads(path.read_text(encoding="utf-8"))
    if parameter(config, "runner") == PREPROCESS:
        return lambda feed: _preprocessed(step, feed)
    function = load_callable(step["function"], path.with_name(CODE))
    return lambda feed: _postprocessed(step, function, feed)


def _preprocessed(step: Any, feed: Mapping[str, Array]) -> dict[str, Array]:
    made = step["output"]
    try:
        values = [to_input(io.BytesIO(one), **step["settings"]) for one in feed[step["input"]].ravel().tolist()]
        whole = values[0] if values[0].ndim == len(made["shape"]) else np.stack(values)
    except (ImageError, ValueError, TypeError) as error:
        raise DataError(str(error), where=f"input '{step['input']}'") from error
    if any(dim not in (-1, length) for dim, length in zip(made["shape"][-3:], whole.shape[-3:], strict=True)):
        raise DataError(f"shape {list(whole.shape)} is not {made['shape']}", where=f"input '{step['input']}'")
    return {made["name"]: whole.astype(made["dtype"])}


def _postprocessed(step: Any, function: Callable[..., Any], feed: Mapping[str, Array]) -> dict[str, Array]:
    ranks = {entry["name"]: entry["rank"] for entry in step["inputs"]}
    arrays = {name: value.reshape(value.shape[: ranks[name]]) for name, value in feed.items()}
    try:
        made = call_function(function, step["function"], arrays)
    except ValueError as error:
        raise DataError(str(error), where=step["function"]) from error
    except RuntimeError as error:
        raise ServingError(str(error), where=step["function"]) from error
    return {name: _encoded(value) for name, value in made.items()}


def _encoded(value: Array) -> Array:
    """Texts travel as UTF-8."""
    if value.dtype.kind != "O":
        return value
    texts = np.empty(value.shape, dtype=object)
    for place in np.ndindex(value.shape):
        item: Any = value[place]
        texts[place] = item.encode() if isinstance(item, str) else item
    return texts
