"""Surrogates and filters: what they return, what they refuse, and what they do to faces."""

from functools import cached_property

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.decomposition import PCA

import anonymizer
import datasets
import detection
import embedding
import frame
from anonymizer import aam
from anonymizer.pixel import LinearModel, PixelMean
from datasets import Faces

SURROGATES = ["pixel", "eigen", "aam"]
FILTERS = ["blur", "pixelate", "mask"]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANONFACES_QUIET", "1")
        yield


@pytest.fixture(scope="module")
def faces(orl):
    """One photo of each of 40 people."""
    return orl.select(slice(0, 400, 10))


@pytest.fixture(scope="module")
def family(orl):
    """Three photos of each of 4 people, and one of a fifth."""
    return orl.select([0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32, 40])


@pytest.fixture(scope="module")
def models(faces):
    return {name: anonymizer.load(name, faces) for name in anonymizer.ANONYMIZERS}


@pytest.fixture(scope="module")
def family_models(family):
    return {name: anonymizer.load(name, family) for name in anonymizer.ANONYMIZERS}


@pytest.fixture(scope="module")
def descriptors(faces):
    return embedding.embed(faces)


def build(images, identities=None):
    names = [f"p{i}" for i in range(len(images))]
    return Faces(images, identities or names, names)


def with_landmarks(cls, landmarks):
    """An anonymizer that is told where the landmarks are, (n, 68, 2)."""
    return type(cls.__name__, (cls,), {"landmarks": landmarks})


