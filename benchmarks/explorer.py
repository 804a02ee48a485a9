"""Time the explorer: ``python benchmarks/explorer.py [FOLDER]``, where each photo shows a different person.

Measured is the Python part between a control and the screen, without server and browser. First view: load and describe
the photos, partition, measure and write the page; twice, so that the second time is that of a second visit, even if
``ANONFACES_CACHE`` was empty. Changes: partition, mixtures and measures; then map, members of the chosen cluster and
table as HTML. Generators: preparing the model, then drawing and describing each surrogate in the background.

Prints wall-clock seconds and CPU seconds of this process, which other load hardly changes; median and slowest. Without
a folder, the 400 ORL photos are taken as those of 400 people.
"""

import functools
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import datasets
import embedding
import explorer
import partitioning
from datasets import Faces
from explorer.rendering import map_svg, members_html, numbers_html

K_VALUES = range(2, 21)
N_DRAWN = 20
#: Seconds that a change of a slider may take.
LIMIT = 0.3


def main():
    """Print the table."""
    processor = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    print(f"{len(processor)} x {processor[0].partition(':')[2].strip()}")
    print(f"{'':34} {'wall':>7} {'CPU':>7}   {'slowest':>7} {'CPU':>7}")
    for visit in ("first view", "first view, second visit"):
        (exploration, first), taken = timed(start)
        tell(visit, [taken])
    slowest = [
        tell(
            f"k = 2 to 20, {name}",
            [change(exploration, replace(first, partitioner=name, k=k)) for k in K_VALUES],
        )
        for name in partitioning.PARTITIONERS
    ]
    for name in embedding.available():
        tell(f"embedding {name}, first time", [change(exploration, replace(first, embedding=name))])
    for name in exploration.anonymizers:
        tell(f"{name}: preparing", [timed(lambda name=name: exploration.model(name))[1]])
        view = exploration.simulate(replace(first, anonymizer=name))
        drawings = [functools.partial(exploration.draw, view, label) for label in range(N_DRAWN)]
        tell(f"{name}: each surrogate", [timed(draw)[1] for draw in drawings])
    within = "within" if max(slowest) < LIMIT else "ABOVE"
    print(f"slowest change of k {max(slowest):.3f} CPU s; {within} {LIMIT} s")


def start():
    """Do what the page does at its start; return the exploration and its first selection."""
    if len(sys.argv) > 1:
        faces = datasets.load_faces(sys.argv[1], people="photos")
    else:
        orl = datasets.load_faces("orl")
        faces = Faces(orl.images, orl.names, orl.names, source="orl, one person a photo")
    exploration = explorer.Exploration(faces)
    first = exploration.first_selection()
    show(exploration, first)
    return exploration, first


def show(exploration, selection):
    """Do what a change of a control does, except sending it to the browser."""
    view = exploration.simulate(selection)
    map_svg(exploration, view, 0)
    members_html(exploration, view, 0)
    numbers_html(view, None, exploration.gallery, exploration.threshold)


def change(exploration, selection):
    """Return wall-clock and CPU seconds of a change to a selection whose labels are not known."""
    exploration._labels.clear()
    return timed(lambda: show(exploration, selection))[1]


def timed(function):
    """Call a function; return its result, and wall-clock and CPU seconds."""
    wall, own = time.perf_counter(), time.process_time()
    result = function()
    return result, (time.perf_counter() - wall, time.process_time() - own)


def tell(what, taken):
    """Print median and maximum of wall-clock and CPU seconds; return the maximum of the latter."""
    (wall, own), (slowest_wall, slowest_own) = np.median(taken, axis=0), np.max(taken, axis=0)
    print(f"{what:34} {wall:7.3f} {own:7.3f}   {slowest_wall:7.3f} {slowest_own:7.3f}", flush=True)
    return slowest_own


if __name__ == "__main__":
    main()
