"""README and docs say what is true: links lead somewhere, what they name exists, and what they show runs."""

import ast
import contextlib
import functools
import importlib
import inspect
import io
import json
import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.transforms import Bbox
from PIL import Image

import anonymizer
import attacks
import CNN
import datasets
import detection
import embedding
import evaluation
import jobs
import partitioning
import stylegan
import tuning
import utility
import utils
from commands import VERSION
from docs import architecture, figures, results, tables

ROOT = Path(__file__).resolve().parents[1]

#: Everything a reader may open, without the generated reference.
PAGES = sorted(
    {
        path
        for pattern in (
            "*.md",
            "docs/*.md",
            "docs/experiments/*.md",
            "*/README.md",
            "*/*/README.md",
            "*/*/*/README.md",
        )
        for path in ROOT.glob(pattern)
        if not {".venv", "api", ".pytest_cache", "node_modules"} & set(path.relative_to(ROOT).parts[:-1])
    }
)

#: The pages that this suite of documents is made of, where commands and names are checked, too.
PROSE = [
    path
    for path in PAGES
    if path.parent in (ROOT, ROOT / "docs", ROOT / "docs" / "experiments", ROOT / "outputs")
]

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MODULES = {path.stem: path.stem for path in ROOT.glob("*.py")} | {
    path.parent.name: path.parent.name for path in ROOT.glob("*/__init__.py")
}


#: The files of the product: flat modules and packages.
SOURCES = [
    *ROOT.glob("*.py"),
    *(path for init in ROOT.glob("*/__init__.py") for path in init.parent.glob("*.py")),
]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def text_of(path):
    return path.read_text(encoding="utf-8")


def blocks(path, language):
    """Fenced code of a language: pairs of the words after the language, and the code."""
    found = [(info.split(), code) for info, code in FENCE.findall(text_of(path))]
    return [(info[1:], code) for info, code in found if info[:1] == [language]]


def without_code(text):
    return FENCE.sub("", text)


def spans(path):
    """Inline code of a page."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", without_code(text_of(path)))


# ----------------------------------------------------------------------------------------------------------
# Links
# ----------------------------------------------------------------------------------------------------------


def anchors(path):
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", without_code(text_of(path)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_link_and_picture_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(path))):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), target


def test_every_page_is_linked_from_another():
    linked = {
        (path.parent / target.partition("#")[0]).resolve()
        for path in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path))
        if "://" not in target
    }
    assert [name_of(path) for path in PROSE if path not in linked and path != ROOT / "README.md"] == []


# ----------------------------------------------------------------------------------------------------------
# Python
# ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def registries(monkeypatch):
    """Copies of the registries, for a page to add to."""
    for module, name in (
        (embedding, "EMBEDDINGS"),
        (partitioning, "PARTITIONERS"),
        (anonymizer, "ANONYMIZERS"),
    ):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))


#: Pages with blocks to run; what stands on the page about extending has tests of its own.
SHOWN = [path for path in PROSE if blocks(path, "python") and path.name != "extending.md"]


@pytest.mark.parametrize("path", SHOWN, ids=name_of)
def test_python_on_a_page_runs(path, registries, monkeypatch):
    """The blocks of a page run one after the other, as a reader would; those marked no-run must be valid at least."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(jobs, "_PARALLEL_JOBS", 1000)  # no further processes beside the tests'
    names = {"__name__": "page"}
    for position, (words, code) in enumerate(blocks(path, "python")):
        compiled = compile(code, f"{name_of(path)}, block {position}", "exec")
        if words == ["no-run"]:
            continue
        assert words == [], "a block is marked no-run, or not at all"
        exec(compiled, names)


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_python_on_a_page_names_what_exists(path):
    """Also in blocks that do not run: module.name, and the keywords they are called with."""
    for _, code in blocks(path, "python"):
        for node in ast.walk(ast.parse(code)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in MODULES
            ):
                assert hasattr(importlib.import_module(node.value.id), node.attr), ast.unparse(node)


