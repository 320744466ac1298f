"""How many modes of a mixture of Gaussians do generated samples cover (see `clteach.data.plane`)?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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
