"""Train a small network and its encoder together, as an autoencoder through W+; fit the mapping network afterwards.

A GAN of this size would take days on a CPU. Here the encoder gives a photo's code, the synthesis network draws it, and
both learn from how picture and photo differ: in pixels and in all bands of a Laplacian pyramid. The network grows once
(Karras et al., "Progressive growing of GANs", ICLR 2018): at first pictures have half the side. A code is one w for all
layers plus an offset for each layer; offsets are left out at random, so that a single w, as the mapping network gives
it, draws a person, too. In the last part mixtures of people's codes are drawn along: they must be, blurred, what
the mixture of the photos is, with detail as strong as theirs, and have the features of all of them to a recogniser.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import utils
from CNN.photos import MIRRORED
from CNN.training import PRECISIONS, pyramid_loss
from stylegan import features
from stylegan import photos as preparation
from stylegan.architecture import MAPPING_RATE, Architecture, Mapping, Synthesis
from stylegan.encoder import Encoder, Sizes, build, usual_widths
from stylegan.network import StyleNetwork, to_uint8
from stylegan.photos import TrainingSet, to_signed

LOG_COLUMNS = ("images", "seconds", "learning_rate", "loss", "held_out_loss")

#: Channels at 4, 8, 16, ... pixels for a network of 128.
CHANNELS = (160, 160, 160, 128, 64, 32)
W_DIM, MAPPING_LAYERS = 128, 8

#: Mixtures drawn beside each batch, as a share of it.
MIXED_SHARE = 0.5
#: Bands whose strength mixtures must keep, and the side of the neighbourhoods in which it is taken.
STRENGTH_BANDS, NEIGHBOURHOOD = 3, 8
#: Mixtures are compared with the mixed photos at a side this many times smaller.
BLURRED = 8
#: So many pictures of a batch are compared by their features, beside all mixtures.
FEATURED = 8
#: Photos described at once.
DESCRIBED = 32

#: Fitting the mapping network: steps, latent vectors in each, directions in which distributions are compared.
MAPPING_STEPS, MAPPING_BATCH, DIRECTIONS = 1500, 512, 128


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes
    ----------
    images : int
        Stop after so many photos shown.
    grow_at : int
        So many of them at half the side.
    mix_at, features_at : int
        From then on mixtures are drawn along, and a recogniser's features are compared.
    batch : int
    learning_rate, scaled_rate : float
        Of most variables, and of those weights of the synthesis network that are stored with variance 1. From
        `decay_at` on they fall to a hundredth by a half cosine.
    decay_at : int
    variants : int
        Bent variants of each photo; half of the photos shown are such.
    noise : float
        Standard deviation of noise on codes.
    prior, offset_penalty : float
        Weights of the mean squares of codes and of offsets.
    without_offsets : float
        Share of photos that are drawn from the single w.
    strength, blurred, features : float
        Weights of the terms on mixtures and of the features.
    ema : float
        Decay of the moving average of the weights, which is what is kept.
    precision : str
        ``"float32"`` or ``"mixed_bfloat16"``, which is faster on processors that know it.
    evaluate_every : int
        Photos shown between two lines of the log.
    seed : int
    """

    images: int = 160_000
    grow_at: int = 45_000
    mix_at: int = 80_000
    features_at: int = 110_000
    batch: int = 16
    learning_rate: float = 1e-3
    scaled_rate: float = 2e-2
    decay_at: int = 100_000
    variants: int = 6
    noise: float = 0.01
    prior: float = 1e-5
    offset_penalty: float = 1e-3
    without_offsets: float = 0.25
    strength: float = 0.5
    blurred: float = 1.0
    features: float = 0.5
    ema: float = 0.998
    precision: str = "float32"
    evaluate_every: int = 4_000
    seed: int = 0

    def __post_init__(self):
        least = {"images": 1, "batch": 2, "evaluate_every": 1}
        for setting in fields(self):
            if setting.name == "precision":
                continue
            value = getattr(self, setting.name)
            whole = isinstance(setting.default, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ValueError(f"{setting.name} must be a {'whole ' if whole else ''}number, not {value!r}")
            if not least.get(setting.name, 0) <= value < np.inf:
                raise ValueError(
                    f"{setting.name} must be at least {least.get(setting.name, 0)} and finite, not {value!r}"
                )
        if not 0 <= self.ema < 1 or not 0 <= self.without_offsets <= 1 or not 0 < self.learning_rate <= 1:
            raise ValueError("ema, without_offsets and learning_rate must lie between 0 and 1")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")


def strengths(pictures: tf.Tensor) -> list[tf.Tensor]:
    """Mean absolute detail around each place, in the finest bands of a pyramid: tensors (n, h / 8, w / 8, c), ..."""
    found = []
    for _ in range(STRENGTH_BANDS):
        coarse = tf.nn.avg_pool2d(pictures, 2, 2, "SAME")
        band = pictures - tf.image.resize(coarse, pictures.shape[1:3])
        found.append(tf.nn.avg_pool2d(tf.abs(band), NEIGHBOURHOOD, NEIGHBOURHOOD, "SAME"))
        pictures = coarse
    return found


def mixing_weights(batch: int, mixtures: int, random: np.random.Generator) -> np.ndarray:
    """Equal weights of 2 to 10 members of a batch for each mixture: float32 (mixtures, batch)."""
    weights = np.zeros((mixtures, batch), dtype=np.float32)
    for row in weights:
        k = random.integers(2, min(10, batch) + 1)
        row[random.choice(batch, k, replace=False)] = 1 / k
    return weights


class Trainer:
    """A training that can be stopped and continued.

    Parameters
    ----------
    photos : stylegan.photos.TrainingSet
    settings : Settings
    channels : sequence of int, default `CHANNELS`
        Feature maps at 4, 8, ... pixels.
    w_dim : int, default 128
    encoder_widths : sequence of int, optional
        Feature maps of the encoder after each halving; see `stylegan.encoder.usual_widths`.

    Attributes
    ----------
    seen : int
        Photos shown so far.
    log : list of dict
        A line for each evaluation: images, seconds, learning_rate, loss, held_out_loss.
    """

    def __init__(
        self,
        photos: TrainingSet,
        settings: Settings,
        channels: tuple[int, ...] = CHANNELS,
        w_dim: int = W_DIM,
        encoder_widths: tuple[int, ...] | None = None,
    ):
        keras.utils.set_random_seed(settings.seed)
        side = photos.pictures.shape[1]
        self.photos, self.settings = photos, settings
        self.architecture = Architecture(side, tuple(channels), w_dim, w_dim, (w_dim,) * MAPPING_LAYERS, 1)
        widths = tuple(encoder_widths or usual_widths(side))
        self.sizes = Sizes(side, 1, self.architecture.num_layers, w_dim, widths)
        self.synthesis = Synthesis(self.architecture, dtype=settings.precision)
        self.average_synthesis = Synthesis(self.architecture)
        self.encoder, self.average_encoder = build(self.sizes, settings.precision), build(self.sizes)
        self.average_synthesis.set_weights(self.synthesis.get_weights())
        self.average_encoder.set_weights(self.encoder.get_weights())
        self.groups = self._groups()
        self.optimizers = {name: keras.optimizers.Adam(beta_2=0.99) for name in self.groups}
        for name, (variables, _) in self.groups.items():
            self.optimizers[name].build(variables)
        self.weights = tf.constant(photos.weights()[None])
        own = np.flatnonzero(~photos.held_out)
        bent, bent_shapes = preparation.reshaped(photos, settings.variants, settings.seed)
        self.pictures = np.concatenate([photos.pictures[own], bent])
        self.shapes = np.concatenate([photos.shapes[own], bent_shapes])
        self.people = np.concatenate([photos.people[own], np.repeat(photos.people[own], settings.variants)])
        self.n_own = len(own)
        self.held_out = to_signed(photos.pictures[photos.held_out])
        self.seen, self.steps, self.seconds = 0, 0, 0.0
        self.log: list[dict] = []
        self._steps: dict = {}

    def _groups(self) -> dict[str, tuple[list[keras.Variable], float]]:
        """Variables that share a learning rate, and this rate.

        Weights that are stored with variance 1 and scaled when they are used must move by as much more.
        """
        s = self.settings
        drawing = self.synthesis.trainable_variables
        scaled = [
            v
            for v in drawing
            if v.name.endswith(".weight") and "Noise" not in v.name and "ToRGB" not in v.name
        ]
        names = {v.name for v in scaled}
        plain = [v for v in drawing if v.name not in names]
        return {
            "scaled": (scaled, s.scaled_rate),
            "plain": (plain, s.learning_rate),
            "encoder": (self.encoder.trainable_variables, s.learning_rate),
        }

    # One step

    def _phase(self) -> tuple[int, bool, bool]:
        """Side of the pictures, and whether mixtures and features count."""
        s = self.settings
        side = self.architecture.resolution
        if self.seen < s.grow_at:
            side //= 2
        return side, self.seen >= s.mix_at, self.seen >= s.features_at and s.features > 0

    def _make_step(self, side: int, mixed: bool, featured: bool):
        s = self.settings
        shrink = self.architecture.resolution // side
        weights = tf.nn.avg_pool2d(self.weights, shrink, shrink, "SAME")
        variables = [variable for group, _ in self.groups.values() for variable in group]

        def compare(drawn, pictures, mixing):
            """Loss of the batch's pictures, and the terms on mixtures."""
            n = tf.shape(pictures)[0]
            loss = pyramid_loss(drawn[:n] - pictures, weights)
            extra = tf.constant(0.0)
            if mixed:
                mixtures = drawn[n:]
                wanted = tf.einsum(
                    "mn,nhwc->mhwc", mixing, tf.nn.avg_pool2d(pictures, BLURRED, BLURRED, "SAME")
                )
                blurred = tf.nn.avg_pool2d(mixtures, BLURRED, BLURRED, "SAME")
                coarse = tf.nn.avg_pool2d(weights, BLURRED, BLURRED, "SAME")
                extra += (
                    s.blurred * tf.reduce_mean(tf.abs(blurred - wanted) * coarse) / tf.reduce_mean(coarse)
                )
                own = strengths(pictures)
                for i, (ours, theirs) in enumerate(zip(strengths(mixtures), own, strict=True)):
                    size = NEIGHBOURHOOD << i
                    importance = tf.nn.avg_pool2d(weights, size, size, "SAME")
                    difference = tf.abs(ours - tf.einsum("mn,nhwc->mhwc", mixing, theirs))
                    extra += s.strength * tf.reduce_mean(difference * importance) / tf.reduce_mean(importance)
            return loss, extra

        @tf.function
        def step(pictures, keep, noise, mixing, transforms, wanted, ema):
            full = pictures
            with tf.GradientTape() as tape:
                base, offsets = (tf.cast(part, tf.float32) for part in self.encoder(full, training=True))
                offsets *= keep
                codes = base[:, None] + offsets  # (b, layers, w_dim)
                penalty = s.prior * tf.reduce_mean(tf.square(codes))
                penalty += s.offset_penalty * tf.reduce_mean(tf.square(offsets))
                shown = codes + noise
                if mixed:
                    shown = tf.concat([shown, tf.einsum("mn,nlw->mlw", mixing, codes)], axis=0)
                drawn = self.synthesis(shown, self.synthesis.stored_noise(), resolution=side)
                target = tf.nn.avg_pool2d(full, shrink, shrink, "SAME")
                loss, extra = compare(drawn, target, mixing)
                if featured:
                    extra += s.features * self._feature_loss(drawn, wanted, mixing, transforms, mixed)
                total = loss + extra + penalty
            gradients = tape.gradient(total, [variable.value for variable in variables])
            gradients = [
                tf.zeros(variable.shape) if gradient is None else tf.convert_to_tensor(gradient)
                for gradient, variable in zip(gradients, variables, strict=True)
            ]
            gradients, _ = tf.clip_by_global_norm(gradients, 5.0)
            for name, (group, _) in self.groups.items():
                own, gradients = gradients[: len(group)], gradients[len(group) :]
                self.optimizers[name].apply_gradients(zip(own, group, strict=True))
            for kept, weight in self._averaged():
                kept.assign(ema * kept + (1 - ema) * weight)
            return loss

        return step

    def _averaged(self):
        for average, current in (
            (self.average_synthesis, self.synthesis),
            (self.average_encoder, self.encoder),
        ):
            yield from zip(average.trainable_variables, current.trainable_variables, strict=True)

    def _feature_loss(self, drawn, wanted, mixing, transforms, mixed: bool):
        """Mean distance of descriptors: of some pictures to those of their photos, of mixtures to the members' mean.

        The mean of descriptors is shorter than any of them and is brought to their usual length.
        """
        n = tf.shape(wanted)[0]
        few = tf.minimum(FEATURED, n)
        chosen, places, targets = drawn[:few], transforms[:few], wanted[:few]
        if mixed:
            length = tf.reduce_mean(tf.norm(wanted, axis=1))
            centres = tf.linalg.normalize(tf.matmul(mixing, wanted), axis=1)[0] * length
            chosen = tf.concat([chosen, drawn[n:]], axis=0)
            places = tf.concat([places, transforms[n:]], axis=0)
            targets = tf.concat([targets, centres], axis=0)  # (FEATURED + mixtures, 128)
        found = features.describe((chosen + 1) * 127.5, places)
        return tf.reduce_mean(tf.sqrt(tf.reduce_sum(tf.square(found - targets), axis=1) + 1e-6))

    def _rate(self) -> float:
        """Share of the full learning rates that counts now."""
        s = self.settings
        fall = max(0.0, (self.seen - s.decay_at) / max(1, s.images - s.decay_at))
        warm = min(1.0, (self.steps + 1) / 100)
        return warm * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * min(1.0, fall))))

    def _random_batch(self) -> tuple:
        """What one step is shown; it depends on seed and step alone, so that a resumed training is the same.

        All people in a batch differ, as far as there are enough.
        """
        s, a = self.settings, self.architecture
        random = np.random.default_rng([s.seed, self.steps])
        n = len(self.photos.identities)
        people = np.concatenate([random.permutation(n) for _ in range(-(-s.batch // n))])[: s.batch]
        rows = np.empty(s.batch, dtype=np.int64)
        for i, person in enumerate(people):
            own = np.flatnonzero(self.people == person)
            bent = s.variants > 0 and random.random() < 0.5
            rows[i] = random.choice(own[(own >= self.n_own) == bent])
        pictures, shapes, mirrored = preparation.vary(self.pictures[rows], self.shapes[rows], random)
        keep = (random.random((s.batch, 1, 1)) >= s.without_offsets).astype(np.float32)
        noise = random.normal(scale=s.noise, size=(s.batch, a.num_layers, a.w_dim)).astype(np.float32)
        mixing = mixing_weights(s.batch, max(1, int(MIXED_SHARE * s.batch)), random)
        return pictures, shapes, rows + len(self.pictures) * mirrored, keep, noise, mixing

    def step(self) -> float:
        """Show one batch; returns the loss of its pictures."""
        phase = self._phase()
        if phase not in self._steps:
            self._steps[phase] = self._make_step(*phase)
        pictures, shapes, rows, keep, noise, mixing = self._random_batch()
        s, rate = self.settings, self._rate()
        for name, (_, full) in self.groups.items():
            self.optimizers[name].learning_rate.assign(full * rate)
        ema = min(s.ema, (1 + self.steps) / (10 + self.steps))
        transforms = wanted = np.zeros(0, dtype=np.float32)
        if phase[2]:
            mixed_shapes = np.einsum("mn,npj->mpj", mixing, shapes)
            transforms = features.chip_transforms(np.concatenate([shapes, mixed_shapes]))
            wanted = self.descriptors[rows]
        values = (pictures, keep, noise, mixing, transforms, wanted, np.float32(ema))
        loss = self._steps[phase](*map(tf.constant, values))
        self.seen += len(pictures)
        self.steps += 1
        return float(loss)

    @cached_property
    def descriptors(self) -> np.ndarray:
        """What the recogniser says of every training picture and, from there on, its mirror image: (2n, 128)."""
        side = self.pictures.shape[1]
        mirrored = self.shapes[:, MIRRORED] * [-1, 1] + [side - 1, 0]
        found = []
        for pictures, shapes in ((self.pictures, self.shapes), (self.pictures[:, :, ::-1], mirrored)):
            for start in utils.progress(range(0, len(pictures), DESCRIBED), "describing faces"):
                rows = slice(start, start + DESCRIBED)
                part = tf.constant(pictures[rows].astype(np.float32))
                found.append(features.describe(part, features.chip_transforms(shapes[rows])).numpy())
        return np.concatenate(found)

    def held_out_loss(self) -> float:
        """How badly the averaged network draws the photos that are kept out; NaN without such."""
        if len(self.held_out) == 0:
            return float("nan")
        side = self._phase()[0]
        shrink = self.architecture.resolution // side
        losses = []
        for start in range(0, len(self.held_out), self.settings.batch):
            pictures = tf.constant(self.held_out[start : start + self.settings.batch])
            base, offsets = self.average_encoder(pictures, training=False)
            drawn = self.average_synthesis(
                base[:, None] + offsets, self.synthesis.stored_noise(), resolution=side
            )
            target = tf.nn.avg_pool2d(pictures, shrink, shrink, "SAME")
            weights = tf.nn.avg_pool2d(self.weights, shrink, shrink, "SAME")
            losses.append(float(pyramid_loss(drawn - target, weights)) * len(pictures))
        return sum(losses) / len(self.held_out)

    # The whole training

    def train(self, out: Path, checkpoint: Path, sheet_seconds: float = 240.0) -> None:
        """Train until enough photos are shown.

        Writes the checkpoint from time to time, and beside `out` the log (``.csv``) and a sheet (``.png``); at the end
        also the network, and beside it its encoder. Stopped by Ctrl-C, it writes them, too.
        """
        s, losses, shown = self.settings, [], time.monotonic()
        bar = utils.progress(None, "training", total=s.images)
        bar.update(self.seen)
        try:
            while self.seen < s.images:
                started = time.monotonic()
                losses.append(self.step())
                bar.update(s.batch)
                self.seconds += time.monotonic() - started
                if self.seen % s.evaluate_every >= s.batch and self.seen < s.images:
                    continue
                line = self._log_line(losses)
                losses = []
                bar.set_postfix(loss=f"{line['loss']:.4f}", held_out=f"{line['held_out_loss']:.4f}")
                if time.monotonic() - shown > sheet_seconds:
                    self._write(out, checkpoint)
                    shown = time.monotonic()
        except KeyboardInterrupt:
            bar.write("stopped; continue with --resume")
        finally:
            bar.close()
        self._write(out, checkpoint)
        network, encoder = self.result()
        network.save(out, "float16")
        encoder.save(encoder_path(out), "float16")

    def _log_line(self, losses: list[float]) -> dict:
        line = {
            "images": self.seen,
            "seconds": round(self.seconds, 1),
            "learning_rate": float(f"{self.settings.learning_rate * self._rate():.3g}"),
            "loss": round(float(np.mean(losses)), 5),
            "held_out_loss": round(self.held_out_loss(), 5),
        }
        self.log.append(line)
        return line

    def _write(self, out: Path, checkpoint: Path) -> None:
        self.save_checkpoint(checkpoint)
        with out.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            writer.writeheader()
            writer.writerows(self.log)
        Image.fromarray(self.sheet()[..., 0]).save(out.with_suffix(".png"))

    def sheet(self, columns: int = 12) -> np.ndarray:
        """Photos kept out, the same as drawn from their codes and from the single w, and mixtures: uint8 (h, w, 1).

        The mixtures are of the first 2, 3, ... photos of different people.
        """
        side = self._phase()[0]
        chosen = self.held_out if len(self.held_out) else to_signed(self.pictures)
        chosen = chosen[np.linspace(0, len(chosen) - 1, columns).astype(int)]
        base, offsets = self.average_encoder(tf.constant(chosen), training=False)
        codes = base[:, None] + offsets
        counts = tf.cast(tf.range(1, columns + 1), tf.float32)[:, None, None]
        rows = [codes, tf.zeros_like(codes) + base[:, None], tf.cumsum(codes) / counts]
        noise = self.synthesis.stored_noise()
        drawn = [self.average_synthesis(row, noise, resolution=side).numpy() for row in rows]
        drawn = [
            np.repeat(np.repeat(row, chosen.shape[1] // side, 1), chosen.shape[1] // side, 2) for row in drawn
        ]
        sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in (chosen, *drawn)])
        return to_uint8(sheet)

    # Checkpoints

    def _variables(self) -> dict:
        parts = {
            "synthesis": self.synthesis.weights,
            "encoder": self.encoder.weights,
            "average_synthesis": self.average_synthesis.weights,
            "average_encoder": self.average_encoder.weights,
            **{f"adam_{name}": optimizer.variables for name, optimizer in self.optimizers.items()},
        }
        return {f"{part}.{i}": variable for part, rows in parts.items() for i, variable in enumerate(rows)}

    def _key(self) -> str:
        """What must be the same for a checkpoint to fit; rates, weights of terms and their times may change."""
        fixed = ("variants", "batch", "seed")
        settings = {name: getattr(self.settings, name) for name in fixed}
        photos = self.photos
        sizes = (self.architecture.channels, asdict(self.sizes))
        return utils.content_key(settings, str(sizes), photos.pictures, photos.people, photos.held_out)

    def save_checkpoint(self, path: Path) -> None:
        """Write all that is needed to continue."""
        arrays = {name: np.asarray(variable) for name, variable in self._variables().items()}
        log = np.array([list(line.values()) for line in self.log], dtype=float).reshape(-1, len(LOG_COLUMNS))
        state = np.array([self.seen, self.steps, self.seconds], dtype=float)
        utils.save_arrays(path, {**arrays, "log": log, "state": state, "key": np.array(self._key())})

    def load_checkpoint(self, path: Path) -> None:
        """Continue from a checkpoint; ValueError if it is of another training."""
        arrays = utils.load_arrays(path)
        if str(arrays.get("key")) != self._key():
            raise ValueError(f"{path}: is the checkpoint of a training with other photos or settings")
        for name, variable in self._variables().items():
            variable.assign(arrays[name])
        self.seen, self.steps, self.seconds = (
            int(arrays["state"][0]),
            int(arrays["state"][1]),
            float(arrays["state"][2]),
        )
        self.log = [dict(zip(LOG_COLUMNS, line.tolist(), strict=True)) for line in arrays["log"]]

    def result(self) -> tuple[StyleNetwork, Encoder]:
        """The averaged network with a mapping network fitted to it, and the averaged encoder."""
        photos = self.photos
        training = {
            "settings": asdict(self.settings),
            "images_seen": self.seen,
            "held_out": [name for name, apart in zip(photos.names, photos.held_out, strict=True) if apart],
        }
        described = {"dataset": photos.source, "training": training}
        average_encoder = Encoder(self.sizes, self.average_encoder, described)
        pictures = to_signed(photos.pictures[~photos.held_out])
        pictures = np.concatenate([pictures, pictures[:, :, ::-1]])
        codes = average_encoder.encode(pictures)  # (2n, layers, w_dim)
        average = codes.mean(axis=(0, 1))
        base = np.concatenate(
            [
                self.average_encoder(tf.constant(pictures[i : i + 64]))[0].numpy()
                for i in range(0, len(pictures), 64)
            ]
        )
        mapping = fit_mapping(self.architecture, base, self.settings.seed)
        synthesis = Synthesis(self.architecture)
        synthesis.set_weights(self.average_synthesis.get_weights())
        place = {"landmarks": photos.landmarks.round(3).tolist(), "frame": list(photos.frame)}
        return StyleNetwork(mapping, synthesis, average, {**described, **place}), average_encoder


def encoder_path(network: Path) -> Path:
    """Where the encoder of a network lies: ``NAME-encoder.npz`` beside ``NAME.npz``."""
    return network.with_name(f"{network.stem}-encoder{network.suffix}")


def fit_mapping(
    architecture: Architecture, codes: np.ndarray, seed: int = 0, steps: int = MAPPING_STEPS
) -> Mapping:
    """Train a mapping network whose w come near the mean, and nearer to the covariance, of given ones.

    The w of latent vectors and draws of the normal distribution with these moments are compared along random
    directions (the sliced Wasserstein distance: Bonneel et al., "Sliced and Radon Wasserstein barycenters of measures",
    JMIV 2015).

    Parameters
    ----------
    architecture : stylegan.architecture.Architecture
    codes : ndarray of float32, shape (n, w_dim)
    seed : int, default 0
    steps : int, default `MAPPING_STEPS`

    Returns
    -------
    stylegan.architecture.Mapping
    """
    keras.utils.set_random_seed(seed)
    mapping = Mapping(architecture)
    mean = codes.mean(axis=0)
    _, strengths, basis = np.linalg.svd(codes - mean, full_matrices=False)
    spread = tf.constant(
        strengths[:, None] / np.sqrt(max(1, len(codes) - 1)) * basis, tf.float32
    )  # (m, w_dim)
    scale = float(np.sqrt(np.square(codes - mean).mean()) + 1e-12)
    optimizer = keras.optimizers.Adam(1e-3 / MAPPING_RATE, beta_2=0.99)
    optimizer.build(mapping.trainable_variables)

    @tf.function
    def step(seed):
        z, drawn, directions = (
            tf.random.stateless_normal(shape, seed + [0, i])
            for i, shape in enumerate(
                (
                    (MAPPING_BATCH, architecture.z_dim),
                    (MAPPING_BATCH, len(strengths)),
                    (architecture.w_dim, DIRECTIONS),
                )
            )
        )
        wanted = tf.matmul(drawn, spread)
        directions = tf.linalg.normalize(directions, axis=0)[0]
        with tf.GradientTape() as tape:
            found = mapping(z) - mean
            ours, theirs = (tf.sort(tf.matmul(w, directions), axis=0) for w in (found, wanted))
            loss = tf.reduce_mean(tf.square(ours - theirs)) / scale**2
            loss += tf.reduce_mean(tf.square(tf.reduce_mean(found, axis=0))) / scale**2
        gradients = tape.gradient(loss, [variable.value for variable in mapping.trainable_variables])
        optimizer.apply_gradients(zip(gradients, mapping.trainable_variables, strict=True))
        return loss

    for number in range(steps):
        optimizer.learning_rate.assign(
            1e-3 / MAPPING_RATE * (0.01 + 0.5 * (1 + np.cos(np.pi * number / steps)))
        )
        step(tf.constant([seed, 3 * number], tf.int32))
    return mapping


# ----------------------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``python -m stylegan train`` takes."""
    parser.add_argument("source", help="'orl' or a folder of photos")
    parser.add_argument(
        "--out", required=True, type=Path, help="file of weights, NAME.npz; the encoder is NAME-encoder.npz"
    )
    parser.add_argument("--resolution", type=int, default=128, help="side of the pictures (%(default)s)")
    parser.add_argument(
        "--channels", type=int, nargs="+", default=CHANNELS, help="feature maps at 4, 8, ... pixels"
    )
    parser.add_argument("--w-dim", type=int, default=W_DIM, help="length of w (%(default)s)")
    parser.add_argument(
        "--held-out", type=int, default=2, help="photos of each person kept out of training (%(default)s)"
    )
    for setting in fields(Settings):
        parser.add_argument(
            f"--{setting.name.replace('_', '-')}",
            type=type(setting.default),
            default=setting.default,
            help="see stylegan.training.Settings (%(default)s)",
        )
    parser.add_argument("--checkpoint", type=Path, help="default: beside the weights, NAME.checkpoint.npz")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    parser.add_argument(
        "--sheet-seconds", type=float, default=240.0, help="time between two sheets (%(default)s)"
    )
    parser.add_argument("--measure", action="store_true", help="print what the network can do, at the end")


def run(chosen: argparse.Namespace) -> None:
    """Train a network and its encoder on photos; Ctrl-C stops it, --resume goes on."""
    import datasets

    if chosen.out.suffix != ".npz":
        raise ValueError(f"{chosen.out}: networks are kept in files whose names end in .npz")
    settings = Settings(**{setting.name: getattr(chosen, setting.name) for setting in fields(Settings)})
    checkpoint = chosen.checkpoint or chosen.out.with_suffix(".checkpoint.npz")
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    faces = datasets.load_faces(chosen.source)
    photos = preparation.prepare(faces, chosen.resolution, chosen.held_out, chosen.seed)
    trainer = Trainer(photos, settings, tuple(chosen.channels), chosen.w_dim)
    if chosen.resume:
        trainer.load_checkpoint(checkpoint)
    sizes = [model.count_params() / 1e6 for model in (trainer.synthesis, trainer.encoder)]
    print(
        f"{(~photos.held_out).sum()} photos of {len(photos.identities)} people, {photos.held_out.sum()} held out; "
        f"{sizes[0]:.1f} M weights to draw, {sizes[1]:.1f} M to encode"
    )
    trainer.train(chosen.out, checkpoint, chosen.sheet_seconds)
    print(
        f"{chosen.out}: {trainer.seen} photos shown in {trainer.seconds:.0f} s; log and sheet lie beside it"
    )
    if chosen.measure:
        _print_figures(trainer, faces)


def _print_figures(trainer: Trainer, faces) -> None:
    from stylegan.measuring import measure_network

    network, encoder = trainer.result()
    codes = encoder.encode(to_signed(trainer.photos.pictures))
    for name, figures in measure_network(network, codes, trainer.photos, faces).items():
        print(name)
        for key, value in figures.items():
            print(f"  {key}: {value}")
