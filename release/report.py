"""The private report on a run: one self-contained HTML page. Its template is report.html."""

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
from release.gathering import Photo
from release.planning import Plan

#: Largest number of photos in the report, and their width.
_SHEET_PHOTOS, _SHEET_WIDTH = 60, 420

#: Colours of the placeholders for originals: background, replaceable face, other face.
_EMPTY, _FACE, _OTHER_FACE = (225, 225, 225), (90, 140, 190), (120, 120, 120)


def make_sheet(plan: Plan, finished: Mapping[int, Path], mode: str, originals: bool) -> list[dict]:
    """Draw the pictures ``before`` and ``after`` as data URIs, each pair with a ``caption``.

    Parameters
    ----------
    plan : release.planning.Plan
    finished : mapping of int to Path
        The file of each released photo.
    mode : str
    originals : bool
        Whether to show the original photos, or only where their faces were.
    """
    if mode == "shared":
        shown = range(min(len(plan.surrogates), _SHEET_PHOTOS))
        return [_surrogate_entry(plan, label, originals) for label in shown]
    entries = []
    for i, photo in enumerate(plan.photos):
        if len(entries) < _SHEET_PHOTOS and finished[i].is_file():
            original = read_image(photo.path)
            before = _uri(original if originals else _places(original.shape, photo))
            after = _uri(read_image(finished[i]))
            entries.append({"before": before, "after": after, "caption": _caption(photo)})
    return entries


def _surrogate_entry(plan: Plan, label: int, originals: bool) -> dict:
    rows = np.flatnonzero(plan.labels == label)
    if originals:
        crops = [plan.found.faces.images[i] for i in rows[:8]]
        before = np.hstack([cv2.resize(crop, (90, 110), interpolation=cv2.INTER_AREA) for crop in crops])
    else:
        before = np.full((110, 90, 3), _EMPTY, dtype=np.uint8)
    n_people = len(np.unique(plan.found.faces.identities[rows]))
    caption = f"{n_people} people, {len(rows)} faces"
    return {"before": _uri(before), "after": _uri(plan.surrogates[label].image), "caption": caption}


def _caption(photo: Photo) -> str:
    blurred = [spot.reason for spot in photo.spots if spot.reason]
    text = f"{len(photo.spots)} faces" if len(photo.spots) != 1 else "1 face"
    return text + (f"; blurred out: {', '.join(blurred)}" if blurred else "")


def _places(shape: tuple[int, ...], photo: Photo) -> np.ndarray:
    """Draw the positions of the faces on an empty picture of the photo's size."""
    picture = np.full((*shape[:2], 3), _EMPTY, dtype=np.uint8)
    for spot in photo.spots:
        left, top, right, bottom = (int(side) for side in spot.box)
        centre, axes = ((left + right) // 2, (top + bottom) // 2), ((right - left) // 2, (bottom - top) // 2)
        cv2.ellipse(picture, centre, axes, 0, 0, 360, _OTHER_FACE if spot.reason else _FACE, -1)
    return picture


def _uri(image: np.ndarray) -> str:
    """Encode an image as the source of an ``img`` element, reduced to the sheet's width."""
    scale = min(1.0, _SHEET_WIDTH / image.shape[1])
    buffer = io.BytesIO()
    Image.fromarray(detection.resize(image, scale)).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def make_report(
    sentences: Sequence[str],
    audit: AuditReport | None,
    attacks: pd.DataFrame,
    sheet: Sequence[dict],
    originals: bool,
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
    sheet : sequence of dict
        From `make_sheet`.
    originals : bool
        Whether the sheet shows original photos.
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
    return page.render(sentences=sentences, audit=audit, attacks=rows, sheet=sheet, originals=originals, k=k)
