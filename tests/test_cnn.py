"""The up-convolutional network: its files, its training, what it draws, and the surrogates made with it."""

import functools
import json
import os
import subprocess
import sys
import zipfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

import CNN
import datasets
import detection
import embedding
from anonymizer.cnn import UpConvolution
from CNN import fitting, generation
from CNN.__main__ import main
from CNN.architecture import Architecture, build
from CNN.model import FaceNetwork
from CNN.training import UpConvolutionSettings, UpConvolutionTrainer
from datasets import Faces
from training import loop
from training.command import output_file
from training.losses import pyramid_loss, weighted_mean
from training.training_set import mirror_landmarks, prepare

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "cnn" / "FaceGen.RaFD.model.d5.adam.h5"
SETTINGS = UpConvolutionSettings(images=24, batch=4, nuisance=3, evaluate_every=12)

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANONFACES_QUIET", "1")
        yield


@pytest.fixture(scope="module")
def faces():
    """Four photos of each of three people."""
    return datasets.load_faces("orl").select([0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23])


@pytest.fixture(scope="module")
def aligned(faces):
    return prepare(faces, held_out=1, size=(40, 33))


def train(aligned, options=SETTINGS, capacity=0.05):
    trainer = UpConvolutionTrainer(aligned, options, capacity)
    while trainer.seen < options.images:
        trainer.step()
    return trainer


@pytest.fixture(scope="module")
def trainer(aligned):
    return train(aligned)


@pytest.fixture(scope="module")
def model(trainer):
    return trainer.result()


