"""Convolutions as ONNX Runtime computes them on a CPU: channels in blocks (NCHWc), and what their tensors hold there.

A tensor that is an output of the graph is put back into its plain layout first, which costs a convolutional network
more than all the counting. Where only the values matter and not their order, they are read as they lie.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtcompress_graph.protos import nodes

if TYPE_CHECKING:
    import onnx

BLOCK = 16
"""Channels of a block are 8 or 16; where their number is no multiple of it, a block is filled up with zeros."""

_SMALL = "1024"
"""Bytes of a tensor that stays in the file of the graph."""


def has_blocks(graph: onnx.ModelProto) -> bool:
    """Whether ONNX Runtime could compute something in blocks: there are convolutions of that many channels."""
    held = {tensor.name: tensor.dims for tensor in graph.graph.initializer}
    return any(
        node.op_type == "Conv" and len(node.input) > 1 and (held.get(node.input[1]) or [0])[0] >= BLOCK
        for node in nodes(graph)
    )


def write_blocked(written: bytes, options: Any, folder: Path) -> tuple[Path, dict[str, str]]:
    """Have ONNX Runtime optimize a graph, and take its outputs from ahead of the change of layout.

    Costs a session and a copy of the weights on disk.

    Args:
        written: the graph, with the wanted tensors as outputs.
        options: `SessionOptions` for the graph as it is; they are used up.
        folder: to write to; weights are mapped from there while a session lives.

    Returns:
        the graph, to be loaded with nothing optimized, and by output that holds its values in blocks now the name
        of what holds them.

    Raises:
        Exception: whatever ONNX Runtime raises.
    """
    import onnx
    import onnxruntime as ort

    path = folder / "optimized.onnx"
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", _SMALL)
    ort.InferenceSession(written, options, providers=["CPUExecutionProvider"])
    optimized = onnx.load(path, load_external_data=False)
    names = _read_ahead(optimized.graph)
    path.write_bytes(optimized.SerializeToString())
    return path, names


def _read_ahead(graph: onnx.GraphProto) -> dict[str, str]:
    """Take outputs that nothing else reads from ahead of their `ReorderOutput`, which goes."""
    read = {name for node in graph.node for name in node.input}
    outputs = [value.name for value in graph.output]
    names = {}
    for node in [*graph.node]:
        if node.op_type != "ReorderOutput" or node.output[0] not in outputs or node.output[0] in read:
            continue
        if not any(attribute.name == "channels" and attribute.i % BLOCK == 0 for attribute in node.attribute):
            continue
        names[node.output[0]] = node.input[0]
        graph.node.remove(node)
    del graph.output[:]
    for name in dict.fromkeys(names.get(name, name) for name in outputs):
        graph.output.add().name = name
    return names
