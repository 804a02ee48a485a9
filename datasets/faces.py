"""The Faces container: images with the people, names and attributes that belong to them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError
from sklearn.utils import check_random_state

import utils

#: Decoded photos of one folder are kept in memory up to this many bytes; past it they are read again.
IMAGE_MEMORY = 1 << 30

#: A photo with a side shorter than this shows no face that any of our detectors could find.
SMALLEST_SIDE = 16

#: The contact sheet of a set: how many photos at most, columns, pixels of a cell and between cells.
SHEET_PHOTOS, SHEET_COLUMNS, SHEET_CELL, SHEET_GAP = 60, 12, 92, 3


def read_image(path: str | Path) -> np.ndarray:
    """Read one image file as it is meant to be seen.

    The EXIF rotation is applied, 16-bit grey is scaled to 8 bits, and what is transparent becomes white.

    Parameters
    ----------
    path : str or Path
        An image file of any kind that Pillow reads. Of an animation the first frame is taken.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no image, is cut short, or has a side under 16 pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such image file")
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            upright.load()
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path}: cannot be read as an image ({error}); replace or remove the file"
        ) from error
    if min(upright.size) < SMALLEST_SIDE:
        raise ValueError(
            f"{path}: {upright.height}x{upright.width} pixels are too few for a face; "
            f"each side needs at least {SMALLEST_SIDE}"
        )
    return _to_rgb(upright)


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip at 255 rather than scale
        grey = np.clip(np.asarray(image, dtype=np.float64) / 257.0, 0, 255).round().astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)  # (h, w, 3)
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def is_grey(image: np.ndarray) -> bool:
    """Tell whether the three channels of an RGB image (h, w, 3) are the same."""
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())


