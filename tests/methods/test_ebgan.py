"""EBGAN: its pure functions by hand, gradients by finite differences, the equilibrium statements, the step."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.data.plane import grid
from clteach.data.streams import split
from clteach.data.tasks import Stream
from clteach.errors import ConfigError
from clteach.learners.gan import GAN, Round, fit, optimizers, update
from clteach.learners.learner import Phase
from clteach.methods.ebgan import EBGAN, EnergyGAN, energy, hinge, make_gan, pull_away
from clteach.seeding import generator
from clteach.training.learner_checks import toy_data

TINY = {"hidden": (8,), "critic_hidden": (8,), "code": 4, "z": 3, "features": "inputs"}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def tiny(seed: int = 0, **settings: object) -> GAN:
    return make_gan((2,), EBGAN.Config(**{**TINY, **settings}), seed, bounded=False).double()


# ---------------------------------------------------------------------------------------------------- pure functions


def test_energy_is_a_euclidean_norm_per_sample() -> None:
    x, reconstruction = normal(3, 1, 2, 2), normal(3, 4, seed=1)
    got = energy(x, reconstruction)
    for i in range(3):
        squares = [(float(a) - float(b)) ** 2 for a, b in zip(x[i].flatten(), reconstruction[i], strict=True)]
        assert float(got[i]) == pytest.approx(math.sqrt(sum(squares)))
    assert energy(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]])).tolist() == [5.0]  # a mean square would say 12.5


def test_energy_has_a_finite_gradient_where_the_reconstruction_is_perfect() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    energy(x, torch.ones(2, 3)).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.zeros(2, 3))


def test_hinge_is_per_sample() -> None:
    energies = torch.tensor([0.0, 20.0, 10.0])
    assert hinge(energies, 10.0).tolist() == [10.0, 0.0, 0.0]
    # The mean energy is the margin, so a hinge on the batch mean would see nothing left to do.
    assert float(hinge(energies.mean(), 10.0)) == 0.0 < float(hinge(energies, 10.0).mean())


def test_hinge_pushes_only_below_the_margin() -> None:
    energies = torch.tensor([1.0, 3.0], requires_grad=True)
    hinge(energies, 2.0).sum().backward()
    assert energies.grad is not None and energies.grad.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([[1.0, 0.0], [-2.0, 0.0]], 1.0),  # antipodal: as collapsed as can be
        ([[1.0, 1.0]] * 4, 1.0),
        ([[1.0, 0.0], [3.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]], 1.0),  # two +v, two -v
        ([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, -5.0]], 0.0),
        ([[1.0, 0.0], [1.0, 1.0]], 0.5),  # 45°: cos² = ½
        ([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], (0.5 + 0.5 + 0.0) / 3),
        ([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]], 1 / 3),  # a code of length 0 is orthogonal to all
        ([[0.0, 0.0], [0.0, 0.0]], 0.0),
        ([[1.0, 2.0]], 0.0),  # no other code
    ],
)
def test_pull_away_by_hand(codes: list[list[float]], expected: float) -> None:
    given = torch.tensor(codes, requires_grad=True)
    value = pull_away(given)
    assert float(value.detach()) == pytest.approx(expected, abs=1e-6)
    value.backward()
    assert given.grad is not None and bool(given.grad.isfinite().all())


def test_pull_away_against_a_double_loop_and_a_change_of_lengths() -> None:
    codes = normal(6, 3)
    by_hand = sum(
        float(codes[i] @ codes[j] / (codes[i].norm() * codes[j].norm())) ** 2
        for i in range(6)
        for j in range(6)
        if i != j
    )
    assert float(pull_away(codes)) == pytest.approx(by_hand / 30)
    lengths = torch.tensor([[0.1], [-2.0], [3.0], [-0.5], [1.0], [10.0]], dtype=torch.float64)
    assert float(pull_away(lengths * codes)) == pytest.approx(by_hand / 30)


# --------------------------------------------------------------------------------------------- gradients of the players


@pytest.mark.parametrize("objective", ["ebgan", "gan"])
def test_generators_gradient_against_finite_differences(objective: str) -> None:
    """L_G = D(G(z)) + λ f_PT moves with a weight of the generator as its gradient says: through both sides of the energy."""
    gan, z = tiny(objective=objective, pull_away=0.7), normal(5, 3, seed=1)
    weight = gan.generator[1].weight  # type: ignore[union-attr,index]
    assert isinstance(weight, Tensor)

    def loss() -> Tensor:
        return torch.stack(list(gan.generator_losses(gan.sample(z)).values())).sum()

    loss().backward()
    assert weight.grad is not None
    for index in [(0, 0), (3, 1), (7, 2)]:
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                weight[index] += step
                values.append(float(loss()))
                weight[index] -= step
        assert float(weight.grad[index]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-9)


def test_a_detached_target_loses_part_of_the_gradient() -> None:
    gan = tiny(pull_away=0.0)
    assert isinstance(gan, EnergyGAN)
    whole, half = (normal(4, 2, seed=2).requires_grad_() for _ in range(2))
    gan.generator_losses(whole)["generator"].backward()
    energy(half.detach(), gan.decode(gan.encode(half))).mean().backward()
    assert whole.grad is not None and half.grad is not None
    # The missing part is the direct one, (x - Dec(Enc(x))) / ‖…‖ / B: each sample towards its own reconstruction.
    with torch.no_grad():
        difference = whole - gan.decode(gan.encode(whole))
        direct = difference / difference.norm(dim=1, keepdim=True) / 4
    torch.testing.assert_close(whole.grad - half.grad, direct)


def test_gan_losses_are_binary_cross_entropies() -> None:
    gan = tiny(objective="gan")
    x, fake = normal(4, 2), normal(3, 2, seed=1)
    real, generated = gan.critic_losses(torch.cat([x, fake]), 4, 1.0)
    with torch.no_grad():
        logits, logits_fake = gan.critic(x).squeeze(1), gan.critic(fake).squeeze(1)
    one, bce = torch.ones(4).double(), F.binary_cross_entropy_with_logits
    torch.testing.assert_close(real.detach(), bce(logits, one, reduction="none"))
    torch.testing.assert_close(generated.detach(), bce(logits_fake, 0 * one[:3], reduction="none"))
    torch.testing.assert_close(gan.generator_losses(fake)["generator"].detach(), bce(logits_fake, one[:3]))


def test_ebgan_losses_written_out() -> None:
    gan = tiny(pull_away=0.3)
    assert isinstance(gan, EnergyGAN)
    x, fake = normal(4, 2), normal(3, 2, seed=1)
    real, generated = gan.critic_losses(torch.cat([x, fake]), 4, 1.5)
    with torch.no_grad():
        d, d_fake = ((gan.decode(gan.encode(v)) - v).square().sum(1).sqrt() for v in (x, fake))
    torch.testing.assert_close(real.detach(), d)
    torch.testing.assert_close(generated.detach(), torch.tensor([max(0.0, 1.5 - float(e)) for e in d_fake]).double())
    losses = {name: float(value.detach()) for name, value in gan.generator_losses(fake).items()}
    with torch.no_grad():
        expected = {"generator": float(d_fake.mean()), "pull-away": 0.3 * float(pull_away(gan.encode(fake)))}
    assert losses == pytest.approx(expected)
    assert set(tiny(pull_away=0.0).generator_losses(fake)) == {"generator"}


# ------------------------------------------------------------------------------------------------ the theory, numerically


def value(d: Tensor, p_data: Tensor, p_g: Tensor, m: float) -> Tensor:
    """V(D, G) = Σ_x p_data(x) D(x) + p_G(x) [m - D(x)]⁺ on a finite space."""
    return p_data @ d + p_g @ hinge(d, m)


P_DATA = torch.tensor([0.5, 0.3, 0.2, 0.0], dtype=torch.float64)
P_G = torch.tensor([0.4, 0.1, 0.3, 0.2], dtype=torch.float64)
TV, M = 0.3, 10.0


def test_best_response_and_its_value() -> None:
    """The best D is m where p_data < p_G and 0 elsewhere, and then V = m (1 - TV): here 10 (1 - 0.3) = 7."""
    best = torch.where(P_DATA < P_G, M, 0.0).double()
    assert float(0.5 * (P_DATA - P_G).abs().sum()) == pytest.approx(TV)
    assert float(value(best, P_DATA, P_G, M)) == pytest.approx(M * (1 - TV)) == pytest.approx(7.0)
    grid_of_energies = torch.cartesian_prod(*[torch.linspace(0, 15, 7).double()] * 4)  # 0, 2.5, ... 10, 12.5, 15
    values = torch.stack([value(d, P_DATA, P_G, M) for d in grid_of_energies])
    assert float(values.min()) == pytest.approx(7.0)
    assert torch.equal(grid_of_energies[values.argmin()], best)


def test_descending_the_hinge_loss_finds_the_best_response() -> None:
    d = torch.full((4,), 5.0, dtype=torch.float64, requires_grad=True)
    opt = torch.optim.SGD([d], lr=0.05)
    for _ in range(4000):
        opt.zero_grad()
        value(d.clamp_min(0), P_DATA, P_G, M).backward()
        opt.step()
    assert float(value(d.detach().clamp_min(0), P_DATA, P_G, M)) == pytest.approx(7.0, abs=0.05)


@pytest.mark.parametrize("gamma", [0.0, 4.0, 10.0])
def test_any_constant_energy_is_an_equilibrium_when_the_generator_is_perfect(gamma: float) -> None:
    constant = torch.full((4,), gamma, dtype=torch.float64)
    assert float(value(constant, P_DATA, P_DATA, M)) == pytest.approx(M)
    # The critic cannot do better: with p_G = p_data no D has a value below m ...
    for seed in range(20):
        other = 20 * torch.rand(4, generator=generator(seed), dtype=torch.float64)
        assert float(value(other, P_DATA, P_DATA, M)) >= M - 1e-12
    # ... nor the generator, whose energy is γ wherever it goes.
    assert float(P_G @ constant) == pytest.approx(gamma)


def test_a_constant_above_the_margin_is_none() -> None:
    assert float(value(torch.full((4,), 12.0).double(), P_DATA, P_DATA, M)) > M


# ----------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("objective", ["ebgan", "gan"])
def test_update_is_a_step_of_the_critic_and_then_one_of_the_generator(objective: str) -> None:
    gan = tiny(objective=objective, margin=2.0)
    twin = copy.deepcopy(gan)
    x, z, weight = normal(4, 2), normal(4, 3, seed=1), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    terms = update(gan, optimizers(gan), Round(x, weight, z, 2.0))

    opts = optimizers(twin)
    real, generated = twin.critic_losses(torch.cat([x, twin.sample(z).detach()]), 4, 2.0)
    ((weight * real).sum() + generated.mean()).backward()
    opts["critic"].step()
    twin.zero_grad()
    losses = twin.generator_losses(twin.sample(z))  # against the new critic
    torch.stack(list(losses.values())).sum().backward()
    opts["generator"].step()
    for p, q in zip(gan.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    assert {"real", "fake", *losses} == set(terms)
    torch.testing.assert_close(terms["generator"], losses["generator"].detach())


def test_fit_repeats_and_reports() -> None:
    x, seen = grid(200, generator(0)).x, list[int]()
    runs = []
    for seed in (0, 0, 1):
        gan = make_gan((2,), EBGAN.Config(**TINY), bounded=False)
        rows = fit(gan, x, steps=6, batch_size=5, seed=seed, watch=seen.append)
        runs.append((rows, gan.state_dict()))
    assert seen == [*range(7)] * 3
    assert runs[0][0] == runs[1][0] != runs[2][0] and len(runs[0][0]) == 6
    assert all(torch.equal(runs[0][1][k], v) for k, v in runs[1][1].items())


@pytest.mark.parametrize(("objective", "margin"), [("ebgan", 1.0), ("gan", 1.0)])
def test_fit_moves_samples_to_the_data(objective: str, margin: float) -> None:
    x = torch.tensor([3.0, -2.0]) + 0.1 * torch.randn(200, 2, generator=generator(0))
    cfg = EBGAN.Config(hidden=(16,), critic_hidden=(16,), code=4, z=2, objective=objective, margin=margin, lr=5e-3)  # type: ignore[arg-type]
    gan = make_gan((2,), cfg, bounded=False)
    z = torch.randn(100, 2, generator=generator(1))
    before = (gan.sample(z) - x.mean(0)).norm(dim=1).mean()
    fit(gan, x, steps=400, batch_size=32)
    after = (gan.sample(z) - x.mean(0)).norm(dim=1).mean()
    assert float(before.detach()) > 3 and float(after.detach()) < 1


def test_margin_schedule() -> None:
    assert [tiny(margin=8.0, margin_end=2.0).margin_at(p) for p in (0.0, 0.5, 1.0)] == [8.0, 5.0, 2.0]
    assert tiny(margin=8.0).margin_at(0.7) == 8.0
    assert make_gan((1, 28, 28), EBGAN.Config()).margin_at(0.7) == 10.0  # the paper's on MNIST
    assert tiny(margin=None).margin_at(0.0) == pytest.approx(10 * (2 / 784) ** 0.5)
    learner, stream = ready("class", 0, margin=8.0, margin_end=2.0)
    batch = stream[0].train.batch(torch.arange(5))
    margins = []
    for s in range(3):
        noise = learner.draw(5, generator(s))
        margins.append(float(learner.round(batch, noise).margin))
        learner.step(batch, noise)
    assert margins == [8.0, 6.5, 5.0]
    learner.begin_phase(1, Phase("train", 4), stream[1].train, generator(0))
    assert float(learner.round(batch, learner.draw(5, generator(0))).margin) == 8.0


def test_cooling_stops_the_players_at_the_end_of_a_task() -> None:
    stream = split(toy_data(n_classes=6), "class", tasks=3)
    scales = [
        EBGAN(stream.spec, EBGAN.Config(**{**TINY, "cooling": cooling})).phases(0, 10)[0].lr_scale
        for cooling in (False, True)
    ]
    assert [[scale(p) for p in (0.0, 0.5, 0.75, 1.0)] for scale in scales] == [[1, 1, 1, 1], [1, 1, 0.5, 0]]


# -------------------------------------------------------------------------------------------------------- the learner


def ready(scenario: str, t: int, **settings: object) -> tuple[EBGAN, Stream]:
    """A tiny learner about to learn task t (0-based), with an old generator that differs from the new one."""
    stream = split(toy_data(n_classes=6), scenario, tasks=3)
    learner = EBGAN(stream.spec, EBGAN.Config(**{**TINY, **settings}))
    phase = Phase("train", 4)
    learner.enter(t, phase)
    learner.begin_phase(t, phase, stream[t].train, generator(0))
    with torch.no_grad():
        for p in learner.gan.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator(1, p.numel()))
    return learner, stream


def test_first_task_replays_nothing() -> None:
    learner, stream = ready("class", 0)
    batch = stream[0].train.batch(torch.arange(5))
    now = learner.round(batch, learner.draw(5, generator(0)))
    assert torch.equal(now.x, batch.x) and now.weight.tolist() == pytest.approx([0.2] * 5)


def test_each_task_counts_alike() -> None:
    """The critic's loss on what it takes for real: 1/3 the third task's data, 2/3 samples of the old generator."""
    learner, stream = ready("class", 2)
    batch, noise = stream[2].train.batch(torch.arange(5)), learner.draw(6, generator(0))
    losses = learner.loss(batch, noise)
    past = torch.tensor([0, 1, 0, 1, 0, 1])
    with torch.no_grad():
        replayed = learner.old.sample(noise["z_old"], learner.task_one_hot(past))
        expected = learner.gan.energy(batch.x, learner.task_one_hot(batch.task)).mean() / 3
        expected += learner.gan.energy(replayed, learner.task_one_hot(past)).mean() * 2 / 3
    torch.testing.assert_close(losses["real"].detach(), expected)


def test_the_players_are_told_the_task() -> None:
    learner, stream = ready("class", 2)
    x = stream[0].train.batch(torch.arange(5)).x
    assert learner.task_one_hot(torch.tensor([0, 2])).tolist() == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    first, last = (learner.task_one_hot(torch.full((5,), t)) for t in (0, 2))
    assert not torch.equal(learner.gan.energy(x, first), learner.gan.energy(x, last))
    images = [learner.dream(torch.full((5,), t), generator(0)) for t in (0, 2)]
    assert not torch.equal(*images)
    assert set(learner.draw(200, generator(0))["tasks"].tolist()) == {0, 1, 2}  # generated samples are of all tasks


def test_step_reports_what_loss_says_of_the_critic() -> None:
    learner, stream = ready("class", 1)
    batch, noise = stream[1].train.batch(torch.arange(5)), learner.draw(5, generator(0))
    before, told = learner.loss(batch, noise), learner.step(batch, noise)
    assert set(before) == set(told) == {"real", "fake", "generator", "pull-away"}
    for name in ("real", "fake"):
        torch.testing.assert_close(told[name], before[name].detach())


def test_alignment_plays_the_current_task_and_repeats_the_past() -> None:
    """At task 3: 1/3 of the generator's loss is the game on the third task, 2/3 the distance from what it made before."""
    learner, stream = ready("class", 2, past="alignment")
    batch, noise = stream[2].train.batch(torch.arange(5)), learner.draw(6, generator(0))
    assert noise["tasks"].tolist() == [2] * 6
    now, losses = learner.round(batch, noise), learner.loss(batch, noise)
    assert torch.equal(now.x, batch.x) and now.weight.tolist() == pytest.approx([0.2] * 5)
    told = learner.task_one_hot(torch.tensor([0, 1, 0, 1, 0, 1]))
    with torch.no_grad():
        drift = learner.gan.sample(noise["z_old"], told) - learner.old.sample(noise["z_old"], told)
        played = learner.gan.generator_losses(learner.gan.sample(noise["z"], now.c_fake), now.c_fake)
    torch.testing.assert_close(losses["alignment"].detach(), drift.flatten(1).norm(dim=1).mean() * 2 / 3)
    for name in ("generator", "pull-away"):
        torch.testing.assert_close(losses[name].detach(), played[name] / 3)
    assert set(losses) == set(learner.step(batch, noise)) == {"real", "fake", "generator", "pull-away", "alignment"}


