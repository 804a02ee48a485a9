"""Find the nuisance codes of photos that a network was not trained on, by gradient steps through the network."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from CNN.model import FaceNetwork
from CNN.photos import face_weights
from CNN.training import pyramid_loss

#: Fitted codes are held near the code they start from by this weight on the mean square of the difference: further
#: away they match a photo's pixels better, but the person less.
PRIOR = 1.0

#: Adam's first step; it falls to 0 by a half cosine.
FIRST_STEP = 0.15


def fit_nuisance(
    model: FaceNetwork,
    identity: np.ndarray,
    pictures: np.ndarray,
    visible: np.ndarray,
    steps: int = 20,
    prior: float = PRIOR,
) -> np.ndarray:
    """Find nuisance codes with which the network draws given pictures best.

    It starts from the code of the training photo of the same people (those of the identity code) that comes nearest.

    Parameters
    ----------
    model : FaceNetwork
        One with nuisance codes.
    identity : ndarray, shape (n, identities)
        Identity codes, which stay as they are.
    pictures : ndarray of float32, shape (n, h, w, c)
        In the network's frame, in 0..1; see `CNN.photos.align`.
    visible : ndarray of bool, shape (n, h, w)
        Only what a photo shows counts.
    steps : int, default 20
    prior : float, default `PRIOR`

    Returns
    -------
    ndarray of float32, shape (n, m)

    Raises
    ------
    ValueError
        If the network has no nuisance codes, or the arrays do not fit.
    """
    a = model.architecture
    if "nuisance" not in a.input_sizes or model.landmarks is None:
        raise ValueError("this network has no nuisance codes that could be fitted to a photo")
    identity = np.asarray(identity, dtype=np.float32)
    shapes = (identity.shape, np.shape(pictures), np.shape(visible))
    n = len(identity)
    wanted = ((n, len(model.identities)), (n, a.height, a.width, a.channels), (n, a.height, a.width))
    if shapes != wanted:
        raise ValueError(f"identity, pictures and visible must have the shapes {wanted}, not {shapes}")
    weights = face_weights(model.landmarks, a.height, a.width)[None] * np.asarray(visible)[..., None]
    weights = tf.constant(weights, tf.float32)  # (n, h, w, 1)
    pictures = tf.constant(pictures, tf.float32)
    start = np.stack(
        [_nearest(model, identity[i], pictures[i : i + 1], weights[i : i + 1]) for i in range(n)]
    )  # (n, m)
    codes = tf.Variable(start)
    optimizer = keras.optimizers.Adam(FIRST_STEP, beta_2=0.99)
    optimizer.build([codes])

    @tf.function
    def step():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(codes)
            inputs = {"identity": tf.constant(identity), "nuisance": tf.convert_to_tensor(codes)}
            drawn = model.network(inputs, training=False)
            loss = pyramid_loss(drawn - pictures, weights) + prior * tf.reduce_mean(tf.square(codes - start))
        optimizer.apply_gradients([(tape.gradient(loss, codes), codes)])

    for number in range(steps):
        optimizer.learning_rate.assign(FIRST_STEP * 0.5 * (1 + np.cos(np.pi * number / steps)))
        step()
    return codes.numpy()


def _nearest(model: FaceNetwork, identity: np.ndarray, picture: tf.Tensor, weights: tf.Tensor) -> np.ndarray:
    """The known code, or 0, with which the network comes nearest to a picture: (m,)."""
    own = identity[model.photo_people] > 0 if len(model.photos) else np.zeros(0, dtype=bool)
    size = model.architecture.input_sizes["nuisance"]
    known = np.vstack([np.zeros((1, size), dtype=np.float32), model.nuisance_codes[own]])
    drawn = model.generate(np.tile(identity, (len(known), 1)), nuisance=known)
    losses = [float(pyramid_loss(one[None] - picture, weights)) for one in drawn]
    return known[int(np.argmin(losses))]
