r"""Multiband VAE: every task learns in a latent band of its own, and a translator brings the bands into one space.

Deja, Wawrzyński, Masarczyk, Marczak & Trzciński 2022. A hard partition of the latent space keeps tasks apart but shares
nothing between them. Multiband VAE keeps the first half of the idea and mends the second, in two phases per task t.

**Local.** A VAE learns the new task alone, starting from what is there. Its latent has a real part z ~ N(0, I) and a binary
part b ∈ {-1, 1}, sampled by a Gumbel-softmax (for two classes: a logistic) whose temperature τ falls to almost 0,

$$b = 2\,\sigma\big((\ell(x) + g) / \tau\big) - 1, \qquad g \sim \text{Logistic}(0, 1), \qquad
\mathcal{L}_{\text{local}} = -\log p(x|z, b, t) + \mathrm{KL}\big(q(z|x) \,\|\, \mathcal{N}(0, I)\big).$$

There is no KL on the bits; instead their frequencies are kept for every task, to sample from. Now the task has its own band:
its own conditional latent space (z, b, t), which says nothing about the other bands.

**Global.** The *translator* maps (z, b, t) into one common space, λ = f(z, b, t), and the decoder draws the image from λ
without knowing the task. Both are trained on real images x of task t, through the local encoder, and on dreams of the frozen
decoder from before, so that old bands keep their pictures and similar pictures of different bands may meet:

$$\mathcal{L}_{\text{global}} = -\log p\big(x \,|\, f(z, b, t)\big)
- \log p\big(\tilde x \,|\, f(\tilde z, \tilde b, t')\big), \qquad \tilde x = \text{old}(\tilde z, \tilde b, t'),\; t' < t.$$

**Controlled forgetting.** Where a dream's λ is closer (cosine similarity > γ) to that of a real new image than γ allows, the
old picture is not worth keeping: the real image takes its place as the target. So old bands can improve as new data come.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.errors import ConfigError
from clteach.learner import Losses, Noise, Phase, PureGenerator, adam, frozen_copy, refresh
from clteach.methods.vae_generators import EPOCHS, VAEGenerator, decayed, task_codes
from clteach.nets import mlp
from clteach.seeding import seeded
from clteach.streams import Batch, Data, Spec
from clteach.vae import bernoulli_nll, kl_standard_normal, reparameterise

LOCAL, WARM_UP, TRANSLATOR = 70 / EPOCHS, 7 / EPOCHS, 5 / EPOCHS
"""Shares of a task's steps from task 2 on: the local phase with its warm-up, and the translator's own start after it."""


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
        self.task_net = mlp((self.codes.shape[1],), (12,), 8, nn.LeakyReLU)
        self.bit_net = mlp((bits,), (8,), 12, nn.LeakyReLU)
        self.merge = mlp((z + 20,), (128,), translated, nn.LeakyReLU)
        self.decoder = mlp((translated,), hidden, n_pixels, nn.LeakyReLU)

    def translate(self, z: Tensor, b: Tensor, task: Tensor) -> Tensor:
        """Latents z (B, z) and b (B, bits) of tasks (B,) -> λ in the common space (B, translated)."""
        return self.merge(torch.cat([z, self.task_net(self.codes[task]), self.bit_net(b)], 1))

    def translator(self) -> list[nn.Parameter]:
        """The parameters of the translator alone."""
        return [p for net in (self.task_net, self.bit_net, self.merge) for p in net.parameters()]

    def decode(self, latents: Tensor) -> Tensor:
        """λ (B, translated) -> logits (B, P) of the pixels' Bernoulli probabilities."""
        return self.decoder(F.leaky_relu(latents))

    def forward(self, z: Tensor, b: Tensor, task: Tensor) -> Tensor:
        """Latents of tasks (B,) -> logits (B, P)."""
        return self.decode(self.translate(z, b, task))


