"""The bundled StyleGAN network's training: photos on squares, the encoder, the trainer, the mapping network."""

import json
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import anonymizer
import embedding
import stylegan
import utils
from stylegan import augmentation, refining, training
from stylegan import encoder as encoding
from stylegan.__main__ import main
from stylegan.architecture import Synthesis
from stylegan.augmentation import prepare_squares
from stylegan.network import to_uint8
from training.loop import _LOG_COLUMNS, different_people
from training.training_set import prepare

pytestmark = pytest.mark.usefixtures("eagerly")

SMALL = training.AutoencoderSettings(
    images=32, grow_at=8, mix_at=12, features_at=10**6, batch=4, variants=1, evaluate_every=8, decay_at=24
)


@pytest.fixture(scope="module")
def few(orl):
    """Five photos of each of four people."""
    rows = [i for person in orl.people[:4] for i in np.flatnonzero(orl.identities == person)[:5]]
    return orl.select(rows)


@pytest.fixture(scope="module")
def photos(few):
    return prepare_squares(few, resolution=32, held_out=1)


def make_trainer(photos, chosen=SMALL):
    return training.AutoencoderTrainer(photos, chosen, (8, 8, 8, 8), 8, (4, 6, 8))


@pytest.fixture(scope="module")
def trained(photos, eagerly):
    """A trainer that went through all phases but the last; its last step is compiled."""
    trainer = make_trainer(photos)
    losses = [trainer.step() for _ in range(7)]
    tf.config.run_functions_eagerly(False)
    losses.append(trainer.step())
    tf.config.run_functions_eagerly(True)
    return trainer, losses


@pytest.fixture
def small_encoder():
    sizes = encoding.EncoderSizes(32, 1, 8, 6, (4, 5, 6), 7)
    return encoding.Encoder(sizes, encoding.build_encoder(sizes), {"dataset": "none"})


# Photos


def test_prepare_keeps_photos_of_fitting_size_pixel_for_pixel(few):
    photos, plain = prepare_squares(few, held_out=2), prepare(few, held_out=2)
    top, left, height, width = photos.frame
    assert photos.frame == (8, 18, 112, 92)
    np.testing.assert_array_equal(photos.pictures[:, top : top + height, left : left + width], plain.pictures)
    np.testing.assert_array_equal(photos.held_out, plain.held_out)
    np.testing.assert_allclose(photos.shapes - [18, 8], plain.shapes)


def test_prepare_shrinks_photos_that_are_too_large(photos):
    top, left, height, width = photos.frame
    assert photos.pictures.shape == (20, 32, 32, 1)
    assert (height, width) == (32, 26)
    assert (photos.landmarks > [left, top]).all()
    assert (photos.landmarks < [left + width, top + height]).all()


def test_to_square_continues_the_border():
    flat = np.full((4, 2, 1), 77, dtype=np.uint8)
    np.testing.assert_array_equal(augmentation.to_square(flat, (2, 3, 4, 2), 8), np.full((8, 8, 1), 77))
    with pytest.raises(ValueError, match="4 x 2"):
        augmentation.to_square(flat[:3], (2, 3, 4, 2), 8)


def test_weights_are_highest_on_the_face_and_lowest_in_the_padding(photos):
    weights = photos.pixel_weights()[..., 0]
    x, y = np.rint(photos.landmarks[30]).astype(int)  # the nose
    assert weights[y, x] == pytest.approx(1, abs=0.05)
    assert weights[16, 0] == pytest.approx(0.25)
    assert ((weights >= 0.049) & (weights <= 1.001)).all()


