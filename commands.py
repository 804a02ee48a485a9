"""Common behaviour of all commands: one form of error, one set of exit codes."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence

#: Version of AnonFACES; CITATION.cff and CHANGELOG.md name the same.
VERSION = "0.9.0"

_DONE, _CHECK_FAILED, _BAD_REQUEST, _INTERRUPTED = 0, 1, 2, 130

EXIT_CODES = """\
exit status: 0 done; 1 done, but a check failed; 2 bad request or unreadable file, nothing is lost;
130 interrupted, run the same command again to resume."""


def make_parser(module: str, description: str) -> argparse.ArgumentParser:
    """Make the parser of ``python -m MODULE``; its help keeps the lines of the description and lists the exit codes."""
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, epilog=EXIT_CODES, formatter_class=form
    )


def run_command(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None = None,
    run: Callable[[argparse.Namespace], bool | None] | None = None,
) -> int:
    """Parse a command line, run the command, and return the exit code.

    Parameters
    ----------
    parser : ArgumentParser
    arguments : sequence of str, optional
        ``sys.argv`` by default.
    run : callable, optional
        Gets the parsed options and returns False if a check of the result failed. By default ``options.run``, as a
        sub-command sets it.

    Returns
    -------
    int
        0 done; 1 done, but a check failed; 2 bad request; 130 interrupted. Errors go to standard error as
        ``PROG: error: MESSAGE``, the form of argparse. Only their owner can read the files that the command writes, if
        it does not decide otherwise.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for file names that are no text
    parser.add_argument("--version", action="version", version=f"AnonFACES {VERSION}")
    options = parser.parse_args(arguments)
    try:
        with _private_files():
            passed = (run or options.run)(options)
    except (ValueError, TypeError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return _BAD_REQUEST
    except KeyboardInterrupt:
        print("Interrupted. Finished work is saved; run the same command again to resume.", file=sys.stderr)
        return _INTERRUPTED
    return _CHECK_FAILED if passed is False else _DONE


@contextlib.contextmanager
def _private_files() -> Iterator[None]:
    """Make new files and folders readable by their owner alone: many show photos or what is derived from them."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
