"""Find the codes of photos that a network was not trained on, from attributes or by gradient descent on the pixels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

import detection
from checks import check_array
from CNN.model import EMOTIONS, FaceNetwork
from datasets import Faces
from frame import warp_photo
from training.backend import tf
from training.descent import half_cosine, minimise
from training.losses import pyramid_loss
from training.training_set import face_weights

# Weight of the mean squared distance of fitted codes from their starting code. Codes further away match a photo's
# pixels better, but the person less.
_PRIOR = 1.0

# Adam's initial step; it decays to 0 as a half cosine.
_FIRST_STEP = 0.15


def conditions_of(faces: Faces) -> dict[str, np.ndarray]:
    """Read emotion (n, 8) and orientation (n, 2) from RaFD's attributes.

    Raises
    ------
    ValueError
        If the photos have no attributes ``expression`` and ``pose``, or an unknown expression.
    """
    missing = {"expression", "pose"} - set(faces.attributes.columns)
    if missing:
        raise ValueError(
            f"the photos of {faces.source} have no {' and '.join(sorted(missing))}; learn nuisance codes instead"
        )
    emotions = [str(value).lower() for value in faces.attributes["expression"]]
    unknown = sorted(set(emotions) - set(EMOTIONS))
    if unknown:
        raise ValueError(f"unknown expression {unknown[0]!r}; choose from {', '.join(EMOTIONS)}")
    emotion = np.eye(len(EMOTIONS), dtype=np.float32)[[EMOTIONS.index(value) for value in emotions]]
    angle = np.deg2rad(faces.attributes["pose"].to_numpy(dtype=float) - 90)  # RaFD's frontal view is 90
    orientation = np.stack([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
    return {"emotion": emotion, "orientation": orientation}


def align(
    images: Sequence[np.ndarray], landmarks: np.ndarray, model: FaceNetwork
) -> tuple[np.ndarray, np.ndarray]:
    """Align photos to the frame of a network.

    Parameters
    ----------
    images : sequence of n uint8 arrays (h, w, 3)
    landmarks : ndarray, shape (n, 68, 2)
    model : FaceNetwork
        A network with the landmarks of the faces that it draws.

    Returns
    -------
    pictures : ndarray of float32, shape (n, height, width, channels)
        In 0..1.
    visible : ndarray of bool, shape (n, height, width)
        The part of the frame that the photo covers.
    """
    a = model.architecture
    pictures, visible = [], []
    for image, points in zip(images, landmarks, strict=True):
        if a.channels == 1:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
        texture, seen = warp_photo(image, detection.similarity(points, model.landmarks), a.height, a.width)
        pictures.append(texture / 255)
        visible.append(seen)
    return np.stack(pictures).astype(np.float32), np.stack(visible)


def fit_nuisance(
    model: FaceNetwork,
    identity: np.ndarray,
    pictures: np.ndarray,
    visible: np.ndarray,
    steps: int = 20,
    prior: float = _PRIOR,
) -> np.ndarray:
    """Find the nuisance codes with which a network best reproduces given photos.

    The search starts from the nearest known code of a training photo of the same person.

    Parameters
    ----------
    model : FaceNetwork
        A network with nuisance codes.
    identity : ndarray, shape (n, identities)
        Identity codes, which stay unchanged.
    pictures : ndarray of float32, shape (n, h, w, c)
        In the network's frame, in 0..1; see `align`.
    visible : ndarray of bool, shape (n, h, w)
        Pixels to compare.
    steps : int, default 20
    prior : float, default 1.0
        Weight of the distance from the start.

    Returns
    -------
    ndarray of float32, shape (n, m)

    Raises
    ------
    ValueError
        If the network has no nuisance codes, or the shapes do not match.
    """
    a = model.architecture
    if "nuisance" not in a.input_sizes or model.landmarks is None:
        raise ValueError("this network has no nuisance codes to fit to a photo")
    identity = check_array("identity", identity, (None, len(model.identities)))
    n = len(identity)
    pictures = check_array("pictures", pictures, (n, a.height, a.width, a.channels))
    visible = check_array("visible", visible, (n, a.height, a.width))
    weights = face_weights(model.landmarks, a.height, a.width)[None] * visible[..., None]
    weights /= np.maximum(weights.mean(axis=(1, 2, 3), keepdims=True), 1e-12)  # every photo counts equally
    weights = tf.constant(weights, tf.float32)  # (n, h, w, 1)
    pictures = tf.constant(pictures, tf.float32)
    nearest = [_nearest(model, identity[i], pictures[i : i + 1], weights[i : i + 1]) for i in range(n)]
    start = np.stack(nearest)  # (n, m)
    codes = tf.Variable(start)

    def loss() -> tf.Tensor:
        inputs = {"identity": tf.constant(identity), "nuisance": tf.convert_to_tensor(codes)}
        drawn = model.network(inputs, training=False)
        apart = prior * tf.reduce_mean(tf.square(codes - start))
        # Times n, so that each photo's gradient is that of its own loss.
        return n * (pyramid_loss(drawn - pictures, weights) + apart)

    minimise(loss, [codes], _FIRST_STEP * half_cosine(np.arange(steps) / steps))
    return codes.numpy()


def _nearest(model: FaceNetwork, identity: np.ndarray, picture: tf.Tensor, weights: tf.Tensor) -> np.ndarray:
    """The known code, or 0, with which the network best reproduces a photo (1, h, w, c): (m,)."""
    own = identity[model.photo_people] > 0 if len(model.photos) else np.zeros(0, dtype=bool)
    size = model.architecture.input_sizes["nuisance"]
    known = np.vstack([np.zeros((1, size), dtype=np.float32), model.nuisance_codes[own]])
    drawn = model.generate(np.tile(identity, (len(known), 1)), nuisance=known)
    return known[int(np.argmin([float(pyramid_loss(one[None] - picture, weights)) for one in drawn]))]
