"""Videos of a run: who is in them, and their faces replaced frame by frame.

A track of `video` stands for many photos of one person: its stills take part in the partition together with the photos
of the run. Every frame of a person shows the same surrogate, in the face's own place, pose and light, so that a video
is no more k-anonymous than a photo into which a surrogate is pasted.

Everything fails closed. A face is blurred out where its landmarks are uncertain, where the surrogate does not fit, and
throughout if nobody can say whose it is. What was written is searched as the audit will search it; faces that only this
search finds are blurred out, with some frames before and after, and these segments are written again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import scipy

import utils
from release import gate, pasting
from release.gathering import ChangedError, Photo, as_faces
from release.journal import BLURRED, DAMAGED, FAILED, REPLACED, SUPPRESSED, WRITTEN, Journal, digest_of
from release.options import FolderOptions
from release.planning import Plan, Surrogate, describe
from release.searching import SearchError, check_detector, in_words, search_boxes, unexplained
from video.searching import CHECKED, FINE, SEGMENT, Watched, segments, watch
from video.streams import TICK, Frame, SegmentWriter, VideoError, join_segments, read_frames
from video.tracks import Course, covered_area, follow, link

#: Reasons.
_NO_FACE, _TOO_FEW, _NO_SURROGATE = (
    "no face was found",
    "fewer than k people",
    "no face was found on the surrogate",
)
_UNKNOWN = "nobody can say whose face it is"
_UNCERTAIN, _NOT_PASTED = "landmarks are uncertain", "the surrogate does not fit"
_FOUND_LATER = "found only on the result"

#: A track stands for a person if its landmarks are certain on at least this many frames.
_LEAST_CERTAIN = 3
#: Number of stills of a track that take part in the partition.
_TAKE_PART = 3
#: Two stills of a track show one person if a chain of distances below this multiple of `same_person` joins them.
_SAME_TRACK = 1.2
#: A face that is only expected is left out if another one covers this share of its box.
_COVERED = 0.6
#: Number of times that a video is written and searched; one on which faces are still found then is not released.
_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class Clip:
    """One video with its tracks, or why it has none.

    Attributes
    ----------
    path : Path
    damage, failure : str
        Why it cannot be read or searched; empty if it can.
    digest : str
        SHA-256 of the file.
    watched : Watched or None
    descriptors : list of ndarray, shapes (s, d)
        Of the stills of each track.
    standing : dict of int to Photo
        Track -> its stills, as a photo of a single person, if it takes part in the partition.
    """

    path: Path
    damage: str = ""
    failure: str = ""
    digest: str = ""
    watched: Watched | None = None
    descriptors: list[np.ndarray] = field(default_factory=list)
    standing: dict[int, Photo] = field(default_factory=dict)


@dataclass(frozen=True)
class _Fate:
    """What becomes of a track: the surrogate that replaces it, or why it is blurred out."""

    reason: str = ""
    person: str | None = None
    cluster: int | None = None
    surrogate: Surrogate | None = None


@dataclass(frozen=True, eq=False)
class _Placed:
    """A face on a frame: box (4,), landmarks (68, 2) if they are certain, and the surrogate that it gets, if any.

    `found` is False for a face that is only expected, between or beyond sightings.
    """

    track: int
    box: np.ndarray
    found: bool
    landmarks: np.ndarray | None
    surrogate: Surrogate | None
    reason: str


# ----------------------------------------------------------------------------------------------------------
# Who is in a video
# ----------------------------------------------------------------------------------------------------------


def open_clips(options: FolderOptions, paths: Sequence[Path]) -> list[Clip]:
    """Search all videos for faces, and describe their stills; see `Clip`."""
    if paths:
        options.search.mkdir(mode=0o700, exist_ok=True)
    return [_open_clip(options, path) for path in paths]


def _open_clip(options: FolderOptions, path: Path) -> Clip:
    try:
        digest = digest_of(path)
        key = utils.content_key(
            digest, options.largest_side, options.thorough, utils.source_key("video.searching")
        )
        watched = watch(path, options.search / key[:32], options.largest_side, options.thorough)
        spots = [watched.spots(number) for number in range(len(watched.tracks))]
        descriptors = [_describe(options, own) for own in spots]
    except VideoError as error:
        return Clip(path, damage=str(error))
    except Exception as error:  # the others can still be released
        return Clip(path, failure=f"it could not be searched ({in_words(error)})")
    standing = {}
    for number, (track, rows) in enumerate(zip(watched.tracks, descriptors, strict=True)):
        n_certain = int(watched.usable[track.rows].sum())
        if not track.crowded and n_certain >= _LEAST_CERTAIN and _is_one_person(options, rows):
            chosen = np.unique(np.linspace(0, len(rows) - 1, _TAKE_PART).round().astype(int))
            standing[number] = Photo(path, tuple(spots[number][i] for i in chosen))
    return Clip(path, digest=digest, watched=watched, descriptors=descriptors, standing=standing)


def _describe(options: FolderOptions, spots: Sequence) -> np.ndarray:
    """Descriptors of stills, without those that cannot be described: (s, d)."""
    if not spots:
        return np.zeros((0, 1))
    rows = describe(as_faces(spots, list(map(str, range(len(spots))))), options.embedding)
    return rows[np.isfinite(rows).all(axis=1)]


def _is_one_person(options: FolderOptions, descriptors: np.ndarray) -> bool:
    """Whether a chain of small distances joins the stills of a track."""
    if len(descriptors) == 0:
        return False
    near = scipy.spatial.distance.cdist(descriptors, descriptors) < _SAME_TRACK * options.same_person
    return scipy.sparse.csgraph.connected_components(near, directed=False)[0] == 1


def _fate(options: FolderOptions, plan: Plan, clip: Clip, number: int) -> _Fate:
    """Decide what becomes of a track."""
    row = _row_of(options, plan, clip, number)
    if row is None:
        return _Fate(_UNKNOWN)
    person = str(plan.found.faces.identities[row])
    if plan.is_empty:
        return _Fate(_TOO_FEW, person)
    if row in plan.faults:
        return _Fate(plan.faults[row], person)
    cluster = int(plan.labels[row])
    surrogate = plan.surrogates[cluster]
    if surrogate.landmarks is None:
        return _Fate(_NO_SURROGATE, person, cluster)
    return _Fate("", person, cluster, surrogate)


def _row_of(options: FolderOptions, plan: Plan, clip: Clip, number: int) -> int | None:
    """A row of the plan that shows the person of a track; None if it is unknown who that is.

    A track that takes no part in the partition belongs to a person if all its stills are near that person's faces.
    """
    if plan.found is None:
        return None
    if number in clip.standing:
        own = np.flatnonzero(plan.found.photo == plan.place_of(clip.standing[number]))
        return int(own[0]) if len(own) else None
    descriptors = clip.descriptors[number]
    if len(descriptors) == 0 or not _is_one_person(options, descriptors):
        return None
    distances = scipy.spatial.distance.cdist(descriptors, describe(plan.found.faces, options.embedding))
    nearest = distances.argmin(axis=1)
    people = set(plan.found.faces.identities[nearest].tolist())
    return int(nearest[0]) if len(people) == 1 and distances.min(axis=1).max() < options.same_person else None


# ----------------------------------------------------------------------------------------------------------
# The faces on a frame
# ----------------------------------------------------------------------------------------------------------


def _hide(image: np.ndarray, placed: Sequence[_Placed]) -> tuple[np.ndarray, list[tuple[str, str]]]:
    """Replace or blur out all faces on a frame, uint8 (h, w, 3); also return outcome and reason of each."""
    original, results = image, [(BLURRED, face.reason) for face in placed]
    expected = [not face.found and face.landmarks is None for face in placed]
    for face, early in zip(placed, expected, strict=True):  # first, so that the blur covers no surrogate
        if early:
            image = pasting.blur_out(image, face.box, face.landmarks)
    for i, face in enumerate(placed):
        if face.surrogate is None:
            continue
        if face.landmarks is None:
            results[i] = (BLURRED, _UNCERTAIN)
            continue
        edited = _paste(image, face, placed)
        if gate.is_left(image, edited, face.box, REPLACED):
            results[i] = (BLURRED, _NOT_PASTED)
        else:
            image, results[i] = edited, (REPLACED, "")
    # Last, so that no other edit restores what they hide.
    for face, early, (outcome, _) in zip(placed, expected, results, strict=True):
        if outcome == BLURRED and not early:
            image = pasting.blur_out(image, face.box, face.landmarks)
    for face, (outcome, _) in zip(placed, results, strict=True):
        if gate.is_left(original, image, face.box, outcome):
            image = _painted(image, face.box)
    return image, results


def _paste(image: np.ndarray, face: _Placed, placed: Sequence[_Placed]) -> np.ndarray:
    """Replace one face; return the image itself if that fails."""
    others = [
        np.reshape(o.box, (2, 2)) if o.landmarks is None else o.landmarks for o in placed if o is not face
    ]
    surrogate = face.surrogate
    try:
        return pasting.paste(image, face.landmarks, surrogate.image, surrogate.landmarks, others)
    except (cv2.error, ArithmeticError, ValueError):
        return image


def _painted(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Paint a box in its mean colour."""
    left, top = np.maximum(np.floor(box[:2]), 0).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    result = image.copy()
    part = result[top:bottom, left:right]
    part[...] = part.mean(axis=(0, 1)).astype(np.uint8)
    return result


