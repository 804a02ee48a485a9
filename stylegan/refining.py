"""Refine a trained network together with a free W+ code for each photo.

Bojanowski, Joulin, Lopez-Paz and Szlam, "Optimizing the latent space of generative networks", ICML 2018. With an
encoder instead of free codes (`stylegan.training`) the images stay blurred: for such a network, individually optimised
codes halve the error.

Mean codes of several people are trained by example: the network must reproduce another generator's surrogate of the
same photos (`augmentation.mix_people`), sometimes from a single w for all layers, as the mapping network produces it.
(An earlier version required mixtures to have detail as strong as their members', and the mean of their features in
dlib's recogniser; the network then drew glasses on everyone.) Images are compared in pixels, in the bands of a
Laplacian pyramid and in the strength of their detail; photos also by the features of dlib's recogniser.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np

import utils
from checks import Number, ParameterError
from stylegan import features
from stylegan.architecture import Synthesis
from stylegan.augmentation import Mixtures, to_signed, vary
from stylegan.code_folder import read_kept_codes
from stylegan.encoder import Encoder, build_encoder, encoder_path
from stylegan.network import StyleNetwork, to_uint8
from stylegan.training import (
    SHARP_DETAIL,
    SharpenedTraining,
    describe_training,
    fit_mapping,
    strength_loss,
    strengths,
    weight_groups,
)
from training.backend import keras, tf
from training.descent import LARGEST_NORM, half_cosine, minimise
from training.loop import Natural, Positive, Share, TrainingSettings, Weight, different_people
from training.losses import pyramid_loss
from training.training_set import TrainingSet, mirror_landmarks

# Number of photos per batch that are compared by their features.
_FEATURED = 2
# Columns of the sheet of samples.
_COLUMNS = 12

# Share of mixtures in a batch of the last phase.
_SHARP_MIXED = 0.75

# Codes of photos that the network was not trained on: steps, learning rate, weight of the features.
_FIT_STEPS, _FIT_RATE, _FIT_FEATURES, _FIT_BATCH = 40, 0.05, 0.2, 16
# The encoder: steps, batch size (half of it mixtures), and learning rate.
_ENCODER_STEPS, _ENCODER_BATCH, _ENCODER_RATE = 1200, 16, 1e-3
# Number of images per batch that are drawn from the encoder's codes, and the weight of their difference from the photos
# relative to that of codes, in units of the codes' spread.
_ENCODER_DRAWN, _ENCODER_PIXELS = 4, 1.0
# Spread of random w relative to the photos' codes, before truncation by 0.7 shrinks it.
_SPREAD = 1.3


@dataclass(frozen=True)
class AutoDecoderSettings(TrainingSettings):
    """How to refine a network; weights are relative to that of the pyramid loss. See `TrainingSettings`."""

    images: Annotated[Positive, "number of images to train on, photos and mixtures"] = 34_000
    batch: Annotated[Positive, "images in a batch"] = 8
    learning_rate: Annotated[float, Number(above=0, at_most=1), "largest rate of most weights"] = 2e-3
    ema: Annotated[float, Number(at_least=0, below=1), "decay of the moving average of the weights"] = 0.995
    evaluate_every: Annotated[Positive, "images between two rows of the log"] = 1_000
    mixed: Annotated[Natural, "mixtures in a batch; the rest are photos"] = 4
    mixtures: Annotated[Positive, "number of groups of people to mix"] = 4_000
    scaled_rate: Annotated[Weight, "largest learning rate of weights stored with variance 1"] = 0.01
    code_rate: Annotated[Weight, "largest learning rate of codes"] = 0.005
    constant: Annotated[float, Number(at_least=0, below=1), "share of images before the rates fall"] = 0.25
    features_from: Annotated[Natural, "images before a recogniser's features count"] = 24_000
    features: Annotated[Weight, "weight of the features of photos"] = 0.2
    strength: Annotated[Weight, "weight of the strength of detail"] = 3.0
    quantile: Annotated[Share, "target quantile of the strength where it is uncertain"] = 0.5
    single: Annotated[Share, "share of mixtures drawn from one w, the mean over layers"] = 0.3
    noise: Annotated[Weight, "standard deviation of noise on codes, relative to theirs"] = 0.05
    sharpen: Annotated[Natural, "further images at the end that sharpen, with all codes fixed"] = 0

    def __post_init__(self):
        super().__post_init__()
        if not self.mixed < self.batch <= self.mixtures:
            raise ParameterError(
                "batch must be above mixed and at most mixtures, "
                f"got batch {self.batch}, mixed {self.mixed}, mixtures {self.mixtures}"
            )


class AutoDecoder(SharpenedTraining):
    """Trains a synthesis network and a code for each photo; see `SharpenedTraining`.

    Parameters
    ----------
    photos : TrainingSet
        Photos padded to squares.
    mixtures : Mixtures
        Mixtures of the training photos.
    synthesis : Synthesis
        Trained in place.
    codes : ndarray, shape (2m, num_layers, w_dim)
        Initial codes of the m training photos, then of their mirror images.
    settings : AutoDecoderSettings

    Attributes
    ----------
    pictures : ndarray of uint8, shape (2m + mixtures, r, r, 1)
        All training images: photos, mirrored photos, mixtures.
    members : ndarray of int, shape (2m + mixtures, largest group)
    shares : ndarray of float32, shape (2m + mixtures, largest group)
        Indices and weights of the codes that are mixed for each image; a photo is a group of one.
    """

    warm_up = 50

    def __init__(
        self,
        photos: TrainingSet,
        mixtures: Mixtures,
        synthesis: Synthesis,
        codes: np.ndarray,
        settings: AutoDecoderSettings,
    ):
        own = ~photos.held_out
        pictures, shapes = photos.pictures[own], photos.shapes[own]
        self.people = np.tile(photos.people[own], 2)
        self.pictures = np.concatenate([pictures, pictures[:, :, ::-1], mixtures.pictures])
        self.shapes = np.concatenate([shapes, mirror_landmarks(shapes, pictures.shape[2])])
        alone = np.zeros((len(codes), mixtures.members.shape[1]), dtype=np.float32)
        alone[:, 0] = 1
        first = np.broadcast_to(np.arange(len(codes))[:, None], alone.shape)
        self.members = np.concatenate([first, mixtures.members])
        self.shares = np.concatenate([alone, mixtures.weights])
        self.codes = tf.Variable(codes, dtype=tf.float32)
        self.spread = float(np.std(codes - codes.mean(axis=0)))
        self.synthesis = synthesis
        self.average_synthesis = Synthesis(synthesis.architecture, synthesis.arrays())
        groups = weight_groups(synthesis, settings.scaled_rate, settings.learning_rate)
        super().__init__(
            photos,
            settings,
            groups | {"codes": ([self.codes], settings.code_rate)},
            zip(self.average_synthesis.trainable_variables, synthesis.trainable_variables, strict=True),
            settings.constant * settings.images,
        )

    @cached_property
    def descriptors(self) -> np.ndarray:
        """The recogniser's descriptors of the training photos and their mirror images: (2m, 128)."""
        return features.describe_faces(self.pictures[: len(self.shapes)], self.shapes)

    def codes_of(self, rows: np.ndarray, mirrored: np.ndarray | bool = False) -> np.ndarray:
        """Codes of pictures, or of their mirror images: float32 (n, num_layers, w_dim)."""
        codes = self.codes.numpy()
        members = (self.members[rows] + len(codes) // 2 * np.reshape(mirrored, (-1, 1))) % len(codes)
        return np.einsum("nk,nklw->nlw", self.shares[rows], codes[members])

    def phase(self) -> tuple[bool, bool]:
        """Whether features count, and whether the codes are fixed and the images sharpened."""
        s = self.settings
        return self.seen >= s.features_from and s.features > 0, self.sharpened

    def random_rows(self, random: np.random.Generator, mixed: int) -> np.ndarray:
        """Draw the rows of a batch: photos of different people first, then mixtures."""
        n = len(self.shapes)
        people = different_people(random, len(self.photos.identities), self.settings.batch - mixed)
        photos = [random.choice(np.flatnonzero(self.people == person)) for person in people]
        mixtures = random.choice(len(self.pictures) - n, mixed, replace=False) + n
        return np.array([*photos, *mixtures], dtype=np.int64)

    def batch(self, random: np.random.Generator, featured: bool, sharpened: bool) -> tuple:
        """Draw photos and mixtures, and the random changes to their codes."""
        s, n = self.settings, len(self.shapes)
        rows = self.random_rows(random, int(_SHARP_MIXED * s.batch) if sharpened else s.mixed)
        single = (rows >= n) & (random.random(len(rows)) < s.single)
        noise = random.normal(scale=s.noise * self.spread, size=(len(rows), *self.codes.shape[1:]))
        transforms, wanted = np.zeros((0, 2, 3), dtype=np.float32), np.zeros((0, 128), dtype=np.float32)
        if featured:
            photos = rows[rows < n][:_FEATURED]
            transforms, wanted = features.chip_transforms(self.shapes[photos]), self.descriptors[photos]
        pictures = to_signed(self.pictures[rows])
        return (
            self.members[rows], self.shares[rows], single, noise.astype(np.float32), pictures, transforms, wanted
        )  # fmt: skip

    def loss(self, phase, members, shares, single, noise, pictures, transforms, wanted):
        """Compare images drawn from mixed codes with photos and examples."""
        s = self.settings
        featured, sharpened = phase
        # Mix the codes of each image's members. (n, layers, w_dim)
        codes = tf.einsum("nk,nklw->nlw", shares, tf.gather(self.codes, members))
        codes = tf.where(single[:, None, None], tf.reduce_mean(codes, axis=1, keepdims=True), codes)
        drawn = self.synthesis(codes + noise, self.synthesis.stored_noise())
        loss = pyramid_loss(drawn - pictures, self.weights)
        weight, quantile = SHARP_DETAIL if sharpened else (s.strength, s.quantile)
        total = loss + weight * strength_loss(strengths(drawn), strengths(pictures), self.weights, quantile)
        if featured:
            total += s.features * tf.reduce_mean(features.distances(drawn, transforms, wanted))
        return loss, total

    def clip(self, gradients: dict[str, list]) -> dict[str, list]:
        """Clip the norm of the weights' gradients only; a large step of the weights must not slow the codes."""
        limited = {name: tf.clip_by_global_norm(part, LARGEST_NORM)[0] for name, part in gradients.items()}
        return limited | {"codes": gradients["codes"]}

    def samples(self) -> list[np.ndarray]:
        """Draw photos and their reconstructions; mixtures by the teacher, from W+, and from a single w."""
        n = len(self.shapes)
        photos = np.linspace(0, n // 2 - 1, _COLUMNS).astype(int)
        sizes = (self.shares[n:] > 0).sum(axis=1)
        mixtures = n + np.argsort(sizes, kind="stable")[np.linspace(0, len(sizes) - 1, _COLUMNS).astype(int)]
        mixed = self.codes_of(mixtures)
        single = np.broadcast_to(mixed.mean(axis=1, keepdims=True), mixed.shape)
        network = self.average_synthesis
        drawn = [
            to_uint8(np.asarray(network(tf.constant(codes), network.stored_noise())))
            for codes in (self.codes_of(photos), mixed, single)
        ]
        return [self.pictures[photos], drawn[0], self.pictures[mixtures], *drawn[1:]]

    def state(self) -> dict[str, list]:
        """Variables in a checkpoint."""
        return super().state() | {"codes": [self.codes]}


def codes_path(network: Path) -> Path:
    """File of the codes of a network's training photos: ``NAME-codes.npz`` next to ``NAME.npz``."""
    return network.with_name(f"{network.stem}-codes.npz")


def starting_codes(photos: TrainingSet, encoder: Encoder, network: Path) -> np.ndarray:
    """Codes of the m training photos, stored or else from the encoder, then of their mirror images.

    Returns
    -------
    ndarray of float32, shape (2m, num_layers, w_dim)
    """
    own = np.flatnonzero(~photos.held_out)
    pictures = to_signed(photos.pictures[own])
    codes = encoder.encode(np.concatenate([pictures, pictures[:, :, ::-1]]))
    known = read_kept_codes(codes_path(network), encoder.description.get("dataset"), codes.shape[1:])
    for place, row in enumerate(own):
        codes[place] = known.get(photos.keys[row], codes[place])
    return codes


def finish(trainer: AutoDecoder, encoder: Encoder, out: Path) -> None:
    """Make network, encoder and codes of all photos, and write them: ``NAME.npz``, ``-encoder``, ``-codes``.

    Parameters
    ----------
    trainer : AutoDecoder
        A trainer that has finished.
    encoder : Encoder
        Trained further in place.
    out : Path
    """
    photos, synthesis, learnt = trainer.photos, trainer.average_synthesis, trainer.codes.numpy()
    m = len(learnt) // 2
    network_description, encoder.description = describe_training(trainer)
    drawing = Synthesis(synthesis.architecture, synthesis.arrays(), dtype=trainer.settings.precision)
    _learn_encoder(encoder, drawing, trainer)
    # Take the learnt codes of training photos, and fit those of held-out photos. (n, layers, w_dim)
    codes = np.empty((len(photos), *learnt.shape[1:]), dtype=np.float32)
    codes[~photos.held_out] = learnt[:m]
    held_out = np.flatnonzero(photos.held_out)
    if len(held_out):
        start = encoder.encode(to_signed(photos.pictures[held_out]))
        codes[held_out] = _fit_codes(drawing, photos, held_out, start)
    # Fit the mapping network to one w for each photo, spread more widely. (m, w_dim)
    single = learnt[:m].mean(axis=1)
    spread = single.mean(axis=0) + _SPREAD * (single - single.mean(axis=0))
    mapping = fit_mapping(synthesis.architecture, spread, trainer.settings.seed)
    average = learnt[:m].mean(axis=(0, 1)).astype(np.float32)
    StyleNetwork(mapping, synthesis, average, network_description).save(out, "float16")
    encoder.save(encoder_path(out), "float16")
    kept = {"names": np.array(photos.names), "keys": np.array(photos.keys), "codes": codes.astype(np.float16)}
    utils.save_arrays(codes_path(out), kept)


def _fit_codes(synthesis: Synthesis, photos: TrainingSet, rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Fit the codes of some photos to a fixed network, from codes (len(rows), num_layers, w_dim): the same shape."""
    weights, noise = tf.constant(photos.pixel_weights()[None]), synthesis.stored_noise()

    @tf.function(reduce_retracing=True)
    def gradient(codes, pictures, transforms, wanted):
        with tf.GradientTape() as tape:
            tape.watch(codes)
            drawn = synthesis(codes, noise)
            loss = tf.cast(tf.shape(codes)[0], tf.float32) * pyramid_loss(drawn - pictures, weights)
            loss += _FIT_FEATURES * tf.reduce_sum(features.distances(drawn, transforms, wanted))
        return tape.gradient(loss, codes)

    result = []
    for first in utils.progress(range(0, len(rows), _FIT_BATCH), "fitting codes"):
        batch = rows[first : first + _FIT_BATCH]
        codes = tf.Variable(start[first : first + _FIT_BATCH], dtype=tf.float32)
        pictures = tf.constant(to_signed(photos.pictures[batch]))
        transforms = tf.constant(features.chip_transforms(photos.shapes[batch]))
        wanted = features.describe((pictures + 1) * 127.5, transforms)
        optimizer = keras.optimizers.Adam(_FIT_RATE, beta_2=0.99)
        for step in range(_FIT_STEPS):
            optimizer.learning_rate.assign(_FIT_RATE * half_cosine(step / _FIT_STEPS))
            optimizer.apply_gradients([(gradient(codes.value(), pictures, transforms, wanted), codes)])
        result.append(codes.numpy())
    return np.concatenate(result)


def _learn_encoder(encoder: Encoder, synthesis: Synthesis, trainer: AutoDecoder) -> None:
    """Train an encoder in place on the codes of training photos and mixtures; the network stays fixed."""
    n, codes = len(trainer.shapes), trainer.codes.numpy()
    spread = float(np.std(codes - codes.mean(axis=0)))
    weights, noise = trainer.weights, synthesis.stored_noise()
    model = build_encoder(encoder.sizes, trainer.settings.precision)
    model.set_weights(encoder.model.get_weights())
    variables = [v.value for v in model.trainable_variables]

    def loss(pictures, wanted):
        base, offsets = (tf.cast(part, tf.float32) for part in model(pictures, training=True))
        found = base[:, None] + offsets  # (n, layers, w_dim)
        drawn = synthesis(found[:_ENCODER_DRAWN], noise)
        difference = pyramid_loss(drawn - pictures[:_ENCODER_DRAWN], weights)
        return tf.reduce_mean(tf.abs(found - wanted)) / spread + _ENCODER_PIXELS * difference

    def batch(number):
        random, mixed = np.random.default_rng([trainer.settings.seed, number]), _ENCODER_BATCH // 2
        photos, mixtures = random.choice(n, mixed), random.integers(n, len(trainer.pictures), mixed)
        rows = np.concatenate([photos, mixtures])
        unused = np.zeros((len(rows), 68, 2))  # in place of landmarks
        pictures, _, mirrored = vary(trainer.pictures[rows], unused, random)
        return pictures, trainer.codes_of(rows, mirrored)

    rates = _ENCODER_RATE * (0.01 + 0.99 * half_cosine(np.arange(_ENCODER_STEPS) / _ENCODER_STEPS))
    batches = map(batch, utils.progress(range(_ENCODER_STEPS), "teaching the encoder"))
    minimise(loss, variables, rates, batches, LARGEST_NORM)
    encoder.model.set_weights(model.get_weights())
