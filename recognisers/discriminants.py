"""Linear maps, fitted to named photos, that bring photos of one person close together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

#: Features are reduced to at most this many principal components before discriminants are computed.
_LDA_COMPONENTS = 100


class UnfitGalleryError(ValueError):
    """A recogniser cannot be fitted to a gallery; the message says what the recogniser needs."""


def _scatter_axes(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares (r,), in falling order, and axes (d, r) of centred rows (n, d).

    From the eigenvectors of the smaller of ``X.T X`` and ``X X.T``; axes without scatter are left out.
    """
    wide = centred.shape[0] <= centred.shape[1]
    values, vectors = scipy.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = np.argsort(-values)
    kept = kept[values[kept] > 1e-10 * max(values[-1], 1e-300)]
    axes = centred.T @ (vectors[:, kept] / np.sqrt(values[kept])) if wide else vectors[:, kept]
    return values[kept], axes


def _shrinkage(centred: np.ndarray, squares: np.ndarray) -> float:
    """Ledoit and Wolf's weight of a multiple of the identity, for rows (n, d) and what `_scatter_axes` gives for them.

    As `sklearn.covariance.ledoit_wolf_shrinkage`, without its matrix products.
    """
    n, d = centred.shape
    lengths = np.einsum("nd,nd->n", centred, centred)
    even, square = lengths.sum() / (n * d), (squares**2).sum() / n**2
    apart = square / d - even**2
    noise = min(((lengths**2).sum() / n - square) / (d * n), apart)
    return float(noise / apart) if noise > 0 else 0.0


def principal_axes(features: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and first principal axes (d, r) of features (n, d): at most `most` and n - 1, of arbitrary signs."""
    mean = features.mean(axis=0, dtype=float)
    _, axes = _scatter_axes(features - mean)
    return mean, axes[:, : min(most, len(features) - 1)]


def _person_means(features: np.ndarray, identities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of each person's features (m, d), person of each row (n,), and number of photos per person (m,)."""
    people, person, photos = np.unique(identities, return_inverse=True, return_counts=True)
    means = np.zeros((len(people), features.shape[1]))
    np.add.at(means, person, features)
    return means / photos[:, None], person, photos


@dataclass(frozen=True, eq=False)
class DiscriminantSpace:
    """A linear map that brings photos of one person together and separates people.

    Principal components, then linear discriminants (Fisherfaces: Belhumeur, Hespanha and Kriegman, IEEE PAMI
    19(7), 1997). The scatter within people is pooled and shrunk (Ledoit and Wolf 2004), so that a few photos
    of each person suffice.

    Attributes
    ----------
    mean : ndarray, shape (d,)
    axes : ndarray, shape (d, m)
        The scatter within people along each axis is about 1.
    """

    mean: np.ndarray
    axes: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, identities: np.ndarray) -> DiscriminantSpace:
        """Fit to features (n, d) of named photos.

        Raises
        ------
        UnfitGalleryError
            With fewer than two people, or if no person has two photos.
        """
        people, photos = np.unique(identities, return_counts=True)
        if len(people) < 2 or photos.max() < 2:
            raise UnfitGalleryError(
                f"{len(features)} photos of {len(people)} people give no discriminants; use at least two people, "
                "and two photos of at least one"
            )
        # Reduce to principal components. (n, r)
        mean, principal = principal_axes(features, _LDA_COMPONENTS)
        if not principal.shape[1]:
            raise UnfitGalleryError("all photos have the same features, so people cannot be told apart")
        reduced = (features - mean) @ principal
        # Estimate the scatter within people, regularised. (r, r)
        means, person, _ = _person_means(reduced, identities)
        rest = reduced - means[person]
        from sklearn.covariance import ledoit_wolf  # slow to import

        within, _ = ledoit_wolf(rest, assume_centered=True)
        within *= len(rest) / max(len(rest) - len(people), 1)  # each person's mean took one degree of freedom
        within += np.eye(len(within)) * max(1e-9 * np.trace(within) / len(within), 1e-12)
        # Keep the axes along which people differ most. (d, m)
        strengths, axes = scipy.linalg.eigh(
            np.cov(means.T).reshape(within.shape), within
        )  # axes' within-scatter is 1
        count = min(len(people) - 1, reduced.shape[1])
        return cls(mean, principal @ axes[:, np.argsort(-strengths)[:count]])

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Features (n, d) -> (n, m)."""
        return (features - self.mean) @ self.axes


@dataclass(frozen=True, eq=False)
class WithinSpace:
    """A linear map after which photos of one person scatter equally in all directions.

    Discriminants do the same if people outnumber the values of a descriptor. With fewer people they keep only the
    directions in which these people differ, but strangers differ in other directions, so this map keeps all
    directions (Hatch, Kajarekar and Stolcke, "Within-class covariance normalization for SVM-based speaker recognition",
    Interspeech 2006). The scatter is shrunk (Ledoit and Wolf 2004).

    Attributes
    ----------
    axes : ndarray, shape (d, r)
        Orthonormal; there was no scatter in directions orthogonal to them.
    factors : ndarray, shape (r,)
        Scale along each axis; orthogonal directions stay unchanged.
    """

    axes: np.ndarray
    factors: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, identities: np.ndarray) -> WithinSpace:
        """Fit to features (n, d) of named photos; raise `UnfitGalleryError` if no person has two photos."""
        features = np.asarray(features, dtype=float)
        means, person, photos = _person_means(features, identities)
        if photos.max() < 2:
            raise UnfitGalleryError("scatter within people needs a second photo of at least one person")
        rest = features - means[person]
        squares, axes = _scatter_axes(rest)
        shrinkage = max(_shrinkage(rest, squares), 1e-3)
        even = shrinkage * squares.sum() / features.shape[1]
        return cls(axes, np.sqrt(even / ((1 - shrinkage) * squares + even)))

    def transform(self, features: np.ndarray) -> np.ndarray:
        """Features (n, d) -> (n, d)."""
        return features - (features @ self.axes) * (1 - self.factors) @ self.axes.T
