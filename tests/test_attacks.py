"""Attacks worked out by hand and by brute force; what no anonymization and what noise must give."""

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV
from sklearn.metrics import roc_curve

import anonymizer
import attacks
import detection
import embedding
import evaluation
import frame
import intervals
import recognisers
from attacks import AttackResult, DescribedRelease, Gallery, Practice, Published
from attacks.insiders import _known_sets
from attacks.learning import _blended, _fit_ridge
from attacks.linking import _among_first
from attacks.search import Ranking
from checks import NotApplicableError

#: Everything is computed here and now, whatever lies in the project's cache.
pytestmark = pytest.mark.usefixtures("module_cache")


def line(*values):
    """Descriptors of one number each: (n, 1)."""
    return np.array(values, dtype=float)[:, None]


def release(values, labels, people, found=None):
    found = np.ones(len(values), bool) if found is None else np.array(found)
    return DescribedRelease(line(*values), found, np.array(labels), np.array(list(people)))


def gallery(values, people):
    return Gallery(line(*values), np.array(list(people)))


def by_name(results):
    return {(result.attack, result.level): result for result in results}


def crowd(n_people=40, n_photos=5, d=24, spread=0.3, seed=0):
    """Descriptors (n, d) of photos around a point for each person, and names."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(n_people, d))
    names = np.array([f"p{i:03d}" for i in range(n_people)])
    photos = np.repeat(centres, n_photos, axis=0) + spread * random.normal(size=(n_people * n_photos, d))
    return photos, np.repeat(names, n_photos)


def own_images(photos, names):
    """Each photo released as it is."""
    return DescribedRelease(photos, np.ones(len(photos), bool), np.arange(len(photos)), names)


def shared_means(photos, names, k):
    """Everybody's first photo, the mean of each k people released."""
    people, first = np.unique(names, return_index=True)
    labels = np.arange(len(people)) // k
    means = np.stack([photos[first][labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    return DescribedRelease(means, np.ones(len(means), bool), labels, people), photos[first]


def part_of(released, n_images):
    """The first images of a release, and their people."""
    kept = released.labels < n_images
    return DescribedRelease(
        released.descriptors[:n_images],
        released.found[:n_images],
        released.labels[kept],
        released.identities[kept],
    )


# ---- places in a search ----


def brute_hit(values, members, rank):
    """Share of all orders of a list of distances in which a member is among the first `rank`."""
    hits = total = 0
    for order in itertools.permutations(range(len(values))):
        if all(values[a] <= values[b] for a, b in itertools.pairwise(order)):
            total += 1
            hits += any(i in members for i in order[:rank])
    return hits / total


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 2), min_size=2, max_size=6),
    st.data(),
)
def test_ties_are_broken_at_random_as_in_all_orders(values, data):
    members = data.draw(st.sets(st.integers(0, len(values) - 1), min_size=1))
    rank = data.draw(st.integers(1, len(values)))
    sought = np.isin(np.arange(len(values)), list(members))[None]
    found = Ranking.of(np.array([values], dtype=float), sought).hits(rank)
    assert found[0] == pytest.approx(brute_hit(values, members, rank))


def test_the_expected_rank_of_a_tied_member():
    sought = np.array([[False, True, False, True]])
    ranking = Ranking.of(np.array([[0.0, 1.0, 1.0, 1.0]]), sought)
    orders = [min(o.index(1), o.index(3)) for o in itertools.permutations([1, 2, 3])]
    assert ranking.expected_rank[0] == pytest.approx(2 + np.mean(orders))


def test_a_person_is_as_far_as_their_nearest_photo():
    known = gallery([3, 1, 2], "bab")
    assert list(known.people) == ["a", "b"]
    np.testing.assert_array_equal(known.person_distances(np.array([[3.0, 1.0, 2.0]])), [[1.0, 2.0]])
    np.testing.assert_array_equal(known.distances_from(line(0)), [[1.0, 2.0]])


# ---- identification ----


def test_identification_by_hand():
    """Image 0 at 0 stands for a and b, image 1 at 10 for c and d; d is nearest to 0, a next, then b; c is at 10."""
    results = by_name(
        attacks.identification(
            release([0, 10], [0, 0, 1, 1], "abcd"), gallery([2, 3, 10, 1], "abcd"), ranks=(1, 2, 3)
        )
    )
    assert results["rank-1", "person"].rate == 1 / 4  # c
    assert results["rank-1", "cluster"].rate == 2 / 4
    assert results["rank-2", "person"].rate == 2 / 4  # a and c; next to 10 is b
    assert results["rank-2", "cluster"].rate == 1.0
    assert results["rank-3", "person"].rate == 3 / 4
    assert results["rank-1", "person"].chance == 1 / 4
    assert results["rank-1", "cluster"].chance == 2 / 4
    assert results["rank-2", "cluster"].chance == pytest.approx(
        1 - 1 / 6
    )  # both of two drawn are strangers: 1 of 6
    table = results["rank-1", "person"].per_person.set_index("person")
    assert table["rank"].to_dict() == {"a": 2, "b": 3, "c": 1, "d": 4}


def test_people_without_a_face_on_their_image_are_a_class_of_their_own():
    """Image 0 leads to a, image 1 shows no face and leads nowhere, image 2 shows none and leads to c."""
    given_release = release([0, 0, 2], [0, 1, 2], "abc", [True, False, False])
    result = attacks.identification(given_release, gallery([0, 1, 2], "abc"), ranks=[1])[0]
    assert (result.rate, result.rate_all, result.rate_worst) == (1.0, 2 / 3, 1.0)
    assert (result.n_people, result.n_failed) == (3, 2)
    assert result.per_person["failed"].tolist() == [False, True, True]


def test_nothing_is_claimed_where_no_image_shows_a_face():
    result = attacks.identification(
        release([0, 1], [0, 1], "ab", [False, False]), gallery([0, 1], "ab"), ranks=[1]
    )[0]
    assert np.isnan([result.rate, result.low, result.high]).all()
    assert (result.rate_all, result.rate_worst, result.note) == (1.0, 1.0, "no image shows a face")


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 5), st.integers(0, 10**6), st.sampled_from([1, 3, 5]))
def test_shared_images_name_at_most_one_in_k(k, seed, rank):
    random = np.random.default_rng(seed)
    descriptors = random.integers(0, 3, size=(4 * k, 2)).astype(float)  # many ties
    given_release = DescribedRelease(
        descriptors[:4], np.ones(4, bool), np.arange(4 * k) // k, np.arange(4 * k).astype(str)
    )
    results = attacks.identification(
        given_release, Gallery(descriptors, np.arange(4 * k).astype(str)), ranks=[rank]
    )
    person, cluster = results
    assert person.rate <= min(1, rank / k) + 1e-9
    assert person.rate <= cluster.rate + 1e-9 <= 1 + 2e-9


