r"""The variational auto-encoder (Kingma & Welling 2014), the generator in most of the rooms.

A latent z is drawn from the prior p(z) = N(0, I) and decoded to p(x|z); the encoder q(z|x) = N(μ(x), diag σ²(x)) is
trained with the decoder to maximise the evidence lower bound (ELBO)

$$\log p(x) \ge \mathbb{E}_{q(z|x)}[\log p(x|z)] - \mathrm{KL}(q(z|x)\,\|\,p(z)).$$

Everything here is per sample and summed over its own dimensions, in nats: (B,). How the two terms are weighed and
averaged is the method's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.models.nets import mlp


class VAE(nn.Module):
    """Encoder and decoder as MLPs, mirror images of each other.

    Args:
        shape: shape of one input, P = prod(shape) values in [0, 1].
        hidden: units of the encoder's hidden layers (ReLU), mirrored in the decoder.
        z: latent dimensions.
    """

    def __init__(self, shape: Sequence[int], hidden: Sequence[int], z: int) -> None:
        super().__init__()
        self.shape, self.z = tuple(shape), z
        # Mean and log-variance in one output layer: one matrix product instead of two.
        self.encoder = mlp(shape, hidden, 2 * z)
        self.decoder = mlp((z,), list(reversed(hidden)), math.prod(shape))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs (B, *shape) -> mean μ and log-variance log σ² of q(z|x), each (B, z)."""
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        return mean, logvar

    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, z) -> logits (B, P) of the pixels' Bernoulli probabilities."""
        return self.decoder(z)

    def sample(self, z: Tensor) -> Tensor:
        """Latents (B, z) drawn from the prior -> mean images (B, *shape) in [0, 1]."""
        return self.decode(z).sigmoid().view(-1, *self.shape)

    def forward(self, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (B, *shape) and noise (B, z) from N(0, I) -> logits (B, P), mean (B, z), logvar (B, z)."""
        mean, logvar = self.encode(x)
        return self.decode(reparameterise(mean, logvar, eps)), mean, logvar


class FeatureVAE(VAE):
    """A VAE of features (P,), any numbers: the decoder gives the means of Gaussians with variance 1 (see `gaussian_nll`)."""

    def sample(self, z: Tensor) -> Tensor:
        """Latents (B, z) drawn from the prior -> mean features (B, P)."""
        return self.decode(z)


def reparameterise(mean: Tensor, logvar: Tensor, eps: Tensor) -> Tensor:
    """A sample of N(μ, σ²) as a differentiable function of μ and σ: noise eps (B, z) ~ N(0, I) -> z (B, z)."""
    # z = μ + σ ε,  σ = exp(½ log σ²)
    return mean + torch.exp(0.5 * logvar) * eps


def binary_sample(logits: Tensor, noise: Tensor, temperature: Tensor, hard_below: float = 0.1) -> Tensor:
    """Bits in [-1, 1], (B, b), from a Gumbel-softmax over two classes (Jang et al. 2017, Maddison et al. 2017).

    What `reparameterise` is for a Gaussian this is for a latent of bits: a differentiable function of its parameters.

    Args:
        logits: (B, b) log-odds of +1.
        noise: (B, b) from Logistic(0, 1), the difference of two Gumbel variables.
        temperature: () τ > 0.
        hard_below: below this temperature the bits are exactly ±1, with the gradient of soft ones at τ = 1
            (straight-through). At the low temperature itself nearly every gradient would be 0 and a few would be huge.
    """
    low = temperature < hard_below
    # b = 2 σ((l + g) / τ) - 1
    soft = 2 * torch.sigmoid((logits + noise) / torch.where(low, 1.0, temperature)) - 1
    hard = torch.where(soft > 0, 1.0, -1.0)
    return torch.where(low, hard + (soft - soft.detach()), soft)


def kl_standard_normal(mean: Tensor, logvar: Tensor) -> Tensor:
    """(B,) KL divergence of N(μ, diag σ²) from the prior N(0, I), in nats; ≥ 0, and 0 only at μ = 0, σ = 1."""
    # KL = ½ Σ_j (μ_j² + σ_j² - 1 - log σ_j²)
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1)


def bernoulli_nll(logits: Tensor, x: Tensor) -> Tensor:
    """(B,) -log p(x|z) for independent Bernoulli pixels with logits (B, P), of images x (B, *shape) in [0, 1], in nats.

    For grey values between 0 and 1 it is the cross-entropy, whose minimum is not 0 but the pixels' own entropy.
    """
    # -log p(x|z) = -Σ_i [x_i log p_i + (1 - x_i) log(1 - p_i)]
    return F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="none").sum(1)


def gaussian_nll(mean: Tensor, x: Tensor) -> Tensor:
    """(B,) -log p(x|z) up to a constant, for independent features x (B, P) with means (B, P) and variance 1, in nats."""
    return 0.5 * (mean - x).square().sum(1)
