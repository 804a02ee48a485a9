"""Estimate the pose of a head separately from the proportions of its face.

An affine map from one face's landmarks to another's transfers the pose, but also the proportions of the face: a long
face stays long. So each pose is fitted to one rigid mean face, with weak perspective (rotation, scale, shift), and a
face moves from one pose to another by a rotation in space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Mean face in space: x to the right, y down, z towards the viewer, in hundredths of the distance between the eyes.
#: By factorisation (Tomasi and Kanade, "Shape and motion from image streams under orthography", IJCV 1992) of the
#: landmarks of the ORL photos and their mirror images. Because these heads are turned only slightly, the depth is known
#: only up to a factor; we choose it so that the nose is 0.76 eye distances in front of the corners of the eyes.
# fmt: off
_MEAN_FACE = np.array([
    (-112, -50, -87), (-110, -22, -84), (-107, 5, -82), (-102, 32, -79), (-93, 58, -70), (-76, 80, -56),
    (-55, 98, -39), (-30, 112, -21), (0, 116, -15), (30, 112, -21), (55, 98, -39), (76, 80, -56),
    (93, 58, -70), (102, 32, -79), (107, 5, -82), (110, -22, -84), (112, -50, -87), (-93, -70, -11),
    (-80, -85, 8), (-59, -91, 23), (-38, -89, 34), (-17, -82, 40), (17, -82, 40), (38, -89, 34),
    (59, -91, 23), (80, -85, 8), (93, -70, -11), (0, -63, 39), (0, -45, 50), (0, -28, 64),
    (0, -10, 75), (-23, 5, 37), (-12, 8, 44), (0, 12, 49), (12, 8, 44), (23, 5, 37),
    (-69, -56, -1), (-57, -63, 5), (-43, -63, 8), (-30, -55, 9), (-43, -53, 8), (-58, -52, 6),
    (30, -55, 9), (43, -63, 8), (57, -63, 5), (69, -56, -1), (58, -52, 6), (43, -53, 8),
    (-44, 42, -6), (-28, 36, 17), (-12, 32, 31), (0, 34, 32), (12, 32, 31), (28, 36, 17),
    (44, 42, -6), (28, 54, 11), (13, 59, 23), (0, 60, 25), (-13, 59, 23), (-28, 54, 11),
    (-38, 43, -2), (-12, 41, 26), (0, 42, 28), (12, 41, 26), (38, 43, -2), (12, 46, 23),
    (0, 47, 25), (-12, 46, 23),
], dtype=np.float64) / 100  # (68, 3)
# fmt: on


@dataclass(frozen=True, eq=False)
class Pose:
    """Weak perspective: a point X in space projects to ``scale * (rotation @ X)[:2] + shift``.

    Attributes
    ----------
    scale : float
        Pixels per unit of `_MEAN_FACE`.
    rotation : ndarray of float64, shape (3, 3)
    shift : ndarray of float64, shape (2,)
    """

    scale: float
    rotation: np.ndarray
    shift: np.ndarray

    @classmethod
    def fit(cls, landmarks: np.ndarray) -> Pose:
        """Fit the pose of the mean face to landmarks (68, 2)."""
        # Least-squares map from the centred mean face to the centred landmarks. (2, 3)
        model = _MEAN_FACE - _MEAN_FACE.mean(axis=0)
        seen = landmarks - landmarks.mean(axis=0)
        linear = np.linalg.lstsq(model, seen, rcond=None)[0].T
        # Find the nearest rotation and its scale by singular value decomposition.
        u, strengths, vt = np.linalg.svd(linear, full_matrices=False)
        across, down = u @ vt
        rotation = np.stack([across, down, np.cross(across, down)])
        scale = float(strengths.mean())
        return cls(scale, rotation, landmarks.mean(axis=0) - scale * rotation[:2] @ _MEAN_FACE.mean(axis=0))

    @property
    def angles(self) -> tuple[float, float]:
        """How far the head is turned to the side, and up or down, in degrees; 0 and 0 from the front."""
        x, y, z = self.rotation[2]
        return float(np.degrees(np.arctan2(-x, z))), float(np.degrees(np.arcsin(np.clip(y, -1, 1))))

    def lift(self, landmarks: np.ndarray) -> np.ndarray:
        """Lift landmarks in this pose to points in space, with the mean face's depth: (68, 2) -> (68, 3)."""
        flat = (landmarks - self.shift) / self.scale
        depth = _MEAN_FACE @ self.rotation[2]
        return np.column_stack([flat, depth]) @ self.rotation

    def see(self, points: np.ndarray) -> np.ndarray:
        """Project points in space in this pose: (m, 3) -> (m, 2)."""
        return self.scale * points @ self.rotation[:2].T + self.shift
