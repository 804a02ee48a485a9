"""Speed and memory of StyleGAN networks, beside a plain Keras pass, a PyTorch port and the official code.

    python benchmarks/stylegan.py                        # random networks with the official widths, 256 and 1024 pixels
    python benchmarks/stylegan.py --python PATH          # an interpreter with PyTorch, if this one has none
    python benchmarks/stylegan.py --official PATH --source CLONE    # ours and the official code in turn
    python benchmarks/stylegan.py ... --isa avx2         # without AVX-512

The official code needs a clone of github.com/NVlabs/stylegan and Python 3.7 with

    pip install intel-tensorflow==1.15.2 numpy==1.18.5 protobuf==3.20.3 requests pillow

The networks are written as official pickles of three networks, and read from there. Each contender runs in a process of
its own, draws one image to warm up, then --times more, one after the other; CPU seconds are user and system time of
all threads. `plain` is the same network from plain Keras operations, run eagerly in the same process as ours.
"""

import argparse
import copyreg
import json
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # the suite's modules, not this folder

W, LAYERS = 512, 8


def cpu_seconds():
    """User and system time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(function, times):
    """Return the medians of CPU seconds and of wall-clock seconds, after a call to warm up."""
    function()
    cpu, wall = [], []
    for _ in range(times):
        started, used = time.perf_counter(), cpu_seconds()
        function()
        cpu.append(cpu_seconds() - used)
        wall.append(time.perf_counter() - started)
    return statistics.median(cpu), statistics.median(wall)


def peak_megabytes():
    """Peak memory of this process in units of a million bytes.

    Linux' own figure, because that of getrusage includes the parent's memory.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


# A file to read


def variables(resolution, seed):
    """Draw random variables of a network with the official widths: those of mapping, then those of synthesis."""
    from stylegan.architecture import Architecture

    channels = tuple(min(512, 8192 >> r) for r in range(1, resolution.bit_length() - 1))
    a = Architecture(resolution, channels, W, W, (W,) * LAYERS)
    random = np.random.default_rng(seed)
    mapping = {name: random.standard_normal(s, np.float32) * 100 for name, s in a.mapping_shapes().items()}
    shapes = a.synthesis_shapes() | a.noise_shapes()
    synthesis = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    small = {name: values / 10 for name, values in synthesis.items() if values.ndim == 1}
    return mapping, {"lod": np.float32(0), **synthesis, **small}


def write_official(path, resolution):
    """Write a pickle of generator, discriminator and moving average as the official code does: about 330 MB at 1024."""
    module = types.ModuleType("dnnlib.tflib.network")
    module.Network = type("Network", (), {"__module__": module.__name__, "__qualname__": "Network"})
    for name in ("dnnlib", "dnnlib.tflib", module.__name__):
        sys.modules[name] = module

    def network(name, builder, values, **components):
        made = copyreg.__newobj__(module.Network)
        made.__dict__.update(version=3, name=name, static_kwargs={}, components=components)
        made.__dict__.update(build_module_src="", build_func_name=builder, variables=list(values.items()))
        return made

    def generator(name, seed):
        mapping, synthesis = variables(resolution, seed)
        return network(
            name,
            "G_style",
            {"lod": np.float32(0), "dlatent_avg": np.zeros(W, np.float32)},
            synthesis=network("G_synthesis", "G_synthesis", synthesis),
            mapping=network("G_mapping", "G_mapping", mapping),
        )

    # As many numbers as the official discriminator has, but not its layers.
    judge = network("D", "D_basic", {f"{i}": np.zeros((3, 3, W, W), np.float32) for i in range(10)})
    with open(path, "wb") as file:
        pickle.dump((generator("G", 1), judge, generator("Gs", 0)), file, 4)
    for name in ("dnnlib", "dnnlib.tflib", module.__name__):
        del sys.modules[name]


# The contenders: each is a function of (path, times) that returns its figures


def ours(path, times):
    """Read the file and draw one image at a time."""
    import stylegan

    started = cpu_seconds()
    network = stylegan.load_network(path)
    loading = cpu_seconds() - started
    w = network.random_codes(1, random_state=0)
    cpu, wall = measure(lambda: network.synthesis(w), times)
    return {"cpu": cpu, "wall": wall, "megabytes": peak_megabytes(), "loading": loading}


def batch(path, times):
    """Draw four images in one call; the figures are per image."""
    import stylegan

    network = stylegan.load_network(path)
    w = network.random_codes(4, random_state=0)
    cpu, wall = measure(lambda: network.synthesis(w), times)
    return {"cpu": cpu / 4, "wall": wall / 4, "megabytes": peak_megabytes()}