@pytest.fixture(scope="module")
def weights(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.keras"
    model.save(path)
    return path


@functools.cache
def released_network(n_blocks=2, inputs=(("identity", 5), ("orientation", 2), ("emotion", 8)), seed=0):
    """A small network as the released files have them, with random weights and statistics."""
    architecture = Architecture(
        inputs=inputs, height=5 * 2**n_blocks, width=4 * 2**n_blocks, channels=3, input_units=6, hidden_units=(7,),
        base_filters=4, filters=(4,) * n_blocks, kernels=((5, 3),) * n_blocks, normalised_blocks=n_blocks - 1,
        negative_slope=0.3,
    )  # fmt: skip
    network = build(architecture)
    random = np.random.default_rng(seed)
    network.set_weights([random.uniform(0.1, 1.0, weight.shape) - 0.4 * (weight.ndim > 1)
                         for weight in network.get_weights()])  # fmt: skip
    return FaceNetwork(architecture, network, [str(i) for i in range(inputs[0][1])])


#: What layers and their arrays are called by the two generations of Keras.
KERAS_2 = {
    "Dense": ("dense_{0}", ("dense_{0}/kernel:0", "dense_{0}/bias:0")),
    "Conv2D": ("conv2d_{0}", ("conv2d_{0}/kernel:0", "conv2d_{0}/bias:0")),
    "BatchNormalization": (
        "batch_normalization_{0}",
        tuple("batch_normalization_{0}/" + part
              for part in ("gamma:0", "beta:0", "moving_mean:0", "moving_variance:0")),
    ),
}  # fmt: skip
KERAS_1 = {
    "Dense": ("dense_{0}", ("dense_{0}_W:0", "dense_{0}_b:0")),
    "Conv2D": ("convolution2d_{0}", ("convolution2d_{0}_W:0", "convolution2d_{0}_b:0")),
    "BatchNormalization": (
        "batchnormalization_{0}",
        tuple("batchnormalization_{0}_" + part
              for part in ("gamma:0", "beta:0", "running_mean:0", "running_std:0")),
    ),
}  # fmt: skip


def write_released(path, model, names, layers=None, first=1):
    """Write a network's arrays as an old Keras would have."""
    counts = dict.fromkeys(names, first - 1)
    with h5py.File(path, "w") as file:
        for layer in model.network.layers:
            kind = type(layer).__name__
            if kind in names:
                counts[kind] += 1
                group, parts = names[kind]
                for part, values in zip(parts, layer.get_weights(), strict=True):
                    file[f"model_weights/{group}/{part}".format(counts[kind])] = values
        if layers is not None:
            config = {"class_name": "Model", "config": {"layers": layers}}
            file.attrs["model_config"] = json.dumps(config)
    return path


def draw_released(model):
    random = np.random.default_rng(1)
    return {
        name: random.normal(size=(3, size)).astype(np.float32) for name, size in model.architecture.inputs
    }


# Released files


@pytest.mark.skipif(not REFERENCE.is_file(), reason="the reference network is not here")
def test_a_released_file_draws_what_its_own_keras_drew():
    model = CNN.load_model(REFERENCE)
    stored = np.load(REFERENCE.with_suffix(".npz"))
    drawn = model.generate(stored["identity"], stored["emotion"], stored["orientation"])
    assert drawn.dtype == np.float32
    assert np.abs(drawn - stored["images"]).max() < 1e-4
    assert (model.dataset, len(model.identities)) == ("RaFD", 57)


@pytest.mark.parametrize("names", [KERAS_1, KERAS_2], ids=["Keras 1", "Keras 2"])
@pytest.mark.parametrize("first", [1, 8])
def test_any_number_of_blocks_and_identities_is_read(tmp_path, names, first):
    model = released_network(n_blocks=5)  # 11 convolutions: conv2d_10 must come after conv2d_2
    path = write_released(tmp_path / "FaceGen.RaFD.h5", model, names, first=first)
    loaded = CNN.load_model(path)
    inputs = draw_released(model)
    np.testing.assert_allclose(loaded.generate(**inputs), model.generate(**inputs), atol=1e-6)


def test_the_file_name_tells_the_data_set_and_its_inputs(tmp_path):
    inputs = (("identity", 4), ("pose", 10), ("lighting", 4))
    path = write_released(tmp_path / "FaceGen.YALE.d2.h5", released_network(inputs=inputs), KERAS_2)
    model = CNN.load_model(path)
    assert model.dataset == "YALE"
    assert model.architecture.inputs == inputs
    assert model.generate(np.eye(4), pose=np.ones((1, 10)), lighting=np.ones((4, 4))).shape == (4, 20, 16, 3)


def test_identities_can_be_named(tmp_path):
    path = write_released(tmp_path / "FaceGen.RaFD.h5", released_network(), KERAS_2)
    names = ["01", "02", "04", "05", "07"]
    assert CNN.load_model(path).identities == ["0", "1", "2", "3", "4"]
    codes = CNN.load_model(path, identities=names).identity_codes(["04", "01"])
    assert codes.argmax(axis=1).tolist() == [2, 0]
    with pytest.raises(ValueError, match="must be 5 names, got 2"):
        CNN.load_model(path, identities=names[:2])


@pytest.mark.parametrize("kind", ["Lambda", "TFSMLayer", "lambda"])
def test_a_layer_that_runs_code_is_refused(tmp_path, kind):
    layers = [{"class_name": kind, "name": "x", "config": {"function": ["4wA="]}, "inbound_nodes": []}]
    path = write_released(tmp_path / "FaceGen.RaFD.h5", released_network(), KERAS_2, layers)
    with pytest.raises(ValueError, match="holds a"):
        CNN.load_model(path)


def test_a_merge_by_code_is_refused(tmp_path):
    layers = [
        {
            "class_name": "Merge",
            "name": "x",
            "config": {"mode": "x", "mode_type": "lambda"},
            "inbound_nodes": [],
        }
    ]
    path = write_released(tmp_path / "FaceGen.RaFD.h5", released_network(), KERAS_2, layers)
    with pytest.raises(ValueError, match="Lambda"):
        CNN.load_model(path)


def test_slope_and_epsilon_come_from_the_file(tmp_path):
    layers = [
        {"class_name": "LeakyReLU", "name": "a", "config": {"alpha": 0.1}, "inbound_nodes": []},
        {"class_name": "BatchNormalization", "name": "b", "config": {"epsilon": 1e-5}, "inbound_nodes": []},
    ]
    model = released_network()
    path = write_released(tmp_path / "FaceGen.RaFD.h5", model, KERAS_2, layers)
    loaded = CNN.load_model(path).architecture
    assert loaded == replace(model.architecture, negative_slope=0.1, epsilon=1e-5)


def test_arrays_kept_elsewhere_are_refused(tmp_path):
    path = write_released(tmp_path / "FaceGen.RaFD.h5", released_network(), KERAS_2)
    (tmp_path / "other.h5").write_bytes(path.read_bytes())
    with h5py.File(path, "a") as file:
        del file["model_weights/dense_1"]
        file["model_weights/dense_1"] = h5py.ExternalLink("other.h5", "/model_weights/dense_1")
    with pytest.raises(ValueError, match="dense_1' is not stored in this file"):
        CNN.load_model(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_released_file_is_refused(tmp_path, share):
    path = write_released(tmp_path / "FaceGen.RaFD.h5", released_network(), KERAS_2)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="FaceGen.RaFD.h5"):
        CNN.load_model(path)


def test_shapes_that_do_not_fit_are_refused(tmp_path):
    path = write_released(tmp_path / "FaceGen.RaFD.h5", released_network(), KERAS_2)
    with h5py.File(path, "a") as file:
        del file["model_weights/conv2d_2/conv2d_2/kernel:0"]
        file["model_weights/conv2d_2/conv2d_2/kernel:0"] = np.zeros((3, 3, 5, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="shapes"):
        CNN.load_model(path)


def test_arrays_without_bytes_are_refused(tmp_path):
    for options in ({}, {"chunks": (1 << 20, 1)}):
        path = write_released(tmp_path / "FaceGen.RaFD.h5", released_network(), KERAS_2)
        with h5py.File(path, "a") as file:
            del file["model_weights/dense_2/dense_2/kernel:0"]
            file.create_dataset("model_weights/dense_2/dense_2/kernel:0", (1 << 33, 4), "f4", **options)
        with pytest.raises(ValueError, match="dense_2/kernel:0' has no values"):
            CNN.load_model(path)


@pytest.mark.parametrize("shape", [(1, 100_000), (30_000, 8)])
def test_shapes_that_ask_for_a_huge_network_are_refused_before_it_is_built(tmp_path, shape):
    """Each array is small, but the layer between them would not be."""
    path = write_released(tmp_path / "FaceGen.RaFD.h5", released_network(), KERAS_2)
    with h5py.File(path, "a") as file:
        layers = file["model_weights"]
        joint = sorted((name for name in layers if name.startswith("dense")), key=lambda n: (len(n), n))[-2]
        del layers[f"{joint}/{joint}/kernel:0"]
        rows = layers[joint].get(f"{joint}/bias:0").shape[0] if shape[0] == 1 else shape[0]
        layers[joint].create_dataset(f"{joint}/kernel:0", data=np.zeros((rows, shape[1]), np.float32))
    with pytest.raises(ValueError, match=r"FaceGen.RaFD.h5: not a complete"):
        CNN.load_model(path)


@pytest.mark.parametrize("setting", ["[" * 100_000, '{"epsilon": 1e999}', '{"epsilon": 1' + "0" * 400 + "}"])
def test_a_configuration_that_cannot_be_parsed_is_refused(tmp_path, setting):
    path = write_released(tmp_path / "FaceGen.RaFD.h5", released_network(), KERAS_2)
    text = '[{"class_name": "BatchNormalization", "name": "b", "inbound_nodes": [], "config": SETTING}]'
    with h5py.File(path, "a", libver="latest") as file:
        file.attrs["model_config"] = text.replace("SETTING", setting)
    with pytest.raises(ValueError, match=r"FaceGen.RaFD.h5: not a complete FaceGen network \(its JSON"):
        CNN.load_model(path)


# Our files


def test_what_was_saved_is_loaded(model, weights):
    loaded = CNN.load_model(weights)
    code = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    nuisance = np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_array_equal(
        loaded.generate(code, nuisance=nuisance), model.generate(code, nuisance=nuisance)
    )
    for name in ("architecture", "identities", "dataset", "training", "photos", "held_out"):
        assert getattr(loaded, name) == getattr(model, name)
    for name in ("photo_people", "nuisance_codes", "landmarks"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))


def test_keras_opens_our_files_without_our_code(model, weights):
    network = keras.models.load_model(weights, safe_mode=True)
    inputs = {"identity": np.eye(3, dtype=np.float32), "nuisance": np.zeros((3, 3), dtype=np.float32)}
    np.testing.assert_allclose(network.predict(inputs, verbose=0), model.generate(np.eye(3)), atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.999])
