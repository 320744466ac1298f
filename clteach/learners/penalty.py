"""Quadratic penalties on weights, folded into one: what EWC, online EWC and SI add to the loss."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

STRONGEST = 1e18
"""The largest curvature. Adam squares the gradient, and float32 holds no square of more than 1.8e19. There the formula
of a GPU's fused Adam gives NaN (torch 2.15); on a CPU the weight stands still once the mean of the squares gets there.
A weight is held by this curvature as well as by any larger one: the size of Adam's steps does not depend on that of the
gradients."""


class Quadratic(nn.Module):
    r"""A sum of quadratic penalties, ½ Σ_k Σ_i a_ki (θ_i - θ*_ki)², folded into one.

    Completing the square, with A = Σ_k a_k and C = Σ_k a_k θ*_k / A, the sum is ½ Σ_i A_i (θ_i - C_i)² + const. So memory
    and time do not grow with the number of tasks, and the gradient A (θ - C) is added in closed form: sending the penalty
    through autograd would cost half the speed.

    Args:
        parameters: the penalised parameters θ, in a fixed order.
    """

    curvature: Tensor  # A, (P,)
    centre: Tensor  # C, (P,)
    constant: Tensor  # ()

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self._theta = list(parameters)  # a plain list: the parameters belong to the learner, not to its penalty
        self.sizes = [p.numel() for p in self._theta]
        size = sum(self.sizes)
        self.register_buffer("curvature", torch.zeros(size))
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("constant", torch.zeros(()))

    def flat(self, tensors: Iterable[Tensor] | None = None) -> Tensor:
        """(P,) the tensors (default: the parameters) one after the other, detached."""
        return torch.cat([t.detach().flatten() for t in (self._theta if tensors is None else tensors)])

    def add(self, curvature: Tensor, centre: Tensor) -> None:
        """Add one more penalty ½ Σ a (θ - c)²; `curvature` a ≥ 0 and `centre` c are (P,)."""
        total = self.curvature + curvature
        # A C² + a c² - (A + a) C'² = A a (C - c)² / (A + a)
        safe = torch.where(total > 0, total, 1)
        self.constant += 0.5 * (self.curvature * curvature / safe * (self.centre - centre).square()).sum()
        self.centre.copy_(torch.where(total > 0, self.centre + curvature / safe * (centre - self.centre), centre))
        self.curvature.copy_(total.clamp(-STRONGEST, STRONGEST))

    def replace(self, curvature: Tensor, centre: Tensor) -> None:
        """Forget the penalties so far and hold this one alone (SI and online EWC move their centre)."""
        self.curvature.copy_(curvature.clamp(-STRONGEST, STRONGEST))
        self.centre.copy_(centre)
        self.constant.zero_()

    def value(self) -> Tensor:
        """() the penalty, ½ Σ A (θ - C)² + const."""
        return 0.5 * (self.curvature * (self.flat() - self.centre).square()).sum() + self.constant

    def add_grad_(self) -> None:
        """Add the penalty's gradient A (θ - C) to the `.grad` of every parameter that has one, in place."""
        # Along the last axis: of many seeds at once everything has one more in front.
        curvatures, centres = (flat.split(self.sizes, -1) for flat in (self.curvature, self.centre))
        for p, a, c in zip(self._theta, curvatures, centres, strict=True):
            if p.grad is not None:  # what does not learn is not held either
                p.grad.addcmul_(a.view_as(p), p.detach() - c.view_as(p))
