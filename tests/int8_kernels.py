"""What ONNX Runtime really runs of an INT8 graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from pathlib import Path

import onnx
import onnxruntime

from trtcompress_graph.encoding import PrecisionPlan


def really_run(path: Path) -> onnx.GraphProto:
    """The graph that ONNX Runtime makes of one, as it is where nobody sets an option."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(path.with_suffix(".optimized")).graph


def kernels(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in really_run(path).node)


def idle(path: Path, plan: PrecisionPlan) -> list[str]:
    """What of a quantized graph only costs: planned nodes that run in float, and pairs that no kernel uses."""
    graph = really_run(path)
    planned = {node.node: node.op for node in plan.nodes if node.precision == "int8"}
    made = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    # ONNX Runtime puts pairs of its own behind the Transposes by which it changes the layout ahead of float nodes.
    turned = {name for name, node in made.items() if node.op_type == "Transpose" and node.name not in planned}
    moved = moved_by_runtime(onnx.load(path).graph, planned)
    found = []
    for node in graph.node:
        if planned.get(node.name) == node.op_type and any(
            made[name].op_type == "DequantizeLinear" for name in node.input if name in made
        ):
            found.append(f"{node.op_type} '{node.name}' in float")
        alone = node.op_type == "QuantizeLinear" and set(readers.get(node.output[0], ())) <= {"DequantizeLinear"}
        if alone and node.input[0] not in turned and node.input[1] not in moved:
            found.append(f"a pair on '{node.input[0]}' that nobody uses")
        if node.op_type == "DequantizeLinear" and node.input[0] not in made:
            found.append(f"'{node.input[0]}' dequantized in every run")
    return found


def moved_by_runtime(graph: onnx.GraphProto, planned: Container[str]) -> set[str]:
    """Scales of the pairs behind float Transposes of a quantized graph: ONNX Runtime puts them ahead of these, also on
    an output of the model, where a kernel then uses but one of the two."""
    float_turned = {
        name for node in graph.node if node.op_type == "Transpose" and node.name not in planned for name in node.output
    }
    return {node.input[1] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in float_turned}
