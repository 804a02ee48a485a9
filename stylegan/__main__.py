"""StyleGAN from the command line: ``python -m stylegan project | generate | convert | train | refine``."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

#: Each command and the module behind it.
COMMANDS = {
    "project": ("stylegan.projection", "find the W+ codes of photos"),
    "generate": ("stylegan.mixing", "draw random people"),
    "convert": ("stylegan.official", "rewrite an official pickle as a safe .npz"),
    "train": ("stylegan.training", "train a small network and its encoder on photos"),
    "refine": ("stylegan.autodecoding", "go on with a free code for each photo: sharper pictures"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; what it takes is in its module."""
    parser = argparse.ArgumentParser(prog="python -m stylegan", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        part = importlib.import_module(module)
        command = commands.add_parser(name, help=text, description=part.run.__doc__)
        part.add_arguments(command)
        command.set_defaults(run=part.run)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except (ValueError, TypeError, FileNotFoundError, FileExistsError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; what was finished is kept, run the same command again to go on")


if __name__ == "__main__":
    main()
