"""Series of faces: one face, random faces, a random walk, and straight lines between keyframes.

A mapping from short names, as in deconvfaces, to values describes a face:

- ``id``: identity, a name or a number from 0, or several to mix: ``"s1+s2"``
- ``em``: emotion, a name of `CNN.EMOTIONS` or a number, or several
- ``or``: orientation, an angle in degrees
- ``ps``: pose, a number, or several
- ``lt``: lighting, azimuth and elevation in degrees: ``"30 10"``
- ``nu``: nuisance, the name of a training photo, one number, or all numbers of the code

>>> import CNN
>>> from CNN import generation
>>> model = CNN.load_model()
>>> codes = generation._interpolated_codes(model, [{"id": "s1"}, {"id": "s2+s3"}], 10)
>>> generation.draw(model, codes).shape
(11, 112, 92, 3)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.special import softmax

import CNN
import utils
from checks import ParameterError, check_array, check_known, check_number
from CNN.model import EMOTIONS, FaceNetwork

# Maximum length of a series.
_MOST_FRAMES = 100_000

# Random identities of our networks are mixtures: the softmax of a normal sample multiplied by this factor. A few people
# dominate, as in the mean of a cluster, and walks do not converge to the mean of all people.
_SHARPNESS = 3.0

_EXAMPLES = """\
examples:
  the mean of two people            generate CNN/output/ORL.keras --id s1+s2 --out two
  40 random faces                   generate CNN/output/ORL.keras --mode random --frames 40 --out faces
  a walk in one pose                generate CNN/output/ORL.keras --mode walk --nu 0 --frames 250 --out walk.gif
  from person to person and back    generate CNN/output/ORL.keras --mode interpolate --id s1 s2 s2+s3 s1 --out ids.gif
