"""Encode photos linearly: principal components of landmarks and shape-normalised pixels, as in an appearance model.

The mean of the codes of several photos is the code of their mean face. So a network that was trained on mixed faces
only (`stylegan.mixtures`) also knows what to draw for the mean code of people that it never saw.

Cootes, Edwards and Taylor, "Active appearance models", PAMI 23(6), 2001.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from checks import check_array, check_number
from frame import Mesh, sample
from stylegan.network import save_weights
from training.training_set import face_weights

# Pixels are reduced by this factor: detail is for the network to add.
_SHRINK = 2
# Share of the total variance by which variances are raised before components are scaled to variance 1, so that the
# weakest components, which are mostly noise in other people's photos, count less.
_DAMPING = 2e-4
# Components are stored as integers up to this one, times a scale: the error is a hundredth of a component's spread.
_LARGEST_INTEGER = 127
# Weight of hair and background, relative to the face: they vary most, but say least about a person.
_OUTSIDE = 0.1


@dataclass(frozen=True, eq=False, repr=False)
class AppearanceEncoder:
    """A linear encoder: picture and landmarks -> the same w for all layers.

    Attributes
    ----------
    reference : ndarray of float64, shape (68, 2)
        The shape to which faces are warped, in pixels of the pictures.
    frame : tuple of int
        Top, left, height and width of the faces in the pictures.
    shape_weight : float
        What one pixel of shape is worth in units of the pictures.
    outside : float
        Weight of pixels outside the face.
    mean : ndarray of float32, shape (p,)
    basis : ndarray of float32, shape (w_dim, p)
        Scaled components.
    num_layers : int
    description : dict
        Plain values: ``dataset`` and ``training``.
    """

    reference: np.ndarray
    frame: tuple[int, int, int, int]
    shape_weight: float
    outside: float
    mean: np.ndarray
    basis: np.ndarray
    num_layers: int
    description: dict

    @classmethod
    def fit(
        cls,
        pictures: np.ndarray,
        shapes: np.ndarray,
        reference: np.ndarray,
        frame: tuple[int, int, int, int],
        w_dim: int,
        num_layers: int,
    ) -> AppearanceEncoder:
        """Learn `w_dim` components from pictures (n, r, r, 3) in -1..1 with landmarks (n, 68, 2); n > w_dim."""
        blank = np.zeros((0, 0), dtype=np.float32)
        encoder = cls(reference, frame, 1.0, _OUTSIDE, blank, blank, num_layers, {})
        rows = np.stack([encoder.features(*pair) for pair in zip(pictures, shapes, strict=True)])  # (n, p)
        # Weigh shape so that it varies as much as texture.
        mean = rows.mean(axis=0)
        rows -= mean
        n_shape = reference.size
        spread = [float(np.square(part).sum()) for part in (rows[:, :n_shape], rows[:, n_shape:])]
        shape_weight = float(np.sqrt(spread[1] / max(spread[0], 1e-12)))
        rows[:, :n_shape] *= shape_weight
        mean[:n_shape] *= shape_weight
        # Principal components from the matrix of inner products. (n,), (n, n)
        strengths, vectors = np.linalg.eigh((rows @ rows.T).astype(np.float64))
        strengths, vectors = np.maximum(strengths[::-1][:w_dim], 1e-12), vectors[:, ::-1][:, :w_dim]
        basis = vectors.T @ rows / np.sqrt(strengths)[:, None]
        scales = np.sqrt(len(rows) / (strengths + _DAMPING * 2 * spread[1]))
        basis = (basis * scales[:, None]).astype(np.float32)
        return replace(encoder, shape_weight=shape_weight, mean=mean.astype(np.float32), basis=basis)

    @cached_property
    def _mesh(self) -> tuple[Mesh, np.ndarray]:
        """The triangles over the frame, and its corners at the reference shape."""
        _, _, height, width = self.frame
        inner = self.reference - self._corner
        mesh = Mesh.over(inner, height, width)
        return mesh, inner

    @property
    def _corner(self) -> np.ndarray:
        return np.array([self.frame[1], self.frame[0]])

    @cached_property
    def _pixel_weights(self) -> np.ndarray:
        """Root of the weight of each reduced pixel: (h, w, 1)."""
        _, _, height, width = self.frame
        return np.sqrt(_reduce(face_weights(self.reference - self._corner, height, width, self.outside)))

    def features(self, picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Weighted shape and texture of one picture (r, r, 3) in -1..1 with landmarks (68, 2): float32 (p,)."""
        _, _, height, width = self.frame
        mesh, inner = self._mesh
        # Warp the face to the reference shape. (h, w, 3)
        source = mesh.corners(landmarks - self._corner) + self._corner
        positions = mesh.source_positions(inner, source, height, width)
        texture = sample((picture + 1) * 127.5, positions)[0] / 127.5 - 1
        texture = _reduce(texture) * self._pixel_weights
        shape = self.shape_weight * (landmarks - self.reference) / picture.shape[0]
        return np.concatenate([shape.ravel(), texture.ravel()]).astype(np.float32)

    def encode(self, pictures: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Find the codes of pictures.

        Parameters
        ----------
        pictures : array, shape (n, resolution, resolution, 3)
            In -1..1, aligned to the network's frame.
        landmarks : array, shape (n, 68, 2)
            In pixels of the pictures.

        Returns
        -------
        ndarray of float32, shape (n, num_layers, w_dim)

        Raises
        ------
        ValueError
            If the arguments are not finite numbers of these shapes.
        """
        pictures = check_array("pictures", pictures, (None, None, None, 3))
        landmarks = check_array("landmarks", landmarks, (len(pictures), 68, 2), np.float64)
        w = np.empty((len(pictures), len(self.basis)), dtype=np.float32)
        for row, picture, points in zip(w, pictures, landmarks, strict=True):
            row[:] = self.basis @ (self.features(picture, points) - self.mean)
        return np.repeat(w[:, None], self.num_layers, axis=1)

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], description: dict) -> AppearanceEncoder:
        """Make an encoder from what `save` wrote; raise ValueError, KeyError or TypeError if it is damaged."""
        sizes, rest = description["appearance"], {n: v for n, v in description.items() if n != "appearance"}
        top, left, height, width = (int(side) for side in sizes["frame"])
        reference = check_array("reference", sizes["reference"], (68, 2), np.float64)
        n_features = reference.size + 3 * (height // _SHRINK) * (width // _SHRINK)
        mean = check_array("mean", arrays["mean"], (n_features,))
        basis = check_array("basis", arrays["basis"], (None, n_features))
        basis = basis * check_array("scales", arrays["scales"], (len(basis), 1))
        num_layers = check_number("num_layers", sizes["num_layers"], int, at_least=1)
        shape_weight = float(check_number("shape_weight", sizes["shape_weight"], above=0))
        outside = float(check_number("outside", sizes["outside"], at_least=0, at_most=1))
        return cls(
            reference, (top, left, height, width), shape_weight, outside, mean, basis, num_layers, rest
        )

    def save(self, path: str | Path, dtype: str = "float32") -> None:
        """Write an ``.npz`` file, components as int8; see `stylegan.encoder.Encoder.save`."""
        scales = np.abs(self.basis).max(axis=1, keepdims=True) / _LARGEST_INTEGER  # (w_dim, 1)
        basis = np.rint(self.basis / scales).astype(np.int8)
        arrays = {"mean": self.mean, "basis": basis, "scales": scales}
        # The reference keeps its precision: its rounded hull decides which pixels count.
        sizes = {
            "reference": self.reference.tolist(),
            "frame": list(self.frame),
            "shape_weight": self.shape_weight,
            "outside": self.outside,
            "num_layers": self.num_layers,
        }
        save_weights(path, arrays, {"appearance": sizes, **self.description}, dtype)


def _reduce(values: np.ndarray) -> np.ndarray:
    """Average over blocks of pixels: (h, w, c) -> (h / 2, w / 2, c)."""
    height, width = values.shape[:2]
    size = (width // _SHRINK, height // _SHRINK)
    reduced = cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return reduced.reshape(*size[::-1], -1)
