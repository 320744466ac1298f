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
orthogonal. With `objective="gan"` the critic is the classifier of Goodfellow et al. 2014 instead, everything else alike.

As a continual learner (`EBGAN`) both players are told the task, and the generator replays itself: from the second task
on, a copy of it from before the task stands in for the data of the past, so that the critic sees past and present alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from clteach import learner
from clteach.errors import ConfigError
from clteach.learner import Losses, Noise, Phase, PureGenerator, adam, constant, frozen_copy, refresh, total
from clteach.nets import mlp
from clteach.seeding import generator, seeded
from clteach.streams import Batch, Data, Spec

OBJECTIVES = ("ebgan", "gan")


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


def told(x: Tensor, c: Tensor | None) -> Tensor:
    """(B, P + C) flat inputs x (B, *shape) and what is known of each, c (B, C); None: nothing."""
    return x.flatten(1) if c is None else torch.cat([x.flatten(1), c], 1)


class GAN(nn.Module):
    """A generator and a critic that is a classifier (Goodfellow et al. 2014): the baseline, and the base of `EnergyGAN`.

    Both players may be told something of each sample, a condition c (B, C): here the task, one-hot.

    Args:
        shape: shape of one sample, P = prod(shape) values.
        cfg: an `EBGAN.Config`.
        bounded: are the values in [0, 1] (images), or any numbers (points of the plane)?
        told: numbers C in the condition; 0: none.
    """

    def __init__(self, shape: Sequence[int], cfg: EBGAN.Config, bounded: bool = True, told: int = 0) -> None:
        super().__init__()
        self.shape, self.cfg, self.bounded = tuple(shape), cfg, bounded
        self.generator = mlp((cfg.z + told,), cfg.hidden, math.prod(shape))
        self.critic = self.make_critic(math.prod(shape) + told)

    def margin_at(self, progress: float | Tensor) -> float | Tensor:
        """The margin m at a progress in [0, 1) of the training, or of the task."""
        cfg = self.cfg
        start = 10 * math.sqrt(math.prod(self.shape) / 784) if cfg.margin is None else cfg.margin
        # m(s) = m_0 + (m_1 - m_0) s / S
        return start if cfg.margin_end is None else start + (cfg.margin_end - start) * progress

    def make_critic(self, n_in: int) -> nn.Module:
        """The critic: here one logit, positive for "real"."""
        return mlp((n_in,), self.cfg.critic_hidden, 1)

    def sample(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Noise (B, z) from N(0, I) -> samples (B, *shape)."""
        x = self.generator(told(z, c))
        return (x.sigmoid() if self.bounded else x).view(-1, *self.shape)

    def energy(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(B,) the energy of x (B, *shape): for a classifier the surprise -log p(real | x), in nats."""
        return F.softplus(-self.critic(told(x, c)).squeeze(1))

    def critic_losses(
        self, x: Tensor, n: int, margin: float | Tensor, c: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(n,) and (B - n,) the critic's loss on each of x (B, *shape): n real samples, then generated ones."""
        real, generated = self.critic(told(x, c)).squeeze(1).tensor_split([n])
        # L_D = -log D(x) - log(1 - D(G(z))), with D the sigmoid of the logit
        return F.softplus(-real), F.softplus(generated)

    def generator_losses(self, fake: Tensor, c: Tensor | None = None) -> Losses:
        """The generator's loss terms, scalars, on samples `fake` (B, *shape) that carry its gradient."""
        # L_G = -log D(G(z)), which unlike log(1 - D(G(z))) has a gradient where the critic is sure
        return {"generator": self.energy(fake, c).mean()}


class EnergyGAN(GAN):
    """A generator and a critic that is an auto-encoder: EBGAN, and EBGAN-PT where `cfg.pull_away` > 0."""

    def make_critic(self, n_in: int) -> nn.Module:
        cfg = self.cfg
        decoder = mlp((cfg.code,), cfg.decoder_hidden, math.prod(self.shape))
        return nn.ModuleDict({"encoder": mlp((n_in,), cfg.critic_hidden, cfg.code), "decoder": decoder})

    def encode(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Inputs (B, *shape) -> codes (B, code)."""
        return self.critic["encoder"](told(x, c))  # type: ignore[index]

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


def make_gan(shape: Sequence[int], cfg: EBGAN.Config, seed: int = 0, bounded: bool = True, told: int = 0) -> GAN:
    """The pair that `cfg.objective` names, with initial weights from `seed`; arguments as for `GAN`."""
    with seeded(seed, "gan"):
        return (EnergyGAN if cfg.objective == "ebgan" else GAN)(shape, cfg, bounded, told)


def optimizers(gan: GAN) -> dict[str, Optimizer]:
    """One Adam for each of the two players."""
    cfg = gan.cfg
    return {
        "critic": adam(gan.critic.parameters(), cfg.critic_lr or cfg.lr, betas=(cfg.beta1, 0.999)),
        "generator": adam(gan.generator.parameters(), cfg.lr, betas=(cfg.beta1, 0.999)),
    }


class Round(NamedTuple):
    """What one round of the game is about: real samples and their weights, which sum to 1, noise, conditions, margin."""

    x: Tensor  # (B, *shape)
    weight: Tensor  # (B,)
    z: Tensor  # (B', z)
    margin: float | Tensor
    c: Tensor | None = None  # (B, C)
    c_fake: Tensor | None = None  # (B', C)


def critic_terms(gan: GAN, now: Round, fake: Tensor) -> Losses:
    """The critic's loss terms, scalars, with generated samples `fake` (B', *shape)."""
    c = None if now.c is None or now.c_fake is None else torch.cat([now.c, now.c_fake])
    # Real and generated samples go through the critic together: one large matrix product instead of two.
    real, generated = gan.critic_losses(torch.cat([now.x, fake.detach()]), len(now.x), now.margin, c)
    return {"real": now.weight @ real, "fake": generated.mean()}


def update(gan: GAN, opts: dict[str, Optimizer], now: Round) -> Losses:
    """One step of the critic, then one of the generator against the new critic; returns all terms, detached."""
    fake = gan.sample(now.z, now.c_fake)  # once for both: the generator does not change in between
    critic = critic_terms(gan, now, fake)
    _descend(critic, opts["critic"], gan.critic)
    generated = gan.generator_losses(fake, now.c_fake)
    _descend(generated, opts["generator"], gan.generator)
    return {name: value.detach() for name, value in {**critic, **generated}.items()}


def _descend(losses: Losses, opt: Optimizer, player: nn.Module) -> None:
    opt.zero_grad(set_to_none=True)
    total(losses).backward(inputs=list(player.parameters()))  # the other player gets no gradient, and none is computed
    opt.step()


def fit(
    gan: GAN,
    x: Tensor,
    steps: int,
    batch_size: int = 128,
    seed: int = 0,
    lr_scale: Callable[[float], float] = constant,
    watch: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Train a pair on samples x (N, *shape), all at hand at once; `clteach.train` does it task by task.

    Args:
        gan: the pair, see `make_gan`; it is trained in place.
        x: the data.
        steps: updates of each player.
        batch_size: real samples, and as many generated ones, per step.
        seed: seed of batches and noise.
        lr_scale: both learning rates are multiplied by this function of the progress in [0, 1).
        watch: called with the number of steps done, before the first step and after each.

    Returns:
        The loss terms, averaged over each hundredth of the steps.
    """
    opts, rng, rows = optimizers(gan), generator(seed, "fit", device=x.device), []
    sums: dict[str, Tensor | float] = {}
    weight, window = torch.full((batch_size,), 1 / batch_size, device=x.device), math.ceil(steps / 100)
    for step in range(steps):
        if watch is not None:
            watch(step)
        for group in (group for opt in opts.values() for group in opt.param_groups):
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * lr_scale(step / steps)
        batch = x[torch.randint(len(x), (batch_size,), generator=rng, device=x.device)]
        z = torch.randn(batch_size, gan.cfg.z, generator=rng, device=x.device)
        losses = update(gan, opts, Round(batch, weight, z, gan.margin_at(step / steps)))
        sums = {name: sums.get(name, 0.0) + value / window for name, value in losses.items()}
        if (step + 1) % window == 0:
            rows.append({name: float(value) for name, value in sums.items()})
            sums = {}
    if watch is not None:
        watch(steps)
    return rows


class EBGAN(PureGenerator):
    """Energy-based GAN (Zhao et al. 2017) that learns task after task by replaying itself."""

    name = "ebgan"
    summary = "a generator against an auto-encoder's energy, replaying itself (Zhao 2017)"

    @dataclass(frozen=True)
    class Config(learner.GeneratorConfig):
        """EBGAN's settings."""

        objective: Literal["ebgan", "gan"] = "ebgan"
        """the critic: an auto-encoder's energy (ebgan) or a classifier (gan)"""
        margin: float | None = None
        """energy m up to which the critic pushes generated samples, in the units of the data (ebgan); None: 10 √(P / 784)
        for P numbers per sample, the paper's 10 on MNIST"""
        margin_end: float | None = None
        """margin at the end of every task, reached in a straight line; None: it stays"""
        pull_away: float = 0.1
        """weight of the pull-away term; 0: plain EBGAN"""
        z: int = 50
        """dimensions of the generator's noise"""
        critic_hidden: tuple[int, ...] = (256,)
        """units of the hidden layers of the critic: the classifier's or the encoder's"""
        decoder_hidden: tuple[int, ...] = ()
        """units of the decoder's hidden layers; none: one linear layer, as in the paper"""
        code: int = 32
        """dimensions of the auto-encoder's code"""
        critic_lr: float | None = None
        """Adam's learning rate for the critic; None: as for the generator"""
        beta1: float = 0.5
        """Adam's decay of the mean gradient: two players chase each other, so an old gradient misleads"""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.objective not in OBJECTIVES:
                raise ConfigError(f"ebgan: objective={self.objective!r}: expected {' or '.join(OBJECTIVES)}.")
            negative = any(m is not None and m < 0 for m in (self.margin, self.margin_end))
            if self.margin == 0 or negative or self.pull_away < 0 or self.z < 1 or self.code < 1:
                raise ConfigError(
                    f"ebgan: margin={self.margin}, margin_end={self.margin_end}, pull_away={self.pull_away}, z={self.z}, "
                    f"code={self.code}: expected a margin > 0 that ends at 0 or more, a weight of the pull-away term of 0 "
                    "or more, and at least one dimension of noise and code."
                )

    steps_done: Tensor  # () steps of this task; on the device, so that a step need not wait for it

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        self.gan = make_gan(spec.shape, self.cfg, seed, told=spec.n_tasks)
        self.opts = optimizers(self.gan)
        self.old = frozen_copy(self.gan)  # as it was before the current task
        self.register_buffer("steps_done", torch.zeros(()))

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        refresh(self.old, self.gan)
        self.steps_done.zero_()

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        n_replay = 0 if self.t == 0 else n
        return {
            "z": torch.randn(n, self.cfg.z, generator=rng, device=rng.device),
            "tasks": torch.randint(self.t + 1, (n,), generator=rng, device=rng.device),
            "z_old": torch.randn(n_replay, self.cfg.z, generator=rng, device=rng.device),  # what is replayed
        }

    def told(self, tasks: Tensor) -> Tensor:
        """(B, n_tasks) what the players know of samples of tasks (B,): the task, one-hot."""
        return F.one_hot(tasks, self.spec.n_tasks).to(torch.float32)

    def round(self, batch: Batch, noise: Noise) -> Round:
        """This step's round: what the critic takes for real is the batch and, from the second task on, replayed samples."""
        x, tasks, n, n_replay = batch.x, batch.task, len(batch.x), len(noise["z_old"])
        weight = x.new_full((n,), 1 / n)
        if n_replay:
            past = torch.arange(n_replay, device=x.device) % self.t  # an equal share of every past task
            with torch.no_grad():
                x = torch.cat([x, self.old.sample(noise["z_old"], self.told(past))])
            tasks = torch.cat([tasks, past])
            # Of n tasks seen each counts 1/n
            share = 1 / (self.t + 1)
            weight = torch.cat([share * weight, x.new_full((n_replay,), (1 - share) / n_replay)])
        margin = self.gan.margin_at(self.steps_done / self.phase.steps if self.phase and self.phase.steps else 0.0)
        return Round(x, weight, noise["z"], margin, self.told(tasks), self.told(noise["tasks"]))

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        """The terms of both players as they are now. Nobody descends their sum: `step` lets the players take turns."""
        now = self.round(batch, noise)
        fake = self.gan.sample(now.z, now.c_fake)
        return {**critic_terms(self.gan, now, fake), **self.gan.generator_losses(fake, now.c_fake)}

    def step(self, batch: Batch, noise: Noise) -> Losses:
        losses = update(self.gan, self.opts, self.round(batch, noise))
        self.steps_done += 1
        return losses

    def dream(self, tasks: Tensor, rng: torch.Generator) -> Tensor:
        z = torch.randn(len(tasks), self.cfg.z, generator=rng, device=rng.device)
        return self.gan.sample(z, self.told(tasks))
