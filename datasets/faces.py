"""The Faces container: photos with their people, names and attributes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

import checks
import utils
from datasets.formats import READ_ERRORS, explain_damage, open_image, upright

#: Smallest side of a photo in pixels; no detector finds a face in a smaller photo.
SMALLEST_SIDE = 16

# Decoded photos of one folder stay in memory up to this many bytes; others are read again when needed.
_IMAGE_MEMORY = 1 << 30

# Bits per pixel that cameras and scanners use, and the least value of 0..255 that the brightest pixels of a photo have.
_DEPTHS, _LEAST_WHITE = (8, 10, 12, 14, 16), 16

# The contact sheet of a set: maximum number of photos, columns, pixels per cell and between cells.
_SHEET_PHOTOS, _SHEET_COLUMNS, _SHEET_CELL, _SHEET_GAP = 60, 12, 92, 3


def read_image(path: str | Path) -> np.ndarray:
    """Read one image file, upright and as 8-bit RGB.

    The stored rotation (EXIF, or that of HEIC and AVIF) is applied, and transparent pixels become white. Grey of more
    than 8 bits is scaled: its largest value tells whether white is 255, 1023, 4095, 16383 or 65535, or 1 for floats.

    Parameters
    ----------
    path : str or Path
        An image file of any format that Pillow reads, or HEIC. Of several images in the file, the main one is read,
        which is the first of an animation or a document; see `datasets.formats.count_frames`.

    Returns
    -------
    ndarray of uint8, shape (h, w, 3)
        RGB.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not an image, is cut short or damaged, has a side below 16 pixels, or has more than 8 bits and
        its values do not tell what is white.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    try:
        with open_image(path) as file:
            was_reduced = _reduces_depth(file)
            image = upright(file)
    except READ_ERRORS as error:
        raise ValueError(explain_damage(path, error)) from error
    if min(image.size) < SMALLEST_SIDE:
        size = f"{image.height}x{image.width}"
        raise ValueError(f"{path}: each side must have at least {SMALLEST_SIDE} pixels, got {size}")
    del file  # its pixels, if they were turned
    try:
        return _check_range(_to_rgb(image)) if was_reduced else _to_rgb(image)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; save it with 8 bits per channel") from None


def _reduces_depth(file: Image.Image) -> bool:
    """Return whether Pillow keeps only the upper 8 of 16 bits per channel of a file that is not decoded yet."""
    mark = "65535" if file.format == "PPM" else ";16"
    return not _is_deep(file) and any(mark in str(tile[3]) for tile in getattr(file, "tile", ()))


def _check_range(image: np.ndarray) -> np.ndarray:
    """Return an image (h, w, 3) of the upper 8 bits; raise ValueError if 10 to 14 bits were in the lower ones."""
    if 0 < image.min(axis=2).max() <= 0xFF >> (16 - _DEPTHS[-2]):
        raise ValueError("its colours have 16 bits, of which the upper ones are not used")
    return image


def _is_deep(image: Image.Image) -> bool:
    """Return whether an image has one channel of more than 8 bits, which Pillow would clip at 255."""
    return image.mode.startswith(("I", "F"))


def _to_rgb(image: Image.Image) -> np.ndarray:
    if _is_deep(image):
        grey = _to_8_bits(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=2)  # (h, w, 3)
    if image.mode == "RGBa":  # colours multiplied by their opacity
        image = image.convert("RGBA")
    if "A" in image.getbands() or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _to_8_bits(grey: np.ndarray) -> np.ndarray:
    """Scale grey values (h, w), integers or floats of an unknown depth, to uint8."""
    largest = float(grey.max())
    if not (grey.min() >= 0 and np.isfinite(largest)):
        raise ValueError("its grey values are negative or not finite")
    if grey.dtype.kind == "f" and _bright(grey) <= 1:
        white = 1.0
    elif grey.dtype.kind == "f" and largest < _LEAST_WHITE:
        raise ValueError(f"its grey values are floats up to {largest:.3g}, which does not tell what is white")
    else:
        bits = int(largest).bit_length()
        white = 2.0 ** min((depth for depth in _DEPTHS if depth >= bits), default=bits) - 1
    if 0 < _bright(grey) * 255 < _LEAST_WHITE * white:
        raise ValueError(
            f"its grey values are so far below their largest, {largest:.3g}, that it would be black"
        )
    return np.clip(np.multiply(grey, 255 / white, dtype=np.float32), 0, 255).round().astype(np.uint8)


