r"""Online EWC: one penalty for the whole past instead of one per task.

Schwarz et al. 2018. After task t the Fisher informations of all tasks are merged into one that slowly decays, and the
penalty is centred at the newest weights, which already hold what is known of the past:

$$\tilde F_t = \gamma\, \tilde F_{t-1} + F_t, \qquad
\mathcal{L}_{t+1}(\theta) = \mathcal{L}_{\text{task } t+1}(\theta)
  + \frac{\lambda}{2} \sum_i \tilde F_{t,i} \big(\theta_i - \theta^{*}_{t,i}\big)^2 .$$

With γ = 1 nothing decays; the difference from EWC is then only the centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.utils import parameters_to_vector

from clteach.data.tasks import Data
from clteach.errors import ConfigError
from clteach.learners.fisher import fisher_diagonal
from clteach.methods.ewc import EWC


class OnlineEWC(EWC):
    """Online elastic weight consolidation (Schwarz et al. 2018)."""

    name = "online-ewc"
    summary = "EWC with one decaying penalty for the whole past (Schwarz 2018)"

    @dataclass(frozen=True)
    class Config(EWC.Config):
        """Online EWC's settings."""

        gamma: float = 1.0
        """share γ of the old Fisher information that is kept when a task ends, in [0, 1]"""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 <= self.gamma <= 1:
                raise ConfigError(f"online-ewc: gamma={self.gamma}, expected a share in [0, 1].")

    def end_task(self, t: int, data: Data, rng: torch.Generator) -> None:
        fisher = fisher_diagonal(self.net, data, self.active_now[t], self.cfg.fisher_labels, self.cfg.fisher_samples)
        # λ F̃_t = γ λ F̃_{t-1} + λ F_t, centred at the weights of now
        curvature = self.cfg.gamma * self.penalty.curvature + self.cfg.lam * parameters_to_vector(fisher)
        self.penalty.replace(curvature, self.penalty.flat())
