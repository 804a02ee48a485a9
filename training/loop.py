"""The training loop: batches, learning rates, moving average, log, samples and checkpoints."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

import utils
from checks import Choice, Number, check_fields
from training.training_set import TrainingSet

# Larger gradients are shortened to this norm.
LARGEST_NORM = 5.0
# The learning rates fall to this share of their largest value.
_LEAST_RATE = 0.01

_LOG_COLUMNS = ("images", "seconds", "learning_rate", "loss", "held_out_loss")


@dataclass(frozen=True)
class TrainingSettings:
    """How to train. The meaning of each setting stands beside it; the command line shows it, too."""

    images: Annotated[int, Number(int, at_least=1), "number of images to train on"] = 100_000
    batch: Annotated[int, Number(int, at_least=1), "images in a batch"] = 16
    learning_rate: Annotated[float, Number(above=0, at_most=1), "largest learning rate"] = 1e-3
    ema: Annotated[float, Number(at_least=0, below=1), "decay of the moving average of the weights"] = 0.999
    precision: Annotated[
        str,
        Choice(("float32", "mixed_bfloat16")),
        "float32, or mixed_bfloat16: faster where computed natively",
    ] = "float32"
    evaluate_every: Annotated[int, Number(int, at_least=1), "images between two lines of the log"] = 4_000
    patience: Annotated[
        int,
        Number(int, at_least=0),
        "stop after this many evaluations without a lower held-out loss; 0: never",
    ] = 0
    seed: Annotated[int, Number(int, at_least=0), "seed of everything random"] = 0

    def __post_init__(self):
        check_fields(self)


class TrainingLoop(ABC):
    """A training that can be stopped and resumed.

    A step shows one batch, which depends on seed and number of the step alone, so that a resumed training continues
    exactly where it was stopped. Subclasses give the networks, the batches, the loss and the samples.

    Parameters
    ----------
    photos : TrainingSet
    settings : TrainingSettings
    groups : dict
        By name, variables that share a learning rate, and its largest value. That of ``"plain"`` is logged.
    averaged : sequence of pairs of variables
        Moving average of a weight, and the weight.
    constant : int or float
        Number of images before the learning rates start to fall.

    Attributes
    ----------
    seen : int
        Images shown so far.
    steps : int
    seconds : float
    log : list of dict
        A row per evaluation: images, seconds, learning_rate, loss, held_out_loss.
    """

    warm_up = 100  # steps in which the learning rates rise
    open_settings = ("images", "patience")  # these may change when a training is resumed

    def __init__(
        self,
        photos: TrainingSet,
        settings: TrainingSettings,
        groups: dict[str, tuple[Sequence[tf.Variable], float]],
        averaged: Iterable[tuple],
        constant: float,
    ):
        self.photos, self.settings, self.groups, self.constant = photos, settings, groups, constant
        self.averaged = list(averaged)
        self.optimizers = {}
        for name, (variables, _) in groups.items():
            self.optimizers[name] = keras.optimizers.Adam(beta_2=0.99)
            self.optimizers[name].build(variables)
        self.weights = tf.constant(photos.pixel_weights()[None])  # (1, h, w, 1)
        self.seen, self.steps, self.seconds = 0, 0, 0.0
        self.log: list[dict] = []
        self._compiled: dict = {}

    # What subclasses give

    def phase(self) -> tuple:
        """What changes in the course of the training; a step is compiled for each phase."""
        return ()

    @abstractmethod
    def batch(self, random: np.random.Generator, *phase) -> tuple:
        """Draw the arrays that one step gets."""

    @abstractmethod
    def loss(self, phase: tuple, *batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the loss to log, and the one to minimise."""

    @abstractmethod
    def samples(self) -> list[np.ndarray]:
        """Draw rows of pictures for the sheet of samples: uint8 (columns, h, w, c) each."""

    def held_out_loss(self) -> float:
        """Loss of the photos kept out of training; NaN where there are none."""
        return float("nan")

    def save(self, out: Path) -> None:  # noqa: B027 (where there is more to do after the training)
        """Write the trained network."""

    @property
    def total_images(self) -> int:
        """Images to show."""
        return self.settings.images

    @property
    def n_weights(self) -> int:
        """Number of weights that are trained."""
        return sum(int(np.prod(weight.shape)) for _, weight in self.averaged)

    # One step

    def rates(self) -> dict[str, float]:
        """Learning rate of each group: it rises, stays constant, and falls by a half cosine."""
        fall = (self.seen - self.constant) / max(self.settings.images - self.constant, 1e-9)
        rate = _LEAST_RATE + (1 - _LEAST_RATE) * half_cosine(np.clip(fall, 0, 1))
        rate *= min(1.0, (self.steps + 1) / self.warm_up)
        return {name: largest * rate for name, (_, largest) in self.groups.items()}

    def step(self) -> float:
        """Show one batch; return its loss."""
        phase = self.phase()
        if phase not in self._compiled:
            self._compiled[phase] = self._compile(phase)
        batch = self.batch(np.random.default_rng([self.settings.seed, self.steps]), *phase)
        for name, rate in self.rates().items():
            self.optimizers[name].learning_rate.assign(rate)
        decay = np.float32(min(self.settings.ema, (1 + self.steps) / (10 + self.steps)))
        loss = self._compiled[phase](*tf.nest.map_structure(tf.constant, (decay, *batch)))
        self.seen += self.settings.batch
        self.steps += 1
        return float(loss)

    def _compile(self, phase: tuple):
        variables = {name: group for name, (group, _) in self.groups.items()}

        @tf.function
        def step(decay, *batch):
            with tf.GradientTape() as tape:
                loss, total = self.loss(phase, *batch)
            # Step down the gradient of each group.
            gradients = tape.gradient(total, variables, unconnected_gradients="zero")
            gradients = self.clip(tf.nest.map_structure(tf.convert_to_tensor, gradients))
            for name, group in variables.items():
                self.optimizers[name].apply_gradients(zip(gradients[name], group, strict=True))
            # Move the averages towards the weights.
            for average, weight in self.averaged:
                average.assign(decay * average + (1 - decay) * weight)
            return loss

        return step

    def clip(self, gradients: dict[str, list[tf.Tensor]]) -> dict[str, list[tf.Tensor]]:
        """Limit the norm of all gradients together."""
        joined = [gradient for part in gradients.values() for gradient in part]
        limited = iter(tf.clip_by_global_norm(joined, LARGEST_NORM)[0])
        return {name: list(islice(limited, len(part))) for name, part in gradients.items()}

    # The whole training

    def train(self, out: Path, checkpoint: Path, sheet_seconds: float = 240.0) -> None:
        """Train until enough images are shown, or the held-out loss no longer falls.

        Parameters
        ----------
        out : Path
            File of the network, written at the end and on Ctrl-C; the log (``.csv``) and a sheet of samples
            (``.png``) are written beside it.
        checkpoint : Path
            ``.npz`` file with all that is needed to resume.
        sheet_seconds : float, default 240
            Time after which log, sheet and checkpoint are written again.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when all files are written.
        """
        losses, written = [], time.monotonic()
        bar = utils.progress(None, "training", total=self.total_images)
        bar.update(self.seen)
        try:
            while self.seen < self.total_images:
                started = time.monotonic()
                losses.append(self.step())
                self.seconds += time.monotonic() - started
                bar.update(self.settings.batch)
                between = self.seen % self.settings.evaluate_every >= self.settings.batch
                if between and self.seen < self.total_images:
                    continue
                self._evaluate(losses)
                losses = []
                bar.set_postfix({name: f"{self.log[-1][name]:.4f}" for name in ("loss", "held_out_loss")})
                if time.monotonic() - written > sheet_seconds:
                    self._write(out, checkpoint)
                    written = time.monotonic()
                if 0 < self.settings.patience <= self._evaluations_without_gain():
                    break
        except KeyboardInterrupt:
            bar.write("Stopped; add --resume to continue.")
            self._write(out, checkpoint)
            self.save(out)
            raise
        finally:
            bar.close()
        self._write(out, checkpoint)
        self.save(out)

    def _evaluate(self, losses: list[float]) -> None:
        """Add a row to the log."""
        rate, loss = float(f"{self.rates()['plain']:.3g}"), round(float(np.mean(losses)), 5)
        values = (self.seen, round(self.seconds, 1), rate, loss, round(self.held_out_loss(), 5))
        self.log.append(dict(zip(_LOG_COLUMNS, values, strict=True)))

    def _evaluations_without_gain(self) -> int:
        losses = [row["held_out_loss"] for row in self.log]
        return len(losses) - 1 - int(np.argmin(losses)) if np.isfinite(losses).all() else 0

    def _write(self, out: Path, checkpoint: Path) -> None:
        self.save_checkpoint(checkpoint)
        self._log_table().to_csv(out.with_suffix(".csv"), index=False)
        Image.fromarray(self.sheet()).save(out.with_suffix(".png"))

    def _log_table(self) -> pd.DataFrame:
        return pd.DataFrame(self.log, columns=_LOG_COLUMNS)

    def sheet(self) -> np.ndarray:
        """Rows of samples in one picture: uint8 (height, width), or (height, width, 3) in colour."""
        sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in self.samples()])
        return sheet[..., 0] if sheet.shape[2] == 1 else sheet

    # Checkpoints

    def state(self) -> dict[str, Sequence]:
        """Variables that a checkpoint keeps, by part."""
        averages, weights = zip(*self.averaged, strict=True)
        adam = {f"adam_{name}": optimizer.variables for name, optimizer in self.optimizers.items()}
        return {"average": averages, "weight": weights, **adam}

    def _variables(self) -> dict:
        return {
            f"{part}.{i}": variable for part, rows in self.state().items() for i, variable in enumerate(rows)
        }

    def _key(self) -> str:
        """Changes with all that a resumed training must share with the stopped one."""
        settings = {n: value for n, value in asdict(self.settings).items() if n not in self.open_settings}
        shapes = [list(variable.shape) for variable in self._variables().values()]
        photos = self.photos
        return utils.content_key(
            settings, shapes, photos.pictures, photos.people, photos.held_out, photos.identities
        )

    def save_checkpoint(self, path: Path) -> None:
        """Write all that is needed to resume."""
        arrays = {name: np.asarray(variable) for name, variable in self._variables().items()}
        arrays["log"] = self._log_table().to_numpy(float)
        arrays["counts"] = np.array([self.seen, self.steps, self.seconds], dtype=float)
        utils.save_arrays(path, {**arrays, "key": np.array(self._key())})

    def load_checkpoint(self, path: Path) -> None:
        """Resume from a checkpoint; ValueError if it is of another training."""
        arrays = utils.load_arrays(path)
        if str(arrays.get("key")) != self._key():
            raise ValueError(
                f"{path}: is the checkpoint of a training with other photos or settings; only "
                f"{' and '.join(self.open_settings)} may change"
            )
        for name, variable in self._variables().items():
            variable.assign(arrays[name])
        seen, steps, self.seconds = arrays["counts"].tolist()
        self.seen, self.steps = int(seen), int(steps)
        self.log = pd.DataFrame(arrays["log"], columns=_LOG_COLUMNS).to_dict("records")


