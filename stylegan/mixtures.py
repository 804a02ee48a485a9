"""Train a network on mixed faces alone, so that it serves strangers and has seen no single person.

An active appearance model that is fitted to photos of some hundred people draws mixtures of 3 to 10 of them with random
weights. Each mixture is also varied in pose and expression (by moving its landmarks), in light, and in strength. No
member weighs more than `_LARGEST_SHARE`, so nobody has a majority in the detail that members share. A linear encoder
(`stylegan.appearance`) is fitted to the mixtures, and the network learns to draw them from their codes. Images are
compared in pixels, in the bands of a Laplacian pyramid, in the strength of their detail, and by the features of dlib's
recogniser.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from PIL import Image

import frame
import utils
from checks import Number, ParameterError
from datasets import Faces
from stylegan import features
from stylegan.appearance import AppearanceEncoder
from stylegan.architecture import Architecture, Synthesis, he_factor
from stylegan.augmentation import to_signed, to_square
from stylegan.encoder import encoder_path
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
from training.loop import Natural, Positive, Share, TrainingSettings, Weight
from training.losses import pyramid_loss
from training.training_set import TrainingSet, mirror_landmarks

# Sizes of the mixed groups; size k has a probability proportional to 1/k. The largest weight of a member.
_GROUP_SIZES, _LARGEST_SHARE = range(3, 11), 0.4
# A group is drawn from the people whose texture is nearest to a random person's: between the first and the second share
# of all people. Mixtures of people that look alike vary more, and have fewer patches of hair on the forehead.
_NEAREST = (0.03, 0.2)
# Pictures of each mixture.
_VARIANTS = 2
# Largest standard deviation of moved landmarks, relative to that of single people, and number of components moved.
_MOVE, _MOVED_COMPONENTS = 0.6, 12
# Range of the factor of the difference from the typical face: means of two people differ more, and have more detail,
# than mixtures do.
_EXAGGERATION = (0.9, 1.25)
# Standard deviations of the light: log gain, log ratio of red to blue, and slope across the frame in grey levels.
_GAIN, _WARMTH, _SLOPE = 0.08, 0.04, 7.0
# Share of the mixtures for the held-out loss, and the number that the encoder is fitted to.
_APART, _FITTED = 0.04, 3000
# Layers of the mapping network.
_MAPPING_LAYERS = 2
# Number of images per batch that are compared by their features.
_FEATURED = 4
# Mean codes are drawn up to the distance from the average of this share of the mixtures.
_REACH = 0.98
# Columns of the sheet of samples.
_COLUMNS = 12


@dataclass(frozen=True)
class MixtureSettings(TrainingSettings):
    """How to train on mixed faces; weights are relative to that of the pyramid loss. See `TrainingSettings`."""

    images: Annotated[Positive, "number of images to train on"] = 80_000
    batch: Annotated[Positive, "images in a batch"] = 8
    learning_rate: Annotated[float, Number(above=0, at_most=1), "largest rate of most weights"] = 2e-3
    ema: Annotated[float, Number(at_least=0, below=1), "decay of the moving average of the weights"] = 0.998
    evaluate_every: Annotated[Positive, "images between two rows of the log"] = 2_000
    faces: Annotated[Positive, "number of mixed faces to draw"] = 8_000
    people_apart: Annotated[Natural, "people held out from training"] = 0
    scaled_rate: Annotated[Weight, "largest learning rate of weights stored with variance 1"] = 2e-2
    constant: Annotated[Share, "share of images before the rates fall"] = 0.4
    strength: Annotated[Weight, "weight of the strength of detail"] = 1.0
    strength_from: Annotated[Natural, "images before the strength of detail counts"] = 8_000
    quantile: Annotated[Share, "target quantile of the strength where it is uncertain"] = 0.5
    features: Annotated[Weight, "weight of the features of dlib's recogniser"] = 0.2
    features_from: Annotated[Natural, "images before these features count"] = 20_000
    noise: Annotated[Weight, "standard deviation of noise on codes, relative to theirs"] = 0.03
    sharpen: Annotated[Natural, "further images at the end that sharpen"] = 6_000
    terms: Annotated[str, "words about the photos and their terms, to keep in the files"] = ""


class Teacher(Protocol):
    """An active appearance model, such as ``anonymizer.load("aam", faces)``."""

    faces: Faces
    fingerprint: str
    frame: frame.Frame
    reference: np.ndarray
    typical: np.ndarray

    def blend(self, members: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the shape (68, 2) and the texture (h, w, c) of a mixture."""

    def render(self, shape: np.ndarray, texture: np.ndarray) -> np.ndarray:
        """Draw a texture at a shape: uint8 (h, w, 3)."""


