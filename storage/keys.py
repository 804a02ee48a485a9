"""Keys of cached results, from their inputs and from the code that computes them."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np

import storage
from storage.arrays import _PLAIN_KINDS
from storage.cache import cached_json

# Modules that compute no cached values: they read, write, check arguments, run commands or draw.
_NO_VALUES = ("storage", "utils", "checks", "commands", "datasets", "vizualization")

# What the digest of a module depends on, beside its code: `_parse`, and `ast`, which versions of Python may change.
_PARSER = (sys.version, Path(__file__).read_bytes())

# Keywords of argparse that only set displayed text.
_HELP = {"help", "description", "epilog"}


def content_key(*parts) -> str:
    """Return a key that differs whenever the parts differ in type, structure or value.

    Parameters
    ----------
    *parts : ndarray, str, bytes, bool, int, float, None, or list, tuple or dict of these
        An array contributes its type, shape and values; a numpy scalar counts as a Python number. The order of a dict
        does not matter.

    Returns
    -------
    str
        SHA-256, 64 hexadecimal digits.

    Raises
    ------
    TypeError
        For anything else, as its content cannot be compared reliably.
    """
    return _digest(parts).hex()


def _digest(part) -> bytes:
    """SHA-256 of the type and content of one part. Containers hash digests, which all have the same length."""
    if isinstance(part, np.ndarray):
        if part.dtype.kind not in _PLAIN_KINDS or isinstance(part, np.ma.MaskedArray):
            raise TypeError(f"an array of type {part.dtype} has no content key; use plain numbers or text")
        content = _digest((part.dtype.str, *part.shape)) + hashlib.sha256(part.tobytes()).digest()
        return hashlib.sha256(b"array:" + content).digest()
    if isinstance(part, np.generic) and not isinstance(part.item(), np.generic):
        part = part.item()
    if isinstance(part, dict):
        content = b"".join(sorted(_digest(key) + _digest(value) for key, value in part.items()))
    elif isinstance(part, list | tuple):
        content = b"".join(map(_digest, part))
    elif isinstance(part, str):
        content = part.encode("utf-8", "surrogatepass")
    elif isinstance(part, bytes):
        content = part
    elif isinstance(part, float) and not isinstance(part, np.generic):
        content = part.hex().encode()
    elif isinstance(part, bool | int | None):
        content = repr(part).encode()
    else:
        raise TypeError(
            f"a {type(part).__name__} has no content key; use arrays, text, numbers, lists, dicts"
        )
    return hashlib.sha256(f"{type(part).__name__}:".encode() + content).digest()


def source_key(*sources: ModuleType | str | Path, without: Iterable[str] = ()) -> str:
    """Return a key of the code of modules and of all project modules that they import.

    The key changes with every statement and constant. It stays the same when only comments, docstrings, type
    annotations, layout, error messages, warnings, printed text or help texts change.

    Parameters
    ----------
    *sources : module, str or Path
        Modules, their names, or the paths of their files. Imported modules are followed, wherever the import
        statements are. A module does not imply the ``__init__`` of its package.
    without : iterable of str, optional
        Names of modules or packages that are not followed, because another key covers them or because they do not
        affect the cached value. ``__main__`` files and modules that never compute values (storage, argument checks,
        commands, data sets, figures) are never followed; a photo's pixels are part of the content key.

    Returns
    -------
    str
        SHA-256, 64 hexadecimal digits.

    Raises
    ------
    FileNotFoundError
        If a source has no file.
    """
    return content_key(_codes(sources, without))


def _codes(sources: Iterable[ModuleType | str | Path], without: Iterable[str] = ()) -> dict[str, str]:
    """Return a digest of each source module and its imports, by path."""
    skipped, digests = (*_NO_VALUES, *without), {}
    pending = [_source_path(source) for source in sources]
    while pending:
        path = pending.pop()
        name = path.relative_to(storage.ROOT).as_posix() if storage.ROOT in path.parents else path.name
        if name not in digests:
            digests[name], imports = _read_code(path, path.stat().st_mtime_ns)
            pending += [
                source
                for module, source in imports
                if not any(f"{module}.".startswith(f"{other}.") for other in skipped)
            ]
    return digests


def _source_path(source: ModuleType | str | Path) -> Path:
    if isinstance(source, ModuleType):
        source = source.__file__
    path = Path(source) if Path(source).suffix == ".py" else _module_path(str(source))
    if path is None or not path.is_file():
        raise FileNotFoundError(f"{source} is not a module of this project; give a module or its file")
    return path.resolve()


def _module_path(name: str) -> Path | None:
    """Return the file of a project module; None for other modules, and for names inside a module."""
    place = storage.ROOT.joinpath(*name.split("."))
    paths = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return next((path for path in paths if path.is_file()), None)


@functools.cache
def _read_code(path: Path, modified: int) -> tuple[str, list[tuple[str, Path]]]:
    """Return a digest of a module's code, and name and path of the project's modules that it imports."""
    content = path.read_bytes()
    package = ".".join(path.parent.parts[len(storage.ROOT.parts) :])
    key = content_key(content, package, _PARSER)  # parsing all modules takes a second
    digest, imports = cached_json("sources", key, lambda: _parse(content, package))
    names = {name if _module_path(name) else name.rpartition(".")[0] or name for name in imports}
    paths = {name: _module_path(name) for name in sorted(names) if not name.endswith("__main__")}
    return digest, [item for item in paths.items() if item[1]]


def _parse(content: bytes, package: str) -> tuple[str, list[str]]:
    """Return a digest of a module's code, and the dotted names of all that it imports."""
    tree = ast.parse(content)
    imports: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        match node:
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                node.body = []
            case ast.Import():
                imports.update(alias.name for alias in node.names)
            case ast.ImportFrom():
                module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                imports.update(f"{module}.{alias.name}" for alias in node.names)
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                node.body = [statement for statement in node.body if not _is_docstring(statement)]
                node.returns = None  # the annotation of a function
            case ast.arg():
                node.annotation = None
            case ast.AnnAssign():
                node.annotation = ast.Constant(None)
            case ast.Raise(exc=ast.Call()):
                node.exc = node.exc.func
            case ast.Call(func=ast.Name("print") | ast.Attribute(attr="warn")):
                node.args, node.keywords = [], []
            case ast.Call():
                node.keywords = [keyword for keyword in node.keywords if keyword.arg not in _HELP]
        pending.extend(ast.iter_child_nodes(node))
    code = ast.dump(tree, annotate_fields=False)
    return hashlib.sha256(code.encode()).hexdigest(), sorted(imports)


def _is_docstring(statement: ast.stmt) -> bool:
    """Whether a statement is a bare text, or the `pass` that stands where a docstring could stand."""
    is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_text or isinstance(statement, ast.Pass)
