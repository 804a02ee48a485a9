"""Descriptors: dlib tells people apart, PCA is PCA, and recognisers from files are given what they want."""

import base64
import json
import marshal
import pickle
import resource
import unicodedata
import zipfile

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import datasets
import detection
import embedding
import recogniser_files
import utils
from embedding import _Preparation, embed

SIDE = 32


@pytest.fixture(scope="module")
def few(orl_people):
    return orl_people.select(slice(0, 4))


@pytest.fixture(scope="module")
def descriptors(orl):
    return embed(orl, "dlib")


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def leave_no_models_in_the_usual_cache(module_cache, monkeypatch):
    """Each network made here would leave a store behind; `descriptors` alone uses the usual cache."""
    monkeypatch.setenv("ANONFACES_CACHE", str(module_cache))


class InThisProcess:
    """A recogniser that runs here: a process for each test would load everything again."""

    is_running = True

    def __init__(self, path):
        try:
            self._run, side = recogniser_files._OPENERS.get(path.suffix, recogniser_files._open_onnx)(path)
        except Exception as error:
            raise ValueError(f"{path}: {error}") from None
        self.side = side or None

    def run(self, pixels):
        try:
            rows = np.asarray(self._run(pixels), dtype=np.float32)
            return recogniser_files._checked_rows(rows, len(pixels))
        except Exception as error:
            raise ValueError(recogniser_files._first_line(error)) from None


@pytest.fixture(autouse=True)
def where_recognisers_run(request, monkeypatch):
    """Recognisers run here, except in tests marked with `own_process`."""
    if "own_process" not in request.fixturenames:
        monkeypatch.setattr(recogniser_files, "Recogniser", InThisProcess)
    recogniser_files._opened.cache_clear()
    yield
    recogniser_files._opened.cache_clear()


@pytest.fixture
def own_process():
    """Recognisers run in a process of their own, as users run them."""


def distances(X):
    squares = (X.astype(float) ** 2).sum(axis=1)
    return np.sqrt(np.maximum(squares[:, None] + squares - 2 * X.astype(float) @ X.T.astype(float), 0))


# dlib


def test_dlib_gives_one_row_of_128_for_each_photo(descriptors):
    assert descriptors.shape == (400, 128)
    assert descriptors.dtype == np.float32
    assert np.isfinite(descriptors).all()


def test_dlib_tells_the_orl_people_apart(orl, descriptors):
    """Equal error rate over all 79,800 pairs of photos, and the nearest other photo's person."""
    apart = distances(descriptors)
    first, second = np.triu_indices(400, 1)
    same = orl.identities[first] == orl.identities[second]
    genuine, impostor = np.sort(apart[first, second][same]), np.sort(apart[first, second][~same])
    assert len(genuine) == 1800
    thresholds = np.concatenate([genuine, impostor])
    missed = 1 - np.searchsorted(genuine, thresholds, side="right") / len(genuine)
    accepted = np.searchsorted(impostor, thresholds, side="right") / len(impostor)
    equal = np.abs(missed - accepted).argmin()
    assert (missed[equal] + accepted[equal]) / 2 < 0.01
    np.fill_diagonal(apart, np.inf)
    assert (orl.identities[apart.argmin(axis=1)] == orl.identities).mean() > 0.98


def test_the_usual_threshold_fits(orl, descriptors):
    """At 0.6 most pairs of one person are accepted, as dlib's documentation has it."""
    apart = distances(descriptors)
    same = orl.identities[:, None] == orl.identities
    np.fill_diagonal(same, False)
    assert (apart[same] < 0.6).mean() > 0.95


def test_dlib_gives_the_same_bytes_fresh_and_from_the_cache(few, own_cache):
    fresh = embed(few, "dlib")
    assert list(own_cache.glob("stores/dlib-*"))
    assert embed(few, "dlib").tobytes() == fresh.tobytes()
    assert embed(list(few.images), "dlib").tobytes() == fresh.tobytes()
    assert embed(few.select([2, 0]), "dlib").tobytes() == fresh[[2, 0]].tobytes()
    landmarks = detection.detect(few).landmarks
    for image, points, row in zip(few.images, landmarks, fresh, strict=True):
        assert embedding._describe_face(image, points).tobytes() == row.tobytes()


def test_a_cached_photo_is_not_computed_again(few, monkeypatch):
    embed(few, "dlib")

    def refuse(*arguments):
        raise AssertionError("computed again")

    monkeypatch.setattr(embedding, "_describe_face", refuse)
    monkeypatch.setattr(detection, "_detect_row", refuse)
    assert embed(few, "dlib").shape == (4, 128)


def test_a_photo_is_near_to_itself_enlarged(few):
    enlarged = [detection.resize(image, 3.0) for image in few.images]
    apart = np.linalg.norm(embed(few, "dlib") - embed(enlarged, "dlib"), axis=1)
    assert (apart < 0.45).all()


