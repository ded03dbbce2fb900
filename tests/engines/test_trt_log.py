from __future__ import annotations

import pytest

from trtcompress_engines.backends.trt_log import blamed_node, engine_layers, parsed_nodes, plain, summary

NODES = {"/conv1/Conv": "Conv", "fc": "Gemm", "b0_DQ": "DequantizeLinear", "relu_1": "Relu"}


@pytest.mark.parametrize(
    ("message", "node"),
    [
        ("Invalid Node - b0_DQ\nITensor::getDimensions: Error Code 4", "b0_DQ"),
        ("Cannot compile operation 'fc' for Turing (SM75): FP32 GEMM is not supported", "fc"),
        ("Could not find any implementation for node {ForeignNode[/conv1/Conv...fc_3]}.", "/conv1/Conv"),
        ("Error Code 4: API Usage Error (fc: input has type Int32)", "fc"),
        ("{ForeignNode[relu_1...fc]} failed", "relu_1"),
        ("Error Code 2: OutOfMemory", ""),
        ("Cannot compile operation 'unknown_9'", ""),
    ],
)
def test_the_blamed_node(message: str, node: str):
    assert blamed_node(message, NODES) == node


def test_nodes_are_read_off_the_parsers_log():
    log = ["Searching for input: x", "Parsing node: /conv1/Conv [Conv]", "Static check for parsing node: a [Add]"]
    assert parsed_nodes(log) == {"/conv1/Conv": "Conv"}


def test_layers_in_int8_read_int8_and_multiply_it():
    def layer(kind: str, inputs: str, constants: str, nodes: str) -> str:
        return (
            f"    Name: x, LayerType: {kind}, Inputs: [ {{ Datatype: {inputs} }}], "
            f"Constants: [ {{ Datatype: {constants} }}], Outputs: [ {{ Datatype: Int8 }}], Metadata: {nodes}"
        )

    listing = "\n".join(
        [
            "Layers:",
            layer("kgen", "Half", "Half", "[ONNX Layer: q][ONNX Layer: conv0]"),
            layer("correlation", "Int8", "Int8", "[ONNX Layer: conv0]"),
            layer("gemm", "Half", "Half", "[ONNX Layer: fc]"),
            "I/O Tensors:",
        ]
    )
    log = ["Parsing node: q [QuantizeLinear]", "Parsing node: conv0 [Conv]", "Parsing node: fc [Gemm]", listing]
    assert [found.int8 for found in engine_layers(log)] == [False, True, False]
    assert summary(log) == {"onnx_nodes": "3", "layers": "3", "int8_nodes": "1 of 2 convolutions and products"}


OLD_LISTING = """Engine Layer Information:
Layer(Reformat): Reformatting CopyNode for Input Tensor 0 to stem + act, Tactic: 0x1, x[Float(1,3,8)] -> q[Int8(1,3,8)]
Layer(CaskConvolution): stem + act, Tactic: 0x5a, q[Int8(1,3,8)] -> a[Int8(1,4,8,8)]
Layer(CaskConvolution): left + l_act || right + r_act, Tactic: 0x5b, a[Int8(1,4,8,8)] -> b[Half(1,4,8)], c[Half(1,4,8)]
Layer(Reformat): Reformatting CopyNode for Input Tensor 0 to head, Tactic: 0x01, b[Int8(1,4)] -> bh[Half(1,4)]
Layer(MatrixMultiply): head, Tactic: 0x00, bh[Half(1,4)], w[Half(4,2)] -> y[Float(1,2)]"""


def parsed(**kinds: str) -> list[str]:
    return [f"Parsing node: {name} [{kind}]" for name, kind in kinds.items()]


def test_the_listing_of_tensorrt_8():
    log = [*parsed(stem="Conv", act="Relu", left="Conv", right="Conv", head="MatMul"), OLD_LISTING]
    assert summary(log) == {"onnx_nodes": "5", "layers": "5", "int8_nodes": "3 of 4 convolutions and products"}
    profiled = OLD_LISTING.replace(", Tactic", " [profile 1], Tactic")
    assert summary([*log[:-1], profiled]) == summary(log)


def test_the_listing_of_tensorrt_10():
    def layer(name: str, kind: str, reads: str, more: str) -> str:
        return (
            f"Name: {name}, LayerType: {kind}, Inputs: [ {{ Name: x, Location: Device, Dimensions: [1,3,8,8], "
            f"Format/Datatype: {reads} }}], Outputs: [ {{ Name: y, Location: Device, Dimensions: [1,4,8,8], "
            f"Format/Datatype: Int8 }}], {more}"
        )

    copy = layer("Reformatting CopyNode for Input Tensor 0 to head", "Reformat", "Int8", "StreamId: 0, Metadata: ")
    stem = 'ParameterType: Convolution, Weights: {"Type": "Int8", "Count": 108}, Bias: {"Type": "Float", "Count": 4}'
    listing = [
        "Layers:",
        layer("w + q + stem + act", "CaskConvolution", "Int8", f"{stem}, Metadata: [ONNX Layer: q][ONNX Layer: stem]"),
        # Before metadata came, and in the words of that time
        layer("left + l_act", "CaskConvolution", "Thirty-two wide channel vectorized row major Int8 format", stem),
        layer("head_myl0_1", "gemm", "Half", "StreamId: 0, Metadata: [ONNX Layer: head]"),
        copy,
    ]
    log = parsed(q="QuantizeLinear", stem="Conv", act="Relu", left="Conv", head="MatMul")
    assert [found.int8 for found in engine_layers(["\n".join(listing)])] == [True, True, False, False]
    assert summary([*log, "\n".join(listing)])["int8_nodes"] == "2 of 3 convolutions and products"


@pytest.mark.parametrize("listing", [[], ["Layers:\nstem + act\nhead"], ["Engine Layer Information:\nof another form"]])
def test_of_a_listing_of_no_known_form_nothing_is_said(listing: list[str]):
    assert summary([*parsed(stem="Conv"), *listing]) == {"onnx_nodes": "1"}


def test_what_is_hidden_in_a_region_is_not_taken_for_float():
    """TensorRT 8 names the first and the last node of what it gives to another compiler, and of what a DLA runs."""
    region = "Layer(Myelin): {ForeignNode[scale...head]}, Tactic: 0x00, a[Int8(1,4)] -> y[Float(1,2)]"
    log = parsed(stem="Conv", scale="Mul", middle="MatMul", head="MatMul")
    stem = "Layer(CaskConvolution): stem, Tactic: 0x5a, x[{}(1,3,8,8)] -> a[Int8(1,4)]"
    found = summary([*log, f"Engine Layer Information:\n{stem.format('Int8')}\n{region}"])
    assert found["int8_nodes"] == "1 of 3 convolutions and products, of 2 the log tells nothing"
    assert "int8_nodes" not in summary([*log, f"Engine Layer Information:\n{stem.format('Float')}\n{region}"])


def test_a_message_is_cleaned_of_source_places_and_of_the_missing_driver():
    message = (
        "API Usage Error (fc: bad type. In checkType at /_src/nodeBase.cpp:456)\n"
        "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version)"
    )
    assert plain(message) == "API Usage Error (fc: bad type)"
