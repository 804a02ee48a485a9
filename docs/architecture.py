"""The chart of the whole suite in README and docs/architecture.md, drawn from a table of boxes and arrows."""

from __future__ import annotations

from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from labels import STYLE


class Box(NamedTuple):
    """A box: its place in the grid (from the top left), its kind, and its three lines of text."""

    column: int
    row: int
    n_columns: int
    kind: str
    title: str
    place: str
    words: str


#: Fills by kind: pale enough for black text, and different in print.
FILLS = {"in": "#DCEBF7", "method": "#FFFFFF", "judge": "#FBE3D0", "out": "#E4E4E4"}

BOXES = {
    "descriptors": Box(2, 0, 1, "in", "Own descriptors", "encoding_data/", ".npz .npy .csv .pickle"),
    "networks": Box(4, 0, 1, "method", "Networks", "CNN/  stylegan/", "bundled, trained,\nor your own"),
    "photos": Box(0, 1, 1, "in", "Photos", "datasets/", "ORL, folder,\nRaFD, CelebA"),
    "detection": Box(1, 1, 1, "method", "Detection", "detection.py", "box, 68 landmarks,\naligned crop"),
    "embedding": Box(2, 1, 1, "method", "Embedding", "embedding.py", "one descriptor\nper face"),
    "partitioning": Box(3, 1, 1, "method", "Partitioning", "partitioning.py", "clusters of\nat least k people"),
    "anonymizer": Box(4, 1, 1, "method", "Anonymizer", "anonymizer/", "one surrogate face\nper cluster"),
    "release": Box(5, 1, 1, "out", "Release", "release/", "random names,\nledger apart, audit"),
    "gallery": Box(0, 2, 1, "in", "Gallery", "faces.others", "what an adversary\nholds"),
    "attacks": Box(2, 2, 1, "judge", "Attacks", "attacks/", "search, parrot,\nreversal, insider"),
    "utility": Box(3, 2, 1, "judge", "Utility", "utility/", "age, sex, pose,\nlikeness, FID"),
    "measures": Box(4, 2, 1, "judge", "Distances", "evaluation.py", "IL, RI, rank 1,\nover every k"),
    "tuning": Box(5, 2, 1, "judge", "Tuning", "tuning.py", "least loss that keeps\na privacy bound"),
    "notebooks": Box(0, 3, 2, "method", "Notebooks run it all", "*.ipynb", "experiments, partitions, figures"),
    "recognisers": Box(2, 3, 1, "judge", "Recognisers", "recognisers/", "not used for\nclustering"),
    "appearance": Box(3, 3, 1, "judge", "Appearance", "utility/appearance.py", "what networks read\nin a face"),
    "tables": Box(4, 3, 1, "out", "Tables", "outputs/*.csv", "one row per\ncombination"),
    "figures": Box(5, 3, 1, "out", "Figures, explorer", "vizualization.py", "PNG, PDF,\na panel, a page"),
}  # fmt: skip

#: The frame around the boxes of the evaluation: first and last column, row, title.
FRAME = (2, 4, 2, "Evaluation: originals against surrogates")

#: Pairs of boxes; "frame" is the frame.
ARROWS = [
    ("photos", "detection"), ("detection", "embedding"), ("descriptors", "embedding"), ("embedding", "partitioning"),
    ("partitioning", "anonymizer"), ("networks", "anonymizer"), ("anonymizer", "release"), ("photos", "gallery"),
    ("gallery", "frame"), ("anonymizer", "frame"), ("recognisers", "attacks"), ("appearance", "utility"),
    ("measures", "tables"), ("frame", "tuning"), ("tuning", "anonymizer"), ("tables", "figures"),
]  # fmt: skip

#: Inches: width and height of a box, gaps between columns and rows, margin.
BOX_WIDTH, BOX_HEIGHT, COLUMN_GAP, ROW_GAP, MARGIN = 1.42, 0.82, 0.32, 0.44, 0.12