def test_varied_landmarks_stay_on_their_pixels():
    rng = np.random.default_rng(0)
    pictures = np.zeros((6, 128, 128, 1), dtype=np.uint8)
    shapes = rng.uniform(30, 98, size=(6, 68, 2))
    shapes[:, 30] = np.rint(shapes[:, 30])  # the nose tip is its own mirror image
    for picture, shape in zip(pictures, shapes, strict=True):
        x, y = shape[30].astype(int)
        cv2.circle(picture, (x, y), 4, 255, -1)
    before = pictures.copy()
    varied, moved, mirrored = augmentation.vary(pictures, shapes, rng)
    np.testing.assert_array_equal(pictures, before)
    assert 0 < mirrored.sum() < 6
    assert varied.min() >= -1 and varied.max() <= 1
    for picture, shape in zip(varied, moved, strict=True):
        bright = np.argwhere(picture[..., 0] > picture.min() + 0.9)
        np.testing.assert_allclose(bright.mean(axis=0)[::-1], shape[30], atol=0.4)


def test_bent_photos_differ_from_theirs_and_lie_between_shapes(photos):
    pictures, shapes = augmentation.bend(photos, 2, random_state=0)
    own = np.repeat(np.flatnonzero(~photos.held_out), 2)
    assert pictures.shape == (32, 32, 32, 1) and pictures.dtype == np.uint8
    assert not np.array_equal(pictures, photos.pictures[own])
    moved = np.linalg.norm(shapes - photos.shapes[own], axis=(1, 2))
    farthest = max(np.linalg.norm(a - b) for a in photos.shapes for b in photos.shapes)
    assert (moved > 0).all() and (moved < augmentation._MOST_BENT * farthest).all()
    again = augmentation.bend(photos, 2, random_state=0)[0]
    np.testing.assert_array_equal(pictures, again)


# The encoder


def test_encoder_files_keep_every_weight(small_encoder, tmp_path):
    pictures = np.random.default_rng(0).uniform(-1, 1, size=(3, 32, 32, 1)).astype(np.float32)
    small_encoder.save(tmp_path / "a.npz")
    loaded = encoding.load_encoder(tmp_path / "a.npz")
    assert loaded.sizes == small_encoder.sizes
    assert loaded.description == {"dataset": "none"}
    np.testing.assert_array_equal(loaded.encode(pictures), small_encoder.encode(pictures))
    small_encoder.save(tmp_path / "half.npz", "float16")
    half = encoding.load_encoder(tmp_path / "half.npz")
    np.testing.assert_allclose(half.encode(pictures), small_encoder.encode(pictures), atol=0.02)


def test_encoding_many_photos_is_encoding_each(small_encoder, monkeypatch):
    pictures = np.random.default_rng(1).uniform(-1, 1, size=(5, 32, 32, 1))
    together = small_encoder.encode(pictures)
    monkeypatch.setattr(encoding, "_BATCH", 2)
    assert together.shape == (5, 8, 6) and together.dtype == np.float32
    np.testing.assert_allclose(small_encoder.encode(pictures), together, atol=1e-5)
    assert small_encoder.encode(pictures[:0]).shape == (0, 8, 6)


@pytest.mark.parametrize(
    ("pictures", "words"),
    [
        (np.zeros((2, 32, 32, 3)), "shape"),
        (np.zeros((32, 32, 1)), "shape"),
        (np.full((1, 32, 32, 1), np.nan), "NaN"),
    ],
)
def test_encoder_refuses_other_pictures(small_encoder, pictures, words):
    with pytest.raises(ValueError, match=words):
        small_encoder.encode(pictures)


def spoil(arrays, how):
    name = "halve0/kernel"
    if how == "missing":
        del arrays[name]
    elif how == "surplus":
        arrays["more"] = np.zeros(1)
    elif how == "shape":
        arrays[name] = arrays[name][:1]
    elif how == "whole numbers":
        arrays[name] = arrays[name].astype(int)
    elif how == "infinite":
        arrays[name] = np.full_like(arrays[name], np.inf)
    elif how == "no description":
        del arrays["description"]
    else:
        description = json.loads(str(arrays["description"][0]))
        description |= how
        arrays["description"] = np.array([json.dumps(description)])


HUGE = {"resolution": 32, "colours": 1, "num_layers": 8, "w_dim": 6, "widths": [4096] * 3, "hidden": 4096}


