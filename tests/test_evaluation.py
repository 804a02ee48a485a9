"""Measures worked out by hand and by brute force; the sweep, its baselines and its resumption."""

import inspect
import itertools
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import anonymizer
import attacks
import datasets
import detection
import embedding
import evaluation
import experiments
import jobs
import measures
import partitioning
import releases
import storage
from attacks import DescribedRelease, Gallery
from commands import VERSION
from datasets import Faces

SHARES = [
    "re_identification",
    "re_identification_gallery",
    "rank1_cluster",
    "rank1_person",
    "stranger_share",
]
CONTRACT = [
    "embedding",
    "partitioner",
    "anonymizer",
    "k",
    "n_people",
    "information_loss",
    "re_identification",
    "rank1_cluster",
    "rank1_person",
    "chance_cluster",
    "chance_person",
    "stranger_share",
    "detection_rate",
    "n_failed",
    "seed",
]


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory):
    """Everything is computed here and now, whatever lies in the project's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANONFACES_QUIET", "1")
        patch.setenv("ANONFACES_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(jobs, "_PARALLEL_JOBS", 10**6)  # starting processes takes seconds
        yield


@pytest.fixture
def forget(monkeypatch):
    """Call it to make sweeps start from nothing."""
    fresh = itertools.count()

    def start_anew():
        name = f"test-{next(fresh)}"
        monkeypatch.setattr(releases, "_code_key", lambda: name)
        monkeypatch.setattr(measures, "_STORE", f"measures-{name}-{os.getpid()}")

    monkeypatch.setattr(releases, "_code_key", lambda: "test")
    evaluation.utils.CacheStore("sweep-test").path.unlink(missing_ok=True)
    return start_anew


@pytest.fixture(scope="module")
def tiny(orl):
    """One photo of each of 12 people, no others."""
    return orl.select(slice(0, 120, 10))


@pytest.fixture(scope="module")
def faces(orl):
    """One photo of each of 12 people, two more of each in the gallery."""
    rows = [10 * person + photo for person in range(12) for photo in range(3)]
    return orl.select(rows).split(1, random_state=0)


@pytest.fixture(scope="module")
def pixel(faces):
    return anonymizer.load("pixel", faces)


@pytest.fixture(scope="module")
def labels():
    return np.arange(12) % 4


class Noise(anonymizer.Surrogates):
    """Draws no face at all."""

    name = "noise"

    def _mix(self, members, weights):
        return np.random.default_rng(int(members.sum())).integers(0, 256, (112, 92, 3), dtype=np.uint8)


def line(*values):
    """Descriptors of one number each: (n, 1)."""
    return np.array(values, dtype=float)[:, None]


def people(text):
    return np.array(list(text))


class Images(NamedTuple):
    """A release without the names of its people."""

    descriptors: np.ndarray
    found: np.ndarray
    labels: np.ndarray


class Photos(NamedTuple):
    """A gallery that is not checked."""

    descriptors: np.ndarray
    identities: np.ndarray
    kind: str


def same_photos(descriptors, identities):
    return Photos(descriptors, identities, "same photos")


def release(values, labels, found=None):
    found = np.ones(len(values), bool) if found is None else np.array(found)
    return Images(line(*values), found, np.array(labels))


def measure(images, descriptors, identities, photos, threshold=attacks.PAPER_THRESHOLD):
    return evaluation.measure(DescribedRelease(*images, identities), descriptors, Gallery(*photos), threshold)


# The measures, by hand


FOUR = line(0, 1, 10, 12), people("abcd")


def test_two_clusters_of_two_by_hand():
    scores = measure(release([0.3, 12], [0, 0, 1, 1]), *FOUR, same_photos(*FOUR))
    assert scores["information_loss"] == pytest.approx((0.3 + 0.7 + 2 + 0) / 4)
    assert scores["re_identification"] == 2 / 4  # a at 0.3 and d at 0
    assert scores["information_loss_gallery"] == pytest.approx(scores["information_loss"])
    assert scores["re_identification_gallery"] == 2 / 4
    assert scores["rank1_cluster"] == 1  # a is nearest to the first, d to the second
    assert scores["rank1_person"] == 2 / 4
    assert scores["chance_cluster"] == 2 / 4
    assert scores["chance_person"] == 1 / 4
    assert scores["stranger_share"] == 0
    assert scores["detection_rate"] == 1 and scores["n_failed"] == 0
    for name in ("information_loss", "re_identification", "rank1_cluster", "rank1_person"):
        assert scores[f"{name}_worst"] == pytest.approx(scores[name])


def test_image_that_leads_to_strangers_by_hand():
    """Both images lie at c: wrong for a and b, and c and d see a stranger's image, too."""
    scores = measure(release([10, 10], [0, 0, 1, 1]), *FOUR, same_photos(*FOUR))
    assert scores["rank1_cluster"] == 2 / 4
    assert scores["rank1_person"] == 1 / 4
    assert scores["stranger_share"] == 1 / 4  # of the pairs (0, c), (0, d), (1, a), (1, b), only the first
    assert scores["information_loss"] == pytest.approx((10 + 9 + 0 + 2) / 4)


def test_threshold_is_not_under_itself():
    at = measure(release([0.5], [0]), line(0), people("a"), same_photos(line(0), people("a")), threshold=0.5)
    assert at["re_identification"] == 0
    above = measure(
        release([0.5], [0]), line(0), people("a"), same_photos(line(0), people("a")), threshold=0.51
    )
    assert above["re_identification"] == 1


