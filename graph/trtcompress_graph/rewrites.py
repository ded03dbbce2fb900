"""Small rewrites that shorten a graph without touching weights: no-ops, and chains of data movement."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_RULES = (
    "add_0_rule",
    "sub_0_rule",
    "mul_by_1_rule",
    "div_by_1_rule",
    "no_op_cast_rule",
    "no_op_expand_rule",
    "no_op_transpose_rule",
    "no_op_dynamic_scatter_nd_rule",
    "no_op_static_scatter_nd_rule",
    "cast_cast_rule",
    "cast_constant_of_shape_rule",
    "cast_constant_of_shape_without_value_rule",
    "collapse_slice_rule",
    "collapse_slice2_rule",
    "materialize_reshape_shape_rule",
    "reshape_reshape_rule",
    "squeeze_reshape_1d_rule",
    "transpose_transpose_rule",
    "unsqueeze_unsqueeze_rule",
    "successive_clip_rule",
    "successive_clip_relu_rule",
    "successive_relu_clip_rule",
    "successive_relu_rule",
    "normalize_pad_format_conv_rule",
    "fuse_pad_into_conv_rule",
)
"""Of onnxscript's rules those that keep weights and their names. Not among them: dropping biases that are zero
(pruning and recovery want them) and turning MatMul and Add into Gemm."""


def rewrite(model: ir.Model) -> bool:
    """Apply the rules once; True where something changed."""
    from onnxscript import rewriter
    from onnxscript.rewriter.rules import common

    return bool(rewriter.RewritePass([getattr(common, rule) for rule in _RULES])(model).modified)
