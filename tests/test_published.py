"""The authors' result files: frames and lists out of pickles, and nothing run."""

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import published

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference" / "published"
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the authors' result tables are not beside the repository"
)


def write(path, content, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@needs_reference
def test_the_released_pickle_holds_what_the_table_says():
    pickled = published.load_frame(REFERENCE / "IL_results.pickle")
    table = pd.read_csv(REFERENCE / "IL_results.csv")
    assert list(pickled.columns) == list(table.columns)
    assert np.allclose(pickled.to_numpy(dtype=float), table.to_numpy(dtype=float), atol=1e-6)


@needs_reference
def test_released_tables_over_k():
    results = published.load_results(REFERENCE)
    assert len(results) == 11
    table = published.figure(results, "anonymizer")
    assert sorted(set(table["k"])) == list(range(2, 20))
    row = table[(table["anonymizer"] == "aam") & (table["k"] == 3)].iloc[0]
    assert row["information_loss"] == pytest.approx(0.726259)
    assert row["re_identification"] == pytest.approx(0.014925)
    versions = published.figure(results, "version")
    assert list(dict.fromkeys(versions["anonymizer"])) == [
        "stylegan", "stylegan_adjusted_published", "stylegan_random_published",
    ]  # fmt: skip


@needs_reference
def test_curves_of_the_papers_figures():
    results = published.load_results(REFERENCE)
    expected = {
        "embedding": ["dlib", "pca", "facenet", "random"],
        "partitioner": ["ward", "kmeans_elki", "knn_max", "random"],
        "anonymizer": ["pixel", "aam", "cnn", "stylegan"],
    }
    for by, names in expected.items():
        curves = published.figure(results, by)
        assert list(dict.fromkeys(curves[by])) == names and len(curves) == 18 * len(names)
    loss = published.figure(results, "embedding").set_index(["embedding", "k"])["information_loss"]
    assert loss["facenet", 2] == pytest.approx(0.654903) and loss["random", 2] == pytest.approx(0.739515)
    versions = published.figure(results, "version").set_index(["anonymizer", "k"])["re_identification"]
    assert versions["stylegan_random_published", 3] == pytest.approx(0.254341)


@needs_reference
def test_cluster_tables_of_the_paper():
    results = published.load_results(REFERENCE)
    means = published.cluster_means(results)
    assert len(means) == 195 and means["distance"].iloc[0] == pytest.approx(0.448518)
    stats = published.partitions(results).groupby("partitioner")["mean_dist"].mean()
    assert stats["ward"] == pytest.approx(0.7187, abs=1e-4) and stats["oka_published"] == pytest.approx(
        0.8434, abs=1e-4
    )
    assert len(stats) == 9


def test_figures_of_what_is_there():
    one = pd.DataFrame({"k": [2, 3], "aam_rafd": [0.5, 0.6], "unknown": [1, 1]})
    results = {
        "IL_results": one,
        "RI_results": one,
        "random_clt": pd.DataFrame({"IL": [0.7], "FailProb": [0.1]}),
    }
    curves = published.figure(results, "anonymizer")
    assert curves["anonymizer"].tolist() == ["aam", "aam"] and curves["k"].tolist() == [2, 3]
    random = published.figure(results, "partitioner")
    assert random.iloc[0].tolist() == ["random", 2, 0.7, 0.1] and len(random) == 1
    for nothing in (published.figure({}, "version"), published.cluster_means({}), published.partitions({})):
        assert nothing.empty
    assert published.partitions({"df_final": pd.DataFrame(
        {"max dist": [1.0], "strategy": ["knn variance"], "method": ["new"]}
    )})["partitioner"].tolist() == ["knn variance new"]  # fmt: skip
    with pytest.raises(ValueError, match="unknown figure"):
        published.figure(results, "pictures")


FRAMES = [
    pd.DataFrame({"IL": [0.5, 0.6, 0.7], "FailProb": [0.1, 0.05, 0.0]}),
    pd.DataFrame({"k": [2, 3], "name": ["a", "b"], "IL": [0.5, 0.25]}),
    pd.DataFrame(
        {"n": np.arange(4, dtype=np.int32), "x": np.arange(4, dtype=np.float32)}, index=[5, 6, 8, 9]
    ),
]


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_frames_of_this_pandas(tmp_path, frame, protocol):
    read = published.load_frame(write(tmp_path / "frame.pkl", frame, protocol))
    assert read.to_dict("list") == frame.to_dict("list")
    assert list(read.index) == list(frame.index)


def test_lists(tmp_path):
    read = published.load_frame
    assert read(write(tmp_path / "a.pickle", [0.5, 0.25])).to_numpy().tolist() == [[0.5], [0.25]]
    assert read(write(tmp_path / "b.pickle", [[1, 2], [3]])).shape == (2, 2)
    assert read(write(tmp_path / "c.pickle", {"IL": [1.0], "RI": [0.5]})).to_dict("list") == {
        "IL": [1.0],
        "RI": [0.5],
    }
    assert read(write(tmp_path / "d.pickle", [{"label": 0, "avg": 0.5}])).columns.tolist() == ["label", "avg"]
    assert read(write(tmp_path / "e.pickle", np.array([1.5, 2.5]))).to_numpy().ravel().tolist() == [1.5, 2.5]


class Hostile:
    """Writes a mark if it is ever run."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"IL": x}, lambda x: [1.0, [x]]])
def test_hostile_pickles_run_nothing(tmp_path, wrap):
    path = write(tmp_path / "hostile.pickle", wrap(Hostile(tmp_path / "mark")))
    with pytest.raises(ValueError, match="nothing in it was executed"):
        published.load_frame(path)
    assert not (tmp_path / "mark").exists()


def test_hostile_objects_inside_a_frame(tmp_path):
    frame = pd.DataFrame({"IL": pd.Series([1.0, Hostile(tmp_path / "mark")], dtype=object)})
    with pytest.raises(ValueError, match="nothing in it was executed"):
        published.load_frame(write(tmp_path / "frame.pickle", frame))
    assert not (tmp_path / "mark").exists()


def test_cut_files(tmp_path):
    data = pickle.dumps(FRAMES[1], 4)
    path = tmp_path / "cut.pickle"
    for length in range(1, len(data), 37):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut\.pickle"):
            published.load_frame(path)


def test_missing_and_unfit_files(tmp_path):
    for name in ("no.csv", "no.pickle"):
        with pytest.raises(FileNotFoundError):
            published.load_frame(tmp_path / name)
    with pytest.raises(ValueError, match="results must be"):
        published.load_frame(tmp_path / "table.xlsx")
    for content in (5, "text", [], {}, None):
        with pytest.raises(ValueError, match="holds no table"):
            published.load_frame(write(tmp_path / "odd.pickle", content))
    assert published.load_results(tmp_path / "nowhere") == {}


def test_a_folder_prefers_pickles(tmp_path):
    FRAMES[0].to_csv(tmp_path / "a.csv", index=False)
    write(tmp_path / "a.pickle", FRAMES[1])
    FRAMES[0].to_csv(tmp_path / "b.csv", index=False)
    results = published.load_results(tmp_path)
    assert list(results["a"].columns) == ["k", "name", "IL"] and list(results["b"].columns) == [
        "IL",
        "FailProb",
    ]


def test_tables_without_k_start_at_two():
    losses, rates = pd.DataFrame({"aam_rafd": [1.0, 2.0]}), pd.DataFrame({"aam_rafd": [0.5, 0.25]})
    joined = published.figure({"IL_results": losses, "RI_results": rates}, "anonymizer")
    assert joined["k"].tolist() == [2, 3] and joined["anonymizer"].tolist() == ["aam", "aam"]
    for other in (rates.rename(columns={"aam_rafd": "y"}), rates[:1]):
        with pytest.raises(ValueError, match="same columns"):
            published.figure({"IL_results": losses, "RI_results": other}, "anonymizer")
