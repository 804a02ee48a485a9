"""Read the released ``FaceGen.*.h5`` files of Keras 1 and 2 as data: shapes build the network, arrays fill it.

Their network, as its shapes tell: a layer for each input (identity, orientation, emotion, joined in this
order), one for all, one for the base grid of 5 x 4; then blocks of doubling, a 5 x 5 and a 3 x 3 convolution and
batch normalisation, the last one without it, and a convolution to three channels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import keras
import numpy as np

from CNN.architecture import Architecture, build
from CNN.model import FaceNetwork, _first_line

#: What the inputs are called where a file does not say, by data set and in the order in which they are joined.
INPUTS = {
    "RaFD": ("identity", "orientation", "emotion"),
    "JAFFE": ("identity", "orientation", "emotion"),
    "YALE": ("identity", "pose", "lighting"),
}

#: Layers with weights, by what the file calls them (Keras 2, Keras 1).
KINDS = {
    "dense": "dense",
    "conv2d": "convolution",
    "convolution2d": "convolution",
    "batch_normalization": "normalisation",
    "batchnormalization": "normalisation",
}

#: Layers that the released files are made of; a file with any other is not one of them.
KNOWN_LAYERS = {
    "InputLayer", "Dense", "LeakyReLU", "Concatenate", "Merge", "Reshape", "UpSampling2D", "Conv2D",
    "Convolution2D", "BatchNormalization", "MaxPooling2D", "Model", "Functional",
}  # fmt: skip

#: No array of such a network is larger; a damaged file may claim any size.
LARGEST_ARRAY = 1 << 26

#: The base grid's proportions, rows to columns.
BASE_RATIO = (5, 4)


def load_released(path: str | Path, identities: Sequence[str] | None = None) -> FaceNetwork:
    """Load a ``FaceGen.*.h5`` file; nothing in it is run, its configuration is read as data.

    Parameters
    ----------
    path : str or Path
        The data set (RaFD, YALE, JAFFE) is taken from the file's name.
    identities : sequence of str, optional
        Whom the places of the identity code stand for: the training identities, sorted. The file does not
        say; by default they are called "0", "1", ...

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, holds other layers than the released ones (a Lambda layer above all), or shapes that do
        not fit together.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of weights")
    try:
        with h5py.File(path, "r") as file:
            config = _configuration(file)
            layers = _layers_with_weights(file)
        dataset = next((name for name in INPUTS if name.lower() in path.name.lower()), "")
        architecture = _architecture(layers, config, dataset)
        network = build(architecture)
        _fill(network, layers)
    except (OSError, KeyError, TypeError, ValueError, IndexError, RuntimeError, RecursionError) as error:
        raise ValueError(f"{path}: is no whole released face network ({_first_line(error)})") from error
    if identities is None:
        identities = [str(place) for place in range(architecture.input_sizes["identity"])]
    return FaceNetwork(architecture, network, list(identities), dataset)


def _configuration(file: h5py.File) -> list[dict]:
    """Read the file's layers as data, refusing any kind that the released files do not have."""
    text = file.attrs.get("model_config")
    if text is None:
        return []
    parts = list(_walk(json.loads(text)))
    for part in parts:
        kind = part.get("class_name")
        lambdas = [value for key, value in part.items() if key.endswith("_type") and value != "raw"]
        if any(str(value).lower() in ("lambda", "function") for value in [kind, *lambdas]):
            raise ValueError("it holds a Lambda layer, whose code would have to be run; it was not loaded")
        if "inbound_nodes" in part and kind not in KNOWN_LAYERS:
            raise ValueError(f"it holds a layer of the kind {kind!r}, which the released files do not have")
    return [part for part in parts if "inbound_nodes" in part]


def _walk(value) -> Iterator[dict]:
    """Give every object in parsed JSON."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _walk(part)


def _layers_with_weights(file: h5py.File) -> dict[str, list[list[np.ndarray]]]:
    """Arrays of each layer by its kind, in the order of the layers' numbers (conv2d_2 before conv2d_10)."""
    root = file.get("model_weights", file)
    found: dict[str, list[tuple[int, list[np.ndarray]]]] = {kind: [] for kind in set(KINDS.values())}
    for name in root:
        match = re.fullmatch(r"([a-z0-9_]*[a-z][a-z0-9]*?)(?:_(\d+))?", name)
        kind = KINDS.get(match[1]) if match else None
        if kind is None:
            continue
        if not isinstance(root.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"the layer {name} is not kept in this file")
        group = root[name]
        arrays: dict[str, np.ndarray] = {}
        group.visititems(lambda path, part, arrays=arrays: _take(path, part, arrays))
        found[kind].append((int(match[2] or 0), _in_order(name, kind, arrays)))
    return {
        kind: [arrays for _, arrays in sorted(rows, key=lambda row: row[0])] for kind, rows in found.items()
    }


def _take(path: str, part, arrays: dict[str, np.ndarray]) -> None:
    if isinstance(part, h5py.Dataset):
        if part.external or part.is_virtual or part.dtype.kind != "f" or part.size > LARGEST_ARRAY:
            raise ValueError(f"the array {path} is not kept in the file as plain numbers")
        arrays[path.rsplit("/", 1)[-1].split(":")[0]] = np.asarray(part, dtype=np.float32)


#: How the arrays of a layer end, in Keras' own order (Keras 2, Keras 1).
ENDINGS = {
    "dense": (("kernel", "W"), ("bias", "b")),
    "convolution": (("kernel", "W"), ("bias", "b")),
    "normalisation": (
        ("gamma",),
        ("beta",),
        ("moving_mean", "running_mean"),
        ("moving_variance", "running_std"),
    ),
}


