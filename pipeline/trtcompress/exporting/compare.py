"""Does the exported model give PyTorch's answers?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtcompress_graph.errors import DataError, ExportError
from trtcompress_graph.model import Model

from .network import Network, Sample
from .outputs import named_outputs
from .sizes import lengths_at, resized, told, tracing_lengths, within_budget

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]

_TOLERANCE = {"float64": 1e-4, "float32": 1e-4, "float16": 1e-2}
"""Greatest difference allowed, relative to the greatest value of the output."""


def compare(network: Network, model: Model, samples: Iterable[Sample]) -> float:
    """Compare on the examples, at the least and greatest lengths of the dynamic axes, and on real samples.

    Returns:
        The greatest difference of any output that was seen, relative to the greatest value of that output.

    Raises:
        ExportError: naming the first output that differs, where, and by how much; or what PyTorch cannot run.
        DataError: a sample that does not fit the network.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    greatest = _compare(network, session, resized(network, tracing_lengths(network)), "the example inputs")
    if any(network.axes.values()):
        for at in ("min", "max"):
            lengths = within_budget(network, lengths_at(network, at))
            found = _compare(network, session, resized(network, lengths, rng), f"random {told(lengths)}")
            greatest = max(greatest, found)
    for index, sample in enumerate(samples):
        found = _compare(network, session, _tensors(network, sample, index), f"sample {index}", DataError)
        greatest = max(greatest, found)
    return greatest


def _compare(
    network: Network,
    session: Any,
    inputs: Mapping[str, torch.Tensor],
    told: str,
    blame: type[ExportError | DataError] = ExportError,
) -> float:
    """Run both on the same inputs; the greatest relative difference."""
    expected = named_outputs(network.answers(inputs, told, blame))
    feeds = {value.name: inputs[value.name].numpy() for value in session.get_inputs()}
    try:
        given = session.run(None, feeds)
    except Exception as error:  # ONNX Runtime's exception classes share no base
        raise ExportError(
            f"the exported model fails on {told}: {str(error).splitlines()[0]}",
            where=network.source,
            hint="PyTorch can run these inputs; narrow the range of the axis, or take what fixes its length out of "
            "the network",
        ) from error
    greatest = 0.0
    for value, (_, tensor), array in zip(session.get_outputs(), expected, given, strict=True):
        wrong = difference(tensor.detach().numpy(), array)
        if wrong:
            raise ExportError(
                f"the exported model differs from PyTorch on {told}: {wrong}",
                where=f"{network.source}: output '{value.name}'",
                hint="look for code that depends on values, on training mode or on random numbers",
            )
        distance, scale = _distance(tensor.detach().numpy(), array)
        greatest = max(greatest, distance / scale if scale else 0.0)
    return greatest


def difference(expected: Array, given: Array) -> str:
    """What is wrong with the exported output, in words; empty where it is as good as PyTorch's."""
    if expected.shape != given.shape:
        return f"shape {given.shape} instead of {expected.shape}"
    if expected.dtype != given.dtype:
        return f"type {given.dtype} instead of {expected.dtype}"
    if expected.dtype.name not in _TOLERANCE:
        count = int((expected != given).sum())
        return f"{count} of {expected.size} values differ" if count else ""
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], given[~finite], equal_nan=True) or not np.isfinite(given[finite]).all():
        return "infinite or undefined values at other places"
    distance, scale = _distance(expected, given)
    if distance <= _TOLERANCE[expected.dtype.name] * scale + 1e-7:
        return ""
    return f"off by up to {distance:.3g} where the greatest value is {scale:.3g}"


def _distance(expected: Array, given: Array) -> tuple[float, float]:
    """Greatest difference, and greatest value, of the finite floats; zeros where there are none."""
    finite = np.isfinite(expected) if expected.dtype.kind == "f" else np.zeros(expected.shape, bool)
    if not finite.any():
        return 0.0, 0.0
    exact = expected[finite].astype(np.float64)
    return float(np.abs(exact - given[finite]).max()), float(np.abs(exact).max())


def _tensors(network: Network, sample: Sample, index: int) -> dict[str, torch.Tensor]:
    """A sample as tensors of the examples' types, in the order of the inputs."""
    import torch

    tensors: dict[str, torch.Tensor] = {}
    for name, example in network.inputs.items():
        if name not in sample:
            raise DataError(
                f"sample {index} has no input '{name}'", where=network.source, hint=f"it has: {', '.join(sample)}"
            )
        tensor = torch.from_numpy(np.array(sample[name], order="C")).to(example.dtype)
        if tensor.dim() != example.dim():
            raise DataError(
                f"sample {index} has {tensor.dim()} axes at the input '{name}', the network wants {example.dim()}",
                where=network.source,
                hint="samples carry their batch axis",
            )
        tensors[name] = tensor
    return tensors
