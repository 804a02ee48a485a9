"""dlib's face descriptor as a differentiable network, read from dlib's own weights file.

`descriptor_network()` maps chips (n, 150, 150, 3) to the 128 numbers of `dlib.face_recognition_model_v1`;
`chip_transforms` and `_differentiable_chips` crop chips from images of any size. All run in TensorFlow, so that a loss
on descriptors can train or fit a generator.

`dlib_network` reads the file, and runs the same network without gradients.
"""

from __future__ import annotations

import functools
from pathlib import Path

import dlib
import numpy as np

import utils
from dlib_network import BLOCKS, CHIP_SIZE, N_VALUES, Weights, read_weights
from embedding import CHIP_PADDING
from training.backend import keras, tf

# dlib places chips by points with integer coordinates, so landmarks are first scaled by this factor.
_SUBPIXELS = 256
# Number of faces that `describe_faces` describes at once.
_BATCH = 32

# ----------------------------------------------------------------------------------------------------------
# The network
# ----------------------------------------------------------------------------------------------------------


def descriptor_network(path: str | Path | None = None) -> keras.Model:
    """Load dlib's face descriptor as a differentiable Keras network.

    Parameters
    ----------
    path : str or Path, optional
        ``dlib_face_recognition_resnet_model_v1.dat``; by default the installed one.

    Returns
    -------
    keras.Model
        Maps float chips (n, 150, 150, 3), RGB in 0..255, cropped by `chip_transforms`, to descriptors (n, 128). Its
        weights are fixed. Every call returns the same network.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file holds another network, or is damaged or truncated.

    Examples
    --------
    >>> from stylegan import features
    >>> features.descriptor_network()(np.zeros((1, 150, 150, 3), np.float32)).shape
    TensorShape([1, 128])
    """
    path = path or utils.find_dlib_model("dlib_face_recognition_resnet_model_v1.dat")
    return _load(Path(path).resolve())


@functools.lru_cache(maxsize=2)
def _load(path: Path) -> keras.Model:
    return _build(read_weights(path))


def _build(weights: Weights) -> keras.Model:
    pictures = keras.Input((CHIP_SIZE, CHIP_SIZE, 3), name="pictures")
    convolutions = iter(zip(weights.kernels, weights.biases, weights.scales, weights.shifts, strict=True))

    def convolve(x, stride: int, padding: str):
        """Apply the next convolution of the file, with its scale and shift folded in."""
        kernel, bias, scale, shift = next(convolutions)
        # Compute in float32, whatever the precision of a training around it.
        form = {"data_format": "channels_last", "dtype": "float32"}
        layer = keras.layers.Conv2D(len(kernel), kernel.shape[2:], stride, padding, **form)
        x = layer(x)
        folded = (kernel * scale[:, None, None, None]).transpose(2, 3, 1, 0)  # (h, w, in, out)
        layer.set_weights([folded, bias * scale + shift])
        return x

    x = (pictures - weights.mean) / 256.0
    x = keras.ops.relu(convolve(x, 2, "valid"))  # (n, 72, 72, 32)
    x = keras.ops.max_pool(x, 3, 2, "valid", data_format="channels_last")  # (n, 35, 35, 32)
    for _, halved in BLOCKS:
        y = keras.ops.relu(convolve(x, 2 if halved else 1, "valid" if halved else "same"))
        y = convolve(y, 1, "same")
        if halved:
            x = keras.ops.average_pool(x, 2, 2, "valid", data_format="channels_last")
        x = keras.ops.relu(_add(x, y))
    x = keras.ops.mean(x, axis=(1, 2))  # (n, 256)
    dense = keras.layers.Dense(N_VALUES, use_bias=False, dtype="float32", name="descriptors")
    network = keras.Model(pictures, dense(x), name="descriptor")
    dense.set_weights([weights.last])
    network.trainable = False
    return network


def _add(x, y):
    """Add feature maps (n, h, w, c), each padded with zeros to the larger height, width and number of channels.

    The second-to-last block halves to 4 x 4 on one path and to 3 x 3 on the other.
    """
    sizes = [max(a, b) for a, b in zip(x.shape[1:], y.shape[1:], strict=True)]

    def fill(z):
        missing = [(0, size - has) for size, has in zip(sizes, z.shape[1:], strict=True)]
        return keras.ops.pad(z, [(0, 0), *missing]) if any(after for _, after in missing) else z

    return fill(x) + fill(y)


# ----------------------------------------------------------------------------------------------------------
# Chips: the inputs of the network
# ----------------------------------------------------------------------------------------------------------


