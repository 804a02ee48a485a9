"""Faces come in: the ORL faces, folders of three layouts, odd images, and folders that are wrong."""

import contextlib
import io
import os
import pickle
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import datasets
import datasets.faces
import partitioning
from datasets import Faces, ImageFiles, is_grey
from datasets.faces import read_image
from datasets.formats import count_frames

HEIF = Path(__file__).parent / "heif"

RAFD = "Rafd{pose}_{identity}_{ethnicity}_{sex}_{expression}_{gaze}.jpg"


def picture(seed=0, height=40, width=30):
    """A smooth colour picture, different for each seed: uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def noise(height=64, width=64):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def people_folder(folder, photos_each=2, people=("ann", "bob", "eve")):
    for p, person in enumerate(people):
        for i in range(photos_each):
            save(folder / person / f"{i}.png", picture(10 * p + i))
    return folder


# The ORL faces


def test_orl_has_ten_photos_of_forty_people(orl):
    assert len(orl) == 400
    assert orl.images.shape == (400, 112, 92, 3)
    assert orl.images.dtype == np.uint8
    assert orl.n_people == 40
    assert set(orl.people) == {f"s{i}" for i in range(1, 41)}
    assert set(np.unique(orl.identities, return_counts=True)[1]) == {10}
    assert set(orl.names) == {f"s{p}/{i}.pgm" for p in range(1, 41) for i in range(1, 11)}
    assert [name.split("/")[0] for name in orl.names] == list(orl.identities)
    assert orl.names[0] == "s1/1.pgm" and orl.names[-1] == "s40/10.pgm"
    assert orl.others is None
    assert orl.attributes.shape == (400, 0)


def test_orl_photos_are_grey_faces_all_different(orl):
    assert orl.grey
    assert len(set(orl.image_keys)) == 400
    assert np.ptp(orl.images.reshape(400, -1), axis=1).min() > 50


def test_files_that_are_no_orl_photo_are_skipped(monkeypatch):
    listed = datasets.sources.utils.package_files
    stray = []

    def with_strays(*arguments):
        paths = listed(*arguments)
        stray.extend([paths[0].parent / "target.pgm", paths[0].parents[1] / "shapes" / "1.pgm"])
        return [*stray, *paths]

    monkeypatch.setattr(datasets.sources.utils, "package_files", with_strays)
    assert len(datasets.load_faces("orl")) == 400
    assert len(stray) == 2


def test_an_incomplete_orl_is_refused(monkeypatch):
    listed = datasets.sources.utils.package_files
    monkeypatch.setattr(datasets.sources.utils, "package_files", lambda *a: listed(*a)[:-1])
    with pytest.raises(ValueError, match="must hold 400 ORL photos, got 399"):
        datasets.load_faces("orl")


# per_identity, select and the container


@pytest.mark.parametrize("per_identity", [1, 3])
def test_per_identity_keeps_some_and_puts_the_rest_aside(orl, per_identity):
    faces = orl.split(per_identity, random_state=0)
    assert len(faces) == 40 * per_identity
    assert set(np.unique(faces.identities, return_counts=True)[1]) == {per_identity}
    assert len(faces.others) == 400 - 40 * per_identity
    assert faces.others.n_people == 40
    assert sorted([*faces.names, *faces.others.names]) == sorted(orl.names)
    row = {name: i for i, name in enumerate(orl.names)}
    for part in (faces, faces.others):
        rows = [row[name] for name in part.names]
        assert rows == sorted(rows)
        np.testing.assert_array_equal(part.images, orl.images[rows])
        np.testing.assert_array_equal(part.identities, orl.identities[rows])


def test_the_seed_decides_the_choice(orl):
    def choice(seed):
        return list(orl.split(1, random_state=seed).names)

    assert choice(4) == choice(4)
    assert len({tuple(choice(seed)) for seed in range(5)}) == 5
    assert list(datasets.load_faces("orl", per_identity=1, random_state=4).names) == choice(4)
    assert list(datasets.load_faces("orl", per_identity=1).names) == choice(0)


def test_the_generator_of_numpy_may_choose(orl):
    assert len(orl.split(1, np.random.RandomState(3))) == 40


@pytest.mark.parametrize("per_identity", [10, 11])
def test_nothing_is_left_over_where_all_are_kept(orl, per_identity):
    faces = orl.split(per_identity)
    assert len(faces) == 400
    assert faces.others is None


@pytest.mark.parametrize("wrong", [0, -1, 1.0, 1.5, True, "1", [1], np.nan])
def test_a_bad_per_identity_is_refused(orl, wrong):
    with pytest.raises(ValueError, match="per_identity must be an integer of at least 1"):
        orl.split(wrong)


def test_a_person_with_fewer_photos_keeps_all():
    images = np.zeros((4, 20, 20, 3), np.uint8)
    faces = Faces(images, ["a", "b", "b", "b"], list("wxyz")).split(2, 0)
    assert list(faces.identities) == ["a", "b", "b"]
    assert list(faces.others.identities) == ["b"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(2, 6, 2), [2, 4]),
        ([5, 0, 5], [5, 0, 5]),
        (np.array([-1]), [399]),
        (np.arange(400) % 100 == 7, [7, 107, 207, 307]),
    ],
)
def test_select_takes_slices_indices_and_masks(orl, rows, expected):
    chosen = orl.select(rows)
    np.testing.assert_array_equal(chosen.images, orl.images[expected])
    assert list(chosen.names) == [orl.names[i] for i in expected]
    assert list(chosen.identities) == [orl.identities[i] for i in expected]
    assert chosen.others is None


@pytest.mark.parametrize("rows", [[], slice(5, 5), np.zeros(400, bool), 3])
def test_select_needs_rows(orl, rows):
    with pytest.raises((ValueError, IndexError), match="at least one row|arrays used as indices"):
        orl.select(rows)


def test_select_keeps_attributes_beside_their_photos():
    attributes = pd.DataFrame({"age": [10, 20, 30]})
    faces = Faces(np.zeros((3, 20, 20, 3), np.uint8), list("aab"), list("xyz"), attributes)
    assert list(faces.select([2, 0]).attributes["age"]) == [30, 10]
    assert list(faces.select([2, 0]).attributes.index) == [0, 1]
    split = faces.split(1, 0)
    assert len(split.attributes) == 2 and len(split.others.attributes) == 1


def test_a_set_of_plain_images_of_many_sizes_works():
    images = [picture(i, 30 + i, 40) for i in range(4)]
    faces = Faces(images, list("aabb"), list("wxyz"))
    chosen = faces.split(1, 0)
    for image, name in zip(chosen.images, chosen.names, strict=True):
        np.testing.assert_array_equal(image, images["wxyz".index(name)])
    assert "4 photos of 2 people, any size" in repr(faces)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((0, 20, 20, 3), np.uint8)}, "at least one photo"),
        ({"identities": ["a", "b"]}, "identities must have one entry per photo, got 2 for 3"),
        ({"names": list("wxyz")}, "names must have one entry per photo, got 4 for 3"),
        ({"attributes": pd.DataFrame({"age": [1]})}, "attributes must have one entry per photo, got 1 for 3"),
    ],
)
def test_faces_that_do_not_fit_together_are_refused(change, message):
    parts = {"images": np.zeros((3, 20, 20, 3), np.uint8), "identities": list("aab"), "names": list("xyz")}
    with pytest.raises(ValueError, match=message):
        Faces(**{**parts, **change})


def test_the_fingerprint_follows_photos_names_people_and_others(orl_people):
    same = datasets.load_faces("orl", per_identity=1, random_state=0)
    assert same.fingerprint == orl_people.fingerprint
    changed = orl_people.images.copy()
    changed[3, 5, 5, 0] ^= 1
    variants = [
        orl_people.select(slice(None)),  # without others
        orl_people.select([1, 0, *range(2, 40)]),
        Faces(changed, orl_people.identities, orl_people.names),
        Faces(orl_people.images, orl_people.identities[::-1], orl_people.names),
        Faces(orl_people.images, orl_people.identities, orl_people.names[::-1]),
    ]
    assert len({orl_people.fingerprint, *(faces.fingerprint for faces in variants)}) == 6


def test_a_set_of_photos_is_known_by_pixels_and_people(orl):
    some = orl.select([0, 1, 10, 11])
    renamed = Faces(some.images[::-1], some.identities[::-1], list("abcd"), source="a folder")
    split = renamed.split(1, 0)
    assert some.set_key == renamed.set_key == split.set_key != split.select([0, 1]).set_key
    changed = some.images.copy()
    changed[0, 0, 0, 0] ^= 1
    others = [
        Faces(changed, some.identities, some.names),
        Faces(some.images, list("abab"), some.names),
        orl.select([0, 1, 10]),
    ]
    assert len({some.set_key, *(faces.set_key for faces in others)}) == 4
    assert datasets.is_built_in(some, "orl") and datasets.is_built_in(renamed, "orl")
    assert [datasets.is_built_in(faces, "orl") for faces in others] == [False, False, True]


# What a notebook shows


def test_the_repr_is_one_line(orl, orl_people, tmp_path):
    folder = datasets.load_faces(people_folder(tmp_path / "people"))
    assert repr(orl) == "<Faces orl: 400 photos of 40 people, 112x92 grey>"
    assert repr(orl_people) == "<Faces orl: 40 photos of 40 people, 112x92 grey; 360 other photos>"
    assert repr(folder).startswith("<Faces people: 6 photos of 3 people")
    assert "\n" not in repr(folder)


@pytest.mark.parametrize("n", [1, 40])
def test_the_contact_sheet_is_a_png_that_shows_the_faces(orl_people, n):
    sheet = np.asarray(Image.open(io.BytesIO(orl_people.select(slice(0, n))._repr_png_())))  # (h, w, 3)
    first = cv2.resize(orl_people.images[0], (76, 92), interpolation=cv2.INTER_AREA)
    assert sheet.shape == ((95, 79, 3) if n == 1 else (4 * 95, 12 * 79, 3))
    assert np.abs(sheet[:92, :76].astype(int) - first).mean() < 5


def test_the_contact_sheet_shows_everybody_first(monkeypatch):
    monkeypatch.setattr("datasets.faces._SHEET_PHOTOS", 4)
    images = np.stack([np.full((20, 20, 3), 40 * i, np.uint8) for i in range(6)])
    many = datasets.Faces(images, list("aaaabc"), [f"p{i}" for i in range(6)])
    sheet = np.asarray(Image.open(io.BytesIO(many._repr_png_())))
    cells = sheet[46, 46::95, 0]  # the middle of each photo
    assert cells.tolist() == [0, 40, 160, 200]  # a, b and c first, then whoever is next


def test_the_contact_sheet_of_photos_of_many_sizes(tmp_path):
    for i, size in enumerate([(40, 30), (200, 300), (300, 100)]):
        save(tmp_path / f"p{i}" / "a.png", picture(i, *size))
    assert Image.open(io.BytesIO(datasets.load_faces(tmp_path)._repr_png_())).format == "PNG"


# The three layouts of a folder


def test_one_sub_folder_for_each_person(tmp_path):
    faces = datasets.load_faces(people_folder(tmp_path))
    assert list(faces.identities) == ["ann", "ann", "bob", "bob", "eve", "eve"]
    assert list(faces.names) == ["ann/0.png", "ann/1.png", "bob/0.png", "bob/1.png", "eve/0.png", "eve/1.png"]
    assert faces.attributes.shape == (6, 0)
    np.testing.assert_array_equal(faces.images[3], picture(11))
    split = datasets.load_faces(str(tmp_path), per_identity=1)
    assert len(split) == len(split.others) == 3


def test_each_photo_of_a_flat_folder_may_be_a_person(tmp_path):
    for i, name in enumerate(("ann.png", "ann.jpg", "bob.png")):
        save(tmp_path / name, picture(i))
    with pytest.raises(ValueError, match="people are unknown.*use people='photos'.*PEOPLE=photos"):
        datasets.load_faces(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faces = datasets.load_faces(tmp_path, per_identity=1, people="photos")
    assert list(faces.identities) == list(faces.names) == ["ann.jpg", "ann.png", "bob.png"]
    assert faces.others is None


ALIKE = {
    "decomposed": "Mu\u0308ller", "space at the end": "Müller ", "space in front": " Müller",
    "no-break space": "Müller\u00a0", "zero-width space": "Mül\u200bler", "soft hyphen": "Mül\u00adler",
    "byte order mark": "\ufeffMüller",
}  # fmt: skip


@pytest.mark.parametrize("name", ALIKE.values(), ids=ALIKE)
def test_names_that_look_the_same_are_one_person(tmp_path, name):
    people_folder(tmp_path, people=("Müller", name, "Meier"))
    with pytest.warns(UserWarning, match="2 names look the same and are one person") as warned:
        faces = datasets.load_faces(tmp_path)
    assert len(warned) == 1
    assert list(faces.people) == ["Meier", "Müller"] and (faces.identities == "Müller").sum() == 4
    same = Faces(np.zeros((3, 20, 20, 3), np.uint8), ["Müller", name, "Meier"], list("xyz"))
    assert same.n_people == 2
    labels = partitioning.PARTITIONERS["ward"](np.eye(4), 2, identities=["Müller", name, "Meier", "Huber"])
    assert list(labels) == [0, 0, 0, 0]  # three people are too few for two clusters of two


@pytest.mark.parametrize("name", ["müller", "MÜLLER", "\uff2düller"])
def test_names_that_differ_in_case_only_are_named(tmp_path, name):
    people_folder(tmp_path, people=("Müller", name, "Meier"))
    with pytest.warns(UserWarning, match="2 names differ in case only and are different people") as warned:
        faces = datasets.load_faces(tmp_path)
    assert len(warned) == 1 and faces.n_people == 3


def test_names_that_differ_are_not_touched(tmp_path):
    names = ["Anna Meier", "Annameier", "Änna", "Anna", "漢字", "İ", "\u200b"]
    people_folder(tmp_path, people=names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(datasets.load_faces(tmp_path).people) == set(names)


@pytest.mark.parametrize(
    ("source", "people", "message"),
    [
        ("orl", "photos", "the people in 'orl' are known; omit people='photos'"),
        ("orl", "faces", "unknown people 'faces'; choose from 'folders', 'photos'"),
        ("folder", "photos", "6 of 7 photos lie in sub-folders"),
    ],
)
def test_people_that_do_not_fit_the_source_are_refused(tmp_path, source, people, message):
    people_folder(tmp_path / "folder")
    save(tmp_path / "folder" / "loose.png", picture())
    with pytest.raises(ValueError, match=message):
        datasets.load_faces("orl" if source == "orl" else tmp_path / source, people=people)


def test_hidden_files_texts_and_empty_sub_folders_are_left_out(tmp_path):
    people_folder(tmp_path)
    save(tmp_path / "ann" / ".hidden.png", picture())
    save(tmp_path / ".trash" / "0.png", picture())
    (tmp_path / "bob" / "notes.txt").write_text("about bob")
    (tmp_path / "readme.md").write_text("about all")
    (tmp_path / "nobody").mkdir()
    with pytest.warns(UserWarning, match="1 sub-folders have no photos"):
        faces = datasets.load_faces(tmp_path)
    assert len(faces) == 6


def rafd_names():
    cases = [
        ("090", "01", "Caucasian", "female", "neutral", "frontal"),
        ("090", "01", "Caucasian", "female", "happy", "left"),
        ("045", "23", "Moroccan", "male", "contemptuous", "right"),
        ("180", "10", "Kid", "male", "disgusted", "frontal"),
    ]
    keys = ("pose", "identity", "ethnicity", "sex", "expression", "gaze")
    return [dict(zip(keys, case, strict=True)) for case in cases]


def test_rafd_names_tell_everything(tmp_path):
    for i, parts in enumerate(rafd_names()):
        save(tmp_path / RAFD.format(**parts), picture(i))
    faces = datasets.load_faces(tmp_path)
    assert len(faces) == 4
    assert set(faces.attributes.columns) == {"pose", "ethnicity", "sex", "expression", "gaze"}
    found = faces.attributes.assign(identity=faces.identities, name=faces.names).set_index("name")
    for parts in rafd_names():
        row = found.loc[RAFD.format(**parts)].to_dict()
        assert row == {**parts, "pose": int(parts["pose"])}
    split = faces.split(1, 0)
    assert sorted(split.identities) == ["01", "10", "23"]


def celeba_folder(folder, photos="", names=("000001.jpg", "000002.jpg", "000003.jpg")):
    for i, name in enumerate(names):
        save(folder / photos / name, picture(i))
    lines = [f"{name} {identity}" for name, identity in zip(names, (2880, 2937, 2880), strict=True)]
    (folder / "identity_CelebA.txt").write_text("\n".join([*lines, "000099.jpg 7"]) + "\n")
    return folder


ATTRIBUTES = (
    "4\nEyeglasses Male Smiling\n000003.jpg  1 -1  1\n000001.jpg -1 -1  1\n"
    "000002.jpg  1  1 -1\n000099.jpg 1 1 1\n"
)


@pytest.mark.parametrize("photos", ["", "img_align_celeba"])
def test_celeba_tables_tell_who_and_what(tmp_path, photos):
    celeba_folder(tmp_path, photos)
    plain = datasets.load_faces(tmp_path)
    assert list(plain.identities) == ["2880", "2937", "2880"]
    assert plain.attributes.shape == (3, 0)
    (tmp_path / "list_attr_celeba.txt").write_text(ATTRIBUTES)
    faces = datasets.load_faces(tmp_path)
    assert list(faces.attributes.columns) == ["Eyeglasses", "Male", "Smiling"]
    assert faces.attributes.to_numpy().tolist() == [
        [False, False, True],
        [True, True, False],
        [True, False, True],
    ]
    assert [name.rpartition("/")[2] for name in faces.names] == ["000001.jpg", "000002.jpg", "000003.jpg"]


@pytest.mark.parametrize(
    ("table", "content", "message"),
    [
        (
            "identity_CelebA.txt",
            "000001.jpg 1\n000002.jpg\n000003.jpg 1\n",
            "every line must have 2 entries, 1 do not",
        ),
        (
            "identity_CelebA.txt",
            "000001.jpg 1\n000003.jpg 1\n",
            "does not list 1 of the 3 photos.*000002.jpg",
        ),
        ("identity_CelebA.txt", "", "does not list 3 of the 3 photos"),
        (
            "identity_CelebA.txt",
            "000001.jpg 1\n000001.jpg 2\n000002.jpg 1\n000003.jpg 1\n",
            r"lists 1 photos more than once \(first: 000001.jpg",
        ),
        ("list_attr_celeba.txt", "", "truncated"),
        ("list_attr_celeba.txt", ATTRIBUTES[:-9], "every line must have 4 entries, 1 do not"),
        ("list_attr_celeba.txt", "1\nMale\n000001.jpg 1\n", "does not list 2 of the 3 photos.*000002.jpg"),
        ("list_attr_celeba.txt", ATTRIBUTES + "000001.jpg 1 1 1\n", "lists 1 photos more than once"),
        ("list_attr_celeba.txt", ATTRIBUTES.replace(" 1", " ?"), "values must be -1 or 1"),
    ],
)
def test_a_wrong_celeba_table_is_refused(tmp_path, table, content, message):
    celeba_folder(tmp_path)
    (tmp_path / table).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        datasets.load_faces(tmp_path)
    assert table in str(error.value)


OWN_TREE = {
    "root": ("", "Img/img_align_celeba", "Anno/"),
    "png": ("", "Img/img_align_celeba_png", "Anno/"),
    "doubled": ("", "Img/img_align_celeba/img_align_celeba", "Anno/"),
    "Img": ("Img", "Img/img_align_celeba", "Anno/"),
    "photos": ("Img/img_align_celeba", "Img/img_align_celeba", "Anno/"),
    "no Img": ("img_celeba", "img_celeba", ""),
}


@pytest.mark.parametrize(("source", "photos", "tables"), OWN_TREE.values(), ids=OWN_TREE)
@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_celeba_is_read_from_its_own_tree(tmp_path, source, photos, tables, ending):
    celeba_folder(tmp_path, photos)
    for path in (tmp_path / photos).iterdir():
        path.rename(path.with_suffix(ending))
    (tmp_path / "list_attr_celeba.txt").write_text(ATTRIBUTES)
    (tmp_path / "Anno").mkdir()
    for name in ("identity_CelebA.txt", "list_attr_celeba.txt"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).unlink()
        (tmp_path / tables / name).write_text(text, encoding="utf-8-sig")  # with a byte order mark
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        faces = datasets.load_faces(tmp_path / source)
    assert list(faces.identities) == ["2880", "2937", "2880"]
    assert list(faces.attributes["Eyeglasses"]) == [False, True, True]
    assert repr(faces).endswith("people by identity_CelebA.txt>")


def test_celeba_that_cannot_be_read_right_is_refused(tmp_path):
    celeba_folder(tmp_path, "img_align_celeba")
    save(tmp_path / "img_align_celeba_png" / "000001.png", picture())
    with pytest.raises(ValueError, match="2 photos are versions of the same photos.*keep one version"):
        datasets.load_faces(tmp_path)
    (tmp_path / "identity_CelebA.txt").unlink()
    with pytest.raises(ValueError, match="holds photos of many people, but identity_CelebA.txt.*is missing"):
        datasets.load_faces(tmp_path)


# What is left out, and what was guessed


LEFT_OUT = {
    "a/session2/2.jpg": "deeper than one sub-folder per person",
    "a/b/c/2.png": "deeper than one sub-folder per person",
    "a/2": "its name has no ending",
    "a/2.jp2": "its ending '.jp2' is not that of a photo",
    "a/2.jpg.part": "its ending '.part' is not that of a photo",
    "a/2.mov": "videos are not photos",
    "2.psd": "its ending '.psd' is not that of a photo",
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_files_that_are_left_out_are_named(tmp_path, name):
    people_folder(tmp_path, people=("a", "b"))
    save(tmp_path / "a" / "2.JPE", picture(), format="JPEG")
    save(tmp_path / name, picture(), format="PNG")
    with pytest.warns(UserWarning, match=r"1 files are left out \(first: ") as warned:
        faces = datasets.load_faces(tmp_path)
    assert len(warned) == 1 and len(faces) == 5
    assert f"{tmp_path / name}: {LEFT_OUT[name]}" in str(warned[0].message)


def test_links_are_followed_or_named(tmp_path):
    people_folder(tmp_path / "in", people=("a", "b"))
    people_folder(tmp_path / "elsewhere", people=("c",))
    (tmp_path / "in" / "c").symlink_to(tmp_path / "elsewhere" / "c")
    (tmp_path / "in" / "a" / "all").symlink_to(tmp_path / "in")  # a loop
    (tmp_path / "in" / "b" / "9.jpg").symlink_to(tmp_path / "nowhere.jpg")
    with pytest.warns(UserWarning, match=r"b/9.jpg: the link leads nowhere") as warned:
        faces = datasets.load_faces(tmp_path / "in")
    assert len(warned) == 1 and list(faces.people) == ["a", "b", "c"] and len(faces) == 6


def test_photos_that_are_all_too_deep_are_named(tmp_path):
    people_folder(tmp_path / "session1")
    with pytest.raises(ValueError, match="holds no photos.*session1/ann/0.png: deeper than one sub-folder"):
        datasets.load_faces(tmp_path)


def rafd_by_expression(folder, identities=("01", "02")):
    for identity in identities:
        for expression in ("happy", "sad"):
            parts = {**rafd_names()[0], "identity": identity, "expression": expression}
            save(folder / expression / RAFD.format(**parts), picture(hash(identity) % 9))
    return folder


def test_rafd_photos_are_people_by_their_names_in_any_sub_folder(tmp_path):
    faces = datasets.load_faces(rafd_by_expression(tmp_path))
    assert list(faces.people) == ["01", "02"] and faces.people_by == "RaFD file names"


@pytest.mark.parametrize(
    "stray", ["happy/extra.png", "sad/copy of Rafd090_01_Caucasian_female_sad_frontal.png"]
)
@pytest.mark.parametrize("identities", [("01",), ("01", "02")])
def test_sorted_rafd_photos_and_a_stray_one_are_refused(tmp_path, stray, identities):
    save(rafd_by_expression(tmp_path, identities) / stray, picture())
    with pytest.raises(
        ValueError, match=f"{2 * len(identities)} of .* photos have RaFD names.*first: .*{stray}"
    ):
        datasets.load_faces(tmp_path)


def test_rafd_photos_beside_others_in_a_folder_per_person(tmp_path):
    people_folder(tmp_path, people=("ann", "bob"))
    for parts in rafd_names()[:2]:
        save(tmp_path / "ann" / RAFD.format(**parts), picture())
    faces = datasets.load_faces(tmp_path)
    assert list(faces.people) == ["ann", "bob"] and repr(faces).endswith("; people by sub-folder>")
    assert faces.split(1, 0).others.people_by == "sub-folder"


# Images of all kinds


def reference(image):
    return np.asarray(image.convert("RGB"))


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = Image.fromarray(picture()).convert("L")
    image = read_image(save(tmp_path / "a.png", grey))
    np.testing.assert_array_equal(image, np.repeat(np.asarray(grey)[..., None], 3, axis=2))
    assert is_grey(image)
    assert not is_grey(picture())


def test_transparent_pixels_become_white(tmp_path):
    colour = picture()
    alpha = np.full(colour.shape[:2], 255, np.uint8)
    alpha[:10] = 0
    alpha[10:20] = 128
    image = read_image(save(tmp_path / "a.png", np.dstack([colour, alpha])))
    assert image.shape == colour.shape
    assert (image[:10] == 255).all()
    half = (colour[10:20].astype(float) * 128 + 255.0 * 127) / 255
    assert np.abs(image[10:20] - half).max() <= 1
    np.testing.assert_array_equal(image[20:], colour[20:])


def test_a_palette_gives_its_colours(tmp_path):
    palette = Image.fromarray(picture()).quantize(16)
    image = read_image(save(tmp_path / "a.png", palette))
    np.testing.assert_array_equal(image, reference(palette))
    clear = read_image(save(tmp_path / "b.png", palette, transparency=int(np.asarray(palette)[0, 0])))
    assert (clear[0, 0] == 255).all()
    gif = read_image(save(tmp_path / "c.gif", palette))
    np.testing.assert_array_equal(gif, reference(palette))


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, ending):
    levels = np.linspace(0, 65535, 40 * 30).round().astype(np.uint16).reshape(40, 30)
    image = read_image(save(tmp_path / f"a.{ending}", Image.fromarray(levels)))
    assert image.dtype == np.uint8
    assert np.abs(image[..., 0] - levels / 257.0).max() <= 0.5
    assert is_grey(image)


def integers(bits, kind):
    """A function that scales 0..1 to integers of so many bits."""
    return lambda x: (x * (2**bits - 1)).round().astype(kind)


#: Grey images of a depth that their format does not tell: 0..1 -> array to write.
DEPTHS = {
    **{f"{bits} bits in 16.png": integers(bits, np.uint16) for bits in (8, 10, 12, 14, 16)},
    **{f"{bits} bits in 32.tif": integers(bits, np.int32) for bits in (8, 12, 16, 20, 31)},
    "unit.tif": lambda x: x.astype(np.float32),
    "unit.pfm": lambda x: x.astype(np.float32),
    "bytes.tif": lambda x: (x * 255).astype(np.float32),
    "12 bits.tif": lambda x: (x * 4095).astype(np.float32),
    "12 bits.pgm": integers(12, np.uint16),
}  # fmt: skip


@pytest.mark.parametrize("name", DEPTHS)
def test_grey_of_any_depth_is_scaled_by_its_values(tmp_path, name):
    levels = np.linspace(0, 1, 40 * 30).reshape(40, 30)
    assert cv2.imwrite(str(tmp_path / name), DEPTHS[name](levels))
    image = read_image(tmp_path / name)
    assert is_grey(image)
    assert np.abs(image[..., 0] - 255 * levels).max() <= 1


def test_bright_spots_of_floats_do_not_darken_the_photo(tmp_path):
    levels = np.linspace(0, 1, 40 * 30, dtype=np.float32).reshape(40, 30)
    levels[-1, -5:] = [1.1, 2, 5, 70, 9000]
    image = read_image(save(tmp_path / "a.tif", Image.fromarray(levels)))
    assert np.abs(image[..., 0] - 255 * levels.clip(0, 1)).max() <= 1


def test_black_of_any_depth_stays_black(tmp_path):
    for kind in (np.uint16, np.int32, np.float32):
        assert not read_image(save(tmp_path / "a.tif", Image.fromarray(np.zeros((20, 20), kind)))).any()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.eye(20, dtype=np.int32) - 1, "negative or not finite"),
        (np.full((20, 20), np.nan, np.float32), "negative or not finite"),
        (np.full((20, 20), np.inf, np.float32), "negative or not finite"),
        (np.linspace(0, 7, 400, dtype=np.float32).reshape(20, 20), "floats up to 7, which does not tell"),
        (np.tri(20, dtype=np.uint16), "that it would be black"),
        (np.where(np.eye(400) > 0, 60000, np.tri(400)).astype(np.uint16), "that it would be black"),
        (np.linspace(0, 0.01, 400, dtype=np.float32).reshape(20, 20), "that it would be black"),
    ],
)
def test_grey_whose_white_is_unknown_is_refused(tmp_path, array, message):
    path = save(tmp_path / "a.tif", Image.fromarray(array))
    with pytest.raises(ValueError, match=f"a.tif: .*{message}.*save it with 8 bits per channel"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_colours_that_do_not_fill_16_bits_are_refused(tmp_path, suffix, bits):
    picture = (np.random.default_rng(0).random((20, 20, 3)) * (2**bits - 1)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / f"a.{suffix}"), picture)
    if bits == 16:
        assert np.abs(read_image(tmp_path / f"a.{suffix}")[..., ::-1] - picture / 257).max() <= 1
    else:
        with pytest.raises(ValueError, match="16 bits, of which the upper ones are not used"):
            read_image(tmp_path / f"a.{suffix}")


def test_cmyk_is_turned_to_rgb(tmp_path):
    cmyk = Image.fromarray(picture()).convert("CMYK")
    image = read_image(save(tmp_path / "a.tif", cmyk))
    np.testing.assert_array_equal(image, picture())
    jpeg = read_image(save(tmp_path / "a.jpg", cmyk, quality=95, subsampling=0))
    assert np.abs(jpeg.astype(int) - picture()).mean() < 5


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (6, lambda a: np.rot90(a, 1)),
        (8, lambda a: np.rot90(a, 3)),
    ],
)
def test_the_exif_rotation_is_applied(tmp_path, orientation, undo):
    upright = picture(height=48, width=32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", np.ascontiguousarray(undo(upright)), exif=exif)
    np.testing.assert_array_equal(read_image(path), upright)


def ramps(height=64, width=40):
    """The picture in tests/heif, which pillow-heif encoded: red across, green down, and blue in one corner."""
    y, x = np.mgrid[:height, :width]
    blue = np.where((x < width // 2) & (y < height // 2), 255, 0)
    return np.dstack([x * 255 // (width - 1), y * 255 // (height - 1), blue]).astype(np.uint8)


@pytest.mark.parametrize("name", ["turned", "ten_bits_alpha", "premultiplied", "two"])
def test_heic_is_read_upright_opaque_and_the_main_image(name):
    """`turned` is stored rotated, and both its container and its EXIF say so; `two` holds another image first."""
    image, expected = read_image(HEIF / f"{name}.heic").astype(int), ramps().astype(int)
    assert image.shape == expected.shape
    if name in ("ten_bits_alpha", "premultiplied"):
        assert (image[:18] == 255).all()
        image, expected = image[22:], expected[22:]
    assert np.abs(image - expected).mean() < 5
    assert count_frames(HEIF / f"{name}.heic") == (2 if name == "two" else 1)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_the_rotation_of_avif_is_applied_once(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(ramps(), turns)))
    image = read_image(save(tmp_path / "a.avif", stored, exif=exif, quality=95)).astype(int)
    assert image.shape == ramps().shape
    assert np.abs(image - ramps()).mean() < 5


SEVERAL_IMAGES = {"a.gif": {}, "b.webp": {"lossless": True}, "c.apng": {"format": "png"}, "d.tif": {},
                  "e.mpo": {"quality": 95}, "f.avif": {"quality": 95}}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL_IMAGES)
def test_of_several_images_in_a_file_the_first_is_read(tmp_path, name):
    first, *rest = (Image.fromarray(picture(i)) for i in range(3))
    path = save(tmp_path / name, first, save_all=True, append_images=rest, **SEVERAL_IMAGES[name])
    assert np.abs(read_image(path).astype(int) - picture(0)).mean() < 8
    assert np.abs(read_image(path).astype(int) - picture(1)).mean() > 20
    assert count_frames(path) == 3
    assert count_frames(save(tmp_path / f"one{path.suffix}", first, **SEVERAL_IMAGES[name])) == 1


def test_files_with_several_images_are_counted_once(tmp_path):
    people_folder(tmp_path)
    frames = [Image.fromarray(picture(i)) for i in range(3)]
    for name in ("ann/loop.gif", "bob/scan.tif"):
        save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"2 of 8 files hold several images \(first: loop.gif\)") as warned:
        datasets.load_faces(tmp_path, per_identity=1)
    assert len(warned) == 1


def test_videos_and_raw_files_in_a_folder_are_counted_once(tmp_path):
    people_folder(tmp_path)
    for name in ("ann/clip.mov", "ann/1.CR2", "bob/notes.txt"):
        (tmp_path / name).write_bytes(b"content")
    with pytest.warns(
        UserWarning, match=r"2 files are left out \(first: .*1.CR2: raw camera files"
    ) as warned:
        assert len(datasets.load_faces(tmp_path)) == 6
    assert len(warned) == 1
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "clip.mp4").write_bytes(b"content")
    with pytest.raises(ValueError, match="holds no photos.*clip.mp4: videos are not photos"):
        datasets.load_faces(tmp_path / "videos")


def test_one_folder_may_hold_images_of_all_kinds_and_sizes(tmp_path):
    base = Image.fromarray(picture(height=120, width=90))
    kinds = {
        "a.jpg": base, "b.png": base.convert("L"), "c.png": base.convert("RGBA"), "d.gif": base.quantize(8),
        "e.tif": base.convert("CMYK"), "f.bmp": base.resize((17, 16)), "g.webp": base.resize((300, 20)),
        "H.JPEG": base.convert("L"), "i.png": base.convert("1"), "j.png": base.convert("LA"),
    }  # fmt: skip
    for name, image in kinds.items():
        save(tmp_path / "ann" / name, image)
    faces = datasets.load_faces(tmp_path)
    assert len(faces) == len(kinds)
    for image, name in zip(faces.images, faces.names, strict=True):
        size = kinds[name.removeprefix("ann/")].size
        assert image.dtype == np.uint8
        assert image.shape == (size[1], size[0], 3)
    assert len(set(faces.image_keys)) > 5


# Photos that are read when they are asked for


@pytest.fixture
def files(tmp_path):
    return ImageFiles([save(tmp_path / f"{i}.png", picture(i, 20 + i, 30)) for i in range(5)])


def test_image_files_are_read_one_by_one(files):
    assert len(files) == 5
    for i in (0, 3, -1, np.int64(2)):
        np.testing.assert_array_equal(files[i], picture(i % 5, 20 + i % 5, 30))
    assert [image.shape[0] for image in files] == [20, 21, 22, 23, 24]
    for i in (5, -6):
        with pytest.raises(IndexError):
            files[i]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, -2), [4, 2, 0]),
        ([3, 3, 0], [3, 3, 0]),
        (np.array([True, False, False, True, False]), [0, 3]),
    ],
)
def test_image_files_take_slices_indices_and_masks(files, rows, expected):
    chosen = files[rows]
    assert isinstance(chosen, ImageFiles)
    assert [image.shape[0] - 20 for image in chosen] == expected


def test_image_files_read_nothing_before_it_is_asked_for(tmp_path):
    files = ImageFiles([tmp_path / "missing.png"])
    assert len(files) == len(files[:1]) == 1
    with pytest.raises(FileNotFoundError, match="missing.png"):
        files[0]


def test_image_files_can_be_pickled_without_their_pixels(files):
    list(files)
    data = pickle.dumps(files)
    assert len(data) < 2000
    again = pickle.loads(data)
    np.testing.assert_array_equal(again[4], files[4])


def test_decoded_photos_are_kept_up_to_the_memory_limit(files, monkeypatch):
    reads = []
    monkeypatch.setattr(
        datasets.faces, "_IMAGE_MEMORY", picture(0, 20, 30).nbytes + picture(1, 21, 30).nbytes
    )
    monkeypatch.setattr(
        datasets.faces, "read_image", lambda path: reads.append(path.stem) or read_image(path)
    )
    first, second = list(files), list(files)
    assert reads == ["0", "1", "2", "3", "4", "2", "3", "4"]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_photos_cannot_be_written_to(orl, files):
    for image in (orl.images[0], files[0]):
        with pytest.raises(ValueError, match="read-only"):
            image[0, 0, 0] = 1


# Folders and files that are wrong


def test_an_unknown_name_tells_what_there_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder.*orl"):
        datasets.load_faces(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="data sets are orl"):
        datasets.load_faces("ORL faces")


def test_a_file_is_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        datasets.load_faces(save(tmp_path / "a.png", picture()))


@pytest.mark.parametrize("texts", [[], ["notes.txt"], ["ann/notes.txt", "list.csv"]])
def test_a_folder_without_photos_is_refused(tmp_path, texts):
    for name in texts:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("no photo")
    with pytest.raises(ValueError, match="holds no photos; add one sub-folder"):
        datasets.load_faces(tmp_path)


def test_loose_photos_do_not_say_who_is_on_them(tmp_path):
    people_folder(tmp_path)
    save(tmp_path / "holiday.jpg", picture())
    save(tmp_path / RAFD.format(**rafd_names()[0]), picture())
    with pytest.raises(ValueError, match="2 of 8 photos lie outside.*people are unknown"):
        datasets.load_faces(tmp_path)


def png_claiming(width, height, colour=2, depth=8):
    """A PNG whose header promises more than follows."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def wrong_file(kind):
    """Name and content of a file that is no usable photo."""
    buffer = io.BytesIO()
    if kind.startswith("cut"):
        _, ending, share = kind.split()
        if ending == "heic":
            content = (HEIF / "turned.heic").read_bytes()
            return "wrong.heic", content[: int(len(content) * float(share))]
        Image.fromarray(noise()).save(buffer, {"jpg": "jpeg"}.get(ending, ending))
        return f"wrong.{ending}", buffer.getvalue()[: int(len(buffer.getvalue()) * float(share))]
    if kind == "tiny":
        Image.new("RGB", (1, 1)).save(buffer, "png")
        return "wrong.png", buffer.getvalue()
    if kind == "narrow":
        Image.new("RGB", (15, 500)).save(buffer, "png")
        return "wrong.png", buffer.getvalue()
    return {
        "text": ("wrong.jpg", b"I am no photo at all.\n" * 50),
        "empty": ("wrong.jpg", b""),
        "bomb": ("wrong.png", png_claiming(60000, 60000)),
        "promise": ("wrong.png", png_claiming(100, 100)),
    }[kind]


