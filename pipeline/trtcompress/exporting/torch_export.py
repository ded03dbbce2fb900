"""PyTorch to ONNX with `torch.onnx.export(dynamo=True)`, quietly and the same bytes every time."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtcompress_graph.errors import ExportError
from trtcompress_graph.load import read_model, save_ir
from trtcompress_graph.model import Model
from trtcompress_graph.opset import OPSET
from trtcompress_graph.simplify import simplify_ir

from .compare import compare
from .names import name_axes, name_inputs, name_outputs, name_parameters, strip_metadata
from .network import Network, Sample, first_line
from .outputs import output_names
from .places import described
from .sizes import resized, told, tracing_lengths

if TYPE_CHECKING:
    import onnx_ir as ir


def export_network(network: Network, samples: Iterable[Sample], out: Path, tell: Callable[[str], None]) -> Model:
    """Export, name, write and compare with PyTorch. Nothing is left under `out` when that fails.

    Raises:
        ExportError: PyTorch cannot export the network, an axis is not dynamic, or the answers differ.
    """
    for line in described(network.axes):
        tell(line)
    lengths = tracing_lengths(network)
    inputs = resized(network, lengths)
    outputs = output_names(network.answers(inputs, told(lengths) if lengths else "the example inputs"))
    if not outputs:
        raise ExportError("the network returns no tensor", where=network.source, hint="return tensors from forward")
    graph = _trace(network, inputs, f" with {told(lengths)}" if lengths else "")
    name_inputs(graph, list(inputs))
    name_axes(graph, network)
    name_outputs(graph, outputs)
    graph = simplify_ir(graph, network.source)
    name_parameters(graph, network.module)
    strip_metadata(graph)
    save_ir(graph, out)
    try:
        model = read_model(out)
        greatest = compare(network, model, samples)
    except BaseException:
        out.unlink()
        raise
    tell(f"greatest difference from PyTorch: {greatest:.2g} of the greatest value of an output")
    return model


def _trace(network: Network, inputs: Mapping[str, Any], on: str) -> ir.Model:
    """The graph as the exporter translates it, before anything is optimized, so that weights are still whole."""
    import torch

    shapes = {name: _dims(network, name, tensor.shape) for name, tensor in inputs.items()}
    inputs = {name: tensor.contiguous() for name, tensor in inputs.items()}
    try:
        with _quiet(), torch.no_grad(), _laid_out(network.module):
            program = torch.onnx.export(
                network.module,
                tuple(inputs.values()) if network.positional else (),
                kwargs=None if network.positional else dict(inputs),
                dynamic_shapes=(tuple(shapes.values()),) if network.positional else shapes,
                opset_version=OPSET,
                optimize=False,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:
        raise ExportError(
            f"PyTorch cannot export the network{on}: {_reason(error)}",
            where=network.source,
            hint="try torch.export.export(module, inputs) alone; control flow must not depend on values"
            + (f"; {network.axes_hint}" if on else ""),
        ) from error
    if program is None:
        raise ExportError("PyTorch exported nothing", where=network.source, hint="pip install --upgrade torch")
    return program.model


@contextlib.contextmanager
def _laid_out(module: Any) -> Iterator[None]:
    """What is `channels_last` stored as ONNX stores it: PyTorch else traces strides, as Gathers of computed places."""
    others = [t for t in (*module.parameters(), *module.buffers()) if t.dim() > 3 and not t.is_contiguous()]
    before = [tensor.data for tensor in others]
    try:
        for tensor in others:
            tensor.data = tensor.data.contiguous()
        yield
    finally:
        for tensor, data in zip(others, before, strict=True):
            tensor.data = data


def _dims(network: Network, name: str, shape: tuple[int, ...]) -> dict[int, Any]:
    """What is dynamic at one input, as `torch.export` wants it."""
    from torch.export import Dim

    dims: dict[int, Any] = {}
    for index, axis in network.axes.get(name, {}).items():
        rng = axis.range
        if rng is None:
            dims[index] = Dim.AUTO
        elif rng.min < rng.max:
            dims[index] = Dim.AUTO(min=rng.min, max=max(rng.max, shape[index]))
    return dims


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause, which is where the exporter says what is wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress marks and warnings to itself."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
