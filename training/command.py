"""Options, files and messages that all training commands share."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import numpy as np

import datasets
from training.loop import TrainingLoop, TrainingSettings


def add_options(parser: argparse.ArgumentParser, kind: type[TrainingSettings], default: str) -> None:
    """Add the common arguments of a training command: photos, files (with a default for ``--out``), settings."""
    parser.add_argument("source", help="'orl' or a folder of photos")
    datasets.add_people_option(parser)
    add_files(parser, default)
    parser.add_argument(
        "--held-out", type=int, default=2, help="photos per person held out from training (2)"
    )
    add_settings(parser, kind)


def add_files(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the options for the files that a training reads and writes."""
    parser.add_argument("--out", type=Path, help=f"file for the weights (default {default})")
    parser.add_argument("--checkpoint", type=Path, help="file to resume from (default NAME.checkpoint.npz)")
    parser.add_argument("--resume", action="store_true", help="stop if there is no checkpoint to resume from")
    parser.add_argument(
        "--sheet-seconds", type=float, default=240.0, help="seconds between two sheets of samples (240)"
    )


def add_settings(
    parser: argparse.ArgumentParser,
    kind: type[TrainingSettings],
    prefix: str = "",
    skip: Collection[str] = (),
) -> None:
    """Add an option ``--PREFIX-NAME`` for each setting of a class, except those to skip."""
    hints = get_type_hints(kind, include_extras=True)
    for setting in fields(kind):
        if setting.name not in skip:
            name = f"--{prefix}{setting.name}".replace("_", "-")
            text = f"{hints[setting.name].__metadata__[-1]} (%(default)s)"
            parser.add_argument(name, type=type(setting.default), default=setting.default, help=text)


def read_settings(
    options: argparse.Namespace, kind: type[TrainingSettings], prefix: str = ""
) -> TrainingSettings:
    """Make settings from the options that `add_settings` added; skipped settings are read without the prefix."""
    values = vars(options) | {name.removeprefix(prefix): value for name, value in vars(options).items()}
    return kind(**{setting.name: values[setting.name] for setting in fields(kind)})


def output_file(options: argparse.Namespace, folder: Path, suffix: str) -> Path:
    """Return the file for the weights, by default ``FOLDER/SOURCE`` with the suffix; see `chosen_file`."""
    return chosen_file(options, folder / f"{Path(options.source).resolve().name}{suffix}")


def chosen_file(options: argparse.Namespace, default: Path) -> Path:
    """Return the file for the weights, and create its folder.

    Raises
    ------
    ValueError
        If the name has another suffix than the default.
    FileExistsError
        If no name is given and the default file exists without a checkpoint to resume its training from.
    """
    out = options.out or default
    if out.suffix != default.suffix:
        raise ValueError(f"{out}: the name of a weights file must end in {default.suffix}")
    if options.out is None and out.exists() and not checkpoint_file(options, out).exists():
        raise FileExistsError(
            f"{out} exists, and no checkpoint of its training; name another file with --out"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def checkpoint_file(options: argparse.Namespace, out: Path) -> Path:
    """The file from which the training of a weights file is resumed."""
    return options.checkpoint or out.with_suffix(".checkpoint.npz")


def run_training(trainer: TrainingLoop, out: Path, options: argparse.Namespace) -> None:
    """Train with the given options, from the checkpoint if there is one, and print a summary."""
    checkpoint = checkpoint_file(options, out)
    if options.resume or checkpoint.exists():
        trainer.load_checkpoint(checkpoint)
        print(f"Resuming from {checkpoint}, after {trainer.seen} of {trainer.total_images} images")
    n_weights = sum(np.prod(weight.shape) for _, weight in trainer.averaged)
    print(f"{trainer.summary()}; {n_weights / 1e6:.1f} million weights")
    trainer.train(out, checkpoint, options.sheet_seconds)
    print(
        f"{out}: {trainer.seen} images in {trainer.seconds:.0f} s; the log and samples are in the same folder"
    )
