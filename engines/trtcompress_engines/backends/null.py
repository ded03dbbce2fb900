"""A backend that compiles nothing: tests of whole builds run with it in no time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trtcompress_graph.load import copy_model
from trtcompress_graph.model import Model
from trtcompress_graph.target import Engine, Target

from ..backend import CompileOptions

if TYPE_CHECKING:
    from ..backend import Array

    Answer = Callable[[Mapping[str, Array]], dict[str, Array]]


def echo(feed: Mapping[str, Array]) -> dict[str, Array]:
    """Answer with the inputs themselves."""
    return dict(feed)


@dataclass(frozen=True, slots=True)
class NullRunner:
    """Answers by a function."""

    answer: Answer = echo

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """What the function answers."""
        return self.answer(feed)


@dataclass(frozen=True, slots=True)
class NullBackend:
    """Copies the graph as the engine, and answers by a function."""

    answer: Answer = echo
    name: str = "null"

    def missing(self) -> str:
        """Nothing is ever missing."""
        return ""

    def compile(self, graph: Model, target: Target, encoding_name: str, options: CompileOptions, out: Path) -> Engine:
        """Copy the graph's file."""
        copy = copy_model(graph, out / f"model.{encoding_name}.null.onnx")
        return Engine(
            path=copy.path,
            digest=copy.digest,
            target=target.name,
            backend=self.name,
            encoding=encoding_name,
            graph=graph,
            built=True,
            reproducible=True,
        )

    def open(self, engine: Engine, threads: int = 0) -> NullRunner:
        """A runner that answers by the function."""
        return NullRunner(self.answer)
