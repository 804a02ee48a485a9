"""The two halves of StyleGAN's generator as Keras layers, with the variables of the official files.

Karras, Laine and Aila, "A style-based generator architecture for generative adversarial networks", CVPR 2019. Variables
have the official names and layouts, but images are (n, height, width, channels). Weights are stored raw, as in the
official files: He's factor is applied when they are used ("equalised learning rate", Karras et al., "Progressive
growing of GANs", ICLR 2018, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, takewhile

import numpy as np

from checks import Choice, ParameterError, check
from training.backend import keras, tf

#: Learning-rate factor of the mapping network, which also scales its stored weights.
MAPPING_RATE = 0.01
#: From this output resolution on, the official code upsamples by transposed convolution, which rotates the kernel.
FUSED_FROM = 128

# From this output resolution on, convolutions are transposed ones. With stride 2 they need 4 products instead of the 9
# of repetition and convolution; with stride 1 they equal convolutions, but oneDNN's are up to three times as fast on
# CPUs without AVX-512.
_TRANSPOSED_FROM = 16
# Slope of the leaky ReLU below 0; it has no separate gain.
_SLOPE = 0.2
_EPSILON = 1e-8
_RESOLUTIONS = tuple(4 << i for i in range(9))  # 4 to 1024
# The binomial filter that smooths upsampled features, in each direction.
_BLUR = (0.25, 0.5, 0.25)


@dataclass(frozen=True)
class Architecture:
    """The sizes of a network.

    Attributes
    ----------
    resolution : int
        Side of the images, a power of two from 4 to 1024.
    channels : tuple of int
        Feature maps at each resolution from 4 on.
    z_dim, w_dim : int
    mapping_widths : tuple of int
        Output width of each mapping layer; the last is `w_dim`.
    colours : int
        Channels of the images: 3, or 1 for grey images.

    Raises
    ------
    ParameterError
        If a size is out of range, or the sizes are inconsistent.
    """

    resolution: int
    channels: tuple[int, ...]
    z_dim: int
    w_dim: int
    mapping_widths: tuple[int, ...]
    colours: int = 3

    def __post_init__(self):
        check("resolution", self.resolution, Choice(_RESOLUTIONS))
        check("colours", self.colours, Choice((1, 3)))
        if len(self.channels) != len(self.resolutions):
            raise ParameterError(
                f"channels must be {len(self.resolutions)} numbers for {self.resolution} pixels, "
                f"got {len(self.channels)}"
            )
        if self.mapping_widths[-1:] != (self.w_dim,):
            raise ParameterError(
                f"mapping_widths must end with w_dim = {self.w_dim}, got {self.mapping_widths}"
            )
        if min(*self.channels, self.z_dim, *self.mapping_widths) < 1:
            raise ParameterError("all widths must be at least 1")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ... up to the resolution of the images."""
        return tuple(side for side in _RESOLUTIONS if side <= self.resolution)

    @property
    def num_layers(self) -> int:
        """Number of layers that take a style: two at each resolution."""
        return 2 * len(self.resolutions)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Official name of each layer that takes a style."""
        names = [f"{side}x{side}/{part}" for side in self.resolutions for part in ("Conv0_up", "Conv1")]
        return ("4x4/Const", "4x4/Conv", *names[2:])

    def lod(self, resolution: int) -> int:
        """Level of detail: number of times to halve the images to reach a resolution."""
        return self.resolution.bit_length() - resolution.bit_length()

    def mapping_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every variable of the mapping network."""
        shapes, width = {}, self.z_dim
        for i, out in enumerate(self.mapping_widths):
            shapes |= {f"Dense{i}/weight": (width, out), f"Dense{i}/bias": (out,)}
            width = out
        return shapes

    def synthesis_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trained variable of the synthesis network."""
        width = self.channels[0]
        shapes: dict[str, tuple[int, ...]] = {"4x4/Const/const": (1, width, 4, 4)}
        for i, scope in enumerate(self.scopes):
            out = self.channels[i // 2]
            if i:
                shapes[f"{scope}/weight"] = (3, 3, width, out)
            shapes |= {
                f"{scope}/Noise/weight": (out,),
                f"{scope}/bias": (out,),
                f"{scope}/StyleMod/weight": (self.w_dim, 2 * out),
                f"{scope}/StyleMod/bias": (2 * out,),
            }
            width = out
        for side, out in zip(self.resolutions, self.channels, strict=True):
            shapes[f"ToRGB_lod{self.lod(side)}/weight"] = (1, 1, out, self.colours)
            shapes[f"ToRGB_lod{self.lod(side)}/bias"] = (self.colours,)
        return shapes

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of the stored noise of every layer."""
        sides = np.repeat(self.resolutions, 2).tolist()
        return {f"noise{i}": (1, 1, side, side) for i, side in enumerate(sides)}

    @classmethod
    def of(cls, mapping: dict[str, np.ndarray], synthesis: dict[str, np.ndarray]) -> Architecture:
        """Infer the sizes from the shapes of a network's arrays.

        Raises
        ------
        ValueError
            If arrays are missing, unknown, or inconsistent.
        """
        last = ["4x4/Const/bias", *(f"{side}x{side}/Conv1/bias" for side in _RESOLUTIONS[1:])]
        dense = (f"Dense{i}/bias" for i in count())
        channels = [_size(synthesis, name, 0) for name in takewhile(synthesis.__contains__, last)]
        widths = [_size(mapping, name, 0) for name in takewhile(mapping.__contains__, dense)]
        if not channels or not widths:
            raise ValueError("the network's arrays are incomplete: the biases are missing")
        found = cls(
            resolution=_RESOLUTIONS[len(channels) - 1],
            channels=tuple(channels),
            z_dim=_size(mapping, "Dense0/weight", 0),
            w_dim=widths[-1],
            mapping_widths=tuple(widths),
            colours=_size(synthesis, "ToRGB_lod0/weight", 3),
        )
        check_arrays(mapping, found.mapping_shapes())
        check_arrays(synthesis, found.synthesis_shapes() | found.noise_shapes())
        return found


