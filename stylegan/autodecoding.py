"""Train the synthesis network with a free W+ code for each photo; the codes are learnt along.

Bojanowski, Joulin, Lopez-Paz and Szlam, "Optimizing the latent space of generative networks", ICML 2018. An encoder in
the place of the free codes (`stylegan.training`) kept the pictures blurred: codes optimised one by one for its network
drew the same photos at half the error.

Mean codes of several people are taught by example, too: the network shall draw from them what the active appearance
model draws of the same photos (`stylegan.photos.mix_people`), and at times from a single w for all layers, as the
mapping network gives it. Before, mixtures had to have detail as strong as their members' and the mean of their features
to dlib's recogniser; that was met by glasses on everybody. Pictures are compared in pixels, in the bands of a Laplacian
pyramid and in the strength of their detail; photos also by the features of dlib's recogniser.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import utils
from CNN.photos import MIRRORED
from CNN.training import pyramid_loss
from stylegan import features
from stylegan import photos as preparation
from stylegan.architecture import Synthesis
from stylegan.encoder import Encoder, build, load_encoder
from stylegan.network import StyleNetwork, load_npz, to_uint8
from stylegan.photos import Mixtures, TrainingSet, to_signed
from stylegan.training import NEIGHBOURHOOD, encoder_path, fit_mapping, strengths

#: Photos of a batch that are compared by their features.
FEATURED = 2


@dataclass(frozen=True)
class Settings:
    """How to train; weights of the loss are against 1 for the pyramid.

    Attributes
    ----------
    images : int
        Stop after so many pictures shown, photos and mixtures together.
    batch : int
    mixed : int
        Mixtures in each batch; the others are photos.
    mixtures : int
        Groups of people that there are mixtures of.
    scaled_rate, rate, code_rate : float
        Adam's rates for weights that are stored with variance 1, for all others, and for codes.
    constant : float
        Share of the images after which the rates fall by a half cosine to a hundredth.
    features_from : int
        Pictures shown before features count.
    features, strength : float
        Weights of the features of photos, and of the strength of detail.
    quantile : float
        The strength that is sought where it is uncertain: 0.5 for the median, more for stronger detail.
    single : float
        Share of the mixtures that are drawn from one w for all layers: the mean of their code's.
    noise : float
        Standard deviation of the noise on codes, as a share of theirs.
    ema : float
        Decay of the moving average of the weights, which is what is kept.
    precision : str
        ``"float32"`` or ``"mixed_bfloat16"``, which is faster on processors that know it.
    seed : int
    """

    images: int = 34_000
    batch: int = 8
    mixed: int = 4
    mixtures: int = 4_000
    scaled_rate: float = 0.01
    rate: float = 2e-3
    code_rate: float = 0.005
    constant: float = 0.25
    features_from: int = 24_000
    features: float = 0.2
    strength: float = 3.0
    quantile: float = 0.5
    single: float = 0.3
    noise: float = 0.05
    ema: float = 0.995
    precision: str = "float32"
    seed: int = 0


def missed_strength(
    drawn: tf.Tensor, pictures: tf.Tensor, weights: tf.Tensor, quantile: float = 0.5
) -> tf.Tensor:
    """How far the strength of detail is from that of pictures (n, h, w, c) around each place: scalar tensor.

    The pinball loss, twice: at 0.5 the mean absolute difference; more counts missing strength for more than surplus.
    `weights` of pixels have the shape (1, h, w, 1).
    """
    loss = 0.0
    for i, (ours, theirs) in enumerate(zip(strengths(drawn), strengths(pictures), strict=True)):
        importance = tf.nn.avg_pool2d(weights, NEIGHBOURHOOD << i, NEIGHBOURHOOD << i, "SAME")
        short = theirs - ours
        missed = 2 * tf.maximum(quantile * short, (quantile - 1) * short)
        loss += tf.reduce_mean(missed * importance) / tf.reduce_mean(importance)
    return loss


class AutoDecoder:
    """A training that can be stopped and continued.

    Parameters
    ----------
    photos : TrainingSet
    mixtures : Mixtures
        Of the training photos.
    synthesis : Synthesis
        Trained on in place.
    codes : ndarray, shape (2m, num_layers, w_dim)
        Where to start for the m training photos and, after them, their mirror images.
    settings : Settings

    Attributes
    ----------
    pictures : ndarray of uint8, shape (2m + mixtures, r, r, 1)
        All that is shown: photos, mirrored photos, mixtures.
    members : ndarray of int, shape (2m + mixtures, largest group)
    shares : ndarray of float32, shape (2m + mixtures, largest group)
        Whose codes, and how much of each, make the code of a picture; a photo is a group of one.
    """

    def __init__(
        self,
        photos: TrainingSet,
        mixtures: Mixtures,
        synthesis: Synthesis,
        codes: np.ndarray,
        settings: Settings,
    ):
        self.photos, self.synthesis, self.settings = photos, synthesis, settings
        own = ~photos.held_out
        self.people = np.tile(photos.people[own], 2)
        pictures = photos.pictures[own]
        side = pictures.shape[1]
        self.pictures = np.concatenate([pictures, pictures[:, :, ::-1], mixtures.pictures])
        shapes = photos.shapes[own]
        self.shapes = np.concatenate([shapes, shapes[:, MIRRORED] * [-1, 1] + [side - 1, 0]])
        alone = np.zeros((len(codes), mixtures.members.shape[1]), dtype=np.float32)
        alone[:, 0] = 1
        self.members = np.concatenate(
            [np.broadcast_to(np.arange(len(codes))[:, None], alone.shape), mixtures.members]
        )
        self.shares = np.concatenate([alone, mixtures.weights])
        self.codes = tf.Variable(codes, dtype=tf.float32)
        self.spread = float(np.std(codes - codes.mean(axis=0)))
        drawing = synthesis.trainable_variables
        scaled = [
            v
            for v in drawing
            if v.name.endswith("weight") and "Noise" not in v.name and "ToRGB" not in v.name
        ]
        names = {v.name for v in scaled}
        self.groups = {
            "scaled": ([v.value for v in scaled], settings.scaled_rate),
            "plain": ([v.value for v in drawing if v.name not in names], settings.rate),
            "codes": ([self.codes], settings.code_rate),
        }
        self.optimizers = {name: keras.optimizers.Adam(beta_2=0.99) for name in self.groups}
        for name, (variables, _) in self.groups.items():
            self.optimizers[name].build(variables)
        self.average = [tf.Variable(v.value, trainable=False) for v in drawing]
        self.weights = tf.constant(photos.weights()[None])
        self.seen, self.steps, self.seconds = 0, 0, 0.0
        self.log: list[tuple[int, float]] = []
        self._steps: dict = {}
        self._described: np.ndarray | None = None

    @property
    def descriptors(self) -> np.ndarray:
        """What the recogniser says of every training photo and its mirror image: (2m, 128)."""
        if self._described is None:
            parts = []
            for start in utils.progress(range(0, len(self.shapes), 32), "describing faces"):
                rows = slice(start, min(start + 32, len(self.shapes)))
                pictures = tf.constant(self.pictures[rows].astype(np.float32))
                parts.append(features.describe(pictures, features.chip_transforms(self.shapes[rows])).numpy())
            self._described = np.concatenate(parts)
        return self._described

    def codes_of(self, rows: np.ndarray, mirrored: np.ndarray | bool = False) -> np.ndarray:
        """Codes of pictures, or of their mirror images: float32 (n, num_layers, w_dim)."""
        codes = self.codes.numpy()
        members = (self.members[rows] + len(codes) // 2 * np.reshape(mirrored, (-1, 1))) % len(codes)
        return np.einsum("nk,nklw->nlw", self.shares[rows], codes[members])

    def _make_step(self, featured: bool):
        s, weights = self.settings, self.weights
        variables = [v for group, _ in self.groups.values() for v in group]

        @tf.function
        def step(members, shares, single, noise, pictures, transforms, wanted, ema):
            with tf.GradientTape() as tape:
                codes = tf.einsum("nk,nklw->nlw", shares, tf.gather(self.codes, members))
                codes = tf.where(single[:, None, None], tf.reduce_mean(codes, axis=1, keepdims=True), codes)
                drawn = self.synthesis(codes + noise, self.synthesis.stored_noise())
                loss = pyramid_loss(drawn - pictures, weights)
                total = loss + s.strength * missed_strength(drawn, pictures, weights, s.quantile)
                if featured:
                    found = features.describe((drawn[:FEATURED] + 1) * 127.5, transforms)
                    total += s.features * tf.reduce_mean(tf.norm(found - wanted + 1e-6, axis=1))
            gradients = [
                tf.convert_to_tensor(g) for g in tape.gradient(total, variables, unconnected_gradients="zero")
            ]
            for name, (group, _) in self.groups.items():
                own, gradients = gradients[: len(group)], gradients[len(group) :]
                if name != "codes":  # codes must not move less for a large step of the weights
                    own, _ = tf.clip_by_global_norm(own, 5.0)
                self.optimizers[name].apply_gradients(zip(own, group, strict=True))
            for kept, weight in zip(self.average, self.synthesis.trainable_variables, strict=True):
                kept.assign(ema * kept + (1 - ema) * weight.value)
            return loss

        return step

    def random_rows(self, random: np.random.Generator) -> np.ndarray:
        """Rows of a batch: photos of different people first, then mixtures."""
        s, n = self.settings, len(self.shapes)
        people = random.permutation(len(self.photos.identities))[: s.batch - s.mixed]
        photos = [random.choice(np.flatnonzero(self.people == person)) for person in people]
        mixtures = random.choice(len(self.pictures) - n, s.mixed, replace=False) + n
        return np.array([*photos, *mixtures], dtype=np.int64)

    def step(self) -> float:
        """Show one batch; returns the loss of its pictures."""
        s = self.settings
        random = np.random.default_rng([s.seed, self.steps])
        featured = self.seen >= s.features_from and s.features > 0
        if featured not in self._steps:
            self._steps[featured] = self._make_step(featured)
        rows = self.random_rows(random)
        transforms = wanted = np.zeros((0, 2, 3), dtype=np.float32)
        if featured:
            photos = rows[rows < len(self.shapes)][:FEATURED]
            transforms, wanted = features.chip_transforms(self.shapes[photos]), self.descriptors[photos]
        share = self.seen / s.images
        fall = 0.5 * (1 + np.cos(np.pi * np.clip((share - s.constant) / (1 - s.constant), 0, 1)))
        rate = min(1.0, (self.steps + 1) / 50) * (0.01 + 0.99 * fall)
        for name, (_, full) in self.groups.items():
            self.optimizers[name].learning_rate.assign(full * rate)
        single = (rows >= len(self.shapes)) & (random.random(len(rows)) < s.single)
        noise = random.normal(scale=s.noise * self.spread, size=(len(rows), *self.codes.shape[1:]))
        values = (
            self.members[rows], self.shares[rows], single, noise.astype(np.float32), to_signed(self.pictures[rows]),
            np.asarray(transforms, np.float32), np.asarray(wanted, np.float32),
            np.float32(min(s.ema, (1 + self.steps) / (10 + self.steps))),
        )  # fmt: skip
        loss = self._steps[featured](*map(tf.constant, values))
        self.seen += len(rows)
        self.steps += 1
        return float(loss)

    def train(self, checkpoint: Path, every_seconds: float = 120.0) -> None:
        """Train until enough photos are shown; Ctrl-C leaves a checkpoint to go on from."""
        written, losses = time.monotonic(), []
        bar = utils.progress(None, "training", total=self.settings.images)
        bar.update(self.seen)
        try:
            while self.seen < self.settings.images:
                started = time.monotonic()
                losses.append(self.step())
                bar.update(self.settings.batch)
                self.seconds += time.monotonic() - started
                if time.monotonic() - written > every_seconds:
                    self.log.append((self.seen, float(np.mean(losses))))
                    bar.set_postfix(loss=f"{self.log[-1][1]:.4f}")
                    self.save_checkpoint(checkpoint)
                    Image.fromarray(self.sheet()).save(checkpoint.with_suffix(".png"))
                    written, losses = time.monotonic(), []
        finally:
            bar.close()
            self.save_checkpoint(checkpoint)
            Image.fromarray(self.sheet()).save(checkpoint.with_suffix(".png"))

    def averaged(self) -> Synthesis:
        """The synthesis network with the averaged weights."""
        result = Synthesis(self.synthesis.architecture)
        result.load(self.synthesis.arrays())
        for variable, value in zip(result.trainable_variables, self.average, strict=True):
            variable.assign(value)
        return result

    def sheet(self, columns: int = 12) -> np.ndarray:
        """Photos and what is drawn of them, then mixtures as taught, and drawn in W+ and from one w: uint8 (h, w)."""
        network = self.averaged()
        n = len(self.shapes)
        photos = np.linspace(0, n // 2 - 1, columns).astype(int)
        sizes = (self.shares[n:] > 0).sum(axis=1)
        mixtures = n + np.argsort(sizes, kind="stable")[np.linspace(0, len(sizes) - 1, columns).astype(int)]
        mixed = self.codes_of(mixtures)
        single = np.broadcast_to(mixed.mean(axis=1, keepdims=True), mixed.shape)
        drawn = [
            np.asarray(network(tf.constant(codes), network.stored_noise()))
            for codes in (self.codes_of(photos), mixed, single)
        ]
        wanted = [to_signed(self.pictures[rows]) for rows in (photos, mixtures)]
        lines = [wanted[0], drawn[0], wanted[1], drawn[1], drawn[2]]
        return np.concatenate([np.concatenate(list(to_uint8(line[..., 0])), axis=1) for line in lines])

    def _state(self) -> dict:
        parts = {"codes": self.codes}
        for i, (kept, v) in enumerate(zip(self.average, self.synthesis.trainable_variables, strict=True)):
            parts |= {f"average{i}": kept, f"weight{i}": v}
        for name, optimizer in self.optimizers.items():
            parts |= {f"{name}{i}": v for i, v in enumerate(optimizer.variables)}
        return parts

    def save_checkpoint(self, path: Path) -> None:
        arrays = {name: np.asarray(v) for name, v in self._state().items()}
        utils.save_arrays(path, {**arrays, "counts": np.array([self.seen, self.steps, self.seconds])})

    def load_checkpoint(self, path: Path) -> None:
        """Go on from where a checkpoint was written, with settings that may differ."""
        arrays = utils.load_arrays(path)
        for name, variable in self._state().items():
            if arrays[name].shape != tuple(variable.shape):
                raise ValueError(f"{path}: is the checkpoint of another network or other photos")
            variable.assign(arrays[name])
        seen, steps, self.seconds = arrays["counts"]
        self.seen, self.steps = int(seen), int(steps)


# ----------------------------------------------------------------------------------------------------------
# After it: codes of further photos, an encoder, random people
# ----------------------------------------------------------------------------------------------------------

#: Steps for the codes of photos that the network was not trained on, their rate, and weight of the features.
FIT_STEPS, FIT_RATE, FIT_FEATURES = 40, 0.05, 0.2
#: Batches in which the encoder learns, pictures in each, the share of mixtures among them, and its rate.
ENCODER_STEPS, ENCODER_BATCH, ENCODER_MIXED, ENCODER_RATE = 1200, 16, 0.5, 1e-3
#: So many pictures of each batch are drawn from the codes that the encoder finds; the weight of their difference from
#: the pictures against that of codes, in units of their spread.
ENCODER_DRAWN, ENCODER_PIXELS = 4, 1.0
#: Random w spread so many times as widely as the photos', before the usual truncation by 0.7 draws them together.
SPREAD = 1.3


def fit_codes(
    synthesis: Synthesis, photos: TrainingSet, rows: np.ndarray, start: np.ndarray, batch: int = 16
) -> np.ndarray:
    """Find the codes of photos that the network was not trained on, the network staying as it is.

    Parameters
    ----------
    synthesis : Synthesis
    photos : TrainingSet
    rows : ndarray of int
        Of the photos.
    start : ndarray of float32, shape (len(rows), num_layers, w_dim)
        Codes to start from, such as an encoder's.
    batch : int, default 16

    Returns
    -------
    ndarray of float32, shape (len(rows), num_layers, w_dim)
    """
    weights, noise = tf.constant(photos.weights()[None]), synthesis.stored_noise()

    @tf.function(reduce_retracing=True)
    def gradient(codes, pictures, transforms, wanted):
        with tf.GradientTape() as tape:
            tape.watch(codes)
            drawn = synthesis(codes, noise)
            loss = tf.cast(tf.shape(codes)[0], tf.float32) * pyramid_loss(drawn - pictures, weights)
            found = features.describe((drawn + 1) * 127.5, transforms)
            loss += FIT_FEATURES * tf.reduce_sum(tf.norm(found - wanted + 1e-6, axis=1))
        return tape.gradient(loss, codes)

    result = np.empty_like(start, dtype=np.float32)
    for first in utils.progress(range(0, len(rows), batch), "fitting codes"):
        part = rows[first : first + batch]
        pictures = tf.constant(to_signed(photos.pictures[part]))
        transforms = tf.constant(features.chip_transforms(photos.shapes[part]))
        wanted = features.describe((pictures + 1) * 127.5, transforms)
        codes = tf.Variable(start[first : first + batch], dtype=tf.float32)
        optimizer = keras.optimizers.Adam(FIT_RATE, beta_2=0.99)
        for step in range(FIT_STEPS):
            optimizer.learning_rate.assign(FIT_RATE * 0.5 * (1 + np.cos(np.pi * step / FIT_STEPS)))
            optimizer.apply_gradients([(gradient(codes.value(), pictures, transforms, wanted), codes)])
        result[first : first + batch] = codes.numpy()
    return result


def learn_encoder(
    encoder: Encoder, synthesis: Synthesis, trainer: AutoDecoder, seed: int = 0, steps: int = ENCODER_STEPS
) -> None:
    """Teach an encoder the codes of training photos and mixtures, in place; the network stays as it is.

    Parameters
    ----------
    encoder : Encoder
    synthesis : Synthesis
    trainer : AutoDecoder
        With the pictures and their codes.
    seed, steps : int
    """
    n = len(trainer.shapes)
    codes = trainer.codes.numpy()
    spread = float(np.std(codes - codes.mean(axis=0)))
    weights, noise = trainer.weights, synthesis.stored_noise()
    model = build(encoder.sizes, trainer.settings.precision)
    model.set_weights(encoder.model.get_weights())
    variables = [v.value for v in model.trainable_variables]
    optimizer = keras.optimizers.Adam(ENCODER_RATE, beta_2=0.99)
    optimizer.build(variables)

    @tf.function
    def step(pictures, wanted):
        with tf.GradientTape() as tape:
            base, offsets = (tf.cast(part, tf.float32) for part in model(pictures, training=True))
            found = base[:, None] + offsets  # (n, layers, w_dim)
            loss = tf.reduce_mean(tf.abs(found - wanted)) / spread
            drawn = synthesis(found[:ENCODER_DRAWN], noise)
            loss += ENCODER_PIXELS * pyramid_loss(drawn - pictures[:ENCODER_DRAWN], weights)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 5.0)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    mixed = int(ENCODER_MIXED * ENCODER_BATCH)
    for number in utils.progress(range(steps), "teaching the encoder"):
        random = np.random.default_rng([seed, number])
        rows = np.concatenate(
            [random.choice(n, ENCODER_BATCH - mixed), random.integers(n, len(trainer.pictures), mixed)]
        )
        nowhere = np.zeros((len(rows), 68, 2))  # landmarks are not asked for
        pictures, _, mirrored = preparation.vary(trainer.pictures[rows], nowhere, random)
        optimizer.learning_rate.assign(
            ENCODER_RATE * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * number / steps)))
        )
        step(tf.constant(pictures), tf.constant(trainer.codes_of(rows, mirrored)))
    encoder.model.set_weights(model.get_weights())


def finish(trainer: AutoDecoder, encoder: Encoder, description: dict, out: Path) -> StyleNetwork:
    """Make network, encoder and codes of all photos, and write them: ``NAME.npz``, ``-encoder``, ``-codes``."""
    photos, synthesis, learnt = trainer.photos, trainer.averaged(), trainer.codes.numpy()
    m = len(learnt) // 2
    drawing = Synthesis(synthesis.architecture, synthesis.arrays(), dtype=trainer.settings.precision)
    learn_encoder(encoder, drawing, trainer, trainer.settings.seed)
    codes = np.empty((len(photos), *learnt.shape[1:]), dtype=np.float32)
    codes[~photos.held_out] = learnt[:m]
    held_out = np.flatnonzero(photos.held_out)
    if len(held_out):
        start = encoder.encode(to_signed(photos.pictures[held_out]))
        codes[held_out] = fit_codes(drawing, photos, held_out, start)
    mean = learnt[:m].mean(axis=1)  # (m, w_dim): one w for all layers
    mapping = fit_mapping(
        synthesis.architecture, mean.mean(axis=0) + SPREAD * (mean - mean.mean(axis=0)), trainer.settings.seed
    )
    training = {"settings": asdict(trainer.settings), "images_seen": trainer.seen}
    held_out_names = [str(photos.names[row]) for row in held_out]
    described = {**description, "training": {**training, "held_out": held_out_names}}
    average = learnt[:m].mean(axis=(0, 1)).astype(np.float32)
    network = StyleNetwork(mapping, synthesis, average, described)
    network.save(out, "float16")
    encoder.description = {"dataset": photos.source, "training": training}
    encoder.save(encoder_path(out), "float16")
    utils.save_arrays(
        out.with_name(f"{out.stem}-codes.npz"),
        {"names": np.array(photos.names), "codes": codes.astype(np.float16)},
    )
    return network


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``python -m stylegan refine`` takes."""
    parser.add_argument("source", help="'orl' or a folder of photos, as for train")
    parser.add_argument("start", type=Path, help="network to start from, NAME.npz, its encoder beside it")
    parser.add_argument(
        "--out", required=True, type=Path, help="file of weights; encoder and codes beside it"
    )
    parser.add_argument(
        "--held-out", type=int, default=2, help="photos of each person kept out (%(default)s)"
    )
    for setting in fields(Settings):
        parser.add_argument(
            f"--{setting.name.replace('_', '-')}", type=type(setting.default), default=setting.default,
            help="see stylegan.autodecoding.Settings (%(default)s)",
        )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="continue from NAME.checkpoint.npz")


