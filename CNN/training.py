"""Train a network on aligned photos: identity codes are given, a nuisance code for each photo is learnt along.

Learning free codes together with the network follows Bojanowski, Joulin, Lopez-Paz and Szlam, "Optimizing the latent
space of generative networks", ICML 2018, whose Laplacian pyramid loss (after Ling and Okada 2006) is used, too.
Of each person one calm frontal photo has the code 0, so that 0 means the same for all people. The first part of a
code is not learnt but given by the landmarks, as far as they differ from those of the person's calm photo; so pose and
expression mean the same for all people, too, and can be taken over from one to another.
"""

from __future__ import annotations

import csv
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import utils
from CNN.architecture import Architecture, build
from CNN.model import FaceNetwork
from CNN.photos import TrainingSet

PRECISIONS = ("float32", "mixed_bfloat16")

LOG_COLUMNS = ("images", "seconds", "learning_rate", "loss", "held_out_loss")

#: Bands of the pyramid in the loss.
BANDS = 5
#: Stored codes are this many times the variables that Adam moves, so that codes move faster than weights.
CODE_SPEED = 4.0
#: Steps on the codes of held-out photos at each evaluation, and how many of these photos are looked at.
HELD_OUT_STEPS, HELD_OUT_PHOTOS = 4, 48
#: Share of the images after which the learning rate falls, by a half cosine, to a hundredth.
CONSTANT_SHARE = 0.4


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes
    ----------
    images : int
        Stop after so many images.
    batch : int
    nuisance : int
        Length of the nuisance codes; not used with emotion and orientation.
    landmark_codes : int
        So many of them, half of them at most, are given by the photo's landmarks and not learnt, so that they mean the
        same for all people: what a surrogate takes over to follow a photo.
    learning_rate : float
    mirror : float
        Share of images shown mirrored; a mirrored photo has a code of its own.
    code_noise : float
        Standard deviation of the noise on nuisance codes.
    code_penalty : float
        Weight of the codes' mean square in the loss.
    ema : float
        Decay of the moving average of the weights, which is what is kept.
    precision : str
        ``"float32"`` or ``"mixed_bfloat16"``, which is faster on GPUs and on CPUs that know it.
    evaluate_every : int
        Images between two lines of the log.
    patience : int
        Stop early when so many evaluations in a row brought no better held-out loss; 0 never does.
    seed : int
    """

    images: int = 100_000
    batch: int = 16
    nuisance: int = 16
    landmark_codes: int = 8
    learning_rate: float = 1e-3
    mirror: float = 0.2
    code_noise: float = 0.05
    code_penalty: float = 1e-3
    ema: float = 0.999
    precision: str = "float32"
    evaluate_every: int = 4_000
    patience: int = 0
    seed: int = 0

    def __post_init__(self):
        for name, least in (
            ("images", 1), ("batch", 1), ("nuisance", 1), ("landmark_codes", 0), ("evaluate_every", 1), ("patience", 0),
            ("seed", 0),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        for name, least, most in (
            ("learning_rate", 1e-8, 1.0), ("mirror", 0.0, 0.9), ("code_noise", 0.0, 10.0), ("code_penalty", 0.0, 10.0),
            ("ema", 0.0, 0.99999),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ValueError(f"{name} must be a number from {least} to {most}, not {value!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")


def pyramid_loss(difference: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted mean absolute difference, in pixels and in each band of a Laplacian pyramid.

    Parameters
    ----------
    difference : tensor of float32, shape (n, h, w, c)
    weights : tensor of float32, shape (1 or n, h, w, 1)

    Returns
    -------
    scalar tensor
    """
    total = _weighted_mean(tf.abs(difference), weights)
    for _ in range(BANDS - 1):
        height, width = difference.shape[1], difference.shape[2]
        if min(height, width) < 4:
            break
        coarse = tf.nn.avg_pool2d(difference, 2, 2, "SAME")
        band = difference - tf.image.resize(coarse, (height, width))
        total += _weighted_mean(tf.abs(band), weights)
        difference, weights = coarse, tf.nn.avg_pool2d(weights, 2, 2, "SAME")
    return total + _weighted_mean(tf.abs(difference), weights)


def _weighted_mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(values * weights) / tf.reduce_mean(weights)


