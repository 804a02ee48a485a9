"""The model behind the explorer's panel, and the panel without a browser."""

import html
import re

import numpy as np
import pytest

import anonymizer
import embedding
import evaluation
import explorer
import partitioning
from datasets import Faces
from explorer import Exploration, Selection, rendering
from explorer import exploration as model_of_panel
from explorer.__main__ import _environment, main
from explorer.panel import _background


class Blend(anonymizer.Surrogates):
    """A surrogate in no time: the weighted mean of the photos' pixels; remembers what it was asked for."""

    name = "blend"

    def __init__(self, faces):
        super().__init__(faces)
        self.asked = []

    def _mix(self, members, weights):
        self.asked.append((tuple(members), tuple(weights)))
        mean = np.tensordot(weights, np.stack([self.faces.images[i] for i in members]).astype(float), axes=1)
        return mean.round().astype(np.uint8)


class Failing(Blend):
    name = "failing"

    def _mix(self, members, weights):
        raise ValueError("the weights' file <b>is missing</b>")


@pytest.fixture
def exploration(orl_people, monkeypatch):
    """Ten people, one photo each, nine others each."""
    monkeypatch.setitem(anonymizer.ANONYMIZERS, "blend", Blend)
    monkeypatch.setitem(anonymizer.ANONYMIZERS, "failing", Failing)
    faces = orl_people.select(slice(0, 10))
    others = orl_people.others
    object.__setattr__(faces, "others", others.select(np.isin(others.identities, faces.identities)))
    return Exploration(faces)


def selection(**changes):
    return Selection(**{"k": 3, "partitioner": "ward", "anonymizer": "blend", **changes})


def test_simulated_is_what_measuring_the_means_gives(exploration):
    view = exploration.simulate(selection())
    X = embedding.embed(exploration.faces, "dlib")
    labels = partitioning.PARTITIONERS["ward"](X, 3)
    assert np.array_equal(view.labels, labels)
    assert [list(rows) for rows in view.clusters] == [list(np.flatnonzero(labels == i)) for i in range(3)]
    means = np.stack([X[labels == i].mean(axis=0) for i in range(3)])
    assert np.allclose(view.descriptors, means, atol=1e-6)
    loss = np.mean([np.linalg.norm(X[i] - means[labels[i]]) for i in range(10)])
    assert view.scores["information_loss"] == pytest.approx(loss, abs=1e-6)
    assert not view.confirmed and view.settled


