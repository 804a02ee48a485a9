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
from time import perf_counter

import numpy as np
from threadpoolctl import threadpool_limits

try:
    import numba
except ImportError:  # the compiled loops are left out; numpy does their work, more slowly
    numba = None

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


def _mean_of_groups(X, group, groups):
    """Mean of the rows of each group, (groups, d), summed in float64 one column at a time."""
    counts = np.bincount(group, minlength=groups)
    means = np.empty((groups, X.shape[1]), dtype=X.dtype)
    for axis in range(X.shape[1]):
        means[:, axis] = np.bincount(group, X[:, axis], groups) / counts
    return means


def _person_points(X, row_person, normalise):
    """One point a person: the mean of the person's descriptors, of length 1 with `normalise`; (n, d)."""
    points = _unit_rows(X) if normalise else X
    people = int(row_person.max()) + 1
    if people == len(X):
        return points
    points = _mean_of_groups(points, row_person, people)
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


def _squared_distances(A, B):
    """Squared Euclidean distances, (len(A), len(B)), by one matrix product."""
    squares = -2.0 * (A @ B.T)
    squares += np.einsum("ij,ij->i", A, A)[:, None]
    squares += np.einsum("ij,ij->i", B, B)[None, :]
    return np.maximum(squares, 0.0, out=squares)


def _squared_to(points, point):
    """Squared Euclidean distances of the rows of `points` to one point, (n,)."""
    difference = points - point
    return np.einsum("ij,ij->i", difference, difference)


def _nearest(squares, count):
    """Positions of the `count` smallest values, smallest first; ties go to the earlier position."""
    if count >= len(squares):
        return np.argsort(squares, kind="stable")[:count]
    limit = np.partition(squares, count - 1)[count - 1]
    close = np.flatnonzero(squares <= limit)
    return close[np.argsort(squares[close], kind="stable")[:count]]


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
    distances = np.sqrt(_squared_distances(points, centroids))
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
        centroids[filled] = _mean_of_groups(points, np.searchsorted(filled, labels), len(filled))
    return centroids


def _nearest_centroids(points, centroids, block=4096):
    """Number of the nearest centroid, (n,), in blocks of rows."""
    starts = range(0, len(points), block)
    return np.concatenate(
        [_squared_distances(points[start : start + block], centroids).argmin(axis=1) for start in starts]
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
        costs = _squared_distances(points, centroids)[:, place_cluster]  # (n, n)
        previous, labels = labels, place_cluster[linear_sum_assignment(costs)[1]]
        if np.array_equal(labels, previous):
            break
        centroids = _mean_of_groups(points, labels, len(sizes))
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
        squares = _squared_to(near, near[seed])
        squares[seed] = -1.0  # the seed is its own first neighbour, also among duplicates
        chosen = _nearest(squares, size)
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
        distances = np.sqrt(_squared_distances(points[start : start + block], others))
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


def _diameter(points):
    """Largest squared distance between two of the points."""
    return float(_squared_distances(points, points).max())


def _spread_residue(points, labels, left, clusters):
    """Give each of `left` a different cluster, where the largest distance grows least; changes `labels`."""
    if not len(left):
        return
    diameters = np.array([_diameter(points[members]) for members in clusters])
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
        squares = _squared_to(near, near[seed])
        squares[seed] = -1.0
        chosen = _nearest(squares, size)
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
        squares = _squared_to(points[left], points[left[seed]])
        squares[seed] = -1.0
        chosen = _nearest(squares, k)
        members = left[chosen].tolist()
        left = np.delete(left, chosen)
        left = _extend(points, members, left, 2 * k - 1, gamma)
        labels[members] = clusters
        clusters += 1
    if len(left):
        means = np.stack([points[labels == label].mean(axis=0) for label in range(clusters)])
        labels[left] = _squared_distances(points[left], means).argmin(axis=1)
    return people.row_labels(labels)


def _extend(points, members, left, limit, gamma):
    """Let the cluster grow by V-MDAV's rule, in place; return who is left."""
    inside = _squared_distances(points[left], points[members]).min(axis=1, initial=np.inf)
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
# Balanced: bisection, then swaps and annealing in compiled loops
#
# The compiled loops work on rows laid out by cluster: cluster c owns the places c * capacity ..
# (c + 1) * capacity - 1, where capacity is the largest size, and an unused place (always the last) holds
# zeros. A cluster's members lie side by side, so that looking at all of them reads memory in order.
# ---------------------------------------------------------------------------------------------------------

# Sums of products may be re-associated, so that the processor adds several at a time. Results differ from
# the sequential sum by rounding alone; NaN and infinity keep their meaning.
_SUMS = {"reassoc", "contract", "nsz"}


def _compiled(function=None, **options):
    """Compile with numba and keep the machine code beside this file; without numba, leave as it is."""
    if function is None:
        return partial(_compiled, **options)
    if numba is None:
        return function
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # no place to write a cache to
        return numba.njit(nogil=True, **options)(function)


@_compiled
def _random_bits(state):
    """Next state of a 64-bit xorshift generator (Marsaglia 2003); its value is the random number."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    state ^= state << np.uint64(17)
    return state


@_compiled(fastmath=_SUMS)
def _project(rows, place, vector):
    total = np.float32(0)
    for axis in range(rows.shape[1]):
        total += rows[place, axis] * vector[axis]
    return total


@_compiled(fastmath=_SUMS)
def _project_difference(rows, place, origin, vector):
    total = np.float32(0)
    for axis in range(rows.shape[1]):
        total += (rows[place, axis] - origin[axis]) * vector[axis]
    return total


@_compiled(fastmath=_SUMS)
def _squared_to_mean(rows, place, sums, cluster, inverse):
    """Squared distance of a row to a cluster's mean, ``sums[cluster] * inverse``."""
    total = np.float32(0)
    for axis in range(rows.shape[1]):
        difference = rows[place, axis] - sums[cluster, axis] * inverse
        total += difference * difference
    return total


@_compiled
def _swap_rows(rows, order, first, second):
    for axis in range(rows.shape[1]):
        rows[first, axis], rows[second, axis] = rows[second, axis], rows[first, axis]
    order[first], order[second] = order[second], order[first]


@_compiled
def _smallest(values, rank):
    """The value that would stand at `rank` if `values` were sorted (Hoare's quickselect); reorders them."""
    low, high = 0, len(values) - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] < pivot:
                left += 1
            while values[right] > pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if rank <= right:
            high = right
        elif rank >= left:
            low = left
        else:
            break
    return values[rank]


