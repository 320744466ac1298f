"""What the studies of the book run: functions that take a seed and settings and give numbers, the same each time.

A study is an experiment that is no stream × methods; `clteach.experiments` records it with several seeds.
"""

from __future__ import annotations

from typing import Any

import torch

from clteach.data import load
from clteach.gan import fit
from clteach.methods.domain_transfer import SHIFTS, transfer
from clteach.methods.ebgan import EBGAN, make_gan
from clteach.plane import coverage, make_cloud
from clteach.seeding import generator

SAMPLES = 2500
"""Samples in which modes are counted."""


def cooled(progress: float) -> float:
    """A learning-rate scale: 1 for the first half of the training, then in a straight line to 0."""
    return min(1.0, 2 - 2 * progress)


def plane_gan(seed: int, steps: int, cloud: str = "grid", batch: int = 128, **settings: Any) -> dict[str, float]:
    """Train a GAN on a mixture of Gaussians in the plane and count the modes that its samples cover.

    Args:
        seed: seed of data, weights, training and samples.
        steps: updates of each player.
        cloud: "grid" or "ring", see `clteach.plane`.
        batch: samples per update.
        **settings: fields of `EBGAN.Config`.

    Returns:
        ``modes`` covered, and ``quality``, the share of samples within 3σ of a mode in percent.
    """
    data = make_cloud(cloud, 50_000, generator(seed, "data"))
    assert data.centres is not None, f"{cloud} has no modes to count"
    gan = make_gan((2,), EBGAN.Config(**settings), seed, bounded=False)
    fit(gan, data.x, steps, batch, seed, cooled)
    with torch.no_grad():
        samples = gan.sample(torch.randn(SAMPLES, gan.cfg.z, generator=generator(seed, "samples")))
    covered = coverage(samples, data.centres, data.sigma)
    return {"modes": covered.modes, "quality": 100 * covered.quality}


def domain_transfer(seed: int, steps: int, dataset: str = "digits", **settings: Any) -> dict[str, float]:
    """Adapt to every shift of a data set, see `clteach.methods.domain_transfer.transfer`.

    Returns:
        For each shift the accuracy on its test images in percent.
    """
    data = load(dataset)
    return {shift: 100 * transfer(data, shift, seed=seed, steps=steps, **settings) for shift in SHIFTS}