def noise_image(seed=0, shape=(112, 92, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# What every anonymizer has in common


def test_registry_holds_classes_under_their_own_names():
    assert {"pixel", "eigen", "aam", "blur", "pixelate", "mask", "none"} <= set(anonymizer.ANONYMIZERS)
    for name, cls in anonymizer.ANONYMIZERS.items():
        assert cls.name == name
        assert issubclass(cls, anonymizer.Surrogates if cls.k_anonymous else anonymizer.PhotoFilter)


def test_each_kind_offers_only_its_own_verb(models):
    for name, model in models.items():
        assert hasattr(model, "surrogate") == (name in [*SURROGATES, "cnn", "stylegan"])
        assert hasattr(model, "apply") == (name in [*FILTERS, "none"])


def test_load_names_what_there_is(faces):
    with pytest.raises(ValueError, match="'gan'.*'pixel'.*'aam'"):
        anonymizer.load("gan", faces)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pixel", {"max_training": 0}),
        ("pixel", {"max_training": 2.0}),
        ("pixel", {"max_training": True}),
        ("eigen", {"keep": 0}),
        ("eigen", {"keep": 1.01}),
        ("eigen", {"keep": float("nan")}),
        ("eigen", {"keep": True}),
        ("eigen", {"keep": "0.5"}),
        ("aam", {"keep_shape": 0}),
        ("aam", {"keep_texture": -1}),
        ("aam", {"keep_combined": 2}),
        ("blur", {"strength": 0}),
        ("blur", {"strength": -0.1}),
        ("blur", {"strength": float("nan")}),
        ("blur", {"strength": True}),
        ("blur", {"strength": "0.1"}),
        ("pixelate", {"blocks": 0}),
        ("pixelate", {"blocks": 2.5}),
        ("pixelate", {"blocks": True}),
    ],
)
def test_options_out_of_range_are_refused_by_name(faces, name, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        anonymizer.load(name, faces.select(slice(0, 3)), **options)


def test_unknown_options_are_refused(faces):
    for name in anonymizer.ANONYMIZERS:
        with pytest.raises(TypeError, match="colour"):
            anonymizer.load(name, faces.select(slice(0, 3)), colour="red")


def test_fingerprint_is_stable_and_tells_options_and_faces_apart(faces):
    few, fewer = faces.select(slice(0, 5)), faces.select(slice(0, 4))
    renamed = Faces(few.images, ["x", *few.identities[1:]], few.names)
    made = [
        *(anonymizer.load(name, few) for name in anonymizer.ANONYMIZERS),
        *(anonymizer.load(name, fewer) for name in anonymizer.ANONYMIZERS),
        anonymizer.load("pixel", renamed),
        anonymizer.load("pixel", few, max_training=3),
        anonymizer.load("eigen", few, keep=0.5),
        anonymizer.load("aam", few, keep_shape=0.9),
        anonymizer.load("aam", few, keep_texture=0.9),
        anonymizer.load("aam", few, keep_combined=0.9),
        anonymizer.load("blur", few, strength=0.2),
        anonymizer.load("pixelate", few, blocks=4),
    ]
    assert len({model.fingerprint for model in made}) == len(made)
    again = faces.select(slice(0, 5))
    for model in made[: len(anonymizer.ANONYMIZERS)]:
        assert anonymizer.load(model.name, again).fingerprint == model.fingerprint


def test_photos_are_never_changed(family, family_models):
    before = family.images.copy()
    writable = build(family.images.copy(), list(family.identities))
    for name, cls in anonymizer.ANONYMIZERS.items():
        if not cls.fits(writable):
            continue
        model = anonymizer.load(name, writable)
        if model.k_anonymous:
            image = model.surrogate([0, 3])
            model.reconstruct(0)
        else:
            image = model.apply(0)
        image[...] = 0  # nor is what is returned a view of them
        assert np.array_equal(writable.images, before), name


# Surrogates: the contract


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogate_is_a_photo_of_the_same_bytes_in_any_order(models, faces, name):
    members = [0, 7, 3, 21, 8]
    image = models[name].surrogate(members)
    assert image.dtype == np.uint8 and image.shape == (112, 92, 3) and image.flags.c_contiguous
    random = np.random.default_rng(0)
    for _ in range(3):
        shuffled = random.permutation(members)
        assert models[name].surrogate(shuffled).tobytes() == image.tobytes()
    assert models[name].surrogate(tuple(members)).tobytes() == image.tobytes()
    again = anonymizer.load(name, faces)
    assert again.surrogate(members).tobytes() == image.tobytes()


@pytest.mark.parametrize("name", SURROGATES)
def test_weights_follow_their_members_and_their_scale_does_not_count(models, name):
    members, weights = np.array([5, 1, 30]), np.array([1.0, 2.0, 5.0])
    image = models[name].surrogate(members, weights)
    for scale in (1e-300, 0.1, 3.0, 1e300, 3e307):
        assert models[name].surrogate(members, weights * scale).tobytes() == image.tobytes()
    assert models[name].surrogate(members[::-1], weights[::-1]).tobytes() == image.tobytes()
    assert models[name].surrogate(members, weights[::-1]).tobytes() != image.tobytes()
    equal = models[name].surrogate(members)
    assert models[name].surrogate(members, [4, 4, 4]).tobytes() == equal.tobytes()
    assert equal.tobytes() != image.tobytes()


@pytest.mark.parametrize("name", SURROGATES)
def test_huge_weights_do_not_overflow(models, name):
    image = models[name].surrogate([1, 2], [1e308, 1e308])
    assert image.tobytes() == models[name].surrogate([1, 2]).tobytes()


@pytest.mark.parametrize("name", SURROGATES)
def test_by_default_people_count_the_same_and_not_photos(family_models, name):
    model = family_models[name]
    by_person = model.surrogate([0, 1, 3])  # two photos of one person, one of another
    assert by_person.tobytes() == model.surrogate([0, 1, 3], [1, 1, 2]).tobytes()
    assert by_person.tobytes() != model.surrogate([0, 1, 3], [1, 1, 1]).tobytes()


@pytest.mark.parametrize("name", SURROGATES)
def test_all_weight_on_one_member_gives_its_reconstruction(models, name):
    alone = models[name].reconstruct(8).astype(int)
    given_all = models[name].surrogate([3, 8, 20], [0, 1, 0]).astype(int)
    # a member without weight is still looked at when k-Same-M brings back texture, with strength 0
    assert np.abs(given_all - alone).max() <= 1


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize(
    ("members", "error"),
    [
        ([], ValueError),
        ([0, 0], ValueError),
        ([40], ValueError),
        ([0, -1], ValueError),
        ([True], TypeError),
        (np.array([True, False]), TypeError),
        ([0.0, 1.0], TypeError),
        (np.array([0.0, 1.0]), TypeError),
        (["0"], TypeError),
        ("01", TypeError),
        ([None], TypeError),
        (3, TypeError),
        (None, TypeError),
    ],
)
def test_members_that_are_no_rows_are_refused(models, name, members, error):
    with pytest.raises(error):
        models[name].surrogate(members)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize(
    "weights",
    [[1], [1, 1, 1], [[1, 1]], 1, [], [1, -1], [1, np.nan], [1, np.inf], [0, 0], ["a", "b"]],
)
def test_weights_that_are_none_are_refused(models, name, weights):
    with pytest.raises(ValueError):
        models[name].surrogate([0, 1], weights)


@pytest.mark.parametrize("like", [-1, 40, 2.0, True, "0"])
def test_like_must_be_a_row(models, like):
    with pytest.raises((TypeError, ValueError)):
        models["aam"].surrogate([0, 1], like=like)


@pytest.mark.parametrize("name", ["pixel", "eigen"])
def test_means_of_textures_cannot_follow_a_photo(family_models, name):
    with pytest.raises(ValueError, match=f"'{name}' cannot follow"):
        family_models[name].surrogate([0, 3], like=0)


class Recorder(anonymizer.Surrogates):
    """Keeps what it is asked to mix."""

    name = "recorder"

    def _mix(self, members, weights):
        self.asked = (members.tolist(), weights.tolist())
        return np.zeros((2, 2, 3), np.uint8)


def test_members_are_mixed_in_one_order_with_their_weights(faces):
    """Sums depend on the order of their terms, if only in the last bit."""
    model = Recorder(faces)
    model.surrogate([9, 2, 30, 4], [1, 2, 1, 4])
    assert model.asked == ([2, 4, 9, 30], [0.25, 0.5, 0.125, 0.125])


# k-Same and k-Same-Eigen


def test_pixel_mean_of_faces_that_lie_alike_is_the_mean_of_the_photos(models):
    shape = models["pixel"].frame.shape  # upright, in the frame: nothing needs to be moved
    photos = np.stack([noise_image(seed) for seed in range(4)])
    model = with_landmarks(PixelMean, np.stack([shape] * 4))(build(photos))
    assert (model.frame.height, model.frame.width) == (112, 92)
    inner = np.s_[12:-12, 12:-12]  # at the very border a photo may be taken to show nothing
    equal = photos.astype(float).mean(axis=0)
    assert np.abs(model.surrogate(range(4)) - equal)[inner].max() <= 0.51
    weighted = (3 * photos[0].astype(float) + photos[2]) / 4
    assert np.abs(model.surrogate([0, 2], [3, 1]) - weighted)[inner].max() <= 0.51


def test_pixel_mean_of_flat_photos_worked_out_by_hand(models):
    shape = models["pixel"].frame.shape
    photos = np.stack([np.full((112, 92, 3), level, np.uint8) for level in (10, 20, 60)])
    model = with_landmarks(PixelMean, np.stack([shape] * 3))(build(photos))
    assert np.all(model.surrogate([0, 1, 2]) == 30)
    assert np.all(model.surrogate([0, 1, 2], [1, 1, 3]) == 42)


def test_pixel_mean_is_the_mean_of_its_textures(models):
    model = models["pixel"]
    members, weights = [2, 9, 14], np.array([0.2, 0.5, 0.3])
    mean = np.tensordot(weights, np.stack([model.texture(i) for i in members]).astype(float), 1)
    assert np.abs(model.surrogate(members, weights) - mean).max() <= 0.501


def test_eigen_mean_with_all_components_is_the_pixel_mean(faces, models):
    model = anonymizer.load("eigen", faces, keep=1)
    for members in ([0, 1], [3, 8, 30, 39], [17]):
        difference = model.surrogate(members).astype(int) - models["pixel"].surrogate(members)
        assert np.abs(difference).max() <= 1


def test_noise_hides_one_member_behind_exp_epsilon(faces):
    """The L1 distance of two means that differ in one member is at most the scale of the noise times epsilon."""
    model = anonymizer.load("eigen", faces, epsilon=2.0, random_state=3)
    members, weights = np.arange(4), np.full(4, 1 / 4)
    random = np.random.default_rng(0)
    first = random.normal(size=(4, len(model.model.variances))) * 1000
    second = first.copy()
    second[1] = -first[1]
    noisy = [model._noisy_mean(rows, members, weights) for rows in (first, second)]
    radius = np.sqrt(model.model.variances).sum()
    scale = 2 * radius / 4 / 2.0
    gap = np.abs(noisy[0] - noisy[1]).sum()  # the noise is the same and cancels
    assert gap == pytest.approx(scale * 2.0)  # both photos lie on the border, opposite each other
    zero = np.zeros_like(first)
    draws = np.concatenate([model._noisy_mean(zero, np.arange(4) + i, weights) for i in range(5)])
    assert np.abs(draws).mean() == pytest.approx(scale, rel=0.5)  # Laplace: the mean size is the scale
    image = model.surrogate([0, 1, 2])
    np.testing.assert_array_equal(image, model.surrogate([2, 1, 0]))
    other = anonymizer.load("eigen", faces, epsilon=2.0, random_state=4)
    assert (image != other.surrogate([0, 1, 2])).any() and model.fingerprint != other.fingerprint
    with pytest.raises(ValueError, match="epsilon"):
        anonymizer.load("eigen", faces, epsilon=0)


def test_eigen_mean_with_one_component_is_not_the_pixel_mean(faces, models):
    model = anonymizer.load("eigen", faces, keep=0.01)
    assert len(model.model.basis) == 1
    assert np.abs(model.surrogate([0]).astype(int) - models["pixel"].surrogate([0])).mean() > 5


def test_linear_model_has_the_principal_components_of_sklearn():
    random = np.random.default_rng(0)
    rows = random.normal(size=(12, 30)) * np.linspace(3, 0.1, 30)
    model, known = LinearModel.fit(rows, 1.0), PCA().fit(rows)
    assert len(model.basis) == 11  # 12 rows span 11 directions about their mean
    np.testing.assert_allclose(model.mean, rows.mean(axis=0))
    np.testing.assert_allclose(model.variances, known.explained_variance_[:11])
    signs = np.sign((model.basis * known.components_[:11]).sum(axis=1))
    np.testing.assert_allclose(model.basis * signs[:, None], known.components_[:11], atol=1e-8)
    np.testing.assert_allclose(model.decode(model.encode(rows)), rows, atol=1e-8)
    np.testing.assert_allclose(model.basis @ model.basis.T, np.eye(11), atol=1e-8)


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9, 0.999])
def test_linear_model_keeps_the_fewest_components_that_suffice(keep):
    rows = np.random.default_rng(1).normal(size=(15, 40)) * np.linspace(4, 0.2, 40)
    share = np.cumsum(PCA().fit(rows).explained_variance_ratio_)
    kept = len(LinearModel.fit(rows, keep).basis)
    assert share[kept - 1] >= keep
    assert kept == 1 or share[kept - 2] < keep


