"""INT8 and FP16 graphs of real models: TensorRT for RTX takes each of them, and they compute what the model does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from float_graphs import cosine, measured
from real_inputs import REAL, RealInput
from trtcompress.profiles import profiles
from trtcompress_calibration.placement import quantize
from trtcompress_calibration.precision import plan_precision
from trtcompress_engines.backend import CompileOptions, backend_for
from trtcompress_engines.backends.trt_log import COMPUTE
from trtcompress_engines.emulation import rounding_float16
from trtcompress_engines.encodings import encodings
from trtcompress_engines.targets import resolve_target

CARDS = resolve_target("rtx-3090+rtx-4090+rtx-5090")
LEAST = {"trt-fp16": 0.9998, "trt-int8": 0.95}
"""Of the cosines of all outputs."""

LEAST_INT8 = {"image_and_text": 0.85}
"""Four similarities of a head that was not trained, on images of noise."""

IN_FP16 = {"text_detector": 2, "text_reader": 2}
"""Nodes that TensorRT runs in FP16 all the same: transposed convolutions, products of which it makes one attention."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("real")


def outputs(path: Path, real: RealInput) -> list[NDArray[np.float32]]:
    """Of every sample; float16 is rounded, and every Q and DQ computed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(rounding_float16(path) or path, options, providers=["CPUExecutionProvider"])
    found = [session.run(None, dict(sample.inputs)) for sample in real.samples]
    return [np.concatenate([array.ravel() for array in arrays]) for arrays in zip(*found, strict=True)]


@pytest.mark.parametrize("name", REAL)
def test_a_real_model_is_built_for_rtx_cards(name: str, folder: Path, tmp_path: Path) -> None:
    real = REAL[name](folder)
    ranges = measured(real.model, real.samples)
    exact = outputs(real.model.path, real)
    for encoding in (encodings()["trt-int8"], encodings()["trt-fp16"]):
        plan = plan_precision(real.model, ranges, encoding)
        kept = [node for node in plan.nodes if node.precision == "float32"]
        assert len(kept) < 0.05 * len(plan.nodes), {node.node: node.reason for node in kept}
        graph = quantize(real.model, ranges, plan, encoding, tmp_path / f"{encoding.name}.onnx")
        shapes = CompileOptions(profiles(real.model, real.axes))
        engine = backend_for(CARDS).compile(graph, CARDS, encoding.name, shapes, tmp_path / encoding.name)
        wanted = sum(node.precision == "int8" and node.op in COMPUTE for node in plan.nodes)
        moved = IN_FP16.get(name, 0) if encoding.int8 else 0
        assert int(engine.details["int8_nodes"].split(" of ")[0]) == wanted - moved
        assert (wanted > 0) == encoding.int8
        assert engine.details["compute_capabilities"] == "SM86, SM89, SM120"
        for found, expected in zip(outputs(graph.path, real), exact, strict=True):
            assert np.isfinite(found).all()
            least = LEAST_INT8.get(name, LEAST[encoding.name]) if encoding.int8 else LEAST[encoding.name]
            assert cosine(found, expected) > least
