"""The audit checks that need only the files of a release, not the original photos.

Each check gets the `Contents` of a folder, adds what it reads to them, and returns whether it passed and what it found.
The checks are in the order of `release.auditing.CHECKS`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

import utils
from release.guessing import Guesser
from release.layout import FORMAT, MANIFEST, MANIFEST_KEYS, MODES, NAME, VERSION
from release.png import decode_png, encode_png, is_marked

#: Limits of what an audit reads.
_MOST_FILES = 200_000
_MANIFEST_BYTES = 64 << 20
_IMAGE_BYTES = 64 << 20
_ALL_IMAGE_BYTES = 2 << 30

#: Three or more random names almost never agree in more digits than this; version 4 UUIDs always agree in one.
_MOST_FIXED_DIGITS = 6


@dataclass
class Contents:
    """The contents of a folder, filled in by one check after another.

    Attributes
    ----------
    folder : Path
    own_status : os.stat_result or None
        Of the folder itself; None if it cannot be read.
    files : dict of str to os.stat_result
        Regular files by name.
    manifest : dict
        Empty unless it is valid.
    digests : dict of str to str
        SHA-256 of each file with a valid name.
    computed : set of str
        Names, without ending, that were computed from a file's content.
    images : dict of str to ndarray
        Decoded images by digest.
    faults : dict of str to str
        Why a file's content is not a valid image, by digest.
    marked : dict of str to bool
        Whether a file carries the mark of synthetic faces, by digest.
    """

    folder: Path
    own_status: os.stat_result | None = None
    files: dict[str, os.stat_result] = field(default_factory=dict)
    manifest: dict = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    computed: set[str] = field(default_factory=set)
    images: dict[str, np.ndarray] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    marked: dict[str, bool] = field(default_factory=dict)

    @property
    def image_names(self) -> list[str]:
        """Regular files with an image name, sorted."""
        return sorted(name for name in self.files if NAME.fullmatch(name))

    @cached_property
    def guesser(self) -> Guesser:
        """Finds names that were computed from something."""
        return Guesser(name.removesuffix(".png") for name in self.image_names)


def listed(names: Iterable[str], most: int = 3) -> str:
    """Name a few files, with unprintable characters escaped."""
    names = sorted(names)
    shown = [ascii(name)[1:-1][:60] for name in names[:most]]
    return ", ".join(shown) + (" ..." if len(names) > most else "")


def read_file(path: Path, limit: int = _MANIFEST_BYTES) -> bytes:
    """Read a regular file that is not a link; otherwise raise OSError or ValueError."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags | getattr(os, "O_NOATIME", 0))  # leave the time of access as it is
    except PermissionError:  # another user's file
        handle = os.open(path, flags)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"larger than {limit >> 20} MiB")
    return data


def check_folder(contents: Contents) -> tuple[bool, str]:
    """The folder holds only regular files, and no more than an audit reads."""
    others = []  # links, folders, devices ...
    try:
        contents.own_status = contents.folder.stat()
        with os.scandir(contents.folder) as entries:
            for number, entry in enumerate(entries):
                if number >= _MOST_FILES:
                    return False, f"more than {_MOST_FILES} files; the rest was not checked"
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    contents.files[entry.name] = status
                else:
                    others.append(entry.name)
    except OSError as error:
        return False, f"the folder cannot be read ({error.strerror})"
    if others:
        return False, f"{len(others)} links, folders or devices: {listed(others)}"
    if contents.folder.is_symlink():
        return False, "the folder is a link"
    return True, f"{len(contents.files)} regular files"


def check_manifest(contents: Contents) -> tuple[bool, str]:
    """The manifest has the required entries and nothing else."""
    if MANIFEST not in contents.files:
        return False, f"{MANIFEST} is missing"
    try:
        data = read_file(contents.folder / MANIFEST)
        manifest = utils.parse_json(data, _without_duplicates)
    except (OSError, ValueError) as error:
        return False, f"{MANIFEST} cannot be read ({type(error).__name__})"
    fault = _manifest_fault(manifest)
    if fault:
        return False, fault
    contents.manifest = manifest
    return True, f"mode {manifest['mode']}, k {manifest['k']}, {len(manifest['files'])} files"


def _without_duplicates(pairs: list[tuple]) -> dict:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("duplicate entry")
    return dict(pairs)


