"""Releases that keep what they claim, and every way in which one could not."""

import hashlib
import io
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import uuid
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

import detection
import release
from datasets import Faces
from release import files as release_files
from release import journal, layout, writing
from release.__main__ import main

N = 12


@pytest.fixture(scope="module")
def faces(orl):
    """Photos 1 of twelve people; photos 2 and 3 are the others."""
    people = np.isin(orl.identities, orl.people[:N])
    kept = np.array([int(name.split("/")[1].split(".")[0]) <= 3 for name in orl.names])
    return orl.select(people & kept).split(1, 0)


@pytest.fixture(scope="module")
def shared(faces):
    """Mean photos of three clusters of four people, and the labels."""
    labels = np.arange(N) % 3
    images = [
        np.mean([faces.images[i] for i in np.flatnonzero(labels == label)], axis=0) for label in range(3)
    ]
    return [image.astype(np.uint8) for image in images], labels


@pytest.fixture
def written(tmp_path, faces, shared):
    """A good release in shared mode, k = 4, and its ledger."""
    images, labels = shared
    release.write_release(
        tmp_path / "out", faces, images, labels, mode="shared", ledger=tmp_path / "key.json"
    )
    return tmp_path / "out"


def png(image, **options):
    """As a release encodes it, or with other options of Pillow."""
    if not options:
        return release.encode_png(image)
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG", **options)
    return data.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def rewrite(folder, change):
    """Change the manifest and give all files the same time again."""
    path = folder / release.MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    same_time(folder)


def same_time(folder):
    for path in (*folder.iterdir(), folder):
        os.utime(path, (layout.FILE_TIME, layout.FILE_TIME), follow_symlinks=False)


def put(folder, images):
    """Replace a release's files by others (bytes), with a manifest that lists them."""
    for path in folder.glob("*.png"):
        path.unlink()
    files = {}
    for content in images:
        name = os.urandom(16).hex() + ".png"
        (folder / name).write_bytes(content)
        files[name] = hashlib.sha256(content).hexdigest()

    def change(manifest):
        ordered = dict(sorted(files.items()))
        manifest.update(files=ordered, n_files=len(files), n_images=len(set(files.values())))

    rewrite(folder, change)


def failed(report):
    return {check.name for check in report.checks if check.passed is False}


# writing ----------------------------------------------------------------------------------------------------


def test_shared_release_has_one_equal_file_a_person(written, shared):
    manifest = json.loads((written / "manifest.json").read_text())
    assert set(manifest) == set(layout.MANIFEST_KEYS)
    assert (manifest["mode"], manifest["k"], manifest["n_files"], manifest["n_images"]) == ("shared", 4, N, 3)
    contents = [path.read_bytes() for path in written.glob("*.png")]
    assert sorted(map(contents.count, set(contents))) == [4, 4, 4]
    decoded = {release.decode_png(content).tobytes() for content in contents}
    assert decoded == {image.tobytes() for image in shared[0]}


def test_nothing_in_a_release_leads_back(written, faces):
    for path in written.iterdir():
        assert path.name == "manifest.json" or re.fullmatch(r"[0-9a-f]{32}\.png", path.name)
        assert path.stat().st_mtime == layout.FILE_TIME
    text = (written / "manifest.json").read_text()
    assert not re.search(r"\bs\d+\b|pgm|identity|orl", text)
    assert list(json.loads(text)["files"]) == sorted(json.loads(text)["files"])


def test_names_are_new_each_time_and_in_no_order(tmp_path, faces, shared):
    orders = []
    for number in range(6):
        release.write_release(
            tmp_path / f"{number}", faces, *shared, mode="shared", ledger=tmp_path / f"{number}.json"
        )
        photos = json.loads((tmp_path / f"{number}.json").read_text())["photos"]
        orders.append(tuple(np.argsort([photo["file"] for photo in photos])))
    assert len(set(orders)) == 6


def test_ledger_is_private_and_leads_back(written, faces, shared):
    path = written.parent / "key.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    photos = json.loads(path.read_text())["photos"]
    assert [photo["photo"] for photo in photos] == list(faces.names)
    for photo, label in zip(photos, shared[1], strict=True):
        image = release.decode_png((written / photo["file"]).read_bytes())
        assert image.tobytes() == shared[0][label].tobytes() and photo["outcome"] == "anonymized"
    assert len({photo["file"] for photo in photos}) == N


