"""Intervals, checked by the distribution that they invert."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import intervals


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.99))
@settings(max_examples=60, deadline=None)
def test_upper_bound_is_the_exact_binomial_one(counts, confidence):
    successes, n = counts
    upper = intervals.upper_bound(successes, n, confidence)
    assert successes / n <= upper <= 1
    if successes < n:  # so few successes would be this rare at the bound
        assert stats.binom.cdf(successes, n, upper) == pytest.approx(1 - confidence, abs=1e-9)
    with pytest.raises(ValueError, match="not a rate"):
        intervals.upper_bound(n + 1, n)
