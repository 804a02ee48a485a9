"""Sentences: a value is called better than chance only if its whole interval is."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import intervals
from sentences import Measured, result

share = st.floats(0, 1)


def guesses(seed, chance=0.3, n=60):
    """What `intervals` makes of an attacker who guesses."""
    hits = np.random.default_rng(seed).random(n) < chance
    return Measured(hits.mean(), *intervals.rate_interval(hits, np.arange(n)), chance, 1.0)


def test_a_guess_is_no_better_than_chance():
    said = [str(guesses(seed)) for seed in range(40)]
    assert sum("no better than chance (30%)" in text for text in said) >= 35  # 95 % of them
    assert all(text.endswith("clear photos 100%") for text in said)


def test_one_sex_for_everybody_is_no_better_than_chance():
    """Every surrogate is a man, as 36 of 40 people are: 90 % agree, whichever surrogate they get."""
    agree = np.arange(40) < 36
    row = {"value": 0.9, "chance": 0.9, "baseline": 1.0}
    row |= dict(zip(("low", "high"), intervals.mean_interval(agree, np.arange(40)), strict=True))
    assert "90%" in str(Measured.in_utility(row)) and "no better than chance (90%)" in str(
        Measured.in_utility(row)
    )


@given(share, share, share, share)
def test_the_verdict_is_that_of_the_whole_interval(value, low, high, chance):
    verdict = Measured(value, low, high, chance).verdict
    if low <= chance <= high:
        assert verdict == "no better than"
    elif low <= high:
        assert verdict == ("above" if low > chance else "below")


def test_nothing_is_claimed_without_an_interval():
    assert str(Measured(0.9, chance=0.1)) == "90%, untested against chance (10%)"
    assert str(Measured(0.9)) == "90%"


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ("rank1_cluster", "100% [63%, 100%], above chance (12.5%); clear photos 98%"),
        ("re_identification", "65% [50%, 80%], above strangers (1%); clear photos 100%"),
        ("information_loss", "0.582 [0.55, 0.61], below random clusters (0.629); clear photos 0"),
    ],
)
def test_a_row_of_a_sweep_in_words(measure, said):
    row = pd.Series(
        {
            **{
                "rank1_cluster": 1.0,
                "rank1_cluster_low": 0.63,
                "rank1_cluster_high": 1.0,
                "chance_cluster": 0.125,
            },
            **{"re_identification": 0.65, "re_identification_low": 0.5, "re_identification_high": 0.8},
            **{"information_loss": 0.582, "information_loss_low": 0.55, "information_loss_high": 0.61},
            "stranger_share": 0.01,
        }
    )
    clear = pd.Series({"rank1_cluster": 0.98, "re_identification": 1.0, "information_loss": 0.0})
    compared = {"chance": 0.629, "against": "random clusters"} if measure == "information_loss" else {}
    assert str(Measured.in_sweep(row, measure, clear, **compared)) == said


def test_an_attack_in_words():
    row = {"rate": 0.5, "low": 0.25, "high": 0.75, "chance": 0.125, "clear": 0.9}
    assert str(Measured.in_attacks(row)) == "50% [25%, 75%], above chance (12.5%); clear photos 90%"


def test_results_are_marked(capsys):
    result("All is well.")
    assert "Markdown" in capsys.readouterr().out
