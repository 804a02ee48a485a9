"""Read the official StyleGAN pickles as data, and convert them to our format: ``python -m stylegan convert``.

An official pickle holds three networks, each with its arrays and the source code that built it: generator,
discriminator, and the moving average of the generator. The official reader executes that code. This reader takes only
the arrays of the moving average; their shapes give the size of the network.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import utils
from storage.pickles import build_dictionary
from stylegan.architecture import FUSED_FROM, MAPPING_RATE
from stylegan.network import StyleNetwork

# Versions of the pickled networks of StyleGAN 1, and the later versions.
_VERSIONS, _LATER_VERSIONS = (2, 3), {4: "StyleGAN2", 5: "StyleGAN2-ADA"}
_ONLY = "only StyleGAN 1 is supported"
# The functions that build a generator of StyleGAN 1 and its parts.
_BUILDERS = {"": "G_style", "mapping": "G_mapping", "synthesis": "G_synthesis"}

# Build arguments that change the computation: the supported values (the official default first), and what a network
# with another value does.
_ARGUMENTS = {
    "label_size": ((0,), "takes labels"),
    "normalize_latents": ((True,), "does not normalise z"),
    "mapping_nonlinearity": (("lrelu",), "uses another nonlinearity than the leaky ReLU"),
    "nonlinearity": (("lrelu",), "uses another nonlinearity than the leaky ReLU"),
    "use_wscale": ((True,), "does not scale its weights"),
    "const_input_layer": ((True,), "does not start from a constant"),
    "use_styles": ((True,), "has no styles"),
    "use_noise": ((True,), "has no noise"),
    "use_pixel_norm": ((False,), "normalises pixels"),
    "use_instance_norm": ((True,), "does not normalise instances"),
    "blur_filter": (([1, 2, 1],), "smooths upsampled features with a filter other than 1, 2, 1"),
    "fused_scale": (("auto", True, False), "upsamples features in an unknown way"),
}


@dataclass(frozen=True, eq=False)
class _Network:
    """A pickled network, as plain data."""

    state: object


# Replacements for the classes in official pickles other than numpy's.
_STAND_INS = {
    "dnnlib.tflib.network.Network": lambda pickled: _Network(pickled.state),
    "dnnlib.util.EasyDict": build_dictionary,
    "collections.OrderedDict": build_dictionary,
}


def load_official(path: str | Path) -> StyleNetwork:
    """Load the generator of an official StyleGAN pickle without executing code from the file.

    Parameters
    ----------
    path : str or Path
        A pickle of three networks (generator, discriminator, moving average of the generator) such as
        ``karras2019stylegan-ffhq-1024x1024.pkl``, or of the last alone. The last is loaded.

    Returns
    -------
    StyleNetwork

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged or hostile, holds another kind of network, or was built with unsupported arguments:
        labels, pixel normalisation, other nonlinearities or filters, unfinished growing.

    Notes
    -----
    Sizes come from the shapes of the arrays, not from the stored arguments.
    """
    try:
        arrays = _arrays(_moving_average(utils.load_pickle(path, _STAND_INS)))
        return StyleNetwork.from_arrays(arrays, {"dataset": Path(path).stem})
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: ")
        if re.search(r"it holds torch(_utils)?\.", reason):
            reason = f"it holds PyTorch networks, as of StyleGAN2-ADA and StyleGAN3; {_ONLY}"
        raise ValueError(f"{path}: {reason}") from None


def _moving_average(content: object) -> dict:
    """State of the moving average, the last of the three networks."""
    if isinstance(content, tuple | list):
        if len(content) != 3:
            raise ValueError("it does not hold the three networks of an official StyleGAN pickle")
        content = content[2]
    return _state(content, "")


def _state(network: object, part: str) -> dict:
    """State of a network, which must be this part of a generator."""
    state = network.state if isinstance(network, _Network) else None
    if not isinstance(state, dict) or not isinstance(state.get("static_kwargs", {}), dict):
        raise ValueError("it does not hold the three networks of an official StyleGAN pickle")
    version = _plain(state.get("version"))
    if version not in _VERSIONS:
        known = isinstance(version, int) and _LATER_VERSIONS.get(version)
        what = f"{known} networks" if known else "networks of an unknown version"
        raise ValueError(f"it holds {what}; {_ONLY}")
    if _plain(state.get("build_func_name")) != _BUILDERS[part]:
        raise ValueError(f"it was not built by {_BUILDERS[part]} of StyleGAN 1; {_ONLY}")
    return state


def _plain(value: object) -> object:
    """A number, text or short list of numbers as Python objects; None for everything else."""
    if isinstance(value, np.generic | np.ndarray) and value.size <= 8:
        value = value.tolist()
    if isinstance(value, list | tuple) and len(value) <= 8:
        return [_plain(item) if isinstance(item, int | float | np.number) else None for item in value]
    return value if isinstance(value, bool | int | float | str) else None


def _arrays(state: dict) -> dict[str, np.ndarray]:
    """The arrays of a generator, named and scaled for `StyleNetwork.from_arrays`."""
    variables, components = _variables(state), state.get("components") or {}
    if not isinstance(components, dict):
        raise ValueError("its networks do not have the parts of a StyleGAN generator")
    parts, arguments = {}, dict(state.get("static_kwargs", {}))
    for part in ("mapping", "synthesis"):
        if part in components:
            component = _state(components[part], part)
            parts[part] = _variables(component)
            arguments |= component.get("static_kwargs", {})
        else:  # old files have all variables in one list
            prefix = f"{_BUILDERS[part]}/"
            names = [name for name in variables if name.startswith(prefix)]
            parts[part] = {name.removeprefix(prefix): variables.pop(name) for name in names}
    for name, (values, complaint) in _ARGUMENTS.items():
        given = _plain(arguments.get(name, values[0]))
        if not any(type(given) is type(value) and given == value for value in values):
            raise ValueError(f"its network {complaint} ({name}), which is not supported")
    lods = [found.pop("lod") for found in (parts["synthesis"], variables) if "lod" in found]
    if lods and lods[-1].tolist() != 0:  # the generator's own is copied to the synthesis network
        raise ValueError("its progressive growing is not finished (lod is not 0), which is not supported")
    _scale_mapping(parts["mapping"], arguments)
    _turn_kernels(parts["synthesis"], arguments)
    named = {f"{part}/{name}": array for part, own in parts.items() for name, array in own.items()}
    return {**named, **variables}


def _variables(state: dict) -> dict[str, np.ndarray]:
    """A network's own variables by name."""
    pairs = state.get("variables")
    if not isinstance(pairs, list | tuple) or not all(map(_is_variable, pairs)):
        raise ValueError("its variables are not a list of names and arrays")
    arrays = {name: np.asarray(value) for name, value in pairs}
    if not all(array.dtype.kind == "f" for array in arrays.values()):
        raise ValueError("its variables are not all arrays of real numbers")
    return arrays


