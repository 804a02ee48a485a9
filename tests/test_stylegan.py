"""StyleGAN networks: official pickles and our files, the arithmetic against a slow twin, and all that is refused."""

import collections
import contextlib
import copyreg
import io
import os
import pickle
import pickletools
import struct
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import stylegan
import utils
from storage.pickles import build_dictionary
from stylegan import network as networks
from stylegan.__main__ import main
from stylegan.architecture import Architecture, Mapping, Synthesis, _blur, he_factor
from stylegan.network import StyleNetwork, mix_styles, to_uint8

pytestmark = pytest.mark.usefixtures("eagerly")

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "stylegan"
Z, W = 6, 5
#: Deliberately uneven, so that no width can be taken for another.
CHANNELS = (7, 6, 5, 4, 3, 2)


# ----------------------------------------------------------------------------------------------------------
# Random networks, and pickles of them in the official form
# ----------------------------------------------------------------------------------------------------------


def random_arrays(resolution, seed=0, colours=3):
    """All variables of a small network by name, in the size that trained ones have."""
    random = np.random.default_rng(seed)
    channels = CHANNELS[: resolution.bit_length() - 2]
    a = Architecture(resolution, channels, Z, W, (8, W), colours)
    scales = {"mapping/": 100.0, "synthesis/": 1.0}
    shapes = {"mapping/": a.mapping_shapes(), "synthesis/": a.synthesis_shapes() | a.noise_shapes()}
    arrays = {
        part + name: (scales[part] * random.normal(size=shape)).astype(np.float32)
        for part in shapes
        for name, shape in shapes[part].items()
    }
    return {**arrays, "dlatent_avg": random.normal(size=W).astype(np.float32)}


def stand_in(module, name, base=object):
    """A class that is pickled under an official name."""
    return type(name, (base,), {"__module__": module, "__qualname__": name})


Network = stand_in("dnnlib.tflib.network", "Network")
EasyDict = stand_in("dnnlib.util", "EasyDict", dict)


@contextlib.contextmanager
def official_modules():
    """Let the pickler find the official classes for as long as it writes."""
    names = ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network", "dnnlib.util")
    modules = {name: types.ModuleType(name) for name in names}
    modules["dnnlib.tflib.network"].Network = Network
    modules["dnnlib.util"].EasyDict = EasyDict
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        yield


def pickled_network(name, builder, variables, components=None, source="", version=3, **arguments):
    made = Network()
    made.__dict__.update(
        version=version,
        name=name,
        static_kwargs=arguments,
        components=components or {},
        build_module_src=source,
        build_func_name=builder,
        variables=list(variables.items()),
    )
    return made


def part_of(arrays, part):
    return {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)}


def generator(arrays, lod=0.0, source="", mapping=None, synthesis=None, **arguments):
    """A generator as the official code pickles it."""
    parts = {
        "synthesis": pickled_network(
            "G_synthesis",
            "G_synthesis",
            {"lod": np.float32(lod), **part_of(arrays, "synthesis/")},
            source=source,
            **arguments,
            **(synthesis or {}),
        ),
        "mapping": pickled_network(
            "G_mapping",
            "G_mapping",
            part_of(arrays, "mapping/"),
            source=source,
            **arguments,
            **(mapping or {}),
        ),
    }
    own = {"lod": np.float32(lod), "dlatent_avg": arrays["dlatent_avg"]}
    return pickled_network("Gs", "G_style", own, parts, source, **arguments)


