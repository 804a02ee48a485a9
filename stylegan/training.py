"""Train a small network and its encoder together, as an autoencoder through W+; fit the mapping network afterwards.

A GAN of this size would take days to train on a CPU. Here the encoder finds a photo's code, the synthesis network draws
it, and both learn from the difference between image and photo, in pixels and in all bands of a Laplacian pyramid. The
network grows once (Karras et al., "Progressive growing of GANs", ICLR 2018): at first images have half the side. A code
is one w for all layers plus an offset for each layer; offsets are dropped at random, so that a single w, as the mapping
network produces it, also draws a person. In the last phase mixtures of people's codes are drawn, too. Blurred, they
must equal the blurred mixture of the photos; their detail must be as strong as that of the photos; and a recogniser
must find the features of all members in them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np

from checks import Number
from stylegan import augmentation, features
from stylegan.architecture import MAPPING_RATE, Architecture, Mapping, Synthesis
from stylegan.augmentation import to_signed
from stylegan.encoder import Encoder, EncoderSizes, build_encoder, default_widths, encoder_path
from stylegan.network import StyleNetwork, to_uint8
from training.backend import keras, tf
from training.descent import half_cosine, minimise
from training.loop import Natural, Positive, Share, TrainingLoop, TrainingSettings, Weight, different_people
from training.losses import pyramid_loss, weighted_mean
from training.training_set import TrainingSet, mirror_landmarks

#: Channels at 4, 8, 16, ... pixels for a network of 128, and length of w.
CHANNELS, W_DIM = (160, 160, 160, 128, 64, 32), 128
_MAPPING_LAYERS = 8

# Number of mixtures as a share of the batch.
_MIXED_SHARE = 0.5
# Number of bands in which the strength of detail is compared, and the side of the neighbourhoods.
_STRENGTH_BANDS, _NEIGHBOURHOOD = 3, 8
# Mixtures are compared with the mixed photos at this fraction of the side.
_BLURRED = 8
# Number of images per batch, besides all mixtures, that are compared by their features.
_FEATURED = 8
# Columns of the sheet of samples.
_COLUMNS = 12

# Fitting the mapping network: steps, latent vectors in each, directions in which distributions are compared.
_MAPPING_STEPS, _MAPPING_BATCH, _DIRECTIONS = 1500, 512, 128


#: In the last phase of a `SharpenedTraining`: weight and target quantile of the strength of detail.
SHARP_DETAIL = (8.0, 0.75)
_SHARP_RATES = {"scaled": 3e-3, "plain": 6e-4, "codes": 0.0}


@dataclass(frozen=True)
class AutoencoderSettings(TrainingSettings):
    """How to train network and encoder; see `TrainingSettings`."""

    images: Annotated[Positive, "number of images to train on"] = 160_000
    batch: Annotated[int, Number(int, at_least=2), "images in a batch"] = 16
    ema: Annotated[float, Number(at_least=0, below=1), "decay of the moving average of the weights"] = 0.998
    grow_at: Annotated[Natural, "images at half the side"] = 45_000
    mix_at: Annotated[Natural, "images before mixtures count"] = 80_000
    features_at: Annotated[Natural, "images before a recogniser's features count"] = 110_000
    decay_at: Annotated[Natural, "images before the learning rates fall"] = 100_000
    scaled_rate: Annotated[Weight, "largest learning rate of weights stored with variance 1"] = 2e-2
    variants: Annotated[Natural, "warped variants of each photo, used half of the time"] = 6
    noise: Annotated[Weight, "standard deviation of noise on codes"] = 0.01
    prior: Annotated[Weight, "weight of the mean square of codes in the loss"] = 1e-5
    offset_penalty: Annotated[Weight, "weight of the mean square of offsets in the loss"] = 1e-3
    without_offsets: Annotated[Share, "share of photos drawn from the single w"] = 0.25
    strength: Annotated[Weight, "weight of the strength of detail of mixtures"] = 0.5
    blurred: Annotated[Weight, "weight of blurred mixtures"] = 1.0
    features: Annotated[Weight, "weight of a recogniser's features"] = 0.5


def strengths(pictures: tf.Tensor) -> list[tf.Tensor]:
    """Local mean absolute detail in the finest bands of a pyramid: tensors (n, h / 8, w / 8, c), ..."""
    found = []
    for _ in range(_STRENGTH_BANDS):
        coarse = tf.nn.avg_pool2d(pictures, 2, 2, "SAME")
        band = pictures - tf.image.resize(coarse, pictures.shape[1:3])
        found.append(tf.nn.avg_pool2d(tf.abs(band), _NEIGHBOURHOOD, _NEIGHBOURHOOD, "SAME"))
        pictures = coarse
    return found


def strength_loss(
    drawn: list[tf.Tensor], wanted: list[tf.Tensor], weights: tf.Tensor, quantile: float = 0.5
) -> tf.Tensor:
    """Compare `strengths` by twice the pinball loss: scalar tensor.

    Parameters
    ----------
    drawn, wanted : list of tensor
    weights : tensor, shape (1, h, w, 1)
        Importance of each pixel.
    quantile : float, default 0.5
        The target quantile where the strength is uncertain. 0.5 gives the mean absolute difference; larger values
        penalise missing strength more than excess.
    """
    loss = 0.0
    for i, (ours, theirs) in enumerate(zip(drawn, wanted, strict=True)):
        side = _NEIGHBOURHOOD << i
        missing = theirs - ours
        difference = 2 * tf.maximum(quantile * missing, (quantile - 1) * missing)
        loss += weighted_mean(difference, tf.nn.avg_pool2d(weights, side, side, "SAME"))
    return loss


class SharpenedTraining(TrainingLoop):
    """A training with a last phase of ``settings.sharpen`` images that sharpens: codes fixed, small learning rates."""

    open_settings = (*TrainingLoop.open_settings, "sharpen")

    @property
    def sharpened(self) -> bool:
        """Whether the last phase has begun."""
        return self.seen >= self.settings.images

    @property
    def total_images(self) -> int:
        """Number of images to train on, including the last phase."""
        return self.settings.images + self.settings.sharpen

    def rates(self) -> dict[str, float]:
        """Learning rate of each group."""
        rates = super().rates()
        return {name: _SHARP_RATES[name] for name in rates} if self.sharpened else rates


def _mixing_weights(batch: int, mixtures: int, random: np.random.Generator) -> np.ndarray:
    """Draw equal weights of 2 to 10 members of a batch for each mixture: float32 (mixtures, batch)."""
    weights = np.zeros((mixtures, batch), dtype=np.float32)
    for row in weights:
        k = random.integers(2, min(10, batch) + 1)
        row[random.choice(batch, k, replace=False)] = 1 / k
    return weights


def weight_groups(synthesis: Synthesis, scaled_rate: float, rate: float) -> dict:
    """Split trainable variables by their learning rate, as `TrainingLoop` takes them.

    Weights that are stored with variance 1 and scaled when used need proportionally larger steps.
    """
    groups = {"scaled": ([], scaled_rate), "plain": ([], rate)}
    for variable in synthesis.trainable_variables:
        name = variable.name
        is_scaled = name.endswith(".weight") and "Noise" not in name and "ToRGB" not in name
        groups["scaled" if is_scaled else "plain"][0].append(variable.value)
    return groups


def _shrink(pictures: tf.Tensor, factor: int) -> tf.Tensor:
    return tf.nn.avg_pool2d(pictures, factor, factor, "SAME")


class AutoencoderTrainer(TrainingLoop):
    """Trains a synthesis network and an encoder; see `TrainingLoop`.

    Parameters
    ----------
    photos : TrainingSet
        Photos padded to squares; see `augmentation.prepare_squares`.
    settings : AutoencoderSettings
    channels : sequence of int, default `CHANNELS`
        Feature maps at 4, 8, ... pixels.
    w_dim : int, default 128
    encoder_widths : sequence of int, optional
        Feature maps of the encoder after each halving; see `encoder.default_widths`.
    """

    def __init__(
        self,
        photos: TrainingSet,
        settings: AutoencoderSettings,
        channels: tuple[int, ...] = CHANNELS,
        w_dim: int = W_DIM,
        encoder_widths: tuple[int, ...] | None = None,
    ):
        keras.utils.set_random_seed(settings.seed)
        side = photos.pictures.shape[1]
        self.architecture = Architecture(side, tuple(channels), w_dim, w_dim, (w_dim,) * _MAPPING_LAYERS, 1)
        widths = tuple(encoder_widths or default_widths(side))
        self.sizes = EncoderSizes(side, 1, self.architecture.num_layers, w_dim, widths)
        self.synthesis = Synthesis(self.architecture, dtype=settings.precision)
        self.average_synthesis = Synthesis(self.architecture)
        self.encoder = build_encoder(self.sizes, settings.precision)
        self.average_encoder = build_encoder(self.sizes)
        pairs = ((self.average_synthesis, self.synthesis), (self.average_encoder, self.encoder))
        averaged = []
        for average, model in pairs:
            average.set_weights(model.get_weights())
            averaged += zip(average.trainable_variables, model.trainable_variables, strict=True)
        encoder_variables = [variable.value for variable in self.encoder.trainable_variables]
        groups = weight_groups(self.synthesis, settings.scaled_rate, settings.learning_rate)
        groups["encoder"] = (encoder_variables, settings.learning_rate)
        super().__init__(photos, settings, groups, averaged, settings.decay_at)
        # Training images: training photos, then warped variants.
        own = np.flatnonzero(~photos.held_out)
        bent, bent_shapes = augmentation.bend(photos, settings.variants, settings.seed)
        self.pictures = np.concatenate([photos.pictures[own], bent])
        self.shapes = np.concatenate([photos.shapes[own], bent_shapes])
        self.people = np.concatenate([photos.people[own], np.repeat(photos.people[own], settings.variants)])
        self.n_own = len(own)
        self.held_out = to_signed(photos.pictures[photos.held_out])

    def phase(self) -> tuple[int, bool, bool]:
        """Side of the images, and whether mixtures and features count."""
        s, side = self.settings, self.architecture.resolution
        side = side // 2 if self.seen < s.grow_at else side
        return side, self.seen >= s.mix_at, self.seen >= s.features_at and s.features > 0

    def batch(self, random: np.random.Generator, side: int, mixed: bool, featured: bool) -> tuple:
        """Draw images of different people, and the random changes to their codes."""
        s, a = self.settings, self.architecture
        people = different_people(random, len(self.photos.identities), s.batch)
        rows = np.empty(s.batch, dtype=np.int64)
        for i, person in enumerate(people):
            own = np.flatnonzero(self.people == person)
            bent = s.variants > 0 and random.random() < 0.5
            rows[i] = random.choice(own[(own >= self.n_own) == bent])
        pictures, shapes, mirrored = augmentation.vary(self.pictures[rows], self.shapes[rows], random)
        keep = (random.random((s.batch, 1, 1)) >= s.without_offsets).astype(np.float32)
        noise = random.normal(scale=s.noise, size=(s.batch, a.num_layers, a.w_dim)).astype(np.float32)
        mixing = _mixing_weights(s.batch, max(1, int(_MIXED_SHARE * s.batch)), random)
        transforms = wanted = np.zeros(0, dtype=np.float32)
        if featured:
            mixed_shapes = np.einsum("mn,npj->mpj", mixing, shapes)
            transforms = features.chip_transforms(np.concatenate([shapes, mixed_shapes]))
            wanted = self.descriptors[rows + len(self.pictures) * mirrored]
        return pictures, keep, noise, mixing, transforms, wanted

    def loss(self, phase, pictures, keep, noise, mixing, transforms, wanted):
        """Compare drawn images with photos, and mixtures with their targets."""
        s = self.settings
        side, mixed, featured = phase
        n = pictures.shape[0]
        # Encode the photos. (b, layers, w_dim)
        base, offsets = (tf.cast(part, tf.float32) for part in self.encoder(pictures, training=True))
        offsets *= keep
        codes = base[:, None] + offsets
        penalty = s.prior * tf.reduce_mean(tf.square(codes))
        penalty += s.offset_penalty * tf.reduce_mean(tf.square(offsets))
        # Draw them, and mixtures. (b + m, side, side, 1)
        shown = codes + noise
        if mixed:
            shown = tf.concat([shown, tf.einsum("mn,nlw->mlw", mixing, codes)], axis=0)
        drawn = self.synthesis(shown, self.synthesis.stored_noise(), resolution=side)
        # Compare.
        target, weights = self._shrunk(pictures, side), self._shrunk(self.weights, side)
        loss = pyramid_loss(drawn[:n] - target, weights)
        extra = tf.constant(0.0)
        if mixed:
            extra += self._mixture_loss(drawn[n:], target, mixing, weights)
        if featured:
            extra += s.features * self._feature_loss(drawn, wanted, mixing, transforms, mixed)
        return loss, loss + extra + penalty

    def _shrunk(self, pictures: tf.Tensor, side: int) -> tf.Tensor:
        """Downscale images to a smaller side."""
        return _shrink(pictures, self.architecture.resolution // side)

    def _mixture_loss(self, mixtures, pictures, mixing, weights) -> tf.Tensor:
        """Compare mixtures with the mean of the members' images, blurred and by the strength of their detail."""
        s = self.settings
        wanted = tf.einsum("mn,nhwc->mhwc", mixing, _shrink(pictures, _BLURRED))
        difference = tf.abs(_shrink(mixtures, _BLURRED) - wanted)
        blurred = weighted_mean(difference, _shrink(weights, _BLURRED))
        members = [tf.einsum("mn,nhwc->mhwc", mixing, part) for part in strengths(pictures)]
        return s.blurred * blurred + s.strength * strength_loss(strengths(mixtures), members, weights)

    def _feature_loss(self, drawn, wanted, mixing, transforms, mixed: bool) -> tf.Tensor:
        """Mean descriptor distance: of some images to their photos, and of mixtures to the members' mean.

        The mean of descriptors is shorter than the descriptors, so it is scaled to their mean length.
        """
        n = wanted.shape[0]
        few = min(_FEATURED, n)
        chosen, places, targets = drawn[:few], transforms[:few], wanted[:few]
        if mixed:
            length = tf.reduce_mean(tf.norm(wanted, axis=1))
            centres = tf.linalg.normalize(tf.matmul(mixing, wanted), axis=1)[0] * length
            chosen = tf.concat([chosen, drawn[n:]], axis=0)
            places = tf.concat([places, transforms[n:]], axis=0)
            targets = tf.concat([targets, centres], axis=0)  # (few + mixtures, 128)
        found = features.describe((chosen + 1) * 127.5, places)
        return tf.reduce_mean(tf.sqrt(tf.reduce_sum(tf.square(found - targets), axis=1) + 1e-6))

    @cached_property
    def descriptors(self) -> np.ndarray:
        """The recogniser's descriptors of all images, then of their mirror images: (2n, 128)."""
        pictures = np.concatenate([self.pictures, self.pictures[:, :, ::-1]])
        shapes = np.concatenate([self.shapes, mirror_landmarks(self.shapes, pictures.shape[2])])
        return features.describe_faces(pictures, shapes)

    def held_out_loss(self) -> float:
        """Loss of the averaged network on the held-out photos; NaN if there are none."""
        if len(self.held_out) == 0:
            return float("nan")
        side, size = self.phase()[0], self.settings.batch
        weights, losses = self._shrunk(self.weights, side), []
        for start in range(0, len(self.held_out), size):
            pictures = tf.constant(self.held_out[start : start + size])
            base, offsets = self.average_encoder(pictures, training=False)
            drawn = self._draw(base[:, None] + offsets, side)
            loss = pyramid_loss(drawn - self._shrunk(pictures, side), weights)
            losses.append(float(loss) * len(pictures))
        return sum(losses) / len(self.held_out)

    def _draw(self, codes: tf.Tensor, side: int) -> tf.Tensor:
        return self.average_synthesis(codes, self.synthesis.stored_noise(), resolution=side)

    def samples(self) -> list[np.ndarray]:
        """Draw held-out photos, from their codes and from the single w, and means of the first 2, 3, ... photos."""
        side = self.phase()[0]
        chosen = self.held_out if len(self.held_out) else to_signed(self.pictures)
        chosen = chosen[np.linspace(0, len(chosen) - 1, _COLUMNS).astype(int)]
        base, offsets = self.average_encoder(tf.constant(chosen), training=False)
        codes = base[:, None] + offsets
        counts = tf.cast(tf.range(1, _COLUMNS + 1), tf.float32)[:, None, None]
        rows = [codes, tf.zeros_like(codes) + base[:, None], tf.cumsum(codes) / counts]
        factor = self.architecture.resolution // side
        drawn = [self._draw(row, side).numpy().repeat(factor, axis=1).repeat(factor, axis=2) for row in rows]
        return [to_uint8(row) for row in (chosen, *drawn)]

    def result(self) -> tuple[StyleNetwork, Encoder]:
        """Make the averaged network with a mapping network fitted to it, and the averaged encoder."""
        network_description, encoder_description = describe_training(self)
        encoder = Encoder(self.sizes, self.average_encoder, encoder_description)
        pictures = to_signed(self.photos.pictures[~self.photos.held_out])
        pictures = np.concatenate([pictures, pictures[:, :, ::-1]])
        codes = encoder.encode(pictures)  # (2n, layers, w_dim)
        parts = np.split(pictures, range(64, len(pictures), 64))
        base = np.concatenate([self.average_encoder(tf.constant(part))[0].numpy() for part in parts])
        mapping = fit_mapping(self.architecture, base, self.settings.seed)
        synthesis = Synthesis(self.architecture)
        synthesis.set_weights(self.average_synthesis.get_weights())
        return StyleNetwork(mapping, synthesis, codes.mean(axis=(0, 1)), network_description), encoder

    def save(self, out: Path) -> None:
        """Write the network and its encoder."""
        network, encoder = self.result()
        network.save(out, "float16")
        encoder.save(encoder_path(out), "float16")

    def state(self) -> dict[str, list]:
        """Variables in a checkpoint."""
        networks = (self.synthesis, self.average_synthesis)
        noise = [variable for network in networks for variable in network.non_trainable_variables]
        return super().state() | {"noise": noise}


