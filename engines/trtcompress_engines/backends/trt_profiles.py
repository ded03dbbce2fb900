"""Optimization profiles: which shapes an engine takes, and for which of them the builder chooses its kernels."""

from __future__ import annotations

from collections.abc import Mapping

from trtcompress_graph.errors import CompileError
from trtcompress_graph.model import Model

from ..backend import CompileOptions, Profile


def checked_profiles(graph: Model, options: CompileOptions) -> tuple[dict[str, Profile], ...]:
    """Every profile, of all inputs; none where no axis is dynamic.

    Raises:
        CompileError: a dynamic axis has no range, or a profile does not fit the graph.
    """
    if all(isinstance(dim, int) for spec in graph.inputs for dim in spec.shape):
        return ()
    return tuple(_checked(graph, shapes) for shapes in (options.profiles, *options.more_profiles))


def _checked(graph: Model, shapes_of: Mapping[str, Profile]) -> dict[str, Profile]:
    """Least, usual and greatest shape of each input."""
    found: dict[str, Profile] = {}
    for spec in graph.inputs:
        where = f"{graph.path}: input '{spec.name}'"
        dynamic = [dim for dim in spec.shape if isinstance(dim, str)]
        fixed = tuple(dim for dim in spec.shape if isinstance(dim, int))
        shapes = shapes_of.get(spec.name, (fixed, fixed, fixed) if not dynamic else None)
        if shapes is None:
            raise CompileError(
                f"the dynamic axis '{dynamic[0]}' has no range, and TensorRT needs one",
                where=where,
                hint="give its least, usual and greatest length: "
                f"--set 'model.inputs.{spec.name}.{dynamic[0]}=[1, 8, 16]'",
            )
        for shape in shapes:
            if len(shape) != len(spec.shape) or any(
                length != dim for length, dim in zip(shape, spec.shape, strict=True) if isinstance(dim, int)
            ):
                raise CompileError(f"the profile's shape {shape} does not fit {spec.shape}", where=where)
        if not all(0 < low <= usual <= high for low, usual, high in zip(*shapes, strict=True)):
            raise CompileError(f"least, usual and greatest shape do not rise: {shapes}", where=where)
        found[spec.name] = shapes
    return found