WRONG_FILES = [
    *(f"cut {ending} 0.5" for ending in ("jpg", "png", "gif", "bmp", "webp", "avif", "heic")),
    *(f"cut {ending} 0.99" for ending in ("jpg", "png", "gif", "bmp", "webp", "avif", "heic")),
    "tiny", "narrow", "text", "empty", "bomb", "promise",
]  # fmt: skip


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_a_wrong_photo_is_named(tmp_path, kind):
    people_folder(tmp_path)
    name, content = wrong_file(kind)
    (tmp_path / "bob" / name).write_bytes(content)
    with pytest.raises(ValueError, match="1 of 7 photos cannot be used") as error:
        datasets.load_faces(tmp_path)
    assert str(tmp_path / "bob" / name) in str(error.value)
    assert ("is cut short; copy it again" in str(error.value)) == kind.startswith(("cut", "promise"))


def test_of_many_wrong_photos_only_some_are_named(tmp_path):
    people_folder(tmp_path)
    for i in range(12):
        (tmp_path / "ann" / f"wrong{i}.png").write_bytes(b"text")
    with pytest.raises(ValueError, match="12 of 18 photos cannot be used") as error:
        datasets.load_faces(tmp_path)
    assert sum(f"wrong{i}.png: cannot be read" in str(error.value) for i in range(12)) == 5
    assert "and 7 more" in str(error.value)