def test_a_truncated_file_is_refused(weights, tmp_path, share):
    path = tmp_path / "cut.keras"
    content = weights.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="cut.keras"):
        CNN.load_model(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        CNN.load_model(tmp_path / "missing.keras")
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        CNN.load_model(tmp_path / "missing.h5")
    with pytest.raises(ValueError, match=r"\.keras file"):
        CNN.load_model(tmp_path / "weights.pickle")
    other = tmp_path / "other.keras"
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(other)
    with pytest.raises(ValueError, match="not a face network"):
        CNN.load_model(other)


def with_architecture(weights, path, name, value):
    """Write the weights to another file, with one value of their architecture changed; return its path."""
    with zipfile.ZipFile(weights) as archive, zipfile.ZipFile(path, "w") as changed:
        for member in archive.namelist():
            content = archive.read(member)
            if member == "anonfaces.json":
                description = json.loads(content)
                description["architecture"][name] = value
                content = json.dumps(description)
            changed.writestr(member, content)
    return path


@pytest.mark.parametrize(
    ("name", "value"),
    [("height", 100_000), ("filters", [4, 4]), ("inputs", [["pose", 3]]), ("kernels", 3), ("width", "wide")],
)
def test_a_wrong_description_is_refused(weights, tmp_path, name, value):
    path = with_architecture(weights, tmp_path / "changed.keras", name, value)
    with pytest.raises(ValueError, match="changed.keras"):
        CNN.load_model(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("hidden_units", [65_536, 65_536], "its network is too large for a file of"),
        ("filters", [65_536] * 3, "its network is too large for a file of"),
        ("height", 1e999, "no finite number"),
    ],
)
def test_a_small_file_cannot_ask_for_a_huge_network(weights, tmp_path, name, value, message):
    path = with_architecture(weights, tmp_path / "changed.keras", name, value)
    with pytest.raises(ValueError, match=message):
        CNN.load_model(path)


def test_a_file_without_weights_is_refused(weights, tmp_path):
    path = tmp_path / "changed.keras"
    with zipfile.ZipFile(weights) as archive, zipfile.ZipFile(path, "w") as changed:
        for member in archive.namelist():
            if member != "model.weights.h5":
                changed.writestr(member, archive.read(member))
    with pytest.raises(ValueError, match="it holds no model.weights.h5"):
        CNN.load_model(path)


@pytest.mark.parametrize("name", ["net.keras", "FaceGen.h5"])
def test_files_of_another_kind_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(ValueError, match="it is a web page"):
        CNN.load_model(tmp_path / name)


@pytest.mark.parametrize("size", [(64, 48), (37, 90)])
@pytest.mark.parametrize("normalised", [0, 2])
def test_the_number_of_weights_is_known_before_the_network_is_built(size, normalised):
    architecture = Architecture.for_size({"identity": 5, "nuisance": 3}, *size, 3, capacity=0.1)
    architecture = replace(architecture, normalised_blocks=normalised, hidden_units=(7, 9))
    network = build(architecture)
    assert architecture.n_weights == network.count_params()
    sizes = [np.prod(layer.output.shape[1:]) for layer in network.layers if len(layer.output.shape) == 4]
    assert architecture.largest_features == max(sizes)


def test_the_users_settings_of_keras_do_not_matter(weights, tmp_path):
    (tmp_path / ".keras").mkdir()
    settings = {"image_data_format": "channels_first", "backend": "theano", "floatx": "float64"}
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(settings))
    environment = {**os.environ, "HOME": str(tmp_path), "KERAS_BACKEND": "torch"}
    script = f"import CNN; print(CNN.load_model({str(weights)!r}).generate([[1, 0, 0]]).dtype)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["float32"], done.stderr[-500:]


# Drawing


@settings(max_examples=8, deadline=None)
@given(height=st.integers(16, 90), width=st.integers(16, 90), channels=st.sampled_from([1, 3]))
def test_any_size_can_be_drawn(height, width, channels):
    architecture = Architecture.for_size({"identity": 2}, height, width, channels, capacity=0.02)
    drawn = FaceNetwork(architecture, build(architecture), ["a", "b"]).generate(np.eye(2))
    assert drawn.shape == (2, height, width, channels)
    assert (drawn >= 0).all() and (drawn <= 1).all()


@pytest.mark.parametrize(
    ("size", "n_blocks"), [((96, 80), 4), ((112, 92), 4), ((320, 256), 6), ((640, 512), 7)]
)
def test_larger_pictures_get_more_blocks(size, n_blocks):
    architecture = Architecture.for_size({"identity": 2}, *size, 3)
    assert len(architecture.filters) == n_blocks
    assert max(architecture.base) <= 8


def test_rows_do_not_depend_on_their_batch(model):
    codes = np.random.default_rng(0).dirichlet(np.ones(3), 19)
    whole = model.generate(codes)
    for row in (0, 15, 16, 18):
        np.testing.assert_allclose(model.generate(codes[row : row + 1])[0], whole[row], atol=1e-6)
    assert model.generate(np.zeros((0, 3))).shape == (0, 40, 33, 1)


def test_codes_have_calm_defaults():
    model = released_network()
    calm = np.eye(8)[[5]]
    np.testing.assert_array_equal(
        model.generate(np.eye(5)), model.generate(np.eye(5), calm, np.array([[0.0, 1.0]]))
    )


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"identity": [1.0, 0, 0]}, "shape"),
        ({"identity": np.eye(4)}, "shape"),
        ({"identity": np.full((1, 3), np.nan)}, "NaN"),
        ({"identity": np.eye(3), "emotion": np.eye(8)}, "not emotion"),
        ({"identity": np.eye(3), "nuisance": np.zeros((2, 3))}, "one row, or 3 like identity"),
        ({"identity": None}, "needs identity"),
    ],
)
def test_wrong_codes_are_refused(model, codes, message):
    with pytest.raises(ValueError, match=message):
        model.generate(**codes)


def test_codes_must_be_numbers(model):
    with pytest.raises(TypeError, match="numbers"):
        model.generate([["a", "b", "c"]])


