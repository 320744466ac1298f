r"""Context-dependent gating (XdG): give every task its own random part of the network.

Masse, Grant & Freedman 2018. For every task a fixed random subset of a share X of the units of each hidden layer is
switched off:

$$h^{(l)} = m^{(l)}_t \odot \mathrm{ReLU}\big(W^{(l)} h^{(l-1)} + b^{(l)}\big), \qquad m^{(l)}_t \in \{0, 1\}^{n_l},\quad
\sum_j m^{(l)}_{t,j} = n_l - \lfloor X n_l \rfloor .$$

With X = 0.9 a task uses 1 % of the connections between two hidden layers, and shares about 1 % of these with another task,
so there is little to interfere with. The price: the task must be known, also when the network is used. The masks are part
of the saved model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clteach.data.tasks import Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Classifier, NetMaker
from clteach.methods.si import SI
from clteach.models.nets import gated, hidden_units
from clteach.seeding import generator


class XdG(Classifier):
    """Context-dependent gating (Masse et al. 2018). Task-IL only."""

    name = "xdg"
    summary = "a random part of the network for every task (Masse 2018)"
    scenarios = ("task",)
    needs = "it must know the task to choose the units that are switched on"
    needs_borders = False  # the gates follow the task of each sample

    @dataclass(frozen=True)
    class Config(Classifier.Config):
        """XdG's settings."""

        share: float = 0.9
        """share X of the units of every hidden layer that is switched off, in [0, 1) (0: fine-tuning)"""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 <= self.share < 1:
                raise ConfigError(f"xdg: share={self.share}, expected a share in [0, 1).")

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        self.gated_units = hidden_units(self.net, spec.shape)
        if not self.gated_units:
            raise ConfigError(
                f"{self.name}: nothing to gate. Expected a network with hidden layers whose activations are layers of their "
                "own, as in nn.Sequential(..., nn.ReLU(), ...)."
            )
        for layer, units in enumerate(self.gated_units):
            gates = torch.ones(spec.n_tasks, units)
            n_off = int(self.cfg.share * units)
            for task in range(spec.n_tasks):
                off = torch.randperm(units, generator=generator(seed, "gates", layer, task))[:n_off]
                gates[task, off] = 0
            self.register_buffer(f"gates_{layer}", gates)

    def predict(self, x: Tensor, task: Tensor | None = None) -> Tensor:
        """(B, n_out) logits of inputs x (B, *shape) of the tasks `task` (B,).

        Raises:
            ConfigError: `task` is missing.
        """
        if task is None:
            raise ConfigError(f"{self.name}: predict needs the task of every sample (B,), got None: {self.needs}.")
        # h = m_t ⊙ ReLU(W h + b)
        return gated(self.net, x, [self.get_buffer(f"gates_{i}")[task] for i in range(len(self.gated_units))])


class SIXdG(SI, XdG):
    """SI together with XdG, the best of both where the task is known (Masse et al. 2018)."""

    name = "si-xdg"
    summary = "SI and XdG together (Masse 2018)"
    needs_borders = True

    @dataclass(frozen=True)
    class Config(SI.Config, XdG.Config):
        """Settings of SI and of XdG."""
