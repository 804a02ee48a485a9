"""Compute face descriptors: one row of numbers per photo; rows of one person are close to each other.

`EMBEDDINGS` is the registry. ``"dlib"`` and ``"pca"`` need no file; ``"facenet"``, ``"onnx:PATH"`` and
``"stored:PATH"`` read a recogniser, or descriptors, that the user supplies.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

import dlib
import numpy as np

import detection
import dlib_network
import utils
from checks import Choice, Number, ParameterError, check_fields, check_number
from datasets import Faces
from detection import Images
from recogniser_files import open_recogniser

MODELS = Path(__file__).resolve().parent / "datasets" / "encoding_data" / "models"

#: The distance below which the paper matches two dlib descriptors to one person (section 4.2); it is not calibrated.
PAPER_THRESHOLD = 0.6

#: Padding around the face in dlib's chips, as in the training of its network.
CHIP_PADDING = 0.25

#: Faces whose landmarks extend over fewer pixels are enlarged for dlib's chips, up to 4 times.
_CHIP_LANDMARKS = 300

#: Number of photos per batch of a network.
_BATCH = 64


def embed(faces: Images, embedding: str = "dlib", *, strict: bool = False, **options) -> np.ndarray:
    """Compute the descriptor of the face in each photo.

    If the detector misses a face, the whole photo is described; ``detection.detect(faces).found`` flags
    such photos. Descriptors are cached on disk by the content of photo and model, so an interrupted run resumes.

    Parameters
    ----------
    faces : Faces or sequence of n uint8 arrays (h, w, 3)
    embedding : str, default "dlib"
        - ``"dlib"``: 128 values, dlib's ResNet (Euclidean distance; most pairs of photos of one person are
          closer than 0.6).
        - ``"pca"``: eigenfaces of aligned crops, fitted to these photos (Turk and Pentland 1991);
          option ``n_components``, 10 by default as in the AnonFACES paper, at most n - 1.
        - ``"facenet"``: a FaceNet file (.onnx, .h5, .keras) in ``datasets/encoding_data/models/``.
        - ``"onnx:PATH"``: any recogniser in an ONNX file. Its options are the fields of `_Preparation`; they may
          also be stored in a JSON file of the same name beside it.
        - ``"stored:PATH"``: descriptors from a file that `utils.load_encodings` reads, looked up by the longest
          common end of the photos' names; suffix, kind of slash and form of Unicode do not matter.
    strict : bool, default False
        Raise an error if a photo does not show exactly one face.

    Returns
    -------
    ndarray of float32, shape (n, d)
        Row i describes face i.

    Raises
    ------
    ValueError
        If the embedding is unknown, a model is damaged, a photo has no stored descriptor, or `strict` and a photo
        does not show exactly one face.
    FileNotFoundError
        If a file of a model or of descriptors is missing; the message says where to put it.

    Examples
    --------
    >>> import datasets, embedding
    >>> embedding.embed(datasets.load_faces("orl", per_identity=1), "dlib").shape
    (40, 128)
    """
    if not isinstance(embedding, str):
        raise TypeError(f"embedding must be a name such as 'dlib', got {type(embedding).__name__}")
    kind, argument = split_name(embedding, EMBEDDINGS)

    if len(faces) == 0:
        raise ValueError("faces must hold at least one photo to embed")
    if strict:
        detection.detect(faces, strict=True)
    arguments = [argument] if argument else []
    descriptors = np.asarray(EMBEDDINGS[kind](faces, *arguments, **options), dtype=np.float32)
    broken = np.flatnonzero(~np.isfinite(descriptors).all(axis=1))
    if len(broken):
        found = f"NaN or infinite values for {len(broken)} photos, first row {broken[0]}"
        raise ValueError(f"embedding {embedding!r} gave {found}")
    return descriptors


def split_name(embedding: str, known: Iterable[str]) -> tuple[str, str]:
    """Split 'KIND' or 'KIND:PATH' into kind and path, which is '' for the kinds that need none.

    Raises
    ------
    ParameterError
        If `known` has no such kind, or the path is missing or superfluous.
    """
    kind, _, path = embedding.partition(":")
    if kind not in known or bool(path) != (kind in NEEDS_PATH):
        shown = ", ".join(f"'{name}:PATH'" if name in NEEDS_PATH else f"'{name}'" for name in known)
        raise ParameterError(f"unknown embedding {embedding!r}; choose from {shown}")
    return kind, path


def available() -> list[str]:
    """The embeddings that need no path: dlib, PCA, and FaceNet if its file is installed."""
    return ["dlib", "pca", *(["facenet"] if _facenet_files() else [])]


# ----------------------------------------------------------------------------------------------------------
# dlib and PCA
# ----------------------------------------------------------------------------------------------------------


def _embed_dlib(faces: Images) -> np.ndarray:
    faces = detection.as_faces(faces)
    landmarks = detection.detect(faces).landmarks
    place = "dlib-" + utils.source_key(__file__)[:16]

    def arguments(i: int) -> tuple[np.ndarray, np.ndarray]:
        return faces.images[i], landmarks[i]

    return np.stack(utils.cached_rows(place, faces.image_keys, _describe_face, arguments, "embedding (dlib)"))


def _describe_face(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Describe one face: (h, w, 3) and (68, 2) -> (128,)."""
    return dlib_network.describe_chips(face_chip(image, landmarks, dlib_network.CHIP_SIZE)[None])[0]


