"""Does a model repository still hold what was packaged? Read back with Triton's own protobuf."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import MissingPathError, RepositoryError
from trtcompress_graph.load import read_model
from trtcompress_graph.model import Model, TensorSpec

from .batching import Batching
from .config import profile_names, served_dims
from .datatypes import TRITON_TYPES
from .formats import PLAN_PROFILES
from .modelconfig import parameter, parse_config
from .plan_tensors import PlanTensors, read_tensors
from .repository import checksum
from .versions import served_version


def check_repository(repository: Path) -> None:
    """Compare each model's `config.pbtxt` with the model beside it.

    Raises:
        MissingPathError: no repository, or a model without its file.
        RepositoryError: a file was changed, or a configuration disagrees with its model.
    """
    if not repository.is_dir():
        raise MissingPathError("no such model repository", where=str(repository), hint="trtcompress package")
    for folder in sorted(entry for entry in repository.iterdir() if entry.is_dir()):
        _check_model(folder)


def _check_model(folder: Path) -> None:
    path = folder / "config.pbtxt"
    config = parse_config(path)
    if config.platform == "ensemble":
        _agree(path, "name", config.name, folder.name)
        _check_ensemble(path, config)
        return
    model = folder / str(served_version(folder, config)) / parameter(config, "model_file")
    if not model.is_file():
        raise MissingPathError("the model is missing", where=str(model), hint="package the model again")
    note = checksum(model)
    if not note.is_file():
        raise MissingPathError("the digest of the model is missing", where=str(note), hint="package the model again")
    _agree(note, "SHA-256", note.read_text(encoding="utf-8").partition(" ")[0], files_digest([model]))
    if model.suffix == ".json":
        _check_programs(model)
    check_config(folder, config, read_model(model) if model.suffix == ".onnx" else None)


def check_config(folder: Path, config: Any, graph: Model | None) -> None:
    """Compare the configuration of a model with what is served; digests are the server's to look at.

    Args:
        folder: of the model in the repository.
        config: its `ModelConfig`; of no ensemble.
        graph: the ONNX model that is served; None where it is a plan, of which what it takes lies beside it.

    Raises:
        RepositoryError: they disagree.
    """
    path = folder / "config.pbtxt"
    _agree(path, "name", config.name, folder.name)
    _check_profiles(path, config)
    held = graph or _tensors_of_plan(folder, config)
    if held is not None:
        batch = Batching(config.max_batch_size)
        _check_tensors(path, "input", config.input, held.inputs, batch)
        _check_tensors(path, "output", config.output, held.outputs, batch)
    if isinstance(held, PlanTensors) and config.max_batch_size > held.greatest_batch:
        raise RepositoryError(
            f"max_batch_size is {config.max_batch_size} here, and the plan was packed for at most "
            f"{held.greatest_batch}",
            where=str(path),
            hint="build it with a greater range of the batch axis, and package it again",
        )
    _check_batches(path, config)


def _tensors_of_plan(folder: Path, config: Any) -> PlanTensors | None:
    model = folder / str(served_version(folder, config)) / parameter(config, "model_file")
    return read_tensors(model, checksum(model)) if model.suffix == ".plan" else None


def _check_profiles(path: Path, config: Any) -> None:
    """Every instance has all profiles of the plan: a shape that only another profile holds would be refused."""
    told = parameter(config, PLAN_PROFILES)
    held = profile_names(int(told)) if told.isdecimal() else []
    for group in config.instance_group:
        _agree(path, "profiles of an instance group", list(group.profile), held)


def _check_batches(path: Path, config: Any) -> None:
    """Triton loads no model that is to wait for more samples than it takes, and its answer does not say why."""
    beyond = [size for size in config.dynamic_batching.preferred_batch_size if size > config.max_batch_size]
    if beyond:
        raise RepositoryError(
            f"preferred_batch_size {beyond[0]} is beyond max_batch_size {config.max_batch_size}",
            where=str(path),
            hint="package the model again, or let `trtcompress tune` choose the sizes",
        )


def _check_programs(described: Path) -> None:
    """Of a step before or after an engine: its programs are those that were packaged."""
    for name, digest in json.loads(described.read_text(encoding="utf-8"))["files"].items():
        file = described.parent / name
        if not file.is_file():
            raise MissingPathError("a program of this step is missing", where=str(file), hint="package the model again")
        _agree(file, "SHA-256", digest, files_digest([file]))


def _check_ensemble(path: Path, config: Any) -> None:
    """Its models lie beside it, and read and make what it says; what one makes another reads or the ensemble gives."""
    made: dict[str, Any] = {}
    read: dict[str, Any] = {}
    for step in config.ensemble_scheduling.step:
        asked = parse_config(path.parent.parent / step.model_name / "config.pbtxt")
        _agree(path, f"inputs of '{asked.name}'", sorted(step.input_map), sorted(entry.name for entry in asked.input))
        read |= {step.input_map[entry.name]: entry.data_type for entry in asked.input}
        made |= {
            step.output_map[entry.name]: entry.data_type for entry in asked.output if entry.name in step.output_map
        }
    between = read.keys() & made.keys()
    _agree(path, "tensors between models", {n: made[n] for n in between}, {n: read[n] for n in between})
    given, answered = ({e.name: e.data_type for e in entries} for entries in (config.input, config.output))
    _agree(path, "inputs", given, {name: kind for name, kind in read.items() if name not in between})
    _agree(path, "outputs", answered, {n: kind for n, kind in made.items() if n not in between or n in answered})


def _check_tensors(path: Path, kind: str, entries: Any, specs: tuple[TensorSpec, ...], batch: Batching) -> None:
    from tritonclient.grpc.model_config_pb2 import DataType

    _agree(path, f"{kind}s", sorted(entry.name for entry in entries), sorted(spec.name for spec in specs))
    by_name = {spec.name: spec for spec in specs}
    for entry in entries:
        spec = by_name[entry.name]
        dims, reshape = served_dims(spec, batch)
        place = f"{kind} '{entry.name}'"
        _agree(path, f"{place} data_type", DataType.Name(entry.data_type), TRITON_TYPES.get(spec.dtype))
        _agree(path, f"{place} dims", list(entry.dims), dims)
        _agree(path, f"{place} reshape", entry.HasField("reshape"), reshape)


def _agree(path: Path, key: str, written: object, held: object) -> None:
    if written != held:
        raise RepositoryError(
            f"{key} is {written} here and {held} in the model",
            where=str(path),
            hint="package the model again instead of editing what lies beside it by hand",
        )
