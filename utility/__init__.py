"""Photos and the images that stand for them -> what the images still tell, and for whom.

Every measure compares a photo with the released image that its person got, and stands beside two readings of itself:
``baseline``, what another clear photo of the same person gives, and ``chance``, what the image of somebody else gives.
A measure whose baseline and chance lie together says nothing. No measure stands for quality alone, detection least: a
blurred oval is always found.

What single pictures show is read in `appearance`. The networks there guess: how often they disagree with themselves on
clear photos is what the baseline tells.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

import detection
import embedding
import utils
from datasets import Faces
from utility import appearance
from utility.appearance import EXPRESSIONS, HAPPY, SEXES, MissingModelError, Pictures

N_RESAMPLES = 1000
CONFIDENCE = 0.95

#: Readings of a measure with images of others, dealt out at random, and with other photos of the person.
N_DEALS = 5

#: Groups of fewer people than this are marked: their numbers say little, and may point at single people.
FEW_PEOPLE = 5


class NotApplicableError(ValueError):
    """A measure cannot be taken on such data; the message says why."""


# ----------------------------------------------------------------------------------------------------------
# Photos beside images
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Scene:
    """Photos and the images that stand for them.

    Attributes
    ----------
    photos : Pictures
        n photos.
    images : Pictures
        c images.
    labels : ndarray of int, shape (n,)
        Which image each photo got.
    """

    photos: Pictures
    images: Pictures
    labels: np.ndarray

    @property
    def shown(self) -> np.ndarray:
        """Whether both photo and image have a face: bool (n,)."""
        return self.photos.found & self.images.found[self.labels]

    def pair(self, reading: str) -> tuple[np.ndarray, np.ndarray]:
        """A reading of `Pictures` for the photos, and for the image of each: (n, ...), (n, ...)."""
        return getattr(self.photos, reading), getattr(self.images, reading)[self.labels]


@dataclass(frozen=True, eq=False)
class Setting:
    """All that the measures of one release read.

    Attributes
    ----------
    faces : Faces
    release : Scene
    dealt : tuple of Scene
        Photos with the images of others, dealt out at random.
    clear : tuple of Scene
        Photos with another clear photo of the person in place of the image.
    clear_note : str
        What these are.
    embedding : str
        By which naturalness is measured.
    seed : int
    """

    faces: Faces
    release: Scene
    dealt: tuple[Scene, ...]
    clear: tuple[Scene, ...]
    clear_note: str
    embedding: str
    seed: int


def _setting(faces: Faces, images: Sequence[np.ndarray], labels, naturalness: str, seed: int) -> Setting:
    photos = Pictures(faces)
    release = Scene(photos, Pictures(images), labels)
    random = utils.check_random_state(seed)
    dealt = tuple(Scene(photos, release.images, _deal(labels, random)) for _ in range(N_DEALS))
    pool = faces.others if faces.others is not None else faces
    partners = _partners(
        faces, pool, utils.check_random_state(seed)
    )  # (N_DEALS, n), the same for each release
    rows, places = np.unique(partners, return_inverse=True)
    others = photos if pool is faces and len(rows) == len(faces) else Pictures(pool.select(rows))
    clear = tuple(Scene(photos, others, chosen) for chosen in places.reshape(partners.shape))
    if (partners[0] == np.arange(len(faces))).all() and pool is faces:
        note = "baseline: the photos themselves, as there are no others of these people"
    else:
        note = "baseline: another photo of the person"
    return Setting(faces, release, dealt, clear, note, naturalness, seed)


def _deal(labels: np.ndarray, random) -> np.ndarray:
    """Give each photo the image of a random photo that has another one: (n,). With a single image there is no other."""
    if len(np.unique(labels)) == 1:
        return labels
    return np.array([random.choice(labels[labels != label]) for label in labels])


def _partners(faces: Faces, pool: Faces, random) -> np.ndarray:
    """Rows of `pool` with another photo of each person: (N_DEALS, n).

    Photos of people without another one are paired with themselves where `pool` is `faces`, else with a photo of the
    pool that is theirs; people who are not in the pool are paired with anybody.
    """
    result = np.empty((N_DEALS, len(faces)), dtype=np.int64)
    for row, person in enumerate(faces.identities):
        choice = np.flatnonzero(pool.identities == person)
        if pool is faces and len(choice) > 1:
            choice = choice[choice != row]
        if len(choice) == 0:
            choice = np.arange(len(pool))
        result[:, row] = random.choice(choice, size=N_DEALS)
    return result


@dataclass(frozen=True)
class Measured:
    """One measure of one release; see `measure_utility` for what the fields are."""

    value: float
    low: float
    high: float
    n: int
    n_failed: int
    value_worst: float = float("nan")
    baseline: float = float("nan")
    chance: float = float("nan")
    note: str = ""


def interval(
    statistic: Callable[[np.ndarray], float],
    units: np.ndarray,
    random_state=0,
    n_resamples: int = N_RESAMPLES,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval, by drawing whole units (people) with replacement.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Parameters
    ----------
    statistic : callable
        Gets how often each row counts, float (n,), and returns a number; NaN where it has none.
    units : ndarray, shape (n,)
        What each row belongs to.
    random_state : int, RandomState or None, default 0
    n_resamples : int, default 1000

    Returns
    -------
    low, high : float
        NaN where less than half of the resamples have a number.
    """
    names, unit = np.unique(units, return_inverse=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    random = utils.check_random_state(random_state)
    drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)
    values = np.array([statistic(counts[unit].astype(float)) for counts in drawn])
    values = values[np.isfinite(values)]
    if len(values) < n_resamples / 2:
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def mean_interval(values: np.ndarray, units: np.ndarray, random_state=0) -> tuple[float, float]:
    """As `interval`, for a mean of values (n,).

    Where all of a share's values, which are bool, agree, the exact binomial interval for that many units stands instead
    (Clopper and Pearson 1934), as the bootstrap would give one of width 0.
    """
    n_units, tail = len(np.unique(units)), (1 - CONFIDENCE) / 2
    if n_units and values.dtype == bool and values.all():
        return float(beta.ppf(tail, n_units, 1)), 1.0
    if n_units and values.dtype == bool and not values.any():
        return 0.0, float(beta.ppf(1 - tail, 1, n_units))
    values = np.asarray(values, dtype=float)
    return interval(lambda weights: _weighted_mean(values, weights), units, random_state)


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    total = weights.sum()
    return float(weights @ values / total) if total else float("nan")


