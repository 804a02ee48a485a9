# ruff: noqa: N999  (the package is called CNN)
"""The up-convolutional network of k-Same-Net, which draws faces from identity codes.

>>> import CNN
>>> model = CNN.load_model()
>>> model.generate(model.identity_codes(["s1", "s2"])).shape
(2, 112, 92, 1)
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from CNN.model import FaceNetwork

#: The bundled weights, trained on the ORL faces.
BUNDLED = Path(__file__).parent / "output" / "ORL.keras"

__all__ = ["BUNDLED", "EMOTIONS", "Architecture", "FaceNetwork", "load_model"]

# The modules of these names, which are imported when they are used: TensorFlow takes seconds.
_HOMES = {"EMOTIONS": "model", "Architecture": "architecture", "FaceNetwork": "model"}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"CNN.{_HOMES[name]}"), name)


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
    from CNN.facegen import load_facegen
    from CNN.model import load_keras

    path = Path(path)
    if path.suffix in (".h5", ".hdf5"):
        return load_facegen(path, identities)
    if path.suffix != ".keras":
        raise ValueError(f"{path}: not a .keras file of this suite or a FaceGen .h5 file")
    model = load_keras(path)
    return model if identities is None else replace(model, identities=list(identities))
