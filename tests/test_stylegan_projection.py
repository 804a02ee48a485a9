"""Alignment of photos, the search for their W+ codes, and the files these are kept in."""

import argparse
import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import anonymizer
import datasets
import detection
import utils
from stylegan import alignment, code_folder, features, projection
from stylegan.alignment import AlignedPhotos
from stylegan.architecture import Architecture, Mapping, Synthesis
from stylegan.network import StyleNetwork

PUBLISHED = Path(__file__).parents[2] / "shared" / "reference" / "latent_vectors_rafd"


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANONFACES_QUIET", "1")
        yield


def make_network(resolution=16, colours=1, w_dim=8, description=None, seed=0):
    """A small network of random weights."""
    levels = resolution.bit_length() - 2
    architecture = Architecture(resolution, (6,) * levels, w_dim, w_dim, (w_dim, w_dim), colours)
    mapping, synthesis = Mapping(architecture), Synthesis(architecture)
    random = np.random.default_rng(seed)
    for layer, scale in ((mapping, 100.0), (synthesis, 1.0)):
        for name, variable in layer.named.items():
            spread = scale if name.endswith("/weight") and not name.endswith("Noise/weight") else 0.1
            variable.assign(random.normal(scale=spread, size=variable.shape))
    network = StyleNetwork(mapping, synthesis, np.zeros(w_dim, np.float32), description or {})
    network.average = network.mapping(random.normal(size=(500, w_dim)))[:, 0].mean(axis=0)
    return network


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def landmarks(orl_people):
    """Landmarks of one face, as shares of the photo's width."""
    return detection.detect(orl_people.select([0])).landmarks[0] / 92


def drawn_by(network, codes, landmarks):
    """Pictures of known codes, as if they were aligned photos."""
    side, c = network.resolution, network.architecture.colours
    pictures = network.synthesis(codes)[..., :c]
    return AlignedPhotos(
        pictures, np.stack([landmarks * side] * len(codes)), np.ones((len(codes), side, side), bool)
    )


def some_codes(network, n, seed=0, scale=1.0):
    noise = np.random.default_rng(seed).normal(size=(n, network.num_layers, network.w_dim))
    return (network.average + scale * projection.spread_of(network) * noise).astype(np.float32)


# Alignment


def synthetic_landmarks(centre, eyes=40.0, mouth=40.0):
    """Landmarks whose FFHQ square has a known centre and the half width max(2 * eyes, 1.8 * mouth)."""
    points = np.tile(np.asarray(centre, dtype=float) - [0, 0.1 * mouth], (68, 1))
    points[36:42] -= [eyes / 2, 0]
    points[42:48] += [eyes / 2, 0]
    points[48:60, 1] += mouth
    points[48, 0] -= 10
    points[54, 0] += 10
    return points


@pytest.fixture(scope="module")
def texture():
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return cv2.resize(noise, (500, 400), interpolation=cv2.INTER_CUBIC)


def test_ffhq_crop_of_an_upright_face_is_a_window(texture):
    crop = alignment._ffhq_crop(texture, synthetic_landmarks((250.5, 200.5)), 160)
    np.testing.assert_array_equal(crop, texture[121:281, 171:331])


def test_ffhq_crop_averages_pixels_where_it_is_smaller(texture):
    crop = alignment._ffhq_crop(texture, synthetic_landmarks((250.5, 200.5)), 80)
    window = texture[121:281, 171:331].astype(float)
    np.testing.assert_allclose(crop, window.reshape(80, 2, 80, 2, 3).mean(axis=(1, 3)), atol=0.51)


def test_ffhq_square_goes_by_eyes_or_mouth(texture):
    crop = alignment._ffhq_crop(texture, synthetic_landmarks((250.5, 200.5), eyes=20, mouth=50), 180)
    np.testing.assert_array_equal(crop, texture[111:291, 161:341])


