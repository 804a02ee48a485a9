"""A folder of photos -> a folder that can be handed on, step by step, and what became of each face.

Faces are found (`release.gathering`), grouped into people, and the people partitioned; every face gets the surrogate of
its person's cluster, pasted back (`release.pasting`) or by itself. Finished photos wait beside the ledger until all
are done; then `release.write_release` makes the release, and it is audited. Nothing passes through: a face is
replaced, or blurred out with a reason, or its photo is suppressed.

The pose follows the photo; outline, features and expression are the surrogate's. ``surrogate(members, like=i)``, which
follows a photo's expression, is not used here: it needs several photos of each person, and a habit of smiling is one
more thing that people are known by.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import joblib
import numpy as np

import anonymizer
import detection
import embedding
import partitioning
import release
import utils
from datasets import Faces
from datasets.faces import ImageFiles, read_image
from release import gathering, pasting
from release.gathering import FoundFaces, Photo

#: What can be asked for: everything that hides a face.
METHODS = [name for name in (*anonymizer.ANONYMIZERS, *anonymizer.VARIANTS) if name != "none"]

#: Photos are written at no more than this many pixels on the longer side.
LARGEST_SIDE = 2048

#: Options that a method takes here unless others are given: nobody on one's own photos is known to the bundled network.
OWN_PHOTOS: dict[str, dict] = {"cnn": {"proxy": 10}}

REPLACED, FILTERED, BLURRED = "replaced", "changed by itself", "blurred out"
WRITTEN, SUPPRESSED, DAMAGED = "written", "suppressed", "damaged"
NO_FACE, TOO_FEW, SHARED_ONLY = "no face was found", "fewer than k people", "shared mode writes no photos"
FACELESS_SURROGATE, NOT_PASTED = "the surrogate shows no face", "the surrogate does not fit this face"


# ----------------------------------------------------------------------------------------------------------
# What was asked for
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What one run shall do; `python -m anonymizer --help` says what each means."""

    source: Path
    out: Path
    ledger: Path
    k: int
    method: str
    options: dict
    mode: str
    embedding: str
    partitioner: str
    people: str
    same_person: float
    thorough: bool
    keep_faceless: bool
    largest_side: int
    seed: int
    workers: int
    show_originals: bool
    verbose: bool

    @property
    def chosen(self) -> dict:
        """The anonymizer's options: those given, or where there is none those of `OWN_PHOTOS`."""
        return self.options or OWN_PHOTOS.get(self.method, {})

    @property
    def report(self) -> Path:
        """Where the report goes: beside the ledger."""
        return self.ledger.with_name(self.ledger.stem + "-report.html")

    @property
    def journal(self) -> Path:
        """What became of each face, a photo a line, as the run goes on."""
        return self.ledger.with_name(self.ledger.stem + "-faces.jsonl")

    @property
    def work(self) -> Path:
        """Where finished photos wait for the others."""
        return self.ledger.with_name(self.ledger.stem + "-unfinished")

    def key(self, files: Sequence[Path]) -> str:
        """Changes with the photos and with all that decides on the images that come out."""
        content = [
            (path.relative_to(self.source).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest())
            for path in files
        ]
        decisive = ("k", "method", "mode", "embedding", "partitioner", "people", "same_person", "seed")
        further = (repr(sorted(self.chosen.items())), self.thorough, self.keep_faceless, self.largest_side)
        code = utils.source_key(__file__, "datasets.faces", without=["release.report"])
        return utils.content_key([getattr(self, name) for name in decisive], further, content, code)


