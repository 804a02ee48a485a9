"""Every notebook runs top to bottom from a fresh kernel, and the committed ones hold what a user shall see."""

import json
import re
import subprocess
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
from PIL import Image

import evaluation

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("*.ipynb"))
MAX_BYTES = 3_000_000

#: Every section has something to show, and few people and clusters are drawn.
N_PEOPLE = 20
SMALL = """
k = [5, 10]
partitioners = ["balanced", "ward"]
recognisers = ["dlib", "fisherfaces"]
n_attacked = 2
"""


def run(name, folder, **parameters):
    """Run a notebook with its tables in `folder`; returns the notebook as it ended."""
    copy = folder / f"{name}.ipynb"
    papermill.execute_notebook(
        ROOT / f"{name}.ipynb",
        copy,
        parameters=dict(parameters, outputs=str(folder)),
        cwd=ROOT,
        progress_bar=False,
        kernel_name="python3",
    )
    return nbformat.read(copy, as_version=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where tables go; kernels start no processes of their own, which would load everything again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        yield tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def experiments(folder, orl):
    for row in np.flatnonzero(np.isin(orl.identities, orl.people[:N_PEOPLE])):
        path = folder / "orl20" / orl.identities[row] / f"{orl.names[row].replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(orl.images[row]).save(path)
    (folder / "small.toml").write_text(f"data = '{folder / 'orl20'}'{SMALL}")
    return run("NumericalExperiments", folder, experiment=str(folder / "small.toml"))


@pytest.fixture(scope="module")
def stem(experiments, folder):
    """What the names of all tables and figures begin with: the photos and the experiment."""
    (path,) = folder.glob("orl20-*_small.csv")
    return path.stem


def outputs_of(notebook, kind):
    return [
        output["data"][kind]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


def results_of(notebook):
    return [text for text in outputs_of(notebook, "text/markdown") if text.startswith("**Result.**")]


def test_numerical_experiments_write_their_tables(folder, stem):
    table = evaluation.load_table(folder / f"{stem}.csv")
    assert set(table["k"]) == {1, 5, 10}
    assert {"random", "ward", "balanced"} <= set(table["partitioner"])
    assert {"none", "pixel", "eigen", "aam", "cnn", "stylegan", "blur"} <= set(table["anonymizer"])
    assert set(table["seed"]) == {0}
    attacked = evaluation.load_table(folder / f"{stem}_attacks.csv")
    assert set(attacked["anonymizer"]) == {"aam", "none"}
    clear = attacked[(attacked["anonymizer"] == "none") & (attacked["attack"] == "rank-1")]
    assert (clear.loc[clear["recogniser"] == "dlib", "rate"] > 0.9).all()
    assert len(evaluation.load_table(folder / f"{stem}_utility.csv")) > 20
    versions = evaluation.load_table(folder / f"{stem}_versions.csv")
    assert {"stylegan", "stylegan_adjusted", "stylegan_random_published", "stylegan_tuned"} <= set(
        versions["anonymizer"]
    )
    assert (versions.groupby("anonymizer")["k"].apply(sorted).map(tuple) == (5, 10)).all()
    distances = evaluation.load_table(folder / f"{stem}_clusters_k5.csv")
    assert (distances.groupby("anonymizer")["row"].apply(sorted).map(len) == N_PEOPLE).all()
    assert set(distances["anonymizer"]) == {"aam", "stylegan"} and distances["label"].nunique() == 4
    stats = evaluation.load_table(folder / f"{stem}_partitions_k5.csv")
    assert set(stats["partitioner"]) == set(table["partitioner"]) - {"-"}
    assert evaluation.load_table(folder / f"{stem}_tuning_k5.csv")["label"].nunique() == 4


def test_every_experiment_gives_its_result_in_a_sentence(experiments):
    """The paper's experiments in its order, then ours; each result is one sentence with numbers of this run."""
    titles = [line for cell in experiments.cells if cell.cell_type == "markdown"
              for line in cell.source.splitlines() if line.startswith("## ")]  # fmt: skip
    wanted = [
        "embedding",
        "partition",
        "generator",
        "distances within",
        "versions",
        "adversary",
        "still tell",
        "Tuned",
    ]
    places = [
        next(i for i, title in enumerate(titles) if word in title) for word in [*wanted, "privacy costs"]
    ]
    assert places == sorted(places)
    results = results_of(experiments)
    assert len(results) >= len(wanted) + 5
    assert all(re.search(r"\d", text) and text.endswith(".") and "nan" not in text for text in results)
    rates = [text for text in results if "%" in text]
    assert len(rates) > len(wanted)
    assert all(re.search("chance|strangers|blind guess", text) for text in rates), "a rate without its chance"


def write_published(folder):
    """Result files as the authors released them, with made-up numbers."""
    folder.mkdir()
    columns = ["hier_dlib_adjust", "hier_pca_adjust", "kmeans_dlib_adjust", "stylegan_rafd", "aam_rafd"]
    frame = pd.DataFrame({"k": [2, 3], **{name: [0.5, 0.6] for name in columns}})
    frame.to_pickle(folder / "IL_results.pickle")
    frame.to_csv(folder / "RI_results.csv", index=False)
    versions = pd.DataFrame({"k": [2, 3], "Naive": [0.5, 0.6], "Weight Adjusted": [0.5, 0.6]})
    for name in ("AnonFACES_ILs", "AnonFACES_RIs"):
        versions.to_csv(folder / f"{name}.csv", index=False)
    means = pd.DataFrame({"label": [0, 1, 2], "avg_dist": [0.5, 0.6, 0.7]})
    means.to_csv(folder / "avg_per_cluster_k5.csv", index=False)


def test_visualizing_results_writes_its_figures(folder, stem):
    write_published(folder / "published")
    notebook = run("VisualizingResults", folder, experiment=str(folder / "small.toml"))
    figures = {path.name for path in (folder / "figures").iterdir()}
    over_k = ["by_embedding", "by_partition", "by_generator", "versions"]
    ours = ["trade_off", "attacks", "attack_matrix", "utility", "pareto", "tuning_k5", "partitions_k5"]
    looked_at = ["pairwise_k5", "clusters_k5", "generators_k5", "style_mixing"]
    for name in [*over_k, *(f"{name}_published" for name in over_k), *ours, *looked_at]:
        assert {f"{stem}_{name}.png", f"{stem}_{name}.pdf"} <= figures
    assert len(outputs_of(notebook, "image/png")) == len(figures) / 2
    assert len(outputs_of(notebook, "application/vnd.jupyter.widget-view+json")) == 1
    with Image.open(folder / "figures" / f"{stem}_by_embedding.png") as picture:
        assert round(picture.info["dpi"][0]) == 300


def test_make_passes_on_what_is_chosen():
    chosen = [
        "DATA=my photos",
        "PEOPLE=photos",
        "K=2:6",
        "EMBEDDING=pca,dlib",
        "PARTITIONER=ward",
        "ANONYMIZER=aam",
        "SEED=3,4",
    ]
    make = ["make", "--dry-run", "--always-make", "experiments", *chosen]
    said = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for part in ('-m evaluation "my photos" --experiment "quick" --people "photos" --k "2:6" --seed "3,4"',
                 '--embeddings "pca,dlib"', '-r people "photos"', '-r embeddings "pca,dlib"',
                 '-r partitioners "ward"', '-r seeds "3,4"'):  # fmt: skip
        assert part in said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook_is_run_and_small(path):
    assert path.stat().st_size < MAX_BYTES
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    assert counts == list(range(1, len(code) + 1)), "not run top to bottom from a fresh kernel"
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert "parameters" in code[0]["metadata"].get("tags", [])
    assert not re.search(r"/(home|root|work|tmp)/", text), "a path of the machine it was run on"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_code_cell_is_explained(path):
    """Prose first: no more than two code cells in a row without a word."""
    kinds = "".join(cell["cell_type"][0] for cell in json.loads(path.read_text(encoding="utf-8"))["cells"])
    assert "ccc" not in kinds
