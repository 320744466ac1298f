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

As a continual learner (`EBGAN`) the generator replays itself: from the second task on, a frozen copy of it from before the
task stands in for the data of the past, so that the critic sees past and present, each task counting alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach import learner
from clteach.errors import ConfigError
from clteach.learner import Generator, Losses, Noise, Phase, adam, frozen_copy, refresh, total
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


class GAN(nn.Module):
    """A generator and a critic that is a classifier (Goodfellow et al. 2014): the baseline, and the base of `EnergyGAN`.

    Args:
        shape: shape of one sample, P = prod(shape) values.
        cfg: an `EBGAN.Config`.
        bounded: are the values in [0, 1] (images), or any numbers (points of the plane)?
    """

    def __init__(self, shape: Sequence[int], cfg: EBGAN.Config, bounded: bool = True) -> None:
        super().__init__()
        self.shape, self.cfg, self.bounded = tuple(shape), cfg, bounded
        self.generator = mlp((cfg.z,), cfg.hidden, math.prod(shape))
        self.critic = self.make_critic()

    def make_critic(self) -> nn.Module:
        """The critic: here one logit, positive for "real"."""
        return mlp(self.shape, self.cfg.critic_hidden, 1)

    def sample(self, z: Tensor) -> Tensor:
        """Noise (B, z) from N(0, I) -> samples (B, *shape)."""
        x = self.generator(z)
        return (x.sigmoid() if self.bounded else x).view(-1, *self.shape)

    def energy(self, x: Tensor) -> Tensor:
        """(B,) the energy of x (B, *shape): for a classifier the surprise -log p(real | x), in nats."""
        return F.softplus(-self.critic(x).squeeze(1))

    def critic_losses(self, x: Tensor, fake: Tensor, margin: float | Tensor) -> tuple[Tensor, Tensor]:
        """(B,) and (B',) the critic's loss on each real x (B, *shape) and each generated `fake` (B', *shape)."""
        real, generated = self.critic(torch.cat([x, fake])).squeeze(1).split([len(x), len(fake)])
        # L_D = -log D(x) - log(1 - D(G(z))), with D the sigmoid of the logit
        return F.softplus(-real), F.softplus(generated)

    def generator_losses(self, fake: Tensor) -> Losses:
        """The generator's loss terms, scalars, on samples `fake` (B, *shape) that carry its gradient."""
        # L_G = -log D(G(z)), which unlike log(1 - D(G(z))) has a gradient where the critic is sure
        return {"generator": self.energy(fake).mean()}


class EnergyGAN(GAN):
    """A generator and a critic that is an auto-encoder: EBGAN, and EBGAN-PT where `cfg.pull_away` > 0."""

    def make_critic(self) -> nn.Module:
        cfg = self.cfg
        decoder = mlp((cfg.code,), cfg.decoder_hidden, math.prod(self.shape))
        return nn.ModuleDict({"encoder": mlp(self.shape, cfg.critic_hidden, cfg.code), "decoder": decoder})

    def encode(self, x: Tensor) -> Tensor:
        """Inputs (B, *shape) -> codes (B, code)."""
        return self.critic["encoder"](x)  # type: ignore[index]

    def decode(self, code: Tensor) -> Tensor:
        """Codes (B, code) -> reconstructions (B, P)."""
        return self.critic["decoder"](code)  # type: ignore[index]

    def energy(self, x: Tensor) -> Tensor:
        return energy(x, self.decode(self.encode(x)))

    def critic_losses(self, x: Tensor, fake: Tensor, margin: float | Tensor) -> tuple[Tensor, Tensor]:
        real, generated = self.energy(torch.cat([x, fake])).split([len(x), len(fake)])
        # L_D = D(x) + [m - D(G(z))]⁺
        return real, hinge(generated, margin)

    def generator_losses(self, fake: Tensor) -> Losses:
        codes = self.encode(fake)
        # L_G = D(G(z)) + λ f_PT(Enc(G(z)))
        losses = {"generator": energy(fake, self.decode(codes)).mean()}
        if self.cfg.pull_away:
            losses["pull-away"] = self.cfg.pull_away * pull_away(codes)
        return losses


