"""The pictures of README and docs: ``python -m docs.figures [PICTURE ...]``, or ``make docs`` for all.

They show the ORL faces (AT&T Laboratories Cambridge). The same code and weights give the same bytes. The curves take
minutes, unless `make experiments` has already measured them. The picture in colour needs photos that are not part of
this repository, ``python -m docs.figures --photos FOLDER``; it shows surrogates only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import anonymizer
import datasets
import embedding
import evaluation
import experiments
import partitioning
import pictures
import vizualization
from docs.architecture import system_architecture
from docs.tables import ATTACKS
from labels import STYLE, label

ROOT = Path(__file__).resolve().parents[1]

#: Dots per inch: readable in print at the width of a page, and small in the repository.
RESOLUTION = 150

# The picture that is drawn from given photos.
_IN_COLOUR = "docs/surrogates_in_colour.png"

GENERATORS = ("pixel", "eigen", "aam", "cnn", "stylegan")


def orl_people() -> datasets.Faces:
    """Return one photo of each of the 40 ORL people."""
    return datasets.load_faces("orl", per_identity=1, random_state=0)


def dlib_clusters(faces: datasets.Faces, k: int, partitioner: str = "ward") -> np.ndarray:
    """Return clusters of dlib descriptors, as in the notebooks: int (n,)."""
    partition = partitioning.PARTITIONERS[partitioner]
    return partition(embedding.embed(faces, "dlib"), k, identities=faces.identities, random_state=0)


def mixing() -> Figure:
    """Draw four clusters of five, and the surrogate that each generator mixes from their members."""
    faces = orl_people()
    labels = dlib_clusters(faces, 5)
    models = [anonymizer.load(name, faces) for name in GENERATORS]
    return draw_mixing(faces, models, [np.flatnonzero(labels == cluster) for cluster in range(4)])


def draw_mixing(
    faces: datasets.Faces, models: Sequence[anonymizer.Surrogates], clusters: Sequence[Sequence[int]]
) -> Figure:
    """Draw one cluster per row: its members at the left, then its surrogate by each model.

    Parameters
    ----------
    faces : Faces
    models : sequence of at least one Surrogates
        Made for `faces`.
    clusters : sequence of at least one sequence of int
        Rows of the members of each cluster.
    """
    widest, gap, room = (
        max(map(len, clusters)),
        0.35,
        0.42,
    )  # people; inches before the models and above the rows
    aspect = float(np.median([image.shape[0] / image.shape[1] for image in faces.images[:10]]))
    face = 1.1 * pictures.FACE_SIZE
    pitch = face * 1.06
    width = (widest + len(models)) * pitch + gap + 0.05
    height = len(clusters) * pitch * aspect + room
    with matplotlib.rc_context({**STYLE, "figure.constrained_layout.use": False, "axes.grid": False}):
        figure = Figure(figsize=(width, height))

        def show(image: np.ndarray, left: float, row: int) -> None:
            bottom = height - room - row * pitch * aspect - face * aspect
            axis = figure.add_axes((left / width, bottom / height, face / width, face * aspect / height))
            axis.axis("off")
            axis.imshow(image, interpolation="lanczos", aspect="auto")

        def write(text: str, centre: float) -> None:
            figure.text(centre / width, 1 - room / 2 / height, text, fontsize=7, ha="center", va="center")

        columns = [(widest + position) * pitch + gap for position in range(len(models))]
        for row, members in enumerate(clusters):
            for position, i in enumerate(members):
                show(faces.images[i], position * pitch, row)
            for model, left in zip(models, columns, strict=True):
                show(model.surrogate(members), left, row)
        write("members of one cluster", widest * pitch / 2)
        for model, left in zip(models, columns, strict=True):
            write(label(model.name).replace(" (", "\n(").replace("), ", ")\n"), left + face / 2)
    return figure


def people_and_surrogates() -> Figure:
    """Draw twelve people, and the surrogate of each at k = 2, 5 and 10."""
    faces = orl_people()
    labels = {k: dlib_clusters(faces, k) for k in (2, 5, 10)}
    return pictures.people_and_surrogates(faces, anonymizer.load("aam", faces), labels, range(12))


def by_partition() -> Figure:
    """Draw information loss and re-identification over k, by partition, as in VisualizingResults.ipynb."""
    names = ["balanced", "ward", "average", "complete", "kmeans_elki", "knn_max", "knn_random", "random"]
    table = evaluation.sweep(orl_people(), ["dlib"], names, ["aam"], range(2, 20), random_state=0)
    table = evaluation.compare(table, "partitioner", embedding="dlib", anonymizer="aam")
    title = "dlib descriptors, AAM surrogates; ORL, 40 people"
    return vizualization.loss_and_reidentification(table, "partitioner", title, interval_of="ward")


def by_generator() -> Figure:
    """Draw information loss and re-identification over k, by generator, as in VisualizingResults.ipynb."""
    table = evaluation.sweep(orl_people(), ["dlib"], ["ward"], GENERATORS, range(2, 20), random_state=0)
    table = evaluation.compare(table, "anonymizer", embedding="dlib", partitioner="ward")
    title = "dlib descriptors, Ward clusters; ORL, 40 people"
    return vizualization.loss_and_reidentification(table, "anonymizer", title, interval_of="aam")


def versions() -> Figure:
    """Draw information loss and re-identification of the versions of AnonFACES at four k."""
    table = experiments.versions_table(orl_people(), [2, 5, 10, 19])
    title = "dlib descriptors, Ward clusters; ORL, 40 people"
    return vizualization.loss_and_reidentification(table, "anonymizer", title, interval_of="stylegan")


def attacked() -> Figure:
    """Draw the attacks on AAM surrogates of Ward clusters at k = 5 beside chance and clear photos."""
    table = evaluation.attack_table(orl_people(), [evaluation.Combination("dlib", "ward", "aam", 5)])
    table = table[table["attack"].isin(ATTACKS) & table["rate"].notna()]
    table = table.assign(attack=table["attack"] + ", " + table["level"])
    return vizualization.attack_intervals(table, title="AAM surrogates of Ward clusters, k = 5")


def pasted() -> Figure:
    """Draw photos with four faces each, before and after `python -m anonymizer`."""
    faces = orl_people()
    with tempfile.TemporaryDirectory() as place:
        photos, out = Path(place) / "photos", Path(place) / "out"
        photos.mkdir()
        for number in range(3):
            portraits = [faces.images[i] for i in range(4 * number, 4 * number + 4)]
            framed = [np.pad(p, ((16, 16), (16, 16), (0, 0)), constant_values=90) for p in portraits]
            photo = Image.fromarray(np.hstack(framed))
            photo = photo.resize((2 * photo.width, 2 * photo.height), Image.Resampling.LANCZOS)
            photo.save(photos / f"{number}.png")
        command = [sys.executable, "-m", "anonymizer", photos, out, "--k", "3", "--people", "faces"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        ledger = json.loads((Path(place) / "out-private" / "ledger.json").read_text(encoding="utf-8"))
        file_of = {photo["photo"]: photo["file"] for photo in ledger["photos"]}
        shown = sorted(file_of)[:2]  # two of the three photos, so that faces are large enough
        paths = [[photos / name for name in shown], [out / file_of[name] for name in shown]]
        rows = [[np.asarray(Image.open(path).convert("RGB")) for path in row] for row in paths]
    figure = pictures.image_grid(rows)
    figure.set_size_inches(10.2, 10.2 * figure.get_figheight() / figure.get_figwidth())
    return figure


def surrogates_in_colour(folder: str) -> Figure:
    """Draw surrogates of clusters of 5 and of 10 people, one photo of each in a folder: nobody's own face."""
    faces = datasets.load_faces(folder, people="photos")
    model, rows = anonymizer.load("aam", faces), []
    for k in (5, 10):
        labels = dlib_clusters(faces, k, "balanced")
        # Show clusters that are spread over the whole set, in a fixed order.
        chosen = np.linspace(0, labels.max(), 12).astype(int)
        rows.append([model.surrogate(np.flatnonzero(labels == cluster)) for cluster in chosen])
    return pictures.image_grid(rows, row_labels=["k = 5", "k = 10"])


