"""Keys of cached results: they change with the content and with the code, and with nothing else."""

import os
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import plain
from hypothesis import given, settings

import anonymizer
import storage
import utils
from storage import keys

X64 = np.array([[0.1, -2.5, 3e-300, 4.0], [1e300, 0.0, -0.0, 7.25], [1 / 3, 2 / 3, 1.0, 2.0]])


def test_content_key_tells_parts_apart():
    parts = [
        *(
            None,
            True,
            False,
            1,
            0,
            -1,
            2**80,
            1.0,
            0.0,
            -0.0,
            float("nan"),
            "1",
            "",
            b"1",
            b"",
            "None",
            [],
            (),
            {},
        ),
        *([1], (1,), [[1]], [1, 2], ["1", "2"], ["12"], [[], 1], [[1], []], {"a": 1}, {"a": [1]}, {1: "a"}),
        *(np.zeros(2), np.zeros(2, "f4"), np.zeros((1, 2)), np.zeros((2, 1)), np.zeros(0), np.zeros((0, 3))),
        *(np.zeros(2, ">f8"), np.array(["a"]), np.array([b"a"]), np.array(0.0), np.zeros(2, "i8")),
    ]
    keys = [utils.content_key(part) for part in parts]
    assert len(set(keys)) == len(parts)
    assert all(len(key) == 64 for key in keys)
    assert utils.content_key("a", "b") != utils.content_key("ab") != utils.content_key(["a", "b"])


def test_content_key_of_equal_content():
    assert utils.content_key({"a": 1, "b": 2}) == utils.content_key({"b": 2, "a": 1})
    assert utils.content_key(np.int64(5), np.float32(0.5), np.bool_(True)) == utils.content_key(5, 0.5, True)
    assert (
        utils.content_key(X64)
        == utils.content_key(np.asfortranarray(X64))
        == utils.content_key(X64[::-1][::-1])
    )
    assert utils.content_key(X64) != utils.content_key(X64.T)


@settings(max_examples=60)
@given(plain, plain)
def test_content_keys_agree_as_representations_do(first, second):
    same = repr(first) == repr(second)
    if not same and first == second:
        return  # dicts in another order, 1 and 1.0 inside
    assert (utils.content_key(first) == utils.content_key(second)) == same


@pytest.mark.parametrize(
    "part",
    [
        object(),
        {1, 2},
        Path("a"),
        1j,
        len,
        np.array([None]),
        np.ma.array([1], mask=[1]),
        np.zeros(1, "f8,f8"),
        [object()],
    ],
)
def test_content_key_refuses_the_rest(part):
    with pytest.raises(TypeError, match="content key"):
        utils.content_key(part)


# Keys of code

MODULES = {
    "model.py": '''"""A model."""
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING
import numpy
import helper
from package import part, TOTAL
import utils

if TYPE_CHECKING:
    import other

#: How much is added.
SHIFT = 2


@dataclass
class Options:
    """Its options."""

    size: int = 3  # pixels


def fit(x: int, parser=None) -> int:
    """Fit it."""
    from package.lazy import late

    if x < 0:
        raise ValueError(f"x must be positive, got {x}")
    if x > 100:
        warnings.warn(f"{x} is much", stacklevel=2)
    print("fitting", x)
    parser.add_argument("--size", type=int, help="how large", default=3)
    return helper.add(x, SHIFT) + late()
''',
    "helper.py": "import deep.module\n\n\ndef add(a, b):\n    return a + b\n",
    "deep/module.py": "DEEP = 1\n",
    "deep/__init__.py": "DEEP_PACKAGE = 1\n",
    "package/__init__.py": "TOTAL = 5\n",
    "package/part.py": "from . import sibling\nfrom .cousin import X\n",
    "package/sibling.py": "S = 1\n",
    "package/cousin.py": "X = 1\n",
    "package/lazy.py": "import model\n\n\ndef late():\n    return 1\n",  # a circle is no problem
    "package/__main__.py": "import other\n",
    "utils.py": "import other\n",
    "other.py": "OTHER = 1\n",
}
COUNTED = {
    "model.py", "helper.py", "deep/module.py", "package/__init__.py", "package/part.py", "package/sibling.py",
    "package/cousin.py", "package/lazy.py",
}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = tmp_path.resolve()
    monkeypatch.setattr(storage, "ROOT", root)
    for name, text in MODULES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


def change(project, name, old, new):
    """Change a file and return the model's key before and after."""
    before = utils.source_key("model")
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new))
    os.utime(project / name, (0, 0))  # a quick file system may give both versions one time
    return before, utils.source_key("model")