def test_photos_of_one_person_share_a_file(tmp_path, orl):
    faces = orl.select(np.arange(40))  # four people with ten photos each
    images = [np.full((50, 50, 3), 90, np.uint8), np.full((50, 50, 3), 150, np.uint8)]
    release.write_release(
        tmp_path / "out", faces, images, np.repeat([0, 1], 20), mode="shared", ledger=tmp_path / "key"
    )
    assert len(list((tmp_path / "out").glob("*.png"))) == 4
    assert release.audit_release(tmp_path / "out")["k-anonymity"].passed


def test_every_photo_without_an_image_needs_a_reason(tmp_path, faces, shared):
    images, labels = shared
    labels = labels.copy()
    labels[[0, 5]] = -1
    options = {"mode": "shared", "ledger": tmp_path / "key", "k": 3}
    for reasons in ({}, {"failed": {0: "no face"}}, {"failed": {0: "", 5: "", 6: ""}}):
        with pytest.raises(ValueError, match="2 photos have no image"):
            release.write_release(tmp_path / "out", faces, images, labels, **options, **reasons)
    with pytest.raises(ValueError, match="1 have two"):
        release.write_release(
            tmp_path / "out", faces, images, labels, **options, failed={0: "a", 5: "b"}, suppressed={0: "c"}
        )
    assert not (tmp_path / "out").exists() and not (tmp_path / "key").exists()
    release.write_release(
        tmp_path / "out", faces, images, labels, **options, failed={0: "no face"}, suppressed={5: "asked to"}
    )
    photos = json.loads((tmp_path / "key").read_text())["photos"]
    outcomes = {
        row: (photo["outcome"], photo["reason"]) for row, photo in enumerate(photos) if not photo["file"]
    }
    assert outcomes == {0: ("failed", "no face"), 5: ("suppressed", "asked to")}
    assert len(list((tmp_path / "out").glob("*.png"))) == N - 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "secret"}, "mode must be"),
        ({"k": 5}, "at least 5 people must share each image, but one is shared by 4"),
        ({"k": 1}, "at least 2"),
        ({"k": True}, "at least 2"),
        ({"mode": "per_photo", "k": 4}, "k must be None"),
        ({"mode": "per_photo"}, "an image of its own"),
        ({"labels": np.arange(N)[:5]}, "12 labels, one per row"),
        ({"labels": np.full(N, 3)}, "labels must use every integer"),
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path, faces, shared, options, message):
    given_options = {"labels": shared[1], "mode": "shared", "ledger": tmp_path / "key", **options}
    with pytest.raises(ValueError, match=message):
        release.write_release(tmp_path / "out", faces, shared[0], **given_options)
    assert list(tmp_path.iterdir()) == []


def test_a_person_in_two_clusters_is_refused(tmp_path, faces, shared):
    identities = faces.identities.copy()
    identities[1] = identities[0]
    with pytest.raises(ValueError, match="one image"):
        release.write_release(
            tmp_path / "out", Faces(faces.images, identities, faces.names), *shared, mode="shared",
            ledger=tmp_path / "key",
        )  # fmt: skip


def test_photos_as_they_came_are_refused(tmp_path, faces):
    images = [np.zeros((50, 50, 3), np.uint8) for _ in range(N)]
    for photo in (faces.images[3], faces.others.images[5]):
        images[7] = photo
        with pytest.raises(ValueError, match=r"unchanged photos \(first: image 7\)"):
            release.write_release(
                tmp_path / "out", faces, images, np.arange(N), mode="per_photo", ledger=tmp_path / "key"
            )


def test_ledger_may_not_lie_in_the_release_nor_replace_another(tmp_path, faces, shared):
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "way").symlink_to(folder)
    for ledger in (folder / "key", tmp_path / "way" / "key", folder / ".." / "out" / "key"):
        with pytest.raises(ValueError, match="must not be inside"):
            release.write_release(folder, faces, *shared, mode="shared", ledger=ledger)
    (tmp_path / "key").write_text("older")
    with pytest.raises(FileExistsError, match="only key"):
        release.write_release(folder, faces, *shared, mode="shared", ledger=tmp_path / "key")
    assert (tmp_path / "key").read_text() == "older"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        release.write_release(folder, faces, *shared, mode="shared", ledger=tmp_path / "no" / "key")
    release.write_release(
        folder, faces, *shared, mode="shared", ledger=tmp_path / "new"
    )  # an empty folder is fine
    with pytest.raises(FileExistsError, match="not an empty folder"):
        release.write_release(folder, faces, *shared, mode="shared", ledger=tmp_path / "newer")


