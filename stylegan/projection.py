"""Project photos to W+ codes that reproduce them, by gradient descent through the network.

Abdal, Qin and Wonka, "Image2StyleGAN: how to embed images into the StyleGAN latent space?", ICCV 2019, search a
separate code for each layer. The schedule of learning rate and noise follows Karras et al., "Analyzing and improving
the image quality of StyleGAN", CVPR 2020, appendix D. `ProjectionSettings` defines the loss; `code_folder` writes the
codes of a set of photos to files.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd

import detection
import utils
from checks import Number, ParameterError, check_array, check_fields, check_known, check_number
from datasets import Faces
from stylegan import alignment, features
from stylegan.alignment import AlignedPhotos
from stylegan.network import StyleNetwork
from training.backend import tf
from training.training_set import face_weights

# Number of random people for measuring the spread of w.
_SPREAD_SAMPLES = 4096
# Weight of pixels that a photo does not cover, relative to 1 on the face.
_UNSEEN = 0.02
# The smallest scale at which images are compared, in pixels.
_SMALLEST_SCALE = 8
# Steps between two rows of the trace, computed in one call.
_STRIDE = 10
# Seconds between saves of unfinished work.
_SAVE_SECONDS = 60.0
# Decay rates of Adam's two moving averages.
_MOMENTUM, _SECOND_MOMENTUM = 0.9, 0.999
# The state of a search: the codes, Adam's averages, and the best codes so far.
_MOVING = ("codes", "slope", "square", "best", "best_loss")

_Weight = Annotated[float, Number(at_least=0)]


@dataclass(frozen=True)
class ProjectionSettings:
    """Settings of the search for codes.

    A code is w = average + spread * u for each layer; spread is the standard deviation of a value of w over random
    people, so that steps, noise and pull have the same scale for every network. The loss of each photo is::

        pixels * L1 + descriptors * |d - d'|^2 + pull * mean(u^2) + one_code * mean((u - mean over layers)^2)

    where L1 is the mean absolute difference of drawn image and photo over several scales, weighted by
    `training.training_set.face_weights`, and d, d' are their face descriptors (`features.descriptor_network`).

    Attributes
    ----------
    n_steps : int
    step : float
        Adam's step in units of spread: it rises during the first 5 % and decays to 0 as a half cosine in the last 25 %.
    noise : float
        Initial noise on u; it decays to 0 quadratically within the first 75 %.
    pixels, descriptors, pull : float
        Weights. Descriptors cost about 5 ms per image and step on two idle cores. A larger weight on them worsens the
        fit of the pixels, and hardly brings separately computed descriptors closer.
    one_code : float
        Weight of the pull towards one w for all layers; it decays to 0 within the first half.
    seed : int
        Seed of the noise.

    Raises
    ------
    ParameterError
        For values out of range, or if neither pixels nor descriptors have a weight.
    """

    n_steps: Annotated[int, Number(int, at_least=1)] = 300
    step: Annotated[float, Number(above=0)] = 0.2
    noise: _Weight = 0.05
    pixels: _Weight = 1.0
    descriptors: _Weight = 0.2
    pull: _Weight = 0.002
    one_code: _Weight = 0.1
    seed: Annotated[int, Number(int, at_least=0, below=2**31)] = 0

    def __post_init__(self):
        check_fields(self)
        if self.pixels == 0 and self.descriptors == 0:
            raise ParameterError("pixels or descriptors must have a weight above 0, got 0 for both")


@dataclass(frozen=True, eq=False)
class Projection:
    """Codes of photos.

    Attributes
    ----------
    codes : ndarray of float32, shape (n, num_layers, w_dim)
        NaN for photos without a face.
    found : ndarray of bool, shape (n,)
        Whether a face was found in the photo; other photos are not projected.
    trace : DataFrame
        One row for every tenth step of each photo: ``photo step loss pixels descriptors distance``; `pixels` is the L1
        term, `descriptors` the distance of descriptors (NaN where these have no weight), `distance` that of the code
        from the average in units of the spread (root mean square).
    """

    codes: np.ndarray
    found: np.ndarray
    trace: pd.DataFrame


def project(
    network: StyleNetwork,
    photos: Faces | Sequence[np.ndarray],
    *,
    encoder=None,
    start: np.ndarray | None = None,
    batch: int | None = None,
    **settings,
) -> Projection:
    """Find W+ codes of photos.

    A warning names the photos without a face, which get no code. In photos of several faces the largest is projected.

    Parameters
    ----------
    network : StyleNetwork
    photos : Faces or sequence of n uint8 arrays (h, w, 3)
        Photos of any size; they are aligned first, see `alignment.align`.
    encoder : Encoder, optional
        Provides the initial codes; by default the search starts from the network's average.
    start : array, shape (n, num_layers, w_dim), optional
        Codes to start from, instead of an encoder's.
    batch : int, optional
        Photos per batch; by default as many as fill the area of one 512 x 512 image, at most 16.
    **settings
        Fields of `ProjectionSettings`: ``n_steps``, ``step``, ``noise``, ``pixels``, ``descriptors``, ``pull``,
        ``one_code``, ``seed``.

    Returns
    -------
    Projection
        The same photos, start, batch and settings give the same codes on the same machine.

    Raises
    ------
    TypeError, ValueError
        For invalid photos or settings, an encoder or start that does not match the network, or if no photo shows a
        face.

    Notes
    -----
    The same call resumes an interrupted one: unfinished work is saved to the cache every minute.

    Examples
    --------
    >>> import datasets, stylegan
    >>> from stylegan import projection
    >>> network = stylegan.load_network()
    >>> faces = datasets.load_faces("orl", per_identity=1).select(slice(0, 2))
    >>> projection.project(network, faces, n_steps=50).codes.shape
    (2, 12, 128)
    """
    projector = Projector(network, batch, **settings)
    faces = photos if isinstance(photos, Faces) else Faces.of(photos)
    detections = detect_faces(faces)
    if encoder is not None and start is not None:
        raise ParameterError("give an encoder or codes to start from, not both")
    shape = (len(faces), network.num_layers, network.w_dim)
    if start is not None:
        start = check_array("start", start, shape)
    missed = faces.names[~detections.found]
    if len(missed):
        listed = ", ".join(missed[:5]) + (" ..." if len(missed) > 5 else "")
        warnings.warn(
            f"no face was found in {len(missed)} of {len(faces)} photos, which get no code: {listed}",
            stacklevel=2,
        )
    codes = np.full(shape, np.nan, dtype=np.float32)
    traces, rows = [], np.flatnonzero(detections.found)
    for chosen, fitted, trace in projector.fit_photos(faces, detections.landmarks, rows, encoder, start):
        codes[chosen] = fitted
        traces.append(trace)
    return Projection(codes, detections.found.copy(), pd.concat(traces, ignore_index=True))


def detect_faces(faces: Faces) -> detection.Detections:
    """Detect the faces to project; raise ValueError if no photo shows one."""
    detections = detection.detect(faces)
    if not detections.found.any():
        raise ValueError(f"no face was found in any of the {len(faces)} photos; use photos of frontal faces")
    return detections


def spread_of(network: StyleNetwork) -> float:
    """Standard deviation of a value of w around the average, over random people and all values."""
    z = utils.check_random_state(0).randn(_SPREAD_SAMPLES, network.z_dim)
    w = network.mapping(z)[:, 0]
    return max(float(np.sqrt(np.mean((w - network.average) ** 2))), 1e-6)


def _default_batch(resolution: int) -> int:
    """Number of images to fit at once: the area of one 512 x 512 image, and at most 16."""
    return int(np.clip(512**2 // resolution**2, 1, 16))


class Projector:
    """The search for codes, compiled once for a network and a batch size.

    Parameters
    ----------
    network : StyleNetwork
    batch : int, optional
        See `project`.
    **settings
        See `ProjectionSettings`.
    """

    def __init__(self, network: StyleNetwork, batch: int | None = None, **settings):
        batch = _default_batch(network.resolution) if batch is None else batch
        self.batch = int(check_number("batch", batch, int, at_least=1))
        for name in settings:
            check_known("setting", name, [field.name for field in fields(ProjectionSettings)])
        self.network, self.settings = network, ProjectionSettings(**settings)
        self.spread = spread_of(network)
        a = network.architecture
        codes, images = (self.batch, a.num_layers, a.w_dim), (self.batch, a.resolution, a.resolution)
        shapes = {
            **dict.fromkeys(("codes", "slope", "square", "best"), codes),
            "best_loss": (self.batch,),
            "target": (*images, a.colours),
            "weights": (*images, 1),
            "transforms": (self.batch, 2, 3),
            "wanted": (self.batch, features.N_VALUES),
        }
        self.state = {name: tf.Variable(tf.zeros(shape), trainable=False) for name, shape in shapes.items()}
        self._compiled: dict[
            int, Callable
        ] = {}  # by the number of times images are halved for the descriptor

    def fit_photos(
        self,
        faces: Faces,
        landmarks: np.ndarray,
        rows: np.ndarray,
        encoder=None,
        start: np.ndarray | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray, pd.DataFrame]]:
        """Align and project some photos, batch by batch.

        Parameters
        ----------
        faces : Faces
        landmarks : ndarray, shape (n, 68, 2)
        rows : ndarray of int
            The photos to project.
        encoder, start : optional
            See `project`.

        Yields
        ------
        rows, codes, trace
            Results of one batch; see `Projection`.
        """
        with utils.progress(None, "projecting (steps)", total=len(rows) * self.settings.n_steps) as bar:
            for first in range(0, len(rows), self.batch):
                chosen = rows[first : first + self.batch]
                aligned = alignment.align([faces.images[i] for i in chosen], landmarks[chosen], self.network)
                codes = None if start is None else start[chosen]
                if encoder is not None:
                    try:
                        codes = self.network.check_codes(encoder.encode(aligned.images, aligned.landmarks))
                    except ValueError as error:
                        raise ValueError(f"the encoder does not match this network ({error})") from error
                codes, trace = self.fit(aligned, codes, bar.update)
                yield chosen, codes, trace.assign(photo=chosen[trace["photo"]])

    def fit(
        self,
        aligned: AlignedPhotos,
        start: np.ndarray | None = None,
        on_steps: Callable[[int], object] | None = None,
    ) -> tuple[np.ndarray, pd.DataFrame]:
        """Find the codes of at most `batch` aligned photos.

        Parameters
        ----------
        aligned : AlignedPhotos
        start : array, shape (n, num_layers, w_dim), optional
            The network's average by default.
        on_steps : callable, optional
            Called with the number of steps just made, multiplied by the number of photos.

        Returns
        -------
        codes : ndarray of float32, shape (n, num_layers, w_dim)
            The codes with the smallest loss during the search (without the term of `one_code`).
        trace : DataFrame
            See `Projection`; `photo` numbers the photos of this batch.

        Raises
        ------
        ValueError
            For too many photos, images or a start that do not match the network, or if the search diverges.
        """
        network, n, n_steps = self.network, len(aligned), self.settings.n_steps
        check_number("number of photos", n, int, at_least=1, at_most=self.batch)
        check_array("aligned images", aligned.images, (n, *self.state["target"].shape[1:]))
        shape = (n, network.num_layers, network.w_dim)
        start = (
            np.broadcast_to(network.average, shape) if start is None else check_array("start", start, shape)
        )
        # Initialise the state, or restore it from an interrupted search.
        transforms = features.chip_transforms(aligned.landmarks)
        n_halvings = features.halvings(transforms)
        self._fill(aligned, transforms, n_halvings, start)
        saved_path = self._saved_path(aligned, start)
        rows = self._restore(saved_path)
        # Make the steps, a stride at a time.
        advance = self._advance(n_halvings)
        done, saved = len(rows) * _STRIDE, time.monotonic()
        if on_steps and done:
            on_steps(done * n)
        while done < n_steps:
            count = min(_STRIDE, n_steps - done)
            terms = advance(tf.constant(done), tf.constant(count)).numpy()  # (4, batch)
            done += count
            if not np.isfinite(terms[0]).all():
                raise ValueError(
                    f"the search diverged before step {done}; use a smaller step, or check the network"
                )
            rows.append(np.column_stack([np.full(self.batch, done), terms.T]))
            if on_steps:
                on_steps(count * n)
            if time.monotonic() - saved > _SAVE_SECONDS and done < n_steps:
                arrays = {name: self.state[name].numpy() for name in _MOVING}
                utils.save_arrays(saved_path, {**arrays, "rows": np.stack(rows)})
                saved = time.monotonic()
        codes = network.average + self.spread * self.state["best"].numpy()[:n]
        saved_path.unlink(missing_ok=True)
        return codes.astype(np.float32), self._trace(rows, n)

    def _fill(
        self, aligned: AlignedPhotos, transforms: np.ndarray, n_halvings: int, start: np.ndarray
    ) -> None:
        """Initialise the state; the last photo is repeated to fill a short batch."""
        side, s = self.network.resolution, self.state
        # Weight pixels by face and visibility, with mean 1. (n, side, side, 1)
        weights = [face_weights(points, side, side) for points in aligned.landmarks]
        weights = np.stack(weights) * np.where(aligned.visible, 1.0, _UNSEEN)[..., None]
        weights /= weights.mean(axis=(1, 2, 3), keepdims=True)
        # Express codes in units of the spread. (n, num_layers, w_dim)
        u = (start - self.network.average) / self.spread
        # Assign the photos' values and reset the averages. (batch, ...)
        rows = np.minimum(np.arange(self.batch), len(aligned) - 1)
        filled = {"codes": u, "best": u, "weights": weights, "transforms": transforms}
        for name, values in (filled | {"target": aligned.images}).items():
            s[name].assign(values[rows].astype(np.float32))
        for name in ("slope", "square", "wanted"):
            s[name].assign(tf.zeros_like(s[name]))
        s["best_loss"].assign(tf.fill((self.batch,), math.inf))
        if self.settings.descriptors > 0:
            s["wanted"].assign(self._describe(s["target"], n_halvings))

    @cached_property
    def _fingerprint(self) -> str:
        """Key of everything except the photos that the result depends on."""
        code = utils.source_key(__file__)
        return utils.content_key(self.network.arrays(), asdict(self.settings), self.batch, code)

    def _saved_path(self, aligned: AlignedPhotos, start: np.ndarray) -> Path:
        """The file with the unfinished work of a search."""
        photos = (aligned.images, aligned.landmarks, aligned.visible)
        key = utils.content_key(self._fingerprint, *photos, start)
        return utils.cache_folder("projection") / f"{key}.npz"

    def _restore(self, path: Path) -> list[np.ndarray]:
        """Restore saved work; return the rows of the trace so far, empty if nothing usable was saved."""
        try:
            arrays = utils.load_arrays(path)
            shapes_fit = all(arrays[name].shape == tuple(self.state[name].shape) for name in _MOVING)
            if not shapes_fit or arrays["rows"].shape[1:] != (self.batch, 5):
                return []
        except (FileNotFoundError, KeyError, ValueError):  # missing or damaged
            return []
        for name in _MOVING:
            self.state[name].assign(arrays[name])
        return list(arrays["rows"])

    def _describe(self, images: tf.Tensor, n_halvings: int) -> tf.Tensor:
        """Face descriptors of images in -1..1: (n, 128)."""
        return features.describe((images + 1) * 127.5, self.state["transforms"], n_halvings)

    def _advance(self, n_halvings: int) -> Callable:
        """A compiled function that makes some steps and returns loss, pixels, descriptors, distance: (4, batch)."""
        if n_halvings not in self._compiled:

            def advance(first, count):
                return tf.while_loop(
                    lambda number, terms: number < first + count,
                    lambda number, terms: (number + 1, self._step(number, n_halvings)),
                    (first, tf.zeros((4, self.batch))),
                )[1]

            signature = [tf.TensorSpec((), tf.int32)] * 2
            self._compiled[n_halvings] = tf.function(advance, input_signature=signature, autograph=False)
        return self._compiled[n_halvings]

    def _step(self, number: tf.Tensor, n_halvings: int) -> tf.Tensor:
        """One step of Adam (Kingma and Ba, ICLR 2015), separately for each photo."""
        s, state = self.settings, self.state
        # Schedule the learning rate: a rise, then a half cosine at the end.
        passed = tf.cast(number, tf.float32) / s.n_steps
        rate = s.step * tf.minimum(1.0, (passed + 1 / s.n_steps) / 0.05)
        rate *= 0.5 - 0.5 * tf.cos(math.pi * tf.minimum(1.0, (1 - passed) / 0.25))
        # Draw the noise on the codes. (batch, num_layers, w_dim)
        strength = s.noise * tf.square(tf.maximum(0.0, 1 - passed / 0.75))
        seed = tf.stack([tf.constant(s.seed), number])
        noise = tf.random.stateless_normal(state["codes"].shape, seed) * strength
        # Compute the loss and its gradient. (batch,), (batch, num_layers, w_dim)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            codes = state["codes"] + noise
            tape.watch(codes)
            match, pixels, distance = self._match(codes, n_halvings)
            squares = tf.reduce_mean(tf.square(codes), axis=(1, 2))
            loss = match + s.pull * squares
            apart = codes - tf.reduce_mean(codes, axis=1, keepdims=True)
            early = s.one_code * tf.maximum(0.0, 1 - passed / 0.5)
            total = loss + early * tf.reduce_mean(tf.square(apart), axis=(1, 2))
        gradient = tape.gradient(total, codes)
        # Keep the best codes so far. (batch, num_layers, w_dim)
        better = loss < state["best_loss"]
        state["best"].assign(tf.where(better[:, None, None], codes, state["best"]))
        state["best_loss"].assign(tf.minimum(loss, state["best_loss"]))
        # Update Adam's averages, correct their bias, and update the codes. (batch, num_layers, w_dim)
        slope = state["slope"].assign(_MOMENTUM * state["slope"] + (1 - _MOMENTUM) * gradient)
        square = state["square"].assign(
            _SECOND_MOMENTUM * state["square"] + (1 - _SECOND_MOMENTUM) * tf.square(gradient)
        )
        power = tf.cast(number + 1, tf.float32)
        slope = slope / (1 - tf.pow(_MOMENTUM, power))
        square = square / (1 - tf.pow(_SECOND_MOMENTUM, power))
        state["codes"].assign_sub(rate * slope / (tf.sqrt(square) + 1e-8))
        return tf.stack([loss, pixels, distance, tf.sqrt(squares)])

    def _match(self, codes: tf.Tensor, n_halvings: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Losses between drawn images and photos: weighted sum, L1 and descriptor distance, each (batch,)."""
        s, state, layer = self.settings, self.state, self.network.synthesis_layer
        # Draw the codes. (batch, side, side, colours)
        drawn = layer(self.network.average + self.spread * codes, layer.stored_noise())
        # Compare pixels, then descriptors. (batch,)
        pixels = _pyramid_distance(drawn, state["target"], state["weights"])
        if s.descriptors == 0:
            return s.pixels * pixels, pixels, tf.zeros_like(pixels)
        squares = tf.reduce_sum(tf.square(self._describe(drawn, n_halvings) - state["wanted"]), axis=1)
        return s.pixels * pixels + s.descriptors * squares, pixels, tf.sqrt(squares)

    def _trace(self, rows: list[np.ndarray], n: int) -> pd.DataFrame:
        """Convert rows (batch, 5) of some steps to a table of the first n photos, ordered by photo."""
        values = np.stack(rows)[:, :n].transpose(1, 0, 2)  # (n, steps, 5)
        columns = ["step", "loss", "pixels", "descriptors", "distance"]
        table = pd.DataFrame(values.reshape(-1, 5), columns=columns).astype({"step": int})
        if self.settings.descriptors == 0:
            table["descriptors"] = np.nan
        table.insert(0, "photo", np.repeat(np.arange(n), values.shape[1]))
        return table


def _pyramid_distance(drawn: tf.Tensor, target: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted mean absolute difference of images, averaged over full size, half, a quarter ... down to 8 pixels.

    Parameters
    ----------
    drawn, target : tensor, shape (n, h, w, c)
    weights : tensor, shape (n, h, w, 1)
        With mean 1.

    Returns
    -------
    tensor, shape (n,)
    """
    difference, scales = drawn - target, []
    while True:
        scales.append(tf.reduce_mean(tf.abs(difference) * weights, axis=(1, 2, 3)))
        if difference.shape[1] // 2 < _SMALLEST_SCALE:
            return tf.add_n(scales) / len(scales)
        difference, weights = (tf.nn.avg_pool2d(x, 2, 2, "VALID") for x in (difference, weights))
