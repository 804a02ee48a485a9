"""Every notebook runs top to bottom from a fresh kernel, and the committed ones hold what a user shall see."""

import json
import re
from pathlib import Path

import nbformat
import papermill
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("*.ipynb"))
MAX_BYTES = 3_000_000


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
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def experiments(folder):
    return run("NumericalExperiments", folder, k_range="2:6:3", n_attacked=2)


def outputs_of(notebook, kind):
    return [
        output["data"][kind]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


def test_numerical_experiments_write_their_tables(experiments, folder):
    import evaluation

    table = evaluation.load_table(folder / "orl_quick.csv")
    assert set(table["k"]) == {1, 2, 5}
    assert {"random", "ward", "balanced"} <= set(table["partitioner"])
    assert {"none", "pixel", "eigen", "aam", "cnn", "stylegan", "blur"} <= set(table["anonymizer"])
    attacked = evaluation.load_table(folder / "orl_quick_attacks.csv")
    assert set(attacked["anonymizer"]) == {"aam", "none"}
    clear = attacked[(attacked["anonymizer"] == "none") & (attacked["attack"] == "rank-1")]
    assert (clear.loc[clear["recogniser"] == "dlib", "rate"] > 0.9).all()
    assert len(evaluation.load_table(folder / "orl_quick_utility.csv")) > 20
    assert set(evaluation.load_table(folder / "orl_versions.csv")["anonymizer"]) > {"stylegan_adjusted"}
    distances = evaluation.load_table(folder / "orl_clusters_k5.csv")
    assert len(distances) == 40
    assert distances["label"].nunique() == 8
    assert len(outputs_of(experiments, "image/png")) >= 3  # faces, histogram, surrogates


def test_visualizing_results_writes_its_figures(experiments, folder):
    notebook = run("VisualizingResults", folder)
    figures = {path.name for path in (folder / "figures").iterdir()}
    for name in (
        "by_embedding",
        "by_partition",
        "by_generator",
        "trade_off",
        "boxes_k5",
        "clusters_k5",
        "style_mixing",
    ):
        assert {f"orl_{name}.png", f"orl_{name}.pdf"} <= figures
    assert len(outputs_of(notebook, "image/png")) == len(figures) / 2


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
