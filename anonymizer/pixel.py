"""k-Same and k-Same-Eigen: means of aligned faces, in pixels or in eigenface space.

Newton, Sweeney and Malin, "Preserving privacy by de-identifying face images", IEEE TKDE 17(2), 2005.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

import frame
import utils
from anonymizer.base import Surrogates
from checks import check_number
from datasets import Faces

#: Memory limit for the textures that a model is fitted to; beyond it, a random subset of the photos is used.
_TRAINING_BYTES = 192 << 20


class TextureSurrogates(Surrogates):
    """Base of the generators that align faces in a common frame and mix their textures.

    A texture is a face warped into the frame: float32 (h, w, c) in grey levels of 0 to 255.

    Parameters
    ----------
    faces : Faces
    max_training : int, default 1000
        The typical face is learnt from at most this many photos, chosen by `random_state`.
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
        self.max_training = int(check_number("max_training", max_training, int, at_least=1))
        self.channels = 1 if faces.grey else 3
        # In random order, so that the first photos are a random subset, too.
        chosen = utils.check_random_state(random_state).permutation(len(faces))[: self.max_training]
        measured = np.sort(chosen)
        sizes = np.array([faces.images[i].shape[:2] for i in measured])
        self.frame = frame.Frame.fit(self.landmarks[measured], sizes)
        n_fitting = _TRAINING_BYTES // (4 * self.frame.height * self.frame.width * self.channels)
        self.training_rows = np.sort(chosen[: max(1, n_fitting)])
        self._fit(self._training_textures())

    def _options(self) -> dict:
        return {"training_rows": self.training_rows}

    def _training_textures(self) -> np.ndarray:
        """Learn the typical texture, and return those of the training photos: float32 (m, h, w, c)."""
        is_quick = True if len(self.training_rows) < 200 else None
        shown = utils.progress(self.training_rows, f"aligning faces ({self.name})", disable=is_quick)
        textures, visible = map(np.stack, zip(*(self._warp(i) for i in shown), strict=True))
        self.typical, self._known = frame.typical_texture(textures, visible)
        for texture, seen in zip(textures, visible, strict=True):
            texture[...] = frame.paint_in(texture, seen & self._known, self.typical)
        self._kept = dict(zip(self.training_rows.tolist(), textures, strict=True))
        return textures

    def _photo(self, i: int) -> np.ndarray:
        return self.faces.images[i][..., : self.channels]

    def _warp(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the texture (h, w, c) of one photo, and the part of the frame that it covers (h, w)."""
        transform = self.frame.transform(self.landmarks[i])
        return frame.warp_photo(self._photo(i), transform, self.frame.height, self.frame.width)

    def texture(self, i: int) -> np.ndarray:
        """Return the texture of one photo, with the parts outside the photo filled in: float32 (h, w, c)."""
        if i in self._kept:
            return self._kept[i]
        texture, visible = self._warp(i)
        return frame.paint_in(texture, visible & self._known, self.typical)

    @abstractmethod
    def _fit(self, textures: np.ndarray) -> None:
        """Fit the model to the training textures (m, h, w, c)."""


class PixelMean(TextureSurrogates):
    """k-Same: the mean of the members' aligned faces, pixel by pixel (Newton et al. 2005, algorithm k-Same)."""

    name = "pixel"

    def _fit(self, textures: np.ndarray) -> None:
        pass

    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return frame.to_photo(sum(w * self.texture(i) for i, w in zip(members, weights, strict=True)))


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Principal components of the rows of a matrix.

    Attributes
    ----------
    mean : ndarray, shape (p,)
    basis : ndarray, shape (m, p)
        Orthonormal components, the strongest first.
    variances : ndarray, shape (m,)
        Variance of the training rows along each component.
    """

    mean: np.ndarray
    basis: np.ndarray
    variances: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, keep: float) -> LinearModel:
        """Keep the fewest components that explain the share `keep` (0 to 1) of the variance of rows (n, p).

        Decomposes the n x n matrix of inner products (Turk and Pentland 1991), as n is much smaller than p here.
        """
        mean = rows.mean(axis=0)
        centred = rows - mean
        # Eigenvalues of the inner products, the largest first. (n,), (n, n)
        strengths, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
        strengths, vectors = np.maximum(strengths[::-1], 0), vectors[:, ::-1]
        # Count the components above rounding noise that reach the share.
        real = strengths > 1e-7 * max(strengths.sum(), 1e-12)
        share = np.cumsum(strengths) / max(strengths.sum(), 1e-12)
        n_kept = min(int(real.sum()), int(np.searchsorted(share, keep * (1 - 1e-9))) + 1)
        # Convert eigenvectors of inner products to components. (m, p)
        basis = (vectors[:, :n_kept].T @ centred) / np.sqrt(np.maximum(strengths[:n_kept, None], 1e-12))
        return cls(mean, basis.astype(rows.dtype), strengths[:n_kept] / max(len(rows) - 1, 1))

    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Return the coordinates of rows: (..., p) -> (..., m)."""
        return (rows - self.mean) @ self.basis.T

    def decode(self, coordinates: np.ndarray) -> np.ndarray:
        """Return the rows with these coordinates: (..., m) -> (..., p)."""
        return self.mean + coordinates @ self.basis


class EigenMean(TextureSurrogates):
    """k-Same-Eigen: the mean of the members' eigenface coordinates (Newton et al. 2005, algorithm k-Same-Eigen).

    Parameters
    ----------
    faces : Faces
    keep : float, default 0.95
        Share of the texture's variance that the eigenfaces keep, above 0 and at most 1.
    epsilon : float, optional
        Make the mean of each cluster differentially private by Laplace noise (Dwork, McSherry, Nissim and Smith,
        "Calibrating noise to sensitivity in private data analysis", TCC 2006): if one member's photos are replaced, no
        image becomes more likely by more than the factor exp(epsilon). Coordinates are clipped to an L1 norm of the sum
        of their standard deviations. This holds for the mean alone: partition, frame and eigenfaces are learnt from the
        same photos but count as public. The seed must be secret.
    random_state : int, RandomState or None, default 0
        Also draws the noise, the same for the same members and weights.
    **options
        As for `TextureSurrogates`.
    """

    name = "eigen"

    def __init__(
        self, faces: Faces, keep: float = 0.95, epsilon: float | None = None, random_state=0, **options
    ):
        self.keep = float(check_number("keep", keep, above=0, at_most=1))
        self.epsilon = None if epsilon is None else float(check_number("epsilon", epsilon, above=0))
        random = utils.check_random_state(random_state)
        self._seed = int(random.randint(2**31 - 1)) if epsilon is not None else 0
        super().__init__(faces, random_state=random, **options)

    def _options(self) -> dict:
        return {**super()._options(), "keep": self.keep, "noise": [self.epsilon, self._seed]}

    def _fit(self, textures: np.ndarray) -> None:
        self.model = LinearModel.fit(textures.reshape(len(textures), -1), self.keep)

    def _mix(self, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        coordinates = self.model.encode(np.stack([self.texture(i).ravel() for i in members]))  # (k, m)
        mean = (
            weights @ coordinates if self.epsilon is None else self._noisy_mean(coordinates, members, weights)
        )
        return frame.to_photo(self.model.decode(mean).reshape(self.typical.shape))

    def _noisy_mean(self, coordinates: np.ndarray, members: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Mean of clipped coordinates (k, m) plus Laplace noise for `epsilon`: (m,)."""
        radius = np.sqrt(self.model.variances).sum()
        lengths = np.abs(coordinates).sum(axis=1, keepdims=True)
        clipped = coordinates * np.minimum(1, radius / np.maximum(lengths, 1e-12))
        # A person's photos move the mean by at most twice the radius times their share.
        share = np.bincount(np.unique(self.faces.identities[members], return_inverse=True)[1], weights).max()
        key = int(utils.content_key(self._seed, members, weights)[:8], 16)
        noise = utils.check_random_state(key).laplace(
            scale=2 * radius * share / self.epsilon, size=len(clipped.T)
        )
        return weights @ clipped + noise
