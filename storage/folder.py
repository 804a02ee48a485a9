"""The folder of the cache, and what to do if it cannot be written to."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import storage

# SQLite's error codes for a file that another process uses.
_IN_USE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def cache_folder(name: str) -> Path:
    """Return a folder of the cache; it is created if missing, and only its owner can open it.

    The cache holds personal data. It is in ``$ANONFACES_CACHE`` or, if that is not set, in ``.cache/anonfaces`` in the
    repository.

    Parameters
    ----------
    name : str
        Letters, digits, "_", "-" and ".".

    Raises
    ------
    ValueError
        For any other name.
    OSError
        If the folder cannot be created.
    """
    check_name("a cache folder", name)
    root = os.environ.get("ANONFACES_CACHE") or storage.ROOT / ".cache" / "anonfaces"
    folder = Path(root).expanduser().absolute() / name
    with explaining_errors(folder):
        for part in [*reversed(folder.parents), folder]:
            part.mkdir(mode=0o700, exist_ok=True)
    return folder


def check_name(what: str, name: str) -> None:
    """Raise ValueError unless a name can be that of a file or folder of the cache."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"the name of {what} must use letters, digits, '_', '-' and '.' only, got {name!r}")


@contextlib.contextmanager
def explaining_errors(path: Path) -> Iterator[None]:
    """Turn an error in writing a file of the cache into an OSError that names it and says what to do."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _IN_USE:
            raise
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"{path}: cannot write to the cache ({reason}); free disk space, or set ANONFACES_CACHE to a folder in "
            "which you can write"
        ) from error
