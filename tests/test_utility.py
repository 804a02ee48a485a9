"""Known answers for every measure of utility, and what identity, noise and mixed-up images must give."""

import itertools
import json
import os
import shutil
import subprocess
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from scipy.linalg import sqrtm
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score

import embedding
import intervals
import utility
import utils
from checks import NotApplicableError
from datasets import Faces
from recognisers import faceres
from utility import appearance, gaze, networks, quality
from utility.attributes import _cohen_kappa
from utility.groups import _age_groups
from utility.tasks import _balanced_accuracy, _predict_disjoint, _shared_units

#: The command of the package hifd, in an environment of its own.
HIFD = os.environ.get("ANONFACES_HIFD") or shutil.which("hifd")

PERFECT = {
    "detection_rate": 1, "age_error": 0, "sex_agreement": 1, "expression_agreement": 1, "pose_error": 0,
    "landmark_error": 0, "similarity": 1, "feature_distance": 0, "expression_similarity": 1,
    "sex_kappa": 1, "expression_kappa": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def some(orl):
    """One photo each of twelve people, three of them women, and two others of each."""
    people = np.isin(
        orl.identities, ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s35"]
    )
    kept = np.array([int(name.split("/")[1].split(".")[0]) <= 3 for name in orl.names])
    return orl.select(people & kept).split(1, 0)


def measured(faces, images, labels, **options):
    return utility.measure_utility(faces, images, labels, **options).set_index("metric")


@pytest.fixture(scope="module")
def unchanged(some):
    return measured(some, list(some.images), np.arange(len(some)))


# whole releases ---------------------------------------------------------------------------------------------


def test_unchanged_photos_have_perfect_utility(unchanged):
    for name, value in PERFECT.items():
        assert unchanged.loc[name, "value"] == pytest.approx(value, abs=1e-4), name
    assert (unchanged.loc[list(PERFECT), "n_failed"] == 0).all()
    for name in ("sharpness", "downstream_sex", "downstream_smile", "downstream_turn"):
        assert unchanged.loc[name, "value"] == pytest.approx(unchanged.loc[name, "baseline"], rel=0.3), name
    for name in ("downstream_sex", "downstream_smile", "downstream_turn"):  # learned from the very same
        assert unchanged.loc[name, "value"] == unchanged.loc[name, "baseline"]


def test_another_photo_of_the_person_lies_between_perfect_and_chance(unchanged):
    assert 0 < unchanged.loc["age_error", "baseline"] < unchanged.loc["age_error", "chance"]
    assert 0 < unchanged.loc["feature_distance", "baseline"] < unchanged.loc["feature_distance", "chance"]
    assert unchanged.loc["similarity", "chance"] < unchanged.loc["similarity", "baseline"] < 1
    assert unchanged.loc["sex_kappa", "chance"] < unchanged.loc["sex_kappa", "baseline"] <= 1


def test_noise_has_no_utility(some):
    random = np.random.RandomState(0)
    images = [random.randint(0, 256, image.shape).astype(np.uint8) for image in some.images]
    table = measured(some, images, np.arange(len(some)))
    assert (table.loc[list(PERFECT), "n_failed"].drop("detection_rate") == len(some)).all()
    assert table.loc["detection_rate", "value"] == 0 and table.loc["detection_rate", "high"] < 0.3
    assert table.loc[list(PERFECT), "value"].drop("detection_rate").isna().all()
    for name in ("sex_agreement", "expression_agreement", "similarity"):
        assert table.loc[name, "value_worst"] == 0
    assert "at least 4 distinct images" in table.loc["fid", "note"]


def test_mixed_up_photos_are_as_good_as_chance(some):
    rows = np.roll(np.arange(len(some)), 1)
    table = measured(some, [some.images[i] for i in rows], np.arange(len(some)))
    assert abs(table.loc["sex_kappa", "value"]) < 0.5
    assert table.loc["similarity", "value"] == pytest.approx(table.loc["similarity", "chance"], abs=0.1)
    assert table.loc["feature_distance", "value"] > table.loc["feature_distance", "baseline"]
    same = measured(some, list(some.images), np.arange(len(some)), metrics=["fid"])
    assert table.loc["fid", "value"] == pytest.approx(
        same.loc["fid", "value"]
    )  # who has which does not count
    assert table.loc["kid", "value"] < -0.1  # faces of people who are in the reference, and not their owners


def test_grey_photos_have_no_skin_tone_and_orl_no_known_attributes(unchanged):
    assert np.isnan(unchanged.loc["skin_tone_error", "value"])
    assert "12 photos left out" in unchanged.loc["skin_tone_error", "note"]
    assert (
        np.isnan(unchanged.loc["sex_known", "value"])
        and "has no labels for" in unchanged.loc["sex_known", "note"]
    )


def test_failures_are_counted(some):
    images = list(some.images)
    images[3] = np.zeros_like(images[3])
    table = measured(
        some, images, np.arange(len(some)), metrics=["sex_agreement", "age_error", "detection_rate"]
    )
    row = table.loc["sex_agreement"]
    assert (row["n"], row["n_failed"], row["value"]) == (11, 1, 1)
    assert row["value_worst"] == pytest.approx(11 / 12)
    assert table.loc["detection_rate", "value"] == pytest.approx(11 / 12)
    assert np.isnan(table.loc["age_error", "value_worst"])


def test_shared_image_counts_for_all_its_people(some):
    labels = np.repeat([0, 1], 6)
    images = [some.images[0], some.images[7]]
    readings = utility.FaceReadings(some)
    table = utility.photo_utility(some, images, labels, measures=["age_error", "sex_agreement"])
    np.testing.assert_allclose(
        table["age_error"], np.abs(readings.ages - readings.ages[[0, 7]][labels]), atol=1e-4
    )
    assert list(table.columns) == ["identity", "label", "failed", "age_error", "sex_agreement"]
    value = measured(some, images, labels, metrics=["age_error"]).loc["age_error", "value"]
    assert value == pytest.approx(table["age_error"].mean())


def test_results_repeat_and_inputs_stay(some):
    labels = np.arange(len(some))
    labels.flags.writeable = False
    first = utility.measure_utility(some, list(some.images), labels, metrics=["age_error"])
    again = utility.measure_utility(some, list(some.images), labels, metrics=["age_error"])
    pd.testing.assert_frame_equal(first, again)


def test_known_attributes_are_compared_with_what_is_read(some):
    readings = utility.FaceReadings(some)
    words = np.array(utility.SEXES)[readings.sexes]
    moods = np.array(utility.EXPRESSIONS)[readings.expressions]
    words[0] = "female" if words[0] == "male" else "male"  # one photo that the network reads wrong
    known = pd.DataFrame({"sex": words, "expression": moods})
    faces = Faces(some.images, some.identities, some.names, known, others=some.others)
    images = [image if i != 5 else np.zeros_like(image) for i, image in enumerate(some.images)]
    table = measured(faces, images, np.arange(len(some)), metrics=["sex_known", "expression_known"])
    row = table.loc["sex_known"]
    assert (row["n"], row["n_failed"]) == (11, 1)
    assert row["value"] == pytest.approx(10 / 11) and row["value_worst"] == pytest.approx(10 / 12)
    assert row["baseline"] == pytest.approx(11 / 12)
    assert table.loc["expression_known", "value"] == 1


def test_words_of_the_data_sets():
    images = np.zeros((3, 20, 20, 3), np.uint8)

    def faces(**columns):
        return Faces(images, list("abc"), list("abc"), pd.DataFrame(columns))

    np.testing.assert_array_equal(utility.known_sexes(faces(Male=[True, False, True])), [1, 0, 1])
    np.testing.assert_array_equal(utility.known_sexes(faces(sex=["Female", "male", "?"])), [0, 1, -1])
    np.testing.assert_array_equal(
        utility.known_expressions(faces(expression=["happy", "contemptuous", "neutral"])), [3, -1, 6]
    )
    np.testing.assert_array_equal(utility.known_sexes(faces()), [-1, -1, -1])


def test_missing_network_is_told_and_not_kept(some, monkeypatch, own_cache):
    few, labels = some.select([0, 1, 2]), np.arange(3)

    def absent(*_):
        raise networks.MissingModelError("the network is not installed")

    with monkeypatch.context() as patch:
        patch.setattr(networks, "load_session", absent)
        table = measured(few, list(few.images), labels, metrics=["age_error", "similarity"])
        assert np.isnan(table.loc["age_error", "value"]) and "not installed" in table.loc["age_error", "note"]
        assert table.loc["similarity", "value"] == 1
        assert utility.photo_utility(few, list(few.images), labels)["age_error"].isna().all()
    assert measured(few, list(few.images), labels, metrics=["age_error"]).loc["age_error", "value"] == 0


def test_bad_input_is_named(some):
    images, labels = list(some.images), np.arange(len(some))
    with pytest.raises(ValueError, match="12 labels"):
        utility.measure_utility(some, images, labels[:3])
    with pytest.raises(ValueError, match="every integer from 0 to 11"):
        utility.measure_utility(some, images, np.zeros(len(some), int))
    with pytest.raises(ValueError, match="unknown metric 'beauty'"):
        utility.measure_utility(some, images, labels, metrics=["beauty"])
    with pytest.raises(ValueError, match="unknown measure 'beauty'"):
        utility.photo_utility(some, images, labels, measures=["beauty"])
    with pytest.raises(TypeError, match="random_state"):
        utility.measure_utility(some, images, labels, random_state=None)
    with pytest.raises(TypeError, match="uint8"):
        utility.measure_utility(some, [image / 255 for image in images], labels)


def test_without_others_photos_are_compared_with_further_ones_or_themselves(orl):
    alone = orl.select([0, 10, 20])
    table = measured(alone, list(alone.images), np.arange(3), metrics=["similarity"])
    assert table.loc["similarity", "baseline"] == 1 and "themselves" in table.loc["similarity", "note"]
    two = orl.select([0, 1, 10, 11])
    table = measured(two, list(two.images), np.arange(4), metrics=["similarity"])
    assert table.loc["similarity", "baseline"] < 0.95 and "another photo" in table.loc["similarity", "note"]


# agreement --------------------------------------------------------------------------------------------------


readings = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30).map(np.array)


