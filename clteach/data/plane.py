"""Data in the plane, where a distribution can be seen: Gaussians on a grid or a ring, two moons; and a count of modes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from clteach.errors import unknown

SCALE = 2.83
"""The standard deviation of the 25 Gaussians' centres per axis, √8: their coordinates are divided by it."""


class Cloud(NamedTuple):
    """A distribution in the plane: N samples `x` (N, 2); where it is a mixture, its `centres` (K, 2) and their width."""

    x: Tensor
    centres: Tensor | None = None
    sigma: float = 0.0


def grid(n: int, rng: torch.Generator) -> Cloud:
    """The 25 Gaussians: centres {-4, -2, 0, 2, 4}² and σ = 0.05, all divided by 2.83; n samples, modes drawn evenly."""
    axis = torch.tensor([-4.0, -2.0, 0.0, 2.0, 4.0]) / SCALE
    centres = torch.cartesian_prod(axis, axis)
    sigma = 0.05 / SCALE
    modes = torch.arange(n) % len(centres)
    return Cloud(centres[modes] + sigma * torch.randn(n, 2, generator=rng), centres, sigma)


def ring(n: int, rng: torch.Generator) -> Cloud:
    """Eight Gaussians on a circle of radius 1.4, σ = 0.05; n samples, modes drawn evenly."""
    angles = torch.arange(8) * math.tau / 8
    centres = 1.4 * torch.stack([angles.cos(), angles.sin()], 1)
    return Cloud(centres[torch.arange(n) % 8] + 0.05 * torch.randn(n, 2, generator=rng), centres, 0.05)


def moons(n: int, rng: torch.Generator) -> Cloud:
    """Two half circles of radius 1 that reach into each other, with noise of 0.05; n samples, centred."""
    angle = math.pi * torch.rand(n, generator=rng)
    upper = torch.arange(n) % 2 == 0
    # The second moon is the first one turned upside down and moved by (1, 0.5).
    x = torch.where(upper, angle.cos(), 1 - angle.cos()) - 0.5
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin()) - 0.25
    return Cloud(torch.stack([x, y], 1) + 0.05 * torch.randn(n, 2, generator=rng))


CLOUDS = {"grid": grid, "ring": ring, "moons": moons}


def make_cloud(name: str, n: int, rng: torch.Generator) -> Cloud:
    """n samples of a distribution by name, one of `CLOUDS`.

    Raises:
        ConfigError: no such distribution.
    """
    if name not in CLOUDS:
        raise unknown("distribution", name, CLOUDS)
    return CLOUDS[name](n, rng)


def lattice(limit: float, n: int) -> Tensor:
    """(n * n, 2) points of a regular lattice over [-limit, limit]², row by row from the lowest y upwards."""
    axis = torch.linspace(-limit, limit, n)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], 2).view(-1, 2)
