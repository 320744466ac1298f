"""Replayed training steps, with a recorder that needs no GPU; with a real one: tests/test_cuda.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from clteach.data.streams import split
from clteach.data.tasks import Batch
from clteach.learners.learner import Learner, Losses, Noise, Phase
from clteach.methods import METHODS, build
from clteach.seeding import generator
from clteach.training import graphs
from clteach.training.graphs import Replayed, step_of
from clteach.training.learner_checks import toy_data

STREAM = split(toy_data(), "class", tasks=2)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As CUDA's: it does nothing when it records, and later what was recorded, on the memory of then."""
    calls: list[str] = []

    def record(self: Replayed, batch: Batch, noise: Noise) -> Callable[[], None]:
        calls.append("recorded")
        first: Losses = {}

        def replay() -> None:
            calls.append("replayed")
            for name, value in self.step(batch, noise).items():
                first.setdefault(name, value.clone()).copy_(value)  # always in the same place
            self.losses = first

        return replay

    monkeypatch.setattr(Replayed, "record", record)
    return calls


def ready(name: str, **settings: Any) -> tuple[Learner, Phase]:
    learner = build(name, STREAM.spec, hidden=(8,), **settings)
    phase = learner.phases(0, 8)[0]
    learner.enter(0, phase)
    learner.begin_phase(0, phase, STREAM[0].train, generator(0))
    return learner, phase


@pytest.mark.parametrize(("name", "settings"), [("finetune", {}), ("si", {}), ("er", {"reservoir": 5})])
def test_replayed_steps_see_their_own_batches(name: str, settings: dict[str, Any], recorder: list[str]) -> None:
    (one, _), (other, _) = ready(name, **settings), ready(name, **settings)
    replayed, kept = Replayed(other, other.step), []
    for s in range(8):
        batch = STREAM[0].train.batch(torch.arange(s, s + 6))
        noise = one.draw(6, generator(0, s))
        a, b = one.step(batch, noise), replayed(batch, noise)
        assert a == b
        kept.append((a, b))
    assert recorder == ["recorded", *["replayed"] * (8 - graphs.WARM_UP)]
    assert all(a == b for a, b in kept), "a later step overwrote the losses of an earlier one"
    for p, q in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(p, q)


def test_what_cannot_be_recorded_is_done_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    (one, _), (other, _) = ready("finetune"), ready("finetune")

    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(Replayed, "record", refuse)
    replayed = Replayed(other, other.step)
    batch = STREAM[0].train.batch(torch.arange(6))
    for s in range(6):
        if s == graphs.WARM_UP:
            with pytest.warns(UserWarning, match=r"finetune: its step cannot be recorded .*is capturing\)$"):
                b = replayed(batch, {})
        else:
            b = replayed(batch, {})
        assert one.step(batch, {}) == b


def test_optimisers_are_told_only_while_a_step_is_recorded() -> None:
    learner, _ = ready("finetune")
    groups = [group for opt in learner.opts.values() for group in opt.param_groups]
    with graphs.countable(learner):
        assert all(group["capturable"] for group in groups)
    assert not any(group["capturable"] for group in groups)


def test_only_known_steps_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(Learner, "device", torch.device("cuda"))
    learner, phase = ready("finetune")
    assert isinstance(step_of(learner, phase), Replayed)
    assert isinstance(step_of(learner, phase, learner.step), Replayed)
    assert step_of(learner, phase._replace(lr_scale=lambda u: 1 - u)) == learner.step
    own_step = METHODS["a-gem"](STREAM.spec)
    assert step_of(own_step, phase) == own_step.step

    class Mine(METHODS["finetune"]):  # type: ignore[misc]
        """A method of somebody else's."""

    mine = Mine(STREAM.spec)
    assert step_of(mine, phase) == mine.step
    own = METHODS["finetune"](STREAM.spec, net=lambda shape, units: nn.Sequential(nn.Flatten(), nn.LazyLinear(units)))
    assert step_of(own, phase) == own.step
    learner.loss = lambda batch, noise: {}  # type: ignore[method-assign]  # compiled, say
    assert step_of(learner, phase) == learner.step
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    del learner.loss
    assert step_of(learner, phase) == learner.step
