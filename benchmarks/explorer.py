"""Time the explorer's answer to a new k on 400 photos: ``python benchmarks/explorer.py``.

Measured is the Python part between slider and screen: partition, mixtures and measures; then map, members of the chosen
cluster and table as HTML. Median and maximum over k = 2 to 20, without cached labels, as wall-clock and as CPU time of
this process, which other load does not change. Once with the 40 people of the ORL photos, and once with each photo as a
person of its own, which gives many more clusters.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import datasets
import explorer
from datasets import Faces
from explorer.rendering import map_svg, members_html, numbers_html

K_VALUES = range(2, 21)
PARTITIONERS = ("balanced", "ward", "mdav", "kmember")
#: Seconds that a change of a slider may take.
LIMIT = 0.3


def main():
    """Print the table."""
    orl = datasets.load_faces("orl")
    apart = Faces(orl.images, orl.names, orl.names, source="orl, one person a photo")
    print(
        f"{'people':>6} {'partition':10} {'shrinkage':>9}   {'median':>7} {'slowest':>7}   {'own':>7} {'slowest':>7}"
    )
    slowest = 0.0
    for faces in (orl, apart):
        exploration = explorer.Exploration(faces)
        first = exploration.first_selection()
        for partitioner in PARTITIONERS:
            for shrinkage in (0.0, 0.5):
                selection = replace(first, partitioner=partitioner, shrinkage=shrinkage)
                show(exploration, selection)  # fill the caches: gallery, projection, crops, compiled code
                taken = np.array([timed(exploration, replace(selection, k=k)) for k in K_VALUES])  # (19, 2)
                wall, own = np.median(taken, axis=0), taken.max(axis=0)
                slowest = max(slowest, own[1])
                print(
                    f"{faces.n_people:6} {partitioner:10} {shrinkage:9.1f}   {wall[0]:7.3f} {own[0]:7.3f}   "
                    f"{wall[1]:7.3f} {own[1]:7.3f}",
                    flush=True,
                )
    print(f"slowest {slowest:.3f} s of own time; {'within' if slowest < LIMIT else 'ABOVE'} {LIMIT} s")


def show(exploration, selection):
    """Do what a change of a slider does, except sending it to the browser."""
    view = exploration.simulate(selection)
    map_svg(exploration, view, 0)
    members_html(exploration, view, 0)
    numbers_html(view, None, exploration.gallery, exploration.threshold)


def timed(exploration, selection):
    """Return wall-clock and CPU seconds of a change to a new k."""
    exploration._labels.clear()
    wall, own = time.perf_counter(), time.process_time()
    show(exploration, selection)
    return time.perf_counter() - wall, time.process_time() - own


if __name__ == "__main__":
    main()