@pytest.mark.parametrize("rows", [np.ones((5, 8)), np.arange(8.0)[None]])
def test_linear_model_of_equal_rows_is_their_mean(rows):
    model = LinearModel.fit(rows, 1.0)
    assert model.basis.shape == (0, 8) and model.variances.shape == (0,)
    assert np.array_equal(model.decode(model.encode(rows)), rows)


def test_linear_model_leaves_its_rows_alone():
    rows = np.random.default_rng(2).normal(size=(6, 9)).astype(np.float32)
    before = rows.copy()
    LinearModel.fit(rows, 0.9).encode(rows)
    assert np.array_equal(rows, before)


# The frame


angles = st.floats(-3, 3)
scales = st.floats(0.3, 4)
shifts = st.floats(-200, 200)


@settings(deadline=None, max_examples=30)
@given(moves=st.lists(st.tuples(angles, scales, shifts, shifts), min_size=4, max_size=4))
def test_mean_shape_does_not_depend_on_how_faces_lie(faces, moves):
    shapes = detection.detect(faces).landmarks[:4].astype(float)
    moved = []
    for points, (angle, scale, x, y) in zip(shapes, moves, strict=True):
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        moved.append(points @ turn.T + [x, y])
    mean, other = frame._mean_shape(shapes), frame._mean_shape(np.stack(moved))
    np.testing.assert_allclose(np.linalg.norm(mean), 1)
    np.testing.assert_allclose(mean.mean(axis=0), 0, atol=1e-12)
    turned_back = detection.move_points(other, detection.similarity(other, mean))
    np.testing.assert_allclose(turned_back, mean, atol=1e-6)


