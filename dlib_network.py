"""dlib's face recogniser, read from its file as data and run by ONNX Runtime.

The network is the residual network of dlib's example `dnn_face_recognition_ex` (King, "Dlib-ml: a machine learning
toolkit", JMLR 2009; He et al., CVPR 2016): 29 convolutions, each followed by a scale and shift of every channel, which
are folded into the convolutions here. dlib's own wheels lack a linear algebra library and take about 100 ms of CPU per
face; this takes 6 ms, and the 128 numbers differ by less than 1e-6.

`stylegan.features` builds the same network from `read_weights`, with gradients.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import utils
from onnx_graph import GraphBuilder

#: Side of the network's input, a square crop of a face ("chip"), and length of its output.
CHIP_SIZE, N_VALUES = 150, 128

#: Channels of each residual block and whether it halves the image, from input to output.
BLOCKS = (
    *[(32, False)] * 3,
    *[(64, True), (64, False), (64, False), (64, False)],
    *[(128, True), (128, False), (128, False)],
    *[(256, True), (256, False), (256, False)],
    (256, True),
)

# ----------------------------------------------------------------------------------------------------------
# dlib's file
# ----------------------------------------------------------------------------------------------------------


@dataclass
class Weights:
    """The numbers of the network as stored in the file.

    Attributes
    ----------
    mean : ndarray of float32, shape (3,)
        Subtracted from red, green and blue.
    kernels, biases : lists of 29 ndarrays of float32, shapes (out, in, h, w) and (out,)
        Of the convolutions, from input to output; each block has two.
    scales, shifts : lists of 29 ndarrays of float32, shape (out,)
        Applied to each channel after the convolution.
    last : ndarray of float32, shape (256, 128)
        Of the final matrix product.
    """

    mean: np.ndarray | None = None
    kernels: list[np.ndarray] = field(default_factory=list)
    biases: list[np.ndarray] = field(default_factory=list)
    scales: list[np.ndarray] = field(default_factory=list)
    shifts: list[np.ndarray] = field(default_factory=list)
    last: np.ndarray | None = None


class _DamagedError(ValueError):
    """Why a file cannot be read, as part of a sentence."""


def read_weights(path: str | Path) -> Weights:
    """Read the weights from dlib's file; only this one network is accepted.

    dlib writes the version of every layer from the last to the first, then every layer's content from the first to
    the last, without lengths: the reader follows the known order of layers and checks each name and size.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file holds another network, is damaged, or is truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; run `make` to install dlib's models")
    try:
        return _read_network(_Reader(path.read_bytes()))
    except _DamagedError as error:
        raise ValueError(
            f"{path}: is not dlib's face recognition network, or is damaged ({error}); reinstall dlib's models"
        ) from None


