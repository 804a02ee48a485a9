"""Read files that may be damaged or hostile, with a limit on their size and errors that name the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Limit on the size of a file, packed and unpacked.
MAX_BYTES = 4 * 2**30


class _RefusedError(ValueError):
    """An error in the content of a file; the message does not name the file."""


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Convert every error about the content of a file to a ValueError that names the file.

    A damaged or hostile file can make a parser raise almost any error (zlib.error, struct.error, RecursionError,
    MemoryError, ...). Its message may quote the file, which is personal data, so only the type is passed on.
    """
    try:
        yield
    except Warning:  # a caller may have turned warnings into errors
        raise
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{path}: the file is damaged or truncated ({kind}); replace it") from None


def _read_file(path: str | Path) -> bytes:
    """Read a file that exists, is not empty and has at most `MAX_BYTES`."""
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