@_compiled
def _two_means_direction(rows, low, high, share, sample, state, mean, direction):
    """Direction between two halves of rows low .. high - 1, the lower holding `share`; from a sample.

    Starts at the difference of two random rows, turns it to the principal direction by power iteration,
    and then alternates between splitting at the quantile and joining the two sides' means.
    """
    count = min(sample, high - low)
    step = (high - low) / count
    dimension = rows.shape[1]
    mean[:] = 0
    for position in range(count):
        row = low + int(position * step)
        for axis in range(dimension):
            mean[axis] += rows[row, axis] / np.float32(count)
    first = low + int(state % np.uint64(high - low))
    second = low + int((state >> np.uint64(20)) % np.uint64(high - low))
    for axis in range(dimension):
        direction[axis] = rows[first, axis] - rows[second, axis]
    projections = np.empty(count, dtype=np.float32)
    sorted_part = np.empty(count, dtype=np.float32)
    upper = np.empty(dimension, dtype=np.float32)
    lower_count = min(max(int(count * share + 0.5), 1), count - 1)
    for turn in range(7):
        largest = np.float32(0)
        for axis in range(dimension):
            largest = max(largest, abs(direction[axis]))
        if largest == 0:  # all rows alike so far: any direction will do
            direction[turn % dimension] = largest = np.float32(1)
        for axis in range(dimension):
            direction[axis] /= largest
        for position in range(count):
            projections[position] = _project_difference(rows, low + int(position * step), mean, direction)
        upper[:] = 0
        if turn < 3:
            direction[:] = 0
            for position in range(count):
                row = low + int(position * step)
                for axis in range(dimension):
                    direction[axis] += projections[position] * (rows[row, axis] - mean[axis])
            continue
        for position in range(count):
            sorted_part[position] = projections[position]
        limit = _smallest(sorted_part, lower_count)
        direction[:] = 0
        above = 0
        for position in range(count):
            row = low + int(position * step)
            if projections[position] >= limit:
                above += 1
                for axis in range(dimension):
                    upper[axis] += rows[row, axis] - mean[axis]
        if above == count:
            break
        # The lower side's sum is minus the upper's, as the mean is taken off: both means point along it.
        for axis in range(dimension):
            direction[axis] = upper[axis]


@_compiled
def _bisect_rows(rows, order, starts, sample, state):
    """Reorder `rows` (and `order` with them) so that starts[c] .. starts[c + 1] - 1 is cluster c.

    Each part is halved along its two-means direction, at the place where the list of sizes is halved.
    """
    dimension = rows.shape[1]
    mean = np.empty(dimension, dtype=np.float32)
    direction = np.empty(dimension, dtype=np.float32)
    stack = np.empty((128, 2), dtype=np.int64)
    stack[0, 0], stack[0, 1] = 0, len(starts) - 1
    depth = 1
    while depth:
        depth -= 1
        first, last = stack[depth, 0], stack[depth, 1]
        if last - first < 2:
            continue
        middle = (first + last) // 2
        low, cut, high = starts[first], starts[middle], starts[last]
        state = _random_bits(state)
        _two_means_direction(rows, low, high, (cut - low) / (high - low), sample, state, mean, direction)
        projections = np.empty(high - low, dtype=np.float32)
        for place in range(low, high):
            projections[place - low] = _project_difference(rows, place, mean, direction)
        limit = _smallest(projections.copy(), cut - low)
        ties = cut - low  # how many of those at the limit belong to the lower side
        for place in range(high - low):
            if projections[place] < limit:
                ties -= 1
        upper = cut  # next place of the upper side that may hold a row of the lower side
        upper_ties = ties
        for place in range(low, cut):
            if projections[place - low] == limit:
                upper_ties -= 1
        for place in range(low, cut):
            value = projections[place - low]
            if value < limit:
                continue
            if value == limit and ties > 0:
                ties -= 1
                continue
            while True:
                other = projections[upper - low]
                if other < limit:
                    break
                if other == limit and upper_ties > 0:
                    upper_ties -= 1
                    break
                upper += 1
            _swap_rows(rows, order, place, upper)
            upper += 1
        stack[depth, 0], stack[depth, 1] = first, middle
        stack[depth + 1, 0], stack[depth + 1, 1] = middle, last
        depth += 2


@_compiled
def _sum_clusters(rows, sums, capacity):
    """Sum each cluster's rows afresh, so that rounding does not build up."""
    sums[:] = 0
    for place in range(len(rows)):
        cluster = place // capacity
        for axis in range(rows.shape[1]):
            sums[cluster, axis] += rows[place, axis]


@_compiled
def _keep_smallest(values, names, held, value, name):
    """Insert into the ascending list `values` (and `names`) of which `held` are filled; return how many are."""
    if held == len(values):
        if value >= values[held - 1]:
            return held
    else:
        held += 1
    position = held - 1
    while position > 0 and values[position - 1] > value:
        values[position], names[position] = values[position - 1], names[position - 1]
        position -= 1
    values[position], names[position] = value, name
    return held


