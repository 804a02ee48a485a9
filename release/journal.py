"""The outcome of each photo: a private file that lets an interrupted run resume."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import utils

#: Status of a photo; failed if the search for faces failed.
WRITTEN, SUPPRESSED, DAMAGED, FAILED = "written", "suppressed", "damaged", "failed"

#: Outcome of a face; in shared mode, faces without a surrogate are `SUPPRESSED`.
REPLACED, FILTERED, BLURRED, KEPT = "replaced", "filtered", "blurred out", "kept"


class Journal:
    """A file with one JSON object per line: first the run's key, then one record per finished photo.

    Attributes
    ----------
    done : dict of str to dict
        Records of photos by their path in PHOTOS: ``source status reason faces``, and ``sha256`` if written.
    """

    def __init__(self, path: Path, key: str):
        self.path = path
        known = read_journal(path)
        self.done = {record["source"]: record for record in known[1:] if "source" in record}
        if not known:
            head = json.dumps({"key": key}) + "\n"
            utils.save_atomic(path, lambda file: file.write(head.encode()))

    def _write(self, record: dict) -> None:
        torn = self.path.stat().st_size > 0 and self.path.read_bytes()[-1:] != b"\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def add(self, record: dict) -> None:
        """Record the outcome of one photo."""
        self._write(record)
        self.done[record["source"]] = record

    @property
    def n_failed(self) -> int:
        """Number of photos that an error kept back."""
        return sum(record["status"] == FAILED for record in self.done.values())

    def finished(self, source: str, path: Path) -> bool:
        """Return whether a photo was written and its file is unchanged."""
        record = self.done.get(source, {})
        return record.get("status") == WRITTEN and path.is_file() and digest_of(path) == record["sha256"]


def digest_of(path: Path) -> str:
    """SHA-256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_journal(path: Path) -> list[dict]:
    """Read the records of a journal; lines that an interruption cut short are skipped. Empty if it is not a journal."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = utils.parse_json(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records if records and "key" in records[0] else []
