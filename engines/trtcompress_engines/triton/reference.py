"""The engine that lies in a repository, asked without a server: what the served answers have to be."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trtcompress_graph.errors import DataError

from ..backends.onnxruntime import OnnxRuntimeRunner, open_graph
from .modelconfig import parameter
from .served_model import Served
from .setting import THREADS
from .step_reference import StepCall, is_step, open_step

if TYPE_CHECKING:
    from ..backend import Array


class Reference:
    """ONNX Runtime on the ONNX model of a version, in a `with` block; an ensemble is its models, step by step.

    Args:
        served: a model for which `has_reference` is true.
    """

    def __init__(self, served: Served) -> None:
        self._served = served
        self._runners: dict[str, OnnxRuntimeRunner] = {}
        self._steps: dict[str, StepCall] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        for model in self._served.towers or (self._served,):
            if model.graph is not None:
                runner = open_graph(model.graph.path, _threads(model))
                self._runners[model.name] = self._open.enter_context(runner)
            else:
                self._steps[model.name] = open_step(model.folder, model.config)
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
        if not self._served.steps:
            return self._asked(self._served, feed)
        tensors, waiting = dict(feed), list(self._served.steps)
        while waiting:
            step = next((one for one in waiting if set(one.inputs.values()) <= tensors.keys()), None)
            if step is None:
                raise DataError("no step can be run: none has all its inputs", where=f"ensemble '{self._served.name}'")
            waiting.remove(step)
            inputs = {name: tensors[theirs] for name, theirs in step.inputs.items()}
            answers = self._asked(step.model, inputs)
            tensors |= {theirs: answers[name] for name, theirs in step.outputs.items()}
        return {tensor.name: tensors[tensor.name] for tensor in self._served.outputs}

    def _asked(self, model: Served, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Triton knows no tensors without axes beside the batch: they travel with one of length 1 more."""
        if model.graph is None:
            answers = self._steps[model.name](feed)
        else:
            rank = {spec.name: len(spec.shape) for spec in model.graph.inputs}
            answers = self._runners[model.name].infer({n: v.reshape(v.shape[: rank[n]]) for n, v in feed.items()})
        alone = 1 if model.max_batch else 0
        return {n: v.reshape((*v.shape, 1)) if v.ndim == alone else v for n, v in answers.items()}


def has_reference(served: Served) -> bool:
    """Whether the engine can run here without the server: an ONNX model, a step around one, or an ensemble of such."""
    return all(model.graph is not None or is_step(model.config) for model in served.towers or (served,))


def _threads(model: Served) -> int:
    written = parameter(model.config, THREADS)
    return int(written) if written.isdecimal() else 0
