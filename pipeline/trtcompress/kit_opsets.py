"""Graphs of a kit for releases of TensorRT whose parsers do not take them as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_graph.errors import ModelError
from trtcompress_graph.model import Model
from trtcompress_graph.target import Target

if TYPE_CHECKING:
    from trtcompress_engines.kit.write import KitModel

Lowered = dict[str, tuple[Model, bool]]
"""Graphs that were written in older opsets, and whether their float16 was widened."""


def with_older(
    models: Mapping[str, KitModel], target: Target, implicit: Model | None, folder: Path
) -> tuple[dict[str, KitModel], list[str]]:
    """The models of a kit, each with what older releases of the target's platform build in its place.

    Args:
        models: by the names of the engines.
        target: the device.
        implicit: the float model with whose calibration.cache an INT8 engine is built where Q/DQ pairs cannot be
            written; None where there is none.
        folder: for the graphs.

    Returns:
        The models, and what is to be said of them.

    Raises:
        ModelError: no release of the platform takes the model as it came; the operator is named.
    """
    made, notes = {}, []
    lowered: Lowered = {}
    for name, model in models.items():
        made[name], told = _with_older(name, model, target, implicit, folder / name, lowered)
        notes += told
    return made, notes


def _with_older(
    name: str, model: KitModel, target: Target, implicit: Model | None, folder: Path, lowered: Lowered
) -> tuple[KitModel, list[str]]:
    from trtcompress_engines.kit.device.kit import REFERENCE
    from trtcompress_engines.kit.write import Older
    from trtcompress_engines.parsed_graphs import WIDENED, needs
    from trtcompress_engines.tensorrt_release import Release, first_parsing

    opset, operators = needs(model.graph)
    releases = [Release("classic", version) for _, version in target.tensorrt]
    older = [release for release in releases if not release.parses(opset, operators)]
    if not older:
        return model, []
    all_older = len(older) == len(releases)  # then nothing builds the graph itself
    before = first_parsing(opset, operators)
    sources = [(model.graph, model.cache)]
    if implicit is not None and not model.cache and _quantizes(operators):
        sources.append((implicit, True))
    refused: list[ModelError] = []
    for start, (source, cache) in ((start, source) for source in sources for start in range(len(older))):
        served = older[start:]
        least, without = min(r.opset for r in served), frozenset[str]().union(*(r.unparsed for r in served))
        aside = folder / f"{len(refused)}"
        aside.mkdir(parents=True)
        try:
            graph, wide = _lowered(source, least, without, aside, lowered)
        except ModelError as error:
            refused.append(error)
            continue
        since = served[0].number if start else None
        why = _why(refused[0]) if refused else ""
        notes = [f"{name}: {_until(since)} it cannot be built: {why}"] if since else []
        if cache and not model.cache:
            notes.append(f"{name}: {_until(before)} INT8 is by calibration.cache and not by Q/DQ pairs ({why})")
        else:
            more = f", {WIDENED}" if wide else ""
            notes.append(f"{name}: {_until(before)} it is built of a graph of opset {min(least, opset)}{more}")
        if all_older and since is None:
            flags = ("FP16", "INT8") if cache else model.flags
            return replace(model, graph=graph, cache=cache, flags=flags), notes
        return replace(model, older=Older(before, graph, cache, since, why if since else "")), notes
    if name == REFERENCE and all_older:
        first = refused[0]
        what = f"the parsers of {target.title} take opset {max(r.opset for r in older)} at the most: {first.what}"
        raise ModelError(what, where=first.where, hint=first.hint) from first
    why = _why(refused[0])
    return replace(model, older=Older(before, refused=why)), [f"{name}: {_until(before)} it cannot be built: {why}"]


def _until(number: tuple[int, int] | None) -> str:
    return "before TensorRT " + ".".join(map(str, number)) if number else "in every TensorRT that is known"


def _why(error: ModelError) -> str:
    """The node, and what is wrong with it."""
    return f"{error.where.rpartition(': ')[2]}: {error.what}"


def _lowered(model: Model, opset: int, without: frozenset[str], folder: Path, lowered: Lowered) -> tuple[Model, bool]:
    """The graph in that opset, and whether its float16 was widened; each graph is written once."""
    from trtcompress_engines.parsed_graphs import brought_down

    key = f"{model.digest} {opset} {sorted(without)}"
    if key not in lowered:
        lowered[key] = brought_down(model, opset, without, folder / "model.onnx")
    return lowered[key]


def _quantizes(operators: set[str]) -> bool:
    return bool(operators & {"QuantizeLinear", "DequantizeLinear"})
