"""A folder of ordinary photos -> a folder that can be handed on: `python -m anonymizer`."""

import hashlib
import json
import re
import stat
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import ON_PHOTO, SKIN, fill, journal_of, run, scene

import detection
import release
import utils
from anonymizer.__main__ import _make_parser, main, read_options
from datasets.faces import is_grey, read_image
from detection import Spot
from release import gathering, journal, leaks, pasting, planning, replacing
from release.people import doubtful_pairs, group_people
from release.pose import _MEAN_FACE, Pose

#: Everything is computed here and now, whatever lies in the project's cache.
pytestmark = pytest.mark.usefixtures("module_cache")

#: A busy machine may take its time.
untimed = settings(deadline=None)


@pytest.fixture(scope="module")
def source(orl, tmp_path_factory):
    """Four photos of five people, one without a face, one cut short, and a text."""
    place = tmp_path_factory.mktemp("photos")
    fill(place, orl)
    return place


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    """One release, pasted back, at k = 2."""
    out = tmp_path_factory.mktemp("made") / "out"
    assert run(source, out, "--k", "2", "--method", "aam") == 0
    return out


def pairs(source, out):
    """Originals and what they became, by the journal and the ledger: name -> (before, after)."""
    ledger = json.loads((out.with_name(out.name + "-private") / "ledger.json").read_text())
    return {
        entry["photo"]: (read_image(source / entry["photo"]), read_image(out / entry["file"]))
        for entry in ledger["photos"]
        if entry["file"]
    }


# ----------------------------------------------------------------------------------------------------------
# A whole run
# ----------------------------------------------------------------------------------------------------------


def test_every_face_is_replaced_in_its_place(source, finished):
    made = pairs(source, finished)
    assert set(made) == set(ON_PHOTO)
    records = journal_of(finished)
    for name, (before, after) in made.items():
        assert before.shape == after.shape
        assert len(records[name]["faces"]) == 2
        changed = np.abs(before.astype(int) - after).max(axis=2)
        for face in records[name]["faces"]:
            assert face["outcome"] == replacing.REPLACED
            left, top, right, bottom = (int(side) for side in face["box"])
            assert changed[top:bottom, left:right].mean() > 4
            margin = (right - left) * 3 // 4  # so far hair and ears may move
            changed[max(top - margin, 0) : bottom + margin, max(left - margin, 0) : right + margin] = 0
        assert not changed.any()  # PNG: nothing else moves by a single level


def test_people_are_told_apart_and_share_clusters(finished):
    records = journal_of(finished)
    people = {name: [face["person"] for face in records[name]["faces"]] for name in ON_PHOTO}
    (anna, beth), (beth_again, carl) = people["anna-beth.jpg"], people["beth-carl.jpg"]
    dora, emil = people["dora-emil.jpg"]
    assert people["anna-emil.jpg"] == [anna, emil]
    assert beth_again == beth
    assert len({anna, beth, carl, dora, emil}) == 5
    clusters = {}
    for record in records.values():
        for face in record["faces"]:
            clusters.setdefault(face["cluster"], set()).add(face["person"])
    assert sorted(map(len, clusters.values())) == [2, 3]
    assert not set.intersection(*clusters.values())


def test_release_passes_its_audit_and_holds_no_metadata(finished):
    assert release.audit_release(finished).passed
    for path in finished.glob("*.png"):
        with Image.open(path) as image:
            assert not image.getexif() and not image.info
        assert b"somebody" not in path.read_bytes()
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["mode"] == "per_photo" and manifest["k"] is None


def test_private_files_are_for_their_owner_alone(finished):
    private = finished.with_name("out-private")
    assert {path.name for path in private.iterdir()} == {
        "ledger.json",
        "ledger-faces.jsonl",
        "ledger-report.html",
    }
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in private.iterdir())
    assert stat.S_IMODE(finished.stat().st_mode) == 0o755
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in finished.iterdir())


def test_damaged_and_faceless_photos_are_suppressed_with_a_reason(finished):
    records = journal_of(finished)
    assert (records["meadow.png"]["status"], records["meadow.png"]["reason"]) == (
        "suppressed",
        replacing._NO_FACE,
    )
    assert records["cut.jpg"]["status"] == "damaged"
    assert "is cut short; copy it again" in records["cut.jpg"]["reason"]


def test_report_shows_photos_and_people_and_names_no_file(source, finished):
    page = (finished.with_name("out-private") / "ledger-report.html").read_text()
    assert page.count('alt="after"') == page.count('alt="before"') == 4
    assert page.count('alt="face"') == 8 and page.count('<div class="person') == 5
    assert "not k-anonymous" in page.lower() and leaks._CONTEXT in page
    assert "as private as the ledger" in page
    assert all(path.name in page for path in finished.glob("*.png"))
    assert not any(name in page for name in ON_PHOTO)


