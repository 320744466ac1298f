"""EWC: the penalty against a sum over tasks written out, and a stiff spring that holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clteach.data.streams import permuted, split
from clteach.errors import ConfigError
from clteach.learners.fisher import fisher_diagonal
from clteach.learners.learner import Learner
from clteach.methods import build
from clteach.methods.ewc import EWC
from clteach.training.learner_checks import toy_data
from clteach.training.loop import train


class Spy(EWC):
    """EWC that keeps every task's Fisher information and weights, to write the penalty out by hand."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def end_task(self, t: int, data: Any, rng: torch.Generator) -> None:
        fisher = fisher_diagonal(self.net, data, self.active_now[t])
        self.kept.append((torch.cat([f.flatten() for f in fisher]), self.penalty.flat().clone()))
        super().end_task(t, data, rng)


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_penalty_is_the_sum_over_past_tasks(scenario: str) -> None:
    stream = split(toy_data(n_classes=6), scenario, tasks=3)
    learner = Spy(stream.spec, EWC.Config(hidden=(8,), lam=7.0))
    train(learner, stream, steps=5, batch_size=8, device="cpu")
    with torch.no_grad():
        for p in learner.net.parameters():
            p += 0.1
    theta = learner.penalty.flat()
    by_hand = sum(0.5 * 7.0 * (f * (theta - anchor) ** 2).sum() for f, anchor in learner.kept)
    assert len(learner.kept) == 3
    torch.testing.assert_close(learner.penalty.value(), by_hand, rtol=1e-4, atol=0)


def _run(lam: float) -> tuple[torch.Tensor, Learner]:
    stream = permuted(toy_data(), "domain", tasks=4)
    learner = build("ewc", stream.spec, hidden=(16,), lam=lam, lr=1e-2)
    run = train(learner, stream, steps=100, batch_size=16, device="cpu")
    return run.accuracy, learner


def test_a_stiff_penalty_keeps_the_old_task() -> None:
    """Permuted tasks share every output unit and disagree about the pixels, so fine-tuning must forget."""
    loose, stiff = _run(0.0)[0], _run(1e9)[0]
    assert float(stiff[-1, 0]) > float(loose[-1, 0]) + 0.1
    assert abs(float(stiff[-1, 0] - stiff[0, 0])) < 0.05


@pytest.mark.parametrize("bad", [{"lam": -1.0}, {"lam": float("nan")}, {"fisher_samples": 0}])
def test_bad_settings(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(bad))}=.* expected"):
        EWC.Config(**bad)
