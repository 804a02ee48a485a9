"""dlib's recogniser run by ONNX Runtime: its answers are dlib's own."""

import dlib
import numpy as np
import pytest

import detection
import dlib_network
import embedding
import utils

FILE = utils.find_dlib_model("dlib_face_recognition_resnet_model_v1.dat")


@pytest.fixture(scope="module")
def chips(orl_people):
    """Cut-out faces, noise, black and white: uint8 (11, 150, 150, 3)."""
    faces = orl_people.select(slice(0, 8))
    pairs = zip(faces.images, detection.detect(faces).landmarks, strict=True)
    faces = [embedding.face_chip(*pair, 150) for pair in pairs]
    noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    return np.stack([*faces, noise, np.zeros_like(noise), np.full_like(noise, 255)])


def test_descriptors_are_those_of_dlib(chips):
    own = dlib.face_recognition_model_v1(str(FILE))
    expected = np.stack([np.array(own.compute_face_descriptor(chip)) for chip in chips])
    ours = dlib_network.describe_chips(chips)
    assert ours.shape == (11, 128) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_face_is_described_alike_in_any_company(chips):
    together = dlib_network.describe_chips(chips)
    for order in (np.arange(11)[::-1], np.array([3]), np.array([10, 3, 0])):
        assert np.array_equal(dlib_network.describe_chips(chips[order]), together[order])


def test_damaged_files_are_refused(tmp_path):
    data = FILE.read_bytes()
    for name, content in {
        "short": data[:-9],
        "other": data.replace(b"con_4", b"con_5", 1),
        "none": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="is not dlib's face recognition network"):
            dlib_network.read_weights(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        dlib_network.read_weights(tmp_path / "missing")
