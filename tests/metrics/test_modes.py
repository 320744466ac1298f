"""The count of modes, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from clteach.metrics.modes import coverage, effective_modes


def test_coverage_by_hand() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    samples = torch.cat(
        [
            torch.zeros(10, 2),  # at the first centre
            torch.tensor([[10.0, 2.9]]).expand(9, 2),  # within 3σ of the second, but only nine
            torch.tensor([[3.1, 0.0]]),  # near none
        ]
    )
    assert coverage(samples, centres, sigma=1.0) == (1, pytest.approx(0.95))
    assert coverage(samples, centres, sigma=1.0, at_least=9).modes == 2


def test_effective_modes_counts_evenly_used_modes() -> None:
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    evenly = centres[[0, 1, 0, 1]]
    assert effective_modes(evenly, centres, 1.0) == pytest.approx(2.0)
    assert effective_modes(centres[[1, 1, 1]], centres, 1.0) == pytest.approx(1.0)
    # shares ¾ and ¼; the sample between the modes does not count
    crowded = torch.cat([centres[[0, 0, 0, 2]], torch.tensor([[5.0, 5.0]])])
    assert effective_modes(crowded, centres, 1.0) == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )
    assert effective_modes(torch.full((3, 2), 5.0), centres, 1.0) == 0.0
