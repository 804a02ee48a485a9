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

#: Digests of more bits than a name has.
_DIGESTS = tuple(
    getattr(hashlib, name)
    for name in (
        "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_224", "sha3_256", "sha3_384", "sha3_512", "blake2b",
        "blake2s",
    )
)  # fmt: skip
_NAMESPACES = [
    space.bytes for space in (uuid.NAMESPACE_DNS, uuid.NAMESPACE_URL, uuid.NAMESPACE_OID, uuid.NAMESPACE_X500)
]

#: What is put before or behind a word before it is digested.
_PREFIXES = ("person", "photo", "image", "file", "face", "id", "name", "anonfaces")
_SEPARATORS = ("", "-", "_", "/", ":")
_ENDINGS = (".png", ".jpg", ".jpeg", ".pgm", "\n", "\0", "0", "1", "#0", "_anonymized")

#: Number of spellings that an audit tries, plain words first, and length of contents that are digested in all ways.
MOST_SPELLINGS, _SMALL = 200_000, 1 << 16
_MOST_NUMBERS = 20_000


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
        found = set()
        for data in known:
            for digits in _codes(data):
                for start in range(0, len(digits) - _RUN + 1, _STEP):
                    name = self._runs.get(digits[start : start + _RUN])
                    if name is not None:
                        found.add(name)
        return found


def _codes(data: bytes) -> Iterator[str]:
    """Everything in hexadecimal digits that names are usually computed by."""
    if len(data) > _SMALL:
        yield from (digest(data).hexdigest() for digest in (hashlib.md5, hashlib.sha1, hashlib.sha256))
        yield from (digest(data).hexdigest() for digest in (hashlib.sha512, hashlib.blake2b))
        return
    yield hashlib.md5(data).hexdigest()
    for digest in _DIGESTS:
        yield digest(data).hexdigest()
    yield hashlib.blake2b(data, digest_size=16).hexdigest()
    yield hashlib.blake2s(data, digest_size=16).hexdigest()
    yield hashlib.blake2b(data, digest_size=32).hexdigest()
    for digest in (hashlib.shake_128, hashlib.shake_256):
        yield digest(data).hexdigest(32)
    for space in _NAMESPACES:
        yield _uuid(hashlib.md5(space + data).hexdigest(), "3")
        yield _uuid(hashlib.sha1(space + data).hexdigest(), "5")
    yield f"{data.hex():0<32}"[:64]
    yield f"{data.hex():0>32}"[-64:]


def _uuid(digits: str, version: str) -> str:
    """The UUID of a digest (RFC 9562), without hyphens."""
    return f"{digits[:12]}{version}{digits[13:16]}{'89ab'[int(digits[16], 16) % 4]}{digits[17:32]}"


def spellings(words: Iterable[str]) -> Iterator[bytes]:
    """Words as they are often written before they are digested, plain ones first: at most `MOST_SPELLINGS`."""
    parts = set()
    for word in words:
        path = Path(word)
        parts |= {word, path.name, path.stem, word.removesuffix(path.suffix), path.parent.name}
    ordered = sorted(parts - {""})
    cased = list(
        dict.fromkeys(c for part in ordered for c in (part, part.lower(), part.upper(), part.title()))
    )
    forms = itertools.chain(
        cased,
        (word + ending for word in cased for ending in _ENDINGS),
        (f"{prefix}{mark}{word}" for word in ordered for prefix in _PREFIXES for mark in _SEPARATORS),
        (word[::-1] for word in ordered),
    )
    for form in itertools.islice(forms, MOST_SPELLINGS):
        yield form.encode("utf-8", "surrogateescape")


def counters(n: int) -> Iterator[bytes]:
    """The numbers below n, of at most 20,000, in digits, with leading zeros, and as binary integers."""
    for i in range(min(n, _MOST_NUMBERS)):
        for width in range(1, 7):
            if width == 1 or len(str(i)) < width:
                yield f"{i:0{width}d}".encode()
        yield from (
            i.to_bytes(4, "little"),
            i.to_bytes(4, "big"),
            i.to_bytes(8, "little"),
            i.to_bytes(8, "big"),
        )
