"""Faces -> descriptors: one row of numbers for each photo, near to each other for photos of one person.

`EMBEDDINGS` names the ones that need no file: ``"dlib"`` and ``"pca"``. ``"facenet"``, ``"onnx:PATH"`` and
``"stored:PATH"`` read a recogniser or descriptors that the user has.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import dlib
import h5py
import numpy as np
from sklearn.decomposition import PCA

import detection
import dlib_network
import utils
from datasets import Faces

MODELS = Path(__file__).resolve().parent / "datasets" / "encoding_data" / "models"

#: How many photos go through a network at once.
BATCH = 64

#: Padding around the face in dlib's chips, which its network was trained with.
CHIP_PADDING = 0.25


def embed(
    faces: Faces | Sequence[np.ndarray], embedding: str = "dlib", *, strict: bool = False, **options
) -> np.ndarray:
    """Describe the face on each photo by a row of numbers.

    A face that the detector misses is described from the whole frame; ``detection.detect(faces).found`` tells
    which those are. Descriptors are cached on disk by the content of photo and model, so an interrupted run
    goes on where it stopped.

    Parameters
    ----------
    faces : Faces or sequence of n uint8 arrays (h, w, 3)
    embedding : str, default "dlib"
        - ``"dlib"``: 128 values, dlib's ResNet (Euclidean distance; two photos of one person are mostly
          nearer than 0.6).
        - ``"pca"``: eigenfaces of aligned crops, fitted on these very photos (Turk and Pentland 1991);
          option ``n_components``, 10 by default as in the AnonFACES paper, at most n - 1.
        - ``"facenet"``: a FaceNet file (.onnx, .h5, .keras) in ``datasets/encoding_data/models/``.
        - ``"onnx:PATH"``: any recogniser in an ONNX file. Options (or a JSON file of the same name beside it,
          with the same keys): ``input_size``, ``mean``, ``scale`` (pixel p becomes ``(p - mean) * scale``),
          ``channels`` (``"RGB"`` or ``"BGR"``), ``zoom`` (see `detection.aligned_crop`), ``normalise`` (unit length).
        - ``"stored:PATH"``: descriptors from a file that `utils.load_encodings` reads, found by the
          photos' names (with or without folder and ending).
    strict : bool, default False
        Raise an error where a photo does not show exactly one face.

    Returns
    -------
    ndarray of float32, shape (n, d)
        Row i describes face i.

    Raises
    ------
    ValueError
        For an unknown embedding, a missed face under `strict`, a damaged model, or a photo without a
        stored descriptor.
    FileNotFoundError
        If a model or file of descriptors is missing; the message says where to put it.

    Examples
    --------
    >>> import datasets, embedding
    >>> embedding.embed(datasets.load_faces("orl", per_identity=1), "dlib").shape
    (40, 128)
    """
    if not isinstance(embedding, str):
        raise TypeError(f"embedding must be a name such as 'dlib', not {type(embedding).__name__}")
    kind, _, argument = embedding.partition(":")
    embedder = EMBEDDINGS.get(kind)
    if embedder is None or bool(argument) != (kind in NEEDS_PATH):
        known = ", ".join(f"'{name}:PATH'" if name in NEEDS_PATH else f"'{name}'" for name in EMBEDDINGS)
        raise ValueError(f"unknown embedding {embedding!r}; there is {known}")
    if len(faces) == 0:
        raise ValueError("there is no photo to embed")
    if strict:
        detection.detect(faces, strict=True)
    descriptors = np.asarray(embedder(faces, *([argument] if argument else []), **options), dtype=np.float32)
    broken = np.flatnonzero(~np.isfinite(descriptors).all(axis=1))
    if len(broken):
        raise ValueError(
            f"embedding {embedding!r} gave NaN or infinite values for {len(broken)} photos, first row {broken[0]}"
        )
    return descriptors


def available() -> list[str]:
    """The embeddings that can be used without naming a file: dlib, PCA, and FaceNet where its file is in place."""
    facenet = ["facenet"] if _facenet_files() else []
    return ["dlib", "pca", *facenet]


def _embed_dlib(faces: Faces | Sequence[np.ndarray]) -> np.ndarray:
    landmarks = detection.detect(faces).landmarks
    images = _images(faces)
    place = "dlib-" + utils.source_key(__file__)[:16]

    def arguments(i: int) -> tuple[np.ndarray, np.ndarray]:
        return images[i], landmarks[i]

    return np.stack(
        utils.cached_rows(place, _image_keys(faces), describe_face, arguments, "embedding (dlib)")
    )


def describe_face(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Describe one face: (h, w, 3) and (68, 2) -> (128,)."""
    larger, points = _enlarge(image, landmarks)
    chip = dlib.get_face_chip(larger, points, size=dlib_network.CHIP_SIZE, padding=CHIP_PADDING)
    return dlib_network.describe_chips(chip[None])[0]


