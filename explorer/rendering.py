"""Render results as HTML for the panel. The templates, with all wording and styles, are in ``panel.html``."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import jinja2
import numpy as np

import attacks
import detection
from explorer.exploration import RECOGNISER, Cluster, Exploration, View
from labels import COLOURS, label

#: Width and height of the map, and the margin around its points, in units of the SVG.
_MAP_SIZE, _MAP_MARGIN = np.array([460.0, 350.0]), 16

#: With more photos than this, the map shows only the cluster centres and the photos of the selected cluster.
_MAP_PHOTOS = 5000

#: At most this many photos of the selected cluster are shown, in at most so many pixels: twice the width on the page.
_SHOWN_PHOTOS, _PHOTO_SIDE = 24, 192

_CHOSEN_COLOUR, _CLUSTER_COLOURS = COLOURS[1], [COLOURS[i] for i in (0, 2, 3, 4, 5, 7)]

#: Rows of the table of numbers: key in `View.scores` -> name, meaning.
_MEASURES = {
    "information_loss": (
        "Information loss (IL)",
        "mean distance between the descriptors of a photo and its surrogate; lower is more useful",
    ),
    "re_identification": (
        "Re-identification rate (RI)",
        "share of photos closer to their surrogate than the threshold; the paper's measure, not a probability of "
        "being identified",
    ),
    "rank1_cluster": (
        "Rank-1, cluster",
        "share of people for whom the gallery face nearest to their surrogate is a member of their cluster",
    ),
    "rank1_person": (
        "Rank-1, person",
        "share of people for whom the gallery face nearest to their surrogate is their own; at most 1/k",
    ),
    "stranger_share": (
        "Strangers below the threshold",
        "among pairs of a surrogate and a gallery photo of a person outside its cluster",
    ),
    "detection_rate": ("Surrogates with a face", "the others have no distances"),
}


def percent(share: float) -> str:
    """Return a share as text; a dash for NaN."""
    return "–" if np.isnan(share) else f"{100 * share:.1f} %"


def _decimal(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"


def _counted(n: int, one: str, several: str | None = None) -> str:
    return f"{n} {one if n == 1 else several or one + 's'}"


def _load_templates() -> jinja2.environment.TemplateModule:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        autoescape=True, loader=loader, lstrip_blocks=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"percent": percent, "decimal": _decimal, "counted": _counted}
    environment.globals["colours"] = COLOURS
    return environment.get_template("panel.html").module


_TEMPLATES = _load_templates()


def render(name: str, *arguments) -> str:
    """Fill in a macro of ``panel.html`` and return it as one line; text arguments are escaped."""
    return " ".join(str(getattr(_TEMPLATES, name)(*arguments)).split())


def alert_html(error: Exception, doing: str) -> str:
    """Return an alert with a heading and an error message."""
    return render("alert", doing, str(error) or type(error).__name__)


def numbers_html(simulated: View, confirmed: View | None, gallery: attacks.Gallery, threshold: float) -> str:
    """Return the table of numbers: simulated, confirmed, and values to compare with."""
    current = confirmed or simulated
    bound, scores = 1 / current.selection.k, current.scores
    references = {
        "re_identification": {"the paper's goal, 1/k": bound},
        "rank1_cluster": {"chance": scores["chance_cluster"]},
        "rank1_person": {"1/k": bound, "chance": scores["chance_person"]},
    }
    rows = []
    for key, (name, meaning) in _MEASURES.items():
        text, value = _decimal if key == "information_loss" else percent, scores[key]
        drawn_only = key == "detection_rate"  # a simulation has no images to detect faces on
        without_bar = key == "information_loss" or (drawn_only and confirmed is None) or np.isnan(value)
        rows.append(
            {
                "key": key,
                "name": name,
                "meaning": meaning,
                "simulated": "–" if drawn_only else text(simulated.scores[key]),
                "confirmed": "…" if confirmed is None else text(value),
                "bar": None if without_bar else value,
                "references": references.get(key, {}),
            }
        )
    return render("numbers", rows, current, confirmed, RECOGNISER, f"{threshold:g}", gallery)


def map_svg(exploration: Exploration, view: View, chosen: int) -> str:
    """Return a map of the clusters as an SVG: one star per cluster, the selected star on top; click to select."""
    raw, shares = exploration.plane(view.selection.embedding)
    low, high = raw.min(axis=0), raw.max(axis=0)
    # Scale both axes equally to preserve distances.
    scale = ((_MAP_SIZE - 2 * _MAP_MARGIN) / np.maximum(high - low, 1e-12)).min()

    def place(points: np.ndarray) -> np.ndarray:
        return (points - (low + high) / 2) * [scale, -scale] + _MAP_SIZE / 2

    positions = place(raw)
    stars = []
    for i in (*(i for i in range(len(view.clusters)) if i != chosen), chosen):
        points = positions[view.clusters[i]]
        if i == chosen:
            paths = _chosen_star(points)
        else:
            paths = _star(points, _CLUSTER_COLOURS[i % len(_CLUSTER_COLOURS)], len(positions) > _MAP_PHOTOS)
        stars.append((i, len(points), paths))
    simulated, drawn = exploration.surrogate_positions(view, chosen)
    return render(
        "map", stars, *_MAP_SIZE.astype(int), place(simulated).round(1),
        None if drawn is None else np.clip(place(drawn), 6, _MAP_SIZE - 6).round(1),
        chosen, len(view.labels), label(view.selection.embedding), shares,
        "" if view.selection.embedding == RECOGNISER else RECOGNISER,
    )  # fmt: skip


def _star(points: np.ndarray, colour: str, centre_only: bool) -> list[tuple]:
    """Return the paths of a cluster, with colour, width and opacity: lines to the centre, and dots."""
    centre = points.mean(axis=0)
    lines, paths = _spokes(points, centre), []
    if len(points) < 50:
        paths.append((lines, colour, 9, 0))  # invisible, so that a click near a line is enough
    if not centre_only:
        paths.append((lines, colour, 1.1, 0.55))
    return [*paths, (_dots(centre[None] if centre_only else points), colour, 6, 0.75)]


def _chosen_star(points: np.ndarray) -> list[tuple]:
    """Return the paths of the selected cluster, with a black outline."""
    lines, dots = _spokes(points, points.mean(axis=0)), _dots(points)
    return [
        (lines, "#000", 3, 1), (lines, _CHOSEN_COLOUR, 1.6, 1), (dots, "#000", 11, 1), (dots, _CHOSEN_COLOUR, 7.5, 1),
    ]  # fmt: skip


def _dots(points: np.ndarray) -> str:
    """Return points as one path of zero-length lines, whose round caps are dots."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)


