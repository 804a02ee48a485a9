"""The colour network for all people: its linear encoder, the mixed faces that it is trained on, and the training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import anonymizer
import datasets
import detection
import embedding
import stylegan
import utils
from checks import ParameterError
from datasets import Faces
from stylegan import features, mixtures, training
from stylegan.__main__ import main
from stylegan.appearance import AppearanceEncoder
from stylegan.augmentation import to_signed
from stylegan.encoder import encoder_path, load_encoder
from stylegan.network import to_uint8
from training.backend import tf

SIDE, FRAME = 32, (0, 3, 32, 26)
SMALL = mixtures.MixtureSettings(
    images=32,
    batch=4,
    faces=40,
    evaluate_every=16,
    strength_from=8,
    sharpen=4,
    learning_rate=0.05,
    scaled_rate=0.5,
)


pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module", autouse=True)
def _short_mapping():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_MAPPING_STEPS", 2)
        yield


def tinted(faces, seed=0):
    """The same photos in random colours."""
    gains = np.random.default_rng(seed).uniform(0.5, 1, (len(faces), 3))
    images = [(image * gain).astype(np.uint8) for image, gain in zip(faces.images, gains, strict=True)]
    return Faces.of(images, faces.identities, faces.names, source="tinted")


@pytest.fixture(scope="module")
def people(orl):
    """One photo of each of 12 people, in colour."""
    return tinted(orl.select(np.arange(0, 120, 10)))


@pytest.fixture(scope="module")
def teacher(people):
    return anonymizer.load("aam", people)


@pytest.fixture(scope="module")
def mixed(teacher):
    return mixtures.draw_mixtures(teacher, 40, SIDE)


@pytest.fixture(scope="module")
def encoder(mixed):
    pictures = to_signed(mixed.pictures)
    return AppearanceEncoder.fit(pictures, mixed.shapes, mixed.landmarks, mixed.frame, 6, 4)


def make_trainer(mixed, teacher, settings=SMALL, w_dim=6, start=None):
    return mixtures.MixtureTrainer(mixed, teacher, settings, (8, 8, 8, 8), w_dim, start)


# Mixed faces


@given(st.integers(3, 10), st.integers(0, 2**32 - 1))
def test_nobody_weighs_much_in_a_mixture(k, seed):
    shares = mixtures.random_shares(np.random.default_rng(seed), k)
    assert shares.shape == (k,) and shares.sum() == pytest.approx(1)
    assert shares.min() > 0 and shares.max() <= 0.4


def test_only_mixtures_of_at_least_three_people_are_drawn(teacher, monkeypatch, tmp_path):
    """Nothing but the blends of the teacher reaches the network."""
    monkeypatch.setenv("ANONFACES_CACHE", str(tmp_path))
    groups, blend = [], teacher.blend

    def recorded(members, weights):
        groups.append((members, weights))
        return blend(members, weights)

    monkeypatch.setattr(teacher, "blend", recorded)
    mixtures.draw_mixtures(teacher, 12, SIDE, random_state=5)
    assert len(groups) == 6
    for members, weights in groups:
        assert 3 <= len(members) == len(set(members)) <= 10 and weights.max() <= 0.4


def test_mixed_faces_fill_the_frame(mixed, teacher):
    assert mixed.pictures.shape == (40, SIDE, SIDE, 3) and mixed.pictures.dtype == np.uint8
    assert mixed.frame == (0, 3, 32, 26) and mixed.held_out.sum() == 2
    wanted = mixtures._placed(teacher.frame.shape, teacher, mixed.frame)
    assert np.abs(mixed.landmarks - wanted).max() < 2
    assert len(np.unique(mixed.pictures.reshape(40, -1), axis=0)) == 40


def test_same_seed_same_mixed_faces(mixed, teacher, monkeypatch, tmp_path):
    monkeypatch.setenv("ANONFACES_CACHE", str(tmp_path))  # or they would come from the cache
    np.testing.assert_array_equal(mixtures.draw_mixtures(teacher, 4, SIDE).pictures, mixed.pictures[:4])
    others = mixtures.draw_mixtures(teacher, 4, SIDE, random_state=1)
    assert not np.array_equal(others.pictures, mixed.pictures[:4])


def test_few_or_grey_people_are_refused(people, orl):
    few = anonymizer.load("aam", people.select(np.arange(9)))
    with pytest.raises(ParameterError, match="at least 10 people, got 9"):
        mixtures.draw_mixtures(few, 4, SIDE)
    grey = anonymizer.load("aam", orl.select(np.arange(0, 120, 10)))
    with pytest.raises(ParameterError, match="colour"):
        mixtures.draw_mixtures(grey, 4, SIDE)


# The linear encoder


def test_the_code_of_a_mean_is_the_mean_code(encoder, mixed):
    pictures = to_signed(mixed.pictures[:5])
    shapes = np.broadcast_to(mixed.landmarks, (5, 68, 2))
    codes = encoder.encode(pictures, shapes)
    mean = encoder.encode(pictures.mean(axis=0, keepdims=True), shapes[:1])
    np.testing.assert_allclose(mean[0], codes.mean(axis=0), atol=1e-3)
    assert codes.shape == (5, 4, 6) and (codes == codes[:, :1]).all()  # the same w for all layers


def test_codes_are_uncorrelated_with_a_spread_of_nearly_one(encoder, mixed):
    codes = encoder.encode(to_signed(mixed.pictures), mixed.shapes)[:, 0]
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-3)
    covariance = np.cov(codes.T, bias=True)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)
    assert ((np.diag(covariance) > 0.9) & (np.diag(covariance) < 1)).all()


def test_the_encoder_sees_shape_and_colour(encoder, mixed):
    picture, shape = to_signed(mixed.pictures[:1]), mixed.shapes[:1]
    code = encoder.encode(picture, shape)
    assert np.abs(encoder.encode(picture, shape + [[[0, 1.0]]]) - code).max() > 0.05
    assert np.abs(encoder.encode(picture * [0.8, 1, 1.0], shape) - code).max() > 0.05


def test_a_saved_encoder_is_the_same(encoder, mixed, tmp_path):
    encoder.save(tmp_path / "a.npz")
    assert utils.load_arrays(tmp_path / "a.npz")["basis"].dtype == np.int8
    found = load_encoder(tmp_path / "a.npz")
    pictures = to_signed(mixed.pictures[:3])
    # Components are rounded: by a hundredth of the codes' spread, which is nearly 1.
    np.testing.assert_allclose(
        found.encode(pictures, mixed.shapes[:3]), encoder.encode(pictures, mixed.shapes[:3]), atol=0.04
    )
    encoder.save(tmp_path / "b.npz", "float16")
    assert load_encoder(tmp_path / "b.npz").frame == encoder.frame
    with pytest.raises(ValueError, match="landmarks"):
        found.encode(pictures, mixed.shapes[:2])


@pytest.mark.parametrize("damage", ["mean", "basis", "scales", "reference", "frame"])
def test_damaged_encoders_are_refused(encoder, tmp_path, damage):
    encoder.save(tmp_path / "a.npz")
    arrays = utils.load_arrays(tmp_path / "a.npz")
    if damage in ("frame", "reference"):
        text = json.loads(str(arrays["description"][0]))
        text["appearance"][damage] = text["appearance"][damage][:-1]
        arrays["description"] = np.array([json.dumps(text)])
    else:
        arrays[damage] = arrays[damage][:-1] if damage != "basis" else arrays[damage][:, :-1]
    utils.save_arrays(tmp_path / "a.npz", arrays)
    with pytest.raises(ValueError, match=r"a\.npz: not a complete encoder"):
        load_encoder(tmp_path / "a.npz")


# The training


def test_training_lowers_the_loss_and_resumes_exactly(mixed, teacher, tmp_path):
    whole = make_trainer(mixed, teacher)
    before = whole.held_out_loss()
    losses = [whole.step() for _ in range(8)]
    assert whole.held_out_loss() < before
    half = make_trainer(mixed, teacher)
    for _ in range(4):
        half.step()
    half.save_checkpoint(tmp_path / "half.npz")
    resumed = make_trainer(mixed, teacher)
    resumed.load_checkpoint(tmp_path / "half.npz")
    assert [resumed.step() for _ in range(4)] == pytest.approx(losses[4:], rel=1e-4)
    assert [part.shape for part in whole.samples()] == [(12, SIDE, SIDE, 3)] * 4


@pytest.mark.usefixtures("compiled")
def test_steps_can_be_compiled(mixed, teacher):
    assert np.isfinite(make_trainer(mixed, teacher).step())


def test_features_are_those_of_the_mixture(mixed, teacher):
    settings = replace(SMALL, features=0.5, features_from=4)
    trainer = make_trainer(mixed, teacher, settings)
    assert trainer.phase()[0] == 0
    trainer.seen = 4
    phase = trainer.phase()
    assert phase == (0.5, 0.0, settings.quantile)  # the strength of detail does not count yet
    codes, pictures, transforms, wanted = trainer.batch(np.random.default_rng(0), *phase)
    # Drawn perfectly, a mixture has its own features.
    own = features.describe((pictures[: len(wanted)] + 1) * 127.5, transforms).numpy()
    np.testing.assert_allclose(own, wanted, atol=1e-4)
    # Otherwise, the mean distance counts.
    loss, total = trainer.loss(phase, *(tf.constant(part) for part in (codes, pictures, transforms, wanted)))
    drawn = trainer.synthesis(trainer._broadcast(tf.constant(codes)), trainer.synthesis.stored_noise())
    found = features.describe((drawn[: len(wanted)] + 1) * 127.5, transforms).numpy()
    distance = np.linalg.norm(found - wanted, axis=1).mean()
    assert distance > 0.1 and float(total - loss) == pytest.approx(0.5 * distance, rel=1e-3)


@pytest.fixture(scope="module")
def start(mixed, teacher, tmp_path_factory):
    """A network to start from, and its encoder."""
    out = tmp_path_factory.mktemp("start") / "start.npz"
    make_trainer(mixed, teacher).save(out)
    return stylegan.load_network(out), load_encoder(encoder_path(out))


def test_a_longer_code_starts_by_drawing_the_same(mixed, teacher, start):
    """As many components as mixtures predict the old codes exactly."""
    network, encoder = start
    trainer = make_trainer(mixed, teacher, w_dim=19, start=start)
    codes = encoder.encode(to_signed(mixed.pictures[:38:2]), mixed.shapes[:38:2])
    ours = trainer._draw(np.arange(0, 38, 2))
    wanted = network.synthesis(codes)
    np.testing.assert_allclose(ours, wanted, atol=0.1 * np.abs(wanted).max())  # the files are in float16
    assert np.abs(ours - wanted).mean() < 0.02 * wanted.std()


def test_a_network_that_cannot_be_started_from_is_refused(mixed, teacher, start):
    network, _ = start
    with pytest.raises(ParameterError, match=r"must have channels \(8, 8, 8, 4\), got \(8, 8, 8, 8\)"):
        mixtures.MixtureTrainer(mixed, teacher, SMALL, (8, 8, 8, 4), 6, start)
    with pytest.raises(ParameterError, match="trained on mixed faces"):
        make_trainer(mixed, teacher, start=(network, load_encoder(encoder_path(stylegan.BUNDLED))))


def test_the_command_trains_a_network_for_others(people, orl, tmp_path):
    """Train from a folder of photos of different people, then anonymize other people."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(people.images):
        utils.save_atomic(folder / f"{i:02}.png", lambda file, image=image: file.write(_png(image)))
    out = tmp_path / "mine.npz"
    command = [
        "train", str(folder), "--people", "photos", "--mixtures", "--out", str(out), "--resolution", "32", "--channels",
        "8", "8", "8", "8", "--w-dim", "6", "--mixtures-faces", "24", "--mixtures-images", "8", "--mixtures-batch", "4",
        "--mixtures-people-apart", "2", "--mixtures-sharpen", "4",
    ]  # fmt: skip
    assert main(command) == 0
    assert isinstance(load_encoder(encoder_path(out)), AppearanceEncoder)
    others = tinted(orl.select([200, 210, 220]), seed=1)
    model = anonymizer.load("stylegan", others, network=out)
    assert model.codes.shape == (3, 8, 6)
    surrogate = model.surrogate([0, 1, 2])
    assert surrogate.shape == (32, 26, 3)
    mean, average, reach = (
        model.codes.mean(axis=0)[0],
        model.network.average,
        model.network.description["reach"],
    )
    distance = np.linalg.norm(mean - average)
    near = average + min(1, reach / distance) * (mean - average)
    np.testing.assert_allclose(model.mixture([0, 1, 2]).code, np.tile(near, (8, 1)), rtol=1e-4, atol=1e-5)


