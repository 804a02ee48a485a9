"""A release folder: written so that nothing in it leads back, and audited from its files alone.

A release holds PNG files under random names, and ``manifest.json``:

- in ``"shared"`` mode one file for each person; the files of people who share a surrogate are equal byte for byte, so
  that anybody can count them: k-anonymity is that every content is there at least k times;
- in ``"per_photo"`` mode one file for each photo; no k-anonymity is claimed.

What leads from a person to their file is the ledger. It is a re-identification key: it is written elsewhere, readable
by its owner only, and kept or destroyed by whoever is answerable for the photos.

``python -m release audit FOLDER`` audits a folder.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import secrets
import stat
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.stats import binom

import datasets
import detection
import embedding
import utils
from datasets import Faces
from utility import appearance

FORMAT, VERSION = "AnonFACES release", 1
MANIFEST = "manifest.json"
MODES = ("shared", "per_photo")

#: Names are 128 random bits.
NAME = re.compile(r"[0-9a-f]{32}\.png")
NAME_BYTES = 16

#: Every file gets this time (1980-01-01, the first that archives can hold), as order and time of writing lead back.
FILE_TIME = 315532800

#: Limits of what an audit reads.
MOST_FILES = 200_000
MANIFEST_BYTES = 64 << 20
IMAGE_BYTES = 64 << 20
IMAGE_PIXELS = 32 << 20
ALL_IMAGE_BYTES = 2 << 30

#: How a photo can end.
ANONYMIZED, SUPPRESSED, FAILED = "anonymized", "suppressed", "failed"


# ----------------------------------------------------------------------------------------------------------
# Writing
# ----------------------------------------------------------------------------------------------------------


def write_release(
    folder: str | Path,
    faces: Faces,
    images: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    mode: str,
    ledger: str | Path,
    k: int | None = None,
    suppressed: Mapping[int, str] | None = None,
    failed: Mapping[int, str] | None = None,
) -> dict:
    """Write anonymized images to a folder that can be handed on, and the ledger to a private place.

    Names come from the system's source of randomness, not from a seed: who knew the seed could deal them out again.

    Parameters
    ----------
    folder : str or Path
        Where the release goes: new, or empty. It appears at once when all is written.
    faces : Faces
        The n photos that were anonymized.
    images : sequence of c uint8 arrays (h, w, 3)
    labels : ndarray of int, shape (n,)
        Which image each photo got; -1 for none.
    mode : str
        ``"shared"``: one file for each person, equal for all who share an image. ``"per_photo"``: one file for each
        photo; no k-anonymity is claimed.
    ledger : str or Path
        A new file outside the release: JSON that says of each photo what became of it, mode 0600.
    k : int, optional
        In ``"shared"`` mode the claim, at least 2; by default what the release gives. None in ``"per_photo"`` mode.
    suppressed, failed : mapping of int to str, optional
        Row -> why, for all photos without an image, each in one of both.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    ValueError
        If anything does not fit: a label or a reason is missing, k people do not share each image, a person of a
        ``"shared"`` release has several, an image is one of the photos, or the ledger lies inside the release. Nothing
        is written then.
    FileExistsError
        If the folder is not empty or the ledger exists: an older ledger must not be lost.
    FileNotFoundError
        If a parent folder is missing.
    """
    folder, ledger = Path(folder).absolute(), Path(ledger).absolute()
    labels = _checked_labels(faces, images, labels)
    reasons = _reasons(labels, suppressed or {}, failed or {})
    people = _people(labels, faces.identities)
    k = _checked_claim(mode, k, labels, people)
    _refuse_photos(faces, images)
    _check_places(folder, ledger)
    encoded = [encode_png(image) for image in images]
    files, outcomes = _assign(mode, faces, labels, reasons)  # file name -> image number
    digests = {name: hashlib.sha256(encoded[label]).hexdigest() for name, label in sorted(files.items())}
    manifest = {
        "format": FORMAT, "version": VERSION, "mode": mode, "k": k, "n_files": len(files),
        "n_images": len(set(digests.values())), "files": digests,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as place:
        parts = Path(place) / "release"
        parts.mkdir(mode=0o755)
        for name in sorted(files):  # random names: their order is no order of people
            (parts / name).write_bytes(encoded[files[name]])
        (parts / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for path in parts.iterdir():
            path.chmod(0o644)
            os.utime(path, (FILE_TIME, FILE_TIME))
        os.utime(parts, (FILE_TIME, FILE_TIME))
        content = {"format": "AnonFACES ledger", "version": VERSION, "mode": mode, "k": k, "photos": outcomes}
        utils.save_atomic(ledger, lambda file: file.write(json.dumps(content, indent=1).encode()))
        if folder.exists():
            folder.rmdir()
        parts.rename(
            folder
        )  # the ledger is there first: a release without one could not be withdrawn for a person
    return manifest


def _checked_labels(faces: Faces, images: Sequence[np.ndarray], labels) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (len(faces),):
        raise ValueError(
            f"{len(faces)} photos need {len(faces)} labels, not an array of shape {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise TypeError("labels must be whole numbers: which image each photo got, -1 for none")
    if len(images) == 0:
        raise ValueError("there is no image to release")
    if not np.array_equal(np.unique(labels[labels >= 0]), np.arange(len(images))) or labels.min() < -1:
        raise ValueError(
            f"labels must use every number from 0 to {len(images) - 1}, one for each image, "
            "and -1 for photos without one"
        )
    for image in images:
        detection.check_image(image)
        if image.shape[0] * image.shape[1] > IMAGE_PIXELS:
            raise ValueError(
                f"an image of {image.shape[0]}x{image.shape[1]} pixels is over the limit of a release"
            )
    return labels.astype(np.int64)


def _reasons(
    labels: np.ndarray, suppressed: Mapping[int, str], failed: Mapping[int, str]
) -> dict[int, tuple]:
    """Outcome and reason of each row without an image."""
    reasons = {int(row): (SUPPRESSED, str(why)) for row, why in suppressed.items()}
    twice = reasons.keys() & {int(row) for row in failed}
    reasons |= {int(row): (FAILED, str(why)) for row, why in failed.items()}
    without = set(np.flatnonzero(labels < 0).tolist())
    if twice or reasons.keys() != without:
        raise ValueError(
            f"{len(without)} photos have no image, and {len(reasons)} a reason why ({len(twice)} two): name each of "
            "them once, in `suppressed` or in `failed`, and no other"
        )
    return reasons


def _people(labels: np.ndarray, identities: np.ndarray) -> dict[int, set[str]]:
    """Who shares each image."""
    return {int(label): set(identities[labels == label].tolist()) for label in np.unique(labels[labels >= 0])}


def _checked_claim(mode: str, k: int | None, labels: np.ndarray, people: dict[int, set[str]]) -> int | None:
    if mode not in MODES:
        raise ValueError(f"mode must be 'shared' or 'per_photo', not {mode!r}")
    if mode == "per_photo":
        if k is not None:
            raise ValueError("images that follow each photo are not k-anonymous: leave out k")
        if (np.bincount(labels[labels >= 0]) > 1).any():
            raise ValueError(
                "in per_photo mode each photo has an image of its own; use mode='shared' to share them"
            )
        return None
    if sum(map(len, people.values())) != len(set().union(*people.values())):
        raise ValueError(
            "a person has several images, by which the clusters could be linked; give the partition "
            "identities=faces.identities"
        )
    smallest = min(map(len, people.values()))
    k = smallest if k is None else k
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 2:
        raise ValueError(
            f"k must be a whole number of at least 2, not {k!r}: an image of one person protects nobody"
        )
    if smallest < k:
        raise ValueError(
            f"an image is shared by {smallest} people only, which is less than k = {k}; suppress them"
        )
    return int(k)


def _pixel_key(image: np.ndarray) -> bytes:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()


def _refuse_photos(faces: Faces, images: Sequence[np.ndarray]) -> None:
    """Fail where an image is one of the photos."""
    photos = {
        _pixel_key(image) for part in (faces, faces.others) if part is not None for image in part.images
    }
    passed = [i for i, image in enumerate(images) if _pixel_key(image) in photos]
    if passed:
        raise ValueError(
            f"{len(passed)} images are photos as they came, the first is image {passed[0]}; anonymize or suppress them"
        )


def _check_places(folder: Path, ledger: Path) -> None:
    for path in (folder, ledger):
        if not path.parent.is_dir():
            raise FileNotFoundError(f"the folder {path.parent} does not exist; make it first")
    if ledger.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{ledger}: the ledger leads back to people and must not lie inside the release")
    if os.path.lexists(ledger):
        raise FileExistsError(
            f"{ledger} exists; it may be the only key to an older release: choose another name"
        )
    if (
        folder.is_symlink()
        or (folder.exists() and not folder.is_dir())
        or (folder.is_dir() and any(folder.iterdir()))
    ):
        raise FileExistsError(f"{folder} exists and is not an empty folder; choose a new one for the release")


def _assign(mode: str, faces: Faces, labels: np.ndarray, reasons: dict) -> tuple[dict[str, int], list[dict]]:
    """Deal out random names: file name -> image number, and what became of each photo."""
    owners = faces.identities if mode == "shared" else np.arange(len(faces))
    named, files, outcomes = {}, {}, []
    for row, (owner, label) in enumerate(zip(owners.tolist(), labels.tolist(), strict=True)):
        outcome, reason = reasons.get(row, (ANONYMIZED, ""))
        name = None
        if label >= 0:
            name = named.setdefault(owner, secrets.token_hex(NAME_BYTES) + ".png")
            files[name] = label
        outcomes.append(
            {
                "photo": str(faces.names[row]),
                "identity": str(faces.identities[row]),
                "outcome": outcome,
                "file": name,
                "reason": reason,
            }  # fmt: skip
        )
    return files, outcomes


def encode_png(image: np.ndarray) -> bytes:
    """An image (h, w, 3) as PNG without anything but its pixels."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(data, "PNG", optimize=False, compress_level=9)
    return data.getvalue()


