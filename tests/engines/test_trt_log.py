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


def test_a_message_is_cleaned_of_source_places_and_of_the_missing_driver():
    message = (
        "API Usage Error (fc: bad type. In checkType at /_src/nodeBase.cpp:456)\n"
        "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (cudaError 35: CUDA driver version)"
    )
    assert plain(message) == "API Usage Error (fc: bad type)"
