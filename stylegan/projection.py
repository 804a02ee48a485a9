"""Photos -> W+ codes with which a network draws them, by gradient steps through the network.

Abdal, Qin and Wonka, "Image2StyleGAN: how to embed images into the StyleGAN latent space?", ICCV 2019, find a code of
their own for each layer. The schedule of learning rate and noise is that of Karras et al., "Analyzing and improving the
image quality of StyleGAN", CVPR 2020, appendix D. What is minimised is told at `Settings`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import tensorflow as tf

import datasets
import detection
import utils
from datasets import Faces
from datasets.faces import ImageFiles
from datasets.sources import IMAGE_SUFFIXES
from stylegan import alignment, features
from stylegan.alignment import Aligned
from stylegan.network import StyleNetwork
from training.training_set import face_weights

#: Where codes of photos are kept, a folder for each source of faces.
CODES = Path(__file__).resolve().parents[1] / "datasets" / "stylegan_data" / "latent_vectors"

#: The spread of w is measured on so many random people.
SPREAD_SAMPLES = 4096
#: What a photo does not show counts so much, against 1 on the face.
UNSEEN = 0.02
#: Steps between two rows of the trace, which are computed in one call.
STRIDE = 10
#: Unfinished work is kept after so many seconds.
KEEP_SECONDS = 60.0
#: Decay rates of Adam's two moving averages.
MOMENTUM, SECOND_MOMENTUM = 0.9, 0.999
#: What a search changes: the codes, Adam's averages, and the best codes so far.
MOVING = ("codes", "slope", "square", "best", "best_loss")


@dataclass(frozen=True)
class Settings:
    """How codes are looked for.

    A code is w = average + spread * u for each layer; spread is the standard deviation of a value of w over random
    people, so that steps, noise and the pull mean the same for every network. Minimised is, for each photo alone::

        pixels * L1 + descriptors * |d - d'|^2 + pull * mean(u^2) + one_code * mean((u - mean over layers)^2)

    with L1 the mean absolute difference of drawn picture and photo on several scales, weighted by
    `training.face_weights`, and d, d' their face descriptors (`features.descriptor_network`).

    Attributes
    ----------
    n_steps : int
    step : float
        Adam's step in units of spread: it rises during the first 5 % and falls to 0 by a half cosine in the last 25 %.
    noise : float
        Noise on u at the start, falling to 0 by the square within the first 75 %.
    pixels, descriptors, pull : float
        Weights. Descriptors cost some 5 ms a picture and step on two idle cores. With more weight on them pixels
        fit less, and descriptors that are computed apart are hardly nearer.
    one_code : float
        Weight of the pull towards one w for all layers; it falls to 0 within the first half.
    seed : int
        Of the noise.
    """

    n_steps: int = 300
    step: float = 0.2
    noise: float = 0.05
    pixels: float = 1.0
    descriptors: float = 0.2
    pull: float = 0.002
    one_code: float = 0.1
    seed: int = 0

    def __post_init__(self):
        for name in ("n_steps", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**31:
                raise ValueError(f"{name} must be a whole number of at least 0, not {value!r}")
        for name in ("step", "noise", "pixels", "descriptors", "pull", "one_code"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a number of at least 0, not {value!r}")
        if self.n_steps < 1 or self.step == 0:
            raise ValueError("at least one step of a length above 0 is needed")
        if self.pixels == 0 and self.descriptors == 0:
            raise ValueError("pixels or descriptors need a weight above 0, or nothing is matched")


@dataclass(frozen=True, eq=False)
class Projection:
    """Codes of photos.

    Attributes
    ----------
    codes : ndarray of float32, shape (n, num_layers, w_dim)
        NaN for photos without a face.
    found : ndarray of bool, shape (n,)
        Whether a face was found on the photo; only those are projected.
    trace : DataFrame
        A row for each tenth step of each photo: ``photo step loss pixels descriptors distance``; `pixels` is the L1
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

    Photos without a face are left out with a warning; of several faces on one the largest is taken.

    Parameters
    ----------
    network : StyleNetwork
    photos : Faces or sequence of n uint8 arrays (h, w, 3)
        Of any size; they are aligned first, see `alignment.place`.
    encoder : Encoder, optional
        Gives the codes to start from; by default that is the network's average.
    start : array, shape (n, num_layers, w_dim), optional
        Codes to start from, in place of an encoder's.
    batch : int, optional
        Photos at once; by default as many as have the area of one picture of 512 x 512, at most 16.
    **settings
        Of `Settings`: ``n_steps``, ``step``, ``noise``, ``pixels``, ``descriptors``, ``pull``, ``one_code``, ``seed``.

    Returns
    -------
    Projection
        The same photos, start, batch and settings give the same codes on the same machine.

    Raises
    ------
    TypeError, ValueError
        For photos or settings that cannot be used, an encoder or start of other sizes than the network's, or where no
        photo shows a face.

    Notes
    -----
    An interrupted call goes on where it was: unfinished work is kept in the cache for a minute's steps at most.

    Examples
    --------
    >>> import datasets, stylegan
    >>> from stylegan import projection
    >>> network = stylegan.load_network()
    >>> faces = datasets.load_faces("orl", per_identity=1).select(slice(0, 2))
    >>> projection.project(network, faces, n_steps=50).codes.shape
    (2, 12, 128)
    """
    projector = Projector(network, batch=batch, **settings)
    found = detection.detect(photos)
    _check_any_found(found.found)
    if encoder is not None and start is not None:
        raise ValueError("give an encoder or codes to start from, not both")
    if start is not None:
        start = network._checked_codes(start)
        if len(start) != len(found):
            raise ValueError(f"{len(found)} photos but {len(start)} codes to start from")
    if not found.found.all():
        warnings.warn(_missed_sentence(found.found, _names(photos)), stacklevel=2)
    codes = np.full((len(found), network.num_layers, network.w_dim), np.nan, dtype=np.float32)
    traces = []
    for rows, fitted, trace in _batches(
        projector, photos, found.landmarks, np.flatnonzero(found.found), encoder, start
    ):
        codes[rows] = fitted
        traces.append(trace)
    return Projection(codes, found.found.copy(), pd.concat(traces, ignore_index=True))


def _names(photos: Faces | Sequence[np.ndarray]) -> Sequence[str]:
    return photos.names if isinstance(photos, Faces) else [f"number {i}" for i in range(len(photos))]


def _check_any_found(found: np.ndarray) -> None:
    if not found.any():
        raise ValueError(f"no face was found on any of the {len(found)} photos; give photos of frontal faces")


def _missed_sentence(found: np.ndarray, names: Sequence[str]) -> str:
    missed = np.flatnonzero(~found)
    listed = ", ".join(str(names[row]) for row in missed[:5]) + (" ..." if len(missed) > 5 else "")
    return f"no face was found on {len(missed)} of {len(found)} photos, which have no codes: {listed}"


def _batches(
    projector: Projector,
    photos: Faces | Sequence[np.ndarray],
    landmarks: np.ndarray,
    rows: np.ndarray,
    encoder=None,
    start: np.ndarray | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, pd.DataFrame]]:
    """Project some rows batch by batch: yields their rows, codes and trace."""
    images = photos.images if isinstance(photos, Faces) else photos
    network = projector.network
    with utils.progress(None, "projecting (steps)", total=len(rows) * projector.settings.n_steps) as bar:
        for first in range(0, len(rows), projector.batch):
            chosen = rows[first : first + projector.batch]
            aligned = alignment.place([images[i] for i in chosen], landmarks[chosen], network)
            begin = None if start is None else start[chosen]
            if encoder is not None:
                begin = _encoded(encoder, aligned, network)
            codes, trace = projector.fit(aligned, begin, bar.update)
            trace["photo"] = chosen[trace["photo"]]
            yield chosen, codes, trace


def _encoded(encoder, aligned: Aligned, network: StyleNetwork) -> np.ndarray:
    try:
        return network._checked_codes(encoder.encode(aligned.pictures))
    except ValueError as error:
        raise ValueError(f"the encoder was not made for this network ({error})") from error


# ----------------------------------------------------------------------------------------------------------
# The search
# ----------------------------------------------------------------------------------------------------------


def spread_of(network: StyleNetwork) -> float:
    """Standard deviation of a value of w around the average, over random people and all values."""
    z = utils.check_random_state(0).randn(SPREAD_SAMPLES, network.z_dim)
    w = network.mapping(z)[:, 0]
    return max(float(np.sqrt(np.mean((w - network.average) ** 2))), 1e-6)


def default_batch(resolution: int) -> int:
    """How many pictures are fitted at once: the area of one of 512 x 512, and at most 16."""
    return int(np.clip(512**2 // resolution**2, 1, 16))


class Projector:
    """The search for codes, compiled once for a network and a size of batch.

    Parameters
    ----------
    network : StyleNetwork
    batch : int, optional
        See `project`.
    **settings
        See `Settings`.
    """

    def __init__(self, network: StyleNetwork, batch: int | None = None, **settings):
        if batch is None:
            batch = default_batch(network.resolution)
        if isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1:
            raise ValueError(f"batch must be a whole number of at least 1, not {batch!r}")
        unknown = sorted(set(settings) - set(Settings.__dataclass_fields__))
        if unknown:
            known = ", ".join(Settings.__dataclass_fields__)
            raise TypeError(f"unknown settings {', '.join(unknown)}; there is {known}")
        self.network, self.batch, self.settings = network, int(batch), Settings(**settings)
        self.spread = spread_of(network)
        a = network.architecture
        codes, pictures = (self.batch, a.num_layers, a.w_dim), (self.batch, a.resolution, a.resolution)
        zeros = {
            **dict.fromkeys(("codes", "slope", "square", "best"), codes),
            "best_loss": (self.batch,),
            "target": (*pictures, a.colours),
            "weights": (*pictures, 1),
            "transforms": (self.batch, 2, 3),
            "wanted": (self.batch, features.N_VALUES),
        }
        self.state = {name: tf.Variable(tf.zeros(shape), trainable=False) for name, shape in zeros.items()}
        self._compiled: dict[int, Callable] = {}  # by how often pictures are halved for the descriptor

    def fit(
        self,
        aligned: Aligned,
        start: np.ndarray | None = None,
        on_steps: Callable[[int], None] | None = None,
    ) -> tuple[np.ndarray, pd.DataFrame]:
        """Find the codes of at most `batch` aligned photos.

        Parameters
        ----------
        aligned : Aligned
        start : array, shape (n, num_layers, w_dim), optional
            The network's average by default.
        on_steps : callable, optional
            Called with the number of steps just made, times photos.

        Returns
        -------
        codes : ndarray of float32, shape (n, num_layers, w_dim)
            Those of the smallest loss among all that were drawn (without the term of `one_code`).
        trace : DataFrame
            See `Projection`; `photo` counts the photos of this batch.

        Raises
        ------
        ValueError
            For too many photos, pictures or a start of other sizes than the network's, or where the search diverges.
        """
        n, s = len(aligned), self.settings
        if not 1 <= n <= self.batch:
            raise ValueError(f"this projector takes 1 to {self.batch} photos at once, not {n}")
        wanted = (n, *self.state["target"].shape[1:])
        if aligned.pictures.shape != wanted or not np.isfinite(aligned.pictures).all():
            raise ValueError(
                f"aligned pictures must be finite, of shape {wanted}, not {aligned.pictures.shape}"
            )
        transforms = features.chip_transforms(aligned.landmarks)
        n_halvings = features.halvings(transforms)
        advance = self._advance(n_halvings)
        self._begin(aligned, transforms, n_halvings, start)
        kept = self._kept_path(aligned, start)
        rows = self._restore(kept)
        done, saved = len(rows) * STRIDE, time.monotonic()
        if on_steps and done:
            on_steps(done * n)
        while done < s.n_steps:
            count = min(STRIDE, s.n_steps - done)
            terms = advance(tf.constant(done), tf.constant(count)).numpy()  # (4, batch)
            done += count
            if not np.isfinite(terms[0]).all():
                raise ValueError(
                    f"the search left the finite numbers before step {done}; give a shorter step, or check the network"
                )
            rows.append(np.column_stack([np.full(self.batch, done), terms.T]))
            if on_steps:
                on_steps(count * n)
            if time.monotonic() - saved > KEEP_SECONDS and done < s.n_steps:
                self._keep(kept, rows)
                saved = time.monotonic()
        codes = self.network.average + self.spread * self.state["best"].numpy()[:n]
        kept.unlink(missing_ok=True)
        return codes.astype(np.float32), _trace(rows, n, s.descriptors > 0)

    def _begin(self, aligned, transforms, n_halvings, start) -> None:
        """Fill the state; a short batch is filled up by its last photo."""
        rows = np.minimum(np.arange(self.batch), len(aligned) - 1)
        side, s = self.network.resolution, self.state
        weights = [face_weights(points, side, side) for points in aligned.landmarks]
        weights = np.stack(weights) * np.where(aligned.visible, 1.0, UNSEEN)[..., None]
        weights /= weights.mean(axis=(1, 2, 3), keepdims=True)
        average = np.broadcast_to(
            self.network.average, (len(aligned), self.network.num_layers, self.network.w_dim)
        )
        start = average if start is None else np.asarray(start, dtype=np.float32)
        if start.shape != average.shape or not np.isfinite(start).all():
            raise ValueError(
                f"codes to start from must be finite, of shape {average.shape}, not {start.shape}"
            )
        u = (start - self.network.average) / self.spread
        for name, values in (
            ("codes", u), ("best", u), ("target", aligned.pictures), ("weights", weights), ("transforms", transforms)
        ):  # fmt: skip
            s[name].assign(values[rows].astype(np.float32))
        for name in ("slope", "square", "wanted"):
            s[name].assign(tf.zeros_like(s[name]))
        s["best_loss"].assign(tf.fill((self.batch,), math.inf))
        if self.settings.descriptors > 0:
            s["wanted"].assign(self._describe(s["target"], n_halvings))

    # What is kept of a search that was not finished

    @cached_property
    def _fingerprint(self) -> str:
        """Key of all that the result depends on besides the photos."""
        return utils.content_key(
            self.network.arrays(), asdict(self.settings), self.batch,
            utils.source_key(__file__),
        )  # fmt: skip

    def _kept_path(self, aligned: Aligned, start: np.ndarray | None) -> Path:
        begin = None if start is None else np.asarray(start, dtype=np.float32)
        key = utils.content_key(
            self._fingerprint, aligned.pictures, aligned.landmarks, aligned.visible, begin
        )
        return utils.cache_folder("projection") / f"{key}.npz"

    def _keep(self, path: Path, rows: list[np.ndarray]) -> None:
        arrays = {name: self.state[name].numpy() for name in MOVING}
        utils.save_arrays(path, {**arrays, "rows": np.stack(rows)})

    def _restore(self, path: Path) -> list[np.ndarray]:
        """Fill the state with what was kept, and give the trace so far: empty where nothing was."""
        try:
            arrays = utils.load_arrays(path)
            rows = arrays["rows"]
            shapes_fit = all(arrays[name].shape == tuple(self.state[name].shape) for name in MOVING)
        except (FileNotFoundError, KeyError, ValueError):  # missing or damaged: begin anew
            return []
        if not shapes_fit or rows.ndim != 3 or rows.shape[1:] != (self.batch, 5):
            return []
        for name in MOVING:
            self.state[name].assign(arrays[name])
        return list(rows)

    def _describe(self, pictures: tf.Tensor, n_halvings: int) -> tf.Tensor:
        return features.describe((pictures + 1) * 127.5, self.state["transforms"], n_halvings)

    def _advance(self, n_halvings: int) -> Callable:
        """A compiled function that makes some steps and gives loss, pixels, descriptors, distance: (4, batch)."""
        if n_halvings not in self._compiled:

            def advance(first, count):
                start = (first, tf.zeros((4, self.batch)))
                return tf.while_loop(
                    lambda number, terms: number < first + count,
                    lambda number, terms: (number + 1, self._step(number, n_halvings)),
                    start,
                )[1]

            signature = [tf.TensorSpec((), tf.int32)] * 2
            self._compiled[n_halvings] = tf.function(advance, input_signature=signature, autograph=False)
        return self._compiled[n_halvings]

    def _step(self, number: tf.Tensor, n_halvings: int) -> tf.Tensor:
        """One step of Adam (Kingma and Ba, ICLR 2015), each photo by itself."""
        s, state = self.settings, self.state
        passed = tf.cast(number, tf.float32) / s.n_steps
        rate = s.step * tf.minimum(1.0, (passed + 1 / s.n_steps) / 0.05)
        rate *= 0.5 - 0.5 * tf.cos(math.pi * tf.minimum(1.0, (1 - passed) / 0.25))
        strength = s.noise * tf.square(tf.maximum(0.0, 1 - passed / 0.75))
        seed = tf.stack([tf.constant(s.seed), number])
        noise = tf.random.stateless_normal(state["codes"].shape, seed) * strength
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
        better = loss < state["best_loss"]
        state["best"].assign(tf.where(better[:, None, None], codes, state["best"]))
        state["best_loss"].assign(tf.minimum(loss, state["best_loss"]))
        slope = state["slope"].assign(MOMENTUM * state["slope"] + (1 - MOMENTUM) * gradient)
        square = state["square"].assign(
            SECOND_MOMENTUM * state["square"] + (1 - SECOND_MOMENTUM) * tf.square(gradient)
        )
        power = tf.cast(number + 1, tf.float32)
        slope = slope / (1 - tf.pow(MOMENTUM, power))
        square = square / (1 - tf.pow(SECOND_MOMENTUM, power))
        state["codes"].assign_sub(rate * slope / (tf.sqrt(square) + 1e-8))
        return tf.stack([loss, pixels, distance, tf.sqrt(squares)])

    def _match(self, codes: tf.Tensor, n_halvings: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """How far the drawn pictures are from the photos: weighted sum, L1 and distance of descriptors, each (n,)."""
        s, state, layer = self.settings, self.state, self.network.synthesis_layer
        drawn = layer(self.network.average + self.spread * codes, layer.stored_noise())
        pixels = pyramid_distance(drawn, state["target"], state["weights"])
        if s.descriptors == 0:
            return s.pixels * pixels, pixels, tf.zeros_like(pixels)
        squares = tf.reduce_sum(tf.square(self._describe(drawn, n_halvings) - state["wanted"]), axis=1)
        return s.pixels * pixels + s.descriptors * squares, pixels, tf.sqrt(squares)


#: The smallest scale on which pictures are compared.
SMALLEST_SCALE = 8


def pyramid_distance(drawn: tf.Tensor, target: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted mean absolute difference of pictures, averaged over full size, half, a quarter ... down to 8 pixels.

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
        if difference.shape[1] // 2 < SMALLEST_SCALE:
            return tf.add_n(scales) / len(scales)
        difference, weights = (tf.nn.avg_pool2d(x, 2, 2, "VALID") for x in (difference, weights))


def _trace(rows: list[np.ndarray], n: int, described: bool) -> pd.DataFrame:
    """Rows (batch, 5) of some steps as a table of the first n photos, a photo after the other."""
    values = np.stack(rows)[:, :n].transpose(1, 0, 2)  # (n, steps, 5)
    table = pd.DataFrame(
        values.reshape(-1, 5), columns=["step", "loss", "pixels", "descriptors", "distance"]
    ).astype({"step": int})
    if not described:
        table["descriptors"] = np.nan
    table.insert(0, "photo", np.repeat(np.arange(n), values.shape[1]))
    return table


# ----------------------------------------------------------------------------------------------------------
# Files of codes
# ----------------------------------------------------------------------------------------------------------

#: Tells in a folder of codes for which network and with which settings they were made.
RECORD = "projection.json"


@dataclass(frozen=True, eq=False)
class Report:
    """What became of each photo, by name.

    Attributes
    ----------
    written, kept, missed : list of str
        Projected now; already there and left alone; without a face and so without a code.
    trace : DataFrame
        See `Projection`, with names in `photo`.
    """

    written: list[str]
    kept: list[str]
    missed: list[str]
    trace: pd.DataFrame


def project_to_folder(
    network: StyleNetwork,
    faces: Faces,
    folder: str | Path | None = None,
    *,
    encoder=None,
    overwrite: bool = False,
    batch: int | None = None,
    **settings,
) -> Report:
    """Find W+ codes of photos and write each to a file, so that an interrupted call can be repeated to go on.

    Parameters
    ----------
    network, faces, encoder, batch, **settings
        See `project`.
    folder : str or Path, optional
        Made if needed; by default ``datasets/stylegan_data/latent_vectors/SOURCE``. The photo ``s1/1.pgm`` gives
        ``s1/1.npy``, float32 (num_layers, w_dim).
    overwrite : bool, default False
        Replace codes that are there. By default they are left alone.

    Returns
    -------
    Report

    Raises
    ------
    FileExistsError
        If the folder holds codes that were made for another network or with other settings.
    ValueError
        If two photos would give one file, and as `project`; nothing has been computed then.
    """
    folder = CODES / faces.source if folder is None else Path(folder)
    paths = code_paths(faces.names, folder)
    projector = Projector(network, batch=batch, **settings)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: is a file; give a folder for the codes")
    there = np.array([path.exists() for path in paths])
    if there.any() and not overwrite:
        _check_existing(
            folder, [path for path, is_there in zip(paths, there, strict=True) if is_there], projector
        )
    found = detection.detect(faces)
    _check_any_found(found.found)
    todo = found.found & (overwrite | ~there)
    folder.mkdir(parents=True, exist_ok=True)
    _write_text(folder / RECORD, json.dumps(_record(projector), indent=1))
    traces = [pd.DataFrame()]
    for rows, codes, trace in _batches(projector, faces, found.landmarks, np.flatnonzero(todo), encoder):
        for row, code in zip(rows, codes, strict=True):
            save_code(paths[row], code)
        traces.append(trace.assign(photo=faces.names[trace["photo"]]))
    kept = there & ~todo
    return Report(
        written=[str(name) for name in faces.names[todo]],
        kept=[str(name) for name in faces.names[kept]],
        missed=[str(name) for name in faces.names[~todo & ~kept]],
        trace=pd.concat(traces, ignore_index=True),
    )


def save_code(path: str | Path, code: np.ndarray) -> None:
    """Write one code, (num_layers, w_dim), to a ``.npy`` file; its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    utils.save_atomic(path, lambda file: np.save(file, code.astype(np.float32), allow_pickle=False))