def discriminator():
    return pickled_network("D", "D_basic", {"lod": np.float32(0), "4x4/Dense1/bias": np.zeros(1, np.float32)})


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 did, which had no other text."""

    def save_string(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_string}


def pickled(content, protocol=4):
    file = io.BytesIO()
    with official_modules():
        (Python2Pickler if protocol == 2 else pickle.Pickler)(file, protocol).dump(content)
    return file.getvalue()


def write(path, arrays, protocol=4, **options):
    """An official pickle whose first generator is another one than the moving average."""
    other = {name: array + 1 for name, array in arrays.items()}
    content = (generator(other, **options), discriminator(), generator(arrays, **options))
    path.write_bytes(pickled(content, protocol))
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "network.pkl"


@pytest.fixture(scope="module")
def small():
    """A network of 16 pixels."""
    return StyleNetwork.from_arrays(random_arrays(16), {"dataset": "patterns"})


@pytest.fixture(scope="module")
def codes(small):
    return small.random_codes(3, random_state=0)


# ----------------------------------------------------------------------------------------------------------
# The slow twin: float64, channels first, one loop for each thing that the paper names
# ----------------------------------------------------------------------------------------------------------


def slow_mapping(arrays, z):
    x = z / np.sqrt((z**2).mean(axis=1, keepdims=True) + 1e-8)
    for i in range(2):
        weight, bias = (arrays[f"mapping/Dense{i}/{kind}"].astype(np.float64) for kind in ("weight", "bias"))
        x = x @ (weight * np.sqrt(2 / len(weight)) * 0.01) + bias * 0.01
        x = np.where(x > 0, x, 0.2 * x)
    return x


def slow_convolution(x, kernel):
    """(n, in, h, w) with (3, 3, in, out), zeros around."""
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(
        np.einsum("nihw,io->nohw", padded[:, :, i : i + height, j : j + width], kernel[i, j])
        for i in range(3)
        for j in range(3)
    )


def slow_fused(x, kernel):
    """Each input pixel adds its share of the widened kernel to 4 x 4 output pixels."""
    wide = np.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    wide = wide[1:, 1:] + wide[:-1, 1:] + wide[1:, :-1] + wide[:-1, :-1]
    n, _, height, width = x.shape
    out = np.zeros((n, kernel.shape[3], 2 * height + 2, 2 * width + 2))
    for u in range(4):
        for v in range(4):
            out[:, :, u : u + 2 * height : 2, v : v + 2 * width : 2] += np.einsum(
                "nihw,io->nohw", x, wide[u, v]
            )
    return out[:, :, 1:-1, 1:-1]


def slow_blur(x):
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    each = np.zeros((3, 3, x.shape[1], x.shape[1])) + kernel[..., None, None] * np.eye(x.shape[1])
    return slow_convolution(x, each)


def slow_picture(arrays, w, noise=True, fused_from=128):
    a = {name: array.astype(np.float64) for name, array in part_of(arrays, "synthesis/").items()}
    resolution = max(int(name.split("x")[0]) for name in a if "x" in name.split("/")[0])

    def epilogue(x, scope, i):
        if noise:
            x = x + a[f"noise{i}"] * a[f"{scope}/Noise/weight"][:, None, None]
        x = x + a[f"{scope}/bias"][:, None, None]
        x = np.maximum(x, 0.2 * x)
        x = x - x.mean(axis=(2, 3), keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=(2, 3), keepdims=True) + 1e-8)
        style = w[:, i] @ (a[f"{scope}/StyleMod/weight"] / np.sqrt(w.shape[2])) + a[f"{scope}/StyleMod/bias"]
        scale, shift = np.split(style[:, :, None, None], 2, axis=1)
        return x * (scale + 1) + shift

    def kernel(scope):
        raw = a[f"{scope}/weight"]
        return raw * np.sqrt(2 / np.prod(raw.shape[:3]))

    x = epilogue(np.repeat(a["4x4/Const/const"], len(w), axis=0), "4x4/Const", 0)
    x = epilogue(slow_convolution(x, kernel("4x4/Conv")), "4x4/Conv", 1)
    for r in range(3, resolution.bit_length()):
        up, after = f"{2**r}x{2**r}/Conv0_up", f"{2**r}x{2**r}/Conv1"
        if 2**r >= fused_from:
            x = slow_fused(x, kernel(up))
        else:
            x = slow_convolution(x.repeat(2, axis=2).repeat(2, axis=3), kernel(up))
        x = epilogue(slow_blur(x), up, 2 * r - 4)
        x = epilogue(slow_convolution(x, kernel(after)), after, 2 * r - 3)
    colours = a["ToRGB_lod0/weight"][0, 0]
    picture = np.einsum("nihw,io->nhwo", x, colours / np.sqrt(len(colours))) + a["ToRGB_lod0/bias"]
    return np.broadcast_to(picture, (*picture.shape[:3], 3))


def assert_alike(found, expected, tolerance=2e-5):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()


# ----------------------------------------------------------------------------------------------------------
# Official pickles
# ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference networks are not on this machine")
@pytest.mark.parametrize("side", [64, 256])
@pytest.mark.usefixtures("compiled")
def test_reference_outputs(side):
    network = stylegan.load_network(REFERENCE / f"{side}.pkl")
    expected = np.load(REFERENCE / f"{side}.npz")
    assert (network.z_dim, network.w_dim, network.resolution) == (128, 128, side)
    w = network.mapping(expected["z"])
    assert w.dtype == np.float32 and np.abs(w - expected["w"]).max() < 5e-5
    pulled = network.truncate(w)
    assert np.abs(pulled - expected["w_trunc"]).max() < 5e-5
    np.testing.assert_array_equal(network.average, expected["dlatent_avg"])
    assert_alike(network.synthesis(pulled), expected["images"].transpose(0, 2, 3, 1), 1e-4)
    whole = np.concatenate([network.synthesis(one[None]) for one in w])  # each alone
    assert_alike(whole, expected["images_psi1"].transpose(0, 2, 3, 1), 1e-4)
    difference = network.generate(expected["z"]).astype(int) - expected["images_uint8"]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("resolution", [4, 8, 16, 32, 64, pytest.param(128, marks=pytest.mark.full)])
def test_every_resolution_against_the_slow_twin(resolution, path):
    arrays = random_arrays(resolution, seed=resolution)
    network = stylegan.load_network(write(path, arrays, resolution=resolution, num_channels=3))
    assert network.num_layers == 2 * (resolution.bit_length() - 2)
    z = np.random.default_rng(1).normal(size=(2, Z))
    w = network.mapping(z)
    np.testing.assert_allclose(w[:, 0], slow_mapping(arrays, z), rtol=0, atol=1e-5)
    assert all(np.array_equal(w[:, i], w[:, 0]) for i in range(network.num_layers))
    w = np.random.default_rng(2).normal(size=w.shape).astype(np.float32)  # another style for each layer
    expected = slow_picture(arrays, w)
    assert_alike(network.synthesis(w), expected)
    assert_alike(network.synthesis(w[1:]), expected[1:])  # a single one is drawn in another way
    assert_alike(network.synthesis(w[:1], noise="none"), slow_picture(arrays, w[:1], noise=False))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols(path, protocol, codes):
    arrays = random_arrays(16)
    network = stylegan.load_network(write(path, arrays, protocol))
    assert network.arrays().keys() == arrays.keys()
    for name, array in network.arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
    assert network.description == {"dataset": "network"}


def test_tolerated_forms(path):
    """Other dict types, the network alone, no components, no lod, arrays of other kinds and in Fortran's order."""
    arrays = random_arrays(8)
    alone = generator(arrays)
    alone.static_kwargs = EasyDict(resolution=np.int64(8), label_size=np.int32(0), blur_filter=(1, 2, 1))
    alone.components = collections.OrderedDict(alone.components)
    old = pickled_network("Gs", "G_style", {}, version=2)
    names = {"mapping/": "G_mapping/", "synthesis/": "G_synthesis/", "dlatent_avg": "dlatent_avg"}
    renamed = {
        new + name.removeprefix(part): np.asfortranarray(array.astype(np.float64))
        for part, new in names.items()
        for name, array in arrays.items()
        if name.startswith(part)
    }
    old.variables = [[name, array] for name, array in renamed.items()]
    del old.components, old.static_kwargs
    for content in (alone, old, [alone, None, alone]):
        path.write_bytes(pickled(content))
        found = stylegan.load_network(path).arrays()
        assert all(np.array_equal(found[name], array) for name, array in arrays.items())


