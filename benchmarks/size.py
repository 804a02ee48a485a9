"""Size of the product code: lines of code, public top-level names, and the largest files.

Docstrings, comments and blank lines are not counted; tests, benchmarks and docs are left out. Run it from the root::

    python benchmarks/size.py
"""

from __future__ import annotations

import ast
import io
import subprocess
import tokenize
from pathlib import Path

LEFT_OUT = ("tests/", "benchmarks/", "docs/")
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER
}  # fmt: skip


def code_lines(text: str) -> int:
    """Lines that hold a token of code outside docstrings."""
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            docstrings.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def public_names(text: str) -> set[str]:
    """Functions, classes and constants of a module whose names do not begin with an underscore."""
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))
    return {name for name in names if not name.startswith("_")}


def main() -> None:
    """Print the totals and the ten largest files."""
    listed = subprocess.run(["git", "ls-files", "*.py"], capture_output=True, text=True, check=True).stdout
    texts = {name: Path(name).read_text() for name in listed.split() if not name.startswith(LEFT_OUT)}
    print(f"{sum(map(code_lines, texts.values())):,} lines of code in {len(texts)} files")
    print(f"{sum(len(public_names(text)) for text in texts.values())} public top-level names")
    for name in sorted(texts, key=lambda name: -len(texts[name].splitlines()))[:10]:
        print(f"{len(texts[name].splitlines()):5} lines in {name}, {code_lines(texts[name])} of code")


if __name__ == "__main__":
    main()
