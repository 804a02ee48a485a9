"""What runs in parallel also runs on a Dask cluster, with the same results."""

import joblib
import numpy as np
import pytest

import datasets
import evaluation
import jobs
import partitioning
import releases

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed", reason="the package distributed is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_balanced_partition_in_pieces_on_dask_equals_that_in_this_process(cluster):
    X = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    here = partitioning.PARTITIONERS["balanced"](X, 10, random_state=0, pieces=4, n_jobs=1)
    with joblib.parallel_config(backend="dask"):
        there = partitioning.PARTITIONERS["balanced"](X, 10, random_state=0, pieces=4)
    assert np.array_equal(here, there)
    assert np.bincount(there).tolist() == [10] * 200


def test_sweep_on_dask_equals_that_in_this_process(cluster, tmp_path, monkeypatch):
    faces = datasets.load_faces("orl", per_identity=1)
    grid = {"partitioners": ["ward"], "anonymizers": ["pixel"], "k_values": [8, 10, 13, 20]}
    here = evaluation.sweep(faces, **grid, n_jobs=1)
    monkeypatch.setattr(releases, "_code_key", lambda: "another")  # nothing of the sweep is cached
    monkeypatch.setattr(jobs, "_PARALLEL_JOBS", 1)
    with joblib.parallel_config(backend="dask"):
        there = evaluation.sweep(faces, **grid)
    assert here.equals(there)
