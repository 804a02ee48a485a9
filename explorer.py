"""A panel for trying out k, embedding, partition, anonymizer and shrinkage: faces -> clusters, surrogates, numbers.

Everything is shown twice. First *simulated*, at once and without an image: a surrogate's descriptor is taken to be the
weighted mean of the descriptors of those mixed into it. Then *confirmed*: the images are drawn in the background,
described, and measured as `evaluation.evaluate` does. An image that was drawn lies farther from its members than their
mean does, so the simulated loss is too low, and the simulated re-identification too high.

`Exploration` computes; it knows nothing of widgets. The functions below it turn its results into HTML, and `Panel`
puts them on the screen.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import html
import os
import queue
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import cv2
import ipywidgets as widgets
import numpy as np
from sklearn.decomposition import PCA

import anonymizer
import datasets
import detection
import embedding
import evaluation
import partitioning
import tuning
import utils
import vizualization
from datasets import Faces

#: Everything is measured by this recogniser, whatever people are clustered by, as in `evaluation.sweep`.
RECOGNISER = "dlib"

#: First forms of partitions that take longer than a slider may; the full one follows from the background.
QUICK_PARTITIONS = {"balanced": partial(partitioning.balanced_partition, effort="fast")}
#: Up to so many people the full form is quick enough.
QUICK_PEOPLE = 100

#: Drawn images are kept up to this many bytes.
DRAWN_BYTES = 256 << 20

#: Faces are mixed for the preview, and shown, in squares of this many pixels. Zoom: see `detection.aligned_crop`.
CROP_SIZE, PREVIEW_ZOOM, SHOWN_ZOOM = 112, 0.9, 0.6

#: A face fills its photo if that is at most so many times as high as the landmarks' own height; else it is cut out.
FILLS = 2.5

# ----------------------------------------------------------------------------------------------------------
# What is chosen, and what comes of it
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """What the sliders and menus say.

    Attributes
    ----------
    k : int
        People in a cluster, at least.
    embedding, partitioner, anonymizer : str
        Names as for `evaluation.sweep`.
    shrinkage : float
        0 to 1: how far each surrogate is pulled from its members' mixture to the average of all other people.
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
    choice : Choice
    labels : ndarray of int, shape (n,)
    clusters : list of c ndarray of int
        Rows of each cluster's photos.
    descriptors : ndarray, shape (c, d)
        Of the surrogates, by `RECOGNISER`.
    found : ndarray of bool, shape (c,)
        Which surrogates show a face; all of them as long as they are simulated.
    scores : dict
        From `evaluation.measure`.
    images : list of uint8 arrays (h, w, 3), or None
        The surrogates; None as long as they are simulated.
    settled : bool
        Whether these are the partition's labels, and not those of its quick first form.
    """

    choice: Choice
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
    """One surrogate's image, its descriptor (d,), and whether it shows a face."""

    image: np.ndarray
    descriptor: np.ndarray
    found: bool


@dataclass(frozen=True, eq=False)
class Cluster:
    """One cluster of a view, measured by itself.

    Attributes
    ----------
    label : int
    rows : ndarray of int, shape (m,)
        Its photos.
    n_people : int
    distance : ndarray, shape (m,)
        From each photo to the surrogate; NaN if that shows no face.
    recognised : ndarray of bool, shape (m,)
        Which photos are nearer than the threshold.
    nearest : str
        Who is on the gallery photo nearest to the surrogate; empty if it shows no face.
    leads_here : bool
        Whether that is a member.
    image : ndarray of uint8, shape (h, w, 3), or None
        The surrogate; None if it is not drawn yet. Then the distances are simulated.
    """

    label: int
    rows: np.ndarray
    n_people: int
    distance: np.ndarray
    recognised: np.ndarray
    nearest: str
    leads_here: bool
    image: np.ndarray | None


