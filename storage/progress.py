"""Progress bars."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from tqdm import tqdm


def progress(
    iterable: Iterable | None,
    description: str,
    total: int | None = None,
    disable: bool | None = None,
    delay: float = 0.0,
) -> tqdm:
    """Show the progress of a loop on standard error: a bar in a terminal, one line every 10 s in a log.

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

    Returns
    -------
    tqdm
        Iterates over `iterable`.
    """
    return tqdm(
        iterable,
        desc=description,
        total=total,
        disable=bool(os.environ.get("ANONFACES_QUIET")) if disable is None else disable,
        file=sys.stderr,
        leave=True,
        delay=delay,
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
        maxinterval=10.0,
    )
