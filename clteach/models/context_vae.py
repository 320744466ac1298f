r"""A variational auto-encoder that can be told what to dream of, by its prior and by gates in its decoder.

* **Conditional prior.** One Gaussian per class, learned with everything else,
  $p(z|c) = \mathcal{N}(\mu_c, \mathrm{diag}\,\sigma_c^2)$. A label is a row of probabilities $p_c$, one-hot where the class
  is known, so the prior of a sample is the mixture $p(z) = \sum_c p_c\, p(z|c)$. The KL divergence from a mixture has
  no closed form. It is estimated with the one z that is drawn anyway, $\log q(z|x) - \log p(z)$.
* **Gates.** In every context another random share X of the decoder's hidden units is off, for good:
  $h = g \odot \mathrm{ReLU}(W h' + b)$ with $g = \sum_c p_c\, m_c$, $m_c \in \{0, 1\}^n$.

Brain-inspired replay stands on it (van de Ven, Siegelmann & Tolias 2020). As in `clteach.models.vae` everything is per
sample and summed over its own dimensions, in nats: (B,).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clteach.models.nets import gated
from clteach.models.vae import VAE, bernoulli_nll, gaussian_nll, kl_standard_normal, reparameterise


class ContextVAE(VAE):
    """A VAE whose prior has one Gaussian per class and whose decoder is gated by a context (each of the two if asked for).

    Args:
        shape: shape of what it reads and writes.
        hidden: as in `VAE`.
        z: latent dimensions.
        classes: number of Gaussians in the prior; 0: the standard normal.
        contexts: number of masks.
        gating: probability X that a mask switches a hidden unit of the decoder off; 0: no masks.
        features: does it write features, any numbers, instead of pixels in [0, 1]?
    """

    prior_mean: nn.Parameter  # (classes, z)
    prior_logvar: nn.Parameter  # (classes, z)

    def __init__(
        self,
        shape: Sequence[int],
        hidden: Sequence[int],
        z: int,
        classes: int = 0,
        contexts: int = 0,
        gating: float = 0.0,
        features: bool = False,
    ) -> None:
        super().__init__(shape, hidden, z)
        self.conditional, self.features = classes > 0, features
        if self.conditional:  # μ_c and log σ_c² start as draws from N(0, 1): the classes start apart
            self.prior_mean = nn.Parameter(torch.randn(classes, z))
            self.prior_logvar = nn.Parameter(torch.randn(classes, z))
        self.gates = [f"gates_{layer}" for layer in range(len(hidden))] if gating > 0 else []
        for name, units in zip(self.gates, reversed(hidden), strict=False):
            # m_c,j = 0 with probability X. A buffer: a reloaded model must not have other gates.
            self.register_buffer(name, (torch.rand(contexts, units) >= gating).float())
        self.to_pixels: nn.Module = nn.Identity()  # what comes behind the decoder, where it decodes features for it

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Latents (B, z) in contexts (B, contexts), rows of probabilities -> logits of pixels, or features, (B, P)."""
        if not self.gates:
            return self.to_pixels(self.decoder(z))
        assert context is not None
        # g = Σ_c p_c m_c
        gates = [context @ self.get_buffer(name) for name in self.gates]
        return self.to_pixels(gated(self.decoder, z, gates))

    def latent(self, eps: Tensor, label: Tensor) -> Tensor:
        """Noise (B, z) from N(0, I) -> latents (B, z) from the prior, of the classes in label (B, classes), one-hot."""
        if not self.conditional:
            return eps
        # z = μ_c + σ_c ε
        return reparameterise(label @ self.prior_mean, label @ self.prior_logvar, eps)

    def dream(self, eps: Tensor, label: Tensor, context: Tensor) -> Tensor:
        """Noise (B, z) -> images (B, *shape) in [0, 1], or features (B, P), of these classes in these contexts."""
        decoded = self.decode(self.latent(eps, label), context)
        return decoded if self.features else decoded.sigmoid().view(-1, *self.shape)

    def log_prior(self, z: Tensor, label: Tensor) -> Tensor:
        """(B,) log p(z) + ½ J log 2π of latents z (B, J) under the Gaussians weighted by label (B, classes), in nats."""
        # Σ_j (z_j - μ_cj)² / σ_cj², multiplied out into two matrix products: there is no (B, classes, J) tensor
        precision = torch.exp(-self.prior_logvar)  # (classes, J)
        scaled_mean = self.prior_mean * precision
        distance = z.square() @ precision.T - 2 * z @ scaled_mean.T + (self.prior_mean * scaled_mean).sum(1)
        # log N(z; μ_c, σ_c²) = -½ Σ_j [(z_j - μ_cj)² / σ_cj² + log σ_cj² + log 2π]
        log_normal = -0.5 * (distance + self.prior_logvar.sum(1))  # (B, classes)
        # log p(z) = log Σ_c p_c N(z; μ_c, σ_c²)
        return torch.logsumexp(label.log() + log_normal, 1)

    def kl(self, mean: Tensor, logvar: Tensor, z: Tensor, eps: Tensor, label: Tensor) -> Tensor:
        """(B,) KL(q(z|x) ‖ p(z)) in nats; with the mixture estimated from the one z = μ + σ eps, so it may be negative."""
        if not self.conditional:
            return kl_standard_normal(mean, logvar)
        # log q(z|x) = -½ Σ_j [ε_j² + log σ_j² + log 2π], as (z - μ) / σ = ε; log 2π is in both terms and cancels
        log_q = -0.5 * (eps.square() + logvar).sum(1)
        return log_q - self.log_prior(z, label)

    def nll(self, decoded: Tensor, x: Tensor) -> Tensor:
        """(B,) -log p(x|z) of images (B, *shape), or of features (B, P)."""
        return (gaussian_nll if self.features else bernoulli_nll)(decoded, x)
