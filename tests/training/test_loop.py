"""The training loop: it adds nothing to a bare loop, keeps to the phases, and resumes between any two steps."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clteach.data.streams import split
from clteach.data.tasks import Batch, Shuffle, Stream
from clteach.errors import ConfigError
from clteach.learners.learner import Classifier, Learner, Losses, Noise, Phase
from clteach.methods import METHODS, build
from clteach.seeding import derive
from clteach.training import loop
from clteach.training.learner_checks import same_state, tiny, toy_data
from clteach.training.loop import train
from clteach.training.run import Run

CPU = torch.device("cpu")


def test_a_numpy_seed_is_the_same_seed() -> None:
    stream = split(toy_data(), "class", tasks=2)
    runs = [train("finetune", stream, steps=3, seed=seed, device="cpu", hidden=(8,)) for seed in (2, np.arange(3)[2])]
    assert runs[0].config == runs[1].config and same_state(runs[0].learner, runs[1].learner)
    with pytest.raises(ConfigError, match=r"seed=0\.5: expected a whole number"):
        train("finetune", stream, steps=3, seed=0.5)  # type: ignore[arg-type]


def test_finetuning_equals_a_bare_loop() -> None:
    """The whole machinery around it adds nothing to the arithmetic."""
    stream = split(toy_data(), "class", tasks=2)
    run = train(build("finetune", stream.spec, hidden=(8,)), stream, steps=6, batch_size=5, seed=3, device="cpu")
    bare = build("finetune", stream.spec, hidden=(8,))
    net = bare.get_submodule("net")
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    for t, n_active in enumerate((2, 4)):
        data = stream[t].train
        shuffle = Shuffle(len(data), 5, derive(3, "shuffle", t, 0), CPU)
        for s in range(6):
            index = shuffle(s)
            x = data.x[data.rows[index]].float() / 255
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net(x)[:, :n_active], data.y[index]).backward()
            optimizer.step()
    for p, q in zip(net.parameters(), run.learner.get_submodule("net").parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


class TwoPhases(Classifier):
    """A learner with two phases, learning-rate decay and a frozen first phase, to test the loop with."""

    name = "two-phases"
    summary = "for tests"

    def phases(self, t: int, steps: int) -> list[Phase]:
        return [Phase("warm", 3, lambda progress: 1 - progress), Phase("main", steps, fresh_optimizer=True)]

    def enter(self, t: int, phase: Phase) -> None:
        super().enter(t, phase)
        self.net[1].requires_grad_(phase.name == "main")

    def begin_phase(self, t: int, phase: Phase, data: Any, rng: torch.Generator) -> None:
        with torch.no_grad():  # a draw and a write: both must happen exactly once
            self.net[-1].bias += 0.01 * torch.randn(self.net[-1].bias.shape, generator=rng)

    def draw(self, n: int, rng: torch.Generator) -> dict[str, torch.Tensor]:
        return {"jitter": torch.randn(n, generator=rng)}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        x = batch.x + 0.01 * noise["jitter"].view(-1, 1, 1, 1)
        return {"current": self.cross_entropy(self.net(x), batch), "size": 1e-3 * self.net[-1].weight.square().sum()}


def test_phases_resume_and_report(tmp_path: Path) -> None:
    stream = split(toy_data(), "class", tasks=2)
    reports: list[tuple[int, int, str]] = []
    options: dict[str, Any] = {"steps": 4, "batch_size": 5, "log_every": 2, "eval_every": 3, "device": "cpu"}

    def make() -> TwoPhases:
        return TwoPhases(stream.spec, tiny(TwoPhases))

    whole = train(make(), stream, progress=lambda *report: reports.append(report), **options)
    assert [(r["task"], r["phase"], r["step"]) for r in whole.losses[:4]] == [
        (0, "warm", 2),
        (0, "warm", 3),
        (0, "main", 2),
        (0, "main", 4),
    ]
    assert reports[-1][:2] == (14, 14) and [r["step"] for r in whole.curve] == [3, 6, 9, 12]
    assert set(whole.losses[0]) == {"task", "phase", "step", "current", "size"}
    for stop in range(1, 14):
        learner = make()
        calls = 0
        original = learner.step

        def step(batch: Batch, noise: Noise) -> Losses:
            nonlocal calls
            calls += 1
            if calls > stop:  # noqa: B023
                raise KeyboardInterrupt
            return original(batch, noise)  # noqa: B023

        learner.step = step  # type: ignore[method-assign]
        file = tmp_path / f"{stop}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            train(learner, stream, checkpoint=file, checkpoint_every=2, **options)
        resumed = train(make(), stream, checkpoint=file, checkpoint_every=2, **options)
        assert same_state(whole.learner, resumed.learner), stop
        assert whole.losses == resumed.losses and whole.curve == resumed.curve, stop
        assert torch.equal(whole.accuracy, resumed.accuracy) and torch.equal(whole.initial, resumed.initial), stop


def dropping(shape: tuple[int, ...], n_out: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, n_out))


class Restless(Classifier):
    """A method of the user's own that draws wherever it is called, and not from the generator it is given."""

    name, summary = "restless", "for tests"

    def begin_phase(self, t: int, phase: Phase, data: Any, rng: torch.Generator) -> None:
        with torch.no_grad():
            self.net[-1].bias += 0.1 * torch.randn(self.net[-1].bias.shape)

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        return {"current": self.cross_entropy(self.predict(batch.x + 0.1 * torch.rand_like(batch.x)), batch)}

    def end_task(self, t: int, data: Any, rng: torch.Generator) -> None:
        self.begin_phase(t, Phase("train", 0), data, rng)

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        return nn.functional.dropout(super().predict(x, task), 0.5)