def test_a_gallery_of_the_release_itself_leads_to_the_cluster_and_to_one_in_k():
    photos, names = crowd(12, 1)
    shared, _ = shared_means(photos, names, 4)
    results = by_name(attacks.identification(shared, Gallery.anonymized(shared), ranks=[1]))
    assert results["rank-1", "cluster"].rate == 1.0
    assert results["rank-1", "person"].rate == pytest.approx(1 / 4)


def test_a_person_who_is_not_in_the_gallery_is_refused():
    with pytest.raises(ValueError, match="1 released people are not in the gallery, e.g. b"):
        attacks.identification(release([0, 1], [0, 1], "ab"), gallery([0, 1], "ac"))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"descriptors": np.zeros(3)}, "must have descriptors"),
        ({"descriptors": line(0, np.nan)}, "finite descriptors"),
        ({"found": np.ones(3, bool)}, "found must have shape"),
        ({"labels": np.array([0, 2])}, "labels must use every integer"),
        ({"identities": np.array(["a"])}, "labels must be 1 labels"),
    ],
)
def test_releases_that_do_not_fit_are_refused(parts, message):
    whole = {
        "descriptors": line(0, 1),
        "found": np.ones(2, bool),
        "labels": np.array([0, 1]),
        "identities": np.array(["a", "b"]),
    }
    with pytest.raises(ValueError, match=message):
        DescribedRelease(**{**whole, **parts})


def test_descriptors_of_two_recognisers_do_not_compare():
    with pytest.raises(ValueError, match="of 1 and 2 values"):
        attacks.identification(release([0], [0], "a"), Gallery(np.zeros((1, 2)), np.array(["a"])))


# ---- sanity: no anonymization, and noise ----


def test_without_anonymization_every_attack_succeeds():
    photos, names = crowd()
    first = np.arange(0, len(photos), 5)
    clear = own_images(photos[first], names[first])
    rest = np.setdiff1d(np.arange(len(photos)), first)
    known, again = Gallery(photos[rest], names[rest]), own_images(photos[first + 1], names[first])
    results = by_name(
        [
            *attacks.identification(clear, known, ranks=[1]),
            *attacks.posterior(clear, known),
            *attacks.linkability(clear, again),
            *attacks.composition([clear, again], known),
            *attacks.learned(clear, known, method="parrot"),
            *attacks.learned(clear, known, method="parrot pairs"),
            *attacks.learned(clear, known, method="reversal"),
            *attacks.learned(clear, known, method="reversal pixels"),
            *attacks.verification(clear, known, [1e-2])[1:],
            *attacks.minimality(clear, again),
            *attacks.region(clear, [("eyes", again)], known),
            *attacks.membership(part_of(clear, 20), known),
            *attacks.control(part_of(clear, 20), known, 4.0),
            *attacks.open_set(part_of(clear, 20), known),
            *attacks.insider_picture(clear, [("pixels", again)], known),
        ]
    )
    weak = {name: result.rate for name, result in results.items() if result.rate < 0.95}
    assert not weak
    assert attacks.verification(clear, known)[0].rate < 0.01
    assert results["posterior", "person"].per_person["set_size"].max() < 1.5


def test_noise_gives_chance():
    """Every interval of an attack on images that tell nothing covers what a blind guess reaches."""
    photos, names = crowd(60)
    people = np.unique(names)
    random = np.random.default_rng(1)
    noise = DescribedRelease(random.normal(size=(12, 24)), np.ones(12, bool), np.arange(60) // 5, people)
    second = DescribedRelease(random.normal(size=(12, 24)), np.ones(12, bool), np.arange(60) % 12, people)
    known = Gallery(photos, names)
    results = [
        *attacks.identification(noise, known),
        *attacks.posterior(noise, known),
        *attacks.verification(noise, known, [1e-2]),
        *attacks.linkability(noise, second),
        *attacks.insider(noise, random.normal(size=(60, 24)), known, 2),
        *attacks.learned(noise, known, method="parrot"),
        *attacks.learned(noise, known, method="reversal"),
    ]
    part = part_of(noise, 6)
    pictures = own_images(random.normal(size=(60, 24)), people)
    further = random.normal(size=(40, 24))
    results += [
        *attacks.minimality(noise, second),
        *attacks.region(noise, [("eyes", second)], known),
        *attacks.membership(part, known),
        *attacks.control(
            part, known, np.median(attacks.distances(part.descriptors, known.descriptors).min(axis=0))
        ),
        *attacks.open_set(part, known, further),
        *attacks.insider_picture(noise, [("pixels", pictures)], known),
    ]
    missed = [
        (result.attack, result.level, result.low, result.chance, result.high)
        for result in results
        if not result.low - 0.02 <= result.chance <= result.high + 0.02
    ]
    assert not missed
    assert len(results) == 8 + 1 + 2 + 1 + 2 + 2 + 2 + 2 + 1 + 2 + 1 + 3 + 1


# ---- intervals ----


def test_the_interval_of_a_mean_is_near_the_normal_one():
    values = np.random.default_rng(0).random(400)
    low, high = intervals.rate_interval(values, np.arange(400))
    margin = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - margin, values.mean() + margin), abs=0.005)


def test_doubling_every_value_of_a_unit_changes_nothing():
    values = np.random.default_rng(0).random(30)
    once = intervals.rate_interval(values, np.arange(30))
    assert intervals.rate_interval(np.repeat(values, 2), np.repeat(np.arange(30), 2)) == pytest.approx(once)


def test_where_all_agree_the_exact_interval_stands():
    """0 of 10: the rate at which none of ten succeeds with probability 2.5 %."""
    low, high = intervals.rate_interval(np.zeros(20), np.repeat(np.arange(10), 2))
    assert low == 0 and (1 - high) ** 10 == pytest.approx(0.025)
    low, high = intervals.rate_interval(np.ones(10), np.arange(10))
    assert high == 1 and low**10 == pytest.approx(0.025)
    assert np.isnan(intervals.rate_interval(np.array([]), np.array([]))).all()


def test_the_worst_are_reported_beside_the_mean():
    table = pd.DataFrame(
        {
            "person": [f"p{i}" for i in range(40)],
            "image": np.arange(40) // 4,
            "failed": False,
            "group": np.arange(40) // 4,
            "success": np.linspace(0, 1, 40),
        }
    )
    result = AttackResult.of_cases("made up", "person", table, 0.0, 0)
    assert result.rate == pytest.approx(0.5)
    assert result.worst_people == pytest.approx(np.mean([1, 38 / 39]))
    assert result.worst_cluster == pytest.approx(np.mean([36, 37, 38, 39]) / 39)