class Trainer:
    """A training that can be stopped and continued.

    Parameters
    ----------
    photos : CNN.photos.TrainingSet
    settings : Settings
    capacity : float, default 1.0
        Factor for the network's channels.

    Attributes
    ----------
    seen : int
        Images seen so far.
    log : list of dict
        A line for each evaluation: images, seconds, learning_rate, loss, held_out_loss.
    """

    def __init__(self, photos: TrainingSet, settings: Settings, capacity: float = 1.0):
        keras.utils.set_random_seed(settings.seed)
        self.photos, self.settings = photos, settings
        sizes = {"identity": len(photos.identities)}
        if photos.conditions:
            sizes |= {name: values.shape[1] for name, values in photos.conditions.items()}
        else:
            sizes["nuisance"] = settings.nuisance
        self.architecture = Architecture.for_size(sizes, *photos.pictures.shape[1:], capacity)
        self.network = build(self.architecture, settings.precision)
        self.optimizer = keras.optimizers.Adam(settings.learning_rate, beta_2=0.99)
        n = len(photos)
        start = np.random.default_rng(settings.seed).normal(size=(2 * n, settings.nuisance)) * 0.3
        self.codes = tf.Variable(start / CODE_SPEED, dtype=tf.float32)  # photos, then their mirror images
        self.n_landmark_codes = min(settings.landmark_codes, settings.nuisance // 2)
        free = np.ones((2 * n, settings.nuisance), dtype=np.float32)
        free[:n][photos.anchors] = 0
        free[:, : self.n_landmark_codes] = 0
        self.free = tf.constant(free)
        given = np.zeros((2 * n, settings.nuisance), dtype=np.float32)
        given[:, : self.n_landmark_codes] = photos.landmark_codes(self.n_landmark_codes)
        self.given = tf.constant(given)
        self.weights = tf.constant(photos.face_weights()[None])  # (1, h, w, 1)
        self.trained = [*self.network.trainable_variables, *([] if photos.conditions else [self.codes])]
        self.optimizer.build(self.trained)
        self.average = [tf.Variable(weight, trainable=False) for weight in self.network.weights]
        self.held_out_optimizer = keras.optimizers.Adam(0.05 / CODE_SPEED)
        self.held_out_optimizer.build([self.codes])
        self.training_rows = np.flatnonzero(~photos.held_out)
        self.held_out_rows = np.flatnonzero(photos.held_out)
        self.seen, self.steps, self.seconds = 0, 0, 0.0
        self.log: list[dict] = []
        self._step = tf.function(self._train_step)
        self._fit_step = tf.function(self._held_out_step)

    # One step

    def _inputs(self, rows: tf.Tensor, codes: tf.Tensor, extra: dict) -> dict:
        """The network's inputs for rows of `photos` or, from n on, of their mirror images."""
        people = tf.gather(tf.constant(self.photos.people, tf.int64), rows % len(self.photos))
        inputs = {"identity": tf.one_hot(people, len(self.photos.identities))}
        return {**inputs, **(extra if self.photos.conditions else {"nuisance": codes})}

    def _code_rows(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(self.given + CODE_SPEED * self.codes * self.free, rows)

    def _train_step(self, rows, pictures, noise, extra, ema):
        with tf.GradientTape() as tape:
            codes = self._code_rows(rows)
            drawn = self.network(self._inputs(rows, codes + noise, extra), training=True)
            loss = pyramid_loss(tf.cast(drawn, tf.float32) - pictures, self.weights)
            penalty = self.settings.code_penalty * tf.reduce_mean(tf.square(codes))
            gradients = tape.gradient(loss + penalty, self.trained)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        gradients, _ = tf.clip_by_global_norm(gradients, 5.0)
        self.optimizer.apply_gradients(zip(gradients, self.trained, strict=True))
        for kept, weight in zip(self.average, self.network.weights, strict=True):
            kept.assign(ema * kept + (1 - ema) * weight)
        return loss

    def _held_out_step(self, rows, pictures, extra):
        """The loss on held-out photos, and one step of their codes alone."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self.codes)
            drawn = self.network(self._inputs(rows, self._code_rows(rows), extra), training=False)
            loss = pyramid_loss(tf.cast(drawn, tf.float32) - pictures, self.weights)
        if not self.photos.conditions:
            gradient = tf.convert_to_tensor(tape.gradient(loss, self.codes))
            self.held_out_optimizer.apply_gradients([(gradient, self.codes)])
        return loss

    def _pictures(self, rows: np.ndarray) -> np.ndarray:
        """Photos, from n on mirrored: float32 (b, h, w, c) in 0..1."""
        n = len(self.photos)
        pictures = self.photos.pictures[rows % n].astype(np.float32) / 255
        mirrored = rows >= n
        pictures[mirrored] = pictures[mirrored, :, ::-1]
        return pictures

    def _extra(self, rows: np.ndarray) -> dict:
        """Known codes; a mirrored photo turns to the other side."""
        extra = {
            name: values[rows % len(self.photos)].copy() for name, values in self.photos.conditions.items()
        }
        if "orientation" in extra:
            extra["orientation"][rows >= len(self.photos), 0] *= -1
        return extra

    def _learning_rate(self) -> float:
        share = min(1.0, self.seen / self.settings.images)
        fall = max(0.0, (share - CONSTANT_SHARE) / (1 - CONSTANT_SHARE))
        warm = min(1.0, (self.steps + 1) / 100)
        return self.settings.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * fall)))

    def _random_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and noise of one step; they depend on seed and step alone, so that a resumed training is the same."""
        random = np.random.default_rng([self.settings.seed, self.steps])
        rows = random.choice(self.training_rows, self.settings.batch)
        rows = rows + len(self.photos) * (random.random(len(rows)) < self.settings.mirror)
        noise = random.normal(size=(len(rows), self.settings.nuisance)) * self.settings.code_noise
        return rows, noise.astype(np.float32)

    def step(self) -> float:
        """Show one batch; returns its loss."""
        rows, noise = self._random_batch()
        self.optimizer.learning_rate.assign(self._learning_rate())
        ema = min(self.settings.ema, (1 + self.steps) / (10 + self.steps))
        loss = self._step(
            tf.constant(rows, tf.int64), tf.constant(self._pictures(rows)), tf.constant(noise),
            {name: tf.constant(values) for name, values in self._extra(rows).items()}, tf.constant(ema, tf.float32),
        )  # fmt: skip
        self.seen += len(rows)
        self.steps += 1
        return float(loss)

    def held_out_loss(self) -> float:
        """Fit the codes of some held-out photos a little further, and return their loss; NaN without such photos."""
        if len(self.held_out_rows) == 0:
            return float("nan")
        rows = self.held_out_rows[:: max(1, len(self.held_out_rows) // HELD_OUT_PHOTOS)][:HELD_OUT_PHOTOS]
        extra = {name: tf.constant(values) for name, values in self._extra(rows).items()}
        pictures = tf.constant(self._pictures(rows))
        losses = [
            float(self._fit_step(tf.constant(rows, tf.int64), pictures, extra)) for _ in range(HELD_OUT_STEPS)
        ]
        return losses[-1]

    # The whole training

    def train(self, out: Path, checkpoint: Path, sheet_seconds: float = 180.0) -> None:
        """Train until enough images are seen, or the held-out loss no longer falls.

        Writes the weights to `out` and beside it the log (``.csv``) and a sheet of samples (``.png``), and `checkpoint`
        from time to time. Stopped by Ctrl-C, it writes them, too.
        """
        losses: list[float] = []
        shown = time.monotonic()
        bar = utils.progress(None, "training", total=self.settings.images)
        bar.update(self.seen)
        try:
            while self.seen < self.settings.images:
                started = time.monotonic()
                losses.append(self.step())
                bar.update(self.settings.batch)
                self.seconds += time.monotonic() - started
                if self.seen % self.settings.evaluate_every >= self.settings.batch and (
                    self.seen < self.settings.images
                ):
                    continue
                line = self._log_line(losses)
                losses = []
                bar.set_postfix(loss=f"{line['loss']:.4f}", held_out=f"{line['held_out_loss']:.4f}")
                if time.monotonic() - shown > sheet_seconds:
                    self._write(out, checkpoint)
                    shown = time.monotonic()
                if 0 < self.settings.patience <= self._evaluations_without_gain():
                    break
        except KeyboardInterrupt:
            bar.write("stopped; continue with --resume")
        finally:
            bar.close()
        self._write(out, checkpoint)

    def _log_line(self, losses: list[float]) -> dict:
        line = {
            "images": self.seen,
            "seconds": round(self.seconds, 1),
            "learning_rate": float(f"{self._learning_rate():.3g}"),
            "loss": round(float(np.mean(losses)), 5),
            "held_out_loss": round(self.held_out_loss(), 5),
        }
        self.log.append(line)
        return line

    def _evaluations_without_gain(self) -> int:
        losses = [line["held_out_loss"] for line in self.log]
        return len(losses) - 1 - int(np.argmin(losses)) if np.isfinite(losses).all() else 0

    def _write(self, out: Path, checkpoint: Path) -> None:
        self.save_checkpoint(checkpoint)
        result = self.result()
        result.save(out)
        with out.with_suffix(".csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            writer.writeheader()
            writer.writerows(self.log)
        Image.fromarray(sample_sheet(result, self.photos, self.settings.seed)).save(out.with_suffix(".png"))

    def result(self) -> FaceNetwork:
        """The network with its averaged weights, and the codes of the training photos."""
        photos = self.photos
        network = build(self.architecture)
        network.set_weights([weight.numpy() for weight in self.average])
        codes = (self.given + CODE_SPEED * self.codes * self.free).numpy()
        rows = self.training_rows if not photos.conditions else self.training_rows[:0]
        return FaceNetwork(
            self.architecture,
            network,
            photos.identities,
            photos.source,
            {**asdict(self.settings), "landmark_codes": self.n_landmark_codes, "images_seen": self.seen},
            [photos.names[row] for row in rows],
            photos.people[rows],
            codes[rows][:, : self.architecture.input_sizes.get("nuisance", 0)],
            [photos.names[row] for row in self.held_out_rows],
            photos.landmarks,
        )

    # Checkpoints

    def _variables(self) -> dict:
        parts = {
            "network": self.network.weights,
            "average": self.average,
            "adam": self.optimizer.variables,
            "adam_held_out": self.held_out_optimizer.variables,
            "codes": [self.codes],
        }
        return {f"{part}.{i}": variable for part, rows in parts.items() for i, variable in enumerate(rows)}

    def _key(self) -> str:
        """What must be the same for a checkpoint to fit; the number of images may grow."""
        settings = {
            name: value for name, value in asdict(self.settings).items() if name not in ("images", "patience")
        }
        photos = self.photos
        return utils.content_key(settings, photos.pictures, photos.people, photos.held_out, photos.identities)

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
            arrays["state"][2],
        )
        self.log = [dict(zip(LOG_COLUMNS, line.tolist(), strict=True)) for line in arrays["log"]]


def sample_sheet(model: FaceNetwork, photos: TrainingSet, seed: int = 0, columns: int = 10) -> np.ndarray:
    """Photos, their reconstructions, the people's neutral faces, and averages: uint8 (h, w, 3).

    The rows show some training photos, the same as the network draws them, these people at nuisance 0, and the averages
    of 2, 3, ... people.
    """
    random = np.random.default_rng(seed)
    rows = np.flatnonzero(~photos.held_out)
    rows = np.sort(random.choice(rows, min(columns, len(rows)), replace=False))
    n = len(photos.identities)
    identity = np.eye(n, dtype=np.float32)[photos.people[rows]]
    if photos.conditions:
        own = {name: values[rows] for name, values in photos.conditions.items()}
    else:
        own = {"nuisance": np.stack([model.nuisance_of(photos.names[row]) for row in rows])}
    mixtures = np.zeros((len(rows), n), dtype=np.float32)
    for number, mixture in enumerate(mixtures):
        members = random.choice(n, min(n, number + 2), replace=False)
        mixture[members] = 1 / len(members)
    lines = [
        photos.pictures[rows] / 255,
        model.generate(identity, **own),
        model.generate(identity),
        model.generate(mixtures),
    ]
    sheet = np.concatenate([np.concatenate(list(line), axis=1) for line in lines])  # (4h, 10w, c)
    pixels = np.clip(np.rint(sheet * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
