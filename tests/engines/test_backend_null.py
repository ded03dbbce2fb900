from __future__ import annotations

from pathlib import Path

import numpy as np

from small_cnn import write_cnn
from trtcompress_engines.backend import Backend, CompileOptions, Runner
from trtcompress_engines.backends import BY_HOW
from trtcompress_engines.backends.null import NullBackend
from trtcompress_engines.targets import resolve_target
from trtcompress_graph.load import read_model


def test_it_copies_the_graph_and_answers_by_the_function(tmp_path: Path):
    graph = read_model(write_cnn(tmp_path / "cnn.onnx"))
    backend: Backend = NullBackend(answer=lambda feed: {"logits": feed["x"].sum(axis=(1, 2, 3))})
    engine = backend.compile(graph, resolve_target("cpu"), "none", CompileOptions(), tmp_path / "out")
    assert engine.path.read_bytes() == graph.path.read_bytes()
    assert engine.digest == graph.digest
    runner: Runner = backend.open(engine)
    with runner:
        assert runner.infer({"x": np.ones((2, 3, 1, 1))})["logits"].tolist() == [3, 3]


def test_the_registry_serves_every_kind_of_target():
    assert {how: backend.name for how, backend in BY_HOW.items()} == {
        "cpu": "onnxruntime",
        "aot": "tensorrt_rtx",
        "local": "tensorrt",
        "kit": "tensorrt",
    }
