"""Save files atomically."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def save_atomic(path: str | Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file so that it is either complete or absent.

    Parameters
    ----------
    path : str or Path
        A file in an existing folder. Only its owner can read it, because it may hold personal data.
    write : callable
        Takes a binary file and writes the content to it. If it raises, `path` stays unchanged.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    OSError
        If the file cannot be written, for example because the disk is full; the message names it.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; create it to save {path.name}")
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".partial-{path.name[:80]}-")
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary):
            raise
        # The type of the error follows from its number.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
