"""The common frame in which faces are mixed: upright, of one size, showing the whole head.

A photo may not cover the frame (a chin at the border, a tilted head). The missing part is filled in from the typical
face and the photo's surroundings, so that mixtures show no border.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy

import detection

#: Proportions of the frame: those of the ORL photos (112 x 92), in which a head just fits.
_ASPECT = 112 / 92
_EYE_DISTANCE = 0.355  # between the eye centres, as a share of the frame's width
EYE_LINE = 0.472  # from the top, as a share of the frame's height

#: Frame width in eye distances, and its limits in pixels. The eye distance is this quantile over the photos, so that
#: mixtures keep the resolution of large faces; small faces lend no fine detail (`anonymizer.aam`).
_WIDTH_IN_EYE_DISTANCES, _LARGE_FACES = 2.75, 0.9
_SMALLEST_WIDTH, _LARGEST_WIDTH = 64, 384

#: If all photos have the same size, and it differs from the frame's by at most this share, the frame takes that size.
_SAME_SIZE = 0.15

#: A pixel of the typical face counts as known if at least this share of the photos show it.
_WELL_SEEN = 0.25

#: Softness of the seam between photo and painted part, as a share of the frame's width.
_SEAM = 0.025


@dataclass(frozen=True, eq=False)
class Frame:
    """Size of the frame in pixels, and the mean shape in it: float64 (68, 2)."""

    height: int
    width: int
    shape: np.ndarray

    @classmethod
    def fit(cls, landmarks: np.ndarray, photo_sizes: np.ndarray) -> Frame:
        """Choose the frame for faces with these landmarks (n, 68, 2) on photos of these sizes (n, 2).

        Sizes are height and width. If all photos have one size that a head fills, the frame takes that size,
        so that surrogates can replace the photos.
        """
        eyes = detection.eye_centres(landmarks)  # (n, 2, 2)
        eye_distances = np.linalg.norm(eyes[:, 1] - eyes[:, 0], axis=1)
        height, width = _size_for(np.median(eye_distances))
        common = photo_sizes[0]
        if (photo_sizes == common).all() and (np.abs(common / [height, width] - 1) <= _SAME_SIZE).all():
            height, width = map(int, common)
        else:
            height, width = _size_for(np.quantile(eye_distances, _LARGE_FACES))
        return cls(height, width, _place(_mean_shape(landmarks), height, width))

    def transform(self, landmarks: np.ndarray) -> np.ndarray:
        """The similarity (2, 3) that moves one face's landmarks (68, 2) upright into the frame."""
        return detection.similarity(landmarks, self.shape)

    def enlargement(self, landmarks: np.ndarray) -> float:
        """How much larger one face (68, 2) is in the frame than on its photo."""
        return float(np.sqrt(np.linalg.det(self.transform(landmarks)[:, :2])))


def _size_for(eye_distance: float) -> tuple[int, int]:
    """Height and width of a frame for faces of this eye distance in pixels."""
    width = int(np.clip(round(_WIDTH_IN_EYE_DISTANCES * eye_distance), _SMALLEST_WIDTH, _LARGEST_WIDTH))
    return round(width * _ASPECT), width


def _mean_shape(landmarks: np.ndarray, n_rounds: int = 5) -> np.ndarray:
    """Mean of faces up to rotation, scale and shift, by generalised Procrustes analysis.

    Gower, "Generalized Procrustes analysis", Psychometrika 1975.

    Parameters
    ----------
    landmarks : ndarray, shape (n, m, 2)
    n_rounds : int, default 5

    Returns
    -------
    ndarray of float64, shape (m, 2)
        Centred, with unit norm.
    """
    mean = _normalised(landmarks[0].astype(np.float64))
    for _ in range(n_rounds):
        aligned = [detection.move_points(points, detection.similarity(points, mean)) for points in landmarks]
        mean = _normalised(np.mean(aligned, axis=0))
    return mean


def _normalised(points: np.ndarray) -> np.ndarray:
    centred = points - points.mean(axis=0)
    return centred / max(np.linalg.norm(centred), 1e-12)


