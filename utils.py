"""Common helpers: the public interface of `storage`, and small helpers for threads and imports.

No function here executes anything that a file contains.
"""

from __future__ import annotations

import functools
import importlib
import numbers
import os
import sys
import tempfile
import threading
import unicodedata
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from storage.arrays import load_array, load_arrays, save_arrays
from storage.cache import CacheStore, cache_folder, cached_arrays, cached_batches, cached_json, cached_rows
from storage.descriptions import parse_json
from storage.encodings import load_encodings, save_encodings
from storage.keys import content_key, source_key
from storage.packages import find_dlib_model, find_package_file, package_files
from storage.parallel import run_parallel
from storage.pickles import PickledObject, load_pickle
from storage.progress import no_bars, progress
from storage.saving import save_atomic

__all__ = [
    "CacheStore", "PickledObject", "cache_folder", "cached_arrays", "cached_batches", "cached_json",
    "cached_rows", "check_random_state", "content_key", "find_dlib_model", "find_package_file",
    "import_quietly", "load_array", "load_arrays", "load_encodings", "load_pickle", "no_bars", "one_thread",
    "package_files", "parse_json", "per_thread", "progress", "run_parallel", "save_arrays", "save_atomic",
    "save_encodings", "source_key", "tidy_name",
]  # fmt: skip


def check_random_state(seed):
    """Turn a seed, a generator or None into a `numpy.random.RandomState`, as `sklearn.utils.check_random_state`."""
    # The usual cases, as scikit-learn takes a second to import.
    if seed is None:
        return np.random.mtrand._rand
    if isinstance(seed, np.random.RandomState):
        return seed
    if isinstance(seed, numbers.Integral):
        return np.random.RandomState(seed)
    from sklearn.utils import check_random_state

    return check_random_state(seed)


def per_thread(make: Callable) -> Callable:
    """Call a function without arguments once in each thread, and keep its result there.

    For models that are not thread-safe, for example dlib's.
    """
    kept = threading.local()

    @functools.wraps(make)
    def get():
        if not hasattr(kept, "value"):
            kept.value = make()
        return kept.value

    return get


def one_thread(function: Callable) -> Callable:
    """Limit the linear algebra in a function to one thread.

    Small matrices are slower in several threads, which wait for each other. One thread also makes sums reproducible.
    """

    @functools.wraps(function)
    def limited(*args, **kwargs):
        with threadpool_limits(limits=1):
            return function(*args, **kwargs)

    return limited


def tidy_name(name: str) -> str:
    """Return a person's name in one form, so that names that look the same are equal.

    Accents and letters are composed (Unicode's form NFC), invisible characters are removed, and white space becomes one
    space between words. A name without visible characters stays as it is.

    Examples
    --------
    >>> import utils
    >>> utils.tidy_name(" Zoe\u0308  Meier ")
    'Zoë Meier'
    """
    visible = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    return unicodedata.normalize("NFC", " ".join(visible.split())) or name


def import_quietly(*names: str) -> None:
    """Import modules that report on their build, for example TensorFlow, without their output on standard error.

    They bypass Python's streams, so the file descriptor itself is redirected. If an import fails, the output is shown
    and the error is raised. TensorFlow's later notes on its optimisations are also suppressed; it uses oneDNN on every
    CPU, and not only where it has it on by default, unless ``TF_ENABLE_ONEDNN_OPTS`` is set, and as many threads as
    ``OMP_NUM_THREADS`` says. Keras runs on TensorFlow with its own defaults, whatever the user's
    ``~/.keras/keras.json`` and ``KERAS_BACKEND`` say for other programs.

    Raises
    ------
    ImportError
        If an import fails, or Keras already runs on another backend.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    if limit := os.environ.get("OMP_NUM_THREADS"):  # set in workers; TensorFlow does not read it
        for kind in ("INTRAOP", "INTEROP"):
            os.environ.setdefault(f"TF_NUM_{kind}_THREADS", limit)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as aside:
        kept = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            for name in names:
                importlib.import_module(name)
        except BaseException:
            aside.seek(0)
            os.write(kept, aside.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    if "keras" in names:
        _set_keras_defaults()


def _set_keras_defaults() -> None:
    import keras

    if keras.config.backend() != "tensorflow":
        raise ImportError(
            f"Keras was imported with the backend {keras.config.backend()}; import anonymizer, CNN or stylegan before "
            "keras, or unset KERAS_BACKEND"
        )
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
