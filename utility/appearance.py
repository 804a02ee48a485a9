"""Read a face in a photo or image: age, sex, expression, skin tone, head pose, sharpness, structure.

The networks only guess from appearance; the baselines of `utility` show how often they contradict themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import cv2
import numpy as np

import detection
import embedding
import utils
from datasets import Faces
from utility import gaze, networks, quality
from utility.networks import SEXES

#: Upright crops for sharpness and structure: side in pixels, and zoom for `detection.aligned_crop`.
CROP_SIZE, CROP_ZOOM = 112, 0.8

#: Sides in pixels of the age and the sex network's chips, dlib's padding around them, and faces per batch.
_AGE_CHIP, _SEX_CHIP, _CHIP_PADDING, _BATCH = 64, 32, 0.2, 64

#: Cheeks as polygons of landmarks: they have the least hair, shadow and make-up. Shrinking them by this factor avoids
#: the eyelids and lips.
_CHEEKS = ((1, 2, 3, 48, 31, 40, 41, 36), (15, 14, 13, 54, 35, 47, 46, 45))
_CHEEK_SHARE = 0.8

#: Median colours closer to grey than this (CIE a*, b*) have no skin tone.
_LEAST_CHROMA = 1.0

#: Landmarks of a widely used generic head: nose tip, chin, outer eye corners, mouth corners. Their positions are in
#: arbitrary units: x to the viewer's right, y up, z towards the camera.
_HEAD_LANDMARKS = (30, 8, 36, 45, 48, 54)
_HEAD_POINTS = np.array(
    [[0, 0, 0], [0, -330, -65], [-225, 170, -135], [225, 170, -135], [-150, -150, -125], [150, -150, -125]],
    dtype=float,
)

#: Outer eye corners, whose distance normalises landmark errors.
_EYE_CORNERS = (36, 45)

#: Histograms of oriented gradients: sides of the crop, its cells and blocks, number of bins, zoom of the crop.
_HOG_SIZE, _HOG_CELL, _HOG_BLOCK, _HOG_BINS, _HOG_ZOOM = 64, 8, 2, 9, 0.85


def _skin_tone(image: np.ndarray, landmarks: np.ndarray) -> float:
    """Individual typology angle of the cheeks, in degrees: dark skin is below -30, very light skin above 55.

    ITA = arctan((L* - 50) / b*): Chardon, Cretois and Hourseau, "Skin colour typology and suntanning pathways",
    International Journal of Cosmetic Science 13, 1991. Uses medians of CIE L* and b*, and assumes sRGB and a correct
    white balance.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)

    Returns
    -------
    float
        NaN if the cheeks are grey or outside the image.
    """
    # Mark the cheeks. (h, w)
    mask = np.zeros(image.shape[:2], np.uint8)
    for cheek in _CHEEKS:
        corners = landmarks[list(cheek)]
        centre = corners.mean(axis=0)
        cv2.fillPoly(mask, [np.rint(centre + _CHEEK_SHARE * (corners - centre)).astype(np.int32)], 1)
    pixels = image[mask > 0]
    if len(pixels) == 0:
        return float("nan")
    # Take the median colour of their pixels. (m, 3)
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0]
    lightness, a, b = np.median(lab, axis=0)
    if np.hypot(a, b) < _LEAST_CHROMA:
        return float("nan")
    return float(np.degrees(np.arctan2(lightness - 50, b)))


def _head_rotation(landmarks: np.ndarray) -> np.ndarray:
    """Estimate the rotation of a head from six of its landmarks: (68, 2) -> (3, 3).

    Perspective-n-point with a generic head and a camera ten head sizes away, so that cropping does not matter.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        From the head's axes (x right, y up, z to the camera) to those of the image (x right, y down, z away).
    """
    points = landmarks[list(_HEAD_LANDMARKS)].astype(np.float64)
    points = points - points.mean(axis=0)
    points = points / max(np.linalg.norm(points), 1e-9)
    camera = np.diag([10.0, 10.0, 1.0])
    head = _HEAD_POINTS / np.linalg.norm(_HEAD_POINTS - _HEAD_POINTS.mean(axis=0))
    _, turn, _ = cv2.solvePnP(head, points, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    return cv2.Rodrigues(turn)[0]


def _head_turn(rotation: np.ndarray) -> float:
    """Degrees by which a head looks to the viewer's right, from its rotation (3, 3)."""
    x, _, z = rotation[:, 2]  # the direction of the nose: the head's z axis in the image
    return float(np.degrees(np.arctan2(x, -z)))


