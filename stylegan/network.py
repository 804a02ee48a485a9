"""A StyleGAN generator with its weights: z -> w -> image, truncation, mixing, and the file format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

import utils
from checks import Choice, ParameterError, check, check_array, check_number
from stylegan.architecture import Architecture, Mapping, Synthesis, check_arrays, draw
from training.backend import tf

#: Defaults of the official generator: truncation towards the average in the first 8 layers.
TRUNCATION_PSI, _TRUNCATION_CUTOFF = 0.7, 8

_NOISES = ("stored", "random", "none")

# The version of our file format.
_FORMAT = 1

# Largest image area to draw at once, in pixels: 16 images of 128 x 128, or 1 of at least 512 x 512. A CPU gains little
# from more images at once; a GPU needs larger batches.
_PIXELS_AT_ONCE, _PIXELS_AT_ONCE_ON_GPU = 4 * 256**2, 4 * 1024**2

# Number of values per variable that are compared to detect changed weights.
_WITNESSES = 64


@dataclass(eq=False, repr=False)
class StyleNetwork:
    """A generator.

    Attributes
    ----------
    mapping_layer : Mapping
    synthesis_layer : Synthesis
    average : ndarray of float32, shape (w_dim,)
        ``dlatent_avg``: the mean of w, towards which codes are truncated.
    description : dict
        Metadata, as plain values: ``dataset``, ``training``, ``landmarks`` (the 68 landmarks of a typical face as drawn
        by the network, pairs x, y in its pixels; without them faces are placed as in FFHQ) and ``frame`` (top, left,
        height, width of the part without padding).
    architecture : Architecture
    z_dim, w_dim, num_layers, resolution : int
        Sizes of the architecture.
    """

    mapping_layer: Mapping
    synthesis_layer: Synthesis
    average: np.ndarray
    description: dict = field(default_factory=dict)

    def __post_init__(self):
        self.architecture = a = self.synthesis_layer.architecture
        self.z_dim, self.w_dim = a.z_dim, a.w_dim
        self.num_layers, self.resolution = a.num_layers, a.resolution

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], description: dict | None = None) -> StyleNetwork:
        """Build a network from its arrays.

        Parameters
        ----------
        arrays : dict
            Arrays by official names: ``mapping/Dense0/weight``, ``synthesis/4x4/Const/const``, ``dlatent_avg``.
        description : dict, optional

        Raises
        ------
        ValueError
            If arrays are missing, unknown, not finite, or inconsistent.
        """
        parts = {"mapping": {}, "synthesis": {}, "": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            parts[part if part in parts else ""][rest or name] = array
        architecture = Architecture.of(parts["mapping"], parts["synthesis"])
        check_arrays(parts[""], {"dlatent_avg": (architecture.w_dim,)})
        average = np.array(arrays["dlatent_avg"], dtype=np.float32)
        # The mapping is cheap, and all else depends on it.
        mapping = Mapping(architecture, parts["mapping"], dtype="float32")
        synthesis = Synthesis(architecture, parts["synthesis"])
        return cls(mapping, synthesis, average, dict(description or {}))

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by their official names; see `from_arrays`."""
        mapping, synthesis = self.mapping_layer.arrays(), self.synthesis_layer.arrays()
        named = {f"mapping/{name}": array for name, array in mapping.items()}
        named |= {f"synthesis/{name}": array for name, array in synthesis.items()}
        return {**named, "dlatent_avg": self.average.copy()}

    def __repr__(self) -> str:
        kind = "grey" if self.architecture.colours == 1 else "colour"
        return (
            f"<StyleNetwork {self.description.get('dataset') or 'of unknown faces'}: z {self.z_dim} -> "
            f"w {self.num_layers} x {self.w_dim} -> {self.resolution} x {self.resolution} {kind}>"
        )

    # Compiled once for any number of rows, so that no call recompiles, and as they are: AutoGraph takes seconds

    @cached_property
    def _map(self):
        signature = [tf.TensorSpec((None, self.z_dim), tf.float32)]
        return tf.function(self.mapping_layer, input_signature=signature, autograph=False)

    @cached_property
    def _witness(self):
        """A compiled function that returns a few values of each variable of the synthesis network."""
        variables = self.synthesis_layer.named.values()

        def witness():
            return tf.concat([tf.reshape(v.value, (-1,))[:_WITNESSES] for v in variables], axis=0)

        return tf.function(witness, input_signature=[], autograph=False)

    def _drawing(self) -> Callable:
        """The compiled function that draws with the current weights; see `_compile`."""
        witness = self._witness().numpy()
        if not np.array_equal(witness, self.__dict__.get("_drawn_with")):
            self._compiled, self._drawn_with = self._compile(), witness
        return self._compiled

    def _compile(self) -> Callable:
        """Compile functions of w, a seed and the kind of noise, for weights that are prepared once.

        A single image has a separate, faster function. Each function is traced at its first use.
        """
        layer = self.synthesis_layer
        weights, stored = layer.ready_weights(), layer.stored_noise()
        noises = {
            "stored": lambda w, seed: stored,
            "random": lambda w, seed: layer.random_noise(tf.shape(w)[0], seed),
            "none": lambda w, seed: None,
        }

        def compiled(n: int | None, noise: str):
            codes = tf.TensorSpec((n, self.num_layers, self.w_dim), tf.float32)
            return tf.function(
                lambda w, seed: draw(weights, w, noises[noise](w, seed)),
                input_signature=[codes, tf.TensorSpec((2,), tf.int32)],
                autograph=False,
            )

        functions = {(n, noise): compiled(n, noise) for n in (1, None) for noise in _NOISES}
        return lambda w, seed, noise: functions[1 if len(w) == 1 else None, noise](w, seed)

    def mapping(self, z: np.ndarray) -> np.ndarray:
        """Map latent vectors to codes.

        Parameters
        ----------
        z : array, shape (n, z_dim)
            Each row is normalised first, so its length does not matter.

        Returns
        -------
        ndarray of float32, shape (n, num_layers, w_dim)
            The same w for all layers, before truncation.

        Raises
        ------
        ParameterError
            If z is not an array of finite numbers of this shape.
        """
        z = check_array("z", z, (None, self.z_dim))
        w = self._map(tf.constant(z)).numpy()  # (n, w_dim)
        return np.repeat(w[:, None], self.num_layers, axis=1)

    def truncate(
        self,
        w: np.ndarray,
        truncation_psi: float | None = TRUNCATION_PSI,
        truncation_cutoff: int | None = _TRUNCATION_CUTOFF,
    ) -> np.ndarray:
        """Shrink codes (n, num_layers, w_dim) towards the average (appendix B of the paper).

        Parameters
        ----------
        w : array
        truncation_psi : float or None, default 0.7
            1 or None changes nothing, 0 gives the average face.
        truncation_cutoff : int or None, default 8
            Number of layers to shrink, from the coarsest; None or 0 shrinks none, as in the official code.

        Returns
        -------
        ndarray of float32, shape (n, num_layers, w_dim)
        """
        w = self.check_codes(w)
        if truncation_psi is None or not truncation_cutoff or truncation_cutoff < 0:
            return w.copy()
        check_number("truncation_psi", truncation_psi)
        pull = np.where(np.arange(self.num_layers) < truncation_cutoff, truncation_psi, 1.0)[:, None]
        return (self.average + (w - self.average) * pull).astype(np.float32)

    def synthesis(self, w: np.ndarray, noise: str = "stored", random_state=None) -> np.ndarray:
        """Draw images.

        Parameters
        ----------
        w : array, shape (n, num_layers, w_dim)
        noise : {"stored", "random", "none"}
            ``"random"`` draws new noise for each image.
        random_state : int, RandomState or None
            Seed for random noise.

        Returns
        -------
        ndarray of float32, shape (n, resolution, resolution, 3)
            Nominally -1..1, never clipped. Grey networks give three equal channels.

        Raises
        ------
        ParameterError
            If w is not an array of finite numbers of this shape, or the kind of noise is unknown.
        """
        check("noise", noise, Choice(_NOISES))
        w = self.check_codes(w)
        random = utils.check_random_state(random_state)
        drawing = self._drawing()
        most = _PIXELS_AT_ONCE_ON_GPU if tf.config.list_physical_devices("GPU") else _PIXELS_AT_ONCE
        at_once = max(1, most // self.resolution**2)
        images = np.empty((len(w), self.resolution, self.resolution, 3), dtype=np.float32)
        for start in range(0, len(w), at_once):
            rows = slice(start, start + at_once)
            seed = tf.constant(random.randint(2**31 - 1, size=2), tf.int32)
            images[rows] = drawing(tf.constant(w[rows]), seed, noise)
        return images

    def generate(
        self,
        z: np.ndarray,
        truncation_psi: float | None = TRUNCATION_PSI,
        truncation_cutoff: int | None = _TRUNCATION_CUTOFF,
        noise: str = "stored",
        random_state=None,
    ) -> np.ndarray:
        """Draw the images of latent vectors (n, z_dim): uint8 (n, resolution, resolution, 3).

        See `mapping`, `truncate` and `synthesis`.
        """
        codes = self.truncate(self.mapping(z), truncation_psi, truncation_cutoff)
        return to_uint8(self.synthesis(codes, noise, random_state))

    def random_codes(self, n: int, random_state=None, **truncation) -> np.ndarray:
        """Draw the codes of n random people: float32 (n, num_layers, w_dim).

        `truncation` takes the options of `truncate`.
        """
        z = utils.check_random_state(random_state).randn(n, self.z_dim)
        return self.truncate(self.mapping(z), **truncation)

    def check_codes(self, w) -> np.ndarray:
        """Return w as float32 (n, num_layers, w_dim) if it is finite and has this shape; otherwise ParameterError."""
        return check_array("w", w, (None, self.num_layers, self.w_dim))

    def save(self, path: str | Path, dtype: str = "float32") -> None:
        """Write the network to an ``.npz`` file: arrays by their official names, and the description as JSON.

        Parameters
        ----------
        path : str or Path
        dtype : {"float32", "float16"}
            float16 halves the file and changes images by less than one step of uint8.

        Raises
        ------
        ValueError
            If the name does not end in ``.npz``, or a value does not fit into `dtype`.
        """
        save_weights(path, self.arrays(), self.description, dtype)


def save_weights(path: str | Path, arrays: dict[str, np.ndarray], description: dict, dtype: str) -> None:
    """Write weights in the precision `dtype` (int8 stays), with a description as JSON, to an ``.npz`` file."""
    if Path(path).suffix != ".npz":
        raise ValueError(f"{path}: the name of a file of weights must end in .npz")
    check("dtype", dtype, Choice(("float32", "float16")))
    largest = max(float(np.abs(array).max()) for array in arrays.values())
    if largest > float(np.finfo(dtype).max):
        raise ValueError(f"a weight of {largest:.3g} does not fit into {dtype}; save as float32")
    arrays = {
        name: array if array.dtype == np.int8 else array.astype(dtype) for name, array in arrays.items()
    }
    text = json.dumps({"format": _FORMAT, **description})
    utils.save_arrays(path, {**arrays, "description": np.array([text])})


def take_description(arrays: dict[str, np.ndarray]) -> dict:
    """Remove the description that `save_weights` wrote from `arrays`, and return it."""
    stored = arrays.pop("description", None)
    if stored is None or stored.size != 1:
        raise ValueError("it has no description")
    description = utils.parse_json(str(stored.item()))
    if not isinstance(description, dict) or description.pop("format", None) != _FORMAT:
        raise ValueError(f"it has no description of format {_FORMAT}")
    return description


def load_npz(path: str | Path) -> StyleNetwork:
    """Load a network that `StyleNetwork.save` wrote.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged or not a network.
    """
    arrays = utils.load_arrays(path)
    try:
        network = StyleNetwork.from_arrays(arrays, take_description(arrays))
        _check_description(network)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a complete StyleGAN network of this suite ({error})") from error
    return network


def _check_description(network: StyleNetwork) -> None:
    landmarks, frame = (network.description.get(name) for name in ("landmarks", "frame"))
    if landmarks is not None:
        check_array("landmarks", landmarks, (68, 2))
    if frame is not None:
        top, left, height, width = (int(side) for side in frame)
        for start, length in ((top, height), (left, width)):
            if not 0 <= start < start + length <= network.resolution:
                raise ValueError("its frame is not inside the image")


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Convert images in -1..1 to uint8 as the official code does: clipped, and truncated instead of rounded."""
    return np.clip(images * 127.5 + 128, 0, 255).astype(np.uint8)


def mix_styles(coarse: np.ndarray, fine: np.ndarray, layers: Sequence[int]) -> np.ndarray:
    """Replace some layers of codes by layers of other codes: style mixing (section 3.1 of the paper).

    Parameters
    ----------
    coarse, fine : array, shape (..., num_layers, w_dim)
        Broadcast against each other.
    layers : sequence of int
        The layers to take from `fine`.

    Returns
    -------
    ndarray of float32
    """
    coarse, fine = np.broadcast_arrays(np.asarray(coarse, np.float32), np.asarray(fine, np.float32))
    chosen = np.zeros((coarse.shape[-2], 1), dtype=bool)
    places = np.asarray(list(layers), dtype=np.int64)
    if len(places) and not (places.min() >= 0 and places.max() < len(chosen)):
        raise ParameterError(f"layers must be from 0 to {len(chosen) - 1}, got {sorted(places.tolist())}")
    chosen[places] = True
    return np.where(chosen, fine, coarse)
