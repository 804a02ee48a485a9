"""Work in several processes, whose shared arrays lie in a private folder."""

from __future__ import annotations

import functools
import os
import pickle
import platform
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from storage.folder import cache_folder, explaining_errors

# Folders in which joblib shares arrays start with this and the number of the process that made them.
_SHARED = re.compile(r"joblib_memmapping_folder_(\d+)_")

# How joblib quotes an error of a disk that is full or cannot be written to.
_DISK_ERROR = re.compile(r"^OSError: (.*)", re.MULTILINE)


def run_parallel(tasks: Iterable, n_jobs: int | None = None, **options) -> Iterator:
    """Run tasks in several processes, which share large arrays in a private folder of the cache.

    joblib would put these arrays into ``/dev/shm``, where photos stay if the run is killed. Here, the next run on this
    machine removes them.

    Parameters
    ----------
    tasks : iterable
        Results of calls of ``joblib.delayed(function)``.
    n_jobs : int, optional
        Processes; -1 uses all cores, and None leaves it to ``joblib.parallel_config``.
    **options
        Passed to `joblib.Parallel`.

    Yields
    ------
    object
        The results, by default in the order of the tasks.

    Raises
    ------
    OSError
        If the arrays cannot be written.
    """
    import joblib  # slow to import

    host = re.sub(r"[^\w.-]", "_", platform.node())
    folder = cache_folder(f"shared_{host}")
    _remove_left_over(folder)
    options = {"return_as": "generator", **options}
    try:
        yield from joblib.Parallel(n_jobs=n_jobs, temp_folder=str(folder), **options)(tasks)
    except pickle.PicklingError as error:
        reason = _DISK_ERROR.search(str(error.__cause__))
        if reason is None:
            raise
        with explaining_errors(folder):
            raise OSError(reason[1]) from error


@functools.cache
def _remove_left_over(folder: Path) -> None:
    """Remove the arrays of processes that no longer run; once per process."""
    for left in folder.iterdir():
        made_by = _SHARED.match(left.name)
        if made_by and not _runs(int(made_by[1])):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
