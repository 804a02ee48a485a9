"""StyleGAN from the command line: ``python -m stylegan project | generate | convert | train | refine``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

import commands
from checks import ParameterError

# Each command imports what it needs, because TensorFlow takes seconds to import.

_DEFAULT = "stylegan/cache/SOURCE.npz"

_Command = tuple[Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], None]]


def _add_train(parser: argparse.ArgumentParser) -> None:
    from stylegan.mixtures import MixtureSettings
    from stylegan.refining import AutoDecoderSettings
    from stylegan.training import CHANNELS, W_DIM, AutoencoderSettings
    from training.command import add_options, add_settings

    add_options(parser, AutoencoderSettings, _DEFAULT)
    parser.add_argument("--resolution", type=int, default=128, help="side of the images (%(default)s)")
    parser.add_argument(
        "--channels", type=int, nargs="+", default=CHANNELS, help="feature maps at 4, 8, ... pixels"
    )
    parser.add_argument("--w-dim", type=int, default=W_DIM, help="length of w (%(default)s)")
    parser.add_argument("--refine", action="store_true", help="then refine it, as the command refine does")
    add_settings(parser, AutoDecoderSettings, "refine_", skip=("precision", "seed"))
    text = "train on mixed faces of at least three people instead, in colour; for other people than those in the photos"
    parser.add_argument("--mixtures", action="store_true", dest="only_mixtures", help=text)
    add_settings(parser, MixtureSettings, "mixtures_", skip=("precision", "seed"))
    text = "network of mixed faces to start from, NAME.npz, with its encoder in the same folder"
    parser.add_argument("--mixtures-start", type=Path, help=text)


def _train(options: argparse.Namespace) -> None:
    """Train a network and its encoder on photos, and refine it with --refine; Ctrl-C stops it, --resume continues."""
    import datasets
    import stylegan
    from stylegan.augmentation import prepare_squares
    from stylegan.mixtures import MixtureSettings
    from stylegan.refining import AutoDecoderSettings
    from stylegan.training import AutoencoderSettings, AutoencoderTrainer
    from training.command import output_file, read_settings, run_training

    if options.only_mixtures and options.refine:
        raise ParameterError("--refine is for photos of the people to be drawn; omit it, or omit --mixtures")
    settings = read_settings(options, AutoencoderSettings)
    refining = read_settings(options, AutoDecoderSettings, "refine_")
    mixing = read_settings(options, MixtureSettings, "mixtures_")
    out = output_file(options, stylegan.BUNDLED.parent, ".npz")
    first = out.with_name(f"{out.stem}-unrefined.npz") if options.refine else out
    faces = datasets.load_faces(options.source, people=options.people)
    if options.only_mixtures:
        _train_on_mixtures(faces, mixing, out, options)
        return
    photos = prepare_squares(faces, options.resolution, options.held_out, settings.seed)
    trainer = AutoencoderTrainer(photos, settings, tuple(options.channels), options.w_dim)
    run_training(trainer, first, options)
    if options.refine:
        options.checkpoint = out.with_suffix(".checkpoint.npz")
        options.resume &= options.checkpoint.is_file()
        _refine_network(faces, refining, first, out, options)


def _train_on_mixtures(faces, settings, out: Path, options: argparse.Namespace) -> None:
    import anonymizer
    from stylegan.encoder import encoder_path, load_encoder
    from stylegan.mixtures import MixtureTrainer, draw_mixtures, people_apart
    from stylegan.network import load_npz
    from training.command import run_training

    path = options.mixtures_start
    start = None if path is None else (load_npz(path), load_encoder(encoder_path(path)))
    apart = people_apart(faces, settings.people_apart, settings.seed)
    teacher = anonymizer.load("aam", faces.select(~np.isin(faces.identities, apart)))
    photos = draw_mixtures(teacher, settings.faces, options.resolution, settings.seed)
    trainer = MixtureTrainer(photos, teacher, settings, tuple(options.channels), options.w_dim, start)
    run_training(trainer, out, options)


def _add_refine(parser: argparse.ArgumentParser) -> None:
    from stylegan.refining import AutoDecoderSettings
    from training.command import add_options

    add_options(parser, AutoDecoderSettings, _DEFAULT)
    parser.add_argument(
        "start", type=Path, help="network to start from, NAME.npz, with its encoder in the same folder"
    )


def _refine(options: argparse.Namespace) -> None:
    """Refine a network with a free code per photo; Ctrl-C stops it, --resume continues."""
    import datasets
    import stylegan
    from stylegan.refining import AutoDecoderSettings
    from training.command import output_file, read_settings

    settings = read_settings(options, AutoDecoderSettings)
    out = output_file(options, stylegan.BUNDLED.parent, ".npz")
    _refine_network(
        datasets.load_faces(options.source, people=options.people), settings, options.start, out, options
    )


def _refine_network(faces, settings, start: Path, out: Path, options: argparse.Namespace) -> None:
    import anonymizer
    from stylegan.architecture import Synthesis
    from stylegan.augmentation import mix_people, prepare_squares
    from stylegan.encoder import encoder_path, load_encoder
    from stylegan.network import load_npz
    from stylegan.refining import AutoDecoder, finish, starting_codes
    from training.command import run_training

    network, encoder = load_npz(start), load_encoder(encoder_path(start))
    photos = prepare_squares(faces, network.resolution, options.held_out, settings.seed)
    teacher = anonymizer.load("aam", faces.select(~photos.held_out))
    mixtures = mix_people(photos, teacher, settings.mixtures, random_state=settings.seed)
    synthesis = Synthesis(network.architecture, network.synthesis_layer.arrays(), dtype=settings.precision)
    codes = starting_codes(photos, encoder, start)
    trainer = AutoDecoder(photos, mixtures, synthesis, codes, settings)
    run_training(trainer, out, options)
    finish(trainer, encoder, out)


def _of_module(name: str) -> _Command:
    module = importlib.import_module(f"stylegan.{name}")
    return module.add_arguments, module.run


# Each command: what returns the function that adds its arguments and the one that runs it; and its help.
_COMMANDS: dict[str, tuple[Callable[[], _Command], str]] = {
    "project": (partial(_of_module, "code_folder"), "find the W+ codes of photos"),
    "generate": (partial(_of_module, "mixing"), "draw random people"),
    "convert": (partial(_of_module, "official"), "rewrite an official pickle as a safe .npz"),
    "encoder": (partial(_of_module, "self_training"), "train an encoder of any network, without photos"),
    "train": (lambda: (_add_train, _train), "train a small network and its encoder on photos"),
    "refine": (
        lambda: (_add_refine, _refine), "refine a network with a free code per photo, for sharper images"
    ),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    parser = commands.make_parser("stylegan", __doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name, (load, text) in _COMMANDS.items():
        command = subparsers.add_parser(name, help=text)
        if given[:1] == [name]:
            add_arguments, run = load()
            command.description = run.__doc__
            add_arguments(command)
            command.set_defaults(run=run)
    return commands.run_command(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
