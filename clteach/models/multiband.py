"""What the bands of Multiband VAE are made of (Deja et al. 2022): the bits' prior, translator and decoder, new targets.

How they learn together is told in `clteach.methods.multiband_vae`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.models.nets import mlp


def task_codes(n_tasks: int) -> Tensor:
    """(n_tasks, b) the code of every task, the lowest b bits of (9 t mod 2ᵇ) + 1 as ±1; b = 4 up to 16 tasks.

    9 is odd, so no two tasks have the same code, and neighbours differ in more than their last bit.
    """
    bits = max(4, (n_tasks - 1).bit_length())
    number = (9 * torch.arange(n_tasks)) % 2**bits + 1
    return (number[:, None] >> torch.arange(bits)) % 2 * 2.0 - 1


class BitPrior(nn.Module):
    """How often the bits of a band are +1, learned for every task from its own images.

    Independent bits are sampled each by its own frequency, as in the paper. But what one bit is may say much about the
    others, since nothing in the loss keeps the encoder from writing words: such samples mix the letters of different words.
    Joint bits are sampled together, by how often the whole pattern occurs.

    Args:
        n_tasks: number of tasks.
        bits: b, number of bits.
        joint: sample them together; a table of 2ᵇ frequencies for every task instead of b.
    """

    patterns: Tensor  # (2ᵇ, b) what joint bits can be, as ±1; of independent ones (0, b)
    frequency: (
        Tensor  # (n_tasks, b) share of a task's images in which a bit is +1; of joint ones (n_tasks, 2ᵇ), of patterns
    )

    def __init__(self, n_tasks: int, bits: int, joint: bool) -> None:
        super().__init__()
        self.joint = joint
        codes = torch.arange(2**bits if joint else 0)
        self.register_buffer("patterns", (codes[:, None] >> torch.arange(bits)) % 2 * 2.0 - 1)
        even = torch.full((len(codes),), 1 / len(codes)) if joint else torch.full((bits,), 0.5)
        self.register_buffer("frequency", even.repeat(n_tasks, 1))

    def learn(self, t: int, log_odds: Tensor) -> None:
        """Keep the frequencies of task t, whose images have these log-odds (N, b) of +1."""
        if self.joint:
            # P(b|x) = Π_j σ(b_j ℓ_j(x)), averaged over the images
            each = [F.logsigmoid(self.patterns * some[:, None]).sum(2).exp().sum(0) for some in log_odds.split(1000)]
            self.frequency[t] = torch.stack(each).sum(0) / len(log_odds)
        else:
            self.frequency[t] = log_odds.sigmoid().mean(0)

    def sample(self, u: Tensor, task: Tensor) -> Tensor:
        """(B, b) bits of tasks (B,) as ±1, from uniform numbers u (B, b)."""
        if not self.joint:
            return torch.where(u < self.frequency[task], 1.0, -1.0)
        # Pattern k is drawn where u falls into its share of [0, 1]: as many shares lie below u as patterns before k.
        which = (self.frequency[task].cumsum(1) < u[:, :1]).sum(1).clamp_max(len(self.patterns) - 1)
        return self.patterns[which]


class Decoder(nn.Module):
    """Translator and decoder: latents (z, b) of a task -> one common space -> images.

    Args:
        n_pixels: P, values of one image.
        n_tasks: number of tasks.
        z, bits: dimensions of the real and of the binary latent.
        translated: dimensions of the common space.
        hidden: units of the decoder's hidden layers.
    """

    codes: Tensor  # (n_tasks, c) ±1

    def __init__(
        self, n_pixels: int, n_tasks: int, z: int, bits: int, translated: int, hidden: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.register_buffer("codes", task_codes(n_tasks))
        # The paper's translator: task code c-12-8, bits b-8-12, with z (8) in all 28-128-256
        self.task_net = mlp((self.codes.shape[1],), (12,), 8, nn.LeakyReLU).append(nn.LeakyReLU())
        self.bit_net = mlp((bits,), (8,), 12, nn.LeakyReLU).append(nn.LeakyReLU())
        self.merge = mlp((z + 20,), (128,), translated, nn.LeakyReLU)
        self.decoder = mlp((translated,), hidden, n_pixels, nn.LeakyReLU)

    def translate(self, z: Tensor, b: Tensor, task: Tensor) -> Tensor:
        """Latents z (B, z) and b (B, bits) of tasks (B,) -> λ in the common space (B, translated)."""
        return self.merge(torch.cat([z, self.task_net(self.codes[task]), self.bit_net(b)], 1))

    def translator(self) -> list[nn.Module]:
        """The networks of the translator alone."""
        return [self.task_net, self.bit_net, self.merge]

    def decode(self, latents: Tensor) -> Tensor:
        """λ (B, translated) -> logits (B, P) of the pixels' Bernoulli probabilities."""
        return self.decoder(latents)

    def forward(self, z: Tensor, b: Tensor, task: Tensor) -> Tensor:
        """Latents of tasks (B,) -> logits (B, P)."""
        return self.decode(self.translate(z, b, task))


def controlled_forgetting(
    latents: Tensor, targets: Tensor, candidate_latents: Tensor, candidates: Tensor, gamma: float
) -> tuple[Tensor, Tensor]:
    """Replace the targets of replayed samples that are too similar to a real image of the current task.

    Args:
        latents: (R, d) translated latents of the replayed samples.
        targets: (R, *shape) what they should look like.
        candidate_latents: (C, d) translated latents of real images.
        candidates: (C, *shape) these images.
        gamma: γ; a sample whose closest candidate has a cosine similarity > γ takes that one's image.

    Returns:
        (R, *shape) targets, and (R,) bool: which were replaced.
    """
    # sim(λ_old, λ) = λ_oldᵀλ / (‖λ_old‖ ‖λ‖)
    similarity = F.normalize(latents) @ F.normalize(candidate_latents).T  # (R, C)
    closest, which = similarity.max(1)
    replaced = closest > gamma
    mask = replaced.view(-1, *[1] * (targets.ndim - 1))
    return torch.where(mask, candidates[which], targets), replaced
