"""The training loop: batches, learning rates, moving average, log, samples and checkpoints."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
from PIL import Image

import utils
from checks import Choice, Number, check_fields
from training.backend import keras, tf
from training.descent import LARGEST_NORM, half_cosine
from training.training_set import TrainingSet

# Seconds between two checkpoints.
_CHECKPOINT_SECONDS = 60.0
# The learning rates decay to this share of their maximum.
_LEAST_RATE = 0.01

_PRECISIONS = ("float32", "mixed_bfloat16")
_LOG_COLUMNS = ("images", "seconds", "learning_rate", "loss", "held_out_loss")

#: Types of settings: integers from 0 or from 1, numbers from 0, and shares from 0 to 1.
Natural = Annotated[int, Number(int, at_least=0)]
Positive = Annotated[int, Number(int, at_least=1)]
Weight = Annotated[float, Number(at_least=0)]
Share = Annotated[float, Number(at_least=0, at_most=1)]


@dataclass(frozen=True)
class TrainingSettings:
    """How to train. The text of each setting is also its help on the command line."""

    images: Annotated[Positive, "number of images to train on"] = 100_000
    batch: Annotated[Positive, "images in a batch"] = 16
    learning_rate: Annotated[float, Number(above=0, at_most=1), "largest learning rate"] = 1e-3
    ema: Annotated[float, Number(at_least=0, below=1), "decay of the moving average of the weights"] = 0.999
    precision: Annotated[
        str, Choice(_PRECISIONS), "mixed_bfloat16 is faster on hardware that supports it"
    ] = "float32"
    evaluate_every: Annotated[Positive, "images between two rows of the log"] = 4_000
    patience: Annotated[
        Natural, "evaluations without a lower held-out loss before training stops; 0: never"
    ] = 0
    seed: Annotated[Natural, "seed of everything random"] = 0

    def __post_init__(self):
        check_fields(self)


class TrainingLoop(ABC):
    """A training that can be stopped and resumed.

    Each step trains on one batch, which depends only on the seed and the step number, so a resumed training
    continues exactly where it stopped. Subclasses provide the networks, the batches, the loss and the samples.

    Parameters
    ----------
    photos : TrainingSet
    settings : TrainingSettings
    groups : dict
        Variables that share a learning rate, and its maximum, by name. The rate of ``"plain"`` is logged.
    averaged : sequence of pairs of variables
        The moving average of a weight, and the weight.
    constant : int or float
        Number of images before the learning rates start to fall.

    Attributes
    ----------
    seen, steps : int
        Images and batches so far.
    seconds : float
        Time spent on them.
    log : list of dict
        A row per evaluation: images, seconds, learning_rate, loss, held_out_loss.
    losses : list of float
        The loss of each step since the last evaluation.
    """

    warm_up = 100  # steps over which the learning rates rise
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
        self.seen, self.steps, self.seconds = 0, 0, 0.0
        self.log: list[dict] = []
        self.losses: list[float] = []
        self._compiled: dict = {}

    # Methods of subclasses

    def phase(self) -> tuple:
        """Return the current phase of the training; a step is compiled for each phase."""
        return ()

    @abstractmethod
    def batch(self, random: np.random.Generator, *phase) -> tuple:
        """Draw the arrays for one step."""

    @abstractmethod
    def loss(self, phase: tuple, *batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Compute the loss to log, and the loss to minimise."""

    @abstractmethod
    def samples(self) -> list[np.ndarray]:
        """Draw rows of images for the sample sheet: uint8 (columns, h, w, c) each."""

    def held_out_loss(self) -> float:
        """Loss on the held-out photos; NaN if there are none."""
        return float("nan")

    def save(self, out: Path) -> None:  # noqa: B027 (subclasses may do more after training)
        """Write the trained network."""

    def summary(self) -> str:
        """What it is trained on, in a line."""
        n_held_out = self.photos.held_out.sum()
        n_people = len(self.photos.identities)
        return f"{len(self.photos) - n_held_out} photos of {n_people} people, {n_held_out} held out"

    @cached_property
    def weights(self) -> tf.Tensor:
        """Weight of each pixel in a loss: (1, h, w, 1)."""
        with tf.init_scope():  # a step that is compiled later must be able to use it
            return tf.constant(self.photos.pixel_weights()[None])

    @property
    def total_images(self) -> int:
        """Number of images to train on."""
        return self.settings.images

    # One step

    def rates(self) -> dict[str, float]:
        """Return the learning rate of each group: it rises, stays constant, then decays as a half cosine."""
        fall = (self.seen - self.constant) / max(self.settings.images - self.constant, 1e-9)
        rate = _LEAST_RATE + (1 - _LEAST_RATE) * half_cosine(np.clip(fall, 0, 1))
        rate *= min(1.0, (self.steps + 1) / self.warm_up)
        return {name: largest * rate for name, (_, largest) in self.groups.items()}

    def step(self) -> float:
        """Train on one batch; return its loss."""
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
            # Update the variables of each group.
            gradients = tape.gradient(total, variables, unconnected_gradients="zero")
            gradients = self.clip(tf.nest.map_structure(tf.convert_to_tensor, gradients))
            for name, group in variables.items():
                self.optimizers[name].apply_gradients(zip(gradients[name], group, strict=True))
            # Update the moving averages.
            for average, weight in self.averaged:
                average.assign(decay * average + (1 - decay) * weight)
            return loss

        return step

    def clip(self, gradients: dict[str, list[tf.Tensor]]) -> dict[str, list[tf.Tensor]]:
        """Clip the global norm of the gradients."""
        joined = [gradient for part in gradients.values() for gradient in part]
        limited = iter(tf.clip_by_global_norm(joined, LARGEST_NORM)[0])
        return {name: list(islice(limited, len(part))) for name, part in gradients.items()}

    # The training loop

    def train(self, out: Path, checkpoint: Path, sheet_seconds: float = 240.0) -> None:
        """Train until all images are used or the held-out loss stops falling.

        Parameters
        ----------
        out : Path
            File of the network, written at the end and on Ctrl-C. The log (``.csv``) and a sheet of samples (``.png``)
            are written to the same folder.
        checkpoint : Path
            ``.npz`` file with everything needed to resume, written about every minute.
        sheet_seconds : float, default 240
            Seconds between two updates of the log and the sheet.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, once all files are written.
        """
        written = saved = time.monotonic()
        bar = utils.progress(None, "training", total=self.total_images)
        bar.update(self.seen)
        try:
            while self.seen < self.total_images:
                started = time.monotonic()
                self.losses.append(self.step())
                self.seconds += time.monotonic() - started
                bar.update(self.settings.batch)
                if time.monotonic() - saved > _CHECKPOINT_SECONDS:
                    self.save_checkpoint(checkpoint)
                    saved = time.monotonic()
                between = self.seen % self.settings.evaluate_every >= self.settings.batch
                if between and self.seen < self.total_images:
                    continue
                self._evaluate()
                bar.set_postfix({name: f"{self.log[-1][name]:.4f}" for name in ("loss", "held_out_loss")})
                if time.monotonic() - written > sheet_seconds:
                    self._write(out, checkpoint)
                    written = time.monotonic()
                if 0 < self.settings.patience <= self._evaluations_without_gain():
                    break
        except KeyboardInterrupt:
            bar.write("Stopped; run the same command again to continue.")
            self._write(out, checkpoint)
            self.save(out)
            raise
        finally:
            bar.close()
        self._write(out, checkpoint)
        self.save(out)

    def _evaluate(self) -> None:
        """Add a row to the log."""
        rate, loss = float(f"{self.rates()['plain']:.3g}"), round(float(np.mean(self.losses)), 5)
        self.losses = []
        values = (self.seen, round(self.seconds, 1), rate, loss, round(self.held_out_loss(), 5))
        self.log.append(dict(zip(_LOG_COLUMNS, values, strict=True)))

    def _evaluations_without_gain(self) -> int:
        losses = [row["held_out_loss"] for row in self.log]
        return len(losses) - 1 - int(np.argmin(losses)) if np.isfinite(losses).all() else 0

    def _write(self, out: Path, checkpoint: Path) -> None:
        self.save_checkpoint(checkpoint)
        log, sheet = self._log_table().to_csv(index=False).encode(), Image.fromarray(self.sheet())
        utils.save_atomic(out.with_suffix(".csv"), lambda file: file.write(log))
        utils.save_atomic(out.with_suffix(".png"), lambda file: sheet.save(file, "PNG"))

    def _log_table(self) -> pd.DataFrame:
        return pd.DataFrame(self.log, columns=_LOG_COLUMNS)

    def sheet(self) -> np.ndarray:
        """Tile rows of samples into one picture: uint8 (height, width), or (height, width, 3) in colour."""
        sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in self.samples()])
        return sheet[..., 0] if sheet.shape[2] == 1 else sheet

    # Checkpoints

    def state(self) -> dict[str, Sequence]:
        """Variables in a checkpoint, by part."""
        averages, weights = zip(*self.averaged, strict=True)
        adam = {f"adam_{name}": optimizer.variables for name, optimizer in self.optimizers.items()}
        return {"average": averages, "weight": weights, **adam}

    def _variables(self) -> dict:
        return {
            f"{part}.{i}": variable for part, rows in self.state().items() for i, variable in enumerate(rows)
        }

    def _key(self) -> str:
        """Key of everything that a resumed training must share with the original training."""
        settings = {n: value for n, value in asdict(self.settings).items() if n not in self.open_settings}
        shapes = [list(variable.shape) for variable in self._variables().values()]
        photos = self.photos
        return utils.content_key(
            settings, shapes, photos.pictures, photos.people, photos.held_out, photos.identities
        )

    def save_checkpoint(self, path: Path) -> None:
        """Write everything needed to resume."""
        arrays = {name: np.asarray(variable) for name, variable in self._variables().items()}
        arrays["log"] = self._log_table().to_numpy(float)
        arrays["losses"] = np.array(self.losses, dtype=float)
        arrays["counts"] = np.array([self.seen, self.steps, self.seconds], dtype=float)
        utils.save_arrays(path, {**arrays, "key": np.array(self._key())})

    def load_checkpoint(self, path: Path) -> None:
        """Resume from a checkpoint; raise ValueError if another training wrote it."""
        arrays = utils.load_arrays(path)
        if str(arrays.get("key")) != self._key():
            raise ValueError(
                f"{path} is the checkpoint of a training with different photos or settings; "
                f"only {' and '.join(self.open_settings)} may change. Repeat its command, name another file with "
                "--out, or remove it"
            )
        for name, variable in self._variables().items():
            variable.assign(arrays[name])
        seen, steps, self.seconds = arrays["counts"].tolist()
        self.seen, self.steps = int(seen), int(steps)
        self.log = pd.DataFrame(arrays["log"], columns=_LOG_COLUMNS).to_dict("records")
        self.losses = arrays["losses"].tolist() if "losses" in arrays else []


def different_people(random: np.random.Generator, n_people: int, count: int) -> np.ndarray:
    """Draw indices of people, (count,); nobody is drawn twice before everyone is drawn once."""
    rounds = [random.permutation(n_people) for _ in range(-(-count // n_people))]
    return np.concatenate(rounds)[:count]
