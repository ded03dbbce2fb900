"""Training under quantization: a Q/DQ graph learns from the float model that it was made of.

In the torch view a pair of QuantizeLinear and DequantizeLinear rounds in each pass, and gradients go straight through
inside its range (arXiv 1308.3432). What is written back are the integers that the last pass rounded to, so that the
graph computes what was trained. FP8 graphs are not trained: their weights are stored in eight bits and have no float
behind them that could move.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trtcompress_graph.load import copy_model, load_ir
from trtcompress_graph.model import Model

from ..config import RecoverSettings
from ..stage import FunctionRef, MetricRef
from .recover import Recovered, Request, recover

if TYPE_CHECKING:
    import onnx_ir as ir

    from trtcompress_calibration.data import Dataset

    from .loop import Told


def is_quantized(model: Model) -> bool:
    """Whether activations of a graph are quantized: it holds a QuantizeLinear."""
    return any(node.op_type == "QuantizeLinear" for node in load_ir(model).graph.all_nodes())


def in_fp8(model: Model) -> bool:
    """Whether activations of a graph are quantized to floats of eight bits."""
    quantizers = [node for node in load_ir(model).graph.all_nodes() if node.op_type == "QuantizeLinear"]
    return any(kind is not None and kind.is_floating_point() for kind in map(_made, quantizers))


def _made(quantizer: ir.Node) -> ir.DataType | None:
    """The type that a QuantizeLinear makes: of its zero point, or else as its attribute says."""
    from onnx_ir import DataType

    zero = quantizer.inputs[2] if len(quantizer.inputs) > 2 else None
    told = quantizer.attributes.get("output_dtype")
    return zero.dtype if zero is not None else None if told is None else DataType(told.as_int())


def train_quantized(
    student: Model,
    teacher: Model,
    settings: RecoverSettings,
    data: Dataset,
    out: Path,
    work: Path,
    told: Told,
    *,
    metrics: tuple[MetricRef, ...] = (),
    function: FunctionRef | None = None,
) -> Recovered:
    """Train a graph under its quantization, and write it; one without any, and one in FP8, is copied.

    Args:
        student: Q/DQ graph.
        teacher: float model that it was made of.
        settings: of the training.
        data: samples.
        out: the file to write.
        work: folder that belongs to this very training, as `work_folder` names it.
        told: of the progress.
        metrics: the first one is told with the progress.
        function: the user's own training loop.

    Raises:
        TrtCompressError: see `recover`.
    """
    fp8 = in_fp8(student)
    if fp8 or not is_quantized(student):
        made = copy_model(student, out)
        note = (
            "FP8 is not trained under quantization: its weights are stored in eight bits and stay (recover trains the "
            "float model that it is made of)"
            if fp8
            else "no activation is quantized in this graph: there is nothing to train under quantization"
        )
        held = (made.path, made.digest, made.inputs, made.outputs)
        return Recovered(*held, 0, 0, 0.0, None, None, None, None, 0, (note,))
    request = Request(student, teacher, settings, out, work, metrics, function, replaces=True)
    return recover(request, data, told)
