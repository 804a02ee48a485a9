"""Series of faces: one face, random faces, a random walk, and straight lines between keyframes.

What a face shows is a mapping from short names to values, the names that users of deconvfaces know:

- ``id``: identity, a name or a number from 0, or several to be mixed: ``"s1+s2"``
- ``em``: emotion, a name of `CNN.EMOTIONS` or a number, or several
- ``or``: orientation, an angle in degrees
- ``ps``: pose, a number, or several
- ``lt``: lighting, azimuth and elevation in degrees: ``"30 10"``
- ``nu``: nuisance, the name of a training photo, one number, or all numbers of the code

>>> import CNN
>>> from CNN import generation
>>> model = CNN.load_model()
>>> codes = generation.interpolated_codes(model, [{"id": "s1"}, {"id": "s2+s3"}], 10)
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
from sklearn.utils import check_random_state

import CNN
from checks import ParameterError, check_known, check_number
from CNN.model import EMOTIONS, FaceNetwork

# No series is longer.
_MOST_FRAMES = 100_000

# Random identities of our networks are mixtures: the softmax of this many times a normal sample. A few people outweigh
# the others, as in the mean of a cluster, and walks do not end at the mean of all people.
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
        Values by short name, see the module. By default the network's first person, neutral and frontal.

    Returns
    -------
    dict of str to ndarray of float32, shape (1, length)
        By the names of the model's inputs.

    Raises
    ------
    ParameterError
        For an unknown value, or a name that the model has no input for.
    """
    return _float32({name: code[None] for name, code in _fixed(model, show or {}).items()})


def random_codes(
    model: FaceNetwork, n: int, show: Mapping | None = None, random_state=0
) -> dict[str, np.ndarray]:
    """Make the codes of n independent faces; what `show` does not fix is random.

    Parameters, result and errors are those of `fixed_codes`, with n rows.
    """
    return _series(model, n, show or {}, None, random_state)


def walk_codes(
    model: FaceNetwork, n: int, show: Mapping | None = None, step: float = 0.1, random_state=0
) -> dict[str, np.ndarray]:
    """Make the codes of a random walk: each of the n faces is a small step from the one before.

    Parameters, result and errors are those of `fixed_codes`, with n rows. `step` is the length of a step, 0 to 1.
    """
    check_number("step", step, at_least=0, at_most=1)
    return _series(model, n, show or {}, step, random_state)


