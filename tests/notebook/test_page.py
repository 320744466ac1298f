"""The chapters' helpers, and that importing the package is light."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import clteach
from clteach.errors import ConfigError
from clteach.methods.joint import Joint
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


def test_import_is_light() -> None:
    """`import clteach` loads neither torch nor anything that draws; each name is found on first use."""
    heavy = "torch torchvision matplotlib seaborn pandas sklearn ipywidgets IPython tyro rich joblib"
    code = f"import sys, clteach; print([m for m in {heavy.split()} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    code = f"import sys, clteach; clteach.train, clteach.split; print([m for m in {heavy.split()[1:]} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_public_name_exists() -> None:
    for name in clteach.__all__:
        assert getattr(clteach, name) is not None
        assert name in dir(clteach)
    with pytest.raises(AttributeError, match="nothing"):
        _ = clteach.nothing
