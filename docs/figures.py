"""The pictures of README and docs, drawn anew: ``python -m docs.figures [PICTURE ...]``, or ``make docs`` for all.

All are of the ORL faces (AT&T Laboratories Cambridge). The same code and weights give the same bytes. The curves take
minutes, unless `make experiments` has measured them already.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import anonymizer
import datasets
import embedding
import evaluation
import partitioning
import vizualization

ROOT = Path(__file__).resolve().parents[1]

#: How many dots an inch: readable in print at the width of a page, and small in the repository.
RESOLUTION = 150

GENERATORS = ("pixel", "eigen", "aam", "cnn", "stylegan")


def orl_people() -> datasets.Faces:
    """One photo of each of the 40 ORL people."""
    return datasets.load_faces("orl", per_identity=1, random_state=0)


def ward_labels(faces: datasets.Faces, k: int) -> np.ndarray:
    """Ward clusters on dlib, as in the notebooks: int (n,)."""
    ward = partitioning.PARTITIONERS["ward"]
    return ward(embedding.embed(faces, "dlib"), k, identities=faces.identities, random_state=0)


def mixing() -> Figure:
    """Four clusters of five, and the face that each generator mixes from their members."""
    faces = orl_people()
    labels = ward_labels(faces, 5)
    models = [anonymizer.load(name, faces) for name in GENERATORS]
    return vizualization.mixing(faces, models, [np.flatnonzero(labels == cluster) for cluster in range(4)])


def people_and_surrogates() -> Figure:
    """Twelve people, and the face that stands for each at k = 2, 5 and 10."""
    faces = orl_people()
    labels = {k: ward_labels(faces, k) for k in (2, 5, 10)}
    return vizualization.people_and_surrogates(faces, anonymizer.load("aam", faces), labels, range(12))


def by_partition() -> Figure:
    """Loss and re-identification over k, by partition, as in VisualizingResults.ipynb."""
    names = ["balanced", "ward", "average", "complete", "kmeans_elki", "knn_max", "knn_random", "random"]
    table = evaluation.sweep(orl_people(), ["dlib"], names, ["aam"], range(2, 20), random_state=0)
    table = evaluation.compare(table, "partitioner", embedding="dlib", anonymizer="aam")
    return vizualization.loss_and_reidentification(table, "partitioner", "dlib descriptors, AAM surrogates")


def pasted() -> Figure:
    """Sheets of four prints each, as they come in and as `python -m anonymizer` gives them out."""
    faces = orl_people()
    with tempfile.TemporaryDirectory() as place:
        photos, out = Path(place) / "photos", Path(place) / "out"
        photos.mkdir()
        for number in range(3):
            portraits = [faces.images[i] for i in range(4 * number, 4 * number + 4)]
            framed = [np.pad(p, ((16, 16), (16, 16), (0, 0)), constant_values=90) for p in portraits]
            sheet = Image.fromarray(np.hstack(framed))
            sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.LANCZOS).save(
                photos / f"{number}.png"
            )
        subprocess.run(
            [sys.executable, "-m", "anonymizer", photos, out, "--k", "3", "--people", "faces"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        ledger = json.loads((Path(place) / "out-private" / "ledger.json").read_text(encoding="utf-8"))
        file_of = {photo["photo"]: photo["file"] for photo in ledger["photos"]}
        paths = [
            [photos / name for name in sorted(file_of)],
            [out / file_of[name] for name in sorted(file_of)],
        ]
        before, after = (  # two of the three sheets, so that faces are large enough
            [np.asarray(Image.open(path).convert("RGB")) for path in row[:2]] for row in paths
        )
    figure = vizualization.image_grid([before, after])
    figure.set_size_inches(10.2, 10.2 * figure.get_figheight() / figure.get_figwidth())
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "outputs/system_architecture.png": vizualization.system_architecture,
    "outputs/mixing.png": mixing,
    "docs/people_and_surrogates.png": people_and_surrogates,
    "docs/pasted.png": pasted,
    "docs/by_partition.png": by_partition,
}


def main() -> None:
    """Draw the pictures that are named, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures", description="Draw the pictures of README and docs."
    )
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURE", choices=[*FIGURES, []], help=", ".join(FIGURES)
    )
    for name in parser.parse_args().pictures or FIGURES:
        FIGURES[name]().savefig(ROOT / name, dpi=RESOLUTION, metadata={"Software": None})
        print(name)


if __name__ == "__main__":
    main()