def _bright(grey: np.ndarray) -> float:
    """The value above which 1 % of the pixels are."""
    return float(np.quantile(grey.ravel()[:: max(1, grey.size // 1_000_000)], 0.99))


def is_grey(image: np.ndarray) -> bool:
    """Return whether the three channels of an RGB image (h, w, 3) are equal."""
    return bool((image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all())


def photo_key(image_key: str, person: str) -> str:
    """Return a key of a photo from the cache key of its pixels and its person."""
    return utils.content_key(image_key, person)[:32]


def _texts(what: str, values) -> np.ndarray:
    """Return names as a str array (n,); bytes of a file name that are no text become ``\\\\udc..``."""
    missing = np.flatnonzero(pd.isna(np.asarray(values, dtype=object)))
    if len(missing):
        raise checks.ParameterError(
            f"{what} must be names, but {len(missing)} are missing, first in row {missing[0]}"
        )
    texts = [
        text.encode("utf-8", "backslashreplace").decode() for text in np.asarray(values, dtype=str).tolist()
    ]
    return np.array(texts, dtype=str)


class ImageFiles(Sequence):
    """A sequence of photos that are read on demand.

    An integer index gives one photo as a uint8 RGB array (h, w, 3); a slice, an index array or a mask gives another
    ImageFiles. Decoded photos of up to 1 GiB stay in memory.

    Parameters
    ----------
    paths : sequence of Path
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

    def __getstate__(self) -> dict:
        return {"paths": self.paths, "_decoded": {}, "_bytes": 0}  # workers read the files themselves

    def _photo(self, i: int) -> np.ndarray:
        if i in self._decoded:
            return self._decoded[i]
        image = read_image(self.paths[i])
        image.flags.writeable = False
        if self._bytes + image.nbytes <= _IMAGE_MEMORY:
            self._decoded[i] = image
            self._bytes += image.nbytes
        return image


@dataclass(frozen=True, eq=False)
class Faces:
    """Photos of people, one face per photo.

    Attributes
    ----------
    images : sequence of n uint8 arrays (h, w, 3)
        RGB. One array (n, h, w, 3) if all photos have one size and are in memory; for a folder, an `ImageFiles`
        that reads on demand.
    identities : ndarray of str, shape (n,)
        The person in each photo. Names that look the same are made equal: see `utils.tidy_name`.
    names : ndarray of str, shape (n,)
        The name of each photo in its source, for example ``"s1/1.pgm"``.
    attributes : DataFrame, n rows
        Labels of each photo in the source (sex, expression, pose, ...); may have no columns.
    source : str
        The name of the data set or the folder.
    others : Faces or None
        Further photos of the same people, set aside by ``per_identity``: an adversary's gallery, or the probes.
        None if every photo is in this set.
    people_by : str
        What told the people of a folder apart: ``"sub-folder"``, ``"RaFD file names"``, ``"identity_CelebA.txt"`` or
        ``"photo"``; empty for all other sets.

    Raises
    ------
    ValueError
        If there are no photos, the parts differ in length, or a name is missing.
    """

    images: Sequence[np.ndarray]
    identities: np.ndarray
    names: np.ndarray
    attributes: pd.DataFrame = field(default_factory=pd.DataFrame)
    source: str = "faces"
    others: Faces | None = None
    people_by: str = ""

    def __post_init__(self):
        n = len(self.images)
        if n == 0:
            raise ValueError("a set of faces needs at least one photo")
        if self.attributes.shape[1] == 0:
            object.__setattr__(self, "attributes", pd.DataFrame(index=range(n)))
        for part in ("identities", "names", "attributes"):
            found = len(getattr(self, part))
            if found != n:
                raise ValueError(f"{part} must have one entry per photo, got {found} for {n}")
        for part in ("identities", "names"):
            object.__setattr__(self, part, _texts(part, getattr(self, part)))
        identities = self.identities.tolist()
        tidy = {name: utils.tidy_name(name) for name in set(identities)}
        object.__setattr__(self, "identities", np.array([tidy[name] for name in identities], dtype=str))

    @classmethod
    def of(cls, images: Sequence[np.ndarray], identities=None, names=None, source: str = "faces") -> Faces:
        """Make a set from images alone.

        Parameters
        ----------
        images : sequence of n uint8 arrays (h, w, 3)
        identities : sequence of n str, optional
            By default, every image shows a different person.
        names : sequence of n str, optional
            By default "0", "1", ...
        source : str, default "faces"

        Returns
        -------
        Faces
        """
        names = np.arange(len(images)).astype(str) if names is None else names
        return cls(images, names if identities is None else identities, names, source=source)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def people(self) -> np.ndarray:
        """The different people, sorted: ndarray of str, shape (n_people,)."""
        return np.unique(self.identities)

    @property
    def n_people(self) -> int:
        """Number of different people."""
        return len(self.people)

    @cached_property
    def image_keys(self) -> list[str]:
        """A cache key of each photo's pixels."""
        return [utils.content_key(image) for image in self.images]

    @cached_property
    def photo_keys(self) -> list[str]:
        """A key of each photo's pixels and person, whatever its name."""
        return list(map(photo_key, self.image_keys, self.identities.tolist()))

    @cached_property
    def set_key(self) -> str:
        """One key of all photos and their people, including `others`, in any order and under any names."""
        others = [] if self.others is None else self.others.photo_keys
        return utils.content_key(sorted([*self.photo_keys, *others]))

    @cached_property
    def fingerprint(self) -> str:
        """One cache key of all photos, identities and names, including `others`."""
        apart = self.others.fingerprint if self.others is not None else ""
        return utils.content_key(self.image_keys, list(self.identities), list(self.names), apart)

    @cached_property
    def grey(self) -> bool:
        """Whether every photo is grey."""
        return all(is_grey(image) for image in self.images)

    def select(self, rows) -> Faces:
        """Return some photos as a new set without `others`.

        Parameters
        ----------
        rows : array of int, slice or mask

        Returns
        -------
        Faces

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
        return Faces(
            images, self.identities[rows], self.names[rows], attributes, self.source, people_by=self.people_by
        )

    def joined(self, other: Faces) -> Faces:
        """Return the photos of both sets as one set, without attributes and `others`."""
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
            Photos to keep of each person, at least 1. A person with fewer photos keeps all of them.
        random_state : int, RandomState or None
            Chooses the photos.

        Returns
        -------
        Faces
            The kept photos in their order; `others` is None if no photos are left.

        Raises
        ------
        ValueError
            If `per_identity` is not an integer of at least 1.
        """
        checks.check_number("per_identity", per_identity, int, at_least=1)
        random = utils.check_random_state(random_state)
        kept = np.zeros(len(self), dtype=bool)
        for person in self.people:
            rows = np.flatnonzero(self.identities == person)
            kept[random.choice(rows, size=min(per_identity, len(rows)), replace=False)] = True
        others = None if kept.all() else self.select(~kept)
        return replace(self.select(kept), others=others)

    def __repr__(self) -> str:
        size = "one size" if len(self) == 1 else "any size"
        if isinstance(self.images, np.ndarray):
            size = "{}x{} {}".format(*self.images.shape[1:3], "grey" if self.grey else "colour")
        parts = [f"{len(self)} photos of {self.n_people} people, {size}"]
        if self.attributes.shape[1]:
            parts.append(f"{self.attributes.shape[1]} attributes")
        if self.others is not None:
            parts.append(f"{len(self.others)} other photos")
        if self.people_by:
            parts.append(f"people by {self.people_by}")
        return f"<Faces {self.source}: {'; '.join(parts)}>"

    def _repr_png_(self) -> bytes:
        """Draw a contact sheet for notebooks: one photo of each person first, at most 60 photos."""
        first = np.unique(self.identities, return_index=True)[1]
        rest = np.setdiff1d(np.arange(len(self)), first)
        rows = np.sort(np.concatenate([first, rest])[:_SHEET_PHOTOS])
        cell = (_SHEET_CELL, _SHEET_CELL)
        thumbnails = [ImageOps.contain(Image.fromarray(self.images[i]), cell) for i in rows]
        width, height = np.max([thumbnail.size for thumbnail in thumbnails], axis=0) + _SHEET_GAP
        columns = min(_SHEET_COLUMNS, len(rows))
        sheet = Image.new("RGB", (int(width) * columns, int(height) * -(-len(rows) // columns)), "white")
        for place, thumbnail in enumerate(thumbnails):
            sheet.paste(thumbnail, (place % columns * int(width), place // columns * int(height)))
        buffer = io.BytesIO()
        sheet.save(buffer, format="png")
        return buffer.getvalue()
