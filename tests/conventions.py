"""What the tests of the table of conventions compute with: one set of numbers for ours and for every peer (tests/peers)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import clteach
from clteach.data.tasks import Data
from clteach.learners.learner import Phase
from clteach.learners.penalty import Quadratic
from clteach.training.learner_checks import toy_data

RNG = np.random.default_rng(0)
T = 4
R = torch.from_numpy(RNG.random((T, T)))
INITIAL = torch.from_numpy(RNG.random(T))
EXACT = {"rel": 1e-5}
REAL, MADE = (torch.from_numpy(RNG.normal(mean, 1 + mean, (300, 6))) for mean in (0.0, 0.4))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def samples(n: int = 12) -> Data:
    x = torch.from_numpy(RNG.random((n, 5))).float()
    return Data(x, torch.arange(n), torch.arange(n) % 3, torch.zeros(n, dtype=torch.int64))


def ours(net: nn.Module, curvature: Tensor, centre: Tensor) -> float:
    """½ Σ A (θ - C)²."""
    penalty = Quadratic(net.parameters())
    penalty.add(curvature, centre)
    return float(penalty.value())


def si_learner(epsilon: float, c: float) -> Any:
    data = clteach.split(toy_data((5,), n_classes=3), "class", tasks=3)
    learner = clteach.build("si", data.spec, hidden=(4,), epsilon=epsilon, c=c, lr=0.05)
    learner.enter(0, Phase("train", 5))
    learner.begin_phase(0, learner.phase, data[0].train, torch.Generator())
    return learner


def si_trained(learner: Any, before: Any, after: Any) -> Data:
    """A few steps of ours, in each of which the peer looks at the same weights and gradients."""
    data = samples()
    for s in range(6):
        batch = data.batch(torch.arange(2 * s, 2 * s + 2))
        for group in learner.opts["classifier"].param_groups:
            group["lr"] = 0.05 if s < 2 else -0.05  # the path goes uphill, too
        learner.active_now.fill_(True)
        learner.log_active_now.zero_()
        before(learner.net)
        learner.step(batch, {})
        after(learner.net)
    return data
