"""Surrogates by mixing W+ codes: the arithmetic by hand, on a small random network."""

import keras
import numpy as np
import pytest
from PIL import Image

import anonymizer
import stylegan
import utils
from anonymizer import styleGan as mixing  # noqa: N813
from datasets import Faces
from stylegan import code_folder
from stylegan.__main__ import main
from stylegan.architecture import Architecture, Mapping, Synthesis
from stylegan.mixing import mixing_pictures, style_layers
from stylegan.network import StyleNetwork

LAYERS, W = 6, 3


@pytest.fixture(scope="module")
def network_path(tmp_path_factory):
    """A network of 16 pixels whose average is 2 everywhere."""
    keras.utils.set_random_seed(0)
    architecture = Architecture(16, (4, 4, 4), z_dim=5, w_dim=W, mapping_widths=(W, W))
    network = StyleNetwork(Mapping(architecture), Synthesis(architecture), np.full(W, 2, np.float32))
    path = tmp_path_factory.mktemp("network") / "small.npz"
    network.save(path)
    return path


@pytest.fixture(scope="module")
def few(orl):
    """Photos of six people, one each."""
    return orl.select([0, 10, 20, 30, 40, 50])


def codes_of(*values):
    return np.stack([np.full((LAYERS, W), value, np.float32) for value in values])


CODES = codes_of(2, 3, 4, 5, 6, 10)


def make(few, network_path, codes=CODES, **options):
    return anonymizer.load("stylegan", few, network=network_path, codes=codes, **options)


def draw_the_code(self, code):
    """Stands for the network: a picture that is 10 times the code."""
    return np.full((4, 4, 3), np.clip(np.rint(10 * code.mean()), 0, 255), np.uint8)


@pytest.fixture
def plain(monkeypatch):
    """Pictures that show their codes, and a face on every picture at a distance that a test chooses."""
    monkeypatch.setattr(mixing.StyleMixing, "draw", draw_the_code)

    def set_distance(function):
        monkeypatch.setattr(
            mixing.StyleMixing,
            "distances",
            lambda self, image, members: function(image[0, 0, 0] / 10, members),
        )

    return set_distance


def test_mean_of_codes(few, network_path):
    model = make(few, network_path)
    mixture = model.mixture([1, 2, 3])
    assert np.allclose(mixture.code, 4)
    assert mixture.strength == 1 and mixture.trace == []
    expected = stylegan.to_uint8(stylegan.load_network(network_path).synthesis(codes_of(4)))[0]
    assert np.array_equal(mixture.image, expected)
    assert np.array_equal(model.surrogate([3, 1, 2]), expected)  # the order does not matter
    assert np.allclose(model.mixture([1, 2], weights=[3, 1]).code, 3.25)


def test_models_share_a_network_until_its_file_changes(few, network_path, tmp_path):
    path = tmp_path / "network.npz"
    network = stylegan.load_network(network_path)
    network.save(path)
    model = make(few, path)
    assert make(few, path, mix="random").network is model.network
    network.average += 1
    network.save(path)
    changed = make(few, path)
    assert np.allclose(changed.network.average, model.network.average + 1)
    assert changed.fingerprint != model.fingerprint


def test_strength_shrinks_towards_the_average(few, network_path):
    assert np.allclose(make(few, network_path, strength=0.5).mixture([2]).code, 3)
    assert np.allclose(make(few, network_path, strength=0).mixture([5]).code, 2)


def test_frame_is_cut_out(few, network_path, tmp_path):
    network = stylegan.load_network(network_path)
    network.description["frame"] = [1, 2, 10, 8]
    network.save(tmp_path / "framed.npz")
    whole, cut = (make(few, path).surrogate([0, 1]) for path in (network_path, tmp_path / "framed.npz"))
    assert np.array_equal(cut, whole[1:11, 2:10])


