r"""Energy-based generative adversarial networks (EBGAN): the critic is an auto-encoder, and its error is an energy.

Zhao, Mathieu & LeCun, ICLR 2017. A generator G turns noise z into samples. A critic gives every input an energy, low where
the data are and high elsewhere; the generator learns to make samples of low energy. In EBGAN the energy is the error of an
auto-encoder, a Euclidean norm per sample,

$$D(x) = \lVert \mathrm{Dec}(\mathrm{Enc}(x)) - x \rVert,$$

and the two play, with a margin m > 0 and $[\cdot]^+ = \max(0, \cdot)$,

$$\mathcal{L}_D = D(x) + [m - D(G(z))]^+, \qquad \mathcal{L}_G = D(G(z)).$$

The hinge stops caring about a sample whose energy has reached m: without it the critic could win by raising the energy of
samples for ever. At equilibrium $p_G = p_{\text{data}}$, and the critic's loss is m.

Nothing in $\mathcal{L}_G$ asks for variety within a batch. EBGAN-PT adds `pull_away`, which wants the codes of a batch to be
orthogonal. With `objective="gan"` the critic is the classifier of Goodfellow et al. 2014 instead, everything else alike
(`clteach.learners.gan`, where the rounds of the game are).

As a continual learner (`EBGAN`) both players are told the task, and from the second task on a copy of the generator from
before the task knows the past, which can be kept in two ways. With `past="replay"` its samples stand in for the data of the
past, so that the critic sees past and present alike. With `past="alignment"` (Wu et al. 2018, who square the distance) the
game is about the current task alone, and for past tasks the generator shall make of the same noise what the copy makes:

$$\mathcal{L}_G' = \tfrac1n\, \mathcal{L}_G + \big(1 - \tfrac1n\big)\, \lVert G(z, t) - G_{\text{old}}(z, t) \rVert.$$

A copy of a sample is then off by a little; a copy of a distribution, which is all that replay asks for, may lose modes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.data.tasks import Batch, Data, Spec
from clteach.errors import ConfigError
from clteach.learners.gan import (
    GAN,
    GANConfig,
    Past,
    Round,
    cooled,
    critic_terms,
    generator_terms,
    optimizers,
    update,
    with_condition,
)
from clteach.learners.generator import PureGenerator
from clteach.learners.learner import Losses, Noise, Phase
from clteach.learners.optim import constant
from clteach.models.frozen import frozen_copy, refresh
from clteach.models.nets import mlp
from clteach.seeding import seeded
from clteach.settings import MOST_UNITS, within


def energy(x: Tensor, reconstruction: Tensor) -> Tensor:
    """(B,) the energy of inputs x (B, *shape) whose reconstructions are (B, P), in the units of x; ≥ 0.

    Both sides carry the gradient: a generator is told where to move its sample and where the reconstruction will follow.
    """
    # D(x) = ‖Dec(Enc(x)) - x‖
    return torch.linalg.vector_norm(reconstruction - x.flatten(1), dim=1)


def hinge(fake: Tensor, margin: float | Tensor) -> Tensor:
    """(B,) what the critic still has to gain on each sample: 0 for those with energies `fake` (B,) of at least `margin`."""
    # [m - D(G(z))]⁺, for each sample by itself: a batch whose mean energy is m may still hold samples of low energy
    return (margin - fake).clamp_min(0)


def pull_away(codes: Tensor) -> Tensor:
    """() the mean squared cosine between different codes of a batch (B, d), in [0, 1]; 0 for a batch of one.

    It is 1 when all codes lie on one line and 0 when they are orthogonal. A code of length 0 has cosine 0 with all others.
    """
    n = len(codes)
    unit = codes / torch.linalg.vector_norm(codes, dim=1, keepdim=True).clamp_min(1e-8)
    # f_PT(S) = 1 / (N (N - 1)) Σ_i Σ_{j≠i} (S_iᵀ S_j / (‖S_i‖ ‖S_j‖))²
    squares = (unit @ unit.T).square()
    return (squares.sum() - squares.diagonal().sum()) / max(n * (n - 1), 1)


class EnergyGAN(GAN):
    """A generator and a critic that is an auto-encoder: EBGAN, and EBGAN-PT where `cfg.pull_away` > 0."""

    def make_critic(self, n_in: int) -> nn.Module:
        cfg = self.cfg
        decoder = mlp((cfg.code,), cfg.decoder_hidden, math.prod(self.shape))
        return nn.ModuleDict({"encoder": mlp((n_in,), cfg.critic_hidden, cfg.code), "decoder": decoder})

    def margin_at(self, progress: float | Tensor) -> float | Tensor:
        """The margin m at a progress in [0, 1) of the training, or of the task."""
        cfg = self.cfg
        start = 10 * math.sqrt(math.prod(self.shape) / 784) if cfg.margin is None else cfg.margin
        # m(s) = m_0 + (m_1 - m_0) s / S
        return start if cfg.margin_end is None else start + (cfg.margin_end - start) * progress

    def encode(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Inputs (B, *shape) -> codes (B, code)."""
        return self.critic["encoder"](with_condition(x, c))  # type: ignore[index]

    def decode(self, code: Tensor) -> Tensor:
        """Codes (B, code) -> reconstructions (B, P)."""
        return self.critic["decoder"](code)  # type: ignore[index]

    def energy(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        return energy(x, self.decode(self.encode(x, c)))

    def critic_losses(
        self, x: Tensor, n: int, margin: float | Tensor, c: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        real, generated = self.energy(x, c).tensor_split([n])
        # L_D = D(x) + [m - D(G(z))]⁺
        return real, hinge(generated, margin)

    def generator_losses(self, fake: Tensor, c: Tensor | None = None) -> Losses:
        codes = self.encode(fake, c)
        # L_G = D(G(z)) + λ f_PT(Enc(G(z)))
        losses = {"generator": energy(fake, self.decode(codes)).mean()}
        if self.cfg.pull_away:
            losses["pull-away"] = self.cfg.pull_away * pull_away(codes)
        return losses


def make_gan(shape: Sequence[int], cfg: EBGAN.Config, seed: int = 0, bounded: bool = True, n_condition: int = 0) -> GAN:
    """The pair that `cfg.objective` names, with initial weights from `seed`; arguments as for `GAN`."""
    with seeded(seed, "gan"):
        return (EnergyGAN if cfg.objective == "ebgan" else GAN)(shape, cfg, bounded, n_condition)


class EBGAN(PureGenerator):
    """Energy-based GAN (Zhao et al. 2017) that learns task after task by replaying itself."""

    name = "ebgan"
    summary = "a generator against an auto-encoder's energy, replaying itself (Zhao 2017)"

    @dataclass(frozen=True)
    class Config(GANConfig):
        """EBGAN's settings."""

        objective: Literal["ebgan", "gan"] = "ebgan"
        """the critic: an auto-encoder's energy (ebgan) or a classifier (gan)"""
        past: Literal["replay", "alignment"] = "replay"
        """how past tasks are kept: their samples play as data (replay), or the same noise must make the same (alignment)"""
        margin: float | None = None
        """energy m up to which the critic pushes generated samples, in the units of the data (ebgan); None: 10 √(P / 784)
        for P numbers per sample, the paper's 10 on MNIST"""
        margin_end: float | None = None
        """margin at the end of every task, reached in a straight line; None: it stays"""
        cooling: bool = False
        """in the second half of every task let the learning rates fall to 0: players that keep chasing never come to rest"""
        pull_away: float = 0.1
        """weight of the pull-away term; 0: plain EBGAN"""
        decoder_hidden: tuple[int, ...] = ()
        """units of the decoder's hidden layers; none: one linear layer, as in the paper"""
        code: int = 32
        """dimensions of the auto-encoder's code"""

        def __post_init__(self) -> None:
            super().__post_init__()
            negative = any(m is not None and m < 0 for m in (self.margin, self.margin_end))
            if self.margin == 0 or negative or self.pull_away < 0:
                raise ConfigError(
                    f"ebgan: margin={self.margin}, margin_end={self.margin_end}, pull_away={self.pull_away}: expected a "
                    "margin > 0 that ends at 0 or more, and a weight of the pull-away term of 0 or more."
                )
            within("ebgan", 1, MOST_UNITS, z=self.z, code=self.code)

    steps_done: Tensor  # () steps of this task; on the device, so that a step need not wait for it

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        self.gan = make_gan(spec.shape, self.cfg, seed, n_condition=spec.n_tasks)
        self.opts = optimizers(self.gan)
        self.old = frozen_copy(self.gan)  # as it was before the current task
        self.register_buffer("steps_done", torch.zeros(()))

    def phases(self, t: int, steps: int) -> list[Phase]:
        scale = cooled if self.cfg.cooling else constant
        return [Phase("train", steps, scale, self.cfg.fresh_optimizer)]

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        refresh(self.old, self.gan)
        self.steps_done.zero_()

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        n_replay = 0 if self.t == 0 else n
        first = self.t if self.cfg.past == "alignment" else 0  # of the tasks that the game is about
        return {
            "z": torch.randn(n, self.cfg.z, generator=rng, device=rng.device),
            "tasks": torch.randint(first, self.t + 1, (n,), generator=rng, device=rng.device),
            "z_old": torch.randn(n_replay, self.cfg.z, generator=rng, device=rng.device),  # what is replayed
        }

    def task_one_hot(self, tasks: Tensor) -> Tensor:
        """(B, n_tasks) what the players know of samples of tasks (B,): the task, one-hot."""
        return F.one_hot(tasks, self.spec.n_tasks).to(torch.float32)

    def round(self, batch: Batch, noise: Noise) -> Round:
        """This step's round: the batch, and from the second task on what the generator from before the task makes."""
        x, tasks, z_old = batch.x, batch.task, noise["z_old"]
        weight = x.new_full((len(x),), 1 / len(x))
        past = None
        if len(z_old):
            earlier = torch.arange(len(z_old), device=x.device) % self.t  # an equal share of every past task
            condition = self.task_one_hot(earlier)
            with torch.no_grad():
                made = self.old.sample(z_old, condition)
            # Of n tasks seen each counts 1/n
            share = 1 / (self.t + 1)
            if self.cfg.past == "alignment":
                past = Past(z_old, condition, made, 1 - share)
            else:
                x, tasks = torch.cat([x, made]), torch.cat([tasks, earlier])
                weight = torch.cat([share * weight, x.new_full((len(made),), (1 - share) / len(made))])
        margin = self.gan.margin_at(self.steps_done / self.phase.steps if self.phase and self.phase.steps else 0.0)
        return Round(x, weight, noise["z"], margin, self.task_one_hot(tasks), self.task_one_hot(noise["tasks"]), past)

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        """The terms of both players as they are now. Nobody descends their sum: `step` lets the players take turns."""
        now = self.round(batch, noise)
        fake = self.gan.sample(now.z, now.c_fake)
        return {**critic_terms(self.gan, now, fake), **generator_terms(self.gan, now, fake)}

    def step(self, batch: Batch, noise: Noise) -> Losses:
        losses = update(self.gan, self.opts, self.round(batch, noise))
        self.steps_done += 1
        return losses

    def dream(self, tasks: Tensor, rng: torch.Generator) -> Tensor:
        z = torch.randn(len(tasks), self.cfg.z, generator=rng, device=rng.device)
        return self.gan.sample(z, self.task_one_hot(tasks))
