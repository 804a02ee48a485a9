"""Distances between the distributions of released images and of original photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

import checks
import detection
import embedding
import intervals
import utils
from datasets import Faces
from utility.scene import N_DEALS, Measure, UtilityResult, UtilityScene

#: Minimum number of images for estimating a distance.
_FEWEST_IMAGES = 4

#: Kernels are computed between at most this many images and photos.
_MOST_IMAGES = 2000

#: The jackknife leaves out each of at most this many images.
_MOST_LEFT_OUT = 60


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Fréchet distance between Gaussians fitted to two sets of descriptors.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017,
    equation 6; with Ledoit and Wolf's shrinkage of the covariances ("A well-conditioned estimator for large-dimensional
    covariance matrices", Journal of Multivariate Analysis 88, 2004), because there are often fewer images than values.

    Parameters
    ----------
    first, second : ndarray, shapes (m, d) and (n, d)

    Returns
    -------
    float
        Biased upward for few rows: compare only results from sets of equal size.
    """
    d, gap = first.shape[1], first.mean(axis=0) - second.mean(axis=0)
    parts = [part - part.mean(axis=0) for part in (first, second)]
    # Outside the space that the rows span, r <= m + n axes, both covariances are multiples of the identity.
    beyond = max(d - sum(map(len, parts)), 0)
    if beyond:
        axes = np.linalg.qr(np.concatenate(parts).T)[0]  # (d, r)
        parts = [part @ axes for part in parts]
    # Shrink the covariances. (r, r)
    shrinkage = [_shrinkage(part, d) for part in parts]
    a, b = (
        (1 - share) * (part.T @ part / len(part)) + share * even * np.eye(part.shape[1])
        for part, (share, even) in zip(parts, shrinkage, strict=True)
    )
    # Take the trace of the square root of a @ b inside this space, and add the distance outside it.
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ b @ root), 0)).sum()
    outside = beyond * np.diff([np.sqrt(share * even) for share, even in shrinkage])[0] ** 2
    return float(gap @ gap + np.trace(a) + np.trace(b) - 2 * cross + outside)


def _shrinkage(centred: np.ndarray, d: int) -> tuple[float, float]:
    """Ledoit and Wolf's weight of a multiple of the identity, and its variance, for rows of d values in fewer axes."""
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
    the kernel (x . y / s + 1)^3, where s is the mean squared length of `second`. They divide by the number of values,
    which suits Inception's features but not descriptors of unit length.

    Parameters
    ----------
    first, second : ndarray, shapes (m, d) and (n, d)
    first_people, second_people : ndarray of bool, shapes (m, p) and (n, p), optional
        The people behind each row. Pairs with a person in common are left out because they are similar for that reason
        alone. By default only pairs of a row with itself are left out.

    Returns
    -------
    float
        Expected value 0 for sets from one distribution, however small; can be negative. NaN if no pairs are left.
    """
    scale = (second**2).sum(axis=1).mean()
    if first_people is None or second_people is None:
        everyone = np.eye(len(first) + len(second), dtype=bool)  # a separate person for each row
        first_people, second_people = everyone[: len(first)], everyone[len(first) :]

    def mean_kernel(a, b, a_people, b_people) -> float:
        counted = a_people.astype(np.float32) @ b_people.T.astype(np.float32) == 0  # (m, n)
        return intervals.mean(((a @ b.T / scale + 1) ** 3)[counted])

    within = mean_kernel(first, first, first_people, first_people)
    within += mean_kernel(second, second, second_people, second_people)
    return within - 2 * mean_kernel(first, second, first_people, second_people)


#: Descriptors (n, d), and the people behind each, bool (n, p).
_Described = tuple[np.ndarray, np.ndarray]


def _take(part: _Described, places: np.ndarray) -> _Described:
    return part[0][places], part[1][places]


def _describe(
    faces: Faces | Sequence[np.ndarray], found: np.ndarray, people: np.ndarray, name: str
) -> _Described:
    """Describe the images with a face by the embedding `name`."""
    if not found.any():
        return np.empty((0, 1)), people[found]
    shown = faces.select(found) if isinstance(faces, Faces) else [faces[i] for i in np.flatnonzero(found)]
    # Compare features of other networks unchanged, not scaled to unit length.
    options = {"normalise": False} if name.startswith("onnx:") else {}
    return embedding.embed(shown, name, **options).astype(float), people[found]


def _describe_scene(scene: UtilityScene) -> tuple[_Described, _Described, _Described]:
    """The distinct images, the photos, and the original photos to compare with, all with a face."""
    release, faces, name = scene.release, scene.faces, scene.embedding
    own = faces.identities[:, None] == faces.people  # (n, p)
    members = np.stack([own[release.labels == label].any(axis=0) for label in range(len(release.images))])
    drawn = _describe(release.images.faces.images, release.images.found, members, name)
    photos = _describe(faces, release.photos.found, own, name)
    if faces.others is None:
        return drawn, photos, photos
    known = faces.others.identities[:, None] == faces.people
    return drawn, photos, _describe(faces.others, detection.detect(faces.others).found, known, name)


def _measure_naturalness(
    distance: Callable[..., float], notes: Sequence[str], scene: UtilityScene
) -> UtilityResult:
    """Distance between the descriptors of the distinct images and of original photos of the people."""
    random = utils.check_random_state(scene.seed)

    def draw(part: _Described, size: int) -> _Described:
        return _take(part, random.choice(len(part[0]), size, replace=False))

    drawn, photos, reference = _describe_scene(scene)
    n_drawn, n_photos = len(drawn[0]), len(photos[0])
    if n_drawn < _FEWEST_IMAGES:
        raise checks.NotApplicableError(
            f"at least {_FEWEST_IMAGES} distinct images must show a face, got {n_drawn}"
        )
    # Draw equal numbers of images and photos.
    size = min(n_drawn, n_photos, _MOST_IMAGES)
    drawn = draw(drawn, size) if n_drawn > size else drawn
    reference = draw(reference, _MOST_IMAGES) if len(reference[0]) > _MOST_IMAGES else reference

    def to_reference(part: _Described) -> float:
        return distance(part[0], reference[0], part[1], reference[1])

    # Estimate the standard error by the jackknife, and the baseline from the same number of original photos.
    value = to_reference(drawn)
    left_out = [np.delete(np.arange(size), i) for i in range(min(size, _MOST_LEFT_OUT))]
    error = np.sqrt((size - 1) * np.var([to_reference(_take(drawn, rest)) for rest in left_out]))
    clear = [to_reference(draw(photos, size)) for _ in range(N_DEALS)]
    name = f"{scene.embedding} descriptors, not Inception's" if scene.embedding == "dlib" else scene.embedding
    bias, overlap = notes
    note = [
        name,
        bias,
        "baseline: the same number of original photos",
        overlap if scene.faces.others is None else "",
    ]
    note.append("n counts distinct images; interval by jackknife")
    return UtilityResult(
        value,
        value - 1.96 * error,
        value + 1.96 * error,
        n=size,
        n_failed=int((~scene.release.images.found[scene.release.labels]).sum()),
        baseline=intervals.mean(clear),
        note="; ".join(filter(None, note)),
    )


#: Name -> measure of a release.
NATURALNESS_METRICS: dict[str, Measure] = {
    "fid": partial(
        _measure_naturalness,
        lambda first, second, *people: frechet_distance(first, second),
        ("biased upward for few images", "which are also in the reference, so it is too low"),
    ),
    "kid": partial(_measure_naturalness, kernel_distance, ("", "")),
}
