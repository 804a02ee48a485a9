"""Audit a release: the list of checks, and the report.

`CHECKS`, `LEDGER_CHECKS` and `ORIGINAL_CHECKS` name every check. The functions are in `release.files` (checks of the
files alone), `release.visible` (the ledger) and `release.originals` (the original photos).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cluster_reports import leakage_bounds
from datasets import Faces
from release import files
from release.ledger import Ledger, read_ledger
from release.originals import Comparison, check_attack, check_copies, check_people
from release.visible import check_faces, check_ledger

#: Checks that need only the files: name -> function (contents) -> passed, detail. The order matters: later checks use
#: what earlier checks have read.
CHECKS: dict[str, Callable[[files.Contents], tuple[bool | None, str]]] = {
    "folder": files.check_folder,
    "manifest": files.check_manifest,
    "foreign files": files.check_foreign,
    "files": files.check_digests,
    "images": files.check_images,
    "names": files.check_names,
    "times": files.check_times,
    "k-anonymity": files.check_anonymity,
}

#: Checks that compare the images with the ledger, if given: name -> function (contents, ledger) -> passed, detail.
LEDGER_CHECKS: dict[str, Callable[[files.Contents, Ledger | None], tuple[bool | None, str]]] = {
    "ledger": check_ledger,
    "faces": check_faces,
}

#: Checks that need the original photos: name -> function (comparison) -> passed, detail.
ORIGINAL_CHECKS: dict[str, Callable[[Comparison], tuple[bool | None, str]]] = {
    "originals": check_copies,
    "people": check_people,
    "attack": check_attack,
}


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes
    ----------
    name : str
    passed : bool or None
        None if the check was impossible, or is for information only.
    detail : str
        What was found. It may name files of the release, never photos or people.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class AuditReport:
    """The results of an audit.

    Attributes
    ----------
    checks : tuple of Check
    claim : str
        What the release claims to protect, in words.
    bounds : dict or None
        `cluster_reports.leakage_bounds` of a shared release whose files match the manifest; None for others.
    """

    checks: tuple[Check, ...]
    claim: str
    bounds: dict[str, float] | None = None

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed is not False for check in self.checks)

    def __getitem__(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)

    def to_json(self) -> str:
        """The report as JSON: ``passed``, ``claim``, ``bounds`` and ``checks``."""
        report = {"passed": self.passed, "claim": self.claim, "bounds": self.bounds}
        return json.dumps({**report, "checks": [vars(check) for check in self.checks]}, indent=1)

    def __str__(self) -> str:
        words = {True: "passed", False: "FAILED", None: "-"}
        lines = [f"{words[check.passed]:7}{check.name}: {check.detail}" for check in self.checks]
        verdict = "The release passes the audit." if self.passed else "The release FAILS the audit."
        bound = []
        if self.bounds is not None:
            images, people = self.bounds["n_images"], self.bounds["n_people"]
            bound.append(
                f"Bound: whoever sees which image a random person got names them with a chance of at most {images}/"
                f"{people}, without other releases of these people or knowledge of who they are."
            )
        return "\n".join([*lines, self.claim, *bound, verdict])


def audit_release(
    folder: str | Path, originals: Faces | None = None, ledger: str | Path | None = None
) -> AuditReport:
    """Check a release from its files and manifest, and against the original photos if they are given.

    The folder is untrusted: links are not followed, image sizes are checked before decoding, and any problem is
    a failed check, not an error.

    Parameters
    ----------
    folder : str or Path
    originals : Faces, optional
        The photos that were anonymized, with all available `others` (further photos) of these people.
    ledger : str or Path, optional
        With it, the audit searches the images for faces that the run did not edit. With the originals, too, it also
        reports how often an attacker names the right person.

    Returns
    -------
    AuditReport
        ``passed`` if no check failed, ``checks``, ``to_json()``.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist. (Any other problem is a failed check.)
    ValueError
        If the ledger cannot be read.

    Notes
    -----
    The files cannot show whether k copies of an image belong to k different people. With the originals, the audit at
    least compares the number of files with the number of people.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    known = read_ledger(ledger, originals) if ledger is not None else None
    contents = files.Contents(folder)
    checks = [Check(name, *check(contents)) for name, check in CHECKS.items()]
    checks += [Check(name, *check(contents, known)) for name, check in LEDGER_CHECKS.items()]
    if originals is None or not contents.images:
        why = "no originals were given" if originals is None else "the release has no images to compare"
        checks += [Check(name, None, f"not checked: {why}") for name in ORIGINAL_CHECKS]
    else:
        comparison = Comparison(contents, originals, known)
        checks += [Check(name, *check(comparison)) for name, check in ORIGINAL_CHECKS.items()]
    shared = contents.manifest.get("mode") == "shared" and all(
        check.passed for check in checks[: len(CHECKS)]
    )
    bounds = leakage_bounds(len(contents.digests), len(set(contents.digests.values()))) if shared else None
    return AuditReport(tuple(checks), _claim(contents.manifest), bounds)


def _claim(manifest: dict) -> str:
    if manifest.get("mode") == "shared":
        return f"Claim: at least {manifest['k']} people share each image, byte for byte."
    if manifest.get("mode") == "per_photo":
        return "No k-anonymity is claimed: each image follows one photo."
    return "The release makes no valid claim about what it protects."