def check(settings: Settings) -> None:
    """Refuse what cannot be done before any work is.

    Raises
    ------
    ValueError
        For numbers, names or options that do not fit, and for places that would mix originals and release.
    FileNotFoundError
        If there is no folder of photos.
    """
    _check_models(settings)
    if settings.k < 2:
        raise ValueError(f"--k is {settings.k}; fewer than 2 people hide nobody")
    if settings.workers < 1 and settings.workers != -1:
        raise ValueError(f"--workers is {settings.workers}; give 1 or more, or -1 for all cores")
    if not settings.same_person > 0:
        raise ValueError(f"--same-person is {settings.same_person}; give a distance above 0")
    if settings.largest_side < 64:
        raise ValueError(f"--largest-side is {settings.largest_side}; give at least 64 pixels")
    if settings.mode == "shared" and not anonymizer.kind(settings.method).k_anonymous:
        raise ValueError(
            f"{settings.method!r} changes each photo by itself, so there is no surrogate to share; "
            "use --mode per_photo, or a method such as aam"
        )
    source, out, ledger = (p.resolve() for p in (settings.source, settings.out, settings.ledger))
    if not source.is_dir():
        raise FileNotFoundError(f"{settings.source}: there is no such folder of photos")
    if source == out or out.is_relative_to(source):
        raise ValueError(
            "OUT lies in PHOTOS: the originals would be handed out with it; choose another folder"
        )
    if source.is_relative_to(out):
        raise ValueError(
            "PHOTOS lies in OUT: the originals would be handed out with it; choose another folder"
        )
    for folder, name in ((out, "OUT"), (source, "PHOTOS")):
        if ledger.is_relative_to(folder):
            raise ValueError(
                f"the ledger would lie in {name}; it says who is who, keep it in a private place"
            )
    if out.exists() and not out.is_dir():
        raise ValueError(f"{settings.out}: is a file; OUT must be a folder")


def _check_models(settings: Settings) -> None:
    embedder, _, path = settings.embedding.partition(":")
    known = [name for name in embedding.EMBEDDINGS if name != "stored"]  # these faces have none stored
    if embedder not in known or bool(path) != (embedder in embedding.NEEDS_PATH):
        shown = ", ".join(f"{name}:PATH" if name in embedding.NEEDS_PATH else name for name in known)
        raise ValueError(f"--embedding is {settings.embedding!r}; here there is {shown}")
    if path and not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such model for --embedding")
    if embedder != "dlib" and settings.same_person == gathering.SAME_PERSON:
        raise ValueError(
            f"--same-person is the distance for dlib ({gathering.SAME_PERSON}); give the one under which two faces are "
            f"one person by {embedder!r}"
        )
    possible = anonymizer.options_of(anonymizer.kind(settings.method))
    unknown = sorted(set(settings.options) - possible)
    if unknown:
        raise ValueError(
            f"{settings.method!r} has no option {', '.join(unknown)}; it has {', '.join(sorted(possible)) or 'none'}"
        )


def _check_folders(settings: Settings, files: Sequence[Path]) -> None:
    """With people named by sub-folders, every photo must lie in one."""
    loose = sum(path.parent == settings.source for path in files)
    if settings.people == "folders" and loose:
        raise ValueError(
            f"{_count(loose, 'photo')} lie{'s' if loose == 1 else ''} in no sub-folder, so no name says who is on "
            "them; make one sub-folder for each person, or use --people faces"
        )


# ----------------------------------------------------------------------------------------------------------
# How far we are
# ----------------------------------------------------------------------------------------------------------


class Journal:
    """A private file of one JSON object a line: first the run's key, then each photo as it is finished.

    Attributes
    ----------
    done : dict of str to dict
        Photos by their place in PHOTOS: ``status reason faces sha256``.
    """

    def __init__(self, path: Path, key: str):
        self.path = path
        known = _read_lines(path)
        self.done = {record["source"]: record for record in known[1:] if "source" in record}
        if not known:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
            self._write({"key": key})

    def _write(self, record: dict) -> None:
        torn = self.path.stat().st_size > 0 and self.path.read_bytes()[-1:] != b"\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * torn + json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def add(self, record: dict) -> None:
        """Note what became of one photo."""
        self._write(record)
        self.done[record["source"]] = record

    def finished(self, source: str, path: Path) -> bool:
        """Whether a photo was finished, and its file lies there unchanged."""
        record = self.done.get(source, {})
        return (
            record.get("status") == WRITTEN
            and path.is_file()
            and hashlib.sha256(path.read_bytes()).hexdigest() == record["sha256"]
        )