@_compiled
def _keep_nearest(means, halves, first, last, names, near):
    """For clusters first .. last - 1 put those of `names` with the nearest means into near[first:last]."""
    costs = np.empty((last - first, len(names)), dtype=np.float32)
    for start in range(0, len(names), 64):  # a few means at a time stay in the processor's cache
        for row in range(last - first):
            for column in range(start, min(start + 64, len(names))):
                name = names[column]
                costs[row, column] = halves[name] - _project(means, name, means[first + row])
    count = near.shape[1]
    spare = np.empty(costs.shape[1], dtype=np.float32)
    for row in range(len(costs)):
        for column in range(costs.shape[1]):
            spare[column] = costs[row, column]
        limit = _smallest(spare, count - 1)
        held, ties = 0, count
        for column in range(costs.shape[1]):
            if costs[row, column] < limit:
                ties -= 1
        for column in range(costs.shape[1]):
            if costs[row, column] > limit:
                continue
            if costs[row, column] == limit:
                if ties == 0:
                    continue
                ties -= 1
            near[first + row, held] = names[column]
            held += 1


@_compiled
def _choose_candidates(rows, people, means, halves, capacity, near, candidates):
    """Fill candidates (n, m): for each person the own cluster and the m - 1 nearest of those near it.

    The own cluster is among them so that somebody who leaves it may come back. `halves` are half the means'
    squared lengths: |m|^2 / 2 - x.m orders the means m by their distance to x.
    """
    costs = np.empty((capacity, near.shape[1]), dtype=np.float32)
    values = np.empty(candidates.shape[1], dtype=np.float32)
    for own in range(len(means)):
        for position in range(near.shape[1]):
            cluster = near[own, position]
            for slot in range(capacity):
                cost = halves[cluster] - _project(rows, own * capacity + slot, means[cluster])
                costs[slot, position] = cost
        for slot in range(capacity):
            person = people[own * capacity + slot]
            if person < 0:
                continue
            held = _keep_smallest(values, candidates[person], 0, np.float32(-np.inf), own)
            for position in range(near.shape[1]):
                if near[own, position] != own:
                    held = _keep_smallest(
                        values, candidates[person], held, costs[slot, position], near[own, position]
                    )


@_compiled(fastmath=_SUMS)
def _swap_vector(rows, place, sums, own, other, own_inverse, other_inverse, vector):
    """Fill u so that swapping row x of `own` with row y of `other` changes the SSE by c + y.u - h |y|^2.

    With means a and b and h = 1 / n_a + 1 / n_b, the change is 2 (x - y).(a - b) - h |x - y|^2; collecting
    what multiplies y gives u = 2 h x - 2 (a - b), and c = h |x|^2 - x.u. Returns x.u.
    """
    total = np.float32(0)
    twice = np.float32(2)
    weight = twice * (own_inverse + other_inverse)
    for axis in range(rows.shape[1]):
        value = rows[place, axis]
        component = weight * value - twice * (
            sums[own, axis] * own_inverse - sums[other, axis] * other_inverse
        )
        vector[axis] = component
        total += value * component
    return total


@_compiled
def _exchange(rows, squares, people, sums, counts, capacity, place, other_place):
    """Swap the rows of two places, or move the first to the second where that one is unused."""
    own, other = place // capacity, other_place // capacity
    if people[other_place] >= 0:
        for axis in range(rows.shape[1]):
            mine, theirs = rows[place, axis], rows[other_place, axis]
            sums[own, axis] += theirs - mine
            sums[other, axis] -= theirs - mine
            rows[place, axis], rows[other_place, axis] = theirs, mine
        squares[place], squares[other_place] = squares[other_place], squares[place]
        people[place], people[other_place] = people[other_place], people[place]
        return
    last = own * capacity + counts[own] - 1
    for axis in range(rows.shape[1]):
        mine = rows[place, axis]
        sums[own, axis] -= mine
        sums[other, axis] += mine
        rows[other_place, axis] = mine
        rows[place, axis] = rows[last, axis]
        rows[last, axis] = 0
    squares[other_place], squares[place], squares[last] = squares[place], squares[last], 0
    people[other_place], people[place], people[last] = people[place], people[last], -1
    counts[own] -= 1
    counts[other] += 1


@_compiled
def _best_partner(rows, squares, sums, counts, capacity, place, other, temperature, noise, at, limit, vector):
    """Place in cluster `other` whose swap with `place` changes the SSE least, and that change.

    With a temperature, Gumbel noise is taken off each change, so that the smallest sum is a draw from the
    Boltzmann distribution over the cluster's members (the Gumbel-max trick). Returns -1 and `limit` where
    no change is below `limit`.
    """
    own = place // capacity
    own_inverse, other_inverse = (
        np.float32(1) / np.float32(counts[own]),
        np.float32(1) / np.float32(counts[other]),
    )
    scale = own_inverse + other_inverse
    constant = scale * squares[place] - _swap_vector(
        rows, place, sums, own, other, own_inverse, other_inverse, vector
    )
    best = -1
    start = other * capacity
    for position in range(counts[other]):
        change = constant + _project(rows, start + position, vector) - scale * squares[start + position]
        change -= temperature * noise[at + position]
        if change < limit:
            limit, best = change, start + position
    if counts[other] < capacity and counts[own] == capacity:  # a larger cluster may give to a smaller one
        gain = np.float32(counts[other]) / np.float32(counts[other] + 1)
        loss = np.float32(counts[own]) / np.float32(counts[own] - 1)
        change = gain * _squared_to_mean(rows, place, sums, other, other_inverse)
        change -= loss * _squared_to_mean(rows, place, sums, own, own_inverse)
        change -= temperature * noise[at + counts[other]]
        if change < limit:
            limit, best = change, start + counts[other]
    return best, limit


