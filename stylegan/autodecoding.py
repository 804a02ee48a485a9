"""Train the synthesis network with a free W+ code for each photo; the codes are learnt along.

Bojanowski, Joulin, Lopez-Paz and Szlam, "Optimizing the latent space of generative networks", ICML 2018. An encoder in
the place of the free codes (`stylegan.training`) kept the pictures blurred: codes optimised one by one for its network
drew the same photos at half the error. Pictures are compared in pixels and in the bands of a Laplacian pyramid, and by
the features of dlib's recogniser; in the last part mixtures of people's codes are drawn along, which shall be, blurred,
what the mixture of the photos is, with detail as strong as theirs, and with the mean of their features.
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
from stylegan.encoder import Encoder, load_encoder
from stylegan.network import StyleNetwork, load_npz, to_uint8
from stylegan.photos import TrainingSet, to_signed
from stylegan.training import BLURRED, NEIGHBOURHOOD, encoder_path, fit_mapping, mixing_weights, strengths

#: Photos of a batch that are compared by their features, beside the mixtures.
FEATURED = 4
#: Mixtures drawn beside each batch.
MIXTURES = 4


@dataclass(frozen=True)
class Settings:
    """How to train; weights of the loss are against 1 for the pyramid.

    Attributes
    ----------
    images : int
        Stop after so many photos shown.
    batch : int
    scaled_rate, rate, code_rate : float
        Adam's rates for weights that are stored with variance 1, for all others, and for codes.
    constant : float
        Share of the images after which the rates fall by a half cosine to a hundredth.
    features_from, mixed_from : int
        Photos shown before features, and mixtures, count.
    features, strength, blurred : float
    noise : float
        Standard deviation of the noise on codes, as a share of theirs.
    ema : float
        Decay of the moving average of the weights, which is what is kept.
    seed : int
    """

    images: int = 60_000
    batch: int = 16
    scaled_rate: float = 0.01
    rate: float = 2e-3
    code_rate: float = 0.01
    constant: float = 0.4
    features_from: int = 20_000
    mixed_from: int = 30_000
    features: float = 0.3
    strength: float = 0.5
    blurred: float = 1.0
    noise: float = 0.05
    ema: float = 0.995
    seed: int = 0


class AutoDecoder:
    """A training that can be stopped and continued.

    Parameters
    ----------
    photos : TrainingSet
    synthesis : Synthesis
        Trained on in place.
    codes : ndarray, shape (2m, num_layers, w_dim)
        Where to start for the m training photos and, after them, their mirror images.
    settings : Settings
    """

    def __init__(self, photos: TrainingSet, synthesis: Synthesis, codes: np.ndarray, settings: Settings):
        self.photos, self.synthesis, self.settings = photos, synthesis, settings
        own = ~photos.held_out
        self.people = np.tile(photos.people[own], 2)
        pictures = photos.pictures[own]
        side = pictures.shape[1]
        self.pictures = np.concatenate([pictures, pictures[:, :, ::-1]])
        shapes = photos.shapes[own]
        self.shapes = np.concatenate([shapes, shapes[:, MIRRORED] * [-1, 1] + [side - 1, 0]])
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
            for start in utils.progress(range(0, len(self.pictures), 32), "describing faces"):
                rows = slice(start, start + 32)
                pictures = tf.constant(self.pictures[rows].astype(np.float32))
                parts.append(features.describe(pictures, features.chip_transforms(self.shapes[rows])).numpy())
            self._described = np.concatenate(parts)
        return self._described

    def _make_step(self, mixed: bool, featured: bool):
        s, weights = self.settings, self.weights
        variables = [v for group, _ in self.groups.values() for v in group]

        def on_mixtures(mixtures, pictures, mixing):
            shrink = (BLURRED, BLURRED, "SAME")
            wanted = tf.einsum("mn,nhwc->mhwc", mixing, tf.nn.avg_pool2d(pictures, *shrink))
            coarse = tf.nn.avg_pool2d(weights, *shrink)
            difference = tf.abs(tf.nn.avg_pool2d(mixtures, *shrink) - wanted)
            loss = s.blurred * tf.reduce_mean(difference * coarse) / tf.reduce_mean(coarse)
            for i, (ours, theirs) in enumerate(zip(strengths(mixtures), strengths(pictures), strict=True)):
                side = NEIGHBOURHOOD << i
                importance = tf.nn.avg_pool2d(weights, side, side, "SAME")
                difference = tf.abs(ours - tf.einsum("mn,nhwc->mhwc", mixing, theirs))
                loss += s.strength * tf.reduce_mean(difference * importance) / tf.reduce_mean(importance)
            return loss

        def on_features(drawn, wanted, mixing, transforms):
            n = tf.shape(wanted)[0]
            few = tf.minimum(FEATURED, n)
            chosen, places, targets = drawn[:few], transforms[:few], wanted[:few]
            if mixed:  # the mean of descriptors is shorter than any of them
                length = tf.reduce_mean(tf.norm(wanted, axis=1))
                centres = tf.linalg.normalize(tf.matmul(mixing, wanted), axis=1)[0] * length
                chosen = tf.concat([chosen, drawn[n:]], axis=0)
                places = tf.concat([places, transforms[n:]], axis=0)
                targets = tf.concat([targets, centres], axis=0)
            found = features.describe((chosen + 1) * 127.5, places)
            return tf.reduce_mean(tf.norm(found - targets + 1e-6, axis=1))

        @tf.function
        def step(rows, pictures, noise, mixing, transforms, wanted, ema):
            with tf.GradientTape() as tape:
                codes = tf.gather(self.codes, rows)
                shown = codes + noise
                if mixed:
                    shown = tf.concat([shown, tf.einsum("mn,nlw->mlw", mixing, codes)], axis=0)
                drawn = self.synthesis(shown, self.synthesis.stored_noise())
                n = tf.shape(pictures)[0]
                loss = pyramid_loss(drawn[:n] - pictures, weights)
                total = loss
                if mixed:
                    total += on_mixtures(drawn[n:], pictures, mixing)
                if featured:
                    total += s.features * on_features(drawn, wanted, mixing, transforms)
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

    def step(self) -> float:
        """Show one batch; returns the loss of its pictures."""
        s = self.settings
        random = np.random.default_rng([s.seed, self.steps])
        phase = (self.seen >= s.mixed_from, self.seen >= s.features_from and s.features > 0)
        if phase not in self._steps:
            self._steps[phase] = self._make_step(*phase)
        people = random.permutation(len(self.photos.identities))[: s.batch]
        rows = np.array([random.choice(np.flatnonzero(self.people == person)) for person in people])
        mixing = mixing_weights(len(rows), MIXTURES, random)
        transforms = wanted = np.zeros((0, 2, 3), dtype=np.float32)
        if phase[1]:
            shapes = self.shapes[rows]
            shapes = np.concatenate([shapes, np.einsum("mn,npj->mpj", mixing, shapes)])
            transforms, wanted = features.chip_transforms(shapes), self.descriptors[rows]
        share = self.seen / s.images
        fall = 0.5 * (1 + np.cos(np.pi * np.clip((share - s.constant) / (1 - s.constant), 0, 1)))
        rate = min(1.0, (self.steps + 1) / 50) * (0.01 + 0.99 * fall)
        for name, (_, full) in self.groups.items():
            self.optimizers[name].learning_rate.assign(full * rate)
        noise = random.normal(scale=s.noise * self.spread, size=(len(rows), *self.codes.shape[1:]))
        values = (
            rows, to_signed(self.pictures[rows]), noise.astype(np.float32), mixing.astype(np.float32),
            np.asarray(transforms, np.float32), np.asarray(wanted, np.float32),
            np.float32(min(s.ema, (1 + self.steps) / (10 + self.steps))),
        )  # fmt: skip
        loss = self._steps[phase](*map(tf.constant, values))
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
        """Photos, what is drawn of them, and mixtures of 2, 3, ... people: uint8 (h, w)."""
        network = self.averaged()
        m = self.codes.shape[0] // 2
        rows = np.linspace(0, m - 1, columns).astype(int)
        codes = self.codes.numpy()
        means = np.stack(
            [codes[rows[: i + 1]].mean(axis=0) for i in range(1, columns)] + [codes[:m].mean(axis=0)]
        )
        pairs = (codes[rows] + codes[np.roll(rows, 5)]) / 2
        drawn = [
            np.asarray(network(tf.constant(c), network.stored_noise())) for c in (codes[rows], pairs, means)
        ]
        lines = [to_signed(self.pictures[rows]), *drawn]
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
FIT_STEPS, FIT_RATE, FIT_FEATURES = 100, 0.05, 0.3
#: Batches in which the encoder learns, and its rate.
ENCODER_STEPS, ENCODER_RATE = 1500, 1e-3
#: Random w spread so many times as widely as the photos', as the usual truncation by 0.7 draws them together again.
SPREAD = 1.45
#: Weight of the difference of pixels against that of codes, in units of their spread, for the encoder.
ENCODER_PIXELS = 1.0


def fit_codes(
    synthesis: Synthesis, photos: TrainingSet, rows: np.ndarray, known: np.ndarray, batch: int = 16
) -> np.ndarray:
    """Find the codes of photos that the network was not trained on, the network staying as it is.

    Parameters
    ----------
    synthesis : Synthesis
    photos : TrainingSet
    rows : ndarray of int
        Of the photos.
    known : ndarray of float32, shape (m, num_layers, w_dim)
        Codes of the training photos. Each photo starts from that of the training photo with the least different pixels,
        whoever is on it.
    batch : int, default 16

    Returns
    -------
    ndarray of float32, shape (len(rows), num_layers, w_dim)
    """
    training = np.flatnonzero(~photos.held_out)
    weights = tf.constant(photos.weights()[None])
    flat = (photos.pictures * np.sqrt(photos.weights())).reshape(len(photos.pictures), -1).astype(np.float32)
    nearest = np.array([np.abs(flat[training] - flat[row]).sum(axis=1).argmin() for row in rows])
    noise = synthesis.stored_noise()

    @tf.function(reduce_retracing=True)
    def gradient(codes, pictures, transforms, wanted):
        with tf.GradientTape() as tape:
            tape.watch(codes)
            drawn = synthesis(codes, noise)
            loss = tf.cast(tf.shape(codes)[0], tf.float32) * pyramid_loss(drawn - pictures, weights)
            found = features.describe((drawn + 1) * 127.5, transforms)
            loss += FIT_FEATURES * tf.reduce_sum(tf.norm(found - wanted + 1e-6, axis=1))
        return tape.gradient(loss, codes)

    result = np.empty((len(rows), *known.shape[1:]), dtype=np.float32)
    for start in utils.progress(range(0, len(rows), batch), "fitting codes"):
        part = rows[start : start + batch]
        pictures = tf.constant(to_signed(photos.pictures[part]))
        transforms = tf.constant(features.chip_transforms(photos.shapes[part]))
        wanted = features.describe((pictures + 1) * 127.5, transforms)
        codes = tf.Variable(known[nearest[start : start + batch]])
        optimizer = keras.optimizers.Adam(FIT_RATE, beta_2=0.99)
        for step in range(FIT_STEPS):
            optimizer.learning_rate.assign(FIT_RATE * 0.5 * (1 + np.cos(np.pi * step / FIT_STEPS)))
            optimizer.apply_gradients([(gradient(codes.value(), pictures, transforms, wanted), codes)])
        result[start : start + batch] = codes.numpy()
    return result


def learn_encoder(
    encoder: Encoder,
    synthesis: Synthesis,
    photos: TrainingSet,
    codes: np.ndarray,
    seed: int = 0,
    steps: int = ENCODER_STEPS,
) -> None:
    """Teach an encoder the codes of the training photos and their mirror images, in place; the network stays as it is.

    Parameters
    ----------
    encoder : Encoder
    synthesis : Synthesis
    photos : TrainingSet
    codes : ndarray, shape (2m, num_layers, w_dim)
        As `AutoDecoder.codes`.
    seed, steps : int
    """
    own = np.flatnonzero(~photos.held_out)
    spread = float(np.std(codes - codes.mean(axis=0)))
    weights, noise = tf.constant(photos.weights()[None]), synthesis.stored_noise()
    variables = [v.value for v in encoder.model.trainable_variables]
    optimizer = keras.optimizers.Adam(ENCODER_RATE, beta_2=0.99)
    optimizer.build(variables)

    @tf.function
    def step(pictures, wanted):
        with tf.GradientTape() as tape:
            base, offsets = encoder.model(pictures, training=True)
            found = base[:, None] + offsets
            loss = tf.reduce_mean(tf.abs(found - wanted)) / spread
            loss += ENCODER_PIXELS * pyramid_loss(synthesis(found, noise) - pictures, weights)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 5.0)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    for number in utils.progress(range(steps), "teaching the encoder"):
        random = np.random.default_rng([seed, number])
        places = random.choice(len(own), 16, replace=False)
        pictures, _, mirrored = preparation.vary(
            photos.pictures[own[places]], photos.shapes[own[places]], random
        )
        optimizer.learning_rate.assign(
            ENCODER_RATE * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * number / steps)))
        )
        step(tf.constant(pictures), tf.constant(codes[places + len(own) * mirrored].astype(np.float32)))


def finish(trainer: AutoDecoder, encoder: Encoder, description: dict, out: Path) -> StyleNetwork:
    """Make network, encoder and codes of all photos, and write them: ``NAME.npz``, ``-encoder``, ``-codes``."""
    photos, synthesis, learnt = trainer.photos, trainer.averaged(), trainer.codes.numpy()
    m = len(learnt) // 2
    codes = np.empty((len(photos), *learnt.shape[1:]), dtype=np.float32)
    codes[~photos.held_out] = learnt[:m]
    held_out = np.flatnonzero(photos.held_out)
    if len(held_out):
        codes[held_out] = fit_codes(synthesis, photos, held_out, learnt[:m])
    learn_encoder(encoder, synthesis, photos, learnt, trainer.settings.seed)
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
    own = to_signed(photos.pictures[~photos.held_out])
    codes = encoder.encode(np.concatenate([own, own[:, :, ::-1]]))
    trainer = AutoDecoder(photos, network.synthesis_layer, codes, settings)
    if chosen.resume:
        trainer.load_checkpoint(checkpoint)
    trainer.train(checkpoint)
    place = {"landmarks": photos.landmarks.round(3).tolist(), "frame": list(photos.frame)}
    finish(trainer, encoder, {"dataset": photos.source, **place}, chosen.out)
    print(f"{chosen.out}: {trainer.seen} photos shown in {trainer.seconds:.0f} s")