def rotation_angle(first: np.ndarray, second: np.ndarray) -> float:
    """Angle in degrees between two rotations (3, 3)."""
    cosine = (np.trace(first.T @ second) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def landmark_error(first: np.ndarray, second: np.ndarray) -> float:
    """Normalised mean error between two sets of landmarks (68, 2), aligned by a similarity transform.

    Mean distance of corresponding points divided by the distance between the first one's outer eye corners (Sagonas et
    al., "300 Faces in-the-Wild Challenge", ICCV workshops 2013).
    """
    moved = detection.move_points(second, detection.similarity(second, first))
    eyes = np.linalg.norm(first[_EYE_CORNERS[1]] - first[_EYE_CORNERS[0]])
    return float(np.linalg.norm(first - moved, axis=1).mean() / max(eyes, 1e-9))


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian of a grey crop (h, w), values 0 to 255; grows with detail, and with noise.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    return float(cv2.Laplacian(crop.astype(np.float64), cv2.CV_64F).var())


def structural_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Mean structural similarity of two grey crops of one size: 1 for equal crops, about 0 for unrelated crops.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
    TIP 13, 2004: Gaussian window of 11 x 11 with deviation 1.5, K1 = 0.01, K2 = 0.03, over the windows that lie inside.

    Parameters
    ----------
    first, second : ndarray, shape (h, w)
        Values 0 to 255; sides of at least 11.

    Raises
    ------
    ValueError
        If the shapes differ or are too small.
    """
    if first.shape != second.shape or first.ndim != 2 or min(first.shape) < 11:
        raise ValueError(
            f"first and second must be grey crops of one size, at least 11 x 11, got {first.shape} and {second.shape}"
        )
    a, b = first.astype(np.float64), second.astype(np.float64)

    def mean(values: np.ndarray) -> np.ndarray:  # of each window: (h - 10, w - 10)
        return cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]

    # Compute the moments of each window.
    mean_a, mean_b = mean(a), mean(b)
    variance = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    # Compare luminance, contrast and structure in one term.
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((similarity / ((mean_a**2 + mean_b**2 + c1) * (variance + c2))).mean())


def peak_signal_to_noise(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two grey crops (h, w) in decibels: 59 if they differ by less than rounding."""
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1 / 12)))


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Cosine of the angle between two descriptors (d,)."""
    return float(first @ second / max(np.linalg.norm(first) * np.linalg.norm(second), 1e-12))


def _gradient_histograms(crop: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients of a grey crop (64, 64): 1764 values.

    Dalal and Triggs, "Histograms of oriented gradients for human detection", CVPR 2005: 9 unsigned orientations, cells
    of 8 x 8 pixels, overlapping blocks of 2 x 2 cells, each scaled to unit length.
    """
    # Compute gradients by central differences. (64, 64)
    padded = np.pad(crop.astype(np.float64), 1, mode="edge")
    dx, dy = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    strength = np.hypot(dx, dy)
    # Share each gradient between the two nearest bins. (64, 64, 9)
    place = (np.arctan2(dy, dx) % np.pi) / np.pi * _HOG_BINS - 0.5  # bins are centred between their limits
    lower, share = np.floor(place).astype(int), place - np.floor(place)
    votes = np.zeros((*crop.shape, _HOG_BINS))
    rows, columns = np.indices(crop.shape)
    np.add.at(votes, (rows, columns, lower % _HOG_BINS), strength * (1 - share))
    np.add.at(votes, (rows, columns, (lower + 1) % _HOG_BINS), strength * share)
    # Sum over cells. (8, 8, 9)
    n = _HOG_SIZE // _HOG_CELL
    cells = votes.reshape(n, _HOG_CELL, n, _HOG_CELL, _HOG_BINS).sum(axis=(1, 3))
    # Collect the blocks and scale them. (49, 36)
    starts = np.ndindex(n - 1, n - 1)
    blocks = np.stack([cells[i : i + _HOG_BLOCK, j : j + _HOG_BLOCK].ravel() for i, j in starts])
    return (blocks / np.sqrt((blocks**2).sum(axis=1, keepdims=True) + 1e-6)).ravel()