# ----------------------------------------------------------------------------------------------------------
# Auditing
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One thing that an audit looks at.

    Attributes
    ----------
    name : str
    passed : bool or None
        None where it could not be looked at, or only informs.
    detail : str
        What was found; names files of the release at most, never photos or people.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes
    ----------
    checks : tuple of Check
    claim : str
        What the release says that it protects, in words.
    """

    checks: tuple[Check, ...]
    claim: str

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def to_json(self) -> str:
        """The report as JSON: ``passed``, ``claim`` and ``checks``."""
        checks = [vars(check) for check in self.checks]
        return json.dumps({"passed": self.passed, "claim": self.claim, "checks": checks}, indent=1)

    def __str__(self) -> str:
        words = {True: "passed", False: "FAILED", None: "-"}
        lines = [f"{words[check.passed]:7}{check.name}: {check.detail}" for check in self.checks]
        verdict = "The files keep what they claim." if self.passed else "The release FAILS."
        return "\n".join([*lines, self.claim, verdict])


@dataclass
class _Contents:
    """What is in a folder; filled by the checks in turn."""

    files: dict[str, os.stat_result] = field(default_factory=dict)  # regular files by name
    others: list[str] = field(default_factory=list)  # links, folders, devices ...
    manifest: dict = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 of files with a release's names
    guessable: set[str] = field(default_factory=set)  # names that could be made from contents
    images: dict[str, np.ndarray] = field(default_factory=dict)  # decoded, by digest
    faults: dict[str, str] = field(default_factory=dict)  # why one is not, by digest


def audit_release(
    folder: str | Path, originals: Faces | None = None, ledger: str | Path | None = None
) -> AuditReport:
    """Check a release from its files and manifest alone, and against the photos where they are at hand.

    Nothing in the folder is trusted: links are not followed, images are measured before they are decoded, and whatever
    is wrong is a failed check, not an error.

    Parameters
    ----------
    folder : str or Path
    originals : Faces, optional
        The photos that were anonymized, with all `others` of these people that are at hand.
    ledger : str or Path, optional
        With it and the originals, how often an attacker would name the right person is measured.

    Returns
    -------
    AuditReport
        ``passed`` if no check failed, ``checks``, ``to_json()``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder. (Everything else is a finding.)
    ValueError
        If the ledger, which is the auditor's own, cannot be read.

    Notes
    -----
    What cannot be seen from files: whether k files of one content were made for k different people. With `originals`,
    files are at least counted against people.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder")
    owners = _read_ledger(ledger, originals) if ledger is not None else None
    contents = _Contents()
    checks = [Check(name, *check(folder, contents)) for name, check in FILE_CHECKS.items()]
    if originals is None or not contents.images:
        why = "no originals were given" if originals is None else "there is no image to compare"
        checks += [Check(name, None, f"not checked: {why}") for name in ORIGINAL_CHECKS]
    else:
        compared = _compare(contents, originals)
        checks += [Check(name, *check(contents, compared, owners)) for name, check in ORIGINAL_CHECKS.items()]
    return AuditReport(tuple(checks), _claim(contents))


