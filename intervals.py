"""Means, rates and their confidence intervals: exact for unanimous rates, bootstrap otherwise.

A bootstrap resamples whole units (people or clusters), because the values of one unit depend on each other. The
bounds are percentiles (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import scipy

#: Level of every interval in a table.
_CONFIDENCE = 0.95

#: Bootstrap resamples of a mean or another statistic.
N_RESAMPLES = 1000

#: Resamples of at most this many units are remembered, because hundreds of measures of one release draw the same ones.
_REMEMBERED_UNITS = 1000


def mean(values) -> float:
    """Mean of numbers; NaN if there are none."""
    return float(np.mean(np.asarray(values, dtype=float))) if len(values) else float("nan")


def _clopper_pearson(successes: int, n: int, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval of a rate (Clopper and Pearson, Biometrika 1934)."""
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(scipy.stats.beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(scipy.stats.beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def upper_bound(successes: float, n: float, confidence: float = _CONFIDENCE) -> float:
    """One-sided upper confidence bound of a rate (Clopper and Pearson, Biometrika 1934).

    Parameters
    ----------
    successes, n : float
        Need not be integers, for an effective number of trials.
    confidence : float, default 0.95

    Returns
    -------
    float
        At least ``successes / n``.
    """
    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"{successes} successes of {n} trials are not a rate")
    return 1.0 if successes == n else float(scipy.stats.beta.ppf(confidence, successes + 1, n - successes))


def resampling_weights(n_units: int, n_resamples: int = N_RESAMPLES, random_state=None) -> np.ndarray:
    """Count how often each bootstrap resample draws each unit: float (n_resamples, n_units), rows sum to n_units.

    With a seed, and at most 1000 units, the same array is returned again; it is read-only.
    """
    if isinstance(random_state, int) and n_units <= _REMEMBERED_UNITS:
        return _remembered_weights(n_units, n_resamples, random_state)
    return _draw_weights(n_units, n_resamples, random_state)


@functools.lru_cache(maxsize=16)
def _remembered_weights(n_units: int, n_resamples: int, seed: int) -> np.ndarray:
    weights = _draw_weights(n_units, n_resamples, seed)
    weights.flags.writeable = False
    return weights


def _draw_weights(n_units: int, n_resamples: int, random_state) -> np.ndarray:
    from sklearn.utils import check_random_state  # slow to import

    random = check_random_state(random_state)
    return random.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_resamples).astype(float)


def percentile_interval(resampled: Sequence[float]) -> tuple[float, float]:
    """Central 95 % of the values that a statistic takes in bootstrap resamples."""
    low, high = np.quantile(resampled, [(1 - _CONFIDENCE) / 2, 1 - (1 - _CONFIDENCE) / 2])
    return float(low), float(high)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], units: np.ndarray, random_state=0
) -> tuple[float, float]:
    """95 % bootstrap interval of any statistic.

    Parameters
    ----------
    statistic : callable
        Takes the weight of each row, float (n,), and returns a number, or NaN where it is undefined.
    units : ndarray, shape (n,)
        The unit of each row.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    low, high : float
        NaN with fewer than two units, or if the statistic is undefined in more than half of the resamples.
    """
    names, unit = np.unique(units, return_inverse=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    values = np.array([statistic(w[unit]) for w in resampling_weights(len(names), random_state=random_state)])
    values = values[np.isfinite(values)]
    return percentile_interval(values) if len(values) >= N_RESAMPLES / 2 else (float("nan"), float("nan"))


def mean_interval(values: np.ndarray, units: np.ndarray, random_state=0) -> tuple[float, float]:
    """95 % bootstrap interval of a mean.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Boolean values that all agree get the exact interval, see `rate_interval`.
    units : ndarray, shape (n,)
        The unit of each value.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    low, high : float
        NaN with fewer than two units.
    """
    if values.dtype == bool and (values.all() or not values.any()):
        return rate_interval(values, units, random_state)
    if len(np.unique(units)) < 2:
        return float("nan"), float("nan")
    return _resampled_mean_interval(values, units, random_state)


def rate_interval(values: np.ndarray, units: np.ndarray, random_state=0) -> tuple[float, float]:
    """95 % interval of a mean of shares between 0 and 1.

    Parameters, returns
    -------------------
    As `mean_interval`. If all values are 0 or all are 1, the bootstrap would have width 0; the exact interval for this
    number of units replaces it. NaN without values.
    """
    if len(values) == 0:
        return float("nan"), float("nan")
    n_units = len(np.unique(units))
    if (values <= 0).all():
        return _clopper_pearson(0, n_units)
    if (values >= 1).all():
        return _clopper_pearson(n_units, n_units)
    return _resampled_mean_interval(values, units, random_state)


def _resampled_mean_interval(values: np.ndarray, units: np.ndarray, random_state) -> tuple[float, float]:
    # Sum and count the values of each unit. (u,)
    _, unit = np.unique(units, return_inverse=True)
    sums, counts = np.bincount(unit, np.asarray(values, dtype=float)), np.bincount(unit).astype(float)
    # Average every resample. (n_resamples,)
    weights = resampling_weights(len(counts), random_state=random_state)
    return percentile_interval(weights @ sums / (weights @ counts))