def face_chip(
    image: np.ndarray, landmarks: np.ndarray, size: int, padding: float = CHIP_PADDING
) -> np.ndarray:
    """Crop a face (h, w, 3) with landmarks (68, 2) as dlib's networks expect it: uint8 (size, size, 3).

    dlib takes integer landmarks, so a small face is enlarged first to keep them precise.
    """
    spread = np.ptp(landmarks, axis=0).max()
    scale = float(np.clip(np.ceil(_CHIP_LANDMARKS / max(spread, 1.0)), 1, 4))
    points = [dlib.point(*(int(v) for v in np.rint(p))) for p in (landmarks + 0.5) * scale - 0.5]
    box = dlib.rectangle(0, 0, image.shape[1], image.shape[0])  # no effect: the points place the chip
    shape = dlib.full_object_detection(box, points)
    return dlib.get_face_chip(detection.resize(image, scale), shape, size=size, padding=padding)


def crops(faces: Images, size: int = 112, zoom: float = 1.0) -> np.ndarray:
    """Crop all faces upright: uint8 (n, size, size, 3); see `detection.aligned_crop`."""
    faces = detection.as_faces(faces)
    pairs = zip(faces.images, detection.detect(faces).landmarks, strict=True)
    return np.stack([detection.aligned_crop(image, points, size, zoom) for image, points in pairs])


def _embed_pca(faces: Images, n_components: int = 10) -> np.ndarray:
    """Eigenfaces: principal components of grey aligned crops (64 x 64), fitted to the photos themselves."""
    from sklearn.decomposition import PCA  # slow to import

    check_number("n_components", n_components, int, at_least=1)
    if len(faces) < 2:
        raise ValueError("eigenfaces need at least two photos; use the embedding 'dlib' for one")
    pixels = crops(faces, size=64, zoom=0.85).mean(axis=3).reshape(len(faces), -1) / 255.0  # (n, 4096)
    solver = "full" if len(pixels) < pixels.shape[1] else "covariance_eigh"  # both exact; the faster one
    return PCA(min(n_components, len(faces) - 1, pixels.shape[1]), svd_solver=solver).fit_transform(pixels)


