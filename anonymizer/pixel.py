"""k-Same and k-Same-Eigen: means of aligned faces, in pixels or in eigenface space.

Newton, Sweeney and Malin, "Preserving privacy by de-identifying face images", IEEE TKDE 17(2), 2005.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_random_state

import frame
import utils
from anonymizer.base import Surrogates
from datasets import Faces

#: The textures that a model is fitted on take at most this many bytes; of more photos a random part is used.
TRAINING_BYTES = 512 << 20


class TextureSurrogates(Surrogates):
    """Faces brought into one frame, from which surrogates are mixed.

    Parameters
    ----------
    faces : Faces
    max_training : int, default 1000
        What is typical of faces is learnt from at most so many of the photos, chosen by `random_state`.
    random_state : int, RandomState or None, default 0

    Attributes
    ----------
    frame : frame.Frame
        Size and mean shape.
    typical : ndarray of float32, shape (h, w, c)
        Mean texture of the training photos; c is 1 if all photos are grey, else 3.
    """

    def __init__(self, faces: Faces, max_training: int = 1000, random_state=0):
        super().__init__(faces)
        if (
            isinstance(max_training, bool)
            or not isinstance(max_training, int | np.integer)
            or max_training < 1
        ):
            raise ValueError(f"max_training must be a whole number of at least 1, not {max_training!r}")
        self.max_training = int(max_training)
        self.channels = 1 if faces.grey else 3
        chosen = self._choose_training(random_state)
        measured = np.sort(chosen)
        sizes = np.array([faces.images[i].shape[:2] for i in measured])
        self.frame = frame.Frame.fit(self.landmarks[measured], sizes)
        room = TRAINING_BYTES // (4 * self.frame.height * self.frame.width * self.channels)
        self.training_rows = np.sort(chosen[: max(1, room)])
        self._fit(self._training_textures())

    def _options(self) -> dict:
        return {"training_rows": self.training_rows}

    def _choose_training(self, random_state) -> np.ndarray:
        """Rows of the photos to learn from, in random order, so that any first part is a random one, too."""
        return check_random_state(random_state).permutation(len(self.faces))[: self.max_training]

    def _training_textures(self) -> np.ndarray:
        """Learn the typical texture, and return the training photos' own: float32 (m, h, w, c)."""
        shown = utils.progress(
            self.training_rows, f"aligning faces ({self.name})", disable=_few(self.training_rows)
        )
        textures, visible = map(np.stack, zip(*(self._warp(i) for i in shown), strict=True))
        self.typical, self._known = frame.typical_texture(textures, visible)
        for texture, seen in zip(textures, visible, strict=True):
            texture[...] = frame.paint_in(texture, seen & self._known, self.typical)
        self._kept = dict(zip(self.training_rows.tolist(), textures, strict=True))
        return textures

    def _photo(self, i: int) -> np.ndarray:
        return self.faces.images[i][..., : self.channels]

    def _warp(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Texture (h, w, c) of one photo in the frame, and where it shows something (h, w)."""
        transform = self.frame.transform(self.landmarks[i])
        return frame.warp_photo(self._photo(i), transform, self.frame.height, self.frame.width)

    def texture(self, i: int) -> np.ndarray:
        """One photo in the frame, what it does not show painted in: float32 (h, w, c)."""
        if i in self._kept:
            return self._kept[i]
        texture, visible = self._warp(i)
        return frame.paint_in(texture, visible & self._known, self.typical)

    @abstractmethod
    def _fit(self, textures: np.ndarray) -> None:
        """Learn from the training textures (m, h, w, c)."""


def _few(rows: np.ndarray) -> bool | None:
    """No progress bar for what is done in an instant."""
    return True if len(rows) < 200 else None


class PixelMean(TextureSurrogates):
    """k-Same: the mean of the members' aligned faces, pixel by pixel (Newton et al. 2005, algorithm k-Same)."""

    name = "pixel"

    def _fit(self, textures: np.ndarray) -> None:
        pass

    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return frame.to_photo(sum(w * self.texture(i) for i, w in zip(members, weights, strict=True)))


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Principal components of some rows, and coordinates in them.

    Attributes
    ----------
    mean : ndarray, shape (p,)
    basis : ndarray, shape (m, p)
        Orthonormal rows, the strongest first.
    variances : ndarray, shape (m,)
        Of the training rows along each of them.
    """

    mean: np.ndarray
    basis: np.ndarray
    variances: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, keep: float) -> LinearModel:
        """Keep the fewest components that hold the share `keep` (0 to 1) of the variance of rows (n, p).

        Works on the n x n products (Turk and Pentland 1991), as n is far below p here.
        """
        mean = rows.mean(axis=0)
        centred = rows - mean
        strengths, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
        strengths, vectors = np.maximum(strengths[::-1], 0), vectors[:, ::-1]
        real = strengths > 1e-7 * max(strengths.sum(), 1e-12)
        share = np.cumsum(strengths) / max(strengths.sum(), 1e-12)
        n_kept = min(int(real.sum()), int(np.searchsorted(share, keep * (1 - 1e-9))) + 1)
        basis = (vectors[:, :n_kept].T @ centred) / np.sqrt(np.maximum(strengths[:n_kept, None], 1e-12))
        return cls(mean, basis.astype(rows.dtype), strengths[:n_kept] / max(len(rows) - 1, 1))

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Coordinates of rows: (..., p) -> (..., m)."""
        return (rows - self.mean) @ self.basis.T

    def decode(self, coordinates: np.ndarray) -> np.ndarray:
        """Rows with these coordinates: (..., m) -> (..., p)."""
        return self.mean + coordinates @ self.basis


def check_share(name: str, value: float) -> float:
    """Return a share of variance if it lies above 0 and at most at 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name} must be a share of variance above 0 and at most 1, not {value!r}")
    return float(value)


class EigenMean(TextureSurrogates):
    """k-Same-Eigen: the mean of the members' eigenface coordinates (Newton et al. 2005, algorithm k-Same-Eigen).

    Parameters
    ----------
    faces : Faces
    keep : float, default 0.95
        Share of the texture's variance that the eigenfaces keep.
    **options
        As for `TextureSurrogates`.
    """

    name = "eigen"

    def __init__(self, faces: Faces, keep: float = 0.95, **options):
        self.keep = check_share("keep", keep)
        super().__init__(faces, **options)

    def _options(self) -> dict:
        return {**super()._options(), "keep": self.keep}

    def _fit(self, textures: np.ndarray) -> None:
        self.model = LinearModel.fit(textures.reshape(len(textures), -1), self.keep)

    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        coordinates = np.stack([self.model.encode(self.texture(i).ravel()) for i in members])  # (k, m)
        return frame.to_photo(self.model.decode(weights @ coordinates).reshape(self.typical.shape))
