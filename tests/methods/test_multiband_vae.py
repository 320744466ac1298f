"""Multiband VAE: its bits, codes, schedule, losses and controlled forgetting, each against a case worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.data.streams import split
from clteach.data.tasks import Stream
from clteach.errors import ConfigError
from clteach.learners.learner import Phase
from clteach.methods.multiband_vae import MultibandVAE, controlled_forgetting
from clteach.metrics.generation import frechet_distance
from clteach.models.multiband import BitPrior, task_codes
from clteach.models.vae import bernoulli_nll, binary_sample, kl_standard_normal
from clteach.seeding import generator
from clteach.training.learner_checks import quick, same_state, tiny, toy_data


def ready(t: int, phase: str, n_tasks: int = 3, **settings: Any) -> tuple[MultibandVAE, Stream]:
    """A tiny learner in a phase of task t, with an old decoder that differs from the new one."""
    stream = split(toy_data(n_classes=2 * n_tasks), "class", tasks=n_tasks)
    learner = MultibandVAE(stream.spec, tiny(MultibandVAE, **settings))
    for each in learner.phases(t, 210):
        learner.enter(t, each)
        learner.begin_phase(t, each, stream[t].train, generator(0, each.name))
        with torch.no_grad():
            for p in (*learner.encoder.parameters(), *learner.decoder.parameters()):
                p += 0.1 * torch.randn(p.shape, generator=generator(1, p.numel()))
        if each.name == phase:
            return learner, stream
    raise AssertionError(phase)


# ------------------------------------------------------------------------------------------------------ bits and codes


def test_bits_are_soft_and_then_exactly_one_or_minus_one() -> None:
    logits, noise = (torch.randn(50, 4, generator=generator(0, k)) for k in range(2))
    soft = binary_sample(logits, noise, torch.tensor(0.5))
    torch.testing.assert_close(soft, torch.tanh((logits + noise) / (2 * 0.5)))  # 2σ(x) - 1 = tanh(x / 2)
    hard = binary_sample(logits, noise, torch.tensor(0.05))
    assert set(hard.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(hard, torch.sign(logits + noise))


def test_gradients_pass_through_the_hard_bits() -> None:
    logits = torch.tensor([[0.03, -0.02]], requires_grad=True)
    noise, weight = torch.tensor([[-0.05, 0.01]]), torch.tensor([[2.0, -3.0]])
    (binary_sample(logits, noise, torch.tensor(0.05)) * weight).sum().backward()
    # d/dl [2 σ((l + g) / τ) - 1] = 2 σ (1 - σ) / τ; below 0.1, where the value is ±1, at τ = 1
    s = torch.sigmoid(logits.detach() + noise)
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, weight * 2 * s * (1 - s))
    logits.grad = None
    (binary_sample(logits, noise, torch.tensor(0.5)) * weight).sum().backward()
    s = torch.sigmoid((logits.detach() + noise) / 0.5)
    torch.testing.assert_close(logits.grad, weight * 2 * s * (1 - s) / 0.5)


def test_a_bit_is_one_as_often_as_its_log_odds_say() -> None:
    learner, _ = ready(0, "local", bits=3)
    log_odds = torch.tensor([-1.0, 0.0, 2.0])
    noise = learner.encoder_noise(40000, generator(0))
    share = (binary_sample(log_odds.expand(40000, 3), noise["g"], torch.tensor(0.01)) > 0).float().mean(0)
    torch.testing.assert_close(share, torch.sigmoid(log_odds), atol=0.01, rtol=0)


def joint(frequency: list[float]) -> BitPrior:
    """Two joint bits, whose first task has these frequencies of --, +-, -+ and ++."""
    prior = BitPrior(3, 2, joint=True)
    prior.frequency[0] = torch.tensor(frequency)
    return prior


def test_joint_bits_are_drawn_as_often_as_their_pattern() -> None:
    prior = joint([0.5, 0.0, 0.1, 0.4])
    assert prior.patterns.tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    u, task = torch.rand(40000, 2, generator=generator(0)), torch.zeros(40000, dtype=torch.int64)
    share = (prior.sample(u, task)[:, None] == prior.patterns).all(2).float().mean(0)
    torch.testing.assert_close(share, torch.tensor([0.5, 0.0, 0.1, 0.4]), atol=0.01, rtol=0)
    assert share[1] == 0, "a pattern that no image has is never drawn"
    # Rounding may leave the sum of the shares below a u that is almost 1.
    assert joint([0.5, 0.2, 0.2, 0.0999]).sample(torch.ones(1, 2), task[:1]).tolist() == [[1, 1]]


def test_bit_frequencies_written_out() -> None:
    log_odds = 3 * torch.randn(1500, 3, generator=generator(0))
    p = torch.sigmoid(log_odds)
    together, alone = (BitPrior(2, 3, joint) for joint in (True, False))
    for prior in (together, alone):
        prior.learn(0, log_odds)
    for k, pattern in enumerate(together.patterns):
        assert [k & 1, k >> 1 & 1, k >> 2] == [int(b > 0) for b in pattern]
        torch.testing.assert_close(together.frequency[0, k], torch.where(pattern > 0, p, 1 - p).prod(1).mean())
    # Each bit by itself is as frequent in the table of patterns.
    torch.testing.assert_close(alone.frequency[0], p.mean(0))
    torch.testing.assert_close((together.frequency[0][:, None] * (together.patterns > 0)).sum(0), p.mean(0))
    assert together.frequency[1].tolist() == [1 / 8] * 8 and alone.frequency[1].tolist() == [0.5] * 3


def test_the_learner_keeps_and_samples_joint_bits() -> None:
    learner, stream = ready(0, "local", joint_bits=True)
    learner.end_task(0, stream[0].train, generator(0))
    bits = learner.encode(stream[0].train.batch(torch.arange(len(stream[0].train))).x)[2]
    expected = BitPrior(3, 4, joint=True)
    expected.learn(0, bits.detach())
    torch.testing.assert_close(learner.bit_prior.frequency[0], expected.frequency[0])
    noise, task = learner.prior_noise(9, generator(0)), torch.zeros(9, dtype=torch.int64)
    assert torch.equal(learner.prior(noise, task)[1], learner.bit_prior.sample(noise["u"], task))


def test_translator_and_decoder_written_out() -> None:
    learner, _ = ready(0, "local")
    z, b, task = torch.randn(5, 3), torch.sign(torch.randn(5, 4)), torch.tensor([0, 1, 2, 0, 1])
    weights = {
        name: [(m.weight, m.bias) for m in net.modules() if isinstance(m, nn.Linear)]
        for name, net in learner.decoder.named_children()
    }

    def through(name: str, x: Tensor, last: bool) -> Tensor:
        for i, (w, bias) in enumerate(weights[name]):
            x = x @ w.T + bias
            if last or i + 1 < len(weights[name]):
                x = torch.where(x > 0, x, 0.01 * x)
        return x

    code = through("task_net", task_codes(3)[task], True)
    latents = through("merge", torch.cat([z, code, through("bit_net", b, True)], 1), False)
    torch.testing.assert_close(learner.decoder.translate(z, b, task), latents)
    torch.testing.assert_close(learner.decoder(z, b, task), through("decoder", latents, False))


def test_task_codes() -> None:
    """(9 t mod 16) + 1 = 1, 10, 3, 12, ...; lowest bit first."""
    codes = task_codes(10)
    assert codes[:4].tolist() == [[1, -1, -1, -1], [-1, 1, -1, 1], [1, 1, -1, -1], [-1, -1, 1, 1]]
    for n_tasks, bits in ((2, 4), (16, 4), (17, 5), (100, 7)):
        codes = task_codes(n_tasks)
        assert codes.shape == (n_tasks, bits) and len(codes.unique(dim=0)) == n_tasks
        assert set(codes.unique().tolist()) == {-1.0, 1.0}


# -------------------------------------------------------------------------------------------------------- the schedule


def test_phases_are_the_papers_epochs() -> None:
    learner, _ = ready(0, "local")
    assert [(p.name, p.steps) for p in learner.phases(0, 210)] == [("local", 210)]
    later = learner.phases(2, 2100)
    assert [(p.name, p.steps) for p in later] == [
        ("local-encoder", 70),
        ("local", 630),
        ("translator", 50),
        ("global", 1350),
    ]
    assert all(p.fresh_optimizer for p in later)
    # The learning rate loses 2 % per epoch (10 steps here); the warm-up runs at a tenth of it.
    assert later[1].lr_scale(0) == 1 and later[1].lr_scale(10 / 630) == pytest.approx(0.98)
    assert later[3].lr_scale(20 / 1350) == pytest.approx(0.98**2)
    assert later[0].lr_scale(0) == pytest.approx(0.1)
    for steps in (1, 2, 7, 100):
        assert sum(p.steps for p in learner.phases(1, steps)) == steps


def test_temperature_falls_from_one_to_a_hundredth_in_a_fifth_of_the_local_phase() -> None:
    learner, _ = ready(1, "local-encoder")

    def at(name: str, steps: int, done: int) -> float:
        learner.enter(1, Phase(name, steps))
        learner.done.fill_(done)
        return float(learner.temperature())

    assert at("local-encoder", 7, 0) == 1
    assert at("local", 63, 0) == pytest.approx(0.5)  # epoch 7 of 70
    assert at("local", 63, 7) == pytest.approx(0.01)  # epoch 14
    assert at("local", 63, 60) == pytest.approx(0.01)
    assert at("global", 135, 0) == pytest.approx(0.01)
    learner.enter(0, Phase("local", 210))
    learner.done.fill_(21)
    assert float(learner.temperature()) == pytest.approx(0.5)


def test_steps_advance_the_temperature_and_phases_start_it_again() -> None:
    learner, stream = ready(0, "local")
    data = stream[0].train
    for s in range(3):
        noise = learner.draw(5, generator(s))
        assert float(noise["temperature"]) == pytest.approx(1 - 5 * s / 210)
        learner.step(data.batch(torch.arange(5)), noise)
    learner.begin_phase(0, Phase("local", 210), data, generator(0))
    assert float(learner.done) == 0


PARTS = {
    "local-encoder": {"encoder"},
    "local": {"encoder", "local_decoder"},
    "translator": {"decoder.task_net", "decoder.bit_net", "decoder.merge"},
    "global": {"decoder.task_net", "decoder.bit_net", "decoder.merge", "decoder.decoder"},
}


@pytest.mark.parametrize("name", PARTS)
def test_each_phase_trains_its_networks_and_no_other(name: str) -> None:
    learner, stream = ready(1, name)
    before = {k: v.clone() for k, v in learner.named_parameters()}
    for s in range(2):
        learner.step(stream[1].train.batch(torch.arange(8)), learner.draw(8, generator(s)))
    moved = {k for k, v in learner.named_parameters() if not torch.equal(v, before[k])}
    parts = {part for part in PARTS[name] if any(k.startswith(part + ".") for k in moved)}
    assert parts == PARTS[name]
    assert all(k.startswith(tuple(part + "." for part in PARTS[name])) for k in moved)


def test_gradients_are_clipped_by_value() -> None:
    learner, stream = ready(0, "local", clip=1e-3)
    learner.step(stream[0].train.batch(torch.arange(8)), learner.draw(8, generator(0)))
    largest = max(float(p.grad.abs().max()) for p in learner.parameters() if p.grad is not None)
    assert largest == pytest.approx(1e-3)


def test_clipping_and_weight_decay_are_for_the_local_phase() -> None:
    learner, stream = ready(1, "global", clip=1e-3)
    learner.step(stream[1].train.batch(torch.arange(8)), learner.draw(8, generator(0)))
    assert max(float(p.grad.abs().max()) for p in learner.decoder.parameters() if p.grad is not None) > 2e-3
    decays = {name: {group["weight_decay"] for group in opt.param_groups} for name, opt in learner.opts.items()}
    assert decays == {"local": {1e-5}, "global": {0}}


def test_the_local_decoder_starts_as_the_global_one_and_the_old_one_stays_frozen() -> None:
    learner, stream = ready(1, "local-encoder")
    learner.begin_phase(1, learner.phases(1, 210)[0], stream[1].train, generator(0))
    for p, q in zip(learner.local_decoder.parameters(), learner.decoder.parameters(), strict=True):
        assert torch.equal(p, q)
    learner, stream = ready(1, "global")
    old = {k: v.clone() for k, v in learner.old_decoder.state_dict().items()}
    for s in range(3):
        learner.step(stream[1].train.batch(torch.arange(8)), learner.draw(8, generator(s)))
    assert all(torch.equal(v, old[k]) for k, v in learner.old_decoder.state_dict().items())
    assert not any(p.requires_grad for p in learner.old_decoder.parameters())


def test_the_first_task_has_nothing_to_align() -> None:
    learner, stream = ready(0, "local")
    learner.step(stream[0].train.batch(torch.arange(8)), learner.draw(8, generator(0)))
    learner.end_task(0, stream[0].train, generator(0))
    for p, q in zip(learner.local_decoder.parameters(), learner.decoder.parameters(), strict=True):
        assert torch.equal(p, q)
    batch = stream[0].train.batch(torch.arange(len(stream[0].train)))
    expected = torch.sigmoid(learner.encoder(batch.x)[:, -4:]).mean(0)
    torch.testing.assert_close(learner.bit_prior.frequency[0], expected.detach())
    assert learner.bit_prior.frequency[1].tolist() == [0.5] * 4


# ---------------------------------------------------------------------------------------------------------- the losses


def test_local_loss_written_out() -> None:
    learner, stream = ready(1, "local")
    batch, noise = stream[1].train.batch(torch.arange(5)), learner.draw(5, generator(2))
    losses = learner.loss(batch, noise)
    out = learner.encoder(batch.x)
    mean, logvar, bits = out[:, :3], out[:, 3:6], out[:, 6:]
    z = mean + (logvar / 2).exp() * noise["eps"]
    b = binary_sample(bits, noise["g"], noise["temperature"])
    logits = learner.local_decoder(z, b, torch.ones(5, dtype=torch.int64))
    torch.testing.assert_close(losses["reconstruction"], bernoulli_nll(logits, batch.x).mean())
    torch.testing.assert_close(losses["kl"], kl_standard_normal(mean, logvar).mean())


@pytest.mark.parametrize(
    ("t", "shares"), [(1, [32]), (2, [32, 32]), (3, [32, 32, 32]), (4, [24, 24, 24, 24]), (5, [20, 19, 19, 19, 19])]
)
def test_replay_shares(t: int, shares: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    learner, stream = ready(t, "global", n_tasks=6)
    seen: list[Tensor] = []
    forward = learner.old_decoder.forward

    def spy(z: Tensor, b: Tensor, task: Tensor) -> Tensor:
        seen.append(task)
        return forward(z, b, task)

    monkeypatch.setattr(learner.old_decoder, "forward", spy)
    data = stream[t].train
    learner.loss(data.batch(torch.arange(64) % len(data)), learner.draw(64, generator(0)))
    assert torch.bincount(seen[0]).tolist() == shares


def test_global_loss_written_out() -> None:
    learner, stream = ready(2, "global")
    batch, noise = stream[2].train.batch(torch.arange(6)), learner.draw(6, generator(2))
    losses = learner.loss(batch, noise)
    past = torch.tensor([0, 1, 0, 1, 0, 1])
    with torch.no_grad():
        mean, logvar, bits = learner.encode(batch.x)
        z, b = mean + (logvar / 2).exp() * noise["eps"], torch.sign(bits + noise["g"])
        old_b = torch.where(noise["u"] < 0.5, 1.0, -1.0)  # frequencies are those of a learner without tasks
        dreams = learner.old_decoder(noise["z"], old_b, past).sigmoid()
        current = bernoulli_nll(learner.decoder(z, b, batch.task), batch.x)
        replay = bernoulli_nll(learner.decoder(noise["z"], old_b, past), dreams)
    torch.testing.assert_close(losses["current"].detach(), current.sum() / 12)
    torch.testing.assert_close(losses["replay"].detach(), replay.sum() / 12)


# ----------------------------------------------------------------------------------------------- controlled forgetting


def test_controlled_forgetting_replaces_exactly_what_is_too_similar() -> None:
    latents = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0], [-1.0, 0.0]])
    candidate_latents = torch.tensor([[3.0, 0.0], [1.0, 2.0]])
    targets, candidates = torch.zeros(4, 1, 2, 2), torch.stack([torch.full((1, 2, 2), v) for v in (0.25, 0.75)])
    # Cosines with the candidates: (1, .447), (0, .894), (.707, .949), (-1, -.447)
    for gamma, expected in ((0.9, [0.25, 0, 0.75, 0]), (0.8, [0.25, 0.75, 0.75, 0]), (0.96, [0.25, 0, 0, 0])):
        new, replaced = controlled_forgetting(latents, targets, candidate_latents, candidates, gamma)
        assert new[:, 0, 0, 0].tolist() == expected
        assert replaced.tolist() == [v > 0 for v in expected]
        assert torch.equal(new[:, 0, 0, 0], new[:, 0, 1, 1])
    everything, _ = controlled_forgetting(latents, targets, candidate_latents, candidates, -1.0)
    assert everything[:3, 0, 0, 0].tolist() == [0.25, 0.75, 0.75] and everything[3, 0, 0, 0] == 0.75


def test_controlled_forgetting_in_the_loss() -> None:
    """With γ = -1 every dream's target is a real image; in the translator's phase none is."""
    learner, stream = ready(1, "global", gamma=-1.0)
    assert learner.real_x.shape == (7, 1, 8, 8)
    images = stream[1].train.batch(torch.arange(len(stream[1].train))).x
    assert all(any(torch.equal(x, y) for y in images) for x in learner.real_x), "candidates are of the current task"
    batch, noise = stream[1].train.batch(torch.arange(8)), learner.draw(8, generator(3))
    got = learner.loss(batch, noise)["replay"].detach()
    with torch.no_grad():
        z, b = learner.prior(noise, torch.zeros(4, dtype=torch.int64))
        dreamed = learner.decoder.translate(z, b, torch.zeros(4, dtype=torch.int64))
        real = learner.decoder.translate(learner.real_z, learner.real_b, torch.ones(7, dtype=torch.int64))
        nearest = torch.stack([F.cosine_similarity(one[None], real).argmax() for one in dreamed])
        expected = bernoulli_nll(learner.decoder.decode(dreamed), learner.real_x[nearest]).sum() / 12
    torch.testing.assert_close(got, expected)
    learner.enter(1, Phase("translator", 5))
    assert not torch.equal(learner.loss(batch, noise)["replay"].detach(), got)


def test_gamma_one_switches_it_off() -> None:
    learner, _ = ready(1, "global")
    assert learner.cfg.gamma == 1 and len(learner.real_x) == 0


# ----------------------------------------------------------------------------------------------------- use and errors


def test_equal_seeds_equal_samples_and_tasks_are_chosen() -> None:
    learner, _ = ready(2, "global")
    x = learner.sample(6, generator(0))
    assert torch.equal(x, learner.sample(6, generator(0))) and not torch.equal(x, learner.sample(6, generator(1)))
    learner.bit_prior.frequency.copy_(torch.tensor([0.0, 1.0, 0.5])[:, None].expand(3, 4))
    task = torch.tensor([0, 0, 1, 1])
    _, b = learner.prior(learner.prior_noise(4, generator(0)), task)
    assert b[:2].eq(-1).all() and b[2:].eq(1).all()
    one, other = (learner.sample(4, generator(0), tasks=torch.full((4,), t)) for t in (0, 1))
    assert not torch.equal(one, other)


def test_the_fid_matrix_is_that_of_direct_calls() -> None:
    stream = split(toy_data(), "class", tasks=2)
    run = quick(MultibandVAE, stream)
    for i, task in enumerate(stream):
        n = len(task.test)
        real = task.test.batch(torch.arange(n)).x.flatten(1)
        rng = generator(0, "evaluate", i)
        dreamed = run.learner.sample(n, rng, tasks=torch.full((n,), i)).flatten(1)  # type: ignore[operator]
        assert float(run.accuracy[-1, i]) == pytest.approx(frechet_distance(real, dreamed), rel=1e-6)


def test_training_without_controlled_forgetting_ignores_the_candidates() -> None:
    stream = split(toy_data(), "class", tasks=2)
    off = quick(MultibandVAE, stream, steps=8, gamma=1.0).learner
    never = quick(MultibandVAE, stream, steps=8, gamma=0.999999).learner
    for key, value in off.named_parameters():
        assert torch.equal(value, never.get_parameter(key))
    always = quick(MultibandVAE, stream, steps=8, gamma=-1.0).learner
    assert not same_state(never, always)


def test_until_replay_the_kind_of_bits_matters_only_to_samples() -> None:
    """After the first task, before anything is replayed, both kinds are one trained network that is sampled in two ways."""

    def trained(tasks: int, joint_bits: bool) -> MultibandVAE:
        stream = split(toy_data(n_classes=4), "class", tasks=2)
        stream = replace(stream, tasks=stream.tasks[:tasks])
        learner = quick(MultibandVAE, stream, steps=8, joint_bits=joint_bits).learner
        assert isinstance(learner, MultibandVAE)
        return learner

    alone, together = trained(1, False), trained(1, True)
    for key, value in alone.named_parameters():
        assert torch.equal(value, together.get_parameter(key)), key
    assert not torch.equal(alone.sample(64, generator(0)), together.sample(64, generator(0)))
    alone, together = trained(2, False), trained(2, True)
    assert not all(torch.equal(p, together.get_parameter(key)) for key, p in alone.named_parameters())


def test_errors() -> None:
    learner, _ = ready(0, "local")
    with pytest.raises(ConfigError, match="no labels"):
        learner.sample(2, generator(0), classes=torch.zeros(2))
    for bad in (
        {"gamma": 1.5},
        {"bits": 0},
        {"bits": 11, "joint_bits": True},
        {"candidates": 0},
        {"z": 0},
        {"decay": 0.0},
        {"clip": 0.0},
    ):
        with pytest.raises(ConfigError, match="expected"):
            MultibandVAE.Config(**bad)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="images"):
        MultibandVAE(split(toy_data((12,)), "class", tasks=2).spec)