def test_following_a_photo_takes_its_fine_layers(few, network_path, plain):
    model = make(few, network_path)
    assert model.photo_layers == [4, 5]
    seen = []
    model.draw = lambda code: seen.append(code) or np.zeros((4, 4, 3), np.uint8)
    model.surrogate([0, 2], like=5)
    assert np.allclose(seen[-1][:4], 3) and np.allclose(seen[-1][4:], 10)
    with pytest.raises(ValueError, match="photo_layers"):
        make(few, network_path, photo_layers=[6])


def test_adjusted_stops_when_the_cluster_meets_its_target(few, network_path, plain):
    plain(lambda value, members: np.full(len(members), 1 - 0.1 * value))  # nearer, the larger the code
    model = make(few, network_path, mix="adjusted", threshold=0.61)
    mixture = model.mixture(
        [3, 4]
    )  # mean 5.5, average 2: distance 0.45, then 0.52, 0.58 and, at 0.8 ** 3, 0.62
    assert mixture.reason == mixing._TARGET_MET
    assert [row["re_identification"] for row in mixture.trace] == [1, 1, 1, 0]
    assert mixture.strength == pytest.approx(0.8**3)
    assert np.allclose(mixture.code, 2 + 3.5 * 0.8**3)
    far = model.mixture([0, 1])  # a distance of 0.75 from the start
    assert far.strength == 1 and len(far.trace) == 1


def test_adjusted_is_bounded_and_keeps_the_best(few, network_path, plain):
    def distance(value, members):  # only between 2.9 and 3.2 is one of three members safe, nowhere two
        return np.where((np.arange(len(members)) == 0) & (2.9 < value < 3.2), 1.0, 0.1)

    plain(distance)
    mixture = make(few, network_path, mix="adjusted").mixture([3, 4, 5])  # mean 7
    assert mixture.reason == mixing._ROUNDS_SPENT
    assert len(mixture.trace) == mixing._MAX_ROUNDS + 1
    assert mixture.strength == pytest.approx(0.8**7)  # 2 + 5 * 0.21 = 3.0, the only such round
    assert min(row["re_identification"] for row in mixture.trace) == pytest.approx(2 / 3)


def test_a_picture_without_a_face_never_counts_as_success(few, network_path, plain):
    plain(lambda value, members: None if value < 5 else np.full(len(members), 0.1))
    mixture = make(few, network_path, mix="adjusted").mixture([3, 4])
    assert mixture.reason == mixing._ROUNDS_SPENT
    assert mixture.strength == 1 and mixture.trace[0]["found"]
    assert not mixture.trace[-1]["found"] and np.isnan(mixture.trace[-1]["information_loss"])


def test_random_weights(few, network_path, plain):
    plain(lambda value, members: np.full(len(members), 1.0))
    model = make(few, network_path, mix="random", random_state=1)
    mixture = model.mixture([1, 3])
    assert 1 <= mixture.strength <= 1.67
    first, third = mixing._random_weights(model, np.array([1, 3]), 0)
    assert np.allclose(mixture.code, 2 + 1.67 * (first * (3 - 2) + third * (5 - 2)) / 2, atol=1e-5)
    again = make(few, network_path, mix="random", random_state=1)
    assert np.array_equal(again.mixture([3, 1]).code, mixture.code)
    other = make(few, network_path, mix="random", random_state=2)
    assert not np.array_equal(other.mixture([3, 1]).code, mixture.code)


def test_random_weights_are_drawn_anew_and_the_best_is_kept(few, network_path, plain):
    plain(lambda value, members: np.full(len(members), 0.1 + 0.001 * value))
    mixture = make(few, network_path, mix="random").mixture([1, 3])
    assert mixture.reason == mixing._ROUNDS_SPENT and len(mixture.trace) == mixing._MAX_DRAWS
    kept = min(mixture.trace, key=lambda row: row["information_loss"])
    assert mixture.strength == kept["strength"]


