"""Names that anyone could compute from words, numbers or contents: by digests, UUIDs or hexadecimal digits.

The generator of names draws 128 random bits. A name that shares 16 digits with a digest of something known was not
drawn: that happens by chance once in 10 ** 10 audits of a large release.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

#: A name is computed if it shares this many digits in a row with a digest, whose runs are compared at every so many
#: digits. Shorter parts of a digest are not recognised.
_RUN, _STEP = 16, 8

#: Digests, by name and, if it can be chosen, length in bytes; longer contents are digested in the first ways only.
_LONG = [("sha256", None), ("sha1", None), ("md5", None), ("sha512", None), ("blake2b", None)]
_SHORT = [(name, 32 if name.startswith("shake") else None) for name in sorted(hashlib.algorithms_guaranteed)]
_SHORT += [("blake2b", 16), ("blake2b", 32), ("blake2s", 16)]
_SMALL = 1 << 12
_NAMESPACES = (uuid.NAMESPACE_DNS, uuid.NAMESPACE_URL, uuid.NAMESPACE_OID, uuid.NAMESPACE_X500)

#: What is put before or behind a word before it is digested.
_PREFIXES = [
    name + mark for name in ("person", "photo", "image", "file", "face", "id") for mark in ("", "-", "_", ":")
]
_ENDINGS = (".png", ".jpg", ".jpeg", ".pgm", "\n", "0", "1", "#0")

#: Numbers of spellings and of counters that an audit tries.
_MOST_SPELLINGS, _MOST_NUMBERS = 100_000, 20_000


class Guesser:
    """Finds names that can be computed.

    Parameters
    ----------
    names : iterable of str
        File names without ending: 32 hexadecimal digits each.
    """

    def __init__(self, names: Iterable[str]):
        self._runs = {name[i : i + _RUN]: name for name in names for i in range(len(name) - _RUN + 1)}

    def computed(self, known: Iterable[bytes]) -> set[str]:
        """Return the names that share 16 digits in a row with a digest of known bytes, a UUID or the bytes themselves.

        Thus cutting a digest, or putting something before or behind it, hides nothing.
        """
        runs = self._runs
        parts = (
            digits[start : start + _RUN]
            for data in known
            for digits in _codes(data)
            for start in range(0, len(digits) - _RUN + 1, _STEP)
        )
        return {runs[part] for part in parts if part in runs}


def _codes(data: bytes) -> Iterator[str]:
    """Everything in hexadecimal digits that names are usually computed by."""
    small = len(data) <= _SMALL
    for name, length in _SHORT if small else _LONG:
        if name.startswith("shake"):
            yield hashlib.new(name, data).hexdigest(length)
        elif length:
            yield getattr(hashlib, name)(data, digest_size=length).hexdigest()
        else:
            yield hashlib.new(name, data).hexdigest()
    if small:
        for space in _NAMESPACES:
            for version, digest in ((3, hashlib.md5), (5, hashlib.sha1)):
                yield uuid.UUID(bytes=digest(space.bytes + data).digest()[:16], version=version).hex
        yield data.hex().ljust(32, "0")
        yield data.hex().rjust(32, "0")


def spellings(words: Iterable[str]) -> Iterator[bytes]:
    """Words as they are often written before they are digested, plain ones first."""
    parts = set()
    for word in words:
        path = Path(word)
        parts |= {word, path.name, path.stem, path.parent.name}
    ordered = sorted(parts - {""})
    cased = dict.fromkeys(c for word in ordered for c in (word, word.lower(), word.upper(), word.title()))
    forms = itertools.chain(
        cased,
        (word + ending for word in cased for ending in _ENDINGS),
        (prefix + word for word in ordered for prefix in _PREFIXES),
        (word[::-1] for word in ordered),
    )
    for form in itertools.islice(forms, _MOST_SPELLINGS):
        yield form.encode("utf-8", "surrogateescape")


def counters(n: int) -> Iterator[bytes]:
    """The numbers below n, of at most 20,000, in digits, with leading zeros, and as binary integers."""
    for i in range(min(n, _MOST_NUMBERS)):
        yield from {f"{i:0{width}d}".encode() for width in range(1, 7)}
        yield from (i.to_bytes(size, order) for size in (4, 8) for order in ("little", "big"))
