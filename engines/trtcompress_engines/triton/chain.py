"""An ensemble of models that follow one another: what the first makes the second reads, and so on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trtcompress_graph.errors import CompileError
from trtcompress_graph.model import TensorSpec

from .aside import put_folder
from .batching import Batching
from .config import served_dims
from .datatypes import TRITON_TYPES
from .repository import VERSION
from .steps import Link
from .textproto import Message, Symbol, to_text


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
    taken = {spec.name for spec in links[0].inputs}
    if both := [spec.name for spec in links[-1].outputs if spec.name in taken]:
        raise CompileError(
            f"'{both[0]}' would be both an input and an output",
            where=f"ensemble '{name}'",
            hint="give the model's output another name, or let triton.postprocess return it under another",
        )
    with put_folder(repository / name) as folder:
        (folder / VERSION).mkdir()  # Triton wants a version, and there is nothing to lie in it
        (folder / VERSION / ".keep").touch()
        (folder / "config.pbtxt").write_text(chain_text(name, links, batch), encoding="ascii")
    return repository / name


def chain_text(name: str, links: Sequence[Link], batch: Batching) -> str:
    """The `config.pbtxt` of a chain."""
    return to_text(
        {
            "name": name,
            "platform": "ensemble",
            "max_batch_size": batch.max_size,
            "input": [_tensor(spec, batch) for spec in links[0].inputs],
            "output": [_tensor(spec, batch) for spec in links[-1].outputs],
            "ensemble_scheduling": {
                "step": [
                    {
                        "model_name": link.served,
                        "model_version": -1,
                        "input_map": _mapped(link.inputs, links[index - 1].served if index else ""),
                        "output_map": _mapped(link.outputs, link.served if link is not links[-1] else ""),
                    }
                    for index, link in enumerate(links)
                ]
            },
        }
    )


def _mapped(specs: Sequence[TensorSpec], maker: str) -> list[Message]:
    """Between two models a tensor is called after the one that makes it: the answer may have an output of that name."""
    return [{"key": spec.name, "value": f"{maker}:{spec.name}" if maker else spec.name} for spec in specs]


def _tensor(spec: TensorSpec, batch: Batching) -> Message:
    """As it travels; an ensemble has no `reshape`: its models have."""
    dims, _ = served_dims(spec, batch)
    return {"name": spec.name, "data_type": Symbol(TRITON_TYPES[spec.dtype]), "dims": dims}
