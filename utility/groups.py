"""Utility and privacy by sex, age and ethnicity, and the homogeneity of clusters."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pandas as pd

import intervals
import utils
from datasets import Faces
from utility.appearance import FaceReadings
from utility.attributes import known_sexes
from utility.networks import SEXES, MissingModelError

#: Smaller groups are marked: their numbers are unreliable and may identify individuals.
_FEW_PEOPLE = 5

#: Limits in years between age groups.
_AGE_LIMITS = (30, 45)


def people_groups(faces: Faces) -> pd.DataFrame:
    """Group people by sex, age and ethnicity.

    Attributes of the data set have priority (RaFD's ``sex`` and ``ethnicity``, CelebA's ``Male``). Otherwise the
    networks read sex and age from the person's photos, including `others`, by majority. Ethnicity is never guessed.

    Returns
    -------
    DataFrame, n rows
        ``sex``, ``age_group`` and ``ethnicity``, as far as known; one value for all photos of a person.
        ``attrs["sources"]`` gives ``"data set"`` or ``"network"`` for each column.
    """
    table, sources = pd.DataFrame(index=range(len(faces))), {}
    known = known_sexes(faces)
    if (known >= 0).all():
        table["sex"], sources["sex"] = np.array(SEXES)[known], "data set"
    pool = faces if faces.others is None else faces.joined(faces.others)
    with suppress(MissingModelError):
        readings = FaceReadings(pool)
        if "sex" not in table:
            female = pd.Series(readings.sexes == SEXES.index("female")).groupby(pool.identities).mean()
            table["sex"], sources["sex"] = np.where(female[faces.identities] > 0.5, *SEXES), "network"
        ages = pd.Series(readings.ages).groupby(pool.identities).median()[faces.identities]
        table["age_group"], sources["age_group"] = _age_groups(ages.to_numpy()), "network"
    if "ethnicity" in faces.attributes:
        table["ethnicity"] = faces.attributes["ethnicity"].to_numpy(dtype=str)
        sources["ethnicity"] = "data set"
    table.attrs["sources"] = sources
    return table


def _age_groups(ages: np.ndarray) -> np.ndarray:
    low, high = _AGE_LIMITS
    names = np.array([f"under {low}", f"{low} to {high - 1}", f"{high} and over"])
    return names[np.digitize(ages, _AGE_LIMITS)]


def by_group(
    values: pd.DataFrame, groups: pd.DataFrame, people: np.ndarray, random_state: int = 0
) -> pd.DataFrame:
    """Compare groups of people by measures of privacy or utility.

    Parameters
    ----------
    values : DataFrame, n rows
        One column per measure, one row per photo or person; NaN for failures.
    groups : DataFrame, n rows
        One column per grouping, see `people_groups`.
    people : ndarray of str, shape (n,)
        The person of each row.
    random_state : int, default 0

    Returns
    -------
    DataFrame
        One row per measure and group, and one for everyone: ``measure grouping group value low high n_people n
        n_failed few``. Intervals are 95 % bootstrap intervals over people. ``few`` marks groups of fewer than 5
        people, whose numbers are unreliable.

    Raises
    ------
    ValueError
        If the numbers of rows differ.
    """
    from sklearn.utils import check_consistent_length  # slow to import

    check_consistent_length(values, groups, people)
    people, rows = np.asarray(people, dtype=str), []
    masks = [("all", "all", np.ones(len(people), dtype=bool))]
    for grouping in groups.columns:
        names = groups[grouping].to_numpy()
        masks += [(grouping, name, names == name) for name in sorted(set(names))]
    for measure in values.columns:
        column = values[measure].to_numpy(dtype=float)
        for grouping, name, mask in masks:
            counted = mask & np.isfinite(column)
            known, n_people = column[counted], len(np.unique(people[mask]))
            # Unanimous shares get exact intervals.
            known = known.astype(bool) if np.isin(known, (0, 1)).all() else known
            low, high = intervals.mean_interval(known, people[counted], random_state)
            rows.append(
                {
                    "measure": measure, "grouping": grouping, "group": name, "value": intervals.mean(known),
                    "low": low, "high": high, "n_people": n_people, "n": len(known),
                    "n_failed": int(mask.sum()) - len(known), "few": n_people < _FEW_PEOPLE,
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def cluster_homogeneity(
    labels: np.ndarray, groups: np.ndarray, identities: np.ndarray, *, n_random: int = 1000, random_state=0
) -> pd.DataFrame:
    """Compare the homogeneity of clusters with random clusters of the same sizes.

    A surrogate reveals what all people in its cluster have in common.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        The cluster of each photo.
    groups : ndarray, shape (n,)
        The group of each photo's person.
    identities : ndarray of str, shape (n,)
        People count once, however many photos they have.
    n_random : int, default 1000
        Number of random clusterings.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    DataFrame
        Rows ``majority_share`` (share of people in the most common group), ``distinct`` (number of groups: the l of
        l-diversity, Machanavajjhala et al., ICDE 2006) and ``entropy`` in bits. Columns ``value`` (mean over people),
        ``worst`` (of the most uniform cluster), ``random``, ``random_low``, ``random_high`` (mean and central 95 % of
        random clusterings).
    """
    from sklearn.utils import check_consistent_length  # slow to import

    check_consistent_length(labels, groups, identities)
    random = utils.check_random_state(random_state)
    people = pd.DataFrame({"label": labels, "group": groups, "identity": identities})
    people = people.drop_duplicates(["label", "identity"])
    names, group = np.unique(people["group"].to_numpy(dtype=str), return_inverse=True)
    label = np.unique(people["label"], return_inverse=True)[1]
    shape = (label.max() + 1, len(names))

    def measure(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Three measures: mean over people (3,), and of each cluster (3, clusters)."""
        counts = np.bincount(label * shape[1] + group, minlength=shape[0] * shape[1]).reshape(shape)
        sizes = counts.sum(axis=1)
        shares = counts / sizes[:, None]
        entropies = 0.0 - (shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)
        each = np.stack([shares.max(axis=1), (counts > 0).sum(axis=1), entropies])
        return each @ sizes / sizes.sum(), each

    value, each = measure(group)
    dealt = np.stack([measure(random.permutation(group))[0] for _ in range(n_random)])  # (n_random, 3)
    low, high = np.quantile(dealt, [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {
            "measure": ["majority_share", "distinct", "entropy"],
            "value": value,
            "worst": [each[0].max(), each[1].min(), each[2].min()],
            "random": dealt.mean(axis=0),
            "random_low": low,
            "random_high": high,
        }
    )
