"""Online EWC: the merged Fisher information and its centre, against the recursion written out."""

from __future__ import annotations

import pytest
import torch

from clteach.data.streams import split
from clteach.errors import ConfigError
from clteach.learners.fisher import fisher_diagonal
from clteach.methods.ewc import EWC
from clteach.methods.online_ewc import OnlineEWC
from clteach.training.learner_checks import quick, toy_data
from clteach.training.loop import train


def test_decay_and_centre() -> None:
    stream = split(toy_data(n_classes=6), "task", tasks=3)
    kept: list[torch.Tensor] = []

    class Spy(OnlineEWC):
        def end_task(self, t: int, data: object, rng: torch.Generator) -> None:
            fisher = fisher_diagonal(self.net, stream[t].train, self.active_now[t])
            kept.append(torch.cat([f.flatten() for f in fisher]))
            super().end_task(t, stream[t].train, rng)

    learner = Spy(stream.spec, OnlineEWC.Config(hidden=(8,), lam=3.0, gamma=0.5))
    train(learner, stream, steps=5, batch_size=8, device="cpu")
    expected = 3.0 * (0.25 * kept[0] + 0.5 * kept[1] + kept[2])
    torch.testing.assert_close(learner.penalty.curvature, expected)
    torch.testing.assert_close(learner.penalty.centre, learner.penalty.flat())


def test_after_one_task_it_is_ewc() -> None:
    """With one past task there is one Fisher information and one centre: both methods must agree to the last bit."""
    stream = split(toy_data(), "class", tasks=2)
    a, b = quick(EWC, stream, lam=10.0).learner, quick(OnlineEWC, stream, lam=10.0).learner
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


def test_gamma_is_a_share() -> None:
    with pytest.raises(ConfigError, match=r"gamma=1\.5"):
        OnlineEWC.Config(gamma=1.5)