def test_ffhq_crop_turns_the_face_upright(texture):
    points = synthetic_landmarks((250.5, 200.5))
    turned = np.ascontiguousarray(np.rot90(texture))  # (x, y) -> (y, 499 - x)
    turned_points = np.stack([points[:, 1], 499 - points[:, 0]], axis=1)
    straight = alignment._ffhq_crop(texture, points, 160).astype(int)
    assert np.abs(alignment._ffhq_crop(turned, turned_points, 160) - straight).max() <= 1


@given(
    scale=st.floats(0.2, 5), angle=st.floats(-3, 3), x=st.floats(-50, 50), y=st.floats(-50, 50),
    size=st.sampled_from([64, 128, 1024]),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_ffhq_frame_does_not_depend_on_the_photo(landmarks, scale, angle, x, y, size):
    """However a face lies on the photo, its landmarks come to lie in the same places."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = landmarks * 92.0
    moved = points @ turn.T + [x, y]
    places = [detection.move_points(p, alignment.ffhq_transform(p, size)) for p in (points, moved)]
    np.testing.assert_allclose(places[0], places[1], atol=1e-6 * size)


def test_landmarks_move_with_the_ffhq_crop(texture):
    points = synthetic_landmarks((250.5, 200.5))
    moved = detection.move_points(points, alignment.ffhq_transform(points, 160))
    np.testing.assert_allclose(moved, points - [171, 121], atol=1e-9)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_past_the_border_a_photo_is_continued(value):
    photo = np.full((90, 80, 3), value, dtype=np.uint8)
    crop = alignment._ffhq_crop(photo, synthetic_landmarks((70, 80)), 64)
    np.testing.assert_array_equal(crop, np.full((64, 64, 3), value))


def test_past_the_border_a_photo_is_mirrored_then_fades(texture):
    """Next to the border the mirrored pixels, far away the median colour."""
    photo = np.ascontiguousarray(texture[:, 200:])
    photo[:, 150:] = 10  # most of it is dark
    photo[:, :40] = 250
    crop = alignment._ffhq_crop(photo, synthetic_landmarks((10.5, 200.5)), 160)
    assert crop[80, 70].mean() > 200  # the photo begins at column 70 and is bright there
    assert crop[80, 60].mean() > 200
    assert crop[80, 2].mean() < crop[80, 60].mean() - 20


def test_large_photos_are_shrunk_first(texture):
    large = cv2.resize(texture, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    points = synthetic_landmarks((250.5, 200.5))
    small = alignment._ffhq_crop(texture, points, 80).astype(int)
    difference = alignment._ffhq_crop(large, points * 8, 80) - small  # half pixels are not minded, as in FFHQ
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((68, 2)), "form a face"),
        (np.full((68, 2), np.inf), "finite"),
        (np.zeros((5, 2)), "68"),
        (synthetic_landmarks((9000, 200)), "lie inside the photo"),
        (synthetic_landmarks((250, 200), 40000, 40000), "lie inside the photo"),
    ],
)
def test_unusable_landmarks_are_refused(texture, points, message):
    with pytest.raises(ValueError, match=message):
        alignment._ffhq_crop(texture, points, 64)


def test_unusable_photos_and_sizes_are_refused(texture):
    points = synthetic_landmarks((250, 200))
    with pytest.raises(TypeError, match="uint8"):
        alignment._ffhq_crop(texture.astype(float), points, 64)
    for size in (0, 2.5, True):
        with pytest.raises(ValueError, match="size must be an integer of at least 4"):
            alignment._ffhq_crop(texture, points, size)


def test_photos_come_into_the_networks_own_frame(orl_people, landmarks):
    target = landmarks * 92 * 0.5 + [9, 4]
    network = make_network(64, description={"landmarks": target.tolist(), "frame": [4, 9, 56, 46]})
    faces = orl_people.select([0, 1])
    found = detection.detect(faces)
    before = found.landmarks.copy()
    placed = alignment.align(faces.images, found.landmarks, network)
    assert placed.images.shape == (2, 64, 64, 1) and placed.images.dtype == np.float32
    assert placed.images.min() >= -1 and placed.images.max() <= 1
    np.testing.assert_array_equal(before, found.landmarks)
    # the first face is the one the frame was made from: it is only halved
    np.testing.assert_allclose(placed.landmarks[0], target, atol=1e-3)
    shrunk = cv2.resize(faces.images[0], (46, 56), interpolation=cv2.INTER_AREA)[..., 0] / 127.5 - 1
    inner = placed.images[0, 4:60, 9:55, 0]
    assert np.abs(inner - shrunk)[4:-4, 4:-4].mean() < 0.04
    assert placed.visible[0, 8:56, 13:51].all() and not placed.visible[0, :4].any()
    transform = detection.similarity(found.landmarks[1], target)
    np.testing.assert_allclose(
        placed.landmarks[1], detection.move_points(found.landmarks[1], transform), atol=1e-3
    )


def test_photos_come_into_the_ffhq_frame_by_default(orl_people):
    faces = orl_people.select([0, 1])
    found = detection.detect(faces)
    placed = alignment.align(faces.images, found.landmarks, make_network(32, colours=3))
    crops = [
        alignment._ffhq_crop(*pair, 32) / 127.5 - 1
        for pair in zip(faces.images, found.landmarks, strict=True)
    ]
    np.testing.assert_allclose(placed.images, np.stack(crops), atol=1e-6)
    assert placed.visible.all()


def test_landmarks_must_fit_the_photos(orl_people, network):
    with pytest.raises(ValueError, match=r"landmarks must have the shape \(2, 68, 2\)"):
        alignment.align(orl_people.images[:2], np.zeros((1, 68, 2)), network)


# The search


def test_pyramid_distance_by_hand():
    drawn, target = np.zeros((1, 16, 16, 1)), np.zeros((1, 16, 16, 1))
    drawn[0, 0, 0] = 4.0
    drawn[0, 0, 1] = -4.0  # cancels at half size
    weights = np.ones((1, 16, 16, 1))
    found = projection._pyramid_distance(*(tf.constant(x, tf.float32) for x in (drawn, target, weights)))
    np.testing.assert_allclose(found, [8 / 256 / 2], rtol=1e-6)


@given(seed=st.integers(0, 2**31 - 1))
@settings(max_examples=15, deadline=None)
def test_pyramid_distance_by_brute_force(seed):
    random = np.random.default_rng(seed)
    drawn, target = random.normal(size=(2, 2, 32, 32, 3)).astype(np.float32)
    weights = random.uniform(0.5, 1.5, size=(2, 32, 32, 1)).astype(np.float32)
    expected = []
    difference, weight = drawn - target, weights
    for _ in range(3):  # 32, 16 and 8 pixels
        expected.append(np.mean(np.abs(difference) * weight, axis=(1, 2, 3)))
        difference, weight = (
            x.reshape(2, x.shape[1] // 2, 2, x.shape[1] // 2, 2, -1).mean(axis=(2, 4))
            for x in (difference, weight)
        )
    found = projection._pyramid_distance(*(tf.constant(x) for x in (drawn, target, weights)))
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-4)


def test_spread_is_that_of_random_people(network):
    w = network.mapping(np.random.default_rng(5).normal(size=(4000, network.z_dim)))[:, 0]
    assert projection.spread_of(network) == pytest.approx(
        np.sqrt(((w - network.average) ** 2).mean()), rel=0.1
    )


def test_pictures_of_known_codes_are_found_again(network, landmarks):
    target = drawn_by(network, some_codes(network, 3), landmarks)
    projector = projection.Projector(network, 3, n_steps=150, descriptors=0.0)
    codes, trace = projector.fit(target)
    before = np.abs(network.synthesis(some_codes(network, 3, scale=0))[..., :1] - target.images).mean()
    after = np.abs(network.synthesis(codes)[..., :1] - target.images).mean()
    assert after < before / 4
    assert codes.shape == (3, 6, 8) and codes.dtype == np.float32
    assert list(trace.columns) == ["photo", "step", "loss", "pixels", "descriptors", "distance"]
    assert trace["photo"].tolist() == [0] * 15 + [1] * 15 + [2] * 15
    assert trace["step"].tolist() == list(range(10, 151, 10)) * 3
    assert trace["descriptors"].isna().all()
    first, last = trace.groupby("photo")["pixels"].first(), trace.groupby("photo")["pixels"].last()
    assert (last < first).all()


def test_the_right_code_is_kept(network, landmarks):
    start = some_codes(network, 2)
    target = drawn_by(network, start, landmarks)
    projector = projection.Projector(network, 2, n_steps=20, descriptors=0.0, pull=0.0, noise=0.0)
    np.testing.assert_allclose(projector.fit(target, start)[0], start, atol=1e-5)


def test_more_steps_never_leave_a_worse_code(network, landmarks):
    """The best code is kept, even where steps are far too long."""
    target, start = drawn_by(network, some_codes(network, 2), landmarks), some_codes(network, 2, 1, 0.3)
    projector = projection.Projector(network, 2, n_steps=15, step=50.0, descriptors=0.0, noise=0.0, pull=0.0)
    codes, _ = projector.fit(target, start)

    def distance(codes):
        drawn = network.synthesis(codes)[..., :1]
        return projection._pyramid_distance(drawn, target.images, projector.state["weights"]).numpy()

    assert (distance(codes) <= distance(start) + 1e-6).all()


@pytest.mark.usefixtures("eager")
def test_a_search_that_diverges_is_reported(network, landmarks):
    """Else the code it started from would come back as if it had been found."""
    target = drawn_by(network, some_codes(network, 1), landmarks)
    projector = projection.Projector(network, 1, n_steps=20, step=1e30, descriptors=0.0)
    with pytest.raises(ValueError, match="diverged before step 10"):
        projector.fit(target)
    for pictures in (np.full_like(target.images, np.nan), target.images[:, :8]):
        with pytest.raises(ValueError, match="aligned images must"):
            projector.fit(AlignedPhotos(pictures, target.landmarks, target.visible))
    with pytest.raises(ValueError, match="number of photos must be an integer of at least 1 and at most 1"):
        projector.fit(drawn_by(network, some_codes(network, 2), landmarks))


def test_a_strong_pull_stays_at_the_average(network, landmarks):
    target = drawn_by(network, some_codes(network, 1), landmarks)
    far, near = (
        np.abs(
            projection.Projector(network, 1, n_steps=60, descriptors=0.0, pull=pull).fit(target)[0]
            - network.average
        ).mean()
        for pull in (0.0, 10.0)
    )
    assert near < 0.3 * far


def test_photos_do_not_touch_each_other(network, landmarks):
    target = drawn_by(network, some_codes(network, 2), landmarks)
    projector = projection.Projector(network, 2, n_steps=8, descriptors=0.0, noise=0.0)
    both, _ = projector.fit(target)
    for i in range(2):
        rows = slice(i, i + 1)
        alone = AlignedPhotos(target.images[rows], target.landmarks[rows], target.visible[rows])
        np.testing.assert_allclose(projector.fit(alone)[0], both[rows], atol=1e-4)


@pytest.mark.usefixtures("eager")
def test_what_a_photo_does_not_show_hardly_counts(network, landmarks):
    target = drawn_by(network, some_codes(network, 1), landmarks)
    hidden = target.visible.copy()
    hidden[:, :, 12:] = False
    projector = projection.Projector(network, 1, n_steps=1, descriptors=0.0)
    weights = []
    for visible in (target.visible, hidden):
        projector.fit(AlignedPhotos(target.images, target.landmarks, visible))
        weights.append(projector.state["weights"].numpy()[0, ..., 0])
        assert weights[-1].mean() == pytest.approx(1)
    ratio = weights[1] / weights[0]
    np.testing.assert_allclose(ratio[:, 12:], ratio[0, 0] * projection._UNSEEN, rtol=1e-4)
    np.testing.assert_allclose(ratio[:, :12], ratio[0, 0], rtol=1e-4)
    assert weights[0][10, 8] > 2 * weights[0][0, 0]  # the face counts most


def test_descriptors_are_matched(orl_people, landmarks):
    """With their weight alone, pictures come nearer to a photo's descriptor."""
    network = make_network(32, colours=3)
    found = detection.detect(orl_people.select([0]))
    target = alignment.align(orl_people.images[:1], found.landmarks, network)
    projector = projection.Projector(network, 1, n_steps=20, step=0.2, pixels=0.0, pull=0.0, one_code=0.0)
    codes, trace = projector.fit(target)
    transforms = features.chip_transforms(target.landmarks)
    described = [
        features.describe(tf.constant((x + 1) * 127.5, tf.float32), transforms).numpy()
        for x in (
            network.synthesis(codes),
            network.synthesis(some_codes(network, 1, scale=0)),
            target.images,
        )
    ]
    after, before = (np.linalg.norm(d - described[2]) for d in described[:2])
    assert after < 0.9 * before
    assert trace["descriptors"].min() == pytest.approx(after, rel=0.2)


def test_same_seed_same_codes_and_one_compilation(network, landmarks):
    target = drawn_by(network, some_codes(network, 2), landmarks)
    projector = projection.Projector(network, 2, n_steps=25, descriptors=0.0, seed=3)
    first, _ = projector.fit(target)
    fewer = AlignedPhotos(target.images[:1], target.landmarks[:1], target.visible[:1])
    projector.fit(fewer)
    again, _ = projector.fit(target)
    np.testing.assert_array_equal(first, again)
    (compiled,) = projector._compiled.values()
    assert compiled.experimental_get_tracing_count() == 1
    other = projection.Projector(network, 2, n_steps=25, descriptors=0.0, seed=4)
    assert np.abs(other.fit(target)[0] - first).max() > 1e-6


def test_interrupted_search_goes_on(network, landmarks, own_cache, monkeypatch):
    monkeypatch.setattr(projection, "_SAVE_SECONDS", -1.0)
    target = drawn_by(network, some_codes(network, 2), landmarks)
    expected, whole = projection.Projector(network, 2, n_steps=35, descriptors=0.0).fit(target)
    assert not list(own_cache.glob("projection/*"))  # nothing is left once it is finished

    def interrupt(steps):
        reported.append(steps)
        if len(reported) == 3:
            raise KeyboardInterrupt

    reported = []
    with pytest.raises(KeyboardInterrupt):
        projection.Projector(network, 2, n_steps=35, descriptors=0.0).fit(target, on_steps=interrupt)
    assert len(list(own_cache.glob("projection/*.npz"))) == 1
    reported.clear()
    codes, trace = projection.Projector(network, 2, n_steps=35, descriptors=0.0).fit(
        target, on_steps=reported.append
    )
    assert reported == [40, 20, 10]  # 20 steps of 2 photos were done
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_allclose(trace, whole)


def test_damaged_or_foreign_state_is_begun_anew(network, landmarks, own_cache, monkeypatch):
    monkeypatch.setattr(projection, "_SAVE_SECONDS", -1.0)
    target = drawn_by(network, some_codes(network, 1), landmarks)
    projector = projection.Projector(network, 1, n_steps=20, descriptors=0.0)
    expected, _ = projector.fit(target)
    path = projector._saved_path(target, None)
    path.write_bytes(b"PK\x03\x04 cut")
    np.testing.assert_array_equal(projector.fit(target)[0], expected)
    utils.save_arrays(path, {name: np.zeros(3) for name in (*projection._MOVING, "rows")})
    np.testing.assert_array_equal(projector.fit(target)[0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps must be an integer of at least 1"),
        ({"n_steps": 2.5}, "n_steps must be an integer"),
        ({"seed": -1}, "seed"),
        ({"step": 0.0}, "step must be a number above 0"),
        ({"noise": float("nan")}, "noise"),
        ({"pull": -1.0}, "pull"),
        ({"pixels": 0, "descriptors": 0}, "must have a weight"),
        ({"batch": 0}, "batch"),
        ({"batch": True}, "batch"),
    ],
)
def test_settings_out_of_range_are_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        projection.Projector(network, **options)


def test_unknown_settings_are_named(network):
    with pytest.raises(TypeError, match="unknown setting 'steps'; choose from 'n_steps'"):
        projection.Projector(network, steps=3)


def test_batches_shrink_with_resolution():
    assert [projection._default_batch(r) for r in (8, 128, 256, 512, 1024)] == [16, 16, 4, 1, 1]


# Photos


@pytest.fixture(scope="module")
def faces(orl_people):
    """Three photos and one that shows no face."""
    chosen = orl_people.select([0, 1, 2, 3])
    images = chosen.images.copy()
    images[2] = 128
    return datasets.Faces(images, chosen.identities, chosen.names, source="small")


QUICK = {"n_steps": 4, "descriptors": 0.0}


@pytest.mark.usefixtures("eager")
def test_photos_without_a_face_have_no_code(network, faces):
    with pytest.warns(UserWarning, match=r"no face was found in 1 of 4 photos.*" + faces.names[2]):
        result = projection.project(network, faces, batch=2, **QUICK)
    np.testing.assert_array_equal(result.found, [True, True, False, True])
    assert result.codes.shape == (4, 6, 8)
    np.testing.assert_array_equal(np.isfinite(result.codes).all(axis=(1, 2)), result.found)
    assert sorted(set(result.trace["photo"])) == [0, 1, 3]
    with pytest.raises(ValueError, match="no face was found in any of the 1 photos"):
        projection.project(network, [faces.images[2]], **QUICK)


class FixedEncoder:
    """Says the same code for every picture."""

    def __init__(self, code):
        self.code = code

    def encode(self, pictures, landmarks):
        return np.stack([self.code] * len(pictures))


@pytest.mark.usefixtures("eager")
def test_start_from_an_encoder_or_given_codes(network, faces):
    code = some_codes(network, 1)[0]
    photos = [faces.images[0], faces.images[1]]
    still = {**QUICK, "n_steps": 1, "noise": 0.0}  # the first step draws the start itself
    for start in ({"encoder": FixedEncoder(code)}, {"start": np.stack([code, code])}):
        codes = projection.project(network, photos, **start, **still).codes
        np.testing.assert_allclose(codes, [code, code], atol=1e-5)
    codes = projection.project(network, photos, **still).codes
    np.testing.assert_allclose(codes, np.broadcast_to(network.average, codes.shape), atol=1e-6)
    with pytest.raises(ValueError, match="not both"):
        projection.project(network, photos, encoder=FixedEncoder(code), start=codes, **still)
    with pytest.raises(ValueError, match="start must have the shape"):
        projection.project(network, photos, start=codes[:1], **still)
    with pytest.raises(ValueError, match="does not match this network"):
        projection.project(network, photos, encoder=FixedEncoder(code[:2]), **still)


# Files


@pytest.mark.usefixtures("eager")
def test_codes_are_written_kept_and_read(network, faces, tmp_path, monkeypatch):
    out = tmp_path / "codes"
    report = code_folder._project_to_folder(network, faces, out, batch=2, **QUICK)
    assert report.missed == [faces.names[2]] and report.kept == []
    assert report.written == [str(name) for name in faces.names[[0, 1, 3]]]
    assert sorted(set(report.trace["photo"])) == sorted(report.written)
    assert (out / faces.names[0]).with_suffix(".npy").is_file()
    codes = code_folder.read_codes(out, report.written, network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = projection.project(network, faces, batch=2, **QUICK).codes[[0, 1, 3]]
    np.testing.assert_array_equal(codes, expected)
    with pytest.raises(FileNotFoundError, match="no codes for 1 of 4 photos"):
        code_folder.read_codes(out, faces.names, network)

    (out / faces.names[1]).with_suffix(".npy").unlink()  # as if interrupted
    report = code_folder._project_to_folder(network, faces, out, batch=2, **QUICK)
    assert report.written == [faces.names[1]] and report.kept == [str(name) for name in faces.names[[0, 3]]]

    def fail(*arguments):
        raise AssertionError("everything was there")

    monkeypatch.setattr(projection.Projector, "fit", fail)
    report = code_folder._project_to_folder(network, faces, out, batch=2, **QUICK)
    assert report.written == [] and len(report.kept) == 3 and len(report.trace) == 0


@pytest.mark.usefixtures("eager")
def test_codes_of_other_settings_or_networks_are_not_touched(network, faces, tmp_path):
    faces = faces.select([0])
    path = code_folder._code_paths(faces.names, tmp_path)[0]
    code_folder._project_to_folder(network, faces, tmp_path, **QUICK)
    before = path.read_bytes()
    others = [(network, {**QUICK, "pull": 0.5}), (make_network(seed=1), QUICK), (make_network(32), QUICK)]
    for other, options in others:
        with pytest.raises(FileExistsError, match="overwrite"):
            code_folder._project_to_folder(other, faces, tmp_path, **options)
        assert path.read_bytes() == before
    (tmp_path / code_folder._RECORD).unlink()  # codes from elsewhere are only checked by their shape
    with pytest.raises(FileExistsError, match="shape"):
        code_folder._project_to_folder(make_network(32), faces, tmp_path, **QUICK)
    assert code_folder._project_to_folder(make_network(seed=1), faces, tmp_path, **QUICK).written == []
    report = code_folder._project_to_folder(make_network(seed=1), faces, tmp_path, overwrite=True, **QUICK)
    assert report.written == [faces.names[0]] and path.read_bytes() != before
    assert json.loads((tmp_path / code_folder._RECORD).read_text())["settings"]["n_steps"] == 4
    with pytest.raises(FileExistsError, match="is a file"):
        code_folder._project_to_folder(network, faces, path, **QUICK)


@pytest.mark.usefixtures("eager")
def test_codes_of_other_photos_with_the_same_names_are_refused(network, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(code_folder, "CODES", tmp_path)
    network.save(tmp_path / "network.npz")
    mine = faces.select([0, 1])
    others = datasets.Faces(faces.images[[3, 1]], mine.identities, mine.names, source="small")
    code_folder._project_to_folder(network, mine, **QUICK)
    kept = anonymizer.load("stylegan", mine, network=tmp_path / "network.npz").codes
    for codes in (None, tmp_path / "small"):
        with pytest.raises(ValueError, match="holds codes of 1 other photos with the same names"):
            anonymizer.load("stylegan", others, network=tmp_path / "network.npz", codes=codes)
    with pytest.raises(FileExistsError, match="holds codes of 1 other photos"):
        code_folder._project_to_folder(network, others, **QUICK)
    np.testing.assert_array_equal(
        anonymizer.load("stylegan", mine, network=tmp_path / "network.npz").codes, kept
    )
    code_folder._project_to_folder(network, others, overwrite=True, **QUICK)
    replaced = anonymizer.load("stylegan", others, network=tmp_path / "network.npz").codes
    assert not np.array_equal(replaced[0], kept[0])
    with pytest.raises(ValueError, match="other photos"):
        anonymizer.load("stylegan", mine, network=tmp_path / "network.npz")
    (
        tmp_path / "small" / code_folder._RECORD
    ).unlink()  # whose codes these are is unknown: only the caller can say
    with pytest.raises(FileNotFoundError, match="says for which photos"):
        anonymizer.load("stylegan", others, network=tmp_path / "network.npz")
    given = anonymizer.load("stylegan", others, network=tmp_path / "network.npz", codes=tmp_path / "small")
    np.testing.assert_array_equal(given.codes, replaced)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.jpg", "a/1.png"], "would share the file"),
        (["A.jpg", "a.jpg"], "would share the file"),
        (["same.jpg", "same.jpg"], "would share the file"),
        (["../a.jpg"], "points outside"),
        (["/etc/a.jpg"], "points outside"),
    ],
)
def test_names_that_cannot_have_files_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        code_folder._code_paths(names, "codes")


@given(
    st.lists(
        st.tuples(st.text("abc_é0", min_size=1, max_size=4), st.text("xy1. ", min_size=1, max_size=4)),
        unique_by=lambda parts: str(parts).casefold().rstrip(". "),
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_photo_has_its_own_file_in_the_folder(parts):
    names = [f"{person}/{photo}_.jpg" for person, photo in parts]
    paths = code_folder._code_paths(names, "codes")
    assert len({str(path).casefold() for path in paths}) == len(names)
    assert all(
        path.parts[0] == "codes" and path.suffix == ".npy" and ".." not in path.parts for path in paths
    )


def test_codes_are_found_under_their_published_names(network, tmp_path):
    codes = some_codes(network, 5)
    for i, name in enumerate(["s1/1.npy", "s2/1_01.npy", "2.npy", "3_01.npy"]):
        code_folder._save_code(tmp_path / name, codes[i])
    names = ["s1/1.pgm", "s2/1.pgm", "s1/2.pgm", "3.jpg"]
    np.testing.assert_array_equal(code_folder.read_codes(tmp_path, names, network), codes[:4])
    code_folder._save_code(tmp_path / "4.npy", codes[4])
    with pytest.raises(FileNotFoundError, match="no codes for 2 of 2"):  # whose would 4.npy be?
        code_folder.read_codes(tmp_path, ["s1/4.pgm", "s2/4.pgm"], network)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 8), np.float32), "shape"),
        (np.full((6, 8), np.nan), "NaN"),
        (np.full((6, 8), 1e300), "infinite"),
        (np.zeros((6, 8), complex), "real numbers"),
        (np.array([[None] * 8] * 6), "objects"),
    ],
)
def test_unusable_codes_are_refused(network, tmp_path, array, message):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        code_folder.read_codes(tmp_path, ["a.jpg"], network)


