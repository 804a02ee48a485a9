"""The up-convolutional network: codes -> fully connected layers -> up-convolution blocks -> picture.

Dosovitskiy, Springenberg, Tatarchenko and Brox, "Learning to generate chairs, tables and cars with convolutional
networks", PAMI 39(4), 2017 (arXiv:1411.5928), sections 3.1 and 3.2, with faces in place of chairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import keras
from keras import layers

#: Sizes that a network may have, so that a damaged description cannot ask for all the memory there is.
LARGEST_SIDE, LARGEST_LAYER, LARGEST_INPUT = 2048, 65_536, 100_000

#: A picture starts from a grid of about so many rows.
BASE_ROWS = 7


@dataclass(frozen=True)
class Architecture:
    """What a network looks like; everything that is needed to build it but the weights.

    Attributes
    ----------
    inputs : tuple of (str, int)
        Names and lengths of the codes it takes, ``identity`` first.
    height, width, channels : int
        Of the picture; any size, odd ones too.
    input_units : int
        Units of the layer that each input has for itself.
    hidden_units : tuple of int
        Units of the layers behind the joined inputs.
    base_filters : int
        Channels of the small grid from which the picture grows.
    filters : tuple of int
        Channels of each block; every block doubles the size.
    kernels : tuple of tuples of int
        Kernel sizes of each block's convolutions.
    normalised_blocks : int
        So many of the first blocks end with batch normalisation.
    negative_slope : float
        Of the leaky rectifiers.
    epsilon : float
        Of batch normalisation.
    """

    inputs: tuple[tuple[str, int], ...]
    height: int
    width: int
    channels: int
    input_units: int = 256
    hidden_units: tuple[int, ...] = (256,)
    base_filters: int = 192
    filters: tuple[int, ...] = (160, 128, 64, 16)
    kernels: tuple[tuple[int, ...], ...] = ((3,), (3,), (3, 3), (3,))
    normalised_blocks: int = 0
    negative_slope: float = 0.2
    epsilon: float = 1e-3

    def __post_init__(self):
        names = [name for name, _ in self.inputs]
        if not names or names[0] != "identity" or len(set(names)) != len(names):
            raise ValueError(
                f"a network's inputs must start with 'identity' and be named once each, not {names}"
            )
        for name, size in self.inputs:
            _check(f"the length of {name}", size, 1, LARGEST_INPUT)
        for name in ("height", "width"):
            _check(name, getattr(self, name), 16, LARGEST_SIDE)
        if self.channels not in (1, 3):
            raise ValueError(f"a picture has 1 or 3 channels, not {self.channels!r}")
        for name, sizes in (
            ("input_units", (self.input_units,)),
            ("hidden_units", self.hidden_units),
            ("base_filters", (self.base_filters,)),
            ("filters", self.filters),
        ):
            for size in sizes:
                _check(name, size, 1, LARGEST_LAYER)
        if not 1 <= len(self.filters) <= 9 or len(self.kernels) != len(self.filters):
            raise ValueError(
                "a network needs 1 to 9 blocks, each with its number of filters and its kernel sizes; "
                f"got {len(self.filters)} and {len(self.kernels)}"
            )
        for block in self.kernels:
            if not 1 <= len(block) <= 4:
                raise ValueError(f"a block has 1 to 4 convolutions, not {len(block)}")
            for size in block:
                _check("a kernel size", size, 1, 15)
        _check("normalised_blocks", self.normalised_blocks, 0, len(self.filters))
        _check("the base grid", self.base[0] * self.base[1] * self.base_filters, 1, 1 << 22)
        for name, value in (("negative_slope", self.negative_slope), ("epsilon", self.epsilon)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
                raise ValueError(f"{name} must be a number from 0 to below 1, not {value!r}")

    @property
    def base(self) -> tuple[int, int]:
        """Rows and columns of the grid from which the picture grows."""
        growth = 2 ** len(self.filters)
        return math.ceil(self.height / growth), math.ceil(self.width / growth)

    @property
    def input_sizes(self) -> dict[str, int]:
        """Length of each input by its name."""
        return dict(self.inputs)

    def describe(self) -> dict:
        """As plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_description(cls, description: Mapping) -> Architecture:
        """Build it from what `describe` gave; ValueError for anything that it cannot have given."""
        if not isinstance(description, Mapping) or set(description) != {field.name for field in fields(cls)}:
            raise ValueError("the description of the network is not complete")
        try:
            values = {name: _tuples(value) for name, value in description.items()}
            values["inputs"] = tuple((str(name), size) for name, size in values["inputs"])
            return cls(**values)
        except TypeError as error:
            raise ValueError(
                f"the description of the network has a value of the wrong kind ({error})"
            ) from error

    @classmethod
    def for_size(
        cls, inputs: Mapping[str, int], height: int, width: int, channels: int, capacity: float = 1.0
    ) -> Architecture:
        """Choose blocks for a picture size: at 112 x 92 those of the bundled weights, more for larger ones.

        Parameters
        ----------
        inputs : mapping of str to int
        height, width, channels : int
        capacity : float, default 1.0
            Factor for the channels of all layers.
        """
        if not 0.01 <= capacity <= 16:
            raise ValueError(f"capacity must lie between 0.01 and 16, not {capacity!r}")
        n_blocks = int(min(7, max(2, round(math.log2(max(height, width) / BASE_ROWS)))))
        filters = [160, 128, 64, 32, 24, 16][: n_blocks - 1] + [16]
        if n_blocks == 7:
            filters = [160, 128, 96, 64, 32, 24, 16]
        kernels = [(3,)] * n_blocks
        kernels[max(0, n_blocks - 2)] = (3, 3)

        def scaled(size: int) -> int:
            return max(4, round(size * capacity))

        return cls(
            inputs=tuple(inputs.items()),
            height=height,
            width=width,
            channels=channels,
            input_units=scaled(256),
            hidden_units=(scaled(256),),
            base_filters=scaled(192),
            filters=tuple(map(scaled, filters)),
            kernels=tuple(kernels),
        )