def plain(path, times):
    """Draw by plain Keras operations and by ours in one process; weights are scaled when they are used."""
    return beside_plain(path, times, beforehand=False)


def plain_scaled(path, times):
    """Do the same as `plain`, with weights scaled and kernels built before the measurement."""
    return beside_plain(path, times, beforehand=True)


def beside_plain(path, times, beforehand):
    import stylegan

    network = stylegan.load_network(path)
    w = network.random_codes(1, random_state=0)
    drawing = plain_keras(network, beforehand)
    expected, found = network.synthesis(w), drawing(w)
    difference = float(np.abs(expected - found).max() / np.abs(expected).max())
    cpu, wall = measure(lambda: drawing(w), times)
    own_cpu, own_wall = measure(lambda: network.synthesis(w), times)
    return {
        "cpu": cpu,
        "wall": wall,
        "megabytes": peak_megabytes(),
        "difference": difference,
        "ours / plain CPU": own_cpu / cpu,
        "ours / plain wall": own_wall / wall,
    }


def plain_keras(network, beforehand):
    """Build the synthesis network from Keras operations, step by step as in the paper: a function of w."""
    from keras import ops

    from stylegan.architecture import he_factor

    a, layer = network.architecture, network.synthesis_layer
    arrays = {name: ops.convert_to_tensor(array) for name, array in layer.arrays().items()}

    def scaled(name, gain):
        return arrays[name] * he_factor(layer.shapes[name], gain)

    def fused(scope):
        return "Conv0_up" in scope and int(scope.split("x")[0]) >= 128

    def kernel(scope):
        ready = scaled(f"{scope}/weight", np.sqrt(2))
        if not fused(scope):
            return ready
        wide = ops.pad(ready, ((1, 1), (1, 1), (0, 0), (0, 0)))
        wide = wide[1:, 1:] + wide[:-1, 1:] + wide[1:, :-1] + wide[:-1, :-1]
        return ops.transpose(wide, (0, 1, 3, 2))

    def style_weight(scope):
        return scaled(f"{scope}/StyleMod/weight", 1)

    if beforehand:
        kernel = {scope: kernel(scope) for scope in a.scopes[1:]}.get
        style_weight = {scope: style_weight(scope) for scope in a.scopes}.get
    noise = [ops.transpose(arrays[f"noise{i}"], (0, 2, 3, 1)) for i in range(a.num_layers)]
    colours = scaled("ToRGB_lod0/weight", 1)
    line = np.array([1, 2, 1], np.float32) / 4
    blurs = {
        c: ops.convert_to_tensor(np.tile(np.outer(line, line)[..., None, None], (1, 1, c, 1)))
        for c in a.channels
    }

    def epilogue(x, scope, i, w):
        x = x + noise[i] * arrays[f"{scope}/Noise/weight"]
        x = x + arrays[f"{scope}/bias"]
        x = ops.leaky_relu(x, 0.2)
        x = x - ops.mean(x, axis=(1, 2), keepdims=True)
        x = x / ops.sqrt(ops.mean(ops.square(x), axis=(1, 2), keepdims=True) + 1e-8)
        style = ops.matmul(w[:, i], style_weight(scope)) + arrays[f"{scope}/StyleMod/bias"]
        scale, shift = ops.split(style[:, None, None], 2, axis=3)
        return x * (scale + 1) + shift

    def drawing(w):
        w = ops.convert_to_tensor(w)
        x = ops.transpose(arrays["4x4/Const/const"], (0, 2, 3, 1))
        x = epilogue(x, a.scopes[0], 0, w)
        for i, scope in enumerate(a.scopes[1:], start=1):
            if fused(scope):
                x = ops.conv_transpose(x, kernel(scope), 2, "same")
            else:
                x = x if i % 2 else ops.repeat(ops.repeat(x, 2, axis=1), 2, axis=2)
                x = ops.conv(x, kernel(scope), 1, "same")
            if i % 2 == 0:
                x = ops.depthwise_conv(x, blurs[x.shape[3]], 1, "same")
            x = epilogue(x, scope, i, w)
        x = ops.conv(x, colours, 1, "same") + arrays["ToRGB_lod0/bias"]
        return np.asarray(ops.convert_to_numpy(x))

    return drawing


