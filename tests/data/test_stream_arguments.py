"""The arguments of streams: converted once, and refused by name where they cannot work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clteach.data.streams import dirichlet, make_stream, permuted, split, stream_settings
from clteach.errors import ConfigError
from clteach.training.learner_checks import toy_data


@pytest.mark.parametrize(
    ("make", "usual", "odd"),
    [
        (split, {"tasks": 2}, {"tasks": "2"}),
        (split, {"tasks": 2, "validation": 0.25}, {"tasks": 2.0, "validation": np.float64(0.25)}),
        (split, {"classes": [[0, 1], [2]]}, {"classes": (np.array([0, 1]), torch.tensor([2]))}),
        (split, {"tasks": 2, "class_order": [3, 1, 0, 2]}, {"tasks": 2, "class_order": np.array([3, 1, 0, 2])}),
        (permuted, {"tasks": 2, "pad": 1}, {"tasks": np.int8(2), "pad": 1.0}),
        (permuted, {"tasks": 2, "test_samples": 5, "seed": 3}, {"tasks": 2, "test_samples": "5", "seed": 3.0}),
        (dirichlet, {"tasks": 2, "alpha": 2.0}, {"tasks": torch.tensor(2), "alpha": "2"}),
    ],
)
def test_arguments_are_converted(make: Any, usual: dict[str, Any], odd: dict[str, Any]) -> None:
    assert make(toy_data(), "class", **odd).fingerprint == make(toy_data(), "class", **usual).fingerprint


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (
            split,
            {"classes": [0, 1, 2]},
            r"classes=\[0, 1, 2\]: expected the classes of each task, such as \[\[0, 1, 2\], ",
        ),
        (split, {"classes": "0,1"}, "classes='0,1': expected the classes of each task"),
        (split, {"tasks": 2.5}, r"tasks=2\.5: expected a whole number, or None"),
        (split, {"tasks": 2, "class_order": 5}, "class_order=5: expected 'natural', 'random' or a list of classes"),
        (split, {"tasks": 2, "validation": float("nan")}, "validation=nan: expected a finite number"),
        (split, {"tasks": 2, "seed": 0.5}, r"seed=0\.5: expected a whole number of 0 or more"),
        (permuted, {"tasks": 10**9}, "tasks=1000000000.*at least one task and at most 10,000"),
        (permuted, {"tasks": 2, "pad": 10**6}, "pad=1000000.*a padding of 0 to 100"),
        (permuted, {"tasks": 2, "pad": None}, "pad=None: expected a whole number"),
        (dirichlet, {"alpha": float("inf")}, "alpha=inf"),
        (dirichlet, {"tasks": "many"}, "tasks='many'"),
    ],
)
def test_arguments_that_cannot_work_are_named(make: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make(toy_data(), "class", **arguments)


def test_a_stream_by_name_knows_its_arguments() -> None:
    odd = {"tasks": np.int64(2), "validation": 0, "weights": Path("some.safetensors")}
    plain = stream_settings("split-digits", odd)
    assert json.dumps(plain) == '{"tasks": 2, "validation": 0.0, "weights": "some.safetensors"}'
    assert list(plain) == list(odd)
    with pytest.raises(ConfigError, match=r"unknown setting of split-streams 'taks'\. Did you mean 'tasks'\?"):
        make_stream("split-digits", taks=2)
    with pytest.raises(ConfigError, match="unknown setting of permuted-streams 'classes'"):
        stream_settings("permuted-digits", {"classes": [[0], [1]]})
    with pytest.raises(ConfigError, match="unknown setting of dirichlet-streams 'dataset'"):
        stream_settings("dirichlet-digits", {"dataset": toy_data()})
    with pytest.raises(ConfigError, match="unknown stream 'cut-digits'"):
        stream_settings("cut-digits", {})
    with pytest.raises(ConfigError, match="tasks='x'"):
        make_stream("split-digits", tasks="x")