@pytest.mark.parametrize(
    "how",
    [
        "missing",
        "surplus",
        "shape",
        "whole numbers",
        "infinite",
        "no description",
        {"format": 2},
        {"sizes": 3},
        {"sizes": {}},
        {"sizes": {**HUGE, "widths": "abc"}},
        {"sizes": {**HUGE, "resolution": 48}},
        {"sizes": {**HUGE, "hidden": 10**9}},
        {"sizes": HUGE},
        {"sizes": {**HUGE, "widths": [4096, 4096, 6], "hidden": 7}},  # only what lies between would be huge
        {"sizes": {**HUGE, "hidden": 1e999}},
    ],
    ids=str,
)
def test_spoilt_encoder_files_are_refused_with_a_sentence(small_encoder, tmp_path, how):
    path = tmp_path / "encoder.npz"
    small_encoder.save(path)
    arrays = utils.load_arrays(path)
    spoil(arrays, how)
    utils.save_arrays(path, arrays)
    with pytest.raises(ValueError, match=r"encoder\.npz: "):
        encoding.load_encoder(path)


def test_cut_and_missing_encoder_files(small_encoder, tmp_path):
    path = tmp_path / "encoder.npz"
    small_encoder.save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="damaged"):
        encoding.load_encoder(path)
    with pytest.raises(FileNotFoundError):
        encoding.load_encoder(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="npz"):
        small_encoder.save(tmp_path / "encoder.keras")


@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_usual_widths_fit_every_resolution(side):
    assert encoding.EncoderSizes(side, 1, 8, 6, encoding.default_widths(side)).resolution == side


# Training


def test_strength_of_known_patterns():
    rows, columns = np.indices((32, 32))
    checkers = np.where((rows + columns) % 2, 1.0, -1.0)[None, ..., None].astype(np.float32)
    finest, *others = [part.numpy() for part in training.strengths(checkers)]
    np.testing.assert_allclose(finest, 1)  # every 2 x 2 square has the mean 0
    for part in [*others, *training.strengths(np.ones_like(checkers))]:
        np.testing.assert_allclose(part, 0, atol=1e-6)


