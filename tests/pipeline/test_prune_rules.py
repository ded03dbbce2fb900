"""The registries of operators: what they hold is pinned, so that a rule that is lost is seen."""

from __future__ import annotations

import pytest
from onnx import defs

from trtcompress.pruning.parameters import PARAMETERS, parameters
from trtcompress.pruning.replay import MOVED
from trtcompress.pruning.rules import RULES
from trtcompress.pruning.rules.registry import rule

COUPLED = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitwiseAnd BitwiseNot
BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Concat Conv ConvTranspose Cos Cosh CumSum DepthToSpace Div Dropout
Einsum Elu Equal Erf Exp Expand Flatten Floor GRU Gather GatherND Gelu Gemm GlobalAveragePool GlobalLpPool
GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization
IsInf IsNaN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool
Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not Or PRelu Pad Pow RMSNormalization RNN Reciprocal ReduceL1
ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape
Resize Round ScatterND Selu Shrink Sigmoid Sign SimplifiedLayerNormalization Sin Sinh Slice Softmax Softplus Softsign
SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample Where Xor
"""
WRITTEN = "Conv ConvTranspose ConstantOfShape Expand GRU Gather LSTM Pad RNN Reshape Resize Slice Split Tile"


def test_the_operators_that_have_a_rule() -> None:
    assert set(RULES) == set(COUPLED.split())


def test_the_operators_that_name_a_width() -> None:
    assert set(PARAMETERS) == set(WRITTEN.split())


def test_what_moves_data_has_a_rule() -> None:
    assert RULES.keys() >= MOVED


def test_rules_are_of_operators_that_exist() -> None:
    known = {schema.name for schema in defs.get_all_schemas_with_history() if not schema.domain}
    assert set(RULES) - known == {"SimplifiedLayerNormalization"}, "an operator of ONNX Runtime in the ONNX domain"
    assert set(PARAMETERS) <= known


@pytest.mark.parametrize("register", [rule, parameters])
def test_no_operator_has_two(register) -> None:
    with pytest.raises(ValueError, match="Conv"):
        register("Conv")(lambda *_: None)
