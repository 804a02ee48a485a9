"""Replace the faces in photos: decide on each face, and write the files.

Every face is replaced, filtered, blurred out with a reason, or kept because the user asked for it. The result is
searched again, and faces that only this search finds are blurred out, too. Finished photos stay in a private folder
until all are done; then `release.writing` writes the release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

import detection
import utils
from datasets import Faces
from detection import Spot
from release import gate, pasting
from release.gathering import ChangedError, Photo
from release.journal import BLURRED, DAMAGED, FAILED, FILTERED, KEPT, REPLACED, SUPPRESSED, WRITTEN, Journal
from release.options import FolderOptions
from release.planning import Plan, Surrogate
from release.png import encode_png
from release.review import doubts
from release.searching import SearchError, check_detector, in_words, search, search_boxes, unexplained
from release.writing import FinishedFiles, write_release

#: Reasons.
_NO_FACE, _TOO_FEW, _SHARED_ONLY = "no face was found", "fewer than k people", "shared mode writes no photos"
_FACELESS_SURROGATE = "no face was found on the surrogate"
_NOT_PASTED = "the surrogate does not fit this face"
_NOT_DESCRIBED = "the face cannot be described"
_FOUND_LATER = "found only on the result"
_LEFT_OUT = "a person to keep takes no part"

#: Number of times that a result is searched; a photo on which faces are still found then is not released.
_SEARCHES = 5


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
    distance : float, optional
        To the nearest person of ``--keep`` or ``--only``.
    """

    spot: Spot
    outcome: str
    reason: str = ""
    person: str | None = None
    cluster: int | None = None
    surrogate: Surrogate | None = None
    filtered: np.ndarray | None = None
    distance: float | None = None

    def record(self, scale: float = 1.0) -> dict:
        """The face's entry in the journal; the image is `scale` times as large as the photo."""
        box, image_box = ([round(float(side) * s, 1) for side in self.spot.box] for s in (1.0, scale))
        who = {"person": self.person, "cluster": self.cluster, "distance": self.distance}
        outcome = {"outcome": self.outcome, "reason": self.reason, "doubts": doubts(self.spot)}
        return {"box": box, "image_box": image_box, **who, **outcome}


def _edits(plan: Plan, number: int, mode: str) -> Iterator[_FaceEdit]:
    """Decide what happens to each face in photo `number`."""
    hidden = BLURRED if mode == "per_photo" else SUPPRESSED
    for spot, row in plan.faces_on(number):
        if row is None:
            yield _FaceEdit(spot, hidden, spot.reason or _NOT_DESCRIBED)
            continue
        distance = None if plan.distances is None else round(float(plan.distances[row]), 3)
        edit = _FaceEdit(spot, hidden, person=str(plan.found.faces.identities[row]), distance=distance)
        if plan.kept[row]:
            yield replace(edit, outcome=KEPT) if mode == "per_photo" else replace(edit, reason=_LEFT_OUT)
        elif plan.is_empty:
            yield replace(edit, reason=_TOO_FEW)
        elif row in plan.faults:
            yield replace(edit, reason=plan.faults[row])
        elif plan.labels is None:
            yield replace(edit, outcome=FILTERED, filtered=plan.face_filter.apply(row))
        elif plan.labels[row] < 0:
            yield replace(edit, reason=_LEFT_OUT)
        else:
            cluster = int(plan.labels[row])
            surrogate = plan.surrogates[cluster]
            edit = replace(edit, cluster=cluster)
            if mode == "per_photo" and surrogate.landmarks is None:
                yield replace(edit, reason=_FACELESS_SURROGATE)
            else:
                yield replace(edit, outcome=REPLACED, surrogate=surrogate)


def _why_not_written(options: FolderOptions, plan: Plan, number: int) -> tuple[str, str]:
    """Status and reason of a photo that is not written in per_photo mode; empty if it is."""
    photo = plan.photos[number]
    if photo.damage:
        return DAMAGED, photo.damage
    if photo.failure:
        return FAILED, photo.failure
    if not photo.spots and not options.keep_faceless:
        return SUPPRESSED, _NO_FACE
    hidden = any(row is not None and not plan.kept[row] for _, row in plan.faces_on(number))
    return (SUPPRESSED, _TOO_FEW) if plan.is_empty and hidden else ("", "")


# ----------------------------------------------------------------------------------------------------------
# per_photo mode: surrogates are pasted into the photos
# ----------------------------------------------------------------------------------------------------------


