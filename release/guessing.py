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

#: Digests by name, and, if it can be chosen, length in bytes.
_DIGESTS = [(name, 32) for name in sorted(hashlib.algorithms_guaranteed)] + [("blake2b", 16), ("blake2s", 16)]
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

    def from_words(self, words: Iterable[str]) -> set[str]:
        """Return the names that are computed from words as they are often written, for example names of people."""
        return self.computed(_spellings(words))

    def from_numbers(self, n: int) -> set[str]:
        """Return the names that are computed from a number below n, of at most 20,000."""
        return self.computed(_counters(min(n, _MOST_NUMBERS)))

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
    for name, length in _DIGESTS:
        if name.startswith("shake"):
            yield hashlib.new(name, data).hexdigest(length)
        else:
            yield hashlib.new(name, data).hexdigest()
            if name.startswith("blake"):
                yield getattr(hashlib, name)(data, digest_size=length).hexdigest()
    for space in _NAMESPACES:
        for version, digest in ((3, hashlib.md5), (5, hashlib.sha1)):
            yield uuid.UUID(bytes=digest(space.bytes + data).digest()[:16], version=version).hex
    yield data[:16].hex().ljust(32, "0")
    yield data[:16].hex().rjust(32, "0")


def _spellings(words: Iterable[str]) -> Iterator[bytes]:
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


def _counters(n: int) -> Iterator[bytes]:
    """The numbers below n in digits, with leading zeros, and as binary integers."""
    for i in range(n):
        yield from {f"{i:0{width}d}".encode() for width in range(1, 7)}
        yield from (i.to_bytes(size, order) for size in (4, 8) for order in ("little", "big"))
