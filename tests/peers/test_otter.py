"""otter-grader itself: it makes students' notebook and autograder of ours, and marks what comes back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clteach.exercises import otter as assignment
from clteach.exercises.course import of_chapter

pytest.importorskip("otter", reason="needs otter-grader (make peers)")
OWN = of_chapter("00")
pytestmark = pytest.mark.timeout(900)


def otter(*words: str | Path, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "otter", *map(str, words)], cwd=folder, check=True)


def marks(notebook: dict[str, Any], zipped: Path, folder: Path) -> tuple[float, str]:
    """(points, all that is said) of a notebook that is handed in."""
    folder.mkdir()
    (folder / "answer.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    otter("run", "-a", zipped, "-o", folder, "answer.ipynb", folder=folder)
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return sum(test.get("score", 0) for test in results["tests"]), json.dumps(results)


def test_right_and_empty_answers(tmp_path: Path) -> None:
    (path,) = assignment.assign("0", tmp_path, seed=3)
    otter("assign", path.name, "dist", "--no-run-tests", folder=path.parent)
    dist = path.parent / "dist"
    student = json.loads((dist / "student" / path.name).read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in student["cells"])
    assert text.count("NotImplementedError(") == len(OWN) and "seed=3" not in text and "SOLUTION" not in text
    for each in OWN:
        assert each.template.rstrip().split("\n")[0] in text
    (zipped,) = (dist / "autograder").glob("*.zip")
    points, said = marks(student, zipped.resolve(), tmp_path / "empty")
    assert points == 0 and "not done yet" in said
    solved = json.loads((dist / "autograder" / path.name).read_text(encoding="utf-8"))
    assert marks(solved, zipped.resolve(), tmp_path / "solved")[0] == sum(each.level for each in OWN)
