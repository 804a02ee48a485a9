"""Recognisers for attackers, independent of clustering and tuning.

`prepare` makes a recogniser from a gallery of named original photos:

>>> import datasets, recognisers
>>> faces = datasets.load_faces("orl", per_identity=1)
>>> describe = recognisers.prepare("lbp", faces.others)
>>> describe(faces).shape
(40, 39)

``"fisherfaces"`` and ``"lbp"`` are weak and fitted to the gallery itself; ``"faceres"`` is strong and fetched once with
``python -m recognisers fetch``; every other name is an embedding of `embedding.embed`. Results on the ORL faces
(``python benchmarks/recognisers.py``): one photo per person is searched among the other 360; equal error rates (EER)
are over all pairs of 20 people to whom the recognisers were not fitted, averaged over 20 random halves:

=========== ====== ===== ============
recogniser  rank-1 EER   least - most
=========== ====== ===== ============
fisherfaces 1.000  0.115 0.077 - 0.146
lbp         1.000  0.133 0.103 - 0.191
faceres     1.000  0.003 0.001 - 0.005
dlib        1.000  0.004 0.001 - 0.007
=========== ====== ===== ============

Files: `textures` (grey crops, local binary patterns), `discriminants` (linear maps fitted to named photos), `graph`
(TensorFlow.js graphs read as data), `faceres` (fetching and running it). This file holds the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

import embedding
from datasets import Faces
from detection import Images
from recognisers import faceres
from recognisers.discriminants import DiscriminantSpace, UnfitGalleryError, WithinSpace, principal_axes
from recognisers.faceres import MissingRecogniserError, fetch
from recognisers.graph import read_graph
from recognisers.textures import grey_crops, local_binary_patterns

__all__ = [
    "RECOGNISERS", "DiscriminantSpace", "MissingRecogniserError", "UnfitGalleryError", "WithinSpace", "attackers",
    "available", "fetch", "grey_crops", "local_binary_patterns", "prepare", "principal_axes", "read_graph", "strongest",
]  # fmt: skip

_Describe = Callable[[Images], np.ndarray]


def _lbp_features(faces: Images) -> np.ndarray:
    return local_binary_patterns(grey_crops(faces).reshape(-1, 64, 64))


#: Spaces of this process, the last ones used at the end, so that several attacks fit each once: (features, gallery).
_SPACES: dict[tuple[_Describe, str], DiscriminantSpace] = {}
_MOST_SPACES = 8


def _fisher(features: _Describe) -> Callable[[Faces], _Describe]:
    """Discriminants of some features, fitted to a gallery."""

    def prepare_for(gallery: Faces) -> _Describe:
        key = (features, gallery.fingerprint)
        space = _SPACES.pop(key, None) or DiscriminantSpace.fit(features(gallery), gallery.identities)
        _SPACES[key] = space
        if len(_SPACES) > _MOST_SPACES:
            del _SPACES[next(iter(_SPACES))]
        return lambda images: space.transform(features(images)).astype(np.float32)

    return prepare_for


def _prepare_faceres(gallery: Faces) -> _Describe:
    faceres.load(embedding.MODELS)  # report missing files now, not after an hour
    return faceres.describe


#: Name -> function that makes a recogniser from a gallery of named original photos.
RECOGNISERS: dict[str, Callable[[Faces], _Describe]] = {
    "fisherfaces": _fisher(grey_crops),
    "lbp": _fisher(_lbp_features),
    "faceres": _prepare_faceres,
}


def prepare(name: str, gallery: Faces) -> _Describe:
    """Make a recogniser for an attacker who holds a gallery.

    Parameters
    ----------
    name : str
        ``"fisherfaces"`` (linear discriminants of aligned pixels) or ``"lbp"`` (of local binary patterns),
        fitted to the gallery; ``"faceres"`` (MobileNet features, fetched by ``make recogniser``); or an
        embedding of `embedding.embed`.
    gallery : Faces
        Named original photos.

    Returns
    -------
    callable
        Faces or a sequence of uint8 images (h, w, 3) -> float32 descriptors (n, d), compared by Euclidean distance.
        ``"fisherfaces"`` is linear in the pixels.

    Raises
    ------
    MissingRecogniserError
        If ``"faceres"`` is not installed.
    UnfitGalleryError
        If a fitted recogniser gets a gallery with only one photo per person.
    ValueError
        If the name is unknown.
    """
    if name in RECOGNISERS:
        return RECOGNISERS[name](gallery)
    if name in embedding.FITTED:
        raise ValueError(
            f"{name!r} is fitted to the photos of each call, so gallery and images would not be comparable; "
            "use 'fisherfaces'"
        )
    others = [other for other in embedding.available() if other not in embedding.FITTED]
    if name not in others and ":" not in name:
        known = ", ".join(map(repr, [*others, *RECOGNISERS]))
        raise ValueError(f"unknown recogniser {name!r}; choose from {known}")
    return lambda images: embedding.embed(images, name)


def available() -> list[str]:
    """Names of the available recognisers that are independent of clustering."""
    return [name for name in RECOGNISERS if name != "faceres" or faceres.is_installed()]


#: Recognisers that know few people on changed photos.
_WEAK = ("pixels", "fisherfaces", "lbp")

#: Recognisers that need no fitting, the strongest first; dlib is always installed.
_BY_STRENGTH = ("faceres", "facenet", "dlib")


def strongest() -> str:
    """Name of the strongest installed recogniser that needs no fitting."""
    installed = {*available(), *embedding.available()}
    return next(name for name in _BY_STRENGTH if name in installed)


def attackers(names: Iterable[str]) -> str:
    """Words for the title of a figure: the strongest of these recognisers, or that there are only weak ones.

    A recogniser from a file counts as the strongest.
    """
    strong = [name for name in dict.fromkeys(names) if name not in _WEAK]
    if not strong:
        return "weak attackers only"
    order = [*(name for name in strong if ":" in name), *_BY_STRENGTH, *strong]
    return f"strongest attacker: {next(name for name in order if name in strong)}"
