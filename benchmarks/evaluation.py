"""What the whole evaluation of one combination costs from an empty cache: ``python benchmarks/evaluation.py``.

CPU seconds are user and system time of this process and of those it started; half of them is what two idle cores
take at best. Steps that share work (descriptors of the photos) are charged to the first that needs it. Give names and a
k to measure another combination: ``python benchmarks/evaluation.py dlib ward pixel 5``.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil


def cpu_seconds():
    """User and system time of this process and all that it started."""
    mine = psutil.Process()
    times = [mine.cpu_times()] + [child.cpu_times() for child in mine.children(recursive=True)]
    return sum(t.user + t.system for t in times) + times[0].children_user + times[0].children_system


def main():
    """Print the table."""
    started = time.perf_counter()
    os.environ.setdefault("ANONFACES_QUIET", "1")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ANONFACES_CACHE"] = folder
        import datasets
        import detection
        import embedding
        import evaluation

        chosen = sys.argv[1:5] or ["dlib", "ward", "aam", "5"]
        combination = evaluation.Combination(*chosen[:3], int(chosen[3]))
        state = {"cpu": cpu_seconds(), "wall": time.perf_counter()}
        print(f"{'step':24} {'CPU s':>8} {'wall s':>8}")
        print(f"{'imports':24} {state['cpu']:8.1f} {state['wall'] - started:8.1f}", flush=True)

        def lap(step):
            cpu, wall = cpu_seconds(), time.perf_counter()
            print(f"{step:24} {cpu - state['cpu']:8.1f} {wall - state['wall']:8.1f}", flush=True)
            state.update(cpu=cpu, wall=wall)

        faces = datasets.load_faces("orl", per_identity=1, random_state=0)
        for part in (faces, faces.others):
            detection.detect(part)
        lap("faces found")
        for part in (faces, faces.others):
            embedding.embed(part, "dlib")
        lap("photos described")
        how = (faces, [combination.embedding], [combination.partitioner], [combination.anonymizer])
        evaluation.sweep(*how, [combination.k])
        lap("row of the sweep")
        table = evaluation.attack_table(faces, [combination])
        lap(f"attacks ({table['recogniser'].nunique()} recognisers)")
        evaluation.utility_table(faces, [combination])
        lap("utility")
        evaluation.fairness_table(faces, [combination])
        lap("fairness")
        print(f"{'all':24} {state['cpu']:8.1f} {state['wall'] - started:8.1f}")


if __name__ == "__main__":
    main()
