"""A model of a repository as clients see it: its tensors, its batches, and how long its axes may be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trtcompress_graph.axes import Axes, AxisRange
from trtcompress_graph.errors import MissingPathError, RepositoryError, UsageError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model

from .asked_models import asked_in
from .check import check_config
from .datatypes import TRITON_TYPES
from .images import Images, images_of
from .modelconfig import parameter, parse_config
from .ranged import Place, overridden, packaged
from .step_reference import step_path
from .steps import PREPROCESS
from .versions import served_version


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
        steps: of an ensemble.
        images: inputs that take encoded images, and what images.
    """

    name: str
    folder: Path
    config: Any
    graph: Model | None
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch: int
    axes: Mapping[tuple[Place, ...], AxisRange]
    steps: tuple[Step, ...] = ()
    images: Mapping[str, Images] = field(default_factory=dict)

    @property
    def towers(self) -> tuple[Served, ...]:
        """The models that an ensemble asks."""
        return tuple({step.model.name: step.model for step in self.steps}.values())


@dataclass(frozen=True, slots=True)
class Step:
    """A model that an ensemble asks: its inputs and outputs, by the names that the ensemble has for them."""

    model: Served
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def model_names(repository: Path, wanted: Sequence[str] = ()) -> list[str]:
    """The models of a repository that are served, or those of all of them that are wanted.

    Left out is what an ensemble asks only in a version that is there for going back to it.

    Raises:
        MissingPathError: no repository.
        UsageError: it holds no model, or not this one.
    """
    if not repository.is_dir():
        raise MissingPathError("no such model repository", where=str(repository), hint="trtcompress package")
    there = sorted(entry.name for entry in repository.iterdir() if (entry / "config.pbtxt").is_file())
    if not there:
        bare = [entry.name for entry in sorted(repository.iterdir()) if any(entry.glob("[1-9]*/model.*"))]
        if bare:
            where, hint = str(repository / bare[0] / "config.pbtxt"), "trtcompress package BUILD_DIR -o REPO writes it"
            raise MissingPathError("the configuration of this model is missing", where=where, hint=hint)
        inner = sorted(str(entry) for entry in repository.iterdir() if any(entry.glob("*/config.pbtxt")))
        hint = f"it holds repositories: {', '.join(inner)}" if inner else "trtcompress package BUILD_DIR -o REPO"
        raise UsageError("there is no model in this repository", where=str(repository), hint=hint)
    for name in wanted:
        if name not in there:
            hint = f"it has: {', '.join(there)}"
            raise UsageError(f"the repository has no model '{name}'", where=f"--model {name}", hint=hint)
    if wanted:
        return list(wanted)
    old = _for_going_back(repository)
    return [name for name in there if name not in old]


def _for_going_back(repository: Path) -> frozenset[str]:
    """The models that ensembles ask only in versions that are not served."""
    return asked_in(repository, served=False) - asked_in(repository, served=True)


def read_served(repository: Path, name: str, axes: Axes) -> Served:
    """Read a model of a repository.

    Args:
        repository: folder of models.
        name: of the model.
        axes: ranges that replace those that were packaged, by input and by name or index of the axis.

    Raises:
        RepositoryError: its `config.pbtxt` is none, or disagrees with the model beside it.
        UsageError: a dynamic axis has no range.
    """
    folder = repository / name
    config = parse_config(folder / "config.pbtxt")
    if config.platform == "ensemble":
        steps = tuple(_step(repository, entry, axes) for entry in config.ensemble_scheduling.step)
        served = _with_images(_described(name, folder, config, None, _of_steps(config, steps), steps))
    else:
        graph = _graph(folder, config)
        check_config(folder, config, graph)
        ranges = overridden(packaged(config, folder, graph), axes, graph)
        served = _described(name, folder, config, graph, ranges, ())
        if parameter(config, "runner") == PREPROCESS:
            described = json.loads(step_path(folder, config).read_text(encoding="utf-8"))
            served = replace(served, images={served.inputs[0].name: images_of(described, {})})
    lacking = _lacking(served)
    if lacking:
        raise UsageError(
            f"the dynamic axes {', '.join(f'{tensor}.{index}' for tensor, index in lacking)} have no range",
            where=str(folder / "config.pbtxt"),
            hint=f"package the model again, or give it: --axis {lacking[0][0]}.{lacking[0][1]}=1,8,16",
        )
    return served


