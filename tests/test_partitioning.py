"""Fixed-size partitions: sizes for any input, known answers, optimum by brute force, rules, tables."""

import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog

import partitioning
from balancing import annealing, bounds, kernels
from partitioning import PARTITIONERS, VARIABLE_SIZE

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT.parent / "shared" / "reference" / "encoding_data" / "dlib_celeba_979.pickle"

NAMES = sorted(PARTITIONERS)
SEEDED_BY_CHANCE = {
    "random",
    "oka",
}  # no answer is known for these: a seed may start two clusters in one blob
PUBLISHED_KMEANS = [name for name in NAMES if name.startswith("kmeans_") and name != "kmeans_assignment"]


def partition(name, X, k, **options):
    if name == "balanced":
        options.setdefault("effort", "fast")
    return PARTITIONERS[name](X, k, **options)


def assert_fixed_size(labels, people, k):
    assert labels.dtype == np.int64 and labels.shape == (people,)
    sizes = np.bincount(labels)
    assert len(sizes) == people // k
    assert sizes.min() >= k and sizes.max() - sizes.min() <= 1


def blobs(clusters=6, size=5, dimension=4, seed=0):
    """Points around corners far apart, in random order, and the blob of each."""
    generator = np.random.default_rng(seed)
    truth = generator.permutation(np.repeat(np.arange(clusters), size))
    corners = 100.0 * np.eye(clusters, dimension) + 100.0 * np.eye(clusters, dimension, k=-dimension) * 3
    return corners[truth] + generator.normal(size=(len(truth), dimension)), truth


def same_partition(first, second):
    return (
        len(np.unique(np.stack([first, second]), axis=1).T) == len(np.unique(first)) == len(np.unique(second))
    )


@pytest.fixture
def without_numba(monkeypatch):
    """The numpy path, which runs where numba is not installed."""
    monkeypatch.setattr(kernels, "numba", None)


@pytest.fixture(scope="module")
def celeba():
    if not REFERENCE.exists():
        pytest.skip("the reference descriptors are not on this machine")
    import utils

    return utils.load_encodings(REFERENCE)[1]


# Sizes hold whatever the data


@st.composite
def descriptors_and_size(draw):
    people = draw(st.integers(2, 40))
    dimension = draw(st.integers(1, 5))
    seed = draw(st.integers(0, 1000))
    normal = np.random.default_rng(seed).normal(size=(people, dimension))
    X = draw(
        st.sampled_from(
            [
                normal,
                normal.astype(np.float32) * np.float32(1e30),
                normal * 1e-200,
                normal + 1e9,
                normal[np.random.default_rng(seed).integers(0, max(1, people // 4), people)],  # duplicates
                np.full((people, dimension), draw(st.sampled_from([0.0, 1.0, -1e300]))),  # all equal
                np.outer(np.arange(people), np.ones(dimension)),  # on a line, evenly
                np.outer(normal[:, 0], np.arange(1, dimension + 1)),  # on a line
                np.vstack([normal[:-1], np.full((1, dimension), 1e12)]),  # one far away
                np.round(normal).astype(np.int32),
            ]
        )
    )
    return X, draw(st.integers(2, people)), seed


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(descriptors_and_size())
def test_sizes_hold_for_any_data(name, case):
    X, k, seed = case
    before = X.copy()
    labels = partition(name, X, k, random_state=seed)
    assert_fixed_size(labels, len(X), k)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(labels, partition(name, X, k, random_state=seed))


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(2, 30), st.integers(1, 3)), elements=st.floats(-1e300, 1e300))
)
def test_balanced_takes_any_finite_numbers(X):
    assert_fixed_size(partition("balanced", X, 2, random_state=0), len(X), 2)


@settings(max_examples=25, deadline=None)
@given(descriptors_and_size())
def test_sizes_hold_without_numba(case):
    X, k, seed = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "numba", None)
        assert_fixed_size(partition("balanced", X, k, random_state=seed), len(X), k)


@pytest.mark.parametrize("name", sorted(VARIABLE_SIZE))
@settings(max_examples=25, deadline=None)
@given(descriptors_and_size())
def test_variable_sizes_keep_the_least(name, case):
    X, k, seed = case
    labels = VARIABLE_SIZE[name](X, k, random_state=seed)
    sizes = np.bincount(labels)
    assert labels.shape == (len(X),) and labels.min() == 0
    assert sizes.min() >= k and sizes.sum() == len(X)


@pytest.mark.parametrize("name", PUBLISHED_KMEANS)
@settings(max_examples=10, deadline=None)
@given(descriptors_and_size())
def test_published_kmeans_keeps_the_sizes(name, case):
    X, k, seed = case
    assert_fixed_size(partition(name, X, k, random_state=seed, as_published=True), len(X), k)


