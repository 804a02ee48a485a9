# ruff: noqa: N999  (the package is called CNN)
"""Train the network, or draw with it: ``python -m CNN train SOURCE``, ``python -m CNN generate WEIGHTS PARAMETERS``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def _train(options: argparse.Namespace) -> None:
    import datasets  # after the arguments are checked, as these imports take seconds
    from CNN import photos, training

    out = Path(options.out)
    if out.suffix != ".keras":
        raise ValueError(f"{out}: the file of weights must end in .keras")
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = training.Settings(
        images=options.images,
        batch=options.batch,
        nuisance=options.nuisance,
        learning_rate=options.learning_rate,
        mirror=options.mirror,
        precision=options.precision,
        patience=options.patience,
        seed=options.seed,
    )
    faces = datasets.load_faces(options.source)
    aligned = photos.prepare(faces, options.held_out, options.attributes, options.size, options.seed)
    trainer = training.Trainer(aligned, settings, options.capacity)
    checkpoint = Path(options.checkpoint or out.with_suffix(".checkpoint.npz"))
    if options.resume:
        trainer.load_checkpoint(checkpoint)
    n_weights = trainer.network.count_params()
    print(
        f"{(~aligned.held_out).sum()} photos of {len(aligned.identities)} people, {aligned.held_out.sum()} held out; "
        f"{trainer.architecture.height}x{trainer.architecture.width} pictures, {n_weights / 1e6:.1f} M weights"
    )
    trainer.train(out, checkpoint, options.sheet_seconds)
    print(f"{out}: {trainer.seen} images in {trainer.seconds:.0f} s; log and sheet of samples lie beside it")


def _generate(options: argparse.Namespace) -> None:
    import CNN
    from CNN import generation

    model = CNN.load_model(options.weights, options.identities)
    parameters = generation.load_parameters(options.parameters)
    frames = generation.draw(model, parameters, random_state=options.seed)
    written = generation.save_frames(frames, options.out, parameters["fps"])
    print(f"{len(frames)} pictures: {written}")


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(prog="python -m CNN", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="train | generate")

    train = commands.add_parser("train", help="train a network on photos")
    train.set_defaults(run=_train)
    train.add_argument("source", help="'orl' or a folder of photos")
    train.add_argument("--out", required=True, help="file of weights, CNN/output/NAME.keras")
    train.add_argument("--images", type=int, default=100_000, help="stop after so many images")
    train.add_argument("--held-out", type=int, default=2, help="photos of each person kept out of training")
    train.add_argument(
        "--attributes", action="store_true", help="use RaFD's expression and pose, no nuisance codes"
    )
    train.add_argument("--size", type=_size, help="height x width of the pictures, such as 320x256")
    train.add_argument("--capacity", type=float, default=1.0, help="factor for the number of channels")
    train.add_argument("--nuisance", type=int, default=16, help="length of the nuisance codes")
    train.add_argument("--batch", type=int, default=16)
    train.add_argument("--learning-rate", type=float, default=1e-3)
    train.add_argument("--mirror", type=float, default=0.2, help="share of images shown mirrored")
    train.add_argument("--precision", default="float32", choices=["float32", "mixed_bfloat16"])
    train.add_argument("--patience", type=int, default=0, help="stop after so many evaluations without gain")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--checkpoint", help="default: beside the weights, NAME.checkpoint.npz")
    train.add_argument("--resume", action="store_true", help="continue from the checkpoint")
    train.add_argument(
        "--sheet-seconds", type=float, default=180.0, help="time between two sheets of samples"
    )

    generate = commands.add_parser("generate", help="draw faces as a YAML file says")
    generate.set_defaults(run=_generate)
    generate.add_argument("weights", help="a .keras file or a released .h5 file")
    generate.add_argument("parameters", help="YAML file with mode: single, random, drunk or interpolate")
    generate.add_argument("--out", required=True, help="a folder for PNG files, or a .gif or .mp4 file")
    generate.add_argument("--identities", nargs="+", help="whom the identity code stands for")
    generate.add_argument("--seed", type=int, default=0)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, or 2 where the input was wrong."""
    options = parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, TypeError, OSError) as error:
        print(f"python -m CNN: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
