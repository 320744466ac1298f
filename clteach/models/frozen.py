"""Frozen copies of networks: the old model, as it was before the current task."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """A copy that never learns: the old model's place, refreshed with `refresh` when a task begins."""
    frozen = copy.deepcopy(module).requires_grad_(False).eval()
    frozen.stays_in_eval_mode = True  # type: ignore[assignment]  # see Learner.train
    return frozen


@torch.no_grad()
def refresh(snapshot: nn.Module, module: nn.Module) -> None:
    """Copy the parameters and buffers of `module` into its frozen copy, in place."""
    for old, new in zip(_tensors(snapshot), _tensors(module), strict=True):
        old.copy_(new)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Batch norm with its running statistics, dropout off; afterwards every part is in the mode that it had."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