# ----------------------------------------------------------------------------------------------------------
# Recognisers from files
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Preparation:
    """The preprocessing of pixels for a recogniser, and of its descriptors.

    Attributes
    ----------
    input_size : int or None
        Side of its square input in pixels, 16 to 1024; None reads it from the model.
    mean, scale : float
        Pixel p (0 to 255) becomes ``(p - mean) * scale``.
    channels : str
        ``"RGB"`` or ``"BGR"``.
    zoom : float
        Values below 1 show more around the face, see `detection.aligned_crop`.
    normalise : bool
        Whether descriptors are scaled to unit length.
    whiten : bool
        Scale each photo to mean 0 and standard deviation 1, instead of using `mean` and `scale`.
    """

    input_size: Annotated[int | None, Number(int, at_least=16, at_most=1024)] = None
    mean: Annotated[float, Number()] = 127.5
    scale: Annotated[float, Number()] = 1 / 127.5
    channels: Annotated[str, Choice(("RGB", "BGR"))] = "RGB"
    zoom: Annotated[float, Number(at_least=0.1, at_most=10)] = 1.0
    normalise: Annotated[bool, Choice((True, False))] = True
    whiten: Annotated[bool, Choice((True, False))] = False

    def __post_init__(self):
        check_fields(self)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Uint8 RGB crops (n, size, size, 3) -> float32 of the same shape."""
        values = pixels.astype(np.float32)
        if self.whiten:
            mean = values.mean(axis=(1, 2, 3), keepdims=True)
            deviation = values.std(axis=(1, 2, 3), keepdims=True)
            values = (values - mean) / np.maximum(deviation, np.float32(1 / np.sqrt(values[0].size)))
        else:
            values = (values - np.float32(self.mean)) * np.float32(self.scale)
        return values if self.channels == "RGB" else values[..., ::-1]


#: FaceNet (Schroff et al. 2015) as its public ports were trained: 160 pixels, a margin around the face.
_FACENET = _Preparation(mean=127.5, scale=1 / 128, zoom=0.8)
_FACENET_KERAS = _Preparation(zoom=0.8, whiten=True)  # facenet_keras.h5 was trained on whitened photos


def _preparation(path: Path, default: _Preparation, options: dict) -> _Preparation:
    """Combine a model's defaults, the JSON file beside it, and the caller's options."""
    beside = path.with_suffix(".json")
    known = [field.name for field in dataclasses.fields(_Preparation)]
    stored = {}
    if beside.is_file():
        try:
            stored = utils.parse_json(beside.read_bytes())
        except ValueError as error:
            raise ValueError(f"{beside}: is not valid JSON ({error})") from error
        if not isinstance(stored, dict) or not stored.keys() <= set(known):
            raise ValueError(f"{beside}: must be an object with keys from {known}")
    unknown = options.keys() - set(known)
    if unknown:
        raise ParameterError(f"unknown options {sorted(unknown)}; choose from {known}")
    return dataclasses.replace(default, **{**stored, **options})


def _embed_onnx(faces: Images, path: str, **options) -> np.ndarray:
    return _embed_network(faces, Path(path), _preparation(Path(path), _Preparation(), options))


def _embed_facenet(faces: Images, **options) -> np.ndarray:
    found = _facenet_files()
    if not found:
        raise FileNotFoundError(
            f"no FaceNet file in {MODELS}: its name must contain 'facenet' and end in .onnx, .h5 or .keras; put "
            "facenet_keras.h5 (keras-facenet) there, or facenet-pytorch's InceptionResnetV1 exported with "
            "torch.onnx.export"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{MODELS}: holds several FaceNet files ({names}); keep one of them")
    path = found[0]
    default = _FACENET if path.suffix == ".onnx" else _FACENET_KERAS
    return _embed_network(faces, path, _preparation(path, default, options))


def _facenet_files() -> list[Path]:
    files = [path for path in MODELS.glob("*") if path.suffix in (".onnx", ".h5", ".keras")]
    return sorted(path for path in files if "facenet" in path.name.lower())


def _embed_network(faces: Images, path: Path, preparation: _Preparation) -> np.ndarray:
    """Run a recogniser on all photos."""
    recogniser = open_recogniser(path)
    size = recogniser.side
    if preparation.input_size and size and preparation.input_size != size:
        raise ValueError(f"{path}: takes {size}x{size} pixels, got input_size={preparation.input_size}")
    side = preparation.input_size or size or 160
    model_key = utils.content_key(path.read_bytes(), [str(value) for value in preparation.__dict__.values()])
    place = f"network-{utils.source_key(__file__)[:16]}-{model_key[:16]}"

    def describe(pixels: np.ndarray) -> np.ndarray:
        try:
            return recogniser.run(preparation.apply(pixels))
        except ValueError as error:
            raise ValueError(f"{path}: cannot run on {side}x{side} RGB photos ({error})") from None

    title = f"embedding ({path.stem})"
    descriptors = describe_crops(faces, place, describe, side, preparation.zoom, title, _BATCH)
    return unit_rows(descriptors) if preparation.normalise else descriptors


def describe_crops(
    faces: Images,
    place: str,
    describe: Callable[[np.ndarray], np.ndarray],
    size: int,
    zoom: float,
    title: str,
    batch: int,
) -> np.ndarray:
    """Describe all aligned crops in batches, with a cache.

    Parameters
    ----------
    faces : Faces or sequence of n uint8 arrays (h, w, 3)
    place : str
        Name of the store in the cache; must change with everything that `describe` depends on.
    describe : callable
        uint8 crops (b, size, size, 3) -> float32 (b, d).
    size, zoom
        See `detection.aligned_crop`.
    title : str
        Label of the progress bar.
    batch : int
        Photos per call.

    Returns
    -------
    ndarray of float32, shape (n, d)
    """
    faces = detection.as_faces(faces)
    landmarks = detection.detect(faces).landmarks

    def describe_rows(rows: Sequence[int]) -> np.ndarray:
        aligned = [detection.aligned_crop(faces.images[i], landmarks[i], size, zoom) for i in rows]
        return describe(np.stack(aligned))

    return np.stack(utils.cached_batches(place, faces.image_keys, describe_rows, title, batch))


def unit_rows(descriptors: np.ndarray) -> np.ndarray:
    """Scale descriptors (n, d) to unit length; zeros stay zeros."""
    return descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-12)


# ----------------------------------------------------------------------------------------------------------
# Stored descriptors
# ----------------------------------------------------------------------------------------------------------


def _embed_stored(faces: Images, path: str) -> np.ndarray:
    """Look up descriptors by the photos' names, see `_match_names`."""
    if not isinstance(faces, Faces):
        raise TypeError("stored descriptors are looked up by the photos' names; pass a Faces, not images")
    names, descriptors = utils.load_encodings(path)
    try:
        return descriptors[_match_names([str(name) for name in faces.names], names)]
    except ValueError as error:
        advice = "embed with 'dlib', or store one row per photo under its name"
        raise ValueError(f"{path}: {error}; {advice}") from None


