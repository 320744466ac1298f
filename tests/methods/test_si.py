"""SI against a quadratic that can be computed by hand, and against a loop that keeps every step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clteach.data.streams import split
from clteach.data.tasks import Batch
from clteach.errors import ConfigError
from clteach.learners.learner import Losses, Noise
from clteach.methods.si import SI
from clteach.training.learner_checks import quick, toy_data
from clteach.training.loop import train


class OnAQuadratic(SI):
    """SI with the loss ½ Σ h (θ - target)², plain gradient descent: everything has a closed form."""

    name = "si-quadratic"
    summary = "for tests"
    stiffness = 2.0

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.opts = {"sgd": torch.optim.SGD(self.net.parameters(), lr=0.1)}
        self.targets = [1.0, 3.0]

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        target = self.targets[self.t]
        parts = [(p - target).square().sum() for p in self.net.parameters()]
        return {"current": 0.5 * self.stiffness * torch.stack(parts).sum()}


def run(gradient: str, c: float, steps: int = 200) -> tuple[OnAQuadratic, Tensor]:
    stream = split(toy_data(), "domain", tasks=2)
    learner = OnAQuadratic(stream.spec, SI.Config(hidden=(), c=c, gradient=gradient, epsilon=1e-3))  # type: ignore[arg-type]
    start = learner.penalty.flat().clone()
    train(learner, stream, steps=steps, batch_size=4, device="cpu")
    return learner, start


def test_path_integral_and_penalty_by_hand() -> None:
    """For small steps ω tends to the fall of the loss, so Ω tends to h/2 and c = 1 takes back just as much."""
    learner, start = run("task", 1.0)
    # θ_k - 1 = (θ_0 - 1) r^k with r = 1 - 0.1 h; g_k = h (θ_k - 1), Δ_k = -0.1 g_k; ω = Σ 0.1 g_k²
    h, rate = 2.0, 0.1
    r = 1 - rate * h
    distance = start - 1.0
    omega = rate * h**2 * distance**2 / (1 - r**2)  # r^400 is 0 in float32
    first = omega / (distance**2 + 1e-3)
    # the second task ends where both springs balance: h (θ - 3) + 2 c Ω (θ - 1) = 0
    end = (h * 3.0 + 2 * first * 1.0) / (h + 2 * first)
    torch.testing.assert_close(learner.penalty.flat(), end, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gradient", ["task", "total"])
def test_which_gradient_enters(gradient: str) -> None:
    """A loop over the same steps, with every gradient and step kept."""
    learner, start = run(gradient, 0.7, steps=30)
    theta, anchor = start.double(), torch.zeros_like(start).double()
    importance = torch.zeros_like(theta)
    for target in (1.0, 3.0):
        omega, before_task = torch.zeros_like(theta), theta.clone()
        for _ in range(30):
            task = 2.0 * (theta - target)
            full = task + 2 * 0.7 * importance * (theta - anchor)
            step = -0.1 * full
            omega -= (task if gradient == "task" else full) * step
            theta = theta + step
        importance += omega / ((theta - before_task) ** 2 + 1e-3)
        anchor = theta.clone()
    torch.testing.assert_close(learner.importance.double(), importance, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(learner.penalty.curvature.double(), 2 * 0.7 * importance, rtol=1e-3, atol=1e-4)


def test_the_two_gradients_differ_only_from_the_second_task_on() -> None:
    stream = split(toy_data(), "class", tasks=2)
    one, other = (quick(SI, split(toy_data(), "class", tasks=2), c=5.0, gradient=g).learner for g in ("task", "total"))
    assert not torch.equal(one.get_buffer("importance"), other.get_buffer("importance"))
    single = split(toy_data(), "class", tasks=1)
    one, other = (quick(SI, single, c=5.0, gradient=g).learner for g in ("task", "total"))
    assert torch.equal(one.get_buffer("importance"), other.get_buffer("importance"))
    assert len(stream) == 2


@pytest.mark.parametrize("bad", [{"c": -1.0}, {"epsilon": 0.0}])
def test_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="si:"):
        SI.Config(**bad)  # type: ignore[arg-type]