def test_a_missed_face_is_described_from_the_whole_frame(few):
    noise = np.random.default_rng(0).integers(0, 256, (120, 100, 3), dtype=np.uint8)
    photos = [few.images[0], noise]
    assert list(detection.detect(photos).found) == [True, False]
    X = embed(photos, "dlib")
    assert X.shape == (2, 128)
    assert np.isfinite(X).all()
    assert X[0].tobytes() == embed(few, "dlib")[0].tobytes()
    with pytest.raises(ValueError, match="no face was found in 1 of 2 photos"):
        embed(photos, "dlib", strict=True)


def test_descriptors_may_be_written_to_and_do_not_reach_the_cache(few):
    X = embed(few, "dlib")
    kept = X.copy()
    X += 1
    np.testing.assert_array_equal(embed(few, "dlib"), kept)


# PCA


def test_pca_is_the_projection_on_the_principal_components(orl_people):
    X = embed(orl_people, "pca", n_components=6)
    pixels = embedding.crops(orl_people, 64, 0.85).mean(axis=3).reshape(40, -1) / 255
    centred = pixels - pixels.mean(axis=0)
    u, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    expected = u[:, :6] * strengths[:6]
    signs = np.sign((X * expected).sum(axis=0))
    np.testing.assert_allclose(X, expected * signs, atol=1e-3)


def test_pca_values_are_uncorrelated_and_in_order(orl_people):
    X = embed(orl_people, "pca").astype(float)
    assert X.shape == (40, 10)
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-4)
    covariance = X.T @ X / 39
    variances = np.diag(covariance)
    assert (np.diff(variances) <= 0).all() and (variances > 0).all()
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-4 * variances[0])


def test_pca_is_deterministic_and_gives_no_more_than_there_is(few):
    assert embed(few, "pca").tobytes() == embed(few, "pca").tobytes()
    assert embed(few, "pca", n_components=50).shape == (4, 3)
    assert embed(few, "pca", n_components=np.int64(2)).dtype == np.float32


@pytest.mark.parametrize("wrong", [0, -3, 2.0, True, "5", None])
def test_a_bad_number_of_components_is_refused(few, wrong):
    with pytest.raises(ValueError, match="n_components must be an integer of at least 1"):
        embed(few, "pca", n_components=wrong)


def test_pca_needs_two_photos(few):
    with pytest.raises(ValueError, match="at least two photos"):
        embed(few.select([0]), "pca")


# Names and options


@pytest.mark.parametrize(
    "name", ["resnet", "DLIB", "", "onnx", "onnx:", "stored", "dlib:model.dat", "pca:10"]
)
def test_an_unknown_embedding_lists_the_known_ones(few, name):
    with pytest.raises(
        ValueError, match="unknown embedding.*'dlib', 'pca', 'facenet', 'onnx:PATH', 'stored:PATH'"
    ):
        embed(few, name)


def test_the_name_must_be_text(few):
    with pytest.raises(TypeError, match="must be a name such as 'dlib', got ndarray"):
        embed(few, np.zeros((4, 2)))


@pytest.mark.parametrize("name", ["dlib", "pca", "onnx:a.onnx"])
def test_nothing_to_embed_is_refused(name):
    with pytest.raises(ValueError, match="at least one photo to embed"):
        embed([], name)


def test_an_option_that_is_not_known_is_refused(few):
    for name in ("dlib", "pca"):
        with pytest.raises(TypeError, match="colour"):
            embed(few, name, colour=True)


# ONNX recognisers


def save_onnx(path, shape, operators=("Flatten",), kind=TensorProto.FLOAT):
    """A network that applies operators one after another to its input "x"."""
    names = ["x", *(f"v{i}" for i in range(1, len(operators))), "y"]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]]) for i, op in enumerate(operators)]
    inputs = [helper.make_tensor_value_info("x", kind, shape)] if shape else []
    if not shape:
        nodes = [helper.make_node("Constant", [], ["y"], value_floats=[1.0, 2.0])]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", kind, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def expected_pixels(faces, side=SIDE, zoom=1.0, mean=127.5, scale=1 / 127.5, step=1):
    pixels = embedding.crops(faces, side, zoom).astype(np.float64)
    return (pixels[..., ::step] - mean) * scale  # (n, side, side, 3)


def unit(X):
    X = X.reshape(len(X), -1)
    return X / np.linalg.norm(X, axis=1, keepdims=True)


@pytest.mark.parametrize("batch", [1, "n", None])
@pytest.mark.parametrize("channels_first", [True, False])
def test_an_onnx_recogniser_is_given_crops_in_its_order(few, tmp_path, batch, channels_first):
    shape = [batch, 3, SIDE, SIDE] if channels_first else [batch, SIDE, SIDE, 3]
    path = save_onnx(tmp_path / "model.onnx", shape)
    X = embed(few, f"onnx:{path}")
    pixels = expected_pixels(few)
    if channels_first:
        pixels = pixels.transpose(0, 3, 1, 2)
    assert X.dtype == np.float32
    np.testing.assert_allclose(X, unit(pixels), atol=1e-5)


