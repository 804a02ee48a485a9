"""Find photos in images by their local structure, whatever their colours, brightness, size or proportions.

A photo is drawn in several ways (grey, edges, contours ...) on a small grid. So is every layer of an image that could
hide a photo: its grey values, each channel, and the lowest bits of each channel. Drawings are compared block by block,
by the size of the correlation within each block: no change of tone that is smooth or the same everywhere hides a photo,
and a covered part spoils only the blocks that it covers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

import detection
from release import gate
from release.journal import REPLACED

#: Drawings have this many cells per side; blocks have this many, and start at every so many cells.
_SIDE, _BLOCK, _STEP = 32, 8, 6
#: A block is compared if the face covers this share of it, and the photo varies in it by this standard deviation.
_COVERED, _LEAST_DEVIATION = 0.5, 2.0
#: Fewer blocks than this show too little to tell photos apart.
_FEWEST_BLOCKS = 8
#: Blocks that correlate this much show the same.
_SAME_BLOCK = 0.95

#: The lowest bits of a channel that could hide a photo.
_LOW_BITS = (1, 2, 3, 4)
#: A layer shows something if neighbouring cells of its drawing correlate at least this much; noise does not.
_LEAST_ORDER = 0.3
#: A layer whose drawing correlates more than this with another shows nothing else.
_SAME_LAYER = 0.98


def _grey(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)


def _edges(grey: np.ndarray) -> np.ndarray:
    smooth = cv2.GaussianBlur(grey, (0, 0), 1)
    return np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1))


#: Ways to draw a photo: name -> function, grey values (h, w) -> (h, w).
_DRAWINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "grey": lambda grey: grey,
    "edges": _edges,
    "lines": lambda grey: np.abs(cv2.Laplacian(grey, -1)),
    "contours": lambda grey: cv2.Canny(grey.astype(np.uint8), 60, 120).astype(np.float32),
    "black and white": lambda grey: np.where(grey > np.median(grey), np.float32(255), np.float32(0)),
}


#: Drawing -> three limits of the similarity of an image to a photo: in a release that follows each photo, whose hair
#: and background may be the photo's; in a shared release; and in a shared release if the image resembles one person
#: more than all others by `_LEAD`. "Same blocks" is the share of blocks of the grey drawing that show the same. The
#: limits were set with 3,330 surrogates of 2, 3, 5 or 10 ORL people, 120 filtered photos, and 120 photos into which
#: surrogates were pasted. None of 1,350 surrogates made from other photos of these people exceeds one.
_LIMITS = {
    "grey": (0.98, 0.94, 0.7),
    "same blocks": (0.95, 0.36, 0.36),
    "edges": (0.95, 0.83, 0.83),
    "lines": (0.7, 0.67, 0.67),
    "contours": (0.62, 0.6, 0.6),
    "black and white": (0.91, 0.84, 0.7),
}
_LEAD = 0.25


class Held:
    """The drawings of g photos.

    Parameters
    ----------
    photos : sequence of g uint8 arrays (h, w, 3)
    seen : detection.Detections
        The faces in the photos.
    identities : ndarray of str, shape (g,)
    """

    def __init__(self, photos: Sequence[np.ndarray], seen: detection.Detections, identities: np.ndarray):
        self._photos, self._boxes, self._identities = photos, seen.boxes, identities
        areas = [_face_area(photo, points) for photo, points in zip(photos, seen.landmarks, strict=True)]
        covered = _blocks(np.stack(areas)).mean(axis=2)  # (b, g)
        self._blocks, self._weights = {}, {}
        for name, draw in _DRAWINGS.items():
            blocks, deviation = _normalised(np.stack([_resized(draw(_grey(photo))) for photo in photos]))
            compared = (covered > _COVERED) & (deviation > _LEAST_DEVIATION)
            count = compared.sum(axis=0)
            weights = np.where(count >= _FEWEST_BLOCKS, compared / np.maximum(count, 1), 0)
            self._weights[name] = weights.astype(np.float32)
            # The length of a block is its weight. (b, g, 64)
            self._blocks[name] = blocks * self._weights[name][..., None]

    def shown_in(self, image: np.ndarray, shared: bool) -> bool:
        """Whether an image shows a photo, or part of its face, more clearly than a good release can."""
        similarities = self._similarities(image)
        nearest = similarities["same blocks"].argmax()
        photo, box = self._photos[nearest], self._boxes[nearest]
        if not shared and photo.shape == image.shape and gate.is_left(photo, image, box, REPLACED):
            return True
        for name, similarity in similarities.items():
            best = similarity.argmax()
            others = similarity[self._identities != self._identities[best]].max(initial=0.0)
            leads = similarity[best] - others > _LEAD
            if similarity[best] > _LIMITS[name][(1 + leads) if shared else 0]:
                return True
        return False

    def _similarities(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Similarity of the most similar view of an image to each photo, (g,), by the names in `_LIMITS`."""
        shown = layers(image)
        raw = _views(shown)
        with_edges = np.concatenate([raw, _views([_edges(layer) for layer in shown])], axis=1)
        result = {}
        for name, blocks in self._blocks.items():
            alike = np.abs((with_edges if name == "edges" else raw) @ blocks.transpose(0, 2, 1))  # (b, v, g)
            result[name] = alike.sum(axis=0).max(axis=0)
            if name == "grey":
                weights = self._weights[name]
                same = alike > _SAME_BLOCK * weights[:, None]
                result["same blocks"] = np.einsum("bvg,bg->vg", same, weights).max(axis=0)
        return result


