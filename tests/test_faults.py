"""The folder command under single faults: whatever fails inside, no original face is released, and it says so."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scenes import PLACES, journal_of, run, scene

import anonymizer
import detection
import embedding
import partitioning
import release
from anonymizer import filters
from datasets.faces import read_image
from release import auditing, folder, gate, journal, leaks, pasting, replacing, report, searching, writing

#: Everything is computed here and now, whatever lies in the project's cache.
pytestmark = pytest.mark.usefixtures("module_cache")

ROOT = Path(__file__).parents[1]
NAMES = ("a.png", "b.png")


@pytest.fixture(scope="module")
def pictures(orl):
    """Two photos of four people, 260 x 520 pixels."""
    return [
        scene([orl.images[i] for i in rows], PLACES, seed=seed)
        for seed, rows in enumerate([(0, 70), (200, 310)])
    ]


@pytest.fixture
def source(pictures, tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    for name, picture in zip(NAMES, pictures, strict=True):
        Image.fromarray(picture).save(place / name)
    return place


@pytest.fixture
def quick(monkeypatch):
    """Leave out what comes after the release."""
    passed = auditing.AuditReport((), "")
    monkeypatch.setattr(folder, "audit_release", lambda *_, **__: passed)
    monkeypatch.setattr(leaks, "measure", lambda *_, **__: pd.DataFrame(columns=leaks._COLUMNS))


def assert_no_face(out, pictures):
    """No file in OUT shows one of the original faces, in any size."""
    for path in out.glob("*.png") if out.exists() else ():
        image = cv2.resize(read_image(path), (520, 260), interpolation=cv2.INTER_AREA).astype(float)
        for picture in pictures:
            for x, y, tall, _ in PLACES:
                part = np.s_[y - tall // 5 : y + tall // 5, x - tall // 6 : x + tall // 6]
                before, after = (i[part].mean(axis=2).ravel() for i in (picture.astype(float), image))
                alike = after.std() > 1 and np.corrcoef(before, after)[0, 1] > 0.97
                assert not alike, f"a face is left on {path.name}"


# ----------------------------------------------------------------------------------------------------------
# The list of faults: name -> function (monkeypatch, source), options, words of the sentence (or of several)
# ----------------------------------------------------------------------------------------------------------


def fails(error):
    def fail(*_, **__):
        raise error

    return fail


def patched(place, name, new):
    return lambda patch, _: patch.setattr(place, name, new)


def changed(place, name, change):
    """Change what a function returns; ``change`` takes the result and the arguments."""

    def inject(patch, _):
        function = getattr(place, name)
        patch.setattr(place, name, lambda *given, **more: change(function(*given, **more), *given))

    return inject


def first_only(inject):
    """The fault happens once."""

    def inject_once(patch, source):
        with pytest.MonkeyPatch.context() as other:
            place, name = inject.target
            good = getattr(place, name)
            inject(other, source)
            bad = getattr(place, name)
        calls = []

        def once(*given, **more):
            calls.append(given)
            return (bad if len(calls) == 1 else good)(*given, **more)

        patch.setattr(place, name, once)

    return inject_once


def with_target(place, name, new):
    inject = patched(place, name, new)
    inject.target = (place, name)
    return inject


def spots(**fields):
    """Change each face that the detector returns; a field is a function of the face."""
    change = changed(
        detection,
        "find_faces",
        lambda found, *_: tuple(replace(spot, **{n: f(spot) for n, f in fields.items()}) for spot in found),
    )

    def inject(patch, source):
        patch.setenv("ANONFACES_CACHE", str(source.parent / "cache"))  # it remembers landmarks
        change(patch, source)

    return inject


def sliver(_, photo, landmarks, *__):
    result = photo.copy()
    x, y = landmarks.mean(axis=0).astype(int)
    result[y - 3 : y + 3] = 0
    return result


def rewrite(scale):
    """Rewrite the photos at another size between finding and pasting."""

    def inject(patch, source):
        make_plan = folder.planning.make_plan

        def plan_then_rewrite(*given):
            plan = make_plan(*given)
            for name in NAMES:
                image = Image.open(source / name)
                image.resize((image.width * scale, image.height * scale)).save(source / name)
            return plan

        patch.setattr(folder.planning, "make_plan", plan_then_rewrite)

    return inject


def remove(patch, source):
    make_plan = folder.planning.make_plan

    def plan_then_remove(*given):
        plan = make_plan(*given)
        (source / NAMES[0]).unlink()
        (source / NAMES[1]).write_bytes(b"no photo")
        return plan

    patch.setattr(folder.planning, "make_plan", plan_then_remove)


def own_photo(model, members, *_, **__):
    return model.faces.images[members[0]]


def neighbour_mirrored(model, members, *_, **__):
    return np.ascontiguousarray(model.faces.images[members[-1]][:, ::-1])


def unfit(patch, _):
    """The faces cannot be compared, so they are blurred out."""
    spots(reason=lambda _: "too small", crop=lambda _: None, transform=lambda _: None)(patch, _)


def unfit_and(inject):
    def both(patch, source):
        unfit(patch, source)
        inject(patch, source)

    return both


FULL = OSError(28, "No space left on device")
MASK = ("--method", "mask")
BALANCED = (partitioning.PARTITIONERS, "balanced")


def partition_into(labels):
    def inject(patch, _):
        patch.setitem(partitioning.PARTITIONERS, "balanced", lambda X, *_, **__: labels(len(X)))

    return inject


SURROGATE = anonymizer.ANONYMIZERS["pixel"]
FAULTS = {
    "detector raises": (patched(detection, "find_faces", fails(RuntimeError("oops"))), (), "RuntimeError: oops"),
    "detector has no memory": (patched(detection, "find_faces", fails(MemoryError())), (), "MemoryError"),
    "detector finds nothing": (changed(detection, "find_faces", lambda *_: ()), (), "did not find a known face"),
    "detector returns NaN": (spots(box=lambda s: s.box * np.nan), (), "not finite"),
    "detector returns points": (spots(box=lambda s: s.box[[0, 1, 0, 1]]), (), "an empty box"),
    "detector is shifted": (
        spots(box=lambda s: s.box + [90, 0, 90, 0], landmarks=lambda s: s.landmarks + [90, 0]), (), "known face",
    ),
    "landmarks beside": (spots(landmarks=lambda s: s.landmarks + [120, 0]), (), "blurred out"),
    "landmarks half beside": (spots(landmarks=lambda s: s.landmarks + [70, 0]), (), "blurred out"),
    "landmarks in one point": (spots(landmarks=lambda s: s.landmarks * 0 + 60), (), "blurred out"),
    "landmarks in a line": (spots(landmarks=lambda s: s.landmarks * [1, 0] + [0, 90]), (), "blurred out"),
    "landmarks far away": (spots(landmarks=lambda s: s.landmarks * 1e7), (), "blurred out"),
    "landmarks are NaN": (spots(landmarks=lambda s: s.landmarks * np.nan), (), "not finite"),
    "transform is NaN": (spots(transform=lambda s: s.transform * np.nan), (), "not finite"),
    "descriptors raise": (patched(embedding, "embed", fails(RuntimeError("oops"))), (), "Stopped by an error"),
    "descriptors are NaN": (changed(embedding, "embed", lambda X, *_: X * np.nan), (), "cannot be described"),
    "one descriptor raises": (
        changed(embedding, "embed", lambda X, *_: X if len(X) == 1 else fails(cv2.error("oops"))()), (), "replaced",
    ),
    "surrogate raises": (
        patched(SURROGATE, "surrogate", fails(ValueError("operands could not be broadcast"))), (), "blurred out",
    ),
    "one surrogate raises": (
        first_only(with_target(SURROGATE, "surrogate", fails(cv2.error("oops")))), (), "blurred out",
    ),
    "surrogate of floats": (changed(SURROGATE, "surrogate", lambda i, *_: i * np.nan), (), "blurred out"),
    "surrogate is a member": (patched(SURROGATE, "surrogate", own_photo), (), "shows a single photo"),
    "surrogate is mirrored": (patched(SURROGATE, "surrogate", neighbour_mirrored), (), "shows a single photo"),
    "surrogate is a member, shared": (
        patched(SURROGATE, "surrogate", own_photo), ("--mode", "shared"), "shows a single photo",
    ),
    "one surrogate raises, shared": (
        first_only(with_target(SURROGATE, "surrogate", fails(cv2.error("oops")))), ("--mode", "shared"),
        "could not be made",
    ),
    "paste raises": (patched(pasting, "paste", fails(RuntimeError("oops"))), (), "RuntimeError: oops"),
    "paste does not fit": (patched(pasting, "paste", fails(cv2.error("oops"))), (), "blurred out"),
    "paste does nothing": (changed(pasting, "paste", lambda _, photo, *__: photo.copy()), (), "blurred out"),
    "paste changes a sliver": (changed(pasting, "paste", sliver), (), "blurred out"),
    "paste changes the light": (
        changed(pasting, "paste", lambda _, photo, *__: (photo * 0.7 + 20).astype(np.uint8)), (), "blurred out",
    ),
    "paste returns another size": (changed(pasting, "paste", lambda r, *_: r[:-1]), (), "blurred out"),
    "paste returns floats": (changed(pasting, "paste", lambda r, *_: r / 255), (), "blurred out"),
    "blur does nothing": (
        unfit_and(changed(pasting, "blur_out", lambda _, photo, *__: photo)), (), "can still be seen",
    ),
    "blur is weak": (
        unfit_and(changed(pasting, "blur_out", lambda _, photo, *__: cv2.GaussianBlur(photo, (0, 0), 2))), (),
        "can still be seen",
    ),
    "blur raises": (unfit_and(patched(pasting, "blur_out", fails(MemoryError()))), (), "MemoryError"),
    "filter does nothing": (patched(filters.Mask, "_change", lambda _, image, i: image), MASK, "blurred out"),
    "filter is put beside": (
        changed(filters.Mask, "_change", lambda r, *_: np.roll(r, 60, axis=1)), MASK, "",
    ),
    "filter raises": (patched(filters.Mask, "_change", fails(RuntimeError("oops"))), MASK, "RuntimeError: oops"),
    "put back does nothing": (changed(pasting, "put_back", lambda _, photo, *__: photo), MASK, "blurred out"),
    "single people": (partition_into(np.arange), (), "people must share each image"),
    "single people, shared": (partition_into(np.arange), ("--mode", "shared"), "people must share each image"),
    "labels are NaN": (partition_into(lambda n: np.full(n, np.nan)), (), "the partition 'balanced' failed"),
    "labels are too few": (partition_into(lambda n: np.zeros(1, int)), (), "the partition 'balanced' failed"),
    "no labels": (partition_into(lambda n: np.full(n, -1)), (), "the partition 'balanced' failed"),
    "partition raises": (partition_into(lambda n: 1 // 0), (), "ZeroDivisionError"),
    "encoder raises": (patched(replacing, "encode_png", fails(MemoryError())), (), "MemoryError"),
    "disk is full": (patched(replacing.utils, "save_atomic", fails(FULL)), (), "No space left"),
    "disk is full at the journal": (patched(journal.Journal, "_write", fails(FULL)), (), "No space left"),
    "release cannot be written": (patched(writing.shutil, "copyfile", fails(FULL)), (), "No space left"),
    "release cannot be renamed": (patched(writing.Path, "rename", fails(FULL)), (), "No space left"),
    "audit raises": (patched(folder, "audit_release", fails(RuntimeError("oops"))), (), "Do not share"),
    "attack raises": (patched(leaks, "measure", fails(RuntimeError("oops"))), (), "The attack on the release failed"),
    "report raises": (patched(report, "make_report", fails(FULL)), (), "The report failed"),
    "photos grow": (rewrite(2), (), "the photo was changed during the run"),
    "photos disappear": (remove, (), "could not be replaced"),
}  # fmt: skip

#: Nothing was harmed: each face is replaced or blurred out.
HARMLESS = {"blurred out", "cannot be described", "shows a single photo", "replaced", ""}


@pytest.mark.parametrize("name", FAULTS)
def test_a_single_fault_releases_no_face(source, pictures, tmp_path, monkeypatch, capsys, quick, name):
    inject, options, words = FAULTS[name]
    inject(monkeypatch, source)
    status = run(source, tmp_path / "out", "--k", "2", "--method", "pixel", *options)
    printed = capsys.readouterr()
    assert_no_face(tmp_path / "out", pictures)
    assert words in printed.out + printed.err
    assert status == 1 or (status == 0 and words in HARMLESS)
    assert not list(tmp_path.rglob(".partial-*"))


# ----------------------------------------------------------------------------------------------------------
# The gate
# ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def face(pictures):
    """A photo and one of its faces."""
    return pictures[0], detection.find_faces(pictures[0])[0]


@pytest.mark.parametrize(
    ("change", "is_left"),
    [
        (lambda photo, _: photo.copy(), True),
        (lambda photo, _: (photo * 0.5 + 60).astype(np.uint8), True),
        (lambda photo, _: 255 - photo, True),
        (lambda photo, _: np.full_like(photo, 90), False),
        (lambda photo, _: np.ascontiguousarray(photo[:, ::-1]), False),
        (
            lambda photo, _: np.where(np.arange(photo.shape[1])[:, None] < 112, 90, photo).astype(np.uint8),
            True,
        ),
        (
            lambda photo, _: np.where(np.arange(photo.shape[0])[:, None, None] < 130, 90, photo).astype(
                np.uint8
            ),
            True,
        ),
        (lambda photo, spot: pasting.blur_out(photo, spot.box, spot.landmarks), False),
    ],
)
@pytest.mark.parametrize("outcome", [journal.REPLACED, journal.FILTERED, journal.BLURRED])
def test_the_gate_sees_what_is_left_of_a_face(face, change, is_left, outcome):
    photo, spot = face
    assert gate.is_left(photo, change(photo, spot), spot.box, outcome) == is_left


@pytest.mark.parametrize(
    "box", [[np.nan, 0, 9, 9], [9, 9, 9, 9], [40, 9, 20, 30], [900, 0, 990, 90], [-9, -9, 0, 0]]
)
def test_a_box_beside_the_photo_hides_nothing(face, box):
    photo, _ = face
    assert gate.is_left(photo, 255 - photo, box, journal.BLURRED)
    with pytest.raises(ValueError, match="of a face to blur out"):
        pasting.blur_out(photo, np.array(box, dtype=float))


def test_surrogates_are_no_single_photos(orl_people):
    model = anonymizer.load("pixel", orl_people)
    mixed = [model.surrogate(rows) for rows in np.arange(40).reshape(20, 2)]
    assert not any(gate.single_photos(mixed, orl_people))
    photos = orl_people.images[:4]
    shown = [*photos[:2], photos[2][:, ::-1], cv2.resize(photos[3], None, fx=1.5, fy=1.5)]
    assert all(gate.single_photos([np.ascontiguousarray(image) for image in shown], orl_people))


@pytest.mark.parametrize("method", ["blur", "pixelate", "mask"])
def test_filters_hide_the_whole_photo_where_landmarks_are_of_no_use(orl_people, monkeypatch, method):
    model = anonymizer.load(method, orl_people.select([0]))
    for landmarks in (np.full((68, 2), np.nan), np.full((68, 2), 40.0), np.full((68, 2), 9e9)):
        model.landmarks = landmarks[None]
        corners = model.apply(0)[[0, -1], :][:, [0, -1]]
        assert not np.array_equal(model.apply(0)[:20], orl_people.images[0][:20])
        assert corners.shape == (2, 2, 3)


# ----------------------------------------------------------------------------------------------------------
# Photos without faces
# ----------------------------------------------------------------------------------------------------------


def meadows(place, count):
    place.mkdir()
    for seed in range(count):
        Image.fromarray(scene([], [], seed=90 + seed)).save(place / f"{seed}.png")
    return place


def test_photos_without_any_face_are_not_all_kept(tmp_path, capsys):
    assert run(meadows(tmp_path / "in", 5), tmp_path / "out", "--keep-faceless") == 2
    assert "no face was found on any of 5 photos" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_faceless_photo_is_kept_only_if_the_detector_works_on_it(tmp_path, monkeypatch, quick):
    place, find = meadows(tmp_path / "in", 3), detection.find_faces
    blind = read_image(place / "1.png")[0, 0]
    monkeypatch.setattr(
        detection,
        "find_faces",
        lambda image, *rest: () if (image[0, 0] == blind).all() else find(image, *rest),
    )
    assert run(place, tmp_path / "out", "--keep-faceless") == 1
    records = journal_of(tmp_path / "out")
    assert [records[f"{i}.png"]["status"] for i in range(3)] == [
        journal.WRITTEN,
        journal.FAILED,
        journal.WRITTEN,
    ]
    assert records["1.png"]["reason"] == "the face detector did not find a known face"


@pytest.mark.parametrize("size", [(16, 16), (40, 900), (300, 200), (1500, 2000)])
def test_the_known_face_is_found_on_pictures_of_any_size(size):
    searching.check_detector(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))


# ----------------------------------------------------------------------------------------------------------
# Interruptions, and two runs at once
# ----------------------------------------------------------------------------------------------------------

MAKE = ("--k", "2", "--method", "pixel")


def private(out, name):
    return out.with_name(out.name + "-private") / name


def assert_complete(out):
    """The ledger names the released files, the report is there, and nothing unfinished is left."""
    ledger = json.loads(private(out, "ledger.json").read_text())
    assert {entry["file"] for entry in ledger["photos"]} - {None} == {path.name for path in out.glob("*.png")}
    assert {path.name for path in private(out, "").iterdir()} == {
        "ledger.json", "ledger-faces.jsonl", "ledger-report.html",
    }  # fmt: skip
    assert not list(out.parent.rglob(".partial-*"))
    assert release.audit_release(out, ledger=private(out, "ledger.json")).passed


STEPS = {
    "photos": (replacing, "_make_photo"),
    "writing": (writing.shutil, "copyfile"),
    "ledger": (writing.Path, "rename"),
    "audit": (folder, "audit_release"),
    "attack": (leaks, "measure"),
    "report": (report, "make_report"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_the_same_command_goes_on_after_an_interruption(source, tmp_path, monkeypatch, capsys, step, stop):
    place, name = STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(place, name, fails(stop()))
        if stop is SystemExit:
            with pytest.raises(SystemExit):
                run(source, tmp_path / "out", *MAKE)
        else:
            assert run(source, tmp_path / "out", *MAKE) == 130
    assert not private(tmp_path / "out", "ledger-report.html").exists()
    assert run(source, tmp_path / "out", *MAKE) == 0
    assert "Report: " in capsys.readouterr().out
    assert_complete(tmp_path / "out")


def test_a_release_without_its_ledger_gets_it(source, tmp_path, monkeypatch):
    """Killed between the two renames."""
    out = tmp_path / "out"
    assert run(source, out, *MAKE) == 0
    place = private(out, ".partial-ledger-abcdefgh")
    place.mkdir()
    private(out, "ledger.json").rename(place / writing._PENDING)
    private(out, "ledger-report.html").unlink()
    assert run(source, out, *MAKE) == 0
    assert_complete(out)


def test_a_ledger_of_another_release_is_not_taken(source, tmp_path):
    place = tmp_path / "out-private" / ".partial-ledger-abcdefgh"
    place.mkdir(parents=True)
    (place / writing._PENDING).write_text('{"photos": [{"file": "a.png"}]}')
    (tmp_path / ".partial-out-abcdefgh").mkdir()
    assert run(source, tmp_path / "out", *MAKE) == 0
    assert_complete(tmp_path / "out")


def test_a_missing_report_is_made_again(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(source, out, *MAKE) == 0
    files = {path: path.stat().st_mtime_ns for path in (*out.iterdir(), private(out, "ledger.json"))}
    private(out, "ledger-report.html").unlink()
    capsys.readouterr()
    assert run(source, out, *MAKE) == 0
    assert "the released face identifies" in capsys.readouterr().out
    assert files == {path: path.stat().st_mtime_ns for path in files}
    assert_complete(out)


def test_a_photo_that_failed_fails_the_finished_run_too(source, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        bad, paste = read_image(source / NAMES[0])[0, 0], pasting.paste
        patch.setattr(
            pasting,
            "paste",
            lambda photo, *rest: (
                fails(RuntimeError("oops"))() if (photo[0, 0] == bad).all() else paste(photo, *rest)
            ),
        )
        assert run(source, tmp_path / "out", *MAKE) == 1
    capsys.readouterr()
    assert run(source, tmp_path / "out", *MAKE) == 1
    assert (
        "Not released, its faces could not be replaced (RuntimeError: oops): 1 photo."
        in capsys.readouterr().out
    )


def test_two_runs_do_not_use_one_folder(source, tmp_path, capsys):
    out = tmp_path / "out"
    with writing.locked(private(out, "")):
        (private(out, "") / "other").write_text("")
        assert run(source, out, *MAKE) == 2
    assert "another run is using" in capsys.readouterr().err
    assert not out.exists()
    assert run(source, out, *MAKE) == 0


def test_an_unused_private_folder_is_removed(tmp_path):
    with pytest.raises(RuntimeError), writing.locked(tmp_path / "private"):
        raise RuntimeError
    assert not (tmp_path / "private").exists()


def test_a_killed_run_goes_on(source, pictures, tmp_path):
    """Kill -9 at several moments, one after another."""
    out = tmp_path / "out"
    command = [sys.executable, "-W", "ignore", "-m", "anonymizer", str(source), str(out), "--quick", *MAKE]
    for delay in (3.0, 4.0, 5.0):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert_no_face(out, pictures)
    assert run(source, out, *MAKE) == 0
    assert_complete(out)