def describe_training(trainer: TrainingLoop) -> tuple[dict, dict]:
    """Record how a network was trained, as plain values: the descriptions of the network and of its encoder."""
    photos = trainer.photos
    training = {
        "settings": asdict(trainer.settings),
        "images_seen": trainer.seen,
        "held_out": [photos.names[row] for row in np.flatnonzero(photos.held_out)],
    }
    described = {"dataset": photos.source, "training": training}
    place = {"landmarks": photos.landmarks.round(3).tolist(), "frame": list(photos.frame)}
    return {**described, **place}, described


def fit_mapping(architecture: Architecture, codes: np.ndarray, seed: int = 0) -> Mapping:
    """Train a mapping network whose w approximate the mean and the covariance of given codes.

    The loss compares the w of latent vectors with samples of the normal distribution with these moments along random
    directions (the sliced Wasserstein distance: Bonneel et al., "Sliced and Radon Wasserstein barycenters of measures",
    JMIV 2015).

    Parameters
    ----------
    architecture : Architecture
    codes : ndarray of float32, shape (n, w_dim)
    seed : int, default 0

    Returns
    -------
    Mapping
    """
    keras.utils.set_random_seed(seed)
    mapping = Mapping(architecture)
    mean = codes.mean(axis=0)
    _, spreads, basis = np.linalg.svd(codes - mean, full_matrices=False)
    root = tf.constant(spreads[:, None] / np.sqrt(max(1, len(codes) - 1)) * basis, tf.float32)  # (m, w_dim)
    scale = float(np.sqrt(np.square(codes - mean).mean()) + 1e-12)
    variables = [variable.value for variable in mapping.trainable_variables]
    sizes = (architecture.z_dim, len(spreads))

    def loss(seed):
        # Draw latent vectors, points of the normal distribution, and directions.
        z, points = (
            tf.random.stateless_normal((_MAPPING_BATCH, size), seed + [0, i]) for i, size in enumerate(sizes)
        )
        directions = tf.random.stateless_normal((architecture.w_dim, _DIRECTIONS), seed + [0, 2])
        directions = tf.linalg.normalize(directions, axis=0)[0]
        # Compare their sorted projections onto each direction. (batch, directions)
        found, wanted = mapping(z) - mean, tf.matmul(points, root)
        ours, theirs = (tf.sort(tf.matmul(w, directions), axis=0) for w in (found, wanted))
        difference = tf.reduce_mean(tf.square(ours - theirs)) / scale**2
        return difference + tf.reduce_mean(tf.square(tf.reduce_mean(found, axis=0))) / scale**2

    steps = np.arange(_MAPPING_STEPS)
    rates = 1e-3 / MAPPING_RATE * (0.01 + half_cosine(steps / _MAPPING_STEPS))
    seeds = np.column_stack([np.full_like(steps, seed), 3 * steps]).astype(np.int32)
    minimise(loss, variables, rates, seeds[:, None])
    return mapping
