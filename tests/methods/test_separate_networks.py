"""Separate networks: each is fine-tuning of its task alone, to the bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from clteach.data.streams import split
from clteach.data.tasks import Batch
from clteach.errors import ConfigError
from clteach.learners.learner import Phase
from clteach.methods.finetune import FineTune
from clteach.methods.separate_networks import SeparateNetworks
from clteach.models.nets import mlp
from clteach.training.learner_checks import toy_data

STREAM = split(toy_data(n_classes=5), "task", classes=[[3, 4], [0, 1, 2]])
CFG = SeparateNetworks.Config(hidden=(8, 7), lr=1e-2)


def trained(steps: int = 12) -> tuple[SeparateNetworks, SeparateNetworks]:
    """Before and after both tasks."""
    learner = SeparateNetworks(STREAM.spec, CFG, seed=3)
    before = copy.deepcopy(learner)
    for t, task in enumerate(STREAM):
        learner.enter(t, Phase("train", steps))
        for s in range(steps):
            learner.step(task.train.batch(torch.arange(5) + 2 * s), {})
    return before, learner


def test_equals_fine_tuning_of_each_task_alone_to_the_bit() -> None:
    before, learner = trained()
    for t, classes in enumerate(([3, 4], [0, 1, 2])):
        alone = split(toy_data(n_classes=5), "task", classes=[classes])
        network = copy.deepcopy(before.networks[t])
        single = FineTune(alone.spec, FineTune.Config(hidden=(8, 7), lr=1e-2), net=lambda shape, n_out: network)  # noqa: B023
        single.enter(0, Phase("train", 12))
        for s in range(12):
            batch = STREAM[t].train.batch(torch.arange(5) + 2 * s)
            single.step(Batch(batch.x, batch.y - STREAM.spec.units[t][0], torch.zeros_like(batch.task)), {})
        assert all(
            torch.equal(a, b) for a, b in zip(single.net.parameters(), learner.networks[t].parameters(), strict=True)
        )
        assert single.evaluate(0, alone[0].test) == learner.evaluate(t, STREAM[t].test)


def test_a_task_moves_its_own_network_alone() -> None:
    before, learner = trained()
    learner.enter(1, Phase("train", 1))
    first, second = copy.deepcopy(learner.networks[0]), copy.deepcopy(learner.networks[1])
    learner.step(STREAM[1].train.batch(torch.arange(5)), {})
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), learner.networks[0].parameters(), strict=True))
    assert not torch.equal(second[1].weight, learner.networks[1][1].weight)
    assert not torch.equal(before.networks[0][1].weight, before.networks[1][1].weight), "weights of their own"


def test_mixed_batches_are_answered_by_each_task_s_network() -> None:
    _, learner = trained()
    x, task = torch.rand(4, 1, 8, 8), torch.tensor([1, 0, 1, 0])
    logits = learner.predict(x, task)
    for i, t in enumerate(task.tolist()):
        units = list(STREAM.spec.units[t])
        torch.testing.assert_close(logits[i, units], learner.networks[t](x[i : i + 1])[0])
        others = [unit for unit in range(STREAM.spec.n_out) if unit not in units]
        assert not logits[i, others].any()
    with pytest.raises(ConfigError, match="task of every sample"):
        learner.predict(x)


def test_a_network_of_one_s_own_has_the_task_s_units() -> None:
    made: list[int] = []

    def maker(shape: tuple[int, ...], n_out: int) -> nn.Module:
        made.append(n_out)
        return mlp(shape, (4,), n_out, nn.Tanh)

    learner = SeparateNetworks(STREAM.spec, net=maker)
    assert made == [2, 3] and isinstance(learner.networks[0][2], nn.Tanh)