def make_gan(shape: Sequence[int], cfg: EBGAN.Config, seed: int = 0, bounded: bool = True) -> GAN:
    """The pair that `cfg.objective` names, with initial weights from `seed`; arguments as for `GAN`."""
    with seeded(seed, "gan"):
        return (EnergyGAN if cfg.objective == "ebgan" else GAN)(shape, cfg, bounded)


def optimizers(gan: GAN) -> dict[str, torch.optim.Optimizer]:
    """One Adam for each of the two players."""
    cfg = gan.cfg
    return {
        "critic": adam(gan.critic.parameters(), cfg.critic_lr or cfg.lr, betas=(cfg.beta1, 0.999)),
        "generator": adam(gan.generator.parameters(), cfg.lr, betas=(cfg.beta1, 0.999)),
    }


def critic_terms(gan: GAN, x: Tensor, weight: Tensor, fake: Tensor, margin: float | Tensor) -> Losses:
    """The critic's loss terms on real x (B, *shape) with weights (B,) that sum to 1, and on `fake` (B', *shape)."""
    real, generated = gan.critic_losses(x, fake.detach(), margin)
    return {"real": weight @ real, "fake": generated.mean()}


def update(
    gan: GAN, opts: dict[str, torch.optim.Optimizer], x: Tensor, weight: Tensor, z: Tensor, margin: float | Tensor
) -> Losses:
    """One step of the critic, then one of the generator against the new critic; returns all terms, detached."""
    fake = gan.sample(z)  # once for both: the generator does not change in between
    critic = critic_terms(gan, x, weight, fake, margin)
    _descend(critic, opts["critic"], gan.critic)
    generated = gan.generator_losses(fake)
    _descend(generated, opts["generator"], gan.generator)
    return {name: value.detach() for name, value in {**critic, **generated}.items()}


def _descend(losses: Losses, opt: torch.optim.Optimizer, player: nn.Module) -> None:
    opt.zero_grad(set_to_none=True)
    total(losses).backward(inputs=list(player.parameters()))  # the other player gets no gradient, and none is computed
    opt.step()


def fit(
    gan: GAN,
    x: Tensor,
    steps: int,
    batch_size: int = 128,
    seed: int = 0,
    watch: Callable[[int], None] | None = None,
) -> list[dict[str, float]]:
    """Train a pair on samples x (N, *shape), all at hand at once; `train` does it task by task.

    Args:
        gan: the pair, see `make_gan`; it is trained in place.
        x: the data.
        steps: updates of each player.
        batch_size: real samples, and as many generated ones, per step.
        seed: seed of batches and noise.
        watch: called with the number of steps done, before the first step and after each.

    Returns:
        The loss terms, averaged over each hundredth of the steps.
    """
    opts, rng, rows, sums = optimizers(gan), generator(seed, "fit", device=x.device), [], {}
    weight, window = torch.full((batch_size,), 1 / batch_size, device=x.device), math.ceil(steps / 100)
    for step in range(steps):
        if watch is not None:
            watch(step)
        batch = x[torch.randint(len(x), (batch_size,), generator=rng, device=x.device)]
        z = torch.randn(batch_size, gan.cfg.z, generator=rng, device=x.device)
        losses = update(gan, opts, batch, weight, z, gan.cfg.margin_at(step / steps))
        sums = {name: sums.get(name, 0.0) + value / window for name, value in losses.items()}
        if (step + 1) % window == 0:
            rows.append({name: float(value) for name, value in sums.items()})
            sums = {}
    if watch is not None:
        watch(steps)
    return rows