def _enlarge(image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, dlib.full_object_detection]:
    """Enlarge a small face, so that dlib's whole-pixel points keep the landmarks' precision."""
    spread = np.ptp(landmarks, axis=0).max()
    scale = float(np.clip(np.ceil(detection.LANDMARK_BOX / max(spread, 1.0)), 1, 4))
    points = [dlib.point(*(int(v) for v in np.rint(p))) for p in (landmarks + 0.5) * scale - 0.5]
    box = dlib.rectangle(0, 0, image.shape[1], image.shape[0])  # the chip is cut by the points alone
    return detection.resize(image, scale), dlib.full_object_detection(box, points)


def _images(faces: Faces | Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    return faces.images if isinstance(faces, Faces) else faces


def _image_keys(faces: Faces | Sequence[np.ndarray]) -> list[str]:
    return faces.image_keys if isinstance(faces, Faces) else [utils.content_key(image) for image in faces]


def crops(faces: Faces | Sequence[np.ndarray], size: int = 112, zoom: float = 1.0) -> np.ndarray:
    """Cut out all faces upright: uint8 (n, size, size, 3); see `detection.aligned_crop`."""
    landmarks = detection.detect(faces).landmarks
    return np.stack(
        [
            detection.aligned_crop(image, points, size, zoom)
            for image, points in zip(_images(faces), landmarks, strict=True)
        ]
    )


def _embed_pca(faces: Faces | Sequence[np.ndarray], n_components: int = 10) -> np.ndarray:
    """Eigenfaces: principal components of grey aligned crops (64 x 64), fitted on the photos themselves."""
    if isinstance(n_components, bool) or not isinstance(n_components, int | np.integer) or n_components < 1:
        raise ValueError(f"n_components must be a whole number of at least 1, not {n_components!r}")
    if len(faces) < 2:
        raise ValueError("eigenfaces need at least two photos; use the embedding 'dlib' for one")
    pixels = crops(faces, size=64, zoom=0.85).mean(axis=3).reshape(len(faces), -1) / 255.0  # (n, 4096)
    solver = (
        "full" if len(pixels) < pixels.shape[1] else "covariance_eigh"
    )  # both exact, each where it is the faster
    return PCA(min(n_components, len(faces) - 1, pixels.shape[1]), svd_solver=solver).fit_transform(pixels)


@dataclass(frozen=True)
class Preparation:
    """What a recogniser wants to be given.

    Attributes
    ----------
    input_size : int or None
        Side of its square input in pixels; None reads it from the model.
    mean, scale : float
        Pixel p (0 to 255) becomes ``(p - mean) * scale``.
    channels : str
        ``"RGB"`` or ``"BGR"``.
    zoom : float
        Under 1 shows more around the face, see `detection.aligned_crop`.
    normalise : bool
        Whether descriptors are brought to unit length.
    whiten : bool
        Bring each photo to mean 0 and standard deviation 1 by itself, instead of `mean` and `scale`.
    """

    input_size: int | None = None
    mean: float = 127.5
    scale: float = 1 / 127.5
    channels: str = "RGB"
    zoom: float = 1.0
    normalise: bool = True
    whiten: bool = False

    def __post_init__(self):
        if self.channels not in ("RGB", "BGR"):
            raise ValueError(f"channels must be 'RGB' or 'BGR', not {self.channels!r}")
        size = self.input_size
        if size is not None and not (isinstance(size, Integral) and 16 <= size <= 1024):
            raise ValueError(
                f"input_size must be a whole number from 16 to 1024, or None to read it from the model, "
                f"not {size!r}"
            )
        for name in ("mean", "scale", "zoom"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(value):
                raise ValueError(f"{name} must be a number, not {value!r}")
        if not 0.1 <= self.zoom <= 10:
            raise ValueError(f"zoom must lie between 0.1 and 10, not {self.zoom!r}")
        for name in ("normalise", "whiten"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {getattr(self, name)!r}")

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Uint8 RGB crops (n, size, size, 3) -> float32 of the same shape."""
        values = pixels.astype(np.float32)
        if self.whiten:
            mean, deviation = (
                values.mean(axis=(1, 2, 3), keepdims=True),
                values.std(axis=(1, 2, 3), keepdims=True),
            )
            values = (values - mean) / np.maximum(deviation, np.float32(1 / np.sqrt(values[0].size)))
        else:
            values = (values - np.float32(self.mean)) * np.float32(self.scale)
        return values if self.channels == "RGB" else values[..., ::-1]


#: FaceNet (Schroff et al. 2015) as its public ports were trained: 160 pixels, a margin around the face.
FACENET = Preparation(mean=127.5, scale=1 / 128, zoom=0.8)
FACENET_KERAS = Preparation(zoom=0.8, whiten=True)  # facenet_keras.h5 was trained on whitened photos


def _preparation(path: Path, default: Preparation, options: dict) -> Preparation:
    """Combine a model's defaults, the JSON file beside it, and the caller's options."""
    beside = path.with_suffix(".json")
    known = set(Preparation.__dataclass_fields__)
    stored = {}
    if beside.is_file():
        try:
            stored = json.loads(beside.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{beside}: is not valid JSON ({error})") from error
        if not isinstance(stored, dict) or set(stored) - known:
            raise ValueError(f"{beside}: must be an object with keys out of {sorted(known)}")
    unknown = set(options) - known
    if unknown:
        raise TypeError(f"unknown options {sorted(unknown)}; a recogniser takes {sorted(known)}")
    return Preparation(**{**default.__dict__, **stored, **options})


def _embed_onnx(faces: Faces | Sequence[np.ndarray], path: str, **options) -> np.ndarray:
    path = Path(path)
    return _embed_network(faces, path, *_open_onnx(path), _preparation(path, Preparation(), options))


def _embed_facenet(faces: Faces | Sequence[np.ndarray], **options) -> np.ndarray:
    path = _facenet_file()
    opener, default = (_open_onnx, FACENET) if path.suffix == ".onnx" else (_open_keras, FACENET_KERAS)
    return _embed_network(faces, path, *opener(path), _preparation(path, default, options))


def _facenet_files() -> list[Path]:
    endings = (".onnx", ".h5", ".keras")
    return sorted(
        path for path in MODELS.glob("*") if path.suffix in endings and "facenet" in path.name.lower()
    )


def _facenet_file() -> Path:
    found = _facenet_files()
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"{MODELS}: holds several FaceNet files ({', '.join(path.name for path in found)}); leave one"
        )
    raise FileNotFoundError(
        f"no FaceNet file lies in {MODELS}: put one there whose name contains 'facenet' and ends in .onnx, .h5 or "
        ".keras, such as facenet_keras.h5 (keras-facenet), or facenet-pytorch's InceptionResnetV1 exported with "
        "torch.onnx.export"
    )


def _embed_network(
    faces: Faces | Sequence[np.ndarray],
    path: Path,
    run: Callable[[np.ndarray], np.ndarray],
    size: int | None,
    preparation: Preparation,
) -> np.ndarray:
    """Run a recogniser over all photos in batches.

    `run` takes float32 (b, size, size, 3) and gives (b, d); `size` is the input size that the model fixes.
    """
    if preparation.input_size and size and preparation.input_size != size:
        raise ValueError(
            f"{path}: takes {size}x{size} pixels, but input_size={preparation.input_size} was asked for"
        )
    side = preparation.input_size or size or 160
    images, landmarks, keys = _images(faces), detection.detect(faces).landmarks, _image_keys(faces)
    model_key = utils.content_key(path.read_bytes(), [str(value) for value in preparation.__dict__.values()])
    place = f"network-{utils.source_key(__file__)[:16]}-{model_key[:16]}"

    def describe(rows: Sequence[int]) -> np.ndarray:
        pixels = np.stack(
            [detection.aligned_crop(images[i], landmarks[i], side, preparation.zoom) for i in rows]
        )
        try:
            answers = np.asarray(run(preparation.apply(pixels)), dtype=np.float32)
        except Exception as error:  # each runtime raises classes of its own
            raise ValueError(
                f"{path}: cannot run on {side}x{side} RGB photos ({_first_line(error)})"
            ) from error
        if answers.ndim != 2 or len(answers) != len(rows):
            raise ValueError(
                f"{path}: answers with shape {answers.shape}; a recogniser gives one row for each photo"
            )
        return answers

    rows = utils.cached_batches(place, keys, describe, f"embedding ({path.stem})", BATCH)
    descriptors = np.stack(rows)
    if preparation.normalise:
        descriptors = descriptors / np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-12)
    return descriptors


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _side(path: Path, height, width) -> int | None:
    """Side of a recogniser's square input; None where the model leaves it open."""
    fixed = {side for side in (height, width) if isinstance(side, int)}
    if len(fixed) > 1:
        raise ValueError(f"{path}: takes {height}x{width} pixels; only square inputs are supported")
    return fixed.pop() if fixed else None


def _open_onnx(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], int | None]:
    """Open an ONNX recogniser: a function on float32 (b, size, size, 3), and the size that it fixes."""
    import onnxruntime  # slow to import, and only needed here

    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such ONNX file")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime raises classes of its own for every way a file can be broken
        raise ValueError(f"{path}: is not a whole ONNX model ({_first_line(error)})") from error
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise ValueError(
            f"{path}: takes {[i.shape for i in inputs]}; a face recogniser takes one batch of RGB images"
        )
    channels_first = shape[1] == 3
    size = _side(path, *(shape[2:] if channels_first else shape[1:3]))

    def run(pixels: np.ndarray) -> np.ndarray:
        ordered = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if channels_first else pixels)
        if shape[0] == 1:  # exported for single photos
            return np.concatenate([session.run(None, {inputs[0].name: one[None]})[0] for one in ordered])
        return session.run(None, {inputs[0].name: ordered})[0]

    return run, size


def _open_keras(path: Path) -> tuple[Callable[[np.ndarray], np.ndarray], int | None]:
    """Open a Keras recogniser without running anything that its file brings along."""
    utils.import_quietly("keras")  # slow to import, and only needed here
    import keras

    class Scaling(keras.layers.Layer):
        """What the Lambda layers of facenet_keras.h5 do, rebuilt: ``x * scale`` or ``a + b * scale``."""

        def __init__(self, scale: float, **kwargs):
            super().__init__(**kwargs)
            self.scale = scale

        def call(self, inputs):
            if isinstance(inputs, list | tuple):
                return inputs[0] + inputs[1] * self.scale
            return inputs * self.scale

        @classmethod
        def from_config(cls, config):
            return cls(float(config["arguments"]["scale"]), name=config["name"], trainable=False)

    _check_keras_file(path)
    try:
        model = keras.models.load_model(
            path, custom_objects={"Lambda": Scaling}, compile=False, safe_mode=True
        )
    except Exception as error:  # keras raises many classes for a broken file
        raise ValueError(f"{path}: is not a whole Keras model ({_first_line(error)})") from error
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"{path}: takes {shape}; a face recogniser takes one batch of RGB images")
    return lambda pixels: model.predict_on_batch(pixels), _side(path, *shape[1:3])


