"""The names that docstrings and messages tell a reader to use exist, after nothing but ``import clteach``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import clteach

ROOT = Path(clteach.__file__).parent
RESOLVE = """
import functools, importlib.util, json, sys
import clteach
assert clteach.exercises.list().index[0] == "00.predict"
missing = []
for name in json.load(sys.stdin):
    try:
        functools.reduce(getattr, name.split(".")[1:], clteach)
    except AttributeError as error:
        if importlib.util.find_spec(name) is None:  # a module may be named that nothing has imported
            missing.append(f"{name}: {error}")
print(json.dumps(missing))
"""


def test_names_in_prose_can_be_used() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py") if "exercises" in path.parts]
    names = {name.rstrip(".") for text in texts for name in re.findall(r"`(clteach\.[\w.]+)", text)}
    assert {"clteach.exercises.list", "clteach.exercises.grading", "clteach.exercises.check"} <= names
    done = subprocess.run(
        [sys.executable, "-c", RESOLVE], input=json.dumps(sorted(names)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
