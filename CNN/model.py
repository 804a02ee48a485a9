"""A trained network that maps codes to faces, and its file format, which holds only numbers and text."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np

import utils
from checks import ParameterError, check_array
from CNN.architecture import Architecture, build
from storage.hdf5 import check_hdf5
from storage.kinds import check_kind, read_head
from storage.reading import Budget
from training.backend import keras, tf

#: The emotions of RaFD (Langner et al. 2010), in the order of the code.
EMOTIONS = ("angry", "contemptuous", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")

# The members of our files in addition to Keras' own, and its member of weights.
_DESCRIPTION, _ARRAYS, _WEIGHTS = "anonfaces.json", "anonfaces.npz", "model.weights.h5"

# Fields of a network that its description stores as plain values.
_DESCRIBED = {"identities": list, "dataset": str, "training": dict, "photos": list, "held_out": list}

# Number of images to draw at once, and the memory for their largest feature maps.
_BATCH, _FEATURE_BYTES = 16, 1 << 30


@dataclass(eq=False, repr=False)
class FaceNetwork:
    """An up-convolutional network with its weights.

    Attributes
    ----------
    architecture : Architecture
    network : keras.Model
    identities : list of str
        The person behind each position of the identity code: the training identities, sorted.
    dataset : str
        The data set that it was trained on.
    training : dict
        How it was trained, as plain values; empty if the file does not record it.
    photos : list of str
        Names of the training photos whose nuisance codes are known.
    photo_people : ndarray of int, shape (p,)
        The person in each of these photos, as a position in the identity code.
    nuisance_codes : ndarray of float32, shape (p, m)
        What the network learnt about each photo other than the person: pose, expression, light. All 0 for each person's
        anchor photo, which has nuisance 0 in training.
    held_out : list of str
        Names of the photos that were held out from training.
    landmarks : ndarray of float64, shape (68, 2), or None
        The 68 landmarks of a typical face as drawn by the network, x and y in its pixels.
    known_photos : dict of str to str
        The name of each photo that it was trained with, held-out photos included, by its key: see `datasets.photo_key`.

    Raises
    ------
    ValueError
        If `identities` are not unique, or their number differs from the length of the identity code.
    """

    architecture: Architecture
    network: keras.Model
    identities: list[str]
    dataset: str = ""
    training: dict = field(default_factory=dict)
    photos: list[str] = field(default_factory=list)
    photo_people: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    nuisance_codes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    held_out: list[str] = field(default_factory=list)
    landmarks: np.ndarray | None = None
    known_photos: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.identities = [str(name) for name in self.identities]
        n = self.architecture.input_sizes["identity"]
        if len(self.identities) != n:
            raise ParameterError(f"identities must be {n} names, got {len(self.identities)}")
        if len(set(self.identities)) != n:
            raise ParameterError("identities must be different names, in the order of the identity code")

    def __repr__(self) -> str:
        a = self.architecture
        inputs = ", ".join(f"{name} {size}" for name, size in a.inputs)
        size = f"{a.height}x{a.width} {'grey' if a.channels == 1 else 'colour'}"
        return f"<FaceNetwork {self.dataset or 'of unknown people'}: {inputs} -> {size}>"

    @cached_property
    def _draw(self):
        sizes = self.architecture.input_sizes
        signature = {name: tf.TensorSpec((None, size), tf.float32) for name, size in sizes.items()}
        return tf.function(
            lambda codes: self.network(codes, training=False), input_signature=[signature], autograph=False
        )

    def generate(
        self,
        identity: np.ndarray,
        emotion: np.ndarray | None = None,
        orientation: np.ndarray | None = None,
        nuisance: np.ndarray | None = None,
        **others: np.ndarray,
    ) -> np.ndarray:
        """Draw faces.

        Parameters
        ----------
        identity : array, shape (n, identities)
            One-hot rows for single people, or mixtures.
        emotion : array, shape (n, 8), optional
            For networks with this input; neutral by default. The order is that of `EMOTIONS`.
        orientation : array, shape (n, 2), optional
            For networks with this input: sine and cosine of the angle; frontal, (0, 1), by default.
        nuisance : array, shape (n, m), optional
            For networks with this input; 0 by default.
        **others : array, shape (n, length)
            Further inputs of a ``FaceGen.*.h5`` file, by name; they have no default.

        Returns
        -------
        ndarray of float32, shape (n, height, width, 3 or 1)
            In 0..1.

        Raises
        ------
        ParameterError
            For a code that is missing, not finite, of the wrong shape, or unknown to this network. A code with one row
            is used for all n faces.
        """
        known = {"identity": identity, "emotion": emotion, "orientation": orientation, "nuisance": nuisance}
        codes = self._checked_codes({**known, **others})
        n, a = len(codes["identity"]), self.architecture
        images = np.empty((n, a.height, a.width, a.channels), dtype=np.float32)
        at_once = max(1, min(_BATCH, _FEATURE_BYTES // (4 * a.largest_features)))
        for start in range(0, n, at_once):
            rows = slice(start, start + at_once)
            batch = {name: tf.constant(values[rows]) for name, values in codes.items()}
            images[rows] = self._draw(batch).numpy()
        return images

    def _checked_codes(self, given: dict) -> dict[str, np.ndarray]:
        """All inputs of the network as float32 arrays (n, length); None selects the default."""
        sizes = self.architecture.input_sizes
        given = {name: values for name, values in given.items() if values is not None}
        surplus = sorted(set(given) - set(sizes))
        if surplus:
            raise ParameterError(f"this network takes {', '.join(sizes)}, but not {', '.join(surplus)}")
        codes: dict[str, np.ndarray] = {}
        for name, size in sizes.items():  # identity comes first
            code = given.get(name, self._default(name, size))
            if code is None:
                raise ParameterError(f"this network also needs {name}, an array (n, {size})")
            code = check_array(name, code, (None, size))
            n = len(codes.get("identity", code))
            if len(code) not in (1, n):
                raise ParameterError(f"{name} must have one row, or {n} like identity, got {len(code)}")
            codes[name] = np.ascontiguousarray(np.broadcast_to(code, (n, size)))
        return codes

    @staticmethod
    def _default(name: str, size: int) -> np.ndarray | None:
        """The code (1, size) of a neutral, frontal face; None if the input has no default."""
        if name == "nuisance":
            return np.zeros((1, size))
        if name == "emotion" and size == len(EMOTIONS):
            return np.eye(size)[[EMOTIONS.index("neutral")]]
        return np.array([[0, 1]]) if name == "orientation" and size == 2 else None

    def identity_codes(self, people: Sequence[str]) -> np.ndarray:
        """One-hot codes of people by name: float32 (n, identities).

        Raises
        ------
        ValueError
            If the network was not trained on all of them.
        """
        known = {person: position for position, person in enumerate(self.identities)}
        unknown = sorted({str(person) for person in people} - set(known))
        if unknown:
            raise ValueError(
                f"the network was not trained on {', '.join(unknown[:5])}{' and others' if len(unknown) > 5 else ''}; "
                f"it knows {len(known)} people: {', '.join(self.identities[:5])}{' ...' if len(known) > 5 else ''}"
            )
        return np.eye(len(known), dtype=np.float32)[[known[str(person)] for person in people]]

    def nuisance_of(self, photo: str) -> np.ndarray | None:
        """The nuisance code of a training photo by name: float32 (m,), or None for other photos."""
        return self.nuisance_codes[self.photos.index(photo)] if photo in self.photos else None

    def shared_part(self, nuisance: np.ndarray) -> np.ndarray:
        """The part of nuisance codes (..., m) that has the same meaning for all people: pose and expression.

        The part that was learnt freely for each photo (glasses, light) becomes 0. Networks trained without a shared
        part return the codes unchanged.
        """
        shared = np.array(nuisance, dtype=np.float32)
        n_landmark_codes = int(self.training.get("landmark_codes", 0))
        if n_landmark_codes:
            shared[..., n_landmark_codes:] = 0
        return shared

    def save(self, path: str | Path) -> None:
        """Write the network to a ``.keras`` file.

        Keras can open the file without this suite. It contains Keras' own layers and two further members: the
        description (JSON) and its arrays.

        Raises
        ------
        ValueError
            If the name does not end in ``.keras``.
        FileNotFoundError
            If the folder does not exist.
        """
        path = Path(path)
        if path.suffix != ".keras":
            raise ValueError(f"{path}: the name of a weights file must end in .keras")
        plain = build(self.architecture)  # in float32, whatever the precision of the training
        plain.set_weights(self.network.get_weights())
        description = {"architecture": asdict(self.architecture)}
        description |= {name: getattr(self, name) for name in (*_DESCRIBED, "known_photos")}
        arrays = {"photo_people": self.photo_people, "nuisance_codes": self.nuisance_codes}
        if self.landmarks is not None:
            arrays["landmarks"] = self.landmarks
        with tempfile.TemporaryDirectory() as folder:
            whole, codes = Path(folder) / "network.keras", Path(folder) / "codes.npz"
            plain.save(whole)
            utils.save_arrays(codes, arrays)
            with zipfile.ZipFile(whole, "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(_DESCRIPTION, json.dumps(description, indent=1))
                archive.write(codes, _ARRAYS)
            content = whole.read_bytes()
        utils.save_atomic(path, lambda file: file.write(content))


def load_keras(path: str | Path) -> FaceNetwork:
    """Load one of our ``.keras`` files.

    The network is built from its description; of the members that Keras wrote, only the weights are read.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file; make one with: python -m CNN train")
    budget = Budget(path.stat().st_size)
    try:
        check_kind(read_head(path), "zip")
        description, arrays = _read_members(path, budget)
        architecture = Architecture.from_description(description["architecture"])
        check_size(architecture, budget)
        network = build(architecture)
        network.load_weights(path)
        loaded = FaceNetwork(
            architecture,
            network,
            photo_people=arrays["photo_people"].astype(np.int64),
            nuisance_codes=arrays["nuisance_codes"].astype(np.float32),
            landmarks=arrays.get("landmarks"),
            known_photos=dict(description.get("known_photos", {})),  # the bundled file has none
            **{name: kind(description[name]) for name, kind in _DESCRIBED.items()},
        )
        _check_parts(loaded)
        return loaded
    except Exception as error:  # damaged files make zipfile, json, h5py and keras raise their own exceptions
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: not a face network of this suite ({reason})") from error


