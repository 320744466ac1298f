"""What the methods ask of their optimiser: fused Adam, its next step in advance, and moments that cost no time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from clteach.errors import ConfigError

OPTIMISERS = (Adam, AdamW, SGD)
"""Optimisers that treat every weight by itself, in the same way in every step."""


def constant(progress: float) -> float:
    """The learning-rate scale 1 at every progress in [0, 1)."""
    return 1.0


def adam(parameters: Iterable[nn.Parameter], lr: float, **settings: Any) -> Adam:
    """Adam in one fused kernel (one pass over the parameters instead of about ten).

    Raises:
        ConfigError: there is nothing to train.
    """
    parameters = list(parameters)
    if not parameters:
        raise ConfigError(
            "the network has no weight that learns. Expected at least one parameter with requires_grad=True: leave the "
            "last layer unfrozen, or add one."
        )
    return Adam(parameters, lr=lr, fused=True, **settings)


IDLE_EVERY = 100
"""Steps between two calls of `drop_idle_moments` in the training loop; at β₁ = 0.9 a moment needs 170 to become denormal."""


@torch.no_grad()
def drop_idle_moments(optimizer: Optimizer) -> None:
    r"""Set Adam's moments to 0 where they are too small to move a weight: on a CPU they make every later step slow.

    A weight that no sample reaches any more (a pixel that is black in this task, the output unit of an old one) gets the
    gradient 0, and its moment m shrinks by β₁ in every step. Below 1e-38 float32 numbers are *denormal*, and a CPU takes
    many times longer for those. Nor do they go away: 0.9 times the smallest number above 0 is rounded to that number
    again. On split MNIST three quarters of a network's moments end there, and its steps take twice the time.

    The weights do not notice. Adam's step is :math:`-lr\, \hat m / (\sqrt{\hat v} + ε)`: with :math:`|m| < 10^{-22} ε` it
    is below :math:`10^{-21} lr`, and :math:`\sqrt v < 10^{-9} ε` is lost when ε is added. Optimisers without such moments
    are left alone.
    """
    for group in optimizer.param_groups:
        eps = group.get("eps", 0.0)
        for p in group["params"]:
            state = optimizer.state.get(p, {})
            if "exp_avg" in state and "exp_avg_sq" in state:
                state["exp_avg"].masked_fill_(state["exp_avg"].abs() < 1e-22 * eps, 0)
                state["exp_avg_sq"].masked_fill_(state["exp_avg_sq"] < (1e-9 * eps) ** 2, 0)


@torch.no_grad()
def step_preview(optimizer: Optimizer, parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor]) -> list[Tensor]:
    r"""The step Δθ that an optimiser would take with these gradients, without taking it: nothing is written.

    Args:
        optimizer: Adam or SGD, without weight decay, momentum of SGD or other extras.
        parameters: some of the optimiser's parameters.
        gradients: one per parameter, of the same shape.

    Returns:
        Δθ, one per parameter.

    Raises:
        ConfigError: another optimiser, an extra, or a parameter that the optimiser does not have.
    """
    groups = {p: group for group in optimizer.param_groups for p in group["params"]}
    extras = ("weight_decay", "momentum", "amsgrad", "maximize")
    if type(optimizer) not in (Adam, SGD) or any(group.get(key) for group in optimizer.param_groups for key in extras):
        kind = type(optimizer).__name__
        raise ConfigError(f"no preview of a step of {kind} with these settings: expected plain Adam or SGD.")
    steps = []
    for p, g in zip(parameters, gradients, strict=True):
        if p not in groups:
            raise ConfigError("a parameter does not belong to this optimiser: preview with the one that trains it.")
        group, state = groups[p], optimizer.state.get(p)
        if isinstance(optimizer, SGD):
            steps.append(-group["lr"] * g)
            continue
        beta1, beta2 = group["betas"]
        k = state["step"].double() + 1 if state else 1.0  # stays on the device
        # m = β₁ m + (1 - β₁) g,  v = β₂ v + (1 - β₂) g²
        m = state["exp_avg"].lerp(g, 1 - beta1) if state else (1 - beta1) * g
        v = (state["exp_avg_sq"] * beta2).addcmul_(g, g, value=1 - beta2) if state else (1 - beta2) * g.square()
        # Δθ = -lr · m / (1 - β₁ᵏ) / (√(v / (1 - β₂ᵏ)) + ε)
        scale = v.sqrt_().mul_((1 - beta2**k) ** -0.5).add_(group["eps"])
        steps.append(m.div_(scale).mul_(-group["lr"] / (1 - beta1**k)))
    return steps
