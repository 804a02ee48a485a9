"""Fixed-size clustering: descriptors and k -> one label a person, every cluster of at least k people.

A partition of n people for k-anonymity has ``n // k`` clusters whose sizes differ by at most one. All
algorithms share one call::

    labels = PARTITIONERS["balanced"](X, 10, identities=None, random_state=0)

Every member of a cluster is later given the same surrogate face, so that the cluster's spread is what
anonymity costs: the default, "balanced", makes the within-cluster sum of squares (SSE) as small as it can.
The algorithms of the AnonFACES paper [1]_ and of the microaggregation literature stand beside it. Forms
that do not hold the sizes are in ``VARIABLE_SIZE``.

References
----------
.. [1] M.-H. Le, M. S. N. Khan, G. Tsaloli, N. Carlsson, S. Buchegger, "AnonFACES: Anonymizing Faces Adjusted
       to Constraints on Efficacy and Security", WPES 2020.
"""

import operator
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

import balancing
from balancing import mean_of_groups, squared_diameter, squared_distances, squared_lengths

# ---------------------------------------------------------------------------------------------------------
# What every algorithm starts from: checked descriptors, one point a person, the sizes to fill
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _People:
    """One point a person, and the way back from people to rows."""

    descriptors: np.ndarray  # (n, d) float32 or float64; the caller's own array where rows are people
    sizes: np.ndarray  # (n // k,) int64, the larger ones first
    row_person: np.ndarray  # (rows,) int64, the person of each row

    @cached_property
    def points(self):
        """Copy of the descriptors with zero mean and a largest absolute value of about 1, (n, d)."""
        return _centred(self.descriptors)

    def row_labels(self, labels):
        """Labels of people -> labels of rows, numbered in the order in which the rows first show them."""
        _, first, inverse = np.unique(labels[self.row_person], return_index=True, return_inverse=True)
        number = np.empty(len(first), dtype=np.int64)
        number[np.argsort(first)] = np.arange(len(first))
        return number[inverse.reshape(-1)]


def _check_descriptors(X):
    """Return X as a finite 2-D float32 or float64 array; float32 stays float32 and is not copied."""
    array = np.asarray(X)
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                "X holds values that are not numbers; pass an array of descriptors, (n, d)."
            ) from None
    if array.dtype.kind not in "fiu":
        raise TypeError(f"X has type {array.dtype}; pass an array of real numbers, one descriptor a row.")
    if array.ndim != 2:
        raise ValueError(f"X has {array.ndim} dimensions; pass one descriptor a row, an array (n, d).")
    if array.shape[0] < 2:
        raise ValueError(f"X has {array.shape[0]} row(s); a partition needs at least two people.")
    if array.shape[1] == 0:
        raise ValueError("X has no columns; pass one descriptor a row, an array (n, d).")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(array.sum())  # a finite sum spares a mask of X's size
    if not finite and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise ValueError(
            f"X has a NaN or infinite value (first in row {row}); drop or repair such rows first."
        )
    return array


def _check_cluster_size(cluster_size, people):
    """Return cluster_size as int, or raise: an integer of 2 .. people."""
    if isinstance(cluster_size, (bool, np.bool_)):
        raise TypeError(
            "cluster_size is a bool; pass the smallest number of people a cluster may have, as int."
        )
    try:
        size = operator.index(cluster_size)
    except TypeError:
        raise TypeError(f"cluster_size is {cluster_size!r}; pass an integer of at least 2.") from None
    if size < 2:
        raise ValueError(f"cluster_size is {size}; fewer than 2 people a cluster hide nobody.")
    if size > people:
        raise ValueError(f"cluster_size is {size}, but there are only {people} people; pass a smaller one.")
    return size


def _number_identities(identities, rows):
    """Number people in the order in which the rows first name them; (rows,) int64."""
    if identities is None:
        return np.arange(rows)
    values = identities.tolist() if hasattr(identities, "tolist") else list(identities)
    if len(values) != rows:
        raise ValueError(f"identities has {len(values)} entries for {rows} rows; pass one a row.")
    if any(value is None or value != value for value in values):
        raise ValueError("identities has a missing value; every row needs to say whose photo it is.")
    numbers = {}
    try:
        return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)
    except TypeError:
        raise TypeError("identities must be one label a row, such as a list of strings or numbers.") from None


