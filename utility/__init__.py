"""Measure what released images preserve of the photos that they replace, overall and by group.

===================== =================================================================================================
utility.networks      the networks that read age, sex and expression
utility.gaze          the optional networks that read gaze and ethnicity
utility.quality       quality without a reference: NIQE
utility.appearance    readings of one face
utility.scene         pairs of photos and images, and results
utility.attributes    photo by photo: age, sex, expression, skin tone, pose, likeness, sharpness
utility.naturalness   distances between distributions: fid, kid
utility.tasks         classifiers that are trained on the images
utility.hifd          predictions for the package hifd, and its composite with the sign of NIQE corrected
utility.papers        tables in the words of papers, as LaTeX or CSV
utility.groups        groups of people: by_group, people_groups, cluster_homogeneity
===================== =================================================================================================

Every measure compares a photo with the released image of its person, and is reported with two reference values:
``baseline``, the value for another original photo of the same person, and ``chance``, the value for another person's
image. If both are about equal, the measure is uninformative. No single measure stands for quality, least of all
detection: a blurred oval is always detected. The networks only guess; the baseline shows how often they contradict
themselves.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

import checks
import detection
import utils
from datasets import Faces
from utility.appearance import FaceReadings
from utility.attributes import ATTRIBUTE_METRICS, PHOTO_MEASURES, known_expressions, known_sexes
from utility.gaze import ETHNICITIES
from utility.groups import by_group, cluster_homogeneity, people_groups
from utility.hifd import hifd_composites, to_hifd
from utility.naturalness import NATURALNESS_METRICS, frechet_distance, kernel_distance
from utility.networks import EXPRESSIONS, SEXES, MissingModelError
from utility.papers import paper_table, to_latex
from utility.scene import ComparedImages, Measure, UtilityResult, UtilityScene
from utility.tasks import TASK_METRICS

__all__ = [
    "COLUMNS", "ETHNICITIES", "EXPRESSIONS", "METRICS", "PHOTO_MEASURES", "SEXES", "FaceReadings", "MissingModelError",
    "by_group", "cluster_homogeneity", "frechet_distance", "hifd_composites", "kernel_distance", "known_expressions",
    "known_sexes", "measure_utility", "paper_table", "people_groups", "photo_utility", "to_hifd", "to_latex",
]  # fmt: skip

#: Name -> measure of a release.
METRICS: dict[str, Measure] = {**ATTRIBUTE_METRICS, **NATURALNESS_METRICS, **TASK_METRICS}

#: Measures for which a higher value is not better.
_BETTER = {
    **{name: measure.better for name, measure in PHOTO_MEASURES.items()},
    **dict.fromkeys(NATURALNESS_METRICS, "lower"),
}

#: The columns of `measure_utility`.
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
    """Measure what the images of a release preserve of the photos that they replace.

    Parameters
    ----------
    faces : Faces
        n photos. Their `others`, if any, are the original photos to compare with.
    images : sequence of c uint8 arrays (h, w, 3)
        The released images.
    labels : ndarray of int, shape (n,)
        The image that replaces each photo.
    metrics : sequence of str
        Names in `METRICS`; all by default.
    naturalness : str, default "dlib"
        The embedding whose descriptors ``fid`` and ``kid`` compare. ``"onnx:PATH"`` uses the features of another
        network, such as Inception, from an ONNX file that returns one row of features per input (see
        `embedding.embed` for the size and scale of its input, which a JSON file next to it can specify). Its inputs are
        upright crops of the faces, not whole photos as in published results: compare only numbers computed here.
    random_state : int, default 0

    Returns
    -------
    DataFrame
        One row per metric:

        - ``value``: mean over the photos with a face in both photo and image; ``low``, ``high``: its 95 % bootstrap
          interval over people, for this release.
        - ``n``: photos measured; ``n_failed``: photos left out for a missing face; ``value_worst``: the value if these
          count with the worst possible value, if there is one.
        - ``baseline``: the value for original photos; ``chance``: the value if everyone gets another person's image.
          Baselines of agreement show the networks' errors: two original photos of one person should always agree.
        - ``better``: ``"higher"``, ``"lower"``, or ``"baseline"`` (as close to the baseline as possible).
        - ``note``: explanations; a metric that does not apply has NaN and the reason.

        Rows are cached on disk by the content of their inputs.

    Raises
    ------
    ValueError, TypeError
        For unknown metrics or labels that do not match, before any work is done.

    Examples
    --------
    >>> import anonymizer, datasets, utility
    >>> faces = datasets.load_faces("orl", per_identity=1)
    >>> blur = anonymizer.load("blur", faces)
    >>> table = utility.measure_utility(faces, [blur.apply(i) for i in range(40)], range(40))
    """
    labels = checks.check_labels(labels, len(faces), n_clusters=len(images))
    images = detection.as_faces(images)
    checks.check_all_known("metric", metrics, METRICS)
    checks.check_number("random_state", random_state, int)
    scene = UtilityScene.of(faces, images, labels, naturalness, random_state)
    # Find the cached rows.
    sets = [faces] + ([faces.others] if faces.others is not None else [])
    attributes = "\n".join(one.attributes.to_csv() for one in sets)
    inputs = (faces.fingerprint, attributes, images.image_keys, labels, naturalness, random_state)
    store = utils.CacheStore(f"utility-{utils.source_key(__file__)[:16]}")
    keys = {name: utils.content_key(name, *inputs) for name in metrics}
    known = store.get(keys.values())
    # Measure the others.
    rows, hidden = [], None if len(metrics) > len(known) else True
    for name in utils.progress(metrics, "measuring utility", disable=hidden):
        if keys[name] in known:
            rows.append(json.loads(known[keys[name]]))
            continue
        try:
            result, keep = METRICS[name](scene), True
        except (MissingModelError, checks.NotApplicableError) as error:
            result = UtilityResult.missing(scene.release, str(error))
            keep = not isinstance(error, MissingModelError)  # it may be installed later
        rows.append({"metric": name, **vars(result), "better": _BETTER.get(name, "higher")})
        if keep:
            store.put({keys[name]: json.dumps(rows[-1]).encode()})
    return pd.DataFrame(rows, columns=COLUMNS)


def photo_utility(
    faces: Faces,
    images: Sequence[np.ndarray],
    labels: np.ndarray,
    *,
    measures: Sequence[str] = tuple(PHOTO_MEASURES),
) -> pd.DataFrame:
    """Measure each photo separately.

    Parameters
    ----------
    faces, images, labels
        See `measure_utility`.
    measures : sequence of str
        Names in `PHOTO_MEASURES`; all by default. A measure whose network is not installed is NaN.

    Returns
    -------
    DataFrame
        One row per photo: ``identity``, ``label``, ``failed`` (a face is missing in photo or image), and one column per
        measure, NaN if it failed or is undefined.
    """
    labels = checks.check_labels(labels, len(faces), n_clusters=len(images))
    images = detection.as_faces(images)
    checks.check_all_known("measure", measures, PHOTO_MEASURES)
    pairs = ComparedImages(FaceReadings(faces), FaceReadings(images), labels)
    table = pd.DataFrame({"identity": faces.identities, "label": labels, "failed": ~pairs.shown})
    for name in measures:
        try:
            table[name] = PHOTO_MEASURES[name].known_values(pairs)[0]
        except MissingModelError:
            table[name] = np.nan
    return table
