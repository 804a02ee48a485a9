"""Run cached computations in several processes, with one progress bar for all of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import anonymizer
import embedding
import partitioning
import utils

#: Fewer jobs than this run in this process: starting others would take longer.
_PARALLEL_JOBS = 4

#: joblib replaces a worker that grows by more than this. Its own limit, 300 MB, is less than the models of a job take,
#: so nearly every job of many people would fit them anew.
_WORKER_BYTES = 4 << 30


@dataclass(frozen=True, eq=False)
class Job:
    """A computation whose result is kept in the cache.

    Attributes
    ----------
    store : str
        Name of the store: the kind of result, and the version of the code that computes it.
    key : str
        `utils.content_key` of all inputs.
    function : callable
        Of a module, so that other processes find it. Returns plain JSON values, which may contain NaN.
    arguments : tuple
    cost : float
        CPU seconds, roughly. The most expensive jobs start first; progress is counted in this unit.
    """

    store: str
    key: str
    function: Callable
    arguments: tuple
    cost: float = 1.0


def run_jobs(jobs: Sequence[Job], n_jobs: int = -1, description: str = "computing") -> list:
    """Return the results of jobs, in their order: from the cache, or computed and kept as soon as each is finished.

    Parameters
    ----------
    jobs : sequence of Job
        Equal jobs are computed once.
    n_jobs : int, default -1
        Processes; -1 uses all cores. ``joblib.parallel_config`` selects another backend, such as Dask.
    description : str
        Label of the progress bar.
    """
    stores = {name: utils.CacheStore(name) for name in dict.fromkeys(job.store for job in jobs)}
    known = {
        (name, key): json.loads(value)
        for name, store in stores.items()
        for key, value in store.get(job.key for job in jobs if job.store == name).items()
    }
    missing = {(job.store, job.key): job for job in jobs if (job.store, job.key) not in known}
    ordered = sorted(missing.values(), key=lambda job: -job.cost)
    total = sum(job.cost for job in ordered)
    hidden = None if ordered else True
    form = "{l_bar}{bar}| {elapsed}<{remaining}"
    with utils.progress(None, description, total=total, disable=hidden, bar_format=form) as bar:
        for number, result in _in_parallel(ordered, n_jobs):
            job = ordered[number]
            stores[job.store].put({job.key: json.dumps(result).encode()})
            known[job.store, job.key] = result
            bar.update(job.cost)
    return [known[job.store, job.key] for job in jobs]


def _in_parallel(jobs: Sequence[Job], n_jobs: int) -> Iterator[tuple[int, object]]:
    """Number and result of each job, as they finish."""
    import joblib

    entries = [dict(registry) for registry in _registries()]
    calls = (
        joblib.delayed(_run)(entries, number, job.function, job.arguments) for number, job in enumerate(jobs)
    )
    n_jobs = n_jobs if len(jobs) >= _PARALLEL_JOBS else 1
    with warnings.catch_warnings():
        # joblib mistakes a worker that holds a network for a memory leak and replaces it; no job is lost.
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
        yield from utils.run_parallel(calls, n_jobs, return_as="generator_unordered")


def _registries() -> tuple[dict, ...]:
    return (
        embedding.EMBEDDINGS, partitioning.PARTITIONERS, partitioning.VARIABLE_SIZE, anonymizer.ANONYMIZERS,
        anonymizer.VARIANTS,
    )  # fmt: skip


@utils.one_thread
def _run(entries: list[dict], number: int, function: Callable, arguments: tuple) -> tuple[int, object]:
    """Call a function after registering the caller's entries, which a new process does not have.

    In one thread in this process, too: sums that are rounded otherwise can move a landmark by a pixel.
    """
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = _WORKER_BYTES
    for registry, known in zip(_registries(), entries, strict=True):
        registry.update(known)
    with utils.no_bars():
        return number, function(*arguments)