def colour_faces(few):
    """Photos whose channels differ, so that their order shows."""
    images = (few.images * np.array([1.0, 0.7, 0.4])).round().astype(np.uint8)
    return datasets.Faces(images, few.identities, few.names)


OPTIONS = {"mean": 100.0, "scale": 0.02, "channels": "BGR", "zoom": 0.7, "normalise": False}


@pytest.mark.usefixtures("own_process")
def test_options_say_how_pixels_are_prepared(few, tmp_path):
    path = save_onnx(tmp_path / "model.onnx", ["n", SIDE, SIDE, 3])
    faces = colour_faces(few)
    X = embed(faces, f"onnx:{path}", **OPTIONS)
    expected = expected_pixels(faces, zoom=0.7, mean=100, scale=0.02, step=-1)
    np.testing.assert_allclose(X, expected.reshape(4, -1), atol=1e-5)


def test_a_file_beside_the_model_holds_options_and_the_caller_overrides_it(few, tmp_path):
    faces = colour_faces(few)
    path = save_onnx(tmp_path / "model.onnx", ["n", SIDE, SIDE, 3])
    by_hand = embed(faces, f"onnx:{path}", **OPTIONS)
    (tmp_path / "model.json").write_text(json.dumps(OPTIONS))
    assert embed(faces, f"onnx:{path}").tobytes() == by_hand.tobytes()
    rgb = embed(faces, f"onnx:{path}", channels="RGB")
    swapped = by_hand.reshape(4, SIDE, SIDE, 3)[..., ::-1].reshape(4, -1)
    np.testing.assert_array_equal(rgb, swapped)


def test_whitened_photos_have_mean_0_and_deviation_1(few, tmp_path):
    path = save_onnx(tmp_path / "model.onnx", ["n", SIDE, SIDE, 3])
    X = embed(few, f"onnx:{path}", whiten=True, normalise=False)
    np.testing.assert_allclose(X.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(X.std(axis=1), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "asked", "side"), [(["n", 3, "h", "w"], 48, 48), (["n", 3, "h", "w"], None, 160)]
)
def test_a_model_of_open_size_takes_what_is_asked_for(few, tmp_path, shape, asked, side):
    path = save_onnx(tmp_path / "model.onnx", shape)
    assert embed(few, f"onnx:{path}", input_size=asked).shape == (4, 3 * side * side)


@pytest.mark.usefixtures("own_process")
def test_more_photos_than_one_batch(orl_people, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "_BATCH", 7)
    path = save_onnx(tmp_path / "model.onnx", ["n", SIDE, SIDE, 3])
    X = embed(orl_people, f"onnx:{path}", normalise=False)
    np.testing.assert_allclose(X, expected_pixels(orl_people).reshape(40, -1), atol=1e-5)


@pytest.mark.usefixtures("own_process")
def test_another_model_under_the_same_name_is_not_taken_from_the_cache(few, tmp_path):
    path = save_onnx(tmp_path / "model.onnx", ["n", SIDE, SIDE, 3])
    first = embed(few, f"onnx:{path}", normalise=False)
    assert embed(few, f"onnx:{path}", normalise=False).tobytes() == first.tobytes()
    save_onnx(path, ["n", SIDE, SIDE, 3], ("Flatten", "Neg"))
    np.testing.assert_array_equal(embed(few, f"onnx:{path}", normalise=False), -first)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (["n", 3], "takes .*one batch of RGB images"),
        (["n", 1, SIDE, SIDE], "takes .*one batch of RGB images"),
        ([3, SIDE, SIDE], "takes .*one batch of RGB images"),
        ([], "takes .*one batch of RGB images"),
        (["n", 3, SIDE, 48], "takes 32x48 pixels; only square"),
        (["n", 48, SIDE, 3], "takes 48x32 pixels; only square"),
        ([3, 3, SIDE, SIDE], "cannot run on 32x32 RGB photos"),
    ],
)
def test_a_model_that_takes_something_else_is_refused(few, tmp_path, shape, message):
    path = save_onnx(tmp_path / "model.onnx", shape)
    with pytest.raises(ValueError, match=message) as error:
        embed(few, f"onnx:{path}")
    assert str(path) in str(error.value)


@pytest.mark.usefixtures("own_process")
def test_a_model_that_takes_another_type_is_refused(few, tmp_path):
    path = save_onnx(tmp_path / "model.onnx", ["n", 3, SIDE, SIDE], kind=TensorProto.INT64)
    with pytest.raises(ValueError, match="cannot run"):
        embed(few, f"onnx:{path}")