def torch_port(path, times):
    """Draw as the PyTorch ports do: repetition and convolution or a transposed one, blur, normalisation, style.

    Weights are scaled and kernels built before the measurement, which not all ports do.
    """
    import torch
    from torch.nn import functional

    arrays = np.load(path.with_name("torch.npz"))
    p = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    resolution = resolution_of(p)

    def scaled(name, gain):
        return p[name] * (gain / np.sqrt(np.prod(p[name].shape[:-1])))

    kernels = {
        n: scaled(n, np.sqrt(2)).permute(3, 2, 0, 1).contiguous() for n in p if p[n].shape[:2] == (3, 3)
    }
    for name, kernel in kernels.items():
        if "Conv0_up" in name and int(name.split("x")[0]) >= 128:
            wide = functional.pad(kernel, (1, 1, 1, 1))
            wide = wide[..., 1:, 1:] + wide[..., :-1, 1:] + wide[..., 1:, :-1] + wide[..., :-1, :-1]
            kernels[name] = wide.transpose(0, 1).contiguous()
    styles = {name: scaled(name, 1).T.contiguous() for name in p if name.endswith("StyleMod/weight")}
    colours = scaled("ToRGB_lod0/weight", 1).permute(3, 2, 0, 1)
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    binomial = (line[:, None] * line)[None, None]

    def epilogue(x, scope, i, w):
        x = x + p[f"noise{i}"] * p[f"{scope}/Noise/weight"].view(1, -1, 1, 1)
        x = functional.leaky_relu(x + p[f"{scope}/bias"].view(1, -1, 1, 1), 0.2)
        x = functional.instance_norm(x, eps=1e-8)
        style = functional.linear(w[:, i], styles[f"{scope}/StyleMod/weight"], p[f"{scope}/StyleMod/bias"])
        scale, shift = style[:, :, None, None].chunk(2, 1)
        return x * (scale + 1) + shift

    def drawing(w):
        x = epilogue(p["4x4/Const/const"], "4x4/Const", 0, w)
        x = epilogue(functional.conv2d(x, kernels["4x4/Conv/weight"], padding=1), "4x4/Conv", 1, w)
        for i in range(1, resolution.bit_length() - 2):
            up, after = f"{4 << i}x{4 << i}/Conv0_up", f"{4 << i}x{4 << i}/Conv1"
            if 4 << i >= 128:
                x = functional.conv_transpose2d(x, kernels[f"{up}/weight"], stride=2, padding=1)
            else:
                x = functional.conv2d(
                    functional.interpolate(x, scale_factor=2), kernels[f"{up}/weight"], padding=1
                )
            x = functional.conv2d(x, binomial.expand(x.shape[1], 1, 3, 3), padding=1, groups=x.shape[1])
            x = epilogue(x, up, 2 * i, w)
            x = functional.conv2d(x, kernels[f"{after}/weight"], padding=1)
            x = epilogue(x, after, 2 * i + 1, w)
        return functional.conv2d(x, colours, p["ToRGB_lod0/bias"])

    found = {}
    for threads in (1, os.cpu_count()):
        torch.set_num_threads(threads)
        with torch.no_grad():
            cpu, wall = measure(lambda: drawing(torch.from_numpy(arrays["w"])), times)
            picture = drawing(torch.from_numpy(arrays["w"])).numpy().transpose(0, 2, 3, 1)
        difference = float(np.abs(picture - arrays["picture"]).max() / np.abs(arrays["picture"]).max())
        found[f"{threads} thread{'s' * (threads > 1)}"] = {
            "cpu": cpu,
            "wall": wall,
            "megabytes": peak_megabytes(),
            "difference": difference,
        }
    return found


