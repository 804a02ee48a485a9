"""Quality of the faces that a small StyleGAN network and its encoder draw, by dlib descriptors.

    python benchmarks/stylegan_weights.py                      # the bundled network on the ORL faces
    python benchmarks/stylegan_weights.py --network stylegan/cache/NAME.npz --source FOLDER

It prints how well photos are reconstructed from their codes, how mean codes of k = 2 to 10 people compare with the
AAM's surrogates, and how far random people are from those of the training photos. Codes are those kept beside the
network as NAME-codes.npz, or else those of its encoder.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import anonymizer
import datasets
import detection
import embedding
import stylegan
import utils
from datasets import Faces
from stylegan.augmentation import SurrogateModel, prepare_squares, to_signed
from stylegan.encoder import encoder_path, load_encoder
from stylegan.network import StyleNetwork, load_npz, to_uint8
from stylegan.refining import codes_path
from training.training_set import TrainingSet
from utility.appearance import sharpness

# Number of surrogates per k, and of people drawn from random z.
_SURROGATES, _SAMPLES = 20, 100


def draw(network: StyleNetwork, codes: np.ndarray) -> np.ndarray:
    """Draw codes (n, num_layers, w_dim), and crop the padding: uint8 (n, h, w, 3)."""
    top, left, height, width = network.description["frame"]
    return to_uint8(network.synthesis(codes))[:, top : top + height, left : left + width]


def measure_reconstructions(
    network: StyleNetwork, codes: np.ndarray, photos: TrainingSet, faces: Faces
) -> dict[str, float]:
    """Compare photos with images drawn from their codes, by dlib's descriptor.

    Parameters
    ----------
    network : StyleNetwork
    codes : ndarray, shape (n, num_layers, w_dim)
        Codes of the photos.
    photos : TrainingSet
        The photos of `faces`, in their order.
    faces : Faces

    Returns
    -------
    dict
        For ``held_out`` and ``training`` photos: ``..._found``, the share of images with a face; ``..._distance``, the
        mean distance of these from the photo; ``..._right``, the share of images whose nearest held-out photo, other
        than the photo itself, shows the same person; ``..._people_right`` and ``..._people_wholly_right``, the number
        of people for whom most, or all, images are right.
    """
    descriptors = embedding.embed(faces, "dlib")
    images = list(draw(network, codes))
    drawn, found = embedding.embed(images, "dlib"), detection.detect(images).found
    own = np.linalg.norm(drawn - descriptors, axis=1)
    gallery = np.flatnonzero(photos.held_out)
    distances = np.linalg.norm(drawn[:, None] - descriptors[None, gallery], axis=2)  # (n, gallery)
    distances[np.arange(len(faces))[:, None] == gallery] = np.inf  # never the photo itself
    right = (photos.people[gallery[distances.argmin(axis=1)]] == photos.people) & found
    figures = {}
    for name, rows in (("held_out", photos.held_out), ("training", ~photos.held_out)):
        people = np.unique(photos.people)
        shares = np.array([right[rows & (photos.people == person)].mean() for person in people])
        figures |= {
            f"{name}_found": float(found[rows].mean()),
            f"{name}_distance": float(own[rows & found].mean()),
            f"{name}_right": float(right[rows].mean()),
            f"{name}_people_right": int((shares > 0.5).sum()),
            f"{name}_people_wholly_right": int((shares == 1).sum()),
        }
    return figures


def _random_groups(
    photos: TrainingSet, k: int, count: int, random: np.random.RandomState
) -> list[np.ndarray]:
    """Rows of k random people, one photo each."""
    groups = []
    for _ in range(count):
        people = random.choice(len(photos.identities), k, replace=False)
        groups.append(np.array([random.choice(np.flatnonzero(photos.people == person)) for person in people]))
    return groups


def measure_surrogates(
    network: StyleNetwork,
    codes: np.ndarray,
    photos: TrainingSet,
    faces: Faces,
    reference: SurrogateModel,
    k_values: Iterable[int] = range(2, 11),
    count: int = _SURROGATES,
    random_state=0,
) -> dict[int, dict[str, float]]:
    """Draw mean codes of random groups of k people, and another generator's surrogates of the same groups.

    Parameters
    ----------
    network, codes, photos, faces
        As for `measure_reconstructions`.
    reference : SurrogateModel
        The generator to compare with, fitted to `faces`.
    k_values : iterable of int, default 2 to 10
    count : int, default 20
        Number of groups for each k.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    dict of int to dict
        For each k: ``found``, the share of images with a face; ``sharpness`` and ``reference_sharpness``;
        ``distance`` and ``reference_distance``, mean distances of dlib's descriptor from the members' photos.
    """
    random = utils.check_random_state(random_state)
    descriptors = embedding.embed(faces, "dlib")
    figures = {}
    for k in utils.progress(list(k_values), "measuring surrogates"):
        groups = _random_groups(photos, k, count, random)
        ours = list(draw(network, np.stack([codes[rows].mean(axis=0) for rows in groups])))
        theirs = [reference.surrogate(rows) for rows in groups]
        figures[k] = {"found": float(detection.detect(ours).found.mean())}
        for name, images in (("", ours), ("reference_", theirs)):
            figures[k][f"{name}sharpness"] = float(
                np.mean([sharpness(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in images])
            )
            drawn = embedding.embed(images, "dlib")
            distances = [
                np.linalg.norm(descriptors[rows] - one, axis=1).mean()
                for rows, one in zip(groups, drawn, strict=True)
            ]
            figures[k][f"{name}distance"] = float(np.mean(distances))
    return figures


def measure_samples(
    network: StyleNetwork,
    photos: TrainingSet,
    faces: Faces,
    count: int = _SAMPLES,
    random_state=0,
    truncation_psi: float = 0.7,
) -> dict[str, float]:
    """Draw random people and look for the training people among them.

    Returns
    -------
    dict
        ``found``, the share of samples with a face; ``nearest`` and ``nearest_mean``, the smallest and the mean
        distance of samples from their nearest training photo; ``between_samples``, the mean distance of two samples;
        ``same_person`` and ``same_person_largest``, mean and 95th percentile of the distances between photos of one
        person; ``different_people`` and ``different_people_smallest``, mean and minimum between those of two people.
    """
    codes = network.random_codes(count, random_state=random_state, truncation_psi=truncation_psi)
    images = list(draw(network, codes))
    found = detection.detect(images).found
    drawn, descriptors = embedding.embed(images, "dlib")[found], embedding.embed(faces, "dlib")
    training = descriptors[~photos.held_out]
    nearest = np.linalg.norm(drawn[:, None] - training[None], axis=2).min(axis=1)
    among = np.linalg.norm(drawn[:, None] - drawn[None], axis=2)[np.triu_indices(len(drawn), 1)]
    between = np.linalg.norm(descriptors[:, None] - descriptors[None], axis=2)
    same = photos.people[:, None] == photos.people
    own = between[same & ~np.eye(len(faces), dtype=bool)]
    return {
        "found": float(found.mean()),
        "nearest": float(nearest.min()),
        "nearest_mean": float(nearest.mean()),
        "between_samples": float(among.mean()),
        "same_person": float(own.mean()),
        "same_person_largest": float(np.percentile(own, 95)),
        "different_people": float(between[~same].mean()),
        "different_people_smallest": float(between[~same].min()),
    }


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--network", type=Path, default=stylegan.BUNDLED)
    options.add_argument("--source", default="orl")
    options.add_argument("--held-out", type=int, default=2, help="as in the training (2)")
    options.add_argument("--seed", type=int, default=0, help="as in the training (0)")
    options = options.parse_args()

    network, faces = load_npz(options.network), datasets.load_faces(options.source)
    photos = prepare_squares(faces, network.resolution, options.held_out, options.seed)
    if codes_path(options.network).is_file():
        codes = utils.load_arrays(codes_path(options.network))["codes"]
    else:
        codes = load_encoder(encoder_path(options.network)).encode(to_signed(photos.pictures))
    aam = anonymizer.load("aam", faces)
    figures = {
        "reconstructions": measure_reconstructions(network, codes, photos, faces),
        "surrogates": measure_surrogates(network, codes, photos, faces, aam, random_state=options.seed),
        "samples": measure_samples(network, photos, faces, random_state=options.seed),
    }
    for name, values in figures.items():
        print(name, *(f"  {key}: {value}" for key, value in values.items()), sep="\n")


if __name__ == "__main__":
    main()
