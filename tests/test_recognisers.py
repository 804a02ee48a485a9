"""Recognisers: features by brute force, discriminants against scikit-learn, graphs as data, fetching."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import embedding
import recognisers
from recognisers import __main__ as command
from recognisers import faceres


@pytest.fixture(scope="module")
def faces(orl):
    """One photo of each of 12 people, three more of each in the gallery."""
    rows = [10 * person + photo for person in range(12) for photo in range(4)]
    return orl.select(rows).split(1, random_state=0)


def rank_one(describe, faces):
    """Share of photos whose nearest gallery photo shows the same person."""
    nearest = cdist(describe(faces), describe(faces.others)).argmin(axis=1)
    return (faces.others.identities[nearest] == faces.identities).mean()


# ---- features and discriminants ----


def test_local_binary_patterns_by_brute_force():
    crop = np.random.default_rng(0).integers(0, 5, (6, 8))
    found = recognisers.local_binary_patterns(crop[None], cells=2)[0].reshape(2, 2, 59)
    order = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]

    def changes(code):
        bits = [code >> i & 1 for i in range(8)]
        return sum(bits[i] != bits[i - 1] for i in range(8))

    uniform = [code for code in range(256) if changes(code) <= 2]
    assert len(uniform) == 58
    counts = np.zeros((2, 2, 59))
    for y in range(1, 5):
        for x in range(1, 7):
            code = sum((crop[y + dy, x + dx] >= crop[y, x]) << i for i, (dy, dx) in enumerate(order))
            place = uniform.index(code) if code in uniform else 58
            counts[(y - 1) // 2, (x - 1) // 3, place] += 1
    np.testing.assert_allclose(found**2 * 6, counts, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 64), (1, 9, 64)])
def test_crops_that_do_not_fit_the_grid_are_refused(shape):
    with pytest.raises(ValueError, match="crops must be grey"):
        recognisers.local_binary_patterns(np.zeros(shape))


def test_no_direction_is_left_out_however_few_the_people():
    """Scatter is made even where there is some; what nobody varied in stays."""
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(3), 300)
    rest = random.normal(size=(900, 5)) * [10, 1, 1, 1, 0]
    space = recognisers.WithinSpace.fit(random.normal(size=(3, 5))[people] + rest, people)
    evened = space.transform(rest).std(axis=0)
    assert evened[0] < 1.5 * evened[1]
    assert np.linalg.matrix_rank(space.transform(np.eye(5)) - space.transform(np.zeros((1, 5)))) == 5
    with pytest.raises(recognisers.UnfitGalleryError, match="second photo"):
        recognisers.WithinSpace.fit(np.eye(3), np.arange(3))


@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_principal_axes_are_those_of_scikit_learn(shape):
    features = np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[1])
    mean, axes = recognisers.principal_axes(features, 5)
    known = PCA(5, svd_solver="full").fit(features)
    np.testing.assert_allclose(mean, known.mean_)
    np.testing.assert_allclose(np.abs((axes * known.components_.T).sum(axis=0)), 1.0, atol=1e-9)
    assert recognisers.principal_axes(np.ones((4, 3)), 2)[1].shape == (3, 0)


def test_discriminants_are_those_of_scikit_learn_where_photos_are_many():
    """With 400 photos of each person next to nothing is shrunk; distances agree, axes may be turned."""
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(6), 400)
    turn = np.linalg.qr(random.normal(size=(4, 4)))[0]
    features = random.normal(size=(6, 4))[people] + random.normal(size=(2400, 4)) * [0.5, 1, 2, 3] @ turn
    space = recognisers.DiscriminantSpace.fit(features, people)
    known = LinearDiscriminantAnalysis(solver="eigen").fit(features, people)
    ours, theirs = space.transform(features[::50]), known.transform(features[::50])
    np.testing.assert_allclose(cdist(ours, ours), cdist(theirs, theirs), rtol=0.05)


@pytest.mark.parametrize("identities", [["a", "a"], ["a", "b"]])
def test_discriminants_need_two_people_and_two_photos(identities):
    with pytest.raises(recognisers.UnfitGalleryError, match="give no discriminants"):
        recognisers.DiscriminantSpace.fit(np.eye(2), np.array(identities))


def test_fisherfaces_are_linear_in_the_pixels(faces):
    describe = recognisers.prepare("fisherfaces", faces.others)
    space = recognisers.DiscriminantSpace.fit(recognisers.grey_crops(faces.others), faces.others.identities)
    np.testing.assert_allclose(
        describe(faces), space.transform(recognisers.grey_crops(faces)), rtol=1e-4, atol=1e-4
    )
    crops = recognisers.grey_crops(faces)
    np.testing.assert_allclose(
        space.transform(crops[:4].mean(axis=0)), space.transform(crops[:4]).mean(axis=0), atol=1e-6
    )


@pytest.mark.parametrize("name", ["fisherfaces", "lbp"])
def test_weak_recognisers_know_most_clear_photos(faces, name):
    describe = recognisers.prepare(name, faces.others)
    assert rank_one(describe, faces) >= 10 / 12


# ---- the graph reader ----


def graph_model(nodes, weights):
    """JSON and weights of a TensorFlow.js graph: nodes (name, operation, inputs, attributes)."""
    manifest = [
        {
            "name": name,
            "shape": list(values.shape),
            "dtype": "float32" if values.dtype == np.float16 else values.dtype.name,
            **({"quantization": {"dtype": "float16"}} if values.dtype == np.float16 else {}),
        }
        for name, values in weights.items()
    ]
    nodes = [
        {"name": name, "op": operation, "input": inputs, "attr": attributes}
        for name, operation, inputs, attributes in nodes
    ] + [{"name": name, "op": "Const"} for name in weights]
    content = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": manifest}]}
    return json.dumps(content).encode(), b"".join(values.tobytes() for values in weights.values())


X = ("x", "Placeholder", [], {})


def test_a_graph_computes_what_its_operations_say():
    """ReLU6 of a 1 x 1 convolution, averaged over the image, times a matrix plus a bias."""
    kernel = np.array([[[[1.0, -2.0]]]], dtype=np.float16)
    matrix, bias = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), np.array([0.5, -100.0], np.float32)
    plain = {"strides": {"list": {"i": ["1", "1", "1", "1"]}}, "padding": {"s": "U0FNRQ=="}}
    fused = {"fused_ops": {"list": {"s": ["Qmlhc0FkZA==", "UmVsdQ=="]}}}
    model, weights = graph_model(
        [
            X,
            ("conv", "Conv2D", ["x", "kernel"], plain),
            ("relu", "Relu", ["conv:0"], {}),
            ("six", "Minimum", ["relu", "limit"], {}),
            ("pool", "Mean", ["six", "axes"], {"keep_dims": {"b": False}}),
            ("out", "_FusedMatMul", ["pool", "matrix", "bias"], fused),
        ],
        {
            "kernel": kernel,
            "limit": np.array(6.0, np.float32),
            "axes": np.array([1, 2], np.int32),
            "matrix": matrix,
            "bias": bias,
        },
    )
    x = np.arange(-4, 8, dtype=np.float32).reshape(1, 3, 4, 1)
    pooled = np.clip(x * [1.0, -2.0], 0, 6).mean(axis=(1, 2))
    graph = recognisers.read_graph(model, weights)
    np.testing.assert_allclose(graph.run(x, "out"), np.maximum(pooled @ matrix + bias, 0), rtol=1e-6)
    np.testing.assert_allclose(graph.run(x, "pool"), pooled, rtol=1e-6)


def test_operations_of_iris_and_gear_by_hand():
    """PReLU of a convolution with a bias, padded, pooled over pairs, joined with itself, and the largest of each."""
    plain = {"strides": {"list": {"i": ["1", "1", "1", "1"]}}, "padding": {"s": "VkFMSUQ="}}
    fused = {**plain, "fused_ops": {"list": {"s": ["Qmlhc0FkZA==", "UHJlbHU="]}}}  # BiasAdd, Prelu
    pairs = {
        **plain,
        "strides": {"list": {"i": ["1", "1", "2", "1"]}},
        "ksize": {"list": {"i": ["1", "1", "2", "1"]}},
    }
    model, weights = graph_model(
        [
            X,
            ("conv", "_FusedConv2D", ["x", "kernel", "bias", "slope"], fused),
            ("wide", "Pad", ["conv", "widths"], {}),
            ("pool", "MaxPool", ["wide"], pairs),
            ("bent", "Prelu", ["x", "slope"], {}),
            ("joined", "ConcatV2", ["pool", "pool", "axis"], {}),
            ("out", "Max", ["joined", "axes"], {}),
        ],
        {
            "kernel": np.array([[[[2.0]]]], np.float32),
            "bias": np.array([1.0], np.float32),
            "slope": np.array([0.5], np.float32),
            "widths": np.array([[0, 0], [0, 0], [1, 1], [0, 0]], np.int32),
            "axis": np.array(3, np.int32),
            "axes": np.array([1, 2], np.int32),
        },
    )
    graph = recognisers.read_graph(model, weights)
    x = np.array([-3, -1, 1, 2], np.float32).reshape(1, 1, 4, 1)
    # 2 x + 1: -5, -1, 3, 5; bent: -2.5, -0.5, 3, 5; padded; the larger of each pair
    np.testing.assert_allclose(graph.run(x, "pool").ravel(), [0, 3, 5])
    np.testing.assert_allclose(graph.run(x, "bent").ravel(), [-1.5, -0.5, 1, 2])
    np.testing.assert_allclose(graph.run(x, "out"), [[5, 5]])


def test_limits_of_a_graph():
    """A lower limit after an upper one, alone and with arrays in place of numbers."""
    nodes = [
        X,
        ("least", "Minimum", ["x", "high"], {}),
        ("out", "Maximum", ["least", "low"], {}),
        ("each", "Maximum", ["least", "lows"], {}),
    ]
    numbers = {"high": np.array(6.0, np.float32), "low": np.array(-1.0, np.float32)}
    graph = recognisers.read_graph(*graph_model(nodes, {**numbers, "lows": np.array([0, 5], np.float32)}))
    x = np.array([[-3, -1], [4, 9]], np.float32)
    np.testing.assert_array_equal(graph.run(x, "out"), np.clip(x, -1, 6))
    np.testing.assert_array_equal(graph.run(x, "each"), [[0, 5], [4, 6]])
    np.testing.assert_array_equal(graph.run(x, "least"), np.minimum(x, 6))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([X, ("out", "PyFunc", ["x"], {})], "operation 'PyFunc'"),
        ([X, ("out", "Relu", ["gone"], {})], "no node 'gone'"),
        ([X, ("out", "Add", ["out", "x"], {})], "cycle"),
        ([("out", "Relu", ["x"], {})], "got 0 inputs"),
    ],
)
def test_graphs_that_ask_for_anything_else_are_refused(nodes, message):
    with pytest.raises(ValueError, match=message):
        recognisers.read_graph(*graph_model(nodes, {})).run(np.zeros((1, 1), np.float32), "out")


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"modelTopology": {"node": 3}}', b"\xff"])
def test_what_is_no_graph_is_refused(data):
    with pytest.raises(ValueError, match="not a complete TensorFlow.js graph"):
        recognisers.read_graph(data, b"")


def test_weights_that_do_not_fit_are_refused():
    model, weights = graph_model([X], {"w": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="past the end"):
        recognisers.read_graph(model, weights[:-1])
    with pytest.raises(ValueError, match="12 bytes of weights, but the file has 13"):
        recognisers.read_graph(model, weights + b"0")


# ---- fetching ----


def packed(files):
    """A package as npm gives it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/models/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Put a stand-in for npm on the path, which packs the given files; keep what is fetched apart."""
    (tmp_path / "models").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(embedding, "MODELS", tmp_path / "models")

    def offer(files, rc=0):
        (tmp_path / "package.tgz").write_bytes(packed(files))
        script = tmp_path / "bin" / "npm"
        script.write_text(
            f"#!/bin/sh\ncp {tmp_path}/package.tgz ./package.tgz\necho 'npm error no network' >&2\nexit {rc}\n"
        )
        script.chmod(0o700)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        return tmp_path / "models"

    return offer


FILES = {name: name.encode() for name in (*faceres._FILES, "other.json")}


def test_only_the_tested_files_are_kept(npm, monkeypatch):
    tested = {name: hashlib.sha256(FILES[name]).hexdigest() for name in faceres._FILES}
    monkeypatch.setattr(faceres, "_FILES", tested)
    folder = npm(FILES)
    assert recognisers.fetch() == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: FILES[name] for name in tested
    }


def test_other_files_are_refused_and_nothing_is_kept(npm):
    folder = npm(FILES)
    with pytest.raises(ValueError, match="not the file that was tested"):
        recognisers.fetch()
    assert not list(folder.iterdir())
    npm({"faceres.json": b"{}"})
    with pytest.raises(ValueError, match="no file package/models/faceres.bin"):
        recognisers.fetch()


def test_an_optional_fetch_goes_on_without_npm_and_skips_what_is_there(npm, monkeypatch, capsys):
    folder = npm(FILES, rc=1)
    assert command.main(["fetch", "--optional"]) == 0
    assert "run without the strong recogniser faceres: npm could not fetch" in capsys.readouterr().out
    for name in faceres._FILES:
        (folder / name).write_bytes(b"")
    assert command.main(["fetch", "--optional"]) == 0
    assert capsys.readouterr().out == ""


def test_titles_name_the_strongest_attacker():
    assert recognisers.attackers(["lbp", "dlib", "faceres", "lbp"]) == "strongest attacker: faceres"
    assert recognisers.attackers(["dlib", "onnx:a.onnx", "faceres"]) == "strongest attacker: onnx:a.onnx"
    assert recognisers.attackers(["pixels", "fisherfaces"]) == "weak attackers only"


def test_a_fetch_that_fails_says_why(npm, monkeypatch):
    npm(FILES, rc=1)
    with pytest.raises(OSError, match="no network"):
        recognisers.fetch()
    assert command.main(["fetch"]) == 2
    monkeypatch.setenv("PATH", "")
    with pytest.raises(FileNotFoundError, match="npm is not installed"):
        recognisers.fetch()


@pytest.mark.skipif(not faceres.is_installed(), reason="faceres is not installed")
def test_faceres_knows_people_on_clear_photos(faces):
    describe = recognisers.prepare("faceres", faces.others)
    descriptors = describe(faces)
    assert descriptors.shape == (12, 1024) and descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1.0, rtol=1e-5)
    assert rank_one(describe, faces) == 1.0
