"""What is read from one face: known answers by hand, brute force, or the library that the network came with."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, optimize

import utils
from utility import appearance, networks


@pytest.fixture(scope="module")
def readings(orl):
    return appearance.FaceReadings(orl)


def face_points(pitch=0.0, yaw=0.0, roll=0.0, scale=100.0, shift=(50.0, 60.0), distance=10.0):
    """68 landmarks, of which those of the head model are a projection of it, and the rotation."""
    upright = np.diag([1.0, -1.0, -1.0])
    turn = cv2.Rodrigues(np.radians([pitch, yaw, roll]))[0] @ upright
    head = appearance._HEAD_POINTS / np.linalg.norm(
        appearance._HEAD_POINTS - appearance._HEAD_POINTS.mean(axis=0)
    )
    seen = head @ turn.T + [0, 0, distance]
    points = np.zeros((68, 2))
    points[list(appearance._HEAD_LANDMARKS)] = seen[:, :2] / seen[:, 2:] * distance
    return points * scale + shift, turn


# networks ---------------------------------------------------------------------------------------------------


def test_expressions_are_what_keras_makes_of_the_same_file(readings):
    utils.import_quietly("keras")
    import keras

    crops = readings._crops(range(0, 400, 40), 64)
    network = keras.models.load_model(
        utils.find_package_file("fer", "fer/data/emotion_model.hdf5"), compile=False, safe_mode=True
    )
    expected = network.predict_on_batch(networks._expression_input(crops))
    np.testing.assert_allclose(networks.read_expressions(crops), expected, atol=1e-5)
    names = ("activation_2", "add_1", "add_2", "add_3", "add_4")
    inner = keras.Model(network.inputs, [network.get_layer(name).output for name in names])
    stages = networks._expression_stages(networks._expression_input(crops))
    for ours, theirs in zip(stages, inner.predict_on_batch(networks._expression_input(crops)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=1e-4)


def test_expression_file_with_other_layers_is_refused(tmp_path, monkeypatch):
    import h5py

    path = tmp_path / "emotion_model.hdf5"
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights/conv2d_1")
        group["kernel"] = np.zeros((5, 5, 1, 8), np.float32)
        group.attrs["weight_names"] = [b"kernel"]
    monkeypatch.setattr(networks, "_model_file", lambda *_: path)
    with pytest.raises(ValueError, match="is not the expression network"):
        networks.load_expression_network.__wrapped__()


def test_missing_network_says_how_to_get_it(monkeypatch):
    def absent(*_):
        raise FileNotFoundError("no such package")

    monkeypatch.setattr(utils, "find_package_file", absent)
    with pytest.raises(networks.MissingModelError, match="requirements-models.txt"):
        networks.load_expression_network.__wrapped__()


def test_four_of_the_orl_people_are_women(orl, readings):
    female = readings.sexes == networks.SEXES.index("female")
    shares = {person: female[orl.identities == person].mean() for person in orl.people}
    assert {person for person, share in shares.items() if share > 0.5} == {"s8", "s10", "s32", "s35"}


def test_age_is_the_mean_of_its_classes(monkeypatch):
    probabilities = np.zeros((3, 81))
    probabilities[0, 0] = probabilities[1, 80] = 1
    probabilities[2, [20, 40]] = 0.5
    monkeypatch.setattr(networks, "_run_session", lambda *_: probabilities)
    np.testing.assert_allclose(networks.read_ages(np.zeros((3, 64, 64, 3), np.uint8))[:, 0], [0.25, 80, 30])


def test_orl_people_are_read_as_adults(orl, readings):
    medians = [np.median(readings.ages[orl.identities == person]) for person in orl.people]
    assert min(medians) > 18 and max(medians) < 65


def test_feature_distance_of_unrelated_features_is_two_a_stage(monkeypatch):
    first, second = np.zeros((2, 3, 3, 2)), np.zeros((2, 3, 3, 2))
    first[..., 0], second[..., 1] = 5, 0.1  # lengths do not count
    given_stages = iter([[first] * 5, [second] * 5])
    monkeypatch.setattr(networks, "_expression_stages", lambda _: next(given_stages))
    crops = np.zeros((2, 64, 64, 3), np.uint8)
    np.testing.assert_allclose(networks.feature_distances(crops, crops), [10, 10])


def test_feature_distance_grows_with_the_change(readings):
    crops = readings._crops(range(5), 64)
    light = np.stack([cv2.GaussianBlur(crop, (0, 0), 1) for crop in crops])
    heavy = np.stack([cv2.GaussianBlur(crop, (0, 0), 4) for crop in crops])
    assert (networks.feature_distances(crops, crops) == 0).all()
    np.testing.assert_allclose(
        networks.feature_distances(crops, light), networks.feature_distances(light, crops), rtol=1e-5
    )
    assert (networks.feature_distances(crops, light) < networks.feature_distances(crops, heavy)).all()


# skin tone --------------------------------------------------------------------------------------------------


def lab(red, green, blue):
    """CIE L*a*b* of an sRGB colour under D65, by the standard's formulas."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue)]
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = (np.dot(row, linear) / white for row, white in zip(matrix, (0.9505, 1, 1.089), strict=True))
    f = [v ** (1 / 3) if v > 216 / 24389 else (24389 / 27 * v + 16) / 116 for v in (x, y, z)]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