def test_unknown_people_are_refused(model):
    np.testing.assert_array_equal(model.identity_codes(["s3", "s1"]), np.eye(3)[[2, 0]])
    with pytest.raises(ValueError, match="not trained on s4; it knows 3 people"):
        model.identity_codes(["s1", "s4"])


# Training


def test_anchors_and_held_out_photos(faces, aligned):
    assert aligned.pictures.shape == (12, 40, 33, 1)
    for person in range(3):
        of_person = aligned.people == person
        assert (aligned.held_out & of_person).sum() == 1
        assert (aligned.anchors & of_person).sum() == 1
    assert not (aligned.anchors & aligned.held_out).any()
    other = prepare(faces, held_out=1, size=(40, 33), random_state=1)
    assert (other.held_out != aligned.held_out).any()


def test_eyes_come_to_one_place(faces):
    prepared = prepare(faces, held_out=1)
    assert prepared.pictures.shape == (12, 112, 92, 1)
    rgb = [np.repeat(picture, 3, axis=2) for picture in prepared.pictures]
    found = detection.detect(rgb)
    eyes = found.landmarks[found.found][:, 36:48].reshape(-1, 2, 6, 2).mean(axis=2)
    wanted = prepared.landmarks[36:48].reshape(2, 6, 2).mean(axis=1)
    assert found.found.mean() > 0.9
    assert np.linalg.norm(eyes - wanted, axis=2).mean() < 3


def test_a_person_keeps_a_photo(faces):
    prepared = prepare(faces.select([0, 4, 5]), held_out=2, size=(32, 32))
    assert [(~prepared.held_out[prepared.people == person]).sum() for person in (0, 1)] == [1, 1]


def test_the_anchor_has_code_zero(aligned, trainer, model):
    anchors = {aligned.names[i] for i in np.flatnonzero(aligned.anchors)}
    for name in model.photos:
        assert (model.nuisance_of(name) == 0).all() == (name in anchors)
    assert set(model.photos).isdisjoint(model.held_out)
    assert len(model.photos) == 9 and len(model.held_out) == 3
    assert model.nuisance_of("s9/9.pgm") is None


def test_mirrored_landmarks_are_landmarks_of_the_mirrored_photo(faces):
    image = faces.images[0]
    found = detection.detect([image, np.ascontiguousarray(image[:, ::-1])]).landmarks
    turned = mirror_landmarks(found[0], image.shape[1])
    assert np.linalg.norm(turned - found[1], axis=1).mean() < 2
    np.testing.assert_allclose(mirror_landmarks(turned, image.shape[1]), found[0])


def test_landmark_codes_tell_how_a_photo_differs_from_the_anchor(aligned):
    codes = aligned.landmark_codes(4)
    assert codes.shape == (24, 4) and codes.dtype == np.float32
    assert not codes[:12][aligned.anchors].any()
    learnt = codes[np.tile(~aligned.held_out, 2)]
    assert np.sqrt((learnt[:, 0] ** 2).mean()) == pytest.approx(1, abs=1e-3)
    assert (np.diff((learnt**2).mean(axis=0)) <= 1e-6).all()
    whole = aligned.landmark_codes(136)  # all components: distances of codes are those of the landmarks
    anchors = np.flatnonzero(aligned.anchors)[aligned.people]
    moved = np.linalg.norm(aligned.shapes - aligned.shapes[anchors], axis=(1, 2))
    sizes = np.linalg.norm(whole[:12], axis=1)
    trained = ~aligned.held_out & ~aligned.anchors
    np.testing.assert_allclose(
        sizes[trained] / moved[trained], sizes[trained][0] / moved[trained][0], rtol=1e-3
    )


def test_held_out_photos_change_nothing(aligned, model):
    changed = aligned.pictures.copy()
    changed[aligned.held_out] = 255 - changed[aligned.held_out]
    other = train(replace(aligned, pictures=changed)).result()
    np.testing.assert_array_equal(other.generate(np.eye(3)), model.generate(np.eye(3)))


@pytest.mark.usefixtures("compiled")
def test_training_learns(aligned):
    options = replace(SETTINGS, images=480, learning_rate=5e-3)
    trainer = UpConvolutionTrainer(aligned, options, 0.1)
    losses = [trainer.step() for _ in range(120)]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])


def test_a_resumed_training_is_the_same(aligned, model, tmp_path):
    first = UpConvolutionTrainer(aligned, SETTINGS, 0.05)
    for _ in range(3):
        first.step()
    first.save_checkpoint(tmp_path / "c.npz")
    second = UpConvolutionTrainer(aligned, SETTINGS, 0.05)
    second.load_checkpoint(tmp_path / "c.npz")
    while second.seen < SETTINGS.images:
        second.step()
    result = second.result()
    np.testing.assert_allclose(result.generate(np.eye(3)), model.generate(np.eye(3)), atol=1e-6)
    np.testing.assert_allclose(result.nuisance_codes, model.nuisance_codes, atol=1e-6)
    other = UpConvolutionTrainer(aligned, replace(SETTINGS, seed=1), 0.05)
    with pytest.raises(ValueError, match="different photos or settings"):
        other.load_checkpoint(tmp_path / "c.npz")


@pytest.mark.usefixtures("compiled")
def test_the_held_out_loss_falls_as_codes_are_fitted(trainer):
    before = trainer.held_out_loss()
    for _ in range(5):
        after = trainer.held_out_loss()
    assert after < before


