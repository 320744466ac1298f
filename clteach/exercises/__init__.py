"""Exercises that check themselves: ``clteach.exercises.check("02.kl", my_function)``.

::

    from clteach.exercises import check

    def kl(mean, logvar):
        return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)

    check("02.kl", kl)

`list` shows all exercises, `show` the text and the starting code of one. Nothing but the installed package is needed.
The solutions are in the files ``chNN.py`` beside this one; who looks there first has spoiled the fun.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from clteach.exercises.chapters import exercises, get
from clteach.exercises.checking import Report, check
from clteach.exercises.exercise import Exercise, Mistake

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Exercise", "Mistake", "Report", "check", "exercises", "get", "list", "show"]


def __getattr__(name: str) -> Any:
    """A module of this room, such as `clteach.exercises.course`, is imported when it is first asked for."""
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def list(chapter: str | None = None) -> pd.DataFrame:
    """The exercises as a table, of one chapter ("02") or of all."""
    import pandas as pd  # half a second that no check and no grading needs

    rows = [each for each in exercises().values() if chapter in (None, each.chapter)]
    table = {"exercise": [each.id for each in rows], "title": [each.title for each in rows]}
    return pd.DataFrame({**table, "level": [each.level for each in rows]}).set_index("exercise")


def show(id: str) -> Any:
    """The statement and the starting code of an exercise, as Markdown: make it the last value of a cell."""
    from IPython.display import Markdown

    each = get(id)
    code = "\n".join([*each.imports, "", "", each.template, "", f'check("{each.id}", {each.name})'])
    return Markdown(f"**{each.id} {each.title}** (level {each.level})\n\n{each.statement}\n\n```python\n{code}\n```")
