"""What every chapter uses: its size, and the package's own code on the page."""

from __future__ import annotations

import inspect
import os
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

    Returns:
        An IPython Markdown object: make it the last value of a cell.
    """
    from IPython.display import Markdown

    parts = []
    for each in objects:
        name = f"{each.__module__}.{each.__qualname__}"
        parts.append(f"*`{name}`*\n\n```python\n{textwrap.dedent(inspect.getsource(each)).rstrip()}\n```")
    return Markdown("\n\n".join(parts))
