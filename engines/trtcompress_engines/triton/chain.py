"""An ensemble of models that follow one another: what the first makes the second reads, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trtcompress_graph.errors import CompileError
from trtcompress_graph.model import TensorSpec

from .batching import Batching
from .config import served_dims
from .datatypes import TRITON_TYPES
from .ensemble import config_of, mapped, put_ensemble
from .steps import Link
from .textproto import Message, Symbol


def write_chain(repository: Path, name: str, links: Sequence[Link], batch: Batching) -> Path:
    """Write `<repository>/<name>`, which hands a request through the models of these names there.

    It takes what the first link reads, and gives what the last one makes.

    Args:
        repository: folder of models.
        name: of the ensemble.
        links: in their order.
        batch: of all of them.

    Returns:
        The ensemble's folder.

    Raises:
        CompileError: an output is called like an input.
    """
    check_ends(name, links[0].inputs, links[-1].outputs)
    return put_ensemble(repository, name, chain_text(name, links, batch))


def check_ends(name: str, taken: Sequence[TensorSpec], given: Sequence[TensorSpec]) -> None:
    """What a chain takes and gives has names of its own.

    Raises:
        CompileError: an output is called like an input.
    """
    inputs = {spec.name for spec in taken}
    if both := [spec.name for spec in given if spec.name in inputs]:
        raise CompileError(
            f"'{both[0]}' would be both an input and an output",
            where=f"ensemble '{name}'",
            hint="give the model's output another name, or let triton.postprocess return it under another",
        )


def chain_text(name: str, links: Sequence[Link], batch: Batching) -> str:
    """The `config.pbtxt` of a chain; between two models a tensor is called after the one that makes it.

    The answer may have an output of that name.
    """
    steps: list[Message] = [
        {
            "model_name": link.served,
            "input_map": mapped(link.inputs, links[index - 1].served if index else ""),
            "output_map": mapped(link.outputs, link.served if link is not links[-1] else ""),
        }
        for index, link in enumerate(links)
    ]
    inputs, outputs = ([_tensor(spec, batch) for spec in specs] for specs in (links[0].inputs, links[-1].outputs))
    return config_of(name, batch.max_size, inputs, outputs, steps)


def _tensor(spec: TensorSpec, batch: Batching) -> Message:
    """As it travels; an ensemble has no `reshape`: its models have."""
    dims, _ = served_dims(spec, batch)
    return {"name": spec.name, "data_type": Symbol(TRITON_TYPES[spec.dtype]), "dims": dims}
