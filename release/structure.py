"""Find photos in images by their local structure, whatever their colours, brightness, size, proportions or orientation.

A photo is drawn in several ways (grey, edges, contours, black and white) on a small grid. So is every layer of an image
that could hide a photo: its grey values, each channel, and the lowest bits of each channel. Drawings are compared block
by block, by the absolute correlation within each block: no change of tone that is smooth or the same everywhere hides a
photo, and a covered part spoils only the blocks that it covers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    "grey": _Limits(0.76, 0.86, 0.92, 0.965),
    "same blocks": _Limits(0.19, 0.41, 0.41, 0.7),
    "edges": _Limits(0.66, 0.7, 0.7, 0.92),
    "lines": _Limits(0.6, 0.66, 0.7, 0.8),
    "contours": _Limits(0.57, 0.65, 0.7, 0.7),
    "few black": _Limits(0.68, 0.75, 0.9, 0.87),
    "half black": _Limits(0.75, 0.8, 0.9, 0.89),
    "most black": _Limits(0.73, 0.8, 0.9, 0.85),
}
_LEAD = 0.15


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
        #: Typical width of a face as a share of its height.
        self.proportion = float(np.median([proportion(points) for points in landmarks]))
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
        frame = self.frames.similarities(_turned(layers(image), range(4)))
        if any(frame[name].max() > limits.clear for name, limits in _LIMITS.items()):
            return CLEAR
        if landmarks is not None:
            face = self.faces.similarities(_turned(layers(self.face(image, landmarks)), (0,)))
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
        By drawing; with mean 0 and length 1.
    weights : dict of str to ndarray, shape (b, g)
        0 or 1: which blocks are compared.
    """

    values: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]

    @classmethod
    def of(cls, photos: Sequence[tuple[np.ndarray, np.ndarray]]) -> _Blocks:
        """Draw photos, given as grey values (h, w) and the area of the face (32, 32), values 0 to 1."""
        area = _windows(np.stack([area for _, area in photos])).mean(axis=2)
        values, weights = {}, {}
        for name, draw in _DRAWINGS.items():
            blocks, deviation = _normalised(np.stack([_resized(draw(grey)) for grey, _ in photos]))
            values[name] = blocks
            weights[name] = ((area > _COVERED) & (deviation > _LEAST_DEVIATION)).astype(np.float32)
        return cls(values, weights)

    def similarities(self, drawn: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
        """Similarity of one image to each photo, (g,), by the names in `_LIMITS`.

        Parameters
        ----------
        drawn : tuple of ndarray, shape (v, 32, 32)
            Views of the image, raw and as edges. The most similar view counts.
        """
        raw, edges = (_normalised(drawings)[0] for drawings in drawn)
        result = {}
        for name, values in self.values.items():
            views = np.concatenate([raw, edges], axis=1) if name == "edges" else raw
            alike = np.abs(views @ values.transpose(0, 2, 1))  # (b, v, g)
            result[name] = _mean(alike, self.weights[name])
            if name == "grey":
                result["same blocks"] = _mean(alike > _SAME_BLOCK, self.weights[name])
        return result


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over the blocks, then the most similar view, (b, v, g) -> (g,); 0 for too few blocks."""
    count = weights.sum(axis=0)
    mean = np.einsum("bvg,bg->vg", values.astype(np.float32), weights) / np.maximum(count, 1)
    return np.where(count >= _FEWEST_BLOCKS, mean.max(axis=0), 0)


def layers(image: np.ndarray) -> list[np.ndarray]:
    """The layers of an image that could show a photo, float32 (h, w): grey, and others unless they are noise."""
    image = np.ascontiguousarray(image)
    every = [_grey(image)]
    channels = [image[..., c] for c in range(3)]
    channels = [
        c for i, c in enumerate(channels) if not any(np.array_equal(c, other) for other in channels[:i])
    ]
    if len(channels) > 1:
        every += [channel.astype(np.float32) for channel in channels]
    for channel in channels:
        for bits in _LOW_BITS:
            largest = 2**bits - 1
            every.append((channel & largest).astype(np.float32) * (255 / largest))
    result, drawn = every[:1], [_resized(every[0])]
    for layer in every[1:]:
        small = _resized(layer)
        ordered = _correlation(small[:, 1:], small[:, :-1]) > _LEAST_ORDER
        if ordered and all(abs(_correlation(small, other)) < _SAME_LAYER for other in drawn):
            result.append(layer)
            drawn.append(small)
    return result


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first - first.mean(), second - second.mean()
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-6))


def _turned(drawn: Sequence[np.ndarray], turns: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draw layers raw and as edges, rotated by quarter turns and mirrored: (v, 32, 32) each."""

    def views(values: np.ndarray) -> Iterator[np.ndarray]:
        for quarter in turns:
            turned = np.rot90(values, quarter)
            yield from (turned, turned[:, ::-1])

    raw = [view for layer in drawn for view in views(_resized(layer))]
    edges = [view for layer in drawn for view in views(_resized(_edges(layer)))]
    return np.stack(raw), np.stack(edges)


def _resized(values: np.ndarray) -> np.ndarray:
    return cv2.resize(values.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _windows(drawings: np.ndarray) -> np.ndarray:
    """Blocks of drawings (n, 32, 32): (b, n, 64)."""
    windows = np.lib.stride_tricks.sliding_window_view(drawings, (_BLOCK, _BLOCK), axis=(1, 2))
    windows = windows[:, ::_STEP, ::_STEP].reshape(len(drawings), -1, _BLOCK**2)
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


def proportion(landmarks: np.ndarray) -> float:
    """Width of a face as a share of its height."""
    width, height = np.ptp(landmarks, axis=0)
    return float(width / max(height, 1e-6))


def _affine(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit the affine transform (2, 3) that takes one set of points (m, 2) onto another, by least squares."""
    known = np.column_stack([source, np.ones(len(source))])
    return np.linalg.lstsq(known, target, rcond=None)[0].T
