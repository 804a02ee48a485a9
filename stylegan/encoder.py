"""From photos to W+: a convolutional encoder whose coarse styles come from deep features and fine ones from shallow.

The pyramid follows Richardson et al., "Encoding in style: a StyleGAN encoder for image-to-image translation", CVPR 2021
(pSp); a code is one w for all layers and an offset for each, as in Tov et al., "Designing an encoder for StyleGAN image
manipulation", SIGGRAPH 2021 (e4e), so that it stays near what the mapping network can give.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import utils

FORMAT = 1
SLOPE = 0.2
#: Pictures that are encoded at once.
BATCH = 64
#: Layers that draw up to 8 x 8 pixels take the deepest features, those up to 32 x 32 the middle ones.
COARSE_LAYERS, MIDDLE_LAYERS = 4, 8
#: Feature maps after each halving of pictures of 128 pixels.
WIDTHS = (32, 64, 96, 128, 192)
#: Largest resolution, width and number of layers that a file may ask for.
LARGEST_SIDE, LARGEST_WIDTH, MOST_LAYERS = 1024, 4096, 18


@dataclass(frozen=True)
class Sizes:
    """Sizes of an encoder.

    Attributes
    ----------
    resolution : int
        Side of the pictures: a power of two, at least 32.
    colours : int
        Channels of the pictures, 1 or 3.
    num_layers, w_dim : int
        Of the codes.
    widths : tuple of int
        Feature maps after each halving, down to 4 x 4.
    hidden : int
        Width of the dense layers between features and codes.
    """

    resolution: int
    colours: int
    num_layers: int
    w_dim: int
    widths: tuple[int, ...] = WIDTHS
    hidden: int = 256

    def __post_init__(self):
        numbers = (
            self.resolution,
            self.colours,
            self.num_layers,
            self.w_dim,
            self.hidden,
            *self.widths,
        )
        if any(isinstance(number, bool) or not isinstance(number, int) or number < 1 for number in numbers):
            raise ValueError(f"all sizes of an encoder must be whole numbers of at least 1, not {numbers}")
        halvings = self.resolution.bit_length() - 3
        if self.resolution.bit_count() != 1 or not 32 <= self.resolution <= LARGEST_SIDE:
            raise ValueError(
                f"an encoder's pictures have a power of two from 32 to {LARGEST_SIDE} pixels a side, "
                f"not {self.resolution}"
            )
        if len(self.widths) != halvings:
            raise ValueError(
                f"pictures of {self.resolution} pixels are halved {halvings} times, "
                f"but {len(self.widths)} widths were given"
            )
        if self.colours not in (1, 3) or max(numbers[3:]) > LARGEST_WIDTH or self.num_layers > MOST_LAYERS:
            raise ValueError("pictures have 1 or 3 channels, and layers and widths must stay within bounds")


def usual_widths(resolution: int) -> tuple[int, ...]:
    """Feature maps after each halving for pictures of any resolution from 32."""
    halvings = resolution.bit_length() - 3
    return (*(WIDTHS[min(i, len(WIDTHS) - 2)] for i in range(halvings - 1)), WIDTHS[-1])


def build(sizes: Sizes, precision: str = "float32") -> keras.Model:
    """The encoder as a Keras model: pictures (n, r, r, c) to w (n, w_dim) and offsets (n, num_layers, w_dim)."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        return _build(sizes)
    finally:
        keras.config.set_dtype_policy(policy)


def _build(sizes: Sizes) -> keras.Model:
    x = inputs = keras.Input((sizes.resolution, sizes.resolution, sizes.colours))
    features = []
    for i, width in enumerate(sizes.widths):
        x = _convolve(x, width, 5 if i == 0 else 3, 2, f"halve{i}")
        if i:  # at full resolution a second convolution costs more than it brings
            y = _convolve(x, width, 3, 1, f"refine{i}a")
            y = keras.layers.Conv2D(
                width, 3, padding="same", name=f"refine{i}b", kernel_initializer=_small()
            )(y)
            x = keras.layers.Add(name=f"add{i}")([x, y])
        features.append(x)
    deep = _dense(features[-1], sizes.hidden, "deep")
    middle = _dense(_convolve(features[-2], 48, 3, 1, "narrow_middle"), sizes.hidden, "middle")
    shallow = _dense(_convolve(features[-3], 48, 3, 2, "narrow_shallow"), sizes.hidden, "shallow")
    base = keras.layers.Dense(sizes.w_dim, name="base")(keras.layers.Concatenate(name="all")([deep, middle]))
    ends = (0, min(COARSE_LAYERS, sizes.num_layers), min(MIDDLE_LAYERS, sizes.num_layers), sizes.num_layers)
    parts = []
    for source, name, first, last in zip(
        (deep, middle, shallow), ("coarse", "medium", "fine"), ends[:-1], ends[1:], strict=True
    ):
        if last > first:
            dense = keras.layers.Dense((last - first) * sizes.w_dim, name=name, kernel_initializer=_small())(
                source
            )
            parts.append(keras.layers.Reshape((last - first, sizes.w_dim), name=f"{name}_layers")(dense))
    offsets = keras.layers.Concatenate(axis=1, name="offsets")(parts) if len(parts) > 1 else parts[0]
    return keras.Model(inputs, [base, offsets], name="encoder")


def _small() -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(0.1)


