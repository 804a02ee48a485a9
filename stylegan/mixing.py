"""Style mixing and random people, from Python and the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

import utils
from checks import check_known, check_number
from stylegan.network import TRUNCATION_PSI, StyleNetwork, mix_styles, to_uint8

# Smallest and largest resolution of the layers of each style (section 3.1 of the paper).
_STYLES = {"coarse": (4, 8), "middle": (16, 32), "fine": (64, 1024)}


def style_layers(network: StyleNetwork, style: str) -> list[int]:
    """Layers of a style: ``"coarse"`` (4 and 8 pixels), ``"middle"`` (16, 32) or ``"fine"`` (64 and more).

    Raises
    ------
    ValueError
        For an unknown style, or one that a network of this size does not have.
    """
    check_known("style", style, _STYLES)
    least, most = _STYLES[style]
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
        Codes that give all other layers.
    layers : list of int

    Returns
    -------
    ndarray of uint8, shape (d, s, resolution, resolution, 3)
    """
    mixed = mix_styles(np.asarray(destinations)[:, None], np.asarray(sources)[None], layers)
    images = network.synthesis(mixed.reshape(-1, *mixed.shape[2:]))
    return to_uint8(images).reshape(*mixed.shape[:2], *images.shape[1:])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m stylegan generate``."""
    parser.add_argument("out", type=Path, help="folder for the images")
    parser.add_argument("--network", help="a .npz or official .pkl; default: the bundled network")
    parser.add_argument("--number", type=int, default=16, help="number of people; default: %(default)s")
    parser.add_argument(
        "--psi", type=float, default=TRUNCATION_PSI, help="truncation, 0 to 1; default: %(default)s"
    )
    parser.add_argument("--noise", choices=("stored", "random", "none"), default="stored")
    parser.add_argument("--seed", type=int, default=0)


def run(chosen: argparse.Namespace) -> None:
    """Draw random people."""
    import stylegan

    check_number("--number", chosen.number, int, at_least=1)
    network = stylegan.load_network(chosen.network or stylegan.BUNDLED)
    random = utils.check_random_state(chosen.seed)
    codes = network.random_codes(chosen.number, random, truncation_psi=chosen.psi)
    chosen.out.mkdir(parents=True, exist_ok=True)
    for i in utils.progress(range(chosen.number), "drawing"):
        image = to_uint8(network.synthesis(codes[i : i + 1], chosen.noise, random_state=random))[0]
        path = chosen.out / f"seed{chosen.seed}_{i:04d}.png"
        utils.save_atomic(path, lambda file, image=image: Image.fromarray(image).save(file, "PNG"))
    print(f"{chosen.number} images in {chosen.out}")
