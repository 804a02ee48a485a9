"""Turn a folder of photos and videos into one that can be shared: the whole run of ``python -m anonymizer PHOTOS OUT``.

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

import shutil
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import utils
from checks import ParameterError
from release import gathering, leaks, planning, references, replacing, report, review, summary, videos
from release.auditing import AuditReport, audit_release
from release.journal import WRITTEN, Journal, digest_of, read_journal
from release.layout import MANIFEST
from release.options import FolderOptions, check_request, check_videos
from release.searching import check_detector, in_words
from release.writing import clean_up, locked
from utility import MissingModelError

#: With --keep-faceless, at least one of this many photos must show a face.
_SEVERAL = 5


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
    files, films, others = gathering.list_files(options.source)
    check_videos(options, films)
    _check_sub_folders(options, files)
    key = _run_key(options, [*files, *films])
    try:
        with locked(options.ledger.parent):
            return _run(options, files, films, others, key)
    except (ParameterError, MissingModelError):
        raise
    except Exception as error:
        if options.verbose:
            traceback.print_exc()
        sentence = f"Stopped by an error ({in_words(error)})."
        return Outcome([sentence, "Finished work is saved; run the same command again to resume."], False)


def _run(
    options: FolderOptions, files: Sequence[Path], films: Sequence[Path], others: Sequence[Path], key: str
) -> Outcome:
    clean_up(options.out, options.ledger)
    is_released = _is_released(options, key)
    if is_released and options.report.is_file():
        audit, audited = _audit(options)
        journal = Journal(options.journal, key)
        sentence = f"{options.out} is already finished; nothing to do. Report: {options.report}"
        told = [sentence, *summary.of_failures(journal), audited, summary.claim(options)]
        return Outcome(told, _passed(audit, journal))

    given = None
    if options.given is not None:
        given = references.read_references(options.given, options.given_by, options.thorough, options.workers)
    check_detector(np.random.default_rng().integers(0, 60, (320, 320, 3), dtype=np.uint8))
    options.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(options.journal, key)
    photos = gathering.open_photos(files, options.thorough, options.workers)
    _check_any_face(options, photos)
    pool = []
    if options.pool is not None:
        pool = gathering.open_photos(
            gathering.list_photos(options.pool, "pool"), options.thorough, options.workers
        )
    clips = videos.open_clips(options, films)
    stills = [photo for clip in clips for photo in clip.standing.values()]
    plan = planning.make_plan(options, photos, given, pool, stills)
    if not is_released:
        options.report.unlink(missing_ok=True)
        make_images, write = replacing.WRITERS[options.mode]
        make_images(options, journal, plan)
        videos.make_videos(options, journal, plan, clips)
        is_released = write(options, journal, plan, films)
    for folder in (options.work, options.search):
        shutil.rmtree(folder, ignore_errors=True)

    sentences, audit = summary.summarize(options, journal, plan, others), None
    if is_released:
        audit, audited = _audit(options)
        sentences += [
            f"The release: {options.out}",
            audited,
            f"The ledger {options.ledger} and {options.journal.name} in its folder identify people; keep both private.",
        ]
    else:
        sentences.append("Nothing could be released; OUT was not created.")
    told, is_complete = _report(options, journal, plan, films, sentences, audit)
    return Outcome(told, is_complete and _passed(audit, journal))


def _audit(options: FolderOptions) -> tuple[AuditReport | None, str]:
    """Audit the release, and describe the result in words; None if that fails."""
    try:
        audit = audit_release(options.out, ledger=options.ledger)
    except Exception as error:
        return None, f"Audit of the files: FAILED ({in_words(error)}). Do not share the release."
    return audit, _of_audit(audit)


def _passed(audit: AuditReport | None, journal: Journal) -> bool:
    return audit is not None and audit.passed and not journal.n_failed


def _report(
    options: FolderOptions,
    journal: Journal,
    plan: planning.Plan,
    films: Sequence[Path],
    sentences: Sequence[str],
    audit: AuditReport | None,
) -> tuple[list[str], bool]:
    """Attack the release and write the report; return all sentences, and whether both worked."""
    released = _released(options, journal, plan) if options.ledger.is_file() else {}
    names = _names(options) if released else {}
    finished = {i: options.out / names[i] for i in released}
    reviewed = review.review(released)
    attacked, told = _attempt(
        "The attack on the release", leaks.measure, plan, finished, options.mode, options.seed
    )
    sentences = [*sentences, *told]
    if attacked is not None:
        sentences += leaks.tell_findings(attacked)
    sentences += filter(None, [review.advise(reviewed)])

    def write() -> None:
        page = report.make_report(
            sentences, audit, pd.DataFrame() if attacked is None else attacked,
            photos=report.show_photos(plan, reviewed, finished, names),
            surrogates=report.show_surrogates(plan) if options.mode == "shared" else [],
            people=report.show_people(plan, options.same_person),
            videos=_show_videos(options, journal, plan, films, names),
            k=options.k if plan.labels is not None else None,
        )  # fmt: skip
        utils.save_atomic(options.report, lambda file: file.write(page.encode()))

    _, fault = _attempt("The report", write)
    sentences += fault or [f"Report: {options.report}"]
    if options.ledger.is_file():
        found = "" if attacked is None else leaks.tell_worst(attacked)
        sentences.append(f"{summary.claim(options)} {found}".strip())
    return sentences, not told and not fault


def _show_videos(
    options: FolderOptions,
    journal: Journal,
    plan: planning.Plan,
    films: Sequence[Path],
    names: dict[int, str],
) -> list[dict]:
    shown = [
        (journal.done[options.name_of(path)], path, options.out / names[number])
        for number, path in enumerate(films, start=len(plan.photos))
        if number in names
    ]
    return report.show_videos(*zip(*shown, strict=True), options.largest_side) if shown else []


def _attempt(what: str, step: Callable, *arguments) -> tuple[object, list[str]]:
    """Do a step that comes after the release; return its result, and what to say if an error stops it."""
    try:
        return step(*arguments), []
    except Exception as error:
        return None, [f"{what} failed ({in_words(error)}); run the same command again."]


def _check_any_face(options: FolderOptions, photos: Sequence[gathering.Photo]) -> None:
    """Raise if photos without faces are kept, and no photo of several shows one."""
    searched = [photo for photo in photos if not photo.damage and not photo.failure]
    if options.keep_faceless and len(searched) >= _SEVERAL and not any(photo.spots for photo in searched):
        raise ParameterError(
            f"no face was found on any of {len(searched)} photos, and --keep-faceless would release them all as they "
            "are; look at them, and leave this option out"
        )


def _released(options: FolderOptions, journal: Journal, plan: planning.Plan) -> dict[int, dict]:
    """The journal's record of each released photo, by its row in the plan."""
    records = {i: journal.done.get(options.name_of(photo.path), {}) for i, photo in enumerate(plan.photos)}
    return {i: record for i, record in records.items() if record.get("status") == WRITTEN}


def _names(options: FolderOptions) -> dict[int, str]:
    """The name in the release of each released photo, by its row in the plan."""
    entries = utils.parse_json(options.ledger.read_bytes())["photos"]
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
    content = [(options.name_of(path), digest_of(path)) for path in files]
    given = [
        [] if folder is None else list(map(digest_of, gathering.list_photos(folder, name)))
        for name, folder in ((options.given_by, options.given), ("pool", options.pool))
    ]
    decisive = (
        options.k, options.method, options.mode, options.embedding, options.partitioner, options.people,
        options.same_person, options.seed, repr(sorted(options.method_options.items())), options.thorough,
        options.keep_faceless, options.largest_side, options.alike, options.given_by, given, options.audio,
        options.crf,
    )  # fmt: skip
    return utils.content_key(
        decisive, content, utils.source_key(planning, replacing, videos, "datasets.faces")
    )


def _is_released(options: FolderOptions, key: str) -> bool:
    """Return whether this very run has already written its release.

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
