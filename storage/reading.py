"""Reading files that may be damaged or hostile: a limit on their size, and errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Limit on the size of a file, and of what it unpacks to.
MAX_BYTES = 4 * 2**30


class _RefusedError(ValueError):
    """What is wrong with the content of a file, without its name."""


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Turn every error about the content of a file into a ValueError that names the file.

    A damaged or hostile file can make a parser raise nearly anything (zlib.error, struct.error, RecursionError,
    MemoryError ...), and the message may quote the file, which is personal data: only the type is passed on.
    """
    try:
        yield
    except Warning:  # a caller may have turned warnings into errors
        raise
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{path}: the file is damaged or cut short ({kind}); replace it") from None


def _read_file(path: str | Path) -> bytes:
    """Read a file that exists, is not empty and is within `MAX_BYTES`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a regular file; check the path")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path}: the file is empty; replace it")
    if size > MAX_BYTES:
        limit = f"the limit of {MAX_BYTES}, storage.reading.MAX_BYTES"
        raise ValueError(f"{path}: {size} bytes exceed {limit}; split the file")
    return path.read_bytes()