def _is_variable(pair: object) -> bool:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        return False
    return isinstance(pair[0], str) and isinstance(pair[1], np.ndarray | np.floating | float)


def _scale_mapping(mapping: dict[str, np.ndarray], arguments: dict) -> None:
    """Rescale stored weights that were trained with another learning-rate factor."""
    rate = _plain(arguments.get("mapping_lrmul", MAPPING_RATE))
    if not isinstance(rate, int | float) or not 0 < rate < np.inf:
        raise ValueError("the learning-rate factor of its mapping network (mapping_lrmul) is not positive")
    if rate != MAPPING_RATE:
        mapping |= {name: array * (rate / MAPPING_RATE) for name, array in mapping.items()}


def _turn_kernels(synthesis: dict[str, np.ndarray], arguments: dict) -> None:
    """Rotate the kernels of layers that upsample differently from ours at their resolution.

    The kernel of a transposed convolution is rotated by 180 degrees relative to repetition and convolution. By default
    ("auto") the output resolution decides which of the two is used.
    """
    fused = _plain(arguments.get("fused_scale", "auto"))
    if fused == "auto":
        return
    for name, kernel in synthesis.items():
        side, _, rest = name.partition("x")
        enlarges = rest == f"{side}/Conv0_up/weight" and side.isdecimal() and kernel.ndim == 4
        if enlarges and (int(side[:8]) >= FUSED_FROM) != fused:
            synthesis[name] = kernel[::-1, ::-1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m stylegan convert``."""
    parser.add_argument("network", type=Path, help="an official .pkl, or a .npz of this suite")
    parser.add_argument("out", type=Path, help="the .npz to write")
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32",
        help="float16 halves the file (%(default)s)",
    )  # fmt: skip


def run(chosen: argparse.Namespace) -> None:
    """Rewrite a network as an .npz file, which loads faster and is safe to read."""
    import stylegan

    if not chosen.out.parent.is_dir():
        raise FileNotFoundError(f"the folder {chosen.out.parent} does not exist; create it first")
    network = stylegan.load_network(chosen.network)
    network.save(chosen.out, chosen.dtype)
    print(f"{chosen.out}: {network}, {chosen.out.stat().st_size / 1e6:.1f} MB")