# ---- what is left of anonymity ----


def test_images_that_tell_nothing_leave_the_whole_gallery():
    """Both images are as near to everybody: slope 0, a belief of 1/4 in each."""
    result = attacks.posterior(release([0, 0], [0, 0, 1, 1], "abcd"), gallery([1, -1, 1, -1], "abcd"))[0]
    table = result.per_person
    assert result.rate == pytest.approx(1 / 4)
    np.testing.assert_allclose(table["set_size"], 4.0)
    np.testing.assert_allclose(table["entropy"], 2.0)
    assert "median 4.0 people" in result.note


def test_the_posterior_is_the_softmax_under_the_best_slope():
    random = np.random.default_rng(3)
    given_release = release([0, 1, 2, 3], [0, 1, 2, 3], "abcd")
    known = gallery(np.arange(4) + random.normal(size=4), "abcd")
    result = attacks.posterior(given_release, known)[0]
    d = np.abs(np.arange(4)[:, None] - known.descriptors[:, 0])
    slopes = np.linspace(0, 20, 20001)[:, None, None]
    belief = np.exp(-slopes * d)
    belief /= belief.sum(axis=2, keepdims=True)
    best = belief[np.log(belief[:, range(4), range(4)]).sum(axis=1).argmax()]
    np.testing.assert_allclose(result.per_person["success"], best.diagonal(), atol=2e-3)
    entropy = -(best * np.log2(best)).sum(axis=1)
    np.testing.assert_allclose(result.per_person["set_size"], 2**entropy, rtol=5e-3)


def test_people_who_share_an_image_hide_among_k_at_least():
    photos, names = crowd(20, 5)
    shared, _ = shared_means(photos, names, 5)
    result = attacks.posterior(shared, Gallery(photos, names))[0]
    assert result.rate <= 1 / 5 + 1e-9
    assert (result.per_person.groupby("image")["success"].sum() <= 1 + 1e-9).all()


# ---- verification ----


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=15),
    st.lists(st.integers(0, 6), min_size=1, max_size=15),
    st.sampled_from([0.01, 0.1, 0.3, 0.5]),
)
def test_the_curve_is_that_of_scikit_learn(genuine, impostor, far):
    curve = attacks.roc(genuine, impostor)
    truth = np.repeat([1, 0], [len(genuine), len(impostor)])
    false, true, cut = roc_curve(truth, -np.array(genuine + impostor, float), drop_intermediate=False)
    np.testing.assert_allclose(curve.false_accept_rate, false)
    np.testing.assert_allclose(curve.true_accept_rate, true)
    np.testing.assert_allclose(curve.threshold[1:], -cut[1:])
    threshold, accepted = curve.at(far)
    assert accepted == pytest.approx(true[false <= far].max())
    assert np.mean(np.array(impostor) <= threshold) <= far
    assert accepted == pytest.approx(np.mean(np.array(genuine) <= threshold))


def test_equal_error_rates_by_hand():
    assert attacks.roc([1, 2], [3, 4]).equal_error_rate == 0.0
    assert attacks.roc([3, 4], [1, 2]).equal_error_rate == 1.0
    assert attacks.roc([1, 2, 3, 9], [4, 5, 6, 2.5]).equal_error_rate == pytest.approx(1 / 4)
    assert attacks.roc([1], [1]).equal_error_rate == 0.5


@pytest.mark.parametrize("pairs", [([], [1]), ([1], []), ([np.nan], [1])])
def test_curves_need_pairs_of_both_kinds(pairs):
    with pytest.raises(ValueError, match="needs genuine and impostor pairs at finite"):
        attacks.roc(*pairs)


def test_verification_pairs_photos_with_images_of_their_people():
    """Image 0 at 0 for a, b; image 1 at 10 for c: genuine distances 1, 5, 0; impostor 9, 5, 10."""
    eer, tar = attacks.verification(release([0, 10], [0, 0, 1], "abc"), gallery([1, 5, 10], "abc"), [0.5])
    assert tar.note == "not estimable: FAR 0.5 needs 20 impostor pairs, got 3"
    assert np.isnan([tar.rate, tar.low, tar.high, tar.rate_worst]).all()
    assert eer.rate == pytest.approx(attacks.roc([1, 5, 0], [9, 5, 10]).equal_error_rate)
    assert (eer.chance, eer.n_people) == (0.5, 3)


def test_verification_agrees_with_a_curve_over_all_pairs():
    photos, names = crowd(20, 5, spread=2.0)
    shared, _ = shared_means(photos, names, 4)
    known = Gallery(photos, names)
    d = attacks.distances(photos, shared.descriptors)
    image_of = dict(zip(shared.identities, shared.labels, strict=True))
    genuine = np.array([[image_of[name] == i for i in range(5)] for name in names])
    false, true, _ = roc_curve(genuine.ravel(), -d.ravel(), drop_intermediate=False)
    eer, tar = attacks.verification(shared, known, [0.1])
    assert tar.rate == pytest.approx(true[false <= 0.1].max())
    crossing = np.argmin(np.abs(false + true - 1))
    assert eer.rate == pytest.approx((false[crossing] + 1 - true[crossing]) / 2, abs=0.01)
    assert eer.low <= eer.rate <= eer.high and tar.low <= tar.rate <= tar.high
    assert tar.rate == pytest.approx(np.average(tar.per_person["success"]))


def test_failed_images_are_verified_in_the_worst_rate_only():
    photos, names = crowd(20, 5, spread=0.1)
    shared, _ = shared_means(photos, names, 5)
    blank = DescribedRelease(
        shared.descriptors, np.array([True, True, True, False]), shared.labels, shared.identities
    )
    eer, tar = attacks.verification(blank, Gallery(photos, names), [0.1])
    assert tar.n_failed == eer.n_failed == 5
    assert tar.rate_worst == pytest.approx(0.75 * tar.rate + 0.25)
    assert eer.rate_worst == pytest.approx(0.75 * eer.rate)


def test_verification_without_impostors_is_not_applicable():
    with pytest.raises(NotApplicableError, match="got 2 and 0"):
        attacks.verification(release([0], [0, 0], "ab"), gallery([0, 1], "ab"))


def test_two_releases_are_verified_by_the_people_they_share():
    """First: a, b at 0 and c at 10. Second: a at 1, b, c at 8. Rows a, b, c; b's own image is at 8."""
    first, second = release([0, 10], [0, 0, 1], "abc"), release([1, 8], [0, 1, 1], "abc")
    eer = attacks.verification_across(first, second)[0]
    assert eer.attack == "EER across"
    # image 0 shares people with both images of the second release, image 1 with the second alone
    assert eer.rate == attacks.roc([1, 8, 1, 8, 2], [9]).equal_error_rate


