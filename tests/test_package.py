"""Importing the package is light, and what it hands on is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import clteach


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
