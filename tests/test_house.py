"""The order of the house: who may import whom and from where, and that every name the texts mention exists."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import clteach
from clteach.cli.options import COMMANDS

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "clteach").rglob("*.py"))


def test_no_pickle_is_ever_run() -> None:
    """The package's own files are safetensors and JSON; of a file that others wrote, torch.load takes tensors alone."""
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text and "allow_pickle=True" not in text, path
        assert all("weights_only=True" in call for call in re.findall(r"torch\.load\(.*", text)), path


# ---------------------------------------------------------------------------------------------------------- imports


def lint_imports(folder: Path) -> tuple[int, str]:
    """Exit code and output of import-linter for the package and the contracts in this folder."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"]
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_nobody_imports_upwards_and_no_room_has_a_circle() -> None:
    code, said = lint_imports(ROOT)
    assert code == 0, said


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        (
            "data/tasks.py",
            "\n\ndef planted() -> object:\n    from clteach.training.loop import train\n\n    return train\n",
            r"clteach\.data\.tasks -> clteach\.training\.loop",
        ),
        (
            "learners/optim.py",
            "\n\ndef planted() -> object:\n    from clteach.learners.learner import Learner\n\n    return Learner\n",
            r"clteach\.learners(?s:.*)optim(?s:.*)learner",
        ),
    ],
    ids=["upwards", "circle"],
)
def test_a_planted_import_is_noticed(tmp_path: Path, file: str, text: str, complaint: str) -> None:
    shutil.copytree(
        ROOT / "clteach", tmp_path / "clteach", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "clteach" / file).open("a", encoding="utf-8") as module:
        module.write(text)
    code, said = lint_imports(tmp_path)
    assert code == 1, said
    assert re.search(complaint, said), said


FACES = {f"clteach.{name}" for name in "data metrics training results plots notebook exercises".split()}
"""Packages whose `__init__` hands names on to readers."""


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def borrowed(text: str) -> Iterator[str]:
    """What the source of a module takes from a face, where it should name the file that holds it."""
    handed: dict[str, str] = {}  # the faces by their names in this module
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{'.' * node.level}{node.module or ''}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in FACES:
                    handed[alias.asname or alias.name] = whole
                elif node.module in FACES and not is_module(whole):
                    yield whole
        elif isinstance(node, ast.Import):
            handed |= {alias.asname: alias.name for alias in node.names if alias.asname and alias.name in FACES}
    for node in ast.walk(tree):  # data.load, where `data` is the package
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in handed:
            whole = f"{handed[node.value.id]}.{node.attr}"
            if not is_module(whole):
                yield whole


def test_inside_the_package_an_import_names_the_file() -> None:
    found = {str(path.relative_to(ROOT)): [*borrowed(path.read_text(encoding="utf-8"))] for path in MODULES}
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("from clteach.data import load", ["clteach.data.load"]),
        ("def f():\n    from clteach.plots import comparison, look", ["clteach.plots.comparison"]),
        ("from clteach import data\ndata.load('digits')", ["clteach.data.load"]),
        ("import clteach.results as r\nr.table('a')", ["clteach.results.table"]),
        ("from .catalogue import load", [".catalogue"]),
        ("from clteach.data.catalogue import load\nfrom clteach.results import comparison\ncomparison.live", []),
    ],
)
def test_a_borrowed_name_is_noticed(text: str, names: list[str]) -> None:
    assert [*borrowed(text)] == names


# ------------------------------------------------------------------------------------------- names that texts mention


def mentioning() -> dict[str, str]:
    """The texts by file: the package (docstrings, comments, messages, help), the pages of the book, the chapters."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "book").glob("*.md"))]
    texts = {path: path.read_text(encoding="utf-8") for path in [*MODULES, *pages]}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        texts[path] = "\n\n".join("".join(cell["source"]) for cell in cells)
    return {path.relative_to(ROOT).as_posix(): text for path, text in texts.items()}