# ---- thresholds ----


def test_acceptance_by_hand():
    """Image 0 at 0 for a and b, image 1 at 10 for c: under 3 are a's photo at 1, one of b's two, and c's."""
    released, known = release([0, 10], [0, 0, 1], "abc"), gallery([1, 2, 7.5, 10], "abbc")
    result = attacks.acceptance(released, known, 3.0)[0]
    assert result.per_person.set_index("person")["success"].to_dict() == {"a": 1, "b": 0.5, "c": 1}
    assert (result.rate, result.level, result.chance) == (2.5 / 3, "pair", 1 / 4)  # b's 7.5 lies near to 10
    assert attacks.stranger_share(released, known, 3.0) == 1 / 4
    assert attacks.acceptance(released, known, 1.0)[0].rate == 1 / 3  # a distance of 1 is not under 1
    blank = release([0, 10], [0, 0, 1], "abc", [True, False])
    assert attacks.stranger_share(blank, known, 3.0) == 0
    with pytest.raises(NotApplicableError, match="needs a threshold"):
        attacks.acceptance(released, known, np.nan)


def test_nobody_is_a_stranger_where_all_share_an_image():
    assert np.isnan(attacks.stranger_share(release([0], [0, 0], "ab"), gallery([0, 1], "ab"), 1.0))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_members_are_those_whom_images_stand_for(seed):
    random = np.random.default_rng(seed)
    names = np.array(list("abcdefg"))
    labels = np.concatenate([np.arange(3), random.integers(0, 3, 9)])
    people = random.choice(names, 12)
    wanted = random.choice(np.array(list("abcdefghij")), 6)
    found = attacks.members_of(release([0, 1, 2], labels, people).cases, wanted, 3)
    expected = [[name in set(people[labels == image]) for name in wanted] for image in range(3)]
    assert found.tolist() == expected


def test_a_threshold_is_read_off_the_impostor_pairs():
    photos, names = crowd(30, 3)
    found = attacks.calibrate_threshold(photos, names, 0.05)
    i, j = np.triu_indices(90, 1)
    d = np.linalg.norm(photos[i] - photos[j], axis=1)
    same = names[i] == names[j]
    assert found.n_impostors == (~same).sum() and found.n_genuine == same.sum()
    assert found.value == pytest.approx(np.sort(d[~same])[int(0.05 * (~same).sum())])
    assert np.mean(d[~same] < found.value - 1e-12) <= 0.05
    assert found.low <= found.value <= found.high
    assert found.true_accept_rate == pytest.approx(np.mean(d[same] < found.value))


def test_a_threshold_for_too_few_pairs_is_not_estimable():
    photos, names = crowd(5, 2)
    found = attacks.calibrate_threshold(photos, names, 1e-3)
    assert np.isnan([found.value, found.low, found.high]).all()
    assert found.note == "not estimable: FAR 0.001 needs 10000 impostor pairs, got 40"


@pytest.mark.parametrize("rate", [0, 1, -0.1])
def test_rates_out_of_range_are_refused(rate):
    photos, names = crowd(5, 2)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        attacks.calibrate_threshold(photos, names, rate)


def test_one_person_has_no_threshold():
    with pytest.raises(ValueError, match="at least two people"):
        attacks.calibrate_threshold(np.eye(3), np.array(["a"] * 3))


# ---- several releases ----


def test_linking_by_hand():
    """A and b at 0, c at 10; then a at 1, b at 4, c at 11: the image of a and b leads to a's, that of c to c's."""
    first, second = release([0, 10], [0, 0, 1], "abc"), release([1, 4, 11], [0, 1, 2], "abc")
    result = attacks.linkability(first, second)[0]
    assert result.per_person.set_index("person")["success"].to_dict() == {"a": 1, "b": 0, "c": 1}
    assert (result.rate, result.chance, result.level) == (2 / 3, 1 / 3, "cluster")
    blank = release([1, 4, 11], [0, 1, 2], "abc", [True, True, False])
    result = attacks.linkability(first, blank)[0]
    assert (result.rate, result.rate_all, result.n_failed) == (1 / 2, 2 / 3, 1)


def test_releases_of_other_people_do_not_link():
    with pytest.raises(NotApplicableError, match="in both releases"):
        attacks.linkability(release([0], [0], "a"), release([0], [0], "b"))


def test_composition_by_hand():
    """a, b share the first image and a, c the second: who is known to share both is a alone."""
    first, second = release([0, 9], [0, 0, 1, 1], "abcd"), release([1, 8], [0, 0, 1, 1], "acbd")
    known = gallery([0, 2, 3, 9], "abcd")
    results = by_name(attacks.composition([first, second], known))
    assert results["composition: known clusters", "person"].rate == 1.0
    # nearest two of 0 and of 1: a, b; of 9 and of 8: d, c. For b and c nobody is left, and the sums decide:
    # b is at 0 and at 8: sums 8, 8, 8, 10; c at 9 and at 1: 10, 8, 8, 8
    third = pytest.approx(1 / 3)
    table = results["composition: intersection", "person"].per_person.set_index("person")["success"]
    assert table.to_dict() == {"a": 1 / 2, "b": third, "c": third, "d": 1 / 2}
    table = results["composition: mean distance", "person"].per_person.set_index("person")["success"]
    assert table.to_dict() == {"a": 1, "b": third, "c": third, "d": 1}


def test_composition_reads_no_image_without_a_face():
    first = release([0, 9], [0, 1], "ab")
    second = release([9, 0], [0, 1], "ab", [False, False])
    result = by_name(attacks.composition([first, second], gallery([0, 9], "ab")))
    assert result["composition: mean distance", "person"].rate == 1.0
    assert result["composition: mean distance", "person"].n_failed == 0


def test_one_release_composes_nothing():
    with pytest.raises(NotApplicableError, match="at least two"):
        attacks.composition([release([0], [0], "a")], gallery([0], "a"))


def test_among_the_first_ties_are_shared():
    found = _among_first(np.array([[0.0, 1.0, 1.0, 2.0]]), np.array([2]))
    np.testing.assert_allclose(found, [[1, 0.5, 0.5, 0]])