def test_mixed_faces_cannot_be_refined_with_codes_of_photos(tmp_path, capsys):
    assert main(["train", str(tmp_path), "--mixtures", "--refine"]) != 0
    assert "--refine" in capsys.readouterr().err


def _png(image):
    import cv2

    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def test_people_apart_are_people_of_the_folder(people):
    apart = mixtures.people_apart(people, 4, 0)
    assert len(set(apart)) == 4 and set(apart) <= set(people.people)
    assert mixtures.people_apart(people, 0, 0).size == 0


# The bundled network


def test_the_bundled_network_follows_the_photos(orl, people):
    assert stylegan.bundled_for(orl.select([0, 1])) == stylegan.BUNDLED
    assert stylegan.bundled_for(people) == stylegan.COLOUR


PHOTOS = Path(__file__).parents[2] / "shared" / "reference" / "photos" / "celeba"


def test_the_bundled_weights_hold_nobodys_face():
    """Random people are no nearer to a person in the photos than that person's nearest stranger usually is."""
    if not PHOTOS.is_dir():
        pytest.skip("needs the CelebA photos, which may not be distributed")
    photos = datasets.load_faces(PHOTOS, people="photos")
    found = detection.detect(photos).found
    known = embedding.embed(photos.select(found), "dlib")
    among = np.linalg.norm(known[:, None] - known, axis=2) + 9 * np.eye(len(known))
    network = stylegan.load_network(stylegan.COLOUR)
    drawn = list(to_uint8(network.synthesis(network.random_codes(20, random_state=0))))
    nearest = np.linalg.norm(embedding.embed(drawn, "dlib")[:, None] - known, axis=2).min(axis=1)
    assert nearest.mean() > among.min(axis=1).mean()
    assert nearest.min() > np.quantile(among.min(axis=1), 0.05)