def test_ordered_dict_of_python_2(path):
    pairs = utils.PickledObject("collections.OrderedDict", ([["a", 1], ["b", 2]],), entries={"b": 3})
    assert build_dictionary(pairs) == {"a": 1, "b": 3}
    with pytest.raises(ValueError):
        build_dictionary(utils.PickledObject("collections.OrderedDict", ([[("deep",), 1]],)))


@pytest.mark.parametrize(("fused", "fused_from"), [(True, 4), (False, 2048), ("auto", 128)])
def test_fused_scale(path, fused, fused_from):
    arrays = random_arrays(128)
    network = stylegan.load_network(write(path, arrays, fused_scale=fused))
    w = np.random.default_rng(0).normal(size=(1, network.num_layers, W)).astype(np.float32)
    assert_alike(network.synthesis(w), slow_picture(arrays, w, fused_from=fused_from))


def test_learning_rate_of_the_mapping_network(path):
    arrays = random_arrays(4)
    z = np.ones((1, Z))
    expected = stylegan.load_network(write(path, arrays)).mapping(z)
    scaled = {name: array * (0.5 if name.startswith("mapping") else 1) for name, array in arrays.items()}
    found = stylegan.load_network(write(path, scaled, mapping={"mapping_lrmul": 0.02})).mapping(z)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"label_size": 10},
        {"use_pixel_norm": True},
        {"use_instance_norm": False},
        {"use_styles": False},
        {"use_noise": False},
        {"use_wscale": False},
        {"const_input_layer": False},
        {"nonlinearity": "relu"},
        {"mapping_nonlinearity": "relu"},
        {"normalize_latents": False},
        {"blur_filter": [1, 3, 3, 1]},
        {"blur_filter": None},
        {"fused_scale": "sometimes"},
        {"mapping_lrmul": 0},
        {"mapping_lrmul": "fast"},
        {"label_size": {"a": []}},
    ],
)
def test_unsupported_arguments(path, arguments):
    name = next(iter(arguments))
    write(path, random_arrays(4), **arguments)
    with pytest.raises(ValueError, match=rf"network\.pkl: .*\({name}\)"):
        stylegan.load_network(path)


def test_labels_are_refused_where_only_the_mapping_says_so(path):
    with pytest.raises(ValueError, match="takes labels"):
        stylegan.load_network(write(path, random_arrays(4), mapping={"label_size": 3}))


def test_unfinished_growing(path):
    with pytest.raises(ValueError, match="lod is not 0"):
        stylegan.load_network(write(path, random_arrays(8), lod=0.5))


def refused(path, content, **patterns):
    """Assert that a file is refused in a sentence that names the file and gives nothing of its content away."""
    path.write_bytes(content if isinstance(content, bytes) else pickled(content))
    with pytest.raises(ValueError, match=r"network\.pkl: ") as caught:
        stylegan.load_network(path)
    assert "SECRET" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


def changed(part="", **state):
    made = generator(random_arrays(8))
    (made.components[part] if part else made).__dict__.update(state)
    return made