def _write_text(path: Path, text: str) -> None:
    utils.save_atomic(path, lambda file: file.write(text.encode("utf-8")))


def _record(projector: Projector) -> dict:
    network = projector.network
    return {
        "network": utils.content_key(network.arrays()),
        "dataset": network.description.get("dataset"),
        "shape": [network.num_layers, network.w_dim],
        "settings": asdict(projector.settings),
    }


def _check_existing(folder: Path, paths: Sequence[Path], projector: Projector) -> None:
    """Codes that are there must fit to those that are to come."""
    advice = "give another folder, or overwrite=True (--overwrite) to replace them"
    record = folder / RECORD
    if record.is_file():
        try:
            same = json.loads(record.read_text(encoding="utf-8")) == _record(projector)
        except ValueError:
            same = False
        if not same:
            raise FileExistsError(
                f"{folder}: holds codes made for another network or with other settings; {advice}"
            )
    for path in paths:
        try:
            _read_code(path, projector.network)
        except ValueError as error:
            raise FileExistsError(f"{error}; {advice}") from None


def code_paths(names: Sequence[str], folder: str | Path) -> list[Path]:
    """The file of each photo's code: the photo's name within the folder, ending in ``.npy``.

    Raises
    ------
    ValueError
        If two photos would share a file (also where only capitals differ), or a name leads out of the folder.
    """
    paths, seen = [], {}
    for name in names:
        relative = PurePosixPath(str(name))
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise ValueError(f"the photo {name!r} has a name that leads out of the folder of codes")
        path = relative.with_suffix(".npy")
        key = str(path).casefold()
        if key in seen:
            raise ValueError(
                f"the photos {seen[key]} and {name} would both have their code in {path}; rename one of them"
            )
        seen[key] = name
        paths.append(Path(folder) / path)
    return paths


