"""Members of a cluster -> one surrogate face; and the filters that serve as baselines.

>>> import anonymizer, datasets
>>> faces = datasets.load_faces("orl", per_identity=1)
>>> model = anonymizer.load("aam", faces)
>>> model.surrogate([0, 3, 8]).shape
(112, 92, 3)
"""

from anonymizer.aam import ActiveAppearanceModel
from anonymizer.base import Anonymizer, PhotoFilter, Surrogates
from anonymizer.cnn import UpConvolution
from anonymizer.filters import Blur, Mask, Pixelate, Unchanged
from anonymizer.pixel import EigenMean, PixelMean
from datasets import Faces

#: Every anonymizer by its name. To add one, write a subclass of `Surrogates` or `PhotoFilter` and put it here.
ANONYMIZERS: dict[str, type[Anonymizer]] = {
    cls.name: cls
    for cls in (PixelMean, EigenMean, ActiveAppearanceModel, UpConvolution, Blur, Pixelate, Mask, Unchanged)
}

__all__ = ["ANONYMIZERS", "Anonymizer", "PhotoFilter", "Surrogates", "load"]


def load(name: str, faces: Faces, **options) -> Anonymizer:
    """Make an anonymizer for a set of faces.

    Parameters
    ----------
    name : str
        ``"pixel"`` (k-Same), ``"eigen"`` (k-Same-Eigen), ``"aam"`` (k-Same-M) and ``"cnn"`` (k-Same-Net) give one
        surrogate for a cluster: ``surrogate(members, weights=None)``. ``"blur"``, ``"pixelate"`` and ``"mask"``
        change one photo each: ``apply(i)``; they are not k-anonymous. ``"none"`` returns the photo, as the baseline of
        an evaluation.
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

    Examples
    --------
    >>> import anonymizer, datasets
    >>> faces = datasets.load_faces("orl", per_identity=1)
    >>> anonymizer.load("blur", faces).apply(3).shape
    (112, 92, 3)
    """
    if name not in ANONYMIZERS:
        raise ValueError(f"unknown anonymizer {name!r}; there is {', '.join(map(repr, ANONYMIZERS))}")
    return ANONYMIZERS[name](faces, **options)
