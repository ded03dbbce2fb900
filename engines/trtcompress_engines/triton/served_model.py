"""A model of a repository as clients see it: its tensors, its batches, and how long its axes may be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trtcompress_graph.axes import Axes, AxisRange
from trtcompress_graph.errors import CompileError, MissingPathError, UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model, TensorSpec

from .datatypes import TRITON_TYPES
from .modelconfig import parameter, parse_config
from .ranged import RANGES, from_text
from .versions import served_version

Place = tuple[str, int]
"""An input, and the index of an axis as it travels: with the batch, where Triton batches."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """As it travels, without the batch; -1 is a dynamic axis. `dtype` is numpy's name."""

    name: str
    dtype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """A served model.

    Attributes:
        folder: in the repository.
        config: its `ModelConfig`.
        graph: the ONNX model that is served, and None where that is a plan or an ensemble.
        max_batch: 0 where Triton does not batch.
        axes: range of each dynamic axis but the batch, and the places where it is.
        towers: of an ensemble, in the order of its steps.
    """

    name: str
    folder: Path
    config: Any
    graph: Model | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    axes: Mapping[tuple[Place, ...], AxisRange]
    towers: tuple[Served, ...] = ()


def model_names(repository: Path, wanted: Sequence[str] = ()) -> list[str]:
    """The models of a repository, or those of them that are wanted.

    Raises:
        MissingPathError: no repository.
        UsageError: it holds no model, or not this one.
    """
    if not repository.is_dir():
        raise MissingPathError("no such model repository", where=str(repository), hint="trtcompress package")
    there = sorted(entry.name for entry in repository.iterdir() if (entry / "config.pbtxt").is_file())
    if not there:
        hint = "trtcompress package BUILD_DIR -o REPO"
        raise UsageError("there is no model in this repository", where=str(repository), hint=hint)
    for name in wanted:
        if name not in there:
            hint = f"it has: {', '.join(there)}"
            raise UsageError(f"the repository has no model '{name}'", where=f"--model {name}", hint=hint)
    return list(wanted) or there


def read_served(repository: Path, name: str, axes: Axes) -> Served:
    """Read a model of a repository.

    Args:
        repository: folder of models.
        name: of the model.
        axes: ranges that replace those that were packaged, by input and by name or index of the axis.

    Raises:
        CompileError: its `config.pbtxt` is none.
        UsageError: a dynamic axis has no range.
    """
    folder = repository / name
    config = parse_config(folder / "config.pbtxt")
    if config.platform == "ensemble":
        steps = list(dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step))
        towers = tuple(read_served(repository, step, axes) for step in steps)
        return _described(name, folder, config, None, _of_towers(config, towers), towers)
    version = served_version(folder, config)
    model = folder / str(version) / parameter(config, "model_file")
    if not model.is_file():
        raise MissingPathError("the model is missing", where=str(model), hint="package the model again")
    graph = read_model(model) if model.suffix == ".onnx" else None
    ranges = _overridden(_packaged(config, folder, graph), axes, graph)
    served = _described(name, folder, config, graph, ranges, ())
    lacking = _lacking(served)
    if lacking:
        raise UsageError(
            f"the dynamic axes {', '.join(f'{tensor}.{index}' for tensor, index in lacking)} have no range",
            where=str(folder / "config.pbtxt"),
            hint=f"package the model again, or give it: --axis {lacking[0][0]}.{lacking[0][1]}=1,8,16",
        )
    return served


def _described(
    name: str,
    folder: Path,
    config: Any,
    graph: Model | None,
    axes: Mapping[tuple[Place, ...], AxisRange],
    towers: tuple[Served, ...],
) -> Served:
    batch = int(config.max_batch_size)
    inputs, outputs = (tuple(map(_tensor, entries)) for entries in (config.input, config.output))
    return Served(name, folder, config, graph, inputs, outputs, batch, axes, towers)


def _tensor(entry: Any) -> Tensor:
    from tritonclient.grpc.model_config_pb2 import DataType

    numpy_names = {written: name for name, written in TRITON_TYPES.items()}
    written = DataType.Name(entry.data_type)
    if written not in numpy_names:
        raise CompileError(f"no tensor has the type {written}", where=f"tensor '{entry.name}'", hint="package it again")
    return Tensor(entry.name, numpy_names[written], tuple(int(dim) for dim in entry.dims))


def _packaged(config: Any, folder: Path, graph: Model | None) -> dict[tuple[Place, ...], AxisRange]:
    """What `package` wrote; of older packages the lengths of the warm-up, and no others."""
    text = parameter(config, RANGES)
    if text:
        try:
            return from_text(text)
        except (ValueError, TypeError, KeyError, json.JSONDecodeError) as error:
            raise CompileError(
                f"parameter '{RANGES}' is damaged: {error}", where=str(folder / "config.pbtxt"), hint="package it again"
            ) from error
    start = 1 if config.max_batch_size else 0
    lengths: dict[tuple[Place, ...], AxisRange] = {}
    if config.model_warmup:
        usual = config.model_warmup[-1].inputs
        for entry in config.input:
            for index, dim in enumerate(entry.dims):
                if dim == -1 and entry.name in usual:
                    length = int(usual[entry.name].dims[index])
                    places = _places(graph.inputs if graph else (), entry.name, index + start)
                    lengths[places] = AxisRange(length, length, length)
    return lengths


def _overridden(
    ranges: Mapping[tuple[Place, ...], AxisRange], axes: Axes, graph: Model | None
) -> dict[tuple[Place, ...], AxisRange]:
    """An axis is meant where it is at any of its places; its name is known where there is a graph."""
    specs: tuple[TensorSpec, ...] = graph.inputs if graph else ()
    index_of = {(spec.name, str(dim)): index for spec in specs for index, dim in enumerate(spec.shape)}
    found = dict(ranges)
    for tensor, named in axes.items():
        for axis, length in named.items():
            index = int(axis) if axis.isdigit() else index_of.get((tensor, axis))
            if index is None:
                continue
            places = next((key for key in found if (tensor, index) in key), None)
            found[places or _places(specs, tensor, index)] = length
    return found


def _places(specs: Sequence[TensorSpec], tensor: str, index: int) -> tuple[Place, ...]:
    """All places of the axis that is here."""
    dim = next((spec.shape[index] for spec in specs if spec.name == tensor and index < len(spec.shape)), None)
    shared = [(spec.name, i) for spec in specs for i, other in enumerate(spec.shape) if other == dim]
    return tuple(shared) if isinstance(dim, str) else ((tensor, index),)


def _lacking(served: Served) -> list[Place]:
    ranged = {place for places in served.axes for place in places}
    start = 1 if served.max_batch else 0
    dynamic = [(t.name, i + start) for t in served.inputs for i, dim in enumerate(t.dims) if dim == -1]
    return [place for place in dynamic if place not in ranged]


def _of_towers(config: Any, towers: Sequence[Served]) -> dict[tuple[Place, ...], AxisRange]:
    """Ranges of an ensemble; where it does not batch itself, a request carries a batch for each tower that does."""
    found: dict[tuple[Place, ...], AxisRange] = {}
    for tower in towers:
        found |= tower.axes
        if tower.max_batch and not config.max_batch_size:
            usual = max(1, tower.max_batch // 2)
            found[tuple((tensor.name, 0) for tensor in tower.inputs)] = AxisRange(1, usual, tower.max_batch)
    return found


def at_usual_lengths(served: Served) -> Served:
    """The same model with every axis at its usual length."""
    return replace(served, axes={places: AxisRange(r.opt, r.opt, r.opt) for places, r in served.axes.items()})
