"""Error and speed of the projection, beside the plain search of public projectors for StyleGAN 1.

    python benchmarks/projection.py                                  # the bundled network and its encoder
    python benchmarks/projection.py --network FILE --steps 300 --photos 8

Targets are images that the network drew itself from known codes, two random people in one code, and ORL photos. The
methods are:

- plain: from w = 0, gradient descent on the squared difference of images reduced by nearest neighbour to half their
  side, without a prior; the step length is the best of several in a short trial on the same targets, which does not
  count;
- average: ours from the network's average; encoder: ours from the encoder beside the network, if it has one;
- encoder, half: the same with half of the steps; encoder alone: no steps.

It prints the mean absolute difference of pixels (of 255, where the photo shows something), the distance of dlib's
descriptors, the root mean square difference of codes in units of the spread of w (known codes only), and seconds per
image.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # the suite's modules, not this folder

# Step lengths that the plain search chooses from, and how many steps it tries each.
RATES, TRIAL = (0.1, 1.0, 10.0, 100.0), 20


class Plain:
    """Plain gradient descent, as in most public projectors."""

    def __init__(self, network, n_steps):
        import tensorflow as tf

        self.network, self.n_steps = network, n_steps
        layer = network.synthesis_layer

        def step(codes, pictures, rate):
            with tf.GradientTape() as tape:
                tape.watch(codes)
                difference = layer(codes, layer.stored_noise())[:, ::2, ::2] - pictures[:, ::2, ::2]
                loss = tf.reduce_sum(tf.reduce_mean(tf.square(difference), axis=(1, 2, 3)))
            return codes - rate * tape.gradient(loss, codes), loss

        self.step, self.tf = tf.function(step, autograph=False), tf

    def descend(self, pictures, rate, n_steps):
        codes = self.tf.zeros((len(pictures), self.network.num_layers, self.network.w_dim))
        for _ in range(n_steps):
            codes, loss = self.step(codes, self.tf.constant(pictures), self.tf.constant(rate))
        return codes.numpy(), float(loss)

    def fit(self, aligned):
        losses = [self.descend(aligned.images, rate, TRIAL)[1] for rate in RATES]
        self.rate = RATES[int(np.nanargmin(losses))]
        started = time.perf_counter()
        codes, _ = self.descend(aligned.images, self.rate, self.n_steps)
        return codes, time.perf_counter() - started


class Ours:
    """`projection.Projector`, compiled before the clock starts."""

    def __init__(self, network, n_steps, n, encoder=None):
        from stylegan import projection

        self.projector, self.encoder = projection.Projector(network, n, n_steps=n_steps), encoder
        self.warm = False

    def fit(self, aligned):
        started = time.perf_counter()
        start = None if self.encoder is None else self.encoder.encode(aligned.images)
        codes, _ = self.projector.fit(aligned, start)
        seconds = time.perf_counter() - started
        if not self.warm:
            self.warm = True
            return self.fit(aligned)
        return codes, seconds


class EncoderAlone:
    def __init__(self, encoder):
        self.encoder = encoder

    def fit(self, aligned):
        self.encoder.encode(aligned.images)
        started = time.perf_counter()
        codes = self.encoder.encode(aligned.images)
        return codes, time.perf_counter() - started


def measure(network, aligned, codes, known=None):
    """Measure the difference of pixels, and the distances of descriptors and of codes in units of the spread."""
    import tensorflow as tf

    from stylegan import features, projection

    drawn = np.clip(network.synthesis(codes)[..., : network.architecture.colours], -1, 1)
    difference = np.abs(drawn - np.clip(aligned.images, -1, 1)).mean(axis=3)
    transforms = features.chip_transforms(aligned.landmarks)
    halved = features.halvings(transforms)
    described = [
        features.describe(tf.constant((x + 1) * 127.5, tf.float32), transforms, halved).numpy()
        for x in (drawn, aligned.images)
    ]
    distance = np.linalg.norm(described[0] - described[1], axis=1).mean()
    apart = np.nan
    if known is not None:
        apart = float(np.sqrt(((codes - known) ** 2).mean()) / projection.spread_of(network))
    return 127.5 * float(difference[aligned.visible].mean()), float(distance), apart


def own_pictures(network, n):
    """Draw images of known codes, coarse layers from one random person and fine ones from another."""
    import datasets
    import detection
    from stylegan import alignment, mix_styles
    from stylegan.alignment import AlignedPhotos

    random = np.random.RandomState(1)
    people = [network.truncate(network.mapping(random.randn(n, network.z_dim))) for _ in range(2)]
    codes = mix_styles(*people, range(network.num_layers // 2, network.num_layers))
    side = network.resolution
    points = network.description.get("landmarks")
    if points is None:  # where a typical face lies in FFHQ
        face = detection.detect(datasets.load_faces("orl").select([0])).landmarks[0]
        points = detection.move_points(face, alignment.ffhq_transform(face, side))
    pictures = network.synthesis(codes)[..., : network.architecture.colours]
    return codes, AlignedPhotos(pictures, np.stack([points] * n), np.ones((n, side, side), dtype=bool))


def orl_photos(network, n):
    """Load photos of some people and align them."""
    import datasets
    import detection
    from stylegan import alignment

    faces = datasets.load_faces("orl", per_identity=1, random_state=1).select(slice(0, n))
    return alignment.align(faces.images, detection.detect(faces).landmarks, network)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", help="file of weights; default: the bundled network")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--photos", type=int, default=8)
    options = parser.parse_args()

    import stylegan
    from stylegan.encoder import load_encoder

    weights = Path(options.network) if options.network else stylegan.BUNDLED
    network = stylegan.load_network(weights)
    beside = weights.with_name(f"{weights.stem}-encoder.npz")
    encoder = load_encoder(beside) if beside.is_file() else None
    methods = {
        "plain": Plain(network, options.steps),
        "average": Ours(network, options.steps, options.photos),
    }
    if encoder:
        methods["encoder"] = Ours(network, options.steps, options.photos, encoder)
        methods["encoder, half"] = Ours(network, max(1, options.steps // 2), options.photos, encoder)
        methods["encoder alone"] = EncoderAlone(encoder)
    codes, own = own_pictures(network, options.photos)
    targets = {"own": (own, codes), "ORL": (orl_photos(network, options.photos), None)}
    print(f"{network}, {options.steps} steps, {options.photos} images at once")
    print(f"{'target':8}{'method':16}{'pixels':>8}{'descriptors':>13}{'codes':>8}{'seconds':>9}")
    for target, (aligned, known) in targets.items():
        for name, method in methods.items():
            found, seconds = method.fit(aligned)
            pixels, distance, apart = measure(network, aligned, found, known)
            row = (
                f"{target:8}{name:16}{pixels:8.2f}{distance:13.3f}{apart:8.2f}{seconds / options.photos:9.2f}"
            )
            print(row, flush=True)
    print(f"the plain search took steps of {methods['plain'].rate:g} on the ORL photos")


if __name__ == "__main__":
    main()
