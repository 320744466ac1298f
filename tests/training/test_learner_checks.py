"""The generic suite, over every registered method and every scenario it supports."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from clteach.data.streams import split
from clteach.data.tasks import SCENARIOS, Batch
from clteach.errors import ConfigError
from clteach.learners.learner import Classifier, Learner, Losses, Noise, choices
from clteach.methods import METHODS
from clteach.training.learner_checks import CHECKS, check_learner, check_scenarios, quick, same_state, tiny, toy_data

CASES = [(name, scenario) for name, cls in METHODS.items() for scenario in cls.scenarios]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "scenario"), CASES)
def test_learner(name: str, scenario: str, check: Callable[[type[Learner], str], None]) -> None:
    check(METHODS[name], scenario)


@pytest.mark.parametrize("name", METHODS)
def test_scenarios_and_description(name: str) -> None:
    check_scenarios(METHODS[name])
    assert METHODS[name].summary
    assert METHODS[name].__doc__


@pytest.mark.parametrize("name", METHODS)
def test_settings_that_choose_between_names_or_count_units_are_checked(name: str) -> None:
    cls = METHODS[name]
    for setting, names in choices(cls.Config).items():
        if (name, setting) != ("brain-inspired-replay", "replay_model"):
            with pytest.raises(ConfigError, match=rf"{setting}.*{names[0]}"):
                cls.Config(**{setting: names[0] + "s"})
    layers = [field.name for field in dataclasses.fields(cls.Config) if field.name.endswith("hidden")]
    assert "hidden" in layers
    for setting in layers:
        for bad in ((4, 0), (-1,), 7):
            with pytest.raises(ConfigError, match=f"{setting}=.*at least one unit"):
                cls.Config(**{setting: bad})


# λ = 0 (or its like) must be the method without the penalty, to the last bit: the penalty adds 0 and draws nothing.
OFF: dict[str, dict[str, float]] = {
    "ewc": {"lam": 0.0},
    "online-ewc": {"lam": 0.0},
    "si": {"c": 0.0},
    "xdg": {"share": 0.0},
    "si-xdg": {"c": 0.0, "share": 0.0},
    "brain-inspired-replay-si": {"c": 0.0},
}
PLAIN = {"brain-inspired-replay-si": "brain-inspired-replay"}
"""What a method is with its penalty switched off, where it is not fine-tuning."""


@pytest.mark.parametrize(("name", "scenario"), [case for case in CASES if case[0] in OFF])
def test_zero_strength_is_the_method_without_it(name: str, scenario: str) -> None:
    cls = METHODS[name]
    stream = split(toy_data(), scenario, tasks=2)
    off = quick(cls, stream, **OFF[name]).learner
    plain = quick(METHODS[PLAIN.get(name, "finetune")], stream).learner
    for key, value in plain.named_parameters():
        assert torch.equal(value, off.get_parameter(key))
    assert not same_state(quick(cls, stream).learner, off), "switched on, it must differ"


def test_every_penalty_is_switched_off_somewhere() -> None:
    specs = {scenario: split(toy_data(), scenario, tasks=2).spec for scenario in SCENARIOS}
    with_penalty = {n for n, cls in METHODS.items() if cls(specs[cls.scenarios[0]], tiny(cls)).penalty is not None}
    assert with_penalty <= set(OFF)


class Broken(Classifier):
    """A learner that can be broken in one way at a time, to see that the suite notices."""

    name = "broken"
    summary = "for tests"


def _draws_globally(self: Broken, batch: Batch, noise: Noise) -> Losses:
    return {"current": self.cross_entropy(self.net(batch.x), batch) * torch.rand(())}


def _nan(self: Broken, batch: Batch, noise: Noise) -> Losses:
    return {"current": self.cross_entropy(self.net(batch.x), batch) * torch.nan}


def _writes(self: Broken, batch: Batch, noise: Noise) -> Losses:
    self.active_now.logical_not_().logical_not_()
    with torch.no_grad():
        self.net[1].weight.add_(1e-3)
    return {"current": self.cross_entropy(self.net(batch.x), batch)}


@pytest.mark.parametrize(
    ("attribute", "replacement", "complaint"),
    [
        ("loss", _draws_globally, "check_"),
        ("loss", _nan, "not finite"),
        ("loss", _writes, "differs when called twice|wrote to the learner"),
        ("predict", lambda self, x, task=None: self.net(x) - self.net(x).mean(0), "depends on the batch"),
        ("predict", lambda self, x, task=None: self.net(x)[:, :1], "check_"),
        ("step", lambda self, batch, noise: {"current": torch.zeros(())}, "no weight moved"),
    ],
)
def test_the_suite_notices(
    monkeypatch: pytest.MonkeyPatch, attribute: str, replacement: Callable[..., object], complaint: str
) -> None:
    monkeypatch.setitem(METHODS, "broken", Broken)
    check_learner(Broken)  # whole as it is
    monkeypatch.setattr(Broken, attribute, replacement)
    with pytest.raises((AssertionError, RuntimeError), match=complaint):
        check_learner(Broken)