def _check(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, not {value!r}")


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def build(architecture: Architecture, precision: str = "float32") -> keras.Model:
    """Build the network with random weights.

    Parameters
    ----------
    architecture : Architecture
    precision : str, default "float32"
        ``"mixed_bfloat16"`` or ``"mixed_float16"`` compute in 16 bits and keep weights and picture in 32.

    Returns
    -------
    keras.Model
        Takes a dict of arrays (n, length) by input name, gives pictures (n, height, width, channels) in 0..1. It is
        made of Keras' own layers only.
    """
    a = architecture

    def rectify(x):
        return layers.LeakyReLU(negative_slope=a.negative_slope, dtype=precision)(x)

    def dense(units, x):
        return rectify(layers.Dense(units, dtype=precision)(x))

    inputs = {name: keras.Input((size,), name=name) for name, size in a.inputs}
    joined = [dense(a.input_units, x) for x in inputs.values()]
    x = layers.Concatenate(dtype=precision)(joined) if len(joined) > 1 else joined[0]
    for units in a.hidden_units:
        x = dense(units, x)
    rows, columns = a.base
    x = dense(rows * columns * a.base_filters, x)
    x = layers.Reshape((rows, columns, a.base_filters), dtype=precision)(x)
    for number, (filters, kernels) in enumerate(zip(a.filters, a.kernels, strict=True)):
        x = layers.UpSampling2D(dtype=precision)(x)  # (n, 2h, 2w, c)
        for size in kernels:
            x = rectify(layers.Conv2D(filters, size, padding="same", dtype=precision)(x))
        if number < a.normalised_blocks:
            x = layers.BatchNormalization(epsilon=a.epsilon, dtype=precision)(x)
    x = layers.Conv2D(a.channels, 3, padding="same", activation="sigmoid", dtype="float32")(x)
    spare_rows, spare_columns = x.shape[1] - a.height, x.shape[2] - a.width
    if spare_rows or spare_columns:
        top, left = spare_rows // 2, spare_columns // 2
        x = layers.Cropping2D(((top, spare_rows - top), (left, spare_columns - left)), dtype="float32")(x)
    return keras.Model(inputs, x, name="up_convolution")