def test_missing_codes_are_named(network, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        code_folder.read_codes(tmp_path / "codes", ["a.jpg"], network)
    with pytest.raises(FileNotFoundError, match=r"no codes for 2 of 2 photos \(first: a\.npy\)"):
        code_folder.read_codes(tmp_path, ["a.jpg", "b.jpg"], network)
    with pytest.raises(ValueError, match="at least one photo"):
        code_folder.read_codes(tmp_path, [], network)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published codes are not here")
def test_published_codes_are_read():
    names = [path.name.replace("_01.npy", ".jpg") for path in sorted(PUBLISHED.glob("*.npy"))]

    class Official:
        num_layers, w_dim = 18, 512

    codes = code_folder.read_codes(PUBLISHED, names, Official)
    assert codes.shape == (len(names), 18, 512) and codes.dtype == np.float32


# Command line


def run(*arguments):
    parser = argparse.ArgumentParser()
    code_folder.add_arguments(parser)
    code_folder.run(parser.parse_args([str(argument) for argument in arguments]))


def test_command_projects_a_folder_of_loose_photos(network, faces, tmp_path, capsys):
    photos, out, weights = tmp_path / "photos", tmp_path / "codes", tmp_path / "network.npz"
    photos.mkdir()
    for i in range(4):
        cv2.imwrite(str(photos / f"{i}.png"), faces.images[i])
    network.save(weights)
    options = ["--network", weights, "--steps", 3, "--descriptors", 0]
    run(photos, out, *options, "--trace", tmp_path / "trace.csv")
    printed = capsys.readouterr().out
    assert "3 codes written, 0 already present" in printed and "no face was found" in printed
    assert "2.png" in printed
    assert code_folder.read_codes(out, ["0.png", "1.png", "3.png"], network).shape == (3, 6, 8)
    assert (tmp_path / "trace.csv").read_text().startswith("photo,step,loss")
    run(photos, out, *options)
    assert "0 codes written, 3 already present" in capsys.readouterr().out


def test_command_refuses_what_it_cannot_do(network, tmp_path):
    weights = tmp_path / "network.npz"
    network.save(weights)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        run(tmp_path / "nothing", tmp_path, "--network", weights)
    with pytest.raises(ValueError, match="not both"):
        run("orl", tmp_path, "--network", weights, "--encoder", "a.npz", "--no-encoder")
    with pytest.raises(ValueError, match=r"\.csv"):
        run("orl", tmp_path, "--network", weights, "--trace", tmp_path / "trace.txt")
    with pytest.raises(FileNotFoundError):
        run("orl", tmp_path, "--network", tmp_path / "none.npz")
