"""Exercises as notebook cells: in the chapters, in an nbgrader assignment, and in a plain notebook for Colab.

All three come from the same `Exercise`, so they cannot drift apart. nbgrader's markers are comments: it cuts the solution
and the hidden tests out of the instructor's notebook when it makes the students' version.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import clteach
from clteach.errors import ConfigError, unknown
from clteach.exercises.chapters import chapters, exercises
from clteach.exercises.exercise import Exercise
from clteach.storage import write_atomic

LEVELS = {1: "warm-up", 2: "key step", 3: "stretch"}
INSTALL = "try:\n    import clteach\nexcept ImportError:\n    %pip install -q clteach"
HEAD = """\
### With a check

Write the function, run the cell, and read what the check says: what was tried, what was expected, and a hint. Try as often \
as you like. In the online book, a click on an exercise shows its text, and under it a hint, the solution and the cell."""
CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "clteach"
# A cell may take as long as the check of one exercise, and some more.
c.ExecutePreprocessor.timeout = 120
"""


def of_chapter(chapter: str) -> list[Exercise]:
    """The exercises of a chapter, "02" or "2".

    Raises:
        ConfigError: there is no such chapter, or it has no exercises.
    """
    number = chapter.zfill(2)
    if number not in chapters():
        raise unknown("chapter", chapter, chapters())
    return [each for each in exercises().values() if each.chapter == number]


def label(exercise: Exercise) -> str:
    """The exercise's name for links within the book: "02.kl" -> "ex-02-kl"."""
    return f"ex-{exercise.id.replace('.', '-').replace('_', '-')}"


def statement(exercise: Exercise) -> str:
    """The exercise as Markdown, without the fence of the book."""
    return f"*{exercise.id}, {LEVELS[exercise.level]}.* {exercise.statement}"


def imports(chosen: list[Exercise]) -> str:
    """The import lines that the exercises need together, sorted as ruff sorts them."""
    lines = {line for each in chosen for line in each.imports} | {"import torch"}
    both = {"from torch import Tensor", "from torch import nn"}
    lines = (lines - both) | {"from torch import Tensor, nn"} if both <= lines else lines
    standard = {"import copy", "import math", "from collections.abc import Callable"}
    order = sorted(lines, key=lambda line: (line.startswith("from"), line))
    blocks = ["\n".join(each for each in order if (each in standard) == inside) for inside in (True, False)]
    return "\n\n".join(filter(None, [*blocks, "from clteach.exercises import check"]))


def chapter_cells(chapter: str) -> list[dict[str, Any]]:
    """The cells of a chapter's exercises in the book's notebook: imports, then statement and starting code of each.

    The statement stands in a directive of the book (sphinx-exercise); Jupyter and Colab show it as text. The comment after
    it is where the book puts hint and solution: they are not in the notebook, where every reader would see them.
    """
    chosen = of_chapter(chapter)
    cells = [text_cell(f"exercise-{chapter}-text", HEAD), code_cell(f"exercise-{chapter}", imports(chosen))]
    for each in chosen:
        head = f":::{{exercise}} {each.title}\n:label: {label(each)}"
        text = f"{head}\n\n{statement(each)}\n:::\n\n<!-- solution {each.id} -->"
        cells.append(text_cell(f"exercise-{chapter}-{each.name}-text", text))
        cells.append(
            code_cell(f"exercise-{chapter}-{each.name}", f'{each.template}\n\ncheck("{each.id}", {each.name})')
        )
    return cells


def solution(id: str) -> str:
    """Hint and solution of an exercise for the book's page: dropdowns, closed."""
    each = exercises()[id]
    why = f"\n\n{each.why}" if each.why else ""
    return (
        f":::{{admonition}} Hint\n:class: dropdown tip\n\n{each.hint}\n:::\n\n"
        f"::::{{solution}} {label(each)}\n:class: dropdown\n\n```python\n{each.solved.rstrip()}\n```{why}\n::::"
    )


# ----------------------------------------------------------------------------------------------------- assignments


def assign(chapter: str, folder: Path, seed: int | None = None, overwrite: bool = False) -> list[Path]:
    """Write a chapter's exercises as an assignment.

    Args:
        chapter: "02" or "2".
        folder: the course. ``source/NAME/NAME.ipynb`` is the instructor's notebook, with solutions and hidden tests, where
            nbgrader looks for it; ``colab/NAME.ipynb`` is the students' without nbgrader.
        seed: the hidden tests try the functions on the numbers of this seed; None: a random one, known to nobody else.
        overwrite: replace notebooks that are there.

    Returns:
        The files written.

    Raises:
        ConfigError: no such chapter; a file is there already.
    """
    chosen, name = of_chapter(chapter), assignment(chapter)
    source, colab = folder / "source" / name / f"{name}.ipynb", folder / "colab" / f"{name}.ipynb"
    refuse([source, colab], overwrite)
    cells = _graded_cells(chosen, hidden_seed(seed))
    written = [write_notebook(source, chapters()[chosen[0].chapter], cells), write_plain(colab, chapter)]
    config = folder / "nbgrader_config.py"
    if not config.exists():
        written.append(write_atomic(config, lambda file: file.write(CONFIG.encode())))
    return written