def _read_lines(path: Path) -> list[dict]:
    """The records of a journal; a line that an interruption cut short is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records if records and "key" in records[0] else []


def _check_places(settings: Settings, key: str) -> bool:
    """Whether this very run was finished before; refuse what another one left.

    Raises
    ------
    ValueError
        If OUT, ledger or journal belong to something else.
    """
    known = _read_lines(settings.journal)
    same = bool(known) and known[0]["key"] == key
    if same and settings.ledger.is_file() and (settings.out / release.MANIFEST).is_file():
        return True
    kept = settings.ledger.exists() or settings.work.exists() or settings.out.exists()
    if known and not same and not kept:  # a try that released nothing makes way
        settings.journal.unlink()
        return False
    if known and not same:
        raise ValueError(
            f"{settings.out} was begun with other photos, other settings or another version; choose a new folder. "
            "Beware of publishing both: two releases of the same people tell more than one"
        )
    if settings.out.is_dir() and any(settings.out.iterdir()):
        raise ValueError(
            f"{settings.out}: is not empty, and not made by this run; choose a new or empty folder"
        )
    if settings.ledger.exists() or (settings.journal.exists() and not known):
        raise ValueError(
            f"{settings.ledger}: belongs to another release; choose another --ledger, or move it away"
        )
    return False


def _claim(settings: Settings) -> str:
    """What may be said of the result."""
    if not anonymizer.kind(settings.method).k_anonymous:
        return (
            f"Each face was changed by itself ({settings.method}). That is not k-anonymous: recognisers trained on "
            "such images see through them."
        )
    if settings.mode == "per_photo":
        return (
            "Surrogates were pasted back into the photos (per_photo mode). No k-anonymity is claimed: hair, clothes, "
            "background and pose differ from photo to photo and give people away."
        )
    return f"Every image stands for at least {settings.k} people, as far as faces were rightly told apart."


# ----------------------------------------------------------------------------------------------------------
# People, clusters, surrogates
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Plan:
    """Who gets which face.

    Attributes
    ----------
    found : FoundFaces or None
        The faces that can be replaced, with people as identities.
    labels : ndarray of int, shape (n,), or None
        Each face's cluster; None where there are too few people, or the method needs no clusters.
    model : anonymizer.Anonymizer or None
        None where nothing can be replaced.
    surrogates : list of (image, landmarks or None)
        One for each cluster; None where no face was found on it.
    n_doubtful : int
        Pairs of people who might after all be one.
    """

    found: FoundFaces | None
    labels: np.ndarray | None
    model: anonymizer.Anonymizer | None
    surrogates: list
    n_doubtful: int

    @property
    def n_people(self) -> int:
        return 0 if self.found is None else self.found.faces.n_people


def make_plan(settings: Settings, opened: Sequence[Photo]) -> Plan:
    """Group faces into people, partition them, and make the surrogates."""
    found = gathering.gather_faces(opened)
    if found is None:
        return Plan(None, None, None, [], 0)
    descriptors = embedding.embed(found.faces, settings.embedding)
    people = gathering.group_people(descriptors, settings.same_person, _folders(settings, opened, found))
    faces = Faces(found.faces.images, people, found.faces.names, source="photos")
    found = FoundFaces(faces, found.photo, found.place)
    n_doubtful = gathering.doubtful_pairs(descriptors, people, 1.2 * settings.same_person)
    if not anonymizer.kind(settings.method).k_anonymous:
        model = anonymizer.load(settings.method, faces, **settings.chosen)
        return Plan(found, None, model, [], n_doubtful)
    if faces.n_people < settings.k:
        return Plan(found, None, None, [], n_doubtful)
    partition = partitioning.PARTITIONERS[settings.partitioner]
    labels = partition(descriptors, settings.k, identities=people, random_state=settings.seed)
    model = anonymizer.load(settings.method, faces, **settings.chosen)
    clusters = [np.flatnonzero(labels == label) for label in range(labels.max() + 1)]
    images = [model.surrogate(c) for c in utils.progress(clusters, "making surrogates")]
    return Plan(found, labels, model, [_with_landmarks(image) for image in images], n_doubtful)


def _with_landmarks(image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    there = detection.detect([image])
    return image, there.landmarks[0] if there.found[0] else None


def _folders(settings: Settings, opened: Sequence[Photo], found: FoundFaces) -> list[str | None] | None:
    """The sub-folder of each photo for its largest face, None for the other faces."""
    if settings.people != "folders":
        return None
    names = []
    for i, j in zip(found.photo, found.place, strict=True):
        heights = [spot.box[3] - spot.box[1] for spot in opened[i].spots]
        folder = opened[i].path.relative_to(settings.source).parts[0]
        names.append(folder if j == int(np.argmax(heights)) else None)
    return names


# ----------------------------------------------------------------------------------------------------------
# Photos
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Task:
    """All that one process needs to make one photo.

    Attributes
    ----------
    path, target : Path
        The photo, and the file to write.
    pasted : tuple of (number of the face, landmarks, surrogate, its landmarks)
    filtered : tuple of (landmarks, crop, transform)
    blurred : tuple of (box, landmarks)
    largest_side : int
    record : dict
        For the journal.
    """

    path: Path
    target: Path
    pasted: tuple
    filtered: tuple
    blurred: tuple
    largest_side: int
    record: dict


def make_photo(task: Task) -> dict:
    """Replace all faces of one photo, write it, and return the record for the journal."""
    image, record, blurred = read_image(task.path), copy.deepcopy(task.record), list(task.blurred)
    places = [landmarks for _, landmarks, _, _ in task.pasted] + [face[0] for face in task.filtered]
    places += [np.vstack([np.reshape(box, (2, 2)), landmarks]) for box, landmarks in task.blurred]
    for i, (number, landmarks, surrogate, surrogate_landmarks) in enumerate(task.pasted):
        others = places[:i] + places[i + 1 :]
        try:
            image = pasting.paste(image, landmarks, surrogate, surrogate_landmarks, others)
        except (cv2.error, ArithmeticError, ValueError):
            face = record["faces"][number]
            face.update(outcome=BLURRED, reason=NOT_PASTED)
            blurred.append((np.array(face["box"]), landmarks))
    for landmarks, crop, transform in task.filtered:
        image = pasting.put_back(image, landmarks, crop, transform)
    for box, landmarks in blurred:  # last, so that nothing brings back what they hide
        image = pasting.blur_out(image, box, landmarks)
    scale = min(1.0, task.largest_side / max(image.shape[:2]))
    data = release.encode_png(detection.resize(image, scale))
    utils.save_atomic(task.target, lambda file: file.write(data))
    return {**record, "sha256": hashlib.sha256(data).hexdigest()}


def _tasks(
    settings: Settings, journal: Journal, plan: Plan, opened: Sequence[Photo]
) -> Iterator[Task | dict]:
    """One for each photo that is not finished: a `Task`, or the record of one that is not written."""
    rows = {}
    if plan.found is not None:
        rows = {place: i for i, place in enumerate(zip(plan.found.photo, plan.found.place, strict=True))}
    for number, photo in enumerate(opened):
        source, target = _names(settings, photo, number)
        if journal.finished(source, target):
            continue
        reason = _why_not(settings, plan, photo)
        if reason:
            status = DAMAGED if photo.damage else SUPPRESSED
            if journal.done.get(source, {}).get("status") != status:
                yield {"source": source, "status": status, "reason": reason, "faces": []}
            continue
        on_it = [rows.get((number, j)) for j in range(len(photo.spots))]
        yield _task(settings, plan, photo, source, target, on_it)


def _names(settings: Settings, photo: Photo, number: int) -> tuple[str, Path]:
    """What the journal calls a photo, and where it waits when it is finished."""
    return photo.path.relative_to(settings.source).as_posix(), settings.work / f"{number:06d}.png"


def _why_not(settings: Settings, plan: Plan, photo: Photo) -> str:
    """Why a photo is not written; empty where it is."""
    if photo.damage:
        return photo.damage
    if not photo.spots:
        return "" if settings.keep_faceless else NO_FACE
    return TOO_FEW if plan.model is None and plan.found is not None else ""


def _task(
    settings: Settings, plan: Plan, photo: Photo, source: str, target: Path, rows: list[int | None]
) -> Task:
    pasted, filtered, blurred, faces = [], [], [], []
    for spot, row in zip(photo.spots, rows, strict=True):
        outcome, reason, label = BLURRED, spot.reason, None
        if row is not None and plan.labels is None:
            outcome = FILTERED
            filtered.append((spot.landmarks, plan.model.apply(row), spot.transform))
        elif row is not None:
            label = int(plan.labels[row])
            surrogate, surrogate_landmarks = plan.surrogates[label]
            if surrogate_landmarks is not None:
                outcome = REPLACED
                pasted.append((len(faces), spot.landmarks, surrogate, surrogate_landmarks))
            else:
                reason = FACELESS_SURROGATE
        if outcome == BLURRED:
            blurred.append((spot.box, spot.landmarks))
        person = None if row is None else str(plan.found.faces.identities[row])
        box = [round(float(side), 1) for side in spot.box]
        faces.append({"box": box, "person": person, "cluster": label, "outcome": outcome, "reason": reason})
    record = {"source": source, "status": WRITTEN, "reason": "", "faces": faces}
    parts = tuple(pasted), tuple(filtered), tuple(blurred)
    return Task(photo.path, target, *parts, settings.largest_side, record)


def make_photos(settings: Settings, journal: Journal, plan: Plan, opened: Sequence[Photo]) -> None:
    """Make all photos that are not finished, and note each as it is."""
    settings.work.mkdir(mode=0o700, exist_ok=True)
    n_left = sum(not journal.finished(*_names(settings, photo, i)) for i, photo in enumerate(opened))
    with utils.progress((), "replacing faces", total=n_left) as bar:
        for record in _made(_tasks(settings, journal, plan, opened), settings.workers):
            journal.add(record)
            bar.update()
            if settings.verbose:
                print(f"{record['source']}: {record['status']} {record['reason']}".rstrip())


def _made(tasks: Iterable[Task | dict], workers: int) -> Iterator[dict]:
    if workers == 1:
        yield from map(_make, tasks)
    else:
        yield from joblib.Parallel(n_jobs=workers, return_as="generator")(map(joblib.delayed(_make), tasks))


def _make(task: Task | dict) -> dict:
    return make_photo(task) if isinstance(task, Task) else task


class _Originals(Sequence):
    """The photos as they came; an empty picture stands for one without a face or that cannot be read."""

    def __init__(self, opened: Sequence[Photo]):
        self.opened = opened

    def __len__(self) -> int:
        return len(self.opened)

    def __getitem__(self, i: int) -> np.ndarray:
        photo = self.opened[i]
        return read_image(photo.path) if photo.spots else np.zeros((16, 16, 3), dtype=np.uint8)


def release_photos(settings: Settings, journal: Journal, plan: Plan, opened: Sequence[Photo]) -> bool:
    """Hand the finished photos over to OUT; whether there were any."""
    names = [_names(settings, photo, i) for i, photo in enumerate(opened)]
    records = [journal.done[source] for source, _ in names]
    written = np.array([record["status"] == WRITTEN for record in records])
    if not written.any():
        return False
    labels = np.where(written, np.cumsum(written) - 1, -1)
    originals = Faces(_Originals(opened), [f"photo {i}" for i in range(len(opened))], [n for n, _ in names])
    finished = ImageFiles([path for (_, path), there in zip(names, written, strict=True) if there])
    why = {status: {} for status in (SUPPRESSED, DAMAGED)}
    for i in np.flatnonzero(~written):
        why[records[i]["status"]][i] = records[i]["reason"]
    release.write_release(
        settings.out,
        originals,
        finished,
        labels,
        mode="per_photo",
        ledger=settings.ledger,
        suppressed=why[SUPPRESSED],
        failed=why[DAMAGED],
    )
    return True


def note_surrogates(settings: Settings, journal: Journal, plan: Plan, opened: Sequence[Photo]) -> None:
    """Note what became of the faces of each photo, where surrogates are written and no photos."""
    rows = {}
    if plan.labels is not None:
        rows = {place: i for i, place in enumerate(zip(plan.found.photo, plan.found.place, strict=True))}
    for number, photo in enumerate(opened):
        faces = []
        for j, spot in enumerate(photo.spots):
            row = rows.get((number, j))
            outcome, reason = (REPLACED, "") if row is not None else (SUPPRESSED, spot.reason or TOO_FEW)
            person = None if row is None else str(plan.found.faces.identities[row])
            label = None if row is None else int(plan.labels[row])
            faces.append({"person": person, "cluster": label, "outcome": outcome, "reason": reason})
        reason = _why_not(settings, plan, photo) or ("" if photo.spots else NO_FACE) or SHARED_ONLY
        source, _ = _names(settings, photo, number)
        status = DAMAGED if photo.damage else SUPPRESSED
        journal.add({"source": source, "status": status, "reason": reason, "faces": faces})


def release_surrogates(settings: Settings, journal: Journal, plan: Plan, opened: Sequence[Photo]) -> bool:
    """Write the surrogates to OUT, a file for each person; whether there were any."""
    if plan.labels is None:
        return False
    faces = plan.found.faces
    sources = [_names(settings, opened[i], i)[0] for i in plan.found.photo]
    names = [f"{source}#{place}" for source, place in zip(sources, plan.found.place, strict=True)]
    crops = Faces(faces.images, faces.identities, names, source="photos")
    images = [image for image, _ in plan.surrogates]
    release.write_release(
        settings.out, crops, images, plan.labels, mode="shared", ledger=settings.ledger, k=settings.k
    )
    return True


#: Mode -> what makes the images, and what hands them over.
WRITERS: dict[str, tuple[Callable, Callable]] = {
    "per_photo": (make_photos, release_photos),
    "shared": (note_surrogates, release_surrogates),
}


# ----------------------------------------------------------------------------------------------------------
# The whole run
# ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of a run: plain sentences, and whether there is a release that passed its audit."""

    sentences: list[str]
    passed: bool


