"""Face descriptors in files: ``.pickle``, ``.npz``, ``.npy`` and ``.csv``."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from storage.arrays import _parse_npz, parse_npy, save_arrays
from storage.kinds import check_kind
from storage.pickles import PYTHON_BUILDERS, _parse_pickle
from storage.reading import OBJECT_BYTES, Budget, RefusedError, naming, read_file

# Limits on the length of a photo's name and on the number of values of a face.
_MAX_NAME_LENGTH, MAX_COLUMNS = 4096, 100_000


def load_encodings(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read face descriptors and the names of their photos, without executing code from the file.

    Parameters
    ----------
    path : str or Path
        The suffix determines the format. ``.pickle``, ``.pkl``: a list of dicts with ``imagePath`` (text) and
        ``encoding`` (d numbers), as AnonFACES published them, written by Python 2 or 3 and any numpy. Names may be
        paths of ``pathlib``; other items are ignored.
        ``.npz``: arrays ``names`` and ``encodings``. ``.npy``: the descriptors alone. ``.csv``: comma-separated
        UTF-8 text with names in the first column and numbers in all others, with or without a header. The first
        line is a header if no cell after the first is a number, or if these cells are 0, 1, 2, ... and the first
        is empty, as pandas writes them.

    Returns
    -------
    names : ndarray of str, shape (n,)
        The names as stored; "0", "1", ... for ``.npy``.
    X : ndarray, shape (n, d)
        Row i describes ``names[i]``. float32 if stored as float32, else float64; all finite.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is empty, damaged, of another kind than its suffix says, larger than `storage.reading.MAX_BYTES`,
        takes far more memory than its size, or does not hold one vector of finite real numbers per name, all of the
        same length.

    Warns
    -----
    UserWarning
        If a ``.csv`` file may be truncated (no newline at its end) or its header looks like numbers.
    """
    data = read_file(path)
    suffix = Path(path).suffix.lower()
    if suffix not in _READERS:
        raise ValueError(f"{path}: unknown suffix {suffix!r}; convert it to one of {', '.join(_READERS)}")
    with naming(path):
        budget = Budget(len(data))
        names, X = _READERS[suffix](data, path, budget)
        return _checked_encodings(names, X, budget)


def save_encodings(path: str | Path, names: Sequence[str], X: ArrayLike) -> None:
    """Write face descriptors to a ``.npz`` file that `load_encodings` reads back unchanged.

    Parameters
    ----------
    path : str or Path
        Ends in ``.npz``. An existing file is replaced once the new one is complete.
    names : sequence of str, shape (n,)
    X : array_like, shape (n, d)
        Real and finite. float32 stays float32; every other type is stored as float64.

    Raises
    ------
    ValueError
        If `path` has another suffix, or `load_encodings` would refuse `names` and `X`.
    """
    if Path(path).suffix.lower() != ".npz":
        raise ValueError(f"{path}: descriptors are saved as .npz; give a path with that suffix")
    try:
        X = np.asarray(X)
        names, X = _checked_encodings(list(names), X, Budget(X.nbytes))
    except RefusedError as error:
        raise ValueError(f"cannot save {path}: {error}") from None
    save_arrays(path, {"names": names, "encodings": X})


def _checked_encodings(names: Sequence[str], X: np.ndarray, budget: Budget) -> tuple[np.ndarray, np.ndarray]:
    """Return names as a str array (n,) and X as finite floats (n, d)."""
    if X.dtype.kind not in "iuf":
        raise RefusedError(f"the encodings must be real numbers, got type {X.dtype}")
    if X.ndim != 2 or 0 in X.shape:
        raise RefusedError(f"the encodings must have one row per face, got shape {X.shape}")
    if len(names) != len(X):
        raise RefusedError(f"there must be one name per encoding, got {len(names)} names for {len(X)}")
    single = X.dtype.newbyteorder("=") == np.float32
    budget.take((4 if single else 8) * X.size, "the array of all encodings")
    with np.errstate(over="ignore"):  # wider floats may overflow to inf, which the next check refuses
        X = np.array(X, dtype=np.float32 if single else np.float64, order="C")
    finite = np.isfinite(X).all(axis=1)  # (n,)
    if not finite.all():
        raise RefusedError(
            f"{len(X) - finite.sum()} encodings hold NaN or infinity, first in row {finite.argmin()} (counted "
            "from 0); leave these faces out or encode them again"
        )
    return _text_array(names, budget), X


def _text_array(names: Sequence[str], budget: Budget) -> np.ndarray:
    """Return names as a str array (n,), unless one long name would make the array far too large."""
    for row, name in enumerate(names):
        if not isinstance(name, str):
            kind = type(name).__name__
            raise RefusedError(f"row {row} (counted from 0): the name must be text, got {kind}")
    longest = max(map(len, names))
    if longest > _MAX_NAME_LENGTH:
        raise RefusedError(f"a name has {longest} characters; use at most {_MAX_NAME_LENGTH}")
    budget.take(4 * longest * len(names), f"a name has {longest} characters, and an array of such names")
    return np.array(names, dtype=str)


def _read_npy_encodings(data: bytes, path, budget: Budget) -> tuple[list[str], np.ndarray]:
    check_kind(data, "npy")
    X = parse_npy(io.BytesIO(data), len(data))
    rows = len(X) if X.ndim and X.size else 0  # an empty array can claim any number of rows
    budget.take(rows * OBJECT_BYTES)
    return [str(row) for row in range(rows)], X


