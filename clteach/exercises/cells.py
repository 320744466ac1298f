"""Run the cells of a submitted notebook as IPython would, without what they would do to the machine.

What Python compiles is run as it is. Anything else goes through IPython's own translation first (``%magic``, ``!command``,
``name?``), which turns it into calls of ``get_ipython()``; here those reach a `Shell` that does nothing.
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import contextlib
import inspect
import linecache
import shlex
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any
from unittest.mock import MagicMock

from IPython.core.inputtransformer2 import TransformerManager
from IPython.utils.text import SList

# A notebook may wait at its top level. And an annotation whose import was lost costs no points.
FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | __future__.annotations.compiler_flag
# Cell magics whose text is no Python; the text under any other one is (%%time, %%capture, those of extensions).
FOREIGN = frozenset(
    "! bash cmd html javascript js julia latex markdown perl pypy python python2 python3 r ruby script sh sql svg sx "
    "system".split()
)
CONTINUED = frozenset(("else", "elif", "except", "finally"))


class Shell:
    """What ``get_ipython()`` gives in a submitted cell: nothing is installed, shown, timed or asked of the system."""

    kernel = None  # the widgets look here for one to talk to

    def __init__(self, space: dict[str, Any]) -> None:
        self.user_ns = space

    def __getattr__(self, name: str) -> Any:
        return MagicMock()

    def run_line_magic(self, name: str, line: str, *_: Any, **__: Any) -> Any:
        """``%time`` runs its statement, which may give a name to something; no other magic does anything."""
        if name != "time":
            return MagicMock()
        return _execute(_compiled(line, "cell"), self.user_ns, sys._getframe(1).f_locals)  # it may stand in a function

    def run_cell_magic(self, name: str, line: str, cell: str) -> Any:
        """The cell under a magic runs if it is Python; a file that it writes lies in the notebook's own folder."""
        if name.lower() in FOREIGN:
            return MagicMock()
        if name in ("writefile", "file"):
            *options, file = shlex.split(line)
            with open(file, "a" if options else "w", encoding="utf-8") as out:
                return out.write(cell)
        if name == "capture":
            self.user_ns.update({word: MagicMock() for word in line.split() if word.isidentifier()})
        return self.run_cell(cell)

    def run_cell(self, cell: str, *_: Any, **__: Any) -> Any:
        return run_cell(cell, "cell", self.user_ns)

    def system(self, *_: Any, **__: Any) -> None:
        """No command is run."""

    def getoutput(self, *_: Any, **__: Any) -> list[str]:
        return SList()


def furnish(space: dict[str, Any]) -> dict[str, Any]:
    """Enter the names that a notebook's first cell finds into `space`, and return it."""
    from IPython.display import display

    shell = Shell(space)
    space.update(__name__="__main__", display=display, get_ipython=lambda: shell)
    return space


def run_cell(cell: str, name: str, space: dict[str, Any]) -> Any:
    """Run a cell in the namespace `space`.

    Where the cell does not compile, those of its statements that do are run all the same, each by itself, so that a slip in
    one line does not cost the functions of the others.

    Args:
        cell: its text, as in the notebook.
        name: stands for a file name in error messages.
        space: the notebook's names, from `furnish`.

    Returns:
        The value of the last expression, as Jupyter shows it; None where the cell ends otherwise.

    Raises:
        SyntaxError: the cell does not compile; what could be kept has been run.
        BaseException: whatever the cell raises.
    """
    # So that the source of a function can be found, as in a notebook's kernel.
    linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
    try:
        codes = _compiled(cell, name)
    except (SyntaxError, ValueError):  # ValueError: null bytes, halves of surrogate pairs
        for part in _statements(cell, name):
            with contextlib.suppress(Exception):
                _execute(part, space)
        raise
    return _execute(codes, space)


def _compiled(cell: str, name: str) -> list[CodeType]:
    """The cell's statements and, where it ends in an expression, that expression."""
    try:
        tree = ast.parse(cell, name)
    except SyntaxError:
        cell = TransformerManager().transform_cell(cell)
        tree = ast.parse(cell, name)
    parts: list[tuple[ast.Module | ast.Expression, str]] = [(tree, "exec")]
    if tree.body and isinstance(last := tree.body[-1], ast.Expr):
        del tree.body[-1]
        parts.append((ast.Expression(last.value), "eval"))
    return [compile(part, name, mode, FLAGS, dont_inherit=True) for part, mode in parts]


def _execute(codes: list[CodeType], space: dict[str, Any], local: dict[str, Any] | None = None) -> Any:
    value = None
    for code in codes:
        value = eval(code, space, local)
        if code.co_flags & inspect.CO_COROUTINE:
            value = asyncio.run(value)
    return value


def _statements(cell: str, name: str) -> Iterator[list[CodeType]]:
    """The statements at the cell's top level that compile by themselves."""
    lines = cell.splitlines(keepends=True)
    ends = [*(number for number, line in enumerate(lines) if _begins(line)), len(lines)]
    done = 0
    for index, start in enumerate(ends):
        if start < done:
            continue
        for end in ends[index + 1 :]:
            with contextlib.suppress(SyntaxError, ValueError):
                yield _compiled("".join(lines[start:end]), name)
                done = end
                break


def _begins(line: str) -> bool:
    """Can a statement begin with this line?"""
    word = line.partition(":")[0].split(None, 1)[:1]
    return line[:1] not in ("", " ", "\t", "\n", "#", ")", "]", "}") and not CONTINUED & {*word}