def test_mean_shape_of_one_face_is_that_face():
    triangle = np.array([[[0.0, 0.0], [4.0, 0.0], [2.0, 3.0]]])
    centred = triangle[0] - [2, 1]
    np.testing.assert_allclose(frame._mean_shape(triangle), centred / np.sqrt((centred**2).sum()))


def test_frame_puts_the_eyes_level_and_the_face_in_the_middle(faces):
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])  # photos that lie on their side
    landmarks = detection.detect(faces).landmarks @ turn.T
    made = frame.Frame.fit(landmarks, np.array([[500, 400], [300, 200]]))
    left, right = made.shape[36:42].mean(axis=0), made.shape[42:48].mean(axis=0)
    assert right[0] - left[0] == pytest.approx(frame._EYE_DISTANCE * made.width)
    assert left[1] == pytest.approx(right[1]) == pytest.approx(frame.EYE_LINE * (made.height - 1))
    assert (left[0] + right[0]) / 2 == pytest.approx((made.width - 1) / 2)
    assert made.height == round(made.width * frame._ASPECT)


def test_the_frame_suits_the_large_faces_of_photos_of_different_sizes(faces):
    landmarks = np.repeat(detection.detect(faces).landmarks[:1], 10, axis=0)
    landmarks[-3:] *= 3  # three of ten faces are large
    sizes = np.array([[112, 92]] * 7 + [[336, 276]] * 3)
    eyes = detection.eye_centres(landmarks[0])
    width = frame._WIDTH_IN_EYE_DISTANCES * np.linalg.norm(eyes[1] - eyes[0])
    made = frame.Frame.fit(landmarks, sizes)
    assert made.width == round(3 * width)
    assert made.enlargement(landmarks[0]) == pytest.approx(3 * made.enlargement(landmarks[-1]))
    small = frame.Frame.fit(landmarks[:7], sizes[:7])
    assert (small.height, small.width) == (112, 92)


@pytest.mark.parametrize("channels", [1, 3])
def test_paint_in_keeps_what_is_visible(channels):
    random = np.random.default_rng(3)
    texture = random.uniform(0, 255, (60, 50, channels)).astype(np.float32)
    typical = random.uniform(0, 255, (60, 50, channels)).astype(np.float32)
    visible = np.ones((60, 50), dtype=bool)
    visible[40:], visible[:, :5] = False, False
    texture[~visible] = 1e6  # must not leak
    before = texture.copy()
    painted = frame.paint_in(texture, visible, typical)
    assert painted.shape == texture.shape and np.isfinite(painted).all()
    assert np.array_equal(painted[:30, 15:], texture[:30, 15:])
    assert painted.max() < 1000
    assert np.array_equal(texture, before)


def test_paint_in_of_a_photo_that_shows_nothing_is_the_typical_face():
    typical = np.random.default_rng(4).uniform(0, 255, (30, 20, 1)).astype(np.float32)
    painted = frame.paint_in(np.zeros_like(typical), np.zeros((30, 20), dtype=bool), typical)
    np.testing.assert_allclose(painted, typical, atol=1e-4)


def test_paint_in_moves_the_typical_face_to_the_brightness_of_the_photo():
    typical = np.random.default_rng(5).uniform(50, 100, (40, 40, 1)).astype(np.float32)
    visible = np.zeros((40, 40), dtype=bool)
    visible[:, :25] = True
    painted = frame.paint_in(np.where(visible[..., None], typical + 60, 0), visible, typical)
    np.testing.assert_allclose(painted, typical + 60, atol=0.1)


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(5, 41),
    width=st.integers(5, 41),
    level=st.floats(-200, 300, width=32),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_continue_outward_keeps_constants_and_what_is_known(height, width, level, channels, seed):
    random = np.random.default_rng(seed)
    known = random.random((height, width)) < random.uniform(0.02, 0.9)
    known[random.integers(height), random.integers(width)] = True
    weight = known.astype(np.float32)
    flat = np.where(known[..., None], np.float32(level), np.float32(7e3)) * np.ones(channels, np.float32)
    np.testing.assert_allclose(frame.continue_outward(flat, weight), level, rtol=1e-4, atol=1e-3)
    values = random.uniform(0, 255, (height, width, channels)).astype(np.float32)
    continued = frame.continue_outward(values, weight)
    assert np.array_equal(continued[known], values[known])
    assert continued.min() >= values[known].min() - 0.01 and continued.max() <= values[known].max() + 0.01


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(3, 60),
    width=st.integers(3, 60),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_pyramid_collapses_to_its_texture(height, width, channels, seed):
    texture = np.random.default_rng(seed).uniform(0, 255, (height, width, channels)).astype(np.float32)
    bands = aam._pyramid(texture)
    assert bands[0].shape == texture.shape and len(bands) <= aam._ROBUST_BANDS + 1
    np.testing.assert_allclose(aam._collapse(bands), texture, atol=1e-3)


def test_to_photo_rounds_clips_and_repeats_grey():
    image = frame.to_photo(np.array([[[-3.0], [1.4], [1.6], [300.0]]]))
    assert image.dtype == np.uint8
    assert image.tolist() == [[[0] * 3, [1] * 3, [2] * 3, [255] * 3]]


# k-Same-M