def test_an_interrupted_training_leaves_all_files(aligned, tmp_path, monkeypatch):
    trainer = UpConvolutionTrainer(aligned, SETTINGS, 0.05)
    step = trainer.step

    def interrupted():
        if trainer.steps == 2:
            raise KeyboardInterrupt
        return step()

    monkeypatch.setattr(trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(tmp_path / "w.keras", tmp_path / "c.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"w.keras", "w.csv", "w.png", "c.npz"}
    again = UpConvolutionTrainer(aligned, SETTINGS, 0.05)
    again.load_checkpoint(tmp_path / "c.npz")
    assert (again.seen, again.steps, again.log) == (8, 2, [])


def test_training_stops_when_the_held_out_loss_no_longer_falls(aligned, tmp_path, monkeypatch):
    options = replace(SETTINGS, images=400, evaluate_every=4, patience=3)
    trainer = UpConvolutionTrainer(aligned, options, 0.05)
    losses = iter([0.5, 0.4, 0.45, 0.41, 0.4, 0.1])
    monkeypatch.setattr(trainer, "held_out_loss", lambda: next(losses))
    trainer.train(tmp_path / "w.keras", tmp_path / "c.npz")
    assert [line["held_out_loss"] for line in trainer.log] == [0.5, 0.4, 0.45, 0.41, 0.4]
    assert trainer.seen == 20


def test_one_identity_can_be_trained(faces):
    alone = prepare(faces.select([0, 1, 2]), held_out=1, size=(35, 29))
    model = train(alone, replace(SETTINGS, images=8)).result()
    assert model.generate([[1.0]]).shape == (1, 35, 29, 1)


def test_emotions_and_poses_can_be_trained(faces):
    attributes = pd.DataFrame({"expression": ["happy", "neutral"] * 2, "pose": [90, 45, 135, 90]})
    named = Faces(list(faces.images[:4]), faces.identities[:4], faces.names[:4], attributes, "rafd")
    prepared = replace(prepare(named, 1, (32, 26)), conditions=fitting.conditions_of(named))
    np.testing.assert_allclose(
        prepared.conditions["orientation"][[0, 2]], [[0, 1], [0.5**0.5, 0.5**0.5]], atol=1e-6
    )
    model = train(prepared, replace(SETTINGS, images=8)).result()
    assert model.architecture.input_sizes == {"identity": 1, "emotion": 8, "orientation": 2}
    assert model.generate([[1.0]]).shape == (1, 32, 26, 1)
    with pytest.raises(ValueError, match="no expression and pose"):
        fitting.conditions_of(faces)


@pytest.mark.parametrize(
    ("name", "value"),
    [("images", 0), ("batch", 1.5), ("ema", 1.0), ("mirror", -0.1), ("precision", "float8"), ("seed", True)],
)
def test_wrong_settings_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        replace(SETTINGS, **{name: value})


def test_loss_of_a_constant_difference():
    """It shows in the pixels and in the coarsest level; all bands between are 0."""
    difference = tf.fill((1, 32, 32, 1), 0.3)
    assert float(pyramid_loss(difference, tf.ones((1, 32, 32, 1)))) == pytest.approx(0.6, abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(scale=st.floats(-3, 3), seed=st.integers(0, 99))
def test_loss_is_homogeneous(scale, seed):
    difference = np.random.default_rng(seed).normal(size=(1, 21, 17, 1)).astype(np.float32)
    weights = tf.ones((1, 21, 17, 1))
    once = float(pyramid_loss(tf.constant(difference), weights))
    scaled = float(pyramid_loss(tf.constant(np.float32(scale) * difference), weights))
    assert scaled == pytest.approx(abs(scale) * once, rel=1e-4, abs=1e-6)


def test_the_loss_looks_where_weights_are():
    difference, weights = np.zeros((1, 16, 16, 1), np.float32), np.zeros((1, 16, 16, 1), np.float32)
    difference[:, :, :8], weights[:, :, 8:] = 1, 1
    assert weighted_mean(difference, weights) == 0


@pytest.mark.usefixtures("compiled")
def test_fitting_finds_a_code(model):
    """What the network itself draws with a code is drawn again with the fitted one."""
    identity = np.eye(3, dtype=np.float32)[[1]]
    wanted = model.generate(identity, nuisance=np.array([[0.9, -0.7, 0.8]]))
    code = fitting.fit_nuisance(
        model, identity, wanted, np.ones((1, 40, 33), dtype=bool), steps=60, prior=0.0
    )
    before, after = (
        np.abs(model.generate(identity, nuisance=c) - wanted).mean() for c in (np.zeros((1, 3)), code)
    )
    assert after < 0.5 * before
    with pytest.raises(ValueError, match="shape"):
        fitting.fit_nuisance(model, identity, wanted, np.ones((1, 40, 40), dtype=bool))


# Series


def test_one_face_shows_what_was_asked_for():
    made = generation.fixed_codes(released_network(), {"id": "1+3", "em": "happy", "or": 90})
    np.testing.assert_allclose(made["identity"], [[0, 0.5**0.5, 0, 0.5**0.5, 0]], atol=1e-6)
    np.testing.assert_allclose(made["emotion"], np.eye(8)[[4]], atol=1e-6)
    np.testing.assert_allclose(made["orientation"], [[1, 0]], atol=1e-6)


def test_poses_and_lighting():
    model = released_network(inputs=(("identity", 4), ("pose", 10), ("lighting", 4)))
    made = generation.fixed_codes(model, {"ps": 7, "lt": "90 0"})
    np.testing.assert_allclose(made["pose"], np.eye(10)[[7]])
    np.testing.assert_allclose(made["lighting"], [[1, 0, 0, 1]], atol=1e-6)
    made = generation.random_codes(model, 3, step=0.1)
    np.testing.assert_allclose((made["lighting"].reshape(3, 2, 2) ** 2).sum(axis=2), 1, rtol=1e-5)


def test_people_and_photos_are_known_by_name(model):
    made = generation.fixed_codes(model, {"id": "s1+s3", "nu": model.photos[1]})
    np.testing.assert_allclose(made["identity"], [[0.5, 0, 0.5]], atol=1e-6)
    np.testing.assert_allclose(made["nuisance"], model.nuisance_codes[1:2], atol=1e-6)
    for numbers in ("1 2 3", [1, 2, 3]):
        np.testing.assert_allclose(generation.fixed_codes(model, {"nu": numbers})["nuisance"], [[1, 2, 3]])
    np.testing.assert_allclose(generation.fixed_codes(model, {"nu": 0.5})["nuisance"], [[0.5] * 3])


def test_interpolation_runs_straight_through_its_keyframes():
    keyframes = [{"id": 0, "em": "sad"}, {"id": 2, "em": "sad"}, {"id": 2, "em": "happy"}]
    made = generation._interpolated_codes(released_network(), keyframes, 4)
    assert len(made["identity"]) == 2 * 4 + 1
    np.testing.assert_allclose(made["identity"][[0, 1, 4, 8]], [np.eye(5)[0], [0.75, 0, 0.25, 0, 0],
                                                               np.eye(5)[2], np.eye(5)[2]], atol=1e-6)  # fmt: skip
    np.testing.assert_allclose(made["emotion"][6], (np.eye(8)[6] + np.eye(8)[4]) / 2, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(step=st.floats(0, 0.3), seed=st.integers(0, 1000))
def test_a_walk_takes_small_steps_on_the_sphere(step, seed):
    made = generation.random_codes(released_network(), 12, {"or": 10}, step, seed)
    for name in ("identity", "emotion"):
        length = np.linalg.norm(made[name], axis=1)
        np.testing.assert_allclose(length, 1, rtol=1e-5)
        moved = np.linalg.norm(np.diff(made[name], axis=0), axis=1)
        assert moved.max() <= 2 * step * made[name].shape[1] ** 0.5 + 1e-6
    assert np.ptp(made["orientation"], axis=0).max() == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), walk=st.booleans())
def test_random_codes_stay_where_the_network_was_trained(seed, walk):
    made = generation.random_codes(released_network(), 5, step=0.1 if walk else None, random_state=seed)
    np.testing.assert_allclose(np.linalg.norm(made["identity"], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(made["orientation"], axis=1), 1, rtol=1e-5)


def test_random_people_of_our_networks_are_mixtures(model):
    made = generation.random_codes(model, 20, random_state=3)
    np.testing.assert_allclose(made["identity"].sum(axis=1), 1, rtol=1e-5)
    assert made["identity"].min() >= 0
    again = generation.random_codes(model, 20, random_state=3)
    np.testing.assert_array_equal(made["nuisance"], again["nuisance"])


def test_a_walk_through_mixtures_neither_jumps_nor_ends_at_the_mean(model):
    made = generation.random_codes(model, 400, step=0.1)
    steps = np.abs(np.diff(made["identity"], axis=0)).sum(axis=1)
    assert steps.mean() < 0.2
    np.testing.assert_allclose(made["identity"].sum(axis=1), 1, rtol=1e-5)
    assert made["identity"][200:].max(axis=1).mean() > 0.6  # the mean of three people would be 1/3
    still = generation.random_codes(model, 3, step=0)
    assert np.ptp(still["identity"], axis=0).max() == 0 and np.ptp(still["nuisance"], axis=0).max() == 0


@pytest.mark.parametrize(
    ("show", "message"),
    [
        ({"identity": 3}, "unknown code 'identity'; choose from 'id', 'nu'"),
        ({"id": 9}, "from 0 to 2"),
        ({"id": True}, "unknown identity 'True'"),
        ({"id": "s1+s9"}, "unknown identity 's9'"),
        ({"em": "happy"}, "unknown code 'em'"),
        ({"nu": "s9/1.pgm"}, "name of a training photo"),
        ({"nu": [1, 2]}, r"shape \(3\)"),
        ({"nu": np.nan}, "finite"),
    ],
)
def test_wrong_values_are_refused(model, show, message):
    for make in (
        lambda: generation.fixed_codes(model, show),
        lambda: generation.random_codes(model, 2, show),
        lambda: generation._interpolated_codes(model, [show, show], 2),
    ):
        with pytest.raises(ValueError, match=message):
            make()


def test_wrong_series_are_refused(model):
    with pytest.raises(ValueError, match="orientation in degrees must be"):
        generation.fixed_codes(released_network(), {"or": "left"})
    with pytest.raises(ValueError, match="number of frames"):
        generation.random_codes(model, 0)
    with pytest.raises(ValueError, match="step must be"):
        generation.random_codes(model, 3, step=2)
    with pytest.raises(ValueError, match="keyframes must be"):
        generation._interpolated_codes(model, [{}], 3)
    with pytest.raises(ValueError, match="n_steps must be"):
        generation._interpolated_codes(model, [{}, {}], 0)


@pytest.mark.parametrize("name", ["a.gif", "folder"])
def test_frames_are_written(tmp_path, name):
    grey = np.random.default_rng(0).integers(0, 256, (4, 1, 1, 1), dtype=np.uint8)
    frames = np.broadcast_to(grey, (4, 35, 29, 3)).copy()
    out = tmp_path / name
    generation._save_frames(frames, out, fps=5)
    if name == "folder":
        files = sorted(out.iterdir())
        assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png", "00003.png"]
        np.testing.assert_array_equal(np.stack([Image.open(file) for file in files]), frames)
        with pytest.raises(FileExistsError, match="not empty"):
            generation._save_frames(frames, out)
    else:
        with Image.open(out) as animation:
            read = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(animation)]
            assert animation.info["duration"] == 200
        assert len(read) == 4
        assert np.abs(np.mean(read, axis=(1, 2, 3)) - frames.mean(axis=(1, 2, 3))).max() < 6


def test_wrong_frames_are_refused(tmp_path):
    with pytest.raises(ValueError, match="uint8"):
        generation._save_frames(np.zeros((2, 8, 8, 3)), tmp_path / "a")
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"a folder or a \.gif file"):
        generation._save_frames(frames, tmp_path / "a.avi")
    with pytest.raises(ValueError, match="fps"):
        generation._save_frames(frames, tmp_path / "a.gif", fps=0)
    with pytest.raises(FileNotFoundError):
        generation._save_frames(frames, tmp_path / "none" / "a.gif")


@pytest.mark.parametrize(
    ("options", "n_frames"),
    [
        ([], 1),
        (["--mode", "random", "--frames", "3"], 3),
        (["--mode", "walk", "--frames", "3", "--nu", "0"], 3),
        (["--mode", "interpolate", "--id", "s1", "s2+s3", "s1", "--nu", "0", "--frames", "4"], 9),
    ],
)
def test_series_from_the_command_line(weights, tmp_path, options, n_frames):
    assert main(["generate", str(weights), "--out", str(tmp_path / "frames"), *options]) == 0
    assert len(list((tmp_path / "frames").iterdir())) == n_frames


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--id", "s1", "s2"], "one value for --mode single"),
        (["--mode", "interpolate", "--id", "s1", "s2", "--nu", "0", "0", "0"], "one per keyframe, i.e. 3"),
        (["--mode", "interpolate"], "keyframes must be an integer of at least 2"),
        (["--em", "happy"], "unknown code 'em'"),
    ],
)
def test_wrong_commands_are_refused(weights, tmp_path, capsys, options, message):
    assert main(["generate", str(weights), "--out", str(tmp_path / "frames"), *options]) == 2
    assert message in capsys.readouterr().err


