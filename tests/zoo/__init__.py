"""Graphs of many architectures, small, with weights in which a wrong channel shows.

`model(name)` gives a graph, made once; `NAMES` lists them; `shapes` and `feeds` tell what to run it on; `masked` makes
the reference that a cut graph is compared with.
"""

from __future__ import annotations

import functools

from trtcompress_graph.model import Model

from . import convolutional, images, language, lengths, operators, recurrent, shipped
from .cache import made
from .entries import REGISTRY, Entry, Feeds, Shapes
from .masked import masked

__all__ = ["FAMILIES", "NAMES", "Entry", "Feeds", "Shapes", "feeds", "kind", "masked", "model", "shapes"]

FAMILIES = (convolutional, images, language, lengths, operators, recurrent, shipped)
"""The modules that fill the registry when they are imported."""

NAMES: tuple[str, ...] = tuple(sorted(REGISTRY))


def kind(name: str) -> str:
    """What making the graph costs: `written` at once, `shipped` (large) and `exported` by PyTorch some seconds."""
    entry = REGISTRY[name]
    if entry.exported:
        return "exported"
    return "shipped" if entry.home == shipped.__name__ else "written"


@functools.cache
def model(name: str) -> Model:
    """The simplified graph."""
    return made(REGISTRY[name])


def shapes(name: str) -> tuple[Shapes, ...]:
    """Input shapes to run the graph with, one or two bindings."""
    return REGISTRY[name].shapes(model(name))


def feeds(name: str, at: Shapes, seed: int = 0) -> Feeds:
    """Seeded inputs of these shapes."""
    return REGISTRY[name].feeds(model(name), at, seed)
