"""Clips of ORL faces that move, for the tests and the benchmark of videos: the place of each face is known."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
from scenes import SKIN

import detection

RATE = 25


@dataclass(frozen=True)
class Actor:
    """A head that moves: its photo, uint8 (112, 92, 3), and its place on each frame.

    `place` maps a frame to (x, y, height, tilt in degrees, width as a share of the usual one), or None if it is absent.
    """

    image: np.ndarray
    place: Callable[[int], tuple[float, float, float, float, float] | None]

    def transform(self, frame: int) -> np.ndarray | None:
        """From photo to frame: (2, 3)."""
        place = self.place(frame)
        if place is None:
            return None
        x, y, tall, tilt, wide = place
        move = cv2.getRotationMatrix2D((46, 56), tilt, tall / 112)
        move[:, 2] += np.array([x, y]) - (46, 56)
        squeeze = np.array([[wide, 0, 46 * (1 - wide)], [0, 1, 0], [0, 0, 1]])
        return move @ squeeze


@dataclass(frozen=True)
class Clip:
    """Frames, uint8 (n, h, w, 3), and the face on each frame by actor: box (4,) or None."""

    frames: list[np.ndarray]
    marks: list[list[np.ndarray | None]]


def compose(
    actors: Sequence[Actor],
    n_frames: int,
    size: tuple[int, int] = (240, 320),
    light: Callable[[int], float] = lambda frame: 1.0,
    scene: Callable[[int], int] = lambda frame: 0,
    covers: Callable[[int], Sequence[tuple[int, int, int, int]]] = lambda frame: (),
) -> Clip:
    """Draw actors, the later ones in front, on a ground for each scene, below covers (left, top, right, bottom)."""
    faces = [detection.detect([actor.image]).boxes[0].astype(float) for actor in actors]
    grounds = {number: _ground(size, number) for number in {scene(i) for i in range(n_frames)}}
    soft = cv2.GaussianBlur(cv2.ellipse(np.zeros((112, 92)), (46, 56), (42, 53), 0, 0, 360, 1, -1), (0, 0), 2)
    random = np.random.default_rng(0)
    frames, marks = [], []
    for i in range(n_frames):
        canvas, row, seen = grounds[scene(i)].copy(), [], []
        for actor, face in zip(actors, faces, strict=True):
            move = actor.transform(i)
            if move is None:
                row.append(None)
                continue
            alpha = cv2.warpAffine(soft, move, size[::-1])[..., None]
            drawn = cv2.warpAffine(actor.image * SKIN, move, size[::-1], flags=cv2.INTER_CUBIC)
            canvas = canvas * (1 - alpha) + drawn * alpha
            corners = face.reshape(2, 2)[[[0, 1, 1, 0], [0, 0, 1, 1]], [[0], [1]]].T
            points = detection.move_points(corners, move)
            row.append(np.concatenate([points.min(axis=0), points.max(axis=0)]))
            seen = [area & (alpha[..., 0] < 0.5) for area in seen] + [alpha[..., 0] > 0.5]
        for left, top, right, bottom in covers(i):
            canvas[top:bottom, left:right] = (90, 110, 70)
            for area in seen:
                area[top:bottom, left:right] = False
        noisy = canvas * light(i) + random.normal(0, 1.5, (*size, 1))
        frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
        visible = iter(seen)
        marks.append([None if box is None else _if_seen(box, next(visible)) for box in row])
    return Clip(frames, marks)


def _ground(size: tuple[int, int], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    ground = np.ones((*size, 3)) * random.uniform(60, 190, 3)
    return ground + cv2.GaussianBlur(random.normal(0, 90, (*size, 3)), (0, 0), 9)


def _if_seen(box: np.ndarray, seen: np.ndarray) -> np.ndarray | None:
    """A face of which at least half is seen."""
    left, top, right, bottom = (int(round(side)) for side in box)
    area = max((right - left) * (bottom - top), 1)
    return (
        box if seen[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)].sum() >= 0.5 * area else None
    )


def write(
    path,
    frames,
    codec="libx264",
    options=None,
    rate=RATE,
    times=None,
    metadata=None,
    pix_fmt="yuv420p",
    shape=1,
):
    """Write frames with FFmpeg; times are in milliseconds, and shape is that of pixels, width by height."""
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=rate, options={"crf": "12"} if options is None else options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.sample_aspect_ratio = pix_fmt, Fraction(shape)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
