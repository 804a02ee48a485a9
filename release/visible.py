"""The audit checks that compare a release with its ledger: files and people, and the faces on the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from release.files import Contents, listed
from release.ledger import Ledger
from release.png import IMAGE_PIXELS
from release.searching import SearchError, search_boxes, unexplained
from video.searching import CHECKED, FINE
from video.streams import read_frames


def check_ledger(contents: Contents, ledger: Ledger | None) -> tuple[bool | None, str]:
    """The ledger lists exactly the files of the release; in shared mode, at least k people behind each image."""
    if ledger is None:
        return None, "not checked: no ledger was given"
    present, known = set(contents.image_names), set(ledger.people)
    both = ((present - known, "are not in the ledger"), (known - present, "are missing"))
    problems = [f"{len(names)} files {what}: {listed(names)}" for names, what in both if names]
    k = contents.manifest.get("k") or 1
    people: dict[str, set[str]] = {}
    for name, digest in contents.digests.items():
        people.setdefault(digest, set()).update(ledger.people.get(name, ()))
    n_few = sum(len(behind) < k for behind in people.values())
    if n_few:
        problems.append(f"{n_few} images belong to fewer than k = {k} people")
    return not problems, "; ".join(problems) or f"it lists the {len(present)} files"


def _pictures(contents: Contents, file_of: Mapping[str, str]) -> Iterator[tuple[str, int, np.ndarray]]:
    """File, frame and pixels of each image, and of the frames of videos that are searched."""
    for digest, image in contents.images.items():
        yield file_of[digest], 0, image
    for digest, path in contents.videos.items():
        for frame in read_frames(path, largest_side=IMAGE_PIXELS):
            if frame.number % FINE == CHECKED:
                yield file_of[digest], frame.number, frame.image


def check_faces(contents: Contents, ledger: Ledger | None) -> tuple[bool | None, str]:
    """Every face on an image is in the ledger; in shared mode, no image shows several faces."""
    mode = contents.manifest.get("mode")
    if mode is None or not (contents.images or contents.videos):
        return None, "not checked: the release has no valid manifest, or no images"
    if mode == "per_photo" and ledger is None:
        return None, "not checked: no ledger was given"
    if mode == "per_photo" and ledger.faces is None:
        return None, "not checked: the ledger does not record where the faces are"
    file_of = {digest: name for name, digest in contents.digests.items()}
    n_faces, unknown, not_searched = 0, {}, []
    for name, number, image in _pictures(contents, file_of):
        try:
            boxes = search_boxes(image)
        except SearchError:
            not_searched.append(name)
            continue
        n_faces += len(boxes)
        known = {} if ledger is None else ledger.faces or {}
        shown = [face for face in known.get(name, ()) if face["frame"] == number]
        extra = boxes[1:] if mode == "shared" else unexplained(boxes, shown)
        if len(extra):
            unknown[name] = unknown.get(name, 0) + len(extra)
    problems = []
    if unknown:
        what = "that the ledger does not explain" if mode == "per_photo" else "beside the surrogate's"
        problems.append(f"{sum(unknown.values())} faces {what} on {len(unknown)} images: {listed(unknown)}")
    if not_searched:
        problems.append(f"the face detector failed on {len(not_searched)} images: {listed(not_searched)}")
    if problems:
        return False, "; ".join(problems)
    found = f"{n_faces} faces found on {len(contents.images)} images"
    if mode == "shared":
        return True, f"{found}, at most one on each"
    outcomes = Counter(face["outcome"] for name in file_of.values() for face in ledger.faces.get(name, []))
    return True, f"{found}, all in the ledger ({', '.join(f'{n} {word}' for word, n in outcomes.items())})"
