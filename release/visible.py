"""The audit check that searches the images of a release for faces."""

from __future__ import annotations

from collections import Counter

from release.files import Contents, listed
from release.ledger import Ledger
from release.searching import SearchError, search_boxes, unexplained


def check_faces(contents: Contents, ledger: Ledger | None) -> tuple[bool | None, str]:
    """Every face on an image is in the ledger; in shared mode, no image shows several faces."""
    mode = contents.manifest.get("mode")
    if mode is None or not contents.images:
        return None, "not checked: the release has no valid manifest, or no images"
    if mode == "per_photo" and ledger is None:
        return None, "not checked: no ledger was given"
    if mode == "per_photo" and ledger.faces is None:
        return None, "not checked: the ledger does not record where the faces are"
    file_of = {digest: name for name, digest in contents.digests.items()}
    n_faces, unknown, not_searched = 0, {}, []
    for digest, image in contents.images.items():
        name = file_of[digest]
        try:
            boxes = search_boxes(image)
        except SearchError:
            not_searched.append(name)
            continue
        n_faces += len(boxes)
        extra = boxes[1:] if mode == "shared" else unexplained(boxes, ledger.faces.get(name, []))
        if len(extra):
            unknown[name] = len(extra)
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