def anonymize_folder(settings: Settings) -> Outcome:
    """Do all of it, and tell what happened.

    Raises
    ------
    ValueError, FileNotFoundError
        For settings that do not fit, before anything is written.
    """
    from release import report  # reads attacks, which nothing else here needs

    files, others = gathering.list_files(settings.source)
    _check_folders(settings, files)
    key = settings.key(files)
    if _check_places(settings, key):
        audit = release.audit_release(settings.out)
        sentence = f"{settings.out} was finished before, nothing is left to do. Report: {settings.report}"
        return Outcome([sentence, _audit_sentence(audit)], audit.passed)
    settings.ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(settings.journal, key)
    opened = gathering.open_photos(files, settings.thorough, settings.workers)
    plan = make_plan(settings, opened)
    make, hand_over = WRITERS[settings.mode]
    make(settings, journal, plan, opened)
    sentences = tell(settings, journal, plan, opened, others)
    audit = None
    if hand_over(settings, journal, plan, opened):
        audit = release.audit_release(settings.out)
        sentences.append(f"The release: {settings.out}")
        sentences.append(_audit_sentence(audit))
        sentences.append(
            f"Who is who: {settings.ledger} and {settings.journal.name} beside it; keep both private."
        )
    else:
        sentences.append("Nothing could be released; OUT was not made.")
    finished = {i: _names(settings, photo, i)[1] for i, photo in enumerate(opened)}
    attacked = report.measure(plan, opened, finished, settings.mode, settings.seed)
    sentences += report.tell_findings(attacked)
    sheet = report.make_sheet(plan, opened, finished, settings.mode, settings.show_originals)
    shared_by = settings.k if plan.labels is not None else None
    page = report.make_report(sentences, audit, attacked, sheet, settings.show_originals, shared_by)
    utils.save_atomic(settings.report, lambda file: file.write(page.encode()))
    shutil.rmtree(settings.work, ignore_errors=True)
    return Outcome([*sentences, f"Report: {settings.report}"], audit is not None and audit.passed)


