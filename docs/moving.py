"""Draw the animation on the page about videos: ``python -m docs.moving``.

Ten ORL people (AT&T Laboratories Cambridge) sway; below, the video that `python -m anonymizer` makes of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from clips import RATE, Actor, compose, write  # noqa: E402

import datasets  # noqa: E402
from video.streams import read_frames  # noqa: E402

_FRAMES, _SIZE = 48, (240, 620)


def main() -> None:
    """Compose the clip, anonymize it, and save both as an animation."""
    faces = datasets.load_faces("orl", per_identity=1, random_state=0).images

    def swaying(number):
        def place(i):
            angle = 2 * np.pi * (i / _FRAMES + number / 10)
            x, y = 70 + 120 * (number % 5), 65 + 112 * (number // 5)
            return (
                x + 10 * np.sin(angle),
                y + 3 * np.cos(angle),
                100,
                7 * np.sin(angle),
                0.9 + 0.1 * np.cos(angle),
            )

        return place

    clip = compose([Actor(faces[i], swaying(i)) for i in range(10)], _FRAMES, _SIZE)
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place) / "in", Path(place) / "out"
        folder.mkdir()
        write(folder / "swaying.mp4", clip.frames)
        subprocess.run([sys.executable, "-m", "anonymizer", folder, out, "--k", "5"], cwd=ROOT, check=True)
        ledger = json.loads((Path(place) / "out-private" / "ledger.json").read_text(encoding="utf-8"))
        released = [frame.image for frame in read_frames(out / ledger["photos"][0]["file"], 2048)]
    pairs = [np.vstack(pair) for pair in zip(clip.frames[::2], released[::2], strict=True)]
    first, *others = map(Image.fromarray, pairs)
    duration = round(2000 / RATE)
    first.save(
        ROOT / "docs" / "moving.webp",
        save_all=True,
        append_images=others,
        duration=duration,
        loop=0,
        quality=60,
    )


if __name__ == "__main__":
    main()
