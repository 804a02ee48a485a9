"""Read the published ``FaceGen.*.h5`` files of Keras 1 and 2 as data: shapes build the network, arrays fill it.

As the shapes show, the network has one dense layer per input (identity, orientation, emotion, concatenated in this
order), one joint layer, and one for the base grid of 5 x 4. Then come blocks of upsampling, a 5 x 5 and a 3 x 3
convolution and batch normalisation (except in the last block), and a convolution to three channels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

import utils
from CNN.architecture import Architecture, build
from CNN.model import FaceNetwork, check_size
from storage.descriptions import dictionaries
from storage.hdf5 import check_hdf5
from storage.kinds import check_kind, read_head
from storage.reading import Budget
from training.backend import keras

# Names of the inputs for files without names, by data set, in the order of concatenation.
_INPUTS = {
    "RaFD": ("identity", "orientation", "emotion"),
    "JAFFE": ("identity", "orientation", "emotion"),
    "YALE": ("identity", "pose", "lighting"),
}

# Suffixes of the names of a layer's arrays, in Keras' own order (Keras 2, Keras 1).
_KERNEL_AND_BIAS = (("kernel", "W"), ("bias", "b"))
_MOMENTS = (("moving_mean", "running_mean"), ("moving_variance", "running_std"))

# Layers with weights: name and number (Keras 2 or Keras 1), class, and suffixes of the names of their arrays.
_WEIGHTED = (
    (r"dense(?:_(\d+))?", keras.layers.Dense, _KERNEL_AND_BIAS),
    (r"conv(?:olution)?2d(?:_(\d+))?", keras.layers.Conv2D, _KERNEL_AND_BIAS),
    (r"batch_?normalization(?:_(\d+))?", keras.layers.BatchNormalization, (("gamma",), ("beta",), *_MOMENTS)),
)

# All layer kinds in the published files; a file with any other kind is rejected.
_KNOWN_LAYERS = {
    "InputLayer", "Dense", "LeakyReLU", "Concatenate", "Merge", "Reshape", "UpSampling2D", "Conv2D",
    "Convolution2D", "BatchNormalization", "MaxPooling2D", "Model", "Functional",
}  # fmt: skip

# Aspect ratio of the base grid, rows to columns.
_BASE_RATIO = (5, 4)

# Arrays of each layer, by the class of the layer and in the order of the network.
_Layers = dict[type, list[list[np.ndarray]]]


def load_facegen(path: str | Path, identities: Sequence[str] | None = None) -> FaceNetwork:
    """Load a ``FaceGen.*.h5`` file. Nothing in it is executed; its configuration is read as data.

    Parameters
    ----------
    path : str or Path
        The file name contains the data set (RaFD, YALE, JAFFE).
    identities : sequence of str, optional
        The person behind each position of the identity code: the training identities, sorted. The file does not
        contain them; by default they are "0", "1", ...

    Returns
    -------
    FaceNetwork

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged, holds a layer that the published files do not have (above all Lambda), or its shapes do
        not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file")
    budget = Budget(path.stat().st_size)
    try:
        check_kind(read_head(path), "hdf5")
        with h5py.File(path, "r") as file:
            check_hdf5(file, budget)
            config = _configuration(file)
            layers = _layers_with_weights(file)
        dataset = next((name for name in _INPUTS if name.lower() in path.name.lower()), "")
        architecture = _architecture(layers, config, dataset)
        check_size(architecture, budget)
        network = build(architecture)
        _fill(network, layers)
    except Exception as error:  # damaged files make json, h5py and keras raise their own exceptions
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a complete FaceGen network ({reason})") from error
    if identities is None:
        identities = [str(position) for position in range(architecture.input_sizes["identity"])]
    return FaceNetwork(architecture, network, list(identities), dataset)


def _configuration(file: h5py.File) -> list[dict]:
    """Read the layers' configuration; reject any kind of layer that the published files do not have."""
    parts = list(dictionaries(utils.parse_json(file.attrs.get("model_config", "[]"))))
    for part in parts:
        kind = part.get("class_name")
        code = [value for key, value in part.items() if key.endswith("_type") and value != "raw"]
        if any(str(value).lower() in ("lambda", "function") for value in [kind, *code]):
            raise ValueError("it holds a Lambda layer, whose code would have to be executed")
        if "inbound_nodes" in part and kind not in _KNOWN_LAYERS:
            raise ValueError(f"it holds a layer of kind {kind!r}, which FaceGen files do not have")
    return [part for part in parts if "inbound_nodes" in part]


def _layers_with_weights(file: h5py.File) -> _Layers:
    """Read the layers' arrays, sorted by layer number (conv2d_2 before conv2d_10)."""
    root, layers = file.get("model_weights", file), {}
    for pattern, kind, endings in _WEIGHTED:
        matches = [match for name in root if (match := re.fullmatch(pattern, name))]
        matches.sort(key=lambda match: int(match[1] or 0))
        layers[kind] = [_arrays_of(root, match[0], endings) for match in matches]
    return layers