def binary_sample(logits: Tensor, noise: Tensor, temperature: Tensor, hard_below: float = 0.1) -> Tensor:
    """Bits in [-1, 1] from a Gumbel-softmax over two classes (binary concrete; Jang et al. 2017, Maddison et al. 2017).

    Args:
        logits: (B, b) log-odds of +1.
        noise: (B, b) from Logistic(0, 1), the difference of two Gumbel variables.
        temperature: () τ > 0.
        hard_below: below this temperature the bits are exactly ±1, with the gradient of the soft ones (straight-through).
    """
    # b = 2 σ((l + g) / τ) - 1
    soft = 2 * torch.sigmoid((logits + noise) / temperature) - 1
    hard = torch.where(soft > 0, 1.0, -1.0)
    return torch.where(temperature < hard_below, hard + (soft - soft.detach()), soft)


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
    # sim(λ̃, λ) = λ̃ᵀλ / (‖λ̃‖ ‖λ‖)
    similarity = F.normalize(latents) @ F.normalize(candidate_latents).T  # (R, C)
    closest, which = similarity.max(1)
    replaced = closest > gamma
    mask = replaced.view(-1, *[1] * (targets.ndim - 1))
    return torch.where(mask, candidates[which], targets), replaced


class MultibandVAE(PureGenerator):
    """Multiband VAE (Deja et al. 2022)."""

    name = "multiband-vae"
    summary = "a latent band per task, aligned by a translator (Deja 2022)"

    @dataclass(frozen=True)
    class Config(VAEGenerator.Config):
        """Multiband VAE's settings."""

        z: int = 8
        """real latent dimensions"""
        bits: int = 4
        """binary latent dimensions"""
        translated: int = 256
        """dimensions of the common space"""
        gamma: float = 1.0
        """γ, cosine similarity above which a real image replaces a replayed one; 1: never"""
        candidates: int = 1000
        """real images of the task that may replace replayed ones"""
        fresh_optimizer: bool = True
        """forget Adam's moments at the start of every phase"""

        def __post_init__(self) -> None:
            super().__post_init__()
            if min(self.bits, self.translated, self.candidates) < 1 or not -1 <= self.gamma <= 1:
                raise ConfigError(
                    f"multiband-vae: bits={self.bits}, translated={self.translated}, candidates={self.candidates}, "
                    f"gamma={self.gamma}: expected at least one of each, and γ in [-1, 1]."
                )

    done: Tensor  # () steps done in the current phase: the temperature depends on it
    frequency: Tensor  # (n_tasks, bits) how often each bit is +1 in each task
    real_x: Tensor  # (C, *shape) real images that may replace replayed ones, and their latents
    real_z: Tensor  # (C, z)
    real_b: Tensor  # (C, bits)

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        cfg = self.cfg
        n_pixels = torch.Size(spec.shape).numel()
        with seeded(seed, "vae"):
            # One output layer for mean, log-variance and the bits' log-odds
            self.encoder = mlp(spec.shape, cfg.hidden, 2 * cfg.z + cfg.bits, nn.LeakyReLU)
            self.decoder = Decoder(n_pixels, spec.n_tasks, cfg.z, cfg.bits, cfg.translated, cfg.decoder_hidden)
            self.local_decoder = Decoder(n_pixels, spec.n_tasks, cfg.z, cfg.bits, cfg.translated, cfg.decoder_hidden)
        self.local_decoder.load_state_dict(self.decoder.state_dict())
        self.old_decoder = frozen_copy(self.decoder)
        local = [*self.encoder.parameters(), *self.local_decoder.parameters()]
        self.opts["local"] = adam(local, cfg.lr, weight_decay=cfg.weight_decay)
        self.opts["global"] = adam(self.decoder.parameters(), cfg.lr, weight_decay=cfg.weight_decay)
        self.register_buffer("done", torch.zeros(()))
        self.register_buffer("frequency", torch.full((spec.n_tasks, cfg.bits), 0.5))
        c = cfg.candidates if cfg.gamma < 1 else 0
        for name, shape in (("real_x", spec.shape), ("real_z", (cfg.z,)), ("real_b", (cfg.bits,))):
            self.register_buffer(name, torch.zeros(c, *shape))

    # --- the schedule ---

    def phases(self, t: int, steps: int) -> list[Phase]:
        """The paper's 210 epochs: all local in the first task, then 7 + 63 local and 5 + 135 global."""

        def phase(name: str, n: int, scale: float = 1.0) -> Phase:
            rate = partial(decayed, scale=scale, decay=self.cfg.decay, epochs=EPOCHS * n / steps)
            return Phase(name, n, rate, self.cfg.fresh_optimizer)

        if t == 0:
            return [phase("local", steps)]
        warm_up, translator = round(WARM_UP * steps), round(TRANSLATOR * steps)
        local = round(LOCAL * steps)
        return [
            phase("local-encoder", warm_up, 0.1),
            phase("local", local - warm_up),
            phase("translator", translator),
            phase("global", steps - local - translator),
        ]

    def enter(self, t: int, phase: Phase) -> None:
        super().enter(t, phase)
        learning = {
            "local-encoder": self.encoder.parameters(),
            "translator": self.decoder.translator(),
            "global": self.decoder.parameters(),
        }.get(phase.name, [*self.encoder.parameters(), *self.local_decoder.parameters()])
        for network in (self.encoder, self.local_decoder, self.decoder):
            network.requires_grad_(False)
        for parameter in learning:
            parameter.requires_grad_(True)

    @torch.no_grad()
    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        self.done.zero_()
        if phase.name == "local-encoder":
            refresh(self.local_decoder, self.decoder)
        if phase.name == "translator":
            refresh(self.old_decoder, self.decoder)
            # The local encoder no longer learns, so the candidates are chosen and encoded once.
            order = torch.randperm(len(data), generator=rng, device=rng.device)
            batch = data.batch(order.repeat(-(-len(self.real_x) // len(order)))[: len(self.real_x)])
            z, b = self.latents(batch.x, self.encoder_noise(len(batch.x), rng))
            for buffer, value in ((self.real_x, batch.x), (self.real_z, z), (self.real_b, b)):
                buffer.copy_(value)

    def temperature(self) -> Tensor:
        """() τ of the bits: from 1 to 0.01 in the first fifth of the local phase, then 0.01 until the task ends."""
        assert self.phase is not None
        # Shares of the local phase at which this one begins and ends: the warm-up is its first tenth.
        begin, end = {"local-encoder": (0.0, 0.1), "local": (0.1 if self.t else 0.0, 1.0)}.get(
            self.phase.name, (1.0, 1.0)
        )
        progress = begin + (end - begin) * self.done / max(self.phase.steps, 1)
        # τ = max(1 - 5 · epoch / E, 0.01)
        return (1 - 5 * progress).clamp_min(0.01)

    # --- one step ---

    def encoder_noise(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        """What the encoder's samples of n images need: ε ~ N(0, I), g ~ Logistic(0, 1) and the temperature."""
        uniform = torch.rand(n, self.cfg.bits, generator=rng, device=rng.device)
        return {
            "eps": torch.randn(n, self.cfg.z, generator=rng, device=rng.device),
            "g": torch.logit(uniform, eps=1e-6),
            "temperature": self.temperature(),
        }

    def prior_noise(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        """What n latents drawn from the prior need: z ~ N(0, I), and uniform numbers for the bits."""
        return {
            "z": torch.randn(n, self.cfg.z, generator=rng, device=rng.device),
            "u": torch.rand(n, self.cfg.bits, generator=rng, device=rng.device),
        }

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        assert self.phase is not None
        if self.phase.name not in ("translator", "global"):
            return self.encoder_noise(n, rng)
        # Replayed samples per step: half a batch for every past task, at most one and a half
        replayed = int(n * min(self.t, 3) * 0.5)
        return {**self.encoder_noise(n, rng), **self.prior_noise(replayed, rng)}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        return self.global_loss(batch, noise) if "z" in noise else self.local_loss(batch, noise)

    def local_loss(self, batch: Batch, noise: Noise) -> Losses:
        """The new task alone: reconstruction and KL, in nats per image."""
        mean, logvar, bits = self.encode(batch.x)
        z, b = reparameterise(mean, logvar, noise["eps"]), binary_sample(bits, noise["g"], noise["temperature"])
        logits = self.local_decoder(z, b, batch.task)
        return {
            "reconstruction": bernoulli_nll(logits, batch.x).mean(),
            "kl": kl_standard_normal(mean, logvar).mean(),
        }

    def global_loss(self, batch: Batch, noise: Noise) -> Losses:
        """Real images through the frozen local encoder, and dreams of the frozen old decoder, in nats per image."""
        n, r = len(batch.x), len(noise["z"])
        past = torch.arange(r, device=batch.x.device) % max(self.t, 1)  # an equal share of every past task
        with torch.no_grad():
            z, b = self.latents(batch.x, noise)
            old_z, old_b = self.prior(noise, past)
            dreams = self.old_decoder(old_z, old_b, past).sigmoid().view(r, *self.spec.shape)
        task = torch.cat([batch.task, past])
        latents = self.decoder.translate(torch.cat([z, old_z]), torch.cat([b, old_b]), task)  # λ, (n + r, translated)
        if len(self.real_x) and self.phase is not None and self.phase.name == "global":
            with torch.no_grad():
                here = torch.full((len(self.real_x),), self.t, device=batch.x.device)
                real = self.decoder.translate(self.real_z, self.real_b, here)
                dreams, _ = controlled_forgetting(latents[n:], dreams, real, self.real_x, self.cfg.gamma)
        # -log p(x | f(z, b, t)) - log p(x̃ | f(z̃, b̃, t')), every image counts alike
        nll = bernoulli_nll(self.decoder.decode(latents), torch.cat([batch.x, dreams])) / (n + r)
        return {"current": nll[:n].sum(), "replay": nll[n:].sum()}

    def step(self, batch: Batch, noise: Noise) -> Losses:
        losses = super().step(batch, noise)
        self.done += 1
        return losses

    def clip_grad_(self) -> None:
        nn.utils.clip_grad_value_(self.parameters(), self.cfg.clip)

    @torch.no_grad()
    def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
        if t == 0:  # nothing to align with: the local decoder is the global one
            refresh(self.decoder, self.local_decoder)
        self.frequency[t] = torch.cat([self.encode(batch.x)[2].sigmoid() for batch in data.batches()]).mean(0)

    # --- latents ---

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, *shape) -> mean and log-variance (B, z) of q(z|x), and log-odds (B, bits) that a bit is +1."""
        mean, logvar, bits = self.encoder(x).split([self.cfg.z, self.cfg.z, self.cfg.bits], 1)
        return mean, logvar, bits

    def latents(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Images (B, *shape) -> a sample of their latents, z (B, z) and b (B, bits)."""
        mean, logvar, bits = self.encode(x)
        return reparameterise(mean, logvar, noise["eps"]), binary_sample(bits, noise["g"], noise["temperature"])

    def prior(self, noise: Noise, task: Tensor) -> tuple[Tensor, Tensor]:
        """Latents drawn from the prior of tasks (B,): z (B, z) ~ N(0, I), and ±1 bits as frequent as in the task."""
        return noise["z"], torch.where(noise["u"] < self.frequency[task], 1.0, -1.0)

    def dream(self, tasks: Tensor, rng: torch.Generator) -> Tensor:
        z, b = self.prior(self.prior_noise(len(tasks), rng), tasks)
        return self.decoder(z, b, tasks).sigmoid().view(-1, *self.spec.shape)
