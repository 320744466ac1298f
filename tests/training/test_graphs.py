"""Recorded training steps, with a recorder that behaves as CUDA's (tests/recorder.py); on a GPU: tests/test_cuda.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import recorder
import torch
from torch import nn

from clteach.data.streams import split
from clteach.learners.learner import Learner, Phase
from clteach.methods import METHODS, build
from clteach.seeding import generator
from clteach.training import graphs
from clteach.training.graphs import Replayed, same_every_step, step_of
from clteach.training.learner_checks import tiny, toy_data
from clteach.training.loop import train
from clteach.training.run import Run
from clteach.training.seeds import pays_off, train_seeds

STREAM = split(toy_data(), "class", tasks=2)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Steps are recorded here; the names of the methods whose were."""
    names: list[str] = []

    def record(self: Replayed, *given: Any) -> Callable[[], None]:
        names.append(self.learner.name)
        return recorder.record(self, *given)

    monkeypatch.setattr(Replayed, "record", record)
    monkeypatch.setattr(graphs, "_on_a_gpu", lambda learner: True)
    monkeypatch.setattr(graphs, "refused", set())
    return names


def ready(name: str, **settings: Any) -> tuple[Learner, Phase]:
    learner = build(name, STREAM.spec, hidden=(8,), **settings)
    phase = learner.phases(0, 8)[0]
    learner.enter(0, phase)
    learner.begin_phase(0, phase, STREAM[0].train, generator(0))
    return learner, phase


CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name, cls in METHODS.items() if hasattr(cls.step, "uniform")),
    ("er", {"reservoir": 20}),
    ("si", {"gradient": "task"}),
    ("generative-replay", {"targets": "hard"}),
    ("generative-replay", {"keep": "samples"}),
    ("brain-inspired-replay", {"feedback": False}),
]


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_recorded_steps_are_those_done_one_by_one(
    name: str, settings: dict[str, Any], seeds: int, recorded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = METHODS[name]
    stream = split(toy_data(), cls.scenarios[-1], tasks=2)
    given = asdict(tiny(cls, **settings))
    learner = build(name, stream.spec, **given)
    if seeds > 1 and not pays_off(learner, 6, "cpu"):
        pytest.skip("its seeds are trained one after the other")
    options: dict[str, Any] = {"steps": 9, "batch_size": 6, "device": "cpu", "log_every": 4, "eval_every": 5, **given}

    def trained() -> list[Run]:
        if seeds == 1:
            return [train(name, stream, **options)]
        return train_seeds(name, lambda seed: stream, range(seeds), **options)

    ours = trained()
    constant = [phase.lr_scale is graphs.constant for t in range(2) for phase in learner.phases(t, 9)]
    assert len(recorded) == sum(constant)
    monkeypatch.setattr(graphs, "_on_a_gpu", lambda learner: False)
    for one, other in zip(ours, trained(), strict=True):
        assert len(one.losses) == len(other.losses) and one.curve == other.curve
        for a, b in zip(one.losses, other.losses, strict=True):
            for what, value in a.items():
                assert value == (b[what] if isinstance(value, str) else pytest.approx(b[what], rel=1e-4, abs=1e-6))
        assert torch.equal(one.accuracy, other.accuracy) or cls.measure != "accuracy"
        for p, q in zip(one.learner.state_dict().values(), other.learner.state_dict().values(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)


def test_losses_of_earlier_steps_stay_as_they_were(recorded: list[str]) -> None:
    (one, _), (other, phase) = ready("finetune"), ready("finetune")
    step, kept = step_of(other, phase), []
    for s in range(8):
        batch = STREAM[0].train.batch(torch.arange(s, s + 6))
        kept.append((one.step(batch, {}), step(batch, {})))
    assert recorded == ["finetune"]
    for a, b in kept:
        assert {name: float(value) for name, value in a.items()} == pytest.approx(
            {name: float(value) for name, value in b.items()}
        )


def test_what_cannot_be_recorded_is_done_by_hand(recorded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that reads a value, as nobody's should: the step is done all the same, and is not tried again."""
    (one, _), (other, phase) = ready("finetune"), ready("finetune")
    cross_entropy = Learner.cross_entropy if hasattr(Learner, "cross_entropy") else type(one).cross_entropy

    def reading(self: Learner, *given: Any) -> torch.Tensor:
        value = cross_entropy(self, *given)
        return value if float(value.detach()) > -1 else -value

    monkeypatch.setattr(type(one), "cross_entropy", reading)
    step, batch = step_of(other, phase), STREAM[0].train.batch(torch.arange(6))
    for s in range(6):
        if s == graphs.WARM_UP:
            with pytest.warns(
                UserWarning, match=r"finetune: its step cannot be recorded .*capturing.*CLTEACH_GRAPHS=0"
            ):
                b = step(batch, {})
        else:
            b = step(batch, {})
        assert one.step(batch, {}) == b
    assert step_of(other, phase) == other.step


def test_optimisers_are_told_only_while_a_step_is_recorded() -> None:
    learner, _ = ready("finetune")
    groups = [group for opt in learner.opts.values() for group in opt.param_groups]
    with graphs.countable(learner):
        assert all(group["capturable"] for group in groups)
    assert not any(group["capturable"] for group in groups)


def hook(*_: object) -> None: ...


CHANGES: dict[str, Callable[[Learner], object]] = {
    "a step": lambda learner: setattr(learner, "step", lambda batch, noise: {}),
    "a loss": lambda learner: setattr(learner, "loss", lambda batch, noise: {}),
    "a network": lambda learner: setattr(learner, "net", type("Mine", (nn.Linear,), {"__module__": "mine"})(36, 4)),
    "a hook": lambda learner: learner.net.register_forward_hook(hook),
    "a hook before": lambda learner: learner.net.register_forward_pre_hook(hook),
    "a hook of gradients": lambda learner: next(learner.parameters()).register_hook(lambda g: None),
    "another optimiser": lambda learner: learner.opts.update(network=torch.optim.Adagrad(learner.parameters())),
    "steps counted on the CPU": lambda learner: learner.opts.update(network=torch.optim.Adam(learner.parameters())),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_somebody_hangs_on_a_learner_does_not_stand_still(what: str, recorded: list[str]) -> None:
    learner, phase = ready("finetune")
    assert isinstance(step_of(learner, phase), Replayed) and same_every_step(learner, stacked=True)
    CHANGES[what](learner)
    assert step_of(learner, phase) == learner.step
    assert same_every_step(learner, stacked=True) == (what == "a loss")


def test_only_known_steps_on_the_first_gpu_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(Learner, "device", torch.device("cuda"))
    monkeypatch.setattr(graphs, "refused", set())
    learner, phase = ready("finetune")
    assert isinstance(step_of(learner, phase), Replayed)
    assert step_of(learner, phase._replace(lr_scale=lambda u: 1 - u)) == learner.step
    own_step = METHODS["a-gem"](STREAM.spec)
    assert step_of(own_step, phase) == own_step.step

    class Mine(METHODS["finetune"]):  # type: ignore[misc]
        """A method of somebody else's."""

    mine = Mine(STREAM.spec)
    assert step_of(mine, phase) == mine.step
    own = METHODS["finetune"](STREAM.spec, net=lambda shape, units: nn.Sequential(nn.Flatten(), nn.LazyLinear(units)))
    assert step_of(own, phase) == own.step
    for where, name, value in (
        (torch.cuda, "is_initialized", lambda: False),
        (torch.cuda, "current_device", lambda: 1),
        (Learner, "device", torch.device("cuda:1")),
        (Learner, "device", torch.device("cpu")),
        (torch, "__version__", "2.10.1+cu126"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(where, name, value)
            assert step_of(learner, phase) == learner.step
    monkeypatch.setenv("CLTEACH_GRAPHS", "0")
    assert step_of(learner, phase) == learner.step