def read_or_refuse(path):
    """Read an image; None if it is refused by its name."""
    try:
        return read_image(path)
    except ValueError as error:
        if str(path) not in str(error):
            raise
        return None


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "tif", "bmp", "webp", "pgm", "avif", "heic"])
def test_damaged_bytes_give_an_image_or_are_refused(tmp_path, ending):
    random = np.random.default_rng(0)
    path = tmp_path / f"a.{ending}"
    whole = (HEIF / "two.heic" if ending == "heic" else save(path, picture())).read_bytes()
    images = []
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(random.integers(1, 6)):
            damaged[random.integers(len(damaged))] = random.integers(256)
        path.write_bytes(damaged)
        images.append(read_or_refuse(path))
        assert count_frames(path) >= 1
    for image in images:
        assert image is None or (image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3)


# Files that would do harm


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 200 200\n%%EndComments\nshowpage\n%%EOF\n",
        b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 32, 100, 0, 0, 0, 0) + b"\0\0%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.eps"])
def test_a_postscript_file_starts_no_program(tmp_path, monkeypatch, content, name):
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(tmp_path / name)
    assert count_frames(tmp_path / name) == 1
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("form", ["ICO", "PCX", "TGA", "JPEG2000", "PDF", "DDS", "SGI", "IM"])
def test_rare_formats_are_not_opened(tmp_path, form):
    try:
        Image.fromarray(noise()).save(tmp_path / "a.jpg", format=form)
    except OSError:
        pytest.skip(f"this Pillow cannot write {form}")
    with pytest.raises(ValueError, match="a.jpg: cannot be read as an image"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (png_claiming(13_000, 13_000), 169),
        (png_claiming(9_000, 9_000, colour=6), 81),
        (png_claiming(9_000, 9_000, colour=0, depth=16), 81),
        (png_claiming(40_000, 40_000), None),
        (b"P6 13000 13000 255\n" + b"\0" * 99, 169),
        (b"BM" + struct.pack("<3I", 99, 0, 54) + struct.pack("<I2i2H6I", 40, 13_000, 13_000, 1, 24, *[0] * 6), 169),
    ],
)  # fmt: skip
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, content, size):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"{size} megapixels" if size else "too many pixels"):
        read_image(tmp_path / "a.png")


