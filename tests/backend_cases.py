"""The cases of ONNX's own backend test suite, by operator, and how the torch view answers them."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from trtcompress_graph.protos import nodes
from trtcompress_graph.torch_view import to_torch
from trtcompress_graph.torch_view.registry import find
from trtcompress_graph.torch_view.tensors import to_array, to_tensor


@functools.cache
def cases() -> dict[str, Any]:
    """Every case by name."""
    return {case.name: case for case in collect_testcases(None)}


def operators(proto: onnx.ModelProto) -> set[tuple[str, str]]:
    return {(node.domain, node.op_type) for node in nodes(proto)}


@functools.cache
def by_operator() -> dict[str, list[str]]:
    """Names of the cases that hold registered operators only, by the operator (or the operators) that they hold."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, case in cases().items():
        held = operators(case.model)
        if all(find(*each) for each in held):
            found["/".join(sorted(op for _, op in held))].append(name)
    return found


def tensor(given: Any) -> Any:
    """An input of a case."""
    if isinstance(given, list):
        return [tensor(part) for part in given]
    if isinstance(given, onnx.TensorProto):
        given = numpy_helper.to_array(given)
    array = np.asarray(given)
    return to_tensor(array, ir.DataType.from_numpy(array.dtype))


def differences(name: str) -> list[str]:
    """What is wrong with the answers of a case."""
    case = cases()[name]
    module = to_torch(case.model)
    wrong = []
    for number, (inputs, expected) in enumerate(case.data_sets):
        with torch.no_grad():
            made = module(*[tensor(given) for given in inputs])
        results = made if isinstance(made, tuple) else (made,)
        for wanted, got, declared in zip(expected, results, case.model.graph.output, strict=True):
            problem = difference(wanted, got, case.rtol, case.atol)
            if problem:
                wrong.append(f"{name}[{number}] {declared.name}: {problem}")
    return wrong


def difference(wanted: Any, got: Any, rtol: float, atol: float) -> str:
    if isinstance(wanted, (list, tuple)) and isinstance(got, Sequence):
        parts = [difference(a, b, rtol, atol) for a, b in zip(wanted, got, strict=True)]
        return "; ".join(part for part in parts if part)
    wanted = numpy_helper.to_array(wanted) if isinstance(wanted, onnx.TensorProto) else np.asarray(wanted)
    kind = ir.DataType.from_numpy(wanted.dtype)
    if not isinstance(got, torch.Tensor):
        return f"not a tensor but {type(got).__name__}"
    if tuple(got.shape) != wanted.shape:
        return f"shape {tuple(got.shape)}, not {wanted.shape}"
    expected = to_tensor(wanted, kind)
    if got.dtype != expected.dtype:
        return f"type {got.dtype}, not {expected.dtype}"
    one, other = (
        to_array(t, kind).astype(np.float64 if not t.is_complex() else np.complex128) for t in (got, expected)
    )
    step = torch.finfo(got.dtype).eps if got.is_floating_point() and got.dtype.itemsize == 2 else 0.0
    near = np.isclose(one, other, rtol=max(rtol, 4 * step), atol=max(atol, step, 1e-6), equal_nan=True)
    if near.all():
        return ""
    return f"{(~near).sum()} of {near.size} elements differ, by up to {np.nanmax(np.abs(one - other)):.3g}"
