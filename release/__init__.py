"""The application: ordinary photos are anonymized, written as a release, and audited.

A release is a folder of PNG files under random names and a ``manifest.json``. In ``"shared"`` mode there is one file
per person, and the files of people who share a surrogate are equal byte for byte, so that anyone can count them: every
content occurs at least k times, which is k-anonymity. In ``"per_photo"`` mode there is one file per photo, without
k-anonymity.

=============  ================================================================================================
layout.py      the format of a release folder: manifest, names, times
png.py         PNG files with pixels only: encoding and strict decoding
writing.py     `write_release`: the folder, and the ledger apart from it
auditing.py    `audit_release`; **the lists of all checks**
files.py       the checks that need only the files
originals.py   the checks against the original photos
copies.py      whether an image is a changed copy of a photo
folder.py      ``python -m anonymizer PHOTOS OUT``, the whole run
options.py     its options, and what is refused
gathering.py   photos are read and their faces found
people.py      faces are grouped into people
planning.py    people are partitioned, and surrogates made
replacing.py   faces are replaced in their photos, or blurred out
journal.py     what became of each photo, to resume after an interruption
pasting.py     one surrogate -> its place in a photo
pose.py        how a head is turned
leaks.py       attacks on the result: what it still gives away
summary.py     what happened, in sentences
report.py      the private HTML report; its page is report.html
=============  ================================================================================================

``python -m release audit FOLDER`` audits a release.
"""

from release.auditing import AuditReport, audit_release
from release.layout import MANIFEST, MODES
from release.png import decode_png, encode_png
from release.writing import write_release

__all__ = ["MANIFEST", "MODES", "AuditReport", "audit_release", "decode_png", "encode_png", "write_release"]
