"""The unavoidable work of each stage of benchmarks/build.py, done bare and timed alone. Prints JSON: {stage: seconds}.

Counted as unavoidable: the start of Python, importing torch, the exporter's call, PyTorch's and ONNX Runtime's forward
passes, reading and writing of graphs, session creation, builder calls, decoding the images once for each pass, and the
timed runs that the config asks for. The builder is called in this process: loading its libraries counts once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from trtcompress_engines.measure import MIN_PAIRS

floors: dict[str, float] = {}


@contextmanager
def floor(label: str) -> Iterator[None]:
    """Add the seconds of the block to a stage."""
    started = time.perf_counter()
    yield
    floors[label] = floors.get(label, 0.0) + time.perf_counter() - started


def main(folder: Path, seconds: float) -> None:
    build = folder / "build/mobilenet"
    with floor("start"):
        subprocess.run([sys.executable, "-c", "import click, pydantic, yaml, numpy"], check=True)
    export(folder)
    models = build / "models"
    with floor("simplify"):
        rewrite(models / "exported/model.onnx", folder / "floor.onnx")
    with floor("calibrate"):
        forward(session(models / "simplified/model.onnx"), "calibration")
    for encoding in (path.name for path in models.iterdir() if path.name.startswith(("cpu-", "trt-"))):
        with floor(f"quantize {encoding}"):
            rewrite(models / encoding / "model.onnx", folder / "floor.onnx")
        if encoding.startswith("trt-"):
            emulate(models / "exported/model.onnx", models / encoding / "model.onnx", f"emulate {encoding}")
        else:
            with floor(f"compile cpu/{encoding}"):
                session(models / encoding / "model.onnx", optimized=folder / "floor.optimized.onnx")
    validate(build, seconds)
    build_plans(build)
    json.dump(floors, sys.stdout)


def export(folder: Path) -> None:
    with floor("export"):
        sys.path.insert(0, str(folder))
        import torch

        import mobilenet_v2

        net, inputs = mobilenet_v2.model()
        dims = {"x": {0: torch.export.Dim("batch", min=1, max=8)}}
        with redirect_stdout(sys.stderr):
            torch.onnx.export(net, (), kwargs=inputs, dynamic_shapes=dims, dynamo=True, verbose=False)
        batch = next(mobilenet_v2.calibration())
        with torch.no_grad():
            net(torch.from_numpy(batch["x"]))


def session(model: Path | bytes, optimized: Path | None = None, **entries: str) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    if optimized:
        options.optimized_model_filepath = str(optimized)
    for key, value in entries.items():
        options.add_session_config_entry(f"session.{key}", value)
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def forward(model: Any, source: str) -> None:
    import mobilenet_v2

    for batch in getattr(mobilenet_v2, source)():
        model.run(None, {"x": batch["x"]})


def rewrite(path: Path, out: Path) -> None:
    """Read and write a graph."""
    import onnx

    onnx.save(onnx.load(path), out)


def emulate(reference: Path, graph: Path, label: str) -> None:
    import mobilenet_v2
    from trtcompress_engines.emulation import rounding_float16

    with floor(label):
        # Without the rounding it would not be float16 that is emulated
        written = rounding_float16(graph) or graph.read_bytes()
        models = (session(reference), session(written, disable_quant_qdq="1"))
        for batch in mobilenet_v2.evaluation():
            for model in models:
                model.run(None, {"x": batch["x"]})


def validate(build: Path, seconds: float) -> None:
    """One pass of the reference and of both engines over the evaluation images, and the timing that is asked for."""
    import mobilenet_v2

    engines = sorted((build / "engines/cpu").glob("*/*.optimized.onnx"))
    with floor("validate cpu"):
        models = [session(build / "models/exported/model.onnx"), *(session(path) for path in engines)]
        for batch in mobilenet_v2.evaluation():
            for model in models:
                model.run(None, {"x": batch["x"]})
        for size in (1, 4, 8):
            time_bare(models, np.resize(batch["x"], (size, *batch["x"].shape[1:])), seconds, duel=size == 4)


def time_bare(models: list[Any], batch: np.ndarray, seconds: float, duel: bool) -> None:
    """The timed runs: each engine in turn with the reference, and INT8 with float at the usual batch size."""
    reference, *engines = models
    pairs = [(engine, reference) for engine in engines] + ([tuple(engines)] if duel else [])
    for pair in pairs:
        started, count = time.perf_counter(), 0
        while count < MIN_PAIRS or time.perf_counter() - started < seconds:
            for model in pair:
                model.run(None, {"x": batch})
            count += 1


def build_plans(build: Path) -> None:
    """Parse and build as TensorRT for RTX does it, with nothing around."""
    with floor("load TensorRT for RTX"):
        from trtcompress_engines.backends.trt_load import load

        trt = load("rtx")
        logger = trt.Logger(trt.Logger.ERROR)
    capability = {"rtx-3090": trt.ComputeCapability.SM86, "rtx-4090": trt.ComputeCapability.SM89}
    for target, sm in capability.items():
        for graph in sorted((build / "models").glob("trt-*/model.onnx")):
            with floor(f"compile {target}/{graph.parent.name}"):
                plan(trt, logger, graph, sm)


def plan(trt: Any, logger: Any, graph: Path, sm: Any) -> None:
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        raise SystemExit(f"{graph} does not parse")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(sm, 0)
    profile = builder.create_optimization_profile()
    profile.set_shape("x", (1, 3, 224, 224), (4, 3, 224, 224), (8, 3, 224, 224))
    config.add_optimization_profile(profile)
    if builder.build_serialized_network(network, config) is None:
        raise SystemExit(f"{graph} does not build")


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