def _make_photo(
    photo: Photo, target: Path, source: str, decided: Sequence[_FaceEdit], largest_side: int
) -> dict:
    """Replace all faces in one photo, and write it; any error fails this photo alone.

    Parameters
    ----------
    photo : Photo
    target : Path
        The file to write.
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
    try:
        image, faces = _replace_faces(photo, decided, largest_side)
        data = encode_png(image)
        utils.save_atomic(target, lambda file: file.write(data))
    except Exception as error:
        target.unlink(missing_ok=True)
        expected = isinstance(error, SearchError | ChangedError | StillVisibleError)
        reason = str(error) if expected else f"its faces could not be replaced ({in_words(error)})"
        return {"source": source, "status": FAILED, "reason": reason, "faces": []}
    digest = hashlib.sha256(data).hexdigest()
    return {"source": source, "status": WRITTEN, "reason": "", "faces": faces, "sha256": digest}


class StillVisibleError(RuntimeError):
    """A face that counts as hidden can still be seen."""


def _replace_faces(
    photo: Photo, decided: Sequence[_FaceEdit], largest_side: int
) -> tuple[np.ndarray, list[dict]]:
    """Make the image that is released, uint8 (h, w, 3), and the records of its faces."""
    image, edits = photo.read(), list(decided)
    scale = min(1.0, largest_side / max(image.shape[:2]))
    original = image = detection.resize(image, scale)
    if not decided:  # nothing else shows that the detector works on this photo
        check_detector(image)
    placed = [replace(edit, spot=edit.spot.scaled(scale)) for edit in decided]
    for i, edit in enumerate(placed):
        if edit.outcome in (FILTERED, REPLACED):
            edited = _apply(image, edit, placed)
            if gate.is_left(image, edited, edit.spot.box, edit.outcome):
                edits[i] = replace(edits[i], outcome=BLURRED, reason=_NOT_PASTED)
            else:
                image = edited
    for edit, place in zip(edits, placed, strict=True):  # last, so that no other edit restores what they hide
        if edit.outcome == BLURRED:
            image = pasting.blur_out(image, place.spot.box, place.spot.landmarks)
    faces = [edit.record(scale) for edit in edits]
    image = _blur_the_rest(image, faces, scale)
    for face in _shown(faces):
        if face["outcome"] != KEPT and gate.is_left(original, image, face["box"], face["outcome"]):
            raise StillVisibleError(f"a face that should be {face['outcome']} can still be seen")
    return image, faces


def _apply(image: np.ndarray, edit: _FaceEdit, decided: Sequence[_FaceEdit]) -> np.ndarray:
    """Replace or filter one face; return the image itself if that fails."""
    spot, surrogate = edit.spot, edit.surrogate
    if edit.outcome == FILTERED:
        return pasting.put_back(image, spot.landmarks, edit.filtered, spot.transform)
    others = [_extent(other) for other in decided if other is not edit]
    try:
        return pasting.paste(image, spot.landmarks, surrogate.image, surrogate.landmarks, others)
    except (cv2.error, ArithmeticError, ValueError):
        return image


def _blur_the_rest(image: np.ndarray, faces: list[dict], scale: float) -> np.ndarray:
    """Search the result, as thoroughly as the audit does, and blur out faces that no edit explains.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    faces : list of dict
        The records of the edits; those of further faces are added.
    scale : float
        The image is this many times as large as the photo.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)

    Raises
    ------
    SearchError
        If the search fails, or still finds such faces after `_SEARCHES` searches.
    """
    for _ in range(_SEARCHES):
        if not unexplained(search_boxes(image), _shown(faces)):
            return image
        spots = search(image)
        rest = unexplained([spot.box for spot in spots], _shown(faces))
        for spot in [spots[i] for i in rest]:
            image = pasting.blur_out(image, spot.box, spot.landmarks)
            in_photo = replace(spot, box=spot.box / scale)
            faces.append(_FaceEdit(in_photo, BLURRED, _FOUND_LATER).record(scale))
    raise SearchError(f"faces were still found on the result after {_SEARCHES} searches")


def _shown(faces: Sequence[dict]) -> list[dict]:
    """The faces on an image, as the ledger records them."""
    return [{"box": face["image_box"], "outcome": face["outcome"]} for face in faces]


def _extent(edit: _FaceEdit) -> np.ndarray:
    """Points on a face that must not move when another face is pasted: (m, 2)."""
    if edit.outcome == BLURRED:
        return np.vstack([np.reshape(edit.spot.box, (2, 2)), edit.spot.landmarks])
    return edit.spot.landmarks


def _make_photos(options: FolderOptions, journal: Journal, plan: Plan) -> None:
    """Write all unfinished photos, and record each."""
    options.work.mkdir(mode=0o700, exist_ok=True)

    def note(record: dict) -> None:
        journal.add(record)
        if options.verbose:
            print(f"{record['source']}: {record['status']} {record['reason']}".rstrip())

    todo = []
    for number, photo in enumerate(plan.photos):
        source, (status, reason) = options.name_of(photo.path), _why_not_written(options, plan, number)
        if not reason and not journal.finished(source, options.finished_file(number)):
            todo.append(number)
        elif reason and journal.done.get(source, {}).get("status") != status:
            note({"source": source, "status": status, "reason": reason, "faces": []})
    import joblib  # slow to import

    tasks = (joblib.delayed(_make_photo)(*_arguments(options, plan, number)) for number in todo)
    records = utils.run_parallel(tasks, options.workers)

    for record in utils.progress(records, "replacing faces", total=len(todo)):
        note(record)


def _arguments(options: FolderOptions, plan: Plan, number: int) -> tuple:
    """Arguments of `_make_photo`: everything that a worker process needs."""
    photo, edits = plan.photos[number], _edits(plan, number, options.mode)
    small = [replace(edit, spot=replace(edit.spot, crop=None)) for edit in edits]
    target = options.finished_file(number)
    return replace(photo, spots=()), target, options.name_of(photo.path), small, options.largest_side


def _release_photos(options: FolderOptions, journal: Journal, plan: Plan, videos: Sequence[Path]) -> bool:
    """Write the finished photos and videos to OUT; return whether there were any."""
    names = [options.name_of(path) for path in (*(photo.path for photo in plan.photos), *videos)]
    suffixes = [".png"] * len(plan.photos) + [".mp4"] * len(videos)
    records = [journal.done[name] for name in names]
    written = np.array([record["status"] == WRITTEN for record in records])
    if not written.any():
        return False

    def reasons(*statuses: str) -> dict[int, str]:
        return {i: record["reason"] for i, record in enumerate(records) if record["status"] in statuses}

    # The gate has compared each image with its photo.
    blank = [np.zeros((16, 16, 3), dtype=np.uint8)] * len(names)
    write_release(
        options.out,
        Faces(blank, [f"photo {i}" for i in range(len(names))], names),
        FinishedFiles([options.finished_file(i, suffixes[i]) for i in np.flatnonzero(written)]),
        np.where(written, np.cumsum(written) - 1, -1),
        mode="per_photo",
        ledger=options.ledger,
        suppressed=reasons(SUPPRESSED),
        failed=reasons(DAMAGED, FAILED),
        shown={
            int(i): records[i].get("shown") or _shown(records[i]["faces"]) for i in np.flatnonzero(written)
        },
    )
    return True


# ----------------------------------------------------------------------------------------------------------
# shared mode: only the surrogates are written, one file per person
# ----------------------------------------------------------------------------------------------------------


def _note_surrogates(options: FolderOptions, journal: Journal, plan: Plan) -> None:
    """Record the outcome of the faces in each photo; no photo is written."""
    for number, photo in enumerate(plan.photos):
        status, reason = _why_not_written(options, plan, number)
        faces = [edit.record() for edit in _edits(plan, number, options.mode)]
        faults = [plan.faults[row] for _, row in plan.faces_on(number) if row in plan.faults]
        if faults and not reason:
            status, reason = FAILED, faults[0]
        outcome = {"status": status or SUPPRESSED, "reason": reason or _SHARED_ONLY}
        journal.add({"source": options.name_of(photo.path), **outcome, "faces": faces})


def _release_surrogates(options: FolderOptions, journal: Journal, plan: Plan, videos: Sequence[Path]) -> bool:
    """Write the surrogates to OUT, one file per person; return whether there were any."""
    if not plan.surrogates:
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
        suppressed={row: plan.faults.get(row, _LEFT_OUT) for row in np.flatnonzero(plan.labels < 0).tolist()},
    )
    return True


#: Mode -> two functions: the first, of (options, journal, plan), makes the images; the second, with the videos as
#: fourth argument, writes any to the release.
WRITERS: dict[str, tuple[Callable, Callable]] = {
    "per_photo": (_make_photos, _release_photos),
    "shared": (_note_surrogates, _release_surrogates),
}
