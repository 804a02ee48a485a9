"""Turn a selection of k and methods into clusters, surrogates and numbers: the explorer without its widgets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

import anonymizer
import attacks
import checks
import detection
import embedding
import measures
import partitioning
import tuning
import utils
from datasets import Faces

#: The recogniser that measures surrogates, whatever embedding clusters the people, as in `evaluation.sweep`.
RECOGNISER = "dlib"

#: Faster forms of partitions that are too slow for a slider; the full form follows in the background.
_QUICK_PARTITIONS = {"balanced": partial(partitioning.balanced_partition, effort="fast")}

#: The full form is fast enough for up to this many people.
_QUICK_PEOPLE = 100

#: Memory limit in bytes for drawn images.
_DRAWN_BYTES = 256 << 20

#: Side of upright crops in pixels, and their zoom (see `detection.aligned_crop`) in the preview and the member photos.
_CROP_SIZE, _PREVIEW_ZOOM, _MEMBER_ZOOM = 112, 0.9, 0.6

#: A photo is shown uncropped if it is at most this many times as high as the landmarks of its face.
_WHOLE_PHOTO = 2.5


@dataclass(frozen=True)
class Selection:
    """The user's selection.

    Attributes
    ----------
    k : int
        Minimum number of people per cluster.
    embedding, partitioner, anonymizer : str
        Names as for `evaluation.sweep`.
    shrinkage : float
        How far each surrogate is shrunk from its members' mixture towards the average of all other people, 0 to 1.
    """

    k: int = 5
    embedding: str = RECOGNISER
    partitioner: str = "balanced"
    anonymizer: str = "aam"
    shrinkage: float = 0.0


@dataclass(frozen=True, eq=False)
class View:
    """A release, simulated or confirmed.

    Attributes
    ----------
    selection : Selection
    labels : ndarray of int, shape (n,)
    clusters : list of c ndarray of int
        The rows of each cluster's photos.
    descriptors : ndarray, shape (c, d)
        Descriptors of the surrogates by `RECOGNISER`.
    found : ndarray of bool, shape (c,)
        Whether each surrogate shows a face; always True in a simulation.
    scores : dict
        From `evaluation.measure`.
    images : list of uint8 arrays (h, w, 3), or None
        The surrogates; None in a simulation.
    settled : bool
        False if the labels come from the fast form of a slow partition.
    """

    selection: Selection
    labels: np.ndarray
    clusters: list[np.ndarray]
    descriptors: np.ndarray
    found: np.ndarray
    scores: dict[str, float]
    images: list[np.ndarray] | None = None
    settled: bool = True

    @property
    def confirmed(self) -> bool:
        """Whether the images were drawn and measured."""
        return self.images is not None


@dataclass(frozen=True, eq=False)
class Drawn:
    """A surrogate's image, its descriptor (d,), and whether it shows a face."""

    image: np.ndarray
    descriptor: np.ndarray
    found: bool


@dataclass(frozen=True, eq=False)
class Cluster:
    """Measurements of one cluster of a view.

    Attributes
    ----------
    label : int
    rows : ndarray of int, shape (m,)
        Rows of the members' photos.
    n_people : int
    distance : ndarray, shape (m,)
        From each photo to the surrogate; NaN if the surrogate shows no face.
    recognised : ndarray of bool, shape (m,)
        Whether each distance is below the threshold.
    nearest : str
        The person in the gallery photo nearest to the surrogate; empty if the surrogate shows no face.
    leads_here : bool
        Whether that person is a member.
    image : ndarray of uint8, shape (h, w, 3), or None
        The surrogate; None if it is not drawn yet and the distances are simulated.
    """

    label: int
    rows: np.ndarray
    n_people: int
    distance: np.ndarray
    recognised: np.ndarray
    nearest: str
    leads_here: bool
    image: np.ndarray | None


@dataclass(frozen=True, eq=False)
class _Axes:
    """The axes of a map: mean (d,), directions (2, d), and their shares of the variance (2,)."""

    mean: np.ndarray
    directions: np.ndarray
    shares: np.ndarray