def test_cluster_sizes_by_hand():
    assert partitioning.cluster_sizes(11, 4).tolist() == [6, 5]
    assert partitioning.cluster_sizes(979, 20).tolist() == [21] * 19 + [20] * 29
    assert partitioning.cluster_sizes(7, 7).tolist() == [7]


# Known answers


@pytest.mark.parametrize("name", sorted(set(NAMES) - SEEDED_BY_CHANCE))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_separated_blobs_are_found(name, dtype):
    X, truth = blobs()
    assert same_partition(partition(name, X.astype(dtype), 5, random_state=3), truth)


def test_separated_blobs_are_found_without_numba(without_numba):
    X, truth = blobs(clusters=8, size=6)
    assert same_partition(partition("balanced", X, 6, random_state=0), truth)


def test_labels_count_up_in_the_order_of_rows():
    X, truth = blobs()
    labels = partition("mdav", X, 5)
    first = [int(np.flatnonzero(labels == label)[0]) for label in range(6)]
    assert first == sorted(first)


def best_by_brute_force(X, k):
    """Smallest SSE over all fixed-size partitions of few people."""

    def smallest(left, sizes):
        if not sizes:
            return 0.0
        head, rest = left[0], left[1:]
        best = np.inf
        for size in sorted(set(sizes)):
            remaining = list(sizes)
            remaining.remove(size)
            for others in combinations(rest, size - 1):
                points = X[[head, *others]]
                own = ((points - points.mean(axis=0)) ** 2).sum()
                if own < best:
                    kept = [person for person in rest if person not in others]
                    best = min(best, own + smallest(kept, remaining))
        return best

    return smallest(list(range(len(X))), partitioning.cluster_sizes(len(X), k).tolist())


@pytest.mark.parametrize(
    ("people", "k", "seed"), [(6, 2, 0), (8, 2, 1), (9, 3, 2), (9, 4, 3), (10, 3, 4), (7, 2, 5)]
)
def test_balanced_reaches_the_optimum_of_small_problems(people, k, seed):
    X = np.random.default_rng(seed).normal(size=(people, 2))
    labels = partition("balanced", X, k, random_state=0, effort="best")
    assert partitioning.within_cluster_sse(X, labels) == pytest.approx(best_by_brute_force(X, k), rel=1e-5)


def test_assignment_gives_each_place_to_the_nearest_on_a_line():
    X = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0], [13.0]])
    labels = partition("kmeans_assignment", X, 3, random_state=0)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_mdav_by_hand():
    # Mean 22.4: 60 is farthest and takes 50; 0 is farthest from 60 and takes 1; the rest form the last.
    X = np.array([[0.0], [1.0], [5.0], [6.0], [50.0], [60.0]])
    assert partition("mdav", X, 2).tolist() == [0, 0, 1, 1, 2, 2]


def test_knn_seeds_by_hand():
    X = np.array([[0.0], [2.0], [3.0], [7.0]])
    # Summed distances 12, 8, 8, 16: "max" starts at 7 and takes 3; "min" starts at 2 and takes 3.
    assert partition("knn_max", X, 2).tolist() == [0, 0, 1, 1]
    assert partition("knn_min", X, 2).tolist() == [0, 1, 1, 0]


def test_hierarchical_methods_differ_where_they_should():
    # Single linkage chains 0-1-2.1-3.3 before it reaches the pair at 5; complete linkage does not.
    X = np.array([[0.0], [1.0], [2.1], [3.3], [5.0], [5.5]])
    assert partitioning.hierarchical_partition(X, 2, method="complete").tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ValueError, match="unknown method 'median'"):
        partitioning.hierarchical_partition(X, 2, method="median")


def test_published_kmeans_is_worse_than_corrected():
    X = np.random.default_rng(0).normal(size=(200, 3))
    for name in PUBLISHED_KMEANS:
        right = partitioning.within_cluster_sse(X, partition(name, X, 5, random_state=0))
        published = partitioning.within_cluster_sse(
            X, partition(name, X, 5, random_state=0, as_published=True)
        )
        assert right < 0.9 * published


def test_published_kmember_piles_the_residue_on_one_cluster():
    X = np.random.default_rng(0).normal(size=(19, 3))
    assert sorted(np.bincount(VARIABLE_SIZE["kmember_published"](X, 5, random_state=0))) == [5, 5, 9]
    assert sorted(np.bincount(partition("kmember", X, 5, random_state=0))) == [6, 6, 7]