@pytest.mark.parametrize("colour", [(241, 194, 125), (198, 134, 66), (90, 56, 37)])
def test_skin_tone_is_the_angle_of_chardon(orl, readings, colour):
    image = np.broadcast_to(np.array(colour, np.uint8), (112, 92, 3)).copy()
    lightness, _, b = lab(*(value / 255 for value in colour))
    expected = np.degrees(np.arctan((lightness - 50) / b))
    assert appearance._skin_tone(image, readings.landmarks[0]) == pytest.approx(expected, abs=0.3)


def test_skin_tone_of_grey_or_unseen_cheeks_is_unknown(orl, readings):
    assert np.isnan(appearance._skin_tone(orl.images[0], readings.landmarks[0]))
    assert np.isnan(appearance._skin_tone(orl.images[0], readings.landmarks[0] + 1000))


def test_skin_tone_reads_the_cheeks_alone(readings):
    points = readings.landmarks[0]
    image = np.zeros((112, 92, 3), np.uint8)
    image[:] = 255, 0, 0
    for cheek in appearance._CHEEKS:
        cv2.fillConvexPoly(
            image, cv2.convexHull(np.rint(points[list(cheek)]).astype(np.int32)), (198, 134, 66)
        )
    plain = np.broadcast_to(np.array((198, 134, 66), np.uint8), image.shape)
    assert appearance._skin_tone(image, points) == appearance._skin_tone(plain, points)


# geometry ---------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.floats(-35, 35)] * 3), st.floats(20, 400), st.floats(-200, 200))
def test_head_rotation_is_found_again(angles, scale, shift):
    frontal, _ = face_points(scale=scale, shift=(shift, -shift))
    points, turn = face_points(*angles, scale=scale, shift=(shift, -shift))
    found = appearance.rotation_angle(appearance._head_rotation(frontal), appearance._head_rotation(points))
    assert found == pytest.approx(appearance.rotation_angle(np.diag([1.0, -1.0, -1.0]), turn), abs=4)


def test_turned_head_is_read_alike_on_the_mirror_image(readings):
    for points in readings.landmarks[:20]:
        angle = appearance.rotation_angle(np.diag([1.0, -1.0, -1.0]), appearance._head_rotation(points))
        mirrored = points * [-1, 1]
        swapped = mirrored.copy()
        for left, right in ((36, 45), (48, 54)):
            swapped[[left, right]] = mirrored[[right, left]]
        again = appearance.rotation_angle(np.diag([1.0, -1.0, -1.0]), appearance._head_rotation(swapped))
        assert again == pytest.approx(angle, abs=0.5)


@given(st.floats(-80, 80))
def test_head_turn(degrees):
    """From a head that looks at the camera (x right, y down, z away), about its upright axis."""
    angle = np.radians(degrees)
    about = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    assert appearance._head_turn(np.diag([1.0, -1.0, -1.0]) @ about) == pytest.approx(degrees, abs=1e-9)