def _step(repository: Path, entry: Any, axes: Axes) -> Step:
    model = read_served(repository, entry.model_name, axes)
    return Step(model, dict(entry.input_map), dict(entry.output_map))


def _with_images(served: Served) -> Served:
    """An ensemble takes what images its models take; of the sizes that the engine behind them takes."""
    found: dict[str, Images] = {}
    for step in served.steps:
        for name, images in step.model.images.items():
            (made,) = step.outputs.values()
            found[step.inputs[name]] = _in_range(images, step.model, made, served.steps)
    return replace(served, images=found)


def _in_range(images: Images, model: Served, made: str, steps: Sequence[Step]) -> Images:
    ranges: dict[int, tuple[int, int]] = {}
    for step in steps:
        read = {theirs: name for name, theirs in step.inputs.items()}
        for places, length in step.model.axes.items():
            ranges |= {index: (length.min, length.max) for name, index in places if read.get(made) == name}
    described = json.loads(step_path(model.folder, model.config).read_text(encoding="utf-8"))
    return images_of(described, ranges)


def _graph(folder: Path, config: Any) -> Model | None:
    """The ONNX model that is served; None where it is a plan, or a program that serves no model."""
    file = parameter(config, "model_file")
    model = folder / str(served_version(folder, config)) / file
    if file and not model.is_file():
        raise MissingPathError("the model is missing", where=str(model), hint="package the model again")
    return read_model(model) if model.suffix == ".onnx" else None


def _described(
    name: str,
    folder: Path,
    config: Any,
    graph: Model | None,
    axes: Mapping[tuple[Place, ...], AxisRange],
    steps: tuple[Step, ...],
) -> Served:
    batch = int(config.max_batch_size)
    inputs, outputs = (tuple(map(_tensor, entries)) for entries in (config.input, config.output))
    return Served(name, folder, config, graph, inputs, outputs, batch, axes, steps)


def _tensor(entry: Any) -> Tensor:
    from tritonclient.grpc.model_config_pb2 import DataType

    numpy_names = {written: name for name, written in TRITON_TYPES.items()}
    written = DataType.Name(entry.data_type)
    if written not in numpy_names:
        raise RepositoryError(
            f"no tensor has the type {written}", where=f"tensor '{entry.name}'", hint="package it again"
        )
    return Tensor(entry.name, numpy_names[written], tuple(int(dim) for dim in entry.dims))


def _lacking(served: Served) -> list[Place]:
    ranged = {place for places in served.axes for place in places}
    start = 1 if served.max_batch else 0
    dynamic = [(t.name, i + start) for t in served.inputs for i, dim in enumerate(t.dims) if dim == -1]
    return [place for place in dynamic if place not in ranged]


def _of_steps(config: Any, steps: Sequence[Step]) -> dict[tuple[Place, ...], AxisRange]:
    """Ranges of an ensemble; where it does not batch itself, a request carries a batch for each model that does."""
    read = {entry.name for entry in config.input}
    found: dict[tuple[Place, ...], AxisRange] = {}
    for step in steps:
        ranges = dict(step.model.axes)
        if step.model.max_batch and not config.max_batch_size:
            most = step.model.max_batch
            ranges[tuple((name, 0) for name in step.inputs)] = AxisRange(1, max(1, most // 2), most)
        for places, length in ranges.items():
            mapped = tuple((step.inputs[name], index) for name, index in places if step.inputs.get(name) in read)
            if mapped:
                found[mapped] = length
    return found