def test_output_is_in_plain_words_and_names_no_photo(source, tmp_path, capsys):
    run(source, tmp_path / "out", "--k", "2", "--method", "pixel")
    printed = capsys.readouterr().out
    assert "6 photos, 8 faces, 8 of which can be replaced: 5 people in 2 clusters of at least 2." in printed
    assert "8 faces replaced, 0 blurred out; 4 photos written." in printed
    assert "1 photo without a detected face: suppressed." in printed
    assert "Left out: 1 damaged file, 1 other file." in printed
    lines = printed.splitlines()
    for line in (lines[0], lines[-1]):
        assert line.startswith("Not k-anonymous") and "--mode shared is k-anonymous" in line
    assert re.search(
        r"attack in the report identifies up to \d+% of 5 people \(.*\); a blind guess 20%", lines[-1]
    )
    assert "cut.jpg" in printed and "notes.txt" in printed
    assert not any(name in printed for name in [*ON_PHOTO, "meadow.png"])


def test_finished_photos_are_not_made_again(source, tmp_path, monkeypatch, capsys):
    made, original = [], replacing._make_photo

    def count(photo, *rest):
        made.append(photo.path.name)
        return original(photo, *rest)

    def stop_after_two(*arguments):
        if len(made) == 2:
            raise KeyboardInterrupt
        return count(*arguments)

    monkeypatch.setattr(replacing, "_make_photo", stop_after_two)
    assert run(source, tmp_path / "out", "--k", "2", "--method", "pixel") == 130
    assert "run the same command again to resume" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # a half-made release cannot be mistaken for a whole one
    first = list(made)
    monkeypatch.setattr(replacing, "_make_photo", count)
    run(source, tmp_path / "out", "--k", "2", "--method", "pixel")
    assert sorted(made) == sorted(ON_PHOTO)
    assert made[:2] == first
    assert len(list((tmp_path / "out").glob("*.png"))) == 4
    capsys.readouterr()
    assert run(source, tmp_path / "out", "--k", "2", "--method", "pixel") == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run(source, tmp_path / "out", "--k", "3", "--method", "pixel") == 2
    assert "started with other photos, options or code" in capsys.readouterr().err


def test_a_changed_unfinished_file_is_made_again(source, tmp_path):
    path = tmp_path / "journal.jsonl"
    first = journal.Journal(path, "key")
    target = tmp_path / "photo.png"
    target.write_bytes(b"content")
    first.add({"source": "a", "status": journal.WRITTEN, "sha256": hashlib.sha256(b"content").hexdigest()})
    with path.open("a") as file:
        file.write('{"source": "b", "sta')  # cut short
    again = journal.Journal(path, "key")
    assert set(again.done) == {"a"} and again.finished("a", target)
    again.add({"source": "c", "status": journal.SUPPRESSED})
    assert set(journal.Journal(path, "key").done) == {"a", "c"}
    target.write_bytes(b"changed")
    assert not again.finished("a", target)


def test_shared_mode_writes_one_copy_a_person(source, tmp_path, capsys):
    assert run(source, tmp_path / "out", "--k", "2", "--method", "aam", "--mode", "shared") == 0
    assert "the shared surrogate identifies" in capsys.readouterr().out
    files = list((tmp_path / "out").glob("*.png"))
    contents = [path.read_bytes() for path in files]
    assert sorted(contents.count(content) for content in set(contents)) == [2, 3]
    audit = release.audit_release(tmp_path / "out")
    assert audit.passed and audit["k-anonymity"].passed


def test_too_few_people_are_suppressed(source, tmp_path, capsys):
    assert run(source, tmp_path / "out", "--k", "6") == 1
    printed = capsys.readouterr().out
    assert "Only 5 people were told apart, fewer than k = 6" in printed
    assert "Nothing could be released" in printed
    assert not (tmp_path / "out").exists()
    reasons = {name: record["reason"] for name, record in journal_of(tmp_path / "out").items()}
    assert {reasons[name] for name in ON_PHOTO} == {replacing._TOO_FEW}
    assert run(source, tmp_path / "out", "--k", "2", "--method", "pixel") == 0  # the places are free again
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


def test_faceless_photos_are_kept_on_request(source, tmp_path):
    run(source, tmp_path / "out", "--k", "2", "--method", "pixel", "--keep-faceless")
    before, after = pairs(source, tmp_path / "out")["meadow.png"]
    assert np.array_equal(before, after)


def test_filters_change_the_face_alone_and_claim_nothing(source, tmp_path, capsys):
    run(source, tmp_path / "out", "--method", "mask")
    assert "Not k-anonymous" in capsys.readouterr().out
    for name, (before, after) in pairs(source, tmp_path / "out").items():
        for face in journal_of(tmp_path / "out")[name]["faces"]:
            assert face["outcome"] == replacing.FILTERED
            x, y = (int(v) for v in np.add(face["box"][:2], face["box"][2:]) / 2)
            assert (after[y, x] == 127).all()
        assert np.array_equal(before[:8], after[:8])