def _convolve(x, width: int, size: int, stride: int, name: str):
    x = keras.layers.Conv2D(width, size, stride, "same", name=name, kernel_initializer="he_normal")(x)
    return keras.layers.LeakyReLU(SLOPE, name=f"{name}_relu")(x)


def _dense(x, width: int, name: str):
    x = keras.layers.Flatten(name=f"{name}_flat")(x)
    x = keras.layers.Dense(width, name=name, kernel_initializer="he_normal")(x)
    return keras.layers.LeakyReLU(SLOPE, name=f"{name}_relu")(x)


@dataclass(eq=False, repr=False)
class Encoder:
    """A trained encoder.

    Attributes
    ----------
    sizes : Sizes
    model : keras.Model
    description : dict
        What else is known, as plain values: ``dataset`` and ``training``.
    """

    sizes: Sizes
    model: keras.Model
    description: dict

    @cached_property
    def _encode(self):
        side, colours = self.sizes.resolution, self.sizes.colours

        def encode(pictures):
            base, offsets = self.model(pictures, training=False)
            return base[:, None] + offsets

        return tf.function(encode, input_signature=[tf.TensorSpec((None, side, side, colours), tf.float32)])

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """Find the codes of pictures.

        Parameters
        ----------
        pictures : array, shape (n, resolution, resolution, colours)
            In -1..1, aligned as the network draws faces.

        Returns
        -------
        ndarray of float32, shape (n, num_layers, w_dim)

        Raises
        ------
        ValueError
            If the pictures are not finite numbers of this shape.
        """
        pictures = np.asarray(pictures, dtype=np.float32)
        side, colours = self.sizes.resolution, self.sizes.colours
        if pictures.ndim != 4 or pictures.shape[1:] != (side, side, colours):
            raise ValueError(
                f"the pictures must have the shape (n, {side}, {side}, {colours}), not {pictures.shape}"
            )
        if not np.isfinite(pictures).all():
            raise ValueError("the pictures hold NaN or infinite values")
        codes = np.empty((len(pictures), self.sizes.num_layers, self.sizes.w_dim), dtype=np.float32)
        for start in range(0, len(pictures), BATCH):
            rows = slice(start, start + BATCH)
            codes[rows] = self._encode(tf.constant(pictures[rows])).numpy()
        return codes

    def arrays(self) -> dict[str, np.ndarray]:
        """The weights by layer and kind: ``halve0/kernel``, ``halve0/bias``, ..."""
        return {
            name: keras.ops.convert_to_numpy(variable) for name, variable in named_weights(self.model).items()
        }

    def save(self, path: str | Path, dtype: str = "float32") -> None:
        """Write an ``.npz`` file of the weights and a description as JSON.

        Parameters
        ----------
        path : str or Path
        dtype : {"float32", "float16"}

        Raises
        ------
        ValueError
            If the name does not end in ``.npz``, or a value does not fit into `dtype`.
        """
        if Path(path).suffix != ".npz":
            raise ValueError(f"{path}: encoders are kept in files whose names end in .npz")
        if dtype not in ("float32", "float16"):
            raise ValueError(f"dtype must be 'float32' or 'float16', not {dtype!r}")
        arrays = self.arrays()
        if max(float(np.abs(array).max()) for array in arrays.values()) > np.finfo(dtype).max:
            raise ValueError(f"the weights do not fit into {dtype}; save them as float32")
        text = json.dumps({"format": FORMAT, "sizes": asdict(self.sizes), **self.description})
        arrays = {name: array.astype(dtype) for name, array in arrays.items()}
        utils.save_arrays(path, {**arrays, "description": np.array([text])})


def named_weights(model: keras.Model) -> dict[str, keras.Variable]:
    """Every weight of a model by its layer's name and its own."""
    return {f"{layer.name}/{weight.name}": weight for layer in model.layers for weight in layer.weights}


def load_encoder(path: str | Path) -> Encoder:
    """Load an encoder that `Encoder.save` wrote; no code in the file is run.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged or no encoder.
    """
    arrays = utils.load_arrays(path)
    try:
        return _from_arrays(arrays)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: is no whole encoder of this suite ({reason})") from error


def _from_arrays(arrays: dict[str, np.ndarray]) -> Encoder:
    description = json.loads(str(arrays.pop("description")[0]))
    if not isinstance(description, dict) or description.pop("format", None) != FORMAT:
        raise ValueError(f"its description is not of format {FORMAT}")
    values = dict(description.pop("sizes"))
    sizes = Sizes(**{**values, "widths": tuple(values["widths"])})
    _check_claim(sizes, arrays)
    model = build(sizes)
    wanted = named_weights(model)
    if set(wanted) != set(arrays):
        raise ValueError(f"its arrays are not those of an encoder: {sorted(set(wanted) ^ set(arrays))[:3]}")
    for name, variable in wanted.items():
        array = arrays[name]
        if array.shape != tuple(variable.shape) or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{name} is not {tuple(variable.shape)} finite numbers")
        variable.assign(array.astype(np.float32))
    return Encoder(sizes, model, description)


def _check_claim(sizes: Sizes, arrays: dict[str, np.ndarray]) -> None:
    """Before a model is built: are the arrays as large as the description says?"""
    deepest = sizes.widths[-1]
    for name, shape in (
        ("deep/kernel", (16 * deepest, sizes.hidden)),
        ("base/kernel", (2 * sizes.hidden, sizes.w_dim)),
    ):
        if arrays[name].shape != shape:
            raise ValueError(f"{name} has the shape {arrays[name].shape} where {shape} is wanted")