"""


def fixed_codes(model: FaceNetwork, show: Mapping | None = None) -> dict[str, np.ndarray]:
    """Make the codes of one face.

    Parameters
    ----------
    model : FaceNetwork
    show : mapping, optional
        Values by short name, see the module's docstring. By default the network's first person, neutral and frontal.

    Returns
    -------
    dict of str to ndarray of float64, shape (1, length)
        Codes by the names of the model's inputs.

    Raises
    ------
    ParameterError
        For an unknown value, or a name that is not an input of the model.
    """
    show, inputs = show or {}, model.architecture.input_sizes
    for name in inputs:
        check_known("input of the network", name, _CODES)
    for short in show:
        check_known("code", short, [_CODES[name].short for name in inputs])
    return {
        name: _CODES[name].read(model, name, show.get(_CODES[name].short, _CODES[name].default))[None]
        for name in inputs
    }


def random_codes(
    model: FaceNetwork, n: int, show: Mapping | None = None, step: float | None = None, random_state=0
) -> dict[str, np.ndarray]:
    """Make the codes of n random faces, or of a random walk.

    Parameters
    ----------
    model : FaceNetwork
    n : int
    show : mapping, optional
        Values shared by all faces, as for `fixed_codes`; the rest is random.
    step : float, optional
        Make a walk: each face is a step of this length, 0 to 1, from the previous face. By default faces are
        independent.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    dict of str to ndarray of float64, shape (n, length)
    """
    check_number("number of frames", n, int, at_least=1, at_most=_MOST_FRAMES)
    if step is not None:
        check_number("step", step, at_least=0, at_most=1)
    random, codes = utils.check_random_state(random_state), fixed_codes(model, show)
    for name in codes:
        if _CODES[name].short in (show or {}):
            codes[name] = np.tile(codes[name], (n, 1))
            continue
        state, rows = None, []
        for _ in range(n):
            state, code = _CODES[name].sample(model, name, random, None if step is None else state, step)
            rows.append(code)
        codes[name] = np.stack(rows)
    return codes


def _interpolated_codes(
    model: FaceNetwork, keyframes: Sequence[Mapping], n_steps: int
) -> dict[str, np.ndarray]:
    """Interpolate codes linearly from keyframe to keyframe.

    Parameters
    ----------
    model : FaceNetwork
    keyframes : sequence of k mappings
        Values of each keyframe, as for `fixed_codes`.
    n_steps : int
        Steps from one keyframe to the next.

    Returns
    -------
    dict of str to ndarray of float64, shape ((k - 1) * n_steps + 1, length)
    """
    check_number("number of keyframes", len(keyframes), int, at_least=2)
    check_number("n_steps", n_steps, int, at_least=1, at_most=_MOST_FRAMES // len(keyframes))
    fixed = [fixed_codes(model, keyframe) for keyframe in keyframes]
    positions = np.arange(len(keyframes)) * n_steps
    times, codes = np.arange(positions[-1] + 1), {}
    for name in fixed[0]:
        values = np.concatenate([keyframe[name] for keyframe in fixed])  # (k, length)
        codes[name] = np.stack([np.interp(times, positions, column) for column in values.T], axis=1)
    return codes


def draw(model: FaceNetwork, codes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draw the faces of some codes: uint8 RGB (n, h, w, 3)."""
    images = model.generate(**codes)
    pixels = np.clip(np.rint(images * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


# ----------------------------------------------------------------------------------------------------------
# Values: (model, name of the input, value) -> code
# ----------------------------------------------------------------------------------------------------------


def _read_parts(model: FaceNetwork, name: str, value) -> np.ndarray:
    """Mix the one-hot codes of the parts of ``a+b``, where each part is a name or a number from 0."""
    size = model.architecture.input_sizes[name]
    names = {"identity": model.identities, "emotion": list(EMOTIONS)}.get(name, [])
    names, code = names if len(names) == size else [], np.zeros(size)
    for part in str(value).split("+"):
        part = part.strip()
        if part not in names and not (part.isdecimal() and int(part) < size):
            raise ParameterError(
                f"unknown {name} {part!r}; give a known name or a number from 0 to {size - 1}"
            )
        code[names.index(part) if part in names else int(part)] += 1
    return code / code.sum() if _is_mixture(model, name) else _unit(code)


def _read_numbers(what: str, size: int, value) -> np.ndarray:
    """Read `size` numbers, or one number that is repeated."""
    numbers = np.atleast_1d(value.split() if isinstance(value, str) else value)
    return check_array(what, numbers.repeat(size) if numbers.shape == (1,) else numbers, (size,), np.float64)


def _read_angles(model: FaceNetwork, name: str, value) -> np.ndarray:
    return _circle(_read_numbers(f"{name} in degrees", model.architecture.input_sizes[name] // 2, value))


def _read_nuisance(model: FaceNetwork, name: str, value) -> np.ndarray:
    code = model.nuisance_of(value) if isinstance(value, str) else None
    if code is None:
        what = f"{name}, if not the name of a training photo,"
        code = _read_numbers(what, model.architecture.input_sizes[name], value)
    return code


def _is_mixture(model: FaceNetwork, name: str) -> bool:
    """Whether a code has shares that sum to 1, as the identities of our own networks."""
    return name == "identity" and "nuisance" in model.architecture.input_sizes


def _unit(code: np.ndarray) -> np.ndarray:
    return code / max(np.linalg.norm(code), 1e-12)


def _circle(degrees: np.ndarray) -> np.ndarray:
    """Interleaved sine and cosine of each angle: (n,) -> (2n,)."""
    angles = np.deg2rad(degrees)
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).ravel()


# ----------------------------------------------------------------------------------------------------------
# Samples: (model, name of the input, random, state, step) -> state, code; without a state they are independent
# ----------------------------------------------------------------------------------------------------------


def _sample_unit(model: FaceNetwork, name: str, random, state, step):
    """A point on the unit sphere, or a step along it; an identity of our networks is a mixture of people."""
    size = model.architecture.input_sizes[name]
    if _is_mixture(model, name):
        sample = _normal(random, size, state, step)
        return sample, softmax(_SHARPNESS * sample)
    move = random.uniform(-1, 1, size)
    code = _unit(move if state is None else state + step * move)
    return code, code


def _sample_angles(model: FaceNetwork, name: str, random, state, step):
    """Angles of up to 90 degrees to either side; the state is the angles."""
    angles = random.uniform(-90, 90, model.architecture.input_sizes[name] // 2)
    angles = angles if state is None else state + step * angles
    return angles, _circle(angles)


def _sample_nuisance(model: FaceNetwork, name: str, random, state, step):
    """A nuisance code with the spread of the training photos' codes."""
    sample = _normal(random, model.architecture.input_sizes[name], state, step)
    return sample, sample * (model.nuisance_codes.std(axis=0) if len(model.nuisance_codes) else 1.0)


def _normal(random, size: int, state: np.ndarray | None, step: float | None) -> np.ndarray:
    """A normal sample (size,), or a step to another sample that keeps the spread for walks of any length."""
    sample = random.normal(size=size)
    return sample if state is None else np.sqrt(1 - step**2) * state + step * sample


@dataclass(frozen=True)
class _Code:
    """The name, parser and sampler of a network's input."""

    short: str
    default: object
    read: Callable
    sample: Callable


_CODES = {
    "identity": _Code("id", 0, _read_parts, _sample_unit),
    "emotion": _Code("em", "neutral", _read_parts, _sample_unit),
    "orientation": _Code("or", 0, _read_angles, _sample_angles),
    "pose": _Code("ps", 0, _read_parts, _sample_unit),
    "lighting": _Code("lt", 0, _read_angles, _sample_angles),
    "nuisance": _Code("nu", 0, _read_nuisance, _sample_nuisance),
}


# ----------------------------------------------------------------------------------------------------------
# Files and the command
# ----------------------------------------------------------------------------------------------------------


def _save_frames(frames: np.ndarray, out: str | Path, fps: float = 25) -> None:
    """Write a series to a folder of PNG files, or to one ``.gif`` file.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, h, w, 3)
    out : str or Path
        A folder is created if needed and must be empty.
    fps : float, default 25
        Frames per second of the ``.gif`` file.

    Raises
    ------
    ParameterError
        If the frames are not RGB images, or the file is not a ``.gif``.
    FileExistsError
        If the folder is not empty.
    FileNotFoundError
        If the folder of the ``.gif`` file does not exist.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) == 0:
        raise ParameterError(f"frames must be uint8 (n, h, w, 3), got {frames.dtype} {frames.shape}")
    check_number("fps", fps, above=0, at_most=1000)
    out, images = Path(out), [Image.fromarray(frame) for frame in frames]
    if out.suffix.lower() == ".gif":
        images[0].save(out, save_all=True, append_images=images[1:], duration=1000 / fps, loop=0)
        return
    if out.suffix:
        raise ParameterError(f"{out}: must be a folder or a .gif file")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise FileExistsError(f"{out}: the folder is not empty; choose another folder")
    for number, image in enumerate(images):
        image.save(out / f"{number:05}.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m CNN generate``."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EXAMPLES
    parser.add_argument("weights", help="a .keras file or a FaceGen .h5 file")
    parser.add_argument("--out", required=True, help="a folder for PNG files, or a .gif file")
    parser.add_argument("--mode", choices=("single", "random", "walk", "interpolate"), default="single")
    for name, code in _CODES.items():
        parser.add_argument(
            f"--{code.short}", nargs="+", default=[], metavar="VALUE",
            help=f"{name}; to interpolate, one value per keyframe",
        )  # fmt: skip
    parser.add_argument(
        "--frames", type=int, default=25, help="number of frames in all, or between keyframes (%(default)s)"
    )
    parser.add_argument("--step", type=float, default=0.1, help="step length of a walk, 0 to 1 (%(default)s)")
    parser.add_argument("--fps", type=float, default=25, help="frames per second (%(default)s)")
    parser.add_argument(
        "--identities", nargs="+", help="the person behind each position of the identity code"
    )
    parser.add_argument("--seed", type=int, default=0)


def run(chosen: argparse.Namespace) -> None:
    """Draw one face or a series of faces."""
    given = {code.short: getattr(chosen, code.short) for code in _CODES.values()}
    n = max(1, *map(len, given.values()))
    if any(len(values) not in (0, 1, n) for values in given.values()):
        raise ParameterError(f"each code must have one value or one per keyframe, i.e. {n}")
    if n > 1 and chosen.mode != "interpolate":
        raise ParameterError(f"each code must have one value for --mode {chosen.mode}")
    shows = [{short: values[i % len(values)] for short, values in given.items() if values} for i in range(n)]
    model = CNN.load_model(chosen.weights, chosen.identities)
    if chosen.mode == "single":
        codes = fixed_codes(model, shows[0])
    elif chosen.mode == "interpolate":
        codes = _interpolated_codes(model, shows, chosen.frames)
    else:
        step = chosen.step if chosen.mode == "walk" else None
        codes = random_codes(model, chosen.frames, shows[0], step, chosen.seed)
    frames = draw(model, codes)
    _save_frames(frames, chosen.out, chosen.fps)
    print(f"{len(frames)} images: {chosen.out}")
