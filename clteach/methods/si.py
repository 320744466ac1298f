r"""Synaptic intelligence (SI): measure each weight's importance on the way, not at the end.

Zenke, Poole & Ganguli 2017. Along the path of training, the loss falls by about $-g_i\,\Delta\theta_i$ per step because of
weight i. Summed over a task this path integral is the weight's share in what was learned,

$$\omega_i = -\sum_{\text{steps}} g_i\, \Delta\theta_i, \qquad
\Omega_i \leftarrow \Omega_i + \frac{\omega_i}{(\theta^{\text{end}}_i - \theta^{\text{start}}_i)^2 + \varepsilon},$$

divided by the square of how far the weight moved, so that a quadratic penalty of strength c = 1 would take back just
as much (ε keeps weights that hardly moved from exploding):

$$\mathcal{L}(\theta) = \mathcal{L}_{\text{task}}(\theta)
  + c \sum_i \Omega_i \big(\theta_i - \theta^{\text{end}}_i\big)^2 .$$

There is no ½ here, unlike in EWC. Which gradient g is meant, that of the task's loss alone (the authors' code) or of the
total loss with the penalty in it (the code behind the tables of van de Ven & Tolias), is a setting: it changes the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from clteach.data.tasks import Batch, Data, Spec
from clteach.errors import ConfigError
from clteach.learners.learner import Classifier, Losses, NetMaker, Noise, Phase, total, uniform
from clteach.learners.penalty import Quadratic
from clteach.settings import LARGEST, within


class SI(Classifier):
    """Synaptic intelligence (Zenke et al. 2017)."""

    name = "si"
    summary = "hold weights by their share in past learning (Zenke 2017)"

    @dataclass(frozen=True)
    class Config(Classifier.Config):
        """SI's settings."""

        c: float = 0.5
        """strength c of the penalty, ≥ 0 (0: fine-tuning)"""
        epsilon: float = 0.1
        """ε > 0, damping of the importance of weights that hardly moved"""
        gradient: Literal["total", "task"] = "total"
        """gradient in the path integral: of the total loss with the penalty, or of the task's loss alone"""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not (self.c >= 0 and self.epsilon > 0):
                raise ConfigError(f"si: c={self.c}, epsilon={self.epsilon}, expected a strength ≥ 0 and ε > 0.")
            within("si", 1e-30, LARGEST, epsilon=self.epsilon)  # below, float32 divides 0 by 0 where no weight moved

    penalty: Quadratic
    omega: Tensor  # (P,) ω, the path integral of the current task
    importance: Tensor  # (P,) Ω
    start: Tensor  # (P,) the weights when the task began

    def __init__(self, spec: Spec, cfg: Any = None, seed: int = 0, net: NetMaker | None = None) -> None:
        super().__init__(spec, cfg, seed, net)
        self.penalty = Quadratic(self.net.parameters())
        for name in ("omega", "importance", "start"):
            self.register_buffer(name, torch.zeros_like(self.penalty.centre))

    def begin_phase(self, t: int, phase: Phase, data: Data, rng: torch.Generator) -> None:
        super().begin_phase(t, phase, data, rng)
        self.omega.zero_()
        self.start.copy_(self.penalty.flat())

    @uniform
    def step(self, batch: Batch, noise: Noise) -> Losses:
        parameters = list(self.net.parameters())
        for opt in self.opts.values():
            opt.zero_grad(set_to_none=True)
        losses = self.loss(batch, noise)
        total(losses).backward()
        alone = (
            [None if p.grad is None else p.grad.clone() for p in parameters] if self.cfg.gradient == "task" else None
        )
        self.penalty.add_grad_()
        before = [p.detach().clone() for p in parameters]
        for opt in self.opts.values():
            opt.step()
        with torch.no_grad():
            gradients = [p.grad for p in parameters] if alone is None else alone
            omegas = self.omega.split(self.penalty.sizes, -1)
            for omega, g, p, old in zip(omegas, gradients, parameters, before, strict=True):
                if g is not None:  # none where a weight is frozen, or its layer not used
                    # ω ← ω - g Δθ, with -Δθ in the place of the old weight: no further tensor
                    omega.view_as(p).addcmul_(g, old.sub_(p))
        return {name: value.detach() for name, value in losses.items()}

    def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
        super().end_task(t, data, rng)
        theta = self.penalty.flat()
        # Ω ← Ω + ω / (Δ² + ε)
        self.importance += self.omega / ((theta - self.start).square() + self.cfg.epsilon)
        # c Σ Ω (θ - θ*)² = ½ Σ (2 c Ω) (θ - θ*)²
        self.penalty.replace(2 * self.cfg.c * self.importance, theta)