# Commands


def test_train_and_generate_from_the_command_line(faces, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "people"
    for image, person, name in zip(faces.images[2:6], faces.identities[2:6], faces.names[2:6], strict=True):
        (folder / person).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / person / f"{Path(name).stem}.png")
    out = tmp_path / "new" / "people.keras"
    options = [
        "train",
        str(folder),
        "--out",
        str(out),
        "--batch",
        "4",
        "--capacity",
        "0.05",
        "--size",
        "32x26",
    ]
    assert main([*options, "--images", "8", "--held-out", "1"]) == 0
    assert {path.name for path in out.parent.iterdir()} == {
        "people.keras", "people.csv", "people.png", "people.checkpoint.npz"
    }  # fmt: skip
    assert all(path.stat().st_mode & 0o077 == 0 for path in out.parent.iterdir())  # the sheet shows photos
    assert main([*options, "--images", "16", "--held-out", "1", "--resume"]) == 0
    assert CNN.load_model(out).training["images_seen"] == 16
    assert len(pd.read_csv(out.with_suffix(".csv"))) == 2
    assert main(["generate", str(out), "--out", str(tmp_path / "frames")]) == 0
    assert len(list((tmp_path / "frames").iterdir())) == 1
    assert main(["generate", str(out), "--out", str(tmp_path / "a.avi")]) == 2
    assert "a .gif file" in capsys.readouterr().err