#: Where Keras keeps what a plain network is made of; other corners of it read files or fetch them.
KERAS_MODULES = re.compile(
    r"keras(\.(activations|constraints|dtype_policies|initializers|layers|losses|metrics|models|optimizers"
    r"|regularizers)|\.(src\.)?(engine|models)\.(functional|sequential))?"
)

#: Layers that wrap another framework's saved code.
FOREIGN_LAYERS = {"TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer"}


def _check_keras_file(path: Path) -> None:
    """Refuse a Keras file whose layers would run code of the file's own.

    The only Lambda layers let through are those of facenet_keras.h5, which carry a number called ``scale``;
    their code is not read, we rebuild the layer.
    """
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                text = archive.read("config.json")
        else:
            with h5py.File(path, "r") as file:
                text = file.attrs["model_config"]
        config = json.loads(text)
    except (OSError, KeyError, ValueError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: is not a whole Keras model ({error})") from error
    for part in _walk(config):
        kind = str(part.get("class_name", ""))
        module = str(part.get("module") or "keras")
        registered = part.get("registered_name") or kind
        foreign = kind in FOREIGN_LAYERS or registered != kind or not re.fullmatch(r"\w*", kind)
        if foreign or not KERAS_MODULES.fullmatch(module):
            raise ValueError(
                f"{path}: asks for {registered} of {module}, which is no plain part of Keras; it was not loaded"
            )
        if "lambda" in kind.lower():
            layer = part["config"] if isinstance(part.get("config"), dict) else {}
            known = isinstance(layer.get("arguments"), dict) and set(layer["arguments"]) == {"scale"}
            if not known or kind != "Lambda" or path.suffix == ".keras":
                raise ValueError(
                    f"{path}: has a Lambda layer ({layer.get('name')}), which would run code from the file; "
                    "it was not loaded. Convert the model to ONNX"
                )


def _walk(value):
    """All dictionaries inside nested JSON values."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _walk(inner)


def _embed_stored(faces: Faces | Sequence[np.ndarray], path: str) -> np.ndarray:
    if not isinstance(faces, Faces):
        raise TypeError("stored descriptors are found by the photos' names: give a Faces, not bare images")
    names, descriptors = utils.load_encodings(path)
    for shorten in (str, lambda name: Path(name).name, lambda name: Path(name).stem):
        rows = {shorten(name): i for i, name in enumerate(names)}
        wanted = [shorten(name) for name in faces.names]
        distinct = len(rows) == len(names) and len(set(wanted)) == len(set(faces.names))
        if distinct and all(name in rows for name in wanted):
            return descriptors[[rows[name] for name in wanted]]
    stems = {Path(name).stem for name in names}
    missing = sum(Path(name).stem not in stems for name in faces.names)
    problem = (
        f"{missing} of {len(faces)} photos have no stored descriptor"
        if missing
        else "several rows or photos share a name"
    )
    raise ValueError(
        f"{path}: {problem}; embed the photos with 'dlib', or store one row for each photo under its name"
    )


EMBEDDINGS = {
    "dlib": _embed_dlib,
    "pca": _embed_pca,
    "facenet": _embed_facenet,
    "onnx": _embed_onnx,
    "stored": _embed_stored,
}

#: Embeddings that are fitted to the photos they are given: those of two calls do not compare.
FITTED = {"pca"}

#: Embeddings that are written ``"name:PATH"``.
NEEDS_PATH = {"onnx", "stored"}
