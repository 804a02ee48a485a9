"""Plan a release: group faces into people, partition the people, and make surrogates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

import anonymizer
import detection
import embedding
import partitioning
import utils
from datasets import Faces
from detection import Spot
from release import lending
from release.gathering import FoundFaces, Photo, gather_faces
from release.options import FolderOptions
from release.people import doubtful_pairs, group_people

#: Two people closer than this multiple of the joining distance may be one person.
_DOUBT = 1.2


@dataclass(frozen=True, eq=False)
class Surrogate:
    """The face of one cluster, uint8 (h, w, 3), and its landmarks (68, 2), or None if no face was found in it."""

    image: np.ndarray
    landmarks: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Plan:
    """Which surrogate each face gets.

    Attributes
    ----------
    photos : sequence of Photo
        All photos in the folder.
    found : FoundFaces or None
        The faces that can be replaced, with people as identities; None if there are none.
    model : anonymizer.Anonymizer or None
        None if nothing can be replaced.
    labels : ndarray of int, shape (n,), or None
        The cluster of each face; None if there are too few people, or the method needs no clusters.
    surrogates : list of Surrogate
        One per cluster.
    n_doubtful : int
        Number of pairs of people who may be one person.
    """

    photos: Sequence[Photo]
    found: FoundFaces | None = None
    model: anonymizer.Anonymizer | None = None
    labels: np.ndarray | None = None
    surrogates: list[Surrogate] = field(default_factory=list)
    n_doubtful: int = 0

    @property
    def n_people(self) -> int:
        """Number of people that were told apart."""
        return 0 if self.found is None else self.found.faces.n_people

    @cached_property
    def _rows(self) -> dict[tuple[int, int], int]:
        """Row of each replaceable face, by photo and place."""
        if self.found is None:
            return {}
        places = zip(self.found.photo.tolist(), self.found.place.tolist(), strict=True)
        return {place: row for row, place in enumerate(places)}

    def faces_on(self, number: int) -> Iterator[tuple[Spot, int | None]]:
        """Yield the faces in photo `number`, each with its row in `found`, or None if it cannot be replaced."""
        for place, spot in enumerate(self.photos[number].spots):
            yield spot, self._rows.get((number, place))


def make_plan(options: FolderOptions, photos: Sequence[Photo]) -> Plan:
    """Group faces into people, partition the people, and make the surrogates."""
    found = gather_faces(photos)
    if found is None:
        return Plan(photos)
    descriptors = embedding.embed(found.faces, options.embedding)
    folders = _folders(options, photos, found) if options.people == "folders" else None
    identities = group_people(descriptors, options.same_person, folders)
    faces = Faces.of(found.faces.images, identities, found.faces.names, source="photos")
    found = FoundFaces(faces, found.photo, found.place)
    n_doubtful = doubtful_pairs(descriptors, identities, _DOUBT * options.same_person)
    if options.k_anonymous and faces.n_people < options.k:
        return Plan(photos, found, n_doubtful=n_doubtful)
    model = anonymizer.load(options.method, faces, **options.method_options)
    if not options.k_anonymous:
        return Plan(photos, found, model, n_doubtful=n_doubtful)
    partition = partitioning.PARTITIONERS[options.partitioner]
    labels = partition(descriptors, options.k, identities=identities, random_state=options.seed)
    if options.mode == "per_photo":
        mixed = lending.lenders(labels, identities, descriptors, lending.clearness(faces), options.k)
    else:
        mixed = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    images = [model.surrogate(rows) for rows in utils.progress(mixed, "making surrogates")]
    surrogates = [_with_landmarks(image) for image in images]
    return Plan(photos, found, model, labels, surrogates, n_doubtful)


def _with_landmarks(image: np.ndarray) -> Surrogate:
    there = detection.detect([image])
    return Surrogate(image, there.landmarks[0] if there.found[0] else None)


def _folders(options: FolderOptions, photos: Sequence[Photo], found: FoundFaces) -> list[str | None]:
    """The name of the photo's sub-folder for its largest face, None for its other faces."""
    names = []
    for i, j in zip(found.photo, found.place, strict=True):
        heights = [spot.box[3] - spot.box[1] for spot in photos[i].spots]
        folder = photos[i].path.relative_to(options.folder).parts[0]
        names.append(folder if j == int(np.argmax(heights)) else None)
    return names
