"""What is checked before the first step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clteach.data.streams import split
from clteach.errors import ConfigError
from clteach.learners.learner import Classifier
from clteach.methods import build
from clteach.training.learner_checks import toy_data
from clteach.training.loop import train


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"evaluate_on": "train"}, "evaluate_on"),
        ({"evaluate_on": "valid"}, "validation > 0"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"lam": 3}, "finetune has no setting 'lam'"),
        ({"hidden": (0,)}, "at least one unit"),
        ({"lr": 0.0}, "lr > 0"),
        ({"quality": True}, "finetune is not judged by its samples"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        train("finetune", split(toy_data(), tasks=2), **{"device": "cpu", **arguments})


def test_a_learner_of_another_stream_is_refused() -> None:
    learner = build("finetune", split(toy_data(), tasks=4).spec)
    with pytest.raises(ConfigError, match=r"stream\.spec"):
        train(learner, split(toy_data(), tasks=2), device="cpu")
    with pytest.raises(ConfigError, match="already built"):
        train(learner, split(toy_data(), tasks=4), device="cpu", lr=0.1)


@pytest.mark.parametrize(
    ("learner", "words"),
    [
        (Classifier, r"got the class Classifier\. Build it: Classifier\(stream\.spec\)"),
        (None, "got a NoneType"),
        (5, "got a int"),
        (torch.nn.Linear(2, 2), "got a Linear"),
    ],
)
@pytest.mark.parametrize("settings", [{}, {"lr": 0.1}, {"first": 1}])
def test_what_is_no_learner_is_refused(learner: Any, words: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"expected a method's name, a learner or the Run of one.*{words}"):
        train(learner, split(toy_data(), tasks=2), device="cpu", **settings)


def test_evaluation_on_held_out_training_data() -> None:
    stream = split(toy_data(), "class", tasks=2, validation=0.25)
    run = train("finetune", stream, steps=30, hidden=(8,), device="cpu", evaluate_on="valid")
    assert run.config["evaluate_on"] == "valid"
    assert stream[1].valid is not None
    assert float(run.accuracy[1, 1]) == run.learner.evaluate(1, stream[1].valid)
