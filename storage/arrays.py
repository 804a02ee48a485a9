"""Plain arrays in ``.npy`` and ``.npz`` files."""

from __future__ import annotations

import io
import math
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import ArrayLike

from storage.kinds import check_kind
from storage.reading import Budget, RefusedError, naming, read_file
from storage.saving import save_atomic

# numpy's kinds of plain values: bool, integers, floats, complex, bytes, text; never objects, records or dates.
_PLAIN_KINDS = "biufcSU"

_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_array(path: str | Path) -> np.ndarray:
    """Read the plain array in a ``.npy`` file, never a pickled object.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    ndarray
        Shape and type as stored, in native byte order: bool, integer, float, complex, bytes or text.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged, holds objects or records, or its length does not match its header.
    """
    data = read_file(path)
    with naming(path):
        check_kind(data, "npy")
        return parse_npy(io.BytesIO(data), len(data))


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read all plain arrays in a ``.npz`` file into a dict by name; raises the errors of `load_array`."""
    data = read_file(path)
    with naming(path):
        return _parse_npz(data, Budget(len(data)))


def save_arrays(path: str | Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write plain arrays to a ``.npz`` file, atomically; the same arrays give the same bytes.

    Parameters
    ----------
    path : str or Path
    arrays : dict of str to array_like
        Arrays of bool, integer, float, complex, bytes or text, by name.

    Raises
    ------
    TypeError
        If `arrays` is anything else.
    """
    if not isinstance(arrays, dict) or not all(isinstance(name, str) for name in arrays):
        raise TypeError("arrays must be a dict of arrays by name")
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    for name, values in arrays.items():
        if values.dtype.kind not in _PLAIN_KINDS:
            raise TypeError(f"array {name!r} must hold numbers or text, got type {values.dtype}")

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, values in arrays.items():
                # numpy.savez would store the time of day.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)

    save_atomic(path, write)


def parse_npy(stream: BinaryIO, size: int) -> np.ndarray:
    """Read the array in a .npy stream of `size` bytes, after checking the size that its header claims."""
    version = np.lib.format.read_magic(stream)
    if version not in _NPY_HEADERS:
        raise RefusedError(f".npy version {version} is not supported; save the array again with numpy.save")
    shape, fortran_order, dtype = _NPY_HEADERS[version](stream)
    if dtype.hasobject:
        raise RefusedError(
            "the array holds Python objects (a pickle), which are never loaded; save plain numbers, "
            "and names as numpy.array(names, dtype=str)"
        )
    claim, left = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if claim != left:
        raise RefusedError(
            f"its header claims {claim} bytes, but {left} follow; the file is damaged, replace it"
        )
    return _array_from_bytes(shape, dtype, fortran_order, stream.read(left))


def _parse_npz(data: bytes, budget: Budget, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read the named arrays (default: all) of a .npz file, by name."""
    check_kind(data, "zip")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = [name for name in names or () if name not in members]
        if missing:
            raise RefusedError(f"arrays are missing: {', '.join(missing)}; store {', '.join(names)}")
        chosen = {name: members[name] for name in names or members}
        budget.take(sum(info.file_size for info in chosen.values()), "what it unpacks to")
        arrays = {}
        for name, info in chosen.items():
            # Other methods decompress whole blocks at once, whatever size the file claims.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise RefusedError("its compression method is not supported; save it again with numpy.savez")
            with archive.open(info) as member:
                arrays[name] = parse_npy(member, info.file_size)
    return arrays


def _array_from_bytes(shape: tuple, dtype: np.dtype, fortran_order: bool, raw: bytes) -> np.ndarray:
    """Make a new array in native byte order from its exact bytes; sizes are checked with Python integers."""
    if dtype.kind not in _PLAIN_KINDS or dtype.itemsize == 0:
        raise RefusedError(f"an array has type {str(dtype)[:80]}; only plain numbers and text are read")
    if not all(type(length) is int and 0 <= length <= sys.maxsize for length in shape) or len(shape) > 32:
        raise RefusedError("an array has an impossible shape; replace the file")
    claim = math.prod(shape) * dtype.itemsize
    if claim != len(raw):
        raise RefusedError(f"an array of {claim} bytes has {len(raw)} bytes in the file; replace the file")
    order = "F" if fortran_order else "C"
    array = np.array(np.ndarray(shape, dtype, buffer=raw, order=order), dtype=dtype.newbyteorder("="))
    if dtype.kind == "U" and array.size and np.frombuffer(array.tobytes(), np.uint32).max() > sys.maxunicode:
        raise RefusedError("a text array holds invalid characters; replace the file")
    return array
