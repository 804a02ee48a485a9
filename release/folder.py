"""Turn a folder of photos into a folder that can be shared: the whole run of ``python -m anonymizer PHOTOS OUT``.

1. Find the faces in all photos (`release.gathering`).
2. Group them into people (`release.people`), partition the people, and make surrogates (`release.planning`).
3. Give every face the surrogate of its person's cluster, pasted into the photo or alone (`release.replacing`).
4. Write the release (`release.writing`), audit it (`release.auditing`), attack it (`release.leaks`) and report
   (`release.summary`, `release.report`).

No original face is released unless the user asked for it: a face is replaced, or blurred out with a reason, or its
photo is suppressed.

The pose follows the photo; the outline, features and expression are the surrogate's. ``surrogate(members, like=i)``,
which follows a photo's expression, is not used: it needs several photos of each person, and a habit of smiling is one
more cue that identifies people.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import utils
from checks import ParameterError
from release import gathering, leaks, planning, references, replacing, report, review, summary
from release.auditing import AuditReport, audit_release
from release.journal import WRITTEN, Journal, read_journal
from release.layout import MANIFEST
from release.options import FolderOptions, check_request


@dataclass(frozen=True)
class Outcome:
    """The result of a run: sentences, and whether a release was written and passed its audit."""

    sentences: list[str]
    passed: bool


def anonymize_folder(options: FolderOptions) -> Outcome:
    """Do the whole run, and report what happened.

    Raises
    ------
    ValueError, FileNotFoundError
        If the request is invalid. Nothing is written.
    """
    check_request(options)
    files, others = gathering.list_files(options.source)
    _check_sub_folders(options, files)
    key = _run_key(options, files)
    if _is_done(options, key):
        audit = audit_release(options.out, ledger=options.ledger)
        sentence = f"{options.out} is already finished; nothing to do. Report: {options.report}"
        return Outcome([sentence, _of_audit(audit)], audit.passed)

    given = None
    if options.given is not None:
        given = references.read_references(options.given, options.thorough, options.workers)
    options.ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    options.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(options.journal, key)
    photos = gathering.open_photos(files, options.thorough, options.workers)
    plan = planning.make_plan(options, photos, given)
    make_images, write = replacing.WRITERS[options.mode]
    make_images(options, journal, plan)
    sentences = summary.summarize(options, journal, plan, others)

    audit = None
    if write(options, journal, plan):
        audit = audit_release(options.out, ledger=options.ledger)
        sentences += [
            f"The release: {options.out}",
            _of_audit(audit),
            f"The ledger {options.ledger} and {options.journal.name} in its folder identify people; keep both private.",
        ]
    else:
        sentences.append("Nothing could be released; OUT was not created.")

    released = _released(options, journal, plan) if audit is not None else {}
    finished = {i: options.finished_file(i) for i in released}
    attacked = leaks.measure(plan, finished, options.mode, options.seed)
    reviewed = review.review(released)
    sentences += [*leaks.tell_findings(attacked), *filter(None, [review.advise(reviewed)])]
    page = report.make_report(
        sentences, audit, attacked,
        photos=report.show_photos(plan, reviewed, finished, _names(options) if released else {}),
        surrogates=report.show_surrogates(plan) if options.mode == "shared" else [],
        people=report.show_people(plan, options.same_person),
        k=options.k if plan.labels is not None else None,
    )  # fmt: skip
    utils.save_atomic(options.report, lambda file: file.write(page.encode(errors="backslashreplace")))
    shutil.rmtree(options.work, ignore_errors=True)
    return Outcome([*sentences, f"Report: {options.report}"], audit is not None and audit.passed)


def _released(options: FolderOptions, journal: Journal, plan: planning.Plan) -> dict[int, dict]:
    """The journal's record of each released photo, by its row in the plan."""
    records = {i: journal.done[options.name_of(photo.path)] for i, photo in enumerate(plan.photos)}
    return {i: record for i, record in records.items() if record["status"] == WRITTEN}


def _names(options: FolderOptions) -> dict[int, str]:
    """The name in the release of each released photo, by its row in the plan."""
    entries = json.loads(options.ledger.read_text(encoding="utf-8"))["photos"]
    return {i: entry["file"] for i, entry in enumerate(entries) if entry["file"]}


def _check_sub_folders(options: FolderOptions, files: Sequence[Path]) -> None:
    """Raise if sub-folders name the people and a photo is not in any sub-folder."""
    n_loose = sum(path.parent == options.folder for path in files)
    if options.people == "folders" and n_loose:
        raise ParameterError(
            f"{summary.count(n_loose, 'photo')} not in any sub-folder, so no name says who is on them; make one "
            "sub-folder per person, or use --people faces"
        )


def _run_key(options: FolderOptions, files: Sequence[Path]) -> str:
    """Key of a run; it changes with the photos, and with the options and code that affect the images."""
    content = [(options.name_of(path), _digest(path)) for path in files]
    given = [] if options.given is None else gathering.list_files(options.given)[0]
    decisive = (
        options.k, options.method, options.mode, options.embedding, options.partitioner, options.people,
        options.same_person, options.seed, repr(sorted(options.method_options.items())), options.thorough,
        options.keep_faceless, options.largest_side, options.alike, options.given_by, list(map(_digest, given)),
    )  # fmt: skip
    return utils.content_key(decisive, content, utils.source_key(planning, replacing, "datasets.faces"))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_done(options: FolderOptions, key: str) -> bool:
    """Return whether this very run is already finished.

    Raises
    ------
    ValueError
        If OUT, the ledger or the journal belongs to another run.
    """
    known = read_journal(options.journal)
    same = bool(known) and known[0]["key"] == key
    if same and options.ledger.is_file() and (options.out / MANIFEST).is_file():
        return True
    if known and not same:
        if options.ledger.exists() or options.work.exists() or options.out.exists():
            raise ParameterError(
                f"{options.out} was started with other photos, options or code; choose a new folder. Do not publish "
                "both: two releases of the same people tell more than one"
            )
        options.journal.unlink()  # an attempt that released nothing may be replaced
        return False

    if options.out.is_dir() and any(options.out.iterdir()):
        raise ParameterError(f"{options.out}: not empty, and not from this run; choose a new or empty folder")
    if options.ledger.exists() or (options.journal.exists() and not known):
        raise ParameterError(f"{options.ledger}: belongs to another release; choose another --ledger")
    return False


def _of_audit(audit: AuditReport) -> str:
    if audit.passed:
        return "Audit of the files: passed."
    failed = "; ".join(f"{check.name}: {check.detail}" for check in audit.checks if check.passed is False)
    return f"Audit of the files: FAILED ({failed}). Do not share the release."