def test_minimality_by_hand():
    """The images at 0 and 9 match those at 1 and 8: a, c are expected behind the first, b, d behind the other."""
    first, own = release([0, 9], [0, 0, 1, 1], "abcd"), release([8, 1], [1, 0, 1, 0], "abcd")
    person, cluster = attacks.minimality(first, own)
    assert person.per_person["success"].tolist() == [1 / 2, 0, 0, 1 / 2]
    assert cluster.per_person["success"].tolist() == [1 / 2] * 4
    assert (person.chance, cluster.chance) == (1 / 4, 1 / 2)
    person, cluster = attacks.minimality(first, first)
    assert (person.rate, cluster.rate) == (1 / 2, 1.0)


def test_a_cluster_that_is_not_matched_gives_nobody_away():
    person = attacks.minimality(release([0, 5], [0, 1], "ab"), release([5], [0], "b"))[0]
    assert person.per_person["success"].tolist() == [0, 1]
    with pytest.raises(NotApplicableError, match="both releases"):
        attacks.minimality(release([0], [0], "a"), release([0], [0], "b"))


# ---- people who are not in the release ----


def test_membership_by_hand():
    """Of the image at 0, members are at 1 and 3, others at 2 and 4: three of four pairs are in order."""
    area, found = attacks.membership(release([0], [0, 0], "ac"), gallery([1, 2, 3, 4], "abcd"))
    assert area.per_person["success"].tolist() == [1, 1 / 2]
    assert (area.rate, area.chance) == (3 / 4, 1 / 2)
    assert (found.rate, found.chance) == (1 / 2, 0.1)  # a alone is nearer than both others
    assert area.note == "2 members, 2 others"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=4, max_size=12), st.integers(1, 3))
def test_membership_is_the_area_under_the_curve(places, n_members):
    names = [chr(97 + i) for i in range(len(places))]
    area = attacks.membership(release([0], [0] * n_members, names[:n_members]), gallery(places, names))[0]
    pairs = itertools.product(places[:n_members], places[n_members:])
    assert area.rate == pytest.approx(np.mean([(own < other) + (own == other) / 2 for own, other in pairs]))


def test_membership_reads_no_image_without_a_face():
    with_face, without = ([True, True], [True, False])
    for found, rate in ((with_face, 1.0), (without, 1 / 2)):
        given_release = release([0, 10], [0, 1], "ab", found)
        assert attacks.membership(given_release, gallery([0, 10, 5], "abc"))[0].rate_all == rate


def test_the_control_is_subtracted_by_hand():
    """Below 2.5 are a and b: half of the members, half of the others; below 1.5 is a alone."""
    known = gallery([1, 2, 3, 4], "abcd")
    result = attacks.control(release([0], [0, 0], "ac"), known, 2.5)[0]
    assert (result.rate, result.chance) == (0.0, 0.0) and result.low < 0 < result.high
    assert result.note == "members 0.500, control 0.500, risk 0.000"
    result = attacks.control(release([0], [0, 0], "ab"), known, 2.5)[0]
    assert result.rate == 1.0 and result.low < 1
    assert attacks.control(release([0], [0, 0], "ac"), known, 1.5)[0].rate == 1 / 2
    with pytest.raises(NotApplicableError, match="threshold"):
        attacks.control(release([0], [0, 0], "ac"), known, float("nan"))


def test_open_set_by_hand():
    """Image 0 at 0 stands for a (1) and b (3), image 1 at 10 for c (10); d is at 2, e at 8, a distractor at 4.

    Without its members the nearest to image 0 is d at 2, to image 1 e at 2: neither search may return anybody, so only
    searches below 2 count. Within 3 of image 0 are a, b and d; within 0 of image 1 is c alone.
    """
    rank1, found, anonymity = attacks.open_set(
        release([0, 10], [0, 0, 1], "abc"), gallery([1, 3, 10, 2, 8], "abcde"), line(4)
    )
    assert (rank1.rate, rank1.chance) == (1.0, pytest.approx((2 / 6 + 2 / 6 + 1 / 6) / 3))
    assert found.rate == 1.0 and "FNIR 0.000; 0 of 2 searches" in found.note
    assert anonymity.per_person["success"].tolist() == [pytest.approx(1 / 3)] * 2 + [1.0]
    assert anonymity.chance == 1 / 6
    assert anonymity.note == "outsiders as near as the members: median 0, at least 0"


def test_a_stranger_who_is_as_near_sets_the_threshold():
    """The member at 3 is nearest to the image at 0, but the other image's people are found at 2 without mates."""
    rank1, found, _ = attacks.open_set(release([0, 10], [0, 1], "ab"), gallery([3, 10, 8], "abc"))
    assert (rank1.rate, found.rate) == (1.0, 1 / 2)


def test_a_gallery_without_outsiders_is_no_open_set():
    closed = release([0, 1], [0, 1], "ab"), gallery([0, 1], "ab")
    for attack in (attacks.open_set, attacks.membership, attacks.rank1_over_gallery):
        with pytest.raises(NotApplicableError, match="people who are not in the release"):
            attack(*closed)
    assert attacks.open_set(*closed, line(5))[0].rate == 1.0


def test_a_search_gets_harder_as_the_gallery_grows():
    """Of three outsiders two are nearer than the member: one drawn leaves 1/3, two none of the three pairs."""
    table = attacks.rank1_over_gallery(
        release([0], [0], "a"), gallery([2, 1, 1.5, 9], "abcd"), sizes=[1, 2, 4]
    )
    assert table["rank1_cluster"].iloc[[0, 2]].tolist() == [1.0, 0.0]
    assert table["rank1_cluster"].iloc[1] == pytest.approx(1 / 3, abs=0.3)
    assert table["chance_cluster"].tolist() == [1.0, 1 / 2, 1 / 4]
    whole = attacks.open_set(release([0], [0], "a"), gallery([2, 1, 1.5, 9], "abcd"))[0]
    assert whole.rate == table["rank1_cluster"].iloc[2]
    with pytest.raises(ValueError, match="each of sizes"):
        attacks.rank1_over_gallery(release([0], [0], "a"), gallery([2, 1], "ab"), sizes=[3])


# ---- regions ----


def test_hidden_regions_are_compared_with_the_whole_face():
    whole, known = release([0, 10], [0, 1], "ab"), gallery([0, 10], "ab")
    hidden = [("eyes", whole), ("mouth", release([10, 10], [0, 1], "ab", [True, True]))]
    eyes, mouth = attacks.region(whole, hidden, known)
    assert (eyes.attack, eyes.rate, eyes.note) == ("without the eyes", 1.0, "+0.000 from the whole face")
    assert (mouth.rate, mouth.note) == (1 / 2, "-0.500 from the whole face")
    with pytest.raises(NotApplicableError, match="hidden regions"):
        attacks.region(whole, [], known)