def _spokes(points: np.ndarray, centre: np.ndarray) -> str:
    end = f"L{centre[0]:.1f} {centre[1]:.1f}"
    return "".join(f"M{x:.1f} {y:.1f}{end}" for x, y in points)


def members_html(exploration: Exploration, view: View, chosen: int) -> str:
    """Return the selected cluster: its surrogate, or a preview, and its members with their distances."""
    cluster, faces = exploration.cluster(view, chosen), exploration.faces
    if cluster.image is None:
        surrogate = _data_uri(exploration.preview(view, chosen))
    else:
        surrogate = _data_uri(cluster.image, "png")
    shown = _shown_members(exploration, cluster)
    photos = [
        {
            "source": _data_uri(exploration.portrait(row), side=_PHOTO_SIDE),
            "name": faces.names[row],
            "person": faces.identities[row],
            "distance": cluster.distance[i],
            "recognised": cluster.recognised[i],
        }
        for i, row in zip(shown, cluster.rows[shown], strict=True)
    ]
    several = faces.others is None and len(faces) > faces.n_people
    selection, threshold = view.selection, f"{exploration.threshold:g}"
    drawn_by = label(selection.anonymizer)
    return render(
        "members", cluster, len(view.clusters), surrogate, photos, selection, drawn_by, threshold, several
    )


def _shown_members(exploration: Exploration, cluster: Cluster) -> np.ndarray:
    """Return indices into `cluster.rows` to show: first one photo per person, at most `_SHOWN_PHOTOS` in all."""
    _, first = np.unique(exploration.faces.identities[cluster.rows], return_index=True)
    rest = np.setdiff1d(np.arange(len(cluster.rows)), first)
    return np.sort(np.concatenate([np.sort(first), rest])[:_SHOWN_PHOTOS])


def _data_uri(image: np.ndarray, kind: str = "jpeg", side: int = 256) -> str:
    """Return an image (h, w, 3) as the data URI of a ``"jpeg"`` or ``"png"``, reduced to at most `side` pixels."""
    longest = max(image.shape[:2])
    if longest > side:
        image = detection.resize(image, side / longest)
    _, data = cv2.imencode(f".{kind}", image[..., ::-1])
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