def test_a_photo_of_a_large_camera_is_read(tmp_path):
    """50 megapixels with an orientation, as phones take them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8160, 6120), "red").save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (8160, 6120, 3)


def exif_block(*rows):
    """EXIF data of an orientation and other tags: (tag, type, count, value)."""
    rows = [(0x112, 3, 1, struct.pack("<H", 6)), *rows]
    table, extra, place = struct.pack("<H", len(rows)), b"", 8 + 2 + 12 * len(rows) + 4
    for tag, kind, count, value in rows:
        table += struct.pack("<HHI", tag, kind, count)
        table += value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", place + len(extra))
        extra += value if len(value) > 4 else b""
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + table + struct.pack("<I", 0) + extra


_VALUES = {1: b"\x48", 2: b"72 dpi!\0", 3: struct.pack("<H", 72), 5: struct.pack("<2I", 72, 0), 7: b"\xff" * 8,
           10: struct.pack("<2i", -1, 0), 11: struct.pack("<f", float("nan")), 12: struct.pack("<d", 1e308),
           13: struct.pack("<I", 2**31), 16: struct.pack("<Q", 2**63), 99: b"????"}  # fmt: skip
_TAGS = [0x100, 0x101, 0x10F, 0x11A, 0x11B, 0x128, 0x131, 0x132, 0x213, 0x8298, 0x8769, 0x8825, 0xA005, 0x2BC]


@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("kind", _VALUES)
def test_tags_of_a_wrong_type_do_not_hide_the_orientation(tmp_path, ending, kind):
    for tag in _TAGS:
        count = len(_VALUES[kind]) if kind in (2, 7) else 1
        path = save(tmp_path / f"a.{ending}", picture(), exif=exif_block((tag, kind, count, _VALUES[kind])))
        assert read_image(path).shape == (30, 40, 3), hex(tag)


@pytest.mark.parametrize(
    "entry",
    [(2, 2, b"6\0"), (5, 1, struct.pack("<2I", 6, 1)), (11, 1, struct.pack("<f", 6)), (7, 4, b"6666"), (3, 0, b""),
     (3, 1, struct.pack("<H", 9)), (3, 2, struct.pack("<2H", 6, 6)), (99, 1, b"6")],
)  # fmt: skip
def test_an_orientation_of_a_wrong_type_leaves_the_photo_as_it_is(tmp_path, entry):
    kind, count, value = entry
    data = exif_block()[: -(12 + 4)] + struct.pack("<HHI", 0x112, kind, count)
    data += (
        (value.ljust(4, b"\0") if len(value) <= 4 else struct.pack("<I", 26)) + struct.pack("<I", 0) + value
    )
    assert read_image(save(tmp_path / "a.jpg", picture(), exif=data)).shape[2] == 3


@pytest.mark.parametrize(
    "tag", [0x100, 0x101, 0x102, 0x103, 0x106, 0x111, 0x112, 0x115, 0x117, 0x11A, 0x128, 0x153]
)
def test_tiff_tags_of_a_wrong_type(tmp_path, tag):
    path = save(tmp_path / "a.tif", picture(), resolution=72.0)
    data = path.read_bytes()
    start = struct.unpack_from("<I", data, 4)[0]
    for place in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, place)[0] == tag:
            for kind, value in _VALUES.items():
                entry = struct.pack("<HHI", tag, kind, 1) + value[:4].ljust(4, b"\0")
                path.write_bytes(data[:place] + entry + data[place + 12 :])
                with contextlib.suppress(ValueError):  # of no other class
                    assert read_image(path).dtype == np.uint8


def test_files_of_another_kind_are_named(tmp_path):
    kinds = {b"<!DOCTYPE html>": "a web page", b"version https://git-lfs.github.com/": "a Git LFS pointer"}
    for content, kind in {**kinds, b"\x1f\x8b\x08": "a gzip file", b"\0" * 100: "nothing but zeros"}.items():
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(ValueError, match=f"a.jpg: cannot be read as an image .it is {kind}"):
            read_image(tmp_path / "a.jpg")


# Names


def test_file_names_that_are_no_text(tmp_path):
    for person in (b"J\xf6rg", b"Zo\xeb"):
        folder = os.fsencode(tmp_path) + b"/photos/" + person
        os.makedirs(folder)
        with open(folder + b"/caf\xe9.png", "wb") as file:
            Image.fromarray(picture()).save(file, "png")
    faces = datasets.load_faces(tmp_path / "photos")
    assert faces.names.tolist() == ["J\\udcf6rg/caf\\udce9.png", "Zo\\udceb/caf\\udce9.png"]
    assert faces.people.tolist() == ["J\\udcf6rg", "Zo\\udceb"]
    "".join([*faces.names, *faces.people]).encode()
    assert faces.images[0].shape == (40, 30, 3)


@pytest.mark.parametrize("missing", [pd.NA, None, np.nan, pd.NaT])
@pytest.mark.parametrize("part", ["identities", "names"])
def test_a_person_without_a_name_is_refused(missing, part):
    images = [picture(i) for i in range(3)]
    given = {"identities": ["a", "b", "c"], "names": ["1", "2", "3"], part: ["x", missing, "y"]}
    with pytest.raises(ValueError, match=f"{part} must be names, but 1 are missing, first in row 1"):
        Faces.of(images, **given)
    with pytest.raises(ValueError, match="missing"):
        Faces.of(images, pd.array(["a", None, "c"], dtype="string"))
