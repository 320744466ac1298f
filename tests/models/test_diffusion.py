"""Diffusion: forward marginals, samplers with a perfect guess of the noise, guidance, networks."""

from __future__ import annotations

import math
import weakref
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from clteach.errors import ConfigError
from clteach.models import diffusion
from clteach.models.diffusion import (
    SCHEDULES,
    ConvDenoiser,
    Diffusion,
    Epsilon,
    denoise,
    guided,
    level_path,
    noise_schedule,
    noised,
    predicted_clean,
    reverse_step,
    time_codes,
)
from clteach.seeding import generator, seeded

MEAN, STD = 0.3, 0.5
"""Of the Gaussian data for which the best guess of the noise is known."""


def perfect(alpha_bar: list[float]) -> Epsilon:
    """E[ε | x_t] for data from N(MEAN, STD²): with x_t ~ N(√ᾱ μ, ᾱ s² + 1 - ᾱ) it is linear in x_t."""

    def epsilon(x: Tensor, t: int) -> Tensor:
        a = alpha_bar[t]
        return math.sqrt(1 - a) * (x - math.sqrt(a) * MEAN) / (a * STD**2 + 1 - a)

    return epsilon


def small(**settings: object) -> Diffusion:
    """A small model whose output is not 0."""
    with seeded(0, "test"):
        return Diffusion((1, 4, 4), 2, 3, (16,), embedding=8, levels=50, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_fall_from_one_to_almost_nothing(kind: str) -> None:
    for levels in (10, 1000):
        alpha_bar = noise_schedule(levels, kind)
        assert alpha_bar.shape == (levels + 1,) and float(alpha_bar[0]) == 1
        assert all(later < earlier for earlier, later in pairwise(alpha_bar.tolist()))
        assert 0 < float(alpha_bar[-1]) < 1e-3


def test_schedules_are_those_of_the_papers() -> None:
    beta = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    product, linear = 1.0, noise_schedule(1000, "linear")
    for t, b in enumerate(beta, 1):
        product *= 1 - b
        assert float(linear[t]) == pytest.approx(product, rel=1e-9)
    cosine = noise_schedule(1000)
    f = [math.cos(math.pi / 2 * (t / 1000 + 0.008) / 1.008) ** 2 for t in range(1001)]
    for t in (1, 300, 990):  # later β reaches its bound 0.999
        assert float(cosine[t]) == pytest.approx(f[t] / f[0], rel=1e-9)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_noise_added_step_by_step_has_the_closed_forms_marginals(kind: str) -> None:
    """x_t = √α_t x_{t-1} + √β_t ε again and again: mean √ᾱ_t x_0 and variance 1 - ᾱ_t."""
    alpha_bar = noise_schedule(20, kind)
    x = torch.full((200_000,), 0.8, dtype=torch.float64)
    rng = generator(0, kind)
    for t in range(1, 21):
        alpha = float(alpha_bar[t] / alpha_bar[t - 1])
        noise = torch.randn(x.shape, generator=rng, dtype=x.dtype)
        x = math.sqrt(alpha) * x + math.sqrt(1 - alpha) * noise
        assert float(x.mean()) == pytest.approx(0.8 * math.sqrt(alpha_bar[t]), abs=0.01)
        assert float(x.var()) == pytest.approx(1 - float(alpha_bar[t]), rel=0.02)
    direct = noised(torch.full((200_000,), 0.8), torch.randn(200_000, generator=rng), alpha_bar[7].expand(200_000))
    assert float(direct.mean()) == pytest.approx(0.8 * math.sqrt(alpha_bar[7]), abs=0.01)
    assert float(direct.var()) == pytest.approx(1 - float(alpha_bar[7]), rel=0.02)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize(("steps", "ancestral"), [(1000, True), (1000, False), (100, False)])
def test_with_a_perfect_guess_both_samplers_recover_mean_and_variance(kind: str, steps: int, ancestral: bool) -> None:
    alpha_bar = noise_schedule(1000, kind).tolist()
    rng = generator(1, kind)
    start = torch.randn(20_000, generator=rng, dtype=torch.float64)
    noise = None if not ancestral else rng
    x = [*denoise(perfect(alpha_bar), start, alpha_bar, steps, noise, clip=False)][-1]
    assert float(x.mean()) == pytest.approx(MEAN, abs=0.015)
    # Large steps of DDIM narrow the spread a little.
    assert float(x.std()) == pytest.approx(STD, rel=0.02 if steps == 1000 else 0.04)


def test_few_steps_of_a_perfect_guess_are_less_exact() -> None:
    """With one step DDIM gives every sample the mean of the data; the spread comes back with more steps."""
    alpha_bar = noise_schedule(1000).tolist()
    start = torch.randn(5_000, generator=generator(2), dtype=torch.float64)
    spread = [
        float([*denoise(perfect(alpha_bar), start, alpha_bar, steps, clip=False)][-1].std())
        for steps in (1, 4, 20, 200)
    ]
    assert spread[0] < 0.01 and all(a < b < STD * 1.02 for a, b in pairwise(spread))


def test_ddim_with_all_steps_is_the_naive_loop() -> None:
    net = small()
    task, y = torch.tensor([0, 1, 1]), torch.tensor([0, 2, 1])
    x = torch.randn(3, 1, 4, 4, generator=generator(0))
    chain = [*net.chain(task, y, generator(0), steps=50)]
    assert len(chain) == 51
    with torch.no_grad():
        for t in range(50, 0, -1):
            torch.testing.assert_close(chain[50 - t], x, atol=1e-4, rtol=1e-4)
            a, before = net.alpha_bar[t], net.alpha_bar[t - 1]
            eps = net(x, torch.full((3,), t), task, y)
            clean = ((x - (1 - a).sqrt() * eps) / a.sqrt()).clamp(-1, 1)
            eps = (x - a.sqrt() * clean) / (1 - a).sqrt()
            x = before.sqrt() * clean + (1 - before).sqrt() * eps
    torch.testing.assert_close(chain[-1], x, atol=1e-4, rtol=1e-4)
    assert torch.equal(net.sample(task, y, generator(0), steps=50), ((chain[-1] + 1) / 2).clamp(0, 1))


def test_a_sample_keeps_only_the_last_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand states of ten thousand images would not fit into a laptop."""
    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def step(*args: Any) -> Tensor:
        alive.append(sum(each() is not None for each in made))
        made.append(weakref.ref(x := reverse_step(*args)))
        return x

    monkeypatch.setattr(diffusion, "reverse_step", step)
    with torch.no_grad():
        small().sample(torch.tensor([0]), torch.tensor([1]), generator(0), steps=50)
    assert len(made) == 50 and max(alive) == 1


def test_ancestral_sampling_is_that_of_ddpm() -> None:
    """One step has the mean and the variance of q(x_{t-1} | x_t, x̂_0), and the last step adds no noise."""
    alpha_bar = noise_schedule(30, "linear")
    rng = generator(0)
    x, eps, z = (torch.randn(6, generator=rng, dtype=torch.float64) for _ in range(3))
    for t in (1, 2, 17, 30):
        a, before = float(alpha_bar[t]), float(alpha_bar[t - 1])
        alpha = a / before
        beta = 1 - alpha
        mean = (x - beta / math.sqrt(1 - a) * eps) / math.sqrt(alpha)
        variance = beta * (1 - before) / (1 - a)
        got = reverse_step(x, eps, a, before, z, clip=False)
        torch.testing.assert_close(got, mean + math.sqrt(variance) * z)
    assert torch.equal(reverse_step(x, eps, 0.9, 1.0, z, clip=False), reverse_step(x, eps, 0.9, 1.0, clip=False))


def test_the_true_noise_leads_straight_back() -> None:
    x, eps = torch.rand(4, 5, generator=generator(0)) * 2 - 1, torch.randn(4, 5, generator=generator(1))
    x_t = noised(x, eps, torch.full((4,), 0.3))
    torch.testing.assert_close(predicted_clean(x_t, eps, 0.3), x)
    torch.testing.assert_close(reverse_step(x_t, eps, 0.3, 0.7), noised(x, eps, torch.full((4,), 0.7)))


def test_clipping_keeps_the_guess_where_images_are() -> None:
    x, eps = torch.tensor([3.0, 0.1]), torch.tensor([-1.0, 0.2])
    assert predicted_clean(x, eps, 0.5)[0] > 1
    got = reverse_step(x, eps, 0.5, 1.0)
    assert float(got[0]) == pytest.approx(1) and float(got[1]) == pytest.approx(float(predicted_clean(x, eps, 0.5)[1]))


@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_guidance_is_the_finite_difference_gradient(strength: float) -> None:
    net = small().double()
    task, y = torch.tensor([0, 1]), torch.tensor([1, 2])
    weights = torch.randn(16, 3, generator=generator(3), dtype=torch.float64)

    def epsilon(x: Tensor, t: int) -> Tensor:
        return net(x, torch.full((2,), t), task, y)

    def log_p(clean: Tensor) -> Tensor:
        return (clean.flatten(1) @ weights).log_softmax(1)[:, 0]

    t, h = 20, 1e-5
    x = torch.randn(2, 1, 4, 4, generator=generator(4), dtype=torch.float64)
    steered = guided(epsilon, log_p, strength, net.signal)(x, t)
    assert not steered.requires_grad
    with torch.no_grad():
        gradient = torch.zeros_like(x)
        for i in range(16):
            shift = torch.zeros(1, 16, dtype=torch.float64)
            shift[0, i] = h
            both = [x + sign * shift.view(1, 1, 4, 4) for sign in (1, -1)]
            high, low = (log_p(predicted_clean(at, epsilon(at, t), net.signal[t])) for at in both)
            gradient.view(2, 16)[:, i] = (high - low) / (2 * h)
        expected = epsilon(x, t) - strength * math.sqrt(1 - net.signal[t]) * gradient
    torch.testing.assert_close(steered, expected, atol=1e-6, rtol=1e-5)


def test_guidance_steers_and_strength_zero_does_not() -> None:
    net = small()
    task, y = torch.zeros(64, dtype=torch.int64), torch.zeros(64, dtype=torch.int64)

    def bright(clean: Tensor) -> Tensor:
        return clean.flatten(1).mean(1)

    plain = net.sample(task, y, generator(0), 10)
    for strength in (0.0, 20.0):
        steered = net.sample(task, y, generator(0), 10, guide=bright, strength=strength)
        assert bool(torch.equal(steered, plain)) == (strength == 0)
    assert float(steered.mean()) > float(plain.mean()) + 0.05


def test_sampling_depends_on_its_generator_alone() -> None:
    net = small()
    task, y = torch.tensor([0, 1]), torch.tensor([0, 2])
    state = torch.get_rng_state()
    for ancestral in (False, True):
        first, again, other = (net.sample(task, y, generator(s), 10, ancestral=ancestral) for s in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert not first.requires_grad and float(first.min()) >= 0 and float(first.max()) <= 1
    assert torch.equal(state, torch.get_rng_state())


def test_what_it_is_told_matters() -> None:
    net = small()
    x, t = torch.randn(1, 1, 4, 4, generator=generator(0)).expand(4, -1, -1, -1), torch.tensor([5, 6, 5, 5])
    out = net(x, t, torch.tensor([0, 0, 1, 0]), torch.tensor([1, 1, 1, 2]))
    assert all(not torch.equal(out[0], other) for other in out[1:])


def test_at_the_last_level_the_guess_is_the_input_itself() -> None:
    net = small()
    x = torch.randn(2, 1, 4, 4, generator=generator(0))
    guess = net(x, torch.tensor([50, 50]), torch.tensor([0, 1]), torch.tensor([0, 1]))
    torch.testing.assert_close(guess, x, atol=0.05, rtol=0)


def test_levels_on_the_way() -> None:
    assert level_path(4, 4) == [4, 3, 2, 1, 0] and level_path(10, 1) == [10, 0] and level_path(1000, 4)[1] == 750
    for steps in (3, 7, 50):
        path = level_path(50, steps)
        assert len(path) == steps + 1 and path[0] == 50 and path[-1] == 0
        assert all(a > b for a, b in pairwise(path))
    for steps in (0, 51):
        with pytest.raises(ConfigError, match=f"steps={steps}: expected at least 1 and at most 50"):
            level_path(50, steps)


def test_neighbouring_levels_have_different_codes() -> None:
    codes = time_codes(1000, 16)
    assert codes.shape == (1001, 16)
    assert float(torch.pdist(codes).min()) > 0.1


def test_networks_by_shape() -> None:
    for shape, name in (((1, 8, 8), "Dense"), ((12,), "Dense"), ((3, 30, 30), "Dense"), ((1, 28, 28), "Conv")):
        net = Diffusion(shape, 1, 2, (8,), channels=8)
        assert type(net.net).__name__ == f"{name}Denoiser"
        zeros = torch.zeros(2, dtype=torch.int64)
        assert net(torch.zeros(2, *shape), zeros + 1, zeros, zeros).shape == (2, *shape)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="unknown noise schedule 'cosin'"):
        noise_schedule(10, "cosin")
    with pytest.raises(ConfigError, match="levels=1: expected at least 2"):
        noise_schedule(1)
    for shape, channels in (((12,), 8), ((1, 10, 8), 8), ((1, 8, 8), 12)):
        with pytest.raises(ConfigError, match="a convolutional denoiser needs images"):
            ConvDenoiser(shape, 4, channels)