def majority_by_definition(values, weights):
    """The value nearest to 0 that more than half of the members reach, with the same sign."""
    for sign in (1, -1):
        reached = [
            v for v in values if sign * v > 0 and weights[sign * values >= sign * v].sum() > 0.5 + 1e-6
        ]
        if reached:  # the strongest of the values that a majority reaches
            return sign * max(sign * v for v in reached)
    return 0.0


@settings(deadline=None, max_examples=200)
@given(
    values=arrays.arrays(np.float64, st.integers(1, 9), elements=st.integers(-4, 4).map(float)),
    data=st.data(),
)
def test_majority_is_what_more_than_half_agree_on(values, data):
    parts = data.draw(st.lists(st.integers(1, 7), min_size=len(values), max_size=len(values)))
    weights = np.array(parts) / sum(parts)
    assert aam._majority(values, weights) == majority_by_definition(values, weights)
    assert aam._majority(-values, weights) == -aam._majority(values, weights)


@settings(deadline=None, max_examples=100)
@given(
    values=arrays.arrays(np.float64, st.integers(2, 9), elements=st.integers(-4, 4).map(float)),
    n_left_out=st.integers(0, 1),
)
def test_majority_of_equal_weights_ignores_those_without_weight(values, n_left_out):
    weights = np.where(np.arange(len(values)) < n_left_out, 0, 1 / (len(values) - n_left_out))
    assert aam._majority(values, weights) == majority_by_definition(values, weights)


def test_majority_worked_out_by_hand():
    thirds = np.full(3, 1 / 3)
    values = np.array([[5.0, 5.0, 5.0, -2.0], [3.0, -3.0, 0.0, -9.0], [1.0, 4.0, 0.0, 1.0]])
    assert aam._majority(values, thirds).tolist() == [3.0, 4.0, 0.0, -2.0]
    assert aam._majority(np.array([[7.0], [2.0]]), np.array([0.5, 0.5])).tolist() == [2.0]
    assert aam._majority(np.array([[7.0]]), np.array([1.0])).tolist() == [7.0]


def test_source_positions_of_equal_shapes_are_the_pixels_themselves(models):
    model = models["aam"]
    for shape in (model.reference, model.shape(3)):
        positions = model.mesh.source_positions(shape, model.mesh.corners(shape), 112, 92)
        columns, rows = np.meshgrid(np.arange(92), np.arange(112))
        np.testing.assert_allclose(positions, np.dstack([columns, rows]), atol=1e-6)


def test_source_positions_follow_a_shift(models):
    model = models["aam"]
    source = model.mesh.corners(model.reference) + [3.0, -2.0]
    positions = model.mesh.source_positions(model.reference, source, 112, 92)
    columns, rows = np.meshgrid(np.arange(92), np.arange(112))
    np.testing.assert_allclose(positions, np.dstack([columns + 3, rows - 2]), atol=1e-6)


def test_texture_drawn_at_its_own_shape_is_itself(models):
    model = models["aam"]
    texture = model.texture(5)
    drawn = model.render(model.reference, texture).astype(float)
    assert np.abs(drawn - texture).mean() < 1  # each pixel is the mean of 3 x 3 readings, so edges soften
    assert np.corrcoef(drawn[..., 0].ravel(), texture.ravel())[0, 1] > 0.99


def test_photo_at_its_own_shape_is_the_photo(models, faces):
    """Warped to the reference and drawn back at its own shape, a photo that fills the frame comes back."""
    model = models["aam"]
    for i in (0, 11, 30):
        back = model.render(model.shape(i), model.texture(i)).astype(float)
        aligned = models["pixel"].texture(i)
        face = model.shape(i).astype(int)
        area = np.s_[face[:, 1].min() : face[:, 1].max(), face[:, 0].min() : face[:, 0].max()]
        assert np.abs(back - aligned)[area].mean() < 5


def test_encode_and_decode_are_inverse_on_the_training_photos(models):
    model = models["aam"]
    shape, texture = model.decode(model.encode(6))
    assert np.abs(shape - model.shape(6)).max() < 1
    assert np.abs(texture - model.texture(6)).mean() < 3


def test_reconstructions_are_recognised(models, descriptors):
    images = [models["aam"].reconstruct(i) for i in range(40)]
    assert detection.detect(images).found.all()
    distances = np.linalg.norm(embedding.embed(images)[:, None] - descriptors, axis=2)  # (40, 40)
    assert distances.diagonal().mean() < 0.25
    assert np.array_equal(distances.argmin(axis=1), np.arange(40))


def groups_of(k, n_groups, seed=0):
    random = np.random.default_rng(seed)
    return [np.sort(random.choice(40, k, replace=False)) for _ in range(n_groups)]


def member_and_stranger_distances(model, groups, descriptors):
    images = [model.surrogate(members) for members in groups]
    assert detection.detect(images).found.all()
    distances = np.linalg.norm(embedding.embed(images)[:, None] - descriptors, axis=2)
    member = np.stack([np.isin(np.arange(40), members) for members in groups])
    return distances[member].mean(), distances[~member].mean()


@pytest.mark.parametrize("k", [2, 5, 10])
def test_surrogates_show_a_face_nearer_to_members_than_to_strangers(models, descriptors, k):
    member, stranger = member_and_stranger_distances(models["aam"], groups_of(k, 8), descriptors)
    assert member < stranger


def test_k_same_m_loses_less_than_pixel_means_of_the_same_small_groups(models, descriptors):
    groups = [members for k in (2, 5) for members in groups_of(k, 8, seed=k)]
    modelled, _ = member_and_stranger_distances(models["aam"], groups, descriptors)
    plain, _ = member_and_stranger_distances(models["pixel"], groups, descriptors)
    assert modelled < plain