TEXTS = mentioning()
START = r"(?<![\w./-])"


@cache
def exists(name: str) -> bool:
    """Can the name be reached from ``import clteach``, modules imported on the way? A class's declared fields count."""
    found: object = clteach
    parts = name.split(".")
    for k, part in enumerate(parts[1:], start=2):
        if hasattr(found, part):
            found = getattr(found, part)
        elif isinstance(found, type) and any(part in vars(base).get("__annotations__", {}) for base in found.__mro__):
            return k == len(parts)
        else:
            try:
                found = importlib.import_module(".".join(parts[:k]))
            except ImportError:
                return False
    return True


def dotted(text: str) -> set[str]:
    """The names ``clteach.…`` in a text; a part that is filled in later (``ch{number}``) is left out."""
    return {match[0] for match in re.finditer(rf"{START}clteach(?:\.\w+)+(?![\w{{])", text)}


def test_every_name_in_a_text_exists() -> None:
    missing = {file: [name for name in sorted(dotted(text)) if not exists(name)] for file, text in TEXTS.items()}
    assert {file: names for file, names in missing.items() if names} == {}


def test_a_name_that_is_gone_is_noticed() -> None:
    text = "`clteach.data.load`, see clteach.recipes.RECIPES and clteach.data.Dataset.colour. In clteach.ch{number}."
    assert {name: exists(name) for name in dotted(text)} == {
        "clteach.data.load": True,
        "clteach.recipes.RECIPES": False,
        "clteach.data.Dataset.colour": False,
    }
    assert exists("clteach.training.run.Run.accuracy"), "a field without a default is no attribute of its class"


def missing_files(text: str) -> list[str]:
    """Files and folders of the repository that a text names and that are not there; NAME and NN stand for anything."""
    named = {match[1] for match in re.finditer(rf"{START}((?:clteach|tests|benchmarks|notebooks)/[\w./*-]*\w)", text)}
    return [name for name in sorted(named) if not [*ROOT.glob(re.sub("NAME|NN", "*", name))]]


def test_every_file_that_a_text_names_exists() -> None:
    missing = {file: missing_files(text) for file, text in TEXTS.items()}
    assert {file: names for file, names in missing.items() if names} == {}


def test_a_file_that_is_gone_is_noticed() -> None:
    text = (
        "`clteach/data/` is there, `clteach/recipes.py` not, tests/methods/test_NAME.py and clteach/methods/si.py are."
    )
    assert missing_files(text) == ["clteach/recipes.py"]


AFTER_THE_NAME = {"import", "authors", "could", "helps", "is", "needs", "raises", "reads"}
"""What follows the package's name in a sentence, or in Python."""


def missing_commands(text: str) -> list[str]:
    """The commands ``clteach WORD`` and ``python -m clteach.X`` that do not exist."""
    words = {match[1] for match in re.finditer(rf"{START}clteach ([a-z][\w-]*)", text)}
    missing = [f"clteach {word}" for word in sorted(words - AFTER_THE_NAME - set(COMMANDS))]
    for match in re.finditer(r"-m (clteach(?:\.\w+)*)", text):
        spec = importlib.util.find_spec(match[1]) if exists(match[1]) else None
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{match[1]}.__main__")
        if spec is None or spec.origin is None or "__main__" not in spec.origin + Path(spec.origin).read_text("utf-8"):
            missing.append(match[0])
    return missing


def test_every_command_in_a_text_exists() -> None:
    missing = {file: missing_commands(text) for file, text in TEXTS.items()}
    assert {file: names for file, names in missing.items() if names} == {}


def test_a_command_that_is_gone_is_noticed() -> None:
    text = "`clteach run`, `clteach train`, from clteach import load; python -m clteach, python -m clteach.results; "
    text += "python -m clteach.experiments.energy_maps; python -m clteach.data; python -m clteach.recipes.main"
    assert missing_commands(text) == ["clteach train", "-m clteach.data", "-m clteach.recipes.main"]
