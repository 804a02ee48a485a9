"""The balanced partition, the suite's default: minimises the within-cluster sum of squares (SSE) by heuristic search.

Recursive bisection gives a first partition; swaps between near clusters improve it, by local search and
simulated annealing.

Files: `annealing` (bisection, search, annealing; in pieces for many people) with its compiled loops in `kernels`;
`swaps` (search in numpy: other objectives, weights, rules, or numba missing); `rules` (diversity, closeness, people
apart); `bounds` (the smallest possible SSE). This file holds the partition itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

from balancing.rules import Rules
from balancing.swaps import OBJECTIVES, refine
from checks import ParameterError, check_known, check_number
from people import People, Seed, on_people

_EFFORTS = {
    # people -> annealing moves, each of which compares one person with all members of one cluster
    "fast": lambda people: 100 * people,
    "default": lambda people: max(100 * people, min(10_000 * people, 7_000_000)),
    "best": lambda people: max(200 * people, min(60_000 * people, 60_000_000)),
}


@on_people
def balanced_partition(
    people: People,
    random_state: Seed,
    *,
    effort: str | int = "default",
    objective: str = "sse",
    weights: ArrayLike | None = None,
    attributes: Mapping[str, Sequence] | None = None,
    diversity: int = 1,
    closeness: float | None = None,
    apart: ArrayLike | None = None,
    seconds: float | None = None,
    pieces: int = 1,
    n_jobs: int | None = None,
) -> np.ndarray:
    """Minimise the within-cluster sum of squares by heuristic search; the suite's default partition.

    Recursive bisection along the two-means direction, with fixed sizes of the two sides, gives a first
    partition. Then people swap places between near clusters: by local search, by simulated annealing
    with heat-bath moves (S. Kirkpatrick, C. D. Gelatt, M. P. Vecchi, "Optimization by simulated annealing",
    Science 220, 1983), and by local search again. Sizes are kept at every step.

    Parameters
    ----------
    X, cluster_size, identities, normalise
        As in `partitioning.hierarchical_partition`.
    random_state : int, Generator or None
        The same seed and effort give the same labels.
    effort : {"fast", "default", "best"} or int
        Annealing moves: "fast" 100 per person; "default" 7 million in total, but 100 to 10,000 per person; "best" 60
        million in total, but 200 to 60,000 per person. Or the total number. Time grows as moves * min(k, 100) * d,
        because a move compares a person with at most 100 members of a cluster.
    objective : {"sse", "diameter"}
        Sum of squared distances to the cluster's mean, or sum of the largest distances between two members
        of a cluster. "diameter" starts from the result of "sse" and uses local search only.
    weights : array (rows,), optional
        Weight of each row's squared distance in the SSE (and in the mean); a person has the mean weight of their rows.
        k counts people, whatever their weight.
    attributes : mapping of a name to one value per row, optional
        Attributes for `diversity` and `closeness`, such as sex or ethnicity; None and NaN are unknown.
    diversity : int
        At least this many different known values of every attribute in every cluster (distinct l-diversity).
    closeness : float, 0 .. 1, optional
        At most this total variation distance between the shares of each attribute's known values in a cluster and
        among all people (t-closeness).
    apart : array (m, 2) of row numbers, optional
        Pairs of people who must be in different clusters, such as twins.
    seconds : float, optional
        Anneal for about this long instead of using `effort`. **Not reproducible**: the result depends on the
        machine and its load.
    pieces : int
        Bisect into this many pieces first, process them in parallel with joblib, and finally let people swap
        across the borders. The result depends on `pieces`, not on where or in what order they run.
    n_jobs : int, optional
        Number of parallel pieces; None leaves it to ``joblib.parallel_config``, which may name a Dask cluster.

    Returns
    -------
    int64 array (rows,)
        As in `partitioning.hierarchical_partition`.

    Raises
    ------
    ValueError, TypeError
        If the input is invalid, or no partition is found that satisfies `attributes` and `apart`.

    Notes
    -----
    Time grows linearly with n at a fixed number of moves per person, and does not grow with k above 100. Memory is
    about two copies of X as float32 and 700 bytes per cluster. A partition that takes longer than 3 s shows a bar,
    and Ctrl-C stops it within seconds. Rules, weights and the objective "diameter" use local search in numpy,
    which takes about 0.1 ms per person and pass at k = 10 and grows with k. Without numba everything runs in
    numpy: bisection and local search, without annealing, and with larger sums of squares.

    Examples
    --------
    >>> X = np.array([[0.0], [0.1], [9.0], [9.1]])
    >>> balanced_partition(X, 2, random_state=0)
    array([0, 0, 1, 1])
    """
    if isinstance(effort, str):
        check_known("effort", effort, _EFFORTS)
        effort = _EFFORTS[effort](len(people))
    from balancing.annealing import principal_rows, solve  # imports numba, which takes half a second

    moves = int(check_number("effort", effort, int, at_least=0))
    check_known("objective", objective, OBJECTIVES)
    check_number("pieces", pieces, int, at_least=1)
    if seconds is not None:
        check_number("seconds", seconds, above=0)
        if pieces > 1:
            raise ParameterError("seconds cannot be combined with pieces; set the effort instead")
    weights = _person_weights(weights, people)
    rules = Rules.of(people, attributes, diversity, closeness, apart)
    generator = np.random.default_rng(random_state)
    seed = int(generator.integers(1, 2**62, size=1)[0])
    refined = objective != "sse" or weights is not None or rules is not None
    # The matrix products are small: several threads would mostly wait for each other and round differently.
    with threadpool_limits(1, user_api="blas"):
        rows = principal_rows(people.descriptors)
        pieces = min(pieces, len(people.sizes))
        labels = solve(rows.copy() if refined else rows, people.sizes, moves, seed, seconds, pieces, n_jobs)
        if not refined:
            return labels
        return refine(labels, rows, len(people.sizes), generator, moves, objective, weights, rules)


def _person_weights(weights, people):
    """Mean weight of each person's rows, float64 (n,); None stays None."""
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != people.row_person.shape or not (np.isfinite(weights) & (weights > 0)).all():
        raise ParameterError(f"weights must be {len(people.row_person)} positive numbers, one per row")
    return np.bincount(people.row_person, weights) / np.bincount(people.row_person)
