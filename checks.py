"""Checks of arguments: each rule is declared once, and the error says what was wrong.

Every error is a `ParameterError`, which is both a ValueError and a TypeError.
"""

from __future__ import annotations

import functools
import math
import operator
import reprlib
import typing
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np


class ParameterError(ValueError, TypeError):
    """An argument has the wrong type or value."""


class NotApplicableError(ValueError):
    """An attack or measure does not apply to the data; the message says what is missing."""


_KEEPS_LIMIT = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}


@dataclass(frozen=True)
class Number:
    """A finite number within limits.

    As an annotation, ``images: Annotated[int, Number(int, at_least=1)]``, it is checked by `check_fields`.
    """

    kind: type = float
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __str__(self) -> str:
        limits = [f"{name.replace('_', ' ')} {limit}" for name, limit in self._limits()]
        what = "an integer" if self.kind is int else "a number"
        if not limits:
            return what
        link = " of " if limits[0].startswith("at ") else " "
        return what + link + " and ".join(limits)

    def accepts(self, value) -> bool:
        """Whether a value is a number that satisfies the rule; bool is not a number."""
        kinds = (int, np.integer) if self.kind is int else (int, float, np.integer, np.floating)
        if isinstance(value, bool | np.bool_) or not isinstance(value, kinds) or not _is_finite(value):
            return False
        return all(_KEEPS_LIMIT[name](value, limit) for name, limit in self._limits())

    def _limits(self) -> list[tuple[str, float]]:
        limits = [(name, getattr(self, name)) for name in _KEEPS_LIMIT]
        return [(name, limit) for name, limit in limits if limit is not None]


def _is_finite(value) -> bool:
    """Whether a number is finite as a float."""
    try:
        return math.isfinite(value)
    except OverflowError:  # a huge integer
        return False


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: Collection

    def __str__(self) -> str:
        return "one of " + ", ".join(map(repr, self.values))

    def accepts(self, value) -> bool:
        """Whether a value is one of them."""
        return any(type(value) is type(known) and value == known for known in self.values)


def check(name: str, value, rule: Number | Choice):
    """Return `value` if `rule` accepts it.

    Raises
    ------
    ParameterError
        ``NAME must be RULE, got VALUE``.
    """
    if not rule.accepts(value):
        raise ParameterError(f"{name} must be {rule}, got {_REPR.repr(value)}")
    return value


# A value in a message may come from a file, and be huge.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def check_number(name: str, value, kind: type = float, **limits: float):
    """Return `value` if it is a finite number of the kind (int or float) within the limits of `Number`."""
    return check(name, value, Number(kind, **limits))


def check_fields(instance) -> None:
    """Check the fields of a dataclass that are annotated with a rule; None passes where the type allows it."""
    for name, rule, optional in _rules(type(instance)):
        value = getattr(instance, name)
        if not (optional and value is None):
            check(name, value, rule)


@functools.cache
def _rules(kind: type) -> list[tuple[str, Number | Choice, bool]]:
    """Name, rule, and whether None is allowed, of each field that has a rule."""
    hints = typing.get_type_hints(kind, include_extras=True).items()
    return [
        (name, rule, type(None) in typing.get_args(typing.get_args(hint)[0]))
        for name, hint in hints
        if typing.get_origin(hint) is typing.Annotated
        for rule in hint.__metadata__
        if isinstance(rule, Number | Choice)
    ]


def check_known(what: str, name, known: Collection[str]) -> None:
    """Raise ``unknown WHAT NAME; choose from ...`` unless a registry knows the name."""
    if not isinstance(name, str) or name not in known:
        raise ParameterError(f"unknown {what} {name!r}; choose from {', '.join(map(repr, known))}")


def check_all_known(what: str, names: Collection[str], known: Collection[str]) -> None:
    """Raise `check_known`'s error unless `names` is a list of names that a registry knows."""
    if isinstance(names, str):
        raise ParameterError(f"{what}s must be a list of names, got {names!r}")
    for name in names:
        check_known(what, name, known)


def check_labels(
    labels, n_rows: int | None = None, *, n_clusters: int | None = None, unassigned: bool = False
) -> np.ndarray:
    """Return cluster labels as int64 (n,), if they are 0, 1, 2 ... without gaps.

    Parameters
    ----------
    labels : array_like, shape (n,)
    n_rows : int, optional
        Required number of labels; any number by default.
    n_clusters : int, optional
        Required number of different labels; any number by default.
    unassigned : bool, default False
        Whether -1 is allowed, for rows without a cluster.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) == 0 or (n_rows is not None and len(array) != n_rows):
        wanted = "one label per row" if n_rows is None else f"{n_rows} labels, one per row"
        raise ParameterError(f"labels must be {wanted}, got shape {array.shape}")
    if array.dtype.kind not in "iu":
        raise ParameterError(f"labels must be integers, got {array.dtype}")
    used = np.unique(array[array >= 0])
    n_clusters = len(used) if n_clusters is None else n_clusters
    if not np.array_equal(used, np.arange(n_clusters)) or array.min() < (-1 if unassigned else 0):
        raise ParameterError(
            f"labels must use every integer from 0 to {n_clusters - 1}"
            + (", and -1 for rows without a cluster" if unassigned else "")
        )
    return array.astype(np.int64)


def check_array(name: str, values, shape: tuple[int | None, ...], dtype=np.float32) -> np.ndarray:
    """Return `values` as an array of finite numbers of a shape, where None matches any length."""
    try:
        array = np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        reason = "its rows differ in length" if "inhomogeneous" in str(error) else error
        raise ParameterError(f"{name} must be an array of numbers ({reason})") from error
    if array.ndim != len(shape) or any(
        n not in (None, size) for n, size in zip(shape, array.shape, strict=True)
    ):
        wanted = ", ".join("n" if size is None else str(size) for size in shape)
        raise ParameterError(f"{name} must have the shape ({wanted}), got {array.shape}")
    if not np.isfinite(array).all():
        raise ParameterError(f"{name} must be finite, got NaN or infinite values")
    return array