def chip_transforms(landmarks: np.ndarray) -> np.ndarray:
    """Map pixels of chips to pixels of images, placing chips by landmarks as dlib does.

    Parameters
    ----------
    landmarks : ndarray, shape (n, 68, 2) or (68, 2)
        x, y in pixels of the picture.

    Returns
    -------
    ndarray of float32, shape (n, 2, 3) or (2, 3)
        ``picture = transform[:, :2] @ chip + transform[:, 2]`` for x, y of a pixel in the chip of 150 x 150; always a
        rotation, scale and shift. dlib first halves images whose chip is shrunk more than twofold, which shifts them by
        half a pixel; we omit this shift.

    Raises
    ------
    ValueError
        If the landmarks are not 68 distinct finite points.
    """
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if landmarks.ndim == 3:
        return np.stack([chip_transforms(points) for points in landmarks])
    if landmarks.shape != (68, 2):
        raise ValueError(f"landmarks must have the shape (n, 68, 2), got {landmarks.shape}")
    if not np.isfinite(landmarks).all() or np.ptp(landmarks, axis=0).max() < 1e-3:
        raise ValueError("landmarks must be 68 distinct finite points")
    # Ask dlib for the chip of the scaled landmarks, centred at 0.
    shift = landmarks.mean(axis=0)
    points = [dlib.point(*(int(v) for v in p)) for p in np.rint((landmarks - shift) * _SUBPIXELS)]
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, 1, 1), points)
    details = dlib.get_face_chip_details(shape, CHIP_SIZE, CHIP_PADDING)
    # Scale its rectangle and angle back.
    rect, angle = details.rect, details.angle
    width = (rect.right() - rect.left() + 1) / _SUBPIXELS  # dlib's rectangles include their last pixel
    scale = (width - 1) / (CHIP_SIZE - 1)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([rect.left() + rect.right(), rect.top() + rect.bottom()]) / (2 * _SUBPIXELS) + shift
    return np.column_stack([linear, centre - linear @ np.full(2, (CHIP_SIZE - 1) / 2)]).astype(np.float32)


def halvings(transforms: np.ndarray) -> int:
    """Number of times to halve images before sampling chips, so that no pixel is skipped."""
    scale = np.sqrt(np.abs(np.linalg.det(np.asarray(transforms)[..., :2])))
    return max(0, int(np.floor(np.log2(np.median(scale)))))


def _differentiable_chips(pictures: tf.Tensor, transforms: tf.Tensor, n_halvings: int = 0) -> tf.Tensor:
    """Crop chips from images by bilinear sampling, as dlib does; gradients flow to the images.

    Parameters
    ----------
    pictures : tensor of float32, shape (n, h, w, c)
    transforms : array or tensor of float32, shape (n, 2, 3) or (2, 3)
        See `chip_transforms`; a single transform is used for all images.
    n_halvings : int, default 0
        See `halvings`; height and width must be divisible by ``2**n_halvings``.

    Returns
    -------
    tensor of float32, shape (n, 150, 150, c)
        Black beyond the images' borders.
    """
    for _ in range(n_halvings):
        pictures = tf.nn.avg_pool2d(pictures, 2, 2, "VALID")
    factor = float(2**n_halvings)
    transforms = tf.reshape(tf.convert_to_tensor(transforms, tf.float32), (-1, 2, 3))
    n, (height, width, channels) = tf.shape(pictures)[0], pictures.shape[1:]
    # Map each pixel of the chip to the picture, which gets a black rim of one pixel. x, y: (n, 22500, 2)
    places = np.stack(np.meshgrid(*[np.arange(CHIP_SIZE)] * 2), axis=-1).reshape(-1, 2)
    places = tf.einsum("pj,nij->npi", tf.constant(places, tf.float32), transforms[:, :, :2])
    places = (places + transforms[:, None, :, 2] + 0.5) / factor - 0.5
    places = tf.clip_by_value(places, -1.0, [float(width), float(height)]) + 1.0
    places = tf.broadcast_to(places, (n, CHIP_SIZE**2, 2))
    # Find the upper left of the four pixels around it, and the fractional offset. (n, 22500, 2)
    low = tf.minimum(tf.floor(places), [float(width), float(height)])
    share = places - low
    corner = tf.cast(low, tf.int32)
    corner = corner[..., 1] * (width + 2) + corner[..., 0]
    flat = tf.reshape(tf.pad(pictures, [[0, 0], [1, 1], [1, 1], [0, 0]]), (n, -1, channels))

    def at(offset: int, weight: tf.Tensor) -> tf.Tensor:
        return tf.gather(flat, corner + offset, batch_dims=1) * weight[..., None]

    # Interpolate between the four.
    x, y = share[..., 0], share[..., 1]
    upper = at(0, (1 - x) * (1 - y)) + at(1, x * (1 - y))
    lower = at(width + 2, (1 - x) * y) + at(width + 3, x * y)
    return tf.reshape(upper + lower, (n, CHIP_SIZE, CHIP_SIZE, channels))


def describe(pictures: tf.Tensor, transforms: tf.Tensor, n_halvings: int = 0) -> tf.Tensor:
    """Describe the faces in images (n, h, w, 3 or 1) in 0..255: descriptors (n, 128), differentiable."""
    chips = _differentiable_chips(pictures, transforms, n_halvings)
    if chips.shape[3] == 1:
        chips = tf.repeat(chips, 3, axis=3)
    return descriptor_network()(chips)


def distances(drawn: tf.Tensor, transforms: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """Distances of the first of some images, (b, h, w, 3 or 1) in -1..1, from wanted descriptors (n, 128): (n,)."""
    found = describe((drawn[: wanted.shape[0]] + 1) * 127.5, transforms)
    return tf.norm(found - wanted + 1e-6, axis=1)


def describe_faces(pictures: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Describe the faces in many images, uint8 (n, h, w, 3 or 1), with landmarks (n, 68, 2): (n, 128)."""
    found = []
    for start in utils.progress(range(0, len(pictures), _BATCH), "describing faces"):
        rows = slice(start, start + _BATCH)
        part = tf.constant(pictures[rows].astype(np.float32))
        found.append(describe(part, chip_transforms(landmarks[rows])).numpy())
    return np.concatenate(found)