@pytest.mark.usefixtures("own_process")
def test_a_model_that_gives_no_rows_is_refused(few, tmp_path):
    path = save_onnx(tmp_path / "model.onnx", ["n", 3, SIDE, SIDE], ("Identity",))
    with pytest.raises(ValueError, match=r"must return one row per photo, got shape \(4, 3, 32, 32\)"):
        embed(few, f"onnx:{path}")


def test_nan_from_a_model_is_refused(few, tmp_path):
    path = save_onnx(tmp_path / "model.onnx", ["n", 3, SIDE, SIDE], ("Flatten", "Log"))
    for _ in range(2):  # fresh and from the cache
        with pytest.raises(ValueError, match="gave NaN or infinite values for 4 photos, first row 0"):
            embed(few, f"onnx:{path}")


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_model_cut_short_is_refused(few, tmp_path, share):
    path = save_onnx(tmp_path / "model.onnx", ["n", 3, SIDE, SIDE])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="is not a complete ONNX model"):
        embed(few, f"onnx:{path}")


@pytest.mark.usefixtures("own_process")
def test_a_text_is_no_model(few, tmp_path):
    (tmp_path / "model.onnx").write_text("weights")
    with pytest.raises(ValueError, match="is not a complete ONNX model"):
        embed(few, f"onnx:{tmp_path / 'model.onnx'}")
    with pytest.raises(FileNotFoundError, match="no such ONNX file"):
        embed(few, f"onnx:{tmp_path / 'other.onnx'}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": 64}, "takes 32x32 pixels, got input_size=64"),
        ({"input_size": 8}, "input_size must be an integer of at least 16 and at most 1024"),
        ({"input_size": 32.0}, "input_size must be an integer"),
        ({"input_size": "32"}, "input_size must be an integer"),
        ({"channels": "GBR"}, "channels must be one of 'RGB', 'BGR'"),
        ({"mean": "none"}, "mean must be a number"),
        ({"scale": None}, "scale must be a number"),
        ({"scale": np.nan}, "scale must be a number"),
        ({"channels": "R" * 10**6}, "channels must be .*, got 'R{30,40}[.]{3}R*'$"),
        ({"zoom": 0}, "zoom must be a number of at least 0.1"),
        ({"normalise": "yes"}, "normalise must be one of True, False"),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_a_bad_option_is_refused(few, tmp_path, options, message, beside):
    path = save_onnx(tmp_path / "model.onnx", ["n", 3, SIDE, SIDE])
    if beside:
        (tmp_path / "model.json").write_text(json.dumps(options))
        options = {}
    with pytest.raises(ValueError, match=message):
        embed(few, f"onnx:{path}", **options)


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"colour": 3}', "\x00\x01"])
def test_a_wrong_file_beside_the_model_is_refused(few, tmp_path, text):
    path = save_onnx(tmp_path / "model.onnx", ["n", 3, SIDE, SIDE])
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match="model.json"):
        embed(few, f"onnx:{path}")


def test_an_unknown_option_tells_the_known_ones(few, tmp_path):
    path = save_onnx(tmp_path / "model.onnx", ["n", 3, SIDE, SIDE])
    with pytest.raises(TypeError, match="unknown options .'size'.*input_size"):
        embed(few, f"onnx:{path}", size=32)


def test_an_integer_beyond_floats_is_no_number():
    with pytest.raises(ValueError, match="mean must be a number"):
        _Preparation(mean=10**400)


def test_a_flat_photo_is_whitened_to_zeros():
    values = _Preparation(whiten=True).apply(np.full((1, 16, 16, 3), 9, np.uint8))
    assert values.dtype == np.float32 and (values == 0).all()


# FaceNet files


@pytest.fixture
def models(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(embedding, "MODELS", folder)
    return folder


def test_without_a_facenet_file_the_error_says_where_to_put_it(few, models):
    (models / "README.md").write_text("facenet goes here")
    (models / "other.onnx").write_bytes(b"")
    assert embedding.available() == ["dlib", "pca"]
    with pytest.raises(FileNotFoundError) as error:
        embed(few, "facenet")
    assert str(models) in str(error.value) and ".keras" in str(error.value)


def test_two_facenet_files_are_one_too_many(few, models):
    for name in ("facenet.onnx", "my_FaceNet.h5"):
        (models / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"several FaceNet files \(facenet.onnx, my_FaceNet.h5\); keep one"):
        embed(few, "facenet")


def test_facenet_as_onnx(few, models):
    path = save_onnx(models / "facenet.onnx", ["n", 3, SIDE, SIDE])
    assert "facenet" in embedding.available()
    expected = expected_pixels(few, zoom=0.8, scale=1 / 128).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(embed(few, "facenet"), unit(expected), atol=1e-5)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="is not a complete ONNX model"):
        embed(few, "facenet")