def test_gallery_of_other_photos_by_hand():
    """Cluster 0: a, b, e. Cluster 1: c, d. The gallery has two photos of a and one of everybody else."""
    descriptors, identities = line(0, 1, 10, 12, 2), people("abcde")
    gallery = Photos(line(0.1, 0.5, 9, 11, 12.5, 3), people("aabcde"), "other photos")
    scores = measure(release([0.3, 9.4], [0, 0, 1, 1, 0]), descriptors, identities, gallery)
    assert scores["information_loss"] == pytest.approx((0.3 + 0.7 + 0.6 + 2.6 + 1.7) / 5)
    # image 0 to a, a, b, e: 0.2, 0.2, 8.7, 2.7; image 1 to c, d: 1.6, 3.1
    assert scores["information_loss_gallery"] == pytest.approx((0.2 + 0.2 + 8.7 + 2.7 + 1.6 + 3.1) / 6)
    assert scores["re_identification_gallery"] == pytest.approx(2 / 6)
    assert scores["rank1_cluster"] == pytest.approx(3 / 5)  # image 1 lies nearest to b
    assert scores["rank1_person"] == pytest.approx(1 / 5)
    # whoever names one of the five people blindly is right with 3 of 5 for cluster 0, with 2 of 5 for cluster 1
    assert scores["chance_cluster"] == pytest.approx((3 * 3 / 5 + 2 * 2 / 5) / 5)
    assert scores["chance_person"] == pytest.approx(1 / 5)
    # image 0 to c, d: 10.7, 12.2; image 1 to a, a, b, e: 9.3, 8.9, 0.4, 6.4
    assert scores["stranger_share"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("lost", [12.0, 1e9])
def test_image_without_a_face_by_hand(lost):
    """What is described where no face was found must not count, whatever it is."""
    scores = measure(release([0.3, lost], [0, 0, 1, 1], [True, False]), *FOUR, same_photos(*FOUR))
    assert scores["n_failed"] == 1 and scores["detection_rate"] == 1 / 2
    assert scores["information_loss"] == pytest.approx((0.3 + 0.7) / 2)
    assert scores["information_loss_worst"] == pytest.approx(
        (0.3 + 0.7 + 12 + 12) / 4
    )  # a and d are 12 apart
    assert scores["re_identification"] == 1 / 2
    assert scores["re_identification_worst"] == 3 / 4
    assert scores["information_loss_gallery"] == pytest.approx((0.3 + 0.7) / 2)
    assert scores["rank1_cluster"] == 1 and scores["rank1_cluster_worst"] == 1
    assert scores["rank1_person"] == 1 / 2 and scores["rank1_person_worst"] == 2 / 4
    assert scores["chance_cluster"] == 2 / 4  # what a blind pick gives does not depend on what was drawn
    assert scores["stranger_share"] == 0


def test_all_images_without_a_face():
    scores = measure(release([0.3, 12], [0, 0, 1, 1], [False, False]), *FOUR, same_photos(*FOUR))
    plain = ["information_loss", "information_loss_gallery", *SHARES]
    assert all(np.isnan(scores[name]) for name in plain)
    assert scores["information_loss_worst"] == 12
    assert scores["re_identification_worst"] == scores["rank1_cluster_worst"] == 1
    assert scores["rank1_person_worst"] == 1 / 2
    assert scores["detection_rate"] == 0 and scores["n_failed"] == 2


def test_one_cluster_of_all_has_no_strangers():
    scores = measure(release([3], [0, 0, 0, 0]), *FOUR, same_photos(*FOUR))
    assert np.isnan(scores["stranger_share"])
    assert scores["rank1_cluster"] == scores["chance_cluster"] == 1
    assert scores["rank1_person"] == scores["chance_person"] == 1 / 4


def test_people_count_once_however_many_photos_they_have():
    """Image 0 stands for three photos of a and one of b, image 1 for c and d."""
    descriptors, identities = line(0, 0, 0, 4, 10, 12), people("aaabcd")
    scores = measure(
        release([1, 1.5], [0, 0, 0, 0, 1, 1]), descriptors, identities, same_photos(descriptors, identities)
    )
    assert scores["information_loss"] == pytest.approx((1 + 1 + 1 + 3 + 8.5 + 10.5) / 6)  # counts photos
    assert scores["rank1_cluster"] == 2 / 4  # counts people: image 0 leads to a, image 1 does, too
    assert scores["rank1_person"] == 1 / 4
    assert scores["chance_cluster"] == pytest.approx(2 / 4)


def test_one_image_for_each_photo():
    """A filter: each photo has its own image, and people have several."""
    descriptors, identities = line(0, 1, 10, 11), people("aabb")
    scores = measure(
        release([0, 9, 10, 2], [0, 1, 2, 3]), descriptors, identities, same_photos(descriptors, identities)
    )
    assert scores["rank1_person"] == scores["rank1_cluster"] == 2 / 4
    assert scores["chance_person"] == scores["chance_cluster"] == 2 / 4


def test_plane_by_hand():
    descriptors, identities = np.array([[0.0, 0.0], [3.0, 4.0]]), people("ab")
    mixed = Images(np.array([[0.0, 0.0]]), np.array([True]), np.array([0, 0]))
    scores = measure(mixed, descriptors, identities, same_photos(descriptors, identities))
    assert scores["information_loss"] == 2.5


# The measures, by brute force


def measure_by_definition(rel, descriptors, identities, gallery, threshold):
    """The same numbers with nothing but loops over photos, people and gallery."""

    def distance(a, b):
        return float(np.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True))))

    def mean(values):
        return sum(values) / len(values) if values else float("nan")

    rows = range(len(descriptors))
    own = [distance(rel.descriptors[rel.labels[i]], descriptors[i]) for i in rows]
    shown = [bool(rel.found[rel.labels[i]]) for i in rows]
    worst = max(distance(a, b) for a in descriptors for b in descriptors)
    everybody = set(gallery.identities)
    cases = sorted(
        {(int(rel.labels[i]), identities[i]) for i in rows}
    )  # people, once for each image of theirs
    members = {image: {who for other, who in cases if other == image} for image, _ in cases}
    first, known, strange = {}, [], []
    for image in members:
        apart = [distance(rel.descriptors[image], g) for g in gallery.descriptors]
        first[image] = gallery.identities[apart.index(min(apart))]
        for who, d in zip(gallery.identities, apart, strict=True):
            if rel.found[image]:
                (known if who in members[image] else strange).append(d)
    ok = [(image, who) for image, who in cases if rel.found[image]]
    in_cluster = {case: first[case[0]] in members[case[0]] for case in cases}
    is_person = {case: first[case[0]] == case[1] for case in cases}
    failed_images = [image for image in members if not rel.found[image]]
    person_hits = sum(is_person[case] for case in ok)
    return {
        "information_loss": mean([d for d, s in zip(own, shown, strict=True) if s]),
        "information_loss_worst": mean([d if s else worst for d, s in zip(own, shown, strict=True)]),
        "re_identification": mean([d < threshold for d, s in zip(own, shown, strict=True) if s]),
        "re_identification_worst": mean([d < threshold or not s for d, s in zip(own, shown, strict=True)]),
        "information_loss_gallery": mean(known),
        "re_identification_gallery": mean([d < threshold for d in known]),
        "rank1_cluster": mean([in_cluster[case] for case in ok]),
        "rank1_cluster_worst": mean([in_cluster[case] or not rel.found[case[0]] for case in cases]),
        "chance_cluster": mean([len(members[image]) / len(everybody) for image, _ in cases]),
        "rank1_person": mean([is_person[case] for case in ok]),
        # an image without a face leads to one of those who share it
        "rank1_person_worst": (person_hits + len(failed_images)) / len(cases),
        "chance_person": 1 / len(everybody),
        "stranger_share": mean([d < threshold for d in strange]),
        "detection_rate": mean([bool(rel.found[image]) for image in members]),
        "n_failed": len(failed_images),
    }


@st.composite
def situations(draw):
    """A release of random descriptors, with several photos a person and a gallery of any size."""
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    n_people, n_images = draw(st.integers(2, 7)), draw(st.integers(1, 4))
    names = np.array([f"p{i}" for i in range(n_people)])
    identities = np.concatenate([names, random.choice(names, random.integers(0, 5))])
    if draw(st.booleans()):  # a partition of people
        cluster = np.concatenate([np.arange(n_people) % n_images, random.integers(0, n_images, 0)])
        labels = cluster[np.searchsorted(names, identities)]
    else:  # an image for each photo
        labels = np.arange(len(identities))
    n_images = int(labels.max()) + 1
    found = random.random(n_images) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    who = random.permutation(np.concatenate([names, random.choice(names, random.integers(0, 12))]))
    gallery = Photos(random.normal(size=(len(who), 2)), who, "other photos")
    rel = Images(random.normal(size=(n_images, 2)), found, labels)
    return rel, random.normal(size=(len(identities), 2)), identities, gallery


@settings(deadline=None, max_examples=150)
@given(situation=situations(), threshold=st.floats(0.1, 3))
def test_measures_agree_with_their_definitions(situation, threshold):
    scores = measure(*situation, threshold)
    expected = measure_by_definition(*situation, threshold)
    assert set(scores) == set(expected)
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, nan_ok=True), name


@settings(deadline=None, max_examples=100)
@given(situation=situations())
def test_bounds(situation):
    rel, _, identities, _ = situation
    scores = measure(*situation)
    for name in SHARES:
        assert np.isnan(scores[name]) or 0 <= scores[name] <= 1
    smallest = min(len(set(identities[rel.labels == label])) for label in range(len(rel.found)))
    for name in ("rank1_person", "rank1_person_worst", "chance_person"):
        assert np.isnan(scores[name]) or scores[name] <= 1 / smallest + 1e-12
    for name in ("information_loss", "re_identification", "rank1_cluster"):
        if rel.found.all():
            assert scores[f"{name}_worst"] == pytest.approx(scores[name])
    assert np.isnan(scores["rank1_cluster"]) or scores["rank1_person"] <= scores["rank1_cluster"] + 1e-12


@settings(deadline=None, max_examples=50)
@given(situation=situations(), seed=st.integers(0, 1000))
def test_the_order_of_photos_and_gallery_does_not_count(situation, seed):
    rel, descriptors, identities, gallery = situation
    random = np.random.default_rng(seed)
    rows, places = random.permutation(len(identities)), random.permutation(len(gallery.identities))
    scores = measure(*situation)
    moved = measure(
        Images(rel.descriptors, rel.found, rel.labels[rows]),
        descriptors[rows],
        identities[rows],
        Photos(gallery.descriptors[places], gallery.identities[places], gallery.kind),
    )
    assert moved == pytest.approx(scores, nan_ok=True)


def test_measure_leaves_its_input_alone():
    descriptors, identities = line(0, 1, 10, 12), people("abcd")
    rel = release([0.3, 12], [0, 0, 1, 1], [True, False])
    arrays = [rel.descriptors, rel.found, rel.labels, descriptors, identities]
    before = [array.copy() for array in arrays]
    measure(rel, descriptors, identities, same_photos(descriptors, identities))
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize(
    ("rel", "descriptors", "identities", "gallery"),
    [
        (release([0, 1], [0, 1], [True]), line(0, 1), people("ab"), same_photos(line(0), people("a"))),
        (release([0, 1], [0, 1]), line(0, 1, 2), people("ab"), same_photos(line(0), people("a"))),
        (release([0, 1], [0, 1]), line(0, 1), people("abc"), same_photos(line(0), people("a"))),
        (release([0, 1], [0, 1, 1]), line(0, 1), people("ab"), same_photos(line(0), people("a"))),
        (release([0, 1], [0, 0]), line(0, 1), people("ab"), same_photos(line(0), people("a"))),
        (release([0, 1], [0, 2]), line(0, 1), people("ab"), same_photos(line(0), people("a"))),
        (release([0, 1], [-1, 1]), line(0, 1), people("ab"), same_photos(line(0), people("a"))),
        (release([0, 1], [0, 1]), line(0, 1), people("ab"), same_photos(line(0, 1), people("a"))),
        (release([0, 1], [0, 1]), line(0, 1), people("ab"), same_photos(np.zeros((0, 1)), people(""))),
        (release([0, 1], [0, 1]), line(0, 1), people("ab"), same_photos(np.zeros((2, 2)), people("ab"))),
        (release([0, 1], [0, 1]), np.zeros((2, 3)), people("ab"), same_photos(line(0, 1), people("ab"))),
        (release([0, 1], [0, 1]), line(0, 1), people("ab"), same_photos(line(0), people("a"))),
    ],
)
def test_sizes_that_do_not_fit_are_refused(rel, descriptors, identities, gallery):
    with pytest.raises(
        ValueError,
        match="labels|found|identities|one length|must have descriptors|descriptors of shape|not in the gallery",
    ):
        measure(rel, descriptors, identities, gallery)