def _unit_rows(X):
    """Scale every row to length 1."""
    scaled = X / np.maximum(np.abs(X).max(axis=1, keepdims=True), np.finfo(X.dtype).tiny)
    lengths = np.linalg.norm(scaled, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(
            "normalise=True needs descriptors of non-zero length; X (or a person's mean) has a zero one."
        )
    return scaled / lengths


def _person_points(X, row_person, normalise):
    """One point a person: the mean of the person's descriptors, of length 1 with `normalise`; (n, d)."""
    points = _unit_rows(X) if normalise else X
    people = int(row_person.max()) + 1
    if people == len(X):
        return points
    points = mean_of_groups(points, row_person, people)
    return _unit_rows(points) if normalise else points


def _centred(points):
    """Copy with zero mean and a largest absolute value of about 1, so that no square overflows."""
    scale = float(max(points.max(), -points.min())) or 1.0
    centred = points / points.dtype.type(scale)
    centred -= centred.mean(axis=0, dtype=np.float64).astype(points.dtype)
    spread = float(max(centred.max(), -centred.min())) or 1.0
    centred /= points.dtype.type(spread)
    return centred


def cluster_sizes(people, cluster_size):
    """Sizes of the fixed-size partition: ``people // cluster_size`` of them, differing by at most one.

    Returns an int64 array, the larger sizes first; its sum is `people`.
    """
    clusters = people // cluster_size
    sizes = np.full(clusters, people // clusters, dtype=np.int64)
    sizes[: people % clusters] += 1
    return sizes


def _gather(X, cluster_size, identities, normalise):
    """Check the input and reduce it to one point a person."""
    X = _check_descriptors(X)
    row_person = _number_identities(identities, len(X))
    people = int(row_person.max()) + 1
    size = _check_cluster_size(cluster_size, people)
    return _People(_person_points(X, row_person, normalise), cluster_sizes(people, size), row_person)


def _check_choice(name, value, choices):
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(sorted(choices))}.")
    return value


# ---------------------------------------------------------------------------------------------------------
# Distances
# ---------------------------------------------------------------------------------------------------------


def _squared_to(points, point):
    """Squared Euclidean distances of the rows of `points` to one point, (n,)."""
    return squared_lengths(points - point)


def _nearest(squares, count):
    """Positions of the `count` smallest values, smallest first; ties go to the earlier position."""
    if count >= len(squares):
        return np.argsort(squares, kind="stable")[:count]
    limit = np.partition(squares, count - 1)[count - 1]
    close = np.flatnonzero(squares <= limit)
    return close[np.argsort(squares[close], kind="stable")[:count]]


def _nearest_to_seed(points, seed, count):
    """Positions of a seed and the `count` - 1 points nearest to it; the seed is first, also among duplicates."""
    squares = _squared_to(points, points[seed])
    squares[seed] = -1.0
    return _nearest(squares, count)


# ---------------------------------------------------------------------------------------------------------
# Hierarchical partition (AnonFACES, section 4.2)
# ---------------------------------------------------------------------------------------------------------

LINKAGES = ("ward", "average", "complete", "single")
_PAIRS = 800_000_000  # distances that an algorithm may hold at once: 6.4 GB as float64


def _check_pairs(pairs, what):
    if pairs > _PAIRS:
        raise ValueError(
            f'{what} needs {pairs} distances in memory; at most {_PAIRS} are allowed. Use "balanced", whose '
            "memory is linear in the number of people."
        )


def hierarchical_partition(
    X, cluster_size, method="ward", *, identities=None, random_state=None, normalise=False
):
    """Cut clusters of the wanted size out of one agglomerative tree, from its lowest merges up.

    The merges are walked in the order of their height. As soon as the people under a merge who have no
    cluster yet are enough for one, those nearest to their common mean become a cluster; the others wait for
    the next merge above. AnonFACES [1]_ (section 4.2) recomputes the tree after each cluster; here it is
    built once a call.

    Parameters
    ----------
    X : array (rows, d)
        Descriptors, one a row; never changed.
    cluster_size : int, 2 .. n
        The smallest number of people a cluster may have (k).
    method : {"ward", "average", "complete", "single"}
        The linkage.
    identities : sequence (rows,), optional
        Whose photo each row is; rows of one person get one label and k counts people.
    random_state
        Ignored: the result is deterministic; accepted as all partitions share one call.
    normalise : bool
        Take descriptors (and people's means) at length 1, for embeddings compared by angle.

    Returns
    -------
    int64 array (rows,), labels 0 .. n // k - 1 without gaps; cluster sizes differ by at most one

    Raises
    ------
    ValueError, TypeError
        X, cluster_size or identities unfit; more than 40,000 people.

    Notes
    -----
    Time O(n^2 d), memory 8 n^2 / 2 bytes for the distances.
    """
    _check_choice("method", method, LINKAGES)
    people = _gather(X, cluster_size, identities, normalise)
    total = len(people.descriptors)
    _check_pairs(total * (total - 1) // 2, "A linkage")
    return people.row_labels(_cut_tree(people.points, people.sizes, method))


def _cut_tree(points, sizes, method):
    from scipy.cluster.hierarchy import linkage  # slow to import, and needed here alone

    n = len(points)
    tree = linkage(_pair_distances(points.astype(np.float64)), method=method)
    waiting = {leaf: [leaf] for leaf in range(n)}  # people without a cluster, by node
    labels = np.full(n, -1, dtype=np.int64)
    cluster = 0
    for merge, (left, right) in enumerate(tree[:, :2].astype(np.int64)):
        members = waiting.pop(left) + waiting.pop(right)
        while cluster < len(sizes) and len(members) >= sizes[cluster]:
            members = np.array(members)
            squares = _squared_to(points[members], points[members].mean(axis=0))
            chosen = _nearest(squares, sizes[cluster])
            labels[members[chosen]] = cluster
            members = np.delete(members, chosen).tolist()
            cluster += 1
        waiting[n + merge] = members
    return labels


# ---------------------------------------------------------------------------------------------------------
# k-means with filled clusters (AnonFACES, section 4.2; ELKI's same-size k-means tutorial)
# ---------------------------------------------------------------------------------------------------------

KMEANS_ORDERS = {
    # centroid distances (n, clusters), random generator -> the order in which people choose their cluster
    "elki": lambda distances, generator: np.argsort(
        distances.min(axis=1) - distances.max(axis=1), kind="stable"
    ),
    "max": lambda distances, generator: np.argsort(-distances.max(axis=1), kind="stable"),
    "min": lambda distances, generator: np.argsort(distances.min(axis=1), kind="stable"),
    "random": lambda distances, generator: generator.permutation(len(distances)),
}


def kmeans_partition(
    X,
    cluster_size,
    method="elki",
    *,
    identities=None,
    random_state=None,
    normalise=False,
    max_iter=20,
    as_published=False,
):
    """Take k-means centroids, then let people choose the nearest cluster that still has a place.

    The order of choosing is the method: "elki" serves those first who have most to gain (nearest minus
    farthest centroid, as in ELKI's same-size k-means tutorial), "max" those whose farthest centroid is
    farthest, "min" those nearest to a centroid, "random" anybody (AnonFACES [1]_, section 4.2).

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
        False assigns to the *nearest* centroid with a place. True assigns to the *farthest*,
        as the code released with the paper does: sizes hold, but a cluster holds those who are far from
        its centroid. It explains the paper's k-means curves and serves for nothing else.

    Returns
    -------
    int64 array (rows,), labels 0 .. n // k - 1 without gaps; cluster sizes differ by at most one

    Notes
    -----
    Time O(n^2 d / k) an iteration, memory 4 n^2 / k bytes for the distances to the centroids.
    """
    _check_choice("method", method, KMEANS_ORDERS)
    people = _gather(X, cluster_size, identities, normalise)
    generator = np.random.default_rng(random_state)
    points, sizes = people.points, people.sizes
    _check_pairs(len(points) * len(sizes), "k-means with filled clusters")
    centroids = _lloyd(points, len(sizes), max_iter, generator)
    distances = np.sqrt(squared_distances(points, centroids))
    order = KMEANS_ORDERS[method](distances, generator)
    return people.row_labels(_choose_places(-distances if as_published else distances, sizes, order))


def _seed_centroids(points, clusters, generator):
    """k-means++ (Arthur, Vassilvitskii 2007): each seed drawn by squared distance to the nearest so far."""
    chosen = np.empty(clusters, dtype=np.int64)
    chosen[0] = generator.integers(len(points))
    nearest = _squared_to(points, points[chosen[0]]).astype(np.float64)
    nearest[chosen[0]] = 0.0
    for position in range(1, clusters):
        cumulative = np.cumsum(nearest)
        if cumulative[-1] > 0:
            draw = np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right")
            chosen[position] = min(draw, len(points) - 1)
        else:  # fewer different points than clusters
            chosen[position] = generator.integers(len(points))
        np.minimum(nearest, _squared_to(points, points[chosen[position]]), out=nearest)
        nearest[chosen[position]] = 0.0
    return points[chosen]


def _lloyd(points, clusters, max_iter, generator):
    """k-means centroids without any limit of size, (clusters, d); an empty cluster keeps its centroid."""
    centroids = _seed_centroids(points, clusters, generator)
    labels = np.full(len(points), -1)
    for _ in range(max_iter):
        previous, labels = labels, _nearest_centroids(points, centroids)
        if np.array_equal(labels, previous):
            break
        filled = np.unique(labels)
        centroids[filled] = mean_of_groups(points, np.searchsorted(filled, labels), len(filled))
    return centroids


def _nearest_centroids(points, centroids, block=4096):
    """Number of the nearest centroid, (n,), in blocks of rows."""
    starts = range(0, len(points), block)
    return np.concatenate(
        [squared_distances(points[start : start + block], centroids).argmin(axis=1) for start in starts]
    )


def _choose_places(costs, sizes, order):
    """In the given order, each row takes its cheapest column that is not full; labels (n,)."""
    labels = np.empty(len(costs), dtype=np.int64)
    # Larger clusters first would favour the first centroids: the extra places go to whom fills up first.
    base, extra = int(sizes[-1]), int((sizes > sizes[-1]).sum())
    counts = np.zeros(len(sizes), dtype=np.int64)
    closed = np.zeros(len(sizes))  # infinite where a cluster takes nobody any more
    for row in order:
        label = int(np.argmin(costs[row] + closed))
        labels[row] = label
        counts[label] += 1
        if counts[label] > base:
            extra -= 1
            closed[label] = np.inf
            if extra == 0:
                closed[counts >= base] = np.inf
        elif counts[label] == base and extra == 0:
            closed[label] = np.inf
    return labels


_ASSIGNMENT_PEOPLE = 5_000  # the optimal assignment holds an (n, n) cost matrix and takes O(n^3)


def assignment_partition(
    X, cluster_size, *, identities=None, random_state=None, normalise=False, max_iter=30
):
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
    int64 array (rows,), labels 0 .. n // k - 1 without gaps; cluster sizes differ by at most one

    Notes
    -----
    Time O(n^3) a step, memory O(n^2); more than 5,000 people raise ValueError.
    """
    people = _gather(X, cluster_size, identities, normalise)
    points, sizes = people.points, people.sizes
    if len(points) > _ASSIGNMENT_PEOPLE:
        raise ValueError(
            f"The optimal assignment of {len(points)} people takes too long; at most {_ASSIGNMENT_PEOPLE} "
            'are allowed. Use "balanced" instead.'
        )
    from scipy.optimize import linear_sum_assignment

    centroids = _seed_centroids(points, len(sizes), np.random.default_rng(random_state))
    place_cluster = np.repeat(np.arange(len(sizes)), sizes)  # (n,)
    labels = np.full(len(points), -1)
    for _ in range(max_iter):
        costs = squared_distances(points, centroids)[:, place_cluster]  # (n, n)
        previous, labels = labels, place_cluster[linear_sum_assignment(costs)[1]]
        if np.array_equal(labels, previous):
            break
        centroids = mean_of_groups(points, labels, len(sizes))
    return people.row_labels(labels)


# ---------------------------------------------------------------------------------------------------------
# k nearest neighbours: k-Same (Newton, Sweeney, Malin 2005; AnonFACES, section 4.2)
# ---------------------------------------------------------------------------------------------------------

KNN_SEEDS = {
    # sums of distances to all people without a cluster (m,), random generator -> position of the seed
    "random": lambda sums, generator: int(generator.integers(len(sums))),
    "max": lambda sums, generator: int(np.argmax(sums)),
    "min": lambda sums, generator: int(np.argmin(sums)),
}


def knn_partition(X, cluster_size, method="random", *, identities=None, random_state=None, normalise=False):
    """Again and again, take one person and the nearest others who have no cluster yet (k-Same).

    The seed is anybody ("random", k-Same of E. Newton, L. Sweeney, B. Malin, "Preserving privacy by
    de-identifying face images", IEEE TKDE 17(2), 2005), or the person whose summed distance to all people
    without a cluster is largest ("max") or smallest ("min"; both AnonFACES [1]_, section 4.2).

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    method : {"random", "max", "min"}
        How the seed is picked.
    random_state : int, Generator or None
        Used by "random".

    Returns
    -------
    int64 array (rows,), labels 0 .. n // k - 1 without gaps; cluster sizes differ by at most one

    Notes
    -----
    Time O(n^2 d / k) for "random" and O(n^2 d) for the others; memory linear in n.
    """
    _check_choice("method", method, KNN_SEEDS)
    people = _gather(X, cluster_size, identities, normalise)
    generator = np.random.default_rng(random_state)
    points = people.points
    labels = np.empty(len(points), dtype=np.int64)
    left = np.arange(len(points))  # people without a cluster; `near` and `sums` run parallel to it
    near = points
    sums = np.zeros(len(points)) if method == "random" else _distance_sums(points, points)
    for cluster, size in enumerate(people.sizes):
        seed = KNN_SEEDS[method](sums, generator)
        chosen = _nearest_to_seed(near, seed, size)
        labels[left[chosen]] = cluster
        taken = near[chosen]
        keep = np.ones(len(left), dtype=bool)
        keep[chosen] = False
        left, near, sums = left[keep], near[keep], sums[keep]
        if method != "random" and len(left):
            sums -= _distance_sums(near, taken)
    return people.row_labels(labels)


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


def kmember_partition(X, cluster_size, *, identities=None, random_state=None, normalise=False):
    """Greedy k-member clustering with the residue spread over the clusters.

    Source: J.-W. Byun, A. Kamra, E. Bertino, N. Li, "Efficient k-anonymization using clustering techniques",
    DASFAA 2007, with the loss AnonFACES [1]_ uses: the largest distance within a cluster. Each cluster starts
    with the person farthest from the last one added, and takes the person whose largest distance to its
    members is smallest. Those left over join, at most one a cluster, where the largest distance grows least.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    random_state : int, Generator or None
        Draws the first person.

    Returns
    -------
    int64 array (rows,), labels 0 .. n // k - 1 without gaps; cluster sizes differ by at most one

    Notes
    -----
    Time O(n^2 d), memory linear in n. ``VARIABLE_SIZE["kmember_published"]`` is the form with the mistake of
    the released code.
    """
    people = _gather(X, cluster_size, identities, normalise)
    generator = np.random.default_rng(random_state)
    clusters, left = _grow_members(people.points, int(people.sizes[-1]), len(people.sizes), generator)
    labels = _labels_of(clusters, len(people.points))
    _spread_residue(people.points, labels, left, clusters)
    return people.row_labels(labels)


def _grow_members(points, size, clusters, generator):
    """Grow `clusters` lists of `size` people each; also return the people left over, in their order."""
    left = np.arange(len(points))
    near = points
    last = points[generator.integers(len(points))]
    grown = []
    for _ in range(clusters):
        position = int(np.argmax(_squared_to(near, last)))
        members = []
        farthest = np.zeros(len(left), dtype=points.dtype)  # largest squared distance to a member so far
        while True:
            members.append(int(left[position]))
            last = near[position]
            farthest = np.delete(np.maximum(farthest, _squared_to(near, last)), position)
            left, near = np.delete(left, position), np.delete(near, position, axis=0)
            if len(members) == size:
                break
            position = int(np.argmin(farthest))
        grown.append(members)
    return grown, left


def _labels_of(clusters, people):
    labels = np.full(people, -1, dtype=np.int64)
    for label, members in enumerate(clusters):
        labels[members] = label
    return labels


def _spread_residue(points, labels, left, clusters):
    """Give each of `left` a different cluster, where the largest distance grows least; changes `labels`."""
    if not len(left):
        return
    diameters = np.array([squared_diameter(points[members]) for members in clusters])
    free = np.ones(len(clusters), dtype=bool)
    for person in left:
        growth = np.full(len(clusters), np.inf)
        for label in np.flatnonzero(free):
            reach = float(_squared_to(points[clusters[label]], points[person]).max())
            growth[label] = np.sqrt(max(reach, diameters[label])) - np.sqrt(diameters[label])
        best = int(np.argmin(growth))
        labels[person] = best
        free[best] = False


def oka_partition(X, cluster_size, *, identities=None, random_state=None, normalise=False):
    """One-pass k-means (OKA) with the residue spread over the clusters.

    Source: J.-L. Lin, M.-C. Wei, "An efficient clustering method for k-anonymization", PAIS 2008. People are
    given in turn to the nearest of n // k randomly seeded clusters, whose centroid follows; then every
    cluster above the size gives up its members farthest from the centroid, and these go to the nearest
    cluster that still has a place.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    random_state : int, Generator or None
        Draws the seeds.

    Returns
    -------
    int64 array (rows,), labels 0 .. n // k - 1 without gaps; cluster sizes differ by at most one

    Notes
    -----
    Time O(n^2 d / k), memory linear in n. ``VARIABLE_SIZE["oka_published"]`` is the form with the scalar
    centre of the released code.
    """
    people = _gather(X, cluster_size, identities, normalise)
    points, sizes = people.points, people.sizes
    seeds = np.random.default_rng(random_state).choice(len(points), len(sizes), replace=False)
    labels, sums = _one_pass(points, seeds)
    base = int(sizes[-1])
    residue = []
    for label in range(len(sizes)):
        members = np.flatnonzero(labels == label)
        squares = _squared_to(points[members], sums[label] / len(members))
        residue.extend(members[np.argsort(squares, kind="stable")[base:]])
    labels[residue] = -1
    centroids = np.stack([points[labels == label].mean(axis=0) for label in range(len(sizes))])
    counts = np.bincount(labels[labels >= 0], minlength=len(sizes))
    for person in residue:  # first up to the base size, then one more for some
        short = counts < base
        open_clusters = np.flatnonzero(short if short.any() else counts == base)
        label = open_clusters[np.argmin(_squared_to(centroids[open_clusters], points[person]))]
        labels[person] = label
        counts[label] += 1
        centroids[label] += (points[person] - centroids[label]) / counts[label]
    return people.row_labels(labels)


def _one_pass(points, seeds):
    """Give each person to the nearest centroid, which moves at once; labels (n,) and sums (clusters, d)."""
    labels = np.full(len(points), -1, dtype=np.int64)
    labels[seeds] = np.arange(len(seeds))
    sums = points[seeds].copy()
    counts = np.ones(len(seeds))
    centroids = sums.copy()
    for person in np.flatnonzero(labels < 0):
        label = int(np.argmin(_squared_to(centroids, points[person])))
        labels[person] = label
        sums[label] += points[person]
        counts[label] += 1
        centroids[label] = sums[label] / counts[label]
    return labels, sums


# ---------------------------------------------------------------------------------------------------------
# Microaggregation: MDAV and V-MDAV
# ---------------------------------------------------------------------------------------------------------


def mdav_partition(X, cluster_size, *, identities=None, random_state=None, normalise=False):
    """MDAV: cut clusters off at the two ends of the people who are left, again and again.

    Source: J. Domingo-Ferrer, V. Torra, "Ordinal, continuous and heterogeneous k-anonymity through
    microaggregation", Data Mining and Knowledge Discovery 11, 2005, algorithm MDAV-generic. The person
    farthest from the mean of those left, and the nearest others, form a cluster; so do the person farthest
    from that one and the nearest others. The residue does not swell the last cluster: the first
    n mod (n // k) clusters are one larger, so that sizes differ by at most one.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    random_state
        Ignored: the result is deterministic.

    Returns
    -------
    int64 array (rows,), labels 0 .. n // k - 1 without gaps; cluster sizes differ by at most one

    Notes
    -----
    Time O(n^2 d / k), memory linear in n.
    """
    people = _gather(X, cluster_size, identities, normalise)
    labels = np.empty(len(people.points), dtype=np.int64)
    left, near = np.arange(len(people.points)), people.points
    opposite = None  # the first end of the last pair; None where a new pair begins
    for cluster, size in enumerate(people.sizes):
        centre = near.mean(axis=0) if opposite is None else opposite
        seed = int(np.argmax(_squared_to(near, centre)))
        chosen = _nearest_to_seed(near, seed, size)
        labels[left[chosen]] = cluster
        opposite = near[seed].copy() if opposite is None else None
        keep = np.ones(len(left), dtype=bool)
        keep[chosen] = False
        left, near = left[keep], near[keep]
    return people.row_labels(labels)


def vmdav_partition(X, cluster_size, *, identities=None, random_state=None, normalise=False, gamma=0.2):
    """V-MDAV: clusters of k .. 2k - 1 people that follow the data. **Sizes vary.**

    Source: A. Solanas, A. Martínez-Ballesté, "V-MDAV: a multivariate microaggregation with variable group
    size", COMPSTAT 2006. The person farthest from the mean of all and the k - 1 nearest others form a
    cluster, which then takes in the nearest person outside as long as that one's distance to the cluster
    is below `gamma` times the distance to the nearest person without a cluster. The last people, fewer than
    k, join the nearest cluster.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    random_state
        Ignored: the result is deterministic.
    gamma : float, at least 0
        The gain factor; 0.2 suits scattered, 1.1 clustered data (section 4 of the source).

    Returns
    -------
    int64 array (rows,), labels without gaps; every cluster has at least k people
    """
    if not np.isreal(gamma) or not gamma >= 0:
        raise ValueError(f"gamma is {gamma!r}; pass a number of at least 0.")
    people = _gather(X, cluster_size, identities, normalise)
    points, k = people.points, operator.index(cluster_size)
    labels = np.full(len(points), -1, dtype=np.int64)
    from_mean = _squared_to(points, points.mean(axis=0))
    left = np.arange(len(points))
    clusters = 0
    while len(left) >= k:
        seed = int(np.argmax(from_mean[left]))
        chosen = _nearest_to_seed(points[left], seed, k)
        members = left[chosen].tolist()
        left = np.delete(left, chosen)
        left = _extend(points, members, left, 2 * k - 1, gamma)
        labels[members] = clusters
        clusters += 1
    if len(left):
        means = np.stack([points[labels == label].mean(axis=0) for label in range(clusters)])
        labels[left] = squared_distances(points[left], means).argmin(axis=1)
    return people.row_labels(labels)


def _extend(points, members, left, limit, gamma):
    """Let the cluster grow by V-MDAV's rule, in place; return who is left."""
    inside = squared_distances(points[left], points[members]).min(axis=1, initial=np.inf)
    while len(members) < limit and len(left) > 1:
        candidate = int(np.argmin(inside))
        outside = _squared_to(points[left], points[left[candidate]])
        outside[candidate] = np.inf
        if not np.sqrt(inside[candidate]) < gamma * np.sqrt(outside.min()):
            break
        members.append(int(left[candidate]))
        inside = np.minimum(inside, _squared_to(points[left], points[left[candidate]]))
        left, inside = np.delete(left, candidate), np.delete(inside, candidate)
    return left


# ---------------------------------------------------------------------------------------------------------
# Random, and the forms of the released code that break the sizes
# ---------------------------------------------------------------------------------------------------------


def random_partition(X, cluster_size, *, identities=None, random_state=None, normalise=False):
    """Deal people to clusters at random: the floor that every other partition should beat.

    Parameters and result as in `hierarchical_partition`; `random_state` (int, Generator or None) deals.
    """
    people = _gather(X, cluster_size, identities, normalise)
    generator = np.random.default_rng(random_state)
    labels = np.repeat(np.arange(len(people.sizes)), people.sizes)
    return people.row_labels(generator.permutation(labels))


def kmember_published(X, cluster_size, *, identities=None, random_state=None, normalise=False):
    """k-member as the code released with AnonFACES [1]_ runs it. **Breaks the size.**

    The people left over all end in the last cluster, as the search for the best cluster compares with a
    value that is never updated: that cluster has up to 2k - 1 people. Else as `kmember_partition`.
    """
    people = _gather(X, cluster_size, identities, normalise)
    clusters, left = _grow_members(
        people.points, operator.index(cluster_size), len(people.sizes), np.random.default_rng(random_state)
    )
    labels = _labels_of(clusters, len(people.points))
    labels[left] = len(clusters) - 1
    return people.row_labels(labels)


def oka_published(X, cluster_size, *, identities=None, random_state=None, normalise=False):
    """OKA as the code released with AnonFACES [1]_ runs it. **Breaks the size.**

    A cluster's centre there is one number, the mean of all values of all its members, so that distances
    tell little; and once no cluster is below k, the residue goes to the nearest cluster without a limit.
    Every cluster has at least k people. Descriptors are not centred, as a scalar centre depends on it.
    """
    people = _gather(X, cluster_size, identities, normalise)
    points = people.descriptors.astype(np.float64)
    points = points / (np.abs(points).max() or 1.0)  # no square overflows; all comparisons stay the same
    k, clusters = operator.index(cluster_size), len(people.sizes)
    seeds = np.random.default_rng(random_state).choice(len(points), clusters, replace=False)
    # |x - c 1|^2 = |x|^2 - 2 c sum(x) + d c^2: |x|^2 is the same for all centres and left out.
    totals, dimension = points.sum(axis=1), points.shape[1]
    members = [[int(seed)] for seed in seeds]
    centres = totals[seeds] / dimension

    def nearest(person, allowed):
        costs = dimension * centres[allowed] ** 2 - 2.0 * centres[allowed] * totals[person]
        return int(allowed[np.argmin(costs)])

    def join(person, label):
        members[label].append(int(person))
        centres[label] = totals[members[label]].mean() / dimension

    for person in np.setdiff1d(np.arange(len(points)), seeds)[::-1]:
        join(person, nearest(person, np.arange(clusters)))
    residue = []
    for label, group in enumerate(members):
        if len(group) > k:
            order = np.argsort(_squared_to(points[group], centres[label]), kind="stable")
            residue.extend(group[position] for position in order[k:])
            members[label] = [group[position] for position in order[:k]]
            centres[label] = totals[members[label]].mean() / dimension
    for person in reversed(residue):
        short = np.flatnonzero([len(group) < k for group in members])
        join(person, nearest(person, short if len(short) else np.arange(clusters)))
    return people.row_labels(_labels_of(members, len(points)))


# ---------------------------------------------------------------------------------------------------------
# Balanced
# ---------------------------------------------------------------------------------------------------------

EFFORTS = {
    # people -> annealing moves, each of which weighs one person against all members of one cluster
    "fast": lambda people: 100 * people,
    "default": lambda people: max(100 * people, min(10_000 * people, 7_000_000)),
    "best": lambda people: max(200 * people, min(60_000 * people, 60_000_000)),
}


def _count_moves(effort, people):
    if isinstance(effort, str):
        return EFFORTS[_check_choice("effort", effort, EFFORTS)](people)
    return _check_count("effort", effort, 0)


def _check_count(name, value, least):
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; pass an integer of at least {least}.") from None
    if number < least:
        raise ValueError(f"{name} is {number}; pass an integer of at least {least}.")
    return number


def _person_weights(weights, people):
    """Mean weight of a person's rows, (n,) float64; None stays None."""
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != people.row_person.shape or not np.isfinite(weights).all() or not (weights > 0).all():
        raise ValueError(f"weights must be {len(people.row_person)} positive numbers, one a row.")
    return np.bincount(people.row_person, weights) / np.bincount(people.row_person)


def _person_codes(name, values, people):
    """Number an attribute's values, (n,), -1 for unknown; a person's rows must agree."""
    values = list(values.tolist() if hasattr(values, "tolist") else values)
    if len(values) != len(people.row_person):
        raise ValueError(f"attribute {name!r} has {len(values)} values for {len(people.row_person)} rows.")
    numbers = {}
    codes = np.full(int(people.row_person.max()) + 1, -1, dtype=np.int64)
    for person, value in zip(people.row_person, values, strict=True):
        if value is None or value != value:
            continue
        code = numbers.setdefault(value, len(numbers))
        if codes[person] not in (-1, code):
            raise ValueError(f"attribute {name!r} has two values for one person; give each person one.")
        codes[person] = code
    if not numbers:
        raise ValueError(f"attribute {name!r} has no known value.")
    return codes


def _make_rules(people, attributes, diversity, closeness, apart):
    """Rules about people from the caller's terms about rows, or None where there are none."""
    diversity = _check_count("diversity", diversity, 1)
    if closeness is not None and not (np.isreal(closeness) and 0 <= closeness <= 1):
        raise ValueError(f"closeness is {closeness!r}; pass a total variation distance, 0 .. 1.")
    if not attributes and (diversity > 1 or closeness is not None):
        raise ValueError("diversity and closeness need `attributes`: a mapping of a name to one value a row.")
    codes = [_person_codes(name, values, people) for name, values in (attributes or {}).items()]
    for name, values in zip(attributes or {}, codes, strict=True):
        if values.max() + 1 < diversity:
            raise ValueError(
                f"attribute {name!r} has {values.max() + 1} values, fewer than diversity={diversity}."
            )
    pairs = np.asarray(apart if apart is not None else np.empty((0, 2), np.int64))
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ValueError("apart must be pairs of row numbers, (m, 2) integers.")
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < len(people.row_person)):
        raise ValueError(f"apart names rows outside 0 .. {len(people.row_person) - 1}.")
    pairs = np.unique(np.sort(people.row_person[pairs], axis=1), axis=0)
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise ValueError("apart names two rows of one person, who has one cluster.")
    if not codes and apart is None:
        return None
    return balancing.Rules(tuple(codes), diversity, closeness, pairs)


def balanced_partition(
    X,
    cluster_size,
    *,
    identities=None,
    random_state=None,
    normalise=False,
    effort="default",
    objective="sse",
    weights=None,
    attributes=None,
    diversity=1,
    closeness=None,
    apart=None,
    seconds=None,
    pieces=1,
    n_jobs=None,
):
    """Make the within-cluster sum of squares as small as the effort allows; the suite's default.

    Recursive bisection along the two-means direction, in which the sides' sizes are fixed, gives a first
    partition; then people swap places between near clusters: by local search, by simulated annealing
    (S. Kirkpatrick, C. D. Gelatt, M. P. Vecchi, "Optimization by simulated annealing", Science 220, 1983)
    with heat-bath moves, and by local search again. Sizes hold at every step.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `hierarchical_partition`.
    random_state : int, Generator or None
        The same seed and effort give the same labels.
    effort : {"fast", "default", "best"} or int
        Annealing moves: "fast" 100 a person; "default" 7 million in all, but 100 to 10,000 a person; "best" 60
        million in all, but 200 to 60,000 a person; or the number in all. Time grows as moves * k * d.
    objective : {"sse", "diameter"}
        Sum of squared distances to the cluster's mean, or sum of the largest distances between two members
        of a cluster. The latter starts from the former's result and takes local search alone.
    weights : array (rows,), optional
        How much each row's squared distance counts in the SSE (and in the mean); a person has the mean of
        his rows' weights. k counts people whatever their weight.
    attributes : mapping of a name to one value a row, optional
        What `diversity` and `closeness` are about, such as sex or ethnicity; None and NaN are unknown.
    diversity : int
        At least so many different known values of every attribute in every cluster (distinct l-diversity).
    closeness : float, 0 .. 1, optional
        At most this total variation distance between a cluster's and all people's shares of each attribute's
        known values (t-closeness).
    apart : array (m, 2) of row numbers, optional
        Pairs of people who must not share a cluster, such as twins.
    seconds : float, optional
        Anneal for about so long instead of by `effort`. **Not reproducible**: the result depends on the
        machine and its load.
    pieces : int
        Bisect into so many pieces first, work on these in parallel through joblib, and let people swap
        across the borders last. The result depends on `pieces`, not on where or how many at once they run.
    n_jobs : int, optional
        How many pieces at once; None leaves it to ``joblib.parallel_config``, which may name a Dask cluster.

    Returns
    -------
    int64 array (rows,), labels 0 .. n // k - 1 without gaps; cluster sizes differ by at most one

    Raises
    ------
    ValueError, TypeError
        Input unfit, or no partition found that keeps the rules of `attributes` and `apart`.

    Notes
    -----
    Time grows linearly with n at a fixed number of moves a person, and memory is about two copies of X
    as float32. Rules, weights and the objective "diameter" are followed by local search in numpy, at about
    0.1 ms a person and pass. Without numba everything runs in numpy: bisection and local search, with no
    annealing, and larger sums of squares.

    Examples
    --------
    >>> X = np.array([[0.0], [0.1], [9.0], [9.1]])
    >>> balanced_partition(X, 2, random_state=0)
    array([0, 0, 1, 1])
    """
    people = _gather(X, cluster_size, identities, normalise)
    moves = _count_moves(effort, len(people.descriptors))
    _check_choice("objective", objective, balancing.OBJECTIVES)
    pieces = min(_check_count("pieces", pieces, 1), len(people.sizes))
    if seconds is not None and not (np.isreal(seconds) and seconds > 0):
        raise ValueError(f"seconds is {seconds!r}; pass a positive number.")
    if seconds is not None and pieces > 1:
        raise ValueError("seconds and pieces do not go together; set the effort instead.")
    labels = balancing.balance(
        people.descriptors,
        people.sizes,
        moves=moves,
        random_state=random_state,
        objective=objective,
        weights=_person_weights(weights, people),
        rules=_make_rules(people, attributes, diversity, closeness, apart),
        seconds=seconds,
        pieces=pieces,
        n_jobs=n_jobs,
    )
    return people.row_labels(labels)


# ---------------------------------------------------------------------------------------------------------
# Tables about a partition
# ---------------------------------------------------------------------------------------------------------


def _check_labels(labels, rows):
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) == 0 or (rows is not None and len(array) != rows):
        expected = "one label a row" if rows is None else f"one label for each of the {rows} rows"
        raise ValueError(f"labels has shape {array.shape}; pass {expected}.")
    return array


def cluster_stats(X, labels, *, silhouette_rows=20_000):
    """Describe every cluster: its size, the distances between its members, silhouette, SSE.

    Parameters
    ----------
    X : array (n, d) of descriptors
        One row a member (a person's mean where people have several photos).
    labels : array (n,)
        The cluster of each row.
    silhouette_rows : int
        Silhouettes need all n^2 distances, and are NaN for more rows than this.

    Returns
    -------
    pandas.DataFrame, one row a cluster in the order of the labels:

    - label: the cluster's label
    - size: number of rows with it
    - min_dist, max_dist, mean_dist: smallest, largest and mean Euclidean distance *between two different
      members* of the cluster, over its size (size - 1) / 2 pairs; 0 for a cluster of one
    - mean_silhouette: mean over its members of (b - a) / max(a, b), a the mean distance to the other
      members, b the smallest mean distance to another cluster's members (Rousseeuw 1987), -1 .. 1; 0 for a
      cluster of one and NaN where there is one cluster alone
    - sse: sum of the members' squared distances *to the cluster's mean*, in float64
    """
    import pandas as pd

    X = _check_descriptors(X)
    labels = _check_labels(labels, len(X))
    names, number = np.unique(labels, return_inverse=True)
    order = np.argsort(number, kind="stable")
    silhouettes = _silhouettes(X, number) if len(X) <= silhouette_rows else np.full(len(X), np.nan)
    rows = []
    for name, members in zip(names, np.split(order, np.cumsum(np.bincount(number))[:-1]), strict=True):
        points = X[members].astype(np.float64)
        distances = _pair_distances(points)
        rows.append(
            {
                "label": name,
                "size": len(members),
                "min_dist": distances.min(),
                "max_dist": distances.max(),
                "mean_dist": distances.mean(),
                "mean_silhouette": silhouettes[members].mean(),
                "sse": float(((points - points.mean(axis=0)) ** 2).sum()),
            }
        )
    return pd.DataFrame(rows)


def _pair_distances(points):
    """Distances between all pairs of different points; a single 0 for one point."""
    from scipy.spatial.distance import pdist

    return pdist(points) if len(points) > 1 else np.zeros(1)


def _silhouettes(X, number):
    clusters = int(number.max()) + 1
    if clusters == 1:
        return np.full(len(X), np.nan)
    if clusters == len(X):
        return np.zeros(len(X))
    from sklearn.metrics import silhouette_samples

    return silhouette_samples(X, number)


def within_cluster_sse(X, labels):
    """Sum over all rows of the squared distance to the mean of the row's cluster, in float64."""
    X = _check_descriptors(X)
    labels = _check_labels(labels, len(X))
    _, number = np.unique(labels, return_inverse=True)
    counts = np.bincount(number)
    total = 0.0
    for axis in range(X.shape[1]):  # one column at a time, so that no float64 copy of X is needed
        column = X[:, axis].astype(np.float64)
        total += ((column - (np.bincount(number, column) / counts)[number]) ** 2).sum()
    return float(total)


def anonymity_report(labels, identities=None, attributes=None):
    """Check k-anonymity: how many rows, people and attribute values every cluster holds.

    Parameters
    ----------
    labels : array (n,)
        The cluster of each row.
    identities : one label a row
        Optional; without it every row is a person of its own.
    attributes : mapping of a name to one value a row
        Optional, such as sex, ethnicity, age group. Missing
        values (None or NaN) count as no value.

    Returns
    -------
    pandas.DataFrame, one row a cluster in the order of the labels: label, rows, people (different
    identities), and for each attribute `name` the columns `name_values` (distinct l-diversity: number of
    different known values), `name_share` (share of the most frequent value among the known; 1 means that
    belonging to the cluster tells the attribute) and `name_distance` (t-closeness by total variation, 0 .. 1:
    half the summed absolute differences between the cluster's and all rows' shares). The partition
    is k-anonymous for k up to ``table["people"].min()``, and 1-diversity in an attribute means that
    ``table["sex_values"].min() == 1``.

    Raises
    ------
    ValueError : lengths differ, or a person's rows are in more than one cluster, so that releasing both
        surrogates would tell the two crowds' overlap

    Notes
    -----
    Sources: L. Sweeney, "k-anonymity" (2002); A. Machanavajjhala et al., "l-diversity" (2007);
    N. Li et al., "t-closeness" (2007). Attribute counts are over rows.
    """
    import pandas as pd

    labels = _check_labels(labels, None)
    person = _number_identities(identities, len(labels))
    table = pd.DataFrame({"label": labels, "person": person})
    spread = table.groupby("person")["label"].nunique()
    if (spread > 1).any():
        raise ValueError(
            f"{int((spread > 1).sum())} people have photos in more than one cluster; pass `identities` to "
            "the partition so that a person gets one label."
        )
    clusters = table.groupby("label")
    report = pd.DataFrame({"rows": clusters.size(), "people": clusters["person"].nunique()})
    for name, values in (attributes or {}).items():
        values = pd.Series(list(values))
        if len(values) != len(labels):
            raise ValueError(f"attribute {name!r} has {len(values)} values for {len(labels)} rows.")
        counts = pd.crosstab(pd.Series(labels), values).reindex(report.index, fill_value=0)
        shares = counts.div(counts.sum(axis=1), axis=0)
        overall = counts.sum() / counts.to_numpy().sum() if counts.size else counts.sum()
        report[f"{name}_values"] = (counts > 0).sum(axis=1).astype(np.int64)
        report[f"{name}_share"] = shares.max(axis=1)
        report[f"{name}_distance"] = (shares - overall).abs().sum(axis=1, min_count=1) / 2
    return report.rename_axis("label").reset_index()


# ---------------------------------------------------------------------------------------------------------
# The algorithms by name
# ---------------------------------------------------------------------------------------------------------

PARTITIONERS = {
    "balanced": balanced_partition,
    **{method: partial(hierarchical_partition, method=method) for method in LINKAGES},
    **{f"kmeans_{method}": partial(kmeans_partition, method=method) for method in KMEANS_ORDERS},
    "kmeans_assignment": assignment_partition,
    **{f"knn_{method}": partial(knn_partition, method=method) for method in KNN_SEEDS},
    "kmember": kmember_partition,
    "oka": oka_partition,
    "mdav": mdav_partition,
    "random": random_partition,
}

VARIABLE_SIZE = {
    "vmdav": vmdav_partition,
    "kmember_published": kmember_published,
    "oka_published": oka_published,
}
