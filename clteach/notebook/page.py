"""What every chapter uses: its size, and the package's own code on the page."""

from __future__ import annotations

import ast
import inspect
import os
import re
import textwrap
from typing import Any, TypeVar

from clteach.errors import ConfigError

T = TypeVar("T")
SIZES = ("quick", "full")


def by_size(quick: T, full: T) -> T:
    """`quick` or `full`, as the environment variable ``CLTEACH_SIZE`` says (default: quick).

    Quick: bundled digits, one CPU core, at most 90 s a chapter. Full: MNIST and up, the papers' settings, best on a GPU.

    Raises:
        ConfigError: the variable has another value.
    """
    size = os.environ.get("CLTEACH_SIZE", "quick")
    if size not in SIZES:
        raise ConfigError(f"CLTEACH_SIZE={size!r}: expected {' or '.join(SIZES)}.")
    return quick if size == "quick" else full


def show_source(*objects: Any) -> Any:
    """The source code of functions, methods or classes, as the installed package runs it: never a stale copy.

    What the docstrings say of arguments, of what is returned and raised, and formulas in TeX are left out; the API page has
    them.

    Returns:
        An IPython Markdown object: make it the last value of a cell.
    """
    from IPython.display import Markdown

    parts = []
    for each in objects:
        name = f"{each.__module__}.{each.__qualname__}"
        source = _shortened(textwrap.dedent(inspect.getsource(each)).rstrip())
        parts.append(f"*`{name}`*\n\n```python\n{source}\n```")
    return Markdown("\n\n".join(parts))


def _shortened(source: str) -> str:
    """Cut every docstring where its first section ("Args:") begins, and displayed formulas out of what is left."""
    lines, cut = source.split("\n"), set[int]()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or not ast.get_docstring(node):
            continue
        # Counted from 0, the docstring's second line is `begin`, and its last one, with the quotes, is before `end`.
        begin, end = node.body[0].lineno, node.body[0].end_lineno or 0
        section = next((i for i in range(begin, end) if SECTION.fullmatch(lines[i])), None)
        if section is not None:
            last = max(i for i in range(section) if lines[i].strip())  # no blank line is left before the quotes
            if last < begin:
                lines[last] += '"""'
            else:
                last += 1
                lines[last] = lines[end - 1]
            cut.update(range(last + 1, end))
        inside = False
        for i in range(begin, end):
            formula = inside or lines[i].strip().startswith("$$")
            inside ^= lines[i].count("$$") % 2 == 1
            if formula or (i - 1 in cut and not lines[i].strip()):  # of two blank lines one is left
                cut.add(i)
    return "\n".join(line for i, line in enumerate(lines) if i not in cut)


SECTION = re.compile(r"\s*(Args|Returns|Yields|Raises):")