def _claim(contents: _Contents) -> str:
    mode, k = contents.manifest.get("mode"), contents.manifest.get("k")
    if mode == "shared" and isinstance(k, int):
        return f"Claim: every image stands for at least {k} people, byte for byte."
    if mode == "per_photo":
        return "No k-anonymity is claimed: every image follows one photo."
    return "The release says nothing that could be understood about what it protects."


def _list_folder(folder: Path, contents: _Contents) -> tuple[bool, str]:
    """Regular files only, and no more of them than an audit reads."""
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                if number >= MOST_FILES:
                    return False, f"there are more than {MOST_FILES} files; the rest was not looked at"
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    contents.files[entry.name] = status
                else:
                    contents.others.append(entry.name)
    except OSError as error:
        return False, f"the folder cannot be read ({error.strerror})"
    if contents.others or folder.is_symlink():
        return False, f"{len(contents.others)} links, folders or devices are in it: {_named(contents.others)}"
    return True, f"{len(contents.files)} plain files"


def _named(names: Sequence[str], most: int = 3) -> str:
    shown = [ascii(name)[1:-1][:60] for name in sorted(names)[:most]]
    return ", ".join(shown) + (" ..." if len(names) > most else "")


def _read(path: Path, limit: int) -> bytes:
    """Content of a regular file that is not a link; OSError or ValueError else."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("it is no plain file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit >> 20} MiB")
    return data


MANIFEST_KEYS = {
    "format": str,
    "version": int,
    "mode": str,
    "k": int | None,
    "n_files": int,
    "n_images": int,
    "files": dict,
}


def _read_manifest(folder: Path, contents: _Contents) -> tuple[bool, str]:
    """A manifest with the known entries and nothing else."""
    if MANIFEST not in contents.files:
        return False, f"there is no {MANIFEST}"
    try:
        manifest = json.loads(_read(folder / MANIFEST, MANIFEST_BYTES), object_pairs_hook=_without_doubles)
    except (OSError, ValueError, RecursionError) as error:
        return False, f"{MANIFEST} cannot be read ({type(error).__name__})"
    if not isinstance(manifest, dict) or set(manifest) != set(MANIFEST_KEYS):
        return (
            False,
            f"it must have exactly the entries {', '.join(MANIFEST_KEYS)}: more could lead back, less says too little",
        )
    for name, kind in MANIFEST_KEYS.items():
        if not isinstance(manifest[name], kind) or isinstance(manifest[name], bool):
            return False, f"its entry {name} is of the wrong kind"
    if (manifest["format"], manifest["version"]) != (FORMAT, VERSION) or manifest["mode"] not in MODES:
        return False, "it is of another format, version or mode than this audit knows"
    if (manifest["mode"] == "shared") != (manifest["k"] is not None) or (manifest["k"] or 2) < 2:
        return False, "its k does not fit its mode: at least 2 in shared mode, null in per_photo mode"
    files = manifest["files"]
    proper = all(NAME.fullmatch(name) for name in files)
    if not proper or not all(isinstance(d, str) and re.fullmatch("[0-9a-f]{64}", d) for d in files.values()):
        return False, "its files are not names of 32 hexadecimal digits with SHA-256 digests"
    if list(files) != sorted(files):
        return False, "its files are in another order than that of their names, which could lead back"
    contents.manifest = manifest
    return True, f"mode {manifest['mode']}, k {manifest['k']}, {len(files)} files"


def _without_doubles(pairs: list[tuple]) -> dict:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("an entry is there twice")
    return dict(pairs)


def _check_foreign(folder: Path, contents: _Contents) -> tuple[bool, str]:
    """Nothing but images and the manifest; above all no ledger."""
    foreign = [name for name in contents.files if name != MANIFEST and not NAME.fullmatch(name)]
    if not foreign:
        return True, "nothing but images and the manifest"
    ledgers = [name for name in foreign if _is_ledger(folder / name)]
    more = f"; {len(ledgers)} of them look like a LEDGER, which names people" if ledgers else ""
    return False, f"{len(foreign)} files do not belong there: {_named(foreign)}{more}"


def _is_ledger(path: Path) -> bool:
    try:
        head = _read(path, MANIFEST_BYTES)[:4096].lower()
    except (OSError, ValueError):
        return False
    return b"ledger" in head or b'"identity"' in head or "ledger" in path.name.lower()


def _check_files(folder: Path, contents: _Contents) -> tuple[bool, str]:
    """The manifest's files are those of the folder, with their digests."""
    listed, present = contents.manifest.get("files", {}), {n for n in contents.files if NAME.fullmatch(n)}
    damaged, unreadable = [], []
    for name in sorted(present):
        try:
            data = _read(folder / name, IMAGE_BYTES)
        except (OSError, ValueError):
            unreadable.append(name)
            continue
        _take(name, data, contents)
        if name in listed and contents.digests[name] != listed[name]:
            damaged.append(name)
    missing, unlisted = set(listed) - present, present - set(listed)
    problems = [
        (missing, "are missing"),
        (unlisted, "are not in the manifest"),
        (damaged, "have another digest"),
        (unreadable, "cannot be read or are too large"),
    ]
    found = [f"{len(names)} {what} ({_named(list(names))})" for names, what in problems if names]
    manifest = contents.manifest
    if manifest and (manifest["n_files"], manifest["n_images"]) != (len(listed), len(set(listed.values()))):
        found.append("the manifest counts other numbers of files or images than it lists")
    if not present:
        found.append("there is no image")
    return not found, "; ".join(found) or f"{len(present)} files with their digests"


