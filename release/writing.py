"""Write a release folder, and its ledger to a private location.

The ledger records which file each person got. It is a re-identification key: it is written outside the release,
readable only by its owner, and whoever is responsible for the photos keeps or destroys it.

Both are prepared in a hidden folder beside the ledger, then renamed: first the release, then the ledger.
`clean_up` finishes what an interruption left between the two, and removes the rest.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

import detection
import utils
from checks import Choice, ParameterError, check, check_labels, check_number
from datasets import Faces
from release import layout
from release.earlier import warn_of_composition
from release.png import IMAGE_PIXELS, PNGFiles, encode_png

#: Start of the names of unfinished files and folders.
_PARTIAL = ".partial-"
#: Name of an unfinished ledger in its folder.
_PENDING = "pending-ledger.json"


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
    shown: Mapping[int, Sequence[Mapping]] | None = None,
    earlier: Sequence[tuple[str | Path, str | Path]] = (),
    mark: bool = False,
) -> dict:
    """Write anonymized images to a folder that can be shared, and the ledger to a private location.

    File names come from the system's source of randomness: with a seed, anyone who knew it could reproduce them.

    Parameters
    ----------
    folder : str or Path
        The release: a new or empty folder. It appears only once everything is written.
    faces : Faces
        The n photos that were anonymized.
    images : sequence of c uint8 arrays (h, w, 3)
    labels : ndarray of int, shape (n,)
        The image that each photo got, 0 to c - 1; -1 for none.
    mode : str
        ``"shared"``: one file per person, identical for all who share an image. ``"per_photo"``: one file per photo,
        without k-anonymity.
    ledger : str or Path
        A new file outside the release: JSON with the outcome of each photo, mode 0600.
    k : int, optional
        The claimed k in ``"shared"`` mode, at least 2; by default the largest valid one. None in ``"per_photo"`` mode.
    suppressed, failed : mapping of int to str, optional
        Row -> reason. Every photo without an image must be in exactly one of the two.
    shown : mapping of int to sequence of mappings, optional
        Row -> the faces on its image, for the ledger: each with ``box`` (left, top, right, bottom in pixels of the
        image) and ``outcome``. With them, the audit finds faces that the run missed.
    earlier : sequence of (path, path)
        Folder and ledger of each earlier shared release of these people. A warning says if all releases together may
        tell people apart; `earlier_partition` returns the clusters to use again.
    mark : bool, default False
        Mark every file as synthetic, for programs: IPTC's digital source type "compositeSynthetic" in an XMP packet.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    ValueError
        If arguments do not match: a label or a reason is missing, fewer than k people share an image, a person in a
        ``"shared"`` release has several images, an image is one of the photos, or the ledger is inside the release.
        Nothing is written then.
    FileExistsError
        If the folder is not empty, or the ledger already exists (it may be the only key to an older release).
    FileNotFoundError
        If a parent folder is missing.
    """
    folder, ledger = Path(folder).absolute(), Path(ledger).absolute()
    check("mode", mode, Choice(layout.MODES))
    if len(images) == 0:
        raise ParameterError("images must hold at least one image, got none")
    labels = check_labels(labels, len(faces), n_clusters=len(images), unassigned=True)
    reasons = _reasons(labels, suppressed or {}, failed or {})
    if mode == "shared":
        k = check_k(k, labels, faces.identities)
        warn_of_composition(faces, labels, earlier)
    else:
        _check_per_photo(k, labels)
    _check_images(faces, images)
    _check_places(folder, ledger)
    files, outcomes = _assign_names(mode, faces, labels, reasons)
    for row, on_image in (shown or {}).items():
        outcomes[row]["faces"] = [{"box": face["box"], "outcome": face["outcome"]} for face in on_image]
    head = {"version": layout.VERSION, "mode": mode, "k": k}
    private = {"format": "AnonFACES ledger", **head, "photos": outcomes}
    with ExitStack() as stack:
        private_place, place = _hidden_places(stack, folder, ledger)
        parts, pending = place / "release", private_place / _PENDING
        parts.mkdir(mode=0o755)
        digests = {}
        for name in sorted(files):  # the names are random, so their order says nothing about people
            is_encoded = isinstance(images, PNGFiles) and not mark
            number = files[name]
            data = images.paths[number].read_bytes() if is_encoded else encode_png(images[number], mark=mark)
            (parts / name).write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
        counts = {"n_files": len(files), "n_images": len(set(digests.values()))}
        manifest = {"format": layout.FORMAT, **head, **counts, "files": digests}
        (parts / layout.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        for path in parts.iterdir():
            path.chmod(0o644)
            os.utime(path, (layout.FILE_TIME, layout.FILE_TIME))
        parts.chmod(0o755)
        os.utime(parts, (layout.FILE_TIME, layout.FILE_TIME))
        utils.save_atomic(pending, lambda file: file.write(json.dumps(private, indent=1).encode()))
        if folder.exists():
            folder.rmdir()
        try:
            parts.rename(folder)
            pending.rename(ledger)
        except BaseException:
            if not parts.exists() and pending.exists():  # no release without its ledger
                folder.rename(parts)
            raise
    return manifest


def _hidden_places(stack: ExitStack, folder: Path, ledger: Path) -> tuple[Path, Path]:
    """Make the folders for the unfinished ledger and release: one beside the ledger, if its file system is the same."""

    def make(beside: Path, name: str) -> Path:
        prefix = f"{_PARTIAL}{name[:80]}-"
        return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=beside, prefix=prefix)))

    private_place = make(ledger.parent, ledger.stem)
    if ledger.parent.stat().st_dev == folder.parent.stat().st_dev:
        return private_place, private_place
    return private_place, make(folder.parent, folder.name)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a private folder for one run; it is made if missing, and removed if it stays empty.

    Raises
    ------
    ValueError
        If another run holds it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)  # the lock ends with the process, even if that is killed
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ParameterError(f"another run is using {folder}; wait until it is done") from error
        try:
            yield
        finally:
            if not any(folder.iterdir()):
                folder.rmdir()
    finally:
        os.close(handle)


def clean_up(folder: Path, ledger: Path) -> None:
    """Finish or remove what an interrupted run left of a release and its private files.

    A release that was written without its ledger gets it. All other unfinished files are removed. Call it only while
    the ledger's folder is locked.
    """
    folder, ledger = folder.absolute(), ledger.absolute()
    for pending in _partial(ledger.parent, ledger.stem, f"*/{_PENDING}"):
        if not os.path.lexists(ledger) and _files_of(pending) == _files_in(folder) is not None:
            pending.rename(ledger)
    for path in [*_partial(ledger.parent, ledger.stem), *_partial(folder.parent, folder.name, "-????????")]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _partial(beside: Path, name: str, end: str = "*") -> list[Path]:
    return list(beside.glob(f"{_PARTIAL}{glob.escape(name[:80])}{end}"))


def _files_of(ledger: Path) -> set[str] | None:
    """The files that a ledger names; None if it cannot be read."""
    try:
        return {photo["file"] for photo in utils.parse_json(ledger.read_bytes())["photos"]} - {None}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files_in(folder: Path) -> set[str] | None:
    """The files that the manifest of a release names; None without a manifest."""
    try:
        return set(utils.parse_json((folder / layout.MANIFEST).read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_images(faces: Faces, images: Sequence[np.ndarray]) -> None:
    """Raise if an image is none, too large, or one of the photos."""
    photos = {pixel_key(image) for part in (faces, faces.others) if part is not None for image in part.images}
    passed = []
    for number, image in enumerate(images):
        detection.check_image(image)
        height, width = image.shape[:2]
        if height * width > IMAGE_PIXELS:
            raise ParameterError(f"images must have at most {IMAGE_PIXELS} pixels, got {height}x{width}")
        if pixel_key(image) in photos:
            passed.append(number)
    if passed:
        raise ParameterError(
            f"{len(passed)} images are unchanged photos (first: image {passed[0]}); anonymize or suppress them"
        )


def _reasons(
    labels: np.ndarray, suppressed: Mapping[int, str], failed: Mapping[int, str]
) -> dict[int, tuple[str, str]]:
    """Outcome and reason of each row without an image."""
    reasons = {int(row): ("suppressed", str(why)) for row, why in suppressed.items()}
    n_twice = len(reasons.keys() & {int(row) for row in failed})
    reasons |= {int(row): ("failed", str(why)) for row, why in failed.items()}
    without = set(np.flatnonzero(labels < 0).tolist())
    if n_twice or reasons.keys() != without:
        raise ParameterError(
            f"`suppressed` and `failed` must name each photo without an image once: {len(without)} photos have no "
            f"image, {len(reasons)} have a reason, {n_twice} have two"
        )
    return reasons


def _check_per_photo(k: int | None, labels: np.ndarray) -> None:
    if k is not None:
        raise ParameterError(f"k must be None in per_photo mode, which is not k-anonymous, got {k!r}")
    if (np.bincount(labels[labels >= 0]) > 1).any():
        raise ParameterError("labels must give each photo an image of its own; mode='shared' shares images")


def check_k(k: int | None, labels: np.ndarray, identities: np.ndarray) -> int:
    """Return the claimed k of a shared release; raise if a person has several images or an image has too few people."""
    if k is not None:
        check_number("k", k, int, at_least=2)
    people = [set(identities[labels == label].tolist()) for label in range(labels.max() + 1)]
    if sum(map(len, people)) != len(set().union(*people)):
        raise ParameterError(
            "labels must give each person one image: several would link the clusters; give the partition "
            "identities=faces.identities"
        )
    smallest = min(map(len, people))
    if smallest < (k or 2):
        raise ParameterError(
            f"at least {k or 2} people must share each image, but one is shared by {smallest}; suppress its photos"
        )
    return int(k or smallest)


def pixel_key(image: np.ndarray) -> bytes:
    """Hash of an image's size and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()


