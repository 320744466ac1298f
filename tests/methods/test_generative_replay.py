"""Generative replay: its losses against formulas written out sample by sample, and its frozen copies."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from clteach.checks import toy_data
from clteach.errors import ConfigError
from clteach.learner import Phase
from clteach.methods.generative_replay import GenerativeReplay
from clteach.seeding import generator
from clteach.streams import Stream, split
from clteach.training import train


def ready(scenario: str, t: int, **settings: object) -> tuple[GenerativeReplay, Stream]:
    """A tiny learner about to learn task t (0-based), with an old model that differs from the new one."""
    stream = split(toy_data(n_classes=6), scenario, tasks=3)
    learner = GenerativeReplay(stream.spec, GenerativeReplay.Config(hidden=(8,), z=3, **settings))  # type: ignore[arg-type]
    phase = Phase("train", 1)
    learner.enter(t, phase)
    learner.begin_phase(t, phase, stream[t].train, generator(0))
    with torch.no_grad():
        for p in [*learner.net.parameters(), *learner.vae.parameters()]:
            p += 0.3 * torch.randn(p.shape, generator=generator(1, p.numel()))
    return learner, stream


def softmax(values: list[float]) -> list[float]:
    exps = [math.exp(v) for v in values]
    return [e / sum(exps) for e in exps]


@pytest.mark.parametrize(
    ("scenario", "known", "active"),
    [
        ("task", [[0, 1], [2, 3]], [[0, 1], [2, 3]]),  # each past head by itself
        ("domain", [[0, 1]], [[0, 1]]),
        ("class", [[0, 1, 2, 3]], [[0, 1, 2, 3, 4, 5]]),  # the new classes compete, with target 0
    ],
)
@pytest.mark.parametrize("targets", ["soft", "hard"])
def test_replay_loss_written_out(scenario: str, known: list[list[int]], active: list[list[int]], targets: str) -> None:
    learner, stream = ready(scenario, 2, targets=targets)
    rng = generator(2)
    new, old = (torch.randn(4, stream.spec.n_out, generator=rng) * 2 for _ in range(2))
    total = 0.0
    for sample in range(4):
        for head, competing in zip(known, active, strict=True):
            z_old, z_new = ([float(z[sample, u]) for u in units] for z, units in ((old, head), (new, competing)))
            if targets == "hard":
                best = z_old.index(max(z_old))
                total += -math.log(softmax(z_new)[best]) / (4 * len(known))
            else:
                p_new = softmax([z / 2 for z in z_new])
                loss = -4 * sum(p * math.log(q) for p, q in zip(softmax([z / 2 for z in z_old]), p_new, strict=False))
                total += loss / (4 * len(known))
    assert float(learner.imitate(new, old)) == pytest.approx(total, rel=1e-5)


def test_total_loss_weighs_each_task_alike() -> None:
    """L = 1/n current + (1 - 1/n) replay, for classifier and generator; computed here in two separate passes."""
    learner, stream = ready("class", 2)
    batch = stream[2].train.batch(torch.arange(5))
    noise = learner.draw(5, generator(3))
    assert noise["eps"].shape == (10, 3) and noise["z"].shape == (5, 3)
    losses = learner.loss(batch, noise)
    with torch.no_grad():
        replayed = learner.old_vae.sample(noise["z"])
        current = learner.cross_entropy(learner.net(batch.x), batch)
        replay = learner.imitate(learner.net(replayed), learner.old_net(replayed))
        vae = learner.elbo_loss(batch.x, noise["eps"][:5]).mean() / 3
        vae += learner.elbo_loss(replayed, noise["eps"][5:]).mean() * 2 / 3
    torch.testing.assert_close(losses["current"].detach(), current / 3)
    torch.testing.assert_close(losses["replay"].detach(), replay * 2 / 3)
    torch.testing.assert_close(losses["vae"].detach(), vae)


def test_the_generators_loss_is_the_negative_elbo_per_pixel() -> None:
    learner, stream = ready("class", 0)
    x = stream[0].train.batch(torch.arange(2)).x
    eps = torch.randn(2, 3, generator=generator(0))
    with torch.no_grad():
        logits, mean, logvar = learner.vae(x, eps)
        got = learner.elbo_loss(x, eps)
    for i in range(2):
        pixels: Tensor = x[i].flatten()
        p = torch.sigmoid(logits[i])
        reconstruction = -(pixels * p.log() + (1 - pixels) * (1 - p).log()).sum()
        kl = 0.5 * (mean[i] ** 2 + logvar[i].exp() - 1 - logvar[i]).sum()
        assert float(got[i]) == pytest.approx(float(reconstruction + kl) / 64, rel=1e-4)


def test_first_task_replays_nothing() -> None:
    learner, stream = ready("class", 0)
    batch = stream[0].train.batch(torch.arange(5))
    noise = learner.draw(5, generator(3))
    assert len(noise["z"]) == 0 and set(learner.loss(batch, noise)) == {"current", "vae"}


def test_number_of_replayed_samples() -> None:
    learner, stream = ready("class", 1, replay_batch=2)
    batch = stream[1].train.batch(torch.arange(5))
    noise = learner.draw(5, generator(3))
    assert noise["z"].shape == (2, 3)
    assert torch.isfinite(learner.loss(batch, noise)["replay"])


def test_the_old_models_are_those_of_the_previous_task_and_never_learn() -> None:
    stream = split(toy_data(n_classes=6), "class", tasks=3)
    learner = GenerativeReplay(stream.spec, GenerativeReplay.Config(hidden=(8,), z=3))
    learner.enter(1, Phase("train", 3))
    before = copy.deepcopy((learner.net, learner.vae))
    learner.begin_phase(1, Phase("train", 3), stream[1].train, generator(0))
    for s in range(3):
        learner.step(stream[1].train.batch(torch.arange(5)), learner.draw(5, generator(s)))
    for then, now in zip(before, (learner.old_net, learner.old_vae), strict=True):
        for p, q in zip(then.parameters(), now.parameters(), strict=True):
            assert torch.equal(p, q) and not q.requires_grad
    assert not torch.equal(learner.net[1].weight, learner.old_net[1].weight)


def test_samples_and_their_errors() -> None:
    learner, stream = ready("class", 1)
    images = learner.sample(4, generator(0))
    assert images.shape == (4, *stream.spec.shape) and float(images.min()) >= 0 and float(images.max()) <= 1
    assert torch.equal(images, learner.sample(4, generator(0)))
    with pytest.raises(ConfigError, match="unconditional"):
        learner.sample(4, generator(0), classes=torch.zeros(4))
    for bad in ({"temperature": 0.0}, {"z": 0}, {"replay_batch": 0}):
        with pytest.raises(ConfigError, match="generative-replay"):
            GenerativeReplay.Config(**bad)  # type: ignore[arg-type]


def test_replay_keeps_what_finetuning_forgets() -> None:
    stream = split(toy_data(n=60), "class", tasks=2)
    options = {"steps": 300, "batch_size": 32, "lr": 5e-3, "hidden": (32,), "device": "cpu"}
    plain = train("finetune", stream, **options)
    replay = train("generative-replay", stream, z=4, **options)
    assert float(plain.accuracy[1, 0]) < 0.2
    assert float(replay.accuracy[1, 0]) > 0.8
