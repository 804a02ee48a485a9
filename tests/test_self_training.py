"""Training an encoder on images that the network draws."""

import numpy as np
import pytest

from stylegan import encoder as encoding
from stylegan.__main__ import main
from stylegan.architecture import Architecture, Mapping, Synthesis
from stylegan.network import StyleNetwork, load_npz
from stylegan.self_training import SelfTrainer, SelfTrainingSettings

SETTINGS = SelfTrainingSettings(images=16, batch=4, evaluate_every=8)

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module")
def network():
    """A small colour network with random weights."""
    architecture = Architecture(32, (6, 6, 4, 4), 5, 6, (6, 6))
    return StyleNetwork(Mapping(architecture), Synthesis(architecture), np.zeros(6, np.float32))


@pytest.fixture
def file(network, tmp_path):
    network.save(tmp_path / "faces.npz")
    return tmp_path / "faces.npz"


@pytest.mark.usefixtures("compiled")
def test_pairs_are_codes_and_their_images(network):
    trainer = SelfTrainer(network, SETTINGS)
    codes, pictures = trainer.batch(np.random.default_rng(0))
    drawn = network.synthesis(network.average + trainer.spread * codes)
    np.testing.assert_allclose(pictures, np.clip(drawn, -1, 1), atol=1e-5)
    again, _ = trainer.batch(np.random.default_rng(0))
    np.testing.assert_array_equal(codes, again)
    assert len(np.unique(codes[:, 0, 0])) == len(codes)


def test_mixing_and_noise_are_as_set(network):
    plain = SelfTrainer(network, SelfTrainingSettings(mixed=0, noise=0))
    codes, _ = plain.batch(np.random.default_rng(0))
    np.testing.assert_array_equal(codes, codes[:, :1].repeat(network.num_layers, axis=1))
    mixed = SelfTrainer(network, SelfTrainingSettings(mixed=1, noise=0))
    codes, _ = mixed.batch(np.random.default_rng(0))
    changes = (np.abs(np.diff(codes, axis=1)) > 1e-6).any(axis=2).sum(axis=1)
    np.testing.assert_array_equal(changes, 1)  # one change of style in each image


@pytest.mark.usefixtures("compiled")
def test_training_beats_the_average_code(network):
    trainer = SelfTrainer(
        network, SelfTrainingSettings(images=1200, batch=16, ema=0.9, mixed=0, noise=0, learning_rate=3e-3)
    )
    average = float(np.square(trainer.known).mean())
    while trainer.seen < trainer.total_images:
        trainer.step()
    assert trainer.held_out_loss() < 0.7 * average


def test_command_writes_the_encoder_that_project_finds_and_resumes(file, capsys):
    command = ["encoder", str(file), "--batch", "4", "--evaluate-every", "8", "--images"]
    assert main([*command, "8"]) == 0
    assert main([*command, "16"]) == 0
    assert "after 8 of 16 images" in capsys.readouterr().out
    resumed = encoding.load_encoder(encoding.encoder_path(file))
    straight = SelfTrainer(load_npz(file), SETTINGS)
    while straight.seen < 16:
        straight.step()
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3))
    np.testing.assert_allclose(resumed.encode(pictures), straight.result().encode(pictures), atol=0.01)


def test_an_existing_encoder_is_not_overwritten(file, capsys):
    encoding.encoder_path(file).write_bytes(b"mine")
    assert main(["encoder", str(file)]) == 2
    assert "name another file with --out" in capsys.readouterr().err
    assert encoding.encoder_path(file).read_bytes() == b"mine"


def test_encoder_reduces_larger_pictures():
    sizes = encoding.EncoderSizes(32, 3, 8, 6, (4, 5, 6), 7)
    encoder = encoding.Encoder(sizes, encoding.build_encoder(sizes), {})
    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    reduced = pictures.reshape(2, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(encoder.encode(pictures), encoder.encode(reduced), atol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        encoder.encode(pictures[:, :48, :48])
