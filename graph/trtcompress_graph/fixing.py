"""Inputs that always have one value become constants of the model, so that all that follows from them can be folded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import ModelError, UsageError
from .load import load_ir, save_ir
from .model import Model, TensorSpec

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

Fixed = Mapping[str, object]
"""Values of inputs by name: a number, a truth value, or (nested) lists of them."""


def fix_inputs(model: Model, values: Fixed, out: Path) -> Model:
    """Write the model with the named inputs fixed; nothing else changes.

    Raises:
        ModelError: see `fix_inputs_ir`.
    """
    graph = load_ir(model)
    fix_inputs_ir(graph, model, values)
    return save_ir(graph, out)


def fix_inputs_ir(graph: ir.Model, model: Model, values: Fixed) -> None:
    """Turn inputs into initializers of the same name, in place.

    Args:
        graph: loaded from `model`.
        model: describes its inputs.
        values: a single number fills an input of any fixed shape.

    Raises:
        ModelError: there is no such input, or none would be left, or a value does not fit its type or shape.
    """
    import onnx_ir as ir

    specs = {spec.name: spec for spec in model.inputs}
    for name, value in values.items():
        if name not in specs:
            raise _no_input(model, name, specs)
        array = _array(value, specs[name], f"{model.path}: input '{name}'")
        given = next(held for held in graph.graph.inputs if held.name == name)
        graph.graph.inputs.remove(given)
        given.const_value = ir.tensor(array, name=name)
        given.shape = ir.Shape(array.shape)
        graph.graph.register_initializer(given)
    if values and not set(specs) - set(values):
        raise ModelError("every input is fixed, so that nothing is left to compute", where=str(model.path))


def read_fixed(text: str) -> tuple[str, object]:
    """`sr=16000` or `sizes=[1, 2]` as name and value.

    Raises:
        UsageError: not of the form.
    """
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        hint = "--fix sr=16000, or --fix 'sizes=[1,2]'"
        raise UsageError(f"'{text}' is not INPUT=VALUE", where="--fix", hint=hint) from None


def read_all_fixed(texts: Iterable[str]) -> dict[str, object]:
    """Values by name, of texts as `read_fixed` takes them.

    Raises:
        UsageError: one is not of the form, or a name is there twice.
    """
    found: dict[str, object] = {}
    for name, value in map(read_fixed, texts):
        if name in found:
            raise UsageError(f"the input '{name}' is there twice", where="--fix", hint="give it one value")
        found[name] = value
    return found


def _array(value: object, spec: TensorSpec, where: str) -> NDArray[np.generic]:
    """The value in type and shape of the input.

    Raises:
        ModelError: it does not fit.
    """
    shape = ", ".join(map(str, spec.shape))
    wanted = f"{spec.dtype} [{shape}]"
    try:
        given = np.asarray(value)
        cast = given.astype(np.dtype(spec.dtype))
    except (TypeError, ValueError):
        raise ModelError(f"{value!r} is no value for an input of {wanted}", where=where) from None
    truth = (spec.dtype == "bool") == (given.dtype == bool)
    exact = spec.dtype.startswith("float") or bool(np.array_equal(cast, given))
    if given.dtype.kind not in "iufb" or not truth or not exact or not np.isfinite(cast.astype(np.float64)).all():
        raise ModelError(f"{value!r} is no value for an input of {wanted}", where=where)
    known = [dim for dim in spec.shape if isinstance(dim, int)]
    if cast.ndim == 0 and len(known) == len(spec.shape):
        return np.full(tuple(known), cast)
    fits = cast.ndim == len(spec.shape) and all(
        isinstance(dim, str) or dim == length for dim, length in zip(spec.shape, cast.shape, strict=True)
    )
    if not fits:
        raise ModelError(
            f"a value of shape {list(cast.shape)} does not fit an input of {wanted}",
            where=where,
            hint="give nested lists of that shape",
        )
    return cast


def _no_input(model: Model, name: str, specs: Mapping[str, TensorSpec]) -> ModelError:
    near = get_close_matches(name, specs, n=1)
    return ModelError(
        f"the model has no input '{name}' that could be fixed",
        where=str(model.path),
        hint=(f"did you mean '{near[0]}'? " if near else "") + f"its inputs are: {', '.join(specs)}",
    )
