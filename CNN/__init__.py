# ruff: noqa: N999, E402  (the package is called CNN, and its imports need a quiet TensorFlow)
"""The up-convolutional network of k-Same-Net: codes of people go in, faces come out.

>>> import CNN
>>> model = CNN.load_model("CNN/output/ORL.keras")
>>> model.generate(model.identity_codes(["s1", "s2"])).shape
(2, 112, 92, 1)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import utils

# Before anything here imports them, or they fill notebooks with notes on their build.
utils.import_quietly("tensorflow", "keras")

from CNN.architecture import Architecture
from CNN.facegen import load_released
from CNN.model import EMOTIONS, FaceNetwork, load_keras

#: The weights that come with the suite, trained on the ORL faces.
BUNDLED = Path(__file__).parent / "output" / "ORL.keras"

__all__ = ["BUNDLED", "EMOTIONS", "Architecture", "FaceNetwork", "load_model"]


def load_model(path: str | Path = BUNDLED, identities: Sequence[str] | None = None) -> FaceNetwork:
    """Load a network; no code in the file is run.

    Parameters
    ----------
    path : str or Path
        One of ours (``.keras``), or a released ``FaceGen.*.h5`` file.
    identities : sequence of str, optional
        Whom the places of the identity code stand for, in their order, in place of what the file says.

    Returns
    -------
    FaceNetwork

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a whole network of either kind, or `identities` are not as many as it has.

    Examples
    --------
    >>> import CNN
    >>> CNN.load_model().generate([[1.0] + [0.0] * 39]).shape
    (1, 112, 92, 1)
    """
    path = Path(path)
    if path.suffix in (".h5", ".hdf5"):
        return load_released(path, identities)
    if path.suffix != ".keras":
        raise ValueError(f"{path}: a network is a .keras file of this suite or a released .h5 file")
    model = load_keras(path)
    if identities is not None:
        model.identities = [str(name) for name in identities]
        model.__post_init__()
    return model
