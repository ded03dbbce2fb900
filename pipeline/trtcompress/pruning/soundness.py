"""The last look at a cut graph before it gets its name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.comparable import COUNTS, behind
from trtcompress_graph.errors import PruneError
from trtcompress_graph.model import Model

from .factors import Shape

Inputs = Mapping[str, NDArray[Any]]


def check_runs_like(full: Model, pruned: Model, shapes: Mapping[str, Shape], given: Iterable[Inputs] = ()) -> None:
    """Check the file, and that its outputs have the shapes of the full model's, at several lengths of dynamic axes.

    Lengths that depend on values (how many boxes were found) may differ. Costs a few passes of each model.

    Args:
        full: the model before the cut.
        pruned: the model behind it.
        shapes: of the inputs; besides them longer ones are tried.
        given: real inputs to try.

    Raises:
        PruneError: they differ, it does not run, or the full model takes nothing that could be tried.
    """
    import onnx

    try:
        onnx.checker.check_model(str(pruned.path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise _broken(pruned, str(error)) from error
    reference, cut = _Outputs(full), _Outputs(pruned)
    tried, reason = 0, ""
    for inputs in (*given, *_made_up(full, shapes)):
        wanted = reference.shapes(inputs)
        if isinstance(wanted, str):
            reason = reason or wanted
            continue  # the full model does not take it either
        tried += 1
        found = cut.shapes(inputs)
        if found != wanted:
            raise _broken(pruned, found if isinstance(found, str) else f"outputs of shapes {found} instead of {wanted}")
    if not tried:
        raise PruneError(
            f"the cut graph was not written, since the model runs neither on zeros nor on ones: {reason}",
            where=full.path.name,
            hint="give --data, so that it is tried on a real sample",
        )


def _made_up(model: Model, shapes: Mapping[str, Shape]) -> Iterator[Inputs]:
    """Zeros and ones of these shapes, of one more along each dynamic axis, and of twice as much."""
    for times, more in ((1, 0), (1, 1), (2, 0)):
        for value in (0, 1):
            inputs = {}
            for spec in model.inputs:
                pairs = zip(spec.shape, shapes[spec.name], strict=True)
                shape = tuple(length if isinstance(dim, int) else times * length + more for dim, length in pairs)
                inputs[spec.name] = np.full(shape, value, spec.dtype)
            yield inputs


class _Outputs:
    """Runs a model for the shapes of its outputs; lengths that depend on values are None."""

    def __init__(self, model: Model) -> None:
        import onnxruntime as ort

        from trtcompress_graph.load import load_ir

        options = ort.SessionOptions()
        options.log_severity_level = 4
        self._path = str(model.path)
        self._options = options
        self._session: Any = None
        counted = behind(load_ir(model).graph, COUNTS)
        self._counted = [spec.name in counted for spec in model.outputs]

    def shapes(self, inputs: Inputs) -> list[tuple[int | None, ...]] | str:
        """The shapes; the message where it does not run."""
        import onnxruntime as ort

        try:
            self._session = self._session or ort.InferenceSession(
                self._path, self._options, providers=["CPUExecutionProvider"]
            )
            outputs = self._session.run(None, dict(inputs))
        except Exception as error:  # ONNX Runtime's exception classes share no base
            return str(error).splitlines()[0]
        return [
            tuple(None if counted else length for length in np.shape(array))
            for array, counted in zip(outputs, self._counted, strict=True)
        ]


def _broken(model: Model, what: str) -> PruneError:
    return PruneError(
        f"the cut graph is not sound and was not written: {what}",
        where=str(model.path.name),
        hint="this is a defect of trtcompress; leave the layer that is named out with --keep",
    )
