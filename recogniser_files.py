"""Face recognisers in ONNX and Keras files, run in a process of their own with limits on memory and time.

Such a file is a program: a loop in it may never end, and a layer may ask for any amount of memory. `open_recogniser`
therefore starts this file as a process (`main`), which opens the recogniser and runs it. Both send each other plain
arrays: the process tells the side of the input, then answers photos with descriptors; a text is the reason of an error.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import re
import resource
import select
import subprocess
import sys
import threading
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from storage import ROOT, reading
from storage.arrays import parse_npy
from storage.descriptions import dictionaries, parse_json
from storage.encodings import MAX_COLUMNS
from storage.hdf5 import check_hdf5
from storage.kinds import check_kind, read_head
from storage.reading import Budget

#: Limit on the time to describe the first photo, and to describe each further one of a batch, in seconds.
FIRST_PHOTO_SECONDS, PHOTO_SECONDS = 30, 5

#: Limit on the memory of the process, to which this multiple of the file's size is added.
MEMORY_BYTES, _BYTES_PER_BYTE = reading.MAX_BYTES, 4

#: Runs a recogniser: float32 (b, size, size, 3) -> (b, d).
_Run = Callable[[np.ndarray], np.ndarray]


class Recogniser:
    """A recogniser that runs in a process of its own, which ends with this object.

    Parameters
    ----------
    path : Path
        The file; its suffix says what it is.

    Attributes
    ----------
    side : int or None
        Side of its square input; None if it accepts any.

    Raises
    ------
    ValueError
        If the file is not a recogniser, or is too large or slow to open.
    """

    def __init__(self, path: Path):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        command = [sys.executable, __file__, str(path.absolute())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, env=environment, **pipes)
        self._lock = threading.Lock()
        self._finish = weakref.finalize(self, self._process.kill)
        try:
            side = int(self._receive(reading.MAX_SECONDS))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self.side = side or None

    @property
    def is_running(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Describe photos, float32 (b, side, side, 3) as the recogniser wants them: float32 (b, d).

        Raises
        ------
        ValueError
            If the recogniser cannot run on them, or takes too much memory or time.
        """
        seconds = FIRST_PHOTO_SECONDS + PHOTO_SECONDS * (len(pixels) - 1)
        with self._lock:
            try:
                _send(self._process.stdin, pixels)
            except BrokenPipeError:
                self._explain_end()
            return self._receive(seconds)

    def _receive(self, seconds: float) -> np.ndarray:
        """Wait for an answer; raise ValueError if it is the reason of an error, or does not come."""
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        if not ready:
            self._finish()
            raise ValueError(f"it was stopped after {seconds} s")
        answer = _receive(self._process.stdout)
        if answer is None:
            self._explain_end()
        if answer.dtype.kind == "U":
            raise ValueError(str(answer))
        return answer

    def _explain_end(self) -> None:
        self._process.wait()
        raise ValueError("it crashed, or needs more memory than a recogniser may take")


def open_recogniser(path: str | Path) -> Recogniser:
    """Open a recogniser in an ``.onnx``, ``.h5`` or ``.keras`` file; one that is open already is used again."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {_KINDS.get(path.suffix, 'ONNX')} file")
    key = hashlib.sha256(path.read_bytes()).hexdigest()
    recogniser = _opened(path, key)
    if not recogniser.is_running:
        _opened.cache_clear()
        recogniser = _opened(path, key)
    return recogniser


@functools.lru_cache(maxsize=1)
def _opened(path: Path, key: str) -> Recogniser:
    return Recogniser(path)


def _send(stream: BinaryIO, array: np.ndarray) -> None:
    """Write the length of a .npy file as 8 bytes, then the file."""
    packed = io.BytesIO()
    np.lib.format.write_array(packed, np.asarray(array), allow_pickle=False)
    stream.write(len(packed.getvalue()).to_bytes(8, "little") + packed.getvalue())
    stream.flush()


def _receive(stream: BinaryIO) -> np.ndarray | None:
    """Read what `_send` wrote; None at the end of the stream."""
    size = int.from_bytes(stream.read(8), "little")
    data = stream.read(size)
    return parse_npy(io.BytesIO(data), size) if size and len(data) == size else None


# ----------------------------------------------------------------------------------------------------------
# In the process
# ----------------------------------------------------------------------------------------------------------


def main(path: Path) -> None:
    """Open a recogniser and describe the photos from standard input, until it ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no reply
    memory = MEMORY_BYTES + _BYTES_PER_BYTE * path.stat().st_size
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    _limit_time(reading.MAX_SECONDS)
    try:
        run, side = _OPENERS.get(path.suffix, _open_onnx)(path)
    except Exception as error:  # the runtimes raise classes of their own
        _send(replies, np.array(str(error)))
        return
    _send(replies, np.array(side or 0))
    while (pixels := _receive(sys.stdin.buffer)) is not None:
        _limit_time(FIRST_PHOTO_SECONDS + PHOTO_SECONDS * len(pixels))
        try:
            answer = _checked_rows(np.asarray(run(pixels), dtype=np.float32), len(pixels))
        except Exception as error:
            answer = np.array(_first_line(error))
        _send(replies, answer)


