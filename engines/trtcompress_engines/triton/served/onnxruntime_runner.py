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
        except ImportError as error:
            raise RuntimeError(
                f"onnxruntime does not import in the server's Python ({error}): pip install onnxruntime"
            ) from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(parameters["intra_op_thread_count"])
        options.inter_op_num_threads = int(parameters["inter_op_thread_count"])
        # Threads that spin on after a run would steal the cores of the other instances.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [node.name for node in self.session.get_inputs()]
        self.outputs = [node.name for node in self.session.get_outputs()]
        self._scalars = {node.name for node in self.session.get_inputs() if node.shape == []}

    def run(self, feed: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name; Triton has no scalars, so they come and go as arrays of shape `[1]`."""
        arrays = {name: value.reshape(()) if name in self._scalars else value for name, value in feed.items()}
        values = self.session.run(self.outputs, arrays)
        return {name: np.atleast_1d(value) for name, value in zip(self.outputs, values)}  # noqa: B905  (Python 3.8)

    def close(self) -> None:
        """Free the session."""
        del self.session