def _read_npz_encodings(data: bytes, path, budget: Budget) -> tuple[list[str], np.ndarray]:
    arrays = _parse_npz(data, budget, ("names", "encodings"))
    names = arrays["names"]
    if names.ndim != 1 or names.dtype.kind not in "SUiu":
        raise RefusedError(f"names must be one text per row, got type {names.dtype}, shape {names.shape}")
    budget.take(names.size * (2 * OBJECT_BYTES + 4 * names.itemsize), "the array of all names")
    if names.dtype.kind == "S":
        names = np.char.decode(names, "utf-8")
    return [str(name) for name in names.tolist()], arrays["encodings"]


def _read_pickle_encodings(data: bytes, path, budget: Budget) -> tuple[list[str], np.ndarray]:
    rows = _parse_pickle(data, PYTHON_BUILDERS, budget)
    if not isinstance(rows, list) or not rows:
        raise RefusedError("a descriptor pickle must be a list of faces, each {imagePath, loc, encoding}")
    for row, face in enumerate(rows):
        if not isinstance(face, dict) or not {"imagePath", "encoding"} <= face.keys():
            raise RefusedError(f"row {row} (counted from 0) must be a dict with imagePath and encoding")
    return [face["imagePath"] for face in rows], _stack([face["encoding"] for face in rows], budget)


def _stack(vectors: list, budget: Budget) -> np.ndarray:
    """Stack n vectors of d numbers (arrays, lists or tuples) into one array (n, d)."""
    # Check lengths first: a small pickle can refer to one long vector many times.
    for row, vector in enumerate(vectors):
        if not isinstance(vector, list | tuple) and not (isinstance(vector, np.ndarray) and vector.ndim == 1):
            raise RefusedError(f"row {row} (counted from 0): the encoding must be a vector")
        if len(vector) != len(vectors[0]):
            raise RefusedError(
                f"row {row} (counted from 0) has {len(vector)} values, row 0 has {len(vectors[0])}; "
                "store encodings of one model per file"
            )
    budget.take(
        8 * len(vectors) * len(vectors[0]), f"an array of {len(vectors)} times {len(vectors[0])} values"
    )
    single = all(isinstance(vector, np.ndarray) and vector.dtype == np.float32 for vector in vectors)
    X = np.empty((len(vectors), len(vectors[0])), dtype=np.float32 if single else np.float64)  # (n, d)
    for row, vector in enumerate(vectors):
        if not _is_real(vector):
            raise RefusedError(f"row {row} (counted from 0): the encoding must hold real numbers only")
        X[row] = vector
    return X


def _is_real(vector: np.ndarray | Sequence) -> bool:
    """Whether all values of an array or list are integers or floats."""
    if isinstance(vector, np.ndarray):
        return vector.dtype.kind in "iuf"
    kinds = (int, float, np.integer, np.floating)
    return all(isinstance(value, kinds) and not isinstance(value, bool) for value in vector)


def _read_csv_encodings(data: bytes, path, budget: Budget) -> tuple[list[str], np.ndarray]:
    check_csv(data, MAX_COLUMNS)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RefusedError("the text is not UTF-8; save the table as UTF-8, comma-separated") from None
    if not text.endswith(("\n", "\r")):
        warnings.warn(
            f"{path}: the last line has no newline, so the file may be truncated; compare it with its source",
            stacklevel=3,
        )
    names, rows, width = [], [], None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in filter(None, reader):
            line = reader.line_num
            if width is None:
                width = len(cells)
                if _is_header(cells, line, path):
                    continue
            if len(cells) != width:
                raise RefusedError(f"line {line} has {len(cells)} cells, the first line has {width}")
            budget.take(2 * OBJECT_BYTES + 8 * width)
            rows.append(_numbers(cells, line))
            if not cells[0]:
                raise RefusedError(f"line {line} has no name in its first cell; name every face")
            names.append(cells[0])
    except csv.Error:
        raise RefusedError(f"unbalanced quotes near line {reader.line_num}; save the table again") from None
    if not rows:
        raise RefusedError("the table has no faces; write one line per face")
    return names, np.stack(rows)


def check_csv(data: bytes, max_columns: int) -> None:
    """Raise RefusedError for a file that is no text, or has a line of too many cells, before it is parsed."""
    check_kind(data)
    n_columns = 1 + max(line.count(b",") for line in io.BytesIO(data))
    if n_columns > max_columns:
        raise RefusedError(f"a line has {n_columns} cells; at most {max_columns} are read")


def _is_header(cells: list[str], line: int, path) -> bool:
    """Whether the first line of a table is a header. A partial header is read as a damaged face, not dropped."""
    if len(cells) < 2:
        raise RefusedError(f"line {line} has one cell; separate the name and the values with commas")
    counted = cells[1:] == [str(column) for column in range(len(cells) - 1)]
    if counted and cells[0] and len(cells) > 3:
        warnings.warn(
            f"{path}: line {line} holds the values 0, 1, 2, ... and was read as a face; if it is a header, "
            "name its columns or delete the line",
            stacklevel=4,
        )
    if counted:
        return not cells[0]
    return all(cells[1:]) and all(_number(cell) is None for cell in cells[1:])


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)  # Python reads 1_0 as ten
    except ValueError:
        return None


def _numbers(cells: list[str], line: int) -> np.ndarray:
    """Return the values of one line, float64 (d,)."""
    values = [_number(cell) for cell in cells[1:]]
    if None in values:
        raise RefusedError(
            f"cell {values.index(None) + 2} of line {line} is not a number; the first column holds names, "
            "all others numbers"
        )
    return np.array(values)


# Reader of each suffix: (content, path, budget) -> names, X.
_READERS: dict[str, Callable[[bytes, str | Path, Budget], tuple[list[str], np.ndarray]]] = {
    ".pickle": _read_pickle_encodings,
    ".pkl": _read_pickle_encodings,
    ".npz": _read_npz_encodings,
    ".npy": _read_npy_encodings,
    ".csv": _read_csv_encodings,
}
