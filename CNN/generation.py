"""Draw series of faces as a YAML file says: single, random, drunk and interpolate.

Parameters are called as users of deconvolution faces know them. For each code (``id`` identity, ``em`` emotion, ``or``
orientation, ``ps`` pose, ``lt`` lighting, and ``nu`` nuisance) there is its value, and ``_scale``, ``_step``,
``_min`` and ``_max`` behind its name::

    mode: interpolate        # or single, random, drunk
    fps: 25
    em: happy                # what is set stays constant
    keyframes:
      - id: 0                # a place, a name, or several: 1+2
      - id: 3
        length: 2s           # frames, or seconds
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import yaml
from scipy.special import softmax
from sklearn.utils import check_random_state

from CNN.model import EMOTIONS, FaceNetwork

#: What the inputs of a network are called in parameters.
SHORT = {
    "identity": "id",
    "emotion": "em",
    "orientation": "or",
    "pose": "ps",
    "lighting": "lt",
    "nuisance": "nu",
}

#: Values of what is not given.
DEFAULTS = {
    "mode": "single",
    "constrained": True,
    "num_images": "1s",
    "fps": 30,
    "keyframes": None,
    "min": None,
    "max": None,
    **{
        short + ending: value
        for short in SHORT.values()
        for ending, value in (("", None), ("_scale", 1.0), ("_step", 0.1), ("_min", None), ("_max", None))
    },
}

#: Codes where nothing is said and nothing shall vary.
CALM = {"identity": 0, "emotion": "neutral", "orientation": 0, "pose": 0, "lighting": 0, "nuisance": 0}

#: No series is longer.
LONGEST = 100_000

#: Random identities of our networks are mixtures, the softmax of so many times a normal sample: a few people outweigh
#: the others, as in the mean of a cluster, and walks do not end at the mean of all.
SHARPNESS = 3.0


def load_parameters(path: str | Path) -> dict:
    """Read parameters from a YAML file; tags that would make Python objects are refused.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no valid YAML, or holds unknown names.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of parameters")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no valid YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path}: must hold names and values, such as mode: single")
    return complete(given)


def complete(given: Mapping) -> dict:
    """Add the defaults to some parameters and check them; ValueError for unknown names or values out of range."""
    unknown = sorted(map(str, set(given) - set(DEFAULTS)))
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}; there is {', '.join(DEFAULTS)}")
    parameters = {**DEFAULTS, **given}
    if parameters["mode"] not in MODES:
        raise ValueError(f"unknown mode {parameters['mode']!r}; there is {', '.join(MODES)}")
    if not isinstance(parameters["constrained"], bool):
        raise ValueError(f"constrained must be true or false, not {parameters['constrained']!r}")
    for name, value in parameters.items():
        numeric = name in ("fps", "min", "max") or name.endswith(("_scale", "_step", "_min", "_max"))
        if numeric and value is not None and not _is_number(value):
            raise ValueError(f"{name} must be a number, not {value!r}")
    if parameters["fps"] is None or not 0 < parameters["fps"] <= 1000:
        raise ValueError(f"fps must lie above 0 and at most at 1000, not {parameters['fps']!r}")
    return parameters


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def count_frames(length: int | str, fps: float) -> int:
    """Frames of a length given in frames or, as ``"2s"``, in seconds."""
    text = str(length)
    try:
        frames = int(float(text[:-1]) * fps + 1e-9) if text.endswith("s") else int(text)
    except (ValueError, OverflowError):
        frames = 0
    if isinstance(length, bool) or not 1 <= frames <= LONGEST:
        raise ValueError(
            f"the length {length!r} is not understood; give 1 to {LONGEST} frames, or seconds as in 2s"
        )
    return frames


def codes(model: FaceNetwork, parameters: Mapping, random_state=0) -> dict[str, np.ndarray]:
    """Make the inputs of a series.

    Parameters
    ----------
    model : FaceNetwork
    parameters : mapping
        As in the YAML file; defaults are added.
    random_state : int, RandomState or None, default 0

    Returns
    -------
    dict of str to ndarray of float32, shape (frames, length)
        By the names of the model's inputs.

    Raises
    ------
    ValueError
        For parameters that are not understood or that the model has no input for.
    """
    parameters = complete(parameters)
    inputs = model.architecture.input_sizes
    taken = {SHORT.get(name) for name in inputs}
    keyframes = parameters["keyframes"] or []
    if not isinstance(keyframes, list) or not all(isinstance(frame, dict) for frame in keyframes):
        raise ValueError("keyframes must be a list of names and values")
    for short in SHORT.values():
        used = parameters[short] is not None or any(short in keyframe for keyframe in keyframes)
        if used and short not in taken:
            raise ValueError(f"this network has no input for {short}; it takes {', '.join(inputs)}")
    made = MODES[parameters["mode"]](model, parameters, check_random_state(random_state))
    return {name: np.asarray(values, dtype=np.float32) for name, values in made.items()}