def _size(arrays: dict[str, np.ndarray], name: str, axis: int) -> int:
    shape = np.shape(arrays.get(name))
    if len(shape) <= axis:
        raise ValueError(f"{name} is missing or has the wrong shape {shape}")
    return int(shape[axis])


def check_arrays(arrays: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless these are exactly the arrays of these shapes, real and finite."""
    missing, surplus = sorted(set(shapes) - set(arrays)), len(set(arrays) - set(shapes))
    if missing or surplus:
        first = f" (first: {missing[0]})" if missing else ""
        raise ValueError(
            f"the network's arrays are incomplete: {len(missing)} missing{first}, {surplus} unknown"
        )
    for name, shape in shapes.items():
        array = np.asarray(arrays[name])
        if array.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {array.shape}")
        # Half precision may hold fewer numbers than float32, double more.
        if array.dtype.kind != "f" or not np.abs(array).max() <= np.finfo(np.float32).max:
            raise ValueError(f"{name} must hold finite real numbers that fit into float32")


def he_factor(shape: Sequence[int], gain: float) -> float:
    """The scale of a stored weight of this shape: gain over the square root of the fan-in."""
    return gain / float(np.sqrt(np.prod(shape[:-1])))


# ----------------------------------------------------------------------------------------------------------
# Layers with their variables
# ----------------------------------------------------------------------------------------------------------


class _Named(keras.layers.Layer):
    """A layer whose variables have their official names; random values unless arrays are given."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], arrays: dict[str, np.ndarray] | None, **options):
        super().__init__(**options)
        self.shapes = dict(shapes)
        self.named = {
            name: self.add_weight(
                shape=shape,
                name=name.replace("/", "."),
                dtype="float32",
                initializer="zeros" if arrays is not None else self._initializer(name),
                trainable=not name.startswith("noise"),
            )
            for name, shape in shapes.items()
        }
        if arrays is not None:
            self.load(arrays)
        self.built = True

    @staticmethod
    def _initializer(name: str):
        if name.startswith("noise") or name.endswith("/weight") and not name.endswith("Noise/weight"):
            return keras.initializers.RandomNormal(stddev=1.0)
        return keras.initializers.Ones() if name.endswith("const") else keras.initializers.Zeros()

    def weight(self, name: str, factor: float = 1.0) -> tf.Tensor:
        """A stored weight times a factor, in the compute precision."""
        stored = tf.convert_to_tensor(self.named[name].value)
        return tf.cast(stored if factor == 1 else stored * factor, self.compute_dtype)

    def load(self, arrays: dict[str, np.ndarray]) -> None:
        """Fill the variables; names and shapes must be those of `shapes`."""
        check_arrays(arrays, self.shapes)
        for name, variable in self.named.items():
            variable.assign(np.asarray(arrays[name], dtype=np.float32))

    def arrays(self) -> dict[str, np.ndarray]:
        """The variables as float32 arrays by their official names."""
        return {name: keras.ops.convert_to_numpy(variable) for name, variable in self.named.items()}


class Mapping(_Named):
    """z -> w: eight dense layers on the normalised latent vector (section 2 of the paper)."""

    def __init__(self, architecture: Architecture, arrays: dict[str, np.ndarray] | None = None, **options):
        super().__init__(architecture.mapping_shapes(), arrays, **options)
        self.architecture = architecture
        if arrays is None:  # a smaller learning-rate factor needs larger stored weights
            for name in self.named:
                if name.endswith("/weight"):
                    self.named[name].assign(self.named[name] / MAPPING_RATE)

    def call(self, z: tf.Tensor) -> tf.Tensor:
        """Map latent vectors (n, z_dim) to w (n, w_dim)."""
        # Normalise each latent vector. (n, z_dim)
        x = tf.cast(z, self.compute_dtype)
        x *= tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=1, keepdims=True) + _EPSILON)
        # Apply the dense layers. (n, width)
        for i in range(len(self.architecture.mapping_widths)):
            name = f"Dense{i}/weight"
            x = tf.matmul(x, self.weight(name, he_factor(self.shapes[name], np.sqrt(2)) * MAPPING_RATE))
            x = tf.nn.leaky_relu(x + self.weight(f"Dense{i}/bias", MAPPING_RATE), _SLOPE)
        return x


