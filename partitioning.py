"""Fixed-size clustering: descriptors and k -> one label per person, every cluster of at least k people.

A partition of n people for k-anonymity has ``n // k`` clusters whose sizes differ by at most one. All
algorithms share one call::

    labels = PARTITIONERS["balanced"](X, 10, identities=None, random_state=0)

Every member of a cluster later gets the same surrogate face, so the spread of a cluster is the cost of
anonymity: the default, "balanced", minimises the within-cluster sum of squares (SSE) heuristically, and
`lower_bound` says how small it can be at best.
The other algorithms are those of the AnonFACES paper [1]_ and of the microaggregation literature. Forms
that do not keep the sizes are in ``VARIABLE_SIZE``.

The algorithms below are written for people; ``@on_people`` gives each the shared call: it checks descriptors,
reduces rows to one point per person, and expands the labels to rows.

Files: `people` (the shared call), `balancing` (the default, "balanced", and the bound), `cluster_reports` (tables
about a partition).
Their public functions are importable from here.

References
----------
.. [1] M.-H. Le, M. S. N. Khan, G. Tsaloli, N. Carlsson, S. Buchegger, "AnonFACES: Anonymizing Faces Adjusted
       to Constraints on Efficacy and Security", WPES 2020.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy

from balancing import balanced_partition
from balancing.bounds import lower_bound
from checks import ParameterError, check_known, check_number
from cluster_reports import anonymity_report, cluster_stats, leakage_bounds, within_cluster_sse
from distances import mean_of_groups, squared_distances, squared_lengths
from people import People, Seed, cluster_sizes, on_people

__all__ = [
    "PARTITIONERS", "VARIABLE_SIZE", "anonymity_report", "assignment_partition", "balanced_partition",
    "cluster_sizes", "cluster_stats", "hierarchical_partition", "kmeans_partition", "kmember_partition",
    "knn_partition", "leakage_bounds", "lower_bound", "mdav_partition", "oka_partition", "random_partition",
    "vmdav_partition", "within_cluster_sse",
]  # fmt: skip

_PAIRS = 800_000_000  # distances that an algorithm may hold at once: 6.4 GB as float64


def _check_pairs(pairs: int, what: str) -> None:
    if pairs > _PAIRS:
        raise ParameterError(
            f'{what} needs {pairs} distances in memory, at most {_PAIRS} are allowed; use "balanced", whose '
            "memory is linear in the number of people"
        )


def _nearest(squares: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` smallest values, smallest first; ties go to the earlier position."""
    if count >= len(squares):
        return np.argsort(squares, kind="stable")[:count]
    limit = np.partition(squares, count - 1)[count - 1]
    close = np.flatnonzero(squares <= limit)
    return close[np.argsort(squares[close], kind="stable")[:count]]


def _nearest_to_seed(points: np.ndarray, seed: int, count: int) -> np.ndarray:
    """Positions of a seed and the `count` - 1 points nearest to it; the seed is first, also among duplicates."""
    squares = squared_lengths(points - points[seed])
    squares[seed] = -1.0
    return _nearest(squares, count)


# ---------------------------------------------------------------------------------------------------------
# Hierarchical partition (AnonFACES, section 4.2)
# ---------------------------------------------------------------------------------------------------------

_LINKAGES = ("ward", "average", "complete", "single")


