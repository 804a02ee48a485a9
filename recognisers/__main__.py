"""Fetch the optional recogniser: ``python -m recognisers fetch``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import recognisers
from commands import EXIT_CODES, run_command
from recognisers.faceres import PACKAGE


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch faceres, the optional recogniser."""
    parser = argparse.ArgumentParser(
        prog="python -m recognisers", description=main.__doc__, epilog=EXIT_CODES
    )
    parser.add_argument("command", choices=["fetch"])
    return run_command(parser, arguments, lambda options: print(f"{PACKAGE}: saved to {recognisers.fetch()}"))


if __name__ == "__main__":
    sys.exit(main())