def with_variable(part, name, value):
    made = generator(random_arrays(8))
    network = made.components[part] if part else made
    network.variables = [*((key, old) for key, old in network.variables if key != name), (name, value)]
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda: None,
        lambda: "SECRET",
        lambda: {"SECRET": 1},
        lambda: (generator(random_arrays(4)), discriminator()),
        lambda: (generator(random_arrays(4)), discriminator(), None),
        lambda: (generator(random_arrays(4)), generator(random_arrays(4)), discriminator()),
        lambda: changed(build_func_name="SECRET"),
        lambda: changed(build_func_name=["G_style"]),
        lambda: changed(version=4),
        lambda: changed(version="SECRET"),
        lambda: changed(variables="SECRET"),
        lambda: changed(variables=[("SECRET",)]),
        lambda: changed(variables=[]),
        lambda: changed(components="SECRET"),
        lambda: changed(components={"mapping": "SECRET"}),
        lambda: changed(components={}),
        lambda: changed(static_kwargs="SECRET"),
        lambda: changed(part="synthesis", build_func_name="G_mapping"),
        lambda: changed(part="synthesis", variables=[]),
        lambda: changed(part="mapping", variables=[]),
        lambda: with_variable("synthesis", "SECRET", np.zeros(3, np.float32)),
        lambda: with_variable("", "SECRET", np.zeros(3, np.float32)),
        lambda: with_variable("", "dlatent_avg", np.array(["SECRET"] * W)),
        lambda: with_variable("", "dlatent_avg", np.full(W, np.nan, np.float32)),
        lambda: with_variable("", "dlatent_avg", np.zeros(W + 1, np.float32)),
        lambda: with_variable("", "lod", np.zeros(2, np.float32)),
        lambda: with_variable("", "lod", "SECRET"),
        lambda: with_variable("mapping", "Dense0/weight", np.zeros((Z, 8), np.int64)),
        lambda: with_variable("mapping", "Dense0/weight", np.full((Z, 8), 1e300)),
        lambda: with_variable("mapping", "Dense0/weight", np.zeros((Z, 9), np.float32)),
        lambda: with_variable("mapping", "Dense1/bias", np.zeros((0,), np.float32)),
        lambda: with_variable("mapping", "Dense1/bias", np.float32(1)),
        lambda: with_variable("mapping", "Dense0/weight", [["SECRET"]]),
        lambda: with_variable("synthesis", "4x4/Const/bias", np.zeros((2**40, 0), np.float32)),
        lambda: with_variable("synthesis", "4x4/Const/bias", np.zeros((0,) * 20, np.float32)),
        lambda: with_variable("synthesis", "8x8/Conv1/bias", np.zeros((2**18,), np.float32)),
        lambda: with_variable("synthesis", "noise0", np.zeros((1, 1, 8, 8), np.float32)),
        lambda: with_variable("synthesis", "8x8/Conv0_up/weight", np.full((3, 3, 7, 6), np.inf, np.float32)),
        lambda: with_variable("synthesis", "ToRGB_lod0/weight", np.zeros((1, 1, 6, 2), np.float32)),
        lambda: with_variable("synthesis", "ToRGB_lod0/weight", np.zeros((6,), np.float32)),
    ],
)
def test_networks_that_are_not_whole(path, make):
    content = make()
    refused(path, content)
    if isinstance(content, Network):
        refused(path, (None, None, content))


