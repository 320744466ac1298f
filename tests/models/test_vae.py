"""The VAE against closed forms, sampling and torch.distributions."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Normal, kl_divergence

from clteach.models.vae import VAE, bernoulli_nll, kl_standard_normal, reparameterise


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10_000))
def test_kl_against_the_closed_form(batch: int, z: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    mean = torch.randn(batch, z, generator=rng, dtype=torch.float64) * 3
    logvar = torch.randn(batch, z, generator=rng, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_standard_normal(mean, logvar), expected)
    assert bool((kl_standard_normal(mean, logvar) >= 0).all())


def test_kl_is_zero_only_at_the_prior_and_bounded_below() -> None:
    assert float(kl_standard_normal(torch.zeros(1, 3), torch.zeros(1, 3))) == 0
    # A sign error in mean² or a missing exp(logvar) makes this -55 instead.
    value = kl_standard_normal(torch.tensor([[10.0]]), torch.tensor([[-10.0]]))
    torch.testing.assert_close(value, torch.tensor([54.5]), atol=1e-3, rtol=0)


def test_kl_against_sampling() -> None:
    rng = torch.Generator().manual_seed(0)
    mean, logvar = torch.tensor([[0.5, -1.0]]).double(), torch.tensor([[-0.7, 0.4]]).double()
    eps = torch.randn(200_000, 2, generator=rng, dtype=torch.float64)
    z = reparameterise(mean, logvar, eps)
    log_q = Normal(mean, (0.5 * logvar).exp()).log_prob(z).sum(1)
    log_p = Normal(0.0, 1.0).log_prob(z).sum(1)
    estimate = (log_q - log_p).mean()
    sem = (log_q - log_p).std() / 200_000**0.5
    assert abs(float(estimate - kl_standard_normal(mean, logvar))) < 4 * float(sem)


def test_reparameterisation_has_the_right_moments_and_gradients() -> None:
    rng = torch.Generator().manual_seed(0)
    mean, logvar = torch.tensor([[2.0]], requires_grad=True), torch.tensor([[-1.0]], requires_grad=True)
    eps = torch.randn(100_000, 1, generator=rng)
    z = reparameterise(mean, logvar, eps)
    assert abs(float(z.detach().mean()) - 2) < 0.01
    assert abs(float(z.detach().std()) - float(torch.exp(torch.tensor(-0.5)))) < 0.01
    z.mean().backward()
    assert mean.grad is not None and logvar.grad is not None
    torch.testing.assert_close(mean.grad, torch.ones(1, 1))  # ∂z/∂μ = 1
    torch.testing.assert_close(logvar.grad, (0.5 * torch.exp(0.5 * logvar) * eps).mean(0, keepdim=True).detach())


def test_bernoulli_nll_against_torch_distributions() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, generator=rng)
    x = (torch.rand(4, 1, 2, 3, generator=rng) > 0.5).float()
    expected = -Bernoulli(logits=logits).log_prob(x.flatten(1)).sum(1)
    torch.testing.assert_close(bernoulli_nll(logits, x), expected)


def test_elbo_bounds_the_marginal_likelihood() -> None:
    """log p(x) by importance sampling is at least the ELBO, for an untrained VAE."""
    torch.manual_seed(0)
    vae = VAE((1, 2, 2), (8,), 2).double()
    x = torch.rand(1, 1, 2, 2).round().double()
    eps = torch.randn(50_000, 2).double()
    with torch.no_grad():
        many = x.expand(len(eps), -1, -1, -1)
        logits, mean, logvar = vae(many, eps)
        z = reparameterise(mean, logvar, eps)
        log_q = Normal(mean, (0.5 * logvar).exp()).log_prob(z).sum(1)
        log_joint = -bernoulli_nll(logits, many) + Normal(0.0, 1.0).log_prob(z).sum(1)
        log_p = torch.logsumexp(log_joint - log_q, 0) - torch.tensor(len(eps)).log()
        elbo = (-bernoulli_nll(logits, many) - kl_standard_normal(mean, logvar)).mean()
    assert float(elbo) <= float(log_p) + 1e-3


def test_shapes_and_ranges() -> None:
    vae = VAE((3, 4, 4), (10, 6), 5)
    x = torch.rand(7, 3, 4, 4)
    logits, mean, logvar = vae(x, torch.zeros(7, 5))
    assert logits.shape == (7, 48) and mean.shape == logvar.shape == (7, 5)
    torch.testing.assert_close(logits, vae.decode(mean))  # no noise: the mean is decoded
    sample = vae.sample(torch.randn(2, 5))
    assert sample.shape == (2, 3, 4, 4)
    assert float(sample.detach().min()) >= 0 and float(sample.detach().max()) <= 1
