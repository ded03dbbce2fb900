"""From what the user has (a PyTorch network or an ONNX file) to the ONNX model that a build starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from types import MappingProxyType

from trtcompress_graph.axes import Axes
from trtcompress_graph.callables import is_callable_name
from trtcompress_graph.errors import UsageError
from trtcompress_graph.fixing import fix_inputs
from trtcompress_graph.load import copy_model, read_model
from trtcompress_graph.model import Model

from .network import Sample, network_of_function
from .pickled import load_state_dict, network_of_pickle

__all__ = ["export_model", "load_state_dict"]


def export_model(
    source: str,
    *,
    base: Path,
    axes: Axes,
    samples: Iterable[Sample] = (),
    trust_pickle: bool = False,
    fix: Mapping[str, object] = MappingProxyType({}),
    out: Path,
    tell: Callable[[str], None] = lambda _: None,
) -> Model:
    """Write the ONNX model of a source, checked against PyTorch where it comes from there.

    Args:
        source: `package.module:function` that returns `(module, example_inputs)` or `(module, example_inputs,
            dynamic_axes)`; or the path of an ONNX file; or, if `trust_pickle`, of a pickled module.
        base: folder that modules and paths are looked for in.
        axes: least, usual and greatest length of each dynamic axis, by input.
        samples: real inputs, with their batch axis; PyTorch and the exported model must agree on each.
        trust_pickle: run what a pickle says; it can do anything that you can.
        fix: values of inputs that are always the same, of an ONNX file; these inputs become constants.
        out: the ONNX file to write.
        tell: told, line by line, which axes are dynamic and how far PyTorch's answers were from the model's.

    Raises:
        UsageError: the function cannot be found, a key of `axes` names no axis of an input, or `fix` is given for
            what is no ONNX file.
        MissingPathError: there is no such file.
        ModelError: the file is not a sound model, or a pickle that is not trusted, or the function raises or does not
            return what it should.
        ExportError: PyTorch cannot export the network, or the exported model gives other answers.
    """
    if fix and (is_callable_name(source) or source.endswith((".pt", ".pth"))):
        raise UsageError(
            "inputs are fixed in ONNX files only",
            where="model.fix",
            hint="have the function return a module that holds these values itself",
        )
    if not is_callable_name(source):
        path = base / source
        if path.suffix not in (".pt", ".pth"):
            return fix_inputs(read_model(path), fix, out) if fix else copy_model(read_model(path), out)
        samples = iter(samples)
        first = next(samples, None)
        network = network_of_pickle(path, axes, first, trust_pickle)
        samples = chain([] if first is None else [first], samples)
    else:
        network = network_of_function(source, base, axes)
    from .torch_export import export_network

    return export_network(network, samples, out, tell)