class Exploration:
    """Computes views of releases of one set of faces.

    Parameters
    ----------
    faces : Faces
        Photos of at least two people. `faces.others`, if any, is the adversary's gallery.
    threshold : float, default 0.6
        Two descriptors closer than this count as one person.
    random_state : int, default 0
        Seed for the partitions, and for the sample of people in the average that shrinkage uses.

    Raises
    ------
    TypeError
        If `faces` is not a `Faces`.
    ValueError
        If all photos show one person.

    Examples
    --------
    >>> import datasets, explorer
    >>> exploration = explorer.Exploration(datasets.load_faces("orl", per_identity=1))
    >>> view = exploration.simulate(explorer.Selection(k=5))
    >>> len(view.clusters)
    8
    """

    def __init__(self, faces: Faces, *, threshold: float = attacks.PAPER_THRESHOLD, random_state: int = 0):
        if not isinstance(faces, Faces):
            raise TypeError(f"faces must be Faces from datasets.load_faces, got {type(faces).__name__}")
        if faces.n_people < 2:
            raise ValueError(
                "all photos show one person, but clusters need at least two people; check that folders or file names "
                "tell people apart"
            )
        self.faces, self.threshold, self.random_state = faces, float(threshold), int(random_state)
        self._person = np.unique(faces.identities, return_inverse=True)[1]  # (n,)
        self._order = utils.check_random_state(random_state).permutation(len(faces))
        self._descriptors: dict[str, np.ndarray] = {}
        self._labels: dict[tuple[str, str, int], np.ndarray] = {}
        self._models: dict[str, anonymizer.Surrogates] = {}
        self._drawn: OrderedDict[tuple, Drawn] = OrderedDict()
        self._crops: dict[tuple[int, float], np.ndarray] = {}
        self._kept_axes: dict[str, _Axes] = {}

    # -- options of a selection ------------------------------------------------------------------------------

    @property
    def k_values(self) -> range:
        """The possible cluster sizes."""
        return range(2, self.faces.n_people + 1)

    @cached_property
    def anonymizers(self) -> list[str]:
        """The anonymizers that make surrogates of these faces."""
        return [name for name, cls in self._surrogates if cls.fits(self.faces)]

    @cached_property
    def unfit_anonymizers(self) -> list[str]:
        """The anonymizers that need additional files to make surrogates of these faces."""
        return [name for name, _ in self._surrogates if name not in self.anonymizers]

    @property
    def _surrogates(self) -> list[tuple[str, type[anonymizer.Anonymizer]]]:
        return [(name, cls) for name, cls in anonymizer.ANONYMIZERS.items() if cls.k_anonymous]

    def first_selection(self) -> Selection:
        """Return the initial selection of the panel: k = 5 (less if that gives two clusters), dlib, balanced, AAM."""
        name = "aam" if "aam" in self.anonymizers else self.anonymizers[0]
        return Selection(k=max(2, min(5, self.faces.n_people // 2)), anonymizer=name)

    def _check(self, selection: Selection) -> None:
        checks.check_number("k", selection.k, int, at_least=2, at_most=self.faces.n_people)
        checks.check_number("shrinkage", selection.shrinkage, at_least=0, at_most=1)
        if not anonymizer.kind(selection.anonymizer).k_anonymous:
            raise ValueError(
                f"anonymizer must make surrogates, got {selection.anonymizer!r}, which changes each photo on its own; "
                f"choose from {', '.join(map(repr, self.anonymizers))}"
            )

    # -- descriptors and clusters ----------------------------------------------------------------------------

    def descriptors(self, name: str = RECOGNISER) -> np.ndarray:
        """Return descriptors of the photos, float32 (n, d); the first call computes them."""
        if name not in self._descriptors:
            self._descriptors[name] = utils.one_thread(embedding.embed)(self.faces, name)
        return self._descriptors[name]

    def is_described(self, name: str) -> bool:
        """Return whether the descriptors of an embedding are already computed."""
        return name in self._descriptors

    @cached_property
    def gallery(self) -> attacks.Gallery:
        """The adversary's gallery."""
        return measures.clear_photos(self.faces, RECOGNISER).gallery

    def _partition(self, selection: Selection, quick: bool) -> tuple[np.ndarray, bool]:
        """Return labels (n,), and whether they come from the full form of the partition; full labels are kept."""
        key = (selection.embedding, selection.partitioner, selection.k)
        if key in self._labels:
            return self._labels[key], True
        partition = measures.partitioner(selection.partitioner)
        quick = quick and selection.partitioner in _QUICK_PARTITIONS and self.faces.n_people > _QUICK_PEOPLE
        if quick:
            partition = _QUICK_PARTITIONS[selection.partitioner]
        X = self.descriptors(selection.embedding)
        labels = partition(X, selection.k, identities=self._person, random_state=self.random_state)
        if not quick:
            self._labels[key] = labels
        return labels, not quick

    def mixture(self, labels: np.ndarray, label: int, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the photos mixed into a surrogate: rows (m,), and weights (m,) that sum to 1.

        All people in the cluster have the same weight. A shrinkage above 0 also mixes in the average of the other
        people, equally weighted, over at most `tuning.AVERAGE_OVER` photos, as in `tuning.tune`.
        """
        members = np.flatnonzero(labels == label)
        if shrinkage == 0:
            return members, anonymizer.person_weights(self._person[members])
        others = self._order[labels[self._order] != label]
        others = np.sort((others if len(others) else self._order)[: tuning.AVERAGE_OVER])
        weights = np.zeros(len(labels))
        weights[members] = (1 - shrinkage) * anonymizer.person_weights(self._person[members])
        weights[others] += shrinkage * anonymizer.person_weights(self._person[others])
        rows = np.flatnonzero(weights)
        return rows, weights[rows]

    # -- numbers ---------------------------------------------------------------------------------------------

    def simulate(self, selection: Selection, quick: bool = True) -> View:
        """Measure a release as if each surrogate's descriptor were the weighted mean of its members' descriptors.

        Parameters
        ----------
        selection : Selection
        quick : bool, default True
            Whether to replace a slow partition by its fast form; see `View.settled`.

        Raises
        ------
        ParameterError, ValueError
            If a name is unknown, or a number is out of range.
        """
        self._check(selection)
        labels, settled = self._partition(selection, quick)
        clusters = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
        X = self.descriptors()
        mixtures = (self.mixture(labels, label, selection.shrinkage) for label in range(len(clusters)))
        mixed = np.stack([weights @ X[rows] for rows, weights in mixtures])  # (c, d)
        found = np.ones(len(clusters), dtype=bool)
        scores = self._measure(mixed, found, labels)
        return View(selection, labels, clusters, mixed, found, scores, settled=settled)

    def _measure(self, descriptors: np.ndarray, found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        release = attacks.DescribedRelease(descriptors, found, labels, self.faces.identities)
        return measures.measure(release, self.descriptors(), self.gallery, self.threshold)

    def cluster(self, view: View, label: int) -> Cluster:
        """Measure one cluster of a view, with its image if that is already drawn."""
        rows, drawn = view.clusters[label], self.known(view, label)
        descriptor = view.descriptors[label] if drawn is None else drawn.descriptor
        found = bool(view.found[label]) if drawn is None else drawn.found
        people = set(self.faces.identities[rows])
        distance, nearest = np.full(len(rows), np.nan), ""
        if found:
            distance = np.linalg.norm(self.descriptors()[rows] - descriptor, axis=1)
            row = np.linalg.norm(self.gallery.descriptors - descriptor, axis=1).argmin()
            nearest = str(self.gallery.identities[row])
        return Cluster(
            label=int(label), rows=rows, n_people=len(people), distance=distance, nearest=nearest,
            recognised=distance < self.threshold, leads_here=nearest in people,
            image=None if drawn is None else drawn.image,
        )  # fmt: skip

    # -- images ----------------------------------------------------------------------------------------------

    def model(self, name: str) -> anonymizer.Surrogates:
        """Return the anonymizer for these faces; the first call can be slow."""
        if name not in self._models:
            # One thread leaves a core to the controls, and rounds as the workers of an evaluation do.
            self._models[name] = utils.one_thread(anonymizer.load)(name, self.faces)
        return self._models[name]

    def known(self, view: View, label: int) -> Drawn | None:
        """Return a surrogate that is already drawn, or None."""
        if view.images is not None:
            return Drawn(view.images[label], view.descriptors[label], bool(view.found[label]))
        return self._drawn.get(self._key(view, label))

    def _key(self, view: View, label: int) -> tuple:
        rows, weights = self.mixture(view.labels, label, view.selection.shrinkage)
        return view.selection.anonymizer, rows.tobytes(), weights.tobytes()

    def draw(self, view: View, label: int) -> Drawn:
        """Draw and describe one surrogate. Call it from one thread at a time: models are not thread-safe."""
        known = self.known(view, label)
        if known is not None:
            return known
        rows, weights = self.mixture(view.labels, label, view.selection.shrinkage)
        if view.selection.shrinkage == 0:
            weights = None  # the anonymizer's default, so that images are identical to those of an evaluation
        image = self.model(view.selection.anonymizer).surrogate(rows, weights)
        found = bool(detection.detect([image]).found[0])
        drawn = Drawn(image, embedding.embed([image], RECOGNISER)[0], found)
        self._drawn[self._key(view, label)] = drawn
        while sum(one.image.nbytes for one in self._drawn.values()) > _DRAWN_BYTES and len(self._drawn) > 1:
            self._drawn.popitem(last=False)
        return drawn

    def confirm(
        self,
        view: View,
        first: int = 0,
        stop: Callable[[], bool] = lambda: False,
        report: Callable[[int, int], None] = lambda label, done: None,
    ) -> View | None:
        """Draw, describe and measure all surrogates of a view.

        Parameters
        ----------
        view : View
            The view to draw. Its labels are kept, whether settled or not.
        first : int
            The cluster to draw first.
        stop : callable
            Called before each image; drawing stops if it returns True. Drawn images are kept.
        report : callable
            Called after each image with the label and the number of drawn images.

        Returns
        -------
        View or None
            None if stopped.
        """
        labels = [first, *(label for label in range(len(view.clusters)) if label != first)]
        drawn: dict[int, Drawn] = {}
        for label in labels:
            if stop():
                return None
            drawn[label] = self.draw(view, label)
            report(label, len(drawn))
        ordered = [drawn[label] for label in range(len(labels))]
        descriptors = np.stack([one.descriptor for one in ordered])
        found = np.array([one.found for one in ordered])
        scores = self._measure(descriptors, found, view.labels)
        images = [one.image for one in ordered]
        return replace(view, descriptors=descriptors, found=found, scores=scores, images=images)

    # -- pictures of photos, and the map ---------------------------------------------------------------------

    @cached_property
    def _landmarks(self) -> np.ndarray:
        return detection.detect(self.faces).landmarks

    def _crop(self, row: int, zoom: float) -> np.ndarray:
        """Return an upright crop of the face in a photo: (112, 112, 3)."""
        if (row, zoom) not in self._crops:
            photo, landmarks = self.faces.images[row], self._landmarks[row]
            self._crops[row, zoom] = detection.aligned_crop(photo, landmarks, _CROP_SIZE, zoom)
        return self._crops[row, zoom]

    def portrait(self, row: int) -> np.ndarray:
        """Return the whole photo if the face fills it, else an upright crop of the face: uint8 (h, w, 3)."""
        photo = self.faces.images[row]
        whole = len(photo) <= _WHOLE_PHOTO * np.ptp(self._landmarks[row][:, 1])
        return photo if whole else self._crop(row, _MEMBER_ZOOM)

    def preview(self, view: View, label: int) -> np.ndarray:
        """Return the weighted mean of the upright crops, shown until the surrogate is drawn: uint8 (112, 112, 3)."""
        mean = sum(
            weight * self._crop(row, _PREVIEW_ZOOM).astype(np.float32)
            for row, weight in zip(*self.mixture(view.labels, label, view.selection.shrinkage), strict=True)
        )
        return np.clip(np.rint(mean), 0, 255).astype(np.uint8)

    def plane(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Project the photos to the first two principal components of an embedding.

        Returns
        -------
        positions : ndarray, shape (n, 2)
        shares : ndarray, shape (2,)
            Share of the descriptors' variance along each axis.
        """
        axes = self._axes(name)
        return (self.descriptors(name) - axes.mean) @ axes.directions.T, axes.shares

    def _axes(self, name: str) -> _Axes:
        if name not in self._kept_axes:
            X = self.descriptors(name).astype(np.float64)
            mean = X.mean(axis=0)
            _, values, directions = utils.one_thread(np.linalg.svd)(X - mean, full_matrices=False)
            if len(values) == 1:  # descriptors of one value
                values, directions = np.append(values, 0), np.pad(directions, [(0, 1), (0, 0)])
            self._kept_axes[name] = _Axes(mean, directions[:2], (values**2 / (values**2).sum())[:2])
        return self._kept_axes[name]

    def surrogate_positions(self, view: View, label: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the position of a surrogate on the map: simulated (2,), and drawn (2,).

        The latter is None if the surrogate is not drawn, if it shows no face, or if the map does not use `RECOGNISER`.
        """
        positions, _ = self.plane(view.selection.embedding)
        rows, weights = self.mixture(view.labels, label, view.selection.shrinkage)
        simulated, drawn = weights @ positions[rows], self.known(view, label)
        if drawn is None or not drawn.found or view.selection.embedding != RECOGNISER:
            return simulated, None
        axes = self._axes(RECOGNISER)
        return simulated, axes.directions @ (drawn.descriptor - axes.mean)
