"""Encode photos in W+ with a convolutional encoder: coarse styles from deep features, fine styles from shallow.

The pyramid follows Richardson et al., "Encoding in style: a StyleGAN encoder for image-to-image translation", CVPR 2021
(pSp). A code is one w for all layers and an offset for each, as in Tov et al., "Designing an encoder for StyleGAN image
manipulation", SIGGRAPH 2021 (e4e), so that it stays near the range of the mapping network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np

import utils
from checks import Choice, Number, ParameterError, check_array, check_fields, check_number
from stylegan.appearance import AppearanceEncoder
from stylegan.network import save_weights, take_description
from training.backend import keras, tf

_SLOPE = 0.2
# Number of images to encode at once.
_BATCH = 64
# Layers that draw up to 8 x 8 pixels take the deepest features, those up to 32 x 32 the middle ones.
_COARSE_LAYERS, _MIDDLE_LAYERS = 4, 8
# Feature maps after each halving of images of 128 pixels.
_WIDTHS = (32, 64, 96, 128, 192)
# Largest width and number of layers that a file may have.
_LARGEST_WIDTH, _MOST_LAYERS = 4096, 18

_Width = Annotated[int, Number(int, at_least=1, at_most=_LARGEST_WIDTH)]


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes of an encoder.

    Attributes
    ----------
    resolution : int
        Side of the images: a power of two from 32 to 1024.
    colours : int
        Channels of the images, 1 or 3.
    num_layers, w_dim : int
        Shape of the codes.
    widths : tuple of int
        Feature maps after each halving, down to 4 x 4.
    hidden : int
        Width of the dense layers between features and codes.
    """

    resolution: Annotated[int, Choice((32, 64, 128, 256, 512, 1024))]
    colours: Annotated[int, Choice((1, 3))]
    num_layers: Annotated[int, Number(int, at_least=1, at_most=_MOST_LAYERS)]
    w_dim: _Width
    widths: tuple[int, ...] = _WIDTHS
    hidden: _Width = 256

    def __post_init__(self):
        check_fields(self)
        if len(self.widths) != _halvings(self.resolution):
            raise ParameterError(
                f"widths must be {_halvings(self.resolution)} numbers for pictures of {self.resolution} pixels, "
                f"got {len(self.widths)}"
            )
        for width in self.widths:
            check_number("width", width, int, at_least=1, at_most=_LARGEST_WIDTH)


def _halvings(resolution: int) -> int:
    """Number of halvings to reduce images to 4 x 4."""
    return resolution.bit_length() - 3


def default_widths(resolution: int) -> tuple[int, ...]:
    """Feature maps after each halving, for images of any resolution from 32."""
    return (*(_WIDTHS[min(i, len(_WIDTHS) - 2)] for i in range(_halvings(resolution) - 1)), _WIDTHS[-1])