def _take(name: str, data: bytes, contents: _Contents) -> None:
    """Note one file's digest, and decode its content if it is a new one."""
    digest = hashlib.sha256(data).hexdigest()
    contents.digests[name] = digest
    if digest in contents.images or digest in contents.faults:
        return
    contents.guessable |= _digests(data)
    try:
        image = decode_png(data)
    except ValueError as error:
        contents.faults[digest] = str(error)
        return
    if sum(one.nbytes for one in contents.images.values()) + image.nbytes > ALL_IMAGE_BYTES:
        contents.faults[digest] = "all images together are more than an audit holds"
        return
    contents.images[digest] = image


def _digests(data: bytes) -> set[str]:
    """Names of 32 digits that can be made from something known."""
    return {digest(data).hexdigest()[:32] for digest in (hashlib.md5, hashlib.sha1, hashlib.sha256)}


def _check_images(folder: Path, contents: _Contents) -> tuple[bool, str]:
    """Every file is one PNG of plain RGB pixels, with nothing else in it."""
    broken = [name for name, digest in contents.digests.items() if digest in contents.faults]
    if broken:
        what = "; ".join(sorted(set(contents.faults.values()))[:3])
        return False, f"{len(broken)} files ({_named(broken)}): {what}"
    n = len(contents.digests)
    return n > 0, f"{n} files hold pixels only: no EXIF, GPS, text, profile, time or remainder"


def decode_png(data: bytes) -> np.ndarray:
    """Decode a PNG that holds 8-bit RGB pixels and nothing else: uint8 (h, w, 3).

    Raises
    ------
    ValueError
        If there is anything else in it, it is damaged, or has more than 32 million pixels.
    """
    header, compressed = _png_parts(data)
    width, height, *kind = header
    if width * height > IMAGE_PIXELS:
        raise ValueError(f"its {height}x{width} pixels are over the limit of {IMAGE_PIXELS}")
    if kind != [8, 2, 0, 0, 0]:
        raise ValueError("it is not stored as plain 8-bit RGB")
    if min(width, height) < datasets.faces.SMALLEST_SIDE:
        raise ValueError("it is too small for a face")
    size = height * (1 + 3 * width)
    stream = zlib.decompressobj()
    try:
        rows = stream.decompress(compressed, size + 1)
    except zlib.error as error:
        raise ValueError("its pixels are damaged") from error
    if len(rows) != size or not stream.eof or stream.unused_data:
        raise ValueError("it holds more or fewer bytes than its pixels take")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            return np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("its pixels are damaged") from error