def draw(model: FaceNetwork, parameters: Mapping, random_state=0) -> np.ndarray:
    """Draw a series: uint8 RGB (frames, h, w, 3); parameters and errors as for `codes`."""
    faces = model.generate(**codes(model, parameters, random_state))
    pixels = np.clip(np.rint(faces * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


# ----------------------------------------------------------------------------------------------------------
# Modes
# ----------------------------------------------------------------------------------------------------------


def single(model: FaceNetwork, parameters: Mapping, random) -> dict[str, np.ndarray]:
    """One picture: what is not given is calm."""
    return {name: _fixed(model, name, parameters)[None] for name in model.architecture.input_sizes}


def independent(model: FaceNetwork, parameters: Mapping, random) -> dict[str, np.ndarray]:
    """Pictures that have nothing to do with each other: what is not given is drawn anew for each."""
    return _series(model, parameters, random, walk=False)


def drunk(model: FaceNetwork, parameters: Mapping, random) -> dict[str, np.ndarray]:
    """A contiguous walk: each picture is a small random step from the one before."""
    return _series(model, parameters, random, walk=True)


def _series(model: FaceNetwork, parameters: Mapping, random, walk: bool) -> dict[str, np.ndarray]:
    n = count_frames(parameters["num_images"], parameters["fps"])
    series = {}
    for name in model.architecture.input_sizes:
        if parameters[SHORT[name]] is not None:
            series[name] = np.tile(_fixed(model, name, parameters), (n, 1))
            continue
        sampler = SAMPLERS.get(name, _sample_vector) if parameters["constrained"] else _sample_vector
        state, rows = None, []
        for _ in range(n):
            state, row = sampler(model, name, parameters, random, state if walk else None)
            rows.append(row)
        series[name] = np.stack(rows)
    return series


def interpolate(model: FaceNetwork, parameters: Mapping, random) -> dict[str, np.ndarray]:
    """Straight lines from keyframe to keyframe; what one does not name stays as it was."""
    keyframes = parameters["keyframes"]
    if not keyframes:
        raise ValueError("the mode interpolate needs keyframes")
    current, position = dict(parameters), 0
    positions, rows = [], {name: [] for name in model.architecture.input_sizes}
    for number, keyframe in enumerate(keyframes):
        unknown = sorted(map(str, set(keyframe) - {*SHORT.values(), "length"}))
        if unknown:
            raise ValueError(f"a keyframe has no {unknown[0]!r}; it has length and codes such as id")
        if number:
            if "length" not in keyframe:
                raise ValueError("every keyframe but the first needs a length")
            position += count_frames(keyframe["length"], parameters["fps"])
        current |= {name: value for name, value in keyframe.items() if name != "length"}
        positions.append(position)
        for name, values in rows.items():
            values.append(_fixed(model, name, current))
    if position >= LONGEST:
        raise ValueError(f"the series is longer than {LONGEST} frames")
    times = np.arange(position + 1)
    return {
        name: np.stack([np.interp(times, positions, column) for column in np.stack(values, axis=1)], axis=1)
        for name, values in rows.items()
    }


MODES: dict[str, Callable] = {
    "single": single,
    "random": independent,
    "drunk": drunk,
    "interpolate": interpolate,
}


# ----------------------------------------------------------------------------------------------------------
# Values
# ----------------------------------------------------------------------------------------------------------


def _fixed(model: FaceNetwork, name: str, parameters: Mapping) -> np.ndarray:
    """The code for a value that is given, or the calm one: (length,)."""
    value = parameters[SHORT[name]]
    value = CALM[name] if value is None else value
    return VALUES[name](model, value, parameters)


def _identity(model: FaceNetwork, value, parameters: Mapping) -> np.ndarray:
    code = np.zeros(model.architecture.input_sizes["identity"])
    for part in _parts(value):
        code[_place(model, part)] += 1.0
    return _constrain(model, "identity", code, parameters)


def _place(model: FaceNetwork, part) -> int:
    """Place of a person given by name or by number."""
    if str(part) in model.identities:
        return model.identities.index(str(part))
    return _number(part, len(model.identities), "identity")


def _number(part, n: int, what: str) -> int:
    text = str(part)
    if isinstance(part, bool) or not text.isdecimal() or int(text) >= n:
        raise ValueError(f"{what} {part!r} is not understood; it is a number from 0 to {n - 1}")
    return int(text)


def _parts(value) -> list:
    """The parts of ``1+2``."""
    return [part.strip() for part in value.split("+")] if isinstance(value, str) else [value]


def _emotion(model: FaceNetwork, value, parameters: Mapping) -> np.ndarray:
    n = model.architecture.input_sizes["emotion"]
    code = np.zeros(n)
    for part in _parts(value):
        if n == len(EMOTIONS) and part in EMOTIONS:
            code[EMOTIONS.index(part)] += 1.0
        else:
            code[_number(part, n, "emotion")] += 1.0
    return _constrain(model, "emotion", code, parameters)


def _pose(model: FaceNetwork, value, parameters: Mapping) -> np.ndarray:
    n = model.architecture.input_sizes["pose"]
    code = np.zeros(n)
    for part in _parts(value):
        code[_number(part, n, "pose")] += 1.0
    return _constrain(model, "pose", code, parameters)


def _orientation(model: FaceNetwork, value, parameters: Mapping) -> np.ndarray:
    if _is_number(value):
        return _circle(value)
    if parameters["constrained"]:
        raise ValueError(
            f"orientation {value!r} must be an angle in degrees, or constrained: false be set for two values"
        )
    return _two_numbers("orientation", value)


def _lighting(model: FaceNetwork, value, parameters: Mapping) -> np.ndarray:
    """Sine and cosine of azimuth and elevation, given in degrees."""
    azimuth, elevation = (value, value) if _is_number(value) else _two_numbers("lighting", value)
    return np.concatenate([_circle(azimuth), _circle(elevation)])


def _two_numbers(name: str, value) -> np.ndarray:
    try:
        numbers = np.array([float(part) for part in str(value).split()])
    except ValueError:
        numbers = np.zeros(0)
    if numbers.shape != (2,) or not np.isfinite(numbers).all():
        raise ValueError(f"{name} {value!r} is not understood; give one angle, or two numbers")
    return numbers


def _circle(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array([np.sin(angle), np.cos(angle)])


def _nuisance(model: FaceNetwork, value, parameters: Mapping) -> np.ndarray:
    """The code of a training photo by its name, a list of numbers, or 0."""
    n = model.architecture.input_sizes["nuisance"]
    if isinstance(value, str):
        code = model.nuisance_of(value)
        if code is None:
            raise ValueError(f"the nuisance code of {value!r} is not known; name a training photo")
        return code * parameters["nu_scale"]
    values = np.full(n, value) if _is_number(value) else np.array(value)
    if values.shape != (n,) or values.dtype.kind not in "if" or not np.isfinite(values).all():
        raise ValueError(f"nu must be the name of a photo or {n} numbers, not {value!r}")
    return values * parameters["nu_scale"]


VALUES: dict[str, Callable] = {
    "identity": _identity,
    "emotion": _emotion,
    "orientation": _orientation,
    "pose": _pose,
    "lighting": _lighting,
    "nuisance": _nuisance,
}


def _mixes(model: FaceNetwork, name: str) -> bool:
    """Whether a code is a mixture with shares that sum to 1, as for the identities of our own networks."""
    return name == "identity" and "nuisance" in model.architecture.input_sizes


def _constrain(model: FaceNetwork, name: str, code: np.ndarray, parameters: Mapping) -> np.ndarray:
    """Bring a code to length 1 (mixtures: to sum 1), scale it, and keep it within its limits."""
    short = SHORT[name]
    if parameters["constrained"]:
        if _mixes(model, name):
            code = np.maximum(code, 0)
            code = code / max(code.sum(), 1e-12)
        else:
            code = code / max(np.linalg.norm(code), 1e-12)
    scale = parameters[f"{short}_scale"]
    code = code * (1.0 if scale is None else scale)
    least, most = (
        parameters[bound] if parameters[f"{short}_{bound}"] is None else parameters[f"{short}_{bound}"]
        for bound in ("min", "max")
    )
    if least is None or most is None:
        return code
    if least > most:
        raise ValueError(f"the least value of {short} lies above the greatest")
    return np.clip(code, least, most)


def _sample_vector(model: FaceNetwork, name: str, parameters: Mapping, random, state):
    """A random code, or one a random step from `state`."""
    n, step = model.architecture.input_sizes[name], parameters[f"{SHORT[name]}_step"]
    move = random.uniform(-1, 1, n)
    code = _constrain(model, name, move if state is None else state + step * move, parameters)
    return code, code


def _sample_identity(model: FaceNetwork, name: str, parameters: Mapping, random, state):
    """A random identity; for our networks a mixture of people, whose state is the normal sample behind it."""
    if not _mixes(model, name):
        return _sample_vector(model, name, parameters, random, state)
    sample = _stroll(random.normal(size=model.architecture.input_sizes[name]), state, parameters["id_step"])
    return sample, _constrain(model, name, softmax(SHARPNESS * sample), parameters)


def _stroll(sample: np.ndarray, state: np.ndarray | None, step: float) -> np.ndarray:
    """Normal samples (n,) one after the other, near to the one before and with the same spread for ever."""
    if state is None:
        return sample
    step = float(np.clip(step, 0, 1))
    return np.sqrt(1 - step**2) * state + step * sample


def _sample_angles(model: FaceNetwork, name: str, parameters: Mapping, random, state):
    """Random angles of up to 90 degrees to both sides, as sines and cosines; the state is the angles."""
    n = model.architecture.input_sizes[name] // 2
    angles = random.uniform(-90, 90, n)
    if state is not None:
        angles = state + parameters[f"{SHORT[name]}_step"] * angles
    return angles, np.concatenate([_circle(angle) for angle in angles])


def _sample_nuisance(model: FaceNetwork, name: str, parameters: Mapping, random, state):
    """A random nuisance code as the training photos have them; a step keeps their spread."""
    n = model.architecture.input_sizes[name]
    spread = model.nuisance_codes.std(axis=0) if len(model.nuisance_codes) else np.ones(n)
    sample = _stroll(random.normal(size=n), state, parameters["nu_step"])
    return sample, sample * spread * parameters["nu_scale"]


SAMPLERS: dict[str, Callable] = {
    "identity": _sample_identity,
    "orientation": _sample_angles,
    "lighting": _sample_angles,
    "nuisance": _sample_nuisance,
}


# ----------------------------------------------------------------------------------------------------------
# Files
# ----------------------------------------------------------------------------------------------------------


def save_frames(frames: np.ndarray, out: str | Path, fps: float = 30) -> Path:
    """Write a series to a folder of PNG files, or to one ``.gif`` or ``.mp4`` file.

    Parameters
    ----------
    frames : ndarray of uint8, shape (n, h, w, 3)
    out : str or Path
        A folder is made where needed; one that holds files is refused.
    fps : float, default 30

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ValueError
        For frames that are no pictures, or an ending that is not known.
    FileExistsError
        If the folder is not empty.
    FileNotFoundError
        If the folder that a file shall go to does not exist.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or len(frames) == 0:
        raise ValueError(f"frames must be uint8 (n, h, w, 3), not {frames.dtype} {frames.shape}")
    out = Path(out)
    if out.suffix.lower() in WRITERS:
        if not out.parent.is_dir():
            raise FileNotFoundError(
                f"the folder {out.parent} does not exist; make it before saving {out.name}"
            )
        WRITERS[out.suffix.lower()](frames, out, fps)
        return out
    if out.suffix:
        raise ValueError(f"{out}: write to a folder, or to a file ending in {' or '.join(WRITERS)}")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise FileExistsError(f"{out}: holds files already; name another folder, or empty it")
    for number, frame in enumerate(frames):
        imageio.imwrite(out / f"{number:05}.png", frame)
    return out


def _write_gif(frames: np.ndarray, out: Path, fps: float) -> None:
    imageio.imwrite(out, frames, duration=1000 / fps, loop=0)


def _write_mp4(frames: np.ndarray, out: Path, fps: float) -> None:
    height, width = frames.shape[1:3]  # the usual video format wants even sides
    even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    imageio.imwrite(out, even, fps=fps, codec="libx264", macro_block_size=1)


WRITERS: dict[str, Callable] = {".gif": _write_gif, ".mp4": _write_mp4}
