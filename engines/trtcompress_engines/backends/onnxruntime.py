"""ONNX Runtime on this CPU: the engine for `cpu`, and the reference that every other engine is compared with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trtcompress_graph.cores import usable_cores
from trtcompress_graph.digest import files_digest
from trtcompress_graph.errors import CompileError, DataError
from trtcompress_graph.model import Model
from trtcompress_graph.quantized_ops import is_integer
from trtcompress_graph.target import Engine, Target

from ..backend import CompileOptions
from ..cpu import cpu_features
from ..files import staged

if TYPE_CHECKING:
    from ..backend import Array

EXTERNAL_ABOVE = 1 << 30
"""Weights of a bigger model go beside the optimized file: one ONNX file ends at 2 GB."""

EXTERNAL_LEAST = 1024
"""Weights of fewer bytes stay in the ONNX file all the same."""

SLOW_FUSIONS = ("SkipLayerNormFusion", "BiasSkipLayerNormFusion", "BiasGeluFusion")
"""Fusions whose kernels take longer than what they replace.

On MiniLM SkipLayerNormalization takes 3 to 5 times as long as Add and LayerNormalization, BiasGelu 1.3 to 1.7 times as
long as Add and Gelu. Without them the whole is 1.0 to 1.3 times as fast, in INT8 most.
"""


class OnnxRuntimeBackend:
    """Engines are graphs that ONNX Runtime optimized for this very CPU; the portable graph stays `Engine.graph`."""

    name = "onnxruntime"

    def missing(self) -> str:
        """Empty where ONNX Runtime is installed."""
        return "" if find_spec("onnxruntime") else "ONNX Runtime is not installed: pip install onnxruntime"

    def compile(self, graph: Model, target: Target, encoding_name: str, options: CompileOptions, out: Path) -> Engine:
        """Optimize the graph for this machine and save what came out."""
        file = f"model.{encoding_name}.optimized.onnx"
        with staged(out) as folder:
            settings = session_options(options.threads)
            settings.optimized_model_filepath = str(folder / file)
            before, weights = _contents(graph.path)
            if weights > EXTERNAL_ABOVE:
                settings.add_session_config_entry(
                    "session.optimized_model_external_initializers_file_name", f"{file}.data"
                )
                settings.add_session_config_entry(
                    "session.optimized_model_external_initializers_min_size_in_bytes", str(EXTERNAL_LEAST)
                )
            _session(graph.path, settings)
            _settle_names(folder / file)
            written = sorted(folder.iterdir())
            digest = files_digest(written)
            after, _ = _contents(folder / file)
        return Engine(
            path=out / file,
            digest=digest,
            target=target.name,
            backend=self.name,
            encoding=encoding_name,
            graph=graph,
            built=True,
            reproducible=True,
            details=_details(before, after, options.threads),
        )

    def open(self, engine: Engine, threads: int = 0) -> OnnxRuntimeRunner:
        """A runner for the optimized model; an engine that is its own graph is optimized when it is loaded."""
        return OnnxRuntimeRunner(engine.path, threads, optimize=engine.path == engine.graph.path)


def open_graph(path: Path, threads: int = 0, *, emulate: bool = False, more: Sequence[str] = ()) -> OnnxRuntimeRunner:
    """A runner for any ONNX file.

    Args:
        path: the graph.
        threads: 0 is all cores that this process may use.
        emulate: compute every Q/DQ pair as it is written, in float arithmetic, and fuse none of them into an
            integer kernel of this CPU; round the result of every float16 or bfloat16 node to its type. These are the
            numbers that a graph for another device stands for.
        more: tensors inside the graph, none of its outputs, that it gives too.
    """
    return OnnxRuntimeRunner(path, threads, emulate=emulate, more=more)


class OnnxRuntimeRunner:
    """Runs an ONNX file through Polygraphy's `OnnxrtRunner`."""

    def __init__(
        self,
        path: Path,
        threads: int = 0,
        *,
        optimize: bool = True,
        emulate: bool = False,
        more: Sequence[str] = (),
    ) -> None:
        self.path = path
        self._threads = threads
        self._optimize = optimize
        self._emulate = emulate
        self._more = more
        self._runner: Any = None

    def __enter__(self) -> Self:
        import onnxruntime as ort
        from polygraphy.backend.onnxrt import OnnxrtRunner

        from ..emulation import rounding_float16

        settings = session_options(self._threads)
        if not self._optimize:
            settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        if self._emulate:
            settings.add_session_config_entry("session.disable_quant_qdq", "1")
        content = rounding_float16(self.path) if self._emulate else None
        if self._more:
            content = _with_outputs(content or self.path.read_bytes(), self._more)
        self._runner = OnnxrtRunner(_session(self.path, settings, content))
        self._runner.activate()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.deactivate()
        self._runner = None

    def infer(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name.

        Raises:
            DataError: an input is missing, unknown, or of a type or shape that the graph does not take.
        """
        self._check(feed)
        try:
            return dict(self._runner.infer(dict(feed), check_inputs=False))
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise DataError(
                f"ONNX Runtime cannot run this input: {_plain(str(error))}", where=str(self.path)
            ) from error

    def bind(self, feed: Mapping[str, Array]) -> Callable[[], object]:
        """A call that runs once on `feed`, with inputs placed and outputs allocated beforehand."""
        import numpy as np

        self.infer(feed)  # what is wrong with the feed comes out here, and not while time is taken
        session = self._runner.sess
        binding = session.io_binding()
        for name, value in feed.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(value))
        for output in session.get_outputs():
            binding.bind_output(output.name)
        return lambda: session.run_with_iobinding(binding)

    def _check(self, feed: Mapping[str, Array]) -> None:
        wanted = {spec.name: spec for spec in self._runner.sess.get_inputs()}
        if wanted.keys() != feed.keys():
            raise DataError(
                f"the inputs are {', '.join(sorted(wanted))}; given: {', '.join(sorted(feed)) or 'none'}",
                where=str(self.path),
            )


def session_options(threads: int = 0) -> Any:
    """Session options: all optimizations that pay, `threads` threads (0: all usable cores), no spinning between runs.

    Threads that spin on after a run would steal the cores of the session that is timed next.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what goes wrong is raised; it need not be printed as well
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("optimization.disable_specified_optimizers", ";".join(SLOW_FUSIONS))
    return options


def _session(path: Path, options: Any, content: bytes | None = None) -> Any:
    """A session of the file, or of `content`, whose external data lies beside the file."""
    import onnxruntime as ort

    if content is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
        )
    try:
        return ort.InferenceSession(content or str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class of their own
        node = _blamed(str(error))
        where = f"{path}: node '{node}'" if node else str(path)
        raise CompileError(f"ONNX Runtime refuses the graph: {_plain(str(error))}", where=where) from error


def _with_outputs(content: bytes, names: Sequence[str]) -> bytes:
    """The graph with these tensors as outputs too. Names do: ONNX Runtime knows the types."""
    import onnx

    more = onnx.ModelProto()
    more.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    # One protobuf message behind the other is the merged message.
    return b"".join((content, more.SerializeToString()))


def _blamed(message: str) -> str:
    """The node that an error message of ONNX Runtime names, or nothing."""
    found = re.search(r"node with name '([^']+)'|[Nn]ode \(([^)]+)\)|[Nn]ode:\s*([^\s:]+)|Name:'([^']+)'", message)
    return next((group for group in found.groups() if group), "") if found else ""


def _plain(message: str) -> str:
    """The message without the code in brackets and the source location that stand before it."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", message).strip()


def _settle_names(path: Path) -> None:
    """Name the nodes that change the layout after their output: ONNX Runtime numbers them anew in every run."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        if node.domain == "com.microsoft.nchwc":
            node.name = f"{node.op_type}:{node.output[0]}"
    path.write_bytes(model.SerializeToString(deterministic=True))


def _contents(path: Path) -> tuple[Counter[str], int]:
    """How many nodes of each operator kind a graph has, with those of subgraphs, and the bytes of its weights."""
    import onnx_ir as ir

    loaded = ir.load(path)
    weights = sum(
        value.const_value.nbytes
        for graph in loaded.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    return Counter(node.op_type for node in loaded.graph.all_nodes()), weights


def _details(before: Counter[str], after: Counter[str], threads: int) -> dict[str, str]:
    cpu = cpu_features()
    integer = sum(n for kind, n in after.items() if is_integer(kind))
    blocked = sum(n for kind, n in after.items() if kind.startswith("Reorder"))
    fused = [f"{kind} x{n}" for kind, n in sorted(after.items()) if kind not in before]
    return {
        "threads": str(threads or cpu.cores),
        "operators": f"{before.total()} -> {after.total()}",
        "fused": ", ".join(fused) or "nothing",
        "int8_nodes": str(integer),
        "layout_changes": str(blocked),
        "cpu": cpu.name,
        "cpu_features": " ".join(cpu.flags),
    }
