"""Compare a release with the original photos: does it contain copies, and whom can an attacker identify?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import scipy

import detection
import embedding
from datasets import Faces
from release import copies
from release.files import Contents, guessable_names, listed
from release.journal import KEPT
from release.ledger import Ledger

#: An image counts as a copy if dlib's descriptor is closer to a photo's than this. On the built-in faces, compressed,
#: cropped, brightened or mirrored photos are at most 0.26 away, surrogates of two people at least 0.28.
_NEAR_DISTANCE = 0.25

#: The attack names a stranger for this share of images; more names than chance predicts at this rate are a finding.
_FALSE_NAMES = 0.01


class Comparison:
    """The distinct images of a release, and all original photos.

    Faces that were kept on request are originals. They are painted over before images are compared, and images that
    were kept whole are left out.

    Parameters
    ----------
    contents : release.files.Contents
    originals : Faces
        The photos that were anonymized, including `others`.
    ledger : Ledger or None

    Attributes
    ----------
    names : list of c str
        One file per image.
    images : list of c uint8 arrays
    photos : list of g uint8 arrays
    identities : ndarray of str, shape (g,)
    n_kept_whole : int
        Number of images left out, because all their faces were kept on request.
    """

    def __init__(self, contents: Contents, originals: Faces, ledger: Ledger | None):
        file_of = {digest: name for name, digest in contents.digests.items()}
        self.contents, self.owners = contents, None if ledger is None else ledger.people
        self.parts = [part for part in (originals, originals.others) if part is not None]
        self.names, self.images = [], []
        for digest, image in contents.images.items():
            name = file_of[digest]
            kept = [] if ledger is None else ledger.outcome_boxes(name, KEPT)
            if not kept or len(kept) < len(ledger.faces[name]):
                self.names.append(name)
                self.images.append(_without(image, kept))
        self.n_kept_whole = len(contents.images) - len(self.images)
        self.photos = [image for part in self.parts for image in part.images]
        self.identities = np.concatenate([part.identities for part in self.parts])

    @property
    def shared(self) -> bool:
        """Whether several people share an image."""
        return self.contents.manifest.get("mode") == "shared"

    @cached_property
    def found(self) -> np.ndarray:
        """Whether the detector finds a face in each image: bool (c,)."""
        return detection.detect(self.images).found

    @cached_property
    def descriptors(self) -> np.ndarray:
        """Descriptors of the photos by dlib: float32 (g, 128)."""
        return np.concatenate([embedding.embed(part, "dlib") for part in self.parts])

    @cached_property
    def distances(self) -> np.ndarray:
        """Distances between the descriptors of images and photos: (c, g)."""
        drawn = embedding.embed(self.images, "dlib")
        return np.stack([np.linalg.norm(self.descriptors - row, axis=1) for row in drawn])

    @property
    def near(self) -> np.ndarray:
        """Whether dlib matches the face in each image to an original photo: bool (c,)."""
        return self.found & (self.distances.min(axis=1) < _NEAR_DISTANCE)


def _without(image: np.ndarray, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Paint boxes in an image grey."""
    result = image.copy() if boxes else image
    for box in boxes:
        left, top, right, bottom = (max(0, round(side)) for side in box)
        result[top:bottom, left:right] = 127
    return result


def check_copies(compared: Comparison) -> tuple[bool | None, str]:
    """No image is an original photo or a changed copy of one, kept faces aside."""
    kept = (
        f"; {compared.n_kept_whole} images show only faces kept on request" if compared.n_kept_whole else ""
    )
    if not compared.images:
        return None, f"not compared{kept}"
    landmarks = np.concatenate([detection.detect(part).landmarks for part in compared.parts])
    copied = {
        "pixels": copies.same_pixels(compared.images, compared.photos),
        "structure": copies.same_structure(compared.images, compared.photos, landmarks),
        "dlib's descriptor": compared.near,
        "keypoints": copies.same_keypoints(compared.images, compared.photos),
    }
    skipped = kept
    if copied["keypoints"] is None:
        copied["keypoints"] = np.zeros(len(compared.images), dtype=bool)
        skipped += "; keypoints were not compared, as there are too many pairs"
    suspects = np.any(list(copied.values()), axis=0)
    if not suspects.any():
        return True, f"none of {len(suspects)} images is an original photo or a changed copy of one{skipped}"
    files = [name for name, suspect in zip(compared.names, suspects, strict=True) if suspect]
    how = ", ".join(f"{np.sum(flags)} by {what}" for what, flags in copied.items())
    return False, (
        f"{len(files)} of {len(suspects)} images ({how}) are original photos or changed copies: "
        f"{listed(files)}{skipped}"
    )


def check_people(compared: Comparison) -> tuple[bool, str]:
    """In shared mode there are no more files than people, and no name is computed from a person or a photo."""
    files, n_people = compared.contents.digests, len(np.unique(compared.identities))
    words = {str(word) for part in compared.parts for word in (*part.identities, *part.names)}
    words |= {Path(word).stem for word in words} | {Path(word).name for word in words}
    known = [*(word.encode() for word in words), *(photo.tobytes() for photo in compared.photos)]
    made = set().union(*map(guessable_names, known)) & {name[:-4] for name in files}
    if made:
        return False, f"{len(made)} names are digests of people's or photos' names or contents"
    if compared.shared and len(files) > n_people:
        return False, f"{len(files)} files for only {n_people} people: copies were added"
    return True, f"{len(files)} files, {n_people} people"


def check_attack(compared: Comparison) -> tuple[bool | None, str]:
    """Attack each image: name the person in the nearest photo, if it is nearer than strangers usually are."""
    if not compared.images:
        return None, "not attacked: every face was kept on request"
    threshold = _naming_threshold(compared.descriptors, compared.identities)
    named = compared.found & (compared.distances.min(axis=1) < threshold)
    most = int(scipy.stats.binom.ppf(0.99, len(named), _FALSE_NAMES))
    detail = (
        f"an attacker with the originals and dlib's descriptor names a person in {named.sum()} of {len(named)} images, "
        f"where chance gives at most {most}; no face was found in {(~compared.found).sum()} images"
    )
    if compared.owners is not None:
        behind: dict[str, set[str]] = {}
        for name, people in compared.owners.items():
            behind.setdefault(compared.contents.digests.get(name, ""), set()).update(people)
        own = [behind.get(compared.contents.digests[name], set()) for name in compared.names]
        nearest = compared.identities[compared.distances.argmin(axis=1)]
        n_right = sum(person in people for person, people in zip(nearest, own, strict=True))
        what = "one of its people" if compared.shared else "the right person"
        detail += f"; by the ledger, the nearest photo shows {what} for {n_right} of {len(own)}"
    if compared.shared:
        return None, detail + "; it leads to a cluster, not to a person in it"
    detail += "; attackers who learn from such images find more, see `attacks`"
    return bool(named.sum() <= most), detail


def _naming_threshold(descriptors: np.ndarray, identities: np.ndarray) -> float:
    """Distance below which 1 % of the photos match a stranger's photo; 0 for a single person."""
    nearest = [
        np.linalg.norm(descriptors[identities != person] - row, axis=1).min(initial=np.inf)
        for row, person in zip(descriptors, identities, strict=True)
    ]
    return float(np.quantile(nearest, _FALSE_NAMES)) if np.isfinite(nearest).all() else 0.0
