r"""What methods that replay have in common: the loss on samples labelled by an old model, and a memory of real samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.data.tasks import Batch, Data, Spec

TARGETS = ("soft", "hard")
TEMPERATURES = (1e-6, 1e6)
"""Between them float32 still tells logits z/T and their loss T² apart from 0 and infinity."""


def imitation_loss(
    logits: Tensor,
    old_logits: Tensor,
    old_active: Tensor,
    new_active: Tensor,
    targets: str = "soft",
    temperature: float = 2.0,
    squared: bool = True,
) -> Tensor:
    r"""How well a model imitates its former self on inputs that have no other label.

    * **hard** targets: cross-entropy with the old model's most probable label.
    * **soft** targets (distillation, Hinton et al. 2015):
      -T² Σ_c p_old,c log p_c at temperature T; units that the old model does not know have target 0.

    In Task-IL there is no telling which head an input belongs to: the loss is the mean over all past heads.

    Args:
        logits: (R, n_out) of the model that learns.
        old_logits: (R, n_out) of the model that is imitated.
        old_active: (H, n_out) bool, units the old model's softmax runs over; one row per past head. Or (1, R, n_out) where
            it is known which head each sample belongs to.
        new_active: (H, n_out), (1, n_out) or (1, R, n_out) bool, units the new model's softmax runs over.
        targets: "soft" or "hard".
        temperature: T > 0 of soft targets.
        squared: multiply the loss on soft targets by T², which makes its gradient about as large as with T = 1?

    Returns:
        () the mean over heads and samples, in nats (for soft targets times T², if `squared`).
    """
    old_active, new_active = (
        mask if mask.ndim == 3 else mask[:, None] for mask in (old_active, new_active)
    )  # (H, 1 or R, n_out)
    old = old_logits.masked_fill(~old_active, -torch.inf)  # (H, R, n_out)
    new = logits.masked_fill(~new_active, -torch.inf).expand_as(old)
    if targets == "hard":
        return F.cross_entropy(new.flatten(0, 1), old.argmax(2).flatten())
    # -T² Σ_c p_old,c log p_c at temperature T; a unit that is not active has log p = -∞ but target 0, so it is left out
    log_p = F.log_softmax(new / temperature, 2).masked_fill(~new_active, 0)
    return -(temperature**2 if squared else 1) * (F.softmax(old / temperature, 2) * log_p).sum(2).mean()


def empty_samples(n: int, shape: Sequence[int]) -> Tensor:
    """(n, *shape) zeros, room for n inputs: bytes for images (C, H, W), a quarter of the memory, float32 for vectors."""
    return torch.zeros(n, *shape, dtype=torch.uint8 if len(shape) == 3 else torch.float32)


def write_samples(kept: Tensor, rows: slice | Tensor, x: Tensor) -> None:
    """Write inputs x (n, *shape) in [0, 1] into these rows of `empty_samples`; pixels are rounded to the nearest byte."""
    kept[rows] = (x * 255).round().to(torch.uint8) if kept.dtype == torch.uint8 else x


def read_samples(kept: Tensor, index: Tensor) -> Tensor:
    """(n, *shape) float32 inputs in [0, 1] at positions `index` (n,) of `empty_samples`."""
    x = kept.index_select(0, index)
    return x.to(torch.float32).div_(255) if kept.dtype == torch.uint8 else x


class Reservoir(nn.Module):
    """A fixed number of real samples, each of all that were seen with the same probability (Vitter 1985).

    It is filled as samples come and needs to know of no task. Images are kept as bytes (uint8), vectors as float32.

    Args:
        shape: shape of one input.
        capacity: number of samples kept.
    """

    x: Tensor  # (capacity + 1, *shape); the last place is for what is not kept
    y: Tensor  # (capacity + 1,)
    task: Tensor  # (capacity + 1,)
    seen: Tensor  # () int64, samples seen so far

    def __init__(self, shape: Sequence[int], capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.register_buffer("x", empty_samples(capacity + 1, shape))
        for name in ("y", "task"):
            self.register_buffer(name, torch.zeros(capacity + 1, dtype=torch.int64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def add(self, batch: Batch, u: Tensor) -> None:
        """Offer a batch of B samples, with u (B,) uniform random numbers in [0, 1)."""
        k = self.seen + torch.arange(len(u), device=u.device)
        # Sample k (from 0) gets place k while there is room, then place ⌊u (k + 1)⌋, if there is one.
        place = torch.where(k < self.capacity, k, (u.double() * (k + 1)).long()).clamp_max(self.capacity)
        # Of several for one place the last one keeps it, as if they came one by one.
        overwritten = (place[:, None] == place).triu(1).any(1)
        place = place.masked_fill(overwritten, self.capacity)
        write_samples(self.x, place, batch.x)
        self.y[place], self.task[place] = batch.y, batch.task
        for kept in (self.x, self.y, self.task):
            kept[self.capacity].zero_()
        self.seen += len(u)

    def batch(self, u: Tensor) -> Batch:
        """Samples of the memory for u (n,) uniform random numbers in [0, 1); zeros while it is empty."""
        index = (u.double() * self.seen.clamp_max(self.capacity)).long()
        return Batch(read_samples(self.x, index), self.y.index_select(0, index), self.task.index_select(0, index))


class Memory(nn.Module):
    """A fixed number of real samples per class of every task, chosen at random when the task ends.

    Images are kept as bytes (uint8), vectors as float32. All room is allocated at the start, so the memory is part of a
    learner's state dict. A class with fewer samples than `per_class` has some of them twice.

    Args:
        spec: the stream's specification.
        per_class: samples kept per class of a task.
    """

    x: Tensor  # (capacity, *shape)
    y: Tensor  # (capacity,)
    task: Tensor  # (capacity,)

    def __init__(self, spec: Spec, per_class: int) -> None:
        super().__init__()
        self.per_class = per_class
        self.sizes = [per_class * len(units) for units in spec.units]
        capacity = sum(self.sizes)
        self.register_buffer("x", empty_samples(capacity, spec.shape))
        self.register_buffer("y", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("task", torch.zeros(capacity, dtype=torch.int64))
        self.units = spec.units

    def filled(self, t: int) -> int:
        """Samples in memory when t tasks have ended."""
        return sum(self.sizes[:t])

    def add(self, t: int, data: Data, rng: torch.Generator) -> None:
        """Keep `per_class` random samples of every class of task t."""
        start = self.filled(t)
        for unit in self.units[t]:
            candidates = (data.y == unit).nonzero().flatten()
            if len(candidates):  # a Dirichlet task may have test samples of a class, but no training samples
                order = candidates[torch.randperm(len(candidates), generator=rng, device=rng.device)]
                order = order.repeat(math.ceil(self.per_class / len(order)))[: self.per_class]
            else:
                order = torch.randint(len(data), (self.per_class,), generator=rng, device=rng.device)
            batch = data.batch(order)
            rows = slice(start, start + self.per_class)
            write_samples(self.x, rows, batch.x)
            self.y[rows], self.task[rows] = batch.y, batch.task
            start += self.per_class

    def draw(self, t: int, n: int, rng: torch.Generator) -> Tensor:
        """(n,) random positions in a memory of t tasks, with replacement; none if it is empty."""
        filled = self.filled(t)
        return torch.randint(max(filled, 1), (n if filled else 0,), generator=rng, device=rng.device)

    def batch(self, index: Tensor) -> Batch:
        """The samples at positions `index` (n,)."""
        return Batch(read_samples(self.x, index), self.y.index_select(0, index), self.task.index_select(0, index))
