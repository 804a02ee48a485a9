"""Jobs: computed once, kept one by one, in the caller's order; and what a release's tables depend on."""

import math

import pytest
from joblib.externals.loky import process_executor
from threadpoolctl import threadpool_info, threadpool_limits

import anonymizer
import evaluation
import experiments
import jobs
import releases
from jobs import Job, run_jobs

calls = []


def square(x):
    calls.append(x)
    if x < 0:
        raise ValueError("too small")
    return {"square": x * x, "nothing": float("nan")}


def job(x, cost=1.0, store="squares"):
    return Job(store, f"key{x}", square, (x,), cost)


@pytest.fixture(autouse=True)
def _fresh(own_cache, monkeypatch):
    calls.clear()
    monkeypatch.setenv("ANONFACES_QUIET", "1")
    monkeypatch.setattr(jobs, "_PARALLEL_JOBS", 10**6)  # starting processes takes seconds


def test_results_come_in_order_whatever_is_computed_first():
    results = run_jobs([job(3), job(1, cost=5), job(2, cost=9)])
    assert [one["square"] for one in results] == [9, 1, 4]
    assert calls == [2, 1, 3]
    assert math.isnan(results[0]["nothing"])


def test_equal_jobs_are_computed_once_and_kept():
    assert [one["square"] for one in run_jobs([job(2), job(2), job(2, store="others")])] == [4, 4, 4]
    assert calls == [2, 2]  # one in each store
    assert [one["square"] for one in run_jobs([job(2), job(4)])] == [4, 16]
    assert calls == [2, 2, 4]
    assert run_jobs([]) == []


def test_finished_jobs_survive_an_error():
    with pytest.raises(ValueError, match="too small"):
        run_jobs([job(5, cost=2), job(-1)])
    calls.clear()
    assert run_jobs([job(5)])[0]["square"] == 25
    assert calls == []


def most_threads():
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


def test_a_job_has_one_thread_here_as_in_another_process():
    """Sums over several threads are rounded otherwise, and a table would depend on where it was computed."""
    with threadpool_limits(limits=2):
        assert (most_threads(), run_jobs([Job("threads", "key", most_threads, ())])) == (2, [1])


def test_workers_may_hold_the_models_of_many_people(monkeypatch):
    """The limit is joblib's own, and where a job runs, it is ours."""
    assert process_executor._MAX_MEMORY_LEAK_SIZE > 0
    monkeypatch.setattr(process_executor, "_MAX_MEMORY_LEAK_SIZE", 1)
    run_jobs([job(2)])
    assert process_executor._MAX_MEMORY_LEAK_SIZE == jobs._WORKER_BYTES


def test_one_bar_counts_the_cost_of_what_is_missing(monkeypatch):
    bars = []
    progress = jobs.utils.progress

    def remember(*arguments, **options):
        bars.append(progress(*arguments, **{**options, "disable": False}))
        return bars[-1]

    monkeypatch.setattr(jobs.utils, "progress", remember)
    run_jobs([job(1, cost=3)])
    run_jobs([job(1, cost=3), job(2, cost=4), job(3, cost=0.5)])
    assert [(bar.total, bar.n) for bar in bars] == [(3, 3), (4.5, 4.5)]


def test_bars_inside_a_job_are_hidden():
    with jobs.utils.no_bars():
        assert jobs.utils.progress([1], "inside", disable=False).disable
    assert not jobs.utils.progress([1], "outside", disable=False).disable


def test_key_of_a_model_covers_photos_options_and_files_without_making_it(orl, monkeypatch):
    faces, others = orl.select([0, 10, 20]), orl.select([0, 10, 30])

    def never(*_):
        raise AssertionError("no model should have been made")

    monkeypatch.setattr(releases, "load_model", never)
    keys = {releases._model_key(name, faces) for name in [*anonymizer.ANONYMIZERS, *anonymizer.VARIANTS]}
    keys |= {releases._model_key("cnn", others)}
    assert len(keys) == len(anonymizer.ANONYMIZERS) + len(anonymizer.VARIANTS) + 1
    assert releases._model_key("aam", faces) == releases._model_key("aam", orl.select([0, 10, 20]))