@given(readings)
def test_kappa_is_cohens(pairs):
    first, second = pairs.T
    ours = _cohen_kappa(first, second)
    if len(np.unique(pairs)) == 1:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(cohen_kappa_score(first, second), abs=1e-9)


@given(readings, st.data())
def test_weights_of_kappa_are_repetitions(pairs, data):
    weights = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs))))
    repeated = np.repeat(pairs, weights, axis=0)
    ours = _cohen_kappa(*pairs.T, weights.astype(float))
    theirs = _cohen_kappa(*repeated.T) if len(repeated) else np.nan
    assert ours == pytest.approx(theirs, abs=1e-9, nan_ok=True)


@given(readings)
def test_balanced_accuracy(pairs):
    truth, predicted = pairs.T
    expected = np.mean([np.mean(predicted[truth == name] == name) for name in np.unique(truth)])
    assert _balanced_accuracy(truth, predicted) == pytest.approx(expected)
    if len(np.unique(pairs)) > 1 and set(predicted) <= set(truth):
        assert expected == pytest.approx(balanced_accuracy_score(truth, predicted))


# intervals --------------------------------------------------------------------------------------------------


def test_interval_of_a_mean_is_that_of_theory():
    values = np.random.RandomState(0).normal(size=200)
    low, high = intervals.mean_interval(values, np.arange(200))
    error = 1.96 * values.std() / np.sqrt(200)
    assert (high - low) / 2 == pytest.approx(error, rel=0.1)
    assert low < values.mean() < high


