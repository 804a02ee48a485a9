"""StyleGAN (Karras, Laine and Aila, CVPR 2019): load networks without TensorFlow 1, project photos, mix codes.

>>> import stylegan
>>> network = stylegan.load_network()
>>> network.synthesis(network.random_codes(2, random_state=0)).shape
(2, 128, 128, 3)
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from storage.kinds import explain_kind, read_head

if TYPE_CHECKING:
    from stylegan.network import StyleNetwork

#: The bundled network, trained on the ORL faces.
BUNDLED = Path(__file__).parent / "cache" / "orl128.npz"

__all__ = ["BUNDLED", "Architecture", "StyleNetwork", "load_network", "mix_styles", "project", "to_uint8"]

# The modules of these names, which are imported when they are used: TensorFlow takes seconds.
_HOMES = {
    "Architecture": "architecture", "StyleNetwork": "network", "mix_styles": "network", "project": "projection",
    "to_uint8": "network",
}  # fmt: skip


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"stylegan.{_HOMES[name]}"), name)


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
    from stylegan.network import load_npz
    from stylegan.official import load_official

    readers, path = {".npz": load_npz, ".pkl": load_official}, Path(path)
    if path.suffix not in readers:
        reason = explain_kind(read_head(path)) if path.is_file() else ""
        raise ValueError(
            f"{path}: not a .npz network of this suite or an official .pkl"
            + (f" ({reason})" if reason else "")
        )
    return readers[path.suffix](path)
