"""Measure the attackers' recognisers on clear ORL photos: ``python benchmarks/recognisers.py``.

Rank-1: one photo of each person is searched among the other 360, to which the fitted recognisers are fitted. EER (equal
error rate): over all pairs of photos of 20 people; the fitted ones are fitted to the other 20; mean and range of 20
random halves.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import attacks
import datasets
import recognisers
import utils

N_HALVES = 20


def main():
    """Print the table."""
    everybody = datasets.load_faces("orl")
    faces = datasets.load_faces("orl", per_identity=1)
    random = utils.check_random_state(0)
    halves = [random.permutation(everybody.people)[:20] for _ in range(N_HALVES)]
    print(f"{'recogniser':12} {'rank-1':>7} {'EER':>7} {'least':>7} {'most':>7}")
    for name in ["dlib", *recognisers.available()]:
        describe = recognisers.prepare(name, faces.others)
        gallery = attacks.Gallery.of(faces, describe)
        clear = attacks.DescribedRelease.unchanged(describe(faces), faces.identities)
        rank1 = attacks.identification(clear, gallery, ranks=[1])[0].rate
        rates = [_equal_error_rate(name, everybody, people) for people in halves]
        print(f"{name:12} {rank1:7.3f} {np.mean(rates):7.4f} {min(rates):7.4f} {max(rates):7.4f}", flush=True)


def _equal_error_rate(name, everybody, people):
    fitted_on = np.isin(everybody.identities, people)
    photos = everybody.select(~fitted_on)
    descriptors = recognisers.prepare(name, everybody.select(fitted_on))(photos)
    first, second = np.triu_indices(len(photos), k=1)
    distance = attacks.distances(descriptors, descriptors)[first, second]
    alike = photos.identities[first] == photos.identities[second]
    return attacks.roc(distance[alike], distance[~alike]).equal_error_rate


if __name__ == "__main__":
    main()