def add_bars(image, landmarks):
    """Paint a frame of dark bars around both eyes, as of strong glasses; returns image and mask."""
    mask = np.zeros(image.shape[:2], np.uint8)
    for eye in (landmarks[36:42], landmarks[42:48]):
        (left, top), (right, bottom) = eye.min(axis=0) - [5, 6], eye.max(axis=0) + [5, 6]
        corners = [tuple(int(round(v)) for v in corner) for corner in ((left, top), (right, bottom))]
        cv2.rectangle(mask, *corners, 1, thickness=2)
    return np.where(mask[..., None] > 0, 0, image).astype(np.uint8), mask


@pytest.mark.parametrize("members", [[4, 9], [4, 9, 20, 31]])
def test_no_ghost_of_a_feature_that_one_member_has_alone(faces, members):
    landmarks = detection.detect(faces).landmarks
    wearer = members[0]
    images = faces.images.copy()
    images[wearer], mask = add_bars(images[wearer], landmarks[wearer])
    ghost = {}
    for name in ("pixel", "aam"):
        cls = with_landmarks(anonymizer.ANONYMIZERS[name], landmarks)
        clean = cls(build(faces.images)).surrogate(members).astype(float)
        painted = cls(build(images)).surrogate(members).astype(float)
        change = painted - clean
        ghost[name] = np.abs(change - cv2.GaussianBlur(change, (0, 0), 6)).sum()  # contrast to what is around
    darkening = (faces.images[wearer].astype(float) - images[wearer])[mask > 0].mean()
    assert darkening > 30  # the feature is strong
    assert ghost["aam"] < 0.5 * ghost["pixel"]


# Following a photo


@pytest.fixture(scope="module")
def mixed_sizes(orl):
    """Four large photos, four small ones of other people, and a model of all."""
    images = [orl.images[i] for i in range(0, 80, 10)]
    large = [cv2.resize(image, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC) for image in images[:4]]
    return anonymizer.load("aam", build([*large, *images[4:]]))


def fine_detail(image):
    level = image.astype(np.float32).mean(axis=2)
    return np.abs(level - cv2.GaussianBlur(level, (0, 0), 1.5)).mean()


def test_small_photos_do_not_blur_a_surrogate(mixed_sizes):
    assert mixed_sizes.frame.width > 150
    sharp = fine_detail(mixed_sizes.surrogate([0, 1, 2, 3]))
    assert fine_detail(mixed_sizes.surrogate(range(8))) > 0.85 * sharp


def test_fine_detail_is_never_that_of_one_or_two_people(mixed_sizes):
    some = np.array([0.5, 0.3, 0.2, 0.0], dtype=np.float32)
    share = anonymizer.aam._share_of_detailed
    assert share(some, np.array([True, True, False, True])) is None
    np.testing.assert_allclose(share(some, np.array([True, True, True, False])), some)
    assert share(some[:2], np.array([True, True])) is not None  # nobody is left out


def test_grey_members_do_not_change_the_colour(orl):
    skin = np.array([1.0, 0.8, 0.65])
    images = [(orl.images[i] * skin).astype(np.uint8) for i in range(0, 60, 10)]
    images += [orl.images[i] for i in range(60, 120, 10)]
    model = anonymizer.load("aam", build(images))

    def colour(image):
        centre = image[40:90, 30:62].reshape(-1, 3).mean(axis=0)
        return centre - centre.mean()

    coloured, both = (colour(model.surrogate(rows)) for rows in (range(6), [0, 1, 2, 6, 7, 8]))
    np.testing.assert_allclose(both, coloured, atol=0.15 * np.ptp(coloured))
    assert np.ptp(colour(model.surrogate(range(6, 12)))) < 3


def test_like_follows_the_photo_and_not_the_cluster_alone(family_models):
    model = family_models["aam"]
    members = [0, 1, 2, 3, 4, 5]
    shared = model.surrogate(members)
    following = [model.surrogate(members, like=i) for i in (0, 1, 2)]
    assert all(image.shape == shared.shape and image.dtype == np.uint8 for image in following)
    assert len({image.tobytes() for image in [shared, *following]}) == 4
    assert model.surrogate(members[::-1], like=1).tobytes() == following[1].tobytes()


def test_like_moves_the_shape_as_the_photo_differs_from_its_person(family_models):
    """Photos of one person average out: so do the shapes of the images that follow them."""
    model = family_models["aam"]
    members, followed = [0, 1, 2, 3, 4, 5], [0, 1, 2]
    images = [model.surrogate(members, like=i) for i in followed]
    drawn = detection.detect(images)
    assert drawn.found.all()
    wide = [np.ptp(model.shape(i)[48:60], axis=0) for i in followed]  # size of the mouth on the photos
    seen = [np.ptp(points[48:60], axis=0) for points in drawn.landmarks]
    widest, narrowest = np.argmax([w[0] for w in wide]), np.argmin([w[0] for w in wide])
    assert seen[widest][0] > seen[narrowest][0]


def test_like_moves_the_texture_as_the_photo_differs_from_its_person(family):
    images = family.images.copy()
    images[1] = np.minimum(images[0], 195) + 60  # the first photo again, in brighter light
    model = anonymizer.load("aam", build(images, list(family.identities)))
    dark, bright = (model.surrogate([0, 3], like=i).mean() for i in (0, 1))
    assert 40 < bright - dark < 80


