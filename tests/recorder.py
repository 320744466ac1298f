"""A recorder of training steps that behaves as CUDA's does, on a CPU: Python runs once, later only the operations do.

While a step is recorded its operations are noted, and what they wrote into memory that was there before is undone. A replay
does them again on the same memory, without Python. Reading a value is refused, as it is while CUDA records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clteach.data.tasks import Batch
from clteach.learners.learner import Noise
from clteach.training.graphs import Replayed, countable

READS = ("_local_scalar_dense", "nonzero", "masked_select")


def tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def memory(x: Tensor) -> int:
    return int(x.untyped_storage()._cdata)


class Operations(TorchDispatchMode):
    """Notes operations; `undo` takes back what they wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, list[Tensor], list[bool]]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in READS:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
        given = tensors((args, kwargs))
        if func._schema.is_mutable:
            for x in given:
                if memory(x) not in self.before and x.numel():
                    size = x.untyped_storage().nbytes() // x.element_size()
                    whole = torch.as_strided(x.detach(), (size,), (1,), 0)
                    self.before[memory(x)] = whole, whole.clone()
        out = func(*args, **kwargs)
        old = {memory(x) for x in given}
        new = [memory(x) not in old for x in tensors(out)]
        if any(new) or func._schema.is_mutable:
            self.done.append((func, args, kwargs, tensors(out), new))
        return out

    def undo(self) -> None:
        with torch.no_grad():
            for whole, value in self.before.values():
                whole.copy_(value)

    def again(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, outputs, new in self.done:
                if "empty" in func.overloadpacket.__name__:
                    continue
                for own, value, fresh in zip(outputs, tensors(func(*args, **kwargs)), new, strict=True):
                    if fresh:
                        own.copy_(value)


def record(self: Replayed, batch: Batch, noise: Noise) -> Callable[[], None]:
    """In the place of `Replayed.record`."""
    operations = Operations()
    with countable(self.learner), operations:
        self.losses = self.step(batch, noise)
    operations.undo()
    return operations.again
