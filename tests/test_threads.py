"""dlib's models are not safe to share between threads, so every thread has its own."""

import joblib
import numpy as np

import anonymizer
import datasets
import detection
import evaluation
import jobs
import measures
import utils
from storage import cache


def test_detection_in_threads_equals_that_in_one():
    images = datasets.load_faces("orl").images[:24, :, ::-1]  # mirrored: nothing of them is cached
    images = [np.ascontiguousarray(image) for image in images]
    one_by_one = [detection._detect_row(image) for image in images]
    for _ in range(2):
        tasks = (joblib.delayed(detection._detect_row)(image) for image in images)
        together = joblib.Parallel(n_jobs=4, backend="threading")(tasks)
        assert np.array_equal(one_by_one, together)


def test_each_thread_makes_its_own():
    made = []

    @utils.per_thread
    def model():
        made.append(object())
        return made[-1]

    assert model() is model()
    others = joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(model)() for _ in range(8))
    assert model() not in others
    assert len(made) == 1 + len({id(other) for other in others})


def test_rows_are_not_parallel_inside_a_worker(own_cache):
    def nested(_):
        return cache._in_worker()

    assert not cache._in_worker()
    assert joblib.Parallel(n_jobs=2, backend="loky")(joblib.delayed(nested)(i) for i in range(2)) == [
        True,
        True,
    ]
    assert joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(nested)(i) for i in range(2)) == [
        True,
        True,
    ]


def test_sweep_of_many_photos_with_an_empty_cache(own_cache, monkeypatch):
    """Workers detect and describe everything themselves."""
    monkeypatch.setattr(jobs, "_PARALLEL_JOBS", 1)
    monkeypatch.setattr(measures, "_N_RECONSTRUCTIONS", 10)
    faces = datasets.load_faces("orl").select(slice(0, 140, 5))
    table = evaluation.sweep(faces, ["dlib"], ["random"], ["blur"], [7], n_jobs=2)
    assert set(table["anonymizer"]) == {"blur", "none"}
    assert (table["n_people"] == 14).all()
    assert anonymizer.ANONYMIZERS["blur"].fits(faces)
