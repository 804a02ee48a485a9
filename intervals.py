"""Confidence intervals: exact for rates, bootstrap for everything else."""

from __future__ import annotations

import numpy as np
from scipy.stats import beta
from sklearn.utils import check_random_state

#: Level of every interval in a table.
CONFIDENCE = 0.95


def clopper_pearson(successes: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Exact two-sided interval of a rate (Clopper and Pearson, Biometrika 1934)."""
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high


def upper_bound(successes: float, n: float, confidence: float = CONFIDENCE) -> float:
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
    return 1.0 if successes == n else float(beta.ppf(confidence, successes + 1, n - successes))


def resampling_weights(n_units: int, n_resamples: int, random_state=None) -> np.ndarray:
    """How often each unit is drawn in each bootstrap resample: (n_resamples, n_units), rows sum to n_units."""
    random = check_random_state(random_state)
    return random.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_resamples)