def rectangle(name: str) -> tuple[float, float, float, float]:
    """Return left, bottom, right and top of a box, or of the ``"frame"``, in inches."""
    if name == "frame":
        first, last, row, _ = FRAME
        left, bottom, right, top = _cells(first, row, last - first + 1)
        return left - 0.1, bottom - 0.1, right + 0.1, top + 0.26
    box = BOXES[name]
    return _cells(box.column, box.row, box.n_columns)


def _cells(column: int, row: int, n_columns: int) -> tuple[float, float, float, float]:
    n_rows = 1 + max(box.row for box in BOXES.values())
    left = MARGIN + column * (BOX_WIDTH + COLUMN_GAP)
    bottom = MARGIN + (n_rows - 1 - row) * (BOX_HEIGHT + ROW_GAP)
    return left, bottom, left + n_columns * (BOX_WIDTH + COLUMN_GAP) - COLUMN_GAP, bottom + BOX_HEIGHT


def _arrow_ends(start: str, end: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return tail and tip of an arrow: on the facing sides of two boxes, or on their corners."""
    (l0, b0, r0, t0), (l1, b1, r1, t1) = rectangle(start), rectangle(end)
    low, high = max(b0, b1), min(t0, t1)
    if low < high:  # side by side
        y = (low + high) / 2
        return ((r0, y), (l1, y)) if r0 <= l1 else ((l0, y), (r1, y))
    inner, outer = max(l0, l1), min(r0, r1)
    if inner < outer:  # one above the other
        x = (inner + outer) / 2
        return ((x, b0), (x, t1)) if b0 >= t1 else ((x, t0), (x, b1))
    return ((l0 if l0 > r1 else r0), t0 if b1 > t0 else b0), ((r1 if l0 > r1 else l1), b1 if b1 > t0 else t1)


def system_architecture() -> Figure:
    """Draw the whole suite as a flow chart: from photos to a release, and how it is evaluated.

    Returns
    -------
    Figure
        Each box names the module or folder that does the work. Blue boxes are inputs, white ones methods, orange ones
        measures, grey ones outputs; no information is in the colours alone.
    """
    rectangles = {name: rectangle(name) for name in (*BOXES, "frame")}
    width, height = (max(sides[i] for sides in rectangles.values()) + MARGIN for i in (2, 3))
    with matplotlib.rc_context({**STYLE, "figure.constrained_layout.use": False, "axes.grid": False}):
        figure = Figure(figsize=(width, height))
        axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
        axis.axis("off")
        left, bottom, right, top = rectangles["frame"]
        dashed = {"fill": False, "linestyle": "--", "linewidth": 0.9}
        axis.add_patch(Rectangle((left, bottom), right - left, top - bottom, **dashed))
        axis.text(left + 0.08, top - 0.05, FRAME[3], fontsize=8, style="italic", va="top")
        for name, box in BOXES.items():
            left, bottom, right, top = rectangles[name]
            shape = {
                "boxstyle": "round,pad=0,rounding_size=0.06",
                "facecolor": FILLS[box.kind],
                "linewidth": 0.9,
            }
            axis.add_patch(FancyBboxPatch((left, bottom), right - left, top - bottom, **shape))
            centre = (left + right) / 2
            axis.text(centre, top - 0.05, box.title, fontsize=8.5, weight="bold", ha="center", va="top")
            axis.text(centre, top - 0.22, box.place, fontsize=7.5, family="monospace", ha="center", va="top")
            axis.text(
                centre, bottom + 0.23, box.words, fontsize=7.5, ha="center", va="center", linespacing=1.1
            )
        for start, end in ARROWS:
            tail, tip = _arrow_ends(start, end)
            solid = {"mutation_scale": 9, "shrinkA": 0, "shrinkB": 0, "linewidth": 1.1, "color": "black"}
            axis.add_patch(FancyArrowPatch(tail, tip, arrowstyle="-|>", **solid))
    return figure
