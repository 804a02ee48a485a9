"""Constraints on clusters besides their size: diversity and closeness of attributes, and people kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from checks import ParameterError, check_number
from people import People, number_values


@dataclass(frozen=True)
class Rules:
    """The constraints on every cluster.

    Attributes
    ----------
    attributes : list of int64 arrays (n,)
        Each person's value of an attribute, 0, 1, 2 ..., or -1 if unknown.
    diversity : int
        Least number of different known values of each attribute.
    closeness : float or None
        Largest total variation distance between the shares of values in the cluster and among all people.
    apart : int64 array (m, 2)
        Different pairs of people who must not share a cluster.
    """

    attributes: list[np.ndarray]
    diversity: int
    closeness: float | None
    apart: np.ndarray

    @classmethod
    def of(
        cls,
        people: People,
        attributes: Mapping[str, Sequence] | None,
        diversity: int,
        closeness: float | None,
        apart: ArrayLike | None,
    ) -> Rules | None:
        """Convert the rules about rows of `balanced_partition` to rules about people; None if there are none."""
        check_number("diversity", diversity, int, at_least=1)
        if closeness is not None:
            check_number("closeness", closeness, at_least=0, at_most=1)
        if not attributes and (diversity > 1 or closeness is not None):
            raise ParameterError("diversity and closeness need attributes, a mapping of names to values")
        if not attributes and apart is None:
            return None
        codes = [_attribute_codes(people, diversity, *item) for item in (attributes or {}).items()]
        return cls(codes, diversity, closeness, _apart_pairs(people, [] if apart is None else apart))


def _attribute_codes(people, diversity, name, values):
    """Number of each person's value of an attribute, int64 (n,), or -1 if unknown."""
    row_codes = number_values(f"attribute {name!r}", values, len(people.row_person))
    n_values = row_codes.max() + 1
    if n_values < max(diversity, 1):
        raise ParameterError(f"attribute {name!r} has {n_values} known values, fewer than {diversity=}")
    known = row_codes >= 0
    codes = np.full(len(people), -1, dtype=np.int64)
    codes[people.row_person[known]] = row_codes[known]
    if (codes[people.row_person] != row_codes)[known].any():
        raise ParameterError(
            f"attribute {name!r} must have one value per person, got different values for one person"
        )
    return codes


def _apart_pairs(people, apart):
    """Different pairs of people, int64 (m, 2), from pairs of rows."""
    rows = len(people.row_person)
    pairs = np.asarray(apart) if len(apart) else np.empty((0, 2), np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise ParameterError("apart must be pairs of row numbers, integers (m, 2)")
    if len(pairs) and not 0 <= pairs.min() <= pairs.max() < rows:
        raise ParameterError(f"apart must hold row numbers from 0 to {rows - 1}")
    pairs = np.unique(np.sort(people.row_person[pairs], axis=1), axis=0)
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise ParameterError("apart must hold rows of different people, got two rows of one person")
    return pairs


class Breaches:
    """By how much the clusters of a grouping violate the rules."""

    def __init__(self, rules: Rules, grouping):
        self.grouping = grouping
        self.diversity, self.closeness = rules.diversity, rules.closeness
        self.tables = []  # of each attribute: values of the people (n + 1,), counts (clusters, values), shares
        for codes in rules.attributes:
            values = int(codes.max()) + 1
            known = codes >= 0
            counts = np.zeros((len(grouping.counts), values), dtype=np.int64)
            np.add.at(counts, (grouping.labels[known], codes[known]), 1)
            shares = counts.sum(axis=0) / counts.sum()
            self.tables.append((np.append(np.where(known, codes, values), values), counts, shares))
        self.apart = {}
        for first, second in rules.apart.tolist():
            self.apart.setdefault(first, []).append(second)
            self.apart.setdefault(second, []).append(first)

    def _excess(self, counts, shares):
        """Violation of the rules by attribute counts (..., values): missing values plus excess variation."""
        excess = np.maximum(self.diversity - (counts > 0).sum(axis=-1), 0).astype(np.float64)
        if self.closeness is not None:
            totals = np.maximum(counts.sum(axis=-1, keepdims=True), 1)
            variation = np.abs(counts / totals - shares).sum(axis=-1) / 2
            excess += np.maximum(variation - self.closeness - 1e-12, 0.0)
        return excess

    def by_cluster(self) -> np.ndarray:
        """Violation of the rules by each cluster, (clusters,); 0 if it satisfies them."""
        total = np.zeros(len(self.grouping.counts))
        for _, counts, shares in self.tables:
            total += self._excess(counts, shares)
        labels = self.grouping.labels
        for person, others in self.apart.items():
            total[labels[person]] += (labels[others] == labels[person]).sum()
        return total

    def changes(self, person: int, near: np.ndarray, partners: np.ndarray) -> np.ndarray:
        """Increase of the violation by each swap, (m, capacity)."""
        change = np.zeros(partners.shape)
        own = self.grouping.labels[person]
        for codes, counts, shares in self.tables:
            # Update the counts for each value that a partner may bring: (values + 1), the last for unknown.
            values = counts.shape[1]
            arriving = np.vstack([np.eye(values, dtype=np.int64), np.zeros((1, values), np.int64)])
            mine = arriving[codes[person]]
            own_after = self._excess(counts[own] - mine + arriving, shares)
            other_after = self._excess(np.maximum(counts[near][:, None] + mine - arriving, 0), shares)
            # Look up the value of each partner.
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

    def exchange(self, person: int, partner: int, own: int, other: int) -> None:
        """Update the counts after a swap."""
        for codes, counts, _ in self.tables:
            for who, leaves, joins in ((person, own, other), (partner, other, own)):
                if codes[who] < counts.shape[1]:  # the value is known, and it is not the unused place
                    counts[leaves, codes[who]] -= 1
                    counts[joins, codes[who]] += 1