def layers(image: np.ndarray) -> list[np.ndarray]:
    """The layers of an image that could show a photo: float32 (h, w) each.

    First its grey values, then its channels and their low bits; layers that are noise, or show the same as another, are
    left out.
    """
    channels = list(np.ascontiguousarray(np.moveaxis(image, 2, 0)))
    if all(np.array_equal(channels[0], other) for other in channels[1:]):
        channels = channels[:1]
    masks = [255, *(2**bits - 1 for bits in _LOW_BITS)]
    kept = [_grey(image)]
    drawn = [_resized(kept[0])]
    for layer in ((channel & mask) * np.float32(255 / mask) for mask in masks for channel in channels):
        small = _resized(layer)
        ordered = _correlation(small[:, 1:], small[:, :-1]) > _LEAST_ORDER
        if ordered and all(abs(_correlation(small, other)) < _SAME_LAYER for other in drawn):
            kept.append(layer)
            drawn.append(small)
    return kept


def _views(drawings: Sequence[np.ndarray]) -> np.ndarray:
    """Blocks of drawings, rotated by quarter turns and mirrored: (b, 8 n, 64)."""
    turned = [np.rot90(_resized(drawing), quarter) for drawing in drawings for quarter in range(4)]
    return _normalised(np.stack([view for one in turned for view in (one, one[:, ::-1])]))[0]


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first - first.mean(), second - second.mean()
    return float((a * b).sum() / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-6))


def _resized(values: np.ndarray) -> np.ndarray:
    return cv2.resize(values, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def _blocks(drawings: np.ndarray) -> np.ndarray:
    """Blocks of drawings (n, 32, 32): (b, n, 64)."""
    windows = np.lib.stride_tricks.sliding_window_view(drawings, (_BLOCK, _BLOCK), axis=(1, 2))
    windows = windows[:, ::_STEP, ::_STEP].reshape(len(drawings), -1, _BLOCK**2)
    return np.ascontiguousarray(windows.transpose(1, 0, 2))


def _normalised(drawings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of drawings with mean 0 and length 1, (b, n, 64), and their standard deviations before, (b, n)."""
    blocks = _blocks(drawings)
    blocks = blocks - blocks.mean(axis=2, keepdims=True)
    lengths = np.linalg.norm(blocks, axis=2, keepdims=True)
    return blocks / np.maximum(lengths, 1e-3), lengths[..., 0] / _BLOCK


def _face_area(photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """1 on the face and the forehead, 0 elsewhere: float32 (32, 32)."""
    outline = cv2.convexHull(np.rint(detection.add_forehead(landmarks)).astype(np.int32))
    return _resized(cv2.fillConvexPoly(np.zeros(photo.shape[:2], dtype=np.float32), outline, 1.0))
