"""An assignment for otter-grader: ``clteach assign 02 --for otter``.

The notebook is in the format that ``otter assign NAME.ipynb dist`` reads: raw cells say where a question, its solution and
its tests begin and end. It makes the students' notebook in ``dist/student`` and the autograder in ``dist/autograder``.
(https://otter-grader.readthedocs.io/en/latest/otter_assign/notebook_format.html)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clteach.exercises.chapters import chapters
from clteach.exercises.course import (
    assignment,
    code_cell,
    heading,
    hidden_seed,
    of_chapter,
    raw_cell,
    refuse,
    text_cell,
    write_notebook,
)
from clteach.exercises.exercise import BEGIN, END, Exercise
from clteach.version import __version__

HIDDEN = '""" # BEGIN TEST CONFIG\nhidden: true\n""" # END TEST CONFIG'
PROMPT = 'raise NotImplementedError("your code here")'


def assign(chapter: str, folder: Path, seed: int | None = None, overwrite: bool = False) -> list[Path]:
    """Write a chapter's exercises as an assignment: ``otter/NAME.ipynb``.

    Args, returns and errors are those of `clteach.exercises.course.assign`.
    """
    chosen, name = of_chapter(chapter), assignment(chapter)
    path = folder / "otter" / f"{name}.ipynb"
    refuse([path], overwrite)
    config = f"# ASSIGNMENT CONFIG\nname: {name}\nexport_cell: false\nrequirements:\n  - clteach=={__version__}"
    seed = hidden_seed(seed)
    cells = [cell for each in chosen for cell in _question(each, seed)]
    return [write_notebook(path, chapters()[chosen[0].chapter], cells, [raw_cell("config", config)])]


def _question(each: Exercise, seed: int) -> list[dict[str, Any]]:
    key = each.id.replace(".", "-")
    shown = f'assert (report := check("{each.id}", {each.name})), report'
    hidden = f'{HIDDEN}\nassert check("{each.id}", {each.name}, seed={seed}), "right only on the numbers shown"'
    return [
        raw_cell(f"begin-{key}", f"# BEGIN QUESTION\nname: {key.replace('-', '_')}\npoints: {each.level}"),
        text_cell(f"text-{key}", heading(each)),
        raw_cell(f"solve-{key}", "# BEGIN SOLUTION"),
        code_cell(f"answer-{key}", _with_prompt(each.source.rstrip())),
        raw_cell(f"solved-{key}", "# END SOLUTION"),
        raw_cell(f"tests-{key}", "# BEGIN TESTS"),
        code_cell(f"test-{key}", shown),
        code_cell(f"hidden-{key}", hidden),
        raw_cell(f"tested-{key}", "# END TESTS"),
        raw_cell(f"end-{key}", "# END QUESTION"),
    ]


def _with_prompt(source: str) -> str:
    """The source with otter's markers, and what the students find between them."""
    lines = []
    for line in source.split("\n"):
        indent = line[: len(line) - len(line.lstrip())]
        if line.strip() == BEGIN:
            lines.append(f"{indent}# BEGIN SOLUTION NO PROMPT")
        elif line.strip() == END:
            lines += [f"{indent}# END SOLUTION", f'{indent}""" # BEGIN PROMPT']
            lines += [f"{indent}{PROMPT}", f'{indent}""" # END PROMPT']
        else:
            lines.append(line)
    return "\n".join(lines)
