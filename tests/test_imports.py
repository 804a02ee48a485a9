"""What is imported late: a command answers --help, and a module is imported, without the packages that take seconds."""

import subprocess
import sys

import pytest

import storage
from storage import keys

SLOW = [
    "tensorflow", "keras", "sklearn", "numba", "joblib", "matplotlib", "scipy.optimize", "scipy.stats", "onnxruntime",
]  # fmt: skip
HELP = """\
import contextlib, io, runpy, sys
sys.argv = ["command", "--help"]
with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
    runpy.run_module("{}", run_name="__main__")
assert "usage" in said.getvalue()
"""


def loaded(code):
    """The slow packages that a new process has imported after running some code."""
    code += f"\nimport sys\nprint(*[name for name in {SLOW} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=storage.ROOT, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.parametrize(
    "name", ["anonymizer", "stylegan", "CNN", "evaluation", "release", "explorer", "recognisers"]
)
def test_help_needs_no_slow_package(name):
    assert loaded(HELP.format(name)) == []


@pytest.mark.parametrize("name", ["evaluation", "experiments", "stylegan", "CNN"])
def test_import_needs_no_slow_package(name):
    assert loaded(f"import {name}") == []


def test_networks_are_there_when_they_are_asked_for():
    import CNN
    import stylegan

    for package in (CNN, stylegan):
        assert all(getattr(package, name) is not None for name in package.__all__)
        with pytest.raises(AttributeError, match="no attribute 'missing'"):
            _ = package.missing


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        ("anonymizer.styleGan", {"stylegan/network.py", "stylegan/architecture.py", "stylegan/encoder.py"}),
        ("anonymizer.cnn", {"CNN/model.py", "CNN/architecture.py", "CNN/fitting.py"}),
    ],
)
def test_keys_cover_what_is_imported_late(module, needed):
    assert needed <= set(keys._codes([module]))
