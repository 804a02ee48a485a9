"""What the folder command costs on given photos: ``python benchmarks/folder.py PHOTOS [OPTIONS OF THE COMMAND]``.

Runs ``python -m anonymizer PHOTOS OUT`` in a process of its own with an empty cache, and prints CPU seconds (user and
system) per photo, where they are spent, and the peak memory. A step that calls another is charged without it.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

#: Step -> functions, as module and name, where a module uses them.
STEPS = {
    "decoding": ["datasets.faces.read_image"],
    "detection": ["detection._search", "detection._fit_landmarks"],
    "descriptors": ["embedding.embed"],
    "model": ["anonymizer.load"],
    "surrogates": ["anonymizer.base.Surrogates.surrogate"],
    "pasting": ["release.pasting.paste", "release.pasting.blur_out"],
    "PNG": ["release.png.encode_png"],
    "writing": ["release.writing.write_release"],
    "audit": ["release.auditing.audit_release"],
    "attack": ["release.leaks.measure"],
    "report": ["release.report.make_report"],
}


def main() -> None:
    """Print the table."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            __file__,
            "--run",
            f"{folder}/spent.json",
            sys.argv[1],
            f"{folder}/out",
            *sys.argv[2:],
        ]
        environment = {**os.environ, "ANONFACES_CACHE": f"{folder}/cache", "ANONFACES_QUIET": "1"}
        started = time.perf_counter()
        done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
        wall = time.perf_counter() - started
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        record = Path(folder, "spent.json")
        if not record.is_file():
            sys.exit(done.returncode)
        spent = json.loads(record.read_text())
    n_photos, total = spent.pop("photos"), used.ru_utime + used.ru_stime
    spent["other"] = total - sum(spent.values())
    print(f"{n_photos} photos, {wall / n_photos:.2f} s per photo, peak memory {used.ru_maxrss / 1024:.0f} MB")
    print(f"{'step':12} {'CPU s per photo':>16}")
    for step, seconds in spent.items():
        print(f"{step:12} {seconds / n_photos:16.3f}")
    print(f"{'total':12} {total / n_photos:16.3f}")


def run(record: Path, arguments: list[str]) -> None:
    """Run the command in this process, and write the CPU seconds of each step to a file."""
    started = time.process_time()
    spent: Counter[str] = Counter(dict.fromkeys(["imports", *STEPS], 0.0))
    import anonymizer.__main__ as program
    from release import gathering

    spent["imports"] = time.process_time() - started
    inside: list[list[float]] = []  # CPU seconds in nested steps, one entry per running step

    def timed(step, function):
        @functools.wraps(function)
        def wrapper(*given, **named):
            inside.append([0.0])
            begun = time.process_time()
            try:
                return function(*given, **named)
            finally:
                seconds = time.process_time() - begun
                spent[step] += seconds - inside.pop()[0]
                if inside:
                    inside[-1][0] += seconds

        return wrapper

    for step, names in STEPS.items():
        for name in names:
            replace_everywhere(name, functools.partial(timed, step))
    spent["photos"] = 0
    opened = gathering.open_photos

    def count(paths, *given, **named):
        spent["photos"] = len(paths)
        return opened(paths, *given, **named)

    gathering.open_photos = count
    code = program.main(arguments)
    record.write_text(json.dumps(spent))
    sys.exit(code)


def replace_everywhere(name: str, wrap) -> None:
    """Wrap a function or method in every loaded module that holds it."""
    place, _, last = name.rpartition(".")
    owner = sys.modules.get(place)
    if owner is None:  # a method
        module, _, cls = place.rpartition(".")
        owner = getattr(sys.modules[module], cls)
    function = getattr(owner, last)
    wrapped = wrap(function)
    for holder in [owner, *sys.modules.values()]:
        if getattr(holder, "__dict__", {}).get(last) is function:
            setattr(holder, last, wrapped)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
