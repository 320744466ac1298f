r"""How likely inputs are under many small VAEs at once, by importance sampling (Burda, Grosse & Salakhutdinov 2016).

The likelihood $p(x) = \int p(x|z)\, p(z)\, dz$ of a VAE has no closed form. It is estimated with S samples $z_s \sim q(z|x)$
of the encoder, each weighed by how much rarer it is under the prior:

$$\log p(x) \approx \log \frac1S \sum_s \frac{p(x|z_s)\, p(z_s)}{q(z_s|x)}, \qquad
  z_s = \mu(x) + \sigma(x)\, \varepsilon_s.$$

For any S this is a lower bound in expectation, and it is exact where q(z|x) is the true posterior.

Whoever classifies by likelihood asks K of them about every input, S times each. So the networks are stacked and run side by
side, and what can be computed without an array of all decoded values is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Layers = list[tuple[Tensor, Tensor]]
"""The linear layers of K networks: weights (K, n_in, n_out) and biases (K, 1, n_out)."""
Observation = Literal["bernoulli", "gaussian image", "gaussian"]
"""p(x|z): of pixels with the decoder's logits, or a Gaussian of variance 1 around the decoded image or decoded features."""


def stacked(nets: Sequence[nn.Sequential]) -> Layers:
    """The linear layers of K networks that `clteach.models.nets.mlp` made alike, ready for `run`."""
    linear = [[layer for layer in net if isinstance(layer, nn.Linear)] for net in nets]
    return [
        (torch.stack([layer.weight.T for layer in layers]), torch.stack([layer.bias for layer in layers])[:, None])
        for layers in zip(*linear, strict=True)
    ]


def hidden(layers: Layers, x: Tensor) -> Tensor:
    """K networks at once: inputs (K, N, n_in) -> what their last layers read, ReLU behind each of the others."""
    for weight, bias in layers[:-1]:
        x = torch.baddbmm(bias, x, weight).relu_()
    return x


def run(layers: Layers, x: Tensor) -> Tensor:
    """K networks at once: inputs (K, N, n_in) -> outputs (K, N, n_out), ReLU between the layers."""
    weight, bias = layers[-1]
    return torch.baddbmm(bias, hidden(layers, x), weight)


def log_likelihood(
    x: Tensor, encoders: Layers, decoders: Layers, eps: Tensor, observation: Observation, gram: Tensor | None = None
) -> Tensor:
    """(B, K) log p(x) of inputs x (B, P) under K VAEs, in nats, estimated with the samples that noise eps (S, z) gives.

    Args:
        x: inputs; in [0, 1] where the observation is of images.
        encoders: their last layers give mean and log-variance, 2 z values.
        decoders: their last layers give P values.
        eps: from N(0, I), the same for all inputs and VAEs: an answer does not depend on what is asked beside it, and
            differences between the VAEs are less noisy than the likelihoods.
        observation: what the decoders' outputs mean.
        gram: W Wᵀ (K, H, H) of the decoders' last layers W (K, H, P), which "gaussian" takes; None: it is computed.
    """
    k, (b, p), (s, d) = len(encoders[0][0]), x.shape, eps.shape
    mean, logvar = run(encoders, x.expand(k, b, p)).chunk(2, dim=2)  # (K, B, z)
    # z_s = μ + σ ε_s
    z = torch.addcmul(mean[:, :, None], (0.5 * logvar).exp()[:, :, None], eps)  # (K, B, S, z)
    # log p(z) - log q(z|x) = ½ Σ_j (ε_j² + log σ_j² - z_j²): the constants are the same and cancel
    square = torch.linalg.vector_norm(z, dim=3).square()  # ‖z‖², without an array of z²
    log_w = 0.5 * (eps.square().sum(1) + logvar.sum(2, keepdim=True) - square)  # (K, B, S)
    if observation == "gaussian":
        last, _ = decoders[-1]
        log_w += log_gaussian(decoders, last @ last.mT if gram is None else gram, z, x)
    else:
        logits = run(decoders, z.view(k, b * s, d)).view(k, b, s, p)
        log_w += log_gaussian_image_(logits, x) if observation == "gaussian image" else log_bernoulli_(logits, x)
    # log p(x) ≈ log 1/S Σ_s p(x|z_s) p(z_s) / q(z_s|x)
    return (log_w.logsumexp(2) - math.log(s)).T


def log_bernoulli_(logits: Tensor, x: Tensor) -> Tensor:
    """(K, B, S) log p(x|z) of images x (B, P) with logits (K, B, S, P), which are overwritten, in nats."""
    # log p(x|z) = x·l - Σ_i log(1 + exp l_i), with the logits l
    return (logits @ x[..., None]).squeeze(3) - sum_softplus_(logits)


def log_gaussian_image_(logits: Tensor, x: Tensor) -> Tensor:
    """(K, B, S) log N(x; m, I) of images x (B, P) with the decoded image m = σ(l) of logits (K, B, S, P), overwritten."""
    m = logits.sigmoid_()
    towards = (m @ x[..., None]).squeeze(3)
    constant = 0.5 * (x.square().sum(1)[:, None] + x.shape[1] * math.log(2 * math.pi))
    # log p(x|z) = x·m - ½ m·m - ½ x·x - (P/2) log 2π
    return towards - 0.5 * m.square_().sum(3) - constant


def log_gaussian(decoders: Layers, gram: Tensor, z: Tensor, x: Tensor) -> Tensor:
    """(K, B, S) log N(x; m(z), I) of inputs x (B, P), each with S latents z (K, B, S, d), in nats; the means are not made.

    A decoder's last layer is linear, so the distance of an input to the mean follows from what that layer reads: on
    CIFAR-100 from 85 numbers in place of 1024. `gram` (K, H, H) is W Wᵀ of the last layers W (K, H, P).
    """
    weight, bias = decoders[-1]  # (K, H, P) and (K, 1, P)
    h = hidden(decoders, z.flatten(1, 2))  # (K, B S, H)
    apart = x - bias  # (K, B, P)
    constant = 0.5 * (apart.square().sum(2) + x.shape[1] * math.log(2 * math.pi))
    # with m = h W + c:  -½ ‖x - m‖² = -½ ‖x - c‖² + h · (W (x - c) - ½ W Wᵀ h)
    towards = (apart @ weight.mT)[:, :, None].repeat(1, 1, z.shape[2], 1).flatten(1, 2)  # (K, B S, H)
    towards.baddbmm_(h, gram, alpha=-0.5)
    return towards.mul_(h).sum(2).view(z.shape[:3]) - constant[:, :, None]


def sum_softplus_(logits: Tensor) -> Tensor:
    r"""(...) the sum of log(1 + exp l) over the last dimension of logits (..., P), which are overwritten.

    With log(1 + eˡ) = max(l, 0) + log(1 + e⁻ˡ) for positive l and its mirror image for negative ones, the sum of the second
    parts is the logarithm of a product: one logarithm for up to 64 pixels, where logarithms would take most of the time.
    """
    # Σ_i log(1 + exp l_i) = Σ_i max(l_i, 0) + log Π_i (1 + exp(-|l_i|))
    positive = logits.clamp_min(0).sum(-1)
    factors = logits.abs_().neg_().exp_().add_(1)  # in (1, 2], so a product of 64 is at most 2⁶⁴
    for _ in range(6):
        if factors.shape[-1] % 2:
            break
        half = factors.shape[-1] // 2
        factors = factors[..., :half] * factors[..., half:]
    return positive + factors.log_().sum(-1)