def test_vmdav_lets_clusters_follow_the_data():
    X = np.concatenate([np.arange(4), 100 + np.arange(3), 200 + np.arange(5)])[:, None] * 1.0
    labels = VARIABLE_SIZE["vmdav"](X, 3, gamma=1.1)
    assert sorted(np.bincount(labels)) == [3, 4, 5]
    with pytest.raises(ValueError, match="gamma"):
        VARIABLE_SIZE["vmdav"](X, 3, gamma=-1)


# Balanced: efforts, objectives, rules


def spread(people=300, dimension=12, seed=0):
    return np.random.default_rng(seed).normal(size=(people, dimension)) * np.linspace(2, 0.2, dimension)


@pytest.mark.parametrize("effort", ["fast", "default", "best"])
def test_moves_do_not_grow_with_large_clusters(monkeypatch, effort):
    asked = []

    def note(rows, sizes, moves, *others):
        asked.append(moves)
        return np.arange(len(rows)) % len(sizes)

    monkeypatch.setattr("balancing.annealing.solve", note)
    for k in (10, 100, 300, 1000):
        partition("balanced", np.random.default_rng(0).normal(size=(2000, 2)), k, effort=effort)
    assert len(set(asked)) == 1


def laid_out(people=600, clusters=3, dimension=4):
    """Rows in random clusters of equal size, as the compiled loops expect them."""
    rows = np.random.default_rng(0).normal(size=(people, dimension)).astype(np.float32)
    return annealing._lay_out(rows, np.full(clusters, people // clusters))


def test_a_move_compares_at_most_a_hundred_members_and_reaches_all():
    layout = laid_out()
    noise = np.zeros(1000, dtype=np.float32)
    vector = np.empty(4, dtype=np.float32)
    seen = set()
    for first in range(200):
        # So hot that the noise alone decides, and with one member singled out by it.
        noise[:] = 0
        noise[7] = noise[150] = 1
        place, _ = kernels._best_partner(
            layout.arrays, 0, 1, np.float32(1e9), noise, 0, np.inf, vector, first
        )
        seen.add(place)
    assert seen == set(range(200, 400))  # the eighth compared, never the 151st: each member once


def test_trades_end_where_no_two_members_gain():
    layout = laid_out()
    near = np.tile(np.arange(3, dtype=np.int32), (3, 1))
    changed = np.zeros(3, dtype=np.int64)
    costs = [layout.cost()]
    for turn in range(60):
        if not kernels.trade(layout.arrays, near, changed, turn):
            break
        layout.sum_clusters()
        costs.append(layout.cost())
    assert 3 < len(costs) < 60 and (np.diff(costs) < 0).all()
    assert sorted(layout.people) == list(range(600))
    rows, means = layout.rows.reshape(3, 200, 4), layout.means()
    for a, b in combinations(range(3), 2):
        direction = means[a] - means[b]
        assert (rows[b] @ direction).max() <= (rows[a] @ direction).min() + 1e-5


@pytest.mark.parametrize(("people", "k"), [(1000, 100), (1000, 101), (1003, 250), (1001, 500)])
def test_few_large_clusters_are_as_tight_as_by_optimal_assignment(people, k):
    X = spread(people=people, dimension=30)
    labels = partition("balanced", X, k, random_state=0)
    assert_fixed_size(labels, people, k)
    peers = [PARTITIONERS["kmeans_assignment"](X, k, random_state=seed) for seed in range(2)]
    assert partitioning.within_cluster_sse(X, labels) < 1.001 * min(
        partitioning.within_cluster_sse(X, peer) for peer in peers
    )


def test_large_blobs_are_found():
    X, truth = blobs(clusters=5, size=230)
    assert same_partition(partition("balanced", X, 230, random_state=0), truth)


def test_long_partitions_show_a_bar_and_can_be_interrupted(monkeypatch, capsys):
    monkeypatch.setenv("ANONFACES_QUIET", "")
    partition("balanced", spread(), 6, random_state=0)
    assert "partitioning" not in capsys.readouterr().err
    monkeypatch.setattr(annealing, "_SHOWN_AFTER", 0.0)
    monkeypatch.setattr(annealing, "_AT_ONCE", 1000)
    anneal, counts = kernels.anneal, []

    def note(*arguments):
        counts.append(arguments[4])
        if len(counts) == 20:
            raise KeyboardInterrupt
        return anneal(*arguments)

    monkeypatch.setattr(kernels, "anneal", note)
    with pytest.raises(KeyboardInterrupt):
        partition("balanced", spread(), 6, random_state=0)
    assert max(counts) <= 1000
    assert "partitioning (moves)" in capsys.readouterr().err


def test_more_effort_is_no_worse():
    X = spread()
    sums = [
        partitioning.within_cluster_sse(X, partition("balanced", X, 6, random_state=0, effort=effort))
        for effort in (0, "fast", 3_000 * len(X))
    ]
    assert sums[0] > sums[1] > sums[2]
    others = ("ward", "mdav", "kmeans_assignment", "kmember", "knn_max")
    assert sums[1] < min(
        partitioning.within_cluster_sse(X, partition(name, X, 6, random_state=0)) for name in others
    )


def test_numpy_path_is_a_local_optimum_near_the_compiled_one(monkeypatch):
    X = spread()
    compiled = partitioning.within_cluster_sse(X, partition("balanced", X, 6, random_state=0, effort=0))
    monkeypatch.setattr(kernels, "numba", None)
    interpreted = partitioning.within_cluster_sse(X, partition("balanced", X, 6, random_state=0))
    assert interpreted == pytest.approx(compiled, rel=0.03)


def test_module_imports_and_partitions_where_numba_is_missing():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy as np, partitioning\n"
        "labels = partitioning.PARTITIONERS['balanced'](np.arange(12.0)[:, None], 4, random_state=0)\n"
        "assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4, labels\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_single_swap_improves_the_local_search_result():
    X = spread(people=47, dimension=3)
    labels = partition("balanced", X, 5, random_state=1)
    best = partitioning.within_cluster_sse(X, labels)
    for first, second in combinations(range(len(X)), 2):
        swapped = labels.copy()
        swapped[[first, second]] = labels[[second, first]]
        assert partitioning.within_cluster_sse(X, swapped) > best - 1e-3


def test_rotation_shift_and_scale_leave_a_good_partition(celeba):
    labels = partition("balanced", celeba * 1000 + 5, 20, random_state=0)
    assert_fixed_size(labels, len(celeba), 20)
    assert partitioning.within_cluster_sse(celeba, labels) < 231.5  # best published peer: 236.23


def test_more_columns_than_people():
    X = np.random.default_rng(0).normal(size=(40, 1500))
    X[:20] += 3
    labels = partition("balanced", X, 20, random_state=0)
    assert labels.tolist() == [0] * 20 + [1] * 20


def test_diameter_objective_lowers_the_largest_distances():
    X = spread(people=120)
    plain = partitioning.cluster_stats(X, partition("balanced", X, 5, random_state=0))
    narrow = partitioning.cluster_stats(X, partition("balanced", X, 5, random_state=0, objective="diameter"))
    assert narrow["max_dist"].sum() < plain["max_dist"].sum()
    assert narrow["size"].tolist() == [5] * 24


def test_weights_pull_the_partition_towards_heavy_rows():
    X = spread(people=120)
    weights = np.random.default_rng(1).random(120) ** 4 + 1e-3

    def weighted_sse(labels):
        return sum(
            (
                weights[labels == label, None]
                * (
                    X[labels == label]
                    - np.average(X[labels == label], axis=0, weights=weights[labels == label])
                )
                ** 2
            ).sum()
            for label in range(labels.max() + 1)
        )

    plain = partition("balanced", X, 5, random_state=0)
    heavy = partition("balanced", X, 5, random_state=0, weights=weights)
    assert_fixed_size(heavy, 120, 5)
    assert weighted_sse(heavy) < weighted_sse(plain)


def test_diversity_closeness_and_twins_hold():
    X = spread(people=203)
    sex = np.where(X[:, 0] > 0.8, "female", "male")  # along the widest axis, where clusters split
    twins = np.arange(200).reshape(-1, 2)
    X[twins[:, 1]] = X[twins[:, 0]] + 1e-3
    plain = partitioning.anonymity_report(
        partition("balanced", X, 8, random_state=0), attributes={"sex": sex}
    )
    assert plain["sex_values"].min() == 1
    labels = partition(
        "balanced", X, 8, random_state=0, attributes={"sex": sex}, diversity=2, closeness=0.3, apart=twins
    )
    assert_fixed_size(labels, 203, 8)
    report = partitioning.anonymity_report(labels, attributes={"sex": sex})
    assert report["sex_values"].min() == 2 and report["sex_distance"].max() <= 0.3 + 1e-9
    assert (labels[twins[:, 0]] != labels[twins[:, 1]]).all()


def test_rules_hold_without_numba(without_numba):
    X = spread(people=60)
    sex = (X[:, 0] > 0).tolist()
    labels = partition("balanced", X, 5, random_state=0, attributes={"sex": sex}, diversity=2)
    assert partitioning.anonymity_report(labels, attributes={"sex": sex})["sex_values"].min() == 2


def test_rules_that_cannot_hold_are_refused():
    X = spread(people=40)
    with pytest.raises(ValueError, match="satisfies the rules"):
        partition("balanced", X, 4, attributes={"sex": [1] * 3 + [0] * 37}, diversity=2)
    with pytest.raises(ValueError, match="fewer than diversity=3"):
        partition("balanced", X, 4, attributes={"sex": [1] * 3 + [0] * 37}, diversity=3)
    with pytest.raises(ValueError, match="two rows of one person"):
        partition("balanced", X, 4, identities=[0, 0, *range(1, 39)], apart=[[0, 1]])


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_pieces_do_not_depend_on_how_many_run_at_once(n_jobs):
    X = spread(people=400)
    labels = partition("balanced", X, 5, random_state=0, pieces=4, n_jobs=n_jobs)
    assert_fixed_size(labels, 400, 5)
    np.testing.assert_array_equal(labels, partition("balanced", X, 5, random_state=0, pieces=4, n_jobs=1))
    whole = partitioning.within_cluster_sse(X, partition("balanced", X, 5, random_state=0))
    assert partitioning.within_cluster_sse(X, labels) < 1.05 * whole


def test_pieces_run_on_a_local_dask_cluster():
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    import joblib

    X = spread(people=400)
    with (
        distributed.LocalCluster(n_workers=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        labels = partition("balanced", X, 5, random_state=0, pieces=4)
    np.testing.assert_array_equal(labels, partition("balanced", X, 5, random_state=0, pieces=4, n_jobs=1))


def test_a_budget_in_seconds_gives_a_partition():
    assert_fixed_size(partition("balanced", spread(people=100), 7, seconds=0.05), 100, 7)


# How small the sum of squares can be


@st.composite
def few_people(draw):
    people = draw(st.integers(2, 9))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    X = generator.normal(size=(people, draw(st.integers(1, 4)))) * draw(st.sampled_from([1e-3, 1.0, 1e6]))
    X = draw(st.sampled_from([X, X + 100 * np.abs(X).max(), np.round(X), np.full_like(X, 3.0)]))
    return X, draw(st.integers(2, people)), generator


@settings(max_examples=60, deadline=None)
@given(few_people())
def test_no_partition_is_below_the_bound(case):
    X, k, _ = case
    best = best_by_brute_force(X, k)
    bound = partitioning.lower_bound(X, k)
    assert 0 <= bound <= best * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(few_people())
def test_any_prices_give_a_bound(case):
    X, k, generator = case
    people = len(X)
    X = (X - X.mean(axis=0)) / (np.abs(X).max() or 1)
    pairs = bounds._Pairs(X, people // k, people - 1)
    if people > 2:
        pairs.triangles = np.array([generator.permutation(people)[:3] for _ in range(6)])

    def solve(costs, sides):
        return costs, generator.normal(0.3, 0.3, people), generator.exponential(0.1, len(pairs.triangles))

    pairs._solve = solve
    assert pairs.bound() <= best_by_brute_force(X, k) + 1e-9


def pairs_relaxation(X, k):
    """The linear program over all pairs, without triangles."""
    people = len(X)
    first, second = np.triu_indices(people, 1)
    covers = np.zeros((people, len(first)))
    covers[first, np.arange(len(first))] = covers[second, np.arange(len(first))] = -1
    costs = ((X[first] - X[second]) ** 2).sum(axis=1)
    return linprog(costs, covers, np.full(people, (1 - k) / k), bounds=(0, 1 / k)).fun


@pytest.mark.parametrize(("people", "k", "dimension"), [(60, 5, 10), (40, 2, 30), (30, 10, 2), (64, 32, 3)])
def test_bound_is_above_the_linear_program_and_the_spectrum(people, k, dimension):
    X = spread(people=people, dimension=dimension)
    bound = partitioning.lower_bound(X, k)
    assert bound >= pairs_relaxation(X, k) * (1 - 1e-6)
    values = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2
    assert bound >= values[people // k - 1 :].sum() * (1 - 1e-6)
    assert bound <= partitioning.within_cluster_sse(X, partition("balanced", X, k, random_state=0))


def test_bound_by_hand():
    # Two pairs at distance 2: SSE 2 + 2.
    assert partitioning.lower_bound([[0.0], [2.0], [9.0], [11.0]], 2) == pytest.approx(4)
    # One cluster, mean 2: 4 + 1 + 9.
    assert partitioning.lower_bound([[0.0], [1.0], [5.0]], 2) == pytest.approx(14)
    # Two equilateral triangles of side 2: 3 * 4 / 3 each.
    triangle = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, np.sqrt(3)]])
    assert partitioning.lower_bound(np.vstack([triangle, triangle + 50]), 3) == pytest.approx(8)
    assert partitioning.lower_bound(np.ones((5, 2)), 2) == 0


def test_triangles_raise_the_bound(monkeypatch):
    X = spread(people=90, dimension=30)
    bound = partitioning.lower_bound(X, 4)
    monkeypatch.setattr(bounds, "_ROUNDS", 0)
    assert bound > 1.01 * partitioning.lower_bound(X, 4)


def test_bound_of_separated_blobs_is_reached():
    X, truth = blobs()
    reached = partitioning.within_cluster_sse(X, truth)
    assert partitioning.lower_bound(X, 5) == pytest.approx(reached, rel=1e-4)


def test_bound_follows_shift_scale_and_rotation():
    X = spread(people=50, dimension=6)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    moved = partitioning.lower_bound((X @ rotation + 7) * 1e4, 4) / 1e8
    assert moved == pytest.approx(partitioning.lower_bound(X, 4), rel=2e-3)


def test_bound_of_the_reference_descriptors(celeba):
    X = celeba[:300]
    found = partitioning.within_cluster_sse(X, partition("balanced", X, 5, random_state=0, effort="default"))
    bound = partitioning.lower_bound(X, 5)
    assert pairs_relaxation(X, 5) * 1.03 < bound < found < 1.07 * bound


def test_bound_of_many_people_uses_the_spectrum_or_refuses():
    X = spread(people=2_000, dimension=4)
    values = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2
    assert partitioning.lower_bound(X, 1_000) == pytest.approx(values[1:].sum(), rel=1e-6)
    with pytest.raises(ValueError, match="pairs of people"):
        partitioning.lower_bound(np.arange(200_000.0)[:, None], 2)


# People, not photos


@pytest.mark.parametrize("name", NAMES)
def test_people_get_one_label_and_k_counts_people(name):
    generator = np.random.default_rng(0)
    identities = np.array([f"p{number}" for number in generator.integers(0, 23, 90)])
    X = generator.normal(size=(90, 3))
    labels = partition(name, X, 4, identities=identities, random_state=0)
    people, first, person = np.unique(identities, return_index=True, return_inverse=True)
    np.testing.assert_array_equal(labels, labels[first][person])
    sizes = np.bincount(labels[first])
    assert len(sizes) == len(people) // 4 and sizes.max() - sizes.min() <= 1
    report = partitioning.anonymity_report(labels, identities)
    assert report["people"].min() >= 4 and report["rows"].sum() == 90


def test_a_person_is_the_mean_of_the_photos():
    # Means 1, 1.5, 20, 21: each photo alone would pair otherwise.
    X = np.array([[-9.0], [11.0], [1.5], [20.0], [2.0], [40.0]])
    identities = ["a", "a", "b", "c", "d", "d"]
    for name in ("balanced", "ward", "mdav"):
        assert partition(name, X, 2, identities=identities, random_state=0).tolist() == [0, 0, 0, 1, 1, 1]


def test_normalise_compares_angles():
    X = np.array([[1.0, 0.1], [10.0, 4.0], [0.1, 1.0], [4.0, 10.0]])  # angles 6, 22, 84, 68 degrees
    for name in ("balanced", "ward"):
        assert partition(name, X, 2, normalise=True, random_state=0).tolist() == [0, 0, 1, 1]
        assert partition(name, X, 2, random_state=0).tolist() == [0, 1, 0, 1]
    with pytest.raises(ValueError, match="non-zero length"):
        partition("ward", np.array([[0.0, 0.0], [1.0, 2.0]]), 2, normalise=True)


# Bad input


GOOD = np.random.default_rng(0).normal(size=(10, 3))
BAD = [
    (GOOD, 1, ValueError, "at least 2, got 1"),
    (GOOD, 0, ValueError, "at least 2, got 0"),
    (GOOD, -3, ValueError, "at least 2, got -3"),
    (GOOD, 11, ValueError, "at most the number of people, 10, got 11"),
    (GOOD, 2.5, TypeError, "integer"),
    (GOOD, 2.0, TypeError, "integer"),
    (GOOD, True, TypeError, "integer"),
    (GOOD, "5", TypeError, "integer"),
    (GOOD, None, TypeError, "integer"),
    (np.where(np.arange(30).reshape(10, 3) == 7, np.nan, GOOD), 2, ValueError, "row 2"),
    (np.where(np.arange(30).reshape(10, 3) == 7, -np.inf, GOOD), 2, ValueError, "row 2"),
    (GOOD[:1], 2, ValueError, "at least 2 rows"),
    (GOOD[:0], 2, ValueError, "at least 2 rows"),
    (GOOD[:, :0], 2, ValueError, "1 column"),
    (GOOD[0], 2, ValueError, r"\(n, d\).*got float64 of shape \(3,\)"),
    (GOOD[None], 2, ValueError, r"\(n, d\).*got float64 of shape \(1, 10, 3\)"),
    (GOOD.astype(str), 2, TypeError, "real numbers"),
    (GOOD.astype(complex), 2, TypeError, "real numbers"),
    ("descriptors", 2, TypeError, "real numbers"),
    ([["a", 1], [None, 2]], 2, TypeError, "real numbers"),
]


@pytest.mark.parametrize(("X", "k", "error", "words"), BAD)
@pytest.mark.parametrize(
    "name", ["balanced", "ward", "kmeans_elki", "knn_max", "kmember", "oka", "mdav", "random"]
)
def test_bad_input_is_refused(name, X, k, error, words):
    with pytest.raises(error, match=words):
        PARTITIONERS[name](X, k)


@pytest.mark.parametrize(("X", "k", "error", "words"), BAD)
def test_bound_refuses_bad_input(X, k, error, words):
    with pytest.raises(error, match=words):
        partitioning.lower_bound(X, k)


@pytest.mark.parametrize("name", NAMES)
def test_bad_identities_and_unknown_options_are_refused(name):
    with pytest.raises(ValueError, match="9 values for 10 rows"):
        PARTITIONERS[name](GOOD, 2, identities=list(range(9)))
    with pytest.raises(ValueError, match="missing"):
        PARTITIONERS[name](GOOD, 2, identities=[None, *range(9)])
    with pytest.raises(ValueError, match="at most the number of people, 3"):
        PARTITIONERS[name](GOOD, 4, identities=[1, 2, 3] * 3 + [1])
    with pytest.raises(TypeError, match="sharpness"):
        PARTITIONERS[name](GOOD, 2, sharpness=1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"effort": "enormous"}, ValueError),
        ({"effort": -1}, ValueError),
        ({"effort": 1.5}, TypeError),
        ({"effort": True}, TypeError),
        ({"objective": "cost"}, ValueError),
        ({"weights": np.ones(9)}, ValueError),
        ({"weights": np.zeros(10)}, ValueError),
        ({"weights": np.ones(10), "objective": "diameter"}, ValueError),
        ({"diversity": 2}, ValueError),
        ({"closeness": 2, "attributes": {"sex": [0, 1] * 5}}, ValueError),
        ({"attributes": {"sex": [0, 1]}, "diversity": 2}, ValueError),
        ({"apart": [[0, 10]]}, ValueError),
        ({"apart": [0, 1, 2]}, ValueError),
        ({"seconds": 0}, ValueError),
        ({"seconds": 1, "pieces": 2}, ValueError),
        ({"pieces": 0}, ValueError),
    ],
)
def test_bad_options_of_balanced_are_refused(options, error):
    with pytest.raises(error):
        PARTITIONERS["balanced"](GOOD, 2, **options)


