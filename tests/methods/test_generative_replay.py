"""Generative replay: its losses against formulas written out sample by sample, and its frozen copies."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from clteach.data.streams import split
from clteach.data.tasks import Stream
from clteach.errors import ConfigError
from clteach.learners.learner import Phase
from clteach.methods import METHODS
from clteach.methods.generative_replay import GenerativeReplay
from clteach.seeding import generator
from clteach.training.learner_checks import check_learner, toy_data
from clteach.training.loop import train


def ready(
    scenario: str, t: int, shape: tuple[int, ...] = (1, 8, 8), active_units: str = "seen", **settings: object
) -> tuple[GenerativeReplay, Stream]:
    """A tiny learner about to learn task t (0-based), with an old model that differs from the new one."""
    stream = split(toy_data(shape, n_classes=6), scenario, tasks=3, active_units=active_units)
    settings = {"hidden": (8,), "z": 3, "stored_samples": 11, **settings}
    learner = GenerativeReplay(stream.spec, GenerativeReplay.Config(**settings))  # type: ignore[arg-type]
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


CLASSES = list(range(6))


@pytest.mark.parametrize(
    ("scenario", "active_units", "known", "active"),
    [
        ("task", "seen", [[0, 1], [2, 3]], [[0, 1], [2, 3]]),  # each past head by itself
        ("domain", "seen", [[0, 1]], [[0, 1]]),
        ("class", "seen", [[0, 1, 2, 3]], [CLASSES]),  # the new classes compete, with target 0
        ("class", "all", [CLASSES], [CLASSES]),
    ],
)
@pytest.mark.parametrize(("targets", "T"), [("soft", 2.0), ("soft", 0.7), ("hard", 2.0)])
def test_replay_loss_written_out(
    scenario: str, active_units: str, known: list[list[int]], active: list[list[int]], targets: str, T: float
) -> None:
    learner, stream = ready(scenario, 2, active_units=active_units, targets=targets, temperature=T)
    rng = generator(2)
    new, old = (torch.randn(8, stream.spec.n_out, generator=rng) * 2 for _ in range(2))
    total = 0.0
    for sample in range(8):
        for head, competing in zip(known, active, strict=True):
            z_old, z_new = ([float(z[sample, u]) for u in units] for z, units in ((old, head), (new, competing)))
            if targets == "hard":
                best = z_old.index(max(z_old))
                total += -math.log(softmax(z_new)[best]) / (8 * len(known))
            else:
                p_new = softmax([z / T for z in z_new])
                loss = (
                    -T * T * sum(p * math.log(q) for p, q in zip(softmax([z / T for z in z_old]), p_new, strict=False))
                )
                total += loss / (8 * len(known))
    assert float(learner.imitate(new, old)) == pytest.approx(total, rel=1e-5)


def test_the_factor_of_the_temperature_can_be_left_out() -> None:
    (with_it, stream), (without, _) = (ready("class", 2, temperature=3.0, squared=squared) for squared in (True, False))
    old, new = (torch.randn(8, stream.spec.n_out, generator=generator(k)) for k in range(2))
    torch.testing.assert_close(with_it.imitate(new, old), 9 * without.imitate(new, old))


def test_soft_targets_become_hard_ones_as_the_temperature_falls() -> None:
    """As T → 0: -T² Σ_c p_old,c(T) log p_c(T) → T² times the cross-entropy of z / T with the old model's choice."""
    for scenario in ("task", "domain", "class"):
        cold, stream = ready(scenario, 2, temperature=0.01)
        hard, _ = ready(scenario, 2, targets="hard")
        old, new = (torch.randn(8, stream.spec.n_out, generator=generator(k)) for k in range(2))
        torch.testing.assert_close(cold.imitate(new, old), 1e-4 * hard.imitate(new / 0.01, old))


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
@pytest.mark.parametrize("targets", ["soft", "hard"])
@pytest.mark.parametrize("keep", ["model", "samples"])
@pytest.mark.parametrize(("t", "replay_batch"), [(1, None), (2, None), (2, 2), (2, 9)])
def test_total_loss_weighs_each_task_alike(
    scenario: str, targets: str, keep: str, t: int, replay_batch: int | None
) -> None:
    """L = 1/n current + (1 - 1/n) replay, for classifier and generator, whatever the number of replayed samples.

    Computed here in separate passes over real and replayed samples.
    """
    learner, stream = ready(scenario, t, targets=targets, keep=keep, replay_batch=replay_batch)
    batch = stream[t].train.batch(torch.arange(5))
    noise = learner.draw(5, generator(3))
    n_replay = replay_batch or 5
    assert noise["eps"].shape == (5 + n_replay, 3)
    losses = learner.loss(batch, noise)
    with torch.no_grad():
        if keep == "model":
            assert noise["z"].shape == (n_replay, 3)
            replayed = learner.old_vae.sample(noise["z"])
            answers = learner.old_net(replayed)
        else:
            assert noise["stored"].shape == (n_replay,)
            replayed = learner.stored[noise["stored"]] / 255
            answers = learner.stored_logits[noise["stored"]]
        current = learner.cross_entropy(learner.net(batch.x), batch)
        replay = learner.imitate(learner.net(replayed), answers)
        vae = learner.elbo_loss(batch.x, noise["eps"][:5]).mean() / (t + 1)
        vae += learner.elbo_loss(replayed, noise["eps"][5:]).mean() * t / (t + 1)
    assert set(losses) == {"current", "replay", "vae"}
    torch.testing.assert_close(losses["current"].detach(), current / (t + 1))
    torch.testing.assert_close(losses["replay"].detach(), replay * t / (t + 1))
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


