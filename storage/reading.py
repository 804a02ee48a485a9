"""Read files that may be damaged or hostile: one budget of memory and time, and errors that name the file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Limit on the size of a file, packed and unpacked, and on the memory that its content takes.
MAX_BYTES = 4 * 2**30

#: Limit on the time to read a file, in seconds.
MAX_SECONDS = 120

# The content of a file may take this many bytes of memory, and further ones in proportion to its size.
_FREE_BYTES, _BYTES_PER_BYTE = 256 * 2**20, 20

#: Bytes that a number or text takes in a list, and that a list, tuple or dict takes itself.
VALUE_BYTES, OBJECT_BYTES = 32, 100


class RefusedError(ValueError):
    """An error in the content of a file; the message does not name the file."""


class Budget:
    """The memory and time that reading one file may take, so that no small file takes gigabytes or runs for ever.

    Parameters
    ----------
    size : int
        Size of the file in bytes.
    """

    def __init__(self, size: int):
        self.size = size
        self.left = min(MAX_BYTES, _FREE_BYTES + _BYTES_PER_BYTE * size)
        self._deadline = time.monotonic() + MAX_SECONDS

    def take(self, n_bytes: int, what: str = "its content") -> None:
        """Take memory, before it is used.

        Raises
        ------
        RefusedError
            If the memory or the time is used up; the message starts with `what`.
        """
        self.left -= n_bytes
        if self.left < 0:
            raise RefusedError(f"{what} is too large for a file of {self.size} bytes; replace or split it")
        if time.monotonic() > self._deadline:
            raise RefusedError(f"{what} takes longer than {MAX_SECONDS} s to read; split it")


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Convert every error about the content of a file to a ValueError that names the file.

    A damaged or hostile file can make a parser raise almost any error (zlib.error, struct.error, RecursionError,
    ...). Its message may quote the file, which is personal data, so only the type is passed on.
    """
    try:
        yield
    except Warning:  # a caller may have turned warnings into errors
        raise
    except RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    except MemoryError:
        raise ValueError(f"{path}: its content does not fit into the free memory; split the file") from None
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{path}: the file is damaged or truncated ({kind}); replace it") from None


def read_file(path: str | Path) -> bytes:
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
