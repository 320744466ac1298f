r"""Separate networks: a network for every task, and nothing shared.

$$p(y \,|\, x, t) = \mathrm{softmax}\big(f_{\theta_t}(x)\big)_y, \qquad
\theta_t = \arg\min_\theta\; \mathbb{E}_{(x, y) \sim \text{task } t}\big[-\log \mathrm{softmax}(f_\theta(x))_y\big]$$

No weight serves two tasks, so nothing is forgotten, and nothing learned in one task helps in another. That makes it the
bound of what not sharing costs (van de Ven, Tuytelaars & Tolias 2022): a method that shares weights gains by it only if it
does better. The task must be known, and what is kept grows with every task; the paper gives each network so few units (100
and 100 on split MNIST) that all of them together have about as many weights as the one network of the other methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clteach.data.tasks import Batch, Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Learner, Losses, NetMaker, Noise, made
from clteach.learners.optim import adam
from clteach.models.nets import mlp
from clteach.seeding import seeded


class SeparateNetworks(Learner):
    """A network for every task, trained on that task alone. Task-IL only."""

    name = "separate-networks"
    summary = "a network for every task, nothing shared"
    scenarios = ("task",)
    needs = "it must know the task to choose the network"
    takes_net = True

    @dataclass(frozen=True)
    class Config(Learner.Config):
        """Settings of separate networks."""

        hidden: tuple[int, ...] = (100, 100)
        """units of each hidden layer (ReLU) of every network"""

    position: Tensor  # (n_tasks, n_out) where a unit stands among those of a task

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        self.networks = nn.ModuleList()
        position = torch.zeros(spec.n_tasks, spec.n_out, dtype=torch.int64)
        for t, units in enumerate(spec.units):
            with seeded(seed, "classifier", t):
                n = len(units)
                self.networks.append(mlp(spec.shape, self.cfg.hidden, n) if net is None else made(net, spec.shape, n))
            position[t, list(units)] = torch.arange(n)
        self.register_buffer("position", position)
        # Networks without a gradient stay as they are, and so do their moments: one Adam serves them all.
        self.opts["classifiers"] = adam([p for p in self.networks.parameters() if p.requires_grad], self.cfg.lr)

    def loss(self, batch: Batch, noise: Noise) -> Losses:
        logits = self.networks[self.t](batch.x)  # (B, units of the task)
        # -log softmax(f_θt(x))_y, with y counted among the units of task t
        return {"current": nn.functional.cross_entropy(logits, self.position[self.t].index_select(0, batch.y))}

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """(B, n_out) logits of inputs x (B, *shape) of the tasks `task` (B,); 0 for the units of other tasks.

        Raises:
            ConfigError: `task` is missing.
        """
        if task is None:
            raise ConfigError(f"{self.name}: predict needs the task of every sample (B,), got None: {self.needs}.")
        logits = torch.zeros(len(x), self.spec.n_out, dtype=x.dtype, device=x.device)
        for t in task.unique().tolist():
            rows = (task == t).nonzero().flatten()
            units = torch.tensor(self.spec.units[t], device=x.device)
            logits[rows[:, None], units] = self.networks[t](x.index_select(0, rows))
        return logits
