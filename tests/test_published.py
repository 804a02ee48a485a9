"""The authors' result files: frames and lists out of pickles, and nothing run."""

import os
import pickle
import struct
import tracemalloc
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


# Innocent tables of other forms


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"name": ["a", None], "IL": [0.5, None]}),
        pd.DataFrame({"name": pd.Series(["a", None, 1.5, True], dtype=object)}),
        pd.DataFrame({"IL": [0.5, 0.25]}, index=[0.5, 1.5]),
        pd.DataFrame({"IL": [0.5, 0.25]}, index=["a", "b"]),
        pd.DataFrame({"good": [True, False], "IL": [1, 2]}),
    ],
)
def test_frames_with_gaps_and_other_indexes(tmp_path, frame, protocol):
    read = published.load_frame(write(tmp_path / "frame.pkl", frame, protocol))
    for name in frame:
        for expected, found in zip(frame[name], read[name], strict=True):
            assert found == expected or (pd.isna(found) and pd.isna(expected))
    assert list(read.index) == list(frame.index)


def test_float_indexes_of_pandas_1(tmp_path):
    data = pickle.dumps(pd.DataFrame({"IL": [0.5, 0.25]}, index=[0.5, 1.5]), 2)
    index, last = b"cpandas\nIndex\n", data.rindex(b"cpandas\nIndex\n")
    old = b"cpandas.core.indexes.numeric\nFloat64Index\n"
    first = data.index(index)
    assert first == last  # later uses refer to it
    path = tmp_path / "old.pickle"
    path.write_bytes(data.replace(index, old))
    assert published.load_frame(path).index.tolist() == [0.5, 1.5]


def test_series(tmp_path):
    read = published.load_frame(write(tmp_path / "a.pickle", pd.Series([0.5, 0.25], [2, 3], name="IL")))
    assert read.to_dict("list") == {"IL": [0.5, 0.25]} and list(read.index) == [2, 3]
    read = published.load_frame(write(tmp_path / "b.pickle", {"IL": pd.Series([0.5]), "RI": [1.0]}))
    assert read.to_dict("list") == {"IL": [0.5], "RI": [1.0]}
    assert published.load_frame(write(tmp_path / "c.pickle", [pd.Series([1, 2]), [3, 4]])).shape == (2, 2)


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (pd.DataFrame({"a": pd.Categorical(["x", "y"])}), "pandas.Categorical"),
        (pd.DataFrame({"a": pd.to_datetime(["2020-01-01"])}), "DatetimeArray"),
        (pd.DataFrame({"a": [1.0]}, index=pd.to_datetime(["2020-01-01"])), "DatetimeIndex"),
        (pd.DataFrame({("a", "b"): [1]}), "pandas.MultiIndex"),
        (pd.DataFrame({"a": pd.array([1, None])}), "pandas.arrays.IntegerArray"),
        (pd.Series([pd.Timestamp("2020-01-01"), "x"], dtype=object), "timestamps"),
        (pd.Series([pd.NA, "x"], dtype=object), "pandas.*NA, which"),
        (pd.Series([[1], "x"], dtype=object), "got list"),
    ],
)
def test_parts_that_are_not_read_are_named(tmp_path, frame, word):
    with pytest.raises(ValueError, match=word) as caught:
        published.load_frame(write(tmp_path / "frame.pickle", frame))
    assert ".csv" in str(caught.value) and "trust" not in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_files_of_another_kind_are_named(tmp_path):
    for name in ("a.csv", "a.pickle"):
        (tmp_path / name).write_bytes(b"<!DOCTYPE html><html>Quota exceeded</html>")
        with pytest.raises(ValueError, match="it is a web page"):
            published.load_frame(tmp_path / name)


# Small files that would take gigabytes


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def range_index(stop):
    parts = text(b"start") + b"K\0" + text(b"stop") + b"\x8a\x08" + struct.pack("<q", stop)
    return (
        b"cpandas.core.indexes.base\n_new_Index\ncpandas.core.indexes.range\nRangeIndex\n}("
        + parts
        + text(b"step")
        + b"K\1u\x86R"
    )


def frame_of(columns, rows, blocks=b"]"):
    manager = b"cpandas.core.internals.managers\nBlockManager\n" + blocks + b"](" + columns + rows + b"e\x86R"
    return b"cpandas.core.frame\nDataFrame\n)R}" + text(b"_mgr") + manager + b"sb"


ONE_LIST = b"](" + b"K\1" * 30_000 + b"e"
BOMBS = {
    "one list as 30,000 rows": b"](" + ONE_LIST + b"2" * 29_999 + b"e",
    "one list as 30,000 columns": b"}(" + text(b"a") + ONE_LIST + b"q\0"
    + b"".join(text(b"%d" % i) + b"h\0" for i in range(30_000)) + b"u",
    "one dict as 30,000 rows": b"](}(" + b"".join(text(b"%d" % i) + b"K\1" for i in range(9_000)) + b"u"
    + b"2" * 29_999 + b"e",
    "a key in each of 30,000 rows": b"](" + b"".join(b"}" + text(b"%d" % i) + b"K\1s" for i in range(30_000)) + b"e",
    "a row of 100,000 columns": b"](](" + b"K\1" * 100_000 + b"ee",
    "a range of columns": frame_of(range_index(10**9), range_index(1)),
    "a range of rows": frame_of(range_index(1), range_index(10**9)),
    "ranges beyond 64 bits": frame_of(range_index(2**63 - 1), range_index(2**63 - 1)),
    "a block at a range of places": frame_of(
        range_index(5000), range_index(5000), b"](]K\1ac__builtin__\nslice\nK\0J\xff\xff\xff\x7fK\1\x87R\x86e"
    ),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_small_files_take_little_memory(tmp_path, bomb):
    path = tmp_path / "bomb.pickle"
    path.write_bytes(b"\x80\2" + BOMBS[bomb] + b".")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb\.pickle"):
        published.load_frame(path)
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()


def test_tables_of_a_million_columns(tmp_path):
    for content in (b"a" + b",b" * 1_000_000 + b"\n1\n", b"a\n1" + b",1" * 1_000_000 + b"\n"):
        (tmp_path / "wide.csv").write_bytes(content)
        with pytest.raises(ValueError, match="a line has 1000001 cells; at most 10000 are read"):
            published.load_frame(tmp_path / "wide.csv")