def _limit_time(seconds: int) -> None:
    """End this process after so many further seconds on all cores, should nobody be left to stop it."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime) + seconds * (os.cpu_count() or 1)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def _checked_rows(rows: np.ndarray, n_photos: int) -> np.ndarray:
    if rows.ndim != 2 or len(rows) != n_photos or rows.shape[1] > MAX_COLUMNS:
        raise ValueError(f"it must return one row per photo, got shape {rows.shape}")
    return rows


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _side(height, width) -> int | None:
    """Side of a recogniser's square input; None if the model accepts any."""
    fixed = {side for side in (height, width) if isinstance(side, int)}
    if len(fixed) > 1:
        raise ValueError(f"takes {height}x{width} pixels; only square inputs are supported")
    return fixed.pop() if fixed else None


def _open_onnx(path: Path) -> tuple[_Run, int | None]:
    """Open an ONNX recogniser: a function to run it, and the input size that it prescribes."""
    import onnxruntime  # slow to import, and only needed here

    try:
        check_kind(read_head(path))
        session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
    except Exception as error:  # onnxruntime raises classes of its own for every way a file can be broken
        raise ValueError(f"is not a complete ONNX model ({_first_line(error)})") from error
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 else []
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        shapes = [each.shape for each in inputs]
        raise ValueError(f"takes {shapes}; a face recogniser must take one batch of RGB images")
    channels_first = shape[1] == 3
    size = _side(*(shape[2:] if channels_first else shape[1:3]))

    def run(pixels: np.ndarray) -> np.ndarray:
        ordered = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if channels_first else pixels)
        if shape[0] == 1:  # exported for single photos
            return np.concatenate([session.run(None, {inputs[0].name: one[None]})[0] for one in ordered])
        return session.run(None, {inputs[0].name: ordered})[0]

    return run, size


def _open_keras(path: Path) -> tuple[_Run, int | None]:
    """Open a Keras recogniser without running any code that its file contains."""
    check_keras_file(path)
    import utils  # slow to import, and only needed here

    utils.import_quietly("keras")
    import keras

    class Scaling(keras.layers.Layer):
        """Replacement for the Lambda layers of facenet_keras.h5: ``x * scale`` or ``a + b * scale``."""

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

    try:
        layers = {"Lambda": Scaling}
        model = keras.models.load_model(path, custom_objects=layers, compile=False, safe_mode=True)
    except Exception as error:  # keras raises many classes for a broken file
        raise ValueError(f"is not a complete Keras model ({_first_line(error)})") from error
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3:
        raise ValueError(f"takes {shape}; a face recogniser must take one batch of RGB images")
    return lambda pixels: model.predict_on_batch(pixels), _side(*shape[1:3])


_OPENERS = {".onnx": _open_onnx, ".h5": _open_keras, ".keras": _open_keras}
_KINDS = {".onnx": "ONNX", ".h5": "Keras", ".keras": "Keras"}

#: The modules of Keras that a plain network consists of; other modules read files or fetch them.
_KERAS_MODULES = re.compile(
    r"keras(\.(activations|constraints|dtype_policies|initializers|layers|losses|metrics|models|optimizers"
    r"|regularizers)|\.(src\.)?(engine|models)\.(functional|sequential))?"
)

#: Layers that wrap another framework's saved code.
_FOREIGN_LAYERS = {"TFSMLayer", "TorchModuleWrapper", "FlaxLayer", "JaxLayer"}


def check_keras_file(path: Path) -> None:
    """Reject a Keras file that is not complete, or has a layer that would execute code from the file.

    The only Lambda layers accepted are those of facenet_keras.h5, which carry a number called ``scale``;
    their code is not read, the layer is rebuilt.

    Raises
    ------
    ValueError
        With the reason; the message does not name the file.
    """
    try:
        config = parse_json(_keras_description(path))
    except Exception as error:  # zipfile, zlib and h5py raise many classes for a broken file
        raise ValueError(f"is not a complete Keras model ({_first_line(error)})") from error
    for part in dictionaries(config):
        kind = str(part.get("class_name", ""))
        module = str(part.get("module") or "keras")
        registered = part.get("registered_name") or kind
        foreign = kind in _FOREIGN_LAYERS or registered != kind or not re.fullmatch(r"\w*", kind)
        if foreign or not _KERAS_MODULES.fullmatch(module):
            asked = f"{registered} of {module}, which is not a plain part of Keras"
            raise ValueError(f"asks for {asked}; it was not loaded")
        if "lambda" in kind.lower():
            layer = part["config"] if isinstance(part.get("config"), dict) else {}
            known = isinstance(layer.get("arguments"), dict) and set(layer["arguments"]) == {"scale"}
            if not known or kind != "Lambda" or path.suffix == ".keras":
                raise ValueError(
                    f"has a Lambda layer ({layer.get('name')}), which would run code from the file; "
                    "it was not loaded. Convert the model to ONNX"
                )


def _keras_description(path: Path) -> str | bytes:
    """Return the JSON that describes the layers, after checking the arrays of weights."""
    budget = Budget(path.stat().st_size)
    if path.suffix == ".keras":
        check_kind(read_head(path), "zip")
        with zipfile.ZipFile(path) as archive:
            budget.take(sum(info.file_size for info in archive.infolist()), "what it unpacks to")
            if "model.weights.h5" in archive.namelist():
                with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
                    check_hdf5(file, budget)
            return archive.read("config.json")
    check_kind(read_head(path), "hdf5")
    with h5py.File(path, "r") as file:
        if "model_config" not in file.attrs:
            raise ValueError("it holds weights alone and no layers; save the whole model, not its weights")
        check_hdf5(file, budget)
        return file.attrs["model_config"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