class Exploration:
    """Choices -> views, for one set of faces. Plain arrays in and out.

    Parameters
    ----------
    faces : Faces
        Grey or colour, of any size, of at least two people. `faces.others`, where there are any, are the adversary's
        gallery.
    threshold : float, default 0.6
        Two descriptors nearer than this count as one person.
    random_state : int, default 0
        The seed of partitions, and of who makes up the average of very many people.

    Raises
    ------
    TypeError, ValueError
        If `faces` are none, or of fewer than two people.

    Examples
    --------
    >>> import datasets, explorer
    >>> exploration = explorer.Exploration(datasets.load_faces("orl", per_identity=1))
    >>> view = exploration.simulate(explorer.Choice(k=5))
    >>> len(view.clusters)
    8
    """

    def __init__(self, faces: Faces, *, threshold: float = evaluation.DLIB_THRESHOLD, random_state: int = 0):
        if not isinstance(faces, Faces):
            raise TypeError(
                f"explore needs Faces, as datasets.load_faces returns them, not {type(faces).__name__}"
            )
        if faces.n_people < 2:
            raise ValueError(
                "all photos show one person; clusters need at least two people. Check that the photos' folder or "
                "names tell people apart"
            )
        self.faces, self.threshold, self.random_state = faces, float(threshold), int(random_state)
        self._person = np.unique(faces.identities, return_inverse=True)[1]  # (n,)
        self._order = utils.check_random_state(random_state).permutation(len(faces))
        self._descriptors: dict[str, np.ndarray] = {}
        self._labels: dict[tuple[str, str, int], np.ndarray] = {}
        self._models: dict[str, anonymizer.Surrogates] = {}
        self._drawn: OrderedDict[tuple, Drawn] = OrderedDict()
        self._drawn_bytes = 0

    @property
    def k_values(self) -> range:
        """The cluster sizes that fit."""
        return range(2, self.faces.n_people + 1)

    @property
    def embeddings(self) -> list[str]:
        """The embeddings that need no further file."""
        return embedding.available()

    @property
    def partitioners(self) -> list[str]:
        """The partitions of fixed size."""
        return list(partitioning.PARTITIONERS)

    @cached_property
    def anonymizers(self) -> list[str]:
        """The anonymizers that make one surrogate for a cluster, and can for these faces."""
        return [
            name for name, cls in anonymizer.ANONYMIZERS.items() if cls.k_anonymous and cls.fits(self.faces)
        ]

    @cached_property
    def unfit_anonymizers(self) -> list[str]:
        """Those that would make surrogates, but need further files for these faces."""
        kinds = {name: cls for name, cls in anonymizer.ANONYMIZERS.items() if cls.k_anonymous}
        return [name for name in kinds if name not in self.anonymizers]

    def first_choice(self) -> Choice:
        """What the panel starts with: clusters of 5 people, or of all if there are fewer; dlib, balanced, AAM."""
        name = "aam" if "aam" in self.anonymizers else self.anonymizers[0]
        return Choice(k=min(5, self.faces.n_people), anonymizer=name)

    def descriptors(self, name: str = RECOGNISER) -> np.ndarray:
        """Descriptors of the photos, float32 (n, d). The first time takes as long as `embedding.embed`."""
        if name not in self._descriptors:
            self._descriptors[name] = embedding.embed(self.faces, name)
        return self._descriptors[name]

    @cached_property
    def gallery(self) -> evaluation.Gallery:
        """What the adversary holds."""
        return evaluation.clear_gallery(self.faces, RECOGNISER)

    # -- clusters ------------------------------------------------------------------------------------------

    def partition(self, choice: Choice) -> tuple[np.ndarray, bool]:
        """Labels (n,), and whether they are final: a slow partition's quick first form is not."""
        key = (choice.embedding, choice.partitioner, choice.k)
        quick = QUICK_PARTITIONS.get(choice.partitioner)
        if quick is None or key in self._labels or self.faces.n_people <= QUICK_PEOPLE:
            return self.settle(choice), True
        return self._cluster_by(quick, choice), False

    def settle(self, choice: Choice) -> np.ndarray:
        """The partition's own labels (n,), however long they take; kept."""
        key = (choice.embedding, choice.partitioner, choice.k)
        if key not in self._labels:
            self._labels[key] = self._cluster_by(evaluation.partitioner(choice.partitioner), choice)
        return self._labels[key]

    def _cluster_by(self, partition: Callable, choice: Choice) -> np.ndarray:
        return partition(
            self.descriptors(choice.embedding),
            choice.k,
            identities=self._person,
            random_state=self.random_state,
        )

    def mixture(self, labels: np.ndarray, label: int, shrinkage: float) -> tuple[np.ndarray, np.ndarray]:
        """Who is mixed into a surrogate: rows (m,) and weights (m,) that sum to 1.

        Every person in the cluster counts the same, and so does every other person in the average that a shrinkage
        above 0 pulls to; of very many photos that is taken over `tuning.AVERAGE_OVER`, as in `tuning.tune`.
        """
        members = np.flatnonzero(labels == label)
        if shrinkage == 0:
            return members, self._person_weights(members)
        others = self._order[labels[self._order] != label]
        others = np.sort((others if len(others) else self._order)[: tuning.AVERAGE_OVER])
        weights = np.zeros(len(labels))
        weights[members] = (1 - shrinkage) * self._person_weights(members)
        weights[others] += shrinkage * self._person_weights(others)
        rows = np.flatnonzero(weights)
        return rows, weights[rows]

    def _person_weights(self, rows: np.ndarray) -> np.ndarray:
        _, person, photos = np.unique(self._person[rows], return_inverse=True, return_counts=True)
        return 1.0 / (photos[person] * len(photos))

    # -- numbers -------------------------------------------------------------------------------------------

    def simulate(self, choice: Choice) -> View:
        """What a release would be if each surrogate's descriptor were the mean of those mixed into it.

        Raises
        ------
        TypeError, ValueError
            For a choice that does not fit the faces.
        """
        check_choice(choice, self)
        labels, settled = self.partition(choice)
        clusters = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
        X = self.descriptors()
        mixtures = (self.mixture(labels, label, choice.shrinkage) for label in range(len(clusters)))
        mixed = np.stack([weights @ X[rows] for rows, weights in mixtures])  # (c, d)
        found = np.ones(len(clusters), dtype=bool)
        return View(
            choice, labels, clusters, mixed, found, self._measure(mixed, found, labels), settled=settled
        )

    def _measure(self, descriptors: np.ndarray, found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        release = evaluation.DescribedRelease(descriptors, found, labels, self.faces.identities)
        return evaluation.measure(release, self.descriptors(), self.gallery, self.threshold)

    def cluster(self, view: View, label: int) -> Cluster:
        """One cluster of a view by itself; already with its image if that one is drawn."""
        rows = view.clusters[label]
        drawn = self.known(view, label)
        descriptor = view.descriptors[label] if drawn is None else drawn.descriptor
        found = bool(view.found[label]) if drawn is None else drawn.found
        distance = np.linalg.norm(self.descriptors()[rows] - descriptor, axis=1)
        nearest, people = "", set(self.faces.identities[rows])
        if found:
            row = np.linalg.norm(self.gallery.descriptors - descriptor, axis=1).argmin()
            nearest = str(self.gallery.identities[row])
        else:
            distance = np.full(len(rows), np.nan)
        return Cluster(
            label=int(label),
            rows=rows,
            n_people=len(people),
            distance=distance,
            recognised=distance < self.threshold,
            nearest=nearest,
            leads_here=nearest in people,
            image=None if drawn is None else drawn.image,
        )

    def people_in_clusters(self, view: View) -> np.ndarray:
        """How many people each cluster has, (c,)."""
        return np.array([len(np.unique(self._person[rows])) for rows in view.clusters])

    # -- images --------------------------------------------------------------------------------------------

    def model(self, name: str) -> anonymizer.Surrogates:
        """The anonymizer, made for these faces the first time, which can take long."""
        if name not in self._models:
            self._models[name] = anonymizer.load(name, self.faces)
        return self._models[name]

    def known(self, view: View, label: int) -> Drawn | None:
        """A surrogate that was drawn before."""
        if view.images is not None:
            return Drawn(view.images[label], view.descriptors[label], bool(view.found[label]))
        return self._drawn.get(self._key(view, label))

    def _key(self, view: View, label: int) -> tuple:
        rows, weights = self.mixture(view.labels, label, view.choice.shrinkage)
        return view.choice.anonymizer, rows.tobytes(), weights.tobytes()

    def draw(self, view: View, label: int) -> Drawn:
        """Draw and describe one surrogate. Not for two threads at once: models are not safe to share."""
        known = self.known(view, label)
        if known is not None:
            return known
        rows, weights = self.mixture(view.labels, label, view.choice.shrinkage)
        own = (
            view.choice.shrinkage == 0
        )  # then the anonymizer's own weights, as in an evaluation, to the byte
        image = self.model(view.choice.anonymizer).surrogate(rows, None if own else weights)
        drawn = Drawn(
            image, embedding.embed([image], RECOGNISER)[0], bool(detection.detect([image]).found[0])
        )
        self._drawn[self._key(view, label)] = drawn
        self._drawn_bytes += image.nbytes
        while self._drawn_bytes > DRAWN_BYTES and len(self._drawn) > 1:
            self._drawn_bytes -= self._drawn.popitem(last=False)[1].image.nbytes
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
            Settled or not: the labels stay.
        first : int
            The cluster to begin with.
        stop : callable
            Asked before each image; the work ends if it returns True. What is drawn is kept.
        report : callable
            Told the label, and how many are drawn, after each image.

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
        return replace(
            view,
            descriptors=descriptors,
            found=found,
            scores=self._measure(descriptors, found, view.labels),
            images=[one.image for one in ordered],
        )

    # -- pictures ------------------------------------------------------------------------------------------

    @cached_property
    def _landmarks(self) -> np.ndarray:
        return detection.detect(self.faces).landmarks

    @cached_property
    def _crops(self) -> dict[tuple[int, float], np.ndarray]:
        return {}

    def _crop(self, row: int, zoom: float) -> np.ndarray:
        """A photo's face cut out upright (112, 112, 3)."""
        if (row, zoom) not in self._crops:
            image = self.faces.images[row]
            self._crops[row, zoom] = detection.aligned_crop(image, self._landmarks[row], CROP_SIZE, zoom)
        return self._crops[row, zoom]

    def portrait(self, row: int) -> np.ndarray:
        """A photo as it is shown: itself if the face fills it, else the face cut out; uint8 (h, w, 3)."""
        image = self.faces.images[row]
        fills = len(image) <= FILLS * np.ptp(self._landmarks[row][:, 1])
        return image if fills else self._crop(row, SHOWN_ZOOM)

    def preview(self, view: View, label: int) -> np.ndarray:
        """The weighted mean of the upright faces, to look at until the surrogate is drawn: uint8 (112, 112, 3)."""
        rows, weights = self.mixture(view.labels, label, view.choice.shrinkage)
        mean = sum(
            weight * self._crop(row, PREVIEW_ZOOM).astype(np.float32)
            for row, weight in zip(rows, weights, strict=True)
        )
        return np.clip(np.rint(mean), 0, 255).astype(np.uint8)

    @cached_property
    def _projections(self) -> dict[str, tuple[PCA, np.ndarray]]:
        return {}

    def plane(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The photos on a plane: the first two principal components of an embedding's descriptors.

        Returns
        -------
        positions : ndarray, shape (n, 2)
        shares : ndarray, shape (2,)
            Of the descriptors' variance, that each axis shows.
        """
        projection, positions = self._projection(name)
        return positions, projection.explained_variance_ratio_

    def _projection(self, name: str) -> tuple[PCA, np.ndarray]:
        if name not in self._projections:
            X = self.descriptors(name).astype(np.float64)
            if X.shape[1] == 1:
                X = np.column_stack([X, np.zeros(len(X))])
            projection = PCA(2, svd_solver="full").fit(X)
            self._projections[name] = projection, projection.transform(X)
        return self._projections[name]

    def surrogate_positions(self, view: View, label: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Where a surrogate lies on the map: simulated (2,), and as drawn (2,).

        The latter is None if it is not drawn, shows no face, or if the map is of another embedding than the one that
        surrogates are described by.
        """
        projection, positions = self._projection(view.choice.embedding)
        rows, weights = self.mixture(view.labels, label, view.choice.shrinkage)
        drawn = self.known(view, label)
        if drawn is None or not drawn.found or view.choice.embedding != RECOGNISER:
            return weights @ positions[rows], None
        return weights @ positions[rows], projection.transform(drawn.descriptor[None].astype(np.float64))[0]


def check_choice(choice: Choice, exploration: Exploration) -> None:
    """Raise ValueError or TypeError with a sentence if a choice does not fit the faces."""
    k, n_people = choice.k, exploration.faces.n_people
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k must be a whole number, not {k!r}")
    if not 2 <= k <= n_people:
        raise ValueError(f"k = {k} does not fit {n_people} people; it must lie between 2 and {n_people}")
    if not 0 <= choice.shrinkage <= 1:
        raise ValueError(f"shrinkage must be a share from 0 to 1, not {choice.shrinkage!r}")
    evaluation.partitioner(choice.partitioner)
    if not anonymizer.kind(choice.anonymizer).k_anonymous:
        raise ValueError(
            f"the anonymizer {choice.anonymizer!r} changes each photo by itself and makes no surrogates; choose one "
            f"of {', '.join(map(repr, exploration.anonymizers))}"
        )


# ----------------------------------------------------------------------------------------------------------
# Results -> HTML
# ----------------------------------------------------------------------------------------------------------

#: The map's width and height, and the margin around its points, in the SVG's units.
MAP_WIDTH, MAP_HEIGHT, MAP_MARGIN = 460, 350, 16

#: Of more photos than this the map shows only clusters' centres, and the chosen cluster's photos.
MAP_PHOTOS = 5000

#: So many photos of the chosen cluster are shown.
SHOWN_PHOTOS = 24

CHOSEN_COLOUR = vizualization.COLOURS[1]
MAP_COLOURS = [vizualization.COLOURS[i] for i in (0, 2, 3, 4, 5, 7)]

STYLE = """
<style>
.anonfaces-explorer { background: #fff; color: #1a1a1a; padding: 10px; font-family: sans-serif; overflow: hidden; }
.anonfaces-explorer .widget-label, .anonfaces-explorer .widget-readout, .anonfaces-explorer .widget-html-content
  { color: #1a1a1a; line-height: 1.35; }
.anonfaces-explorer h3 { margin: 0 0 2px; font-size: 15px; font-weight: 600; }
.anonfaces-explorer p { margin: 2px 0; font-size: 12px; }
.anonfaces-explorer table { border-collapse: collapse; font-size: 12px; }
.anonfaces-explorer th, .anonfaces-explorer td
  { padding: 3px 7px; text-align: left; vertical-align: top; border-bottom: 1px solid #ccc; white-space: normal; }
.anonfaces-explorer td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.anonfaces-explorer td.current { font-weight: 700; }
.anonfaces-explorer small { color: #444; font-weight: 400; font-size: 11px; }
.anonfaces-explorer figure { display: inline-block; margin: 0 6px 6px 0; width: 104px; vertical-align: top; }
.anonfaces-explorer figure.surrogate { width: 170px; margin-right: 18px; }
.anonfaces-explorer figure img { display: block; width: 96px; height: 96px; border: 4px solid #bbb; object-fit: contain;
  box-sizing: content-box; background: #eee; }
.anonfaces-explorer figure.surrogate img { width: 150px; height: 150px; border-color: #1a1a1a; }
.anonfaces-explorer figure.surrogate.preview img { border-style: dashed; }
.anonfaces-explorer figure.recognised img { border-color: #D55E00; }
.anonfaces-explorer figcaption { font-size: 11px; line-height: 1.3; overflow-wrap: anywhere; }
.anonfaces-explorer .badge { border: 1px solid #1a1a1a; border-radius: 9px; padding: 0 7px; font-size: 11px; }
.anonfaces-explorer .badge.confirmed { background: #1a1a1a; color: #fff; }
.anonfaces-explorer .alert { border: 2px solid #D55E00; padding: 6px 8px; font-size: 13px; max-width: 900px; }
.anonfaces-explorer svg [data-cluster] { cursor: pointer; }
</style>
"""

#: A click on a cluster of the map chooses it in the menu, which tells Python; the menu alone does it all, too.
CHOOSE_CLICKED = (
    "const group = event.target.closest('[data-cluster]');"
    "const menu = this.closest('.anonfaces-explorer').querySelector('.anonfaces-cluster select');"
    "if (group &amp;&amp; menu) { menu.selectedIndex = Number(group.dataset.cluster);"
    " menu.dispatchEvent(new Event('change', {bubbles: true})); }"
)


@dataclass(frozen=True)
class Measure:
    """One line of the table of numbers: its key in `View.scores`, what it is called, means, and is held against."""

    key: str
    name: str
    meaning: str
    against: Callable[[View], list[tuple[str, float]]]
    is_share: bool = True


MEASURES = (
    Measure(
        "information_loss",
        "Information loss (IL)",
        "mean distance between the descriptors of a photo and of its surrogate; less is more useful",
        lambda view: [],
        is_share=False,
    ),
    Measure(
        "re_identification",
        "Re-identification rate (RI)",
        "share of photos nearer to their surrogate than the threshold; the paper's measure, not a probability of "
        "being identified",
        lambda view: [("the paper's aim, 1/k", 1 / view.choice.k)],
    ),
    Measure(
        "rank1_cluster",
        "Rank-1, cluster",
        "share of people whose surrogate has somebody of their cluster as the nearest gallery face",
        lambda view: [("chance", view.scores["chance_cluster"])],
    ),
    Measure(
        "rank1_person",
        "Rank-1, person",
        "share of people to whom their surrogate leads; never above 1/k",
        lambda view: [("1/k", 1 / view.choice.k), ("chance", view.scores["chance_person"])],
    ),
    Measure(
        "stranger_share",
        "Strangers below the threshold",
        "share of pairs of a surrogate and a gallery photo of somebody outside its cluster",
        lambda view: [],
    ),
    Measure("detection_rate", "Surrogates with a face", "others have no distances", lambda view: []),
)


def share(value: float) -> str:
    """A share as text, in percent."""
    return "–" if np.isnan(value) else f"{100 * value:.1f} %"


def _value(measure: Measure, scores: dict[str, float]) -> str:
    value = scores[measure.key]
    if measure.is_share:
        return share(value)
    return "–" if np.isnan(value) else f"{value:.3f}"


def numbers_html(
    simulated: View, confirmed: View | None, gallery: evaluation.Gallery, threshold: float
) -> str:
    """The table of numbers: simulated, confirmed, and what to hold them against."""
    current = simulated if confirmed is None else confirmed
    lines = []
    for measure in MEASURES:
        drawn = measure.key == "detection_rate"
        before = "–" if drawn else _value(measure, simulated.scores)
        after = "…" if confirmed is None else _value(measure, confirmed.scores)
        against = measure.against(current)
        beside = "<br>".join(f"{html.escape(name)}: {share(value)}" for name, value in against)
        bar = _bar(current.scores[measure.key], [value for _, value in against]) if measure.is_share else ""
        emphasis = ("", " current") if confirmed is not None else (" current", "")
        lines.append(
            f'<tr><th scope="row">{measure.name}<br><small>{measure.meaning}</small></th>'
            f'<td class="number{emphasis[0]}" data-measure="{measure.key}" data-state="simulated">{before}</td>'
            f'<td class="number{emphasis[1]}" data-measure="{measure.key}" data-state="confirmed">{after}</td>'
            f"<td>{'' if drawn and confirmed is None else bar}<small>{beside}</small></td></tr>"
        )
    failed = current.scores["n_failed"]
    note = ""
    if failed:
        worst = current.scores
        rank1 = [share(worst[f"rank1_{whom}_worst"]) for whom in ("cluster", "person")]
        note = (
            f"<p><b>{failed} of {len(current.clusters)} surrogates show no face</b> that the detector finds. The "
            "numbers above leave them out; counted as the worst that could be: IL "
            f"{worst['information_loss_worst']:.3f}, RI {share(worst['re_identification_worst'])}, rank-1 "
            f"of the cluster {rank1[0]}, of the person {rank1[1]}.</p>"
        )
    kinds = {
        "same photos": "the very photos that are anonymized",
        "other photos": "other photos of the same people",
        "mixed": "other photos where people have any, else the anonymized ones",
    }
    return (
        '<table><thead><tr><th scope="col">Over the whole release</th><th scope="col">Simulated'
        "<br><small>loss too low,<br>RI too high</small></th>"
        '<th scope="col">Confirmed</th><th scope="col">Held against</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>{note}"
        f"<p><small>Distances are between {RECOGNISER} descriptors and have no unit; below {threshold:g} two photos "
        f"count as one person. Gallery: {len(gallery.identities)} photos, {kinds[gallery.kind]}. Bar: 0 to 100 %, "
        "black ticks: what it is held against.</small></p>"
    )


def _bar(value: float, ticks: Sequence[float]) -> str:
    """A share as a bar of 100 units, with ticks."""
    width = 0 if np.isnan(value) else 100 * value
    marks = "".join(f'<path d="M{100 * tick:.1f} 0v12" stroke="#000" stroke-width="2"/>' for tick in ticks)
    return (
        '<svg width="108" height="12" viewBox="-2 0 104 12" aria-hidden="true" style="display:block">'
        f'<rect y="2" width="100" height="8" fill="#e6e6e6"/>'
        f'<rect y="2" width="{width:.1f}" height="8" fill="{vizualization.COLOURS[0]}"/>{marks}</svg>'
    )


def map_svg(exploration: Exploration, view: View, label: int) -> str:
    """The clusters on a plane, as an SVG that can be clicked on: a star of lines for each, the chosen one on top."""
    raw, shares = exploration.plane(view.choice.embedding)
    low, high = raw.min(axis=0), raw.max(axis=0)
    size = np.array([MAP_WIDTH, MAP_HEIGHT], dtype=float)
    scale = (
        (size - 2 * MAP_MARGIN) / np.maximum(high - low, 1e-12)
    ).min()  # the same for both: distances stay true
    middle = (low + high) / 2

    def place(points: np.ndarray) -> np.ndarray:
        return (points - middle) * [scale, -scale] + size / 2

    positions = place(raw)
    many = len(positions) > MAP_PHOTOS
    others = [i for i in range(len(view.clusters)) if i != label]
    parts = [_star(positions[view.clusters[i]], i, view, centre_only=many) for i in others]
    parts.append(_chosen_star(positions[view.clusters[label]], label, view))
    simulated, drawn = exploration.surrogate_positions(view, label)
    parts.append(_diamond(*place(simulated)))
    if drawn is not None:
        x, y = np.clip(place(drawn), 6, size - 6)
        parts.append(
            f'<g><title>The surrogate as drawn</title><path d="M{x - 7:.1f} {y:.1f}h14M{x:.1f} {y - 7:.1f}v14'
            f'M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10" stroke="#000" stroke-width="2.2"/></g>'
        )
    text = (
        f"Map of {len(view.labels)} photos in {len(view.clusters)} clusters; cluster {label + 1} is chosen. "
        "The menu below it chooses, too."
    )
    embedding_name = html.escape(vizualization.label(view.choice.embedding))
    where = "" if view.choice.embedding == RECOGNISER else f" (on the map of {RECOGNISER} alone)"
    return (
        f'<svg role="img" aria-label="{text}" width="100%" viewBox="0 0 {MAP_WIDTH} {MAP_HEIGHT}" '
        'style="border:1px solid #999;background:#fff" fill="none" stroke-linecap="round" '
        f'onclick="{CHOOSE_CLICKED}">{"".join(parts)}</svg>'
        "<p><small>Dots: photos; lines lead to the middle of their cluster. Black rim: the chosen cluster; click on "
        f"another to choose it. ◇ Its surrogate, simulated; ✳ as drawn{where}. Across and up: the first two principal "
        f"components of the {embedding_name} descriptors, which show {share(shares[0])} and {share(shares[1])} of "
        "their variance.</small></p>"
    )


def _star(points: np.ndarray, label: int, view: View, centre_only: bool) -> str:
    centre = points.mean(axis=0)
    dots = _dots(centre[None]) if centre_only else _dots(points)
    lines = (
        ""
        if centre_only
        else f'<path d="{_spokes(points, centre)}" stroke-width="1.1" stroke-opacity="0.55"/>'
    )
    reach = (
        f'<path d="{_spokes(points, centre)}" stroke-opacity="0" stroke-width="9"/>'
        if len(points) < 50
        else ""
    )
    colour = MAP_COLOURS[label % len(MAP_COLOURS)]
    return (
        f'<g data-cluster="{label}" stroke="{colour}"><title>{_cluster_name(view, label)}'
        f'</title>{reach}{lines}<path d="{dots}" stroke-width="6" stroke-opacity="0.75"/></g>'
    )


def _chosen_star(points: np.ndarray, label: int, view: View) -> str:
    dots, lines = _dots(points), _spokes(points, points.mean(axis=0))
    strokes = [
        (lines, "#000", 3),
        (lines, CHOSEN_COLOUR, 1.6),
        (dots, "#000", 11),
        (dots, CHOSEN_COLOUR, 7.5),
    ]
    paths = "".join(
        f'<path d="{d}" stroke="{colour}" stroke-width="{width}"/>' for d, colour, width in strokes
    )
    return f'<g data-cluster="{label}"><title>{_cluster_name(view, label)}, chosen</title>{paths}</g>'


def _diamond(x: float, y: float) -> str:
    return (
        f'<g><title>The surrogate, simulated</title><path d="M{x:.1f} {y - 7:.1f}l6 7l-6 7l-6 -7z" fill="#fff" '
        'stroke="#000" stroke-width="2"/></g>'
    )


def _dots(points: np.ndarray) -> str:
    """Points as one path: lines of no length, whose round ends are dots."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)


def _spokes(points: np.ndarray, centre: np.ndarray) -> str:
    end = f"L{centre[0]:.1f} {centre[1]:.1f}"
    return "".join(f"M{x:.1f} {y:.1f}{end}" for x, y in points)


def _cluster_name(view: View, label: int) -> str:
    photos = len(view.clusters[label])
    return f"Cluster {label + 1} ({photos} photo{'s' if photos > 1 else ''})"


def members_html(exploration: Exploration, view: View, label: int) -> str:
    """The chosen cluster: its surrogate, or a preview of it, and its members with their distances."""
    cluster, faces = exploration.cluster(view, label), exploration.faces
    photos = f"{len(cluster.rows)} photo{'s' if len(cluster.rows) > 1 else ''}"
    state = "simulated" if cluster.image is None else "confirmed"
    lines = [
        f"<h3>Cluster {label + 1} of {len(view.clusters)}: {cluster.n_people} people, {photos} "
        f'<span class="badge {state}" data-cluster-state="{state}">{state}</span></h3>'
    ]
    if not cluster.nearest:
        lines.append(
            "<p><b>The detector finds no face on this surrogate</b>: there are no distances to it. It is counted among "
            "those without a face.</p>"
        )
    else:
        count = int(cluster.recognised.sum())
        soon = " (simulated: as a rule fewer once it is drawn)" if cluster.image is None else ""
        where = "somebody of this cluster" if cluster.leads_here else "somebody outside this cluster"
        lines.append(
            f"<p>Mean distance to the surrogate {cluster.distance.mean():.3f}; {count} of {photos} below "
            f"{exploration.threshold:g}, which counts as re-identified{soon}. The nearest gallery face is that of "
            f"{where} ({html.escape(cluster.nearest)}).</p>"
        )
    lines.append(_surrogate_figure(exploration, view, cluster))
    rows = _shown_rows(exploration, cluster)
    for i in rows:
        lines.append(_member_figure(exploration, cluster, i))
    if len(rows) < len(cluster.rows):
        lines.append(
            f"<p>And {len(cluster.rows) - len(rows)} more photos of the same {cluster.n_people} people.</p>"
        )
    if faces.others is None and len(faces) > faces.n_people:
        lines.append(
            "<p><small>Several photos of one person stay in that person's cluster; k counts people.</small></p>"
        )
    return "".join(lines)


def _surrogate_figure(exploration: Exploration, view: View, cluster: Cluster) -> str:
    name = html.escape(vizualization.label(view.choice.anonymizer))
    if cluster.image is None:
        source, kind = data_uri(exploration.preview(view, cluster.label)), " preview"
        text = f"<b>Preview</b>: plain mean of the upright photos, until {name} has drawn it"
    else:
        source, kind, text = (
            data_uri(cluster.image, "png"),
            "",
            f"<b>Surrogate</b> of all members, drawn by {name}",
        )
    alternative = "Preview of the surrogate" if kind else "Surrogate"
    return (
        f'<figure class="surrogate{kind}">'
        f'<img src="{source}" alt="{alternative} of cluster {cluster.label + 1}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _member_figure(exploration: Exploration, cluster: Cluster, i: int) -> str:
    row, faces = cluster.rows[i], exploration.faces
    name, person = html.escape(str(faces.names[row])), html.escape(str(faces.identities[row]))
    distance = "no distance" if np.isnan(cluster.distance[i]) else f"{cluster.distance[i]:.3f}"
    near = cluster.recognised[i]
    verdict = f"{'● below' if near else '○ above'} {exploration.threshold:g}"
    if np.isnan(cluster.distance[i]):
        verdict = ""
    source, style = data_uri(exploration.portrait(row)), "recognised" if near else ""
    return (
        f'<figure class="{style}"><img src="{source}" alt="Photo {name} of {person}">'
        f"<figcaption>{person}<br>{distance} {verdict}</figcaption></figure>"
    )


def _shown_rows(exploration: Exploration, cluster: Cluster) -> np.ndarray:
    """Places in `cluster.rows` to show: one photo of each person first, at most `SHOWN_PHOTOS`, in their order."""
    _, first = np.unique(exploration.faces.identities[cluster.rows], return_index=True)
    rest = np.setdiff1d(np.arange(len(cluster.rows)), first)
    return np.sort(np.concatenate([np.sort(first), rest])[:SHOWN_PHOTOS])


def data_uri(image: np.ndarray, kind: str = "jpeg") -> str:
    """An image (h, w, 3) as text that a page can hold: ``"jpeg"`` or ``"png"``, no side above 256 pixels."""
    longest = max(image.shape[:2])
    if longest > 256:
        image = detection.resize(image, 256 / longest)
    _, data = cv2.imencode(f".{kind}", image[..., ::-1])
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def alert_html(error: Exception, doing: str) -> str:
    """What went wrong, as a sentence."""
    text = str(error) or type(error).__name__
    return f'<div class="alert" role="alert"><b>⚠ {html.escape(doing)}:</b> {html.escape(text)}</div>'


# ----------------------------------------------------------------------------------------------------------
# The panel
# ----------------------------------------------------------------------------------------------------------

#: Seconds after which a moved slider takes effect, so that it is not followed through every value it passes; and after
#: which images begin to be drawn.
SHORT_REST, LONG_REST = 0.03, 0.6


class _Background:
    """One thread for all panels that does one thing after another: models are not safe to share between threads."""

    def __init__(self):
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(self, job: Callable[[], None]) -> None:
        """Have `job` done after those that wait; it must catch its own errors."""
        with self._lock:
            if self._thread is None:  # not before it is needed; and it never keeps Python from ending
                self._thread = threading.Thread(target=self._work, name="explorer", daemon=True)
                self._thread.start()
        self._jobs.put(job)

    def wait(self, seconds: float = 60.0) -> bool:
        """Wait until all that was submitted is done; returns whether it is."""
        done = threading.Event()
        self.submit(done.set)
        return done.wait(seconds)

    def _work(self) -> None:
        while True:
            self._jobs.get()()


BACKGROUND = _Background()


class Panel(widgets.VBox):
    """The widgets around an `Exploration`.

    Whatever goes wrong is said in `message`. The attributes ``k shrinkage embedding partitioner anonymizer cluster
    drawing`` are the controls.
    """

    def __init__(self, exploration: Exploration):
        self.exploration = exploration
        self.view: View | None = None  # simulated
        self.confirmed: View | None = None
        self._refilling = False
        self._anchor = 0  # the photo whose cluster stays chosen when clusters change
        self._ticket = 0  # of the newest work in the background; older work stops
        self._pending: dict[str, asyncio.TimerHandle] = {}
        self._make_controls(exploration.first_choice())
        self.message, self.map, self.numbers, self.members = (widgets.HTML() for _ in range(4))
        self._arrange()
        super().__init__([widgets.HTML(STYLE), self._top, self.members])
        self.add_class("anonfaces-explorer")
        for control in self._controls:
            control.observe(self._on_choice, "value")
        self.cluster.observe(self._on_cluster, "index")
        self.drawing.observe(self._on_drawing, "value")
        self.refresh()
        self._later("draw", LONG_REST, self.start_drawing)

    def _make_controls(self, choice: Choice) -> None:
        e, wide = self.exploration, {"description_width": "92px"}
        names = vizualization.label

        def menu(options: Sequence[str], value: str, text: str, tooltip: str) -> widgets.Dropdown:
            options = [(names(name), name) for name in options]
            return widgets.Dropdown(
                options=options, value=value, description=text, tooltip=tooltip, style=wide
            )

        self.k = widgets.IntSlider(
            value=choice.k, min=e.k_values[0], max=e.k_values[-1], description="k (people)", style=wide,
            tooltip="People in a cluster, at least: they share one surrogate",
        )  # fmt: skip
        self.shrinkage = widgets.FloatSlider(
            value=choice.shrinkage, min=0, max=1, step=0.05, description="Shrinkage", readout_format=".0%", style=wide,
            tooltip="How far each surrogate is pulled towards the average of all other people",
        )  # fmt: skip
        self.embedding = menu(e.embeddings, choice.embedding, "Embedding", "What people are clustered by")
        self.partitioner = menu(e.partitioners, choice.partitioner, "Partition", "How clusters are formed")
        self.anonymizer = menu(e.anonymizers, choice.anonymizer, "Anonymizer", "What draws the surrogates")
        self.drawing = widgets.Checkbox(
            value=True, indent=False, description="Draw images, confirm numbers",
            tooltip="In the background, once nothing has changed for a moment",
        )  # fmt: skip
        self.cluster = widgets.Dropdown(description="Cluster", style=wide, tooltip="The cluster shown below")
        self.cluster.add_class("anonfaces-cluster")
        self._controls = (self.k, self.shrinkage, self.embedding, self.partitioner, self.anonymizer)
        for name in Choice.__dataclass_fields__:
            control = getattr(self, name)
            control.layout.width = "300px"
            control.add_class(f"anonfaces-{name}")

    def _arrange(self) -> None:
        faces = self.exploration.faces
        what = widgets.HTML(
            f"<h3>{len(faces)} photos of {faces.n_people} people ({html.escape(faces.source)})</h3>"
        )
        explain = widgets.HTML(
            "<p><small><b>Simulated</b>: no image yet; a surrogate's descriptor is taken as the weighted mean of those "
            "mixed into it. That is about as near to its members as a face can be, so <b>the simulated "
            "re-identification rate is too high and the loss too low</b>: drawn faces lie farther away, also from "
            "strangers.<br>"
            "<b>Confirmed</b>: all images drawn, described and measured.<br><b>Shrinkage</b>: 0 % is the members' own "
            "mean, 100 % the average of all other people (over 60 photos, if there are more)."
            f"{self._left_out()}</small></p>"
        )
        for block, width in ((explain, "300px"), (self.message, "300px"), (self.map, "470px")):
            block.layout.width = width
        self.cluster.layout.width = "300px"
        self.numbers.layout = widgets.Layout(flex="1 1 430px", min_width="430px", max_width="640px")
        left = widgets.VBox([what, *self._controls, self.drawing, self.message, explain])
        self._top = widgets.HBox(
            [left, widgets.VBox([self.cluster, self.map]), self.numbers],
            layout=widgets.Layout(flex_flow="row wrap", grid_gap="14px"),
        )

    def _left_out(self) -> str:
        """Which anonymizers the menu does not offer for these photos, as a sentence."""
        unfit = [vizualization.label(name) for name in self.exploration.unfit_anonymizers]
        if not unfit:
            return ""
        return (
            f"<br><b>Not offered</b> for these photos: {html.escape(', '.join(unfit))}. Their networks must be trained "
            "on the people first, see docs/experiments/your_photos.md."
        )

    # -- what the user does --------------------------------------------------------------------------------

    def choice(self) -> Choice:
        """What the controls say."""
        return Choice(
            self.k.value, self.embedding.value, self.partitioner.value, self.anonymizer.value,
            round(self.shrinkage.value, 4),
        )  # fmt: skip

    def _on_choice(self, _change) -> None:
        self._ticket += 1  # what is being drawn is no longer wanted
        self._later("refresh", SHORT_REST, self.refresh)
        self._later("draw", LONG_REST, self.start_drawing)

    def _on_cluster(self, change) -> None:
        if self._refilling or change["new"] is None:
            return
        self._anchor = int(self.view.clusters[change["new"]][0])
        self._guarded("The cluster cannot be shown", self._show_cluster)
        if self.confirmed is None:
            self._later("draw", LONG_REST, self.start_drawing)

    def _on_drawing(self, change) -> None:
        self._ticket += 1
        if change["new"]:
            self.start_drawing()
        else:
            self._say("Simulated. Nothing is being drawn.")

    # -- what is shown -------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Show what the controls say, simulated."""
        choice = self.choice()
        if choice.embedding not in self.exploration._descriptors:
            self._say(f"Describing {len(self.exploration.faces)} photos ({choice.embedding}) …")
        if self._guarded("This cannot be shown", lambda: self._take(self.exploration.simulate(choice))):
            self._say("Simulated." if self.drawing.value else "Simulated. Nothing is being drawn.")

    def _take(self, view: View) -> None:
        """Show another simulated view."""
        self.view, self.confirmed = view, None
        label = int(view.labels[self._anchor])
        self._refilling = True  # the menu, which is no choice of the user's
        people = self.exploration.people_in_clusters(view)
        self.cluster.options = [f"{i + 1}: {count} people" for i, count in enumerate(people)]
        self.cluster.index = label
        self._refilling = False
        self._show_cluster()
        self._show_numbers()

    def _show_cluster(self) -> None:
        view, label = self.confirmed or self.view, self.cluster.index
        self.map.value = map_svg(self.exploration, view, label)
        self.members.value = members_html(self.exploration, view, label)

    def _show_numbers(self) -> None:
        e = self.exploration
        self.numbers.value = numbers_html(self.view, self.confirmed, e.gallery, e.threshold)

    def _say(self, text: str, state: str = "simulated") -> None:
        self.message.value = (
            f'<p role="status" aria-live="polite" data-state="{state}">{html.escape(text)}</p>'
        )

    def _guarded(self, doing: str, action: Callable[[], None]) -> bool:
        """Do something; whatever is wrong with it is shown as text. Returns whether it went well."""
        try:
            action()
        except Exception as error:  # a panel has nobody above it who could catch
            self.message.value = alert_html(error, doing)
            return False
        return True

    # -- drawing in the background -------------------------------------------------------------------------

    def start_drawing(self) -> None:
        """Draw the images of what is shown, unless that is done or not wanted; older work stops."""
        if not self.drawing.value or self.view is None or self.view.choice != self.choice() or self.confirmed:
            return
        self._ticket += 1
        loop, view, ticket, first = _running_loop(), self.view, self._ticket, self.cluster.index
        self._say(f"Simulated. Next: drawing {len(view.clusters)} surrogates …")
        BACKGROUND.submit(partial(self._draw, view, first, ticket, loop))

    def _draw(self, view: View, first: int, ticket: int, loop: asyncio.AbstractEventLoop | None) -> None:
        """In the background: settle the partition, then draw; results go to the panel's own thread."""

        def outdated() -> bool:
            return ticket != self._ticket

        def tell(action: Callable[[], None]) -> None:
            def unless_outdated() -> None:
                if not outdated():
                    self._guarded("The result cannot be shown", action)

            if loop is None:
                unless_outdated()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(unless_outdated)

        if outdated():
            return
        e, total = self.exploration, len(view.clusters)
        name = vizualization.label(view.choice.anonymizer)
        try:
            if not view.settled:
                e.settle(view.choice)
                view = e.simulate(view.choice)
                first = int(view.labels[self._anchor])
                tell(partial(self._take, view))
            tell(partial(self._say, f"Simulated. Preparing {name} for these photos …"))
            e.model(view.choice.anonymizer)

            def report(label: int, done: int) -> None:
                tell(partial(self._drawn, label, f"Simulated. {name}: {done} of {total} surrogates drawn."))

            confirmed = e.confirm(view, first, outdated, report)
            if confirmed is not None:
                tell(partial(self._confirm, confirmed))
        except Exception as error:  # said in the panel, which stays usable
            doing = f"{name} cannot draw this"
            tell(lambda error=error: setattr(self.message, "value", alert_html(error, doing)))

    def _drawn(self, label: int, text: str) -> None:
        self._say(text)
        if label == self.cluster.index:
            self._show_cluster()

    def _confirm(self, confirmed: View) -> None:
        self.confirmed = confirmed
        self._show_cluster()
        self._show_numbers()
        simulated, drawn = (share(view.scores["re_identification"]) for view in (self.view, confirmed))
        self._say(
            f"Confirmed: {len(confirmed.clusters)} surrogates drawn and measured. Re-identification {drawn}; "
            f"simulated it was {simulated}.",
            "confirmed",
        )

    def _later(self, name: str, seconds: float, action: Callable[[], None]) -> None:
        """Do something after a rest, in which the same thing asked for again starts the rest anew."""
        if name in self._pending:
            self._pending.pop(name).cancel()
        loop = _running_loop()
        if loop is None:  # a plain script
            action()
        else:
            self._pending[name] = loop.call_later(seconds, action)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of a notebook's kernel; None in a plain script."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def explore(faces: Faces) -> widgets.VBox:
    """Try k, embedding, partition, anonymizer and shrinkage in a panel, in a notebook or as a page.

    The panel shows the clusters on a map, the members of the chosen cluster with their surrogate, and what the release
    costs and protects. Numbers are first simulated from descriptors, then confirmed once the images are drawn in the
    background.

    Parameters
    ----------
    faces : Faces
        Of at least two people; `faces.others`, if any, is the adversary's gallery.

    Returns
    -------
    ipywidgets.VBox
        The panel, or the reason why these photos cannot be explored.

    Raises
    ------
    TypeError
        If `faces` is not a `Faces`.
    """
    try:
        return Panel(Exploration(faces))
    except ValueError as error:
        panel = widgets.VBox([widgets.HTML(STYLE + alert_html(error, "These photos cannot be explored"))])
        panel.add_class("anonfaces-explorer")
        return panel


# ----------------------------------------------------------------------------------------------------------
# The page
# ----------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parent / "app.ipynb"

#: How the page's notebook is told the photos.
SOURCE_VARIABLE = "ANONFACES_DATA"


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the explorer as a page on this machine, through Voilà; Ctrl-C ends it."""
    parser = argparse.ArgumentParser(prog="python -m explorer", description=main.__doc__)
    parser.add_argument("source", nargs="?", default="orl", help="orl, or a folder of photos (default: orl)")
    parser.add_argument("--port", type=int, default=8866)
    parser.add_argument("--no-browser", action="store_true", help="only serve; do not open a browser")
    chosen = parser.parse_args(arguments)
    known = chosen.source in datasets.DATASETS
    source = chosen.source if known else str(Path(chosen.source).expanduser().resolve())
    try:
        faces = datasets.load_faces(source, per_identity=1)
        print(faces)
        Exploration(faces).gallery  # noqa: B018 - described here, with a bar, and cached for the page
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    command = [sys.executable, "-m", "voila", str(PAGE), f"--port={chosen.port}"]
    if chosen.no_browser:
        command.append("--no-browser")
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(
            subprocess.run(command, cwd=PAGE.parent, env={**os.environ, SOURCE_VARIABLE: source}).returncode
        )


if __name__ == "__main__":
    main()
