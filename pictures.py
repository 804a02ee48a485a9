"""Figures of images: contact sheets, grids, and clusters with their surrogates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from anonymizer import Surrogates
from datasets import Faces
from labels import STYLE

#: Width of one image, in inches.
FACE_SIZE = 0.75


def image_grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[Sequence[str]] | None = None,
    row_labels: Sequence[str] | None = None,
) -> Figure:
    """Show rows of images; None leaves a gap.

    Parameters
    ----------
    rows : sequence of sequences of uint8 arrays (h, w, 3)
    titles : sequence of sequences of str, optional
        Written above the images; a row may have fewer titles than images.
    row_labels : sequence of str, optional
        Written to the left of the rows.

    Raises
    ------
    ValueError
        If there are no images.
    """
    shown = [image for row in rows for image in row if image is not None]
    if not shown:
        raise ValueError("rows must have at least one image, got no image")
    n_columns = max(map(len, rows))
    aspect = float(np.median([image.shape[0] / image.shape[1] for image in shown]))
    room = 0.16 if titles is not None else 0.0  # inches above each row
    margin = 0.12 * max(map(len, row_labels)) * 0.6 if row_labels else 0.0  # inches to the left
    width, height = n_columns * FACE_SIZE + margin, len(rows) * (FACE_SIZE * aspect + room)
    with matplotlib.rc_context({**STYLE, "figure.constrained_layout.use": False, "axes.grid": False}):
        figure = Figure(figsize=(width, height))
        grid = figure.add_gridspec(
            len(rows), n_columns, left=margin / width, right=1, bottom=0, top=1 - room / height,
            wspace=0.03, hspace=0.03 + room / (FACE_SIZE * aspect),
        )  # fmt: skip
        for r, row in enumerate(rows):
            for c, image in enumerate(row):
                axis = figure.add_subplot(grid[r, c])
                axis.axis("off")
                if image is not None:
                    axis.imshow(image, interpolation="lanczos")
                if titles is not None and c < len(titles[r]):
                    axis.set_title(titles[r][c], fontsize=6, pad=1.5)
                if c == 0 and row_labels:
                    place = {"transform": axis.transAxes, "ha": "right", "va": "center"}
                    axis.text(-0.08, 0.5, row_labels[r], fontsize=8, **place)
    return figure


def contact_sheet(
    images: Sequence[np.ndarray], titles: Sequence[str] | None = None, columns: int = 10
) -> Figure:
    """Show images in a grid, row by row.

    Parameters
    ----------
    images : sequence of uint8 arrays (h, w, 3)
    titles : sequence of str, optional
    columns : int, default 10
    """

    def in_rows(items: Sequence) -> list[list]:
        return [list(items[start : start + columns]) for start in range(0, len(items), columns)]

    return image_grid(in_rows(images), None if titles is None else in_rows(titles))


def clusters_with_surrogates(
    faces: Faces, model: Surrogates, labels: np.ndarray, clusters: Sequence[int] | None = None
) -> Figure:
    """Show one cluster per row: the photos of its members, a gap, and their surrogate.

    Parameters
    ----------
    faces : Faces
    model : Surrogates
        From `anonymizer.load`, made for `faces`.
    labels : ndarray of int, shape (n,)
    clusters : sequence of int, optional
        The clusters to show; the first six by default.
    """
    clusters = range(min(6, int(labels.max()) + 1)) if clusters is None else clusters
    members = [np.flatnonzero(labels == cluster) for cluster in clusters]
    widest = max(map(len, members))
    rows = [
        [*(faces.images[i] for i in rows), *([None] * (widest - len(rows))), None, model.surrogate(rows)]
        for rows in members
    ]
    return image_grid(rows, row_labels=[f"cluster {cluster}" for cluster in clusters])


def people_and_surrogates(
    faces: Faces, model: Surrogates, labels_by_k: Mapping[int, np.ndarray], rows: Sequence[int]
) -> Figure:
    """Show some photos, and below each its surrogates for several k.

    Parameters
    ----------
    faces : Faces
    model : Surrogates
        From `anonymizer.load`, made for `faces`.
    labels_by_k : mapping of int to ndarray (n,)
        For each k the cluster of every photo.
    rows : sequence of int
        The photos to show.
    """
    sheet = [[faces.images[i] for i in rows]]
    for labels in labels_by_k.values():
        drawn = {label: model.surrogate(np.flatnonzero(labels == label)) for label in set(labels[list(rows)])}
        sheet.append([drawn[labels[i]] for i in rows])
    return image_grid(sheet, row_labels=["photo", *(f"k = {k}" for k in labels_by_k)])


def style_mixing(sources: np.ndarray, destinations: np.ndarray, mixed: np.ndarray) -> Figure:
    """Show style mixing: sources in the top row, destinations in the left column, mixtures where they meet.

    As figure 3 of Karras, Laine and Aila, "A style-based generator architecture for generative adversarial networks",
    CVPR 2019.

    Parameters
    ----------
    sources : ndarray of uint8, shape (s, h, w, 3)
    destinations : ndarray of uint8, shape (d, h, w, 3)
    mixed : ndarray of uint8, shape (d, s, h, w, 3)
        From `stylegan.mixing.mixing_pictures`.

    Raises
    ------
    ValueError
        If `mixed` does not have d rows and s columns.
    """
    expected = (len(destinations), len(sources))
    if mixed.shape[:2] != expected:
        raise ValueError(
            f"mixed must have {expected[0]} rows (destinations) and {expected[1]} columns (sources), "
            f"got {mixed.shape[:2]}"
        )
    rows = [[None, *sources], *([d, *row] for d, row in zip(destinations, mixed, strict=True))]
    return image_grid(rows)