def whitened(faces, side=SIDE):
    pixels = embedding.crops(faces, side, 0.8).astype(np.float64)
    axes = (1, 2, 3)
    return (pixels - pixels.mean(axes, keepdims=True)) / pixels.std(axes, keepdims=True)


def convolution(channels, kernel):
    """A layer's entry in a file of Keras 2: a 1 x 1 convolution without bias."""
    return {"filters": channels, "kernel_size": [1, 1], "use_bias": False, "activation": "linear", **kernel}


def layer(class_name, name, config, *before):
    nodes = [[[other, 0, 0, {}] for other in before]] if before else []
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, "trainable": True, **config},
        "inbound_nodes": nodes,
    }


def lambda_config(marker, arguments):
    """A Lambda layer as Keras 2 stores it; its code, should anybody run it, leaves a file behind."""
    code = compile(f"lambda *inputs, **options: open({str(marker)!r}, 'w')", "facenet", "eval").co_consts[0]
    return {
        "function": [base64.b64encode(marshal.dumps(code)).decode(), None, None],
        "function_type": "lambda",
        "output_shape": None,
        "output_shape_type": "raw",
        "arguments": arguments,
    }


def write_keras2_file(path, blocks, weights):
    """An .h5 file as Keras 2 wrote it: `blocks` follow the input, `weights` maps layers to kernels."""
    shape = {"batch_input_shape": [None, SIDE, SIDE, 3], "dtype": "float32", "sparse": False}
    layers = [layer("InputLayer", "input_1", shape), *blocks]
    config = {"name": "inception_resnet_v1", "layers": layers, "input_layers": [["input_1", 0, 0]]}
    config["output_layers"] = [[layers[-1]["name"], 0, 0]]
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": config})
        file.attrs["keras_version"], file.attrs["backend"] = "2.1.2", "tensorflow"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [entry["name"].encode() for entry in layers]
        group.attrs["keras_version"], group.attrs["backend"] = "2.1.2", "tensorflow"
        for entry in layers:
            part = group.create_group(entry["name"])
            kernel = weights.get(entry["name"])
            part.attrs["weight_names"] = [] if kernel is None else [f"{entry['name']}/kernel:0".encode()]
            if kernel is not None:
                part.create_dataset(f"{entry['name']}/kernel:0", data=kernel)
    return path


def scaled_blocks(marker, arguments):
    """Two convolutions, their sum ``a + b * scale`` as in FaceNet's residual blocks, and its scaling."""
    return [
        layer("Conv2D", "a", convolution(5, {}), "input_1"),
        layer("Conv2D", "b", convolution(5, {}), "input_1"),
        layer("Lambda", "block_scale", lambda_config(marker, arguments), "a", "b"),
        layer("Lambda", "last_scale", lambda_config(marker, {"scale": 0.5}), "block_scale"),
        layer("Activation", "last_relu", {"activation": "relu"}, "last_scale"),
        layer("GlobalAveragePooling2D", "pool", {"data_format": "channels_last"}, "last_relu"),
    ]


def kernels():
    random = np.random.default_rng(1)
    return {name: random.normal(size=(1, 1, 3, 5)).astype(np.float32) for name in ("a", "b")}


@pytest.mark.usefixtures("own_process")
def test_the_scaling_layers_of_facenet_are_rebuilt_and_their_code_is_not_run(few, models, tmp_path):
    marker, weights = tmp_path / "marker", kernels()
    write_keras2_file(models / "facenet_keras.h5", scaled_blocks(marker, {"scale": 0.17}), weights)
    X = embed(few, "facenet", normalise=False)
    pixels = whitened(few)
    a, b = pixels @ weights["a"][0, 0], pixels @ weights["b"][0, 0]
    expected = np.maximum(0.5 * (a + 0.17 * b), 0).mean(axis=(1, 2))
    np.testing.assert_allclose(X, expected, atol=1e-4)
    np.testing.assert_allclose(embed(few, "facenet"), unit(expected), atol=1e-4)
    assert not marker.exists()


@pytest.mark.parametrize("arguments", [{}, {"scale": 0.17, "path": "x"}, {"factor": 2}, None, {"scale": "x"}])
def test_another_lambda_layer_is_refused_and_its_code_is_not_run(few, models, tmp_path, arguments):
    marker = tmp_path / "marker"
    write_keras2_file(models / "facenet.h5", scaled_blocks(marker, arguments), kernels())
    with pytest.raises(ValueError, match="facenet.h5: (has a Lambda layer|is not a complete Keras model)"):
        embed(few, "facenet")
    assert not marker.exists()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda inner: layer("TimeDistributed", "outer", {"layer": inner}, "input_1"),
        lambda inner: layer("Sequential", "outer", {"layers": [inner]}, "input_1"),
        lambda inner: layer("Activation", "outer", {"activation": inner}, "input_1"),
    ],
)
def test_a_lambda_inside_another_layer_is_refused(few, models, tmp_path, wrap):
    marker = tmp_path / "marker"
    inner = {"class_name": "Lambda", "config": {"name": "inner", **lambda_config(marker, {})}}
    write_keras2_file(models / "facenet.h5", [wrap(inner)], {})
    with pytest.raises(ValueError, match="has a Lambda layer .inner., which would run code"):
        embed(few, "facenet")
    assert not marker.exists()


