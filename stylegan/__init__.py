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

import datasets
from storage.kinds import explain_kind, read_head

if TYPE_CHECKING:
    from datasets import Faces
    from stylegan.network import StyleNetwork

#: The bundled networks: trained on the ORL faces, in grey; and for all other people, in colour.
BUNDLED = Path(__file__).parent / "cache" / "orl128.npz"
COLOUR = BUNDLED.with_name("colour128.npz")

__all__ = [
    "BUNDLED",
    "COLOUR",
    "Architecture",
    "StyleNetwork",
    "bundled_for",
    "load_network",
    "mix_styles",
    "project",
    "to_uint8",
]

# The modules of these names, which are imported when they are used: TensorFlow takes seconds.
_HOMES = {
    "Architecture": "architecture", "StyleNetwork": "network", "mix_styles": "network", "project": "projection",
    "to_uint8": "network",
}  # fmt: skip


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"stylegan.{_HOMES[name]}"), name)


def bundled_for(faces: Faces) -> Path:
    """File of the bundled network that fits these faces: that of the ORL people if most photos are theirs."""
    known = set(datasets.built_in("orl").image_keys)
    share = sum(key in known for key in faces.image_keys) / len(faces)
    return BUNDLED if share >= 0.5 else COLOUR


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