def half_cosine(share):
    """Fall from 1 at share 0 to 0 at share 1; share is a number or an array."""
    return 0.5 * (1 + np.cos(np.pi * share))


def minimise(
    loss: Callable[..., tf.Tensor],
    variables: Sequence[tf.Variable],
    rates: Sequence[float],
    batches: Iterable[tuple] | None = None,
    largest_norm: float | None = None,
) -> None:
    """Move variables down the gradient of a loss by Adam.

    Parameters
    ----------
    loss : callable
        Takes the tensors of a batch and returns a scalar tensor.
    variables : sequence of tf.Variable
    rates : sequence of float
        Learning rate of each step.
    batches : iterable of tuples of arrays, optional
        One batch for each step; by default the loss takes no arguments.
    largest_norm : float, optional
        Larger gradients are shortened to this norm.
    """
    optimizer = keras.optimizers.Adam(beta_2=0.99)
    optimizer.build(variables)

    @tf.function
    def step(*batch):
        with tf.GradientTape() as tape:
            value = loss(*batch)
        gradients = tape.gradient(value, variables)
        if largest_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, largest_norm)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for rate, batch in zip(rates, [()] * len(rates) if batches is None else batches, strict=True):
        optimizer.learning_rate.assign(rate)
        step(*map(tf.constant, batch))


def different_people(random: np.random.Generator, n_people: int, count: int) -> np.ndarray:
    """Draw people, indices (count,); none comes again before all came."""
    rounds = [random.permutation(n_people) for _ in range(-(-count // n_people))]
    return np.concatenate(rounds)[:count]
