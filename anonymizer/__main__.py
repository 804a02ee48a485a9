"""Anonymize a folder of ordinary photos: `python -m anonymizer PHOTOS OUT --k 5 --method aam`.

Faces are found, grouped into people, and the people partitioned into clusters of at least k; every face gets the
surrogate of its person's cluster, pasted back into the photo (``per_photo``) or by itself (``shared``). OUT gets PNG
files with random names and no metadata, and a manifest. Who is who goes to a ledger elsewhere, which its owner alone
can read; a report and what became of each face lie beside it. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Sequence
from pathlib import Path

import partitioning
import release
from release import gathering
from release.folder import LARGEST_SIDE, METHODS, Settings, anonymize_folder, check

EXIT_STATUS = """\
exit status: 0 a release was made and passed its audit; 1 nothing could be released, or the audit failed;
2 the request or a file does not fit, nothing was lost; 130 interrupted, the same command goes on."""

EXAMPLES = """\
examples:
  python -m anonymizer holiday holiday-out                     five people share a face, pasted back
  python -m anonymizer holiday faces-out --mode shared --k 10  the shared faces alone, k-anonymous
  python -m anonymizer holiday out --workers -1 -v             all cores, naming each photo
"""


def parse(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m anonymizer",
        description="Anonymize a folder of photos, several faces each, into a folder that can be shown to others.",
        epilog=EXAMPLES + EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("photos", type=Path, metavar="PHOTOS", help="folder of photos; sub-folders are read, too")
    add("out", type=Path, metavar="OUT", help="folder for the result: new, empty, or an interrupted run's")
    add("--k", type=int, default=5, help="how many people at least share a surrogate (5)")
    add("--method", choices=METHODS, default="aam", help="anonymizer (aam); %(choices)s", metavar="NAME")
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the anonymizer, such as proxy=10; may be repeated",
    )
    add(
        "--mode",
        choices=release.MODES,
        default="per_photo",
        help="per_photo pastes back into the photos (no k-anonymity claimed); shared writes one surrogate a cluster",
    )
    add(
        "--embedding",
        default="dlib",
        metavar="NAME",
        help="what people are told apart by (dlib); facenet, onnx:PATH",
    )
    add(
        "--partitioner",
        choices=partitioning.PARTITIONERS,
        default="balanced",
        metavar="NAME",
        help="how people are put into clusters (balanced); %(choices)s",
    )
    add(
        "--people",
        choices=("faces", "folders"),
        default="faces",
        help="tell people by their faces, or take each sub-folder's name for the largest face of its photos",
    )
    add(
        "--same-person",
        type=float,
        default=gathering.SAME_PERSON,
        metavar="DISTANCE",
        help=f"faces nearer than this count as one person ({gathering.SAME_PERSON}, for dlib)",
    )
    add("--quick", action="store_true", help="look for faces with one detector; misses faces from the side")
    add("--keep-faceless", action="store_true", help="keep photos without a face, without metadata")
    add("--ledger", type=Path, metavar="PATH", help="who is who (OUT-private/ledger.json); never inside OUT")
    add(
        "--largest-side",
        type=int,
        default=LARGEST_SIDE,
        metavar="PIXELS",
        help=f"photos are reduced to so many pixels on the longer side ({LARGEST_SIDE})",
    )
    add("--show-originals", action="store_true", help="show the original photos in the report")
    add(
        "--seed",
        type=int,
        default=0,
        help="of the partition's random choices (0); file names are random anyway",
    )
    add("--workers", type=int, default=1, help="processes (1); -1 takes all cores")
    add("-v", "--verbose", action="store_true", help="name each photo as it is done")
    given = parser.parse_args(arguments)
    out = given.out.absolute()
    ledger = given.ledger or out.with_name(out.name + "-private") / "ledger.json"
    settings = Settings(
        source=given.photos,
        out=given.out,
        ledger=ledger,
        k=given.k,
        method=given.method,
        options=dict(map(_parse_option, given.option)),
        mode=given.mode,
        embedding=given.embedding,
        partitioner=given.partitioner,
        people=given.people,
        same_person=given.same_person,
        thorough=not given.quick,
        keep_faceless=given.keep_faceless,
        largest_side=given.largest_side,
        seed=given.seed,
        workers=given.workers,
        show_originals=given.show_originals,
        verbose=given.verbose,
    )
    check(settings)
    return settings


def _parse_option(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"an option is written NAME=VALUE, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Anonymize a folder of photos from the command line, and return the exit status; see `EXIT_STATUS`."""
    try:
        outcome = anonymize_folder(parse(arguments))
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; finished photos are kept, run the same command again to go on", file=sys.stderr)
        return 130
    print("\n".join(outcome.sentences))
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main())
