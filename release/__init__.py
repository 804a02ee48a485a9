"""Anonymize ordinary photos, write them as a release, and audit the release.

A release is a folder of PNG files with random names and a ``manifest.json``. In ``"shared"`` mode there is one file per
person, and people who share a surrogate get identical files. Anyone can count them: every image occurs at least k
times, which is k-anonymity. In ``"per_photo"`` mode there is one file per photo, without k-anonymity.

=============  ================================================================================================
layout.py      the format of a release folder: manifest, names, times
png.py         PNG files with pixels only: encoding and strict decoding
writing.py     `write_release`: writes the folder, and the ledger outside it
auditing.py    `audit_release`; **the lists of all checks**
files.py       the checks that need only the files
guessing.py    names that anyone can compute
visible.py     the checks against the ledger
ledger.py      reads a ledger
earlier.py     earlier releases of the same people: a warning, and their partition
originals.py   the checks against the original photos
structure.py   whether an image shows a photo, by its local structure
recognition.py whether a recogniser recognises anyone in an image
folder.py      ``python -m anonymizer PHOTOS OUT``, the whole run
options.py     its options and their checks
gathering.py   reads photos and finds their faces
searching.py   finds faces, and fails closed where the detector does
people.py      groups faces into people
references.py  finds the people to keep, or to replace alone
alike.py       partitions within groups of people who look alike
planning.py    partitions people and makes surrogates
replacing.py   replaces faces in their photos, or blurs them out
gate.py        the last gate: whether a face can still be seen on its image
journal.py     records the outcome of each photo, to resume after an interruption
pasting.py     pastes a surrogate into a photo
pose.py        estimates and transfers head pose
leaks.py       attacks the result to measure what it still gives away
summary.py     reports in sentences what happened
review.py      what to look at first, and faces outlined by what became of them
report.py      the private HTML report; its page is report.html
=============  ================================================================================================

``python -m release audit FOLDER`` audits a release.
"""

from release.auditing import AuditReport, audit_release
from release.earlier import earlier_partition
from release.layout import MANIFEST, MODES
from release.png import decode_png, encode_png
from release.writing import write_release

__all__ = [
    "MANIFEST", "MODES", "AuditReport", "audit_release", "decode_png", "earlier_partition", "encode_png",
    "write_release",
]  # fmt: skip