# Galleries


def test_gallery_of_a_set_without_others_is_the_set(tiny):
    descriptors = embedding.embed(tiny)
    gallery = measures.clear_photos(tiny).gallery
    assert gallery.kind == "same photos"
    assert np.array_equal(gallery.descriptors, descriptors)
    assert np.array_equal(gallery.identities, tiny.identities)


def test_gallery_of_others(faces):
    gallery = measures.clear_photos(faces).gallery
    assert gallery.kind == "other photos" and len(gallery.identities) == 24
    assert np.array_equal(gallery.descriptors, embedding.embed(faces.others))


def test_gallery_where_some_people_have_no_others(orl):
    faces = orl.select([0, 1, 10, 20]).split(1, random_state=0)  # two photos of one person, one of two others
    descriptors = embedding.embed(faces)
    gallery = measures.clear_photos(faces).gallery
    assert gallery.kind == "mixed"
    assert sorted(gallery.identities) == ["s1", "s2", "s3"]
    for person in ("s2", "s3"):
        own = descriptors[faces.identities == person]
        assert np.array_equal(gallery.descriptors[gallery.identities == person], own)


# A release of real faces


def test_without_anonymization_nothing_is_lost_and_people_are_found(faces, tiny):
    scores = evaluation.evaluate(faces, anonymizer.load("none", faces))
    assert scores["information_loss"] == 0 and scores["re_identification"] == 1
    assert scores["rank1_person"] >= 0.9  # by other photos of theirs
    assert scores["gallery"] == "other photos" and scores["n_people"] == 12 and scores["n_missed"] == 0
    same = evaluation.evaluate(tiny, anonymizer.load("none", tiny))
    assert same["rank1_person"] == 1 and same["gallery"] == "same photos"


def test_noise_counts_as_failed(faces, labels):
    scores = evaluation.evaluate(faces, Noise(faces), labels)
    assert scores["detection_rate"] == 0 and scores["n_failed"] == 4
    assert np.isnan(scores["information_loss"])
    assert scores["re_identification_worst"] == 1 and scores["information_loss_worst"] > 0.6
    assert scores["rank1_person_worst"] == pytest.approx(1 / 3)


