"""Training steps on a GPU as one CUDA graph: recorded once per phase, then replayed without Python in between.

A step of this package's networks is hundreds of small operations. A GPU does each of them in a few microseconds, and to
start one from Python takes as long or longer: it waits for its orders. The contract of a learner says that `loss` is pure,
that all random numbers of a step are drawn before it and that its state has a fixed shape. So every step of a phase is the
same list of operations on the same memory. CUDA records such a list while it is started once (nothing is computed then), and
does it again and again at one call.

A recorded step reads its batch and noise from where they lay when it was recorded, so those of each step are copied there.
Python runs in the first steps of a phase alone: what somebody hangs on a learner (hooks, a step, a network of their own)
would stand still, so such learners are not recorded. Nor are phases whose learning rate changes. ``CLTEACH_GRAPHS=0``
switches recording off.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import SGD

from clteach.data.tasks import Batch
from clteach.learners.learner import Learner, Losses, Noise, Phase
from clteach.learners.optim import OPTIMISERS, constant

Step = Callable[[Batch, Noise], Losses]
WARM_UP = 3
"""Steps that are done one operation after the other first: optimisers and libraries get their memory in them."""
OURS = ("torch", "clteach")
"""Packages whose modules do the same in every step, but for those that draw random numbers."""
DRAWING = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU),
    *(nn.MultiheadAttention, nn.RNNBase, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d),
)
"""Layers that may draw random numbers from the global generator."""
REPLACEABLE = {"step", "loss", "forward", "predict", "clip_grad_", "cross_entropy"}
"""What a step calls of a learner, and somebody may have put something else in the place of."""
refused: set[type] = set()
"""Classes of which a step could not be recorded: it is not tried again in this process."""


def step_of(learner: Learner, phase: Phase, step: Step | None = None) -> Step:
    """What does the steps of this phase: a replayed graph on a GPU where nothing stands against it, else the step itself.

    Args:
        learner: the learner, where it is trained, or a stack of such learners.
        phase: the phase.
        step: the stack's step; None: ``learner.step``.
    """
    recorded = _on_a_gpu(learner) and phase.lr_scale is constant and same_every_step(learner, stacked=step is not None)
    step = learner.step if step is None else step
    return Replayed(learner, step) if recorded else step


def _on_a_gpu(learner: Learner) -> bool:
    """Is it on the first GPU, in the main thread, with a torch that this was tried with?

    CUDA records what is started on one GPU, while no other thread does what would wait for it. An emulated GPU
    (tests/emulated_cuda.py) is never initialised.
    """
    if learner.device.type != "cuda" or not torch.cuda.is_initialized() or os.environ.get("CLTEACH_GRAPHS") == "0":
        return False
    first = learner.device.index in (None, 0) and torch.cuda.current_device() == 0
    tried = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2] if part.isdigit()) >= (2, 11)
    return first and tried and threading.current_thread() is threading.main_thread()


def same_every_step(learner: Learner, stacked: bool = False) -> bool:
    """Does a step of this learner do the same operations every time, as far as can be seen?

    Args:
        learner: the learner.
        stacked: is it a stack, whose loss is that of many?
    """
    if not getattr(type(learner).step, "uniform", False) or learner.own_net is not None or type(learner) in refused:
        return False
    if vars(learner).keys() & (REPLACEABLE - {"loss"} if stacked else REPLACEABLE):
        return False
    for module in learner.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        if type(module).__module__.partition(".")[0] not in OURS or isinstance(module, DRAWING) or any(hooks):
            return False
    if any(p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None) for p in learner.parameters()):
        return False
    return all(
        # Adam counts its steps on the GPU only where it is fused.
        type(opt) in OPTIMISERS and (type(opt) is SGD or all(group["fused"] for group in opt.param_groups))
        for opt in learner.opts.values()
    )


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
        if self.done < WARM_UP or type(self.learner) in refused:
            self.done += 1
            return self.step(batch, noise)
        if self.replay is None and not self._try(batch, noise):
            return self.step(batch, noise)  # nothing was computed
        for own, given in zip(self.inputs, (*batch, *noise.values()), strict=True):
            own.copy_(given)
        assert self.replay is not None
        self.replay()
        # The next replay writes into the same memory.
        return {name: value.clone() for name, value in self.losses.items()}

    def _try(self, batch: Batch, noise: Noise) -> bool:
        """Record the step; False, with a warning, where that is refused."""
        self.inputs = [value.clone() for value in (*batch, *noise.values())]
        of_noise = dict(zip(noise, self.inputs[len(batch) :], strict=True))
        stream = torch.cuda.current_stream() if torch.cuda.is_initialized() else None
        try:
            self.replay = self.record(Batch(*self.inputs[: len(batch)]), of_noise)
        except Exception as error:
            if stream is not None:  # some versions of torch stay on the one that recorded
                torch.cuda.set_stream(stream)
            refused.add(type(self.learner))
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                f"{self.learner.name}: its step cannot be recorded as a CUDA graph ({reason}); it is done operation by "
                "operation. Set CLTEACH_GRAPHS=0 if anything else on the GPU fails now",
                stacklevel=3,
            )
        return self.replay is not None

    def record(self, batch: Batch, noise: Noise) -> Callable[[], None]:
        """The function that does a step with what lies in `batch` and `noise` when it is called."""
        graph = torch.cuda.CUDAGraph()
        with countable(self.learner), torch.cuda.graph(graph):
            self.losses = self.step(batch, noise)
        return graph.replay