def _manifest_fault(manifest) -> str:
    """What is wrong with a manifest; empty if it is valid."""
    if not isinstance(manifest, dict) or set(manifest) != set(MANIFEST_KEYS):
        return f"the entries must be exactly {', '.join(MANIFEST_KEYS)}: others could identify people"
    for name, kind in MANIFEST_KEYS.items():
        if not isinstance(manifest[name], kind) or isinstance(manifest[name], bool):
            return f"the entry {name} has the wrong type"
    if (manifest["format"], manifest["version"]) != (FORMAT, VERSION) or manifest["mode"] not in MODES:
        return "unknown format, version or mode"
    if (manifest["mode"] == "shared") != (manifest["k"] is not None) or (manifest["k"] or 2) < 2:
        return "k does not match the mode: it must be at least 2 in shared mode, null in per_photo mode"
    files = manifest["files"]
    digests = all(isinstance(d, str) and re.fullmatch("[0-9a-f]{64}", d) for d in files.values())
    if not digests or not all(NAME.fullmatch(name) for name in files):
        return "the files must be named by 32 hexadecimal digits, with SHA-256 digests"
    if list(files) != sorted(files):
        return "the files must be sorted by name: another order could identify people"
    return ""


def check_foreign(contents: Contents) -> tuple[bool, str]:
    """The folder holds only images and the manifest, and above all no ledger."""
    foreign = [name for name in contents.files if name != MANIFEST and not NAME.fullmatch(name)]
    if not foreign:
        return True, "only images and the manifest"
    n_ledgers = sum(_is_ledger(contents.folder / name) for name in foreign)
    more = f"; {n_ledgers} of them look like a LEDGER, which names people" if n_ledgers else ""
    return False, f"{len(foreign)} files do not belong in a release: {listed(foreign)}{more}"


def _is_ledger(path: Path) -> bool:
    try:
        head = read_file(path)[:4096].lower()
    except (OSError, ValueError):
        return False
    return b"ledger" in head or b'"identity"' in head or "ledger" in path.name.lower()


def check_digests(contents: Contents) -> tuple[bool, str]:
    """The files in the folder match the manifest, including their digests."""
    expected, present = contents.manifest.get("files", {}), set(contents.image_names)
    changed, unreadable = [], []
    for name in sorted(present):
        try:
            data = read_file(contents.folder / name, _IMAGE_BYTES)
        except (OSError, ValueError):
            unreadable.append(name)
            continue
        _decode(name, data, contents)
        if name in expected and contents.digests[name] != expected[name]:
            changed.append(name)
    problems = [
        (expected.keys() - present, "are missing"),
        (present - expected.keys(), "are not in the manifest"),
        (changed, "have a different digest"),
        (unreadable, "cannot be read or are too large"),
    ]
    found = [f"{len(names)} {what} ({listed(names)})" for names, what in problems if names]
    counts = (contents.manifest.get("n_files"), contents.manifest.get("n_images"))
    if contents.manifest and counts != (len(expected), len(set(expected.values()))):
        found.append("the manifest's counts of files or images are wrong")
    if not present:
        found.append("no images")
    return not found, "; ".join(found) or f"{len(present)} files match their digests"


def _decode(name: str, data: bytes, contents: Contents) -> None:
    """Record the digest of one file, and decode its content if it is new."""
    digest = hashlib.sha256(data).hexdigest()
    contents.digests[name] = digest
    if digest in contents.images or digest in contents.faults:
        return
    contents.computed |= contents.guesser.computed([data])
    try:
        image, contents.marked[digest] = decode_png(data), is_marked(data)
        if data != encode_png(
            image, mark=contents.marked[digest]
        ):  # filters, lengths of chunks and the compression could carry a message
            raise ValueError(
                "not as this version of AnonFACES and Pillow encodes these pixels; another encoding could carry a "
                "message: write the release again, and audit it where it was written"
            )
    except ValueError as error:
        contents.faults[digest] = str(error)
        return
    contents.computed |= contents.guesser.computed([image.tobytes()])
    if sum(one.nbytes for one in contents.images.values()) + image.nbytes > _ALL_IMAGE_BYTES:
        contents.faults[digest] = "all images together exceed the memory limit of an audit"
    else:
        contents.images[digest] = image


def check_images(contents: Contents) -> tuple[bool, str]:
    """Every file is a PNG that holds plain RGB pixels and nothing else."""
    broken = [name for name, digest in contents.digests.items() if digest in contents.faults]
    if broken:
        faults = "; ".join(sorted(set(contents.faults.values()))[:3])
        return False, f"{len(broken)} files ({listed(broken)}): {faults}"
    n, marked = len(contents.digests), set(contents.marked.values())
    if len(marked) > 1:
        return (
            False,
            "some files carry the mark of synthetic faces and others do not, which could carry a message",
        )
    mark = ", and the mark of synthetic faces" if True in marked else ""
    return n > 0, f"{n} files hold only pixels{mark}: no EXIF, GPS, text, profile, time or extra bytes"