def test_the_same_command_resumes_a_killed_training(faces, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "people"
    for image, person, name in zip(faces.images[2:6], faces.identities[2:6], faces.names[2:6], strict=True):
        (folder / person).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / person / f"{Path(name).stem}.png")
    made = []
    for name, stop in (("straight", 99), ("killed", 3)):
        out = tmp_path / f"{name}.keras"
        command = (
            f"train {folder} --out {out} --batch 4 --capacity 0.05 --size 32x26 --images 24 --evaluate-every 16 "
            "--held-out 1"
        ).split()
        with monkeypatch.context() as patch:
            patch.setattr(loop, "_CHECKPOINT_SECONDS", 0.0)
            step = UpConvolutionTrainer.step

            def killed(trainer, step=step, stop=stop):
                if trainer.steps == stop:
                    raise SystemExit
                return step(trainer)

            patch.setattr(UpConvolutionTrainer, "step", killed)
            if stop < 6:
                with pytest.raises(SystemExit):
                    main(command)
                assert not out.exists()
        if stop < 6:
            assert main([*command, "--seed", "1"]) == 2
            assert "different photos or settings" in capsys.readouterr().err
        assert main(command) == 0
        made.append(CNN.load_model(out))
    assert "after 12 of 24 images" in capsys.readouterr().out
    np.testing.assert_allclose(*(model.generate(np.eye(2)) for model in made), atol=1e-6)
    logs = [pd.read_csv(tmp_path / f"{name}.csv")[["images", "loss"]] for name in ("straight", "killed")]
    pd.testing.assert_frame_equal(*logs)


def test_weights_go_to_a_default_file_that_is_never_overwritten(tmp_path):
    options = Namespace(source=str(tmp_path / "people"), out=None, checkpoint=None)
    out = output_file(options, tmp_path / "output", ".keras")
    assert out == tmp_path / "output" / "people.keras" and out.parent.is_dir()
    out.touch()
    with pytest.raises(FileExistsError, match="people.keras exists"):
        output_file(options, tmp_path / "output", ".keras")
    (tmp_path / "made.npz").touch()
    for wanted in ({"checkpoint": tmp_path / "made.npz"}, {"out": out}):
        assert output_file(Namespace(**{**vars(options), **wanted}), tmp_path / "output", ".keras") == out
    with pytest.raises(ValueError, match=r"must end in \.keras"):
        output_file(Namespace(**{**vars(options), "out": tmp_path / "a.npz"}), tmp_path, ".keras")


# Surrogates


@pytest.fixture(scope="module")
def anonymizer(faces, weights):
    return UpConvolution(faces, weights=weights)


def test_a_surrogate_is_the_network_at_the_mean_code(anonymizer, model):
    drawn = anonymizer.surrogate([0, 5])
    expected = model.generate([[0.5, 0.5, 0]])[0]
    np.testing.assert_array_equal(drawn[..., 0], np.rint(expected[..., 0] * 255))
    assert drawn.shape == (40, 33, 3) and drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, anonymizer.surrogate([5, 0]))
    np.testing.assert_array_equal(drawn, anonymizer.surrogate([0, 1, 4, 5]))  # people count, not photos
    weighted = model.generate([[0.25, 0.75, 0]])[0]
    np.testing.assert_array_equal(
        anonymizer.surrogate([0, 5], weights=[1, 3])[..., 0], np.rint(weighted[..., 0] * 255)
    )


def test_a_surrogate_can_follow_a_photo(anonymizer, model, faces):
    moved = [name for name in model.photos if model.nuisance_of(name).any()]
    like = faces.names.tolist().index(moved[0])
    shared = np.where([True, False, False], model.nuisance_of(moved[0]), 0)
    assert shared[0] != 0
    drawn = anonymizer.surrogate([0, 5, 9], like=like)
    expected = model.generate(np.full((1, 3), 1 / 3), nuisance=shared[None])[0]
    np.testing.assert_array_equal(drawn[..., 0], np.rint(expected[..., 0] * 255))
    own = model.generate(
        anonymizer.identity_codes[[like]], nuisance=model.nuisance_of(faces.names[like])[None]
    )[0]
    np.testing.assert_array_equal(anonymizer.reconstruct(like)[..., 0], np.rint(own[..., 0] * 255))


@pytest.mark.usefixtures("compiled")
def test_a_held_out_photo_gets_a_fitted_code(anonymizer, model, faces):
    row = int(np.flatnonzero(np.isin(faces.names, model.held_out))[0])
    code = anonymizer.nuisance(row)
    assert code.shape == (3,) and np.isfinite(code).all()
    np.testing.assert_array_equal(code, anonymizer.nuisance(row))


