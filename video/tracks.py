"""Link the faces found on single frames to tracks, and say where each face is on every frame.

A track is one person's face over consecutive frames. It ends at a cut, where nothing is found for a while, and where
another face comes so close that the two could be confused: it is better to begin a new track, which descriptors join
to its person, than to carry one person's surrogate over to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy

import detection

#: A face is linked if it is this near to where it is expected, in face sizes, and if its size differs by at most this
#: factor; each missing frame adds a share of the distance.
_NEAR, _SIZES, _PER_FRAME = 0.6, 1.5, 0.06
_IMPOSSIBLE = 1e6
#: Frames that are not far apart.
_A_FEW = 4
#: Weight of the newest step in the velocity of a track.
_NEWEST = 0.5
#: Two faces are confusable if their boxes share this much of the smaller one.
_CROWDED = 0.25
#: Standard deviations, in frames, over which place, size and tilt of a face are smoothed, and its shape.
_PLACE_WINDOW, _SHAPE_WINDOW = 1.2, 3.0
#: Smoothed landmarks are this near to those found, in face widths; else those found are used.
_FARTHEST = 0.06
#: Landmarks are interpolated over at most this many frames, and a surrogate is shown on at least this many.
_FILLED, _SHORTEST = 4, 3


@dataclass(eq=False)
class Track:
    """One face over consecutive frames.

    Attributes
    ----------
    rows : list of int
        Its sightings, by rows of the arrays that were linked, in order of frames.
    bounds : tuple of int
        First and last frame of its scene.
    crowded : bool
        Whether another face was too close to tell the two apart by their places.
    """

    rows: list[int] = field(default_factory=list)
    bounds: tuple[int, int] = (0, 0)
    crowded: bool = False


@dataclass(eq=False)
class _Open:
    """A track that may go on: where it was last seen, and its velocity in pixels per frame."""

    track: Track
    frame: int
    box: np.ndarray
    velocity: np.ndarray

    def expected(self, frame: int) -> np.ndarray:
        """Its box on a later frame: (4,)."""
        return self.box + np.tile(self.velocity, 2) * (frame - self.frame)


def link(
    frames: np.ndarray, boxes: np.ndarray, cuts: Sequence[int], n_frames: int, longest_gap: int
) -> list[Track]:
    """Link sightings to tracks.

    Parameters
    ----------
    frames : ndarray of int, shape (n,)
        Frame of each sighting, in ascending order.
    boxes : ndarray, shape (n, 4)
    cuts : sequence of int
        Frames with which a new scene begins.
    n_frames : int
    longest_gap : int
        A track ends if its face is missing for more frames.

    Returns
    -------
    list of Track
        Each sighting is in exactly one of them.
    """
    tracks: list[Track] = []
    edges = [0, *sorted(set(cuts) - {0}), n_frames]
    for first, end in zip(edges, edges[1:], strict=False):
        known: list[_Open] = []
        start, stop = np.searchsorted(frames, [first, end])
        for frame in np.unique(frames[start:stop]):
            rows = np.arange(*np.searchsorted(frames, [frame, frame + 1]))
            known = [one for one in known if frame - one.frame <= longest_gap + 1]
            known = _extend(known, int(frame), rows, boxes, (first, end - 1), tracks)
    return tracks


def _extend(
    known: list[_Open],
    frame: int,
    rows: np.ndarray,
    boxes: np.ndarray,
    bounds: tuple[int, int],
    tracks: list[Track],
) -> list[_Open]:
    """Give the sightings of one frame to tracks, or to new ones; return the tracks that may go on."""
    expected = np.array([one.expected(frame) for one in known]).reshape(-1, 4)
    cost = _costs(expected, np.array([frame - one.frame for one in known]), boxes[rows])
    pairs = {
        int(j): int(i)
        for i, j in zip(*scipy.optimize.linear_sum_assignment(cost), strict=True)
        if cost[i, j] < _IMPOSSIBLE
    }
    unseen = sorted(set(range(len(known))) - set(pairs.values()))
    around = np.vstack([boxes[rows], expected[unseen]])  # all faces that are or may be here
    result = [known[i] for i in unseen]
    for j, row in enumerate(rows):
        before, velocity = known[pairs[j]] if j in pairs else None, np.zeros(2)
        if before is not None:
            step = (boxes[row] - before.box).reshape(2, 2).mean(axis=0) / (frame - before.frame)
            velocity = _NEWEST * step + (1 - _NEWEST) * before.velocity
        crowded = bool((shared_area(boxes[row], np.delete(around, j, axis=0)) > _CROWDED).any())
        if before is None or before.track.crowded != crowded:
            tracks.append(Track(bounds=bounds, crowded=crowded))
        track = tracks[-1] if before is None or before.track.crowded != crowded else before.track
        track.rows.append(int(row))
        result.append(_Open(track, frame, boxes[row], velocity))
    return result


def _costs(expected: np.ndarray, gaps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Distance of each of m boxes from each of t expected ones, in face sizes; `_IMPOSSIBLE` if too far: (t, m)."""
    (middle, size), (other, other_size) = _circles(expected), _circles(boxes)
    larger = np.maximum(size[:, None], other_size)
    factor = larger / np.minimum(size[:, None], other_size)
    apart = np.linalg.norm(middle[:, None] - other, axis=2) / larger
    reach = _NEAR + _PER_FRAME * (gaps[:, None] - 1)
    return np.where((apart < reach) & (factor < _SIZES), apart + np.log(factor), _IMPOSSIBLE)


