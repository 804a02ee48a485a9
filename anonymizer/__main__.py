"""Anonymize a folder of ordinary photos: ``python -m anonymizer PHOTOS OUT --k 5 --method aam``.

The command detects faces, groups them into people, and partitions the people into clusters of at least k. Every face
gets the surrogate of its person's cluster, pasted into the photo (``per_photo``) or alone (``shared``). OUT gets PNG
files with random names and without metadata, and a manifest. A private folder gets the ledger, which identifies people
and which only its owner can read, a report, and a journal of each face. To resume an interrupted run, repeat the
command.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Sequence
from pathlib import Path

import commands
import partitioning
import release
from release.folder import anonymize_folder
from release.options import LARGEST_SIDE, METHODS, FolderOptions
from release.people import SAME_PERSON

_EPILOG = f"""\
examples:
  python -m anonymizer holiday holiday-out                     five people share a face, pasted into the photos
  python -m anonymizer holiday faces-out --mode shared --k 10  only the surrogates, k-anonymous
  python -m anonymizer holiday out --keep photos-of-me         one person stays as she is
  python -m anonymizer film.mp4 out --pool others              one video; photos of others fill the clusters
  python -m anonymizer holiday out --workers -1 -v             all cores, reporting each photo

{commands.EXIT_CODES}"""


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m anonymizer",
        description="Anonymize a folder of photos and videos, with any number of faces, into one that can be shared.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add("source", type=Path, metavar="PHOTOS", help="folder of photos and videos, with sub-folders, or one of them")
    add("out", type=Path, metavar="OUT", help="folder for the result: new, empty, or from an interrupted run")
    add("--k", type=int, default=5, help="at least this many people share a surrogate (5)")
    add("--method", choices=METHODS, default="aam", metavar="NAME", help="anonymizer (aam): %(choices)s")
    add("--option", dest="options", action="append", default=[], metavar="NAME=VALUE",
        help="option of the anonymizer, for example proxy=10; can be repeated")
    add("--mode", choices=release.MODES, default="per_photo",
        help="per_photo pastes into the photos (not k-anonymous); shared writes one surrogate per cluster")
    add("--embedding", default="dlib", metavar="NAME", help="tells people apart (dlib): facenet, onnx:PATH")
    add("--partitioner", choices=partitioning.PARTITIONERS, default="balanced", metavar="NAME",
        help="how people are partitioned into clusters (balanced): %(choices)s")
    add("--people", choices=("faces", "folders"), default="faces",
        help="tell people apart by their faces, or name the largest face of each photo after its sub-folder")
    add("--same-person", type=float, default=SAME_PERSON, metavar="DISTANCE",
        help=f"faces closer than this are one person ({SAME_PERSON}, for dlib)")
    add("--keep", type=Path, metavar="FOLDER",
        help="photos of people who stay as they are, one face on each; doubtful faces are replaced")
    add("--only", type=Path, metavar="FOLDER",
        help="photos of the only people to replace, one face on each; doubtful faces are replaced or blurred out")
    add("--pool", type=Path, metavar="FOLDER",
        help="photos of other people, who fill the clusters; they are mixed into surrogates, and never released")
    add("--audio", choices=("drop", "keep"), default="drop", help="sound of videos (drop: voices identify people)")
    add("--crf", type=int, default=18, metavar="NUMBER",
        help="quality of videos, from 0, lossless, to 51: x264's constant rate factor (18)")
    add("--alike", type=_split, default=(), metavar="TRAITS",
        help="clusters of people who look alike in age, sex, or age,sex, as far as networks can guess")
    add("--quick", dest="thorough", action="store_false",
        help="search each photo once; may miss small or rotated faces")
    add("--keep-faceless", action="store_true", help="keep photos in which no face was found, without metadata")
    add("--ledger", type=Path, metavar="PATH", help="who is who (OUT-private/ledger.json); never inside OUT")
    add("--largest-side", type=int, default=LARGEST_SIDE, metavar="PIXELS",
        help=f"reduce photos to this many pixels on the longer side ({LARGEST_SIDE})")
    add("--seed", type=int, default=0, help="seed of the partition (0); file names are always random")
    add("--workers", type=int, default=1, help="number of processes (1); -1 uses all cores")
    add("-v", "--verbose", action="store_true", help="report each photo when it is done")
    # fmt: on
    return parser


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def read_options(given: argparse.Namespace) -> FolderOptions:
    """Turn a parsed command line into options.

    Raises
    ------
    ValueError
        If a value is out of range.
    """
    return FolderOptions(**{**vars(given), "options": dict(map(_parse_option, given.options))})


def _parse_option(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--option must be NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _run(given: argparse.Namespace) -> bool:
    outcome = anonymize_folder(read_options(given))
    print("\n".join(outcome.sentences))
    return outcome.passed


def main(arguments: Sequence[str] | None = None) -> int:
    """Anonymize a folder of photos from the command line, and return the exit code."""
    return commands.run_command(_make_parser(), arguments, _run)


if __name__ == "__main__":
    sys.exit(main())
