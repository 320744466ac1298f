"""The chapters' helpers."""

from __future__ import annotations

import inspect

import pytest

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
