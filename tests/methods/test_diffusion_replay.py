"""Diffusion models that learn task after task: their losses written out, and what distillation is in its limits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from clteach.data.streams import dirichlet, split
from clteach.data.tasks import Stream
from clteach.errors import ConfigError
from clteach.learners.learner import Phase
from clteach.learners.replay import read_samples
from clteach.methods import METHODS
from clteach.methods.diffusion_replay import (
    DiffusionGenerator,
    DistilledDiffusion,
    FinetunedDiffusion,
    JointDiffusion,
    ReplayDiffusion,
    drawn,
)
from clteach.methods.dream_replay import DreamReplay
from clteach.seeding import generator
from clteach.training.learner_checks import tiny, toy_data
from clteach.training.loop import train

ALL = (FinetunedDiffusion, ReplayDiffusion, DistilledDiffusion, JointDiffusion)


def ready(cls: type[DiffusionGenerator], t: int, **settings: Any) -> tuple[DiffusionGenerator, Stream]:
    """A tiny learner at the first step of task t (0-based)."""
    stream = split(toy_data(n_classes=6), "class", tasks=3)
    learner = cls(stream.spec, tiny(cls, **settings))
    phase = learner.phases(t, 5)[0]
    learner.enter(t, phase)
    learner.begin_phase(t, phase, stream[t].train, generator(0))
    return learner, stream


def moved(learner: DiffusionGenerator) -> None:
    """Another step would have changed the network: do so by hand."""
    with torch.no_grad():
        for p in learner.net.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator(1, p.numel()))


def test_a_new_task_is_the_regression_on_its_noise() -> None:
    for cls in ALL:
        learner, stream = ready(cls, 0)
        batch, noise = stream[0].train.batch(torch.arange(5)), learner.draw(5, generator(0))
        assert len(noise["stored"]) == 0
        expected = 0.0
        for x, y, task, t, eps in zip(*batch, noise["t"], noise["eps"], strict=True):
            a = learner.net.alpha_bar[t]
            x_t = a.sqrt() * (2 * x - 1) + (1 - a).sqrt() * eps
            guess = learner.net(x_t[None], t[None], task[None], y[None])[0].detach()
            expected += float((eps - guess).square().mean()) / 5
        (loss,) = (term.detach() for term in learner.loss(batch, noise).values())
        assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cls", [ReplayDiffusion, DistilledDiffusion])
def test_replay_written_out_and_every_task_counts_alike(cls: type[DiffusionGenerator]) -> None:
    learner, stream = ready(cls, 2)
    moved(learner)
    batch, noise = stream[2].train.batch(torch.arange(4)), learner.draw(4, generator(0))
    which, t, eps = noise["stored"], noise["t"], noise["eps"]
    assert len(which) == 4 and len(t) == len(eps) == 8
    dreams, task, y = read_samples(learner.stored, which), learner.stored_task[which], learner.stored_y[which]
    with torch.no_grad():
        x_t = learner.net.noised(dreams, t[4:], eps[4:])
        target = eps[4:] if learner.old is None else learner.old(x_t, t[4:], task, y)
        replay = (target - learner.net(x_t, t[4:], task, y)).square().mean()
        x_t = learner.net.noised(batch.x, t[:4], eps[:4])
        current = (eps[:4] - learner.net(x_t, t[:4], batch.task, batch.y)).square().mean()
    losses = learner.loss(batch, noise)
    torch.testing.assert_close(losses["current"].detach(), current / 3)
    torch.testing.assert_close(losses["replay"].detach(), replay * 2 / 3)


def test_distillation_at_zero_difference_has_zero_gradient() -> None:
    learner, stream = ready(DistilledDiffusion, 1)
    batch, noise = stream[1].train.batch(torch.arange(4)), learner.draw(4, generator(0))
    replay = learner.loss(batch, noise)["replay"]
    replay.backward()
    assert float(replay.detach()) < 1e-12
    assert max(float(p.grad.abs().max()) for p in learner.net.parameters() if p.grad is not None) < 1e-6
    # Standard replay starts from the same network with a gradient that is not 0: its targets are new noise.
    other, _ = ready(ReplayDiffusion, 1)
    replay = other.loss(batch, other.draw(4, generator(0)))["replay"]
    replay.backward()
    assert float(replay.detach()) > 0.01
    assert max(float(p.grad.abs().max()) for p in other.net.parameters() if p.grad is not None) > 1e-4


def test_the_teacher_does_not_learn_along() -> None:
    learner, stream = ready(DistilledDiffusion, 1)
    assert learner.old is not None
    before = [p.clone() for p in learner.old.parameters()]
    batch = stream[1].train.batch(torch.arange(4))
    for s in range(3):
        learner.step(batch, learner.draw(4, generator(s)))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.old.parameters(), strict=True))
    assert not any(p.requires_grad for p in learner.old.parameters())
    learner.begin_phase(2, Phase("train", 5), stream[2].train, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(learner.net.parameters(), learner.old.parameters(), strict=True))


def test_a_perfect_teacher_and_true_data_give_the_true_regression_in_expectation() -> None:
    """E‖ε - ε_θ‖² and E‖ε_old - ε_θ‖² differ by a constant where ε_old is E[ε | x_t]: the same gradient on average."""
    rng = generator(0)
    n, a, mean, std = 400_000, 0.4, 0.3, 0.5
    x = mean + std * torch.randn(n, generator=rng, dtype=torch.float64)
    eps = torch.randn(n, generator=rng, dtype=torch.float64)
    x_t = a**0.5 * x + (1 - a) ** 0.5 * eps
    teacher = (1 - a) ** 0.5 * (x_t - a**0.5 * mean) / (a * std**2 + 1 - a)
    w = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    gradients = [torch.autograd.grad((target - w * x_t).square().mean(), w)[0] for target in (eps, teacher)]
    assert float(gradients[0]) == pytest.approx(float(gradients[1]), rel=0.02)


def test_dreams_are_of_all_past_tasks_alike_and_made_before_the_first_step() -> None:
    learner, stream = ready(ReplayDiffusion, 2, stored_samples=12)
    assert learner.stored_task.tolist() == [0, 1] * 6
    for task, y in zip(learner.stored_task.tolist(), learner.stored_y.tolist(), strict=True):
        assert y in stream.spec.units[task]
    expected = learner.net.sample(learner.stored_task, learner.stored_y, skipped(12), learner.cfg.replay_steps)
    torch.testing.assert_close(read_samples(learner.stored, torch.arange(12)), expected, atol=1 / 255, rtol=0)


def skipped(n: int) -> torch.Generator:
    """The generator of `ready` after the classes of n dreams were drawn."""
    rng = generator(0)
    torch.rand(n, 1, generator=rng)
    return rng


def test_joint_training_sees_all_data_so_far() -> None:
    learner, stream = ready(JointDiffusion, 0)
    assert len(learner.training_data(stream, 2)) == sum(len(task.train) for task in stream)


def test_classes_of_a_task_are_as_frequent_as_in_its_data() -> None:
    stream = dirichlet(toy_data(n=60), "class", tasks=2, alpha=1.0, seed=1)
    learner = DistilledDiffusion(stream.spec, tiny(DistilledDiffusion))
    learner.enter(0, phase := learner.phases(0, 3)[0])
    learner.begin_phase(0, phase, stream[0].train, generator(0))
    counts = torch.bincount(stream[0].train.y, minlength=stream.spec.n_out).float()
    torch.testing.assert_close(learner.shares[0], counts / counts.sum())
    asked = learner.classes_of(torch.zeros(20_000, dtype=torch.int64), generator(0))
    torch.testing.assert_close(
        torch.bincount(asked, minlength=stream.spec.n_out) / 20_000, learner.shares[0], atol=0.02, rtol=0
    )


def test_drawing_by_weights() -> None:
    weights = torch.tensor([[0.0, 3.0, 0.0, 1.0]]).repeat(20_000, 1)
    share = torch.bincount(drawn(weights, generator(0)), minlength=4) / 20_000
    assert share[0] == share[2] == 0 and float(share[1]) == pytest.approx(0.75, abs=0.02)


def test_chosen_classes() -> None:
    learner, stream = ready(DistilledDiffusion, 1)
    units = stream.spec.units
    classes = torch.tensor([units[0][0], units[1][1], units[1][0]])
    learner.net.task_codes.weight.data[2:] = torch.nan  # a task that is not learned yet is never asked for
    own = torch.tensor([0, 1, 1])
    rng = generator(3)
    torch.rand(3, 1, generator=rng)
    expected = learner.net.sample(own, classes, rng, learner.cfg.sampling_steps)
    assert torch.equal(learner.sample(3, generator(3), classes=classes), expected)
    with pytest.raises(ConfigError, match="classes that no task so far has"):
        learner.sample(1, generator(0), classes=torch.tensor([units[2][0]]))


def test_errors() -> None:
    for bad, text in (
        ({"embedding": 7}, "an even embedding"),
        ({"channels": 12}, "channels divisible by 8"),
        ({"sampling_steps": 0}, "sampling_steps=0"),
        ({"replay_steps": 1001}, "replay_steps=1_?001"),
        ({"noise_levels": 1}, "noise_levels=1"),
        ({"stored_samples": 0}, "stored_samples=0"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
    ):
        with pytest.raises(ConfigError, match=text):
            DiffusionGenerator.Config(**bad)  # type: ignore[arg-type]


def test_measured_by_fid() -> None:
    for cls in ALL:
        assert METHODS[cls.name] is cls and cls.measure == "fid" and cls.scenarios == ("class",)


@pytest.mark.parametrize("seed", [0, 1])
def test_distillation_keeps_what_the_others_forget(seed: int) -> None:
    """Dreams of one step are all but the mean of their class: poison as data, good enough to ask a teacher about."""
    stream = split(toy_data(n=60), "class", classes=[[0], [1], [2]])
    options = {
        "steps": 200, "batch_size": 32, "lr": 3e-3, "hidden": (64,), "features": "inputs", "replay_steps": 1,
        "stored_samples": 200, "seed": seed, "device": "cpu",
    }  # fmt: skip
    first = {cls.name: train(cls.name, stream, **options).accuracy[:, 0] for cls in ALL[:3]}
    ratio = {name: float(fid[2] / fid[0]) for name, fid in first.items()}
    assert ratio["diffusion-distill"] < 1 < 1.05 < ratio["diffusion-replay"] < 1.5 < ratio["diffusion-finetune"]


# ------------------------------------------------------------------------------------------ as a classifier's memory


def dreamer(t: int, **settings: Any) -> tuple[DreamReplay, Stream]:
    """Replay of a diffusion model's dreams at the start of task t's classifier phase."""
    stream = split(toy_data(n_classes=6), "class", tasks=3)
    learner = DreamReplay(stream.spec, DreamReplay.Config(hidden=(8,), replay_model="diffusion", **settings))
    for phase in learner.phases(t, 3):
        learner.enter(t, phase)
        learner.begin_phase(t, phase, stream[t].train, generator(0))
    return learner, stream


def test_guidance_asks_for_classes_of_the_current_task() -> None:
    learner, stream = dreamer(1, guidance=2.0)
    guide = learner.guide(5, generator(7))
    assert isinstance(learner.generator, DistilledDiffusion)
    y = learner.generator.classes_of(torch.ones(5, dtype=torch.int64), generator(7))
    assert set(y.tolist()) <= set(stream.spec.units[1])
    clean = torch.rand(5, *stream.spec.shape, generator=generator(8)) * 2 - 1
    seen = [*stream.spec.units[0], *stream.spec.units[1]]
    log_p = learner.net((clean + 1) / 2)[:, seen].log_softmax(1)
    expected = torch.stack([row[seen.index(int(k))] for row, k in zip(log_p, y, strict=True)])
    torch.testing.assert_close(guide(clean), expected)


def test_guided_dreams_come_closer_to_the_border_and_leave_no_trace() -> None:
    plain, _ = dreamer(1)
    steered, stream = dreamer(1, guidance=20.0)
    state = {k: v.clone() for k, v in steered.state_dict().items()}
    dreams = [each.draw(40, generator(3))["dreams"] for each in (plain, steered)]
    assert all(torch.equal(v, state[k]) for k, v in steered.state_dict().items())
    assert all(p.grad is None for p in steered.parameters())
    assert not dreams[1].requires_grad and dreams[1].shape == dreams[0].shape
    with torch.no_grad():
        odds = [(steered.net(x) + steered.log_active_now[1]).softmax(1) for x in dreams]
    new = list(stream.spec.units[1])
    assert float(odds[1][:, new].sum(1).mean()) > float(odds[0][:, new].sum(1).mean()) + 0.02


def test_guidance_that_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"guidance=-1\.0, expected a strength of 0 or more"):
        DreamReplay.Config(replay_model="diffusion", guidance=-1.0)
    for model, scenario in (("ebgan", "class"), ("diffusion", "domain"), ("diffusion", "task")):
        stream = split(toy_data(), scenario, tasks=2)
        cfg = DreamReplay.Config(replay_model=model, guidance=1.0)  # type: ignore[arg-type]
        with pytest.raises(
            ConfigError, match=rf"guidance=1\.0 with replay_model='{model}' in the scenario '{scenario}'"
        ):
            DreamReplay(stream.spec, cfg)
