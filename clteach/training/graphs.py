"""Training steps on a GPU as one CUDA graph: recorded once per phase, then replayed without Python in between.

A step of this package's networks is hundreds of small operations. A GPU does each of them in a few microseconds, and to
start one from Python takes as long or longer: it waits for its orders. The contract of a learner says that `loss` is pure,
that all random numbers of a step are drawn before it and that its state has a fixed shape. So every step of a phase is the
same list of operations on the same memory. CUDA records such a list while it is started once (nothing is computed then), and
does it again and again at one call.

A recorded step reads its batch and noise from where they lay when it was recorded, so those of each step are copied there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from clteach.data.tasks import Batch
from clteach.learners.learner import Learner, Losses, Noise, Phase
from clteach.learners.optim import constant

Step = Callable[[Batch, Noise], Losses]
WARM_UP = 3
"""Steps that are done one operation after the other first: optimisers and libraries get their memory in them."""


def step_of(learner: Learner, phase: Phase, step: Step | None = None) -> Step:
    """What does the steps of this phase: a replayed graph on a GPU, where the learner's step is known to allow it.

    Those of a class or a network of somebody else's stay as they are: a counter in Python would stand still in a graph.

    Args:
        learner: the learner, where it is trained.
        phase: the phase; one with a learning rate that changes is not recorded.
        step: its step, or that of a stack of such learners; None: ``learner.step``.
    """
    compiled = step is None and "loss" in vars(learner)
    step = learner.step if step is None else step
    ours = type(learner).__module__.startswith("clteach.") and learner.own_net is None and not compiled
    known = ours and getattr(type(learner).step, "uniform", False)
    # An emulated GPU (tests/emulated_cuda.py) is never initialised.
    if known and phase.lr_scale is constant and learner.device.type == "cuda" and torch.cuda.is_initialized():
        return Replayed(learner, step)
    return step


@contextmanager
def countable(learner: Learner) -> Iterator[None]:
    """Optimisers that ask for it are told that their steps must be counted on the device; fused Adam does so anyway."""
    groups = [group for opt in learner.opts.values() for group in opt.param_groups if "capturable" in group]
    before = [group["capturable"] for group in groups]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group, flag in zip(groups, before, strict=True):
            group["capturable"] = flag


class Replayed:
    """A step that is recorded after `WARM_UP` of its kind.

    Args:
        learner: whose optimisers the step uses.
        step: what to record.
    """

    def __init__(self, learner: Learner, step: Step) -> None:
        self.learner, self.step, self.done = learner, step, 0
        self.replay: Callable[[], None] | None = None
        self.inputs: list[Tensor] = []
        self.losses: Losses = {}

    def __call__(self, batch: Batch, noise: Noise) -> Losses:
        """One step; returns the loss terms as `Learner.step` does."""
        if self.done < WARM_UP:
            self.done += 1
            return self.step(batch, noise)
        if self.replay is None:
            self.inputs = [value.clone() for value in (*batch, *noise.values())]
            of_noise = dict(zip(noise, self.inputs[len(batch) :], strict=True))
            try:
                self.replay = self.record(Batch(*self.inputs[: len(batch)]), of_noise)
            except RuntimeError as error:  # nothing was computed: the step is still to be done
                reason = str(error).strip().partition("\n")[0]
                warnings.warn(
                    f"{self.learner.name}: its step cannot be recorded as a CUDA graph ({reason})", stacklevel=2
                )
                self.replay, self.inputs = self._by_hand, []
        if not self.inputs:
            return self.step(batch, noise)
        for own, given in zip(self.inputs, (*batch, *noise.values()), strict=True):
            own.copy_(given)
        self.replay()
        # The next replay writes into the same memory.
        return {name: value.clone() for name, value in self.losses.items()}

    def record(self, batch: Batch, noise: Noise) -> Callable[[], None]:
        """The function that does a step with what lies in `batch` and `noise` when it is called."""
        graph = torch.cuda.CUDAGraph()
        with countable(self.learner), torch.cuda.graph(graph):
            self.losses = self.step(batch, noise)
        return graph.replay

    def _by_hand(self) -> None:
        """Stands for a graph that could not be recorded."""