def _png_parts(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """Header and compressed pixels of a PNG without any other chunk."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("it is no PNG")
    place, kinds, header, compressed = 8, [], (), []
    while place < len(data):
        if place + 12 > len(data):
            raise ValueError("it is cut short, or bytes follow its end")
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        content = data[place + 8 : place + 8 + length]
        checksum = data[place + 8 + length : place + 12 + length]
        if len(checksum) < 4 or struct.unpack(">I", checksum)[0] != zlib.crc32(kind + content):
            raise ValueError("it is damaged or cut short")
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            raise ValueError(f"it carries {CHUNKS.get(kind, 'data other than pixels')}")
        if kind == b"IHDR" and len(content) == 13 and not kinds:
            header = struct.unpack(">IIBBBBB", content)
        if kind == b"IDAT":
            compressed.append(content)
        kinds.append(kind)
        place += 12 + length
        if kind == b"IEND":
            break
    in_order = kinds == [b"IHDR", *[b"IDAT"] * len(compressed), b"IEND"] and compressed and header
    if not in_order or place != len(data) or content:
        raise ValueError("its parts are not in order, or bytes follow its end")
    return header, b"".join(compressed)


#: What the kinds of chunks in a PNG may give away.
CHUNKS = {
    b"eXIf": "EXIF (camera, time, place)",
    b"tEXt": "text",
    b"zTXt": "text",
    b"iTXt": "text",
    b"iCCP": "a colour profile",
    b"tIME": "a time",
    b"PLTE": "a palette",
}


#: Of three random names or more hardly ever more digits are the same in all; a version 4 UUID has one that always is.
MOST_FIXED_DIGITS = 6


def _check_names(folder: Path, contents: _Contents) -> tuple[bool, str]:
    """Names that look random: no counters, none that is made from a content or a position."""
    names = sorted(name[:-4] for name in contents.files if NAME.fullmatch(name))
    numbers = [int(name, 16) for name in names]
    close = sum(b - a < 1 << 64 for a, b in zip(numbers, numbers[1:], strict=False))
    if close:
        return False, f"{close} names are nearer to each other than random ones ever are: they look counted"
    worded = [name for name in names if _is_text(bytes.fromhex(name))]
    if len(worded) > len(names) // 50_000:  # one random name in eight million does
        return False, f"{len(worded)} names spell text in hexadecimal digits"
    fixed = sum(len(set(digits)) == 1 for digits in zip(*names, strict=True))
    if len(names) > 2 and fixed > MOST_FIXED_DIGITS:
        return (
            False,
            f"{fixed} of 32 digits are the same in all names, which look made from a time, a place or a text",
        )
    counters = set().union(*(_digests(str(i).encode()) for i in range(len(names) + 1)))
    guessable = (contents.guessable | counters) & set(names)
    if guessable:
        return (
            False,
            f"{len(guessable)} names are digests of a file or a number, which anybody can make again",
        )
    return bool(names), f"{len(names)} names without a sign of order"


def _is_text(data: bytes) -> bool:
    """Whether 16 bytes spell something: printable characters, maybe filled up by spaces or zeros."""
    return all(32 <= byte < 127 for byte in data.rstrip(b"\0 ")) and bool(data.strip(b"\0 "))


def _check_times(folder: Path, contents: _Contents) -> tuple[bool, str]:
    """One time and one set of permissions for all files, and no further attributes."""
    times = {status.st_mtime_ns for status in contents.files.values()}
    if len(times) > 1:
        return False, (
            f"files have {len(times)} different times, whose order may lead back; give them one: "
            "touch -d 1980-01-01Z FOLDER/*"
        )
    modes = {stat.S_IMODE(status.st_mode) for status in contents.files.values()}
    if len(modes) > 1:
        return False, f"files have {len(modes)} different permissions; give them one: chmod 644 FOLDER/*"
    if hasattr(os, "listxattr"):
        try:
            marked = [
                name
                for name in contents.files
                if any(key.startswith("user.") for key in os.listxattr(folder / name, follow_symlinks=False))
            ]
        except OSError:
            marked = []
        if marked:
            return False, f"{len(marked)} files carry extended attributes: {_named(marked)}"
    return True, "one time and one set of permissions for all files"


def _check_anonymity(folder: Path, contents: _Contents) -> tuple[bool | None, str]:
    """In shared mode every content is there at least k times."""
    mode, k = contents.manifest.get("mode"), contents.manifest.get("k")
    if mode == "per_photo":
        return None, "no k-anonymity is claimed: every image follows one photo"
    if mode != "shared":
        return False, "without a manifest nothing is claimed that could be checked"
    counts = Counter(contents.digests.values())
    few = [count for count in counts.values() if count < k]
    if few or not counts:
        return (
            False,
            f"{len(few)} of {len(counts)} images stand for fewer than k = {k} people (as few as {min(few, default=0)})",
        )
    return True, f"each of {len(counts)} images is there at least {min(counts.values())} times (k = {k})"


#: Checks of the files alone, in the order in which they build on each other: (folder, contents) -> passed, detail.
FILE_CHECKS: dict[str, Callable] = {
    "folder": _list_folder,
    "manifest": _read_manifest,
    "foreign files": _check_foreign,
    "files": _check_files,
    "images": _check_images,
    "names": _check_names,
    "times": _check_times,
    "k-anonymity": _check_anonymity,
}


# ----------------------------------------------------------------------------------------------------------
# Against the originals
# ----------------------------------------------------------------------------------------------------------

#: An image is a near-original where dlib's descriptor is nearer to a photo's than this. Of the built-in faces, photos
#: that were compressed, cropped, brightened or mirrored are up to 0.26 away, surrogates of two people 0.28 and more.
NEAR_DISTANCE = 0.25

#: Or where its coarse structure is more like a photo's than this. There photos under strong compression, noise or a
#: slight blur reach 0.94 to 0.99, surrogates of two people 0.80 at most, different photos of a person 0.91.
NEAR_SIMILARITY = 0.94

#: Structure is compared after a blur that takes away noise and blocks, at this side and with one contrast.
COARSE_SIDE, COARSE_BLUR, COARSE_CONTRAST = 56, 1.5, 40.0

#: Side of the thumbnails that tell which pairs are worth a closer look, and how alike they must be.
THUMBNAIL, WORTH_A_LOOK = 32, 0.85

#: Keypoints of a picture, brought to this many pixels on its longer side, and how many of them in one placement, out of
#: those of the picture with fewer, make it a copy however it was turned, cut or inverted. Of turned photos 0.55 to 0.62
#: agree, of negatives all, of mixtures of 70 and 30 % from 0.42; of other photos of the person 0.25 at most, of mean
#: photos of two people 0.31.
KEYPOINTS, KEYPOINT_SIDE, AGREEING, AGREEING_SHARE = 120, 240, 15, 0.36

#: Pixels of these pictures by which keypoints of one placement may be apart.
AGREEING_PIXELS = 5.0

#: Photos whose keypoints are compared one by one with those of each image, the most alike first.
LIKELY_PHOTOS = 3

#: Of more pairs of an image and a photo keypoints are not compared.
KEYPOINT_PAIRS = 400_000

#: A stranger is named on this share of images; what is beyond what chance gives at this rate is a finding.
FALSE_NAMES = 0.01


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Different images of a release beside all original photos."""

    names: list[str]  # a file for each image
    n_people: int
    guessable: set[str]  # file names that could be made from what the originals are called
    identities: np.ndarray  # (g,)
    same: np.ndarray  # bool (c,): an image has the very pixels of a photo, maybe mirrored or turned
    similar: np.ndarray  # bool (c,): its structure is a photo's
    placed: (
        np.ndarray | None
    )  # bool (c,): its keypoints lie as a photo's do; None if there are too many to compare
    found: np.ndarray  # bool (c,)
    distances: np.ndarray  # (c, g)
    threshold: float  # under which a person is named


def _compare(contents: _Contents, originals: Faces) -> _Comparison:
    parts = [originals] if originals.others is None else [originals, originals.others]
    photos = [image for part in parts for image in part.images]
    identities = np.concatenate([part.identities for part in parts])
    file_of = {digest: name for name, digest in contents.digests.items()}
    names, images = [file_of[digest] for digest in contents.images], list(contents.images.values())
    drawn, held = (
        embedding.embed(images, "dlib"),
        np.concatenate([embedding.embed(part, "dlib") for part in parts]),
    )
    known = {_pixel_key(turned) for photo in photos for turned in _turned(photo)}
    return _Comparison(
        names,
        len(np.unique(identities)),
        _names_from(parts),
        identities,
        np.array([_pixel_key(image) in known for image in images]),
        _similar(images, photos, parts),
        _placed(images, photos) if len(images) * len(photos) <= KEYPOINT_PAIRS else None,
        detection.detect(images).found,
        np.stack([np.linalg.norm(held - row, axis=1) for row in drawn]),
        _naming_threshold(held, identities),
    )


def _names_from(parts: Sequence[Faces]) -> set[str]:
    """File names that could be made from people's names, photos' names and pixels."""
    words = {str(word) for part in parts for word in (*part.identities, *part.names)}
    words |= {Path(word).stem for word in words} | {Path(word).name for word in words}
    contents = [image.tobytes() for part in parts for image in part.images]
    return set().union(*map(_digests, [*(word.encode() for word in words), *contents]))


def _turned(photo: np.ndarray) -> list[np.ndarray]:
    """A photo in its eight positions."""
    turned = [np.rot90(photo, quarter) for quarter in range(4)]
    return [np.ascontiguousarray(part) for one in turned for part in (one, one[:, ::-1])]


def _similar(images: list[np.ndarray], photos: list[np.ndarray], parts: Sequence[Faces]) -> np.ndarray:
    """Whether an image has the structure of a photo, or of its mirror image: bool (c,)."""
    seen = detection.detect(images)
    landmarks = np.concatenate([detection.detect(part).landmarks for part in parts])
    held = np.stack(
        [_crop(photo, points) for photo, points in zip(photos, landmarks, strict=True)]
    )  # (g, 112, 112)
    thumbnails, wholes = _thumbnails(held), _thumbnails([_grey(photo) for photo in photos])
    result = np.zeros(len(images), dtype=bool)
    for i, image in enumerate(images):
        if seen.found[i]:
            crop = _crop(image, seen.landmarks[i])
            pairs = [(g, turned) for turned in (crop, crop[:, ::-1]) for g in _alike(turned, thumbnails)]
        else:  # where the face is covered, look where alike photos have it
            places = [g for g in _alike(_grey(image), wholes) if photos[g].shape == image.shape]
            pairs = [(g, _crop(image, landmarks[g])) for g in places]
        result[i] = any(
            appearance.structural_similarity(_coarse(held[g]), _coarse(turned)) > NEAR_SIMILARITY
            for g, turned in pairs
        )
    return result


def _coarse(crop: np.ndarray) -> np.ndarray:
    """A grey crop without what noise, compression and brightness change: (56, 56), mean 128."""
    size = (COARSE_SIDE, COARSE_SIDE)
    small = cv2.resize(cv2.GaussianBlur(crop, (0, 0), COARSE_BLUR), size, interpolation=cv2.INTER_AREA)
    centred = small.astype(np.float64) - small.mean()
    return centred / max(centred.std(), 1e-9) * COARSE_CONTRAST + 128


def _placed(images: Sequence[np.ndarray], photos: Sequence[np.ndarray]) -> np.ndarray:
    """Whether an image's keypoints lie as a photo's do, also mirrored or as a negative: bool (c,).

    Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 60(2), 2004, compared as Arandjelović and
    Zisserman do ("Three things everyone should know to improve object retrieval", CVPR 2012).
    """
    variants = [
        (i, _keypoints(one))
        for i, image in enumerate(images)
        for turned in (image, np.ascontiguousarray(image[:, ::-1]))
        for one in (turned, 255 - turned)
    ]
    variants = [(i, found) for i, found in variants if len(found[0]) >= AGREEING]
    if not variants:
        return np.zeros(len(images), dtype=bool)
    described = np.concatenate([found[1] for _, found in variants])
    starts = np.cumsum([0, *(len(found[1]) for _, found in variants[:-1])])
    held, alike = [_keypoints(photo) for photo in photos], np.zeros((len(variants), len(photos)))
    for g, (points, descriptors) in enumerate(held):
        if len(points) >= AGREEING:
            alike[:, g] = np.add.reduceat((described @ descriptors.T).max(axis=1), starts)
    result = np.zeros(len(images), dtype=bool)
    for (i, found), row in zip(variants, alike, strict=True):
        likely = [g for g in np.argsort(-row, kind="stable")[:LIKELY_PHOTOS] if row[g] > 0]
        result[i] |= any(_lie_alike(found, held[g]) for g in likely)
    return result


def _keypoints(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (m, 2) and descriptors (m, 128) of unit length of a picture's keypoints."""
    grey = _grey(image)
    grey = detection.resize(grey, KEYPOINT_SIDE / max(grey.shape))
    points, descriptors = cv2.SIFT_create(nfeatures=KEYPOINTS, contrastThreshold=0.02).detectAndCompute(
        grey, None
    )
    if descriptors is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
    shares = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-9)
    return np.float32([point.pt for point in points]), np.sqrt(shares)


def _lie_alike(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether one shift, rotation and scale takes enough keypoints to those that are each other's most alike."""
    products = first[1] @ second[1].T
    there, back = products.argmax(axis=1), products.argmax(axis=0)
    mutual = np.flatnonzero(back[there] == np.arange(len(there)))
    if len(mutual) < AGREEING:
        return False
    cv2.setRNGSeed(0)
    _, agreeing = cv2.estimateAffinePartial2D(
        first[0][mutual], second[0][there[mutual]], method=cv2.RANSAC, ransacReprojThreshold=AGREEING_PIXELS
    )
    count = 0 if agreeing is None else int(agreeing.sum())
    return count >= max(AGREEING, AGREEING_SHARE * min(len(first[0]), len(second[0])))


def _crop(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    crop = detection.aligned_crop(image, landmarks, appearance.CROP_SIZE, appearance.CROP_ZOOM)
    return _grey(crop)


def _grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _thumbnails(crops: Sequence[np.ndarray]) -> np.ndarray:
    """Small versions with mean 0 and length 1: n times (h, w) -> (n, 1024)."""
    small = [cv2.resize(crop, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for crop in crops]
    rows = np.stack(small).reshape(len(small), -1).astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _alike(crop: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    return np.flatnonzero(thumbnails @ _thumbnails(crop[None])[0] > WORTH_A_LOOK)


def _naming_threshold(descriptors: np.ndarray, identities: np.ndarray) -> float:
    """Distance under which the nearest photo of a stranger lies for 1 % of the photos; 0 for a single person."""
    nearest = [
        np.linalg.norm(descriptors[identities != person] - row, axis=1).min(initial=np.inf)
        for row, person in zip(descriptors, identities, strict=True)
    ]
    return float(np.quantile(nearest, FALSE_NAMES)) if np.isfinite(nearest).all() else 0.0


def _check_originals(contents: _Contents, compared: _Comparison, owners) -> tuple[bool, str]:
    """No photo and no near-copy of one."""
    near = compared.found & (compared.distances.min(axis=1) < NEAR_DISTANCE)
    placed = np.zeros_like(near) if compared.placed is None else compared.placed
    suspects = compared.same | compared.similar | near | placed
    left_out = "; keypoints were not compared, as there are too many pairs" if compared.placed is None else ""
    if not suspects.any():
        return (
            True,
            f"none of {len(suspects)} images is a photo, or as near to one as a changed copy{left_out}",
        )
    files = [name for name, suspect in zip(compared.names, suspects, strict=True) if suspect]
    return False, (
        f"{len(files)} of {len(suspects)} images ({compared.same.sum()} by pixels, {compared.similar.sum()} by "
        f"structure, {near.sum()} by dlib's descriptor, {placed.sum()} by keypoints) are a photo or as near to one as "
        f"a changed copy: {_named(files)}{left_out}"
    )


def _check_people(contents: _Contents, compared: _Comparison, owners) -> tuple[bool, str]:
    """No more files than people in shared mode, and no name made from a person's or a photo's."""
    n, made = len(contents.digests), compared.guessable & {name[:-4] for name in contents.digests}
    if made:
        return False, f"{len(made)} names are digests of people's or photos' names or contents"
    if contents.manifest.get("mode") == "shared" and n > compared.n_people:
        return False, f"there are {n} files for {compared.n_people} people: copies were multiplied"
    return True, f"{n} files, {compared.n_people} people"


def _check_naming(contents: _Contents, compared: _Comparison, owners) -> tuple[bool | None, str]:
    """Attack each image: name the person of the nearest photo, where it is nearer than strangers are."""
    nearest = compared.distances.argmin(axis=1)
    named = compared.found & (compared.distances.min(axis=1) < compared.threshold)
    most = int(binom.ppf(0.99, len(named), FALSE_NAMES))
    detail = (
        f"an attacker with the originals and dlib's descriptor names somebody on {named.sum()} of {len(named)} images, "
        f"where chance would let them on {most} at most; {(~compared.found).sum()} images show no face"
    )
    if owners is not None:
        behind: dict[str, set[str]] = {}
        for name, who in owners.items():
            behind.setdefault(contents.digests.get(name, ""), set()).update(who)
        people = [behind.get(contents.digests[name], set()) for name in compared.names]
        right = [compared.identities[i] in who for i, who in zip(nearest, people, strict=True)]
        what = "one of its people" if contents.manifest.get("mode") == "shared" else "the right person"
        detail += f"; by the ledger the nearest photo shows {what} for {sum(right)} of {len(right)}"
    if contents.manifest.get("mode") == "shared":
        return None, detail + "; it leads to a cluster, not to a person in it"
    return bool(
        named.sum() <= most
    ), detail + "; attackers who learn from such images do better, see `attacks`"


#: Checks against the originals: (contents, comparison, owners of files or None) -> passed, detail.
ORIGINAL_CHECKS: dict[str, Callable] = {
    "originals": _check_originals,
    "people": _check_people,
    "attack": _check_naming,
}


def _read_ledger(path: str | Path, originals: Faces | None) -> dict[str, set[str]]:
    """Who is behind each file, by the names that the originals give people where these have the photo.

    A folder of ordinary photos is anonymized without knowing who is who: its ledger numbers people, or photos.
    """
    known: dict[str, str] = {}
    for faces in () if originals is None else (originals, originals.others):
        if faces is not None:
            known.update(zip(map(str, faces.names), map(str, faces.identities), strict=True))
    try:
        ledger = json.loads(_read(Path(path), MANIFEST_BYTES))
        owners: dict[str, set[str]] = {}
        for photo in ledger["photos"]:
            if photo["file"] is not None:
                name = photo["photo"]
                named = name if name in known else name.rpartition("#")[0]  # one of several faces on a photo
                owners.setdefault(photo["file"], set()).add(known.get(named, photo["identity"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: is no ledger that write_release wrote ({type(error).__name__})") from error
    if owners and known and not set().union(*owners.values()) & set(known.values()):
        raise ValueError(
            f"{path}: knows none of the people among the originals; give those that it was written for"
        )
    return owners


# ----------------------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Audit a release folder; exit status 1 if it fails, 2 if it could not be audited."""
    parser = argparse.ArgumentParser(prog="python -m release", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    audit = commands.add_parser("audit", help="check a release from its files alone")
    audit.add_argument("folder", type=Path)
    audit.add_argument(
        "--originals", metavar="SOURCE", help="orl, or the folder of the photos that were anonymized"
    )
    audit.add_argument("--ledger", type=Path, help="the ledger, to measure the attack")
    audit.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args(arguments)
    try:
        originals = datasets.load_faces(chosen.originals) if chosen.originals else None
        report = audit_release(chosen.folder, originals, chosen.ledger)
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(report.to_json() if chosen.json else report)
    sys.exit(0 if report.passed else 1)
