"""The two halves of StyleGAN's generator as Keras layers, with the variables of the official files.

Karras, Laine and Aila, "A style-based generator architecture for generative adversarial networks", CVPR 2019. Weights
are kept as the official files store them, raw: He's factor is applied when they are used ("equalised learning rate",
Karras et al., "Progressive growing of GANs", ICLR 2018, section 4.1). Variables go by their official names, and arrays
have the official layouts, but pictures are (n, height, width, channels).
"""

from __future__ import annotations

from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

#: Slope of the leaky ReLU below 0; it has no gain of its own.
SLOPE = 0.2
EPSILON = 1e-8
#: Learning-rate factor of the mapping network, which also scales its stored weights.
MAPPING_RATE = 0.01
#: From this output resolution on the official code enlarges by a transposed convolution, which turns the kernel.
FUSED_FROM = 128
#: Up to this output resolution repetition and convolution are faster than a transposed convolution.
REPEATED_TO = 8
SMALLEST, LARGEST = 4, 1024


@dataclass(frozen=True)
class Architecture:
    """Sizes of a network.

    Attributes
    ----------
    resolution : int
        Side of the pictures, a power of two from 4 to 1024.
    channels : tuple of int
        Feature maps at each resolution from 4 on.
    z_dim, w_dim : int
    mapping_widths : tuple of int
        Output width of each mapping layer; the last is `w_dim`.
    colours : int
        Channels of the pictures: 3, or 1 for grey ones.
    """

    resolution: int
    channels: tuple[int, ...]
    z_dim: int
    w_dim: int
    mapping_widths: tuple[int, ...]
    colours: int = 3

    def __post_init__(self):
        sides = [SMALLEST << i for i in range(LARGEST.bit_length() - SMALLEST.bit_length() + 1)]
        if self.resolution not in sides:
            raise ValueError(f"the resolution must be one of {sides}, not {self.resolution!r}")
        if len(self.channels) != len(self.resolutions):
            raise ValueError(
                f"a network of {self.resolution} pixels has {len(self.resolutions)} resolutions, "
                f"but {len(self.channels)} numbers of channels were given"
            )
        if not self.mapping_widths or self.mapping_widths[-1] != self.w_dim:
            raise ValueError("the last mapping layer must be as wide as w")
        if min(*self.channels, self.z_dim, *self.mapping_widths) < 1 or self.colours not in (1, 3):
            raise ValueError("all widths must be at least 1, and pictures have 1 or 3 channels")

    @property
    def resolutions(self) -> tuple[int, ...]:
        """4, 8, ... up to the pictures' own."""
        return tuple(SMALLEST << i for i in range(self.resolution.bit_length() - 2))

    @property
    def num_layers(self) -> int:
        """Layers that take a style: two at each resolution."""
        return 2 * len(self.resolutions)

    @property
    def scopes(self) -> tuple[str, ...]:
        """Official name of each layer that takes a style."""
        names = [f"{side}x{side}/{part}" for side in self.resolutions for part in ("Conv0_up", "Conv1")]
        return ("4x4/Const", "4x4/Conv", *names[2:])

    def lod(self, resolution: int) -> int:
        """Level of detail: how often the pictures' resolution must be halved to come to this one."""
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
        shapes: dict[str, tuple[int, ...]] = {"4x4/Const/const": (1, self.channels[0], SMALLEST, SMALLEST)}
        width = self.channels[0]
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
        sides = [self.resolutions[i // 2] for i in range(self.num_layers)]
        return {f"noise{i}": (1, 1, side, side) for i, side in enumerate(sides)}

    @classmethod
    def of(cls, mapping: Dictionary[str, np.ndarray], synthesis: Dictionary[str, np.ndarray]) -> Architecture:
        """Read the sizes from the shapes of a network's arrays.

        Raises
        ------
        ValueError
            If arrays are missing, too many, or do not fit each other.
        """
        channels = []
        while len(channels) < len(range(SMALLEST.bit_length(), LARGEST.bit_length() + 1)):
            side = SMALLEST << len(channels)
            name = "4x4/Const/bias" if side == SMALLEST else f"{side}x{side}/Conv1/bias"
            if name not in synthesis:
                break
            channels.append(_side(synthesis, name, 0))
        widths = []
        while f"Dense{len(widths)}/bias" in mapping:
            widths.append(_side(mapping, f"Dense{len(widths)}/bias", 0))
        for name, arrays in (("Dense0/weight", mapping), ("ToRGB_lod0/weight", synthesis)):
            if name not in arrays:
                raise ValueError(f"there is no {name} among the network's arrays")
        found = cls(
            resolution=SMALLEST << (len(channels) - 1) if channels else 0,
            channels=tuple(channels),
            z_dim=_side(mapping, "Dense0/weight", 0),
            w_dim=widths[-1] if widths else 0,
            mapping_widths=tuple(widths),
            colours=_side(synthesis, "ToRGB_lod0/weight", 3),
        )
        check_arrays(mapping, found.mapping_shapes())
        check_arrays(synthesis, found.synthesis_shapes() | found.noise_shapes())
        return found


def _side(arrays: Dictionary[str, np.ndarray], name: str, axis: int) -> int:
    shape = np.shape(arrays[name])
    if len(shape) <= axis:
        raise ValueError(f"{name} has the shape {shape}, which no network of this kind has")
    return int(shape[axis])


def check_arrays(arrays: Dictionary[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless these are exactly the arrays of these shapes, real and finite."""
    missing, surplus = sorted(set(shapes) - set(arrays)), sorted(set(arrays) - set(shapes))
    if missing or surplus:
        raise ValueError(
            f"the network's arrays are not whole: {len(missing)} missing"
            f"{', such as ' + missing[0] if missing else ''}, {len(surplus)} unknown"
        )
    for name, shape in shapes.items():
        array = np.asarray(arrays[name])
        if array.shape != shape:
            raise ValueError(f"{name} has the shape {array.shape} where {shape} is wanted")
        # Half precision may hold fewer numbers than float32, double more.
        if array.dtype.kind != "f" or not np.abs(array).max() <= np.finfo(np.float32).max:
            raise ValueError(f"{name} holds values that are not finite real numbers")


def he_factor(shape: Sequence[int], gain: float) -> float:
    """What a stored weight of this shape is multiplied by: gain over the root of the fan-in."""
    return gain / float(np.sqrt(np.prod(shape[:-1])))


class _Named(keras.layers.Layer):
    """A layer whose variables go by their official names; random ones unless arrays are given."""

    def __init__(
        self, shapes: dict[str, tuple[int, ...]], arrays: Dictionary[str, np.ndarray] | None, **options
    ):
        super().__init__(**options)
        self.shapes = dict(shapes)
        if arrays is not None:
            check_arrays(arrays, self.shapes)
        self.named = {
            name: self.add_weight(
                shape=shape,
                name=name.replace("/", "."),
                dtype="float32",
                initializer=self._start(name) if arrays is None else _values(arrays[name]),
                trainable=not name.startswith("noise"),
            )
            for name, shape in shapes.items()
        }
        self.built = True

    @staticmethod
    def _start(name: str):
        if name.startswith("noise") or name.endswith("/weight") and not name.endswith("Noise/weight"):
            return keras.initializers.RandomNormal(stddev=1.0)
        return keras.initializers.Ones() if name.endswith("const") else keras.initializers.Zeros()

    def weight(self, name: str, factor: float = 1.0) -> tf.Tensor:
        """A stored weight times a factor, in the precision of the computation."""
        stored = tf.convert_to_tensor(self.named[name].value)
        return tf.cast(stored if factor == 1 else stored * factor, self.compute_dtype)

    def load(self, arrays: Dictionary[str, np.ndarray]) -> None:
        """Fill the variables; names and shapes must be those of `shapes`."""
        check_arrays(arrays, self.shapes)
        for name, variable in self.named.items():
            variable.assign(np.asarray(arrays[name], dtype=np.float32))

    def arrays(self) -> dict[str, np.ndarray]:
        """The variables as float32 arrays by their official names."""
        return {name: keras.ops.convert_to_numpy(variable) for name, variable in self.named.items()}


def _values(array: np.ndarray):
    """An initialiser that gives a copy of an array."""
    return lambda shape, dtype: tf.constant(np.array(array, dtype=dtype))


class Mapping(_Named):
    """z -> w: eight dense layers on the normalised latent vector (section 2 of the paper)."""

    def __init__(
        self, architecture: Architecture, arrays: Dictionary[str, np.ndarray] | None = None, **options
    ):
        super().__init__(architecture.mapping_shapes(), arrays, **options)
        self.architecture = architecture
        if arrays is None:  # stored weights are as much larger as their learning rate is smaller
            for name in self.named:
                if name.endswith("/weight"):
                    self.named[name].assign(self.named[name] / MAPPING_RATE)

    def call(self, z: tf.Tensor) -> tf.Tensor:
        """Map latent vectors (n, z_dim) to w (n, w_dim)."""
        x = tf.cast(z, self.compute_dtype)
        x *= tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=1, keepdims=True) + EPSILON)
        for i in range(len(self.architecture.mapping_widths)):
            name = f"Dense{i}/weight"
            x = tf.matmul(x, self.weight(name, he_factor(self.shapes[name], np.sqrt(2)) * MAPPING_RATE))
            x = tf.nn.leaky_relu(x + self.weight(f"Dense{i}/bias", MAPPING_RATE), SLOPE)
        return x


class Synthesis(_Named):
    """Styles and noise -> picture (figure 1b of the paper)."""

    def __init__(
        self, architecture: Architecture, arrays: Dictionary[str, np.ndarray] | None = None, **options
    ):
        super().__init__(architecture.synthesis_shapes() | architecture.noise_shapes(), arrays, **options)
        self.architecture = architecture

    def call(
        self, w: tf.Tensor, noise: Sequence[tf.Tensor] | None = None, resolution: int | None = None
    ) -> tf.Tensor:
        """Draw pictures; gradients flow to w, noise and weights.

        Parameters
        ----------
        w : tensor, shape (n, layers, w_dim)
            `layers` may be more than are needed for `resolution`.
        noise : sequence of tensors, shape (n or 1, h, w, 1), optional
            One for each layer; none by default. See `stored_noise` and `random_noise`.
        resolution : int, optional
            Stop there: the picture as a network drew it that has grown so far.

        Returns
        -------
        tensor of float32, shape (n, resolution, resolution, colours)
            Nominally -1..1, not clipped.
        """
        return draw(self.ready_weights(resolution), w, noise)

    def ready_weights(self, resolution: int | None = None) -> ReadyWeights:
        """Weights as they are used, in the precision of the computation, for pictures of this resolution."""
        a = self.architecture
        last = a.resolution if resolution is None else resolution
        scopes = a.scopes[: 2 * a.resolutions.index(last) + 2]
        colours = f"ToRGB_lod{a.lod(last)}"
        # He's factor of a kernel is given to the features that it meets, with the style that these get anyway.
        factors = [he_factor(self.shapes[f"{scope}/weight"], np.sqrt(2)) for scope in scopes[1:]]
        factors.append(he_factor(self.shapes[f"{colours}/weight"], 1))
        return ReadyWeights(
            constant=tf.transpose(self.weight("4x4/Const/const"), (0, 2, 3, 1)),
            layers=[self._ready_layer(i, scopes[i], factor) for i, factor in enumerate(factors)],
            colour_kernel=self.weight(f"{colours}/weight"),
            colour_bias=self.weight(f"{colours}/bias"),
        )

    def _ready_layer(self, i: int, scope: str, factor: float) -> ReadyLayer:
        side, width = self.architecture.resolutions[i // 2], self.architecture.channels[i // 2]
        enlarges = i >= 2 and i % 2 == 0
        kernel = self.weight(f"{scope}/weight") if i else None  # (3, 3, in, out)
        style = f"{scope}/StyleMod/weight"
        constant = tf.cast(tf.repeat((1.0, 0.0), width), self.compute_dtype)  # stored scales lie around 0
        return ReadyLayer(
            side=side,
            enlarges=enlarges,
            kernel=_enlarging_kernel(kernel, side) if enlarges else kernel,
            noise=self.weight(f"{scope}/Noise/weight")[None],
            bias=self.weight(f"{scope}/bias"),
            style=self.weight(style, he_factor(self.shapes[style], 1) * factor),
            style_bias=(self.weight(f"{scope}/StyleMod/bias") + constant) * factor,
        )

    def stored_noise(self) -> list[tf.Tensor]:
        """The noise that belongs to the network: num_layers tensors (1, h, w, 1)."""
        return [
            tf.transpose(self.named[f"noise{i}"].value, (0, 2, 3, 1))
            for i in range(self.architecture.num_layers)
        ]

    def random_noise(self, n: int | tf.Tensor, seed: tf.Tensor) -> list[tf.Tensor]:
        """Fresh noise for n pictures: num_layers tensors (n, h, w, 1); `seed` holds two whole numbers."""
        sides = [self.architecture.resolutions[i // 2] for i in range(self.architecture.num_layers)]
        return [
            tf.random.stateless_normal((n, side, side, 1), seed + tf.constant([0, i], seed.dtype))
            for i, side in enumerate(sides)
        ]


@dataclass(frozen=True, eq=False)
class ReadyLayer:
    """Weights of one layer as they are used.

    Attributes
    ----------
    side : int
        Of the layer's output.
    enlarges : bool
    kernel : tensor or None
        (3, 3, in, out); of a transposed convolution (4, 4, out, in); None in the first layer. As stored: the factor
        of the next layer's kernel is part of `style` and `style_bias`.
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
class ReadyWeights:
    """Weights of a synthesis network as they are used; see `Synthesis.ready_weights`.

    Attributes
    ----------
    constant : tensor, shape (1, 4, 4, channels)
    layers : list of ReadyLayer
    colour_kernel : tensor, shape (1, 1, channels, colours)
    colour_bias : tensor, shape (colours,)
    """

    constant: tf.Tensor
    layers: list[ReadyLayer]
    colour_kernel: tf.Tensor
    colour_bias: tf.Tensor


def draw(weights: ReadyWeights, w: tf.Tensor, noise: Sequence[tf.Tensor] | None = None) -> tf.Tensor:
    """Draw pictures, in the precision of the weights; see `Synthesis.call`."""
    w = tf.cast(w, weights.constant.dtype)
    x = weights.constant
    x = x if w.shape[0] == 1 else tf.repeat(x, tf.shape(w)[0], axis=0)  # (n, 4, 4, channels)
    for i, layer in enumerate(weights.layers):
        if layer.enlarges:
            x = blur(_enlarge(x, layer))
        elif layer.kernel is not None:
            x = tf.nn.conv2d(x, layer.kernel, 1, "SAME")
        x = _epilogue(x, layer, w[:, i], None if noise is None else noise[i])
    picture = tf.nn.conv2d(x, weights.colour_kernel, 1, "SAME") + weights.colour_bias
    return tf.cast(picture, tf.float32)


def _enlarging_kernel(kernel: tf.Tensor, side: int) -> tf.Tensor:
    """Build the kernel with which `_enlarge` comes to an output of this side from (3, 3, in, out)."""
    if side <= REPEATED_TO:
        return kernel
    if (
        side < FUSED_FROM
    ):  # repetition and convolution are a transposed convolution with the kernel turned around
        kernel = kernel[::-1, ::-1]
    padded = tf.pad(tf.transpose(kernel, (0, 1, 3, 2)), ((1, 1), (1, 1), (0, 0), (0, 0)))
    return padded[1:, 1:] + padded[:-1, 1:] + padded[1:, :-1] + padded[:-1, :-1]  # (4, 4, out, in)


def _enlarge(x: tf.Tensor, layer: ReadyLayer) -> tf.Tensor:
    """Double the picture and convolve: (n, h, w, in) -> (n, 2h, 2w, out).

    A transposed convolution needs 4 products for each that repetition and convolution need 9 for.
    """
    side = layer.side
    if side <= REPEATED_TO:
        repeated = tf.repeat(tf.repeat(x, 2, axis=1), 2, axis=2)
        return tf.nn.conv2d(repeated, layer.kernel, 1, "SAME")
    width = layer.kernel.shape[2]
    shape = tf.stack([tf.shape(x)[0], side, side, width])
    enlarged = tf.nn.conv2d_transpose(x, layer.kernel, shape, 2, "SAME")
    return tf.ensure_shape(enlarged, (x.shape[0], side, side, width))


def _epilogue(x: tf.Tensor, layer: ReadyLayer, w: tf.Tensor, noise: tf.Tensor | None) -> tf.Tensor:
    """Noise, bias, leaky ReLU, then adaptive instance normalisation by the style (equation 1 of the paper)."""
    x = tf.nn.bias_add(x, layer.bias)
    if noise is not None:
        with tf.control_dependencies([x]):  # or the noise of all layers is spread first, and kept
            x += spread(tf.cast(noise, x.dtype), layer.noise)
    x = tf.nn.leaky_relu(x, SLOPE)
    style = tf.cast(tf.matmul(w, layer.style) + layer.style_bias, tf.float32)
    scale, shift = tf.split(style, 2, axis=1)  # (n, channels)
    return normalise(x, scale, shift)


def spread(noise: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Noise (m, h, w, 1) times a weight for each channel (1, c): a product of matrices, faster than broadcasting."""
    m, height, width, _ = noise.shape
    shape = [tf.shape(noise)[0] if m is None else m, height, width, weight.shape[1]]
    return tf.reshape(tf.matmul(tf.reshape(noise, (-1, 1)), weight), shape)


def normalise(x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
    """Give each feature map (n, h, w, c) a standard deviation and a mean (n, c), which are float32.

    For one picture that is what batch normalisation does in training, of which there is a fast kernel on the CPU.
    """
    if x.shape[0] == 1 and not tf.config.list_physical_devices("GPU"):
        nothing = tf.zeros((0,))
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=scale[0], offset=shift[0], mean=nothing, variance=nothing, epsilon=EPSILON
        ).y
    mean, variance = tf.nn.moments(tf.cast(x, tf.float32), (1, 2), keepdims=True)
    scale = scale[:, None, None] * tf.math.rsqrt(variance + EPSILON)
    shift = shift[:, None, None] - mean * scale
    return x * tf.cast(scale, x.dtype) + tf.cast(shift, x.dtype)


#: Binomial filter by which enlarged features are smoothed, in each direction.
BLUR = (0.25, 0.5, 0.25)


def blur(x: tf.Tensor) -> tf.Tensor:
    """Smooth each feature map (n, h, w, c) by (1, 2, 1) / 4 both ways; beyond the border lies 0."""
    line = tf.constant(BLUR, x.dtype)
    kernel = tf.tile((line[:, None] * line[None, :])[..., None, None], (1, 1, x.shape[3], 1))
    return tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "SAME")
