"""The committed chapters are whole, and the script that executes them gives the same file twice."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import venv
import zipfile
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


def tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", ()))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_cells_that_only_draw_or_check_are_folded(path: Path) -> None:
    """The book folds what is tagged so; Jupyter and Colab show it."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    own = [cell for cell in cells if not cell.id.startswith("exercise-")]
    for before, cell in zip([None, *own], own, strict=False):
        shown = {kind for output in cell.outputs for kind in output.get("data", {})}
        if shown & {"image/png", execute.WIDGET_VIEW}:
            assert "hide-input" in tags(cell), cell.source
        if not tags(cell) & {"hide-input", "hide-cell"}:
            assert "plots.theme()" not in cell.source and "claims.add(" not in cell.source, cell.source
        if "claims.add(" in cell.source:
            assert cell.source.endswith("\nclaims") and {"hide-input", "nbval-ignore-output"} <= tags(cell), cell.source
        if cell.source == "claims.check()":
            assert before is not None and "claims.add(" in before.source
            # compared: no nbval-ignore-output
            assert tags(cell) == {"hide-cell"} and all(line.endswith((": True", ": False")) for line in printed(cell))
    assert any(cell.source == "claims.check()" for cell in own)


def printed(cell: NotebookNode) -> list[str]:
    return [line for output in cell.outputs for line in output.get("text", "").splitlines()]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_every_claim_shows_numbers(path: Path) -> None:
    """What is printed as True or False stands in a table before, with what was measured."""
    cells = nbformat.read(path, as_version=4).cells
    for before, cell in itertools.pairwise(cells):
        if cell.cell_type == "code" and not cell.id.startswith("exercise-"):
            lines = [line for line in printed(cell) if line.endswith(("True", "False"))]
            assert not lines or cell.source == "claims.check()", lines
            if lines:
                table = before.outputs[-1]["data"]["text/markdown"].splitlines()[2:]
                assert len(table) == len(lines)
                for row, line in zip(table, lines, strict=True):
                    assert row.endswith("| yes |" if line.endswith("True") else "| **no** |")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name)
def test_every_picture_says_what_it_shows(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                assert len(output["metadata"]["image/png"]["alt"]) > 5, cell.source


BACKEND = """
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "clteach-0.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("clteach/__init__.py", "place = 'the repository'")
        wheel.writestr("clteach-0.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: clteach\\nVersion: 0.0\\n")
        wheel.writestr("clteach-0.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("clteach-0.0.dist-info/RECORD", "")
    return name
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment without clteach, as on Colab."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", with_pip=True)
    return folder / "env" / "bin" / "python"


@pytest.mark.parametrize("there", ["release", "tag", "branch", "nothing"])
def test_the_set_up_cell_installs_the_release_or_the_repository(there: str, elsewhere: Path, tmp_path: Path) -> None:
    index, repository = tmp_path / "index", tmp_path / "repository"
    index.mkdir(), repository.mkdir()
    version = execute.__version__
    if there == "release":
        with zipfile.ZipFile(index / f"clteach-{version}-py3-none-any.whl", "w") as wheel:
            about = f"clteach-{version}.dist-info"
            wheel.writestr("clteach/__init__.py", "place = 'the index'")
            wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: clteach\nVersion: {version}\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{about}/RECORD", "")
    if there in ("tag", "branch"):
        (repository / "backend.py").write_text(BACKEND)
        (repository / "pyproject.toml").write_text(
            "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        )
        git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e"]
        for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "all"]):
            subprocess.run([*git, *command], check=True)
        if there == "tag":
            subprocess.run([*git, "tag", f"v{version}"], check=True)
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "GIT_"))},
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(index),
        "PIP_TARGET": str(tmp_path / "site"),
        "PYTHONPATH": str(tmp_path / "site"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf",
        "GIT_CONFIG_VALUE_0": execute.address(),
    }
    code = f"{execute.setup_cell()}\nprint(clteach.place)"
    done = subprocess.run([elsewhere, "-c", code], env=variables, cwd=tmp_path, capture_output=True, text=True)
    places = [f"clteach=={version}", *(f"git+{execute.address()}@{name}" for name in (f"v{version}", "main"))]
    tried = {"release": 0, "tag": 1, "branch": 2, "nothing": 3}[there]
    said = [f"There is no {place}" for place in places[:tried]]
    if there == "nothing":
        assert done.returncode and "could not be installed" in done.stderr and "pip says" in done.stderr
    else:
        said += [f"Installed {places[tried]}", "the index" if there == "release" else "the repository"]
    assert done.stdout.splitlines() == said, done.stderr


def test_where_the_package_is_nothing_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    exec(execute.setup_cell(), {})
    assert capsys.readouterr().out == "clteach is installed already.\n"
    for path in CHAPTERS:
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        assert cells[0].source == execute.setup_cell() and "hide-cell" in tags(cells[0]), path.name


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
