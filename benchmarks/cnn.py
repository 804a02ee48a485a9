"""Quality of the faces that the up-convolutional network draws, by dlib descriptors, and its speed.

    python benchmarks/cnn.py                                   # the bundled weights on the ORL faces
    python benchmarks/cnn.py --weights CNN/output/NAME.keras --source FOLDER --figures FOLDER

It prints these figures and writes them beside the weights as NAME.measures.json: how many people's drawn faces are
nearest to one of their own held-out photos; distances of reconstructions to the photo itself and to the person's
held-out photos; on how many averages of k = 2 to 10 people the detector finds a face; images a second in batches of
16. With --figures it also saves sheets of people and of averages.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # the suite's modules, not this folder

# Random averages for each k.
AVERAGES = 40


def distances(a, b):
    """Euclidean distances of rows: (n, d), (m, d) -> (n, m)."""
    return np.linalg.norm(a[:, None] - b[None], axis=2)


def measure_people(model, faces, found):
    """Compare each person at nuisance 0 and each photo's reconstruction with the photos held out of training."""
    import detection
    import embedding

    described = embedding.embed(faces, "dlib")
    apart = np.isin(faces.names, model.model.held_out)
    own = faces.identities[apart]

    neutral = [model._draw(code) for code in np.eye(len(model.model.identities), dtype=np.float32)]
    drawn = embedding.embed(neutral, "dlib")
    to_apart = distances(drawn, described[apart])
    names = np.array(model.model.identities)
    found["people"] = len(names)
    found["neutral_nearest_to_own"] = int((own[to_apart.argmin(axis=1)] == names).sum())
    found["neutral_to_held_out"] = float(to_apart[names[:, None] == own[None]].mean())
    found["neutral_detected"] = int(detection.detect(neutral).found.sum())

    for label, rows in (("training", np.flatnonzero(~apart)), ("held_out", np.flatnonzero(apart))):
        pictures = [model.reconstruct(i) for i in rows]
        drawn = embedding.embed(pictures, "dlib")
        to_apart = distances(drawn, described[apart])
        if label == "held_out":
            to_apart[np.arange(len(rows)), np.arange(len(rows))] = np.inf  # not the photo itself
        same = faces.identities[rows][:, None] == own[None]
        nearest = own[to_apart.argmin(axis=1)] == faces.identities[rows]
        own_distance = np.linalg.norm(drawn - described[rows], axis=1)
        found[f"{label}_reconstructions"] = len(rows)
        found[f"{label}_to_photo"] = float(own_distance.mean())
        found[f"{label}_to_held_out"] = float(to_apart[same & np.isfinite(to_apart)].mean())
        found[f"{label}_nearest_to_own_share"] = float(nearest.mean())
        majority = [nearest[faces.identities[rows] == name].mean() > 0.5 for name in names]
        found[f"{label}_people_mostly_nearest"] = int(np.sum(majority))
        found[f"{label}_detected_share"] = float(detection.detect(pictures).found.mean())
    real = distances(described[~apart], described[apart])
    same = faces.identities[~apart][:, None] == own[None]
    found["photos_to_held_out"] = float(real[same].mean())
    return neutral


def measure_averages(model, found):
    """Draw averages of k random people at nuisance 0."""
    import detection
    import embedding

    random = np.random.default_rng(0)
    n = len(model.model.identities)
    shown = []
    for k in range(2, min(10, n) + 1):
        codes = np.zeros((AVERAGES, n), dtype=np.float32)
        for code in codes:
            code[random.choice(n, k, replace=False)] = 1 / k
        pictures = [model._draw(code) for code in codes]
        found[f"averages_of_{k}_detected"] = float(detection.detect(pictures).found.mean())
        between = distances(*[embedding.embed(pictures, "dlib")] * 2)
        found[f"averages_of_{k}_apart"] = float(between[np.triu_indices(len(pictures), 1)].mean())
        shown.append(pictures[:10])
    return shown


def measure_speed(model, found):
    """Measure images a second in batches of 16."""
    codes = np.random.default_rng(0).dirichlet(np.ones(len(model.model.identities)), 16)
    model.model.generate(codes)
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(20):
        model.model.generate(codes)
    found["images_per_second"] = round(320 / (time.perf_counter() - started), 1)
    found["cpu_ms_per_image"] = round(1000 * (time.process_time() - cpu) / 320, 2)


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--weights")
    options.add_argument("--source", default="orl")
    options.add_argument("--figures", help="folder for sheets of people and averages")
    options = options.parse_args()

    import CNN
    import datasets
    import vizualization
    from anonymizer.cnn import UpConvolution

    weights = Path(options.weights or CNN.BUNDLED)
    faces = datasets.load_faces(options.source)
    model = UpConvolution(faces, weights=weights)
    found = {
        "images_seen": model.model.training.get("images_seen"),
        "megabytes": weights.stat().st_size / 1e6,
    }
    neutral = measure_people(model, faces, found)
    averages = measure_averages(model, found)
    measure_speed(model, found)
    found = {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}
    for name, value in found.items():
        print(f"{name:36} {value}")
    weights.with_suffix(".measures.json").write_text(json.dumps(found, indent=1) + "\n")
    if options.figures:
        folder = Path(options.figures)
        vizualization.contact_sheet(neutral).savefig(folder / f"{weights.stem}.people.png", dpi=100)
        labels = [f"k = {k}" for k in range(2, 2 + len(averages))]
        vizualization.image_grid(averages, row_labels=labels).savefig(
            folder / f"{weights.stem}.averages.png", dpi=100
        )


if __name__ == "__main__":
    main()