def test_repeated_photos_of_a_person_do_not_narrow_the_interval():
    values = np.random.RandomState(0).normal(size=30)
    once = intervals.mean_interval(values, np.arange(30))
    np.testing.assert_allclose(
        intervals.mean_interval(np.repeat(values, 5), np.repeat(np.arange(30), 5)), once
    )


def test_interval_of_unanimous_shares_is_the_binomial_one():
    low, high = intervals.mean_interval(np.ones(40, dtype=bool), np.arange(40))
    assert (low, high) == (pytest.approx(0.025 ** (1 / 40)), 1)
    low, high = intervals.mean_interval(np.zeros(40, dtype=bool), np.arange(40))
    assert (low, high) == (0, pytest.approx(1 - 0.025 ** (1 / 40)))
    assert intervals.mean_interval(np.zeros(40), np.arange(40)) == (0, 0)  # errors of 0 are no share
    assert np.isnan(intervals.mean_interval(np.ones(1), np.zeros(1))).all()


# naturalness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("m", "n", "d"), [(50, 60, 4), (3, 60, 8), (5, 9, 40)])
def test_frechet_distance_by_formula(m, n, d):
    """With scikit-learn's covariances and SciPy's square root, also where values outnumber readings."""
    random = np.random.RandomState(0)
    first, second = random.normal(size=(m, d)) * np.linspace(1, 3, d), random.normal(1, 2, size=(n, d))
    a, b = ledoit_wolf(first)[0], ledoit_wolf(second)[0]
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(a + b - 2 * np.real(sqrtm(a @ b)))
    assert utility.frechet_distance(first, second) == pytest.approx(expected)
    assert utility.frechet_distance(second, first) == pytest.approx(expected)
    moved = first + np.append([3, 4], np.zeros(d - 2))
    assert utility.frechet_distance(first, moved) == pytest.approx(25)