def test_alignment_alone_brings_the_generator_back() -> None:
    learner, stream = ready("class", 1, past="alignment", lr=1e-2)
    batch = stream[1].train.batch(torch.arange(5))
    drifts = [float(learner.step(batch, learner.draw(64, generator(s)))["alignment"]) for s in range(150)]
    assert drifts[-1] < 0.5 * drifts[0]


@pytest.mark.parametrize("past", ["replay", "alignment"])
def test_the_old_generator_never_learns(past: str) -> None:
    learner, stream = ready("class", 1, past=past)
    before = copy.deepcopy(learner.old.state_dict())
    for s in range(3):
        learner.step(stream[1].train.batch(torch.arange(5)), learner.draw(5, generator(s)))
    assert all(torch.equal(v, before[k]) for k, v in learner.old.state_dict().items())
    learner.begin_phase(2, Phase("train", 4), stream[2].train, generator(0))
    assert all(torch.equal(v, learner.old.state_dict()[k]) for k, v in learner.gan.state_dict().items())


def test_samples_and_errors() -> None:
    learner, stream = ready("class", 1)
    images = learner.sample(4, generator(0))
    assert images.shape == (4, *stream.spec.shape) and float(images.min()) >= 0 and float(images.max()) <= 1
    assert torch.equal(images, learner.sample(4, generator(0)))
    with pytest.raises(ConfigError, match="no labels"):
        learner.sample(4, generator(0), classes=torch.zeros(4))
    for bad in (
        {"margin": 0.0},
        {"margin_end": -1.0},
        {"pull_away": -0.1},
        {"z": 0},
        {"code": 0},
        {"critic_lr": 0.0},
        {"beta1": 1.0},
    ):
        with pytest.raises(ConfigError, match=f"{next(iter(bad))}="):
            EBGAN.Config(**bad)  # type: ignore[arg-type]
