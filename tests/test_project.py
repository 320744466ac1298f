"""The parts of the project that must agree with each other: dependencies, public address, versions, make targets."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import clteach
from clteach.results.pages import stamp

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS: str = PROJECT["urls"]["Repository"]

# The names of packages that conda-forge calls differently.
CONDA_NAMES = {"torch": "pytorch"}


def files() -> list[Path]:
    """All files that are or could be committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_conda_environment_has_the_same_dependencies() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    conda = [entry for entry in environment if isinstance(entry, str) and entry != "pip"]
    wanted = [f"python{PROJECT['requires-python']}"]
    for requirement in PROJECT["dependencies"]:
        name, bound = re.fullmatch(r"([\w.-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
        wanted.append(CONDA_NAMES.get(name, name) + bound)
    assert sorted(conda) == sorted(wanted)


def test_dependencies_have_lower_bounds_only() -> None:
    assert [entry for entry in PROJECT["dependencies"] if not re.fullmatch(r"[\w-]+>=[\d.]+", entry)] == []


def test_the_address_stands_in_one_place() -> None:
    """Files that cannot read it (citation, README, notebooks) may repeat it, and then exactly."""
    repeats = {
        ROOT / "pyproject.toml",
        ROOT / "CITATION.cff",
        ROOT / "README.md",
        *(ROOT / "notebooks").glob("*.ipynb"),
    }
    name = ADDRESS.rpartition("/")[2]
    mention = re.compile(rf"github(?:\.com|usercontent\.com)?/([\w.-]+/{name})\b|([\w-]+)\.github\.io/{name}\b")
    owner_and_name = ADDRESS.removeprefix("https://github.com/")
    wrong = []
    for path in files():
        for match in mention.finditer(path.read_text(encoding="utf-8", errors="ignore")):
            found = match[1] or f"{match[2]}/{name}"
            if path not in repeats or found.removesuffix(".git") != owner_and_name:
                wrong.append(f"{path.relative_to(ROOT)}: {match[0]}")
    assert wrong == []


def test_citation_agrees() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["repository-code"] == ADDRESS
    assert citation["version"] == clteach.__version__
    assert citation["license"] == PROJECT["license"]


def test_changelog_has_this_version() -> None:
    assert f"## {clteach.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_repository_stays_small() -> None:
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in files()}
    assert {name: size for name, size in sizes.items() if size > 3_000_000} == {}
    assert sum(sizes.values()) < 30_000_000


def test_readme_tables_are_the_records() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "| generative-replay |" in readme
    assert stamp(readme) == readme, "run `make record`"


def test_ci_calls_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "make test"


@pytest.mark.parametrize(
    ("fails_at", "message"),
    [("version_info", "needs Python >= 3.11"), ("ensurepip", "venv or ensurepip module is missing")],
)
def test_make_says_what_an_unfit_python_lacks(tmp_path: Path, fails_at: str, message: str) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *{fails_at}*) exit 1;; *) echo Python 3.9.1;; esac\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "run", f"PYTHON={python}", f"VENV={tmp_path}/venv"],
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert message in done.stdout
    assert str(python) in done.stdout
