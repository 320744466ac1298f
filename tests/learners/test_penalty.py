"""The quadratic penalty against the sum that it stands for."""

from __future__ import annotations

import torch

from clteach.learners.penalty import Quadratic


def test_quadratic_folds_a_sum_of_penalties() -> None:
    torch.manual_seed(0)
    theta = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    penalty = Quadratic(theta)
    terms = [(torch.rand(10) * (torch.rand(10) > 0.3), torch.randn(10)) for _ in range(4)]
    for a, c in terms:
        penalty.add(a, c)
    flat = penalty.flat()
    by_hand = sum(0.5 * (a * (flat - c) ** 2).sum() for a, c in terms)
    torch.testing.assert_close(penalty.value(), by_hand)
    for p in theta:
        p.grad = torch.ones_like(p)
    penalty.add_grad_()
    grad = 1 + sum(a * (flat - c) for a, c in terms)
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in theta]), grad)