def test_a_second_release_with_other_clusters_is_warned_of(tmp_path, faces, shared, written):
    """12 people, 3 and 4 images: every pair of images belongs to one person. The first clusters again are fine."""
    earlier = [(written, tmp_path / "key.json")]
    first = release.earlier_partition(*earlier[0], faces)
    assert pd.crosstab(first, shared[1]).gt(0).sum().tolist() == [1, 1, 1]
    images = [*shared[0], shared[0][0] + 1]

    def write(name, images, labels):
        release.write_release(
            tmp_path / name,
            faces,
            images,
            labels,
            mode="shared",
            ledger=tmp_path / f"{name}.json",
            earlier=earlier,
        )

    with pytest.warns(UserWarning, match=r"12 people .* promise nothing: 4 \* 3 images .* only 0 others"):
        write("second", images, np.arange(N) // 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write("again", images[:3], first)
        write("coarser", images[:1], np.zeros(N, dtype=int))


def test_a_partition_that_cannot_be_read_is_refused(tmp_path, faces, written):
    with pytest.raises(ValueError, match="are not a release and its ledger"):
        release.earlier_partition(written, tmp_path / "no.json", faces)
    strangers = Faces(faces.images, np.char.add("x", faces.identities.astype(str)), faces.names)
    with pytest.raises(ValueError, match="names none of these people"):
        release.earlier_partition(written, tmp_path / "key.json", strangers)


def test_marked_files_are_known_as_synthetic_and_pass(tmp_path, faces, shared):
    folder = tmp_path / "out"
    release.write_release(folder, faces, *shared, mode="shared", ledger=tmp_path / "key", mark=True)
    paths = sorted(folder.glob("*.png"))
    with Image.open(paths[0]) as image:
        assert "digitalsourcetype/compositeSynthetic" in image.text["XML:com.adobe.xmp"]
    pixels = {release.decode_png(path.read_bytes()).tobytes() for path in paths}
    assert pixels == {image.tobytes() for image in shared[0]}
    report = release.audit_release(folder)
    assert report.passed and "the mark of synthetic faces" in report["images"].detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data, image: release.encode_png(image), "which could carry a message"),
        (lambda data, image: data.replace(b"compositeSynthetic", b"compositesynthetic"), "damaged"),
        (lambda data, image: png(image, pnginfo=other_mark()), "carries text"),
        (lambda data, image: data.replace(mark_of(data), 2 * mark_of(data)), "another encoding"),
    ],
)
def test_other_marks_and_mixtures_are_found(tmp_path, faces, shared, change, message):
    folder = tmp_path / "out"
    release.write_release(folder, faces, *shared, mode="shared", ledger=tmp_path / "key", mark=True)
    path = sorted(folder.glob("*.png"))[0]
    data = path.read_bytes()
    path.write_bytes(change(data, release.decode_png(data)))
    report = release.audit_release(folder)
    assert report["images"].passed is False and message in report["images"].detail


def mark_of(data):
    """The chunk behind the header."""
    return data[33 : 33 + 12 + int.from_bytes(data[33:37])]


def other_mark():
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "s1")
    return info


def test_the_audit_bounds_what_a_shared_release_leaks(written):
    report = release.audit_release(written)
    bounds = {
        "n_people": 12,
        "n_images": 3,
        "vulnerability": 0.25,
        "leakage_bits": np.log2(3),
        "greatest_gain": 3,
    }
    assert report.bounds == bounds == json.loads(report.to_json())["bounds"]
    assert "a chance of at most 3/12" in str(report)
    (written / "notes.txt").write_text("")
    assert release.audit_release(written).bounds is None


def test_an_interruption_leaves_no_release(tmp_path, faces, shared, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.utils, "save_atomic", stop)
    with pytest.raises(KeyboardInterrupt):
        release.write_release(tmp_path / "out", faces, *shared, mode="shared", ledger=tmp_path / "key")
    assert list(tmp_path.iterdir()) == []


def test_wide_and_16_bit_images_are_checked(tmp_path, faces, shared):
    with pytest.raises(TypeError, match="uint8"):
        release.write_release(
            tmp_path / "out", faces, [image.astype(float) for image in shared[0]], shared[1], mode="shared",
            ledger=tmp_path / "key",
        )  # fmt: skip


# auditing files ---------------------------------------------------------------------------------------------


