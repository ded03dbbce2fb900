"""From ONNX to a module of PyTorch that can be trained."""

from __future__ import annotations

from torch import fx

from . import ops  # noqa: F401 - fills the registry
from .builder import Builder
from .module import META
from .prepare import Prepared, Source, prepare
from .roles import roles
from .state import Options, State
from .tied import bias_scales, tied_scales


def to_torch(source: Source, *, learn_scales: bool = False, restore_batchnorm: bool = False) -> fx.GraphModule:
    """A module that computes what an ONNX model computes, and that can be trained.

    Its parameters have the names of the initializers. It takes the inputs of the model in their order, and returns its
    output, or a tuple of its outputs. Q/DQ pairs become fake quantization with gradients straight through inside the
    range; integer weights behind a DequantizeLinear become float parameters that are rounded in each pass.

    Args:
        source: a model, its path, or its protobuf.
        learn_scales: the scales of Q/DQ pairs are trained too (LSQ, arXiv 1902.08153); one that has to stay equal to
            another is that one, and only the first is in the state dict (`tied_scales`), as that of a bias is not.
        restore_batchnorm: a BatchNorm that changes nothing yet goes behind each convolution that has a bias and none;
            `to_onnx` folds it into the weights. See `settle_batchnorm`.

    Raises:
        OperatorError: an operator that is not registered.
        ModelError: the model cannot be used.
    """
    return build(prepare(source), Options(learn_scales, restore_batchnorm))


def build(prepared: Prepared, options: Options) -> fx.GraphModule:
    """The view of a graph that was prepared."""
    graph = prepared.model.graph
    twins = tied_scales(graph) if options.learn_scales else {}
    products = bias_scales(graph) if options.learn_scales else {}
    state = State(roles(graph, prepared.trainable), prepared.trainable, options, twins, products)
    builder = Builder(state, dict(prepared.model.opset_imports))
    builder.root = state.root
    for value in graph.inputs:
        builder.placeholder(value)
    builder.run(list(graph))
    module = builder.finish(graph)
    module.meta[META] = {
        "grids": state.grids,
        "restored": tuple(state.restored),
        "scales": tuple(state.scales),
        "twins": state.twins,
        "wiring": prepared.wiring,
    }
    return module.eval()