def nearest(box: np.ndarray, expected: np.ndarray) -> int | None:
    """Which of the boxes (t, 4), expected from frames that are not far apart, a box (4,) fits best; None if none."""
    costs = _costs(expected, np.full(len(expected), _A_FEW), box[None])[:, 0]
    return int(costs.argmin()) if costs.min() < _IMPOSSIBLE else None


def _circles(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (n, 2) and sizes (n,) of boxes."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum((boxes[:, 2:] - boxes[:, :2]).mean(axis=1), 1e-6)


def covered_area(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of a box (4,) that each of others (m, 4) covers: (m,)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return np.clip(sides, 0, None).prod(axis=1) / max(float((box[2:] - box[:2]).prod()), 1e-6)


def shared_area(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area that a box (4,) shares with others (m, 4), as a share of the smaller of the two: (m,)."""
    own = max(float((box[2:] - box[:2]).prod()), 1e-6)
    area = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return covered_area(box, others) * own / np.maximum(np.minimum(area, own), 1e-6)


# ----------------------------------------------------------------------------------------------------------
# Where a face is on every frame
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Course:
    """Where one face is on m consecutive frames.

    Attributes
    ----------
    first : int
        The first of them.
    boxes : ndarray, shape (m, 4)
        As found; interpolated where it was not, and continued beyond both ends.
    landmarks : ndarray, shape (m, 68, 2)
        Smoothed over time; without meaning where `clear` is False.
    clear : ndarray of bool, shape (m,)
        Whether the landmarks are known well enough for a surrogate.
    found : ndarray of bool, shape (m,)
        Whether the face was found on the frame.
    """

    first: int
    boxes: np.ndarray
    landmarks: np.ndarray
    clear: np.ndarray
    found: np.ndarray


def follow(
    frames: np.ndarray, boxes: np.ndarray, landmarks: np.ndarray, usable: np.ndarray, span: tuple[int, int]
) -> Course:
    """Fill the gaps between the sightings of one face, continue it beyond both ends, and smooth its landmarks.

    Parameters
    ----------
    frames : ndarray of int, shape (n,)
        In ascending order.
    boxes : ndarray, shape (n, 4)
    landmarks : ndarray, shape (n, 68, 2)
    usable : ndarray of bool, shape (n,)
        Whether a sighting's landmarks are certain.
    span : tuple of int
        First and last frame of the result.
    """
    at = np.arange(span[0], span[1] + 1)
    found = np.isin(at, frames)
    course = Course(
        span[0], boxes_at(at, frames, boxes), np.zeros((len(at), 68, 2)), np.zeros(len(at), bool), found
    )
    if usable.any():
        seen, points = frames[usable], landmarks[usable].astype(float)
        course.landmarks[:] = _smooth(at, seen, points)
        course.clear[:] = _known(at, seen)
    return course


def boxes_at(at: np.ndarray, frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes on m frames: linear between sightings, and beyond the ends with the velocity there: (m, 4)."""
    result = np.stack([np.interp(at, frames, side) for side in boxes.T], axis=1)
    for end, inner, beyond in ((0, 1, at < frames[0]), (-1, -2, at > frames[-1])):
        if len(frames) > 1 and beyond.any():
            step = (boxes[end] - boxes[inner]) / (frames[end] - frames[inner])
            shift = step.reshape(2, 2).mean(axis=0)
            # Cover where the face stood as well as where it may have gone.
            moved = boxes[end] + np.tile(shift, 2) * (at[beyond] - frames[end])[:, None]
            result[beyond] = np.hstack(
                [np.minimum(moved[:, :2], boxes[end, :2]), np.maximum(moved[:, 2:], boxes[end, 2:])]
            )
    return result


def _known(at: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Whether landmarks on m frames lie on or in a short gap between sightings, and not for an instant only: (m,)."""
    after = np.searchsorted(seen, at)
    inside = (after > 0) & (after < len(seen))
    gap = seen[np.clip(after, 0, len(seen) - 1)] - seen[np.clip(after - 1, 0, len(seen) - 1)]
    known = np.isin(at, seen) | (inside & (gap <= _FILLED + 1))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    for start, end in edges.reshape(-1, 2):
        if end - start < _SHORTEST and start > 0 and end < len(at):
            known[start:end] = False
    return known


def _smooth(at: np.ndarray, seen: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Landmarks (m, 68, 2) on m frames from those (n, 68, 2) on others: place, size, tilt and shape, each smoothed.

    Local linear regression: a face that moves evenly is followed without a lag.
    """
    # Split the landmarks: centre (n, 2), log size and tilt (n, 1), upright shape of size 1 (n, 68, 2).
    centre = points.mean(axis=1)
    away = points - centre[:, None]
    size = np.sqrt((away**2).sum(axis=2).mean(axis=1))
    eyes = np.diff(detection.eye_centres(points), axis=1)[:, 0]
    tilt = np.unwrap(np.arctan2(eyes[:, 1], eyes[:, 0]))
    shape = _turned(away / size[:, None, None], -tilt)
    place = _regress(at, seen, np.column_stack([centre, np.log(size), tilt]), _PLACE_WINDOW)
    shape = _regress(at, seen, shape.reshape(len(seen), -1), _SHAPE_WINDOW).reshape(-1, 68, 2)
    result = place[:, None, :2] + np.exp(place[:, 2])[:, None, None] * _turned(shape, place[:, 3])
    # Where that strays from what was found, keep what was found.
    rows = np.searchsorted(seen, at)
    own = np.flatnonzero(np.isin(at, seen))
    rows = rows[own]
    strayed = np.linalg.norm(result[own] - points[rows], axis=2).mean(axis=1)
    width = np.linalg.norm(points[rows, 16] - points[rows, 0], axis=1)
    far = strayed > _FARTHEST * width
    result[own[far]] = points[rows[far]]
    return result


def _turned(points: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotate n sets of points (n, 68, 2) by angles (n,)."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    x, y = points[..., 0], points[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def _regress(at: np.ndarray, seen: np.ndarray, values: np.ndarray, window: float) -> np.ndarray:
    """Local linear regression, with a Gaussian window, of values (n, d) on n frames at m others: (m, d)."""
    apart = (seen - at[:, None]).astype(float)  # (m, n)
    nearest = np.abs(apart).min(axis=1, keepdims=True)
    weight = np.exp(-0.5 * (apart**2 - nearest**2) / window**2)
    total = weight.sum(axis=1, keepdims=True)
    first = (weight * apart).sum(axis=1, keepdims=True)
    second = (weight * apart**2).sum(axis=1, keepdims=True) + 1e-2 * total
    share = (second - first * apart) * weight / (total * second - first**2)  # (m, n)
    return share @ values