def interpolated_codes(
    model: FaceNetwork, keyframes: Sequence[Mapping], n_steps: int
) -> dict[str, np.ndarray]:
    """Make the codes of straight lines from keyframe to keyframe.

    Parameters
    ----------
    model : FaceNetwork
    keyframes : sequence of k mappings
        What each keyframe shows, as for `fixed_codes`.
    n_steps : int
        Steps from one keyframe to the next.

    Returns
    -------
    dict of str to ndarray of float32, shape ((k - 1) * n_steps + 1, length)
    """
    check_number("number of keyframes", len(keyframes), int, at_least=2)
    check_number("n_steps", n_steps, int, at_least=1, at_most=_MOST_FRAMES // len(keyframes))
    fixed = [_fixed(model, keyframe) for keyframe in keyframes]
    positions = np.arange(len(keyframes)) * n_steps
    times = np.arange(positions[-1] + 1)

    def between(codes: list[np.ndarray]) -> np.ndarray:
        columns = [np.interp(times, positions, values) for values in np.stack(codes, axis=1)]
        return np.stack(columns, axis=1)  # (frames, length)

    return _float32({name: between([codes[name] for codes in fixed]) for name in fixed[0]})


def draw(model: FaceNetwork, codes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Draw the faces of some codes: uint8 RGB (n, h, w, 3)."""
    images = model.generate(**codes)
    pixels = np.clip(np.rint(images * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


def _float32(codes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values.astype(np.float32) for name, values in codes.items()}


def _fixed(model: FaceNetwork, show: Mapping) -> dict[str, np.ndarray]:
    """One face's codes (length,) by the names of the model's inputs."""
    inputs = model.architecture.input_sizes
    for name in inputs:
        check_known("input of the network", name, _CODES)
    for short in show:
        check_known("code", short, [_CODES[name].short for name in inputs])
    return {
        name: _CODES[name].read(model, size, show.get(_CODES[name].short, _CODES[name].default))
        for name, size in inputs.items()
    }


def _series(
    model: FaceNetwork, n: int, show: Mapping, step: float | None, random_state
) -> dict[str, np.ndarray]:
    """Codes of a random walk, or of independent faces if `step` is None."""
    check_number("number of frames", n, int, at_least=1, at_most=_MOST_FRAMES)
    random, fixed, series = check_random_state(random_state), _fixed(model, show), {}
    for name, size in model.architecture.input_sizes.items():
        if _CODES[name].short in show:
            series[name] = np.tile(fixed[name], (n, 1))
            continue
        state, rows = None, []
        for _ in range(n):
            state, code = _CODES[name].sample(model, size, random, None if step is None else state, step)
            rows.append(code)
        series[name] = np.stack(rows)
    return _float32(series)


# ----------------------------------------------------------------------------------------------------------
# Values: (model, length, value) -> code
# ----------------------------------------------------------------------------------------------------------


def _add_up(names: Sequence[str], size: int, value) -> np.ndarray:
    """Add the one-hot codes of the parts of ``a+b``, which are names or numbers from 0."""
    code = np.zeros(size)
    for part in str(value).split("+"):
        part = part.strip()
        if part in names:
            code[names.index(part)] += 1
        elif part.isdecimal() and int(part) < size:
            code[int(part)] += 1
        else:
            raise ParameterError(
                f"unknown value {part!r}; give a known name or a number from 0 to {size - 1}"
            )
    return code


def _identity(model: FaceNetwork, size: int, value) -> np.ndarray:
    code = _add_up(model.identities, size, value)
    return code / code.sum() if _takes_mixtures(model) else _unit(code)


def _emotion(model: FaceNetwork, size: int, value) -> np.ndarray:
    return _unit(_add_up(EMOTIONS if size == len(EMOTIONS) else (), size, value))


def _pose(model: FaceNetwork, size: int, value) -> np.ndarray:
    return _unit(_add_up((), size, value))


def _angles(model: FaceNetwork, size: int, value) -> np.ndarray:
    try:
        degrees = np.array([float(part) for part in str(value).split()])
    except ValueError:
        degrees = np.zeros(0)
    if len(degrees) not in (1, size // 2) or not np.isfinite(degrees).all():
        raise ParameterError(f"angles must be one or {size // 2} numbers of degrees, got {value!r}")
    return _circle(np.broadcast_to(degrees, size // 2))


def _nuisance(model: FaceNetwork, size: int, value) -> np.ndarray:
    known = model.nuisance_of(value) if isinstance(value, str) else None
    if known is not None:
        return known
    try:
        numbers = np.array(value.split() if isinstance(value, str) else value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.full(size, np.nan)
    if numbers.shape not in ((), (1,), (size,)) or not np.isfinite(numbers).all():
        raise ParameterError(f"nu must be the name of a training photo, or {size} numbers, got {value!r}")
    return np.broadcast_to(numbers, size)


def _takes_mixtures(model: FaceNetwork) -> bool:
    """Whether identities are shares that sum to 1, as for our own networks."""
    return "nuisance" in model.architecture.input_sizes


def _unit(code: np.ndarray) -> np.ndarray:
    return code / max(np.linalg.norm(code), 1e-12)


def _circle(degrees: np.ndarray) -> np.ndarray:
    """Sine and cosine of one angle after the other: (n,) -> (2n,)."""
    angles = np.deg2rad(degrees)
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).ravel()


# ----------------------------------------------------------------------------------------------------------
# Samples: (model, length, random, state, step) -> state, code; no state asks for an independent sample
# ----------------------------------------------------------------------------------------------------------


def _sample_unit(model: FaceNetwork, size: int, random, state, step):
    """A point on the unit sphere, or a step along it."""
    move = random.uniform(-1, 1, size)
    code = _unit(move if state is None else state + step * move)
    return code, code


def _sample_identity(model: FaceNetwork, size: int, random, state, step):
    """A mixture of people for our networks; its state is the normal sample behind the shares."""
    if not _takes_mixtures(model):
        return _sample_unit(model, size, random, state, step)
    sample = _normal_step(random.normal(size=size), state, step)
    return sample, softmax(_SHARPNESS * sample)


def _sample_angles(model: FaceNetwork, size: int, random, state, step):
    """Angles of up to 90 degrees to both sides; the state is the angles."""
    angles = random.uniform(-90, 90, size // 2)
    angles = angles if state is None else state + step * angles
    return angles, _circle(angles)


def _sample_nuisance(model: FaceNetwork, size: int, random, state, step):
    """A nuisance code with the spread of those of the training photos."""
    sample = _normal_step(random.normal(size=size), state, step)
    return sample, sample * (model.nuisance_codes.std(axis=0) if len(model.nuisance_codes) else 1.0)


def _normal_step(sample: np.ndarray, state: np.ndarray | None, step: float | None) -> np.ndarray:
    """A step from one normal sample (n,) to another that keeps the spread, however long the walk."""
    return sample if state is None else np.sqrt(1 - step**2) * state + step * sample


@dataclass(frozen=True)
class _Code:
    """How one input of a network is named, read and sampled."""

    short: str
    default: object
    read: Callable
    sample: Callable


_CODES = {
    "identity": _Code("id", 0, _identity, _sample_identity),
    "emotion": _Code("em", "neutral", _emotion, _sample_unit),
    "orientation": _Code("or", 0, _angles, _sample_angles),
    "pose": _Code("ps", 0, _pose, _sample_unit),
    "lighting": _Code("lt", 0, _angles, _sample_angles),
    "nuisance": _Code("nu", 0, _nuisance, _sample_nuisance),
}


# ----------------------------------------------------------------------------------------------------------
# Files and the command
# ----------------------------------------------------------------------------------------------------------


def save_frames(frames: np.ndarray, out: str | Path, fps: float = 25) -> None:
    """Write a series to a folder of PNG files, or to one ``.gif`` file.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, h, w, 3)
    out : str or Path
        A folder is made if needed; it must be empty.
    fps : float, default 25
        Frames a second of the ``.gif`` file.

    Raises
    ------
    ParameterError
        For frames that are not RGB images, or a file that is not a ``.gif``.
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
        raise FileExistsError(f"{out}: the folder is not empty; name another one")
    for number, image in enumerate(images):
        image.save(out / f"{number:05}.png")


_MODES = {
    "single": lambda model, shows, chosen: fixed_codes(model, shows[0]),
    "random": lambda model, shows, chosen: random_codes(model, chosen.frames, shows[0], chosen.seed),
    "walk": lambda model, shows, chosen: walk_codes(model, chosen.frames, shows[0], chosen.step, chosen.seed),
    "interpolate": lambda model, shows, chosen: interpolated_codes(model, shows, chosen.frames),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m CNN generate``."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, _EXAMPLES
    parser.add_argument("weights", help="a .keras file or a FaceGen .h5 file")
    parser.add_argument("--out", required=True, help="a folder for PNG files, or a .gif file")
    parser.add_argument("--mode", choices=_MODES, default="single", help="default: %(default)s")
    for name, code in _CODES.items():
        parser.add_argument(
            f"--{code.short}", nargs="+", default=[], metavar="VALUE",
            help=f"{name}; to interpolate, one value for each keyframe",
        )  # fmt: skip
    parser.add_argument(
        "--frames",
        type=int,
        default=25,
        help="frames in all, or from keyframe to keyframe; default: %(default)s",
    )
    parser.add_argument(
        "--step", type=float, default=0.1, help="step of a walk, 0 to 1; default: %(default)s"
    )
    parser.add_argument("--fps", type=float, default=25, help="frames a second; default: %(default)s")
    parser.add_argument(
        "--identities", nargs="+", help="the person behind each position of the identity code"
    )
    parser.add_argument("--seed", type=int, default=0)


def run(chosen: argparse.Namespace) -> None:
    """Draw one face or a series of faces."""
    given = {code.short: getattr(chosen, code.short) for code in _CODES.values()}
    n = max(1, *map(len, given.values()))
    if any(len(values) not in (0, 1, n) for values in given.values()):
        raise ParameterError(f"each code must have one value, or as many as there are keyframes: {n}")
    if n > 1 and chosen.mode != "interpolate":
        raise ParameterError(f"each code must have one value for --mode {chosen.mode}")
    shows = [{short: values[i % len(values)] for short, values in given.items() if values} for i in range(n)]
    model = CNN.load_model(chosen.weights, chosen.identities)
    frames = draw(model, _MODES[chosen.mode](model, shows, chosen))
    save_frames(frames, chosen.out, chosen.fps)
    print(f"{len(frames)} images: {chosen.out}")
