"""Find the faces on all frames of a video, in two passes that resume after an interruption.

The first pass searches every frame at a coarse scale, and every `FINE`-th one as thoroughly as a photo. The faces are
linked to tracks (`video.tracks`). The second pass searches finely where a track has no face: in its gaps, and before
and after it. It also cuts out the stills by which people are told apart. Both keep what they found in files, one per
segment of the video.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

import detection
import utils
from detection import Spot
from video.streams import TICK, Frame, count_frames, read_frames
from video.tracks import Course, Track, boxes_at, follow, link, nearest, shared_area

#: Frames per segment.
SEGMENT = 96
#: Every so many frames one is searched as thoroughly as a photo.
FINE = 12
#: The result is searched on every `FINE`-th frame, first this one: on other frames than the video.
CHECKED = FINE // 2
#: All frames are searched at this share of their size, but at no fewer pixels on the longer side than this.
_SHARE, _COARSE_SIDE = 0.5, 640
#: A track ends if its face is missing for longer, in seconds; before and after it the face is searched for as long.
_LONGEST_GAP, _AROUND = 0.5, 0.3
#: This is done in squares so many times as large as the face, which is scaled to so many pixels.
_SQUARE, _FACE_PIXELS = 3.0, 72.0
#: A face continues for so many seconds before and after it was found.
_HOLD = 0.15
#: Another face covers an expected one if they share this much of the smaller box.
_COVERED = 0.5
#: Two frames are of different scenes if their thumbnails (width, height) differ by this many grey levels in the mean;
#: a scene has at least this many frames, so that a flash is none.
_THUMBNAIL, _CUT, _SHORTEST_SCENE = (32, 18), 24.0, 6
#: Pictures whose brightest pixels are darker than the first are brightened to the second before they are searched.
_DARK, _LIT = 110, 220
#: Largest number of stills of a track, and the time between two of them in seconds, by whether the track is crowded.
_STILLS, _APART = 12, {False: 0.5, True: 0.1}


@dataclass(eq=False)
class Watched:
    """A video whose faces have been found and linked.

    Attributes
    ----------
    times : ndarray of int64, shape (m,)
        Of each frame, in parts of `streams.TICK`.
    tracks : list of Track
    frames, boxes, usable : ndarray, shapes (n,), (n, 4) and (n,)
        Frame, box, and whether its landmarks are certain, of each sighting.
    stills : list of lists of int
        Sightings of each track that are cut out, in order.
    folder : Path
        Where the landmarks and stills are.
    """

    times: np.ndarray
    tracks: list[Track]
    frames: np.ndarray
    boxes: np.ndarray
    usable: np.ndarray
    stills: list[list[int]]
    folder: Path

    def landmarks(self, rows: Sequence[int]) -> np.ndarray:
        """Landmarks of some sightings: (r, 68, 2)."""
        files, starts = _files(self.folder)
        part = np.searchsorted(starts, rows, side="right") - 1
        return np.stack([_landmarks_in(files[p])[row - starts[p]] for row, p in zip(rows, part, strict=True)])

    def spots(self, track: int) -> list[Spot]:
        """The stills of a track, with crops."""
        return [_load_still(self.folder, row) for row in self.stills[track]]

    def course(self, track: Track, first: int, last: int) -> Course | None:
        """Where a face is on some frames; None if it is on none of them."""
        rows = np.array(track.rows)
        own, hold = self.frames[rows], max(2, _frames_in(self.times, _HOLD))
        span = (
            int(max(first, track.bounds[0], own[0] - hold)),
            int(min(last, track.bounds[1], own[-1] + hold)),
        )
        if span[0] > span[1]:
            return None
        start, stop = np.searchsorted(own, [span[0], span[1] + 1])
        near = slice(max(start - FINE, 0), stop + FINE)
        return follow(
            own[near], self.boxes[rows[near]], self.landmarks(rows[near]), self.usable[rows[near]], span
        )


def _frames_in(times: np.ndarray, seconds: float) -> int:
    """Number of frames in a time, at the mean rate of the times (m,), in parts of `streams.TICK`."""
    length = float((times[-1] - times[0]) * TICK)
    return max(1, round(seconds * (len(times) - 1) / length)) if length > 0 else 1


def watch(path: Path, folder: Path, largest_side: int, thorough: bool = True) -> Watched:
    """Find and link the faces in a video.

    Parameters
    ----------
    path : Path
    folder : Path
        A private folder for what is found; what it holds of the same video is not searched again.
    largest_side : int
        Frames are reduced to this many pixels on the longer side.
    thorough : bool, default True
        As for `detection.find_faces`.

    Raises
    ------
    VideoError
        If the video cannot be read.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    if not (folder / "times.npz").is_file():
        _search_all(path, folder, largest_side, thorough)
    seen = utils.load_arrays(folder / "times.npz")
    times, cuts = seen["times"], _scenes(seen["change"])
    n_frames, n_segments = len(times), -(-len(times) // SEGMENT)
    first = [_first_file(folder, number) for number in range(n_segments)]
    frames, boxes, usable, scores = _gather(first)
    longest_gap = max(FINE, _frames_in(times, _LONGEST_GAP))
    tracks = link(frames, boxes, cuts, n_frames, longest_gap)
    stills = [_choose_stills(track, times, frames, boxes, usable, scores) for track in tracks]
    if not (folder / "refined").is_file():
        around = max(FINE, _frames_in(times, _AROUND))
        tasks = _missing(tracks, frames, boxes, around)
        rows = dict.fromkeys(itertools.chain(*stills))
        _refine_all(
            path,
            folder,
            largest_side,
            tasks,
            {row: int(frames[row]) for row in rows},
            (frames, boxes, scores),
        )
        (folder / "refined").touch()
    _files.cache_clear()
    _landmarks_in.cache_clear()
    second = [_second_file(folder, number) for number in range(n_segments)]
    more = _gather(second)
    owner = np.concatenate([utils.load_arrays(file)["tracks"] for file in second])
    everything = [np.concatenate(pair) for pair in zip((frames, boxes, usable), more[:3], strict=True)]
    for row, track in enumerate(owner.tolist(), start=len(frames)):
        tracks[track].rows.append(row)
    for track in tracks:
        track.rows.sort(key=lambda row: everything[0][row])
    return Watched(times, tracks, *everything, stills, folder)


def _first_file(folder: Path, number: int) -> Path:
    return folder / f"first-{number:06d}.npz"


def _second_file(folder: Path, number: int) -> Path:
    return folder / f"second-{number:06d}.npz"


@lru_cache(maxsize=2)
def _files(folder: Path) -> tuple[list[Path], np.ndarray]:
    """The files of sightings, and the number of the first sighting in each."""
    files = sorted(folder.glob("first-*.npz")) + sorted(folder.glob("second-*.npz"))
    counts = [len(utils.load_arrays(file)["frames"]) for file in files]
    return files, np.cumsum([0, *counts[:-1]])


@lru_cache(maxsize=8)
def _landmarks_in(file: Path) -> np.ndarray:
    return utils.load_arrays(file)["landmarks"]


def _gather(files: Iterable[Path]) -> list[np.ndarray]:
    """Frames, boxes, usability and scores of the sightings in some files, one after another."""
    parts = [utils.load_arrays(file) for file in files]
    return [
        np.concatenate([part[name] for part in parts]) for name in ("frames", "boxes", "usable", "scores")
    ]


def segments(frames: Iterable[Frame]) -> Iterator[tuple[int, Iterator[Frame]]]:
    """Number and frames of each segment of a video; what is not taken of a segment is skipped."""
    return itertools.groupby(frames, key=lambda frame: frame.number // SEGMENT)


def _progress(path: Path, largest_side: int, what: str) -> Iterator[Frame]:
    return utils.progress(read_frames(path, largest_side), what, total=count_frames(path))


# ----------------------------------------------------------------------------------------------------------
# The first pass
# ----------------------------------------------------------------------------------------------------------


def _search_all(path: Path, folder: Path, largest_side: int, thorough: bool) -> None:
    """Search all frames, and record the faces of each segment, then the times of all frames."""
    times, changes, thumbnail = [], [], None
    for number, frames in segments(_progress(path, largest_side, "looking for faces in a video")):
        file = _first_file(folder, number)
        if not file.is_file():
            utils.save_arrays(file, _search_segment(frames, thorough, thumbnail))
        found = utils.load_arrays(file)
        thumbnail = found["thumbnail"]
        times.append(found["times"])
        changes.append(found["change"])
    utils.save_arrays(
        folder / "times.npz", {"times": np.concatenate(times), "change": np.concatenate(changes)}
    )


def _search_segment(
    frames: Iterable[Frame], thorough: bool, thumbnail: np.ndarray | None
) -> dict[str, np.ndarray]:
    times, changes, sightings = [], [], []
    for frame in frames:
        before, thumbnail = thumbnail, cv2.resize(frame.image, _THUMBNAIL, interpolation=cv2.INTER_AREA)
        changes.append(0.0 if before is None else np.abs(thumbnail.astype(float) - before).mean())
        times.append(frame.time)
        image = _brightened(frame.image)
        if frame.number % FINE == 0 or changes[-1] > _CUT:
            spots = detection.find_faces(image, thorough)
        else:
            spots = detection.find_upright(image, min(1.0, max(_SHARE, _COARSE_SIDE / max(image.shape[:2]))))
        sightings += [(frame.number, spot) for spot in spots]
    return {**_as_arrays(sightings), "times": times, "change": changes, "thumbnail": thumbnail}


def _as_arrays(sightings: Sequence[tuple[int, Spot]]) -> dict[str, np.ndarray]:
    spots = [spot for _, spot in sightings]
    if not all(np.isfinite(spot.box).all() and np.isfinite(spot.landmarks).all() for spot in spots):
        raise RuntimeError("the face detector returned a face whose coordinates are not finite")
    return {
        "frames": np.array([number for number, _ in sightings], dtype=np.int64),
        "boxes": np.array([spot.box for spot in spots], dtype=np.float64).reshape(-1, 4),
        "scores": np.array([spot.score for spot in spots], dtype=np.float64),
        "usable": np.array([not spot.reason for spot in spots], dtype=bool),
        "landmarks": np.array([spot.landmarks for spot in spots], dtype=np.float32).reshape(-1, 68, 2),
    }


def _brightened(image: np.ndarray) -> np.ndarray:
    """Brighten a dark picture (h, w, 3), in which faces would be missed."""
    brightest = float(np.percentile(image[::8, ::8].max(axis=2), 98))
    return image if brightest >= _DARK else cv2.convertScaleAbs(image, alpha=_LIT / max(brightest, 8.0))


def _scenes(change: np.ndarray) -> list[int]:
    """First frames of new scenes, from the change (m,) to each frame from the one before."""
    cuts = np.flatnonzero(change > _CUT)
    apart = np.diff(np.concatenate([[0], cuts, [len(change)]])) >= _SHORTEST_SCENE
    return cuts[apart[:-1] & apart[1:]].tolist()


# ----------------------------------------------------------------------------------------------------------
# The second pass
# ----------------------------------------------------------------------------------------------------------


def _choose_stills(track: Track, times, frames, boxes, usable, scores) -> list[int]:
    """The sightings of a track that show its face best, spread over its time."""
    rows = np.array([row for row in track.rows if usable[row]], dtype=np.int64)
    if len(rows) == 0:
        return []
    seconds = (times[frames[rows]] - times[frames[rows[0]]]) * float(TICK)
    n_bins = int(np.clip(np.ceil(seconds[-1] / _APART[track.crowded]), 2, _STILLS))
    bins = np.minimum((seconds / max(seconds[-1], 1e-6) * n_bins).astype(int), n_bins - 1)
    merit = scores[rows] * np.sqrt((boxes[rows, 2:] - boxes[rows, :2]).prod(axis=1))
    return [int(rows[bins == b][merit[bins == b].argmax()]) for b in np.unique(bins)]


def _missing(
    tracks: Sequence[Track], frames: np.ndarray, boxes: np.ndarray, around: int
) -> dict[int, list[tuple[int, np.ndarray]]]:
    """Where a face is expected but was not found: frame -> (track, box) each."""
    tasks: dict[int, list[tuple[int, np.ndarray]]] = {}
    for number, track in enumerate(tracks):
        own = frames[track.rows]
        first, last = max(track.bounds[0], own[0] - around), min(track.bounds[1], own[-1] + around)
        at = np.setdiff1d(np.arange(first, last + 1), own)
        for frame, box in zip(at.tolist(), boxes_at(at, own, boxes[track.rows]), strict=True):
            here = slice(*np.searchsorted(frames, [frame, frame + 1]))
            if not (shared_area(box, boxes[here]) > _COVERED).any():
                tasks.setdefault(frame, []).append((number, box))
    return tasks


def _refine_all(
    path: Path,
    folder: Path,
    largest_side: int,
    tasks: Mapping[int, Sequence[tuple[int, np.ndarray]]],
    stills: Mapping[int, int],
    known: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Search again where faces are expected, and cut out stills (sighting -> frame); record both by segments."""
    by_frame: dict[int, list[int]] = {}
    for row, frame in stills.items():
        by_frame.setdefault(frame, []).append(row)
    for number, frames in segments(_progress(path, largest_side, "looking closer")):
        file = _second_file(folder, number)
        if file.is_file():
            continue
        found = []
        for frame in frames:
            taken = known[1][slice(*np.searchsorted(known[0], [frame.number, frame.number + 1]))]
            here = tasks.get(frame.number, ())
            expected = np.array([box for _, box in here])
            for i, (track, _) in enumerate(here):
                spot = _search_near(frame.image, expected, i, taken)
                if spot is not None:
                    found.append((frame.number, track, spot))
                    taken = np.vstack([taken, spot.box])
            for row in by_frame.get(frame.number, ()):
                _save_still(folder, row, frame.image, known[1][row], float(known[2][row]))
        arrays = _as_arrays([(frame, spot) for frame, _, spot in found])
        utils.save_arrays(
            file, {**arrays, "tracks": np.array([track for _, track, _ in found], dtype=np.int64)}
        )


def _search_near(image: np.ndarray, expected: np.ndarray, wanted: int, taken: np.ndarray) -> Spot | None:
    """Search a face, finely, near the place where it is expected.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    expected : ndarray, shape (t, 4)
        Where faces are expected on this frame.
    wanted : int
        Which of them to search; what fits another one better is not this face.
    taken : ndarray, shape (n, 4)
        Faces that are known already.
    """
    box = expected[wanted]
    size = max(float((box[2:] - box[:2]).mean()), 1.0)
    middle, half = (box[:2] + box[2:]) / 2, _SQUARE * size / 2
    low = np.clip(np.floor(middle - half), 0, image.shape[1::-1]).astype(int)
    high = np.clip(np.ceil(middle + half), 0, image.shape[1::-1]).astype(int)
    if (high - low < 16).any():
        return None
    part = _brightened(image[low[1] : high[1], low[0] : high[0]])
    spots = detection.find_upright(part, float(np.clip(_FACE_PIXELS / size, 0.1, 4.0)))
    spots = [replace(spot, box=spot.box + np.tile(low, 2), landmarks=spot.landmarks + low) for spot in spots]
    near = [
        spot
        for spot in spots
        if nearest(spot.box, expected) == wanted and not (shared_area(spot.box, taken) > _COVERED).any()
    ]
    return max(near, key=lambda spot: spot.score, default=None)


def _still_file(folder: Path, row: int) -> Path:
    return folder / f"still-{row:08d}.npz"


def _save_still(folder: Path, row: int, image: np.ndarray, box: np.ndarray, score: float) -> None:
    files, starts = _files(folder)
    part = int(np.searchsorted(starts, row, side="right") - 1)
    landmarks = _landmarks_in(files[part])[row - starts[part]].astype(float)
    crop, transform = detection.upright_crop(image, landmarks)
    arrays = {"box": box, "score": score, "landmarks": landmarks, "crop": crop, "transform": transform}
    utils.save_arrays(_still_file(folder, row), arrays)


def _load_still(folder: Path, row: int) -> Spot:
    arrays = utils.load_arrays(_still_file(folder, row))
    return Spot(
        arrays["box"],
        arrays["landmarks"],
        float(arrays["score"]),
        crop=arrays["crop"],
        transform=arrays["transform"],
    )
