"""Figures: what is drawn of a table, what is refused, and what is written to disk."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from scipy.cluster import hierarchy

import figure_files
import labels
import vizualization
from datasets import Faces

K = [2, 5, 10]
MEASURES = ["information_loss", "re_identification", "rank1_cluster", "rank1_person", "stranger_share"]


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    assert not plt.get_fignums()


def table_of(names=("ward", "mdav", "random"), seeds=(0,), by="partitioner", clear=True):
    """A table as `evaluation.compare` gives it, with values that tell every row apart."""
    random = np.random.default_rng(0)
    rows = []
    for name in names:
        for k in K:
            for seed in seeds:
                values = dict(zip(MEASURES, random.random(5), strict=True))
                rows.append(
                    {"anonymizer": "aam", by: name, "k": k, "seed": seed}
                    | {"chance_cluster": k / 40, "chance_person": 1 / 40}
                    | values
                )
    if clear:
        known = dict(zip(MEASURES, [0.0, 1.0, 0.98, 0.98, 0.06], strict=True))
        rows.append(
            {"anonymizer": "none", by: "none" if by == "anonymizer" else "-", "k": 1, "seed": 0} | known
        )
    return pd.DataFrame(rows)


def curves(axis):
    """The curves over k of an axis, by what the legend calls them: only those with a marker."""
    return {line.get_label(): line for line in axis.lines if line.get_marker() not in ("", "None", None)}


def legend_texts(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def colours(figure):
    return {name: to_hex(line.get_color()) for name, line in curves(figure.axes[0]).items()}


# Curves over k


OVER_K = {
    "loss_and_reidentification": ["information_loss", "re_identification"],
    "identification": ["rank1_cluster", "rank1_person", "stranger_share"],
}


@pytest.mark.parametrize("name", OVER_K)
def test_every_value_gets_a_curve_of_its_numbers(name):
    table = table_of()
    before = table.copy()
    figure = getattr(vizualization, name)(table, "partitioner", "A title")
    assert isinstance(figure, Figure) and figure.get_suptitle() == "A title"
    assert len(figure.axes) == len(OVER_K[name])
    for axis, measure in zip(figure.axes, OVER_K[name], strict=True):
        drawn = curves(axis)
        assert set(drawn) == {"ward", "mdav", "random"}
        for partitioner, line in drawn.items():
            rows = table[table["partitioner"] == partitioner]
            assert line.get_xdata().tolist() == K
            np.testing.assert_allclose(line.get_ydata(), rows[measure])
        assert axis.get_xlabel() == "Cluster size k" and axis.get_ylabel() == vizualization.label(measure)
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize("name", [*OVER_K, "trade_off"])
def test_baselines_are_grey_and_nothing_else_is(name):
    figure = getattr(vizualization, name)(table_of(), "partitioner")
    for curve, line in curves(figure.axes[0]).items():
        assert (to_hex(line.get_color()) == labels.BASELINE_GREY.lower()) == (curve == "random")
    assert len({line.get_color() for line in curves(figure.axes[0]).values()}) == 3
    assert len({line.get_marker() for line in curves(figure.axes[0]).values()}) == 3


@pytest.mark.parametrize("name", [*OVER_K, "trade_off"])
def test_legend_names_every_curve_once(name):
    figure = getattr(vizualization, name)(table_of(["pixel", "aam", "random"], by="anonymizer"), "anonymizer")
    texts = legend_texts(figure)
    assert len(set(texts)) == len(texts)
    assert {"k-Same (pixel)", "k-Same-M (AAM)", "random"} <= set(texts)


def test_more_than_eight_curves_differ_in_their_lines():
    names = [f"algorithm {i}" for i in range(12)]
    figure = vizualization.loss_and_reidentification(table_of(names), "partitioner")
    looks = {(line.get_color(), line.get_linestyle()) for line in curves(figure.axes[0]).values()}
    assert len(looks) == 12


def test_names_have_the_same_colours_in_all_figures():
    table = table_of(["random", "ward", "mdav"])
    drawn = [getattr(vizualization, name)(table, "partitioner") for name in (*OVER_K, "trade_off")]
    assert colours(drawn[0]) == colours(drawn[1]) == colours(drawn[2])


def test_paper_pair_shows_the_bound_and_the_clear_photos():
    figure = vizualization.loss_and_reidentification(table_of(), "partitioner")
    right = figure.axes[1]
    bound = next(line for line in right.lines if line.get_label() == "1 / k")
    np.testing.assert_allclose(bound.get_ydata(), [1 / 2, 1 / 5, 1 / 10])
    low, high = right.get_ylim()
    assert low <= 0 and high >= 1
    assert any(text.startswith("no anonymization") and "0, 1" in text for text in legend_texts(figure))
    without = vizualization.loss_and_reidentification(table_of(clear=False), "partitioner")
    assert not any("no anonymization" in text for text in legend_texts(without))


def test_identification_shows_chance_and_bound():
    figure = vizualization.identification(table_of(), "partitioner")
    chance = [line for line in figure.axes[0].lines if to_hex(line.get_color()) == "#000000"]
    np.testing.assert_allclose(chance[0].get_ydata(), [k / 40 for k in K])
    chance, bound = [line for line in figure.axes[1].lines if to_hex(line.get_color()) == "#000000"]
    np.testing.assert_allclose(chance.get_ydata(), [1 / 40] * 3)
    np.testing.assert_allclose(bound.get_ydata(), [1 / k for k in K])
    assert {"chance", "1 / k"} <= set(legend_texts(figure))


def test_identification_where_there_are_no_strangers():
    table = table_of().assign(stranger_share=np.nan)
    assert len(vizualization.identification(table, "partitioner").axes) == 3


def test_several_seeds_give_their_mean_and_a_band():
    table = table_of(["ward"], seeds=[0, 1, 2])
    axis = vizualization.loss_and_reidentification(table, "partitioner").axes[0]
    over_k = table[table["k"] > 1].groupby("k")["information_loss"]
    np.testing.assert_allclose(curves(axis)["ward"].get_ydata(), over_k.mean())
    (band,) = axis.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(over_k.min().min())
    assert heights.max() == pytest.approx(over_k.max().max())
    assert not vizualization.loss_and_reidentification(table_of(), "partitioner").axes[0].collections


def test_one_seed_gives_the_interval_of_one_curve():
    table = table_of()
    for end, shift in (("low", -0.1), ("high", 0.2)):
        table[[f"{measure}_{end}" for measure in MEASURES[:2]]] = table[MEASURES[:2]] + shift
    figure = vizualization.loss_and_reidentification(table, "partitioner", interval_of="mdav")
    (band,) = figure.axes[1].collections
    rates = table.loc[table["partitioner"] == "mdav", "re_identification"]
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(rates.min() - 0.1) and heights.max() == pytest.approx(
        rates.max() + 0.2
    )
    assert "95 % interval of mdav\n(people resampled)" in legend_texts(figure)


def test_paper_pair_shows_the_share_of_strangers():
    table = table_of()
    right = vizualization.loss_and_reidentification(table, "partitioner").axes[1]
    (strangers,) = (line for line in right.lines if line.get_label() == "strangers (mean)")
    assert strangers.get_ydata() == pytest.approx(table[table["k"] > 1].groupby("k")["stranger_share"].mean())


def test_trade_off_draws_loss_against_reidentification_and_says_k():
    table = table_of(["ward"])
    (axis,) = vizualization.trade_off(table, "partitioner").axes
    rows = table[table["k"] > 1]
    line = curves(axis)["ward"]
    np.testing.assert_allclose(line.get_xdata(), rows["information_loss"])
    np.testing.assert_allclose(line.get_ydata(), rows["re_identification"])
    assert {text.get_text() for text in axis.texts} == {"2", "5", "10"}
    assert axis.get_xlabel() == vizualization.label("information_loss")


@pytest.mark.parametrize("name", [*OVER_K, "trade_off"])
def test_tables_of_another_kind_are_refused(name):
    draw = getattr(vizualization, name)
    with pytest.raises(ValueError, match="no column"):
        draw(pd.DataFrame({"k": [2], "partitioner": ["ward"]}), "partitioner")
    with pytest.raises(ValueError, match="no column colour"):
        draw(table_of(), "colour")
    with pytest.raises(ValueError, match="row with k above 1"):
        draw(table_of().assign(k=1), "partitioner")


@pytest.mark.parametrize("name", [*OVER_K, "trade_off"])
def test_curves_do_not_mix_what_was_not_compared(name):
    """Rows of two anonymizers must not be averaged to one curve of a partition."""
    table = pd.concat([table_of(), table_of().assign(anonymizer="pixel")])
    with pytest.raises(ValueError, match="evaluation.compare"):
        getattr(vizualization, name)(table, "partitioner")


def test_names_without_a_label_are_readable():
    assert vizualization.label("kmeans_elki") == "kmeans elki"
    assert vizualization.label("dlib") == "dlib"


# Distances


def test_histogram_holds_all_pairs():
    same, different = np.linspace(0.1, 0.5, 30), np.linspace(0.4, 1.0, 70)
    figure = vizualization.distance_histogram(same, different, threshold=0.55)
    (axis,) = figure.axes
    heights = [sum(bar.get_height() for bar in bars) for bars in axis.containers]
    np.testing.assert_allclose(heights, [1, 1])
    assert {"same person (30 pairs)", "different people (70 pairs)", "threshold 0.55"} == set(
        legend_texts(figure)
    )
    assert axis.lines[0].get_xdata()[0] == 0.55


@pytest.fixture
def distances():
    """Three clusters; the surrogate of the last shows no face."""
    return pd.DataFrame(
        {
            "label": [0, 0, 1, 1, 1, 2, 2],
            "row": range(7),
            "distance": [0.2, 0.4, 0.5, 0.6, 0.7, np.nan, np.nan],
        }
    )


def page_of(distances, names=("aam", "pixel")):
    return pd.concat([distances.assign(anonymizer=name) for name in names], ignore_index=True)


def test_the_pairwise_page_has_boxes_and_means_of_each_anonymizer(distances):
    figure = vizualization.pairwise_page(page_of(distances), threshold=0.55, title="Page")
    assert figure.get_suptitle() == "Page"
    titles = [axis.get_title() for axis in figure.axes]
    assert (
        len(titles) == 4 and titles[0].startswith("k-Same-M (AAM)") and titles[2].startswith("k-Same (pixel)")
    )
    for boxes, means in (figure.axes[:2], figure.axes[2:]):
        medians = [
            line.get_ydata() for line in boxes.lines if to_hex(line.get_color()) == labels.COLOURS[1].lower()
        ]
        assert [median[0] for median in medians[:2]] == pytest.approx([0.3, 0.6])
        assert len(medians) == 3 and np.isnan(medians[2]).all()
        assert [tick.get_text() for tick in boxes.get_xticklabels()] == ["0", "1", "2"]
        overall = next(line for line in means.lines if line.get_label() == "mean over all members")
        assert overall.get_ydata()[0] == pytest.approx(0.48)
        assert [bar.get_height() for bar in means.patches][:2] == pytest.approx([0.3, 0.6])
        assert "0.480" in means.get_title()  # of five photos, not of clusters
        for axis in (boxes, means):
            assert any(line.get_label() == "threshold 0.55" for line in axis.lines)
            (mark,) = axis.texts
            assert mark.get_text() == "no face" and mark.get_position()[0] == 2
        assert boxes.get_ylim() == means.get_ylim()
    assert legend_texts(figure) == ["threshold 0.55", "mean over all members"]
    without_gap = vizualization.pairwise_page(page_of(distances.dropna()))
    assert not any(axis.texts for axis in without_gap.axes)


def test_the_pairwise_page_lays_published_means_beside_ours(distances):
    published = pd.DataFrame({"label": range(4), "distance": [0.8, 0.5, 0.7, 0.6]})
    figure = vizualization.pairwise_page(distances, published=published)
    last = figure.axes[2]
    curves = {line.get_label(): line.get_xdata().tolist() for line in last.lines[:-1]}
    assert curves == {
        "ours": pytest.approx([0.3, 0.3, 0.6]), "published (4 clusters)": [0.5, 0.5, 0.6, 0.7, 0.8]
    }  # fmt: skip
    assert last.lines[0].get_ydata().tolist() == [0, 0.5, 1]
    assert len(vizualization.pairwise_page(distances, published=published.iloc[:0]).axes) == 2


def test_the_pairwise_page_of_many_clusters_gives_each_panel_the_whole_width():
    many = pd.DataFrame({"label": np.repeat(np.arange(120), 2), "row": range(240), "distance": 0.5})
    figure = vizualization.pairwise_page(page_of(many))
    assert len({axis.get_subplotspec().colspan.start for axis in figure.axes}) == 1
    ticks = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert ticks[:3] == ["0", "10", "20"] and len(ticks) == 12


def test_published_curves_are_dashed_in_the_colour_of_ours():
    ours, theirs = table_of(("ward", "mdav")), table_of(("mdav", "knn_max"), clear=False)
    figure = vizualization.loss_and_reidentification(ours, "partitioner", published=theirs)
    drawn = curves(figure.axes[0])
    assert set(drawn) == {"ward", "mdav", "mdav, published", "knn max, published"}
    colour = {name: to_hex(line.get_color()) for name, line in drawn.items()}
    assert colour["mdav, published"] == colour["mdav"]
    assert colour["knn max, published"] not in (colour["ward"], colour["mdav"])
    line = drawn["mdav, published"]
    assert line.get_linestyle() == "--" and to_hex(line.get_markerfacecolor()) == "#ffffff"
    expected = theirs[theirs["partitioner"] == "mdav"]["information_loss"]
    assert line.get_ydata().tolist() == expected.tolist()
    with pytest.raises(ValueError, match="no column"):
        vizualization.loss_and_reidentification(ours, "partitioner", published=theirs.drop(columns="k"))


def test_a_notebook_keeps_figures_small_and_colour_photos_whole():
    grey = vizualization.image_grid([[np.full((20, 20, 3), 90, np.uint8)] * 2])
    colour = vizualization.image_grid([[np.full((20, 20, 3), (90, 10, 200), np.uint8)] * 2])
    chart = vizualization.loss_and_reidentification(table_of(), "partitioner")
    shown = [Image.open(io.BytesIO(figure_files._notebook_png(figure))) for figure in (grey, colour, chart)]
    assert [picture.mode for picture in shown] == ["L", "RGB", "P"]
    buffer = io.BytesIO()
    chart.savefig(buffer, bbox_inches="tight", facecolor="white")
    difference = np.asarray(shown[2].convert("RGB"), int) - np.asarray(Image.open(buffer).convert("RGB"), int)
    assert np.abs(difference).mean() < 1  # grey levels


# Partitions


def test_partition_bars_show_means_over_clusters():
    columns = ["max_dist", "min_dist", "mean_dist", "mean_silhouette"]
    stats = pd.DataFrame(np.arange(16.0).reshape(4, 4), columns=columns)
    stats["partitioner"] = ["ward", "ward", "random", "random"]
    figure = vizualization.partition_bars(stats)
    assert len(figure.axes) == 4
    for axis, column in zip(figure.axes, columns, strict=True):
        bars = {round(bar.get_y() + bar.get_height() / 2): bar for bar in axis.patches}
        assert [bars[i].get_width() for i in (0, 1)] == stats.groupby("partitioner", sort=False)[
            column
        ].mean().tolist()
        assert to_hex(bars[1].get_facecolor()) == labels.BASELINE_GREY.lower()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["ward", "random"]


def test_dendrogram_names_leaves_and_marks_the_cut():
    linkage = hierarchy.linkage(np.array([[0.0], [1.0], [5.0], [7.0]]))
    (axis,) = vizualization.dendrogram(linkage, cut=3.0, names=list("abcd")).axes
    assert sorted(tick.get_text() for tick in axis.get_xticklabels()) == list("abcd")
    assert [line.get_ydata()[0] for line in axis.lines if line.get_label() == "cut at 3.00"] == [3.0]
    (plain,) = vizualization.dendrogram(linkage).axes
    assert not plain.lines and not any(tick.get_text() for tick in plain.get_xticklabels())


def test_map_joins_members_to_the_middle_of_their_cluster():
    points = np.array([[0.0, 0.0], [2.0, 0.0], [5.0, 5.0], [5.0, 7.0], [5.0, 9.0]])
    (axis,) = vizualization.cluster_map(points, np.array([0, 0, 1, 1, 1])).axes
    assert len(axis.lines) == 5
    assert {tuple(line.get_xydata()[0]) for line in axis.lines} == {(1.0, 0.0), (5.0, 7.0)}
    assert {tuple(line.get_xydata()[1]) for line in axis.lines} == set(map(tuple, points))
    assert sum(len(dots.get_offsets()) for dots in axis.collections) == 5


def test_loss_against_time_has_a_point_for_each_partition():
    table = pd.DataFrame({"partitioner": ["ward", "random"], "seconds": [1.5, 0.01], "SSE / SST": [0.4, 0.9]})
    figure = vizualization.loss_against_time(table)
    drawn = curves(figure.axes[0])
    assert {name: tuple(line.get_xydata()[0]) for name, line in drawn.items()} == {
        "ward": (1.5, 0.4),
        "random": (0.01, 0.9),
    }
    assert figure.axes[0].get_xscale() == "log"


# Images


def image(level, height=12, width=10):
    return np.full((height, width, 3), level, np.uint8)


class Brightest:
    """Stands in for an anonymizer: the surrogate is a flat image of the largest member's number."""

    def surrogate(self, members):
        return image(10 * int(max(members)))


