# ruff: noqa: N999, E402  (the package is called CNN, and its imports need a quiet TensorFlow)
"""The up-convolutional network of k-Same-Net, which draws faces from identity codes.

>>> import CNN
>>> model = CNN.load_model()
>>> model.generate(model.identity_codes(["s1", "s2"])).shape
(2, 112, 92, 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import utils

# Set this before the imports below, which would otherwise print build messages into notebooks.
utils.import_quietly("tensorflow", "keras")

from CNN.architecture import Architecture
from CNN.facegen import load_facegen
from CNN.model import EMOTIONS, FaceNetwork, load_keras

#: The bundled weights, trained on the ORL faces.
BUNDLED = Path(__file__).parent / "output" / "ORL.keras"

__all__ = ["BUNDLED", "EMOTIONS", "Architecture", "FaceNetwork", "load_model"]


def load_model(path: str | Path = BUNDLED, identities: Sequence[str] | None = None) -> FaceNetwork:
    """Load a network without executing code from the file.

    Parameters
    ----------
    path : str or Path
        A ``.keras`` file of this suite, or a published ``FaceGen.*.h5`` file.
    identities : sequence of str, optional
        The person behind each position of the identity code, in place of the names in the file.

    Returns
    -------
    FaceNetwork

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not a complete network of either kind, or the number of `identities` does not match it.

    Examples
    --------
    >>> import CNN
    >>> CNN.load_model().generate([[1.0] + [0.0] * 39]).shape
    (1, 112, 92, 1)
    """
    path = Path(path)
    if path.suffix in (".h5", ".hdf5"):
        return load_facegen(path, identities)
    if path.suffix != ".keras":
        raise ValueError(f"{path}: not a .keras file of this suite or a FaceGen .h5 file")
    model = load_keras(path)
    return model if identities is None else replace(model, identities=list(identities))
