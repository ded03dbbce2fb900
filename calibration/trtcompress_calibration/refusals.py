"""Models that are neither calibrated nor quantized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trtcompress_graph.errors import ModelError
from trtcompress_graph.model import Model

if TYPE_CHECKING:
    import onnx


def refuse_quantized(names: Sequence[str], model: Model) -> None:
    """What is quantized is not quantized again.

    Args:
        names: of the nodes that work on quantized numbers.
        model: that holds them.

    Raises:
        ModelError: there is one.
    """
    if names:
        count = f"{len(names)} nodes, first" if len(names) > 1 else "node"
        raise ModelError(
            f"the model is quantized already: {count} {', '.join(names[:3])}",
            where=str(model.path),
            hint="start from the float model, or compile this one as it is: trtcompress compile",
        )


def refuse_functions(proto: onnx.ModelProto, model: Model) -> None:
    """What lies inside a function has no name of its own until it stands in the place of its calls.

    Raises:
        ModelError: the graph calls one.
    """
    kinds = {(function.domain, function.name) for function in proto.functions}
    called = [node for node in proto.graph.node if (node.domain, node.op_type) in kinds]
    if called:
        raise ModelError(
            f"node '{called[0].name}' calls the function '{called[0].op_type}', in which nothing can be measured",
            where=str(model.path),
            hint="put functions in the place of their calls first: trtcompress simplify",
        )