def test_missed_photos_are_counted(tiny):
    images = tiny.images.copy()
    images[5] = np.random.default_rng(0).integers(0, 256, images[5].shape)
    odd = Faces(images, tiny.identities, tiny.names)
    scores = evaluation.evaluate(odd, anonymizer.load("pixel", odd), np.arange(12) // 6)
    assert scores["n_missed"] == 1 and scores["n_people"] == 12


def test_evaluate_measures_what_is_released(faces, pixel, labels):
    scores = evaluation.evaluate(faces, pixel, labels)
    images = [pixel.surrogate(np.flatnonzero(labels == cluster)) for cluster in range(4)]
    drawn, own = embedding.embed(images), embedding.embed(faces)
    loss = np.mean([np.linalg.norm(drawn[label] - row) for label, row in zip(labels, own, strict=True)])
    assert scores["information_loss"] == pytest.approx(loss, rel=1e-5)
    assert scores["rank1_person"] <= 1 / 3
    assert list(labels) == list(evaluation.evaluate(faces, pixel, list(labels)) and labels)  # a list will do


def test_every_main_measure_has_an_interval(faces, pixel, labels):
    scores = evaluation.evaluate(faces, pixel, labels)
    for measure in ("information_loss", "re_identification", "rank1_cluster", "rank1_person"):
        low, high = scores[f"{measure}_low"], scores[f"{measure}_high"]
        assert low <= scores[measure] + 1e-9 and scores[measure] <= high + 1e-9 and low < high
    assert scores["rank1_person_high"] <= 1 / 3 + 1e-9  # three people share an image
    # Four images that agree have the exact interval of four trials: 1 - 0.025 ** (1/4) is its width.
    if scores["rank1_cluster"] in (0, 1):
        assert scores["rank1_cluster_high"] - scores["rank1_cluster_low"] == pytest.approx(1 - 0.025**0.25)


@pytest.mark.parametrize(
    "labels",
    [
        None,
        np.zeros(11, int),
        np.zeros((12, 1), int),
        np.arange(12) // 3 * 2,  # leaves numbers out
        np.arange(12) // 3 + 1,  # does not start at 0
        np.arange(12) // 3 - 1,
        np.zeros(12),
        np.arange(12) < 6,
        np.array(["a"] * 12),
    ],
)
def test_labels_that_are_no_partition_are_refused(faces, pixel, labels):
    with pytest.raises(ValueError, match="label"):
        evaluation.evaluate(faces, pixel, labels)


def test_filters_take_no_labels(faces, labels):
    with pytest.raises(ValueError, match="'blur' changes each photo"):
        evaluation.evaluate(faces, anonymizer.load("blur", faces), labels)


def test_anonymizer_made_for_other_photos_is_refused(tiny, pixel, labels):
    with pytest.raises(ValueError, match="made for other photos"):
        evaluation.evaluate(tiny, pixel, labels)


def test_images_that_are_not_shared_as_labelled_are_noticed():
    with pytest.raises(AssertionError, match="above 1/2"):
        measures._assert_person_bound(
            {"rank1_person": 0.8, "rank1_person_worst": 0.8}, np.array([0, 0, 1, 1]), people("abcd")
        )


def test_cluster_distances_are_those_of_the_information_loss(faces, pixel, labels):
    table = evaluation.cluster_distances(faces, pixel, labels)
    assert list(table.columns) == ["label", "row", "distance"] and len(table) == 12
    assert np.array_equal(labels[table["row"]], table["label"])
    assert table["label"].is_monotonic_increasing
    loss = evaluation.evaluate(faces, pixel, labels)["information_loss"]
    assert table["distance"].mean() == pytest.approx(loss, rel=1e-6)


def test_cluster_distances_of_images_without_a_face_are_nan(faces, labels):
    table = evaluation.cluster_distances(faces, Noise(faces), labels)
    assert len(table) == 12 and table["distance"].isna().all()


def test_reconstruction_scores(faces, pixel, monkeypatch):
    clear = measures.clear_photos(faces)
    scores = measures.reconstruction_scores(clear, pixel)
    images = [pixel.reconstruct(i) for i in range(12)]
    distance = np.linalg.norm(embedding.embed(images) - embedding.embed(faces), axis=1)
    assert scores["reconstruction_loss"] == pytest.approx(distance.mean(), rel=1e-5)
    assert scores["reconstruction_rank1"] >= 0.9 and scores["reconstruction_detection_rate"] == 1
    lost = measures.reconstruction_scores(clear, Noise(faces))
    assert np.isnan(lost["reconstruction_loss"])
    assert lost["reconstruction_rank1"] == lost["reconstruction_detection_rate"] == 0
    none = measures.reconstruction_scores(clear, anonymizer.load("blur", faces))
    assert set(none) == set(scores) and all(np.isnan(value) for value in none.values())
    monkeypatch.setattr(measures, "_N_RECONSTRUCTIONS", 4)
    few = measures.reconstruction_scores(clear, pixel, random_state=3)
    assert few == measures.reconstruction_scores(clear, pixel, random_state=3)
    assert few["reconstruction_loss"] != scores["reconstruction_loss"]


def test_pair_distances_by_hand():
    same, different = evaluation.pair_distances(line(0, 1, 5), people("aab"))
    assert same.tolist() == [1] and sorted(different) == [4, 5]


# The sweep


def identify(table):
    return table[["embedding", "partitioner", "anonymizer", "k", "seed"]]


def test_sweep_has_a_row_for_each_combination_and_the_baselines(tiny, tmp_path, forget):
    path = tmp_path / "new" / "table.csv"
    table = evaluation.sweep(tiny, ["dlib", "pca"], ["ward"], ["pixel", "blur"], [12, 6, 6], output=path)
    assert set(CONTRACT) <= set(table.columns)
    expected = {
        *itertools.product(["dlib", "pca"], ["ward", "random"], ["pixel"], [6, 12], [0]),
        ("-", "-", "blur", 1, 0),
        ("-", "-", "none", 1, 0),
    }
    found = [tuple(row) for row in identify(table).itertuples(index=False)]
    assert set(found) == expected and len(found) == len(expected)
    assert (table["n_people"] == 12).all() and (table["gallery"] == "same photos").all()
    shared = table[table["k"] > 1]
    assert (shared["n_clusters"] == 12 // shared["k"]).all()
    assert (shared["rank1_person"] <= 1 / shared["k"] + 1e-9).all()
    none = table[table["anonymizer"] == "none"].iloc[0]
    assert none["information_loss"] == 0 and none["rank1_person"] == 1
    assert np.isnan(none["reconstruction_loss"])
    again = evaluation.load_table(path)
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    assert (again["anonymizer"] == "none").sum() == 1  # not read as a missing value


def test_sweep_measures_the_partition_it_names(tiny):
    table = evaluation.sweep(tiny, ["pca"], ["ward"], ["pixel"], [4], random_state=5)
    row = table[(table["partitioner"] == "ward")].iloc[0]
    own = partitioning.PARTITIONERS["ward"](
        embedding.embed(tiny, "pca"), 4, identities=tiny.identities, random_state=5
    )
    scores = evaluation.evaluate(tiny, anonymizer.load("pixel", tiny), own)
    for name in ("information_loss", "re_identification", "rank1_cluster", "stranger_share"):
        assert row[name] == pytest.approx(scores[name]), name


def test_same_seed_same_table_and_each_seed_its_rows(tiny, forget):
    arguments = (tiny, ["dlib"], ["random"], ["pixel"], [4])
    forget()
    first = evaluation.sweep(*arguments, random_state=1)
    forget()
    pd.testing.assert_frame_equal(evaluation.sweep(*arguments, random_state=1), first)
    several = evaluation.sweep(*arguments, random_state=[1, 2, 1])
    assert several["seed"].tolist() == [1, 1, 2, 2]
    pd.testing.assert_frame_equal(several[several["seed"] == 1].reset_index(drop=True), first)
    losses = several[several["partitioner"] == "random"]["information_loss"]
    assert losses.nunique() == 2


def test_workers_know_what_the_caller_has_registered(tiny, monkeypatch):
    def in_order(X, cluster_size, *, identities=None, random_state=None):
        return np.minimum(np.arange(len(X)) // cluster_size, len(X) // cluster_size - 1)

    monkeypatch.setitem(partitioning.PARTITIONERS, "in_order", in_order)
    monkeypatch.setattr(jobs, "_PARALLEL_JOBS", 1)
    table = evaluation.sweep(tiny, ["dlib"], ["in_order"], ["pixel"], [2], n_jobs=2)
    own = table[table["partitioner"] == "in_order"].iloc[0]
    expected = evaluation.evaluate(tiny, anonymizer.load("pixel", tiny), in_order(np.zeros(len(tiny)), 2))
    assert own["information_loss"] == pytest.approx(expected["information_loss"], abs=1e-6)


@pytest.mark.parametrize("labels", [np.arange, lambda n: np.zeros(3)])
def test_a_partition_that_breaks_its_sizes_is_refused(tiny, monkeypatch, labels):
    monkeypatch.setitem(partitioning.PARTITIONERS, "broken", lambda X, k, **options: labels(len(X)))
    with pytest.raises(ValueError, match="'broken' must return 12 labels and clusters of at least 2 people"):
        evaluation.sweep(tiny, ["dlib"], ["broken"], ["pixel"], [2], n_jobs=1)


def test_a_changed_partition_is_measured_anew(tiny, monkeypatch):
    def in_order(X, cluster_size, *, identities=None, random_state=None):
        return np.minimum(np.arange(len(X)) // cluster_size, len(X) // cluster_size - 1)

    def measure(function):
        monkeypatch.setitem(partitioning.PARTITIONERS, "own", function)
        table = evaluation.sweep(tiny, ["dlib"], ["own"], ["pixel"], [2], n_jobs=1)
        return table[table["partitioner"] == "own"].iloc[0]["information_loss"]

    def alternating(X, cluster_size, *, identities=None, random_state=None):
        return np.arange(len(X)) % (len(X) // cluster_size)

    first = measure(in_order)
    assert measure(alternating) != first
    assert measure(in_order) == first


def test_interrupted_sweep_goes_on_where_it_stopped(orl, tmp_path, monkeypatch):
    monkeypatch.setenv("ANONFACES_CACHE", str(tmp_path))
    faces = orl.select(slice(0, 120, 10))
    arguments = (faces, ["dlib"], ["ward"], ["pixel"], [4, 6])
    compute, started = releases._measure_combination, []

    def interrupted(faces, combination, *rest):
        if len(started) == 3:
            raise KeyboardInterrupt
        started.append(tuple(combination.values()))
        return compute(faces, combination, *rest)

    monkeypatch.setattr(releases, "_measure_combination", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluation.sweep(*arguments, n_jobs=1)
    assert len(started) == 3
    resumed = []

    def counted(faces, combination, *rest):
        resumed.append(tuple(combination.values()))
        return compute(faces, combination, *rest)

    monkeypatch.setattr(releases, "_measure_combination", counted)
    table = evaluation.sweep(*arguments, n_jobs=1)
    assert len(table) == 5 and len(resumed) == 2 and not set(resumed) & set(started)
    resumed.clear()
    pd.testing.assert_frame_equal(evaluation.sweep(*arguments, n_jobs=1), table)
    assert not resumed
    evaluation.sweep(faces, ["dlib"], ["ward"], ["pixel"], [4], threshold=0.5, n_jobs=1)
    assert len(resumed) == 3  # another threshold is another result


@pytest.fixture
def change(tmp_path, monkeypatch):
    """Work on a copy of the project's code; returns a function that changes a file and says whether the key did."""
    root = tmp_path.resolve()
    for path in [*storage.ROOT.glob("*.py"), *storage.ROOT.glob("[!.]*/*.py")]:
        copy = root / path.relative_to(storage.ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(storage, "ROOT", root)
    times = itertools.count()

    def changed(name, old=None, new="CHANGED = 1\n"):
        before, path = releases._code_key(), root / name
        text = path.read_text(encoding="utf-8")
        assert old is None or old in text
        path.write_text(text + new if old is None else text.replace(old, new), encoding="utf-8")
        time = next(times)
        os.utime(path, (time, time))  # a quick file system may give both versions one time
        return releases._code_key() != before

    return changed


def test_code_that_computes_a_row_changes_its_key(change):
    modules = ("detection", "embedding", "partitioning", "balancing", "measures")
    files = [Path(sys.modules[name].__file__).relative_to(Path(measures.__file__).parent) for name in modules]
    files += [Path(inspect.getfile(part)).relative_to(Path(measures.__file__).parent)
              for part in (attacks.closed_set, attacks.members_of, attacks.calibrate_threshold)]  # fmt: skip
    for file in files:
        assert change(file), file


def test_other_code_and_words_keep_the_key_of_a_row(change):
    """Reports, tables, command lines and figures compute no row; an anonymizer has a key of its own."""
    others = ["evaluation", "tuning", "experiments", "vizualization", "checks", "commands", "anonymizer/aam"]
    others += [
        "attacks/__init__",
        "attacks/network",
        "release/report",
        "release/__init__",
        "utility/__init__",
    ]
    for name in others:
        assert not change(f"{name}.py"), name
    assert not change("experiments.py", "processes (default: all cores)", "workers")
    assert not change(
        "measures.py", "Measure a release against the photos", "Compare a release with the photos"
    )
    assert not change(
        "measures.py", "labels and descriptors must have one row per photo", "one row per photo"
    )
    assert change("measures.py", "_N_RECONSTRUCTIONS = 200", "_N_RECONSTRUCTIONS = 201")


def test_combinations_with_the_same_clusters_are_measured_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("ANONFACES_CACHE", str(tmp_path))
    ward = partitioning.PARTITIONERS["ward"]
    monkeypatch.setitem(partitioning.PARTITIONERS, "again", lambda *rest, **options: ward(*rest, **options))
    compute, measured = measures._evaluate, []
    monkeypatch.setattr(measures, "_evaluate", lambda *rest: measured.append(rest) or compute(*rest))
    table = evaluation.sweep(tiny, ["dlib"], ["ward", "again"], ["pixel"], [3], n_jobs=1)
    assert len(measured) == len(table) - 1
    rows = table.set_index("partitioner")
    pd.testing.assert_series_equal(rows.loc["ward"], rows.loc["again"], check_names=False)


def test_processes_find_the_same(tiny, forget, monkeypatch):
    monkeypatch.setattr(jobs, "_PARALLEL_JOBS", 1)
    arguments = (tiny, ["dlib"], ["ward"], ["pixel"], [3])
    forget()
    serial = evaluation.sweep(*arguments, n_jobs=1)
    forget()
    here = []
    compute = releases.measure_row
    monkeypatch.setattr(releases, "measure_row", lambda *rest: here.append(rest) or compute(*rest))
    parallel = evaluation.sweep(*arguments, n_jobs=2)
    assert not here  # it was computed elsewhere
    pd.testing.assert_frame_equal(parallel, serial)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"embeddings": ["zzz"]}, ValueError, "zzz"),
        ({"embeddings": ["onnx:no-such-file.onnx"]}, FileNotFoundError, "no-such-file"),
        ({"embeddings": ["zzz"], "anonymizers": ["blur"]}, ValueError, "zzz"),
        ({"embeddings": "dlib"}, TypeError, "embeddings must be a list"),
        ({"embeddings": []}, TypeError, "embeddings must be a list"),
        ({"partitioners": ["zzz"]}, ValueError, "'zzz'.*'ward'"),
        ({"partitioners": "ward"}, TypeError, "partitioners must be a list"),
        ({"partitioners": []}, TypeError, "partitioners must be a list"),
        ({"anonymizers": ["zzz"]}, ValueError, "'zzz'.*'pixel'"),
        ({"anonymizers": "pixel"}, TypeError, "anonymizers must be a list"),
        ({"anonymizers": []}, TypeError, "anonymizers must be a list"),
        ({"k_values": [1]}, ValueError, "at least 2 and at most 12, got 1"),
        ({"k_values": [2, 13]}, ValueError, "at most 12, got 13"),
        ({"k_values": [0]}, ValueError, "got 0"),
        ({"k_values": [-3]}, ValueError, "got -3"),
        ({"k_values": [True]}, TypeError, "an integer"),
        ({"k_values": [2.0]}, TypeError, "an integer"),
        ({"k_values": "23"}, TypeError, "list or range of at least one integer"),
        ({"k_values": []}, ValueError, "at least one integer"),
        ({"k_values": 5}, TypeError, "list or range of at least one integer, got 5"),
        ({"random_state": []}, ValueError, "random_state"),
        ({"random_state": 1.5}, TypeError, "an integer"),
        ({"random_state": [0, 1.5]}, TypeError, "an integer"),
        ({"random_state": None}, TypeError, "an integer"),
        ({"recogniser": "zzz"}, ValueError, "zzz"),
    ],
)
def test_sweep_refuses_before_any_work(tiny, monkeypatch, changed, error, message):
    def work(*_):
        raise AssertionError("no model should have been made")

    monkeypatch.setattr(releases, "load_model", work)
    asked = {"embeddings": ["dlib"], "partitioners": ["ward"], "anonymizers": ["pixel"], "k_values": [2]}
    with pytest.raises(error, match=message):
        evaluation.sweep(tiny, **{**asked, **changed})


def test_every_partitioner_can_be_swept(tiny):
    """Each name reaches its algorithm, and whatever sizes it makes can be measured."""
    names = [*partitioning.PARTITIONERS, *partitioning.VARIABLE_SIZE]
    table = evaluation.sweep(tiny, ["dlib"], names, ["pixel"], [6])
    assert set(table["partitioner"]) == {*names, "-"}
    fixed = table[table["partitioner"].isin(partitioning.PARTITIONERS)]
    assert (fixed["n_clusters"] == 2).all()


def test_missing_table_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="make experiments"):
        evaluation.load_table(tmp_path / "none.csv")


# Comparisons


@pytest.fixture(scope="module")
def swept(tiny):
    return evaluation.sweep(tiny, ["dlib", "pca"], ["ward"], ["pixel", "eigen", "mask"], [6, 12])


def test_compare_fixes_two_things_and_keeps_both_baselines(swept):
    rows = evaluation.compare(swept, "anonymizer", embedding="dlib", partitioner="ward")
    assert rows["anonymizer"].value_counts().to_dict() == {"pixel": 2, "eigen": 2, "random": 2, "none": 1}
    assert set(rows.loc[rows["anonymizer"] != "none", "embedding"]) == {"dlib"}
    random = rows[rows["anonymizer"] == "random"]["information_loss"].tolist()
    known = swept.query("embedding == 'dlib' and partitioner == 'random' and anonymizer == 'pixel'")
    assert random == known["information_loss"].tolist()
    rows = evaluation.compare(swept, "partitioner", embedding="pca", anonymizer="eigen")
    assert rows["partitioner"].value_counts().to_dict() == {"ward": 2, "random": 2, "-": 1}
    rows = evaluation.compare(swept, "embedding", partitioner="ward", anonymizer="pixel")
    assert rows["embedding"].value_counts().to_dict() == {"dlib": 2, "pca": 2, "random": 2, "-": 1}
    assert set(swept["anonymizer"]) == {"pixel", "eigen", "mask", "none"}  # the table itself stays as it was


@pytest.mark.parametrize(
    ("by", "fixed"),
    [
        ("anonymizer", {"embedding": "dlib"}),
        ("anonymizer", {"embedding": "dlib", "partitioner": "mdav"}),
        ("k", {"embedding": "dlib", "partitioner": "ward"}),
        ("anonymizer", {"anonymizer": "pixel", "partitioner": "ward"}),
    ],
)
def test_compare_refuses_what_is_not_there(swept, by, fixed):
    with pytest.raises(ValueError, match="must be one of|no row"):
        evaluation.compare(swept, by, **fixed)


# Grids and the command


def tiny_grid(embeddings, k_values):
    assert "dlib" in embeddings
    one = {"embeddings": ["dlib"], "anonymizers": ["pixel"], "k_values": list(k_values)}
    return [{**one, "partitioners": ["ward"]}, {**one, "partitioners": ["random"]}]


@pytest.mark.parametrize("grid", [experiments.GRIDS["quick"], experiments.GRIDS["full"]])
def test_grids_name_what_there_is(grid):
    sweeps = grid(["dlib", "pca"], range(2, 5))
    assert all(set(one) == {"embeddings", "partitioners", "anonymizers", "k_values"} for one in sweeps)
    assert all(one["k_values"] == [2, 3, 4] for one in sweeps)
    known = {**partitioning.PARTITIONERS, **partitioning.VARIABLE_SIZE}
    assert {name for one in sweeps for name in one["partitioners"]} <= set(known)
    assert {name for one in sweeps for name in one["anonymizers"]} == set(anonymizer.ANONYMIZERS)
    assert {name for one in sweeps for name in one["embeddings"]} == {"dlib", "pca"}


def test_run_grid_has_no_doubles_and_leaves_out_large_k(tiny, monkeypatch):
    monkeypatch.setattr(experiments, "GRIDS", {"tiny": tiny_grid})
    table = experiments.run_grid(tiny, "tiny", k_values=[4, 50])
    assert table["partitioner"].tolist() == ["ward", "random", "-"]
    assert table.index.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="unknown grid 'huge'; choose from 'tiny'"):
        experiments.run_grid(tiny, "huge")


def test_run_grid_varies_over_what_is_chosen(tiny, monkeypatch):
    """What the quick grid asks for, with sweeps that only remember it."""
    asked = []

    def remember(faces, embeddings, partitioners, anonymizers, k_values, random_state):
        asked.append((embeddings, partitioners, anonymizers))
        row = {"embedding": embeddings[0], "partitioner": partitioners[0], "anonymizer": anonymizers[0]}
        return [{**row, "k": 2, "seed": random_state}]

    monkeypatch.setattr(evaluation, "sweep_combinations", remember)
    experiments.grid_combinations(
        tiny, embeddings=["pca"], partitioners=["mdav", "random"], anonymizers=["eigen", "pixel"]
    )
    assert asked == [
        (["pca"], ["mdav", "random"], ["eigen"]),
        (["pca"], ["mdav"], ["eigen"]),
        (["pca"], ["mdav"], ["eigen", "pixel"]),
    ]
    asked.clear()
    experiments.grid_combinations(tiny, embeddings=["pca", "dlib"], partitioners=["mdav", "ward"])
    assert [one[0] for one in asked] == [["dlib"], ["pca", "dlib"], ["dlib"]]
    assert [one[1] for one in asked] == [["mdav", "ward"], ["ward"], ["ward"]]
    assert asked[0][2] == ["aam"]
    for wrong in ({"partitioners": ["ward", "x"]}, {"anonymizers": ["x"]}):
        with pytest.raises(ValueError, match="unknown"):
            experiments.run_grid(tiny, **wrong)


def test_named_releases_of_what_is_chosen():
    of = evaluation.Combination
    named = [of("dlib", "ward", "aam", 5), of("-", "-", "none", 1), of("dlib", "random", "aam", 5)]
    named += [of("dlib", "ward", "pixel", 5), of("-", "-", "blur", 1)]
    assert experiments.restrict(named) == named
    assert experiments.restrict(named, ["pca"], ["mdav"], ["aam"]) == [
        of("pca", "mdav", "aam", 5), of("-", "-", "none", 1), of("pca", "random", "aam", 5)
    ]  # fmt: skip
    assert experiments.restrict(named, None, None, ["aam"], [3, 4]) == [
        of("dlib", "ward", "aam", 3), of("-", "-", "none", 1), of("dlib", "random", "aam", 3)
    ]  # fmt: skip
    assert experiments.restrict(named, k_values=[2, 5]) == named
    assert experiments.restrict(named, None, ["mdav", "ward"], ["pixel", "blur"]) == [
        of("-", "-", "none", 1), of("dlib", "ward", "pixel", 5), of("-", "-", "blur", 1)
    ]  # fmt: skip


def test_what_is_held_fixed_is_in_the_table():
    table = pd.DataFrame(
        [("pca", "random", "eigen", 2), ("pca", "mdav", "eigen", 2), ("pca", "ward", "pixel", 2)],
        columns=["embedding", "partitioner", "anonymizer", "k"],
    )
    expected = {"embedding": "pca", "partitioner": "ward", "anonymizer": "eigen"}
    assert evaluation.reference(table) == expected
    assert evaluation.reference(table.iloc[:1])["partitioner"] == "random"


def test_names_and_seeds_from_text():
    assert experiments.parse_names("") is None and experiments.parse_names("all") is None
    assert experiments.parse_names("pca, dlib,pca") == ["pca", "dlib"]
    assert experiments.parse_seeds(3) == [3] and experiments.parse_seeds("0, 2,0") == [0, 2]
    assert experiments.parse_names(["onnx:a,b"]) == ["onnx:a,b"] and experiments.parse_seeds([4, 1]) == [4, 1]
    for seeds in ("", "a", "1.5", "-1", "0,,1", [], [1.5], [True]):
        with pytest.raises(ValueError, match="seeds must look like"):
            experiments.parse_seeds(seeds)


@pytest.fixture(scope="module")
def folder(orl, tmp_path_factory):
    """Two photos of each of four people, one folder a person."""
    root = tmp_path_factory.mktemp("photos") / "office"
    for person, photo in itertools.product(range(4), range(2)):
        place = root / f"person{person}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(orl.images[10 * person + photo]).save(place / f"{photo}.png")
    return root


@pytest.fixture
def tiny_experiment(tmp_path, monkeypatch):
    """The file of an experiment whose grid is small."""
    monkeypatch.setattr(experiments, "GRIDS", {"tiny": tiny_grid})
    looked_into = [evaluation.Combination("dlib", "ward", "pixel", 2)]
    monkeypatch.setattr(experiments, "LOOKED_INTO", {"tiny": lambda faces, k_values: looked_into})
    path = tmp_path / "tiny.toml"
    path.write_text('grid = "tiny"\nrecognisers = ["dlib"]\n')
    return str(path)


def test_command_writes_the_tables(folder, tmp_path, tiny_experiment, capsys):
    output = tmp_path / "results"
    asked = [str(folder), "--experiment", tiny_experiment, "--jobs", "1", "--output", str(output)]
    assert experiments.main([*asked, "--k", "2:4"]) == 0
    [path] = (path for path in output.glob("*.csv") if path.stem.count("_") == 1)
    assert re.fullmatch(r"office-[0-9a-f]{8}_tiny-[0-9a-f]{8}", path.stem)
    assert str(path) in capsys.readouterr().out
    table = evaluation.load_results(output)
    assert set(table["k"]) == {1, 2, 3} and set(table["partitioner"]) == {"ward", "random", "-"}
    assert (table["n_people"] == 4).all() and (table["gallery"] == "other photos").all()
    attacked = evaluation.load_results(output, "attacks")
    assert set(attacked["anonymizer"]) == {"pixel"} and {"rank-1", "linkability"} <= set(attacked["attack"])
    assert set(attacked["recogniser"]) == {"dlib", "pixels"}
    useful = evaluation.load_results(output, "utility")
    assert {"detection_rate", "age_error", "similarity"} <= set(useful["metric"])
    record = evaluation.load_record(path)
    assert record["version"] == VERSION and record["experiment"]["k"] == [2, 3]
    assert str(folder.parent) not in path.with_suffix(".json").read_text()  # no path of this machine
    # Another cluster size is another experiment: its tables stand beside.
    assert experiments.main([*asked, "--k", "2"]) == 0
    joined = evaluation.load_results(output)
    assert joined.groupby("experiment")["k"].max().tolist() in ([2, 3], [3, 2])
    assert joined["data"].nunique() == 1 and (joined["version"] == VERSION).all()


def test_tables_of_other_photos_are_never_overwritten(orl):
    def stem(faces):
        return evaluation.table_stem(faces.source, faces.set_key)

    def photos(rows, source="photos"):
        chosen = orl.select(rows)
        return Faces(chosen.images, chosen.identities, chosen.names, source=source)

    several = [photos([0, 1, 10, 11]), photos([0, 1, 20, 21]), photos([0, 1], "orl")]
    names = [stem(faces) for faces in several]
    assert names == [f"{faces.source}-{faces.set_key[:8]}" for faces in several] and len(set(names)) == 3
    assert [stem(faces.split(1, 3)) for faces in several] == names  # however they are split
    assert stem(orl) == stem(orl.split(1, 0)) == "orl"


def test_tables_of_other_experiments_are_never_overwritten(tiny, tmp_path):
    (tmp_path / "mine.toml").write_text("k = 3")
    mine = experiments.load_experiment(tmp_path / "mine.toml")
    table = pd.DataFrame({"k": [3]})
    first = mine.tables(tiny, tmp_path).save(table)
    assert mine.tables(tiny, tmp_path).path() == first and first.stem.endswith("_mine")
    changed = experiments.load_experiment(tmp_path / "mine.toml", k="2:4")
    second = changed.tables(tiny, tmp_path).save(table.assign(k=2))
    (tmp_path / "mine.toml").write_text("k = [2, 3]  # edited")
    edited = experiments.load_experiment(tmp_path / "mine.toml")
    assert edited.settings == changed.settings and edited.name == "mine"
    third = edited.tables(tiny, tmp_path).save(table.assign(k=1))
    assert third == second != first  # equal settings share tables
    assert evaluation.load_table(first)["k"].tolist() == [3]
    first.with_suffix(".json").write_text("[1]")
    with pytest.raises(ValueError, match="damaged"):
        mine.tables(tiny, tmp_path)


def test_results_that_are_missing_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="make experiments"):
        evaluation.load_results(tmp_path)
    about = {"part": "attacks", "data": {"name": "a"}, "experiment": {"name": "b"}}
    evaluation.save_table(pd.DataFrame({"k": [1]}), tmp_path / "a_b_attacks.csv", about)
    evaluation.save_table(pd.DataFrame({"k": [1]}), tmp_path / "alone.csv")  # of no experiment
    with pytest.raises(FileNotFoundError, match="no table 'main' of an experiment; choose from 'attacks'"):
        evaluation.load_results(tmp_path)
    joined = evaluation.load_results(tmp_path, "attacks")
    assert joined.columns.tolist() == ["data", "experiment", "version", "commit", "date", "k"]
    assert joined.loc[0, ["data", "experiment"]].tolist() == ["a", "b"]


