r"""What a method keeps: counted on a learner that was built with the recorded settings and not trained.

All state has its final shape from the start, so nothing needs to be trained:

$$\text{extra} = \text{bytes of its parameters and buffers} + \text{bytes of the old data it trains on again}
  - \text{bytes of fine-tuning's parameters and buffers.}$$

Optimisers are not counted: Adam keeps two numbers per trained weight, for every method alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

from clteach.data.tasks import Spec
from clteach.learners.learner import Learner
from clteach.learners.replay import Memory, empty_samples
from clteach.methods import configure
from clteach.methods.diffusion_replay import DiffusionGenerator, FinetunedDiffusion
from clteach.methods.finetune import FineTune
from clteach.methods.vae_generators import FinetunedVAE

LABEL_BYTES = 16
"""A stored sample's label and task, 8 bytes each, as in `clteach.learners.replay.Memory`."""


class Footprint(NamedTuple):
    """Bytes that a method holds after the last task, beyond those of fine-tuning."""

    data: int
    """real samples, with their labels"""
    kept: int
    """everything else that it cannot do without: importance of weights, masks, a generator; negative if it saves room"""
    passing: int
    """copies of the old model: made anew when a task begins, so they take room during a task, but not between two"""

    @property
    def extra(self) -> int:
        """All of it: what a checkpoint during a task holds."""
        return sum(self)


def size(modules: Iterable[nn.Module]) -> int:
    """Bytes of all parameters and buffers, each counted once."""
    tensors = {id(t): t.nbytes for module in modules for t in (*module.parameters(), *module.buffers())}
    return sum(tensors.values())


def keeps_data(learner: Learner | type[Learner]) -> bool:
    """Does it hold real samples of past tasks: in a `Memory`, or because it trains on them again?

    A class is asked by building it for a small stream.
    """
    if isinstance(learner, type):
        learner = learner(repeated(learner.scenarios[-1], 2))
    again = type(learner).training_data is not Learner.training_data
    return again or any(isinstance(module, Memory) for module in learner.modules())


def footprint(learner: Learner, samples: int) -> Footprint:
    """What a learner keeps, counted.

    Args:
        learner: any learner, trained or not.
        samples: number of training samples of all tasks: what a method holds that trains on all data so far.
    """
    base = fine_tuned(learner)
    own = size(module for module in learner.modules() if isinstance(module, Memory))
    again = type(learner).training_data is not Learner.training_data
    data = own + (samples * (empty_samples(1, learner.spec.shape).nbytes + LABEL_BYTES) if again else 0)
    copies = sum(t.nbytes for t in passing(learner)) - sum(t.nbytes for t in passing(base))
    return Footprint(data, size([learner]) - size([base]) - own - copies, copies)


def passing(learner: Learner) -> list[Tensor]:
    """Its frozen copies, and its buffers called old_...: they are written anew when a task begins."""
    copies = [module for module in learner.modules() if getattr(module, "stays_in_eval_mode", False)]
    old = [buffer for name, buffer in learner.named_buffers() if name.rpartition(".")[2].startswith("old_")]
    within = {id(t): t for copy in copies for t in (*copy.parameters(), *copy.buffers())}
    return [*(within | {id(t): t for t in old}).values()]


def fine_tuned(learner: Learner) -> Learner:
    """Fine-tuning of the same network: a classifier's, a diffusion model's, or for other pure generators that of a VAE."""
    generator = FinetunedDiffusion if isinstance(learner, DiffusionGenerator) else FinetunedVAE
    cls: type[Learner] = FineTune if learner.measure == "accuracy" else generator
    fields = {field.name for field in dataclasses.fields(cls.Config)}
    return cls(learner.spec, configure(cls, {k: v for k, v in vars(learner.cfg).items() if k in fields}))


def repeated(scenario: str, tasks: int, shape: tuple[int, ...] = (1, 8, 8)) -> Spec:
    """A stream whose tasks share two output units, so that more tasks alone make no larger network."""
    return Spec(shape, tasks, 2, scenario, ((0, 1),) * tasks)
