"""JSON from files that may be damaged or hostile."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator

# Limit on the length of a JSON text; its values take up to 25 times as many bytes.
_MAX_LENGTH = 32 * 2**20

# Limit on integers; larger ones cannot become a float.
_MAX_DIGITS = 300


def parse_json(text: str | bytes, make_object: Callable[[list[tuple]], object] | None = None):
    """Parse JSON without infinite numbers.

    Parameters
    ----------
    text : str or bytes
    make_object : callable, optional
        Makes each object from its (name, value) pairs; a dict by default.

    Raises
    ------
    ValueError
        If the text is not JSON, is too long or nested too deeply, or holds an infinite number.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"its JSON is longer than {_MAX_LENGTH} characters")
    try:
        return json.loads(
            text, parse_float=_real, parse_int=_integer, parse_constant=_real, object_pairs_hook=make_object
        )
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def _real(digits: str) -> float:
    value = float(digits)
    return _refuse(digits) if math.isinf(value) else value


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= _MAX_DIGITS else _refuse(digits)


def _refuse(digits: str):
    raise ValueError(f"its JSON holds {digits[:20]}, which is no finite number")


def dictionaries(value) -> Iterator[dict]:
    """Yield every dict in parsed JSON, also of a nested one, in the order of the text."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            value = list(value.values())
        if isinstance(value, list):
            waiting += reversed(value)