class Synthesis(_Named):
    """Styles and noise -> image (figure 1b of the paper)."""

    def __init__(self, architecture: Architecture, arrays: dict[str, np.ndarray] | None = None, **options):
        super().__init__(architecture.synthesis_shapes() | architecture.noise_shapes(), arrays, **options)
        self.architecture = architecture

    def call(
        self, w: tf.Tensor, noise: Sequence[tf.Tensor] | None = None, resolution: int | None = None
    ) -> tf.Tensor:
        """Draw images; gradients flow to w, noise and weights.

        Parameters
        ----------
        w : tensor, shape (n, layers, w_dim)
            `layers` may be more than `resolution` needs.
        noise : sequence of tensors, shape (n or 1, h, w, 1), optional
            One per layer; none by default. See `stored_noise` and `random_noise`.
        resolution : int, optional
            Stop at this resolution and return the image of the partly grown network.

        Returns
        -------
        tensor of float32, shape (n, resolution, resolution, colours)
            Nominally -1..1, not clipped.
        """
        return draw(self.ready_weights(resolution), w, noise)

    def ready_weights(self, resolution: int | None = None) -> _ReadyWeights:
        """Scale the weights and build the kernels once, for images of this resolution."""
        a = self.architecture
        last = a.resolution if resolution is None else resolution
        scopes = a.scopes[: 2 * a.resolutions.index(last) + 2]
        colours = f"ToRGB_lod{a.lod(last)}"
        # He's factor of a kernel is applied to its input features, together with their style.
        factors = [he_factor(self.shapes[f"{scope}/weight"], np.sqrt(2)) for scope in scopes[1:]]
        factors.append(he_factor(self.shapes[f"{colours}/weight"], 1))
        return _ReadyWeights(
            constant=tf.transpose(self.weight("4x4/Const/const"), (0, 2, 3, 1)),
            layers=[self._ready_layer(i, scopes[i], factor) for i, factor in enumerate(factors)],
            colour_kernel=self.weight(f"{colours}/weight"),
            colour_bias=self.weight(f"{colours}/bias"),
        )

    def _ready_layer(self, i: int, scope: str, factor: float) -> _ReadyLayer:
        side, width = self.architecture.resolutions[i // 2], self.architecture.channels[i // 2]
        enlarges = i >= 2 and i % 2 == 0
        kernel = self.weight(f"{scope}/weight") if i else None  # (3, 3, in, out)
        style = f"{scope}/StyleMod/weight"
        offset = tf.cast(tf.repeat((1.0, 0.0), width), self.compute_dtype)  # stored scales lie around 0
        return _ReadyLayer(
            side=side,
            enlarges=enlarges,
            kernel=None if kernel is None else _transposed_kernel(kernel, side, enlarges),
            noise=self.weight(f"{scope}/Noise/weight")[None],
            bias=self.weight(f"{scope}/bias"),
            style=self.weight(style, he_factor(self.shapes[style], 1) * factor),
            style_bias=(self.weight(f"{scope}/StyleMod/bias") + offset) * factor,
        )

    def stored_noise(self) -> list[tf.Tensor]:
        """The network's stored noise: num_layers tensors (1, h, w, 1)."""
        names = self.architecture.noise_shapes()
        return [tf.transpose(self.named[name].value, (0, 2, 3, 1)) for name in names]

    def random_noise(self, n: int | tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        """Draw new noise for n images: num_layers tensors (n, h, w, 1); `seed` holds two integers."""
        return [
            tf.random.stateless_normal((n, side, side, 1), seed + tf.constant([0, i], seed.dtype))
            for i, (*_, side) in enumerate(self.architecture.noise_shapes().values())
        ]


# ----------------------------------------------------------------------------------------------------------
# The synthesis network, step by step
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _ReadyLayer:
    """One layer's weights, ready for use.

    Attributes
    ----------
    side : int
        Side of the layer's output.
    enlarges : bool
    kernel : tensor or None
        See `_transposed_kernel`; None in the first layer. Unscaled: the factor of the next layer's kernel is part of
        `style` and `style_bias`.
    noise : tensor, shape (1, out)
    bias : tensor, shape (out,)
    style : tensor, shape (w_dim, 2 out)
    style_bias : tensor, shape (2 out,)
    """

    side: int
    enlarges: bool
    kernel: tf.Tensor | None
    noise: tf.Tensor
    bias: tf.Tensor
    style: tf.Tensor
    style_bias: tf.Tensor


@dataclass(frozen=True, eq=False)
class _ReadyWeights:
    """A synthesis network's weights, ready for use; see `Synthesis.ready_weights`.

    Attributes
    ----------
    constant : tensor, shape (1, 4, 4, channels)
    layers : list
    colour_kernel : tensor, shape (1, 1, channels, colours)
    colour_bias : tensor, shape (colours,)
    """

    constant: tf.Tensor
    layers: list[_ReadyLayer]
    colour_kernel: tf.Tensor
    colour_bias: tf.Tensor


def draw(weights: _ReadyWeights, w: tf.Tensor, noise: Sequence[tf.Tensor] | None = None) -> tf.Tensor:
    """Draw images, in the precision of the weights; see `Synthesis.call`."""
    # Repeat the constant for each image. (n, 4, 4, channels)
    w = tf.cast(w, weights.constant.dtype)
    x = weights.constant
    x = x if w.shape[0] == 1 else tf.repeat(x, tf.shape(w)[0], axis=0)
    for i, layer in enumerate(weights.layers):
        # Convolve the features; smooth them if they were enlarged. (n, side, side, out)
        if layer.kernel is not None:
            x = _convolve(x, layer)
        if layer.enlarges:
            x = _blur(x)
        # Apply noise and style. (n, side, side, out)
        x = _epilogue(x, layer, w[:, i], None if noise is None else noise[i])
    # Map features to pixels. (n, resolution, resolution, colours)
    image = tf.nn.conv2d(x, weights.colour_kernel, 1, "SAME") + weights.colour_bias
    return tf.cast(image, tf.float32)


def _transposed_kernel(kernel: tf.Tensor, side: int, enlarges: bool) -> tf.Tensor:
    """Convert a kernel (3, 3, in, out) to the kernel that `_convolve` needs for an output of this side.

    The same for a small side; otherwise the kernel of a transposed convolution, (3, 3, out, in) or, to enlarge,
    (4, 4, out, in).
    """
    if side < _TRANSPOSED_FROM:
        return kernel
    # A transposed convolution equals a convolution with a rotated kernel.
    if not enlarges or side < FUSED_FROM:
        kernel = kernel[::-1, ::-1]
    kernel = tf.transpose(kernel, (0, 1, 3, 2))
    if not enlarges:
        return kernel
    # Add the kernel to itself, shifted by a pixel each way. (4, 4, out, in)
    padded = tf.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    return padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]


def _convolve(x: tf.Tensor, layer: _ReadyLayer) -> tf.Tensor:
    """Convolve, and double the size if the layer enlarges: (n, h, w, in) -> (n, side, side, out)."""
    side = layer.side
    if side < _TRANSPOSED_FROM:
        if layer.enlarges:
            x = tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
        return tf.nn.conv2d(x, layer.kernel, 1, "SAME")
    width = layer.kernel.shape[2]
    shape = tf.stack([tf.shape(x)[0], side, side, width])
    convolved = tf.nn.conv2d_transpose(x, layer.kernel, shape, 2 if layer.enlarges else 1, "SAME")
    return tf.ensure_shape(convolved, (x.shape[0], side, side, width))


def _epilogue(x: tf.Tensor, layer: _ReadyLayer, w: tf.Tensor, noise: tf.Tensor | None) -> tf.Tensor:
    """Noise, bias, leaky ReLU, then adaptive instance normalisation by the style (equation 1 of the paper)."""
    # Add bias and noise. (n, h, w, c)
    x = tf.nn.bias_add(x, layer.bias)
    if noise is not None:
        # Without this dependency the noise of all layers is weighted first, and held in memory.
        with tf.control_dependencies([x]):
            x += _weighted_noise(tf.cast(noise, x.dtype), layer.noise)
    x = tf.nn.leaky_relu(x, _SLOPE)
    # Compute the style from w. (n, 2c)
    style = tf.cast(tf.matmul(w, layer.style) + layer.style_bias, tf.float32)
    # Normalise each feature map; scale and shift it by the style. (n, h, w, c)
    scale, shift = tf.split(style, 2, axis=1)
    return _normalise(x, scale, shift)


def _weighted_noise(noise: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Noise (m, h, w, 1) times channel weights (1, c): a matrix product, which is faster than broadcasting."""
    m, height, width, _ = noise.shape
    shape = [tf.shape(noise)[0] if m is None else m, height, width, weight.shape[1]]
    return tf.reshape(tf.matmul(tf.reshape(noise, (-1, 1)), weight), shape)


def _normalise(x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Give each feature map of x (n, h, w, c) a standard deviation and a mean, float32 (n, c).

    For a single image this equals batch normalisation in training, for which the CPU has a fast kernel.
    """
    if x.shape[0] == 1 and not tf.config.list_physical_devices("GPU"):
        empty = tf.zeros((0,))
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale[0], offset=shift[0], mean=empty, variance=empty, epsilon=_EPSILON
        ).y
    mean, variance = tf.nn.moments(tf.cast(x, tf.float32), (1, 2), keepdims=True)  # (n, 1, 1, c)
    scale = scale[:, None, None] * tf.math.rsqrt(variance + _EPSILON)
    shift = shift[:, None, None] - mean * scale
    return x * tf.cast(scale, x.dtype) + tf.cast(shift, x.dtype)


def _blur(x: tf.Tensor) -> tf.Tensor:
    """Smooth each feature map of x (n, h, w, c) by (1, 2, 1) / 4 in both directions, with zero padding."""
    line = tf.constant(_BLUR, x.dtype)
    kernel = tf.tile((line[:, None] * line[None, :])[..., None, None], (1, 1, x.shape[3], 1))
    return tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "SAME")