def pickle_naming(*names):
    """A pickle that calls names in the given order, as PyTorch's pickles do."""
    calls = b"".join(b"c%b\n%b\n)R" % tuple(name.encode().rpartition(b".")[::2]) for name in names)
    return b"\x80\x02}q\0X\x05\0\0\0G_ema(" + calls + b"ts."


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (lambda: pickled((changed(version=4),) * 3), "StyleGAN2 networks"),
        (lambda: pickled(changed(version=np.int64(4))), "StyleGAN2 networks"),
        (lambda: pickled((changed(version=5),) * 3), "StyleGAN2-ADA networks"),
        (lambda: pickled(changed(version=9)), "networks of an unknown version"),
        (lambda: pickled(changed(build_func_name="G_main")), "not built by G_style"),
        (lambda: pickle_naming("torch_utils.persistence._reconstruct_persistent_obj"), "StyleGAN2-ADA and StyleGAN3"),
        (lambda: pickle_naming("dnnlib.util.EasyDict", "torch._utils._rebuild_tensor_v2"), "StyleGAN3"),
        (lambda: pickle_naming("torch.storage._load_from_bytes"), "StyleGAN3"),
    ],
)  # fmt: skip
def test_later_versions_are_named(path, content, what):
    path.write_bytes(content())
    with pytest.raises(ValueError, match=what) as caught:
        stylegan.load_network(path)
    assert "only StyleGAN 1 is supported" in str(caught.value) and "trust" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("net.pkl", b"<!DOCTYPE html>", "a web page"),
        ("net.npz", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("net.pt", b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl", "a PyTorch file"),
        ("net", b"\x1f\x8b\x08", "a gzip file"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"it is {what}"):
        stylegan.load_network(tmp_path / name)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "[" * 100_000,
        lambda text: text[:-1] + ', "frame": [0, 0, 1e999, 4]}',
        lambda text: text[:-1] + ', "frame": [0, 0, 1' + "0" * 400 + ", 4]}",
        lambda text: text[:-1] + ', "frame": 3}',
        lambda text: text[:-1] + ', "frame": [0, 0, NaN, 4]}',
        lambda text: text[:-1] + ', "landmarks": [[1e999, 0]]}',
        lambda text: text[:-1] + ', "landmarks": ' + "[" * 500 + "]" * 500 + "}",
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_a_description_that_cannot_be_used_is_refused(tmp_path, small, spoil):
    small.save(tmp_path / "n.npz")
    arrays = utils.load_arrays(tmp_path / "n.npz")
    text = spoil(str(arrays["description"][0]))
    utils.save_arrays(tmp_path / "n.npz", {**arrays, "description": np.array([text])})
    with pytest.raises(ValueError, match="n.npz: not a complete StyleGAN network"):
        stylegan.load_network(tmp_path / "n.npz")


class Hostile:
    """Makes Python's own unpickler write a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.write_text, (self.mark, "SECRET")


def test_hostile_source_is_not_run(path, tmp_path):
    mark = tmp_path / "mark"
    source = f"open({str(mark)!r}, 'w').write('run')\ndef G_style(*args, **kwargs): pass\n"
    arrays = random_arrays(8)
    network = stylegan.load_network(write(path, arrays, source=source))
    assert all(np.array_equal(array, arrays[name]) for name, array in network.arrays().items())
    assert network.generate(np.ones((1, Z))).shape == (1, 8, 8, 3)
    assert not mark.exists()


def test_hostile_calls_are_refused(path, tmp_path):
    mark = tmp_path / "mark"
    hostile = Hostile(mark)
    arrays = random_arrays(4)
    objects = np.array([hostile, None], dtype=object)
    contents = [
        hostile,
        (hostile, discriminator(), generator(arrays)),
        (generator(arrays), discriminator(), generator(arrays, source=hostile)),
        generator(arrays, resolution=hostile),
        with_variable("", "dlatent_avg", objects),
        with_variable("synthesis", "4x4/Const/const", np.array([None], dtype=object)),
        with_variable("synthesis", "noise0", np.zeros(2, dtype=[("a", "f4"), ("b", "f4")])),
    ]
    for content in contents:
        refused(path, content)
    assert not mark.exists()
    refused(path, b"cposix\nsystem\n(S'touch SECRET'\ntR.")
    with official_modules():
        persistent = io.BytesIO()

        class Pickler(pickle.Pickler):
            def persistent_id(self, item):
                return "SECRET" if item is arrays["dlatent_avg"] else None

        Pickler(persistent, 4).dump(generator(arrays))
    refused(path, persistent.getvalue())


def test_shared_lists_do_not_explode(path):
    """Lists in lists, each named twice, would be 2**60 values."""
    values = [1.0]
    for _ in range(60):
        values = [values, values]
    refused(path, with_variable("mapping", "Dense0/weight", values))
    refused(path, with_variable("", "lod", values))
    refused(path, generator(random_arrays(4), blur_filter=[values, values, values]))


def test_absurd_shape(path):
    """An array that says it is larger than its bytes."""
    content = pickled(generator(random_arrays(8)))
    old = pickle.dumps((1, 7, 4, 4), 4)[2 + 9 : -2]  # without header and end
    assert content.count(old) == 1  # the constant's
    refused(path, content.replace(old, pickle.dumps((1, 7, 4, 99), 4)[2 + 9 : -2]))


def test_truncated_anywhere(path):
    content = pickled((generator(random_arrays(8)), discriminator(), generator(random_arrays(8))))
    for share in (0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999):
        refused(path, content[: int(share * len(content))])
    refused(path, content + b"SECRET")
    complaints = []
    for place in np.random.default_rng(0).integers(len(content), size=40):  # one byte changed
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            stylegan.load_network(path)
        except ValueError as error:
            complaints.append(str(error))
    assert complaints and all(complaint.startswith(f"{path}: ") for complaint in complaints)


def test_files_that_are_no_networks(tmp_path):
    with pytest.raises(FileNotFoundError):
        stylegan.load_network(tmp_path / "none.pkl")
    with pytest.raises(FileNotFoundError):
        stylegan.load_network(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"\.npz.*\.pkl"):
        stylegan.load_network(tmp_path / "network.h5")


# ----------------------------------------------------------------------------------------------------------
# Our files
# ----------------------------------------------------------------------------------------------------------


def test_convert(path, tmp_path, capsys, codes):
    write(path, random_arrays(16))
    expected = stylegan.load_network(path).synthesis(codes)
    for dtype, tolerance in (("float32", 0), ("float16", 4e-3)):
        out = tmp_path / f"{dtype}.npz"
        assert main(["convert", str(path), str(out), "--dtype", dtype]) == 0
        assert str(out) in capsys.readouterr().out
        found = stylegan.load_network(out)
        assert found.description == {"dataset": "network"}
        assert np.abs(found.synthesis(codes) - expected).max() <= tolerance * np.abs(expected).max()
    assert (tmp_path / "float16.npz").stat().st_size < (tmp_path / "float32.npz").stat().st_size
    for arguments in ([path, "out.pkl"], [path, tmp_path / "none" / "out.npz"], ["none.pkl", out]):
        assert main(["convert", *map(str, arguments)]) == 2
        assert "error: " in capsys.readouterr().err


def test_save_and_load(tmp_path, small, codes):
    small.description |= {"landmarks": None, "frame": [0, 2, 16, 12]}
    small.save(tmp_path / "a.npz")
    loaded = stylegan.load_network(tmp_path / "a.npz")
    assert loaded.description == small.description
    np.testing.assert_array_equal(loaded.average, small.average)
    np.testing.assert_array_equal(loaded.synthesis(codes), small.synthesis(codes))
    assert repr(loaded) == "<StyleNetwork patterns: z 6 -> w 6 x 5 -> 16 x 16 colour>"


def test_save_refuses(tmp_path, small):
    with pytest.raises(ValueError, match=r"\.npz"):
        small.save(tmp_path / "a.pkl")
    with pytest.raises(ValueError, match="float16"):
        small.save(tmp_path / "a.npz", dtype="int8")
    large = random_arrays(4)
    large["mapping/Dense0/weight"] *= 1e4
    with pytest.raises(ValueError, match="float32"):
        StyleNetwork.from_arrays(large).save(tmp_path / "a.npz", dtype="float16")
    assert not list(tmp_path.iterdir())


def test_damaged_files_of_ours(tmp_path, small):
    path = tmp_path / "a.npz"
    small.save(path)
    content, arrays = path.read_bytes(), utils.load_arrays(path)

    def refuse():
        with pytest.raises(ValueError, match=r"a\.npz"):
            stylegan.load_network(path)

    for share in (0, 0.1, 0.5, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        refuse()
    for text in ("{", "[]", "{}", '{"format": 2}', '{"format": 1, "frame": [0, 0, 17, 16]}'):
        utils.save_arrays(path, {**arrays, "description": np.array([text])})
        refuse()
    for text in ('{"format": 1, "landmarks": [[1, 2]]}', '{"format": 1, "frame": 3}'):
        utils.save_arrays(path, {**arrays, "description": np.array([text])})
        refuse()
    for name in ("description", "dlatent_avg", "mapping/Dense0/weight", "synthesis/noise0"):
        utils.save_arrays(path, {other: array for other, array in arrays.items() if other != name})
        refuse()
    utils.save_arrays(path, {**arrays, "more": np.zeros(2)})
    refuse()
    utils.save_arrays(path, {**arrays, "synthesis/4x4/Const/bias": np.zeros(2**20, np.float32)})
    refuse()


def test_arrays_are_copied(small):
    arrays = random_arrays(4)
    network = StyleNetwork.from_arrays(arrays)
    before = network.arrays()
    for array in arrays.values():
        array += 1
    for name, array in network.arrays().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize(
    "sizes",
    [
        {"resolution": 2},
        {"resolution": 12},
        {"resolution": 2048},
        {"channels": (4, 4, 4)},
        {"channels": (4, 0)},
        {"z_dim": 0},
        {"mapping_widths": ()},
        {"mapping_widths": (3, 4)},
        {"colours": 2},
    ],
)
def test_impossible_architectures(sizes):
    whole = {"resolution": 8, "channels": (4, 4), "z_dim": 3, "w_dim": 3, "mapping_widths": (3,)}
    assert Architecture(**whole).scopes == ("4x4/Const", "4x4/Conv", "8x8/Conv0_up", "8x8/Conv1")
    with pytest.raises(ValueError):
        Architecture(**whole | sizes)


def test_official_architecture():
    """The counts that the published 1024 network has."""
    channels = (512, 512, 512, 512, 256, 128, 64, 32, 16)
    a = Architecture(1024, channels, 512, 512, (512,) * 8)
    shapes = a.synthesis_shapes() | a.noise_shapes()
    assert len(shapes) == 127 - 1  # without lod
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 26_914_572 - 1
    assert sum(int(np.prod(shape)) for shape in a.mapping_shapes().values()) == 2_101_248
    assert a.num_layers == 18 and a.lod(1024) == 0 and a.lod(4) == 8


# ----------------------------------------------------------------------------------------------------------
# Truncation, mixing, noise
# ----------------------------------------------------------------------------------------------------------


def test_truncation_by_hand(small):
    average = small.average
    w = np.broadcast_to(average + 10, (2, 6, W))
    found = small.truncate(w, 0.7, 2)
    np.testing.assert_allclose(found[:, :2], np.broadcast_to(average + 7, (2, 2, W)), rtol=1e-6)
    np.testing.assert_allclose(found[:, 2:], w[:, 2:], rtol=1e-6)
    np.testing.assert_allclose(small.truncate(w), np.broadcast_to(average + 7, w.shape), rtol=1e-6)
    np.testing.assert_allclose(small.truncate(w, 0.0), np.broadcast_to(average, w.shape), atol=1e-6)
    for psi, cutoff in ((None, 8), (1, 8), (0.7, 0), (0.7, None), (0.7, -1)):
        np.testing.assert_allclose(small.truncate(w, psi, cutoff), w, rtol=1e-6)
    with pytest.raises(ValueError, match="truncation_psi"):
        small.truncate(w, np.nan)


def test_average_is_reached_by_psi_zero(small):
    pictures = small.generate(np.random.default_rng(0).normal(size=(3, Z)), truncation_psi=0)
    assert (pictures == pictures[0]).all()


def test_style_mixing():
    coarse, fine = np.zeros((2, 1, 6, W), np.float32), np.ones((3, 6, W), np.float32)
    mixed = mix_styles(coarse, fine, [0, 4])
    assert mixed.shape == (2, 3, 6, W)
    np.testing.assert_array_equal(mixed[1, 2, :, 0], [1, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(mix_styles(coarse, fine, []), np.zeros((2, 3, 6, W)))
    for layers in ([6], [-1]):
        with pytest.raises(ValueError, match="layers must be from 0 to 5"):
            mix_styles(coarse, fine, layers)


@pytest.mark.usefixtures("compiled")
def test_noise(small, codes):
    stored, none = small.synthesis(codes), small.synthesis(codes, "none")
    assert np.abs(stored - none).max() > 0.01
    first = small.synthesis(codes, "random", random_state=3)
    np.testing.assert_array_equal(small.synthesis(codes, "random", random_state=3), first)
    assert np.abs(small.synthesis(codes, "random", random_state=4) - first).max() > 0.01
    same = small.synthesis(np.repeat(codes[:1], 2, axis=0), "random", random_state=0)
    assert np.abs(same[0] - same[1]).max() > 0.01  # each picture has its own
    np.testing.assert_array_equal(small.synthesis(codes), stored)


def test_random_noise_is_standard_normal(small):
    noise = small.synthesis_layer.random_noise(200, tf.constant([1, 2]))
    assert [tuple(layer.shape) for layer in noise] == [(200, s, s, 1) for s in (4, 4, 8, 8, 16, 16)]
    for layer in noise:
        n = layer.numpy().size
        assert abs(layer.numpy().mean()) < 5 / np.sqrt(n) and abs(layer.numpy().std() - 1) < 5 / np.sqrt(
            2 * n
        )
    assert abs(np.corrcoef(noise[0].numpy().ravel(), noise[1].numpy().ravel())[0, 1]) < 0.1


def test_uint8_cuts_off():
    values = np.float32([-2, -1, 0, 0.0039, 0.999, 1, 2])
    np.testing.assert_array_equal(to_uint8(values), [0, 0, 128, 128, 255, 255, 255])


def test_random_codes(small):
    np.testing.assert_array_equal(small.random_codes(2, 7), small.random_codes(2, 7))
    z = np.random.RandomState(7).randn(2, Z)
    np.testing.assert_array_equal(small.random_codes(2, 7), small.truncate(small.mapping(z)))
    np.testing.assert_allclose(small.mapping(z), small.mapping(1000 * z), atol=1e-5)


def test_grey_network():
    network = StyleNetwork.from_arrays(random_arrays(8, colours=1))
    pictures = network.synthesis(network.random_codes(2, 0))
    assert pictures.shape == (2, 8, 8, 3) and (pictures == pictures[..., :1]).all()
    assert "grey" in repr(network)


@pytest.mark.parametrize(
    ("w", "error"),
    [
        (np.zeros((6, W)), ValueError),
        (np.zeros((2, 5, W)), ValueError),
        (np.zeros((2, 6, W + 1)), ValueError),
        (np.full((1, 6, W), np.nan), ValueError),
        (np.full((1, 6, W), 1e300), ValueError),
        ("w", TypeError),
        (None, ValueError),
        ([[1], [1, 2]], TypeError),
    ],
)
def test_bad_codes(small, w, error):
    with np.errstate(over="ignore"):
        for function in (small.synthesis, small.truncate):
            with pytest.raises(error, match="w "):
                function(w)


def test_bad_latent_vectors_and_noise(small, codes):
    for z in (np.zeros(Z), np.zeros((2, Z + 1)), np.full((1, Z), np.inf)):
        with pytest.raises(ValueError, match="z "):
            small.mapping(z)
        with pytest.raises(ValueError, match="z "):
            small.generate(z)
    with pytest.raises(ValueError, match="noise must be one of 'stored', 'random', 'none'"):
        small.synthesis(codes, "fresh")


def test_no_codes_no_pictures(small):
    assert small.synthesis(np.zeros((0, 6, W))).shape == (0, 16, 16, 3)


# ----------------------------------------------------------------------------------------------------------
# The layers
# ----------------------------------------------------------------------------------------------------------


def test_blur_by_hand():
    one = np.zeros((1, 4, 4, 2), np.float32)
    one[0, 0, 0, 1] = 16
    expected = np.zeros((1, 4, 4, 2))
    expected[0, :2, :2, 1] = [[4, 2], [2, 1]]
    np.testing.assert_allclose(_blur(tf.constant(one)), expected)


def test_onednn_is_on_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    for expected in ("1", "0"):
        utils.import_quietly()
        assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == expected
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")


def test_he_factor():
    assert he_factor((3, 3, 2, 50), np.sqrt(2)) == pytest.approx(1 / 3)


@pytest.mark.usefixtures("compiled")
def test_layers_draw_what_the_network_draws(small, codes):
    layer = small.synthesis_layer
    expected = small.synthesis(codes)
    assert_alike(layer(tf.constant(codes), layer.stored_noise()).numpy(), expected)
    alone = layer(tf.constant(codes[:1]), layer.stored_noise()).numpy()
    assert_alike(alone, expected[:1])


def test_smaller_pictures_are_those_of_a_network_that_has_grown_so_far(small, codes):
    half = {name: array for name, array in small.arrays().items() if "16x16" not in name}
    for name in ("synthesis/ToRGB_lod0/weight", "synthesis/ToRGB_lod0/bias"):
        half[name] = half.pop(name.replace("lod0", "lod1"))
        half[name.replace("lod0", "lod1")] = half.pop(name.replace("lod0", "lod2"))
    del half["synthesis/noise4"], half["synthesis/noise5"]
    layer = small.synthesis_layer
    found = layer(tf.constant(codes), layer.stored_noise(), resolution=8).numpy()
    assert_alike(found, StyleNetwork.from_arrays(half).synthesis(codes[:, :4]))


def test_random_weights_have_the_size_that_training_wants():
    """He's factor on normal weights keeps features at the size of 1, through the mapping network as well."""
    keras.utils.set_random_seed(0)
    a = Architecture(8, (64, 64), 64, 64, (64,) * 8)
    w = Mapping(a)(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)).numpy()
    assert 0.2 < w.std() < 2
    picture = Synthesis(a)(np.repeat(w[:1, None], 4, axis=1)).numpy()
    assert 0.2 < picture.std() < 3


def test_gradients_flow_to_everything_that_is_used(small, codes):
    layer = small.synthesis_layer
    for rows in (1, 2):  # one picture is normalised in another way
        w = tf.constant(codes[:rows])
        with tf.GradientTape() as tape:
            tape.watch(w)
            loss = tf.reduce_sum(tf.square(layer(w, layer.stored_noise())))
        used = [variable for variable in layer.trainable_variables if "lod1" not in variable.name]
        used = [variable for variable in used if "lod2" not in variable.name]
        gradients = tape.gradient(loss, [w, *(variable.value for variable in used)])
        assert all(np.abs(tf.convert_to_tensor(gradient)).max() > 0 for gradient in gradients)
    assert len(layer.non_trainable_variables) == 6  # the stored noise


def test_gradient_of_w_by_differences(small, codes):
    w, layer = codes[:1], small.synthesis_layer
    weights = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)

    def value(w):
        return tf.reduce_sum(layer(w, layer.stored_noise()) * weights)

    point = tf.constant(w)
    with tf.GradientTape() as tape:
        tape.watch(point)
        loss = value(point)
    gradient = tape.gradient(loss, point).numpy()
    direction = np.random.default_rng(1).normal(size=w.shape).astype(np.float32)
    step = 1e-3
    slope = (value(w + step * direction) - value(w - step * direction)).numpy() / (2 * step)
    assert slope == pytest.approx((gradient * direction).sum(), rel=0.02)