def check_names(contents: Contents) -> tuple[bool, str]:
    """The names look random: not sequential, and not computed from a file's content or position."""
    names = [name[:-4] for name in contents.image_names]
    numbers = [int(name, 16) for name in names]
    n_close = sum(b - a < 1 << 64 for a, b in zip(numbers, numbers[1:], strict=False))
    if n_close:
        return (
            False,
            f"{n_close} names are closer to each other than random names would be: they look sequential",
        )
    n_words = sum(_is_text(bytes.fromhex(name)) for name in names)
    if n_words > len(names) // 50_000:  # one random name in eight million does
        return False, f"{n_words} names encode text in hexadecimal digits"
    n_fixed = sum(len(set(digits)) == 1 for digits in zip(*names, strict=True))
    if len(names) > 2 and n_fixed > _MOST_FIXED_DIGITS:
        return False, f"{n_fixed} of 32 digits are the same in all names: they look computed, not random"
    computed = contents.computed | contents.guesser.from_numbers(len(names) + 1)
    if computed:
        return False, f"{len(computed)} names are digests of a file or a number, so anyone can compute them"
    return bool(names), f"{len(names)} names in no order"


def _is_text(data: bytes) -> bool:
    """Whether 16 bytes are text: printable characters, possibly padded with spaces or zeros."""
    return all(32 <= byte < 127 for byte in data.rstrip(b"\0 ")) and bool(data.strip(b"\0 "))


#: Usual permissions of a folder.
_FOLDER_MODES = (0o755, 0o775, 0o750, 0o770, 0o700, 0o777)


def check_times(contents: Contents) -> tuple[bool, str]:
    """Folder and files have the same time, owner and permissions, no time of access that was set, and no attributes."""
    folder, files = contents.own_status, contents.files.values()
    if folder is None:
        return False, "the folder cannot be read"
    n_times = len({status.st_mtime_ns for status in (folder, *files)})
    # A file that was read since its last change shows only when someone read it.
    n_accessed = len({status.st_atime_ns for status in files if status.st_atime_ns < status.st_ctime_ns})
    n_modes = len({(status.st_mode, status.st_uid, status.st_gid) for status in files})
    mode = stat.S_IMODE(folder.st_mode) & ~stat.S_ISGID
    n_marked = sum(_has_attributes(contents.folder / name) for name in ("", *contents.files))
    same_time = "which may identify people; set them all to one time: touch -d 1980-01-01Z FOLDER/* FOLDER"
    faults = [
        (n_times > 1, f"the folder and its files have {n_times} different times, {same_time}"),
        (n_accessed > 1, f"{n_accessed} different times of access were set, {same_time}"),
        (
            n_modes > 1,
            f"files have {n_modes} different permissions or owners; chmod 644 FOLDER/*",
        ),
        (mode not in _FOLDER_MODES, f"the folder has unusual permissions ({mode:o}): chmod 755 FOLDER"),
        (
            n_marked > 0,
            f"{n_marked} files carry extended attributes: setfattr -x",
        ),
    ]
    found = [message for fault, message in faults if fault]
    return not found, "; ".join(found) or (
        "folder and files have one time, one owner, usual permissions and no extended attributes"
    )


def _has_attributes(path: Path) -> bool:
    """Whether a file or folder has user-defined extended attributes, on systems that support them."""
    if not hasattr(os, "listxattr"):
        return False
    try:
        return any(key.startswith("user.") for key in os.listxattr(path, follow_symlinks=False))
    except OSError:
        return False


def check_anonymity(contents: Contents) -> tuple[bool | None, str]:
    """In shared mode, every image occurs at least k times."""
    mode, k = contents.manifest.get("mode"), contents.manifest.get("k")
    if mode == "per_photo":
        return None, "no k-anonymity is claimed: each image follows one photo"
    if mode != "shared":
        return False, "no claim to check without a valid manifest"
    counts = Counter(contents.digests.values())
    few = [count for count in counts.values() if count < k]
    if few or not counts:
        return False, (
            f"{len(few)} of {len(counts)} images are shared by fewer than k = {k} people (as few as "
            f"{min(few, default=0)})"
        )
    return True, f"each of {len(counts)} images occurs at least {min(counts.values())} times (k = {k})"
