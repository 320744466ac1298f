"""Assignments and grading: solutions stay with the instructor, and a folder of submissions is graded whatever is in it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from clteach import cli
from clteach.errors import ConfigError
from clteach.exercises import exercises
from clteach.exercises.cells import furnish, run_cell
from clteach.exercises.course import assign, chapter_cells, of_chapter
from clteach.exercises.grading import LARGEST, Limits, grade, to_csv

CHAPTER = "03"
NAME = "03_multiband_vae"
OWN = of_chapter(CHAPTER)
POINTS = sum(each.level for each in OWN)


def sources(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


def solved(path: Path, wrong: dict[str, str] | None = None) -> nbformat.NotebookNode:
    """The notebook with every answer filled in: the reference, or the code given in `wrong`."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for each in OWN:
            if cell.cell_type == "code" and cell.source.startswith(f"def {each.name}("):
                cell.source = (wrong or {}).get(each.name, each.solved)
    return notebook


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    assert cli.main(["assign", CHAPTER, "--to", str(folder), "--seed", "77"]) == 0
    return folder


def test_the_instructor_has_solutions_and_hidden_tests(course: Path) -> None:
    text = "\n".join(sources(course / "source" / NAME / f"{NAME}.ipynb"))
    for each in OWN:
        assert each.source.rstrip() in text
        assert f'### BEGIN HIDDEN TESTS\ncheck("{each.id}", {each.name}, seed=77).require()' in text
    assert "course_id" in (course / "nbgrader_config.py").read_text()


def test_the_students_have_neither(course: Path) -> None:
    text = "\n".join(sources(course / "colab" / f"{NAME}.ipynb"))
    assert "SOLUTION" not in text and "HIDDEN" not in text and "seed=" not in text
    for each in OWN:
        assert each.template.rstrip() in text and f'check("{each.id}", {each.name})' in text
        assert each.statement in text
    assert "%pip install -q clteach" in text


@pytest.mark.parametrize("number", sorted({each.chapter for each in exercises().values()}))
def test_every_chapter_can_be_assigned_and_its_cells_run(number: str, tmp_path: Path) -> None:
    """The students' cells as they are: every check answers "not done yet", none raises."""
    from clteach.exercises.checking import Report

    paths = assign(number, tmp_path)
    space = furnish({})
    for source in (cell.source for cell in nbformat.read(paths[1], as_version=4).cells if cell.cell_type == "code"):
        report = run_cell(source, "cell", space)
        if source.startswith("check("):
            assert isinstance(report, Report) and report.status == "todo"
    assert [cell["source"] for cell in chapter_cells(number)][2].startswith(":::{exercise}")


def test_the_notebooks_are_as_nbformat_writes_them(course: Path) -> None:
    for path in (course / "source" / NAME / f"{NAME}.ipynb", course / "colab" / f"{NAME}.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        assert nbformat.writes(notebook) == path.read_text(encoding="utf-8")


def test_what_is_there_is_not_replaced_by_accident(course: Path) -> None:
    with pytest.raises(ConfigError, match="--overwrite"):
        assign(CHAPTER, course)
    before = (course / "source" / NAME / f"{NAME}.ipynb").read_text()
    assign("3", course, overwrite=True)
    after = (course / "source" / NAME / f"{NAME}.ipynb").read_text()
    assert before != after  # another seed, drawn at random
    assign(CHAPTER, course, seed=77, overwrite=True)
    assert before == (course / "source" / NAME / f"{NAME}.ipynb").read_text()


# ---------------------------------------------------------------------------------------------------------- grade


@pytest.mark.timeout(600)
def test_grade_survives_everything(course: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    submitted = tmp_path / "submitted"
    colab = course / "colab" / f"{NAME}.ipynb"
    old_band = (
        "def place(z_new, task, n_tasks):\n    k = z_new.shape[1]\n    z = z_new.new_zeros(len(z_new), n_tasks * k)\n"
        "    z[:, :k] = z_new\n    return z"
    )

    def hand_in(name: str, notebook: nbformat.NotebookNode, *extra: str, first: bool = False) -> None:
        cells = [nbformat.v4.new_code_cell(source) for source in extra]
        notebook.cells = cells + notebook.cells if first else notebook.cells + cells
        path = submitted / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)

    hand_in(
        "=anna/work.ipynb",
        solved(colab),
        "%matplotlib inline\n!rm -rf nothing",
        "1 / 0",
        "exit()",
        "print('x' * 10**7)",
    )
    hand_in("bert.ipynb", solved(colab, {"place": old_band}))
    hand_in("cora.ipynb", solved(colab), "import os\nos._exit(3)", first=True)
    hand_in("emil.ipynb", solved(colab), "hoard = []\nwhile True:\n    hoard.append(bytearray(10**8))", "hoard = None")
    (submitted / "fritz.ipynb").write_text("dear professor, my dog")
    (submitted / "gerd.ipynb").write_bytes(b"\x89PNG\x00\xff")
    (submitted / "hilde.ipynb").write_text("[1, 2]")
    (submitted / "nest.ipynb").write_text("[" * 100_000)
    with open(submitted / "ida.ipynb", "wb") as file:
        file.truncate(LARGEST + 1)
    (submitted / "folder.ipynb").mkdir()
    (submitted / "notes.txt").write_text("no notebook")

    table = tmp_path / "grades.csv"
    limits = ("--seconds", "100", "--memory", "1.5", "--jobs", "2")
    assert cli.main(["grade", str(submitted), "--csv", str(table), *limits]) == 0
    assert f"9 notebooks, at most {POINTS} points each" in capsys.readouterr().out
    with open(table, newline="") as lines:
        rows = {Path(row["file"]).stem: row for row in csv.DictReader(lines)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "work": "graded",
        "bert": "graded",
        "cora": "crashed",
        "emil": "graded",
        "fritz": "not a notebook",
        "gerd": "not a notebook",
        "hilde": "not a notebook",
        "nest": "not a notebook",
        "ida": "too large",
    }
    assert rows["work"]["student"] == "'=anna"  # a spreadsheet must not take it for a formula
    assert int(rows["work"]["points"]) == POINTS and "ZeroDivisionError" in rows["work"]["remark"]
    assert rows["bert"]["03.place"] == "0" and int(rows["bert"]["points"]) == POINTS - exercises()["03.place"].level
    assert "03.place: wrong" in rows["bert"]["remark"]
    assert int(rows["cora"]["points"]) == 0 and "exit code 3" in rows["cora"]["remark"]
    if sys.platform == "linux":
        assert int(rows["emil"]["points"]) == POINTS and "MemoryError" in rows["emil"]["remark"]
    assert {row["of"] for row in rows.values()} == {str(POINTS)}


def test_a_call_that_nothing_interrupts(tmp_path: Path) -> None:
    """One call into C that holds the interpreter: only the end of its process ends it."""
    code = 'import itertools\n"03.place"\nsum(itertools.count())'
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), tmp_path / "dora.ipynb")
    (graded,), _ = grade(tmp_path, limits=Limits(seconds=6))
    assert graded.status == "timeout" and "stopped after 6 s" in graded.remark and sum(graded.points.values()) == 0