def read_codes(folder: str | Path, names: Sequence[str], network: StyleNetwork) -> np.ndarray:
    """Read the W+ codes of photos.

    Parameters
    ----------
    folder : str or Path
        For the photo ``s1/1.pgm`` it holds ``s1/1.npy``, or ``1.npy`` if no other photo's name is ``1``; also
        ``1_01.npy``, as the published codes of aligned photos are called.
    names : sequence of n str
        Names of the photos, as in ``faces.names``.
    network : StyleNetwork

    Returns
    -------
    ndarray of float32, shape (n, num_layers, w_dim)

    Raises
    ------
    FileNotFoundError
        If the folder or the code of a photo is missing.
    ValueError
        If a file is damaged, holds other than finite real numbers, or does not fit the network.
    """
    folder, names = Path(folder), [str(name) for name in names]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: there is no such folder of codes; make it with: python -m stylegan project PHOTOS {folder}"
        )
    if not names:
        raise ValueError("there is no photo whose code could be read")
    stems = pd.Series([PurePosixPath(name).stem for name in names])
    unique = ~stems.duplicated(keep=False)
    paths, missing = [], []
    for path, stem, alone in zip(code_paths(names, folder), stems, unique, strict=True):
        places = [path, path.with_name(f"{stem}_01.npy")]
        if alone:
            places += [folder / f"{stem}.npy", folder / f"{stem}_01.npy"]
        paths.append(next((place for place in places if place.is_file()), None))
        if paths[-1] is None:
            missing.append(path)
    if missing:
        raise FileNotFoundError(
            f"{folder}: holds no codes for {len(missing)} of {len(names)} photos, the first is {missing[0].name}; "
            f"make them with: python -m stylegan project PHOTOS {folder}"
        )
    return np.stack([_read_code(path, network) for path in paths])