def build_encoder(sizes: EncoderSizes, precision: str = "float32") -> keras.Model:
    """Build an encoder with random weights.

    Parameters
    ----------
    sizes : EncoderSizes
    precision : str, default "float32"
        ``"mixed_bfloat16"`` computes in 16 bits; weights keep 32 bits.

    Returns
    -------
    keras.Model
        Maps pictures (n, r, r, c) to w (n, w_dim) and offsets (n, num_layers, w_dim).
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        return _build(sizes)
    finally:
        keras.config.set_dtype_policy(policy)


def _build(sizes: EncoderSizes) -> keras.Model:
    # Halve the pictures to 4 x 4 and keep the features of every size. (n, r / 2, r / 2, width), ...
    x = inputs = keras.Input((sizes.resolution, sizes.resolution, sizes.colours))
    features = []
    for i, width in enumerate(sizes.widths):
        x = _convolve(x, width, 5 if i == 0 else 3, 2, f"halve{i}")
        if i:  # at full resolution a second convolution is not worth its cost
            y = _convolve(x, width, 3, 1, f"refine{i}a")
            layer = keras.layers.Conv2D(
                width, 3, padding="same", name=f"refine{i}b", kernel_initializer=_small()
            )
            x = keras.layers.Add(name=f"add{i}")([x, layer(y)])
        features.append(x)
    # Summarise the three smallest sizes. (n, hidden)
    deep = _dense(features[-1], sizes.hidden, "deep")
    middle = _dense(_convolve(features[-2], 48, 3, 1, "narrow_middle"), sizes.hidden, "middle")
    shallow = _dense(_convolve(features[-3], 48, 3, 2, "narrow_shallow"), sizes.hidden, "shallow")
    # One w, and an offset for each layer. (n, w_dim), (n, num_layers, w_dim)
    base = keras.layers.Dense(sizes.w_dim, name="base")(keras.layers.Concatenate(name="all")([deep, middle]))
    n_layers = sizes.num_layers
    ends = (0, min(_COARSE_LAYERS, n_layers), min(_MIDDLE_LAYERS, n_layers), n_layers)
    parts = []
    for source, name, first, last in zip(
        (deep, middle, shallow), ("coarse", "medium", "fine"), ends[:-1], ends[1:], strict=True
    ):
        if last > first:
            layer = keras.layers.Dense((last - first) * sizes.w_dim, name=name, kernel_initializer=_small())
            shape = (last - first, sizes.w_dim)
            parts.append(keras.layers.Reshape(shape, name=f"{name}_layers")(layer(source)))
    offsets = keras.layers.Concatenate(axis=1, name="offsets")(parts) if len(parts) > 1 else parts[0]
    return keras.Model(inputs, [base, offsets], name="encoder")


def _small() -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(0.1)


def _convolve(x, width: int, size: int, stride: int, name: str):
    x = keras.layers.Conv2D(width, size, stride, "same", name=name, kernel_initializer="he_normal")(x)
    return keras.layers.LeakyReLU(_SLOPE, name=f"{name}_relu")(x)


def _dense(x, width: int, name: str):
    x = keras.layers.Flatten(name=f"{name}_flat")(x)
    x = keras.layers.Dense(width, name=name, kernel_initializer="he_normal")(x)
    return keras.layers.LeakyReLU(_SLOPE, name=f"{name}_relu")(x)


@dataclass(eq=False, repr=False)
class Encoder:
    """A trained encoder.

    Attributes
    ----------
    sizes : EncoderSizes
    model : keras.Model
    description : dict
        Plain values: ``dataset`` and ``training``.
    """

    sizes: EncoderSizes
    model: keras.Model
    description: dict

    @cached_property
    def _encode(self):
        side, colours = self.sizes.resolution, self.sizes.colours

        def encode(pictures):
            base, offsets = self.model(pictures, training=False)
            return base[:, None] + offsets

        signature = [tf.TensorSpec((None, side, side, colours), tf.float32)]
        return tf.function(encode, input_signature=signature, autograph=False)

    def encode(self, pictures: np.ndarray, landmarks: np.ndarray | None = None) -> np.ndarray:
        """Find the codes of pictures.

        Parameters
        ----------
        pictures : array, shape (n, side, side, colours)
            In -1..1, aligned to the network's frame. Larger ones than the encoder's are reduced.
        landmarks : array, optional
            Unused; `AppearanceEncoder.encode` needs them.

        Returns
        -------
        ndarray of float32, shape (n, num_layers, w_dim)

        Raises
        ------
        ValueError
            If the pictures are not finite numbers of this shape.
        """
        side, colours, shape = self.sizes.resolution, self.sizes.colours, np.shape(pictures)
        given = shape[1] if len(shape) == 4 and shape[1] % side == 0 else side
        pictures = reduce_pictures(check_array("pictures", pictures, (None, given, given, colours)), side)
        codes = np.empty((len(pictures), self.sizes.num_layers, self.sizes.w_dim), dtype=np.float32)
        for start in range(0, len(pictures), _BATCH):
            rows = slice(start, start + _BATCH)
            codes[rows] = self._encode(tf.constant(pictures[rows])).numpy()
        return codes

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
        arrays = {name: np.asarray(variable) for name, variable in _named_weights(self.model).items()}
        save_weights(path, arrays, {"sizes": asdict(self.sizes), **self.description}, dtype)


def reduce_pictures(pictures: np.ndarray, side: int) -> np.ndarray:
    """Reduce pictures (n, h, h, c) to `side`, a divisor of h, by the means of blocks."""
    factor = pictures.shape[1] // side
    blocks = pictures.reshape(len(pictures), side, factor, side, factor, pictures.shape[3])
    return blocks.mean(axis=(2, 4))


def encoder_path(network: Path) -> Path:
    """File of a network's encoder: ``NAME-encoder.npz`` next to ``NAME.npz``."""
    return network.with_name(f"{network.stem}-encoder{network.suffix}")


def _named_weights(model: keras.Model) -> dict[str, keras.Variable]:
    """Every weight of a model as LAYER/WEIGHT: ``halve0/kernel``, ``halve0/bias``, ..."""
    return {f"{layer.name}/{weight.name}": weight for layer in model.layers for weight in layer.weights}


def load_encoder(path: str | Path) -> Encoder | AppearanceEncoder:
    """Load an encoder that its method `save` wrote, without executing code from the file.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged or not an encoder.
    """
    arrays = utils.load_arrays(path)
    try:
        return _from_arrays(arrays)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: not a complete encoder of this suite ({reason})") from error


def _from_arrays(arrays: dict[str, np.ndarray]) -> Encoder | AppearanceEncoder:
    description = take_description(arrays)
    if "appearance" in description:
        return AppearanceEncoder.from_arrays(arrays, description)
    values = dict(description.pop("sizes"))
    sizes = EncoderSizes(**{**values, "widths": tuple(values["widths"])})
    # Before building a model, check that the arrays have the described sizes.
    claimed = {
        "deep/kernel": (16 * sizes.widths[-1], sizes.hidden),
        "base/kernel": (2 * sizes.hidden, sizes.w_dim),
    }
    for i, (before, width) in enumerate(pairwise((sizes.colours, *sizes.widths))):
        side = 3 if i else 5
        claimed[f"halve{i}/kernel"] = (side, side, before, width)
        if i:
            claimed[f"refine{i}a/kernel"] = (3, 3, width, width)
    for name, shape in claimed.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {arrays[name].shape}")
    model = build_encoder(sizes)
    wanted = _named_weights(model)
    if set(wanted) != set(arrays):
        raise ValueError(f"its arrays are not those of an encoder: {sorted(set(wanted) ^ set(arrays))[:3]}")
    for name, variable in wanted.items():
        array = arrays[name]
        if array.shape != tuple(variable.shape) or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{name} must be {tuple(variable.shape)} finite numbers")
        variable.assign(array.astype(np.float32))
    return Encoder(sizes, model, description)