def _in_order(layer: str, kind: str, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    ordered = []
    for endings in ENDINGS[kind]:
        matching = [values for name, values in arrays.items() if name.endswith(endings)]
        if len(matching) != 1:
            raise ValueError(
                f"the layer {layer} has {len(matching)} arrays called {endings[0]} instead of one"
            )
        ordered.append(matching[0])
    if not all(np.isfinite(values).all() for values in ordered):
        raise ValueError(f"the layer {layer} holds NaN or infinite values")
    return ordered


def _architecture(layers: dict, config: list[dict], dataset: str) -> Architecture:
    dense, convolutions = layers["dense"], layers["convolution"]
    n_blocks, remainder = divmod(len(convolutions) - 1, 2)
    if n_blocks < 1 or remainder or len(dense) < 3:
        raise ValueError(
            f"it has {len(dense)} dense and {len(convolutions)} convolution layers, which do not fit"
        )
    n_inputs = _count_inputs(dense)
    kernels = [kernel.shape for kernel, _ in convolutions]
    base_filters = kernels[0][2]
    rows, columns = _base_grid(config, dense[-1][0].shape[1], base_filters)
    sizes = [kernel.shape[0] for kernel, _ in dense[:n_inputs]]
    return Architecture(
        inputs=tuple(zip(_input_names(config, sizes, dataset), sizes, strict=True)),
        height=rows * 2**n_blocks,
        width=columns * 2**n_blocks,
        channels=kernels[-1][3],
        input_units=dense[0][0].shape[1],
        hidden_units=tuple(kernel.shape[1] for kernel, _ in dense[n_inputs:-1]),
        base_filters=base_filters,
        filters=tuple(shape[3] for shape in kernels[0:-1:2]),
        kernels=tuple(
            (first[0], second[0]) for first, second in zip(kernels[0:-1:2], kernels[1:-1:2], strict=True)
        ),
        normalised_blocks=len(layers["normalisation"]),
        negative_slope=_setting(config, "LeakyReLU", ("alpha", "negative_slope"), 0.3),
        epsilon=_setting(config, "BatchNormalization", ("epsilon",), 1e-3),
    )


def _count_inputs(dense: list[list[np.ndarray]]) -> int:
    """How many of the first dense layers feed the joined one, whose inputs are all their outputs."""
    joined = 0
    for number, (kernel, _) in enumerate(dense[:-1]):
        if number and kernel.shape[0] == joined:
            return number
        joined += kernel.shape[1]
    raise ValueError("its dense layers do not fit together")


def _input_names(config: list[dict], sizes: list[int], dataset: str) -> Sequence[str]:
    """Names of the inputs in the order in which they are joined, which is that of the first dense layers."""
    by_layer = {part.get("name"): part for part in config}
    feeders = [
        part for part in config if part["class_name"] == "Dense" and _feeding(part) and
        by_layer.get(_feeding(part)[0], {}).get("class_name") == "InputLayer"
    ]  # fmt: skip
    if len(feeders) == len(sizes):
        feeders.sort(key=lambda part: int(re.search(r"(\d*)$", part["name"])[1] or 0))
        return [str(_feeding(part)[0]) for part in feeders]
    names = INPUTS.get(dataset, INPUTS["RaFD"])
    if len(names) < len(sizes):
        raise ValueError(f"it has {len(sizes)} inputs, whose names it does not say")
    return names[: len(sizes)]


def _feeding(part: dict) -> list[str]:
    """Names of the layers that feed one."""
    return [str(node[0]) for nodes in part["inbound_nodes"][:1] for node in nodes]


def _base_grid(config: list[dict], units: int, filters: int) -> tuple[int, int]:
    for part in config:
        if part["class_name"] == "Reshape":
            rows, columns, channels = part["config"]["target_shape"]
            if channels == filters and rows * columns * channels == units:
                return int(rows), int(columns)
    growth = round((units / filters / (BASE_RATIO[0] * BASE_RATIO[1])) ** 0.5)
    rows, columns = BASE_RATIO[0] * growth, BASE_RATIO[1] * growth
    if rows * columns * filters != units:
        raise ValueError(f"its base grid of {units} units with {filters} channels is not 5 to 4")
    return rows, columns


def _setting(config: list[dict], kind: str, names: Sequence[str], default: float) -> float:
    values = {
        float(part["config"][name])
        for part in config
        if part["class_name"] == kind
        for name in names
        if name in part["config"]
    }
    if len(values) > 1:
        raise ValueError(f"its {kind} layers differ in {names[0]}")
    return values.pop() if values else default


#: Which of Keras' layers a kind is.
LAYER_CLASSES = {
    "dense": keras.layers.Dense,
    "convolution": keras.layers.Conv2D,
    "normalisation": keras.layers.BatchNormalization,
}


def _fill(network: keras.Model, layers: dict[str, list[list[np.ndarray]]]) -> None:
    for kind, layer_class in LAYER_CLASSES.items():
        own = [layer for layer in network.layers if isinstance(layer, layer_class)]
        for layer, arrays in zip(own, layers[kind], strict=True):
            shapes = [tuple(weight.shape) for weight in layer.weights]
            if shapes != [values.shape for values in arrays]:
                raise ValueError(
                    f"a {kind} layer has the shapes {[v.shape for v in arrays]} instead of {shapes}"
                )
            layer.set_weights(arrays)