def test_numbers_learned_by_heart_do_not_pass(tmp_path: Path) -> None:
    """Right on the numbers that the check shows, wrong on others."""
    code = (
        "from clteach.exercises import check, get\nimport torch\nfrom clteach.seeding import derive\n"
        'shown = get("04.replay_loss").cases(torch.Generator().manual_seed(derive(0, "04.replay_loss")))\n'
        "def replay_loss(current, replay, n):\n"
        "    for a, b, m in shown.values():\n"
        "        if m == n and abs(float(a) - float(current)) < 1e-6:\n"
        "            return current / n + (1 - 1 / n) * replay\n"
        "    return current * 0\n"
    )
    cells = [nbformat.v4.new_code_cell(code)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "heart.ipynb")
    (graded,), points = grade(tmp_path, limits=Limits(seconds=60))
    assert graded.status == "graded" and graded.points["04.replay_loss"] == 0
    assert "right only on the numbers shown" in graded.remark
    assert (
        to_csv([graded], points, tmp_path, tmp_path / "t.csv")
        .read_text()
        .startswith("student,file,status,points,of,04.")
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["assign"], "name a chapter: 00 (Start here)"),
        (["assign", "12"], "unknown chapter '12'"),
        (["grade"], "name the folder"),
        (["grade", "nowhere"], "nowhere is no folder"),
        (["grade", "."], "holds no notebook"),
        (["grade", ".", "--jobs", "0"], "at least one job"),
    ],
)
def test_one_clear_message(
    argv: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    assert message in capsys.readouterr().err


def test_notebooks_that_mention_no_exercise(tmp_path: Path) -> None:
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "empty.ipynb")
    with pytest.raises(ConfigError, match="--chapter"):
        grade(tmp_path)


# ------------------------------------------------------------------------------------------------------- nbgrader


@pytest.mark.timeout(900)
def test_nbgrader_takes_the_assignment(course: Path) -> None:
    """nbgrader itself makes the students' version and grades a right, a wrong and a broken submission."""
    pytest.importorskip("nbgrader", reason="the extra 'course' is not installed")

    def nbgrader(*command: str) -> str:
        # nbgrader calls alembic, which lies beside this Python; its warnings are its own
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "nbgrader", *command, f"--course-dir={course}"],
            cwd=course,
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr + (f"\nexit code {done.returncode}" if done.returncode else "")

    said = nbgrader("generate_assignment", NAME)
    release = course / "release" / NAME / f"{NAME}.ipynb"
    assert release.is_file(), said
    text = "\n".join(sources(release))
    assert "SOLUTION" not in text and "HIDDEN" not in text and "seed=" not in text and "YOUR CODE HERE" in text
    assert not any(each.solved.rstrip() in text for each in OWN)

    broken = {each.name: f"def {each.name}(*args:\n    return" for each in OWN}  # a syntax error
    never = {"place": "def place(z_new, task, prior):\n    while True:\n        pass"}
    for student, wrong in (("right", {}), ("wrong", never), ("broken", broken)):
        path = course / "submitted" / student / NAME / f"{NAME}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(solved(release, wrong), path)
    said = nbgrader("autograde", NAME)

    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db") as book:
        scores = {s.student.id: (s.score, s.max_score) for s in book.assignment_submissions(NAME)}
    lost = exercises()["03.place"].level
    assert scores == {"right": (POINTS, POINTS), "wrong": (POINTS - lost, POINTS), "broken": (0, POINTS)}, said
    feedback = json.loads((course / "autograded" / "wrong" / NAME / f"{NAME}.ipynb").read_text())
    assert "a loop that never ends" in json.dumps(feedback)
