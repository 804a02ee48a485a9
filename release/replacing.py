"""Replace the faces in photos: decide on each face, and write the files.

Every face is replaced, filtered, or blurred out with a reason. Finished photos stay in a private folder until all are
done; then `release.writing` writes the release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import joblib
import numpy as np

import detection
import utils
from datasets import Faces
from datasets.faces import read_image
from detection import Spot
from release import pasting
from release.gathering import Photo
from release.journal import DAMAGED, SUPPRESSED, WRITTEN, Journal
from release.options import FolderOptions
from release.planning import Plan, Surrogate
from release.png import encode_png
from release.writing import write_release

#: Outcome of a face; in shared mode, faces without a surrogate are `SUPPRESSED`.
REPLACED, FILTERED, BLURRED = "replaced", "filtered", "blurred out"
#: Reasons.
_NO_FACE, _TOO_FEW, _SHARED_ONLY = "no face was found", "fewer than k people", "shared mode writes no photos"
_FACELESS_SURROGATE = "no face was found on the surrogate"
_NOT_PASTED = "the surrogate does not fit this face"


@dataclass(frozen=True, eq=False)
class _FaceEdit:
    """What happens to one face.

    Attributes
    ----------
    spot : Spot
    outcome, reason : str
    person : str, optional
    cluster : int, optional
    surrogate : Surrogate, optional
        What replaces it.
    filtered : ndarray of uint8, shape (h, w, 3), optional
        Its crop as changed by a filter.
    """

    spot: Spot
    outcome: str
    reason: str = ""
    person: str | None = None
    cluster: int | None = None
    surrogate: Surrogate | None = None
    filtered: np.ndarray | None = None

    def record(self) -> dict:
        """The face's entry in the journal."""
        box = [round(float(side), 1) for side in self.spot.box]
        outcome = {"outcome": self.outcome, "reason": self.reason}
        return {"box": box, "person": self.person, "cluster": self.cluster, **outcome}


def _edits(plan: Plan, number: int, mode: str) -> Iterator[_FaceEdit]:
    """Decide what happens to each face in photo `number`."""
    hidden = BLURRED if mode == "per_photo" else SUPPRESSED
    for spot, row in plan.faces_on(number):
        if row is None or plan.model is None:
            yield _FaceEdit(spot, hidden, spot.reason or _TOO_FEW)
            continue
        person = str(plan.found.faces.identities[row])
        if plan.labels is None:
            yield _FaceEdit(spot, FILTERED, "", person, filtered=plan.model.apply(row))
            continue
        cluster = int(plan.labels[row])
        surrogate = plan.surrogates[cluster]
        if mode == "per_photo" and surrogate.landmarks is None:
            yield _FaceEdit(spot, BLURRED, _FACELESS_SURROGATE, person, cluster)
        else:
            yield _FaceEdit(spot, REPLACED, "", person, cluster, surrogate)


def _why_not_written(options: FolderOptions, plan: Plan, photo: Photo) -> str:
    """Why a photo is not written in per_photo mode; empty if it is."""
    if photo.damage:
        return photo.damage
    if not photo.spots:
        return "" if options.keep_faceless else _NO_FACE
    return _TOO_FEW if plan.model is None and plan.found is not None else ""


# ----------------------------------------------------------------------------------------------------------
# per_photo mode: surrogates are pasted into the photos
# ----------------------------------------------------------------------------------------------------------


def _make_photo(
    path: Path, target: Path, source: str, decided: Sequence[_FaceEdit], largest_side: int
) -> dict:
    """Replace all faces in one photo, and write it.

    Parameters
    ----------
    path, target : Path
        The photo, and the file to write.
    source : str
        The photo's name in the journal.
    decided : sequence of _FaceEdit
        What to do with each face. A face that cannot be replaced is blurred out instead.
    largest_side : int
        Largest side of the written image, in pixels.

    Returns
    -------
    dict
        The record for the journal.
    """
    image, edits = read_image(path), list(decided)
    scale = min(1.0, largest_side / max(image.shape[:2]))
    image = detection.resize(image, scale)
    spots = [edit.spot.scaled(scale) for edit in edits]
    for i, (edit, spot) in enumerate(zip(edits, spots, strict=True)):
        if edit.outcome == FILTERED:
            image = pasting.put_back(image, spot.landmarks, edit.filtered, spot.transform)
        elif edit.outcome == REPLACED:
            others = [_extent(spots[j], decided[j].outcome) for j in range(len(spots)) if j != i]
            try:
                image = pasting.paste(
                    image, spot.landmarks, edit.surrogate.image, edit.surrogate.landmarks, others
                )
            except (cv2.error, ArithmeticError, ValueError):
                edits[i] = replace(edit, outcome=BLURRED, reason=_NOT_PASTED)
    for edit, spot in zip(edits, spots, strict=True):  # last, so that no other edit restores what they hide
        if edit.outcome == BLURRED:
            image = pasting.blur_out(image, spot.box, spot.landmarks)
    data = encode_png(image)
    utils.save_atomic(target, lambda file: file.write(data))
    faces, digest = [edit.record() for edit in edits], hashlib.sha256(data).hexdigest()
    return {"source": source, "status": WRITTEN, "reason": "", "faces": faces, "sha256": digest}


