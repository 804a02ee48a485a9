"""Plan a release: group faces into people, partition the people, and make surrogates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy

import anonymizer
import datasets
import detection
import embedding
import partitioning
import utils
from checks import ParameterError, check_labels
from datasets import Faces
from detection import Spot
from distances import mean_of_groups
from release import gate, lending, references
from release.alike import partition_alike
from release.gathering import FoundFaces, Photo, gather_faces
from release.options import FolderOptions
from release.people import doubtful_pairs, group_people, largest_distances
from release.searching import in_words
from release.writing import check_k

#: Two people closer than this multiple of the joining distance may be one person.
_DOUBT = 1.2

_SINGLE_PHOTO = "the surrogate shows a single photo"
_NOT_NEEDED = "nobody in this run needs the surrogate"


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
    beside : sequence of Photo
        Photos that are not released: those of ``--pool``, and the stills of each track of a video.
    found : FoundFaces or None
        The n faces that can be compared, with people as identities; None if there are none. They are numbered by
        `photos` and then `beside`.
    kept : ndarray of bool, shape (n,)
        Faces that stay as they are, by ``--keep`` or ``--only``.
    members : ndarray of bool, shape (n,)
        Faces that take part in the partition: all but those of people of whom a face is kept.
    distances : ndarray, shape (n,), or None
        Distance of each face to the nearest person of ``--keep`` or ``--only``.
    face_filter : anonymizer.Anonymizer or None
        The method, if it needs no clusters.
    labels : ndarray of int, shape (n,), or None
        The cluster of each face, -1 for none; None if there are too few people, or the method needs no clusters.
    surrogates : list of Surrogate
        One per cluster.
    faults : dict of int to str
        Row -> why the face has no surrogate, though its person takes part.
    spread : dict of str to float
        Largest distance between two faces of each person.
    n_doubtful : int
        Number of pairs of people who may be one person.
    notes : tuple of str
        What to say about the given people and the partition.
    """

    photos: Sequence[Photo]
    beside: Sequence[Photo] = ()
    found: FoundFaces | None = None
    kept: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    members: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    distances: np.ndarray | None = None
    face_filter: anonymizer.Anonymizer | None = None
    labels: np.ndarray | None = None
    surrogates: list[Surrogate] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    n_doubtful: int = 0
    notes: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether no face can be replaced or filtered."""
        return self.face_filter is None and self.labels is None

    @property
    def n_people(self) -> int:
        """Number of people, told apart, who take part in the partition, with those of the pool."""
        return 0 if self.found is None else len(np.unique(self.found.faces.identities[self.members]))

    @cached_property
    def _rows(self) -> dict[tuple[int, int], int]:
        """Row of each comparable face, by photo and place."""
        if self.found is None:
            return {}
        places = zip(self.found.photo.tolist(), self.found.place.tolist(), strict=True)
        return {place: row for row, place in enumerate(places)}

    def place_of(self, photo: Photo) -> int:
        """Number of a photo among all of them, as in ``found.photo``."""
        return self._places[id(photo)]

    @cached_property
    def _places(self) -> dict[int, int]:
        return {id(photo): i for i, photo in enumerate((*self.photos, *self.beside))}

    def faces_on(self, number: int) -> Iterator[tuple[Spot, int | None]]:
        """Yield the faces in photo `number`, each with its row in `found`, or None if it is not there."""
        for place, spot in enumerate(self.photos[number].spots):
            yield spot, self._rows.get((number, place))


def make_plan(
    options: FolderOptions,
    photos: Sequence[Photo],
    given: Faces | None = None,
    pool: Sequence[Photo] = (),
    stills: Sequence[Photo] = (),
) -> Plan:
    """Group faces into people, partition the people, and make the surrogates.

    Parameters
    ----------
    options : FolderOptions
    photos : sequence of Photo
    given : Faces, optional
        Photos of the people to keep, or to replace alone.
    pool : sequence of Photo
        Photos of other people, who fill the clusters.
    stills : sequence of Photo
        The stills of each track of a video, as a photo with several views of one person.

    Raises
    ------
    ParameterError
        If none of the people to replace was found.
    """
    beside = (*pool, *stills)
    found = gather_faces((*photos, *beside))
    if found is None:
        return Plan(photos, beside)
    descriptors = describe(found.faces, options.embedding)
    if not np.isfinite(descriptors).all():
        rows = np.flatnonzero(np.isfinite(descriptors).all(axis=1))
        if len(rows) == 0:
            return Plan(photos, beside)
        found, descriptors = found.select(rows), descriptors[rows]
    folders = _folders(options, photos, found) if options.people == "folders" else None
    tracks = np.where(found.photo >= len(photos) + len(pool), found.photo, -1)
    people = group_people(descriptors, options.same_person, folders, tracks)
    in_pool = (found.photo >= len(photos)) & (tracks < 0)
    own_people = set(people[~in_pool].tolist())
    faces = Faces.of(found.faces.images, people, found.faces.names, source="photos")
    found = FoundFaces(faces, found.photo, found.place)
    kept, distances, notes = _kept(options, found, given)
    members = ~np.isin(people, people[kept])
    plan = Plan(
        photos, beside, found, kept, members, distances,
        spread={name: far for name, far in largest_distances(descriptors, people).items() if name in own_people},
        n_doubtful=doubtful_pairs(descriptors, people, _DOUBT * options.same_person),
        notes=notes,
    )  # fmt: skip
    if not options.k_anonymous:
        return replace(plan, face_filter=anonymizer.load(options.method, faces, **options.method_options))
    if plan.n_people < options.k or not own_people:
        return plan
    replaced, described = faces.select(members), descriptors[members]
    model = anonymizer.load(options.method, replaced, **options.method_options)
    labels, how = _partition(options, replaced, described)
    if options.mode == "per_photo":
        clear = lending.clearness(replaced)
        mixed = lending.lenders(labels, replaced.identities, described, clear, options.k)
    else:
        mixed = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    needed = set(labels[np.isin(replaced.identities, list(own_people))].tolist())
    made = [
        _make_surrogate(model, rows) if label in needed else _NOT_NEEDED
        for label, rows in enumerate(utils.progress(mixed, "making surrogates"))
    ]
    made = _refuse_photos(made, faces)
    every = _spread_labels(options.mode, labels, descriptors, members, kept)
    faults = {
        int(row): made[every[row]] for row in np.flatnonzero(every >= 0) if isinstance(made[every[row]], str)
    }
    usable = [isinstance(surrogate, Surrogate) for surrogate in made]
    numbers = np.where(usable, np.cumsum(usable) - 1, -1)
    every = np.where(every >= 0, numbers[every], -1)
    surrogates = [surrogate for surrogate in made if isinstance(surrogate, Surrogate)]
    how += _of_pool(labels, replaced.identities, own_people) if pool else ()
    return replace(plan, labels=every, surrogates=surrogates, faults=faults, notes=notes + how)


def _of_pool(labels: np.ndarray, people: np.ndarray, own_people: set[str]) -> tuple[str, ...]:
    """Say how many people of each cluster are in the run, and how many in the pool."""
    own = np.array([person in own_people for person in people])
    clusters = np.unique(labels[own])
    n_own = [len(np.unique(people[own & (labels == label)])) for label in clusters]
    n_pool = len(np.unique(people[~own & np.isin(labels, clusters)]))
    return (
        f"{n_pool} people of --pool fill the clusters: of the people behind a surrogate, {min(n_own)} to {max(n_own)} "
        "are in this run.",
    )


def describe(faces: Faces, name: str) -> np.ndarray:
    """Descriptors of n faces, (n, d); NaN for a face whose description raises an error."""
    try:
        return embedding.embed(faces, name)
    except (ParameterError, FileNotFoundError):
        raise
    except Exception as error:
        rows = [_describe_one(faces.select([i]), name) for i in range(len(faces))]
        described = [row for row in rows if row is not None]
        if not described:
            raise error from None
        return np.stack([np.full_like(described[0], np.nan) if row is None else row for row in rows])


def _describe_one(face: Faces, name: str) -> np.ndarray | None:
    try:
        return embedding.embed(face, name)[0]
    except Exception:
        return None


def _kept(
    options: FolderOptions, found: FoundFaces, given: Faces | None
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Which faces stay as they are, bool (n,), their distances (n,) to the nearest given person, and what to say."""
    if given is None:
        return np.zeros(len(found.faces), dtype=bool), None, ()
    distances = references.reference_distances(found.faces, given)
    kept = references.RULES[options.given_by](distances, found.faces.identities, found.photo)
    n_missed = int((distances.min(axis=0) >= references.ONLY_DISTANCE).sum())
    if options.given_by == "only" and n_missed == given.n_people:
        raise ParameterError(
            f"--only: none of these people was found; the nearest face is at distance {distances.min():.2f}, and "
            f"{references.ONLY_DISTANCE} is the limit. Choose photos that show their faces clearly"
        )
    missed = f"{n_missed} of {given.n_people} people of --{options.given_by} were not found."
    return kept, distances.min(axis=1), (missed,) if n_missed else ()


