"""The chapters' helpers."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import Any

import pytest

from clteach.errors import ConfigError
from clteach.learners.replay import imitation_loss
from clteach.methods import METHODS
from clteach.methods.joint import Joint
from clteach.metrics.generation import frechet_distance
from clteach.models.vae import VAE
from clteach.notebook.page import by_size, show_source


def test_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLTEACH_SIZE", raising=False)
    assert by_size(1, 2) == 1
    monkeypatch.setenv("CLTEACH_SIZE", "full")
    assert by_size(1, 2) == 2
    monkeypatch.setenv("CLTEACH_SIZE", "huge")
    with pytest.raises(ConfigError, match="CLTEACH_SIZE='huge'"):
        by_size(1, 2)


def test_show_source_is_the_running_code() -> None:
    text = show_source(Joint.training_data, Joint).data
    assert inspect.getsource(Joint) in text
    assert "*`clteach.methods.joint.Joint.training_data`*" in text
    assert "\ndef training_data" in text, "a method stands at the left margin"


SHOWN = [*METHODS.values(), VAE, by_size, frechet_distance, imitation_loss]


@pytest.mark.parametrize("each", SHOWN, ids=lambda each: each.__name__)
def test_show_source_leaves_out_what_docstrings_say_of_arguments_and_nothing_else(each: Any) -> None:
    shown = re.search(r"```python\n(.*)\n```", show_source(each).data, re.DOTALL)
    assert shown is not None
    written, seen = (ast.parse(textwrap.dedent(text)) for text in (inspect.getsource(each), shown[1]))
    for one, other in zip(ast.walk(written), ast.walk(seen), strict=True):
        if isinstance(one, (ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(one)):
            assert isinstance(other, (ast.ClassDef, ast.FunctionDef))
            kept = re.split(r"\n\n?(Args|Returns|Yields|Raises):\n", text)[0]
            kept = re.sub(r"(^|\n)\$\$.*?\$\$.*?(?=\n|$)", "", kept, flags=re.DOTALL)
            assert (ast.get_docstring(other) or "").split() == kept.split()
    code, comments = (
        [line for line in text.splitlines() if line.lstrip()[:1] == "#"] for text in (inspect.getsource(each), shown[1])
    )
    assert [line.strip() for line in code] == [line.strip() for line in comments]
    for tree in (written, seen):
        for node in ast.walk(tree):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
                del node.body[0]
    assert ast.dump(written) == ast.dump(seen)