def test_key_of_a_model_with_other_files_covers_the_codes_it_reads(orl, monkeypatch, tmp_path):
    faces = orl.select([0, 10, 20])
    network = tmp_path / "copy.npz"
    network.write_bytes(anonymizer.kind("stylegan").files["network"][0].read_bytes())
    codes = anonymizer.load("stylegan", faces).codes
    monkeypatch.setitem(anonymizer.VARIANTS, "own", ("stylegan", {"network": network, "codes": codes}))
    monkeypatch.setattr(releases, "_MODELS", {})
    first = releases._model_key("own", faces)
    monkeypatch.setitem(anonymizer.VARIANTS, "own", ("stylegan", {"network": network, "codes": codes + 1}))
    monkeypatch.setattr(releases, "_MODELS", {})
    assert releases._model_key("own", faces) != first


def test_a_recogniser_that_is_installed_later_is_not_taken_as_missing(orl_people, monkeypatch):
    faces = orl_people.select(range(4))
    combinations = [evaluation.Combination("dlib", "ward", "pixel", 2)]

    def keys():
        table = releases.TABLES["attacks"]
        return [
            one.key for one in releases.release_jobs(table, faces, combinations, recognisers=("faceres",))
        ]

    def missing(name, gallery):
        raise releases.recognition.MissingRecogniserError("not installed")

    monkeypatch.setattr(releases.recognition, "prepare", missing)
    before = keys()
    monkeypatch.setattr(
        releases.recognition, "prepare", lambda name, gallery: lambda photos: photos.images[:, 0, 0]
    )
    assert keys() != before


def test_what_runs_together_is_what_the_tables_read(orl_people, monkeypatch):
    """The command runs everything with one bar; the tables of the notebook then compute nothing."""
    faces = orl_people.select(range(6))
    chosen = {"embeddings": ["dlib"], "partitioners": ["ward"], "anonymizers": ["pixel"]}
    released = [evaluation.Combination("dlib", "ward", "pixel", 3)]
    monkeypatch.setitem(experiments.LOOKED_INTO, "quick", lambda faces, k_values: released)
    run_jobs(experiments.all_jobs(faces, experiments.load_experiment(k=3, **chosen)), 1)

    def never(waiting, n_jobs):
        assert not waiting
        return iter(())

    monkeypatch.setattr(jobs, "_in_parallel", never)
    table = experiments.run_grid(faces, "quick", **chosen, k_values=[3], random_state=[0])
    assert set(table["partitioner"]) == {"ward", "random", "-"}
    fixed = evaluation.Combination(**evaluation.reference(table), k=3)
    assert fixed == released[0]
    for measure in (
        evaluation.attack_table,
        evaluation.utility_table,
        evaluation.fairness_table,
        evaluation.distance_table,
    ):
        assert len(measure(faces, released))
    [tuned] = experiments.tuning.tune_releases(faces, [fixed])
    assert tuned.weights.shape == (2, 6) and tuned.images[0].dtype == "uint8"
    assert set(tuned.clusters["label"]) == {0, 1} and tuned.trace["chosen"].sum() == 2


def test_restored_tuning_is_the_computed_one(orl_people):
    faces = orl_people.select(range(6))
    release = evaluation.Combination("dlib", "ward", "pixel", 3)
    labels = evaluation.partition_people(faces, releases.embedding.embed(faces), "ward", 3)
    expected = experiments.tuning.tune(faces, labels, anonymizer.load("pixel", faces), checks=[])
    for _ in range(2):  # computed, then read
        [found] = experiments.tuning.tune_releases(faces, [release], checks=[])
        assert (found.weights == expected.weights).all()
        assert all((a == b).all() for a, b in zip(found.images, expected.images, strict=True))
        for name in ("clusters", "trace", "checks"):
            assert getattr(found, name).equals(getattr(expected, name)), name
        assert (found.loss, found.privacy, found.reason) == (expected.loss, expected.privacy, expected.reason)