def _place(courses: Sequence[tuple[int, Course, _Fate]], frame: int, size: tuple[int, int]) -> list[_Placed]:
    """The faces on a frame of some size (height, width); those outside it are left out."""
    placed = []
    for number, course, fate in courses:
        i = frame - course.first
        if not 0 <= i < len(course.boxes):
            continue
        box = np.concatenate(
            [np.maximum(course.boxes[i, :2], 0), np.minimum(course.boxes[i, 2:], size[::-1])]
        )
        if (box[2:] - box[:2] >= 1).all():
            landmarks = course.landmarks[i] if course.clear[i] else None
            found = bool(course.found[i])
            placed.append(_Placed(number, box, found, landmarks, fate.surrogate, fate.reason))
    found = np.array([face.box for face in placed if face.found]).reshape(-1, 4)
    return [face for face in placed if face.found or not (covered_area(face.box, found) > _COVERED).any()]


# ----------------------------------------------------------------------------------------------------------
# Segments and files
# ----------------------------------------------------------------------------------------------------------


class _Maker:
    """Writes one video, segment by segment, into a private folder; what is there is not written again."""

    def __init__(self, options: FolderOptions, clip: Clip, fates: Sequence[_Fate], folder: Path):
        self.options, self.clip, self.fates, self.folder = options, clip, fates, folder
        self.times = clip.watched.times
        self.n_segments = -(-len(self.times) // SEGMENT)
        self.rate = Fraction(
            1 / max(float(np.median(np.diff(self.times))) * float(TICK), 1e-3) if len(self.times) > 1 else 25
        )
        self.late: list[tuple[int, list[float]]] = []

    def make(self, target: Path) -> list[dict]:
        """Write the video; return the record of each segment.

        Raises
        ------
        SearchError
            If faces are still found on the result after `_ROUNDS` searches.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        latest = dict.fromkeys(range(self.n_segments), 0)
        todo = set(latest)
        for number in range(_ROUNDS):
            latest |= dict.fromkeys(todo, number)
            self._write_round(number, todo)
            new = [tuple(one) for segment in sorted(todo) for one in self._record(segment, number)["late"]]
            if not new:
                break
            self.late += new
            reached = {frame + step for frame, _ in new for step in (-FINE, 0, FINE)}
            todo = {frame // SEGMENT for frame in reached if 0 <= frame < len(self.times)}
        else:
            raise SearchError(f"faces were still found on the result after {_ROUNDS} searches")
        sound = self.clip.path if self.options.audio == "keep" else None
        join_segments([self._file(*one, "mp4") for one in latest.items()], self.times.tolist(), target, sound)
        return [self._record(*one) for one in latest.items()]

    def _file(self, segment: int, number: int, suffix: str) -> Path:
        return self.folder / f"{segment:06d}-{number}.{suffix}"

    def _record(self, segment: int, number: int) -> dict:
        return utils.parse_json(self._file(segment, number, "json").read_bytes())

    def _write_round(self, number: int, todo: set[int]) -> None:
        todo = {segment for segment in todo if not self._file(segment, number, "json").is_file()}
        if not todo:
            return
        frames = read_frames(self.clip.path, self.options.largest_side)
        frames = utils.progress(frames, "replacing faces in a video", total=len(self.times))
        for segment, own in segments(frames):
            if segment in todo:
                self._write(segment, number, own)

    def _write(self, segment: int, number: int, frames: Iterable[Frame]) -> None:
        """Write one segment, search it, and record what became of each face."""
        partial = self.folder / "partial.mp4"
        courses = self._courses(segment * SEGMENT, min((segment + 1) * SEGMENT, len(self.times)) - 1)
        shown: dict[int, list[dict]] = {}
        counts: dict[str, list[int]] = {}
        writer = SegmentWriter(partial, self.rate, self.options.crf)
        for frame in frames:
            placed = _place(courses, frame.number, frame.image.shape[:2])
            image, results = _hide(frame.image, placed)
            writer.add(image)
            for face, (outcome, reason) in zip(placed, results, strict=True):
                counts.setdefault(f"{face.track}/{outcome}/{reason}", []).append(frame.number)
            if frame.number % FINE == CHECKED:
                pairs = zip(placed, results, strict=True)
                shown[frame.number] = [
                    {"box": np.round(face.box, 1).tolist(), "outcome": outcome}
                    for face, (outcome, _) in pairs
                ]
        writer.close()
        late = []
        for frame in read_frames(partial, largest_side=10**6):
            whole = segment * SEGMENT + frame.number
            if whole in shown:
                boxes = search_boxes(frame.image)
                late += [(whole, boxes[i].tolist()) for i in unexplained(boxes, shown[whole])]
        partial.rename(self._file(segment, number, "mp4"))
        record = {"shown": shown, "counts": counts, "late": late}
        utils.save_atomic(
            self._file(segment, number, "json"), lambda file: file.write(json.dumps(record).encode())
        )

    def _courses(self, first: int, last: int) -> list[tuple[int, Course, _Fate]]:
        """Where the faces are on some frames: those of tracks, and those found only on the result."""
        watched = self.clip.watched
        courses = [
            (number, watched.course(track, first, last), fate)
            for number, (track, fate) in enumerate(zip(watched.tracks, self.fates, strict=True))
        ]
        sightings = sorted(self.late)
        frames = np.array([frame for frame, _ in sightings], dtype=np.int64)
        boxes = np.array([box for _, box in sightings]).reshape(-1, 4)
        for track in link(frames, boxes, [], len(self.times), 2 * FINE):
            own = frames[track.rows]
            span = (max(first, int(own[0]) - FINE), min(last, int(own[-1]) + FINE))
            if span[0] <= span[1]:
                nothing = np.zeros((len(own), 68, 2)), np.zeros(len(own), dtype=bool)
                courses.append((-1, follow(own, boxes[track.rows], *nothing, span), _Fate(_FOUND_LATER)))
        return [one for one in courses if one[1] is not None]


def make_videos(options: FolderOptions, journal: Journal, plan: Plan, clips: Sequence[Clip]) -> None:
    """Write all unfinished videos, and record each; an error fails one video alone."""
    options.work.mkdir(mode=0o700, exist_ok=True)
    for number, clip in enumerate(clips, start=len(plan.photos)):
        source, target = options.name_of(clip.path), options.finished_file(number, ".mp4")
        if journal.finished(source, target):
            continue
        record = {"source": source, "faces": [], **_make_video(options, plan, clip, target)}
        journal.add(record)
        if options.verbose:
            print(f"{source}: {record['status']} {record['reason']}".rstrip())


def _make_video(options: FolderOptions, plan: Plan, clip: Clip, target: Path) -> dict:
    """Write one video; return its part of the journal."""
    if clip.damage or clip.failure:
        return {"status": DAMAGED if clip.damage else FAILED, "reason": clip.damage or clip.failure}
    if not clip.watched.tracks and not options.keep_faceless:
        return {"status": SUPPRESSED, "reason": _NO_FACE}
    folder = target.with_suffix("")
    try:
        if not clip.watched.tracks:  # nothing else shows that the detector works on this video
            check_detector(next(read_frames(clip.path, options.largest_side)).image)
        fates = [_fate(options, plan, clip, track) for track in range(len(clip.watched.tracks))]
        records = _Maker(options, clip, fates, folder).make(target)
        if digest_of(clip.path) != clip.digest:
            raise ChangedError("the video was changed during the run")
    except Exception as error:
        target.unlink(missing_ok=True)
        reason = str(error) if isinstance(error, SearchError | VideoError | ChangedError) else in_words(error)
        return {"status": FAILED, "reason": f"its faces could not be replaced ({reason})"}
    shutil.rmtree(folder)
    shown = [
        {"frame": int(n), **face}
        for record in records
        for n, faces in record["shown"].items()
        for face in faces
    ]
    tracks = _summary_of_tracks(clip, fates, records)
    return {"status": WRITTEN, "reason": "", "shown": shown, "tracks": tracks, "sha256": digest_of(target)}


def _summary_of_tracks(clip: Clip, fates: Sequence[_Fate], records: Sequence[Mapping]) -> list[dict]:
    """What became of each track: person, cluster, and for each outcome and reason its spans of time in seconds."""
    frames: dict[str, list[int]] = {}
    for record in records:
        for key, own in record["counts"].items():
            frames.setdefault(key, []).extend(own)
    tracks: dict[int, dict] = {}
    for key, own in frames.items():
        number, outcome, reason = key.split("/", 2)
        fate = fates[int(number)] if int(number) >= 0 else _Fate()
        track = tracks.setdefault(int(number), {"person": fate.person, "cluster": fate.cluster, "spans": []})
        own = np.array(sorted(own))
        for part in np.split(own, np.flatnonzero(np.diff(own) > 1) + 1):
            first, last = (round(float(clip.watched.times[i] * TICK), 2) for i in (part[0], part[-1]))
            track["spans"].append(
                {"outcome": outcome, "reason": reason, "from": first, "to": last, "frames": len(part)}
            )
    return [tracks[number] for number in sorted(tracks)]
