r"""Diffusion models: noise is added to an image in many small steps, and a network learns to take it away again.

**Forwards** nothing is learned. Level t = 0 is the image, scaled to [-1, 1]; at level T next to nothing of it is left,

$$q(x_t \mid x_0) = \mathcal{N}\big(\sqrt{\bar\alpha_t}\, x_0,\; (1 - \bar\alpha_t)\, I\big), \qquad
\bar\alpha_t = \prod_{s \le t} \alpha_s, \quad \bar\alpha_0 = 1.$$

**Backwards** (Ho, Jain & Abbeel 2020) a network guesses the noise, $\hat\varepsilon = \varepsilon_\theta(x_t, t)$, and with
it the image, $\hat x_0 = (x_t - \sqrt{1 - \bar\alpha_t}\, \hat\varepsilon) / \sqrt{\bar\alpha_t}$. A step from level t to
any lower level t' mixes that guess with what is left of the noise, and with new noise z ~ N(0, I) if σ > 0:

$$x_{t'} = \sqrt{\bar\alpha_{t'}}\, \hat x_0 + \sqrt{1 - \bar\alpha_{t'} - \sigma^2}\, \hat\varepsilon + \sigma z.$$

With σ = 0 this is DDIM (Song, Meng & Ermon 2021): the picture follows from the noise it began with, and few large steps do.
With $\sigma^2 = \frac{1 - \bar\alpha_{t'}}{1 - \bar\alpha_t} \big(1 - \frac{\bar\alpha_t}{\bar\alpha_{t'}}\big)$ it is the
ancestral sampling of DDPM. What to train the network on is the method's business (`clteach.methods.diffusion_replay`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clteach.errors import ConfigError, unknown
from clteach.models.nets import mlp

SCHEDULES = ("cosine", "linear")
Epsilon = Callable[[Tensor, int], Tensor]
"""Guesses the noise: x_t (B, *shape) at level t -> (B, *shape)."""
Guide = Callable[[Tensor], Tensor]
"""What a sample shall be steered to: x̂_0 (B, *shape) in [-1, 1] -> (B,) log-probabilities."""


# ------------------------------------------------------------------------------------------------------- forwards


def noise_schedule(levels: int, kind: str = "cosine") -> Tensor:
    r"""(T + 1,) float64, the share of the signal's variance that is left at each level: 1 at level 0, falling.

    Args:
        levels: T, the number of noise levels; at least 2.
        kind: "linear", with β from 1e-4 to 0.02 at T = 1000, at other T so that as much noise is added in all (Ho et al.
            2020); or "cosine", which destroys the image more evenly (Nichol & Dhariwal 2021).

    Raises:
        ConfigError: another kind, or too few levels.
    """
    if kind not in SCHEDULES:
        raise unknown("noise schedule", kind, SCHEDULES)
    if levels < 2:
        raise ConfigError(f"levels={levels}: expected at least 2 noise levels.")
    if kind == "linear":
        beta = torch.linspace(0.1 / levels, 20 / levels, levels, dtype=torch.float64)
    else:
        # ᾱ_t = f(t) / f(0),  f(t) = cos²(π/2 · (t/T + s) / (1 + s)),  s = 0.008
        f = torch.cos(math.pi / 2 * (torch.linspace(0, 1, levels + 1, dtype=torch.float64) + 0.008) / 1.008).square()
        beta = 1 - f[1:] / f[:-1]
    # α_t = 1 - β_t,  ᾱ_t = Π_{s≤t} α_s
    alpha = 1 - beta.clamp_max(0.999)
    return torch.cat([torch.ones(1, dtype=torch.float64), alpha.cumprod(0)])


def noised(x: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """x_0 (B, *shape) in [-1, 1] and noise (B, *shape) from N(0, I) -> x_t (B, *shape), where ᾱ_t is (B,)."""
    alpha_bar = alpha_bar.view(-1, *[1] * (x.ndim - 1))
    # x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε
    return alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * eps


# ------------------------------------------------------------------------------------------------------ backwards


def level_path(levels: int, steps: int) -> list[int]:
    """The levels that a sampler visits: from T down to 0 in `steps` steps that are as even as whole numbers allow.

    Raises:
        ConfigError: less than one step, or more than there are levels.
    """
    if not 1 <= steps <= levels:
        raise ConfigError(f"steps={steps}: expected at least 1 and at most {levels}, one for every noise level.")
    return [round(levels * (steps - i) / steps) for i in range(steps + 1)]


def predicted_clean(x: Tensor, eps: Tensor, alpha_bar: float) -> Tensor:
    """x_t (B, *shape) and a guess of its noise (B, *shape) at a level with ᾱ_t -> the guess x̂_0 (B, *shape)."""
    # x̂_0 = (x_t - √(1 - ᾱ_t) ε̂) / √ᾱ_t
    return x.mul(1 / math.sqrt(alpha_bar)).sub_(eps, alpha=math.sqrt(1 / alpha_bar - 1))


def reverse_step(
    x: Tensor, eps: Tensor, now: float, then: float, noise: Tensor | None = None, clip: bool = True
) -> Tensor:
    """One step backwards: x_t (B, *shape) -> x_t' (B, *shape).

    Args:
        x: x_t.
        eps: the guess of its noise.
        now: ᾱ_t < 1.
        then: ᾱ_t' > ᾱ_t.
        noise: (B, *shape) from N(0, I) for a step of ancestral sampling; None: a step of DDIM.
        clip: keep x̂_0 in [-1, 1], where images are, and let ε̂ be what then is left of x_t.
    """
    clean = predicted_clean(x, eps, now)
    if clip:
        clean = clean.clamp_(-1, 1)
    # σ² = (1 - ᾱ_t') / (1 - ᾱ_t) · (1 - ᾱ_t / ᾱ_t'): none in the last step, where ᾱ_t' = 1
    variance = 0.0 if noise is None else (1 - then) / (1 - now) * (1 - now / then)
    # x_t' = √ᾱ_t' x̂_0 + √(1 - ᾱ_t' - σ²) ε̂ + σ z  with  ε̂ = (x_t - √ᾱ_t x̂_0) / √(1 - ᾱ_t)
    kept = math.sqrt(max(1 - then - variance, 0.0) / (1 - now))
    x = clean.mul_(math.sqrt(then) - kept * math.sqrt(now)).add_(x, alpha=kept)
    return x if noise is None else x.add_(noise, alpha=math.sqrt(variance))


def guided(epsilon: Epsilon, guide: Guide, strength: float, alpha_bar: Sequence[float]) -> Epsilon:
    """A guess of the noise whose samples are steered to where `guide` is high (Dhariwal & Nichol 2021; GUIDE 2024).

    Args:
        epsilon: the guess to be steered; the gradient goes through it.
        guide: log p(y|x̂_0).
        strength: s ≥ 0.
        alpha_bar: ᾱ of every level.
    """

    def steered(x: Tensor, t: int) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            eps = epsilon(x, t)
            log_p = guide(predicted_clean(x, eps, alpha_bar[t])).sum()
            (gradient,) = torch.autograd.grad(log_p, x)
        # ε̂ = ε_θ - s √(1 - ᾱ_t) ∇_{x_t} log p(y|x̂_0)
        return eps.detach().sub_(gradient, alpha=strength * math.sqrt(1 - alpha_bar[t]))

    return steered


@torch.no_grad()
def denoise(
    epsilon: Epsilon,
    x: Tensor,
    alpha_bar: Sequence[float],
    steps: int,
    rng: torch.Generator | None = None,
    clip: bool = True,
) -> Iterator[Tensor]:
    """A chain from pure noise to a sample.

    Args:
        epsilon: guesses the noise.
        x: (B, *shape) noise from N(0, I), at level T.
        alpha_bar: ᾱ of the levels 0..T.
        steps: number of steps, at most T.
        rng: draws the noise of ancestral sampling; None: DDIM, which needs none.
        clip: as in `reverse_step`.

    Yields:
        The steps + 1 states of the chain, each (B, *shape): the noise first, the sample last.

    Raises:
        ConfigError: no such number of steps.
    """
    yield x
    for t, then in pairwise(level_path(len(alpha_bar) - 1, steps)):
        noise = None if rng is None else torch.randn(x.shape, generator=rng, device=x.device)
        x = reverse_step(x, epsilon(x, t), alpha_bar[t], alpha_bar[then], noise, clip)
        yield x


# ------------------------------------------------------------------------------------------------------- networks


def time_codes(levels: int, size: int) -> Tensor:
    """(T + 1, size) what a network is told of each level: sines and cosines of frequencies from 1 to 1/10,000 per level."""
    frequency = torch.exp(-math.log(10_000) * torch.linspace(0, 1, size // 2, dtype=torch.float64))
    angle = torch.arange(levels + 1, dtype=torch.float64)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], 1).float()


class DenseDenoiser(nn.Module):
    """A fully connected network that reads a noisy input and what it is told, side by side; for vectors and tiny images."""

    def __init__(self, shape: Sequence[int], told: int, hidden: Sequence[int]) -> None:
        super().__init__()
        n = math.prod(shape)
        self.net = mlp((n + told,), hidden, n, nn.SiLU)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Noisy inputs (B, *shape) and what is told of them (B, told) -> (B, *shape)."""
        return self.net(torch.cat([x.flatten(1), told], 1)).view_as(x)