def test_each_region_hides_its_landmarks_and_no_others(orl):
    photos = orl.images[:3]
    points = detection.detect(photos).landmarks
    masked = attacks.mask_regions(photos)
    changed = {
        name: [(a != b).any(axis=2) for a, b in zip(images, photos, strict=True)]
        for name, images in masked.items()
    }
    for i, landmarks in enumerate(np.rint(points).astype(int)):

        def share(name, rows, i=i, landmarks=landmarks):
            x, y = np.clip(landmarks[rows].T, 0, [[91], [111]])
            return changed[name][i][y, x].mean()

        assert share("eyes", range(36, 48)) > 0.7 > 0.1 > share("eyes", range(48, 68))
        assert share("mouth", range(48, 68)) > 0.7 > 0.1 > share("mouth", range(36, 48))
        assert share("nose", range(28, 34)) > 0.7
        assert share("outline", range(2, 15)) > 0.5 > share("outline", range(36, 68))


# ---- insiders ----


def test_an_insider_who_knows_all_others_of_a_mean_finds_the_last():
    photos, names = crowd(20, 5, spread=0.05)
    shared, own = shared_means(photos, names, 5)
    known = Gallery(photos, names)
    results = by_name(attacks.insider(shared, own, known, 4))
    assert results["insider knows 4", "person"].rate == 1.0
    assert results["insider knows 4", "person"].chance == pytest.approx(1 / 16)


@pytest.mark.parametrize("n_known", [1, 2, 3])
def test_those_whom_an_insider_does_not_know_still_share(n_known):
    photos, names = crowd(20, 5)
    shared, own = shared_means(photos, names, 5)
    person, cluster = attacks.insider(shared, own, Gallery(photos, names), n_known)
    assert person.rate <= 1 / (5 - n_known) + 1e-9
    assert cluster.chance == pytest.approx((5 - n_known) / (20 - n_known))
    assert (cluster.rate, len(person.per_person)) == (1.0, 20)


def test_an_insider_by_hand():
    """A at 0, b at 4 and c at 8 share 4. Who knows a expects 6 and so on."""
    person, cluster = attacks.insider(
        release([4, 99], [0, 0, 0, 1], "abcd"), line(0, 4, 8, 99), gallery([0, 4, 8, 99], "abcd"), 1
    )
    # knowing a: 6, b and c tie; knowing b: 4, a and c tie; knowing c: 2, a and b tie
    assert person.per_person["success"].tolist() == [1 / 2] * 3
    assert cluster.rate == 1.0
    assert person.note == "1 people left out, whose image has too few people"


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.data())
def test_everybody_is_unknown_in_some_try(k, data):
    n_known = data.draw(st.integers(1, k - 1))
    known = _known_sets(k, n_known, np.random.RandomState(0))
    assert (known.sum(axis=1) == n_known).all()
    assert not known.all(axis=0).any()


def test_the_last_member_is_recognised_without_the_known_ones_by_hand():
    """The picture of a lies at 4, nearest to b, who is known; c, drawn at 8, lies nearest to d."""
    shared = release([3, 9], [0, 0, 1, 1], "abce")
    pictures = own_images(line(4, 5, 8, 20), np.arange(4).astype(str))
    person = attacks.insider_picture(shared, [("pixels", pictures)], gallery([0, 4, 5, 9, 20], "abcde"))[0]
    # without b, c at 5 is nearest to the picture at 4; b's own picture at 5 lies nearest to c; 8 to d; 20 to e
    assert person.per_person["success"].tolist() == [0, 0, 0, 1]
    assert person.chance == 1 / 4
    with pytest.raises(NotApplicableError, match="mixes aligned photos"):
        attacks.insider_picture(shared, [], gallery([0], "a"))


def test_what_is_left_of_a_mean_of_pixels_is_the_last_photo(pixel_release):
    model, images, labels = pixel_release
    pictures = attacks.rest_pictures(model, images, labels)
    assert list(pictures) == ["pixels"]
    people = (
        Published(images, labels, model.faces.identities)
        .described(lambda images: np.zeros((len(images), 1)))
        .cases
    )
    rows = [list(model.faces.identities).index(person) for person in people["person"]]
    for row, picture in zip(rows, pictures["pixels"], strict=True):
        own = frame.to_photo(model.texture(row)).astype(int)
        assert np.abs(picture - own).max() <= 3  # the image was rounded: k times half a grey level
    assert attacks.rest_pictures(anonymizer.load("blur", model.faces), images, labels) == {}


def test_nobody_is_inside_an_image_of_one():
    with pytest.raises(NotApplicableError, match="shared by more than 1 people"):
        attacks.insider(release([0, 1], [0, 1], "ab"), line(0, 1), gallery([0, 1], "ab"))


# ---- attackers who learn ----


def turned(photos, names, seed=0):
    """A rotation of each photo, as a keyed method would make it, and the practice of an attacker who has the key."""
    d = photos.shape[1]
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    people, first = np.unique(names, return_index=True)
    released = DescribedRelease(
        photos[first] @ turn, np.ones(len(people), bool), np.arange(len(people)), people
    )
    practice = Practice(photos @ turn, tuple(frozenset([name]) for name in names))
    return released, practice, Gallery(photos, names)


@pytest.mark.parametrize("shape", [(30, 50, 40), (3, 8, 9), (60, 7, 5)])
def test_ridge_regression_agrees_with_scikit_learn(shape):
    n, d, e = shape
    random = np.random.RandomState(n)
    inputs, new = random.normal(2, 1, (n, d)), random.normal(2, 1, (4, d))
    outputs = inputs @ random.normal(0, 0.2, (d, e)) + random.normal(3, 1, (n, e))
    strengths = np.logspace(-2, 3, 11)
    expected = RidgeCV(alphas=strengths).fit(inputs, outputs).predict(new)
    np.testing.assert_allclose(_fit_ridge(inputs, outputs, strengths)(new), expected, rtol=1e-9)
    alone = _fit_ridge(inputs[:1], outputs[:1], strengths[:1])(new)  # of one row, the row itself
    np.testing.assert_allclose(alone, outputs[:1].repeat(len(new), axis=0))


def test_a_linear_method_is_undone_by_a_linear_reversal():
    released, practice, known = turned(*crowd(40, 5, d=8))
    person = attacks.learned(released, known, practice, method="reversal")[0]
    untrained = float(person.note.split("untrained ")[1])
    assert person.rate > 0.9 and untrained < 0.3
    assert person.chance == pytest.approx(1 / 20)
    assert attacks.learned(released, known, practice, method="reversal pixels")[0].rate > 0.9