@pytest.mark.parametrize(
    "part",
    [
        {"class_name": "Thief", "module": "thief"},
        {"class_name": "system", "module": "os"},
        {"class_name": "Thief", "module": "keras.layers", "registered_name": "pack>Thief"},
        {"class_name": "pack>Thief"},
        {"class_name": "get_file", "module": "keras.utils"},
        {"class_name": "enable_unsafe_deserialization", "module": "keras.config"},
        {"class_name": "function", "module": "builtins", "config": "exec"},
        {"class_name": "TFSMLayer"},
        {"class_name": "TorchModuleWrapper", "module": "keras.layers"},
        {"class_name": "__lambda__", "config": {"value": "code"}},
    ],
)
@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_what_is_no_plain_part_of_keras_is_refused(models, part, ending):
    path = models / f"facenet.{ending}"
    block = layer("Activation", "outer", {"activation": part}, "input_1")
    if ending == "h5":
        write_keras2_file(path, [block], {})
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(
                "config.json", json.dumps({"class_name": "Model", "config": {"layers": [block]}})
            )
    with pytest.raises(ValueError, match="it was not loaded"):
        recogniser_files.check_keras_file(path)


def test_a_class_that_keras_does_not_know_is_refused(few, models):
    write_keras2_file(models / "facenet.h5", [layer("Thief", "outer", {}, "input_1")], {})
    with pytest.raises(ValueError, match="facenet.h5: is not a complete Keras model"):
        embed(few, "facenet")


