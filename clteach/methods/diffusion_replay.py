r"""Diffusion models that learn tasks one after the other: standard replay, and generative distillation.

A small class-conditional diffusion model (`clteach.models.diffusion`; Ho, Jain & Abbeel 2020) learns to guess the noise in
an image of any noise level,

$$\mathcal{L}(x) = \mathbb{E}_{t, \varepsilon} \big\| \varepsilon - \varepsilon_\theta(x_t, t) \big\|^2, \qquad
x_t = \sqrt{\bar\alpha_t}\, x + \sqrt{1 - \bar\alpha_t}\, \varepsilon,$$

per pixel here, with t drawn evenly from 1..T. It is told the class and the task of an image. Before each task it dreams a
set of images x̃ of the past, every past task alike, with few DDIM steps (Song, Meng & Ermon 2021). They differ in what is
learned from it:

* **fine-tuned**: nothing. The lower bound.
* **with replay** (Shin et al. 2017; DDGR of Gao & Liu 2023 does it for a classifier): dreams are treated like real images.
  What is handed on is only where the old model's chains *end*, with the errors of few steps in it; the next generation
  learns to end there, and adds errors of its own.
* **generative distillation** (Masip, Rodriguez, Tuytelaars & van de Ven 2023): dreams are noised to every level, but the
  target is what the *old model* says of them,

  $$\mathcal{L}_{\text{distil}} = \mathbb{E}_{t, \varepsilon}
  \big\| \varepsilon_{\text{old}}(\tilde x_t, t) - \varepsilon_\theta(\tilde x_t, t) \big\|^2,$$

  so the whole way back is handed on. A dream says where to ask, no longer what is true.
* **joint**: it keeps all data.

Every task counts alike, the new one $\frac1n$ of n. Beside them, `clteach.methods.dream_replay` feeds a classifier from the
distilled model, steered or not (GUIDE; Cywiński et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from clteach.data.tasks import Batch, Data, Spec, Stream
from clteach.errors import ConfigError
from clteach.learners.gan import cooled
from clteach.learners.generator import PureGenerator
from clteach.learners.learner import Losses, Noise, Phase
from clteach.learners.optim import adam
from clteach.learners.replay import empty_samples, read_samples, write_samples
from clteach.models.diffusion import Diffusion, Guide
from clteach.models.frozen import frozen_copy, refresh
from clteach.models.nets import one_hot
from clteach.seeding import seeded
from clteach.settings import MOST_SAMPLES, MOST_UNITS, within

AT_ONCE = 1000  # samples


def drawn(weights: Tensor, rng: torch.Generator) -> Tensor:
    """(N,) a column for each row of weights (N, K) ≥ 0, as often as its share of the row; a GPU need not wait for it."""
    total = weights.cumsum(1)
    u = torch.rand(len(weights), 1, generator=rng, device=rng.device)
    return (total <= u * total[:, -1:]).sum(1)


class DiffusionGenerator(PureGenerator):
    """A diffusion model that is told task and class; base of the four, which set what they do about the past."""

    @dataclass(frozen=True)
    class Config(PureGenerator.Config):
        """Settings of the diffusion models."""

        hidden: tuple[int, ...] = (256, 256)
        """units of the dense network's hidden layers (SiLU)"""
        network: Literal["auto", "mlp", "conv"] = "auto"
        """what guesses the noise: a dense network, a convolutional one, or (auto) the latter for images from 16 x 16"""
        channels: int = 32
        """channels of the convolutional network's first stage, divisible by 8"""
        embedding: int = 32
        """numbers that tell the network the noise level, and as many for task and class; even"""
        noise_levels: int = 1000
        """T, number of noise levels"""
        schedule: Literal["cosine", "linear"] = "cosine"
        """how fast the image drowns in noise"""
        sampling_steps: int = 20
        """DDIM steps of the samples that are judged or asked for"""
        replay_steps: int = 10
        """DDIM steps of the samples that are replayed"""
        stored_samples: int = 2000
        """number of samples of the past that are dreamt before each task"""
        fresh_optimizer: bool = True
        """forget Adam's moments at the start of every task"""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("diffusion", 2, MOST_UNITS, embedding=self.embedding, noise_levels=self.noise_levels)
            within("diffusion", 8, MOST_UNITS, channels=self.channels)
            within("diffusion", 1, self.noise_levels, sampling_steps=self.sampling_steps)
            within("diffusion", 1, self.noise_levels, replay_steps=self.replay_steps)
            within("diffusion", 1, MOST_SAMPLES, stored_samples=self.stored_samples)
            if self.embedding % 2 or self.channels % 8:
                raise ConfigError(
                    f"diffusion: embedding={self.embedding}, channels={self.channels}: expected an even embedding (sines "
                    "and cosines) and channels divisible by 8."
                )

    replays: ClassVar[bool] = False
    distils: ClassVar[bool] = False
    shares: Tensor  # (n_tasks, n_out) how the images of each task are spread over the classes
    stored: Tensor  # (S, *shape) dreams of the past
    stored_y: Tensor  # (S,) what they were asked to be of
    stored_task: Tensor  # (S,)

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0) -> None:
        super().__init__(spec, cfg, seed)
        cfg = self.cfg
        with seeded(seed, "diffusion"):
            self.net = Diffusion(
                spec.shape,
                spec.n_tasks,
                spec.n_out,
                cfg.hidden,
                cfg.channels,
                cfg.embedding,
                cfg.noise_levels,
                cfg.schedule,
                cfg.network,
            )
        self.opts["diffusion"] = adam(self.net.parameters(), cfg.lr)
        self.old = frozen_copy(self.net) if self.distils else None
        own = torch.zeros(spec.n_tasks, spec.n_out)
        for t, units in enumerate(spec.units):
            own[t, list(units)] = 1 / len(units)
        self.register_buffer("shares", own)
        size = cfg.stored_samples if self.replays else 0
        self.register_buffer("stored", empty_samples(size, spec.shape))
        self.register_buffer("stored_y", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("stored_task", torch.zeros(size, dtype=torch.int64))

    def phases(self, t: int, steps: int) -> list[Phase]:
        return [Phase("train", steps, cooled, self.cfg.fresh_optimizer)]

    @torch.no_grad()
    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        if self.old is not None:
            refresh(self.old, self.net)
        if self.replays and t > 0:
            # Now, before the first step, the network still is the previous one.
            task = torch.arange(len(self.stored), device=rng.device) % t  # an equal share of every past task
            y = self.classes_of(task, rng)
            for rows in (slice(i, i + AT_ONCE) for i in range(0, len(task), AT_ONCE)):
                write_samples(self.stored, rows, self.net.sample(task[rows], y[rows], rng, self.cfg.replay_steps))
            self.stored_y.copy_(y)
            self.stored_task.copy_(task)
        found = one_hot(data.task, self.spec.n_tasks).T @ one_hot(data.y, self.spec.n_out)  # (n_tasks, n_out) images
        here = found.sum(1, keepdim=True)
        self.shares.copy_(torch.where(here > 0, found / here.clamp_min(1), self.shares))

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        r = n if self.replays and self.t > 0 else 0
        where: dict[str, Any] = {"generator": rng, "device": rng.device}
        return {
            "t": torch.randint(1, self.cfg.noise_levels + 1, (n + r,), **where),
            "eps": torch.randn(n + r, *self.spec.shape, **where),
            "stored": torch.randint(max(len(self.stored), 1), (r,), **where),
        }

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        n, r = len(batch.x), len(noise["stored"])
        x, task, y = batch.x, batch.task, batch.y
        if r:
            # Real and replayed images go through the network together: one large matrix product instead of two.
            which = noise["stored"]
            x = torch.cat([x, read_samples(self.stored, which)])
            task, y = torch.cat([task, self.stored_task[which]]), torch.cat([y, self.stored_y[which]])
        t, target = noise["t"], noise["eps"]
        x_t = self.net.noised(x, t, noise["eps"])
        if r and self.old is not None:
            with torch.no_grad():
                taught = self.old(x_t[n:], t[n:], task[n:], y[n:])
            target = torch.cat([target[:n], taught])
        # L = ‖ε - ε_θ(x_t, t)‖², of dreams ‖ε_old(x̃_t, t) - ε_θ(x̃_t, t)‖² where the old model teaches
        loss = (target - self.net(x_t, t, task, y)).square().flatten(1).mean(1)
        if r == 0:
            return {"current": loss.mean()}
        # L = 1/n L_current + (1 - 1/n) L_replay
        share = 1 / (self.t + 1)
        return {"current": share * loss[:n].mean(), "replay": (1 - share) * loss[n:].mean()}

    def classes_of(self, tasks: Tensor, rng: torch.Generator) -> Tensor:
        """(N,) a class for each sample of tasks (N,), as frequent as in the task."""
        return drawn(self.shares[tasks], rng)

    @torch.no_grad()
    def sample(
        self, n: int, rng: torch.Generator, classes: Tensor | None = None, tasks: Tensor | None = None
    ) -> Tensor:
        """(n, *shape) samples in [0, 1] of classes (output units) or tasks (n,), or both.

        Of classes alone each is from one of the tasks learned so far that has the class; without either, the samples are of
        all tasks learned so far, equally often.

        Raises:
            ConfigError: a class that no task learned so far has.
        """
        if classes is None:
            return super().sample(n, rng, tasks=tasks)
        if tasks is None:
            having = self.shares[: max(self.t, 0) + 1, classes].T  # (n, tasks)
            if not bool(having.any(1).all()):
                raise ConfigError(f"{self.name}: classes={classes.tolist()} has classes that no task so far has.")
            tasks = drawn(having, rng)
        return self.net.sample(tasks, classes, rng, self.cfg.sampling_steps)

    def dream(self, tasks: Tensor, rng: torch.Generator, guide: Guide | None = None, strength: float = 1.0) -> Tensor:
        """(n, *shape) samples in [0, 1], one of each of the tasks (n,); steered by `guide` if there is one."""
        y = self.classes_of(tasks, rng)
        return self.net.sample(tasks, y, rng, self.cfg.sampling_steps, guide=guide, strength=strength)


class FinetunedDiffusion(DiffusionGenerator):
    """One diffusion model, trained on each task in turn with nothing against forgetting (lower bound)."""

    name = "diffusion-finetune"
    summary = "a diffusion model trained on each task in turn (lower bound)"


class ReplayDiffusion(DiffusionGenerator):
    """One diffusion model that learns from its own old samples as if they were real (standard generative replay)."""

    name = "diffusion-replay"
    summary = "a diffusion model that learns from its own old samples too"
    replays = True


class DistilledDiffusion(DiffusionGenerator):
    """Generative distillation (Masip et al. 2023): the old model teaches the new one at every noise level."""

    name = "diffusion-distill"
    summary = "a diffusion model taught by its former self at every noise level (Masip 2023)"
    replays = True
    distils = True


class JointDiffusion(DiffusionGenerator):
    """One diffusion model that trains on all data so far (the usual upper bound)."""

    name = "diffusion-joint"
    summary = "a diffusion model trained on the data of all tasks so far (the usual upper bound)"

    def training_data(self, stream: Stream, t: int) -> Data:
        return Data.concat([task.train for task in stream.tasks[: t + 1]])