def _extent(spot: Spot, outcome: str) -> np.ndarray:
    """Points on a face that must not move when another face is pasted: (m, 2)."""
    if outcome == BLURRED:
        return np.vstack([np.reshape(spot.box, (2, 2)), spot.landmarks])
    return spot.landmarks


def _make_photos(options: FolderOptions, journal: Journal, plan: Plan) -> None:
    """Write all unfinished photos, and record each."""
    options.work.mkdir(mode=0o700, exist_ok=True)

    def note(record: dict) -> None:
        journal.add(record)
        if options.verbose:
            print(f"{record['source']}: {record['status']} {record['reason']}".rstrip())

    todo = []
    for number, photo in enumerate(plan.photos):
        source, reason = options.name_of(photo.path), _why_not_written(options, plan, photo)
        status = DAMAGED if photo.damage else SUPPRESSED
        if not reason and not journal.finished(source, options.finished_file(number)):
            todo.append(number)
        elif reason and journal.done.get(source, {}).get("status") != status:
            note({"source": source, "status": status, "reason": reason, "faces": []})
    pool = joblib.Parallel(n_jobs=options.workers, return_as="generator")
    records = pool(joblib.delayed(_make_photo)(*_arguments(options, plan, number)) for number in todo)

    for record in utils.progress(records, "replacing faces", total=len(todo)):
        note(record)


def _arguments(options: FolderOptions, plan: Plan, number: int) -> tuple:
    """Arguments of `_make_photo`: everything that a worker process needs."""
    path, edits = plan.photos[number].path, _edits(plan, number, options.mode)
    small = [replace(edit, spot=replace(edit.spot, crop=None)) for edit in edits]
    return path, options.finished_file(number), options.name_of(path), small, options.largest_side


class _OnDemand(Sequence):
    """Images that are read from their files whenever they are needed; a blank image where there is no file."""

    def __init__(self, paths: Sequence[Path | None]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        path = self.paths[i]
        return np.zeros((16, 16, 3), dtype=np.uint8) if path is None else read_image(path)


def _release_photos(options: FolderOptions, journal: Journal, plan: Plan) -> bool:
    """Write the finished photos to OUT; return whether there were any."""
    names = [options.name_of(photo.path) for photo in plan.photos]
    records = [journal.done[name] for name in names]
    written = np.array([record["status"] == WRITTEN for record in records])
    if not written.any():
        return False

    def reasons(status: str) -> dict[int, str]:
        return {i: record["reason"] for i, record in enumerate(records) if record["status"] == status}

    originals = [photo.path if photo.spots else None for photo in plan.photos]
    write_release(
        options.out,
        Faces(_OnDemand(originals), [f"photo {i}" for i in range(len(names))], names),
        _OnDemand([options.finished_file(i) for i in np.flatnonzero(written)]),
        np.where(written, np.cumsum(written) - 1, -1),
        mode="per_photo",
        ledger=options.ledger,
        suppressed=reasons(SUPPRESSED),
        failed=reasons(DAMAGED),
    )
    return True


# ----------------------------------------------------------------------------------------------------------
# shared mode: only the surrogates are written, one file per person
# ----------------------------------------------------------------------------------------------------------


def _note_surrogates(options: FolderOptions, journal: Journal, plan: Plan) -> None:
    """Record the outcome of the faces in each photo; no photo is written."""
    for number, photo in enumerate(plan.photos):
        reason = photo.damage or _NO_FACE
        if photo.spots:
            reason = _why_not_written(options, plan, photo) or _SHARED_ONLY
        faces = [edit.record() for edit in _edits(plan, number, options.mode)]
        status = DAMAGED if photo.damage else SUPPRESSED
        name = options.name_of(photo.path)
        journal.add({"source": name, "status": status, "reason": reason, "faces": faces})


def _release_surrogates(options: FolderOptions, journal: Journal, plan: Plan) -> bool:
    """Write the surrogates to OUT, one file per person; return whether there were any."""
    if plan.labels is None:
        return False
    places = zip(plan.found.photo, plan.found.place, strict=True)
    names = [f"{options.name_of(plan.photos[i].path)}#{place}" for i, place in places]
    faces = plan.found.faces
    write_release(
        options.out,
        Faces(faces.images, faces.identities, names, source="photos"),
        [surrogate.image for surrogate in plan.surrogates],
        plan.labels,
        mode="shared",
        ledger=options.ledger,
        k=options.k,
    )
    return True


#: Mode -> two functions (options, journal, plan): the first makes the images, the second writes any to the release.
WRITERS: dict[str, tuple[Callable, Callable]] = {
    "per_photo": (_make_photos, _release_photos),
    "shared": (_note_surrogates, _release_surrogates),
}
