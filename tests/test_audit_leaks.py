"""The leaks that an audit finds, as the table in docs/releasing.md lists them, and good releases, which it passes."""

import hashlib
import hmac
import json
import os
import re
import uuid
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from test_release import COPIES, compressed, insert, png, rows, same_time, turned, with_chunks, with_stream

import anonymizer
import datasets
import recognisers
import release
from anonymizer.__main__ import main
from datasets import Faces

DOCS = Path(__file__).parents[1] / "docs" / "releasing.md"
N, K = 12, 4
#: The person whose photo leaks.
VICTIM = 4


@pytest.fixture(autouse=True)
def only_dlib(monkeypatch):
    """The table holds for every installation, with or without further recognisers."""
    monkeypatch.setattr(recognisers, "strongest", lambda: "dlib")


@pytest.fixture(scope="module")
def photos(orl):
    """Photos 1 of twelve people, with photos 2 to 10 as the others."""
    return orl.select(np.isin(orl.identities, orl.people[:N])).split(1, 0)


@pytest.fixture(scope="module")
def faces(photos):
    return Faces(photos.images, photos.identities, photos.names)


@pytest.fixture(scope="module")
def surrogates(faces):
    model, labels = anonymizer.load("pixel", faces), np.arange(N) % (N // K)
    return [model.surrogate(np.flatnonzero(labels == label)) for label in range(N // K)], labels


class Release:
    """A good release in which leaks are planted; `key` is its ledger."""

    def __init__(self, folder, faces, photos, images, labels):
        self.folder, self.key, self.faces, self.photos = folder / "out", folder / "key.json", faces, photos
        self.surrogate = images[labels[VICTIM]]
        release.write_release(self.folder, faces, images, labels, mode="shared", ledger=self.key)
        self.files = {photo["photo"]: photo["file"] for photo in json.loads(self.key.read_text())["photos"]}

    @property
    def photo(self):
        return self.faces.images[VICTIM]

    def first(self):
        return sorted(self.folder.glob("*.png"))[0]

    def change_manifest(self, change):
        path = self.folder / release.MANIFEST
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest, indent=1) + "\n")
        same_time(self.folder)

    def replace(self, data):
        """Replace the victim's image, which its whole cluster shares."""
        path = self.folder / self.files[self.faces.names[VICTIM]]
        old, new = (hashlib.sha256(content).hexdigest() for content in (path.read_bytes(), data))

        def change(manifest):
            for name, digest in manifest["files"].items():
                if digest == old:
                    (self.folder / name).write_bytes(data)
                    manifest["files"][name] = new

        self.change_manifest(change)

    def remove_one(self):
        """Remove one of the k files of an image."""
        name = self.first().name
        self.first().unlink()
        ledger = json.loads(self.key.read_text())
        ledger["photos"] = [photo for photo in ledger["photos"] if photo["file"] != name]
        self.key.write_text(json.dumps(ledger))

        def change(manifest):
            del manifest["files"][name]
            manifest["n_files"] -= 1

        self.change_manifest(change)

    def show(self, image):
        image = np.clip(np.ascontiguousarray(image), 0, 255).astype(np.uint8)
        self.replace(release.encode_png(image))

    def rename(self, names, in_ledger=False):
        """Give files other names, {photo: 32 digits}, in the folder and the manifest, and maybe in the ledger."""
        new = {self.files[photo]: f"{name[:32]}.png" for photo, name in names.items()}

        def change(manifest):
            files = {new.get(name, name): digest for name, digest in manifest["files"].items()}
            manifest["files"] = dict(sorted(files.items()))

        for old, name in new.items():
            (self.folder / old).rename(self.folder / name)
        if in_ledger:
            ledger = json.loads(self.key.read_text())
            for photo in ledger["photos"]:
                photo["file"] = new.get(photo["file"], photo["file"])
            self.key.write_text(json.dumps(ledger))
        self.change_manifest(change)

    def name_by(self, digest, in_ledger=True):
        """Name all files by a digest of their person."""
        people = zip(self.faces.names, self.faces.identities, strict=True)
        self.rename({photo: digest(str(person)) for photo, person in people}, in_ledger)


# plants -----------------------------------------------------------------------------------------------------


def mark(path):
    try:
        os.setxattr(path, "user.person", b"s1")
    except (AttributeError, OSError):
        pytest.skip("no extended attributes here")


def access_times(r):
    for seconds, path in enumerate(sorted(r.folder.iterdir())):
        os.utime(path, (1e9 + seconds, path.stat().st_mtime))


def add_file(name, content):
    def plant(r):
        (r.folder / name).write_bytes(content)
        same_time(r.folder)

    return plant


def grey(photo):
    return cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY)


def as_rgb(values):
    return np.repeat(values[..., None], 3, axis=2)


