"""An attacker who trains a small convolutional network to undo the anonymization."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import checks
import detection
import utils
from attacks.cases import AttackResult, DescribedRelease, Gallery, Practice, distances
from attacks.learning import Measure, learned

#: Side of the grey crops that the network reads and draws.
_SIDE = 64


def reversal_network(
    release: DescribedRelease,
    gallery: Gallery,
    describe: Callable[[list[np.ndarray]], np.ndarray],
    described: Gallery,
    practice: Practice | None = None,
    *,
    n_splits: int = 2,
    epochs: int = 12,
    random_state=0,
) -> list[AttackResult]:
    """Undo the anonymization with a small convolutional network, then recognise the reconstructed faces.

    Threat model and results as for `learned`: the network trains on images and original photos of the attacker's half
    of the people, and reconstructs a face from each image of the others. The untrained rate is that of pixels.

    Parameters
    ----------
    release, gallery, practice : DescribedRelease, Gallery, Practice
        Their descriptors are crops of 64 x 64 grey pixels from 0 to 1, see `recognisers.grey_crops`.
    describe : callable
        A recogniser, see `recognisers.prepare`. Its input is the reconstructed faces, enlarged to 256 x 256.
    described : Gallery
        The gallery's photos as described by this recogniser.
    n_splits : int, default 2
        Number of random splits. Each trains a network, which takes about a minute.
    epochs : int, default 12
    random_state : int, RandomState or None, default 0

    Notes
    -----
    A U-net (Ronneberger, Fischer and Brox, MICCAI 2015): three downsampling steps, a bottleneck, and three upsampling
    steps with skip connections. It predicts the difference from the image. Adam minimises the mean absolute error.
    """
    if release.descriptors.shape[1] != _SIDE**2:
        raise checks.ParameterError(
            f"release must have crops of {_SIDE} x {_SIDE} pixels, {_SIDE**2} values a row, "
            f"got {release.descriptors.shape[1]}"
        )
    if not np.array_equal(gallery.identities, described.identities):
        raise checks.ParameterError("gallery and described must hold the same photos in the same order")
    clear = {
        crop.tobytes(): row for crop, row in zip(gallery.descriptors, described.descriptors, strict=True)
    }

    def learn(practice: Practice, known: Gallery, random: np.random.RandomState) -> Measure:
        network = _train(practice, known, epochs, random)

        def measure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            drawn = network.predict_on_batch(a.reshape(-1, _SIDE, _SIDE, 1))
            pixels = np.clip(np.rint(255 * drawn), 0, 255).astype(np.uint8)  # (c, 64, 64, 1)
            images = [detection.resize(np.repeat(image, 3, axis=2), 4.0) for image in pixels]
            return distances(describe(images), np.stack([clear[row.tobytes()] for row in b]))

        return measure

    options = {"n_splits": n_splits, "random_state": random_state}
    return learned(release, gallery, practice, method="reversal network", learn=learn, **options)


def _train(practice: Practice, gallery: Gallery, epochs: int, random: np.random.RandomState):
    """Fit the network to pairs of an image and each photo of its members."""
    utils.import_quietly("tensorflow", "keras")
    import keras

    genuine = [np.isin(gallery.identities, list(members)) for members in practice.members]
    pairs = np.argwhere(genuine)  # (pairs, 2)
    shape = (-1, _SIDE, _SIDE, 1)
    images, photos = practice.descriptors.reshape(shape), gallery.descriptors.reshape(shape)
    keras.utils.set_random_seed(int(random.randint(2**31)))
    network = _unet(keras)
    network.compile(keras.optimizers.Adam(2e-3), "mean_absolute_error")
    for _ in utils.progress(range(epochs), "training the reversal"):
        order = random.permutation(len(pairs))
        for start in range(0, len(order), 32):
            chosen = pairs[order[start : start + 32]]
            x, y = images[chosen[:, 0]], photos[chosen[:, 1]]
            if random.randint(2):  # mirror the batch
                x, y = x[:, :, ::-1], y[:, :, ::-1]
            network.train_on_batch(x, y)
    return network


def _unet(keras):
    layers = keras.layers
    given = x = keras.Input((_SIDE, _SIDE, 1))
    # Halve the side three times. (64, 64, 1) -> (8, 8, 64)
    down = []
    for filters in (16, 32, 64):
        down.append(x)
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    # Double it three times, with skip connections to the layers of equal size. (64, 64, 16)
    for filters, beside in zip((64, 32, 16), reversed(down), strict=True):
        x = layers.Concatenate()([layers.UpSampling2D()(x), beside])
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    # Add the difference, which is zero before training.
    difference = layers.Conv2D(1, 3, padding="same", kernel_initializer="zeros")(x)
    return keras.Model(given, layers.Add()([given, difference]))
