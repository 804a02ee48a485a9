"""Train an encoder for any network on images that the network draws itself: no photos are needed.

The code of a drawn image is known, so the encoder learns to predict it. Such an encoder has seen no photo: its codes
are a start for `projection`, not a result. As in the training of the network (Karras, Laine and Aila, CVPR 2019,
section 3.1) some images mix the styles of two people. Truncation varies, and the code of each layer gets noise, because
the codes of photos lie beside those of the mapping network.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from checks import Number
from stylegan.encoder import (
    Encoder,
    EncoderSizes,
    build_encoder,
    default_widths,
    encoder_path,
    reduce_pictures,
)
from stylegan.network import StyleNetwork, to_uint8
from stylegan.projection import spread_of
from training.backend import keras, tf
from training.loop import Positive, Share, TrainingLoop, TrainingSettings, Weight
from training.training_set import TrainingSet

# Encoders of larger networks see reduced images.
_LARGEST_INPUT = 256
# Least truncation psi of the codes; the largest is 1.
_LEAST_PSI = 0.5
# Images whose codes are never learnt from, and how many of them are on the sheet of samples.
_HELD_OUT, _COLUMNS = 64, 8


@dataclass(frozen=True)
class SelfTrainingSettings(TrainingSettings):
    """How to train an encoder on drawn images; see `TrainingSettings`."""

    images: Annotated[Positive, "number of images to draw and learn from"] = 20_000
    decay_at: Annotated[Share, "share of the images before the learning rate falls"] = 0.5
    ema: Annotated[float, Number(at_least=0, below=1), "decay of the moving average of the weights"] = 0.99
    evaluate_every: Annotated[Positive, "images between two rows of the log"] = 1_000
    mixed: Annotated[Share, "share of the images with the styles of two people"] = 0.5
    noise: Annotated[Weight, "noise on the code of each layer, in units of the spread of w"] = 0.2


class SelfTrainer(TrainingLoop):
    """Trains an encoder of a network.

    Parameters
    ----------
    network : StyleNetwork
        With images of at least 32 pixels.
    settings : SelfTrainingSettings
    """

    def __init__(self, network: StyleNetwork, settings: SelfTrainingSettings):
        self.network, self.spread = network, spread_of(network)
        a = network.architecture
        side = min(a.resolution, _LARGEST_INPUT)
        self.sizes = EncoderSizes(side, a.colours, a.num_layers, a.w_dim, default_widths(side))
        keras.utils.set_random_seed(settings.seed)
        self.encoder = build_encoder(self.sizes, settings.precision)
        self.average_encoder = build_encoder(self.sizes)
        self.average_encoder.set_weights(self.encoder.get_weights())
        self.settings = settings
        self.known, pictures = self._draw(np.random.default_rng([settings.seed]), _HELD_OUT)
        averaged = zip(
            self.average_encoder.trainable_variables, self.encoder.trainable_variables, strict=True
        )
        groups = {"plain": (self.encoder.trainable_variables, settings.learning_rate)}
        drawn = _held_out_set(pictures, str(network.description.get("dataset") or "drawn"))
        super().__init__(drawn, settings, groups, averaged, settings.decay_at * settings.images)

    def _draw(self, random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw codes in units of the spread, (n, num_layers, w_dim), and their images in -1..1, (n, side, side, c)."""
        network, shape = self.network, (n, self.network.num_layers, self.network.w_dim)
        # Draw two people for each image, and mix their styles from some layer on. (n, num_layers, w_dim)
        first, second = (network.mapping(random.standard_normal((n, network.z_dim))) for _ in range(2))
        starts = np.where(random.random(n) < self.settings.mixed, random.integers(1, shape[1], n), shape[1])
        codes = np.where(np.arange(shape[1])[:, None] < starts[:, None, None], first, second)
        # Truncate them, and add noise. (n, num_layers, w_dim)
        codes = (codes - network.average) / self.spread * random.uniform(_LEAST_PSI, 1, (n, 1, 1))
        codes += self.settings.noise * random.standard_normal(shape)
        # Draw the images, and reduce them to the encoder's size. (n, side, side, c)
        images = network.synthesis(network.average + self.spread * codes)[..., : self.sizes.colours]
        return codes.astype(np.float32), reduce_pictures(np.clip(images, -1, 1), self.sizes.resolution)

    def batch(self, random: np.random.Generator) -> tuple:
        """Draw codes and their images."""
        return self._draw(random, self.settings.batch)

    def _differences(self, encoder: keras.Model, codes: tf.Tensor, pictures: tf.Tensor) -> tf.Tensor:
        base, offsets = encoder(pictures, training=True)
        found = tf.cast(base[:, None] + offsets, tf.float32)
        return (found - self.network.average) / self.spread - codes

    def loss(self, phase: tuple, *batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean square difference of codes, in units of the spread."""
        loss = tf.reduce_mean(tf.square(self._differences(self.encoder, *batch)))
        return loss, loss

    def held_out_loss(self) -> float:
        """The loss of the averaged encoder on images that it never learns from; 1 is that of the average code."""
        pictures = tf.constant(self.photos.pictures.astype(np.float32) / 127.5 - 1)
        return float(tf.reduce_mean(tf.square(self._differences(self.average_encoder, self.known, pictures))))

    def samples(self) -> list[np.ndarray]:
        """Held-out images, and below them the images of their predicted codes."""
        encoder = self.result()
        pictures = self.photos.pictures[:_COLUMNS]
        codes = encoder.encode(pictures.astype(np.float32) / 127.5 - 1)
        drawn = self.network.synthesis(codes)[..., : self.sizes.colours]
        return [pictures, to_uint8(reduce_pictures(drawn, self.sizes.resolution))]

    def summary(self) -> str:
        """What is trained, in a line."""
        return f"an encoder of {self.sizes.resolution} x {self.sizes.resolution} images that {self.network} draws"

    def result(self) -> Encoder:
        """The averaged encoder."""
        training = {"settings": asdict(self.settings), "images_seen": self.seen, "own_images": True}
        description = {"dataset": self.network.description.get("dataset"), "training": training}
        return Encoder(self.sizes, self.average_encoder, description)

    def save(self, out: Path) -> None:
        """Write the encoder."""
        self.result().save(out, "float16")


def _held_out_set(pictures: np.ndarray, source: str) -> TrainingSet:
    """Drawn images (n, side, side, c) as a set of photos of people who are all held out."""
    n, side = len(pictures), pictures.shape[1]
    names = [str(number) for number in range(n)]
    return TrainingSet(
        to_uint8(pictures), np.arange(n), names, names, np.ones(n, dtype=bool), np.zeros((n, 68, 2)), source,
        (0, 0, side, side),
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m stylegan encoder``."""
    from training.command import add_files, add_settings

    parser.add_argument("network", type=Path, help="a .npz or official .pkl")
    add_files(parser, "NETWORK-encoder.npz, where `project` looks for it")
    add_settings(parser, SelfTrainingSettings)


def run(options: argparse.Namespace) -> None:
    """Train an encoder of a network on images that it draws, to start `project` from; repeat to resume after a stop."""
    from stylegan import load_network
    from training.command import chosen_file, read_settings, run_training

    settings = read_settings(options, SelfTrainingSettings)
    network = load_network(options.network)
    out = chosen_file(options, encoder_path(options.network.with_suffix(".npz")))
    run_training(SelfTrainer(network, settings), out, options)
