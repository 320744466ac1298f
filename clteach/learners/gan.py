r"""The game of a generative adversarial network (Goodfellow et al. 2014), whatever its critic: players, rounds, training.

A generator G turns noise z into samples. A critic D gives every input an energy, low where it looks real. In every round
the critic moves first, on real and on generated samples; then the generator moves against the new critic. What the two
descend is the critic's business: here a classifier, in `clteach.methods.ebgan` an auto-encoder. `fit` plays the game on data
that are all at hand, for pictures and studies; a learner plays it task by task with `update`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from clteach.errors import ConfigError, DivergedError
from clteach.learners.generator import PureGenerator
from clteach.learners.learner import Losses, total
from clteach.learners.optim import adam, constant
from clteach.models.nets import mlp
from clteach.seeding import generator


@dataclass(frozen=True)
class GANConfig(PureGenerator.Config):
    """Settings of the game; `hidden` are the generator's layers."""

    z: int = 50
    """dimensions of the generator's noise"""
    critic_hidden: tuple[int, ...] = (256,)
    """units of the hidden layers of the critic: the classifier's or the encoder's"""
    critic_lr: float | None = None
    """Adam's learning rate for the critic; None: as for the generator"""
    beta1: float = 0.5
    """Adam's decay of the mean gradient: two players chase each other, so an old gradient misleads"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.critic_lr is None or self.critic_lr > 0) or not 0 <= self.beta1 < 1:
            raise ConfigError(
                f"critic_lr={self.critic_lr}, beta1={self.beta1}: expected a learning rate > 0 (None: as for the generator) "
                "and a decay in [0, 1)."
            )


def with_condition(x: Tensor, c: Tensor | None) -> Tensor:
    """(B, P + C) flat inputs x (B, *shape) and what is known of each, c (B, C); None: nothing."""
    return x.flatten(1) if c is None else torch.cat([x.flatten(1), c], 1)


class GAN(nn.Module):
    """A generator and a critic that is a classifier (Goodfellow et al. 2014); the base of GANs with another critic.

    Both players may be told something of each sample, a condition c (B, C): here the task, one-hot.

    Args:
        shape: shape of one sample, P = prod(shape) values.
        cfg: settings of the game, `GANConfig`, and whatever another critic needs.
        bounded: are the values in [0, 1] (images), or any numbers (points of the plane)?
        n_condition: numbers C in the condition; 0: none.
    """

    def __init__(self, shape: Sequence[int], cfg: Any, bounded: bool = True, n_condition: int = 0) -> None:
        super().__init__()
        self.shape, self.cfg, self.bounded = tuple(shape), cfg, bounded
        self.generator = mlp((cfg.z + n_condition,), cfg.hidden, math.prod(shape))
        self.critic = self.make_critic(math.prod(shape) + n_condition)

    def margin_at(self, progress: float | Tensor) -> float | Tensor:
        """The margin at a progress in [0, 1) of the training, or of the task; a classifier has none."""
        return 0.0

    def make_critic(self, n_in: int) -> nn.Module:
        """The critic: here one logit, positive for "real"."""
        return mlp((n_in,), self.cfg.critic_hidden, 1)

    def sample(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Noise (B, z) from N(0, I) -> samples (B, *shape)."""
        x = self.generator(with_condition(z, c))
        return (x.sigmoid() if self.bounded else x).view(-1, *self.shape)

    def energy(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(B,) the energy of x (B, *shape): for a classifier the surprise -log p(real | x), in nats."""
        return F.softplus(-self.critic(with_condition(x, c)).squeeze(1))

    def critic_losses(
        self, x: Tensor, n: int, margin: float | Tensor, c: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(n,) and (B - n,) the critic's loss on each of x (B, *shape): n real samples, then generated ones."""
        real, generated = self.critic(with_condition(x, c)).squeeze(1).tensor_split([n])
        # L_D = -log D(x) - log(1 - D(G(z))), with D the sigmoid of the logit
        return F.softplus(-real), F.softplus(generated)

    def generator_losses(self, fake: Tensor, c: Tensor | None = None) -> Losses:
        """The generator's loss terms, scalars, on samples `fake` (B, *shape) that carry its gradient."""
        # L_G = -log D(G(z)), which unlike log(1 - D(G(z))) has a gradient where the critic is sure
        return {"generator": self.energy(fake, c).mean()}


def cooled(progress: float) -> float:
    """A learning-rate scale: 1 for the first half of the training, then in a straight line to 0."""
    return min(1.0, 2 - 2 * progress)


def optimizers(gan: GAN) -> dict[str, Optimizer]:
    """One Adam for each of the two players."""
    cfg = gan.cfg
    return {
        "critic": adam(gan.critic.parameters(), cfg.critic_lr or cfg.lr, betas=(cfg.beta1, 0.999)),
        "generator": adam(gan.generator.parameters(), cfg.lr, betas=(cfg.beta1, 0.999)),
    }


class Past(NamedTuple):
    """What the generator made before the task, from which noise, and the weight of making it again, in [0, 1]."""

    z: Tensor  # (R, z)
    c: Tensor  # (R, C)
    made: Tensor  # (R, *shape)
    weight: float


class Round(NamedTuple):
    """What one round of the game is about: real samples and their weights, which sum to 1, noise, conditions, margin."""

    x: Tensor  # (B, *shape)
    weight: Tensor  # (B,)
    z: Tensor  # (B', z)
    margin: float | Tensor
    c: Tensor | None = None  # (B, C)
    c_fake: Tensor | None = None  # (B', C)
    past: Past | None = None


def critic_terms(gan: GAN, now: Round, fake: Tensor) -> Losses:
    """The critic's loss terms, scalars, with generated samples `fake` (B', *shape)."""
    c = None if now.c is None or now.c_fake is None else torch.cat([now.c, now.c_fake])
    # Real and generated samples go through the critic together: one large matrix product instead of two.
    real, generated = gan.critic_losses(torch.cat([now.x, fake.detach()]), len(now.x), now.margin, c)
    return {"real": now.weight @ real, "fake": generated.mean()}


def generator_terms(gan: GAN, now: Round, fake: Tensor) -> Losses:
    """The generator's loss terms, scalars, on generated samples `fake` (B', *shape) that carry its gradient."""
    losses = gan.generator_losses(fake, now.c_fake)
    if now.past is None:
        return losses
    z, c, made, weight = now.past
    # L = (1 - w) L_G + w E_z ‖G(z, c) - G_old(z, c)‖: the same noise shall make what it made before
    drift = torch.linalg.vector_norm((gan.sample(z, c) - made).flatten(1), dim=1).mean()
    return {**{name: (1 - weight) * value for name, value in losses.items()}, "alignment": weight * drift}


def update(gan: GAN, opts: dict[str, Optimizer], now: Round) -> Losses:
    """One step of the critic, then one of the generator against the new critic; returns all terms, detached."""
    fake = gan.sample(now.z, now.c_fake)  # once for both: the generator does not change in between
    critic = critic_terms(gan, now, fake)
    _descend(critic, opts["critic"], gan.critic)
    generated = generator_terms(gan, now, fake)
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

    Raises:
        DivergedError: a loss is no finite number any more.
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
            row = {name: float(value) for name, value in sums.items()}
            if not all(map(math.isfinite, row.values())):
                raise DivergedError(
                    f"the game diverged in step {step + 1}: expected finite losses, choose a smaller learning rate than "
                    f"lr={gan.cfg.lr:g}."
                )
            rows.append(row)
            sums = {}
    if watch is not None:
        watch(steps)
    return rows