class EBGAN(Generator):
    """Energy-based GAN (Zhao et al. 2017) that learns task after task by replaying itself."""

    name = "ebgan"
    summary = "a generator against an auto-encoder's energy, replaying itself (Zhao 2017)"

    @dataclass(frozen=True)
    class Config(learner.Config):
        """EBGAN's settings."""

        objective: Literal["ebgan", "gan"] = "ebgan"
        """the critic: an auto-encoder's energy (ebgan) or a classifier (gan)"""
        margin: float = 10.0
        """energy m up to which the critic pushes generated samples, in the units of the data; ebgan only"""
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
            margins = self.margin, self.margin if self.margin_end is None else self.margin_end
            if self.objective not in OBJECTIVES:
                raise ConfigError(f"ebgan: objective={self.objective!r}: expected {' or '.join(OBJECTIVES)}.")
            if not self.margin > 0 or min(margins) < 0 or self.pull_away < 0 or self.z < 1 or self.code < 1:
                raise ConfigError(
                    f"ebgan: margin={self.margin}, margin_end={self.margin_end}, pull_away={self.pull_away}, z={self.z}, "
                    f"code={self.code}: expected a margin > 0 that ends at 0 or more, a weight of the pull-away term of 0 "
                    "or more, and at least one dimension of noise and code."
                )

        def margin_at(self, progress: float | Tensor) -> float | Tensor:
            """The margin m at a progress in [0, 1) of the training."""
            # m(s) = m_0 + (m_1 - m_0) s / S
            end = self.margin if self.margin_end is None else self.margin_end
            return self.margin + (end - self.margin) * progress

    steps_done: Tensor  # () steps of this task; on the device, so that a step need not wait for it

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        self.gan = make_gan(spec.shape, self.cfg, seed)
        self.opts = optimizers(self.gan)
        self.old = frozen_copy(self.gan)  # as it was before the current task
        self.register_buffer("steps_done", torch.zeros(()))

    @property
    def margin(self) -> float | Tensor:
        """The margin in this step, on the device."""
        return self.cfg.margin_at(self.steps_done / max(self.phase.steps if self.phase else 0, 1))

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        refresh(self.old, self.gan)
        self.steps_done.zero_()

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        n_replay = 0 if self.t == 0 else n
        return {
            "z": torch.randn(n, self.cfg.z, generator=rng, device=rng.device),
            "z_old": torch.randn(n_replay, self.cfg.z, generator=rng, device=rng.device),  # what is replayed
        }

    def real(self, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
        """What the critic takes for real: the batch and the old generator's samples, (B, *shape), with weights (B,)."""
        n, n_replay = len(batch.x), len(noise["z_old"])
        if n_replay == 0:
            return batch.x, batch.x.new_full((n,), 1 / n)
        with torch.no_grad():
            replayed = self.old.sample(noise["z_old"])
        # Of n tasks seen the present one counts 1/n, as all others do.
        share = 1 / (self.t + 1)
        weight = torch.cat([batch.x.new_full((n,), share / n), batch.x.new_full((n_replay,), (1 - share) / n_replay)])
        return torch.cat([batch.x, replayed]), weight

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        """The terms of both players as they are now. There is no sum to descend: `step` takes turns."""
        x, weight = self.real(batch, noise)
        fake = self.gan.sample(noise["z"])
        return {**critic_terms(self.gan, x, weight, fake, self.margin), **self.gan.generator_losses(fake)}

    def step(self, batch: Batch, noise: Noise) -> Losses:
        losses = update(self.gan, self.opts, *self.real(batch, noise), noise["z"], self.margin)
        self.steps_done += 1
        return losses

    @torch.no_grad()
    def sample(
        self, n: int, rng: torch.Generator, classes: Tensor | None = None, tasks: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) samples in [0, 1] of the generator as it is now.

        Raises:
            ConfigError: classes or tasks are asked for, which this unconditional generator cannot choose.
        """
        if classes is not None or tasks is not None:
            raise ConfigError("ebgan has an unconditional generator: it cannot sample chosen classes or tasks.")
        return self.gan.sample(torch.randn(n, self.cfg.z, generator=rng, device=rng.device))
