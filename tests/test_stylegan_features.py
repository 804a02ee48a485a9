"""dlib's face descriptor as a differentiable network: its file, its values, its chips."""

import dlib
import numpy as np
import pytest
import tensorflow as tf

import detection
import embedding
import utils
from stylegan import features

FILE = utils.find_dlib_model("dlib_face_recognition_resnet_model_v1.dat")


@pytest.fixture(scope="module")
def faces(orl_people):
    return orl_people.select(slice(0, 8))


@pytest.fixture(scope="module")
def landmarks(faces):
    return detection.detect(faces).landmarks


@pytest.fixture(scope="module")
def chips(faces, landmarks):
    """What dlib itself cuts out of the enlarged photos: uint8 (8, 150, 150, 3)."""
    pairs = zip(faces.images, landmarks, strict=True)
    return np.stack([embedding.face_chip(*pair, 150) for pair in pairs])


def dlib_descriptors(chips):
    recogniser = dlib.face_recognition_model_v1(str(FILE))
    return np.stack([np.array(recogniser.compute_face_descriptor(chip)) for chip in chips])


def turned(landmarks, scale, angle, centre):
    """Landmarks (68, 2) scaled and turned about their mean and moved to a centre, in whole pixels."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.rint((landmarks - landmarks.mean(axis=0)) @ turn.T * scale + centre)


def test_descriptors_equal_those_of_dlib(chips):
    noise = np.random.default_rng(0).integers(0, 256, (2, 150, 150, 3), dtype=np.uint8)
    pictures = np.concatenate([chips, noise, np.zeros_like(noise[:1]), np.full_like(noise[:1], 255)])
    ours = features.descriptor_network()(pictures.astype(np.float32)).numpy()
    assert ours.shape == (12, 128)
    np.testing.assert_allclose(ours, dlib_descriptors(pictures), atol=1e-5)


def test_precision_of_a_training_around_it_changes_nothing(chips):
    import keras

    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        network = features._build(features.read_weights(FILE))
    finally:
        keras.config.set_dtype_policy(before)
    ours = network(chips[:2].astype(np.float32)).numpy()
    np.testing.assert_allclose(ours, dlib_descriptors(chips[:2]), atol=1e-5)


def test_network_is_fixed_and_loaded_once():
    network = features.descriptor_network()
    assert features.descriptor_network() is network and not network.trainable_variables


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        features.read_weights(tmp_path / "weights.dat")


@pytest.mark.parametrize("share", [0, 1e-5, 0.3, 0.99, 0.9999999])
def test_cut_files_are_refused(tmp_path, share):
    data = FILE.read_bytes()
    path = tmp_path / "cut.dat"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="truncated"):
        features.read_weights(path)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, b"\xff", "no number"),
        (5, b"L", "no layer"),
        (30, b"\x01", "version"),
        (291, b"I", "input_rgb"),
        (336, b"C", "con_4"),
        (344, b"\x21", "size"),
        (352, b"\x00\x00\xc0\x7f", "NaN"),
        (FILE.read_bytes().index(b"110"), b"2", "flags"),
    ],
)
def test_damage_is_found(tmp_path, position, value, message):
    data = bytearray(FILE.read_bytes())
    data[position : position + len(value)] = value
    path = tmp_path / "damaged.dat"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        features.read_weights(path)


def test_surplus_bytes_are_refused(tmp_path):
    path = tmp_path / "longer.dat"
    path.write_bytes(FILE.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="1 bytes follow"):
        features.read_weights(path)


@pytest.mark.parametrize(("scale", "angle"), [(0.6, 0.0), (0.7, -0.4), (0.9, 0.5), (1.8, 0.1)])
def test_chips_lie_where_dlib_puts_them(landmarks, scale, angle):
    """A picture whose values are x and y tells where each pixel of a chip was taken."""
    side = int(270 * scale)
    points = turned(landmarks[0], scale, angle, side / 2)
    shape = dlib.full_object_detection(dlib.rectangle(0, 0, 9, 9), [dlib.point(*map(int, p)) for p in points])
    details = dlib.get_face_chip_details(shape, 150, 0.25)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    expected = np.stack([dlib.extract_image_chip(np.ascontiguousarray(a), details) for a in (x, y)], axis=-1)
    found = features._differentiable_chips(
        tf.constant(np.stack([x, y, x], axis=-1)[None]), features.chip_transforms(points)
    )[0].numpy()[..., :2]
    np.testing.assert_allclose(found[expected.min(axis=2) > 1], expected[expected.min(axis=2) > 1], atol=0.02)


def test_chips_give_the_descriptors_of_dlibs_chips(faces, landmarks):
    points = np.rint(landmarks)
    found = features.describe(tf.constant(faces.images, tf.float32), features.chip_transforms(points))
    for image, row, descriptor in zip(faces.images, points, found.numpy(), strict=True):
        shape = dlib.full_object_detection(
            dlib.rectangle(0, 0, 9, 9), [dlib.point(*map(int, p)) for p in row]
        )
        chip = dlib.get_face_chip(image, shape, size=150, padding=0.25)
        assert np.linalg.norm(dlib_descriptors([chip])[0] - descriptor) < 0.04


def test_descriptors_are_near_those_of_the_embedding(faces, landmarks):
    found = features.describe(tf.constant(faces.images, tf.float32), features.chip_transforms(landmarks))
    assert np.linalg.norm(found - embedding.embed(faces, "dlib"), axis=1).max() < 0.1


def test_a_grey_picture_is_described_like_its_three_channels(faces, landmarks):
    transforms = features.chip_transforms(landmarks[:2])
    pictures = tf.constant(faces.images[:2], tf.float32)
    one = features.describe(pictures[..., :1], transforms)
    np.testing.assert_allclose(one, features.describe(pictures, transforms), atol=1e-5)


def test_one_transform_serves_all(faces, landmarks):
    transform = features.chip_transforms(landmarks[0])
    pictures = tf.constant(faces.images[:2], tf.float32)
    alone = features._differentiable_chips(pictures, transform)
    np.testing.assert_array_equal(alone, features._differentiable_chips(pictures, np.stack([transform] * 2)))


def test_halved_pictures_give_nearly_the_same_chip(landmarks):
    """On a smooth picture it does not matter whether pixels are averaged first."""
    side = 900
    points = turned(landmarks[0], 3.6, 0.2, side / 2)
    transform = features.chip_transforms(points)
    assert features.halvings(transform) == 1
    y, x = np.mgrid[:side, :side].astype(np.float32)
    picture = tf.constant(np.stack([x, y, x + y], axis=-1)[None])
    straight, halved = (features._differentiable_chips(picture, transform, h).numpy() for h in (0, 1))
    inside = straight.min(axis=-1) > 4
    np.testing.assert_allclose(halved[inside], straight[inside], atol=0.02)


def test_gradient_of_chips_is_their_adjoint(landmarks):
    """Sampling is linear: <chips(a), b> = <a, gradient of <chips(.), b>>."""
    random = np.random.default_rng(0)
    a = tf.constant(random.normal(size=(2, 80, 70, 3)), tf.float32)
    b = tf.constant(random.normal(size=(2, 150, 150, 3)), tf.float32)
    transforms = features.chip_transforms(landmarks[:2] - 10)  # parts lie outside
    with tf.GradientTape() as tape:
        tape.watch(a)
        value = tf.reduce_sum(features._differentiable_chips(a, transforms) * b)
    assert float(tf.reduce_sum(tape.gradient(value, a) * a)) == pytest.approx(float(value), rel=1e-4)


def test_gradient_of_descriptors_tells_their_change(chips):
    chip = tf.constant(chips[:1], tf.float32)
    network = features.descriptor_network()
    target = network(chips[1:2].astype(np.float32))

    def loss(pictures):
        return tf.reduce_sum((network(pictures) - target) ** 2)

    with tf.GradientTape() as tape:
        tape.watch(chip)
        value = loss(chip)
    gradient = tape.gradient(value, chip)
    step = gradient / tf.norm(gradient)
    change = (loss(chip + 2 * step) - loss(chip - 2 * step)) / 4
    assert float(change) == pytest.approx(float(tf.norm(gradient)), rel=0.1)


@pytest.mark.parametrize(
    "landmarks", [np.zeros((68, 2)), np.full((68, 2), np.nan), np.zeros((5, 2)), np.zeros(136)]
)
def test_unusable_landmarks_are_refused(landmarks):
    with pytest.raises(ValueError, match="landmarks must"):
        features.chip_transforms(landmarks)
