"""Runs an ONNX model on the CPU with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


class Runner:
    """An ONNX Runtime session with a fixed number of threads.

    Args:
        path: the ONNX file; its external data lies beside it.
        parameters: of `config.pbtxt`: `intra_op_thread_count`, `inter_op_thread_count` (0: one a core).
        args: what Triton says about the instance; not needed here.

    Raises:
        RuntimeError: ONNX Runtime is not installed for the server's Python.
    """

    def __init__(self, path: Path, parameters: dict[str, str], args: dict[str, str]) -> None:
        try:
            import onnxruntime as ort
            from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
        except ImportError as error:
            raise RuntimeError(
                f"onnxruntime does not import in the server's Python ({error}): pip install onnxruntime"
            ) from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(parameters["intra_op_thread_count"])
        options.inter_op_num_threads = int(parameters["inter_op_thread_count"])
        # Threads that spin on after a run would steal the cores of the other instances.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._refusal = InvalidArgument
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.outputs = [node.name for node in self.session.get_outputs()]
        self._shapes = {node.name: node.shape for node in self.session.get_inputs()}

    def run(self, feed: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name; Triton has no scalars, so they come and go as arrays of shape `[1]`.

        Raises:
            ValueError: inputs that share an axis disagree on its length, or hold values that the model cannot take.
        """
        arrays = {name: value if self._shapes[name] else value.reshape(()) for name, value in feed.items()}
        check_axes(self._shapes, {name: value.shape for name, value in arrays.items()})
        try:
            values = self.session.run(self.outputs, arrays)
        except self._refusal as error:
            raise ValueError(str(error)) from error
        return {name: np.atleast_1d(value) for name, value in zip(self.outputs, values)}  # noqa: B905  (Python 3.8)

    def greatest_batch(self) -> int | None:
        """None: ONNX Runtime takes any."""
        return None

    def close(self) -> None:
        """Free the session."""
        del self.session


def check_axes(declared: dict[str, list[Any]], given: dict[str, tuple[int, ...]]) -> None:
    """Where inputs share a named axis they must agree: ONNX Runtime would stretch a length of 1 and say nothing.

    Raises:
        ValueError: they do not.
    """
    seen: dict[str, tuple[int, str]] = {}
    for name, shape in given.items():
        for axis, length in zip(declared[name], shape):  # noqa: B905  (Python 3.8)
            if not isinstance(axis, str) or axis in ("", "?"):  # "?" is how some exporters write "unknown"
                continue
            known, first = seen.setdefault(axis, (length, name))
            if known != length:
                raise ValueError(f"axis '{axis}' is {known} long in input '{first}' and {length} in input '{name}'")
