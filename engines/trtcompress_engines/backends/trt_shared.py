"""One plan for several cards, which must not cost any of them its INT8.

The builder lists one set of layers for all cards of a plan: beside a card that has no INT8 kernels the others lose
theirs, with no word in the log. So the plan of each card alone is built too, and the listings are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from trtcompress_graph.errors import CompileError
from trtcompress_graph.load import load_ir
from trtcompress_graph.model import Model
from trtcompress_graph.target import Target

from .trt_log import count_of
from .trt_process import build_plan
from .trt_recipe import Recipe

COUNTED = {"int8_nodes": "INT8", "fp8_nodes": "FP8"}
"""What of a build's facts is compared, and what it is called."""

Facts = Mapping[str, str]


def compared_alone(graph: Model, target: Target, recipe: Recipe, facts: Facts, folder: Path) -> dict[str, str]:
    """Build a plan for each card alone, compare, and drop it.

    Args:
        graph: that was built.
        target: the cards.
        recipe: of the plan for all.
        facts: what its log says.
        folder: to build in; nothing stays there.

    Returns:
        For the report what each card has alone; nothing where there is one card, or nothing that it could lose.

    Raises:
        CompileError: a card loses; or one alone refuses the graph.

    Costs a build for each card, a second or a few, one behind the other.
    """
    if len(recipe.capabilities) < 2 or not _quantizes(graph):
        return {}
    alone: dict[str, Facts] = {}
    for capability in recipe.capabilities:
        with TemporaryDirectory(prefix="alone-", dir=folder) as aside:
            try:
                alone[capability] = build_plan(graph, replace(recipe, capabilities=(capability,)), Path(aside)).details
            except CompileError as error:
                raise CompileError(f"{capability} alone: {error.what}", where=error.where, hint=error.hint) from error
    refuse_loss(target, graph, facts, alone)
    return {"int8_alone": ", ".join(f"{capability} {count_of(own)}" for capability, own in alone.items())}


def refuse_loss(target: Target, graph: Model, shared: Facts, alone: Mapping[str, Facts]) -> None:
    """Refuse a shared plan that runs fewer convolutions and products in INT8 or FP8 than a card's own plan does.

    Raises:
        CompileError: naming the cards that lose, and how much.
    """
    for fact, kind in COUNTED.items():
        have = count_of(shared, fact)
        owns = {capability: count_of(facts, fact) for capability, facts in alone.items()}
        if lost := ", ".join(f"{capability} alone has {own}" for capability, own in owns.items() if own > have):
            raise CompileError(
                f"in one file for '{target.name}' {have} convolutions and products run in {kind}: {lost}",
                where=str(graph.path),
                hint="build a file for each: " + " ".join(f"--target {name}" for name in target.name.split("+")),
            )


def _quantizes(graph: Model) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in load_ir(graph).graph.all_nodes())
