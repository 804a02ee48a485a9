"""Compare fixed-size partitions: SSE/SST, gap, CPU seconds, wall seconds, peak memory, sizes.

    python benchmarks/partitioning.py                        # everything; an hour, as the peers are slow
    python benchmarks/partitioning.py --data celeba-20 10177 --methods "balanced fast" mdav

Each run is a separate process with one thread, so that its peak memory (including imports
and data) is measured alone; compiled code comes from the cache, which a first small run fills. SSE is summed
over the labels in float64, and SST is the sum of squares about the overall mean. Data: the reference
descriptors if they are available (`celeba-k`), and Gaussian samples of n people with the spectrum of
spectrum.csv: `n` (k = 10), `n/10` and `n/2` (10 and 2 clusters). `23000x50` has 50 columns and 10 clusters. If a
package is not installed, its row says so. The gap is the share by which the SSE could fall at most, 1 - bound / SSE;
it is computed if the method "bound" is among the methods.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # `partitioning` is the suite's module, not this script
REFERENCE = ROOT.parent / "shared" / "reference" / "encoding_data" / "dlib_celeba_979.pickle"


def load_celeba(k):
    import utils

    return utils.load_encodings(REFERENCE)[1], k


def generate(people, k=10, columns=128):
    """Gaussian descriptors (people, columns) float32, zero mean, of the committed spectrum."""
    spectrum = np.loadtxt(ROOT / "benchmarks" / "spectrum.csv", dtype=np.float32)
    X = np.random.default_rng(0).standard_normal((people, len(spectrum)), dtype=np.float32)
    X *= np.sqrt(spectrum)
    return X[:, :columns], k


DATA = {
    "celeba-20": lambda: load_celeba(20),
    "celeba-5": lambda: load_celeba(5),
    **{str(people): lambda people=people: generate(people) for people in (1_000, 10_177, 70_000, 202_599)},
    **{
        f"{people}/{share}": lambda people=people, share=share: generate(people, people // share)
        for people in (1_000, 10_177, 23_000)
        for share in (10, 2)
    },
    "23000x50": lambda: generate(23_000, 2_300, 50),
}


def suite(name, **options):
    """One of the suite's partitions as a function of X, k and a seed."""

    def run(X, k, seed):
        import partitioning

        return partitioning.PARTITIONERS[name](X, k, random_state=seed, **options)

    return run


def constrained(starts):
    def run(X, k, seed):
        from k_means_constrained import KMeansConstrained

        clusters = len(X) // k
        model = KMeansConstrained(
            clusters, size_min=k, size_max=-(-len(X) // clusters), n_init=starts, random_state=seed, n_jobs=1
        )
        return model.fit_predict(X.astype(np.float64))

    return run


def unconstrained(X, k, seed):
    from sklearn.cluster import KMeans

    return KMeans(len(X) // k, n_init=1, random_state=seed).fit_predict(X)


def lower_bound(X, k, seed):
    import partitioning

    return partitioning.lower_bound(X, k)


METHODS = {
    "bound": lower_bound,
    "balanced fast": suite("balanced", effort="fast"),
    "balanced default": suite("balanced"),
    "balanced best": suite("balanced", effort="best"),
    "ward": suite("ward"),
    "mdav": suite("mdav"),
    "kmeans_elki": suite("kmeans_elki"),
    "kmeans_assignment": suite("kmeans_assignment"),
    "kmember": suite("kmember"),
    "random": suite("random"),
    "k-means-constrained": constrained(1),
    "k-means-constrained, 10 starts": constrained(10),
    "KMeans, sizes free": unconstrained,
}


def measure(data, method, seed):
    """Run one method on one data set in this process; return a dict of measurements."""
    import partitioning

    X, k = DATA[data]()
    total = partitioning.within_cluster_sse(X, np.zeros(len(X)))
    METHODS[method](np.random.default_rng(0).standard_normal((60, 40), dtype=np.float32), 5, seed)
    wall, processor = time.perf_counter(), time.process_time()
    result = METHODS[method](X, k, seed)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if method == "bound":
        sse, sizes = result, "-"
    else:
        sse = partitioning.within_cluster_sse(X, result)
        sizes = np.unique(result, return_counts=True)[1]
        sizes = f"{sizes.min()}-{sizes.max()} ({len(sizes)})"
    return {
        "sse": sse,
        "share": sse / total,
        "cpu": processor,
        "wall": wall,
        "peak": peak,
        "sizes": sizes,
    }


def measure_apart(data, method, seed, timeout):
    """`measure` in a new process with one thread; return a dict of measurements, or why it failed."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--measure", data, method, "--seed", str(seed)]
    try:
        done = subprocess.run(
            command, env={**os.environ, **threads}, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return f"not finished in {timeout:g} s"
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"])[-1]
    missing = last.removeprefix("ModuleNotFoundError: No module named ")
    return last[:100] if missing == last else f"not installed: {missing}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--timeout", type=float, default=300.0, help="wall seconds allowed per run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", nargs=2, metavar=("DATA", "METHOD"), help="one run, as JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure, arguments.seed)))
        return
    print("| data | method | SSE | SSE/SST | gap % | CPU s | wall s | peak MB | sizes (clusters) |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
    for data in arguments.data:
        if data.startswith("celeba") and not REFERENCE.exists():
            print(f"| {data} | all | reference descriptors are not available | | | | | | |")
            continue
        bound = np.nan
        for method in arguments.methods:
            row = measure_apart(data, method, arguments.seed, arguments.timeout)
            if isinstance(row, str):
                print(f"| {data} | {method} | {row} | | | | | | |", flush=True)
                continue
            if method == "bound":
                bound = row["sse"]
            gap = 100 * (1 - bound / row["sse"])
            print(
                f"| {data} | {method} | {row['sse']:.2f} | {row['share']:.4f} | {gap:.1f} | {row['cpu']:.2f} "
                f"| {row['wall']:.2f} | {row['peak']:.0f} | {row['sizes']} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
