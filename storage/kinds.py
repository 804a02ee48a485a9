"""What a file really is, by its first bytes, whatever its name says."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from storage.reading import RefusedError

#: Number of bytes that `kind_of` looks at.
HEAD_BYTES = 512

# The first entry of a zip archive starts after 30 bytes with its name; these are names of entries in PyTorch's files.
_ZIP = rb"PK\x03\x04.{26}"
_TORCH_ENTRY = rb"([^/\0]*/)?(data\.pkl|\.format_version|byteorder|constants\.pkl|code/)"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    key : str
        A short name, for readers that accept this kind.
    pattern : bytes
        A regular expression that the first bytes match.
    name : str
        Completes the sentence "it is ...".
    advice : str
        What to do about such a file.
    """

    key: str
    pattern: bytes
    name: str
    advice: str


_DOWNLOAD = "download the file itself, with a browser if need be"
_UNPACK = "unpack it, and use the file inside"
_TORCH = "PyTorch files can run code and are not read; export the network to ONNX, or save its arrays as .npz"

# The first kind that matches is taken.
_KINDS = (
    Kind("page", rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|\?xml|html|head|body|script|meta|title)", "a web page", _DOWNLOAD),
    Kind("pointer", rb"version https://git-lfs", "a Git LFS pointer", f"run `git lfs pull`, or {_DOWNLOAD}"),
    Kind("torch", _ZIP + _TORCH_ENTRY, "a PyTorch file", _TORCH),
    Kind("torch", rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", "a PyTorch file", _TORCH),
    Kind("zip", _ZIP + rb"\[Content_Types\]\.xml", "an Office document", "save its table as .csv"),
    Kind("zip", _ZIP + rb"[^/\0]*\.npy", "a .npz file", "end its name in .npz"),
    Kind("zip", _ZIP + rb"(metadata|config)\.json", "a .keras file", "end its name in .keras"),
    Kind("zip", rb"PK\x03\x04|PK\x05\x06", "a zip archive", _UNPACK),
    Kind("gzip", rb"\x1f\x8b", "a gzip file", "unpack it with gunzip"),
    Kind("packed", rb"BZh[1-9]1AY|\xfd7zXZ\0|7z\xbc\xaf\x27\x1c|Rar!\x1a\x07", "a packed archive", _UNPACK),
    Kind("packed", rb"\x28\xb5\x2f\xfd|.{257}ustar", "a packed archive", _UNPACK),
    Kind("hdf5", rb"\x89HDF\r\n\x1a\n", "an HDF5 file", "end its name in .h5"),
    Kind("npy", rb"\x93NUMPY", "a .npy file", "end its name in .npy"),
    Kind("pickle", rb"\x80[\x02-\x05]", "a pickle", "end its name in .pkl"),
    Kind("image", rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP", "an image", "give the path of the right file"),
    Kind("document", rb"%PDF|%!PS|\{\\rtf|\xd0\xcf\x11\xe0", "a document", "save it as an image or a table"),
    Kind("database", rb"SQLite format 3|PAR1", "a database", "save its table as .csv"),
    Kind("zeros", rb"\0{64}", "nothing but zeros", "its copy was interrupted; copy it again"),
)  # fmt: skip


def kind_of(head: bytes) -> Kind | None:
    """Return the kind of a file from its first `HEAD_BYTES` bytes; None if they are of no known kind."""
    head = bytes(head[:HEAD_BYTES])
    return next((k for k in _KINDS if re.match(k.pattern, head, re.DOTALL | re.IGNORECASE)), None)


def explain_kind(head: bytes, accepted: Collection[str] = ()) -> str:
    """Say what a file is, and what to do; empty if its kind is accepted or unknown.

    Parameters
    ----------
    head : bytes
        The first `HEAD_BYTES` bytes of the file, or more.
    accepted : collection of str
        Keys of the kinds that the reader can read.
    """
    kind = kind_of(head)
    return "" if kind is None or kind.key in accepted else f"it is {kind.name}; {kind.advice}"


def check_kind(head: bytes, *accepted: str) -> None:
    """Raise RefusedError with the sentence of `explain_kind`, if there is one."""
    reason = explain_kind(head, accepted)
    if reason:
        raise RefusedError(reason)


def read_head(path: str | Path) -> bytes:
    """Read the first `HEAD_BYTES` bytes of a file."""
    with Path(path).open("rb") as file:
        return file.read(HEAD_BYTES)
