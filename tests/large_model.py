"""A program: put an ONNX model of more than 2 GB through reading, simplifying and costing, and tell how it went."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from onnx_models import model, save, value
from trtcompress_graph.cost import model_cost
from trtcompress_graph.load import load_ir, read_model
from trtcompress_graph.simplify import simplify

ROWS, WIDTH = 140_000, 4096
BYTES = ROWS * WIDTH * 4


def table(folder: Path) -> Path:
    """An embedding table of 2.3 GB in a sparse file, which takes no room on the disk."""
    proto = model(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"], name="gather"),
            helper.make_node("Identity", ["rows"], ["same"], name="same"),
            helper.make_node("Relu", ["same"], ["y"], name="relu"),
        ],
        [value("ids", ["n"], TensorProto.INT64)],
        [value("y", ["n", WIDTH])],
        {"table": np.zeros((1, 1), np.float32)},
        opset=13,
    )
    with (folder / "table.bin").open("wb") as file:
        file.truncate(BYTES)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [ROWS, WIDTH]
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "table.bin"), ("offset", "0"), ("length", str(BYTES))):
        tensor.external_data.add(key=key, value=text)
    return save(proto, folder / "large.onnx")


def main(folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plain = simplify(read_model(table(folder)), folder / "out.onnx")
    cost = model_cost(plain, {"ids": (7,)})
    told = {
        "model_bytes": plain.path.stat().st_size,
        "parameters": cost.parameters,
        "weight_bytes": cost.bytes,
        "kinds": [node.op_type for node in load_ir(plain).graph],
        "memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