def test_a_person_counts_once_however_many_photos(orl):
    faces = orl.select([0, 1, 2, 10, 20, 30])  # three photos of one person, then one each of three
    labels = np.array([0, 0, 0, 0, 1, 1])
    rows, weights = Exploration(faces).mixture(labels, 0, 0.0)
    assert list(rows) == [0, 1, 2, 3]
    assert np.allclose(weights, [1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_shrinkage_pulls_to_the_average_of_the_others(exploration):
    labels = exploration.simulate(selection()).labels
    own, others = np.flatnonzero(labels == 1), np.flatnonzero(labels != 1)
    for shrinkage in (0.0, 0.25, 1.0):
        rows, weights = exploration.mixture(labels, 1, shrinkage)
        dense = np.zeros(10)
        dense[rows] = weights
        assert np.allclose(dense[own], (1 - shrinkage) / len(own))
        assert np.allclose(dense[others], shrinkage / len(others))
        assert (weights > 0).all()


def test_shrinkage_of_everybody_in_one_cluster_changes_nothing(exploration):
    rows, weights = exploration.mixture(np.zeros(10, dtype=int), 0, 0.5)
    assert list(rows) == list(range(10))
    assert np.allclose(weights, 0.1)


def test_confirmed_equals_the_evaluation(exploration):
    view = exploration.simulate(selection())
    told = []
    confirmed = exploration.confirm(view, first=2, report=lambda label, done: told.append((label, done)))
    assert told == [(2, 1), (0, 2), (1, 3)]
    model = Blend(exploration.faces)
    expected = evaluation.evaluate(exploration.faces, model, view.labels)
    assert confirmed.confirmed
    assert confirmed.scores == {name: expected[name] for name in confirmed.scores}
    for image, rows in zip(confirmed.images, view.clusters, strict=True):
        assert np.array_equal(image, model.surrogate(rows))


def test_drawn_once_with_the_weights_that_were_simulated(exploration):
    view = exploration.simulate(selection(shrinkage=0.5))
    first, second = exploration.draw(view, 0), exploration.draw(view, 0)
    assert first is second
    asked = exploration.model("blend").asked
    rows, weights = exploration.mixture(view.labels, 0, 0.5)
    assert len(asked) == 1
    assert asked[0][0] == tuple(rows)
    assert np.allclose(asked[0][1], weights)
    assert exploration.draw(exploration.simulate(selection(shrinkage=0.0)), 0) is not first


def test_confirming_stops_when_told_and_keeps_what_is_drawn(exploration):
    view, asked = exploration.simulate(selection()), []
    assert exploration.confirm(view, stop=lambda: len(asked) == 1, report=lambda *_: asked.append(1)) is None
    assert exploration.known(view, 0) is not None
    assert exploration.known(view, 1) is None


def test_few_drawn_images_are_kept(exploration, monkeypatch):
    view = exploration.simulate(selection())
    monkeypatch.setattr(model_of_panel, "_DRAWN_BYTES", 2 * exploration.faces.images[0].nbytes)
    assert exploration.confirm(view).confirmed  # with all images, though not all are kept
    assert [exploration.known(view, label) is not None for label in range(3)] == [False, True, True]


def test_one_cluster_by_itself(exploration):
    view = exploration.simulate(selection())
    cluster = exploration.cluster(view, 1)
    X = exploration.descriptors()
    distance = np.linalg.norm(X[view.clusters[1]] - view.descriptors[1], axis=1)
    assert np.allclose(cluster.distance, distance)
    assert np.array_equal(cluster.recognised, distance < 0.6)
    nearest = np.linalg.norm(exploration.gallery.descriptors - view.descriptors[1], axis=1).argmin()
    assert cluster.nearest == exploration.gallery.identities[nearest]
    assert cluster.leads_here == (cluster.nearest in exploration.faces.identities[cluster.rows])
    assert cluster.image is None
    exploration.draw(view, 1)
    assert cluster.n_people == len(cluster.rows)
    assert exploration.cluster(view, 1).image is not None


def test_a_surrogate_without_a_face_is_said_to_have_none(exploration):
    view = exploration.simulate(selection())
    exploration.model("blend")._mix = lambda members, weights: np.zeros((112, 92, 3), np.uint8)
    confirmed = exploration.confirm(view)
    cluster = exploration.cluster(confirmed, 0)
    assert np.isnan(cluster.distance).all()
    assert not cluster.recognised.any() and not cluster.leads_here
    assert "finds no face" in rendering.members_html(exploration, confirmed, 0)
    table = rendering.numbers_html(view, confirmed, exploration.gallery, 0.6)
    assert "3 of 3 surrogates show no face" in table
    assert "RI 100.0 %" in table  # counted as the worst
    assert rendering.map_svg(exploration, confirmed, 0).startswith("<svg")


def test_a_slow_partition_comes_quickly_first(exploration, monkeypatch):
    monkeypatch.setattr(model_of_panel, "_QUICK_PEOPLE", 5)
    quick = exploration.simulate(selection(partitioner="balanced"))
    assert not quick.settled
    X = exploration.descriptors()
    full = partitioning.PARTITIONERS["balanced"](X, 3, random_state=0)
    settled = exploration.simulate(quick.selection, quick=False)
    assert settled.settled and np.array_equal(settled.labels, full)
    assert exploration.simulate(quick.selection).settled


def test_the_map_is_the_plane_of_most_variance(exploration):
    positions, shares = exploration.plane("dlib")
    X = exploration.descriptors().astype(float)
    values = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2
    assert np.allclose(shares, values[:2] / values.sum(), atol=1e-6)
    assert np.allclose((positions**2).sum(axis=0), values[:2], rtol=1e-5)
    view = exploration.simulate(selection())
    simulated, drawn = exploration.surrogate_positions(view, 0)
    assert np.allclose(simulated, positions[view.clusters[0]].mean(axis=0))
    assert drawn is None


def test_preview_is_the_mean_of_upright_faces(exploration):
    view = exploration.simulate(selection())
    preview = exploration.preview(view, 0)
    crops = embedding.crops(exploration.faces, model_of_panel._CROP_SIZE, model_of_panel._PREVIEW_ZOOM)
    assert np.abs(preview - crops[view.clusters[0]].mean(axis=0)).max() <= 0.51
    assert preview.dtype == np.uint8


def test_photos_in_colour_and_of_any_size(orl):
    images = [np.ascontiguousarray(orl.images[i][: 112 - 3 * n]) for n, i in enumerate((0, 10, 20, 30))]
    images = [np.stack([image[..., 0], image[..., 1] // 2, image[..., 2]], axis=2) for image in images]
    canvas = np.full((300, 400, 3), 90, np.uint8)  # a face that does not fill its photo
    canvas[100:212, 200:292] = images[0]
    faces = Faces([canvas, *images[1:]], np.array(list("abcd")), np.array(list("abcd")))
    exploration = Exploration(faces)
    view = exploration.simulate(selection(k=2, anonymizer="pixel"))
    assert exploration.portrait(0).shape == (112, 112, 3)  # cut out
    assert np.array_equal(exploration.portrait(1), images[1])
    confirmed = exploration.confirm(view)
    assert confirmed.images[0].ndim == 3
    assert "confirmed" in rendering.members_html(exploration, confirmed, 0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"k": 11}, ValueError, "at most 10, got 11"),
        ({"k": 1}, ValueError, "at least 2"),
        ({"k": 2.5}, TypeError, "an integer"),
        ({"shrinkage": 1.5}, ValueError, "shrinkage must be a number"),
        ({"shrinkage": float("nan")}, ValueError, "shrinkage must be a number"),
        ({"partitioner": "x"}, ValueError, "unknown partitioner"),
        ({"embedding": "x"}, ValueError, "unknown embedding"),
        ({"anonymizer": "x"}, ValueError, "unknown anonymizer"),
        ({"anonymizer": "blur"}, ValueError, "must make surrogates"),
    ],
)
def test_choices_that_do_not_fit(exploration, changes, error, message):
    with pytest.raises(error, match=message):
        exploration.simulate(selection(**changes))


def test_simulated_numbers_are_said_to_be_too_high_or_low(exploration):
    view = exploration.simulate(selection())
    assert "RI too high" in rendering.numbers_html(view, None, exploration.gallery, 0.6)
    assert "fewer once it is drawn" in rendering.members_html(exploration, view, 0)
    confirmed = exploration.confirm(view)
    assert "fewer once it is drawn" not in rendering.members_html(exploration, confirmed, 0)
    assert confirmed.scores["information_loss"] > view.scores["information_loss"]


def test_the_panel_says_which_anonymizers_are_left_out(exploration, monkeypatch):
    monkeypatch.setattr(Exploration, "first_selection", lambda self: selection())
    monkeypatch.setattr(anonymizer.ANONYMIZERS["cnn"], "fits", classmethod(lambda cls, faces: False))
    assert "cnn" in exploration.unfit_anonymizers and "cnn" not in exploration.anonymizers
    panel = explorer.Panel(exploration)
    assert _background().wait()
    texts = [child.value for child in panel.children[1].children[0].children if hasattr(child, "value")]
    assert any("Not available" in str(text) and "k-Same-Net" in str(text) for text in texts)


def test_menus_offer_only_what_works(exploration, monkeypatch):
    monkeypatch.setattr(Exploration, "first_selection", lambda self: selection())
    assert exploration.k_values == range(2, 11)
    assert "blur" not in exploration.anonymizers
    assert {"aam", "pixel", "blend"} <= set(exploration.anonymizers)
    panel = explorer.Panel(exploration)
    assert _background().wait()
    assert [name for _, name in panel.partitioner.options] == list(partitioning.PARTITIONERS)
    assert [name for _, name in panel.embedding.options] == embedding.available()
    assert [name for _, name in panel.anonymizer.options] == exploration.anonymizers


# -- the panel, without a browser and without an event loop --------------------------------------------------


@pytest.fixture
def panel(exploration, monkeypatch):
    monkeypatch.setattr(Exploration, "first_selection", lambda self: selection())
    panel = explorer.Panel(exploration)
    assert _background().wait()
    return panel


def number(panel, measure, state):
    return re.search(f'data-measure="{measure}" data-state="{state}">([^<]*)<', panel.numbers.value).group(1)


def test_panel_shows_simulated_then_confirmed(panel):
    e = panel.exploration
    view = e.simulate(selection())
    assert number(panel, "information_loss", "simulated") == f"{view.scores['information_loss']:.3f}"
    confirmed = e.confirm(view)
    assert number(panel, "information_loss", "confirmed") == f"{confirmed.scores['information_loss']:.3f}"
    assert "Confirmed: 3 surrogates" in panel.message.value
    told = [f"{100 * v.scores['re_identification']:.1f} %" for v in (confirmed, view)]
    assert f"Re-identification {told[0]}, simulated {told[1]}" in panel.message.value
    assert "data:image/png" in panel.members.value


def test_moving_a_slider_changes_everything_at_once(panel):
    panel.drawing.value = False
    before = panel.map.value, panel.numbers.value, panel.members.value
    panel.k.value = 5
    assert len(panel.cluster.options) == 2
    after = panel.map.value, panel.numbers.value, panel.members.value
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert number(panel, "information_loss", "confirmed") == "…"
    for _ in range(2):  # the second time, all images are drawn
        panel.drawing.value = False
        assert "Drawing is off" in panel.message.value
        panel.drawing.value = True
        assert _background().wait()
        assert "Confirmed: 2 surrogates" in panel.message.value


def test_a_page_gets_everything_again_once_it_is_loaded(panel, monkeypatch):
    sent = []
    monkeypatch.setattr("ipywidgets.Widget.send_state", lambda self, key=None: sent.append(self))
    panel._shown.value = True
    assert {panel.cluster, panel.message, panel.map, panel.numbers, panel.members, panel.code} <= set(sent)


def test_the_chosen_cluster_is_followed_by_one_of_its_photos(panel):
    panel.cluster.index = 2
    anchor = panel.view.clusters[2][0]
    for k in (2, 4, 5):
        panel.k.value = k
        assert _background().wait()
        assert panel.view.labels[anchor] == panel.cluster.index
    assert panel.members.value.startswith(f"<h2>Cluster {panel.cluster.index + 1} of 2")


def test_errors_are_text_in_the_panel_which_stays_usable(panel):
    panel.anonymizer.value = "failing"
    assert _background().wait()
    assert 'role="alert"' in panel.message.value
    assert "&lt;b&gt;is missing" in panel.message.value  # as text, whatever it contains
    panel.anonymizer.value = "blend"
    assert _background().wait()
    assert "Confirmed" in panel.message.value


def test_an_error_of_the_partition_is_text_too(panel, monkeypatch):
    def broken(*_, **__):
        raise MemoryError("too many people for this one")

    monkeypatch.setitem(partitioning.PARTITIONERS, "mdav", broken)
    panel.partitioner.value = "mdav"
    assert "too many people" in panel.message.value
    panel.partitioner.value = "ward"
    assert _background().wait()
    assert "Confirmed" in panel.message.value


@pytest.mark.parametrize(("people", "k"), [(2, 2), (3, 2), (6, 3), (9, 4), (10, 5), (40, 5)])
def test_first_k_gives_two_clusters_if_possible(orl_people, people, k):
    exploration = Exploration(orl_people.select(slice(0, people)))
    assert exploration.first_selection().k == k
    assert len(exploration.simulate(exploration.first_selection()).clusters) >= min(2, people // 2)


@pytest.mark.parametrize(
    ("shrinkage", "mixed"),
    [
        (0.0, "of all members,"),
        (0.25, "of all members and, to 25.0 %, people outside the cluster,"),
        (1.0, "of people outside the cluster, not of its members,"),
    ],
)
def test_captions_say_whose_photos_are_mixed(exploration, shrinkage, mixed):
    view = exploration.simulate(selection(shrinkage=shrinkage))
    rows, _ = exploration.mixture(view.labels, 0, shrinkage)
    assert set(view.labels[rows] == 0) == {0.0: {True}, 0.25: {True, False}, 1.0: {False}}[shrinkage]
    preview = rendering.members_html(exploration, view, 0)
    assert f"{mixed.rstrip(',')}; shown until" in preview
    exploration.draw(view, 0)
    assert f"<b>Surrogate</b> {mixed} drawn by" in rendering.members_html(exploration, view, 0)


def test_a_single_cluster_is_never_said_to_mix_others(exploration):
    view = exploration.simulate(selection(k=10, shrinkage=1.0))
    assert "of all members; shown until" in rendering.members_html(exploration, view, 0)


def test_the_code_gives_what_the_panel_shows(orl_people):
    settings = "k=18&partitioner=ward&anonymizer=pixel&shrinkage=0.35"
    panel = explorer.explore(orl_people, settings, 'datasets.load_faces("orl", per_identity=1)')
    assert _background().wait()
    lines = [
        html.unescape(line) for line in re.findall("<code>(.*?)</code>", panel.code.value.split("<p>")[0])
    ]
    assert len(lines) == 6
    found = {}
    exec("\n".join(lines), found)
    assert found["selection"] == panel.selection() == Selection(18, "dlib", "ward", "pixel", 0.35)
    assert found["view"].scores == panel.confirmed.scores
    assert np.array_equal(found["view"].labels, panel.confirmed.labels)
    for own, shown in zip(found["view"].images, panel.confirmed.images, strict=True):
        assert np.array_equal(own, shown)


def test_settings_come_back_from_the_address(exploration):
    panel = explorer.Panel(exploration, "k=4&partitioner=ward&anonymizer=blend&shrinkage=0.35&unknown=1")
    assert _background().wait()
    assert panel.selection() == selection(k=4, shrinkage=0.35)
    address = html.unescape(re.search('data-settings="([^"]*)"', panel.code.value).group(1))
    panel.k.value = 5
    assert "k=5&" in html.unescape(panel.code.value)
    again = explorer.Panel(exploration, address)
    assert _background().wait()
    assert again.selection() == selection(k=4, shrinkage=0.35)


@pytest.mark.parametrize(
    "setting",
    [
        "k=11",
        "k=1",
        "k=x",
        "shrinkage=2",
        "shrinkage=nan",
        "embedding=x",
        "partitioner=<b>",
        "anonymizer=blur",
    ],
)
def test_settings_that_do_not_fit_are_named_and_ignored(exploration, setting):
    panel = explorer.Panel(exploration, f"{setting}&drawing=1")
    assert _background().wait()
    assert panel.selection() == exploration.first_selection()
    heading = panel.children[1].children[0].children[0].value
    assert f"do not allow them: {html.escape(setting)}<" in heading


def test_names_from_files_are_text(orl):
    faces = Faces(orl.images[[0, 10]], np.array(["<script>x", "b"]), np.array(['"><img src=y>', "b"]))
    exploration = Exploration(faces)
    page = rendering.members_html(exploration, exploration.simulate(selection(k=2, anonymizer="pixel")), 0)
    assert "<script>" not in page and "<img src=y>" not in page


def test_explore_says_why_it_cannot(orl):
    panel = explorer.explore(orl.select(slice(0, 5)))
    assert "all photos show one person" in panel.children[0].value
    with pytest.raises(TypeError, match="must be Faces"):
        explorer.explore("orl")


def test_page_is_hidden_from_the_settings_of_other_installations(monkeypatch):
    for name in ("JUPYTER_PATH", "PYTHONSAFEPATH", "PYTHONHOME"):
        monkeypatch.setenv(name, "1")
    variables = _environment("photos", "folders")
    assert not {"PYTHONSAFEPATH", "PYTHONHOME"} & set(variables)
    assert variables["JUPYTER_PATH"] != "1"
    assert variables["JUPYTER_PREFER_ENV_PATH"] == "1" and variables["ANONFACES_DATA"] == "photos"


def test_page_says_what_is_wrong_with_the_photos(tmp_path, capsys):
    assert main([str(tmp_path / "nothing")]) == 2
    assert "error: " in capsys.readouterr().err