def test_like_brings_no_feature_of_the_person_back(faces):
    """Bars over the eyes, a little elsewhere on each photo of one person: the cluster's face gets none of them."""
    photos, people = [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32], np.repeat(list("abcd"), 3)
    landmarks = detection.detect(faces).landmarks[photos]
    images, masks = faces.images[photos].copy(), []
    for i in range(3):
        images[i], mask = add_bars(images[i], landmarks[i] + [0, 2 * i - 2])
        masks.append(mask)
    cls = with_landmarks(anonymizer.ANONYMIZERS["aam"], landmarks)
    clean, painted = (
        cls(build(pictures, list(people))).surrogate([3, 6, 9], like=1).astype(float)
        for pictures in (faces.images[photos], images)
    )
    change = painted - clean
    contrast = np.abs(change - cv2.GaussianBlur(change, (0, 0), 6)).mean()
    own = images[1].astype(float) - np.mean(images[:3].astype(float), axis=0)
    assert contrast < 0.25 * np.abs(own - cv2.GaussianBlur(own, (0, 0), 6)).mean()


def test_like_learns_the_person_from_photos_set_apart(orl):
    faces = orl.select(slice(0, 40)).split(1, 0)  # four people, one photo each, nine apart
    model = anonymizer.load("aam", faces)
    shared, following = model.surrogate([0, 1, 2]), model.surrogate([0, 1, 2], like=1)
    assert following.shape == shared.shape and not np.array_equal(following, shared)
    everything = orl.select(slice(0, 40))
    row = list(everything.names).index(faces.names[1])
    whole = anonymizer.load("aam", everything)
    expected = np.mean([whole.shape(i) for i in range(10, 20)], axis=0)
    scale = np.linalg.norm(whole.frame.shape - whole.frame.shape.mean(axis=0))
    found, _ = model._usual(1)
    ours = (model.shape(1) - found) / np.linalg.norm(model.frame.shape - model.frame.shape.mean(axis=0))
    theirs = (whole.shape(row) - expected) / scale
    assert np.linalg.norm(ours - theirs) < 0.25 * np.linalg.norm(theirs)  # the frames differ a little


def test_members_and_options_that_do_not_fit_are_told(models, faces):
    with pytest.raises(TypeError, match="list of row numbers"):
        models["aam"].surrogate(3)
    with pytest.raises(ValueError, match="weights must be an array of numbers"):
        models["aam"].surrogate([0, 1], weights="ab")
    with pytest.raises(TypeError, match="has no option 'sharpness'.*keep_shape.*max_training"):
        anonymizer.load("aam", faces, sharpness=1)
    with pytest.raises(TypeError, match="options are: none"):
        anonymizer.load("none", faces, strength=1)


def test_like_needs_several_photos_of_the_person(family_models):
    with pytest.raises(ValueError, match="only photo of its person"):
        family_models["aam"].surrogate([0, 12], like=12)
    assert family_models["aam"].surrogate([0, 12], like=0).shape == (112, 92, 3)


# Faces of all kinds


TINT = np.array([1.0, 0.75, 0.5])


@pytest.mark.parametrize("name", SURROGATES)
def test_colour_photos_give_colour_surrogates(faces, name):
    grey = faces.images[:8]
    model = anonymizer.load(name, build(np.rint(grey * TINT).astype(np.uint8)))
    image = model.surrogate([1, 5, 6]).astype(float)
    means = image.mean(axis=(0, 1))
    np.testing.assert_allclose(means / means[0], TINT, atol=0.02)
    alike = anonymizer.load(name, build(grey)).surrogate([1, 5, 6])
    assert datasets.is_grey(alike) and not datasets.is_grey(image)


def test_grey_and_colour_photos_mix(faces):
    images = faces.images[:6].copy()
    images[2] = np.rint(images[2] * TINT)
    image = anonymizer.load("aam", build(images)).surrogate([2, 3])
    assert image[..., 0].mean() > image[..., 2].mean() + 5