def _audit_sentence(audit) -> str:
    if audit.passed:
        return "Audit of the files: passed."
    failed = "; ".join(f"{check.name}: {check.detail}" for check in audit.checks if check.passed is False)
    return f"Audit of the files: FAILED ({failed}). Do not hand it on."


def _count(number: int, thing: str) -> str:
    """A number and what it counts: "1 photo", "2 photos"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def tell(
    settings: Settings, journal: Journal, plan: Plan, opened: Sequence[Photo], others: Sequence[Path]
) -> list[str]:
    """What happened, in plain sentences."""
    records = [journal.done[key] for key in sorted(journal.done)]
    faces = [face for record in records for face in record["faces"]]
    outcomes = Counter(face["outcome"] for face in faces)
    n_replaceable = 0 if plan.found is None else len(plan.found.faces)
    n_clusters = 0 if plan.labels is None else int(plan.labels.max()) + 1
    n_faces = sum(len(photo.spots) for photo in opened)
    damaged = [photo for photo in opened if photo.damage]
    sentences = [
        f"{_count(len(opened), 'photo')}, {_count(n_faces, 'face')}, of them {n_replaceable} that can be replaced: "
        f"{plan.n_people} people in {_count(n_clusters, 'cluster')} of at least {settings.k}."
        if anonymizer.kind(settings.method).k_anonymous
        else f"{_count(len(opened), 'photo')}, {_count(n_faces, 'face')}; --k is not used, as {settings.method!r} "
        "needs no clusters."
    ]
    if settings.mode == "per_photo":
        hidden = FILTERED if outcomes[FILTERED] else REPLACED
        n_written = sum(record["status"] == WRITTEN for record in records)
        sentences.append(
            f"{_count(outcomes[hidden], 'face')} {hidden}, {outcomes[BLURRED]} {BLURRED}; "
            f"{_count(n_written, 'photo')} written."
        )
    else:
        n_unused = sum(bool(spot.reason) for photo in opened for spot in photo.spots)
        sentences.append(
            f"{_count(len(plan.surrogates), 'surrogate')} written, a copy for each person, and no photo."
        )
        if n_unused:
            sentences.append(
                f"{_count(n_unused, 'face')} went into no surrogate (too small, turned away, at the border)."
            )
    reasons = Counter(f["reason"] for f in faces if f["outcome"] == BLURRED)
    sentences += [f"Blurred out, {reason}: {count}." for reason, count in sorted(reasons.items())]
    if plan.found is not None and plan.model is None:
        sentences.append(
            f"Only {plan.n_people} people could be told apart, fewer than k = {settings.k}: all photos with faces are "
            "suppressed. Give more photos, or a smaller --k."
        )
    n_faceless = sum(not photo.spots and not photo.damage for photo in opened)
    if n_faceless:
        done = (
            "kept, without metadata"
            if settings.keep_faceless and settings.mode == "per_photo"
            else SUPPRESSED
        )
        sentences.append(f"{_count(n_faceless, 'photo')} on which no face was found: {done}.")
    sentences += [f"Damaged: {photo.damage}" for photo in damaged]
    sentences += [gathering.unread_kind(path) or f"No image file: {path}" for path in others]
    if damaged or others:
        sentences.append(
            f"Left out: {_count(len(damaged), 'damaged file')}, {_count(len(others), 'other file')}."
        )
    if plan.n_doubtful:
        sentences.append(
            f"{_count(plan.n_doubtful, 'pair')} of people look alike and count as different; if two of them are one "
            "person, their cluster hides one person less. A larger --same-person joins them."
        )
    if settings.mode == "per_photo":
        sentences.append(
            "Look through the result: a face that no detector found is still there in the clear."
        )
    return [*sentences, _claim(settings)]