def _arrays_of(root: h5py.Group, layer: str, endings: Sequence[tuple[str, ...]]) -> list[np.ndarray]:
    """Read one layer's arrays, in the order of their name suffixes."""
    found: dict[str, np.ndarray] = {}

    def take(path: str, part) -> None:
        if isinstance(part, h5py.Dataset):
            if part.dtype.kind != "f":
                raise ValueError(f"the array {path} does not hold plain numbers")
            found[path.rsplit("/", 1)[-1].split(":")[0]] = np.asarray(part, dtype=np.float32)

    root[layer].visititems(take)
    ordered = []
    for ending in endings:
        matching = [values for name, values in found.items() if name.endswith(ending)]
        if len(matching) != 1:
            raise ValueError(f"the layer {layer} must have one array {ending[0]}, got {len(matching)}")
        ordered.append(matching[0])
    if not all(np.isfinite(values).all() for values in ordered):
        raise ValueError(f"the layer {layer} holds NaN or infinite values")
    return ordered


def _architecture(layers: _Layers, config: list[dict], dataset: str) -> Architecture:
    """Read the architecture from the shapes of the arrays."""
    dense, convolutions = layers[keras.layers.Dense], layers[keras.layers.Conv2D]
    n_blocks, remainder = divmod(len(convolutions) - 1, 2)
    if n_blocks < 1 or remainder or len(dense) < 3:
        raise ValueError(f"{len(dense)} dense and {len(convolutions)} convolution layers are inconsistent")
    n_inputs = _count_inputs(dense)
    kernels = [kernel.shape for kernel, _ in convolutions]
    first, second = kernels[0:-1:2], kernels[1:-1:2]  # of each block
    base_filters = kernels[0][2]
    rows, columns = _base_grid(dense[-1][0].shape[1], base_filters)
    sizes = [kernel.shape[0] for kernel, _ in dense[:n_inputs]]
    return Architecture(
        inputs=tuple(zip(_input_names(config, sizes, dataset), sizes, strict=True)),
        height=rows * 2**n_blocks,
        width=columns * 2**n_blocks,
        channels=kernels[-1][3],
        input_units=dense[0][0].shape[1],
        hidden_units=tuple(kernel.shape[1] for kernel, _ in dense[n_inputs:-1]),
        base_filters=base_filters,
        filters=tuple(shape[3] for shape in first),
        kernels=tuple((a[0], b[0]) for a, b in zip(first, second, strict=True)),
        normalised_blocks=len(layers[keras.layers.BatchNormalization]),
        negative_slope=_setting(config, "LeakyReLU", ("alpha", "negative_slope"), 0.3),
        epsilon=_setting(config, "BatchNormalization", ("epsilon",), 1e-3),
    )


def _count_inputs(dense: list[list[np.ndarray]]) -> int:
    """Number of first dense layers that feed the joint layer, which takes all their outputs."""
    joined = 0
    for number, (kernel, _) in enumerate(dense[:-1]):
        if number and kernel.shape[0] == joined:
            return number
        joined += kernel.shape[1]
    raise ValueError("its dense layers are inconsistent")


def _input_names(config: list[dict], sizes: list[int], dataset: str) -> Sequence[str]:
    """Names of the inputs in the order of concatenation, which is that of the first dense layers."""
    inputs = {part.get("name") for part in config if part["class_name"] == "InputLayer"}
    names = {}
    for part in config:
        feeding = [str(node[0]) for nodes in part["inbound_nodes"][:1] for node in nodes]
        if part["class_name"] == "Dense" and feeding and feeding[0] in inputs:
            names[int(re.search(r"(\d*)$", part["name"])[1] or 0)] = feeding[0]
    if len(names) == len(sizes):
        return [name for _, name in sorted(names.items())]
    usual = _INPUTS.get(dataset, _INPUTS["RaFD"])
    if len(usual) < len(sizes):
        raise ValueError(f"it has {len(sizes)} inputs without names")
    return usual[: len(sizes)]


def _base_grid(units: int, filters: int) -> tuple[int, int]:
    """Rows and columns of the grid after the last dense layer, in the ratio 5 to 4."""
    growth = round((units / filters / (_BASE_RATIO[0] * _BASE_RATIO[1])) ** 0.5)
    rows, columns = _BASE_RATIO[0] * growth, _BASE_RATIO[1] * growth
    if rows * columns * filters != units:
        raise ValueError(f"its base grid of {units} units with {filters} channels is not 5 to 4")
    return rows, columns


def _setting(config: list[dict], kind: str, names: Sequence[str], default: float) -> float:
    """The setting that all layers of a kind share."""
    settings = [part["config"] for part in config if part["class_name"] == kind]
    values = {float(setting[name]) for setting in settings for name in names if name in setting}
    if len(values) > 1:
        raise ValueError(f"its {kind} layers differ in {names[0]}")
    return values.pop() if values else default


def _fill(network: keras.Model, layers: _Layers) -> None:
    """Set the weights of the network."""
    for kind, all_arrays in layers.items():
        own = [layer for layer in network.layers if isinstance(layer, kind)]
        for layer, arrays in zip(own, all_arrays, strict=True):
            shapes, wanted = [v.shape for v in arrays], [tuple(weight.shape) for weight in layer.weights]
            if shapes != wanted:
                raise ValueError(f"the shapes of a {kind.__name__} layer are {shapes}, but must be {wanted}")
            layer.set_weights(arrays)