def test_a_mirrored_head_is_turned_the_other_way(orl_people):
    faces = orl_people.select(slice(0, 6))
    mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in faces.images]
    there, back = appearance.FaceReadings(faces).turns, appearance.FaceReadings(mirrored).turns
    assert np.ptp(there) > 10
    assert np.corrcoef(there, -back)[0, 1] > 0.9  # landmarks of the mirror image differ by some degrees
    assert abs(np.median(there + back)) < 5


@given(st.floats(0, 179))
def test_rotation_angle(angle):
    turn = cv2.Rodrigues(np.radians(angle) * np.array([2, 3, 6]) / 7)[0]
    assert appearance.rotation_angle(np.eye(3), turn) == pytest.approx(angle, abs=1e-4)
    assert appearance.rotation_angle(turn, turn) == pytest.approx(0, abs=1e-4)


def test_landmark_error_is_what_is_left_after_the_best_fit(readings):
    first, second = readings.landmarks[0].astype(float), readings.landmarks[15].astype(float)

    def moved(p):
        return second @ np.array([[p[0], p[1]], [-p[1], p[0]]]) + p[2:]

    best = optimize.minimize(lambda p: ((first - moved(p)) ** 2).sum(), [1, 0, 0, 0], method="BFGS").x
    expected = np.linalg.norm(first - moved(best), axis=1).mean() / np.linalg.norm(first[45] - first[36])
    assert appearance.landmark_error(first, second) == pytest.approx(expected, rel=1e-3)
    turned = first @ np.array([[0, 2], [-2, 0]]) + 5
    assert appearance.landmark_error(first, turned) < 1e-6


# pixels -----------------------------------------------------------------------------------------------------


def test_sharpness_is_the_variance_of_the_laplacian():
    crop = np.random.RandomState(0).randint(0, 256, (20, 30)).astype(np.uint8)
    expected = ndimage.laplace(crop.astype(float), mode="mirror").var()
    assert appearance.sharpness(crop) == pytest.approx(expected)
    assert appearance.sharpness(np.full((20, 30), 7, np.uint8)) == 0


def similarity_by_hand(first, second):
    """Wang et al. 2004, window by window."""
    place = np.arange(11) - 5
    window = np.exp(-(place[:, None] ** 2 + place**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2, values = (0.01 * 255) ** 2, (0.03 * 255) ** 2, []
    for row in range(first.shape[0] - 10):
        for column in range(first.shape[1] - 10):
            a, b = (part[row : row + 11, column : column + 11].astype(float) for part in (first, second))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            both = (window * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + c1) * (2 * both + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
            )  # fmt: skip
    return np.mean(values)


def test_structural_similarity_by_hand():
    random = np.random.RandomState(0)
    first = random.randint(0, 256, (14, 16)).astype(np.uint8)
    second = np.clip(first + random.normal(0, 30, first.shape), 0, 255).astype(np.uint8)
    assert appearance.structural_similarity(first, second) == pytest.approx(similarity_by_hand(first, second))
    assert appearance.structural_similarity(first, first) == 1
    assert appearance.structural_similarity(first, 255 - first) < 0


def test_structural_similarity_needs_one_size():
    with pytest.raises(ValueError, match="of one size"):
        appearance.structural_similarity(np.zeros((20, 20)), np.zeros((20, 21)))


def test_gradients_of_an_edge_fall_into_its_bins():
    crop = np.zeros((64, 64), np.uint8)
    crop[32:] = 200  # the gradient points down: 90 degrees, the centre of the fifth of nine bins
    horizontal = appearance._gradient_histograms(crop).reshape(-1, 9)
    assert horizontal[:, 4].max() > 0.4 and np.delete(horizontal, 4, axis=1).max() == 0
    vertical = appearance._gradient_histograms(crop.T).reshape(-1, 9)  # 0 degrees: half first, half last bin
    np.testing.assert_allclose(vertical[:, 0], vertical[:, 8])
    assert vertical[:, 0].max() > 0.3 and vertical[:, 1:8].max() == 0


def test_gradients_forget_brightness_and_contrast(readings):
    crop = cv2.resize(readings.crops[0], (64, 64))
    changed = crop * 0.5 + 40
    np.testing.assert_allclose(
        appearance._gradient_histograms(crop), appearance._gradient_histograms(changed), atol=1e-3
    )
    lengths = np.linalg.norm(appearance._gradient_histograms(crop).reshape(49, 36), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-3)