def _check_places(folder: Path, ledger: Path) -> None:
    for path in (folder, ledger):
        if not path.parent.is_dir():
            raise FileNotFoundError(f"the folder {path.parent} does not exist; create it first")
    if ledger.resolve().is_relative_to(folder.resolve()):
        raise ParameterError(f"{ledger}: the ledger identifies people and must not be inside the release")
    if os.path.lexists(ledger):
        raise FileExistsError(f"{ledger} exists, maybe the only key to an older release; choose another name")
    is_new = not os.path.lexists(folder)
    if not is_new and (folder.is_symlink() or not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder; choose a new one for the release")


def _assign_names(
    mode: str, faces: Faces, labels: np.ndarray, reasons: dict[int, tuple[str, str]]
) -> tuple[dict[str, int], list[dict]]:
    """Draw random names: file name -> image number, and the outcome of each photo for the ledger."""
    owners = faces.identities if mode == "shared" else np.arange(len(faces))
    named, files, outcomes = {}, {}, []
    for row, (owner, label) in enumerate(zip(owners.tolist(), labels.tolist(), strict=True)):
        outcome, reason = reasons.get(row, ("anonymized", ""))
        name = None
        if label >= 0:
            name = named.setdefault(owner, secrets.token_hex(layout.NAME_BYTES) + ".png")
            files[name] = label
        photo = {"photo": str(faces.names[row]), "identity": str(faces.identities[row])}
        outcomes.append({**photo, "outcome": outcome, "file": name, "reason": reason})
    return files, outcomes
