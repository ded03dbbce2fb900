"""An ensemble: one served model that hands each of its inputs to the tower that reads it, and answers with all outputs.

Source: Triton's user guide, page "Ensemble Models".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trtcompress_graph.errors import CompileError
from trtcompress_graph.model import Model, TensorSpec

from .aside import put_folder
from .batching import Batching
from .config import served_dims
from .datatypes import TRITON_TYPES
from .repository import VERSION
from .textproto import Message, Symbol, to_text


@dataclass(frozen=True, slots=True)
class Tower:
    """A served model that an ensemble asks.

    Attributes:
        graph: with its inputs and outputs.
        batch: how Triton batches it.
        axis: name of the axis that it is batched over; empty where it is not.
    """

    graph: Model
    batch: Batching
    axis: str


def write_ensemble(repository: Path, name: str, towers: Mapping[str, Tower]) -> Path:
    """Write `<repository>/<name>`, which asks the models of these names there.

    Towers that are batched over the same axis are batched together; else a request carries a batch for each.

    Returns:
        The ensemble's folder.

    Raises:
        CompileError: two towers make one output.
    """
    return put_ensemble(repository, name, ensemble_text(name, towers))


def put_ensemble(repository: Path, name: str, text: str) -> Path:
    """Write the folder of an ensemble with that `config.pbtxt`; returns it."""
    with put_folder(repository / name) as folder:
        (folder / VERSION).mkdir()  # Triton wants a version, and there is nothing to lie in it
        (folder / VERSION / ".keep").touch()
        (folder / "config.pbtxt").write_text(text, encoding="ascii")
    return repository / name


def config_of(
    name: str, size: int, inputs: Sequence[Message], outputs: Sequence[Message], steps: Sequence[Message]
) -> str:
    """The `config.pbtxt` of an ensemble.

    Args:
        name: of the ensemble.
        size: greatest batch; 0 where requests carry every axis themselves.
        inputs: that it takes.
        outputs: that it gives.
        steps: the models that it asks, each with `model_name`, `input_map` and `output_map`.
    """
    return to_text(
        {
            "name": name,
            "platform": "ensemble",
            "max_batch_size": size,
            "input": list(inputs),
            "output": list(outputs),
            "ensemble_scheduling": {"step": [{**step, "model_version": -1} for step in steps]},
        }
    )


def ensemble_text(name: str, towers: Mapping[str, Tower]) -> str:
    """The `config.pbtxt` of an ensemble."""
    axes = {tower.axis for tower in towers.values()}
    together = len(axes) == 1 and "" not in axes
    inputs: dict[str, Message] = {}
    outputs: dict[str, Message] = {}
    for tower in towers.values():
        for spec in tower.graph.inputs:
            inputs.setdefault(spec.name, _tensor(spec, tower.batch, together))
        for spec in tower.graph.outputs:
            if spec.name in outputs:
                raise CompileError(f"two towers make the output '{spec.name}'", where=f"ensemble '{name}'")
            outputs[spec.name] = _tensor(spec, tower.batch, together)
    steps: list[Message] = [
        {"model_name": served, "input_map": mapped(tower.graph.inputs), "output_map": mapped(tower.graph.outputs)}
        for served, tower in towers.items()
    ]
    size = min(tower.batch.max_size for tower in towers.values()) if together else 0
    return config_of(name, size, list(inputs.values()), list(outputs.values()), steps)


def mapped(specs: Sequence[TensorSpec], maker: str = "") -> list[Message]:
    """Tensors of a step and what the ensemble calls them: by their own names, or after the step that makes them."""
    return [{"key": spec.name, "value": f"{maker}:{spec.name}" if maker else spec.name} for spec in specs]


def _tensor(spec: TensorSpec, batch: Batching, together: bool) -> Message:
    """As it travels; with its batch, where the ensemble itself has none."""
    dims, _ = served_dims(spec, batch)
    if batch.max_size and not together:
        dims = [-1, *dims]
    return {"name": spec.name, "data_type": Symbol(TRITON_TYPES[spec.dtype]), "dims": dims}
