"""Which faces lend their looks to surrogates."""

import cv2
import numpy as np
import pytest

import detection
from datasets import Faces
from release import lending


@pytest.fixture(scope="module")
def faces(orl):
    return orl.select(slice(0, 400, 20))


def covered(faces, row, places, grey):
    """The faces with the hull of these landmarks of one of them painted over, found where it was."""
    images, landmarks = [image.copy() for image in faces.images], detection.detect(faces).landmarks
    hull = cv2.convexHull(np.rint(landmarks[row][places]).astype(np.int32))
    cv2.fillConvexPoly(images[row], hull, (grey,) * 3)
    made = Faces.of(images, source="photos")
    detection.remember(made, landmarks)
    return made


def test_most_portraits_are_clear(faces):
    clear = lending.clearness(faces)
    assert np.isfinite(clear).mean() > 0.7 and clear.max() <= 1


@pytest.mark.parametrize(
    ("places", "grey"),
    [([1, *range(17, 27), 15, 29], 20), ([*range(2, 15), 29], 220)],
    ids=["sunglasses", "mask"],
)
def test_a_covered_face_is_not_clear(faces, places, grey):
    row = int(lending.clearness(faces).argmax())
    assert lending.clearness(covered(faces, row, places, grey))[row] == -np.inf


def test_a_turned_face_is_not_clear(faces, monkeypatch):
    row = int(lending.clearness(faces).argmax())
    assert np.isfinite(lending.clearness(faces)[row])
    monkeypatch.setattr(lending, "_YAW", 0)
    assert lending.clearness(faces)[row] == -np.inf


def on_a_line(clear):
    """Eight people at 0 to 7, four in each cluster, one photo each."""
    people = np.array([f"p{i}" for i in range(8)])
    rows = np.arange(8.0)[:, None]
    return lending.lenders(np.repeat([0, 1], 4), people, rows, np.array(clear, dtype=float), 4)


def test_clear_members_lend_themselves():
    first, second = on_a_line(np.ones(8))
    assert first.tolist() == [0, 1, 2, 3] and second.tolist() == [4, 5, 6, 7]


def test_the_nearest_clear_people_step_in():
    no = -np.inf
    first, second = on_a_line([1, no, no, 1, 1, 1, no, 1])
    assert first.tolist() == [0, 3, 4, 5] and second.tolist() == [3, 4, 5, 7]


def test_without_k_clear_people_all_members_lend():
    no = -np.inf
    first, second = on_a_line([1, no, no, 1, 1, no, no, no])
    assert first.tolist() == [0, 1, 2, 3] and second.tolist() == [4, 5, 6, 7]


def test_a_person_lends_the_clearest_photos():
    people = np.array(["a", "a", "a", "b", "b"])
    clear = np.array([0.5, 0.9, 0.7, 0.6, -np.inf])
    (rows,) = lending.lenders(np.zeros(5, int), people, np.zeros((5, 2)), clear, 2)
    assert rows.tolist() == [1, 2, 3]
