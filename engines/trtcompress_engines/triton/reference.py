"""The engine that lies in a repository, asked without a server: what the served answers have to be."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..backends.onnxruntime import OnnxRuntimeRunner, open_graph
from .modelconfig import parameter
from .served_model import Served
from .setting import THREADS

if TYPE_CHECKING:
    from ..backend import Array


class Reference:
    """ONNX Runtime on the ONNX model of a version; an ensemble is its towers. To be used in a `with` block.

    Args:
        served: a model for which `has_reference` is true.
    """

    def __init__(self, served: Served) -> None:
        self._models = served.towers or (served,)
        self._runners: dict[str, OnnxRuntimeRunner] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        for model in self._models:
            if model.graph is not None:
                runner = open_graph(model.graph.path, _threads(model))
                self._runners[model.name] = self._open.enter_context(runner)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __call__(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs as they travel, by name.

        Raises:
            DataError: the engine does not take this.
        """
        found: dict[str, Array] = {}
        for model in self._models:
            found |= _asked(self._runners[model.name], model, {t.name: feed[t.name] for t in model.inputs})
        return found


def has_reference(served: Served) -> bool:
    """Whether the engine can run here without the server: an ONNX model, or an ensemble of such."""
    return all(model.graph is not None for model in served.towers or (served,))


def _asked(runner: OnnxRuntimeRunner, model: Served, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Triton knows no tensors without axes beside the batch: they travel with one of length 1 more."""
    assert model.graph is not None
    rank = {spec.name: len(spec.shape) for spec in model.graph.inputs}
    answers = runner.infer({name: value.reshape(value.shape[: rank[name]]) for name, value in feed.items()})
    alone = 1 if model.max_batch else 0
    return {name: value.reshape((*value.shape, 1)) if value.ndim == alone else value for name, value in answers.items()}


def _threads(model: Served) -> int:
    written = parameter(model.config, THREADS)
    return int(written) if written.isdecimal() else 0
