"""LwF: the two weightings, and targets that come from the model before the task."""

from __future__ import annotations

import pytest
import torch

from clteach.data.streams import split
from clteach.errors import ConfigError
from clteach.learners.learner import Phase
from clteach.learners.replay import imitation_loss
from clteach.methods.lwf import LwF
from clteach.seeding import generator
from clteach.training.learner_checks import toy_data


@pytest.mark.parametrize(
    ("scenario", "weighting", "w1", "w2"),
    [
        ("class", "share", 1 / 3, 2 / 3),
        ("task", "share", 1 / 3, 2 / 3),
        ("task", "sum", 1, 2 / 4),  # T² = 4 is left out in the 2022 code
        ("domain", "sum", 1, 2 / 4),
        ("class", "sum", 1, 1 / 4),
    ],
)
def test_weights(scenario: str, weighting: str, w1: float, w2: float) -> None:
    stream = split(toy_data(n_classes=6), scenario, tasks=3)
    learner = LwF(stream.spec, LwF.Config(hidden=(8,), weighting=weighting))  # type: ignore[arg-type]
    phase = Phase("train", 1)
    learner.enter(2, phase)
    learner.begin_phase(2, phase, stream[2].train, generator(0))
    with torch.no_grad():
        learner.net[1].weight += 0.1
    batch = stream[2].train.batch(torch.arange(6))
    losses = learner.loss(batch, {})
    torch.testing.assert_close(losses["current"], w1 * learner.cross_entropy(learner.net(batch.x), batch))
    expected = imitation_loss(learner.net(batch.x), learner.old_net(batch.x), learner.old_active, learner.new_active)
    torch.testing.assert_close(losses["distillation"], w2 * expected)
    assert not torch.equal(learner.net(batch.x), learner.old_net(batch.x))


@pytest.mark.parametrize(("scenario", "competing"), [("class", 6), ("task", 2), ("domain", 2)])
def test_averaged_distillation_is_the_summed_one_over_the_number_of_classes(scenario: str, competing: int) -> None:
    stream = split(toy_data(n_classes=6), scenario, tasks=3)
    losses = []
    for averaged in (False, True):
        learner = LwF(stream.spec, LwF.Config(hidden=(8,), averaged=averaged))
        phase = Phase("train", 1)
        learner.enter(2, phase)
        learner.begin_phase(2, phase, stream[2].train, generator(0))
        with torch.no_grad():
            learner.net[1].weight += 0.1
        losses.append(learner.loss(stream[2].train.batch(torch.arange(6)), {}))
    summed, averaged_ = losses
    torch.testing.assert_close(averaged_["distillation"], summed["distillation"] / competing)
    torch.testing.assert_close(averaged_["current"], summed["current"])


def test_imitating_oneself_has_no_gradient() -> None:
    """At the start of a task the new model equals the old one: the soft-target loss is at its minimum."""
    stream = split(toy_data(), "domain", tasks=2)
    learner = LwF(stream.spec, LwF.Config(hidden=(8,)))
    phase = Phase("train", 1)
    learner.enter(1, phase)
    learner.begin_phase(1, phase, stream[1].train, generator(0))
    learner.loss(stream[1].train.batch(torch.arange(6)), {})["distillation"].backward()
    for p in learner.net.parameters():
        assert p.grad is not None and float(p.grad.abs().max()) < 1e-6


def test_temperature() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        LwF.Config(temperature=0.0)
