"""Progress bars."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator

from tqdm import tqdm

# Whether bars are hidden, because another one counts the work.
_hidden = False


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Hide all bars."""
    global _hidden
    before, _hidden = _hidden, True
    try:
        yield
    finally:
        _hidden = before


def progress(
    iterable: Iterable | None,
    description: str,
    total: int | None = None,
    disable: bool | None = None,
    delay: float = 0.0,
    bar_format: str | None = None,
) -> tqdm:
    """Show the progress of a loop on standard error: a bar in a terminal, one line every 10 s in a log.

    In a notebook the bar disappears when the loop ends.

    Parameters
    ----------
    iterable : iterable or None
        Iterable of the loop. None for a bar that is advanced by its method ``update``.
    description : str
    total : int, optional
        Number of steps, if `iterable` has no length.
    disable : bool, optional
        By default, True if the environment variable ``ANONFACES_QUIET`` is set and not empty.
    delay : float
        Seconds before the bar appears; shorter loops show none.
    bar_format : str, optional
        As for tqdm.

    Returns
    -------
    tqdm
        Iterates over `iterable`.
    """
    if disable is None:
        disable = bool(os.environ.get("ANONFACES_QUIET"))
    in_notebook = "ipykernel" in sys.modules
    return tqdm(
        iterable,
        desc=description,
        total=total,
        disable=disable or _hidden,
        file=sys.stderr,
        leave=not in_notebook,
        delay=delay,
        bar_format=bar_format,
        mininterval=0.1 if sys.stderr.isatty() or in_notebook else 10.0,
        maxinterval=10.0,
    )
