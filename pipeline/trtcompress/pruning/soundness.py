"""The last look at a cut graph before it gets its name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trtcompress_graph.errors import PruneError
from trtcompress_graph.model import Model

from .factors import Shape


def check_runs_like(full: Model, pruned: Model, shapes: Mapping[str, Shape]) -> None:
    """Check the file, and that its outputs have the shapes of the full model's, at two lengths of the dynamic axes.

    Costs two passes of each model, on zeros.

    Raises:
        PruneError: they differ, or it does not run.
    """
    import onnx

    try:
        onnx.checker.check_model(str(pruned.path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _broken(pruned, str(error)) from error
    for binding in (shapes, _longer(full, shapes)):
        wanted = _output_shapes(full, binding)
        if isinstance(wanted, str):
            continue  # the full model does not take these lengths either
        found = _output_shapes(pruned, binding)
        if found != wanted:
            raise _broken(pruned, found if isinstance(found, str) else f"outputs of shapes {found} instead of {wanted}")


def _longer(model: Model, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """One more along each dynamic axis."""
    longer = {}
    for spec in model.inputs:
        pairs = zip(spec.shape, shapes[spec.name], strict=True)
        longer[spec.name] = tuple(length if isinstance(dim, int) else length + 1 for dim, length in pairs)
    return longer


def _output_shapes(model: Model, shapes: Mapping[str, Shape]) -> list[Shape] | str:
    """Shapes of the outputs for zeros as inputs; the message where it does not run."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    feeds = {spec.name: np.zeros(shapes[spec.name], spec.dtype) for spec in model.inputs}
    try:
        session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
        return [tuple(np.shape(array)) for array in session.run(None, feeds)]
    except Exception as error:  # ONNX Runtime's exception classes share no base
        return str(error).splitlines()[0]


def _broken(model: Model, what: str) -> PruneError:
    return PruneError(
        f"the cut graph is not sound and was not written: {what}",
        where=str(model.path.name),
        hint="this is a defect of trtcompress; leave the layer that is named out with --keep",
    )
