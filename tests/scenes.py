"""Photos of several people, made of ORL faces, for the tests of the folder command."""

import json

import cv2
import numpy as np
from PIL import Image

from anonymizer.__main__ import main

SKIN = np.array([1.0, 0.8, 0.66])


def scene(images, places, size=(260, 520), seed=0):
    """Faces on a coloured ground: places are (x, y, height of the head, angle) in pixels and degrees."""
    height, width = size
    random = np.random.default_rng(seed)
    canvas = np.ones((height, width, 3)) * random.uniform(60, 190, 3)
    canvas += cv2.GaussianBlur(random.normal(0, 90, (height, width, 3)), (0, 0), 9)
    for image, (x, y, tall, angle) in zip(images, places, strict=True):
        move = cv2.getRotationMatrix2D((46, 56), angle, tall / 112)
        move[:, 2] += np.array([x, y]) - (46, 56)
        soft = cv2.GaussianBlur(
            cv2.ellipse(np.zeros((112, 92)), (46, 56), (42, 53), 0, 0, 360, 1, -1), (0, 0), 2
        )
        drawn = cv2.warpAffine(image * SKIN, move, (width, height), flags=cv2.INTER_CUBIC)
        alpha = cv2.warpAffine(soft, move, (width, height))[..., None]
        canvas = canvas * (1 - alpha) + drawn * alpha
    return np.clip(canvas, 0, 255).astype(np.uint8)


#: Two faces on one photo.
PLACES = [(120, 130, 190, 8), (370, 125, 210, -10)]

#: Who is on each photo: rows of the ORL photos, ten a person.
ON_PHOTO = {
    "anna-beth.jpg": (0, 70),
    "beth-carl.jpg": (73, 140),
    "dora-emil.jpg": (200, 310),
    "anna-emil.jpg": (2, 312),
}


def fill(place, orl):
    """Four photos of five people, one without a face, one cut short, and a text."""
    for number, (name, rows) in enumerate(ON_PHOTO.items()):
        image = Image.fromarray(scene([orl.images[i] for i in rows], PLACES, seed=number))
        exif = Image.Exif()
        exif[0x010E] = "taken by somebody"
        image.save(place / name, quality=95, exif=exif)
    Image.fromarray(scene([], [], seed=9)).save(place / "meadow.png")
    (place / "cut.jpg").write_bytes((place / "anna-beth.jpg").read_bytes()[:2000])
    (place / "notes.txt").write_text("no photo")


def run(source, out, *options):
    """Run the command with one detector, as the tests' faces are seen from the front; the exit status."""
    return main([str(source), str(out), "--quick", *options])


def journal_of(out):
    lines = (out.with_name(out.name + "-private") / "ledger-faces.jsonl").read_text().splitlines()
    return {record["source"]: record for record in map(json.loads, lines[1:])}
