"""Images of another tool are judged as our own are, and files that do not match are named."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import anonymizer
import evaluation
import experiments
import judging

RECOGNISERS = ["dlib"]


def write(folder, names, images, ending=".png"):
    for name, image in zip(names, images, strict=True):
        path = (folder / name).with_suffix(ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture(scope="module")
def some(orl):
    """Three photos of each of eight people."""
    return orl.select([10 * person + photo for person in range(8) for photo in range(3)])


@pytest.fixture(scope="module")
def originals(some, tmp_path_factory):
    return write(tmp_path_factory.mktemp("judging") / "photos", some.names, some.images, ".ppm")


@pytest.fixture(scope="module")
def blurred(some, tmp_path_factory):
    """A folder of blurred photos, as any tool could have written it."""
    blur = anonymizer.load("blur", some)
    images = [blur.apply(i) for i in range(len(some))]
    return write(tmp_path_factory.mktemp("judging") / "blurred", some.names, images)


def test_images_of_another_tool_are_judged_as_ours(originals, blurred):
    judged = judging.JudgedImages.of(originals, blurred)
    faces = judged.faces
    assert len(faces) == faces.n_people == 8 and len(faces.others) == 16
    assert set(judged.other.identities) == set(faces.identities) and judged.labels.max() == 7
    tables = evaluation.judge(originals, blurred, recognisers=RECOGNISERS)
    given, clear = tables["main"].to_dict("records")
    assert (given["anonymizer"], given["k"], clear["anonymizer"]) == ("blurred", 1, "none")
    ours = evaluation.evaluate(faces, anonymizer.load("blur", faces))
    assert {name: given[name] for name in ours} == pytest.approx(ours, nan_ok=True)
    assert clear["rank1_person"] == 1 and clear["information_loss"] == 0
    attacked = evaluation.attack_table(
        faces, [("-", "-", "blur", 1)], recognisers=RECOGNISERS, attacks=["identification"], n_jobs=1
    )
    same = tables["attacks"].merge(attacked, on=["attack", "level"], suffixes=("", "_ours"))
    assert len(same) == len(attacked) > 0
    pd.testing.assert_series_equal(same["rate_all"], same["rate_all_ours"], check_names=False)
    assert {"linkability (other photos)", "parrot"} <= set(tables["attacks"]["attack"])
    useful = tables["utility"].set_index("metric")["value"]
    assert useful["similarity"] < 1 and 0 <= useful["detection_rate"] <= 1


def test_people_who_share_an_image_are_a_cluster(some, originals, tmp_path):
    """Two means of four people each, whatever the files are called; the bound of 1/k holds."""
    mean = some.images.mean(axis=0).astype(np.uint8)
    other = some.images[:12].mean(axis=0).astype(np.uint8)
    shared = write(tmp_path / "shared", some.names, [mean] * 12 + [other] * 12)
    judged = judging.JudgedImages.of(originals, shared)
    assert len(judged.images) == 2 and np.bincount(judged.labels).tolist() == [4, 4]
    row = judged.tables(RECOGNISERS)["main"].iloc[0]
    assert row["k"] == 4 and row["n_clusters"] == 2 and row["rank1_person"] <= 1 / 4


def test_images_without_a_face_count_as_the_worst_case(some, originals, tmp_path):
    empty = write(tmp_path / "empty", some.names, [np.full((112, 92, 3), i, np.uint8) for i in range(24)])
    row = evaluation.judge(originals, empty, recognisers=RECOGNISERS)["main"].iloc[0]
    assert row["detection_rate"] == 0 and row["n_failed"] == 8
    assert np.isnan(row["rank1_person"]) and row["rank1_person_worst"] == row["re_identification_worst"] == 1


def test_photos_without_an_image_are_the_gallery(some, originals, blurred, tmp_path):
    rows = np.arange(0, 24, 3)  # the first photo of each person
    images = [np.asarray(Image.open((blurred / some.names[i]).with_suffix(".png"))) for i in rows]
    few = write(tmp_path / "few", some.names[rows], images, ".bmp")
    judged = judging.JudgedImages.of(originals, few)
    assert {name.rpartition(".")[0] for name in judged.faces.names} == {
        name.rpartition(".")[0] for name in some.names[rows]
    }
    assert len(judged.faces.others) == 16 and judged.other is None
    (few / some.names[0]).with_suffix(".bmp").unlink()
    with pytest.raises(ValueError, match=f"holds no image of {some.identities[0]}; add"):
        evaluation.judge(originals, few)


def test_files_that_do_not_match_are_named(some, originals, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder of anonymized images"):
        evaluation.judge(originals, tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no images"):
        evaluation.judge(originals, tmp_path)
    stray = write(tmp_path / "stray", ["s1/else.png"], some.images[:1])
    with pytest.raises(ValueError, match=r"stray.s1.else\.png have no original of the same name"):
        evaluation.judge(originals, stray)
    twice = write(tmp_path / "twice", some.names, some.images)
    write(twice, some.names[:1], some.images[:1], ".bmp")
    with pytest.raises(ValueError, match="differ in their ending alone"):
        evaluation.judge(originals, twice)


def test_a_suffix_that_the_tool_adds_is_left_out(some, originals, blurred, tmp_path):
    """As deface does it: the images stand beside copies of the photos."""
    beside = write(tmp_path / "beside", some.names, some.images)
    images = [np.asarray(Image.open((blurred / name).with_suffix(".png"))) for name in some.names]
    names = [f"{name.removesuffix('.pgm')}_anonymized.png" for name in some.names]
    write(beside, names, images)
    judged, plain = (
        judging.JudgedImages.of(originals, beside, "_anonymized"), judging.JudgedImages.of(originals, blurred)
    )  # fmt: skip
    assert all(np.array_equal(a, b) for a, b in zip(judged.images, plain.images, strict=True))
    with pytest.raises(
        ValueError, match="s1_anonymized.png have no original|_anonymized.png.* have no original"
    ):
        judging.JudgedImages.of(originals, beside)
    with pytest.raises(ValueError, match="holds no images whose name ends in _blurred"):
        judging.JudgedImages.of(originals, beside, "_blurred")


def test_images_that_equal_their_originals_are_told(some, originals, tmp_path):
    same = write(tmp_path / "same", some.names, some.images)
    with pytest.warns(UserWarning, match="8 of 8 images equal their originals"):
        judging.JudgedImages.of(originals, same)


def test_command_writes_the_tables(originals, blurred, tmp_path, capsys):
    asked = ["judge", str(originals), str(blurred), "--recognisers", "dlib", "--output", str(tmp_path)]
    assert experiments.main(asked) == 0
    said = capsys.readouterr().out
    assert "rate_worst" in said and "8 different images" in said
    main = evaluation.load_results(tmp_path)
    assert main["anonymizer"].tolist() == ["blurred", "none"]
    assert set(main["experiment"]) == {"judged-blurred"}
    assert set(evaluation.load_results(tmp_path, "attacks")["recogniser"]) == {"dlib", "pixels"}
    assert experiments.main([*asked, "--recognisers", "x"]) == 2
    assert "unknown recogniser 'x'" in capsys.readouterr().err