def resolution_of(arrays):
    """Side of the images of a network with these variables."""
    return arrays["noise0"].shape[3] << (sum(name.startswith("noise") for name in arrays) // 2 - 1)


def official(path, times):
    """Draw by the official code, whose clone is in PYTHONPATH; its convolutions need a TensorFlow 1 built with MKL."""
    sys.path.remove(str(ROOT))  # the official code also has a package `training`
    import dnnlib.tflib as tflib

    tflib.init_tf({"allow_soft_placement": True})
    stored = np.load(path.with_name("torch.npz"))
    arrays = {name: stored[name] for name in stored.files}
    w, picture = arrays.pop("w"), arrays.pop("picture")
    name = "training.networks_stylegan.G_synthesis"
    sizes = {"resolution": resolution_of(arrays), "dlatent_size": W, "num_channels": 3}
    network = tflib.Network("Gs_synthesis", func_name=name, **sizes)
    tflib.set_vars({network.vars[name]: array for name, array in arrays.items()})

    def drawing():
        return network.run(w, randomize_noise=False)

    found = drawing().transpose(0, 2, 3, 1)
    cpu, wall = measure(drawing, times)
    difference = float(np.abs(picture - found).max() / np.abs(picture).max())
    return {"cpu": cpu, "wall": wall, "megabytes": peak_megabytes(), "difference": difference}


def prepare(path, times):
    """Write the network as a file of ours, and for `torch_port` its variables, a code and the image of it."""
    import stylegan

    network = stylegan.load_network(path)
    network.save(path.with_name("converted.npz"))
    w = network.random_codes(1, random_state=0)
    arrays = network.synthesis_layer.arrays()
    np.savez(path.with_name("torch.npz"), w=w, picture=network.synthesis(w), **arrays)
    return {}


CONTENDERS = {f.__name__: f for f in (ours, batch, plain, plain_scaled, prepare, torch_port, official)}

# The variables that limit oneDNN, MKL and PyTorch to AVX2. The MKL-DNN 0.x in TensorFlow 1.15 has no such switch.
LIMITS = {
    "all": {},
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    },
}


def in_child(name, path, times, python=sys.executable, environment=None):
    """Run a contender in a process of its own; returns None if it fails."""
    command = [python, __file__, "--child", name, str(path), "--times", str(times)]
    environment = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def show(label, found):
    values = " ".join(f"{found[key]:9.3f}" for key in ("cpu", "wall"))
    others = {k: round(v, 6) for k, v in found.items() if k not in ("cpu", "wall", "megabytes")}
    more = ", ".join(f"{key} {value:g}" for key, value in others.items())
    print(f"{label:34} {values} {found['megabytes']:9.0f}  {more}", flush=True)


def compare_with_official(path, options):
    """Draw by ours and by the official code in turn, and print the ratio of their medians."""
    limit = LIMITS[options.isa]
    environment = {
        **limit,
        "OMP_NUM_THREADS": str(os.cpu_count()),
        "PYTHONPATH": options.source,
        "TF2_BEHAVIOR": "0",  # TensorFlow 2 sets it in this process
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    rows = {
        "ours": ("ours", path.with_name("converted.npz"), options.times, sys.executable, limit),
        "official": ("official", path, options.times, options.official, environment),
    }
    runs = {name: [] for name in rows}
    for _ in range(options.rounds):
        for name, contender in rows.items():
            runs[name].append(in_child(*contender))
            if runs[name][-1] is None:
                return
            show(f"{path.stem}, {name}", runs[name][-1])
    for key in ("cpu", "wall"):
        own, other = (statistics.median(run[key] for run in runs[name]) for name in rows)
        print(f"{path.stem}, ours / official, {key}: {own / other:.2f}", flush=True)


def compare_all(path, options):
    """Print a row for each contender but the official code."""
    limit = LIMITS[options.isa]
    rows = {
        "official pickle": ("ours", path),
        "converted": ("ours", path.with_name("converted.npz")),
        "converted, batch of 4": ("batch", path.with_name("converted.npz")),
        "plain Keras": ("plain", path),
        "plain Keras, scaled before": ("plain_scaled", path),
    }
    for label, (name, file) in rows.items():
        found = in_child(name, file, options.times, environment=limit)
        if found:
            show(f"{path.stem}, {label}", found)
    found = in_child("torch_port", path, options.times, options.python, limit)
    for threads, values in (found or {}).items():
        show(f"{path.stem}, PyTorch, {threads}", values)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resolutions", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--times", type=int, default=7, help="images to draw; the median counts")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with PyTorch")
    parser.add_argument(
        "--official", help="an interpreter with TensorFlow 1.15: compare with the official code"
    )
    parser.add_argument("--source", help="a clone of the official code")
    parser.add_argument("--rounds", type=int, default=2, help="processes of each, with --official")
    parser.add_argument("--isa", choices=LIMITS, default="all", help="instruction sets that may be used")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, path = options.child
        print(json.dumps(CONTENDERS[name](Path(path), options.times)))
        return
    if (options.official is None) != (options.source is None):
        parser.error("--official and --source go together")
    print(f"{'':34} {'CPU s':>9} {'wall s':>9} {'peak MB':>9}")
    for resolution in options.resolutions:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{resolution}.pkl"
            write_official(path, resolution)
            in_child("prepare", path, 1)
            (compare_with_official if options.official else compare_all)(path, options)


if __name__ == "__main__":
    main()
