"""Features of aligned grey faces: pixels and local binary patterns."""

from __future__ import annotations

from functools import cache
from weakref import WeakKeyDictionary

import numpy as np

import embedding
from datasets import Faces
from detection import Images

#: Neighbours of a pixel (row, column), clockwise.
_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


#: Crops of Faces of at most so many photos, which fisherfaces, LBP and attackers on pixels read in turn.
_CROPS: WeakKeyDictionary[Faces, dict[tuple[int, float], np.ndarray]] = WeakKeyDictionary()
_MOST_PHOTOS = 1000


def grey_crops(faces: Images, size: int = 64, zoom: float = 0.85) -> np.ndarray:
    """Crop faces upright, in grey: float32 (n, size * size), values 0 to 1, read-only."""
    known = _CROPS.setdefault(faces, {}) if isinstance(faces, Faces) and len(faces) <= _MOST_PHOTOS else {}
    if (size, zoom) not in known:
        pixels = embedding.crops(faces, size=size, zoom=zoom).mean(axis=3, dtype=np.float32)
        known[size, zoom] = pixels.reshape(len(pixels), -1) / 255.0
        known[size, zoom].flags.writeable = False
    return known[size, zoom]


@cache
def _uniform_patterns() -> np.ndarray:
    """Number of each of the 256 codes, (256,): 0 to 57 if it has at most two changes around the circle, else 58."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1  # (256, 8)
    uniform = (bits != np.roll(bits, 1, axis=1)).sum(axis=1) <= 2
    return np.where(uniform, np.cumsum(uniform) - 1, uniform.sum())


def local_binary_patterns(crops: np.ndarray, cells: int = 8) -> np.ndarray:
    """Histograms of uniform local binary patterns in a grid of cells.

    Ahonen, Hadid and Pietikäinen, "Face description with local binary patterns", IEEE PAMI 28(12), 2006, with the
    eight adjacent pixels as neighbours.

    Parameters
    ----------
    crops : ndarray, shape (n, h, w)
        Grey.
    cells : int, default 8
        Cells along each side; pixels left over at the right and the bottom are not counted.

    Returns
    -------
    ndarray of float32, shape (n, cells * cells * 59)
        Square roots of each cell's shares, so that Euclidean distances are Hellinger distances.

    Raises
    ------
    ValueError
        If crops are not (n, h, w), or smaller than the grid.
    """
    crops = np.asarray(crops)
    if crops.ndim != 3 or min(crops.shape[1:]) < cells + 2:
        raise ValueError(f"crops must be grey (n, h, w), h and w at least {cells + 2}, got {crops.shape}")
    n, h, w = crops.shape
    # Compare each pixel with its neighbours, one bit each. (n, h - 2, w - 2)
    centre = crops[:, 1:-1, 1:-1]
    code = np.zeros(centre.shape, dtype=np.int64)
    for bit, (dy, dx) in enumerate(_NEIGHBOURS):
        code |= (crops[:, 1 + dy : h - 1 + dy, 1 + dx : w - 1 + dx] >= centre).astype(np.int64) << bit
    pattern = _uniform_patterns()[code]
    # Split into cells. (n * cells * cells, pixels of a cell)
    rows, columns = (h - 2) // cells, (w - 2) // cells
    pattern = pattern[:, : rows * cells, : columns * cells].reshape(n, cells, rows, cells, columns)
    pattern = pattern.transpose(0, 1, 3, 2, 4).reshape(n * cells * cells, rows * columns)
    # Count the patterns of each cell. (n, cells * cells * 59)
    place = np.arange(len(pattern))[:, None] * 59 + pattern
    counts = np.bincount(place.ravel(), minlength=59 * len(pattern)).reshape(n, -1)
    return np.sqrt(counts / (rows * columns)).astype(np.float32)
