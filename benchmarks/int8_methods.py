"""Methods of int8.py; each runs as `python int8_methods.py METHOD MODEL.onnx SAMPLES OUT.onnx` (or as our commands).

SAMPLES is a folder of .npz batches. Peers run as their documents say for CPUs: u8 activations, s8 weights per channel.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from calibrate_methods import Batch, batches

OURS = ("trtcompress", "trtcompress-mixed", "trtcompress-auto")
"""As it comes; with the nodes in float that cost most; and with all ways of rounding left to what is measured."""

MOST_LOST = 0.005
"""What `trtcompress-mixed` allows: squared error of an output over its power, without looking at a label."""

PEERS = {
    "onnxsim": "onnxsim",
    "onnxsim-entropy": "onnxsim",
    "onnxsim-mse": "onnxsim",
    "onnxsim-auto": "onnxsim",
    "onnxruntime": "onnxruntime",
    "onnxruntime-entropy": "onnxruntime",
    "onnxruntime-percentile": "onnxruntime",
}
"""Peers' methods, and the module of each; the plain ones take least and greatest values."""

ALL = 1 << 30


def missing(method: str) -> bool:
    """Whether a peer is not installed."""
    return method in PEERS and find_spec(PEERS[method]) is None


def commands(method: str, model: Path, samples: Path, out: Path) -> list[list[str]]:
    """What to run, one behind the other."""
    if method not in OURS:
        return [[sys.executable, __file__, method, str(model), str(samples), str(out)]]
    program, ranges = str(Path(sys.executable).with_name("trtcompress")), str(out.with_suffix(".json"))
    data, target = ["--data", str(samples)], ["--target", "cpu"]
    if method != "trtcompress-auto":
        mixed = ["--max-drop", str(MOST_LOST), *data] if method == "trtcompress-mixed" else []
        return [
            [program, "calibrate", str(model), *data, "-o", ranges],
            [program, "quantize", str(model), "--ranges", ranges, *target, *mixed, "-o", str(out)],
        ]
    equal = str(out.with_suffix(".equal.onnx"))
    chosen = ["--weights", "auto", "--rounding", "auto", "--correct-bias", "auto"]
    return [
        [program, "equalize", str(model), *data, *target, "--how", "auto", "-o", equal],
        [program, "calibrate", equal, *data, *target, "--method", "auto", "-o", ranges],
        [program, "quantize", equal, "--ranges", ranges, *target, *chosen, *data, "-o", str(out)],
    ]


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

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    ready = out.with_suffix(".ready.onnx")
    quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
    quantize_static(
        str(ready),
        str(out),
        Reader(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=methods[method],
    )


def fed(model: Path, held: Batch) -> Batch:
    """A batch as the model takes it: an input that is not stacked along its first axis comes with one more."""
    from trtcompress_graph.load import read_model

    ranks = {spec.name: len(spec.shape) for spec in read_model(model).inputs}
    return {name: array[0] if array.ndim > ranks[name] else array for name, array in held.items()}


def main(method: str, model: str, samples: str, out: str) -> None:
    name, _, kind = method.partition("-")
    peer = {"onnxsim": onnxsim, "onnxruntime": onnxruntime}[name]
    held = [fed(Path(model), batch) for batch in batches(Path(samples), ALL)]
    peer(Path(model), held, Path(out), kind or "minmax")


if __name__ == "__main__":
    main(*sys.argv[1:])