class ConvDenoiser(nn.Module):
    """A small U-Net: the image is halved twice and doubled twice, each stage also reads what its twin wrote.

    Squares of 2 x 2 pixels are folded into channels first, so no layer works at the full size.

    Args:
        shape: (C, H, W) of one image, H and W divisible by 4.
        told: numbers that the network is told of an image; each stage adds its own linear map of them to all pixels.
        channels: of the first stage, divisible by 8; the second has twice as many.

    Raises:
        ConfigError: other shapes or channels.
    """

    def __init__(self, shape: Sequence[int], told: int, channels: int) -> None:
        super().__init__()
        if len(shape) != 3 or shape[1] % 4 or shape[2] % 4 or channels % 8:
            raise ConfigError(
                f"inputs of shape {tuple(shape)}, {channels} channels: a convolutional denoiser needs images (C, H, W) with "
                "H and W divisible by 4, and channels divisible by 8. Choose network='mlp' for other inputs."
            )
        n, wide = 4 * shape[0], 2 * channels
        self.read = nn.Conv2d(n, channels, 3, padding=1)
        self.down = nn.Conv2d(channels, wide, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(wide, wide, 3, padding=1)
        self.up = nn.ConvTranspose2d(wide, channels, 4, stride=2, padding=1)
        self.merge = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.write = nn.Conv2d(channels, n, 3, padding=1)
        self.widths = (channels, wide, wide, channels, channels)
        self.tell = nn.Linear(told, sum(self.widths))
        self.norms = nn.ModuleList([nn.GroupNorm(8, width) for width in self.widths])

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """Noisy images (B, C, H, W) and what is told of them (B, told) -> (B, C, H, W)."""
        hints = iter(zip(self.norms, self.tell(told).split(self.widths, 1), strict=True))

        def stage(h: Tensor) -> Tensor:
            norm, hint = next(hints)
            return F.silu(norm(h) + hint[:, :, None, None])

        outer = stage(self.read(F.pixel_unshuffle(x, 2)))  # (B, channels, H/2, W/2)
        inner = stage(self.down(outer))  # (B, 2 channels, H/4, W/4)
        inner = stage(self.middle(inner)) + inner
        h = stage(self.merge(torch.cat([outer, stage(self.up(inner))], 1)))
        return F.pixel_shuffle(self.write(h), 2)


class Diffusion(nn.Module):
    """A diffusion model that is told task and class: its noise levels, the network ε_θ, and sampling.

    Args:
        shape: shape of one input.
        n_tasks, n_classes: what it can be told of.
        hidden: units of the hidden layers (SiLU) of the dense network.
        channels: channels of the convolutional one.
        embedding: numbers that stand for the level, and as many for task and class.
        levels: T.
        schedule: one of `SCHEDULES`.
        network: "mlp", "conv", or "auto": convolutional for images from 16 x 16 with sides divisible by 4.

    Raises:
        ConfigError: as `noise_schedule` and `ConvDenoiser`.
    """

    alpha_bar: Tensor  # (T + 1,) ᾱ
    times: Tensor  # (T + 1, embedding)

    def __init__(
        self,
        shape: Sequence[int],
        n_tasks: int,
        n_classes: int,
        hidden: Sequence[int] = (256, 256),
        channels: int = 32,
        embedding: int = 32,
        levels: int = 1000,
        schedule: str = "cosine",
        network: str = "auto",
    ) -> None:
        super().__init__()
        self.shape, self.levels = tuple(shape), levels
        alpha_bar = noise_schedule(levels, schedule)
        self.signal: list[float] = alpha_bar.tolist()  # the same numbers for the sampler, which must not wait for a GPU
        self.register_buffer("alpha_bar", alpha_bar.float(), persistent=False)
        self.register_buffer("times", time_codes(levels, embedding), persistent=False)
        self.task_codes = nn.Embedding(n_tasks, embedding)
        self.class_codes = nn.Embedding(n_classes, embedding)
        told = self.times.shape[1] + embedding
        if network == "auto":
            pictures = len(shape) == 3 and min(shape[1:]) >= 16 and shape[1] % 4 == shape[2] % 4 == 0
            network = "conv" if pictures else "mlp"
        self.net: nn.Module = (
            ConvDenoiser(shape, told, channels) if network == "conv" else DenseDenoiser(shape, told, hidden)
        )

    def forward(self, x: Tensor, t: Tensor, task: Tensor, y: Tensor) -> Tensor:
        """ε_θ: noisy inputs x_t (B, *shape) at levels t (B,), of tasks and classes (B,) -> their noise (B, *shape)."""
        told = torch.cat([self.times[t], self.task_codes(task) + self.class_codes(y)], 1)
        signal = self.alpha_bar[t].view(-1, *[1] * (x.ndim - 1))
        # ε̂ = √(1 - ᾱ_t) x_t + √ᾱ_t v̂: where all is noise it is x_t itself, and need not squeeze through the network (the
        # network's output v̂ is the "velocity" of Salimans & Ho 2022)
        return (1 - signal).sqrt() * x + signal.sqrt() * self.net(x, told)

    def noised(self, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Images (B, *shape) in [0, 1] -> x_t (B, *shape) at levels t (B,), with noise eps (B, *shape)."""
        return noised(2 * x - 1, eps, self.alpha_bar[t])

    def chain(
        self,
        task: Tensor,
        y: Tensor,
        rng: torch.Generator,
        steps: int,
        ancestral: bool = False,
        guide: Guide | None = None,
        strength: float = 1.0,
    ) -> Iterator[Tensor]:
        """The way from noise to samples of tasks and classes (B,): see `denoise`, and `guided` for guide and strength."""
        x = torch.randn(len(y), *self.shape, generator=rng, device=rng.device)

        def epsilon(x: Tensor, t: int) -> Tensor:
            return self(x, torch.full_like(y, t), task, y)

        steered = epsilon if guide is None else guided(epsilon, guide, strength, self.signal)
        return denoise(steered, x, self.signal, steps, rng if ancestral else None)

    def sample(self, task: Tensor, y: Tensor, rng: torch.Generator, steps: int, **how: Any) -> Tensor:
        """(B, *shape) samples in [0, 1] of tasks and classes (B,); arguments as for `chain`."""
        # only the end is kept: a thousand states of ten thousand images would take 30 GB
        return deque(self.chain(task, y, rng, steps, **how), maxlen=1).pop().add(1).div_(2).clamp_(0, 1)
