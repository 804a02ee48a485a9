"""Tasks learned from the images: the accuracy on other people's original photos of a classifier trained on images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter

import numpy as np
import pandas as pd
import scipy

import checks
import embedding
import intervals
import utils
from utility.appearance import FaceReadings
from utility.attributes import known_expressions, known_sexes
from utility.networks import EXPRESSIONS, SEXES
from utility.scene import ComparedImages, Measure, UtilityResult, UtilityScene

_N_FOLDS = 5
_HAPPY = EXPRESSIONS.index("happy")

#: With fewer photos of one class than this, the note reports that there are too few to learn from.
_FEW_PHOTOS = 5


def _predict_disjoint(
    train: np.ndarray,
    train_targets: np.ndarray,
    train_units: np.ndarray,
    test: np.ndarray,
    test_units: np.ndarray,
    random_state=0,
) -> np.ndarray:
    """Predict a property of test photos with classifiers that are not trained on their unit.

    A unit is a person and everyone they share an image with, so no test person is part of a training image. Five-fold
    cross-validation over units, with a class-balanced logistic regression.

    Parameters
    ----------
    train : ndarray, shape (m, d)
    train_targets, train_units : ndarray, shape (m,)
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
        With fewer than two units, or if all targets are the same.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, like all of scikit-learn
    from sklearn.model_selection import GroupKFold

    n_units = len(np.unique(test_units))
    if n_units < 2:
        raise checks.NotApplicableError("all people share one image, so there are no other people to test on")
    if len(np.unique(train_targets)) < 2:
        raise checks.NotApplicableError("all photos have the same label")
    random = utils.check_random_state(random_state)
    folds = GroupKFold(min(_N_FOLDS, n_units), shuffle=True, random_state=random)
    predicted = np.empty(len(test), dtype=train_targets.dtype)
    for _, rows in folds.split(test, groups=test_units):
        learned = ~np.isin(train_units, test_units[rows])
        targets = train_targets[learned]
        if len(np.unique(targets)) < 2:  # predict the only class
            predicted[rows] = targets[0] if len(targets) else train_targets[0]
            continue
        classifier = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
        predicted[rows] = classifier.fit(train[learned], targets).predict(test[rows])
    return predicted


def _balanced_accuracy(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean recall over the classes: (n,), (n,) -> float, NaN without rows."""
    weights = np.ones(len(truth)) if weights is None else weights
    shares = [
        weights[(truth == name) & (predicted == name)].sum() / weights[truth == name].sum()
        for name in np.unique(truth)
        if weights[truth == name].sum()
    ]
    return intervals.mean(shares)


# ---- tasks ----


def _sex_targets(scene: UtilityScene, readings: FaceReadings) -> tuple[np.ndarray, str]:
    known, female = known_sexes(readings.faces), SEXES.index("female")
    if (known >= 0).all():
        return known, "labels: from the data set"
    share = pd.Series(readings.sexes == female).groupby(readings.faces.identities).transform("mean")
    note = "labels: from the network on original photos, by majority per person"
    return np.where(share > 0.5, female, SEXES.index("male")), note


def _smile_targets(scene: UtilityScene, readings: FaceReadings) -> tuple[np.ndarray, str]:
    known, attributes = known_expressions(readings.faces), readings.faces.attributes
    if "Smiling" in attributes:
        return attributes["Smiling"].to_numpy(dtype=np.int64), "labels: from the data set"
    if (known >= 0).all():
        return (known == _HAPPY).astype(np.int64), "labels: from the data set"
    return (readings.expressions == _HAPPY).astype(np.int64), "labels: from the network on original photos"


def _turn_targets(scene: UtilityScene, readings: FaceReadings) -> tuple[np.ndarray, str]:
    middle = np.median(scene.release.photos.turns)
    turned = (readings.turns > middle).astype(np.int64)
    return turned, f"labels: heads turned by more than {middle:.0f} degrees"


#: Tasks and their features: dlib's descriptors predict sex but hardly expressions, gradients the reverse. On the ORL
#: faces (with one original photo per person for training) sex reaches only chance, because four of forty are women, and
#: smiles 0.57; the direction of the head reaches 0.82. "Older than the median" reached 0.57 and is left out.
_TASKS: dict[str, tuple[Callable, Callable]] = {
    "sex": (_sex_targets, lambda readings: embedding.embed(readings.faces, "dlib")),
    "smile": (_smile_targets, attrgetter("gradients")),
    "turn": (_turn_targets, attrgetter("gradients")),
}


def _measure_task(task: str, scene: UtilityScene) -> UtilityResult:
    """Balanced accuracy on original photos of a classifier that was trained on the images."""
    (read_targets, describe), release, faces = _TASKS[task], scene.release, scene.faces
    # Choose the task, and the original photos for testing.
    targets, _ = read_targets(scene, release.photos)
    readings = FaceReadings(faces.others) if faces.others is not None else release.photos
    tested = readings.faces
    rows = np.flatnonzero(np.isin(tested.identities, faces.identities) & readings.found)
    truth, note = read_targets(scene, readings)
    truth, features, people = truth[rows], describe(readings)[rows], tested.identities[rows]
    # Keep people who share an image on one side.
    unit_of = _shared_units(release.labels, faces.identities)
    units, test_units = (unit_of[names].to_numpy() for names in (faces.identities, people))

    def predictions(pairs: ComparedImages) -> np.ndarray:
        used = pairs.shown
        learned = describe(pairs.images)[pairs.labels[used]]
        return _predict_disjoint(learned, targets[used], units[used], features, test_units, scene.seed)

    # Train on the images, and for comparison on the photos.
    predicted = predictions(release)
    clear = predictions(ComparedImages(release.photos, release.photos, np.arange(len(faces))))
    counts = np.unique(targets, return_counts=True)[1]
    few = "; too few of one class to learn from" if counts.min() < _FEW_PHOTOS else ""
    return UtilityResult(
        _balanced_accuracy(truth, predicted),
        *intervals.bootstrap_interval(partial(_balanced_accuracy, truth, predicted), people, scene.seed),
        n=len(rows),
        n_failed=int((~release.shown).sum()),
        baseline=_balanced_accuracy(truth, clear),
        chance=1 / len(np.unique(truth)),
        note=f"balanced accuracy; {note} ({' and '.join(map(str, counts))} photos to learn from); baseline: learned "
        f"from clear photos; test people are not in the training images; n counts test photos{few}",
    )


def _shared_units(labels: np.ndarray, identities: np.ndarray) -> pd.Series:
    """Number of each person's unit, by person: people who share an image are in one unit."""
    people, person = np.unique(identities, return_inverse=True)
    size = len(people) + int(labels.max()) + 1
    graph = scipy.sparse.csr_array((np.ones(len(labels)), (person, len(people) + labels)), shape=(size, size))
    return pd.Series(
        scipy.sparse.csgraph.connected_components(graph, directed=False)[1][: len(people)], index=people
    )


#: Name -> measure of a release.
TASK_METRICS: dict[str, Measure] = {f"downstream_{task}": partial(_measure_task, task) for task in _TASKS}