def test_published_random_weights_ignore_the_average(few, network_path, plain):
    plain(lambda value, members: np.full(len(members), 1.0))
    model = make(few, network_path, mix="random", as_published=True)
    weights = mixing._random_weights(model, np.array([1, 3]), 0)
    assert np.allclose(model.mixture([1, 3]).code, 1.67 * (weights * [3, 5]).sum() / 2, atol=1e-5)


def test_published_adjustment_decides_for_the_whole_data_set(few, network_path, plain):
    """Members at codes of 10 are re-identified while the code is above 5; the others never are."""
    plain(lambda value, members: np.where((members == 5) & (value > 5), 0.1, 1.0))
    model = make(few, network_path, mix="adjusted", as_published=True)
    alone = make(few, network_path, mix="adjusted", as_published=True)
    shared = model.surrogates([[0, 1, 2], [3, 4, 5]])
    # 1 of 6 is below 1/3 from the start, though 1 of 3 people of the second cluster is re-identified
    assert shared[1][0, 0, 0] == 70
    assert alone.mixture([4, 5]).strength == 1  # a rate of 1/2 is 1/k
    plain(lambda value, members: np.where(value > 5, 0.1, 1.0) * np.ones(len(members)))
    model = make(few, network_path, mix="adjusted", as_published=True)
    images = model.surrogates([[0, 1, 2], [3, 4, 5]])
    # round 1: 0.8 * mean of 0.8 times each code = 0.64 * 7 = 4.5, which is not above 5
    assert [image[0, 0, 0] for image in images] == [30, 45]
    assert model.mixture([3, 4, 5]).reason == mixing._TARGET_MET


def test_published_adjustment_is_cut_off(few, network_path, plain):
    plain(
        lambda value, members: np.zeros(len(members))
    )  # everybody looks like the picture, whatever it shows
    model = make(few, network_path, mix="adjusted", as_published=True)
    model.surrogates([[0, 1], [2, 3]])
    mixture = model.mixture([2, 3])
    assert "was stopped" in mixture.reason and len(mixture.trace) == mixing._MAX_ROUNDS + 1
    assert mixture.image.max() < 4


def test_fingerprint_follows_the_options(few, network_path):
    options = [{}, {"mix": "random"}, {"mix": "adjusted"}, {"strength": 0.5}, {"codes": CODES + 1}]
    options += [{"mix": "random", "random_state": 1}, {"mix": "random", "as_published": True}]
    prints = [make(few, network_path, **chosen).fingerprint for chosen in options]
    assert len(set(prints)) == len(prints)
    assert make(few, network_path).fingerprint == prints[0]


def test_codes_from_a_folder(few, network_path, tmp_path):
    for path, code in zip(code_folder._code_paths(few.names, tmp_path), CODES, strict=True):
        code_folder._save_code(path, code)
    model = make(few, network_path, codes=tmp_path)
    assert np.array_equal(model.codes, CODES)


def test_kept_codes_serve_known_photos_and_the_encoder_the_others(orl):
    """The bundled files: known pixels have their kept codes, whatever their names; all other photos are encoded."""
    some = orl.select([0, 10])
    kept = utils.load_arrays(mixing._beside(stylegan.BUNDLED, "codes"))
    rows = [list(kept["names"]).index(name) for name in some.names]
    known = anonymizer.load("stylegan", some)
    assert np.array_equal(known.codes, kept["codes"][rows].astype(np.float32))
    renamed = Faces(some.images, ["a", "b"], ["1.png", "2.png"], source="a folder")
    assert np.array_equal(anonymizer.load("stylegan", renamed).codes, known.codes)
    swapped = Faces(some.images[::-1], some.identities, some.names, source="orl")
    assert np.array_equal(anonymizer.load("stylegan", swapped).codes, known.codes[::-1])
    changed = some.images.copy()
    changed[0, 0, 0] ^= 1
    encoded = anonymizer.load("stylegan", Faces(changed, some.identities, some.names, source="orl"))
    assert not np.array_equal(encoded.codes[0], known.codes[0])
    assert np.array_equal(encoded.codes[1], known.codes[1])
    both = [np.linalg.norm(a.reconstruct(0).astype(float) - orl.images[0]) for a in (known, encoded)]
    assert both[0] < both[1]  # codes fitted to the photo are nearer than an encoder's