def test_workers_change_nothing(source, finished, tmp_path):
    assert run(source, tmp_path / "out", "--k", "2", "--method", "aam", "--workers", "2") == 0
    contents = [
        sorted(path.read_bytes() for path in out.glob("*.png")) for out in (finished, tmp_path / "out")
    ]
    assert len(contents[0]) == 4 and contents[0] == contents[1]
    assert journal_of(tmp_path / "out") == journal_of(finished)


def test_a_face_that_cannot_be_pasted_is_blurred_out(source, tmp_path, monkeypatch, capsys):
    pasted, original = [], pasting.paste

    def fail_once(photo, landmarks, *rest):
        pasted.append(landmarks)
        if len(pasted) == 2:
            raise cv2.error("no such warp")
        return original(photo, landmarks, *rest)

    monkeypatch.setattr(pasting, "paste", fail_once)
    assert run(source, tmp_path / "out", "--k", "2", "--method", "pixel") == 0
    printed = capsys.readouterr().out
    assert "7 faces replaced, 1 blurred out" in printed
    assert f"Blurred out, {replacing._NOT_PASTED}: 1." in printed
    faces = [
        (name, face) for name, record in journal_of(tmp_path / "out").items() for face in record["faces"]
    ]
    name, face = next((n, f) for n, f in faces if f["outcome"] == replacing.BLURRED)
    before, after = pairs(source, tmp_path / "out")[name]
    left, top, right, bottom = (int(side) for side in face["box"])
    fine = [np.abs(np.diff(image[top:bottom, left:right].astype(float), axis=0)) for image in (before, after)]
    assert fine[1].mean() < 0.3 * fine[0].mean()  # no detail of the face is left


def test_people_can_be_named_by_folders(orl, tmp_path):
    for name, row in (("anna", 0), ("anna", 5), ("ben", 200)):
        (tmp_path / "in" / name).mkdir(parents=True, exist_ok=True)
        big, small = orl.images[row], orl.images[310]
        image = scene([big, small], [(130, 130, 220, 0), (400, 130, 150, 0)], seed=row)
        Image.fromarray(image).save(tmp_path / "in" / name / f"{row}.png")
    run(tmp_path / "in", tmp_path / "out", "--k", "3", "--method", "pixel", "--people", "folders")
    records = journal_of(tmp_path / "out")
    people = {name: [face["person"] for face in record["faces"]] for name, record in records.items()}
    assert people["anna/0.png"][0] == people["anna/5.png"][0] != people["ben/200.png"][0]
    assert len({faces[1] for faces in people.values()}) == 1  # who has no name is known by the face
    assert len({person for faces in people.values() for person in faces}) == 3


def test_folders_whose_names_look_the_same_are_one_person():
    names = ["Müller", "Mu\u0308ller ", "Meier", "meier"]
    photos = [
        SimpleNamespace(path=Path("in") / name / "0.png", spots=[Spot((0, 0, 9, 9), None, 1)])
        for name in names
    ]
    found = SimpleNamespace(photo=np.arange(4), place=np.zeros(4, int))
    with pytest.warns(UserWarning, match="2 names (look the same|differ in case only)") as warned:
        folders = planning._folders(SimpleNamespace(folder=Path("in")), photos, found)
    assert folders == ["Müller", "Müller", "Meier", "meier"] and len(warned) == 2