@pytest.mark.usefixtures("compiled")
def test_changed_weights_are_noticed(codes):
    network = StyleNetwork.from_arrays(random_arrays(16))
    before = network.synthesis(codes)
    for variable in network.synthesis_layer.trainable_variables:
        variable.assign(variable * 0.9)
    after = network.synthesis(codes)
    assert np.abs(after - before).max() > 0.01
    assert_alike(after, StyleNetwork.from_arrays(network.arrays()).synthesis(codes))
    network.synthesis_layer.load(part_of(random_arrays(16), "synthesis/"))
    np.testing.assert_array_equal(network.synthesis(codes), before)


@pytest.mark.usefixtures("compiled")
def test_nothing_is_traced_anew(small, codes, monkeypatch):
    traced = []
    original = networks.draw
    monkeypatch.setattr(networks, "draw", lambda *given: traced.append(1) or original(*given))
    network = StyleNetwork.from_arrays(random_arrays(16))
    for _ in range(2):
        for n in (1, 2, 3):
            network.synthesis(codes[:n])
    assert len(traced) == 2  # one picture, and more


def test_batches_are_cut(small, codes, monkeypatch):
    expected = small.synthesis(codes)
    monkeypatch.setattr(networks, "_PIXELS_AT_ONCE", 2 * 16**2)
    assert_alike(small.synthesis(codes), expected)


