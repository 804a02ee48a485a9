"""The common frame in which faces are mixed: upright, one size, with all of the head in it.

Photos show less than the frame in places (a chin at the border, a turned head); what is missing is painted in
from the typical face and the photo's own surroundings, so that no border shows in a mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import Delaunay

import detection

#: Proportions of the frame: those of the ORL photos (112 x 92), in which a head just fits.
ASPECT = 112 / 92
EYE_DISTANCE = 0.355  # between the eye centres, as a share of the frame's width
EYE_LINE = 0.472  # from the top, as a share of the frame's height

#: Frame width in eye distances of the photos, so that mixtures keep the photos' resolution; and its limits.
WIDTH_IN_EYE_DISTANCES = 2.75
SMALLEST_WIDTH, LARGEST_WIDTH = 64, 384

#: Photos that are all of one size, and by no more than this share off the frame's, give the frame their size.
SAME_SIZE = 0.15


@dataclass(frozen=True, eq=False)
class Frame:
    """Size of the frame in pixels, and the mean shape in it: float64 (68, 2)."""

    height: int
    width: int
    shape: np.ndarray

    @classmethod
    def fit(cls, landmarks: np.ndarray, photo_sizes: np.ndarray) -> Frame:
        """Choose the frame for the faces with these landmarks (n, 68, 2) on photos of these sizes (n, 2).

        Sizes are height and width. Where all photos are of one size that a head fills, the frame takes it,
        so that surrogates can stand in for the photos.
        """
        eye_distance = np.median(
            np.linalg.norm(
                detection.eye_centres(landmarks)[:, 1] - detection.eye_centres(landmarks)[:, 0], axis=1
            )
        )
        width = int(np.clip(round(WIDTH_IN_EYE_DISTANCES * eye_distance), SMALLEST_WIDTH, LARGEST_WIDTH))
        height = round(width * ASPECT)
        common = photo_sizes[0]
        if (photo_sizes == common).all() and (np.abs(common / [height, width] - 1) <= SAME_SIZE).all():
            height, width = map(int, common)
        return cls(height, width, _place(mean_shape(landmarks), height, width))

    def transform(self, landmarks: np.ndarray) -> np.ndarray:
        """The similarity (2, 3) that brings one face's landmarks (68, 2) upright into the frame."""
        return detection.similarity(landmarks, self.shape)


def mean_shape(landmarks: np.ndarray, n_rounds: int = 5) -> np.ndarray:
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
    """Turn a mean shape upright and put its eyes where the frame wants them."""
    centre = np.array([(width - 1) / 2, EYE_LINE * (height - 1)])
    half = np.array([EYE_DISTANCE * width / 2, 0.0])
    return detection.move_points(
        shape, detection.similarity(detection.eye_centres(shape), np.stack([centre - half, centre + half]))
    )


