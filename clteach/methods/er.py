r"""Experience replay (ER): keep a few real samples of every class, and replay them.

Rolnick et al. 2019; here as in van de Ven et al. 2022. At the end of a task a fixed number of random samples per class
goes into a memory. In every later step a batch from the memory is learned beside the current one, and each of the n tasks
so far counts alike:

$$\mathcal{L} = \tfrac1n\, \mathcal{L}_{\text{current}} + \big(1 - \tfrac1n\big)\, \mathcal{L}_{\text{memory}}.$$

Simple and strong. It stores data, which generative replay does not.

Where tasks fade into each other there is no end of a task to choose samples at. With a *reservoir* (Vitter 1985) every
sample seen so far is in the memory with the same probability, at any time, and both losses count alike:

$$P(\text{sample } k \text{ is kept}) = \frac{\text{capacity}}{\text{seen}}, \qquad
  \mathcal{L} = \tfrac12\, \mathcal{L}_{\text{current}} + \tfrac12\, \mathcal{L}_{\text{memory}}.$$
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clteach.data.tasks import Batch, Data, Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Classifier, Losses, NetMaker, Noise, uniform
from clteach.learners.replay import Memory, Reservoir
from clteach.settings import MOST_SAMPLES, within


class ER(Classifier):
    """Experience replay from a memory of real samples (Rolnick et al. 2019)."""

    name = "er"
    summary = "replay real samples from a small memory (Rolnick 2019)"
    takes_reservoir = True
    """False for a method that stands on this one and needs the samples of a task together"""

    @dataclass(frozen=True)
    class Config(Classifier.Config):
        """Settings of methods with a memory."""

        per_class: int = 100
        """samples kept per class of a task"""
        reservoir: int | None = None
        """of er: instead, this many random ones of all samples seen, kept as they come: it needs no borders of tasks"""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("memory", 1, MOST_SAMPLES, per_class=self.per_class, reservoir=self.reservoir)

    @classmethod
    def checked(cls, spec: Spec, cfg: Any = None) -> Any:
        cfg = super().checked(spec, cfg)
        if cfg.reservoir is not None and not cls.takes_reservoir:
            raise ConfigError(
                f"{cls.name}: reservoir={cfg.reservoir}, but its memory is of whole tasks. Leave it out, or train er."
            )
        return cfg

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        self.needs_borders = self.cfg.reservoir is None
        if self.cfg.reservoir is None:
            self.memory = Memory(spec, self.cfg.per_class)
        else:
            self.reservoir = Reservoir(spec.shape, self.cfg.reservoir)

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        if self.cfg.reservoir is not None:
            u = torch.rand(2, n, generator=rng, device=rng.device)
            return {"replayed": u[0], "kept": u[1]}
        return {"memory": self.memory.draw(self.t, n, rng)}

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        if self.cfg.reservoir is not None:
            return self.reservoir_loss(batch, noise)
        if self.t == 0:
            return super().loss(batch, noise)
        old = self.memory.batch(noise["memory"])
        logits = self.net(torch.cat([batch.x, old.x]))
        # L = 1/n L_current + (1 - 1/n) L_memory
        share = 1 / (self.t + 1)
        return {
            "current": share * self.cross_entropy(logits[: len(batch.y)], batch),
            "replay": (1 - share) * self.cross_entropy(logits[len(batch.y) :], old),
        }

    def reservoir_loss(self, batch: Batch, noise: Noise) -> Losses:
        """The loss terms where nobody says which task it is: new samples and those of the reservoir count alike."""
        old = self.reservoir.batch(noise["replayed"])
        half = 0.5 * (self.reservoir.seen > 0)  # before the first step there is nothing to replay
        logits = self.net(torch.cat([batch.x, old.x]))
        # L = ½ L_current + ½ L_memory
        return {
            "current": (1 - half) * self.cross_entropy(logits[: len(batch.y)], batch),
            "replay": half * self.cross_entropy(logits[len(batch.y) :], old),
        }

    @uniform
    def step(self, batch: Batch, noise: Noise) -> Losses:
        losses = super().step(batch, noise)
        if self.cfg.reservoir is not None:
            self.reservoir.add(batch, noise["kept"])
        return losses

    def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
        if self.cfg.reservoir is None:
            self.memory.add(t, data, rng)
