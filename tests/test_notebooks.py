"""The committed chapters are whole, and the script that executes them gives the same file twice."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
import torch
import yaml
from nbformat import NotebookNode

from clteach.exercises import course, exercises
from clteach.seeding import generator

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "notebooks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


execute, claims = load("execute"), load("claims")


def write(path: Path, *sources: str) -> Path:
    cells = [nbformat.v4.new_markdown_cell("# A title\n\nSome words."), *map(nbformat.v4.new_code_cell, sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_chapter_is_executed_whole(path: Path) -> None:
    """nbval does not compare a cell without an execution count, so each must have one, in order."""
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        failed = any(output.output_type == "error" for output in cell.outputs)
        assert failed == ("raises-exception" in cell.metadata.get("tags", [])), cell.source


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_chapter_is_stamped(path: Path) -> None:
    before = nbformat.read(path, as_version=4)
    after = nbformat.from_dict(before)
    execute.stamp(after, path.name)
    assert before == after, "run `make notebooks`"


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_chapter_has_the_package_s_exercises(path: Path) -> None:
    """Statements and starting code on the page are those of `clteach.exercises`, and no solution is in the notebook."""
    notebook = nbformat.read(path, as_version=4)
    before = [cell.source for cell in notebook.cells]
    execute.write_exercises(notebook, path.name)
    assert before == [cell.source for cell in notebook.cells], "run `make exercises`"
    for each in exercises().values():
        if each.chapter == path.name[:2]:
            assert f":label: {course.label(each)}" in "\n".join(before)
            assert each.solved.rstrip() not in "\n".join(before)


def test_exercises_are_executed_alone(tmp_path: Path) -> None:
    """The rest of the chapter stays, to the byte where nothing changed; a chapter without them gets them."""
    (chapter,) = (path for path in CHAPTERS if path.name.startswith("04"))
    assert execute.execute_exercises(chapter) == chapter.read_text(encoding="utf-8")
    notebook = nbformat.read(chapter, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not cell.id.startswith("exercise-")]
    nbformat.write(notebook, tmp_path / chapter.name)
    assert execute.execute_exercises(tmp_path / chapter.name) == chapter.read_text(encoding="utf-8")


def test_a_chapter_with_exercises_needs_the_heading() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A title")])
    with pytest.raises(execute.ChapterError, match="## Exercises"):
        execute.write_exercises(notebook, "02_new.ipynb")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_chapter_is_small(path: Path) -> None:
    assert path.stat().st_size < 2_500_000


def test_every_chapter_is_in_the_book() -> None:
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    listed = {chapter["file"] for part in toc["parts"] for chapter in part["chapters"]}
    assert {f"notebooks/{path.stem}" for path in CHAPTERS} == {name for name in listed if name.startswith("notebooks/")}


def test_two_executions_give_the_same_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "chapter.ipynb",
        "import sys, ipywidgets\nprint('  50%|#####     | 1/2\\r', file=sys.stderr)\n1 + 1",
        "slider = ipywidgets.IntSlider()\nipywidgets.VBox([slider])",
        "import time\nprint('slowly')\ntime.sleep(0.5)\nprint('printed')\ndisplay(0)\nprint('after')",
    )
    first = execute.execute(path, "quick")
    assert first == execute.execute(path, "quick")

    notebook: NotebookNode = nbformat.reads(first, as_version=4)
    assert [cell.execution_count for cell in notebook.cells[1:]] == [1, 2, 3]
    assert [output.output_type for output in notebook.cells[1].outputs] == ["execute_result"]
    assert [output.get("text") for output in notebook.cells[3].outputs] == ["slowly\nprinted\n", None, "after\n"]
    assert "widgets" in notebook.metadata
    assert execute.colab_badge("chapter.ipynb") in notebook.cells[0].source
    path.write_text(first, encoding="utf-8")
    execute.stamp(notebook, "chapter.ipynb")
    assert notebook == nbformat.read(path, as_version=4)


@pytest.mark.parametrize(
    ("source", "message"),
    [("1 / 0", "ZeroDivisionError"), ("import warnings\nwarnings.warn('careful')", "careful")],
)
def test_a_chapter_that_fails_or_warns_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    path = write(tmp_path / "chapter.ipynb", source)
    before = path.read_bytes()
    monkeypatch.setattr(sys, "argv", ["execute.py", str(path)])
    with pytest.raises(SystemExit, match=message):
        execute.main()
    assert path.read_bytes() == before


def test_a_chapter_needs_a_title(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    with pytest.raises(execute.ChapterError, match="title"):
        execute.stamp(notebook, "chapter.ipynb")


def test_claims_that_depend_on_the_seed_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = torch.rand((), generator=generator(0)).item()
    path = write(
        tmp_path / "chapter.ipynb",
        "import clteach",
        "import torch\nfrom clteach.seeding import generator\nnumber = torch.rand((), generator=generator(0)).item()",
        f"print('between 0 and 1:', 0 <= number <= 1)\nprint('just this one:', number == {number!r})",
    )
    path.write_text(execute.execute(path, "quick"), encoding="utf-8")
    committed = nbformat.read(path, as_version=4)
    assert claims.claims(committed) == {"between 0 and 1:": True, "just this one:": True}
    monkeypatch.setattr(sys, "argv", ["claims.py", str(path), "--rounds", "2"])
    with pytest.raises(SystemExit, match="1"):
        claims.main()
    said = capsys.readouterr().out
    assert said == "chapter.ipynb: 2 claims\n  just this one: True only in 0 of 2 rounds\n"
