"""A trained network: codes in, faces out; saved to and loaded from a file that holds numbers and text only."""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import utils
from CNN.architecture import Architecture, build

#: The emotions of RaFD (Langner et al. 2010) in the order of the code, and what else the code may be called.
EMOTIONS = ("angry", "contemptuous", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")

#: What our files carry beside Keras' own members.
DESCRIPTION, ARRAYS = "anonfaces.json", "anonfaces.npz"

#: Pictures that are drawn at once.
BATCH = 16


@dataclass(eq=False, repr=False)
class FaceNetwork:
    """An up-convolutional network with its weights.

    Attributes
    ----------
    architecture : Architecture
    network : keras.Model
    identities : list of str
        Whom each place of the identity code stands for: the training identities, sorted.
    dataset : str
        What it was trained on.
    training : dict
        How it was trained, as plain values; empty where the file does not say.
    photos : list of str
        Names of the training photos whose nuisance codes are known.
    photo_people : ndarray of int, shape (p,)
        Who is on each of them, as a place of the identity code.
    nuisance_codes : ndarray of float32, shape (p, m)
        What the network learnt to be each one's own: pose, expression, light. All 0 for the photo of each
        person that nuisance 0 was trained to show.
    held_out : list of str
        Names of the photos that were kept out of training.
    landmarks : ndarray of float64, shape (68, 2), or None
        Where the network draws the 68 landmarks of a typical face, x and y in its pixels.
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

    def __post_init__(self):
        self.identities = _checked_identities(self.identities, self.architecture.input_sizes["identity"])

    def __repr__(self) -> str:
        a = self.architecture
        inputs = ", ".join(f"{name} {size}" for name, size in a.inputs)
        size = f"{a.height}x{a.width} {'grey' if a.channels == 1 else 'colour'}"
        return f"<FaceNetwork {self.dataset or 'of unknown people'}: {inputs} -> {size}>"

    @cached_property
    def _draw(self):
        sizes = self.architecture.input_sizes
        signature = {name: tf.TensorSpec((None, size), tf.float32) for name, size in sizes.items()}
        return tf.function(lambda codes: self.network(codes, training=False), input_signature=[signature])

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
            For networks that take it; neutral by default. The order is that of `EMOTIONS`.
        orientation : array, shape (n, 2), optional
            For networks that take it: sine and cosine of the angle; frontal, (0, 1), by default.
        nuisance : array, shape (n, m), optional
            For networks that take it; 0 by default.
        **others : array, shape (n, length)
            Further inputs that a released file may have, by their names; they have no default.

        Returns
        -------
        ndarray of float32, shape (n, height, width, 3 or 1)
            In 0..1.

        Raises
        ------
        TypeError, ValueError
            For a code of the wrong shape, not finite, missing, or one that this network does not take. A code
            of one row serves all n.
        """
        given = {"identity": identity, "emotion": emotion, "orientation": orientation, "nuisance": nuisance}
        given = {name: codes for name, codes in {**given, **others}.items() if codes is not None}
        codes = self._checked_codes(given)
        n = len(codes["identity"])
        parts = [
            self._draw({name: tf.constant(values[start : start + BATCH]) for name, values in codes.items()})
            for start in range(0, n, BATCH)
        ]
        a = self.architecture
        return (
            np.concatenate([part.numpy() for part in parts])
            if parts
            else np.zeros((0, a.height, a.width, a.channels), dtype=np.float32)
        )

    def _checked_codes(self, given: dict) -> dict[str, np.ndarray]:
        """All inputs of the network as float32 arrays (n, length)."""
        sizes = self.architecture.input_sizes
        surplus = sorted(set(given) - set(sizes))
        if surplus:
            raise ValueError(f"this network takes {', '.join(sizes)}, and no {', '.join(surplus)}")
        if "identity" not in given:
            raise ValueError("identity must be given, one row for each face")
        codes = {name: _checked_code(name, values, sizes[name]) for name, values in given.items()}
        n = len(codes["identity"])
        for name, size in sizes.items():
            if name not in codes:
                codes[name] = self._default(name, size)[None]
            if len(codes[name]) not in (1, n):
                raise ValueError(
                    f"{n} rows of identity need {n} rows of {name} or one, not {len(codes[name])}"
                )
            codes[name] = np.ascontiguousarray(np.broadcast_to(codes[name], (n, size)))
        return {name: codes[name] for name in sizes}

    @staticmethod
    def _default(name: str, size: int) -> np.ndarray:
        if name == "nuisance":
            return np.zeros(size, dtype=np.float32)
        if name == "emotion" and size == len(EMOTIONS):
            return np.eye(size, dtype=np.float32)[EMOTIONS.index("neutral")]
        if name == "orientation" and size == 2:
            return np.array([0, 1], dtype=np.float32)
        raise ValueError(f"this network also needs {name}, an array (n, {size})")

    def places(self, people: Sequence[str]) -> np.ndarray:
        """Places of people in the identity code: (n,).

        Raises
        ------
        ValueError
            If the network was not trained on one of them.
        """
        known = {person: place for place, person in enumerate(self.identities)}
        unknown = sorted({str(person) for person in people} - set(known))
        if unknown:
            raise ValueError(
                f"the network was not trained on {', '.join(unknown[:5])}{' and others' if len(unknown) > 5 else ''}; "
                f"it knows {len(known)} people: {', '.join(self.identities[:5])}{' ...' if len(known) > 5 else ''}"
            )
        return np.array([known[str(person)] for person in people], dtype=np.int64)

    def identity_codes(self, people: Sequence[str]) -> np.ndarray:
        """One-hot codes of people by name: float32 (n, identities); errors as for `places`."""
        return np.eye(len(self.identities), dtype=np.float32)[self.places(people)]

    @cached_property
    def _photo_rows(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.photos)}

    def nuisance_of(self, photo: str) -> np.ndarray | None:
        """The nuisance code of a training photo by its name: float32 (m,), None where there is none."""
        row = self._photo_rows.get(str(photo))
        return None if row is None else self.nuisance_codes[row]

    def shared_part(self, nuisance: np.ndarray) -> np.ndarray:
        """The part of nuisance codes (..., m) that means the same for all people: pose and expression.

        What was learnt freely for each photo (glasses, light) is set to 0. Networks trained without such a part
        give the codes as they are.
        """
        shared = np.array(nuisance, dtype=np.float32)
        n_landmark_codes = int(self.training.get("landmark_codes", 0))
        if n_landmark_codes:
            shared[..., n_landmark_codes:] = 0
        return shared

    def save(self, path: str | Path) -> None:
        """Write the network to a ``.keras`` file.

        It is a file that Keras opens by itself, made of Keras' own layers, with two further members: the
        description (JSON) and the arrays that belong to it.

        Raises
        ------
        ValueError
            If the name does not end in ``.keras``.
        FileNotFoundError
            If the folder does not exist.
        """
        path = _checked_suffix(Path(path))
        plain = build(self.architecture)  # in float32, whatever it was trained in
        plain.set_weights(self.network.get_weights())
        description = {
            "architecture": self.architecture.describe(),
            "identities": self.identities,
            "dataset": self.dataset,
            "training": self.training,
            "photos": self.photos,
            "held_out": self.held_out,
        }
        arrays = {"photo_people": self.photo_people, "nuisance_codes": self.nuisance_codes}
        if self.landmarks is not None:
            arrays["landmarks"] = self.landmarks
        with tempfile.TemporaryDirectory() as folder:
            whole, codes = Path(folder) / "network.keras", Path(folder) / "codes.npz"
            plain.save(whole)
            utils.save_arrays(codes, arrays)
            with zipfile.ZipFile(whole, "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(DESCRIPTION, json.dumps(description, indent=1))
                archive.write(codes, ARRAYS)
            content = whole.read_bytes()
        utils.save_atomic(path, lambda file: file.write(content))


def _checked_identities(identities: Sequence[str], n: int) -> list[str]:
    names = [str(name) for name in identities]
    if len(names) != n:
        raise ValueError(f"the network has {n} identities, but {len(names)} names were given")
    if len(set(names)) != n:
        raise ValueError("identities must be named once each, in the order of the identity code")
    return names


def _checked_code(name: str, values, size: int) -> np.ndarray:
    try:
        values = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be an array of numbers ({error})") from error
    if values.ndim != 2 or values.shape[1] != size:
        raise ValueError(f"{name} must have the shape (n, {size}), one row for each face, not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds NaN or infinite values")
    return values


def _checked_suffix(path: Path) -> Path:
    if path.suffix != ".keras":
        raise ValueError(f"{path}: weights are kept in a file whose name ends in .keras")
    return path


def load_keras(path: str | Path) -> FaceNetwork:
    """Load one of our ``.keras`` files.

    The network is built from its description; of what Keras itself wrote only the weights are read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged or not one of ours.
    """
    path = _checked_suffix(Path(path))
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: there is no such file of weights; make one with: python -m CNN train"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            if DESCRIPTION not in archive.namelist() or ARRAYS not in archive.namelist():
                raise ValueError("it is no face network of this suite, train one with: python -m CNN train")
            description = json.loads(_member(archive, DESCRIPTION))
            arrays = _arrays(_member(archive, ARRAYS))
        architecture = Architecture.from_description(description["architecture"])
        network = build(architecture)
        network.load_weights(path)
        loaded = FaceNetwork(
            architecture,
            network,
            list(description["identities"]),
            str(description["dataset"]),
            dict(description["training"]),
            [str(name) for name in description["photos"]],
            arrays["photo_people"].astype(np.int64),
            arrays["nuisance_codes"].astype(np.float32),
            [str(name) for name in description["held_out"]],
            arrays.get("landmarks"),
        )
        _check_parts(loaded)
        return loaded
    except Exception as error:  # damaged files make zipfile, json, h5py and keras raise classes of their own
        raise ValueError(f"{path}: cannot be used as a face network ({_first_line(error)})") from error


def _check_parts(model: FaceNetwork) -> None:
    n, m = len(model.photos), model.architecture.input_sizes.get("nuisance", 0)
    if model.photo_people.shape != (n,) or model.nuisance_codes.shape != (n, m):
        raise ValueError("its nuisance codes do not fit its photos")
    if n and not (model.photo_people.min() >= 0 and model.photo_people.max() < len(model.identities)):
        raise ValueError("its photos name people that it does not have")
    if model.landmarks is not None and model.landmarks.shape != (68, 2):
        raise ValueError("its landmarks are not 68 points")


#: Members are not unpacked beyond this size.
LARGEST_MEMBER = 1 << 28


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > LARGEST_MEMBER:
        raise ValueError(f"{name} unpacks to more than {LARGEST_MEMBER} bytes")
    return archive.read(name)


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes.npz"
        path.write_bytes(io.BytesIO(content).getbuffer())
        return utils.load_arrays(path)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