@on_people
def hierarchical_partition(people: People, random_state: Seed, method: str = "ward") -> np.ndarray:
    """Cut clusters of the wanted size out of one agglomerative tree, starting from its lowest merges.

    The merges are visited in order of height. As soon as a merge has enough people without a cluster
    below it, the people nearest to their common mean become a cluster; the others wait for
    the next merge above. AnonFACES [1]_ (section 4.2) recomputes the tree after each cluster; here it is
    built once per call.

    Parameters
    ----------
    X : array (rows, d)
        Descriptors, one per row; never changed.
    cluster_size : int, 2 .. n
        The smallest number of people in a cluster (k).
    method : {"ward", "average", "complete", "single"}
        The linkage.
    identities : sequence (rows,), optional
        The person of each row; rows of one person get one label, and k counts people.
    random_state : int, Generator or None
        Ignored because the result is deterministic; accepted because all partitions share one call.
    normalise : bool
        Scale descriptors (and people's means) to length 1, for embeddings compared by angle.

    Returns
    -------
    int64 array (rows,)
        Labels 0 .. n // k - 1 without gaps; cluster sizes differ by at most one.

    Raises
    ------
    ValueError, TypeError
        If X, cluster_size or identities are invalid, or there are more than 40,000 people.

    Notes
    -----
    Time O(n^2 d), memory 8 n^2 / 2 bytes for the distances.
    """
    check_known("method", method, _LINKAGES)
    _check_pairs(len(people) * (len(people) - 1) // 2, "a linkage")
    points, sizes = people.points, people.sizes
    tree = scipy.cluster.hierarchy.linkage(
        scipy.spatial.distance.pdist(points.astype(np.float64)), method=method
    )
    waiting = {leaf: [leaf] for leaf in range(len(people))}  # people without a cluster, by node
    labels = np.full(len(people), -1, dtype=np.int64)
    cluster = 0
    for merge, (left, right) in enumerate(tree[:, :2].astype(np.int64)):
        members = waiting.pop(left) + waiting.pop(right)
        while cluster < len(sizes) and len(members) >= sizes[cluster]:
            members = np.array(members)
            squares = squared_lengths(points[members] - points[members].mean(axis=0))
            chosen = _nearest(squares, sizes[cluster])
            labels[members[chosen]] = cluster
            members = np.delete(members, chosen).tolist()
            cluster += 1
        waiting[len(people) + merge] = members
    return labels


# ---------------------------------------------------------------------------------------------------------
# k-means with filled clusters (AnonFACES, section 4.2; ELKI's same-size k-means tutorial)
# ---------------------------------------------------------------------------------------------------------

_KMEANS_ORDERS = {
    # centroid distances (n, clusters), random generator -> the order in which people choose their cluster
    "elki": lambda distances, generator: np.argsort(-np.ptp(distances, axis=1), kind="stable"),
    "max": lambda distances, generator: np.argsort(-distances.max(axis=1), kind="stable"),
    "min": lambda distances, generator: np.argsort(distances.min(axis=1), kind="stable"),
    "random": lambda distances, generator: generator.permutation(len(distances)),
}


@on_people
def kmeans_partition(
    people: People,
    random_state: Seed,
    method: str = "elki",
    *,
    max_iter: int = 20,
    as_published: bool = False,
) -> np.ndarray:
    """Compute k-means centroids, then let people choose the nearest cluster that is not full.

    The method is the order of choosing: "elki" starts with the people who gain most (nearest minus
    farthest centroid, as in ELKI's same-size k-means tutorial), "max" with those whose farthest centroid is
    farthest, "min" with those nearest to a centroid; "random" is a random order (AnonFACES [1]_, section 4.2).

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    method : {"elki", "max", "min", "random"}
        The order of choosing.
    random_state : int, Generator or None
        Seeds the centroids (and the order, for "random").
    max_iter : int
        Lloyd iterations of the k-means before the choosing.
    as_published : bool
        False assigns to the *nearest* centroid that is not full. True assigns to the *farthest*,
        as the code released with the paper does: sizes are kept, but a cluster holds people far from
        its centroid. This explains the paper's k-means curves and has no other use.

    Returns
    -------
    int64 array (rows,)
        As in `hierarchical_partition`.

    Notes
    -----
    Time O(n^2 d / k) per iteration, memory 4 n^2 / k bytes for the distances to the centroids.
    """
    check_known("method", method, _KMEANS_ORDERS)
    generator = np.random.default_rng(random_state)
    points, sizes = people.points, people.sizes
    _check_pairs(len(points) * len(sizes), "k-means with filled clusters")
    centroids = _lloyd(points, len(sizes), max_iter, generator)
    distances = np.sqrt(squared_distances(points, centroids))
    order = _KMEANS_ORDERS[method](distances, generator)
    return _choose_places(-distances if as_published else distances, sizes, order)


def _seed_centroids(points, clusters, generator):
    """k-means++ (Arthur, Vassilvitskii 2007): seeds drawn by squared distance to the nearest so far, (clusters, d)."""
    chosen = np.empty(clusters, dtype=np.int64)
    chosen[0] = generator.integers(len(points))
    nearest = squared_lengths(points - points[chosen[0]]).astype(np.float64)
    nearest[chosen[0]] = 0.0
    for position in range(1, clusters):
        cumulative = np.cumsum(nearest)
        if cumulative[-1] > 0:
            draw = np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right")
            chosen[position] = min(draw, len(points) - 1)
        else:  # fewer different points than clusters
            chosen[position] = generator.integers(len(points))
        np.minimum(nearest, squared_lengths(points - points[chosen[position]]), out=nearest)
        nearest[chosen[position]] = 0.0
    return points[chosen]


def _lloyd(points, clusters, max_iter, generator):
    """k-means centroids without any limit of size, (clusters, d); an empty cluster keeps its centroid."""
    centroids = _seed_centroids(points, clusters, generator)
    labels = np.full(len(points), -1)
    for _ in range(max_iter):
        blocks = (points[start : start + 4096] for start in range(0, len(points), 4096))
        nearest = [squared_distances(block, centroids).argmin(axis=1) for block in blocks]
        previous, labels = labels, np.concatenate(nearest)
        if np.array_equal(labels, previous):
            break
        filled = np.unique(labels)
        centroids[filled] = mean_of_groups(points, np.searchsorted(filled, labels), len(filled))
    return centroids


def _choose_places(costs, sizes, order):
    """Assign each row, in the given order, to its cheapest column that is not full; return labels (n,)."""
    labels = np.empty(len(costs), dtype=np.int64)
    # Extra places go to the clusters that fill up first; otherwise the first centroids would be favoured.
    base, extra = int(sizes[-1]), int((sizes > sizes[-1]).sum())
    counts = np.zeros(len(sizes), dtype=np.int64)
    closed = np.zeros(len(sizes))  # infinite if a cluster is full
    for row in order:
        label = labels[row] = int(np.argmin(costs[row] + closed))
        counts[label] += 1
        extra -= counts[label] > base
        closed[counts >= (base + 1 if extra else base)] = np.inf
    return labels


_ASSIGNMENT_PEOPLE = 5_000  # the optimal assignment holds an (n, n) cost matrix and takes O(n^3)


@on_people
def assignment_partition(people: People, random_state: Seed, *, max_iter: int = 30) -> np.ndarray:
    """Balanced k-means: every Lloyd step solves the assignment of people to places optimally.

    Source: M. I. Malinen, P. Fränti, "Balanced k-means for clustering", S+SSPR 2014. For small n.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    random_state : int, Generator or None
        Seeds the first centroids.
    max_iter : int
        The largest number of steps.

    Returns
    -------
    int64 array (rows,)
        As in `hierarchical_partition`.

    Notes
    -----
    Time O(n^3) per step, memory O(n^2); more than 5,000 people raise ValueError.
    """
    points, sizes = people.points, people.sizes
    if len(points) > _ASSIGNMENT_PEOPLE:
        raise ParameterError(
            f"the optimal assignment is limited to {_ASSIGNMENT_PEOPLE} people, got {len(points)}; "
            'use "balanced" instead'
        )
    centroids = _seed_centroids(points, len(sizes), np.random.default_rng(random_state))
    place_cluster = np.repeat(np.arange(len(sizes)), sizes)  # (n,)
    labels = np.full(len(points), -1)
    for _ in range(max_iter):
        costs = squared_distances(points, centroids)[:, place_cluster]  # (n, n)
        previous, labels = labels, place_cluster[scipy.optimize.linear_sum_assignment(costs)[1]]
        if np.array_equal(labels, previous):
            break
        centroids = mean_of_groups(points, labels, len(sizes))
    return labels


# ---------------------------------------------------------------------------------------------------------
# k nearest neighbours: k-Same (Newton, Sweeney, Malin 2005; AnonFACES, section 4.2)
# ---------------------------------------------------------------------------------------------------------

_KNN_SEEDS = {
    # sums of distances to all people without a cluster (m,), random generator -> position of the seed
    "random": lambda sums, generator: int(generator.integers(len(sums))),
    "max": lambda sums, generator: int(np.argmax(sums)),
    "min": lambda sums, generator: int(np.argmin(sums)),
}


@on_people
def knn_partition(people: People, random_state: Seed, method: str = "random") -> np.ndarray:
    """Repeatedly take one person and the nearest others who have no cluster yet (k-Same).

    The seed is a random person ("random", k-Same of E. Newton, L. Sweeney, B. Malin, "Preserving privacy by
    de-identifying face images", IEEE TKDE 17(2), 2005), or the person whose summed distance to all people
    without a cluster is largest ("max") or smallest ("min"; both AnonFACES [1]_, section 4.2).

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    method : {"random", "max", "min"}
        Rule for choosing the seed.
    random_state : int, Generator or None
        Used by "random".

    Returns
    -------
    int64 array (rows,)
        As in `hierarchical_partition`.

    Notes
    -----
    Time O(n^2 d / k) for "random" and O(n^2 d) for the others; memory linear in n.
    """
    check_known("method", method, _KNN_SEEDS)
    generator = np.random.default_rng(random_state)
    labels = np.empty(len(people), dtype=np.int64)
    # People without a cluster, their points and their sums of distances.
    left, near = np.arange(len(people)), people.points
    sums = np.zeros(len(people)) if method == "random" else _distance_sums(near, near)
    for cluster, size in enumerate(people.sizes):
        chosen = _nearest_to_seed(near, _KNN_SEEDS[method](sums, generator), size)
        labels[left[chosen]] = cluster
        taken = near[chosen]
        left, near, sums = (np.delete(values, chosen, axis=0) for values in (left, near, sums))
        if method != "random" and len(left):
            sums -= _distance_sums(near, taken)
    return labels


def _distance_sums(points, others):
    """For each of `points` the sum of its distances to `others`, (n,), in blocks of rows."""
    sums = np.empty(len(points))
    block = max(1, 2**22 // max(len(others), 1))
    for start in range(0, len(points), block):
        distances = np.sqrt(squared_distances(points[start : start + block], others))
        sums[start : start + block] = distances.sum(axis=1, dtype=np.float64)
    return sums


# ---------------------------------------------------------------------------------------------------------
# k-member and OKA (compared in AnonFACES, section 4.2)
# ---------------------------------------------------------------------------------------------------------


@on_people
def kmember_partition(people: People, random_state: Seed) -> np.ndarray:
    """Greedy k-member clustering, with the residue spread over the clusters.

    Source: J.-W. Byun, A. Kamra, E. Bertino, N. Li, "Efficient k-anonymization using clustering techniques",
    DASFAA 2007, with the loss that AnonFACES [1]_ uses: the largest distance within a cluster. Each cluster starts
    with the person farthest from the last one added, and takes the person whose largest distance to its
    members is smallest. Those left over join, at most one per cluster, where the largest distance grows least.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    random_state : int, Generator or None
        Draws the first person.

    Returns
    -------
    int64 array (rows,)
        As in `hierarchical_partition`.

    Notes
    -----
    Time O(n^2 d), memory linear in n. ``VARIABLE_SIZE["kmember_published"]`` is the form with the mistake of
    the released code.
    """
    labels, left = _grow_members(people.points, int(people.sizes[-1]), len(people.sizes), random_state)
    _spread_residue(people.points, labels, left)
    return labels


@on_people
def _kmember_published(people: People, random_state: Seed) -> np.ndarray:
    """k-member as the code released with AnonFACES [1]_ runs it. **Breaks the size.**

    All remaining people end up in the last cluster, because the search for the best cluster compares with a
    value that is never updated: that cluster has up to 2k - 1 people. Otherwise as `kmember_partition`.
    """
    labels, left = _grow_members(people.points, people.cluster_size, len(people.sizes), random_state)
    labels[left] = len(people.sizes) - 1
    return labels


def _grow_members(points, size, clusters, random_state):
    """Grow `clusters` clusters of `size` people each: labels (n,), -1 for the people left over; and these people."""
    left, near = np.arange(len(points)), points
    labels = np.full(len(points), -1, dtype=np.int64)
    last = points[np.random.default_rng(random_state).integers(len(points))]
    for label in range(clusters):
        position = int(np.argmax(squared_lengths(near - last)))
        farthest = np.zeros(len(left), dtype=points.dtype)  # largest squared distance to a member so far
        for _ in range(size):
            labels[left[position]] = label
            last = near[position]
            farthest = np.delete(np.maximum(farthest, squared_lengths(near - last)), position)
            left, near = np.delete(left, position), np.delete(near, position, axis=0)
            position = int(np.argmin(farthest)) if len(left) else -1
    return labels, left


def _spread_residue(points, labels, left):
    """Give each person of `left` to a different cluster, where the largest distance grows least; changes `labels`."""
    if not len(left):
        return
    clusters = [points[labels == label] for label in range(labels.max() + 1)]
    diameters = np.array([squared_distances(members, members).max() for members in clusters])
    free = np.ones(len(clusters), dtype=bool)
    for person in left:
        growth = np.full(len(clusters), np.inf)
        for label in np.flatnonzero(free):
            reach = float(squared_lengths(clusters[label] - points[person]).max())
            growth[label] = np.sqrt(max(reach, diameters[label])) - np.sqrt(diameters[label])
        labels[person] = np.argmin(growth)
        free[labels[person]] = False


@on_people
def oka_partition(people: People, random_state: Seed) -> np.ndarray:
    """One-pass k-means (OKA), with the residue spread over the clusters.

    Source: J.-L. Lin, M.-C. Wei, "An efficient clustering method for k-anonymization", PAIS 2008. Each person
    in turn joins the nearest of n // k randomly seeded clusters, whose centroid is updated. Then every
    cluster above the size gives up the members farthest from its centroid, and they join the nearest
    cluster that is not full.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    random_state : int, Generator or None
        Draws the seeds.

    Returns
    -------
    int64 array (rows,)
        As in `hierarchical_partition`.

    Notes
    -----
    Time O(n^2 d / k), memory linear in n. ``VARIABLE_SIZE["oka_published"]`` is the form with the scalar
    centre of the released code.
    """
    points, clusters, base = people.points, len(people.sizes), int(people.sizes[-1])
    seeds = np.random.default_rng(random_state).choice(len(points), clusters, replace=False)
    labels, sums = _one_pass(points, seeds)
    # Take the farthest members of each large cluster.
    residue = []
    for label in range(clusters):
        members = np.flatnonzero(labels == label)
        squares = squared_lengths(points[members] - sums[label] / len(members))
        residue.extend(members[np.argsort(squares, kind="stable")[base:]])
    labels[residue] = -1
    # Assign each to the nearest cluster below the base size or, if there is none, to the nearest at that size.
    centroids = np.stack([points[labels == label].mean(axis=0) for label in range(clusters)])
    counts = np.bincount(labels[labels >= 0], minlength=clusters)
    for person in residue:
        short = counts < base
        open_clusters = np.flatnonzero(short if short.any() else counts == base)
        label = open_clusters[np.argmin(squared_lengths(centroids[open_clusters] - points[person]))]
        labels[person] = label
        counts[label] += 1
        centroids[label] += (points[person] - centroids[label]) / counts[label]
    return labels


def _one_pass(points, seeds):
    """Assign each person to the nearest centroid, which is updated; return labels (n,) and sums (clusters, d)."""
    labels = np.full(len(points), -1, dtype=np.int64)
    labels[seeds] = np.arange(len(seeds))
    sums, centroids = points[seeds], points[seeds]
    counts = np.ones(len(seeds))
    for person in np.flatnonzero(labels < 0):
        label = int(np.argmin(squared_lengths(centroids - points[person])))
        labels[person] = label
        sums[label] += points[person]
        counts[label] += 1
        centroids[label] = sums[label] / counts[label]
    return labels, sums


@on_people
def _oka_published(people: People, random_state: Seed) -> np.ndarray:
    """OKA as the code released with AnonFACES [1]_ runs it. **Breaks the size.**

    There, the centre of a cluster is one number, the mean of all values of all its members, so distances
    mean little; once no cluster is below k, the residue joins the nearest cluster without a limit.
    Every cluster has at least k people. Descriptors are not centred because a scalar centre depends on the origin.
    """
    points = people.descriptors.astype(np.float64)
    points = points / (np.abs(points).max() or 1.0)  # no square overflows; all comparisons stay the same
    k, clusters = people.cluster_size, len(people.sizes)
    seeds = np.random.default_rng(random_state).choice(len(points), clusters, replace=False)
    # |x - c 1|^2 = |x|^2 - 2 c sum(x) + d c^2: |x|^2 is the same for all centres and left out.
    totals, dimension = points.sum(axis=1), points.shape[1]
    members = [[int(seed)] for seed in seeds]
    centres = totals[seeds] / dimension

    def join_nearest(person, allowed):
        costs = dimension * centres[allowed] ** 2 - 2.0 * centres[allowed] * totals[person]
        label = int(allowed[np.argmin(costs)])
        members[label].append(int(person))
        centres[label] = totals[members[label]].mean() / dimension

    # Assign each person to the nearest centre.
    for person in np.setdiff1d(np.arange(len(points)), seeds)[::-1]:
        join_nearest(person, np.arange(clusters))
    # Take the farthest members of each cluster above k.
    residue = []
    for label, group in enumerate(members):
        if len(group) > k:
            order = np.argsort(squared_lengths(points[group] - centres[label]), kind="stable")
            residue.extend(group[position] for position in order[k:])
            members[label] = [group[position] for position in order[:k]]
            centres[label] = totals[members[label]].mean() / dimension
    # Assign each to the nearest cluster below k or, if there is none, to the nearest of all.
    for person in reversed(residue):
        short = np.flatnonzero([len(group) < k for group in members])
        join_nearest(person, short if len(short) else np.arange(clusters))
    labels = np.empty(len(points), dtype=np.int64)
    for label, group in enumerate(members):
        labels[group] = label
    return labels


# ---------------------------------------------------------------------------------------------------------
# Microaggregation: MDAV and V-MDAV
# ---------------------------------------------------------------------------------------------------------


@on_people
def mdav_partition(people: People, random_state: Seed) -> np.ndarray:
    """MDAV: repeatedly cut off clusters at the two ends of the remaining people.

    Source: J. Domingo-Ferrer, V. Torra, "Ordinal, continuous and heterogeneous k-anonymity through
    microaggregation", Data Mining and Knowledge Discovery 11, 2005, algorithm MDAV-generic. The person
    farthest from the mean of the remaining people forms a cluster with the nearest others, and so does the person
    farthest from that person. The residue is not added to the last cluster: the first
    n mod (n // k) clusters are one larger, so that sizes differ by at most one.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    random_state : int, Generator or None
        Ignored, as the result is deterministic.

    Returns
    -------
    int64 array (rows,)
        As in `hierarchical_partition`.

    Notes
    -----
    Time O(n^2 d / k), memory linear in n.
    """
    labels = np.empty(len(people), dtype=np.int64)
    left, near = np.arange(len(people)), people.points
    opposite = None  # the first end of a pair, while its second end is due
    for cluster, size in enumerate(people.sizes):
        centre = near.mean(axis=0) if opposite is None else opposite
        seed = int(np.argmax(squared_lengths(near - centre)))
        chosen = _nearest_to_seed(near, seed, size)
        labels[left[chosen]] = cluster
        opposite = near[seed] if opposite is None else None
        left, near = np.delete(left, chosen), np.delete(near, chosen, axis=0)
    return labels


@on_people
def vmdav_partition(people: People, random_state: Seed, *, gamma: float = 0.2) -> np.ndarray:
    """V-MDAV: clusters of k .. 2k - 1 people that follow the data. **Sizes vary.**

    Source: A. Solanas, A. Martínez-Ballesté, "V-MDAV: a multivariate microaggregation with variable group
    size", COMPSTAT 2006. The person farthest from the mean of all forms a cluster with the k - 1 nearest others. The
    cluster then takes the nearest person outside as long as that person's distance to the cluster
    is below `gamma` times the distance to the nearest person without a cluster. The last people, fewer than
    k, join the nearest cluster.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    random_state : int, Generator or None
        Ignored, as the result is deterministic.
    gamma : float, at least 0
        The gain factor; 0.2 suits scattered, 1.1 clustered data (section 4 of the source).

    Returns
    -------
    int64 array (rows,)
        Labels without gaps; every cluster has at least k people.
    """
    check_number("gamma", gamma, at_least=0)
    points, k = people.points, people.cluster_size
    labels = np.full(len(points), -1, dtype=np.int64)
    from_mean = squared_lengths(points - points.mean(axis=0))
    left = np.arange(len(points))
    clusters = 0
    while len(left) >= k:
        seed = int(np.argmax(from_mean[left]))
        chosen = _nearest_to_seed(points[left], seed, k)
        members = left[chosen].tolist()
        left = _extend(points, members, np.delete(left, chosen), 2 * k - 1, gamma)
        labels[members] = clusters
        clusters += 1
    if len(left):
        means = np.stack([points[labels == label].mean(axis=0) for label in range(clusters)])
        labels[left] = squared_distances(points[left], means).argmin(axis=1)
    return labels


def _extend(points, members, left, limit, gamma):
    """Let the cluster grow by V-MDAV's rule, in place; return the people left."""
    inside = squared_distances(points[left], points[members]).min(axis=1, initial=np.inf)
    while len(members) < limit and len(left) > 1:
        candidate = int(np.argmin(inside))
        outside = squared_lengths(points[left] - points[left[candidate]])
        nearest = np.delete(outside, candidate).min()
        if not np.sqrt(inside[candidate]) < gamma * np.sqrt(nearest):
            break
        members.append(int(left[candidate]))
        inside = np.delete(np.minimum(inside, outside), candidate)
        left = np.delete(left, candidate)
    return left


# ---------------------------------------------------------------------------------------------------------
# Random
# ---------------------------------------------------------------------------------------------------------


@on_people
def random_partition(people: People, random_state: Seed) -> np.ndarray:
    """Assign people to clusters at random: the baseline that every other partition should beat.

    Parameters and result as in `hierarchical_partition`; `random_state` (int, Generator or None) is the seed.
    """
    labels = np.repeat(np.arange(len(people.sizes)), people.sizes)
    return np.random.default_rng(random_state).permutation(labels)


# ---------------------------------------------------------------------------------------------------------
# The algorithms by name
# ---------------------------------------------------------------------------------------------------------

PARTITIONERS = {
    "balanced": balanced_partition,
    **{method: partial(hierarchical_partition, method=method) for method in _LINKAGES},
    **{f"kmeans_{method}": partial(kmeans_partition, method=method) for method in _KMEANS_ORDERS},
    "kmeans_assignment": assignment_partition,
    **{f"knn_{method}": partial(knn_partition, method=method) for method in _KNN_SEEDS},
    "kmember": kmember_partition,
    "oka": oka_partition,
    "mdav": mdav_partition,
    "random": random_partition,
}

VARIABLE_SIZE = {
    "vmdav": vmdav_partition,
    "kmember_published": _kmember_published,
    "oka_published": _oka_published,
}
