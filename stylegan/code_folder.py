"""W+ codes of photos in a folder of ``.npy`` files, as written by ``python -m stylegan project``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

import datasets
import utils
from datasets import Faces
from datasets.faces import ImageFiles
from datasets.formats import IMAGE_SUFFIXES
from stylegan.encoder import load_encoder
from stylegan.network import StyleNetwork
from stylegan.projection import ProjectionSettings, Projector, detect_faces

# The default location of codes, with one folder per source of faces.
CODES = Path(__file__).resolve().parents[1] / "datasets" / "stylegan_data" / "latent_vectors"

# Records the network and settings that made the codes in a folder.
_RECORD = "projection.json"

# The settings that are options of the command.
_OPTIONS = {
    "n_steps": ("--steps", "number of search steps"),
    "step": ("--step", "length of a step, in units of the spread of w"),
    "noise": ("--noise", "initial noise on the code, in the same units"),
    "one_code": ("--one-code", "weight of the pull towards one w for all layers"),
    "pixels": ("--pixels", "weight of the pixel loss"),
    "descriptors": ("--descriptors", "weight of the face descriptor loss, 0 for none"),
    "pull": ("--pull", "weight of the penalty on the distance from the average"),
    "seed": ("--seed", "seed of the noise"),
}

_ADVICE = "choose another folder, or pass overwrite=True (--overwrite) to replace them"


@dataclass(frozen=True, eq=False)
class _ProjectionReport:
    """The outcome for each photo, by name.

    Attributes
    ----------
    written, kept, missed : list of str
        Projected now; already present and kept; without a face and therefore without a code.
    trace : DataFrame
        See `Projection`; the column `photo` holds names.
    """

    written: list[str]
    kept: list[str]
    missed: list[str]
    trace: pd.DataFrame


def _project_to_folder(
    network: StyleNetwork,
    faces: Faces,
    folder: str | Path | None = None,
    *,
    encoder=None,
    overwrite: bool = False,
    batch: int | None = None,
    **settings,
) -> _ProjectionReport:
    """Find W+ codes of photos and write each to a file; the same call resumes an interrupted one.

    Parameters
    ----------
    network, faces, encoder, batch, **settings
        See `projection.project`.
    folder : str or Path, optional
        Created if needed; by default ``datasets/stylegan_data/latent_vectors/SOURCE``. The code of photo ``s1/1.pgm``
        is in ``s1/1.npy``, float32 (num_layers, w_dim).
    overwrite : bool, default False
        Replace existing codes. By default they are kept.

    Returns
    -------
    _ProjectionReport

    Raises
    ------
    FileExistsError
        If the folder holds codes made with another network or other settings, or of other photos with the same names.
    ValueError
        If two photos would share a file, or for the reasons in `projection.project`. Nothing is computed then.
    """
    folder = CODES / faces.source if folder is None else Path(folder)
    paths = np.array(_code_paths(faces.names, folder))
    projector = Projector(network, batch, **settings)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder}: is a file; choose a folder for the codes")
    there = np.array([path.exists() for path in paths])
    if there.any() and not overwrite:
        _check_existing(folder, paths[there], projector)
        others = _made_for_others(folder, paths[there], np.array(faces.image_keys)[there])
        if others:
            raise FileExistsError(f"{others}; {_ADVICE}")
    detections = detect_faces(faces)
    todo = detections.found & (overwrite | ~there)
    kept = there & ~todo
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths[todo & there]:
        path.unlink()  # a code that is to be replaced must not stay beside the record of another photo
    keys = {
        path.relative_to(folder).as_posix(): key for path, key in zip(paths, faces.image_keys, strict=True)
    }
    record = {**_record(projector), "photos": {**read_photo_keys(folder), **keys}}
    _write_text(folder / _RECORD, json.dumps(record, indent=1))
    traces, rows = [pd.DataFrame()], np.flatnonzero(todo)
    for chosen, codes, trace in projector.fit_photos(faces, detections.landmarks, rows, encoder):
        for path, code in zip(paths[chosen], codes, strict=True):
            _save_code(path, code)
        traces.append(trace.assign(photo=faces.names[trace["photo"]]))
    return _ProjectionReport(
        written=faces.names[todo].tolist(),
        kept=faces.names[kept].tolist(),
        missed=faces.names[~todo & ~kept].tolist(),
        trace=pd.concat(traces, ignore_index=True),
    )


def _save_code(path: str | Path, code: np.ndarray) -> None:
    """Write one code, (num_layers, w_dim), to a ``.npy`` file, and create its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    utils.save_atomic(path, lambda file: np.save(file, code.astype(np.float32), allow_pickle=False))


def _write_text(path: Path, text: str) -> None:
    utils.save_atomic(path, lambda file: file.write(text.encode("utf-8")))


def _record(projector: Projector) -> dict:
    network = projector.network
    return {
        "network": utils.content_key(network.arrays()),
        "dataset": network.description.get("dataset"),
        "shape": [network.num_layers, network.w_dim],
        "settings": asdict(projector.settings),
    }


