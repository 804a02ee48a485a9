"""Train the network on aligned photos, with given identity codes and learnt nuisance codes.

Learning a free code for each photo together with the network follows Bojanowski, Joulin, Lopez-Paz and Szlam,
"Optimizing the latent space of generative networks", ICML 2018. One calm frontal photo of each person, the anchor, has
the code 0, so that 0 means the same for all people. The first part of a code is not learnt: it describes how the
photo's landmarks differ from those of the anchor. Pose and expression therefore also mean the same for all people, and
can be transferred from one person to another.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from checks import Number
from CNN.architecture import Architecture, build
from CNN.model import FaceNetwork
from datasets import photo_key
from training.backend import keras, tf
from training.loop import Natural, Positive, TrainingLoop, TrainingSettings, Weight
from training.losses import pyramid_loss
from training.training_set import TrainingSet

# Ratio of the stored codes to the variables that Adam updates, so that codes change faster than weights.
_CODE_SPEED = 4.0
# Steps per evaluation on the codes of held-out photos, and the number of these photos.
_HELD_OUT_STEPS, _HELD_OUT_PHOTOS = 4, 48
# Share of the images before the learning rate starts to fall.
_CONSTANT_SHARE = 0.4
# Columns of the sheet of samples.
_COLUMNS = 10


@dataclass(frozen=True)
class UpConvolutionSettings(TrainingSettings):
    """How to train the up-convolutional network; see `TrainingSettings`."""

    nuisance: Annotated[Positive, "length of the nuisance codes"] = 16
    landmark_codes: Annotated[Natural, "nuisance codes given by the landmarks, at most half of all"] = 8
    mirror: Annotated[float, Number(at_least=0, at_most=0.9), "share of images shown mirrored"] = 0.2
    code_noise: Annotated[Weight, "standard deviation of noise on nuisance codes"] = 0.05
    code_penalty: Annotated[Weight, "weight of the nuisance codes' mean square in the loss"] = 1e-3


class UpConvolutionTrainer(TrainingLoop):
    """Trains an up-convolutional network; see `TrainingLoop`.

    Parameters
    ----------
    photos : TrainingSet
        Its ``conditions``, if any, replace the nuisance codes.
    settings : UpConvolutionSettings
    capacity : float, default 1.0
        Multiplier of the channels of the network.
    """

    def __init__(self, photos: TrainingSet, settings: UpConvolutionSettings, capacity: float = 1.0):
        keras.utils.set_random_seed(settings.seed)
        n, size = len(photos), settings.nuisance
        sizes = {name: values.shape[1] for name, values in photos.conditions.items()} or {"nuisance": size}
        sizes = {"identity": len(photos.identities), **sizes}
        self.architecture = Architecture.for_size(sizes, *photos.pictures.shape[1:], capacity)
        self.network = build(self.architecture, settings.precision)
        # Codes of the photos, then of their mirror images: given + _CODE_SPEED * codes * free. (2n, size)
        start = np.random.default_rng(settings.seed).normal(size=(2 * n, size)) * 0.3
        self.codes = tf.Variable(start / _CODE_SPEED, dtype=tf.float32)
        self.n_landmark_codes = min(settings.landmark_codes, size // 2)
        free = np.ones((2 * n, size), dtype=np.float32)
        free[:n][photos.anchors] = 0
        free[:, : self.n_landmark_codes] = 0
        given = np.zeros((2 * n, size), dtype=np.float32)
        given[:, : self.n_landmark_codes] = photos.landmark_codes(self.n_landmark_codes)
        self.free, self.given = tf.constant(free), tf.constant(given)
        self.people = tf.one_hot(photos.people, len(photos.identities))  # (n, identities)
        self.training_rows = np.flatnonzero(~photos.held_out)
        self.held_out_rows = np.flatnonzero(photos.held_out)
        self.held_out_optimizer = keras.optimizers.Adam(0.05 / _CODE_SPEED)
        self.held_out_optimizer.build([self.codes])
        self._held_out_step = tf.function(self._fit_held_out)
        trained = [weight.value for weight in self.network.trainable_variables]
        groups = {"plain": (trained if photos.conditions else [*trained, self.codes], settings.learning_rate)}
        averaged = [(tf.Variable(weight.value, trainable=False), weight) for weight in self.network.weights]
        super().__init__(photos, settings, groups, averaged, _CONSTANT_SHARE * settings.images)

    def batch(self, random: np.random.Generator) -> tuple:
        """Draw training photos (indices from n are mirror images), and noise for their codes."""
        s = self.settings
        rows = random.choice(self.training_rows, s.batch)
        rows = rows + len(self.photos) * (random.random(len(rows)) < s.mirror)
        noise = random.normal(size=(len(rows), s.nuisance)) * s.code_noise
        return rows, *self._shown(rows), noise.astype(np.float32)

    def loss(self, phase, rows, pictures, conditions, noise) -> tuple[tf.Tensor, tf.Tensor]:
        """Compare drawn images with photos; the loss to minimise includes a penalty on codes."""
        codes = self._codes(rows)
        loss = self._compare(rows, codes + noise, pictures, conditions, training=True)
        return loss, loss + self.settings.code_penalty * tf.reduce_mean(tf.square(codes))

    def _codes(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.given + _CODE_SPEED * self.codes * self.free, rows)

    def _compare(self, rows, codes, pictures, conditions, training: bool) -> tf.Tensor:
        inputs = {"identity": tf.gather(self.people, rows % len(self.photos))}
        drawn = self.network(inputs | (conditions or {"nuisance": codes}), training=training)
        return pyramid_loss(tf.cast(drawn, tf.float32) - pictures, self.weights)

    def _shown(self, rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Photos (mirrored for indices from n) as float32 (b, h, w, c) in 0..1, and their known codes (b, length)."""
        places, mirrored = rows % len(self.photos), rows >= len(self.photos)
        pictures = self.photos.pictures[places].astype(np.float32) / 255
        pictures[mirrored] = pictures[mirrored, :, ::-1]
        conditions = {name: values[places] for name, values in self.photos.conditions.items()}
        if "orientation" in conditions:  # a mirrored face looks the other way
            conditions["orientation"][mirrored, 0] *= -1
        return pictures, conditions

    def held_out_loss(self) -> float:
        """Continue to fit the codes of some held-out photos; return their loss, or NaN if there are none."""
        if len(self.held_out_rows) == 0:
            return float("nan")
        rows = self.held_out_rows[:: max(1, len(self.held_out_rows) // _HELD_OUT_PHOTOS)][:_HELD_OUT_PHOTOS]
        batch = tf.nest.map_structure(tf.constant, (rows, *self._shown(rows)))
        return [float(self._held_out_step(*batch)) for _ in range(_HELD_OUT_STEPS)][-1]

    def _fit_held_out(self, rows, pictures, conditions):
        """Update the codes of photos by one step, and return the loss."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.codes)
            loss = self._compare(rows, self._codes(rows), pictures, conditions, training=False)
        if not conditions:
            gradient = tf.convert_to_tensor(tape.gradient(loss, self.codes))
            self.held_out_optimizer.apply_gradients([(gradient, self.codes)])
        return loss

    def result(self) -> FaceNetwork:
        """Make the network with its averaged weights, and the codes of the training photos."""
        photos = self.photos
        network = build(self.architecture)
        network.set_weights([average.numpy() for average, _ in self.averaged])
        rows = self.training_rows[:0] if photos.conditions else self.training_rows
        codes = self._codes(rows).numpy()
        return FaceNetwork(
            self.architecture,
            network,
            photos.identities,
            photos.source,
            {**asdict(self.settings), "landmark_codes": self.n_landmark_codes, "images_seen": self.seen},
            [photos.names[row] for row in rows],
            photos.people[rows],
            codes[:, : self.architecture.input_sizes.get("nuisance", 0)],
            [photos.names[row] for row in self.held_out_rows],
            photos.landmarks,
            self._known_photos(),
        )

    def _known_photos(self) -> dict[str, str]:
        """Name of each photo, held-out ones included, by its key."""
        people = [self.photos.identities[person] for person in self.photos.people]
        return dict(zip(map(photo_key, self.photos.keys, people), self.photos.names, strict=True))

    def save(self, out: Path) -> None:
        """Write the network."""
        self.result().save(out)

    def samples(self) -> list[np.ndarray]:
        """Draw training photos, reconstructions, the same people with nuisance 0, and averages of 2, 3, ... people."""
        photos, model = self.photos, self.result()
        random = np.random.default_rng(self.settings.seed)
        columns = min(_COLUMNS, len(self.training_rows))
        rows = np.sort(random.choice(self.training_rows, columns, replace=False))
        n = len(photos.identities)
        identity = np.eye(n, dtype=np.float32)[photos.people[rows]]
        own = self._shown(rows)[1] or {"nuisance": self._codes(rows).numpy()}
        mixtures = np.zeros((len(rows), n), dtype=np.float32)
        for number, mixture in enumerate(mixtures):
            members = random.choice(n, min(n, number + 2), replace=False)
            mixture[members] = 1 / len(members)
        drawn = [model.generate(identity, **own), model.generate(identity), model.generate(mixtures)]
        return [photos.pictures[rows], *(np.rint(row * 255).astype(np.uint8) for row in drawn)]

    def state(self) -> dict[str, list]:
        """Variables in a checkpoint."""
        return super().state() | {"codes": [self.codes], "adam_held_out": self.held_out_optimizer.variables}