@_compiled
def _local_search(rows, squares, people, sums, counts, capacity, candidates, passes):
    """Apply each person's best swap with a candidate cluster until none lowers the SSE; return swaps made."""
    noise = np.zeros(capacity + 1, dtype=np.float32)
    vector = np.empty(rows.shape[1], dtype=np.float32)
    changed = np.zeros(len(counts), dtype=np.int64)  # the last pass in which a cluster changed
    total = 0
    for turn in range(passes):
        swaps = 0
        for place in range(len(rows)):
            person = people[place]
            if person < 0:
                continue
            own = place // capacity
            limit, best = np.float32(-1e-6), -1  # of a mean squared distance of 1
            for position in range(candidates.shape[1]):
                other = candidates[person, position]
                if other == own or (changed[own] < turn - 1 and changed[other] < turn - 1):
                    continue
                partner, value = _best_partner(
                    rows,
                    squares,
                    sums,
                    counts,
                    capacity,
                    place,
                    other,
                    np.float32(0),
                    noise,
                    0,
                    limit,
                    vector,
                )
                if partner >= 0:
                    limit, best = value, partner
            if best >= 0:
                _exchange(rows, squares, people, sums, counts, capacity, place, best)
                changed[own] = turn
                changed[best // capacity] = turn
                swaps += 1
        total += swaps
        if swaps == 0:
            break
    return total


_NOISE = 8192  # entries of the table of Gumbel noise, a power of two


@_compiled
def _anneal(rows, squares, people, sums, counts, capacity, candidates, noise, place, moves, hot, cold, state):
    """`moves` heat-bath moves while the temperature falls from `hot` to `cold`; return where it stopped.

    A move takes the next person and one of the candidate clusters, and draws one of its members to swap
    with, or nobody, by the Boltzmann distribution at the temperature.
    """
    vector = np.empty(rows.shape[1], dtype=np.float32)
    temperature = np.float32(hot)
    fall = np.float32((cold / hot) ** (1024.0 / max(moves, 1024)))
    choices = np.uint64(candidates.shape[1])
    for move in range(moves):
        if move % 1024 == 1023:
            temperature *= fall
        place += 1
        if place >= len(rows):
            place = 0
        person = people[place]
        if person < 0:
            continue
        state = _random_bits(state)
        other = candidates[person, int(((state >> np.uint64(32)) * choices) >> np.uint64(32))]
        if other == place // capacity:
            continue
        at = int(state & np.uint64(_NOISE - 1))
        stay = -temperature * noise[at]
        partner, _ = _best_partner(
            rows, squares, sums, counts, capacity, place, other, temperature, noise, at + 1, stay, vector
        )
        if partner >= 0:
            _exchange(rows, squares, people, sums, counts, capacity, place, partner)
    return place, state


_GUMBEL = np.random.default_rng(20250).gumbel(size=_NOISE).astype(np.float32)


@dataclass
class _Layout:
    """Rows ordered by cluster, with one unused place in the smaller clusters (see above)."""

    rows: np.ndarray  # (clusters * capacity, d) float32
    squares: np.ndarray  # (clusters * capacity,) float32, squared lengths of the rows
    people: np.ndarray  # (clusters * capacity,) int32, whose row it is; -1 for an unused place
    sums: np.ndarray  # (clusters, d) float32
    counts: np.ndarray  # (clusters,) int64
    capacity: int

    @property
    def arrays(self):
        return self.rows, self.squares, self.people, self.sums, self.counts, self.capacity

    def means(self):
        return self.sums / self.counts[:, None].astype(np.float32)

    def copy(self):
        arrays = (self.rows, self.squares, self.people, self.sums, self.counts)
        return _Layout(*(array.copy() for array in arrays), self.capacity)

    def cost(self):
        """SSE less the sum of all squared lengths, which no partition changes."""
        return -float((_squared(self.sums.astype(np.float64)) / self.counts).sum())

    def labels(self):
        used = np.flatnonzero(self.people >= 0)
        labels = np.empty(len(used), dtype=np.int64)
        labels[self.people[used]] = used // self.capacity
        return labels

    def spreads(self):
        """Mean squared distance of each cluster's members to its mean, (clusters,)."""
        squares = self.squares.reshape(len(self.counts), -1).sum(axis=1)
        means = self.means()
        return np.maximum(squares / self.counts - np.einsum("ij,ij->i", means, means), 0.0)


def _lay_out(rows, sizes):
    """Spread rows that are sorted by cluster over places; person i is row i."""
    capacity, clusters = int(sizes.max()), len(sizes)
    first_place = np.arange(clusters) * capacity - (np.cumsum(sizes) - sizes)
    places = np.arange(len(rows)) + np.repeat(first_place, sizes)
    laid = np.zeros((clusters * capacity, rows.shape[1]), dtype=np.float32)
    laid[places] = rows
    people = np.full(clusters * capacity, -1, dtype=np.int32)
    people[places] = np.arange(len(rows))
    sums = np.empty((clusters, rows.shape[1]), dtype=np.float32)
    _sum_clusters(laid, sums, capacity)
    squares = np.einsum("ij,ij->i", laid, laid)
    return _Layout(laid, squares, people, sums, sizes.copy(), capacity)


_GROUP, _GROUPS_TRIED, _REACH = 64, 40, 128  # near clusters: the nearest 128 in the nearest 40 groups of 64


def _find_near(layout):
    """Each cluster's nearest clusters, itself among them, (clusters, up to 128) int32.

    Clusters next to each other in number are near each other, as the bisection numbers them: only those in
    the nearest groups of numbers are looked at, so that time grows linearly but for the groups themselves.
    """
    means = layout.means()
    clusters = len(means)
    halves = _squared(means) / 2
    starts = np.arange(0, clusters, _GROUP)
    centres = np.add.reduceat(means, starts, axis=0) / np.diff(np.append(starts, clusters))[:, None]
    near_groups = _nearest_columns(_squared_distances(centres, centres), _GROUPS_TRIED)
    near = np.empty((clusters, min(_REACH, clusters)), dtype=np.int32)
    for start, groups in zip(starts, near_groups, strict=True):
        others = (np.sort(groups)[:, None] * _GROUP + np.arange(_GROUP)).reshape(-1)
        others = others[others < clusters]
        _keep_nearest(means, halves, start, min(start + _GROUP, clusters), others, near)
    return near


def _find_candidates(layout, near, count):
    """Each person's own cluster and `count` - 1 near ones, (n, count)."""
    means = layout.means()
    candidates = np.empty((int(layout.counts.sum()), min(count, near.shape[1])), dtype=np.int32)
    halves = _squared(means) / 2
    _choose_candidates(layout.rows, layout.people, means, halves, layout.capacity, near, candidates)
    return candidates


def _improve(layout, near, passes):
    candidates = _find_candidates(layout, near, _SEARCHED)
    swaps = _local_search(*layout.arrays, candidates, passes)
    _sum_clusters(layout.rows, layout.sums, layout.capacity)
    return swaps


# Temperatures in units of the median cluster's mean squared distance to its mean.
_HOT, _WARM, _COLD = 0.12, 0.06, 0.015
_LONGEST, _AGAIN = 20_000, 5_000  # moves a person in the first annealing, at most, and in each further one
_STAGE, _STAGES = 33, 60  # moves a person in a stage, at least, and stages at most
_SEARCHED, _ANNEALED = 8, 4  # candidate clusters a person in local search and in annealing


def _anneal_layout(layout, near, hot, cold, moves, seed, seconds=None):
    """Simulated annealing in stages, with fresh candidates at each; the layout is changed in place."""
    if not hot > 0 or not (moves or seconds):
        return
    people = int(layout.counts.sum())
    noise = np.concatenate([_GUMBEL, np.resize(_GUMBEL, layout.capacity + 2)])
    place, state = -1, seed

    def run(begin, end, moves):
        nonlocal place, state
        candidates = _find_candidates(layout, near, _ANNEALED)
        place, state = _anneal(*layout.arrays, candidates, noise, place, moves, begin, end, np.uint64(state))
        _sum_clusters(layout.rows, layout.sums, layout.capacity)

    if seconds is not None:
        start = perf_counter()
        while (past := (perf_counter() - start) / seconds) < 1:
            temperature = hot * (cold / hot) ** past
            run(temperature, temperature, 20 * people)
            near = _find_near(layout)
        return
    stages = int(np.clip(moves // (_STAGE * people), 3, _STAGES))
    temperatures = hot * (cold / hot) ** (np.arange(stages + 1) / stages)
    for stage in range(stages):
        run(temperatures[stage], temperatures[stage + 1], moves // stages)
        if stage + 1 < stages:
            near = _find_near(layout)


_WIDEST = 1024  # the most axes to rotate; more columns are rotated only where people are few


def _principal_rows(points):
    """Centre, rotate to principal axes and scale to a mean squared length of 1; (n, axes) float32.

    Distances stay the same but for the scale. Trailing axes that hold less than 1e-5 of the variance
    together are left out, and columns of zeros fill up to a multiple of 8. Works in blocks of rows; where
    all rows are equal the result is zeros.
    """
    people, dimension = points.shape
    largest = max(abs(float(points.max())), abs(float(points.min()))) or 1.0
    blocks = [slice(start, start + 4096) for start in range(0, people, 4096)]

    def scaled(block):
        return points[block].astype(np.float64) / largest

    mean = sum(scaled(block).sum(axis=0) for block in blocks) / people
    if dimension <= _WIDEST:
        products = sum((scaled(block) - mean).T @ (scaled(block) - mean) for block in blocks)
        values, axes = np.linalg.eigh(products)
    elif people <= 4 * _WIDEST:  # at most as many axes as people: they follow from the (n, n) products
        centred = scaled(slice(None)) - mean
        values, vectors = np.linalg.eigh(centred @ centred.T)
        axes = centred.T @ (vectors / np.sqrt(np.maximum(values, 1e-12 * values[-1] + 1e-300)))
    else:
        values = sum(((scaled(block) - mean) ** 2).sum(axis=0) for block in blocks)
        axes = np.eye(dimension)[:, np.argsort(values, kind="stable")]
        values = np.sort(values, kind="stable")
    values, axes = values[::-1], axes[:, ::-1]  # largest first
    total = values.sum()
    if not total > 0:
        return np.zeros((people, 8), dtype=np.float32)
    kept = int((np.cumsum(values) < (1 - 1e-5) * total).sum()) + 1
    axes = axes[:, :kept] * np.sqrt(people / total)
    rows = np.zeros((people, -(-axes.shape[1] // 8) * 8), dtype=np.float32)
    for block in blocks:
        rows[block, : axes.shape[1]] = (scaled(block) - mean) @ axes
    return rows


_SAMPLE = 2048  # rows that find the direction of a bisection


def _solve(rows, sizes, moves, seed, seconds=None):
    """Labels (n,) of a balanced partition of principal rows, which are reordered in place."""
    if len(sizes) == 1:
        return np.zeros(len(rows), dtype=np.int64)
    if numba is None:
        generator = np.random.default_rng(seed)
        grouping = _Grouping(_bisect(rows, sizes, generator), len(sizes))
        _search_swaps(
            rows, grouping, _SumOfSquares(rows, None, grouping), None, generator, _passes(moves, rows)
        )
        return grouping.labels
    order = np.arange(len(rows))
    _bisect_rows(rows, order, _starts(sizes), _SAMPLE, np.uint64(seed))
    labels = np.empty(len(rows), dtype=np.int64)
    labels[order] = _optimise(_lay_out(rows, sizes), moves, seed, seconds)
    return labels


def _starts(sizes):
    return np.concatenate(([0], np.cumsum(sizes)))


def _passes(moves, rows):
    """Passes of the interpreted search that come to about `moves`, at least 4 and at most 20."""
    return int(np.clip(moves // (_SEARCHED * len(rows)), 4, 20))


def _optimise(layout, moves, seed, seconds=None):
    """Search, anneal, search; labels in the order in which the layout was filled.

    One annealing takes at most 20,000 moves a person. What is left of the moves goes into further ones of
    5,000 that start half as hot at the best partition so far.
    """
    people = int(layout.counts.sum())
    near = _find_near(layout)
    _improve(layout, near, passes=1)
    spread = float(np.median(layout.spreads())) or float(layout.spreads().mean())
    first = min(moves, _LONGEST * people)
    _anneal_layout(layout, near, spread * _HOT, spread * _COLD, first, seed, seconds)
    _settle(layout)
    best, least = layout, layout.cost()
    again = 0 if seconds is not None else (moves - first) // (_AGAIN * people)
    for turn in range(again):
        layout = best.copy()
        near = _find_near(layout)
        _anneal_layout(layout, near, spread * _WARM, spread * _COLD, _AGAIN * people, seed + turn + 1)
        _settle(layout)
        cost = layout.cost()
        if cost < least:
            best, least = layout, cost
    return best.labels()


def _settle(layout):
    """Local search until next to nothing is gained."""
    near = _find_near(layout)
    for _ in range(3):  # candidates change as the clusters do
        if _improve(layout, near, passes=20) < 5e-3 * len(layout.people):
            break


def _solve_piece(rows, sizes, moves, seed):
    """`_solve` on a copy, as rows that come from another process may be read-only."""
    return _solve(np.array(rows), sizes, moves, seed)


def _solve_pieces(rows, sizes, moves, seed, pieces, n_jobs):
    """Bisect into pieces, solve these in parallel, then let people swap across the borders."""
    from joblib import Parallel, delayed

    generator = np.random.default_rng(seed)
    cuts = np.unique(np.linspace(0, len(sizes), pieces + 1).round().astype(np.int64))
    starts = _starts(sizes)[cuts]
    order = np.argsort(_bisect(rows, np.diff(starts), generator), kind="stable")
    rows = rows[order]
    solved = Parallel(n_jobs=n_jobs)(
        delayed(_solve_piece)(
            rows[low:high], sizes[first:last], moves * int(high - low) // len(rows), int(piece_seed)
        )
        for low, high, first, last, piece_seed in zip(
            starts[:-1], starts[1:], cuts[:-1], cuts[1:], _draw_seeds(generator, len(cuts) - 1), strict=True
        )
    )
    labels = np.concatenate([part + first for part, first in zip(solved, cuts[:-1], strict=True)])
    within = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    if numba is not None:
        layout = _lay_out(rows[within], counts)
        _improve(layout, _find_near(layout), passes=20)
        labels[within] = layout.labels()
    result = np.empty(len(rows), dtype=np.int64)
    result[order] = labels
    return result


def _draw_seeds(generator, count):
    return generator.integers(1, 2**62, size=count)


# ---------------------------------------------------------------------------------------------------------
# Balanced under rules or another objective: swaps in numpy, one person and all near partners at a time
# ---------------------------------------------------------------------------------------------------------


class _Grouping:
    """Who is in which cluster: labels (n,), and slots (clusters, capacity) with -1 for an unused place."""

    def __init__(self, labels, clusters):
        self.labels = labels.copy()
        self.counts = np.bincount(labels, minlength=clusters)
        order = np.argsort(labels, kind="stable")
        rank = np.arange(len(labels)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        self.slots = np.full((clusters, int(self.counts.max())), -1, dtype=np.int64)
        self.slots[labels[order], rank] = order

    def members(self, cluster):
        slots = self.slots[cluster]
        return slots[slots >= 0]

    def partners(self, person, near):
        """People in the clusters `near`, (m, capacity), and which of them may be swapped with the person.

        An unused place (-1) may be moved to from a cluster without one, so that sizes keep differing by at
        most one.
        """
        partners = self.slots[near]
        full = self.counts[self.labels[person]] == self.slots.shape[1]
        return partners, (partners >= 0) | full

    def exchange(self, person, cluster, position):
        own, partner = self.labels[person], self.slots[cluster, position]
        self.slots[own, np.flatnonzero(self.slots[own] == person)[0]] = partner
        self.slots[cluster, position] = person
        self.labels[person] = cluster
        if partner >= 0:
            self.labels[partner] = own
        else:
            self.counts[own] -= 1
            self.counts[cluster] += 1


class _SumOfSquares:
    """The objective "sse": sum of w |x - m|^2, m the weighted mean of the cluster."""

    def __init__(self, rows, weights, grouping):
        self.grouping = grouping
        weights = np.ones(len(rows)) if weights is None else weights
        self.weights = np.append(weights, 0.0)  # entry -1 is the unused place
        self.weighted = np.vstack([rows * weights[:, None], np.zeros((1, rows.shape[1]))])
        clusters = len(grouping.counts)
        self.masses = np.bincount(grouping.labels, weights, minlength=clusters)
        self.sums = np.zeros((clusters, rows.shape[1]))
        np.add.at(self.sums, grouping.labels, self.weighted[:-1])

    def changes(self, person, near, partners):
        own = self.grouping.labels[person]
        step = self.weighted[partners] - self.weighted[person]  # (m, capacity, d)
        mass = self.weights[partners] - self.weights[person]  # (m, capacity)
        change = _squared(self.sums[own]) / self.masses[own]
        change = change - _squared(self.sums[own] + step) / (self.masses[own] + mass)
        change += (_squared(self.sums[near]) / self.masses[near])[:, None]
        return change - _squared(self.sums[near][:, None, :] - step) / (self.masses[near][:, None] - mass)

    def exchange(self, person, partner, own, other):
        step = self.weighted[partner] - self.weighted[person]
        mass = self.weights[partner] - self.weights[person]
        self.sums[own] += step
        self.sums[other] -= step
        self.masses[own] += mass
        self.masses[other] -= mass


def _squared(vectors):
    return np.einsum("...i,...i->...", vectors, vectors)


class _Diameters:
    """The objective "diameter": sum over clusters of the largest distance between two members."""

    def __init__(self, rows, weights, grouping):
        if weights is not None:
            raise ValueError('weights have no meaning for objective="diameter"; leave them out.')
        self.rows = np.vstack([rows, np.zeros((1, rows.shape[1]), rows.dtype)])
        self.grouping = grouping
        self.diameters = np.array([self._diameter(cluster) for cluster in range(len(grouping.counts))])

    def _diameter(self, cluster):
        return np.sqrt(_diameter(self.rows[self.grouping.members(cluster)]))

    def changes(self, person, near, partners):
        own = self.grouping.labels[person]
        stay = self.grouping.members(own)
        stay = self.rows[stay[stay != person]]
        flat = self.rows[partners.reshape(-1)]
        reach = np.sqrt(_squared_distances(flat, stay).max(axis=1, initial=0.0)).reshape(partners.shape)
        reach[partners < 0] = 0.0
        own_after = np.maximum(reach, np.sqrt(_diameter(stay)) if len(stay) > 1 else 0.0)
        other_after = np.stack([self._after_joining(person, cluster) for cluster in near])
        return own_after - self.diameters[own] + other_after - self.diameters[near][:, None]

    def _after_joining(self, person, cluster):
        """Diameter with the person in and each slot's member out, (capacity,)."""
        slots = self.grouping.slots[cluster]
        members = self.rows[slots]
        distances = np.sqrt(_squared_distances(members, members))
        distances[slots < 0] = distances[:, slots < 0] = 0.0
        joined = np.sqrt(_squared_to(members, self.rows[person]))
        joined[slots < 0] = 0.0
        largest = np.full(len(slots), distances.max())
        for end in np.unravel_index(np.argmax(distances), distances.shape):
            largest[end] = np.delete(np.delete(distances, end, 0), end, 1).max(initial=0.0)
        return np.maximum(largest, _largest_without_each(joined))

    def exchange(self, person, partner, own, other):
        self.diameters[[own, other]] = self._diameter(own), self._diameter(other)


def _largest_without_each(values):
    """For each position the largest of the other values."""
    result = np.full(len(values), values.max())
    top = int(np.argmax(values))
    result[top] = np.delete(values, top).max(initial=0.0)
    return result


OBJECTIVES = {"sse": _SumOfSquares, "diameter": _Diameters}


class _Rules:
    """How far the clusters break what was asked for: values of attributes in each, people kept apart."""

    def __init__(self, grouping, attributes, diversity, closeness, apart):
        self.grouping = grouping
        self.diversity, self.closeness = diversity, closeness
        self.tables = []  # of each attribute: values of the people (n + 1,), counts (clusters, values), shares
        for codes in attributes:
            values = int(codes.max()) + 1
            known = codes >= 0
            counts = np.zeros((len(grouping.counts), values), dtype=np.int64)
            np.add.at(counts, (grouping.labels[known], codes[known]), 1)
            shares = counts.sum(axis=0) / counts.sum()
            self.tables.append((np.append(np.where(known, codes, values), values), counts, shares))
        self.apart = {}
        for first, second in apart:
            self.apart.setdefault(first, []).append(second)
            self.apart.setdefault(second, []).append(first)

    def _excess(self, counts, shares):
        """How much attribute counts (..., values) break the rules: values that lack, variation in excess."""
        excess = np.maximum(self.diversity - (counts > 0).sum(axis=-1), 0).astype(np.float64)
        if self.closeness is not None:
            totals = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
            variation = np.abs(counts / totals - shares).sum(axis=-1) / 2
            excess += np.maximum(variation - self.closeness - 1e-12, 0.0)
        return excess

    def broken(self):
        """How far each cluster breaks the rules, (clusters,); 0 where it keeps them."""
        total = np.zeros(len(self.grouping.counts))
        for _, counts, shares in self.tables:
            total += self._excess(counts, shares)
        labels = self.grouping.labels
        for person, others in self.apart.items():
            total[labels[person]] += (labels[others] == labels[person]).sum()
        return total

    def changes(self, person, near, partners):
        change = np.zeros(partners.shape)
        own = self.grouping.labels[person]
        for codes, counts, shares in self.tables:
            values = counts.shape[1]
            arriving = np.vstack([np.eye(values, dtype=np.int64), np.zeros((1, values), np.int64)])
            mine = arriving[codes[person]]
            own_after = self._excess(counts[own] - mine + arriving, shares)
            other_after = self._excess(np.maximum(counts[near][:, None] + mine - arriving, 0), shares)
            change += (own_after - self._excess(counts[own], shares))[codes[partners]]
            other_after -= self._excess(counts[near], shares)[:, None]
            change += np.take_along_axis(other_after, codes[partners], axis=1)
        if self.apart:
            change += self._apart_changes(person, own, near, partners)
        return change

    def _apart_changes(self, person, own, near, partners):
        labels = self.grouping.labels
        change = np.zeros(partners.shape)
        mine = self.apart.get(person, [])
        change -= (labels[mine] == own).sum()
        change += (labels[mine][:, None] == near).sum(axis=0)[:, None]
        for row, column in np.argwhere(np.isin(partners, list(self.apart))):
            theirs = self.apart[int(partners[row, column])]
            change[row, column] += (labels[theirs] == own).sum() - (labels[theirs] == near[row]).sum()
            change[row, column] -= 2 * (person in theirs)  # these two trade places and stay apart
        return change

    def exchange(self, person, partner, own, other):
        for codes, counts, _ in self.tables:
            for who, leaves, joins in ((person, own, other), (partner, other, own)):
                if codes[who] < counts.shape[1]:  # the value is known, and it is not the unused place
                    counts[leaves, codes[who]] -= 1
                    counts[joins, codes[who]] += 1


def _swap_best(person, near, grouping, cost, rules):
    """Make the person's best swap with a cluster of `near`: rules first, then the objective; was there one?"""
    own = grouping.labels[person]
    near = near[near != own]
    partners, allowed = grouping.partners(person, near)
    change = np.where(allowed, cost.changes(person, near, partners), np.inf)
    if rules is not None:
        broken = rules.changes(person, near, partners)
        change += np.where(np.abs(broken) < 1e-9, 0.0, 1e9 * broken)
    if not change.size or not change.min() < -1e-7:
        return False
    row, column = np.unravel_index(np.argmin(change), change.shape)
    other, partner = int(near[row]), int(partners[row, column])
    grouping.exchange(person, other, column)
    cost.exchange(person, partner, own, other)
    if rules is not None:
        rules.exchange(person, partner, own, other)
    return True


def _search_swaps(rows, grouping, cost, rules, generator, passes):
    """Swap people with near clusters while the objective falls; the grouping is changed in place."""
    clusters = len(grouping.counts)
    if clusters < 2:
        return
    for _ in range(passes):
        means = _mean_of_groups(rows, grouping.labels, clusters)
        near = np.concatenate(
            [
                _nearest_columns(_squared_distances(rows[start : start + 1024], means), _SEARCHED + 1)
                for start in range(0, len(rows), 1024)
            ]
        )
        people = generator.permutation(len(rows))
        if not sum(_swap_best(person, near[person], grouping, cost, rules) for person in people):
            break


def _nearest_columns(squares, count):
    count = min(count, squares.shape[1])
    return np.argpartition(squares, count - 1, axis=1)[:, :count]


def _repair(grouping, cost, rules, generator, rounds=30):
    """Let people of clusters that break a rule swap with anybody, until no rule is broken."""
    clusters = len(grouping.counts)
    for _ in range(rounds):
        broken = np.flatnonzero(rules.broken() > 0)
        if not len(broken):
            return
        for cluster in broken:
            for person in grouping.members(cluster):
                near = generator.permutation(clusters)[:256]
                _swap_best(person, near, grouping, cost, rules)
    still = int((rules.broken() > 0).sum())
    if still:
        raise ValueError(
            f"No partition was found that keeps the rules: {still} of {clusters} clusters break them. Ask for "
            "a larger cluster_size, less diversity, a larger closeness, or fewer people apart."
        )


# ---------------------------------------------------------------------------------------------------------
# Balanced: the public function
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


def _make_rules(grouping, people, attributes, diversity, closeness, apart):
    """Rules from the caller's terms, or None where nothing is asked for."""
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
    if not codes and not len(pairs):
        return None
    return _Rules(grouping, codes, diversity, closeness, pairs.tolist())


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
    sizes, total = people.sizes, len(people.descriptors)
    moves = _count_moves(effort, total)
    _check_choice("objective", objective, OBJECTIVES)
    pieces = min(_check_count("pieces", pieces, 1), len(sizes))
    if seconds is not None and not (np.isreal(seconds) and seconds > 0):
        raise ValueError(f"seconds is {seconds!r}; pass a positive number.")
    if seconds is not None and pieces > 1:
        raise ValueError("seconds and pieces do not go together; set the effort instead.")
    weights = _person_weights(weights, people)
    generator = np.random.default_rng(random_state)
    seed = int(_draw_seeds(generator, 1)[0])
    asked = objective != "sse" or weights is not None or attributes or apart is not None
    asked = asked or diversity != 1 or closeness is not None
    # The products here are small: several threads would mostly wait for each other, and round differently.
    with threadpool_limits(1, user_api="blas"):
        rows = _principal_rows(people.descriptors)
        spare = rows.copy() if asked else rows  # solving reorders its rows
        if pieces > 1:
            labels = _solve_pieces(spare, sizes, moves, seed, pieces, n_jobs)
        else:
            labels = _solve(spare, sizes, moves, seed, seconds)
        if asked:
            grouping = _Grouping(labels, len(sizes))
            rules = _make_rules(grouping, people, attributes, diversity, closeness, apart)
            cost = OBJECTIVES[objective](rows, weights, grouping)
            if rules is not None:
                _repair(grouping, cost, rules, generator)
            _search_swaps(rows, grouping, cost, rules, generator, _passes(moves, rows))
            labels = grouping.labels
    return people.row_labels(labels)


# The interpreted bisection, for machines without numba and for the first cut into pieces


def _bisect(points, sizes, generator):
    """Split people, and the list of sizes with them, in halves until each part is one cluster."""
    labels = np.empty(len(points), dtype=np.int64)
    parts = [(np.arange(len(points)), 0, len(sizes))]
    while parts:
        members, first, last = parts.pop()
        if last - first == 1:
            labels[members] = first
            continue
        middle = (first + last) // 2
        chosen = _halve(points[members], int(sizes[first:middle].sum()), generator)
        parts.append((members[chosen], first, middle))
        parts.append((members[~chosen], middle, last))
    return labels


def _halve(points, count, generator, rounds=4):
    """Mask of the `count` points on one side: two-means in which the sides' sizes are fixed."""
    points = points - points.mean(axis=0)
    direction = generator.standard_normal(points.shape[1]).astype(points.dtype)
    for _ in range(3):  # power iteration towards the direction of largest variance
        direction = points.T @ (points @ direction)
        direction /= max(np.linalg.norm(direction), np.finfo(points.dtype).tiny)
    chosen = np.zeros(len(points), dtype=bool)
    for _ in range(rounds):
        previous, chosen = chosen, np.zeros(len(points), dtype=bool)
        chosen[np.argsort(points @ direction, kind="stable")[:count]] = True
        if np.array_equal(previous, chosen):
            break
        direction = points[~chosen].mean(axis=0) - points[chosen].mean(axis=0)
    return chosen


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