def _place(shape: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rotate a mean shape upright and move its eyes to their place in the frame."""
    centre = np.array([(width - 1) / 2, EYE_LINE * (height - 1)])
    half = np.array([_EYE_DISTANCE * width / 2, 0.0])
    eyes = np.stack([centre - half, centre + half])
    return detection.move_points(shape, detection.similarity(detection.eye_centres(shape), eyes))


def warp_photo(
    image: np.ndarray, transform: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Warp a photo into the frame.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, c)
    transform : ndarray, shape (2, 3)
        From photo to frame.
    height, width : int

    Returns
    -------
    texture : ndarray of float32, shape (height, width, c)
    visible : ndarray of bool, shape (height, width)
        Where the photo covers the frame.
    """
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    inverse = cv2.invertAffineTransform(transform)
    return sample(image, detection.move_points(np.dstack([columns, rows]), inverse))


def sample(image: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read an image (h, w, c) at positions x, y (H, W, 2); returns texture and visible mask as `warp_photo` does."""
    height, width = image.shape[:2]
    step = np.sqrt(np.median(np.abs(_areas(positions))))
    scale = 1.0
    if step > 2:  # the image is much finer than the positions: shrink it first to avoid skipping pixels
        scale = 2 / step
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    x, y = ((positions + 0.5) * scale - 0.5).astype(np.float32).transpose(2, 0, 1)
    texture = cv2.remap(image.astype(np.float32), x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    left, top = positions[..., 0], positions[..., 1]
    inside = (left >= -0.5) & (left <= width - 0.5) & (top >= -0.5) & (top <= height - 0.5)
    return np.clip(texture, 0, 255).reshape(*x.shape, -1), inside


def _areas(positions: np.ndarray) -> np.ndarray:
    """Area of the image behind each position."""
    right, down = np.diff(positions[:-1], axis=1), np.diff(positions[:, :-1], axis=0)
    return right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]


def typical_texture(textures: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the visible pixels, extrapolated where too few photos are visible.

    Parameters
    ----------
    textures : ndarray of float32, shape (n, h, w, c)
    visible : ndarray of bool, shape (n, h, w)

    Returns
    -------
    typical : ndarray of float32, shape (h, w, c)
    known : ndarray of bool, shape (h, w)
        Where it is a mean, not extrapolated.
    """
    count = visible.sum(axis=0)  # (h, w)
    total = np.einsum("nhwc,nhw->hwc", textures, visible.astype(np.float32))
    known = count >= max(1.0, _WELL_SEEN * len(textures))
    mean = total / np.maximum(count, 1)[..., None]
    return continue_outward(mean.astype(np.float32), known.astype(np.float32)), known


def paint_in(texture: np.ndarray, visible: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Fill the part of the frame that a photo does not cover.

    The typical face fills it, shifted in brightness and colour by its difference from the photo nearby, with a
    soft seam.

    Parameters
    ----------
    texture, typical : ndarray of float32, shape (h, w, c)
    visible : ndarray of bool, shape (h, w)

    Returns
    -------
    ndarray of float32, shape (h, w, c)
        Equal to `texture` inside the visible area, except near its border.
    """
    if visible.all():
        return texture
    # Weight the photo: 1 well inside, 0 outside, soft between. (h, w)
    solid = cv2.erode(visible.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1).astype(np.float32)
    soft = cv2.GaussianBlur(solid, (0, 0), _SEAM * texture.shape[1]) * solid
    # Extrapolate the difference between photo and typical face outward. (h, w, c)
    difference = continue_outward(texture - typical, soft)
    return np.where(soft[..., None] > 0.999, texture, typical + difference)


def continue_outward(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Extrapolate an image smoothly to where its weight is 0, by averaging over increasingly large neighbourhoods.

    Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.4 (pull and push).

    Parameters
    ----------
    values : ndarray of float32, shape (h, w, c)
    weight : ndarray of float32, shape (h, w)
        Between 0 and 1.

    Returns
    -------
    ndarray of float32, shape (h, w, c)
        Equal to `values` where the weight is 1.
    """
    # Pull: halve weighted values and weights, down to one value.
    levels = [(values * weight[..., None], weight)]
    while max(levels[-1][1].shape) > 1:
        levels.append(tuple(down(part) for part in levels[-1]))
    # Push: double the result, and use it where the finer level has no weight of its own.
    total, weight = levels[-1]
    result = total / np.maximum(weight, 1e-6)[..., None]
    for total, weight in reversed(levels[:-1]):
        share = np.clip(weight, 0, 1)[..., None]
        own = np.where(share > 1e-6, total / np.maximum(share, 1e-6), 0)
        result = own * share + up(result, total.shape) * (1 - share)
    return result.astype(np.float32)


def down(image: np.ndarray) -> np.ndarray:
    """Halve an image (h, w) or (h, w, c) after a small blur, keeping its number of dimensions."""
    return cv2.pyrDown(image).reshape((image.shape[0] + 1) // 2, (image.shape[1] + 1) // 2, *image.shape[2:])


def up(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Double an image to the given shape (h, w, c)."""
    return cv2.pyrUp(image, dstsize=(shape[1], shape[0])).reshape(shape)


def to_photo(texture: np.ndarray) -> np.ndarray:
    """Float texture (h, w, 1 or 3) -> uint8 RGB (h, w, 3)."""
    pixels = np.clip(np.rint(texture), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles over the whole frame: the 68 landmarks, the forehead, and a fixed border.

    Attributes
    ----------
    border : ndarray, shape (b, 2)
        Fixed points around the frame.
    triangles : ndarray of int, shape (t, 3)
        Corners as rows of what `corners` returns.
    """

    border: np.ndarray
    triangles: np.ndarray

    @classmethod
    def over(cls, shape: np.ndarray, height: int, width: int) -> Mesh:
        """Triangulate a frame at a shape (68, 2)."""
        border = _border(height, width)
        corners = np.vstack([detection.add_forehead(shape), border])
        return cls(border, scipy.spatial.Delaunay(corners).simplices)

    def corners(self, shape: np.ndarray) -> np.ndarray:
        """All mesh points for a shape in the frame: (68, 2) -> (75 + b, 2)."""
        return np.vstack([detection.add_forehead(shape), self.border])

    def source_positions(
        self, shape: np.ndarray, source: np.ndarray, height: int, width: int, fineness: int = 1
    ) -> np.ndarray:
        """Sampling positions for each pixel of an image drawn at `shape`: a piecewise affine map.

        Parameters
        ----------
        shape : ndarray, shape (68, 2)
            Landmarks in the image that is drawn.
        source : ndarray, shape (75 + b, 2)
            The mesh points in the image that is read.
        height, width : int
            Of the image that is drawn.
        fineness : int, default 1
            Positions along each side of a pixel.

        Returns
        -------
        ndarray of float64, shape (height * fineness, width * fineness, 2)
            x, y in the image that is read.
        """
        corners = (self.corners(shape) + 0.5) * fineness - 0.5
        height, width = height * fineness, width * fineness
        # Draw the number of each triangle. (h, w)
        owner = np.zeros((height, width), dtype=np.int32)
        fixed_point = np.rint(corners * 16).astype(np.int32)
        for number, triangle in enumerate(self.triangles):
            cv2.fillConvexPoly(owner, fixed_point[triangle], number, lineType=cv2.LINE_8, shift=4)
        # Apply each pixel's affine map, coordinate by coordinate. (2, 3, t), (h, w, 2)
        affine = _affine_maps(corners[self.triangles], source[self.triangles]).transpose(1, 2, 0).copy()
        columns, rows, owner = np.arange(width), np.arange(height)[:, None], owner.astype(np.intp)
        positions = np.empty((height, width, 2))
        for place, (along, down, shift) in enumerate(affine):
            positions[..., place] = along.take(owner) * columns + down.take(owner) * rows + shift.take(owner)
        return positions


def _border(height: int, width: int) -> np.ndarray:
    """Points on a rectangle slightly outside the frame: (18, 2)."""
    ends = (-0.125, 1.125)
    ring = [(x, y) for x in np.linspace(*ends, 5) for y in ends]
    ring += [(x, y) for y in np.linspace(*ends, 6)[1:-1] for x in ends]
    return np.array(ring) * [width - 1, height - 1]


def _affine_maps(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Affine maps from target to source triangles: (t, 3, 2) twice -> (t, 2, 3).

    The map of a degenerate target triangle, which covers hardly a pixel, is a shift.
    """
    (ax, ay), (bx, by) = (target[:, 1] - target[:, 0]).T, (target[:, 2] - target[:, 0]).T
    area = ax * by - bx * ay
    flat = np.abs(area) < 1e-3
    area = np.where(flat, 1.0, area)
    adjugate = np.stack([np.stack([by, -bx], -1), np.stack([-ay, ax], -1)], -2)  # (t, 2, 2)
    inverse = adjugate / area[:, None, None]
    edges = np.stack([source[:, 1] - source[:, 0], source[:, 2] - source[:, 0]], axis=-1)  # (t, 2, 2)
    linear = np.where(flat[:, None, None], np.eye(2), edges @ inverse)
    shift = source[:, 0] - np.einsum("tij,tj->ti", linear, target[:, 0])
    return np.concatenate([linear, shift[..., None]], axis=2)
