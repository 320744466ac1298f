"""Methods by name."""

from __future__ import annotations

import pytest

from clteach.data.streams import split
from clteach.errors import ConfigError
from clteach.methods import METHODS, build, register
from clteach.training.learner_checks import toy_data


def test_register_refuses_nothing_and_names_what_is_unknown() -> None:
    with pytest.raises(ConfigError, match="unknown method 'ewcc'"):
        build("ewcc", split(toy_data(), tasks=2).spec)
    assert register(METHODS["ewc"]) is METHODS["ewc"]
