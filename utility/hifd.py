"""Write the predictions that the package hifd 0.1.0 scores.

HiFD ("How Private is Private?", NeurIPS 2026, Datasets and Benchmarks) combines privacy, quality and utility in one
score. Its package reads predictions for photos and images from JSON files and computes the score:
``hifd run-all --methods FOLDER/methods.yaml --estimators FOLDER/estimators.yaml --data-dir FOLDER --out OUT``
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np

import checks
import detection
import recognisers
import utils
from datasets import Faces
from utility.appearance import FaceReadings
from utility.gaze import ETHNICITIES
from utility.networks import EXPRESSIONS, SEXES, MissingModelError
from utility.scene import ComparedImages

#: The weights of hifd's profiles (privacy, quality, three levels of utility), and the NIQE that counts as 0.
_PROFILES = {
    "privacy_first": (0.5, 0.125, 0.125, 0.125, 0.125),
    "balanced": (0.2, 0.2, 0.2, 0.2, 0.2),
    "clinical": (0.15, 0.15, 0.15, 0.15, 0.4),
}
_COMPONENTS = ("P", "Q", "U1", "U2", "U3")
_WORST_NIQE, _EPSILON = 5.0, 1e-6

#: Landmarks of each eye.
_LEFT_EYE, _RIGHT_EYE = slice(36, 42), slice(42, 48)


def _least_likely(shares: np.ndarray) -> np.ndarray:
    return np.eye(len(shares))[shares.argmin()]


def _landmarks(points: np.ndarray) -> dict[str, list]:
    centres = {
        "left_eye_center": points[_LEFT_EYE].mean(axis=0),
        "right_eye_center": points[_RIGHT_EYE].mean(axis=0),
    }
    return {"points": points.tolist(), **{name: centre.tolist() for name, centre in centres.items()}}


@dataclass(frozen=True)
class _Task:
    """One of hifd's tasks.

    Attributes
    ----------
    read : callable
        `FaceReadings` -> one row per face.
    worst : callable
        The reading of a photo -> that of an image with the worst score.
    write : callable
        A reading -> its entry in the file.
    classes : tuple of str
        Names of the values of probabilities.
    """

    read: Callable
    worst: Callable
    write: Callable
    classes: tuple[str, ...] = ()


def _plain(key: str) -> Callable:
    return lambda value: {key: np.asarray(value, dtype=float).tolist()}


#: hifd's name -> task. A face that cannot be read scores 0 (sex and expression: next to 0), as does an image whose
#: descriptor is the photo's.
_TASKS: dict[str, _Task] = {
    "age": _Task(attrgetter("ages"), lambda age: age + 100, _plain("value")),
    "gender": _Task(attrgetter("sex_shares"), _least_likely, _plain("probs"), SEXES),
    "ethnicity": _Task(attrgetter("ethnicity_shares"), _least_likely, _plain("probs"), ETHNICITIES),
    "macro_exp": _Task(attrgetter("expression_shares"), _least_likely, _plain("probs"), EXPRESSIONS),
    "landmark": _Task(attrgetter("landmarks"), lambda points: points + 10 * np.ptp(points), _landmarks),
    "gaze": _Task(attrgetter("gazes"), lambda direction: -direction, _plain("direction")),
    "niqe": _Task(attrgetter("niqe"), lambda value: value, _plain("niqe")),
}


def to_hifd(
    folder: str | Path,
    faces: Faces,
    images: Sequence[np.ndarray],
    labels: np.ndarray,
    name: str = "release",
    *,
    recogniser: str = "dlib",
) -> list[str]:
    """Write the predictions of our networks for photos and images, and hifd's two configuration files.

    Parameters
    ----------
    folder : str or Path
        Created if missing. Several releases of the same photos may be written there under different names.
    faces : Faces
        n photos.
    images : sequence of c uint8 arrays (h, w, 3)
    labels : ndarray of int, shape (n,)
        The image that replaces each photo.
    name : str, default "release"
        Name of the release in the results, a valid name of a folder.
    recogniser : str, default "dlib"
        See `recognisers.prepare`. Its cosine similarity is hifd's privacy: use the strongest at hand, and compare only
        results of the same recogniser.

    Returns
    -------
    list of str
        The tasks that were written; those whose network is not installed are missing, and hifd leaves them out of its
        means.

    Notes
    -----
    hifd leaves out samples without a prediction. Here an image without a face gets the prediction with the worst score
    instead: it counts as useless and, by its descriptor, as not private. Photos are numbered, not named. hifd compares
    landmarks in pixels, so those of an image are first aligned to its photo by a similarity transform.

    hifd takes the mean NIQE itself as quality, so a worse image scores higher; `hifd_composites` corrects this.
    """
    labels = checks.check_labels(labels, len(faces), n_clusters=len(images))
    if not name or name == "original" or Path(name).name != name:
        raise checks.ParameterError(f"name must be the name of a folder, and not 'original', got {name!r}")
    describe = recognisers.prepare(recogniser, faces)
    pairs = ComparedImages(FaceReadings(faces), FaceReadings(detection.as_faces(images)), labels)
    folder, written = Path(folder), []
    embedded = _Task(
        lambda readings: describe(readings.faces), lambda descriptor: descriptor, _plain("embedding")
    )
    for task, how in {**_TASKS, "face_embedding": embedded}.items():
        try:
            before, after = how.read(pairs.photos), how.read(pairs.images)[labels]
        except MissingModelError:
            continue
        if task == "landmark":
            after = _aligned(before, after)
        after = [
            new if shown else how.worst(old)
            for old, new, shown in zip(before, after, pairs.shown, strict=True)
        ]
        for source, place, values in (("original", "original", before), ("deid", name, after)):
            entry = {
                "task": task, "source": source, "estimator": "AnonFACES", "schema_version": "1.0",
                **({"class_names": list(how.classes)} if how.classes else {}),
                "predictions": {f"{i:06d}": how.write(value) for i, value in enumerate(values)},
            }  # fmt: skip
            _save(folder / place / f"{task}.json", entry)
        written.append(task)
    known = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != "original")
    methods = [{"name": one, "base_path": one} for one in known]
    estimators = {task: {"estimators": [_estimator(task)]} for task in written}
    # JSON is YAML.
    _save(folder / "methods.yaml", {"original": {"base_path": "original"}, "methods": methods})
    _save(folder / "estimators.yaml", {"tasks": estimators})
    return written


def _estimator(task: str) -> dict[str, str]:
    return {"name": "AnonFACES", "orig_json": f"{task}.json", "deid_json": f"{task}.json"}


def _aligned(before: np.ndarray, after: np.ndarray) -> list[np.ndarray]:
    return [
        detection.move_points(new, detection.similarity(new, old))
        for old, new in zip(before, after, strict=True)
    ]


def _save(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    utils.save_atomic(path, lambda file: file.write(json.dumps(content).encode()))


def hifd_composites(scores: Mapping[str, float]) -> dict[str, float]:
    """The composite of hifd for each profile, with quality 1 - NIQE / 5 instead of NIQE.

    Parameters
    ----------
    scores : mapping of str to float
        A row of ``per_method/method_level.csv``: ``P``, ``Q`` (hifd's, the mean NIQE), ``U1``, ``U2``, ``U3``. Missing
        values are left out, as hifd does.

    Returns
    -------
    dict
        Profile -> weighted harmonic mean, 0 to 1. It is 0 for a mean NIQE of 5 or more.
    """
    parts = {part: scores.get(part) for part in _COMPONENTS}
    if parts["Q"] is not None:
        parts["Q"] = np.clip(1 - parts["Q"] / _WORST_NIQE, 0, 1)
    known = {part: value for part, value in parts.items() if value is not None and np.isfinite(value)}
    composites = {}
    for profile, weights in _PROFILES.items():
        weight = {part: w for part, w in zip(_COMPONENTS, weights, strict=True) if part in known}
        total = sum(w / (known[part] + _EPSILON) for part, w in weight.items())
        composites[profile] = float(sum(weight.values()) / total) if total else 0.0
    return composites