def test_published_names_are_there():
    promised = (
        "balanced ward average complete single kmeans_elki kmeans_random kmeans_max kmeans_min knn_random"
    )
    assert set(f"{promised} knn_max knn_min kmember oka mdav random".split()) <= set(PARTITIONERS)
    assert "vmdav" in VARIABLE_SIZE and not set(PARTITIONERS) & set(VARIABLE_SIZE)


# Tables


def test_cluster_stats_by_hand():
    X = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0], [10.0, 0.0], [10.0, 2.0]])
    table = partitioning.cluster_stats(X, ["b", "b", "b", "c", "c"])
    assert table.columns.tolist() == [
        "label", "size", "min_dist", "max_dist", "mean_dist", "mean_silhouette", "sse"
    ]  # fmt: skip
    assert table["label"].tolist() == ["b", "c"] and table["size"].tolist() == [3, 2]
    np.testing.assert_allclose(table["min_dist"], [3, 2])
    np.testing.assert_allclose(table["max_dist"], [5, 2])
    np.testing.assert_allclose(table["mean_dist"], [4, 2])
    # Cluster b: mean (1, 8/3); squared distances 1 + 64/9, 4 + 16/9, 1 + 16/9.
    np.testing.assert_allclose(table["sse"], [6 + 96 / 9, 2])
    far = np.hypot([10, 10, 7, 7, 10, 10], [0, 2, 4, 2, 4, 2]).reshape(3, 2)  # from b's points to c's
    own = np.array([4.5, 4.0, 3.5])
    expected_b = np.mean(1 - own / far.mean(axis=1))
    expected_c = np.mean(1 - 2 / far.mean(axis=0))
    np.testing.assert_allclose(table["mean_silhouette"], [expected_b, expected_c])


