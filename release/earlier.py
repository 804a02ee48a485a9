"""Earlier releases of the same people: what the releases give away together, and how to reuse a partition."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import utils
from checks import ParameterError
from cluster_reports import leakage_bounds
from datasets import Faces
from release.files import read_file
from release.layout import MANIFEST


def earlier_partition(folder: str | Path, ledger: str | Path, faces: Faces) -> np.ndarray:
    """Read the partition of an earlier shared release, to make the next release with the same clusters.

    Parameters
    ----------
    folder, ledger : str or Path
        The earlier release, and its ledger.
    faces : Faces
        n photos of the same people, named as in the ledger.

    Returns
    -------
    ndarray of int, shape (n,)
        The cluster of each photo, 0 to c - 1; -1 for people who got no image.

    Raises
    ------
    ValueError
        If the files cannot be read, the release is not shared, or no person is in it.
    """
    try:
        manifest = utils.parse_json(read_file(Path(folder) / MANIFEST))
        photos = utils.parse_json(read_file(Path(ledger)))["photos"]
        digest_of = {
            one["identity"]: manifest["files"][one["file"]] for one in photos if one["file"] is not None
        }
        mode = manifest["mode"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} and {ledger} are not a release and its ledger ({error!r})") from error
    if mode != "shared":
        raise ParameterError(f"{folder}: only a shared release has a partition, this one is {mode}")
    digests = [digest_of.get(person) for person in faces.identities.tolist()]
    known = sorted({digest for digest in digests if digest is not None})
    if not known:
        raise ParameterError(f"{ledger}: names none of these people")
    places = {None: -1, **{digest: place for place, digest in enumerate(known)}}
    return np.array([places[digest] for digest in digests])


def warn_of_composition(
    faces: Faces, labels: np.ndarray, earlier: Sequence[tuple[str | Path, str | Path]]
) -> None:
    """Warn if a shared release and earlier ones together promise nothing to the people who are in all of them."""
    if len(earlier) == 0:
        return
    every = np.stack([labels, *(earlier_partition(folder, ledger, faces) for folder, ledger in earlier)])
    inside = np.flatnonzero((every >= 0).all(axis=0))
    people, first = np.unique(faces.identities[inside], return_index=True)
    if len(people) == 0:
        return
    # The images that each person got (releases, p), and how many people got the same ones.
    images = every[:, inside[first]]
    counts = [len(np.unique(row)) for row in images]
    sharing = np.unique(images, axis=1, return_counts=True)[1]
    if len(sharing) > max(counts) and leakage_bounds(len(people), *counts)["n_images"] == len(people):
        warnings.warn(
            f"{len(people)} people are in all {len(images)} releases, which together promise nothing: "
            f"{' * '.join(map(str, counts))} images are at least as many, and some people share all their images with "
            f"only {sharing.min() - 1} others. Reuse the first partition: "
            "labels = release.earlier_partition(FOLDER, LEDGER, faces)",
            stacklevel=3,
        )
