"""Optimisers: the step that one would take against the step that a copy of it does take; idle moments."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from clteach.errors import ConfigError
from clteach.learners.optim import adam, drop_idle_moments, step_preview

MAKERS: dict[str, Callable[[list[nn.Parameter]], Optimizer]] = {
    "adam": lambda ps: adam(ps, 1e-2),
    "adam, other betas": lambda ps: adam(ps, 1e-2, betas=(0.5, 0.9), eps=1e-3),
    "sgd": lambda ps: SGD(ps, lr=0.3),
}


@pytest.mark.parametrize("before", [0, 1, 5])
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_preview_is_the_step(make: Callable[[list[nn.Parameter]], Optimizer], before: int) -> None:
    torch.manual_seed(before)
    net = nn.Linear(4, 3)
    optimizer = make(list(net.parameters()))
    for _ in range(before):  # 0: the state is still empty
        for p in net.parameters():
            p.grad = torch.randn_like(p)
        optimizer.step()
    other, optimizer_of_other = copy.deepcopy((net, optimizer))
    gradients = [torch.randn_like(p) for p in net.parameters()]
    state, weights = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in net.parameters()]

    got = step_preview(optimizer, list(net.parameters()), gradients)

    for p, g in zip(other.parameters(), gradients, strict=True):
        p.grad = g.clone()
    optimizer_of_other.step()
    for step, then, now in zip(got, weights, other.parameters(), strict=True):
        assert not step.requires_grad
        torch.testing.assert_close(step, (now - then).detach(), rtol=1e-4, atol=1e-7)
    # pure: nothing was written
    assert all(torch.equal(p, w) for p, w in zip(net.parameters(), weights, strict=True))
    torch.testing.assert_close(optimizer.state_dict(), state, rtol=0, atol=0)


def test_the_first_step_of_adam_by_hand() -> None:
    """Empty state: m / (1 - β₁) = g and v / (1 - β₂) = g², so Δθ = -lr g / (|g| + ε), the sign of the gradient."""
    p = nn.Parameter(torch.zeros(3))
    (step,) = step_preview(adam([p], 0.1), [p], [torch.tensor([2.0, -1e-3, 0.0])])
    torch.testing.assert_close(step, torch.tensor([-0.1, 0.1, 0.0]), rtol=1e-4, atol=1e-7)


def test_the_current_learning_rate_counts() -> None:
    p = nn.Parameter(torch.zeros(2))
    optimizer = SGD([p], lr=1.0)
    optimizer.param_groups[0]["lr"] = 0.25
    torch.testing.assert_close(step_preview(optimizer, [p], [torch.ones(2)])[0], torch.full((2,), -0.25))


def test_what_cannot_be_previewed_is_refused() -> None:
    p = nn.Parameter(torch.zeros(2))
    for optimizer in (AdamW([p]), SGD([p], lr=1.0, momentum=0.9), adam([p], 1e-3, weight_decay=0.1)):
        with pytest.raises(ConfigError, match="no preview"):
            step_preview(optimizer, [p], [torch.ones(2)])
    with pytest.raises(ConfigError, match="does not belong"):
        step_preview(SGD([p], lr=1.0), [nn.Parameter(torch.zeros(2))], [torch.ones(2)])


def test_only_idle_moments_are_dropped() -> None:
    p = torch.nn.Parameter(torch.zeros(4))
    for optimizer in (adam([p], 0.1), torch.optim.SGD([p], 0.1, momentum=0.9)):
        p.grad = torch.ones(4)
        optimizer.step()
        state = optimizer.state[p]
        if "exp_avg" in state:
            state["exp_avg"].copy_(torch.tensor([1e-29, -1e-29, -1e-31, 1e-40]))
            state["exp_avg_sq"].copy_(torch.tensor([1e-33, 1.0, 1e-35, 1e-40]))
        before = {k: v.clone() for k, v in state.items()}
        drop_idle_moments(optimizer)
        for k, v in optimizer.state[p].items():
            expected = before[k] * torch.tensor([1.0, 1.0, 0.0, 0.0]) if k.startswith("exp_avg") else before[k]
            assert torch.equal(v, expected), k
