"""Graphs as the ONNX parser of a release takes them: brought down to an older opset where it does not take them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from trtcompress_graph.errors import CompileError, ModelError
from trtcompress_graph.load import load_ir
from trtcompress_graph.model import Model

from .tensorrt_release import Release

OLDER = "older.onnx"
"""What is built in place of the graph, beside it."""

WIDENED = "with float32 in place of float16, which TensorRT 8 may compute in by its flag"
_TAKES_NEWER = (10, 0)
"""From here on a parser takes what it knows of newer opsets too, such as the 4-bit weights of opset 21."""

_HALF_SCALES = 19
"""The first opset whose Q/DQ pairs take float16 scales."""


def needs(model: Model) -> tuple[int, set[str]]:
    """Opset of a graph, and the operators in it and in its branches."""
    loaded = load_ir(model)
    operators = {node.op_type for node in loaded.graph.all_nodes() if node.domain in ("", "ai.onnx")}
    return int(loaded.opset_imports.get("", 0)), operators


def brought_down(model: Model, opset: int, without: frozenset[str], path: Path) -> tuple[Model, bool]:
    """The graph in that opset, and whether its float16 was widened.

    Args:
        model: the graph.
        opset: the newest that its nodes may be in.
        without: operators that have to be written by others.
        path: file to write.

    Raises:
        ModelError: an operator has no counterpart there; it is named.
    """
    from trtcompress_graph.lowering import lower, quantizes_halves, widen

    wide = opset < _HALF_SCALES and quantizes_halves(model)
    with TemporaryDirectory(prefix="trtcompress-") as aside:
        source = widen(model, Path(aside) / "wide.onnx") if wide else model
        return lower(source, opset, path, without), wide


def parsed_by(release: Release, model: Model, path: Path) -> tuple[Model, str]:
    """The graph that a release builds, and what was done to it, in words.

    Args:
        release: that builds.
        model: the graph.
        path: file to write, if the parser does not take the graph as it is.

    Returns:
        The graph itself and nothing to say, where the parser takes it, or knows operators of newer opsets that have no
        counterpart.

    Raises:
        CompileError: an operator has no counterpart that the parser takes; it is named.
    """
    opset, operators = needs(model)
    if release.parses(opset, operators):
        return model, ""
    try:
        made, wide = brought_down(model, release.opset, release.unparsed, path)
    except ModelError as error:
        if release.number >= _TAKES_NEWER:
            return model, ""
        node = error.where.partition(": ")[2]
        raise CompileError(
            f"the parser of {release.title} takes opset {release.opset} at the most: {error.what}",
            where=f"{model.path}: {node}" if node else str(model.path),
            hint=f"build with a later TensorRT (tensorrt.version), or {error.hint}" if error.hint else "",
        ) from error
    return made, f"opset {min(release.opset, opset)}, for {release.title}" + (f", {WIDENED}" if wide else "")