@dataclass(frozen=True)
class _Name:
    """A photo's name, of which neither the form of Unicode nor the kind of slash matters.

    Attributes
    ----------
    parts : tuple of str
        Folders and file name without suffix, from the end.
    suffix : str
    """

    parts: tuple[str, ...]
    suffix: str

    @classmethod
    def of(cls, text: str) -> _Name:
        path = PurePosixPath(unicodedata.normalize("NFC", text).replace("\\", "/"))
        folders = [part for part in path.parts[:-1] if part not in ("/", "//", ".")]
        return cls((path.stem, *reversed(folders)), path.suffix)


def _match_names(photos: Sequence[str], stored: Sequence[str]) -> list[int]:
    """Find the row of each photo, by the longest common end of both names, in whole parts and without suffix.

    Folders may be missing on either side. Names whose folders differ match only if no photo's folders agree with a
    row's, as when the photos were described in another place. Of equally long ends, the same suffix wins, then the
    same number of folders.

    Raises
    ------
    ValueError
        If a photo has no row or several, or two photos share one.
    """
    rows: dict[tuple[str, ...], list[int]] = {}
    stored_names = [_Name.of(str(name)) for name in stored]
    for row, name in enumerate(stored_names):
        for length in range(1, len(name.parts) + 1):
            rows.setdefault(name.parts[:length], []).append(row)
    wanted = {photo: _Name.of(photo) for photo in photos}
    found = {photo: _best_rows(name, stored_names, rows) for photo, name in wanted.items()}
    agreeing = {
        photo: [row for row in found[photo] if _agree(name, stored_names[row])]
        for photo, name in wanted.items()
    }
    if any(agreeing.values()):
        found = agreeing
    n_missing = sum(not found[photo] for photo in photos)
    if n_missing:
        raise ValueError(f"{n_missing} of {len(photos)} photos have no stored descriptor")
    chosen = [candidates[0] for candidates in found.values()]
    if any(len(candidates) > 1 for candidates in found.values()) or len(set(chosen)) < len(chosen):
        raise ValueError("several rows or photos share a name")
    return [found[photo][0] for photo in photos]


def _best_rows(name: _Name, stored: Sequence[_Name], rows: dict[tuple[str, ...], list[int]]) -> list[int]:
    """Return the rows with the longest common end; several only if they fit equally well."""
    lengths = range(len(name.parts), 0, -1)
    candidates = next((rows[name.parts[:n]] for n in lengths if name.parts[:n] in rows), [])
    for same in (
        lambda row: stored[row].suffix == name.suffix,
        lambda row: len(stored[row].parts) == len(name.parts),
    ):
        candidates = list(filter(same, candidates)) or candidates
    return candidates


def _agree(a: _Name, b: _Name) -> bool:
    """Whether one name is the end of the other."""
    length = min(len(a.parts), len(b.parts))
    return a.parts[:length] == b.parts[:length]


EMBEDDINGS = {
    "dlib": _embed_dlib,
    "pca": _embed_pca,
    "facenet": _embed_facenet,
    "onnx": _embed_onnx,
    "stored": _embed_stored,
}

#: Embeddings that are fitted to their input photos: descriptors of two calls cannot be compared.
FITTED = {"pca"}

#: Embeddings that are written ``"name:PATH"``.
NEEDS_PATH = {"onnx", "stored"}
