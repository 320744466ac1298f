r"""Task inference from replayed data: HNET+TIR (von Oswald et al. 2020).

A hypernetwork remembers every task's network, but must be told which one to generate. So a second network learns to tell
the tasks seen so far apart, from real images of the current task T and samples $\tilde x_t$ of all past tasks t, which the
replay model of `clteach.methods.hypernetwork_replay` makes. The samples' tasks are known, as each one's embedding was
chosen, so no old model needs to label them:

$$\mathcal{L}_{\text{TI}} = -\tfrac12 \log p(T \mid x) - \tfrac12 \log p(t \mid \tilde x_t), \qquad t < T.$$

For an image of unknown task it picks the embedding, $\hat t = \arg\max_t p(t \mid x)$, and the hypernetwork generates
that task's network. Every task has three phases, in which one learns after the other: the hypernetwork, the replay model
and, from the second task on, the classifier of tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from clteach.data.tasks import Batch, Spec
from clteach.learners.learner import Losses, NetMaker, Noise, Phase
from clteach.learners.optim import adam
from clteach.methods.hypernetwork import Hypernetwork, ProtectsPast
from clteach.methods.hypernetwork_replay import REPLAY_MODEL, ReplayModel
from clteach.models.hypernet import Hypernet
from clteach.models.nets import mlp
from clteach.seeding import seeded

TASK_INFERENCE = "task inference"


class HypernetworkTIR(ReplayModel, Hypernetwork):
    """HNET+TIR: a classifier of tasks, trained on replayed samples, picks the embedding (von Oswald et al. 2020)."""

    name = "hypernetwork-tir"
    summary = "hypernetwork, task inferred by a classifier trained on replayed data (von Oswald 2020)"
    scenarios = ("domain", "class")
    needs = "where the task is known there is nothing to infer; use the method hypernetwork"

    @dataclass(frozen=True)
    class Config(ReplayModel.Config, Hypernetwork.Config):
        """Settings of the hypernetwork and of the replay model."""

        decoder_hidden: tuple[int, ...] = (50, 150)
        """units of the decoder's hidden layers"""

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        with seeded(seed, TASK_INFERENCE):
            self.task_net = mlp(spec.shape, self.cfg.hidden, spec.n_tasks)
        self.opts[TASK_INFERENCE] = adam(self.task_net.parameters(), self.cfg.lr)

    def phases(self, t: int, steps: int) -> list[Phase]:
        names = ["train", REPLAY_MODEL, *([TASK_INFERENCE] if t > 0 else [])]  # one task needs no inference
        return [Phase(name, steps, fresh_optimizer=self.cfg.fresh_optimizer) for name in names]

    @property
    def inferring(self) -> bool:
        """Is this the phase in which the classifier of tasks learns?"""
        return self.phase is not None and self.phase.name == TASK_INFERENCE

    def guarded(self) -> tuple[Hypernet, str, float] | None:
        if self.inferring:
            return None
        return ReplayModel.guarded(self) if self.dreaming else Hypernetwork.guarded(self)

    def draw(self, n: int, rng: torch.Generator) -> dict[str, Tensor]:
        in_either = self.dreaming or self.inferring
        return ReplayModel.draw(self, n, rng) if in_either else ProtectsPast.draw(self, n, rng)

    def task_loss(self, batch: Batch, noise: Noise) -> Losses:
        if self.dreaming:
            return {"vae": self.vae.loss(self.t, batch.x, batch.y, noise["eps"])}
        if not self.inferring:
            return Hypernetwork.task_loss(self, batch, noise)
        replayed = self.replayed(noise)
        logits = self.task_net(torch.cat([batch.x, replayed.x]))[:, : self.t + 1]  # the tasks seen compete
        now, past = logits.split([len(batch.x), len(replayed.x)])
        # L_TI = -½ log p(T|x) - ½ log p(t|x̃_t)
        return {
            "current": 0.5 * F.cross_entropy(now, batch.task),
            "replay": 0.5 * F.cross_entropy(past, replayed.task),
        }

    def infer_task(self, x: Tensor) -> Tensor:
        """(B,) the task, among those seen so far, that the classifier of tasks chooses for inputs x (B, *shape)."""
        return self.task_net(x)[:, : max(self.t, 0) + 1].argmax(1)

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """(B, n_out) log-probabilities of inputs x (B, *shape), by the network of the inferred task; `task` is ignored."""
        return self.choose(self.logits(x), self.infer_task(x))
