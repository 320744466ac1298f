"""What a step replays of the past: the same samples as asked for task by task, without reading a number from the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clteach.data.streams import split
from clteach.learners.learner import Generator
from clteach.methods.dream_replay import GENERATORS, DreamReplay
from clteach.seeding import generator
from clteach.training.learner_checks import tiny, toy_data


class Waits(RuntimeError):
    """On a GPU, the program would wait for the device here."""


class NoReading(TorchDispatchMode):
    """Refuses what needs numbers or shapes that only the device knows."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").split(".")[0]
        masks = name in ("index", "index_put_", "_index_put_impl_") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in args[1]
        )
        if masks or name in ("_local_scalar_dense", "_unique2", "nonzero", "masked_select"):
            raise Waits(name)
        return func(*args, **(kwargs or {}))


def ready(replay_model: str) -> DreamReplay:
    """A learner in the classifier's phase of the third task of four."""
    stream = split(toy_data(n_classes=8), "class", tasks=4)
    learner = DreamReplay(stream.spec, tiny(DreamReplay, replay_model=replay_model))
    for t in range(3):
        phase = learner.phases(t, 3)[0]
        learner.enter(t, phase)
        learner.begin_phase(t, phase, stream[t].train, generator(t))
    phase = learner.phases(2, 3)[-1]
    learner.enter(2, phase)
    learner.begin_phase(2, phase, stream[2].train, generator(5))
    return learner


@pytest.mark.parametrize("replay_model", GENERATORS)
@pytest.mark.parametrize(("n", "tasks"), [(6, 2), (7, 3), (5, 1), (2, 3), (1, 3)])
def test_the_same_samples_to_the_last_bit(replay_model: str, n: int, tasks: int) -> None:
    old = ready(replay_model).old_generator
    assert isinstance(old, Generator)
    one_by_one = old.sample(n, generator(4), tasks=torch.arange(n) % tasks)
    assert torch.equal(old.sample_evenly(n, tasks, generator(4)), one_by_one)
    assert one_by_one.shape == (n, 1, 8, 8)


# Not an EBGAN: on a CPU, and only there, `one_hot` looks whether its numbers are in range. test_cuda.py has it too.
@pytest.mark.parametrize("replay_model", [name for name in GENERATORS if name != "ebgan"])
def test_a_step_reads_nothing_from_the_device(replay_model: str) -> None:
    learner = ready(replay_model)
    rng = generator(4)
    with NoReading():
        learner.draw(6, rng)


@pytest.mark.parametrize("read", [lambda x: x.unique(), lambda x: x[x > 1], lambda x: float(x.sum()), torch.nonzero])
def test_the_test_notices(read: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(Waits), NoReading():
        read(torch.arange(3.0))
