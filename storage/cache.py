"""The cache: stored results, and functions that compute only missing results."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

import numpy as np
from numpy.typing import ArrayLike

from storage.arrays import load_arrays, save_arrays
from storage.folder import cache_folder, check_name, explaining_errors
from storage.parallel import run_parallel
from storage.progress import progress

# Rows are written to the cache at this interval (seconds), so that an interruption loses little.
_SAVE_INTERVAL = 2.0

# At least this many missing rows are computed in parallel: a row takes about 7 ms, starting a process 3 s.
_PARALLEL_ROWS = 1000

# Fewer missing rows than this are computed without a progress bar.
_SHOWN_ROWS = 64

# Number of rows per parallel task.
_TASK_ROWS = 16

# SQLite's error codes for a file that is damaged or not a database.
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR}

_SEAL_BYTES = 8

_Blocks = Iterable[tuple[Sequence[int], Iterable[ArrayLike]]]


def cached_arrays(
    folder_name: str, key: str, compute: Callable[[], dict[str, ArrayLike]]
) -> dict[str, np.ndarray]:
    """Return arrays by name from the cache, or compute and store them.

    Parameters
    ----------
    folder_name : str
        As for `cache_folder`.
    key : str
        A `content_key` of everything that the result depends on, including the `source_key` of the code.
    compute : callable
        Called without arguments if the entry is missing or damaged; returns a dict of plain arrays.
    """
    check_name("a cache entry", key)
    path = cache_folder(folder_name) / f"{key}.npz"
    try:
        return load_arrays(path)
    except (FileNotFoundError, ValueError):
        arrays = compute()
        with explaining_errors(path):
            save_arrays(path, arrays)
        return {name: np.asarray(values) for name, values in arrays.items()}


class CacheStore:
    """Bytes by key in one SQLite file of the cache, safe for concurrent processes and interruptions.

    Parameters
    ----------
    name : str
        Name of the file, one for each kind of value and each version of the code that computes it.

    Notes
    -----
    Each value is stored with a checksum of key and value, because SQLite has none. A damaged entry counts as missing,
    and a damaged file is replaced by an empty file: everything in a cache can be computed again.
    """

    def __init__(self, name: str):
        self.path = cache_folder("stores") / f"{name}.sqlite"

    def _run(self, work: Callable[[sqlite3.Connection], object]):
        """Return ``work(connection)``; replace a damaged file by a new one."""
        with explaining_errors(self.path):
            try:
                return self._attempt(work)
            except UnicodeDecodeError:
                pass  # SQLite quotes damaged bytes in its message, which Python cannot decode
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                    raise  # locked or not writable: the content is intact
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
        """Return the stored entries among `keys`."""
        select = "SELECT CAST(value AS BLOB) FROM entries WHERE key = ?"
        wanted = list(dict.fromkeys(keys))
        rows = self._run(lambda connection: [connection.execute(select, [key]).fetchone() for key in wanted])
        found = {}
        for key, row in zip(wanted, rows, strict=True):
            sealed = row[0] if row else b""
            value = sealed[:-_SEAL_BYTES]
            if _seal(key, value) == sealed[-_SEAL_BYTES:]:
                found[key] = value
        return found

    def put(self, entries: dict[str, bytes]) -> None:
        """Add or replace entries in one transaction."""
        if not entries:
            return
        insert = "INSERT OR REPLACE INTO entries VALUES (?, ?)"
        sealed = [(key, value + _seal(key, value)) for key, value in entries.items()]
        self._run(lambda connection: connection.executemany(insert, sealed))


def _seal(key: str, value: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b":" + value).digest()[:_SEAL_BYTES]


def cached_json(store_name: str, key: str, compute: Callable[[], object]):
    """Return plain JSON values from the cache, or compute and store them; an error of `compute` is not stored.

    Parameters
    ----------
    store_name : str
        As for `CacheStore`.
    key : str
        A `content_key` of everything that the result depends on.
    compute : callable
        Called without arguments if the entry is missing or damaged. Its result may contain NaN.
    """
    store = CacheStore(store_name)
    value = store.get([key]).get(key)
    if value is None:
        value = json.dumps(compute()).encode()
        store.put({key: value})
    return json.loads(value)


def cached_rows(
    store_name: str, keys: Sequence[str], function: Callable, arguments: Callable, description: str
) -> list[np.ndarray]:
    """Return one float32 row for each key; compute rows that are not in the cache.

    Many missing rows are computed in parallel with joblib, using the backend of `joblib.parallel_config`. After an
    interruption, finished rows are kept.

    Parameters
    ----------
    store_name : str
        See `CacheStore`.
    keys : sequence of n str
        Equal keys share a row.
    function : callable
        Returns a 1-D array. A module-level function, because other processes must find it.
    arguments : callable
        ``arguments(i)`` returns the arguments of `function` for row i.
    description : str
        Label of the progress bar.

    Returns
    -------
    list of n ndarray of float32
        Read-only; equal keys share a row. All rows of a store have the same length.
    """

    def blocks(missing: list[int]) -> _Blocks:
        if len(missing) < _PARALLEL_ROWS or _in_worker():
            return (([i], [function(*arguments(i))]) for i in missing)
        import joblib  # slow to import

        parts = _parts(missing, _TASK_ROWS)
        tasks = (joblib.delayed(_apply)(function, [arguments(i) for i in part]) for part in parts)
        results = run_parallel(tasks, joblib.cpu_count(), pre_dispatch="2*n_jobs")
        return zip(parts, results, strict=True)

    return _cached(store_name, keys, blocks, description)


def cached_batches(
    store_name: str, keys: Sequence[str], function: Callable, description: str, batch_size: int
) -> list[np.ndarray]:
    """Return one float32 row for each key as `cached_rows` does, but compute missing rows in batches, in this process.

    Parameters
    ----------
    store_name, keys, description
        As for `cached_rows`.
    function : callable
        ``function(positions)`` returns the rows for a list of positions in `keys`.
    batch_size : int
        At most this many positions at once.

    Returns
    -------
    list of n ndarray of float32
    """

    def blocks(missing: list[int]) -> _Blocks:
        return ((part, function(part)) for part in _parts(missing, batch_size))

    return _cached(store_name, keys, blocks, description)


def _in_worker() -> bool:
    """Whether this is one of several processes or threads, which must not start more."""
    in_thread = threading.current_thread() is not threading.main_thread()
    return in_thread or multiprocessing.parent_process() is not None


def _parts(positions: list[int], size: int) -> list[list[int]]:
    return [positions[start : start + size] for start in range(0, len(positions), size)]


def _apply(function: Callable, argument_lists: Iterable[tuple]) -> list:
    return [function(*arguments) for arguments in argument_lists]


def _cached(
    store_name: str, keys: Sequence[str], blocks: Callable[[list[int]], _Blocks], description: str
) -> list[np.ndarray]:
    """Rows from the store; ``blocks(positions)`` yields positions and rows of missing rows, block by block."""
    store = CacheStore(store_name)
    known = store.get(keys)
    lengths = {len(value) for value in known.values()}
    if len(lengths) > 1 or any(length % np.dtype(np.float32).itemsize for length in lengths):
        known = {}  # some rows are wrong, and we cannot tell which
    missing = list({key: i for i, key in enumerate(keys) if key not in known}.values())
    fresh, saved = {}, time.monotonic()
    quiet = True if len(missing) < _SHOWN_ROWS else None
    with progress((), description, total=len(missing), disable=quiet) as bar:
        try:
            for part, values in blocks(missing):
                for i, row in zip(part, values, strict=True):
                    fresh[keys[i]] = np.asarray(row, dtype=np.float32).tobytes()
                bar.update(len(part))
                if time.monotonic() - saved > _SAVE_INTERVAL:
                    _save_rows(store, known, fresh)
                    saved = time.monotonic()
        finally:
            _save_rows(store, known, fresh)
    rows = {key: np.frombuffer(value, dtype=np.float32) for key, value in known.items()}
    return [rows[key] for key in keys]


def _save_rows(store: CacheStore, known: dict[str, bytes], fresh: dict[str, bytes]) -> None:
    """Move the new rows to the store and to the known rows."""
    store.put(fresh)
    known.update(fresh)
    fresh.clear()