FIGURES: dict[str, Callable[[], Figure]] = {
    "outputs/system_architecture.png": system_architecture,
    "outputs/mixing.png": mixing,
    "docs/people_and_surrogates.png": people_and_surrogates,
    "docs/pasted.png": pasted,
    "docs/by_partition.png": by_partition,
    "docs/by_generator.png": by_generator,
    "docs/versions.png": versions,
    "docs/attacks.png": attacked,
}


def main() -> None:
    """Draw the pictures named on the command line, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.figures", description="Draw the pictures of README and docs."
    )
    parser.add_argument(
        "pictures", nargs="*", metavar="PICTURE", choices=[*FIGURES, []], help=", ".join(FIGURES)
    )
    parser.add_argument(
        "--photos", help=f"draw {_IN_COLOUR} from the photos in this folder, and no other picture"
    )
    options = parser.parse_args()
    if options.photos:
        save_figure(surrogates_in_colour(options.photos), _IN_COLOUR)
        return
    for name in options.pictures or FIGURES:
        save_figure(FIGURES[name](), name)


def save_figure(figure: Figure, name: str) -> None:
    """Write a picture of the docs, and print its name."""
    figure.savefig(ROOT / name, dpi=RESOLUTION, metadata={"Software": None})
    print(name)


if __name__ == "__main__":
    main()