# ----------------------------------------------------------------------------------------------------------
# What is refused
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        ("in/out", [], "OUT is inside PHOTOS"),
        ("in", [], "OUT is inside PHOTOS"),
        (".", [], "PHOTOS is inside OUT"),
        ("out", ["--ledger", "out/ledger.json"], "the ledger would be inside OUT"),
        ("out", ["--ledger", "in/ledger.json"], "the ledger would be inside PHOTOS"),
        ("out", ["--k", "1"], "k must be an integer of at least 2, got 1"),
        ("out", ["--workers", "0"], "workers must be"),
        ("out", ["--same-person", "0"], "same_person must be"),
        ("out", ["--largest-side", "10"], "largest_side must be"),
        ("out", ["--mode", "shared", "--method", "blur"], "no surrogates to share"),
        ("out", ["--option", "proxy"], "NAME=VALUE"),
        ("out", ["--option", "proxy=3"], "'aam' has no option 'proxy'; its options are: keep_combined"),
        ("out", ["--method", "mask", "--option", "strength=1"], "its options are: none"),
        ("out", ["--embedding", "dlip"], "choose from 'dlib', 'pca', 'facenet', 'onnx:PATH'"),
        ("out", ["--embedding", "onnx"], "choose from 'dlib'"),
        ("out", ["--embedding", "onnx:missing.onnx", "--same-person", "0.9"], "no such model"),
        ("out", ["--embedding", "facenet"], "the distance for dlib"),
        ("out", ["--people", "folders"], "1 photo not in any sub-folder"),
        ("full", [], "not empty"),
        ("file", [], "is a file"),
    ],
)
def test_bad_requests_are_refused_before_any_work(tmp_path, capsys, out, options, message):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "in" / "a.png")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    options = [str(tmp_path / option) if "/" in option else option for option in options]
    assert main([str(tmp_path / "in"), str(tmp_path / out), *options]) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_or_empty_folders_are_refused(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err
    (tmp_path / "in").mkdir()
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert "no photos" in capsys.readouterr().err


def test_the_unchanged_photo_is_no_method(tmp_path):
    (tmp_path / "in").mkdir()

    def parse(*options):
        return read_options(
            _make_parser().parse_args([str(tmp_path / "in"), str(tmp_path / "out"), *options])
        )

    with pytest.raises(SystemExit):
        parse("--method", "none")
    chosen = parse("--method", "cnn", "--option", "proxy=3", "--option", "show=members")
    assert chosen.options == chosen.method_options == {"proxy": 3, "show": "members"}
    assert parse("--method", "cnn").method_options == {"proxy": 10}  # the network knows none of these people
    assert parse().method_options == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.NEF", "raw camera files are not supported"),
        ("a.txt", "no photos"),
    ],
)
def test_files_that_are_not_read_say_why(tmp_path, capsys, name, message):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes(b"content")
    for place in (folder, folder / name):
        assert main([str(place), str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_empty_photo_is_damaged(tmp_path):
    (tmp_path / "a.heic").touch()
    assert gathering._open_photo(tmp_path / "a.heic").damage.endswith(
        "file is empty; remove it or copy it again"
    )


def test_left_out_files_are_counted_by_kind(source, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    frames = [Image.fromarray(scene([], [], seed=seed)) for seed in (9, 10)]
    frames[0].save(folder / "pages.tif", save_all=True, append_images=frames[1:])
    (folder / "cut.jpg").write_bytes((source / "cut.jpg").read_bytes())
    for name in ("c.dng", "notes.txt"):
        (folder / name).write_bytes(b"content")
    assert run(folder, tmp_path / "out", "--method", "mask") == 1  # there is no face
    printed = capsys.readouterr().out
    assert "Left out: 1 damaged file, 1 raw file, 1 other file." in printed
    assert "1 file with several images (frames, pages): the first or main one of each is used." in printed
    assert (
        f"{folder / 'c.dng'}: raw camera files are not supported; save the photo as JPEG or PNG first"
        in printed
    )


def test_a_single_photo_is_a_folder_of_one(source, tmp_path, capsys):
    photo = source / "anna-beth.jpg"
    assert run(photo, tmp_path / "out", "--method", "mask") == 0
    assert "1 photo, 2 faces" in capsys.readouterr().out
    before, after = pairs(source, tmp_path / "out")[photo.name]
    assert not np.array_equal(before, after)
    assert journal_of(tmp_path / "out").keys() == {photo.name}
    assert run(photo, tmp_path / "few", "--k", "3") == 1
    assert "Only 2 people were told apart, fewer than k = 3" in capsys.readouterr().out
    assert main([str(photo), str(source)]) == 2
    assert "PHOTOS is inside OUT" in capsys.readouterr().err
    assert main([str(photo), str(tmp_path / "named"), "--people", "folders"]) == 2
    assert "1 photo not in any sub-folder" in capsys.readouterr().err


# ----------------------------------------------------------------------------------------------------------
# Finding faces
# ----------------------------------------------------------------------------------------------------------


def test_tilted_faces_are_turned_upright(orl):
    image = scene([orl.images[0], orl.images[70]], [(150, 150, 190, 60), (420, 150, 190, -90)], (300, 580))
    spots = detection.find_faces(image)
    assert [spot.reason for spot in spots] == ["", ""]
    for spot in spots:
        eyes = detection.eye_centres(detection.detect([spot.crop]).landmarks[0])
        across, down = eyes[1] - eyes[0]
        assert across > 0 and abs(down) < 0.12 * across
        moved = detection.move_points(spot.landmarks, spot.transform)
        assert np.abs(detection.eye_centres(moved) - eyes).max() < 0.05 * across


def test_faces_that_cannot_be_replaced_say_why(orl):
    image = scene([orl.images[0], orl.images[70]], [(110, 118, 200, 0), (330, 118, 70, 0)], (260, 420))
    cut_off = image[:, 90:]
    reasons = [spot.reason for spot in detection.find_faces(cut_off, thorough=False)]
    assert detection._AT_BORDER in reasons or detection._NO_LANDMARKS in reasons
    tiny = scene([orl.images[70]], [(60, 60, 62, 0)], (120, 160))
    small = detection.find_faces(
        cv2.resize(tiny, None, fx=0.55, fy=0.55, interpolation=cv2.INTER_AREA), thorough=False
    )
    assert all(spot.reason for spot in small)


def test_spots_come_back_from_the_cache(source):
    path = source / "anna-beth.jpg"
    first, again = gathering._open_photo(path, thorough=False), gathering._open_photo(path, thorough=False)
    image = read_image(path)
    direct = [detection._inspect(image, found) for found in detection._search(image, thorough=False)]
    for spots in (first.spots, again.spots):
        for spot, other in zip(spots, direct, strict=True):
            assert np.array_equal(spot.landmarks, other.landmarks)
            assert np.array_equal(spot.crop, other.crop)


# ----------------------------------------------------------------------------------------------------------
# Telling people apart
# ----------------------------------------------------------------------------------------------------------


def test_a_chain_of_small_distances_is_one_person():
    line = np.array([[0.0], [0.4], [0.8], [5.0], [1.2]])
    assert group_people(line, 0.5).tolist() == [
        "person 1",
        "person 1",
        "person 1",
        "person 2",
        "person 1",
    ]
    assert group_people(line, 0.3).tolist() == [f"person {i}" for i in range(1, 6)]


def test_names_of_folders_outweigh_distances():
    line = np.array([[0.0], [0.1], [9.0], [0.2], [20.0], [20.1]])
    names = ["anna", "ben", "anna", None, None, None]
    people = group_people(line, 0.5, names)
    assert people[0] == people[2] != people[1]
    assert people[3] == people[1]  # the nearest name
    assert people[4] == people[5] not in people[:4]


@pytest.mark.parametrize(("threshold", "folders"), [(0, None), (True, None), ("1", None), (0.5, ["a"])])
def test_bad_groupings_are_refused(threshold, folders):
    with pytest.raises(ValueError, match="above 0|folders"):
        group_people(np.zeros((2, 3)), threshold, folders)


@untimed
@given(st.lists(st.floats(0, 10), min_size=1, max_size=12), st.floats(0.01, 3), st.floats(0.01, 3))
def test_a_larger_distance_only_joins(values, a, b):
    line = np.array(values)[:, None]
    fine, coarse = (group_people(line, threshold) for threshold in sorted((a, b)))
    for person in np.unique(fine):
        assert len(np.unique(coarse[fine == person])) == 1


def test_pairs_of_people_who_look_alike_are_counted_once():
    line = np.array([[0.0], [0.1], [0.55], [0.6], [9.0]])
    people = np.array(["a", "a", "b", "b", "c"])
    assert doubtful_pairs(line, people, 0.6) == 1
    assert doubtful_pairs(line, people, 0.4) == 0


# ----------------------------------------------------------------------------------------------------------
# Pasting
# ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def portrait(orl):
    """A coloured photo, its landmarks, and another face with landmarks."""
    photo = scene([orl.images[0]], [(130, 130, 200, 12)], (260, 260))
    other = np.ascontiguousarray(orl.images[145])
    there = detection.detect([photo, other])
    return photo, there.landmarks[0], other, there.landmarks[1]


def _chroma(image, landmarks):
    """Mean colour (a, b) of the cheeks, in Lab."""
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    x, y = np.rint((landmarks[30] + landmarks[[3, 13]]) / 2).astype(int).T
    return np.mean(
        [lab[v - 5 : v + 6, u - 5 : u + 6, 1:].mean(axis=(0, 1)) for u, v in zip(x, y, strict=True)], axis=0
    )


def _distance_outside(shape, landmarks):
    """How far each pixel lies outside the face's outline: 0 inside, in face widths."""
    outside = np.ones(shape[:2], np.uint8)
    cv2.fillPoly(outside, [np.rint(pasting._outline(landmarks)).astype(np.int32)], 0)
    return cv2.distanceTransform(outside, cv2.DIST_L2, 5) / np.linalg.norm(landmarks[16] - landmarks[0])


def test_pasting_leaves_callers_arrays_and_what_is_far_away_alone(portrait):
    photo, landmarks, other, points = portrait
    photo, landmarks = cv2.copyMakeBorder(photo, *[90] * 4, cv2.BORDER_REFLECT), landmarks + 90
    given = photo, landmarks, other, points
    copies = [part.copy() for part in given]
    result = pasting.paste(*given)
    assert all(np.array_equal(part, copy) for part, copy in zip(given, copies, strict=True))
    assert result.dtype == np.uint8 and result.shape == photo.shape
    far = _distance_outside(photo.shape, landmarks)
    beyond = far > pasting._REACH + pasting._LARGEST_MOVE
    assert beyond.mean() > 0.1 and np.array_equal(result[beyond], photo[beyond])
    assert np.abs(result.astype(int) - photo)[far == 0].mean() > 4
    assert np.array_equal(result, pasting.paste(photo, landmarks, other, points))


def test_nothing_is_moved_where_another_face_is_near(portrait):
    photo, landmarks, other, points = portrait
    width = np.linalg.norm(landmarks[16] - landmarks[0])
    near, far = (landmarks[16] + [share * width, 0] for share in (0.2, 0.6))
    result = pasting.paste(photo, landmarks, other, points, others=[near[None]])
    outside = _distance_outside(photo.shape, landmarks) > 0.05
    assert np.array_equal(result[outside], photo[outside])
    moved = pasting.paste(photo, landmarks, other, points, others=[far[None]])
    assert np.array_equal(moved, pasting.paste(photo, landmarks, other, points))
    assert not np.array_equal(moved[outside], photo[outside])


def test_the_surroundings_follow_the_outline():
    """A ring around the face, drawn on the photo's outline, ends on the new one."""
    landmarks = Pose(80.0, np.eye(3), np.array([150.0, 150.0])).see(_MEAN_FACE)
    target = landmarks.copy()
    target[:17] = landmarks[:17] + np.array([-10.0, 0.0]) * np.linspace(1, -1, 17)[:, None]  # a wider jaw
    part = np.zeros((320, 320, 3), np.float32)
    cv2.polylines(part, [np.rint(landmarks[:17]).astype(np.int32)], False, (200,) * 3, 3)
    moved = pasting._make_room(part, landmarks, target)
    assert np.array_equal(moved, pasting._make_room(part, landmarks, target)) and part.max() == 200
    for points, image in ((landmarks, part), (target, moved)):
        x, y = np.rint(points[1:16]).astype(int).T
        assert np.median(image[y, x, 0]) > 120
    x, y = np.rint(target[[2, 14]]).astype(int).T
    assert (part[y, x] < 20).all()
    assert np.array_equal(pasting._make_room(part, landmarks, landmarks), part)


def test_a_reduced_photo_is_pasted_at_its_reduced_size(orl, portrait, tmp_path):
    _, _, other, points = portrait
    photo = detection.resize(scene([orl.images[0]], [(130, 130, 200, 12)], (260, 260)), 2.0)
    small = detection.resize(photo, 0.5)
    for name, image in (("large.png", photo), ("small.png", small)):
        Image.fromarray(image).save(tmp_path / name)
    (spot,) = detection.find_faces(photo)
    made = []
    for name, place in (("large.png", spot), ("small.png", spot.scaled(0.5))):
        edit = replacing._FaceEdit(place, replacing.REPLACED, surrogate=planning.Surrogate(other, points))
        found = gathering.Photo(
            tmp_path / name, pixels=utils.content_key(photo if name == "large.png" else small)
        )
        record = replacing._make_photo(found, tmp_path / "out.png", name, [edit], 260)
        made.append(read_image(tmp_path / "out.png"))
        np.testing.assert_allclose(record["faces"][0]["box"], place.box, atol=0.06)
    np.testing.assert_array_equal(*made)
    assert not np.array_equal(made[0], small)


@pytest.mark.parametrize("side", ["left", "bottom"])
def test_a_face_is_replaced_up_to_the_border_of_the_photo(portrait, side):
    photo, landmarks, other, points = portrait
    whole = pasting.paste(photo, landmarks, other, points).astype(int)
    cut = int(landmarks[[48, 36]].min() - 12) if side == "left" else int(landmarks[48:60, 1].max() + 12)
    part = np.s_[:, cut:] if side == "left" else np.s_[:cut]
    shift = [cut, 0] if side == "left" else [0, 0]
    result = pasting.paste(np.ascontiguousarray(photo[part]), landmarks - shift, other, points).astype(int)
    edge = np.s_[:, 0] if side == "left" else np.s_[-1]
    face = pasting._soft_mask(landmarks, *photo.shape[:2])[part][edge] > 0.9
    assert face.sum() > 20
    before, there, expected = (image[edge][face] for image in (photo[part].astype(int), result, whole[part]))
    assert np.abs(there - expected).mean() < 0.5 * np.abs(there - before).mean()


def test_a_blurred_photo_gets_a_blurred_face(portrait):
    photo, landmarks, other, points = portrait
    inside = _distance_outside(photo.shape, landmarks) == 0
    details = []
    for blur in (0.3, 4.0):
        result = pasting.paste(cv2.GaussianBlur(photo, (0, 0), blur), landmarks, other, points)
        level = result.astype(np.float32).mean(axis=2)
        details.append(np.abs(level - cv2.GaussianBlur(level, (0, 0), 1.5))[inside].mean())
    assert details[1] < 0.5 * details[0]


@pytest.mark.parametrize("degree", [1, 2])
def test_a_surface_is_found_in_spite_of_a_beard(degree):
    x, y = np.meshgrid(np.linspace(-1, 1, 80), np.linspace(-1, 1, 60))
    surface = 50 + 8 * x - 5 * y + (6 * x * y - 4 * y**2 if degree == 2 else 0)
    values = surface.copy()
    values[50:, 20:60] -= 40
    area = np.ones((60, 80), dtype=bool)
    found = pasting._surface(area, values[area], degree)
    np.testing.assert_allclose(found[:45], surface[:45], atol=1)


def test_hair_on_the_forehead_of_a_surrogate_becomes_skin(portrait):
    _, landmarks, _, _ = portrait
    lab = np.full((260, 260, 3), (65.0, 12.0, 15.0), np.float32)
    clean = lab.copy()
    x, y = np.rint(landmarks[[19, 24]].mean(axis=0) + 0.25 * (landmarks[27] - landmarks[8])).astype(int)
    cv2.circle(lab, (int(x), int(y)), 6, (25.0, 2.0, 4.0), -1)
    chin = np.rint(landmarks[8] + 0.1 * (landmarks[27] - landmarks[8])).astype(int)
    cv2.circle(lab, tuple(map(int, chin)), 4, (40.0, 12.0, 15.0), -1)
    skin = pasting._skin(landmarks, pasting._soft_mask(landmarks, 260, 260))
    result = pasting._clean_forehead(lab, landmarks, skin)
    assert np.abs(result[y, x] - clean[y, x]).max() < 5
    np.testing.assert_array_equal(result[chin[1], chin[0]], lab[chin[1], chin[0]])


def test_a_face_pasted_over_itself_stays(portrait):
    photo, landmarks, _, _ = portrait
    result = pasting.paste(photo, landmarks, photo, landmarks)
    assert np.abs(result.astype(int) - photo).mean() < 0.5


def test_a_grey_surrogate_takes_the_skin_tone(portrait):
    photo, landmarks, other, points = portrait
    assert is_grey(other)
    before, after = (
        _chroma(image, landmarks) for image in (photo, pasting.paste(photo, landmarks, other, points))
    )
    assert np.linalg.norm(before) > 10  # the photo is no grey one
    assert np.linalg.norm(after - before) < 4


def test_a_coloured_surrogate_greys_in_a_grey_photo(portrait):
    photo, landmarks, other, points = portrait
    grey = np.repeat(photo.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    coloured = np.clip(other * SKIN, 0, 255).astype(np.uint8)
    result = pasting.paste(grey, landmarks, coloured, points).astype(int)
    assert np.ptp(result, axis=2).max() <= 1


def test_brightness_follows_the_photo(portrait):
    photo, landmarks, other, points = portrait
    inside = np.zeros(photo.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.rint(landmarks[[2, 14, 8]]).astype(np.int32)], 1)
    for level in (0.5, 1.0):
        dimmed = (photo * level).astype(np.uint8)
        result = pasting.paste(dimmed, landmarks, other, points)
        means = [image[inside > 0].mean() for image in (dimmed, result)]
        assert abs(means[0] - means[1]) < 0.15 * means[0]


def _turn(yaw, pitch, roll):
    """Rotation of a head in space, angles in degrees: (3, 3)."""
    (a, b, c), (p, q, r) = np.cos(np.radians([yaw, pitch, roll])), np.sin(np.radians([yaw, pitch, roll]))
    around_y = np.array([[a, 0, p], [0, 1, 0], [-p, 0, a]])
    around_x = np.array([[1, 0, 0], [0, b, -q], [0, q, b]])
    around_z = np.array([[c, -r, 0], [r, c, 0], [0, 0, 1]])
    return around_z @ around_x @ around_y


angles = st.floats(-35, 35)


@untimed
@given(angles, angles, angles, st.floats(5, 300))
def test_the_pose_of_a_turned_mean_face_is_found(yaw, pitch, roll, scale):
    rotation = _turn(yaw, pitch, roll)
    seen = Pose(scale, rotation, np.array([40.0, -7.0])).see(_MEAN_FACE)
    pose = Pose.fit(seen)
    np.testing.assert_allclose(pose.rotation, rotation, atol=1e-6)
    np.testing.assert_allclose(pose.scale, scale, rtol=1e-6)
    np.testing.assert_allclose(pose.lift(seen), _MEAN_FACE, atol=1e-6)


@untimed
@given(angles, angles)
def test_a_surrogate_keeps_its_proportions_in_another_pose(yaw, pitch):
    """Of two different faces of one pose, the surrogate lands on its own landmarks, not on the photo's."""
    longer = _MEAN_FACE * [1.0, 1.08, 1.0]
    front = Pose(50.0, np.eye(3), np.zeros(2))
    turned = Pose(90.0, _turn(yaw, pitch, 5), np.array([100.0, 120.0]))
    target = pasting._fit_shape(turned.see(_MEAN_FACE), front.see(longer))
    same = pasting._fit_shape(turned.see(_MEAN_FACE), front.see(_MEAN_FACE))
    np.testing.assert_allclose(same, turned.see(_MEAN_FACE), atol=1e-6)
    lengths = [points[8] - points[27] for points in (target, same)]
    assert np.linalg.norm(lengths[0]) > 1.03 * np.linalg.norm(lengths[1])


@untimed
@given(angles)
def test_the_outline_of_a_turned_head_stays_between_the_ends_of_its_jaw(yaw):
    landmarks = Pose(100.0, _turn(yaw, 0, 0), np.zeros(2)).see(_MEAN_FACE)
    arc = pasting._forehead(landmarks)
    low, high = landmarks[:, 0].min(), landmarks[:, 0].max()
    assert low - 1e-6 <= arc[:, 0].min() and arc[:, 0].max() <= high + 1e-6
    assert (arc[:, 1] < landmarks[[0, 16], 1].max()).all()


def test_a_jaw_line_is_not_moved_farther_than_allowed():
    landmarks = Pose(80.0, np.eye(3), np.zeros(2)).see(_MEAN_FACE)
    surrogate = landmarks.copy()
    surrogate[:17] *= 3.0
    target = pasting._fit_shape(landmarks, surrogate)
    moved = np.linalg.norm(target[:17] - landmarks[:17], axis=1)
    allowed = pasting._LARGEST_MOVE * np.linalg.norm(landmarks[16] - landmarks[0])
    assert moved.max() == pytest.approx(allowed) and (moved <= allowed + 1e-9).all()


def test_blurring_out_leaves_sixteen_patches():
    random = np.random.default_rng(0)
    photo = random.integers(0, 256, (200, 240, 3), dtype=np.uint8)
    box = np.array([80, 60, 150, 130])
    result = pasting.blur_out(photo, box)
    assert np.array_equal(result[:, :20], photo[:, :20]) and np.array_equal(result[190:], photo[190:])
    inside = result[70:120, 90:140].astype(float)
    assert np.abs(np.diff(inside, axis=0)).max() < 4 and np.abs(np.diff(inside, axis=1)).max() < 4


@untimed
@given(st.integers(-60, 200), st.integers(-60, 200), st.integers(4, 120))
def test_blurring_out_holds_everywhere(left, top, side):
    photo, box = np.full((120, 160, 3), 90, dtype=np.uint8), [left, top, left + side, top + side]
    if min(box[2:]) <= 0 or left >= 160 or top >= 120:
        with pytest.raises(ValueError, match="outside the photo"):
            pasting.blur_out(photo, box)
        return
    result = pasting.blur_out(photo, np.array(box))
    assert result.shape == photo.shape and np.array_equal(
        result, photo
    )  # of one colour nothing but it is left


def test_a_covered_face_leaves_no_trace_in_the_context(portrait):
    photo, landmarks, other, points = portrait
    pasted = pasting.paste(photo, landmarks, other, points)
    contexts = [leaks._describe_context(image, landmarks) for image in (photo, pasted)]
    elsewhere = leaks._describe_context(255 - photo, landmarks)
    assert np.linalg.norm(contexts[1] - contexts[0]) < 0.2 * np.linalg.norm(elsewhere - contexts[0])
    inside = photo.copy()
    cv2.fillPoly(inside, [np.rint(pasting._outline(landmarks)).astype(np.int32)], (255, 0, 255))
    assert np.array_equal(contexts[0], leaks._describe_context(inside, landmarks))


def test_a_face_on_a_photo_of_several_is_told_by_its_place():
    random = np.random.default_rng(3)
    photos_of_two = [random.integers(0, 256, (60, 90, 3), dtype=np.uint8) for _ in range(3)]
    left, right = (_MEAN_FACE[:, :2] * 8 + [x, 30] for x in (20, 70))
    held = np.stack([leaks._describe_frame(p, face) for p in photos_of_two for face in (left, right)])
    half = [cv2.resize(p, (45, 30), interpolation=cv2.INTER_AREA) for p in photos_of_two]
    seen = np.stack([leaks._describe_frame(p, face / 2) for p in half for face in (left, right)])
    nearest = np.linalg.norm(seen[:, None] - held, axis=2).argmin(axis=1)
    assert held.shape == (6, 578) and nearest.tolist() == list(range(6))


def test_halves_share_people_and_no_photo():
    people, photo = np.array(list("abcabcabdd")), np.array([0, 0, 0, 1, 1, 1, 2, 3, 4, 4])
    for seed in range(10):
        mine, theirs = leaks._halves(people, photo, seed)
        assert not set(photo[mine]) & set(photo[theirs])
        assert set(people[mine]) <= set(people[theirs])