def kernel_distance_by_hand(first, second, first_people, second_people):
    scale = np.mean([row @ row for row in second])

    def mean(a, b, a_people, b_people):
        pairs = [
            (a[i] @ b[j] / scale + 1) ** 3
            for i, j in itertools.product(range(len(a)), range(len(b)))
            if not set(a_people[i]) & set(b_people[j])
        ]
        return np.mean(pairs)

    return (
        mean(first, first, first_people, first_people)
        + mean(second, second, second_people, second_people)
        - 2 * mean(first, second, first_people, second_people)
    )


def membership(people, n):
    return np.array([[person in group for person in range(n)] for group in people])


def test_kernel_distance_by_hand():
    random = np.random.RandomState(0)
    first, second = random.normal(size=(4, 3)), random.normal(1, 1, size=(5, 3))
    apart = [[i] for i in range(4)], [[i + 4] for i in range(5)]
    assert utility.kernel_distance(first, second) == pytest.approx(
        kernel_distance_by_hand(first, second, *apart)
    )
    shared = [[0, 1], [2, 3], [4], [5]], [[0], [1], [1], [4], [6]]
    ours = utility.kernel_distance(first, second, *(membership(part, 7) for part in shared))
    assert ours == pytest.approx(kernel_distance_by_hand(first, second, *shared))