@given(st.integers(2, 24), st.integers(1, 9), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_mixing_weights_are_means_of_2_to_10(batch, mixtures, seed):
    weights = training._mixing_weights(batch, mixtures, np.random.default_rng(seed))
    members = (weights > 0).sum(axis=1)
    assert weights.shape == (mixtures, batch)
    assert ((members >= 2) & (members <= min(10, batch))).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    for row, count in zip(weights, members, strict=True):
        np.testing.assert_allclose(row[row > 0], 1 / count)


def test_batches_show_different_people_and_no_held_out_photo(trained):
    trainer, _ = trained
    shown = [trainer.photos.pictures[i] for i in np.flatnonzero(trainer.photos.held_out)]
    assert not any((picture == trainer.pictures).all(axis=(1, 2, 3)).any() for picture in shown)
    people = different_people(np.random.default_rng(0), 4, 10)
    assert [len(set(people[part])) for part in (slice(0, 4), slice(4, 8), slice(8, 10))] == [4, 4, 2]


def test_training_passes_through_its_phases(trained):
    trainer, losses = trained
    assert list(trainer._compiled) == [(16, False, False), (32, False, False), (32, True, False)]
    assert np.isfinite(losses).all()


def test_resumed_training_is_the_same(photos, tmp_path):
    chosen = replace(SMALL, grow_at=0, mix_at=10**6)
    straight = make_trainer(photos, chosen)
    for _ in range(2):
        straight.step()
    straight.save_checkpoint(tmp_path / "state.npz")
    again = make_trainer(photos, chosen)
    again.load_checkpoint(tmp_path / "state.npz")
    assert (again.seen, again.steps) == (8, 2)
    losses = [[trainer.step() for _ in range(2)] for trainer in (straight, again)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    for ours, theirs in zip(straight.average_encoder.weights, again.average_encoder.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    stranger = make_trainer(photos, replace(chosen, seed=1))
    with pytest.raises(ValueError, match="different photos or settings"):
        stranger.load_checkpoint(tmp_path / "state.npz")


@pytest.mark.full
@pytest.mark.usefixtures("compiled")
def test_training_learns_and_writes_network_encoder_log_and_sheet(photos, tmp_path):
    chosen = replace(SMALL, images=320, grow_at=10**6, decay_at=320, variants=0, evaluate_every=80)
    trainer = make_trainer(photos, chosen)
    trainer.train(tmp_path / "small.npz", tmp_path / "state.npz")
    network = stylegan.load_network(tmp_path / "small.npz")
    encoder = encoding.load_encoder(tmp_path / "small-encoder.npz")
    assert (network.num_layers, network.w_dim) == (encoder.sizes.num_layers, encoder.sizes.w_dim)
    assert network.description["frame"] == list(photos.frame)
    np.testing.assert_allclose(network.description["landmarks"], photos.landmarks, atol=1e-3)
    assert sorted(network.description["training"]["held_out"]) == sorted(
        name for name, apart in zip(photos.names, photos.held_out, strict=True) if apart
    )
    pictures = network.synthesis(encoder.encode(augmentation.to_signed(photos.pictures[:2])))
    assert pictures.shape == (2, 32, 32, 3)
    lines = (tmp_path / "small.csv").read_text().splitlines()
    assert lines[0] == ",".join(_LOG_COLUMNS) and len(lines) == 5
    assert trainer.log[-1]["loss"] < 0.7 * trainer.log[0]["loss"]
    assert cv2.imread(str(tmp_path / "small.png")).shape == (4 * 32, 12 * 32, 3)


@pytest.mark.full
def test_features_count_in_the_last_phase(photos):
    trainer = make_trainer(photos, replace(SMALL, grow_at=0, mix_at=0, features_at=0))
    assert np.isfinite(trainer.step())
    assert list(trainer._compiled) == [(32, True, True)]
    n = len(trainer.pictures)
    lengths = np.linalg.norm(trainer.descriptors, axis=1)
    assert trainer.descriptors.shape == (2 * n, 128)
    assert (lengths > 1).all() and (lengths < 2).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": 0},
        {"images": 1.5},
        {"batch": 1},
        {"noise": -0.1},
        {"noise": float("nan")},
        {"ema": 1.0},
        {"without_offsets": 1.5},
        {"precision": "float8"},
        {"seed": True},
    ],
    ids=str,
)
def test_settings_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        training.AutoencoderSettings(**wrong)


@pytest.mark.usefixtures("compiled")
def test_fitted_mapping_comes_near_the_moments_of_the_codes(monkeypatch):
    architecture = stylegan.Architecture(32, (4, 4, 4, 4), 8, 8, (32, 32, 8), 1)
    rng = np.random.default_rng(0)
    codes = (rng.normal(size=(500, 8)) * np.linspace(0.5, 1.5, 8) + np.linspace(-1, 1, 8)).astype(np.float32)
    z = rng.normal(size=(4000, 8)).astype(np.float32)
    keras.utils.set_random_seed(0)  # the mapping before starts at random

    def errors(mapping):
        found = np.asarray(mapping(z))
        mean = np.linalg.norm(found.mean(axis=0) - codes.mean(axis=0))
        return mean, np.linalg.norm(np.cov(found.T) - np.cov(codes.T)) / np.linalg.norm(np.cov(codes.T))

    monkeypatch.setattr(training, "_MAPPING_STEPS", 600)
    before, after = (
        errors(stylegan.architecture.Mapping(architecture)),
        errors(training.fit_mapping(architecture, codes)),
    )
    assert after[0] < 0.2 * before[0] and after[0] < 0.6
    assert after[1] < 0.9 * before[1]


# Mixtures as examples


@pytest.fixture(scope="module")
def mixtures(photos, few):
    return augmentation.mix_people(photos, teacher(photos, few), 12, random_state=0)


def teacher(photos, few):
    return anonymizer.load("aam", few.select(~photos.held_out))


@pytest.mark.parametrize("resolution", [32, 128])
def test_mixture_of_one_person_is_the_photo(few, resolution):
    photos = prepare_squares(few, resolution, held_out=1)
    alone = augmentation.mix_people(photos, teacher(photos, few), 8, sizes=(1,), random_state=0)
    own = photos.pictures[~photos.held_out]
    own = np.concatenate([own, own[:, :, ::-1]]).astype(float)
    top, left, height, width = photos.frame
    inner = (slice(None), slice(top, top + height), slice(left, left + width))
    differences = np.abs(
        alone.pictures[:, None].astype(float)[:, :, *inner[1:]] - own[None][:, :, *inner[1:]]
    )
    differences = differences.mean(axis=(2, 3, 4))  # (8, 32)
    np.testing.assert_array_equal(differences.argmin(axis=1), alone.members[:, 0])
    least, next_least = np.sort(differences, axis=1)[:, :2].T
    assert np.median(least) < 6 and (least < 0.6 * next_least).all()


def test_mixtures_are_of_different_people_that_are_trained_on(photos, mixtures):
    people = np.tile(photos.people[~photos.held_out], 2)
    assert mixtures.pictures.shape == (12, 32, 32, 1) and mixtures.pictures.dtype == np.uint8
    assert mixtures.members.shape == (12, 4)  # there are no more people
    np.testing.assert_allclose(mixtures.weights.sum(axis=1), 1, rtol=1e-6)
    half = len(people) // 2
    for members, weights in zip(mixtures.members, mixtures.weights, strict=True):
        chosen = members[weights > 0]
        assert 2 <= len(chosen) <= 4 and len(set(people[chosen])) == len(chosen)
        np.testing.assert_allclose(weights[weights > 0], 1 / len(chosen))
        assert (chosen < half).all() or (chosen >= half).all()  # mirrored together or not at all
    assert len(set((mixtures.members[:, 0] >= half).tolist())) == 2


def test_same_seed_same_mixtures(photos, few, mixtures, monkeypatch, tmp_path):
    monkeypatch.setenv("ANONFACES_CACHE", str(tmp_path))  # or they would come from the cache
    again = augmentation.mix_people(photos, teacher(photos, few), 12, random_state=0)
    np.testing.assert_array_equal(again.members, mixtures.members)
    np.testing.assert_array_equal(again.pictures, mixtures.pictures)
    others = augmentation.mix_people(photos, teacher(photos, few), 12, random_state=1)
    assert not np.array_equal(others.members, mixtures.members)


def test_a_teacher_of_other_photos_is_refused(photos, few):
    with pytest.raises(ValueError, match="16 training photos, got 20"):
        augmentation.mix_people(photos, anonymizer.load("pixel", few), 12)


# Free codes


@pytest.mark.parametrize(("quantile", "missing", "surplus"), [(0.5, 1.0, 1.0), (0.75, 1.5, 0.5)])
def test_missing_and_surplus_strength_of_known_patterns(quantile, missing, surplus):
    rows, columns = np.indices((32, 32))
    checkers = np.where((rows + columns) % 2, 1.0, -1.0)[None, ..., None].astype(
        np.float32
    )  # strength 1, 0, 0
    flat, weights = np.zeros_like(checkers), np.ones_like(checkers)
    none, some = training.strengths(flat), training.strengths(checkers)
    assert float(training.strength_loss(none, some, weights, quantile)) == pytest.approx(missing)
    assert float(training.strength_loss(some, none, weights, quantile)) == pytest.approx(surplus)
    assert float(training.strength_loss(some, some, weights, quantile)) == pytest.approx(0)


FREE = refining.AutoDecoderSettings(images=32, batch=6, mixed=2, mixtures=12, features_from=10**6)


def make_decoder(photos, mixtures, chosen=FREE):
    keras.utils.set_random_seed(0)
    architecture = stylegan.Architecture(32, (8, 8, 8, 8), 8, 8, (8, 8), 1)
    m = int((~photos.held_out).sum())
    codes = np.random.default_rng(0).normal(size=(2 * m, architecture.num_layers, 8)).astype(np.float32)
    return refining.AutoDecoder(photos, mixtures, Synthesis(architecture), codes, chosen)


def test_codes_of_photos_mixtures_and_mirror_images(photos, mixtures):
    decoder = make_decoder(photos, mixtures)
    codes, m = decoder.codes.numpy(), len(decoder.shapes) // 2
    np.testing.assert_allclose(decoder.codes_of(np.array([3, m + 1])), codes[[3, m + 1]])
    mirrored = decoder.codes_of(np.array([3, m + 1]), np.array([True, True]))
    np.testing.assert_allclose(mirrored, codes[[m + 3, 1]])
    members = mixtures.members[5][mixtures.weights[5] > 0]
    mixed = decoder.codes_of(np.array([2 * m + 5]))[0]
    np.testing.assert_allclose(mixed, codes[members].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(decoder.pictures[m : 2 * m], decoder.pictures[:m, :, ::-1])
    np.testing.assert_array_equal(decoder.pictures[2 * m + 5], mixtures.pictures[5])


def test_batches_hold_photos_of_different_people_and_mixtures(photos, mixtures):
    decoder = make_decoder(photos, mixtures)
    n = len(decoder.shapes)
    for seed in range(5):
        rows = decoder.random_rows(np.random.default_rng(seed), 2)
        assert (rows[:4] < n).all() and (rows[4:] >= n).all() and len(set(rows[4:])) == 2
        assert len(set(decoder.people[rows[:4]])) == 4


def test_free_codes_learn_and_a_resumed_training_is_the_same(photos, mixtures, tmp_path):
    decoder = make_decoder(photos, mixtures)
    before = decoder.codes.numpy()
    for _ in range(3):
        decoder.step()
    decoder.save_checkpoint(tmp_path / "state.npz")
    again = make_decoder(photos, mixtures)
    again.load_checkpoint(tmp_path / "state.npz")
    assert (again.seen, again.steps) == (18, 3)
    losses = [[one.step() for _ in range(2)] for one in (decoder, again)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert np.abs(decoder.codes.numpy() - before).max() > 0
    assert decoder.sheet().shape == (5 * 32, 12 * 32)


@pytest.mark.usefixtures("compiled")
def test_codes_stay_fixed_while_pictures_are_sharpened(photos, mixtures):
    tf.config.run_functions_eagerly(True)
    decoder = make_decoder(photos, mixtures, replace(FREE, images=6, sharpen=12))
    decoder.step()
    codes, weights = decoder.codes.numpy(), decoder.synthesis.get_weights()
    tf.config.run_functions_eagerly(False)
    decoder.step()
    assert list(decoder._compiled) == [(False, False), (False, True)]
    assert decoder.total_images == 18 and decoder.rates()["codes"] == 0
    np.testing.assert_array_equal(decoder.codes.numpy(), codes)
    assert any((a != b).any() for a, b in zip(decoder.synthesis.get_weights(), weights, strict=True))


@pytest.mark.full
@pytest.mark.usefixtures("compiled")
def test_free_codes_come_near_their_photos_and_are_written(photos, mixtures, tmp_path, monkeypatch):
    monkeypatch.setattr(refining, "_FIT_STEPS", 3)
    monkeypatch.setattr(refining, "_ENCODER_STEPS", 3)
    decoder = make_decoder(photos, mixtures, replace(FREE, images=600, features_from=580))
    losses = [decoder.step() for _ in range(100)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    sizes = encoding.EncoderSizes(32, 1, 8, 8, (4, 5, 6), 7)
    encoder = encoding.Encoder(sizes, encoding.build_encoder(sizes), {})
    refining.finish(decoder, encoder, tmp_path / "free.npz")
    network = stylegan.load_network(tmp_path / "free.npz")
    assert network.description["frame"] == list(photos.frame)
    kept = utils.load_arrays(tmp_path / "free-codes.npz")
    assert list(kept["names"]) == photos.names and kept["codes"].shape == (20, 8, 8)
    np.testing.assert_allclose(
        kept["codes"][~photos.held_out],
        decoder.codes.numpy()[: len(decoder.shapes) // 2],
        rtol=1e-3,
        atol=1e-3,
    )
    assert network.description["training"]["images_seen"] == 600
    assert encoding.load_encoder(tmp_path / "free-encoder.npz").sizes == sizes


# The bundled network


def test_bundled_network_and_encoder_draw_the_people(orl):
    network = stylegan.load_network()
    encoder = encoding.load_encoder(encoding.encoder_path(stylegan.BUNDLED))
    assert (encoder.sizes.num_layers, encoder.sizes.w_dim) == (network.num_layers, network.w_dim)
    photos = prepare_squares(orl)
    rows = np.flatnonzero(photos.held_out)[::8]
    top, left, height, width = network.description["frame"]
    drawn = to_uint8(network.synthesis(encoder.encode(augmentation.to_signed(photos.pictures[rows]))))
    drawn = drawn[:, top : top + height, left : left + width]
    found = embedding.embed(list(drawn), "dlib")
    wanted = embedding.embed([orl.images[i] for i in rows], "dlib")
    distances = np.linalg.norm(found[:, None] - wanted[None], axis=2)
    assert (distances.argmin(axis=1) == np.arange(len(rows))).mean() >= 0.9
    assert np.diagonal(distances).mean() < 0.5


# The command line


@pytest.fixture
def folder(few, tmp_path):
    """The photos as files, a folder for each person."""
    for image, person, name in zip(few.images, few.identities, few.names, strict=True):
        (tmp_path / "people" / person).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "people" / person / f"{name.split('/')[-1]}.png"), image[..., ::-1])
    return tmp_path / "people"


@pytest.mark.full
@pytest.mark.usefixtures("compiled")
def test_one_command_trains_and_refines(folder, tmp_path, monkeypatch, capsys):
    for module, name in (
        (refining, "_FIT_STEPS"),
        (refining, "_ENCODER_STEPS"),
        (training, "_MAPPING_STEPS"),
    ):
        monkeypatch.setattr(module, name, 2)
    command = (
        f"train {folder} --out {tmp_path / 'small.npz'} --resolution 32 --channels 4 4 4 4 --w-dim 6 --variants 0 "
        "--images 8 --batch 4 --refine --refine-batch 4 --refine-mixed 2 --refine-mixtures 4 --refine-images 8"
    ).split()
    assert main(command) == 0
    written = {path.name for path in tmp_path.iterdir() if path.is_file()}
    suffixes = (".checkpoint.npz", "-encoder.npz", ".npz", ".csv", ".png")
    assert written == {
        *(f"small-unrefined{suffix}" for suffix in suffixes), *(f"small{suffix}" for suffix in suffixes),
        "small-codes.npz",
    }  # fmt: skip
    assert stylegan.load_network(tmp_path / "small.npz").description["training"]["images_seen"] == 8
    # The second stage alone, resumed.
    start = tmp_path / "small-unrefined.npz"
    resumed = [*command[:4], "--resume", "--batch", "4", "--mixed", "2", "--mixtures", "4", "--images", "12"]
    assert main(["refine", str(folder), str(start), *resumed[2:]]) == 0
    assert stylegan.load_network(tmp_path / "small.npz").description["training"]["images_seen"] == 12
    assert main(["refine", str(folder), str(start), *resumed[2:], "--seed", "1"]) == 2
    assert "different photos or settings" in capsys.readouterr().err
    assert main(["train", str(folder), "--out", "small.keras"]) == 2
    assert "must end in .npz" in capsys.readouterr().err
