"""Checks of HDF5 files before their arrays are read."""

from __future__ import annotations

import math

import h5py

from storage.reading import Budget, RefusedError


def check_hdf5(file: h5py.File, budget: Budget) -> None:
    """Check that all arrays of a file lie in the file itself, with all their values, and fit into the budget.

    Raises
    ------
    RefusedError
        If the file refers to another file, or an array is too large or has no values in the file.
    """
    # h5py garbles exceptions in its callbacks, so these only collect.
    elsewhere = file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
    if elsewhere is not None:
        raise RefusedError(f"{ascii(elsewhere[:80])} is not stored in this file")
    names: list[str] = []
    file.visit(names.append)
    for name in names:
        if isinstance(file[name], h5py.Dataset):
            _check_array(ascii(name[:80]), file[name], budget)


def _check_array(name: str, part: h5py.Dataset, budget: Budget) -> None:
    if part.external or part.is_virtual:
        raise RefusedError(f"the array {name} is not stored in this file")
    if part.shape is not None and not _has_all_values(part):
        raise RefusedError(f"the array {name} has no values; the file is not complete")
    budget.take(part.nbytes, f"the array {name}")


def _has_all_values(part: h5py.Dataset) -> bool:
    """Whether the file has bytes for every value; HDF5 would fill in zeros for others."""
    if part.chunks is None:
        return part.id.get_storage_size() >= part.nbytes
    n_chunks = math.prod(-(-side // chunk) for side, chunk in zip(part.shape, part.chunks, strict=True))
    return part.id.get_num_chunks() >= n_chunks
