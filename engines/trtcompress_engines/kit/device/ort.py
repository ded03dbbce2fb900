"""ONNX Runtime in TensorRT's place, to try a kit on a machine without one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .kit import KitError


class OnnxRuntimeEngine:
    """The ONNX graph itself.

    Raises:
        KitError: ONNX Runtime is not installed or refuses the graph.
    """

    activation_bytes: int | None = None
    streamed_budget: int | None = None

    def __init__(self, model: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise KitError(f"ONNX Runtime is not installed here: {error}") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # as the graph is written: fusions of older versions fail on FP16 between Q/DQ pairs
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise KitError(f"ONNX Runtime refuses {model.parent.name}: {error}", code=4) from error
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]

    def bind(self, feed: Mapping[str, Any]) -> Callable[[], None]:
        """A call that runs the model once."""

        def call() -> None:
            self.infer(feed)

        return call

    def infer(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs by name for one batch of inputs by name."""
        values = self._session.run(self._outputs, {name: feed[name] for name in self._inputs})
        return {self._outputs[i]: values[i] for i in range(len(values))}
