r"""Variational auto-encoders that learn tasks one after the other: the rivals of Multiband VAE, and the hard partition.

All are one VAE with a Gaussian latent, trained on the negative ELBO per image,

$$\mathcal{L}(x) = -\log p(x|z, t) + \mathrm{KL}\big(q(z|x, t) \,\|\, \mathcal{N}(0, I)\big), \qquad z \sim q(z|x, t),$$

whose decoder is told the task t, so that each task can be asked for, and its encoder too (a conditional VAE, Sohn et al.
2015): what the decoder knows anyway, the latent need not say. They differ in what they do about the past:

* **fine-tuned**: nothing. The lower bound.
* **with replay**: a copy of the decoder from before the task dreams as many images as there are real ones, of all past
  tasks alike, and every task counts alike in the loss, the new one $\frac1n$ of n (Shin et al. 2017).
* **joint**: it keeps all data. The usual upper bound, but no strict one: its steps per task serve more and more data.
* **hard partition**: with replay, and every task has a band of latent dimensions of its own. The other bands are held at
  the prior's mean, 0: drawn from the prior, they would all look alike and nothing would tell the decoder whose band it is
  to read. The band says which task it is, so the decoder is not told. What two tasks have in common must be stored twice.

Networks, optimiser and schedule are those of Multiband VAE where they apply (Deja et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Adam

from clteach.data.tasks import Batch, Data, Spec, Stream
from clteach.errors import ConfigError
from clteach.learners.generator import PureGenerator
from clteach.learners.learner import Losses, Noise, Phase
from clteach.learners.optim import adam
from clteach.models.frozen import frozen_copy, refresh
from clteach.models.multiband import task_codes
from clteach.models.nets import mlp
from clteach.models.vae import bernoulli_nll, kl_standard_normal, reparameterise
from clteach.seeding import seeded
from clteach.settings import MOST_UNITS, within

EPOCHS = 210
"""Epochs per task of the paper's schedule: what `decay` counts in, however many steps a task really has."""


def decayed(progress: float, scale: float, decay: float, epochs: float) -> float:
    """scale · decay^epoch, the learning-rate scale at `progress` in [0, 1) of a phase that lasts `epochs`."""
    return scale * decay ** (progress * epochs)


class VAELearner(PureGenerator):
    """Base of all VAEs that generate, Multiband VAE included: settings, schedule, Adam and clipping."""

    @dataclass(frozen=True)
    class Config(PureGenerator.Config):
        """Settings of the VAE generators."""

        hidden: tuple[int, ...] = (512, 128, 64)
        """units of the encoder's hidden layers (LeakyReLU)"""
        decoder_hidden: tuple[int, ...] = (512, 1024)
        """units of the decoder's hidden layers (LeakyReLU)"""
        z: int = 12
        """latent dimensions (of each band, in the hard partition)"""
        decay: float = 0.98
        """factor of the learning rate after every 210th of a task's steps"""
        weight_decay: float = 1e-5
        """Adam's weight decay"""
        clip: float = 4.0
        """largest absolute value of a gradient's entry"""
        fresh_optimizer: bool = True
        """forget Adam's moments at the start of every task"""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("the VAE", 1, MOST_UNITS, z=self.z)
            if not 0 < self.decay <= 1 or self.weight_decay < 0 or not self.clip > 0:
                raise ConfigError(
                    f"decay={self.decay}, weight_decay={self.weight_decay}, clip={self.clip}: expected a decay in (0, 1], "
                    "a weight decay ≥ 0 and a clip > 0."
                )

    def decaying(self, name: str, steps: int, of: int, scale: float = 1.0) -> Phase:
        """A phase of `steps` of the task's steps `of`, its learning-rate scale falling from `scale` epoch by epoch."""
        rate = partial(decayed, scale=scale, decay=self.cfg.decay, epochs=EPOCHS * steps / of)
        return Phase(name, steps, rate, self.cfg.fresh_optimizer)

    def adam(self, *networks: nn.Module) -> Adam:
        """Adam for the parameters of these networks."""
        parameters = [p for network in networks for p in network.parameters()]
        return adam(parameters, self.cfg.lr, weight_decay=self.cfg.weight_decay)

    def clip_grad_(self) -> None:
        nn.utils.clip_grad_value_(self.parameters(), self.cfg.clip)


