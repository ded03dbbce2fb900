"""An ONNX Runtime session that also gives the tensors inside a model."""

from __future__ import annotations

import copy
import ctypes
import math
import mmap
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trtcompress_graph.errors import ModelError
from trtcompress_graph.model import Model

from .blocked import write_blocked
from .samples import Array

_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}


class TappedSession:
    """Runs a model.

    Args:
        model: the model.
        tensors: what to give beside its inputs.
        threads: for ONNX Runtime.
        reuse: write outputs into the same memory again while the inputs keep their shapes; not for tensors whose
            shape depends on values.
        as_written: compute Q/DQ pairs as they are written, and fuse none of them into an integer kernel.
        any_order: only the values of a tensor matter, so that they may come in another layout and shape.

    Attributes:
        tapped: float tensors that it gives beside its inputs, in the order asked for.
    """

    def __init__(
        self,
        model: Model,
        tensors: Iterable[str],
        threads: int,
        *,
        reuse: bool,
        as_written: bool = False,
        any_order: bool = False,
    ) -> None:
        inputs = {spec.name for spec in model.inputs}
        wanted = [name for name in tensors if name not in inputs]
        self._session, names = _session(model, wanted, threads, as_written, any_order)
        types = {value.name: value.type for value in self._session.get_outputs()}
        held = {name: names.get(name, name) for name in wanted}
        self._types = {name: types[held[name]] for name in wanted}
        self.tapped = [name for name in wanted if self._types[name] in _TYPES]
        self._outputs = [held[name] for name in self.tapped]
        self._reuse = reuse
        self._bind()

    def twin(self) -> TappedSession:
        """The same session with outputs of its own, so that both can run at the same time."""
        twin = copy.copy(self)
        twin._bind()
        return twin

    def _bind(self) -> None:
        self._binding = self._session.io_binding()
        self._shapes: object = None
        self._held: list[Any] = []

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The tapped tensors for one batch; the next run may overwrite them.

        Raises:
            Exception: whatever ONNX Runtime raises.
        """
        shapes = tuple((name, array.shape) for name, array in feeds.items())
        for name, array in feeds.items():
            self._binding.bind_cpu_input(name, np.ascontiguousarray(array))
        fresh = shapes != self._shapes or not self._reuse
        if fresh:
            self._held = []
            self._binding.clear_binding_outputs()
            for name in self._outputs:
                self._binding.bind_output(name)
        self._session.run_with_iobinding(self._binding)
        if fresh:
            self._held = self._binding.get_outputs()
            self._shapes = shapes
        return {name: _view(value, self._types[name]) for name, value in zip(self.tapped, self._held, strict=True)}


def _session(
    model: Model, wanted: list[str], threads: int, as_written: bool, any_order: bool
) -> tuple[Any, Mapping[str, str]]:
    """A session, and what holds the values of tensors that are not given under their own name."""
    import onnxruntime as ort

    written = _with_outputs(model, wanted)
    options = _options(model, threads, as_written)
    try:
        if not any_order:
            return ort.InferenceSession(written, options, providers=["CPUExecutionProvider"]), {}
        with tempfile.TemporaryDirectory(prefix="trtcompress-") as folder:
            path, names = write_blocked(written, _options(model, threads, as_written), Path(folder))
            options = _options(None, threads, as_written)
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it was done
            return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]), names
    except Exception as error:  # its many exception classes share no base
        raise ModelError(
            f"ONNX Runtime refuses the model with its inner tensors as outputs: {error}", where=str(model.path)
        ) from error


def _with_outputs(model: Model, wanted: Iterable[str]) -> bytes:
    """The file of a model with more outputs, by name alone: ONNX Runtime knows their types."""
    import onnx

    given = {spec.name for spec in model.outputs}
    more = onnx.ModelProto()
    more.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in given)
    # One protobuf message behind the other is the merged message, so the weights need not be parsed.
    with model.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as written:
        return b"".join((written, more.SerializeToString()))


def _options(model: Model | None, threads: int, as_written: bool) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what it raises is told; its log would stand before that
    if as_written:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    # Threads that spin between runs would take the cores from the histograms.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if model is not None:  # a copy in memory of it; what it refers to is still beside the model
        folder = str(model.path.parent.resolve())
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    return options


def _view(value: Any, kind: str) -> Array:
    """The memory of an output, without a copy."""
    dtype = np.dtype(_TYPES[kind])
    shape = tuple(value.shape())
    count = math.prod(shape)
    if not count:
        return np.empty(shape, dtype)
    memory = (ctypes.c_byte * (count * dtype.itemsize)).from_address(value.data_ptr())
    return np.frombuffer(memory, dtype).reshape(shape)
