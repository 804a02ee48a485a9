"""Find photos in images by their local structure, whatever their colours, brightness, size, proportions or orientation.

A photo is drawn in several ways (grey, edges, contours, black and white) on a small grid. So is every layer of an image
that could hide a photo: its grey values, each channel, and the lowest bits of each channel. Drawings are compared block
by block, by the absolute correlation within each block: no change of tone that is smooth or the same everywhere hides a
photo, and a covered part spoils only the blocks that it covers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

import detection

#: Drawings have this many cells per side; blocks have this many, and start at every so many cells.
_SIDE, _BLOCK, _STEP = 32, 8, 6
#: A block is compared if the face covers this share of it, and the photo varies in it by this standard deviation.
_COVERED, _LEAST_DEVIATION = 0.5, 2.0
#: Fewer blocks than this show too little to tell photos apart.
_FEWEST_BLOCKS = 8

#: The lowest bits of a channel that could hide a photo.
_LOW_BITS = (1, 2, 3, 4)
#: A layer shows something if neighbouring cells of its drawing correlate at least this much; noise does not.
_LEAST_ORDER = 0.3
#: A layer whose drawing correlates more than this with the grey values shows nothing else.
_SAME_LAYER = 0.98

#: Side in pixels of warped faces.
_FACE_SIDE = 64

#: Blocks that correlate this much show the same.
_SAME_BLOCK = 0.95

#: What an image shows of a photo: nothing, as much as a filtered photo, or more than that.
NOTHING, COARSE, CLEAR = 0, 1, 2


def _grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)


def _edges(grey: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(grey, (0, 0), 1)
    return np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1))


def _lines(grey: np.ndarray) -> np.ndarray:
    return np.abs(cv2.Laplacian(grey, -1))


def _contours(grey: np.ndarray) -> np.ndarray:
    return cv2.Canny(grey.astype(np.uint8), 60, 120).astype(np.float32)


def _black_and_white(share: float) -> Callable[[np.ndarray], np.ndarray]:
    """The photo with this share of its pixels black and all others white."""
    return lambda grey: np.where(grey > np.quantile(grey, share), np.float32(255), np.float32(0))


#: Ways to draw a photo: name -> function, grey values (h, w) -> (h, w). A photo of which the limits below find enough
#: "same blocks" was covered in part.
_DRAWINGS = {
    "grey": lambda grey: grey,
    "edges": _edges,
    "lines": _lines,
    "contours": _contours,
    "few black": _black_and_white(0.25),
    "half black": _black_and_white(0.5),
    "most black": _black_and_white(0.75),
}


@dataclass(frozen=True)
class _Limits:
    """How similar to a photo an image may be; no surrogate of the five generators, made of ORL faces, is above them.

    Attributes
    ----------
    leading : float
        If the image resembles one person more than all others, by `_LEAD`. Means of photos that were not aligned
        resemble several.
    alone : float
        Otherwise.
    clear : float
        Above it, the image shows more than a photo blurred or pixelated by our filters.
    face : float
        For the faces that were found and warped, which are alike in all people.
    """

    leading: float
    alone: float
    clear: float
    face: float


_LIMITS = {
    "grey": _Limits(0.76, 0.925, 0.925, 0.965),
    "same blocks": _Limits(0.19, 0.41, 0.41, 0.8),
    "edges": _Limits(0.77, 0.77, 0.77, 0.92),
    "lines": _Limits(0.64, 0.66, 0.7, 0.8),
    "contours": _Limits(0.6, 0.65, 0.7, 0.7),
    "few black": _Limits(0.69, 0.75, 0.9, 0.87),
    "half black": _Limits(0.75, 0.83, 0.9, 0.89),
    "most black": _Limits(0.75, 0.83, 0.9, 0.85),
}
_LEAD = 0.18


class Held:
    """The drawings of g photos, for whole frames and for the faces alone.

    Parameters
    ----------
    photos : sequence of g uint8 arrays (h, w, 3)
    landmarks : ndarray, shape (g, 68, 2)
    identities : ndarray of str, shape (g,)
    """

    def __init__(self, photos: Sequence[np.ndarray], landmarks: np.ndarray, identities: np.ndarray):
        self.identities = identities
        self.template = _template(landmarks)
        frames = [
            (_grey(photo), _face_area(photo, points)) for photo, points in zip(photos, landmarks, strict=True)
        ]
        face = _resized(_hull(self.template, (_FACE_SIDE, _FACE_SIDE)))
        faces = [
            (_grey(self.face(photo, points)), face) for photo, points in zip(photos, landmarks, strict=True)
        ]
        self.frames, self.faces = _Blocks.of(frames), _Blocks.of(faces)

    def face(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The face, warped to the typical proportions: uint8 (64, 64, 3)."""
        warp = _affine(landmarks, self.template)
        return cv2.warpAffine(
            image, warp, (_FACE_SIDE, _FACE_SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )

    def shown(self, image: np.ndarray, landmarks: np.ndarray | None) -> int:
        """How much of any photo an image shows, in its place in the frame or where a face was found.

        Returns
        -------
        int
            `NOTHING`, `COARSE` or `CLEAR`.
        """
        frame = self.frames.similarities(_Views.of(image, range(4)))
        if any(frame[name].max() > limits.clear for name, limits in _LIMITS.items()):
            return CLEAR
        if landmarks is not None:
            face = self.faces.similarities(_Views.of(self.face(image, landmarks), (0,)))
            if any(face[name].max() > limits.face for name, limits in _LIMITS.items()):
                return CLEAR
        for name, limits in _LIMITS.items():
            best = frame[name].argmax()
            others = frame[name][self.identities != self.identities[best]].max(initial=0.0)
            most, lead = frame[name][best], frame[name][best] - others
            if most > limits.alone or (most > limits.leading and lead > _LEAD):
                return COARSE
        return NOTHING


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Blocks of g photos, each drawn in several ways.

    Attributes
    ----------
    values : dict of str to ndarray, shape (b, g, 64)
        By drawing; with mean 0, and the block's weight as length.
    weights : ndarray, shape (b, g)
        Of the blocks of the grey photo: 0, or one for all blocks of a photo that are compared. Their sum is 1, or 0 if
        there are too few.
    """

    values: dict[str, np.ndarray]
    weights: np.ndarray

    @classmethod
    def of(cls, photos: Sequence[tuple[np.ndarray, np.ndarray]]) -> _Blocks:
        """Draw photos, given as grey values (h, w) and the area of the face (32, 32), values 0 to 1."""
        area = _windows(np.stack([area for _, area in photos])).mean(axis=2)
        values, weights = {}, {}
        for name, draw in _DRAWINGS.items():
            blocks, deviation = _normalised(np.stack([_resized(draw(grey)) for grey, _ in photos]))
            compared = (area > _COVERED) & (deviation > _LEAST_DEVIATION)  # (b, g)
            count = compared.sum(axis=0)
            weights[name] = np.where(count >= _FEWEST_BLOCKS, compared / np.maximum(count, 1), 0).astype(
                np.float32
            )
            values[name] = blocks * weights[name][..., None]
        return cls(values, weights["grey"])

    def similarities(self, drawn: _Views) -> dict[str, np.ndarray]:
        """Similarity of the most similar view of one image to each photo, (g,), by the names in `_LIMITS`."""
        raw, edges, hidden = (_normalised(drawings)[0] for drawings in (drawn.raw, drawn.edges, drawn.hidden))
        result = {}
        for name, values in self.values.items():
            further = {"grey": hidden, "half black": hidden, "edges": edges}.get(name)
            views = raw if further is None else np.concatenate([raw, further], axis=1)
            alike = np.abs(views @ values.transpose(0, 2, 1))  # (b, v, g)
            result[name] = alike.sum(axis=0).max(axis=0)
            if name == "grey":
                same = alike > _SAME_BLOCK * self.weights[:, None]
                result["same blocks"] = np.einsum("bvg,bg->vg", same, self.weights).max(axis=0)
        return result


@dataclass(frozen=True, eq=False)
class _Views:
    """Views of one image, (v, 32, 32) each: its grey values and channels, their edges, and its low bits."""

    raw: np.ndarray
    edges: np.ndarray
    hidden: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, turns: Sequence[int]) -> _Views:
        """Draw an image, rotated by quarter turns and mirrored."""

        def views(layers: Sequence[np.ndarray]) -> np.ndarray:
            turned = [np.rot90(_resized(layer), quarter) for layer in layers for quarter in turns]
            return np.array([view for one in turned for view in (one, one[:, ::-1])]).reshape(
                -1, _SIDE, _SIDE
            )

        plain, hidden = layers(image)
        return cls(views(plain), views([_edges(layer) for layer in plain]), views(hidden))


def layers(image: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The layers of an image that could show a photo.

    Returns
    -------
    plain, hidden : list of ndarray of float32, shape (h, w)
        The grey values and channels; and the low bits of the channels. Layers that are noise, or show the same as
        another, are left out.
    """
    image = np.ascontiguousarray(image)
    channels = [image[..., c] for c in range(3)]
    channels = [
        c for i, c in enumerate(channels) if not any(np.array_equal(c, other) for other in channels[:i])
    ]
    plain = [_grey(image), *(channel.astype(np.float32) for channel in channels)]
    masks = [2**bits - 1 for bits in _LOW_BITS]
    hidden = [(c & mask).astype(np.float32) * (255 / mask) for c in channels for mask in masks]
    kept, drawn = [], []
    for layer in (*plain, *hidden):
        small = _resized(layer)
        ordered = not drawn or _correlation(small[:, 1:], small[:, :-1]) > _LEAST_ORDER
        new = ordered and all(abs(_correlation(small, other)) < _SAME_LAYER for other in drawn)
        kept.append(new)
        if new:
            drawn.append(small)
    return (
        [layer for layer, new in zip(plain, kept, strict=False) if new],
        [layer for layer, new in zip(hidden, kept[len(plain) :], strict=True) if new],
    )


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first - first.mean(), second - second.mean()
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-6))