def test_code_is_followed_through_its_imports(project):
    assert set(keys._codes(["model"])) == COUNTED
    assert set(keys._codes(["helper", "other"])) == {"helper.py", "deep/module.py", "other.py"}
    assert set(keys._codes(["model"], without=["package", "deep"])) == {"model.py", "helper.py"}
    assert set(keys._codes(["model"], without=["package.part"])) == COUNTED - {
        "package/part.py", "package/sibling.py", "package/cousin.py",
    }  # fmt: skip


def test_sources_are_names_paths_or_modules(project):
    module = types.ModuleType("model")
    module.__file__ = str(project / "model.py")
    key = utils.source_key("model")
    assert key == utils.source_key(module) == utils.source_key(project / "model.py")
    assert key == utils.source_key(str(project / "model.py"), "helper")
    assert utils.source_key("package") == utils.source_key(project / "package" / "__init__.py")
    assert utils.source_key("package.part") != utils.source_key("package")
    for wrong in ("modle", "numpy", "package.nothing", str(project / "nothing.py")):
        with pytest.raises(FileNotFoundError, match="is not a module of this project"):
            utils.source_key(wrong)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A model."""\n', ""),
        ('"""A model."""\n', '"""Another model."""\n\n\n'),
        ('    """Fit it."""\n', ""),
        ('    """Its options."""\n\n', ""),
        ("  # pixels", ""),
        ("#: How much is added.", "#: In pixels."),
        ("x must be positive, got {x}", "x is {x}, give a positive one"),
        ("is much", "is a lot"),
        (", stacklevel=2", ""),
        ("    import other", "    from other import OTHER"),
        ('print("fitting", x)', 'print("fitting...")'),
        ('help="how large"', 'help="size in pixels"'),
        (', help="how large"', ""),
        ("x: int, parser=None) -> int", "x, parser: object = None)"),
        ("size: int = 3", "size: float = 3"),
        (
            "return helper.add(x, SHIFT) + late()",
            "return (\n        helper.add(x, SHIFT)\n        + late()\n    )",
        ),
    ],
)
def test_words_and_layout_keep_the_key(project, old, new):
    before, after = change(project, "model.py", old, new)
    assert before == after


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("model.py", "SHIFT = 2", "SHIFT = 3"),
        ("model.py", "x < 0", "x <= 0"),
        ("model.py", "size: int = 3", "size: int = 4"),
        ("model.py", "size: int = 3", "width: int = 3"),
        ("model.py", "default=3", "default=4"),
        ("model.py", "raise ValueError", "raise TypeError"),
        ("model.py", "    return helper", "    x += 1\n    return helper"),
        ("helper.py", "a + b", "a - b"),
        ("deep/module.py", "DEEP = 1", "DEEP = 2"),
        ("package/__init__.py", "TOTAL = 5", "TOTAL = 6"),
        ("package/cousin.py", "X = 1", "X = 2"),
        ("package/lazy.py", "return 1", "return 2"),
    ],
)
def test_constants_and_statements_change_the_key(project, name, old, new):
    before, after = change(project, name, old, new)
    assert before != after


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("other.py", "OTHER = 1", "OTHER = 2"),
        ("utils.py", "import other", "import other as o"),
        ("package/__main__.py", "import other", "import other as o"),
        ("deep/__init__.py", "DEEP_PACKAGE = 1", "DEEP_PACKAGE = 2"),
    ],
)
def test_other_modules_keep_the_key(project, name, old, new):
    before, after = change(project, name, old, new)
    assert before == after


@pytest.mark.parametrize("name", sorted(anonymizer.ANONYMIZERS))
def test_code_of_an_anonymizer_is_its_own(name):
    kind = anonymizer.ANONYMIZERS[name]
    module = getattr(kind, "func", kind).__module__
    files = set(keys._codes([module]))
    assert {f"{module.replace('.', '/')}.py", "anonymizer/base.py", "detection.py"} <= files
    assert not any(
        name.startswith(("release/", "attacks/", "utility/", "storage/", "datasets/")) for name in files
    )
    assert not files & {"evaluation.py", "vizualization.py", "utils.py", "checks.py", "commands.py"}
    assert ("anonymizer/aam.py" in files) == (module == "anonymizer.aam")


def test_a_module_is_parsed_once_for_all_processes(project, own_cache, monkeypatch):
    key = utils.source_key("model")
    keys._read_code.cache_clear()  # as in another process
    monkeypatch.setattr(keys, "_parse", lambda *_: pytest.fail("a module was parsed again"))
    assert utils.source_key("model") == key


def test_keys_of_code_are_quick():
    keys._read_code.cache_clear()
    start = time.process_time()
    utils.source_key("evaluation", "release.folder")
    assert time.process_time() - start < 3  # about 0.4 s on a quiet machine
    modules = sys.modules.copy()
    utils.source_key("anonymizer.styleGan")
    assert sys.modules.keys() == modules.keys()  # nothing is imported