def test_cluster_stats_at_the_edges():
    X = np.array([[0.0], [1.0], [5.0]])
    one = partitioning.cluster_stats(X, [0, 0, 0])
    assert np.isnan(one["mean_silhouette"][0]) and one["max_dist"][0] == 5
    single = partitioning.cluster_stats(X, [0, 0, 1])
    assert single.loc[1, ["min_dist", "max_dist", "mean_dist", "mean_silhouette", "sse"]].tolist() == [0] * 5
    assert partitioning.cluster_stats(X, [0, 0, 1], silhouette_rows=2)["mean_silhouette"].isna().all()
    with pytest.raises(ValueError, match="3 rows"):
        partitioning.cluster_stats(X, [0, 1])


def test_within_cluster_sse_by_hand():
    assert partitioning.within_cluster_sse(np.array([[0.0], [2.0], [7.0]]), ["a", "a", "b"]) == pytest.approx(
        2.0
    )
    X = np.float32(1000) + np.random.default_rng(0).normal(size=(500, 7)).astype(np.float32)
    labels = np.arange(500) % 9
    stats = partitioning.cluster_stats(X, labels)
    assert partitioning.within_cluster_sse(X, labels) == pytest.approx(stats["sse"].sum())


def test_anonymity_report_by_hand():
    labels = [0, 0, 0, 0, 1, 1, 1]
    identities = ["a", "a", "b", "c", "d", "e", "f"]
    sex = ["f", "f", "m", "m", "m", "m", None]
    report = partitioning.anonymity_report(labels, identities, {"sex": sex})
    assert report["label"].tolist() == [0, 1]
    assert report["rows"].tolist() == [4, 3] and report["people"].tolist() == [3, 3]
    assert report["sex_values"].tolist() == [2, 1]
    assert report["sex_share"].tolist() == [0.5, 1.0]
    # All: 2 f, 4 m. Cluster 0 has 1/2 and 1/2, cluster 1 has 0 and 1.
    np.testing.assert_allclose(report["sex_distance"], [1 / 6, 1 / 3])


