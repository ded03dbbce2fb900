"""Methods of int8.py; each runs as `python int8_methods.py METHOD MODEL.onnx SAMPLES OUT.onnx` (or as our commands).

SAMPLES is a folder of .npz batches. Peers run as their documents say for CPUs: u8 activations, s8 weights per channel.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from calibrate_methods import Batch, batches

OURS = "trtcompress"
PEERS = {
    "onnxsim": "onnxsim",
    "onnxsim-entropy": "onnxsim",
    "onnxruntime": "onnxruntime",
    "onnxruntime-entropy": "onnxruntime",
}
"""Peers' methods, and the module of each; the plain ones take least and greatest values."""

ALL = 1 << 30


def missing(method: str) -> bool:
    """Whether a peer is not installed."""
    return method in PEERS and find_spec(PEERS[method]) is None


def commands(method: str, model: Path, samples: Path, out: Path) -> list[list[str]]:
    """What to run, one behind the other."""
    if method == OURS:
        program, ranges = str(Path(sys.executable).with_name("trtcompress")), str(out.with_suffix(".json"))
        return [
            [program, "calibrate", str(model), "--data", str(samples), "-o", ranges],
            [program, "quantize", str(model), "--ranges", ranges, "--target", "cpu", "-o", str(out)],
        ]
    return [[sys.executable, __file__, method, str(model), str(samples), str(out)]]


def onnxsim(model: Path, held: list[Batch], out: Path, method: str) -> None:
    import onnx
    import onnxsim as peer

    onnx.save(peer.quantize_static(str(model), held, method=method), out)


def onnxruntime(model: Path, held: list[Batch], out: Path, method: str) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(held)

        def get_next(self) -> Batch | None:
            return next(self._batches, None)

    ready = out.with_suffix(".ready.onnx")
    quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready),
        str(out),
        Reader(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=CalibrationMethod.Entropy if method == "entropy" else CalibrationMethod.MinMax,
    )


def main(method: str, model: str, samples: str, out: str) -> None:
    name, _, kind = method.partition("-")
    peer = {"onnxsim": onnxsim, "onnxruntime": onnxruntime}[name]
    peer(Path(model), list(batches(Path(samples), ALL)), Path(out), kind or "minmax")


if __name__ == "__main__":
    main(*sys.argv[1:])