def test_good_release_passes(written):
    report = release.audit_release(written)
    assert report.passed and failed(report) == set()
    assert report.claim == "Claim: at least 4 people share each image, byte for byte."
    assert [check.name for check in report.checks if check.passed is None] == [
        "ledger",
        "originals",
        "people",
        "attack",
    ]
    parsed = json.loads(report.to_json())
    assert parsed["passed"] is True and len(parsed["checks"]) == len(report.checks)
    assert "passes the audit" in str(report)


def test_per_photo_release_claims_nothing(tmp_path, faces):
    images = [cv2.GaussianBlur(image, (0, 0), 8) for image in faces.images]
    release.write_release(
        tmp_path / "out", faces, images, np.arange(N), mode="per_photo", ledger=tmp_path / "key"
    )
    report = release.audit_release(tmp_path / "out")
    assert report.passed and report["k-anonymity"].passed is None
    assert "no k-anonymity is claimed" in report["k-anonymity"].detail
    assert report.claim.startswith("No k-anonymity")


def test_too_few_copies_fail(written):
    contents = [path.read_bytes() for path in sorted(written.glob("*.png"))]
    first = contents[0]
    put(written, [content for content in contents if content != first] + [first] * 3)
    report = release.audit_release(written)
    assert (
        failed(report) == {"k-anonymity"}
        and "1 of 3 images are shared by fewer than k = 4" in report["k-anonymity"].detail
    )


def test_equal_pixels_in_different_bytes_are_different_images(written, shared):
    image = shared[0][0]
    put(written, [png(image, compress_level=level) for level in (0, 1, 6, 9)])
    report = release.audit_release(written)
    assert failed(report) == {"images", "k-anonymity"}


def test_changed_missing_and_added_files_fail(written):
    names = sorted(path.name for path in written.glob("*.png"))
    (written / names[0]).write_bytes((written / names[1]).read_bytes()[:-1] + b"\0")
    (written / names[2]).unlink()
    shutil.copy2(written / names[3], written / ("ab" * 16 + ".png"))
    same_time(written)
    detail = release.audit_release(written)["files"].detail
    assert (
        "1 are missing" in detail
        and "1 are not in the manifest" in detail
        and "1 have a different digest" in detail
    )


def with_text(image):
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "somebody")
    return png(image, pnginfo=info)


def with_exif(image):
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (52.0, 1.0, 1.0)}
    return png(image, exif=exif)


METADATA = {
    "text": (with_text, "text"),
    "compressed text": (lambda image: insert(image, b"zTXt", b"Comment\0\0" + zlib.compress(b"s1")), "text"),
    "EXIF with GPS": (with_exif, "EXIF"),
    "profile": (lambda image: png(image, icc_profile=b"profile of a camera"), "colour profile"),
    "time": (lambda image: insert(image, b"tIME", b"\x07\xe8\1\1\0\0\0"), "a time"),
    "resolution": (lambda image: png(image, dpi=(300, 300)), "data other than pixels"),
    "own chunk": (lambda image: insert(image, b"prVt", b"s1/1.pgm"), "data other than pixels"),
    "bytes behind": (lambda image: png(image) + b"s1/1.pgm", "extra bytes"),
    "bytes after pixels": (lambda image: with_stream(image, zlib.compress(rows(image)) + b"s1"), "number of bytes"),
    "more pixels": (lambda image: with_stream(image, zlib.compress(rows(image) + b"s1")), "number of bytes"),
    "fewer pixels": (lambda image: with_stream(image, zlib.compress(rows(image)[:-1])), "number of bytes"),
    "palette": (lambda image: png(image[..., 0], compress_level=9), "8-bit RGB"),
    "alpha": (lambda image: png(np.dstack([image, image[..., :1]]), compress_level=9), "8-bit RGB"),
    "broken filter": (lambda image: with_stream(image, zlib.compress(b"\x09" + rows(image)[1:])), "damaged"),
    "cut short": (lambda image: png(image)[:-20], "truncated"),
    "JPEG": (lambda image: cv2.imencode(".jpg", image)[1].tobytes(), "not a PNG"),
    "nothing": (lambda image: b"", "not a PNG"),
}  # fmt: skip


def insert(image, kind, content):
    data = png(image)
    return data[:33] + chunk(kind, content) + data[33:]


def rows(image):
    return b"".join(b"\0" + row.tobytes() for row in image)


def with_stream(image, stream):
    height, width = image.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", METADATA)