def with_dropout(stream: Stream) -> Learner:
    learner = build("finetune", stream.spec, hidden=(20,))
    learner.net.insert(3, nn.Dropout(0.5))  # type: ignore[operator,union-attr]
    return learner


DRAW: dict[str, Callable[[Stream], Learner]] = {
    "dropout in a network of one's own": lambda stream: build("lwf", stream.spec, net=dropping),
    "a method of one's own": lambda stream: Restless(stream.spec, tiny(Restless)),
    "dropout put into a method": with_dropout,
}


@pytest.mark.parametrize("what", DRAW)
def test_what_draws_by_itself_has_the_seed_of_the_run(what: str, tmp_path: Path) -> None:
    """Whatever the state of the global generator, which stays as it is; also after a kill at any step."""
    stream = split(toy_data(), "class", tasks=2)

    def trained(seed: int = 0, learner: Learner | None = None, **more: Any) -> Run:
        learner = DRAW[what](stream) if learner is None else learner
        return train(learner, stream, steps=5, batch_size=5, seed=seed, eval_every=3, device="cpu", **more)

    torch.manual_seed(1)
    state = torch.get_rng_state()
    whole = trained()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    again = trained()
    assert same_state(whole.learner, again.learner) and whole.losses == again.losses and whole.curve == again.curve
    assert torch.equal(whole.accuracy, again.accuracy) and torch.equal(whole.initial, again.initial)
    assert trained(seed=1).losses != whole.losses
    for stop in (2, 4, 7):
        file, learner = tmp_path / f"{stop}.safetensors", DRAW[what](stream)
        original, calls = learner.step, iter(range(stop))

        def step(batch: Batch, noise: Noise) -> Losses:
            if next(calls, None) is None:  # noqa: B023
                raise KeyboardInterrupt
            return original(batch, noise)  # noqa: B023

        learner.step = step  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            trained(learner=learner, checkpoint=file, checkpoint_every=1)
        torch.manual_seed(stop)
        resumed = trained(checkpoint=file, checkpoint_every=1)
        assert same_state(whole.learner, resumed.learner) and whole.losses == resumed.losses, stop
        assert torch.equal(whole.accuracy, resumed.accuracy), stop


def test_a_method_of_the_package_is_never_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    def seeded(*path: Any, **where: Any) -> Any:
        raise AssertionError("it would cost time in every step")

    stream = split(toy_data(), "class", tasks=2)
    monkeypatch.setattr(loop, "seeded", seeded)
    train("generative-replay", stream, steps=2, batch_size=5, hidden=(4,), device="cpu")


def test_compiled_steps_give_the_same_result() -> None:
    """The loss can be traced whole, without a graph break. (Code generation is the compiler's business: no C++ here.)"""
    stream = split(toy_data(), "class", tasks=2)
    options: dict[str, Any] = {"steps": 3, "batch_size": 5, "hidden": (8,), "z": 3, "device": "cpu"}
    plain = train("generative-replay", stream, **options)
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own deprecations
        compiled = train("generative-replay", stream, compile="aot_eager", **options)
    for p, q in zip(plain.learner.parameters(), compiled.learner.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert "loss" not in vars(compiled.learner), "the learner is left as it was"


def denormals(run: Run) -> int:
    """How many of the moments of all optimisers are denormal numbers."""
    moments = [v for opt in run.learner.opts.values() for state in opt.state.values() for v in state.values()]
    smallest_normal = torch.finfo(torch.float32).tiny
    return sum(int(((v != 0) & (v.abs() < smallest_normal)).sum()) for v in moments)


@pytest.mark.parametrize("name", ["finetune", "generative-replay"])
def test_dropping_idle_moments_changes_no_weight(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pixel that is black from the second task on leaves its weights without a gradient."""
    data = toy_data(n=80)
    data.x_train[data.y_train >= 2, ..., 0] = 0
    stream = split(data, "task", tasks=2)
    options: dict[str, Any] = {
        "steps": 1000,
        "batch_size": 8,
        "device": "cpu",
        **dataclasses.asdict(tiny(METHODS[name])),
    }
    dropped = train(name, stream, **options)
    monkeypatch.setattr(loop, "drop_idle_moments", lambda optimizer: None)
    kept = train(name, stream, **options)
    assert denormals(kept) > 0 == denormals(dropped)
    assert same_state(kept.learner, dropped.learner) and kept.losses == dropped.losses