def _resized(values: np.ndarray) -> np.ndarray:
    return cv2.resize(values.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _windows(drawings: np.ndarray) -> np.ndarray:
    """Blocks of drawings (n, 32, 32): (b, n, 64)."""
    windows = np.lib.stride_tricks.sliding_window_view(drawings, (_BLOCK, _BLOCK), axis=(1, 2))
    windows = windows[:, ::_STEP, ::_STEP]  # (n, rows, columns, 8, 8)
    windows = windows.reshape(len(drawings), windows.shape[1] * windows.shape[2], _BLOCK**2)
    return np.ascontiguousarray(windows.transpose(1, 0, 2))


def _normalised(drawings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of drawings with mean 0 and length 1, (b, n, 64), and their standard deviations before, (b, n)."""
    blocks = _windows(drawings)
    blocks = blocks - blocks.mean(axis=2, keepdims=True)
    lengths = np.linalg.norm(blocks, axis=2, keepdims=True)
    return blocks / np.maximum(lengths, 1e-3), lengths[..., 0] / _BLOCK


def _hull(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """1 on the face and the forehead, 0 elsewhere: float32 (h, w)."""
    area = np.zeros(size, dtype=np.float32)
    outline = cv2.convexHull(np.rint(detection.add_forehead(landmarks)).astype(np.int32))
    return cv2.fillConvexPoly(area, outline, 1.0)


def _face_area(photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    return _resized(_hull(landmarks, photo.shape[:2]))


def _template(landmarks: np.ndarray) -> np.ndarray:
    """The typical face of g, upright, filling a square of 64 pixels: (68, 2)."""
    first = landmarks[0] - landmarks[0].mean(axis=0)
    mean = np.mean([detection.move_points(p, detection.similarity(p, first)) for p in landmarks], axis=0)
    outline = detection.add_forehead(mean)
    low, high = outline.min(axis=0), outline.max(axis=0)
    return (mean - low) / np.maximum(high - low, 1e-6) * (_FACE_SIDE - 5) + 2


def _affine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit the affine transform (2, 3) that takes one set of points (m, 2) onto another, by least squares."""
    known = np.column_stack([source, np.ones(len(source))])
    return np.linalg.lstsq(known, target, rcond=None)[0].T