def test_anything_but_pixels_fails(written, shared, kind):
    make, word = METADATA[kind]
    put(written, [make(shared[0][0])] * 4)
    report = release.audit_release(written)
    assert failed(report) == {"images"} and word in report["images"].detail


def with_chunks(image, length):
    """The release's own stream in chunks of other lengths."""
    data = release.encode_png(image)
    size = struct.unpack(">I", data[33:37])[0]
    stream = data[41 : 41 + size]
    parts = [chunk(b"IDAT", stream[i : i + length]) for i in range(0, len(stream), length)]
    return data[:33] + b"".join(parts) + chunk(b"IEND", b"")


ENCODINGS = {
    "no filters": lambda image: with_stream(image, zlib.compress(rows(image))),
    "another level": lambda image: png(image, compress_level=1),
    "optimized": lambda image: png(image, optimize=True),
    "short chunks": lambda image: with_chunks(image, 100),
    "an empty chunk": lambda image: insert(image, b"IDAT", b""),
    "stored": lambda image: with_stream(image, zlib.compress(rows(image), 0)),
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_the_same_pixels_in_another_encoding_fail(written, shared, kind):
    """Filters, chunks and compression could carry a message."""
    data = ENCODINGS[kind](shared[0][0])
    assert np.array_equal(release.decode_png(data), shared[0][0])
    put(written, [data] * 4)
    report = release.audit_release(written)
    assert failed(report) == {"images"} and "another encoding" in report["images"].detail


def test_huge_images_are_not_decoded(written):
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))
    bomb += chunk(b"IDAT", zlib.compress(bytes(10**7))) + chunk(b"IEND", b"")
    put(written, [bomb] * 4)
    report = release.audit_release(written)
    assert failed(report) == {"images"} and "exceed the limit" in report["images"].detail


def test_small_header_over_much_data_is_refused(written):
    image = np.zeros((20, 20, 3), np.uint8)
    put(written, [with_stream(image, zlib.compress(bytes(10**7), 9))] * 4)
    report = release.audit_release(written)
    assert "number of bytes" in report["images"].detail


def test_large_files_are_not_read(written, monkeypatch):
    monkeypatch.setattr(release_files, "_IMAGE_BYTES", 1000)
    assert "too large" in release.audit_release(written)["files"].detail
    monkeypatch.setattr(release_files, "_MOST_FILES", 5)
    assert "more than 5 files" in release.audit_release(written)["folder"].detail


def test_all_images_together_are_limited(written, monkeypatch, shared):
    monkeypatch.setattr(release_files, "_ALL_IMAGE_BYTES", shared[0][0].nbytes * 2)
    assert "together" in release.audit_release(written)["images"].detail