@pytest.mark.parametrize("shape", [(1, 8, 8), (12,)])
def test_stored_samples_are_the_previous_generators_and_labelled_by_the_previous_classifier(
    shape: tuple[int, ...],
) -> None:
    stream = split(toy_data(shape, n_classes=6), "class", tasks=3)
    cfg = GenerativeReplay.Config(hidden=(8,), z=3, keep="samples", stored_samples=11)
    learner = GenerativeReplay(stream.spec, cfg)
    learner.enter(0, Phase("train", 3))
    learner.begin_phase(0, Phase("train", 3), stream[0].train, generator(0))
    assert not learner.stored.any() and not learner.stored_logits.any(), "there is no past before the first task"
    for t in (1, 2):
        net, vae = copy.deepcopy((learner.net, learner.vae))
        learner.enter(t, Phase("train", 3))
        learner.begin_phase(t, Phase("train", 3), stream[t].train, generator(t))
        with torch.no_grad():
            x = vae.sample(torch.randn(11, 3, generator=generator(t)))
            x = (x * 255).round() / 255 if len(shape) == 3 else x
            labels = net(x)
        for s in range(3):
            learner.step(stream[t].train.batch(torch.arange(5)), learner.draw(5, generator(s)))
            kept = learner.replayed({"stored": torch.arange(11)})
            torch.testing.assert_close(kept, (x, labels), rtol=1e-6, atol=1e-6)
        assert not torch.equal(net(x), learner.net(x)), "the classifier must have moved"
    assert learner.stored.dtype == (torch.uint8 if len(shape) == 3 else torch.float32)


def test_stored_samples_are_labelled_as_by_a_network_that_is_asked() -> None:
    """With batch norm by its running statistics, which stay as they are, and without dropout."""

    def net(shape: tuple[int, ...], n_out: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.BatchNorm1d(9), nn.Dropout(0.5), nn.Linear(9, n_out))

    stream = split(toy_data(n_classes=6), "class", tasks=3)
    cfg = GenerativeReplay.Config(hidden=(8,), z=3, keep="samples", stored_samples=11)
    learner = GenerativeReplay(stream.spec, cfg, 0, net).train()
    before = copy.deepcopy(learner.net)
    learner.enter(1, Phase("train", 3))
    learner.begin_phase(1, Phase("train", 3), stream[1].train, generator(1))
    x, labels = learner.replayed({"stored": torch.arange(11)})
    torch.testing.assert_close(labels, before.eval()(x))
    for name, value in learner.net.state_dict().items():
        assert torch.equal(value, before.state_dict()[name]), name
    assert learner.net.training


