"""Audit a release folder: ``python -m release audit FOLDER``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import commands
import datasets
from release import audit_release


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit a release from the command line, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m release", description="Audit a release folder.", epilog=commands.EXIT_CODES
    )
    subparsers = parser.add_subparsers(dest="command", required=True)
    audit = subparsers.add_parser("audit", help="check a release from its files", epilog=commands.EXIT_CODES)
    audit.add_argument("folder", type=Path)
    audit.add_argument("--originals", metavar="SOURCE", help="orl, or the folder of the original photos")
    datasets.add_people_option(audit)
    audit.add_argument("--ledger", type=Path, help="the ledger, to check the faces and measure the attack")
    audit.add_argument("--json", action="store_true", help="print JSON")
    return commands.run_command(parser, arguments, _audit)


def _audit(options: argparse.Namespace) -> bool:
    originals = datasets.load_faces(options.originals, people=options.people) if options.originals else None
    report = audit_release(options.folder, originals, options.ledger)
    print(report.to_json() if options.json else report)
    return report.passed


if __name__ == "__main__":
    sys.exit(main())
