#!/usr/bin/env python3
"""Put the weights of an ONNX file into a plan, on the GPU that it was built for: python3 refit.py PLAN ONNX OUT.

A stripped plan gets its own back; one that was built with `refit` takes those of a model of the same structure.
reproduce.py has to lie beside this file: it knows which TensorRT the plan is of, and how that is loaded.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any


def main(plan: str, onnx: str, out: str) -> None:
    """Read the plan, take the weights from the ONNX file, write the whole engine."""
    whole = refit(load(), Path(plan).read_bytes(), onnx)
    partial = Path(f"{out}.partial")
    partial.write_bytes(whole)
    partial.replace(out)
    print("wrote", out)


def load() -> Any:
    """TensorRT of the flavour that the plan is of."""
    beside = Path(__file__).resolve().with_name("reproduce.py")
    if not beside.is_file():
        sys.exit(f"error: {beside} is not here; copy it along")
    return runpy.run_path(str(beside))["load"]()


def refit(trt: Any, plan: bytes, onnx: str) -> bytes:
    """The engine with the weights of the ONNX file."""
    logger = trt.Logger(trt.Logger.WARNING)
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        sys.exit("error: the plan does not load here: another release of TensorRT, or another GPU")
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(onnx):
        sys.exit("error: " + "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)))
    if missing := refitter.get_missing_weights():
        sys.exit("error: weights are missing: " + ", ".join(missing))
    if not refitter.refit_cuda_engine():
        sys.exit("error: the engine did not take the weights")
    config = engine.create_serialization_config()
    config.clear_flag(trt.SerializationFlag.EXCLUDE_WEIGHTS)
    return bytes(engine.serialize_with_config(config))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