def test_links_folders_and_devices_fail_and_are_not_followed(written, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    name = sorted(path.name for path in written.glob("*.png"))[0]
    (written / name).rename(tmp_path / "kept.png")
    (written / name).symlink_to(tmp_path / "kept.png")
    (written / "more").mkdir()
    os.mkfifo(written / ("cd" * 16 + ".png"))
    report = release.audit_release(written)
    assert "3 links, folders or devices" in report["folder"].detail
    assert "1 are missing" in report["files"].detail
    shutil.rmtree(written)
    written.mkdir()
    (written / release.MANIFEST).symlink_to(tmp_path / "secret.json")
    assert {"folder", "manifest"} <= failed(release.audit_release(written))


def test_a_link_to_a_release_is_no_release(written, tmp_path):
    (tmp_path / "way").symlink_to(written)
    assert failed(release.audit_release(tmp_path / "way")) == {"folder"}


def test_foreign_files_and_ledgers_fail(written):
    (written / "notes.txt").write_text("hello")
    same_time(written)
    report = release.audit_release(written)
    assert failed(report) == {"foreign files"} and "LEDGER" not in report["foreign files"].detail
    shutil.copy(written.parent / "key.json", written / "data.json")
    same_time(written)
    report = release.audit_release(written)
    assert "1 of them look like a LEDGER" in report["foreign files"].detail


def test_foreign_names_are_shown_harmlessly(written):
    (written / "\x1b[31mred\n.txt").write_text("")
    same_time(written)
    detail = release.audit_release(written)["foreign files"].detail
    assert "\x1b" not in detail and "\n" not in detail


def test_different_times_fail(written):
    path = next(written.glob("*.png"))
    os.utime(path, (1e9, 1e9))
    assert failed(release.audit_release(written)) == {"times"}


def test_different_permissions_fail(written):
    next(written.glob("*.png")).chmod(0o600)
    assert failed(release.audit_release(written)) == {"times"}


def test_counted_and_derived_names_fail(written, shared):
    content = png(shared[0][0])

    def renamed(names):
        put(written, [content] * len(names))
        files = {}
        for path, name in zip(sorted(written.glob("*.png")), names, strict=True):
            path.rename(written / f"{name}.png")
            files[f"{name}.png"] = hashlib.sha256(content).hexdigest()
        rewrite(written, lambda manifest: manifest.update(files=dict(sorted(files.items()))))
        return release.audit_release(written)

    assert failed(renamed([f"{number:032x}" for number in range(4)])) == {"names"}
    assert failed(renamed([hashlib.md5(str(number).encode()).hexdigest() for number in range(4)])) == {
        "names"
    }
    digest = hashlib.sha256(content).hexdigest()[:32]
    assert failed(renamed([digest, *(os.urandom(16).hex() for _ in range(3))])) == {"names"}
    assert failed(
        renamed([f"person {number}".encode().ljust(16, b"\0").hex() for number in (1, 7, 4, 2)])
    ) == {"names"}
    assert failed(renamed([uuid.uuid1().hex for _ in range(4)])) == {"names"}
    assert failed(renamed([uuid.uuid4().hex for _ in range(4)])) == set()
    assert failed(renamed([os.urandom(16).hex() for _ in range(4)])) == set()
    assert "foreign files" in failed(renamed([f"s{number}" for number in range(4)]))


MANIFESTS = {
    "no JSON": "{",
    "no text": b"\xff\xfe\0",
    "a list": "[]",
    "deep": "[" * 100_000,
    "a huge number": '{"k": ' + "9" * 10_000 + "}",
    "a further entry": lambda m: m.update(people=["s1"]),
    "an entry less": lambda m: m.pop("n_files"),
    "another format": lambda m: m.update(format="x"),
    "another version": lambda m: m.update(version=True),
    "another mode": lambda m: m.update(mode="open"),
    "k of one": lambda m: m.update(k=1),
    "k as text": lambda m: m.update(k="4"),
    "no k": lambda m: m.update(k=None),
    "k in per_photo mode": lambda m: m.update(mode="per_photo"),
    "a path as name": lambda m: m["files"].update({"../../etc/passwd": "0" * 64}),
    "no digest": lambda m: m["files"].update({"a" * 32 + ".png": "x"}),
    "a number as digest": lambda m: m["files"].update({"a" * 32 + ".png": 7}),
    "files as list": lambda m: m.update(files=list(m["files"])),
    "another order": lambda m: m.update(files=dict(reversed(m["files"].items()))),
    "an entry twice": '{"k": 2, "k": 4}',
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_bad_manifests_fail(written, kind):
    bad = MANIFESTS[kind]
    if callable(bad):
        rewrite(written, bad)
    else:
        (written / release.MANIFEST).write_bytes(bad if isinstance(bad, bytes) else bad.encode())
    same_time(written)
    report = release.audit_release(written)
    assert "manifest" in failed(report) and "k-anonymity" in failed(report)


def test_a_claim_above_the_truth_fails(written):
    rewrite(written, lambda manifest: manifest.update(k=5))
    assert failed(release.audit_release(written)) == {"k-anonymity"}
    rewrite(written, lambda manifest: manifest.update(k=4, n_images=7))
    assert failed(release.audit_release(written)) == {"files"}


def test_empty_and_absent_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        release.audit_release(tmp_path / "nothing")
    report = release.audit_release(tmp_path)
    assert not report.passed and {"manifest", "files", "k-anonymity"} <= failed(report)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_break_the_decoder(data, whole):
    image = np.zeros((20, 20, 3), np.uint8)
    data = data if whole else png(image)[: 8 + len(data)] + data
    try:
        decoded = release.decode_png(data)
    except ValueError:
        return
    assert decoded.shape == (20, 20, 3)


# against originals ------------------------------------------------------------------------------------------


def with_image(folder, faces, image, tmp_path):
    """A per_photo release of blurred photos in which one image was exchanged."""
    images = [cv2.GaussianBlur(photo, (0, 0), 10) for photo in faces.images]
    release.write_release(folder, faces, images, np.arange(N), mode="per_photo", ledger=tmp_path / "key")
    contents = [path.read_bytes() for path in sorted(folder.glob("*.png"))]
    put(folder, [*contents[:-1], png(image)])
    return release.audit_release(folder, faces)


def turned(photo, degrees, scale=1.0):
    height, width = photo.shape[:2]
    change = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    return cv2.warpAffine(photo, change, (width, height), borderMode=cv2.BORDER_REPLICATE)


def compressed(photo, quality):
    return cv2.imdecode(cv2.imencode(".jpg", photo, [1, quality])[1], 1)


def barred(photo):
    """The eyes behind a black bar."""
    photo = photo.copy()
    photo[40:58, 10:-10] = 0
    return photo


COPIES = {
    "turned a little": lambda photo: turned(photo, 7),
    "turned by 45 degrees": lambda photo: turned(photo, 45),
    "turned by 90 degrees and larger": lambda photo: cv2.resize(np.rot90(photo).copy(), None, fx=1.3, fy=1.3),
    "negative": lambda photo: 255 - photo,
    "mirrored negative": lambda photo: 255 - photo[:, ::-1],
    "compressed hard": lambda photo: compressed(photo, 20),
    "cut tightly": lambda photo: photo[14:-8, 8:-8],
    "barred": barred,
    "darker and mirrored": lambda photo: photo[:, ::-1] * 0.6,
    "gamma": lambda photo: 255 * (photo / 255) ** 0.5,
    "noisy": lambda photo: np.clip(photo + np.random.default_rng(0).normal(0, 12, photo.shape), 0, 255),
    "blurred a little": lambda photo: cv2.GaussianBlur(photo, (0, 0), 1.5),
    "filtered": lambda photo: cv2.medianBlur(photo, 5),
    "half the size": lambda photo: cv2.resize(photo, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "on a larger canvas": lambda photo: cv2.copyMakeBorder(
        photo, 60, 30, 80, 40, cv2.BORDER_CONSTANT, value=(90, 90, 90)
    ),
    "itself": lambda photo: photo,
    "mirrored": lambda photo: photo[:, ::-1],
    "upside down": lambda photo: photo[::-1, ::-1],
    "brighter": lambda photo: np.clip(photo * 1.2 + 10, 0, 255),
    "larger": lambda photo: cv2.resize(photo, None, fx=2, fy=2),
    "compressed": lambda photo: cv2.imdecode(cv2.imencode(".jpg", photo, [1, 60])[1], 1),
    "cropped": lambda photo: photo[5:-5, 5:-5],
}


@pytest.mark.parametrize("kind", COPIES)
def test_changed_copies_of_a_photo_fail(tmp_path, faces, kind):
    image = np.ascontiguousarray(COPIES[kind](faces.images[4])).astype(np.uint8)
    report = with_image(tmp_path / "out", faces, image, tmp_path)
    assert "originals" in failed(report) and report["originals"].detail.startswith("1 of 12 images")


def test_a_photo_kept_apart_counts_as_original(tmp_path, faces):
    report = with_image(tmp_path / "out", faces, faces.others.images[3], tmp_path)
    assert "originals" in failed(report)


def test_photo_without_a_face_that_is_found_fails_too(tmp_path, faces, monkeypatch):
    """What the detector misses is compared where each photo has its face."""
    photo = np.clip(faces.images[2] * 0.995 + 1, 0, 255).astype(np.uint8)
    detect = detection.detect

    def blind(pictures, strict=False):
        seen = detect(pictures, strict)
        if isinstance(pictures, Faces):
            return seen
        return detection.Detections(seen.boxes, seen.landmarks, np.zeros(len(seen), bool), seen.n_faces)

    monkeypatch.setattr(detection, "detect", blind)
    report = with_image(tmp_path / "out", faces, photo, tmp_path)
    assert "1 by structure" in report["originals"].detail


def test_blurred_photos_and_surrogates_are_no_copies(tmp_path, faces, written):
    report = release.audit_release(written, faces)
    assert report["originals"].passed and report["people"].passed and report["attack"].passed is None
    images = [cv2.GaussianBlur(photo, (0, 0), 10) for photo in faces.images]
    release.write_release(
        tmp_path / "blur", faces, images, np.arange(N), mode="per_photo", ledger=tmp_path / "blur.json"
    )
    report = release.audit_release(tmp_path / "blur", faces, tmp_path / "blur.json")
    assert report["originals"].passed and report.passed
    assert "by the ledger, the nearest photo shows the right person" in report["attack"].detail


def test_recognisable_images_fail_the_attack(tmp_path, faces):
    images = list(faces.others.images[::2])  # other photos of the same people
    alone = Faces(faces.images, faces.identities, faces.names)
    release.write_release(
        tmp_path / "out", alone, images, np.arange(N), mode="per_photo", ledger=tmp_path / "key"
    )
    report = release.audit_release(tmp_path / "out", alone, tmp_path / "key")
    assert "attack" in failed(report)
    right = int(re.search(r"the right person for (\d+) of 12", report["attack"].detail)[1])
    assert right >= 10


def test_more_files_than_people_fail(written, faces):
    contents = [path.read_bytes() for path in written.glob("*.png")]
    put(written, [*contents, *contents])
    assert release.audit_release(written)["k-anonymity"].passed  # files alone cannot tell
    assert failed(release.audit_release(written, faces)) == {"people"}


def test_names_made_from_people_fail(written, faces):
    path = sorted(written.glob("*.png"))[0]
    name = hashlib.sha1(str(faces.identities[0]).encode()).hexdigest()[:32] + ".png"
    path.rename(written / name)

    def change(manifest):
        manifest["files"][name] = manifest["files"].pop(path.name)
        manifest["files"] = dict(sorted(manifest["files"].items()))

    rewrite(written, change)
    assert release.audit_release(written).passed
    assert failed(release.audit_release(written, faces)) == {"people"}


def test_a_report_never_names_people(tmp_path, faces, written):
    report = release.audit_release(written, faces, written.parent / "key.json")
    assert not re.search(r"\bs\d+\b", report.to_json())


def test_a_ledger_that_numbers_people_is_read_by_its_photos(tmp_path, faces):
    """As the folder command writes it: it does not know who is who."""
    images = [cv2.GaussianBlur(photo, (0, 0), 1.5) for photo in faces.images]
    release.write_release(
        tmp_path / "out", faces, images, np.arange(N), mode="per_photo", ledger=tmp_path / "named.json"
    )
    said = release.audit_release(tmp_path / "out", faces, tmp_path / "named.json")["attack"].detail
    assert f"the right person for {N} of {N}" in said
    ledger = json.loads((tmp_path / "named.json").read_text())
    for i, photo in enumerate(ledger["photos"]):
        photo["identity"], photo["photo"] = f"person {i}", photo["photo"] + "#0"
    (tmp_path / "numbered.json").write_text(json.dumps(ledger))
    assert release.audit_release(tmp_path / "out", faces, tmp_path / "numbered.json")["attack"].detail == said
    for photo in ledger["photos"]:
        photo["photo"] = "elsewhere/" + photo["photo"]
    (tmp_path / "foreign.json").write_text(json.dumps(ledger))
    with pytest.raises(ValueError, match="names none of the originals"):
        release.audit_release(tmp_path / "out", faces, tmp_path / "foreign.json")


@pytest.mark.parametrize("opening", ["[", '{"photos":'])
def test_json_that_is_nested_too_deeply_is_a_sentence(written, faces, tmp_path, opening):
    """In a ledger, a line of a journal, and what an interrupted run has left."""
    deep = opening * 100_000
    (tmp_path / "deep.json").write_text(deep)
    with pytest.raises(ValueError, match="deep.json: not a ledger of write_release"):
        release.audit_release(written, faces, tmp_path / "deep.json")
    (tmp_path / "journal").write_text('{"key": "a"}\n' + deep + "\n")
    assert journal.read_journal(tmp_path / "journal") == [{"key": "a"}]
    pending = tmp_path / ".partial-new-1"
    pending.mkdir()
    (pending / "pending-ledger.json").write_text(deep)
    writing.clean_up(written, tmp_path / "new.json")
    assert not pending.exists() and not (tmp_path / "new.json").exists()


def test_a_damaged_ledger_is_an_error(written, faces, tmp_path):
    (tmp_path / "bad").write_text('{"photos": [1]}')
    with pytest.raises(ValueError, match="not a ledger"):
        release.audit_release(written, faces, tmp_path / "bad")


# command line -----------------------------------------------------------------------------------------------


def test_command_line(written, capsys):
    assert main(["audit", str(written), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True
    (written / "notes.txt").write_text("")
    assert main(["audit", str(written)]) == 1
    assert "FAILED foreign files" in capsys.readouterr().out
    assert main(["audit", str(written / "nothing")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_module_runs(written):
    root = Path(release.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "release", "audit", str(written)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0 and "k-anonymity: each of 3 images" in done.stdout
