"""Fixtures and strategies that several test modules share."""

import contextlib
import gc

import pytest
from hypothesis import strategies as st

import datasets

gc.disable()  # until everything is imported

#: What takes longest is begun first, so that no process is left with it alone at the end.
LONGEST = ("test_notebooks.py", "test_evaluation.py", "test_stylegan_training.py", "test_stylegan.py")

#: Plain values, nested: what content keys and pickles are made of.
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.tuples(inner, inner)
    ),
    max_leaves=12,
)


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish():
    """Collect no garbage among what was imported, which is much and stays."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def orl():
    """All 400 ORL photos."""
    return datasets.load_faces("orl")


@pytest.fixture(scope="session")
def orl_people():
    """One ORL photo of each of the 40 people, the other 360 in `others`."""
    return datasets.load_faces("orl", per_identity=1, random_state=0)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """Give one test an empty cache; the other tests share the usual one, so that they stay quick."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ANONFACES_CACHE", str(folder))
    return folder


@contextlib.contextmanager
def _steps(eager):
    """Run the steps of trainings eagerly, or compile them, which takes longer than a few steps."""
    tf = pytest.importorskip("tensorflow")
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(eager)
    yield
    tf.config.run_functions_eagerly(before)


@pytest.fixture(scope="module")
def eagerly():
    """Compile no steps in a module."""
    with _steps(eager=True):
        yield


@pytest.fixture
def eager():
    """Compile no steps in one test."""
    with _steps(eager=True):
        yield


@pytest.fixture
def compiled():
    """Compile steps in one test of a module that runs `eagerly`."""
    with _steps(eager=False):
        yield


@pytest.fixture(scope="module")
def module_cache(tmp_path_factory):
    """Give one module an empty cache, and no progress bars."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANONFACES_QUIET", "1")
        patch.setenv("ANONFACES_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
