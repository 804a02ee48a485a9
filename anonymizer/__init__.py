"""Members of a cluster -> one surrogate face; and the filters that serve as baselines.

>>> import anonymizer, datasets
>>> faces = datasets.load_faces("orl", per_identity=1)
>>> model = anonymizer.load("aam", faces)
>>> model.surrogate([0, 3, 8]).shape
(112, 92, 3)
"""

import inspect

from anonymizer.aam import ActiveAppearanceModel
from anonymizer.base import Anonymizer, PhotoFilter, Surrogates, person_weights
from anonymizer.cnn import UpConvolution
from anonymizer.filters import Blur, Mask, Pixelate, Unchanged
from anonymizer.pixel import EigenMean, PixelMean
from anonymizer.styleGan import StyleMixing
from datasets import Faces

#: Every anonymizer by its name. To add one, write a subclass of `Surrogates` or `PhotoFilter` and put it here.
ANONYMIZERS: dict[str, type[Anonymizer]] = {
    cls.name: cls
    for cls in (
        PixelMean, EigenMean, ActiveAppearanceModel, UpConvolution, StyleMixing, Blur, Pixelate, Mask, Unchanged,
    )
}  # fmt: skip

#: Further names: an anonymizer with certain options, as the paper's experiments compare them.
VARIANTS: dict[str, tuple[str, dict]] = {
    "stylegan_adjusted": ("stylegan", {"mix": "adjusted"}),
    "stylegan_random": ("stylegan", {"mix": "random"}),
    "stylegan_adjusted_published": ("stylegan", {"mix": "adjusted", "as_published": True}),
    "stylegan_random_published": ("stylegan", {"mix": "random", "as_published": True}),
}

__all__ = [
    "ANONYMIZERS",
    "VARIANTS",
    "Anonymizer",
    "PhotoFilter",
    "Surrogates",
    "kind",
    "load",
    "options_of",
    "person_weights",
]


def kind(name: str) -> type[Anonymizer]:
    """The class behind a name in `ANONYMIZERS` or `VARIANTS`.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    base, _ = VARIANTS.get(name, (name, {})) if isinstance(name, str) else (name, {})
    if base not in ANONYMIZERS:
        known = ", ".join(map(repr, [*ANONYMIZERS, *VARIANTS]))
        raise ValueError(f"unknown anonymizer {name!r}; there is {known}")
    return ANONYMIZERS[base]


def load(name: str, faces: Faces, **options) -> Anonymizer:
    """Make an anonymizer for a set of faces.

    Parameters
    ----------
    name : str
        ``"pixel"`` (k-Same), ``"eigen"`` (k-Same-Eigen), ``"aam"`` (k-Same-M), ``"cnn"`` (k-Same-Net) and
        ``"stylegan"`` (AnonFACES) give one surrogate for a cluster: ``surrogate(members, weights=None)``. ``"blur"``,
        ``"pixelate"`` and ``"mask"`` change one photo each: ``apply(i)``; they are not k-anonymous. ``"none"`` returns
        the photo, as the baseline of an evaluation. Or a name in `VARIANTS`.
    faces : Faces
        The set that rows refer to, and that models are fitted on.
    **options
        See the classes in `ANONYMIZERS`.

    Returns
    -------
    Anonymizer

    Raises
    ------
    ValueError
        For an unknown name or options out of range.
    TypeError
        For an option that it does not have.

    Examples
    --------
    >>> import anonymizer, datasets
    >>> faces = datasets.load_faces("orl", per_identity=1)
    >>> anonymizer.load("blur", faces).apply(3).shape
    (112, 92, 3)
    """
    _, chosen = VARIANTS.get(name, (name, {})) if isinstance(name, str) else (name, {})
    made, chosen = kind(name), {**chosen, **options}
    try:
        return made(faces, **chosen)
    except TypeError as error:
        unknown = sorted(set(chosen) - options_of(made))
        if not unknown or "unexpected keyword argument" not in str(error):
            raise
        raise TypeError(
            f"the anonymizer {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"it takes {', '.join(sorted(options_of(made))) or 'none'}"
        ) from error


def options_of(cls: type[Anonymizer]) -> set[str]:
    """Names of what can be chosen when an anonymizer of this class is made."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            parameters = list(inspect.signature(base.__init__).parameters.values())
            names |= {p.name for p in parameters[2:] if p.kind is not p.VAR_KEYWORD}  # without self and faces
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names