EXAMPLES = re.compile(r"<!-- test: (\w+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def example(request, registries):
    """What the names of an example on the page about extending stand for after it ran."""
    code = dict(EXAMPLES.findall(text_of(ROOT / "docs" / "extending.md")))[request.param]
    names = {"__name__": "page"}
    exec(compile(code, f"extending.md, {request.param}", "exec"), names)
    return names


@pytest.mark.parametrize("example", ["embedding"], indirect=True)
def test_the_added_embedding_is_one(example, orl_people):
    X = example["X"]
    assert X.shape == (40, 64)
    assert X.dtype == np.float32
    assert ((X >= 0) & (X <= 1)).all()
    assert np.array_equal(X, embedding.embed(orl_people, "cells"))
    assert example["coarse"].shape == (40, 16)
    crop = embedding.crops(orl_people, size=64)[7].astype(float).mean(axis=-1)
    assert X[7, 0] == pytest.approx(crop[:8, :8].mean() / 255)
    assert "cells" in set(example["table"]["embedding"])
    assert example["table"]["information_loss"].notna().all()


@pytest.mark.parametrize("example", ["partitioner"], indirect=True)
def test_the_added_partitioner_holds_its_sizes_and_people(example):
    assert np.bincount(example["labels"]).tolist() == [5] * 8
    line = partitioning.PARTITIONERS["line"]
    X = np.array([[0.0], [5.0], [1.0], [4.0], [2.0], [3.0], [9.0]])
    found = line(X, 3)
    assert {frozenset(np.flatnonzero(found == label).tolist()) for label in set(found)} in (
        {frozenset({0, 2, 4, 5}), frozenset({3, 1, 6})},
        {frozenset({0, 2, 4}), frozenset({5, 3, 1, 6})},
    )
    who = ["a", "b", "a", "c", "b", "d", "e"]
    labels = line(X, 2, identities=who)
    assert all(
        len({label for label, name in zip(labels, who, strict=True) if name == one}) == 1 for one in "abcde"
    )
    assert "line" in set(example["table"]["partitioner"])


@pytest.mark.parametrize("example", ["anonymizer"], indirect=True)
def test_the_added_anonymizer_takes_the_median(example, orl_people):
    model = anonymizer.load("median", orl_people)
    image = example["image"]
    assert image.dtype == np.uint8
    assert image.shape == orl_people.images[0].shape
    members = [0, 3, 8]
    middle = np.median([model.texture(i) for i in members], axis=0)
    assert np.abs(image.astype(float) - np.clip(middle, 0, 255)).max() <= 1
    assert np.array_equal(model.surrogate(members, [0, 1, 0]), model.surrogate([3]))
    assert "median" in set(example["table"]["anonymizer"])


def test_each_example_is_short():
    examples = dict(EXAMPLES.findall(text_of(ROOT / "docs" / "extending.md")))
    assert set(examples) == {"embedding", "partitioner", "anonymizer"}
    assert max(len(code.splitlines()) for code in examples.values()) <= 32
    assert text_of(ROOT / "docs" / "extending.md").count("```python") == len(examples)


# ----------------------------------------------------------------------------------------------------------
# Commands
# ----------------------------------------------------------------------------------------------------------

MAKEFILE = text_of(ROOT / "Makefile")
TARGETS = set(re.findall(r"(?m)^\.PHONY: (.+)$", MAKEFILE)[0].split())


def commands(path):
    """Every command that a page names, in a block or in a line."""
    lines = [line for _, code in blocks(path, "bash") for line in code.splitlines()]
    lines += re.findall(r"(?m)^    ((?:make|python|\.venv).+)$", without_code(text_of(path)))
    lines += spans(path)
    return [re.sub(r"\s+#.*$", "", line).strip() for line in lines]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_make_targets_and_variables_exist(path):
    for command in commands(path):
        words = command.split()
        if words[:1] == ["nohup"]:
            words = words[1:]
        if words[:1] != ["make"]:
            continue
        for word in words[1:]:
            name, equals, _ = word.partition("=")
            if equals:
                assert re.search(
                    rf"\$[({{](call given,)?{name}\b", MAKEFILE + text_of(ROOT / "install.sh")
                ) or f"${{{name}:-" in text_of(ROOT / "install.sh"), command
            elif word != "&":
                assert word in TARGETS, command


def test_make_hides_the_settings_of_other_installations():
    foreign = {
        "JUPYTER_PATH": "/x",
        "PYTHONHOME": "/x",
        "PYTHONSAFEPATH": "1",
        "JUPYTER_PREFER_ENV_PATH": "0",
    }
    probe = ["make", "--eval", "probe: ; @env", "probe"]
    seen = subprocess.run(
        probe, cwd=ROOT, env=os.environ | foreign, capture_output=True, text=True, check=True
    )
    lines = seen.stdout.splitlines()
    assert "JUPYTER_PREFER_ENV_PATH=1" in lines
    assert not [
        line for line in lines if line.startswith(("JUPYTER_PATH=", "PYTHONHOME=", "PYTHONSAFEPATH="))
    ]


@functools.cache
def help_of(*words):
    """What ``python -m words --help`` prints; None where there is no such command."""
    printed, arguments = io.StringIO(), sys.argv
    try:
        sys.argv = [words[0], *words[1:], "--help"]
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", RuntimeWarning)  # the module is run although it is imported
            runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return None if end.code else printed.getvalue()
    finally:
        sys.argv = arguments
    raise AssertionError(f"python -m {' '.join(words)} --help did not end")


#: Programs of others, whose flags are checked where they are tested.
OTHERS = {"dask", "pip", "jupyter", "papermill", "pytest", "ruff"}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_of_the_suite_take_these_flags(path):
    for command in commands(path):
        match = re.match(r"(?:\S+=\S+ )?(?:\.venv/bin/)?python -m (\S+)(.*)$", command)
        if match is None or match[1] in OTHERS:
            continue
        module, rest = match[1], match[2].split()
        words = [module]
        printed = help_of(module)
        assert printed is not None, command
        if rest and re.search(rf"(?m)^ *{re.escape(rest[0])}\b", printed) and help_of(module, rest[0]):
            words, printed = [module, rest[0]], help_of(module, rest[0])
        for flag in (word for word in rest if word.startswith("--")):
            assert re.search(rf"{re.escape(flag)}\b(?!-)", printed), f"{' '.join(words)} has no {flag}"


def test_flags_are_looked_up_where_they_are():
    assert "--number" in help_of("stylegan", "generate")
    assert help_of("stylegan", "no such thing") is None


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_flags_in_a_line_exist(path):
    """A flag by itself, such as `--workers -1`, belongs to a command of the suite or to Dask."""
    known = "".join(
        help_of(*words)
        for words in (
            ("anonymizer",), ("evaluation",), ("evaluation", "judge"), ("release", "audit"), ("explorer",),
            ("CNN", "train"),
            *(("stylegan", name) for name in ("train", "project", "refine", "generate")),
        )
    ) + "--tls-ca-file --tls-cert --tls-key"  # fmt: skip
    for span in spans(path):
        if span.startswith("--"):
            assert span.split()[0] in known, span


# ----------------------------------------------------------------------------------------------------------
# Names
# ----------------------------------------------------------------------------------------------------------


def resolve(dotted):
    """The object behind ``module.name`` (and further attributes), or raise AttributeError."""
    first, *rest = dotted.split(".")
    found = importlib.import_module(first)
    for name in rest:
        if not hasattr(found, name) and isinstance(getattr(found, "__path__", None), list):
            importlib.import_module(f"{found.__name__}.{name}")
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("path", [*PROSE, ROOT / "datasets" / "encoding_data" / "README.md"], ids=name_of)
def test_functions_and_registries_that_are_named_exist(path):
    for span in spans(path):
        match = re.match(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?=$|[\s(\[])", span)
        if match and match[1].split(".")[0] in MODULES and not (ROOT / match[1]).exists():
            if match[1].endswith(".py"):
                raise AssertionError(f"there is no file {match[1]}")
            resolve(match[1])


@functools.cache
def notebook(name):
    """The headings and the code of a notebook."""
    cells = json.loads(text_of(ROOT / name))["cells"]
    texts = {
        kind: ["".join(c["source"]) for c in cells if c["cell_type"] == kind] for kind in ("markdown", "code")
    }
    headings = re.findall(r"(?m)^#+ (.+)$", "\n".join(texts["markdown"]))
    return headings, "\n".join(texts["code"])


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_sections_of_notebooks_that_are_named_exist(path):
    """A sentence that names a notebook may quote its sections, or count its experiments."""
    for sentence in re.split(r"(?<=[.;:])\s", without_code(text_of(path))):
        for name in re.findall(r"`(\w+\.ipynb)`", sentence):
            headings, _ = notebook(name)
            for section in re.findall(r'"([A-Z][^"]+)"', sentence) + re.findall(r"(Experiment \d)", sentence):
                assert any(heading.startswith(section) for heading in headings), f"{name}: {section}"


def test_figures_that_are_named_are_kept():
    named = set()
    for path in PROSE:
        for sentence in re.split(r"(?<=[.;:])\s", without_code(text_of(path))):
            if "`VisualizingResults.ipynb`" in sentence:
                named |= set(re.findall(r"`((?:by|boxes|means|clusters|identification)_\w+)`", sentence))
    assert "by_embedding" in named
    _, code = notebook("VisualizingResults.ipynb")
    assert [
        name for name in named if f'"{name}"' not in code and f'"{name.replace("_k5", "_k{k}")}"' not in code
    ] == []


#: Written by runs or by users; everything else that looks like a file must be there.
MADE = re.compile(
    r"outputs/|^published/|OUT|\.cache|<|\*|path/|FILE|^Rafd|celeba|CelebA|karras|mine|ffhq|ledger|PATH|NAME|facenet_keras"
)


@pytest.mark.parametrize("path", PROSE, ids=name_of)
def test_files_that_are_named_exist(path):
    for span in spans(path):
        if MADE.search(span) or not re.fullmatch(
            r"[\w./-]+(?:\.(?:py|ipynb|md|txt|sh|csv|npz|toml|cff)|/)", span
        ):
            continue
        if span.startswith("."):
            continue
        assert (ROOT / span).exists() or (path.parent / span).exists(), span


def test_names_in_tables_are_entries_of_the_registries():
    """The tables of embeddings, partitions and anonymizers are whole, and name nothing else."""
    pages = ROOT / "docs" / "experiments"

    def first_cells(page, heading):
        table = text_of(page).split(heading)[1].split("\n\n")[0]
        cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
        return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]

    embeddings = first_cells(pages / "embedding.md", "| name | what it is |")
    assert [name.removesuffix(":PATH") for name in embeddings] == list(embedding.EMBEDDINGS)
    assert {name for name in embeddings if name.endswith(":PATH")} == {
        f"{n}:PATH" for n in embedding.NEEDS_PATH
    }
    assert sorted(first_cells(pages / "clustering.md", "| name | what it is |")) == sorted(
        partitioning.PARTITIONERS
    )
    anonymizers = first_cells(pages / "generator.md", "| name | method | k-anonymous |")
    assert sorted(anonymizers) == sorted(anonymizer.ANONYMIZERS)
    versions = first_cells(pages / "versions.md", "| name | the paper's name |")
    assert sorted(versions) == sorted(
        ["stylegan", *(n for n in anonymizer.VARIANTS if n.startswith("stylegan"))]
    )


def explained(heading):
    """The columns in the first cells of a table on the page of measures."""
    section = text_of(ROOT / "docs" / "measures.md").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"(?m)^\| (`\w+`(?:, `\w+`)*) \|", section)
    return [name.strip(" `") for cell in cells for name in cell.split(",")]


RELEASE = ["embedding", "partitioner", "anonymizer", "k", "seed"]


def test_every_column_is_explained_once(orl_people):
    """The tables of the experiment, whole, and nothing else."""
    few = orl_people.select(range(4))
    main = evaluation.sweep(orl_people, ["dlib"], ["ward"], ["pixel"], [5], n_jobs=1)
    in_steps = anonymizer.load("pixel", few)
    tuned = tuning.tune(few, np.array([0, 0, 1, 1]), in_steps, checks=())
    groups = evaluation.fairness_table(few, [("-", "-", "none", 1)], n_jobs=1)
    parts = [
        evaluation.cluster_distances(few, in_steps, np.array([0, 0, 1, 1])),
        partitioning.cluster_stats(np.eye(4), np.array([0, 0, 1, 1])),
        tuned.trace.assign(bound=tuned.bound),
    ]
    wanted = {
        "Main table": list(main.columns),
        "Attacks": attacks.COLUMNS,
        "Utility": utility.COLUMNS,
        "Groups of people": [name for name in groups.columns if name not in RELEASE],
        "Clusters": list(dict.fromkeys(name for part in parts for name in part.columns)),
    }
    for heading, columns in wanted.items():
        assert sorted(explained(heading)) == sorted(columns), heading


def test_columns_on_the_pages_are_explained():
    """Each is named in the last table or in that of the experiment's table it comes from."""
    further = explained("Results on the pages of experiments")
    everywhere = {
        name for heading in ("Main table", "Attacks", "Utility", "Clusters") for name in explained(heading)
    }
    assert set(further).isdisjoint(everywhere - {"aam"})
    shown = {
        column
        for path in tables.KEPT.glob("*.csv")
        for column in evaluation.load_table(path).columns
    }  # fmt: skip
    named = everywhere | set(further) | set(utility.METRICS) | {"bound"}
    assert shown <= named


def test_metrics_that_are_explained_are_measured():
    listed = text_of(ROOT / "docs" / "experiments" / "utility.md").split("| metrics |")[1].split("\n\n")[0]
    metrics = {
        name
        for row in listed.splitlines()
        for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    assert metrics == set(utility.METRICS) - {"detection_rate"}


@pytest.mark.parametrize("page", [ROOT / "docs" / "measures.md", *sorted((ROOT / "docs" / "experiments").glob("*.md"))],
                         ids=name_of)  # fmt: skip
def test_results_on_the_pages_are_those_of_the_kept_tables(page):
    assert tables.page_with_results(text_of(page)) == text_of(page), "run python -m docs.tables"


def test_each_result_is_on_its_page_and_has_a_record():
    assert {path.stem for path in tables.KEPT.glob("*.csv")} == set(tables.RESULTS)
    for name, result in tables.RESULTS.items():
        assert f"<!-- result {name}:" in text_of(tables.PAGES / result.page)
        record = evaluation.load_record(tables.KEPT / f"{name}.csv")
        assert record["experiment"]["name"] == "quick" and record["data"]["name"] == "orl"
        assert record["version"] and record["date"]


def test_results_of_the_sets_are_those_of_the_kept_tables():
    page = text_of(results.PAGE)
    assert tables.page_with_results(page, results.block) == page, "run python -m docs.results"
    for path in results.KEPT.glob("*.csv"):
        record = evaluation.load_record(path)
        assert record["version"] and record["date"]
        if path.stem != "published":
            assert f"<!-- result {path.stem}:" in page and set(record["data"]) == {
                "name",
                "key",
                "n_photos",
                "n_people",
            }


@pytest.mark.parametrize("name", results.SETS)
def test_figures_of_the_sets_are_there(name):
    if not (results.KEPT / f"{name}.csv").is_file():
        pytest.skip("not measured yet")
    with Image.open(ROOT / "docs" / f"results_{name}.png") as image:
        assert image.width >= 1000
    assert f"results_{name}.png" in text_of(results.PAGE)


def test_simulated_surrogates_by_hand():
    points = np.array([[0.0], [0.2], [10.0], [10.4], [20.0], [22.0]])
    names = np.array(list("abcdef"))
    row = results.simulated(points, names, "ward", 2)
    assert row["information_loss"] == pytest.approx((0.1 + 0.2 + 1.0) / 3)
    assert row["re_identification"] == pytest.approx(4 / 6)
    assert row["rank1_cluster"] == 1 and row["rank1_person"] == pytest.approx(0.5)
    assert row["information_loss_low"] < row["information_loss"] < row["information_loss_high"]


def test_cells_hold_their_intervals():
    table = pd.DataFrame(
        {"k": [2, 5], "rate": [0.5, 0.25], "rate_low": [0.4, np.nan], "rate_high": [0.6, np.nan]}
    )
    shown = tables.cells_with_intervals(table)
    assert shown.to_dict("list") == {"k": [2, 5], "rate": ["0.500 [0.400, 0.600]", "0.250"]}
    assert list(table) == ["k", "rate", "rate_low", "rate_high"]


def test_attacks_are_shown_by_anonymizer():
    table = pd.DataFrame(
        [("aam", 0.2, 0.1, 0.3), ("pixel", 0.1, 0.0, 0.2)], columns=["anonymizer", "rate", "low", "high"]
    ).assign(attack="rank-1", level="person", chance=0.05, clear=1.0)
    wide = results._wide(table, ["attack", "level"], "rate")
    assert wide.to_dict("records") == [
        {"attack": "rank-1", "level": "person", "aam": "0.200 [0.100, 0.300]", "pixel": "0.100 [0.000, 0.200]",
         "chance": 0.05, "clear": 1.0}
    ]  # fmt: skip
    answer = results._say_attacks(table)
    assert (
        "(AAM) 1 of 1, k-Same (pixel) 0 of 1" in answer
        and "behind k-Same-M (AAM): 20% [10%, 30%], above" in answer
    )


def test_a_set_without_a_name_is_refused(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    assert results.main([str(tmp_path / "photos")]) == 2
    assert "is none of the sets orl, celeba" in capsys.readouterr().err


def test_small_tables_by_hand():
    trace = pd.DataFrame(
        [(0, 0, 0.5, 1.0, False), (0, 1, 0.6, 0.2, True), (1, 0, 0.7, 0.6, False), (1, 1, 0.9, 0.4, True)],
        columns=["label", "round", "loss", "success", "chosen"],
    ).assign(bound=0.2)
    tuned = tables.RESULTS["tuning"].make({"tuning_k5": trace}.get)
    assert tuned.drop(columns="label").to_numpy().tolist() == [
        [0.5, 1.0, 0.6, 0.2, 0.2],
        [0.7, 0.6, 0.9, 0.4, 0.2],
    ]
    answer = tables.RESULTS["tuning"].answer(tuned)
    assert (
        "1 of 2 clusters keep" in answer and "from 0.600 to 0.750" in answer and "from 0.80 to 0.30" in answer
    )
    utility = pd.DataFrame(
        [("a_kappa", "higher", -0.1, 0.0, 0.5), ("b_kappa", "higher", -0.1, 0.1, 0.5), ("c", "lower", 9.0, 1.0, 8.0),
         ("d", "lower", 9.0, 8.0, 10.0), ("e", "lower", np.nan, 0.0, 1.0)],
        columns=["metric", "better", "chance", "low", "high"],
    )  # fmt: skip
    answer = tables.RESULTS["utility"].answer(utility)
    assert "interval: `b_kappa`, `c`. These are not: `a_kappa`, `d`." in answer  # chance of e is unknown


def test_kept_tables_are_made_from_those_of_the_experiment():
    """Where `make experiments` has run with the version of the kept tables, they come out the same."""
    outputs = ROOT / "outputs"
    records = {name: evaluation.load_record(tables.KEPT / f"{name}.csv") for name in tables.RESULTS}
    fresh = evaluation.Tables(outputs, tables.STEM, {})
    same = {
        name
        for name, kept in records.items()
        if evaluation.load_record(fresh.path(tables.RESULTS[name].part)) == kept
    }
    if not same:
        pytest.skip("outputs/ does not hold the tables that the pages were made from")
    for name in same:
        made = tables.RESULTS[name].make(fresh.load)
        kept = evaluation.load_table(tables.KEPT / f"{name}.csv")
        pd.testing.assert_frame_equal(made.reset_index(drop=True), kept, check_dtype=False)


def messages():
    """Every text in the code, what is filled in as three dots, and the installer's."""
    found = [text_of(ROOT / "install.sh")]
    for path in SOURCES:
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                found.append("".join(p.value if isinstance(p, ast.Constant) else "..." for p in node.values))
    return found


def test_messages_in_troubleshooting_are_those_of_the_code():
    known = messages()
    page = text_of(ROOT / "docs" / "troubleshooting.md")
    cells = [match[1] or match[2] for match in re.finditer(r"(?m)^\| (?:``(.+?)``|`([^`]+)`) \|", page)]
    assert len(cells) > 15
    for cell in cells:
        parts = [re.escape(part.strip()) for part in cell.split("...") if part.strip()]
        assert any(re.search(".*".join(parts), text, re.DOTALL) for text in known), cell


# ----------------------------------------------------------------------------------------------------------
# The reference, the pictures, the citation
# ----------------------------------------------------------------------------------------------------------


#: The functions that DESIGN.md promises to keep, by the name that readers know.
CONTRACTS = {
    "datasets.load_faces": datasets.load_faces,
    "detection.find_faces": detection.find_faces,
    "detection.detect": detection.detect,
    "embedding.embed": embedding.embed,
    "utils.load_encodings": utils.load_encodings,
    "partitioning.hierarchical_partition": partitioning.hierarchical_partition,
    "partitioning.cluster_stats": partitioning.cluster_stats,
    "anonymizer.load": anonymizer.load,
    "Surrogates.surrogate": anonymizer.Surrogates.surrogate,
    "PhotoFilter.apply": anonymizer.PhotoFilter.apply,
    "stylegan.load_network": stylegan.load_network,
    "StyleNetwork.mapping": stylegan.StyleNetwork.mapping,
    "StyleNetwork.synthesis": stylegan.StyleNetwork.synthesis,
    "StyleNetwork.generate": stylegan.StyleNetwork.generate,
    "CNN.load_model": CNN.load_model,
    "FaceNetwork.generate": CNN.FaceNetwork.generate,
    "evaluation.sweep": evaluation.sweep,
    "evaluation.audit": evaluation.audit,
    "tuning.tune": tuning.tune,
}

#: Those that neither take nor return arrays.
WITHOUT_ARRAYS = {
    "datasets.load_faces", "stylegan.load_network", "CNN.load_model", "evaluation.sweep", "evaluation.audit",
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRACTS)
def test_contracts_are_documented_with_shapes(name):
    text = inspect.getdoc(CONTRACTS[name]) or ""
    assert text
    if name not in WITHOUT_ARRAYS:
        assert re.search(r"\([a-z_]+(, \w+)*,?( or \w+)?\)", text), "say the shapes of arrays"


def test_public_functions_and_classes_have_a_docstring():
    bare = [
        f"{name_of(path)}: {node.name}"
        for path in SOURCES
        for node in ast.parse(text_of(path)).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        if not ast.get_docstring(node)
    ]
    assert bare == []


@pytest.mark.parametrize("name", figures.FIGURES)
def test_pictures_are_there_and_shown(name):
    with Image.open(ROOT / name) as image:
        assert image.width >= 1000
    assert any(Path(name).name in text_of(page) for page in PROSE)


def extents(figure):
    """The texts of a figure with the boxes they take, in pixels."""
    renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
    if renderer is None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [*figure.texts, *(text for axis in figure.axes for text in axis.texts)]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]


def overlap(a: Bbox, b: Bbox) -> bool:
    """Whether two boxes share more than a hair."""
    shared = Bbox.intersection(a, b)
    return shared is not None and shared.width > 1 and shared.height > 1


def test_no_text_of_the_chart_covers_another_or_leaves_its_box():
    figure = architecture.system_architecture()
    texts = extents(figure)
    covering = [(a, b) for i, (a, one) in enumerate(texts) for b, two in texts[i + 1 :] if overlap(one, two)]
    assert covering == []
    scale = figure.dpi
    boxes = {name: Bbox.from_extents(*architecture.rectangle(name)) for name in architecture.BOXES}
    for name, (*_, title, place, words) in architecture.BOXES.items():
        box = Bbox.from_extents(*(boxes[name].extents * scale))
        for text in (title, place, words):
            extent = next(extent for shown, extent in texts if shown == text and overlap(extent, box))
            assert (
                box.x0 <= extent.x0 and extent.x1 <= box.x1 and box.y0 <= extent.y0 and extent.y1 <= box.y1
            ), text
    names = list(boxes)
    assert not [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if overlap(boxes[a], boxes[b])]


def test_the_chart_names_what_is_there():
    assert {end for arrow in architecture.ARROWS for end in arrow} <= {
        *architecture.BOXES,
        "frame",
    }
    reached = {end for arrow in architecture.ARROWS for end in arrow} | {
        "attacks",
        "utility",
        "measures",
    }
    assert set(architecture.BOXES) - reached == {"notebooks"}  # they run all of it
    for *_, place, _ in architecture.BOXES.values():
        for name in place.split():
            if name not in ("faces.others", "outputs/*.csv", "*.ipynb"):
                assert (ROOT / name).exists() or (ROOT / "datasets" / name).exists(), name


def test_mixtures_stand_in_their_cluster_s_row(orl_people):
    models = [anonymizer.load(name, orl_people) for name in ("pixel", "aam")]
    clusters = [[0, 1, 2], [5, 6]]
    figure = figures.draw_mixing(orl_people, models, clusters)
    shown = [axis.images[0].get_array() for axis in figure.axes]
    wanted = [
        image
        for members in clusters
        for image in (
            *(orl_people.images[i] for i in members),
            *(model.surrogate(members) for model in models),
        )
    ]
    assert len(shown) == len(wanted)
    assert all(np.array_equal(a, b) for a, b in zip(shown, wanted, strict=True))
    places = [axis.get_position() for axis in figure.axes]
    assert not [(a, b) for i, a in enumerate(places) for b in places[i + 1 :] if a.overlaps(b)]
    assert {round(place.y0, 6) for place in places[:5]}.isdisjoint(round(place.y0, 6) for place in places[5:])


def test_citation_is_the_paper_of_the_readme():
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type"} <= citation.keys()
    paper = citation["preferred-citation"]
    readme = text_of(ROOT / "README.md")
    assert paper["title"] in readme.replace("{", "").replace("}", "")
    people = " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    assert people in readme
    assert paper["year"] == 2020


@pytest.mark.parametrize(
    "module", ["anonymizer", "experiments", "explorer", "release", "recognisers", "stylegan", "CNN"]
)
def test_every_command_shows_the_one_version(module, capsys):
    command = importlib.import_module(
        f"{module}.__main__" if (ROOT / module / "__main__.py").is_file() else module
    )
    with pytest.raises(SystemExit) as end:
        command.main(["--version"])
    assert not end.value.code
    assert capsys.readouterr().out == f"AnonFACES {VERSION}\n"


def test_citation_and_changelog_name_the_version():
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    newest = re.search(r"(?m)^## (\S+) \((\S+)\)$", text_of(ROOT / "CHANGELOG.md"))
    assert newest.groups() == (citation["version"], str(citation["date-released"]))
    assert citation["version"] == VERSION and citation["license"] == "MIT"


def test_the_layout_lists_every_module():
    layout = re.findall(r"(?m)^    (\S+)  ", text_of(ROOT / "docs" / "architecture.md"))
    modules = {path.name for path in ROOT.glob("*.py")} | {
        f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")
    }
    assert modules <= set(layout)
    assert [name for name in layout if not (ROOT / name).exists()] == []
