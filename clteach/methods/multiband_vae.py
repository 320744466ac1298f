r"""Multiband VAE: every task learns in a latent band of its own, and a translator brings the bands into one space.

Deja, Wawrzyński, Masarczyk, Marczak & Trzciński 2022. A hard partition of the latent space keeps tasks apart but shares
nothing between them. Multiband VAE keeps the first half of the idea and mends the second, in two phases per task t.

**Local.** A VAE learns the new task alone, starting from what is there. Its latent has a real part z ~ N(0, I) and a binary
part b ∈ {-1, 1}, sampled by a Gumbel-softmax (for two classes: a logistic) whose temperature τ falls to almost 0,

$$b = 2\,\sigma\big((\ell(x) + g) / \tau\big) - 1, \qquad g \sim \text{Logistic}(0, 1), \qquad
\mathcal{L}_{\text{local}} = -\log p(x|z, b, t) + \mathrm{KL}\big(q(z|x) \,\|\, \mathcal{N}(0, I)\big).$$

There is no KL on the bits; instead their frequencies are kept for every task, to sample from: each bit by itself as in the
paper, or (`joint_bits`, ours) all bits of a sample together. Now the task has its own band: its own conditional latent space
(z, b, t), which says nothing about the other bands.

**Global.** The *translator* maps (z, b, t) into one common space, λ = f(z, b, t), and the decoder draws the image from λ
without knowing the task. Both are trained on real images x of task t, through the local encoder, and on dreams of the frozen
decoder from before, so that old bands keep their pictures and similar pictures of different bands may meet:

$$\mathcal{L}_{\text{global}} = -\log p\big(x \,|\, f(z, b, t)\big)
- \log p\big(\tilde x \,|\, f(\tilde z, \tilde b, t')\big), \qquad \tilde x = \text{old}(\tilde z, \tilde b, t'),\; t' < t.$$

**Controlled forgetting.** Where a dream's λ is closer (cosine similarity > γ) to that of a real new image than γ allows, the
old picture is not worth keeping: the real image takes its place as the target. So old bands can improve as new data come.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clteach.data.tasks import Batch, Data, Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Losses, Noise, Phase
from clteach.learners.optim import adam
from clteach.methods.vae_generators import EPOCHS, VAELearner
from clteach.models.frozen import frozen_copy, refresh
from clteach.models.multiband import BitPrior, Decoder, controlled_forgetting
from clteach.models.nets import mlp
from clteach.models.vae import bernoulli_nll, binary_sample, kl_standard_normal, reparameterise
from clteach.seeding import seeded
from clteach.settings import MOST_SAMPLES, MOST_UNITS, within

LOCAL, WARM_UP, TRANSLATOR = 70 / EPOCHS, 7 / EPOCHS, 5 / EPOCHS
"""Shares of a task's steps from task 2 on: the local phase with its warm-up, and the translator's own start after it."""


class MultibandVAE(VAELearner):
    """Multiband VAE (Deja et al. 2022)."""

    name = "multiband-vae"
    summary = "a latent band per task, aligned by a translator (Deja 2022)"

    @dataclass(frozen=True)
    class Config(VAELearner.Config):
        """Multiband VAE's settings."""

        z: int = 8
        """real latent dimensions"""
        bits: int = 4
        """binary latent dimensions"""
        joint_bits: bool = False
        """sample the bits together, by how often their pattern occurs in the task; the paper: each bit by itself"""
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
            within("multiband-vae", 1, MOST_UNITS, bits=self.bits, translated=self.translated)
            within("multiband-vae", 1, MOST_SAMPLES, candidates=self.candidates)
            within("multiband-vae", -1, 1, gamma=self.gamma)
            if self.joint_bits and self.bits > 10:
                raise ConfigError(
                    f"multiband-vae: joint_bits with bits={self.bits} keeps 2^{self.bits} patterns per task; "
                    "expected at most 10 bits. Take fewer, or joint_bits=False."
                )

    done: Tensor  # () steps done in the current phase, on which the temperature depends
    real_x: Tensor  # (C, *shape) real images that may replace replayed ones, and their latents
    real_z: Tensor  # (C, z)
    real_b: Tensor  # (C, bits)

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        cfg = self.cfg
        with seeded(seed, "vae"):
            # Mean, log-variance and the bits' log-odds in one output layer: one matrix product instead of three.
            self.encoder = mlp(spec.shape, cfg.hidden, 2 * cfg.z + cfg.bits, nn.LeakyReLU)
            self.decoder = Decoder(
                math.prod(spec.shape), spec.n_tasks, cfg.z, cfg.bits, cfg.translated, cfg.decoder_hidden
            )
        self.local_decoder = copy.deepcopy(self.decoder)
        self.old_decoder = frozen_copy(self.decoder)
        self.opts["local"] = self.adam(self.encoder, self.local_decoder)
        self.opts["global"] = adam(self.decoder.parameters(), cfg.lr)  # weight decay is for the local phase alone
        self.register_buffer("done", torch.zeros(()))
        self.bit_prior = BitPrior(spec.n_tasks, cfg.bits, cfg.joint_bits)
        c = cfg.candidates if cfg.gamma < 1 else 0
        for name, shape in (("real_x", spec.shape), ("real_z", (cfg.z,)), ("real_b", (cfg.bits,))):
            self.register_buffer(name, torch.zeros(c, *shape))

    # --- the schedule ---

    def phases(self, t: int, steps: int) -> list[Phase]:
        """The paper's 210 epochs: all local in task 1, then 7 (at a tenth of the rate) + 63 local, 5 + 135 global."""
        if t == 0:
            return [self.decaying("local", steps, steps)]
        warm_up, local, translator = (round(share * steps) for share in (WARM_UP, LOCAL, TRANSLATOR))
        return [
            self.decaying("local-encoder", warm_up, steps, 0.1),
            self.decaying("local", local - warm_up, steps),
            self.decaying("translator", translator, steps),
            self.decaying("global", steps - local - translator, steps),
        ]

    def enter(self, t: int, phase: Phase) -> None:
        super().enter(t, phase)
        # Adam passes over a parameter without a gradient.
        for frozen in (self.encoder, self.local_decoder, self.decoder):
            frozen.requires_grad_(False)
        learning: dict[str, list[nn.Module]] = {
            "local-encoder": [self.encoder],
            "translator": self.decoder.translator(),
            "global": [self.decoder],
        }
        for network in learning.get(phase.name, [self.encoder, self.local_decoder]):
            network.requires_grad_(True)

    @torch.no_grad()
    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        self.done.zero_()
        if phase.name == "local-encoder":
            refresh(self.local_decoder, self.decoder)
        if phase.name == "translator":
            refresh(self.old_decoder, self.decoder)
            # The local encoder no longer learns, so the candidates are chosen and encoded once.
            order = torch.randperm(len(data), generator=rng, device=rng.device)
            batch = data.batch(order.repeat(math.ceil(len(self.real_x) / len(order)))[: len(self.real_x)])
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

    def clip_grad_(self) -> None:
        if self.phase is not None and self.phase.name.startswith("local"):
            super().clip_grad_()

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
        # As in the paper: half a batch of replayed samples for every past task, at most one and a half
        replayed = int(n * min(self.t, 3) * 0.5)
        return {**self.encoder_noise(n, rng), **self.prior_noise(replayed, rng)}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        return self.global_loss(batch, noise) if "z" in noise else self.local_loss(batch, noise)

    def local_loss(self, batch: Batch, noise: Noise) -> Losses:
        """The new task alone: reconstruction and KL, in nats per image."""
        mean, logvar, bits = self.encode(batch.x)
        z, b = reparameterise(mean, logvar, noise["eps"]), binary_sample(bits, noise["g"], noise["temperature"])
        logits = self.local_decoder(z, b, batch.task)
        # L_local = -log p(x|z, b, t) + KL(q(z|x) ‖ N(0, I))
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
        # L_global = -log p(x | f(z, b, t)) - log p(x̃ | f(z̃, b̃, t')), every image counts alike
        nll = bernoulli_nll(self.decoder.decode(latents), torch.cat([batch.x, dreams])) / (n + r)
        return {"current": nll[:n].sum(), "replay": nll[n:].sum()}

    def step(self, batch: Batch, noise: Noise) -> Losses:
        losses = super().step(batch, noise)
        self.done += 1
        return losses

    @torch.no_grad()
    def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
        if t == 0:  # nothing to align with: the local decoder is the global one
            refresh(self.decoder, self.local_decoder)
        self.bit_prior.learn(t, torch.cat([self.encode(batch.x)[2] for batch in data.batches()]))

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
        return noise["z"], self.bit_prior.sample(noise["u"], task)

    def dream(self, tasks: Tensor, rng: torch.Generator) -> Tensor:
        z, b = self.prior(self.prior_noise(len(tasks), rng), tasks)
        return self.decoder(z, b, tasks).sigmoid().view(-1, *self.spec.shape)