class _Reader:
    """Reads the values of a network in the format of dlib/serialize.h."""

    def __init__(self, data: bytes):
        self.data, self.position = data, 0

    def bytes(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise _DamagedError("it is truncated")
        self.position += count
        return self.data[self.position - count : self.position]

    def integer(self) -> int:
        """One byte with the sign (highest bit) and the number of bytes; then the bytes, least significant first."""
        (control,) = self.bytes(1)
        count = control & 0x0F
        if control & 0x70 or not 1 <= count <= 8:
            raise _DamagedError(f"no number at byte {self.position - 1}")
        value = int.from_bytes(self.bytes(count), "little")
        return -value if control & 0x80 else value

    def expect(self, what: str, *values: int) -> None:
        for value in values:
            found = self.integer()
            if found != value:
                raise _DamagedError(f"the {what} before byte {self.position} is {found}, not {value}")

    def real(self) -> float:
        """A mantissa and a power of two."""
        mantissa, exponent = self.integer(), self.integer()
        try:
            if abs(exponent) <= 1100:  # larger exponents are dlib's codes for infinity and NaN
                return math.ldexp(mantissa, exponent)
        except OverflowError:
            pass
        raise _DamagedError(f"no finite number before byte {self.position}")

    def name(self, expected: str) -> None:
        self.expect("length of a name", len(expected))
        if self.bytes(len(expected)) != expected.encode():
            raise _DamagedError(f"no layer {expected!r} before byte {self.position}")

    def tensor(self, *shape: int) -> np.ndarray:
        """A tensor of a known shape: version 2, four sizes, then float32."""
        self.expect("version of a tensor", 2)
        padded = (*shape, *[1] * (4 - len(shape))) if math.prod(shape) else shape
        self.expect("size of a tensor", *padded)
        values = np.frombuffer(self.bytes(4 * math.prod(shape)), dtype="<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise _DamagedError(f"the weights before byte {self.position} hold NaN or infinity")
        return values.reshape(shape)

    def alias(self, *sizes: int) -> None:
        """The shape of one part of a tensor."""
        self.expect("version of a shape", 1)
        self.expect("size of a part", *sizes)

    def rates(self) -> None:
        """Learning rates and weight decays, which are not used here."""
        for _ in range(4):
            self.real()

    def end_of_layer(self) -> None:
        """Three flags; then gradients and outputs, which are empty in a finished file."""
        if set(self.bytes(3)) - set(b"01"):
            raise _DamagedError(f"no flags of a layer before byte {self.position}")
        for _ in range(3):
            self.tensor(0, 0, 0, 0)


def _layers() -> list[tuple]:
    """Kind and sizes of every layer, from input to output."""
    layers = [("convolution", 3, 32, 7, 2), ("scale", 32), ("relu",), ("max_pool", 3, 2)]
    before = 32
    for channels, halved in BLOCKS:
        layers += [("tag",), ("convolution", before, channels, 3, 2 if halved else 1), ("scale", channels)]
        layers += [("relu",), ("convolution", channels, channels, 3, 1), ("scale", channels)]
        layers += [("tag",), ("tag",), ("average_pool", 2, 2)] if halved else []  # on the shortcut
        layers += [("add",), ("relu",)]
        before = channels
    return [*layers, ("average_pool", 0, 1), ("dense", before, N_VALUES)]


def _read_network(reader: _Reader) -> Weights:
    """Read the whole file."""
    layers, weights = _layers(), Weights()
    reader.expect("version", 1)
    reader.name("loss_metric_2")
    reader.real(), reader.real()
    for kind, *_ in reversed(layers[1:]):
        reader.expect("version of a layer", 1 if kind == "tag" else 2)
    reader.expect("version of the first layer", 3)
    reader.name("input_rgb_image_sized")
    weights.mean = np.array([reader.real() for _ in range(3)], dtype=np.float32)
    reader.expect("size of the input", CHIP_SIZE, CHIP_SIZE)
    for i, (kind, *sizes) in enumerate(layers):
        if kind == "tag":
            continue
        _READERS[kind](reader, weights, *sizes)
        reader.end_of_layer()
        if i == 0:
            reader.expect("number of copies", 1)
    if reader.position != len(reader.data):
        raise _DamagedError(f"{len(reader.data) - reader.position} bytes follow its end")
    return weights


def _read_convolution(
    reader: _Reader, weights: Weights, before: int, channels: int, side: int, stride: int
) -> None:
    reader.name("con_4")
    values = reader.tensor(channels * before * side * side + channels)
    padding = side // 2 if stride == 1 else 0
    reader.expect("shape of a convolution", channels, side, side, stride, stride, padding, padding)
    reader.alias(channels, before, side, side)
    reader.alias(1, channels, 1, 1)
    reader.rates()
    weights.kernels.append(values[:-channels].reshape(channels, before, side, side))
    weights.biases.append(values[-channels:])


def _read_scale(reader: _Reader, weights: Weights, channels: int) -> None:
    reader.name("affine_")
    scale, shift = reader.tensor(2 * channels).reshape(2, channels)
    reader.alias(1, channels, 1, 1)
    reader.alias(1, channels, 1, 1)
    reader.expect("kind of scale", 0)
    weights.scales.append(scale)
    weights.shifts.append(shift)


def _read_dense(reader: _Reader, weights: Weights, before: int, after: int) -> None:
    reader.name("fc_2")
    reader.expect("width", after, before)
    weights.last = reader.tensor(before, after)
    reader.alias(before, after, 1, 1)
    reader.alias(0, 0, 0, 0)
    reader.expect("kind of bias", 1)
    reader.rates()


def _read_pool(name: str, reader: _Reader, weights: Weights, side: int, stride: int) -> None:
    reader.name(name)
    reader.expect("shape of a pool", side, side, stride, stride, 0, 0)


_READERS = {
    "convolution": _read_convolution,
    "scale": _read_scale,
    "relu": lambda reader, weights: reader.name("relu_"),
    "add": lambda reader, weights: reader.name("add_prev_"),
    "max_pool": functools.partial(_read_pool, "max_pool_2"),
    "average_pool": functools.partial(_read_pool, "avg_pool_2"),
    "dense": _read_dense,
}


# ----------------------------------------------------------------------------------------------------------
# The network
# ----------------------------------------------------------------------------------------------------------


def describe_chips(chips: np.ndarray) -> np.ndarray:
    """Describe faces on chips as `dlib.face_recognition_model_v1` does.

    Parameters
    ----------
    chips : ndarray of uint8, shape (n, 150, 150, 3)
        RGB, cropped by `embedding.face_chip`.

    Returns
    -------
    ndarray of float32, shape (n, 128)
        A row does not depend on the rest of the batch, to the bit.
    """
    weights, session = _network()
    centred = (chips.astype(np.float32) - weights.mean) / np.float32(256)
    planes = np.ascontiguousarray(centred.transpose(0, 3, 1, 2))  # (n, 3, 150, 150)
    return np.concatenate([session.run(None, {"chips": one[None]})[0] for one in planes])


@functools.lru_cache(maxsize=1)
def _network():
    """The weights, and a session: ``chips`` (n, 3, 150, 150), centred and divided by 256 -> descriptors (n, 128)."""
    weights = read_weights(utils.find_dlib_model("dlib_face_recognition_resnet_model_v1.dat"))
    graph = GraphBuilder()
    convolutions = zip(weights.kernels, weights.biases, weights.scales, weights.shifts, strict=True)

    def convolve(x: str, stride: int, padding: int) -> str:
        """The next convolution, with its scale and shift folded in."""
        kernel, bias, scale, shift = next(convolutions)
        folded = graph.constant(kernel * scale[:, None, None, None]), graph.constant(bias * scale + shift)
        return graph.add("Conv", x, *folded, strides=[stride] * 2, pads=[padding] * 4)

    def extend(x: str, channels: int, side: int) -> str:
        """Append zeros, as dlib does if the two paths through a block differ in size."""
        if not channels and not side:
            return x
        ends = np.array([0, 0, 0, 0, 0, channels, side, side], dtype=np.int64)
        return graph.add("Pad", x, graph.constant(ends))

    # Convolve and pool the input. (n, 32, 35, 35)
    x = graph.add("Relu", convolve("chips", 2, 0))
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    # Run the residual blocks. (n, channels, side, side)
    before, side = weights.kernels[0].shape[0], 35
    for channels, halved in BLOCKS:
        y = graph.add("Relu", convolve(x, 2 if halved else 1, 0 if halved else 1))
        y = convolve(y, 1, 1)
        if halved:
            x = graph.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            sides = (side - 2) // 2 + 1, (side - 3) // 2 + 1
            side = max(sides)
            x, y = extend(x, channels - before, side - sides[0]), extend(y, 0, side - sides[1])
        x = graph.add("Relu", graph.add("Add", x, y))
        before = channels
    # Average each channel and multiply. (n, 256), (n, 128)
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    output = graph.add("MatMul", x, graph.constant(weights.last))
    return weights, graph.session("chips", ["n", 3, CHIP_SIZE, CHIP_SIZE], output)
