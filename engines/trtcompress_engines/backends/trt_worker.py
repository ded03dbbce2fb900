"""The process in which TensorRT runs: `python -m trtcompress_engines.backends.trt_worker REQUEST RESULT`.

A process of its own, because Polygraphy can bind to one of TensorRT and TensorRT for RTX only, because their
libraries are loaded for all to see, and because a crash in native code then ends this process and not the build.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..tensorrt_release import Flavour
from ..with_parent import end_with_parent
from .trt_calibrator import calibrator
from .trt_config import create_config, finish_config
from .trt_load import gpu_count, load
from .trt_log import blamed_node, parsed_nodes, plain, summary
from .trt_recipe import Recipe


@dataclass(frozen=True, slots=True)
class Request:
    """What to build.

    Attributes:
        flavour: `rtx` or `classic`.
        onnx: the graph; empty to ask only for versions.
        folder: the engine goes there; caches lie there.
        recipe: fields of the `Recipe`.
        batches: folder of samples that TensorRT calibrates on, or empty.
    """

    flavour: Flavour
    onnx: str = ""
    folder: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    batches: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it; `error` is empty where it went well, `node` names the ONNX node that an error is about."""

    version: str = ""
    gpus: int = 0
    compute_capabilities: list[str] = field(default_factory=list)
    details: dict[str, str] = field(default_factory=dict)
    error: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True)
class _Log:
    """What TensorRT says."""

    all: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def main(request_file: str, result_file: str) -> None:
    """Do what the request file says and write the result file."""
    end_with_parent(signal.SIGKILL)
    raw = json.loads(Path(request_file).read_text(encoding="utf-8"))
    result = build(Request(**raw))
    Path(result_file).write_text(json.dumps(asdict(result)), encoding="utf-8")


def build(request: Request) -> Result:
    """Parse and build, or only tell the versions where no graph is given."""
    trt = load(request.flavour)
    known = {
        "version": trt.__version__,
        "gpus": gpu_count(),
        "compute_capabilities": sorted(n for n in dir(getattr(trt, "ComputeCapability", None)) if n.startswith("SM")),
    }
    if not request.onnx:
        return Result(**known)
    from polygraphy.exception import PolygraphyException

    log = _listen(trt)
    try:
        error, node = _parse_and_build(trt, request)
    except PolygraphyException as failure:
        error = "; ".join(dict.fromkeys(log.errors)) or str(failure)
        node = ""
    if error:
        return Result(**known, error=plain(error), node=node or blamed_node(error, parsed_nodes(log.all)))
    details = summary(log.all)
    if log.warnings:
        details["warnings"] = " | ".join(dict.fromkeys(log.warnings))
    return Result(**known, details=details)


def _parse_and_build(trt: Any, request: Request) -> tuple[str, str]:
    """Write the plan. Returns the parser's error and the ONNX node it is about, or nothing twice."""
    from polygraphy.backend.trt import CreateNetwork, EngineBytesFromNetwork, PostprocessConfig, get_trt_logger

    recipe, folder = Recipe(**request.recipe), Path(request.folder)
    if not recipe.release.same_as(trt.__version__):
        return f"the build was laid out for {recipe.release.title}, and {trt.__version__} is installed", ""
    builder, network = CreateNetwork(explicit_batch=recipe.explicit_batch, strongly_typed=recipe.strongly_typed)()
    # Polygraphy's NetworkFromOnnxPath hides the parser's error objects, which alone name the node
    parser = trt.OnnxParser(network, get_trt_logger())
    if recipe.native_instance_norm:
        parser.set_flag(trt.OnnxParserFlag.NATIVE_INSTANCENORM)
    parsed = parser.parse_from_file(request.onnx)
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if errors or not parsed:
        return _parser_error(errors)
    batches = Path(request.batches) if request.batches else None
    cache = recipe.calibration_cache
    scales = calibrator(folder / cache, batches, trt.__version__) if cache else None
    timing = str(folder / recipe.timing_cache) if recipe.timing_cache else None
    config = PostprocessConfig(
        create_config(trt, recipe, folder, scales),
        lambda _builder, _network, made: finish_config(trt, recipe, folder, made),
    )
    plan = EngineBytesFromNetwork((builder, network, parser), config, save_timing_cache=timing)()
    if scales is not None and batches is None and scales.data_loader.asked:
        return f"TensorRT {trt.__version__} did not take the scales of {cache}: it went to calibrate by itself", ""
    if scales is not None and batches is not None and scales.data_loader.asked and not scales.data_loader.through:
        return f"TensorRT {trt.__version__} did not take all samples that it was to calibrate on", ""
    (folder / recipe.plan).write_bytes(plan)
    return "", ""


def _parser_error(errors: list[Any]) -> tuple[str, str]:
    """What the parser's first error says, with the other nodes that it refuses, and the name of the first."""
    if not errors:
        return "the parser cannot read the file", ""
    first, *others = errors
    named = [f"{_node_name(error)} ({_operator(error)})" for error in others if _node_name(error)]
    more = f"; {len(named)} more: {', '.join(named[:5])}" if named else ""
    return _reason(first) + more, _node_name(first)


def _reason(error: Any) -> str:
    text = str(error.desc()).strip()
    if "UNSUPPORTED_NODE" in str(error.code()) or "Plugin not found" in text:
        return f"the operator {_operator(error)} is not supported"
    return f"{_operator(error)}: {text}" if _operator(error) else text


def _node_name(error: Any) -> str:
    """Before version 10 errors carry no names."""
    return str(error.node_name()) if hasattr(error, "node_name") else ""


def _operator(error: Any) -> str:
    return str(error.node_operator()) if hasattr(error, "node_operator") else ""


def _listen(trt: Any) -> _Log:
    """Have TensorRT write to a list, through Polygraphy's loaders too.

    Polygraphy's own logger takes a fifth of the time of a build for the twelve thousand messages of a ResNet-50.
    """
    from polygraphy.backend.trt import util
    from polygraphy.logger import G_LOGGER

    log = _Log()

    def keep(self: Any, severity: Any, message: str) -> None:
        log.all.append(message)
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            log.errors.append(message)
        elif severity == trt.ILogger.WARNING:
            log.warnings.append(message.strip())

    util.TRT_LOGGER = type("Logger", (trt.ILogger,), {"log": keep})()
    G_LOGGER.module_severity = G_LOGGER.CRITICAL
    return log


if __name__ == "__main__":
    main(*sys.argv[1:])