class ImageFiles(Sequence):
    """A sequence of photos that are read when they are asked for.

    Indexing with a number gives the photo as a uint8 RGB array (h, w, 3); with a slice, an index array or a
    mask it gives another ImageFiles. Decoded photos are kept up to `IMAGE_MEMORY` bytes.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)
        self._decoded: dict[int, np.ndarray] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows):
        if isinstance(rows, int | np.integer):
            return self._photo(range(len(self.paths))[rows])
        return ImageFiles([self.paths[i] for i in np.arange(len(self.paths))[rows]])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self._photo(i) for i in range(len(self.paths)))

    def __getstate__(self) -> dict:
        return {"paths": self.paths, "_decoded": {}, "_bytes": 0}  # workers read the files themselves

    def _photo(self, i: int) -> np.ndarray:
        if i in self._decoded:
            return self._decoded[i]
        image = read_image(self.paths[i])
        image.flags.writeable = False
        if self._bytes + image.nbytes <= IMAGE_MEMORY:
            self._decoded[i] = image
            self._bytes += image.nbytes
        return image


@dataclass(frozen=True, eq=False)
class Faces:
    """Photos of people, one face a photo.

    Attributes
    ----------
    images : sequence of n uint8 arrays (h, w, 3)
        RGB. One array (n, h, w, 3) where all photos are of one size and in memory, an `ImageFiles` that
        reads on demand for a folder.
    identities : ndarray of str, shape (n,)
        Who is on each photo.
    names : ndarray of str, shape (n,)
        What each photo is called in its source, such as ``"s1/1.pgm"``.
    attributes : DataFrame, n rows
        What the source says of each photo (sex, expression, pose ...); no columns where it says nothing.
    source : str
        The data set's name or the folder.
    others : Faces or None
        Further photos of the same people, kept apart by ``per_identity``: the gallery an adversary holds,
        or the probes. None where every photo is in this set.
    """

    images: Sequence[np.ndarray]
    identities: np.ndarray
    names: np.ndarray
    attributes: pd.DataFrame = field(default_factory=pd.DataFrame)
    source: str = "faces"
    others: Faces | None = None

    def __post_init__(self):
        n = len(self.images)
        if n == 0:
            raise ValueError("a set of faces needs at least one photo")
        for label, values in (("identities", self.identities), ("names", self.names)):
            if len(values) != n:
                raise ValueError(f"{n} photos but {len(values)} {label}; there must be one for each photo")
            object.__setattr__(self, label, np.asarray(values, dtype=str))
        if self.attributes.shape[1] == 0:
            object.__setattr__(self, "attributes", pd.DataFrame(index=range(n)))
        elif len(self.attributes) != n:
            raise ValueError(f"{n} photos but {len(self.attributes)} rows of attributes")

    @classmethod
    def of(cls, images: Sequence[np.ndarray], identities=None, names=None, source: str = "faces") -> Faces:
        """Make a set of images alone: each is called by its number and shows a person of its own, unless given."""
        names = np.arange(len(images)).astype(str) if names is None else names
        return cls(images, names if identities is None else identities, names, source=source)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def people(self) -> np.ndarray:
        """The people, each once, sorted: ndarray of str, shape (n_people,)."""
        return np.unique(self.identities)

    @property
    def n_people(self) -> int:
        """How many different people there are."""
        return len(self.people)

    @cached_property
    def image_keys(self) -> list[str]:
        """A SHA-256 key of each photo's pixels, by which results about it are cached."""
        return [utils.content_key(image) for image in self.images]

    @cached_property
    def fingerprint(self) -> str:
        """One SHA-256 key of all photos, whom they show, and the photos kept apart."""
        apart = self.others.fingerprint if self.others is not None else ""
        return utils.content_key(self.image_keys, list(self.identities), list(self.names), apart)

    @cached_property
    def grey(self) -> bool:
        """Whether every photo is grey."""
        return all(is_grey(image) for image in self.images)

    def select(self, rows) -> Faces:
        """Return the photos of some rows (an index array, a slice or a mask) as a new set without others.

        Raises
        ------
        ValueError
            If no row is chosen.
        """
        rows = np.arange(len(self))[rows]
        if rows.ndim != 1 or len(rows) == 0:
            raise ValueError("select needs at least one row")
        attributes = self.attributes.iloc[rows].reset_index(drop=True)
        plain = isinstance(self.images, list | tuple)
        images = [self.images[i] for i in rows] if plain else self.images[rows]
        return Faces(images, self.identities[rows], self.names[rows], attributes, self.source)

    def joined(self, other: Faces) -> Faces:
        """Return the photos of both sets as one, without attributes and others."""
        return Faces(
            [*self.images, *other.images],
            np.concatenate([self.identities, other.identities]),
            np.concatenate([self.names, other.names]),
            source=self.source,
        )

    def split(self, per_identity: int, random_state=None) -> Faces:
        """Keep `per_identity` photos of each person and put the rest in `others`.

        Parameters
        ----------
        per_identity : int
            Photos to keep for each person, at least 1. A person with fewer photos keeps all of them.
        random_state : int, RandomState or None
            Which photos are kept.

        Returns
        -------
        Faces
            The kept photos in their order; `others` is None where nothing is left over.

        Raises
        ------
        ValueError
            If `per_identity` is not a whole number of at least 1.
        """
        if (
            isinstance(per_identity, bool)
            or not isinstance(per_identity, int | np.integer)
            or per_identity < 1
        ):
            raise ValueError(f"per_identity must be a whole number of at least 1, not {per_identity!r}")
        random = check_random_state(random_state)
        kept = np.zeros(len(self), dtype=bool)
        for person in self.people:
            rows = np.flatnonzero(self.identities == person)
            kept[random.choice(rows, size=min(per_identity, len(rows)), replace=False)] = True
        chosen = self.select(kept)
        if kept.all():
            return chosen
        object.__setattr__(chosen, "others", self.select(~kept))
        return chosen

    def __repr__(self) -> str:
        height, width = self.images[0].shape[:2]
        if not isinstance(self.images, np.ndarray):
            size = "one size" if len(self) == 1 else "any size"
        else:
            size = f"{height}x{width} {'grey' if self.grey else 'colour'}"
        parts = [f"{len(self)} photos of {self.n_people} people, {size}"]
        if self.attributes.shape[1]:
            parts.append(f"{self.attributes.shape[1]} attributes")
        if self.others is not None:
            parts.append(f"{len(self.others)} other photos")
        return f"<Faces {self.source}: {'; '.join(parts)}>"

    def _repr_png_(self) -> bytes:
        """Contact sheet for notebooks: one photo of each person first, at most `SHEET_PHOTOS`."""
        first = np.unique(self.identities, return_index=True)[1]
        rest = np.setdiff1d(np.arange(len(self)), first)
        rows = np.sort(np.concatenate([first, rest])[:SHEET_PHOTOS])
        thumbnails = [
            ImageOps.contain(Image.fromarray(self.images[i]), (SHEET_CELL, SHEET_CELL)) for i in rows
        ]
        width, height = np.max([thumbnail.size for thumbnail in thumbnails], axis=0) + SHEET_GAP
        columns = min(SHEET_COLUMNS, len(rows))
        sheet = Image.new("RGB", (int(width) * columns, int(height) * -(-len(rows) // columns)), "white")
        for place, thumbnail in enumerate(thumbnails):
            sheet.paste(thumbnail, (place % columns * int(width), place // columns * int(height)))
        buffer = io.BytesIO()
        sheet.save(buffer, format="png")
        return buffer.getvalue()