def test_damaged_kept_codes_are_refused(few, network_path, tmp_path):
    for name in ("small.npz", "small-encoder.npz", "small-codes.npz"):
        (tmp_path / name).write_bytes(network_path.read_bytes())
    with pytest.raises(ValueError, match="small-codes"):
        anonymizer.load("stylegan", few, network=tmp_path / "small.npz")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mix": "median"}, "unknown mix"),
        ({"strength": -1}, "strength"),
        ({"threshold": 0}, "threshold"),
        ({"codes": CODES[:3]}, "codes must have the shape"),
        ({"codes": CODES * np.nan}, "codes must be"),
    ],
)
def test_bad_options(few, network_path, options, message):
    with pytest.raises(ValueError, match=message):
        make(few, network_path, **options)


def test_without_codes_or_encoder(few, network_path):
    with pytest.raises(FileNotFoundError, match=r"python -m stylegan project"):
        anonymizer.load("stylegan", few.select([0]), network=network_path)
    with pytest.raises(FileNotFoundError):
        make(few, "nowhere.npz")


def test_variants_are_options_by_name(few, network_path):
    ours = {name: known[1] for name, known in anonymizer.VARIANTS.items() if known[0] == "stylegan"}
    assert len(ours) == 4
    for name, options in ours.items():
        model = anonymizer.load(name, few, network=network_path, codes=CODES)
        assert anonymizer.kind(name) is mixing.StyleMixing
        assert {key: getattr(model, key) for key in options} == options
    with pytest.raises(ValueError, match="unknown anonymizer"):
        anonymizer.load("stylegan_best", few)


def test_no_surrogate_changes_the_codes(few, network_path):
    given = CODES.copy()
    model = make(few, network_path, codes=given)
    for like in (None, 1):
        model.surrogate([0, 1, 2], like=like)
    assert np.array_equal(given, CODES) and np.array_equal(model.codes, CODES)


# Random people and style mixing


def test_generate_writes_pictures_by_seed(network_path, tmp_path, capsys):
    for folder in ("a", "b"):
        main(
            [
                "generate",
                str(tmp_path / folder),
                "--network",
                str(network_path),
                "--number",
                "2",
                "--noise",
                "random",
            ]
        )
    first, again = (sorted((tmp_path / folder).iterdir()) for folder in ("a", "b"))
    assert [path.name for path in first] == ["seed0_0000.png", "seed0_0001.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert Image.open(first[0]).size == (16, 16)
    assert main(["generate", str(tmp_path / "c"), "--network", str(network_path), "--number", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err
    assert main(["generate", str(tmp_path / "c"), "--network", "nowhere.npz"]) == 2


def test_mixing_table_has_its_sources_layers(network_path):
    network = stylegan.load_network(network_path)
    sources, destinations = codes_of(3, 4), codes_of(5, 6, 7)
    layers = style_layers(network, "coarse")
    assert layers == [0, 1, 2, 3] and style_layers(network, "middle") == [4, 5]
    table = mixing_pictures(network, sources, destinations, layers)
    assert table.shape == (3, 2, 16, 16, 3)
    codes = [np.concatenate([s[:4], d[4:]]) for d in destinations for s in sources]
    expected = stylegan.to_uint8(network.synthesis(np.stack(codes)))  # drawn together, as the table is
    assert np.array_equal(table.reshape(expected.shape), expected)
    assert len(np.unique(expected.reshape(6, -1), axis=0)) == 6
    for style, message in (("fine", "no fine layers"), ("blue", "unknown style")):
        with pytest.raises(ValueError, match=message):
            style_layers(network, style)