class FaceReadings:
    """Readings of the faces in some photos or images; each reading is computed on first use.

    Parameters
    ----------
    faces : Faces or sequence of n uint8 arrays (h, w, 3)

    Attributes
    ----------
    faces : Faces
    found : ndarray of bool, shape (n,)
    landmarks : ndarray, shape (n, 68, 2)
    ages : ndarray, shape (n,)
        Years.
    sexes, expressions, ethnicities : ndarray of int, shape (n,)
        Indices into `SEXES`, `EXPRESSIONS` and `ETHNICITIES`.
    sex_shares, expression_shares, ethnicity_shares : ndarray, shapes (n, 2), (n, 7) and (n, 5)
        Their probabilities.
    gazes : ndarray, shape (n, 3)
        Unit vectors in the axes of the image (x right, y down, z away).
    descriptors : ndarray, shape (n, 128)
        Dlib's.
    niqe : ndarray, shape (n,)
        See `quality.niqe`; of upright crops of 192 x 192 pixels.
    tones : ndarray, shape (n,)
        Skin tones in degrees; NaN for grey photos.
    rotations : ndarray, shape (n, 3, 3)
        From the head's axes (x right, y up, z to the camera) to those of the image (x right, y down, z away).
    turns : ndarray, shape (n,)
        Degrees by which heads look to the viewer's right.
    crops : ndarray of uint8, shape (n, 112, 112)
        Grey and upright.
    gradients : ndarray, shape (n, 1764)
        Histograms of oriented gradients.
    """

    def __init__(self, faces: Faces | Sequence[np.ndarray]):
        self.faces = detection.as_faces(faces)
        detections = detection.detect(self.faces)
        self.found, self.landmarks = detections.found, detections.landmarks

    def __len__(self) -> int:
        return len(self.faces)

    def _read(self, name: str, read: Callable[[Sequence[int]], np.ndarray]) -> np.ndarray:
        """Rows (n, d) of `read(positions)`, cached on disk."""
        store = f"{name}-{_code_key()}"
        return np.stack(utils.cached_batches(store, self.faces.image_keys, read, f"reading {name}", _BATCH))

    def _crops(self, rows: Sequence[int], size: int, zoom: float = 1.0) -> np.ndarray:
        """Upright crops: uint8 (b, size, size, 3)."""
        images, landmarks = self.faces.images, self.landmarks
        return np.stack([detection.aligned_crop(images[i], landmarks[i], size, zoom) for i in rows])

    def _grey_crops(self, rows: Sequence[int], size: int, zoom: float) -> np.ndarray:
        return np.stack([cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in self._crops(rows, size, zoom)])

    def _chips(self, rows: Sequence[int], size: int) -> np.ndarray:
        """Crops for dlib's networks: uint8 (b, size, size, 3)."""
        images, landmarks = self.faces.images, self.landmarks
        return np.stack([embedding.face_chip(images[i], landmarks[i], size, _CHIP_PADDING) for i in rows])

    # Each property loads its network first, to report a missing network even if the readings are cached.

    @cached_property
    def ages(self) -> np.ndarray:
        networks.load_session(networks.AGE)
        return self._read("age", lambda rows: networks.read_ages(self._chips(rows, _AGE_CHIP)))[:, 0]

    @cached_property
    def sex_shares(self) -> np.ndarray:
        networks.load_session(networks.SEX)
        return self._read("sex", lambda rows: networks.read_sexes(self._chips(rows, _SEX_CHIP)))

    @cached_property
    def sexes(self) -> np.ndarray:
        female = SEXES.index("female")
        return np.where(self.sex_shares[:, female] >= 0.5, female, SEXES.index("male"))

    @cached_property
    def expression_shares(self) -> np.ndarray:
        networks.load_expression_network()
        return self._read("expression", lambda rows: networks.read_expressions(self._crops(rows, 64)))

    @cached_property
    def expressions(self) -> np.ndarray:
        return self.expression_shares.argmax(axis=1)

    @cached_property
    def ethnicity_shares(self) -> np.ndarray:
        gaze.load("gear")

        def read(rows: Sequence[int]) -> np.ndarray:
            return gaze.read_ethnicities(self._crops(rows, gaze.GEAR_SIZE, gaze.GEAR_ZOOM))

        return self._read("ethnicity", read)

    @cached_property
    def ethnicities(self) -> np.ndarray:
        return self.ethnicity_shares.argmax(axis=1)

    @cached_property
    def gazes(self) -> np.ndarray:
        gaze.load("iris")

        def read(rows: Sequence[int]) -> np.ndarray:
            return gaze.read_irises(
                np.stack([gaze.crop_eyes(self.faces.images[i], self.landmarks[i]) for i in rows])
            )

        return gaze.directions(self._read("gaze", read), self.rotations)

    @cached_property
    def descriptors(self) -> np.ndarray:
        return embedding.embed(self.faces, "dlib")

    @cached_property
    def niqe(self) -> np.ndarray:
        def read(rows: Sequence[int]) -> np.ndarray:
            crops = self._grey_crops(rows, quality.NIQE_SIZE, CROP_ZOOM)
            return np.array([[quality.niqe(crop)] for crop in crops])

        return self._read("niqe", read)[:, 0]

    def feature_distances(self, others: FaceReadings, partners: np.ndarray) -> np.ndarray:
        """Distance of each face to a partner in the features of the expression network: (n,).

        Parameters
        ----------
        others : FaceReadings
        partners : ndarray of int, shape (n,)
            The row of the other face to which each face is compared.
        """
        networks.load_expression_network()
        theirs = others.faces.image_keys
        keys = [key + theirs[partner] for key, partner in zip(self.faces.image_keys, partners, strict=True)]

        def compare(rows: Sequence[int]) -> np.ndarray:
            crops = self._crops(rows, 64), others._crops(partners[rows], 64)
            return networks.feature_distances(*crops)[:, None]

        found = utils.cached_batches(f"perceived-{_code_key()}", keys, compare, "comparing features", _BATCH)
        return np.stack(found)[:, 0].astype(float)

    @cached_property
    def tones(self) -> np.ndarray:
        return np.array([_skin_tone(*pair) for pair in zip(self.faces.images, self.landmarks, strict=True)])

    @cached_property
    def rotations(self) -> np.ndarray:
        return np.stack([_head_rotation(points) for points in self.landmarks])

    @cached_property
    def turns(self) -> np.ndarray:
        return np.array([_head_turn(rotation) for rotation in self.rotations])

    @cached_property
    def crops(self) -> np.ndarray:
        return self._grey_crops(range(len(self)), CROP_SIZE, CROP_ZOOM)

    @cached_property
    def gradients(self) -> np.ndarray:
        def read(rows: Sequence[int]) -> np.ndarray:
            return np.stack(list(map(_gradient_histograms, self._grey_crops(rows, _HOG_SIZE, _HOG_ZOOM))))

        return self._read("gradients", read)


def _code_key() -> str:
    return utils.source_key(__file__)[:16]
