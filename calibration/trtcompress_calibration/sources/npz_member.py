"""One array inside an `.npz`, read by rows."""

from __future__ import annotations

import math
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.lib import format as npy

from trtcompress_graph.errors import DataError

from ..samples import Array

_LOCAL_HEADER = 30
"""Bytes of a zip member's local header before its name; see section 4.3.7 of the zip format."""


class Member(Protocol):
    """An array that gives its rows in order.

    Attributes:
        shape: shape of the whole array.
        row_bytes: bytes of one row.
    """

    shape: tuple[int, ...]
    row_bytes: int

    def rows(self, start: int, stop: int) -> Array:
        """Rows from `start` to `stop`; the whole array if it has no axis."""


class _Whole:
    """An array in memory, or mapped into it."""

    def __init__(self, array: Array) -> None:
        self.shape = array.shape
        self.row_bytes = array.itemsize * math.prod(array.shape[1:])
        self._array = array

    def rows(self, start: int, stop: int) -> Array:
        return self._array[start:stop] if self.shape else self._array


class _Stream:
    """A compressed array; its rows can only be read one after the other."""

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> None:
        self.shape = shape
        self.row_bytes = dtype.itemsize * math.prod(shape[1:])
        self._file = file
        self._dtype = dtype

    def rows(self, start: int, stop: int) -> Array:
        size = self.row_bytes * (stop - start) if self.shape else self._dtype.itemsize
        data = self._file.read(size)
        if len(data) != size:
            raise EOFError("an array is cut off")
        return np.frombuffer(data, self._dtype).reshape((stop - start, *self.shape[1:]) if self.shape else ())


def open_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, stack: ExitStack) -> Member:
    """Open one array of an archive; what has to be closed later is put on the stack.

    Raises:
        DataError: it is pickled, or its header does not agree with its size.
    """
    file = stack.enter_context(archive.open(info))
    shape, fortran, dtype = _header(file)
    where = f"{path}: array '{info.filename.removesuffix('.npy')}'"
    if dtype.hasobject:
        raise DataError(
            "the array holds pickled Python objects, which are never loaded",
            where=where,
            hint="store arrays of numbers; sequences of different lengths go into a folder of .npz files",
        )
    size = dtype.itemsize * math.prod(shape)
    start = info.file_size - size
    if start != file.tell():
        raise DataError("the array's header does not agree with its size", where=where, hint="write the file again")
    if info.compress_type == zipfile.ZIP_STORED and size and not info.flag_bits & 1:
        return _Whole(_mapped(path, info, start, shape, dtype, "F" if fortran else "C"))
    if fortran:
        flat = np.frombuffer(file.read(size), dtype)
        return _Whole(flat.reshape(shape, order="F"))
    return _Stream(file, shape, dtype)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _mapped(
    path: Path, info: zipfile.ZipInfo, start: int, shape: tuple[int, ...], dtype: np.dtype[np.generic], order: str
) -> Array:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(_LOCAL_HEADER)
    lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    offset = info.header_offset + _LOCAL_HEADER + lengths + start
    return np.memmap(path, dtype, "r", offset, shape, "F" if order == "F" else "C")
