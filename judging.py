"""Judge the images of another tool: a folder of originals and one of anonymized images -> the tables of a release."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

import attacks
import datasets
import utility
from checks import ParameterError
from datasets import Faces
from datasets.faces import read_image
from datasets.formats import is_photo
from embedding import PAPER_THRESHOLD
from measures import clear_photos, measure_images
from releases import NOT_APPLICABLE, Combination

#: Number of files that an error names; the rest are only counted.
_N_NAMED = 5


@dataclass(frozen=True, eq=False)
class JudgedImages:
    """One photo of each person, and the image that another tool made of it.

    Attributes
    ----------
    name : str
        The name of the folder of images.
    faces : Faces
        The n photos. All further originals are the adversary's gallery.
    images : list of c uint8 arrays (h, w, 3)
        The different images.
    labels : ndarray of int, shape (n,)
        The image of each photo; people who share an image are a cluster.
    other : attacks.Published or None
        The images of another photo of each person, if everyone has one.
    """

    name: str
    faces: Faces
    images: list[np.ndarray]
    labels: np.ndarray
    other: attacks.Published | None

    @classmethod
    def of(
        cls,
        originals: str | Path,
        anonymized: str | Path,
        suffix: str = "",
        people: str = "folders",
        random_state: int = 0,
    ) -> JudgedImages:
        """Match images with photos by their place in the folders; parameters and errors as for `judge`."""
        photos, files = datasets.load_faces(originals, people=people), _list_images(Path(anonymized), suffix)
        places = _by_place(photos.names.tolist(), "originals")
        unknown = [str(path) for place, path in files.items() if place not in places]
        if unknown:
            raise ParameterError(
                f"{anonymized}: {_name_some(unknown)} have no original of the same name in {originals}; name each "
                "image like its original, in a sub-folder of the same name (endings may differ), or name what the tool "
                "adds to names as the suffix"
            )
        matched = np.zeros(len(photos), dtype=bool)
        matched[[places[place] for place in files]] = True
        without = sorted(set(photos.people) - set(photos.identities[matched]))
        if without:
            raise ParameterError(
                f"{anonymized}: holds no image of {_name_some(without)}; add their images, or remove their originals "
                "if the tool left them out on purpose, and say so beside the results"
            )
        file_of = {photos.names[places[place]]: path for place, path in files.items()}
        # Draw a photo of each person among those with an image; then another one.
        drawn = photos.select(matched).split(1, random_state)
        kept = np.isin(photos.names, drawn.names)
        faces = replace(photos.select(kept), others=None if kept.all() else photos.select(~kept))
        images, labels = _different([read_image(file_of[name]) for name in faces.names])
        unchanged = sum(
            np.array_equal(photo, images[label]) for photo, label in zip(faces.images, labels, strict=True)
        )
        if unchanged:
            warnings.warn(f"{unchanged} of {len(faces)} images equal their originals", stacklevel=3)
        other = None
        if drawn.others is not None and set(drawn.others.identities) == set(faces.identities):
            again = drawn.others.split(1, random_state)
            more, their_labels = _different([read_image(file_of[name]) for name in again.names])
            other = attacks.Published(more, their_labels, again.identities, "other photos")
        return cls(Path(anonymized).resolve().name, faces, images, labels, other)

    def tables(
        self, recognisers: Sequence[str] = attacks.RECOGNISERS, random_state: int = 0
    ) -> dict[str, pd.DataFrame]:
        """Measure and attack the images; see `judge`."""
        sizes = np.bincount(self.labels)
        release = Combination(NOT_APPLICABLE, NOT_APPLICABLE, self.name, int(sizes.min()))
        made = {**release._asdict(), "seed": random_state}
        how = {"recogniser": "dlib", "threshold": PAPER_THRESHOLD}
        photos = clear_photos(self.faces)
        given = measure_images(photos, self.images, self.labels)
        clear = measure_images(photos, self.faces.images, np.arange(len(self.faces)))
        attacked = attacks.attack_release(
            self.faces, self.images, self.labels, recognisers=tuple(recognisers), anonymized=self.other,
            further=[self.other] if self.other else [], random_state=random_state,
        )  # fmt: skip
        useful = utility.measure_utility(self.faces, self.images, self.labels, random_state=random_state)
        main = [
            {**made, "n_clusters": len(sizes), **how, **given},
            {**made, "anonymizer": "none", "k": 1, "n_clusters": len(self.faces), **how, **clear},
        ]
        tables = {"main": pd.DataFrame(main)}
        for part, table in (("attacks", attacked), ("utility", useful)):
            tables[part] = pd.concat([pd.DataFrame([made] * len(table)), table], axis=1)
        return tables


def judge(
    originals: str | Path,
    anonymized: str | Path,
    *,
    suffix: str = "",
    people: str = "folders",
    recognisers: Sequence[str] = attacks.RECOGNISERS,
    random_state: int = 0,
) -> dict[str, pd.DataFrame]:
    """Measure and attack images that another tool made.

    Images are matched with originals by their path in the folder, whatever their endings. One photo of each person that
    has an image is drawn and judged by its image; all other originals are the adversary's gallery. People with equal
    images are a cluster. An image without a detectable face counts as everywhere: as the worst case in the columns that
    end in ``_worst``.

    Parameters
    ----------
    originals : str or Path
        The photos before; see `datasets.load_faces`.
    anonymized : str or Path
        The folder of images.
    suffix : str, default ""
        What the tool adds to the name of each image before the ending, such as ``"_anonymized"``; files without it are
        no images.
    people : {"folders", "photos"}, default "folders"
        What tells the people of the originals apart.
    recognisers : sequence of str
        Of the attacks; see `recognisers.prepare`.
    random_state : int, default 0

    Returns
    -------
    dict of str to DataFrame
        ``"main"``: a row of the images and one of the originals, with the columns of `evaluation.sweep`;
        ``"attacks"`` and ``"utility"``: as `evaluation.attack_table` and `evaluation.utility_table`.

    Raises
    ------
    FileNotFoundError
        If a folder is missing.
    ValueError
        If an image has no original, a person has no image, or a file cannot be read.
    """
    images = JudgedImages.of(originals, anonymized, suffix, people, random_state)
    return images.tables(recognisers, random_state)


def _list_images(folder: Path, suffix: str) -> dict[str, Path]:
    """The images in a folder and below, by their place in it without the suffix."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of anonymized images")
    files = [path for path in sorted(folder.rglob("[!.]*")) if path.is_file() and is_photo(path)]
    paths = [path for path in files if path.stem.endswith(suffix)]
    originals = [path.with_stem(path.stem.removesuffix(suffix)) for path in paths]
    places = _by_place([path.relative_to(folder).as_posix() for path in originals], str(folder))
    if not places:
        named = f" whose name ends in {suffix}" if suffix else ""
        raise ParameterError(f"{folder}: holds no images{named}; run the tool first")
    return {place: paths[row] for place, row in places.items()}


def _by_place(names: Sequence[str], where: str) -> dict[str, int]:
    """The row of each name without its ending; two names may not differ in their ending alone."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        place = str(PurePosixPath(name).with_suffix(""))
        if place in rows:
            raise ParameterError(
                f"{where}: {names[rows[place]]} and {name} differ in their ending alone, so it is unknown which one "
                "belongs to which; remove or rename one"
            )
        rows[place] = row
    return rows


def _name_some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more


def _different(images: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """The different images of n in their order, and which of them each is: list of c, int (n,)."""
    keys = Faces.of(images).image_keys
    labels, kept = pd.factorize(np.array(keys))
    image_of = dict(zip(keys, images, strict=True))
    return [image_of[key] for key in kept], labels
