"""A device to build for, and the engine that was built for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .model import Model

How = Literal["cpu", "aot", "local", "kit"]


@dataclass(frozen=True, slots=True)
class Target:
    """An entry of `targets.toml`, or several cards that share one engine file.

    Attributes:
        name: for example `cpu`, `rtx-4090`, `rtx-3090+rtx-4090`.
        title: what people call it, for example `GeForce RTX 4090`.
        how: `cpu` (ONNX Runtime here), `aot` (TensorRT for RTX, no GPU needed), `local` (TensorRT on a machine
            that has the card), `kit` (built on the device itself).
        compute_capabilities: of the cards, for example `((8, 9),)`; empty for a CPU.
        int8: whether INT8 engines are built for it.
        dla: number of deep learning accelerators.
        tensorrt: TensorRT version that each platform release carries, `(("JetPack 6.1", "10.3"),)`, oldest first.
        installable: the same of what can be installed there in its place; it is meant only where it is named.
        aliases: other names that users type.
    """

    name: str
    title: str
    how: How
    compute_capabilities: tuple[tuple[int, int], ...] = ()
    int8: bool = True
    memory_gb: float | None = None
    dla: int = 0
    tensorrt: tuple[tuple[str, str], ...] = ()
    installable: tuple[tuple[str, str], ...] = ()
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """What a backend made of a graph for a target.

    Attributes:
        path: the engine file. For a target that cannot be built here it is the graph that was checked.
        digest: SHA-256 (hex) of the file.
        target: name of the target.
        backend: name of the backend.
        encoding: name of the encoding of `graph`.
        graph: the portable ONNX graph that went in.
        built: False where the graph was only checked (the card is needed to build).
        reproducible: whether the same build gives the same bytes.
        details: facts for the report: threads, what was fused, the word how to build it.
    """

    path: Path
    digest: str
    target: str
    backend: str
    encoding: str
    graph: Model
    built: bool
    reproducible: bool
    details: Mapping[str, str] = field(default_factory=dict)