def random_shares(random: np.random.Generator, k: int) -> np.ndarray:
    """Draw weights of k >= 3 members that sum to 1, none above `_LARGEST_SHARE`: float64 (k,)."""
    while True:
        shares = random.dirichlet(np.full(k, 2.0))
        if shares.max() <= _LARGEST_SHARE:
            return shares


def draw_mixtures(teacher: Teacher, count: int, resolution: int, random_state: int = 0) -> TrainingSet:
    """Draw varied mixtures of the people that a teacher knows; they are cached.

    Parameters
    ----------
    teacher : Teacher
        Fitted to one photo of each of at least 10 people, in colour.
    count : int
    resolution : int
        Side of the pictures, r.
    random_state : int, default 0

    Returns
    -------
    TrainingSet
        ``pictures`` (count, r, r, 3); some are held out. Mixtures stand in the place of people.
    """
    n_people = len(teacher.faces)
    if n_people < max(_GROUP_SIZES) or teacher.typical.shape[2] != 3:
        raise ParameterError(
            f"mixtures need colour photos of at least {max(_GROUP_SIZES)} people, got {n_people} photos"
            + (" in grey" if teacher.typical.shape[2] != 3 else "")
        )
    width = min(resolution, round(resolution / teacher.frame.height * teacher.frame.width))
    place = (0, (resolution - width) // 2, resolution, width)

    def draw() -> dict[str, np.ndarray]:
        random, likeness = np.random.default_rng(random_state), _distances(teacher)
        pictures = np.empty((count, resolution, resolution, 3), dtype=np.uint8)
        shapes = np.empty((count, 68, 2))
        for i in utils.progress(range(count), "mixing faces"):
            if i % _VARIANTS == 0:
                mixed = _random_mixture(teacher, likeness, random)
            shape, texture = _varied(teacher, *mixed, random)
            picture = Image.fromarray(teacher.render(shape, texture))
            picture = picture.resize((width, resolution), Image.Resampling.LANCZOS)
            pictures[i] = to_square(np.asarray(picture), place, resolution)
            shapes[i] = _placed(shape, teacher, place)
            if random.random() < 0.5:
                pictures[i], shapes[i] = pictures[i, :, ::-1], mirror_landmarks(shapes[i], resolution)
        return {"pictures": pictures, "shapes": shapes}

    key = utils.content_key(
        teacher.fingerprint, count, resolution, random_state, utils.source_key(frame, __file__)
    )
    drawn = utils.cached_arrays("mixed_faces", key, draw)
    apart = np.arange(count) >= round((1 - _APART) * count)
    names = [f"mixture {i}" for i in range(count)]
    return TrainingSet(
        drawn["pictures"], np.arange(count), names, names, apart, drawn["shapes"], teacher.faces.source, place
    )


def _placed(shape: np.ndarray, teacher: Teacher, place: tuple[int, int, int, int]) -> np.ndarray:
    """Move a shape (68, 2) from the teacher's frame to its place on a picture."""
    top, left, height, width = place
    return (shape + 0.5) * [width / teacher.frame.width, height / teacher.frame.height] - 0.5 + [left, top]


def _random_mixture(
    teacher: Teacher, likeness: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mix a random group of people that look alike; return the shape (68, 2) and the texture (h, w, 3)."""
    sizes = np.array(_GROUP_SIZES)
    k = random.choice(sizes, p=1 / sizes / (1 / sizes).sum())
    # Draw the members among people that look alike.
    n = len(likeness)
    nearest = np.argsort(likeness[random.integers(n)])[: max(k, round(random.uniform(*_NEAREST) * n))]
    members = np.sort(random.choice(nearest, k, replace=False))
    return teacher.blend(members, random_shares(random, k))


def _distances(teacher: Teacher) -> np.ndarray:
    """Distance between the people's combined parameters of shape and texture: (n, n)."""
    rows = np.stack([teacher.encode(i) for i in range(len(teacher.faces))])
    squares = np.square(rows).sum(axis=1)
    return squares[:, None] + squares - 2 * rows @ rows.T


def _varied(
    teacher: Teacher, shape: np.ndarray, texture: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Change pose, expression, strength and light of a mixture at random; return shape and texture."""
    # Move the landmarks along the strongest components of shape.
    basis = teacher.shape_model.basis[:_MOVED_COMPONENTS]
    spread = _MOVE * random.random() * np.sqrt(teacher.shape_model.variances[:_MOVED_COMPONENTS])
    shape = shape + (random.normal(size=len(basis)) * spread @ basis).reshape(-1, 2)
    # Exaggerate the difference from the typical face. (h, w, 3)
    texture = teacher.typical + random.uniform(*_EXAGGERATION) * (texture - teacher.typical)
    # Change the light.
    height, width = texture.shape[:2]
    warmth = random.normal(scale=_WARMTH / 2)
    gains = np.exp(random.normal(scale=_GAIN) + np.array([warmth, 0, -warmth]))
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    slope = random.normal(scale=_SLOPE, size=2)
    texture = texture * gains + (slope[0] * x + slope[1] * y)[..., None]
    return shape, np.clip(texture, 0, 255).astype(np.float32)


class MixtureTrainer(SharpenedTraining):
    """Trains a synthesis network to draw mixed faces from their codes; see `SharpenedTraining`.

    Parameters
    ----------
    photos : TrainingSet
        Mixtures, from `draw_mixtures`.
    teacher : Teacher
        That drew them; the encoder warps faces to its reference shape.
    settings : MixtureSettings
    channels : sequence of int
        Feature maps at 4, 8, ... pixels.
    w_dim : int
    start : tuple of StyleNetwork and AppearanceEncoder, optional
        A network and its encoder to start from.

    Attributes
    ----------
    encoder : AppearanceEncoder
    codes : ndarray of float32, shape (n, w_dim)
        The w of each mixture.
    """

    open_settings = (*SharpenedTraining.open_settings, "terms")

    def __init__(
        self,
        photos: TrainingSet,
        teacher: Teacher,
        settings: MixtureSettings,
        channels: tuple[int, ...],
        w_dim: int,
        start: tuple[StyleNetwork, AppearanceEncoder] | None = None,
    ):
        keras.utils.set_random_seed(settings.seed)
        side = photos.pictures.shape[1]
        self.architecture = Architecture(side, tuple(channels), w_dim, w_dim, (w_dim,) * _MAPPING_LAYERS, 3)
        few = np.flatnonzero(~photos.held_out)[::_VARIANTS][:_FITTED]
        reference = _placed(teacher.reference, teacher, photos.frame)
        self.encoder = AppearanceEncoder.fit(
            to_signed(photos.pictures[few]), photos.shapes[few], reference, photos.frame, w_dim,
            self.architecture.num_layers,
        )  # fmt: skip
        self.codes = _encode(self.encoder, photos)
        self.spread = self.codes.std(axis=0)
        arrays = None if start is None else self._adapted(photos, *start)
        self.synthesis = Synthesis(self.architecture, arrays, dtype=settings.precision)
        self.average_synthesis = Synthesis(self.architecture, self.synthesis.arrays())
        groups = weight_groups(self.synthesis, settings.scaled_rate, settings.learning_rate)
        pairs = zip(
            self.average_synthesis.trainable_variables, self.synthesis.trainable_variables, strict=True
        )
        super().__init__(photos, settings, groups, pairs, settings.constant * settings.images)
        self.training_rows = np.flatnonzero(~photos.held_out)

    def _adapted(
        self, photos: TrainingSet, network: StyleNetwork, encoder: AppearanceEncoder
    ) -> dict[str, np.ndarray]:
        """Weights with which the new codes draw what the old codes drew; both are linear in a picture."""
        found, wanted = network.architecture, self.architecture
        for name in ("resolution", "channels", "colours"):
            if getattr(found, name) != getattr(wanted, name):
                raise ParameterError(
                    f"the network to start from must have {name} {getattr(wanted, name)}, got {getattr(found, name)}"
                )
        if not isinstance(encoder, AppearanceEncoder):
            raise ParameterError("the network to start from must have been trained on mixed faces")
        # Predict the old codes. (w_dim + 1, old w_dim)
        known = np.hstack([self.codes, np.ones((len(self.codes), 1))])
        predicted = np.linalg.lstsq(known, _encode(encoder, photos), rcond=None)[0]
        arrays, shapes = network.synthesis_layer.arrays(), self.architecture.synthesis_shapes()
        for name in [name for name in shapes if name.endswith("StyleMod/weight")]:
            style = arrays[name] * he_factor(arrays[name].shape, 1)  # (old w_dim, 2 * channels)
            arrays[name] = predicted[:-1] @ style / he_factor(shapes[name], 1)
            bias = name.replace("weight", "bias")
            arrays[bias] = arrays[bias] + predicted[-1] @ style
        return arrays

    def summary(self) -> str:
        """What it is trained on, in a line."""
        return f"{len(self.training_rows)} mixed faces, {self.photos.held_out.sum()} more held out"

    def phase(self) -> tuple[float, float, float]:
        """Weight of features; weight and target quantile of the strength of detail."""
        s = self.settings
        weight = s.features if self.seen >= s.features_from else 0.0
        if self.sharpened:
            return weight, *SHARP_DETAIL
        return weight, s.strength if self.seen >= s.strength_from else 0.0, s.quantile

    @cached_property
    def descriptors(self) -> np.ndarray:
        """The recogniser's descriptors of all mixtures: (n, 128)."""
        return features.describe_faces(self.photos.pictures, self.photos.shapes)

    def batch(self, random: np.random.Generator, weight: float, *strength: float) -> tuple:
        """Draw codes, with noise, and pictures; some of them with the places of faces and their features."""
        rows = random.choice(self.training_rows, self.settings.batch, replace=False)
        noise = self.settings.noise * self.spread * random.normal(size=(len(rows), len(self.spread)))
        codes, featured = (self.codes[rows] + noise).astype(np.float32), rows[: _FEATURED if weight else 0]
        transforms, wanted = np.zeros((0, 2, 3), dtype=np.float32), np.zeros((0, 128), dtype=np.float32)
        if len(featured):
            transforms = features.chip_transforms(self.photos.shapes[featured])
            wanted = self.descriptors[featured]
        return codes, to_signed(self.photos.pictures[rows]), transforms, wanted

    def loss(self, phase, codes, pictures, transforms, wanted):
        """Compare drawn images with the mixtures."""
        weight, strength, quantile = phase
        drawn = self.synthesis(self._broadcast(codes), self.synthesis.stored_noise())
        loss = total = pyramid_loss(drawn - pictures, self.weights)
        if strength:
            total += strength * strength_loss(strengths(drawn), strengths(pictures), self.weights, quantile)
        if weight:
            total += weight * tf.reduce_mean(features.distances(drawn, transforms, wanted))
        return loss, total

    def _broadcast(self, codes):
        return tf.repeat(codes[:, None], self.architecture.num_layers, axis=1)

    def _draw(self, rows: np.ndarray) -> np.ndarray:
        network = self.average_synthesis
        return network(self._broadcast(tf.constant(self.codes[rows])), network.stored_noise()).numpy()

    def held_out_loss(self) -> float:
        """Loss of the averaged network on the held-out mixtures; NaN if there are none."""
        rows, losses = np.flatnonzero(self.photos.held_out), []
        for part in np.split(rows, range(64, len(rows), 64)) if len(rows) else ():
            difference = self._draw(part) - to_signed(self.photos.pictures[part])
            losses.append(len(part) * float(pyramid_loss(difference, self.weights)))
        return sum(losses) / len(rows) if len(rows) else float("nan")

    def samples(self) -> list[np.ndarray]:
        """Draw mixtures, and what the network draws from their codes: training, then held out."""
        pictures = []
        for rows in (self.training_rows, np.flatnonzero(self.photos.held_out)):
            rows = rows[np.linspace(0, len(rows) - 1, _COLUMNS).astype(int)] if len(rows) else rows
            if len(rows):
                pictures += [self.photos.pictures[rows], to_uint8(self._draw(rows))]
        return pictures

    def save(self, out: Path) -> None:
        """Write the network, with a mapping network fitted to the codes, and its encoder."""
        network_description, encoder_description = describe_training(self)
        for description in (network_description, encoder_description):
            description["made_from"] = (
                f"mixtures of at least {min(_GROUP_SIZES)} people; no single person was shown"
            )
        learnt = self.codes[self.training_rows]
        average = learnt.mean(axis=0)
        network_description["reach"] = float(np.quantile(np.linalg.norm(learnt - average, axis=1), _REACH))
        mapping = fit_mapping(self.architecture, learnt, self.settings.seed)
        synthesis = Synthesis(self.architecture, self.average_synthesis.arrays())
        StyleNetwork(mapping, synthesis, average, network_description).save(out, "float16")
        replace(self.encoder, description=encoder_description).save(encoder_path(out), "float16")

    def state(self) -> dict[str, list]:
        """Variables in a checkpoint."""
        networks = (self.synthesis, self.average_synthesis)
        return super().state() | {
            "noise": [v for network in networks for v in network.non_trainable_variables]
        }


def _encode(encoder: AppearanceEncoder, photos: TrainingSet) -> np.ndarray:
    """The w of each picture: float32 (n, w_dim)."""
    parts = (slice(i, i + 500) for i in range(0, len(photos), 500))
    return np.concatenate(
        [encoder.encode(to_signed(photos.pictures[part]), photos.shapes[part])[:, 0] for part in parts]
    )


def people_apart(faces: Faces, count: int, seed: int) -> np.ndarray:
    """Draw the people that are held out from training: (count,) of ``faces.people``."""
    return utils.check_random_state(seed).permutation(faces.people)[:count]