@pytest.mark.parametrize(("policy", "tolerance"), [("mixed_float16", 0.02), ("mixed_bfloat16", 0.1)])
def test_mixed_precision_is_close(small, codes, policy, tolerance):
    keras.config.set_dtype_policy(policy)
    try:
        mixed = StyleNetwork.from_arrays(small.arrays())
    finally:
        keras.config.set_dtype_policy("float32")
    assert mixed.synthesis_layer.compute_dtype == policy.removeprefix("mixed_")
    np.testing.assert_array_equal(mixed.mapping(np.ones((1, Z))), small.mapping(np.ones((1, Z))))
    expected = small.synthesis(codes)
    for rows in (codes, codes[:1]):
        found = mixed.synthesis(rows)
        assert found.dtype == np.float32
        assert np.abs(found - expected[: len(rows)]).max() < tolerance * np.abs(expected).max()


def test_stand_ins_are_pickled_as_the_official_ones():
    """The tests' own pickles name what the official ones name."""
    assert copyreg.__newobj__(Network).__class__.__module__ == "dnnlib.tflib.network"
    names = set()
    for opcode, argument, _ in pickletools.genops(pickled(generator(random_arrays(4)), 2)):
        if opcode.name == "GLOBAL":
            names.add(argument.replace(" ", "."))
    assert "dnnlib.tflib.network.Network" in names