def test_kernel_distance_of_one_distribution_is_zero_on_average_however_few():
    random = np.random.RandomState(0)
    values = [
        utility.kernel_distance(random.normal(size=(4, 6)), random.normal(size=(30, 6))) for _ in range(600)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(600)
    biased = utility.frechet_distance(random.normal(size=(4, 6)), random.normal(size=(30, 6)))
    assert biased > 0.5


def test_naturalness_by_a_network_of_the_user(some, tmp_path):
    """A stand-in for Inception: an ONNX file whose features are the mean colours of the picture it is given."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 32, 32])
    answer = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "colours", [given], [answer])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "features.onnx")
    (tmp_path / "features.json").write_text('{"mean": 0.0, "scale": 1.0}')
    table = measured(
        some, list(some.images), np.arange(len(some)), metrics=["fid", "kid"],
        naturalness=f"onnx:{tmp_path / 'features.onnx'}",
    )  # fmt: skip
    own, others = (embedding.crops(part, 32).mean(axis=(1, 2)) for part in (some, some.others))
    assert table.loc["fid", "value"] == pytest.approx(utility.frechet_distance(own, others), rel=1e-3)
    assert "features.onnx" in table.loc["fid", "note"] and np.isfinite(table.loc["kid", "value"])


def test_naturalness_takes_any_embedding(some, tmp_path):
    path = tmp_path / "stored.npz"
    utils.save_encodings(path, some.names, np.zeros((len(some), 3)))
    with pytest.raises(TypeError, match="by the photos' names"):  # which images of a release do not have
        utility.measure_utility(
            some, list(some.images), np.arange(len(some)), metrics=["fid"], naturalness=f"stored:{path}"
        )
    table = measured(some, list(some.images), np.arange(len(some)), metrics=["kid"])
    assert "dlib" in table.loc["kid", "note"] and table.loc["kid", "n"] == 12


# downstream -------------------------------------------------------------------------------------------------


def test_what_can_be_learned_is_learned():
    targets = np.tile([0, 1], 10)
    rows = targets[:, None] + np.random.RandomState(0).normal(0, 0.1, (20, 2))
    units = np.arange(20)
    np.testing.assert_array_equal(_predict_disjoint(rows, targets, units, rows, units), targets)


def test_nobody_is_tested_on_what_they_went_into(monkeypatch):
    units = np.repeat(np.arange(6), 3)
    rows = np.column_stack([units, np.tile([0, 1, 2], 6)]).astype(float)
    seen = []

    class Recorder:
        def __init__(self, **_):
            pass

        def fit(self, rows, targets):
            self.units = set(rows[:, 0])
            return self

        def predict(self, rows):
            seen.append((self.units, set(rows[:, 0])))
            return np.zeros(len(rows), int)

    monkeypatch.setattr("sklearn.linear_model.LogisticRegression", Recorder)
    _predict_disjoint(rows, np.tile([0, 1, 1], 6), units, rows, units)
    assert len(seen) == 5 and set().union(*(tested for _, tested in seen)) == set(range(6))
    assert all(not learned & tested for learned, tested in seen)
    assert all(learned | tested == set(range(6)) for learned, tested in seen)


def test_people_linked_by_images_are_one_unit():
    labels = np.array([0, 0, 1, 1, 2, 3])
    units = _shared_units(labels, np.array(list("abbcde")))
    assert units["a"] == units["b"] == units["c"]
    assert len({units["a"], units["d"], units["e"]}) == 3


def test_downstream_needs_two_classes_and_two_units():
    rows = np.zeros((4, 2))
    with pytest.raises(NotApplicableError, match="same label"):
        _predict_disjoint(rows, np.zeros(4, int), np.arange(4), rows, np.arange(4))
    with pytest.raises(NotApplicableError, match="share one image"):
        _predict_disjoint(rows, np.array([0, 1, 0, 1]), np.zeros(4), rows, np.zeros(4))


# groups -----------------------------------------------------------------------------------------------------


def test_groups_by_hand():
    people = np.array(list("aabcdefgh"))
    values = pd.DataFrame({"hit": [1, 0, 1, 1, 1, 0, 0, np.nan, 0], "years": np.arange(9.0)})
    groups = pd.DataFrame({"sex": ["f"] * 3 + ["m"] * 6})
    table = utility.by_group(values, groups, people).set_index(["measure", "group"])
    women, men = table.loc[("hit", "f")], table.loc[("hit", "m")]
    assert (women["value"], women["n_people"], women["n"], women["few"]) == (pytest.approx(2 / 3), 2, 3, True)
    assert (men["value"], men["n"], men["n_failed"], men["few"]) == (pytest.approx(0.4), 5, 1, False)
    assert table.loc[("hit", "all"), "value"] == pytest.approx(0.5)
    assert table.loc[("years", "m"), "value"] == pytest.approx(5.5)
    assert men["low"] < men["value"] < men["high"]
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        utility.by_group(values, groups[:3], people)


def test_clusters_by_hand():
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    groups = np.array(list("ffmmmfff"))
    identities = np.array(list("abcdeghh"))  # h has two photos and counts once
    table = utility.cluster_homogeneity(labels, groups, identities, n_random=2).set_index("measure")
    entropy = -(0.6 * np.log2(0.6) + 0.4 * np.log2(0.4))
    np.testing.assert_allclose(table["value"], [(5 * 0.6 + 2) / 7, (5 * 2 + 2) / 7, 5 * entropy / 7])
    np.testing.assert_allclose(table["worst"], [1, 1, 0])


def test_random_clusters_are_those_of_enumeration():
    labels, groups, identities = np.array([0, 0, 1, 1]), np.array(list("ffmm")), np.array(list("abcd"))
    table = utility.cluster_homogeneity(labels, groups, identities, n_random=4000).set_index("measure")
    assert table.loc["majority_share", "value"] == table.loc["majority_share", "worst"] == 1
    assert table.loc["majority_share", "random"] == pytest.approx(1 / 3 + 2 / 3 * 0.5, abs=0.02)
    assert table.loc["distinct", "random"] == pytest.approx(1 / 3 + 2 / 3 * 2, abs=0.05)
    assert table.loc["entropy", "value"] == 0
    assert (table["random_low"] <= table["random"]).all() and (table["random"] <= table["random_high"]).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("xyz")), min_size=3, max_size=25))
def test_homogeneity_keeps_its_bounds(cells):
    labels, groups = np.array([label for label, _ in cells]), np.array([group for _, group in cells])
    identities = np.arange(len(cells)).astype(str)
    table = utility.cluster_homogeneity(labels, groups, identities, n_random=5).set_index("measure")
    counts = pd.crosstab(labels, groups).to_numpy()
    assert table.loc["majority_share", "value"] == pytest.approx(counts.max(axis=1).sum() / len(cells))
    for measure, most in (("majority_share", 1), ("distinct", 3), ("entropy", np.log2(3))):
        assert 0 <= table.loc[measure, "value"] <= most + 1e-12
        assert 0 <= table.loc[measure, "random_low"] <= table.loc[measure, "random_high"] <= most + 1e-12


def test_people_are_grouped_by_what_is_known_or_read(some):
    groups = utility.people_groups(some)
    assert groups.attrs["sources"] == {"sex": "network", "age_group": "network"}
    women = set(some.identities[groups["sex"] == "female"])
    assert women == {"s8", "s10", "s35"}
    known = pd.DataFrame({"sex": ["female"] * 12, "ethnicity": ["Caucasian"] * 12})
    faces = Faces(some.images, some.identities, some.names, known)
    groups = utility.people_groups(faces)
    assert groups.attrs["sources"] == {"sex": "data set", "age_group": "network", "ethnicity": "data set"}
    assert set(groups["sex"]) == {"female"}


def test_age_groups():
    np.testing.assert_array_equal(
        _age_groups(np.array([0, 29.9, 30, 44.9, 45, 80])),
        ["under 30"] * 2 + ["30 to 44"] * 2 + ["45 and over"] * 2,
    )


# what papers report ------------------------------------------------------------------------------------------


def test_niqe_is_that_of_scikit_video():
    """Blurred noise; the values are those of scikit-video 1.1.11."""
    for seed, side, known in ((0, 200, 35.949963), (1, 300, 34.077557)):
        noise = np.random.default_rng(seed).normal(128, 60, (side, side))
        picture = np.clip(cv2.GaussianBlur(noise, (0, 0), 1.5) * 2 - 128, 0, 255).astype(np.float32)
        assert quality.niqe(picture) == pytest.approx(known, rel=1e-3)
    assert np.isfinite(quality.niqe(np.full((192, 192), 7)))
    with pytest.raises(ValueError, match="at least 192 x 192"):
        quality.niqe(np.zeros((100, 200)))


def test_signal_to_noise_and_cosine_by_hand():
    flat = np.full((4, 4), 100, np.uint8)
    assert appearance.peak_signal_to_noise(flat, flat + 10) == pytest.approx(20 * np.log10(25.5))
    assert appearance.peak_signal_to_noise(flat, flat) == pytest.approx(10 * np.log10(255**2 * 12))
    assert appearance.cosine_similarity(np.array([1.0, 0]), np.array([3.0, 3])) == pytest.approx(np.sqrt(0.5))


def test_expressions_are_compared_by_total_variation():
    compare = utility.PHOTO_MEASURES["expression_similarity"].values
    pair = np.array([[1.0, 0, 0], [0.2, 0.3, 0.5]]), np.array([[0.25, 0.75, 0], [0.2, 0.5, 0.3]])
    assert compare(SimpleNamespace(pair=lambda reading: pair)).tolist() == pytest.approx([0.25, 0.8])


def test_the_gaze_follows_iris_and_head(monkeypatch):
    """An iris 0.21 eye widths to the right of an eyeball of radius 0.42 looks 30 degrees to the right."""
    level = np.array([[0.0, -gaze._LEVEL], [0.21, -gaze._LEVEL], [0.0, 0.21 - gaze._LEVEL]])
    front = np.diag([1.0, -1.0, -1.0])  # the head's y axis points up, its z axis to the camera
    straight, right, down = gaze.directions(level, np.stack([front] * 3))
    np.testing.assert_allclose(straight, [0, 0, -1], atol=1e-9)
    np.testing.assert_allclose(right, [0.5, 0, -np.sqrt(0.75)], atol=1e-9)
    np.testing.assert_allclose(down, [0, 0.5, -np.sqrt(0.75)], atol=1e-9)
    assert gaze.angle_between(straight, right) == pytest.approx(30)
    turned = (
        np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]) @ front
    )  # the head looks to the viewer's right or left
    assert gaze.angle_between(
        *gaze.directions(level[:1].repeat(2, 0), np.stack([front, turned]))
    ) == pytest.approx(90)

    def run(eyes, output):
        """The iris is where the eye is brightest."""
        points = np.zeros((len(eyes), 76, 3))
        for i, eye in enumerate(eyes[..., 0]):
            points[i, 71, 1::-1] = np.argwhere(eye == eye.max()).mean(axis=0)
        return points.reshape(len(eyes), -1)

    monkeypatch.setattr(gaze, "load", lambda name: SimpleNamespace(run=run))
    landmarks = np.zeros((68, 2))
    landmarks[[36, 39, 42, 45]] = [[20, 50], [40, 50], [60, 50], [80, 50]]
    image = np.zeros((100, 100, 3), np.uint8)
    image[50, 34] = image[50, 74] = 255  # both 4 to the right of the middle, 0.2 of an eye's 20
    offsets = gaze.read_irises(gaze.crop_eyes(image, landmarks)[None])
    np.testing.assert_allclose(offsets, [[0.2, 0]], atol=0.03)


@pytest.mark.skipif(not faceres.is_installed("iris"), reason="iris is not installed: make recogniser")
def test_mirrored_photos_look_the_other_way(some):
    mirrored = utility.FaceReadings([image[:, ::-1] for image in some.images]).gazes
    angles = [
        gaze.angle_between(*pair)
        for pair in zip(utility.FaceReadings(some).gazes * [-1, 1, 1], mirrored, strict=True)
    ]
    assert np.median(angles) < 8


@pytest.mark.skipif(not faceres.is_installed("gear"), reason="gear is not installed: make recogniser")
def test_ethnicity_is_a_distribution(some):
    shares = utility.FaceReadings(some).ethnicity_shares
    assert shares.shape == (12, 5)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)


@pytest.fixture(scope="module")
def predictions(some, tmp_path_factory):
    """The predictions for unchanged photos, the last of which is replaced by noise."""
    folder = tmp_path_factory.mktemp("hifd")
    images = [*some.images[:-1], np.random.RandomState(0).randint(0, 256, (112, 92, 3)).astype(np.uint8)]
    return folder, utility.to_hifd(folder, some, images, np.arange(12), "mine")


def test_predictions_for_hifd_count_failures_as_the_worst(some, predictions):
    folder, tasks = predictions
    assert {"age", "gender", "macro_exp", "landmark", "face_embedding", "niqe"} <= set(tasks)
    assert json.loads((folder / "methods.yaml").read_text())["methods"] == [
        {"name": "mine", "base_path": "mine"}
    ]

    def read(source, task):
        entry = json.loads((folder / source / f"{task}.json").read_text())
        assert list(entry["predictions"]) == [f"{i:06d}" for i in range(12)]
        return entry["predictions"]

    ages, drawn = read("original", "age"), read("mine", "age")
    assert [drawn[i]["value"] - ages[i]["value"] for i in ages] == pytest.approx([0] * 11 + [100])
    before, after = (np.array(read(source, "gender")["000011"]["probs"]) for source in ("original", "mine"))
    assert np.abs(before - after).sum() / 2 == pytest.approx(before.max())
    assert read("mine", "face_embedding") == read(
        "original", "face_embedding"
    )  # the last counts as not private
    points = [np.array(read(source, "landmark")["000011"]["points"]) for source in ("original", "mine")]
    assert np.linalg.norm(points[0] - points[1], axis=1).min() > 100
    with pytest.raises(ValueError, match="name of a folder"):
        utility.to_hifd(folder, some, list(some.images), np.arange(12), "original")


def test_the_composite_with_the_sign_of_niqe_corrected():
    """A NIQE of 2.5 is a quality of 1/2; the harmonic mean of 1/2, 1/2 and 1/4 is 3/8 * 4/3."""
    scores = utility.hifd_composites({"P": 0.5, "Q": 2.5, "U1": 0.25, "U2": float("nan")})
    assert scores["balanced"] == pytest.approx(3 / (2 + 2 + 4), rel=1e-4)
    better, worse = (utility.hifd_composites({"P": 0.5, "Q": q})["balanced"] for q in (1, 4))
    assert better > worse > utility.hifd_composites({"P": 0.5, "Q": 60})["balanced"]


def test_tables_in_the_words_of_papers():
    table = pd.DataFrame(
        {
            "metric": ["psnr", "fid"], "anonymizer": ["stylegan_adjusted", "aam"], "k": [5, 5],
            "value": [17.4649, np.nan], "low": [17.0, np.nan], "high": [18.0, np.nan], "seed": [0, 0],
        }
    )  # fmt: skip
    words = utility.paper_table(table)
    assert list(words) == ["Method", "Metric", "$k$", "Value", r"95\,\% CI"]
    assert words.iloc[0].tolist() == [
        r"stylegan\_adjusted",
        r"PSNR (dB) $\uparrow$",
        "5",
        "17.465",
        "[17.000, 18.000]",
    ]
    assert words.iloc[1, 3:].tolist() == ["--", "--"]
    lines = utility.to_latex(table).splitlines()
    assert lines[0] == r"\begin{tabular}{lllll}" and lines[-1] == r"\end{tabular}"
    assert lines[4].startswith(r"stylegan\_adjusted & PSNR") and lines[4].endswith(r"18.000] \\")


@pytest.mark.full
@pytest.mark.skipif(not HIFD, reason="hifd 0.1.0 is not installed: name its command in ANONFACES_HIFD")
def test_hifd_scores_a_release(predictions, tmp_path):
    folder, tasks = predictions
    files = ["--methods", folder / "methods.yaml", "--estimators", folder / "estimators.yaml"]
    subprocess.run([HIFD, "run-all", *files, "--data-dir", folder, "--out", tmp_path], check=True)
    scores = pd.read_csv(tmp_path / "per_method" / "method_level.csv", comment="#").iloc[0]
    assert scores["P"] == pytest.approx(0, abs=1e-6)  # the photos themselves
    for name in ("age", "gender", "macro_exp", "landmark"):
        assert scores[name] == pytest.approx(11 / 12, abs=0.05)  # one of twelve failed
    table = pd.read_csv(tmp_path / "tables" / "composite.csv", comment="#").iloc[0]
    plain = {**scores.to_dict(), "Q": None}
    assert (
        utility.hifd_composites(plain)["balanced"] <= table["balanced"] + 1e-6
    )  # which counts NIQE as quality


def test_every_metric_says_what_is_better(unchanged):
    assert list(unchanged.index) == list(utility.METRICS)
    assert set(unchanged["better"]) <= {"higher", "lower", "baseline"}


def test_releases_of_the_same_photos_have_the_same_baseline(some, unchanged):
    table = measured(
        some, [some.images[0], some.images[7]], np.repeat([0, 1], 6), metrics=["age_error", "similarity"]
    )
    for name in ("age_error", "similarity"):
        assert table.loc[name, "baseline"] == unchanged.loc[name, "baseline"]
