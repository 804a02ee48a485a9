"""Sentences about results: no value stands without its interval, its chance level and the value of clear photos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

#: Measures of a sweep -> the column to compare with, and what that is.
_COMPARED_WITH = {
    "rank1_cluster": ("chance_cluster", "chance"),
    "rank1_person": ("chance_person", "chance"),
    "re_identification": ("stranger_share", "strangers"),
}

_NAN = float("nan")


def result(sentence: str) -> None:
    """Show the result of a section of a notebook."""
    from IPython.display import Markdown, display

    display(Markdown(f"**Result.** {sentence}"))


@dataclass(frozen=True)
class Measured:
    """A value beside what it must be compared with.

    Attributes
    ----------
    value, low, high : float
        The value and its 95 % interval; NaN where unknown.
    chance : float
        The value by chance, such as the rate of a blind guess.
    clear : float
        The value of clear photos.
    against : str
        What `chance` is, in words.
    is_share : bool
        Whether values are shown as percentages.

    Examples
    --------
    >>> from sentences import Measured
    >>> print(Measured(0.375, 0.125, 0.75, chance=0.125, clear=1.0))
    37.5% [12.5%, 75%], no better than chance (12.5%); clear photos 100%
    """

    value: float
    low: float = _NAN
    high: float = _NAN
    chance: float = _NAN
    clear: float = _NAN
    against: str = "chance"
    is_share: bool = True

    @classmethod
    def in_sweep(cls, row: Mapping, measure: str, clear: Mapping | None = None, **compared) -> Measured:
        """Read a measure in a row of `evaluation.sweep`; `clear` is the row without anonymization."""
        column, against = _COMPARED_WITH.get(measure, ("", "chance"))
        ends = (row.get(f"{measure}_{end}", _NAN) for end in ("low", "high"))
        known = {"chance": row.get(column, _NAN), "against": against, "is_share": "loss" not in measure}
        return cls(row[measure], *ends, **known | compared, clear=_NAN if clear is None else clear[measure])

    @classmethod
    def in_attacks(cls, row: Mapping) -> Measured:
        """Read a row of `attacks.attack_release`."""
        return cls(row["rate"], row["low"], row["high"], row["chance"], row["clear"])

    @classmethod
    def in_utility(cls, row: Mapping) -> Measured:
        """Read a share in a row of `utility.measure_utility`."""
        return cls(row["value"], row["low"], row["high"], row["chance"], row["baseline"])

    @property
    def verdict(self) -> str:
        """Whether the interval lies above, below or around `chance`, in words; untested without an interval."""
        if np.isnan(self.low) or np.isnan(self.high):
            return "untested against"
        if self.low <= self.chance <= self.high:
            return "no better than"
        return "above" if self.low > self.chance else "below"

    @property
    def with_interval(self) -> str:
        """The value and its interval."""
        if np.isnan(self.value):
            return "not measured"
        if np.isnan(self.low) or np.isnan(self.high):
            return self._write(self.value)
        return f"{self._write(self.value)} [{self._write(self.low)}, {self._write(self.high)}]"

    def __str__(self) -> str:
        text = self.with_interval
        if np.isnan(self.value):
            return text
        if np.isfinite(self.chance):
            text += f", {self.verdict} {self.against} ({self._write(self.chance)})"
        return text if np.isnan(self.clear) else f"{text}; clear photos {self._write(self.clear)}"

    def _write(self, number: float) -> str:
        return f"{round(100 * number, 1):g}%" if self.is_share else f"{number:.3g}"
