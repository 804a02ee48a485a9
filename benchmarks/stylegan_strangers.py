"""Surrogates of people that the network never saw, beside the AAM's.

    python benchmarks/stylegan_strangers.py FOLDER                        # one sub-folder per person
    python benchmarks/stylegan_strangers.py FOLDER --people photos --apart 60 --seed 0
                                                  # only the people that `stylegan train --mixtures` held out

One photo of each person, clusters of similar people (Ward, dlib). Prints for each k: the share of surrogates with a
face; mean distance to the members by dlib's descriptor and, if it is installed, by that of faceres; difference of the
skin tone from the members' mean in degrees; how often the sex and the age group that most members seem to have are
kept; sharpness of the face, as drawn and reduced to a height of 128 pixels. For more than 50 people also how near the
people that the network draws from random z are to single people.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import anonymizer
import datasets
import detection
import embedding
import recognisers
import stylegan
import utils
from datasets import Faces
from releases import Combination, partition_for
from stylegan.mixtures import people_apart
from utility.appearance import FaceReadings, sharpness
from utility.groups import _age_groups

_SIDE = 128


def chosen_faces(options: argparse.Namespace) -> Faces:
    """One photo of each person; only people held out from training, or only the first few, if asked for."""
    faces = datasets.load_faces(options.folder, people=options.people, per_identity=1)
    if options.apart:
        faces = faces.select(np.isin(faces.identities, people_apart(faces, options.apart, options.seed)))
    faces = faces.select(detection.detect(faces).found)
    return faces.select(np.arange(min(options.most or len(faces), len(faces))))


def majority(values: np.ndarray) -> object:
    """The value of more than half of the members, or None."""
    found, counts = np.unique(values, return_counts=True)
    return found[counts.argmax()] if 2 * counts.max() > len(values) else None


def mean_distance(
    recogniser: str, faces: Faces, drawn: Faces, clusters: list[np.ndarray], found: np.ndarray
) -> float:
    """Mean distance of the surrogates that have a face to their members."""
    describe = recognisers.prepare(recogniser, faces)
    known, own = describe(faces), describe(drawn)
    return float(np.mean([np.linalg.norm(known[clusters[i]] - own[i], axis=1).mean() for i in found]))


def measure(faces: Faces, images: list[np.ndarray], clusters: list[np.ndarray], photos: FaceReadings) -> dict:
    """Compare the surrogate of each cluster with its members."""
    drawn, small = FaceReadings(images), FaceReadings([_on_tile(image) for image in images])
    found = np.flatnonzero(drawn.found)
    tones, kept = [], {"sex": [], "age": []}
    readings = {
        "sex": (drawn.sexes, photos.sexes),
        "age": (_age_groups(drawn.ages), _age_groups(photos.ages)),
    }
    for i in found:
        members = clusters[i]
        tones.append(abs(drawn.tones[i] - np.nanmean(photos.tones[members])))
        for name, (ours, theirs) in readings.items():
            wanted = majority(theirs[members])
            if wanted is not None:
                kept[name].append(ours[i] == wanted)
    return {
        "found": drawn.found.mean(),
        "distance": mean_distance("dlib", faces, drawn.faces, clusters, found),
        "faceres": mean_distance("faceres", faces, drawn.faces, clusters, found)
        if "faceres" in recognisers.available()
        else np.nan,
        "tone": np.nanmean(tones),
        "sex": np.mean(kept["sex"]),
        "age": np.mean(kept["age"]),
        "sharpness": np.mean([sharpness(crop) for crop in drawn.crops[found]]),
        "at 128": np.mean([sharpness(crop) for crop in small.crops[small.found]]),
    }


def nearest_people(network: Path, faces: Faces, number: int, seed: int) -> dict[str, float]:
    """Distance of random people to the nearest of `faces`, and the same of the faces among each other."""
    model = stylegan.load_network(network)
    codes = model.random_codes(number, utils.check_random_state(seed))
    images = list(stylegan.to_uint8(model.synthesis(codes)))
    found = detection.detect(images).found
    drawn, known = embedding.embed(images, "dlib")[found], embedding.embed(faces, "dlib")
    nearest = np.linalg.norm(drawn[:, None] - known, axis=2).min(axis=1)
    among = np.linalg.norm(known[:, None] - known, axis=2)
    strangers = among[~np.eye(len(known), dtype=bool)]
    return {
        "random people with a face": found.mean(),
        "their distance to the nearest person": nearest.mean(),
        "the least": nearest.min(),
        "distance of strangers": strangers.mean(),
        "5 % of strangers are nearer than": np.quantile(strangers, 0.05),
        "people to their nearest stranger": (among + 9 * np.eye(len(known))).min(axis=1).mean(),
    }


def own_distances(network: Path, faces: Faces) -> np.ndarray:
    """Distance from each photo to what is drawn from its own code, which must not tell who was mixed in training."""
    model = anonymizer.load("stylegan", faces, network=network)
    drawn = embedding.embed([model.reconstruct(i) for i in range(len(faces))], "dlib")
    return np.linalg.norm(drawn - embedding.embed(faces, "dlib"), axis=1)


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("folder")
    datasets.add_people_option(options)
    options.add_argument("--network", type=Path, default=stylegan.COLOUR)
    options.add_argument(
        "--apart", type=int, default=0, help="measure this many people that were held out (all)"
    )
    options.add_argument("--most", type=int, help="measure at most this many people")
    options.add_argument("--k", type=int, nargs="+", default=[2, 5, 10])
    options.add_argument("--seed", type=int, default=0, help="as in the training (0)")
    options.add_argument("--sheet", type=Path, help="folder for pictures of the surrogates")
    options = options.parse_args()

    faces = chosen_faces(options)
    photos, rows = FaceReadings(faces), []
    models = {
        "aam": anonymizer.load("aam", faces),
        "stylegan": anonymizer.load("stylegan", faces, network=options.network),
    }
    for k in options.k:
        labels = partition_for(faces, Combination("dlib", "ward", "aam", k), 0)
        clusters = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        sheet = []
        for name, model in models.items():
            images = model.surrogates(clusters)
            rows.append(
                {"k": k, "method": name, "n": len(clusters), **measure(faces, images, clusters, photos)}
            )
            sheet.append(np.concatenate([_on_tile(image) for image in images[:12]], axis=1))
        if options.sheet:
            Image.fromarray(np.concatenate(sheet)).save(
                options.sheet / f"{Path(options.folder).name}-{len(faces)}-{k}.png"
            )
    print(len(faces), "people")
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f"))
    if len(faces) > 50:
        everybody = datasets.load_faces(options.folder, people=options.people, per_identity=1)
        figures = nearest_people(options.network, everybody, 100, 0)
        if options.apart:
            known = everybody.select(~np.isin(everybody.identities, faces.identities)).select(
                slice(len(faces))
            )
            for name, part in (("mixed in training", known), ("held out", faces)):
                figures[f"photo to its own image, {name}"] = own_distances(options.network, part).mean()
        print(*(f"{name}: {value:.3f}" for name, value in figures.items()), sep="\n")


def _on_tile(image: np.ndarray) -> np.ndarray:
    width = round(_SIDE * image.shape[1] / image.shape[0])
    return np.asarray(Image.fromarray(image).resize((width, _SIDE), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    main()
