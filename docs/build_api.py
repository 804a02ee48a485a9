"""The API reference in docs/api, made from docstrings: ``python -m docs.build_api``, or ``make docs``.

The source is parsed, never imported, so it is the same everywhere: one page a module, every public function and class
with its signature and its docstring (numpydoc) as Markdown.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "api"

#: The modules of the reference, in the order in which data flows. Packages show what their `__init__` offers.
MODULES = [
    "datasets", "detection", "dlib_network", "embedding", "partitioning", "anonymizer", "anonymizer.aam",
    "anonymizer.pixel",
    "anonymizer.cnn", "anonymizer.styleGan", "anonymizer.filters", "release.folder", "CNN", "CNN.generation",
    "CNN.training", "stylegan", "stylegan.mixing", "stylegan.training", "evaluation", "attacks", "recognition",
    "utility", "appearance", "tuning", "release", "vizualization", "explorer", "published", "utils",
]  # fmt: skip

Definition = ast.FunctionDef | ast.ClassDef

#: Sections whose entries are "name : type" with an indented description.
LISTED = {"Parameters", "Other Parameters", "Returns", "Yields", "Attributes", "Raises", "Warns"}


def source_file(module: str) -> Path:
    """The file of a module or of a package's __init__."""
    place = ROOT / module.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def parse(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(source_file(module).read_text(encoding="utf-8"))


def public_definitions(module: str) -> Iterator[Definition]:
    """Public functions and classes: those a package's __init__ offers or a module defines."""
    tree = parse(module)
    origins = {}  # where a package takes its names from
    if source_file(module).name == "__init__.py":
        for node in tree.body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{module}."):
                origins.update({alias.name: node.module for alias in node.names})
    offered = next((ast.literal_eval(n.value) for n in tree.body if _assigns(n, "__all__")), None)
    for name, origin in origins.items():
        if offered is None or name in offered:
            yield from (node for node in _definitions(parse(origin)) if node.name == name)
    for node in _definitions(tree):
        if offered is None or node.name in offered:
            yield node


def _assigns(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(t, ast.Name) and t.id == name for t in node.targets
    )


def _definitions(tree: ast.Module | ast.ClassDef) -> list[Definition]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


def signature(node: Definition, owner: str = "") -> str:
    """How it is called, as one line."""
    prefix = f"{owner}." if owner else ""
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}({', '.join(map(ast.unparse, node.bases))})".replace("()", "")
    if any(ast.unparse(decorator).endswith("property") for decorator in node.decorator_list):
        return prefix + node.name + (f" -> {ast.unparse(node.returns)}" if node.returns else "")
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{prefix}{node.name}({ast.unparse(node.args)}){returns}"


def markdown(docstring: str) -> str:
    """A numpydoc docstring as Markdown; literal blocks and examples become code."""
    docstring = inspect.cleandoc(docstring)
    pieces = re.split(r"(?m)^([A-Z][A-Za-z ]+)\n-{3,}$", docstring)
    parts = [_prose(pieces[0])]
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if title == "Examples":
            text = _examples(body.strip("\n"))
        elif title in LISTED:
            text = _entries(body.strip("\n"))
        else:
            text = _prose(body)
        parts.append(f"**{title}**\n\n{text}")
    return "\n\n".join(part for part in parts if part.strip())


def _prose(text: str) -> str:
    """Paragraphs; what follows a double colon, and lines of an example, as code."""
    blocks, literal = [], False
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if block.lstrip().startswith(">>> "):
            blocks.append(_examples(block))
        elif literal and block.startswith(" "):
            blocks.append(f"```\n{inspect.cleandoc(block)}\n```")
        else:
            literal = block.rstrip().endswith("::")
            blocks.append(_inline(re.sub(r"::$", ":", block.rstrip())))
    return "\n\n".join(blocks).strip()


def _inline(text: str) -> str:
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    text = re.sub(r"(?m)^\.\. \[(\d+)\] ", r"[\1] ", text)
    return re.sub(r"\[(\d+)\]_", r"[\1]", text)


def _examples(text: str) -> str:
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(text))
    return "\n\n".join(f"```python\n{block}\n```" if ">>>" in block else _inline(block) for block in blocks)


def _entries(text: str) -> str:
    """Each entry a list item: its heading, and its description indented below it."""
    lines = []
    for line in text.splitlines():
        if line and not line.startswith(" "):
            name, colon, kind = line.partition(" : ")
            lines.append(f"- `{name}`" + (f": {_inline(kind)}" if colon else ""))
        else:
            lines.append(_inline(line[2:] if line.startswith("    ") else line))
    return re.sub(r"(?m)^(- .*)\n(?=  )", r"\1\n\n", "\n".join(lines))


def page(module: str) -> str:
    """The reference of one module."""
    parts = [f"# {module}", markdown(ast.get_docstring(parse(module)) or "")]
    for node in public_definitions(module):
        parts += [
            f"## {node.name}",
            f"```python\n{signature(node)}\n```",
            markdown(ast.get_docstring(node) or ""),
        ]
        if isinstance(node, ast.ClassDef):
            for method in _definitions(node):
                if isinstance(method, ast.FunctionDef):
                    text = markdown(ast.get_docstring(method) or "")
                    parts += [
                        f"### {node.name}.{method.name}",
                        f"```python\n{signature(method, node.name)}\n```",
                        text,
                    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def pages() -> dict[str, str]:
    """Every page by its file name."""
    rows = [
        "# API reference",
        "Made from the docstrings by `make docs`; do not edit.",
        "| module | what it does |\n| --- | --- |",
    ]
    for module in MODULES:
        summary = (
            (ast.get_docstring(parse(module)) or "")
            .split("\n\n")[0]
            .replace("\n", " ")
            .split(": ``python")[0]
        )
        rows[-1] += f"\n| [{module}]({module}.md) | {_inline(summary).replace('|', '&#124;')} |"
    return {"README.md": "\n\n".join(rows) + "\n", **{f"{module}.md": page(module) for module in MODULES}}


def main() -> None:
    """Write every page, and remove those of modules that are gone."""
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for path in FOLDER.glob("*.md"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"docs/api: {len(made)} pages")


if __name__ == "__main__":
    main()
