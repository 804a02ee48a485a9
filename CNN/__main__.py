# ruff: noqa: N999  (the package is called CNN)
"""Train the network, or draw faces with it: ``python -m CNN train SOURCE``, ``python -m CNN generate WEIGHTS``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

import commands

# Each command imports what it needs, because TensorFlow takes seconds to import.


def _add_train(parser: argparse.ArgumentParser) -> None:
    from CNN.training import UpConvolutionSettings
    from training.command import add_options

    add_options(parser, UpConvolutionSettings, "CNN/output/SOURCE.keras")
    parser.add_argument(
        "--attributes", action="store_true", help="use RaFD's expression and pose, no nuisance codes"
    )
    parser.add_argument("--size", type=_size, help="height x width of the images, such as 320x256")
    parser.add_argument(
        "--capacity", type=float, default=1.0, help="multiplier of the number of channels (1)"
    )
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    """Train a network on photos; Ctrl-C stops it, the same command continues."""
    import CNN
    import datasets
    from CNN.fitting import conditions_of
    from CNN.training import UpConvolutionSettings, UpConvolutionTrainer
    from training.command import output_file, read_settings, run_training
    from training.training_set import prepare

    settings = read_settings(options, UpConvolutionSettings)
    out = output_file(options, CNN.BUNDLED.parent, ".keras")
    faces = datasets.load_faces(options.source, people=options.people)
    conditions = conditions_of(faces) if options.attributes else {}
    photos = replace(prepare(faces, options.held_out, options.size, settings.seed), conditions=conditions)
    run_training(UpConvolutionTrainer(photos, settings, options.capacity), out, options)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    parser = commands.make_parser("CNN", __doc__)
    subparsers = parser.add_subparsers(required=True, metavar="train | generate")

    train = subparsers.add_parser("train", help="train a network on photos", description=_train.__doc__)
    generate = subparsers.add_parser(
        "generate", help="draw faces: one, random ones, a walk, or from one to another"
    )
    given = list(sys.argv[1:] if arguments is None else arguments)[:1]
    if given == ["train"]:
        _add_train(train)
    elif given == ["generate"]:
        from CNN import generation

        generation.add_arguments(generate)
        generate.set_defaults(run=generation.run)
    return commands.run_command(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
