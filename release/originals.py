"""Compare a release with the original photos: does it contain copies, and whom can an attacker identify?"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

import detection
from datasets import Faces
from release.files import Contents, listed
from release.journal import KEPT
from release.ledger import Ledger
from release.recognition import Recognisers
from release.structure import Held
from release.writing import pixel_key


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
    def recognisers(self) -> Recognisers:
        """With the descriptors of the photos."""
        return Recognisers(self.parts)

    @cached_property
    def recognised(self) -> np.ndarray:
        """Whether anyone is recognised in each image: bool (c,)."""
        return self.recognisers.recognise(self.images, self.contents.manifest.get("k") or 2)


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
    known = {pixel_key(photo) for photo in compared.photos}
    held = Held(compared.photos, detection.detect(compared.photos), compared.identities)
    copied = {
        "pixels": np.array([pixel_key(image) in known for image in compared.images]),
        "structure": np.array([held.shown_in(image, compared.shared) for image in compared.images]),
        "recognition": compared.recognised,
    }
    suspects = np.any(list(copied.values()), axis=0)
    if not suspects.any():
        return True, f"none of {len(suspects)} images is an original photo or a changed copy of one{kept}"
    files = [name for name, suspect in zip(compared.names, suspects, strict=True) if suspect]
    how = ", ".join(f"{np.sum(flags)} by {what}" for what, flags in copied.items())
    return False, (
        f"{len(files)} of {len(suspects)} images ({how}) are original photos or changed copies, or show a person more "
        f"clearly than a surrogate can: {listed(files)}{kept}"
    )


def check_people(compared: Comparison) -> tuple[bool, str]:
    """In shared mode there are no more files than people, and no name is computed from a person or a photo."""
    files, n_people = compared.contents.digests, len(np.unique(compared.identities))
    words = [str(word) for part in compared.parts for word in (*part.identities, *part.names)]
    guesser = compared.contents.guesser
    made = guesser.from_words(words) | guesser.computed(photo.tobytes() for photo in compared.photos)
    if made:
        return False, f"{len(made)} names are digests of people's or photos' names or contents"
    if compared.shared and len(files) > n_people:
        return False, f"{len(files)} files for only {n_people} people: copies were added"
    return True, f"{len(files)} files, {n_people} people"


def check_attack(compared: Comparison) -> tuple[bool | None, str]:
    """Attack each image: name the person in the nearest photo.

    A surrogate resembles those whom it mixes, so an attacker names more people than chance also in a well-made release.
    The check fails if an image that follows one photo resembles a person more than surrogates of two people do.
    """
    if not compared.images:
        return None, "not attacked: every face was kept on request"
    n_clear, name = int(compared.recognised.sum()), compared.recognisers.strongest
    detail = (
        f"by {name}, {n_clear} of {len(compared.images)} images resemble one person more than surrogates do"
    )
    if compared.owners is not None:
        behind: dict[str, set[str]] = {}
        for name, people in compared.owners.items():
            behind.setdefault(compared.contents.digests.get(name, ""), set()).update(people)
        own = [behind.get(compared.contents.digests[name], set()) for name in compared.names]
        nearest = compared.recognisers.nearest(compared.images)
        n_right = sum(person in people for person, people in zip(nearest, own, strict=True))
        what = "one of its people" if compared.shared else "the right person"
        detail += f"; by the ledger, the nearest photo shows {what} for {n_right} of {len(own)}"
    if compared.shared:
        return None, detail + "; it leads to a cluster, not to a person in it"
    return n_clear == 0, detail + "; attackers who learn from such images find more, see `attacks`"
