"""TensorRT's own INT8 calibration, which 8.x to 10.x have: samples in device buffers, scales in `calibration.cache`.

Polygraphy's Calibrator is the `IInt8EntropyCalibrator2`. It is given pointers into buffers of pycuda, one an input,
which live as long as the calibration; where pycuda is missing it is given the arrays and copies them itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trtcompress_graph.errors import DataError

from ..scripts.reproduce import under_own_header
from ..tensorrt_release import Release

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Batch = dict[str, NDArray[np.generic]]


def calibrator(cache: Path, batches: Path | None, version: str) -> Any:
    """An `IInt8EntropyCalibrator2` that hands TensorRT the scales of a cache, or batches where there is none yet.

    Its `data_loader` is a `DeviceBatches`.

    Args:
        cache: read where there are no batches, and put under the header of the version; else written.
        batches: folder of `.npz` files, a batch each; see `check_batches`.
        version: of TensorRT, which ignores a cache of any other.
    """
    from polygraphy.backend.trt import Calibrator

    if batches is None:
        cache.write_bytes(under_own_header(cache.read_bytes(), version))
    return Calibrator(data_loader=DeviceBatches(_files(batches), Release("classic", version)), cache=str(cache))


def check_batches(batches: Path, shapes: Mapping[str, tuple[int, ...]], release: Release) -> None:
    """Refuse samples that TensorRT would read wrongly: it gets bare pointers, and asks no shape.

    Args:
        batches: folder of `.npz` files, a batch each.
        shapes: of the inputs, as the usual ones of the last profile.
        release: that calibrates.

    Raises:
        DataError: there is none, or one does not fit.
    """
    files = _files(batches)
    if not files:
        raise DataError("there are no samples to calibrate on", where=str(batches))
    for file in files:
        found = {name: value.shape for name, value in _read(file, release).items()}
        if found != dict(shapes):
            raise DataError(f"a batch of the shapes {found}, where TensorRT reads {dict(shapes)}", where=str(file))


def _files(batches: Path | None) -> list[Path]:
    return sorted(batches.glob("*.npz")) if batches else []


class DeviceBatches:
    """Batches of `.npz` files in the memory of the GPU, as pointers by input; they can be gone through again.

    Attributes:
        files: one a batch.
        release: that reads them.
        asked: whether a batch was asked for, which TensorRT does where it takes no cache.
        through: whether all were taken. Polygraphy ends a calibration without a word where it refuses a batch.
    """

    def __init__(self, files: list[Path], release: Release) -> None:
        self.files, self.release = files, release
        self.asked = self.through = False
        self._buffers: dict[str, Any] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self.asked = True
        on_device = find_spec("pycuda") is not None
        for file in self.files:
            batch = _read(file, self.release)
            yield {name: self._upload(name, value) for name, value in batch.items()} if on_device else batch
        self.through = True

    def _upload(self, name: str, value: NDArray[np.generic]) -> int:
        """Copy into the buffer of the input, which grows where it is too small. Returns its address."""
        import pycuda.autoprimaryctx  # noqa: F401  # the context that TensorRT uses too
        import pycuda.driver as cuda

        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < value.nbytes:
            buffer = self._buffers[name] = _Buffer(cuda.mem_alloc(value.nbytes), value.nbytes)
        cuda.memcpy_htod(buffer.memory, value)
        return int(buffer.memory)


class _Buffer:
    """Memory of the GPU; pycuda frees it when nothing holds it any more."""

    def __init__(self, memory: Any, size: int) -> None:
        self.memory, self.size = memory, size


def _read(file: Path, release: Release) -> Batch:
    """A batch in the types that a calibrator reads: floats as float32, and int64 as the release has it.

    Raises:
        DataError: a number is beyond int32, where that is what the release reads.
    """
    import numpy as np

    with np.load(file, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    types: dict[str, Any] = {}
    for name, value in arrays.items():
        types[name] = np.float32 if value.dtype.kind == "f" else value.dtype
        if value.dtype == np.int64 and not release.keeps_int64:
            types[name] = np.int32
            if value.size and (beyond := value[value != value.astype(np.int32)]).size:
                raise DataError(
                    f"input '{name}' has {beyond[0]}, and {release.title} reads its int64 inputs as int32",
                    where=str(file),
                    hint="calibrate on other samples, or with TensorRT 10",
                )
    return {name: np.ascontiguousarray(value, types[name]) for name, value in arrays.items()}
