"""Anonymizers: generators that mix the members of a cluster into one surrogate face, and filters as baselines.

=============  ================================================================================================
base.py        the base classes, with the checks of rows and weights
pixel.py       ``pixel`` (k-Same) and ``eigen`` (k-Same-Eigen): means of aligned faces
aam.py         ``aam`` (k-Same-M): an active appearance model, mixed without ghosts
cnn.py         ``cnn`` (k-Same-Net): an up-convolutional network, see the package `CNN`
styleGan.py    ``stylegan`` (AnonFACES): W+ codes of StyleGAN, see the package `stylegan`
filters.py     ``blur``, ``pixelate``, ``mask`` and ``none``: one photo in, one image out; not k-anonymous
=============  ================================================================================================

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
from checks import ParameterError, check_known
from datasets import Faces

#: All anonymizers by name. To add one, write a subclass of `Surrogates` or `PhotoFilter` and register it here.
ANONYMIZERS: dict[str, type[Anonymizer]] = {
    "pixel": PixelMean,
    "eigen": EigenMean,
    "aam": ActiveAppearanceModel,
    "cnn": UpConvolution,
    "stylegan": StyleMixing,
    "blur": Blur,
    "pixelate": Pixelate,
    "mask": Mask,
    "none": Unchanged,
}

#: Additional names: anonymizers with the options that the paper's experiments compare.
VARIANTS: dict[str, tuple[str, dict]] = {
    "eigen_private": ("eigen", {"epsilon": 10.0}),
    "stylegan_adjusted": ("stylegan", {"mix": "adjusted"}),
    "stylegan_random": ("stylegan", {"mix": "random"}),
    "stylegan_adjusted_published": ("stylegan", {"mix": "adjusted", "as_published": True}),
    "stylegan_random_published": ("stylegan", {"mix": "random", "as_published": True}),
}

__all__ = [
    "ANONYMIZERS", "VARIANTS", "Anonymizer", "PhotoFilter", "Surrogates", "check_options", "kind", "load", "options_of",
    "person_weights",
]  # fmt: skip


def kind(name: str) -> type[Anonymizer]:
    """Return the class behind a name in `ANONYMIZERS` or `VARIANTS`.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    check_known("anonymizer", name, [*ANONYMIZERS, *VARIANTS])
    return ANONYMIZERS[VARIANTS[name][0] if name in VARIANTS else name]


def load(name: str, faces: Faces, **options) -> Anonymizer:
    """Make an anonymizer for a set of faces.

    Parameters
    ----------
    name : str
        ``"pixel"`` (k-Same), ``"eigen"`` (k-Same-Eigen), ``"aam"`` (k-Same-M), ``"cnn"`` (k-Same-Net) and
        ``"stylegan"`` (AnonFACES) make one surrogate per cluster: ``surrogate(members, weights=None)``. ``"blur"``,
        ``"pixelate"`` and ``"mask"`` change each photo separately: ``apply(i)``; they are not k-anonymous. ``"none"``
        returns the photo, as the baseline of an evaluation. A name in `VARIANTS` is also valid.
    faces : Faces
        The photos to anonymize, which models are also fitted to.
    **options
        See the classes in `ANONYMIZERS`.

    Returns
    -------
    Anonymizer

    Raises
    ------
    ValueError
        If the name is unknown or an option is out of range.
    TypeError
        If the anonymizer has no such option.

    Examples
    --------
    >>> import anonymizer, datasets
    >>> faces = datasets.load_faces("orl", per_identity=1)
    >>> anonymizer.load("blur", faces).apply(3).shape
    (112, 92, 3)
    """
    made = kind(name)
    if name in VARIANTS:
        options = {**VARIANTS[name][1], **options}
    check_options(name, options)
    return made(faces, **options)


def check_options(name: str, options: dict) -> None:
    """Raise ParameterError unless the anonymizer `name` has all these options."""
    known = _options_of(kind(name))
    unknown = sorted(set(options) - known)
    if unknown:
        raise ParameterError(
            f"the anonymizer {name!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options are: {', '.join(sorted(known)) or 'none'}"
        )


def _options_of(cls: type[Anonymizer]) -> set[str]:
    """Return the names of the class's options, i.e. its parameters except `faces`."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            parameters = list(inspect.signature(base.__init__).parameters.values())
            names |= {p.name for p in parameters[2:] if p.kind is not p.VAR_KEYWORD}  # without self and faces
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names