@pytest.mark.parametrize("name", SURROGATES)
def test_larger_photos_give_larger_surrogates(faces, name):
    large = np.stack(
        [cv2.resize(i, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC) for i in faces.images[:4]]
    )
    image = anonymizer.load(name, build(large)).surrogate([0, 2])
    assert image.shape == (336, 276, 3)
    small = anonymizer.load(name, build(faces.images[:4])).surrogate([0, 2]).astype(float)
    reduced = cv2.resize(image, (92, 112), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(reduced - small).mean() < 8  # the same face


def test_photos_of_different_sizes_get_one_frame(faces):
    images = [faces.images[0], cv2.resize(faces.images[1], (140, 171)), faces.images[2][:100, 4:]]
    for name in SURROGATES:
        model = anonymizer.load(name, build(images))
        assert len({model.surrogate([i, 2]).shape for i in (0, 1)}) == 1


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_tiny_sets(faces, name, n):
    model = anonymizer.load(name, faces.select(slice(0, n)))
    image = model.surrogate(range(n))
    assert image.shape == (112, 92, 3) and image.std() > 10
    assert model.surrogate(range(n)).tobytes() == image.tobytes()


@pytest.mark.parametrize("name", SURROGATES)
def test_twins_are_their_own_mean(faces, name):
    model = anonymizer.load(name, build(np.stack([faces.images[3]] * 2)))
    assert np.abs(model.surrogate([0, 1]).astype(int) - model.reconstruct(0)).max() <= 1


@pytest.mark.parametrize("name", anonymizer.ANONYMIZERS)
def test_photos_without_a_face_do_not_stop_the_others(faces, name):
    images = np.stack([*faces.images[:4], noise_image()])
    odd = build(images)
    assert not detection.detect(odd).found[4]
    if not anonymizer.ANONYMIZERS[name].fits(odd):
        pytest.skip(f"{name} draws only the people whom its network was trained on")
    model = anonymizer.load(name, odd)
    image = model.surrogate([0, 4]) if model.k_anonymous else model.apply(4)
    assert image.shape[2] == 3 and image.dtype == np.uint8


@pytest.mark.parametrize("name", SURROGATES)
def test_more_photos_than_the_model_is_fitted_on(faces, name):
    model = anonymizer.load(name, faces, max_training=10)
    assert len(np.unique(model.training_rows)) == 10
    outside = np.setdiff1d(np.arange(40), model.training_rows)[:3]
    image = model.surrogate(outside)
    assert image.shape == (112, 92, 3) and image.std() > 10
    assert np.array_equal(anonymizer.load(name, faces, max_training=10).training_rows, model.training_rows)
    other = anonymizer.load(name, faces, max_training=10, random_state=1)
    assert not np.array_equal(other.training_rows, model.training_rows)
    assert other.fingerprint != model.fingerprint


def test_photos_to_fit_on_are_a_random_part_where_memory_is_short(faces, monkeypatch):
    monkeypatch.setattr(anonymizer.pixel, "_TRAINING_BYTES", 10 * 4 * 112 * 92)
    rows = anonymizer.load("pixel", faces).training_rows
    assert len(rows) == 10
    assert rows.max() >= 20  # not the first ten by name
    assert np.array_equal(rows, np.sort(rows))


# Filters


def outline(model, i, shape):
    """Where photo i's face lies, with a wide margin: bool (h, w)."""
    points = detection.add_forehead(model.landmarks[i])
    area = np.zeros(shape[:2], np.uint8)
    cv2.fillConvexPoly(area, cv2.convexHull(np.rint(points).astype(np.int32)), 1)
    return area > 0


@pytest.mark.parametrize("name", FILTERS)
def test_filters_change_the_face_and_nothing_else(models, faces, name):
    for i in (0, 13, 27):
        image, photo = models[name].apply(i), faces.images[i]
        assert image.shape == photo.shape and image.dtype == np.uint8
        face = outline(models[name], i, photo.shape)
        around = cv2.dilate(face.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        assert np.array_equal(image[~around], photo[~around])
        assert (image[face] != photo[face]).any(axis=1).mean() > 0.5
        if name != "blur":  # only blur has a soft edge
            assert np.array_equal(image[~face], photo[~face])


def test_mask_leaves_nothing_of_the_face(models, faces):
    face = outline(models["mask"], 2, faces.images[2].shape)
    assert np.all(models["mask"].apply(2)[face] == 127)


def test_pixelate_draws_blocks_of_one_colour(models, faces):
    image = models["pixelate"].apply(2)
    side = max(2, round(float(np.ptp(models["pixelate"].landmarks[2][:, 0])) / 8))
    face = outline(models["pixelate"], 2, image.shape)
    inside = [
        image[y : y + side, x : x + side]
        for y in range(0, 112 - side, side)
        for x in range(0, 92 - side, side)
        if face[y : y + side, x : x + side].all()
    ]
    assert len(inside) > 20
    assert all(np.ptp(block.reshape(-1, 3), axis=0).max() == 0 for block in inside)


def test_pixelate_never_passes_the_face_through(faces):
    model = anonymizer.load("pixelate", faces.select([0]), blocks=100_000)
    assert (model.apply(0) != faces.images[0]).any()


def test_blur_leaves_no_fine_detail(models, faces):
    face = cv2.erode(outline(models["blur"], 2, (112, 92)).astype(np.uint8), np.ones((5, 5))) > 0

    def detail(image):
        return np.abs(cv2.Laplacian(image.astype(np.float32), cv2.CV_32F))[face].mean()

    assert detail(models["blur"].apply(2)) < 0.2 * detail(faces.images[2])
    stronger = anonymizer.load("blur", faces, strength=0.3)
    contrast = [image[face].std() for image in (stronger.apply(2), models["blur"].apply(2), faces.images[2])]
    assert contrast == sorted(contrast) and contrast[0] < 0.7 * contrast[2]


@pytest.mark.parametrize("name", FILTERS)
def test_filters_cover_the_whole_photo_where_no_face_is_found(name):
    photos = [noise_image(1, (90, 70, 3))]
    model = anonymizer.load(name, build(photos))
    assert not model.found[0]
    image = model.apply(0)
    assert image.shape == photos[0].shape
    blocks = (image != photos[0]).any(axis=2).reshape(9, 10, 7, 10).mean(axis=(1, 3))  # (9, 7)
    assert blocks.min() > 0.9


def test_filters_keep_each_photos_own_size(faces):
    images = [faces.images[0], cv2.resize(faces.images[1], (140, 171)), noise_image(2, (50, 120, 3))]
    for name in [*FILTERS, "none"]:
        model = anonymizer.load(name, build(images))
        assert [model.apply(i).shape for i in range(3)] == [image.shape for image in images]


def test_none_gives_the_photo(models, faces):
    assert np.array_equal(models["none"].apply(9), faces.images[9])


@pytest.mark.parametrize("name", [*FILTERS, "none"])
@pytest.mark.parametrize(
    ("row", "error"),
    [
        (-1, ValueError),
        (40, ValueError),
        (1.0, TypeError),
        (True, TypeError),
        ("1", TypeError),
        (None, TypeError),
    ],
)
def test_apply_wants_a_row(models, name, row, error):
    with pytest.raises(error):
        models[name].apply(row)


def test_landmarks_are_those_of_the_detector(models, faces):
    assert isinstance(type(models["aam"]).landmarks, cached_property)
    assert np.array_equal(models["aam"].landmarks, detection.detect(faces).landmarks)