def test_photos_are_reconstructed_together_as_alone(anonymizer, faces, weights, tmp_path, monkeypatch):
    rows = [0, 5, *np.flatnonzero(np.isin(faces.names, anonymizer.model.held_out))[:3]]
    alone = [anonymizer.reconstruct(i) for i in rows]
    monkeypatch.setenv("ANONFACES_CACHE", str(tmp_path))  # so that the codes are fitted again
    together = UpConvolution(faces, weights=weights).reconstructions(rows)
    np.testing.assert_allclose(together, alone, atol=10)


def test_what_surrogates_show_can_be_set(faces, weights, model):
    name = next(n for n in model.photos if model.nuisance_of(n).any())
    shown = UpConvolution(faces, weights=weights, show={"nu": name})
    expected = model.generate([[0.5, 0.5, 0]], nuisance=model.shared_part(model.nuisance_of(name))[None])[0]
    np.testing.assert_array_equal(shown.surrogate([0, 5])[..., 0], np.rint(expected[..., 0] * 255))
    assert shown.fingerprint != UpConvolution(faces, weights=weights).fingerprint
    for wrong in ({"em": "happy"}, {"id": 0}, {"x": 1}, "nobody"):
        with pytest.raises(ValueError, match="show must be|unknown code"):
            UpConvolution(faces, weights=weights, show=wrong)


def test_the_members_expression_can_be_kept(faces, weights, model):
    kept = UpConvolution(faces, weights=weights, show="members")
    rows = [faces.names.tolist().index(name) for name in (model.photos[1], model.photos[-1])]
    mean = model.shared_part(np.mean([model.nuisance_of(faces.names[row]) for row in rows], axis=0))
    expected = model.generate([[0.5, 0, 0.5]], nuisance=mean[None])[0]
    np.testing.assert_array_equal(kept.surrogate(rows)[..., 0], np.rint(expected[..., 0] * 255))
    assert kept.fingerprint != UpConvolution(faces, weights=weights).fingerprint


def test_people_whom_the_network_does_not_know(faces, weights):
    strangers = datasets.load_faces("orl").select([0, 30])
    with pytest.raises(ValueError, match=r"does not know 1 of the people \(first: s4\).*python -m CNN train"):
        UpConvolution(strangers, weights=weights)
    with pytest.raises(ValueError, match="proxy must be"):
        UpConvolution(strangers, weights=weights, proxy=4)


def test_people_are_known_by_the_pixels_of_their_photos(faces, weights, model):
    renamed = Faces(faces.images, faces.identities, [f"{i}.png" for i in range(len(faces))], source="holiday")
    known = UpConvolution(renamed, weights=weights)
    for i in (0, 5):
        code = model.nuisance_of(faces.names[i])
        np.testing.assert_array_equal(known.nuisance(i), known._fit(i)[0] if code is None else code)
    changed = faces.images.copy()
    changed[3, 50, 40] ^= 1
    others = [
        Faces(changed, faces.identities, faces.names, source=faces.source),
        Faces(
            faces.images, np.roll(faces.identities, 4), faces.names, source=faces.source
        ),  # names exchanged
    ]
    for other, count in zip(others, (1, 12), strict=True):
        with pytest.raises(ValueError, match=f"does not know {count} of the 12 photos.*python -m CNN train"):
            UpConvolution(other, weights=weights)
        UpConvolution(other, weights=weights, identities=model.identities)  # the names are trusted
        UpConvolution(other, weights=weights, proxy=2)


def test_proxies_stand_for_strangers(weights):
    strangers = datasets.load_faces("orl").select([30, 31, 40])
    proxied = UpConvolution(strangers, weights=weights, proxy=2)
    codes = proxied.identity_codes
    np.testing.assert_allclose(np.sort(codes, axis=1), np.tile([0, 0.5, 0.5], (3, 1)), atol=1e-6)
    np.testing.assert_array_equal(codes[0], codes[1])  # two photos of one person
    gallery = embedding.embed([proxied._draw(one) for one in np.eye(3, dtype=np.float32)], "dlib")
    described = embedding.embed(strangers, "dlib")[2]
    assert codes[2, np.linalg.norm(gallery - described, axis=1).argmax()] == 0
    everyone = UpConvolution(strangers, weights=weights, proxy=3)
    np.testing.assert_array_equal(everyone.surrogate([0]), everyone.surrogate([2]))


# The bundled weights


def test_the_bundled_network_knows_the_orl_photos_only(orl):
    strangers = orl.select(range(200, 240))
    namesakes = Faces(strangers.images, orl.identities[:40], orl.names[:40], source="orl")
    assert UpConvolution.fits(orl) and not UpConvolution.fits(namesakes)
    with pytest.raises(ValueError, match="was trained on orl and does not know 40 of the 40 photos"):
        UpConvolution(namesakes)
    elsewhere = Faces(strangers.images, strangers.identities, np.arange(40), source="my copy")
    assert UpConvolution.fits(elsewhere)
    UpConvolution(elsewhere)


@pytest.fixture(scope="module")
def bundled():
    if not CNN.BUNDLED.is_file():
        pytest.skip("the bundled weights are not here")
    return UpConvolution(datasets.load_faces("orl", per_identity=1))


def test_bundled_averages_show_faces(bundled):
    random = np.random.default_rng(0)
    pictures = [bundled.surrogate(random.choice(40, k, replace=False)) for k in range(2, 11)]
    assert {picture.shape for picture in pictures} == {(112, 92, 3)}
    assert detection.detect(pictures).found.all()


def test_bundled_people_are_nearest_to_their_held_out_photos(bundled):
    orl = datasets.load_faces("orl")
    apart = orl.select(np.isin(orl.names, bundled.model.held_out))
    assert len(apart) == 80
    drawn = [bundled._draw(code) for code in np.eye(40, dtype=np.float32)]
    distance = np.linalg.norm(embedding.embed(drawn)[:, None] - embedding.embed(apart)[None], axis=2)
    assert (apart.identities[distance.argmin(axis=1)] == bundled.model.identities).sum() >= 38
