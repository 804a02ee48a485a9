"""Read a ledger: who is behind each file, and what became of each face on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import utils
from datasets import Faces
from release.files import read_file


@dataclass(frozen=True)
class Ledger:
    """What a ledger says about the files of a release.

    Attributes
    ----------
    people : dict of str to set of str
        The people behind each file.
    faces : dict of str to list of dict, or None
        The faces on each file, each with ``box`` (left, top, right, bottom in pixels of the image), ``outcome`` and,
        in a video, ``frame``.
        None if the ledger does not record them.
    """

    people: dict[str, set[str]]
    faces: dict[str, list[dict]] | None

    def outcome_boxes(self, name: str, outcome: str) -> list[list[float]]:
        """Boxes of the faces with an outcome on a file."""
        return [face["box"] for face in (self.faces or {}).get(name, []) if face["outcome"] == outcome]


def read_ledger(path: str | Path, originals: Faces | None = None) -> Ledger:
    """Read a ledger, with the originals' names of people where possible.

    The folder command does not know people's names: its ledgers number people or photos.

    Raises
    ------
    ValueError
        If the file is not a ledger, or names none of the originals' people.
    """
    known: dict[str, str] = {}
    for faces in () if originals is None else (originals, originals.others):
        if faces is not None:
            known.update(zip(map(str, faces.names), map(str, faces.identities), strict=True))
    people: dict[str, set[str]] = {}
    shown: dict[str, list[dict] | None] = {}
    try:
        for photo in utils.parse_json(read_file(Path(path)))["photos"]:
            if photo["file"] is None:
                continue
            name = photo["photo"]
            name = name if name in known else name.rpartition("#")[0]  # one of several faces in a photo
            people.setdefault(photo["file"], set()).add(known.get(name, photo["identity"]))
            shown[photo["file"]] = _checked_faces(photo.get("faces"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a ledger of write_release ({type(error).__name__})") from error
    if people and known and not set().union(*people.values()) & set(known.values()):
        raise ValueError(f"{path}: names none of the originals' people; pass the photos it was written for")
    return Ledger(people, None if None in shown.values() else shown)


def _checked_faces(faces: Sequence[dict] | None) -> list[dict] | None:
    if faces is None:
        return None
    return [
        {
            "box": _checked_box(face["box"]),
            "outcome": str(face["outcome"]),
            "frame": int(face.get("frame", 0)),
        }
        for face in faces
    ]


def _checked_box(box: Sequence[float]) -> list[float]:
    left, top, right, bottom = map(float, box)
    if not (left < right and top < bottom):  # also for NaN
        raise ValueError("a box must be left, top, right, bottom")
    return [left, top, right, bottom]
