"""`clteach new`: what it writes runs as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from clteach import cli


def python(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(600)
def test_the_method_runs_and_its_test_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "soft-anchor", "--to", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "soft_anchor.py") in said and "pytest test_soft_anchor.py" in said
    assert "soft-anchor: average accuracy" in python(tmp_path, "soft_anchor.py")
    assert "2 passed" in python(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_soft_anchor.py")
    text = (tmp_path / "soft_anchor.py").read_text(encoding="utf-8")
    assert "class SoftAnchor(clteach.Classifier):" in text and r"\mathcal{L}_t" in text
    assert not {"TITLE", "CLASS", "MODULE", "NAME"} & set(text.replace(".", " ").replace('"', " ").split())


def test_the_pieces_keep_to_the_style(tmp_path: Path) -> None:
    assert cli.main(["new", "my2", "--to", str(tmp_path)]) == 0
    python(tmp_path, "-m", "ruff", "check", "--select", "E,F,UP,B", "--line-length", "120", ".")
    python(tmp_path, "-m", "ruff", "format", "--check", "--line-length", "120", ".")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "name the method"),
        ("My_Method", "small letters and digits"),
        ("lambda", "small letters and digits"),
        ("ewc", "there is a method 'ewc' already"),
        ("twice", "twice.py, .*test_twice.py exists: .*--overwrite"),
    ],
)
def test_errors(name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["new", "twice", "--to", str(tmp_path)])
    capsys.readouterr()
    assert cli.main(["new", *([name] if name else []), "--to", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error), error
    assert cli.main(["new", "twice", "--to", str(tmp_path), "--overwrite"]) == 0
