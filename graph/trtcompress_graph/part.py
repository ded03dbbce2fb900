"""The part of a graph that makes some of its outputs, such as one tower of a model with two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import UsageError
from .load import load_ir, save_ir
from .model import Model


def check_towers(model: Model, towers: Mapping[str, Sequence[str]], where: str) -> None:
    """Every output belongs to one tower.

    Raises:
        UsageError: one belongs to none or to two, or the model has no such output.
    """
    outputs = [spec.name for spec in model.outputs]
    named = [output for some in towers.values() for output in some]
    hint = f"its outputs are: {', '.join(outputs)}; each belongs to one tower"
    for output in named:
        if output not in outputs:
            raise UsageError(f"the model has no output '{output}'", where=where, hint=hint)
        if named.count(output) > 1:
            raise UsageError(f"the output '{output}' is there twice", where=where, hint=hint)
    for output in outputs:
        if output not in named:
            raise UsageError(f"the output '{output}' belongs to no tower", where=where, hint=hint)


def write_part(model: Model, outputs: Sequence[str], path: Path) -> Model:
    """Write the graph that makes these outputs, in the order of the model, and reads what they need.

    Names stay, so that the inputs and outputs of a part are those of the model.

    Raises:
        UsageError: the outputs follow from no input.
    """
    from onnx_ir.passes import common

    loaded = load_ir(model)
    graph = loaded.graph
    graph.outputs[:] = [value for value in graph.outputs if value.name in outputs]
    common.RemoveUnusedNodesPass()(loaded)
    read = [value for value in graph.inputs if value.uses() or value in graph.outputs]
    if not read:
        raise UsageError(
            f"no input reaches {', '.join(outputs)}", where=str(model.path), hint="name outputs that depend on an input"
        )
    graph.inputs[:] = read
    return save_ir(loaded, path)
