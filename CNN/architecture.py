"""The up-convolutional network: codes -> fully connected layers -> up-convolution blocks -> image.

Dosovitskiy, Springenberg, Tatarchenko and Brox, "Learning to generate chairs, tables and cars with convolutional
networks", PAMI 39(4), 2017 (arXiv:1411.5928), sections 3.1 and 3.2, applied to faces instead of chairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Annotated

from checks import Choice, Number, ParameterError, check_fields, check_number
from training.backend import keras

# Upper limits: a damaged description must not request more memory than a computer has.
_LARGEST_SIDE, _LARGEST_LAYER, _LARGEST_INPUT, _LARGEST_GRID = 2048, 65_536, 100_000, 1 << 22

# An image grows from a grid of about this many rows.
_BASE_ROWS = 7

_Side = Annotated[int, Number(int, at_least=16, at_most=_LARGEST_SIDE)]
_Width = Annotated[int, Number(int, at_least=1, at_most=_LARGEST_LAYER)]
_Share = Annotated[float, Number(at_least=0, below=1)]


@dataclass(frozen=True)
class Architecture:
    """The architecture of a network: everything needed to build it except the weights.

    Attributes
    ----------
    inputs : tuple of (str, int)
        Name and length of each code, ``identity`` first.
    height, width, channels : int
        Size of the image: at least 16 pixels per side, also odd; 1 or 3 channels.
    input_units : int
        Units of the separate layer of each input.
    hidden_units : tuple of int
        Units of the layers after the concatenated inputs.
    base_filters : int
        Channels of the small grid from which the image grows.
    filters : tuple of int
        Channels of each block; every block doubles the size.
    kernels : tuple of tuples of int
        Kernel sizes of each block's convolutions.
    normalised_blocks : int
        Number of blocks, from the first, that end with batch normalisation.
    negative_slope : float
        Slope of the leaky ReLUs below 0.
    epsilon : float
        Epsilon of batch normalisation.

    Raises
    ------
    ParameterError
        If a size is out of range, or the sizes are inconsistent.
    """

    inputs: tuple[tuple[str, int], ...]
    height: _Side
    width: _Side
    channels: Annotated[int, Choice((1, 3))]
    input_units: _Width = 256
    hidden_units: tuple[int, ...] = (256,)
    base_filters: _Width = 192
    filters: tuple[int, ...] = (160, 128, 64, 16)
    kernels: tuple[tuple[int, ...], ...] = ((3,), (3,), (3, 3), (3,))
    normalised_blocks: Annotated[int, Number(int, at_least=0)] = 0
    negative_slope: _Share = 0.2
    epsilon: _Share = 1e-3

    def __post_init__(self):
        check_fields(self)
        names = [name for name, _ in self.inputs]
        if names[:1] != ["identity"] or len(set(names)) != len(names):
            raise ParameterError(f"inputs must start with 'identity' and have different names, got {names}")
        for name, size in self.inputs:
            check_number(f"length of {name}", size, int, at_least=1, at_most=_LARGEST_INPUT)
        for size in (*self.hidden_units, *self.filters):
            check_number("number of units or filters", size, int, at_least=1, at_most=_LARGEST_LAYER)
        if not 1 <= len(self.filters) <= 9 or len(self.kernels) != len(self.filters):
            raise ParameterError(
                "a network must have 1 to 9 blocks, each with filters and kernel sizes, "
                f"got {len(self.filters)} filters and {len(self.kernels)} kernel sizes"
            )
        for block in self.kernels:
            check_number("convolutions in a block", len(block), int, at_least=1, at_most=4)
            for size in block:
                check_number("kernel size", size, int, at_least=1, at_most=15)
        check_number("normalised_blocks", self.normalised_blocks, int, at_most=len(self.filters))
        units = self.base[0] * self.base[1] * self.base_filters
        check_number("units of the base grid", units, int, at_most=_LARGEST_GRID)

    @property
    def base(self) -> tuple[int, int]:
        """Rows and columns of the grid from which the image grows."""
        growth = 2 ** len(self.filters)
        return math.ceil(self.height / growth), math.ceil(self.width / growth)

    @property
    def input_sizes(self) -> dict[str, int]:
        """Length of each input by name."""
        return dict(self.inputs)

    @property
    def n_weights(self) -> int:
        """Number of weights of the network."""
        units = math.prod(self.base) * self.base_filters
        widths = [len(self.inputs) * self.input_units, *self.hidden_units, units]
        n_weights = sum((size + 1) * self.input_units for _, size in self.inputs)
        n_weights += sum((before + 1) * after for before, after in pairwise(widths))
        filters = self.base_filters
        for number, (after, kernels) in enumerate(zip(self.filters, self.kernels, strict=True)):
            for size in kernels:
                n_weights += (size * size * filters + 1) * after
                filters = after
            if number < self.normalised_blocks:
                n_weights += 4 * after
        return n_weights + (9 * filters + 1) * self.channels

    @property
    def largest_features(self) -> int:
        """Number of values of the largest feature maps of one image."""
        filters = zip((self.base_filters, *self.filters), self.filters, strict=False)
        return max(math.prod(self.base) * 4**i * max(pair) for i, pair in enumerate(filters, start=1))

    @classmethod
    def from_description(cls, description: Mapping) -> Architecture:
        """Undo `dataclasses.asdict`, also after JSON; raise ValueError or TypeError for anything else."""
        if not isinstance(description, Mapping) or set(description) != {field.name for field in fields(cls)}:
            raise ValueError("the description of the network is incomplete")
        return cls(**{name: _tuples(value) for name, value in description.items()})

    @classmethod
    def for_size(
        cls, inputs: Mapping[str, int], height: int, width: int, channels: int, capacity: float = 1.0
    ) -> Architecture:
        """Choose the blocks for an image size: those of the bundled weights at 112 x 92, more for larger images.

        Parameters
        ----------
        inputs : mapping of str to int
            Length of each code, ``identity`` first.
        height, width, channels : int
        capacity : float, default 1.0
            Multiplier of the channels of all layers, 0.01 to 16.
        """
        check_number("capacity", capacity, at_least=0.01, at_most=16)
        n_blocks = int(min(7, max(2, round(math.log2(max(height, width) / _BASE_ROWS)))))
        filters = [160, 128, 96, 64, 32, 24, 16]
        if n_blocks < 7:
            filters = [160, 128, 64, 32, 24][: n_blocks - 1] + [16]
        kernels = [(3,)] * n_blocks
        kernels[n_blocks - 2] = (3, 3)
        input_units, hidden_units, base_filters, *filters = (
            max(4, round(size * capacity)) for size in (256, 256, 192, *filters)
        )
        return cls(
            inputs=tuple(inputs.items()),
            height=height,
            width=width,
            channels=channels,
            input_units=input_units,
            hidden_units=(hidden_units,),
            base_filters=base_filters,
            filters=tuple(filters),
            kernels=tuple(kernels),
        )


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def build(architecture: Architecture, precision: str = "float32") -> keras.Model:
    """Build the network with random weights.

    Parameters
    ----------
    architecture : Architecture
    precision : str, default "float32"
        ``"mixed_bfloat16"`` and ``"mixed_float16"`` compute in 16 bits; weights and images keep 32 bits.

    Returns
    -------
    keras.Model
        Maps a dict of arrays (n, length) by input name to images (n, height, width, channels) in 0..1. It uses only
        Keras' own layers.
    """
    a = architecture

    def rectify(x):
        return keras.layers.LeakyReLU(negative_slope=a.negative_slope, dtype=precision)(x)

    def dense(units, x):
        return rectify(keras.layers.Dense(units, dtype=precision)(x))

    # Apply a separate layer to each input, and concatenate them. (n, inputs * input_units)
    inputs = {name: keras.Input((size,), name=name) for name, size in a.inputs}
    joined = [dense(a.input_units, x) for x in inputs.values()]
    x = keras.layers.Concatenate(dtype=precision)(joined) if len(joined) > 1 else joined[0]
    # Apply dense layers up to the base grid. (n, rows, columns, base_filters)
    for units in a.hidden_units:
        x = dense(units, x)
    rows, columns = a.base
    x = dense(rows * columns * a.base_filters, x)
    x = keras.layers.Reshape((rows, columns, a.base_filters), dtype=precision)(x)
    # Double the size and convolve, block by block. (n, 2h, 2w, filters)
    for number, (filters, kernels) in enumerate(zip(a.filters, a.kernels, strict=True)):
        x = keras.layers.UpSampling2D(dtype=precision)(x)
        for size in kernels:
            x = rectify(keras.layers.Conv2D(filters, size, padding="same", dtype=precision)(x))
        if number < a.normalised_blocks:
            x = keras.layers.BatchNormalization(epsilon=a.epsilon, dtype=precision)(x)
    # Map features to pixels. (n, h, w, channels)
    x = keras.layers.Conv2D(a.channels, 3, padding="same", activation="sigmoid", dtype="float32")(x)
    # Crop the centre if the size is not a multiple of the base grid. (n, height, width, channels)
    spare_rows, spare_columns = x.shape[1] - a.height, x.shape[2] - a.width
    if spare_rows or spare_columns:
        top, left = spare_rows // 2, spare_columns // 2
        x = keras.layers.Cropping2D(((top, spare_rows - top), (left, spare_columns - left)), dtype="float32")(
            x
        )
    return keras.Model(inputs, x, name="up_convolution")