def test_a_changed_commit_is_marked(monkeypatch, tmp_path):
    """The commit of a checkout, a plus if a Python file differs, None where another repository surrounds the code."""
    run = partial(subprocess.run, cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setattr(evaluation, "__file__", str(tmp_path / "evaluation.py"))
    commit = evaluation._commit.__wrapped__
    assert commit() is None
    (tmp_path / "evaluation.py").write_text("")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init"], ["add", "evaluation.py"], [*identity, "commit", "-m", "First"]):
        run(["git", *command])
    assert re.fullmatch("[0-9a-f]{40}", commit())
    (tmp_path / "evaluation.py").write_text("# changed")
    assert re.fullmatch(r"[0-9a-f]{40}\+", commit())
    (tmp_path / "inner").mkdir()
    monkeypatch.setattr(evaluation, "__file__", str(tmp_path / "inner" / "evaluation.py"))
    assert commit() is None


@pytest.mark.parametrize("name", ["quick", "full", "generators", "results"])
def test_experiments_of_the_repository_are_valid(name):
    experiment = experiments.load_experiment(name)
    assert experiment.name == name and experiment.data == "orl" and experiment.seeds[0] == 0


def test_quick_experiment_states_the_defaults(tmp_path):
    (tmp_path / "quick.toml").touch()
    assert experiments.load_experiment(tmp_path / "quick.toml") == replace(
        experiments.load_experiment(), many={}
    )


def test_many_people_get_the_values_for_many(tmp_path):
    (tmp_path / "mine.toml").write_text('k = "2:5"\n[many]\nk = [10]\npartitioners = ["ward"]\n')
    read = partial(experiments.load_experiment, tmp_path / "mine.toml")
    few, many = SimpleNamespace(n_people=100), SimpleNamespace(n_people=101)
    assert read().fitted_to(few) == replace(read(), many={}) and read().k == [2, 3, 4]
    fitted = read().fitted_to(many)
    assert (fitted.name, fitted.k, fitted.partitioners) == ("mine", [10], ["ward"])
    named = read(k=3).fitted_to(many)  # the command's choice is kept
    assert (named.k, named.partitioners) == ([3], ["ward"])


def test_sizes_that_make_many_clusters_are_not_shown():
    assert experiments.shown_sizes(range(2, 20), 40) == [2, 5, 10, 19]
    assert experiments.shown_sizes([2, 5, 10, 20, 50], 500) == [10, 50]
    assert experiments.shown_sizes([3, 4], 40) == [3, 4] and experiments.shown_sizes([2, 3], 500) == [3]


def test_changes_replace_what_the_file_says(tmp_path):
    (tmp_path / "mine.toml").write_text('k = "2:5"\nseeds = [3, 4]\nanonymizers = ["aam", "pixel"]\n')
    read = partial(experiments.load_experiment, tmp_path / "mine.toml")
    assert (
        read().k == [2, 3, 4] and read().seeds == [3, 4] and read().chosen["anonymizers"] == ["aam", "pixel"]
    )
    assert read(k=None, data="photos", people="photos").name == "mine"  # the photos have a name of their own
    assert read(k="2,3,4", seeds="3,4").name == "mine"  # nothing differs
    changed = read(k=5, anonymizers="all")
    assert changed.k == [5] and changed.anonymizers is None and re.fullmatch("mine-[0-9a-f]{8}", changed.name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("embedings = 'dlib'", "mine.toml: unknown key 'embedings'; did you mean 'embeddings'"),
        ("zzz = 1", "mine.toml: unknown key 'zzz'; choose from 'data', "),
        ("k = 1", "mine.toml: k: the smallest cluster size must be an integer of at least 2, got 1"),
        ("k = 'many'", "mine.toml: k: cluster sizes must look like"),
        ("k = true", "mine.toml: k: cluster sizes must look like"),
        ("k = []", "mine.toml: k: cluster sizes must look like"),
        ("data = 3", "mine.toml: data: must be a data set or a folder of photos, got 3"),
        ("people = 'none'", "mine.toml: people: unknown value 'none'; choose from 'folders', 'photos'"),
        ("grid = 'huge'", "mine.toml: grid: unknown value 'huge'; choose from 'quick', 'full'"),
        ("embeddings = ['dlip']", "mine.toml: embeddings: unknown embedding 'dlip'"),
        ("embeddings = ['onnx']", "mine.toml: embeddings: unknown embedding 'onnx'"),
        ("partitioners = ['ward', 'wards']", "mine.toml: partitioners: unknown partitioner 'wards'"),
        ("anonymizers = [7]", "mine.toml: anonymizers: unknown anonymizer '7'"),
        (
            "recognisers = ['pca']",
            "mine.toml: recognisers: unknown recogniser 'pca'; choose from 'fisherfaces'",
        ),
        ("seeds = [0.5]", "mine.toml: seeds: seeds must look like"),
        ("n_attacked = 0", "mine.toml: n_attacked: the number must be an integer of at least 1, got 0"),
        ("[many]\nk = 1", "mine.toml: many: k: the smallest cluster size"),
        ("[many]\nkk = 1", "mine.toml: many: unknown key 'kk'; did you mean 'k'"),
        ("many = 3", "mine.toml: many: must be a table [many] of keys and values, got 3"),
        ("k = ", "mine.toml: is no TOML"),
        ("[" * 5000, "mine.toml: is no TOML"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_key(tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        experiments.load_experiment(tmp_path / "mine.toml")


def test_files_without_an_experiment_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such experiment; choose from 'full', .*'quick'"):
        experiments.load_experiment("quik")
    (tmp_path / "my_own.toml").touch()  # its tables could be those of an experiment "my"
    with pytest.raises(ValueError, match="letters, digits and hyphens"):
        experiments.load_experiment(tmp_path / "my_own.toml")


@pytest.mark.full
def test_command_as_make_runs_it(tmp_path):
    """As a program of its own, with workers: what is loaded here, networks above all, must not have to reach them."""
    command = [
        sys.executable,
        "-m",
        "evaluation",
        "orl",
        "--k",
        "5:6",
        "--jobs",
        "2",
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(
        command, cwd=Path(evaluation.__file__).parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    names = {re.sub("-[0-9a-f]{8}", "", path.name) for path in tmp_path.iterdir()}
    assert names == {
        f"orl_quick{part}.{ending}" for part in ("", "_attacks", "_utility") for ending in ("csv", "json")
    }


# Attacks and utility of named releases


def test_attack_table_agrees_with_the_sweep(tiny):
    combinations = [
        evaluation.Combination("dlib", "ward", "pixel", 6),
        evaluation.Combination("-", "-", "none", 1),
    ]
    table = evaluation.attack_table(
        tiny, combinations, recognisers=["dlib"], attacks=["identification"], n_jobs=1
    )
    swept = evaluation.sweep(tiny, ["dlib"], ["ward"], ["pixel"], [6], n_jobs=1)
    for row in swept[swept["partitioner"] != "random"].itertuples():
        mine = table[(table["anonymizer"] == row.anonymizer) & (table["attack"] == "rank-1")].set_index(
            "level"
        )
        assert mine.loc["cluster", "rate"] == pytest.approx(row.rank1_cluster)
        assert mine.loc["person", "rate"] == pytest.approx(row.rank1_person)
        assert mine.loc["cluster", "chance"] == pytest.approx(row.chance_cluster)
        assert mine.loc["cluster", "clear"] == 1  # the clear photos are the gallery here
    assert list(table.columns[:5]) == ["embedding", "partitioner", "anonymizer", "k", "seed"]


def test_attackers_hold_another_photo_that_they_anonymized(faces):
    """With another photo of everybody the anonymized gallery and the second release are made; without, they say so."""
    attacked = ["identification (anonymized gallery)", "linkability"]
    options = {"recognisers": ["dlib"], "attacks": attacked, "n_jobs": 1}
    table = evaluation.attack_table(faces, [("-", "-", "none", 1)], **options).set_index(["attack", "level"])
    assert table.loc[("rank-1 (anonymized gallery)", "person"), "rate"] >= 0.9
    assert table.loc[("linkability (other photos)", "cluster"), "rate"] >= 0.9
    shared = evaluation.attack_table(faces, [("dlib", "ward", "pixel", 4)], **options)
    assert {"linkability", "linkability (other photos)"} < set(shared["attack"])
    assert shared.loc[shared["attack"] == "linkability (other photos)", "clear"].between(0.9, 1).all()
    alone = evaluation.attack_table(faces.select(slice(None)), [("-", "-", "none", 1)], **options)
    assert alone["rate"].isna().all() and alone["note"].str.startswith("needs a").all()


def test_fairness_by_hand(faces, monkeypatch):
    """Two groups: everybody unchanged, so that all are found; what clusters share is told beside random clusters."""
    sexes = np.where(np.arange(12) < 4, "female", "male")
    groups = pd.DataFrame({"sex": sexes})
    monkeypatch.setattr(releases.utility, "people_groups", lambda some: groups)
    table = evaluation.fairness_table(faces, [("-", "-", "none", 1), ("dlib", "ward", "pixel", 4)], n_jobs=1)
    plain = table[table["anonymizer"] == "none"].set_index(["measure", "group"])
    assert plain.loc[("re_identification", "all"), "value"] == 1
    assert plain.loc[("rank1_person", "female"), "n_people"] == 4
    assert plain.loc[("rank1_person", "female"), "low"] < 1  # four people of four: the exact interval
    assert plain.loc[("cluster_distinct", "clusters"), "value"] == 1  # everybody is alone
    shared = table[table["anonymizer"] == "pixel"].set_index(["measure", "group"])
    assert shared.loc[("rank1_person", "all"), "value"] <= 1 / 4
    assert shared.loc[("chance_cluster", "all"), "value"] == pytest.approx(4 / 12)
    assert shared.loc[("set_size", "all"), "value"] >= 4
    assert shared.loc[("clear_rank1_person", "all"), "value"] >= 0.9
    assert 0 <= shared.loc[("stranger_share", "all"), "value"] < 1
    parts = [shared.loc[("rank1_cluster", group), ["value", "n"]] for group in ("female", "male")]
    mean = sum(part["value"] * part["n"] for part in parts) / 12
    assert shared.loc[("rank1_cluster", "all"), "value"] == pytest.approx(mean)
    dealt = shared.loc[("cluster_majority_share", "random clusters")]
    assert dealt["low"] <= dealt["value"] <= dealt["high"]


def test_calibrated_threshold_stands_beside_the_papers(faces, pixel, labels, monkeypatch):
    few = evaluation.evaluate(faces, pixel, labels)  # 594 impostor pairs are too few for a rate of 1 %
    assert np.isnan([few["threshold_calibrated"], few["re_identification_calibrated"]]).all()
    monkeypatch.setattr(evaluation.attacks.running, "_CALIBRATED_RATE", 0.05)
    scores = evaluation.evaluate(faces, pixel, labels)
    limit = measures.clear_photos(faces).threshold
    everything = np.concatenate([embedding.embed(faces), embedding.embed(faces.others)])
    who = np.concatenate([faces.identities, faces.others.identities])
    _, different = evaluation.pair_distances(everything, who)
    assert len(different) == 594 and np.mean(different < limit.value) == pytest.approx(0.05, abs=0.005)
    assert scores["threshold_calibrated"] == limit.value
    assert scores["threshold_low"] <= limit.value <= scores["threshold_high"]
    images = pixel.surrogates(measures.clusters_of(faces, pixel, labels))
    own = np.linalg.norm(embedding.embed(images)[labels] - embedding.embed(faces), axis=1)
    assert scores["re_identification_calibrated"] == pytest.approx(np.mean(own < limit.value))


def test_utility_of_clear_photos_is_perfect(tiny):
    combinations = [("-", "-", "none", 1)]
    metrics = ["age_error", "sex_agreement", "similarity", "landmark_error"]
    table = evaluation.utility_table(tiny, combinations, metrics=metrics).set_index("metric")
    assert 0 <= table.loc["seconds", "value"] < 1
    assert table["value"].drop("seconds").to_dict() == pytest.approx(
        dict(zip(metrics, [0, 1, 1, 0], strict=True)), abs=1e-5
    )


def test_named_combinations_fit_or_are_left_out(tiny):
    named = evaluation.NAMED_COMBINATIONS
    assert len(named) <= 12 and len(set(named)) == len(named)
    kept = evaluation.fitting(tiny)
    assert all(c.k <= tiny.n_people for c in kept) and {c.anonymizer for c in kept} >= {"aam", "blur", "none"}
    for c in named:
        anonymizer.kind(c.anonymizer)
        assert c.partitioner == "-" or measures.partitioner(c.partitioner)
    everything = experiments._every_combination(tiny, [6])
    assert {c.anonymizer for c in everything} == {
        n for n, k in anonymizer.ANONYMIZERS.items() if k.fits(tiny)
    }
    with pytest.raises(ValueError, match="at least one combination"):
        evaluation.attack_table(tiny, [])
    with pytest.raises(ValueError, match="unknown partitioner"):
        evaluation.attack_table(tiny, [("dlib", "wards", "aam", 5)])


def test_an_embedding_fitted_anew_is_no_recogniser(tiny):
    model = anonymizer.load("blur", tiny)
    with pytest.raises(ValueError, match="fitted to its input photos"):
        evaluation.evaluate(tiny, model, recogniser="pca")
    with pytest.raises(ValueError, match="fitted to its input photos"):
        evaluation.sweep(tiny, ["dlib"], ["ward"], ["pixel"], [6], recogniser="pca")


def test_audit_is_that_of_releases(tmp_path):
    report = evaluation.audit(tmp_path)
    assert not report.passed and report.checks


@pytest.fixture
def no_sweep(monkeypatch, tmp_path):
    """Whatever the command accepts by mistake, it computes nothing and leaves the project's outputs alone."""

    def never(*_, **__):
        raise AssertionError("nothing should have been measured")

    monkeypatch.setattr(experiments, "run_jobs", never)
    monkeypatch.setattr(experiments, "_OUTPUTS", tmp_path)
    monkeypatch.setattr(evaluation, "save_table", never)


def test_command_takes_each_photo_as_a_person_and_warns_once_of_each_kind(orl, tmp_path, tiny_experiment):
    photos = [*orl.images[:40:10], np.full((112, 92, 3), 90, np.uint8), np.hstack(orl.images[[50, 60]])]
    (tmp_path / "flat").mkdir()
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / "flat" / f"{i}.png")
    asked = [str(tmp_path / "flat"), "--experiment", tiny_experiment, "--k", "2:3", "--jobs", "1"]
    asked += ["--output", str(tmp_path)]
    assert experiments.main(asked) == 2
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert experiments.main([*asked, "--people", "photos"]) == 0
    ours = [str(w.message) for w in warned if "photos" in str(w.message)]
    assert [text.split(":")[0] for text in ours] == [
        "no face was found in 1 of 6 photos (4.png)", "1 of 6 photos show several faces (5.png)"
    ]  # fmt: skip
    table = evaluation.load_results(tmp_path)
    assert (table["n_people"] == 6).all() and (table["n_missed"] == 1).all()


@pytest.mark.usefixtures("no_sweep")
@pytest.mark.parametrize(
    "k", ["a:b", "2:3:4:5", "", ":", "2:-1", "4:2", "2:9:0", "1.5:3", "²:9", "2,", "9" * 20]
)
def test_command_refuses_cluster_sizes_that_it_cannot_read(folder, k, capsys):
    assert experiments.main([str(folder), "--k", k]) == 2
    assert "error: k: cluster sizes must look like" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("2:5", [2, 3, 4]), ("2:10:3", [2, 5, 8]), ("7:8", [7]), ("5", [5]), (5, [5]), ("10, 2,5", [2, 5, 10]),
        ([2, 5], [2, 5]), ("2:4,9", [2, 3, 9]),
    ],
)  # fmt: skip
def test_cluster_sizes_are_read_like_a_range(text, sizes):
    assert experiments.parse_k(text) == sizes


@pytest.mark.usefixtures("no_sweep")
@pytest.mark.parametrize("arguments", [["--people", "huge"], ["--jobs", "x"], ["--what"]])
def test_command_refuses_unknown_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        experiments.main(arguments)
    assert stop.value.code == 2 and "error" in capsys.readouterr().err


@pytest.mark.usefixtures("no_sweep")
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--partitioners", "ward,x", "partitioners: unknown partitioner 'x'"),
        ("--anonymizers", "x", "anonymizers: unknown anonymizer 'x'"),
        ("--seed", "x", "seeds: seeds must look like"),
        ("--recognisers", "x", "recognisers: unknown recogniser 'x'"),
        ("--experiment", "x", f"{experiments._FILES / 'x.toml'}: no such experiment"),
    ],
)
def test_command_says_what_it_does_not_know(folder, option, value, message, capsys):
    assert experiments.main([str(folder), option, value]) == 2
    assert f"python -m evaluation: error: {message}" in capsys.readouterr().err


@pytest.mark.parametrize(("k", "message"), [("1:3", "at least 2, got 1"), ("5:9", "fits 4 people")])
def test_command_says_which_k_do_not_fit(folder, tmp_path, tiny_experiment, k, message, capsys):
    asked = [str(folder), "--experiment", tiny_experiment, "--k", k, "--output", str(tmp_path)]
    assert experiments.main(asked) == 2
    assert re.search(f"error: .*{message}", capsys.readouterr().err)
    assert not list(tmp_path.glob("*.csv"))


@pytest.mark.usefixtures("no_sweep")
def test_command_says_that_a_folder_is_missing(tmp_path, capsys):
    assert experiments.main([str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_command_resumes_after_an_interruption(folder, tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "run_jobs", interrupt)
    assert experiments.main([str(folder), "--output", str(tmp_path)]) == 130
    assert "to resume" in capsys.readouterr().err


def test_detection_is_done_once(tiny, pixel, monkeypatch):
    """A second evaluation reads detections from the cache."""
    evaluation.evaluate(tiny, anonymizer.load("none", tiny))

    def never(image):
        raise AssertionError("detected again")

    monkeypatch.setattr(detection, "_search", never)
    assert evaluation.evaluate(tiny, anonymizer.load("none", tiny))["information_loss"] == 0


def test_a_person_in_two_clusters_is_refused():
    faces = datasets.load_faces("orl").select(slice(0, 40))  # four people, ten photos each
    with pytest.raises(ValueError, match="identities=faces.identities"):
        evaluation.release_images(faces, anonymizer.load("pixel", faces), np.arange(40) % 2)