def _check_existing(folder: Path, paths: Sequence[Path], projector: Projector) -> None:
    """Raise FileExistsError unless the existing codes were made with the same network and settings."""
    record = folder / _RECORD
    if record.is_file():
        try:
            known = utils.parse_json(record.read_bytes())
        except ValueError:
            known = None
        if not isinstance(known, dict) or {**known, "photos": None} != {**_record(projector), "photos": None}:
            raise FileExistsError(
                f"{folder}: holds codes made with another network or other settings; {_ADVICE}"
            )
    try:
        for path in paths:
            _read_code(path, projector.network)
    except ValueError as error:
        raise FileExistsError(f"{error}; {_ADVICE}") from None


def read_photo_keys(folder: Path) -> dict[str, str]:
    """Read for which photos the codes in a folder were made: a key of each photo's pixels by the file of its code.

    Empty if the folder does not exist, or does not say so, such as a folder of published codes.
    """
    try:
        photos = utils.parse_json((folder / _RECORD).read_bytes())["photos"]
        return {str(name): str(key) for name, key in photos.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _made_for_others(folder: Path, paths: Sequence[Path], keys: Sequence[str]) -> str:
    """Say which files hold codes of other photos than those with these keys; empty if none does."""
    made_for = read_photo_keys(folder)
    files = [path.relative_to(folder).as_posix() for path in paths]
    others = [file for file, key in zip(files, keys, strict=True) if made_for.get(file, key) != key]
    if not others:
        return ""
    return f"{folder}: holds codes of {len(others)} other photos with the same names (first: {others[0]})"


def read_kept_codes(path: Path, dataset: str | None, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Read the codes of a network's training photos from the file next to it.

    Parameters
    ----------
    path : Path
        ``NAME-codes.npz``. It holds ``names`` and ``codes``, and ``keys``, a key of each photo's pixels. Without keys,
        the names are those of a built-in data set.
    dataset : str or None
        The name of the network's data set.
    shape : (int, int)
        num_layers and w_dim.

    Returns
    -------
    dict of str to ndarray of float32, shape (num_layers, w_dim)
        By the key of the photo's pixels. Empty if the file does not exist, or its photos are unknown.

    Raises
    ------
    ValueError
        If the file is damaged or does not fit the network.
    """
    if not path.is_file():
        return {}
    arrays = utils.load_arrays(path)
    names, codes = arrays.get("names"), arrays.get("codes")
    wanted = (0 if names is None else len(names), *shape)
    if names is None or codes is None or codes.shape != wanted or not np.isfinite(codes).all():
        raise ValueError(f"{path}: must hold names and finite codes of shape (n, {wanted[1]}, {wanted[2]})")
    keys = arrays.get("keys")
    if keys is None and dataset in datasets.DATASETS:  # the bundled file
        known = datasets.built_in(dataset)
        key_of = dict(zip(known.names.tolist(), known.image_keys, strict=True))
        keys = [key_of.get(str(name)) for name in names]
    return dict(zip(map(str, () if keys is None else keys), codes.astype(np.float32), strict=False))


def _code_paths(names: Sequence[str], folder: str | Path) -> list[Path]:
    """The file of each photo's code: the photo's name within the folder, ending in ``.npy``.

    Raises
    ------
    ValueError
        If two photos would share a file (also if names differ only in case), or a name points outside the folder.
    """
    paths, seen = [], {}
    for name in names:
        relative = PurePosixPath(str(name))
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise ValueError(f"the name of photo {name!r} points outside the folder of codes")
        path = relative.with_suffix(".npy")
        key = str(path).casefold()
        if key in seen:
            raise ValueError(f"photos {seen[key]} and {name} would share the file {path}; rename one of them")
        seen[key] = name
        paths.append(Path(folder) / path)
    return paths


def read_codes(
    folder: str | Path, names: Sequence[str], network: StyleNetwork, keys: Sequence[str] | None = None
) -> np.ndarray:
    """Read the W+ codes of photos.

    Parameters
    ----------
    folder : str or Path
        For the photo ``s1/1.pgm`` it holds ``s1/1.npy``, or ``1.npy`` if no other photo's name is ``1``; also
        ``1_01.npy``, the name of the published codes of aligned photos.
    names : sequence of n str
        Names of the photos, as in ``faces.names``.
    network : StyleNetwork
    keys : sequence of n str, optional
        A key of each photo's pixels, ``faces.image_keys``, to compare with those of the photos that the codes were made
        for. The published codes do not say for which photos they were made; then the names are trusted.

    Returns
    -------
    ndarray of float32, shape (n, num_layers, w_dim)

    Raises
    ------
    FileNotFoundError
        If the folder or the code of a photo is missing.
    ValueError
        If a file is damaged, does not hold finite real numbers, does not match the network, or was made for another
        photo.
    """
    folder, names = Path(folder), [str(name) for name in names]
    advice = f"make them with: python -m stylegan project PHOTOS {folder}"
    if folder.is_file():
        raise ValueError(
            f"{folder}: is a file; give the folder that holds the codes, one .npy file per photo"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of codes; {advice}")
    if not names:
        raise ValueError("names must contain at least one photo, got none")
    stems = [PurePosixPath(name).stem for name in names]
    paths, missing = [], []
    for path, stem in zip(_code_paths(names, folder), stems, strict=True):
        folders = [path.parent, folder] if stems.count(stem) == 1 else [path.parent]
        places = [place / f"{stem}{ending}.npy" for place in folders for ending in ("", "_01")]
        found = [place for place in places if place.is_file()]
        paths += found[:1]
        if not found:
            missing.append(path)
    if missing:
        raise FileNotFoundError(
            f"{folder}: no codes for {len(missing)} of {len(names)} photos (first: {missing[0].name}); {advice}"
        )
    others = "" if keys is None else _made_for_others(folder, paths, keys)
    if others:
        raise ValueError(f"{others}; {advice}")
    return np.stack([_read_code(path, network) for path in paths])


def _read_code(path: Path, network: StyleNetwork) -> np.ndarray:
    """Read one code: float32 (num_layers, w_dim)."""
    code, wanted = utils.load_array(path), (network.num_layers, network.w_dim)
    if code.shape not in (wanted, (1, *wanted)):
        raise ValueError(f"{path}: must have shape {wanted} to match the network, got {code.shape}")
    if code.dtype.kind not in "iuf":
        raise ValueError(f"{path}: must hold real numbers, got {code.dtype}")
    with np.errstate(over="ignore"):
        code = code.reshape(wanted).astype(np.float32)
    if not np.isfinite(code).all():
        raise ValueError(f"{path}: holds NaN or infinite values; make the code again")
    return code


# ----------------------------------------------------------------------------------------------------------
# Command line
# ----------------------------------------------------------------------------------------------------------


def _load_photos(source: str) -> Faces:
    """Load photos with `datasets.load_faces`, or a folder of loose photos of unknown people."""
    try:
        return datasets.load_faces(source)
    except ValueError:
        folder = Path(source)
        loose = sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not loose:
            raise
    people, names = [path.stem for path in loose], [path.name for path in loose]
    return Faces.of(ImageFiles(loose), people, names, source=folder.resolve().name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m stylegan project``."""
    parser.add_argument("photos", help="'orl' or a folder of photos")
    parser.add_argument(
        "out", nargs="?", help="folder for the codes; default: datasets/stylegan_data/latent_vectors/NAME"
    )
    parser.add_argument(
        "--network", help="a .npz or official .pkl; default: the bundled network for these photos"
    )
    parser.add_argument(
        "--encoder", help="file of an encoder whose codes to start from; default: NETWORK-encoder.npz"
    )
    parser.add_argument("--no-encoder", action="store_true", help="start from the network's average face")
    parser.add_argument(
        "--batch", type=int, help="photos per batch; default: depends on the network's resolution"
    )
    for name, (option, text) in _OPTIONS.items():
        default = getattr(ProjectionSettings(), name)
        text = f"{text}; default: {default}"
        parser.add_argument(option, dest=name, type=type(default), default=default, help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace existing codes")
    parser.add_argument("--trace", help="write the progress of the search to this .csv file")


def run(chosen: argparse.Namespace) -> None:
    """Find the W+ code of each photo and write it to OUT as NAME.npy; repeat the command to resume after a stop."""
    from stylegan import bundled_for, load_network

    if chosen.trace and not (chosen.trace.endswith(".csv") and Path(chosen.trace).parent.is_dir()):
        raise ValueError(f"--trace must be a .csv file in an existing folder, got {chosen.trace}")
    if chosen.encoder and chosen.no_encoder:
        raise ValueError("give --encoder or --no-encoder, not both")
    faces = _load_photos(chosen.photos)
    weights = Path(chosen.network or bundled_for(faces))
    network, encoder = load_network(weights), None
    beside = weights.with_name(f"{weights.stem}-encoder.npz")
    if chosen.encoder or (beside.is_file() and not chosen.no_encoder):
        encoder = load_encoder(chosen.encoder or beside)
    report = _project_to_folder(
        network,
        faces,
        chosen.out,
        encoder=encoder,
        overwrite=chosen.overwrite,
        batch=chosen.batch,
        **{name: getattr(chosen, name) for name in _OPTIONS},
    )
    if chosen.trace:
        _write_text(Path(chosen.trace), report.trace.to_csv(index=False))
    print(_summary(report))


def _summary(report: _ProjectionReport) -> str:
    lines = [f"{len(report.written)} codes written, {len(report.kept)} already present"]
    if len(report.trace):
        last = report.trace.groupby("photo").tail(1)
        lines.append(f"mean pixel difference: {127.5 * last['pixels'].mean():.1f} of 255")
        if last["descriptors"].notna().any():
            lines.append(f"mean descriptor distance: {last['descriptors'].mean():.3f}")
    if report.missed:
        lines.append("no face was found, so no code was written, for\n  " + "\n  ".join(report.missed))
    return "\n".join(lines)