def test_with_stored_samples_no_step_generates(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, stream = ready("class", 1, keep="samples")
    assert not hasattr(learner, "old_net") and not hasattr(learner, "old_vae"), "two networks would be kept for nothing"

    def refuse(*args: object, **kwargs: object) -> Tensor:
        raise AssertionError("the generator was asked for samples during a step")

    monkeypatch.setattr(learner.vae, "sample", refuse)
    losses = learner.step(stream[1].train.batch(torch.arange(5)), learner.draw(5, generator(0)))
    assert all(torch.isfinite(value) for value in losses.values())
    with pytest.raises(AssertionError, match="asked for samples"):
        learner.begin_phase(2, Phase("train", 1), stream[2].train, generator(0))  # it would have been noticed


@pytest.mark.parametrize("scenario", ["task", "domain", "class"])
def test_stored_samples_that_the_old_model_would_have_made_change_nothing(scenario: str) -> None:
    """Same inputs, same labels: then the two ways to keep the past take the same step (vectors: nothing is rounded)."""
    model, stream = ready(scenario, 2, shape=(12,))
    samples, _ = ready(scenario, 2, shape=(12,), keep="samples")
    noise = model.draw(11, generator(5))
    x, logits = model.replayed(noise)
    samples.stored.copy_(x)
    samples.stored_logits.copy_(logits)
    batch = stream[2].train.batch(torch.arange(11))
    model.step(batch, noise)
    samples.step(batch, {"eps": noise["eps"], "stored": torch.arange(11)})
    for (name, p), (_, q) in zip(model.net.named_parameters(), samples.net.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=name)
    for (name, p), (_, q) in zip(model.vae.named_parameters(), samples.vae.named_parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=name)


class Stored(GenerativeReplay):
    """The other way to keep the past as a method of its own, for the generic suite."""

    name = "generative-replay-stored"

    @dataclass(frozen=True)
    class Config(GenerativeReplay.Config):
        """Stored samples by default."""

        keep: Literal["model", "samples"] = "samples"
        stored_samples: int = 7


def test_the_generic_suite_with_stored_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, Stored.name, Stored)
    check_learner(Stored)


def test_every_stored_sample_is_drawn() -> None:
    learner, _ = ready("class", 1, keep="samples")
    drawn = learner.draw(1000, generator(0))["stored"]
    assert sorted(drawn.unique().tolist()) == list(range(11))


def test_samples_and_their_errors() -> None:
    learner, stream = ready("class", 1)
    images = learner.sample(4, generator(0))
    assert images.shape == (4, *stream.spec.shape) and float(images.min()) >= 0 and float(images.max()) <= 1
    assert torch.equal(images, learner.sample(4, generator(0)))
    with pytest.raises(ConfigError, match="unconditional"):
        learner.sample(4, generator(0), classes=torch.zeros(4))
    for bad in (
        {"temperature": 0.0}, {"z": 0}, {"replay_batch": 0}, {"stored_samples": 0}
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="generative-replay"):
            GenerativeReplay.Config(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep", ["model", "samples"])
def test_replay_keeps_what_finetuning_forgets(keep: str) -> None:
    stream = split(toy_data(n=60), "class", tasks=2)
    options = {"steps": 300, "batch_size": 32, "lr": 5e-3, "hidden": (32,), "device": "cpu"}
    plain = train("finetune", stream, **options)
    replay = train("generative-replay", stream, z=4, keep=keep, stored_samples=200, **options)
    assert float(plain.accuracy[1, 0]) < 0.2
    assert float(replay.accuracy[1, 0]) > 0.8
