"""The autograder for Gradescope, in a folder laid out as their documentation says."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from clteach import cli
from clteach.exercises.course import of_chapter

OWN = of_chapter("00")
POINTS = sum(each.level for each in OWN)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Gradescope's machines run Linux")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    assert cli.main(["assign", "0", "--for", "gradescope", "--to", str(folder), "--seed", "5"]) == 0
    assert sorted(p.suffix for p in folder.rglob("*.*")) == [".ipynb", ".zip"]
    (zipped,) = folder.glob("gradescope/*.zip")
    return zipped


def run(packed: Path, root: Path, cells: list[str] | None) -> dict[str, Any]:
    """Results of the autograder, built and started as on their machines, for a notebook of these cells."""
    with zipfile.ZipFile(packed) as files:
        files.extractall(root / "source")
    (root / "run_autograder").write_bytes((root / "source" / "run_autograder").read_bytes())
    (root / "run_autograder").chmod(0o755)
    (root / "submission").mkdir()
    (root / "results").mkdir()
    (root / "submission_metadata.json").write_text("{}")
    python = root / "venv" / "bin" / "python"  # which setup.sh makes
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    if cells is not None:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        nbformat.write(notebook, root / "submission" / "answer.ipynb")
    subprocess.run([root / "run_autograder"], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd="/")
    found: dict[str, Any] = json.loads((root / "results" / "results.json").read_text())
    return found


def solutions(wrong: dict[str, str] | None = None) -> list[str]:
    imports = ["import copy, math\nimport torch\nfrom torch import Tensor, nn\nfrom torch.nn import functional as F"]
    return imports + ["\n".join([*each.imports, (wrong or {}).get(each.name, each.solved)]) for each in OWN]


def test_what_is_in_the_zip(packed: Path) -> None:
    with zipfile.ZipFile(packed) as files:
        assert sorted(files.namelist()) == ["grade.json", "run_autograder", "setup.sh"]
        for name in ("run_autograder", "setup.sh"):
            assert files.getinfo(name).external_attr >> 16 & stat.S_IXUSR
            text = files.read(name)
            assert text.startswith(b"#!/usr/bin/env bash\n") and b"\r" not in text
            subprocess.run(["bash", "-n"], input=text, check=True)
        assert json.loads(files.read("grade.json"))["seed"] == 5


def test_the_same_assignment_gives_the_same_bytes(packed: Path) -> None:
    from clteach.exercises.gradescope import autograder

    assert zipfile.ZipFile(io.BytesIO(autograder("00", 5))).testzip() is None
    assert autograder("00", 5) == packed.read_bytes()


def test_right_answers_get_all_points(packed: Path, tmp_path: Path) -> None:
    found = run(packed, tmp_path, solutions())
    scores = [test for test in found["tests"] if "score" in test]
    assert sum(test["score"] for test in scores) == sum(test["max_score"] for test in scores) == POINTS
    assert all(test["visibility"] == "after_published" for test in scores)
    shown = [test for test in found["tests"] if "score" not in test]
    assert len(shown) == len(OWN) == len(scores)
    assert all(test["status"] == "passed" and test["visibility"] == "visible" for test in shown)
    assert found["execution_time"] >= 0 and found["stdout_visibility"] == "hidden"


def test_a_wrong_answer_gets_its_hint(packed: Path, tmp_path: Path) -> None:
    first = OWN[0]
    wrong = f"def {first.name}(*args):\n    return 'nothing'"
    found = run(packed, tmp_path, solutions({first.name: wrong}))
    (test,) = [test for test in found["tests"] if test["name"].endswith(f"({first.id})")]
    assert test["status"] == "failed" and "not yet right" in test["output"]
    assert sum(test.get("score", 0) for test in found["tests"]) == POINTS - first.level


def test_nothing_that_could_be_graded(packed: Path, tmp_path: Path) -> None:
    found = run(packed, tmp_path, None)
    assert found["score"] == 0 and "holds no notebook" in found["output"]
