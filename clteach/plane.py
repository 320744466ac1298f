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


class Coverage(NamedTuple):
    """How many modes are covered, and the share of samples of high quality in [0, 1]."""

    modes: int
    quality: float


def coverage(samples: Tensor, centres: Tensor, sigma: float, at_least: int = 10) -> Coverage:
    """Which modes of a mixture do samples reach, and how many samples are at any mode at all?

    Args:
        samples: (N, 2).
        centres: (K, 2) of the modes.
        sigma: their width; a sample within 3σ of a centre is of high quality.
        at_least: samples of high quality that make a mode count as covered.
    """
    distance, nearest = torch.cdist(samples, centres).min(1)
    good = distance <= 3 * sigma
    counts = torch.bincount(nearest[good], minlength=len(centres))
    return Coverage(int((counts >= at_least).sum()), float(good.double().mean()))


def effective_modes(samples: Tensor, centres: Tensor, sigma: float) -> float:
    """How many modes the samples of high quality are spread over: K if evenly over K, 1 if all are at one, 0 without any.

    Unlike the count of covered modes it falls when most samples crowd into few of them. Arguments as for `coverage`.
    """
    distance, nearest = torch.cdist(samples, centres).min(1)
    share = torch.bincount(nearest[distance <= 3 * sigma], minlength=len(centres)).double()
    share /= share.sum().clamp_min(1)
    # exp(-Σ_k p_k log p_k), with p_k the share of mode k
    return float((-torch.xlogy(share, share).sum()).exp()) if bool(share.any()) else 0.0


def lattice(limit: float, n: int) -> Tensor:
    """(n * n, 2) points of a regular lattice over [-limit, limit]², row by row from the lowest y upwards."""
    axis = torch.linspace(-limit, limit, n)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], 2).view(-1, 2)