def warp_photo(
    image: np.ndarray, transform: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bring a photo into the frame.

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
        Where the photo has something to show.
    """
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    inverse = cv2.invertAffineTransform(transform)
    return sample(image, detection.move_points(np.dstack([columns, rows]), inverse))


def sample(image: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read an image (h, w, c) at positions (H, W, 2) given as x, y; see `warp_photo` for what comes back."""
    height, width = image.shape[:2]
    step = np.sqrt(np.median(np.abs(_areas(positions))))
    scale = 1.0
    if step > 2:  # the photo is much finer than the frame: shrink it first, or pixels would be skipped
        scale = 2 / step
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    x, y = ((positions + 0.5) * scale - 0.5).astype(np.float32).transpose(2, 0, 1)
    texture = cv2.remap(image.astype(np.float32), x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = (positions >= -0.5).all(axis=2) & (positions <= [width - 0.5, height - 0.5]).all(axis=2)
    return np.clip(texture, 0, 255).reshape(*x.shape, -1), inside


def _areas(positions: np.ndarray) -> np.ndarray:
    """Photo area behind each pixel of the frame."""
    right, down = np.diff(positions[:-1], axis=1), np.diff(positions[:, :-1], axis=0)
    return right[..., 0] * down[..., 1] - right[..., 1] * down[..., 0]


#: A pixel of the typical face counts as known where at least this share of the photos show it.
WELL_SEEN = 0.25


def typical_texture(textures: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of what the photos show, continued to where hardly any shows something.

    Parameters
    ----------
    textures : ndarray of float32, shape (n, h, w, c)
    visible : ndarray of bool, shape (n, h, w)

    Returns
    -------
    typical : ndarray of float32, shape (h, w, c)
    known : ndarray of bool, shape (h, w)
        Where it is a mean and no continuation.
    """
    count = visible.sum(axis=0)  # (h, w)
    total = np.einsum("nhwc,nhw->hwc", textures, visible.astype(np.float32))
    known = count >= max(1.0, WELL_SEEN * len(textures))
    mean = total / np.maximum(count, 1)[..., None]
    return continue_outward(mean.astype(np.float32), known.astype(np.float32)), known


#: Softness of the seam between photo and painting, as a share of the frame's width.
SEAM = 0.025


def paint_in(texture: np.ndarray, visible: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Fill what a photo does not show.

    The typical face fills it, shifted in brightness and colour as the photo differs from it nearby, with a
    soft seam.

    Parameters
    ----------
    texture, typical : ndarray of float32, shape (h, w, c)
    visible : ndarray of bool, shape (h, w)

    Returns
    -------
    ndarray of float32, shape (h, w, c)
        Equal to `texture` inside the visible area, some pixels away from its border.
    """
    if visible.all():
        return texture
    solid = cv2.erode(visible.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1).astype(np.float32)
    soft = cv2.GaussianBlur(solid, (0, 0), SEAM * texture.shape[1]) * solid
    difference = continue_outward(texture - typical, soft)
    return np.where(soft[..., None] > 0.999, texture, typical + difference)


def continue_outward(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Continue an image smoothly to where its weight is 0, by averaging over ever larger neighbourhoods.

    Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.4 (pull and push).

    Parameters
    ----------
    values : ndarray of float32, shape (h, w, c)
    weight : ndarray of float32, shape (h, w)
        Between 0 and 1.

    Returns
    -------
    ndarray of float32, shape (h, w, c)
        Where the weight is 1, `values`.
    """
    levels = [(values * weight[..., None], weight)]
    while max(levels[-1][1].shape) > 1:  # to a single value, so that there is one everywhere
        levels.append(tuple(down(part) for part in levels[-1]))
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
        return cls(border, Delaunay(corners).simplices)

    def corners(self, shape: np.ndarray) -> np.ndarray:
        """All mesh points for a shape in the frame: (68, 2) -> (75 + b, 2)."""
        return np.vstack([detection.add_forehead(shape), self.border])

    def source_positions(
        self, shape: np.ndarray, source: np.ndarray, height: int, width: int, fineness: int = 1
    ) -> np.ndarray:
        """Where each pixel of a picture drawn at `shape` comes from, piece-wise affine.

        Parameters
        ----------
        shape : ndarray, shape (68, 2)
            What is drawn.
        source : ndarray, shape (75 + b, 2)
            The same mesh points in the picture that is read.
        height, width : int
            Of the picture that is drawn.
        fineness : int, default 1
            So many positions along each side of a pixel.

        Returns
        -------
        ndarray of float64, shape (height * fineness, width * fineness, 2)
            x, y in the picture that is read.
        """
        corners = (self.corners(shape) + 0.5) * fineness - 0.5
        height, width = height * fineness, width * fineness
        owner = np.zeros((height, width), dtype=np.int32)  # which triangle covers a pixel
        fixed_point = np.rint(corners * 16).astype(np.int32)
        for number, triangle in enumerate(self.triangles):
            cv2.fillConvexPoly(owner, fixed_point[triangle], number, lineType=cv2.LINE_8, shift=4)
        affine = _affine_maps(corners[self.triangles], source[self.triangles])[owner]  # (h, w, 2, 3)
        columns, rows = np.meshgrid(np.arange(width), np.arange(height))
        return affine[..., 0] * columns[..., None] + affine[..., 1] * rows[..., None] + affine[..., 2]


def _border(height: int, width: int) -> np.ndarray:
    """Points on a rectangle a little outside the frame: (18, 2)."""
    across, along = np.linspace(-0.125, 1.125, 5), np.linspace(-0.125, 1.125, 6)
    ring = [(x, y) for x in across for y in (-0.125, 1.125)] + [
        (x, y) for y in along[1:-1] for x in (-0.125, 1.125)
    ]
    return np.array(ring) * [width - 1, height - 1]


def _affine_maps(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Affine maps from target to source triangles: (t, 3, 2) twice -> (t, 2, 3).

    A flat target triangle covers hardly a pixel; its map shifts.
    """
    (ax, ay), (bx, by) = (target[:, 1] - target[:, 0]).T, (target[:, 2] - target[:, 0]).T
    area = ax * by - bx * ay
    flat = np.abs(area) < 1e-3
    area = np.where(flat, 1.0, area)
    inverse = (
        np.stack([np.stack([by, -bx], -1), np.stack([-ay, ax], -1)], -2) / area[:, None, None]
    )  # (t, 2, 2)
    edges = np.stack([source[:, 1] - source[:, 0], source[:, 2] - source[:, 0]], axis=-1)  # (t, 2, 2)
    linear = np.where(flat[:, None, None], np.eye(2), edges @ inverse)
    shift = source[:, 0] - np.einsum("tij,tj->ti", linear, target[:, 0])
    return np.concatenate([linear, shift[..., None]], axis=2)