def test_a_parrot_learns_to_look_past_what_the_method_adds():
    """The method adds large noise along three directions: discriminants leave them out."""
    photos, names = crowd(40, 5, d=16, spread=0.2)
    random = np.random.default_rng(5)
    axes = np.linalg.qr(random.normal(size=(16, 3)))[0]
    noisy = photos + 20 * random.normal(size=(len(photos), 3)) @ axes.T
    released = own_images(noisy[::5], names[::5])
    practice = Practice(noisy, tuple(frozenset([name]) for name in names))
    for method, least in (("parrot", 0.9), ("parrot pairs", 0.5)):
        person = attacks.learned(released, Gallery(photos, names), practice, method=method)[0]
        assert person.rate > least
        assert float(person.note.split("untrained ")[1]) < 0.5


def test_attackers_learn_from_nobody_whom_they_attack(monkeypatch):
    photos, names = crowd(20, 3)
    shared, _ = shared_means(photos, names, 2)
    extra = Practice(shared.descriptors[:2], (frozenset(["p000", "p001"]), frozenset(["p001", "p019"])))
    lessons, seen = [], []

    def learn(practice, known, random):
        lessons.append({*known.identities, *itertools.chain(*practice.members)})

        def measure(a, b):
            seen.append({row.tobytes() for row in b})
            return attacks.distances(a, b)

        return measure

    attacks.learned(shared, Gallery(photos, names), extra, learn=learn)
    assert len(lessons) == 20
    for people, rows in zip(lessons, seen, strict=True):
        attacked = {name for name, row in zip(names, photos, strict=True) if row.tobytes() in rows}
        assert len(people) == len(attacked) == 10
        assert not people & attacked


def test_what_was_learnt_badly_is_not_trusted():
    """A lesson that turns every distance round helps nobody; the attacker sees it on people of their own."""
    photos, names = crowd(40, 5, spread=0.5)
    released = own_images(photos[::5], names[::5])
    wrong = _blended(lambda *_: lambda a, b: -attacks.distances(a, b))
    right = _blended(lambda *_: attacks.distances)
    for learn in (wrong, right):
        person = attacks.learned(released, Gallery(photos, names), learn=learn, n_splits=4)[0]
        assert person.rate == pytest.approx(float(person.note.split("untrained ")[1]), abs=6e-4)


def test_two_halves_attack_everybody():
    released, practice, known = turned(*crowd(21, 2))
    person = attacks.learned(released, known, practice, n_splits=2)[0]
    assert person.n_people == 21 and "never" not in person.note
    with pytest.raises(ValueError, match="n_splits"):
        attacks.learned(released, known, practice, n_splits=0)


def test_learning_takes_four_clusters():
    photos, names = crowd(6, 3)
    shared, _ = shared_means(photos, names, 2)
    with pytest.raises(NotApplicableError, match="at least 4"):
        attacks.learned(shared, Gallery(photos, names))


def test_the_same_seed_gives_the_same_result():
    released, practice, known = turned(*crowd(20, 3))

    def row(seed):
        return attacks.learned(released, known, practice, method="parrot pairs", random_state=seed)[0].row()

    assert row(4) == row(4) != row(5)


@pytest.mark.full
def test_the_network_undoes_a_negative(orl):
    """A method that inverts all greys hides nothing from a network that was trained on its results."""
    faces = orl.select(slice(0, 200))
    crops = recognisers.grey_crops(faces)
    known = Gallery(crops, faces.identities)
    describe = recognisers.prepare("fisherfaces", faces)
    first = np.arange(0, 200, 10)
    released = own_images(1 - crops[first], faces.identities[first])
    practice = Practice(1 - crops, tuple(frozenset([name]) for name in faces.identities))
    described = Gallery(describe(faces), faces.identities)
    person = attacks.reversal_network(released, known, describe, described, practice, n_splits=1)[0]
    assert person.rate > 0.5  # chance 0.1


# ---- all attacks on one release ----


@pytest.fixture(scope="module")
def faces(orl):
    """One photo of each of 12 people, three more of each in the gallery."""
    rows = [10 * person + photo for person in range(12) for photo in range(4)]
    return orl.select(rows).split(1, random_state=0)


@pytest.fixture(scope="module")
def pixel_release(faces):
    model, labels = anonymizer.load("pixel", faces), np.arange(12) // 3
    return model, [model.surrogate(np.flatnonzero(labels == label)) for label in range(4)], labels


def test_practice_is_made_of_the_cluster_sizes_and_within_two_clusters(pixel_release):
    model, _, labels = pixel_release
    images, members = attacks.practise(model, labels, 12)
    cluster = dict(zip(model.faces.identities, labels, strict=True))
    assert len(images) == len(members) == 12
    assert {len(group) for group in members} == {3}
    pairs = [frozenset(cluster[person] for person in group) for group in members]
    assert all(len(pair) <= 2 for pair in pairs)
    row = {person: i for i, person in enumerate(model.faces.identities)}
    np.testing.assert_array_equal(images[0], model.surrogate([row[person] for person in members[0]]))
    again = attacks.practise(model, labels, 12)
    assert again[1] == members


def test_a_filter_is_its_own_practice(faces):
    assert attacks.practise(anonymizer.load("blur", faces), None) == ([], ())


