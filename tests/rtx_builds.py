"""A real model built for RTX cards in INT8 and FP16: what is wrong with its plans and its graphs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from float_graphs import cosine, measured
from real_inputs import REAL, RealInput
from trtcompress.profiles import profiles
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.backends.trt_log import COMPUTE, count_of
from trtcompress_engines.emulation import rounding_float16
from trtcompress_engines.encodings import encodings
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.encoding import Encoding
from trtcompress_graph.ranges import Ranges

CARDS = resolve_target("rtx-3090+rtx-4090+rtx-5090")
LEAST = {"trt-fp16": 0.9998, "trt-int8": 0.95}
"""Of the cosines of all outputs."""

LEAST_INT8 = {"image_and_text": 0.85}
"""Four similarities of a head that was not trained, on images of noise."""

IN_FP16 = {"text_detector": 2, "text_reader": 2}
"""Nodes that TensorRT runs in FP16 all the same: transposed convolutions, products of which it makes one attention."""

MOST_FLOAT32 = 0.05
"""Share of the nodes that may stay in FP32."""


def rtx_faults(name: str, folder: Path) -> list[str]:
    """Build one of `REAL` in one file for three cards, and compare its graphs with the model under ONNX Runtime.

    That the shared file has as many convolutions in INT8 as that of each card is checked by the backend.

    Raises:
        TrtCompressError: TensorRT for RTX refuses a graph, or a card loses INT8 in the shared file.
    """
    real = REAL[name](folder)
    ranges = measured(real.model, real.samples)
    exact = outputs(real.model.path, real)
    return [
        f"{name} {encoding}: {fault}"
        for encoding in ("trt-int8", "trt-fp16")
        for fault in _faults(name, real, ranges, exact, encodings()[encoding], folder)
    ]


def _faults(
    name: str,
    real: RealInput,
    ranges: Ranges,
    exact: list[NDArray[np.float32]],
    encoding: Encoding,
    folder: Path,
) -> Iterator[str]:
    plan = plan_precision(real.model, ranges, encoding)
    kept = [node.node for node in plan.nodes if node.precision == "float32"]
    if len(kept) >= MOST_FLOAT32 * len(plan.nodes):
        yield f"{len(kept)} of {len(plan.nodes)} nodes stay in FP32: {', '.join(kept[:5])}"
    graph = quantize(real.model, ranges, plan, encoding, folder / f"{name}.{encoding.name}.onnx")
    shapes = CompileOptions(profiles(real.model, real.axes))
    engine = backend_for(CARDS).compile(graph, CARDS, encoding.name, shapes, folder / name / encoding.name)
    wanted = sum(node.precision == "int8" and node.op in COMPUTE for node in plan.nodes)
    wanted -= IN_FP16.get(name, 0) if encoding.int8 else 0
    if (got := count_of(engine.details)) != wanted or (wanted > 0) != encoding.int8:
        yield f"{got} convolutions and products run in INT8, {wanted} are planned"
    if encoding.int8 and engine.details.get("int8_alone") != f"SM86 {got}, SM89 {got}, SM120 {got}":
        yield f"the cards alone were not compared: {engine.details}"
    least = LEAST_INT8.get(name, LEAST[encoding.name]) if encoding.int8 else LEAST[encoding.name]
    for found, expected in zip(outputs(graph.path, real), exact, strict=True):
        if not np.isfinite(found).all() or not cosine(found, expected) > least:
            yield f"an output has the cosine {cosine(found, expected):.5f} with the model's, {least} is wanted"


def outputs(path: Path, real: RealInput) -> list[NDArray[np.float32]]:
    """Of every sample; float16 is rounded, and every Q and DQ computed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(rounding_float16(path) or path, options, providers=["CPUExecutionProvider"])
    found = [session.run(None, dict(sample.inputs)) for sample in real.samples]
    return [np.concatenate([array.ravel() for array in arrays]) for arrays in zip(*found, strict=True)]
