"""The private report on a run: one self-contained HTML page. Its template is report.html.

It shows the original photos and who is who, and is therefore as private as the ledger.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import jinja2
import numpy as np
import pandas as pd
from PIL import Image

import detection
from datasets.faces import read_image
from release.auditing import AuditReport
from release.planning import Plan
from release.review import COLOURS, Reviewed, outlined
from video.streams import TICK, read_frames

#: Width of the photos in pixels, of faces in the list of people, and quality of the JPEGs.
_PHOTO_WIDTH, _FACE_WIDTH, _QUALITY = 900, 72, 70
#: Number of clusters shown in shared mode.
_MOST_CLUSTERS = 60
#: Number of moments shown of a video, frames of each and their width in pixels; times that count as equal, in seconds.
_MOST_MOMENTS, _STRIP, _STRIP_WIDTH, _SOON = 12, 5, 180, 0.006


def show_photos(
    plan: Plan, photos: Sequence[Reviewed], finished: Mapping[int, Path], names: Mapping[int, str]
) -> list[dict]:
    """Show released photos beside the originals, with each face outlined by what became of it.

    Parameters
    ----------
    plan : release.planning.Plan
    photos : sequence of Reviewed
        The released photos, from `release.review.review`.
    finished : mapping of int to Path
        The file of each released photo.
    names : mapping of int to str
        Its name in the release.

    Returns
    -------
    list of dict
        ``before`` and ``after`` (data URIs), ``name``, ``concerns``, and the ``faces`` in words.
    """
    entries = []
    for photo in photos:
        original, released = plan.photos[photo.number].read(), read_image(finished[photo.number])
        small, factor = _reduced(original, _PHOTO_WIDTH)
        boxes = [factor * np.array(face["box"]) for face in photo.faces]
        pictures = {
            "before": _uri(outlined(small, boxes, photo.faces)),
            "after": _uri(_reduced(released, _PHOTO_WIDTH)[0]),
        }
        words = {"concerns": photo.concerns, "faces": list(map(_in_words, photo.faces))}
        entries.append({**pictures, "name": names[photo.number], **words})
    return entries


def show_videos(
    records: Sequence[dict], originals: Sequence[Path], released: Sequence[Path], largest_side: int
) -> list[dict]:
    """Show the moments of videos to look at: strips of frames, the original above the released one.

    Parameters
    ----------
    records : sequence of dict
        The journal's record of each of v videos.
    originals, released : sequences of v Path
    largest_side : int
        Of frames, in pixels.

    Returns
    -------
    list of dict
        ``name``, ``moments`` (``time``, ``why`` and ``strip``, a data URI), and the number ``n_more`` of further ones.
    """
    entries = []
    for record, original, file in zip(records, originals, released, strict=True):
        doubtful = [
            (track["person"], span) for track in record["tracks"] for span in track["spans"] if span["reason"]
        ]
        doubtful.sort(key=lambda one: -one[1]["frames"])
        chosen = sorted(doubtful[:_MOST_MOMENTS], key=lambda one: one[1]["from"])
        wanted = [np.linspace(span["from"], span["to"], _STRIP) for _, span in chosen]
        strips = [_frames_at(path, wanted, largest_side) for path in (original, file)]
        moments = [
            {
                "time": f"{span['from']:.2f} to {span['to']:.2f} s",
                "why": ", ".join(filter(None, [person, span["outcome"], span["reason"]])),
                "strip": _uri(np.vstack([np.hstack(rows[i]) for rows in strips])),
            }
            for i, (person, span) in enumerate(chosen)
        ]
        entries.append({"name": file.name, "moments": moments, "n_more": len(doubtful) - len(chosen)})
    return entries


def _frames_at(path: Path, wanted: Sequence[np.ndarray], largest_side: int) -> list[list[np.ndarray]]:
    """The frames of a video at some times, in seconds, small and all of one size."""
    times = sorted({float(time) for own in wanted for time in own})
    found: dict[float, np.ndarray] = {}
    for frame in read_frames(path, largest_side) if times else ():
        while len(found) < len(times) and float(frame.time * TICK) > times[len(found)] - _SOON:
            height = round(frame.image.shape[0] * _STRIP_WIDTH / frame.image.shape[1])
            small = cv2.resize(frame.image, (_STRIP_WIDTH, max(height, 1)), interpolation=cv2.INTER_AREA)
            found[times[len(found)]] = small
    return [[found.get(float(time), next(iter(found.values()))) for time in own] for own in wanted]


def _in_words(face: dict) -> str:
    words = [face["person"], face["outcome"], face["reason"], *face["doubts"]]
    if face["distance"] is not None:
        words.append(f"distance {face['distance']:.2f}")
    return ", ".join(filter(None, words))


def show_surrogates(plan: Plan) -> list[dict]:
    """Show the clusters of a shared release: faces ``before``, surrogate ``after``, and ``caption``."""
    entries = []
    for label, surrogate in enumerate(plan.surrogates[:_MOST_CLUSTERS]):
        rows = np.flatnonzero(plan.labels == label)
        crops = [plan.found.faces.images[i] for i in rows[:8]]
        before = np.hstack([cv2.resize(crop, (90, 110), interpolation=cv2.INTER_AREA) for crop in crops])
        n_people = len(np.unique(plan.found.faces.identities[rows]))
        caption = f"{n_people} people, {len(rows)} faces"
        entries.append({"before": _uri(before), "after": _uri(surrogate.image), "caption": caption})
    return entries


def show_people(plan: Plan, joined_below: float) -> list[dict]:
    """List the people with all their faces: first those who may be several people, then those who are kept.

    Parameters
    ----------
    plan : release.planning.Plan
    joined_below : float
        The distance below which two faces were joined. In a larger group, only a chain of faces joins some pairs.

    Returns
    -------
    list of dict
        ``name``, ``faces`` (data URIs), ``n_photos``, ``spread``, ``chained``, and the number ``n_kept`` of faces that
        stay as they are.
    """
    entries = []
    for name, spread in plan.spread.items():
        rows = np.flatnonzero(plan.found.faces.identities == name)
        faces = [_uri(_reduced(plan.found.faces.images[i], _FACE_WIDTH)[0]) for i in rows]
        entries.append({
            "name": name, "faces": faces, "n_photos": len(np.unique(plan.found.photo[rows])), "spread": spread,
            "chained": spread > joined_below, "n_kept": int(plan.kept[rows].sum()),
        })  # fmt: skip

    def urgency(entry: dict) -> tuple:
        return entry["chained"], entry["chained"] * entry["spread"], entry["n_kept"] > 0, len(entry["faces"])

    return sorted(entries, key=urgency, reverse=True)


def _reduced(image: np.ndarray, width: int) -> tuple[np.ndarray, float]:
    """Reduce an image (h, w, 3) to at most this width; return the factor, too."""
    factor = min(1.0, width / image.shape[1])
    return detection.resize(image, factor), factor


def _uri(image: np.ndarray) -> str:
    """Encode an image as the source of an ``img`` element."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def make_report(
    sentences: Sequence[str],
    audit: AuditReport | None,
    attacks: pd.DataFrame,
    photos: Sequence[dict] = (),
    surrogates: Sequence[dict] = (),
    people: Sequence[dict] = (),
    videos: Sequence[dict] = (),
    k: int | None = None,
) -> str:
    """Render the page.

    Parameters
    ----------
    sentences : sequence of str
        What happened.
    audit : release.AuditReport or None
    attacks : DataFrame
        From `release.leaks.measure`.
    photos, surrogates, people, videos : sequence of dict
        From `show_photos`, `show_surrogates`, `show_people` and `show_videos`.
    k : int, optional
        Number of people who share a surrogate, if any do.

    Returns
    -------
    str
        HTML.
    """
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("report.html")
    rows = attacks.astype(object).where(attacks.notna(), None).to_dict("records")
    return page.render(
        sentences=sentences, audit=audit, attacks=rows, photos=photos, surrogates=surrogates, people=people,
        videos=videos, k=k,
        colours={outcome: "#{:02x}{:02x}{:02x}".format(*colour) for outcome, colour in COLOURS.items()},
    )  # fmt: skip