def _mean(values) -> float:
    values = np.asarray(values, dtype=float)
    return float(values.mean()) if len(values) else float("nan")


def cohen_kappa(first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Agreement of two readings (n,) beyond what their frequencies give by chance: 1 for all, 0 for none.

    Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20, 1960.

    Returns
    -------
    float
        NaN where both give one and the same value to all, or there is nothing.
    """
    weights = np.ones(len(first)) if weights is None else weights
    total = weights.sum()
    if not total:
        return float("nan")
    values = np.unique([first, second])
    a, b = first == values[:, None], second == values[:, None]  # (v, n)
    observed = weights[first == second].sum() / total
    expected = float((a @ weights) @ (b @ weights)) / total**2
    return float((observed - expected) / (1 - expected)) if expected < 1 - 1e-12 else float("nan")


# ----------------------------------------------------------------------------------------------------------
# Measures of each photo: (n,), NaN where there is nothing to compare
# ----------------------------------------------------------------------------------------------------------


def detected(scene: Scene) -> np.ndarray:
    """Whether the detector finds a face on the image. Says nothing about its quality."""
    return scene.images.found[scene.labels].astype(float)


def age_errors(scene: Scene) -> np.ndarray:
    """Years between the ages read on photo and image."""
    photo, image = scene.pair("ages")
    return np.abs(photo - image)


def sex_agreements(scene: Scene) -> np.ndarray:
    """Whether photo and image are read as the same sex."""
    photo, image = scene.pair("sexes")
    return (photo == image).astype(float)


def expression_agreements(scene: Scene) -> np.ndarray:
    """Whether photo and image are read as the same of seven expressions."""
    photo, image = scene.pair("expressions")
    return (photo == image).astype(float)


def skin_tone_errors(scene: Scene) -> np.ndarray:
    """Degrees between the individual typology angles of photo and image; NaN for grey ones."""
    photo, image = scene.pair("tones")
    return np.abs(photo - image)


def pose_errors(scene: Scene) -> np.ndarray:
    """Degrees between the rotations of the head on photo and image."""
    return np.array([appearance.rotation_angle(a, b) for a, b in zip(*scene.pair("rotations"), strict=True)])


def landmark_errors(scene: Scene) -> np.ndarray:
    """Normalised mean error between the landmarks of photo and image, see `appearance.landmark_error`."""
    return np.array([appearance.landmark_error(a, b) for a, b in zip(*scene.pair("landmarks"), strict=True)])


def sharpnesses(scene: Scene) -> np.ndarray:
    """Variance of the Laplacian on the image, upright and at equal size."""
    values = np.array([appearance.sharpness(crop) for crop in scene.images.crops])
    return values[scene.labels]


def similarities(scene: Scene) -> np.ndarray:
    """Structural similarity of photo and image, both upright and at equal size."""
    return np.array(
        [appearance.structural_similarity(a, b) for a, b in zip(*scene.pair("crops"), strict=True)]
    )


def perceived_distances(scene: Scene) -> np.ndarray:
    """Distance in the features of the expression network, see `appearance.feature_distances`."""
    appearance._expression_weights()
    photos, images = scene.photos, scene.images
    keys = [photos.keys[i] + images.keys[label] for i, label in enumerate(scene.labels)]

    def compare(rows):
        rows = np.asarray(rows)
        first, second = photos.expression_crops(rows), images.expression_crops(scene.labels[rows])
        return appearance.feature_distances(first, second)[:, None]

    store = f"perceived-{_code_key()}"
    return np.stack(utils.cached_batches(store, keys, compare, "comparing features", appearance.BATCH))[
        :, 0
    ].astype(float)


def known_sexes(faces: Faces) -> np.ndarray:
    """What the data set says of each photo's sex: places in `SEXES`, -1 where it says nothing.

    Read from the attribute ``sex`` (``"female"``, ``"male"``) or CelebA's ``Male``.
    """
    if "Male" in faces.attributes:
        male = faces.attributes["Male"].to_numpy(dtype=bool)
        return np.where(male, SEXES.index("male"), SEXES.index("female"))
    return _places(faces, "sex", {name: place for place, name in enumerate(SEXES)})


#: RaFD's words for expressions; of contempt the network knows nothing.
EXPRESSION_WORDS = {**{name: place for place, name in enumerate(EXPRESSIONS)}, "contemptuous": -1}


def known_expressions(faces: Faces) -> np.ndarray:
    """What the data set says of each photo's expression: places in `EXPRESSIONS`, -1 where it says nothing.

    Read from the attribute ``expression``.
    """
    return _places(faces, "expression", EXPRESSION_WORDS)


def _places(faces: Faces, column: str, places: Mapping[str, int]) -> np.ndarray:
    if column not in faces.attributes:
        return np.full(len(faces), -1)
    words = faces.attributes[column].astype(str).str.lower()
    return words.map(places).fillna(-1).to_numpy(dtype=np.int64)


@dataclass(frozen=True)
class PhotoMeasure:
    """A measure that every photo has, and whose mean is reported.

    Attributes
    ----------
    values : callable
        Scene -> (n,).
    better : str
        ``"higher"``, ``"lower"``, or ``"baseline"``: as near to that of clear photos as can be.
    is_share : bool
        Whether values are 0 or 1.
    lost : float
        What a photo counts in ``value_worst`` whose image shows no face; NaN where there is no such number.
    is_paired : bool
        Whether it depends on which photo got which image.
    """

    values: Callable[[Scene], np.ndarray]
    better: str
    is_share: bool = False
    lost: float = float("nan")
    is_paired: bool = True


PHOTO_MEASURES: dict[str, PhotoMeasure] = {
    "detection_rate": PhotoMeasure(detected, "higher", is_share=True, lost=0.0, is_paired=False),
    "age_error": PhotoMeasure(age_errors, "lower"),
    "sex_agreement": PhotoMeasure(sex_agreements, "higher", is_share=True, lost=0.0),
    "expression_agreement": PhotoMeasure(expression_agreements, "higher", is_share=True, lost=0.0),
    "skin_tone_error": PhotoMeasure(skin_tone_errors, "lower"),
    "pose_error": PhotoMeasure(pose_errors, "lower"),
    "landmark_error": PhotoMeasure(landmark_errors, "lower"),
    "sharpness": PhotoMeasure(sharpnesses, "baseline", is_paired=False),
    "similarity": PhotoMeasure(similarities, "higher", lost=0.0),
    "feature_distance": PhotoMeasure(perceived_distances, "lower"),
}

#: Further words on a measure.
NOTES = {
    "detection_rate": "no sign of quality by itself",
    "sharpness": "variance of the Laplacian; grows with noise, too",
    "feature_distance": "expression network's features, not fitted to human judgement",
}


def _values(measure: PhotoMeasure, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Values with NaN for failures, and which photos failed: (n,), (n,)."""
    values = np.asarray(measure.values(scene), dtype=float)
    failed = np.zeros(len(values), dtype=bool) if measure.values is detected else ~scene.shown
    return np.where(failed, np.nan, values), failed


def _measure_photos(name: str, setting: Setting) -> Measured:
    measure = PHOTO_MEASURES[name]
    values, failed = _values(measure, setting.release)
    counted = np.isfinite(values)
    notes = [NOTES.get(name, ""), setting.clear_note]
    if (~counted & ~failed).any():
        what = "grey photos have no skin tone" if measure.values is skin_tone_errors else "no value"
        notes.insert(0, f"{what}: {int((~counted & ~failed).sum())} photos left out")
    known = values[counted].astype(bool) if measure.is_share else values[counted]
    return Measured(
        _mean(known),
        *mean_interval(known, setting.faces.identities[counted], setting.seed),
        int(counted.sum()),
        int(failed.sum()),
        _mean(np.where(failed, measure.lost, values)[counted | failed]),
        _mean_over(setting.clear, measure),
        _mean_over(setting.dealt, measure) if measure.is_paired else float("nan"),
        "; ".join(filter(None, notes)),
    )


def _mean_over(scenes: Sequence[Scene], measure: PhotoMeasure) -> float:
    values = np.concatenate([_values(measure, scene)[0] for scene in scenes])
    return _mean(values[np.isfinite(values)])


# ----------------------------------------------------------------------------------------------------------
# Agreement beyond frequencies, and with what is known
# ----------------------------------------------------------------------------------------------------------


def _measure_kappa(reading: str, setting: Setting) -> Measured:
    """Cohen's kappa between what is read on photos and on their images."""

    def readings(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        return tuple(part[scene.shown] for part in scene.pair(reading))

    def mean_kappa(scenes):
        kappas = np.array([cohen_kappa(*readings(scene)) for scene in scenes])
        return _mean(kappas[np.isfinite(kappas)])

    first, second = readings(setting.release)
    shown = setting.release.shown
    value = cohen_kappa(first, second)
    bounds = interval(
        lambda weights: cohen_kappa(first, second, weights), setting.faces.identities[shown], setting.seed
    )
    note = (
        "" if np.isfinite(value) else "all are read alike, which leaves no agreement beyond chance to measure"
    )
    return Measured(
        value, *bounds, len(first), int((~shown).sum()), baseline=mean_kappa(setting.clear),
        chance=mean_kappa(setting.dealt), note="; ".join(filter(None, [note, setting.clear_note])),
    )  # fmt: skip


def _measure_known(known: Callable[[Faces], np.ndarray], reading: str, setting: Setting) -> Measured:
    """Share of photos whose image is read as what the data set says; the baseline is that on the photos themselves."""
    truth = known(setting.faces)
    said = truth >= 0
    if not said.any():
        raise NotApplicableError(f"the data set {setting.faces.source} says nothing of this")
    release = setting.release
    right = release.pair(reading)[1] == truth
    failed = said & ~release.images.found[release.labels]
    counted = said & ~failed
    dealt = [(scene.pair(reading)[1] == truth)[counted] for scene in setting.dealt]
    clear = (release.pair(reading)[0] == truth)[said & release.photos.found]
    return Measured(
        _mean(right[counted]),
        *mean_interval(right[counted], setting.faces.identities[counted], setting.seed),
        int(counted.sum()),
        int(failed.sum()),
        _mean((right & ~failed)[said]),
        _mean(clear),
        _mean(np.concatenate(dealt)),
        "baseline: the network on the clear photos themselves, which is 1 less its own failures",
    )


# ----------------------------------------------------------------------------------------------------------
# Naturalness
# ----------------------------------------------------------------------------------------------------------

#: From fewer images no distance between distributions is estimated.
FEWEST_IMAGES = 4

#: Kernels are computed between at most so many pictures.
MOST_PICTURES = 2000


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of descriptors.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017,
    equation 6; with Ledoit and Wolf's shrinkage of the covariances ("A well-conditioned estimator for large-dimensional
    covariance matrices", Journal of Multivariate Analysis 88, 2004), as there are often fewer pictures than values.

    Parameters
    ----------
    first, second : ndarray, shapes (m, d) and (n, d)

    Returns
    -------
    float
        Biased upward for few pictures: compare only numbers from equally many.
    """
    d, gap = first.shape[1], first.mean(axis=0) - second.mean(axis=0)
    parts = [part - part.mean(axis=0) for part in (first, second)]
    beyond = d - sum(map(len, parts))
    if (
        beyond > 0
    ):  # across all rows both Gaussians are round: only the space that the rows span is worked out
        axes = np.linalg.qr(np.concatenate(parts).T)[0]  # (d, m + n)
        parts = [part @ axes for part in parts]
    fitted = [(part.T @ part / len(part), *_shrinkage(part, d)) for part in parts]
    a, b = ((1 - share) * scatter + share * even * np.eye(len(scatter)) for scatter, share, even in fitted)
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0)).sum()
    outside = max(beyond, 0) * np.diff([np.sqrt(share * even) for _, share, even in fitted])[0] ** 2
    return float(gap @ gap + np.trace(a) + np.trace(b) - 2 * cross + outside)


def _shrinkage(centred: np.ndarray, d: int) -> tuple[float, float]:
    """Ledoit and Wolf's share of the round Gaussian, and its variance, for rows of d values written in fewer axes."""
    n, lengths = len(centred), (centred**2).sum(axis=1)
    gram = centred @ centred.T if n < centred.shape[1] else centred.T @ centred
    even, squares = lengths.sum() / n / d, (gram**2).sum() / n**2
    apart = squares / d - even**2
    noise = min(((lengths**2).sum() / n - squares) / (d * n), apart)
    return (float(noise / apart) if noise > 0 else 0.0), float(even)


def kernel_distance(
    first: np.ndarray,
    second: np.ndarray,
    first_people: np.ndarray | None = None,
    second_people: np.ndarray | None = None,
) -> float:
    """Unbiased squared maximum mean discrepancy between two sets of descriptors.

    Bińkowski, Sutherland, Arbel and Gretton, "Demystifying MMD GANs", ICLR 2018 (the kernel Inception distance), with
    the kernel (x . y / s + 1)^3, where s is the mean squared length of `second`; they divide by the number of values,
    which suits Inception's features and not descriptors of unit length.

    Parameters
    ----------
    first, second : ndarray, shapes (m, d) and (n, d)
    first_people, second_people : ndarray of bool, shapes (m, p) and (n, p), optional
        Which people are in each picture. Pairs that share one are left out, as they are alike for that reason alone; by
        default only each picture with itself.

    Returns
    -------
    float
        Expected value 0 for sets of one distribution, however small; may be negative. NaN where no pair is left.
    """
    scale = (second**2).sum(axis=1).mean()
    if first_people is None or second_people is None:
        first_people = np.eye(len(first), len(first) + len(second), dtype=bool)
        second_people = np.eye(len(second), len(first) + len(second), k=len(first), dtype=bool)

    def mean_kernel(a, b, a_people, b_people):
        counted = a_people.astype(np.float32) @ b_people.T.astype(np.float32) == 0
        return _mean(((a @ b.T / scale + 1) ** 3)[counted])

    within = mean_kernel(first, first, first_people, first_people)
    within += mean_kernel(second, second, second_people, second_people)
    return within - 2 * mean_kernel(first, second, first_people, second_people)


#: Distances between a set of pictures and a reference: descriptors (m, d), (n, d), people (m, p), (n, p) -> number.
DISTRIBUTION_DISTANCES: dict[str, Callable] = {
    "fid": lambda first, second, *people: frechet_distance(first, second),
    "kid": kernel_distance,
}


@dataclass(frozen=True, eq=False)
class _Described:
    """Descriptors of pictures (n, d) and which of all people are in each (n, p)."""

    rows: np.ndarray
    people: np.ndarray

    def some(self, size: int, random) -> _Described:
        """At most so many of them, chosen at random."""
        return (
            self if len(self.rows) <= size else self.take(random.choice(len(self.rows), size, replace=False))
        )

    def take(self, places) -> _Described:
        return _Described(self.rows[places], self.people[places])


def _described(setting: Setting) -> tuple[_Described, _Described, _Described]:
    """The different images, the photos, and the clear photos to compare with; those with a face."""
    release, faces = setting.release, setting.faces
    names = faces.people

    def describe(source, found, people):
        if not found.any():
            return _Described(np.empty((0, 1)), people[found])
        shown = (
            source.select(found) if isinstance(source, Faces) else [source[i] for i in np.flatnonzero(found)]
        )
        # features of other networks are compared as they are, not brought to unit length
        options = {"normalise": False} if setting.embedding.startswith("onnx:") else {}
        return _Described(embedding.embed(shown, setting.embedding, **options).astype(float), people[found])

    own = faces.identities[:, None] == names  # (n, p)
    members = np.stack([own[release.labels == label].any(axis=0) for label in range(len(release.images))])
    drawn = describe(release.images.source, release.images.found, members)
    photos = describe(faces, release.photos.found, own)
    if faces.others is None:
        return drawn, photos, photos
    others = faces.others
    return (
        drawn,
        photos,
        describe(others, detection.detect(others).found, others.identities[:, None] == names),
    )


def _measure_naturalness(name: str, setting: Setting) -> Measured:
    """Distance between the descriptors of the different images and those of clear photos of the people."""
    distance = DISTRIBUTION_DISTANCES[name]
    random = utils.check_random_state(setting.seed)
    drawn, photos, reference = _described(setting)
    if len(drawn.rows) < FEWEST_IMAGES:
        raise NotApplicableError(f"{len(drawn.rows)} different images with a face are too few")
    size = min(len(drawn.rows), len(photos.rows), MOST_PICTURES)
    drawn, reference = drawn.some(size, random), reference.some(MOST_PICTURES, random)

    def to_reference(part: _Described) -> float:
        return distance(part.rows, reference.rows, part.people, reference.people)

    value = to_reference(drawn)
    left_out = [np.delete(np.arange(size), i) for i in range(min(size, MOST_LEFT_OUT))]
    error = np.sqrt((size - 1) * np.var([to_reference(drawn.take(rest)) for rest in left_out]))
    clear = [
        to_reference(photos.take(random.choice(len(photos.rows), size, replace=False)))
        for _ in range(N_DEALS)
    ]
    notes = [
        f"{setting.embedding} descriptors, not Inception's"
        if setting.embedding == "dlib"
        else setting.embedding,
        "" if name == "kid" else "biased upward for few images",
        "baseline: as many clear photos",
        ""
        if name == "kid" or setting.faces.others is not None
        else "which are in the reference, too: it is too low",
        "n counts different images; interval by jackknife",
    ]
    n_failed = int((~setting.release.images.found[setting.release.labels]).sum())
    return Measured(
        value, value - 1.96 * error, value + 1.96 * error, size, n_failed, baseline=_mean(clear),
        note="; ".join(filter(None, notes)),
    )  # fmt: skip


#: The jackknife leaves out each of at most so many images.
MOST_LEFT_OUT = 60


# ----------------------------------------------------------------------------------------------------------
# A task learned from the images
# ----------------------------------------------------------------------------------------------------------

N_FOLDS = 5


def downstream(
    train: np.ndarray,
    train_targets: np.ndarray,
    train_units: np.ndarray,
    test: np.ndarray,
    test_units: np.ndarray,
    random_state=0,
) -> np.ndarray:
    """Predict a property of test pictures by classifiers that never saw anything of their unit.

    Units are people and all with whom they share an image, so that no test person's face went into a training image. In
    turn a fifth of the units is tested, and a logistic regression with balanced classes learns from the others.

    Parameters
    ----------
    train : ndarray, shape (m, d)
    train_targets : ndarray, shape (m,)
    train_units : ndarray, shape (m,)
    test : ndarray, shape (n, d)
    test_units : ndarray, shape (n,)
    random_state : int, RandomState or None, default 0

    Returns
    -------
    ndarray, shape (n,)
        Predicted targets.

    Raises
    ------
    NotApplicableError
        With fewer than two units, or for targets that are all the same.
    """
    units = np.unique(test_units)
    if len(units) < 2:
        raise NotApplicableError("all people share one image, which leaves nobody to test on")
    if len(np.unique(train_targets)) < 2:
        raise NotApplicableError("all have the same label")
    folds = GroupKFold(
        min(N_FOLDS, len(units)), shuffle=True, random_state=utils.check_random_state(random_state)
    )
    predicted = np.empty(len(test), dtype=train_targets.dtype)
    for _, rows in folds.split(test, groups=test_units):
        learned = ~np.isin(train_units, test_units[rows])
        targets = train_targets[learned]
        if len(np.unique(targets)) < 2:  # nothing to tell apart is learned from one class
            predicted[rows] = targets[0] if len(targets) else train_targets[0]
            continue
        classifier = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
        predicted[rows] = classifier.fit(train[learned], targets).predict(test[rows])
    return predicted


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean over classes of the share that is predicted right; (n,), (n,) -> float, NaN without rows."""
    weights = np.ones(len(truth)) if weights is None else weights
    shares = [
        weights[(truth == name) & (predicted == name)].sum() / weights[truth == name].sum()
        for name in np.unique(truth)
        if weights[truth == name].sum()
    ]
    return _mean(shares)


def _sex_targets(setting: Setting, faces: Faces, pictures: Pictures) -> tuple[np.ndarray, str]:
    known = known_sexes(faces)
    if (known >= 0).all():
        return known, "labels: the data set's"
    female = pd.Series(pictures.sexes == SEXES.index("female")).groupby(faces.identities).transform("mean")
    return np.where(female > 0.5, SEXES.index("female"), SEXES.index("male")), (
        "labels: the network's on clear photos, by majority for each person"
    )


def _smile_targets(setting: Setting, faces: Faces, pictures: Pictures) -> tuple[np.ndarray, str]:
    if "Smiling" in faces.attributes:
        return faces.attributes["Smiling"].to_numpy(dtype=np.int64), "labels: the data set's"
    known = known_expressions(faces)
    if (known >= 0).all():
        return (known == HAPPY).astype(np.int64), "labels: the data set's"
    return (pictures.expressions == HAPPY).astype(np.int64), "labels: the network's on the clear photos"


def _turn_targets(setting: Setting, faces: Faces, pictures: Pictures) -> tuple[np.ndarray, str]:
    middle = np.median(setting.release.photos.turns)
    return (pictures.turns > middle).astype(
        np.int64
    ), f"labels: heads turned by more than {middle:.0f} degrees"


def _descriptors(pictures: Pictures) -> np.ndarray:
    return embedding.embed(pictures.source, "dlib")


def _gradients(pictures: Pictures) -> np.ndarray:
    return pictures.gradients


#: What is learned, and from which features: dlib's descriptors tell sex and hardly expressions, gradients the reverse.
#: On the built-in faces (one clear photo of each to learn from) sex reaches chance only, as four of forty are women,
#: and smiles 0.57; which way heads are turned reaches 0.82, and older than the median, which is left out, 0.57.
TASKS = {
    "sex": (_sex_targets, _descriptors),
    "smile": (_smile_targets, _gradients),
    "turn": (_turn_targets, _gradients),
}


def _measure_downstream(target: str, setting: Setting) -> Measured:
    """Balanced accuracy on clear photos of a classifier that learned from the images."""
    (read, describe), release, faces = TASKS[target], setting.release, setting.faces
    tested = faces.others if faces.others is not None else faces
    pictures = Pictures(tested) if faces.others is not None else release.photos
    rows = np.flatnonzero(np.isin(tested.identities, faces.identities) & pictures.found)
    truth, note = read(setting, tested, pictures)
    targets, _ = read(setting, faces, release.photos)
    unit_of = _shared_units(release.labels, faces.identities)
    units = np.array([unit_of[person] for person in faces.identities])
    test_units = np.array([unit_of[person] for person in tested.identities[rows]])
    truth, features, people = truth[rows], describe(pictures)[rows], tested.identities[rows]

    def predictions(scene: Scene) -> np.ndarray:
        used = scene.shown
        learned = describe(scene.images)[scene.labels[used]]
        return downstream(learned, targets[used], units[used], features, test_units, setting.seed)

    predicted = predictions(release)
    clear = predictions(Scene(release.photos, release.photos, np.arange(len(faces))))
    value = balanced_accuracy(truth, predicted)
    bounds = interval(lambda weights: balanced_accuracy(truth, predicted, weights), people, setting.seed)
    counts = np.unique(targets, return_counts=True)[1]
    few = "; too few of one kind to learn from" if counts.min() < FEW_PEOPLE else ""
    return Measured(
        value, *bounds, len(rows), int((~release.shown).sum()),
        baseline=balanced_accuracy(truth, clear), chance=1 / len(np.unique(truth)),
        note=f"balanced accuracy; {note} ({' and '.join(map(str, counts))} photos to learn from); baseline: learned "
        f"from clear photos; nobody tested went into what was learned from; n counts test photos{few}",
    )  # fmt: skip


def _shared_units(labels: np.ndarray, identities: np.ndarray) -> dict[str, int]:
    """Number of the unit that each person belongs to: those who share an image are in one."""
    unit = {person: number for number, person in enumerate(np.unique(identities))}
    for label in np.unique(labels):
        people = np.unique(identities[labels == label])
        joined = {unit[person] for person in people}
        first = min(joined)
        unit = {person: first if number in joined else number for person, number in unit.items()}
    return unit


# ----------------------------------------------------------------------------------------------------------
# All measures of a release
# ----------------------------------------------------------------------------------------------------------

#: Every measure by its name: a function of a `Setting`.
METRICS: dict[str, Callable[[Setting], Measured]] = {
    **{name: functools.partial(_measure_photos, name) for name in PHOTO_MEASURES},
    "sex_kappa": functools.partial(_measure_kappa, "sexes"),
    "expression_kappa": functools.partial(_measure_kappa, "expressions"),
    "sex_known": functools.partial(_measure_known, known_sexes, "sexes"),
    "expression_known": functools.partial(_measure_known, known_expressions, "expressions"),
    **{name: functools.partial(_measure_naturalness, name) for name in DISTRIBUTION_DISTANCES},
    **{f"downstream_{name}": functools.partial(_measure_downstream, name) for name in TASKS},
}

#: Whether more or less is better.
BETTER = {
    **{name: measure.better for name, measure in PHOTO_MEASURES.items()},
    **dict.fromkeys(DISTRIBUTION_DISTANCES, "lower"),
}

COLUMNS = [
    "metric", "value", "low", "high", "n", "n_failed", "value_worst", "baseline", "chance", "better", "note",
]  # fmt: skip


@utils.one_thread
def measure_utility(
    faces: Faces,
    images: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    naturalness: str = "dlib",
    random_state: int = 0,
) -> pd.DataFrame:
    """Measure what the images of a release still tell about the photos that they stand for.

    Parameters
    ----------
    faces : Faces
        n photos. With `others`, those are the clear photos to compare with.
    images : sequence of c uint8 arrays (h, w, 3)
        The released images.
    labels : ndarray of int, shape (n,)
        Which image each photo got.
    metrics : sequence of str
        Names in `METRICS`; all by default.
    naturalness : str, default "dlib"
        The embedding whose descriptors ``fid`` and ``kid`` compare. ``"onnx:PATH"`` takes another network's features,
        such as Inception's, where the user has them as an ONNX file that answers with one row of features a picture
        (see `embedding.embed` for size and scale of its input, which a JSON file beside it can hold). It is given
        upright crops of the faces, not whole photos as in published numbers: compare only numbers from here.
    random_state : int, default 0

    Returns
    -------
    DataFrame
        A row for each metric:

        - ``value``: mean over the photos whose image, and which themselves, show a face; ``low``, ``high``: its 95 %
          bootstrap interval over people, the release being as it is.
        - ``n``: photos measured; ``n_failed``: photos left out as a face was missing; ``value_worst``: with these
          counted as lost, where there is such a number.
        - ``baseline``: the same for clear photos; ``chance``: the same where everybody gets the image of somebody else.
          Baselines of agreement show the networks' own failures: two clear photos of one person should always agree.
        - ``better``: ``"higher"``, ``"lower"``, or ``"baseline"``: as near to that as can be.
        - ``note``: what to know of it; a metric that cannot be taken has NaN and the reason.

        Rows are kept on disk by the content of all that they depend on.

    Raises
    ------
    ValueError, TypeError
        For unknown metrics, or labels that do not fit, before any work is done.

    Examples
    --------
    >>> import anonymizer, datasets, utility
    >>> faces = datasets.load_faces("orl", per_identity=1)
    >>> blur = anonymizer.load("blur", faces)
    >>> table = utility.measure_utility(faces, [blur.apply(i) for i in range(40)], range(40))
    """
    labels = _checked_labels(faces, images, labels)
    if isinstance(metrics, str) or set(metrics) - set(METRICS):
        raise ValueError(
            f"metrics must be a list of names out of {', '.join(map(repr, METRICS))}, not {metrics!r}"
        )
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer):
        raise TypeError(
            f"random_state must be a whole number, by which results are kept, not {random_state!r}"
        )
    setting = _setting(faces, images, labels, naturalness, int(random_state))
    store = utils.CacheStore("utility-" + _code_key())
    content = (
        faces.fingerprint,
        _attributes_text(faces),
        setting.release.images.keys,
        labels,
        naturalness,
        int(random_state),
    )
    keys = {name: utils.content_key(name, *content) for name in metrics}
    known = store.get(keys.values())
    rows = []
    for name in utils.progress(
        metrics, "measuring utility", disable=None if len(metrics) > len(known) else True
    ):
        if keys[name] in known:
            rows.append(json.loads(known[keys[name]]))
            continue
        row, keep = _row(name, setting)
        if keep:
            store.put({keys[name]: json.dumps(row).encode()})
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(name: str, setting: Setting) -> tuple[dict, bool]:
    """One row of the table, and whether it may be kept: a network that is missing may be installed tomorrow."""
    keep = True
    try:
        measured = METRICS[name](setting)
    except (MissingModelError, NotApplicableError) as error:
        keep = not isinstance(error, MissingModelError)
        measured = Measured(
            *[float("nan")] * 3, n=0, n_failed=int((~setting.release.shown).sum()), note=str(error)
        )
    return {"metric": name, **vars(measured), "better": BETTER.get(name, "higher")}, keep


def _attributes_text(faces: Faces) -> str:
    parts = [faces.attributes] + ([faces.others.attributes] if faces.others is not None else [])
    return "\n".join(part.to_csv() for part in parts)


def _checked_labels(faces: Faces, images: Sequence[np.ndarray], labels) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (len(faces),):
        raise ValueError(
            f"{len(faces)} photos need {len(faces)} labels, not an array of shape {labels.shape}"
        )
    if labels.dtype.kind not in "iu" or not np.array_equal(np.unique(labels), np.arange(len(images))):
        raise ValueError(
            f"labels must use every whole number from 0 to {len(images) - 1}, one for each image"
        )
    for image in images:
        detection.check_image(image)
    return labels.astype(np.int64)


def photo_utility(
    faces: Faces,
    images: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    measures: Sequence[str] = tuple(PHOTO_MEASURES),
) -> pd.DataFrame:
    """Measure each photo by itself.

    Parameters
    ----------
    faces, images, labels
        See `measure_utility`.
    measures : sequence of str
        Names in `PHOTO_MEASURES`; all by default. One whose network is not installed is all NaN.

    Returns
    -------
    DataFrame
        A row for each photo: ``identity``, ``label``, ``failed`` (a face is missing on photo or image), and a column
        for each measure, NaN where it failed or cannot be taken.
    """
    labels = _checked_labels(faces, images, labels)
    unknown = set(measures) - set(PHOTO_MEASURES)
    if isinstance(measures, str) or unknown:
        raise ValueError(f"measures must be a list of names out of {', '.join(map(repr, PHOTO_MEASURES))}")
    scene = Scene(Pictures(faces), Pictures(images), labels)
    table = pd.DataFrame({"identity": faces.identities, "label": labels, "failed": ~scene.shown})
    for name in measures:
        try:
            table[name] = _values(PHOTO_MEASURES[name], scene)[0]
        except MissingModelError:
            table[name] = np.nan
    return table


# ----------------------------------------------------------------------------------------------------------
# For whom
# ----------------------------------------------------------------------------------------------------------

#: Limits in years between the groups of `people_groups`.
AGE_LIMITS = (30, 45)


@dataclass(frozen=True, eq=False)
class PeopleGroups:
    """Which groups the people on some photos belong to.

    Attributes
    ----------
    table : DataFrame, n rows
        Columns out of ``sex``, ``age_group``, ``ethnicity``; one value for all photos of a person.
    sources : dict of str to str
        For each column ``"data set"`` or ``"network"``.
    """

    table: pd.DataFrame
    sources: dict[str, str]


def people_groups(faces: Faces) -> PeopleGroups:
    """Sort people into groups by sex, age and ethnicity.

    What the data set says comes first (RaFD's ``sex`` and ``ethnicity``, CelebA's ``Male``). Else sex and age are what
    the networks read on most of the person's photos, `others` included. Nobody's ethnicity is guessed. A group
    is left out where neither is at hand.
    """
    table, sources = pd.DataFrame(index=range(len(faces))), {}
    sexes = known_sexes(faces)
    pool = _all_photos(faces)
    try:
        pictures = Pictures(pool)
        if (sexes >= 0).all():
            table["sex"], sources["sex"] = np.array(SEXES)[sexes], "data set"
        else:
            female = pd.Series(pictures.sexes == SEXES.index("female")).groupby(pool.identities).mean()
            table["sex"] = np.where(female[faces.identities] > 0.5, *SEXES)
            sources["sex"] = "network"
        ages = pd.Series(pictures.ages).groupby(pool.identities).median()[faces.identities].to_numpy()
        table["age_group"] = _age_groups(ages)
        sources["age_group"] = "network"
    except MissingModelError:
        if (sexes >= 0).all():
            table["sex"], sources["sex"] = np.array(SEXES)[sexes], "data set"
    if "ethnicity" in faces.attributes:
        table["ethnicity"], sources["ethnicity"] = (
            faces.attributes["ethnicity"].to_numpy(dtype=str),
            "data set",
        )
    return PeopleGroups(table, sources)


def _all_photos(faces: Faces) -> Faces:
    """The photos and the others of the same people."""
    return faces if faces.others is None else faces.joined(faces.others)


def _age_groups(ages: np.ndarray) -> np.ndarray:
    names = [f"under {AGE_LIMITS[0]}", f"{AGE_LIMITS[0]} to {AGE_LIMITS[1] - 1}", f"{AGE_LIMITS[1]} and over"]
    return np.array(names)[np.digitize(ages, AGE_LIMITS)]


def by_group(
    values: pd.DataFrame, groups: pd.DataFrame, people: np.ndarray, random_state: int = 0
) -> pd.DataFrame:
    """Compare groups of people in measures of privacy or utility.

    Parameters
    ----------
    values : DataFrame, n rows
        A column for each measure, a row for each photo or person; NaN where it failed.
    groups : DataFrame, n rows
        A column for each way of grouping, such as `people_groups` gives.
    people : ndarray of str, shape (n,)
        Whose each row is.
    random_state : int, default 0

    Returns
    -------
    DataFrame
        A row for each measure and group, and one for all: ``measure grouping group value low high n_people n n_failed
        few``. Intervals are 95 % bootstrap over people. ``few`` marks groups of under 5 people, whose numbers
        say little.

    Raises
    ------
    ValueError
        If the numbers of rows do not fit.
    """
    if not len(values) == len(groups) == len(people):
        raise ValueError(
            f"{len(values)} rows of values, {len(groups)} of groups and {len(people)} people; "
            "there must be as many of each"
        )
    people, rows = np.asarray(people, dtype=str), []
    for measure in values.columns:
        column = values[measure].to_numpy(dtype=float)
        rows.append(_group_row(measure, "all", "all", column, people, random_state))
        for grouping in groups.columns:
            names = groups[grouping].to_numpy()
            for name in sorted(set(names)):
                mask = names == name
                rows.append(_group_row(measure, grouping, name, column[mask], people[mask], random_state))
    return pd.DataFrame(rows)


def _group_row(measure, grouping, group, values, people, random_state) -> dict:
    known = np.isfinite(values)
    inside = values[known]
    inside = inside.astype(bool) if np.isin(inside, (0, 1)).all() else inside
    low, high = mean_interval(inside, people[known], random_state)
    n_people = len(np.unique(people))
    return {
        "measure": measure, "grouping": grouping, "group": group, "value": _mean(inside), "low": low, "high": high,
        "n_people": n_people, "n": int(known.sum()), "n_failed": int((~known).sum()), "few": n_people < FEW_PEOPLE,
    }  # fmt: skip


def cluster_groups(labels: np.ndarray, groups: np.ndarray, identities: np.ndarray) -> pd.DataFrame:
    """Tell how alike the people of each cluster are in one grouping; what all share, the surrogate gives away.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        The cluster of each photo.
    groups : ndarray, shape (n,)
        The group of each photo's person.
    identities : ndarray of str, shape (n,)
        People count once, however many photos they have.

    Returns
    -------
    DataFrame
        A row for each cluster: ``label n_people majority``, ``majority_share`` (of people in the commonest group),
        ``distinct`` (groups present: the l of l-diversity, Machanavajjhala et al., ICDE 2006) and ``entropy`` in bits.
    """
    people = _people_once(labels, groups, identities)
    rows = []
    for label, part in people.groupby("label")["group"]:
        counts = part.value_counts()
        shares = counts.to_numpy() / counts.sum()
        rows.append(
            {
                "label": int(label),
                "n_people": int(counts.sum()),
                "majority": counts.index[0],
                "majority_share": float(shares[0]),
                "distinct": len(counts),
                "entropy": float(-(shares * np.log2(shares)).sum()) + 0.0,
            }  # fmt: skip
        )
    return pd.DataFrame(rows)


def _people_once(labels, groups, identities) -> pd.DataFrame:
    if not len(labels) == len(groups) == len(identities):
        raise ValueError(
            f"{len(labels)} labels, {len(groups)} groups and {len(identities)} identities do not fit"
        )
    table = pd.DataFrame({"label": labels, "group": groups, "identity": identities})
    return table.drop_duplicates(["label", "identity"], ignore_index=True)


def cluster_homogeneity(
    labels: np.ndarray, groups: np.ndarray, identities: np.ndarray, *, n_random: int = 1000, random_state=0
) -> pd.DataFrame:
    """Compare how alike the people of clusters are with random clusters of the same sizes.

    Parameters
    ----------
    labels, groups, identities
        See `cluster_groups`.
    n_random : int, default 1000
        Random clusterings.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    DataFrame
        A row for each of ``majority_share``, ``distinct`` and ``entropy``: ``value`` (mean over people), ``worst`` (of
        the most uniform cluster), ``random``, ``random_low``, ``random_high`` (mean and central 95 % of random
        clusterings).
    """
    random = utils.check_random_state(random_state)
    people = _people_once(labels, groups, identities)
    names, group = np.unique(people["group"].to_numpy(dtype=str), return_inverse=True)
    label = np.unique(people["label"], return_inverse=True)[1]
    shape = (label.max() + 1, len(names))

    def means(group):
        counts = np.bincount(label * shape[1] + group, minlength=shape[0] * shape[1]).reshape(shape)
        sizes = counts.sum(axis=1)
        shares = counts / sizes[:, None]
        entropies = 0.0 - (shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)
        each = np.stack([shares.max(axis=1), (counts > 0).sum(axis=1), entropies])  # (3, clusters)
        return each @ sizes / sizes.sum(), each

    value, each = means(group)
    dealt = np.stack([means(random.permutation(group))[0] for _ in range(n_random)])  # (n_random, 3)
    low, high = np.quantile(dealt, [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {
            "measure": ["majority_share", "distinct", "entropy"],
            "value": value,
            "worst": [each[0].max(), each[1].min(), each[2].min()],
            "random": dealt.mean(axis=0),
            "random_low": low,
            "random_high": high,
        }
    )


def _code_key() -> str:
    return utils.source_key(__file__)[:16]