def assignment(chapter: str) -> str:
    """What the files of a chapter's assignment are called: "02_latent_space".

    Raises:
        ConfigError: no such chapter.
    """
    number = of_chapter(chapter)[0].chapter
    return f"{number}_{re.sub(r'[^a-z0-9]+', '_', chapters()[number].lower()).strip('_')}"


def refuse(paths: Iterable[Path], overwrite: bool) -> None:
    """ConfigError where one of the files is there and must not be replaced."""
    for path in paths:
        if path.exists() and not overwrite:
            raise ConfigError(
                f"{path} is there already, and you may have changed it. Give --overwrite to replace it, or another folder."
            )


def hidden_seed(seed: int | None) -> int:
    """The seed of the hidden tests: the one given, or a random one, known to nobody else."""
    return secrets.randbelow(2**31) if seed is None else seed


def write_plain(path: Path, chapter: str) -> Path:
    """Write the students' notebook, as it is handed out without nbgrader."""
    chosen = of_chapter(chapter)
    return write_notebook(path, chapters()[chosen[0].chapter], _plain_cells(chosen))


def _graded_cells(chosen: list[Exercise], seed: int) -> list[dict[str, Any]]:
    cells = []
    for each in chosen:
        key = each.id.replace(".", "-")
        hidden = f'### BEGIN HIDDEN TESTS\ncheck("{each.id}", {each.name}, seed={seed}).require()\n### END HIDDEN TESTS'
        test = f'check("{each.id}", {each.name}).require()\n{hidden}'
        cells += [
            text_cell(f"text-{key}", heading(each)),
            _nbgrader(code_cell(f"answer-{key}", each.source.rstrip()), f"answer-{key}", solution=True),
            _nbgrader(code_cell(f"test-{key}", test), f"test-{key}", grade=True, locked=True, points=each.level),
        ]
    return cells


def _plain_cells(chosen: list[Exercise]) -> list[dict[str, Any]]:
    cells = []
    for each in chosen:
        key = each.id.replace(".", "-")
        cells += [
            text_cell(f"text-{key}", heading(each)),
            code_cell(f"answer-{key}", each.template.rstrip()),
            code_cell(f"test-{key}", f'check("{each.id}", {each.name})'),
        ]
    return cells


def heading(each: Exercise) -> str:
    """Title, points and statement of an exercise."""
    return f"## {each.title} ({each.level} point{'s'[: each.level > 1]})\n\n{statement(each)}"


def write_notebook(path: Path, title: str, cells: list[dict[str, Any]], before: Sequence[dict[str, Any]] = ()) -> Path:
    """Write an assignment's notebook: a title, what installs and imports, the cells; `before` goes first of all."""
    chosen = {each.id: each for each in exercises().values()}
    used = [each for each in chosen.values() if any(f'"{each.id}"' in cell["source"] for cell in cells)]
    about = (
        f"# Exercises: {title}\n\nReplace each line with `NotImplementedError` by your own, then run the cell below it: "
        "it says what is right and, if something is not yet, what was tried, what was expected, and a hint. "
        f"Made with clteach {clteach.__version__}."
    )
    first = [text_cell("about", about), code_cell("install", INSTALL), code_cell("imports", imports(used))]
    metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    document: dict[str, Any] = {
        "cells": [*before, *first, *cells],
        "metadata": metadata,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    for cell in document["cells"]:
        cell["source"] = cell["source"].splitlines(keepends=True)
    # As nbformat writes it, which takes seconds to import.
    text = json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True)
    return write_atomic(path, lambda file: file.write(text.encode()))


def text_cell(id: str, source: str) -> dict[str, Any]:
    """A cell of Markdown."""
    return {"cell_type": "markdown", "id": _cell_id(id), "metadata": {}, "source": source}


def raw_cell(id: str, source: str) -> dict[str, Any]:
    """A cell that is neither shown nor run."""
    return {**text_cell(id, source), "cell_type": "raw"}


def code_cell(id: str, source: str) -> dict[str, Any]:
    """A cell of code that has not been run."""
    cell = text_cell(id, source)
    return {**cell, "cell_type": "code", "execution_count": None, "outputs": []}


def _cell_id(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", text)[:64]


def _nbgrader(cell: dict[str, Any], grade_id: str, **about: Any) -> dict[str, Any]:
    base = {
        "schema_version": 3,
        "grade_id": grade_id,
        "grade": False,
        "solution": False,
        "locked": False,
        "task": False,
    }
    return {**cell, "metadata": {"nbgrader": {**base, **about}}}