@pytest.fixture
def few():
    return Faces(np.stack([image(i) for i in range(6)]), list("aabbcc"), [f"p{i}" for i in range(6)])


def levels(figure):
    """The grid as it is drawn: rows of the images' levels, None for a gap."""
    grid = {}
    for axis in figure.axes:
        place = axis.get_subplotspec()
        shown = axis.get_images()
        grid[place.rowspan.start, place.colspan.start] = int(shown[0].get_array()[0, 0, 0]) if shown else None
    return grid


def test_grid_shows_images_gaps_titles_and_row_labels():
    rows = [[image(1), None, image(3)], [image(4)]]
    figure = vizualization.image_grid(rows, titles=[["one", "", "three"], []], row_labels=["first", "second"])
    assert levels(figure) == {(0, 0): 1, (0, 1): None, (0, 2): 3, (1, 0): 4}
    assert [axis.get_title() for axis in figure.axes] == ["one", "", "three", ""]
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["first", "second"]


@pytest.mark.parametrize("rows", [[], [[]], [[None]]])
def test_grid_without_an_image_is_refused(rows):
    with pytest.raises(ValueError, match="no image"):
        vizualization.image_grid(rows)


def test_contact_sheet_fills_rows():
    images = [image(i) for i in range(5)]
    figure = vizualization.contact_sheet(images, titles=list("abcde"), columns=2)
    assert levels(figure) == {(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 3, (2, 0): 4}
    assert [axis.get_title() for axis in figure.axes] == list("abcde")


def test_clusters_stand_beside_their_surrogates(few):
    clusters = np.array([0, 0, 0, 1, 1, 2])
    figure = vizualization.clusters_with_surrogates(few, Brightest(), clusters)
    assert levels(figure) == {
        **{(0, 0): 0, (0, 1): 1, (0, 2): 2, (0, 3): None, (0, 4): 20},
        **{(1, 0): 3, (1, 1): 4, (1, 2): None, (1, 3): None, (1, 4): 40},
        **{(2, 0): 5, (2, 1): None, (2, 2): None, (2, 3): None, (2, 4): 50},
    }
    chosen = vizualization.clusters_with_surrogates(few, Brightest(), clusters, clusters=[2])
    assert levels(chosen) == {(0, 0): 5, (0, 1): None, (0, 2): 50}
    assert chosen.axes[0].texts[0].get_text() == "cluster 2"


def test_people_stand_over_their_surrogates(few):
    labels_by_k = {2: np.array([0, 0, 1, 1, 2, 2]), 3: np.array([0, 0, 0, 1, 1, 1])}
    figure = vizualization.people_and_surrogates(few, Brightest(), labels_by_k, [1, 4])
    assert levels(figure) == {(0, 0): 1, (0, 1): 4, (1, 0): 10, (1, 1): 50, (2, 0): 20, (2, 1): 50}
    assert [axis.texts[0].get_text() for axis in figure.axes if axis.texts] == ["photo", "k = 2", "k = 3"]


# Files


def test_save_writes_the_same_bytes_each_time(tmp_path):
    for folder in ("one", "two"):
        vizualization.save(
            vizualization.loss_and_reidentification(table_of(), "partitioner"), tmp_path / folder / "figure"
        )
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["figure.pdf", "figure.png"]
    for ending in ("png", "pdf"):
        one, two = (tmp_path / folder / f"figure.{ending}" for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    pdf = (tmp_path / "one" / "figure.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and b"/Type3" not in pdf  # fonts that publishers refuse
    with Image.open(tmp_path / "one" / "figure.png") as opened:
        assert opened.format == "PNG" and opened.width == pytest.approx(8.5 * 300, abs=1)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "one").iterdir())


def test_save_writes_only_what_has_changed(tmp_path):
    def draw(height):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, height])
        vizualization.save(figure, tmp_path / "a")
        return [(path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(tmp_path.iterdir())]

    first = draw(1)
    assert draw(1) == first
    assert draw(1.001)[0] != first[0]  # the PDF
    (tmp_path / "a.png").unlink()
    assert [content for _, content in draw(1)] == [content for _, content in first]


@pytest.mark.parametrize(
    ("name", "stem"), [("a.png", "a"), ("a.pdf", "a"), ("a", "a"), ("v1.2_boxes", "v1.2_boxes")]
)
def test_save_keeps_dots_that_belong_to_the_name(tmp_path, name, stem):
    figure = Figure(figsize=(1, 1))
    vizualization.save(figure, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{stem}.pdf", f"{stem}.png"]


def test_drawing_leaves_the_style_of_others_alone():
    before = dict(plt.rcParams)
    vizualization.trade_off(table_of(), "partitioner")
    vizualization.image_grid([[image(1)]])
    assert dict(plt.rcParams) == before


# Attacks, tuning and utility


@pytest.fixture
def attack_table():
    return pd.DataFrame(
        {
            "attack": ["identification", "identification", "insider", "insider"],
            "recogniser": ["dlib", "lbp", "dlib", "lbp"],
            "rate": [0.8, 0.3, 0.5, np.nan],
            "low": [0.7, 0.2, 0.4, np.nan],
            "high": [0.9, 0.4, 0.6, np.nan],
            "chance": [0.1, 0.1, 0.2, 0.2],
        }
    )


def test_attack_matrix_writes_every_rate_beside_its_chance(attack_table):
    table = attack_table.assign(low=[0.7, 0.05, 0.4, np.nan])
    axis = vizualization.attack_matrix(table).axes[0]
    assert [text.get_text() for text in axis.texts] == ["0.80 (0.10)", "0.30 (0.10)", "0.50 (0.20)", "–"]
    assert [text.get_fontweight() for text in axis.texts] == ["bold", "normal", "bold", "normal"]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["dlib", "lbp"]
    np.testing.assert_allclose(
        np.ma.filled(axis.collections[0].get_array(), np.nan), [[0.7, 0.2], [0.3, np.nan]], equal_nan=True
    )
    with pytest.raises(ValueError, match="no column size"):
        vizualization.attack_matrix(attack_table, columns="size")


def test_attack_intervals_show_rate_interval_and_chance(attack_table):
    axis = vizualization.attack_intervals(attack_table).axes[0]
    drawn = [bars.lines[0].get_xdata().tolist() for bars in axis.containers]
    assert drawn == [[0.8, 0.5], [0.3]]
    ends = [segment[:, 0].tolist() for segment in axis.containers[0].lines[2][0].get_segments()]
    assert np.allclose(ends, [[0.7, 0.9], [0.4, 0.6]])
    ticks = [
        line.get_xdata().tolist() for line in axis.lines if line.get_marker() == "|" and len(line.get_xdata())
    ]
    assert ticks == [[0.1, 0.2], [0.1]]
    crossed = vizualization.attack_intervals(attack_table.assign(clear=[0.9, np.nan, 1.0, 0.5])).axes[0]
    crosses = [line.get_xdata() for line in crossed.lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(np.concatenate(crosses), [0.9, 1.0, np.nan])
    with pytest.raises(ValueError, match="measured rate"):
        vizualization.attack_intervals(attack_table.assign(rate=np.nan))


def test_tuning_trace_rings_what_was_chosen():
    trace = pd.DataFrame(
        {
            "label": [0, 0, 1, 1],
            "round": [0, 1, 0, 1],
            "loss": [0.5, 0.6, 0.4, np.nan],
            "success": [1, 0.2, 0.5, 0],
            "found": [True, True, True, False],
            "chosen": [False, True, True, False],
        }
    )
    axes = vizualization.tuning_trace(trace, bound=0.5).axes
    rings = [line for line in axes[0].lines if line.get_marker() == "o"]
    assert rings[0].get_xdata().tolist() == [0.6] and rings[0].get_ydata().tolist() == [0.2]
    assert axes[1].get_title() == "cluster 1, 1 without face"
    assert axes[0].lines[-1].get_ydata()[0] == 0.5


def test_pareto_steps_through_the_front_only():
    table = pd.DataFrame(
        {
            "anonymizer": ["aam", "aam", "pixel"],
            "k": [2, 5, 5],
            "information_loss": [0.4, 0.6, 0.7],
            "re_identification": [0.9, 0.2, 0.5],
        }
    )
    axis = vizualization.pareto(table, np.array([True, True, False])).axes[0]
    line = next(line for line in axis.lines if line.get_label() == "nothing below")
    assert line.get_xdata().tolist() == [0.4, 0.6] and line.get_ydata().tolist() == [0.9, 0.2]
    assert [text.get_text() for text in axis.texts] == ["2", "5"]
    chance = vizualization.pareto(table, np.array([True, True, False]), chance=0.025).axes[0].lines[-1]
    assert chance.get_label() == "chance: 0.025" and chance.get_ydata()[0] == 0.025
    with pytest.raises(ValueError, match="front must have shape"):
        vizualization.pareto(table, np.array([True]))


def test_utility_dots_have_a_panel_for_each_measure():
    table = pd.DataFrame(
        {
            "anonymizer": ["aam", "pixel"] * 2,
            "metric": ["ssim", "ssim", "age", "age"],
            "value": [0.5, 0.6, 3.0, np.nan],
            "low": [0.4, 0.5, 2.0, np.nan],
            "high": [0.6, 0.7, 4.0, np.nan],
            "baseline": [1.0, 1.0, 0.0, 0.0],
        }
    )
    axes = vizualization.utility_dots(table).axes
    assert [axis.get_title() for axis in axes] == ["ssim", "age"]
    assert [line.get_xdata()[0] for line in axes[0].lines if len(line.get_xdata()) == 1] == [0.5, 0.6]
    assert axes[1].lines[-1].get_xdata()[0] == 0
    figure = vizualization.utility_dots(table.assign(chance=[0.2, 0.3, 8, 9]))
    ticks = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert ticks == [0.2, 0.3]
    assert legend_texts(figure) == ["another original photo", "another person's image (chance)"]


def test_style_mixing_leaves_the_corner_free():
    faces = np.arange(5)[:, None, None, None] * np.full((5, 4, 4, 3), 10, np.uint8)
    mixed = np.zeros((3, 2, 4, 4, 3), np.uint8)
    figure = vizualization.style_mixing(faces[:2], faces[2:], mixed)
    images = [axis.images[0].get_array()[0, 0, 0] if axis.images else None for axis in figure.axes]
    assert images == [None, 0, 10, 20, 0, 0, 30, 0, 0, 40, 0, 0]
    with pytest.raises(ValueError, match=r"3 rows \(destinations\) and 2 columns"):
        vizualization.style_mixing(faces[:2], faces[2:], mixed[:2])
