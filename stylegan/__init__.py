# ruff: noqa: E402  (the imports below need a quiet TensorFlow)
"""StyleGAN (Karras, Laine and Aila, CVPR 2019): load networks without TensorFlow 1, project photos, mix codes.

>>> import stylegan
>>> network = stylegan.load_network()
>>> network.synthesis(network.random_codes(2, random_state=0)).shape
(2, 128, 128, 3)
"""

from __future__ import annotations

from pathlib import Path

import utils

# Set this before the imports below, which would otherwise print build messages into notebooks.
utils.import_quietly("tensorflow", "keras")

from storage.kinds import explain_kind, read_head
from stylegan.architecture import Architecture
from stylegan.network import StyleNetwork, load_npz, mix_styles, to_uint8
from stylegan.official import load_official
from stylegan.projection import project

#: The bundled network, trained on the ORL faces.
BUNDLED = Path(__file__).parent / "cache" / "orl128.npz"

__all__ = ["BUNDLED", "Architecture", "StyleNetwork", "load_network", "mix_styles", "project", "to_uint8"]

# Reader of each kind of file.
_READERS = {".npz": load_npz, ".pkl": load_official}


def load_network(path: str | Path = BUNDLED) -> StyleNetwork:
    """Load a generator without executing code from the file.

    Parameters
    ----------
    path : str or Path
        A network of this suite (``.npz``), or an official StyleGAN pickle (``.pkl``) such as
        ``karras2019stylegan-ffhq-1024x1024.pkl``.

    Returns
    -------
    StyleNetwork

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is not a complete network of either kind.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        reason = explain_kind(read_head(path)) if path.is_file() else ""
        raise ValueError(
            f"{path}: not a .npz network of this suite or an official .pkl"
            + (f" ({reason})" if reason else "")
        )
    return _READERS[path.suffix](path)