def test_all_attacks_on_one_release(faces, pixel_release, monkeypatch):
    model, images, labels = pixel_release
    other = np.arange(12) % 4
    second = Published(
        [model.surrogate(np.flatnonzero(other == label)) for label in range(4)], other, faces.identities
    )
    monkeypatch.setattr(attacks, "practise", partial(attacks.practise, n_images=12))
    monkeypatch.setattr(embedding, "MODELS", Path("/nonexistent"))

    def attack():
        return attacks.attack_release(
            faces,
            images,
            labels,
            model=model,
            recognisers=["dlib", "fisherfaces", "faceres"],
            anonymized=second,
            further=[second],
            part=Published(images[:2], labels[:6], faces.identities[:6]),
        )

    table = attack()
    assert list(table.columns) == attacks.COLUMNS
    absent = table[table["recogniser"] == "faceres"]
    assert len(absent) == 1 and "is not installed" in absent["note"].item()
    dlib = table[table["recogniser"] == "dlib"].set_index(["attack", "level"])
    photos = attacks.gallery_faces(faces)[0]
    describe = recognisers.prepare("dlib", photos)
    alone = attacks.identification(
        Published(images, labels, faces.identities).described(describe), Gallery.of(faces, describe), [1]
    )[0]
    assert dlib.loc[("rank-1", "person"), "rate"] == pytest.approx(alone.rate)
    assert (dlib.loc[[(f"rank-{r}", "person") for r in (1, 3)], "rate"] <= [1 / 3 + 1e-9, 1 + 1e-9]).all()
    known = table.set_index(["recogniser", "attack", "level"])
    for name in ("dlib", "fisherfaces"):
        assert (
            known.loc[(name, "rank-1", "person"), "clear"] > 0.9
        )  # of clear photos the same attacker finds all
        assert 0 <= known.loc[(name, "rank-1", "person"), "stranger_share"] <= 1
        limit = known.loc[(name, "accepted at FAR 0.01", "pair")]
        assert limit["threshold_low"] <= limit["threshold"] <= limit["threshold_high"]
        assert limit["chance"] == pytest.approx(limit["stranger_share"]) and limit["clear"] > 0.5
    assert "accepted at 0.6 (paper)" in set(dlib.reset_index()["attack"])
    assert "accepted at 0.6 (paper)" not in set(table.loc[table["recogniser"] == "fisherfaces", "attack"])
    made = set(table["attack"])
    assert {"membership", "accepted, minus control", "open set: rank-1", "k-map", "minimality"} < made
    assert {"without the eyes", "insider's picture (pixels)"} < made
    assert {"posterior", "linkability", "insider knows 1", "insider knows 2", "parrot", "reversal"} < made
    assert {"rank-1 (anonymized gallery)", "EER", "EER across", "composition: known clusters"} < made
    assert set(table.loc[table["recogniser"] == "pixels", "attack"]) == {"parrot pairs", "reversal pixels"}
    assert (table["gallery"].dropna() == "other photos").all()

    def fail(*arguments):
        raise AssertionError("this attack has been made before")

    monkeypatch.setattr(attacks, "ATTACKS", dict.fromkeys(attacks.ATTACKS, fail))
    monkeypatch.setattr(attacks, "PIXEL_ATTACKS", dict.fromkeys(attacks.PIXEL_ATTACKS, fail))
    pd.testing.assert_frame_equal(attack(), table)


#: The attacks that need a further release or other images, with the rows by which they are checked.
FURTHER = ["membership", "control", "open set", "minimality", "region"]


def test_photos_as_they_are_give_away_what_clear_photos_do(faces):
    """The anonymizer "none", with a release of half of the people and one of other photos."""
    none = evaluation.Combination("-", "-", "none", 1)
    table = evaluation.attack_table(faces, [none], recognisers=["dlib"], attacks=FURTHER, n_jobs=1)
    rows = table.set_index(["attack", "level"])
    assert len(rows) == 2 + 1 + 3 + 2 + 4 and rows["rate"].notna().all()
    for name in [
        ("membership", "person"),
        ("open set: rank-1", "cluster"),
        ("k-map", "person"),
        ("minimality", "person"),
    ]:
        assert (
            rows.loc[name, "rate"] == pytest.approx(rows.loc[name, "clear"], abs=0.05)
            and rows.loc[name, "rate"] > 0.9
        )
    assert rows.loc[("without the mouth", "cluster"), "rate"] > 0.7


def test_pictures_of_noise_give_nobody_away(faces, pixel_release):
    """No face is found in noise; whole frames are at chance, far below what clear photos give away."""
    random = np.random.RandomState(0)
    noise = [random.randint(0, 256, (112, 92, 3)).astype(np.uint8) for _ in range(4)]
    labels = pixel_release[2]
    part = Published(noise[:2], labels[:6], faces.identities[:6])
    other = Published(noise[::-1], labels, faces.identities)
    table = attacks.attack_release(
        faces,
        noise,
        labels,
        recognisers=["dlib"],
        attacks=FURTHER,
        part=part,
        anonymized=other,
        further=[other],
    )
    assert (table["n_failed"] == table["n_people"]).all() and table["rate"].isna().all()
    rows = table.set_index(["attack", "level"])["rate_all"]
    assert rows["k-map", "person"] < 0.2  # 3 of 12 would be 1/3
    assert abs(rows["accepted, minus control", "person"]) < 0.2 < rows["membership", "person"] < 0.8


def test_the_worst_case_is_the_recogniser_that_finds_most():
    table = pd.DataFrame(
        {
            "attack": ["rank-1", "rank-1", "EER", "membership", "control"], "level": "person",
            "recogniser": ["a", "b", "a", "a", "a"], "rate": [0.1, 0.4, 0.2, 0.7, np.nan],
        }
    ).reindex(columns=attacks.COLUMNS)  # fmt: skip
    short = attacks.worst_case(table)
    assert list(zip(short["attack"], short["recogniser"], strict=True)) == [
        ("rank-1", "b"),
        ("membership", "a"),
    ]
    assert attacks.worst_case(table, ["member"])["rate"].tolist() == [0.7]


def test_attacks_that_cannot_be_made_say_why(faces, pixel_release):
    _, images, labels = pixel_release
    table = attacks.attack_release(
        faces.select(slice(None)), images, labels, recognisers=["lbp"], attacks=["linkability"]
    )
    assert "one photo" in table["note"].item() or "no discriminants" in table["note"].item()
    table = attacks.attack_release(faces, images, labels, recognisers=["lbp"], attacks=["linkability"])
    assert np.isnan(table["rate"].item())
    assert "needs a second release" in table["note"].item()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"attacks": ["guess"]}, ValueError, "unknown attack 'guess'"),
        ({"attacks": "insider"}, ValueError, "attacks must be a list of names"),
        ({"labels": np.zeros(3, int)}, ValueError, "labels must be 12 labels"),
        ({"labels": np.zeros(12, int)}, ValueError, "every integer from 0 to 3"),
        ({"random_state": None}, TypeError, "an integer"),
        ({"recognisers": ["nobody"]}, ValueError, "unknown recogniser 'nobody'"),
        ({"recognisers": ["pca"]}, ValueError, "would not be comparable"),
    ],
)
def test_what_does_not_fit_is_refused(faces, pixel_release, changed, error, message):
    _, images, labels = pixel_release
    options = {"images": images, "labels": labels, **changed}
    with pytest.raises(error, match=message):
        attacks.attack_release(faces, **options)


def test_a_person_without_other_photos_is_in_the_gallery_by_their_own(faces):
    lonely = faces.others.select(faces.others.identities != faces.identities[0])
    mixed = faces.select(slice(None))
    object.__setattr__(mixed, "others", lonely)
    photos, kind = attacks.gallery_faces(mixed)
    assert kind == "mixed"
    assert len(photos) == len(lonely) + 1 and photos.identities[-1] == faces.identities[0]
    np.testing.assert_array_equal(photos.images[-1], faces.images[0])
    assert attacks.gallery_faces(faces)[1] == "other photos"
    assert attacks.gallery_faces(faces.select(slice(None)))[1] == "same photos"
