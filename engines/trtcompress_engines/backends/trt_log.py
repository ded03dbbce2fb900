"""What the log of TensorRT's parser and builder says, in terms of the user's ONNX nodes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

COMPUTE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operator kinds of which it matters whether they run in INT8."""

_PARSED = re.compile(r"^Parsing node: (.+) \[(\w+)\]$")
_LAYER = re.compile(
    r"^\s*Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: (?P<reads>\[.*?\])"
    r"(?:, Constants: (?P<constants>\[.*?\]))?, Outputs: (?P<more>.*)$"
)
"""Of TensorRT 10 and of TensorRT for RTX, which alone lists constants; the other tells the type of weights."""
_OLD_LAYER = re.compile(r"^Layer\((?P<kind>[^)]*)\): (?P<name>.*?), Tactic: [^,]*, (?P<reads>.*?) ?-> ")
"""Of TensorRT 8, which says nothing of weights, and names nodes in the layer's name alone."""
_TYPES = {"int8": "Int8", "fp8": "FP8"}
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
    """A layer of the built engine: its kind, whether it multiplies INT8 or FP8, and the ONNX nodes in it.

    A `region` stands for all nodes from one to another, of which the log names no others and no types.
    """

    kind: str
    int8: bool
    nodes: tuple[str, ...]
    fp8: bool = False
    region: bool = False


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
    """Layers of the engine, from the listing that the builder logs at its end; empty where it is of no known form."""
    listings = [one.lstrip() for one in messages if one.lstrip().startswith(("Layers:", "Engine Layer Information:"))]
    found = [_layer(line) for line in listings[-1].splitlines()] if listings else []
    return [layer for layer in found if layer is not None]


def _layer(line: str) -> Layer | None:
    if match := _LAYER.match(line):
        nodes = tuple(re.findall(r"\[ONNX Layer: ([^\]]+)\]", match["more"])) or _nodes_in(match["name"])
        types = {field: _multiplies(match, kind) for field, kind in _TYPES.items()}
    elif match := _OLD_LAYER.match(line.strip()):
        nodes = _nodes_in(match["name"])
        # What reads INT8 multiplies it there, where it is a convolution or product at all
        types = {field: f"[{kind}(" in match["reads"] for field, kind in _TYPES.items()}
    else:
        return None
    return Layer(match["kind"], nodes=nodes, region=not nodes and "ForeignNode[" in match["name"], **types)


def _nodes_in(name: str) -> tuple[str, ...]:
    """Nodes that are joined in a layer's name; none of a region, and none of a copy that is named for its reader."""
    if "ForeignNode[" in name or name.startswith("Reformatting CopyNode"):
        return ()
    return tuple(re.split(r" \+ | \|\| ", re.sub(r" \[profile \d+\]$", "", name)))


def _multiplies(layer: re.Match[str], kind: str) -> bool:
    """Whether a layer reads numbers of a type, and weights or a second input of it."""
    # 8.x and 9.x put words around it: `Row major Int8 format`
    typed = re.compile(rf"Datatype: [^,\]}}]*\b{kind}\b")
    reads, constants = (len(typed.findall(layer[part] or "")) for part in ("reads", "constants"))
    return reads > 0 and (reads + constants > 1 or f'Weights: {{"Type": "{kind}"' in layer["more"])


def summary(messages: Sequence[str]) -> dict[str, str]:
    """Facts for the report: layers of the engine, and how many convolutions and products run in INT8, or in FP8.

    What the log does not tell is left out: all of it where there is no listing of a known form, and that none runs in
    INT8 where some are hidden in regions.
    """
    kinds = parsed_nodes(messages)
    layers = engine_layers(messages)
    facts = {"onnx_nodes": str(len(kinds))}
    if not layers:
        return facts
    compute = {node for node, kind in kinds.items() if kind in COMPUTE}
    listed = {node for layer in layers for node in layer.nodes}
    hidden = len(compute - listed) if any(layer.region for layer in layers) else 0
    more = f", of {hidden} the log tells nothing" if hidden else ""
    in_int8 = {node for layer in layers if layer.int8 for node in layer.nodes} & compute
    in_fp8 = {node for layer in layers if layer.fp8 for node in layer.nodes} & compute
    told = {"int8_nodes": in_int8} if in_int8 or not hidden else {}
    told |= {"fp8_nodes": in_fp8} if in_fp8 else {}
    counts = {fact: f"{len(those)} of {len(compute)} convolutions and products{more}" for fact, those in told.items()}
    return {**facts, "layers": str(len(layers)), **counts}


def count_of(facts: Mapping[str, str], fact: str = "int8_nodes") -> int:
    """The number in what `summary` says: 53 of `53 of 54 convolutions and products`; 0 where it says nothing."""
    return int(facts.get(fact, "0").partition(" ")[0])