def check_size(architecture: Architecture, budget: Budget) -> None:
    """Raise RefusedError if a network, built from the description in a file, would be too large for this file."""
    budget.take(4 * architecture.n_weights, "its network")
    budget.take(4 * architecture.largest_features, "its network")


def _read_members(path: Path, budget: Budget) -> tuple[dict, dict[str, np.ndarray]]:
    """Read the description and the arrays of one of our files, and check the weights that Keras will read."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        for name in (_DESCRIPTION, _ARRAYS, _WEIGHTS):
            if name not in archive.namelist():
                raise ValueError(f"it holds no {name}; train a network with: python -m CNN train")
            budget.take(archive.getinfo(name).file_size, name)
        with h5py.File(io.BytesIO(archive.read(_WEIGHTS)), "r") as file:
            check_hdf5(file, budget)
        description = utils.parse_json(archive.read(_DESCRIPTION))
        return description, utils.load_arrays(archive.extract(_ARRAYS, folder))


def _check_parts(model: FaceNetwork) -> None:
    n, m = len(model.photos), model.architecture.input_sizes.get("nuisance", 0)
    if model.photo_people.shape != (n,) or model.nuisance_codes.shape != (n, m):
        raise ValueError("its nuisance codes do not match its photos")
    if n and not (model.photo_people.min() >= 0 and model.photo_people.max() < len(model.identities)):
        raise ValueError("its photos show unknown people")
    if model.landmarks is not None:
        check_array("landmarks", model.landmarks, (68, 2))