def _partition(
    options: FolderOptions, faces: Faces, descriptors: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels of the faces (n,), and what to say about them."""
    partition = partitioning.PARTITIONERS[options.partitioner]
    notes = ()
    if options.alike:
        labels, note = partition_alike(partition, descriptors, options.k, faces, options.alike, options.seed)
        notes = (note,)
    else:
        labels = partition(descriptors, options.k, identities=faces.identities, random_state=options.seed)
    try:
        labels = check_labels(labels, len(faces))
        check_k(options.k, labels, faces.identities)
    except ParameterError as error:
        raise RuntimeError(f"the partition {options.partitioner!r} failed: {error}") from error
    return labels, notes


def _spread_labels(
    mode: str, labels: np.ndarray, descriptors: np.ndarray, members: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """Labels of all faces (n,) from those of the members: -1 for kept faces.

    In per_photo mode, a doubtful face of a person to keep gets the surrogate of the nearest cluster without being a
    member.
    """
    every = np.full(len(members), -1)
    every[members] = labels
    doubtful = ~members & ~kept
    if mode == "per_photo" and doubtful.any():
        means = mean_of_groups(descriptors[members], labels, labels.max() + 1)
        every[doubtful] = scipy.spatial.distance.cdist(descriptors[doubtful], means).argmin(axis=1)
    return every


def _make_surrogate(model: anonymizer.Anonymizer, rows: np.ndarray) -> Surrogate | str:
    """Mix some faces, and find the landmarks of the result; or say why that failed."""
    try:
        image = detection.check_image(model.surrogate(rows))
        there = detection.detect([image])
    except Exception as error:  # the other clusters can still be released
        return f"the surrogate could not be made ({in_words(error)})"
    landmarks = there.landmarks[0] if there.found[0] and np.isfinite(there.landmarks[0]).all() else None
    return Surrogate(image, landmarks)


def _refuse_photos(made: Sequence[Surrogate | str], faces: Faces) -> list[Surrogate | str]:
    """Replace each surrogate that shows a single photo by the reason why it cannot be used."""
    usable = [i for i, surrogate in enumerate(made) if isinstance(surrogate, Surrogate)]
    shown = gate.single_photos([made[i].image for i in usable], faces)
    refused = {i for i, single in zip(usable, shown, strict=True) if single}
    return [_SINGLE_PHOTO if i in refused else surrogate for i, surrogate in enumerate(made)]


def _folders(options: FolderOptions, photos: Sequence[Photo], found: FoundFaces) -> list[str | None]:
    """The name of the photo's sub-folder for its largest face, None for its other faces."""
    names = []
    for i, j in zip(found.photo, found.place, strict=True):
        heights = [spot.box[3] - spot.box[1] for spot in photos[i].spots]
        folder = photos[i].path.relative_to(options.folder).parts[0]
        names.append(folder if j == int(np.argmax(heights)) else None)
    datasets.warn_of_alike(options.folder, [name for name in names if name is not None])
    return [None if name is None else utils.tidy_name(name) for name in names]
