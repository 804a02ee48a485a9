"""Group faces into people by their descriptors, or by the names of sub-folders."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy

from checks import ParameterError, check_number
from embedding import PAPER_THRESHOLD

#: Faces whose dlib descriptors are closer than this count as one person. Photos of one person are rarely further apart.
#: Two people are sometimes this close; they then count as one person, which cannot make a cluster too small.
SAME_PERSON = 0.5


def group_people(
    descriptors: np.ndarray,
    threshold: float = SAME_PERSON,
    folders: Sequence[str | None] | None = None,
    tracks: np.ndarray | None = None,
) -> np.ndarray:
    """Group faces into people by single linkage: a chain of small distances joins faces.

    When in doubt, faces are joined. Two people mistaken for one are hidden together; one person mistaken for two would
    be in a cluster twice, and the cluster would hide fewer people than it claims.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    threshold : float, default 0.5
        Distance below which two faces are joined, above 0.
    folders : sequence of n str or None, optional
        The person's name given by the user, or None for a face without a name. Faces with the same name are one person,
        and faces with different names are different people, whatever their distances. A face without a name joins
        the nearest named person below the threshold.
    tracks : ndarray of int, shape (n,), optional
        The track of each face in a video, -1 for a face on a photo. Faces of one track are one person.

    Returns
    -------
    ndarray of str, shape (n,)
        ``"person 1"``, ``"person 2"``, ... in order of first appearance.

    Raises
    ------
    ValueError
        If the threshold is not a positive number, or there is not one folder per face.
    """
    check_number("threshold", threshold, above=0)
    n = len(descriptors)
    names = [None] * n if folders is None else list(folders)
    if len(names) != n:
        raise ParameterError(f"folders must be {n} names, one per face or None, got {len(names)}")
    near = scipy.spatial.distance.cdist(descriptors, descriptors)
    joined = near < threshold
    named = np.array([name is not None for name in names], dtype=bool)
    if named.any():
        # Join named faces by their names alone.
        own = np.array([name or "" for name in names])
        joined[np.ix_(named, named)] = own[named][:, None] == own[named][None]
        # Join each other face to its nearest named person only, if one is close enough.
        for i in np.flatnonzero(~named):
            candidates = np.where(named & (near[i] < threshold), near[i], np.inf)
            joined[i, named] = joined[named, i] = False
            if np.isfinite(candidates).any():
                joined[i], joined[:, i] = False, False
                joined[i, np.argmin(candidates)] = True
    if tracks is not None:
        joined |= (tracks >= 0) & (tracks[:, None] == tracks)
    # Number the groups by first appearance.
    _, label = scipy.sparse.csgraph.connected_components(joined, directed=False)
    _, first, person = np.unique(label, return_index=True, return_inverse=True)
    number = first.argsort().argsort() + 1
    return np.array([f"person {i}" for i in number[person]])


def doubtful_pairs(descriptors: np.ndarray, people: np.ndarray, doubt: float = PAPER_THRESHOLD) -> int:
    """Count the pairs of people who are closer than `doubt` and so may be one person.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    people : ndarray of str, shape (n,)
    doubt : float, default 0.6
        Distance threshold; the default is dlib's own.
    """
    names, person = np.unique(people, return_inverse=True)
    rows, columns = np.nonzero(scipy.spatial.distance.cdist(descriptors, descriptors) < doubt)
    a, b = person[rows], person[columns]
    return len(np.unique(a[a < b] * len(names) + b[a < b]))


def largest_distances(descriptors: np.ndarray, people: np.ndarray) -> dict[str, float]:
    """Largest distance between two faces of each person, which shows a chain of several people; 0 for a single face.

    Parameters
    ----------
    descriptors : ndarray, shape (n, d)
    people : ndarray of str, shape (n,)
    """
    rows = {str(name): descriptors[people == name] for name in np.unique(people)}
    return {name: float(scipy.spatial.distance.cdist(own, own).max()) for name, own in rows.items()}