def run(chosen: argparse.Namespace) -> None:
    """Go on training a network with a free code for each photo; Ctrl-C stops it, --resume goes on."""
    import datasets

    settings = Settings(**{setting.name: getattr(chosen, setting.name) for setting in fields(Settings)})
    checkpoint = chosen.out.with_suffix(".checkpoint.npz")
    network, encoder = load_npz(chosen.start), load_encoder(encoder_path(chosen.start))
    faces = datasets.load_faces(chosen.source)
    photos = preparation.prepare(faces, network.resolution, chosen.held_out, settings.seed)
    codes = _starting_codes(photos, encoder, chosen.start)
    mixtures = preparation.mix_people(photos, faces, settings.mixtures, random_state=settings.seed)
    synthesis = Synthesis(network.architecture, network.synthesis_layer.arrays(), dtype=settings.precision)
    trainer = AutoDecoder(photos, mixtures, synthesis, codes, settings)
    if chosen.resume:
        trainer.load_checkpoint(checkpoint)
    trainer.train(checkpoint)
    place = {"landmarks": photos.landmarks.round(3).tolist(), "frame": list(photos.frame)}
    finish(trainer, encoder, {"dataset": photos.source, **place}, chosen.out)
    print(f"{chosen.out}: {trainer.seen} photos shown in {trainer.seconds:.0f} s")


def _starting_codes(photos: TrainingSet, encoder: Encoder, network: Path) -> np.ndarray:
    """Codes of the training photos, kept beside the network or else its encoder's, and of their mirror images."""
    own = np.flatnonzero(~photos.held_out)
    pictures = to_signed(photos.pictures[own])
    codes = encoder.encode(np.concatenate([pictures, pictures[:, :, ::-1]]))
    kept = network.with_name(f"{network.stem}-codes.npz")
    if kept.is_file():
        arrays = utils.load_arrays(kept)
        known = dict(zip(map(str, arrays["names"]), arrays["codes"], strict=True))
        for place, row in enumerate(own):
            codes[place] = known.get(photos.names[row], codes[place])
    return codes
