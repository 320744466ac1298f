"""Experience replay: what the memory holds, and the weights of the loss."""

from __future__ import annotations

import pytest
import torch

from clteach.data.streams import permuted, split
from clteach.errors import ConfigError
from clteach.learners.learner import Phase
from clteach.learners.replay import Memory
from clteach.methods.er import ER
from clteach.seeding import generator
from clteach.training.learner_checks import quick, toy_data


@pytest.mark.parametrize("shape", [(1, 8, 8), (12,)])
def test_memory_holds_real_samples_of_every_class(shape: tuple[int, ...]) -> None:
    stream = split(toy_data(shape), "class", tasks=2)
    memory = Memory(stream.spec, 5)
    assert len(memory.y) == 20 and memory.filled(1) == 10
    assert len(memory.draw(0, 7, generator(0))) == 0
    for t in range(2):
        memory.add(t, stream[t].train, generator(0, t))
    assert memory.y.bincount().tolist() == [5, 5, 5, 5] and memory.task.bincount().tolist() == [10, 10]
    kept = memory.batch(torch.arange(20))
    for t in range(2):
        real = stream[t].train.batch(torch.arange(len(stream[t].train)))
        for i in range(10 * t, 10 * (t + 1)):
            same = (real.x == kept.x[i]).flatten(1).all(1)
            assert bool((same & (real.y == kept.y[i])).any()), "a kept sample is none of the task's"
    assert len(torch.unique(kept.x, dim=0)) == 20, "samples are kept without repetition where there are enough"
    assert memory.x.dtype == (torch.uint8 if len(shape) == 3 else torch.float32)


def test_memory_draws_only_what_is_filled() -> None:
    memory = Memory(split(toy_data(), "class", tasks=2).spec, 5)
    index = memory.draw(1, 1000, generator(0))
    assert sorted(index.unique().tolist()) == list(range(10))


def test_small_classes_are_repeated_and_permutations_kept() -> None:
    stream = permuted(toy_data(n=3), "domain", tasks=2)
    memory = Memory(stream.spec, 4)
    memory.add(0, stream[0].train, generator(0))
    memory.add(1, stream[1].train, generator(1))
    assert memory.y[:16].bincount().tolist() == [4] * 4
    real = stream[1].train.batch(torch.arange(len(stream[1].train))).x
    assert bool((real == memory.batch(torch.tensor([20])).x).flatten(1).all(1).any())


def test_each_task_counts_alike() -> None:
    stream = split(toy_data(n_classes=6), "task", tasks=3)
    learner = quick(ER, stream, per_class=3).learner
    assert isinstance(learner, ER)
    learner.enter(2, Phase("train", 1))
    batch = stream[2].train.batch(torch.arange(4))
    noise = learner.draw(4, generator(0))
    old = learner.memory.batch(noise["memory"])
    losses = learner.loss(batch, noise)
    torch.testing.assert_close(losses["current"], learner.cross_entropy(learner.net(batch.x), batch) / 3)
    torch.testing.assert_close(losses["replay"], learner.cross_entropy(learner.net(old.x), old) * 2 / 3)
    assert int(old.task.max()) < 2, "only past tasks are replayed"


def test_per_class() -> None:
    with pytest.raises(ConfigError, match="per_class=0"):
        ER.Config(per_class=0)