def test_diversity_by_hand_and_as_pycanon_computes_it():
    """The package pyCANON gives entropy l = 1 (rounded down), beta 0.75, delta 0.6931 and t 0.25 for these rows."""
    labels, values = [0] * 5 + [1] * 5 + [2] * 4, [*"ffmmm", *"fmmmx", *"ffxm"]
    report = partitioning.anonymity_report(labels, attributes={"s": values})
    share = np.array([2, 3]) / 5
    assert report["s_entropy"].iloc[0] == pytest.approx(np.prod(share**-share))
    assert int(report["s_entropy"].min()) == 1
    assert report["s_recursive"].tolist() == [3 / 2, 3 / (1 + 1), 2 / (1 + 1)]  # l = 2 in the first cluster
    # All: 5 f, 7 m, 2 x of 14.
    np.testing.assert_allclose(
        report["s_beta"], [3 / 5 / (7 / 14) - 1, 1 / 5 / (2 / 14) - 1, 1 / 4 / (2 / 14) - 1]
    )
    np.testing.assert_allclose(report["s_delta"], np.abs(np.log([3 / 5 * 2, 1 / 5 * 14 / 5, 1 / 4 * 2])))
    assert report["s_distance"].max() == pytest.approx(0.25)
    unknown = partitioning.anonymity_report([0, 0, 1, 1], attributes={"s": [None, None, "a", "b"]})
    assert unknown.loc[0, ["s_entropy", "s_recursive", "s_beta", "s_delta"]].isna().all()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=30),
    st.lists(st.floats(0.01, 1), min_size=30, max_size=30),
)
def test_no_prior_gains_more_than_the_number_of_images(labels, prior):
    """The success of the best guess of every prior, by brute force; a uniform prior reaches the vulnerability."""
    labels = np.unique(labels, return_inverse=True)[1]
    n, m = len(labels), labels.max() + 1
    bounds = partitioning.leakage_bounds(n, m)

    def best(prior):
        return sum(prior[labels == image].max() for image in range(m))

    prior = np.array(prior[:n]) / sum(prior[:n])
    assert best(prior) <= bounds["greatest_gain"] * prior.max() + 1e-12
    assert best(np.full(n, 1 / n)) == pytest.approx(bounds["vulnerability"])
    assert bounds["leakage_bits"] == pytest.approx(np.log2(bounds["vulnerability"] * n))


def test_two_releases_multiply():
    assert partitioning.leakage_bounds(40, 5, 7)["vulnerability"] == 35 / 40
    assert partitioning.leakage_bounds(40, 5, 8)["vulnerability"] == 1.0
    with pytest.raises(ValueError, match="each of n_images"):
        partitioning.leakage_bounds(4, 5)


def test_anonymity_report_refuses_a_person_in_two_clusters():
    with pytest.raises(ValueError, match="1 people have photos in more than one cluster"):
        partitioning.anonymity_report([0, 0, 1, 1], ["a", "b", "b", "c"])
    with pytest.raises(
        ValueError, match="attribute 'sex' must have one value per row, got 1 values for 2 rows"
    ):
        partitioning.anonymity_report([0, 0], attributes={"sex": ["f"]})