class VAEGenerator(VAELearner):
    """A VAE that is told the task, in the encoder and in the decoder; base of the rivals, which set `replays`."""

    replays: ClassVar[bool] = False
    codes: Tensor  # (n_tasks, c) what the networks are told of each task

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        self.register_buffer("codes", task_codes(spec.n_tasks))
        self.build(self.cfg.z, seed)

    def build(self, z: int, seed: int) -> None:
        """Make the networks for a latent of z dimensions in all."""
        cfg = self.cfg
        with seeded(seed, "vae"):
            n_pixels, c = math.prod(self.spec.shape), self.codes.shape[1]
            self.encoder = mlp((n_pixels + c,), cfg.hidden, 2 * z, nn.LeakyReLU)
            self.decoder = mlp((z + c,), cfg.decoder_hidden, n_pixels, nn.LeakyReLU)
        self.opts["vae"] = self.adam(self.encoder, self.decoder)
        self.z = z
        self.old_decoder = frozen_copy(self.decoder) if self.replays else None

    def phases(self, t: int, steps: int) -> list[Phase]:
        return [self.decaying("train", steps, steps)]

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        if self.old_decoder is not None:
            refresh(self.old_decoder, self.decoder)

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        r = n if self.replays and self.t > 0 else 0
        return {
            "eps": torch.randn(n + r, self.z, generator=rng, device=rng.device),  # for the encoder
            "z": torch.randn(r, self.z, generator=rng, device=rng.device),  # what is replayed
        }

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        n, r = len(batch.x), len(noise["z"])
        if self.old_decoder is None or r == 0:
            return {"current": self.elbo_loss(batch.x, batch.task, noise["eps"]).mean()}
        past = torch.arange(r, device=batch.x.device) % self.t  # an equal share of every past task
        with torch.no_grad():
            replayed = self.old_decoder(self.with_task(noise["z"], past)).sigmoid().view(r, *self.spec.shape)
        # Real and replayed images go through the networks together: one large matrix product instead of two.
        loss = self.elbo_loss(torch.cat([batch.x, replayed]), torch.cat([batch.task, past]), noise["eps"])
        # L = 1/n L_current + (1 - 1/n) L_replay
        share = 1 / (self.t + 1)
        return {"current": share * loss[:n].mean(), "replay": (1 - share) * loss[n:].mean()}

    def elbo_loss(self, x: Tensor, task: Tensor, eps: Tensor) -> Tensor:
        """(B,) negative ELBO of images x (B, *shape) of tasks (B,), in nats; noise eps (B, z)."""
        mean, logvar = self.encode(x, task)
        logits = self.decoder(self.with_task(reparameterise(mean, logvar, eps), task))
        # L = -log p(x|z, t) + KL(q(z|x, t) ‖ p(z))
        return bernoulli_nll(logits, x) + kl_standard_normal(mean, logvar)

    def encode(self, x: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, *shape) of tasks (B,) -> mean and log-variance of q(z|x, t), each (B, z)."""
        mean, logvar = self.encoder(torch.cat([x.flatten(1), self.codes[task]], 1)).chunk(2, dim=1)
        return mean, logvar

    def with_task(self, z: Tensor, task: Tensor) -> Tensor:
        """What the decoder sees: the latent (B, z) and the task's code, (B, z + c)."""
        return torch.cat([z, self.codes[task]], 1)

    def dream(self, tasks: Tensor, rng: torch.Generator) -> Tensor:
        z = torch.randn(len(tasks), self.z, generator=rng, device=rng.device)
        return self.decoder(self.with_task(z, tasks)).sigmoid().view(-1, *self.spec.shape)


class FinetunedVAE(VAEGenerator):
    """One VAE, trained on each task in turn with nothing against forgetting (lower bound)."""

    name = "vae-finetune"
    summary = "a VAE trained on each task in turn (lower bound)"


class ReplayVAE(VAEGenerator):
    """One VAE that replays its own samples of the past (Shin et al. 2017, without the classifier)."""

    name = "vae-replay"
    summary = "a VAE that learns from its own old samples too (Shin 2017)"
    replays = True


class JointVAE(VAEGenerator):
    """One VAE that trains on all data so far (the usual upper bound)."""

    name = "vae-joint"
    summary = "a VAE trained on the data of all tasks so far (the usual upper bound)"

    def training_data(self, stream: Stream, t: int) -> Data:
        return Data.concat([task.train for task in stream.tasks[: t + 1]])


class LatentPartition(VAEGenerator):
    """A VAE with replay in which every task owns a band of the latent vector, the others held at the prior's mean."""

    name = "latent-partition"
    summary = "a VAE in which every task owns latent dimensions; nothing is shared between them"
    replays = True

    bands: Tensor  # (n_tasks, n_tasks · z), 1 where a dimension belongs to the task

    def build(self, z: int, seed: int) -> None:
        n = self.spec.n_tasks
        self.register_buffer("bands", torch.eye(n).repeat_interleave(z, dim=1))
        self.codes = self.codes[:, :0]  # the band is the code
        super().build(n * z, seed)

    def encode(self, x: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        mean, logvar = super().encode(x, task)
        # Outside the task's band q(z|x, t) is the prior: μ = 0, log σ² = 0, so it adds nothing to the KL divergence.
        return mean * self.bands[task], logvar * self.bands[task]

    def with_task(self, z: Tensor, task: Tensor) -> Tensor:
        # Only the task's band speaks: the others are at the prior's mean.
        return z * self.bands[task]
