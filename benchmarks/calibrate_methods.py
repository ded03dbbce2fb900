"""Methods of calibrate.py; each runs as `python calibrate_methods.py METHOD MODEL.onnx SAMPLES COUNT OUT`.

SAMPLES is a folder of .npz batches. The bare forward prints the seconds of its passes alone: no start, no reading.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Batch = dict[str, NDArray[Any]]
OURS = "trtcompress"
BARE = "bare forward"
PEERS = {"onnxsim": "onnxsim", "onnxruntime": "onnxruntime", "modelopt": "modelopt"}
"""Peers, and the module of each."""

GROWS = ("onnxruntime",)
"""What holds every activation of every sample until the end."""


def command(method: str, model: Path, samples: Path, count: int, out: Path) -> list[str]:
    """What to run."""
    if method == OURS:
        program = str(Path(sys.executable).with_name("trtcompress"))
        data = ["--data", str(samples), "--samples", str(count), "--method", "entropy"]
        return [program, "calibrate", str(model), *data, "-o", str(out)]
    return [sys.executable, __file__, method, str(model), str(samples), str(count), str(out)]


def missing(method: str) -> bool:
    """Whether a peer is not installed."""
    return method in PEERS and find_spec(PEERS[method]) is None


def batches(samples: Path, count: int) -> Iterator[Batch]:
    """As many samples as were asked for, in the batches that they are stored in."""
    left = count
    for path in sorted(samples.glob("*.npz")):
        with np.load(path) as file:
            held = {name: file[name][:left] for name in file.files}
        if not left:
            return
        left -= len(next(iter(held.values())))
        yield held


def bare(model: Path, samples: Path, count: int) -> float:
    """Seconds of the passes alone."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    held = list(batches(samples, count))
    session.run(None, held[0])
    started = time.perf_counter()
    for feeds in held:
        session.run(None, feeds)
    return time.perf_counter() - started


def onnxsim(model: Path, samples: Path, count: int) -> None:
    import onnxsim as peer

    peer.calibrate(str(model), list(batches(samples, count)), method="entropy")


def onnxruntime(model: Path, samples: Path, count: int) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = batches(samples, count)

        def get_next(self) -> Batch | None:
            return next(self._batches, None)

    calibrator = create_calibrator(
        str(model),
        augmented_model_path=str(samples.parent / "augmented.onnx"),
        calibrate_method=CalibrationMethod.Entropy,
    )
    calibrator.collect_data(Reader())
    calibrator.compute_data()


def modelopt(model: Path, samples: Path, count: int) -> None:
    from modelopt.onnx.quantization import quantize

    held = list(batches(samples, count))
    joined = {name: np.concatenate([batch[name] for batch in held]) for name in held[0]}
    quantize(
        str(model),
        calibration_data=joined,
        calibration_method="entropy",
        output_path=str(samples.parent / "modelopt.onnx"),
    )


def main(method: str, model: str, samples: str, count: str, out: str) -> None:
    if method == BARE:
        print(json.dumps({"seconds": bare(Path(model), Path(samples), int(count))}))
    else:
        globals()[method](Path(model), Path(samples), int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
