"""Style mixing as a table of pictures, and pictures of random people, from Python and the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import utils
from stylegan.network import TRUNCATION_PSI, StyleNetwork, mix_styles, to_uint8

#: Parts of the network by the resolutions of their layers (section 3.1 of the paper).
STYLES = {"coarse": (4, 8), "middle": (16, 32), "fine": (64, 1024)}


def style_layers(network: StyleNetwork, style: str) -> list[int]:
    """Layers of a style: ``"coarse"`` (4 and 8 pixels), ``"middle"`` (16, 32) or ``"fine"`` (64 and more).

    Raises
    ------
    ValueError
        For an unknown style, or one that so small a network does not have.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; there is {', '.join(map(repr, STYLES))}")
    least, most = STYLES[style]
    sides = np.repeat(network.architecture.resolutions, 2)
    layers = [i for i, side in enumerate(sides) if least <= side <= most]
    if not layers:
        raise ValueError(f"a network of {network.resolution} pixels has no {style} layers")
    return layers


def mixing_pictures(
    network: StyleNetwork, sources: np.ndarray, destinations: np.ndarray, layers: list[int]
) -> np.ndarray:
    """Copy some layers of each source into each destination (figure 3 of the paper).

    Parameters
    ----------
    network : StyleNetwork
    sources : array, shape (s, num_layers, w_dim)
        Codes whose `layers` are copied.
    destinations : array, shape (d, num_layers, w_dim)
        Codes that all other layers come from.
    layers : list of int

    Returns
    -------
    ndarray of uint8, shape (d, s, resolution, resolution, 3)
    """
    mixed = mix_styles(np.asarray(destinations)[:, None], np.asarray(sources)[None], layers)
    pictures = network.synthesis(mixed.reshape(-1, *mixed.shape[2:]))
    return to_uint8(pictures).reshape(*mixed.shape[:2], *pictures.shape[1:])


def save_pictures(folder: Path, pictures: np.ndarray, names: list[str]) -> None:
    """Write pictures (n, h, w, 3) as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture, name in zip(pictures, names, strict=True):
        content = Image.fromarray(picture)
        utils.save_atomic(folder / f"{name}.png", lambda file, content=content: content.save(file, "PNG"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``python -m stylegan generate`` takes."""
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--network", type=Path, help="a .npz or official .pkl (default: the bundled network)")
    parser.add_argument("--number", type=int, default=16, help="how many people (16)")
    parser.add_argument("--psi", type=float, default=TRUNCATION_PSI, help="truncation, 0 to 1 (%(default)s)")
    parser.add_argument("--noise", choices=("stored", "random", "none"), default="stored")
    parser.add_argument("--seed", type=int, default=0)


def run(chosen: argparse.Namespace) -> None:
    """Draw random people."""
    import stylegan

    if chosen.number < 1:
        raise ValueError(f"--number must be at least 1, not {chosen.number}")
    network = stylegan.load_network(*([chosen.network] if chosen.network else []))
    random = utils.check_random_state(chosen.seed)
    codes = network.random_codes(chosen.number, random, chosen.psi)
    names = [f"seed{chosen.seed}_{i:04d}" for i in range(chosen.number)]
    for i in utils.progress(range(chosen.number), "drawing"):
        picture = network.synthesis(codes[i : i + 1], chosen.noise, random_state=random)
        save_pictures(chosen.out, to_uint8(picture), names[i : i + 1])
    print(f"{chosen.number} pictures in {chosen.out}")
