"""Toy numbers for pictures."""

from __future__ import annotations

import matplotlib as mpl
import pytest
import torch
from torch import Tensor

mpl.use("agg")  # else the first look at the settings changes them


class Toy:
    """A matrix, latent codes and a training curve, made up."""

    @staticmethod
    def matrix(n: int, base: float = 0.9) -> Tensor:
        t, i = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        return torch.where(i <= t, base ** (t - i).clamp(min=0), torch.nan)

    @staticmethod
    def codes(d: int, n: int = 40) -> Tensor:
        return torch.randn(n, d, generator=torch.Generator().manual_seed(0))

    @staticmethod
    def curve(n_tasks: int = 3, seeds: int = 2) -> tuple[Tensor, Tensor]:
        """100 steps per task; accuracy 0.1 on tasks not learned yet, else 0.1 (i + 1) on task i, 0.1 more for seed 1."""
        steps = torch.arange(0, 100 * n_tasks + 1, 50)
        accuracy = 0.1 * (1 + torch.arange(n_tasks)) + 0.1 * torch.arange(seeds)[:, None, None] + 0 * steps[:, None]
        return steps, accuracy.masked_fill(steps[:, None] <= 100 * torch.arange(n_tasks), torch.nan).nan_to_num(0.1)


@pytest.fixture
def toy() -> type[Toy]:
    """Numbers to draw: `Toy`."""
    return Toy
