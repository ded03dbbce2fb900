"""What the log of TensorRT's parser and builder says, in terms of the user's ONNX nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

COMPUTE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operator kinds of which it matters whether they run in INT8."""

_PARSED = re.compile(r"^Parsing node: (.+) \[(\w+)\]$")
_LAYER = re.compile(
    r"^\s*Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>\[.*?\]), "
    r"(?:Constants: (?P<constants>\[.*?\]), )?Outputs: .*?Metadata: (?P<metadata>.*)$"
)
_BLAME = (
    re.compile(r"Invalid Node - ([^\n]+)"),
    re.compile(r"[Cc]annot compile operation '([^']+)'"),
    re.compile(r"\[ONNX Layer: ([^\]]+)\]"),
    re.compile(r"for Node: (\S+)"),
    re.compile(r"IConditional\w*Layer (\S+?)_\w+Layer"),
    re.compile(r"ForeignNode\[(.+?)\.\.\."),
    re.compile(r"\(([^\s:()]+): "),
)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the built engine: its kind, whether it multiplies INT8 or FP8, and the ONNX nodes in it."""

    kind: str
    int8: bool
    nodes: tuple[str, ...]
    fp8: bool = False


def parsed_nodes(messages: Iterable[str]) -> dict[str, str]:
    """Operator kind of each ONNX node that the parser has met, by the node's name."""
    return {found[1]: found[2] for message in messages if (found := _PARSED.match(message))}


def blamed_node(message: str, nodes: Mapping[str, str]) -> str:
    """The ONNX node that an error message speaks of, or nothing.

    TensorRT adds `_3` and the like to a name, and calls a fused region `ForeignNode[first...last_3]`.
    """
    for pattern in _BLAME:
        for name in pattern.findall(message):
            for candidate in (name.strip(), re.sub(r"_\d+$", "", name.strip())):
                if candidate in nodes:
                    return candidate
    return ""


def plain(message: str) -> str:
    """The message without source locations and without the complaint that this machine has no GPU driver."""
    lines = [line for line in message.splitlines() if "cudaError 35" not in line]
    return re.sub(r"\s*\.? In [^\s(]+ at /[^\s)]+", "", " ".join(lines)).strip()


def engine_layers(messages: Iterable[str]) -> list[Layer]:
    """Layers of the engine, from the listing that the builder logs at its end."""
    listings = [message for message in messages if message.lstrip().startswith("Layers:")]
    found: list[Layer] = []
    for line in listings[-1].splitlines() if listings else ():
        if match := _LAYER.match(line):
            nodes = tuple(re.findall(r"\[ONNX Layer: ([^\]]+)\]", match["metadata"]))
            found.append(Layer(match["kind"], _multiplies(match, "Int8"), nodes, _multiplies(match, "FP8")))
    return found


def _multiplies(layer: re.Match[str], kind: str) -> bool:
    """Whether a layer reads numbers of a type, and weights or a second input of it."""
    reads, weights = (
        (layer["inputs"] or "").count(f"Datatype: {kind}"),
        (layer["constants"] or "").count(f"Datatype: {kind}"),
    )
    return reads > 0 and reads + weights > 1


def summary(messages: Sequence[str]) -> dict[str, str]:
    """Facts for the report: layers of the engine, and how many convolutions and products run in INT8, or in FP8."""
    kinds = parsed_nodes(messages)
    layers = engine_layers(messages)
    compute = {node for node, kind in kinds.items() if kind in COMPUTE}
    in_int8 = {node for layer in layers if layer.int8 for node in layer.nodes} & compute
    in_fp8 = {node for layer in layers if layer.fp8 for node in layer.nodes} & compute
    fp8 = {"fp8_nodes": f"{len(in_fp8)} of {len(compute)} convolutions and products"} if in_fp8 else {}
    return {
        "onnx_nodes": str(len(kinds)),
        "layers": str(len(layers)),
        "int8_nodes": f"{len(in_int8)} of {len(compute)} convolutions and products",
        **fp8,
    }


def count_of(facts: Mapping[str, str], fact: str = "int8_nodes") -> int:
    """The number in what `summary` says: 53 of `53 of 54 convolutions and products`; 0 where it says nothing."""
    return int(facts.get(fact, "0").partition(" ")[0])