def _read_code(path: Path, network: StyleNetwork) -> np.ndarray:
    """One code, float32 (num_layers, w_dim)."""
    wanted = (network.num_layers, network.w_dim)
    code = utils.load_array(path)
    if code.shape == (1, *wanted):
        code = code[0]
    if code.shape != wanted:
        raise ValueError(
            f"{path}: holds an array of shape {code.shape}, but codes of this network are {wanted}"
        )
    if code.dtype.kind not in "iuf":
        raise ValueError(f"{path}: holds {code.dtype}, not real numbers")
    with np.errstate(over="ignore"):
        code = code.astype(np.float32)
    if not np.isfinite(code).all():
        raise ValueError(f"{path}: holds NaN or infinite values; make the code again")
    return code


# ----------------------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------------------


def load_photos(source: str | Path) -> Faces:
    """Load photos as `datasets.load_faces` does, or a folder of loose ones, as nobody need know who is on them."""
    try:
        return datasets.load_faces(source)
    except ValueError:
        folder = Path(source)
        loose = sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not loose:
            raise
    images = ImageFiles(loose)
    for image in utils.progress(images, "reading photos", total=len(loose)):
        detection.check_image(image)
    names = [path.name for path in loose]
    return Faces(images, [path.stem for path in loose], names, source=folder.resolve().name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `run` takes to a command line."""
    defaults = Settings()
    parser.add_argument("photos", help="'orl' or a folder of photos")
    parser.add_argument(
        "out", nargs="?", help="folder for the codes; default: datasets/stylegan_data/latent_vectors/NAME"
    )
    parser.add_argument("--network", help="file of weights, .npz or .pkl; default: the bundled one")
    parser.add_argument(
        "--encoder",
        help="file of an encoder that gives the start; default: NETWORK-encoder.npz where there is one",
    )
    parser.add_argument("--no-encoder", action="store_true", help="start from the network's average face")
    parser.add_argument("--steps", type=int, default=defaults.n_steps, help="default: %(default)s")
    parser.add_argument("--batch", type=int, help="photos at once; default: by the network's resolution")
    parser.add_argument(
        "--pixels", type=float, default=defaults.pixels, help="weight of the pixels; default: %(default)s"
    )
    parser.add_argument(
        "--descriptors", type=float, default=defaults.descriptors,
        help="weight of the face descriptors, 0 leaves them out; default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--pull",
        type=float,
        default=defaults.pull,
        help="weight of the pull to the average; default: %(default)s",
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace codes that are there")
    parser.add_argument("--trace", help="write how the search went to this .csv file")


def run(chosen: argparse.Namespace) -> None:
    """Find the W+ code of each photo and write it to OUT as NAME.npy; repeated, it goes on where it was stopped."""
    from stylegan import BUNDLED, load_network

    weights = Path(chosen.network) if chosen.network else BUNDLED
    if chosen.trace and not (chosen.trace.endswith(".csv") and Path(chosen.trace).parent.is_dir()):
        raise ValueError(f"{chosen.trace}: the trace is written to a .csv file in a folder that exists")
    network, encoder = load_network(weights), _find_encoder(weights, chosen)
    report = project_to_folder(
        network,
        load_photos(chosen.photos),
        chosen.out,
        encoder=encoder,
        overwrite=chosen.overwrite,
        batch=chosen.batch,
        n_steps=chosen.steps,
        pixels=chosen.pixels,
        descriptors=chosen.descriptors,
        pull=chosen.pull,
        seed=chosen.seed,
    )
    if chosen.trace:
        _write_text(Path(chosen.trace), report.trace.to_csv(index=False))
    print(_summary(report))


def _find_encoder(weights: Path, chosen: argparse.Namespace):
    from stylegan.encoder import load_encoder

    if chosen.no_encoder:
        if chosen.encoder:
            raise ValueError("give --encoder or --no-encoder, not both")
        return None
    beside = weights.with_name(f"{weights.stem}-encoder.npz")
    if chosen.encoder:
        return load_encoder(chosen.encoder)
    return load_encoder(beside) if beside.is_file() else None


def _summary(report: Report) -> str:
    lines = [f"{len(report.written)} codes written, {len(report.kept)} were there already"]
    if len(report.trace):
        last = report.trace.groupby("photo").tail(1)
        described = (
            ""
            if last["descriptors"].isna().all()
            else f", descriptors {last['descriptors'].mean():.3f} apart"
        )
        lines.append(f"on average pixels are {127.5 * last['pixels'].mean():.1f} of 255 off{described}")
    if report.missed:
        listed = "".join(f"\n  {name}" for name in report.missed)
        lines.append(f"{len(report.missed)} photos show no face that was found, and have no code:{listed}")
    return "\n".join(lines)