def mosaic(photo, side):
    height, width = photo.shape[:2]
    small = cv2.resize(photo, (-(-width // side), -(-height // side)), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


def bar(photo, top, bottom):
    photo = photo.copy()
    photo[int(top * len(photo)) : int(bottom * len(photo))] = 0
    return photo


def noisy(photo, deviation):
    return photo + np.random.default_rng(0).normal(0, deviation, photo.shape)


def low_bits(photo, surrogate, bits):
    return (surrogate >> bits << bits) | as_rgb(grey(photo) >> (8 - bits))


def one_channel(photo, surrogate, channel):
    image = surrogate.copy()
    image[..., channel] = grey(photo)
    return image


def blurred(photo, sigma):
    return cv2.GaussianBlur(photo, (0, 0), sigma)


def encrypted_bits(photo, surrogate):
    noise = np.random.default_rng(0).integers(0, 2, photo.shape, dtype=np.uint8)
    return (surrogate & 254) | ((photo >> 7) ^ noise)


def sobel(photo):
    values = grey(photo).astype(float)
    return as_rgb(np.hypot(cv2.Sobel(values, -1, 1, 0), cv2.Sobel(values, -1, 0, 1)))


def further_photo(r, number):
    theirs = np.flatnonzero(r.photos.others.identities == r.faces.identities[VICTIM])
    return r.photos.others.images[theirs[number]]


def image(change):
    return lambda r: r.show(change(r.photo))


def mixed(change):
    return lambda r: r.show(change(r.photo, r.surrogate))


def content(encode):
    return lambda r: r.replace(encode(r.surrogate))


def named(digest, **options):
    return lambda r: r.name_by(digest, **options)


def keyed(person):
    return hmac.new(b"a secret", person.encode(), "sha256").hexdigest()


#: Leak -> function that plants it.
LEAKS = {
    "a ledger or any other file": add_file("notes.json", b'{"identity": "s1"}'),
    "further entries of the manifest": lambda r: r.change_manifest(lambda m: m.update(people=["s1"])),
    "an order of the manifest": lambda r: r.change_manifest(
        lambda m: m.update(files=dict(reversed(m["files"].items())))
    ),
    "the time of a file": lambda r: os.utime(r.first(), (1e9, 1e9)),
    "times of access": access_times,
    "the time of the folder": lambda r: os.utime(r.folder, (1e9, 1e9)),
    "permissions of a file": lambda r: r.first().chmod(0o640),
    "permissions of the folder": lambda r: r.folder.chmod(0o711),
    "extended attributes of a file": lambda r: mark(r.first()),
    "extended attributes of the folder": lambda r: mark(r.folder),
    "text or EXIF in a PNG": content(lambda i: insert(i, b"tEXt", b"Author\0s1")),
    "bytes behind a PNG": content(lambda i: release.encode_png(i) + b"s1"),
    "filters of a PNG": content(lambda i: with_stream(i, zlib.compress(rows(i)))),
    "lengths of chunks": content(lambda i: with_chunks(i, 100)),
    "empty chunks": content(lambda i: insert(i, b"IDAT", b"")),
    "level of compression": content(lambda i: png(i, compress_level=1)),
    "fewer than k copies": lambda r: r.remove_one(),
    "names that are numbered": lambda r: r.rename(
        {photo: f"{i:032x}" for i, photo in enumerate(r.files)}, in_ledger=True
    ),
    "names by SHA-256 of a number": lambda r: r.rename(
        {photo: hashlib.sha256(str(i).encode()).hexdigest() for i, photo in enumerate(r.files)}, in_ledger=True
    ),
    "names by SHA-512 of a person": named(lambda p: hashlib.sha512(p.encode()).hexdigest()),
    "names by BLAKE2 of a person": named(lambda p: hashlib.blake2b(p.encode(), digest_size=16).hexdigest()),
    "names by UUID 5 of a person": named(lambda p: uuid.uuid5(uuid.NAMESPACE_URL, p).hex),
    "digests of a person with a prefix": named(lambda p: hashlib.sha1(f"person-{p}".encode()).hexdigest()),
    "digests of a person with an ending": named(lambda p: hashlib.md5(f"{p}.jpg".encode()).hexdigest()),
    "digests of a person in upper case": named(lambda p: hashlib.sha3_256(p.upper().encode()).hexdigest()),
    "parts of a digest in a name": named(
        lambda p: os.urandom(4).hex() + hashlib.sha256(p.encode()).hexdigest()[8:]
    ),
    "names that the ledger doesn't list": named(keyed, in_ledger=False),
    "names by a secret key": named(keyed),
    "a photo as it was": image(lambda p: p),
    "mirrored, rotated or negative": image(lambda p: 255 - np.rot90(p)[:, ::-1]),
    "rotated by 20 degrees": image(lambda p: turned(p, 20)),
    "cropped": image(COPIES["cut tightly"]),
    "a bar over the eyes": image(lambda p: bar(p, 0.36, 0.52)),
    "stretched 1.5 x 1": image(lambda p: cv2.resize(p, None, fx=1.5, fy=1)),
    "stretched 1 x 1.5": image(lambda p: cv2.resize(p, None, fx=1, fy=1.5)),
    "blurred by 2.5 pixels": image(lambda p: blurred(p, 2.5)),
    "blurred by 4 pixels": image(lambda p: blurred(p, 4)),
    "a quarter of the size": image(lambda p: cv2.resize(p, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)),
    "JPEG quality 5": image(lambda p: compressed(p, 5)),
    "false colours": image(lambda p: cv2.applyColorMap(grey(p), cv2.COLORMAP_JET)),
    "4 grey levels": image(lambda p: p // 64 * 85),
    "black and white": image(lambda p: as_rgb((grey(p) > np.median(grey(p))) * 255)),
    "a mosaic of 6 pixels": image(lambda p: mosaic(p, 6)),
    "strong noise": image(lambda p: noisy(p, 60)),
    "edges": image(sobel),
    "contours": image(lambda p: as_rgb(cv2.Canny(grey(p), 60, 120))),
    "hidden in the low 2 bits": mixed(lambda p, s: low_bits(p, s, 2)),
    "hidden in one channel": mixed(lambda p, s: one_channel(p, s, 2)),
    "another photo of the person": lambda r: r.show(further_photo(r, 0)),
    "another photo, rotated": lambda r: r.show(np.rot90(further_photo(r, 1))),
    "another photo, as a negative": lambda r: r.show(255 - further_photo(r, 0)),
    "another photo, stretched": lambda r: r.show(cv2.resize(further_photo(r, 0), None, fx=1.5, fy=1)),
    "another photo in one channel": lambda r: r.show(one_channel(further_photo(r, 0), r.surrogate, 0)),
    "cropped and blurred": image(lambda p: blurred(p[14:-8, 8:-8].copy(), 2.5)),
    "blurred by 10 pixels": image(lambda p: blurred(p, 10)),
    "encrypted in low bits": mixed(encrypted_bits),
}  # fmt: skip


def listed_leaks():
    """The table of the docs: leak -> the checks that find it from the files alone, and with originals and ledger."""
    lines = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    return {leak: (alone, known) for leak, alone, known in lines if leak != "leak" and "---" not in leak}


def found(report):
    """The names of failed checks, as the table shows them."""
    return ", ".join(check.name for check in report.checks if check.passed is False) or "not found"


@pytest.mark.parametrize("leak", LEAKS)
def test_leaks_are_found_as_the_table_says(tmp_path, photos, faces, surrogates, leak):
    planted = Release(tmp_path, faces, photos, *surrogates)
    LEAKS[leak](planted)
    alone = found(release.audit_release(planted.folder))
    known = found(release.audit_release(planted.folder, faces, planted.key))
    assert (alone, known) == listed_leaks()[leak]


def test_the_table_lists_all_leaks():
    assert list(listed_leaks()) == list(LEAKS)


# good releases ----------------------------------------------------------------------------------------------


def shared_release(method):
    def make(folder, faces):
        model, labels = anonymizer.load(method, faces), np.arange(N) % (N // K)
        images = [model.surrogate(np.flatnonzero(labels == label)) for label in range(N // K)]
        release.write_release(
            folder / "out", faces, images, labels, mode="shared", ledger=folder / "key.json"
        )
        return folder / "out", folder / "key.json"

    return make


def filtered_release(method):
    def make(folder, faces):
        images = [anonymizer.load(method, faces).apply(i) for i in range(N)]
        release.write_release(
            folder / "out", faces, images, np.arange(N), mode="per_photo", ledger=folder / "key.json"
        )
        return folder / "out", folder / "key.json"

    return make


def folder_release(folder, faces):
    """The result of the folder command, which edits each photo."""
    for person, photo in zip(faces.identities, faces.images, strict=True):
        (folder / "photos" / person).mkdir(parents=True)
        Image.fromarray(photo).save(folder / "photos" / person / "1.png")
    options = ["--k", str(K), "--method", "aam", "--mode", "per_photo", "--people", "folders"]
    assert main([str(folder / "photos"), str(folder / "out"), *options]) == 0
    return folder / "out", folder / "out-private" / "ledger.json"


GOOD = {
    "shared, aam": shared_release("aam"),
    "shared, cnn": shared_release("cnn"),
    "shared, pixel": shared_release("pixel"),
    "folder command": folder_release,
    "blur": filtered_release("blur"),
    "pixelate": filtered_release("pixelate"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_releases_pass(tmp_path, faces, kind):
    folder, ledger = GOOD[kind](tmp_path, faces)
    photos = tmp_path / "photos"
    originals = datasets.load_faces(photos) if photos.exists() else faces
    assert found(release.audit_release(folder)) == "not found"
    assert found(release.audit_release(folder, originals, ledger)) == "not found"
