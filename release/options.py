"""The options of the folder command, and their checks before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import anonymizer
import embedding
import partitioning
from checks import Choice, Number, ParameterError, check_all_known, check_fields
from release import alike
from release.layout import MODES
from release.people import SAME_PERSON

#: Anonymizers to choose from: all that hide a face.
METHODS = [name for name in (*anonymizer.ANONYMIZERS, *anonymizer.VARIANTS) if name != "none"]

#: Released photos have at most this many pixels on the longer side.
LARGEST_SIDE = 2048

#: Default options of a method for people whom the bundled network does not know.
_OWN_PHOTOS: dict[str, dict] = {"cnn": {"proxy": 10}}


@dataclass(frozen=True)
class FolderOptions:
    """Options of one run; ``python -m anonymizer --help`` explains them.

    Attributes
    ----------
    source, out : Path
        PHOTOS, a folder or a single photo, and OUT.
    ledger : Path, optional
        By default ``OUT-private/ledger.json``. All other private files are in the same folder.
    options : dict
        Options of the anonymizer.
    alike : tuple of str
        Names in `release.alike.TRAITS`.
    keep, only : Path, optional
        Photos of the people to keep as they are, or to replace alone.
    pool : Path, optional
        Photos of other people, who fill the clusters.
    audio : {"drop", "keep"}
        What becomes of the sound of videos.
    crf : int
        Quality of videos: x264's constant rate factor.
    thorough : bool
        Whether to search each photo at two scales and rotated.
    """

    source: Path
    out: Path
    ledger: Path | None = None
    k: Annotated[int, Number(int, at_least=2)] = 5
    method: Annotated[str, Choice(METHODS)] = "aam"
    options: dict = field(default_factory=dict)
    mode: Annotated[str, Choice(MODES)] = "per_photo"
    embedding: str = "dlib"
    partitioner: Annotated[str, Choice(partitioning.PARTITIONERS)] = "balanced"
    people: Annotated[str, Choice(("faces", "folders"))] = "faces"
    same_person: Annotated[float, Number(above=0)] = SAME_PERSON
    alike: tuple[str, ...] = ()
    keep: Path | None = None
    only: Path | None = None
    pool: Path | None = None
    thorough: bool = True
    keep_faceless: bool = False
    audio: Annotated[str, Choice(("drop", "keep"))] = "drop"
    crf: Annotated[int, Number(int, at_least=0, at_most=51)] = 18
    largest_side: Annotated[int, Number(int, at_least=64)] = LARGEST_SIDE
    seed: Annotated[int, Number(int, at_least=0)] = 0
    workers: Annotated[int, Number(int, at_least=-1)] = 1
    verbose: bool = False

    def __post_init__(self):
        check_fields(self)
        if self.workers == 0:
            raise ParameterError("workers must be at least 1, or -1 for all cores, got 0")
        check_all_known("trait", self.alike, alike.TRAITS)
        if self.ledger is None:
            out = self.out.absolute()
            object.__setattr__(self, "ledger", out.with_name(out.name + "-private") / "ledger.json")

    @property
    def k_anonymous(self) -> bool:
        """Whether the method makes surrogates, which can be shared."""
        return anonymizer.kind(self.method).k_anonymous

    @property
    def method_options(self) -> dict:
        """The anonymizer's options: the given options, or the defaults for the user's own photos."""
        return self.options or _OWN_PHOTOS.get(self.method, {})

    @property
    def given_by(self) -> str | None:
        """The option that gives photos of people, ``"keep"`` or ``"only"``, if any."""
        return next((name for name in ("keep", "only") if getattr(self, name) is not None), None)

    @property
    def given(self) -> Path | None:
        """The folder of that option."""
        return self.keep if self.keep is not None else self.only

    @property
    def folder(self) -> Path:
        """The folder of the photos: PHOTOS, or the folder of a single photo."""
        return self.source.parent if self.source.is_file() else self.source

    @property
    def report(self) -> Path:
        """The private HTML report."""
        return self._beside_ledger("-report.html")

    @property
    def journal(self) -> Path:
        """The private file that records the outcome of each face."""
        return self._beside_ledger("-faces.jsonl")

    @property
    def work(self) -> Path:
        """The folder that holds finished photos until all are done."""
        return self._beside_ledger("-unfinished")

    @property
    def search(self) -> Path:
        """The folder that holds what was found in videos."""
        return self._beside_ledger("-search")

    def _beside_ledger(self, end: str) -> Path:
        return self.ledger.with_name(self.ledger.stem + end)

    def name_of(self, path: Path) -> str:
        """Return the name of a photo in the journal and ledger: its path in PHOTOS."""
        return path.relative_to(self.folder).as_posix()

    def finished_file(self, number: int, suffix: str = ".png") -> Path:
        """Return the file that holds photo or video `number` until all are done."""
        return self.work / f"{number:06d}{suffix}"


def check_request(options: FolderOptions) -> None:
    """Check the options before any work is done.

    Raises
    ------
    ValueError
        If options contradict each other, or OUT, PHOTOS and the ledger would mix originals and release.
    FileNotFoundError
        If PHOTOS or a model does not exist.
    """
    _check_embedding(options)
    _check_given(options)
    _check_pool(options)
    anonymizer.check_options(options.method, options.options)
    if options.mode == "shared" and not options.k_anonymous:
        raise ParameterError(
            f"the method {options.method!r} changes each photo separately, so it has no surrogates to share; use "
            "--mode per_photo, or a method like aam"
        )
    if options.alike:
        if not options.k_anonymous:
            raise ParameterError(
                f"--alike needs clusters, and {options.method!r} makes none; use a method like aam"
            )
        alike.check_traits_known()
    source, out, ledger = (path.resolve() for path in (options.source, options.out, options.ledger))
    if not source.exists():
        raise FileNotFoundError(f"{options.source}: no such file or folder")
    if out.is_relative_to(source) or source.is_relative_to(out):
        inner, outer = ("OUT", "PHOTOS") if out.is_relative_to(source) else ("PHOTOS", "OUT")
        raise ParameterError(f"{inner} is inside {outer}: originals would be shared; choose another folder")
    for folder, name in ((out, "OUT"), (source, "PHOTOS")):
        if ledger.is_relative_to(folder):
            raise ParameterError(f"the ledger would be inside {name}; it identifies people, keep it private")
    if out.exists() and not out.is_dir():
        raise ParameterError(f"{options.out}: is a file; OUT must be a folder")


def check_videos(options: FolderOptions, videos: Sequence[Path]) -> None:
    """Raise ParameterError if an option does not work with videos."""
    faults = {
        "--mode shared writes no videos": options.mode == "shared",
        f"--{options.given_by} works on photos only": options.given is not None,
        "--people folders works on photos only": options.people == "folders",
        f"--method {options.method} works on photos only": not options.k_anonymous,
    }
    for fault, applies in faults.items():
        if applies and videos:
            raise ParameterError(
                f"{fault}; leave the option out, or put the videos elsewhere (first: {videos[0]})"
            )


def _check_pool(options: FolderOptions) -> None:
    if options.pool is None:
        return
    folder, out = options.pool.resolve(), options.out.resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{options.pool}: no such folder of photos for --pool")
    if folder.is_relative_to(out) or out.is_relative_to(folder):
        raise ParameterError(
            "the folder of --pool and OUT must not be inside each other: its photos would be shared"
        )
    if options.mode == "shared" or options.people == "folders" or not options.k_anonymous:
        raise ParameterError(
            "--pool fills the clusters of surrogates that are pasted into photos and videos; leave it out with --mode "
            "shared, with --people folders, and with a --method that needs no clusters"
        )


def _check_embedding(options: FolderOptions) -> None:
    known = [name for name in embedding.EMBEDDINGS if name != "stored"]  # nothing is stored for these faces
    embedder, path = embedding.split_name(options.embedding, known)
    if path and not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such model for --embedding")
    if embedder != "dlib" and options.same_person == SAME_PERSON:
        raise ParameterError(
            f"--same-person is {SAME_PERSON}, the distance for dlib; pass the distance below which two faces are one "
            f"person for {embedder!r}"
        )


def _check_given(options: FolderOptions) -> None:
    if options.keep is not None and options.only is not None:
        raise ParameterError(
            "--keep and --only exclude each other: give the people to keep, or those to replace"
        )
    if options.given is None:
        return
    folder, out = options.given.resolve(), options.out.resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"{options.given}: no such folder of photos for --{options.given_by}")
    if folder.is_relative_to(out) or out.is_relative_to(folder):
        raise ParameterError(
            f"the folder of --{options.given_by} and OUT must not be inside each other: its photos would be shared"
        )
