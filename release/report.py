"""What a release of photos still gives away, and a report that shows it.

A face is not all that a photo shows. So the photos are attacked three ways: by the pasted face, by head and shoulders
with the face painted over (hair, clothes, what stands behind), and by the whole frame. The attacker holds either the
very photos, with names on them, or other photos of the same people.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import jinja2
import numpy as np
import pandas as pd
from PIL import Image

import attacks
import detection
import embedding
from datasets.faces import read_image
from release import pasting
from release.gathering import Photo

#: The report shows at most so many photos, so wide.
SHEET_PHOTOS, SHEET_WIDTH = 60, 420

#: Head and shoulders: so many face widths wide and high, so far above the face's middle, on a grid of colours.
CONTEXT_WIDTH, CONTEXT_HEIGHT, CONTEXT_ABOVE = 3.4, 4.2, 1.6
CONTEXT_GRID = (12, 10)  # rows, columns
FRAME_GRID = (12, 16)
#: On a photo of several people an attacker sees which face it is: its place counts as so many Lab levels.
PLACE = 30.0

ORIGINAL_FACE = "face, before"
FACE = "face, as released"
SURROGATE = "surrogate"
CONTEXT = "hair, clothes and background; face painted over"
FRAME = "whole photo, as released"

#: What the sentences call them.
TELLING = {"the pasted face": FACE, "what surrounds it": CONTEXT, "the whole photo": FRAME}

COLUMNS = ["what is attacked", "attacker holds", "people", "rate", "low", "high", "chance", "note"]


# ----------------------------------------------------------------------------------------------------------
# What an attacker sees
# ----------------------------------------------------------------------------------------------------------


def describe_colours(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Describe a picture by its colours on a coarse grid.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
    grid : (rows, columns)

    Returns
    -------
    ndarray of float32, shape (rows * columns * 3,)
        Lab values, without the picture's mean lightness.
    """
    small = cv2.resize(image, (grid[1], grid[0]), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    lab[..., 0] -= lab[..., 0].mean()
    return lab.ravel()


def describe_context(photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Describe what surrounds a face, the face itself painted over.

    Parameters
    ----------
    photo : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)

    Returns
    -------
    ndarray of float32, shape (360,)
        See `describe_colours`.
    """
    width = float(np.linalg.norm(landmarks[16] - landmarks[0]))
    middle = (landmarks[0] + landmarks[16]) / 2
    scale = 8 * CONTEXT_GRID[1] / (CONTEXT_WIDTH * width)
    corner = middle - width * np.array([CONTEXT_WIDTH / 2, CONTEXT_ABOVE])
    transform = np.column_stack([scale * np.eye(2), -scale * corner])
    rows, columns = round(CONTEXT_HEIGHT * width * scale), 8 * CONTEXT_GRID[1]
    window = detection.cut(pasting.cover(photo, landmarks), transform, rows, columns)
    return describe_colours(window, CONTEXT_GRID)


def describe_frame(photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Describe a whole photo, and which of the faces on it is meant.

    Parameters
    ----------
    photo : ndarray of uint8, shape (h, w, 3)
    landmarks : ndarray, shape (68, 2)

    Returns
    -------
    ndarray of float32, shape (578,)
        See `describe_colours`; then the face's place, x and y as shares of the photo's sides times `PLACE`.
    """
    place = PLACE * landmarks.mean(axis=0) / photo.shape[1::-1]
    return np.append(describe_colours(photo, FRAME_GRID), place.astype(np.float32))


def measure(plan, opened: Sequence[Photo], finished: Mapping[int, Path], mode: str, random_state: int = 0):
    """Attack the released photos, or in ``"shared"`` mode the surrogates.

    Parameters
    ----------
    plan : release.folder.Plan
    opened : sequence of Photo
        As they came.
    finished : mapping of int to Path
        Where the photo of each number lies that is released; those that are not released have no file there.
    mode : str
    random_state : int, default 0
        For the intervals, and which photos the attacker holds.

    Returns
    -------
    DataFrame
        A row for each thing attacked and each gallery: ``rate`` is the share of people whom the nearest face or picture
        names rightly, with a 95 % interval from ``low`` to ``high``; ``chance`` is that of a blind guess.
    """
    if plan.model is None or plan.n_people < 2:
        return pd.DataFrame(columns=COLUMNS)
    people, photo = plan.found.faces.identities, plan.found.photo
    before = embedding.embed(plan.found.faces, "dlib")
    if mode == "shared":
        images = [image for image, _ in plan.surrogates]
        there = np.array([points is not None for _, points in plan.surrogates])
        drawn = embedding.embed(images, "dlib")
        gallery = attacks.Gallery(before, people, "same photos")
        shared = attacks.DescribedRelease(drawn, there, plan.labels, people)
        return pd.DataFrame(
            [_row(SURROGATE, "the very photos", shared, gallery, random_state)], columns=COLUMNS
        )
    seen = _seen(plan, opened, finished)
    rows, every = [], np.arange(len(people))
    for what, (drawn, held, there) in {ORIGINAL_FACE: (before, before, None), **seen}.items():
        there = np.ones(len(people), dtype=bool) if there is None else there
        if what != ORIGINAL_FACE:  # each is its own nearest: nothing to learn
            rows.append(
                _attack(what, "the very photos", drawn, held, there, people, every, every, random_state)
            )
        mine, theirs = _halves(people, photo, random_state)
        if len(np.unique(people[mine])) < 2:
            note = "not made: fewer than two people are on several photos"
            rows.append(
                {"what is attacked": what, "attacker holds": "other photos of the same people", "note": note}
            )
            continue
        other = "other photos of the same people"
        rows.append(_attack(what, other, drawn, held, there, people, mine, theirs, random_state))
    return pd.DataFrame(rows, columns=COLUMNS)


def _attack(what, whose, drawn, held, there, people, mine, theirs, random_state) -> dict:
    """Search the gallery of some faces for the people behind others."""
    chosen = people[mine]
    released = attacks.DescribedRelease(drawn[mine], there[mine], np.arange(len(chosen)), chosen)
    gallery = attacks.Gallery(held[theirs], people[theirs], "same photos")
    return _row(what, whose, released, gallery, random_state)


def _row(
    what: str, whose: str, released: attacks.DescribedRelease, gallery: attacks.Gallery, random_state: int
) -> dict:
    results = attacks.identification(released, gallery, ranks=(1,), random_state=random_state)
    person = next(result for result in results if result.level == "person").row()
    n_failed = int((~released.found).sum())
    return {
        "what is attacked": what,
        "attacker holds": whose,
        "people": len(np.unique(released.identities)),
        **{name: person[name] for name in ("low", "high", "chance")},
        "rate": person["rate"],
        "note": f"no face was found on {n_failed} of {len(released.found)}" if n_failed else "",
    }


def _seen(plan, opened: Sequence[Photo], finished: Mapping[int, Path]) -> dict[str, tuple]:
    """What is attacked -> descriptors of what was released and of the originals, and whether a face is there."""
    crops, contexts, frames = [], [], []
    for i, rows in _by_photo(plan):
        original, released = read_image(opened[i].path), read_image(finished[i])
        scale = released.shape[0] / original.shape[0]
        for row in rows:
            spot = opened[i].spots[plan.found.place[row]]
            back = np.column_stack([np.eye(2) / scale, np.full(2, 0.5 / scale - 0.5)])  # released -> original
            transform = np.column_stack(
                [
                    spot.transform[:, :2] @ back[:, :2],
                    spot.transform[:, :2] @ back[:, 2] + spot.transform[:, 2],
                ]
            )
            crops.append(detection.cut(released, transform, *spot.crop.shape[:2]))
            landmarks = (spot.landmarks + 0.5) * scale - 0.5
            contexts.append(
                [describe_context(released, landmarks), describe_context(original, spot.landmarks)]
            )
            frames.append([describe_frame(released, landmarks), describe_frame(original, spot.landmarks)])
    contexts, frames = np.array(contexts), np.array(frames)  # (n, 2, d)
    before, there = embedding.embed(plan.found.faces, "dlib"), detection.detect(crops).found
    return {
        FACE: (embedding.embed(crops, "dlib"), before, there),
        CONTEXT: (contexts[:, 0], contexts[:, 1], None),
        FRAME: (frames[:, 0], frames[:, 1], None),
    }


def _by_photo(plan) -> Iterator[tuple[int, np.ndarray]]:
    """Numbers of the photos with faces, each with its rows: in the rows' own order."""
    for i in np.unique(plan.found.photo):
        yield int(i), np.flatnonzero(plan.found.photo == i)


def _halves(people: np.ndarray, photo: np.ndarray, random_state: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the faces attacked, and of the attacker's: on different photos, the attacked people on both."""
    numbers = np.random.default_rng(random_state).permutation(np.unique(photo))
    theirs = np.isin(photo, numbers[: len(numbers) // 2])
    mine = ~theirs & np.isin(people, people[theirs])
    return np.flatnonzero(mine), np.flatnonzero(theirs)


# ----------------------------------------------------------------------------------------------------------
# The page
# ----------------------------------------------------------------------------------------------------------


def make_sheet(
    plan, opened: Sequence[Photo], finished: Mapping[int, Path], mode: str, originals: bool
) -> list[dict]:
    """Pictures for the report: before (photos, or only where the faces were) and after, as data URIs."""
    if mode == "shared":
        return [_surrogate_entry(plan, label, originals) for label in range(len(plan.surrogates))][
            :SHEET_PHOTOS
        ]
    entries = []
    for i, photo in enumerate(opened):
        if len(entries) == SHEET_PHOTOS or not finished[i].is_file():
            continue
        original = read_image(photo.path)
        entries.append(
            {
                "before": _uri(original if originals else _places(original.shape, photo)),
                "after": _uri(read_image(finished[i])),
                "caption": _caption(photo),
            }
        )
    return entries


def _caption(photo: Photo) -> str:
    blurred = [spot.reason for spot in photo.spots if spot.reason]
    text = f"{len(photo.spots)} faces" if len(photo.spots) != 1 else "1 face"
    return text + (f"; blurred out: {', '.join(blurred)}" if blurred else "")


def _surrogate_entry(plan, label: int, originals: bool) -> dict:
    rows = np.flatnonzero(plan.labels == label)
    crops = [plan.found.faces.images[i] for i in rows[:8]]
    people = len(np.unique(plan.found.faces.identities[rows]))
    strip = np.hstack([cv2.resize(crop, (90, 110), interpolation=cv2.INTER_AREA) for crop in crops])
    image = plan.surrogates[label][0]
    before = strip if originals else np.full((110, 90, 3), 225, dtype=np.uint8)
    return {"before": _uri(before), "after": _uri(image), "caption": f"{people} people, {len(rows)} faces"}


def _places(shape: tuple[int, ...], photo: Photo) -> np.ndarray:
    """Where the faces were, on an empty sheet of the photo's size."""
    sheet = np.full((*shape[:2], 3), 225, dtype=np.uint8)
    for spot in photo.spots:
        left, top, right, bottom = (int(side) for side in spot.box)
        centre, axes = ((left + right) // 2, (top + bottom) // 2), ((right - left) // 2, (bottom - top) // 2)
        cv2.ellipse(sheet, centre, axes, 0, 0, 360, (120, 120, 120) if spot.reason else (90, 140, 190), -1)
    return sheet


def _uri(image: np.ndarray) -> str:
    """An image as the source of an ``img`` element, reduced to the sheet's width."""
    scale = min(1.0, SHEET_WIDTH / image.shape[1])
    buffer = io.BytesIO()
    Image.fromarray(detection.resize(image, scale)).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>AnonFACES: report on a release</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { font-weight: 600; } h2 { margin-top: 2rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { display: inline-block; margin: 0 1rem 1.2rem 0; } figure img { height: 13rem; } figcaption { color: #666; }
.private { background: #fff4d6; padding: .5rem .8rem; }
</style></head><body>
<h1>Report on a release</h1>
<p class="private">Keep this page private{% if originals %}: it shows the original photos{% endif %}.</p>
<ul>{% for sentence in sentences %}<li>{{ sentence }}</li>{% endfor %}</ul>
{% if attacks %}<h2>What the release gives away</h2>
<p>An attacker holds photos with names on them, and gives each released face or photo the name of the nearest one. The
rate is the share of people who are named rightly; the interval holds 95 % of what other draws of people would give.
{% if k %}By surrogates alone, shared by {{ k }} people, at most {{ "%.0f %%" % (100 / k) }} can be.{% endif %}</p>
<p>Faces are compared by dlib's descriptor. Hair, clothes and background are head and shoulders with the face painted
over; the whole photo is all of it, with the place of the face. Both are compared by nothing but coarse colours. An
attacker who takes more trouble finds more: read the rates as the least that the release gives away.</p>
<table><tr><th>what is attacked</th><th>attacker holds</th><th class="number">people</th>
<th class="number">named rightly</th>
<th class="number">interval</th><th class="number">blind guess</th><th></th></tr>
{% for row in attacks %}<tr><td>{{ row["what is attacked"] }}</td><td>{{ row["attacker holds"] }}</td>
{% if row["rate"] is none %}<td colspan="4"></td>{% else %}<td class="number">{{ row["people"] | int }}</td>
<td class="number">{{ "%.0f %%" % (100 * row["rate"]) }}</td>
<td class="number">{{ "%.0f to %.0f %%" % (100 * row["low"], 100 * row["high"]) }}</td>
<td class="number">{{ "%.0f %%" % (100 * row["chance"]) }}</td>{% endif %}
<td>{{ row["note"] or "" }}</td></tr>{% endfor %}
</table>
{% endif %}
{% if audit %}<h2>Audit of the files</h2>
<table>{% for check in audit.checks %}<tr><td>{{ {true: "passed", false: "FAILED"}.get(check.passed, "-") }}</td>
<td>{{ check.name }}</td><td>{{ check.detail }}</td></tr>{% endfor %}</table><p>{{ audit.claim }}</p>{% endif %}
{% if sheet %}<h2>Before and after</h2>
{% if not originals %}<p>The originals are left out; --show-originals shows them.</p>{% endif %}
{% for entry in sheet %}<figure><img src="{{ entry.before }}" alt="before"> <img src="{{ entry.after }}" alt="after">
<figcaption>{{ entry.caption }}</figcaption></figure>
{% endfor %}{% endif %}
</body></html>
"""


def make_report(
    sentences: Sequence[str],
    audit,
    attacks: pd.DataFrame,
    sheet: Sequence[dict],
    originals: bool,
    k: int | None = None,
) -> str:
    """Put everything on one page that needs no other file.

    Parameters
    ----------
    sentences : sequence of str
        What happened.
    audit : release.AuditReport or None
    attacks : DataFrame
        From `measure`.
    sheet : sequence of dict
        From `make_sheet`.
    originals : bool
        Whether the sheet shows original photos.
    k : int, optional
        How many people share a surrogate, where people do.

    Returns
    -------
    str
        HTML.
    """
    rows = attacks.astype(object).where(attacks.notna(), None).to_dict("records")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    return environment.from_string(PAGE).render(
        sentences=sentences,
        audit=audit,
        attacks=rows,
        sheet=sheet,
        originals=originals,
        k=k,
    )


def tell_findings(table: pd.DataFrame) -> list[str]:
    """What the table of `measure` comes to, in plain sentences."""
    sentences = []
    for whose, rows in table.dropna(subset=["rate"]).groupby("attacker holds", sort=False):
        found = rows.set_index("what is attacked")
        if SURROGATE in found.index:
            shared = found.loc[SURROGATE]
            sentences.append(
                f"With {whose}, the shared surrogate names {shared['rate']:.0%} of {int(shared['people'])} people; "
                f"a blind guess {shared['chance']:.0%}."
            )
        if FACE not in found.index:
            continue
        face, context, whole = found.loc[FACE], found.loc[CONTEXT], found.loc[FRAME]
        sentences.append(
            f"With {whose}, the released face names {face['rate']:.0%} of {int(face['people'])} people, hair, "
            f"clothes and background with the face painted over {context['rate']:.0%}, and the whole photo "
            f"{whole['rate']:.0%}; a blind guess {face['chance']:.0%}."
        )
        telling = [name for name, row in TELLING.items() if found.loc[row, "low"] > found.loc[row, "chance"]]
        sentences.append(
            f"More often than chance, such an attacker is led to the right person by {', '.join(telling)}."
            if telling
            else "With so few people none of the three can be told from chance, which does not show that they are safe."
        )
    return sentences