def keras_network(functional, compiled=False):
    import keras  # slow to import, and only needed here

    keras.utils.set_random_seed(0)
    steps = [
        keras.layers.Conv2D(4, 3, strides=2, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(6),
    ]
    start = keras.layers.Input((SIDE, SIDE, 3))
    if functional:
        value = start
        for step in steps:
            value = step(value)
        model = keras.Model(start, value)
    else:
        model = keras.Sequential([start, *steps])
    if compiled:
        model.compile(optimizer="adam", loss="mse", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize(("functional", "compiled"), [(True, False), (False, False), (True, True)])
def test_files_of_keras_3_give_what_the_network_gives(few, models, ending, functional, compiled):
    network = keras_network(functional, compiled)
    network.save(models / f"facenet.{ending}")
    expected = network.predict_on_batch(whitened(few).astype(np.float32))
    np.testing.assert_allclose(embed(few, "facenet", normalise=False), expected, atol=1e-4)
    X = embed(few, "facenet")
    np.testing.assert_allclose(X, unit(expected), atol=1e-4)
    assert X.shape == (4, 6) and X.dtype == np.float32


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_keras_file_cut_short_is_refused(few, models, ending, share):
    path = models / f"facenet.{ending}"
    keras_network(True).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="is not a complete Keras model"):
        embed(few, "facenet")


def test_a_lambda_in_a_keras_file_is_refused(few, models):
    import keras

    start = keras.layers.Input((SIDE, SIDE, 3))
    value = keras.layers.Lambda(lambda x, scale: x * scale, arguments={"scale": 0.17})(start)
    keras.Model(start, keras.layers.Flatten()(value)).save(models / "facenet.keras")
    with pytest.raises(ValueError, match="has a Lambda layer.*Convert the model to ONNX"):
        embed(few, "facenet")


@pytest.mark.parametrize(
    ("shape", "message"),
    [((SIDE, SIDE, 1), "one batch of RGB"), ((SIDE,), "one batch of RGB"), ((SIDE, 40, 3), "only square")],
)
def test_a_keras_network_that_takes_something_else_is_refused(few, models, shape, message):
    import keras

    keras.Sequential([keras.layers.Input(shape), keras.layers.Flatten()]).save(models / "facenet.keras")
    with pytest.raises(ValueError, match=message):
        embed(few, "facenet")


@pytest.mark.parametrize("ending", ["h5", "keras", "onnx"])
def test_a_text_is_no_facenet(few, models, ending):
    (models / f"facenet.{ending}").write_text("weights " * 100)
    with pytest.raises(ValueError, match="is not a complete (Keras|ONNX) model"):
        embed(few, "facenet")


def test_an_h5_file_of_weights_alone_is_refused(few, models):
    with h5py.File(models / "facenet.h5", "w") as file:
        file.create_group("model_weights")
    with pytest.raises(ValueError, match="is not a complete Keras model .it holds weights alone"):
        embed(few, "facenet")


# Models that take too much


def loop_forever(path):
    """A loop whose condition stays true."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", "d"]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, ["n", "d"]),
        ],
    )
    yes = helper.make_node(
        "Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    )
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), yes]
    return write_nodes(path, [*nodes, helper.make_node("Loop", ["", "yes", "flat"], ["y"], body=body)])


def expand(path, *shape):
    """A sum that is repeated to a giant shape."""
    sizes = helper.make_node(
        "Constant", [], ["s"], value=helper.make_tensor("s", TensorProto.INT64, [len(shape)], shape)
    )
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0), sizes]
    return write_nodes(path, [*nodes, helper.make_node("Expand", ["m", "s"], ["y"])])


def write_nodes(path, nodes):
    start = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SIDE, SIDE, 3])
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", [start], [end])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.usefixtures("own_process")
def test_a_model_that_never_ends_is_stopped(few, tmp_path, monkeypatch):
    path = loop_forever(tmp_path / "model.onnx")
    monkeypatch.setattr(recogniser_files, "FIRST_PHOTO_SECONDS", 2)
    monkeypatch.setattr(recogniser_files, "PHOTO_SECONDS", 0)
    with pytest.raises(ValueError, match=r"model.onnx: cannot run .*it was stopped after 2 s"):
        embed(few, f"onnx:{path}")
    save_onnx(path, ["n", SIDE, SIDE, 3])  # the next one is not disturbed
    assert embed(few, f"onnx:{path}").shape == (4, 3 * SIDE**2)


@pytest.mark.parametrize("shape", [(4, 10**10), (4, 2 * 10**9), (4, 10**6)])
@pytest.mark.usefixtures("own_process")
def test_a_model_that_takes_gigabytes_is_refused(few, tmp_path, shape):
    path = expand(tmp_path / "model.onnx", *shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"model.onnx: cannot run"):
        embed(few, f"onnx:{path}")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**18  # KiB


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.usefixtures("own_process")
def test_a_description_of_huge_layers_is_refused(few, models, ending):
    network, path = keras_network(True), models / f"facenet.{ending}"
    network.save(path)
    if ending == "h5":
        with h5py.File(path, "a") as file:
            text = file.attrs["model_config"].replace('"units": 6', '"units": 6000000000')
            file.attrs["model_config"] = text
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        members["config.json"] = members["config.json"].replace(b'"units": 6', b'"units": 6000000000')
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    with pytest.raises(ValueError, match=rf"facenet.{ending}: (is not a complete|it crashed)"):
        embed(few, "facenet")


@pytest.mark.usefixtures("own_process")
def test_arrays_without_bytes_are_refused(few, models):
    keras_network(True).save(models / "facenet.h5")
    with h5py.File(models / "facenet.h5", "a") as file:
        name = next(name for name in _datasets(file) if "kernel" in name)
        del file[name]
        file.create_dataset(name, (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))
    with pytest.raises(ValueError, match="has no values"):
        embed(few, "facenet")


def _datasets(file):
    names = []
    file.visit(names.append)
    return [name for name in names if isinstance(file[name], h5py.Dataset)]


@pytest.mark.parametrize("ending", ["h5", "keras", "onnx"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!DOCTYPE html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"\x1f\x8b\x08\0", "a gzip file"),
    ],
)
def test_a_model_of_another_kind_is_called_what_it_is(few, models, ending, content, kind):
    (models / f"facenet.{ending}").write_bytes(content)
    with pytest.raises(ValueError, match=f"is not a complete .* model .it is {kind}"):
        embed(few, "facenet")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"mean": 1e999}', '{"scale": 1' + "0" * 400 + "}"])
def test_json_that_python_cannot_hold_is_refused(few, tmp_path, text):
    path = save_onnx(tmp_path / "model.onnx", ["n", 3, SIDE, SIDE])
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match="model.json: is not valid JSON"):
        embed(few, f"onnx:{path}")


# Stored descriptors


def store(path, names, X):
    if path.suffix == ".pickle":
        rows = [
            {"imagePath": name, "loc": (0, 1, 2, 3), "encoding": row}
            for name, row in zip(names, X, strict=True)
        ]
        path.write_bytes(pickle.dumps(rows))
    elif path.suffix == ".csv":
        lines = [",".join([name, *map(str, row)]) for name, row in zip(names, X.tolist(), strict=True)]
        path.write_text("\n".join(lines) + "\n")
    else:
        utils.save_encodings(path, names, X)
    return f"stored:{path}"


def stem(name):
    return name.rpartition("/")[2].rpartition(".")[0]


def named(images, names):
    return datasets.Faces(images, [f"p{i}" for i in range(len(names))], names)


@pytest.mark.parametrize("ending", ["npz", "csv", "pickle"])
@pytest.mark.parametrize(
    "shorten", [str, lambda name: "other/folder/" + name, lambda name: name.rpartition("/")[2], stem]
)
def test_stored_descriptors_are_found_by_the_photos_names(few, tmp_path, ending, shorten):
    names = ["x/b.png", "y/a.png", "z/d.png", "z/c.png"]
    X = np.arange(12, dtype=np.float64).reshape(4, 3) / 4
    order = [2, 0, 3, 1]
    stored_names = [*(shorten(names[i]) for i in order), "somebody else.png"]
    where = store(tmp_path / f"x.{ending}", stored_names, np.vstack([X[order], [9, 9, 9]]))
    result = embed(named(few.images, names), where)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, X.astype(np.float32))


def test_a_photo_without_a_stored_descriptor_is_an_error(few, tmp_path):
    where = store(tmp_path / "x.npz", ["a.png", "b.png", "c.png"], np.eye(3))
    with pytest.raises(ValueError, match="1 of 4 photos have no stored descriptor"):
        embed(named(few.images, ["a.png", "b.png", "c.png", "d.png"]), where)


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        (["s/1.png", "t/1.png", "2.png"], ["u/1.png", "u/2.png"]),  # two rows for one photo
        (["1.png", "2.png"], ["ann/1.png", "bob/1.png"]),  # one row for two photos
        (["1", "2"], ["1.png", "1.jpg"]),
        (["a.png", "a.png"], ["a.png", "a.png"]),
    ],
)
def test_names_that_fit_twice_are_an_error(few, tmp_path, stored, names):
    X = np.arange(2.0 * len(stored)).reshape(-1, 2)
    path = tmp_path / "x.npz"
    np.savez(path, names=np.array(stored), encodings=X)
    with pytest.raises(ValueError, match=r"share a name|names|twice|more than once"):
        embed(named(few.images[: len(names)], names), f"stored:{path}")


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: "/home/me/photos/" + name,
        lambda name: "./photos/" + name.replace(".png", ".JPG"),
        lambda name: "C:\\photos\\" + name.replace("/", "\\"),
        lambda name: unicodedata.normalize("NFD", name),
        lambda name: "photos//" + name.removesuffix(".png"),
        lambda name: name.partition("/")[2] if name.startswith("a/") else name,
    ],
)
def test_stored_names_as_other_tools_write_them(few, tmp_path, rename):
    names = ["a/Jörg.png", "b/Zoë.png", "c/1.png", "d/1.png"]
    where = store(tmp_path / "x.npz", [rename(name) for name in names] + ["somebody/1 else.png"], np.eye(5))
    np.testing.assert_array_equal(embed(named(few.images, names), where), np.eye(5)[:4])


def test_a_missing_photo_is_not_replaced_by_another_persons(few, tmp_path):
    names = [f"s{i}/1.png" for i in range(4)]
    for stored in (names[1:], [*names[1:], "s9/1.png"], ["x/" + name for name in [*names[1:], "s9/1.png"]]):
        where = store(tmp_path / "x.npz", stored, np.eye(len(stored)))
        with pytest.raises(ValueError, match="1 of 4 photos have no stored descriptor"):
            embed(named(few.images, names), where)


def test_suffixes_tell_names_apart_that_are_else_equal(few, tmp_path):
    where = store(tmp_path / "x.npz", ["a/1.png", "a/1.jpg"], np.eye(2))
    np.testing.assert_array_equal(embed(named(few.images[:2], ["1.jpg", "1.png"]), where), np.eye(2)[::-1])
    with pytest.raises(ValueError, match="share a name"):
        embed(named(few.images[:1], ["1.webp"]), where)


def test_full_names_win_over_short_ones(few, tmp_path):
    names = ["ann/1.png", "bob/1.png"]
    where = store(tmp_path / "x.npz", names[::-1], np.eye(2))
    np.testing.assert_array_equal(embed(named(few.images[:2], names), where), np.eye(2)[::-1])


def test_a_photo_that_is_there_twice_has_the_same_stored_descriptor(few, tmp_path):
    where = store(tmp_path / "x.npz", ["a", "b"], np.eye(2))
    result = embed(named(few.images[:3], ["a.png", "b.png", "a.png"]), where)
    np.testing.assert_array_equal(result, np.eye(2)[[0, 1, 0]])


def test_stored_descriptors_need_names(few, tmp_path):
    where = store(tmp_path / "x.npz", ["a"], np.eye(1))
    with pytest.raises(TypeError, match="looked up by the photos' names"):
        embed(few.images[:1], where)
    with pytest.raises(FileNotFoundError):
        embed(few, f"stored:{tmp_path / 'missing.npz'}")


def test_a_damaged_file_of_descriptors_is_refused(few, tmp_path):
    store(tmp_path / "x.npz", list(few.names), np.eye(4))
    content = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="x.npz"):
        embed(few, f"stored:{tmp_path / 'x.npz'}")
